//! The events and spans of `tracing`, as docs/observability.md lists them.

use std::error::Error as StdError;
use std::time::Duration;

use super::on::{Commit, Observed};
use super::{Event, Opened, Span};

pub(super) fn tell(store: &str, event: Event<'_>) {
    match event {
        Event::Opened(opened) => tell_opened(store, &opened),
        Event::Retired { generation } => tracing::debug!(
            name: "retired",
            target: "justonce",
            store,
            generation,
            "a file whose records were all over is gone"
        ),
        Event::Sealed { generation, entries, took } => tracing::debug!(
            name: "sealed",
            target: "justonce",
            store,
            generation,
            entries,
            took_micros = micros(took),
            "a file takes no more records and has its index"
        ),
        Event::Poisoned { cause } => tracing::error!(
            name: "poisoned",
            target: "justonce",
            store,
            kind = ?cause.kind(),
            error = cause as &(dyn StdError + 'static),
            "a commit failed, so the store takes no more writes: open it again"
        ),
        Event::Closed { outcome: Ok(()) } => tracing::info!(
            name: "closed",
            target: "justonce",
            store,
            "the store is closed"
        ),
        Event::Closed { outcome: Err(error) } => tracing::warn!(
            name: "closed",
            target: "justonce",
            store,
            kind = ?error.kind(),
            error = error as &(dyn StdError + 'static),
            "the store is closed, and the next opening will recover it"
        ),
    }
}

fn tell_opened(store: &str, opened: &Opened) {
    let Opened { epoch, clean, generations, replayed_records, unanswered, skew, took } = *opened;
    if !clean {
        tracing::warn!(
            name: "recovered",
            target: "justonce",
            store,
            epoch,
            replayed_records,
            unanswered,
            "the last run was not closed: what it had acknowledged was read back"
        );
    }
    if !skew.is_zero() {
        tracing::warn!(
            name: "clock_behind",
            target: "justonce",
            store,
            skew_micros = micros(skew),
            "the wall clock is behind the last time in the store, which counts on from there"
        );
    }
    tracing::info!(
        name: "opened",
        target: "justonce",
        store,
        epoch,
        clean,
        generations,
        replayed_records,
        unanswered,
        took_micros = micros(took),
        "the store is open"
    );
}

/// A commit is told of where it was slow, and where a lane turned to another generation with it.
pub(super) fn committed(observed: &Observed, commit: &Commit) {
    let store = &*observed.store;
    for begun in &commit.begun {
        tracing::debug!(
            name: "rotated",
            target: "justonce",
            store,
            generation = begun.generation,
            takes_for_micros = micros(begun.takes_for),
            "records go to a new file"
        );
    }
    if commit.took >= observed.slow_commit {
        tracing::warn!(
            name: "slow_commit",
            target: "justonce",
            store,
            records = commit.records,
            bytes = commit.bytes,
            took_micros = micros(commit.took),
            "a commit was slow, and whoever waited for it: look at the disk"
        );
    }
}

pub(super) fn span(store: &str, span: Span) -> tracing::Span {
    match span {
        Span::Open => tracing::info_span!(target: "justonce", "open", store),
        Span::Commit { records, bytes } => {
            tracing::debug_span!(target: "justonce", "commit", store, records, bytes)
        }
        Span::Seal { generation } => {
            tracing::debug_span!(target: "justonce", "seal", store, generation)
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
