//! Taking the committer role, committing one batch, and handing the role on.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Committer;
use super::batch::{Batch, BatchCell, Offer, Tasks};
use crate::clock::instant;
use crate::error::{Error, ErrorKind};
use crate::observe::{Span, Told};
use crate::storage::Rows;
use crate::sync::{Arc, Ordering, yield_now};

/// How often a thread that is about to commit lets others run first, as long as that brings
/// records. Threads just woken by the last commit are about to submit their next.
const GATHER_ROUNDS: usize = 8;

impl Committer {
    /// Commits a batch on the thread that waits for it, if the role is free.
    pub(super) fn commit(&self, cell: &BatchCell) {
        if let Some(role) = self.try_role()
            && cell.outcome().is_none()
        {
            self.gather();
            let tasks = role.commit_next();
            if !cfg!(planted = "unreleased") {
                drop(role);
            }
            tasks.into_iter().for_each(Tasks::wake);
        }
    }

    /// Asks the background thread to take the role, unless someone holds it: whoever does looks
    /// for wanted batches when handing it on.
    pub(super) fn call_if_free(&self) {
        if !self.role_taken.load(Ordering::SeqCst) {
            self.background.call();
        }
    }

    pub(super) fn try_role(&self) -> Option<Role<'_>> {
        let taken =
            self.role_taken.compare_exchange(false, true, Ordering::SeqCst, Ordering::Relaxed);
        // Not `then_some`: a role that is made and dropped gives away the one that is held.
        taken.is_ok().then(|| Role { committer: self, has_committed: Cell::new(false) })
    }

    fn gather(&self) {
        let mut rows = self.queue.lock().filling.rows;
        for _ in 0..GATHER_ROUNDS {
            yield_now();
            let more = self.queue.lock().filling.rows;
            if more == rows {
                return;
            }
            rows = more;
        }
    }
}

/// The right to commit. Handed on when dropped, however that comes about.
pub(super) struct Role<'c> {
    committer: &'c Committer,
    has_committed: Cell<bool>,
}

impl Role<'_> {
    /// Commits what has queued; nothing where nothing had. The tasks that waited for it are to be
    /// woken once the role is given up.
    pub(super) fn commit_next(&self) -> Option<Tasks> {
        let committer = self.committer;
        let batch = {
            let _gate = committer.gate.write();
            committer.queue.lock().take()
        };
        let batch = batch?;
        self.has_committed.set(true);
        let started = instant();
        let written = catch_unwind(AssertUnwindSafe(|| self.write(&batch)));
        let cause = match written {
            Ok(Ok(())) => {
                let took = started.elapsed();
                committer.figures.committed(batch.rows, batch.bytes, took);
                let begun_or_frozen = committer.queue.lock().settled(&batch);
                let told =
                    committer.observer.committed(batch.rows, batch.bytes, took, batch.begun());
                let tasks = batch.cell.settle_threads(Ok(()), told);
                if let Some(hooks) = committer.hooks.get().filter(|_| begun_or_frozen) {
                    hooks.begun.wake_by_ref();
                }
                return Some(tasks);
            }
            Ok(Err(cause)) if cfg!(planted = "unpoisoned") => {
                committer.queue.lock().settled(&batch);
                return Some(batch.cell.settle_threads(Err(cause), Told::default()));
            }
            Ok(Err(cause)) => cause,
            Err(_) => Error::new(ErrorKind::Unknown, "the committer panicked"),
        };
        // Whoever closes the store from here on finds nothing to commit, and needs no role.
        committer.poison(&cause);
        Some(Tasks::default())
    }

    fn write(&self, batch: &Arc<Batch>) -> Result<(), Error> {
        let committer = self.committer;
        let _span =
            committer.observer.span(Span::Commit { records: batch.rows, bytes: batch.bytes });
        committer.check_process()?;
        committer.storage.check_in_place()?;
        let two_phase = committer.two_phase();
        for part in &batch.parts {
            let generation = &part.generation;
            let file = generation.file(&committer.storage, committer.marks())?;
            let rows = Rows { first: part.first, bytes: part.bytes(), opening: part.opening };
            generation.publish(file.append(rows, two_phase)?)?;
        }
        // All rows first, then what they took the place of: that may be in any part.
        for part in &batch.parts {
            part.generation.follow(|unanswered| {
                for (row, meta) in part.numbered() {
                    if meta.unanswered {
                        unanswered.insert(row);
                    }
                }
            });
            let superseded = part.rows.iter().filter_map(|row| row.prev);
            committer.generations.follow_superseded(superseded);
        }
        Ok(())
    }
}

impl Drop for Role<'_> {
    fn drop(&mut self) {
        let committer = self.committer;
        committer.role_taken.store(false, Ordering::SeqCst);
        let (waiting, stopped) = {
            let queue = committer.queue.lock();
            let waiting = (!queue.filling.is_empty()).then(|| Arc::clone(&queue.filling.cell));
            (waiting, queue.stopped.is_some())
        };
        let offer = waiting.map_or(Offer::NotNeeded, |cell| cell.offer());
        // The background thread ends when all is committed, so it must hear of each commit; but not
        // of its own looks in, or it would never rest in a store that was poisoned.
        let is_to_hear = stopped && self.has_committed.get();
        if is_to_hear || offer == Offer::ToBackground {
            committer.background.call();
        }
    }
}
