//! A batch: the records that become durable together, and those who wait for it.
//!
//! While it fills it belongs to the queue and is written under the queue's lock. Once swapped out
//! it never changes, so readers share it while the committer writes it down.

#[cfg(all(test, loom))]
mod interleavings;

use std::task::Waker;
use std::time::{Duration, Instant};

use super::Committer;
use crate::error::Error;
use crate::generation::Generation;
use crate::observe::{Begun, Told};
use crate::record::codec::Draft;
use crate::record::{Position, Record};
use crate::storage::Opening;
use crate::sync::{self, Arc, Condvar, Mutex, OnceLock, Weak};

#[derive(Debug)]
pub(crate) struct Batch {
    pub(super) cell: Arc<BatchCell>,
    pub(super) parts: Vec<Part>,
    pub(super) bytes: usize,
    pub(super) rows: usize,
}

/// The rows of one batch that go to one generation.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) generation: Arc<Generation>,
    /// Written with a generation's first rows.
    pub(super) opening: Option<Opening>,
    pub(super) first: u32,
    pub(super) rows: Vec<Row>,
    arena: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    end: usize,
    pub(super) prev: Option<Position>,
    pub(super) unanswered: bool,
}

impl Batch {
    /// The batch that fills first.
    pub(crate) fn first(committer: Weak<Committer>) -> Self {
        Batch::numbered(0, committer)
    }

    /// The batch that fills after this one.
    pub(super) fn next(&self) -> Self {
        Batch::numbered(self.cell.number + 1, Weak::clone(&self.cell.committer))
    }

    fn numbered(number: u64, committer: Weak<Committer>) -> Self {
        let cell = Arc::new(BatchCell { number, committer, ..BatchCell::default() });
        Batch { cell, parts: Vec::new(), bytes: 0, rows: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Adds a stamped record that stands at `position`, and whose bytes are in `draft`, of a
    /// generation whose first row in this batch is the one being added, or was added before.
    pub(crate) fn push(
        &mut self,
        generation: &Arc<Generation>,
        opening: Option<Opening>,
        position: Position,
        record: &Record,
        draft: &Draft,
    ) {
        let index =
            self.parts.iter().position(|part| part.generation.id == generation.id).unwrap_or_else(
                || {
                    self.parts.push(Part {
                        generation: Arc::clone(generation),
                        opening,
                        first: position.row,
                        rows: Vec::new(),
                        arena: Vec::new(),
                    });
                    self.parts.len() - 1
                },
            );
        if let Some(part) = self.parts.get_mut(index) {
            let before = part.arena.len();
            draft.stamp(record.sequence, position, &mut part.arena);
            part.rows.push(Row {
                end: part.arena.len(),
                prev: record.prev,
                unanswered: record.is_unanswered(),
            });
            self.bytes += part.arena.len() - before;
            self.rows += 1;
        }
    }

    /// The generations that were begun with it.
    pub(super) fn begun(&self) -> impl Iterator<Item = Begun> {
        let begun = self.parts.iter().filter_map(|part| Some((part.generation.id, part.opening?)));
        begun.map(|(generation, opening)| {
            let takes_for = Duration::from_millis(opening.lane.rotation_millis());
            Begun { generation, takes_for }
        })
    }

    /// The bytes of a row, if this batch has it.
    pub(super) fn row(&self, position: Position) -> Option<&[u8]> {
        let part = self.parts.iter().find(|part| part.generation.id == position.generation)?;
        part.row(position.row.checked_sub(part.first)? as usize)
    }
}

impl Part {
    fn row(&self, index: usize) -> Option<&[u8]> {
        let start = match index.checked_sub(1) {
            Some(before) => self.rows.get(before)?.end,
            None => 0,
        };
        self.arena.get(start..self.rows.get(index)?.end)
    }

    pub(super) fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.rows.len()).filter_map(|index| self.row(index))
    }

    pub(super) fn numbered(&self) -> impl Iterator<Item = (u32, &Row)> {
        (self.first..).zip(&self.rows)
    }
}

/// Where a batch's outcome is waited for, by threads and tasks alike.
///
/// The outcome is set once. Each waiter sees it; nobody is left asleep.
#[derive(Debug, Default)]
pub(crate) struct BatchCell {
    number: u64,
    /// Who is to be asked to commit it; nobody, where the outcome comes by itself.
    committer: Weak<Committer>,
    /// Set under the lock of `state`.
    outcome: OnceLock<Result<(), Error>>,
    state: Mutex<CellState>,
    /// Threads park here: all are woken by the outcome, one by an offer of the committer role.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct CellState {
    /// Threads that are parked, or about to be.
    threads: usize,
    /// The committer role is free and one of the threads should take it.
    offered: bool,
    /// Someone needs this batch and cannot commit it: a task, or nobody at all.
    wanted: bool,
    /// The committer was asked on behalf of a task.
    called: bool,
    wakers: Vec<Waker>,
}

/// What a parked thread was woken for.
#[derive(Debug)]
enum Woken {
    Settled(Result<(), Error>),
    Offered,
    TimedOut,
}

impl BatchCell {
    /// Batches become durable in the order of their numbers.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The outcome, once there is one. Takes no lock.
    pub(crate) fn outcome(&self) -> Option<Result<(), Error>> {
        let outcome = self.outcome.get()?;
        Some(outcome.as_ref().map(drop).map_err(Error::share))
    }

    /// What a forked child is told of a batch that was not durable when the fork came.
    fn refusal(&self) -> Option<Result<(), Error>> {
        self.committer.upgrade()?.check_process().err().map(Err)
    }

    /// Blocks until there is an outcome, committing the batch if nobody else does. `None` where
    /// `deadline` comes first.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Option<Result<(), Error>> {
        if let Some(outcome) = self.outcome().or_else(|| self.refusal()) {
            return Some(outcome);
        }
        let waiter = self.enter();
        let committer = self.committer.upgrade();
        loop {
            if let Some(committer) = &committer {
                committer.commit(self);
            }
            match waiter.park(deadline) {
                Woken::Settled(outcome) => return Some(outcome),
                Woken::Offered => {}
                Woken::TimedOut => return None,
            }
        }
    }

    /// The outcome, or `waker` is woken by it. `known` is the caller's note of the waker it
    /// left here last, so that a task polled often is listed once.
    pub(crate) fn poll(
        &self,
        waker: &Waker,
        known: &mut Option<WakerId>,
    ) -> Option<Result<(), Error>> {
        if let Some(outcome) = self.outcome() {
            return Some(outcome);
        }
        if *known == Some(WakerId::of(waker)) {
            return None;
        }
        let was_called = {
            let mut state = self.state.lock();
            if !cfg!(planted = "unheard")
                && let Some(outcome) = self.outcome()
            {
                return Some(outcome);
            }
            *known = Some(WakerId::of(waker));
            state.wanted = true;
            state.wakers.push(waker.clone());
            std::mem::replace(&mut state.called, true)
        };
        if !was_called {
            if let Some(refusal) = self.refusal() {
                return Some(refusal);
            }
            self.call_committer();
        }
        None
    }

    /// Sees to it that the batch is committed though no thread waits for it.
    pub(crate) fn want(&self) {
        if self.outcome().is_none() && self.refusal().is_none() {
            self.state.lock().wanted = true;
            self.call_committer();
        }
    }

    fn call_committer(&self) {
        if let Some(committer) = self.committer.upgrade() {
            committer.call_if_free();
        }
    }

    /// Has `waker` woken by the outcome, for one who waits for something else as well.
    pub(crate) fn notify(&self, waker: Waker) {
        let mut state = self.state.lock();
        if self.outcome.get().is_none() {
            state.wakers.push(waker);
        } else {
            drop(state);
            sync::wake(waker);
        }
    }

    /// Sets the outcome and wakes everyone.
    pub(crate) fn settle(&self, outcome: Result<(), Error>) {
        self.settle_threads(outcome, Told::default()).wake();
    }

    /// Sets the outcome and wakes the threads. The tasks are the caller's to wake, and whoever
    /// looks at commits is to be told then.
    pub(super) fn settle_threads(&self, outcome: Result<(), Error>, told: Told) -> Tasks {
        let wakers = {
            let mut state = self.state.lock();
            if self.outcome.set(outcome).is_err() {
                return Tasks::default();
            }
            std::mem::take(&mut state.wakers)
        };
        self.changed.notify_all();
        Tasks(wakers, told)
    }

    /// Counts the calling thread among those who wait, from before it looks for the role.
    fn enter(&self) -> ThreadWaiter<'_> {
        self.state.lock().threads += 1;
        ThreadWaiter(self)
    }

    /// Offers the role to one waiting thread; otherwise says whether someone else must take it.
    pub(super) fn offer(&self) -> Offer {
        let mut state = self.state.lock();
        if state.threads > 0 {
            state.offered = true;
            self.changed.notify_one();
            Offer::ToThread
        } else if state.wanted {
            Offer::ToBackground
        } else {
            Offer::NotNeeded
        }
    }
}

/// Tasks that are to be woken, by one who holds nothing that anybody waits for: a waker is the
/// caller's code, and may drop the store.
#[derive(Debug, Default)]
#[must_use = "tasks sleep until they are woken"]
pub(super) struct Tasks(Vec<Waker>, Told);

impl Tasks {
    pub(super) fn wake(self) {
        self.0.into_iter().for_each(sync::wake);
        self.1.tell();
    }
}

/// Tells wakers apart, as long as one of the compared is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WakerId {
    data: usize,
    vtable: usize,
}

impl WakerId {
    fn of(waker: &Waker) -> Self {
        WakerId { data: waker.data() as usize, vtable: std::ptr::from_ref(waker.vtable()) as usize }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    ToThread,
    ToBackground,
    NotNeeded,
}

/// A thread that waits for a batch.
struct ThreadWaiter<'c>(&'c BatchCell);

impl ThreadWaiter<'_> {
    /// Parks until something happens, or until `deadline`.
    fn park(&self, deadline: Option<Instant>) -> Woken {
        let mut state = self.0.state.lock();
        loop {
            if let Some(outcome) = self.0.outcome() {
                return Woken::Settled(outcome);
            }
            if std::mem::take(&mut state.offered) {
                return Woken::Offered;
            }
            match deadline {
                None => self.0.changed.wait(&mut state),
                Some(deadline) => {
                    if self.0.changed.wait_until(&mut state, deadline).timed_out() {
                        return match self.0.outcome() {
                            Some(outcome) => Woken::Settled(outcome),
                            None => Woken::TimedOut,
                        };
                    }
                }
            }
        }
    }
}

impl Drop for ThreadWaiter<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.threads -= 1;
        // An offer that was meant for this thread goes to another one. Where there is none, the
        // batch is wanted all the same, and the background thread looks for it.
        if state.offered {
            self.0.changed.notify_one();
        }
        if self.0.outcome.get().is_none() {
            state.wanted = true;
        }
    }
}
