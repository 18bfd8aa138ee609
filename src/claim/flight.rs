//! An operation in flight, and waiting for it: parked, never polling.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use super::{Claim, Reply};
use crate::clock::{Timer, millis_of, system_time};
use crate::commit::BatchCell;
use crate::engine::Engine;
use crate::error::Error;
use crate::identity::RequestId;
use crate::pending::{Pending, Steps, block_on};
use crate::record::Record;
use crate::record::transition::{Standing, Terms};
use crate::sync::Arc;
use crate::table::{Observed, Waiter};

/// An operation that someone is at.
///
/// [`wait`](Flight::wait) parks a thread, `.await` suspends a task, until the operation is
/// completed, failed, released or lapsed.
///
/// ```
/// use std::time::Duration;
/// use justonce::{Claim, Operation, Options, Settled};
///
/// let store = Options::new().in_memory()?;
/// let claim = || store.claim(Operation::new("acme", "k")).wait();
/// let Claim::New(ticket) = claim()? else { panic!() };
/// let Claim::InFlight(flight) = claim()? else { panic!() };
/// let waiting = std::thread::spawn(move || flight.wait(Duration::from_secs(60)));
/// ticket.complete("done").wait()?;
/// let Settled::Completed(reply) = waiting.join().unwrap()? else { panic!() };
/// assert_eq!(reply.body(), b"done");
/// # Ok::<(), justonce::Error>(())
/// ```
#[derive(Clone)]
pub struct Flight {
    engine: Arc<Engine>,
    request_id: RequestId,
    attempt: u32,
    since: u64,
    retry_after: Duration,
}

/// How a wait for an operation ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Settled {
    /// It is done: the stored reply.
    Completed(Reply),
    /// It failed for good: the stored error reply.
    Failed(Reply),
    /// Its owner gave it back. Claim it to take it over.
    Released,
    /// Its owner is gone. Claim it to take it over.
    Lapsed,
    /// It is not remembered any more: forgotten, or over.
    Forgotten,
    /// The time is over and someone is still at it.
    StillInFlight,
}

impl Flight {
    pub(crate) fn new(engine: &Arc<Engine>, record: &Record, lease_left: Duration) -> Self {
        Flight {
            engine: Arc::clone(engine),
            request_id: record.request_id(),
            attempt: record.attempt,
            since: record.changed_at,
            retry_after: lease_left,
        }
    }

    /// The id of the request.
    #[must_use]
    pub fn request_id(&self) -> RequestId {
        self.request_id
    }

    /// The number of the attempt under way; 1 is the first.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// When its owner was last heard of: when it claimed, renewed or left a note.
    #[must_use]
    pub fn since(&self) -> SystemTime {
        system_time(self.since)
    }

    /// When it pays to come back at the latest: the rest of the lease, more than zero and at most
    /// the lease.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        self.retry_after
    }

    /// Blocks the thread until the operation is settled, or until `timeout` of the store's time is
    /// over. Reads the disk once it is settled.
    ///
    /// # Errors
    /// [`Busy`](crate::ErrorKind::Busy): a million wait already.
    /// [`Poisoned`](crate::ErrorKind::Poisoned), [`Unknown`](crate::ErrorKind::Unknown),
    /// [`Closed`](crate::ErrorKind::Closed): the store stopped meanwhile.
    pub fn wait(&self, timeout: Duration) -> Result<Settled, Error> {
        block_on(self.waiting(Some(timeout)))
    }

    pub(crate) fn waiting(&self, timeout: Option<Duration>) -> FlightWait {
        FlightWait::new(&self.engine, self.request_id, timeout)
    }
}

impl IntoFuture for Flight {
    type Output = Result<Settled, Error>;
    type IntoFuture = Pending<Settled>;

    /// Waits for as long as it takes: at the longest, to the end of the lease.
    fn into_future(self) -> Pending<Settled> {
        Pending::steps(self.waiting(None))
    }
}

impl std::fmt::Debug for Flight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flight")
            .field("request_id", &self.request_id)
            .field("attempt", &self.attempt)
            .field("retry_after", &self.retry_after)
            .finish_non_exhaustive()
    }
}

/// A wait under way, for a thread or a task.
pub(crate) struct FlightWait {
    engine: Arc<Engine>,
    request_id: RequestId,
    deadline: Option<u64>,
    waiter: Option<Waiter>,
    alarm: Option<Timer>,
}

impl FlightWait {
    fn new(engine: &Arc<Engine>, request_id: RequestId, timeout: Option<Duration>) -> Self {
        let now = engine.now();
        FlightWait {
            engine: Arc::clone(engine),
            request_id,
            deadline: timeout.map(|timeout| now.saturating_add(millis_of(timeout))),
            waiter: None,
            alarm: None,
        }
    }
}

impl Future for FlightWait {
    type Output = Result<Settled, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.alarm = None;
        let moment = this.engine.moment();
        let observed =
            this.engine.observe(this.request_id, &moment, &mut this.waiter, context.waker())?;
        let wake_at = match observed {
            Observed::Settled(seen) => return Poll::Ready(Ok(settled(seen))),
            Observed::InFlight { lease_until } => Some(lease_until),
            Observed::Changing => None,
        };
        if this.deadline.is_some_and(|deadline| deadline <= moment.now) {
            return Poll::Ready(Ok(Settled::StillInFlight));
        }
        let first = wake_at.into_iter().chain(this.deadline).min();
        this.alarm = first.map(|at| this.engine.alarm(at, context.waker().clone()));
        Poll::Pending
    }
}

fn settled(seen: Option<(Standing, Box<Record>)>) -> Settled {
    let Some((standing, record)) = seen else { return Settled::Forgotten };
    match (standing, Reply::of(&record)) {
        (Standing::Completed, Some(reply)) => Settled::Completed(reply),
        (Standing::Failed, Some(reply)) => Settled::Failed(reply),
        (Standing::Released, _) => Settled::Released,
        (Standing::Lapsed(_), _) => Settled::Lapsed,
        (Standing::InFlight { .. }, _) => Settled::StillInFlight,
        (Standing::Absent | Standing::Completed | Standing::Failed, _) => Settled::Forgotten,
    }
}

/// Claims; where that finds someone at it, waits and claims again.
pub(crate) struct ClaimOrWait {
    engine: Arc<Engine>,
    terms: Terms,
    deadline: u64,
    state: Waiting,
}

enum Waiting {
    Claiming(Pending<Claim>),
    Flying(Flight, Box<FlightWait>),
}

impl ClaimOrWait {
    pub(crate) fn new(engine: &Arc<Engine>, terms: Terms, timeout: Duration) -> Self {
        let deadline = engine.now().saturating_add(millis_of(timeout));
        let state = Waiting::Claiming(engine.claim(terms.clone(), &engine.moment()));
        ClaimOrWait { engine: Arc::clone(engine), terms, deadline, state }
    }
}

impl Future for ClaimOrWait {
    type Output = Result<Claim, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            this.state = match &mut this.state {
                Waiting::Claiming(pending) => {
                    match std::task::ready!(Pin::new(pending).poll(context))? {
                        Claim::InFlight(flight) => {
                            let mut wait = flight.waiting(None);
                            wait.deadline = Some(this.deadline);
                            Waiting::Flying(flight, Box::new(wait))
                        }
                        answer => return Poll::Ready(Ok(answer)),
                    }
                }
                Waiting::Flying(flight, wait) => {
                    let settled = std::task::ready!(Pin::new(&mut **wait).poll(context))?;
                    if let Settled::StillInFlight = settled {
                        return Poll::Ready(Ok(Claim::InFlight(flight.clone())));
                    }
                    let moment = this.engine.moment();
                    Waiting::Claiming(this.engine.claim(this.terms.clone(), &moment))
                }
            };
        }
    }
}

impl Steps for FlightWait {}

impl Steps for ClaimOrWait {
    fn commit(&self) -> Option<&Arc<BatchCell>> {
        match &self.state {
            Waiting::Claiming(pending) => pending.batch(),
            Waiting::Flying(..) => None,
        }
    }
}
