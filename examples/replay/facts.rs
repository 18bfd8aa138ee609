//! Facts: what the process with the store open tells the one that keeps the books.
//!
//! One line of JSON on standard output each, shorter than what a pipe takes in one piece, written
//! by one system call. A pipe outlives whoever wrote to it, so what was told before the SIGKILL is
//! read after it.
//!
//! The rule that makes the books worth something: an *intent* is told before the call is made, and
//! its *outcome* after the store has acknowledged it. Whatever the kill cuts off lies between the
//! two, and the books know that it may or may not be there.

use std::io::Write;

use serde::{Deserialize, Serialize};

use crate::pace::Since;

/// A fact, and when it was told: microseconds since the process started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) at: u64,
    pub(crate) fact: Fact,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Fact {
    /// The store is open; this many operations lack a reply.
    Opened { unanswered: usize },
    /// A client asks.
    Begun { submission: usize },
    /// It has its answer.
    Ended { submission: usize },
    /// A claim was won.
    Won { operation: usize, fence: u64, ticket: Ticket },
    /// A claim found someone at it, or was a mismatch.
    TurnedAway { operation: usize, request: String, why: TurnedAway, took: Option<u64> },
    /// A client is shown a reply.
    Shown { operation: usize, shown: Shown, how: How, took: Option<u64> },
    /// `mark_dispatched` was acknowledged.
    Dispatched { operation: usize, fence: u64 },
    /// `checkpoint` was acknowledged.
    Noted { operation: usize, fence: u64 },
    /// Intent: to call the model.
    Calling { operation: usize, fence: u64 },
    /// Intent: to store a reply.
    Settling { operation: usize, fence: u64, reply: Answer },
    /// The reply was acknowledged.
    Settled { operation: usize, fence: u64 },
    /// Intent: to give the operation back.
    Releasing { operation: usize, fence: u64 },
    /// That was acknowledged.
    Released { operation: usize, fence: u64 },
    /// Intent: to drop the ticket.
    Dropping { operation: usize, fence: u64 },
    /// Intent: to sit out the lease.
    Hanging { operation: usize, fence: u64 },
    /// An owner was told that it is one no more.
    LeaseLost { operation: usize, fence: u64 },
    /// The queue was full, and the call will be made again.
    Busy,
    /// The store was closed in good order, and these were its own figures.
    Closed(Totals),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ticket {
    pub(crate) request: String,
    pub(crate) attempt: u32,
    /// `None` of a new operation.
    pub(crate) resumed: Option<Resumed>,
    /// When the claim was made.
    pub(crate) asked: u64,
    /// How long its answer took, in microseconds, where nobody else was waited for.
    pub(crate) took: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Resumed {
    pub(crate) why: Why,
    pub(crate) dispatched: bool,
    pub(crate) note: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Why {
    Lease,
    Dropped,
    Restart,
    Released,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TurnedAway {
    InFlight,
    Mismatch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum How {
    /// Its claim was answered with the reply.
    Claimed,
    /// It waited for the flight.
    Waited,
    /// It is the owner's own client.
    Owned,
}

/// A reply, as the books know it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) attempt: u32,
    pub(crate) has_failed: bool,
    pub(crate) digest: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) request: String,
    pub(crate) answer: Answer,
}

/// The store's own figures of one run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) new: u64,
    pub(crate) resumed: u64,
    pub(crate) in_flight: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) mismatch: u64,
    pub(crate) records_written: u64,
    pub(crate) batches: u64,
}

/// Where facts are told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Teller {
    started: Since,
}

impl Teller {
    pub(crate) fn new() -> Self {
        Teller { started: Since::now() }
    }

    pub(crate) fn now(&self) -> u64 {
        self.started.elapsed_micros()
    }

    /// Tells a fact. If nobody listens any more, there is no point in going on.
    pub(crate) fn tell(&self, fact: Fact) {
        let told = Told { at: self.now(), fact };
        let is_told = serde_json::to_string(&told).is_ok_and(|mut line| {
            line.push('\n');
            std::io::stdout().lock().write_all(line.as_bytes()).is_ok()
        });
        if !is_told {
            std::process::exit(1);
        }
    }
}
