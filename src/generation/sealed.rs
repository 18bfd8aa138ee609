//! One shard's part of a sealed generation: a filter and the first tags of its blocks in memory,
//! the blocks themselves in the file.
//!
//! 1.6 bytes a key in memory. A look-up that the filter lets through reads one block, or more where
//! as many operations share a tag; the filter lets 0.1 % of the tags through that are not there,
//! and never holds back one that is.

use smallvec::SmallVec;

use super::filter::Filter;
use super::index::Entry;
use crate::error::Error;
use crate::storage::{Blocks, ShardBytes};
use crate::sync::Arc;

/// Entries of a block: as many as fill a page with their checksum.
const ENTRIES_PER_BLOCK: usize = 508;

const ENTRY_BYTES: usize = 8;

/// What is kept in memory of one shard.
#[derive(Debug)]
pub(crate) struct Summary {
    /// None where there are no entries or none could be built.
    pub(crate) filter: Option<Filter>,
    pub(crate) blocks: Fences,
}

/// The first tag of each block, by which the block of a tag is found.
#[derive(Debug, Clone)]
pub(crate) struct Fences(Arc<[u32]>);

/// Rows under one tag.
pub(crate) type Rows = SmallVec<[u32; 4]>;

impl Summary {
    /// Of entries sorted by tag and row, and the bytes to write of them. `full` is how many a shard
    /// has at most: those of full generations are to have filters of one shape.
    pub(crate) fn build(shard: u8, entries: &[Entry], full: usize) -> (Self, ShardBytes) {
        let mut tags: Vec<u32> = entries.iter().map(|entry| entry.tag).collect();
        tags.dedup();
        let padded_to = if tags.len() >= full / 4 * 3 { full } else { 0 };
        let tags: Vec<u64> = tags.into_iter().map(u64::from).collect();
        let filter = if tags.is_empty() { None } else { Filter::build(tags, padded_to) };
        let chunks = || entries.chunks(ENTRIES_PER_BLOCK);
        let fences = Fences(chunks().filter_map(|chunk| Some(chunk.first()?.tag)).collect());
        let summary = Summary { filter, blocks: fences };
        let blocks = chunks().map(|chunk| {
            let numbers = chunk.iter().flat_map(|entry| [entry.tag, entry.row]);
            numbers.flat_map(u32::to_le_bytes).collect()
        });
        let bytes = ShardBytes { shard, summary: summary.to_bytes(), blocks: blocks.collect() };
        (summary, bytes)
    }

    /// `length of the filter: u32, zero where there is none │ filter │ first tags`.
    fn to_bytes(&self) -> Vec<u8> {
        let filter = self.filter.as_ref().map_or_else(Vec::new, Filter::to_bytes);
        let length = u32::try_from(filter.len()).unwrap_or(u32::MAX);
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(&filter);
        bytes.extend(self.blocks.0.iter().flat_map(|first| first.to_le_bytes()));
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (length, bytes) = bytes.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (filter, bytes) = bytes.split_at_checked(length)?;
        let (firsts, []) = bytes.as_chunks::<4>() else { return None };
        let filter = match filter {
            [] => None,
            filter => Some(Filter::from_bytes(filter)?),
        };
        let firsts = firsts.iter().map(|first| u32::from_le_bytes(*first)).collect();
        Some(Summary { filter, blocks: Fences(firsts) })
    }
}

impl Fences {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rows under a tag. Reads the disk.
    pub(crate) fn rows(&self, blocks: &Blocks, shard: u8, tag: u32) -> Result<Rows, Error> {
        let mut rows = Rows::new();
        let mut before = self.0.partition_point(|first| *first <= tag);
        while let Some(block) = before.checked_sub(1) {
            // A shard has far fewer blocks than that.
            let number = u32::try_from(block).unwrap_or(u32::MAX);
            blocks.read(shard, number, |bytes| collect(bytes, tag, &mut rows))?;
            if self.0.get(block) != Some(&tag) {
                break;
            }
            // The tag's entries may begin in the block before.
            before = block;
        }
        Ok(rows)
    }

    /// All entries, in order of their tags. Reads the disk.
    pub(crate) fn entries(&self, blocks: &Blocks, shard: u8) -> Result<Vec<Entry>, Error> {
        let mut all = Vec::new();
        for number in (0..).take(self.0.len()) {
            blocks.read(shard, number, |bytes| all.extend(entries(bytes)))?;
        }
        Ok(all)
    }
}

fn entries(block: &[u8]) -> impl Iterator<Item = Entry> {
    let (entries, _) = block.as_chunks::<ENTRY_BYTES>();
    entries.iter().copied().map(read_entry)
}

fn read_entry(entry: [u8; ENTRY_BYTES]) -> Entry {
    let number = |bytes: Option<&[u8; 4]>| bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes));
    Entry { tag: number(entry.first_chunk()), row: number(entry.last_chunk()) }
}

fn collect(block: &[u8], tag: u32, rows: &mut Rows) {
    let (entries, _) = block.as_chunks::<ENTRY_BYTES>();
    let start = entries.partition_point(|entry| read_entry(*entry).tag < tag);
    let under_tag =
        entries.iter().skip(start).copied().map(read_entry).take_while(|entry| entry.tag == tag);
    rows.extend(under_tag.map(|entry| entry.row));
}

/// Reads bytes as a summary and as a block, and asks both for tags.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    if let Some(summary) = Summary::from_bytes(bytes) {
        let tags = (0..64).chain([u64::from(u32::MAX), u64::MAX]);
        tags.for_each(|tag| {
            let _ = summary.filter.as_ref().map(|filter| filter.may_have(tag));
        });
        assert_eq!(
            Summary::from_bytes(&summary.to_bytes()).map(|of| of.filter),
            Some(summary.filter)
        );
    }
    let mut rows = Rows::new();
    (0..64).for_each(|tag| collect(bytes, tag, &mut rows));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(entries: Vec<(u32, u32)>) -> Vec<Entry> {
        let mut entries: Vec<_> =
            entries.into_iter().map(|(tag, row)| Entry { tag, row }).collect();
        entries.sort_unstable();
        entries
    }

    proptest! {
        #[test]
        fn a_summary_reads_back_as_it_was_written(
            entries in prop::collection::vec(any::<(u32, u32)>(), 0..2000).prop_map(sorted),
        ) {
            let (built, bytes) = Summary::build(3, &entries, 1000);
            let read = Summary::from_bytes(&bytes.summary).unwrap();
            prop_assert_eq!(read.filter, built.filter);
            prop_assert_eq!(read.blocks.0, built.blocks.0);
        }

        #[test]
        fn blocks_have_the_rows_of_their_tags_and_no_others(
            entries in prop::collection::vec((0u32..40, any::<u32>()), 0..1000).prop_map(sorted),
        ) {
            let (_, bytes) = Summary::build(3, &entries, 1000);
            for tag in 0..40 {
                let mut rows = Rows::new();
                bytes.blocks.iter().for_each(|block| collect(block, tag, &mut rows));
                let of_tag = entries.iter().filter(|entry| entry.tag == tag);
                let expected: Vec<u32> = of_tag.map(|entry| entry.row).collect();
                prop_assert_eq!(rows.to_vec(), expected);
            }
        }
    }

    #[test]
    fn an_empty_shard_has_nothing() {
        let (summary, bytes) = Summary::build(0, &[], 8);
        assert!(summary.filter.is_none() && summary.blocks.is_empty());
        assert!(bytes.blocks.is_empty());
    }

    #[test]
    fn a_full_block_takes_a_page_of_the_file() {
        // redb's leaf: 4 bytes of header, 4 for the key, 4 for the end of the value.
        const { assert!(ENTRIES_PER_BLOCK * ENTRY_BYTES + 4 + 12 <= 4096) };
    }
}
