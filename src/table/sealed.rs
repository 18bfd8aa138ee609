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
    /// Shared for as long as someone widens a copy of them.
    columns: Arc<Columns>,
    owners: [Option<(Rest, SealedShard)>; Columns::COUNT],
}

/// Columns that are to be widened, for whoever does it to hold no lock meanwhile.
#[derive(Debug)]
pub(super) struct Narrow {
    group: usize,
    columns: Arc<Columns>,
}

impl Narrow {
    pub(super) fn widened(self) -> Self {
        Narrow { columns: Arc::new(self.columns.widened()), ..self }
    }
}

impl SealedShards {
    /// The columns that have no room for a summary that is to come.
    pub(super) fn too_narrow_for(&self, summary: &Summary) -> Option<Narrow> {
        let filter = summary.filter.as_ref().filter(|filter| filter.is_large())?;
        let (group, free) = self.free_column(filter)?;
        let columns = &self.groups.get(group)?.columns;
        (!columns.reach(free)).then(|| Narrow { group, columns: Arc::clone(columns) })
    }

    /// Puts wider columns in place of those they are a copy of, and returns these.
    pub(super) fn replace(&mut self, Narrow { group, columns }: Narrow) -> Option<Arc<Columns>> {
        let group = self.groups.get_mut(group)?;
        Some(std::mem::replace(&mut group.columns, columns))
    }

    pub(super) fn add(&mut self, generation: Arc<Generation>, summary: Summary) {
        let shard = SealedShard { generation, blocks: summary.blocks };
        match summary.filter {
            Some(filter) if filter.is_large() => self.add_to_group(filter, shard),
            filter => self.apart.push((filter, shard)),
        }
    }

    #[expect(clippy::indexing_slicing, reason = "a place that was found or made above")]
    fn add_to_group(&mut self, filter: Filter, shard: SealedShard) {
        let (group, column) = self.free_column(&filter).unwrap_or_else(|| {
            // The first may stay the only one; those after it will be filled.
            let width = if self.groups.is_empty() { 1 } else { Columns::COUNT };
            let columns = Arc::new(Columns::like(&filter, width));
            self.groups.push(Group { columns, owners: [const { None }; Columns::COUNT] });
            (self.groups.len() - 1, 0)
        });
        let Group { columns, owners } = &mut self.groups[group];
        owners[column] = Some((Arc::make_mut(columns).put(column, filter), shard));
    }

    /// The group of a filter's shape that has a column free, and which.
    fn free_column(&self, filter: &Filter) -> Option<(usize, usize)> {
        self.groups.iter().enumerate().find_map(|(group, Group { columns, owners })| {
            let free = owners.iter().position(Option::is_none)?;
            columns.fits(filter).then_some((group, free))
        })
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
                (0..Columns::COUNT).filter(marked).filter_map(|at| group.owners.get(at)?.as_ref());
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
