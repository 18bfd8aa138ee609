//! The worker: the process that has the store open, and is killed.
//!
//! It takes up what the process before left, and plays the rest of the plan: eight threads that
//! block and 1,024 tasks that are suspended, each with its own share of the submissions. A fault of
//! the store ends it; where the store asks to be opened again, its exit says so.

use std::collections::HashSet;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use justonce::{ErrorKind, Options, Store};

use crate::arguments::{Arguments, WorkerArguments};
use crate::facts::{Fact, Teller, Totals};
use crate::gateway::Gateway;
use crate::pace::Pace;
use crate::traffic::{Lane, Plan, TASKS, THREADS};

/// The exit of a worker whose store is to be opened again.
pub(crate) const OPEN_AGAIN: i32 = 75;

/// How the store is opened, by the worker and by the audit.
pub(crate) fn open(path: &Path) -> Result<Store, justonce::Error> {
    Options::new().keep_keys(true).open(path)
}

pub(crate) fn run(arguments: &Arguments, worker: &WorkerArguments) -> Result<(), Box<dyn Error>> {
    let path = arguments.directory.as_deref().ok_or("a worker is told where its store is")?;
    let ended: HashSet<usize> = serde_json::from_reader(std::io::stdin().lock())?;
    let plan = Arc::new(Plan::new(arguments.rows()?, arguments.seed));
    let teller = Teller::new();
    let store = open(path)?;
    let interrupted = store.in_flight().wait()?;
    teller.tell(Fact::Opened { unanswered: interrupted.len() });

    let (threads, tasks) = shares(&plan, &ended);
    let pace = Pace::new(worker.from, arguments.speed);
    let gateway = Gateway { store: store.clone(), plan, pace, teller };
    let clients = threads
        .into_iter()
        .enumerate()
        .map(|(number, share)| {
            let gateway = gateway.clone();
            std::thread::Builder::new()
                .name(format!("client-{number}"))
                .spawn(move || futures_lite::future::block_on(serve_all(&gateway, share)))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
    runtime.block_on(async {
        let resuming = interrupted.into_iter().map(|entry| {
            let gateway = gateway.clone();
            tokio::spawn(async move { or_exit(gateway.resume(entry).await) })
        });
        let mut all: Vec<_> = resuming.collect();
        all.extend(tasks.into_iter().map(|share| {
            let gateway = gateway.clone();
            tokio::spawn(async move { serve_all(&gateway, share).await })
        }));
        for task in all {
            task.await?;
        }
        Ok::<(), tokio::task::JoinError>(())
    })?;
    for client in clients {
        client.join().map_err(|_| "a client thread panicked")?;
    }
    drop(gateway);

    let totals = totals(&store);
    store.close().wait()?;
    teller.tell(Fact::Closed(totals));
    Ok(())
}

/// The submissions that are left, as each thread and each task is to make them.
fn shares(plan: &Plan, ended: &HashSet<usize>) -> (Vec<Vec<usize>>, Vec<Vec<usize>>) {
    let mut threads = vec![Vec::new(); THREADS];
    let mut tasks = vec![Vec::new(); TASKS];
    for (number, submission) in plan.submissions.iter().enumerate() {
        let share = match submission.lane {
            Lane::Thread(lane) => threads.get_mut(lane),
            Lane::Task(lane) => tasks.get_mut(lane),
        };
        if let Some(share) = share
            && !ended.contains(&number)
        {
            share.push(number);
        }
    }
    (threads, tasks)
}

async fn serve_all(gateway: &Gateway, share: Vec<usize>) {
    for submission in share {
        or_exit(gateway.serve(submission).await);
    }
}

/// Ends the process on a fault of the store: nothing more can be promised to anyone.
#[expect(clippy::print_stderr, reason = "the last words of a process")]
fn or_exit(outcome: Result<(), justonce::Error>) {
    let Err(error) = outcome else { return };
    eprintln!("the store: {error}");
    let asks_to_be_opened = matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Poisoned);
    std::process::exit(if asks_to_be_opened { OPEN_AGAIN } else { 1 });
}

fn totals(store: &Store) -> Totals {
    let stats = store.stats();
    Totals {
        new: stats.claims.new,
        resumed: stats.claims.resumed,
        in_flight: stats.claims.in_flight,
        completed: stats.claims.completed,
        failed: stats.claims.failed,
        mismatch: stats.claims.mismatch,
        records_written: stats.commits.records,
        batches: stats.commits.batches,
    }
}
