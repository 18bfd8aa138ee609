//! What a store has answered, and between which changes of its disk: what a power cut must leave.
//!
//! Of each operation there is what was seen of it after each call, with the positions in the
//! disk's journal at which the call was made and answered. A disk that was cut off at some position
//! has what was answered by then, or what a call made by then was going to have, and nothing else.

use std::collections::BTreeSet;
use std::time::SystemTime;

use justonce::{Claim, Entry, EntryState, Filter, RequestId, Store};

use super::op;

/// What is seen of an operation that is remembered, and does not depend on who looks when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub state: State,
    pub request_id: RequestId,
    pub attempt: u32,
    pub fence: u64,
    dispatched: bool,
    checkpoint: Option<Vec<u8>>,
    changed_at: SystemTime,
    pub expires_at: SystemTime,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// In flight, or lapsed.
    Owned,
    Released(String),
    Completed(Vec<u8>),
    Failed(Vec<u8>),
}

/// What was seen after a call, and when that was made and answered.
#[derive(Debug, Clone)]
struct Told {
    made_at: usize,
    answered_at: usize,
    seen: Option<Seen>,
}

#[derive(Debug, Clone)]
pub struct Ledger {
    /// Of each operation, by its number.
    told: Vec<Vec<Told>>,
    /// What the clock was moved to, and when.
    times: Vec<(usize, SystemTime)>,
}

impl Seen {
    pub fn of(entry: &Entry) -> Self {
        let reply = || entry.reply().unwrap().body().to_vec();
        Seen {
            state: match entry.state() {
                EntryState::InFlight | EntryState::Lapsed => State::Owned,
                EntryState::Released => {
                    State::Released(entry.prior().unwrap().reason().unwrap().to_owned())
                }
                EntryState::Completed => State::Completed(reply()),
                EntryState::Failed => State::Failed(reply()),
                other => panic!("no state of a record: {other:?}"),
            },
            request_id: entry.request_id(),
            attempt: entry.attempt(),
            fence: entry.fence(),
            dispatched: entry.dispatched(),
            checkpoint: entry.checkpoint().map(<[u8]>::to_vec),
            changed_at: entry.changed_at(),
            expires_at: entry.expires_at(),
        }
    }

    fn lacks_reply(&self) -> bool {
        matches!(self.state, State::Owned | State::Released(_))
    }
}

/// What is there of it at a moment.
fn at(seen: Option<&Seen>, now: SystemTime) -> Option<&Seen> {
    seen.filter(|seen| seen.expires_at > now)
}

impl Ledger {
    /// Of a store that is new, or whose operations are as they were found.
    pub fn of(found: Vec<Option<Seen>>, now: SystemTime) -> Self {
        let first = |seen| vec![Told { made_at: 0, answered_at: 0, seen }];
        Ledger { told: found.into_iter().map(first).collect(), times: vec![(0, now)] }
    }

    pub fn operations(&self) -> usize {
        self.told.len()
    }

    pub fn note_time(&mut self, position: usize, now: SystemTime) {
        self.times.push((position, now));
    }

    /// Notes what a look-up shows after a call.
    pub fn note(&mut self, number: usize, made_at: usize, answered_at: usize, seen: Option<Seen>) {
        if self.latest(number) != seen.as_ref() {
            self.told[number].push(Told { made_at, answered_at, seen });
        }
    }

    /// What is known of an operation now.
    pub fn latest(&self, number: usize) -> Option<&Seen> {
        let now = self.times[self.times.len() - 1].1;
        at(self.told[number].last().unwrap().seen.as_ref(), now)
    }

    /// What the clock showed at a position.
    pub fn time(&self, position: usize) -> SystemTime {
        self.times.iter().rfind(|(at, _)| *at <= position).unwrap().1
    }

    /// The largest fence that was given to anyone by a position.
    pub fn last_fence(&self, position: usize) -> u64 {
        let told = self.told.iter().flatten().filter(|told| told.made_at < position.max(1));
        told.filter_map(|told| Some(told.seen.as_ref()?.fence)).max().unwrap_or_default()
    }

    /// Holds a store that was opened on what a cut at `position` has left to what was told, and
    /// returns what was found.
    pub fn check(&self, store: &Store, position: usize) -> Ledger {
        let now = self.time(position);
        let found: Vec<_> = (0..self.told.len())
            .map(|number| {
                let entry = store.lookup("acme", number.to_string()).wait().unwrap();
                if let Some(entry) = &entry {
                    assert_ne!(entry.state(), EntryState::InFlight, "{number} has an owner");
                }
                let seen = entry.as_ref().map(Seen::of);
                self.assert_told(number, position, seen.as_ref(), now);
                seen
            })
            .collect();
        let ids = |of: &dyn Fn(&Seen) -> bool| -> BTreeSet<RequestId> {
            found.iter().flatten().filter(|seen| of(seen)).map(|seen| seen.request_id).collect()
        };
        let listed = store.in_flight().wait().unwrap();
        let listed: Vec<_> = listed.iter().map(Entry::request_id).collect();
        assert_eq!(BTreeSet::from_iter(listed.clone()), ids(&Seen::lacks_reply), "in flight");
        let scanned: Vec<_> =
            store.scan(Filter::new()).map(|entry| entry.unwrap().request_id()).collect();
        assert_eq!(BTreeSet::from_iter(scanned.clone()), ids(&|_| true), "scanned");
        assert_eq!(BTreeSet::from_iter(listed.clone()).len(), listed.len(), "listed twice");
        assert_eq!(BTreeSet::from_iter(scanned.clone()).len(), scanned.len(), "scanned twice");
        Ledger::of(found, now)
    }

    fn assert_told(&self, number: usize, position: usize, seen: Option<&Seen>, now: SystemTime) {
        let told = &self.told[number];
        let answered = told.iter().rposition(|told| told.answered_at <= position).unwrap();
        let may_be = told[answered..].iter().take_while(|told| told.made_at < position.max(1));
        let may_be: Vec<_> = may_be.map(|told| at(told.seen.as_ref(), now)).collect();
        assert!(
            may_be.contains(&seen),
            "{number} is {seen:#?}, which nobody was told or about to be told: {may_be:#?}"
        );
    }

    /// Claims each operation of a store that was just opened, and asserts that it is answered by
    /// what was found; and that each then has one owner.
    pub fn assert_claims(&self, store: &Store, last_fence: u64) {
        let mut last_fence = last_fence.max(self.last_fence(0));
        for number in 0..self.told.len() {
            let claim = || store.claim(op(&number.to_string())).wait().unwrap();
            let known = self.latest(number);
            let (ticket, attempt, request_id) = match (claim(), known.map(|known| &known.state)) {
                (Claim::Completed(reply), Some(State::Completed(body)))
                | (Claim::Failed(reply), Some(State::Failed(body))) => {
                    assert_eq!(reply.body(), body, "{number}");
                    continue;
                }
                (Claim::New(ticket), None) => (ticket, 1, None),
                (Claim::Resumed(ticket, _), Some(State::Owned | State::Released(_))) => {
                    (ticket, known.unwrap().attempt + 1, known.map(|known| known.request_id))
                }
                (claim, _) => panic!("{number} was {known:#?} and answers {claim:?}"),
            };
            assert_eq!(ticket.attempt(), attempt, "{number}");
            assert!(ticket.fence() > last_fence, "{number}: {} again", ticket.fence());
            assert!(request_id.is_none_or(|id| id == ticket.request_id()), "{number}");
            last_fence = ticket.fence();
            match claim() {
                Claim::InFlight(flight) => assert_eq!(flight.request_id(), ticket.request_id()),
                other => panic!("{number} has an owner and answers {other:?}"),
            }
            // Only to see that nothing else comes of it.
            drop(ticket.detach());
        }
    }
}
