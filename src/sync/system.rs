//! The operating system's threads, and `parking_lot`'s locks.

pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
pub(crate) use std::sync::OnceLock;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
pub(crate) use std::thread::{JoinHandle, ThreadId};

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

/// Which thread this is.
pub(crate) fn this_thread() -> ThreadId {
    std::thread::current().id()
}

/// Lets another runnable thread go first; returns at once where there is none.
pub(crate) fn yield_now() {
    std::thread::yield_now();
}
