//! Walking over all operations, shard by shard.
//!
//! Not a snapshot: an operation that changes while the walk is under way is seen before or after
//! its change, once either way.
//!
//! A sealed index keeps entries that newer records have taken the place of. They are told by their
//! tags: what is alone under its tag in its shard is the newest of its operation; of those that
//! share a tag, each operation is looked up.

use std::collections::VecDeque;

use super::{Seen, Table};
use crate::error::Error;
use crate::generation::{Entry, Generation};
use crate::identity::{OperationId, SHARDS};
use crate::record::Position;
use crate::record::transition::Found;
use crate::sync::Arc;

/// An iterator over the newest records; reads the disk and blocks. Takes 16 bytes of memory for
/// each operation of one shard.
#[derive(Debug)]
pub(crate) struct Walk {
    table: Arc<Table>,
    next_shard: usize,
    generations: Vec<Arc<Generation>>,
    /// Of one shard, sorted by tag, what is still to be seen last to first.
    listed: Vec<Listed>,
    /// Of one tag.
    operations: VecDeque<OperationId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Listed {
    tag: u32,
    /// Which of the generations at hand.
    generation: usize,
    row: u32,
}

impl Walk {
    pub(crate) fn over(table: &Arc<Table>) -> Self {
        Walk {
            table: Arc::clone(table),
            next_shard: 0,
            generations: Vec::new(),
            listed: Vec::new(),
            operations: VecDeque::new(),
        }
    }

    /// Lists the next shard; `None` where there is none.
    fn list_shard(&mut self) -> Option<Result<(), Error>> {
        let shard = self.table.shards.all.get(self.next_shard)?;
        if let Err(error) = self.table.committer.check_process() {
            self.next_shard = SHARDS;
            return Some(Err(error));
        }
        // As many shards as a byte has values.
        let number = u8::try_from(self.next_shard).ok()?;
        self.next_shard += 1;
        self.generations.clear();
        let sealed: Vec<_> = {
            let shard = shard.lock();
            for of in shard.indexes() {
                let generation = self.generations.len();
                self.generations.push(Arc::clone(&of.generation));
                let entries = of.index.entries();
                self.listed.extend(entries.map(|Entry { tag, row }| Listed {
                    tag,
                    generation,
                    row,
                }));
            }
            let sealed = shard.sealed.all();
            sealed.map(|of| (Arc::clone(&of.generation), of.blocks.clone())).collect()
        };
        for (of, fences) in sealed {
            let generation = self.generations.len();
            match of.blocks().and_then(|blocks| fences.entries(blocks, number)) {
                Ok(entries) => {
                    let entries = entries.into_iter();
                    self.listed.extend(entries.map(|Entry { tag, row }| Listed {
                        tag,
                        generation,
                        row,
                    }));
                }
                // Its records are over.
                Err(_) if of.is_retired() => {}
                Err(error) => {
                    // What is listed so far cannot tell what is the newest.
                    self.listed.clear();
                    return Some(Err(error));
                }
            }
            self.generations.push(of);
        }
        self.listed.sort_unstable();
        Some(Ok(()))
    }

    /// The record at a place; nothing where it is over.
    fn read(&self, listed: Listed) -> Result<Option<Seen>, Error> {
        let Some(generation) = self.generations.get(listed.generation) else {
            return Ok(None);
        };
        match self.table.read(generation, listed.row) {
            Ok((record, rests_on)) => {
                let owner_dropped = self.table.shard(record.operation).is_dropped(record.fence);
                let position = Position { generation: generation.id, row: listed.row };
                Ok(Some(Seen { found: Found { record, position, owner_dropped }, rests_on }))
            }
            Err(_) if generation.is_retired() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the operations of all that is listed under the tag of `first`.
    fn take_tag(&mut self, first: Listed) -> Result<(), Error> {
        let mut under_tag = vec![first];
        while let Some(listed) = self.listed.pop_if(|listed| listed.tag == first.tag) {
            under_tag.push(listed);
        }
        for listed in under_tag {
            if let Some(seen) = self.read(listed)?
                && !self.operations.contains(&seen.found.record.operation)
            {
                self.operations.push_back(seen.found.record.operation);
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Option<Result<Option<Seen>, Error>> {
        if let Some(operation) = self.operations.pop_front() {
            let newest = self.table.find(&self.table.shard(operation), operation);
            return Some(newest);
        }
        let Some(listed) = self.listed.pop() else {
            return self.list_shard().map(|listed| listed.map(|()| None));
        };
        if self.listed.last().is_some_and(|next| next.tag == listed.tag) {
            return Some(self.take_tag(listed).map(|()| None));
        }
        Some(self.read(listed))
    }
}

impl Iterator for Walk {
    type Item = Result<Seen, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(closed) = self.table.committer.check_open() {
            self.listed = Vec::new();
            self.operations = VecDeque::new();
            let ended = std::mem::replace(&mut self.next_shard, SHARDS) == SHARDS;
            return (!ended).then_some(Err(closed));
        }
        loop {
            match self.step()? {
                Ok(Some(seen)) => return Some(Ok(seen)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
