//! What commits cost: counted by the holder of the role, read by `Store::stats`.

use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};

/// Powers of two of microseconds a commit can take, up to 17 minutes.
const BUCKETS: usize = 30;

#[derive(Debug, Default)]
pub(super) struct Figures {
    batches: AtomicU64,
    rows: AtomicU64,
    bytes: AtomicU64,
    by_log2_micros: [AtomicU64; BUCKETS],
}

/// What was committed since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CommitFigures {
    /// Batches committed; a batch costs one sync for each file it touches (two with `Strict`).
    pub batches: u64,
    /// Records committed.
    pub records: u64,
    /// Bytes of records committed, before what the files add.
    pub record_bytes: u64,
    /// Half of the commits took less than this; the next power of two of microseconds.
    pub latency_p50: Duration,
    /// 99 of 100 commits took less than this; the next power of two of microseconds.
    pub latency_p99: Duration,
}

impl Figures {
    pub(super) fn committed(&self, rows: usize, bytes: usize, took: Duration) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        if let Some(count) = self.by_log2_micros.get(bucket.min(BUCKETS - 1)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self) -> CommitFigures {
        let counts = self.by_log2_micros.each_ref().map(|count| count.load(Ordering::Relaxed));
        CommitFigures {
            batches: self.batches.load(Ordering::Relaxed),
            records: self.rows.load(Ordering::Relaxed),
            record_bytes: self.bytes.load(Ordering::Relaxed),
            latency_p50: quantile(&counts, 50),
            latency_p99: quantile(&counts, 99),
        }
    }
}

fn quantile(counts: &[u64; BUCKETS], percent: u64) -> Duration {
    let total: u64 = counts.iter().sum();
    let mut below = 0;
    for (bucket, count) in counts.iter().enumerate() {
        below += count;
        if total > 0 && below * 100 >= total * percent {
            return Duration::from_micros(1 << bucket);
        }
    }
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_the_bucket_the_share_falls_in() {
        let figures = Figures::default();
        assert_eq!(figures.read().latency_p99, Duration::ZERO);
        for micros in [100, 100, 100, 9_000] {
            figures.committed(2, 160, Duration::from_micros(micros));
        }
        let read = figures.read();
        assert_eq!((read.batches, read.records, read.record_bytes), (4, 8, 640));
        assert_eq!(read.latency_p50, Duration::from_micros(128));
        assert_eq!(read.latency_p99, Duration::from_micros(16_384));
    }
}
