//! Disks that are full and disks that fail, as the system shows them: a tmpfs with a limit, and an
//! ext4 on a loop device whose backing runs out of room, where writes go well and the sync fails,
//! and the page cache then takes the lost pages for clean.
//!
//! A child mounts them in a namespace of its own, so that they are gone with it whatever happens.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use justonce::{Claim, Durability, Error, ErrorKind, Options, Store};

use crate::child::{is_root, left_out, part_in, plays_to_its_end, tell, under, works};
use crate::common::{DAY, HOUR, op};

const OWN_MOUNTS: [&str; 4] = ["unshare", "--mount", "--propagation", "private"];

/// A file system, gone when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(at: &Path, arguments: &[&str]) -> Self {
        std::fs::create_dir_all(at).unwrap();
        run("mount", &[arguments, &[at.to_str().unwrap()]].concat());
        Mount(at.to_owned())
    }

    fn of_bytes(at: &Path, size: &str) -> Self {
        Mount::new(at, &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
    }

    /// Gives it another size.
    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        run("mount", &["-o", &options, self.0.to_str().unwrap()]);
    }

    /// Leaves it as many mebibytes more than it holds.
    fn leave(&self, mebibytes: u64) {
        let has = rustix::fs::statvfs(&self.0).unwrap();
        let held = (has.f_blocks - has.f_bfree) * has.f_frsize;
        self.resize(&(held + (mebibytes << 20)).to_string());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A thread that closed a store may hold its lock file for a moment longer.
        for _ in 0..100 {
            let done = Command::new("umount").arg(&self.0).stderr(Stdio::null()).status();
            if done.is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

#[track_caller]
fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

/// Has a child do it, where this machine can.
fn with_own_mounts(test: &str, needs: &[&str]) {
    let can_mount = || {
        let place = tempfile::tempdir().unwrap();
        let place = place.path().to_str().unwrap().to_owned();
        works(
            OWN_MOUNTS[0],
            &[&OWN_MOUNTS[1..], &["mount", "-t", "tmpfs", "tmpfs", &place]].concat(),
        )
    };
    if !is_root() || !can_mount() {
        return left_out(test, "only root may mount");
    }
    for program in needs {
        if !works("which", &[program]) {
            return left_out(test, &format!("there is no {program}"));
        }
    }
    let place = tempfile::tempdir().unwrap();
    for fact in plays_to_its_end(under(&OWN_MOUNTS, test, place.path())) {
        match fact.strip_prefix("left out: ") {
            Some(why) => left_out(test, why),
            None => eprintln!("{fact}"),
        }
    }
}

/// Replies of 20,000 bytes in a file of 100,000, and claims that came before the next file.
const RECORDS_OF_A_FILE: usize = 12;

/// What a caller was told.
#[derive(Default)]
struct Told {
    /// Fences of those claimed.
    claimed: BTreeMap<String, u64>,
    completed: Vec<String>,
    /// What the store said when it stopped.
    refused: Vec<(String, Error)>,
}

/// Small generations, so that files are made and sealed all the time.
fn open(place: &Path, durability: Durability) -> Result<Store, Error> {
    Options::new().durability(durability).generation_bytes(100_000).open(place.join("store"))
}

fn body(key: &str) -> Vec<u8> {
    key.bytes().cycle().take(20_000).collect()
}

/// Claims and completes until the store refuses three times.
fn fill(store: &Store, told: &mut Told) {
    for number in 0.. {
        let key = format!("key {number}");
        let window = if number % 5 == 0 { HOUR } else { DAY };
        let answer = match store.claim(op(&key).window(window)).wait() {
            Ok(Claim::New(ticket)) => {
                told.claimed.insert(key.clone(), ticket.fence());
                ticket.complete(body(&key)).wait().map(|()| told.completed.push(key.clone()))
            }
            Ok(other) => panic!("{key}: {other:?}"),
            Err(error) => Err(error),
        };
        told.refused.extend(answer.err().map(|error| (key, error)));
        if told.refused.len() == 3 {
            return;
        }
    }
}

/// What is durable is answered as it was, with the fences it had.
fn check(store: &Store, told: &Told, case: &str) {
    let unreadable = answers(store, told, case);
    assert!(unreadable.is_empty(), "{case}: {unreadable:?}");
}

/// So too by a store that has stopped: but for what was refused, and for the records of a file that
/// was being closed at that moment, of which it says that it has stopped.
fn check_stopped(store: &Store, told: &Told, case: &str) {
    let mut unreadable = answers(store, told, case);
    let kinds = [ErrorKind::Unknown, ErrorKind::Poisoned];
    assert!(unreadable.values().all(|error| kinds.contains(&error.kind())), "{unreadable:?}");
    unreadable.retain(|key, _| !told.refused.iter().any(|(refused, _)| refused == key));
    assert!(unreadable.len() <= RECORDS_OF_A_FILE, "{case}: {unreadable:?}");
}

/// Holds what the store says against what it told, and returns of what it says nothing.
fn answers(store: &Store, told: &Told, case: &str) -> BTreeMap<String, Error> {
    let mut unreadable = BTreeMap::new();
    for (key, fence) in &told.claimed {
        let entry = match store.lookup("acme", key).wait() {
            Ok(entry) => entry.unwrap_or_else(|| panic!("{case}: {key} is lost")),
            Err(error) => {
                unreadable.insert(key.clone(), error);
                continue;
            }
        };
        assert_eq!(entry.fence(), *fence, "{case}: {key}");
        if told.completed.contains(key) {
            match store.claim(op(key)).wait().unwrap() {
                Claim::Completed(reply) => assert!(reply.body() == body(key), "{case}: {key}"),
                other => panic!("{case}: {key}: {other:?}"),
            }
        }
    }
    unreadable
}

/// What was refused can be claimed and done, if it has not landed after all.
fn redo(store: &Store, told: &mut Told, case: &str) {
    let last_fence = told.claimed.values().copied().max().unwrap_or(0);
    for (key, _) in std::mem::take(&mut told.refused) {
        match store.claim(op(&key)).wait().unwrap() {
            Claim::New(ticket) | Claim::Resumed(ticket, _) => {
                assert!(ticket.fence() > last_fence, "{case}: {key}");
                told.claimed.insert(key.clone(), ticket.fence());
                ticket.complete(body(&key)).wait().unwrap();
            }
            Claim::Completed(reply) => assert!(reply.body() == body(&key), "{case}: {key}"),
            other => panic!("{case}: {key}: {other:?}"),
        }
        told.completed.push(key);
    }
    for number in 0..20 {
        let key = format!("after {number}");
        assert!(store.record_once(op(&key)).wait().unwrap(), "{case}: {key}");
    }
}

/// What the store said when it stopped. It is a commit that does not know, unless the keeper, which
/// makes and seals files meanwhile, met the fault first: then nothing of the call was tried.
fn stopped_by<'t>(told: &'t Told, case: &str) -> &'t Error {
    let (key, error) = &told.refused[0];
    let kinds = [ErrorKind::Unknown, ErrorKind::Poisoned];
    assert!(kinds.contains(&error.kind()), "{case}: {key}: {error:?}");
    error
}

fn says_full(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Poisoned | ErrorKind::Io)
        && error.is_disk_full()
}

#[test]
fn nothing_is_lost_on_a_disk_that_is_full_and_it_works_again_with_room() {
    const NAME: &str = "disks::nothing_is_lost_on_a_disk_that_is_full_and_it_works_again_with_room";
    let Some(place) = part_in(NAME) else { return with_own_mounts(NAME, &[]) };
    let (mut refused, mut not_opened) = (0, 0);
    for (size, durability) in [
        ("2100k", Durability::Synced),
        ("5000k", Durability::Synced),
        ("9000k", Durability::Strict),
        ("12500k", Durability::Synced),
        ("17300k", Durability::Synced),
    ] {
        let case = format!("{durability:?} on {size}");
        let disk = Mount::of_bytes(&place.join(size), size);
        let mut told = Told::default();
        match open(&disk.0, durability) {
            Ok(store) => {
                fill(&store, &mut told);
                stopped_by(&told, &case);
                for (key, error) in &told.refused {
                    assert!(says_full(error), "{case}: {key}: {error:?}");
                }
                check_stopped(&store, &told, &format!("{case}, full"));
                let error = store.close().wait().unwrap_err();
                assert!(says_full(&error), "{case}: {error:?}");
                refused += told.refused.len();
            }
            Err(error) => {
                assert!(says_full(&error), "{case}: {error:?}");
                not_opened += 1;
            }
        }
        // Still full: an error that says so, or a store that answers what it knows.
        match open(&disk.0, durability) {
            Ok(store) => check(&store, &told, &format!("{case}, opened full")),
            Err(error) => assert!(says_full(&error), "{case}: {error:?}"),
        }
        disk.resize("64m");
        let store = open(&disk.0, durability).unwrap_or_else(|error| panic!("{case}: {error}"));
        check(&store, &told, &case);
        redo(&store, &mut told, &case);
        store.close().wait().unwrap();
    }
    tell(&format!("full disks: {refused} calls refused, {not_opened} not opened"));
    assert!(refused > 0, "no disk was full");
}

#[test]
fn nothing_is_lost_on_a_file_system_whose_sync_fails() {
    const NAME: &str = "disks::nothing_is_lost_on_a_file_system_whose_sync_fails";
    let Some(place) = part_in(NAME) else {
        return with_own_mounts(NAME, &["mkfs.ext4", "fstrim", "truncate"]);
    };
    for (journal, has) in [("^has_journal", "without a journal"), ("has_journal", "with a journal")]
    {
        for room in [5, 9, 12] {
            let case = format!("a sync that failed on an ext4 {has} and {room} MiB");
            let backing = Mount::of_bytes(&place.join(format!("backing, {has}, {room}")), "512m");
            let image = backing.0.join("image");
            let at = place.join(format!("ext4 {has}, {room}"));
            make_ext4(&image, journal);
            std::fs::create_dir_all(&at).unwrap();
            if !works("mount", &["-o", "loop", path(&image), path(&at)]) {
                return tell("left out: no loop device can be mounted");
            }
            let disk = Mount(at.clone());
            let Some(requests) = SmallRequests::of(&disk) else {
                return tell("left out: the requests of a loop device cannot be made small");
            };
            // The file system's own blocks keep their room, those that are free lose theirs.
            if !works("fstrim", &[path(&at)]) {
                return tell("left out: a loop device cannot be trimmed");
            }
            backing.leave(room);

            let store = open(&disk.0, Durability::Synced).unwrap();
            let mut told = Told::default();
            fill(&store, &mut told);
            let said = stopped_by(&told, &case).to_string();
            // So it was the sync: there is room, for all that the file system knows.
            let free = rustix::fs::statvfs(&disk.0).unwrap();
            assert!(free.f_bavail * free.f_frsize > 16 << 20, "{case}");
            check_stopped(&store, &told, &format!("{case}, before it is opened again"));
            drop(store);

            backing.resize("512m");
            drop(requests);
            let store =
                open(&disk.0, Durability::Synced).unwrap_or_else(|e| panic!("{case}: {e:?}"));
            check(&store, &told, &case);
            redo(&store, &mut told, &case);
            store.close().wait().unwrap();
            drop(store);

            // What the file system has, with nothing left in memory.
            drop(disk);
            let disk = Mount::new(&at, &["-o", "loop", path(&image)]);
            let store =
                open(&disk.0, Durability::Synced).unwrap_or_else(|e| panic!("{case}: {e:?}"));
            check(&store, &told, &format!("{case}, mounted again"));
            tell(&format!("{case}: {} replies, then {said}", told.completed.len()));
        }
    }
}

/// Makes an ext4 in a file, with room for all that it has written.
fn make_ext4(image: &Path, journal: &str) {
    let at_once = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";
    run("truncate", &["--size", "64m", path(image)]);
    // Blocks of a page: a request of one block is of one page of the backing.
    run("mkfs.ext4", &["-q", "-b", "4096", "-O", journal, "-E", at_once, path(image)]);
    // What it says is zero may be a hole, which takes no room before it is written.
    let bytes = std::fs::read(image).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(image).unwrap();
    (&file).write_all(&bytes).unwrap();
}

/// Requests of one page to a loop device, until dropped.
///
/// A loop device takes a write for done if its backing took some of it: a request that runs out of
/// room half-way is a success, and so is the sync after it, and no file system and no store can
/// know. A page it takes whole or not at all.
struct SmallRequests(PathBuf);

impl SmallRequests {
    fn of(disk: &Mount) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let device = std::fs::metadata(&disk.0).unwrap().dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let limit = format!("/sys/dev/block/{major}:{minor}/queue/max_sectors_kb");
        std::fs::write(&limit, "4").ok()?;
        Some(SmallRequests(limit.into()))
    }
}

impl Drop for SmallRequests {
    fn drop(&mut self) {
        // The device's own.
        let _ = std::fs::write(&self.0, "0");
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
