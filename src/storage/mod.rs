//! Files: the directory, the two kinds of file in it, and what is found when it is opened.
//!
//! ```text
//! LOCK            held while open
//! inspect.sock    where questions are answered while it is open, with the feature `inspect`
//! store.redb      manifest: format, id, secret, epoch, clock, the list of generations
//! 00000007.redb   a generation: its identity, its log of records, and its index once sealed
//! *.tmp           a file being made; a leftover where a crash came in between
//! ```
//!
//! A file is made under a temporary name, committed, renamed, the directory synced, and only then
//! listed in the manifest. So what is listed is whole, and what is not listed holds nothing that
//! anyone was told of; the latter is removed at the next opening. Files of other names are not
//! ours: a directory that holds them and no manifest is refused and left as it is.

mod backend;
pub(crate) mod directory;
mod disk;
mod engine;
mod lane;
mod log;
mod manifest;
mod memory;
mod sealed;
mod unchanged;

use std::fmt::Display;
use std::io;

pub(crate) use backend::Halt;
pub(crate) use directory::{Directory, File};
pub(crate) use disk::Disk;
pub(crate) use lane::{Lane, Opening};
pub(crate) use log::{LogFile, Rows, Snapshot, file_name};
pub(crate) use manifest::{Contents, Listed, Manifest, Marks, NAME as MANIFEST};
pub(crate) use memory::Memory;
pub(crate) use sealed::{Blocks, Facts, SealedFile, ShardBytes};
pub(crate) use unchanged::Unchanged;

use crate::error::{Error, ErrorKind};
use crate::identity::StoreId;
use crate::sync::{Arc, AtomicBool, Ordering};
use backend::Backend;

/// Format of the store's files.
pub(crate) const FORMAT: u32 = 1;

const LOCK: &str = "LOCK";

/// Name of the socket at which questions about an open store are answered.
pub(crate) const INSPECT_SOCKET: &str = "inspect.sock";

/// Files that are written to are opened with this share of the cache each; redb fills it as it
/// reads and writes.
const FILES_PER_CACHE: usize = 8;

/// And sealed files with this share: most of what is read of them is not read again soon.
const SEALED_FILES_PER_CACHE: usize = 128;

/// Where files of one store are made and opened, and with what.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) halt: Halt,
    store: StoreId,
    cache_bytes_per_file: usize,
    cache_bytes_per_sealed_file: usize,
}

impl Place {
    fn name(&self, file: &str) -> String {
        format!("{}/{file}", self.directory)
    }

    fn io(&self, file: &str, error: io::Error) -> Error {
        Error::io(self.name(file), error)
    }

    /// Length of a generation's file in bytes; zero where there is none, yet or any more.
    pub(crate) fn generation_bytes(&self, id: u32) -> Result<u64, Error> {
        let name = file_name(id);
        match self.directory.open(&name).and_then(|file| file.len()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            bytes => bytes.map_err(|error| self.io(&name, error)),
        }
    }

    /// The error of a manifest that is no manifest of these files.
    pub(crate) fn corrupt_manifest(&self, why: impl Display) -> Error {
        Error::corrupt(format_args!("{} {why}", self.name(manifest::NAME)))
    }

    fn backend(&self, file: Box<dyn File>) -> Backend {
        Backend { file, halt: self.halt.clone() }
    }
}

/// An open store's files. Gives the lock back when dropped, after whatever else it holds.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(crate) manifest: Manifest,
    pub(crate) place: Place,
    locked: AtomicBool,
    process: u32,
}

impl Storage {
    /// Locks the directory and opens the store in it, which is made if the directory is empty.
    /// Leftovers of a crash are removed.
    pub(crate) fn open(
        directory: Arc<dyn Directory>,
        cache_bytes: usize,
    ) -> Result<(Self, Contents), Error> {
        // Looked at before the lock is taken, because taking it leaves a file behind.
        refuse_foreign(&*directory)?;
        let locked = directory.lock().map_err(|error| Error::io(&directory, error))?;
        if !locked {
            return Err(engine::already_open(&directory));
        }
        let unlock = Unlock(Some(Arc::clone(&directory)));
        let mut place = Place {
            directory,
            halt: Halt::default(),
            store: StoreId::default(),
            cache_bytes_per_file: cache_bytes / FILES_PER_CACHE,
            cache_bytes_per_sealed_file: cache_bytes / SEALED_FILES_PER_CACHE,
        };
        let names = list(&*place.directory)?;
        if !names.iter().any(|name| name == manifest::NAME) {
            Manifest::create(&place)?;
        }
        let names = list(&*place.directory)?;
        let (manifest, contents) = Manifest::open(&place)?;
        place.store = contents.id;
        let listed: Vec<u32> = contents.generations.iter().map(|listed| listed.id).collect();
        for name in names.iter().filter(|name| is_leftover(name, &listed)) {
            refuse_unlisted(&place, name, contents.next_generation)?;
            place.directory.remove(name).map_err(|error| place.io(name, error))?;
        }
        if !contents.clean && !cfg!(planted = "stale-cache") {
            for &generation in &listed {
                // Best effort: a file that is missing is reported when it is opened.
                let _ = place.directory.drop_cached(&file_name(generation));
            }
        }
        unlock.keep();
        let (locked, process) = (AtomicBool::new(true), std::process::id());
        Ok((Storage { manifest, place, locked, process }, contents))
    }

    /// Makes a generation's file and lists it.
    pub(crate) fn create_generation(&self, id: u32, marks: Marks) -> Result<LogFile, Error> {
        self.check_in_place()?;
        if cfg!(planted = "listed-early") {
            self.manifest.add_generation(id, marks)?;
        }
        let log = LogFile::create(&self.place, id)?;
        self.manifest.add_generation(id, marks)?;
        Ok(log)
    }

    /// Takes a generation off the list and its file off the disk.
    pub(crate) fn remove_generation(&self, id: u32, marks: Marks) -> Result<(), Error> {
        self.check_in_place()?;
        self.manifest.remove_generation(id, marks)?;
        let name = file_name(id);
        self.place.directory.remove(&name).map_err(|error| self.place.io(&name, error))
    }

    /// An error where the directory is no longer the one that was opened. Asked before each use of
    /// a name in it, which might be another store's by now.
    pub(crate) fn check_in_place(&self) -> Result<(), Error> {
        let directory = &self.place.directory;
        directory.check_in_place().map_err(|error| Error::io(directory, error))
    }

    /// Gives the directory's lock back: another store may open it from here on. What is not closed
    /// by now stays as it is: a database writes to its file when it is dropped.
    pub(crate) fn unlock(&self) {
        self.place.halt.halt();
        // A forked child shares the lock with its parent, whose it is.
        let is_ours = std::process::id() == self.process;
        if self.locked.swap(false, Ordering::SeqCst) && is_ours {
            self.place.directory.unlock();
        }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.unlock();
    }
}

/// Gives the lock back when opening fails.
struct Unlock(Option<Arc<dyn Directory>>);

impl Unlock {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unlock {
    fn drop(&mut self) {
        if let Some(directory) = &self.0 {
            directory.unlock();
        }
    }
}

/// A listed file that is not there is damage; anything else is the system's word.
fn missing_or_io(place: &Place, name: &str, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound {
        Error::corrupt(format_args!("{} is missing", place.name(name))).with_source(error)
    } else {
        place.io(name, error)
    }
}

fn list(directory: &dyn Directory) -> Result<Vec<String>, Error> {
    directory.list().map_err(|error| Error::io(directory, error))
}

fn refuse_foreign(directory: &dyn Directory) -> Result<(), Error> {
    let names = list(directory)?;
    if names.iter().any(|name| name == manifest::NAME) {
        return Ok(());
    }
    let is_ours = |name: &str| name == LOCK || name == INSPECT_SOCKET || is_temporary(name);
    match names.iter().find(|name| !is_ours(name)) {
        None => Ok(()),
        Some(name) if log::parse_file_name(name).is_some() => Err(Error::corrupt(format_args!(
            "{directory} holds {name} but {} is missing",
            manifest::NAME
        ))),
        Some(name) => Err(not_a_store(directory, name)),
    }
}

fn not_a_store(directory: &dyn Display, name: &str) -> Error {
    Error::new(
        ErrorKind::NotAStore,
        format!("{directory} holds {name:?} and no store: give an empty or new directory"),
    )
}

/// What opening removes: files being made, and generations that were never or are no longer listed.
fn is_leftover(name: &str, listed: &[u32]) -> bool {
    is_temporary(name) || log::parse_file_name(name).is_some_and(|id| !listed.contains(&id))
}

/// A file gets its first rows once it is listed. So one that has some, of a number that none was
/// listed with, was listed by a manifest that is not this one: the newest write of it is lost.
fn refuse_unlisted(place: &Place, name: &str, next_generation: u32) -> Result<(), Error> {
    let Some(id) = log::parse_file_name(name).filter(|id| *id >= next_generation) else {
        return Ok(());
    };
    match LogFile::open(place, id) {
        Ok((_, Some(_))) => {
            Err(place.corrupt_manifest(format_args!("lacks {name}, which has rows")))
        }
        // Its making was cut off, or it is not ours to keep.
        Ok((_, None)) | Err(_) => Ok(()),
    }
}

fn is_temporary(name: &str) -> bool {
    name.strip_suffix(".tmp")
        .is_some_and(|name| name == manifest::NAME || log::parse_file_name(name).is_some())
}
