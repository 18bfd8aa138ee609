//! Rebuilding the index from the logs when a store is opened.

use super::Shards;
use crate::error::Error;
use crate::generation::{Generation, Generations};
use crate::identity::OperationId;
use crate::record::Position;
use crate::sync::Arc;

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

/// A record of another generation, and the run of the store that took its place.
struct Superseded {
    operation: OperationId,
    epoch: u32,
    prev: Position,
}

/// Lists the newest record of each operation of the unsealed generations, oldest generation first.
pub(crate) fn replay(
    shards: &Shards,
    generations: &Generations,
    unsealed: &[Arc<Generation>],
) -> Result<Replayed, Error> {
    let mut replayed = Replayed::default();
    let mut later: Vec<Superseded> = Vec::new();
    for generation in unsealed {
        let mut bytes = 0;
        generation.follow(|unanswered| {
            generation.snapshot()?.replay(|row, record, len| {
                bytes += len as u64;
                replayed.last_sequence = replayed.last_sequence.max(record.sequence);
                replayed.last_change = replayed.last_change.max(record.changed_at);
                generation.retain_until(record.retained_until);
                generation.begin_epoch(row, record.epoch);
                if record.is_unanswered() {
                    unanswered.insert(row);
                }
                let prev = record.prev;
                match prev {
                    Some(prev) if prev.generation == generation.id => {
                        unanswered.remove(prev.row);
                    }
                    // Of another file, which may be listed only later.
                    Some(prev) => {
                        let (operation, epoch) = (record.operation, record.epoch);
                        later.push(Superseded { operation, epoch, prev });
                    }
                    None => {}
                }
                let tag = shards.tag(record.operation);
                let max_entries = shards.limits.entries_per_shard;
                let position = Position { generation: generation.id, row };
                let mut shard = shards.of(record.operation);
                if !shard.lists(generation.id) {
                    shard.list(Arc::clone(generation));
                }
                shard.place(tag, position, prev, max_entries);
            })
        })?;
        replayed.bytes.push(bytes);
        later.retain(|Superseded { operation, epoch, prev }| {
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
