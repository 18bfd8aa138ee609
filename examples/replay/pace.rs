//! Time: that of the trace, pressed together, and how a thread or a task waits for it.
//!
//! The only place that reads a clock.

#![expect(clippy::disallowed_methods, reason = "an example runs in real time")]

use std::time::{Duration, Instant};

use justonce::{Claim, Entry, Error, Flight, Pending, Settled};

/// Shortest lease: a pause of a busy machine is shorter.
const MIN_LEASE: Duration = Duration::from_secs(1);

/// A point in time, to measure from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Since(Instant);

impl Since {
    pub(crate) fn now() -> Self {
        Since(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    pub(crate) fn elapsed_micros(self) -> u64 {
        u64::try_from(self.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// How the time of the trace passes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    started: Instant,
    from: Duration,
    speed: f64,
}

impl Pace {
    /// Starts now, at `from` in the trace.
    pub(crate) fn new(from: Duration, speed: f64) -> Self {
        Pace { started: Instant::now(), from, speed }
    }

    /// A span of the trace in real time.
    pub(crate) fn real(&self, span: Duration) -> Duration {
        span.div_f64(self.speed)
    }

    /// How long it is until a time of the trace; zero where it is past.
    pub(crate) fn until(&self, at: Duration) -> Duration {
        self.real(at.saturating_sub(self.from)).saturating_sub(self.started.elapsed())
    }

    /// The lease of an owner, in real time: two and a half minutes of the trace.
    pub(crate) fn lease(&self) -> Duration {
        lease(self.speed)
    }
}

pub(crate) fn lease(speed: f64) -> Duration {
    Duration::from_secs(150).div_f64(speed).max(MIN_LEASE)
}

/// How a caller waits: a thread blocks, a task is suspended. The rest of the gateway is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    Thread,
    Task,
}

impl Caller {
    pub(crate) async fn claim(self, claim: Pending<Claim>) -> Result<Claim, Error> {
        match self {
            Caller::Thread => claim.wait(),
            Caller::Task => claim.await,
        }
    }

    pub(crate) async fn write(self, write: Pending<()>) -> Result<(), Error> {
        match self {
            Caller::Thread => write.wait(),
            Caller::Task => write.await,
        }
    }

    pub(crate) async fn entry(self, entry: Pending<Option<Entry>>) -> Result<Option<Entry>, Error> {
        match self {
            Caller::Thread => entry.wait(),
            Caller::Task => entry.await,
        }
    }

    /// A thread waits up to `patience`, a task for as long as it takes.
    pub(crate) async fn flight(self, flight: Flight, patience: Duration) -> Result<Settled, Error> {
        match self {
            Caller::Thread => flight.wait(patience),
            Caller::Task => flight.await,
        }
    }

    pub(crate) async fn pause(self, pause: Duration) {
        match self {
            Caller::Task => tokio::time::sleep(pause).await,
            Caller::Thread => {
                let started = Instant::now();
                // Parking may end early.
                while let Some(left) = pause.checked_sub(started.elapsed()) {
                    std::thread::park_timeout(left.max(Duration::from_micros(1)));
                }
            }
        }
    }
}
