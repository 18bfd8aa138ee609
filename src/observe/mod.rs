//! What is seen from outside: events and spans with the feature `tracing`, samples with `metrics`.
//!
//! The parts say what happened; [`on`] passes it to whoever the caller has installed. Without the
//! features [`off`] stands in for it, where everything is empty and compiles to nothing.
//!
//! A subscriber or a recorder is the caller's code. So it is told with no lock held, and of a
//! commit once everyone who waited for it is awake and the committer role is given up; its panics
//! are not ours. Nothing is told for a claim, and nothing has a byte of a project, a key or a
//! reply: they may be personal. What is counted for each claim, the table counts anyway;
//! `Store::stats` and `Store::publish_metrics` read it there.

#[cfg(feature = "tracing")]
mod events;
#[cfg(not(any(feature = "tracing", feature = "metrics")))]
mod off;
#[cfg(any(feature = "tracing", feature = "metrics"))]
mod on;
#[cfg(feature = "metrics")]
mod samples;

use std::time::Duration;

#[cfg(not(any(feature = "tracing", feature = "metrics")))]
pub(crate) use off::*;
#[cfg(any(feature = "tracing", feature = "metrics"))]
pub(crate) use on::*;
#[cfg(feature = "metrics")]
pub(crate) use samples::{BATCH_BYTES, BATCH_RECORDS, COMMIT_SECONDS};

use crate::error::Error;

/// What happens to a store once in a while.
#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "nobody looks into it"))]
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event<'a> {
    Opened(Opened),
    /// All of its records are over, and its file is gone.
    Retired {
        generation: u32,
    },
    Sealed {
        generation: u32,
        entries: u64,
        took: Duration,
    },
    Poisoned {
        cause: &'a Error,
    },
    /// Before whoever closed it is told.
    Closed {
        outcome: &'a Result<(), Error>,
    },
}

/// What an opening found.
#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "nobody looks into it"))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opened {
    pub(crate) epoch: u32,
    /// The last run was closed, and did not end in a crash.
    pub(crate) clean: bool,
    pub(crate) generations: usize,
    /// Records of the files that are not sealed.
    pub(crate) replayed_records: u64,
    pub(crate) unanswered: u64,
    /// How far the wall clock stood behind the last time in the store.
    pub(crate) skew: Duration,
    pub(crate) took: Duration,
}

/// A generation that a lane has turned to.
#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "nobody looks into it"))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    pub(crate) generation: u32,
    /// How long it takes records, at most.
    pub(crate) takes_for: Duration,
}

/// What takes its time.
#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "nobody looks into it"))]
#[derive(Debug, Clone, Copy)]
pub(crate) enum Span {
    Open,
    Commit { records: usize, bytes: usize },
    Seal { generation: u32 },
}
