//! What a restart keeps, and what it ends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unchecked_time_subtraction,
    reason = "a test"
)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::fault::FaultyDirectory;
use common::*;
use justonce::seam::Directory;
use justonce::{
    Durability, EntryState, ErrorKind, Filter, Operation, Options, Owner, Pending, Reply, Store,
    Why, WindowFrom,
};

const MILLI: Duration = Duration::from_millis(1);
const LEASE: Duration = Duration::from_mins(10);

fn external(options: Options) -> Options {
    options.owner(Owner::External)
}

#[test]
fn replies_survive_with_all_that_belongs_to_them() {
    with_store(|world| {
        let claim = |key: &str| world.claim(op(key).fingerprint("body")).new();
        let (done, failed) = (claim("done"), claim("failed"));
        let requests = [done.request_id(), failed.request_id()];
        let tagged = |body: &str| Reply::new(body).content("text/plain");
        world.wait(done.complete(tagged("done"))).unwrap();
        world.wait(failed.fail(tagged("broken"))).unwrap();
        if !world.reopen() {
            return;
        }
        let done = world.claim(op("done").fingerprint("body")).completed();
        let failed = world.claim(op("failed")).failed();
        assert_eq!((done.body(), failed.body()), (&b"done"[..], &b"broken"[..]));
        for (reply, request) in [done, failed].iter().zip(requests) {
            assert_eq!(reply.content_tag(), Some("text/plain"));
            assert_eq!(reply.request_id(), Some(request));
            assert_eq!(reply.attempt(), Some(1));
            assert!(world.wait(world.store.lookup_request(request)).unwrap().is_some());
        }
        let seen = world.claim(op("done").fingerprint("other")).mismatch();
        assert_eq!(seen.request_id(), requests[0]);
    });
}

#[test]
fn exhausted_attempts_stay_exhausted() {
    with_store(|world| {
        drop(world.claim(op("k").max_attempts(1)));
        let _reply = world.claim(op("k").max_attempts(1)).failed();
        if world.reopen() {
            assert_eq!(world.claim(op("k")).failed().attempts_exhausted(), Some(1));
        }
    });
}

#[test]
fn a_release_and_its_reason_survive() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        let request = ticket.request_id();
        world.wait(ticket.release("the provider is busy")).unwrap();
        if world.reopen() {
            let (ticket, prior) = world.claim(op("k")).resumed();
            assert_eq!((ticket.request_id(), ticket.attempt()), (request, 2));
            assert_eq!(
                (prior.why(), prior.reason()),
                (Why::Released, Some("the provider is busy"))
            );
        }
    });
}

#[test]
fn notes_survive() {
    with_store(|world| {
        let ticket = world.claim(op("k").label("a label")).new();
        world.wait(ticket.mark_dispatched()).unwrap();
        world.wait(ticket.checkpoint("provider id 7")).unwrap();
        if world.reopen() {
            assert_eq!(world.lookup("k").unwrap().label(), Some("a label"));
            let (_ticket, prior) = world.claim(op("k")).resumed();
            assert!(prior.dispatched());
            assert_eq!(prior.checkpoint(), Some(&b"provider id 7"[..]));
        }
    });
}

#[test]
fn what_was_in_flight_is_lapsed_at_once() {
    with_store(|world| {
        let first = world.claim(op("k").lease(DAY)).new();
        if !world.reopen() {
            return;
        }
        let entry = world.lookup("k").unwrap();
        assert_eq!(entry.state(), EntryState::Lapsed);
        let listed = world.wait(world.store.in_flight()).unwrap();
        assert_eq!(listed.len(), 1);
        let (second, prior) = world.claim(listed[0].operation()).resumed();
        assert_eq!(prior.why(), Why::Restart);
        assert_eq!((second.request_id(), second.attempt()), (entry.request_id(), 2));
        assert!(second.fence() > entry.fence());
        drop(first);
        let _flight = world.claim(op("k")).in_flight();
    });
}

#[test]
fn a_dropped_ticket_leaves_its_operation_lapsed_across_a_restart() {
    with_store(|world| {
        drop(world.claim(op("k")).new());
        if world.reopen() {
            assert_eq!(world.lookup("k").unwrap().state(), EntryState::Lapsed);
            let (ticket, _) = world.claim(op("k")).resumed();
            assert_eq!(ticket.attempt(), 2);
        }
    });
}

#[test]
fn owners_elsewhere_keep_their_leases() {
    with_store_of(external, |world| {
        let token = world.claim(op("k")).new().detach();
        world.clock.advance(MINUTE);
        if !world.reopen() {
            return;
        }
        let flight = world.claim(op("k")).in_flight();
        assert_eq!(flight.retry_after(), LEASE - MINUTE);
        let ticket = world.wait(world.store.attach(&token)).unwrap();
        world.wait(ticket.complete("done")).unwrap();
        assert_eq!(world.claim(op("k")).completed().body(), b"done");
    });
}

#[test]
fn leases_of_owners_elsewhere_end_on_time() {
    with_store_of(external, |world| {
        let token = world.claim(op("k")).new().detach();
        world.clock.advance(LEASE - MILLI);
        if !world.reopen() {
            return;
        }
        let _flight = world.claim(op("k")).in_flight();
        world.clock.advance(MILLI);
        let (_owner, prior) = world.claim(op("k")).resumed();
        assert_eq!(prior.why(), Why::Lease);
        assert_eq!(world.refusal(world.store.attach(&token)), ErrorKind::LeaseLost);
    });
}

#[test]
fn a_token_outlives_the_run_it_was_made_in() {
    with_store(|world| {
        let token = world.claim(op("k")).new().detach();
        if world.reopen() {
            let ticket = world.wait(world.store.attach(&token)).unwrap();
            world.wait(ticket.complete("late")).unwrap();
            assert_eq!(world.claim(op("k")).completed().body(), b"late");
        }
    });
}

#[test]
fn windows_go_on_counting() {
    with_store(|world| {
        for (key, from) in [("last", WindowFrom::LastChange), ("first", WindowFrom::FirstClaim)] {
            let ticket = world.claim(op(key).window(HOUR).window_from(from)).new();
            world.wait(ticket.complete("done")).unwrap();
        }
        world.clock.advance(30 * MINUTE);
        if !world.reopen() {
            return;
        }
        world.clock.advance(30 * MINUTE - MILLI);
        for key in ["last", "first"] {
            let _reply = world.claim(op(key)).completed();
        }
        world.clock.advance(MILLI);
        for key in ["last", "first"] {
            let _ticket = world.claim(op(key)).new();
        }
    });
}

#[test]
fn windows_count_on_while_the_store_is_closed() {
    let mut world = World::on_disk(|options| options.window(HOUR));
    assert!(world.store.record_once(op("k")).wait().unwrap());
    world.store.close().wait().unwrap();
    world.clock.advance(HOUR);
    world.reopen();
    assert!(world.lookup("k").is_none());
    assert!(world.store.record_once(op("k")).wait().unwrap());
}

#[test]
fn what_is_forgotten_stays_forgotten() {
    with_store(|world| {
        let done = world.claim(op("done")).new();
        world.wait(done.complete("done")).unwrap();
        let _flying = world.claim(op("flying")).new();
        assert!(world.wait(world.store.forget("acme", "done")).unwrap());
        assert!(world.wait(world.store.forget_forced("acme", "flying")).unwrap());
        if world.reopen() {
            for key in ["done", "flying"] {
                assert!(world.lookup(key).is_none(), "{key}");
                assert_eq!(world.claim(op(key)).new().attempt(), 1, "{key}");
            }
        }
    });
}

#[test]
fn raw_names_survive() {
    let keep = |options: Options| options.keep_keys(true);
    with_store_of(keep, |world| {
        drop(world.claim(op("k")));
        if world.reopen() {
            let entry = world.lookup("k").unwrap();
            assert_eq!((entry.project(), entry.key()), (Some(&b"acme"[..]), Some(&b"k"[..])));
        }
    });
}

#[test]
fn fences_attempts_and_epochs_grow_however_often_a_store_is_opened() {
    let mut world = World::on_disk(|options| options);
    let first = world.claim(op("k")).new();
    let request = first.request_id();
    let mut fences = vec![first.fence()];
    for attempt in 2..10 {
        world.reopen();
        let (ticket, prior) = world.claim(op("k")).resumed();
        assert_eq!(prior.why(), Why::Restart);
        assert_eq!((ticket.request_id(), ticket.attempt()), (request, attempt));
        fences.push(ticket.fence());
        fences.push(world.claim(op(&format!("other {attempt}"))).new().fence());
    }
    assert!(fences.is_sorted_by(|one, next| one < next), "{fences:?}");
}

#[test]
fn a_store_opened_and_closed_many_times_stays_as_small() {
    let mut world = World::on_disk(|options| options);
    assert!(world.store.record_once(op("k")).wait().unwrap());
    world.reopen();
    eventually("a spare is there", || world.store.stats().generations == 2);
    let files = world.files();
    for _ in 0..10 {
        world.reopen();
        assert!(!world.store.record_once(op("k")).wait().unwrap());
    }
    assert_eq!(world.files(), files);
}

#[test]
fn the_last_handle_to_go_takes_unwaited_writes_to_the_disk() {
    let relaxed = Durability::Relaxed { within: HOUR };
    for durability in [Durability::Synced, Durability::Strict, relaxed] {
        let directory = tempfile::tempdir().unwrap();
        let open = || Options::new().durability(durability).open(directory.path()).unwrap();
        let key = |number: u32| number.to_string();
        let store = open();
        let clone = store.clone();
        let kept: Vec<_> = (0..50).map(|number| store.record_once(op(&key(number)))).collect();
        drop(store);
        (50..100).map(|number| clone.record_once(op(&key(number)))).for_each(drop);
        drop(clone);
        for call in kept {
            assert!(call.wait().unwrap(), "what was accepted is answered");
        }
        let store = open();
        for number in 0..100 {
            let is_first = store.record_once(op(&key(number))).wait().unwrap();
            assert!(!is_first, "{number} is lost, {durability:?}");
        }
    }
}

#[test]
fn another_clone_keeps_the_store_open() {
    let world = World::on_disk(|options| options);
    let clone = world.store.clone();
    drop(clone);
    assert!(world.store.record_once(op("k")).wait().unwrap());
}

#[test]
fn closing_twice_is_closing_once() {
    with_store(|world| {
        world.wait(world.store.close()).unwrap();
        world.wait(world.store.close()).unwrap();
    });
}

#[test]
fn a_closed_store_refuses_every_write_for_all_of_its_clones() {
    with_store(|world| {
        let clone = world.store.clone();
        assert!(world.wait(world.store.record_once(op("done"))).unwrap());
        let token = world.claim(op("k")).new().detach();
        world.wait(world.store.close()).unwrap();
        assert_eq!(world.refusal(clone.claim(op("new"))), ErrorKind::Closed);
        assert_eq!(world.refusal(clone.claim(op("done"))), ErrorKind::Closed);
        assert_eq!(world.refusal(clone.claim_or_wait(op("new"), HOUR)), ErrorKind::Closed);
        assert_eq!(world.refusal(clone.claim_many([op("new")])), ErrorKind::Closed);
        assert_eq!(world.refusal(clone.record_once(op("new"))), ErrorKind::Closed);
        assert_eq!(world.refusal(clone.forget("acme", "done")), ErrorKind::Closed);
        assert_eq!(world.refusal(clone.forget_forced("acme", "done")), ErrorKind::Closed);
        assert_eq!(world.refusal(clone.forget_project("acme")), ErrorKind::Closed);
        assert_eq!(world.refusal(clone.attach(token)), ErrorKind::Closed);
    });
}

#[test]
fn a_closed_store_refuses_to_look_up_what_it_has() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        world.wait(world.store.close()).unwrap();
        assert_eq!(world.refusal(world.store.lookup("acme", "k")), ErrorKind::Closed);
        let request = ticket.request_id();
        assert_eq!(world.refusal(world.store.lookup_request(request)), ErrorKind::Closed);
        assert_eq!(world.refusal(world.store.in_flight()), ErrorKind::Closed);
        let first = world.store.scan(Filter::new()).next().unwrap();
        assert_eq!(first.unwrap_err().kind(), ErrorKind::Closed);
    });
}

#[test]
fn a_closed_store_does_not_say_that_an_operation_is_absent() {
    with_store(|world| {
        let request = world.claim(op("k")).new().request_id();
        assert!(world.wait(world.store.forget("acme", "k")).unwrap());
        world.wait(world.store.close()).unwrap();
        assert_eq!(world.refusal(world.store.lookup("acme", "other")), ErrorKind::Closed);
        assert_eq!(world.refusal(world.store.lookup("acme", "k")), ErrorKind::Closed);
        assert_eq!(world.refusal(world.store.lookup_request(request)), ErrorKind::Closed);
    });
}

#[test]
fn a_closed_store_does_not_say_that_there_is_nothing_to_forget() {
    with_store(|world| {
        world.wait(world.store.close()).unwrap();
        assert_eq!(world.refusal(world.store.forget("acme", "k")), ErrorKind::Closed);
        assert_eq!(world.refusal(world.store.forget_forced("acme", "k")), ErrorKind::Closed);
        assert_eq!(world.refusal(world.store.forget_project("nobody")), ErrorKind::Closed);
    });
}

#[test]
fn a_closed_store_does_not_say_that_nothing_is_in_flight() {
    with_store(|world| {
        world.wait(world.store.close()).unwrap();
        assert_eq!(world.refusal(world.store.in_flight()), ErrorKind::Closed);
    });
}

#[test]
fn a_closed_store_does_not_scan_as_an_empty_one() {
    with_store(|world| {
        world.wait(world.store.close()).unwrap();
        let first = world.store.scan(Filter::new()).next();
        let error = first.expect("an error").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
    });
}

#[test]
fn a_store_that_is_over_lets_go_of_its_directory() {
    let directory: Arc<dyn Directory> = Arc::new(FaultyDirectory::default());
    let store = Options::new().open_in(Arc::clone(&directory)).unwrap();
    assert!(store.record_once(op("k")).wait().unwrap());
    drop(store);
    eventually("nobody else has it", || Arc::strong_count(&directory) == 1);
}

#[test]
fn a_ticket_that_outlives_its_store_is_refused_and_does_no_harm() {
    with_store(|world| {
        type Call = fn(justonce::Ticket) -> Pending<()>;
        let calls: [(&str, Call); 6] = [
            ("complete", |ticket| ticket.complete("done")),
            ("fail", |ticket| ticket.fail("broken")),
            ("release", |ticket| ticket.release("busy")),
            ("renew", |ticket| ticket.renew(HOUR)),
            ("mark_dispatched", |ticket| ticket.mark_dispatched()),
            ("checkpoint", |ticket| ticket.checkpoint("note")),
        ];
        let tickets = calls.map(|(key, call)| (call, world.claim(op(key)).new()));
        let flight = world.claim(op("complete")).in_flight();
        let idle = world.claim(op("idle")).new();
        world.wait(world.store.close()).unwrap();
        for (call, ticket) in tickets {
            assert_eq!(world.refusal(call(ticket)), ErrorKind::Closed);
        }
        assert_eq!(flight.wait(HOUR).unwrap_err().kind(), ErrorKind::Closed);
        drop(idle);
    });
}

#[test]
fn a_ticket_of_an_earlier_run_does_not_touch_the_next() {
    with_store(|world| {
        let old = world.claim(op("k")).new();
        if world.reopen() {
            let (owner, _) = world.claim(op("k")).resumed();
            drop(old);
            assert_eq!(world.claim(op("k")).in_flight().request_id(), owner.request_id());
            world.wait(owner.complete("done")).unwrap();
        }
    });
}

#[test]
fn a_ticket_may_be_all_that_is_left_of_a_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let ticket = store.claim(Operation::new("acme", "k")).wait().unwrap().new();
    drop(store);
    assert_eq!(ticket.complete("done").wait().unwrap_err().kind(), ErrorKind::Closed);
    let store = Store::open(directory.path()).unwrap();
    let (_ticket, prior) = store.claim(Operation::new("acme", "k")).wait().unwrap().resumed();
    assert_eq!(prior.why(), Why::Restart);
}
