//! The histograms of `metrics`: one sample of each for a commit, exact.

use super::on::Commit;
use crate::sync::Arc;

pub(crate) const COMMIT_SECONDS: &str = "justonce_commit_seconds";
pub(crate) const BATCH_RECORDS: &str = "justonce_batch_records";
pub(crate) const BATCH_BYTES: &str = "justonce_batch_bytes";

pub(super) fn take(store: &Arc<str>, commit: &Commit) {
    let sample = |name: &'static str, value: f64| {
        metrics::histogram!(name, "store" => Arc::clone(store)).record(value);
    };
    sample(COMMIT_SECONDS, commit.took.as_secs_f64());
    sample(BATCH_RECORDS, as_float(commit.records));
    sample(BATCH_BYTES, as_float(commit.bytes));
}

/// Exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "a batch is smaller")]
fn as_float(count: usize) -> f64 {
    count as f64
}
