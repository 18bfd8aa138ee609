//! Time: the only file that asks the operating system for it.
//!
//! The store counts unsigned milliseconds since the Unix epoch. Within a run they come from a
//! monotonic source and never step; across runs they never go back behind the last time the store
//! has written ([`StoreClock::start`] takes it as an argument). All deadlines of the store's own
//! (windows, leases, waits) are counted in them, so a [`ManualClock`] moves everything at once.

mod timers;

pub(crate) use timers::{Timer, Timers};

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::sync::{Arc, AtomicU64, Mutex, Ordering, Weak};

/// A clock that moves only when told to: for tests of windows and leases.
///
/// Clones share one time. Moving it wakes everyone whose deadline has passed.
///
/// ```
/// use std::time::Duration;
/// use justonce::{Claim, ManualClock, Operation, Options};
///
/// let clock = ManualClock::new();
/// let store = Options::new().window(Duration::from_secs(60)).clock(&clock).in_memory()?;
/// assert!(store.record_once(Operation::new("acme", "evt_1")).wait()?);
/// assert!(!store.record_once(Operation::new("acme", "evt_1")).wait()?);
/// clock.advance(Duration::from_secs(61));
/// assert!(store.record_once(Operation::new("acme", "evt_1")).wait()?);
/// # Ok::<(), justonce::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Manual>);

#[derive(Debug)]
struct Manual {
    monotonic_millis: AtomicU64,
    wall_millis: AtomicU64,
    listeners: Mutex<Vec<Weak<Timers>>>,
}

impl ManualClock {
    /// A clock that stands at 2020-01-01T00:00:00Z.
    #[must_use]
    pub fn new() -> Self {
        const START_MILLIS: u64 = 1_577_836_800_000;
        ManualClock(Arc::new(Manual {
            monotonic_millis: AtomicU64::new(0),
            wall_millis: AtomicU64::new(START_MILLIS),
            listeners: Mutex::new(Vec::new()),
        }))
    }

    /// Moves time on, in whole milliseconds and no further than they can be counted, and wakes what
    /// was waiting for it.
    pub fn advance(&self, by: Duration) {
        let later = |now: u64| Some(now.saturating_add(millis_of(by)));
        for hand in [&self.0.monotonic_millis, &self.0.wall_millis] {
            let _ = hand.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
        }
        let listeners: Vec<_> = {
            let mut listeners = self.0.listeners.lock();
            listeners.retain(|listener| listener.strong_count() > 0);
            listeners.iter().filter_map(Weak::upgrade).collect()
        };
        for timers in listeners {
            timers.time_moved();
        }
    }

    /// Sets the wall clock alone, forwards or back, as an operator or NTP would. A store that is
    /// open does not notice; one opened later does.
    pub fn set_wall(&self, to: SystemTime) {
        self.0.wall_millis.store(unix_millis(to), Ordering::SeqCst);
    }

    /// What the wall clock says.
    #[must_use]
    pub fn wall(&self) -> SystemTime {
        system_time(self.0.wall_millis.load(Ordering::SeqCst))
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        ManualClock::new()
    }
}

impl From<&ManualClock> for ManualClock {
    fn from(clock: &ManualClock) -> Self {
        clock.clone()
    }
}

/// Where time comes from.
#[derive(Debug, Clone, Default)]
pub(crate) enum Source {
    #[default]
    System,
    Manual(ManualClock),
}

/// The store's own time, from opening to closing.
#[derive(Debug)]
pub(crate) struct StoreClock {
    source: Source,
    started: Instant,
    started_manual_millis: u64,
    base_millis: u64,
    skew_millis: u64,
}

impl StoreClock {
    /// Starts at the wall clock, or at `not_before_millis` where the wall clock has gone back
    /// behind what the store remembers.
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
    pub(crate) fn start(source: Source, not_before_millis: u64) -> Self {
        let (wall_millis, started_manual_millis) = match &source {
            Source::System => (unix_millis(SystemTime::now()), 0),
            Source::Manual(ManualClock(manual)) => (
                manual.wall_millis.load(Ordering::SeqCst),
                manual.monotonic_millis.load(Ordering::SeqCst),
            ),
        };
        StoreClock {
            started: Instant::now(),
            started_manual_millis,
            base_millis: if cfg!(planted = "stepped-back") {
                wall_millis
            } else {
                wall_millis.max(not_before_millis)
            },
            skew_millis: not_before_millis.saturating_sub(wall_millis),
            source,
        }
    }

    /// Milliseconds since the Unix epoch; never less than at an earlier call.
    pub(crate) fn now_millis(&self) -> u64 {
        let elapsed_millis = match &self.source {
            Source::System => millis_of(self.started.elapsed()),
            Source::Manual(ManualClock(manual)) => {
                manual.monotonic_millis.load(Ordering::SeqCst) - self.started_manual_millis
            }
        };
        self.base_millis.saturating_add(elapsed_millis)
    }

    /// How far the wall clock stood behind the store's last written time when it was opened.
    pub(crate) fn skew(&self) -> Duration {
        Duration::from_millis(self.skew_millis)
    }

    /// Tells `timers` when a manual clock moves; returns whether real time moves it as well.
    fn drive(&self, timers: &Arc<Timers>) -> bool {
        match &self.source {
            Source::System => true,
            Source::Manual(ManualClock(manual)) => {
                manual.listeners.lock().push(Arc::downgrade(timers));
                false
            }
        }
    }
}

/// Real time, for measuring and for a caller's own patience; not for anything that is stored.
#[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}

pub(crate) fn millis_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn system_time(unix_millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(unix_millis)
}

pub(crate) fn unix_millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, millis_of)
}
