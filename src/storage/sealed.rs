//! What sealing adds to a generation's file, and opening it read-only from then on.
//!
//! `index` has the rows of each shard by tag, in blocks of a page; `shards` has, for each shard,
//! what is kept in memory of it: a filter and the first tag of each block. Both carry checksums,
//! since redb does not check what it reads: a flipped bit in them would not show as damage but as
//! a key that was never seen. Blocks and shards are looked up by number and all numbers are there,
//! so what is missing is damage as well.

use redb::{
    Builder, ReadOnlyDatabase, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition,
};

use super::engine::{InFile, guarded};
use super::log::{self, IDENTITY, LogFile, Snapshot, file_name, identify};
use super::manifest::Seal;
use super::{Place, missing_or_io};
use crate::error::Error;
use crate::identity::SHARDS;
use crate::sync::{Arc, Mutex};

const INDEX: TableDefinition<u32, &[u8]> = TableDefinition::new("index");
const SUMMARIES: TableDefinition<u8, &[u8]> = TableDefinition::new("shards");
const SEALED: &str = "sealed";

const CHECKSUM_BYTES: usize = 4;

/// Blocks of one shard's index are numbered within these bits of a block's number.
const BLOCK_BITS: u32 = 24;

/// What is read of a file at once to hash it.
const HASHED_BYTES: usize = 1 << 20;

/// One shard of a generation, as it is written.
#[derive(Debug)]
pub(crate) struct ShardBytes {
    pub(crate) shard: u8,
    pub(crate) summary: Vec<u8>,
    pub(crate) blocks: Vec<Vec<u8>>,
}

/// What is true of a sealed generation as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    /// When the last of its records is over.
    pub(crate) retained_until: u64,
    /// The largest sequence of its records.
    pub(crate) last_sequence: u64,
    /// The latest time of its records.
    pub(crate) last_change: u64,
    /// Operations in its index.
    pub(crate) entries: u64,
    /// The first row of each run of the store that wrote to it, and the run's epoch.
    pub(crate) epochs: Vec<(u32, u32)>,
}

impl LogFile {
    /// Writes the index of some shards, in one commit; shard 0 comes first, and with it goes
    /// whatever a seal that was cut off has left.
    pub(crate) fn add_shards(&self, shards: &[ShardBytes], two_phase: bool) -> Result<(), Error> {
        let generation = self.generation();
        self.write(two_phase, |write, name| {
            if shards.first().is_some_and(|first| first.shard == 0) {
                write.delete_table(INDEX).in_file(name)?;
                write.delete_table(SUMMARIES).in_file(name)?;
            }
            let mut index = write.open_table(INDEX).in_file(name)?;
            let mut summaries = write.open_table(SUMMARIES).in_file(name)?;
            let mut cursor =
                index.upper_bound_mut(std::ops::Bound::<u32>::Unbounded).in_file(name)?;
            for of in shards {
                for (number, block) in (block_number(of.shard, 0)..).zip(&of.blocks) {
                    let block = checked(generation, number, block);
                    cursor.insert_before(number, &block[..]).in_file(name)?;
                }
                let summary = checked(generation, u32::from(of.shard), &of.summary);
                summaries.insert(of.shard, &summary[..]).in_file(name)?;
            }
            cursor.close().in_file(name)
        })
    }

    /// Writes the facts: the index is whole.
    pub(crate) fn finish_index(&self, facts: &Facts, two_phase: bool) -> Result<(), Error> {
        let facts = checked(self.generation(), 0, &facts.to_bytes());
        self.write(two_phase, |write, name| {
            let mut identity = write.open_table(IDENTITY).in_file(name)?;
            identity.insert(SEALED, &facts[..]).in_file(name).map(drop)
        })
    }
}

/// A generation's file that never changes again.
pub(crate) struct SealedFile {
    generation: u32,
    name: Arc<str>,
    database: Mutex<Option<ReadOnlyDatabase>>,
}

impl SealedFile {
    /// Opens a file that was sealed and closed. Where its seal is known, so is its length.
    pub(crate) fn open(place: &Place, generation: u32, seal: Option<&Seal>) -> Result<Self, Error> {
        let file_name = file_name(generation);
        let name: Arc<str> = place.name(&file_name).into();
        let file = place.directory.open(&file_name);
        let file = file.map_err(|error| missing_or_io(place, &file_name, error))?;
        let bytes = file.len().map_err(|error| place.io(&file_name, error))?;
        if let Some(seal) = seal
            && seal.bytes != bytes
        {
            return Err(Error::corrupt(format_args!(
                "{name} has {bytes} bytes and had {} when it was sealed",
                seal.bytes
            )));
        }
        let database = guarded(&name, || {
            Builder::new()
                .set_cache_size(place.cache_bytes_per_sealed_file)
                .open_read_only_with_backend(place.backend(file))
                .in_file(&name)
        })?;
        let file = SealedFile { generation, name, database: Mutex::new(Some(database)) };
        file.with(|database| {
            let read = database.begin_read().in_file(&file.name)?;
            identify(&read, place, generation, &file.name).map(drop)
        })?;
        Ok(file)
    }

    pub(crate) fn facts(&self) -> Result<Facts, Error> {
        self.with(|database| {
            let read = database.begin_read().in_file(&self.name)?;
            let identity = read.open_table(IDENTITY).in_file(&self.name)?;
            let facts = identity.get(SEALED).in_file(&self.name)?;
            facts
                .and_then(|facts| Facts::from_bytes(verified(self.generation, 0, facts.value())?))
                .ok_or_else(|| self.damaged(&"the facts of its seal"))
        })
    }

    /// Hands out what each shard keeps in memory, in their order.
    pub(crate) fn summaries(
        &self,
        mut each: impl FnMut(u8, &[u8]) -> Option<()>,
    ) -> Result<(), Error> {
        self.with(|database| {
            let read = database.begin_read().in_file(&self.name)?;
            let summaries = read.open_table(SUMMARIES).in_file(&self.name)?;
            let mut expected = 0..SHARDS;
            for entry in summaries.iter().in_file(&self.name)? {
                let (shard, bytes) = entry.in_file(&self.name)?;
                let shard = shard.value();
                let in_order = expected.next() == Some(usize::from(shard));
                verified(self.generation, u32::from(shard), bytes.value())
                    .filter(|_| in_order)
                    .and_then(|bytes| each(shard, bytes))
                    .ok_or_else(|| self.damaged(&format_args!("shard {shard}")))?;
            }
            match expected.next() {
                None => Ok(()),
                Some(shard) => Err(self.damaged(&format_args!("shard {shard}"))),
            }
        })
    }

    /// Reads what one shard keeps in memory.
    pub(crate) fn summary<T>(
        &self,
        shard: u8,
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<T, Error> {
        self.with(|database| {
            let view = database.begin_read().in_file(&self.name)?;
            let summaries = view.open_table(SUMMARIES).in_file(&self.name)?;
            let bytes = summaries.get(shard).in_file(&self.name)?;
            bytes
                .and_then(|bytes| read(verified(self.generation, u32::from(shard), bytes.value())?))
                .ok_or_else(|| self.damaged(&format_args!("shard {shard}")))
        })
    }

    /// Views of its rows and of its index.
    pub(crate) fn views(&self) -> Result<(Snapshot, Blocks), Error> {
        let name = &self.name;
        self.with(|database| {
            let read = database.begin_read().in_file(name)?;
            let index = read.open_table(INDEX).in_file(name)?;
            let blocks =
                Blocks { generation: self.generation, name: Arc::clone(name), table: index };
            Ok((log::view(&read, self.generation, name)?, blocks))
        })
    }

    /// Closes the file. Views of it answer `Closed` from then on.
    pub(crate) fn close(&self) -> Result<(), Error> {
        match self.database.lock().take() {
            Some(database) => guarded(&self.name, || database.close().in_file(&self.name)),
            None => Ok(()),
        }
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&ReadOnlyDatabase) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let guard = self.database.lock();
        let database = guard.as_ref().ok_or_else(Error::closed)?;
        guarded(&self.name, || work(database))
    }

    fn damaged(&self, what: &dyn std::fmt::Display) -> Error {
        Error::corrupt(format_args!("{what} in {} cannot be read", self.name))
    }
}

impl std::fmt::Debug for SealedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedFile").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// A view of a sealed generation's index.
pub(crate) struct Blocks {
    generation: u32,
    name: Arc<str>,
    table: ReadOnlyTable<u32, &'static [u8]>,
}

impl Blocks {
    /// Reads one block of a shard; one tree descent, from the cache or the disk.
    pub(crate) fn read<T>(
        &self,
        shard: u8,
        block: u32,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Error> {
        let number = block_number(shard, block);
        // Looking at the bytes may panic on a damaged file, as finding them may.
        let found = guarded(&self.name, || {
            let found = self.table.get(number).in_file(&self.name)?;
            let bytes = found.as_ref().map(redb::AccessGuard::value);
            Ok(bytes.and_then(|bytes| verified(self.generation, number, bytes)).map(read))
        })?;
        found.ok_or_else(|| {
            Error::corrupt(format_args!(
                "block {number} of table index in {} cannot be read",
                self.name
            ))
        })
    }
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blocks").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Place {
    /// An error where a generation's file is not what it was when it was sealed.
    pub(crate) fn verify(&self, generation: u32, seal: &Seal) -> Result<(), Error> {
        let found = self.hash(generation, |_| true)?;
        found.map_or(Ok(()), |found| self.compare(generation, seal, &found))
    }

    /// An error where what was found of a file is not what it was sealed with.
    pub(crate) fn compare(&self, generation: u32, seal: &Seal, found: &Seal) -> Result<(), Error> {
        if found == seal || cfg!(planted = "hash-not-compared") {
            return Ok(());
        }
        Err(Error::corrupt(format_args!(
            "{} is not what it was when it was sealed",
            self.name(&file_name(generation))
        )))
    }

    /// Reads a generation's file whole, for the length and hash that the manifest keeps of it.
    /// `goes_on` is asked before each piece and told its bytes; where it says no, there is no seal.
    pub(crate) fn hash(
        &self,
        generation: u32,
        mut goes_on: impl FnMut(usize) -> bool,
    ) -> Result<Option<Seal>, Error> {
        let name = file_name(generation);
        let file = self.directory.open(&name);
        let file = file.map_err(|error| missing_or_io(self, &name, error))?;
        let bytes = file.len().map_err(|error| self.io(&name, error))?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; HASHED_BYTES];
        let mut offset = 0;
        while offset < bytes {
            let left = usize::try_from(bytes - offset).unwrap_or(usize::MAX);
            if !goes_on(left.min(HASHED_BYTES)) {
                return Ok(None);
            }
            let (chunk, _) = buffer.split_at_mut(left.min(HASHED_BYTES));
            file.read(offset, chunk).map_err(|error| self.io(&name, error))?;
            hasher.update(chunk);
            offset += chunk.len() as u64;
        }
        Ok(Some(Seal { bytes, hash: *hasher.finalize().as_bytes() }))
    }
}

impl Facts {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32 + 8 * self.epochs.len());
        for number in [self.retained_until, self.last_sequence, self.last_change, self.entries] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for (row, epoch) in &self.epochs {
            bytes.extend_from_slice(&row.to_le_bytes());
            bytes.extend_from_slice(&epoch.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, bytes) = bytes.split_first_chunk::<32>()?;
        let ([retained_until, last_sequence, last_change, entries], []) = numbers.as_chunks::<8>()
        else {
            return None;
        };
        let (epochs, []) = bytes.as_chunks::<8>() else { return None };
        let number = |bytes: Option<&[u8; 4]>| bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let epochs =
            epochs.iter().map(|both| (number(both.first_chunk()), number(both.last_chunk())));
        Some(Facts {
            retained_until: u64::from_le_bytes(*retained_until),
            last_sequence: u64::from_le_bytes(*last_sequence),
            last_change: u64::from_le_bytes(*last_change),
            entries: u64::from_le_bytes(*entries),
            epochs: epochs.collect(),
        })
    }
}

fn block_number(shard: u8, block: u32) -> u32 {
    u32::from(shard) << BLOCK_BITS | block
}

/// The bytes with a checksum of them and their place behind.
fn checked(generation: u32, number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut checked = Vec::with_capacity(bytes.len() + CHECKSUM_BYTES);
    checked.extend_from_slice(bytes);
    checked.extend_from_slice(&checksum(generation, number, bytes).to_le_bytes());
    checked
}

/// The bytes without their checksum, if it is right.
fn verified(generation: u32, number: u32, checked: &[u8]) -> Option<&[u8]> {
    let (bytes, sum) = checked.split_last_chunk::<CHECKSUM_BYTES>()?;
    (checksum(generation, number, bytes) == u32::from_le_bytes(*sum)).then_some(bytes)
}

fn checksum(generation: u32, number: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&generation.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_read_back_and_nothing_else_does() {
        let facts = Facts {
            retained_until: 7,
            last_sequence: 8,
            last_change: 6,
            entries: 9,
            epochs: vec![(0, 3), (12, 4)],
        };
        assert_eq!(Facts::from_bytes(&facts.to_bytes()), Some(facts));
        assert_eq!(Facts::from_bytes(&[0; 31]), None);
        assert_eq!(Facts::from_bytes(&[0; 39]), None);
    }

    #[test]
    fn bytes_pass_in_their_place_alone() {
        let bytes = checked(7, 9, b"block");
        assert_eq!(verified(7, 9, &bytes), Some(&b"block"[..]));
        assert_eq!(verified(7, 8, &bytes), None);
        assert_eq!(verified(6, 9, &bytes), None);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(verified(7, 9, &flipped), None);
        }
    }
}
