//! Claims of keys that are there: completed with 2 KiB, in flight; and look-ups.
//!
//! *Hot* is one key, asked by one thread over and over. *Warm* is any of the table's keys, in no
//! order. *Cold* is some keys, each once, after the table was closed and its files were dropped
//! from the page cache. What a store reads into its own memory when it is opened is not cold, and
//! the system may have read a key's neighbour with it.

use std::time::{Duration, Instant};

use super::fresh::{answers, counted};
use super::{LONG, REPLY_BYTES, Stage, Table, Workload};
use crate::machine;
use crate::peer::{Claimed, Failure, Key, Kind, Peer, Settings};
use crate::report::{Book, Unit};

/// A table of replies has one key for so many of another: its rows are as much longer.
const KEYS_PER_COMPLETED: u64 = 20;

/// Keys asked for once a round, cold.
const COLD_KEYS: u64 = 500;

/// Calls between two looks at the clock.
const STRIDE: u32 = 64;

pub(super) fn run(stage: &Stage<'_>, book: &mut Book) -> Result<(), Failure> {
    let kinds = stage.kinds(answers);
    let settings = Settings { window: LONG, expiring: false };
    let live = stage.arguments.keys.iter().min().copied().unwrap_or(0);
    let completed = (live / KEYS_PER_COMPLETED).max(1);
    let reply = vec![7; REPLY_BYTES];
    let (_directory, mut tables) = stage.tables(&kinds, &settings, completed, Some(&reply))?;
    for table in &tables {
        table.peer.claim(in_flight(completed))?.new_owner()?.keep();
    }
    for round in 0..u64::from(stage.arguments.rounds) {
        for table in &tables {
            warm(stage, book, table, completed)?;
        }
        // The map has nothing that could be dropped from a cache.
        let (on_disk, in_memory): (Vec<_>, Vec<_>) =
            tables.into_iter().partition(|table| table.kind != Kind::Map);
        tables = in_memory;
        for table in on_disk {
            stage.says(format!("{}: cold duplicates", table.kind.name()));
            tables.push(cold(book, table, &settings, round, completed)?);
        }
        tables.sort_by_key(|table| kinds.iter().position(|kind| *kind == table.kind));
    }
    Ok(())
}

fn warm(stage: &Stage<'_>, book: &mut Book, table: &Table, completed: u64) -> Result<(), Failure> {
    let (peer, lasts) = (&*table.peer, stage.lasts());
    let mut scattered = scattered(completed, 0);
    stage.says(format!("{}: duplicates", table.kind.name()));
    let mut add = |case: &str, took: Duration| {
        let micros = took.as_secs_f64() * 1e6;
        book.add((Workload::Duplicates, case), Unit::Micros, table.kind, micros);
    };
    add("completed, hot", each(lasts, || expect_reply(peer, Key(0)))?);
    let case = format!("completed, one of {}", counted(completed));
    add(&case, each(lasts, || expect_reply(peer, scattered()))?);
    add(
        "look-up of a reply, hot",
        each(lasts, || match peer.lookup(Key(0))? {
            Some(reply) if reply.len() == REPLY_BYTES => Ok(()),
            _ => Err("a completed key has its reply".into()),
        })?,
    );
    // In flight since this opening: what another run of a store left in flight is resumed.
    add(
        "in flight, hot",
        each(lasts, || match peer.claim(in_flight(completed))? {
            Claimed::InFlight => Ok(()),
            Claimed::New(_) | Claimed::Completed(_) => Err("a key in flight is in flight".into()),
        })?,
    );
    Ok(())
}

/// The mean time of a call by one thread.
fn each(
    lasts: Duration,
    mut call: impl FnMut() -> Result<(), Failure>,
) -> Result<Duration, Failure> {
    let started = Instant::now();
    let mut calls = 0;
    loop {
        for _ in 0..STRIDE {
            call()?;
        }
        calls += STRIDE;
        let took = started.elapsed();
        if took >= lasts {
            return Ok(took / calls);
        }
    }
}

/// Closes, drops what is cached, opens, and asks for each of some keys once.
fn cold(
    book: &mut Book,
    table: Table,
    settings: &Settings,
    round: u64,
    completed: u64,
) -> Result<Table, Failure> {
    let Table { kind, peer, path, .. } = table;
    drop(peer);
    machine::drop_cached(&path)?;
    let table = Table::open(kind, path, settings)?;
    // Opening may read files whole: what it has cached is dropped again.
    machine::drop_cached(&table.path)?;
    let mut took = Vec::new();
    let mut scattered = scattered(completed, round * COLD_KEYS);
    for _ in 0..COLD_KEYS.min(completed) {
        let key = scattered();
        let started = Instant::now();
        expect_reply(&*table.peer, key)?;
        took.push(started.elapsed());
    }
    took.sort_unstable();
    let at = |per_cent: usize| took[(took.len() * per_cent / 100).min(took.len() - 1)];
    for (case, took) in [("completed, cold, p50", at(50)), ("completed, cold, p99", at(99))] {
        let micros = took.as_secs_f64() * 1e6;
        book.add((Workload::Duplicates, case), Unit::Micros, kind, micros);
    }
    // Nobody else's: the owner of the run before is gone, where a store knows of owners.
    if let Claimed::New(owner) = table.peer.claim(in_flight(completed))? {
        owner.keep();
    }
    Ok(table)
}

fn expect_reply(peer: &dyn Peer, key: Key) -> Result<(), Failure> {
    match peer.claim(key)? {
        Claimed::Completed(reply) if reply.len() == REPLY_BYTES => Ok(()),
        Claimed::Completed(_) => Err("a reply is of another length".into()),
        Claimed::New(_) | Claimed::InFlight => Err("a completed key is completed".into()),
    }
}

/// All keys below `count` one after the other, in an order that has no neighbours in it.
fn scattered(count: u64, passed_over: u64) -> impl FnMut() -> Key {
    let has_common_factor = |step: u64| {
        let (mut a, mut b) = (step, count);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a > 1
    };
    let golden = count * 618 / 1000 + 1;
    let step = (golden..).find(|step| !has_common_factor(*step)).unwrap_or(1);
    let mut at = passed_over % count * step % count;
    move || {
        at = (at + step) % count;
        Key(at)
    }
}

/// A key that is claimed and never completed.
fn in_flight(completed: u64) -> Key {
    Key(completed)
}
