//! The contract's table, cell by cell, and the calls that move an operation through it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::unchecked_time_subtraction, reason = "a test")]

mod common;

use std::time::Duration;

use common::*;
use justonce::{
    Claim, EntryState, ErrorKind, Filter, OnLapsed, Operation, Reply, Ticket, Why, WindowFrom,
};

const MILLI: Duration = Duration::from_millis(1);
const LEASE: Duration = Duration::from_mins(10);

const LIVE: [EntryState; 5] = [
    EntryState::InFlight,
    EntryState::Lapsed,
    EntryState::Released,
    EntryState::Completed,
    EntryState::Failed,
];

/// The key of the operation that is brought into a state.
fn key_of(state: EntryState) -> String {
    format!("{state:?}")
}

/// Brings an absent operation into a state, and hands out the ticket where it keeps an owner.
#[track_caller]
fn bring(world: &World, operation: Operation, state: EntryState) -> Option<Ticket> {
    let ticket = world.claim(operation).new();
    match state {
        EntryState::InFlight => return Some(ticket),
        EntryState::Lapsed => drop(ticket),
        EntryState::Released => world.wait(ticket.release("not now")).unwrap(),
        EntryState::Completed => world.wait(ticket.complete("done")).unwrap(),
        EntryState::Failed => world.wait(ticket.fail("broken")).unwrap(),
        other => panic!("no way to {other:?}"),
    }
    None
}

/// Brings one operation into each live state.
fn bring_all(world: &World, tell: impl Fn(Operation) -> Operation) -> Vec<Ticket> {
    LIVE.iter().filter_map(|&state| bring(world, tell(op(&key_of(state))), state)).collect()
}

/// Two tickets of one owner, as they come about where a token is attached twice.
#[track_caller]
fn twins(world: &World, operation: Operation) -> (Ticket, Ticket) {
    let token = world.claim(operation).new().detach();
    let attach = || world.wait(world.store.attach(&token)).unwrap();
    (attach(), attach())
}

/// Lets someone else take an operation over, and hands out the tickets before and after.
#[track_caller]
fn taken_over(world: &World, key: &str) -> (Ticket, Ticket) {
    let before = world.claim(op(key)).new();
    world.clock.advance(LEASE);
    let (after, _) = world.claim(op(key)).resumed();
    (before, after)
}

// What `claim` answers.

#[test]
fn a_new_operation_is_the_callers() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        assert_eq!(ticket.attempt(), 1, "{}", world.name);
        let flight = world.claim(op("k")).in_flight();
        assert_eq!(flight.request_id(), ticket.request_id());
        world.wait(ticket.complete("done")).unwrap();
        let reply = world.claim(op("k")).completed();
        assert_eq!(reply.body(), b"done");
    });
}

#[test]
fn an_absent_operation_is_new_whatever_it_was_before() {
    with_store(|world| {
        world.wait(world.claim(op("k").fingerprint("a")).new().complete("done")).unwrap();
        world.wait(world.store.forget("acme", "k")).unwrap();
        world.clock.advance(MILLI);
        let ticket = world.claim(op("k").fingerprint("b")).new();
        assert_eq!(ticket.attempt(), 1, "forgotten");
        drop(ticket);
        world.clock.advance(DAY);
        let ticket = world.claim(op("k").fingerprint("c")).new();
        assert_eq!(ticket.attempt(), 1, "expired");
    });
}

#[test]
fn an_operation_in_flight_is_shown_to_its_duplicates() {
    with_store(|world| {
        let ticket = world.claim(op("k").fingerprint("body")).new();
        let since = world.lookup("k").unwrap().changed_at();
        world.clock.advance(MINUTE);
        for duplicate in [op("k"), op("k").fingerprint("body")] {
            let flight = world.claim(duplicate).in_flight();
            assert_eq!(flight.request_id(), ticket.request_id());
            assert_eq!(flight.attempt(), 1);
            assert_eq!(flight.since(), since);
            assert_eq!(flight.retry_after(), LEASE - MINUTE);
        }
    });
}

#[test]
fn the_retry_hint_is_never_zero_and_never_over_the_lease() {
    with_store(|world| {
        let _ticket = world.claim(op("k")).new();
        assert_eq!(world.claim(op("k")).in_flight().retry_after(), LEASE);
        world.clock.advance(LEASE - MILLI);
        assert_eq!(world.claim(op("k")).in_flight().retry_after(), MILLI);
        world.clock.advance(MILLI);
        let _ = world.claim(op("k")).resumed();
    });
}

#[test]
fn an_operation_whose_lease_is_over_is_resumed_under_the_same_request_id() {
    with_store(|world| {
        for (key, duplicate) in [("a", op("a")), ("b", op("b").fingerprint("body"))] {
            let first = world.claim(op(key).fingerprint("body")).new();
            world.clock.advance(LEASE);
            let (second, prior) = world.claim(duplicate).resumed();
            assert_eq!(second.request_id(), first.request_id());
            assert_eq!(second.attempt(), 2);
            assert!(second.fence() > first.fence());
            assert_eq!(prior.why(), Why::Lease);
            assert_eq!(prior.attempt(), 1);
            assert_eq!(prior.request_id(), first.request_id());
        }
    });
}

#[test]
fn an_operation_whose_ticket_is_dropped_is_resumed_at_once() {
    with_store(|world| {
        for (key, duplicate) in [("a", op("a")), ("b", op("b").fingerprint("body"))] {
            let ticket = world.claim(op(key).fingerprint("body")).new();
            let first = ticket.request_id();
            drop(ticket);
            let (second, prior) = world.claim(duplicate).resumed();
            assert_eq!((second.request_id(), second.attempt()), (first, 2));
            assert_eq!(prior.why(), Why::Dropped);
            assert_eq!(prior.reason(), None);
        }
    });
}

#[test]
fn a_released_operation_is_resumed_with_the_reason() {
    with_store(|world| {
        for (key, duplicate) in [("a", op("a")), ("b", op("b").fingerprint("body"))] {
            let ticket = world.claim(op(key).fingerprint("body")).new();
            let first = ticket.request_id();
            world.wait(ticket.release("the provider is busy")).unwrap();
            let (second, prior) = world.claim(duplicate).resumed();
            assert_eq!((second.request_id(), second.attempt()), (first, 2));
            assert_eq!(prior.why(), Why::Released);
            assert_eq!(prior.reason(), Some("the provider is busy"));
        }
    });
}

#[test]
fn a_completed_operation_answers_its_reply() {
    with_store(|world| {
        let ticket = world.claim(op("k").fingerprint("body")).new();
        let request = ticket.request_id();
        world.wait(ticket.complete(Reply::new("done").content("text/plain"))).unwrap();
        for duplicate in [op("k"), op("k").fingerprint("body")] {
            let reply = world.claim(duplicate).completed();
            assert_eq!(reply.body(), b"done");
            assert_eq!(reply.content_tag(), Some("text/plain"));
            assert_eq!(reply.request_id(), Some(request));
            assert_eq!(reply.attempt(), Some(1));
            assert_eq!(reply.attempts_exhausted(), None);
        }
    });
}

#[test]
fn a_failed_operation_answers_its_error_reply() {
    with_store(|world| {
        let ticket = world.claim(op("k").fingerprint("body")).new();
        let request = ticket.request_id();
        world.wait(ticket.fail("no such model")).unwrap();
        for duplicate in [op("k"), op("k").fingerprint("body")] {
            let reply = world.claim(duplicate).failed();
            assert_eq!(reply.body(), b"no such model");
            assert_eq!(reply.request_id(), Some(request));
            assert_eq!(reply.attempts_exhausted(), None);
        }
    });
}

#[test]
fn another_fingerprint_is_a_mismatch_in_every_live_state() {
    with_store(|world| {
        let _tickets = bring_all(world, |operation| operation.fingerprint("body"));
        for state in LIVE {
            let key = key_of(state);
            let before = world.lookup(&key).unwrap();
            let other = op(&key).fingerprint("other").on_lapsed(OnLapsed::Report).max_attempts(1);
            let seen = world.claim(other).mismatch();
            assert_eq!(seen.state(), state);
            assert_eq!(seen.request_id(), before.request_id());
            let after = world.lookup(&key).unwrap();
            assert_eq!((after.state(), after.fence()), (state, before.fence()));
        }
    });
}

#[test]
fn a_fingerprint_is_not_compared_where_the_first_claim_named_none() {
    with_store(|world| {
        let _tickets = bring_all(world, |operation| operation);
        for state in LIVE {
            let claim = world.claim(op(&key_of(state)).fingerprint("body"));
            assert!(!matches!(claim, Claim::Mismatch(_)), "{state:?}: {claim:?}");
        }
    });
}

#[test]
fn a_lapsed_operation_is_reported_where_that_is_asked_and_nothing_is_written() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        world.wait(ticket.mark_dispatched()).unwrap();
        world.wait(ticket.checkpoint("provider id 7")).unwrap();
        let (request, fence) = (ticket.request_id(), ticket.fence());
        drop(ticket);
        let before = world.lookup("k").unwrap();
        world.clock.advance(MINUTE);
        for _ in 0..2 {
            let prior = world.claim(op("k").on_lapsed(OnLapsed::Report)).lapsed();
            assert_eq!((prior.request_id(), prior.attempt()), (request, 1));
            assert_eq!(prior.why(), Why::Dropped);
            assert!(prior.dispatched());
            assert_eq!(prior.checkpoint(), Some(&b"provider id 7"[..]));
        }
        let after = world.lookup("k").unwrap();
        assert_eq!((after.state(), after.fence()), (EntryState::Lapsed, fence));
        assert_eq!(after.changed_at(), before.changed_at());
    });
}

#[test]
fn asking_for_a_report_changes_nothing_unless_the_operation_is_lapsed() {
    with_store(|world| {
        let report = |key: &str| op(key).on_lapsed(OnLapsed::Report);
        let _tickets = bring_all(world, |operation| operation);
        let _new = world.claim(report("fresh")).new();
        let _flight = world.claim(report("InFlight")).in_flight();
        let _resumed = world.claim(report("Released")).resumed();
        let _reply = world.claim(report("Completed")).completed();
        let _reply = world.claim(report("Failed")).failed();
    });
}

#[test]
fn a_claim_past_the_last_attempt_fails_the_operation() {
    with_store(|world| {
        let limited = || op("k").max_attempts(2);
        let first = world.claim(limited()).new();
        let request = first.request_id();
        drop(first);
        let (second, _) = world.claim(limited()).resumed();
        world.wait(second.release("busy")).unwrap();
        for _ in 0..2 {
            let reply = world.claim(limited()).failed();
            assert_eq!(reply.attempts_exhausted(), Some(2));
            assert_eq!(reply.body(), b"");
            assert_eq!(reply.request_id(), Some(request));
        }
        let entry = world.lookup("k").unwrap();
        assert_eq!(entry.state(), EntryState::Failed);
        assert_eq!(entry.reply().unwrap().attempts_exhausted(), Some(2));
    });
}

#[test]
fn a_late_reply_is_refused_once_the_attempts_are_exhausted() {
    with_store(|world| {
        let ticket = world.claim(op("k").max_attempts(1)).new();
        world.clock.advance(LEASE);
        let _ = world.claim(op("k").max_attempts(1)).failed();
        assert_eq!(world.refusal(ticket.complete("late")), ErrorKind::LeaseLost);
        assert_eq!(world.claim(op("k")).failed().attempts_exhausted(), Some(1));
    });
}

#[test]
fn an_operation_may_have_as_many_attempts_as_it_takes() {
    with_store(|world| {
        let mut ticket = world.claim(op("k")).new();
        let request = ticket.request_id();
        for attempt in 2..12 {
            let fence = ticket.fence();
            drop(ticket);
            (ticket, _) = world.claim(op("k")).resumed();
            assert_eq!((ticket.request_id(), ticket.attempt()), (request, attempt));
            assert!(ticket.fence() > fence);
        }
    });
}

#[test]
fn fences_grow_over_all_operations() {
    with_store(|world| {
        let mut fences = Vec::new();
        for key in ["a", "b", "a", "c", "b", "a"] {
            match world.claim(op(key)) {
                Claim::New(ticket) | Claim::Resumed(ticket, _) => fences.push(ticket.fence()),
                other => panic!("no ticket: {other:?}"),
            }
        }
        assert!(fences.is_sorted_by(|one, next| one < next), "{fences:?}");
    });
}

#[test]
fn a_new_life_has_a_new_request_id_even_within_the_same_millisecond() {
    with_store(|world| {
        let mut seen = Vec::new();
        for _ in 0..4 {
            let ticket = world.claim(op("k")).new();
            seen.push(ticket.request_id());
            world.wait(ticket.complete("done")).unwrap();
            assert!(world.wait(world.store.forget("acme", "k")).unwrap());
        }
        world.clock.advance(MINUTE);
        seen.push(world.claim(op("k")).new().request_id());
        assert!(seen.is_sorted_by(|one, next| one < next), "{seen:?}");
    });
}

#[test]
fn a_claim_dropped_before_its_answer_was_seen_is_given_back() {
    with_store(|world| {
        drop(world.store.claim(op("k")));
        let (_ticket, prior) = world.claim(op("k")).resumed();
        assert_eq!(prior.why(), Why::Released);
    });
}

#[test]
fn many_are_claimed_in_order_and_a_repeat_sees_the_earlier_in_flight() {
    with_store(|world| {
        let _tickets = bring_all(world, |operation| operation.fingerprint("body"));
        let keys = ["a", "Completed", "b", "a", "Failed", "Lapsed", "Lapsed", "InFlight"];
        let mut operations: Vec<_> = keys.map(op).into();
        operations.push(op("Released").fingerprint("other"));
        let claims = world.wait(world.store.claim_many(operations)).unwrap();
        let Ok([a, done, b, again, failed, lapsed, lapsed_again, flying, other]) =
            <[Claim; 9]>::try_from(claims)
        else {
            panic!("not one answer for each")
        };
        let (a, b) = (a.new(), b.new());
        assert_eq!(done.completed().body(), b"done");
        assert_eq!(again.in_flight().request_id(), a.request_id());
        assert!(b.fence() > a.fence());
        assert_eq!(failed.failed().body(), b"broken");
        let (resumed, _) = lapsed.resumed();
        assert_eq!(lapsed_again.in_flight().request_id(), resumed.request_id());
        let _ = flying.in_flight();
        assert_eq!(other.mismatch().state(), EntryState::Released);
    });
}

#[test]
fn claiming_none_answers_none() {
    with_store(|world| {
        assert!(world.wait(world.store.claim_many([])).unwrap().is_empty());
    });
}

// The window.

#[test]
fn a_window_counts_from_the_last_change() {
    with_store(|world| {
        let ticket = world.claim(op("k").window(HOUR)).new();
        world.clock.advance(5 * MINUTE);
        world.wait(ticket.complete("done")).unwrap();
        world.clock.advance(HOUR - MILLI);
        let _reply = world.claim(op("k")).completed();
        world.clock.advance(MILLI);
        let _ticket = world.claim(op("k")).new();
    });
}

#[test]
fn a_window_counts_from_the_first_claim_where_that_is_asked() {
    with_store(|world| {
        let operation = || op("k").window(HOUR).window_from(WindowFrom::FirstClaim);
        let ticket = world.claim(operation()).new();
        world.clock.advance(5 * MINUTE);
        drop(ticket);
        let (ticket, _) = world.claim(operation()).resumed();
        world.clock.advance(5 * MINUTE);
        world.wait(ticket.complete("done")).unwrap();
        world.clock.advance(50 * MINUTE - MILLI);
        let _reply = world.claim(op("k")).completed();
        world.clock.advance(MILLI);
        let _ticket = world.claim(op("k")).new();
    });
}

#[test]
fn the_stores_window_and_its_beginning_hold_where_an_operation_says_nothing() {
    let options = |options: justonce::Options| {
        options.window(HOUR).window_from(WindowFrom::FirstClaim).lease(MINUTE)
    };
    with_store_of(options, |world| {
        let ticket = world.claim(op("k")).new();
        assert_eq!(world.claim(op("k")).in_flight().retry_after(), MINUTE);
        world.clock.advance(MINUTE / 2);
        world.wait(ticket.complete("done")).unwrap();
        world.clock.advance(HOUR - MINUTE / 2 - MILLI);
        let _reply = world.claim(op("k")).completed();
        world.clock.advance(MILLI);
        let _ticket = world.claim(op("k")).new();
    });
}

#[test]
fn an_operation_in_flight_is_never_forgotten_while_its_lease_runs() {
    with_store(|world| {
        for (key, from) in [("a", WindowFrom::LastChange), ("b", WindowFrom::FirstClaim)] {
            let operation = op(key).window(MINUTE).lease(HOUR).window_from(from);
            let ticket = world.claim(operation).new();
            world.clock.advance(HOUR - MILLI);
            let flight = world.claim(op(key)).in_flight();
            assert_eq!(flight.request_id(), ticket.request_id());
            world.clock.advance(MILLI);
            assert!(world.lookup(key).is_none(), "window and lease are over");
        }
    });
}

#[test]
fn a_record_without_an_owner_is_forgotten_a_window_after_its_last_change() {
    with_store(|world| {
        let _tickets = bring_all(world, |operation| operation.window(HOUR).lease(MINUTE));
        world.clock.advance(HOUR - MILLI);
        for state in LIVE {
            assert!(world.lookup(&key_of(state)).is_some(), "{state:?} is forgotten too early");
        }
        world.clock.advance(MILLI);
        for state in LIVE {
            let ticket = world.claim(op(&key_of(state))).new();
            assert_eq!(ticket.attempt(), 1, "{state:?} leaves nothing behind");
        }
    });
}

#[test]
fn a_duplicate_never_extends_the_window() {
    with_store(|world| {
        let _tickets = bring_all(world, |operation| operation.window(HOUR).lease(HOUR));
        let expiries = || LIVE.map(|state| world.lookup(&key_of(state)).unwrap().expires_at());
        let before = expiries();
        world.clock.advance(50 * MINUTE);
        for state in LIVE {
            let duplicate = op(&key_of(state)).window(DAY).on_lapsed(OnLapsed::Report);
            if state != EntryState::Released {
                drop(world.claim(duplicate));
            }
            let other = op(&key_of(state)).window(DAY);
            assert!(world.wait(world.store.lookup("acme", key_of(state))).unwrap().is_some());
            if !matches!(state, EntryState::Lapsed | EntryState::Released) {
                assert!(!world.wait(world.store.record_once(other)).unwrap());
            }
        }
        assert_eq!(expiries(), before);
    });
}

#[test]
fn a_reply_may_have_a_retention_of_its_own() {
    with_store(|world| {
        let claim = |key: &str| world.claim(op(key).window(HOUR)).new();
        let [long, short, failed] = ["long", "short", "failed"].map(claim);
        world.wait(long.complete(Reply::new("a").retention(DAY))).unwrap();
        world.wait(short.complete(Reply::new("b").retention(MINUTE))).unwrap();
        world.wait(failed.fail(Reply::new("c").retention(MINUTE))).unwrap();
        world.clock.advance(MINUTE - MILLI);
        assert_eq!(world.claim(op("short")).completed().body(), b"b");
        assert_eq!(world.claim(op("failed")).failed().body(), b"c");
        world.clock.advance(MILLI);
        let _tickets = [world.claim(op("short")).new(), world.claim(op("failed")).new()];
        world.clock.advance(DAY - MINUTE - MILLI);
        assert_eq!(world.claim(op("long")).completed().body(), b"a");
        world.clock.advance(MILLI);
        let _ticket = world.claim(op("long")).new();
    });
}

// What the owner does.

#[test]
fn a_late_reply_is_accepted_where_nobody_took_over() {
    with_store(|world| {
        let (done, failed) = (world.claim(op("done")).new(), world.claim(op("failed")).new());
        world.clock.advance(LEASE + HOUR);
        let prior = world.claim(op("done").on_lapsed(OnLapsed::Report)).lapsed();
        assert_eq!(prior.why(), Why::Lease);
        world.wait(done.complete("late")).unwrap();
        world.wait(failed.fail("late")).unwrap();
        assert_eq!(world.claim(op("done")).completed().body(), b"late");
        assert_eq!(world.claim(op("failed")).failed().body(), b"late");
    });
}

#[test]
fn whoever_was_taken_over_can_neither_write_nor_end_the_operation() {
    with_store(|world| {
        let (stale, _owner) = taken_over(world, "k");
        assert_eq!(world.refusal(stale.renew(HOUR)), ErrorKind::LeaseLost);
        assert_eq!(world.refusal(stale.mark_dispatched()), ErrorKind::LeaseLost);
        assert_eq!(world.refusal(stale.checkpoint("note")), ErrorKind::LeaseLost);
        drop(stale);
        let entry = world.lookup("k").unwrap();
        assert_eq!((entry.state(), entry.attempt()), (EntryState::InFlight, 2));
        assert!(!entry.dispatched());
        assert_eq!(entry.checkpoint(), None);
    });
}

#[test]
fn the_reply_of_whoever_was_taken_over_is_not_stored() {
    with_store(|world| {
        type End = fn(Ticket) -> justonce::Pending<()>;
        let ends: [(&str, End); 3] = [
            ("complete", |ticket| ticket.complete("stale")),
            ("fail", |ticket| ticket.fail("stale")),
            ("release", |ticket| ticket.release("stale")),
        ];
        for (key, end) in ends {
            let (stale, owner) = taken_over(world, key);
            assert_eq!(world.refusal(end(stale)), ErrorKind::LeaseLost, "{key}");
            assert_eq!(world.lookup(key).unwrap().fence(), owner.fence(), "{key}");
            world.wait(owner.complete("fresh")).unwrap();
            assert_eq!(world.claim(op(key)).completed().body(), b"fresh", "{key}");
        }
    });
}

#[test]
fn whoever_comes_after_the_reply_cannot_change_it() {
    with_store(|world| {
        let (stale, owner) = taken_over(world, "k");
        world.wait(owner.complete("first")).unwrap();
        assert_eq!(world.refusal(stale.complete("second")), ErrorKind::LeaseLost);
        assert_eq!(world.claim(op("k")).completed().body(), b"first");
    });
}

#[test]
fn completing_twice_succeeds_and_the_first_reply_stays() {
    with_store(|world| {
        let (one, other) = twins(world, op("k"));
        world.wait(one.complete("first")).unwrap();
        world.wait(other.complete("second")).unwrap();
        assert_eq!(world.claim(op("k")).completed().body(), b"first");
    });
}

#[test]
fn failing_twice_succeeds_and_the_first_reply_stays() {
    with_store(|world| {
        let (one, other) = twins(world, op("k"));
        world.wait(one.fail("first")).unwrap();
        world.wait(other.fail("second")).unwrap();
        assert_eq!(world.claim(op("k")).failed().body(), b"first");
    });
}

#[test]
fn one_end_does_not_replace_another() {
    with_store(|world| {
        let (one, other) = twins(world, op("completed"));
        world.wait(one.complete("done")).unwrap();
        assert_eq!(world.refusal(other.fail("broken")), ErrorKind::LeaseLost);
        assert_eq!(world.claim(op("completed")).completed().body(), b"done");

        let (one, other) = twins(world, op("failed"));
        world.wait(one.fail("broken")).unwrap();
        assert_eq!(world.refusal(other.complete("done")), ErrorKind::LeaseLost);
        assert_eq!(world.claim(op("failed")).failed().body(), b"broken");

        let (one, other) = twins(world, op("released"));
        world.wait(one.release("busy")).unwrap();
        assert_eq!(world.refusal(other.complete("done")), ErrorKind::LeaseLost);
        assert_eq!(world.lookup("released").unwrap().state(), EntryState::Released);
    });
}

#[test]
fn nothing_is_noted_after_the_end() {
    with_store(|world| {
        let (one, other) = twins(world, op("k"));
        world.wait(one.complete("done")).unwrap();
        assert_eq!(world.refusal(other.renew(HOUR)), ErrorKind::LeaseLost);
        assert_eq!(world.refusal(other.mark_dispatched()), ErrorKind::LeaseLost);
        assert_eq!(world.refusal(other.checkpoint("note")), ErrorKind::LeaseLost);
        drop(other);
        assert_eq!(world.claim(op("k")).completed().body(), b"done");
    });
}

#[test]
fn renewing_moves_the_end_of_the_lease() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        world.clock.advance(LEASE - MILLI);
        world.wait(ticket.renew(HOUR)).unwrap();
        world.clock.advance(HOUR - MILLI);
        let flight = world.claim(op("k")).in_flight();
        assert_eq!((flight.attempt(), flight.retry_after()), (1, MILLI));
        world.clock.advance(MILLI);
        let (_ticket, prior) = world.claim(op("k")).resumed();
        assert_eq!(prior.why(), Why::Lease);
    });
}

#[test]
fn a_late_renewal_brings_the_owner_back_where_nobody_took_over() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        world.clock.advance(LEASE + MINUTE);
        assert_eq!(world.lookup("k").unwrap().state(), EntryState::Lapsed);
        world.wait(ticket.renew(HOUR)).unwrap();
        assert_eq!(world.claim(op("k")).in_flight().request_id(), ticket.request_id());
    });
}

#[test]
fn notes_reach_every_attempt_that_follows_and_the_last_one_counts() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        world.wait(ticket.checkpoint("one")).unwrap();
        drop(ticket);
        let (ticket, prior) = world.claim(op("k")).resumed();
        assert_eq!((prior.dispatched(), prior.checkpoint()), (false, Some(&b"one"[..])));
        world.wait(ticket.mark_dispatched()).unwrap();
        world.wait(ticket.checkpoint("two")).unwrap();
        world.wait(ticket.checkpoint("three")).unwrap();
        world.wait(ticket.release("busy")).unwrap();
        let (ticket, prior) = world.claim(op("k")).resumed();
        assert_eq!((prior.dispatched(), prior.checkpoint()), (true, Some(&b"three"[..])));
        drop(ticket);
        let (_ticket, prior) = world.claim(op("k")).resumed();
        assert_eq!((prior.dispatched(), prior.checkpoint()), (true, Some(&b"three"[..])));
    });
}

#[test]
fn a_new_life_knows_nothing_of_the_notes_of_the_last() {
    with_store(|world| {
        let ticket = world.claim(op("k").label("old")).new();
        world.wait(ticket.mark_dispatched()).unwrap();
        world.wait(ticket.checkpoint("note")).unwrap();
        drop(ticket);
        world.clock.advance(DAY);
        drop(world.claim(op("k")).new());
        let (_ticket, prior) = world.claim(op("k")).resumed();
        assert_eq!((prior.dispatched(), prior.checkpoint()), (false, None));
        assert_eq!(world.lookup("k").unwrap().label(), None);
    });
}

#[test]
fn a_detached_ticket_lapses_by_its_lease_alone() {
    with_store(|world| {
        let _token = world.claim(op("k")).new().detach();
        world.clock.advance(LEASE - MILLI);
        let _flight = world.claim(op("k")).in_flight();
        world.clock.advance(MILLI);
        let (_ticket, prior) = world.claim(op("k")).resumed();
        assert_eq!(prior.why(), Why::Lease);
    });
}

#[test]
fn an_attached_ticket_is_the_one_that_was_detached() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        let (request, fence) = (ticket.request_id(), ticket.fence());
        let token = ticket.detach();
        let ticket = world.wait(world.store.attach(&token)).unwrap();
        assert_eq!((ticket.request_id(), ticket.fence(), ticket.attempt()), (request, fence, 1));
        drop(ticket);
        let (ticket, prior) = world.claim(op("k")).resumed();
        assert_eq!(prior.why(), Why::Dropped);
        world.wait(ticket.complete("done")).unwrap();
    });
}

#[test]
fn a_token_can_be_attached_late_where_nobody_took_over() {
    with_store(|world| {
        let token = world.claim(op("k")).new().detach();
        world.clock.advance(LEASE + MINUTE);
        let ticket = world.wait(world.store.attach(&token)).unwrap();
        world.wait(ticket.complete("late")).unwrap();
        assert_eq!(world.claim(op("k")).completed().body(), b"late");
    });
}

#[test]
fn an_old_token_is_refused() {
    with_store(|world| {
        let token_of = |key: &str| world.claim(op(key)).new().detach();
        let [taken, settled, forgotten] = ["taken", "settled", "forgotten"].map(token_of);
        let settler = world.wait(world.store.attach(&settled)).unwrap();
        world.wait(settler.complete("done")).unwrap();
        assert!(world.wait(world.store.forget_forced("acme", "forgotten")).unwrap());
        world.clock.advance(LEASE);
        let _owner = world.claim(op("taken")).resumed();
        assert_eq!(world.refusal(world.store.attach(&taken)), ErrorKind::LeaseLost);
        assert_eq!(world.refusal(world.store.attach(&settled)), ErrorKind::LeaseLost);
        assert_eq!(world.refusal(world.store.attach(&forgotten)), ErrorKind::Gone);
        world.clock.advance(2 * DAY);
        assert_eq!(world.refusal(world.store.attach(&taken)), ErrorKind::Gone);
    });
}

#[test]
fn a_ticket_of_a_record_that_is_over_is_gone() {
    with_store(|world| {
        let ticket = world.claim(op("k").window(HOUR)).new();
        world.clock.advance(HOUR);
        assert_eq!(world.refusal(ticket.renew(HOUR)), ErrorKind::Gone);
        assert_eq!(world.refusal(ticket.complete("late")), ErrorKind::Gone);
        let _ticket = world.claim(op("k")).new();
    });
}

// The other calls.

#[test]
fn an_event_is_recorded_once_in_a_window() {
    with_store(|world| {
        let record = |operation| world.wait(world.store.record_once(operation)).unwrap();
        assert!(record(op("k").window(HOUR)));
        assert!(!record(op("k").window(HOUR)));
        assert_eq!(world.claim(op("k")).completed().body(), b"");
        world.clock.advance(HOUR);
        assert!(record(op("k").window(HOUR)));
    });
}

#[test]
fn an_event_is_new_again_only_where_an_owner_was_lost_or_gave_it_back() {
    with_store(|world| {
        let _tickets = bring_all(world, |operation| operation.fingerprint("body"));
        for state in LIVE {
            let other = op(&key_of(state)).fingerprint("other");
            assert!(!world.wait(world.store.record_once(other)).unwrap(), "{state:?}, other");
            let same = op(&key_of(state)).fingerprint("body");
            let is_first = world.wait(world.store.record_once(same)).unwrap();
            let is_ownerless = matches!(state, EntryState::Lapsed | EntryState::Released);
            assert_eq!(is_first, is_ownerless, "{state:?}");
        }
        assert_eq!(world.claim(op("Lapsed")).completed().attempt(), Some(2));
    });
}

#[test]
fn a_look_up_shows_the_state_and_what_belongs_to_it() {
    with_store(|world| {
        let _tickets = bring_all(world, |operation| operation.label("a label"));
        assert!(world.lookup("absent").is_none());
        for state in LIVE {
            let entry = world.lookup(&key_of(state)).unwrap();
            assert_eq!(entry.state(), state);
            assert_eq!(entry.attempt(), 1);
            assert_eq!(entry.label(), Some("a label"));
            let body = entry.reply().map(|reply| reply.body().to_vec());
            let why = entry.prior().map(|prior| prior.why());
            let expected = match state {
                EntryState::Completed => (Some(b"done".to_vec()), None),
                EntryState::Failed => (Some(b"broken".to_vec()), None),
                EntryState::Lapsed => (None, Some(Why::Dropped)),
                EntryState::Released => (None, Some(Why::Released)),
                _ => (None, None),
            };
            assert_eq!((body, why), expected, "{state:?}");
        }
    });
}

#[test]
fn a_look_up_shows_the_times() {
    with_store(|world| {
        let start = world.clock.wall();
        let ticket = world.claim(op("k").window(DAY)).new();
        world.clock.advance(MINUTE);
        world.wait(ticket.renew(HOUR)).unwrap();
        let entry = world.lookup("k").unwrap();
        assert_eq!(entry.claimed_at(), start);
        assert_eq!(entry.changed_at(), start + MINUTE);
        assert_eq!(entry.lease_until(), Some(start + MINUTE + HOUR));
        assert_eq!(entry.expires_at(), start + MINUTE + DAY);
        world.wait(ticket.complete("done")).unwrap();
        assert_eq!(world.lookup("k").unwrap().lease_until(), None);
    });
}

#[test]
fn a_request_is_found_by_its_id_for_the_life_of_its_record() {
    with_store(|world| {
        let find = |id| world.wait(world.store.lookup_request(id)).unwrap();
        let ticket = world.claim(op("k")).new();
        let old = ticket.request_id();
        assert_eq!(find(old).unwrap().state(), EntryState::InFlight);
        world.wait(ticket.complete("done")).unwrap();
        let entry = find(old.to_string().parse().unwrap()).unwrap();
        assert_eq!(entry.reply().unwrap().body(), b"done");
        assert!(world.wait(world.store.forget("acme", "k")).unwrap());
        assert!(find(old).is_none(), "forgotten");
        let new = world.claim(op("k")).new().request_id();
        assert!(find(old).is_none(), "of an earlier life");
        assert_eq!(find(new).unwrap().request_id(), new);
    });
}

#[test]
fn an_entry_knows_whose_it_is() {
    with_store(|world| {
        let _ticket = world.claim(op("k")).new();
        let entry = world.lookup("k").unwrap();
        assert!(entry.is_of(&world.store, "acme"));
        assert!(!entry.is_of(&world.store, "acm"));
        assert!(world.wait(world.store.lookup("acm", "ek")).unwrap().is_none());
    });
}

#[test]
fn what_has_no_live_owner_can_be_forgotten() {
    with_store(|world| {
        let _tickets = bring_all(world, |operation| operation);
        for state in LIVE.into_iter().filter(|&state| state != EntryState::InFlight) {
            let key = key_of(state);
            let before = world.lookup(&key).unwrap();
            assert!(world.wait(world.store.forget("acme", &key)).unwrap(), "{state:?}");
            assert!(world.lookup(&key).is_none(), "{state:?}");
            assert!(!world.wait(world.store.forget("acme", &key)).unwrap(), "{state:?}, again");
            let ticket = world.claim(op(&key)).new();
            assert_eq!(ticket.attempt(), 1, "{state:?}");
            assert_ne!(ticket.request_id(), before.request_id(), "{state:?}");
            assert!(ticket.fence() > before.fence(), "{state:?}");
        }
    });
}

#[test]
fn what_is_in_flight_is_not_forgotten_unless_forced() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        assert_eq!(world.refusal(world.store.forget("acme", "k")), ErrorKind::InFlight);
        assert_eq!(world.claim(op("k")).in_flight().request_id(), ticket.request_id());
        assert!(world.wait(world.store.forget_forced("acme", "k")).unwrap());
        assert!(world.lookup("k").is_none());
        assert_eq!(world.refusal(ticket.renew(HOUR)), ErrorKind::Gone);
        let owner = world.claim(op("k")).new();
        assert_eq!(world.refusal(ticket.complete("killed")), ErrorKind::LeaseLost);
        world.wait(owner.complete("fresh")).unwrap();
        assert_eq!(world.claim(op("k")).completed().body(), b"fresh");
    });
}

#[test]
fn there_is_nothing_to_forget_of_an_absent_operation() {
    with_store(|world| {
        assert!(!world.wait(world.store.forget("acme", "k")).unwrap());
        assert!(!world.wait(world.store.forget_forced("acme", "k")).unwrap());
        drop(world.claim(op("k").window(HOUR)).new());
        world.clock.advance(HOUR);
        assert!(!world.wait(world.store.forget("acme", "k")).unwrap());
    });
}

#[test]
fn a_project_is_forgotten_but_for_what_is_in_flight() {
    with_store(|world| {
        let tickets = bring_all(world, |operation| operation);
        let other = || Operation::new("other", "k");
        assert!(world.wait(world.store.record_once(other())).unwrap());
        let purged = world.wait(world.store.forget_project("acme")).unwrap();
        assert_eq!((purged.forgotten, purged.in_flight), (4, 1));
        for state in LIVE {
            let is_left = world.lookup(&key_of(state)).is_some();
            assert_eq!(is_left, state == EntryState::InFlight, "{state:?}");
        }
        let _reply = world.claim(other()).completed();
        for ticket in tickets {
            world.wait(ticket.complete("done")).unwrap();
        }
        let purged = world.wait(world.store.forget_project("acme")).unwrap();
        assert_eq!((purged.forgotten, purged.in_flight), (1, 0));
        assert_eq!(world.store.scan(Filter::new().project("acme")).count(), 0);
    });
}

#[test]
fn a_scan_shows_what_passes_its_filter() {
    with_store(|world| {
        let _tickets = bring_all(world, |operation| operation.window(HOUR));
        assert!(world.wait(world.store.record_once(Operation::new("other", "k"))).unwrap());
        let acme = || Filter::new().project("acme");
        let states = |filter| -> Vec<_> {
            world.store.scan(filter).map(|entry| entry.unwrap().state()).collect()
        };
        assert_eq!(states(acme()).len(), LIVE.len());
        for state in LIVE {
            assert_eq!(states(acme().state(state)), [state]);
        }
        assert_eq!(states(Filter::new().project("other")), [EntryState::Completed]);
        assert_eq!(states(Filter::new().project("nobody")), []);
        assert_eq!(states(Filter::new().state(EntryState::Failed)), [EntryState::Failed]);
        world.clock.advance(HOUR);
        assert_eq!(states(acme()), [], "what is over is not shown");
    });
}

#[test]
fn the_operations_without_a_reply_are_listed_and_each_can_be_resumed() {
    with_store(|world| {
        drop(bring_all(world, |operation| operation));
        let listed = || world.wait(world.store.in_flight()).unwrap();
        let states = || {
            let mut states: Vec<_> =
                listed().iter().map(|entry| format!("{:?}", entry.state())).collect();
            states.sort();
            states
        };
        // `Relaxed` shows them once they are on disk.
        eventually("three are listed", || states() == ["Lapsed", "Lapsed", "Released"]);
        for entry in listed() {
            let (ticket, _) = world.claim(entry.operation()).resumed();
            assert_eq!(ticket.request_id(), entry.request_id());
            world.wait(ticket.complete("done")).unwrap();
        }
        eventually("none is listed", || listed().is_empty());
    });
}

#[test]
fn what_is_in_flight_is_listed_as_such() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        let listed = || world.wait(world.store.in_flight()).unwrap();
        eventually("it is listed", || listed().len() == 1);
        let entry = listed().remove(0);
        assert_eq!(entry.state(), EntryState::InFlight);
        assert_eq!(entry.request_id(), ticket.request_id());
        assert_eq!(world.claim(entry.operation()).in_flight().request_id(), ticket.request_id());
    });
}

#[test]
fn raw_names_are_kept_where_that_is_asked_and_only_there() {
    let keep = |options: justonce::Options| options.keep_keys(true);
    with_store_of(keep, |world| {
        let name: (&[u8], &[u8]) = (b"acme \xff", b"\0key");
        drop(world.claim(Operation::new(name.0, name.1)));
        let (ticket, _) = world.claim(Operation::new(name.0, name.1)).resumed();
        world.wait(ticket.complete("done")).unwrap();
        let entry = world.wait(world.store.lookup(name.0, name.1)).unwrap().unwrap();
        assert_eq!((entry.project(), entry.key()), (Some(name.0), Some(name.1)));
    });
    with_store(|world| {
        let _ticket = world.claim(op("k")).new();
        let entry = world.lookup("k").unwrap();
        assert_eq!((entry.project(), entry.key()), (None, None));
    });
}

#[test]
fn a_label_stays_until_a_later_attempt_gives_another() {
    with_store(|world| {
        let label = || world.lookup("k").unwrap().label().map(str::to_owned);
        drop(world.claim(op("k").label("one")));
        assert_eq!(label().as_deref(), Some("one"));
        drop(world.claim(op("k")));
        assert_eq!(label().as_deref(), Some("one"));
        let (ticket, _) = world.claim(op("k").label("two")).resumed();
        world.wait(ticket.complete("done")).unwrap();
        assert_eq!(label().as_deref(), Some("two"));
    });
}

#[test]
fn the_counts_tell_how_claims_were_answered() {
    with_store(|world| {
        let _tickets = bring_all(world, |operation| operation.fingerprint("body"));
        let before = world.store.stats().claims;
        let claim = |operation| world.store.claim(operation).wait().unwrap();
        let report = op("Lapsed").on_lapsed(OnLapsed::Report);
        let _lapsed = claim(report).lapsed();
        let _mismatch = claim(op("Failed").fingerprint("other")).mismatch();
        let _new = claim(op("fresh")).new();
        let _resumed = [claim(op("Lapsed")).resumed(), claim(op("Released")).resumed()];
        for (key, times) in [("InFlight", 3), ("Completed", 4), ("Failed", 5)] {
            for _ in 0..times {
                drop(claim(op(key)));
            }
        }
        let after = world.store.stats().claims;
        let counted = [
            after.new - before.new,
            after.resumed - before.resumed,
            after.in_flight - before.in_flight,
            after.completed - before.completed,
            after.failed - before.failed,
            after.mismatch - before.mismatch,
            after.lapsed - before.lapsed,
        ];
        assert_eq!(counted, [1, 2, 3, 4, 5, 1, 1]);
    });
}

#[test]
fn the_figures_tell_how_many_operations_there_are_and_lack_a_reply() {
    with_store(|world| {
        let figures = || {
            let stats = world.store.stats();
            // A sealed file goes on counting what it was sealed with.
            let counted = if world.seals { 3..=6 } else { 3..=3 };
            (counted.contains(&stats.records_live), stats.unanswered)
        };
        let claim = |key: &str| world.store.claim(op(key)).wait().unwrap().new();
        let tickets: Vec<_> = ["a", "b", "c"].map(claim).into();
        eventually("three of three lack a reply", || figures() == (true, 3));
        for ticket in tickets {
            ticket.complete("done").wait().unwrap();
        }
        eventually("none of three lacks a reply", || figures() == (true, 0));
        assert_eq!(world.store.stats().waiters, 0);
        assert_eq!(world.store.stats().clock_skew, Duration::ZERO);
    });
}
