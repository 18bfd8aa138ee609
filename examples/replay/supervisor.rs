//! The supervisor: starts the worker, writes the ledger from what it tells, kills it, starts it
//! again.
//!
//! A worker that gets nowhere, awake or asleep, is ended as well, and the replay has failed.

use std::error::Error;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::arguments::Arguments;
use crate::facts::{Fact, How, Told};
use crate::ledger::Ledger;
use crate::lines::lines_of;
use crate::pace::{self, Since};
use crate::report::Figures;
use crate::traffic::Plan;
use crate::worker::OPEN_AGAIN;

/// How often a store may ask to be opened again.
const MAX_RUNS: usize = 100;

/// The least time after which a worker of which no submission has ended gets nowhere.
const MIN_HEADWAY: Duration = Duration::from_mins(1);

/// How a worker came to its end.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Closed,
    Killed,
    AskedToBeOpened,
}

pub(crate) fn play(
    arguments: &Arguments,
    plan: &Plan,
    store: &Path,
    figures: &mut Figures,
) -> Result<Ledger, Box<dyn Error>> {
    let style = "{elapsed_precise} [{wide_bar}] {pos}/{len} submissions {per_sec} {msg}";
    let bar = ProgressBar::new(plan.submissions.len() as u64)
        .with_style(ProgressStyle::with_template(style)?.progress_chars("=> "));
    let mut ledger = Ledger::default();
    let started = Since::now();
    let total = plan.submissions.len();
    let mut kills = (1..=arguments.kills as usize)
        .map(|kill| total * kill / (arguments.kills as usize + 1))
        .peekable();
    loop {
        let from = ledger.begun.iter().filter_map(|begun| plan.submissions.get(*begun));
        let from = from.map(|submission| submission.at).max().unwrap_or_default();
        let mut child = start(arguments, store, from, &ledger)?;
        ledger.begin_run();
        let kill_at = kills.peek().copied();
        let headway = MIN_HEADWAY.max(pace::lease(arguments.speed) * 3);
        let end = follow(&mut child, kill_at, headway, &mut ledger, |fact, ended| {
            bar.set_position(ended as u64);
            if is_claim_answered(fact) {
                let second = usize::try_from(started.elapsed().as_secs()).unwrap_or(usize::MAX);
                let seconds = &mut figures.claims_by_second;
                seconds.resize(seconds.len().max(second + 1), 0);
                if let Some(claims) = seconds.last_mut() {
                    *claims += 1;
                }
            }
        });
        if end.is_err() {
            child.kill()?;
            child.wait()?;
        }
        let end = end?;
        ledger.end_run(end == End::Killed, plan);
        match end {
            End::Closed => break,
            End::Killed => {
                kills.next();
                bar.set_message(format!("killed {}", ledger.runs.len()));
            }
            End::AskedToBeOpened if ledger.runs.len() < MAX_RUNS => {}
            End::AskedToBeOpened => return Err("the store failed too often".into()),
        }
    }
    figures.took = started.elapsed();
    bar.finish_and_clear();
    Ok(ledger)
}

fn start(
    arguments: &Arguments,
    store: &Path,
    from: Duration,
    ledger: &Ledger,
) -> Result<Child, Box<dyn Error>> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(arguments.of_worker(store, from))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(input) = child.stdin.take() {
        serde_json::to_writer(std::io::BufWriter::new(input), &ledger.ended)?;
    }
    Ok(child)
}

/// Enters what a worker tells until it ends; kills it once `kill_at` submissions have ended.
fn follow(
    child: &mut Child,
    mut kill_at: Option<usize>,
    headway: Duration,
    ledger: &mut Ledger,
    mut noticed: impl FnMut(&Fact, usize),
) -> Result<End, Box<dyn Error>> {
    let lines = lines_of(child.stdout.take().ok_or("the worker has no output")?)?;
    let mut killed = false;
    let mut ended = (ledger.ended.len(), Since::now());
    loop {
        match lines.recv_timeout(headway) {
            Ok(line) => {
                let told: Told = serde_json::from_str(&line?)?;
                noticed(&told.fact, ledger.ended.len());
                ledger.enter(told);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if ledger.ended.len() > ended.0 {
            ended = (ledger.ended.len(), Since::now());
        } else if ended.1.elapsed() >= headway {
            let mut waiting: Vec<_> = ledger.begun.difference(&ledger.ended).take(10).collect();
            waiting.sort_unstable();
            return Err(format!("no submission ended for {headway:?}; open: {waiting:?}").into());
        }
        if kill_at.is_some_and(|at| ledger.ended.len() >= at) {
            // What it has told before is still read.
            child.kill()?;
            killed = true;
            kill_at = None;
        }
    }
    let status = child.wait()?;
    match status.code() {
        _ if killed => Ok(End::Killed),
        Some(0) => Ok(End::Closed),
        Some(OPEN_AGAIN) => Ok(End::AskedToBeOpened),
        _ => Err(format!("the worker ended with {status}").into()),
    }
}

fn is_claim_answered(fact: &Fact) -> bool {
    match fact {
        Fact::Won { .. } | Fact::TurnedAway { .. } => true,
        Fact::Shown { how, .. } => *how == How::Claimed,
        _ => false,
    }
}
