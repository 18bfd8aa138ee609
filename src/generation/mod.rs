//! Generations: records that expire together, in one file that is deleted as a whole.
//!
//! A generation is *spare* (its file is ready, nobody writes to it), *open* (a lane appends to
//! it), then *closed to appends* (rotated) and at last *retired*, when the last of its records is
//! over. Rows below its durable mark are in its file and read through its snapshot; rows above it
//! are in the queue's batches and nowhere else.
//!
//! Invariant: the snapshot is published before the durable mark moves, so a row below the mark is
//! always found in the snapshot that is read after it.

mod index;

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

pub(crate) use index::Index;

use crate::error::Error;
use crate::record::{Position, Record};
use crate::storage::{LogFile, Marks, Snapshot, Storage};
use crate::sync::{Arc, AtomicBool, AtomicU32, AtomicU64, Mutex, OnceLock, Ordering, RwLock};

#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) id: u32,
    /// Made beforehand; or by the committer, where no spare was ready in time.
    file: OnceLock<LogFile>,
    /// `None` once closed.
    snapshot: RwLock<Option<Arc<Snapshot>>>,
    durable_rows: AtomicU32,
    /// Rows of operations that still lack a reply.
    unanswered: Mutex<RoaringBitmap>,
    /// When the last of its records is over. Moved by the queue, under its lock.
    retained_until: AtomicU64,
    /// Some shard's index is full: time to rotate.
    crowded: AtomicBool,
    retired: AtomicBool,
}

impl Generation {
    /// A generation whose file is made when its first rows are committed.
    pub(crate) fn unmade(id: u32) -> Self {
        Generation {
            id,
            file: OnceLock::new(),
            snapshot: RwLock::new(None),
            durable_rows: AtomicU32::new(0),
            unanswered: Mutex::default(),
            retained_until: AtomicU64::new(0),
            crowded: AtomicBool::new(false),
            retired: AtomicBool::new(false),
        }
    }

    /// A generation with its file, and what is in it.
    pub(crate) fn over(id: u32, file: LogFile) -> Result<Self, Error> {
        let snapshot = file.snapshot()?;
        let generation = Generation::unmade(id);
        generation.publish(snapshot)?;
        // A fresh cell takes what it is given.
        let _ = generation.file.set(file);
        Ok(generation)
    }

    /// The file, which is made now if it was not before.
    pub(crate) fn file(&self, storage: &Storage, marks: Marks) -> Result<&LogFile, Error> {
        if self.file.get().is_none() {
            let file = storage.create_generation(self.id, marks)?;
            // Only the holder of the committer role comes here.
            let _ = self.file.set(file);
        }
        self.file.get().ok_or_else(Error::closed)
    }

    /// Shows readers what a commit has made durable.
    pub(crate) fn publish(&self, snapshot: Snapshot) -> Result<(), Error> {
        let rows = snapshot.rows()?;
        let before = self.snapshot.write().replace(Arc::new(snapshot));
        self.durable_rows.store(rows, Ordering::Release);
        drop(before);
        Ok(())
    }

    /// Reads a row, or nothing where it is not durable yet.
    pub(crate) fn durable(&self, row: u32) -> Result<Option<Record>, Error> {
        if row >= self.durable_rows() {
            return Ok(None);
        }
        self.snapshot()?.record(row).map(Some)
    }

    pub(crate) fn snapshot(&self) -> Result<Arc<Snapshot>, Error> {
        self.snapshot.read().clone().ok_or_else(Error::closed)
    }

    pub(crate) fn durable_rows(&self) -> u32 {
        self.durable_rows.load(Ordering::Acquire)
    }

    pub(crate) fn retain_until(&self, millis: u64) {
        self.retained_until.fetch_max(millis, Ordering::Relaxed);
    }

    pub(crate) fn retained_until(&self) -> u64 {
        self.retained_until.load(Ordering::Relaxed)
    }

    pub(crate) fn set_crowded(&self) {
        self.crowded.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_crowded(&self) -> bool {
        self.crowded.load(Ordering::Relaxed)
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Changes the list of rows that lack a reply.
    pub(crate) fn follow<T>(&self, change: impl FnOnce(&mut RoaringBitmap) -> T) -> T {
        change(&mut self.unanswered.lock())
    }

    pub(crate) fn unanswered(&self) -> RoaringBitmap {
        self.unanswered.lock().clone()
    }

    pub(crate) fn unanswered_count(&self) -> u64 {
        self.unanswered.lock().len()
    }

    /// Closes the file; readers get `Closed` from then on.
    pub(crate) fn close(&self) -> Result<(), Error> {
        drop(self.snapshot.write().take());
        self.file.get().map_or(Ok(()), LogFile::close)
    }
}

/// All live generations, by id.
#[derive(Debug, Default)]
pub(crate) struct Generations {
    live: RwLock<BTreeMap<u32, Arc<Generation>>>,
}

impl Generations {
    pub(crate) fn insert(&self, generation: Arc<Generation>) {
        self.live.write().insert(generation.id, generation);
    }

    pub(crate) fn get(&self, id: u32) -> Option<Arc<Generation>> {
        self.live.read().get(&id).cloned()
    }

    /// A copy of the list, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Generation>> {
        self.live.read().values().cloned().collect()
    }

    /// Strikes rows that later records took the place of off the lists of unanswered ones.
    pub(crate) fn follow_superseded(&self, superseded: impl Iterator<Item = Position>) {
        let live = self.live.read();
        for position in superseded {
            if let Some(generation) = live.get(&position.generation) {
                generation.follow(|unanswered| unanswered.remove(position.row));
            }
        }
    }

    /// Takes a generation out of use: nobody finds it any more.
    pub(crate) fn retire(&self, id: u32) -> Option<Arc<Generation>> {
        let generation = self.live.write().remove(&id)?;
        generation.retired.store(true, Ordering::Release);
        Some(generation)
    }
}
