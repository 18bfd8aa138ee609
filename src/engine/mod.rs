//! The parts put together: one open store, its time, its files, its threads.
//!
//! A call comes in with its arguments checked, asks the clock once, and goes to the table; its
//! answer goes out as a [`Pending`] on the batch it rests on. Opening and closing are in
//! [`open`] and [`close`], the housekeeping thread in [`keeper`] and [`seal`].

mod close;
mod guest;
mod keeper;
mod look;
mod open;
mod seal;
mod token;
mod verify;

use std::task::Waker;
use std::time::Duration;

pub(crate) use open::{Options as EngineOptions, open};

use crate::claim::{
    Claim, Entry, EntryState, Flight, MAX_CONTENT_TAG_BYTES, Prior, Reply, Seen, Ticket,
};
use crate::clock::{StoreClock, Timer, Timers};
use crate::commit::{BatchCell, Committer, RECORD_BYTES, Room};
use crate::error::{Error, ErrorKind};
use crate::generation::Generations;
use crate::identity::{OperationId, RequestId, Secret, StoreId};
use crate::operation::{Defaults, Operation, checked_operation, checked_span};
use crate::pending::Pending;
use crate::record::transition::{Act, Answer, Found, Intent, Moment, Terms, standing};
use crate::storage::Storage;
use crate::sync::{Arc, Mutex};
use crate::table::{Applied, Observed, Table, Waiter, Walk};
use close::Closing;
#[cfg(all(feature = "inspect", unix))]
pub(crate) use guest::Guest;
use keeper::Keeper;

/// One open store.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) store: StoreId,
    secret: Secret,
    epoch: u32,
    owners_survive_restart: bool,
    defaults: Defaults,
    max_reply_bytes: usize,
    pub(crate) clock: Arc<StoreClock>,
    timers: Arc<Timers>,
    storage: Arc<Storage>,
    pub(crate) generations: Arc<Generations>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) table: Arc<Table>,
    keeper: Arc<Keeper>,
    closing: Mutex<Closing>,
    closed: Arc<BatchCell>,
}

impl Engine {
    pub(crate) fn now(&self) -> u64 {
        self.clock.now_millis()
    }

    pub(crate) fn moment(&self) -> Moment {
        Moment {
            now: self.now(),
            epoch: self.epoch,
            owners_survive_restart: self.owners_survive_restart,
        }
    }

    pub(crate) fn terms(&self, operation: Operation, moment: &Moment) -> Result<Terms, Error> {
        operation.terms(&self.secret, &self.defaults, moment.now)
    }

    pub(crate) fn operation_id(&self, project: &[u8], key: &[u8]) -> Result<OperationId, Error> {
        checked_operation(&self.secret, project, key)
    }

    pub(crate) fn project_id(&self, project: &[u8]) -> crate::identity::ProjectId {
        self.secret.project(project)
    }

    pub(crate) fn claim(self: &Arc<Self>, terms: Terms, moment: &Moment) -> Pending<Claim> {
        match self.claimed(terms, moment, Room::Asked) {
            Ok((claim, rests_on)) => Pending::resting_on(rests_on, claim),
            Err(error) => Pending::refused(error),
        }
    }

    pub(crate) fn claim_many(self: &Arc<Self>, all: Vec<Terms>) -> Pending<Vec<Claim>> {
        let bytes = all.len().saturating_mul(RECORD_BYTES);
        let claimed = self.committer.together(bytes, || {
            let moment = self.moment();
            let mut latest = None;
            let claims: Result<Vec<Claim>, Error> = all
                .into_iter()
                .map(|terms| {
                    let (claim, rests_on) = self.claimed(terms, &moment, Room::Reserved)?;
                    // Batches become durable in order, and nothing here rests on a later one than
                    // what is written here.
                    latest = later(latest.take(), rests_on);
                    Ok(claim)
                })
                .collect();
            (claims, latest)
        });
        match claimed {
            Ok((Ok(claims), rests_on)) => Pending::resting_on(rests_on, claims),
            Ok((Err(error), _)) | Err(error) => Pending::refused(error),
        }
    }

    pub(crate) fn record_once(self: &Arc<Self>, terms: Terms, moment: &Moment) -> Pending<bool> {
        let operation = terms.operation;
        self.apply(operation, Intent::Record(terms), moment, |applied| {
            Ok(matches!(applied.answer, Answer::New | Answer::Resumed(_)))
        })
    }

    /// An owner's act. `Err` where nothing was submitted and the ownership is as it was.
    pub(crate) fn owner_act(
        self: &Arc<Self>,
        operation: OperationId,
        fence: u64,
        act: Act,
    ) -> Result<Pending<()>, Error> {
        let intent = Intent::Owner { fence, act };
        let (answer, rests_on) =
            self.table
                .apply(operation, intent, &self.moment(), Room::Asked, |applied| applied.answer)?;
        match answer {
            Answer::Done => Ok(Pending::resting_on(rests_on, ())),
            Answer::Gone => Ok(Pending::refused(gone())),
            _ => Ok(Pending::refused(lease_lost())),
        }
    }

    pub(crate) fn drop_ticket(&self, operation: OperationId, fence: u64) {
        if !self.committer.is_forked() {
            self.table.drop_ticket(operation, fence, self.now());
        }
    }

    /// Gives back a claim whose answer nobody saw.
    pub(crate) fn abandon_claim(self: &Arc<Self>, operation: OperationId, fence: u64) {
        let reason = "the claim was dropped before its answer was seen".into();
        match self.owner_act(operation, fence, Act::Release { reason }) {
            // Committed by whoever comes next, or by the background thread.
            Ok(pending) => drop(pending),
            Err(_) => self.drop_ticket(operation, fence),
        }
    }

    pub(crate) fn look_up(self: &Arc<Self>, operation: OperationId) -> Pending<Option<Entry>> {
        self.look(operation, |_| true)
    }

    pub(crate) fn look_up_request(self: &Arc<Self>, id: RequestId) -> Pending<Option<Entry>> {
        self.look(id.operation(), move |entry| entry.request_id() == id)
    }

    fn look(
        self: &Arc<Self>,
        operation: OperationId,
        is_meant: impl Fn(&Entry) -> bool,
    ) -> Pending<Option<Entry>> {
        match self.table.look_up(operation, self.now()) {
            Ok(None) => Pending::ready(None),
            Ok(Some(seen)) => {
                let standing = standing(&seen.found, &self.moment());
                let entry = Entry::new(seen.found.record, standing).filter(is_meant);
                Pending::resting_on(self.committer.to_await(seen.rests_on), entry)
            }
            Err(error) => Pending::refused(error),
        }
    }

    pub(crate) fn forget(self: &Arc<Self>, operation: OperationId, force: bool) -> Pending<bool> {
        let intent = Intent::Forget { force };
        self.apply(operation, intent, &self.moment(), |applied| match applied.answer {
            Answer::Done => Ok(true),
            Answer::Owned => Err(Error::new(
                ErrorKind::InFlight,
                "the operation has a live owner: wait for it, or force it",
            )),
            _ => Ok(false),
        })
    }

    /// Forgets an operation unless it has a live owner: then `None`. Otherwise says whether there
    /// was anything to forget.
    pub(crate) fn forget_unowned(
        &self,
        operation: OperationId,
    ) -> Result<(Option<bool>, Option<Arc<BatchCell>>), Error> {
        let intent = Intent::Forget { force: false };
        self.table.apply(operation, intent, &self.moment(), Room::Asked, |applied| {
            match applied.answer {
                Answer::Owned => None,
                answer => Some(answer == Answer::Done),
            }
        })
    }

    pub(crate) fn attach(self: &Arc<Self>, token: &[u8]) -> Result<Pending<Ticket>, Error> {
        let token = self.read_token(token)?;
        let picked_up = self.table.pick_up_ticket(token.operation, token.fence, self.now())?;
        let Some(seen) = picked_up else { return Err(gone()) };
        let entry = Entry::new(seen.found.record.clone(), standing(&seen.found, &self.moment()));
        let entry =
            entry.filter(|entry| entry.request_id() == token.request_id).ok_or_else(gone)?;
        if entry.fence() != token.fence
            || !matches!(entry.state(), EntryState::InFlight | EntryState::Lapsed)
        {
            return Err(lease_lost());
        }
        let ticket = Ticket::new(self, &seen.found.record);
        Ok(Pending::resting_on(self.committer.to_await(seen.rests_on), ticket))
    }

    pub(crate) fn walk(&self) -> Walk {
        Walk::over(&self.table)
    }

    /// The operations without a reply, as they are on disk.
    pub(crate) fn in_flight(&self) -> Result<Vec<Entry>, Error> {
        let now = self.now();
        self.committer.check_open_at(now)?;
        let mut entries = Vec::new();
        for generation in self.generations.all() {
            for row in generation.unanswered() {
                let record = match generation.durable(row) {
                    Ok(Some(record)) => record,
                    Ok(None) | Err(_) if generation.is_retired() => continue,
                    // It was durable before it came to the list.
                    Ok(None) => return Err(generation.lacks(row)),
                    Err(error) => return Err(error),
                };
                let Some(seen) = self.table.look_up(record.operation, now)? else { continue };
                // A newer record counts once it is durable, and is on the list itself by then.
                if seen.found.record.sequence == record.sequence || seen.rests_on.is_some() {
                    let found = Found { record, ..seen.found };
                    let standing = standing(&found, &self.moment());
                    entries.extend(Entry::new(found.record, standing));
                }
            }
        }
        Ok(entries)
    }

    pub(crate) fn observe(
        &self,
        request: RequestId,
        moment: &Moment,
        waiter: &mut Option<Waiter>,
        waker: &Waker,
    ) -> Result<Observed, Error> {
        let (operation, claimed_at) = (request.operation(), request.claimed_at());
        self.table.observe(operation, claimed_at, moment, waiter, waker)
    }

    pub(crate) fn alarm(&self, at: u64, waker: Waker) -> Timer {
        self.timers.at(at, waker)
    }

    pub(crate) fn check_reply(&self, reply: &Reply) -> Result<(), Error> {
        let size = reply.body().len();
        if size > self.max_reply_bytes {
            return Err(Error::too_large("the reply", size, self.max_reply_bytes));
        }
        if let Some(tag) = reply.content_tag()
            && tag.len() > MAX_CONTENT_TAG_BYTES
        {
            return Err(Error::too_large("the content tag", tag.len(), MAX_CONTENT_TAG_BYTES));
        }
        reply.retention.map_or(Ok(()), |window| self.check_span("the reply's retention", window))
    }

    /// Refuses a span that is out of bounds, or that ends after the clock does.
    pub(crate) fn check_span(&self, field: &str, span: Duration) -> Result<(), Error> {
        checked_span(field, span, self.now())
    }

    fn claimed(
        self: &Arc<Self>,
        terms: Terms,
        moment: &Moment,
        room: Room,
    ) -> Result<(Claim, Option<Arc<BatchCell>>), Error> {
        let operation = terms.operation;
        let intent = Intent::Claim(terms);
        let (claim, rests_on) = self
            .table
            .apply(operation, intent, moment, room, |applied| self.read_claim(applied, moment))?;
        Ok((claim?, rests_on))
    }

    fn read_claim(self: &Arc<Self>, applied: Applied<'_>, moment: &Moment) -> Result<Claim, Error> {
        let Applied { answer, found, written } = applied;
        let record = written.or(found).ok_or_else(gone)?;
        Ok(match answer {
            Answer::New => Claim::New(Ticket::new(self, record)),
            Answer::Resumed(cause) => {
                let prior = Prior::new(found.unwrap_or(record), cause);
                Claim::Resumed(Ticket::new(self, record), prior)
            }
            Answer::InFlight { lease_until } => {
                let left = Duration::from_millis(lease_until - moment.now);
                Claim::InFlight(Flight::new(self, record, left))
            }
            Answer::Completed => Claim::Completed(Reply::of(record).ok_or_else(gone)?),
            Answer::Failed => Claim::Failed(Reply::of(record).ok_or_else(gone)?),
            Answer::Mismatch(standing) => Claim::Mismatch(Seen {
                request_id: record.request_id(),
                state: EntryState::of(standing).ok_or_else(gone)?,
            }),
            Answer::Lapsed(cause) => Claim::Lapsed(Prior::new(record, Some(cause))),
            Answer::Done
            | Answer::NothingThere
            | Answer::LeaseLost
            | Answer::Gone
            | Answer::Owned => return Err(gone()),
        })
    }

    fn apply<T>(
        self: &Arc<Self>,
        operation: OperationId,
        intent: Intent,
        moment: &Moment,
        read: impl FnOnce(Applied<'_>) -> Result<T, Error>,
    ) -> Pending<T> {
        match self.table.apply(operation, intent, moment, Room::Asked, read) {
            Ok((Ok(answer), rests_on)) => Pending::resting_on(rests_on, answer),
            Ok((Err(error), _)) | Err(error) => Pending::refused(error),
        }
    }
}

/// The batch that becomes durable last of two that a call rests on.
pub(crate) fn later(
    one: Option<Arc<BatchCell>>,
    other: Option<Arc<BatchCell>>,
) -> Option<Arc<BatchCell>> {
    match (one, other) {
        (Some(one), Some(other)) if one.outcome().is_some() => Some(other),
        (Some(one), Some(other)) => Some(if one.number() > other.number() { one } else { other }),
        (one, other) => one.or(other),
    }
}

fn gone() -> Error {
    Error::new(
        ErrorKind::Gone,
        "the record is not there: it expired, was forgotten, or is of another store; claim anew",
    )
}

fn lease_lost() -> Error {
    Error::new(
        ErrorKind::LeaseLost,
        "the operation is not this ticket's any more: it was taken over or settled, and this was \
         not stored; stop the work and look the operation up",
    )
}
