//! Threads whose schedule is chosen: by `shuttle`, one step of one thread at a time.
//!
//! A step ends before each lock, unlock, atomic access, look at a [`OnceLock`] and notification.
//! Memory is sequentially consistent, and there is no time: a wait with a deadline gives the
//! others a few turns, and is over if that brings no notification.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

pub(crate) use ::shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
pub(crate) use ::shuttle::thread::{JoinHandle, ThreadId, yield_now};

use super::{Arc, below};

/// Turns that the other threads have before a wait with a deadline is over.
const PATIENCE: usize = 2;

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(::shuttle::sync::Mutex<T>);

/// `None` while its thread waits on a [`Condvar`].
#[derive(Debug)]
pub(crate) struct MutexGuard<'m, T> {
    mutex: &'m Mutex<T>,
    held: Option<::shuttle::sync::MutexGuard<'m, T>>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Mutex(::shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, held: Some(self.held()) }
    }

    fn held(&self) -> ::shuttle::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> MutexGuard<'_, T> {
    /// Does something while the lock is given up.
    fn unlocked(&mut self, work: impl FnOnce()) {
        self.held = None;
        work();
        self.held = Some(self.mutex.held());
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        let Some(held) = &self.held else { unreachable!("its thread waits") };
        held
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        let Some(held) = &mut self.held else { unreachable!("its thread waits") };
        held
    }
}

/// Notifies in the order of arrival, waits with a deadline included, as `parking_lot` does.
#[derive(Debug, Default)]
pub(crate) struct Condvar {
    parked: below::Mutex<VecDeque<Arc<Parked>>>,
}

#[derive(Debug, Default)]
struct Parked(below::Mutex<State>);

#[derive(Debug, Default)]
struct State {
    notified: bool,
    waker: Option<Waker>,
}

pub(crate) struct WaitTimeoutResult {
    timed_out: bool,
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Condvar::default()
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let parked = self.park();
        guard.unlocked(|| {
            ::shuttle::future::block_on(poll_fn(|context| {
                let mut state = parked.0.lock();
                if state.notified {
                    return Poll::Ready(());
                }
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }));
        });
    }

    pub(crate) fn wait_until<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        _deadline: Instant,
    ) -> WaitTimeoutResult {
        self.wait_for(guard, Duration::ZERO)
    }

    pub(crate) fn wait_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        _patience: Duration,
    ) -> WaitTimeoutResult {
        let parked = self.park();
        guard.unlocked(|| {
            (0..PATIENCE).take_while(|_| !parked.0.lock().notified).for_each(|_| yield_now());
            self.parked.lock().retain(|other| !Arc::ptr_eq(other, &parked));
        });
        WaitTimeoutResult { timed_out: !parked.0.lock().notified }
    }

    pub(crate) fn notify_one(&self) {
        step();
        let first = self.parked.lock().pop_front();
        if let Some(parked) = first {
            parked.notify();
        }
    }

    pub(crate) fn notify_all(&self) {
        step();
        let all = std::mem::take(&mut *self.parked.lock());
        for parked in all {
            parked.notify();
        }
    }

    fn park(&self) -> Arc<Parked> {
        let parked = Arc::new(Parked::default());
        self.parked.lock().push_back(Arc::clone(&parked));
        parked
    }
}

impl Parked {
    fn notify(&self) {
        let mut state = self.0.lock();
        state.notified = true;
        state.waker.take().iter().for_each(Waker::wake_by_ref);
    }
}

impl WaitTimeoutResult {
    pub(crate) fn timed_out(&self) -> bool {
        self.timed_out
    }
}

#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(::shuttle::sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        RwLock(::shuttle::sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> ::shuttle::sync::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> ::shuttle::sync::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(crate) struct OnceLock<T>(std::sync::OnceLock<T>);

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        OnceLock(std::sync::OnceLock::new())
    }

    pub(crate) fn get(&self) -> Option<&T> {
        step();
        self.0.get()
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        step();
        self.0.set(value)
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        OnceLock::new()
    }
}

/// Starts a named thread.
pub(crate) fn spawn(
    name: &'static str,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    ::shuttle::thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// Does the same with several things at once, a thread each; returns what came of them in order.
pub(crate) fn at_once<T: Send, R: Send>(things: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    ::shuttle::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            things.into_iter().map(|thing| scope.spawn(move || work(thing))).collect();
        let results = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        results.collect()
    })
}

/// How many threads run at once: the same on each machine.
pub(crate) fn parallelism() -> usize {
    2
}

/// Which thread this is.
pub(crate) fn this_thread() -> ThreadId {
    ::shuttle::thread::current().id()
}

/// Where another thread may go on.
fn step() {
    ::shuttle::thread::sleep(Duration::ZERO);
}
