//! Sealed or open, a record answers the same; and what seals when, and goes when.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::unchecked_time_subtraction,
    clippy::print_stderr,
    reason = "a test"
)]

#[path = "../common/mod.rs"]
mod common;
mod histories;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::*;
use justonce::{
    Claim, EntryState, ErrorKind, Filter, Operation, Options, Reply, RequestId, Store, Ticket, Why,
    WindowFrom,
};

const MILLI: Duration = Duration::from_millis(1);

/// Windows of three lanes, a lease longer than any default still in the same.
const SHORT: Duration = Duration::from_hours(2);
const MONTH: Duration = Duration::from_hours(30 * 24);

/// Lanes are powers of two: this is the one of records kept for a day.
const LANE_OF_A_DAY: Duration = Duration::from_millis(1 << 27);

/// What comes between one call and the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restart {
    Never,
    Clean,
    CutOff,
}

const RESTARTS: [Restart; 3] = [Restart::Never, Restart::Clean, Restart::CutOff];

/// A store in which each record begins a generation of its lane.
fn sealing(more: impl FnOnce(Options) -> Options) -> World {
    World::on_faulty_disk(|options| more(options.generation_bytes(1)))
}

fn restart(world: &mut World, how: Restart) {
    match how {
        Restart::Never => {}
        Restart::Clean => assert!(world.reopen()),
        Restart::CutOff => world.cut_off(),
    }
}

/// An owner of an operation that has one, or had one before the store was opened again.
#[track_caller]
fn owner(world: &World, operation: Operation, before: Ticket, how: Restart) -> Ticket {
    if how == Restart::Never {
        return before;
    }
    let (ticket, prior) = world.claim(operation).resumed();
    assert_eq!(prior.why(), Why::Restart);
    assert_eq!(ticket.request_id(), before.request_id());
    ticket
}

fn requests(world: &World, filter: Filter) -> Vec<RequestId> {
    let entries = world.store.scan(filter.project("acme"));
    let mut requests: Vec<_> = entries.map(|entry| entry.unwrap().request_id()).collect();
    requests.sort();
    requests
}

fn interrupted(world: &World) -> Vec<RequestId> {
    let entries = world.store.in_flight().wait().unwrap();
    let mut requests: Vec<_> = entries.iter().map(justonce::Entry::request_id).collect();
    requests.sort();
    requests
}

/// What a look from every side shows of the one operation there is.
#[track_caller]
fn assert_is(world: &World, request: RequestId, state: EntryState) {
    let entry = world.lookup("k").unwrap();
    assert_eq!((entry.request_id(), entry.state()), (request, state));
    let entry = world.store.lookup_request(request).wait().unwrap().unwrap();
    assert_eq!(entry.state(), state);
    assert_eq!(requests(world, Filter::new()), [request]);
    assert_eq!(requests(world, Filter::new().state(state)), [request]);
    let is_open = matches!(state, EntryState::InFlight | EntryState::Lapsed | EntryState::Released);
    assert_eq!(interrupted(world), if is_open { vec![request] } else { Vec::new() });
    assert_eq!(world.store.stats().unanswered, u64::from(is_open));
}

#[test]
fn the_configuration_of_sealed_records_seals_them() {
    with_store(|world| {
        let all_but_the_last = |world: &World| {
            eventually("all but the last is sealed", || world.sealed() == world.written() - 1);
        };
        let ticket = world.claim(op("k")).new();
        if world.seals {
            all_but_the_last(world);
        }
        world.wait(ticket.complete("done")).unwrap();
        if world.seals {
            all_but_the_last(world);
            world.reopen();
            assert_eq!(world.claim(op("k")).completed().body(), b"done");
            all_but_the_last(world);
        }
    });
}

/// The life of an operation, each step of it sealed and looked at after a restart.
fn live(claimed: Duration, kept: Duration, how: Restart) {
    eprintln!("claimed for {claimed:?}, kept for {kept:?}, restarted: {how:?}");
    let mut world = sealing(|options| options);
    let operation = || op("k").window(claimed).fingerprint("body");
    let lanes: BTreeSet<_> = [claimed, kept].into();
    let lanes: Vec<_> = lanes.into_iter().collect();
    let settle = |world: &mut World| {
        world.seal(&lanes, 0);
        restart(world, how);
    };
    let of_the_gone = if how == Restart::Never { EntryState::InFlight } else { EntryState::Lapsed };

    let ticket = world.claim(operation()).new();
    let request = ticket.request_id();
    settle(&mut world);
    assert_is(&world, request, of_the_gone);
    let ticket = owner(&world, operation(), ticket, how);
    world.wait(ticket.checkpoint("a note")).unwrap();
    settle(&mut world);
    assert_is(&world, request, of_the_gone);
    assert_eq!(world.lookup("k").unwrap().checkpoint(), Some(&b"a note"[..]));

    let ticket = owner(&world, operation(), ticket, how);
    world.wait(ticket.release("busy")).unwrap();
    settle(&mut world);
    assert_is(&world, request, EntryState::Released);

    let (ticket, prior) = world.claim(operation().window(kept)).resumed();
    assert_eq!((prior.why(), prior.reason()), (Why::Released, Some("busy")));
    assert_eq!(ticket.request_id(), request);
    settle(&mut world);
    assert_is(&world, request, of_the_gone);

    let ticket = owner(&world, operation().window(kept), ticket, how);
    world.wait(ticket.complete(Reply::new("done").retention(kept))).unwrap();
    settle(&mut world);
    assert_is(&world, request, EntryState::Completed);
    let reply = world.claim(operation()).completed();
    assert_eq!((reply.body(), reply.request_id()), (&b"done"[..], Some(request)));
    assert_eq!(world.claim(op("k").fingerprint("other")).mismatch().request_id(), request);

    assert!(world.wait(world.store.forget("acme", "k")).unwrap());
    settle(&mut world);
    assert!(world.lookup("k").is_none());
    assert!(world.store.lookup_request(request).wait().unwrap().is_none());
    assert!(requests(&world, Filter::new()).is_empty());
    assert!(interrupted(&world).is_empty());

    let ticket = world.claim(operation()).new();
    let again = ticket.request_id();
    assert_ne!(again, request);
    settle(&mut world);
    assert_is(&world, again, of_the_gone);
    assert!(world.store.lookup_request(request).wait().unwrap().is_none());
    let ticket = owner(&world, operation(), ticket, how);
    world.wait(ticket.fail("broken")).unwrap();
    settle(&mut world);
    assert_is(&world, again, EntryState::Failed);
    assert_eq!(world.claim(operation()).failed().body(), b"broken");
}

#[test]
fn an_operation_whose_records_are_all_sealed_answers_by_the_newest() {
    for how in RESTARTS {
        for (claimed, kept) in [(DAY, DAY), (DAY, MONTH), (DAY, SHORT), (SHORT, MONTH)] {
            live(claimed, kept, how);
        }
    }
}

/// The older record's lane is open, the newer's is sealed.
#[test]
fn a_sealed_record_is_newer_than_one_in_an_open_file() {
    for how in RESTARTS {
        let mut world = sealing(|options| options);
        let ticket = world.claim(op("k").window(DAY)).new();
        let request = ticket.request_id();
        world.wait(ticket.complete(Reply::new("done").retention(MONTH))).unwrap();
        world.seal(&[MONTH], 1);
        restart(&mut world, how);
        let claim = world.claim(op("k"));
        assert!(matches!(claim, Claim::Completed(_)), "restarted: {how:?}, answered {claim:?}");
        assert_eq!(claim.completed().body(), b"done");
        assert_is(&world, request, EntryState::Completed);
    }
}

/// As one above, for records that are kept as long: what is left of that falls into another lane.
#[test]
fn what_changed_in_another_lane_does_not_come_back_from_an_open_file() {
    let lane = Duration::from_millis(1 << 26);
    for how in RESTARTS {
        let mut world = sealing(|options| options.window_from(WindowFrom::FirstClaim));
        let claim = |key| world.claim(op(key).window(lane + MINUTE)).new();
        let [done, forgotten] = ["k", "forgotten"].map(claim);
        let request = done.request_id();
        world.clock.advance(2 * MINUTE);
        world.wait(done.complete("done")).unwrap();
        assert!(world.wait(world.store.forget_forced("acme", "forgotten")).unwrap());
        drop(forgotten);
        world.seal(&[lane], 1);
        restart(&mut world, how);
        let found = world.lookup("k").map(|entry| entry.state());
        assert_eq!(found, Some(EntryState::Completed), "restarted: {how:?}");
        let found = world.lookup("forgotten").map(|entry| entry.state());
        assert_eq!(found, None, "restarted: {how:?}");
        assert_is(&world, request, EntryState::Completed);
        assert_eq!(world.claim(op("forgotten")).new().attempt(), 1);
    }
}

/// As one above, with the newer record in an open file and the older ones sealed.
#[test]
fn a_record_in_an_open_file_is_newer_than_sealed_ones() {
    for how in RESTARTS {
        let mut world = sealing(|options| options);
        let ticket = world.claim(op("k").window(DAY)).new();
        let request = ticket.request_id();
        world.seal(&[DAY], 0);
        world.wait(ticket.complete(Reply::new("done").retention(MONTH))).unwrap();
        restart(&mut world, how);
        assert_is(&world, request, EntryState::Completed);
        world.seal(&[MONTH], 1);
        restart(&mut world, how);
        assert_is(&world, request, EntryState::Completed);
    }
}

#[test]
fn operations_that_share_tags_are_told_apart() {
    const COUNT: usize = 500;
    for bits in [0, 1, 8] {
        let more = |options: Options| options.tag_bits(bits).generation_bytes(4096);
        let mut world = World::on_faulty_disk(more);
        let key = |number: usize| format!("key {number}");
        let claims: Vec<_> = (0..COUNT).map(|number| world.store.claim(op(&key(number)))).collect();
        let tickets: Vec<_> = claims.into_iter().map(|claim| claim.wait().unwrap().new()).collect();
        let requests: Vec<_> = tickets.iter().map(Ticket::request_id).collect();
        let replies = tickets.into_iter().zip(0..).map(|(ticket, number)| {
            assert!(number < COUNT);
            // One in three stays without a reply.
            (number % 3 != 0).then(|| ticket.complete(key(number)))
        });
        for reply in replies.flatten().collect::<Vec<_>>() {
            reply.wait().unwrap();
        }
        // Closes the last of them to appends.
        world.clock.advance(LANE_OF_A_DAY / 8);
        let all_but_the_spare =
            |world: &World| world.sealed() + 1 == world.store.stats().generations as u64;
        eventually("all is sealed", || all_but_the_spare(&world));
        for how in RESTARTS {
            restart(&mut world, how);
            eventually("all is sealed", || all_but_the_spare(&world));
            assert!(world.sealed() > 4, "{} files", world.sealed());
            for (number, request) in requests.iter().enumerate() {
                let entry = world.lookup(&key(number)).unwrap();
                assert_eq!(entry.request_id(), *request, "{bits} bits: key {number}");
                let reply = entry.reply().map(|reply| reply.body());
                let expected = (number % 3 != 0).then(|| key(number));
                assert_eq!(reply, expected.as_deref().map(str::as_bytes), "key {number}");
                assert!(world.lookup(&format!("no {number}")).is_none(), "{bits} bits");
            }
            assert_eq!(interrupted(&world).len(), COUNT.div_ceil(3));
            let scanned: BTreeSet<_> = self::requests(&world, Filter::new()).into_iter().collect();
            assert_eq!(scanned.len(), COUNT);
            assert_eq!(self::requests(&world, Filter::new()).len(), COUNT, "one is there twice");
        }
    }
}

/// Brings operations of two projects into all states; what was told of each, by request.
fn bring(world: &World) -> BTreeMap<RequestId, (&'static str, String, EntryState)> {
    let mut told = BTreeMap::new();
    for project in ["acme", "emca"] {
        for number in 0..20 {
            let key = format!("key {number}");
            let operation = Operation::new(project, &key);
            let ticket = world.store.claim(operation).wait().unwrap().new();
            let request = ticket.request_id();
            let state = match number % 5 {
                0 => {
                    ticket.complete("done").wait().unwrap();
                    EntryState::Completed
                }
                1 => {
                    ticket.fail("broken").wait().unwrap();
                    EntryState::Failed
                }
                2 => {
                    ticket.release("busy").wait().unwrap();
                    EntryState::Released
                }
                3 => {
                    ticket.checkpoint("a note").wait().unwrap();
                    drop(ticket);
                    EntryState::Lapsed
                }
                _ => {
                    ticket.mark_dispatched().wait().unwrap();
                    // Its lease alone ends it.
                    let _ = ticket.detach();
                    EntryState::InFlight
                }
            };
            told.insert(request, (project, key, state));
        }
    }
    told
}

#[test]
fn a_scan_shows_each_operation_once_and_in_its_newest_state() {
    for how in RESTARTS {
        let mut world = sealing(|options| options);
        let mut told = bring(&world);
        world.seal(&[DAY], 0);
        restart(&mut world, how);
        for (_, _, state) in told.values_mut() {
            if how != Restart::Never && *state == EntryState::InFlight {
                *state = EntryState::Lapsed;
            }
        }
        let states = [
            EntryState::InFlight,
            EntryState::Lapsed,
            EntryState::Released,
            EntryState::Completed,
            EntryState::Failed,
        ];
        for project in ["acme", "emca"] {
            for state in [None].into_iter().chain(states.map(Some)) {
                let filter = Filter::new().project(project);
                let filter = match state {
                    Some(state) => filter.state(state),
                    None => filter,
                };
                let shown: Vec<_> = world.store.scan(filter).map(Result::unwrap).collect();
                let expected = told
                    .values()
                    .filter(|(of, _, is)| *of == project && state.is_none_or(|state| state == *is));
                assert_eq!(shown.len(), expected.count(), "{how:?}, {project}, {state:?}");
                for entry in shown {
                    let (of, key, state) = &told[&entry.request_id()];
                    assert!(entry.is_of(&world.store, of));
                    assert_eq!(entry.state(), *state, "{how:?}: {of} {key}");
                }
            }
        }
        let is_open = |state| !matches!(state, EntryState::Completed | EntryState::Failed);
        let open: Vec<_> =
            told.iter().filter(|(_, told)| is_open(told.2)).map(|(request, _)| *request).collect();
        assert_eq!(interrupted(&world), open, "{how:?}");
        assert_eq!(world.store.stats().unanswered, open.len() as u64, "{how:?}");
    }
}

#[test]
fn what_is_sealed_can_be_forgotten() {
    for how in RESTARTS {
        let mut world = sealing(|options| options);
        let told = bring(&world);
        world.seal(&[DAY], 0);
        assert_eq!(
            world.refusal(world.store.forget("acme", "key 4")),
            ErrorKind::InFlight,
            "it has an owner"
        );
        let purged = world.store.forget_project("acme").wait().unwrap();
        assert_eq!((purged.forgotten, purged.in_flight), (16, 4));
        assert!(world.store.forget("emca", "key 0").wait().unwrap());
        assert!(world.store.forget_forced("emca", "key 4").wait().unwrap());
        world.seal(&[DAY], 0);
        restart(&mut world, how);
        assert!(!world.store.forget("emca", "key 0").wait().unwrap(), "it is gone already");
        for (request, (project, key, state)) in told {
            let is_left = match project {
                "acme" => state == EntryState::InFlight,
                _ => key != "key 0" && key != "key 4",
            };
            let found = world.store.lookup_request(request).wait().unwrap();
            assert_eq!(found.is_some(), is_left, "{how:?}: {project} {key}");
            if !is_left {
                let claim = world.store.claim(Operation::new(project, &key)).wait().unwrap();
                assert_eq!(claim.new().attempt(), 1, "{how:?}: {project} {key}");
            }
        }
        world.seal(&[DAY], 0);
        let purged = world.store.forget_project("acme").wait().unwrap();
        let all = if how == Restart::Never { (16, 4) } else { (20, 0) };
        assert_eq!((purged.forgotten, purged.in_flight), all, "{how:?}");
    }
}

#[test]
fn what_got_its_reply_after_its_claim_was_sealed_is_not_listed_as_interrupted() {
    for how in RESTARTS {
        for replies_are_sealed in [false, true] {
            let mut world = sealing(|options| options);
            let claim = |number: usize| world.claim(op(&number.to_string())).new();
            let tickets: Vec<_> = (0..12).map(claim).collect();
            let requests: Vec<_> = tickets.iter().map(Ticket::request_id).collect();
            world.seal(&[DAY], 0);
            for (number, ticket) in tickets.into_iter().enumerate() {
                if number % 2 == 0 {
                    ticket.complete("done").wait().unwrap();
                } else {
                    drop(ticket);
                }
            }
            if replies_are_sealed {
                world.seal(&[DAY], 0);
            }
            restart(&mut world, how);
            let mut expected: Vec<_> = requests.into_iter().skip(1).step_by(2).collect();
            expected.sort();
            assert_eq!(interrupted(&world), expected, "{how:?}");
            assert_eq!(world.store.stats().unanswered, 6, "{how:?}");
            world.seal(&[DAY], 0);
            restart(&mut world, how);
            assert_eq!(interrupted(&world), expected, "{how:?}");
            assert_eq!(world.store.stats().unanswered, 6, "{how:?}");
        }
    }
}

/// The generations' files.
fn logs(world: &World) -> Vec<String> {
    let names = world.files().into_iter();
    names.filter(|name| name.starts_with(|c: char| c.is_ascii_digit())).collect()
}

#[test]
fn sealed_files_go_when_their_records_are_over() {
    for (how, is_closed_meanwhile) in
        [(Restart::Never, false), (Restart::Clean, false), (Restart::Clean, true)]
    {
        let mut world = sealing(|options| options);
        let keys: Vec<_> = (0..6).map(|number| number.to_string()).collect();
        let requests: Vec<_> = keys
            .iter()
            .map(|key| {
                let ticket = world.claim(op(key).window(SHORT)).new();
                let request = ticket.request_id();
                ticket.complete("done").wait().unwrap();
                request
            })
            .collect();
        assert!(world.store.record_once(op("kept").window(MONTH)).wait().unwrap());
        world.seal(&[SHORT, MONTH], 0);
        let before = logs(&world);
        assert_eq!(before.len(), 12 + 1 + 2 + 1, "{before:?}");
        restart(&mut world, how);
        assert_eq!(logs(&world), before);
        world.clock.advance(SHORT - MILLI);
        // Those that were open are sealed too by now.
        eventually("the short ones are sealed", || world.sealed() > 12 + 1);
        for key in &keys {
            assert_eq!(world.claim(op(key)).completed().body(), b"done");
        }
        if is_closed_meanwhile {
            world.store.close().wait().unwrap();
        }
        world.clock.advance(MILLI);
        if is_closed_meanwhile {
            world.reopen();
        }
        let is_gone = |name: &String| !logs(&world).contains(name);
        eventually("the short ones are gone", || {
            before.iter().filter(|name| is_gone(name)).count() > 12
        });
        eventually("what is listed is there", || {
            logs(&world).len() == world.store.stats().generations
        });
        for (key, request) in keys.iter().zip(requests) {
            assert!(world.lookup(key).is_none());
            assert!(world.store.lookup_request(request).wait().unwrap().is_none());
            let ticket = world.claim(op(key)).new();
            assert_eq!(ticket.attempt(), 1);
            assert_ne!(ticket.request_id(), request);
        }
        assert!(!world.store.record_once(op("kept").window(MONTH)).wait().unwrap());
    }
}

#[test]
fn a_file_is_sealed_when_its_time_is_over_though_nothing_more_comes() {
    for how in RESTARTS {
        let mut world = World::on_faulty_disk(|options| options);
        let ticket = world.claim(op("k")).new();
        let request = ticket.request_id();
        world.wait(ticket.complete("done")).unwrap();
        eventually("the spare is there", || world.store.stats().generations == 2);
        world.clock.advance(LANE_OF_A_DAY / 8 - MILLI);
        restart(&mut world, how);
        assert_eq!(world.sealed(), 0);
        world.clock.advance(MILLI);
        eventually("it is sealed", || world.sealed() == 1);
        for _ in 0..2 {
            assert_eq!(world.store.stats().generations, 2);
            assert_is(&world, request, EntryState::Completed);
            restart(&mut world, how);
        }
    }
}

#[test]
fn a_file_whose_time_was_over_before_the_store_was_opened_is_sealed() {
    let mut world = World::on_faulty_disk(|options| options);
    assert!(world.store.record_once(op("k")).wait().unwrap());
    world.store.close().wait().unwrap();
    world.clock.advance(LANE_OF_A_DAY / 8);
    world.reopen();
    eventually("it is sealed", || world.sealed() == 1);
    assert!(!world.store.record_once(op("k")).wait().unwrap());
}

#[test]
fn a_file_that_was_not_sealed_when_the_store_was_closed_is_sealed_by_the_next_run() {
    for how in [Restart::Clean, Restart::CutOff] {
        let mut world = sealing(|options| options);
        let key = |number: usize| number.to_string();
        for round in 0..5 {
            for number in 0..8 {
                let key = key(round * 8 + number);
                assert!(world.store.record_once(op(&key)).wait().unwrap());
            }
            restart(&mut world, how);
        }
        eventually("all but the last is sealed", || world.sealed() == 39);
        for number in 0..40 {
            assert!(!world.store.record_once(op(&key(number))).wait().unwrap(), "{number}");
        }
    }
}

/// Sealing closes the file and opens it again, while it is read.
#[test]
fn nobody_notices_while_files_are_sealed() {
    const RECORDS: usize = 1_500;
    const RECORDS_A_FILE: usize = 32;
    // Whatever is read comes from the disk.
    let more = |options: Options| options.generation_bytes(64 << 10).cache_bytes(0);
    let world = World::on_faulty_disk(more);
    let (written, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let key = |number: usize| number.to_string();
    std::thread::scope(|threads| {
        let last_few = || {
            let last = written.load(Ordering::SeqCst);
            last.saturating_sub(2 * RECORDS_A_FILE)..last
        };
        let busy = |look: fn(&Store, &str)| {
            let (is_over, store) = (&is_over, &world.store);
            move || {
                while !is_over.load(Ordering::SeqCst) {
                    last_few().for_each(|number| look(store, &key(number)));
                }
            }
        };
        threads.spawn(busy(|store, key| {
            let entry = store.lookup("acme", key).wait().unwrap().unwrap();
            assert_eq!(entry.state(), EntryState::Released);
        }));
        threads.spawn(busy(|store, key| {
            let claim = store.claim(op(key).fingerprint("b")).wait().unwrap();
            assert_eq!(claim.mismatch().state(), EntryState::Released);
        }));
        threads.spawn(busy(|store, _| {
            store.in_flight().wait().unwrap();
        }));
        threads.spawn(busy(|store, _| {
            store.scan(Filter::new()).for_each(|entry| drop(entry.unwrap()));
        }));
        let note = vec![b'x'; 2 << 10];
        let wrote = (0..RECORDS).try_for_each(|number| {
            let claim = world.store.claim(op(&key(number)).fingerprint("a")).wait()?;
            let ticket = claim.new();
            ticket.checkpoint(note.clone()).wait()?;
            ticket.release("busy").wait()?;
            written.fetch_add(1, Ordering::SeqCst);
            Ok::<_, justonce::Error>(())
        });
        is_over.store(true, Ordering::SeqCst);
        wrote.unwrap();
    });
    eventually("some files are sealed", || world.sealed() > 10);
    assert_eq!(interrupted(&world).len(), RECORDS);
}

/// One who is in the middle of a read when the file is closed to be opened read-only.
#[test]
fn a_read_that_goes_on_while_its_file_is_sealed_is_answered() {
    const CLAIMS: usize = 300;
    // One row in a page each, so that a row is found by way of several pages of the disk.
    let world = World::on_faulty_disk(|options| options.cache_bytes(0));
    // Which the claims go to, and to no other that is made in haste.
    eventually("the first file is ready", || world.store.stats().generations == 1);
    let claims: Vec<_> =
        (0..CLAIMS).map(|number| world.store.claim(op(&number.to_string()))).collect();
    for claim in claims {
        let ticket = claim.wait().unwrap().new();
        ticket.checkpoint(vec![b'x'; 3 << 10]).wait().unwrap();
        let _ = ticket.detach();
    }
    eventually("the spare is there", || world.store.stats().generations == 2);
    // A file that was a temporary one when it was opened.
    world.disk().hold_one_read("00000001.redb.tmp");
    let listed = std::thread::scope(|threads| {
        let reading = threads.spawn(|| world.store.in_flight().wait());
        eventually("it reads", || world.disk().is_holding());
        world.clock.advance(LANE_OF_A_DAY / 8);
        // Closing the file waits for the one read, so it cannot be waited for here.
        std::thread::park_timeout(Duration::from_millis(200));
        world.disk().let_go();
        reading.join().unwrap()
    });
    eventually("the file is sealed", || world.sealed() == 1);
    assert_eq!(listed.map(|listed| listed.len()).map_err(|error| error.kind()), Ok(CLAIMS));
}

// Records whose followers are sealed, and are listed no more.

#[test]
fn an_older_record_of_another_lane_is_not_listed_again_if_what_came_between_is_sealed() {
    let mut world = sealing(|options| options);
    let windows @ [first, second, third] = [HOUR, 4 * HOUR, 16 * HOUR];
    let ticket = world.store.claim(op("k").window(first)).wait().unwrap().new();
    ticket.complete(Reply::new("old").retention(second)).wait().unwrap();
    assert!(world.store.forget("acme", "k").wait().unwrap());
    assert!(world.store.record_once(op("k").window(third)).wait().unwrap());
    // The reply and what made it forgotten are sealed when neither is the newest any more.
    world.seal(&windows[1..2], 2);
    world.reopen();
    assert_eq!(world.claim(op("k")).completed().body(), b"");
    world.seal(&windows[2..], 2);
    assert_eq!(world.claim(op("k")).completed().body(), b"");
}

#[test]
fn an_older_record_of_one_file_is_not_listed_again_if_what_came_between_is_sealed() {
    // A little more than two days of one lane, whose files take records for eight hours.
    let window = Duration::from_millis(1 << 27) + MINUTE;
    let mut world = World::on_disk(|options| options.window(window));
    let ticket = world.store.claim(op("k")).wait().unwrap().new();
    world.clock.advance(2 * MINUTE);
    // What is kept a little shorter goes to another lane.
    ticket.complete(Reply::new("old").retention(HOUR)).wait().unwrap();
    assert!(world.store.forget("acme", "k").wait().unwrap());
    assert!(world.store.record_once(op("k")).wait().unwrap());
    world.clock.advance(5 * HOUR);
    eventually("the shorter lane's file is sealed", || world.sealed() == 1);
    world.reopen();
    assert_eq!(world.claim(op("k")).completed().body(), b"");
    assert_eq!(requests(&world, Filter::new()).len(), 1);
    assert!(interrupted(&world).is_empty());
}
