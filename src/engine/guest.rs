//! A guest: who answers questions about an open store from threads of its own.
//!
//! A guest keeps no store open. It is seen out when the store closes, before the files close and
//! the lock goes: so what it has put into the directory is gone before another can open it.

use std::fmt::Debug;

use super::Engine;
#[cfg(all(feature = "inspect", unix))]
use crate::sync::{Arc, ThreadId, Weak, this_thread};

/// What a store knows of its guest.
pub(crate) trait Guest: Debug + Send + Sync {
    /// Stops, and returns once its threads have ended.
    fn leave(&self);
}

impl Engine {
    pub(super) fn see_guest_out(&self) {
        let guest = self.closing.lock().guest.take();
        if let Some(guest) = guest.and_then(|guest| guest.upgrade()) {
            guest.leave();
        }
    }
}

/// A guest's thread, for as long as this lives: closing waits for it, so it does not wait for
/// closing.
#[cfg(all(feature = "inspect", unix))]
#[derive(Debug)]
pub(crate) struct GuestThread {
    engine: Arc<Engine>,
    id: ThreadId,
}

#[cfg(all(feature = "inspect", unix))]
impl Engine {
    /// Takes a guest in; `false` where there is one, or where the store is closing.
    pub(crate) fn take_in(&self, guest: Weak<dyn Guest>) -> bool {
        let mut closing = self.closing.lock();
        let there = closing.guest.as_ref().is_some_and(|guest| guest.strong_count() > 0);
        let takes_in = !there && self.committer.check_open().is_ok();
        if takes_in {
            closing.guest = Some(guest);
        }
        takes_in
    }

    /// Notes that this thread is a guest's.
    pub(crate) fn lend_thread(self: &Arc<Self>) -> GuestThread {
        let id = this_thread();
        self.closing.lock().own_threads.push(id);
        GuestThread { engine: Arc::clone(self), id }
    }
}

#[cfg(all(feature = "inspect", unix))]
impl Drop for GuestThread {
    fn drop(&mut self) {
        self.engine.closing.lock().own_threads.retain(|id| *id != self.id);
    }
}
