//! Rebuilding the index from the logs when a store is opened.
//!
//! A long log is read in stretches, a thread each. Within a stretch a record takes the place of the
//! one before it at once; what reaches across stretches or files is done when both have been read.

use std::collections::HashMap;
use std::ops::Range;

use roaring::RoaringBitmap;

use super::shard::Shard;
use super::{Shards, Table};
use crate::error::Error;
use crate::generation::{Entry, Generation, Generations};
use crate::identity::{OperationId, SHARDS};
use crate::record::Position;
use crate::record::codec::Glance;
use crate::sync::{self, Arc};

/// Rows that are worth a thread.
const ROWS_PER_THREAD: u32 = 1 << 16;

/// Entries placed in a shard at once: a shard's index is small enough for the processor's cache,
/// and all shards' together are not. 8 MB a thread.
const ENTRIES_AT_ONCE: usize = 1 << 10;

/// What the logs showed.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// Bytes of records by generation, in the order the generations were given.
    pub(crate) bytes: Vec<u64>,
    /// The smallest sequences of their records.
    first_sequences: Vec<u64>,
}

/// A record that another one took the place of, and in which run of the store.
struct Superseded {
    operation: OperationId,
    epoch: u32,
    prev: Position,
}

/// What one stretch of a log showed.
#[derive(Default)]
struct Stretch {
    first_sequence: Option<u64>,
    bytes: u64,
    unanswered: RoaringBitmap,
    /// The first rows of runs of the store.
    epochs: Vec<(u32, u32)>,
    /// What stands outside of the stretch.
    superseded: Vec<Superseded>,
}

/// Lists the newest record of each operation of the unsealed generations, oldest generation first.
pub(crate) fn replay(
    shards: &Shards,
    generations: &Generations,
    unsealed: &[Arc<Generation>],
) -> Result<Replayed, Error> {
    let mut replayed = Replayed::default();
    let mut superseded = Vec::new();
    for generation in unsealed {
        if generation.durable_rows() > 0 {
            shards.expect(generation);
        }
        let stretches = stretches(generation.durable_rows(), sync::parallelism());
        let read = |rows| read_stretch(shards, generation, rows);
        let (mut bytes, mut first_sequence) = (0, u64::MAX);
        for stretch in sync::at_once(stretches, read) {
            let stretch = stretch?;
            first_sequence = first_sequence.min(stretch.first_sequence.unwrap_or(u64::MAX));
            bytes += stretch.bytes;
            generation.follow(|unanswered| *unanswered |= stretch.unanswered);
            stretch.epochs.iter().for_each(|(row, epoch)| generation.begin_epoch(*row, *epoch));
            superseded.extend(stretch.superseded);
        }
        replayed.bytes.push(bytes);
        replayed.first_sequences.push(first_sequence);
        superseded.retain(|superseded: &Superseded| {
            let Superseded { operation, epoch, prev } = superseded;
            // Of another lane's file, which may be listed only later.
            if prev.generation > generation.id {
                return true;
            }
            // A crash between two files of a batch can have lost the row, and another operation
            // may have it since.
            let of = generations.get(prev.generation);
            if let Some(of) = of.filter(|of| of.was_written_by(prev.row, *epoch)) {
                of.follow(|unanswered| unanswered.remove(prev.row));
                shards.of(*operation).displace(shards.tag(*operation), *prev);
            }
            false
        });
    }
    Ok(replayed)
}

/// Entries that go to one shard of a generation's index.
struct ForShard {
    shard: u8,
    entries: Vec<(u32, u32, Option<Position>)>,
}

impl ForShard {
    fn place(&mut self, shards: &Shards, generation: u32) {
        let mut shard = shards.at(self.shard).lock();
        for (tag, row, prev) in self.entries.drain(..) {
            let max_entries = shards.limits.entries_per_shard;
            shard.place(tag, Position { generation, row }, prev, max_entries);
        }
    }
}

fn read_stretch(
    shards: &Shards,
    generation: &Generation,
    rows: Range<u32>,
) -> Result<Stretch, Error> {
    let mut stretch = Stretch::default();
    let mut unplaced: Vec<ForShard> =
        (0..=u8::MAX).map(|shard| ForShard { shard, entries: Vec::new() }).collect();
    let start = rows.start;
    generation.snapshot()?.replay(rows, |row, glance, bytes| {
        let Glance { operation, sequence, prev, epoch, changed_at, .. } = glance;
        // Sequences grow row by row.
        stretch.first_sequence.get_or_insert(sequence);
        stretch.bytes += bytes as u64;
        generation.note(sequence, changed_at, glance.retained_until);
        if stretch.epochs.last().is_none_or(|last| last.1 != epoch) {
            stretch.epochs.push((row, epoch));
        }
        if glance.is_unanswered {
            stretch.unanswered.insert(row);
        }
        let is_near = |prev: &Position| prev.generation == generation.id && prev.row >= start;
        if let Some(prev) = prev {
            if is_near(&prev) {
                stretch.unanswered.remove(prev.row);
            } else {
                stretch.superseded.push(Superseded { operation, epoch, prev });
            }
        }
        #[expect(clippy::indexing_slicing, reason = "one for each byte was made above")]
        let unplaced = &mut unplaced[usize::from(operation.shard())];
        unplaced.entries.push((shards.tag(operation), row, prev.filter(is_near)));
        if unplaced.entries.len() >= ENTRIES_AT_ONCE {
            unplaced.place(shards, generation.id);
        }
    })?;
    for unplaced in &mut unplaced {
        unplaced.place(shards, generation.id);
    }
    Ok(stretch)
}

/// The rows in at most so many stretches, each worth a thread.
fn stretches(rows: u32, at_most: usize) -> Vec<Range<u32>> {
    let at_most = u32::try_from(at_most).unwrap_or(u32::MAX).max(1);
    let each = rows.div_ceil(at_most).max(ROWS_PER_THREAD);
    let starts = (0..rows).step_by(each as usize);
    starts.map(|start| start..start.saturating_add(each).min(rows)).collect()
}

impl Shards {
    /// Makes room for what is in a generation.
    fn expect(&self, generation: &Arc<Generation>) {
        let expected = generation.durable_rows() as usize / SHARDS;
        for shard in &self.all {
            let expected = expected.min(self.limits.entries_per_shard);
            shard.lock().list(Arc::clone(generation), expected);
        }
    }
}

impl Table {
    /// Takes out what the replay of `unsealed` listed though there is a newer record of it. One
    /// that was replayed takes the place of the one before it; but one between two may be in a
    /// file that is sealed or gone, and the newest itself may be in a sealed one.
    pub(crate) fn displace_older(
        &self,
        unsealed: &[Arc<Generation>],
        replayed: &Replayed,
        generations: &Generations,
    ) -> Result<(), Error> {
        let all = generations.all();
        let last_sealed = all.iter().filter(|of| of.is_sealed()).map(|of| of.last_sequence()).max();
        // Only where lanes overlap.
        let may_be_older: Vec<_> = unsealed
            .iter()
            .zip(&replayed.first_sequences)
            .filter(|(_, first)| last_sealed.is_some_and(|last| last >= **first))
            .map(|(generation, _)| generation)
            .collect();
        let shards: Vec<_> = self.shards.all.iter().collect();
        let some = shards.chunks(SHARDS.div_ceil(sync::parallelism())).collect();
        let done = sync::at_once(some, |shards| {
            shards.iter().try_for_each(|shard| {
                let shard = &mut shard.lock();
                self.displace_older_than_unsealed(shard)?;
                may_be_older.iter().try_for_each(|of| self.displace_older_than_sealed(shard, of))
            })
        });
        done.into_iter().collect()
    }

    /// Of several records of one operation, leaves the newest.
    fn displace_older_than_unsealed(&self, shard: &mut Shard) -> Result<(), Error> {
        let mut entries: Vec<_> = shard.all_entries().collect();
        entries.sort_unstable();
        for alike in entries.chunk_by(|(one, _), (other, _)| one.tag == other.tag) {
            if alike.len() == 1 {
                continue;
            }
            let mut newest: HashMap<OperationId, (u64, Arc<Generation>, Entry)> = HashMap::new();
            for (entry, id) in alike {
                let Some(generation) = shard.generation(*id) else { continue };
                let (record, _) = self.read(&generation, entry.row)?;
                let this = (record.sequence, generation, *entry);
                let Some(other) = newest.remove(&record.operation) else {
                    newest.insert(record.operation, this);
                    continue;
                };
                let (newer, (_, generation, older)) =
                    if this.0 > other.0 { (this, other) } else { (other, this) };
                newest.insert(record.operation, newer);
                displace(shard, &generation, older);
            }
        }
        Ok(())
    }

    fn displace_older_than_sealed(
        &self,
        shard: &mut Shard,
        generation: &Arc<Generation>,
    ) -> Result<(), Error> {
        for entry in shard.entries_of(generation.id) {
            if shard.sealed.with(entry.tag).next().is_none() {
                continue;
            }
            let (record, _) = self.read(generation, entry.row)?;
            let sealed = self.find_sealed(shard, record.operation)?;
            if sealed.is_some_and(|of| of.found.record.sequence > record.sequence) {
                displace(shard, generation, entry);
            }
        }
        Ok(())
    }
}

fn displace(shard: &mut Shard, generation: &Generation, Entry { tag, row }: Entry) {
    generation.follow(|unanswered| unanswered.remove(row));
    shard.displace(tag, Position { generation: generation.id, row });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_have_each_row_once() {
        assert!(stretches(0, 2).is_empty());
        for rows in [1, ROWS_PER_THREAD, 10 * ROWS_PER_THREAD + 7, u32::MAX] {
            for at_most in [1, 2, 3, 64] {
                let all = stretches(rows, at_most);
                assert!(all.len() <= at_most);
                assert_eq!((all[0].start, all[all.len() - 1].end), (0, rows));
                assert!(all.windows(2).all(|pair| pair[0].end == pair[1].start));
            }
        }
    }
}
