//! One shard's part of an unsealed generation's index: tag → row, in memory.
//!
//! Twelve bytes an entry and one of the hash table's own. Two operations may share a tag, so a
//! look-up is told by its caller which candidate is meant.

use hashbrown::HashTable;

#[derive(Debug, Default)]
pub(crate) struct Index {
    slots: HashTable<Slot>,
}

/// The tag as bytes, so that an entry has no need of a fourth word to align it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    tag: [u8; 8],
    row: u32,
}

impl Slot {
    fn new(tag: u64, row: u32) -> Self {
        Slot { tag: tag.to_le_bytes(), row }
    }

    fn tag(&self) -> u64 {
        u64::from_le_bytes(self.tag)
    }
}

impl Index {
    pub(crate) fn with_capacity(entries: usize) -> Self {
        Index { slots: HashTable::with_capacity(entries) }
    }

    /// The first row under `tag` that `is_meant` says yes to.
    pub(crate) fn find(&self, tag: u64, mut is_meant: impl FnMut(u32) -> bool) -> Option<u32> {
        // A tag is a keyed hash already.
        self.slots.find(tag, |slot| slot.tag() == tag && is_meant(slot.row)).map(|slot| slot.row)
    }

    pub(crate) fn insert(&mut self, tag: u64, row: u32) {
        self.slots.insert_unique(tag, Slot::new(tag, row), Slot::tag);
    }

    /// Takes out exactly this entry, if it is there.
    pub(crate) fn remove(&mut self, tag: u64, row: u32) {
        let slot = Slot::new(tag, row);
        if let Ok(entry) = self.slots.find_entry(tag, |found| *found == slot) {
            entry.remove();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Tags and rows, in no order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u64, u32)> {
        self.slots.iter().map(|slot| (slot.tag(), slot.row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_one_tag_are_told_apart_by_row() {
        let mut index = Index::default();
        index.insert(7, 1);
        index.insert(7, 2);
        index.insert(8, 3);
        assert_eq!(index.find(7, |row| row == 2), Some(2));
        assert_eq!(index.find(7, |row| row == 3), None);
        index.remove(7, 2);
        index.remove(7, 9);
        assert_eq!(index.find(7, |_| true), Some(1));
        assert_eq!(index.len(), 2);
    }

    #[test]
    fn an_entry_takes_twelve_bytes() {
        assert_eq!(size_of::<Slot>(), 12);
    }
}
