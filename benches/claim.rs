//! What a claim costs: fresh and durable, by how many are in flight; and as a duplicate.
//!
//! `raw log` is the limit to compare with: a loop that appends batches of the same size to a plain
//! file, one `fdatasync` each. Compare within one run; disks and neighbours differ by the minute.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a benchmark that fails should stop")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use justonce::{Claim, Operation, Store};

const TASKS: [u64; 2] = [64, 1024];
const THREADS: [u64; 2] = [1, 64];

/// Bytes of a plain claim record, as docs/format.md has it.
const RECORD_BYTES: usize = 78;

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
        Operation::new("bench", next_key.fetch_add(1, Ordering::Relaxed).to_le_bytes())
    }

    /// Claims `total` fresh keys from so many threads and says how long it took.
    fn claim_from_threads(&self, threads: u64, total: u64) -> Duration {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || {
                    for _ in 0..share(total, threads, thread) {
                        keep(self.store.claim(Bench::fresh(&self.next_key)).wait().unwrap());
                    }
                });
            }
        });
        started.elapsed()
    }

    /// Claims `total` fresh keys from so many tasks on two workers.
    fn claim_from_tasks(
        &self,
        runtime: &tokio::runtime::Runtime,
        tasks: u64,
        total: u64,
    ) -> Duration {
        let started = Instant::now();
        let running: Vec<_> = (0..tasks)
            .map(|task| {
                let (store, next_key) = (self.store.clone(), Arc::clone(&self.next_key));
                runtime.spawn(async move {
                    for _ in 0..share(total, tasks, task) {
                        keep(store.claim(Bench::fresh(&next_key)).await.unwrap());
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

/// The part of `total` that one of `of` does.
fn share(total: u64, of: u64, index: u64) -> u64 {
    total / of + u64::from(index < total % of)
}

/// Leaves the operation in flight, as work that goes on would: a ticket that is dropped gives its
/// operation up, and a token costs a hash.
fn keep(claim: Claim) {
    match claim {
        Claim::New(ticket) => std::mem::forget(ticket),
        other => panic!("a fresh key is new: {other:?}"),
    }
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

fn fresh(criterion: &mut Criterion) {
    let bench = Bench::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let mut group = criterion.benchmark_group("fresh claim");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    for threads in THREADS {
        let before = bench.store.stats();
        group.bench_function(format!("{threads} threads"), |bencher| {
            bencher.iter_custom(|total| bench.claim_from_threads(threads, total));
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
            bencher.iter_custom(|total| bench.claim_from_tasks(&runtime, tasks, total));
        });
        let rows = bench.rows_a_batch(before);
        group.bench_function(format!("raw log for {tasks} tasks ({rows} a batch)"), |bencher| {
            bencher.iter_custom(|total| append_raw(bench.directory.path(), rows, total));
        });
    }
    group.finish();
}

fn duplicate(criterion: &mut Criterion) {
    let bench = Bench::new();
    let operation = || Operation::new("bench", "ticket-842-classification");
    let claim = || bench.store.claim(operation()).wait().unwrap();
    let Claim::New(ticket) = claim() else { panic!("a fresh key is new") };
    let mut group = criterion.benchmark_group("duplicate");
    group.bench_function("in flight", |bencher| bencher.iter(|| black_box(claim())));
    ticket.complete(vec![7; 2048]).wait().unwrap();
    group.bench_function("completed, 2 KiB", |bencher| bencher.iter(|| black_box(claim())));
    let id = claim().request_id();
    group.bench_function("lookup by request id", |bencher| {
        bencher.iter(|| black_box(bench.store.lookup_request(id).wait().unwrap()));
    });
    group.finish();
}

criterion_group!(benches, duplicate, fresh);
criterion_main!(benches);
