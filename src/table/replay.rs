//! Rebuilding the index from the logs when a store is opened.
//!
//! A long log is read in stretches, a thread each. Within a stretch a record takes the place of the
//! one before it at once; what reaches across stretches or files is done when both have been read.

use std::ops::Range;

use roaring::RoaringBitmap;

use super::Shards;
use crate::error::Error;
use crate::generation::{Generation, Generations};
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
    /// The largest sequence of any record.
    pub(crate) last_sequence: u64,
    /// The latest time of any record.
    pub(crate) last_change: u64,
    /// Bytes of records by generation, in the order the generations were given.
    pub(crate) bytes: Vec<u64>,
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
    last_sequence: u64,
    last_change: u64,
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
        let mut bytes = 0;
        for stretch in sync::at_once(stretches, read) {
            let stretch = stretch?;
            replayed.last_sequence = replayed.last_sequence.max(stretch.last_sequence);
            replayed.last_change = replayed.last_change.max(stretch.last_change);
            bytes += stretch.bytes;
            generation.follow(|unanswered| *unanswered |= stretch.unanswered);
            stretch.epochs.iter().for_each(|(row, epoch)| generation.begin_epoch(*row, *epoch));
            superseded.extend(stretch.superseded);
        }
        replayed.bytes.push(bytes);
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
        let mut shard = shards.all[usize::from(self.shard)].lock();
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
        stretch.last_sequence = stretch.last_sequence.max(sequence);
        stretch.last_change = stretch.last_change.max(changed_at);
        stretch.bytes += bytes as u64;
        generation.retain_until(glance.retained_until);
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
