//! Files come as the store fills and as time passes, and go with what is in them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::unchecked_time_subtraction, reason = "a test")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::fault::FaultyDirectory;
use common::*;
use justonce::{EntryState, Filter, ManualClock, Options, Reply, WindowFrom};

const MILLI: Duration = Duration::from_millis(1);

/// Lanes are powers of two: this is the one of records kept for an hour.
const LANE_OF_AN_HOUR: Duration = Duration::from_millis(1 << 22);

/// And this the one of records kept for a day.
const LANE_OF_A_DAY: Duration = Duration::from_millis(1 << 27);

/// A store on disk whose first file is ready.
#[track_caller]
fn fresh(more: impl FnOnce(Options) -> Options) -> World {
    let world = World::on_disk(more);
    settle_at(&world, 0);
    world
}

/// The generations' files.
fn logs(world: &World) -> Vec<String> {
    world
        .files()
        .into_iter()
        .filter(|name| name.starts_with(|c: char| c.is_ascii_digit()))
        .collect()
}

/// Waits until so many files are in use, and one beside them is ready for the next lane.
#[track_caller]
fn settle_at(world: &World, used: usize) {
    eventually(&format!("{used} files are in use"), || {
        logs(world).len() == used + 1 && world.store.stats().generations == used + 1
    });
}

fn record(world: &World, key: &str, window: Duration) {
    assert!(world.store.record_once(op(key).window(window)).wait().unwrap(), "{key} was there");
}

/// Records as many operations of an hour, a kilobyte or so each.
fn fill(world: &World, name: &str, count: usize) {
    let claims: Vec<_> = (0..count)
        .map(|number| world.store.claim(op(&format!("{name} {number}")).window(HOUR)))
        .collect();
    let replies: Vec<_> = claims
        .into_iter()
        .map(|claim| claim.wait().unwrap().new().complete(vec![b'x'; 1024]))
        .collect();
    for reply in replies {
        reply.wait().unwrap();
    }
}

fn disk_bytes(world: &World) -> u64 {
    let path = world.path();
    world.files().iter().filter_map(|name| path.join(name).metadata().ok()).map(|of| of.len()).sum()
}

#[test]
fn a_store_begins_with_one_file_ready() {
    let world = fresh(|options| options);
    assert_eq!(world.files(), ["00000001.redb", "LOCK", "store.redb"]);
    record(&world, "k", HOUR);
    settle_at(&world, 1);
}

#[test]
fn a_file_of_its_full_size_is_followed_by_the_next() {
    let world = fresh(|options| options.generation_bytes(4 * 1024));
    let keys: Vec<_> = (0..100).map(|number| format!("key {number}")).collect();
    for key in &keys {
        record(&world, key, HOUR);
    }
    eventually("more than one file is in use", || logs(&world).len() > 2);
    for key in &keys {
        assert_eq!(world.lookup(key).unwrap().state(), EntryState::Completed, "{key}");
    }
}

#[test]
fn a_file_whose_index_is_full_is_followed_by_the_next() {
    let mut world = fresh(|options| options.index_entries(8));
    let calls: Vec<_> = (0..20)
        .flat_map(|round| (0..200).map(move |number| format!("{round}/{number}")))
        .map(|key| (world.store.record_once(op(&key).window(HOUR)), key))
        .collect();
    let keys: Vec<_> = calls
        .into_iter()
        .map(|(call, key)| {
            assert!(call.wait().unwrap(), "{key} is new");
            key
        })
        .collect();
    eventually("more than one file is in use", || logs(&world).len() > 2);
    for _ in 0..2 {
        let again: Vec<_> = keys.iter().map(|key| world.store.record_once(op(key))).collect();
        assert!(again.into_iter().all(|call| !call.wait().unwrap()), "one is not known any more");
        assert_eq!(world.store.scan(Filter::new()).count(), keys.len());
        world.reopen();
    }
}

#[test]
fn a_file_takes_records_for_an_eighth_of_its_lane() {
    let world = fresh(|options| options);
    record(&world, "a", HOUR);
    settle_at(&world, 1);
    world.clock.advance(LANE_OF_AN_HOUR / 8 - MILLI);
    record(&world, "b", HOUR);
    settle_at(&world, 1);
    world.clock.advance(MILLI);
    settle_at(&world, 1);
    record(&world, "c", HOUR);
    settle_at(&world, 2);
    record(&world, "d", HOUR);
    settle_at(&world, 2);
}

#[test]
fn a_file_goes_on_taking_records_after_a_restart() {
    let mut world = fresh(|options| options);
    record(&world, "a", HOUR);
    settle_at(&world, 1);
    world.reopen();
    world.clock.advance(LANE_OF_AN_HOUR / 8 - MILLI);
    record(&world, "b", HOUR);
    settle_at(&world, 1);
    world.reopen();
    world.clock.advance(MILLI);
    record(&world, "c", HOUR);
    settle_at(&world, 2);
}

#[test]
fn a_file_vanishes_once_all_in_it_is_over() {
    let world = fresh(|options| options);
    record(&world, "a", HOUR);
    settle_at(&world, 1);
    world.clock.advance(MINUTE);
    record(&world, "b", HOUR);
    world.clock.advance(HOUR - MINUTE);
    assert!(world.lookup("a").is_none());
    settle_at(&world, 1);
    assert_eq!(world.lookup("b").unwrap().state(), EntryState::Completed);
    world.clock.advance(MINUTE);
    settle_at(&world, 0);
    record(&world, "a", HOUR);
    record(&world, "b", HOUR);
    settle_at(&world, 1);
}

#[test]
fn a_file_whose_records_were_over_before_the_store_was_opened_vanishes() {
    let mut world = fresh(|options| options);
    record(&world, "a", HOUR);
    settle_at(&world, 1);
    let first = logs(&world).remove(0);
    world.store.close().wait().unwrap();
    world.clock.advance(HOUR);
    world.reopen();
    settle_at(&world, 0);
    assert!(!logs(&world).contains(&first), "{first} is still there");
}

#[test]
fn files_come_and_go_as_time_passes() {
    let world = fresh(|options| options);
    for hour in 0..12 {
        for part in 0..4 {
            record(&world, &format!("{hour}/{part}"), HOUR);
            world.clock.advance(15 * MINUTE);
        }
    }
    // Four at a time within the window, each in a file of its own.
    settle_at(&world, 3);
    world.clock.advance(HOUR);
    settle_at(&world, 0);
    assert_eq!(world.store.stats().records_live, 0);
}

#[test]
fn windows_that_differ_much_have_files_of_their_own() {
    let world = fresh(|options| options.lease(MINUTE / 2));
    record(&world, "minute", MINUTE);
    record(&world, "half a minute", MINUTE / 2);
    settle_at(&world, 1);
    record(&world, "hour", HOUR);
    settle_at(&world, 2);
    record(&world, "day", DAY);
    settle_at(&world, 3);
    world.clock.advance(MINUTE);
    settle_at(&world, 2);
    world.clock.advance(HOUR - MINUTE);
    settle_at(&world, 1);
    world.clock.advance(DAY - HOUR - MILLI);
    assert!(world.lookup("day").is_some());
    world.clock.advance(MILLI);
    settle_at(&world, 0);
}

#[test]
fn an_operation_spread_over_files_answers_by_its_newest_record() {
    let mut world = fresh(|options| options.lease(MINUTE));
    let windows = [HOUR, HOUR, 2 * HOUR, 8 * HOUR, DAY, HOUR];
    let request = world.claim(op("k").window(HOUR)).new().request_id();
    for (attempt, window) in (2..).zip(windows) {
        world.clock.advance(LANE_OF_AN_HOUR / 8);
        let (ticket, prior) = world.claim(op("k").window(window)).resumed();
        assert_eq!(prior.attempt() + 1, attempt);
        assert_eq!((ticket.request_id(), ticket.attempt()), (request, attempt));
        drop(ticket);
        if attempt % 2 == 0 {
            world.reopen();
        }
        let entry = world.lookup("k").unwrap();
        assert_eq!((entry.request_id(), entry.attempt()), (request, attempt));
        assert_eq!(world.wait(world.store.in_flight()).unwrap().len(), 1);
        assert_eq!(world.store.scan(Filter::new()).count(), 1);
    }
    eventually("several files are in use", || logs(&world).len() > 4);
}

#[test]
fn a_settled_operation_stays_settled_while_files_before_it_go() {
    let mut world = fresh(|options| options);
    let ticket = world.claim(op("k").window(HOUR)).new();
    world.wait(ticket.complete(Reply::new("done").retention(DAY))).unwrap();
    settle_at(&world, 2);
    for hour in 1..24 {
        world.clock.advance(HOUR);
        if hour % 8 == 0 {
            world.reopen();
        }
        assert_eq!(world.claim(op("k")).completed().body(), b"done", "after {hour} h");
    }
    settle_at(&world, 1);
    world.clock.advance(HOUR);
    settle_at(&world, 0);
    assert!(world.lookup("k").is_none());
}

#[test]
fn a_short_retention_ends_on_time_and_no_older_record_comes_back() {
    let mut world = fresh(|options| options);
    let ticket = world.claim(op("k").window(DAY)).new();
    let request = ticket.request_id();
    // Keeps the claim's file for longer than the claim.
    world.clock.advance(4 * HOUR);
    record(&world, "keeper", DAY);
    world.clock.advance(20 * HOUR - 2 * MINUTE);
    world.wait(ticket.complete(Reply::new("done").retention(MINUTE))).unwrap();
    assert_eq!(world.claim(op("k")).completed().body(), b"done");
    world.clock.advance(MINUTE);
    for _ in 0..5 {
        assert!(world.lookup("k").is_none(), "it came back");
        assert!(world.wait(world.store.lookup_request(request)).unwrap().is_none());
        assert_eq!(world.wait(world.store.in_flight()).unwrap().len(), 0);
        world.clock.advance(HOUR);
        world.reopen();
    }
    assert!(world.lookup("keeper").is_none(), "its own window is over");
    let ticket = world.claim(op("k")).new();
    assert_eq!(ticket.attempt(), 1);
    assert_ne!(ticket.request_id(), request);
}

#[test]
fn a_record_shortened_at_once_is_forgotten_on_time_as_well() {
    let mut world = fresh(|options| options.window(DAY));
    let ticket = world.claim(op("k")).new();
    world.wait(ticket.fail(Reply::new("broken").retention(MINUTE))).unwrap();
    world.clock.advance(MINUTE - MILLI);
    assert_eq!(world.claim(op("k")).failed().body(), b"broken");
    world.clock.advance(MILLI);
    assert!(world.lookup("k").is_none());
    world.reopen();
    assert!(world.lookup("k").is_none());
    world.clock.advance(HOUR);
    world.reopen();
    assert_eq!(world.claim(op("k")).new().attempt(), 1);
}

#[test]
fn a_forgotten_operation_does_not_come_back_as_an_older_record() {
    let mut world = fresh(|options| options.window(DAY));
    let ticket = world.claim(op("k")).new();
    world.wait(ticket.complete("done")).unwrap();
    record(&world, "keeper", DAY);
    // Forgotten in another file than it was completed in.
    world.clock.advance(LANE_OF_A_DAY / 8);
    assert!(world.wait(world.store.forget("acme", "k")).unwrap());
    settle_at(&world, 2);
    for hour in 0..20 {
        assert!(world.lookup("k").is_none(), "it came back after {hour} h");
        if hour % 4 == 0 {
            world.reopen();
        }
        world.clock.advance(HOUR);
    }
    assert_eq!(world.claim(op("k")).new().attempt(), 1);
}

#[test]
fn an_operation_forgotten_and_claimed_again_is_its_new_life_alone() {
    let mut world = fresh(|options| options.window(DAY));
    world.wait(world.claim(op("k")).new().complete("old")).unwrap();
    world.clock.advance(LANE_OF_A_DAY / 8);
    assert!(world.wait(world.store.forget("acme", "k")).unwrap());
    let ticket = world.claim(op("k").window(HOUR)).new();
    let request = ticket.request_id();
    world.wait(ticket.complete("new")).unwrap();
    world.reopen();
    let reply = world.claim(op("k")).completed();
    assert_eq!((reply.body(), reply.request_id()), (&b"new"[..], Some(request)));
    world.clock.advance(HOUR);
    assert!(world.lookup("k").is_none());
    world.reopen();
    assert!(world.lookup("k").is_none(), "the old life came back");
}

#[test]
fn an_operation_that_is_renewed_over_many_files_stays_one() {
    let mut world = fresh(|options| options);
    let operation = op("k").window(MINUTE).lease(HOUR).window_from(WindowFrom::FirstClaim);
    let ticket = world.claim(operation).new();
    for _ in 0..12 {
        world.clock.advance(50 * MINUTE);
        world.wait(ticket.renew(HOUR)).unwrap();
        assert_eq!(world.claim(op("k")).in_flight().request_id(), ticket.request_id());
    }
    settle_at(&world, 2);
    world.reopen();
    let entry = world.lookup("k").unwrap();
    assert_eq!((entry.state(), entry.attempt()), (EntryState::Lapsed, 1));
    assert_eq!(entry.request_id(), ticket.request_id());
    assert_eq!(world.wait(world.store.in_flight()).unwrap().len(), 1);
}

#[test]
fn the_list_of_what_lacks_a_reply_holds_across_files() {
    let mut world = fresh(|options| options.window(DAY).lease(DAY));
    let claim = |key: &str| {
        world.clock.advance(LANE_OF_A_DAY / 8);
        world.claim(op(key)).new()
    };
    let [a, b, c, d] = ["a", "b", "c", "d"].map(claim);
    settle_at(&world, 4);
    world.wait(b.complete("done")).unwrap();
    world.wait(d.fail("broken")).unwrap();
    let expected = [a.request_id(), c.request_id()];
    for _ in 0..2 {
        let listed = world.wait(world.store.in_flight()).unwrap();
        let mut listed: Vec<_> = listed.iter().map(justonce::Entry::request_id).collect();
        listed.sort();
        assert_eq!(listed, expected);
        assert_eq!(world.store.stats().unanswered, 2);
        world.reopen();
    }
}

#[test]
fn a_file_of_events_vanishes_when_their_windows_are_over() {
    let world = fresh(|options| options.lease(HOUR));
    record(&world, "event", MINUTE);
    settle_at(&world, 1);
    world.clock.advance(MINUTE);
    settle_at(&world, 0);
}

#[test]
fn a_file_that_is_ready_late_leads_to_no_number_being_given_twice() {
    let (directory, clock) = (FaultyDirectory::default(), ManualClock::new());
    let open = || Options::new().clock(&clock).open_in(Arc::new(directory.clone())).unwrap();
    let record =
        |store: &justonce::Store, key: &str| store.record_once(op(key).window(DAY)).wait().unwrap();
    // The first commit comes before the file that was to be ready for it, and makes its own.
    directory.hold("00000001.redb.tmp");
    let store = open();
    eventually("that file is being made", || directory.is_holding());
    assert!(record(&store, "a"));
    directory.let_go();
    eventually("both files are there", || store.stats().generations == 2);
    store.close().wait().unwrap();

    let store = open();
    clock.advance(LANE_OF_A_DAY / 8);
    assert!(record(&store, "b"));
    eventually("a third file is there", || store.stats().generations == 3);
    store.close().wait().unwrap();

    let store = open();
    assert!(!record(&store, "a"), "its file was replaced by another of the same number");
    assert!(!record(&store, "b"));
}

#[test]
fn what_was_being_made_when_a_run_was_cut_off_is_removed() {
    let mut world = fresh(|options| options);
    record(&world, "k", HOUR);
    settle_at(&world, 1);
    world.store.close().wait().unwrap();
    let files = world.files();
    for name in ["00000099.redb", "00000099.redb.tmp", "00000007.redb.tmp", "store.redb.tmp"] {
        std::fs::write(world.path().join(name), "half made").unwrap();
    }
    world.reopen();
    assert_eq!(world.files(), files);
    assert!(!world.store.record_once(op("k")).wait().unwrap());
}

#[test]
fn what_others_put_beside_a_store_is_left_alone() {
    let mut world = fresh(|options| options);
    record(&world, "k", HOUR);
    world.store.close().wait().unwrap();
    let foreign = ["notes.txt", "notes.txt.tmp", "1.redb", "copy of 00000001.redb"];
    for name in foreign {
        std::fs::write(world.path().join(name), name).unwrap();
    }
    world.reopen();
    for name in foreign {
        assert_eq!(std::fs::read(world.path().join(name)).unwrap(), name.as_bytes());
    }
}

#[test]
fn the_disk_gets_its_space_back() {
    let world = fresh(|options| options.generation_bytes(1 << 20));
    let mut peaks = Vec::new();
    for round in 0..3 {
        fill(&world, &format!("round {round}"), 4_000);
        peaks.push(disk_bytes(&world));
        world.clock.advance(HOUR);
        settle_at(&world, 0);
        let left = disk_bytes(&world);
        assert!(left * 2 < peaks[0], "{left} bytes of {} are left", peaks[0]);
    }
    assert!(peaks.iter().all(|peak| *peak < peaks[0] * 2), "it grows: {peaks:?}");
}
