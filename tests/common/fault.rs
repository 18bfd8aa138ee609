//! A disk that fails when told to.
//!
//! Files are in memory, and what is written is there at once: a fault takes nothing back, it only
//! keeps what it hits from happening; but a sync that fails can lose what it was to make durable,
//! as Linux does: reads still see it, until the cache is dropped, and it never gets to the disk.
//! The directory counts what is asked of it after the fault.
//! The making of one file can be held up, and a read, for what is otherwise a matter of luck. An
//! image of the disk can be taken at any moment: all of it, or only what a power cut is sure to
//! leave.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use justonce::seam::{Directory, File};
use parking_lot::{Condvar, Mutex, MutexGuard};

/// A directory in memory that outlives the stores opened in it.
#[derive(Debug, Clone, Default)]
pub struct FaultyDirectory(Arc<Disk>);

#[derive(Debug, Default)]
struct Disk {
    files: Mutex<Names>,
    /// The names as they were when they were last made durable.
    durable_files: Mutex<Names>,
    locked: Mutex<bool>,
    fault: Mutex<State>,
    /// Whether a sync that fails loses what was written.
    loses_unsynced: Mutex<bool>,
    held: Mutex<Held>,
    held_read: Mutex<Held>,
    let_go: Condvar,
}

/// The file that is not to be made or read yet, and whether someone is about to.
#[derive(Debug, Default)]
struct Held {
    name: Option<String>,
    is_parked: bool,
}

type Names = BTreeMap<String, Bytes>;
type Bytes = Arc<Mutex<Content>>;

/// A file. Writes go to the cache, in pages, and syncs take those to the disk.
#[derive(Debug, Default)]
struct Content {
    /// As reads see it.
    bytes: Vec<u8>,
    disk: Vec<u8>,
    /// Pages to be written to the disk.
    dirty: BTreeSet<usize>,
}

const PAGE: usize = 4096;

/// What an image of the disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All that was written.
    Written,
    /// What was made durable, and nothing else.
    Synced,
}

/// Which changes of the disk fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// Those of a file's bytes or length.
    Write,
    /// Those that make others durable.
    Sync,
    /// All, creations, renames and removals too.
    Any,
}

/// A fault to come.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    pub on: On,
    /// How many such changes succeed before.
    pub after: usize,
    pub error: ErrorKind,
    /// Whether all later changes fail as well.
    pub for_ever: bool,
}

#[derive(Debug, Default)]
struct State {
    planned: Option<Fault>,
    /// Set once the fault has struck.
    struck: bool,
    changes_since: usize,
}

impl FaultyDirectory {
    /// Plans a fault, in place of one that was planned or has struck before.
    pub fn plan(&self, fault: Fault) {
        *self.0.fault.lock() = State { planned: Some(fault), ..State::default() };
    }

    /// Fails the very next change of a kind, and all after it.
    pub fn break_down(&self, on: On, error: ErrorKind) {
        self.plan(Fault { on, after: 0, error, for_ever: true });
    }

    /// Takes the fault away, and goes on counting what is asked of the disk.
    pub fn heal_quietly(&self) {
        if let Some(fault) = &mut self.0.fault.lock().planned {
            fault.for_ever = false;
        }
    }

    /// Takes the fault away.
    pub fn heal(&self) {
        *self.0.fault.lock() = State::default();
    }

    /// Has each sync that fails lose what it was to make durable.
    pub fn lose_unsynced(&self) {
        *self.0.loses_unsynced.lock() = true;
    }

    /// Another disk, healthy and not locked, with what is on this one at this moment.
    pub fn image(&self, keep: Keep) -> FaultyDirectory {
        // No change goes on meanwhile.
        let _still = self.0.fault.lock();
        let names = match keep {
            Keep::Written => self.0.files.lock().clone(),
            Keep::Synced => self.0.durable_files.lock().clone(),
        };
        let copy = |(name, file): (String, Bytes)| {
            let bytes = file.lock().image(keep);
            (name, Content::durable(bytes))
        };
        let image = FaultyDirectory::default();
        let files: Names = names.into_iter().map(copy).collect();
        *image.0.durable_files.lock() = files.clone();
        *image.0.files.lock() = files;
        image
    }

    /// What is in a file.
    pub fn read(&self, name: &str) -> Vec<u8> {
        self.0.files.lock()[name].lock().bytes.clone()
    }

    /// Puts a file in place of another, or takes it away.
    pub fn put(&self, name: &str, bytes: Option<&[u8]>) {
        let file = bytes.map(|bytes| Content::durable(bytes.to_vec()));
        for names in [&self.0.files, &self.0.durable_files] {
            match &file {
                Some(file) => names.lock().insert(name.to_owned(), Arc::clone(file)),
                None => names.lock().remove(name),
            };
        }
    }

    /// Whether the fault has struck.
    pub fn has_failed(&self) -> bool {
        self.0.fault.lock().struck
    }

    /// Parks whoever makes the file of this name, until it is [let go](Self::let_go).
    pub fn hold(&self, name: &str) {
        *self.0.held.lock() = Held { name: Some(name.to_owned()), is_parked: false };
    }

    /// Parks whoever is next to read from the file of this name, and nobody after, until it is
    /// [let go](Self::let_go).
    pub fn hold_one_read(&self, name: &str) {
        *self.0.held_read.lock() = Held { name: Some(name.to_owned()), is_parked: false };
    }

    /// Whether someone is parked for wanting to make or read the file.
    pub fn is_holding(&self) -> bool {
        self.0.held.lock().is_parked || self.0.held_read.lock().is_parked
    }

    /// Holds up nobody any more.
    pub fn let_go(&self) {
        *self.0.held.lock() = Held::default();
        *self.0.held_read.lock() = Held::default();
        self.0.let_go.notify_all();
    }

    /// How many changes were asked for since the fault struck, whatever came of them.
    pub fn changes_since_fault(&self) -> usize {
        self.0.fault.lock().changes_since
    }
}

impl Content {
    fn durable(bytes: Vec<u8>) -> Bytes {
        let disk = bytes.clone();
        Bytes::new(Mutex::new(Content { bytes, disk, dirty: BTreeSet::new() }))
    }

    /// Notes a change of some bytes, or of the length.
    fn note(&mut self, changed: std::ops::Range<usize>) {
        if !changed.is_empty() {
            self.dirty.extend(changed.start / PAGE..=(changed.end - 1) / PAGE);
        }
    }

    fn sync(&mut self) {
        self.disk.resize(self.bytes.len(), 0);
        for page in std::mem::take(&mut self.dirty) {
            copy(page, &self.bytes, &mut self.disk);
        }
    }

    /// What a sync that fails leaves: the pages count as written.
    fn lose(&mut self) {
        self.disk.resize(self.bytes.len(), 0);
        self.dirty.clear();
    }

    /// What the next reads see where clean pages are not in the cache.
    fn reread(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for page in (0..bytes.len().div_ceil(PAGE)).filter(|page| !self.dirty.contains(page)) {
            copy(page, &self.disk, &mut bytes);
        }
        bytes
    }

    fn image(&self, keep: Keep) -> Vec<u8> {
        match keep {
            Keep::Written => self.reread(),
            Keep::Synced => self.disk.clone(),
        }
    }
}

/// Copies what both have of a page.
fn copy(page: usize, from: &[u8], to: &mut [u8]) {
    let end = ((page + 1) * PAGE).min(from.len()).min(to.len());
    let page = (page * PAGE).min(end)..end;
    to[page.clone()].copy_from_slice(&from[page]);
}

impl Disk {
    /// Lets a change happen, or not; no other does while the answer is held.
    fn change(&self, kind: On) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.fault.lock();
        let State { planned, struck, changes_since } = &mut *state;
        if *struck {
            *changes_since += 1;
        }
        let Some(fault) = planned else { return Ok(state) };
        if *struck {
            return if fault.for_ever { Err(fault.error.into()) } else { Ok(state) };
        }
        if fault.on != On::Any && fault.on != kind {
            return Ok(state);
        }
        if fault.after > 0 {
            fault.after -= 1;
            return Ok(state);
        }
        *struck = true;
        Err(fault.error.into())
    }
}

impl fmt::Display for FaultyDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(a faulty disk)")
    }
}

impl Directory for FaultyDirectory {
    fn lock(&self) -> io::Result<bool> {
        Ok(!std::mem::replace(&mut *self.0.locked.lock(), true))
    }

    fn unlock(&self) {
        *self.0.locked.lock() = false;
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let content = self.0.files.lock().get(name).cloned().ok_or(ErrorKind::NotFound)?;
        Ok(Box::new(FaultyFile { disk: Arc::clone(&self.0), name: name.to_owned(), content }))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut held = self.0.held.lock();
        while held.name.as_deref() == Some(name) {
            held.is_parked = true;
            self.0.let_go.wait(&mut held);
        }
        drop(held);
        let _changing = self.0.change(On::Any)?;
        let content = Bytes::default();
        self.0.files.lock().insert(name.to_owned(), Arc::clone(&content));
        Ok(Box::new(FaultyFile { disk: Arc::clone(&self.0), name: name.to_owned(), content }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let _changing = self.0.change(On::Any)?;
        let mut files = self.0.files.lock();
        let file = files.remove(from).ok_or(ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let _changing = self.0.change(On::Any)?;
        self.0.files.lock().remove(name).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.files.lock().keys().cloned().collect())
    }

    fn sync(&self) -> io::Result<()> {
        let _changing = self.0.change(On::Sync)?;
        let files = self.0.files.lock().clone();
        *self.0.durable_files.lock() = files;
        Ok(())
    }

    fn drop_cached(&self, name: &str) -> io::Result<()> {
        let content = self.0.files.lock().get(name).cloned().ok_or(ErrorKind::NotFound)?;
        let mut content = content.lock();
        content.bytes = content.reread();
        Ok(())
    }

    fn check_in_place(&self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: Arc<Disk>,
    /// As it was opened.
    name: String,
    content: Bytes,
}

impl FaultyFile {
    fn range(offset: u64, len: usize) -> io::Result<std::ops::Range<usize>> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        Ok(start..start + len)
    }
}

impl File for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut held = self.disk.held_read.lock();
        if held.name.take_if(|name| *name == self.name).is_some() {
            held.is_parked = true;
            while held.is_parked {
                self.disk.let_go.wait(&mut held);
            }
        }
        drop(held);
        let content = self.content.lock();
        let range = Self::range(offset, out.len())?;
        out.copy_from_slice(content.bytes.get(range).ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let _changing = self.disk.change(On::Write)?;
        let mut content = self.content.lock();
        let range = Self::range(offset, data.len())?;
        content.note(range.clone());
        let space = content.bytes.get_mut(range);
        space.ok_or(ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let _changing = self.disk.change(On::Write)?;
        let mut content = self.content.lock();
        let (before, len) = (content.bytes.len(), usize::try_from(len).map_err(io::Error::other)?);
        content.note(len.min(before)..len.max(before));
        content.bytes.resize(len, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let changing = self.disk.change(On::Sync);
        let mut content = self.content.lock();
        if changing.is_ok() {
            content.sync();
        } else if *self.disk.loses_unsynced.lock() {
            content.lose();
        }
        changing.map(drop)
    }
}
