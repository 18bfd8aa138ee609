//! The ownership of a request's operation while its work goes on: the ticket, and the sign of life
//! that keeps it.
//!
//! The lease is renewed by whoever polls the work: there is no task beside it, so that work which
//! is dropped or hangs its runtime is given up by itself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::body::Whole;
use super::layer::Settings;
use super::problem::Problem;
use super::reply::Head;
use super::runtime::Task;
use crate::claim::{Prior, Reply, Ticket};
use crate::error::ErrorKind;
use crate::identity::RequestId;
use crate::pending::Pending;

/// The lease is renewed when this part of it is over.
const RENEWALS_A_LEASE: u32 = 3;

/// How often an answer is tried again to be stored with a full queue, and the first pause, which
/// doubles: about 5 s together.
const BUSY_TRIES: u32 = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// Why an operation was released.
pub(super) const PANICKED: &str = "the service panicked";
pub(super) const BROKE_OFF: &str = "the answer broke off";

/// Put among the extensions of each request whose key was won: what the service may know of it.
#[derive(Debug, Clone)]
pub struct Claimed {
    request_id: RequestId,
    attempt: u32,
    fence: u64,
    prior: Option<Prior>,
}

impl Claimed {
    pub(super) fn new(ticket: &Ticket, prior: Option<Prior>) -> Self {
        Claimed {
            request_id: ticket.request_id(),
            attempt: ticket.attempt(),
            fence: ticket.fence(),
            prior,
        }
    }

    /// The id of the request, the same for all of its attempts: fit to be passed on to a service
    /// that has idempotency keys of its own.
    #[must_use]
    pub fn request_id(&self) -> RequestId {
        self.request_id
    }

    /// The number of this attempt; 1 is the first.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// As [`Ticket::fence`].
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// What is known of the attempt before; `None` the first time. Its work may have been done.
    #[must_use]
    pub fn prior(&self) -> Option<&Prior> {
        self.prior.as_ref()
    }
}

/// The ownership of a request's operation, and the sign of life that keeps it.
pub(super) struct Owned {
    ticket: Ticket,
    settings: Arc<Settings>,
    beat: Beat,
}

enum Beat {
    /// The work has not been waited for yet.
    Unborn,
    Resting(Task),
    Renewing(Pending<()>),
    /// The ownership is lost, or the store is.
    Stopped,
}

impl Owned {
    pub(super) fn new(ticket: Ticket, settings: Arc<Settings>) -> Self {
        Owned { ticket, settings, beat: Beat::Unborn }
    }

    pub(super) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Runs work to its end or panic, and renews the lease meanwhile.
    pub(super) async fn during<F: Future>(
        &mut self,
        mut work: Pin<&mut F>,
    ) -> std::thread::Result<F::Output> {
        std::future::poll_fn(|context| {
            let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
            match polled {
                Ok(Poll::Pending) => {
                    self.beat(context);
                    Poll::Pending
                }
                Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
                Err(panic) => Poll::Ready(Err(panic)),
            }
        })
        .await
    }

    /// To be called when the work is waited for: renews the lease when it is time.
    pub(super) fn beat(&mut self, context: &mut Context<'_>) {
        let lease = self.settings.lease;
        loop {
            self.beat = match &mut self.beat {
                Beat::Stopped => return,
                Beat::Unborn => {
                    Beat::Resting(self.settings.runtime.sleep(lease / RENEWALS_A_LEASE))
                }
                Beat::Resting(sleep) => match sleep.as_mut().poll(context) {
                    Poll::Pending => return,
                    Poll::Ready(()) => Beat::Renewing(self.ticket.renew(lease)),
                },
                Beat::Renewing(renewing) => match Pin::new(renewing).poll(context) {
                    Poll::Pending => return,
                    Poll::Ready(Err(error)) if error.kind() != ErrorKind::Busy => Beat::Stopped,
                    Poll::Ready(_) => Beat::Unborn,
                },
            };
        }
    }

    /// Gives the operation back. Where that fails the ticket is gone, and the operation lapses.
    pub(super) async fn release(self, reason: impl Into<String>) {
        let _ = self.ticket.release(reason).await;
    }

    /// As [`release`](Owned::release), from where nothing can be awaited: the write lands by
    /// itself.
    pub(super) fn release_now(self, reason: &str) {
        drop(self.ticket.release(reason));
    }

    /// Stores the answer; where it has no body to keep, or too large a one for the store, that
    /// there was one.
    pub(super) async fn complete(self, head: &Head, whole: Option<&Whole>) -> Result<(), Problem> {
        let (settings, request_id) = (self.settings, self.ticket.request_id());
        let kept = whole.map(|whole| head.with(&whole.data, whole.trailers.as_ref()));
        let mut reply = kept.unwrap_or_else(|| head.not_kept());
        let (mut ticket, mut pause) = (self.ticket, BUSY_PAUSE);
        let mut tries = 0;
        loop {
            let Err(error) = ticket.complete(Reply::clone(&reply)).await else { return Ok(()) };
            let (kind, problem) = (error.kind(), settings.problem(&error).of_request(request_id));
            tries += 1;
            ticket = match error.into_ticket() {
                Some(ticket) if tries <= BUSY_TRIES => ticket,
                _ => return Err(problem),
            };
            match kind {
                ErrorKind::TooLarge { .. } => reply = head.not_kept(),
                ErrorKind::Busy => {
                    settings.runtime.sleep(pause).await;
                    pause *= 2;
                }
                _ => return Err(problem),
            }
        }
    }
}
