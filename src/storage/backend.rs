//! The engine's view of a file: our seam on one side, redb's on the other, a switch between.
//!
//! Once the store is poisoned nothing more may be written, not even by a database that closes
//! itself when it is dropped: what is on disk at that moment is the evidence recovery works with.

use std::io;

use redb::StorageBackend;

use super::directory::File;
use crate::sync::below::AtomicBool;
use crate::sync::{Arc, Ordering};

/// Stops all writing of one store, for good.
#[derive(Debug, Clone, Default)]
pub(crate) struct Halt(Arc<AtomicBool>);

impl Halt {
    pub(crate) fn halt(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::SeqCst) {
            Err(io::Error::other("the store takes no more writes"))
        } else {
            Ok(())
        }
    }
}

/// A file handed to redb. The directory's lock guards it; redb's own range locks stay unused.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) file: Box<dyn File>,
    pub(crate) halt: Halt,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.halt.check()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.halt.check()?;
        if cfg!(planted = "unsynced") {
            return Ok(());
        }
        self.file.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.halt.check()?;
        self.file.write(offset, data)
    }
}
