//! For those who look into a store beside its service: histories, generations, where it is.

use std::path::Path;
use std::time::SystemTime;

use super::Store;
use crate::claim::Entry;
use crate::error::Error;
use crate::pending::Pending;

impl Store {
    /// What became of each attempt at an operation: the records of its request, newest first, as
    /// far back as they are on disk. The first is what [`lookup`](Store::lookup) gives; each later
    /// one is as it stood when the one before it took its place: in flight where its owner went
    /// on, lapsed where another took over, released. Empty where the operation is new, over or
    /// forgotten.
    ///
    /// Each claim, renewal, note, release and reply is an entry; at most
    /// [`MAX_HISTORY_ENTRIES`](crate::MAX_HISTORY_ENTRIES), the newest. Of an attempt whose file
    /// has gone, nothing is told. Reads one record for each, on the calling thread; never writes.
    ///
    /// ```
    /// use justonce::{Claim, EntryState, Operation, Options};
    ///
    /// let store = Options::new().in_memory()?;
    /// let claim = || store.claim(Operation::new("acme", "k")).wait();
    /// let Claim::New(ticket) = claim()? else { panic!() };
    /// ticket.release("upstream is down").wait()?;
    /// let Claim::Resumed(ticket, _) = claim()? else { panic!() };
    /// ticket.complete("done").wait()?;
    ///
    /// let history = store.history("acme", "k").wait()?;
    /// let states: Vec<_> = history.iter().map(|entry| (entry.attempt(), entry.state())).collect();
    /// use EntryState::{Completed, InFlight, Released};
    /// assert_eq!(states, [(2, Completed), (2, InFlight), (1, Released), (1, InFlight)]);
    /// # Ok::<(), justonce::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`lookup`](Store::lookup).
    pub fn history(&self, project: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Pending<Vec<Entry>> {
        match self.engine().operation_id(project.as_ref(), key.as_ref()) {
            Ok(operation) => self.engine().history(operation),
            Err(error) => Pending::refused(error),
        }
    }

    /// The generations, oldest first: one file each. Asks the system for the length of each file,
    /// and blocks for that.
    ///
    /// ```
    /// use justonce::{GenerationState, Operation, Options};
    ///
    /// let store = Options::new().in_memory()?;
    /// store.record_once(Operation::new("acme", "evt_1")).wait()?;
    /// let open = |of: &&justonce::GenerationInfo| of.state == GenerationState::Open;
    /// let generations = store.generations()?;
    /// assert_eq!(generations.iter().find(open).map(|of| of.records), Some(1));
    /// # Ok::<(), justonce::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io), [`Closed`](crate::ErrorKind::Closed).
    pub fn generations(&self) -> Result<Vec<GenerationInfo>, Error> {
        self.engine().generation_infos()
    }

    /// The directory it is in, links resolved; none in memory.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.engine().path()
    }
}

/// What one generation is, and its file: see [`Store::generations`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GenerationInfo {
    /// Its number, which is in its file's name.
    pub id: u32,
    /// What it does.
    pub state: GenerationState,
    /// Records on disk, those that newer ones took the place of included.
    pub records: u64,
    /// Those of them that are the newest of an operation without a reply.
    pub unanswered: u64,
    /// Length of its file; 0 where it is in no file yet.
    pub bytes: u64,
    /// When its file goes, if it takes no more records; none of a spare.
    pub retained_until: Option<SystemTime>,
}

/// What a generation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GenerationState {
    /// Its file is ready and has no records.
    Spare,
    /// Records are appended to it.
    Open,
    /// It takes no more records, and is to be sealed.
    Frozen,
    /// Its index is in its file, which does not change any more.
    Sealed,
}
