//! A disk that fails when told to.
//!
//! Files are in memory, and what is written is there at once: a fault takes nothing back, it only
//! keeps what it hits from happening. The directory counts what is asked of it after the fault.
//! The making of one file can be held up, for what is otherwise a matter of luck.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use justonce::seam::{Directory, File};
use parking_lot::{Condvar, Mutex};

/// A directory in memory that outlives the stores opened in it.
#[derive(Debug, Clone, Default)]
pub struct FaultyDirectory(Arc<Disk>);

#[derive(Debug, Default)]
struct Disk {
    files: Mutex<BTreeMap<String, Bytes>>,
    locked: Mutex<bool>,
    fault: Mutex<State>,
    held: Mutex<Held>,
    let_go: Condvar,
}

/// The file that is not to be made yet, and whether someone is about to.
#[derive(Debug, Default)]
struct Held {
    name: Option<String>,
    is_parked: bool,
}

type Bytes = Arc<Mutex<Vec<u8>>>;

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

    /// Takes the fault away.
    pub fn heal(&self) {
        *self.0.fault.lock() = State::default();
    }

    /// Whether the fault has struck.
    pub fn has_failed(&self) -> bool {
        self.0.fault.lock().struck
    }

    /// Parks whoever makes the file of this name, until it is [let go](Self::let_go).
    pub fn hold(&self, name: &str) {
        *self.0.held.lock() = Held { name: Some(name.to_owned()), is_parked: false };
    }

    /// Whether someone is parked for wanting to make the file.
    pub fn is_holding(&self) -> bool {
        self.0.held.lock().is_parked
    }

    /// Holds up nobody any more.
    pub fn let_go(&self) {
        *self.0.held.lock() = Held::default();
        self.0.let_go.notify_all();
    }

    /// How many changes were asked for since the fault struck, whatever came of them.
    pub fn changes_since_fault(&self) -> usize {
        self.0.fault.lock().changes_since
    }
}

impl Disk {
    fn change(&self, kind: On) -> io::Result<()> {
        let mut state = self.fault.lock();
        let State { planned, struck, changes_since } = &mut *state;
        if *struck {
            *changes_since += 1;
        }
        let Some(fault) = planned else { return Ok(()) };
        if *struck {
            return if fault.for_ever { Err(fault.error.into()) } else { Ok(()) };
        }
        if fault.on != On::Any && fault.on != kind {
            return Ok(());
        }
        if fault.after > 0 {
            fault.after -= 1;
            return Ok(());
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
        let bytes = self.0.files.lock().get(name).cloned().ok_or(ErrorKind::NotFound)?;
        Ok(Box::new(FaultyFile { disk: Arc::clone(&self.0), bytes }))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut held = self.0.held.lock();
        while held.name.as_deref() == Some(name) {
            held.is_parked = true;
            self.0.let_go.wait(&mut held);
        }
        drop(held);
        self.0.change(On::Any)?;
        let bytes = Bytes::default();
        self.0.files.lock().insert(name.to_owned(), Arc::clone(&bytes));
        Ok(Box::new(FaultyFile { disk: Arc::clone(&self.0), bytes }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.change(On::Any)?;
        let mut files = self.0.files.lock();
        let file = files.remove(from).ok_or(ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.change(On::Any)?;
        self.0.files.lock().remove(name).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.files.lock().keys().cloned().collect())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.change(On::Sync)
    }

    fn drop_cached(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn check_in_place(&self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: Arc<Disk>,
    bytes: Bytes,
}

impl FaultyFile {
    fn range(offset: u64, len: usize) -> io::Result<std::ops::Range<usize>> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        Ok(start..start + len)
    }
}

impl File for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.lock();
        let found = bytes.get(Self::range(offset, out.len())?).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.change(On::Write)?;
        let mut bytes = self.bytes.lock();
        let space = bytes.get_mut(Self::range(offset, data.len())?);
        space.ok_or(ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.change(On::Write)?;
        self.bytes.lock().resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.change(On::Sync)
    }
}
