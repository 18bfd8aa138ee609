//! What is measured: loads of calls on tables that are open side by side.
//!
//! A workload has a table of each peer opened and filled, then goes through its cases round by
//! round, each peer in turn, so that a change of the machine's mood meets all of them. What a peer
//! leaves to be done in the background is waited for before the next has its turn.

mod clients;
mod complete;
mod duplicates;
mod fresh;
mod steady;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use indicatif::ProgressBar;
use serde::Serialize;

use crate::arguments::Arguments;
use crate::peer::{Failure, Key, Kind, Peer, Settings};
use crate::report::Book;

/// Bytes of a reply.
const REPLY_BYTES: usize = 2048;

/// Keys filled in one go.
const FILL: u64 = 100_000;

/// Long enough for no row to be over within a run.
const LONG: Duration = Duration::from_hours(24);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Workload {
    /// Claims of fresh keys onto a table of live ones.
    Fresh,
    /// Claims of keys that are there, in flight or completed, and look-ups.
    Duplicates,
    /// Claims, each completed with a reply of 2 KiB.
    Complete,
    /// Claims with a window so short that rows are over as fast as they come.
    Steady,
    /// `Durability::Strict` beside `Synced`.
    Strict,
}

impl Workload {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Workload::Fresh => "fresh claims",
            Workload::Duplicates => "duplicates",
            Workload::Complete => "claim and complete, 2 KiB",
            Workload::Steady => "steady state with expiry",
            Workload::Strict => "Strict beside Synced",
        }
    }

    pub(crate) fn run(self, stage: &Stage<'_>, book: &mut Book) -> Result<(), Failure> {
        match self {
            Workload::Fresh => fresh::run(stage, book),
            Workload::Duplicates => duplicates::run(stage, book),
            Workload::Complete => complete::run(stage, book),
            Workload::Steady => steady::run(stage, book),
            Workload::Strict => fresh::strict(stage, book),
        }
    }
}

/// Where workloads run, and with what.
pub(crate) struct Stage<'a> {
    pub(crate) arguments: &'a Arguments,
    /// On the disk that is measured.
    pub(crate) directory: &'a Path,
    pub(crate) progress: &'a ProgressBar,
}

/// A peer's table.
struct Table {
    kind: Kind,
    peer: Box<dyn Peer>,
    path: PathBuf,
    /// The first key that was never claimed.
    next_key: Arc<AtomicU64>,
}

impl Stage<'_> {
    /// The peers asked for that a workload is for.
    fn kinds(&self, suits: impl Fn(Kind) -> bool) -> Vec<Kind> {
        self.arguments.peers().into_iter().filter(|kind| suits(*kind)).collect()
    }

    /// Opens and fills a table for each; their files go with the returned directory.
    fn tables(
        &self,
        kinds: &[Kind],
        settings: &Settings,
        keys: u64,
        reply: Option<&[u8]>,
    ) -> Result<(tempfile::TempDir, Vec<Table>), Failure> {
        let directory = tempfile::tempdir_in(self.directory)?;
        let mut tables = Vec::new();
        for kind in kinds {
            let path = directory.path().join(kind.name());
            let table = Table::open(*kind, path, settings)?;
            table.fill(keys, reply, self)?;
            tables.push(table);
        }
        Ok((directory, tables))
    }

    fn says(&self, what: String) {
        self.progress.set_message(what);
        self.progress.tick();
    }

    fn lasts(&self) -> Duration {
        Duration::from_secs_f64(self.arguments.seconds)
    }
}

impl Table {
    fn open(kind: Kind, path: PathBuf, settings: &Settings) -> Result<Self, Failure> {
        let peer = kind.open(&path, settings)?;
        Ok(Table { kind, peer, path, next_key: Arc::default() })
    }

    fn fill(&self, keys: u64, reply: Option<&[u8]>, stage: &Stage<'_>) -> Result<(), Failure> {
        let mut from = 0;
        while from < keys {
            let until = keys.min(from + FILL);
            stage.says(format!("{}: {from} of {keys} keys filled", self.kind.name()));
            self.peer.fill(from..until, reply)?;
            from = until;
        }
        self.next_key.store(keys, Ordering::Relaxed);
        self.peer.rest()
    }

    fn fresh_key(&self) -> Key {
        Key(self.next_key.fetch_add(1, Ordering::Relaxed))
    }
}
