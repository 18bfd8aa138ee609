//! What can be chosen when a store is opened.

use std::path::Path;
use std::time::Duration;

use crate::clock::{ManualClock, Source};
use crate::commit::{Durability, Limits};
use crate::engine::{self, EngineOptions};
use crate::error::{Error, ErrorKind};
use crate::observe::Settings;
use crate::operation::{Defaults, checked_duration};
use crate::record::WindowFrom;
use crate::storage::{Directory, Disk, MANIFEST, Memory, Unchanged};
use crate::store::Store;
use crate::sync::Arc;
use crate::table::IndexLimits;

const MIB: usize = 1 << 20;

/// Largest reply a store can be told to take: 1 GiB.
const MAX_REPLY_BYTES: usize = 1 << 30;

/// Fewest entries an index can be told to hold in each shard.
const MIN_INDEX_ENTRIES: usize = 8;

/// Whether an owner outlives the process that has the store open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Owner {
    /// The work is done in this process, so its end is the end of the work: what was in flight
    /// lapses at once when the store is opened again. The default.
    #[default]
    Process,
    /// The work is done elsewhere, under [detached](crate::Ticket::detach) tickets: leases go on
    /// across a restart.
    External,
}

/// How a store is opened.
///
/// | option | default | what it bounds or costs |
/// |---|---|---|
/// | [`window`](Options::window) | 24 h | how long a record is remembered |
/// | [`window_from`](Options::window_from) | last change | |
/// | [`lease`](Options::lease) | 10 min | how long a silent owner is trusted |
/// | [`durability`](Options::durability) | `Synced` | syncs for each batch |
/// | [`owner`](Options::owner) | `Process` | |
/// | [`keep_keys`](Options::keep_keys) | no | bytes of project and key in each record |
/// | [`max_reply_bytes`](Options::max_reply_bytes) | 8 MiB | |
/// | [`queue_bytes`](Options::queue_bytes) | 64 MiB | memory of what waits to be committed |
/// | [`cache_bytes`](Options::cache_bytes) | 64 MiB | memory of the engine's page cache: an eighth for each file that is written to, a 128th for each that is sealed |
/// | [`index_entries`](Options::index_entries) | 12,800 × 256 | memory of one generation's index: 37.7 MB when full |
/// | [`verify_on_open`](Options::verify_on_open) | no | time to open: the files are read whole |
/// | [`generation_bytes`](Options::generation_bytes) | 1 GiB | size of a file, and time to reopen after a crash |
///
/// ```
/// use std::time::Duration;
/// use justonce::{Durability, Options};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("dedupe");
/// let store = Options::new()
///     .window(Duration::from_secs(3600))
///     .lease(Duration::from_secs(60))
///     .durability(Durability::Strict)
///     .open(&path)?;
/// # Ok::<(), justonce::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "options do nothing until a store is opened with them"]
pub struct Options {
    window: Duration,
    window_from: WindowFrom,
    lease: Duration,
    durability: Durability,
    owner: Owner,
    keep_keys: bool,
    max_reply_bytes: usize,
    queue_bytes: usize,
    cache_bytes: usize,
    index_entries: usize,
    generation_bytes: u64,
    clock: Source,
    tag_mask: u32,
    verify: bool,
    observed: Settings,
}

impl Options {
    /// The defaults.
    pub fn new() -> Self {
        Options {
            window: Duration::from_hours(24),
            window_from: WindowFrom::default(),
            lease: Duration::from_mins(10),
            durability: Durability::default(),
            owner: Owner::default(),
            keep_keys: false,
            max_reply_bytes: 8 * MIB,
            queue_bytes: 64 * MIB,
            cache_bytes: 64 * MIB,
            index_entries: 12_800,
            generation_bytes: 1 << 30,
            clock: Source::default(),
            tag_mask: u32::MAX,
            verify: false,
            observed: Settings::new(),
        }
    }

    /// How long a record is remembered, where its operation does not say. 1 ms to 366 days.
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// What the window counts from, where the operation does not say.
    pub fn window_from(mut self, from: WindowFrom) -> Self {
        self.window_from = from;
        self
    }

    /// How long a ticket is trusted without a sign of life, where its operation does not say. 1 ms
    /// to 366 days. A dropped ticket and a restart are noticed at once, whatever the lease.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// When a write counts as done.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Whether owners outlive the process.
    pub fn owner(mut self, owner: Owner) -> Self {
        self.owner = owner;
        self
    }

    /// Whether raw projects and keys are stored, for [`Entry::project`](crate::Entry::project) and
    /// [`Entry::key`](crate::Entry::key). They often hold personal data; without them, only their
    /// keyed hashes are stored.
    pub fn keep_keys(mut self, keep: bool) -> Self {
        self.keep_keys = keep;
        self
    }

    /// Largest reply, in bytes; up to 1 GiB.
    pub fn max_reply_bytes(mut self, bytes: usize) -> Self {
        self.max_reply_bytes = bytes;
        self
    }

    /// What may wait to be committed, in bytes of records; past it, calls answer
    /// [`Busy`](crate::ErrorKind::Busy). A single record larger than this is taken when nothing
    /// else waits.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// Memory for the engine's page cache, in bytes. Each file that is written to gets an eighth of
    /// it, each sealed file a 128th.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Entries in each of the 256 shards of a generation's index before the next generation is
    /// begun; at least 8. The default keeps the file of a generation of plain claims below the size
    /// from which the engine leaves room in the middle of it when it is sealed.
    pub fn index_entries(mut self, entries: usize) -> Self {
        self.index_entries = entries;
        self
    }

    /// Bytes of records in a generation before the next is begun.
    pub fn generation_bytes(mut self, bytes: u64) -> Self {
        self.generation_bytes = bytes;
        self
    }

    /// Whether opening reads every sealed file whole and compares it with the hash that was taken
    /// when it was sealed: a page that has rotted is then found before anyone asks for it. Costs
    /// the time to read them, about a second for each gigabyte that is in the page cache. Without
    /// it, damage is found by the checksums of what is read.
    pub fn verify_on_open(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Has time come from a clock that a test moves.
    pub fn clock(mut self, clock: &ManualClock) -> Self {
        self.clock = Source::Manual(clock.clone());
        self
    }

    /// What events and metrics call this store: the field and label `store`. The last part of its
    /// path where nothing is said, `memory` for one in memory. Name each, where a process has
    /// several; nothing personal, for it is shown wherever logs and metrics go.
    ///
    /// With the feature `tracing` or `metrics`.
    #[cfg(any(feature = "tracing", feature = "metrics"))]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.observed.name = Some(name.into());
        self
    }

    /// From when on a commit is told of as a `slow_commit`: 250 ms where nothing is said. Zero
    /// tells of each.
    ///
    /// With the feature `tracing`.
    #[cfg(feature = "tracing")]
    pub fn slow_commit(mut self, from: Duration) -> Self {
        self.observed.slow_commit = from;
        self
    }

    /// Opens the store in a directory, which is made if it is absent. Blocks: it reads back what
    /// is remembered, 0.8 s a million records on a 2-core machine.
    ///
    /// # Errors
    /// [`AlreadyOpen`](crate::ErrorKind::AlreadyOpen),
    /// [`NotAStore`](crate::ErrorKind::NotAStore), [`Io`](crate::ErrorKind::Io),
    /// [`Incompatible`](crate::ErrorKind::Incompatible), [`Corrupt`](crate::ErrorKind::Corrupt),
    /// each naming the path; [`Invalid`](crate::ErrorKind::Invalid) naming the option.
    pub fn open(mut self, path: impl AsRef<Path>) -> Result<Store, Error> {
        let path = path.as_ref();
        self.observed.name_after(path);
        self.check()?;
        let disk = Disk::at(path).map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotADirectory {
                let message =
                    format!("{} is not a directory: give a new or empty one", path.display());
                Error::new(ErrorKind::NotAStore, message).with_source(error)
            } else {
                Error::io(path.display(), error)
            }
        })?;
        self.open_in(Arc::new(disk))
    }

    /// Opens a store that nobody has open, and leaves its files as they are: what this run of it
    /// changes stays in memory and is gone when it is closed. For looking into a closed store: what
    /// was in flight shows as lapsed, as after a restart. Takes the lock, whose file is made if it
    /// is absent, so nobody else can open the store meanwhile. Blocks as [`open`](Options::open)
    /// does, and takes memory for what opening repairs, seals and clears away.
    ///
    /// ```
    /// use justonce::{Operation, Options, Store};
    ///
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("dedupe");
    /// let store = Store::open(&path)?;
    /// store.record_once(Operation::new("acme", "a")).wait()?;
    /// store.close().wait()?;
    ///
    /// let looked_at = Options::new().open_unchanged(&path)?;
    /// assert!(looked_at.lookup("acme", "a").wait()?.is_some());
    /// assert!(looked_at.record_once(Operation::new("acme", "b")).wait()?);
    /// drop(looked_at);
    ///
    /// assert!(Store::open(&path)?.lookup("acme", "b").wait()?.is_none());
    /// # Ok::<(), justonce::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`open`](Options::open); [`NotAStore`](crate::ErrorKind::NotAStore) where there is
    /// none.
    pub fn open_unchanged(self, path: impl AsRef<Path>) -> Result<Store, Error> {
        let path = path.as_ref();
        if !path.join(MANIFEST).is_file() {
            let message = format!("{} holds no store: give a store's directory", path.display());
            return Err(Error::new(ErrorKind::NotAStore, message));
        }
        let directory = Unchanged::at(path).map_err(|error| Error::io(path.display(), error))?;
        self.open_in(Arc::new(directory))
    }

    /// Opens a store that is nowhere but in memory: the same engine, gone when it is closed.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), naming the option.
    pub fn in_memory(self) -> Result<Store, Error> {
        self.open_in(Arc::new(Memory::default()))
    }

    /// Opens the store in whatever stands for a directory: the seam by which tests fail and lose
    /// what a disk can fail and lose.
    #[doc(hidden)]
    pub fn open_in(self, directory: Arc<dyn Directory>) -> Result<Store, Error> {
        self.check()?;
        let options = EngineOptions {
            defaults: Defaults {
                window: self.window,
                window_from: self.window_from,
                lease: self.lease,
                keep_keys: self.keep_keys,
            },
            durability: self.durability,
            owners_survive_restart: self.owner == Owner::External,
            max_reply_bytes: self.max_reply_bytes,
            cache_bytes: self.cache_bytes,
            limits: Limits {
                queue_bytes: self.queue_bytes,
                generation_bytes: self.generation_bytes,
            },
            index: IndexLimits { entries_per_shard: self.index_entries, tag_mask: self.tag_mask },
            clock: self.clock,
            verify: self.verify,
            observer: self.observed.observer(),
        };
        engine::open(directory, options).map(Store::over)
    }

    /// Keeps fewer bits of each tag, so that operations come to share them.
    #[doc(hidden)]
    pub fn tag_bits(mut self, bits: u32) -> Self {
        self.tag_mask = u32::MAX.checked_shr(u32::BITS - bits.min(u32::BITS)).unwrap_or(0);
        self
    }

    fn check(&self) -> Result<(), Error> {
        checked_duration("the window", self.window)?;
        checked_duration("the lease", self.lease)?;
        if let Durability::Relaxed { within } = self.durability {
            checked_duration("the time to commit within", within)?;
        }
        if self.max_reply_bytes > MAX_REPLY_BYTES {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "max_reply_bytes is {}: give at most {MAX_REPLY_BYTES}",
                    self.max_reply_bytes
                ),
            ));
        }
        if self.index_entries < MIN_INDEX_ENTRIES {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "index_entries is {}: give at least {MIN_INDEX_ENTRIES}",
                    self.index_entries
                ),
            ));
        }
        Ok(())
    }
}

impl Default for Options {
    fn default() -> Self {
        Options::new()
    }
}
