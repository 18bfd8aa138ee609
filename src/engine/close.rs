//! Closing: what was accepted is committed, then threads end, files close, the lock goes.

use super::Engine;
use super::guest::Guest;
use crate::error::Error;
use crate::observe::Event;
use crate::pending::Pending;
use crate::sync::{Arc, JoinHandle, ThreadId, Weak, this_thread};

/// What is to be ended when the store is closed.
#[derive(Debug, Default)]
pub(super) struct Closing {
    /// The timer and the keeper. The background thread ends last and by itself.
    pub(super) helpers: Vec<JoinHandle<()>>,
    pub(super) own_threads: Vec<ThreadId>,
    /// Who answers questions about the store.
    pub(super) guest: Option<Weak<dyn Guest>>,
}

impl Engine {
    /// Begins to close; resolves when all is closed.
    pub(crate) fn close(self: &Arc<Self>) -> Pending<()> {
        // The thread that would close it is in the parent, and so is the store.
        if let Err(error) = self.committer.check_process() {
            return Pending::refused(error);
        }
        self.committer.stop();
        Pending::resting_on(Some(Arc::clone(&self.closed)), ())
    }

    /// Closes, and blocks until that is done, where blocking can end.
    pub(crate) fn close_on_drop(self: &Arc<Self>) {
        if self.committer.is_forked() {
            self.storage.place.halt.halt();
            return;
        }
        self.committer.stop();
        // A waker or a destructor may be what drops the store, on a thread that closing waits for.
        if !self.closing.lock().own_threads.contains(&this_thread()) {
            let _ = self.closed.wait(None);
        }
    }

    /// The last act of the background thread.
    pub(super) fn finish_close(&self) {
        self.see_guest_out();
        self.keeper.stop();
        self.timers.stop();
        let helpers = std::mem::take(&mut self.closing.lock().helpers);
        for helper in helpers {
            // A helper that panicked has done what it could.
            let _ = helper.join();
        }
        let outcome = self.close_files();
        self.storage.unlock();
        self.committer.observer.tell(Event::Closed { outcome: &outcome });
        self.closed.settle(outcome);
    }

    fn close_files(&self) -> Result<(), Error> {
        let poisoned = self.committer.poisoned_by();
        let mut outcome = poisoned.map_or(Ok(()), Err);
        for generation in self.generations.all() {
            // After a fault the files stay as they are: nothing is written, closing fails.
            outcome = outcome.and(generation.close());
        }
        if outcome.is_ok() {
            let all = self.generations.all();
            let unsealed = all.iter().filter(|of| !of.is_sealed());
            let rows: Vec<_> = unsealed.map(|of| (of.id, of.durable_rows())).collect();
            let (unanswered, marks) = (self.changed_unanswered(), self.committer.marks());
            outcome = self.storage.manifest.end_epoch(self.epoch, &rows, &unanswered, marks);
        }
        outcome.and(self.storage.manifest.close())
    }
}
