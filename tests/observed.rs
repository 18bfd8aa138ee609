//! What is seen from outside: events and spans by a subscriber, metrics by a recorder.
//!
//! A subscriber is there once for the process, and the store's own threads have no other. So each
//! test has a store of its own name, and looks at what bears it.

#![cfg(all(feature = "tracing", feature = "metrics"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, LazyLock, Once};
use std::time::Duration;

use common::fault::{FaultyDirectory, Keep, On};
use common::*;
use justonce::{Error, ErrorKind, ManualClock, OnLapsed, Operation, Options, Stats, Store};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// An event, or a span that was entered.
#[derive(Debug, Clone)]
struct Seen {
    name: &'static str,
    level: Level,
    fields: BTreeMap<&'static str, String>,
}

#[derive(Debug, Default)]
struct Everything {
    events: Vec<Seen>,
    spans: Vec<Seen>,
    entered: u64,
    left: u64,
}

static SEEN: LazyLock<Mutex<Everything>> = LazyLock::new(Mutex::default);

/// A store that is asked by whoever is told of its slow commits.
static ASKED: Mutex<Option<(Store, u64)>> = Mutex::new(None);

struct Watcher;

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

impl Seen {
    fn of(metadata: &Metadata<'static>) -> Self {
        assert_eq!(metadata.target(), "justonce");
        Seen { name: metadata.name(), level: *metadata.level(), fields: BTreeMap::new() }
    }

    fn is_of(&self, store: &str) -> bool {
        self.fields.get("store").is_some_and(|name| name == store)
    }

    #[track_caller]
    fn number(&self, field: &str) -> u64 {
        self.fields[field].parse().unwrap()
    }
}

impl Subscriber for Watcher {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("justonce")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut seen = Seen::of(span.metadata());
        span.record(&mut seen);
        let mut all = SEEN.lock();
        all.spans.push(seen);
        Id::from_u64(all.spans.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut seen = Seen::of(event.metadata());
        event.record(&mut seen);
        SEEN.lock().events.push(seen.clone());
        if seen.is_of("broken watcher") {
            std::panic::resume_unwind(Box::new("a subscriber that panics"));
        }
        if seen.is_of("asked") && seen.name == "slow_commit" {
            ask();
        }
    }

    fn enter(&self, _: &Id) {
        SEEN.lock().entered += 1;
    }

    fn exit(&self, _: &Id) {
        SEEN.lock().left += 1;
    }
}

/// Writes to the store whose commit was told of, and waits for it.
fn ask() {
    let asked = ASKED.lock().take();
    if let Some((store, times)) = asked {
        assert!(store.record_once(op(&format!("asked {times}"))).wait().unwrap());
        *ASKED.lock() = Some((store, times + 1));
    }
}

fn watch() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| tracing::subscriber::set_global_default(Watcher).unwrap());
}

/// The events of one store so far.
fn events(store: &str) -> Vec<Seen> {
    SEEN.lock().events.iter().filter(|seen| seen.is_of(store)).cloned().collect()
}

fn spans(store: &str, name: &str) -> Vec<Seen> {
    let spans = &SEEN.lock().spans;
    spans.iter().filter(|seen| seen.is_of(store) && seen.name == name).cloned().collect()
}

/// The first event of a name, once it is there.
#[track_caller]
fn event(store: &str, name: &str) -> Seen {
    let find = || events(store).into_iter().find(|seen| seen.name == name);
    eventually(&format!("{name} is told"), || find().is_some());
    find().unwrap()
}

/// The names that a table of the page lists under a heading.
fn listed(heading: &str) -> BTreeSet<String> {
    let page = include_str!("../docs/observability.md");
    let section = page.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split('`').next().unwrap().to_owned()).collect()
}

/// What no event may have a byte of.
const PERSONAL: [&str; 6] = ["jane.doe", "iban-4711", "cancer", "letter", "insulin", "not-sober"];

fn personal() -> Operation {
    Operation::new(PERSONAL[0], PERSONAL[1]).fingerprint(PERSONAL[2].as_bytes()).window(HOUR)
}

#[test]
fn all_that_is_listed_is_told_and_nothing_personal() {
    const NAME: &str = "story";
    watch();
    let (directory, clock) = (FaultyDirectory::default(), ManualClock::new());
    let open = |directory: &FaultyDirectory| {
        let options = Options::new().name(NAME).slow_commit(Duration::ZERO).keep_keys(true);
        let options = options.generation_bytes(1).window(HOUR).clock(&clock);
        options.open_in(Arc::new(directory.clone())).unwrap()
    };
    let store = open(&directory);
    let opened = event(NAME, "opened");
    assert_eq!((opened.level, &*opened.fields["clean"]), (Level::INFO, "true"));
    assert_eq!(opened.number("epoch"), 1);

    let ticket = store.claim(personal()).wait().unwrap().new();
    ticket.checkpoint(PERSONAL[3]).wait().unwrap();
    ticket.release(PERSONAL[5]).wait().unwrap();
    let (ticket, _) = store.claim(personal()).wait().unwrap().resumed();
    ticket.complete(PERSONAL[4]).wait().unwrap();
    let slow = event(NAME, "slow_commit");
    assert_eq!((slow.level, slow.number("records")), (Level::WARN, 1));
    let rotated = event(NAME, "rotated");
    assert_eq!(rotated.level, Level::DEBUG);
    // An eighth of the lane's length, the power of two of milliseconds that an hour fits in.
    assert_eq!(rotated.number("takes_for_micros"), (1 << 22) / 8 * 1000);
    let sealed = event(NAME, "sealed");
    assert_eq!(sealed.number("generation"), rotated.number("generation"));
    eventually("as many are told of as are sealed", || {
        let told = events(NAME).iter().filter(|seen| seen.name == "sealed").count();
        told == store.stats().sealed_generations && told == 4
    });
    assert_eq!(spans(NAME, "open").len(), 1);
    assert_eq!(spans(NAME, "seal").len(), 4);
    assert_eq!(spans(NAME, "commit").len() as u64, store.stats().commits.batches);

    // The power goes, and the store is opened again; with a clock that was set back.
    let left = directory.image(Keep::Synced);
    store.close().wait().unwrap();
    clock.set_wall(clock.wall() - HOUR);
    let store = open(&left);
    let recovered = event(NAME, "recovered");
    assert_eq!((recovered.level, recovered.number("epoch")), (Level::WARN, 2));
    assert_eq!((recovered.number("replayed_records"), recovered.number("unanswered")), (1, 0));
    assert_eq!(event(NAME, "clock_behind").number("skew_micros"), 3_600_000_000);

    clock.advance(2 * HOUR);
    assert_eq!(event(NAME, "retired").level, Level::DEBUG);
    eventually("all files are gone that were written", || {
        events(NAME).iter().filter(|seen| seen.name == "retired").count() == 5
    });

    left.break_down(On::Sync, io::ErrorKind::Other);
    let error = store.claim(personal()).wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    let poisoned = event(NAME, "poisoned");
    assert_eq!(poisoned.level, Level::ERROR);
    assert!(store.stats().poisoned);
    assert!(store.close().wait().is_err());
    let closed: Vec<_> = events(NAME).into_iter().filter(|seen| seen.name == "closed").collect();
    let levels: Vec<_> = closed.iter().map(|seen| seen.level).collect();
    assert_eq!(levels, [Level::INFO, Level::WARN], "closed, and closed after a fault");

    let all = SEEN.lock();
    let of_story = |seen: &&Seen| seen.is_of(NAME);
    let told: BTreeSet<_> =
        all.events.iter().filter(of_story).map(|seen| seen.name.to_owned()).collect();
    assert_eq!(told, listed("Events"), "told, and listed in docs/observability.md");
    let spans: BTreeSet<_> =
        all.spans.iter().filter(of_story).map(|seen| seen.name.to_owned()).collect();
    assert_eq!(spans, listed("Spans"), "told, and listed in docs/observability.md");
    for seen in all.events.iter().chain(&all.spans) {
        let shown = format!("{seen:?}");
        assert!(!PERSONAL.iter().any(|word| shown.contains(word)), "{shown}");
        let bytes = format!("{:?}", PERSONAL[1].as_bytes());
        assert!(!shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");
    }
}

#[test]
fn a_store_is_named_after_its_directory() {
    watch();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("payments-dedupe");
    Store::open(&path).unwrap().close().wait().unwrap();
    assert_eq!(events("payments-dedupe").len(), 2, "opened and closed");
    let seen = event("payments-dedupe", "opened");
    assert!(!format!("{seen:?}").contains(path.parent().unwrap().to_str().unwrap()));
}

#[test]
fn a_claim_is_told_to_nobody() {
    const NAME: &str = "quiet";
    watch();
    let store = Options::new().name(NAME).in_memory().unwrap();
    let ticket = store.claim(op("k")).wait().unwrap().new();
    event(NAME, "rotated");
    let before = (events(NAME).len(), spans(NAME, "commit").len());
    for _ in 0..1_000 {
        store.claim(op("k")).wait().unwrap().in_flight();
        assert!(store.lookup("acme", "k").wait().unwrap().is_some());
    }
    assert_eq!((events(NAME).len(), spans(NAME, "commit").len()), before);
    ticket.complete("done").wait().unwrap();
}

#[test]
fn a_subscriber_that_panics_disturbs_nobody() {
    const NAME: &str = "broken watcher";
    watch();
    let (directory, clock) = (FaultyDirectory::default(), ManualClock::new());
    let options = Options::new().name(NAME).slow_commit(Duration::ZERO).clock(&clock);
    let options = options.generation_bytes(1).window(HOUR);
    let store = options.open_in(Arc::new(directory.clone())).unwrap();
    for number in 0..10 {
        assert!(store.record_once(op(&number.to_string())).wait().unwrap());
    }
    eventually("most is sealed", || store.stats().sealed_generations == 9);
    clock.advance(2 * HOUR);
    eventually("all is over", || store.stats().records_live == 0);
    assert!(store.record_once(op("0")).wait().unwrap());
    directory.break_down(On::Sync, io::ErrorKind::Other);
    // The keeper may have met the fault first.
    let kind = store.claim(op("lost")).wait().unwrap_err().kind();
    assert!(matches!(kind, ErrorKind::Unknown | ErrorKind::Poisoned), "{kind:?}");
    assert_eq!(store.claim(op("later")).wait().unwrap_err().kind(), ErrorKind::Poisoned);
    assert!(store.close().wait().is_err());
    let told: BTreeSet<_> = events(NAME).iter().map(|seen| seen.name).collect();
    // Of a commit, the first of its events is told, and there it ends.
    let all = ["opened", "rotated", "sealed", "retired", "poisoned", "closed"];
    assert_eq!(told, all.into());
}

/// Were it told of a commit by one who has the committer role, it would wait for itself.
#[test]
fn a_subscriber_may_write_to_the_store_it_is_told_of() {
    const NAME: &str = "asked";
    watch();
    let store = Options::new().name(NAME).slow_commit(Duration::ZERO).in_memory().unwrap();
    *ASKED.lock() = Some((store.clone(), 0));
    for number in 0..100 {
        assert!(store.record_once(op(&number.to_string())).wait().unwrap());
    }
    let tasks = (100..200).map(|number| store.record_once(op(&number.to_string())));
    for task in tasks.collect::<Vec<_>>() {
        assert!(futures_lite::future::block_on(task).unwrap());
    }
    eventually("it has written", || ASKED.lock().as_ref().is_some_and(|(_, times)| *times >= 50));
    let (store, _) = std::mem::take(&mut *ASKED.lock()).unwrap();
    store.close().wait().unwrap();
}

/// Name and answer of a metric, and what it was seen to have: a sum, the last, or all samples.
type Figures = BTreeMap<(String, Option<String>), Figure>;

#[derive(Debug, Clone, PartialEq)]
enum Figure {
    Counter(u64),
    Gauge(f64),
    Samples(Vec<f64>),
}

/// Adds what a recorder has seen of a store since it was last asked.
fn collect(recorder: &Snapshotter, store: &str, figures: &mut Figures) {
    for (key, unit, description, value) in recorder.snapshot().into_vec() {
        let (_, key) = key.into_parts();
        let label = |name: &str| {
            let mut labels = key.labels();
            labels.find(|label| label.key() == name).map(|label| label.value().to_owned())
        };
        if label("store").as_deref() != Some(store) {
            continue;
        }
        assert!(unit.is_some() && description.is_some(), "{} is not described", key.name());
        let at = (key.name().to_owned(), label("answer"));
        match (figures.get_mut(&at), value) {
            (Some(Figure::Counter(sum)), DebugValue::Counter(more)) => *sum += more,
            (Some(Figure::Samples(all)), DebugValue::Histogram(more)) => {
                all.extend(more.into_iter().map(f64::from));
            }
            (_, DebugValue::Counter(value)) => drop(figures.insert(at, Figure::Counter(value))),
            (_, DebugValue::Gauge(value)) => drop(figures.insert(at, Figure::Gauge(value.0))),
            (_, DebugValue::Histogram(samples)) => {
                let samples = samples.into_iter().map(f64::from).collect();
                figures.insert(at, Figure::Samples(samples));
            }
        }
    }
}

/// Holds what a recorder saw to what the store says itself.
#[track_caller]
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn compare(figures: &Figures, stats: &Stats) {
    let claims = &stats.claims;
    for (answer, count) in [
        ("new", claims.new),
        ("resumed", claims.resumed),
        ("in_flight", claims.in_flight),
        ("completed", claims.completed),
        ("failed", claims.failed),
        ("mismatch", claims.mismatch),
        ("lapsed", claims.lapsed),
    ] {
        assert!(count > 0, "nothing is shown of {answer}");
        let at = ("justonce_claims_total".to_owned(), Some(answer.to_owned()));
        assert_eq!(figures[&at], Figure::Counter(count), "{answer}");
    }
    let figure = |name: &str| figures[&(format!("justonce_{name}"), None)].clone();
    assert_eq!(figure("commits_total"), Figure::Counter(stats.commits.batches));
    assert_eq!(figure("committed_records_total"), Figure::Counter(stats.commits.records));
    assert_eq!(figure("committed_bytes_total"), Figure::Counter(stats.commits.record_bytes));
    assert_eq!(figure("records"), Figure::Gauge(stats.records_live as f64));
    assert_eq!(figure("unanswered"), Figure::Gauge(stats.unanswered as f64));
    assert_eq!(figure("generations"), Figure::Gauge(stats.generations as f64));
    assert_eq!(figure("sealed_generations"), Figure::Gauge(stats.sealed_generations as f64));
    assert_eq!(figure("queued_bytes"), Figure::Gauge(stats.queued_bytes as f64));
    assert_eq!(figure("waiters"), Figure::Gauge(stats.waiters as f64));
    assert_eq!(figure("poisoned"), Figure::Gauge(f64::from(u8::from(stats.poisoned))));
    assert_eq!(figure("clock_skew_seconds"), Figure::Gauge(stats.clock_skew.as_secs_f64()));
    let samples = |name: &str| match figure(name) {
        Figure::Samples(samples) => samples,
        other => panic!("{name} is {other:?}"),
    };
    let sum = |name: &str| samples(name).iter().sum::<f64>();
    assert_eq!(samples("commit_seconds").len() as u64, stats.commits.batches);
    assert!(samples("commit_seconds").iter().all(|seconds| (0.0..60.0).contains(seconds)));
    assert_eq!(samples("batch_records").len() as u64, stats.commits.batches);
    assert!((sum("batch_records") - stats.commits.records as f64).abs() < 0.5);
    assert!((sum("batch_bytes") - stats.commits.record_bytes as f64).abs() < 0.5);
}

#[test]
fn a_recorder_sees_what_the_store_says_itself() -> Result<(), Error> {
    const NAME: &str = "counted";
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    // Samples come from whichever thread commits, so for the whole process.
    recorder.install().unwrap();
    let directory = FaultyDirectory::default();
    let options = Options::new().name(NAME).generation_bytes(1).clock(&ManualClock::new());
    let store = options.open_in(Arc::new(directory.clone()))?;
    let mut figures = Figures::new();
    for round in 1..=3_u64 {
        let of = |key: &str| op(&format!("{key} {round}")).fingerprint(b"one");
        let ticket = store.claim(of("k")).wait()?.new();
        store.claim(of("k")).wait()?.in_flight();
        store.claim(of("k").fingerprint(b"another")).wait()?.mismatch();
        drop(ticket);
        store.claim(of("k").on_lapsed(OnLapsed::Report)).wait()?.lapsed();
        let (ticket, _) = store.claim(of("k")).wait()?.resumed();
        ticket.complete("done").wait()?;
        store.claim(of("k")).wait()?.completed();
        store.claim(of("f")).wait()?.new().fail("not today").wait()?;
        store.claim(of("f")).wait()?.failed();
        drop(store.claim_many((0..7).map(|number| of(&number.to_string()))).wait()?);
        eventually("all is sealed but the last, and a file is ready", || {
            let stats = store.stats();
            stats.sealed_generations as u64 + 1 == stats.commits.records
                && stats.generations == stats.sealed_generations + 2
        });
        // Both publish a part of what has grown.
        std::thread::scope(|scope| {
            scope.spawn(|| store.publish_metrics());
            store.publish_metrics();
        });
        collect(&snapshotter, NAME, &mut figures);
        compare(&figures, &store.stats());
    }
    let told: BTreeSet<_> = figures.keys().map(|(name, _)| name.clone()).collect();
    assert_eq!(told, listed("Metrics"), "published, and listed in docs/observability.md");

    directory.break_down(On::Sync, io::ErrorKind::Other);
    assert_eq!(store.claim(op("lost")).wait().unwrap_err().kind(), ErrorKind::Unknown);
    store.publish_metrics();
    collect(&snapshotter, NAME, &mut figures);
    assert_eq!(figures[&("justonce_poisoned".to_owned(), None)], Figure::Gauge(1.0));
    compare(&figures, &store.stats());
    Ok(())
}
