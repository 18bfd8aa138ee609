//! Locks, atomics and threads: the one place they come from.
//!
//! Everything that orders two threads is named here, so that a schedule explorer can take the
//! place of the operating system by swapping this module alone: `system` is what is used, `shuttle`
//! stands in for it with `--cfg shuttle`, `loom` with `--cfg loom`. All have the surface of
//! `parking_lot`'s locks.
//!
//! Lock order, outermost first: batch gate → shard → the background thread's orders → queue →
//! batch cell or flight cell → timers. The list of generations and, under it, a generation's own
//! locks (snapshot, unanswered rows, epochs) are leaves: nothing else is locked under them.

#[cfg(loom)]
mod loom;
#[cfg(shuttle)]
mod shuttle;
#[cfg(not(any(loom, shuttle)))]
mod system;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

#[cfg(loom)]
pub(crate) use loom::*;
#[cfg(shuttle)]
pub(crate) use shuttle::*;
pub(crate) use std::sync::atomic::Ordering;
pub(crate) use std::sync::{Arc, Weak};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use system::*;

/// Locks and atomics below redb, which is under locks of its own when it comes to them: they are
/// the system's, whoever schedules, because no explorer may switch threads there.
pub(crate) mod below {
    pub(crate) use parking_lot::{Mutex, RwLock};
    pub(crate) use std::sync::OnceLock;
    pub(crate) use std::sync::atomic::AtomicBool;
}

/// Wakes a caller's task. What a waker runs is the caller's code: its panic is not ours, and must
/// not keep the next one asleep.
pub(crate) fn wake(waker: Waker) {
    let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
}
