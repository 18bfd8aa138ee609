//! Group commit: many records, one sync.
//!
//! ```text
//! append ─► filling batch ─(the committer swaps it out)─► committing ─► durable ─► all woken
//! ```
//!
//! The committer is a *role*. A thread that waits for its batch and finds the role free takes it,
//! commits everybody's batch and hands the role on; the [background](background) thread takes it
//! for tasks, for `Relaxed`, and for what nobody waits for. That saves two context switches a
//! commit for a caller that is alone.
//!
//! Invariants:
//! * one holder of the role at a time, and batches are committed in the order they filled;
//! * each way out of the role settles the batch it took, a panic included, and then sees to it
//!   that someone takes the role for what has queued meanwhile;
//! * the first failed commit poisons the store ([`Committer::poison`]): its batch may or may not
//!   have landed, nothing is tried after it, and every waiter is told.

mod background;
mod batch;
mod figures;
mod queue;
mod role;

pub(crate) use batch::{Batch, BatchCell, WakerId};
pub use figures::CommitFigures;
pub(crate) use queue::{Limits, RECORD_BYTES, Reopened, Room};

use queue::Appended;

use std::task::Waker;
use std::time::Duration;

use crate::clock::StoreClock;
use crate::error::{Error, ErrorKind};
use crate::generation::{Generation, Generations};
use crate::observe::{Event, Observer};
use crate::record::codec::{self, Draft};
use crate::record::{Position, Record};
use crate::storage::{Marks, Storage};
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, OnceLock, Ordering, RwLock, Weak};
use background::Background;
use figures::Figures;
use queue::{Queue, Stopped};

/// When a write counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// When it is on disk: one sync for each batch. Survives power loss, as SQLite (WAL, FULL) and
    /// RocksDB (sync) do. The default.
    #[default]
    Synced,
    /// When it is on disk, in two steps: a second sync for each batch, about 1.6 times the time of
    /// a lone commit. A disk that loses a write or lets a page rot is found out at the next
    /// opening instead of being rolled back in silence.
    Strict,
    /// At once; it is on disk within the given time. A crash may forget that much, and duplicates
    /// of what it forgets are done again.
    Relaxed {
        /// Longest time until a write is committed. 50 ms is a good choice.
        within: Duration,
    },
}

/// The queue, the role, and the thread that takes it when nobody else does.
pub(crate) struct Committer {
    queue: Mutex<Queue>,
    /// Held for reading by a call whose records must share a batch, for writing by the swap.
    gate: RwLock<()>,
    role_taken: AtomicBool,
    closed: AtomicBool,
    background: Background,
    storage: Arc<Storage>,
    generations: Arc<Generations>,
    clock: Arc<StoreClock>,
    durability: Durability,
    figures: Figures,
    pub(crate) observer: Observer,
    /// The process that opened the store: a forked child must not write to its files.
    process: u32,
    /// When it was last seen not to be one.
    seen_in_own_process: AtomicU64,
    hooks: OnceLock<Hooks>,
}

/// Whom a committer tells of what; called on any thread, with no lock held.
pub(crate) struct Hooks {
    /// The store takes no more writes: whoever waits for something else than a batch is to wake.
    pub(crate) stopped: Box<dyn Fn() + Send + Sync>,
    /// A generation was begun, or takes no more records: the next one should be prepared, and
    /// what is full sealed.
    pub(crate) begun: Waker,
}

/// What a committer starts from.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) next_generation: u32,
    pub(crate) next_sequence: u64,
    pub(crate) lanes: Vec<Reopened>,
    pub(crate) spares: Vec<Arc<Generation>>,
    pub(crate) limits: Limits,
    pub(crate) durability: Durability,
}

impl Committer {
    pub(crate) fn new(
        start: Start,
        storage: Arc<Storage>,
        generations: Arc<Generations>,
        clock: Arc<StoreClock>,
        observer: Observer,
    ) -> Arc<Self> {
        let durability = start.durability;
        Arc::new_cyclic(|committer| Committer {
            queue: Mutex::new(Queue::new(start, Arc::clone(&generations), Weak::clone(committer))),
            gate: RwLock::new(()),
            role_taken: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            background: Background::new(durability),
            storage,
            generations,
            clock,
            durability,
            figures: Figures::default(),
            observer,
            process: std::process::id(),
            seen_in_own_process: AtomicU64::new(u64::MAX),
            hooks: OnceLock::new(),
        })
    }

    /// Puts a record into the filling batch. Nothing is on disk yet.
    pub(crate) fn append(
        &self,
        record: &mut Record,
        now: u64,
        room: Room,
    ) -> Result<Appended, Error> {
        let draft = Draft::of(record);
        let appended = self.queue.lock().append(record, &draft, now, room)?;
        if appended.was_empty {
            self.background.rouse();
        }
        Ok(appended)
    }

    /// The generation that an appended record went to.
    pub(crate) fn generation(&self, id: u32) -> Result<Arc<Generation>, Error> {
        self.generations.get(id).ok_or_else(Error::closed)
    }

    /// Reads a row that is not durable yet, with the batch that will make it so. Nothing where it
    /// has become durable meanwhile.
    pub(crate) fn pending(
        &self,
        position: Position,
    ) -> Result<Option<(Record, Arc<BatchCell>)>, Error> {
        let queue = self.queue.lock();
        if let Some(row) = queue.filling.row(position) {
            return Ok(Some((decode(row, position)?, Arc::clone(&queue.filling.cell))));
        }
        if let Some(batch) = queue.committing.clone() {
            drop(queue);
            return match batch.row(position) {
                Some(row) => Ok(Some((decode(row, position)?, Arc::clone(&batch.cell)))),
                None => Ok(None),
            };
        }
        match &queue.stopped {
            Some(Stopped::Poisoned(cause)) => Err(cause.share()),
            _ => Ok(None),
        }
    }

    /// The batch that an answer has to wait for, of the one it rests on: none with `Relaxed`.
    pub(crate) fn to_await(&self, rests_on: Option<Arc<BatchCell>>) -> Option<Arc<BatchCell>> {
        rests_on.filter(|_| !matches!(self.durability, Durability::Relaxed { .. }))
    }

    /// Keeps the filling batch from being swapped out while records that belong together go in.
    pub(crate) fn together<T>(&self, bytes: usize, work: impl FnOnce() -> T) -> Result<T, Error> {
        self.check_process()?;
        let _gate = self.gate.read();
        self.queue.lock().reserve(bytes)?;
        let _reserved = Reserved { committer: self, bytes };
        Ok(work())
    }

    /// Blocks until all that was appended before is durable.
    pub(crate) fn make_durable(&self) -> Result<(), Error> {
        let last = {
            let queue = self.queue.lock();
            let committing = queue.committing.as_ref().map(|batch| Arc::clone(&batch.cell));
            if queue.filling.is_empty() {
                committing
            } else {
                Some(Arc::clone(&queue.filling.cell))
            }
        };
        last.and_then(|batch| batch.wait(None)).unwrap_or(Ok(()))
    }

    /// What must not fall back, as of now.
    pub(crate) fn marks(&self) -> Marks {
        self.queue.lock().marks(self.clock.now_millis())
    }

    /// Makes the next generation's file ready, if none is.
    pub(crate) fn prepare_spare(&self) -> Result<(), Error> {
        let (id, marks) = {
            let mut queue = self.queue.lock();
            if !queue.wants_spare() {
                return Ok(());
            }
            (queue.new_generation_id(), queue.marks(self.clock.now_millis()))
        };
        let file = self.storage.create_generation(id, marks)?;
        let spare = Arc::new(Generation::over(id, file)?);
        self.generations.insert(Arc::clone(&spare));
        self.queue.lock().add_spare(spare);
        Ok(())
    }

    /// Closes a generation to appends for good, if all of its records are over.
    pub(crate) fn let_go(&self, generation: &Generation, now: u64) -> bool {
        self.queue.lock().let_go(generation, now)
    }

    /// Closes generations to appends whose time is over.
    pub(crate) fn freeze_over(&self, now: u64) {
        self.queue.lock().freeze_over(now);
    }

    /// When the time of an open generation is over next.
    pub(crate) fn next_over(&self) -> Option<u64> {
        self.queue.lock().next_over()
    }

    /// Whether a generation has records, all of them durable, and takes no more.
    pub(crate) fn is_frozen(&self, generation: &Generation) -> bool {
        self.queue.lock().is_frozen(generation)
    }

    /// Whether a generation is one that records are appended to.
    pub(crate) fn is_open(&self, generation: &Generation) -> bool {
        self.queue.lock().is_open(generation)
    }

    /// Whether a commit is to take two phases.
    pub(crate) fn two_phase(&self) -> bool {
        self.durability == Durability::Strict
    }

    /// Whether this process is a fork of the one that opened the store.
    pub(crate) fn is_forked(&self) -> bool {
        std::process::id() != self.process && !cfg!(planted = "forked")
    }

    /// An error in a forked child: the files, the locks and the threads are the parent's. Asked
    /// before any lock is taken, which another thread may have held when the fork came.
    pub(crate) fn check_process(&self) -> Result<(), Error> {
        if self.is_forked() {
            return Err(Error::new(
                ErrorKind::Closed,
                "this process is a fork of the one that opened the store: call it there, or open \
                 another store here",
            ));
        }
        Ok(())
    }

    /// An error where the store was closed, or in a forked child, for calls that need not write.
    /// The system is asked who we are once in a millisecond of the store's time: a call is not to
    /// cost a system call, and what a child reads that soon was true when the fork came.
    pub(crate) fn check_open_at(&self, now: u64) -> Result<(), Error> {
        if self.seen_in_own_process.load(Ordering::Relaxed) != now {
            self.check_process()?;
            self.seen_in_own_process.store(now, Ordering::Relaxed);
        }
        self.check_open()
    }

    /// An error where the store was closed.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Acquire) { Err(Error::closed()) } else { Ok(()) }
    }

    /// An error where the store takes no more writes.
    pub(crate) fn check_running(&self) -> Result<(), Error> {
        self.queue.lock().refuse_stopped()
    }

    /// The fault that stopped the store, if one did.
    pub(crate) fn poisoned_by(&self) -> Option<Error> {
        match &self.queue.lock().stopped {
            Some(Stopped::Poisoned(cause)) => Some(cause.share()),
            Some(Stopped::Closed) | None => None,
        }
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.queue.lock().queued_bytes()
    }

    pub(crate) fn figures(&self) -> CommitFigures {
        self.figures.read()
    }

    pub(crate) fn hook(&self, hooks: Hooks) {
        // Set once, while the store is being opened.
        let _ = self.hooks.set(hooks);
    }

    /// Takes no more writes after a fault: whatever is queued is refused, everyone is told, and
    /// nothing is written to the files from here on.
    pub(crate) fn poison(&self, cause: &Error) {
        let halt = &self.storage.place.halt;
        halt.halt();
        let mut unknown = match cause.kind() {
            // A forked child: nothing was tried.
            ErrorKind::Closed => cause.share(),
            _ => cause.seen_as(
                ErrorKind::Unknown,
                format!(
                    "{cause}; the commit failed half-way, so the write may or may not have landed: \
                     do not redo it, open the store again and look it up"
                ),
            ),
        };
        if let Some(fault) = halt.first_fault() {
            unknown = unknown.with_source(fault);
        }
        let (filling, committing, untried) = {
            let mut queue = self.queue.lock();
            if matches!(queue.stopped, Some(Stopped::Poisoned(_))) {
                return;
            }
            queue.stopped = Some(Stopped::Poisoned(unknown.share()));
            (queue.renew_filling(), queue.committing.take(), queue.refuse_stopped())
        };
        if let Some(batch) = committing {
            batch.cell.settle(Err(unknown));
        }
        filling.cell.settle(untried);
        self.stopped();
        self.observer.tell(Event::Poisoned { cause });
    }

    fn stopped(&self) {
        if let Some(hooks) = self.hooks.get() {
            (hooks.stopped)();
        }
    }
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer").field("durability", &self.durability).finish_non_exhaustive()
    }
}

/// Room kept in the queue, given back when dropped.
struct Reserved<'c> {
    committer: &'c Committer,
    bytes: usize,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.committer.queue.lock().give_back(self.bytes);
    }
}

fn decode(row: &[u8], position: Position) -> Result<Record, Error> {
    codec::decode(row, position)
        .map_err(|error| Error::corrupt("a row in memory cannot be read").with_source(error))
}
