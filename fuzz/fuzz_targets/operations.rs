//! Any calls, on a disk that fails now and then, against what the contract says of four keys.
//!
//! A key is in one of a few states, or, after a commit of which nobody knows, in one of several:
//! an answer that fits none of them is wrong.

#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::Arbitrary;
use justonce::{Claim, ErrorKind, ManualClock, Operation, Options, RequestId, Store, Ticket};
use justonce_fuzz::Disk;
use libfuzzer_sys::fuzz_target;

const KEYS: u8 = 4;
const LEASE: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(1 << 24);

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Step {
    Claim(u8),
    RecordOnce(u8),
    Complete(u8, u8),
    Fail(u8, u8),
    Release(u8),
    Renew(u8),
    Drop(u8),
    Forget(u8, bool),
    LookUp(u8),
    OutliveLeases,
    Reopen,
    BreakDown(u8),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Absent,
    /// With a live owner or without.
    Owned { is_live: bool },
    Released,
    Settled { is_failed: bool, body: Vec<u8> },
}

/// What a key may be.
#[derive(Debug, Clone)]
struct Known {
    may_be: Vec<State>,
    request: Option<RequestId>,
}

struct Bench {
    disk: Disk,
    clock: ManualClock,
    store: Store,
    tickets: BTreeMap<u8, Ticket>,
    keys: Vec<Known>,
    last_fence: u64,
}

fn options(clock: &ManualClock) -> Options {
    Options::new().clock(clock).window(WINDOW).lease(LEASE).generation_bytes(4 << 10).tag_bits(2)
}

fn operation(key: u8) -> Operation {
    Operation::new("acme", [key])
}

impl Known {
    fn is(&mut self, state: State) {
        self.may_be = vec![state];
    }

    /// A write landed, or did not, or nobody knows.
    fn follow<T>(&mut self, outcome: &Result<T, ErrorKind>, after: State) {
        match outcome {
            Ok(_) => self.is(after),
            Err(ErrorKind::Unknown) => self.may_be.push(after),
            Err(_) => {}
        }
    }

    /// Keeps the states that fit what was seen.
    fn narrow(&mut self, seen: &str, fits: impl Fn(&State) -> bool) {
        let before = self.may_be.clone();
        self.may_be.retain(|state| fits(state));
        assert!(!self.may_be.is_empty(), "{seen}, and was one of {before:?}");
    }
}

impl Bench {
    fn new() -> Self {
        let (disk, clock) = (Disk::default(), ManualClock::new());
        let store = options(&clock).open_in(Arc::new(disk.clone())).expect("nothing fails yet");
        let known = Known { may_be: vec![State::Absent], request: None };
        let keys = vec![known; usize::from(KEYS)];
        Bench { disk, clock, store, tickets: BTreeMap::new(), keys, last_fence: 0 }
    }

    fn step(&mut self, step: Step) {
        self.clock.advance(Duration::from_millis(1));
        match step {
            Step::Claim(key) => self.claim(key % KEYS),
            Step::RecordOnce(key) => self.record_once(key % KEYS),
            Step::Complete(key, body) => self.settle(key % KEYS, false, body),
            Step::Fail(key, body) => self.settle(key % KEYS, true, body),
            Step::Release(key) => {
                let key = key % KEYS;
                if let Some(ticket) = self.tickets.remove(&key) {
                    let outcome = ticket.release("busy").wait().map_err(|error| error.kind());
                    self.acted(key, &outcome, State::Released);
                }
            }
            Step::Renew(key) => {
                let key = key % KEYS;
                if let Some(ticket) = self.tickets.get(&key) {
                    let outcome = ticket.renew(LEASE).wait().map_err(|error| error.kind());
                    self.acted(key, &outcome, State::Owned { is_live: true });
                }
            }
            Step::Drop(key) => {
                if self.tickets.remove(&(key % KEYS)).is_some() {
                    self.lapse(key % KEYS);
                }
            }
            Step::Forget(key, is_forced) => self.forget(key % KEYS, is_forced),
            Step::LookUp(key) => self.look_up(key % KEYS),
            Step::OutliveLeases => {
                self.clock.advance(LEASE);
                (0..KEYS).for_each(|key| self.lapse(key));
            }
            Step::Reopen => self.reopen(),
            Step::BreakDown(after) => self.disk.fail_after(Some(usize::from(after))),
        }
    }

    fn known(&mut self, key: u8) -> &mut Known {
        &mut self.keys[usize::from(key)]
    }

    /// A live owner is there no more; its ticket may still write.
    fn lapse(&mut self, key: u8) {
        for state in &mut self.known(key).may_be {
            if let State::Owned { is_live } = state {
                *is_live = false;
            }
        }
    }

    fn claim(&mut self, key: u8) {
        let claim = match self.store.claim(operation(key)).wait() {
            Ok(claim) => claim,
            Err(error) => return self.known(key).follow(&Err::<(), _>(error.kind()), State::Owned { is_live: false }),
        };
        let request = claim.request_id();
        let known = &mut self.keys[usize::from(key)];
        match claim {
            Claim::New(ticket) => {
                known.narrow("new", |state| *state == State::Absent);
                assert_ne!(known.request, Some(request), "a request id of an earlier life");
                known.request = Some(request);
                self.granted(key, ticket);
                return;
            }
            Claim::Resumed(ticket, _) => {
                known.narrow("resumed", |state| {
                    matches!(state, State::Owned { is_live: false } | State::Released)
                });
                self.granted(key, ticket);
            }
            Claim::InFlight(_) => {
                known.narrow("in flight", |state| *state == State::Owned { is_live: true });
            }
            Claim::Completed(reply) => known.narrow("completed", |state| {
                matches!(state, State::Settled { is_failed: false, body } if body == reply.body())
            }),
            Claim::Failed(reply) => known.narrow("failed", |state| {
                matches!(state, State::Settled { is_failed: true, body } if body == reply.body())
            }),
            other => panic!("{other:?}"),
        }
        let known = self.known(key);
        let before = *known.request.get_or_insert(request);
        assert_eq!(before, request, "the request id changed");
    }

    fn granted(&mut self, key: u8, ticket: Ticket) {
        assert!(ticket.fence() > self.last_fence, "a fence that is not new");
        self.last_fence = ticket.fence();
        self.known(key).is(State::Owned { is_live: true });
        // Another's ticket, which is dropped with no effect.
        drop(self.tickets.insert(key, ticket));
    }

    fn record_once(&mut self, key: u8) {
        let settled = State::Settled { is_failed: false, body: Vec::new() };
        match self.store.record_once(operation(key)).wait() {
            Ok(true) => {
                let known = self.known(key);
                known.narrow("first", |state| {
                    !matches!(state, State::Owned { is_live: true } | State::Settled { .. })
                });
                if known.may_be.contains(&State::Absent) {
                    known.request = None;
                }
                known.is(settled);
            }
            Ok(false) => self.known(key).narrow("seen before", |state| {
                matches!(state, State::Owned { is_live: true } | State::Settled { .. })
            }),
            Err(error) => {
                let outcome = Err::<(), _>(error.kind());
                self.known(key).follow(&outcome, settled);
            }
        }
    }

    fn settle(&mut self, key: u8, is_failed: bool, body: u8) {
        let Some(ticket) = self.tickets.remove(&key) else { return };
        let pending =
            if is_failed { ticket.fail(vec![body; 40]) } else { ticket.complete(vec![body; 40]) };
        let outcome = pending.wait().map_err(|error| error.kind());
        self.acted(key, &outcome, State::Settled { is_failed, body: vec![body; 40] });
    }

    /// What came of an owner's act. A ticket that is kept here is the last that was given, so it is
    /// refused where the key was forgotten or recorded since, or the store is closed.
    fn acted(&mut self, key: u8, outcome: &Result<(), ErrorKind>, after: State) {
        match outcome {
            Err(ErrorKind::LeaseLost | ErrorKind::Gone) => {
                self.known(key).narrow("lost", |state| !matches!(state, State::Owned { is_live: true }));
            }
            outcome => {
                if outcome.is_ok() {
                    let known = self.known(key);
                    known.narrow("an owner's act", |state| matches!(state, State::Owned { .. }));
                }
                self.known(key).follow(outcome, after);
            }
        }
    }

    fn forget(&mut self, key: u8, is_forced: bool) {
        let call = if is_forced {
            self.store.forget_forced("acme", [key])
        } else {
            self.store.forget("acme", [key])
        };
        let outcome = call.wait().map_err(|error| error.kind());
        let known = self.known(key);
        match outcome {
            Ok(true) => {
                known.narrow("forgotten", |state| {
                    let is_owned = *state == State::Owned { is_live: true };
                    *state != State::Absent && (is_forced || !is_owned)
                });
                known.is(State::Absent);
            }
            Ok(false) => known.narrow("nothing to forget", |state| *state == State::Absent),
            Err(ErrorKind::InFlight) => {
                known.narrow("in flight", |state| *state == State::Owned { is_live: true });
            }
            outcome => known.follow(&outcome, State::Absent),
        }
    }

    fn look_up(&mut self, key: u8) {
        let Ok(entry) = self.store.lookup("acme", [key]).wait() else { return };
        let known = self.known(key);
        match entry {
            None => known.narrow("absent", |state| *state == State::Absent),
            Some(entry) => known.narrow("there", |state| match state {
                State::Absent => false,
                State::Settled { body, .. } => {
                    entry.reply().is_some_and(|reply| reply.body() == body)
                }
                _ => entry.reply().is_none(),
            }),
        }
    }

    fn reopen(&mut self) {
        let _ = self.store.close().wait();
        self.disk.fail_after(None);
        self.store = options(&self.clock).open_in(Arc::new(self.disk.clone())).expect("it is sound");
        self.tickets.clear();
        (0..KEYS).for_each(|key| self.lapse(key));
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let mut bench = Bench::new();
    for step in steps.into_iter().take(60) {
        bench.step(step);
    }
    bench.reopen();
    (0..KEYS).for_each(|key| bench.look_up(key));
    (0..KEYS).for_each(|key| bench.claim(key));
});
