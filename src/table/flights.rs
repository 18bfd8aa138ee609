//! Those who wait for an operation in flight.
//!
//! A waiter is a waker in its operation's cell, put there under the shard lock that saw the
//! operation in flight, so no change can slip between the look and the wait. It is taken out when
//! its owner gives up, times out or is dropped.

use std::collections::BTreeMap;
use std::task::{Wake, Waker};

use super::Table;
use crate::identity::OperationId;
use crate::sync::{self, Arc, Mutex, Ordering};

/// The waiters of one operation. As a waker itself, it wakes them all.
#[derive(Debug, Default)]
pub(super) struct FlightCell {
    waiters: Mutex<Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    by_number: BTreeMap<u64, Waker>,
    next_number: u64,
}

impl FlightCell {
    pub(super) fn wake_all(&self) {
        let wakers: Vec<Waker> = self.waiters.lock().by_number.values().cloned().collect();
        wakers.into_iter().for_each(sync::wake);
    }
}

impl Wake for FlightCell {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }
}

/// A place among the waiters of an operation, given up when dropped.
#[derive(Debug)]
pub(crate) struct Waiter {
    table: Arc<Table>,
    operation: OperationId,
    cell: Arc<FlightCell>,
    number: u64,
}

impl Waiter {
    /// Joins the waiters of an operation. Its shard is locked by the caller.
    pub(super) fn join(
        table: &Arc<Table>,
        flights: &mut std::collections::HashMap<OperationId, Arc<FlightCell>>,
        operation: OperationId,
        waker: &Waker,
    ) -> Self {
        let cell = Arc::clone(flights.entry(operation).or_default());
        let number = {
            let mut waiters = cell.waiters.lock();
            let number = waiters.next_number;
            waiters.next_number += 1;
            waiters.by_number.insert(number, waker.clone());
            number
        };
        table.waiting.fetch_add(1, Ordering::Relaxed);
        Waiter { table: Arc::clone(table), operation, cell, number }
    }

    /// Has another waker woken, and returns the one before: it is the caller's, and is dropped
    /// with no lock held.
    pub(super) fn replace_waker(&self, waker: &Waker) -> Option<Waker> {
        self.cell.waiters.lock().by_number.insert(self.number, waker.clone())
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if cfg!(planted = "uncounted") {
            return;
        }
        self.table.waiting.fetch_sub(1, Ordering::Relaxed);
        let mut shard = self.table.shard(self.operation);
        let mut waiters = self.cell.waiters.lock();
        let waker = waiters.by_number.remove(&self.number);
        if waiters.by_number.is_empty() {
            shard.flights.remove(&self.operation);
        }
        drop(waiters);
        drop(shard);
        drop(waker);
    }
}
