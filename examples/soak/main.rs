//! Hours of use in short: many threads and tasks at one store, with windows of seconds, and a
//! worker that is killed and started again.
//!
//! ```text
//! cargo run --release --example soak -- --minutes N
//!
//!   this process                                 the worker: this program again
//!   starts, kills, starts again ───────────────► 64 threads, 1,000 tasks ─► the store on disk
//!   books ◄──── facts, over a pipe: what was acknowledged; the figures, twice a second
//! ```
//!
//! It fails where a word that was acknowledged is lost or changed, a waiter is answered late,
//! memory, files, handles or threads grow, or a gauge does not go back to zero.

mod books;
#[path = "../common/lines.rs"]
mod lines;
mod watch;
mod worker;

use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use books::Books;
use indicatif::{ProgressBar, ProgressStyle};
use lines::lines_of;
use watch::Watch;

/// How long a worker that is killed lives at least, and by how much some live longer.
const SHORTEST: Duration = Duration::from_secs(2);
const VARIES_MILLIS: u64 = 6_000;

/// A worker that tells nothing for this long gets nowhere.
const HEADWAY: Duration = Duration::from_mins(1);

const USAGE: &str = "usage: soak [--minutes N]";

#[expect(clippy::print_stderr, reason = "where a program says what went wrong")]
fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["--worker", path, run, millis] => worker(path, run, millis).map(|()| Vec::new()),
        ["--minutes", minutes] => match minutes.parse() {
            Ok(minutes) if minutes > 0.0 && minutes < 100_000.0 => soak(minutes),
            _ => Err(format!("--minutes {minutes}: give more than 0\n{USAGE}").into()),
        },
        [] => soak(1.0),
        _ => Err(USAGE.into()),
    };
    let wrong = outcome.unwrap_or_else(|error| vec![error.to_string()]);
    for wrong in &wrong {
        eprintln!("WRONG  {wrong}");
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn worker(path: &str, run: &str, millis: &str) -> Result<(), Box<dyn Error>> {
    worker::run(Path::new(path), run.parse()?, Duration::from_millis(millis.parse()?))
}

/// One worker: how long it is to live, and whether it is killed then or ends by itself.
#[derive(Debug, Clone, Copy)]
struct Run {
    number: u64,
    lifetime: Duration,
    is_killed: bool,
}

/// Runs the workers, one after the other, and says what was wrong. The first, for half of the
/// time, and the last end by themselves, so that what they have left is known.
#[expect(clippy::disallowed_methods, reason = "an example runs in real time")]
fn soak(minutes: f64) -> Result<Vec<String>, Box<dyn Error>> {
    let total = Duration::from_secs_f64(minutes * 60.0);
    let directory = tempfile::tempdir()?;
    let store = directory.path().join("store");
    let started = Instant::now();
    let style = "{elapsed_precise} [{wide_bar}] {msg}";
    let bar = ProgressBar::new(u64::try_from(total.as_millis())?)
        .with_style(ProgressStyle::with_template(style)?.progress_chars("=> "));
    let noticed = |books: &Books| {
        bar.set_position(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
        bar.set_message(format!("{} facts of {} runs", books.facts, books.runs));
    };
    let mut books = Books::default();
    let run = Run { number: 0, lifetime: total / 2, is_killed: false };
    let first = follow(run, &store, &mut books, noticed)?;
    let mut kills = 0;
    let last = loop {
        let left = total.saturating_sub(started.elapsed());
        let number = kills + 1;
        let drawn = SHORTEST + Duration::from_millis(chance(number) % VARIES_MILLIS);
        let is_killed = drawn < left;
        let lifetime = if is_killed { drawn } else { left.max(SHORTEST) };
        let watch = follow(Run { number, lifetime, is_killed }, &store, &mut books, noticed)?;
        if !is_killed {
            break watch;
        }
        kills += 1;
    };
    bar.finish_and_clear();
    let mut wrong = books.check(&store)?;
    // The last is too short to be warm.
    wrong.extend(first.growth());
    wrong.extend([&first, &last].into_iter().filter_map(Watch::left));
    summary(&books, &first, &last, kills, wrong.len());
    Ok(wrong)
}

#[expect(clippy::print_stdout, reason = "the summary")]
fn summary(books: &Books, first: &Watch, last: &Watch, kills: u64, wrong: usize) {
    println!("the first worker\n{first}\nthe last worker\n{last}");
    println!("{books}\n{kills} kills, {wrong} wrong");
}

/// Starts a worker, enters what it tells until it ends, and kills it when its time has come.
#[expect(clippy::disallowed_methods, reason = "an example runs in real time")]
fn follow(
    run: Run,
    store: &Path,
    books: &mut Books,
    noticed: impl Fn(&Books),
) -> Result<Watch, Box<dyn Error>> {
    books.begin_run();
    let told = if run.is_killed { run.lifetime + HEADWAY } else { run.lifetime };
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--worker".as_ref(), store.as_os_str()])
        .args([run.number.to_string(), told.as_millis().to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let facts = lines_of(child.stdout.take().ok_or("the worker has no output")?)?;
    let mut watch = Watch::default();
    let born = Instant::now();
    let mut is_dead = false;
    loop {
        let to_live = run.lifetime.saturating_sub(born.elapsed());
        let is_to_die = run.is_killed && !is_dead;
        if is_to_die && to_live.is_zero() {
            // What it has told before is still read.
            child.kill()?;
            is_dead = true;
            continue;
        }
        match facts.recv_timeout(if is_to_die { to_live } else { HEADWAY }) {
            Ok(fact) => {
                let fact = fact?;
                if !watch.enter(&fact) && !books.enter(&fact) && !is_dead {
                    return Err(format!("the worker said {fact:?}").into());
                }
            }
            Err(RecvTimeoutError::Timeout) if is_to_die => {}
            Err(RecvTimeoutError::Timeout) => {
                child.kill()?;
                child.wait()?;
                return Err(format!("the worker told nothing for {HEADWAY:?}").into());
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
        noticed(books);
    }
    let status = child.wait()?;
    if !is_dead && !status.success() {
        return Err(format!("the worker ended with {status}").into());
    }
    Ok(watch)
}

/// A number for a number, as if drawn: one round of `SplitMix64`.
pub(crate) fn chance(of: u64) -> u64 {
    let mut mixed = of.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
