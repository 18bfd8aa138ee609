//! Sealing on a disk that fails, and sealed files that are not what they were: those places of them
//! that were seen to do harm. Whatever else may be damaged is in `damage.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::unchecked_time_subtraction,
    clippy::print_stderr,
    reason = "a test"
)]

mod common;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use common::fault::{Fault, FaultyDirectory, Keep, On};
use common::*;
use justonce::seam::Directory;
use justonce::{Claim, Error, ErrorKind, Filter, ManualClock, Options, Reply, Store};

const SHORT: Duration = Duration::from_hours(2);

fn open(directory: &FaultyDirectory, clock: &ManualClock) -> Result<Store, Error> {
    let options = Options::new().clock(clock).generation_bytes(1);
    options.open_in(Arc::new(directory.clone()))
}

/// What a caller was told, by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Its claim was answered, and nothing after.
    Claimed,
    Completed,
    /// A reply was given, and whether it landed is not known.
    Unsure,
    /// The claim was answered by an error.
    Refused,
}

/// Claims and completes in two lanes, over two hours, with a file for each record.
fn work(store: &Store, clock: &ManualClock) -> Vec<(String, Duration, u64, Told)> {
    let mut told = Vec::new();
    for number in 0..24 {
        if number == 12 {
            // What came before is half over, and more than an eighth.
            clock.advance(SHORT / 2);
        }
        if number == 18 {
            // The first of the short ones are over, their files go.
            clock.advance(SHORT / 2);
        }
        let key = format!("key {number}");
        let window = if number % 3 == 0 { DAY } else { SHORT };
        let (fence, outcome) = match store.claim(op(&key).window(window).lease(MINUTE)).wait() {
            Err(_) => (0, Told::Refused),
            Ok(claim) => {
                let ticket = claim.new();
                let fence = ticket.fence();
                let outcome = if number % 4 == 3 {
                    let _ = ticket.detach();
                    Told::Claimed
                } else if ticket.complete("done").wait().is_ok() {
                    Told::Completed
                } else {
                    Told::Unsure
                };
                (fence, outcome)
            }
        };
        told.push((key, window, fence, outcome));
    }
    told
}

/// Opens what is left of a disk and holds it to what was told.
fn check(left: &FaultyDirectory, clock: &ManualClock, told: &[(String, Duration, u64, Told)]) {
    let store = open(left, clock).unwrap();
    let last_fence = told.iter().map(|(_, _, fence, _)| *fence).max().unwrap_or_default();
    for (number, (key, window, fence, outcome)) in told.iter().enumerate() {
        let entry = store.lookup("acme", key).wait().unwrap();
        // The clock may stand anywhere between the first and the last of it.
        let may_be_over = *window == SHORT && number < 12;
        if *outcome != Told::Refused && !may_be_over {
            let entry = entry.as_ref().unwrap_or_else(|| panic!("{key} is lost"));
            assert_eq!(entry.fence(), *fence, "{key}");
        }
        match (store.claim(op(key)).wait().unwrap(), outcome) {
            (Claim::Completed(reply), Told::Completed | Told::Unsure) => {
                assert_eq!(reply.body(), b"done");
            }
            (Claim::Resumed(ticket, _), Told::Claimed | Told::Unsure | Told::Refused) => {
                assert!(ticket.fence() > last_fence, "{key}");
            }
            (Claim::New(ticket), _) if may_be_over || *outcome == Told::Refused => {
                assert!(ticket.fence() > last_fence, "{key}");
            }
            (claim, outcome) => panic!("{key} was {outcome:?} and answers {claim:?}"),
        }
    }
    // Whatever was left half-way is brought to its end.
    eventually("all is sealed but the open ones", || {
        let stats = store.stats();
        stats.generations - stats.sealed_generations <= 3
    });
    store.scan(Filter::new()).for_each(|entry| drop(entry.unwrap()));
    store.close().wait().unwrap();
    let names = left.list().unwrap();
    assert!(names.iter().all(|name| !name.contains(".tmp")), "{names:?}");
}

/// Fails one change after the other of the disk under a store that begins, seals and removes
/// files; `for_ever`, as a power cut does, or once.
fn fail_each(first: usize, step: usize, for_ever: bool) {
    let mut struck = true;
    let mut after = first;
    while struck {
        let (directory, clock) = (FaultyDirectory::default(), ManualClock::new());
        let store = open(&directory, &clock).unwrap();
        assert!(store.record_once(op("first").window(DAY)).wait().unwrap());
        directory.plan(Fault { on: On::Any, after, error: io::ErrorKind::Other, for_ever });
        let told = work(&store, &clock);
        let _ = store.close().wait();
        drop(store);
        struck = directory.has_failed();
        for keep in [Keep::Synced, Keep::Written] {
            let case = format!("change {after}, again: {for_ever}, {keep:?}");
            eprintln!("{case}");
            check(&directory.image(keep), &clock, &told);
        }
        after += step;
    }
    eprintln!("{after} changes");
}

/// Of how many changes one is failed; all with `JUSTONCE_SOAK` set.
fn stride(of: usize) -> usize {
    if std::env::var_os("JUSTONCE_SOAK").is_some() { 1 } else { of }
}

#[test]
fn nothing_acknowledged_is_lost_wherever_rotating_sealing_and_retiring_is_cut_off() {
    fail_each(0, stride(23), true);
}

#[test]
fn nothing_acknowledged_is_lost_if_a_change_fails_once_while_files_are_sealed() {
    fail_each(5, stride(67), false);
}

// Files that are not what they were.

const KEYS: usize = 40;

/// A closed store in which the first file is sealed; each operation has a reply.
fn sealed_store(clock: &ManualClock) -> FaultyDirectory {
    let directory = FaultyDirectory::default();
    let options = || Options::new().clock(clock).generation_bytes(2 << 10);
    let store = options().open_in(Arc::new(directory.clone())).unwrap();
    // Or the first records may go to a second one, and it stays empty.
    eventually("the first file is ready", || store.stats().generations == 1);
    for number in 0..KEYS {
        let ticket = store.claim(op(&number.to_string())).wait().unwrap().new();
        ticket.complete(Reply::new(number.to_string())).wait().unwrap();
    }
    eventually("two files are sealed", || store.stats().sealed_generations >= 2);
    store.close().wait().unwrap();
    directory
}

#[track_caller]
fn assert_names(refused: Result<Store, Error>, file: &str) {
    let Err(error) = refused else { panic!("{file} was taken") };
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(error.to_string().contains(file), "{error}");
}

const FIRST: &str = "00000001.redb";
const SECOND: &str = "00000002.redb";

#[test]
fn a_sealed_file_that_is_missing_exchanged_cut_off_or_longer_is_named() {
    let clock = ManualClock::new();
    let (sound, other) = (sealed_store(&clock), sealed_store(&clock));
    let bytes = sound.read(FIRST);
    let opened = |file: Option<&[u8]>| {
        let directory = sound.image(Keep::Written);
        directory.put(FIRST, file);
        open(&directory, &clock)
    };
    drop(opened(Some(&bytes)).unwrap());
    assert_names(opened(None), FIRST);
    assert_names(opened(Some(&sound.read(SECOND))), FIRST);
    // As long as the one it stands for, so that its length does not tell.
    let mut others = other.read(FIRST);
    others.resize(bytes.len(), 0);
    assert_names(opened(Some(&others)), FIRST);
    let mut second = sound.read(SECOND);
    second.resize(bytes.len(), 0);
    assert_names(opened(Some(&second)), FIRST);
    for len in [0, 1, 100, 4096, bytes.len() / 2, bytes.len() - 1] {
        assert_names(opened(Some(&bytes[..len])), FIRST);
    }
    for more in [1, 4096] {
        let longer = [&bytes[..], &vec![0; more]].concat();
        assert_names(opened(Some(&longer)), FIRST);
    }
}

/// What each operation answers of a store with this as its first file: the right reply or an error.
fn ask(sound: &FaultyDirectory, clock: &ManualClock, bytes: &[u8], case: &str) {
    let directory = sound.image(Keep::Written);
    directory.put(FIRST, Some(bytes));
    let store = match open(&directory, clock) {
        Ok(store) => store,
        Err(error) => {
            let kind = error.kind();
            let is_told =
                matches!(kind, ErrorKind::Corrupt | ErrorKind::Io | ErrorKind::Incompatible { .. });
            assert!(is_told && error.to_string().contains(FIRST), "{case}: {error:?}");
            return;
        }
    };
    for number in 0..KEYS {
        let key = number.to_string();
        match store.claim(op(&key)).wait() {
            Ok(Claim::Completed(reply)) => assert_eq!(reply.body(), key.as_bytes(), "{case}"),
            Ok(other) => panic!("{case}: {key} answers {other:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{case}: {error:?}"),
        }
    }
    for look in [
        store.in_flight().wait().map(drop),
        store.scan(Filter::new()).try_for_each(|of| of.map(drop)),
    ] {
        if let Err(error) = look {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{case}: {error:?}");
        }
    }
}

/// Runs what may never end.
#[expect(clippy::disallowed_methods, reason = "a thread that hangs is left behind")]
fn ends_well(work: impl FnOnce() + Send + 'static) -> bool {
    const POLLS: usize = 2_000;
    let running = std::thread::spawn(work);
    for _ in 0..POLLS {
        if running.is_finished() {
            return running.join().is_ok();
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    false
}

fn flip(sound: &FaultyDirectory, clock: &ManualClock, at: impl Iterator<Item = (usize, u8)>) {
    let bytes = sound.read(FIRST);
    let mut wrong = Vec::new();
    for (at, mask) in at {
        let at = at % bytes.len();
        let case = format!("byte {at} of {}, bits {mask:#x}", bytes.len());
        let mut flipped = bytes.clone();
        flipped[at] ^= mask;
        let (sound, clock, named) = (sound.clone(), clock.clone(), case.clone());
        if !ends_well(move || ask(&sound, &clock, &flipped, &named)) {
            wrong.push(case);
        }
    }
    assert!(wrong.is_empty(), "a panic, or no end: {wrong:#?}");
}

/// Where redb says how far the rows of a page go, and the blocks of an index.
#[test]
fn a_flipped_bit_in_the_middle_of_a_page_is_an_error_or_harmless() {
    let clock = ManualClock::new();
    let sound = sealed_store(&clock);
    let middle = (20_480..20_520).chain(69_632..69_680);
    flip(&sound, &clock, middle.map(|at| (at, 0x40)));
}

/// Where redb says what tables there are, and how many rows they have.
#[test]
fn a_flipped_bit_behind_the_name_of_a_table_is_an_error_or_harmless() {
    let clock = ManualClock::new();
    let sound = sealed_store(&clock);
    let bytes = sound.read(FIRST);
    // The names stand side by side, then what is said of each table.
    let names = b"identityindexlogshards";
    let at: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(names)).collect();
    assert!(!at.is_empty(), "there are no such names");
    let behind = at.into_iter().flat_map(|at| at + names.len()..at + names.len() + 256);
    flip(
        &sound,
        &clock,
        behind.flat_map(|at| [0x01, 0x02, 0x04, 0x08, 0x10].map(|mask| (at, mask))),
    );
}

#[test]
fn a_flipped_bit_anywhere_is_found_by_an_opening_that_verifies() {
    let clock = ManualClock::new();
    let sound = sealed_store(&clock);
    let bytes = sound.read(FIRST);
    let opened = |bytes: &[u8]| {
        let directory = sound.image(Keep::Written);
        directory.put(FIRST, Some(bytes));
        let options = Options::new().clock(&clock).generation_bytes(1).verify_on_open(true);
        options.open_in(Arc::new(directory))
    };
    drop(opened(&bytes).unwrap());
    for at in (0..bytes.len()).step_by(bytes.len() / 100) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        assert_names(opened(&flipped), FIRST);
    }
}
