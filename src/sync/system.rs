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
pub(crate) fn at_once<T: Send, R: Send>(things: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            things.into_iter().map(|thing| scope.spawn(move || work(thing))).collect();
        let results = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        results.collect()
    })
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
