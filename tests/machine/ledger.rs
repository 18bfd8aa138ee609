//! The ledger: what children told, by operation, and what a store may say after that.
//!
//! An intent is told before its call and an answer after it, so a call that a kill cut off is known
//! to be one of which either outcome will do. Lines of several threads come in any order: nothing
//! is judged before the child is gone.

use std::collections::{BTreeMap, BTreeSet};

use justonce::{Claim, EntryState, Reply, Store, Ticket};

use crate::child::tell;
use crate::common::{DAY, HOUR, op};

#[derive(Debug, Default)]
pub struct Ledger {
    /// Owners by fence, by key.
    keys: BTreeMap<String, BTreeMap<u64, Owner>>,
    /// Replies that were shown, by key.
    shown: Vec<(String, String)>,
    run: usize,
    last_fence: u64,
    pub facts: usize,
}

/// An owner, and what it meant to do and did.
#[derive(Debug, Default)]
struct Owner {
    run: usize,
    request: String,
    attempt: u32,
    /// `completing`, `completed`, `releasing`, `released`, `forgetting`, `forgot`.
    did: BTreeSet<String>,
}

impl Owner {
    fn did(&self, what: &str) -> bool {
        self.did.contains(what)
    }

    /// Whether another may own the operation after this one.
    fn may_be_followed(&self, run: usize) -> bool {
        if self.did("forgetting") || self.did("releasing") {
            return true;
        }
        self.run != run && !self.did("completed")
    }
}

impl Ledger {
    /// A run of the store begins.
    pub fn begin_run(&mut self) {
        self.run += 1;
    }

    pub fn enter(&mut self, fact: &str) {
        let mut words = fact.split(' ');
        let (Some(did), Some(key)) = (words.next(), words.next()) else { return };
        self.facts += 1;
        let third = words.next().unwrap_or_default();
        if did == "shown" {
            self.shown.push((key.to_owned(), third.to_owned()));
            return;
        }
        let fence = third.parse().unwrap();
        let owners = self.keys.entry(key.to_owned()).or_default();
        let owner = owners.entry(fence).or_default();
        if did == "won" {
            owner.run = self.run;
            words.next().unwrap().clone_into(&mut owner.request);
            owner.attempt = words.next().unwrap().parse().unwrap();
            self.last_fence = self.last_fence.max(fence);
        } else {
            owner.did.insert(did.to_owned());
        }
    }

    /// Holds the ledger against itself: one owner after the other, one reply.
    pub fn check_itself(&self) {
        for (key, owners) in &self.keys {
            let mut in_order = owners.iter();
            let mut before = in_order.next().unwrap();
            for (fence, owner) in in_order {
                let (fence_before, former) = before;
                let both = format!("{key}: {fence_before} {former:?}, {fence} {owner:?}");
                assert!(former.may_be_followed(owner.run), "a second owner of {both}");
                let same = former.request == owner.request;
                assert!(same || former.did("forgetting") || former.run != owner.run, "{both}");
                assert!(!same || former.attempt < owner.attempt, "{both}");
                before = (fence, owner);
            }
        }
        for (key, body) in &self.shown {
            let mut owners = self.keys.get(key).into_iter().flatten();
            let is_of = |(fence, owner): (&u64, &Owner)| {
                owner.did("completing") && *body == reply(key, *fence)
            };
            assert!(owners.any(is_of), "{key}: nobody gave the reply {body}");
        }
    }

    /// Holds a store that was opened after the last run against the ledger.
    pub fn check(&self, store: &Store, case: &str) {
        self.check_itself();
        let in_flight = store.in_flight().wait().unwrap();
        let in_flight: BTreeSet<_> =
            in_flight.iter().map(|entry| entry.request_id().to_string()).collect();
        for (key, owners) in &self.keys {
            let (fence, owner) = owners.last_key_value().unwrap();
            let case = format!("{case}, {key}, {fence} {owner:?}");
            let entry = store.lookup("acme", key).wait().unwrap_or_else(|e| panic!("{case}: {e}"));
            let Some(entry) = entry else {
                assert!(owner.did("forgetting"), "lost: {case}");
                continue;
            };
            if entry.fence() != *fence {
                assert!(entry.fence() > *fence, "fences fell back: {case}, {entry:?}");
                assert!(owner.may_be_followed(self.run), "a second owner: {case}, {entry:?}");
                continue;
            }
            assert_eq!(entry.request_id().to_string(), owner.request, "{case}");
            let state = entry.state();
            let is_right = match state {
                EntryState::Completed => {
                    let body = entry.reply().unwrap().body().to_vec();
                    assert_eq!(String::from_utf8(body).unwrap(), reply(key, *fence), "{case}");
                    owner.did("completing") && !owner.did("forgot")
                }
                EntryState::Released => owner.did("releasing"),
                EntryState::Lapsed => !owner.did("completed") && !owner.did("released"),
                _ => false,
            };
            assert!(is_right, "{state:?}: {case}");
            if matches!(state, EntryState::Lapsed | EntryState::Released) {
                assert!(in_flight.contains(&owner.request), "not listed as interrupted: {case}");
            }
        }
    }

    /// Goes on with a store: its fences are new, and what was interrupted can be resumed.
    pub fn go_on(&mut self, store: &Store, number: usize) {
        self.begin_run();
        let before = self.last_fence;
        let shared = format!("shared-{}", number % SHARED);
        let all = [(format!("probe-{number}"), 0), (shared, number as u64 % 10)];
        for (key, how) in all {
            let claim = store.claim(op(&key)).wait().unwrap();
            let mut facts = Vec::new();
            try_to_act(store, &key, claim, how, &mut |fact| facts.push(fact)).unwrap();
            for fact in facts {
                self.enter(&fact);
            }
        }
        assert!(self.last_fence > before, "fences fell back below {before}");
    }
}

/// Keys that all threads of all runs claim.
const SHARED: usize = 6;

/// A worker's endless day: claims, and ends of what it wins. An error ends it.
pub fn work(store: &Store, name: &str, seed: u64) -> justonce::Error {
    let mut random = seed;
    let mut next = |below: u64| {
        // An LCG's upper bits are random enough to shuffle calls.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    for number in 0.. {
        let key = match next(4) {
            0 => format!("shared-{}", next(SHARED as u64)),
            _ => format!("{name}-{number}"),
        };
        let window = if next(8) == 0 { HOUR } else { DAY };
        let ended = match store.claim(op(&key).window(window)).wait() {
            Ok(claim) => try_to_act(store, &key, claim, next(10), &mut |fact| tell(&fact)),
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            return error;
        }
    }
    unreachable!()
}

fn try_to_act(
    store: &Store,
    key: &str,
    claim: Claim,
    how: u64,
    tell: &mut dyn FnMut(String),
) -> Result<(), justonce::Error> {
    let ticket: Ticket = match claim {
        Claim::New(ticket) | Claim::Resumed(ticket, _) => ticket,
        Claim::Completed(reply) => {
            let body = String::from_utf8(reply.body().to_vec()).unwrap();
            tell(format!("shown {key} {body}"));
            return Ok(());
        }
        Claim::InFlight(_) => return Ok(()),
        other => panic!("{key}: {other:?}"),
    };
    let (fence, request, attempt) = (ticket.fence(), ticket.request_id(), ticket.attempt());
    tell(format!("won {key} {fence} {request} {attempt}"));
    match how {
        0..=5 | 9 => {
            tell(format!("completing {key} {fence}"));
            ticket.complete(Reply::new(reply(key, fence))).wait()?;
            tell(format!("completed {key} {fence}"));
        }
        6 | 7 => {
            tell(format!("releasing {key} {fence}"));
            ticket.release("busy").wait()?;
            tell(format!("released {key} {fence}"));
        }
        _ => drop(ticket.detach()),
    }
    if how == 9 {
        tell(format!("forgetting {key} {fence}"));
        store.forget("acme", key).wait()?;
        tell(format!("forgot {key} {fence}"));
    }
    Ok(())
}

/// The one reply that an owner may give; long enough to fill a file soon.
pub fn reply(key: &str, fence: u64) -> String {
    format!("{key}/{fence}/{}", "x".repeat(64))
}
