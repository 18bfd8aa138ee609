//! The n-th change of the disk fails, for every n: once or for ever, because the disk is broken or
//! full, and with or without losing what the sync that failed was to make durable.
//!
//! After the fault the store is opened again with the cache as the fault has left it, works on, and
//! loses its power: only what is on the disk counts.
//!
//! Some of the cases run by default, each with `JUSTONCE_SOAK` set.

#![allow(clippy::allow_attributes, reason = "lints that fire in some helpers only")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test")]

mod common;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use common::fault::{Fault, FaultyDirectory, Keep, On};
use common::random::{Random, first_seed};
use common::*;
use justonce::{
    Claim, Durability, EntryState, Error, ErrorKind, ManualClock, Options, Store, Ticket,
};

const SHORT: Duration = Duration::from_hours(2);
const OPERATIONS: usize = 20;

/// How the disk fails.
#[derive(Debug, Clone, Copy)]
struct Failing {
    error: io::ErrorKind,
    for_ever: bool,
    /// Whether a sync that fails loses what was written.
    loses: bool,
}

impl Failing {
    /// Each way.
    fn all() -> Vec<Failing> {
        let mut all = Vec::new();
        for error in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
            for for_ever in [false, true] {
                all.extend([false, true].map(|loses| Failing { error, for_ever, loses }));
            }
        }
        all
    }

    /// What is failed in turn.
    fn on(self) -> On {
        if self.loses { On::Sync } else { On::Any }
    }

    /// Has the change after so many fail.
    fn plan(self, directory: &FaultyDirectory, after: usize) {
        let Failing { error, for_ever, loses } = self;
        if loses {
            directory.lose_unsynced();
        }
        directory.plan(Fault { on: self.on(), after, error, for_ever });
    }
}

/// One operation, and what is known of it.
#[derive(Debug, Clone)]
struct Known {
    number: usize,
    /// How many of its owner's acts were acknowledged.
    done: usize,
    /// Whether the next may have landed as well.
    unknown: bool,
    fence: u64,
}

/// What an operation is after some of its owner's acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Absent,
    Lapsed,
    Released,
    Completed,
}

impl Known {
    fn key(&self) -> String {
        format!("key {}", self.number)
    }

    fn window(&self) -> Duration {
        if self.number.is_multiple_of(2) { SHORT } else { DAY }
    }

    /// Whether its window is over when all work is done.
    fn is_over(&self) -> bool {
        self.window() == SHORT && self.number < OPERATIONS / 2
    }

    fn is_after(&self, acts: usize) -> Is {
        match (self.number % 5, acts) {
            _ if self.is_over() => Is::Absent,
            (_, 0) | (4, 3) => Is::Absent,
            (1, 2) => Is::Released,
            (2, 3) | (0 | 4, 2) => Is::Completed,
            _ => Is::Lapsed,
        }
    }

    /// Claims it and does what is to be done with it, until something is refused.
    fn work(&mut self, store: &Store) {
        let operation = op(&self.key()).window(self.window()).lease(MINUTE);
        let Some(claim) = self.told(store.claim(operation).wait()) else { return };
        let ticket = claim.new();
        self.fence = ticket.fence();
        let complete = |ticket: Ticket| ticket.complete("done").wait();
        match self.number % 5 {
            1 => drop(self.told(ticket.release("busy").wait())),
            2 if self.told(ticket.renew(HOUR).wait()).is_some() => {
                self.told(complete(ticket));
            }
            2 => {}
            3 => drop(ticket.detach()),
            last => {
                if self.told(complete(ticket)).is_some() && last == 4 {
                    self.told(store.forget("acme", self.key()).wait());
                }
            }
        }
    }

    /// Takes note of an answer.
    fn told<T>(&mut self, answer: Result<T, Error>) -> Option<T> {
        match answer {
            Ok(answer) => {
                self.done += 1;
                Some(answer)
            }
            Err(error) => {
                self.unknown = error.kind() == ErrorKind::Unknown;
                assert!(self.unknown || error.kind() == ErrorKind::Poisoned, "{error:?}");
                None
            }
        }
    }

    /// What there is of it, which must be what was told or about to be.
    fn found(&self, store: &Store) -> Is {
        let entry = store.lookup("acme", self.key()).wait().unwrap();
        let is = entry.as_ref().map_or(Is::Absent, |entry| match entry.state() {
            EntryState::Lapsed => Is::Lapsed,
            EntryState::Released => Is::Released,
            EntryState::Completed => Is::Completed,
            other => panic!("{self:?} is {other:?}"),
        });
        let may_be =
            is == self.is_after(self.done) || self.unknown && is == self.is_after(self.done + 1);
        assert!(may_be, "{self:?} is {is:?}");
        if let Some(entry) = entry.filter(|_| self.done > 0) {
            assert_eq!(entry.fence(), self.fence, "{self:?}");
        }
        is
    }
}

/// A disk, and what a store on it has told.
struct Case {
    directory: FaultyDirectory,
    clock: ManualClock,
    durability: Durability,
    all: Vec<Known>,
    /// Of operations that were recorded in one write.
    recorded: Vec<String>,
}

impl Case {
    fn of(durability: Durability) -> Self {
        let known = |number| Known { number, done: 0, unknown: false, fence: 0 };
        Case {
            directory: FaultyDirectory::default(),
            clock: ManualClock::new(),
            durability,
            all: (0..OPERATIONS).map(known).collect(),
            recorded: Vec::new(),
        }
    }

    /// The same after a power cut or a clean end, on a disk that is healthy.
    fn image(&self, keep: Keep) -> Self {
        Case {
            directory: self.directory.image(keep),
            clock: ManualClock::new(),
            all: self.all.clone(),
            recorded: self.recorded.clone(),
            ..*self
        }
        .at(&self.clock)
    }

    fn at(self, clock: &ManualClock) -> Self {
        self.clock.set_wall(clock.wall());
        self
    }

    fn open(&self) -> Result<Store, Error> {
        let options = Options::new().clock(&self.clock).durability(self.durability);
        options.generation_bytes(250).open_in(Arc::new(self.directory.clone()))
    }

    /// Works in two lanes, over two hours.
    fn work(&mut self, store: &Store) {
        for known in &mut self.all {
            if known.number == OPERATIONS / 2 || known.number == OPERATIONS * 3 / 4 {
                self.clock.advance(SHORT / 2);
            }
            known.work(store);
        }
    }

    fn was_refused(&self) -> bool {
        self.all.iter().any(|known| known.unknown)
    }

    fn record(&mut self, store: &Store, key: String) {
        assert!(store.record_once(op(&key)).wait().unwrap(), "{key}");
        self.recorded.push(key);
    }

    /// Opens the store again on the same disk, whose cache is as it was left, works on, and looks
    /// at what is left once the power goes.
    fn recover(&mut self) {
        self.directory.heal();
        let store = self.open().unwrap();
        for known in &self.all {
            known.found(&store);
        }
        for number in 0..6 {
            self.record(&store, format!("after {number}"));
        }
        let left = self.image(Keep::Synced);
        drop(store);
        left.assert_claims();
    }

    fn assert_claims(&self) {
        let store = self.open().unwrap();
        let mut last_fence = self.all.iter().map(|known| known.fence).max().unwrap_or_default();
        for known in &self.all {
            let ticket = match (known.found(&store), store.claim(op(&known.key())).wait().unwrap())
            {
                (Is::Completed, Claim::Completed(reply)) => {
                    assert_eq!(reply.body(), b"done", "{known:?}");
                    continue;
                }
                (Is::Absent, Claim::New(ticket))
                | (Is::Lapsed | Is::Released, Claim::Resumed(ticket, _)) => ticket,
                (is, claim) => panic!("{known:?} is {is:?} and answers {claim:?}"),
            };
            assert!(ticket.fence() > last_fence, "{known:?} answers {ticket:?}");
            last_fence = ticket.fence();
            ticket.complete("done").wait().unwrap();
        }
        for key in &self.recorded {
            assert!(!store.record_once(op(key)).wait().unwrap(), "{key} is lost");
        }
    }
}

/// Fails one change of the disk under a store at work. `false` where there are no more.
fn fail_at_work(durability: Durability, failing: Failing, after: usize) -> bool {
    let mut case = Case::of(durability);
    let store = case.open().unwrap();
    case.record(&store, "first".to_owned());
    failing.plan(&case.directory, after);
    case.work(&store);
    let mut changes = None;
    if case.was_refused() {
        assert!(case.directory.has_failed(), "refused for no reason");
        case.directory.heal_quietly();
        for _ in 0..2 {
            let refused = store.claim(op("later")).wait().unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Poisoned, "{refused:?}");
            let is_full = failing.error == io::ErrorKind::StorageFull;
            assert_eq!(refused.is_disk_full(), is_full, "{refused:?}");
        }
        // Also where the fault came between closing a file and opening it read-only.
        assert!(!store.record_once(op("first")).wait().unwrap(), "it is new");
        assert_eq!(store.close().wait().unwrap_err().kind(), ErrorKind::Unknown);
        // By then the keeper has ended, whom the fault may have met in the middle of something.
        changes = Some(case.directory.changes_since_fault());
    } else {
        let closed = store.close().wait();
        let has_failed = case.directory.has_failed();
        assert_eq!(closed.is_err(), has_failed, "{closed:?}");
    }
    drop(store);
    if let Some(changes) = changes {
        assert_eq!(case.directory.changes_since_fault(), changes, "written after the fault");
    }
    let goes_on = case.directory.has_failed();
    for keep in [Keep::Synced, Keep::Written] {
        case.image(keep).assert_claims();
    }
    case.recover();
    goes_on
}

/// Fails one change of the disk under an opening. `false` where there are no more.
fn fail_at_opening(prepared: &Case, failing: Failing, after: usize) -> bool {
    let mut case = prepared.image(Keep::Written);
    failing.plan(&case.directory, after);
    match case.open() {
        Ok(store) => drop(store),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
            assert_eq!(error.is_disk_full(), failing.error == io::ErrorKind::StorageFull);
        }
    }
    let goes_on = case.directory.has_failed();
    case.image(Keep::Synced).assert_claims();
    case.recover();
    goes_on
}

/// Tries each change in turn, or about one of so many unless all are asked for.
fn sweep(what: &str, one_of: usize, mut fails: impl FnMut(Failing, usize) -> bool) {
    let one_of = if std::env::var_os("JUSTONCE_SOAK").is_some() { 1 } else { one_of };
    let mut random = Random::of(first_seed());
    let mut cases = 0;
    for failing in Failing::all() {
        // Of three changes one is a sync.
        let one_of = if failing.on() == On::Sync { one_of.div_ceil(3) } else { one_of };
        let mut after = random.below(one_of);
        loop {
            let case = format!("{what}: {failing:?} after {after} changes");
            let on_panic = Named(&case);
            let goes_on = fails(failing, after);
            std::mem::forget(on_panic);
            cases += 1;
            if !goes_on {
                break;
            }
            after += 1 + random.below(2 * one_of - 1);
        }
    }
    eprintln!("{what}: {cases} cases");
}

/// Says which case it was where a test fails.
struct Named<'c>(&'c str);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        eprintln!("{}", self.0);
    }
}

#[test]
fn nothing_acknowledged_is_lost_whichever_change_of_the_disk_fails() {
    sweep("synced", 40, |failing, after| fail_at_work(Durability::Synced, failing, after));
}

#[test]
fn nothing_acknowledged_is_lost_whichever_change_of_a_strict_store_fails() {
    sweep("strict", 80, |failing, after| fail_at_work(Durability::Strict, failing, after));
}

#[test]
fn a_fault_while_a_store_is_made_is_an_error_and_the_next_opening_works() {
    let nothing = Case::of(Durability::Synced);
    sweep("made", 3, |failing, after| fail_at_opening(&nothing, failing, after));
}

#[test]
fn a_fault_while_a_store_is_opened_is_an_error_and_the_next_opening_works() {
    for is_clean in [true, false] {
        let mut prepared = Case::of(Durability::Synced);
        let store = prepared.open().unwrap();
        prepared.work(&store);
        let cut_off = prepared.image(Keep::Written);
        store.close().wait().unwrap();
        let prepared = if is_clean { prepared } else { cut_off };
        let what = if is_clean { "opened" } else { "opened after a crash" };
        sweep(what, 24, |failing, after| fail_at_opening(&prepared, failing, after));
    }
}
