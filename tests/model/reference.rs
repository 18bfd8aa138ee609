//! The model: the contract in a map.

use std::collections::{HashMap, HashSet};

use justonce::{EntryState, ErrorKind, RequestId, Why, WindowFrom};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::said::{EntrySaid, PriorSaid, ReplySaid, Said};
use crate::steps::{Act, Say};

pub(crate) const DEFAULT_WINDOW: u64 = 1_000;
pub(crate) const DEFAULT_LEASE: u64 = 100;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) owners_outlive_the_process: bool,
    pub(crate) window_from: WindowFrom,
}

pub(crate) struct Model {
    pub(crate) rules: Rules,
    pub(crate) now: u64,
    pub(crate) run: u32,
    pub(crate) records: HashMap<usize, Record>,
    /// When the latest record of each key was first claimed, for two of them never to share a time.
    pub(crate) last_claimed: HashMap<usize, u64>,
    pub(crate) last_change: u64,
    pub(crate) requests: HashSet<RequestId>,
    pub(crate) last_fence: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) claimed_at: u64,
    pub(crate) changed_at: u64,
    pub(crate) window: u64,
    pub(crate) window_from: WindowFrom,
    pub(crate) fingerprint: Option<u8>,
    pub(crate) attempt: u32,
    pub(crate) run: u32,
    pub(crate) dispatched: bool,
    pub(crate) checkpoint: Option<Vec<u8>>,
    pub(crate) dropped: bool,
    pub(crate) state: State,
    /// Known once the store has said them.
    pub(crate) fence: u64,
    pub(crate) request: Option<RequestId>,
}

#[derive(Debug, Clone)]
pub(crate) enum State {
    Owned { lease_until: u64 },
    Released { reason: String },
    Settled { failed: bool, body: Vec<u8>, exhausted: bool },
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Outcome {
    Done,
    Refused(ErrorKind),
    /// The ticket is of a store that was closed.
    RefusedAnyhow,
    /// The record has begun another life since: the contract leaves open which.
    LeaseLostOrGone,
}

impl Record {
    pub(crate) fn expires_at(&self) -> u64 {
        let from = match self.window_from {
            WindowFrom::FirstClaim => self.claimed_at,
            _ => self.changed_at,
        };
        match self.state {
            State::Owned { lease_until } => lease_until.max(from + self.window),
            _ => from + self.window,
        }
    }

    pub(crate) fn reply(&self) -> Option<ReplySaid> {
        match &self.state {
            State::Settled { failed, body, exhausted } => Some(ReplySaid {
                failed: *failed,
                body: body.clone(),
                attempt: self.attempt,
                exhausted: *exhausted,
            }),
            _ => None,
        }
    }
}

impl Model {
    pub(crate) fn live(&self, key: usize) -> Option<&Record> {
        self.records.get(&key).filter(|record| self.now < record.expires_at())
    }

    /// Its state, and why it has no owner where it has none.
    pub(crate) fn standing(&self, record: &Record) -> (EntryState, Option<Why>) {
        match record.state {
            State::Owned { lease_until } => {
                let restarted = record.run != self.run && !self.rules.owners_outlive_the_process;
                if restarted {
                    (EntryState::Lapsed, Some(Why::Restart))
                } else if record.dropped {
                    (EntryState::Lapsed, Some(Why::Dropped))
                } else if self.now >= lease_until {
                    (EntryState::Lapsed, Some(Why::Lease))
                } else {
                    (EntryState::InFlight, None)
                }
            }
            State::Released { .. } => (EntryState::Released, Some(Why::Released)),
            State::Settled { failed: false, .. } => (EntryState::Completed, None),
            State::Settled { failed: true, .. } => (EntryState::Failed, None),
        }
    }

    pub(crate) fn prior(&self, record: &Record) -> Option<PriorSaid> {
        let why = self.standing(record).1?;
        let reason = match &record.state {
            State::Released { reason } => Some(reason.clone()),
            _ => None,
        };
        Some(PriorSaid {
            attempt: record.attempt,
            why,
            reason,
            dispatched: record.dispatched,
            checkpoint: record.checkpoint.clone(),
        })
    }

    pub(crate) fn entry(&self, record: &Record) -> EntrySaid {
        EntrySaid {
            state: self.standing(record).0,
            request: record.request.unwrap(),
            fence: record.fence,
            attempt: record.attempt,
            reply: record.reply(),
            prior: self.prior(record),
            dispatched: record.dispatched && record.reply().is_none(),
            checkpoint: record.checkpoint.clone().filter(|_| record.reply().is_none()),
            expires_at: record.expires_at(),
        }
    }

    pub(crate) fn claim(&mut self, key: usize, say: &Say) -> Said {
        let Some(record) = self.live(key).cloned() else {
            let claimed_at =
                self.last_claimed.get(&key).map_or(self.now, |last| self.now.max(last + 1));
            self.last_claimed.insert(key, claimed_at);
            self.last_change = self.last_change.max(claimed_at);
            let record = Record {
                claimed_at,
                changed_at: claimed_at,
                window: say.window.unwrap_or(DEFAULT_WINDOW),
                window_from: say.window_from.unwrap_or(self.rules.window_from),
                fingerprint: say.fingerprint,
                attempt: 1,
                run: self.run,
                dispatched: false,
                checkpoint: None,
                dropped: false,
                state: State::Owned { lease_until: self.now + say.lease.unwrap_or(DEFAULT_LEASE) },
                fence: 0,
                request: None,
            };
            self.records.insert(key, record);
            return Said::New;
        };
        let (state, _) = self.standing(&record);
        if let (Some(old), Some(new)) = (record.fingerprint, say.fingerprint)
            && old != new
        {
            return Said::Mismatch(state);
        }
        if let State::Owned { lease_until } = record.state
            && state == EntryState::InFlight
        {
            return Said::InFlight { attempt: record.attempt, retry_after: lease_until - self.now };
        }
        if let Some(reply) = record.reply() {
            return Said::Settled(reply);
        }
        let prior = self.prior(&record).unwrap();
        if state == EntryState::Lapsed && say.report {
            return Said::Lapsed(prior);
        }
        if say.max_attempts.is_some_and(|most| record.attempt >= most) {
            let state = State::Settled { failed: true, body: Vec::new(), exhausted: true };
            let attempt = record.attempt;
            let window = say.window.unwrap_or(DEFAULT_WINDOW);
            let window_from = say.window_from.unwrap_or(self.rules.window_from);
            self.write(key, Record { window, window_from, state, ..record });
            return Said::Settled(ReplySaid {
                failed: true,
                body: Vec::new(),
                attempt,
                exhausted: true,
            });
        }
        let next = Record {
            window: say.window.unwrap_or(DEFAULT_WINDOW),
            window_from: say.window_from.unwrap_or(self.rules.window_from),
            fingerprint: record.fingerprint.or(say.fingerprint),
            attempt: record.attempt + 1,
            dropped: false,
            state: State::Owned { lease_until: self.now + say.lease.unwrap_or(DEFAULT_LEASE) },
            ..record
        };
        let attempt = next.attempt;
        self.write(key, next);
        Said::Resumed { attempt, prior }
    }

    pub(crate) fn record_once(&mut self, key: usize, say: &Say) -> bool {
        let is_first = matches!(self.claim(key, say), Said::New | Said::Resumed { .. });
        if is_first {
            let record = self.records.get_mut(&key).unwrap();
            record.state = State::Settled { failed: false, body: Vec::new(), exhausted: false };
        }
        is_first
    }

    pub(crate) fn act(&mut self, ticket: &Held, act: &Act) -> Outcome {
        if ticket.run != self.run {
            return Outcome::RefusedAnyhow;
        }
        let mut record = match self.held(ticket) {
            Ok(record) => record.clone(),
            Err(outcome) => return outcome,
        };
        match (act, &record.state) {
            (_, State::Owned { .. }) => {}
            (Act::Complete { .. }, State::Settled { failed: false, .. })
            | (Act::Fail { .. }, State::Settled { failed: true, exhausted: false, .. }) => {
                return Outcome::Done;
            }
            _ => return Outcome::Refused(ErrorKind::LeaseLost),
        }
        match act {
            Act::Complete { body, retention } | Act::Fail { body, retention } => {
                let failed = matches!(act, Act::Fail { .. });
                record.state = State::Settled { failed, body: vec![*body], exhausted: false };
                record.window = retention.unwrap_or(record.window);
            }
            Act::Release { reason } => {
                record.state = State::Released { reason: reason.to_string() };
            }
            Act::Renew { lease } => {
                record.state = State::Owned { lease_until: self.now + lease };
            }
            Act::Checkpoint { note } => record.checkpoint = Some(vec![*note]),
            Act::MarkDispatched => record.dispatched = true,
        }
        self.write(ticket.key, record);
        Outcome::Done
    }

    /// The record a ticket or token is for, if it is still its owner's.
    pub(crate) fn held(&self, ticket: &Held) -> Result<&Record, Outcome> {
        match self.live(ticket.key) {
            None => Err(Outcome::Refused(ErrorKind::Gone)),
            Some(record) if record.request != Some(ticket.request) => Err(Outcome::LeaseLostOrGone),
            Some(record) if record.fence != ticket.fence => {
                Err(Outcome::Refused(ErrorKind::LeaseLost))
            }
            Some(record) => Ok(record),
        }
    }

    pub(crate) fn write(&mut self, key: usize, mut record: Record) {
        record.changed_at = record.changed_at.max(self.now);
        record.run = self.run;
        self.last_change = self.last_change.max(record.changed_at);
        self.records.insert(key, record);
    }

    pub(crate) fn drop_ticket(&mut self, ticket: &Held) {
        if ticket.run == self.run
            && self.held(ticket).is_ok()
            && let Some(record) = self.records.get_mut(&ticket.key)
            && matches!(record.state, State::Owned { .. })
        {
            record.dropped = true;
        }
    }

    pub(crate) fn attach(&mut self, token: &Held) -> Outcome {
        match self.held(token) {
            Err(outcome) => outcome,
            Ok(Record { state: State::Owned { .. }, .. }) => {
                self.records.get_mut(&token.key).unwrap().dropped = false;
                Outcome::Done
            }
            Ok(_) => Outcome::Refused(ErrorKind::LeaseLost),
        }
    }

    pub(crate) fn forget(&mut self, key: usize, force: bool) -> Result<bool, ErrorKind> {
        let Some(record) = self.live(key) else { return Ok(false) };
        if self.standing(record).0 == EntryState::InFlight && !force {
            return Err(ErrorKind::InFlight);
        }
        self.last_change = self.last_change.max(self.now);
        self.records.remove(&key);
        Ok(true)
    }

    /// Goes on at the time the store says. Where the wall clock is behind, that is a time the store
    /// has stored: which, is left open, but it is not before the last change, and never in what was
    /// still to come.
    pub(crate) fn reopen(&mut self, wall: u64, now: u64) -> Result<(), TestCaseError> {
        let earliest = wall.max(self.last_change);
        prop_assert!(now >= earliest, "opened at {now}, and has seen {earliest}");
        let latest = self.now.max(earliest);
        prop_assert!(now <= latest, "opened at {now}, and it is {latest} at most");
        self.run += 1;
        self.now = now;
        for record in self.records.values_mut() {
            record.dropped = false;
        }
        Ok(())
    }

    /// Takes note of who the store says the owner of a claim is.
    pub(crate) fn granted(
        &mut self,
        key: usize,
        fence: u64,
        request: RequestId,
    ) -> Result<(), TestCaseError> {
        prop_assert!(fence > self.last_fence, "fence {fence} after {}", self.last_fence);
        self.last_fence = fence;
        let record = self.records.get_mut(&key).unwrap();
        record.fence = fence;
        if let Some(known) = record.request {
            prop_assert_eq!(known, request, "the request id changed");
        } else {
            prop_assert!(self.requests.insert(request), "a request id of an earlier record");
            record.request = Some(request);
        }
        Ok(())
    }
}

/// Whose a ticket or token is.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) key: usize,
    pub(crate) fence: u64,
    pub(crate) request: RequestId,
    pub(crate) run: u32,
}
