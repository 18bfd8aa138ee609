//! What the behaviour tests share: one body, run over every configuration of a store.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of test binaries has no outside")]
#![allow(clippy::print_stderr, reason = "a failing test shows which store it was at")]
#![allow(clippy::items_after_statements, reason = "a type is named where it is used")]
#![allow(
    clippy::new_ret_no_self,
    clippy::wrong_self_convention,
    reason = "`ClaimExt` takes a claim apart by the names of its variants"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fault::{FaultyDirectory, Keep};
use justonce::seam::Directory;
use justonce::{
    Claim, Durability, Entry, Error, ErrorKind, Flight, ManualClock, Operation, Options, Pending,
    Reply, Store, Ticket,
};

pub mod fault;
pub mod image;
pub mod journal;
pub mod ledger;
pub mod random;
pub mod work;

pub const MINUTE: Duration = Duration::from_mins(1);
pub const HOUR: Duration = Duration::from_hours(1);
pub const DAY: Duration = Duration::from_hours(24);

/// The configuration in which all is sealed that can be.
const SEALED: &str = "synced, each record sealed";

/// A store under test, with the clock that moves it and room to open it again.
pub struct World {
    pub name: &'static str,
    pub store: Store,
    pub clock: ManualClock,
    pub durability: Durability,
    options: Options,
    home: Home,
    /// Writes that go into each batch beside the one under test.
    fillers: u64,
    filled: AtomicU64,
    /// Whether each [`World::wait`] ends with what was written being sealed.
    pub seals: bool,
    /// Records of this store that earlier runs wrote.
    written_before: u64,
    /// Records that are in no sealed file once all is sealed that can be.
    unsealed: AtomicU64,
}

/// Where a store is.
enum Home {
    Memory,
    Disk(tempfile::TempDir),
    Faulty(FaultyDirectory),
}

/// Runs `body` with a fresh store of each configuration: all durabilities, lone and crowded
/// batches, on disk and in memory, one where generations are tiny and tags collide, and one where
/// whatever was written is sealed before the next call.
pub fn with_store(body: impl Fn(&mut World)) {
    with_store_of(|options| options, body);
}

/// As [`with_store`], with further options.
pub fn with_store_of(more: impl Fn(Options) -> Options, body: impl Fn(&mut World)) {
    let relaxed = Durability::Relaxed { within: Duration::from_millis(5) };
    let plain = |options: Options| options;
    let tiny = |options: Options| options.index_entries(8).tag_bits(4);
    let one_record_each = |options: Options| options.generation_bytes(1);
    type Shape = fn(Options) -> Options;
    let configurations: [(&'static str, Durability, u64, bool, Shape); 7] = [
        ("synced, alone in its batch", Durability::Synced, 0, true, plain),
        ("synced, in a batch of 64", Durability::Synced, 63, true, plain),
        ("strict, in a batch of 7", Durability::Strict, 6, true, plain),
        ("relaxed", relaxed, 0, true, plain),
        ("synced, tiny generations and colliding tags", Durability::Synced, 2, true, tiny),
        ("in memory", Durability::Synced, 0, false, plain),
        (SEALED, Durability::Synced, 0, true, one_record_each),
    ];
    for (name, durability, fillers, on_disk, shape) in configurations {
        let clock = ManualClock::new();
        let options = more(shape(Options::new()).durability(durability).clock(&clock));
        let home = if on_disk { Home::Disk(tempfile::tempdir().unwrap()) } else { Home::Memory };
        let mut world = World::at(home, options, clock);
        world = World { name, durability, fillers, seals: name == SEALED, ..world };
        eprintln!("with a store that is {name}");
        body(&mut world);
    }
}

impl World {
    fn at(home: Home, options: Options, clock: ManualClock) -> World {
        World {
            name: "alone in its batches",
            store: home.open(&options),
            clock,
            durability: Durability::Synced,
            options,
            home,
            fillers: 0,
            filled: AtomicU64::new(0),
            seals: false,
            written_before: 0,
            unsealed: AtomicU64::new(1),
        }
    }

    /// A store on disk with further options, alone in its batches.
    pub fn on_disk(more: impl FnOnce(Options) -> Options) -> World {
        let clock = ManualClock::new();
        let options = more(Options::new().clock(&clock));
        World::at(Home::Disk(tempfile::tempdir().unwrap()), options, clock)
    }

    /// A store on a disk that can be cut off, with further options.
    pub fn on_faulty_disk(more: impl FnOnce(Options) -> Options) -> World {
        let clock = ManualClock::new();
        let options = more(Options::new().clock(&clock));
        World::at(Home::Faulty(FaultyDirectory::default()), options, clock)
    }

    /// Where a store on disk is.
    pub fn path(&self) -> PathBuf {
        match &self.home {
            Home::Disk(directory) => directory.path().join("store"),
            _ => panic!("not on disk"),
        }
    }

    /// The disk of a store that can be cut off.
    pub fn disk(&self) -> &FaultyDirectory {
        match &self.home {
            Home::Faulty(directory) => directory,
            _ => panic!("not on a faulty disk"),
        }
    }

    /// Waits for a call that is to be refused, and says how it was.
    #[track_caller]
    pub fn refusal<T: std::fmt::Debug>(&self, call: Pending<T>) -> ErrorKind
    where
        Pending<T>: Future<Output = Result<T, Error>>,
    {
        match self.wait(call) {
            Ok(answer) => panic!("not refused: {answer:?}"),
            Err(error) => error.kind(),
        }
    }

    /// Crowds the filling batch, then waits for the call.
    pub fn wait<T>(&self, call: Pending<T>) -> Result<T, Error>
    where
        Pending<T>: Future<Output = Result<T, Error>>,
    {
        let fillers: Vec<_> =
            (0..self.fillers).map(|_| self.store.record_once(self.filler())).collect();
        let answer = futures_lite::future::block_on(call);
        fillers.into_iter().for_each(drop);
        if self.seals {
            self.seal_most([self.filler()]);
        }
        answer
    }

    /// An operation that nobody asks for.
    pub fn filler(&self) -> Operation {
        let number = self.filled.fetch_add(1, Ordering::Relaxed);
        Operation::new("filler", number.to_string())
    }

    /// Records written in all runs of the store.
    pub fn written(&self) -> u64 {
        self.written_before + self.store.stats().commits.records
    }

    /// Where each record has a generation of its own: follows the last record of some lanes by
    /// another and waits until all but those are sealed, and but the last of as many `others`.
    /// Lanes are told by a window each; nothing is to be over yet.
    #[track_caller]
    pub fn seal(&self, windows: &[Duration], others: u64) {
        for window in windows {
            let filler = self.filler().window(*window);
            assert!(self.store.record_once(filler).wait().unwrap());
        }
        let sealed = self.written() - windows.len() as u64 - others;
        eventually(&format!("{sealed} generations are sealed"), || self.sealed() == sealed);
    }

    /// Follows the last record of some lanes by a filler and waits until as much is sealed as will
    /// be: where lanes are open that are not known, or files are gone that were sealed, that is
    /// told by nothing more being sealed for a while.
    pub fn seal_most(&self, fillers: impl IntoIterator<Item = Operation>) {
        const A_WHILE: u32 = 25;
        let mut calls = fillers.into_iter().map(|of| self.store.record_once(of));
        if !calls.all(|call| call.wait().is_ok()) {
            return;
        }
        let unsealed = || self.written().saturating_sub(self.sealed());
        let (mut last, mut polls) = (u64::MAX, 0);
        while polls < A_WHILE && unsealed() > self.unsealed.load(Ordering::Relaxed) {
            let sealed = self.sealed();
            polls = if sealed == last { polls + 1 } else { 0 };
            last = sealed;
            std::thread::park_timeout(Duration::from_millis(1));
        }
        self.unsealed.store(unsealed(), Ordering::Relaxed);
    }

    /// How many generations are sealed.
    pub fn sealed(&self) -> u64 {
        self.store.stats().sealed_generations as u64
    }

    pub fn claim(&self, operation: Operation) -> Claim {
        self.wait(self.store.claim(operation)).unwrap()
    }

    pub fn lookup(&self, key: &str) -> Option<Entry> {
        self.wait(self.store.lookup("acme", key)).unwrap()
    }

    /// Closes the store and opens it again, as a restart does. `false` where it is in memory and
    /// there is nothing to open again.
    pub fn reopen(&mut self) -> bool {
        if matches!(self.home, Home::Memory) {
            return false;
        }
        self.written_before = self.written();
        self.wait(self.store.close()).unwrap();
        self.store = self.home.open(&self.options);
        true
    }

    /// Goes on with what a power cut leaves of the disk.
    pub fn cut_off(&mut self) {
        self.written_before = self.written();
        self.home = Home::Faulty(self.disk().image(Keep::Synced));
        self.store = self.home.open(&self.options);
    }

    /// The files of a store on disk.
    pub fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = match &self.home {
            Home::Memory => Vec::new(),
            Home::Faulty(directory) => directory.list().unwrap(),
            Home::Disk(directory) => std::fs::read_dir(directory.path().join("store"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect(),
        };
        names.sort();
        names
    }
}

impl Home {
    #[track_caller]
    fn open(&self, options: &Options) -> Store {
        let options = options.clone();
        match self {
            Home::Memory => options.in_memory().unwrap(),
            Home::Disk(directory) => options.open(directory.path().join("store")).unwrap(),
            Home::Faulty(directory) => options.open_in(Arc::new(directory.clone())).unwrap(),
        }
    }
}

/// An operation of the project the tests use.
pub fn op(key: &str) -> Operation {
    Operation::new("acme", key)
}

pub trait ClaimExt {
    fn new(self) -> Ticket;
    fn resumed(self) -> (Ticket, justonce::Prior);
    fn in_flight(self) -> Flight;
    fn completed(self) -> Reply;
    fn failed(self) -> Reply;
    fn mismatch(self) -> justonce::Seen;
    fn lapsed(self) -> justonce::Prior;
}

impl ClaimExt for Claim {
    #[track_caller]
    fn new(self) -> Ticket {
        match self {
            Claim::New(ticket) => ticket,
            other => panic!("not new: {other:?}"),
        }
    }

    #[track_caller]
    fn resumed(self) -> (Ticket, justonce::Prior) {
        match self {
            Claim::Resumed(ticket, prior) => (ticket, prior),
            other => panic!("not resumed: {other:?}"),
        }
    }

    #[track_caller]
    fn in_flight(self) -> Flight {
        match self {
            Claim::InFlight(flight) => flight,
            other => panic!("not in flight: {other:?}"),
        }
    }

    #[track_caller]
    fn completed(self) -> Reply {
        match self {
            Claim::Completed(reply) => reply,
            other => panic!("not completed: {other:?}"),
        }
    }

    #[track_caller]
    fn failed(self) -> Reply {
        match self {
            Claim::Failed(reply) => reply,
            other => panic!("not failed: {other:?}"),
        }
    }

    #[track_caller]
    fn mismatch(self) -> justonce::Seen {
        match self {
            Claim::Mismatch(seen) => seen,
            other => panic!("no mismatch: {other:?}"),
        }
    }

    #[track_caller]
    fn lapsed(self) -> justonce::Prior {
        match self {
            Claim::Lapsed(prior) => prior,
            other => panic!("not lapsed: {other:?}"),
        }
    }
}

/// Waits, in real time, until something that another thread does has happened.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    panic!("still not so after 10 s: {what}");
}
