//! A store against a model: any sequence of calls is answered as a plain map and the rules of the
//! contract would answer it.
//!
//! `JUSTONCE_SOAK=50` runs fifty times as many cases.

#![allow(clippy::allow_attributes, reason = "lints that fire in some helpers only")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use common::eventually;
use justonce::{
    Claim, EntryState, Error, ErrorKind, Filter, ManualClock, OnLapsed, Operation, Options, Owner,
    Prior, Reply, RequestId, Store, Ticket, Why, WindowFrom,
};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

/// Two projects of two keys each.
const KEYS: [(&str, &str); 4] = [("p", "a"), ("p", "b"), ("q", "a"), ("q", "b")];

const DEFAULT_WINDOW: u64 = 1_000;
const DEFAULT_LEASE: u64 = 100;

/// Windows, leases and steps of the clock meet one another's ends exactly.
const DURATIONS: [u64; 6] = [1, 10, 99, 100, 1_000, 60_000];

#[derive(Debug, Clone)]
enum Step {
    Claim(usize, Say),
    ClaimMany(Vec<(usize, Say)>),
    RecordOnce(usize, Say),
    Act(usize, Act),
    DropTicket(usize),
    Detach(usize),
    Attach(usize),
    Lookup(usize),
    LookupRequest(usize),
    Forget {
        key: usize,
        force: bool,
    },
    InFlight,
    Scan {
        project: Option<&'static str>,
        state: Option<EntryState>,
    },
    Advance(u64),
    /// Events of other keys, to fill generations with.
    Crowd(usize),
    Reopen {
        close_first: bool,
    },
}

/// What a claim says of its operation beside its name.
#[derive(Debug, Clone, Default)]
struct Say {
    fingerprint: Option<u8>,
    window: Option<u64>,
    window_from: Option<WindowFrom>,
    lease: Option<u64>,
    report: bool,
    max_attempts: Option<u32>,
}

#[derive(Debug, Clone)]
enum Act {
    Complete { body: u8, retention: Option<u64> },
    Fail { body: u8, retention: Option<u64> },
    Release { reason: u8 },
    Renew { lease: u64 },
    Checkpoint { note: u8 },
    MarkDispatched,
}

#[derive(Debug, Clone, Copy)]
struct Rules {
    owners_outlive_the_process: bool,
    window_from: WindowFrom,
}

// What is compared.

#[derive(Debug, Clone, PartialEq)]
enum Said {
    New,
    Resumed { attempt: u32, prior: PriorSaid },
    InFlight { attempt: u32, retry_after: u64 },
    Settled(ReplySaid),
    Mismatch(EntryState),
    Lapsed(PriorSaid),
}

#[derive(Debug, Clone, PartialEq)]
struct PriorSaid {
    attempt: u32,
    why: Why,
    reason: Option<String>,
    dispatched: bool,
    checkpoint: Option<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq)]
struct ReplySaid {
    failed: bool,
    body: Vec<u8>,
    attempt: u32,
    exhausted: bool,
}

/// Notes are for whoever resumes; what becomes of them once there is a reply is left open.
#[derive(Debug, Clone, PartialEq)]
struct EntrySaid {
    state: EntryState,
    request: RequestId,
    fence: u64,
    attempt: u32,
    reply: Option<ReplySaid>,
    prior: Option<PriorSaid>,
    dispatched: bool,
    checkpoint: Option<Vec<u8>>,
    expires_at: u64,
}

fn prior_said(prior: &Prior) -> PriorSaid {
    PriorSaid {
        attempt: prior.attempt(),
        why: prior.why(),
        reason: prior.reason().map(str::to_owned),
        dispatched: prior.dispatched(),
        checkpoint: prior.checkpoint().map(<[u8]>::to_vec),
    }
}

fn reply_said(reply: &Reply, failed: bool) -> ReplySaid {
    ReplySaid {
        failed,
        body: reply.body().to_vec(),
        attempt: reply.attempt().unwrap(),
        exhausted: reply.attempts_exhausted().is_some(),
    }
}

fn entry_said(entry: &justonce::Entry) -> EntrySaid {
    EntrySaid {
        state: entry.state(),
        request: entry.request_id(),
        fence: entry.fence(),
        attempt: entry.attempt(),
        reply: entry.reply().map(|reply| reply_said(reply, entry.state() == EntryState::Failed)),
        prior: entry.prior().as_ref().map(prior_said),
        dispatched: entry.dispatched() && entry.reply().is_none(),
        checkpoint: entry.checkpoint().filter(|_| entry.reply().is_none()).map(<[u8]>::to_vec),
        expires_at: millis(entry.expires_at()),
    }
}

fn millis(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

// The model: the contract in a map.

struct Model {
    rules: Rules,
    now: u64,
    run: u32,
    records: HashMap<usize, Record>,
    /// When the latest record of each key was first claimed, for two of them never to share a time.
    last_claimed: HashMap<usize, u64>,
    last_change: u64,
    requests: HashSet<RequestId>,
    last_fence: u64,
}

#[derive(Debug, Clone)]
struct Record {
    claimed_at: u64,
    changed_at: u64,
    window: u64,
    window_from: WindowFrom,
    fingerprint: Option<u8>,
    attempt: u32,
    run: u32,
    dispatched: bool,
    checkpoint: Option<Vec<u8>>,
    dropped: bool,
    state: State,
    /// Known once the store has said them.
    fence: u64,
    request: Option<RequestId>,
}

#[derive(Debug, Clone)]
enum State {
    Owned { lease_until: u64 },
    Released { reason: String },
    Settled { failed: bool, body: Vec<u8>, exhausted: bool },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Done,
    Refused(ErrorKind),
    /// The ticket is of a store that was closed.
    RefusedAnyhow,
    /// The record has begun another life since: the contract leaves open which.
    LeaseLostOrGone,
}

impl Record {
    fn expires_at(&self) -> u64 {
        let from = match self.window_from {
            WindowFrom::FirstClaim => self.claimed_at,
            _ => self.changed_at,
        };
        match self.state {
            State::Owned { lease_until } => lease_until.max(from + self.window),
            _ => from + self.window,
        }
    }

    fn reply(&self) -> Option<ReplySaid> {
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
    fn live(&self, key: usize) -> Option<&Record> {
        self.records.get(&key).filter(|record| self.now < record.expires_at())
    }

    /// Its state, and why it has no owner where it has none.
    fn standing(&self, record: &Record) -> (EntryState, Option<Why>) {
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

    fn prior(&self, record: &Record) -> Option<PriorSaid> {
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

    fn entry(&self, record: &Record) -> EntrySaid {
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

    fn claim(&mut self, key: usize, say: &Say) -> Said {
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

    fn record_once(&mut self, key: usize, say: &Say) -> bool {
        let is_first = matches!(self.claim(key, say), Said::New | Said::Resumed { .. });
        if is_first {
            let record = self.records.get_mut(&key).unwrap();
            record.state = State::Settled { failed: false, body: Vec::new(), exhausted: false };
        }
        is_first
    }

    fn act(&mut self, ticket: &Held, act: &Act) -> Outcome {
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
    fn held(&self, ticket: &Held) -> Result<&Record, Outcome> {
        match self.live(ticket.key) {
            None => Err(Outcome::Refused(ErrorKind::Gone)),
            Some(record) if record.request != Some(ticket.request) => Err(Outcome::LeaseLostOrGone),
            Some(record) if record.fence != ticket.fence => {
                Err(Outcome::Refused(ErrorKind::LeaseLost))
            }
            Some(record) => Ok(record),
        }
    }

    fn write(&mut self, key: usize, mut record: Record) {
        record.changed_at = record.changed_at.max(self.now);
        record.run = self.run;
        self.last_change = self.last_change.max(record.changed_at);
        self.records.insert(key, record);
    }

    fn drop_ticket(&mut self, ticket: &Held) {
        if ticket.run == self.run
            && self.held(ticket).is_ok()
            && let Some(record) = self.records.get_mut(&ticket.key)
            && matches!(record.state, State::Owned { .. })
        {
            record.dropped = true;
        }
    }

    fn attach(&mut self, token: &Held) -> Outcome {
        match self.held(token) {
            Err(outcome) => outcome,
            Ok(Record { state: State::Owned { .. }, .. }) => {
                self.records.get_mut(&token.key).unwrap().dropped = false;
                Outcome::Done
            }
            Ok(_) => Outcome::Refused(ErrorKind::LeaseLost),
        }
    }

    fn forget(&mut self, key: usize, force: bool) -> Result<bool, ErrorKind> {
        let Some(record) = self.live(key) else { return Ok(false) };
        if self.standing(record).0 == EntryState::InFlight && !force {
            return Err(ErrorKind::InFlight);
        }
        self.last_change = self.last_change.max(self.now);
        self.records.remove(&key);
        Ok(true)
    }

    /// Time never goes back behind the last change, which may be a little ahead of it.
    fn reopen(&mut self) {
        self.run += 1;
        self.now = self.now.max(self.last_change);
        for record in self.records.values_mut() {
            record.dropped = false;
        }
    }

    /// Takes note of who the store says the owner of a claim is.
    fn granted(&mut self, key: usize, fence: u64, request: RequestId) -> Result<(), TestCaseError> {
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

// The store beside it.

/// Whose a ticket or token is.
#[derive(Debug, Clone)]
struct Held {
    key: usize,
    fence: u64,
    request: RequestId,
    run: u32,
}

struct Bench {
    directory: tempfile::TempDir,
    options: Options,
    clock: ManualClock,
    store: Store,
    model: Model,
    tickets: Vec<(Ticket, Held)>,
    tokens: Vec<(Vec<u8>, Held)>,
    requests: Vec<RequestId>,
    crowd: usize,
}

impl Bench {
    fn new(options: Options, rules: Rules) -> Self {
        let clock = ManualClock::new();
        let owner = if rules.owners_outlive_the_process { Owner::External } else { Owner::Process };
        let options = options
            .window(Duration::from_millis(DEFAULT_WINDOW))
            .lease(Duration::from_millis(DEFAULT_LEASE))
            .window_from(rules.window_from)
            .owner(owner)
            .clock(&clock);
        let directory = tempfile::tempdir().unwrap();
        let store = options.clone().open(directory.path().join("store")).unwrap();
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
            directory,
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

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
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
            Step::Reopen { close_first } => {
                self.reopen(*close_first);
                (0..KEYS.len()).try_for_each(|key| self.check_lookup(key))
            }
        }
    }

    fn check_claim(&mut self, key: usize, say: &Say, claim: Claim) -> Result<(), TestCaseError> {
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

    fn granted(&mut self, key: usize, fence: u64, request: RequestId) -> Result<(), TestCaseError> {
        self.requests.push(request);
        self.model.granted(key, fence, request)
    }

    fn act(&mut self, ticket: usize, act: &Act) -> Result<(), TestCaseError> {
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

    fn attach(&mut self, token: usize) -> Result<(), TestCaseError> {
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

    fn lookup(&self, key: usize) -> Option<EntrySaid> {
        let (project, name) = KEYS[key];
        self.store.lookup(project, name).wait().unwrap().as_ref().map(entry_said)
    }

    fn check_lookup(&self, key: usize) -> Result<(), TestCaseError> {
        let expected = self.model.live(key).map(|record| self.model.entry(record));
        prop_assert_eq!(self.lookup(key), expected, "{:?} at {}", KEYS[key], self.model.now);
        Ok(())
    }

    fn lookup_request(&self, request: usize) -> Result<(), TestCaseError> {
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

    fn listed(&self, is_meant: impl Fn(usize, EntryState) -> bool) -> Vec<EntrySaid> {
        let mut listed: Vec<_> = (0..KEYS.len())
            .filter_map(|key| self.model.live(key).map(|record| (key, self.model.entry(record))))
            .filter(|(key, entry)| is_meant(*key, entry.state))
            .map(|(_, entry)| entry)
            .collect();
        listed.sort_by_key(|entry| entry.request);
        listed
    }

    fn in_flight(&self) -> Result<(), TestCaseError> {
        let mut entries: Vec<_> =
            self.store.in_flight().wait().unwrap().iter().map(entry_said).collect();
        entries.sort_by_key(|entry| entry.request);
        let expected = self.listed(|_, state| {
            matches!(state, EntryState::InFlight | EntryState::Lapsed | EntryState::Released)
        });
        prop_assert_eq!(entries, expected, "in flight at {}", self.model.now);
        Ok(())
    }

    fn scan(&self, project: Option<&str>, state: Option<EntryState>) -> Result<(), TestCaseError> {
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

    fn crowd(&mut self, count: usize) -> Result<(), TestCaseError> {
        let calls: Vec<_> = (self.crowd..self.crowd + count)
            .map(|number| self.store.record_once(Operation::new("crowd", number.to_string())))
            .collect();
        self.crowd += count;
        for call in calls {
            prop_assert!(call.wait().unwrap(), "an event that is new was seen before");
        }
        Ok(())
    }

    fn reopen(&mut self, close_first: bool) {
        if close_first {
            self.store.close().wait().unwrap();
        }
        // A stand-in, so that the store is dropped before it is opened again.
        self.store = Options::new().in_memory().unwrap();
        self.store = self.options.clone().open(self.directory.path().join("store")).unwrap();
        self.model.reopen();
    }
}

fn operation(key: usize, say: &Say) -> Operation {
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

fn taken<T>(all: &mut Vec<T>, number: usize) -> Option<T> {
    number.checked_rem(all.len()).map(|at| all.swap_remove(at))
}

fn check_outcome(outcome: Result<(), Error>, expected: Outcome) -> Result<(), TestCaseError> {
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

// Any sequence.

fn duration() -> impl Strategy<Value = u64> {
    proptest::sample::select(DURATIONS.as_slice())
}

fn say() -> impl Strategy<Value = Say> {
    let window_from = prop_oneof![Just(WindowFrom::LastChange), Just(WindowFrom::FirstClaim)];
    let all = (
        proptest::option::of(0..2u8),
        proptest::option::weighted(0.2, duration()),
        proptest::option::weighted(0.2, window_from),
        proptest::option::weighted(0.3, duration()),
        proptest::bool::weighted(0.2),
        proptest::option::weighted(0.2, 1..4u32),
    );
    let all = all.prop_map(|(fingerprint, window, window_from, lease, report, max_attempts)| Say {
        fingerprint,
        window,
        window_from,
        lease,
        report,
        max_attempts,
    });
    prop_oneof![Just(Say::default()), all]
}

fn act() -> impl Strategy<Value = Act> {
    let retention = || proptest::option::weighted(0.2, duration());
    prop_oneof![
        3 => (any::<u8>(), retention())
            .prop_map(|(body, retention)| Act::Complete { body, retention }),
        2 => (any::<u8>(), retention()).prop_map(|(body, retention)| Act::Fail { body, retention }),
        3 => any::<u8>().prop_map(|reason| Act::Release { reason }),
        2 => duration().prop_map(|lease| Act::Renew { lease }),
        1 => any::<u8>().prop_map(|note| Act::Checkpoint { note }),
        1 => Just(Act::MarkDispatched),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS.len();
    let number = || 0..8usize;
    let project = proptest::sample::select([None, Some("p"), Some("q")].as_slice());
    let state = proptest::option::of(proptest::sample::select(
        [
            EntryState::InFlight,
            EntryState::Lapsed,
            EntryState::Released,
            EntryState::Completed,
            EntryState::Failed,
        ]
        .as_slice(),
    ));
    prop_oneof![
        20 => (key(), say()).prop_map(|(key, say)| Step::Claim(key, say)),
        3 => proptest::collection::vec((key(), say()), 1..5).prop_map(Step::ClaimMany),
        3 => (key(), say()).prop_map(|(key, say)| Step::RecordOnce(key, say)),
        15 => (number(), act()).prop_map(|(ticket, act)| Step::Act(ticket, act)),
        4 => number().prop_map(Step::DropTicket),
        3 => number().prop_map(Step::Detach),
        3 => number().prop_map(Step::Attach),
        2 => key().prop_map(Step::Lookup),
        2 => number().prop_map(Step::LookupRequest),
        3 => (key(), any::<bool>()).prop_map(|(key, force)| Step::Forget { key, force }),
        2 => Just(Step::InFlight),
        2 => (project, state).prop_map(|(project, state)| Step::Scan { project, state }),
        10 => duration().prop_map(Step::Advance),
        1 => (1..300usize).prop_map(Step::Crowd),
        2 => any::<bool>().prop_map(|close_first| Step::Reopen { close_first }),
    ]
}

fn soak() -> u32 {
    std::env::var("JUSTONCE_SOAK").map_or(1, |times| times.parse().unwrap())
}

#[expect(clippy::needless_pass_by_value, reason = "each configuration makes its own")]
fn agrees_with_the_model(options: Options, rules: Rules) {
    let config = ProptestConfig {
        cases: 24 * soak(),
        failure_persistence: None,
        max_shrink_iters: 4_000,
        ..ProptestConfig::default()
    };
    proptest!(config, |(steps in proptest::collection::vec(step(), 1..80))| {
        let mut bench = Bench::new(options.clone(), rules);
        for step in &steps {
            bench.step(step)?;
        }
    });
}

const PLAIN: Rules =
    Rules { owners_outlive_the_process: false, window_from: WindowFrom::LastChange };

#[test]
fn a_store_agrees_with_the_model() {
    agrees_with_the_model(Options::new(), PLAIN);
}

#[test]
fn tiny_generations_and_colliding_tags_agree_with_the_model() {
    agrees_with_the_model(Options::new().index_entries(8).tag_bits(3), PLAIN);
}

#[test]
fn owners_that_outlive_the_process_agree_with_the_model() {
    agrees_with_the_model(Options::new(), Rules { owners_outlive_the_process: true, ..PLAIN });
}

#[test]
fn windows_from_the_first_claim_agree_with_the_model() {
    agrees_with_the_model(
        Options::new().index_entries(8).tag_bits(3),
        Rules { window_from: WindowFrom::FirstClaim, ..PLAIN },
    );
}

/// Each record in a file of its own, and all but the last of them sealed before the next step.
#[test]
fn sealed_records_agree_with_the_model() {
    let config = ProptestConfig {
        cases: 8 * soak(),
        failure_persistence: None,
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    };
    proptest!(config, |(steps in proptest::collection::vec(step(), 1..60))| {
        let mut bench = Bench::new(Options::new().generation_bytes(1).tag_bits(3), PLAIN);
        for step in &steps {
            // A batch that begins hundreds of files is a case apart.
            let step = if let Step::Crowd(count) = step { &Step::Crowd(count % 10) } else { step };
            bench.step(step)?;
            eventually("all but the last is sealed", || {
                let stats = bench.store.stats();
                stats.generations <= stats.sealed_generations + 2
            });
        }
    });
}

/// A batch that begins several generations makes their files while the next one is made ready
/// beside it. Whichever is made last, no later file may take the place of one of them.
#[test]
fn nothing_is_lost_when_several_generations_begin_at_once() {
    const STORES: u32 = 6;
    const LANES: u32 = 6;
    for number in 0..STORES {
        let directory = tempfile::tempdir().unwrap();
        let open = || Options::new().open(directory.path().join("store")).unwrap();
        // Twice the window is another lane, and a lane's first record begins a generation.
        let window = |lane: u32| Duration::from_hours(1) * 2u32.pow(lane);
        let event = |lane: u32| Operation::new("acme", format!("lane-{lane}")).window(window(lane));

        let store = open();
        assert!(store.record_once(event(0)).wait().unwrap());
        eventually("the next file is ready", || store.stats().generations == 2);
        let at_once: Vec<_> = (1..LANES - 1).map(|lane| store.record_once(event(lane))).collect();
        for call in at_once {
            assert!(call.wait().unwrap());
        }
        store.close().wait().unwrap();

        let store = open();
        assert!(store.record_once(event(LANES - 1)).wait().unwrap());
        for more in 0..20 {
            // Commits, for about as long as it takes to make the next file.
            let more = Operation::new("crowd", more.to_string()).window(window(0));
            assert!(store.record_once(more).wait().unwrap());
        }
        store.close().wait().unwrap();

        let store = open();
        for lane in 0..LANES {
            let is_first = store.record_once(event(lane)).wait().unwrap();
            assert!(!is_first, "store {number}: the record of lane {lane} is lost");
        }
    }
}
