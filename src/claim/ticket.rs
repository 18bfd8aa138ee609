//! The ticket: the right and the duty to do the work of one operation.

use std::time::Duration;

use bytes::Bytes;

use super::Reply;
use crate::clock::millis_of;
use crate::engine::Engine;
use crate::error::Error;
use crate::identity::{OperationId, RequestId};
use crate::pending::Pending;
use crate::record::transition::Act;
use crate::record::{Payload, Record};
use crate::sync::Arc;

/// Largest checkpoint, in bytes.
pub const MAX_CHECKPOINT_BYTES: usize = 4096;

/// Longest reason of a release, in bytes.
pub const MAX_REASON_BYTES: usize = 4096;

/// The one right to do the work of an operation, until it is completed, failed, released or
/// dropped, or until its lease is over and someone takes over.
///
/// A ticket is moved to whoever does the work. Ending the operation consumes it; where that fails
/// for a reason that can be mended, [`Error::into_ticket`](crate::Error::into_ticket) has it back.
///
/// **Dropping a ticket writes nothing**: the operation counts as lapsed from then on, those who
/// wait for it wake, and the next claim resumes it. So an early return or a panic frees the
/// operation, and the next attempt knows that this one was [dropped](crate::Why::Dropped).
#[must_use = "dropping a ticket gives its operation up"]
pub struct Ticket {
    owned: Option<Owned>,
    /// Whether the caller has it; until then nobody can have begun the work.
    seen: bool,
}

struct Owned {
    engine: Arc<Engine>,
    operation: OperationId,
    request_id: RequestId,
    fence: u64,
    attempt: u32,
}

impl Ticket {
    pub(crate) fn new(engine: &Arc<Engine>, record: &Record) -> Self {
        Ticket {
            owned: Some(Owned {
                engine: Arc::clone(engine),
                operation: record.operation,
                request_id: record.request_id(),
                fence: record.fence,
                attempt: record.attempt,
            }),
            seen: false,
        }
    }

    pub(crate) fn mark_seen(&mut self) {
        self.seen = true;
    }

    /// The id of the request: what a client reconnects by.
    #[must_use]
    pub fn request_id(&self) -> RequestId {
        self.owned.as_ref().map_or_else(RequestId::none, |owned| owned.request_id)
    }

    /// This ticket's number: larger than that of every ticket before it in the store. A service
    /// downstream that remembers the largest it has seen can refuse an owner that was taken over.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.owned.as_ref().map_or(0, |owned| owned.fence)
    }

    /// The number of this attempt; 1 is the first.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.owned.as_ref().map_or(0, |owned| owned.attempt)
    }

    /// Stores the reply: the operation is completed, and every duplicate gets it for the rest of
    /// the window. Accepted late, as long as nobody took over; given twice, the first stays.
    ///
    /// Costs one record in the next batch. Wakes those who wait for the operation.
    ///
    /// # Errors
    /// [`TooLarge`](crate::ErrorKind::TooLarge), [`Invalid`](crate::ErrorKind::Invalid) and
    /// [`Busy`](crate::ErrorKind::Busy) give the ticket back.
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost): someone took over, and this reply is not stored.
    /// [`Gone`](crate::ErrorKind::Gone): the record was forgotten meanwhile.
    pub fn complete(self, reply: impl Into<Reply>) -> Pending<()> {
        self.settle(reply.into(), |payload, window| Act::Complete { payload, window })
    }

    /// Stores an error reply: the operation has failed, for good, and every duplicate is told so
    /// for the rest of the window (or for [`Reply::retention`]).
    ///
    /// Cost and errors as for [`complete`](Ticket::complete).
    pub fn fail(self, reply: impl Into<Reply>) -> Pending<()> {
        self.settle(reply.into(), |payload, window| Act::Fail { payload, window })
    }

    /// Gives the operation back as one that can be tried again, with a reason for whoever does; at
    /// most 4 KiB. A waiter or the next claim resumes it.
    ///
    /// Cost and errors as for [`complete`](Ticket::complete).
    pub fn release(self, reason: impl Into<String>) -> Pending<()> {
        let reason = reason.into();
        if reason.len() > MAX_REASON_BYTES {
            let error = Error::too_large("the reason", reason.len(), MAX_REASON_BYTES);
            return Pending::refused(error.with_ticket(self));
        }
        self.give_up(Act::Release { reason: reason.into_boxed_str() })
    }

    /// Moves the end of the lease to this long from now: a sign of life for work that takes longer.
    ///
    /// # Errors
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost): someone took over. Stop the work.
    pub fn renew(&self, lease: Duration) -> Pending<()> {
        let Some(owned) = &self.owned else { return Pending::refused(Error::closed()) };
        match owned.engine.check_span("the lease", lease) {
            Ok(()) => self.keep(Act::Renew { lease: millis_of(lease) }),
            Err(error) => Pending::refused(error),
        }
    }

    /// Notes that the work may have been sent, before it is: whoever resumes the operation is
    /// [told](crate::Prior::dispatched).
    ///
    /// # Errors
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost): someone took over. Do not send it.
    pub fn mark_dispatched(&self) -> Pending<()> {
        self.keep(Act::MarkDispatched)
    }

    /// Leaves a note for whoever resumes the operation, such as the id a provider gave it; at most
    /// 4 KiB. The last one counts.
    ///
    /// # Errors
    /// [`TooLarge`](crate::ErrorKind::TooLarge);
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost): someone took over.
    pub fn checkpoint(&self, note: impl AsRef<[u8]>) -> Pending<()> {
        let note = note.as_ref();
        if note.len() > MAX_CHECKPOINT_BYTES {
            let error = Error::too_large("the checkpoint", note.len(), MAX_CHECKPOINT_BYTES);
            return Pending::refused(error);
        }
        self.keep(Act::Checkpoint(Bytes::copy_from_slice(note)))
    }

    /// Turns the ticket into a token of 64 bytes, for another thread, task or process to take up
    /// with [`Store::attach`](crate::Store::attach). Until then only the end of the lease, or of
    /// this process, ends the ownership. Writes nothing.
    #[must_use = "the token is all that is left of the ownership"]
    pub fn detach(mut self) -> Vec<u8> {
        match self.owned.take() {
            Some(owned) => {
                owned.engine.token(owned.operation, owned.request_id, owned.fence, owned.attempt)
            }
            None => Vec::new(),
        }
    }

    fn settle(self, reply: Reply, act: impl FnOnce(Payload, Option<u64>) -> Act) -> Pending<()> {
        let Some(owned) = &self.owned else { return Pending::refused(Error::closed()) };
        match owned.engine.check_reply(&reply) {
            Ok(()) => self.give_up(act(reply.payload, reply.retention.map(millis_of))),
            Err(error) => Pending::refused(error.with_ticket(self)),
        }
    }

    fn give_up(mut self, act: Act) -> Pending<()> {
        let Some(owned) = self.owned.take() else { return Pending::refused(Error::closed()) };
        match owned.engine.owner_act(owned.operation, owned.fence, act) {
            Ok(pending) => pending,
            Err(error) => {
                // Nothing was submitted, so the ownership is as it was.
                self.owned = Some(owned);
                Pending::refused(error.with_ticket(self))
            }
        }
    }

    fn keep(&self, act: Act) -> Pending<()> {
        let Some(owned) = &self.owned else { return Pending::refused(Error::closed()) };
        owned.engine.owner_act(owned.operation, owned.fence, act).unwrap_or_else(Pending::refused)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(owned) = self.owned.take() else { return };
        if self.seen {
            owned.engine.drop_ticket(owned.operation, owned.fence);
        } else {
            owned.engine.abandon_claim(owned.operation, owned.fence);
        }
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket")
            .field("request_id", &self.request_id())
            .field("fence", &self.fence())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}
