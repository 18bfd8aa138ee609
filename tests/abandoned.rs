//! Calls whose caller goes away: nothing gets stuck, and what was submitted still lands.

#![allow(clippy::allow_attributes, reason = "lints that fire in some helpers only")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use std::time::Duration;

use common::*;
use futures_lite::future::{block_on, poll_once};
use justonce::{Claim, EntryState, Error, Why};

/// The next claim of `key` takes over at once, as the second attempt, from one that was released.
#[track_caller]
fn was_given_back(world: &World, key: &str) {
    let (ticket, prior) = world.claim(op(key)).resumed();
    assert_eq!(prior.why(), Why::Released, "{}", world.name);
    assert_eq!(ticket.attempt(), 2, "{}", world.name);
}

/// What an answer that came before it could be abandoned was: seen, so its ticket was dropped.
#[track_caller]
fn was_seen_and_dropped(world: &World, key: &str, answer: Result<Claim, Error>) {
    drop(answer.unwrap().new());
    assert_eq!(world.claim(op(key)).resumed().1.why(), Why::Dropped, "{}", world.name);
}

#[test]
fn a_claim_nobody_waits_for_is_given_back() {
    with_store(|world| {
        drop(world.store.claim(op("k")));
        was_given_back(world, "k");
    });
}

#[test]
fn a_claim_or_wait_nobody_waits_for_is_given_back() {
    with_store(|world| {
        drop(world.store.claim_or_wait(op("k"), HOUR));
        was_given_back(world, "k");
    });
}

#[test]
fn many_claims_nobody_waits_for_are_given_back() {
    with_store(|world| {
        drop(world.store.claim_many([op("a"), op("b"), op("a")]));
        was_given_back(world, "a");
        was_given_back(world, "b");
    });
}

#[test]
fn a_claim_polled_once_and_dropped_is_given_back() {
    with_store(|world| {
        let mut claim = world.store.claim(op("k"));
        let polled = block_on(poll_once(&mut claim));
        drop(claim);
        match polled {
            None => was_given_back(world, "k"),
            Some(answer) => was_seen_and_dropped(world, "k", answer),
        }
    });
}

#[test]
fn a_claim_or_wait_polled_once_and_dropped_is_given_back() {
    with_store(|world| {
        let mut claim = world.store.claim_or_wait(op("k"), HOUR);
        let polled = block_on(poll_once(&mut claim));
        drop(claim);
        match polled {
            None => was_given_back(world, "k"),
            Some(answer) => was_seen_and_dropped(world, "k", answer),
        }
    });
}

#[test]
fn a_claim_that_was_not_there_in_time_and_is_dropped_is_given_back() {
    with_store(|world| {
        let mut claim = world.store.claim(op("k"));
        let waited = claim.wait_timeout(Duration::ZERO);
        drop(claim);
        match waited {
            None => was_given_back(world, "k"),
            Some(answer) => was_seen_and_dropped(world, "k", answer),
        }
    });
}

#[test]
fn a_take_over_nobody_waits_for_is_given_back() {
    with_store(|world| {
        drop(world.claim(op("k")).new());
        drop(world.store.claim(op("k")));
        let (ticket, prior) = world.claim(op("k")).resumed();
        assert_eq!(prior.why(), Why::Released, "{}", world.name);
        assert_eq!(ticket.attempt(), 3, "{}", world.name);
    });
}

#[test]
fn what_was_given_back_says_so() {
    with_store(|world| {
        drop(world.store.claim(op("k")));
        let entry = world.lookup("k").unwrap();
        assert_eq!(entry.state(), EntryState::Released, "{}", world.name);
        assert!(entry.prior().unwrap().reason().is_some(), "{}: no reason", world.name);
    });
}

#[test]
fn an_abandoned_duplicate_leaves_the_owner_alone() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        drop(world.store.claim(op("k")));
        drop(world.store.claim_or_wait(op("k"), HOUR));
        drop(world.store.claim_many([op("k")]));
        world.wait(ticket.complete("done")).unwrap();
        assert_eq!(world.claim(op("k")).completed().body(), b"done", "{}", world.name);
    });
}

#[test]
fn one_who_waits_takes_over_from_an_abandoned_claim() {
    with_store(|world| {
        let abandoned = world.store.claim(op("k"));
        let waiting = world.store.claim_or_wait(op("k"), HOUR);
        drop(abandoned);
        let (ticket, prior) = world.wait(waiting).unwrap().resumed();
        assert_eq!(prior.why(), Why::Released, "{}", world.name);
        world.wait(ticket.complete("done")).unwrap();
    });
}

#[test]
fn a_ticket_that_was_seen_and_dropped_is_not_taken_for_abandoned() {
    with_store(|world| {
        drop(world.claim(op("k")).new());
        assert_eq!(world.claim(op("k")).resumed().1.why(), Why::Dropped, "{}", world.name);
    });
}

#[test]
fn an_attach_nobody_waits_for_does_not_hold_the_operation() {
    with_store(|world| {
        let token = world.claim(op("k")).new().detach();
        drop(world.store.attach(&token));
        let (ticket, _) = world.claim(op("k")).resumed();
        assert_eq!(ticket.attempt(), 2, "{}", world.name);
    });
}

#[test]
fn a_reply_nobody_waits_for_lands() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        drop(ticket.complete("done"));
        assert_eq!(world.claim(op("k")).completed().body(), b"done", "{}", world.name);
        if world.reopen() {
            assert_eq!(world.claim(op("k")).completed().body(), b"done", "{}", world.name);
        }
    });
}

#[test]
fn an_error_reply_nobody_waits_for_lands() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        drop(ticket.fail("no such customer"));
        assert_eq!(world.claim(op("k")).failed().body(), b"no such customer", "{}", world.name);
    });
}

#[test]
fn a_release_nobody_waits_for_lands() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        drop(ticket.release("429"));
        assert_eq!(world.claim(op("k")).resumed().1.reason(), Some("429"), "{}", world.name);
    });
}

#[test]
fn notes_nobody_waits_for_land() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        drop(ticket.mark_dispatched());
        drop(ticket.checkpoint("msg_1"));
        drop(ticket);
        let (_ticket, prior) = world.claim(op("k")).resumed();
        assert!(prior.dispatched(), "{}", world.name);
        assert_eq!(prior.checkpoint(), Some(&b"msg_1"[..]), "{}", world.name);
    });
}

#[test]
fn a_wait_that_was_cut_short_can_go_on() {
    with_store(|world| {
        let mut claim = world.store.claim(op("k"));
        let ticket = loop {
            if let Some(answer) = claim.wait_timeout(Duration::ZERO) {
                break answer.unwrap().new();
            }
        };
        let mut completed = ticket.complete("done");
        while completed.wait_timeout(Duration::ZERO).is_none() {}
        assert_eq!(world.claim(op("k")).completed().body(), b"done", "{}", world.name);
    });
}

#[test]
fn a_wait_that_was_cut_short_can_go_on_in_a_task() {
    with_store(|world| {
        let mut claim = world.store.claim(op("k"));
        let ticket = match claim.wait_timeout(Duration::ZERO) {
            Some(answer) => answer.unwrap().new(),
            None => block_on(claim).unwrap().new(),
        };
        world.wait(ticket.complete("done")).unwrap();
    });
}

#[test]
fn a_claim_that_waits_for_another_can_be_cut_short_and_go_on() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        let mut waiting = world.store.claim_or_wait(op("k"), HOUR);
        for _ in 0..3 {
            let early = waiting.wait_timeout(Duration::from_millis(1));
            assert!(early.is_none(), "{}: {early:?}", world.name);
        }
        world.wait(ticket.complete("done")).unwrap();
        assert_eq!(waiting.wait().unwrap().completed().body(), b"done", "{}", world.name);
        assert_eq!(world.store.stats().waiters, 0, "{}", world.name);
    });
}

#[test]
fn a_call_that_is_leaked_is_committed() {
    with_store(|world| {
        std::mem::forget(world.store.record_once(op("k")));
        eventually("it is committed", || world.store.stats().queued_bytes == 0);
        assert_eq!(world.lookup("k").unwrap().state(), EntryState::Completed, "{}", world.name);
    });
}

#[test]
fn a_reply_that_is_leaked_reaches_one_who_waits() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        let flight = world.claim(op("k")).in_flight();
        std::mem::forget(ticket.complete("done"));
        let settled = block_on(flight.into_future()).unwrap();
        assert!(
            matches!(&settled, justonce::Settled::Completed(reply) if reply.body() == b"done"),
            "{}: {settled:?}",
            world.name
        );
    });
}

#[test]
fn a_claim_that_is_leaked_lapses_with_its_lease() {
    with_store(|world| {
        std::mem::forget(world.store.claim(op("k")));
        let _flight = world.claim(op("k")).in_flight();
        world.clock.advance(10 * MINUTE);
        assert_eq!(world.claim(op("k")).resumed().1.why(), Why::Lease, "{}", world.name);
    });
}

#[test]
fn many_calls_can_be_waited_for_in_reverse() {
    with_store(|world| {
        let mut claims: Vec<_> =
            (0..200).map(|number| world.store.claim(op(&format!("k{number}")))).collect();
        let mut tickets = Vec::new();
        while let Some(claim) = claims.pop() {
            tickets.push(claim.wait().unwrap().new());
        }
        let mut replies: Vec<_> =
            tickets.into_iter().map(|ticket| ticket.complete("done")).collect();
        while let Some(reply) = replies.pop() {
            reply.wait().unwrap();
        }
        assert_eq!(world.claim(op("k0")).completed().body(), b"done", "{}", world.name);
        assert_eq!(world.claim(op("k199")).completed().body(), b"done", "{}", world.name);
    });
}

#[test]
fn every_second_of_many_calls_can_be_abandoned() {
    with_store(|world| {
        let claims: Vec<_> =
            (0..64).map(|number| world.store.claim(op(&format!("k{number}")))).collect();
        let mut tickets = Vec::new();
        for (number, claim) in claims.into_iter().enumerate() {
            if number % 2 == 0 {
                tickets.push(claim.wait().unwrap().new());
            }
        }
        for number in 0..64 {
            let claim = world.claim(op(&format!("k{number}")));
            if number % 2 == 0 {
                let _flight = claim.in_flight();
            } else {
                assert_eq!(claim.resumed().1.why(), Why::Released, "{}", world.name);
            }
        }
    });
}

#[test]
fn what_was_abandoned_before_a_restart_is_given_back_after_it() {
    with_store(|world| {
        drop(world.store.claim(op("k")));
        if world.reopen() {
            was_given_back(world, "k");
        }
    });
}
