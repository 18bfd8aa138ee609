//! The worker: 64 threads and 1,000 tasks at one store, for a while or until it is killed.
//!
//! Two kinds of keys: those of a day, whose replies are told to the books, and those of seconds,
//! whose generations fill, are sealed and go. Several ask for each key at a time; who finds it in
//! flight waits, up to a time-out of its own.

#![expect(clippy::disallowed_methods, reason = "an example runs in real time")]

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use justonce::{Claim, Error as StoreError, Operation, Options, Pending, Store};

use crate::chance;

const THREADS: u64 = 64;
const TASKS: u64 = 1_000;

/// How long a caller waits for an owner, and how much later its answer may come.
const PATIENCE: Duration = Duration::from_millis(500);
const SLACK: Duration = Duration::from_secs(5);

const LEASE: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(3);
const KEPT: Duration = Duration::from_hours(24);

struct Worker {
    store: Store,
    run: u64,
    life: Duration,
    started: Instant,
    next: AtomicU64,
    late_millis: AtomicU64,
}

/// How a caller waits.
#[derive(Debug, Clone, Copy)]
enum Caller {
    Thread,
    Task,
}

impl Caller {
    async fn claim(self, claim: Pending<Claim>) -> Result<Claim, StoreError> {
        match self {
            Caller::Thread => claim.wait(),
            Caller::Task => claim.await,
        }
    }

    async fn act(self, act: Pending<()>) -> Result<(), StoreError> {
        match self {
            Caller::Thread => act.wait(),
            Caller::Task => act.await,
        }
    }

    async fn pause(self, pause: Duration) {
        match self {
            Caller::Thread => std::thread::park_timeout(pause),
            Caller::Task => tokio::time::sleep(pause).await,
        }
    }
}

pub(crate) fn run(path: &Path, run: u64, life: Duration) -> Result<(), Box<dyn Error>> {
    let store = Options::new()
        .window(WINDOW)
        .lease(LEASE)
        .index_entries(16)
        .generation_bytes(1 << 20)
        .cache_bytes(8 << 20)
        .open(path)?;
    let worker = Arc::new(Worker {
        store: store.clone(),
        run,
        life,
        started: Instant::now(),
        next: AtomicU64::new(0),
        late_millis: AtomicU64::new(0),
    });
    let mut threads = Vec::new();
    for number in 0..THREADS {
        let worker = Arc::clone(&worker);
        let client = std::thread::Builder::new().name(format!("client-{number}"));
        threads.push(client.spawn(move || {
            futures_lite::future::block_on(worker.serve(Caller::Thread));
        })?);
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let worker = Arc::clone(&worker);
            runtime.spawn(async move { worker.serve(Caller::Task).await })
        })
        .collect();
    while worker.started.elapsed() < life {
        tell(&worker.figures(path));
        std::thread::park_timeout(Duration::from_millis(500));
    }
    for thread in threads {
        thread.join().map_err(|_| "a client thread panicked")?;
    }
    for task in tasks {
        runtime.block_on(task)?;
    }
    let stats = store.stats();
    let late = worker.late_millis.load(Ordering::SeqCst);
    tell(&format!("left {} {} {late}", stats.waiters, stats.queued_bytes));
    drop(worker);
    store.close().wait()?;
    Ok(())
}

impl Worker {
    async fn serve(&self, caller: Caller) {
        while self.started.elapsed() < self.life {
            if let Err(error) = self.call(caller).await {
                give_up(&error);
            }
            if matches!(caller, Caller::Task) {
                caller.pause(Duration::from_millis(200)).await;
            }
        }
    }

    /// One call for one key, of which about four are made at a time, and some long after.
    async fn call(&self, caller: Caller) -> Result<(), StoreError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let drawn = chance(number ^ (self.run << 40));
        // Runs have keys in common: a later one finds what an earlier one left.
        let is_kept = number.is_multiple_of(32);
        let (project, key, window) = if is_kept {
            ("kept", drawn % 5_000, KEPT)
        } else {
            ("brief", (self.run << 40) + number / 4, WINDOW)
        };
        let key = key.to_string();
        let operation = Operation::new(project, &key).window(window);
        let asked = Instant::now();
        let claim = caller.claim(self.store.claim_or_wait(operation, PATIENCE)).await?;
        let late = asked.elapsed().saturating_sub(PATIENCE + SLACK);
        let late = u64::try_from(late.as_millis()).unwrap_or(u64::MAX);
        self.late_millis.fetch_max(late, Ordering::SeqCst);
        let ticket = match claim {
            Claim::New(ticket) => {
                if is_kept {
                    tell(&format!("new {key}"));
                }
                ticket
            }
            Claim::Resumed(ticket, _) => ticket,
            Claim::Completed(reply) if is_kept => {
                tell(&format!("shown {key} {}", String::from_utf8_lossy(reply.body())));
                return Ok(());
            }
            _ => return Ok(()),
        };
        let body = format!("{}-{}", ticket.fence(), ticket.attempt());
        tell(&format!("won {}", ticket.fence()));
        match drawn >> 56 {
            0..16 => drop(ticket),
            16..32 => caller.act(ticket.release("busy")).await?,
            // Detached and left: its lease has to end it.
            32..36 if !is_kept => drop(ticket.detach()),
            how => {
                if how < 80 {
                    caller.pause(Duration::from_millis(drawn % 50)).await;
                }
                match caller.act(ticket.complete(body.clone())).await {
                    Ok(()) if is_kept => tell(&format!("replied {key} {body}")),
                    Err(error) if error.kind() != justonce::ErrorKind::LeaseLost => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn figures(&self, path: &Path) -> String {
        let stats = self.store.stats();
        let resident = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: u64 =
            resident.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
        let count = |path: &Path| std::fs::read_dir(path).map_or(0, Iterator::count);
        format!(
            "figures {} {} {} {} {} {} {}",
            self.started.elapsed().as_secs(),
            pages * 4096 / 1_000_000,
            count(path),
            count(Path::new("/proc/self/fd")),
            count(Path::new("/proc/self/task")),
            stats.waiters,
            stats.queued_bytes / 1000,
        )
    }
}

/// A line for the books, whole and at once.
fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        // Nobody keeps the books any more.
        std::process::exit(1);
    }
}

#[expect(clippy::print_stderr, reason = "the last words of a process")]
fn give_up(error: &StoreError) {
    eprintln!("the store: {error}");
    std::process::exit(1);
}
