//! Locks, atomics and threads: the one place they come from.
//!
//! Everything that orders two threads is named here, so that a schedule explorer can take the
//! place of the operating system by swapping this module alone.
//!
//! Lock order, outermost first: batch gate → shard → the background thread's orders → queue →
//! batch cell or flight cell → timers. The list of generations and, under it, a generation's own
//! locks (snapshot, unanswered rows, epochs) are leaves: nothing else is locked under them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;
use std::thread::JoinHandle;

pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, OnceLock, Weak};

/// Starts a named thread; a machine that refuses one answers with its error.
pub(crate) fn spawn(
    name: &'static str,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// Does the same with several things at once, a thread each; returns what came of them in order.
/// Where the system starts no more threads, those there are do it all.
pub(crate) fn at_once<T: Send, R: Send>(things: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let helpers = things.len().saturating_sub(1);
    let things = Mutex::new(things.into_iter().enumerate());
    let share = || {
        let mut done = Vec::new();
        loop {
            // In a statement of its own, so that it is not locked during the work.
            let next = things.lock().next();
            let Some((number, thing)) = next else { return done };
            done.push((number, work(thing)));
        }
    };
    let mut done = std::thread::scope(|scope| {
        let helpers: Vec<_> = (0..helpers)
            .map_while(|_| std::thread::Builder::new().spawn_scoped(scope, share).ok())
            .collect();
        let mut done = share();
        for helper in helpers {
            done.extend(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

/// How many threads run at once here.
pub(crate) fn parallelism() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Wakes a caller's task. What a waker runs is the caller's code: its panic is not ours, and must
/// not keep the next one asleep.
pub(crate) fn wake(waker: Waker) {
    let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
}

/// Lets another runnable thread go first; returns at once where there is none.
pub(crate) fn yield_now() {
    std::thread::yield_now();
}
