//! Claiming fresh keys as fast as it goes, while a probe times single claims beside it.

use std::collections::{BTreeSet, VecDeque};
use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use justonce::{Claim, Operation, Pending, Store, Ticket};
use parking_lot::Mutex;

use crate::arguments::Arguments;
use crate::measure::{self, Latencies};

/// Batches a client has under way at a time.
const UNDER_WAY: usize = 2;

/// Bytes of a reply.
const REPLY: [u8; 100] = [b'r'; 100];

/// Keys of the probe stand apart from all others.
const PROBES_FROM: u64 = 1 << 40;

/// One generation's worth of the filling.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch {
    /// Keys in the store at its end.
    pub(crate) keys: u64,
    /// Keys that came in it, and how long they took.
    pub(crate) fresh: u64,
    pub(crate) took: Duration,
    pub(crate) resident_bytes: u64,
}

/// Single claims of the probe, by what went on beside them.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    pub(crate) fresh: Latencies,
    pub(crate) fresh_while_sealing: Latencies,
    pub(crate) duplicate: Latencies,
    pub(crate) duplicate_while_sealing: Latencies,
}

impl Stretch {
    /// Keys a second.
    pub(crate) fn rate(&self) -> f64 {
        self.fresh as f64 / self.took.as_secs_f64()
    }
}

#[derive(Debug)]
pub(crate) struct Filled {
    pub(crate) took: Duration,
    pub(crate) stretches: Vec<Stretch>,
    pub(crate) probe: Probe,
}

/// What the threads share.
struct Shared {
    course: Mutex<Course>,
    done: AtomicU64,
    sealing: AtomicBool,
    over: AtomicBool,
}

/// The keys in their order, in batches.
#[derive(Debug, Default)]
struct Course {
    next: u64,
    /// First keys of the batches that clients claim now.
    under_way: BTreeSet<u64>,
}

impl Course {
    /// All keys before this one are claimed.
    fn claimed(&self) -> u64 {
        self.under_way.first().copied().unwrap_or(self.next)
    }
}

pub(crate) fn operation(key: u64) -> Operation {
    Operation::new("scale", key.to_le_bytes())
}

pub(crate) fn fill(
    store: &Store,
    path: &Path,
    arguments: &Arguments,
) -> Result<Filled, Box<dyn Error>> {
    let shared = Shared {
        course: Mutex::default(),
        done: AtomicU64::new(0),
        sealing: AtomicBool::new(false),
        over: AtomicBool::new(false),
    };
    let started = Instant::now();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..arguments.clients)
            .map(|_| scope.spawn(|| client(store, arguments, &shared)))
            .collect();
        let probe = scope.spawn(|| probe(store, &shared));
        let all_ended = || clients.iter().all(thread::ScopedJoinHandle::is_finished);
        let stretches = watch(store, path, arguments.keys, &shared, all_ended);
        let took = started.elapsed();
        shared.over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| "a client panicked")??;
        }
        let probe = probe.join().map_err(|_| "the probe panicked")??;
        Ok(Filled { took, stretches, probe })
    })
}

fn client(store: &Store, arguments: &Arguments, shared: &Shared) -> Result<(), justonce::Error> {
    let mut claims: VecDeque<(u64, Pending<Vec<Claim>>)> = VecDeque::new();
    let mut replies: VecDeque<Vec<Pending<()>>> = VecDeque::new();
    let mut settle = |claims: &mut VecDeque<(u64, Pending<Vec<Claim>>)>| {
        let Some((from, batch)) = claims.pop_front() else { return Ok(()) };
        let batch = batch.wait()?;
        shared.course.lock().under_way.remove(&from);
        let count = batch.len() as u64;
        let mut completed = Vec::new();
        for (number, claim) in (0..).zip(batch) {
            let Claim::New(ticket) = claim else { return Err(not_new(&claim)) };
            if number % 100 < arguments.completed_percent {
                completed.push(ticket.complete(&REPLY));
            } else {
                keep(ticket);
            }
        }
        replies.push_back(completed);
        if replies.len() > UNDER_WAY {
            for reply in replies.pop_front().into_iter().flatten() {
                reply.wait()?;
            }
        }
        shared.done.fetch_add(count, Ordering::Relaxed);
        Ok(())
    };
    loop {
        let mut course = shared.course.lock();
        let from = course.next;
        let until = (from + arguments.batch).min(arguments.keys);
        if from >= until {
            break;
        }
        course.next = until;
        course.under_way.insert(from);
        drop(course);
        claims.push_back((from, store.claim_many((from..until).map(operation))));
        if claims.len() >= UNDER_WAY {
            settle(&mut claims)?;
        }
    }
    while !claims.is_empty() {
        settle(&mut claims)?;
    }
    for reply in replies.into_iter().flatten() {
        reply.wait()?;
    }
    Ok(())
}

/// The work goes on, and its ticket is never seen again: dropping it would give the operation up.
pub(crate) fn keep(ticket: Ticket) {
    std::mem::forget(ticket);
}

fn not_new(claim: &Claim) -> justonce::Error {
    panic!("a key that was never claimed is new, not {claim:?}")
}

/// Claims one fresh key and one that is there, by turns.
fn probe(store: &Store, shared: &Shared) -> Result<Probe, justonce::Error> {
    let mut probe = Probe::default();
    let mut scattered = 1_u64;
    for number in 0.. {
        if shared.over.load(Ordering::Relaxed) {
            break;
        }
        let (fresh, duplicate) = if shared.sealing.load(Ordering::Relaxed) {
            (&mut probe.fresh_while_sealing, &mut probe.duplicate_while_sealing)
        } else {
            (&mut probe.fresh, &mut probe.duplicate)
        };
        let key = operation(PROBES_FROM + number);
        match fresh.time(|| store.claim(key).wait())? {
            Claim::New(ticket) => keep(ticket),
            other => return Err(not_new(&other)),
        }
        scattered = scattered.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let claimed = shared.course.lock().claimed();
        if claimed == 0 {
            continue;
        }
        let there = operation((scattered >> 20) % claimed);
        if let claim @ Claim::New(_) = duplicate.time(|| store.claim(there).wait())? {
            panic!("a key that was claimed is not {claim:?}");
        }
    }
    Ok(probe)
}

/// Shows how far it has come, and notes the rate of each generation's worth, until the clients have
/// ended: with all keys claimed, or with an error that their joining shows.
fn watch(
    store: &Store,
    path: &Path,
    keys: u64,
    shared: &Shared,
    all_ended: impl Fn() -> bool,
) -> Vec<Stretch> {
    let bar = ProgressBar::new(keys);
    let style = "{bar:40} {human_pos}/{human_len} keys  {msg}  {eta} left";
    bar.set_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let mut stretches: Vec<Stretch> = Vec::new();
    let (mut generations, mut since, mut from) = (store.stats().generations, Instant::now(), 0);
    loop {
        let stats = store.stats();
        let done = shared.done.load(Ordering::Relaxed);
        // One is open and one is spare.
        shared.sealing.store(stats.generations > stats.sealed_generations + 2, Ordering::Relaxed);
        let is_over = done >= keys || all_ended();
        if done > from && (stats.generations != generations || is_over) {
            let (fresh, took) = (done - from, since.elapsed());
            let resident_bytes = measure::resident_bytes();
            let stretch = Stretch { keys: done, fresh, took, resident_bytes };
            stretches.push(stretch);
            bar.set_message(format!(
                "{:.0} k/s  {:.0} MB resident  {:.0} MB on disk",
                stretch.rate() / 1e3,
                measure::megabytes(resident_bytes),
                measure::megabytes(measure::disk(path).0),
            ));
            (generations, since, from) = (stats.generations, Instant::now(), done);
        }
        bar.set_position(done);
        if is_over {
            bar.finish_and_clear();
            return stretches;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Claims fresh keys until the process is killed, and says after each batch how far it has come.
pub(crate) fn claim_until_killed(store: &Store, from: u64) -> Result<(), Box<dyn Error>> {
    const BATCH: u64 = 4096;
    for batch in 0.. {
        let start = from + batch * BATCH;
        for claim in store.claim_many((start..start + BATCH).map(operation)).wait()? {
            if let Claim::New(ticket) = claim {
                keep(ticket);
            }
        }
        println!("{}", start + BATCH);
    }
    Ok(())
}
