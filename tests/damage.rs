//! Files that are not what was written: whatever is flipped, cut off, zeroed, exchanged or lost of
//! any file of a store, it answers right or says which file is damaged.
//!
//! Each case takes a sound store, closed, cut off or in use, damages one of its files in one place
//! and asks for everything. What has an owner or a reply is never new; nothing panics but redb,
//! within its file; nothing goes on for ever.
//!
//! A slice of the cases is run, at random; the seed is printed and `JUSTONCE_SEED` runs it again.
//! `JUSTONCE_SOAK=1` runs 2,600 of them, more with a larger number.

#![allow(clippy::allow_attributes, reason = "lints that fire in some helpers only")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test")]

mod common;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once, mpsc};
use std::time::Duration;

use common::fault::{FaultyDirectory, Keep};
use common::*;
use justonce::seam::Directory;
use justonce::{
    Claim, Durability, Entry, EntryState, Error, ErrorKind, Filter, ManualClock, Options, Reply,
    RequestId, Store, Verify,
};

const KEYS: usize = 48;
const SHORT: Duration = Duration::from_hours(2);
const PAGE: usize = 4096;

/// What a case may take, however slow the machine.
const CASE: Duration = MINUTE;

// A sound store, and what its callers were told.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Completed,
    Failed,
    Released,
    Detached,
    Forgotten,
}

#[derive(Debug, Clone)]
struct Told {
    key: String,
    end: End,
    body: Vec<u8>,
    request: RequestId,
    fence: u64,
}

/// How a store is found when it is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    Closed,
    /// And is opened with `verify_on_open`.
    ClosedAndVerified,
    /// The power went. The last commit of a file is told from a torn one in `Strict` alone.
    CutOff,
    /// It is open, and nothing of it is in a cache that can do without.
    InUse,
}

#[derive(Debug)]
struct Sound {
    disk: FaultyDirectory,
    clock: ManualClock,
    durability: Durability,
    told: Vec<Told>,
    /// What was in each file from time to time.
    versions: Vec<BTreeMap<String, Vec<u8>>>,
    files: Vec<String>,
    /// Those that are sealed.
    sealed: Vec<String>,
}

impl Sound {
    fn new(durability: Durability, is_closed: bool) -> Self {
        let (disk, clock) = (FaultyDirectory::default(), ManualClock::new());
        let store = options(&clock, durability).open_in(Arc::new(disk.clone())).unwrap();
        let (mut told, mut versions) = (Vec::new(), Vec::new());
        for number in 0..KEYS {
            if number % 6 == 0 {
                versions.push(contents(&disk));
            }
            clock.advance(Duration::from_millis(1));
            told.push(work(&store, number));
        }
        eventually("all is sealed but the open ones and the spare", || {
            let stats = store.stats();
            stats.sealed_generations >= 3 && stats.generations <= stats.sealed_generations + 3
        });
        versions.push(contents(&disk));
        let disk = if is_closed {
            store.close().wait().unwrap();
            disk.image(Keep::Written)
        } else {
            disk.image(Keep::Synced)
        };
        let files: Vec<_> = contents(&disk).into_keys().collect();
        let of_store = |name: &&String| !["store.redb", "LOCK"].contains(&name.as_str());
        let is_open = |name: &&String| opening_is_open(&disk, name);
        let sealed = files.iter().filter(of_store).filter(|name| !is_open(name)).cloned().collect();
        Sound { disk, clock, durability, told, versions, files, sealed }
    }

    fn open(&self, disk: &FaultyDirectory, found: Found) -> Result<Store, Error> {
        let options = options(&self.clock, self.durability);
        let options = options.verify_on_open(found == Found::ClosedAndVerified);
        options.open_in(Arc::new(disk.clone()))
    }
}

fn options(clock: &ManualClock, durability: Durability) -> Options {
    let options = Options::new().clock(clock).durability(durability);
    options.generation_bytes(4 << 10).cache_bytes(0).tag_bits(10)
}

fn contents(disk: &FaultyDirectory) -> BTreeMap<String, Vec<u8>> {
    disk.list().unwrap().into_iter().map(|name| (name.clone(), disk.read(&name))).collect()
}

/// Whether a generation's file is not sealed: it has no index.
fn opening_is_open(disk: &FaultyDirectory, name: &str) -> bool {
    let bytes = disk.read(name);
    !bytes.windows(21).any(|bytes| bytes == b"identityindexlogshards")
}

/// Claims a key and ends it in one way or the other.
fn work(store: &Store, number: usize) -> Told {
    let key = format!("key {number}");
    let window = if number.is_multiple_of(3) { DAY } else { SHORT };
    let claim = store.claim(op(&key).window(window).lease(MINUTE)).wait().unwrap();
    let ticket = claim.new();
    let (request, fence) = (ticket.request_id(), ticket.fence());
    // Now and then of more than a page.
    let body = key.repeat(if number.is_multiple_of(8) { 1_000 } else { 6 + number }).into_bytes();
    let end = match number % 12 {
        0..5 => End::Completed,
        5 | 6 => End::Failed,
        7 | 8 => End::Released,
        9 | 10 => End::Detached,
        _ => End::Forgotten,
    };
    match end {
        End::Completed | End::Forgotten => ticket.complete(Reply::new(body.clone())).wait(),
        End::Failed => ticket.fail(Reply::new(body.clone())).wait(),
        End::Released => ticket.release("busy").wait(),
        End::Detached => {
            ticket.checkpoint("a note").wait().unwrap();
            let _ = ticket.detach();
            Ok(())
        }
    }
    .unwrap();
    if end == End::Forgotten {
        assert!(store.forget("acme", &key).wait().unwrap());
    }
    Told { key, end, body, request, fence }
}

// What is done to a file.

#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip {
        at: usize,
        mask: u8,
    },
    CutTo(usize),
    LongerBy(usize),
    Zero {
        page: usize,
    },
    Exchange {
        page: usize,
        other: usize,
    },
    /// The page of another file stands here.
    Astray {
        page: usize,
        from: usize,
    },
    /// A page is as it was before.
    Lost {
        page: usize,
        version: usize,
    },
}

const KINDS: usize = 10;

impl Damage {
    /// One of some kind, of those that change something; nothing where chance finds none.
    fn choose(kind: usize, sound: &Sound, file: &str, random: &mut Random) -> Option<Self> {
        let bytes = sound.disk.read(file);
        let pages = bytes.len().div_ceil(PAGE);
        let is_used = |page: usize| bytes[page * PAGE..].iter().take(PAGE).any(|byte| *byte != 0);
        for _ in 0..200 {
            let page = random.below(pages);
            let damage = match kind {
                0..4 => {
                    let at = random.below(bytes.len());
                    let around = &bytes[at / 32 * 32..(at / 32 * 32 + 32).min(bytes.len())];
                    if around.iter().all(|byte| *byte == 0) {
                        continue;
                    }
                    Damage::Flip { at, mask: 1 << random.below(8) }
                }
                4 if random.below(2) == 0 => Damage::CutTo(page * PAGE),
                4 => Damage::CutTo(random.below(bytes.len())),
                5 if random.below(4) > 0 => continue,
                5 => Damage::LongerBy(1 + random.below(2 * PAGE)),
                6 => Damage::Zero { page },
                7 => Damage::Exchange { page, other: random.below(pages) },
                8 => Damage::Astray { page, from: random.below(sound.files.len()) },
                _ => Damage::Lost { page, version: random.below(sound.versions.len()) },
            };
            let is_in_use =
                matches!(damage, Damage::CutTo(_) | Damage::Flip { .. }) || is_used(page);
            if is_in_use && damage.done(sound, file).is_some_and(|damaged| damaged != bytes) {
                return Some(damage);
            }
        }
        None
    }

    /// What the file is then.
    fn done(self, sound: &Sound, file: &str) -> Option<Vec<u8>> {
        let mut bytes = sound.disk.read(file);
        let page_of = |bytes: &[u8], page: usize| {
            bytes.get(page * PAGE..(page + 1) * PAGE).map(<[u8]>::to_vec)
        };
        let put = |bytes: &mut Vec<u8>, page: usize, content: &[u8]| {
            bytes.get_mut(page * PAGE..(page + 1) * PAGE).map(|at| at.copy_from_slice(content))
        };
        match self {
            Damage::Flip { at, mask } => bytes[at] ^= mask,
            Damage::CutTo(len) => bytes.truncate(len),
            Damage::LongerBy(more) => bytes.resize(bytes.len() + more, 0),
            Damage::Zero { page } => put(&mut bytes, page, &[0; PAGE])?,
            Damage::Exchange { page, other } => {
                let (one, another) = (page_of(&bytes, page)?, page_of(&bytes, other)?);
                put(&mut bytes, page, &another)?;
                put(&mut bytes, other, &one)?;
            }
            Damage::Astray { page, from } => {
                let other = sound.disk.read(&sound.files[from]);
                put(&mut bytes, page, &page_of(&other, page)?)?;
            }
            Damage::Lost { page, version } => {
                let before = page_of(sound.versions[version].get(file)?, page)?;
                put(&mut bytes, page, &before)?;
            }
        }
        Some(bytes)
    }

    fn reaches_header(self) -> bool {
        match self {
            Damage::Flip { at, .. } => at < PAGE,
            Damage::CutTo(_) | Damage::LongerBy(_) => false,
            Damage::Zero { page } | Damage::Astray { page, .. } | Damage::Lost { page, .. } => {
                page == 0
            }
            Damage::Exchange { page, other } => page == 0 || other == 0,
        }
    }
}

#[derive(Debug)]
struct Case {
    sound: Arc<Sound>,
    found: Found,
    file: String,
    damage: Damage,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {}, {:?}", self.damage, self.file, self.found)
    }
}

/// What came of a case that went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// It was not opened, and the file was named.
    Refused,
    /// Some question was answered by an error.
    Told,
    /// Nobody noticed, and all was answered right.
    Right,
}

impl Case {
    fn run(&self) -> Outcome {
        let disk = self.sound.disk.image(Keep::Written);
        let damaged = self.damage.done(&self.sound, &self.file).unwrap();
        if self.found != Found::InUse {
            disk.put(&self.file, Some(&damaged));
        }
        let store = match self.sound.open(&disk, self.found) {
            Ok(store) => store,
            Err(error) => {
                self.assert_named(&error);
                return Outcome::Refused;
            }
        };
        if self.found == Found::InUse {
            let file = disk.open(&self.file).unwrap();
            file.set_len(damaged.len() as u64).unwrap();
            file.write(0, &damaged).unwrap();
        }
        let is_told =
            [self.look_up(&store), self.list(&store), self.verify(&store), self.claim(&store)];
        let _ = store.close().wait();
        drop(store);
        // What came of that is not worse.
        match self.sound.open(&disk, self.found) {
            Ok(store) => self.look_up_any(&store),
            Err(error) => self.assert_named(&error),
        }
        if is_told.contains(&true) { Outcome::Told } else { Outcome::Right }
    }

    /// Whether some answer is an error; the others are right.
    fn look_up(&self, store: &Store) -> bool {
        let mut is_told = false;
        for told in &self.sound.told {
            match store.lookup("acme", &told.key).wait() {
                Ok(Some(entry)) => assert_is(told, &entry),
                Ok(None) => assert_eq!(told.end, End::Forgotten, "{} is lost", told.key),
                Err(error) => {
                    is_told = true;
                    self.assert_named(&error);
                }
            }
        }
        is_told
    }

    /// The same, after claims that may have changed it.
    fn look_up_any(&self, store: &Store) {
        for told in &self.sound.told {
            match store.lookup("acme", &told.key).wait() {
                Ok(Some(entry)) if told.end != End::Forgotten => {
                    assert_eq!(entry.request_id(), told.request, "{}", told.key);
                }
                Ok(Some(_)) => {}
                Ok(None) => assert_eq!(told.end, End::Forgotten, "{} is lost", told.key),
                Err(error) => self.assert_named(&error),
            }
        }
    }

    fn list(&self, store: &Store) -> bool {
        let mut is_told = false;
        let lacks_a_reply = |told: &&Told| matches!(told.end, End::Released | End::Detached);
        match store.in_flight().wait() {
            Ok(entries) => {
                let all = self.sound.told.iter().filter(lacks_a_reply).count();
                assert_eq!(entries.len(), all, "in flight");
            }
            Err(error) => {
                is_told = true;
                self.assert_named(&error);
            }
        }
        let mut scanned = 0;
        let mut is_scan_told = false;
        for entry in store.scan(Filter::new()) {
            match entry {
                Ok(_) => scanned += 1,
                Err(error) => {
                    is_scan_told = true;
                    self.assert_named(&error);
                }
            }
        }
        let all = self.sound.told.iter().filter(|told| told.end != End::Forgotten).count();
        assert!(scanned == all || is_scan_told && scanned < all, "a scan shows {scanned} of {all}");
        is_told || is_scan_told
    }

    fn verify(&self, store: &Store) -> bool {
        match store.verify(Verify::new()) {
            Ok(verified) => {
                verified.damages().iter().for_each(|damage| self.assert_named(damage));
                let is_sealed = self.sound.sealed.contains(&self.file);
                assert!(!is_sealed || !verified.is_sound(), "a sealed file is said to be sound");
                !verified.is_sound()
            }
            Err(error) => {
                self.assert_named(&error);
                true
            }
        }
    }

    fn claim(&self, store: &Store) -> bool {
        let mut is_told = false;
        let last_fence = self.sound.told.iter().map(|told| told.fence).max().unwrap();
        for told in &self.sound.told {
            match (store.claim(op(&told.key)).wait(), told.end) {
                (Ok(Claim::Completed(reply)), End::Completed)
                | (Ok(Claim::Failed(reply)), End::Failed) => {
                    assert!(reply.body() == told.body, "{} has another reply", told.key);
                    assert_eq!(reply.request_id(), Some(told.request), "{}", told.key);
                }
                (Ok(Claim::Resumed(ticket, _)), End::Released | End::Detached) => {
                    assert_eq!(ticket.request_id(), told.request, "{}", told.key);
                    assert!(ticket.fence() > last_fence, "{}", told.key);
                    let _ = ticket.detach();
                }
                (Ok(Claim::New(ticket)), End::Forgotten) => {
                    assert_ne!(ticket.request_id(), told.request, "{}", told.key);
                    assert!(ticket.fence() > last_fence, "{}", told.key);
                    let _ = ticket.detach();
                }
                (Ok(claim), end) => panic!("{} is {end:?} and answers {claim:?}", told.key),
                (Err(error), _) => {
                    is_told = true;
                    self.assert_named(&error);
                }
            }
        }
        match store.record_once(op("fresh")).wait() {
            Ok(is_first) => assert!(is_first, "what nobody has seen was seen"),
            Err(error) => {
                is_told = true;
                self.assert_named(&error);
            }
        }
        is_told
    }

    /// An error is of a kind that fits, and says which file. That of a manifest which lacks
    /// something may name what it lacks, and after a failed commit all is refused in one breath.
    #[track_caller]
    fn assert_named(&self, error: &Error) {
        let message = error.to_string();
        match error.kind() {
            ErrorKind::Poisoned => return,
            ErrorKind::Corrupt | ErrorKind::Io | ErrorKind::Unknown => {}
            ErrorKind::Incompatible { .. } if self.file == "store.redb" => {}
            kind => panic!("damage is told as {kind:?}: {message}"),
        }
        let is_named = message.contains(&self.file)
            || self.file == "store.redb" && message.contains(".redb")
            || error.kind() == ErrorKind::Unknown && message.contains(".redb");
        assert!(is_named, "the file is not named: {message}");
    }
}

fn assert_is(told: &Told, entry: &Entry) {
    let expected = match told.end {
        End::Completed => EntryState::Completed,
        End::Failed => EntryState::Failed,
        End::Released => EntryState::Released,
        End::Detached => EntryState::Lapsed,
        End::Forgotten => panic!("{} was forgotten and is {:?}", told.key, entry.state()),
    };
    assert_eq!(entry.state(), expected, "{}", told.key);
    assert_eq!(entry.request_id(), told.request, "{}", told.key);
    if let Some(reply) = entry.reply() {
        assert!(reply.body() == told.body, "{} has another reply", told.key);
    }
}

// All of them.

/// Xorshift.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        for (left, by) in [(true, 13), (false, 7), (true, 17)] {
            self.0 ^= if left { self.0 << by } else { self.0 >> by };
        }
        usize::try_from((self.0 >> 16) % limit.max(1) as u64).unwrap()
    }
}

fn number_in(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|number| number.parse().unwrap())
}

/// Panics of this crate's own code: those of redb are caught and told as damage.
static OWN_PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_own_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let file = panic.location().map_or("", |at| at.file());
            if file.starts_with("src/") {
                OWN_PANICS.fetch_add(1, Ordering::SeqCst);
            }
            if !file.contains("redb-") {
                before(panic);
            }
        }));
    });
}

/// Runs a case on a thread of its own, which is left behind if it does not end.
#[expect(clippy::disallowed_methods, reason = "a thread that hangs is left behind")]
fn ends_well(case: Case) -> Result<Outcome, String> {
    let (sender, receiver) = mpsc::channel();
    let name = case.to_string();
    let running = std::thread::spawn(move || {
        let outcome = case.run();
        let _ = sender.send(());
        outcome
    });
    match receiver.recv_timeout(CASE) {
        Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("no end: {name}")),
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => {
            running.join().map_err(|_| format!("wrong: {name}"))
        }
    }
}

/// A file whose first page is an earlier one is sound by itself, and lacks what came after.
#[test]
fn a_file_that_has_gone_back_in_time_is_told() {
    count_own_panics();
    let sound = Arc::new(Sound::new(Durability::Synced, true));
    let mut wrong = Vec::new();
    for file in &sound.files {
        for version in 0..sound.versions.len() {
            let damage = Damage::Lost { page: 0, version };
            if damage.done(&sound, file).is_some() {
                let (sound, file) = (Arc::clone(&sound), file.clone());
                let case = Case { sound, found: Found::Closed, file, damage };
                wrong.extend(ends_well(case).err());
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Every file is sound by itself, and one is of an earlier closing than the others.
#[test]
fn a_file_of_an_earlier_closing_is_told() {
    let (disk, clock) = (FaultyDirectory::default(), ManualClock::new());
    let run = |key: &str| {
        let store = Options::new().clock(&clock).open_in(Arc::new(disk.clone())).unwrap();
        assert!(store.record_once(op(key)).wait().unwrap());
        eventually("the spare is there", || store.stats().generations == 2);
        store.close().wait().unwrap();
        contents(&disk)
    };
    let earlier = run("first");
    run("second");
    for name in ["store.redb", "00000001.redb"] {
        let disk = disk.image(Keep::Written);
        disk.put(name, Some(&earlier[name]));
        let opened = Options::new().clock(&clock).open_in(Arc::new(disk));
        let Err(error) = opened else { panic!("{name} was taken") };
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        assert!(error.to_string().contains(".redb"), "{error}");
    }
}

/// With another secret each key has another id, and all of them are new.
#[test]
fn a_flipped_bit_around_the_secret_is_told() {
    count_own_panics();
    let sound = Arc::new(Sound::new(Durability::Synced, true));
    let bytes = sound.disk.read("store.redb");
    let places = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"idsecret"));
    let around = places.flat_map(|at| at..at + 56);
    let wrong: Vec<_> = around
        .filter_map(|at| {
            let (sound, file) = (Arc::clone(&sound), "store.redb".to_owned());
            let damage = Damage::Flip { at, mask: 0x10 };
            ends_well(Case { sound, found: Found::Closed, file, damage }).err()
        })
        .collect();
    assert!(bytes.windows(8).any(|bytes| bytes == b"idsecret"));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn whatever_is_damaged_is_told_or_does_no_harm() {
    let seed = number_in("JUSTONCE_SEED").unwrap_or_else(|| {
        u64::from(std::process::id()) << 32
            | u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos())
    });
    let count = number_in("JUSTONCE_SOAK").map_or(1_000, |soak| 2_600 * soak);
    eprintln!("JUSTONCE_SEED={seed}, {count} cases");
    count_own_panics();
    let mut random = Random(seed | 1);
    let closed = Arc::new(Sound::new(Durability::Synced, true));
    let cut_off = Arc::new(Sound::new(Durability::Strict, false));
    let mut outcomes: BTreeMap<(Found, Outcome), usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut number = 0;
    let mut run = 0;
    while run < count {
        let found =
            [Found::Closed, Found::ClosedAndVerified, Found::CutOff, Found::InUse][number % 4];
        let sound = if found == Found::CutOff { &cut_off } else { &closed };
        let files = sound.files.len();
        let file = sound.files[number / 4 % files].clone();
        let kind = number / 4 / files % KINDS;
        number += 1;
        let Some(damage) = Damage::choose(kind, sound, &file, &mut random) else { continue };
        // What was not closed shows its last commit in its first page alone.
        let is_open = !sound.sealed.contains(&file);
        if found == Found::CutOff && is_open && damage.reaches_header() {
            continue;
        }
        run += 1;
        match ends_well(Case { sound: Arc::clone(sound), found, file, damage }) {
            Ok(outcome) => *outcomes.entry((found, outcome)).or_default() += 1,
            Err(case) => wrong.push(case),
        }
    }
    eprintln!("{outcomes:#?}");
    assert!(wrong.is_empty(), "{} of {count} cases, seed {seed}: {wrong:#?}", wrong.len());
    assert_eq!(OWN_PANICS.load(Ordering::SeqCst), 0, "a panic of this crate's own");
}
