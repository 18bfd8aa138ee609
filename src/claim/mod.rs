//! What a claim is answered with, and what can be done with the answer.

mod entry;
mod flight;
mod prior;
mod reply;
mod ticket;

pub use entry::{Entry, EntryState, MAX_HISTORY_ENTRIES};
pub use flight::{Flight, Settled};
pub use prior::{Prior, Why};
pub use reply::{MAX_CONTENT_TAG_BYTES, Reply};
pub use ticket::{MAX_CHECKPOINT_BYTES, MAX_REASON_BYTES, Ticket};

pub(crate) use flight::ClaimOrWait;

use crate::identity::RequestId;

/// The answer to a claim.
///
/// Every answer carries the [request id](Claim::request_id), which stays the same for the life of
/// the record. Answers come durable: whatever they say survives a crash (with
/// [`Durability::Relaxed`](crate::Durability::Relaxed), from a moment later on).
#[derive(Debug)]
#[must_use = "a ticket in it is dropped, and its operation with it"]
#[non_exhaustive]
pub enum Claim {
    /// Not seen before, or no longer remembered: the work is the holder's of this ticket.
    New(Ticket),
    /// Seen before, but its owner is gone or gave it back: the work is the holder's of this ticket,
    /// under the same request id. [`Prior`] tells what is known of the attempts before.
    Resumed(Ticket, Prior),
    /// Someone is at it. Can be waited for.
    InFlight(Flight),
    /// Done: the stored reply.
    Completed(Reply),
    /// Failed for good: the stored error reply, or [word](Reply::attempts_exhausted) that the
    /// attempts are used up.
    Failed(Reply),
    /// The key belongs to an operation with another fingerprint. Its reply is not shown.
    Mismatch(Seen),
    /// Its owner is gone, and the claim asked to be told and not to take over
    /// ([`OnLapsed::Report`](crate::OnLapsed::Report)). Nothing was written.
    Lapsed(Prior),
}

impl Claim {
    /// The id of the request, stable for the life of the record.
    #[must_use]
    pub fn request_id(&self) -> RequestId {
        match self {
            Claim::New(ticket) | Claim::Resumed(ticket, _) => ticket.request_id(),
            Claim::InFlight(flight) => flight.request_id(),
            Claim::Completed(reply) | Claim::Failed(reply) => reply.stored_as(),
            Claim::Mismatch(seen) => seen.request_id(),
            Claim::Lapsed(prior) => prior.request_id(),
        }
    }
}

/// What a claim with another fingerprint is shown of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub(crate) request_id: RequestId,
    pub(crate) state: EntryState,
}

impl Seen {
    /// The id of the request that has the key.
    #[must_use]
    pub fn request_id(&self) -> RequestId {
        self.request_id
    }

    /// What has become of it.
    #[must_use]
    pub fn state(&self) -> EntryState {
        self.state
    }
}
