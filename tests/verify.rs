//! `Store::verify`: a sound store is sound whatever goes on in it, and each kind of damage is found
//! and named while the store goes on.

#![allow(clippy::allow_attributes, reason = "lints that fire in some helpers only")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::fault::{FaultyDirectory, Keep, On};
use common::*;
use justonce::seam::Directory;
use justonce::{
    Claim, Durability, ErrorKind, ManualClock, Options, Reply, Store, Verified, Verify,
};

/// So many that tables take several pages: the first of a table is kept in memory.
const KEYS: usize = 1_000;
const PAGE: usize = 4096;

/// In which a record of a day has a file of its own after an eighth of this.
const LANE_OF_A_DAY: Duration = Duration::from_millis(1 << 27);

fn open(disk: &FaultyDirectory, clock: &ManualClock) -> Store {
    let options = Options::new().clock(clock).generation_bytes(64 << 10).cache_bytes(0);
    options.open_in(Arc::new(disk.clone())).unwrap()
}

/// A store whose first files are sealed, and that is open.
fn sealed_store() -> (Store, FaultyDirectory, ManualClock) {
    let (disk, clock) = (FaultyDirectory::default(), ManualClock::new());
    let store = open(&disk, &clock);
    eventually("the first file is ready", || store.stats().generations == 1);
    let keys = || (0..KEYS).map(|number| number.to_string());
    let claims: Vec<_> = keys().map(|key| store.claim(op(&key))).collect();
    let replied = claims.into_iter().zip(keys()).map(|(claim, key)| {
        let ticket = claim.wait().unwrap().new();
        ticket.complete(Reply::new(format!("a reply that is found by its bytes, {key}")))
    });
    let replied: Vec<_> = replied.collect();
    for reply in replied {
        reply.wait().unwrap();
    }
    // With it begins another file, if the last is full.
    assert!(store.record_once(op("last")).wait().unwrap());
    eventually("all is sealed but the open one and the spare", || {
        let stats = store.stats();
        stats.sealed_generations >= 2 && stats.generations == stats.sealed_generations + 2
    });
    (store, disk, clock)
}

fn verified(store: &Store) -> Verified {
    store.verify(Verify::new()).unwrap()
}

/// Changes a file under a store that has it open.
fn damage(disk: &FaultyDirectory, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = disk.read(name);
    change(&mut bytes);
    let file = disk.open(name).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    file.write(0, &bytes).unwrap();
}

#[track_caller]
fn assert_found(store: &Store, parts: &[&str]) {
    let verified = verified(store);
    assert!(!verified.is_sound());
    assert_eq!(verified.damages().len(), verified.progress().damages.min(100));
    let is_meant = |message: &str| parts.iter().all(|part| message.contains(part));
    let messages: Vec<_> = verified.damages().iter().map(ToString::to_string).collect();
    assert!(messages.iter().any(|message| is_meant(message)), "{parts:?} not in {messages:#?}");
    assert!(verified.damages().iter().all(|damage| damage.kind() == ErrorKind::Corrupt));
    assert_eq!(verified.into_result().unwrap_err().kind(), ErrorKind::Corrupt);
}

const FIRST: &str = "00000001.redb";
const SECOND: &str = "00000002.redb";

#[test]
fn a_sound_store_is_sound() {
    with_store(|world| {
        for number in 0..20 {
            let key = number.to_string();
            let ticket = world.claim(op(&key)).new();
            match number % 4 {
                0 => world.wait(ticket.complete("done")).unwrap(),
                1 => world.wait(ticket.release("busy")).unwrap(),
                2 => drop(ticket.detach()),
                _ => {
                    world.wait(ticket.complete("done")).unwrap();
                    assert!(world.wait(world.store.forget("acme", &key)).unwrap());
                }
            }
        }
        for run in 0..2 {
            let verified = verified(&world.store);
            assert!(verified.is_sound(), "{:#?}", verified.damages());
            let progress = verified.into_result().unwrap();
            assert_eq!(progress.generations, progress.generations_in_all);
            // What is relaxed may not be on disk yet.
            let is_on_disk = run > 0 || !matches!(world.durability, Durability::Relaxed { .. });
            assert!(progress.records >= 20 || !is_on_disk, "{progress:?}");
            if !world.reopen() {
                return;
            }
        }
    });
}

#[test]
fn a_store_is_sound_while_records_come_and_files_are_sealed_and_go() {
    const WINDOWS: [Duration; 3] = [MINUTE, HOUR, DAY];
    /// Records, in files of which some are over by then.
    const ENOUGH: u64 = 3_000;
    let (disk, clock) = (FaultyDirectory::default(), ManualClock::new());
    let options = Options::new().clock(&clock).generation_bytes(2 << 10);
    let store = options.open_in(Arc::new(disk.clone())).unwrap();
    let is_over = AtomicBool::new(false);
    let mut rounds = 0;
    std::thread::scope(|threads| {
        for worker in 0..2 {
            let (store, clock, is_over) = (&store, &clock, &is_over);
            threads.spawn(move || {
                for number in 0.. {
                    // Some keys again and again, in one lane and another, and most once.
                    let name = if number % 3 == 0 { number % 30 } else { number };
                    let window = WINDOWS[number % WINDOWS.len()];
                    let operation = op(&format!("{worker} {name}")).window(window).lease(MINUTE);
                    let claim = store.claim(operation).wait().unwrap();
                    if let Claim::New(ticket) | Claim::Resumed(ticket, _) = claim {
                        // Over by now, if the other was quick to move time.
                        let _ = ticket.release("busy").wait();
                    }
                    clock.advance(Duration::from_secs(7));
                    if is_over.load(Ordering::SeqCst) {
                        return;
                    }
                }
            });
        }
        let mut found = Vec::new();
        while found.is_empty() && (rounds < 10 || store.stats().commits.records < ENOUGH) {
            let verified = verified(&store);
            rounds += 1;
            found.extend(verified.damages().iter().map(ToString::to_string));
        }
        is_over.store(true, Ordering::SeqCst);
        assert!(found.is_empty(), "{found:#?}");
    });
}

#[test]
fn a_changed_byte_that_nobody_reads_is_found_by_the_hash() {
    let (store, disk, _clock) = sealed_store();
    assert!(verified(&store).is_sound());
    damage(&disk, FIRST, |bytes| {
        // Behind the first header, where nothing is.
        let unused = (500..PAGE).find(|at| bytes[*at..*at + 64].iter().all(|byte| *byte == 0));
        bytes[unused.unwrap() + 32] = 1;
    });
    assert_found(&store, &[FIRST, "sealed"]);
    assert!(store.record_once(op("another")).wait().unwrap(), "the store goes on");
}

/// Where a reply's bytes are in a file.
fn find(bytes: &[u8], part: &[u8]) -> Vec<usize> {
    (0..bytes.len()).filter(|at| bytes[*at..].starts_with(part)).collect()
}

#[test]
fn a_damaged_record_of_an_open_file_is_named_with_its_row() {
    let (disk, clock) = (FaultyDirectory::default(), ManualClock::new());
    let options = Options::new().clock(&clock).cache_bytes(0);
    let store = options.open_in(Arc::new(disk.clone())).unwrap();
    eventually("the first file is ready", || store.stats().generations == 1);
    let body = b"a reply that is found by its bytes";
    store.claim(op("k")).wait().unwrap().new().complete(&body[..]).wait().unwrap();
    let others: Vec<_> = (0..300).map(|n| store.record_once(op(&n.to_string()))).collect();
    for call in others {
        assert!(call.wait().unwrap());
    }
    assert!(verified(&store).is_sound());
    damage(&disk, &first_file(&disk), |bytes| {
        for at in find(bytes, body) {
            bytes[at + 3] ^= 0x10;
        }
    });
    assert_found(&store, &["00000001.redb", "row 1 ", "table log"]);
    let is_new = store.record_once(op("another")).wait();
    assert!(is_new.is_ok_and(|is_new| is_new), "other keys go on");
}

/// A generation's first file, under whichever name it was made.
fn first_file(disk: &FaultyDirectory) -> String {
    let names = disk.list().unwrap();
    names.into_iter().find(|name| name.starts_with("00000001")).unwrap()
}

#[test]
fn a_damaged_record_of_a_sealed_file_is_named_with_its_row() {
    let (store, disk, _clock) = sealed_store();
    // The first records are claims, which bring no bytes of their own; replies come in the second.
    damage(&disk, SECOND, |bytes| {
        for at in find(bytes, b"a reply that is found by its bytes, ") {
            bytes[at + 3] ^= 0x10;
        }
    });
    assert_found(&store, &[SECOND, "row ", "table log"]);
}

#[test]
fn a_damaged_manifest_is_named() {
    let (store, disk, _clock) = sealed_store();
    let bytes = disk.read("store.redb");
    for name in [&b"next_generation"[..], b"secret"] {
        damage(&disk, "store.redb", |bytes| {
            for at in find(bytes, name) {
                bytes[at] ^= 0x10;
            }
        });
        assert_found(&store, &["store.redb"]);
        damage(&disk, "store.redb", |now| now.clone_from(&bytes));
    }
    assert!(verified(&store).is_sound(), "it is as it was");
}

#[test]
fn a_file_that_is_missing_is_named() {
    let (store, disk, _clock) = sealed_store();
    disk.put(FIRST, None);
    assert_found(&store, &[FIRST, "missing"]);
}

#[test]
fn a_poisoned_store_is_verified_as_far_as_it_can_be_read() {
    let (store, disk, _clock) = sealed_store();
    disk.break_down(On::Any, io::ErrorKind::Other);
    store.record_once(op("lost")).wait().unwrap_err();
    disk.heal();
    let report = verified(&store);
    assert!(report.is_sound(), "{:#?}", report.damages());
    // The engine reads no more of the file that could not be written, but what it knows.
    let progress = report.progress();
    assert!(progress.unread <= 1 && progress.records >= KEYS as u64, "{progress:?}");
    damage(&disk, FIRST, |bytes| bytes[PAGE + 100] ^= 1);
    assert_found(&store, &[FIRST]);
}

#[test]
fn a_closed_store_is_not_verified() {
    let (store, _disk, _clock) = sealed_store();
    store.close().wait().unwrap();
    assert_eq!(store.verify(Verify::new()).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn closing_the_store_ends_a_slow_verification() {
    let (store, _disk, _clock) = sealed_store();
    let ended = std::thread::scope(|threads| {
        // Days, at this rate.
        let verifying = threads.spawn(|| store.verify(Verify::new().bytes_per_second(1)));
        store.close().wait().unwrap();
        verifying.join().unwrap()
    });
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_rate_of_nothing_is_refused() {
    let store = Options::new().in_memory().unwrap();
    let refused = store.verify(Verify::new().bytes_per_second(0)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.to_string().contains("bytes_per_second"));
}

#[test]
fn progress_is_told_and_only_grows() {
    let (store, _disk, _clock) = sealed_store();
    let mut told = Vec::new();
    let verify = Verify::new().on_progress(|progress| told.push(*progress));
    let end = store.verify(verify).unwrap().progress();
    assert_eq!(told.last().map(|last| (last.records, last.bytes)), Some((end.records, end.bytes)));
    assert!(told.len() >= end.generations);
    assert!(told.is_sorted_by(|one, next| one.bytes <= next.bytes && one.records <= next.records));
    assert!(end.records >= 2 * KEYS as u64 && end.entries > 0);
}

/// What took the place of a record had not been committed when the file of that record was sealed
/// without it, and was lost with the power: so were both, and the key was new to the next run
/// though it had been claimed and answered long before. A file is listed as sealed now only when
/// all that it leaves out for something newer is durable.
#[test]
fn a_record_is_not_left_out_of_a_sealed_index_for_one_that_may_be_lost() {
    let (disk, clock) = (FaultyDirectory::default(), ManualClock::new());
    let open = |disk: &FaultyDirectory| {
        let relaxed = Durability::Relaxed { within: DAY };
        Options::new().clock(&clock).durability(relaxed).open_in(Arc::new(disk.clone())).unwrap()
    };
    let store = open(&disk);
    let claim = store.claim(op("k").window(DAY)).wait().unwrap();
    let request = claim.request_id();
    let _ = claim.new().detach();
    store.close().wait().unwrap();

    let store = open(&disk);
    // In another lane, and so in another file, where it waits to be committed.
    let (ticket, _) = store.claim(op("k").window(30 * DAY)).wait().unwrap().resumed();
    assert_eq!(ticket.request_id(), request);
    clock.advance(LANE_OF_A_DAY / 8);
    eventually("the first file is sealed", || store.stats().sealed_generations == 1);
    let left = disk.image(Keep::Synced);
    let (again, _) = open(&left).claim(op("k")).wait().unwrap().resumed();
    assert_eq!(again.request_id(), request);
    let _ = (ticket.detach(), again.detach());
}
