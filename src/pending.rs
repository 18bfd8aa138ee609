//! The handle of a call that was submitted: one surface for threads and tasks.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::claim::Claim;
use crate::clock::instant;
use crate::commit::{BatchCell, WakerId};
use crate::error::Error;
use crate::sync::{Arc, Condvar, Mutex};

/// A call that was submitted when it was made, and its answer to come.
///
/// [`wait`](Pending::wait) blocks a thread, `.await` suspends a task on any runtime. Many calls can
/// be submitted before the first is waited for; they then share commits.
///
/// Dropping it does not take the call back: what it writes is written. Only a claim that nobody
/// has seen the answer of is given back: a `Pending<Claim>` dropped early releases the ticket it
/// may have won.
///
/// ```
/// use justonce::{Operation, Options};
///
/// let store = Options::new().in_memory()?;
/// let claims: Vec<_> = (0..100)
///     .map(|n| store.claim(Operation::new("acme", format!("event-{n}"))))
///     .collect();
/// for claim in claims {
///     drop(claim.wait()?);
/// }
/// # Ok::<(), justonce::Error>(())
/// ```
#[must_use = "the call is under way, but nobody will know how it ends"]
pub struct Pending<T>(State<T>);

enum State<T> {
    /// Refused, read at once, or durable whenever it will be.
    Ready(Result<T, Error>),
    /// The answer, once the batch it rests on is durable.
    Commit {
        batch: Arc<BatchCell>,
        answer: T,
        known: Option<WakerId>,
    },
    /// Several steps, each with a wait of its own.
    Steps(Pin<Box<dyn Steps<Output = Result<T, Error>> + Send>>),
    Done,
}

/// A call of several steps.
pub(crate) trait Steps: Future {
    /// The batch that a thread may commit by itself instead of parking.
    fn commit(&self) -> Option<&Arc<BatchCell>> {
        None
    }
}

/// What a [`Pending`] can resolve to; for code that is generic over it.
///
/// It is told when a caller gets hold of it, since a claim that nobody has seen is given back.
pub trait Answer {
    #[doc(hidden)]
    fn seen(&mut self) {}
}

impl<T> Pending<T> {
    pub(crate) fn ready(answer: T) -> Self {
        Pending(State::Ready(Ok(answer)))
    }

    pub(crate) fn refused(error: Error) -> Self {
        Pending(State::Ready(Err(error)))
    }

    /// An answer that holds once `batch` is durable; at once where there is none.
    pub(crate) fn resting_on(batch: Option<Arc<BatchCell>>, answer: T) -> Self {
        match batch.filter(|_| !cfg!(planted = "early")) {
            None => Pending::ready(answer),
            Some(batch) => Pending(State::Commit { batch, answer, known: None }),
        }
    }

    pub(crate) fn steps(steps: impl Steps<Output = Result<T, Error>> + Send + 'static) -> Self {
        Pending(State::Steps(Box::pin(steps)))
    }

    pub(crate) fn batch(&self) -> Option<&Arc<BatchCell>> {
        match &self.0 {
            State::Commit { batch, .. } => Some(batch),
            State::Steps(steps) => steps.commit(),
            State::Ready(_) | State::Done => None,
        }
    }

    fn finish(&mut self, outcome: Result<(), Error>) -> Result<T, Error> {
        match (outcome, std::mem::replace(&mut self.0, State::Done)) {
            (Ok(()), State::Commit { answer, .. }) => Ok(answer),
            (Err(error), _) => Err(error),
            (Ok(()), State::Ready(answer)) => answer,
            (Ok(()), State::Steps(_) | State::Done) => Err(Error::closed()),
        }
    }
}

impl<T: Answer> Pending<T> {
    /// Blocks the thread until the answer is there. The thread commits the batch itself if nobody
    /// is committing, and so saves the way to another thread and back.
    ///
    /// # Errors
    /// Those of the call that was submitted.
    pub fn wait(mut self) -> Result<T, Error> {
        self.wait_until(None).unwrap_or_else(|| Err(Error::closed()))
    }

    /// Blocks the thread until the answer is there, or until `timeout` of real time is over: then
    /// `None`, and the wait can go on.
    ///
    /// ```
    /// use std::time::Duration;
    /// use justonce::{Operation, Options};
    ///
    /// let store = Options::new().in_memory()?;
    /// let mut first = store.record_once(Operation::new("acme", "evt_1"));
    /// let is_first = loop {
    ///     if let Some(answer) = first.wait_timeout(Duration::from_millis(10)) {
    ///         break answer?;
    ///     }
    /// };
    /// assert!(is_first);
    /// # Ok::<(), justonce::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the call that was submitted.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<Result<T, Error>> {
        self.wait_until(instant().checked_add(timeout))
    }

    fn wait_until(&mut self, deadline: Option<Instant>) -> Option<Result<T, Error>> {
        let mut answer = match &mut self.0 {
            State::Ready(_) => self.finish(Ok(())),
            State::Done => return Some(Err(Error::closed())),
            State::Commit { batch, .. } => {
                let outcome = batch.wait(deadline)?;
                self.finish(outcome)
            }
            State::Steps(steps) => {
                let answer = block_on_until(steps.as_mut(), deadline)?;
                self.0 = State::Done;
                answer
            }
        };
        if let Ok(answer) = &mut answer {
            answer.seen();
        }
        Some(answer)
    }
}

// Nothing in it is ever pinned: what has to stay in place is in a box.
impl<T> Unpin for Pending<T> {}

impl<T: Answer> Future for Pending<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut answer = match &mut self.0 {
            State::Ready(_) => self.finish(Ok(())),
            State::Done => Err(Error::closed()),
            State::Commit { batch, known, .. } => match batch.poll(context.waker(), known) {
                Some(outcome) => self.finish(outcome),
                None => return Poll::Pending,
            },
            State::Steps(steps) => {
                let answer = std::task::ready!(steps.as_mut().poll(context));
                self.0 = State::Done;
                answer
            }
        };
        if let Ok(answer) = &mut answer {
            answer.seen();
        }
        Poll::Ready(answer)
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        // Nobody will wait for the batch any more, so someone has to commit it.
        if let State::Commit { batch, .. } = &self.0 {
            batch.want();
        }
    }
}

impl<T> std::fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match &self.0 {
            State::Ready(_) => "ready",
            State::Commit { .. } => "committing",
            State::Steps(_) => "waiting",
            State::Done => "done",
        };
        f.debug_tuple("Pending").field(&state).finish()
    }
}

impl Answer for () {}
impl Answer for bool {}
impl Answer for crate::claim::Settled {}
impl Answer for crate::store::Purged {}
impl Answer for Vec<crate::claim::Entry> {}
impl Answer for Option<crate::claim::Entry> {}

impl Answer for crate::claim::Ticket {
    fn seen(&mut self) {
        self.mark_seen();
    }
}

impl Answer for Claim {
    fn seen(&mut self) {
        if let Claim::New(ticket) | Claim::Resumed(ticket, _) = self {
            ticket.mark_seen();
        }
    }
}

impl Answer for Vec<Claim> {
    fn seen(&mut self) {
        self.iter_mut().for_each(Answer::seen);
    }
}

/// Runs steps on this thread to their end.
pub(crate) fn block_on<T>(steps: impl Steps<Output = Result<T, Error>>) -> Result<T, Error> {
    block_on_until(std::pin::pin!(steps), None).unwrap_or_else(|| Err(Error::closed()))
}

fn block_on_until<F: Steps + ?Sized>(
    mut steps: Pin<&mut F>,
    deadline: Option<Instant>,
) -> Option<F::Output> {
    let parker = Arc::new(Parker::default());
    let waker = Waker::from(Arc::clone(&parker));
    let mut context = Context::from_waker(&waker);
    loop {
        // A batch is better committed here than asked for and waited for.
        if let Some(batch) = steps.commit() {
            batch.wait(deadline)?.ok();
        }
        if let Poll::Ready(answer) = steps.as_mut().poll(&mut context) {
            return Some(answer);
        }
        if steps.commit().is_none() && !parker.park(deadline) {
            return None;
        }
    }
}

/// A parked thread, as a waker.
#[derive(Debug, Default)]
struct Parker {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Parker {
    /// Parks until woken; `false` where `deadline` comes first.
    fn park(&self, deadline: Option<Instant>) -> bool {
        let mut woken = self.woken.lock();
        while !std::mem::take(&mut *woken) {
            match deadline {
                None => self.changed.wait(&mut woken),
                Some(deadline) => {
                    if self.changed.wait_until(&mut woken, deadline).timed_out() {
                        return std::mem::take(&mut *woken);
                    }
                }
            }
        }
        true
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        *self.woken.lock() = true;
        self.changed.notify_one();
    }
}
