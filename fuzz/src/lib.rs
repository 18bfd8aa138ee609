//! A disk in memory that can be damaged, and that fails when told to.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use justonce::seam::{Directory, File};

type Bytes = Arc<Mutex<Vec<u8>>>;

/// Files by name, and how many changes succeed until all fail.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: BTreeMap<String, Bytes>,
    locked: bool,
    changes_left: Option<usize>,
}

impl Disk {
    /// Another disk with these files on it.
    pub fn with(files: &BTreeMap<String, Vec<u8>>) -> Self {
        let files = files.iter().map(|(name, bytes)| (name.clone(), Arc::new(Mutex::new(bytes.clone()))));
        Disk(Arc::new(Mutex::new(State { files: files.collect(), ..State::default() })))
    }

    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = held(&self.0);
        state.files.iter().map(|(name, bytes)| (name.clone(), held(bytes).clone())).collect()
    }

    /// After so many changes of the disk, all fail; none, with nothing.
    pub fn fail_after(&self, changes: Option<usize>) {
        held(&self.0).changes_left = changes;
    }

    fn change(&self) -> io::Result<()> {
        change(&self.0)
    }
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn change(state: &Mutex<State>) -> io::Result<()> {
    match &mut held(state).changes_left {
        None => Ok(()),
        Some(0) => Err(ErrorKind::Other.into()),
        Some(left) => {
            *left -= 1;
            Ok(())
        }
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(a disk)")
    }
}

impl Directory for Disk {
    fn lock(&self) -> io::Result<bool> {
        Ok(!std::mem::replace(&mut held(&self.0).locked, true))
    }

    fn unlock(&self) {
        held(&self.0).locked = false;
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let bytes = held(&self.0).files.get(name).cloned().ok_or(ErrorKind::NotFound)?;
        Ok(Box::new(OpenFile { disk: self.clone(), bytes }))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.change()?;
        let bytes = Bytes::default();
        held(&self.0).files.insert(name.to_owned(), Arc::clone(&bytes));
        Ok(Box::new(OpenFile { disk: self.clone(), bytes }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change()?;
        let mut state = held(&self.0);
        let file = state.files.remove(from).ok_or(ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change()?;
        held(&self.0).files.remove(name).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(held(&self.0).files.keys().cloned().collect())
    }

    fn sync(&self) -> io::Result<()> {
        self.change()
    }

    fn drop_cached(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn check_in_place(&self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct OpenFile {
    disk: Disk,
    bytes: Bytes,
}

fn range(offset: u64, len: usize) -> io::Result<std::ops::Range<usize>> {
    let start = usize::try_from(offset).map_err(io::Error::other)?;
    Ok(start..start.checked_add(len).ok_or(ErrorKind::UnexpectedEof)?)
}

impl File for OpenFile {
    fn len(&self) -> io::Result<u64> {
        Ok(held(&self.bytes).len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = held(&self.bytes);
        let found = bytes.get(range(offset, out.len())?);
        out.copy_from_slice(found.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.change()?;
        let mut bytes = held(&self.bytes);
        let space = bytes.get_mut(range(offset, data.len())?);
        space.ok_or(ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.change()?;
        held(&self.bytes).resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.change()
    }
}
