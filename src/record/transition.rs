//! The state machine: one pure function from what is stored and what is asked to what is answered
//! and what is written.
//!
//! [`standing`] says what a stored record means at a moment; it is used before each write and
//! after each read. [`transition`] is the contract's table, one arm a cell. Neither looks at a
//! clock, a lock or a file.
//!
//! Invariants of every record that leaves here:
//! * only a claim makes an owner, and each owner's fence is its own (zero here, stamped at append);
//! * a final reply is never replaced within the life of its record;
//! * the request id (operation and first claim) changes only with a new life;
//! * `retained_until` never falls behind that of the record before it.

use bytes::Bytes;

use super::{Failure, Names, Payload, Position, Record, State, WindowFrom};
use crate::identity::{Fingerprint, OperationId, ProjectId};

/// When, and in whose run of the store, something is decided.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: u64,
    pub(crate) epoch: u32,
    /// Whether owners outlive the process, so that a restart does not end their leases.
    pub(crate) owners_survive_restart: bool,
}

/// A stored record, where it stands, and whether its owner's ticket was dropped since.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) record: Record,
    pub(crate) position: Position,
    pub(crate) owner_dropped: bool,
}

/// What a stored record means at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Absent,
    InFlight { lease_until: u64 },
    Lapsed(LapseCause),
    Released,
    Completed,
    Failed,
}

/// Why an owner no longer counts as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LapseCause {
    /// The lease ran out without a sign of life.
    Lease,
    /// The ticket was dropped.
    Dropped,
    /// The process that owned it ended.
    Restart,
}

/// What someone wants of an operation.
#[derive(Debug, Clone)]
pub(crate) enum Intent {
    Claim(Terms),
    /// Claim and complete with an empty reply, in one write.
    Record(Terms),
    Owner {
        fence: u64,
        act: Act,
    },
    Forget {
        force: bool,
    },
}

/// What a claim says of its operation. Durations are milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) operation: OperationId,
    pub(crate) project: ProjectId,
    pub(crate) fingerprint: Option<Fingerprint>,
    pub(crate) window: u64,
    pub(crate) window_from: WindowFrom,
    pub(crate) lease: u64,
    pub(crate) on_lapsed: OnLapsed,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) label: Option<Box<str>>,
    pub(crate) names: Option<Box<Names>>,
}

/// What a claim does with an operation whose owner is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnLapsed {
    /// Take it over: [`Claim::Resumed`](crate::Claim::Resumed). The default.
    #[default]
    Resume,
    /// Say so and write nothing: [`Claim::Lapsed`](crate::Claim::Lapsed). For work that must not
    /// be paid for twice.
    Report,
}

/// What an owner does with its operation.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Complete { payload: Payload, window: Option<u64> },
    Fail { payload: Payload, window: Option<u64> },
    Release { reason: Box<str> },
    Renew { lease: u64 },
    MarkDispatched,
    Checkpoint(Bytes),
}

/// The decision: an answer, and the record to append where something changes.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) answer: Answer,
    pub(crate) write: Option<Record>,
}

/// What the caller is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    New,
    Resumed(Option<LapseCause>),
    InFlight {
        lease_until: u64,
    },
    Completed,
    Failed,
    Mismatch(Standing),
    Lapsed(LapseCause),
    /// An owner's act or a forget was carried out, or had been before.
    Done,
    /// There is nothing to forget.
    NothingThere,
    LeaseLost,
    Gone,
    /// Refused: someone owns it.
    Owned,
}

pub(crate) fn standing(found: &Found, moment: &Moment) -> Standing {
    let Found { record, owner_dropped, .. } = found;
    if record.expires_at() <= moment.now {
        return Standing::Absent;
    }
    match record.state {
        State::InFlight { lease_until } => {
            if record.epoch != moment.epoch && !moment.owners_survive_restart {
                Standing::Lapsed(LapseCause::Restart)
            } else if *owner_dropped {
                Standing::Lapsed(LapseCause::Dropped)
            } else if lease_until <= moment.now {
                Standing::Lapsed(LapseCause::Lease)
            } else {
                Standing::InFlight { lease_until }
            }
        }
        State::Released { .. } => Standing::Released,
        State::Completed(_) => Standing::Completed,
        State::Failed(_) => Standing::Failed,
        State::Forgotten => Standing::Absent,
    }
}

pub(crate) fn transition(found: Option<&Found>, intent: Intent, moment: &Moment) -> Verdict {
    match intent {
        Intent::Claim(terms) => claim(found, terms, moment),
        Intent::Record(terms) => completed_at_once(found, claim(found, terms, moment)),
        Intent::Owner { fence, act } => owner(found, fence, act, moment),
        Intent::Forget { force } => forget(found, force, moment),
    }
}

fn claim(found: Option<&Found>, terms: Terms, moment: &Moment) -> Verdict {
    let Some(found) = found else { return write(Answer::New, first(None, terms, moment)) };
    let record = &found.record;
    let standing = standing(found, moment);
    if standing != Standing::Absent
        && let (Some(stored), Some(given)) = (record.fingerprint, terms.fingerprint)
        && stored != given
    {
        return stand(Answer::Mismatch(standing));
    }
    match standing {
        Standing::Absent => write(Answer::New, first(Some(found), terms, moment)),
        Standing::InFlight { lease_until } => stand(Answer::InFlight { lease_until }),
        Standing::Lapsed(cause) if terms.on_lapsed == OnLapsed::Report => {
            stand(Answer::Lapsed(cause))
        }
        Standing::Lapsed(_) | Standing::Released if exhausted(record, &terms) => {
            let mut failed = next(found, moment);
            failed.window = terms.window;
            failed.window_from = terms.window_from;
            failed.state = State::Failed(Failure::AttemptsExhausted);
            // Its notes stay, for whoever looks into it.
            write(Answer::Failed, retained(Some(found), failed))
        }
        Standing::Lapsed(cause) => {
            write(Answer::Resumed(Some(cause)), resumed(found, terms, moment))
        }
        Standing::Released => write(Answer::Resumed(None), resumed(found, terms, moment)),
        Standing::Completed if cfg!(planted = "extended") => {
            write(Answer::Completed, retained(Some(found), next(found, moment)))
        }
        Standing::Completed => stand(Answer::Completed),
        Standing::Failed => stand(Answer::Failed),
    }
}

fn exhausted(record: &Record, terms: &Terms) -> bool {
    terms.max_attempts.is_some_and(|max| record.attempt >= max)
}

/// The first record of a new life, which may follow an old one that is over.
fn first(over: Option<&Found>, terms: Terms, moment: &Moment) -> Record {
    // A later life never shares its first millisecond, and so its request id, with an earlier one.
    let claimed_at = match over {
        Some(over) => moment.now.max(over.record.claimed_at.saturating_add(1)),
        None => moment.now,
    };
    retained(
        over,
        Record {
            operation: terms.operation,
            project: terms.project,
            sequence: 0,
            fence: 0,
            prev: over.map(|over| over.position),
            attempt: 1,
            epoch: moment.epoch,
            claimed_at,
            changed_at: claimed_at,
            window: terms.window,
            window_from: terms.window_from,
            retained_until: 0,
            fingerprint: terms.fingerprint,
            dispatched: false,
            checkpoint: None,
            label: terms.label,
            names: terms.names,
            state: State::InFlight { lease_until: moment.now.saturating_add(terms.lease) },
        },
    )
}

/// The same operation under its next owner.
fn resumed(found: &Found, terms: Terms, moment: &Moment) -> Record {
    let mut record = next(found, moment);
    record.fence = 0;
    record.attempt = record.attempt.saturating_add(1);
    record.window = terms.window;
    record.window_from = terms.window_from;
    record.fingerprint = record.fingerprint.or(terms.fingerprint);
    record.label = terms.label.or(record.label);
    record.names = record.names.or(terms.names);
    record.state = State::InFlight { lease_until: moment.now.saturating_add(terms.lease) };
    retained(Some(found), record)
}

fn completed_at_once(found: Option<&Found>, mut verdict: Verdict) -> Verdict {
    if let Some(record) = &mut verdict.write
        && matches!(record.state, State::InFlight { .. })
    {
        record.state = State::Completed(Payload::default());
        record.checkpoint = None;
        record.dispatched = false;
        // Without the lease of an owner that never was.
        let floor = found.map_or(0, |found| found.record.retained_until);
        record.retained_until = record.expires_at().max(floor);
    }
    verdict
}

fn owner(found: Option<&Found>, fence: u64, act: Act, moment: &Moment) -> Verdict {
    let Some(found) = found else { return stand(Answer::Gone) };
    if standing(found, moment) == Standing::Absent {
        return stand(Answer::Gone);
    }
    if found.record.fence != fence && !cfg!(planted = "unfenced") {
        return stand(Answer::LeaseLost);
    }
    match (&found.record.state, act) {
        (State::Completed(_), Act::Complete { .. })
        | (State::Failed(Failure::Reply(_)), Act::Fail { .. }) => stand(Answer::Done),
        (State::InFlight { .. }, act) => write(Answer::Done, acted(found, act, moment)),
        (State::Completed(_) | State::Failed(_) | State::Released { .. } | State::Forgotten, _) => {
            stand(Answer::LeaseLost)
        }
    }
}

fn acted(found: &Found, act: Act, moment: &Moment) -> Record {
    let mut record = next(found, moment);
    match act {
        Act::Complete { payload, window } => {
            record.window = window.unwrap_or(record.window);
            record.state = State::Completed(payload);
            record = settled(record);
        }
        Act::Fail { payload, window } => {
            record.window = window.unwrap_or(record.window);
            record.state = State::Failed(Failure::Reply(payload));
            record = settled(record);
        }
        Act::Release { reason } => record.state = State::Released { reason },
        Act::Renew { lease } => {
            record.state = State::InFlight { lease_until: moment.now.saturating_add(lease) };
        }
        Act::MarkDispatched => record.dispatched = true,
        Act::Checkpoint(bytes) => record.checkpoint = Some(bytes),
    }
    retained(Some(found), record)
}

fn forget(found: Option<&Found>, force: bool, moment: &Moment) -> Verdict {
    let Some(found) = found else { return stand(Answer::NothingThere) };
    match standing(found, moment) {
        Standing::Absent => stand(Answer::NothingThere),
        Standing::InFlight { .. } if !force => stand(Answer::Owned),
        _ => {
            let mut record = next(found, moment);
            record.fence = 0;
            record.state = State::Forgotten;
            record.label = None;
            record.names = None;
            write(Answer::Done, settled(record))
        }
    }
}

/// The record that takes the place of `found`, so far the same but for its time.
fn next(found: &Found, moment: &Moment) -> Record {
    Record {
        sequence: 0,
        prev: Some(found.position),
        epoch: moment.epoch,
        // A later life may have begun a millisecond ahead of the clock.
        changed_at: moment.now.max(found.record.changed_at),
        ..found.record.clone()
    }
}

/// Whoever comes after a final record has no use for the notes of its owners.
fn settled(mut record: Record) -> Record {
    record.checkpoint = None;
    record.dispatched = false;
    record.retained_until = record.retained_until.max(record.expires_at());
    record
}

fn retained(before: Option<&Found>, mut record: Record) -> Record {
    let floor = before.map_or(0, |before| before.record.retained_until);
    record.retained_until = record.expires_at().max(floor);
    record
}

fn write(answer: Answer, record: Record) -> Verdict {
    Verdict { answer, write: Some(record) }
}

fn stand(answer: Answer) -> Verdict {
    Verdict { answer, write: None }
}

#[cfg(test)]
mod tests;
