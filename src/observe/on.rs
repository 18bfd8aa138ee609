//! Passing on what happened, to `tracing`, to `metrics` or to both.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

#[cfg(feature = "tracing")]
use super::events;
#[cfg(feature = "metrics")]
use super::samples;
use super::{Begun, Event, Span};
use crate::sync::Arc;
#[cfg(feature = "metrics")]
use crate::sync::{AtomicU64, Ordering};

/// Counters that are published as differences.
#[cfg(feature = "metrics")]
pub(crate) const COUNTERS: usize = 10;

/// What a caller can choose of it.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) name: Option<String>,
    #[cfg(feature = "tracing")]
    pub(crate) slow_commit: Duration,
}

impl Settings {
    pub(crate) fn new() -> Self {
        Settings {
            name: None,
            #[cfg(feature = "tracing")]
            slow_commit: Duration::from_millis(250),
        }
    }

    /// Names the store after its directory, unless it was named.
    pub(crate) fn name_after(&mut self, path: &Path) {
        let directory = path.file_name().map(|name| name.to_string_lossy().into_owned());
        self.name = self.name.take().or(directory);
    }

    pub(crate) fn observer(self) -> Observer {
        Observer(Arc::new(Observed {
            store: self.name.unwrap_or_else(|| "memory".to_owned()).into(),
            #[cfg(feature = "tracing")]
            slow_commit: self.slow_commit,
            #[cfg(feature = "metrics")]
            published: std::array::from_fn(|_| AtomicU64::new(0)),
        }))
    }
}

/// One store's way to whoever looks.
#[derive(Debug)]
pub(crate) struct Observer(Arc<Observed>);

#[derive(Debug)]
pub(super) struct Observed {
    pub(super) store: Arc<str>,
    #[cfg(feature = "tracing")]
    pub(super) slow_commit: Duration,
    /// What each counter was when it was last published.
    #[cfg(feature = "metrics")]
    published: [AtomicU64; COUNTERS],
}

impl Observer {
    pub(crate) fn tell(&self, event: Event<'_>) {
        #[cfg(feature = "tracing")]
        shielded(|| events::tell(&self.0.store, event));
        #[cfg(not(feature = "tracing"))]
        let _ = (self, event);
    }

    /// Enters a span, which is left when what is returned is dropped.
    pub(crate) fn span(&self, span: Span) -> Scope {
        #[cfg(feature = "tracing")]
        return Scope(shielded(|| events::span(&self.0.store, span).entered()));
        #[cfg(not(feature = "tracing"))]
        {
            let _ = (self, span);
            Scope
        }
    }

    /// What is to be told of a commit.
    pub(crate) fn committed(
        &self,
        records: usize,
        bytes: usize,
        took: Duration,
        begun: impl Iterator<Item = Begun>,
    ) -> Told {
        let commit = Commit { records, bytes, took, begun: begun.collect() };
        Told(Some((Arc::clone(&self.0), commit)))
    }

    /// What events and metrics call the store.
    #[cfg(feature = "metrics")]
    pub(crate) fn store(&self) -> &Arc<str> {
        &self.0.store
    }

    /// By how much a counter has grown since it was last published. Of several who publish at
    /// once, each gets a part of it.
    #[cfg(feature = "metrics")]
    pub(crate) fn growth(&self, counters: [u64; COUNTERS]) -> [u64; COUNTERS] {
        let mut published = self.0.published.iter();
        counters.map(|now| {
            let before =
                published.next().map_or(now, |last| last.fetch_max(now, Ordering::Relaxed));
            now.saturating_sub(before)
        })
    }
}

/// A batch that is durable.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) records: usize,
    pub(super) bytes: usize,
    pub(super) took: Duration,
    #[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "an event's, no sample's"))]
    pub(super) begun: Vec<Begun>,
}

/// What is to be told of a commit, by one who holds nothing that anybody waits for.
#[derive(Debug, Default)]
#[must_use = "nobody hears of it until it is told"]
pub(crate) struct Told(Option<(Arc<Observed>, Commit)>);

impl Told {
    pub(crate) fn tell(self) {
        if let Some((observed, commit)) = self.0 {
            #[cfg(feature = "metrics")]
            shielded(|| samples::take(&observed.store, &commit));
            #[cfg(feature = "tracing")]
            shielded(|| events::committed(&observed, &commit));
        }
    }
}

/// A span that is entered.
#[cfg(feature = "tracing")]
pub(crate) struct Scope(Option<tracing::span::EnteredSpan>);

#[cfg(feature = "tracing")]
impl Drop for Scope {
    fn drop(&mut self) {
        let entered = self.0.take();
        shielded(|| drop(entered));
    }
}

#[cfg(not(feature = "tracing"))]
pub(crate) struct Scope;

/// Runs the caller's code, whose panic is not ours.
fn shielded<T>(told: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(told)).ok()
}
