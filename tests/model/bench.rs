//! The store beside the model: takes each step on both and compares.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use justonce::{
    Claim, EntryState, Error, ErrorKind, Filter, ManualClock, OnLapsed, Operation, Options, Owner,
    Reply, RequestId, Store, Ticket,
};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::common::fault::{FaultyDirectory, Keep};
use crate::reference::{DEFAULT_LEASE, DEFAULT_WINDOW, Held, Model, Outcome, Rules, State};
use crate::said::{EntrySaid, Said, entry_said, millis, prior_said, reply_said};
use crate::steps::{Act, KEYS, Say, Step};

pub(crate) struct Bench {
    pub(crate) disk: FaultyDirectory,
    pub(crate) options: Options,
    pub(crate) clock: ManualClock,
    pub(crate) store: Store,
    pub(crate) model: Model,
    pub(crate) tickets: Vec<(Ticket, Held)>,
    pub(crate) tokens: Vec<(Vec<u8>, Held)>,
    pub(crate) requests: Vec<RequestId>,
    pub(crate) crowd: usize,
}

impl Bench {
    pub(crate) fn new(options: Options, rules: Rules) -> Self {
        let clock = ManualClock::new();
        let owner = if rules.owners_outlive_the_process { Owner::External } else { Owner::Process };
        let options = options
            .window(Duration::from_millis(DEFAULT_WINDOW))
            .lease(Duration::from_millis(DEFAULT_LEASE))
            .window_from(rules.window_from)
            .owner(owner)
            .clock(&clock);
        let disk = FaultyDirectory::default();
        let store = options.clone().open_in(Arc::new(disk.clone())).unwrap();
        let model = Model {
            rules,
            now: millis(clock.wall()),
            run: 1,
            records: HashMap::new(),
            last_claimed: HashMap::new(),
            last_change: 0,
            requests: HashSet::new(),
            last_fence: 0,
        };
        Bench {
            disk,
            options,
            clock,
            store,
            model,
            tickets: Vec::new(),
            tokens: Vec::new(),
            requests: Vec::new(),
            crowd: 0,
        }
    }

    pub(crate) fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Claim(key, say) => {
                let claim = self.store.claim(operation(*key, say)).wait().unwrap();
                self.check_claim(*key, say, claim)
            }
            Step::ClaimMany(all) => {
                let operations = all.iter().map(|(key, say)| operation(*key, say));
                let claims = self.store.claim_many(operations).wait().unwrap();
                prop_assert_eq!(claims.len(), all.len());
                all.iter()
                    .zip(claims)
                    .try_for_each(|((key, say), claim)| self.check_claim(*key, say, claim))
            }
            Step::RecordOnce(key, say) => {
                let is_first = self.store.record_once(operation(*key, say)).wait().unwrap();
                prop_assert_eq!(is_first, self.model.record_once(*key, say));
                // A window from the first claim may be over as soon as the record is written.
                if is_first && let Some(entry) = self.lookup(*key) {
                    self.granted(*key, entry.fence, entry.request)?;
                }
                self.check_lookup(*key)
            }
            Step::Act(ticket, act) => self.act(*ticket, act),
            Step::DropTicket(ticket) => {
                if let Some((ticket, held)) = taken(&mut self.tickets, *ticket) {
                    drop(ticket);
                    self.model.drop_ticket(&held);
                    self.check_lookup(held.key)?;
                }
                Ok(())
            }
            Step::Detach(ticket) => {
                if let Some((ticket, held)) = taken(&mut self.tickets, *ticket) {
                    self.tokens.push((ticket.detach(), held));
                }
                Ok(())
            }
            Step::Attach(token) => self.attach(*token),
            Step::Lookup(key) => self.check_lookup(*key),
            Step::LookupRequest(request) => self.lookup_request(*request),
            Step::Forget { key, force } => {
                let (project, name) = KEYS[*key];
                let forgotten = if *force {
                    self.store.forget_forced(project, name).wait()
                } else {
                    self.store.forget(project, name).wait()
                };
                let forgotten = forgotten.map_err(|error| error.kind());
                prop_assert_eq!(forgotten, self.model.forget(*key, *force));
                self.check_lookup(*key)
            }
            Step::InFlight => self.in_flight(),
            Step::Scan { project, state } => self.scan(*project, *state),
            Step::Advance(by) => {
                self.clock.advance(Duration::from_millis(*by));
                self.model.now += by;
                Ok(())
            }
            Step::Crowd(count) => self.crowd(*count),
            Step::Reopen { close_first } => self.reopen(*close_first),
            Step::CutOff { keep, under_way } => self.cut_off(*keep, *under_way),
            Step::SetWall { by, back } => {
                self.set_wall(*by, *back);
                Ok(())
            }
        }
    }

    pub(crate) fn check_claim(
        &mut self,
        key: usize,
        say: &Say,
        claim: Claim,
    ) -> Result<(), TestCaseError> {
        let expected = self.model.claim(key, say);
        let said = match &claim {
            Claim::New(ticket) => {
                prop_assert_eq!(ticket.attempt(), 1);
                Said::New
            }
            Claim::Resumed(ticket, prior) => {
                prop_assert_eq!(prior.request_id(), ticket.request_id());
                Said::Resumed { attempt: ticket.attempt(), prior: prior_said(prior) }
            }
            Claim::InFlight(flight) => Said::InFlight {
                attempt: flight.attempt(),
                retry_after: u64::try_from(flight.retry_after().as_millis()).unwrap(),
            },
            Claim::Completed(reply) => Said::Settled(reply_said(reply, false)),
            Claim::Failed(reply) => Said::Settled(reply_said(reply, true)),
            Claim::Mismatch(seen) => Said::Mismatch(seen.state()),
            Claim::Lapsed(prior) => Said::Lapsed(prior_said(prior)),
            other => panic!("an answer the contract does not know: {other:?}"),
        };
        prop_assert_eq!(said, expected, "claim of {:?} at {}", KEYS[key], self.model.now);
        let request = claim.request_id();
        if let Claim::New(ticket) | Claim::Resumed(ticket, _) = claim {
            self.granted(key, ticket.fence(), request)?;
            let run = self.model.run;
            let held = Held { key, fence: ticket.fence(), request, run };
            self.tickets.push((ticket, held));
            return Ok(());
        }
        let record = self.model.records.get_mut(&key).unwrap();
        prop_assert_eq!(Some(request), record.request, "the request id changed");
        if let State::Settled { exhausted: true, .. } = record.state
            && let Some(entry) = self.lookup(key)
            && entry.request == request
        {
            // The refusal is a change of its own, so it may have a fence of its own. Where its
            // window was over at once, a later claim of the same call has begun a new life.
            let record = self.model.records.get_mut(&key).unwrap();
            prop_assert!(entry.fence >= record.fence, "the fence went back to {}", entry.fence);
            record.fence = entry.fence;
            self.model.last_fence = self.model.last_fence.max(entry.fence);
        }
        Ok(())
    }

    pub(crate) fn granted(
        &mut self,
        key: usize,
        fence: u64,
        request: RequestId,
    ) -> Result<(), TestCaseError> {
        self.requests.push(request);
        self.model.granted(key, fence, request)
    }

    pub(crate) fn act(&mut self, ticket: usize, act: &Act) -> Result<(), TestCaseError> {
        let Some(at) = ticket.checked_rem(self.tickets.len()) else { return Ok(()) };
        let is_last =
            !matches!(act, Act::Renew { .. } | Act::Checkpoint { .. } | Act::MarkDispatched);
        let held = self.tickets[at].1.clone();
        let with = |reply: Reply, retention: &Option<u64>| match retention {
            Some(retention) => reply.retention(Duration::from_millis(*retention)),
            None => reply,
        };
        let pending = if is_last {
            let (ticket, _) = self.tickets.swap_remove(at);
            match act {
                Act::Complete { body, retention } => {
                    ticket.complete(with(Reply::new(vec![*body]), retention))
                }
                Act::Fail { body, retention } => {
                    ticket.fail(with(Reply::new(vec![*body]), retention))
                }
                Act::Release { reason } => ticket.release(reason.to_string()),
                _ => unreachable!("the others keep the ticket"),
            }
        } else {
            let (ticket, _) = &self.tickets[at];
            match act {
                Act::Renew { lease } => ticket.renew(Duration::from_millis(*lease)),
                Act::Checkpoint { note } => ticket.checkpoint([*note]),
                _ => ticket.mark_dispatched(),
            }
        };
        let outcome = pending.wait();
        let expected = self.model.act(&held, act);
        check_outcome(outcome, expected)?;
        self.check_lookup(held.key)
    }

    pub(crate) fn attach(&mut self, token: usize) -> Result<(), TestCaseError> {
        let Some(at) = token.checked_rem(self.tokens.len()) else { return Ok(()) };
        let (token, held) = self.tokens[at].clone();
        let attached = self.store.attach(&token).wait();
        let expected = self.model.attach(&held);
        match attached {
            Ok(ticket) => {
                prop_assert_eq!(expected, Outcome::Done);
                prop_assert_eq!(ticket.fence(), held.fence);
                prop_assert_eq!(ticket.request_id(), held.request);
                self.tickets.push((ticket, Held { run: self.model.run, ..held.clone() }));
            }
            Err(error) => check_outcome(Err(error), expected)?,
        }
        self.check_lookup(held.key)
    }

    pub(crate) fn lookup(&self, key: usize) -> Option<EntrySaid> {
        let (project, name) = KEYS[key];
        self.store.lookup(project, name).wait().unwrap().as_ref().map(entry_said)
    }

    pub(crate) fn check_lookup(&self, key: usize) -> Result<(), TestCaseError> {
        let expected = self.model.live(key).map(|record| self.model.entry(record));
        prop_assert_eq!(self.lookup(key), expected, "{:?} at {}", KEYS[key], self.model.now);
        Ok(())
    }

    pub(crate) fn lookup_request(&self, request: usize) -> Result<(), TestCaseError> {
        let Some(at) = request.checked_rem(self.requests.len()) else { return Ok(()) };
        let request = self.requests[at];
        let entry = self.store.lookup_request(request).wait().unwrap();
        let expected = (0..KEYS.len())
            .filter_map(|key| self.model.live(key))
            .find(|record| record.request == Some(request))
            .map(|record| self.model.entry(record));
        prop_assert_eq!(entry.as_ref().map(entry_said), expected);
        Ok(())
    }

    pub(crate) fn listed(&self, is_meant: impl Fn(usize, EntryState) -> bool) -> Vec<EntrySaid> {
        let mut listed: Vec<_> = (0..KEYS.len())
            .filter_map(|key| self.model.live(key).map(|record| (key, self.model.entry(record))))
            .filter(|(key, entry)| is_meant(*key, entry.state))
            .map(|(_, entry)| entry)
            .collect();
        listed.sort_by_key(|entry| entry.request);
        listed
    }

    pub(crate) fn in_flight(&self) -> Result<(), TestCaseError> {
        let mut entries: Vec<_> =
            self.store.in_flight().wait().unwrap().iter().map(entry_said).collect();
        entries.sort_by_key(|entry| entry.request);
        let expected = self.listed(|_, state| {
            matches!(state, EntryState::InFlight | EntryState::Lapsed | EntryState::Released)
        });
        prop_assert_eq!(entries, expected, "in flight at {}", self.model.now);
        Ok(())
    }

    pub(crate) fn scan(
        &self,
        project: Option<&str>,
        state: Option<EntryState>,
    ) -> Result<(), TestCaseError> {
        let filter = state.map_or(Filter::new(), |state| Filter::new().state(state));
        let filter = project.map_or(filter.clone(), |project| filter.project(project));
        let mut entries: Vec<_> = self
            .store
            .scan(filter)
            .map(|entry| entry.unwrap())
            .filter(|entry| !entry.is_of(&self.store, "crowd"))
            .map(|entry| entry_said(&entry))
            .collect();
        entries.sort_by_key(|entry| entry.request);
        let expected = self.listed(|key, is| {
            project.is_none_or(|project| KEYS[key].0 == project)
                && state.is_none_or(|state| state == is)
        });
        prop_assert_eq!(entries, expected, "scan at {}", self.model.now);
        Ok(())
    }

    pub(crate) fn crowd(&mut self, count: usize) -> Result<(), TestCaseError> {
        let calls: Vec<_> = (self.crowd..self.crowd + count)
            .map(|number| self.store.record_once(crowd(number)))
            .collect();
        self.crowd += count;
        for call in calls {
            prop_assert!(call.wait().unwrap(), "an event that is new was seen before");
        }
        Ok(())
    }

    fn reopen(&mut self, close_first: bool) -> Result<(), TestCaseError> {
        if close_first {
            self.store.close().wait().unwrap();
        }
        self.open_again()
    }

    fn cut_off(&mut self, keep: Keep, under_way: usize) -> Result<(), TestCaseError> {
        // Dropped and not waited for, they are being committed when the disk is cut off.
        for number in self.crowd..self.crowd + under_way {
            drop(self.store.record_once(crowd(number)));
        }
        self.crowd += under_way;
        self.disk = self.disk.image(keep);
        self.open_again()
    }

    fn open_again(&mut self) -> Result<(), TestCaseError> {
        // A stand-in, so that the store is dropped before it is opened again.
        self.store = Options::new().in_memory().unwrap();
        self.store = self.options.clone().open_in(Arc::new(self.disk.clone())).unwrap();
        let wall = millis(self.clock.wall());
        let skew = u64::try_from(self.store.stats().clock_skew.as_millis()).unwrap();
        self.model.reopen(wall, wall + skew)?;
        (0..KEYS.len()).try_for_each(|key| self.check_lookup(key))
    }

    fn set_wall(&self, by: u64, back: bool) {
        let (wall, by) = (self.clock.wall(), Duration::from_millis(by));
        self.clock.set_wall(if back { wall - by } else { wall + by });
    }
}

fn crowd(number: usize) -> Operation {
    Operation::new("crowd", number.to_string())
}

pub(crate) fn operation(key: usize, say: &Say) -> Operation {
    let (project, name) = KEYS[key];
    let mut operation = Operation::new(project, name);
    if let Some(fingerprint) = say.fingerprint {
        operation = operation.fingerprint([fingerprint]);
    }
    if let Some(window) = say.window {
        operation = operation.window(Duration::from_millis(window));
    }
    if let Some(from) = say.window_from {
        operation = operation.window_from(from);
    }
    if let Some(lease) = say.lease {
        operation = operation.lease(Duration::from_millis(lease));
    }
    if say.report {
        operation = operation.on_lapsed(OnLapsed::Report);
    }
    if let Some(most) = say.max_attempts {
        operation = operation.max_attempts(most);
    }
    operation
}

pub(crate) fn taken<T>(all: &mut Vec<T>, number: usize) -> Option<T> {
    number.checked_rem(all.len()).map(|at| all.swap_remove(at))
}

pub(crate) fn check_outcome(
    outcome: Result<(), Error>,
    expected: Outcome,
) -> Result<(), TestCaseError> {
    let outcome = outcome.map_err(|error| error.kind());
    let is_right = match expected {
        Outcome::Done => outcome == Ok(()),
        Outcome::Refused(kind) => outcome == Err(kind),
        Outcome::RefusedAnyhow => outcome.is_err(),
        Outcome::LeaseLostOrGone => {
            matches!(outcome, Err(ErrorKind::LeaseLost | ErrorKind::Gone))
        }
    };
    prop_assert!(is_right, "answered {outcome:?}, not {expected:?}");
    Ok(())
}
