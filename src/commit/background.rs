//! The thread that commits what no waiting thread commits.
//!
//! It is *called* for a task or an abandoned write and commits at once. Otherwise it looks in
//! from time to time, as long as there is work, and commits a batch that has *lingered*: that is
//! how a write is committed whose handle is kept but not waited for, and how `Relaxed` works at
//! all. When nothing has happened for a while it sleeps until it is roused by the next append, so
//! an idle store costs nothing.

use std::time::Duration;

use super::batch::BatchCell;
use super::{Committer, Durability};
use crate::sync::{Arc, AtomicBool, Condvar, Mutex, Ordering};

/// How long a write that nobody waits for may linger, where durability does not say.
const LINGER: Duration = Duration::from_millis(2);

/// Looks in vain before the thread goes to sleep; few, where schedules are to be short.
const IDLE_LOOKS: u32 = if cfg!(shuttle) { 1 } else { 16 };

#[derive(Debug)]
pub(super) struct Background {
    linger: Duration,
    asleep: AtomicBool,
    orders: Mutex<Orders>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Orders {
    called: bool,
    stopping: bool,
}

impl Background {
    pub(super) fn new(durability: Durability) -> Self {
        let linger = match durability {
            // Twice as often, since a batch may be seen for the first time just after it began.
            Durability::Relaxed { within } => (within / 2).max(Duration::from_micros(100)),
            Durability::Synced | Durability::Strict => LINGER,
        };
        Background {
            linger,
            asleep: AtomicBool::new(false),
            orders: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Has it commit now.
    pub(super) fn call(&self) {
        let mut orders = self.orders.lock();
        if !orders.called {
            orders.called = true;
            drop(orders);
            self.changed.notify_one();
        }
    }

    /// Lets it know that there is work, if it sleeps.
    pub(super) fn rouse(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            drop(self.orders.lock());
            self.changed.notify_one();
        }
    }

    fn stop(&self) {
        let mut orders = self.orders.lock();
        orders.stopping = true;
        orders.called = true;
        drop(orders);
        self.changed.notify_one();
    }
}

impl Committer {
    /// The body of the background thread. Returns when told to stop and all is committed.
    pub(crate) fn run_background(&self) {
        let mut last_seen: Option<Arc<BatchCell>> = None;
        let mut idle_looks = 0;
        loop {
            let (called, stopping) = self.next_orders(idle_looks > IDLE_LOOKS);
            let filling = self.filling();
            let lingered = matches!(
                (&filling, &last_seen),
                (Some(filling), Some(seen)) if Arc::ptr_eq(filling, seen)
            );
            idle_looks = if filling.is_none() && last_seen.is_none() { idle_looks + 1 } else { 0 };
            last_seen = filling;
            if called || lingered {
                last_seen = None;
                while let Some(tasks) = self.try_role().and_then(|role| role.commit_next()) {
                    tasks.wake();
                }
            }
            if stopping && self.filling().is_none() && self.is_idle() {
                return;
            }
        }
    }

    /// Refuses further writes; those accepted are committed before the thread returns.
    pub(crate) fn stop(&self) {
        self.closed.store(true, Ordering::Release);
        {
            let mut queue = self.queue.lock();
            if queue.stopped.is_none() {
                queue.stopped = Some(super::Stopped::Closed);
            }
        }
        self.background.stop();
        self.stopped();
    }

    fn next_orders(&self, may_sleep: bool) -> (bool, bool) {
        let background = &self.background;
        let mut orders = background.orders.lock();
        if !orders.called {
            if may_sleep {
                background.asleep.store(true, Ordering::SeqCst);
                // An append that came before saw nobody asleep.
                if cfg!(planted = "unroused") || self.queue.lock().filling.is_empty() {
                    background.changed.wait(&mut orders);
                }
                background.asleep.store(false, Ordering::SeqCst);
            } else {
                background.changed.wait_for(&mut orders, background.linger);
            }
        }
        (std::mem::take(&mut orders.called), orders.stopping)
    }

    fn filling(&self) -> Option<Arc<BatchCell>> {
        let queue = self.queue.lock();
        (!queue.filling.is_empty()).then(|| Arc::clone(&queue.filling.cell))
    }

    fn is_idle(&self) -> bool {
        self.queue.lock().committing.is_none()
    }
}
