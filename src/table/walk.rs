//! Walking over all operations, shard by shard.
//!
//! Not a snapshot: an operation that changes while the walk is under way is seen before or after
//! its change, once either way.

use std::vec::IntoIter;

use super::{Seen, Table};
use crate::error::Error;
use crate::generation::Generation;
use crate::identity::SHARDS;
use crate::record::Position;
use crate::record::transition::Found;
use crate::sync::Arc;

/// An iterator over the newest records; reads the disk and blocks.
#[derive(Debug)]
pub(crate) struct Walk {
    table: Arc<Table>,
    next_shard: usize,
    listed: IntoIter<(Arc<Generation>, u32)>,
}

impl Walk {
    pub(crate) fn over(table: &Arc<Table>) -> Self {
        Walk { table: Arc::clone(table), next_shard: 0, listed: Vec::new().into_iter() }
    }

    fn list_shard(&mut self) -> bool {
        let Some(shard) = self.table.shards.all.get(self.next_shard) else { return false };
        self.next_shard += 1;
        let shard = shard.lock();
        let listed = shard
            .indexes()
            .flat_map(|of| of.index.rows().map(|row| (Arc::clone(&of.generation), row)));
        self.listed = listed.collect::<Vec<_>>().into_iter();
        true
    }
}

impl Iterator for Walk {
    type Item = Result<Seen, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(closed) = self.table.committer.check_open() {
            self.listed = Vec::new().into_iter();
            let ended = std::mem::replace(&mut self.next_shard, SHARDS) == SHARDS;
            return (!ended).then_some(Err(closed));
        }
        loop {
            let Some((generation, row)) = self.listed.next() else {
                if self.list_shard() {
                    continue;
                }
                return None;
            };
            match self.table.read(&generation, row) {
                Ok((record, rests_on)) => {
                    let owner_dropped = self.table.shard(record.operation).is_dropped(record.fence);
                    let position = Position { generation: generation.id, row };
                    let found = Found { record, position, owner_dropped };
                    return Some(Ok(Seen { found, rests_on }));
                }
                // Its records are over.
                Err(_) if generation.is_retired() => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
