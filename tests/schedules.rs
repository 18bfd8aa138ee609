//! Schedules: a whole store with its threads, in orders that a machine would seldom run them in.
//!
//! ```sh
//! RUSTFLAGS="--cfg shuttle" CARGO_TARGET_DIR=target/shuttle cargo test --release --test schedules
//! ```
//!
//! Each scenario runs under `JUSTONCE_SCHEDULES` schedules, a long one under a sixteenth of them:
//! half chosen at random step by step, half by priorities that change at a few steps (PCT). A
//! thread that nobody wakes is a deadlock, and that fails. A failure shows the schedule it came
//! from and its seed; `SHUTTLE_RANDOM_SEED` runs the same schedules again.

#![cfg(shuttle)]
#![allow(clippy::allow_attributes, reason = "lints that fire in some helpers only")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]
#![allow(clippy::print_stderr, reason = "a failing test shows its seed")]

#[path = "common/fault.rs"]
#[allow(dead_code, unreachable_pub, reason = "a part of it is used here")]
mod fault;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use fault::{Fault, FaultyDirectory, Keep, On};
use justonce::{
    Claim, Durability, EntryState, Error, ErrorKind, ManualClock, Operation, Options, Pending,
    Reply, RequestId, Settled, Stats, Store, Ticket, Why,
};
use parking_lot::Mutex;
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::thread::{JoinHandle, spawn, yield_now};
use shuttle::{Config, MaxSteps, Runner};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// Schedules of each scenario, where `JUSTONCE_SCHEDULES` does not say.
const SCHEDULES: usize = 2_000;

/// A schedule that takes more goes round in circles.
const MAX_STEPS: usize = 50_000;

/// Steps at which PCT changes priorities, and one.
const DEPTH: usize = 4;

fn explore(scenario: impl Fn() + Send + Sync + Copy + 'static) {
    explore_some(schedules(), scenario);
}

/// For scenarios of thousands of steps.
fn explore_long(scenario: impl Fn() + Send + Sync + Copy + 'static) {
    explore_some(schedules().div_ceil(16), scenario);
}

fn schedules() -> usize {
    std::env::var("JUSTONCE_SCHEDULES").map_or(SCHEDULES, |number| number.parse().unwrap())
}

fn explore_some(schedules: usize, scenario: impl Fn() + Send + Sync + Copy + 'static) {
    let half = schedules.div_ceil(2);
    let seed = RandomState::new().hash_one(());
    eprintln!("SHUTTLE_RANDOM_SEED={seed}");
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    config.silence_warnings = true;
    config.max_steps = MaxSteps::FailAfter(MAX_STEPS);
    let random = Runner::new(RandomScheduler::new_from_seed(seed, half), config.clone());
    let pct = Runner::new(PctScheduler::new_from_seed(seed, DEPTH, half), config);
    let explored = random.run(scenario) + pct.run(scenario);
    eprintln!("{explored} schedules");
}

#[test]
fn of_many_who_claim_one_works_and_all_get_its_reply() {
    explore(|| {
        let world = World::new(|options| options);
        let threads: Vec<_> = ["a", "b", "c"]
            .map(|name| world.start(move |world| world.work("k", name, End::Complete)))
            .into();
        join(threads);
        assert_eq!(world.told.lock().tickets.len(), 1, "one did the work");
        world.is_quiet();
    });
}

#[test]
fn tasks_that_claim_are_woken_though_no_thread_waits() {
    explore(|| {
        let world = World::new(|options| options);
        let tasks = ["a", "b", "c"].map(|name| {
            let world = world.clone();
            shuttle::future::spawn(async move {
                match world.store.claim_or_wait(op("k"), HOUR).await.unwrap() {
                    Claim::New(ticket) => {
                        world.got_ticket(&ticket);
                        ticket.complete(name).await.unwrap();
                    }
                    Claim::Completed(reply) => world.got_reply(&reply),
                    other => panic!("{other:?}"),
                }
            })
        });
        for task in tasks {
            shuttle::future::block_on(task).unwrap();
        }
        world.is_quiet();
    });
}

#[test]
fn threads_and_tasks_that_wait_for_a_flight_are_all_told_its_end() {
    explore(|| {
        let world = World::new(|options| options);
        let ticket = world.new_ticket("k");
        let Claim::InFlight(flight) = world.claim("k").unwrap() else { panic!("not in flight") };
        let in_thread = flight.clone();
        let thread = spawn(move || in_thread.wait(HOUR).unwrap());
        let task = shuttle::future::spawn(async move { flight.await.unwrap() });
        world.end(ticket, "done", End::Complete);
        let ends = [thread.join().unwrap(), shuttle::future::block_on(task).unwrap()];
        for end in ends {
            let Settled::Completed(reply) = end else { panic!("{end:?}") };
            world.got_reply(&reply);
        }
        world.is_quiet();
    });
}

#[test]
fn of_many_who_wait_one_takes_over_from_an_owner_that_gives_up() {
    explore(|| {
        let world = World::new(|options| options);
        let ticket = world.new_ticket("k");
        let end = if thread_rng().r#gen() { End::Drop } else { End::Release };
        let mut threads: Vec<_> = ["a", "b"]
            .map(|name| world.start(move |world| world.work("k", name, End::Complete)))
            .into();
        threads.push(world.start(move |world| world.end(ticket, "nothing", end)));
        join(threads);
        assert_eq!(world.told.lock().tickets.len(), 2, "one took over");
        world.is_quiet();
    });
}

#[test]
fn an_owner_past_its_lease_and_whoever_takes_over_store_one_reply() {
    explore(|| {
        let world = World::new(|options| options.lease(MINUTE));
        let ticket = world.new_ticket("k");
        let owner = world.start(|world| {
            let renewed = ticket.renew(MINUTE).wait();
            let completed = world.completed(ticket, "the first");
            // Whoever was told that it has lost the operation does not get it back.
            assert!(renewed.is_ok() || !completed);
        });
        let other = world.start(|world| world.work("k", "the other", End::Complete));
        let time = world.start(|world| {
            for _ in 0..3 {
                world.clock.advance(MINUTE);
                yield_now();
            }
        });
        join([owner, other, time]);
        assert!(world.told.lock().replies.len() == 1, "one reply");
        world.is_quiet();
    });
}

#[test]
fn a_lease_that_runs_out_wakes_whoever_waits() {
    explore(|| {
        let world = World::new(|options| options.lease(MINUTE));
        let _kept = world.new_ticket("k");
        let waiters: Vec<_> = ["a", "b"]
            .map(|name| world.start(move |world| world.work("k", name, End::Complete)))
            .into();
        let time = world.start(|world| world.clock.advance(MINUTE));
        join(waiters);
        join([time]);
        assert_eq!(world.told.lock().tickets.len(), 2, "one took over");
        world.is_quiet();
    });
}

#[test]
fn what_is_dropped_before_its_answer_is_seen_holds_nobody_up() {
    explore(|| {
        let world = World::new(|options| options);
        let dropped = world.start(|world| drop(world.store.claim(op("k"))));
        let polled = world.start(|world| {
            let mut claim = world.store.claim_or_wait(op("k"), HOUR);
            let mut context = Context::from_waker(Waker::noop());
            let _ = Pin::new(&mut claim).poll(&mut context);
        });
        let impatient = world.start(|world| {
            let mut claim = world.store.claim_or_wait(op("k"), HOUR);
            drop(claim.wait_timeout(Duration::ZERO));
        });
        let patient = world.start(|world| world.work("k", "done", End::Complete));
        join([dropped, polled, impatient, patient]);
        let Claim::Completed(reply) = world.claim("k").unwrap() else { panic!("not completed") };
        world.got_reply(&reply);
        world.is_quiet();
    });
}

#[test]
fn those_who_wait_for_a_batch_need_nobody_who_gave_up_waiting() {
    explore(|| {
        let world = World::new(|options| options);
        let impatient = ["a", "b"].map(|key| {
            world.start(move |world| {
                let mut call = world.store.record_once(op(key));
                while call.wait_timeout(Duration::ZERO).is_none() {}
            })
        });
        let gives_up = world.start(|world| {
            let _ = world.store.record_once(op("c")).wait_timeout(Duration::ZERO);
        });
        let patient =
            world.start(|world| assert!(world.store.record_once(op("d")).wait().unwrap()));
        let task = shuttle::future::spawn(world.store.record_once(op("e")));
        join(impatient);
        join([gives_up, patient]);
        assert!(shuttle::future::block_on(task).unwrap().unwrap());
        world.is_quiet();
    });
}

#[test]
fn a_write_that_nobody_waits_for_lands_though_the_store_was_idle() {
    explore(|| {
        let durability = match thread_rng().gen_range(0..2) {
            0 => Durability::Synced,
            _ => Durability::Relaxed { within: Duration::from_millis(5) },
        };
        let world = World::new(|options| options.durability(durability));
        // The background thread falls asleep in the middle of it, in some schedules.
        let idle = thread_rng().gen_range(0..40);
        (0..idle).for_each(|_| yield_now());
        std::mem::forget(world.store.record_once(op("k")));
        while world.store.stats().commits.records == 0 {
            yield_now();
        }
        world.is_quiet();
    });
}

#[test]
fn claims_of_many_at_once_share_their_keys_out() {
    explore(|| {
        let world = World::new(|options| options);
        let many = [["x", "y"], ["y", "x"]].map(|keys| {
            world.start(move |world| {
                let claims = world.store.claim_many(keys.map(op)).wait().unwrap();
                for claim in claims {
                    match claim {
                        Claim::New(ticket) => {
                            world.got_ticket(&ticket);
                            assert!(world.completed(ticket, "done"));
                        }
                        Claim::InFlight(_) => {}
                        Claim::Completed(reply) => world.got_reply(&reply),
                        other => panic!("{other:?}"),
                    }
                }
            })
        });
        let one = world.start(|world| world.work("y", "done", End::Complete));
        join(many);
        join([one]);
        assert_eq!(world.told.lock().tickets.len(), 2, "one for each key");
        world.is_quiet();
    });
}

#[test]
fn a_ticket_that_is_handed_on_is_not_owned_twice() {
    explore(|| {
        let world = World::new(|options| options.lease(MINUTE));
        let token = world.new_ticket("k").detach();
        let threads = ["a", "b"].map(|name| {
            let token = token.clone();
            world.start(move |world| {
                let ended = match world.store.attach(&token).wait() {
                    Ok(ticket) => ticket.complete(name).wait(),
                    Err(error) => Err(error),
                };
                match ended {
                    // Of two replies with one fence the first stays, and both are told that it
                    // is stored.
                    Ok(()) => world.work("k", name, End::Complete),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::LeaseLost),
                }
            })
        });
        let other = world.start(|world| {
            world.clock.advance(MINUTE);
            world.work("k", "c", End::Complete);
        });
        join(threads);
        join([other]);
        assert!(matches!(world.claim("k").unwrap(), Claim::Completed(_)));
        world.is_quiet();
    });
}

#[test]
fn a_forgotten_operation_begins_a_life_of_its_own() {
    explore(|| {
        let world = World::new(|options| options);
        let ticket = world.new_ticket("k");
        let owner = world.start(|world| world.end(ticket, "the first", End::Complete));
        let forgets = world.start(|world| {
            assert!(world.store.forget_forced("acme", "k").wait().unwrap());
            drop(world.store.forget("acme", "k").wait());
        });
        let other = world.start(|world| world.work("k", "the other", End::Complete));
        join([owner, forgets, other]);
        world.is_quiet();
    });
}

#[test]
fn a_store_that_is_closed_commits_what_it_took_and_wakes_who_waits() {
    explore(|| {
        let disk = FaultyDirectory::default();
        let world = World::on(&disk, |options| options);
        let threads: Vec<_> =
            ["a", "b"].map(|name| world.start(move |world| drop(world.try_work("k", name)))).into();
        let many = world.start(|world| drop(world.store.claim_many(["x", "y"].map(op)).wait()));
        if thread_rng().r#gen() {
            world.store.close().wait().unwrap();
        }
        join(threads);
        join([many]);
        let told = Arc::clone(&world.told);
        // The last handle.
        drop(world);
        is_all_there(&disk, &told);
    });
}

/// The background thread was called whenever the role was given up in a store that had stopped; its
/// own looks in count as that, so after a failed commit it called itself without end, and took a
/// processor until the store was closed. Now it is called for what was committed, and no more.
#[test]
fn after_a_failed_commit_the_background_thread_rests() {
    explore(|| {
        let disk = FaultyDirectory::default();
        let world = World::on(&disk, |options| options);
        let (on, error) = (On::Sync, std::io::ErrorKind::Other);
        disk.plan(Fault { on, after: 0, error, for_ever: true });
        let thread = world.start(|world| drop(world.try_work("k", "done")));
        join([thread]);
        // A thread that never rests has the others wait until the steps are used up.
        (0..10).for_each(|_| yield_now());
    });
}

#[test]
fn after_a_failed_commit_everyone_is_told_and_what_was_acknowledged_is_there() {
    explore(|| {
        let disk = FaultyDirectory::default();
        let world = World::on(&disk, |options| options);
        let after = thread_rng().gen_range(0..4);
        let (on, error) = (On::Sync, std::io::ErrorKind::Other);
        disk.plan(Fault { on, after, error, for_ever: true });
        let threads: Vec<_> =
            ["a", "b"].map(|name| world.start(move |world| drop(world.try_work("k", name)))).into();
        let task = {
            let world = world.clone();
            shuttle::future::spawn(async move {
                drop(world.store.claim_or_wait(op("k"), HOUR).await);
            })
        };
        join(threads);
        shuttle::future::block_on(task).unwrap();
        let told = Arc::clone(&world.told);
        drop(world);
        is_all_there(&disk.image(Keep::Synced), &told);
    });
}

/// A waker is the caller's code, and so may be what drops the last handle. It was run by a thread
/// that had committed a batch and still held the committer role. Dropping the store waits for what
/// was accepted to be committed, by the background thread, which waited for the role: for ever, if
/// anything was accepted meanwhile. Now tasks are woken when the role is given up.
#[test]
fn a_waker_may_drop_the_last_handle() {
    explore(|| {
        let world = World::new(|options| options);
        let ticket = world.new_ticket("k");
        let Claim::InFlight(flight) = world.claim("k").unwrap() else { panic!("not in flight") };
        let last =
            Arc::new(LastHandle { store: Mutex::new(Some(world.store)), ..LastHandle::default() });
        let mut flight = flight.into_future();
        let waker = Waker::from(Arc::clone(&last));
        assert!(Pin::new(&mut flight).poll(&mut Context::from_waker(&waker)).is_pending());
        ticket.complete("done").wait().unwrap();
        // Woken by the background thread, it may be at it still.
        let accepted = loop {
            let accepted = last.accepted.lock().take();
            if let Some(accepted) = accepted {
                break accepted;
            }
            yield_now();
        };
        drop(flight);
        assert!(accepted.wait().unwrap());
    });
}

#[derive(Default)]
struct LastHandle {
    store: Mutex<Option<Store>>,
    accepted: Mutex<Option<Pending<bool>>>,
}

impl Wake for LastHandle {
    fn wake(self: Arc<Self>) {
        let Some(store) = self.store.lock().take() else { return };
        let accepted = store.record_once(op("another"));
        *self.accepted.lock() = Some(accepted);
        drop(store);
    }
}

#[test]
fn what_is_being_sealed_is_found_all_the_while() {
    explore_long(|| {
        let world = World::new(|options| options.generation_bytes(1));
        let threads = ["a", "b"].map(|key| {
            world.start(move |world| {
                world.work(key, key, End::Complete);
                world.work(key, "again", End::Complete);
                let entry = world.store.lookup("acme", key).wait().unwrap().unwrap();
                assert_eq!(entry.state(), EntryState::Completed);
                assert_eq!(entry.reply().unwrap().body(), key.as_bytes());
            })
        });
        let reader = world.start(|world| {
            world.until(
                |stats| stats.sealed_generations >= 2,
                || {
                    world.store.lookup("acme", "a").wait().unwrap();
                },
            );
        });
        join(threads);
        join([reader]);
        let in_flight = world.store.in_flight().wait().unwrap();
        assert!(in_flight.is_empty(), "{in_flight:?}");
        assert_eq!(world.told.lock().tickets.len(), 2, "one for each key");
        world.is_quiet();
    });
}

#[test]
fn files_that_go_take_nothing_with_them_that_lives() {
    explore_long(|| {
        let world = World::new(|options| options.generation_bytes(1).window(MINUTE));
        let worker = world.start(|world| {
            for name in ["a", "b", "c"] {
                match world.claim("k").unwrap() {
                    Claim::New(ticket) => drop(world.completed(ticket, name)),
                    Claim::Completed(reply) => world.got_reply(&reply),
                    other => panic!("{other:?}"),
                }
            }
        });
        let keeper_of_time = world.start(|world| {
            for _ in 0..3 {
                world.clock.advance(MINUTE);
                yield_now();
            }
        });
        let reader = world.start(|world| {
            for _ in 0..64 {
                world.store.lookup("acme", "k").wait().unwrap();
                world.store.in_flight().wait().unwrap();
            }
        });
        join([worker, keeper_of_time, reader]);
        world.clock.advance(HOUR);
        // All but a spare.
        world.until(|stats| stats.generations == 1, || ());
        world.is_quiet();
    });
}

#[test]
fn whatever_three_threads_do_each_attempt_has_one_owner_and_each_request_one_reply() {
    explore(|| {
        let world = World::new(|options| options.lease(MINUTE).index_entries(8).tag_bits(1));
        let threads = ["a", "b", "c"].map(|name| {
            world.start(move |world| {
                for _ in 0..3 {
                    world.do_anything(name);
                }
            })
        });
        join(threads);
        // Whoever waits for a ticket that was detached and left.
        world.clock.advance(MINUTE);
        for key in ["x", "y"] {
            world.work(key, "last", End::Complete);
        }
        world.is_quiet();
    });
}

/// What an owner does with its ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    Release,
    Drop,
}

/// A store, the clock that moves it, and what everyone was told.
#[derive(Clone)]
struct World {
    store: Store,
    clock: ManualClock,
    told: Arc<Mutex<Told>>,
}

#[derive(Debug, Default)]
struct Told {
    /// Fences, by request and attempt.
    tickets: BTreeMap<(RequestId, u32), u64>,
    /// Bodies of replies that were seen, or whose storing was acknowledged.
    replies: BTreeMap<RequestId, Vec<u8>>,
}

impl World {
    fn new(more: impl FnOnce(Options) -> Options) -> World {
        World::on(&FaultyDirectory::default(), more)
    }

    fn on(disk: &FaultyDirectory, more: impl FnOnce(Options) -> Options) -> World {
        let clock = ManualClock::new();
        let options = more(Options::new().clock(&clock).cache_bytes(1 << 20));
        let store = options.open_in(Arc::new(disk.clone())).unwrap();
        World { store, clock, told: Arc::default() }
    }

    fn start(&self, body: impl FnOnce(&World) + Send + 'static) -> JoinHandle<()> {
        let world = self.clone();
        spawn(move || body(&world))
    }

    fn claim(&self, key: &str) -> Result<Claim, Error> {
        let claim = self.store.claim(op(key)).wait()?;
        if let Claim::New(ticket) | Claim::Resumed(ticket, _) = &claim {
            self.got_ticket(ticket);
        }
        Ok(claim)
    }

    fn new_ticket(&self, key: &str) -> Ticket {
        let Claim::New(ticket) = self.claim(key).unwrap() else { panic!("not new") };
        ticket
    }

    /// Claims, waits, and ends as owner or with the reply.
    fn work(&self, key: &str, name: &'static str, end: End) {
        match self.store.claim_or_wait(op(key), HOUR).wait().unwrap() {
            Claim::New(ticket) => {
                self.got_ticket(&ticket);
                self.end(ticket, name, end);
            }
            Claim::Resumed(ticket, prior) => {
                assert!(matches!(prior.why(), Why::Dropped | Why::Released | Why::Lease));
                self.got_ticket(&ticket);
                self.end(ticket, name, end);
            }
            Claim::Completed(reply) => self.got_reply(&reply),
            other => panic!("{other:?}"),
        }
    }

    /// The same in a store that may stop meanwhile.
    fn try_work(&self, key: &str, name: &'static str) -> Result<(), Error> {
        let refused = |error: Error| {
            let expected = [ErrorKind::Closed, ErrorKind::Unknown, ErrorKind::Poisoned];
            assert!(expected.contains(&error.kind()), "{error}");
            error
        };
        let claim = self.store.claim_or_wait(op(key), HOUR).wait().map_err(refused)?;
        match claim {
            Claim::New(ticket) | Claim::Resumed(ticket, _) => {
                self.got_ticket(&ticket);
                let request = ticket.request_id();
                ticket.complete(name).wait().map_err(refused)?;
                self.replied(request, name.as_bytes());
            }
            Claim::Completed(reply) => self.got_reply(&reply),
            other => panic!("{other:?}"),
        }
        Ok(())
    }

    fn end(&self, ticket: Ticket, name: &'static str, end: End) {
        match end {
            End::Complete => drop(self.completed(ticket, name)),
            End::Release => ticket.release(name).wait().unwrap(),
            End::Drop => drop(ticket),
        }
    }

    /// Whether the ticket was still good for a reply.
    fn completed(&self, ticket: Ticket, name: &'static str) -> bool {
        let request = ticket.request_id();
        match ticket.complete(name).wait() {
            Ok(()) => self.replied(request, name.as_bytes()),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::LeaseLost | ErrorKind::Gone), "{error}");
                return false;
            }
        }
        true
    }

    fn do_anything(&self, name: &'static str) {
        let key = if thread_rng().r#gen() { "x" } else { "y" };
        match thread_rng().gen_range(0..8) {
            0 => drop(self.store.claim(op(key))),
            1 => drop(self.store.forget_forced("acme", key).wait().unwrap()),
            2 => drop(self.store.forget("acme", key).wait()),
            3 => self.clock.advance(MINUTE / 2),
            4 => {
                let claims = self.store.claim_many(["x", "y"].map(op)).wait().unwrap();
                for claim in claims {
                    if let Claim::New(ticket) | Claim::Resumed(ticket, _) = &claim {
                        self.got_ticket(ticket);
                    }
                    self.take(claim, name);
                }
            }
            5 => {
                let entry = self.store.lookup("acme", key).wait().unwrap();
                if let Some(reply) = entry.as_ref().and_then(|entry| entry.reply()) {
                    self.got_reply(reply);
                }
            }
            _ => {
                let claim = self.claim(key).unwrap();
                self.take(claim, name);
            }
        }
    }

    fn take(&self, claim: Claim, name: &'static str) {
        match claim {
            Claim::New(ticket) | Claim::Resumed(ticket, _) => match thread_rng().gen_range(0..4) {
                0 => drop(ticket),
                1 => drop(ticket.release(name)),
                2 => drop(ticket.detach()),
                _ => drop(self.completed(ticket, name)),
            },
            Claim::InFlight(flight) => {
                if let Settled::Completed(reply) = flight.wait(Duration::ZERO).unwrap() {
                    self.got_reply(&reply);
                }
            }
            Claim::Completed(reply) => self.got_reply(&reply),
            other => panic!("{other:?}"),
        }
    }

    /// Each attempt has one ticket, and a later attempt a larger fence.
    fn got_ticket(&self, ticket: &Ticket) {
        let (request, attempt, fence) = (ticket.request_id(), ticket.attempt(), ticket.fence());
        let tickets = &mut self.told.lock().tickets;
        for (&(of, other), &known) in &*tickets {
            let is_in_order = of != request || attempt.cmp(&other) == fence.cmp(&known);
            assert!(is_in_order && fence != known, "{request}: attempt {attempt}, {tickets:?}");
        }
        assert_eq!(tickets.insert((request, attempt), fence), None, "{request}, {attempt}");
    }

    fn got_reply(&self, reply: &Reply) {
        self.replied(reply.request_id().unwrap(), reply.body());
    }

    /// Each request has one reply.
    fn replied(&self, request: RequestId, body: &[u8]) {
        let replies = &mut self.told.lock().replies;
        let first = replies.entry(request).or_insert_with(|| body.to_vec());
        assert_eq!(first, body, "{request}");
    }

    /// Does something again and again until the store has come so far.
    fn until(&self, is_so: impl Fn(&Stats) -> bool, meanwhile: impl Fn()) {
        while !is_so(&self.store.stats()) {
            // Seldom, since all shards are locked for it, one after the other.
            for _ in 0..64 {
                meanwhile();
                yield_now();
            }
        }
    }

    /// Nobody waits any more.
    fn is_quiet(&self) {
        assert_eq!(self.store.stats().waiters, 0);
    }
}

/// Opens a store again and compares it with what was acknowledged.
fn is_all_there(disk: &FaultyDirectory, told: &Mutex<Told>) {
    let world = World::on(disk, |options| options);
    let told = std::mem::take(&mut *told.lock());
    let look_up = |request| -> Pending<_> { world.store.lookup_request(request) };
    for (request, body) in &told.replies {
        let entry = look_up(*request).wait().unwrap().unwrap();
        assert_eq!(entry.reply().unwrap().body(), body);
    }
    for ((request, attempt), fence) in &told.tickets {
        let entry = look_up(*request).wait().unwrap().unwrap();
        assert!(entry.attempt() >= *attempt && entry.fence() >= *fence);
    }
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

fn op(key: &str) -> Operation {
    Operation::new("acme", key)
}
