//! Alarms: one thread that wakes whoever's deadline has passed.
//!
//! A [`Timer`] is its owner's claim on one alarm; dropping it takes the alarm back, so what is
//! listed here is what someone waits for, and nothing else.

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::Duration;

use super::StoreClock;
use crate::sync::{self, Arc, Condvar, JoinHandle, Mutex};

#[derive(Debug)]
pub(crate) struct Timers {
    clock: Arc<StoreClock>,
    alarms: Mutex<Alarms>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Alarms {
    /// Keyed by deadline, then by a number of its own, so that two may share a deadline.
    due: BTreeMap<(u64, u64), Waker>,
    next_number: u64,
    stopped: bool,
}

/// One alarm, taken back when dropped.
#[derive(Debug)]
pub(crate) struct Timer {
    timers: Arc<Timers>,
    key: (u64, u64),
}

impl Timers {
    /// Starts the thread. It runs until [`stop`](Timers::stop).
    pub(crate) fn start(clock: &Arc<StoreClock>) -> std::io::Result<(Arc<Self>, JoinHandle<()>)> {
        let timers = Arc::new(Timers {
            clock: Arc::clone(clock),
            alarms: Mutex::new(Alarms::default()),
            moved: Condvar::new(),
        });
        let real_time = clock.drive(&timers);
        let thread = sync::spawn("justonce-timer", {
            let timers = Arc::clone(&timers);
            move || timers.run(real_time)
        })?;
        Ok((timers, thread))
    }

    /// Wakes `waker` once the store's time reaches `deadline_millis`.
    pub(crate) fn at(self: &Arc<Self>, deadline_millis: u64, waker: Waker) -> Timer {
        let mut alarms = self.alarms.lock();
        let key = (deadline_millis, alarms.next_number);
        alarms.next_number += 1;
        let is_first = alarms.due.first_key_value().is_none_or(|(first, _)| key < *first);
        alarms.due.insert(key, waker);
        drop(alarms);
        if is_first {
            self.moved.notify_one();
        }
        Timer { timers: Arc::clone(self), key }
    }

    pub(crate) fn time_moved(&self) {
        // Taken and let go, so that the thread is either before its look at the clock or asleep.
        drop(self.alarms.lock());
        self.moved.notify_one();
    }

    pub(crate) fn stop(&self) {
        self.alarms.lock().stopped = true;
        self.moved.notify_one();
    }

    fn run(&self, real_time: bool) {
        let mut alarms = self.alarms.lock();
        while !alarms.stopped {
            let now = self.clock.now_millis();
            let later = alarms.due.split_off(&(now.saturating_add(1), 0));
            let due = std::mem::replace(&mut alarms.due, later);
            if !due.is_empty() {
                drop(alarms);
                due.into_values().for_each(sync::wake);
                alarms = self.alarms.lock();
                continue;
            }
            match alarms.due.first_key_value() {
                Some((&(deadline, _), _)) if real_time => {
                    let patience = Duration::from_millis(deadline - now);
                    self.moved.wait_for(&mut alarms, patience);
                }
                _ => self.moved.wait(&mut alarms),
            }
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let waker = self.timers.alarms.lock().due.remove(&self.key);
        drop(waker);
    }
}
