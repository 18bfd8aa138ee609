//! What is measured: latencies, memory, disk.

use std::path::Path;
use std::time::{Duration, Instant};

/// Latencies of one kind of call.
#[derive(Debug, Default, Clone)]
pub(crate) struct Latencies {
    nanos: Vec<u64>,
}

/// Three points of a distribution.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quantiles {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) p999: Duration,
    pub(crate) count: usize,
}

impl Latencies {
    pub(crate) fn time<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = call();
        self.add(started.elapsed());
        result
    }

    pub(crate) fn add(&mut self, took: Duration) {
        self.nanos.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn quantiles(&self) -> Quantiles {
        let mut sorted = self.nanos.clone();
        sorted.sort_unstable();
        let at = |per_mille: usize| {
            let index = (sorted.len() * per_mille / 1000).min(sorted.len().saturating_sub(1));
            Duration::from_nanos(sorted.get(index).copied().unwrap_or(0))
        };
        Quantiles { p50: at(500), p99: at(990), p999: at(999), count: sorted.len() }
    }
}

/// Memory of this process that is in RAM, in bytes; zero where the system does not say.
pub(crate) fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 =
        statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}

/// Bytes of all files in a directory, and how many there are.
pub(crate) fn disk(path: &Path) -> (u64, usize) {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| Some(entry.metadata().ok()?.len()));
    sizes.fold((0, 0), |(bytes, files), size| (bytes + size, files + 1))
}

pub(crate) fn millions(keys: u64) -> f64 {
    keys as f64 / 1e6
}

pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
