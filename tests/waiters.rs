//! Waiting for an operation: every way to wait, everything that ends a wait, and no wake-up lost.

#![allow(clippy::allow_attributes, reason = "lints that fire in some helpers only")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, LazyLock};
use std::time::Duration;

use common::*;
use futures_lite::future::{block_on, poll_once};
use justonce::{Claim, Error, ErrorKind, Flight, Settled, Ticket, Why};
use tokio::runtime::Runtime;

static TOKIO: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap()
});

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Thread,
    Task,
    TokioTask,
}

const WAYS: [Way; 3] = [Way::Thread, Way::Task, Way::TokioTask];

const LEASE: Duration = Duration::from_mins(10);

/// Runs `blocking` in a thread, or `task` on an executor, and sends what comes of it.
fn start<T: Send + 'static>(
    way: Way,
    to: &Sender<T>,
    blocking: impl FnOnce() -> T + Send + 'static,
    task: impl Future<Output = T> + Send + 'static,
) {
    let to = to.clone();
    // A receiver that is gone belongs to a test that has failed already.
    match way {
        Way::Thread => in_a_thread(move || drop(to.send(blocking()))),
        Way::Task => in_a_thread(move || drop(to.send(block_on(task)))),
        Way::TokioTask => drop(TOKIO.spawn(async move { drop(to.send(task.await)) })),
    }
}

fn in_a_thread(body: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().spawn(body).unwrap();
}

fn start_flight(way: Way, to: &Sender<Result<Settled, Error>>, flight: &Flight) {
    let (blocking, task) = (flight.clone(), flight.clone());
    start(way, to, move || blocking.wait(HOUR), async move { task.await });
}

/// Someone waits in each way for what `key` comes to; returns once all are parked.
fn flights(world: &World, key: &str) -> Receiver<Result<Settled, Error>> {
    let (to, told) = channel();
    for way in WAYS {
        start_flight(way, &to, &world.claim(op(key)).in_flight());
    }
    all_wait(world, WAYS.len());
    told
}

fn start_claim(way: Way, to: &Sender<Result<Claim, Error>>, world: &World, key: &str) {
    let (store, task) = (world.store.clone(), world.store.claim_or_wait(op(key), HOUR));
    let operation = op(key);
    match way {
        Way::Thread => {
            drop(task);
            start(way, to, move || store.claim_or_wait(operation, HOUR).wait(), async {
                unreachable!("run in a thread")
            });
        }
        Way::Task | Way::TokioTask => start(way, to, || unreachable!("run as a task"), task),
    }
}

/// Someone claims or waits in each way; returns once all are parked.
fn claims(world: &World, key: &str) -> Receiver<Result<Claim, Error>> {
    let (to, told) = channel();
    for way in WAYS {
        start_claim(way, &to, world, key);
    }
    all_wait(world, WAYS.len());
    told
}

#[track_caller]
fn all_wait(world: &World, count: usize) {
    eventually("all wait", || world.store.stats().waiters == count);
}

#[track_caller]
fn hear<T>(told: &Receiver<T>, count: usize) -> Vec<T> {
    (0..count)
        .map(|heard| match told.recv_timeout(Duration::from_secs(20)) {
            Ok(answer) => answer,
            Err(error) => panic!("{heard} of {count} woke, the others sleep on: {error}"),
        })
        .collect()
}

/// Each of those who wait for the operation is told what `is_meant` recognizes, and none is left.
fn settles(
    act: impl Fn(&mut World, Ticket) -> Option<Ticket>,
    is_meant: impl Fn(&Result<Settled, Error>) -> bool,
) {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        let told = flights(world, "k");
        let kept = act(world, ticket);
        for settled in hear(&told, WAYS.len()) {
            assert!(is_meant(&settled), "{}: {settled:?}", world.name);
        }
        assert_eq!(world.store.stats().waiters, 0, "{}", world.name);
        drop(kept);
    });
}

#[test]
fn a_wait_ends_with_the_reply_that_completes_the_operation() {
    settles(
        |world, ticket| {
            world.wait(ticket.complete("done")).unwrap();
            None
        },
        |settled| matches!(settled, Ok(Settled::Completed(reply)) if reply.body() == b"done"),
    );
}

#[test]
fn a_wait_ends_with_the_error_reply_that_fails_the_operation() {
    settles(
        |world, ticket| {
            world.wait(ticket.fail("no such customer")).unwrap();
            None
        },
        |settled| matches!(settled, Ok(Settled::Failed(reply)) if reply.body() == b"no such customer"),
    );
}

#[test]
fn a_wait_ends_when_the_owner_gives_the_operation_back() {
    settles(
        |world, ticket| {
            world.wait(ticket.release("429")).unwrap();
            None
        },
        |settled| matches!(settled, Ok(Settled::Released)),
    );
}

#[test]
fn a_wait_ends_when_the_ticket_is_dropped() {
    settles(|_, _| None, |settled| matches!(settled, Ok(Settled::Lapsed)));
}

#[test]
fn a_wait_ends_with_the_lease() {
    settles(
        |world, ticket| {
            world.clock.advance(LEASE);
            Some(ticket)
        },
        |settled| matches!(settled, Ok(Settled::Lapsed)),
    );
}

#[test]
fn a_wait_ends_when_the_operation_is_forgotten_by_force() {
    settles(
        |world, ticket| {
            assert!(world.wait(world.store.forget_forced("acme", "k")).unwrap());
            Some(ticket)
        },
        |settled| matches!(settled, Ok(Settled::Forgotten)),
    );
}

#[test]
fn a_wait_ends_when_the_store_is_closed() {
    settles(
        |world, ticket| {
            world.wait(world.store.close()).unwrap();
            Some(ticket)
        },
        |settled| matches!(settled, Err(error) if error.kind() == ErrorKind::Closed),
    );
}

#[test]
fn a_wait_ends_with_its_own_time() {
    with_store(|world| {
        let _ticket = world.claim(op("k")).new();
        let flight = world.claim(op("k")).in_flight();
        let (to, told) = channel();
        in_a_thread(move || drop(to.send(flight.wait(MINUTE))));
        all_wait(world, 1);
        world.clock.advance(MINUTE);
        let settled = hear(&told, 1).remove(0);
        assert!(matches!(settled, Ok(Settled::StillInFlight)), "{}: {settled:?}", world.name);
        assert_eq!(world.store.stats().waiters, 0, "{}", world.name);
    });
}

#[test]
fn a_wait_goes_on_until_its_own_time() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        let flight = world.claim(op("k")).in_flight();
        let (to, told) = channel();
        in_a_thread(move || drop(to.send(flight.wait(MINUTE))));
        all_wait(world, 1);
        world.clock.advance(MINUTE.checked_sub(Duration::from_millis(1)).unwrap());
        world.wait(ticket.complete("just in time")).unwrap();
        let settled = hear(&told, 1).remove(0);
        assert!(matches!(settled, Ok(Settled::Completed(_))), "{}: {settled:?}", world.name);
    });
}

#[test]
fn a_wait_for_no_time_does_not_wait() {
    with_store(|world| {
        let _ticket = world.claim(op("k")).new();
        let settled = world.claim(op("k")).in_flight().wait(Duration::ZERO).unwrap();
        assert!(matches!(settled, Settled::StillInFlight), "{}: {settled:?}", world.name);
        assert_eq!(world.store.stats().waiters, 0, "{}", world.name);
    });
}

#[test]
fn a_wait_for_what_is_settled_already_does_not_wait() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        let flight = world.claim(op("k")).in_flight();
        world.wait(ticket.complete("done")).unwrap();
        let settled = flight.wait(HOUR).unwrap();
        assert!(matches!(settled, Settled::Completed(_)), "{}: {settled:?}", world.name);
    });
}

#[test]
fn a_wait_that_is_dropped_leaves_nobody_waiting() {
    with_store(|world| {
        let _ticket = world.claim(op("k")).new();
        let mut waiting = world.claim(op("k")).in_flight().into_future();
        assert!(block_on(poll_once(&mut waiting)).is_none(), "{}: settled", world.name);
        assert_eq!(world.store.stats().waiters, 1, "{}", world.name);
        drop(waiting);
        assert_eq!(world.store.stats().waiters, 0, "{}", world.name);
    });
}

#[test]
fn a_claim_that_waits_and_is_dropped_leaves_nobody_waiting() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        let mut waiting = world.store.claim_or_wait(op("k"), HOUR);
        eventually("the claim waits", || {
            assert!(block_on(poll_once(&mut waiting)).is_none(), "{}: answered", world.name);
            world.store.stats().waiters == 1
        });
        drop(waiting);
        assert_eq!(world.store.stats().waiters, 0, "{}", world.name);
        world.wait(ticket.complete("done")).unwrap();
    });
}

#[test]
fn a_renewed_lease_ends_a_wait_later() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        let told = flights(world, "k");
        world.clock.advance(9 * MINUTE);
        world.wait(ticket.renew(LEASE)).unwrap();
        world.clock.advance(9 * MINUTE);
        world.wait(ticket.complete("slow")).unwrap();
        for settled in hear(&told, WAYS.len()) {
            assert!(matches!(settled, Ok(Settled::Completed(_))), "{}: {settled:?}", world.name);
        }
    });
}

#[test]
fn a_renewed_lease_ends_a_wait_at_its_new_end() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        let told = flights(world, "k");
        world.wait(ticket.renew(HOUR)).unwrap();
        world.clock.advance(LEASE);
        all_wait(world, WAYS.len());
        world.clock.advance(50 * MINUTE);
        for settled in hear(&told, WAYS.len()) {
            assert!(matches!(settled, Ok(Settled::Lapsed)), "{}: {settled:?}", world.name);
        }
    });
}

#[test]
fn a_shortened_lease_ends_a_wait_sooner() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        let told = flights(world, "k");
        world.wait(ticket.renew(MINUTE)).unwrap();
        world.clock.advance(MINUTE);
        for settled in hear(&told, WAYS.len()) {
            assert!(matches!(settled, Ok(Settled::Lapsed)), "{}: {settled:?}", world.name);
        }
    });
}

#[test]
fn all_who_claim_and_wait_get_the_reply() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        let request = ticket.request_id();
        let told = claims(world, "k");
        world.wait(ticket.complete("done")).unwrap();
        for claim in hear(&told, WAYS.len()) {
            let reply = claim.unwrap().completed();
            assert_eq!(reply.body(), b"done", "{}", world.name);
            assert_eq!(reply.request_id(), Some(request), "{}", world.name);
        }
        assert_eq!(world.store.stats().waiters, 0, "{}", world.name);
    });
}

#[test]
fn all_who_claim_and_wait_get_the_error_reply() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        let told = claims(world, "k");
        world.wait(ticket.fail("no such customer")).unwrap();
        for claim in hear(&told, WAYS.len()) {
            assert_eq!(claim.unwrap().failed().body(), b"no such customer", "{}", world.name);
        }
        assert_eq!(world.store.stats().waiters, 0, "{}", world.name);
    });
}

#[test]
fn all_who_claim_and_wait_hear_that_the_store_is_closed() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        let told = claims(world, "k");
        world.wait(world.store.close()).unwrap();
        for claim in hear(&told, WAYS.len()) {
            assert_eq!(claim.unwrap_err().kind(), ErrorKind::Closed, "{}", world.name);
        }
        assert_eq!(world.store.stats().waiters, 0, "{}", world.name);
        drop(ticket);
    });
}

#[test]
fn a_claim_that_waited_its_time_is_told_that_someone_is_at_it() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        let (to, told) = channel();
        for way in WAYS {
            let (one, other) = (world.store.clone(), world.store.clone());
            let call = move || one.claim_or_wait(op("k"), MINUTE).wait();
            start(way, &to, call, async move { other.claim_or_wait(op("k"), MINUTE).await });
        }
        all_wait(world, WAYS.len());
        world.clock.advance(MINUTE);
        for claim in hear(&told, WAYS.len()) {
            let flight = claim.unwrap().in_flight();
            assert_eq!(flight.request_id(), ticket.request_id(), "{}", world.name);
        }
        assert_eq!(world.store.stats().waiters, 0, "{}", world.name);
    });
}

#[test]
fn a_claim_that_waits_finds_a_forgotten_operation_new() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        let (to, told) = channel();
        start_claim(Way::Thread, &to, world, "k");
        all_wait(world, 1);
        assert!(world.wait(world.store.forget_forced("acme", "k")).unwrap());
        let after = hear(&told, 1).remove(0).unwrap().new();
        assert!(after.fence() > ticket.fence(), "{}", world.name);
        assert_eq!(after.attempt(), 1, "{}", world.name);
        assert_eq!(world.store.stats().waiters, 0, "{}", world.name);
    });
}

/// What one of a crowd came to: whether it did the work, why, and the reply it has.
type Came = (Option<Why>, Vec<u8>);

async fn do_or_get(claim: Claim) -> Came {
    match claim {
        Claim::Resumed(ticket, prior) => {
            ticket.complete("at last").await.unwrap();
            (Some(prior.why()), b"at last".to_vec())
        }
        other => (None, other.completed().into_body()),
    }
}

fn do_or_get_blocking(claim: Claim) -> Came {
    match claim {
        Claim::Resumed(ticket, prior) => {
            ticket.complete("at last").wait().unwrap();
            (Some(prior.why()), b"at last".to_vec())
        }
        other => (None, other.completed().into_body()),
    }
}

/// Sixteen wait, the owner goes by `act`: one resumes, and the others get its reply.
fn one_of_sixteen_resumes(why: Why, act: impl Fn(&World, Ticket) -> Option<Ticket>) {
    const CROWD: usize = 16;
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        let (to, told) = channel();
        for number in 0..CROWD {
            let (one, other) = (world.store.clone(), world.store.clone());
            start(
                WAYS[number % WAYS.len()],
                &to,
                move || do_or_get_blocking(one.claim_or_wait(op("k"), HOUR).wait().unwrap()),
                async move { do_or_get(other.claim_or_wait(op("k"), HOUR).await.unwrap()).await },
            );
        }
        all_wait(world, CROWD);
        let kept = act(world, ticket);
        let came = hear(&told, CROWD);
        let workers: Vec<_> = came.iter().filter_map(|(why, _)| *why).collect();
        assert_eq!(workers, [why], "{}: who did the work", world.name);
        assert!(came.iter().all(|(_, reply)| reply == b"at last"), "{}: {came:?}", world.name);
        assert_eq!(world.store.stats().waiters, 0, "{}", world.name);
        drop(kept);
    });
}

#[test]
fn one_of_sixteen_resumes_what_was_released() {
    one_of_sixteen_resumes(Why::Released, |world, ticket| {
        world.wait(ticket.release("429")).unwrap();
        None
    });
}

#[test]
fn one_of_sixteen_resumes_what_was_dropped() {
    one_of_sixteen_resumes(Why::Dropped, |_, ticket| {
        drop(ticket);
        None
    });
}

#[test]
fn one_of_sixteen_resumes_what_lapsed() {
    one_of_sixteen_resumes(Why::Lease, |world, ticket| {
        world.clock.advance(LEASE);
        Some(ticket)
    });
}

#[test]
fn a_claim_can_wait_for_an_owner_that_is_not_on_disk_yet() {
    with_store(|world| {
        let owner = world.store.claim(op("k"));
        let (to, told) = channel();
        for way in WAYS {
            start_claim(way, &to, world, "k");
        }
        let ticket = world.wait(owner).unwrap().new();
        world.wait(ticket.complete("done")).unwrap();
        for claim in hear(&told, WAYS.len()) {
            assert_eq!(claim.unwrap().completed().body(), b"done", "{}", world.name);
        }
        assert_eq!(world.store.stats().waiters, 0, "{}", world.name);
    });
}

#[test]
fn a_wait_ends_though_the_owner_never_waits_for_its_reply_to_be_on_disk() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        let told = flights(world, "k");
        let submitted = ticket.complete("done");
        for settled in hear(&told, WAYS.len()) {
            assert!(matches!(settled, Ok(Settled::Completed(_))), "{}: {settled:?}", world.name);
        }
        world.wait(submitted).unwrap();
    });
}

#[test]
fn a_note_of_the_owner_ends_no_wait() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        let told = flights(world, "k");
        world.wait(ticket.mark_dispatched()).unwrap();
        world.wait(ticket.checkpoint("msg_1")).unwrap();
        all_wait(world, WAYS.len());
        world.wait(ticket.complete("done")).unwrap();
        for settled in hear(&told, WAYS.len()) {
            assert!(matches!(settled, Ok(Settled::Completed(_))), "{}: {settled:?}", world.name);
        }
    });
}

#[test]
fn a_wait_for_one_attempt_goes_on_through_the_next() {
    with_store(|world| {
        let first = world.claim(op("k")).new();
        let flight = world.claim(op("k")).in_flight();
        drop(first);
        let (second, _) = world.claim(op("k")).resumed();
        let (to, told) = channel();
        start_flight(Way::Thread, &to, &flight);
        all_wait(world, 1);
        world.wait(second.complete("by the second")).unwrap();
        let settled = hear(&told, 1).remove(0);
        assert!(
            matches!(&settled, Ok(Settled::Completed(reply)) if reply.body() == b"by the second"),
            "{}: {settled:?}",
            world.name
        );
    });
}

#[test]
fn no_wake_up_is_lost_when_the_reply_races_the_wait() {
    const ROUNDS: usize = 50;
    with_store(|world| {
        let (to, told) = channel();
        for round in 0..ROUNDS {
            let key = format!("k{round}");
            let ticket = world.claim(op(&key)).new();
            let flight = world.claim(op(&key)).in_flight();
            let start_line = Arc::new(Barrier::new(2));
            let (one, other) = (Arc::clone(&start_line), Arc::clone(&start_line));
            let task = flight.clone();
            start(
                WAYS[round % WAYS.len()],
                &to,
                move || {
                    one.wait();
                    flight.wait(HOUR)
                },
                async move {
                    other.wait();
                    task.await
                },
            );
            start_line.wait();
            world.wait(ticket.complete("done")).unwrap();
            let settled = hear(&told, 1).remove(0);
            assert!(matches!(settled, Ok(Settled::Completed(_))), "{}: {settled:?}", world.name);
        }
        assert_eq!(world.store.stats().waiters, 0, "{}", world.name);
    });
}

#[test]
fn no_wake_up_is_lost_when_the_drop_of_a_ticket_races_a_claim_that_waits() {
    const ROUNDS: usize = 50;
    with_store(|world| {
        let (to, told) = channel();
        for round in 0..ROUNDS {
            let key = format!("k{round}");
            let ticket = world.claim(op(&key)).new();
            start_claim(WAYS[round % WAYS.len()], &to, world, &key);
            drop(ticket);
            let (ticket, _) = hear(&told, 1).remove(0).unwrap().resumed();
            world.wait(ticket.complete("done")).unwrap();
        }
        assert_eq!(world.store.stats().waiters, 0, "{}", world.name);
    });
}

#[test]
fn no_wake_up_is_lost_when_the_clock_races_the_wait() {
    const ROUNDS: usize = 50;
    with_store(|world| {
        let (to, told) = channel();
        for round in 0..ROUNDS {
            let key = format!("k{round}");
            let ticket = world.claim(op(&key).lease(MINUTE)).new();
            let flight = world.claim(op(&key)).in_flight();
            start_flight(WAYS[round % WAYS.len()], &to, &flight);
            world.clock.advance(MINUTE);
            let settled = hear(&told, 1).remove(0);
            assert!(matches!(settled, Ok(Settled::Lapsed)), "{}: {settled:?}", world.name);
            drop(ticket);
        }
        assert_eq!(world.store.stats().waiters, 0, "{}", world.name);
    });
}
