//! What each part of a claim costs by itself: ids, decisions, bytes, index, filters, batch, file.
//!
//! The parts are set up as in a store at work, in memory, and by one thread. `benches/claim.rs` has
//! the whole.

#![expect(clippy::unwrap_used, reason = "a benchmark that fails should stop")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use justonce::RequestId;
use justonce::parts::{Decisions, FillingBatch, Filters, Identity, Log, Row, ShardIndex};

const REPLY: [u8; 2048] = [7; 2048];
const KEY: &[u8] = b"ticket-842-classification";

/// Entries of a shard's index when its generation is full.
const FULL: u32 = 12_800;

/// Generations whose filters stand side by side.
const GENERATIONS: u32 = 16;

/// Rows appended to a batch before another is begun.
const ROWS: usize = 1024;

fn identity(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("identity");
    let identity = Identity::of([7; 32]);
    let long = [b'k'; 1024];
    group.bench_function("operation id", |bencher| {
        bencher.iter(|| identity.operation(black_box(b"acme"), black_box(KEY)));
    });
    group.bench_function("operation id, key of 1 KiB", |bencher| {
        bencher.iter(|| identity.operation(black_box(b"acme"), black_box(&long)));
    });
    group.bench_function("project id, the same as before", |bencher| {
        bencher.iter(|| identity.project(black_box(b"acme")));
    });
    group.bench_function("fingerprint of 2 KiB", |bencher| {
        bencher.iter(|| Identity::fingerprint(black_box(&REPLY)));
    });
    let id: RequestId = "rr_064K72CQR0G7ZC2Q4WQ5KQ2XWZ0BV0J8QW3G".parse().unwrap();
    let text = id.to_string();
    group.bench_function("request id to text", |bencher| bencher.iter(|| id.to_string()));
    group.bench_function("request id from text", |bencher| {
        bencher.iter(|| black_box(&text).parse::<RequestId>().unwrap());
    });
    group.finish();
}

fn transition(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("transition");
    let decisions = Decisions::with_reply(REPLY.to_vec());
    group.bench_function("claim, absent", |bencher| bencher.iter(|| decisions.claim_absent()));
    group.bench_function("claim, in flight", |bencher| {
        bencher.iter(|| decisions.claim_in_flight());
    });
    group.bench_function("claim, completed", |bencher| {
        bencher.iter(|| decisions.claim_completed());
    });
    let body = REPLY.to_vec().into();
    group.bench_function("complete, 2 KiB", |bencher| bencher.iter(|| decisions.complete(&body)));
    group.finish();
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    for (name, row) in
        [("a claim", Row::in_flight()), ("a reply of 2 KiB", Row::completed(REPLY.to_vec()))]
    {
        let mut out = Vec::new();
        group.bench_function(format!("write {name}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                row.write(&mut out);
                out.len()
            });
        });
        group.bench_function(format!("read {name}"), |bencher| bencher.iter(|| row.read()));
        group.bench_function(format!("glance at {name}"), |bencher| bencher.iter(|| row.glance()));
    }
    group.finish();
}

fn shard(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shard");
    let half_full = || ShardIndex::filled(FULL / 2, FULL as usize);
    group.bench_function("place a fresh operation", |bencher| {
        bencher.iter_batched_ref(
            half_full,
            |index| (0..ROWS).for_each(|_| index.place()),
            BatchSize::SmallInput,
        );
    });
    let mut index = half_full();
    let mut number = 0;
    let mut next = move || {
        number = (number + 4099) % (FULL / 2);
        number
    };
    group.bench_function("find", |bencher| bencher.iter(|| index.find(next())));
    group.bench_function("find nothing", |bencher| bencher.iter(|| index.find(FULL + next())));
    group.bench_function("replace", |bencher| bencher.iter(|| index.replace(next())));
    group.finish();
}

fn filter(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("filter");
    group.bench_function("build, 12,800 entries", |bencher| {
        bencher.iter(|| Filters::build(0, FULL).unwrap());
    });
    let filters = Filters::build(GENERATIONS, FULL).unwrap();
    let mut number = GENERATIONS * FULL;
    let mut absent = move || {
        number = number.wrapping_add(1);
        number
    };
    group.bench_function("one, an entry that is there", |bencher| {
        bencher.iter(|| filters.may_have(black_box(842)));
    });
    group.bench_function("one, nothing", |bencher| bencher.iter(|| filters.may_have(absent())));
    group.bench_function("sixteen side by side, nothing", |bencher| {
        bencher.iter(|| filters.probe(absent()));
    });
    group.finish();
}

fn batch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch");
    group.bench_function("append 1,024 claims", |bencher| {
        bencher.iter_batched_ref(
            FillingBatch::empty,
            |batch| (0..ROWS).for_each(|_| batch.push()),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn snapshot(criterion: &mut Criterion) {
    const LOG_ROWS: u32 = 100_000;
    let mut group = criterion.benchmark_group("snapshot");
    let log = Log::filled(LOG_ROWS).unwrap();
    let mut row = 0;
    group.bench_function("read one of 100,000 rows", |bencher| {
        bencher.iter(|| {
            row = (row + 40_009) % LOG_ROWS;
            log.read(row).unwrap()
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2));
    targets = identity, transition, codec, shard, filter, batch, snapshot
}
criterion_main!(benches);
