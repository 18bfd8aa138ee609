//! The contract's table of bad input, row by row: a clear error, nothing written, nothing lost.

#![allow(clippy::unwrap_used, clippy::panic, clippy::unchecked_time_subtraction, reason = "a test")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::*;
use justonce::{
    Claim, Durability, EntryState, Error, ErrorKind, ManualClock, Operation, Options, Owner,
    Pending, Reply, RequestId, Store, Ticket,
};
use redb::{Database, TableDefinition};

const MILLI: Duration = Duration::from_millis(1);
const MAX_DURATION: Duration = justonce::MAX_DURATION;

/// Beyond any batch in these tests: nothing is committed before the store is closed.
const LONG: Durability = Durability::Relaxed { within: DAY };

/// What an owner ends its operation with.
type End = fn(Ticket) -> Pending<()>;

#[track_caller]
fn refused(store: Result<Store, Error>) -> Error {
    match store {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

/// Asserts that an error is of a kind and that its message has all of these in it.
#[track_caller]
fn says(error: &Error, kind: ErrorKind, parts: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn open(path: &Path) -> Result<Store, Error> {
    Options::new().open(path)
}

/// A closed store of one reply, and its directory.
fn closed_store(reply: &[u8]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    eventually("a file is ready", || store.stats().generations == 1);
    store.claim(op("k")).wait().unwrap().new().complete(reply).wait().unwrap();
    store.close().wait().unwrap();
    directory
}

// Names.

#[test]
fn a_name_that_is_empty_or_too_long_is_refused() {
    with_store(|world| {
        let long = vec![b'x'; 1025];
        let cases: [(&[u8], &[u8], &str, &str); 4] = [
            (b"", b"k", "the project", "0 bytes"),
            (b"acme", b"", "the key", "0 bytes"),
            (&long, b"k", "the project", "1025 bytes"),
            (b"acme", &long, "the key", "1025 bytes"),
        ];
        let store = &world.store;
        for (project, key, field, size) in cases {
            let operation = || Operation::new(project, key);
            let errors = [
                world.wait(store.claim(operation())).unwrap_err(),
                world.wait(store.claim_or_wait(operation(), HOUR)).unwrap_err(),
                world.wait(store.record_once(operation())).unwrap_err(),
                world.wait(store.lookup(project, key)).unwrap_err(),
                world.wait(store.forget(project, key)).unwrap_err(),
                world.wait(store.forget_forced(project, key)).unwrap_err(),
            ];
            for error in errors {
                says(&error, ErrorKind::Invalid, &[field, size, "1024"]);
            }
        }
        assert_eq!(world.refusal(store.forget_project("")), ErrorKind::Invalid);
        assert_eq!(world.refusal(store.forget_project(&long)), ErrorKind::Invalid);
    });
}

#[test]
fn one_bad_operation_refuses_the_whole_of_a_call() {
    with_store(|world| {
        let many = [op("a"), Operation::new("acme", ""), op("b")];
        assert_eq!(world.refusal(world.store.claim_many(many)), ErrorKind::Invalid);
        assert!(world.lookup("a").is_none());
        assert!(world.lookup("b").is_none());
    });
}

#[test]
fn a_name_of_1024_bytes_is_taken() {
    with_store_of(
        |options| options.keep_keys(true),
        |world| {
            let (project, key) = (vec![0xff; 1024], vec![0; 1024]);
            let ticket = world.claim(Operation::new(&project, &key)).new();
            world.wait(ticket.complete("done")).unwrap();
            world.reopen();
            let reply = world.claim(Operation::new(&project, &key)).completed();
            assert_eq!(reply.body(), b"done");
            let _ticket = world.claim(Operation::new(&project, &key[1..])).new();
        },
    );
}

#[test]
fn names_are_exact_bytes() {
    with_store(|world| {
        let keys: [&[u8]; 10] = [
            b"key",
            b"Key",
            b" key",
            b"key ",
            b"key\0",
            b"key\n",
            b"\xffkey",
            b"\xfekey",
            "é".as_bytes(),
            "e\u{301}".as_bytes(),
        ];
        for project in ["acme", "Acme", "acme "] {
            for key in keys {
                let _ticket = world.claim(Operation::new(project, key)).new();
            }
        }
    });
}

#[test]
fn where_the_project_ends_matters() {
    with_store(|world| {
        let _ticket = world.claim(Operation::new("a", "bc")).new();
        let _ticket = world.claim(Operation::new("ab", "c")).new();
    });
}

// Times.

#[test]
fn a_window_or_lease_out_of_bounds_is_refused() {
    with_store(|world| {
        for bad in [Duration::ZERO, Duration::from_micros(999), MAX_DURATION + MILLI, Duration::MAX]
        {
            for (operation, field) in
                [(op("k").window(bad), "the window"), (op("k").lease(bad), "the lease")]
            {
                let error = world.wait(world.store.claim(operation)).unwrap_err();
                says(&error, ErrorKind::Invalid, &[field, "366 days"]);
            }
        }
        assert!(world.lookup("k").is_none());
        let _ticket = world.claim(op("k").window(MAX_DURATION).lease(MAX_DURATION)).new();
        let _ticket = world.claim(op("short").window(MILLI).lease(MILLI)).new();
    });
}

#[test]
fn a_renewal_out_of_bounds_is_refused_and_the_lease_stays() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        let before = world.lookup("k").unwrap().lease_until();
        for bad in [Duration::ZERO, MAX_DURATION + MILLI, Duration::MAX] {
            assert_eq!(world.refusal(ticket.renew(bad)), ErrorKind::Invalid);
        }
        assert_eq!(world.lookup("k").unwrap().lease_until(), before);
    });
}

#[test]
fn a_retention_out_of_bounds_gives_the_ticket_back() {
    with_store(|world| {
        let mut ticket = world.claim(op("k")).new();
        for bad in [Duration::ZERO, MAX_DURATION + MILLI, Duration::MAX] {
            let reply = Reply::new("done").retention(bad);
            let error = world.wait(ticket.complete(reply)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            ticket = error.into_ticket().unwrap();
        }
        world.wait(ticket.complete("done")).unwrap();
    });
}

/// A store whose clock has ten seconds left.
fn at_the_end_of_time() -> (ManualClock, Store) {
    let clock = ManualClock::new();
    let store = Options::new().clock(&clock).in_memory().unwrap();
    let now = clock.wall().duration_since(std::time::UNIX_EPOCH).unwrap();
    clock.advance(Duration::from_millis(u64::MAX - 10_000) - now);
    (clock, store)
}

#[test]
fn a_window_or_lease_past_the_end_of_time_is_refused() {
    let (_clock, store) = at_the_end_of_time();
    let second = Duration::from_secs(1);
    for operation in [op("k").window(MINUTE).lease(second), op("k").window(second).lease(MINUTE)] {
        let error = store.claim(operation).wait().unwrap_err();
        says(&error, ErrorKind::Invalid, &["clock"]);
    }
    assert!(store.lookup("acme", "k").wait().unwrap().is_none());
    let _ticket = store.claim(op("k").window(second).lease(second)).wait().unwrap().new();
}

/// The clock's hands went round: time began anew, and what was over came back.
#[test]
fn time_that_has_come_to_its_end_stands_still() {
    let (clock, store) = at_the_end_of_time();
    let second = Duration::from_secs(1);
    let ticket = store.claim(op("k").window(second).lease(second)).wait().unwrap().new();
    ticket.complete("done").wait().unwrap();
    for by in [Duration::MAX, MINUTE] {
        clock.advance(by);
        assert!(store.lookup("acme", "k").wait().unwrap().is_none());
    }
}

#[test]
fn a_renewal_past_the_end_of_time_is_refused() {
    let (_clock, store) = at_the_end_of_time();
    let second = Duration::from_secs(1);
    let ticket = store.claim(op("k").window(second).lease(second)).wait().unwrap().new();
    let error = ticket.renew(MINUTE).wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn a_retention_past_the_end_of_time_gives_the_ticket_back() {
    let (_clock, store) = at_the_end_of_time();
    let second = Duration::from_secs(1);
    let ticket = store.claim(op("k").window(second).lease(second)).wait().unwrap().new();
    let error = ticket.complete(Reply::new("done").retention(MINUTE)).wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    error.into_ticket().unwrap().complete("done").wait().unwrap();
}

#[test]
fn options_out_of_bounds_are_refused_before_anything_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let zero = Duration::ZERO;
    let cases = [
        (Options::new().window(zero), "the window"),
        (Options::new().window(MAX_DURATION + MILLI), "the window"),
        (Options::new().lease(zero), "the lease"),
        (Options::new().lease(MAX_DURATION + MILLI), "the lease"),
        (Options::new().durability(Durability::Relaxed { within: zero }), "the time to commit"),
        (Options::new().max_reply_bytes((1 << 30) + 1), "max_reply_bytes"),
        (Options::new().index_entries(7), "index_entries"),
    ];
    for (options, field) in cases {
        says(&refused(options.clone().open(&path)), ErrorKind::Invalid, &[field]);
        says(&refused(options.in_memory()), ErrorKind::Invalid, &[field]);
        assert!(!path.exists());
    }
}

#[test]
fn no_attempts_at_all_and_a_label_too_long_are_refused() {
    with_store(|world| {
        let claim = |operation| world.store.claim(operation);
        assert_eq!(world.refusal(claim(op("k").max_attempts(0))), ErrorKind::Invalid);
        assert_eq!(world.refusal(claim(op("k").label("x".repeat(256)))), ErrorKind::Invalid);
        assert!(world.lookup("k").is_none());
        let _ticket = world.claim(op("k").label("x".repeat(255))).new();
    });
}

// Sizes.

#[test]
fn a_reply_over_the_cap_gives_the_ticket_back_still_owned() {
    with_store_of(
        |options| options.max_reply_bytes(8),
        |world| {
            let mut ticket = world.claim(op("k")).new();
            let ends: [End; 2] =
                [|ticket| ticket.complete("nine byte"), |ticket| ticket.fail("nine byte")];
            for end in ends {
                let error = world.wait(end(ticket)).unwrap_err();
                assert!(
                    matches!(error.kind(), ErrorKind::TooLarge { size: 9, max: 8, .. }),
                    "{error:?}"
                );
                ticket = error.into_ticket().unwrap();
                assert_eq!(world.lookup("k").unwrap().state(), EntryState::InFlight);
            }
            world.wait(ticket.complete("8 bytes.")).unwrap();
            assert_eq!(world.claim(op("k")).completed().body(), b"8 bytes.");
        },
    );
}

#[test]
fn a_content_tag_or_a_reason_too_long_gives_the_ticket_back() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        let reply = Reply::new("done").content("x".repeat(256));
        let error = world.wait(ticket.complete(reply)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TooLarge { size: 256, max: 255, .. }));
        let ticket = error.into_ticket().unwrap();
        let error = world.wait(ticket.release("x".repeat(4097))).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TooLarge { size: 4097, max: 4096, .. }));
        let ticket = error.into_ticket().unwrap();
        world.wait(ticket.release("x".repeat(4096))).unwrap();
    });
}

#[test]
fn a_checkpoint_over_4_kib_is_refused_and_the_last_one_stays() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        world.wait(ticket.checkpoint(vec![1; 4096])).unwrap();
        let kind = world.refusal(ticket.checkpoint(vec![2; 4097]));
        assert!(matches!(kind, ErrorKind::TooLarge { size: 4097, max: 4096, .. }));
        assert_eq!(world.lookup("k").unwrap().checkpoint(), Some(&[1; 4096][..]));
        world.wait(ticket.complete("done")).unwrap();
    });
}

#[test]
fn a_reply_of_the_full_size_survives() {
    let mut world = World::on_disk(|options| options);
    let body = vec![7; 8 << 20];
    let ticket = world.claim(op("k")).new();
    world.wait(ticket.complete(body.clone())).unwrap();
    world.reopen();
    assert!(world.claim(op("k")).completed().body() == body);
}

// Tokens and request ids.

#[test]
fn a_token_that_was_made_up_is_gone() {
    with_store(|world| {
        let token = world.claim(op("k")).new().detach();
        let mut made_up: Vec<Vec<u8>> = vec![vec![], vec![0; 64], vec![0xff; 64], vec![0; 1 << 16]];
        made_up.extend((0..token.len()).map(|at| {
            let mut flipped = token.clone();
            flipped[at] ^= 1;
            flipped
        }));
        made_up.extend((0..token.len()).map(|len| token[..len].to_vec()));
        made_up.push([&token[..], &[0]].concat());
        for token in made_up {
            let answer = world.store.attach(&token).wait();
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::Gone, "{token:?}");
        }
        assert!(world.wait(world.store.attach(&token)).is_ok());
    });
}

#[test]
fn a_token_of_another_store_is_gone() {
    let (one, other) = (Options::new().in_memory().unwrap(), Options::new().in_memory().unwrap());
    let token = one.claim(op("k")).wait().unwrap().new().detach();
    let _ticket = other.claim(op("k")).wait().unwrap().new();
    assert_eq!(other.attach(&token).wait().unwrap_err().kind(), ErrorKind::Gone);
}

#[test]
fn a_malformed_request_id_is_refused() {
    let store = Options::new().in_memory().unwrap();
    let id = store.claim(op("k")).wait().unwrap().request_id().to_string();
    let digits = &id[3..];
    let malformed = [
        String::new(),
        "rr_".to_owned(),
        digits.to_owned(),
        format!("RR_{digits}"),
        format!("rr-{digits}"),
        format!("rr_{}", &digits[1..]),
        format!("{id}0"),
        format!(" {id}"),
        format!("{id} "),
        format!("rr_{}I", &digits[1..]),
        format!("rr_{}U", &digits[1..]),
        format!("rr_{}é", &digits[2..]),
        format!("rr_{}1", &digits[..35]),
    ];
    for text in malformed {
        let error = text.parse::<RequestId>().unwrap_err();
        says(&error, ErrorKind::Invalid, &["request id"]);
    }
}

#[test]
fn a_request_id_of_another_store_leads_nowhere() {
    let (one, other) = (Options::new().in_memory().unwrap(), Options::new().in_memory().unwrap());
    let id = one.claim(op("k")).wait().unwrap().request_id();
    let _ticket = other.claim(op("k")).wait().unwrap().new();
    assert!(other.lookup_request(id).wait().unwrap().is_none());
}

// A full queue.

/// A store that takes few records before it is full, and commits none until it is closed.
fn with_a_short_queue(directory: &Path) -> Store {
    let options = Options::new().durability(LONG).owner(Owner::External).queue_bytes(4 * 1024);
    options.open(directory).unwrap()
}

/// Records events until the queue is full, and says how many were taken.
fn fill(store: &Store) -> usize {
    let record = |n: &usize| store.record_once(op(&format!("fill {n}"))).wait();
    let taken = (0..10_000).take_while(|n| record(n).is_ok()).count();
    assert!((1..10_000).contains(&taken), "{taken} were taken");
    taken
}

#[test]
fn a_full_queue_refuses_at_once_and_nothing_was_submitted() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_a_short_queue(directory.path());
    let done = store.claim(op("done")).wait().unwrap().new();
    done.complete("done").wait().unwrap();
    let taken = fill(&store);
    let queued = store.stats().queued_bytes;
    let busy = |error: Error| says(&error, ErrorKind::Busy, &["try again"]);
    busy(store.claim(op("late")).wait().unwrap_err());
    busy(store.record_once(op("late")).wait().unwrap_err());
    busy(store.claim_many([op("late"), op("later")]).wait().unwrap_err());
    busy(store.forget("acme", "done").wait().unwrap_err());
    assert_eq!(store.stats().queued_bytes, queued);
    assert!(store.lookup("acme", "late").wait().unwrap().is_none());
    assert!(store.lookup("acme", "later").wait().unwrap().is_none());
    assert_eq!(store.claim(op("done")).wait().unwrap().completed().body(), b"done");

    store.close().wait().unwrap();
    let store = with_a_short_queue(directory.path());
    for n in 0..taken {
        let found = store.lookup("acme", format!("fill {n}")).wait().unwrap();
        assert!(found.is_some(), "{n} was taken and is lost");
    }
    let _ticket = store.claim(op("late")).wait().unwrap().new();
}

#[test]
fn a_full_queue_gives_a_ticket_back_still_owned() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_a_short_queue(directory.path());
    let mut ticket = store.claim(op("k")).wait().unwrap().new();
    fill(&store);
    let ends: [End; 3] = [
        |ticket| ticket.complete("done"),
        |ticket| ticket.fail("broken"),
        |ticket| ticket.release("busy"),
    ];
    for end in ends {
        let error = end(ticket).wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        ticket = error.into_ticket().unwrap();
    }
    assert_eq!(ticket.renew(HOUR).wait().unwrap_err().kind(), ErrorKind::Busy);
    let entry = store.lookup("acme", "k").wait().unwrap().unwrap();
    assert_eq!((entry.state(), entry.fence()), (EntryState::InFlight, ticket.fence()));
    let token = ticket.detach();
    store.close().wait().unwrap();
    let store = with_a_short_queue(directory.path());
    let ticket = store.attach(token).wait().unwrap();
    ticket.complete("done").wait().unwrap();
}

#[test]
fn what_is_larger_than_the_queue_is_taken_when_it_is_empty() {
    let options = |options: Options| options.queue_bytes(512);
    let world = World::on_disk(options);
    let ticket = world.claim(op("k")).new();
    world.wait(ticket.complete(vec![7; 4096])).unwrap();
    assert_eq!(world.claim(op("k")).completed().body(), [7; 4096]);
}

// Damaged, newer and missing files.

#[test]
fn a_row_that_cannot_be_read_is_named() {
    let body = b"a reply that is found in the file by its bytes";
    let directory = closed_store(body);
    let file = directory.path().join("00000001.redb");
    let mut bytes = fs::read(&file).unwrap();
    let places: Vec<_> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(body)).collect();
    assert!(!places.is_empty(), "the reply is in another file");
    for place in places {
        bytes[place + 3] ^= 0x10;
    }
    fs::write(&file, bytes).unwrap();
    let error = refused(open(directory.path()));
    says(&error, ErrorKind::Corrupt, &["00000001.redb", "table log", "row 1"]);
}

/// A store's files while it is closed, to be put back after each damage.
struct Sound {
    directory: tempfile::TempDir,
    files: Vec<(String, Vec<u8>)>,
    reply: Vec<u8>,
}

impl Sound {
    fn new() -> Self {
        let reply = vec![0xa5; 3000];
        let directory = closed_store(&reply);
        let read = |name: String| {
            let bytes = fs::read(directory.path().join(&name)).unwrap();
            (name, bytes)
        };
        let files = names(directory.path()).into_iter().map(read).collect();
        Sound { directory, files, reply }
    }

    fn bytes(&self, file: &str) -> &[u8] {
        &self.files.iter().find(|(name, _)| name == file).unwrap().1
    }

    /// Opens the store with other bytes in one of its files.
    fn open_with(&self, file: &str, bytes: &[u8]) -> Result<Store, Error> {
        let path = self.directory.path();
        for name in names(path) {
            fs::remove_file(path.join(name)).unwrap();
        }
        for (name, sound) in &self.files {
            fs::write(path.join(name), if name == file { bytes } else { sound }).unwrap();
        }
        open(path)
    }
}

/// Flips a bit here and there in what is in use of a file, one at a time.
fn flip_bits_of(file: &str) {
    let sound = Sound::new();
    let bytes = sound.bytes(file);
    let is_used = |at: &usize| bytes[*at..].iter().take(64).any(|&byte| byte != 0);
    let spots: Vec<_> = (5..bytes.len()).step_by(64).filter(is_used).collect();
    for &at in spots.iter().step_by((spots.len() / 50).max(1)) {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 0x40;
        match sound.open_with(file, &flipped) {
            Err(error) => {
                let kind = error.kind();
                let is_said = matches!(kind, ErrorKind::Corrupt | ErrorKind::Incompatible { .. });
                assert!(is_said, "at {at}: {error:?}");
                assert!(error.to_string().contains(".redb"), "at {at}: {error}");
            }
            // What was hit is not in use, or it is found out now.
            Ok(store) => match store.claim(op("k")).wait() {
                Ok(Claim::Completed(reply)) => assert!(reply.body() == sound.reply, "at {at}"),
                Ok(other) => panic!("at {at}: {other:?}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "at {at}: {error:?}"),
            },
        }
    }
}

#[test]
fn a_flipped_bit_in_a_generation_is_an_error_or_harmless() {
    flip_bits_of("00000001.redb");
}

#[test]
fn a_flipped_bit_in_the_manifest_is_an_error_or_harmless() {
    flip_bits_of("store.redb");
}

#[test]
fn a_file_that_is_cut_off_is_named() {
    let sound = Sound::new();
    for file in ["00000001.redb", "store.redb"] {
        let bytes = sound.bytes(file);
        for len in [1, 100, 4096, bytes.len() / 2] {
            let error = refused(sound.open_with(file, &bytes[..len]));
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{len} bytes of {file}: {error:?}");
            assert!(error.to_string().contains(file), "{len} bytes of {file}: {error}");
        }
    }
}

#[test]
fn a_file_of_something_else_is_named() {
    let sound = Sound::new();
    for file in ["00000001.redb", "store.redb"] {
        let junk = b"no file of a store ".repeat(1000);
        says(&refused(sound.open_with(file, &junk)), ErrorKind::Corrupt, &[file]);
    }
}

#[test]
fn a_missing_generation_is_named() {
    let directory = closed_store(b"done");
    fs::remove_file(directory.path().join("00000001.redb")).unwrap();
    let before = names(directory.path());
    let error = refused(open(directory.path()));
    says(&error, ErrorKind::Corrupt, &["00000001.redb", "missing"]);
    assert_eq!(names(directory.path()), before, "nothing is made in its place");
}

#[test]
fn a_missing_manifest_is_named_and_no_other_is_made() {
    let directory = closed_store(b"done");
    fs::remove_file(directory.path().join("store.redb")).unwrap();
    let before = names(directory.path());
    let error = refused(open(directory.path()));
    says(&error, ErrorKind::Corrupt, &["store.redb", "missing"]);
    assert_eq!(names(directory.path()), before);
}

#[test]
fn an_empty_file_is_not_taken_for_a_new_one() {
    for file in ["store.redb", "00000001.redb"] {
        let directory = closed_store(b"done");
        fs::write(directory.path().join(file), b"").unwrap();
        says(&refused(open(directory.path())), ErrorKind::Corrupt, &[file, "empty"]);
        assert_eq!(fs::metadata(directory.path().join(file)).unwrap().len(), 0);
    }
}

#[test]
fn a_generation_of_another_store_or_another_number_is_refused() {
    let (directory, other) = (closed_store(b"done"), closed_store(b"other"));
    let file = directory.path().join("00000001.redb");
    fs::copy(other.path().join("00000001.redb"), &file).unwrap();
    says(&refused(open(directory.path())), ErrorKind::Corrupt, &["00000001.redb", "another"]);

    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    assert!(store.record_once(op("k")).wait().unwrap());
    eventually("two files are there", || store.stats().generations == 2);
    store.close().wait().unwrap();
    let file = |number: u32| directory.path().join(format!("{number:08}.redb"));
    fs::copy(file(1), file(2)).unwrap();
    says(&refused(open(directory.path())), ErrorKind::Corrupt, &["00000002.redb", "another"]);
}

#[test]
fn a_store_of_a_newer_format_is_told_from_a_damaged_one() {
    const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");
    let directory = closed_store(b"done");
    let database = Database::open(directory.path().join("store.redb")).unwrap();
    let write = database.begin_write().unwrap();
    let before = write.open_table(NUMBERS).unwrap().insert("format", 7).unwrap().unwrap().value();
    write.commit().unwrap();
    drop(database);
    let error = refused(open(directory.path()));
    let ErrorKind::Incompatible { found, supported, .. } = error.kind() else {
        panic!("{error:?}")
    };
    assert_eq!((found, u64::from(supported)), (7, before));
    says(&error, error.kind(), &["store.redb", "format 7"]);
    let again = refused(open(directory.path()));
    assert_eq!(again.kind(), error.kind(), "it was left as it was");
}

#[test]
fn a_generation_of_a_newer_format_is_told_from_a_damaged_one() {
    const IDENTITY: TableDefinition<&str, &[u8]> = TableDefinition::new("identity");
    let directory = closed_store(b"done");
    let database = Database::open(directory.path().join("00000001.redb")).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(IDENTITY).unwrap().insert("format", &7u32.to_le_bytes()[..]).unwrap();
    write.commit().unwrap();
    drop(database);
    let error = refused(open(directory.path()));
    let ErrorKind::Incompatible { found, supported, .. } = error.kind() else {
        panic!("{error:?}")
    };
    assert_eq!((found, supported), (7, 1));
}

// A store that is open already.

#[test]
fn a_store_is_open_once_in_a_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path).unwrap();
    let shown = path.canonicalize().unwrap().display().to_string();
    says(&refused(open(&path)), ErrorKind::AlreadyOpen, &[&shown]);
    assert!(store.record_once(op("k")).wait().unwrap(), "the first goes on");
    says(&refused(open(&path)), ErrorKind::AlreadyOpen, &[&shown]);
    store.close().wait().unwrap();
    assert!(!open(&path).unwrap().record_once(op("k")).wait().unwrap());
}

#[cfg(unix)]
#[test]
fn a_store_is_open_once_by_whatever_path() {
    let directory = tempfile::tempdir().unwrap();
    let (path, link) = (directory.path().join("store"), directory.path().join("link"));
    let _store = open(&path).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let winding = directory.path().join("store").join("..").join("store");
    for other in [link, winding] {
        assert_eq!(refused(open(&other)).kind(), ErrorKind::AlreadyOpen);
    }
}

/// Where the child process looks for the store to open.
const CHILD_OPENS: &str = "JUSTONCE_CHILD_OPENS";

#[test]
fn a_store_is_open_once_in_all_processes() {
    if let Some(path) = std::env::var_os(CHILD_OPENS) {
        match open(Path::new(&path)) {
            Ok(_) => println!("child: opened"),
            Err(error) => println!("child: {:?}", error.kind()),
        }
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let child = || {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_store_is_open_once_in_all_processes", "--nocapture"])
            .env(CHILD_OPENS, directory.path())
            .output()
            .unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        output.split("child: ").nth(1).unwrap().lines().next().unwrap().to_owned()
    };
    let store = open(directory.path()).unwrap();
    assert_eq!(child(), "AlreadyOpen");
    assert!(store.record_once(op("k")).wait().unwrap(), "the first goes on");
    drop(store);
    assert_eq!(child(), "opened");
    assert!(!open(directory.path()).unwrap().record_once(op("k")).wait().unwrap());
}

// Paths.

#[test]
fn a_file_is_no_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, "mine").unwrap();
    says(&refused(open(&path)), ErrorKind::NotAStore, &[&path.display().to_string()]);
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    let below = path.join("store");
    let error = refused(open(&below));
    assert!(matches!(error.kind(), ErrorKind::NotAStore | ErrorKind::Io), "{error:?}");
    assert!(error.to_string().contains(&below.display().to_string()));
}

#[test]
fn a_directory_that_holds_other_things_is_left_untouched() {
    for (name, is_file) in [("notes.txt", true), ("data.redb", true), (".git", false)] {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join(name);
        if is_file {
            fs::write(&inside, "mine").unwrap();
        } else {
            fs::create_dir(&inside).unwrap();
        }
        let before = fs::metadata(directory.path()).unwrap().modified().unwrap();
        says(&refused(open(directory.path())), ErrorKind::NotAStore, &[name]);
        assert_eq!(names(directory.path()), BTreeSet::from([name.to_owned()]));
        assert_eq!(fs::metadata(directory.path()).unwrap().modified().unwrap(), before);
    }
}

#[test]
fn a_store_is_made_where_nothing_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a").join("b");
    assert!(open(&path).unwrap().record_once(op("k")).wait().unwrap());
    let empty = directory.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(open(&empty).unwrap().record_once(op("k")).wait().unwrap());
}

#[cfg(unix)]
#[test]
fn a_directory_that_cannot_be_written_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(path.join("probe"), "").is_ok() {
        // Permissions do not bind the superuser.
        return;
    }
    says(&refused(open(&path)), ErrorKind::Io, &[&path.display().to_string()]);
    says(&refused(open(&path.join("below"))), ErrorKind::Io, &["below"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_place_where_nothing_can_be_made_is_named() {
    let path = Path::new("/proc/self/justonce");
    says(&refused(open(path)), ErrorKind::Io, &["/proc/self/justonce"]);
}

// The wall clock.

#[test]
fn a_wall_clock_that_steps_is_not_noticed_within_a_run() {
    with_store(|world| {
        let ticket = world.claim(op("k").lease(HOUR)).new();
        let before = world.lookup("k").unwrap().changed_at();
        world.clock.set_wall(world.clock.wall() + 10 * DAY);
        world.wait(ticket.mark_dispatched()).unwrap();
        assert_eq!(world.claim(op("k")).in_flight().retry_after(), HOUR);
        world.clock.set_wall(world.clock.wall() - 20 * DAY);
        world.wait(ticket.mark_dispatched()).unwrap();
        let entry = world.lookup("k").unwrap();
        assert_eq!((entry.state(), entry.changed_at()), (EntryState::InFlight, before));
    });
}

#[test]
fn time_never_goes_back_across_runs_and_the_skew_is_told() {
    with_store_of(
        |options| options.window(HOUR),
        |world| {
            let start = world.clock.wall();
            world.clock.advance(10 * MINUTE);
            assert!(world.wait(world.store.record_once(op("k"))).unwrap());
            assert_eq!(world.store.stats().clock_skew, Duration::ZERO);
            world.clock.advance(10 * MINUTE);
            world.clock.set_wall(start - DAY);
            if !world.reopen() {
                return;
            }
            assert_eq!(world.store.stats().clock_skew, DAY + 20 * MINUTE);
            world.clock.advance(50 * MINUTE - MILLI);
            let expires = world.lookup("k").unwrap().expires_at();
            world.clock.advance(MILLI);
            assert!(world.wait(world.store.record_once(op("k"))).unwrap());
            assert_eq!(world.lookup("k").unwrap().changed_at(), expires);
        },
    );
}

#[test]
fn a_wall_clock_that_jumps_ahead_between_runs_is_believed() {
    with_store(|world| {
        assert!(world.wait(world.store.record_once(op("k").window(HOUR))).unwrap());
        world.clock.set_wall(world.clock.wall() + HOUR);
        if world.reopen() {
            assert_eq!(world.store.stats().clock_skew, Duration::ZERO);
            assert!(world.lookup("k").is_none());
        }
    });
}
