//! Claims of fresh keys onto a table of live ones, from threads and from tasks.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{LONG, Stage, Table, Workload, clients};
use crate::peer::{Failure, Key, Kind, Role, Settings};
use crate::report::{Book, Unit};

const STRICT_THREADS: [usize; 2] = [1, 64];

pub(super) fn run(stage: &Stage<'_>, book: &mut Book) -> Result<(), Failure> {
    let kinds = stage.kinds(|kind| kind != Kind::Strict);
    for keys in &stage.arguments.keys {
        claim(stage, book, (Workload::Fresh, &kinds), *keys, &stage.arguments.threads)?;
    }
    Ok(())
}

/// Both durabilities, on the smallest of the tables.
pub(super) fn strict(stage: &Stage<'_>, book: &mut Book) -> Result<(), Failure> {
    let kinds = [Kind::Justonce, Kind::Strict];
    let keys = stage.arguments.keys.iter().min().copied().unwrap_or(0);
    claim(stage, book, (Workload::Strict, &kinds), keys, &STRICT_THREADS)
}

fn claim(
    stage: &Stage<'_>,
    book: &mut Book,
    (workload, kinds): (Workload, &[Kind]),
    keys: u64,
    thread_counts: &[usize],
) -> Result<(), Failure> {
    let settings = Settings { window: LONG, expiring: false };
    let (_directory, tables) = stage.tables(kinds, &settings, keys, None)?;
    for _ in 0..stage.arguments.rounds {
        for threads in thread_counts {
            let case = format!("{} live keys, {}", counted(keys), plural(*threads, "thread"));
            for table in &tables {
                stage.says(format!("{}: {case}", table.kind.name()));
                let rate = clients::threads(*threads, stage.lasts(), || {
                    table.peer.claim(table.fresh_key())?.new_owner()?.keep();
                    Ok(())
                })?;
                book.add((workload, &case), Unit::PerSecond, table.kind, rate);
                table.peer.rest()?;
            }
        }
        for tasks in &stage.arguments.tasks {
            let case = format!("{} live keys, {}", counted(keys), plural(*tasks, "task"));
            for table in &tables {
                let Some(rate) = claim_from_tasks(stage, table, *tasks, &case)? else { continue };
                book.add((workload, &case), Unit::PerSecond, table.kind, rate);
                table.peer.rest()?;
            }
        }
    }
    Ok(())
}

fn claim_from_tasks(
    stage: &Stage<'_>,
    table: &Table,
    tasks: usize,
    case: &str,
) -> Result<Option<f64>, Failure> {
    let Some(calls) = table.peer.tasks() else { return Ok(None) };
    stage.says(format!("{}: {case}", table.kind.name()));
    let next_key = Arc::clone(&table.next_key);
    let rate = clients::tasks(tasks, stage.lasts(), move || {
        let (calls, key) = (calls.clone(), Key(next_key.fetch_add(1, Ordering::Relaxed)));
        async move {
            calls.claim(key).await?.keep();
            Ok(())
        }
    })?;
    Ok(Some(rate))
}

/// Those that keep a table of which a duplicate can be told.
pub(super) fn answers(kind: Kind) -> bool {
    kind != Kind::Strict && (kind.role() != Role::Limit || kind == Kind::Map)
}

pub(super) fn counted(number: u64) -> String {
    match number {
        millions if millions >= 1_000_000 && millions.is_multiple_of(1_000_000) => {
            format!("{} M", millions / 1_000_000)
        }
        thousands if thousands >= 1000 && thousands.is_multiple_of(1000) => {
            format!("{} k", thousands / 1000)
        }
        few => few.to_string(),
    }
}

pub(super) fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
