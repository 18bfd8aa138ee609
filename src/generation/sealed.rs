//! One shard's part of a sealed generation: a filter and the first tags of its blocks in memory,
//! the blocks themselves in the file.
//!
//! 1.3 bytes a key in memory. A look-up that the filter lets through reads one block, or more where
//! as many operations share a tag; the filter lets 0.4 % of the tags through that are not there,
//! and never holds back one that is.

use smallvec::SmallVec;
use xorf::{BinaryFuse8, DmaSerializable, Filter};

use crate::error::Error;
use crate::storage::{Blocks, ShardBytes};

/// Entries of a block: as many as fill a page with their checksum.
const ENTRIES_PER_BLOCK: usize = 330;

const ENTRY_BYTES: usize = 12;
const DESCRIPTOR_BYTES: usize = BinaryFuse8::DESCRIPTOR_LEN;

/// What is kept in memory of one shard.
#[derive(Debug)]
pub(crate) struct Summary {
    /// None where none could be built: every tag is let through then.
    filter: Option<BinaryFuse8>,
    /// The first tag of each block.
    firsts: Box<[u64]>,
}

/// Rows under one tag.
pub(crate) type Rows = SmallVec<[u32; 4]>;

impl Summary {
    /// Of entries sorted by tag and row; and the bytes to write of them.
    pub(crate) fn build(shard: u8, entries: &[(u64, u32)]) -> (Self, ShardBytes) {
        let mut tags: Vec<u64> = entries.iter().map(|(tag, _)| *tag).collect();
        tags.dedup();
        let chunks = || entries.chunks(ENTRIES_PER_BLOCK);
        let summary = Summary {
            filter: BinaryFuse8::try_from(&tags).ok(),
            firsts: chunks().filter_map(|chunk| Some(chunk.first()?.0)).collect(),
        };
        let blocks = chunks().map(|chunk| {
            let entry = |(tag, row): &(u64, u32)| {
                let mut bytes = [0; ENTRY_BYTES];
                bytes[..8].copy_from_slice(&tag.to_le_bytes());
                bytes[8..].copy_from_slice(&row.to_le_bytes());
                bytes
            };
            chunk.iter().flat_map(entry).collect()
        });
        let bytes = ShardBytes { shard, summary: summary.to_bytes(), blocks: blocks.collect() };
        (summary, bytes)
    }

    /// Whether a tag may be there; where it is, always.
    pub(crate) fn may_have(&self, tag: u64) -> bool {
        !self.firsts.is_empty() && self.filter.as_ref().is_none_or(|filter| filter.contains(&tag))
    }

    /// The rows under a tag. Reads the disk.
    pub(crate) fn rows(&self, blocks: &Blocks, shard: u8, tag: u64) -> Result<Rows, Error> {
        let mut rows = Rows::new();
        let mut before = self.firsts.partition_point(|first| *first <= tag);
        while let Some(block) = before.checked_sub(1) {
            // A shard has far fewer blocks than that.
            let number = u32::try_from(block).unwrap_or(u32::MAX);
            blocks.read(shard, number, |bytes| collect(bytes, tag, &mut rows))?;
            if self.firsts.get(block) != Some(&tag) {
                break;
            }
            // The tag's entries may begin in the block before.
            before = block;
        }
        Ok(rows)
    }

    /// All entries, in order of their tags. Reads the disk.
    pub(crate) fn entries(&self, blocks: &Blocks, shard: u8) -> Result<Vec<(u64, u32)>, Error> {
        let mut all = Vec::new();
        for number in (0..).take(self.firsts.len()) {
            blocks.read(shard, number, |bytes| all.extend(entries(bytes)))?;
        }
        Ok(all)
    }

    /// `filter: descriptor │ length: u32 │ fingerprints`, nothing but a length of zero where there
    /// is none; then the first tags.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; DESCRIPTOR_BYTES];
        let fingerprints = self.filter.as_ref().map_or(&[][..], |filter| {
            filter.dma_copy_descriptor_to(&mut bytes);
            filter.dma_fingerprints()
        });
        let length = u32::try_from(fingerprints.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(fingerprints);
        bytes.extend(self.firsts.iter().flat_map(|first| first.to_le_bytes()));
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (descriptor, bytes) = bytes.split_at_checked(DESCRIPTOR_BYTES)?;
        let (length, bytes) = bytes.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (fingerprints, bytes) = bytes.split_at_checked(length)?;
        let (firsts, []) = bytes.as_chunks::<8>() else { return None };
        let filter = match fingerprints {
            [] => None,
            fingerprints => Some(filter(descriptor, fingerprints)?),
        };
        let firsts = firsts.iter().map(|first| u64::from_le_bytes(*first)).collect();
        Some(Summary { filter, firsts })
    }
}

/// A filter of which every probe lies within its fingerprints.
fn filter(descriptor: &[u8], fingerprints: &[u8]) -> Option<BinaryFuse8> {
    let (seed, lengths) = descriptor.split_first_chunk()?;
    let ([length, mask, count], []) = lengths.as_chunks::<4>() else { return None };
    let [length, mask, count] = [length, mask, count].map(|bytes| u32::from_le_bytes(*bytes));
    let needed = u64::from(count) + 2 * u64::from(length);
    let is_sound = length.is_power_of_two()
        && mask == length - 1
        && count.is_multiple_of(length)
        && needed <= fingerprints.len() as u64;
    is_sound.then(|| BinaryFuse8 {
        descriptor: xorf::Descriptor {
            seed: u64::from_le_bytes(*seed),
            segment_length: length,
            segment_length_mask: mask,
            segment_count_length: count,
        },
        fingerprints: fingerprints.into(),
    })
}

fn entries(block: &[u8]) -> impl Iterator<Item = (u64, u32)> {
    let (entries, _) = block.as_chunks::<ENTRY_BYTES>();
    entries.iter().map(read_entry)
}

fn read_entry(entry: &[u8; ENTRY_BYTES]) -> (u64, u32) {
    let tag = entry.first_chunk().copied().unwrap_or_default();
    let row = entry.last_chunk().copied().unwrap_or_default();
    (u64::from_le_bytes(tag), u32::from_le_bytes(row))
}

fn collect(block: &[u8], tag: u64, rows: &mut Rows) {
    let (entries, _) = block.as_chunks::<ENTRY_BYTES>();
    let start = entries.partition_point(|entry| read_entry(entry).0 < tag);
    let under_tag = entries.iter().skip(start).map(read_entry).take_while(|entry| entry.0 == tag);
    rows.extend(under_tag.map(|(_, row)| row));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(mut entries: Vec<(u64, u32)>) -> Vec<(u64, u32)> {
        entries.sort_unstable();
        entries
    }

    proptest! {
        #[test]
        fn a_tag_that_is_there_is_never_held_back(
            entries in prop::collection::vec(any::<(u64, u32)>(), 0..2000).prop_map(sorted),
        ) {
            let (built, bytes) = Summary::build(3, &entries);
            let read = Summary::from_bytes(&bytes.summary).unwrap();
            for (tag, _) in entries {
                prop_assert!(built.may_have(tag) && read.may_have(tag));
            }
        }

        #[test]
        fn blocks_have_the_rows_of_their_tags_and_no_others(
            entries in prop::collection::vec((0u64..40, any::<u32>()), 0..1000).prop_map(sorted),
        ) {
            let (_, bytes) = Summary::build(3, &entries);
            for tag in 0..40 {
                let mut rows = Rows::new();
                bytes.blocks.iter().for_each(|block| collect(block, tag, &mut rows));
                let expected: Vec<u32> =
                    entries.iter().filter(|entry| entry.0 == tag).map(|entry| entry.1).collect();
                prop_assert_eq!(rows.to_vec(), expected);
            }
        }

        #[test]
        fn bytes_that_are_no_summary_do_no_harm(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            tag: u64,
        ) {
            if let Some(summary) = Summary::from_bytes(&bytes) {
                let _ = summary.may_have(tag);
            }
        }
    }

    #[test]
    fn few_tags_that_are_not_there_are_let_through() {
        let scattered = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let entries = sorted((0..14_336).map(|n| (scattered(n), 0)).collect());
        let (summary, bytes) = Summary::build(0, &entries);
        let through = (14_336..114_336).filter(|n| summary.may_have(scattered(*n))).count();
        assert!((200..600).contains(&through), "{through} of 100,000");
        let in_memory = bytes.summary.len();
        assert!(in_memory < 14_336 * 4 / 3, "{in_memory} bytes");
    }

    #[test]
    fn an_empty_shard_has_nothing() {
        let (summary, bytes) = Summary::build(0, &[]);
        assert!(!summary.may_have(0));
        assert!(bytes.blocks.is_empty());
    }

    #[test]
    fn a_full_block_takes_a_page_of_the_file() {
        // redb's leaf: 4 bytes of header, 4 for the key, 4 for the end of the value.
        const { assert!(ENTRIES_PER_BLOCK * ENTRY_BYTES + 4 + 12 <= 4096) };
    }
}
