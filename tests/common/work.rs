//! Random calls to a store on a disk with a journal: each answer is held to what is known by then,
//! and what it says goes into a ledger.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use justonce::{Claim, Error, ErrorKind, ManualClock, Options, Pending, Reply, Store, Ticket};

use super::journal::Journal;
use super::ledger::{Ledger, Seen, State};
use super::random::Random;
use super::{DAY, HOUR, MINUTE, op};

const LEASE: Duration = Duration::from_secs(30);

/// What records are kept for: three lanes.
const WINDOWS: [Duration; 3] = [Duration::from_secs(90), HOUR, DAY];

/// A store at work.
pub struct Work {
    pub journal: Journal,
    pub clock: ManualClock,
    pub ledger: Ledger,
    options: Options,
    random: Random,
    store: Option<Store>,
    owners: BTreeMap<usize, Owner>,
}

/// Whose ticket was not dropped in this run of the store.
struct Owner {
    ticket: Ticket,
    until: SystemTime,
}

/// A call that was made, and what is to come of it.
enum Call {
    Claim { is_owned: bool, pending: Pending<Claim> },
    Act { refusal: Option<ErrorKind>, pending: Pending<()> },
    Renew { refusal: Option<ErrorKind>, until: SystemTime, pending: Pending<()> },
    Once { is_first: bool, pending: Pending<bool> },
    Forget { is_refused: bool, is_there: bool, pending: Pending<bool> },
    None,
}

impl Work {
    /// Of a store that is open, or is to be made on an empty disk.
    pub fn on(
        journal: &Journal,
        options: Options,
        clock: ManualClock,
        ledger: Ledger,
        random: Random,
        store: Option<Store>,
    ) -> Self {
        let owners = BTreeMap::new();
        let journal = journal.clone();
        let mut work = Work { journal, clock, ledger, options, random, store, owners };
        if work.store.is_none() {
            work.open();
        }
        work
    }

    fn open(&mut self) {
        let store = self.options.clone().clock(&self.clock).open_in(Arc::new(self.journal.clone()));
        self.store = Some(store.unwrap());
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// Makes some calls at once, or moves time, or restarts the store.
    pub fn step(&mut self) {
        match self.random.below(40) {
            0 => self.advance(Duration::from_secs(40)),
            1 => self.advance(2 * MINUTE),
            2 => self.advance(10 * MINUTE),
            3 => self.advance(70 * MINUTE),
            4 => self.reopen(),
            5..8 => self.let_others_work(),
            _ => self.call_some(),
        }
    }

    fn advance(&mut self, by: Duration) {
        // Before: as soon as it is moved, the store may write down what it shows.
        let position = self.journal.position();
        self.clock.advance(by);
        self.ledger.note_time(position, self.clock.wall());
    }

    fn reopen(&mut self) {
        if self.random.coin() {
            self.store().close().wait().unwrap();
        }
        self.owners.clear();
        self.store = None;
        self.open();
    }

    /// Waits until nothing has been written for a moment.
    fn let_others_work(&self) {
        let mut before = usize::MAX;
        while self.journal.position() != before {
            before = self.journal.position();
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Stops for good, having closed the store or not.
    pub fn end(mut self) -> (Journal, Ledger) {
        if self.random.coin() {
            self.journal.cut_off();
        }
        self.owners.clear();
        self.store = None;
        (self.journal, self.ledger)
    }

    fn call_some(&mut self) {
        self.advance(Duration::from_millis(20));
        let mut numbers = Vec::new();
        for _ in 0..=self.random.below(4) {
            let number = self.random.below(self.ledger.operations());
            if !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        let made_at = self.journal.position();
        let calls: Vec<_> = numbers.iter().map(|number| self.call(*number)).collect();
        for (number, call) in numbers.iter().zip(calls) {
            self.answer(*number, call);
        }
        let answered_at = self.journal.position();
        for number in numbers {
            let entry = self.store().lookup("acme", number.to_string()).wait().unwrap();
            self.ledger.note(number, made_at, answered_at, entry.as_ref().map(Seen::of));
        }
    }

    fn is_owned(&self, number: usize) -> bool {
        let (owner, known) = (self.owners.get(&number), self.ledger.latest(number));
        owner.zip(known).is_some_and(|(owner, known)| {
            known.fence == owner.ticket.fence()
                && known.state == State::Owned
                && owner.until > self.clock.wall()
        })
    }

    fn call(&mut self, number: usize) -> Call {
        let window = self.random.pick(&WINDOWS);
        let operation = || op(&number.to_string()).window(window).lease(LEASE);
        let (is_owned, known) = (self.is_owned(number), self.ledger.latest(number));
        match self.random.below(12) {
            0..6 if self.owners.contains_key(&number) => self.act(number),
            6 => Call::Once {
                is_first: !is_owned
                    && known.is_none_or(|known| {
                        matches!(known.state, State::Owned | State::Released(_))
                    }),
                pending: self.store().record_once(operation()),
            },
            7 => {
                let force = self.random.coin();
                let is_there = self.ledger.latest(number).is_some();
                let (store, key) = (self.store(), number.to_string());
                let forget = if force { Store::forget_forced } else { Store::forget };
                let pending = forget(store, "acme", key);
                Call::Forget { is_refused: is_owned && !force, is_there, pending }
            }
            _ => Call::Claim { is_owned, pending: self.store().claim(operation()) },
        }
    }

    fn act(&mut self, number: usize) -> Call {
        let Some(owner) = self.owners.remove(&number) else { return Call::None };
        let refusal = match self.ledger.latest(number) {
            None => Some(ErrorKind::Gone),
            Some(known) if known.fence != owner.ticket.fence() => Some(ErrorKind::LeaseLost),
            Some(known) if known.state != State::Owned => Some(ErrorKind::LeaseLost),
            Some(_) => None,
        };
        let text = self.random.next().to_string();
        let ticket = owner.ticket;
        let pending = match self.random.below(10) {
            0..4 => {
                let reply = Reply::new(text);
                let short = self.random.one_in(3);
                ticket.complete(if short { reply.retention(WINDOWS[0]) } else { reply })
            }
            4 => ticket.fail(text),
            5 => ticket.release(text),
            6 => {
                drop(ticket);
                return Call::None;
            }
            kept => {
                let until = self.clock.wall() + 2 * LEASE;
                let (pending, until) = match kept {
                    7 => (ticket.renew(2 * LEASE), until),
                    8 => (ticket.mark_dispatched(), owner.until),
                    _ => (ticket.checkpoint(text), owner.until),
                };
                self.owners.insert(number, Owner { ticket, until });
                return Call::Renew { refusal, until, pending };
            }
        };
        Call::Act { refusal, pending }
    }

    fn answer(&mut self, number: usize, call: Call) {
        let outcome = match call {
            Call::None => return,
            Call::Claim { is_owned, pending } => {
                return self.claimed(number, is_owned, pending.wait().unwrap());
            }
            Call::Once { is_first, pending } => {
                assert_eq!(pending.wait().unwrap(), is_first, "{number}");
                return;
            }
            Call::Forget { is_refused: true, pending, .. } => {
                (Some(ErrorKind::InFlight), pending.wait().map(drop))
            }
            Call::Forget { is_there, pending, .. } => {
                assert_eq!(pending.wait().unwrap(), is_there, "{number}");
                return;
            }
            Call::Act { refusal, pending } => (refusal, pending.wait()),
            Call::Renew { refusal, until, pending } => {
                if let Some(owner) = self.owners.get_mut(&number) {
                    owner.until = until;
                }
                (refusal, pending.wait())
            }
        };
        let (refusal, outcome) = outcome;
        assert_eq!(outcome.err().as_ref().map(Error::kind), refusal, "{number}");
    }

    fn claimed(&mut self, number: usize, is_owned: bool, claim: Claim) {
        let known = self.ledger.latest(number);
        let (ticket, attempt) = match (claim, known) {
            (Claim::New(ticket), None) => (ticket, 1),
            (Claim::Resumed(ticket, _), Some(known)) if !is_owned => {
                assert!(matches!(known.state, State::Owned | State::Released(_)), "{known:?}");
                assert_eq!(ticket.request_id(), known.request_id);
                (ticket, known.attempt + 1)
            }
            (Claim::InFlight(flight), Some(known)) if is_owned => {
                assert_eq!(flight.request_id(), known.request_id);
                return;
            }
            (Claim::Completed(reply), Some(Seen { state: State::Completed(body), .. }))
            | (Claim::Failed(reply), Some(Seen { state: State::Failed(body), .. })) => {
                assert_eq!(reply.body(), body);
                return;
            }
            (claim, known) => panic!("{number} was {known:#?} and answers {claim:?}"),
        };
        assert_eq!(ticket.attempt(), attempt);
        assert!(ticket.fence() > self.ledger.last_fence(usize::MAX), "{} again", ticket.fence());
        let until = self.clock.wall() + LEASE;
        if let Some(before) = self.owners.insert(number, Owner { ticket, until }) {
            let refused = before.ticket.complete("late").wait().unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::LeaseLost);
        }
    }
}
