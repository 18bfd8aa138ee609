//! One of 256 shards: where the newest record of each of its operations is.
//!
//! Invariant: of all unsealed generations, at most one index has an entry for an operation, and
//! it is that of its newest record. An entry is taken out, exactly, when a newer one goes in. So
//! what an unsealed index has is newer than whatever a sealed one has. Sealed indexes keep the
//! entries they were sealed with: of those for one operation, the largest sequence counts.

use std::collections::HashMap;

use super::Counts;
use super::flights::FlightCell;
use super::sealed::SealedShards;
use crate::generation::{Entry, Generation, Index, Summary};
use crate::identity::OperationId;
use crate::record::Position;
use crate::sync::Arc;

/// Marks of dropped tickets a shard keeps before it looks for stale ones.
const FEW_MARKS: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Shard {
    /// Of unsealed generations, by age, newest last.
    indexes: Vec<ShardIndex>,
    pub(super) sealed: SealedShards,
    /// Fences of dropped tickets, with the end of their leases: past that, the mark says no more
    /// than the record does.
    dropped: HashMap<u64, u64>,
    sweep_at: usize,
    pub(super) flights: HashMap<OperationId, Arc<FlightCell>>,
    pub(super) counts: Counts,
}

#[derive(Debug)]
pub(crate) struct ShardIndex {
    pub(super) generation: Arc<Generation>,
    pub(crate) index: Index,
}

impl Shard {
    /// Newest generation first.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = &ShardIndex> {
        self.indexes.iter().rev()
    }

    pub(super) fn lists(&self, generation: u32) -> bool {
        self.at(generation).is_ok()
    }

    /// Takes in a generation that its operations have records in from now on, about so many.
    pub(crate) fn list(&mut self, generation: Arc<Generation>, expected: usize) {
        if let Err(at) = self.at(generation.id) {
            let index = Index::with_capacity(expected);
            self.indexes.insert(at, ShardIndex { generation, index });
        }
    }

    /// Lists a record of a listed generation as its operation's newest, in place of the one at
    /// `prev`.
    pub(crate) fn place(
        &mut self,
        tag: u32,
        position: Position,
        prev: Option<Position>,
        max_entries: usize,
    ) {
        if let Some(prev) = prev {
            self.displace(tag, prev);
        }
        let Some(of) = self.listed(position.generation) else { return };
        let ShardIndex { generation, index } = of;
        index.insert(tag, position.row, max_entries);
        if index.len() >= max_entries {
            generation.set_crowded();
        }
    }

    /// Takes out the entry of a record that is no longer the newest.
    pub(super) fn displace(&mut self, tag: u32, position: Position) {
        if let Some(of) = self.listed(position.generation) {
            of.index.remove(tag, position.row);
        }
    }

    /// The entries of an unsealed generation, in no order.
    pub(super) fn entries_of(&self, generation: u32) -> Vec<Entry> {
        let at = self.at(generation).ok();
        let listed = at.and_then(|at| self.indexes.get(at));
        listed.map_or_else(Vec::new, |of| of.index.entries().collect())
    }

    /// The entries of all unsealed generations, with the generation of each, in no order.
    pub(super) fn all_entries(&self) -> impl Iterator<Item = (Entry, u32)> {
        self.indexes.iter().flat_map(|of| of.index.entries().map(|entry| (entry, of.generation.id)))
    }

    pub(super) fn generation(&self, id: u32) -> Option<Arc<Generation>> {
        let at = self.at(id).ok()?;
        self.indexes.get(at).map(|of| Arc::clone(&of.generation))
    }

    /// Finds a generation's records by its summary from now on; returns its index in memory, for
    /// the caller to drop with no lock held.
    pub(super) fn seal(
        &mut self,
        generation: Arc<Generation>,
        summary: Summary,
    ) -> Option<ShardIndex> {
        let index = self.at(generation.id).ok().map(|at| self.indexes.remove(at));
        self.sealed.add(generation, summary);
        index
    }

    pub(super) fn forget_generation(&mut self, id: u32) {
        self.indexes.retain(|of| of.generation.id != id);
        self.sealed.forget(id);
    }

    /// Entries of unsealed generations.
    pub(super) fn entries(&self) -> usize {
        self.indexes.iter().map(|of| of.index.len()).sum()
    }

    pub(super) fn is_dropped(&self, fence: u64) -> bool {
        self.dropped.contains_key(&fence)
    }

    pub(super) fn mark_dropped(&mut self, fence: u64, lease_until: u64, now: u64) {
        if self.dropped.len() >= self.sweep_at.max(FEW_MARKS) {
            self.dropped.retain(|_, lease_until| *lease_until > now);
            self.sweep_at = self.dropped.len() * 2;
        }
        self.dropped.insert(fence, lease_until);
    }

    pub(super) fn unmark_dropped(&mut self, fence: u64) {
        if !self.dropped.is_empty() {
            self.dropped.remove(&fence);
        }
    }

    fn listed(&mut self, generation: u32) -> Option<&mut ShardIndex> {
        let at = self.at(generation).ok()?;
        self.indexes.get_mut(at)
    }

    /// Where a generation stands among those listed, or where it would.
    fn at(&self, generation: u32) -> Result<usize, usize> {
        self.indexes.binary_search_by_key(&generation, |of| of.generation.id)
    }
}
