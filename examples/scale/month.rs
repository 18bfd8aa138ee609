//! A month in which operations of a thousand windows, from a minute to thirty days, come and go.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;
use justonce::{ManualClock, Operation, Options};

use crate::measure;

/// The clock moves this far at a time.
const STEP: Duration = Duration::from_mins(20);

/// Operations recorded in each step.
const OPERATIONS: u64 = 100;

const WINDOWS: u64 = 1000;
const SHORTEST: Duration = Duration::from_mins(1);
const LONGEST: Duration = Duration::from_hours(30 * 24);

/// Lanes there are between the shortest and the longest window, each with one file open.
const LANES: usize = 17;

#[derive(Debug, Default)]
pub(crate) struct Month {
    pub(crate) operations: u64,
    pub(crate) most_files: usize,
    pub(crate) most_disk_bytes: u64,
    pub(crate) resident_bytes_before: u64,
    pub(crate) most_resident_bytes: u64,
    /// Operations remembered at some moment though their files should have gone.
    pub(crate) outlived: u64,
    /// Operations that were to be remembered and were not.
    pub(crate) forgotten: u64,
    pub(crate) disk_bytes_after: u64,
}

/// A window, and the operations that were recorded with it.
fn window(number: u64) -> Duration {
    let ratio = LONGEST.as_secs_f64() / SHORTEST.as_secs_f64();
    SHORTEST.mul_f64(ratio.powf(number as f64 / (WINDOWS - 1) as f64))
}

/// How long a record's file stays at most: its lane is the power of two that its window fits, and
/// takes new records for an eighth of that.
fn longest_stay(window: Duration) -> Duration {
    let lane = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).next_power_of_two();
    Duration::from_millis(lane.max(1 << 16)).mul_f64(1.0 + 1.0 / 8.0)
}

pub(crate) fn run(path: &Path, days: u64) -> Result<Month, Box<dyn Error>> {
    let clock = ManualClock::new();
    let store = Options::new().clock(&clock).open(path)?;
    let begin = clock.wall();
    let steps = Duration::from_hours(days * 24).as_secs() / STEP.as_secs();
    let bar = ProgressBar::new(steps);
    let mut month = Month { resident_bytes_before: measure::resident_bytes(), ..Month::default() };
    // When each operation was recorded, and the number of its window.
    let mut ledger: Vec<(Duration, u64)> = Vec::new();
    for step in 0..steps {
        let now = clock.wall().duration_since(begin)?;
        let firsts: Vec<_> = (0..OPERATIONS)
            .map(|number| {
                // A step that shares no factor with the number of windows meets them all.
                let of_window = (step * OPERATIONS + number) * 7 % WINDOWS;
                ledger.push((now, of_window));
                let operation = Operation::new("month", (ledger.len() as u64).to_le_bytes());
                store.record_once(operation.window(window(of_window)))
            })
            .collect();
        for first in firsts {
            assert!(first.wait()?, "a fresh key is the first");
        }
        month.operations += OPERATIONS;
        if step % 16 == 0 {
            check(&store, &ledger, now, &mut month)?;
        }
        clock.advance(STEP);
        wait_for_keeper(&store);
        let (bytes, files) = measure::disk(path);
        month.most_files = month.most_files.max(files);
        month.most_disk_bytes = month.most_disk_bytes.max(bytes);
        month.most_resident_bytes = month.most_resident_bytes.max(measure::resident_bytes());
        bar.inc(1);
    }
    bar.finish_and_clear();
    clock.advance(longest_stay(LONGEST));
    for _ in 0..1000 {
        if store.stats().generations <= 1 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    month.disk_bytes_after = measure::disk(path).0;
    Ok(month)
}

/// Until what is over is sealed or gone: the clock leaps where time would have passed.
fn wait_for_keeper(store: &justonce::Store) {
    for _ in 0..10_000 {
        let stats = store.stats();
        if stats.generations <= stats.sealed_generations + LANES + 1 {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Looks at a sample of what was recorded, and at how much is listed altogether.
fn check(
    store: &justonce::Store,
    ledger: &[(Duration, u64)],
    now: Duration,
    month: &mut Month,
) -> Result<(), Box<dyn Error>> {
    let sample = ledger.len().div_ceil(500);
    for (number, (at, of_window)) in ledger.iter().enumerate().step_by(sample) {
        let is_over = *at + window(*of_window) <= now;
        let key = (number as u64 + 1).to_le_bytes();
        let is_there = store.lookup("month", key).wait()?.is_some();
        month.forgotten += u64::from(!is_over && !is_there);
        month.outlived += u64::from(is_over && is_there);
    }
    // A file goes at once when its last record is over; a step may pass before it is looked at.
    let may_be_listed = ledger
        .iter()
        .filter(|(at, of_window)| now < *at + longest_stay(window(*of_window)) + STEP)
        .count() as u64;
    month.outlived += store.stats().records_live.saturating_sub(may_be_listed);
    Ok(())
}
