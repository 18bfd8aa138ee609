//! Looking into an open store from outside: what is answered, to whom, and what holds nobody up.

#![cfg(all(feature = "inspect", unix))]
#![allow(clippy::allow_attributes, reason = "lints that fire in some helpers only")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use common::{ClaimExt, HOUR, World, eventually, op, with_store};
use justonce::inspect::{Answer, EntryView, MAX_ASKERS, Octets, Question, StateView, ask, serve};
use justonce::{
    Claim, EntryState, Error, ErrorKind, GenerationState, Operation, Options, Store, Verify, Why,
};

const SOCKET: &str = "inspect.sock";

fn asked(world: &World, question: &Question) -> Result<Vec<Answer>, Error> {
    ask(world.path(), question)?.unwrap().collect()
}

fn entries(answers: Vec<Answer>) -> Vec<EntryView> {
    let entries = answers.into_iter().filter_map(|answer| match answer {
        Answer::Entry(entry) => Some(*entry),
        _ => None,
    });
    entries.collect()
}

fn lookup(key: &str) -> Question {
    Question::Lookup { project: Octets::Text("acme".into()), key: Octets::Text(key.into()) }
}

fn scan(state: Option<StateView>) -> Question {
    Question::Scan { project: None, state, bodies: true }
}

fn completed(world: &World, keys: std::ops::Range<u32>) {
    let calls: Vec<_> =
        keys.map(|key| world.store.record_once(op(&format!("key-{key}")))).collect();
    for call in calls {
        assert!(call.wait().unwrap());
    }
}

#[test]
fn a_question_is_answered_with_what_the_store_would_say() {
    let world = World::on_disk(|options| options.keep_keys(true));
    let _inspector = serve(&world.store).unwrap();
    let ticket = world.claim(op("k").label("classify")).new();
    ticket.release("upstream is down").wait().unwrap();
    let (ticket, _) = world.claim(op("k")).resumed();
    let id = ticket.request_id().to_string();
    ticket.complete("spam").wait().unwrap();
    let owned = world.claim(op("owned")).new();

    let found = entries(asked(&world, &lookup("k")).unwrap());
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].state, found[0].attempt), (StateView::Completed, 2));
    assert_eq!(found[0].request_id, id);
    assert_eq!(found[0].key, Some(Octets::Text("k".into())));
    let reply = found[0].reply.as_ref().unwrap();
    assert_eq!((reply.body_bytes, &reply.body), (4, &Some(Octets::Text("spam".into()))));

    let by_id = entries(asked(&world, &Question::Request { id }).unwrap());
    assert_eq!(by_id, found);
    let none = asked(&world, &lookup("never")).unwrap();
    assert_eq!(none, [Answer::End { count: 0 }]);

    let in_flight = entries(asked(&world, &Question::InFlight).unwrap());
    assert_eq!(in_flight.len(), 1);
    assert_eq!(in_flight[0].request_id, owned.request_id().to_string());

    let project = Octets::Text("acme".into());
    let history = Question::History { project, key: Octets::Text("k".into()) };
    let attempts: Vec<_> = entries(asked(&world, &history).unwrap())
        .iter()
        .map(|entry| (entry.attempt, entry.state, entry.reason.clone()))
        .collect();
    let expected = [
        (2, StateView::Completed, None),
        (2, StateView::InFlight, None),
        (1, StateView::Released, Some("upstream is down".into())),
        (1, StateView::InFlight, None),
    ];
    assert_eq!(attempts, expected);

    let answers = asked(&world, &Question::Stats).unwrap();
    assert!(matches!(&answers[0], Answer::Stats(stats) if stats.claims.new == 2), "{answers:?}");
    let answers = asked(&world, &Question::Generations).unwrap();
    assert!(answers.iter().any(|of| matches!(of, Answer::Generation(of) if of.records == 5)));
}

#[test]
fn a_scan_tells_each_operation_once_and_no_other() {
    let world = World::on_disk(|options| options);
    let _inspector = serve(&world.store).unwrap();
    completed(&world, 0..3_000);
    let _owned: Vec<_> = (0..7).map(|of| world.claim(op(&format!("owned-{of}"))).new()).collect();
    world.store.record_once(Operation::new("other", "k")).wait().unwrap();

    let all = asked(&world, &scan(None)).unwrap();
    assert_eq!(all.last(), Some(&Answer::End { count: 3_008 }));
    let mut ids: Vec<_> = entries(all).into_iter().map(|entry| entry.request_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3_008);

    let owned = entries(asked(&world, &scan(Some(StateView::InFlight))).unwrap());
    assert_eq!(owned.len(), 7);
    let project = Some(Octets::Text("other".into()));
    let others = asked(&world, &Question::Scan { project, state: None, bodies: false }).unwrap();
    assert_eq!(entries(others).len(), 1);
}

#[test]
fn a_store_is_verified_from_outside_and_damage_is_named() {
    let mut world = World::on_disk(|options| options.generation_bytes(1));
    completed(&world, 0..4);
    eventually("a file is sealed", || world.sealed() >= 3);
    world.reopen();
    let _inspector = serve(&world.store).unwrap();
    let verify = Question::Verify { bytes_per_second: None };
    let sound = asked(&world, &verify).unwrap();
    let told =
        |answers: &[Answer]| answers.iter().filter(|of| matches!(of, Answer::Damage(_))).count();
    assert_eq!(told(&sound), 0);
    assert!(sound.iter().any(|of| matches!(of, Answer::Verified(of) if of.records == 4)));

    let sealed = world.store.generations().unwrap();
    let sealed = sealed.iter().find(|of| of.state == GenerationState::Sealed).unwrap();
    let name = format!("{:08}.redb", sealed.id);
    let path = world.path().join(&name);
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let damaged = asked(&world, &verify).unwrap();
    assert!(told(&damaged) >= 1, "{damaged:?}");
    let names = |of: &Answer| matches!(of, Answer::Damage(of) if of.message.contains(&name));
    assert!(damaged.iter().any(names), "{damaged:?}");
}

#[test]
fn the_socket_is_for_its_user_alone_and_goes_with_the_inspector() {
    let world = World::on_disk(|options| options);
    let inspector = serve(&world.store).unwrap();
    let mode = std::fs::metadata(world.path().join(SOCKET)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(inspector);
    assert!(!world.files().contains(&SOCKET.to_owned()));
    assert!(ask(world.path(), &Question::Stats).unwrap().is_none());
    let _again = serve(&world.store).unwrap();
    asked(&world, &Question::Stats).unwrap();
}

#[test]
fn an_inspector_that_is_kept_keeps_no_store_open() {
    let mut world = World::on_disk(|options| options);
    let inspector = serve(&world.store).unwrap();
    // Dropping the last handle closes it, and the socket is gone before another can open it.
    world.reopen();
    assert!(!world.files().contains(&SOCKET.to_owned()));
    let _next = serve(&world.store).unwrap();
    drop(inspector);
    asked(&world, &Question::Stats).unwrap();

    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let _inspector = serve(&store).unwrap();
    drop(store);
    Store::open(directory.path()).unwrap();
}

#[test]
fn a_socket_left_over_from_a_killed_service_is_replaced() {
    let mut world = World::on_disk(|options| options);
    // Dropped without being removed, as a kill leaves it.
    drop(UnixListener::bind(world.path().join(SOCKET)).unwrap());
    assert!(ask(world.path(), &Question::Stats).unwrap().is_none());
    assert!(world.reopen());
    let _inspector = serve(&world.store).unwrap();
    asked(&world, &Question::Stats).unwrap();
}

#[test]
fn a_file_that_is_no_socket_is_not_replaced() {
    let world = World::on_disk(|options| options);
    std::fs::write(world.path().join(SOCKET), "mine").unwrap();
    assert_eq!(serve(&world.store).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(std::fs::read(world.path().join(SOCKET)).unwrap(), b"mine");
}

#[test]
fn what_cannot_be_served_is_refused_and_says_why() {
    let in_memory = Options::new().in_memory().unwrap();
    assert_eq!(serve(&in_memory).unwrap_err().kind(), ErrorKind::Invalid);

    let world = World::on_disk(|options| options);
    let _inspector = serve(&world.store).unwrap();
    let twice = serve(&world.store).unwrap_err();
    assert!(twice.to_string().contains("served already"), "{twice}");
    asked(&world, &Question::Stats).unwrap();

    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("d".repeat(100));
    let store = Store::open(&deep).unwrap();
    let too_long = serve(&store).unwrap_err();
    assert_eq!(too_long.kind(), ErrorKind::Invalid);
    assert!(too_long.to_string().contains("shorter path"), "{too_long}");
    assert!(ask(&deep, &Question::Stats).unwrap().is_none());

    let closed = World::on_disk(|options| options);
    closed.store.close().wait().unwrap();
    assert_eq!(serve(&closed.store).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_question_that_is_none_is_refused_and_the_next_is_answered() {
    let world = World::on_disk(|options| options);
    let _inspector = serve(&world.store).unwrap();
    let long = format!("{{\"version\":1,\"ask\":\"{}\"}}\n", "x".repeat(20_000));
    let questions = [
        ("hello\n", "invalid"),
        ("{\"version\":1,\"ask\":\"forget\"}\n", "invalid"),
        ("{\"version\":2,\"ask\":\"stats\"}\n", "incompatible"),
        ("{\"version\":1,\"ask\":\"lookup\",\"project\":\"\",\"key\":\"k\"}\n", "invalid"),
        ("{\"version\":1,\"ask\":\"request\",\"id\":\"rr_short\"}\n", "invalid"),
        (&long, "invalid"),
    ];
    for (question, kind) in questions {
        let mut stream = UnixStream::connect(world.path().join(SOCKET)).unwrap();
        let _ = stream.write_all(question.as_bytes());
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        let shown = question.chars().take(60).collect::<String>();
        assert!(line.contains(&format!("\"kind\":\"{kind}\"")), "{shown}: {line}");
    }
    asked(&world, &Question::Stats).unwrap();
}

/// Fills what lies between a service and one who does not read.
fn one_who_does_not_read(world: &World) -> UnixStream {
    let mut stream = UnixStream::connect(world.path().join(SOCKET)).unwrap();
    let question = "{\"version\":1,\"ask\":\"scan\",\"bodies\":true}\n";
    stream.write_all(question.as_bytes()).unwrap();
    stream
}

#[test]
fn one_who_takes_nothing_holds_up_neither_claims_nor_others_nor_closing() {
    let mut world = World::on_disk(|options| options);
    let _inspector = serve(&world.store).unwrap();
    completed(&world, 0..5_000);
    let _slow: Vec<_> = (1..MAX_ASKERS).map(|_| one_who_does_not_read(&world)).collect();
    // What they were to be told does not fit in between, so their threads are still there.
    completed(&world, 5_000..5_100);
    asked(&world, &Question::Stats).unwrap();
    // Closing ends them before their patience is over; otherwise it would hang here for it.
    assert!(world.reopen());
    assert_eq!(world.lookup("key-5050").unwrap().state(), EntryState::Completed);
}

#[test]
fn more_askers_than_are_answered_are_told_so_and_room_comes_back() {
    let world = World::on_disk(|options| options);
    let _inspector = serve(&world.store).unwrap();
    completed(&world, 0..5_000);
    let slow: Vec<_> = (0..MAX_ASKERS).map(|_| one_who_does_not_read(&world)).collect();
    eventually("the next is refused", || {
        asked(&world, &Question::Stats).is_err_and(|error| error.kind() == ErrorKind::Busy)
    });
    drop(slow);
    eventually("there is room again", || asked(&world, &Question::Stats).is_ok());
}

#[test]
fn one_who_leaves_in_the_middle_is_let_go() {
    let world = World::on_disk(|options| options);
    let _inspector = serve(&world.store).unwrap();
    completed(&world, 0..5_000);
    for _ in 0..3 * MAX_ASKERS {
        let mut stream = one_who_does_not_read(&world);
        stream.read_exact(&mut [0; 1]).unwrap_or_default();
        drop(stream);
        // Once it is seen to be gone there is room for the next.
        eventually("there is room", || asked(&world, &Question::Stats).is_ok());
    }
}

#[test]
fn a_verification_ends_when_nobody_waits_for_it() {
    let world = World::on_disk(|options| options);
    completed(&world, 0..5_000);
    let mut asked = 0;
    let stopped = world.store.verify(Verify::new().stop_when(|| {
        asked += 1;
        asked == 2
    }));
    assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(asked, 2);
    assert!(world.store.verify(Verify::new().stop_when(|| false)).unwrap().is_sound());
}

#[test]
fn an_inspector_is_dropped_at_once_while_a_slow_verification_runs() {
    let world = World::on_disk(|options| options);
    let inspector = serve(&world.store).unwrap();
    completed(&world, 0..50_000);
    // 1 MiB a second: seconds of it.
    let verify = Question::Verify { bytes_per_second: Some(1 << 20) };
    let mut answers = ask(world.path(), &verify).unwrap().unwrap();
    assert!(matches!(answers.next(), Some(Ok(Answer::Progress(_)))));
    drop(inspector);
    assert!(answers.any(|answer| answer.is_err()), "it was verified to its end");
}

#[test]
fn histories_tell_how_each_attempt_ended() {
    with_store(|world| {
        let ticket = world.claim(op("k").lease(HOUR)).new();
        world.wait(ticket.mark_dispatched()).unwrap();
        drop(ticket);
        let (ticket, _) = world.claim(op("k").lease(HOUR)).resumed();
        world.clock.advance(HOUR);
        let late = ticket;
        let (ticket, _) = world.claim(op("k").lease(HOUR)).resumed();
        drop(late);
        world.wait(ticket.release("busy")).unwrap();
        let (ticket, _) = world.claim(op("k")).resumed();
        world.wait(ticket.complete("done")).unwrap();

        let history = world.wait(world.store.history("acme", "k")).unwrap();
        let told: Vec<_> = history
            .iter()
            .map(|entry| (entry.attempt(), entry.state(), entry.prior().map(|of| of.why())))
            .collect();
        let expected = [
            (4, EntryState::Completed, None),
            (4, EntryState::InFlight, None),
            (3, EntryState::Released, Some(Why::Released)),
            (3, EntryState::InFlight, None),
            (2, EntryState::Lapsed, Some(Why::Lease)),
            (1, EntryState::Lapsed, Some(Why::Dropped)),
            (1, EntryState::InFlight, None),
        ];
        assert_eq!(told, expected);
        let id = history[0].request_id();
        assert!(history.iter().all(|entry| entry.request_id() == id));
        assert!(history.is_sorted_by(|newer, older| newer.fence() >= older.fence()));
    });
}

#[test]
fn a_restart_shows_in_the_history() {
    let mut world = World::on_disk(|options| options);
    let ticket = world.claim(op("k")).new();
    // What the ticket's drop would note is gone with the run.
    world.reopen();
    drop(ticket);
    let (ticket, _) = world.claim(op("k")).resumed();
    ticket.complete("done").wait().unwrap();
    let history = world.store.history("acme", "k").wait().unwrap();
    let first = history.last().unwrap();
    assert_eq!(first.prior().map(|of| of.why()), Some(Why::Restart));
    assert_eq!(history.len(), 3);
}

#[test]
fn a_history_is_of_one_request_and_ends_with_it() {
    with_store(|world| {
        assert!(world.wait(world.store.history("acme", "k")).unwrap().is_empty());
        world.wait(world.claim(op("k")).new().complete("secret")).unwrap();
        assert!(world.wait(world.store.forget("acme", "k")).unwrap());
        assert!(world.wait(world.store.history("acme", "k")).unwrap().is_empty());
        let _ticket = world.claim(op("k")).new();
        let history = world.wait(world.store.history("acme", "k")).unwrap();
        assert_eq!(history.len(), 1, "an earlier request shows: {history:?}");
    });
}

#[test]
fn a_history_has_an_end() {
    let world = World::on_disk(|options| options);
    let ticket = world.claim(op("k")).new();
    let renewals = justonce::MAX_HISTORY_ENTRIES + 10;
    let renewals: Vec<_> = (0..renewals).map(|_| ticket.renew(HOUR)).collect();
    for renewal in renewals {
        renewal.wait().unwrap();
    }
    let history = world.store.history("acme", "k").wait().unwrap();
    assert_eq!(history.len(), justonce::MAX_HISTORY_ENTRIES);
}

#[test]
fn generations_tell_what_they_are() {
    let world = World::on_disk(|options| options.generation_bytes(1));
    completed(&world, 0..3);
    eventually("two are sealed", || world.sealed() >= 2);
    eventually("there is a spare", || {
        let all = world.store.generations().unwrap();
        all.iter().any(|of| of.state == GenerationState::Spare && of.bytes > 0)
    });
    let all = world.store.generations().unwrap();
    let of_state = |state| all.iter().filter(move |of| of.state == state);
    assert_eq!(of_state(GenerationState::Sealed).map(|of| of.records).sum::<u64>(), 2);
    assert_eq!(of_state(GenerationState::Open).map(|of| of.records).sum::<u64>(), 1);
    for of in &all {
        let on_disk = std::fs::metadata(world.path().join(format!("{:08}.redb", of.id))).unwrap();
        assert_eq!(of.bytes, on_disk.len());
        assert_eq!(of.retained_until.is_some(), of.records > 0);
    }
}

/// Every file of a store, byte for byte.
fn bytes_of(world: &World) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| {
        let bytes = std::fs::read(world.path().join(&name)).unwrap();
        (name, bytes)
    };
    world.files().into_iter().map(read).collect()
}

#[test]
fn a_store_that_is_opened_unchanged_shows_all_and_stays_byte_for_byte_as_it_was() {
    let mut world = World::on_disk(|options| options.generation_bytes(1).window(HOUR));
    completed(&world, 0..20);
    let ticket = world.claim(op("owned")).new();
    world.store.close().wait().unwrap();
    drop(ticket);
    let before = bytes_of(&world);

    let options = Options::new().clock(&world.clock);
    let looked_at = options.clone().open_unchanged(world.path()).unwrap();
    for key in 0..20 {
        let entry = looked_at.lookup("acme", format!("key-{key}")).wait().unwrap();
        assert_eq!(entry.unwrap().state(), EntryState::Completed);
    }
    let owned = looked_at.lookup("acme", "owned").wait().unwrap().unwrap();
    assert_eq!(owned.state(), EntryState::Lapsed);
    let refused = Options::new().open(world.path()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyOpen);
    assert!(matches!(looked_at.claim(op("new")).wait().unwrap(), Claim::New(_)));
    // Everything is over: the files would go.
    world.clock.advance(HOUR * 24);
    eventually("they are gone from sight", || looked_at.stats().generations <= 2);
    looked_at.close().wait().unwrap();

    assert_eq!(bytes_of(&world), before);
    let nothing = tempfile::tempdir().unwrap();
    let refused = options.clone().open_unchanged(nothing.path()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotAStore);
    assert_eq!(std::fs::read_dir(nothing.path()).unwrap().count(), 0);
    let absent = options.open_unchanged(nothing.path().join("absent")).unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotAStore);
    world.store = Options::new().clock(&world.clock).open(world.path()).unwrap();
    assert!(world.lookup("new").is_none());
}

#[test]
fn answers_stop_when_the_store_closes_under_them() {
    let world = World::on_disk(|options| options);
    let _inspector = serve(&world.store).unwrap();
    completed(&world, 0..5_000);
    let mut answers = ask(world.path(), &scan(None)).unwrap().unwrap();
    assert!(matches!(answers.next(), Some(Ok(Answer::Entry(_)))));
    world.store.close().wait().unwrap();
    let rest: Vec<_> = answers.collect();
    assert!(rest.last().unwrap().is_err(), "told to its end: {} more", rest.len());
    let mut nobody = ask(world.path(), &Question::Stats).unwrap();
    assert!(nobody.is_none(), "{:?}", nobody.as_mut().map(Iterator::next));
}
