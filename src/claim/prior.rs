//! What is known of an operation's attempts before this one.

use std::time::SystemTime;

use bytes::Bytes;

use crate::clock::system_time;
use crate::identity::RequestId;
use crate::record::transition::LapseCause;
use crate::record::{Record, State};

/// Why an operation is without an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// Its lease ran out without a sign of life.
    Lease,
    /// Its ticket was dropped.
    Dropped,
    /// The process that owned it ended.
    Restart,
    /// Its owner gave it back: see [`Prior::reason`].
    Released,
}

/// What whoever resumes an operation should know of the attempt before.
#[derive(Debug, Clone)]
pub struct Prior {
    request_id: RequestId,
    attempt: u32,
    why: Why,
    changed_at: u64,
    reason: Option<Box<str>>,
    dispatched: bool,
    checkpoint: Option<Bytes>,
}

impl Prior {
    pub(crate) fn new(record: &Record, cause: Option<LapseCause>) -> Self {
        Prior {
            request_id: record.request_id(),
            attempt: record.attempt,
            why: match cause {
                Some(LapseCause::Lease) => Why::Lease,
                Some(LapseCause::Dropped) => Why::Dropped,
                Some(LapseCause::Restart) => Why::Restart,
                None => Why::Released,
            },
            changed_at: record.changed_at,
            reason: match &record.state {
                State::Released { reason } => Some(reason.clone()),
                _ => None,
            },
            dispatched: record.dispatched,
            checkpoint: record.checkpoint.clone(),
        }
    }

    /// The id of the request, the same for all of its attempts.
    #[must_use]
    pub fn request_id(&self) -> RequestId {
        self.request_id
    }

    /// The number of the attempt before.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Why it ended without a reply.
    #[must_use]
    pub fn why(&self) -> Why {
        self.why
    }

    /// The reason it was released with.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Whether any attempt so far said that its work may have been sent
    /// ([`Ticket::mark_dispatched`](crate::Ticket::mark_dispatched)).
    #[must_use]
    pub fn dispatched(&self) -> bool {
        self.dispatched
    }

    /// The last note that an attempt left ([`Ticket::checkpoint`](crate::Ticket::checkpoint)).
    #[must_use]
    pub fn checkpoint(&self) -> Option<&[u8]> {
        self.checkpoint.as_deref()
    }

    /// When the attempt before last wrote anything.
    #[must_use]
    pub fn last_seen(&self) -> SystemTime {
        system_time(self.changed_at)
    }
}
