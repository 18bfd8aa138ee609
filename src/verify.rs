//! Verifying a store that is in use: what is asked for, what is told on the way, what comes of it.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// Damages that a report keeps; the rest are counted.
const MAX_DAMAGES: usize = 100;

/// How a store is verified: see [`Store::verify`](crate::Store::verify).
///
/// ```
/// use justonce::{Options, Verify};
///
/// let store = Options::new().in_memory()?;
/// let verify = Verify::new()
///     .bytes_per_second(64 << 20)
///     .on_progress(|of| println!("{} of {} files", of.generations, of.generations_in_all));
/// assert!(store.verify(verify)?.is_sound());
/// # Ok::<(), justonce::Error>(())
/// ```
#[must_use = "nothing is verified until a store is given it"]
pub struct Verify<'p> {
    pub(crate) bytes_per_second: Option<u64>,
    pub(crate) on_progress: Option<Tell<'p>>,
    pub(crate) stop_when: Option<Stop<'p>>,
}

/// The caller's code that is told.
type Tell<'p> = Box<dyn FnMut(&Progress) + 'p>;

/// The caller's code that is asked.
type Stop<'p> = Box<dyn FnMut() -> bool + 'p>;

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Progress {
    /// Generations that are done: one file each.
    pub generations: usize,
    /// Generations that there were when it began.
    pub generations_in_all: usize,
    /// Of them, those that could not be read to their end: after a failed commit has poisoned the
    /// store, the engine refuses to read the file that it failed on. Zero otherwise.
    pub unread: usize,
    /// Records read.
    pub records: u64,
    /// Entries of sealed indexes compared with their records.
    pub entries: u64,
    /// Bytes read: those of sealed files once whole, and those of records.
    pub bytes: u64,
    /// Damages found.
    pub damages: usize,
}

/// What was found.
#[derive(Debug)]
#[must_use = "damage is told here and nowhere else"]
pub struct Verified {
    pub(crate) progress: Progress,
    pub(crate) damages: Vec<Error>,
}

impl<'p> Verify<'p> {
    /// As fast as it goes, and told of by nothing but its end.
    pub fn new() -> Self {
        Verify { bytes_per_second: None, on_progress: None, stop_when: None }
    }

    /// Reads no faster than this, in bytes a second, so that the disk is left to claims; at least
    /// 1. By default as fast as the disk and one processor let it.
    pub fn bytes_per_second(mut self, bytes: u64) -> Self {
        self.bytes_per_second = Some(bytes);
        self
    }

    /// Tells how far it is, about every megabyte. Called on the thread that verifies, with no lock
    /// held.
    pub fn on_progress(mut self, tell: impl FnMut(&Progress) + 'p) -> Self {
        self.on_progress = Some(Box::new(tell));
        self
    }

    /// Asks whether to stop, about every 64 KiB that is read. Where it is to, the call answers
    /// [`Closed`](ErrorKind::Closed), and what was found so far is not told. Called as
    /// [`on_progress`](Verify::on_progress) is.
    pub fn stop_when(mut self, is_to_stop: impl FnMut() -> bool + 'p) -> Self {
        self.stop_when = Some(Box::new(is_to_stop));
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.bytes_per_second == Some(0) {
            return Err(Error::new(
                ErrorKind::Invalid,
                "bytes_per_second is 0: give at least 1, or leave it out",
            ));
        }
        Ok(())
    }
}

impl Default for Verify<'_> {
    fn default() -> Self {
        Verify::new()
    }
}

impl fmt::Debug for Verify<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verify")
            .field("bytes_per_second", &self.bytes_per_second)
            .finish_non_exhaustive()
    }
}

impl Verified {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.progress.damages == 0
    }

    /// What is damaged, each an error of kind [`Corrupt`](ErrorKind::Corrupt) that names file and
    /// row, in the order it was found; at most 100, whatever
    /// [`damages`](Progress::damages) counts.
    #[must_use]
    pub fn damages(&self) -> &[Error] {
        &self.damages
    }

    /// How much was read.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// The first damage as an error, for those who want no more than to go on or to stop.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt).
    pub fn into_result(self) -> Result<Progress, Error> {
        match self.damages.into_iter().next() {
            None => Ok(self.progress),
            Some(damage) => Err(damage),
        }
    }

    /// Takes note of a damage, unless it was found before.
    pub(crate) fn note(&mut self, damage: Error) {
        let message = damage.to_string();
        if self.damages.iter().any(|known| known.to_string() == message) {
            return;
        }
        self.progress.damages += 1;
        if self.damages.len() < MAX_DAMAGES {
            self.damages.push(damage);
        }
    }
}
