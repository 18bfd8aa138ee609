//! A directory in memory: the same engine with nothing on disk.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use super::directory::{Directory, File};
use crate::sync::Arc;
use crate::sync::below::{Mutex, RwLock};

/// Files by name. They go when the last handle goes.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    files: Mutex<BTreeMap<String, Arc<RwLock<Vec<u8>>>>>,
    locked: Mutex<bool>,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(in memory)")
    }
}

impl Directory for Memory {
    fn lock(&self) -> io::Result<bool> {
        Ok(!std::mem::replace(&mut *self.locked.lock(), true))
    }

    fn unlock(&self) {
        *self.locked.lock() = false;
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        match self.files.lock().get(name) {
            Some(bytes) => Ok(Box::new(MemoryFile(Arc::clone(bytes)))),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let bytes = Arc::default();
        self.files.lock().insert(name.to_owned(), Arc::clone(&bytes));
        Ok(Box::new(MemoryFile(bytes)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.lock().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().keys().cloned().collect())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn drop_cached(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn check_in_place(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A file of its own that has these bytes.
pub(super) fn file(bytes: Vec<u8>) -> Box<dyn File> {
    Box::new(MemoryFile(Arc::new(RwLock::new(bytes))))
}

#[derive(Debug)]
struct MemoryFile(Arc<RwLock<Vec<u8>>>);

impl MemoryFile {
    fn range(offset: u64, len: usize) -> io::Result<std::ops::Range<usize>> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(len).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(start..end)
    }
}

impl File for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.read().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.read();
        let found = bytes.get(Self::range(offset, out.len())?);
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.write();
        let space = bytes.get_mut(Self::range(offset, data.len())?);
        space.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.write().resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
