//! Claims, each completed with a reply of 2 KiB: two writes, one after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::fresh::plural;
use super::{LONG, REPLY_BYTES, Stage, Table, Workload, clients};
use crate::peer::{Failure, Key, Kind, Settings};
use crate::report::{Book, Unit};

const TASKS: usize = 1024;

pub(super) fn run(stage: &Stage<'_>, book: &mut Book) -> Result<(), Failure> {
    let kinds = stage.kinds(|kind| kind != Kind::Strict);
    let settings = Settings { window: LONG, expiring: false };
    let keys = stage.arguments.keys.iter().min().copied().unwrap_or(0);
    let (_directory, tables) = stage.tables(&kinds, &settings, keys, None)?;
    for _ in 0..stage.arguments.rounds {
        for threads in &stage.arguments.threads {
            let case = plural(*threads, "thread");
            for table in &tables {
                stage.says(format!("{}: claim and complete, {case}", table.kind.name()));
                let reply = vec![7; REPLY_BYTES];
                let rate = clients::threads(*threads, stage.lasts(), || {
                    let key = table.fresh_key();
                    let owner = table.peer.claim(key)?.new_owner()?;
                    table.peer.complete(key, owner, &reply)
                })?;
                book.add((Workload::Complete, &case), Unit::PerSecond, table.kind, rate);
                table.peer.rest()?;
            }
        }
        let case = plural(TASKS, "task");
        for table in &tables {
            let Some(rate) = from_tasks(stage, table)? else { continue };
            book.add((Workload::Complete, &case), Unit::PerSecond, table.kind, rate);
            table.peer.rest()?;
        }
    }
    Ok(())
}

fn from_tasks(stage: &Stage<'_>, table: &Table) -> Result<Option<f64>, Failure> {
    let Some(calls) = table.peer.tasks() else { return Ok(None) };
    stage.says(format!("{}: claim and complete, {TASKS} tasks", table.kind.name()));
    let (next_key, reply) = (Arc::clone(&table.next_key), Arc::new([7; REPLY_BYTES]));
    let rate = clients::tasks(TASKS, stage.lasts(), move || {
        let (calls, reply) = (calls.clone(), Arc::clone(&reply));
        let key = Key(next_key.fetch_add(1, Ordering::Relaxed));
        async move {
            let owner = calls.claim(key).await?;
            calls.complete(owner, &*reply).await
        }
    })?;
    Ok(Some(rate))
}
