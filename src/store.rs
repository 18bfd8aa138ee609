//! The store: the calls a service makes.

mod look;

pub use look::{GenerationInfo, GenerationState};

use std::path::Path;
use std::time::Duration;

use crate::claim::{Claim, ClaimOrWait, Entry, EntryState, Ticket};
use crate::commit::CommitFigures;
use crate::engine::{Engine, later};
use crate::error::Error;
use crate::identity::{ProjectId, RequestId};
use crate::operation::{Operation, checked_name};
use crate::options::Options;
use crate::pending::Pending;
use crate::record::transition::standing;
use crate::sync::Arc;
use crate::table::{Counts, Walk};
use crate::verify::{Verified, Verify};

/// An idempotency table. Clones share it; dropping the last one closes it, and blocks until what
/// was accepted is on disk.
///
/// Every call that may touch the disk is submitted when it is made and returns a [`Pending`]:
/// `.wait()` blocks a thread, `.await` suspends a task. Look-ups read on the calling thread, in
/// microseconds where the file is in the page cache.
///
/// ```
/// use justonce::{Claim, Operation, Store};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("dedupe");
/// let store = Store::open(&path)?;
/// let operation = Operation::new("acme", "ticket-842-classification");
/// match store.claim(operation).wait()? {
///     Claim::New(ticket) | Claim::Resumed(ticket, _) => {
///         let answer = "spam"; // the work
///         ticket.complete(answer).wait()?;
///     }
///     Claim::InFlight(flight) => println!("someone is at {}", flight.request_id()),
///     Claim::Completed(reply) | Claim::Failed(reply) => println!("{:?}", reply.body()),
///     Claim::Mismatch(seen) => println!("{} is another request", seen.request_id()),
///     _ => {}
/// }
/// # Ok::<(), justonce::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Store(Arc<Handle>);

/// What the clones share: its end is the end of the store, unless it is a guest's.
#[derive(Debug)]
struct Handle {
    engine: Arc<Engine>,
    is_guest: bool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.is_guest {
            self.engine.close_on_drop();
        }
    }
}

impl Store {
    pub(crate) fn over(engine: Arc<Engine>) -> Self {
        Store(Arc::new(Handle { engine, is_guest: false }))
    }

    /// A handle that does not keep the store open: once it is closed, calls answer so.
    #[cfg(all(feature = "inspect", unix))]
    pub(crate) fn guest(&self) -> Self {
        Store(Arc::new(Handle { engine: Arc::clone(self.engine()), is_guest: true }))
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.0.engine
    }

    pub(crate) fn project_id(&self, project: &[u8]) -> ProjectId {
        self.engine().project_id(project)
    }

    /// Opens the store in a directory, with the default [`Options`]. The directory is made if it
    /// is absent.
    ///
    /// # Errors
    /// As for [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Options::new().open(path)
    }

    /// Asks whether an operation is new, and takes it if it is: the answer is the one ticket to do
    /// the work, or what has become of the work.
    ///
    /// Costs a look-up, and one record in the next batch if a ticket is given. A duplicate writes
    /// nothing; it waits for a commit only if what it is told is not on disk yet.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), [`Busy`](crate::ErrorKind::Busy),
    /// [`Corrupt`](crate::ErrorKind::Corrupt): nothing was submitted.
    /// [`Unknown`](crate::ErrorKind::Unknown): the claim may have landed; do not do the work.
    /// [`Poisoned`](crate::ErrorKind::Poisoned), [`Closed`](crate::ErrorKind::Closed).
    pub fn claim(&self, operation: Operation) -> Pending<Claim> {
        let (engine, moment) = (self.engine(), self.engine().moment());
        match engine.terms(operation, &moment) {
            Ok(terms) => engine.claim(terms, &moment),
            Err(error) => Pending::refused(error),
        }
    }

    /// Claims; where someone is at it, waits up to `timeout` and claims again, until the operation
    /// is this caller's or settled. Of many who wait, exactly one resumes a lapsed or released
    /// operation. After `timeout` the answer is [`Claim::InFlight`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use justonce::{Claim, Operation, Options};
    ///
    /// let store = Options::new().in_memory()?;
    /// let Claim::New(ticket) = store.claim(Operation::new("acme", "k")).wait()? else { panic!() };
    /// let second = store.claim_or_wait(Operation::new("acme", "k"), Duration::from_secs(60));
    /// ticket.complete("done").wait()?;
    /// assert!(matches!(second.wait()?, Claim::Completed(reply) if reply.body() == b"done"));
    /// # Ok::<(), justonce::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`claim`](Store::claim) and [`Flight::wait`](crate::Flight::wait).
    pub fn claim_or_wait(&self, operation: Operation, timeout: Duration) -> Pending<Claim> {
        match self.engine().terms(operation, &self.engine().moment()) {
            Ok(terms) => Pending::steps(ClaimOrWait::new(self.engine(), terms, timeout)),
            Err(error) => Pending::refused(error),
        }
    }

    /// Claims many operations in one batch, which is one commit for each file it touches: one,
    /// where they are kept about equally long. One answer for each, in order; a repeat within the
    /// call sees the earlier one in flight.
    ///
    /// # Errors
    /// Those of [`claim`](Store::claim). Bad input or a full queue refuses the whole call; after
    /// any other error, what it had claimed is given back.
    pub fn claim_many(
        &self,
        operations: impl IntoIterator<Item = Operation>,
    ) -> Pending<Vec<Claim>> {
        let (engine, moment) = (self.engine(), self.engine().moment());
        let terms = operations.into_iter().map(|operation| engine.terms(operation, &moment));
        match terms.collect() {
            Ok(terms) => engine.claim_many(terms),
            Err(error) => Pending::refused(error),
        }
    }

    /// Claims and completes with an empty reply, in one write: `true` the first time within the
    /// window, `false` ever after. For events that need no reply. Where an earlier owner was lost
    /// or gave the operation back, it is the first time again; another fingerprint is not.
    ///
    /// # Errors
    /// Those of [`claim`](Store::claim).
    pub fn record_once(&self, operation: Operation) -> Pending<bool> {
        let (engine, moment) = (self.engine(), self.engine().moment());
        match engine.terms(operation, &moment) {
            Ok(terms) => engine.record_once(terms, &moment),
            Err(error) => Pending::refused(error),
        }
    }

    /// What is remembered of an operation; `None` where it is new. Never writes.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), [`Corrupt`](crate::ErrorKind::Corrupt),
    /// [`Closed`](crate::ErrorKind::Closed).
    pub fn lookup(
        &self,
        project: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Pending<Option<Entry>> {
        match self.engine().operation_id(project.as_ref(), key.as_ref()) {
            Ok(operation) => self.engine().look_up(operation),
            Err(error) => Pending::refused(error),
        }
    }

    /// What is remembered of a request; `None` where it is over, forgotten, or of another store.
    /// Never writes. A request id is no secret: check whose request it is
    /// ([`Entry::is_of`]) before showing it to a tenant.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`Closed`](crate::ErrorKind::Closed).
    pub fn lookup_request(&self, id: RequestId) -> Pending<Option<Entry>> {
        self.engine().look_up_request(id)
    }

    /// The operations that lack a reply: in flight, lapsed and released ones. After a restart, the
    /// list of interrupted work; claim [`Entry::operation`] to resume one. Reads one record each,
    /// on the calling thread.
    ///
    /// ```
    /// use justonce::{Claim, Operation, Options};
    ///
    /// let store = Options::new().in_memory()?;
    /// drop(store.claim(Operation::new("acme", "k")).wait()?); // an owner that dies
    /// for entry in store.in_flight().wait()? {
    ///     if let Claim::Resumed(ticket, prior) = store.claim(entry.operation()).wait()? {
    ///         println!("{} again, after {:?}", ticket.request_id(), prior.why());
    ///         ticket.complete("done").wait()?;
    ///     }
    /// }
    /// assert!(store.in_flight().wait()?.is_empty());
    /// # Ok::<(), justonce::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`Closed`](crate::ErrorKind::Closed).
    pub fn in_flight(&self) -> Pending<Vec<Entry>> {
        self.engine().in_flight().map_or_else(Pending::refused, Pending::ready)
    }

    /// Takes up a detached ticket from its token.
    ///
    /// # Errors
    /// [`Gone`](crate::ErrorKind::Gone): the token was not made by this store, or the record is
    /// over. [`LeaseLost`](crate::ErrorKind::LeaseLost): someone took over, or it is settled.
    pub fn attach(&self, token: impl AsRef<[u8]>) -> Pending<Ticket> {
        self.engine().attach(token.as_ref()).unwrap_or_else(Pending::refused)
    }

    /// Forgets a settled, lapsed or released operation: it is new from then on. `false` where
    /// there is nothing to forget.
    ///
    /// # Errors
    /// [`InFlight`](crate::ErrorKind::InFlight): it has a live owner, and nothing was done.
    pub fn forget(&self, project: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Pending<bool> {
        self.forgotten(project.as_ref(), key.as_ref(), false)
    }

    /// Forgets an operation whatever its state. A live owner loses its ticket.
    ///
    /// # Errors
    /// Those of any write.
    pub fn forget_forced(&self, project: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Pending<bool> {
        self.forgotten(project.as_ref(), key.as_ref(), true)
    }

    fn forgotten(&self, project: &[u8], key: &[u8], force: bool) -> Pending<bool> {
        match self.engine().operation_id(project, key) {
            Ok(operation) => self.engine().forget(operation, force),
            Err(error) => Pending::refused(error),
        }
    }

    /// Walks over the operations that pass a filter. Blocks and reads every live record; an
    /// operation that changes meanwhile is seen once, before or after its change.
    ///
    /// ```
    /// use justonce::{EntryState, Filter, Operation, Options};
    ///
    /// let store = Options::new().in_memory()?;
    /// store.record_once(Operation::new("acme", "a")).wait()?;
    /// store.record_once(Operation::new("other", "b")).wait()?;
    /// let filter = Filter::new().project("acme").state(EntryState::Completed);
    /// assert_eq!(store.scan(filter).count(), 1);
    /// # Ok::<(), justonce::Error>(())
    /// ```
    pub fn scan(&self, filter: Filter) -> Scan {
        let project = filter.project.map(|project| self.engine().project_id(&project));
        Scan { store: self.clone(), walk: self.engine().walk(), project, state: filter.state }
    }

    /// Forgets all operations of a project but those with a live owner, which are counted. Reads
    /// every live record, on the calling thread.
    ///
    /// # Errors
    /// Those of any write; what was forgotten before the error stays so.
    pub fn forget_project(&self, project: impl AsRef<[u8]>) -> Pending<Purged> {
        self.purge(project.as_ref()).unwrap_or_else(Pending::refused)
    }

    fn purge(&self, project: &[u8]) -> Result<Pending<Purged>, Error> {
        checked_name("the project", project)?;
        let project = self.engine().project_id(project);
        let mut purged = Purged { forgotten: 0, in_flight: 0 };
        let mut rests_on = None;
        for seen in self.engine().walk() {
            let record = seen?.found.record;
            if record.project != project {
                continue;
            }
            match self.engine().forget_unowned(record.operation)? {
                (Some(true), batch) => {
                    purged.forgotten += 1;
                    rests_on = later(rests_on, batch);
                }
                (Some(false), _) => {}
                (None, _) => purged.in_flight += 1,
            }
        }
        Ok(Pending::resting_on(rests_on, purged))
    }

    /// Reads everything that is stored and says what of it is damaged, while the store is used:
    /// each record, its checksum, and that a look-up finds it; each sealed file as a whole, by the
    /// hash that was taken when it was sealed; each entry of a sealed index, and that its record
    /// is the one meant; the manifest. What is over and goes meanwhile is no damage, and what
    /// begins meanwhile is left out.
    ///
    /// Blocks, and reads on the calling thread: sealed files once whole, and up to three records
    /// for each that is stored; [`Verify::bytes_per_second`] slows it down.
    /// Takes a shard's lock for one look-up at a time. What the engine has in its cache of a file
    /// that is still written to is taken from there, and not from the disk. On a store that a
    /// failed commit has poisoned it reads what can be read.
    ///
    /// ```
    /// use justonce::{Operation, Options, Verify};
    ///
    /// let store = Options::new().in_memory()?;
    /// store.record_once(Operation::new("acme", "evt_1")).wait()?;
    /// let verified = store.verify(Verify::new().bytes_per_second(16 << 20))?;
    /// for damage in verified.damages() {
    ///     eprintln!("{damage}");
    /// }
    /// assert_eq!(verified.into_result()?.records, 1);
    /// # Ok::<(), justonce::Error>(())
    /// ```
    ///
    /// # Errors
    /// Damage is no error of the call: see [`Verified::damages`]. [`Io`](crate::ErrorKind::Io)
    /// where a file cannot be read, [`Closed`](crate::ErrorKind::Closed) where the store is closed
    /// before the end, [`Invalid`](crate::ErrorKind::Invalid).
    pub fn verify(&self, verify: Verify<'_>) -> Result<Verified, Error> {
        self.engine().verify(verify)
    }

    /// Counts, sizes and times, since the store was opened. Takes each shard's lock in turn, for
    /// well under a microsecond.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let engine = self.engine();
        let generations = engine.generations.all();
        let (claims, in_memory) = engine.table.counts();
        let sealed = || generations.iter().filter(|of| of.is_seal_listed());
        Stats {
            claims,
            commits: engine.committer.figures(),
            records_live: in_memory + sealed().map(|of| of.sealed_entries()).sum::<u64>(),
            unanswered: generations.iter().map(|of| of.unanswered_count()).sum(),
            generations: generations.len(),
            sealed_generations: sealed().count(),
            queued_bytes: engine.committer.queued_bytes(),
            waiters: engine.table.waiting(),
            poisoned: engine.committer.poisoned_by().is_some(),
            clock_skew: engine.clock.skew(),
        }
    }

    /// Closes the store, for all of its clones: what was accepted is committed, later calls are
    /// refused, and another process can open it once this resolves. Those who wait for operations
    /// wake with [`Closed`](crate::ErrorKind::Closed). Dropping the last clone does the same.
    ///
    /// # Errors
    /// [`Unknown`](crate::ErrorKind::Unknown) where a commit failed before;
    /// [`Io`](crate::ErrorKind::Io).
    pub fn close(&self) -> Pending<()> {
        self.engine().close()
    }
}

/// Which operations a [`Store::scan`] shows; all by default.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Filter {
    project: Option<Vec<u8>>,
    state: Option<EntryState>,
}

impl Filter {
    /// All operations.
    pub fn new() -> Self {
        Filter::default()
    }

    /// Only those of a project.
    pub fn project(mut self, project: impl AsRef<[u8]>) -> Self {
        self.project = Some(project.as_ref().to_vec());
        self
    }

    /// Only those in a state.
    pub fn state(mut self, state: EntryState) -> Self {
        self.state = Some(state);
        self
    }
}

/// The operations of a store, one by one; blocks while it reads. See [`Store::scan`].
#[derive(Debug)]
#[must_use = "a scan reads nothing until it is iterated"]
pub struct Scan {
    store: Store,
    walk: Walk,
    project: Option<ProjectId>,
    state: Option<EntryState>,
}

impl Iterator for Scan {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let engine = self.store.engine();
        loop {
            let seen = match self.walk.next()? {
                Ok(seen) => seen,
                Err(error) => return Some(Err(error)),
            };
            if self.project.is_some_and(|project| project != seen.found.record.project) {
                continue;
            }
            let standing = standing(&seen.found, &engine.moment());
            let Some(entry) = Entry::new(seen.found.record, standing) else { continue };
            if self.state.is_some_and(|state| state != entry.state()) {
                continue;
            }
            let outcome = match engine.committer.to_await(seen.rests_on) {
                Some(batch) => batch.wait(None)?,
                None => Ok(()),
            };
            return Some(outcome.map(|()| entry));
        }
    }
}

/// What became of a project's operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Purged {
    /// Operations forgotten.
    pub forgotten: u64,
    /// Operations with a live owner, which were left.
    pub in_flight: u64,
}

/// What a store has and does. Counters run from its opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// How claims were answered.
    pub claims: Counts,
    /// What commits cost.
    pub commits: CommitFigures,
    /// Operations listed in the indexes: those that are over but not cleared away included, and
    /// those that are listed in several generations counted for each sealed one.
    pub records_live: u64,
    /// Operations without a reply, the lapsed and released ones included.
    pub unanswered: u64,
    /// Generations, the spare one included: one file each.
    pub generations: usize,
    /// Those of them that are sealed: their index is in the file, which the manifest lists so.
    pub sealed_generations: usize,
    /// Bytes of records that wait to be committed.
    pub queued_bytes: usize,
    /// Threads and tasks that wait for operations.
    pub waiters: usize,
    /// A commit has failed: the store takes no more writes until it is opened again.
    pub poisoned: bool,
    /// How far the wall clock stood behind the store's last written time when it was opened;
    /// zero in good order.
    pub clock_skew: Duration,
}
