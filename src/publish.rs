//! The figures of `Store::stats`, for the facade `metrics`.
//!
//! They are pulled: whoever collects asks for them, so a claim costs what it costs without. The
//! histograms of commits are not here: `observe` takes their samples as commits end.

use metrics::{Label, Unit};

use crate::observe::{BATCH_BYTES, BATCH_RECORDS, COMMIT_SECONDS, COUNTERS};
use crate::store::{Stats, Store};
use crate::sync::Arc;

const CLAIMS: &str = "justonce_claims_total";
const COMMITS: &str = "justonce_commits_total";
const COMMITTED_RECORDS: &str = "justonce_committed_records_total";
const COMMITTED_BYTES: &str = "justonce_committed_bytes_total";

const RECORDS: &str = "justonce_records";
const UNANSWERED: &str = "justonce_unanswered";
const GENERATIONS: &str = "justonce_generations";
const SEALED_GENERATIONS: &str = "justonce_sealed_generations";
const QUEUED_BYTES: &str = "justonce_queued_bytes";
const WAITERS: &str = "justonce_waiters";
const POISONED: &str = "justonce_poisoned";
const CLOCK_SKEW: &str = "justonce_clock_skew_seconds";

impl Store {
    /// Hands the figures of [`stats`](Store::stats) to the recorder of the crate `metrics` that is
    /// installed: counters by what they have grown since the last time, gauges as they are, with
    /// descriptions and units. To be called before each scrape, or every few seconds where an
    /// exporter pushes. docs/observability.md lists names, units and labels.
    ///
    /// What a commit took and had, as histograms, needs no call. What was published before a
    /// recorder was there is not told again.
    ///
    /// Costs what `stats` costs and a look-up in the recorder for each figure; never touches the
    /// disk. Any thread may call it, also several at once.
    ///
    /// With the feature `metrics`.
    ///
    /// ```
    /// use justonce::{Operation, Options};
    ///
    /// let store = Options::new().name("payments").in_memory()?;
    /// store.record_once(Operation::new("acme", "evt_1")).wait()?;
    /// store.publish_metrics(); // then have the exporter render them
    /// # Ok::<(), justonce::Error>(())
    /// ```
    pub fn publish_metrics(&self) {
        describe();
        let stats = self.stats();
        let observer = &self.engine().committer.observer;
        let store = observer.store();
        let grown = observer.growth(counters(&stats).map(|(_, _, value)| value));
        for ((name, answer, _), grown) in counters(&stats).into_iter().zip(grown) {
            let mut labels = vec![Label::new("store", Arc::clone(store))];
            labels.extend(answer.map(|answer| Label::new("answer", answer)));
            metrics::counter!(name, labels).increment(grown);
        }
        for (name, value) in gauges(&stats) {
            metrics::gauge!(name, "store" => Arc::clone(store)).set(value);
        }
    }
}

/// Name, answer and value.
fn counters(stats: &Stats) -> [(&'static str, Option<&'static str>, u64); COUNTERS] {
    let (claims, commits) = (&stats.claims, &stats.commits);
    [
        (CLAIMS, Some("new"), claims.new),
        (CLAIMS, Some("resumed"), claims.resumed),
        (CLAIMS, Some("in_flight"), claims.in_flight),
        (CLAIMS, Some("completed"), claims.completed),
        (CLAIMS, Some("failed"), claims.failed),
        (CLAIMS, Some("mismatch"), claims.mismatch),
        (CLAIMS, Some("lapsed"), claims.lapsed),
        (COMMITS, None, commits.batches),
        (COMMITTED_RECORDS, None, commits.records),
        (COMMITTED_BYTES, None, commits.record_bytes),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, exact up to 2^53")]
fn gauges(stats: &Stats) -> [(&'static str, f64); 8] {
    [
        (RECORDS, stats.records_live as f64),
        (UNANSWERED, stats.unanswered as f64),
        (GENERATIONS, stats.generations as f64),
        (SEALED_GENERATIONS, stats.sealed_generations as f64),
        (QUEUED_BYTES, stats.queued_bytes as f64),
        (WAITERS, stats.waiters as f64),
        (POISONED, f64::from(u8::from(stats.poisoned))),
        (CLOCK_SKEW, stats.clock_skew.as_secs_f64()),
    ]
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};

    describe_counter!(CLAIMS, Unit::Count, "claims, by how they were answered");
    describe_counter!(COMMITS, Unit::Count, "batches committed");
    describe_counter!(COMMITTED_RECORDS, Unit::Count, "records committed");
    describe_counter!(COMMITTED_BYTES, Unit::Bytes, "bytes of records committed");
    describe_gauge!(RECORDS, Unit::Count, "operations listed in the indexes");
    describe_gauge!(UNANSWERED, Unit::Count, "operations without a reply");
    describe_gauge!(GENERATIONS, Unit::Count, "generations, one file each");
    describe_gauge!(SEALED_GENERATIONS, Unit::Count, "generations that are sealed");
    describe_gauge!(QUEUED_BYTES, Unit::Bytes, "bytes of records that wait to be committed");
    describe_gauge!(WAITERS, Unit::Count, "threads and tasks that wait for operations");
    describe_gauge!(POISONED, Unit::Count, "1 where a commit has failed and writes are refused");
    describe_gauge!(CLOCK_SKEW, Unit::Seconds, "how far the clock was behind at the opening");
    describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "time that a commit took");
    describe_histogram!(BATCH_RECORDS, Unit::Count, "records of a commit");
    describe_histogram!(BATCH_BYTES, Unit::Bytes, "bytes of records of a commit");
}
