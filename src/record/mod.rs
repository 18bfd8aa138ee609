//! What the store remembers of one operation, and the rules by which it changes.
//!
//! A [`Record`] is a value: it is decided by [`transition`], written by [`codec`] and never changed
//! in place. Nothing here knows of locks, files or clocks; time comes in by argument.

pub(crate) mod codec;
pub(crate) mod transition;

use bytes::Bytes;

use crate::identity::{Fingerprint, OperationId, ProjectId, RequestId};

/// Where a record stands: a generation and a row of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) generation: u32,
    pub(crate) row: u32,
}

/// One state of one operation. All times are milliseconds of the store's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) operation: OperationId,
    pub(crate) project: ProjectId,
    /// Grows with every record of the store, so of two records the larger is the newer.
    pub(crate) sequence: u64,
    /// The sequence of the claim that made the owner. Only a ticket that carries it may write.
    pub(crate) fence: u64,
    /// The record this one takes the place of.
    pub(crate) prev: Option<Position>,
    /// 1 for the first owner.
    pub(crate) attempt: u32,
    /// The run of the store that wrote it.
    pub(crate) epoch: u32,
    /// First claim of this life of the record; with the operation id it makes the request id.
    pub(crate) claimed_at: u64,
    pub(crate) changed_at: u64,
    pub(crate) window: u64,
    pub(crate) window_from: WindowFrom,
    /// When its file may go: not before any record it takes the place of, lest that come back.
    pub(crate) retained_until: u64,
    pub(crate) fingerprint: Option<Fingerprint>,
    pub(crate) dispatched: bool,
    pub(crate) checkpoint: Option<Bytes>,
    pub(crate) label: Option<Box<str>>,
    /// Raw project and key, where the store was told to keep them.
    pub(crate) names: Option<Box<Names>>,
    pub(crate) state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    InFlight { lease_until: u64 },
    Released { reason: Box<str> },
    Completed(Payload),
    Failed(Failure),
    Forgotten,
}

/// Why a failed record failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    Reply(Payload),
    AttemptsExhausted,
}

/// The bytes of a reply, and what they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Payload {
    pub(crate) content_tag: Option<Box<str>>,
    pub(crate) body: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) project: Bytes,
    pub(crate) key: Bytes,
}

/// What the dedupe window counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WindowFrom {
    /// The last change of the record: a claim, a renewal, a reply. The default.
    #[default]
    LastChange,
    /// The first claim, however long the work takes. An operation in flight is still remembered
    /// until its lease is over.
    FirstClaim,
}

impl Payload {
    /// The bytes.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// What the bytes are, if it was said.
    #[must_use]
    pub fn content_tag(&self) -> Option<&str> {
        self.content_tag.as_deref()
    }

    /// Reads the bytes as a JSON value.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) where they are no such value.
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, crate::Error> {
        serde_json::from_slice(&self.body).map_err(|error| {
            crate::Error::new(
                crate::ErrorKind::Invalid,
                "the reply is no such JSON value: look at its content tag and body",
            )
            .with_source(error)
        })
    }
}

impl Record {
    pub(crate) fn request_id(&self) -> RequestId {
        RequestId::new(self.claimed_at, self.operation)
    }

    /// When the record is forgotten: its window, and never while its lease runs.
    pub(crate) fn expires_at(&self) -> u64 {
        let from = match self.window_from {
            WindowFrom::LastChange => self.changed_at,
            WindowFrom::FirstClaim => self.claimed_at,
        };
        match self.state {
            State::InFlight { lease_until } => from.saturating_add(self.window).max(lease_until),
            State::Forgotten => 0,
            _ => from.saturating_add(self.window),
        }
    }

    /// Whether the operation is still waiting for its reply, with an owner or without.
    pub(crate) fn is_unanswered(&self) -> bool {
        matches!(self.state, State::InFlight { .. } | State::Released { .. })
    }
}
