//! The gateway: how one submission is served, by a thread or by a task.
//!
//! Claims, does the work where the work is its own, shows the stored reply where it is not, and
//! comes back until there is one. What goes wrong on the way, goes wrong here: owners that die,
//! hang or give up. Each step is told to the books: an intent before, an outcome after.

use std::sync::Arc;
use std::time::Duration;

use justonce::{Claim, Entry, Error, ErrorKind, Flight, Operation, Prior, Reply, Settled, Store};

use crate::facts::{Answer, Fact, How, Resumed, Shown, Teller, Ticket, TurnedAway, Why};
use crate::model;
use crate::pace::{Caller, Pace};
use crate::traffic::{Fate, Lane, Manner, Plan, Source};

/// How long a client waits before it comes back after an error, in the time of the trace.
const BACK_OFF: Duration = Duration::from_secs(2);
/// Answers longer than this have the provider's id of the call noted.
const NOTED_TOKENS: u32 = 300;

#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    pub(crate) store: Store,
    pub(crate) plan: Arc<Plan>,
    pub(crate) pace: Pace,
    pub(crate) teller: Teller,
}

/// One who asks.
#[derive(Debug, Clone, Copy)]
struct Client {
    caller: Caller,
    operation: usize,
    manner: Manner,
}

/// A claim that was won.
struct Owned {
    ticket: justonce::Ticket,
    operation: usize,
    request: String,
    fence: u64,
    attempt: u32,
}

/// Whether a client has its answer.
enum Outcome {
    Answered,
    AskAgain,
}

impl Gateway {
    /// Serves a submission of the plan until its client has an answer.
    pub(crate) async fn serve(&self, submission: usize) -> Result<(), Error> {
        let Some(asked) = self.plan.submissions.get(submission) else { return Ok(()) };
        let caller = match asked.lane {
            Lane::Thread(_) => Caller::Thread,
            Lane::Task(_) => Caller::Task,
        };
        let client = Client { caller, operation: asked.operation, manner: asked.manner };
        caller.pause(self.pace.until(asked.at)).await;
        self.teller.tell(Fact::Begun { submission });
        let is_wrong = asked.source == Source::WrongBody;
        if is_wrong {
            self.until_known(client).await?;
        }
        let operation = || {
            let (project, key) =
                (self.plan.project(client.operation), self.plan.key(client.operation));
            Operation::new(project, key)
                .fingerprint(self.plan.body(client.operation, is_wrong))
                .lease(self.pace.lease())
        };
        self.answer(client, operation).await?;
        self.teller.tell(Fact::Ended { submission });
        Ok(())
    }

    /// Takes up an operation that the process before left without a reply.
    pub(crate) async fn resume(&self, interrupted: Entry) -> Result<(), Error> {
        let key = interrupted.key().unwrap_or_default();
        let Some(operation) = self.plan.operation_of(key) else { return Ok(()) };
        let client = Client { caller: Caller::Task, operation, manner: Manner::AwaitFlight };
        self.answer(client, || interrupted.operation().lease(self.pace.lease())).await
    }

    /// Waits until the key is an old one.
    async fn until_known(&self, client: Client) -> Result<(), Error> {
        let (project, key) = (self.plan.project(client.operation), self.plan.key(client.operation));
        while client.caller.entry(self.store.lookup(&project, &key)).await?.is_none() {
            client.caller.pause(self.pace.real(BACK_OFF)).await;
        }
        Ok(())
    }

    async fn answer(&self, client: Client, operation: impl Fn() -> Operation) -> Result<(), Error> {
        let patience = self.pace.lease() * 2;
        loop {
            let asked = self.teller.now();
            let pending = match client.manner {
                Manner::ClaimOrWait => self.store.claim_or_wait(operation(), patience),
                Manner::AwaitFlight | Manner::ComeBack => self.store.claim(operation()),
            };
            let claim = match client.caller.claim(pending).await {
                Err(error) if error.kind() == ErrorKind::Busy => {
                    self.teller.tell(Fact::Busy);
                    client.caller.pause(self.pace.real(BACK_OFF)).await;
                    continue;
                }
                claim => claim?,
            };
            let took = (client.manner != Manner::ClaimOrWait).then(|| self.teller.now() - asked);
            let outcome = match claim {
                Claim::New(ticket) => {
                    let owned = self.won(client, ticket, None, asked, took);
                    self.work(client, owned).await?
                }
                Claim::Resumed(ticket, prior) => {
                    let owned = self.won(client, ticket, Some(&prior), asked, took);
                    self.work(client, owned).await?
                }
                Claim::InFlight(flight) => {
                    self.turned_away(client, &flight.request_id(), TurnedAway::InFlight, took);
                    self.wait(client, flight, patience).await?
                }
                Claim::Completed(reply) => self.show(client, &reply, false, How::Claimed, took),
                Claim::Failed(reply) => self.show(client, &reply, true, How::Claimed, took),
                Claim::Mismatch(seen) => {
                    self.turned_away(client, &seen.request_id(), TurnedAway::Mismatch, took);
                    Outcome::Answered
                }
                // Answers that nobody here asks for.
                _ => Outcome::AskAgain,
            };
            if matches!(outcome, Outcome::Answered) {
                return Ok(());
            }
        }
    }

    fn won(
        &self,
        client: Client,
        ticket: justonce::Ticket,
        prior: Option<&Prior>,
        asked: u64,
        took: Option<u64>,
    ) -> Owned {
        let owned = Owned {
            operation: client.operation,
            request: ticket.request_id().to_string(),
            fence: ticket.fence(),
            attempt: ticket.attempt(),
            ticket,
        };
        self.teller.tell(Fact::Won {
            operation: client.operation,
            fence: owned.fence,
            ticket: Ticket {
                request: owned.request.clone(),
                attempt: owned.attempt,
                resumed: prior.map(resumed),
                asked,
                took,
            },
        });
        owned
    }

    async fn work(&self, client: Client, owned: Owned) -> Result<Outcome, Error> {
        let Owned { operation, fence, attempt, .. } = owned;
        let Some(row) = self.plan.rows.get(operation) else { return Ok(Outcome::Answered) };
        let fate = self.plan.fate(operation, attempt);
        if fate == Fate::DiesBeforeCall {
            return Ok(self.die(client, owned).await);
        }
        if !self.note(client, &owned, row.generated_tokens > NOTED_TOKENS).await? {
            return Ok(Outcome::AskAgain);
        }
        self.teller.tell(Fact::Calling { operation, fence });
        client.caller.pause(self.pace.real(model::duration(row))).await;
        match fate {
            Fate::DiesBeforeCall | Fate::DiesAfterCall => Ok(self.die(client, owned).await),
            Fate::ProviderError => self.release(client, owned).await,
            Fate::FinalError => {
                self.settle(client, owned, model::refusal(operation, fence), true).await
            }
            Fate::Hangs => {
                self.teller.tell(Fact::Hanging { operation, fence });
                client.caller.pause(self.pace.lease().mul_f64(1.25)).await;
                self.settle(client, owned, model::answer(row, operation, fence), false).await
            }
            Fate::Completes => {
                self.settle(client, owned, model::answer(row, operation, fence), false).await
            }
        }
    }

    /// Notes that the call may have been sent and, of a long one, what the provider calls it.
    /// `false` where the operation is someone else's by now.
    async fn note(&self, client: Client, owned: &Owned, is_long: bool) -> Result<bool, Error> {
        let Owned { operation, fence, .. } = *owned;
        let dispatched = self.write(client, || owned.ticket.mark_dispatched()).await;
        if !self.still_owns(owned, dispatched)? {
            return Ok(false);
        }
        self.teller.tell(Fact::Dispatched { operation, fence });
        if is_long {
            let call = model::call_id(operation, fence);
            let noted = self.write(client, || owned.ticket.checkpoint(&call)).await;
            if !self.still_owns(owned, noted)? {
                return Ok(false);
            }
            self.teller.tell(Fact::Noted { operation, fence });
        }
        Ok(true)
    }

    async fn die(&self, client: Client, owned: Owned) -> Outcome {
        let Owned { operation, fence, ticket, .. } = owned;
        self.teller.tell(Fact::Dropping { operation, fence });
        drop(ticket);
        client.caller.pause(self.pace.real(BACK_OFF)).await;
        Outcome::AskAgain
    }

    async fn release(&self, client: Client, owned: Owned) -> Result<Outcome, Error> {
        let Owned { operation, fence, .. } = owned;
        self.teller.tell(Fact::Releasing { operation, fence });
        if self.end(client, owned, |ticket| ticket.release("the provider said 503")).await? {
            self.teller.tell(Fact::Released { operation, fence });
        }
        client.caller.pause(self.pace.real(BACK_OFF)).await;
        Ok(Outcome::AskAgain)
    }

    async fn settle(
        &self,
        client: Client,
        owned: Owned,
        body: Vec<u8>,
        has_failed: bool,
    ) -> Result<Outcome, Error> {
        let Owned { operation, fence, attempt, .. } = owned;
        let request = owned.request.clone();
        let answer = Answer { attempt, has_failed, digest: model::digest(&body) };
        self.teller.tell(Fact::Settling { operation, fence, reply: answer.clone() });
        let reply = Reply::new(body).content("application/json");
        let settled = self.end(client, owned, |ticket| {
            let reply = reply.clone();
            if has_failed { ticket.fail(reply) } else { ticket.complete(reply) }
        });
        if !settled.await? {
            return Ok(Outcome::AskAgain);
        }
        self.teller.tell(Fact::Settled { operation, fence });
        let shown = Shown { request, answer };
        self.teller.tell(Fact::Shown { operation, shown, how: How::Owned, took: None });
        Ok(Outcome::Answered)
    }

    async fn wait(
        &self,
        client: Client,
        flight: Flight,
        patience: Duration,
    ) -> Result<Outcome, Error> {
        match client.manner {
            Manner::ClaimOrWait => Ok(Outcome::AskAgain),
            Manner::ComeBack => {
                client.caller.pause(flight.retry_after()).await;
                Ok(Outcome::AskAgain)
            }
            Manner::AwaitFlight => match client.caller.flight(flight, patience).await {
                Ok(Settled::Completed(reply)) => {
                    Ok(self.show(client, &reply, false, How::Waited, None))
                }
                Ok(Settled::Failed(reply)) => {
                    Ok(self.show(client, &reply, true, How::Waited, None))
                }
                Ok(_) => Ok(Outcome::AskAgain),
                Err(error) if error.kind() == ErrorKind::Busy => Ok(Outcome::AskAgain),
                Err(error) => Err(error),
            },
        }
    }

    fn turned_away(
        &self,
        client: Client,
        request: &justonce::RequestId,
        why: TurnedAway,
        took: Option<u64>,
    ) {
        let (operation, request) = (client.operation, request.to_string());
        self.teller.tell(Fact::TurnedAway { operation, request, why, took });
    }

    fn show(
        &self,
        client: Client,
        reply: &Reply,
        has_failed: bool,
        how: How,
        took: Option<u64>,
    ) -> Outcome {
        let answer = Answer {
            attempt: reply.attempt().unwrap_or_default(),
            has_failed,
            digest: model::digest(reply.body()),
        };
        let request = reply.request_id().map(|id| id.to_string()).unwrap_or_default();
        let shown = Shown { request, answer };
        self.teller.tell(Fact::Shown { operation: client.operation, shown, how, took });
        Outcome::Answered
    }

    /// Makes a write that leaves the ticket with its owner, again while the queue is full.
    async fn write(
        &self,
        client: Client,
        write: impl Fn() -> justonce::Pending<()>,
    ) -> Result<(), Error> {
        loop {
            match client.caller.write(write()).await {
                Err(error) if error.kind() == ErrorKind::Busy => {
                    self.teller.tell(Fact::Busy);
                    client.caller.pause(self.pace.real(BACK_OFF)).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Makes the write that ends an ownership, again while the queue is full. `false` where the
    /// operation is someone else's by now.
    async fn end(
        &self,
        client: Client,
        owned: Owned,
        end: impl Fn(justonce::Ticket) -> justonce::Pending<()>,
    ) -> Result<bool, Error> {
        let Owned { operation, fence, mut ticket, .. } = owned;
        loop {
            match client.caller.write(end(ticket)).await {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == ErrorKind::LeaseLost => {
                    self.teller.tell(Fact::LeaseLost { operation, fence });
                    return Ok(false);
                }
                Err(error) if error.kind() == ErrorKind::Busy => {
                    self.teller.tell(Fact::Busy);
                    let Some(back) = error.into_ticket() else { return Ok(false) };
                    ticket = back;
                    client.caller.pause(self.pace.real(BACK_OFF)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn still_owns(&self, owned: &Owned, outcome: Result<(), Error>) -> Result<bool, Error> {
        match outcome {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::LeaseLost => {
                let (operation, fence) = (owned.operation, owned.fence);
                self.teller.tell(Fact::LeaseLost { operation, fence });
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

fn resumed(prior: &Prior) -> Resumed {
    Resumed {
        why: match prior.why() {
            justonce::Why::Lease => Why::Lease,
            justonce::Why::Dropped => Why::Dropped,
            justonce::Why::Restart => Why::Restart,
            _ => Why::Released,
        },
        dispatched: prior.dispatched(),
        note: prior.checkpoint().map(|note| String::from_utf8_lossy(note).into_owned()),
    }
}
