//! Rebuilding the index from the logs when a store is opened.

use super::Shards;
use crate::error::Error;
use crate::generation::Generation;
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

/// Lists the newest record of each operation of these generations, oldest generation first.
pub(crate) fn replay(shards: &Shards, generations: &[Arc<Generation>]) -> Result<Replayed, Error> {
    let mut replayed = Replayed::default();
    let mut later: Vec<(OperationId, Position)> = Vec::new();
    for generation in generations {
        let mut bytes = 0;
        generation.follow(|unanswered| {
            generation.snapshot()?.replay(|row, record, len| {
                bytes += len as u64;
                replayed.last_sequence = replayed.last_sequence.max(record.sequence);
                replayed.last_change = replayed.last_change.max(record.changed_at);
                generation.retain_until(record.retained_until);
                if record.is_unanswered() {
                    unanswered.insert(row);
                }
                let prev = record.prev;
                match prev {
                    Some(prev) if prev.generation == generation.id => {
                        unanswered.remove(prev.row);
                    }
                    // Of another lane's file, which may be listed only later.
                    Some(prev) => later.push((record.operation, prev)),
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
        for &(operation, prev) in &later {
            let listed = generations.iter().find(|listed| listed.id == prev.generation);
            let Some(listed) = listed.filter(|listed| listed.id <= generation.id) else { continue };
            // A crash between two files of a batch can have lost the row, and another operation
            // may have it since.
            let row = listed.durable(prev.row)?;
            if row.is_some_and(|record| record.operation == operation) {
                listed.follow(|unanswered| unanswered.remove(prev.row));
                shards.of(operation).displace(shards.tag(operation), prev);
            }
        }
        later.retain(|(_, prev)| prev.generation > generation.id);
    }
    Ok(replayed)
}
