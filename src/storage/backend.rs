//! The engine's view of a file: our seam on one side, redb's on the other, a switch between.
//!
//! Once the store is poisoned nothing more may be written, not even by a database that closes
//! itself when it is dropped: what is on disk at that moment is the evidence recovery works with.

use std::io;

use redb::StorageBackend;

use super::directory::File;
use crate::sync::below::{AtomicBool, OnceLock};
use crate::sync::{Arc, Ordering};

/// Stops all writing of one store, for good, and knows what went wrong first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Halt(Arc<Halted>);

#[derive(Debug, Default)]
struct Halted {
    is_halted: AtomicBool,
    /// Whoever comes to a database after its fault is told that there was one, and not which.
    first_fault: OnceLock<(io::ErrorKind, Option<i32>)>,
}

impl Halt {
    pub(crate) fn halt(&self) {
        self.0.is_halted.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_halted(&self) -> bool {
        self.0.is_halted.load(Ordering::SeqCst)
    }

    /// The first write or sync that failed, if it is for that that it came to a halt.
    pub(crate) fn first_fault(&self) -> Option<io::Error> {
        let (kind, number) = *self.0.first_fault.get()?;
        Some(number.map_or_else(|| kind.into(), io::Error::from_raw_os_error))
    }

    /// Makes a change, where changes may still be made.
    fn change(&self, make: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if self.is_halted() {
            return Err(io::Error::other("the store takes no more writes"));
        }
        make().inspect_err(|fault| {
            // The first one stays.
            let _ = self.0.first_fault.set((fault.kind(), fault.raw_os_error()));
        })
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
        self.halt.change(|| self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.halt.change(|| if cfg!(planted = "unsynced") { Ok(()) } else { self.file.sync() })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.halt.change(|| match self.file.write(offset, data) {
            Err(full) if cfg!(planted = "full") && full.kind() == io::ErrorKind::StorageFull => {
                Ok(())
            }
            written => written,
        })
    }
}
