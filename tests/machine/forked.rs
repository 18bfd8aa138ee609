//! Fork: the child's calls are refused, whatever the parent's threads were at, and the parent's
//! store is not disturbed.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fork::{Fork, fork, waitpid, waitpid_nohang};
use futures_lite::future::block_on;
use justonce::{Error, Filter, Options, Store, Ticket};

use crate::child::{child, part_in, pass, plays_to_its_end};
use crate::common::{ClaimExt, DAY, HOUR, eventually, op};

/// Longer than what the store may take to see that it is in another process.
const A_WHILE: Duration = Duration::from_millis(3);

/// Forks; has the child write down what comes of its calls, and end without any tidying up.
/// Returns that, or nothing where the child did not come to an end.
fn in_a_fork(notes: &Path, calls: impl FnOnce() -> Vec<String>) -> Option<String> {
    match fork().unwrap() {
        Fork::Child => {
            pass(A_WHILE);
            let calls = catch_unwind(AssertUnwindSafe(calls));
            let calls = calls.unwrap_or_else(|_| vec!["a panic".to_owned()]);
            let _ = std::fs::write(notes, calls.join("\n"));
            kill(rustix::process::getpid());
            unreachable!()
        }
        Fork::Parent(number) => {
            for _ in 0..1000 {
                if waitpid_nohang(number).unwrap().is_some() {
                    return std::fs::read_to_string(notes).ok();
                }
                pass(Duration::from_millis(10));
            }
            kill(rustix::process::Pid::from_raw(number).unwrap());
            waitpid(number).unwrap();
            None
        }
    }
}

fn kill(process: rustix::process::Pid) {
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
}

fn note<T: Debug>(call: &str, answer: Result<T, Error>) -> String {
    match answer {
        Ok(answer) => format!("{call}: {answer:?}"),
        Err(error) => format!("{call}: {:?}", error.kind()),
    }
}

/// Calls of each kind, as they come out in a fork.
fn all_calls(store: Store, path: &Path, mine: Ticket, token: &[u8]) -> Vec<String> {
    let notes = vec![
        note("claim", store.claim(op("child")).wait()),
        note("claim, awaited", block_on(store.claim(op("child, too")))),
        note("claim what is done", store.claim(op("done")).wait()),
        note("claim or wait", store.claim_or_wait(op("flying"), HOUR).wait()),
        note("claim many", store.claim_many([op("child"), op("other")]).wait()),
        note("record once", store.record_once(op("child")).wait()),
        note("lookup", store.lookup("acme", "done").wait()),
        note("in flight", store.in_flight().wait()),
        note("scan", store.scan(Filter::new()).next().unwrap()),
        note("forget", store.forget("acme", "done").wait()),
        note("forget project", store.forget_project("acme").wait()),
        note("attach", store.attach(token).wait()),
        note("renew", mine.renew(HOUR).wait()),
        note("complete", mine.complete("by the child").wait()),
        note("close", store.close().wait()),
    ];
    drop(store);
    let opened = note("open", Options::new().open(path).map(|_| ()));
    notes.into_iter().chain([opened]).collect()
}

#[test]
fn a_fork_is_refused_and_the_parent_goes_on() {
    const NAME: &str = "forked::a_fork_is_refused_and_the_parent_goes_on";
    let Some(place) = part_in(NAME) else {
        let place = tempfile::tempdir().unwrap();
        plays_to_its_end(child(NAME, place.path()));
        return;
    };
    let path = place.join("store");
    let store = Options::new().open(&path).unwrap();
    store.claim(op("done")).wait().unwrap().new().complete("done").wait().unwrap();
    let mine = store.claim(op("mine")).wait().unwrap().new();
    let token = store.claim(op("flying")).wait().unwrap().new().detach();
    eventually("the next file is ready", || store.stats().generations == 2);
    let copies = (store.clone(), store.attach(&token).wait().unwrap());
    let notes = in_a_fork(&place.join("notes"), {
        let (store, path, token) = (store.clone(), path.clone(), token.clone());
        move || {
            let (_, flying) = copies;
            let mut notes = all_calls(store, &path, flying, &token);
            notes.retain(|note| !note.ends_with(": Closed"));
            notes
        }
    });
    assert_eq!(notes.as_deref(), Some("open: AlreadyOpen"), "calls that were not refused");

    assert!(store.record_once(op("after")).wait().unwrap());
    mine.complete("by the parent").wait().unwrap();
    store.attach(&token).wait().unwrap().complete("by the parent").wait().unwrap();
    store.close().wait().unwrap();
    drop(store);
    let store = Options::new().open(&path).unwrap();
    for (key, body) in [("done", "done"), ("mine", "by the parent"), ("flying", "by the parent")] {
        let reply = store.claim(op(key)).wait().unwrap().completed();
        assert_eq!(reply.body(), body.as_bytes(), "{key}");
    }
    assert!(!store.record_once(op("after")).wait().unwrap());
    for key in ["child", "child, too", "other"] {
        assert!(store.lookup("acme", key).wait().unwrap().is_none(), "{key}");
    }
}

/// The locks of threads that are not in the child stay locked for ever: no call may ask for one.
#[test]
fn a_fork_is_refused_whatever_the_threads_of_its_parent_were_at() {
    const NAME: &str = "forked::a_fork_is_refused_whatever_the_threads_of_its_parent_were_at";
    let Some(place) = part_in(NAME) else {
        let place = tempfile::tempdir().unwrap();
        plays_to_its_end(child(NAME, place.path()));
        return;
    };
    let store = Options::new().generation_bytes(4096).open(place.join("store")).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for thread in 0..3 {
            let (store, is_over) = (&store, &is_over);
            threads.spawn(move || {
                for number in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let key = format!("{thread} {number}");
                    assert!(store.record_once(op(&key).window(DAY)).wait().unwrap());
                    store.lookup("acme", &key).wait().unwrap();
                }
            });
        }
        for round in 0..20 {
            let notes = in_a_fork(&place.join("notes"), || {
                let mut notes = vec![
                    note("claim", store.claim(op("child")).wait()),
                    note("claim, awaited", block_on(store.claim(op("child")))),
                    note("lookup", store.lookup("acme", "0 0").wait()),
                    note("close", store.close().wait()),
                ];
                drop(store.clone());
                notes.retain(|note| !note.ends_with(": Closed"));
                notes
            });
            if notes.as_deref() != Some("") {
                is_over.store(true, Ordering::Relaxed);
                panic!("round {round}: {notes:?}");
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    store.close().wait().unwrap();
}

/// What was submitted before the fork is the parent's to commit.
#[test]
fn a_call_that_was_under_way_at_a_fork_ends_in_both_processes() {
    const NAME: &str = "forked::a_call_that_was_under_way_at_a_fork_ends_in_both_processes";
    let Some(place) = part_in(NAME) else {
        let place = tempfile::tempdir().unwrap();
        plays_to_its_end(child(NAME, place.path()));
        return;
    };
    let store = Options::new().open(place.join("store")).unwrap();
    for round in 0..10 {
        let call = || store.record_once(op(&round.to_string()));
        let pending = call();
        let notes = in_a_fork(&place.join("notes"), || vec![note("under way", pending.wait())]);
        let notes = notes.unwrap_or_else(|| panic!("the child waits for ever"));
        // Durable already when the fork came, or not.
        let ended = ["under way: true", "under way: Closed"].contains(&notes.as_str());
        assert!(ended, "round {round}: {notes}");
        assert!(!call().wait().unwrap(), "it was submitted, and so it landed");
    }
    store.close().wait().unwrap();
}
