//! The seam to the outside: a directory of files.
//!
//! Everything the store does to a disk goes through [`Directory`] and [`File`], so a test can
//! stand in for the disk: log each operation, lose what was not synced, fail the n-th. Names are
//! plain file names within the one directory; errors are the operating system's.

use std::fmt::{Debug, Display};
use std::io;
use std::path::Path;

/// A directory that one store has to itself.
pub trait Directory: Debug + Display + Send + Sync {
    /// Takes the store's lock and keeps it until [`unlock`](Directory::unlock). `false` where
    /// someone has it.
    fn lock(&self) -> io::Result<bool>;

    /// Gives the lock back. Nothing is read or written after it.
    fn unlock(&self);

    /// Opens a file that exists, for reading and writing.
    fn open(&self, name: &str) -> io::Result<Box<dyn File>>;

    /// Makes an empty file, in place of one of that name if there is one.
    fn create(&self, name: &str) -> io::Result<Box<dyn File>>;

    /// Gives a file another name, in place of one that has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Whoever has it open reads on.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of all entries.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes creations, renames and removals durable.
    fn sync(&self) -> io::Result<()>;

    /// Drops what the page cache holds of a file, so that the next read sees the disk: after a
    /// failed sync the cache may hold pages that never reached it.
    fn drop_cached(&self, name: &str) -> io::Result<()>;

    /// Where it is, if it is a directory of the system's.
    fn path(&self) -> Option<&Path> {
        None
    }

    /// An error where the directory is no longer the one that was locked: moved, replaced or
    /// deleted.
    fn check_in_place(&self) -> io::Result<()>;
}

/// An open file, read and written at positions.
pub trait File: Debug + Send + Sync {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether there is nothing in it.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `out` from `offset` on; an error where the file ends before.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at `offset`, within the file's length.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Cuts or extends the file; what is added reads as zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes everything written so far durable.
    fn sync(&self) -> io::Result<()>;
}
