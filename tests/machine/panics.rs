//! A disk's driver that panics in the middle of the store's work: the store stops, everyone is
//! woken, nothing acknowledged is lost. And what a store that is not opened leaves: a lock that is
//! given back once nothing is written any more.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Once};

use justonce::seam::{Directory, File};
use justonce::{Error, ErrorKind, Options, Store};

use crate::common::fault::{Fault, FaultyDirectory, On};
use crate::common::{ClaimExt, DAY, HOUR, eventually, op};

/// What the driver says when it panics.
const MEANT: &str = "the disk's driver";

/// A disk that is changed through here.
#[derive(Debug, Clone, Default)]
struct Watched {
    disk: FaultyDirectory,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// One more than the changes until the one that panics; zero for never.
    until_panic: AtomicUsize,
    has_panicked: AtomicBool,
    locked: AtomicBool,
    changes_unlocked: AtomicUsize,
}

impl State {
    fn panic_after(&self, changes: usize) {
        self.until_panic.store(changes + 1, Ordering::SeqCst);
    }

    fn change(&self) {
        if !self.locked.load(Ordering::SeqCst) {
            self.changes_unlocked.fetch_add(1, Ordering::SeqCst);
        }
        let down = |left: usize| left.checked_sub(1);
        let before = self.until_panic.fetch_update(Ordering::SeqCst, Ordering::SeqCst, down);
        if before == Ok(1) {
            self.has_panicked.store(true, Ordering::SeqCst);
            panic!("{MEANT}");
        }
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disk.fmt(f)
    }
}

impl Watched {
    fn file(&self, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(WatchedFile { file, state: Arc::clone(&self.state) })
    }
}

impl Directory for Watched {
    fn lock(&self) -> io::Result<bool> {
        let is_ours = self.disk.lock()?;
        self.state.locked.fetch_or(is_ours, Ordering::SeqCst);
        Ok(is_ours)
    }

    fn unlock(&self) {
        self.state.locked.store(false, Ordering::SeqCst);
        self.disk.unlock();
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.disk.open(name).map(|file| self.file(file))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.state.change();
        self.disk.create(name).map(|file| self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.state.change();
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.state.change();
        self.disk.remove(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn sync(&self) -> io::Result<()> {
        self.state.change();
        self.disk.sync()
    }

    fn drop_cached(&self, name: &str) -> io::Result<()> {
        self.disk.drop_cached(name)
    }

    fn check_in_place(&self) -> io::Result<()> {
        self.disk.check_in_place()
    }
}

#[derive(Debug)]
struct WatchedFile {
    file: Box<dyn File>,
    state: Arc<State>,
}

impl File for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.state.change();
        self.file.write(offset, data)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.state.change();
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.state.change();
        self.file.sync()
    }
}

fn open(disk: &Watched, options: Options) -> Result<Store, Error> {
    options.open_in(Arc::new(disk.clone()))
}

/// Keeps the panics that are meant, and those that come of them, off the screen.
fn quietly() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let is_meant = panic.payload_as_str() == Some(MEANT);
            let is_of_redb = panic.location().is_some_and(|at| at.file().contains("redb-"));
            if !is_meant && !is_of_redb {
                before(panic);
            }
        }));
    });
}

fn says_stopped(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Poisoned)
}

/// A commit writes several times and syncs: each is tried.
#[test]
fn a_panic_in_a_commit_stops_the_store_and_wakes_everyone() {
    quietly();
    for after in 0..4 {
        let disk = Watched::default();
        let store = open(&disk, Options::new()).unwrap();
        store.claim(op("done")).wait().unwrap().new().complete("done").wait().unwrap();
        let owner = store.claim(op("flying")).wait().unwrap().new();
        let fence = owner.fence();
        let flight = store.claim(op("flying")).wait().unwrap().in_flight();
        eventually("the next file is ready", || store.stats().generations == 2);
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| flight.wait(DAY));
            let claiming = threads.spawn(|| store.claim_or_wait(op("flying"), DAY).wait());
            eventually("both wait", || store.stats().waiters == 2);
            disk.state.panic_after(after);
            let lost: Vec<_> = (0..8).map(|n| store.claim(op(&format!("lost {n}")))).collect();
            for claim in lost {
                let error = claim.wait().unwrap_err();
                assert!(says_stopped(&error), "after {after}: {error:?}");
            }
            let error = waiting.join().unwrap().unwrap_err();
            assert!(says_stopped(&error), "after {after}: {error:?}");
            let error = claiming.join().unwrap().unwrap_err();
            assert!(says_stopped(&error), "after {after}: {error:?}");
        });
        assert!(disk.state.has_panicked.load(Ordering::SeqCst), "after {after}");
        assert_eq!(store.claim(op("done")).wait().unwrap().completed().body(), b"done");
        let error = owner.complete("late").wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Poisoned, "after {after}");
        assert_eq!(store.close().wait().unwrap_err().kind(), ErrorKind::Unknown, "after {after}");
        drop(store);
        let store = open(&disk, Options::new()).unwrap();
        assert_eq!(store.claim(op("done")).wait().unwrap().completed().body(), b"done");
        assert!(store.claim(op("flying")).wait().unwrap().resumed().0.fence() > fence);
    }
}

/// Wherever it comes: in a commit, in the making of a file, in sealing, in closing. A thread of
/// the store's own that is gone without a word would leave files unmade and unsealed for ever.
#[test]
fn a_panic_anywhere_stops_the_store_and_loses_nothing() {
    quietly();
    let small = || Options::new().generation_bytes(1024);
    let mut panicked = 0;
    for after in (0..60).chain((60..300).step_by(13)) {
        let disk = Watched::default();
        let store = open(&disk, small()).unwrap();
        disk.state.panic_after(after);
        let mut done = Vec::new();
        let mut refusal = None;
        for number in 0..40 {
            let key = format!("key {number}");
            let window = if number % 2 == 0 { HOUR } else { DAY };
            let claim = store.claim(op(&key).window(window)).wait();
            match claim.and_then(|claim| claim.new().complete("done").wait()) {
                Ok(()) => done.push(key),
                Err(error) => {
                    assert!(says_stopped(&error), "after {after}: {error:?}");
                    refusal = Some(error);
                    break;
                }
            }
        }
        if disk.state.has_panicked.load(Ordering::SeqCst) && refusal.is_none() {
            eventually("the store stops", || store.record_once(op("more")).wait().is_err());
        }
        let closed = store.close().wait();
        let has_panicked = disk.state.has_panicked.load(Ordering::SeqCst);
        assert_eq!(has_panicked, closed.is_err(), "after {after}: {closed:?}");
        panicked += usize::from(has_panicked);
        drop(store);
        disk.state.until_panic.store(0, Ordering::SeqCst);
        let store = open(&disk, small()).unwrap_or_else(|error| panic!("after {after}: {error}"));
        for key in done {
            let reply = store.claim(op(&key)).wait().unwrap().completed();
            assert_eq!(reply.body(), b"done", "after {after}: {key}");
        }
    }
    assert!(panicked > 60, "only {panicked} panicked");
}

/// A database that is dropped writes to its file. Where that came after the lock was given back,
/// another process could have opened the store by then, and two would have written to it.
#[test]
fn nothing_is_written_once_the_lock_is_given_back_when_a_store_is_not_opened() {
    let mut not_opened = 0;
    for after in 0..60 {
        let disk = Watched::default();
        let store = open(&disk, Options::new().generation_bytes(1)).unwrap();
        for number in 0..4 {
            assert!(store.record_once(op(&number.to_string())).wait().unwrap());
        }
        store.close().wait().unwrap();
        drop(store);
        let error = io::ErrorKind::Other;
        disk.disk.plan(Fault { on: On::Any, after, error, for_ever: false });
        let opened = open(&disk, Options::new());
        not_opened += usize::from(opened.is_err());
        drop(opened);
        let late = disk.state.changes_unlocked.load(Ordering::SeqCst);
        assert_eq!(late, 0, "changes without the lock, a fault after {after}");
    }
    assert!(not_opened > 0);
}
