//! What the whole costs: claims of fresh keys and completions, durable, by how many are in flight;
//! duplicates and look-ups.
//!
//! `raw log` is the limit to compare with: a loop that appends batches of the same size to a plain
//! file, one `fdatasync` each. Compare within one run; disks and neighbours differ by the minute.
//! `benches/parts.rs` has the parts, `benches/peers` other ways to keep such a table.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a benchmark that fails should stop")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::fs::OpenOptions;
use std::future::Future;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use justonce::{Claim, Error, Operation, Options, RequestId, Store, Ticket};

const TASKS: [u64; 3] = [64, 1024, 8192];
const THREADS: [u64; 5] = [1, 4, 16, 64, 256];
const MANY: [u64; 3] = [100, 1000, 10_000];

/// Bytes of a plain claim record, as docs/format.md has it.
const RECORD_BYTES: usize = 78;

const REPLY: [u8; 2048] = [7; 2048];

/// Completed operations, 2 KiB each, of which any may be asked for.
const COMPLETED: u64 = 20_000;

/// The least a store caches: of what is asked for, next to nothing.
const FEW_CACHE_BYTES: usize = 1 << 20;

/// A store on disk, and numbers for keys never used before.
struct Bench {
    directory: tempfile::TempDir,
    store: Store,
    next_key: Arc<AtomicU64>,
}

impl Bench {
    fn new() -> Self {
        // Beside the sources: a temporary directory is often in memory, where a sync costs nothing.
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        Bench { directory, store, next_key: Arc::default() }
    }

    fn fresh(next_key: &AtomicU64) -> Operation {
        numbered(next_key.fetch_add(1, Ordering::Relaxed))
    }

    /// Has so many threads make `total` calls and says how long it took.
    fn with_threads(&self, threads: u64, total: u64, call: impl Fn(Operation) + Sync) -> Duration {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let call = &call;
                scope.spawn(move || {
                    for _ in 0..share(total, threads, thread) {
                        call(Bench::fresh(&self.next_key));
                    }
                });
            }
        });
        started.elapsed()
    }

    /// The same with tasks, on two workers.
    fn with_tasks<F: Future<Output = ()> + Send>(
        &self,
        runtime: &tokio::runtime::Runtime,
        tasks: u64,
        total: u64,
        call: impl Fn(Store, Operation) -> F + Copy + Send + 'static,
    ) -> Duration {
        let started = Instant::now();
        let running: Vec<_> = (0..tasks)
            .map(|task| {
                let (store, next_key) = (self.store.clone(), Arc::clone(&self.next_key));
                runtime.spawn(async move {
                    for _ in 0..share(total, tasks, task) {
                        call(store.clone(), Bench::fresh(&next_key)).await;
                    }
                })
            })
            .collect();
        for task in running {
            runtime.block_on(task).unwrap();
        }
        started.elapsed()
    }

    /// Records a batch since an earlier count of both.
    fn rows_a_batch(&self, before: justonce::Stats) -> u64 {
        let now = self.store.stats().commits;
        let batches = (now.batches - before.commits.batches).max(1);
        ((now.records - before.commits.records) / batches).max(1)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Tickets that are kept hold it open.
        self.store.close().wait().unwrap();
    }
}

fn numbered(number: u64) -> Operation {
    Operation::new("bench", number.to_le_bytes())
}

/// The part of `total` that one of `of` does.
fn share(total: u64, of: u64, index: u64) -> u64 {
    total / of + u64::from(index < total % of)
}

fn new(claim: Claim) -> Ticket {
    match claim {
        Claim::New(ticket) => ticket,
        other => panic!("a fresh key is new: {other:?}"),
    }
}

/// Leaves the operation in flight, as work that goes on would: a ticket that is dropped gives its
/// operation up, and a token costs a hash.
fn keep(ticket: Ticket) {
    std::mem::forget(ticket);
}

fn append_raw(directory: &Path, rows_a_batch: u64, total: u64) -> Duration {
    let path = directory.join("raw");
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    let batch = vec![7; RECORD_BYTES * usize::try_from(rows_a_batch).unwrap()];
    let started = Instant::now();
    for _ in 0..total.div_ceil(rows_a_batch) {
        file.write_all(&batch).unwrap();
        file.sync_data().unwrap();
    }
    started.elapsed()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap()
}

fn fresh(criterion: &mut Criterion) {
    let (bench, runtime) = (Bench::new(), runtime());
    let mut group = criterion.benchmark_group("fresh claim");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    for threads in THREADS {
        let before = bench.store.stats();
        group.bench_function(format!("{threads} threads"), |bencher| {
            bencher.iter_custom(|total| {
                bench.with_threads(threads, total, |operation| {
                    keep(new(bench.store.claim(operation).wait().unwrap()));
                })
            });
        });
        let rows = bench.rows_a_batch(before);
        group.bench_function(
            format!("raw log for {threads} threads ({rows} a batch)"),
            |bencher| {
                bencher.iter_custom(|total| append_raw(bench.directory.path(), rows, total));
            },
        );
    }
    for tasks in TASKS {
        let before = bench.store.stats();
        group.bench_function(format!("{tasks} tasks"), |bencher| {
            bencher.iter_custom(|total| {
                bench.with_tasks(&runtime, tasks, total, |store, operation| async move {
                    keep(new(store.claim(operation).await.unwrap()));
                })
            });
        });
        let rows = bench.rows_a_batch(before);
        group.bench_function(format!("raw log for {tasks} tasks ({rows} a batch)"), |bencher| {
            bencher.iter_custom(|total| append_raw(bench.directory.path(), rows, total));
        });
    }
    group.finish();
}

fn many(criterion: &mut Criterion) {
    let bench = Bench::new();
    let mut group = criterion.benchmark_group("claim_many");
    group.sample_size(10);
    for count in MANY {
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("{count} fresh"), |bencher| {
            bencher.iter(|| {
                let operations = (0..count).map(|_| Bench::fresh(&bench.next_key));
                let claims = bench.store.claim_many(operations).wait().unwrap();
                claims.into_iter().map(new).for_each(keep);
            });
        });
    }
    group.finish();
}

fn completion(criterion: &mut Criterion) {
    let (bench, runtime) = (Bench::new(), runtime());
    let mut group = criterion.benchmark_group("claim and complete, 2 KiB");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    for threads in [1, 64] {
        group.bench_function(format!("{threads} threads"), |bencher| {
            bencher.iter_custom(|total| {
                bench.with_threads(threads, total, |operation| {
                    let ticket = new(bench.store.claim(operation).wait().unwrap());
                    ticket.complete(REPLY.to_vec()).wait().unwrap();
                })
            });
        });
    }
    group.bench_function("1024 tasks", |bencher| {
        bencher.iter_custom(|total| {
            bench.with_tasks(&runtime, 1024, total, |store, operation| async move {
                let ticket = new(store.claim(operation).await.unwrap());
                ticket.complete(REPLY.to_vec()).await.unwrap();
            })
        });
    });
    group.finish();
}

fn duplicate(criterion: &mut Criterion) {
    let bench = Bench::new();
    let operation = || Operation::new("bench", "ticket-842-classification");
    let claim = || bench.store.claim(operation()).wait().unwrap();
    let ticket = new(claim());
    let mut group = criterion.benchmark_group("duplicate");
    group.bench_function("in flight", |bencher| bencher.iter(|| black_box(claim())));
    ticket.complete(REPLY.to_vec()).wait().unwrap();
    group.bench_function("completed, 2 KiB, hot", |bencher| bencher.iter(|| black_box(claim())));
    let id = claim().request_id();
    group.bench_function("lookup by request id, hot", |bencher| {
        bencher.iter(|| black_box(bench.store.lookup_request(id).wait().unwrap()));
    });

    // Cold for the store, whose cache holds next to none of them; the system's may. Past that, the
    // disk: `benches/peers` asks it.
    let cold = bench.directory.path().join("cold");
    let open = || Options::new().cache_bytes(FEW_CACHE_BYTES).open(&cold).unwrap();
    let ids = complete_all(&open()).unwrap();
    let store = open();
    let mut next = 0;
    let mut any = move || {
        next = (next + 7919) % COMPLETED;
        next
    };
    group.bench_function("completed, 2 KiB, cold", |bencher| {
        bencher.iter(|| match store.claim(numbered(any())).wait().unwrap() {
            Claim::Completed(reply) => black_box(reply),
            other => panic!("a completed key is completed: {other:?}"),
        });
    });
    group.bench_function("lookup by request id, cold", |bencher| {
        bencher.iter(|| {
            let id = ids[usize::try_from(any()).unwrap()];
            black_box(store.lookup_request(id).wait().unwrap().unwrap())
        });
    });
    group.finish();
}

/// Completes all operations and closes the store.
fn complete_all(store: &Store) -> Result<Vec<RequestId>, Error> {
    let mut ids = Vec::new();
    let mut completed = Vec::new();
    for claim in store.claim_many((0..COMPLETED).map(numbered)).wait()? {
        ids.push(claim.request_id());
        completed.push(new(claim).complete(REPLY.to_vec()));
    }
    completed.into_iter().try_for_each(justonce::Pending::wait)?;
    store.close().wait()?;
    Ok(ids)
}

criterion_group!(benches, duplicate, many, completion, fresh);
criterion_main!(benches);
