//! What one shard has of the sealed generations, and which of them may have a tag.

use smallvec::SmallVec;

use crate::generation::{Columns, Fences, Filter, Generation, Rest, Summary};
use crate::sync::Arc;

/// A sealed generation's part of a shard.
#[derive(Debug)]
pub(super) struct SealedShard {
    pub(super) generation: Arc<Generation>,
    pub(super) blocks: Fences,
}

/// In no order.
#[derive(Debug, Default)]
pub(super) struct SealedShards {
    groups: Vec<Group>,
    /// With filters of shapes of their own, or without.
    apart: Vec<(Option<Filter>, SealedShard)>,
}

/// Filters side by side, and whose each column is.
#[derive(Debug)]
struct Group {
    columns: Columns,
    owners: [Option<(Rest, SealedShard)>; Columns::COUNT],
}

impl SealedShards {
    pub(super) fn add(&mut self, generation: Arc<Generation>, summary: Summary) {
        let shard = SealedShard { generation, blocks: summary.blocks };
        match summary.filter {
            Some(filter) if filter.is_large() => self.add_to_group(filter, shard),
            filter => self.apart.push((filter, shard)),
        }
    }

    fn add_to_group(&mut self, filter: Filter, shard: SealedShard) {
        for Group { columns, owners } in &mut self.groups {
            if columns.fits(&filter)
                && let Some(free) = owners.iter().position(Option::is_none)
            {
                owners[free] = Some((columns.put(free, filter), shard));
                return;
            }
        }
        // The first may stay the only one; those after it will be filled.
        let width = if self.groups.is_empty() { 1 } else { Columns::COUNT };
        let mut columns = Columns::like(&filter, width);
        let mut owners = [const { None }; Columns::COUNT];
        owners[0] = Some((columns.put(0, filter), shard));
        self.groups.push(Group { columns, owners });
    }

    pub(super) fn forget(&mut self, generation: u32) {
        self.apart.retain(|(_, shard)| shard.generation.id != generation);
        for group in &mut self.groups {
            for owner in &mut group.owners {
                owner.take_if(|(_, shard)| shard.generation.id == generation);
            }
        }
        self.groups.retain(|group| group.owners.iter().any(Option::is_some));
    }

    /// Those that may have a tag: all that have it, and few that have not.
    pub(super) fn with(&self, tag: u32) -> impl Iterator<Item = &SealedShard> {
        let tag = u64::from(tag);
        // All are asked before an answer is looked at: so the processor waits for them at once.
        let bits: SmallVec<[u16; 8]> =
            self.groups.iter().map(|group| group.columns.probe(tag)).collect();
        let side_by_side = self.groups.iter().zip(bits).flat_map(move |(group, bits)| {
            let marked = move |column: &usize| bits >> column & 1 == 1;
            let owners =
                (0..Columns::COUNT).filter(marked).filter_map(|at| group.owners[at].as_ref());
            owners.filter(move |(rest, _)| rest.may_have(tag)).map(|(_, shard)| shard)
        });
        let apart = self.apart.iter().filter(move |(filter, shard)| match filter {
            Some(filter) => filter.may_have(tag),
            None => !shard.blocks.is_empty(),
        });
        side_by_side.chain(apart.map(|(_, shard)| shard))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &SealedShard> {
        let side_by_side = self.groups.iter().flat_map(|group| group.owners.iter().flatten());
        side_by_side.map(|(_, shard)| shard).chain(self.apart.iter().map(|(_, shard)| shard))
    }
}
