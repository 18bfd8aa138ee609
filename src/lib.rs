//! An embedded idempotency table: a key is done once.
//!
//! A client times out and retries, a webhook is delivered twice, a user double-clicks. Before it
//! does the work, a service asks: *is this `(project, key)` new?* It gets either the one ticket to
//! do the work, or the existing request with its state and its reply. Within the dedupe window the
//! work is done once, across crashes, timeouts and concurrent duplicates.
//!
//! ```
//! use std::time::Duration;
//! use justonce::{Claim, Operation, Options};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("dedupe");
//! let store = Options::new().window(Duration::from_secs(3600)).open(&path)?;
//! let body = br#"{"prompt":"classify ticket 842"}"#;
//! let operation = || Operation::new("acme", "ticket-842").fingerprint(body);
//!
//! let Claim::New(ticket) = store.claim(operation()).wait()? else { unreachable!() };
//! let request = ticket.request_id();
//! ticket.complete("spam").wait()?;
//!
//! let Claim::Completed(reply) = store.claim(operation()).wait()? else { unreachable!() };
//! assert_eq!(reply.body(), b"spam");
//! assert_eq!(reply.request_id(), Some(request));
//! # Ok::<(), justonce::Error>(())
//! ```
//!
//! # The map
//!
//! * [`Store`] is the table; [`Options`] opens it.
//! * [`Operation`] says what is claimed; [`Claim`] is the answer.
//! * [`Ticket`] is the right to do the work, and ends in a [`Reply`].
//! * [`Flight`] is someone else's work under way, and can be waited for.
//! * [`Entry`] is what is remembered; [`RequestId`] names it to the outside.
//! * [`Pending`] is a call under way: `.wait()` in a thread, `.await` in a task.
//! * [`Error`] says what to do, by [`ErrorKind`].
//!
//! # What it promises
//!
//! For one `(project, key)` and while its record lives: at most one current owner exists at any
//! moment, at most one final reply ever becomes visible and it never changes, every answer carries
//! the same request id, and nothing is shown to anyone before it is on disk (with
//! [`Durability::Synced`], the default, or [`Durability::Strict`]).
//!
//! It is at-most-one-owner and exactly-one-reply. It is not exactly-once for the outside world: an
//! owner may die after it has sent its request and before it has stored the reply. What it knows
//! then, it tells whoever resumes: see [`Prior`].
//!
//! # What it is not
//!
//! Not a queue, not a cache, not a lock service. One process has a store open; services on several
//! machines need one store each, and requests routed by key.

#![warn(missing_docs)]
#![warn(clippy::indexing_slicing)]

mod claim;
mod clock;
mod commit;
mod engine;
mod error;
mod generation;
#[cfg(feature = "http")]
pub mod http;
mod identity;
#[cfg(all(feature = "inspect", unix))]
pub mod inspect;
mod observe;
mod operation;
mod options;
#[doc(hidden)]
pub mod parts;
mod pending;
#[cfg(feature = "metrics")]
mod publish;
mod record;
mod storage;
mod store;
mod sync;
mod table;
mod verify;

pub use claim::{
    Claim, Entry, EntryState, Flight, MAX_CHECKPOINT_BYTES, MAX_CONTENT_TAG_BYTES,
    MAX_HISTORY_ENTRIES, MAX_REASON_BYTES, Prior, Reply, Seen, Settled, Ticket, Why,
};
pub use clock::ManualClock;
pub use commit::{CommitFigures, Durability};
pub use error::{Error, ErrorKind};
pub use identity::{MAX_NAME_BYTES, RequestId};
pub use operation::{MAX_DURATION, MAX_LABEL_BYTES, Operation};
pub use options::{Options, Owner};
pub use pending::{Answer, Pending};
pub use record::transition::OnLapsed;
pub use record::{Payload, WindowFrom};
pub use store::{Filter, GenerationInfo, GenerationState, Purged, Scan, Stats, Store};
pub use table::Counts as ClaimCounts;
pub use verify::{Progress, Verified, Verify};

/// The seam to the disk, for tests that stand in for one. Not covered by semantic versioning.
#[doc(hidden)]
pub mod seam {
    pub use crate::storage::directory::{Directory, File};
}

/// What the fuzzer calls and the surface does not show.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::generation::fuzz as summary;
    pub use crate::record::codec::fuzz as record;
}

/// The README's examples, run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
