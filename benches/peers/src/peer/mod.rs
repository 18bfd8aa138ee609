//! The peers: ways to keep an idempotency table, each as its own users would write it.
//!
//! A peer gets a key's name and returns when its answer is on disk. How it hashes, locks, batches
//! and cleans up is its own affair, and stands in its file.

mod fjall;
mod justonce;
mod lmdb;
mod map;
mod raw_log;
mod record;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod sqlite;
mod stripes;

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use serde::Serialize;

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Memory that a peer may cache pages in, where it has a setting: what justonce has by default.
const CACHE_BYTES: usize = 64 << 20;

/// What a peer's rows are found by.
type Id = [u8; 16];

/// A table of operations. Calls block; what they answer is on disk, but for the map's.
pub(crate) trait Peer: Send + Sync {
    fn claim(&self, key: Key) -> Result<Claimed, Failure>;

    /// Stores the reply of an operation that was claimed.
    fn complete(&self, key: Key, owner: Owner, reply: &[u8]) -> Result<(), Failure>;

    /// The reply of an operation, if it has one.
    fn lookup(&self, key: Key) -> Result<Option<Vec<u8>>, Failure>;

    /// Claims fresh keys in bulk, completed if there is a reply. What it takes is not measured.
    fn fill(&self, keys: Range<u64>, reply: Option<&[u8]>) -> Result<(), Failure>;

    /// Deletes what is over, for those that do so by a call.
    fn expire(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// Waits until background work is done, so that it is not in the way of who comes next.
    fn rest(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// The same table for tasks, if it is made for them.
    fn tasks(&self) -> Option<Tasks> {
        None
    }
}

/// An operation, by number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key(pub(crate) u64);

pub(crate) enum Claimed {
    New(Owner),
    InFlight,
    Completed(Vec<u8>),
}

/// The right to complete: a ticket of justonce's. Others own an operation by having inserted it.
#[must_use = "dropping a ticket gives its operation up"]
pub(crate) struct Owner(Option<::justonce::Ticket>);

/// A table that takes calls of tasks.
#[derive(Clone)]
pub(crate) enum Tasks {
    JustOnce(::justonce::Store),
    RawLog(raw_log::RawLog),
}

/// What all peers of a workload are opened with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) window: Duration,
    /// Rows are over within the run: those that delete them by a call keep an index for it.
    pub(crate) expiring: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Justonce,
    /// justonce with `Durability::Strict`.
    Strict,
    Redb,
    Sqlite,
    Lmdb,
    #[cfg(feature = "rocksdb")]
    Rocksdb,
    Fjall,
    /// A limit: a log that is appended to and never read.
    RawLog,
    /// A limit: a map in memory, and nothing on disk.
    Map,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Ours,
    Peer,
    Limit,
}

impl Key {
    /// What a client would call it.
    pub(crate) fn name(self) -> [u8; 18] {
        let mut name = *b"ticket-842\0\0\0\0\0\0\0\0";
        name[10..].copy_from_slice(&self.0.to_be_bytes());
        name
    }

    fn id(self) -> Id {
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::hash(&self.name()).as_bytes()[..16]);
        id
    }
}

impl Owner {
    fn by_insertion() -> Self {
        Owner(None)
    }

    /// The work goes on, and is not completed within the run.
    pub(crate) fn keep(self) {
        std::mem::forget(self.0);
    }
}

impl Claimed {
    pub(crate) fn new_owner(self) -> Result<Owner, Failure> {
        match self {
            Claimed::New(owner) => Ok(owner),
            Claimed::InFlight | Claimed::Completed(_) => Err("a fresh key is not new".into()),
        }
    }
}

impl Tasks {
    pub(crate) async fn claim(&self, key: Key) -> Result<Owner, Failure> {
        match self {
            Tasks::JustOnce(store) => justonce::claim(store, key).await,
            Tasks::RawLog(log) => log.append(&[]).await,
        }
    }

    pub(crate) async fn complete(&self, owner: Owner, reply: &[u8]) -> Result<(), Failure> {
        match self {
            Tasks::JustOnce(_) => justonce::ticket(owner)?.complete(reply).await?,
            Tasks::RawLog(log) => log.append(reply).await?.keep(),
        }
        Ok(())
    }
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Justonce => "justonce",
            Kind::Strict => "justonce, Strict",
            Kind::Redb => "redb",
            Kind::Sqlite => "SQLite",
            Kind::Lmdb => "LMDB",
            #[cfg(feature = "rocksdb")]
            Kind::Rocksdb => "RocksDB",
            Kind::Fjall => "fjall",
            Kind::RawLog => "raw log",
            Kind::Map => "map in memory",
        }
    }

    pub(crate) fn role(self) -> Role {
        match self {
            Kind::Justonce | Kind::Strict => Role::Ours,
            Kind::RawLog | Kind::Map => Role::Limit,
            _ => Role::Peer,
        }
    }

    /// Opens what is in the directory, or begins in an empty one.
    pub(crate) fn open(self, at: &Path, with: &Settings) -> Result<Box<dyn Peer>, Failure> {
        std::fs::create_dir_all(at)?;
        Ok(match self {
            Kind::Justonce => Box::new(justonce::JustOnce::open(at, with, false)?),
            Kind::Strict => Box::new(justonce::JustOnce::open(at, with, true)?),
            Kind::Redb => Box::new(redb::Redb::open(at, with)?),
            Kind::Sqlite => Box::new(sqlite::Sqlite::open(at, with)?),
            Kind::Lmdb => Box::new(lmdb::Lmdb::open(at, with)?),
            #[cfg(feature = "rocksdb")]
            Kind::Rocksdb => Box::new(rocksdb::Rocks::open(at, with)?),
            Kind::Fjall => Box::new(fjall::Fjall::open(at, with)?),
            Kind::RawLog => Box::new(raw_log::RawLog::open(at)?),
            Kind::Map => Box::new(map::Map::new(with)),
        })
    }
}

/// Milliseconds of the wall clock, by which the peers tell what is over.
fn now_millis() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    millis(now)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
