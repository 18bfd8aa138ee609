//! One shard's part of an unsealed generation's index: tag → row, in memory.
//!
//! Eight bytes an entry and one of the hash table's own. Two operations may share a tag, so a
//! look-up is told by its caller which candidate is meant.

use hashbrown::HashTable;

/// Where a record of some operation with this tag stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) tag: u32,
    pub(crate) row: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    slots: HashTable<Entry>,
}

/// A tag is a keyed hash already; the table wants more bits of one.
fn hash(tag: u32) -> u64 {
    u64::from(tag).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Index {
    pub(crate) fn with_capacity(entries: usize) -> Self {
        Index { slots: HashTable::with_capacity(entries) }
    }

    /// The first row under `tag` that `is_meant` says yes to.
    pub(crate) fn find(&self, tag: u32, mut is_meant: impl FnMut(u32) -> bool) -> Option<u32> {
        let found = self.slots.find(hash(tag), |slot| slot.tag == tag && is_meant(slot.row));
        found.map(|slot| slot.row)
    }

    /// Adds an entry to an index that is to hold `full` of them at most.
    pub(crate) fn insert(&mut self, tag: u32, row: u32, full: usize) {
        let rehash = |slot: &Entry| hash(slot.tag);
        let entries = self.slots.len();
        // What is a quarter full will be full: grown at once, it leaves no table of half the size
        // behind, which no other would fit into.
        if entries == self.slots.capacity() && (full / 4..full).contains(&entries) {
            self.slots.reserve(full - entries, rehash);
        }
        self.slots.insert_unique(hash(tag), Entry { tag, row }, rehash);
    }

    /// Takes out exactly this entry, if it is there.
    pub(crate) fn remove(&mut self, tag: u32, row: u32) {
        let entry = Entry { tag, row };
        if let Ok(entry) = self.slots.find_entry(hash(tag), |found| *found == entry) {
            entry.remove();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// In no order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.slots.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_one_tag_are_told_apart_by_row() {
        let mut index = Index::default();
        index.insert(7, 1, 100);
        index.insert(7, 2, 100);
        index.insert(8, 3, 100);
        assert_eq!(index.find(7, |row| row == 2), Some(2));
        assert_eq!(index.find(7, |row| row == 3), None);
        index.remove(7, 2);
        index.remove(7, 9);
        assert_eq!(index.find(7, |_| true), Some(1));
        assert_eq!(index.len(), 2);
    }

    #[test]
    fn an_entry_takes_eight_bytes() {
        assert_eq!(size_of::<Entry>(), 8);
    }
}
