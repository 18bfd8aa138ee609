//! The main job on real input: an hour of LLM requests through a store on disk, as a gateway would
//! send them, with every source of duplicates there is and a SIGKILL in the middle.
//!
//! ```text
//! cargo run --release --example replay -- [trace.csv]
//!
//!   this process                                   the worker: this program again
//!   supervisor ── starts, kills, starts again ──►  gateway ─► the store on disk
//!       ▲                                             │  8 threads (.wait()), 1,024 tasks (.await)
//!       └── ledger ◄──────── facts, over a pipe ──────┘
//!             │
//!           audit: the ledger against itself and against the store ──► report
//! ```
//!
//! The trace is one of the columns `TIMESTAMP,ContextTokens,GeneratedTokens`, such as the Azure LLM
//! inference trace 2023; without one, an hour of the same shape is made up. Its time is pressed
//! together. The process that keeps the books never has the store open while it is in use: what it
//! knows, it knows from facts that the worker told after the store had acknowledged them.
//!
//! It ends with a table, and with an exit other than 0 if the books and the store differ.

mod arguments;
mod audit;
mod facts;
mod gateway;
mod ledger;
#[path = "../common/lines.rs"]
mod lines;
mod model;
mod pace;
mod random;
mod report;
mod supervisor;
mod trace;
mod traffic;
mod worker;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use arguments::Arguments;
use audit::Audit;
use report::Figures;
use traffic::Plan;

/// Differences that are shown; the rest is counted.
const SHOWN_DIFFERENCES: usize = 40;

#[expect(clippy::print_stderr, reason = "where a program says what went wrong")]
fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}\n\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    let outcome = match &arguments.worker {
        Some(worker) => worker::run(&arguments, worker).map(|()| Vec::new()),
        None => replay(&arguments),
    };
    match outcome {
        Ok(differences) => {
            for difference in differences.iter().take(SHOWN_DIFFERENCES) {
                eprintln!("DIFFERS  {difference}");
            }
            if differences.len() > SHOWN_DIFFERENCES {
                eprintln!("and {} more", differences.len() - SHOWN_DIFFERENCES);
            }
            if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Plays the trace, checks the books and prints the table; says where they differ.
fn replay(arguments: &Arguments) -> Result<Vec<String>, Box<dyn Error>> {
    let plan = Plan::new(arguments.rows()?, arguments.seed);
    let temporary = tempfile::tempdir()?;
    let store = match &arguments.directory {
        Some(directory) => new_directory(directory)?,
        None => temporary.path().join("store"),
    };
    let mut figures = Figures::default();
    let ledger = supervisor::play(arguments, &plan, &store, &mut figures)?;
    figures.bytes_on_disk = report::bytes_in(&store)?;
    let audit = Audit::of(&ledger, &plan, &store, pace::lease(arguments.speed))?;
    report::print(arguments, &plan, &ledger, &audit, &figures);
    Ok(audit.differences)
}

/// A store that has been used before would know operations that the books do not.
fn new_directory(path: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let is_used = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
    if is_used {
        return Err(format!("{}: give a new or empty directory", path.display()).into());
    }
    Ok(path.to_owned())
}
