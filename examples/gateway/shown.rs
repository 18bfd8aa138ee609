//! What the page shows: operations by state, duplicates saved, latency, recent requests.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use justonce::{EntryState, Filter, RequestId, Store};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Requests and upstream latencies that are kept for the page.
const RECENT: usize = 20;
const LATENCIES: usize = 1_000;

/// Operations that are counted for the page at most, each second that someone looks.
const COUNTED: usize = 100_000;

#[derive(Default)]
pub(crate) struct Shown(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    asked: u64,
    duplicates: u64,
    upstream_errors: u64,
    latencies: VecDeque<Duration>,
    recent: VecDeque<Recent>,
}

struct Recent {
    id: RequestId,
    project: String,
    asked: u64,
    what: String,
}

impl Shown {
    /// A client asked.
    pub(crate) fn asked(&self, id: RequestId, project: &str, is_duplicate: bool) {
        let mut seen = self.0.lock();
        seen.asked += 1;
        seen.duplicates += u64::from(is_duplicate);
        // A project is a hash; its beginning tells it from the others.
        let recent = seen.recent(id);
        recent.project = project.chars().take(8).collect();
        recent.asked += 1;
    }

    /// Upstream answered for good.
    pub(crate) fn answered(&self, id: RequestId, status: u16, took: Duration) {
        let mut seen = self.0.lock();
        if seen.latencies.len() == LATENCIES {
            seen.latencies.pop_front();
        }
        seen.latencies.push_back(took);
        seen.recent(id).what = format!("{status} after {} ms", took.as_millis());
    }

    /// Upstream, or the store, did not do it this time.
    pub(crate) fn failed(&self, id: RequestId, why: &dyn Display) {
        let mut seen = self.0.lock();
        seen.upstream_errors += 1;
        seen.recent(id).what = why.to_string();
    }

    /// A request of an earlier run is being worked on.
    pub(crate) fn resumed(&self, id: RequestId) {
        "resumed after a restart".clone_into(&mut self.0.lock().recent(id).what);
    }

    /// All of it, as JSON. Scans the store: blocks.
    pub(crate) fn news(&self, store: &Store) -> Value {
        let mut states = [0_u64; STATES.len()];
        for entry in store.scan(Filter::new()).take(COUNTED).flatten() {
            let at = STATES.iter().position(|(state, _)| *state == entry.state());
            if let Some(count) = at.and_then(|at| states.get_mut(at)) {
                *count += 1;
            }
        }
        let named =
            STATES.iter().zip(states).map(|((_, name), count)| ((*name).to_owned(), json!(count)));
        let seen = self.0.lock();
        let recent = seen.recent.iter().map(|recent| {
            json!({
                "id": recent.id.to_string(),
                "project": recent.project,
                "asked": recent.asked,
                "what": recent.what,
            })
        });
        json!({
            "states": Value::Object(named.collect()),
            "asked": seen.asked,
            "duplicates": seen.duplicates,
            "upstream_errors": seen.upstream_errors,
            "p50_millis": seen.quantile(50),
            "p99_millis": seen.quantile(99),
            "commits": store.stats().commits.batches,
            "recent": recent.collect::<Vec<_>>(),
        })
    }
}

impl Seen {
    /// The line of a request, moved to the top.
    fn recent(&mut self, id: RequestId) -> &mut Recent {
        let known = self.recent.iter().position(|recent| recent.id == id);
        let line = known.and_then(|at| self.recent.remove(at)).unwrap_or_else(|| Recent {
            id,
            project: String::new(),
            asked: 0,
            what: "in progress".to_owned(),
        });
        self.recent.truncate(RECENT - 1);
        self.recent.push_front(line);
        &mut self.recent[0]
    }

    fn quantile(&self, percent: usize) -> Option<u64> {
        let mut sorted: Vec<_> = self.latencies.iter().collect();
        sorted.sort_unstable();
        let at = sorted.len().saturating_sub(1) * percent / 100;
        sorted.get(at).and_then(|time| u64::try_from(time.as_millis()).ok())
    }
}

const STATES: [(EntryState, &str); 5] = [
    (EntryState::InFlight, "in_progress"),
    (EntryState::Lapsed, "interrupted"),
    (EntryState::Released, "released"),
    (EntryState::Completed, "completed"),
    (EntryState::Failed, "failed"),
];

pub(crate) fn state_name(state: EntryState) -> &'static str {
    STATES.iter().find(|(known, _)| *known == state).map_or("unknown", |(_, name)| name)
}

pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A number that no other request of this or another run has: for requests without a key.
#[expect(clippy::disallowed_methods, reason = "an example runs in real time")]
pub(crate) fn unique() -> u128 {
    static REQUESTS: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    (nanos << 40) | u128::from(REQUESTS.fetch_add(1, Ordering::Relaxed) & ((1 << 40) - 1))
}
