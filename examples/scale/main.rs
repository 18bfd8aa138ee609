//! Many keys: how claims, memory, disk and opening behave as a store grows to a hundred million
//! live keys, and how it all goes away again.
//!
//! Measures, does not judge, but for what must never be: an answer that is wrong ends it.

#![allow(clippy::allow_attributes, reason = "lints that fire in some of its modules only")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]
#![allow(clippy::panic, reason = "an answer that is wrong should end it")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]

mod arguments;
mod fill;
mod measure;
mod month;
mod plot;
mod steady;

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use justonce::{Claim, ManualClock, Options, Store};

use arguments::{Arguments, USAGE};
use measure::{Latencies, Quantiles, megabytes, millions};

/// Duplicates timed of each kind.
const DUPLICATES: u64 = 50_000;

/// Keys claimed by the process that is killed.
const KEYS_BEFORE_THE_KILL: u64 = 1_500_000;

fn main() -> ExitCode {
    let ended = Arguments::parse(std::env::args().skip(1)).and_then(|arguments| {
        match (&arguments.directory, arguments.claim_from) {
            (Some(path), Some(from)) => fill::claim_until_killed(&Store::open(path)?, from),
            _ => run(&arguments),
        }
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    // Beside the sources: a temporary directory is often in memory, where a sync costs nothing.
    let temporary = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR"))?;
    let path = match &arguments.directory {
        Some(path) => path.clone(),
        None => temporary.path().join("store"),
    };
    let keys = arguments.keys;
    let store = Store::open(&path)?;
    let filled = fill::fill(&store, &path, arguments)?;
    println!("\n{:.1} M keys, {} % completed", millions(keys), arguments.completed_percent);
    row("mean rate", &format!("{:.0} k/s", keys as f64 / filled.took.as_secs_f64() / 1e3));
    rates(&filled);
    let (bytes, files) = measure::disk(&path);
    row("resident memory", &format!("{:.0} MB", megabytes(measure::resident_bytes())));
    row("on disk", &format!("{:.1} bytes a key in {files} files", bytes as f64 / keys as f64));

    let bars = latencies(&store, &path, keys, &filled)?;
    for (name, quantiles) in &bars {
        let Quantiles { p50, p99, p999, count } = quantiles;
        row(name, &format!("p50 {p50:.1?}  p99 {p99:.1?}  p99.9 {p999:.1?}  of {count}"));
    }

    let ((), took) = timed(|| store.close().wait())?;
    drop(store);
    row("close", &format!("{took:.2?}"));
    let (bytes, _) = measure::disk(&path);
    row("on disk, closed", &format!("{:.1} bytes a key", bytes as f64 / keys as f64));
    let (store, took) = timed(|| Store::open(&path))?;
    row("open after closing", &format!("{took:.2?}"));
    check_all_there(&store, 0, keys)?;
    drop(store);

    let acknowledged = kill_while_claiming(&path, keys)?;
    let (store, took) = timed(|| Store::open(&path))?;
    let more = millions(acknowledged - keys);
    row("open after SIGKILL", &format!("{took:.2?}, with {more:.1} M keys more"));
    check_all_there(&store, 0, acknowledged)?;
    check_all_there(&store, keys, acknowledged)?;
    drop(store);

    expire(&path)?;
    print_steady(&steady::run(temporary.path())?);
    if arguments.days > 0 {
        print_month(&month::run(&temporary.path().join("month"), arguments.days)?);
    }
    if let Some(svg) = &arguments.svg {
        plot::draw(svg, &filled, &bars)?;
    }
    Ok(())
}

fn row(name: &str, value: &str) {
    println!("{name:32} {value}");
}

fn timed<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<(T, Duration), E> {
    let started = Instant::now();
    work().map(|done| (done, started.elapsed()))
}

fn rates(filled: &fill::Filled) {
    let stretches = &filled.stretches;
    let rate = |of: &[fill::Stretch]| {
        let (keys, took) = of.iter().fold((0, Duration::ZERO), |(keys, took), stretch| {
            (keys + stretch.fresh, took + stretch.took)
        });
        keys as f64 / took.as_secs_f64().max(1e-9)
    };
    // A generation is about 3.2 M keys: three make the tenth part of a hundred million.
    let few = stretches.len().div_ceil(10);
    let (first, last) = (rate(&stretches[..few]), rate(&stretches[stretches.len() - few..]));
    row("first tenth", &format!("{:.0} k/s", first / 1e3));
    row("last tenth", &format!("{:.0} k/s, {:.2} of the first", last / 1e3, last / first));
    for stretch in stretches {
        let (keys, rate) = (millions(stretch.keys), stretch.rate() / 1e3);
        let memory = megabytes(stretch.resident_bytes);
        println!("  {keys:>7.1} M keys  {rate:>6.0} k/s  {memory:>5.0} MB");
    }
}

/// Brings the files into the page cache, as far as they fit.
fn warm(path: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let mut file = std::fs::File::open(entry?.path())?;
        std::io::copy(&mut file, &mut std::io::sink())?;
    }
    Ok(())
}

fn latencies(
    store: &Store,
    path: &Path,
    keys: u64,
    filled: &fill::Filled,
) -> Result<Vec<(&'static str, Quantiles)>, Box<dyn Error>> {
    let probe = &filled.probe;
    let near = (keys / 100).max(1);
    Ok(vec![
        ("fresh, beside the filling", probe.fresh.quantiles()),
        ("fresh, while sealing", probe.fresh_while_sealing.quantiles()),
        ("duplicate, beside the filling", probe.duplicate.quantiles()),
        ("duplicate, while sealing", probe.duplicate_while_sealing.quantiles()),
        ("duplicate of a young key", duplicates(store, keys - near, keys)?.quantiles()),
        ("duplicate of an old key", duplicates(store, 0, near)?.quantiles()),
        ("duplicate of a random key", {
            warm(path)?;
            duplicates(store, 0, keys)?.quantiles()
        }),
    ])
}

/// Claims keys that are there, scattered over a range.
fn duplicates(store: &Store, from: u64, until: u64) -> Result<Latencies, Box<dyn Error>> {
    let mut latencies = Latencies::default();
    for key in scattered(from, until) {
        let operation = fill::operation(key);
        match latencies.time(|| store.claim(operation).wait())? {
            Claim::InFlight(_) | Claim::Completed(_) => {}
            other => panic!("key {key} is there, and was answered {other:?}"),
        }
    }
    Ok(latencies)
}

fn check_all_there(store: &Store, from: u64, until: u64) -> Result<(), Box<dyn Error>> {
    for key in scattered(from, until).take(5_000).chain([from, until - 1]) {
        let entry = store.lookup("scale", key.to_le_bytes()).wait()?;
        assert!(entry.is_some(), "key {key} was acknowledged and is lost");
    }
    Ok(())
}

fn scattered(from: u64, until: u64) -> impl Iterator<Item = u64> {
    // Steps of a golden section meet every part of the range alike.
    let width = (until - from).max(1);
    let step = (width as f64 * 0.618_033_988_749) as u64 | 1;
    (0..DUPLICATES).map(move |number| from + number.wrapping_mul(step) % width)
}

/// Has another process claim keys and kills it; says up to which key it had said that they are
/// durable.
fn kill_while_claiming(path: &Path, from: u64) -> Result<u64, Box<dyn Error>> {
    let program: PathBuf = std::env::current_exe()?;
    let mut child = Command::new(program)
        .arg("--dir")
        .arg(path)
        .args(["--claim-from", &from.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("the process has no output")?;
    let mut acknowledged = from;
    for line in BufReader::new(output).lines() {
        acknowledged = line?.parse()?;
        if acknowledged >= from + KEYS_BEFORE_THE_KILL {
            break;
        }
    }
    child.kill()?;
    child.wait()?;
    Ok(acknowledged)
}

/// Lets the time of everything be over.
fn expire(path: &Path) -> Result<(), Box<dyn Error>> {
    let clock = ManualClock::new();
    let store = Options::new().clock(&clock).open(path)?;
    let before = store.stats().generations;
    let started = Instant::now();
    clock.advance(Duration::from_hours(25));
    while store.stats().generations > 1 && started.elapsed() < Duration::from_mins(1) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = started.elapsed();
    // The last file is off the list a moment before it is off the disk.
    std::thread::sleep(Duration::from_millis(100));
    let (bytes, _) = measure::disk(path);
    row("everything over", &format!("{before} generations gone in {took:.2?}"));
    row("on disk then", &format!("{:.2} MB", megabytes(bytes)));
    Ok(())
}

fn print_steady(steady: &steady::Steady) {
    println!("\nfresh claims beside a load, while files are begun, sealed and removed");
    for (name, quantiles) in [("none is", steady.at_rest), ("ten a second", steady.in_motion)] {
        let Quantiles { p50, p99, p999, count } = quantiles;
        row(name, &format!("p50 {p50:.1?}  p99 {p99:.1?}  p99.9 {p999:.1?}  of {count}"));
    }
    let ratio = steady.in_motion.p999.as_secs_f64() / steady.at_rest.p999.as_secs_f64();
    row("p99.9", &format!("{ratio:.2} times, with {} files gone", steady.files_gone));
}

fn print_month(month: &month::Month) {
    println!("\n{} operations of 1,000 windows, one minute to 30 days", month.operations);
    row("files at most", &month.most_files.to_string());
    row("on disk at most", &format!("{:.0} MB", megabytes(month.most_disk_bytes)));
    let memory = [month.resident_bytes_before, month.most_resident_bytes].map(megabytes);
    row("resident memory", &format!("{:.0} MB before, {:.0} at most", memory[0], memory[1]));
    row("forgotten too early", &month.forgotten.to_string());
    row("remembered too long", &month.outlived.to_string());
    row("on disk when all is over", &format!("{:.2} MB", megabytes(month.disk_bytes_after)));
}
