//! The keeper: the thread that has the next generation's file ready, seals those that take no more
//! records, and takes old ones away.
//!
//! It is woken when a generation is begun, when one's time to take records is over and when one's
//! records are over. While it makes, seals or removes a file it holds no lock that a claim takes
//! for longer than a copy of one shard's index; a fault it meets poisons the store, as a failed
//! commit does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Wake, Waker};

use super::Engine;
use crate::error::{Error, ErrorKind};
use crate::observe::Event;
use crate::sync::{Arc, Condvar, Mutex};

#[derive(Debug, Default)]
pub(super) struct Keeper {
    orders: Mutex<Orders>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Orders {
    woken: bool,
    stopping: bool,
}

impl Wake for Keeper {
    fn wake(self: Arc<Self>) {
        self.orders.lock().woken = true;
        self.changed.notify_one();
    }
}

impl Keeper {
    pub(super) fn stop(&self) {
        self.orders.lock().stopping = true;
        self.changed.notify_one();
    }

    /// Whether it is time to end.
    pub(super) fn is_stopping(&self) -> bool {
        self.orders.lock().stopping
    }

    /// Waits to be woken; `false` where it is time to end.
    fn next(&self) -> bool {
        let mut orders = self.orders.lock();
        while !orders.woken && !orders.stopping {
            self.changed.wait(&mut orders);
        }
        orders.woken = false;
        !orders.stopping
    }
}

impl Engine {
    /// The body of the keeper thread.
    pub(super) fn keep_house(self: &Arc<Self>) {
        let waker = Waker::from(Arc::clone(&self.keeper));
        loop {
            let done = catch_unwind(AssertUnwindSafe(|| self.tidy()));
            let panicked = |_| Err(Error::new(ErrorKind::Unknown, "the keeper panicked"));
            match done.unwrap_or_else(panicked) {
                Ok(true) if !self.keeper.is_stopping() => continue,
                Ok(_) => {}
                Err(fault) => {
                    self.committer.poison(&fault);
                    return;
                }
            }
            // Set anew each time: what is over first may have changed.
            let _alarm = self.next_over().map(|at| self.alarm(at, waker.clone()));
            if !self.keeper.next() {
                return;
            }
        }
    }

    /// Does what is to be done now; `true` where it may be that there is more.
    fn tidy(&self) -> Result<bool, Error> {
        self.committer.prepare_spare()?;
        self.committer.freeze_over(self.now());
        self.retire()?;
        self.seal_next()
    }

    /// Takes away the generations whose records are all over.
    fn retire(&self) -> Result<(), Error> {
        let now = self.now();
        for generation in self.generations.all() {
            let is_used = generation.durable_rows() > 0;
            if !is_used || !self.committer.let_go(&generation, now) {
                continue;
            }
            self.table.forget_generation(generation.id);
            self.generations.retire(generation.id);
            generation.close()?;
            if cfg!(planted = "unremoved") {
                continue;
            }
            self.storage.remove_generation(generation.id, self.committer.marks())?;
            self.committer.observer.tell(Event::Retired { generation: generation.id });
        }
        Ok(())
    }

    /// When the records of some generation, or its time to take more, are over next.
    fn next_over(&self) -> Option<u64> {
        let all = self.generations.all();
        let used = all.iter().filter(|of| of.durable_rows() > 0);
        used.map(|of| of.retained_until()).chain(self.committer.next_over()).min()
    }
}
