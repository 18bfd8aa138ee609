//! A process that is stopped past a lease of its own: whoever is at it when it goes on, the owner
//! that is late or the one who waited, is the only one.

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use justonce::{Claim, EntryState, Options, Store};
use rustix::process::{Pid, Signal, kill_process};

use crate::child::{Ended, child, part_in, pass, tell, told_by};
use crate::common::{ClaimExt, MINUTE, op};

const LEASE: Duration = Duration::from_millis(60);

/// Longer than a child may take for anything.
const PATIENCE: Duration = Duration::from_mins(1);

/// An owner that completes when it is told to, and one who waits if there is to be one.
fn serve(place: &Path) {
    let store = Options::new().open(place.join("store")).unwrap();
    std::thread::scope(|threads| {
        let mut orders = std::io::stdin().lock().lines().map_while(Result::ok);
        while let Some(order) = orders.next() {
            let (key, someone_waits) = order.split_once(' ').unwrap();
            let ticket = store.claim(op(key).lease(LEASE)).wait().unwrap().new();
            let fence = ticket.fence();
            tell("owned");
            let waiting = (someone_waits == "waited-for").then(|| {
                let (store, key) = (store.clone(), key.to_owned());
                threads.spawn(move || wait_for(&store, &key, fence))
            });
            orders.next();
            tell(&match ticket.complete("late").wait() {
                Ok(()) => "owner: accepted".to_owned(),
                Err(error) => format!("owner: {:?}", error.kind()),
            });
            if let Some(waiting) = waiting {
                waiting.join().unwrap();
            }
            tell("over");
        }
    });
    store.close().wait().unwrap();
}

fn wait_for(store: &Store, key: &str, fence: u64) {
    match store.claim_or_wait(op(key).lease(MINUTE), MINUTE).wait().unwrap() {
        Claim::Resumed(ticket, _) => {
            assert!(ticket.fence() > fence);
            tell("waiter: resumed");
            ticket.complete("taken over").wait().unwrap();
        }
        Claim::Completed(reply) => tell(&format!("waiter: {reply}", reply = text(reply.body()))),
        other => panic!("{key}: {other:?}"),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn next(facts: &Receiver<String>) -> String {
    facts.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("the child says nothing more"))
}

#[test]
fn of_a_late_owner_and_one_who_waited_one_wins_after_a_stop_past_the_lease() {
    const NAME: &str =
        "stopped::of_a_late_owner_and_one_who_waited_one_wins_after_a_stop_past_the_lease";
    if let Some(place) = part_in(NAME) {
        return serve(&place);
    }
    let place = tempfile::tempdir().unwrap();
    let mut started = child(NAME, place.path()).stdin(Stdio::piped()).spawn().unwrap();
    let facts = told_by(&mut started);
    let mut orders = started.stdin.take().unwrap();
    let mut order = |line: &str| writeln!(orders, "{line}").unwrap();
    let process = Pid::from_child(&started);
    let mut started = Ended(started);
    let signal = |signal| kill_process(process, signal).unwrap();
    let mut replies = Vec::new();

    // Nobody took over: late, and accepted.
    order("alone -");
    assert_eq!(next(&facts), "owned");
    signal(Signal::STOP);
    pass(LEASE * 2);
    signal(Signal::CONT);
    order("complete");
    assert_eq!((next(&facts), next(&facts)), ("owner: accepted".into(), "over".into()));
    replies.push(("alone".to_owned(), "late"));

    // Someone took over before the owner went on.
    order("lost waited-for");
    assert_eq!(next(&facts), "owned");
    signal(Signal::STOP);
    pass(LEASE * 2);
    signal(Signal::CONT);
    assert_eq!(next(&facts), "waiter: resumed");
    order("complete");
    assert_eq!((next(&facts), next(&facts)), ("owner: LeaseLost".into(), "over".into()));
    replies.push(("lost".to_owned(), "taken over"));

    // Both go on at once.
    for round in 0..12 {
        let key = format!("raced-{round}");
        order(&format!("{key} waited-for"));
        assert_eq!(next(&facts), "owned");
        signal(Signal::STOP);
        pass(LEASE * 3 / 2);
        order("complete");
        signal(Signal::CONT);
        let mut told = [next(&facts), next(&facts)];
        told.sort();
        assert_eq!(next(&facts), "over");
        let reply = match [&*told[0], &*told[1]] {
            ["owner: accepted", "waiter: late"] => "late",
            ["owner: LeaseLost", "waiter: resumed"] => "taken over",
            both => panic!("round {round}: {both:?}"),
        };
        replies.push((key, reply));
    }
    drop(orders);
    assert!(started.0.wait().unwrap().success());

    let store = Options::new().open(place.path().join("store")).unwrap();
    for (key, body) in replies {
        let entry = store.lookup("acme", &key).wait().unwrap().unwrap();
        assert_eq!(entry.state(), EntryState::Completed, "{key}");
        assert_eq!(store.claim(op(&key)).wait().unwrap().completed().body(), body.as_bytes());
    }
}
