//! A disk that fails: what was promised holds, and nobody is told that an operation is new.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use std::future::{Future, IntoFuture};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use common::fault::{Fault, FaultyDirectory, On};
use common::*;
use justonce::{Claim, Durability, Error, ErrorKind, Filter, ManualClock, Options, Reply, Store};

/// What a failing disk answers (EIO has no kind of its own).
const BROKEN: io::ErrorKind = io::ErrorKind::Other;

fn open(directory: &FaultyDirectory, durability: Durability) -> Result<Store, Error> {
    Options::new().durability(durability).open_in(Arc::new(directory.clone()))
}

/// A store on a disk that will fail, with `done` completed and nothing under way.
fn prepared() -> (FaultyDirectory, Store) {
    let directory = FaultyDirectory::default();
    let store = open(&directory, Durability::Synced).unwrap();
    store.claim(op("done")).wait().unwrap().new().complete("done").wait().unwrap();
    eventually("the next file is ready", || store.stats().generations == 2);
    (directory, store)
}

/// A store whose commits have begun to fail, `lost` being the first that did.
fn broken() -> (FaultyDirectory, Store) {
    let (directory, store) = prepared();
    directory.break_down(On::Sync, BROKEN);
    assert_eq!(kind(store.claim(op("lost")).wait()), ErrorKind::Unknown);
    (directory, store)
}

#[track_caller]
fn kind<T: std::fmt::Debug>(answer: Result<T, Error>) -> ErrorKind {
    match answer {
        Ok(answer) => panic!("no error: {answer:?}"),
        Err(error) => error.kind(),
    }
}

/// Whether it is one of the errors of a store that has stopped.
fn says_stopped(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Poisoned)
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn the_writes_of_a_failed_batch_are_unknown() {
    for on in [On::Write, On::Sync] {
        let (directory, store) = prepared();
        directory.break_down(on, BROKEN);
        let error = store.claim(op("lost")).wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unknown, "{on:?}: {error}");
        assert!(!error.is_disk_full());
        assert!(std::error::Error::source(&error).is_some(), "it names its cause");
    }
}

#[test]
fn everyone_in_a_failed_batch_is_told() {
    let (directory, store) = prepared();
    directory.break_down(On::Sync, BROKEN);
    let claims: Vec<_> = (0..100).map(|n| store.claim(op(&n.to_string()))).collect();
    let errors: Vec<_> = claims.into_iter().map(|claim| claim.wait().unwrap_err()).collect();
    assert!(errors.iter().all(says_stopped), "{errors:?}");
    assert_eq!(errors[0].kind(), ErrorKind::Unknown);
}

#[test]
fn a_task_is_told_as_a_thread_is() {
    let (directory, store) = prepared();
    directory.break_down(On::Sync, BROKEN);
    let error = futures_lite::future::block_on(store.claim(op("lost"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
}

#[test]
fn a_full_disk_is_told_from_a_broken_one() {
    let (directory, store) = prepared();
    directory.break_down(On::Write, io::ErrorKind::StorageFull);
    let unknown = store.claim(op("lost")).wait().unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Unknown);
    assert!(unknown.is_disk_full(), "{unknown:?}");
    let poisoned = store.claim(op("later")).wait().unwrap_err();
    assert_eq!(poisoned.kind(), ErrorKind::Poisoned);
    assert!(poisoned.is_disk_full(), "{poisoned:?}");
}

#[test]
fn a_disk_error_of_the_system_tells_whether_the_disk_is_full() {
    let full = io::Error::from_raw_os_error(28);
    assert_eq!(full.kind(), io::ErrorKind::StorageFull, "ENOSPC is another number here");
    let (directory, store) = prepared();
    directory.break_down(On::Sync, full.kind());
    assert!(store.record_once(op("lost")).wait().unwrap_err().is_disk_full());
}

#[test]
fn later_writes_are_refused() {
    let (_directory, store) = broken();
    assert_eq!(kind(store.claim(op("new")).wait()), ErrorKind::Poisoned);
    assert_eq!(kind(store.record_once(op("new")).wait()), ErrorKind::Poisoned);
    assert_eq!(kind(store.claim_many([op("new")]).wait()), ErrorKind::Poisoned);
    assert_eq!(kind(store.forget("acme", "done").wait()), ErrorKind::Poisoned);
}

#[test]
fn what_an_owner_does_is_refused() {
    let (directory, store) = prepared();
    let claim = |key: &str| store.claim(op(key)).wait().unwrap().new();
    let [a, b, c, d] = ["a", "b", "c", "d"].map(claim);
    directory.break_down(On::Sync, BROKEN);
    assert_eq!(kind(a.complete("done").wait()), ErrorKind::Unknown);
    assert_eq!(kind(b.complete("done").wait()), ErrorKind::Poisoned);
    assert_eq!(kind(c.release("busy").wait()), ErrorKind::Poisoned);
    assert_eq!(kind(d.renew(HOUR).wait()), ErrorKind::Poisoned);
    assert_eq!(kind(d.checkpoint("note").wait()), ErrorKind::Poisoned);
}

#[test]
fn what_is_durable_can_be_read_on() {
    let (_directory, store) = broken();
    let entry = store.lookup("acme", "done").wait().unwrap().unwrap();
    assert_eq!(entry.reply().unwrap().body(), b"done");
    let found = store.lookup_request(entry.request_id()).wait().unwrap().unwrap();
    assert_eq!(found.request_id(), entry.request_id());
    assert!(store.in_flight().wait().unwrap().is_empty());
    let durable = store.scan(Filter::new()).flatten().count();
    assert_eq!(durable, 1);
}

/// redb reads no more of a file that it could not write to, but what it has in memory.
#[test]
fn what_is_durable_and_not_in_memory_can_be_read_on() {
    const KEYS: usize = 200;
    let body = |number: usize| format!("{number:->5000}");
    for (on, loses_unsynced) in [(On::Sync, true), (On::Sync, false), (On::Write, true)] {
        let directory = FaultyDirectory::default();
        let store = Options::new().cache_bytes(0).open_in(Arc::new(directory.clone())).unwrap();
        for number in 0..KEYS {
            let ticket = store.claim(op(&number.to_string())).wait().unwrap().new();
            ticket.complete(body(number)).wait().unwrap();
        }
        eventually("the next file is ready", || store.stats().generations == 2);
        if loses_unsynced {
            directory.lose_unsynced();
        }
        directory.break_down(on, BROKEN);
        assert_eq!(kind(store.claim(op("lost")).wait()), ErrorKind::Unknown);
        let changes = directory.changes_since_fault();
        std::thread::scope(|scope| {
            for first in 0..2 {
                let store = &store;
                scope.spawn(move || {
                    for number in (first..KEYS).step_by(2) {
                        let claim = store.claim(op(&number.to_string())).wait().unwrap();
                        assert_eq!(claim.completed().body(), body(number).as_bytes());
                    }
                });
            }
        });
        assert_eq!(store.scan(Filter::new()).flatten().count(), KEYS);
        assert_eq!(kind(store.claim(op("later")).wait()), ErrorKind::Poisoned);
        assert_eq!(directory.changes_since_fault(), changes, "reading changed something");
    }
}

#[test]
fn a_claim_that_needs_no_write_is_answered_on() {
    let (directory, store) = prepared();
    let owner = store.claim(op("flying").fingerprint("body")).wait().unwrap().new();
    directory.break_down(On::Sync, BROKEN);
    assert_eq!(kind(store.claim(op("lost")).wait()), ErrorKind::Unknown);
    assert_eq!(store.claim(op("done")).wait().unwrap().completed().body(), b"done");
    assert!(!store.record_once(op("done")).wait().unwrap());
    let flight = store.claim(op("flying")).wait().unwrap().in_flight();
    assert_eq!(flight.request_id(), owner.request_id());
    let other = store.claim(op("flying").fingerprint("other")).wait().unwrap();
    assert_eq!(other.mismatch().request_id(), owner.request_id());
}

#[test]
fn an_operation_whose_claim_failed_is_never_new_in_that_run() {
    let (directory, store) = broken();
    directory.heal();
    for _ in 0..3 {
        let error = store.claim(op("lost")).wait().unwrap_err();
        assert!(says_stopped(&error), "{error:?}");
        let error = store.lookup("acme", "lost").wait().unwrap_err();
        assert!(says_stopped(&error), "{error:?}");
    }
}

#[test]
fn nothing_is_written_after_the_fault() {
    for on in [On::Write, On::Sync] {
        let (directory, store) = prepared();
        let ticket = store.claim(op("flying")).wait().unwrap().new();
        directory.plan(Fault { on, after: 0, error: BROKEN, for_ever: false });
        assert_eq!(kind(store.claim(op("lost")).wait()), ErrorKind::Unknown);
        let changes = directory.changes_since_fault();
        assert_eq!(kind(ticket.complete("done").wait()), ErrorKind::Poisoned);
        drop(store.claim(op("later")));
        assert_eq!(kind(store.close().wait()), ErrorKind::Unknown);
        drop(store);
        assert_eq!(directory.changes_since_fault(), changes, "{on:?}");
    }
}

#[test]
fn a_parked_thread_wakes_with_an_error() {
    let (directory, store) = prepared();
    let _owner = store.claim(op("flying")).wait().unwrap().new();
    let flight = store.claim(op("flying")).wait().unwrap().in_flight();
    std::thread::scope(|threads| {
        let waiting = threads.spawn(|| flight.wait(DAY));
        let claiming = threads.spawn(|| store.claim_or_wait(op("flying"), DAY).wait());
        eventually("both wait", || store.stats().waiters == 2);
        directory.break_down(On::Sync, BROKEN);
        assert_eq!(kind(store.claim(op("lost")).wait()), ErrorKind::Unknown);
        let error = waiting.join().unwrap().unwrap_err();
        assert!(says_stopped(&error), "{error:?}");
        let error = claiming.join().unwrap().unwrap_err();
        assert!(says_stopped(&error), "{error:?}");
    });
    assert_eq!(store.stats().waiters, 0);
}

#[test]
fn a_suspended_task_wakes_with_an_error() {
    let (directory, store) = prepared();
    let _owner = store.claim(op("flying")).wait().unwrap().new();
    let flight = store.claim(op("flying")).wait().unwrap().in_flight();
    let mut wait = pin!(flight.into_future());
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(Arc::clone(&flag));
    let mut context = Context::from_waker(&waker);
    assert!(wait.as_mut().poll(&mut context).is_pending());
    directory.break_down(On::Sync, BROKEN);
    assert_eq!(kind(store.claim(op("lost")).wait()), ErrorKind::Unknown);
    assert!(flag.0.load(Ordering::SeqCst), "the task was not woken");
    match wait.as_mut().poll(&mut context) {
        Poll::Ready(Err(error)) => assert!(says_stopped(&error), "{error:?}"),
        other => panic!("no error: {other:?}"),
    }
}

#[test]
fn closing_reports_the_fault_and_gives_the_directory_back() {
    let (directory, store) = broken();
    let error = store.close().wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    assert_eq!(kind(store.close().wait()), ErrorKind::Unknown, "each time");
    directory.heal();
    let store = open(&directory, Durability::Synced).unwrap();
    assert_eq!(store.claim(op("done")).wait().unwrap().completed().body(), b"done");
}

#[test]
fn a_store_works_again_once_it_is_opened_on_a_healthy_disk() {
    for on in [On::Write, On::Sync] {
        let (directory, store) = prepared();
        let fence = store.claim(op("flying")).wait().unwrap().new().fence();
        directory.break_down(on, io::ErrorKind::StorageFull);
        assert_eq!(kind(store.claim(op("lost")).wait()), ErrorKind::Unknown);
        drop(store);
        directory.heal();
        let store = open(&directory, Durability::Synced).unwrap();
        assert_eq!(store.claim(op("done")).wait().unwrap().completed().body(), b"done");
        let (ticket, _) = store.claim(op("flying")).wait().unwrap().resumed();
        assert!(ticket.fence() > fence, "{on:?}");
        ticket.complete("done").wait().unwrap();
        match store.claim(op("lost")).wait().unwrap() {
            Claim::New(ticket) | Claim::Resumed(ticket, _) => assert!(ticket.fence() > fence),
            other => panic!("nobody has completed it: {other:?}"),
        }
    }
}

#[test]
fn a_write_answered_at_once_is_not_taken_for_durable_after_a_fault() {
    let directory = FaultyDirectory::default();
    let relaxed = Durability::Relaxed { within: HOUR };
    let store = open(&directory, relaxed).unwrap();
    eventually("a file is ready", || store.stats().generations == 1);
    let ticket = store.claim(op("k")).wait().unwrap().new();
    directory.break_down(On::Sync, BROKEN);
    assert_eq!(kind(store.close().wait()), ErrorKind::Unknown);
    assert_eq!(kind(ticket.complete("done").wait()), ErrorKind::Closed);
    assert_eq!(kind(store.claim(op("k")).wait()), ErrorKind::Closed);
}

/// A crash between the two files of a batch loses the claim and keeps the reply that took its
/// place. The claim's row is another operation's next, and that one must not be struck off the
/// list of interrupted work for it.
#[test]
fn a_row_that_was_lost_and_used_again_is_still_listed_as_interrupted() {
    const FAULTS: usize = 40;
    let month = Duration::from_hours(30 * 24);
    let relaxed = Durability::Relaxed { within: MINUTE };
    for after in 0..FAULTS {
        let directory = FaultyDirectory::default();
        let claim = |store: &Store, key: &str, window| match store
            .claim(op(key).window(window))
            .wait()
            .unwrap()
        {
            Claim::New(ticket) | Claim::Resumed(ticket, _) => ticket,
            other => panic!("owned or settled: {other:?}"),
        };
        let store = open(&directory, relaxed).unwrap();
        let _ = (claim(&store, "short", MINUTE).detach(), claim(&store, "long", month).detach());
        store.close().wait().unwrap();
        let store = open(&directory, relaxed).unwrap();
        let _ = claim(&store, "first of the batch", month).detach();
        let lost = claim(&store, "lost", MINUTE);
        lost.complete(Reply::new("kept").retention(month)).wait().unwrap();
        directory.plan(Fault { on: On::Any, after, error: BROKEN, for_ever: true });
        let _ = store.close().wait();
        directory.heal();
        drop(store);

        let store = open(&directory, relaxed).unwrap();
        let ticket = claim(&store, "next", MINUTE);
        let request_id = ticket.request_id();
        let _ = ticket.detach();
        store.close().wait().unwrap();
        let interrupted = open(&directory, relaxed).unwrap().in_flight().wait().unwrap();
        let is_listed = interrupted.iter().any(|entry| entry.request_id() == request_id);
        assert!(is_listed, "a fault at operation {after}");
    }
}

#[cfg(unix)]
#[test]
fn a_directory_that_is_moved_or_replaced_is_noticed_before_anything_is_written() {
    for replaced in [false, true] {
        let parent = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (parent.path().join("store"), parent.path().join("moved"));
        let store = Options::new().open(&path).unwrap();
        store.claim(op("done")).wait().unwrap().new().complete("done").wait().unwrap();
        eventually("the next file is ready", || store.stats().generations == 2);
        std::fs::rename(&path, &elsewhere).unwrap();
        let other = replaced.then(|| Options::new().open(&path).unwrap());
        assert_eq!(kind(store.claim(op("lost")).wait()), ErrorKind::Unknown);
        assert_eq!(kind(store.claim(op("later")).wait()), ErrorKind::Poisoned);
        assert_eq!(store.claim(op("done")).wait().unwrap().completed().body(), b"done");
        drop((store, other));
        let store = Options::new().open(&elsewhere).unwrap();
        assert!(store.lookup("acme", "lost").wait().unwrap().is_none());
        assert!(store.lookup("acme", "done").wait().unwrap().is_some());
    }
}

/// Files are removed and made by name, and the names may be another store's by then.
#[cfg(unix)]
#[test]
fn the_files_of_a_store_that_took_the_place_of_another_are_left_alone() {
    let parent = tempfile::tempdir().unwrap();
    let (path, elsewhere) = (parent.path().join("store"), parent.path().join("moved"));
    let clock = ManualClock::new();
    let record = |store: &Store| store.record_once(op("k").window(MINUTE)).wait();
    let store = Options::new().clock(&clock).open(&path).unwrap();
    assert!(record(&store).unwrap());
    eventually("the next file is ready", || store.stats().generations == 2);
    std::fs::rename(&path, &elsewhere).unwrap();
    let other = Options::new().open(&path).unwrap();
    assert!(record(&other).unwrap());
    eventually("the next file is ready", || other.stats().generations == 2);

    clock.advance(HOUR);
    eventually("its file's time has come", || store.stats().generations < 2);
    drop(store);
    other.close().wait().unwrap();
    let other = Options::new().open(&path).unwrap();
    assert!(!record(&other).unwrap(), "its file is there");
}

/// A caller's waker that panics is the caller's trouble: the others of its batch wake.
#[test]
fn a_waker_that_panics_keeps_nobody_else_asleep() {
    struct Panicking;
    impl Wake for Panicking {
        fn wake(self: Arc<Self>) {
            panic!("a waker of the caller's");
        }
    }
    let store = Options::new().in_memory().unwrap();
    for round in 0..50 {
        let mut first = pin!(store.record_once(op(&format!("first {round}"))));
        let second = store.record_once(op(&format!("second {round}")));
        let waker = Waker::from(Arc::new(Panicking));
        let _ = first.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(second.wait().unwrap());
        assert!(futures_lite::future::block_on(first).unwrap());
    }
}
