//! Claims with a short window: rows are over as fast as they come, window after window.
//!
//! One peer at a time, since each has to run through all its windows at a stretch. Some threads
//! claim fresh keys; beside them one deletes what is over, ten times a window, where the peer takes
//! a call for that. Rate, p99.9 and the space on disk are taken at the end of each window.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Stage, Table};
use crate::machine;
use crate::peer::{Failure, Kind, Settings};
use crate::report::{Book, Window};

const THREADS: usize = 64;

const SWEEPS_PER_WINDOW: u32 = 10;

pub(super) fn run(stage: &Stage<'_>, book: &mut Book) -> Result<(), Failure> {
    // A log that goes round and round has nothing to delete.
    let kinds = stage.kinds(|kind| !matches!(kind, Kind::Strict | Kind::RawLog));
    let window = Duration::from_secs_f64(stage.arguments.window);
    let settings = Settings { window, expiring: true };
    for kind in kinds {
        let directory = tempfile::tempdir_in(stage.directory)?;
        let table = Table::open(kind, directory.path().join("table"), &settings)?;
        let windows = windows(stage, &table, window)?;
        book.add_steady(kind, windows);
    }
    Ok(())
}

fn windows(stage: &Stage<'_>, table: &Table, window: Duration) -> Result<Vec<Window>, Failure> {
    let count = stage.arguments.windows;
    let (over, current) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let clients: Vec<_> =
            (0..THREADS).map(|_| scope.spawn(|| client(table, &over, &current, count))).collect();
        let sweeper = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                thread::sleep(window / SWEEPS_PER_WINDOW);
                table.peer.expire()?;
            }
            Ok::<_, Failure>(())
        });
        let started = Instant::now();
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for number in 1..=count {
            stage.says(format!("{}: window {number} of {count}", table.kind.name()));
            let end = window * u32::try_from(number)?;
            thread::sleep(end.saturating_sub(started.elapsed()));
            current.store(number, Ordering::Relaxed);
            ends.push(started.elapsed());
            bytes.push(machine::bytes_on_disk(&table.path)?);
        }
        over.store(true, Ordering::Relaxed);
        let mut micros = vec![Vec::new(); count];
        for client in clients {
            let of_client = client.join().map_err(|_| "a client panicked")??;
            for (all, own) in micros.iter_mut().zip(of_client) {
                all.extend(own);
            }
        }
        sweeper.join().map_err(|_| "the sweeper panicked")??;
        let starts = std::iter::once(Duration::ZERO).chain(ends.iter().copied());
        let spans = ends.iter().zip(starts).map(|(end, start)| *end - start);
        Ok(micros.into_iter().zip(spans).zip(bytes).map(measured).collect())
    })
}

/// The latencies of one client's claims, in microseconds, by the window they ended in.
fn client(
    table: &Table,
    over: &AtomicBool,
    current: &AtomicUsize,
    count: usize,
) -> Result<Vec<Vec<u32>>, Failure> {
    let mut micros = vec![Vec::new(); count];
    while !over.load(Ordering::Relaxed) {
        let started = Instant::now();
        table.peer.claim(table.fresh_key())?.new_owner()?.keep();
        let took = u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX);
        if let Some(of_window) = micros.get_mut(current.load(Ordering::Relaxed)) {
            of_window.push(took);
        }
    }
    Ok(micros)
}

fn measured(((mut micros, span), bytes): ((Vec<u32>, Duration), u64)) -> Window {
    micros.sort_unstable();
    let index = (micros.len() * 999 / 1000).min(micros.len().saturating_sub(1));
    Window {
        claims_per_second: micros.len() as f64 / span.as_secs_f64(),
        p999_micros: micros.get(index).copied().unwrap_or(0).into(),
        bytes,
    }
}
