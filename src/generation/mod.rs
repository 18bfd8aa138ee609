//! Generations: records that expire together, in one file that is deleted as a whole.
//!
//! A generation is *spare* (its file is ready, nobody writes to it), *open* (a lane appends to
//! it), *frozen* (rotated: it takes no more records), *sealed* (its index is in its file, which
//! never changes again) and at last *retired*, when the last of its records is over. Rows below its
//! durable mark are in its file and read through its snapshot; rows above it are in the queue's
//! batches and nowhere else.
//!
//! Invariant: the snapshot is published before the durable mark moves, so a row below the mark is
//! always found in the snapshot that is read after it.

mod filter;
mod index;
mod sealed;

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

pub(crate) use filter::{Columns, Filter, Rest};
pub(crate) use index::{Entry, Index};
pub(crate) use sealed::{Fences, Summary};

use crate::error::{Error, ErrorKind};
use crate::record::{Position, Record};
use crate::storage::{
    Blocks, Facts, Listed, LogFile, Marks, Place, SealedFile, Snapshot, Storage, file_name,
};
use crate::sync::{Arc, AtomicBool, AtomicU32, AtomicU64, Mutex, OnceLock, Ordering, RwLock};

#[cfg(fuzzing)]
pub use sealed::fuzz;

#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) id: u32,
    /// Made beforehand; or by the committer, where no spare was ready in time.
    file: OnceLock<LogFile>,
    /// `None` once closed.
    snapshot: RwLock<Option<Arc<Snapshot>>>,
    beside: Mutex<Beside>,
    /// Why there is none, where a fault came between closing the file and opening it read-only.
    unreadable: OnceLock<Error>,
    durable_rows: AtomicU32,
    /// Rows of operations that still lack a reply.
    unanswered: Mutex<RoaringBitmap>,
    /// Whether that has changed since it was last taken to be written down; under its lock.
    unanswered_changed: AtomicBool,
    /// When the last of its records is over. Moved by the queue, under its lock, as the next two.
    retained_until: AtomicU64,
    /// The largest sequence of its records.
    last_sequence: AtomicU64,
    /// The latest time of its records.
    last_change: AtomicU64,
    /// The first row of each run of the store that wrote to it, and the run's epoch.
    epochs: Mutex<Vec<(u32, u32)>>,
    /// Read-only from here on: set once its index is in the file.
    sealed: OnceLock<Sealed>,
    /// The manifest lists it as sealed, and its operations are found through its file's index.
    seal_listed: AtomicBool,
    /// Some shard's index is full: time to rotate.
    crowded: AtomicBool,
    retired: AtomicBool,
}

/// A file that is read where a fault has stopped the store and redb reads no more of it.
#[derive(Debug, Default)]
enum Beside {
    #[default]
    Unopened,
    /// A view of the same file opened once more, which is kept for it.
    Open { view: Arc<Snapshot>, _file: LogFile },
    /// The generation is closed.
    Closed,
}

/// The file of a sealed generation, and the view of its index.
#[derive(Debug)]
struct Sealed {
    file: SealedFile,
    blocks: Blocks,
    entries: u64,
}

impl Generation {
    /// A generation whose file is made when its first rows are committed.
    pub(crate) fn unmade(id: u32) -> Self {
        Generation {
            id,
            file: OnceLock::new(),
            snapshot: RwLock::new(None),
            beside: Mutex::default(),
            unreadable: OnceLock::new(),
            durable_rows: AtomicU32::new(0),
            unanswered: Mutex::default(),
            unanswered_changed: AtomicBool::new(false),
            retained_until: AtomicU64::new(0),
            last_sequence: AtomicU64::new(0),
            last_change: AtomicU64::new(0),
            epochs: Mutex::default(),
            sealed: OnceLock::new(),
            seal_listed: AtomicBool::new(false),
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

    /// A generation that was sealed; the summary of each shard goes to `each`.
    pub(crate) fn reopen(
        place: &Place,
        listed: &Listed,
        mut each: impl FnMut(u8, Summary),
    ) -> Result<Self, Error> {
        let file = SealedFile::open(place, listed.id, listed.seal.as_ref())?;
        file.summaries(|shard, bytes| {
            each(shard, Summary::from_bytes(bytes)?);
            Some(())
        })?;
        let Facts { retained_until, last_sequence, last_change, epochs, .. } = file.facts()?;
        let unanswered = match &listed.unanswered[..] {
            [] => RoaringBitmap::new(),
            bytes => RoaringBitmap::deserialize_from(bytes).map_err(|error| {
                let of = file_name(listed.id);
                let why = format_args!("has no sound list of the rows of {of} without a reply");
                place.corrupt_manifest(why).with_source(error)
            })?,
        };
        let generation = Generation {
            retained_until: AtomicU64::new(retained_until),
            last_sequence: AtomicU64::new(last_sequence),
            last_change: AtomicU64::new(last_change),
            epochs: Mutex::new(epochs),
            unanswered: Mutex::new(unanswered),
            seal_listed: AtomicBool::new(true),
            ..Generation::unmade(listed.id)
        };
        let view = generation.read_from(file)?;
        generation.publish(view)?;
        Ok(generation)
    }

    /// Closes the file, whose index is whole, and opens it read-only. Readers wait meanwhile; after
    /// a fault nobody can read it before the store is opened again.
    pub(crate) fn turn_read_only(&self, place: &Place) -> Result<(), Error> {
        let mut snapshot = self.snapshot.write();
        drop(snapshot.take());
        let turned = self
            .file
            .get()
            .map_or(Ok(()), LogFile::close)
            .and_then(|()| self.read_from(SealedFile::open(place, self.id, None)?));
        let view = turned.inspect_err(|fault| {
            let message = format!("{fault}; the file was being closed: open the store again");
            // Only the keeper comes here, once.
            let _ = self.unreadable.set(fault.seen_as(ErrorKind::Poisoned, message));
        })?;
        *snapshot = Some(Arc::new(view));
        Ok(())
    }

    fn read_from(&self, file: SealedFile) -> Result<Snapshot, Error> {
        let entries = file.facts()?.entries;
        let (view, blocks) = file.views()?;
        // Only the one who opens or seals it comes here, once.
        let _ = self.sealed.set(Sealed { file, blocks, entries });
        Ok(view)
    }

    /// Operations in the index of a sealed generation.
    pub(crate) fn sealed_entries(&self) -> u64 {
        self.sealed.get().map_or(0, |sealed| sealed.entries)
    }

    /// The view of a sealed generation's index.
    pub(crate) fn blocks(&self) -> Result<&Blocks, Error> {
        self.sealed.get().map(|sealed| &sealed.blocks).ok_or_else(Error::closed)
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.get().is_some()
    }

    /// Notes that nothing is left to be done to have it sealed.
    pub(crate) fn set_seal_listed(&self) {
        self.seal_listed.store(true, Ordering::Release);
    }

    pub(crate) fn is_seal_listed(&self) -> bool {
        self.seal_listed.load(Ordering::Acquire)
    }

    /// What the file of a sealed generation says of one shard. Reads the disk.
    pub(crate) fn summary(&self, shard: u8) -> Result<Summary, Error> {
        let file = self.sealed.get().map(|sealed| &sealed.file).ok_or_else(Error::closed)?;
        file.summary(shard, Summary::from_bytes)
    }

    /// The file, to write the index to.
    pub(crate) fn log_file(&self) -> Result<&LogFile, Error> {
        self.file.get().ok_or_else(Error::closed)
    }

    /// What is to be written of a generation that takes no more records.
    pub(crate) fn facts(&self, entries: u64) -> Facts {
        Facts {
            retained_until: self.retained_until(),
            last_sequence: self.last_sequence(),
            last_change: self.last_change(),
            entries,
            epochs: self.epochs.lock().clone(),
        }
    }

    /// Notes which run of the store writes the rows from here on.
    pub(crate) fn begin_epoch(&self, row: u32, epoch: u32) {
        let mut epochs = self.epochs.lock();
        if epochs.last().is_none_or(|last| last.1 != epoch) {
            epochs.push((row, epoch));
        }
    }

    /// The last run of the store that wrote to it; 0 where none did.
    pub(crate) fn last_epoch(&self) -> u32 {
        self.epochs.lock().iter().map(|(_, epoch)| *epoch).max().unwrap_or(0)
    }

    /// An error where there are not as many rows as there were when the store was closed.
    pub(crate) fn check_rows(&self, closed_with: u32) -> Result<(), Error> {
        let rows = self.durable_rows();
        if rows == closed_with {
            return Ok(());
        }
        Err(Error::corrupt(format_args!(
            "{} has {rows} rows in table log and had {closed_with} when the store was closed",
            file_name(self.id)
        )))
    }

    /// Whether a run of the store, or one before it, can have written a row: a later one may have
    /// used a row again that a crash had taken from an earlier one.
    pub(crate) fn was_written_by(&self, row: u32, epoch: u32) -> bool {
        let epochs = self.epochs.lock();
        let of_row = epochs.iter().rev().find(|(first, _)| *first <= row);
        row < self.durable_rows() && of_row.is_some_and(|(_, written)| *written <= epoch)
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
        Ok(self.durable_measured(row)?.map(|(record, _)| record))
    }

    /// Reads a row with the bytes it takes, or nothing where it is not durable yet.
    pub(crate) fn durable_measured(&self, row: u32) -> Result<Option<(Record, usize)>, Error> {
        if row >= self.durable_rows() {
            return Ok(None);
        }
        self.read(row).or_else(|fault| self.read_beside(row).unwrap_or(Err(fault))).map(Some)
    }

    fn read(&self, row: u32) -> Result<(Record, usize), Error> {
        loop {
            let snapshot = self.snapshot()?;
            match snapshot.record(row) {
                // The file was closed to be opened read-only, and has another view by now.
                Err(_) if !Arc::ptr_eq(&snapshot, &self.snapshot()?) => {}
                read => return read,
            }
        }
    }

    /// Reads a row in a store that a fault has stopped, of a file that is not read any more. The
    /// first to do so opens it again, which takes as long as opening the store does for that file.
    fn read_beside(&self, row: u32) -> Option<Result<(Record, usize), Error>> {
        let mut beside = self.beside.lock();
        let view = match &*beside {
            Beside::Open { view, .. } => Arc::clone(view),
            Beside::Closed => return None,
            Beside::Unopened => {
                let file = self.file.get()?.beside()?.ok()?;
                let view = Arc::new(file.snapshot().ok()?);
                *beside = Beside::Open { view: Arc::clone(&view), _file: file };
                view
            }
        };
        drop(beside);
        Some(view.record(row))
    }

    /// The error of a row that an index names and the log lacks.
    pub(crate) fn lacks(&self, row: u32) -> Error {
        Error::corrupt(format_args!(
            "row {row} of table log in {} is listed and is not there",
            file_name(self.id)
        ))
    }

    pub(crate) fn snapshot(&self) -> Result<Arc<Snapshot>, Error> {
        let snapshot = self.snapshot.read().clone();
        snapshot.ok_or_else(|| self.unreadable.get().map_or_else(Error::closed, Error::share))
    }

    pub(crate) fn durable_rows(&self) -> u32 {
        self.durable_rows.load(Ordering::Acquire)
    }

    /// Takes note of a record that comes to it.
    pub(crate) fn note(&self, sequence: u64, changed_at: u64, retained_until: u64) {
        self.last_sequence.fetch_max(sequence, Ordering::Relaxed);
        self.last_change.fetch_max(changed_at, Ordering::Relaxed);
        self.retained_until.fetch_max(retained_until, Ordering::Relaxed);
    }

    pub(crate) fn last_sequence(&self) -> u64 {
        self.last_sequence.load(Ordering::Relaxed)
    }

    pub(crate) fn last_change(&self) -> u64 {
        self.last_change.load(Ordering::Relaxed)
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
        let mut unanswered = self.unanswered.lock();
        self.unanswered_changed.store(true, Ordering::Relaxed);
        change(&mut unanswered)
    }

    /// The list as bytes, if it has changed since it was last taken.
    pub(crate) fn take_changed_unanswered(&self) -> Option<Vec<u8>> {
        let mut unanswered = self.unanswered.lock();
        if !self.unanswered_changed.swap(false, Ordering::Relaxed) {
            return None;
        }
        unanswered.optimize();
        let mut bytes = Vec::with_capacity(unanswered.serialized_size());
        // Writing to memory does not fail.
        unanswered.serialize_into(&mut bytes).ok()?;
        Some(bytes)
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
        let beside = std::mem::replace(&mut *self.beside.lock(), Beside::Closed);
        drop(beside);
        match (self.sealed.get(), self.file.get()) {
            (Some(sealed), _) => sealed.file.close(),
            (None, Some(file)) => file.close(),
            (None, None) => Ok(()),
        }
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
