//! How many instructions a hot path takes, counted by valgrind's callgrind: a measure that does not
//! depend on who else uses the machine.
//!
//! ```sh
//! apt-get install valgrind && cargo install gungraun-runner --version 0.20.0
//! RUSTFLAGS="--cfg instructions" CARGO_TARGET_DIR=target/instructions cargo bench --bench instructions
//! ```
//!
//! Without the `cfg` nothing is counted, and nothing is needed. A store is in memory here, so a
//! commit has no system calls; what its other threads do is not counted.

#[cfg(instructions)]
mod counted {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a benchmark that fails should stop")]

    use std::hint::black_box;

    use gungraun::{library_benchmark, library_benchmark_group};
    use justonce::parts::{Decisions, FillingBatch, Filters, Identity, Log, Row, ShardIndex};
    use justonce::{Claim, Operation, Options, Pending, Store, Ticket};

    const REPLY: [u8; 2048] = [7; 2048];
    const FULL: u32 = 12_800;

    /// Operations that a store has before anything is counted.
    const LIVE: u64 = 10_000;

    /// Claims that are submitted before the first is waited for.
    const MANY: u64 = 1024;

    #[library_benchmark]
    fn operation_id() -> [u8; 16] {
        Identity::of([7; 32]).operation(black_box(b"acme"), black_box(b"ticket-842-classification"))
    }

    #[library_benchmark]
    #[bench::of(Decisions::with_reply(REPLY.to_vec()))]
    fn transition_of_a_fresh_claim(decisions: Decisions) -> Decisions {
        black_box(decisions.claim_absent());
        decisions
    }

    #[library_benchmark]
    #[bench::of((Row::in_flight(), Vec::with_capacity(4096)))]
    fn write_a_claim((row, mut out): (Row, Vec<u8>)) -> (Row, Vec<u8>) {
        row.write(&mut out);
        (row, out)
    }

    #[library_benchmark]
    #[bench::claim(Row::in_flight())]
    #[bench::reply_of_2_kib(Row::completed(REPLY.to_vec()))]
    fn read(row: Row) -> Row {
        black_box(row.read());
        row
    }

    #[library_benchmark]
    #[bench::of(ShardIndex::filled(FULL / 2, FULL as usize))]
    fn place_in_a_shard(mut index: ShardIndex) -> ShardIndex {
        index.place();
        index
    }

    #[library_benchmark]
    #[bench::of(ShardIndex::filled(FULL / 2, FULL as usize))]
    fn find_in_a_shard(index: ShardIndex) -> ShardIndex {
        black_box(index.find(842));
        index
    }

    #[library_benchmark]
    #[bench::of(Filters::build(16, FULL).unwrap())]
    fn ask_sixteen_filters(filters: Filters) -> Filters {
        black_box(filters.probe(u32::MAX));
        filters
    }

    #[library_benchmark]
    #[bench::of(begun())]
    fn append_to_a_batch(mut batch: FillingBatch) -> FillingBatch {
        batch.push();
        batch
    }

    #[library_benchmark]
    #[bench::of(Log::filled(10_000).unwrap())]
    fn read_a_row_of_a_file(log: Log) -> Log {
        black_box(log.read(4242).unwrap());
        log
    }

    #[library_benchmark]
    #[bench::of(store())]
    fn fresh_claim_alone(store: Store) -> (Store, Ticket) {
        let ticket = new(store.claim(numbered(LIVE)).wait().unwrap());
        (store, ticket)
    }

    #[library_benchmark]
    #[bench::of(store())]
    fn fresh_claims_1024_in_a_batch(store: Store) -> (Store, Vec<Ticket>) {
        let all: Vec<Pending<Claim>> =
            (0..MANY).map(|number| store.claim(numbered(LIVE + number))).collect();
        let tickets = all.into_iter().map(|pending| new(pending.wait().unwrap())).collect();
        (store, tickets)
    }

    #[library_benchmark]
    #[bench::of(claimed())]
    fn complete_alone((store, ticket): (Store, Ticket)) -> Store {
        ticket.complete(REPLY.to_vec()).wait().unwrap();
        store
    }

    #[library_benchmark]
    #[bench::of(store())]
    fn duplicate_in_flight(store: Store) -> (Store, Claim) {
        let claim = store.claim(numbered(842)).wait().unwrap();
        (store, claim)
    }

    #[library_benchmark]
    #[bench::of(completed())]
    fn duplicate_completed_2_kib(store: Store) -> (Store, Claim) {
        let claim = store.claim(numbered(LIVE)).wait().unwrap();
        (store, claim)
    }

    library_benchmark_group!(
        name = parts,
        benchmarks = [
            operation_id,
            transition_of_a_fresh_claim,
            write_a_claim,
            read,
            place_in_a_shard,
            find_in_a_shard,
            ask_sixteen_filters,
            append_to_a_batch,
            read_a_row_of_a_file
        ]
    );

    library_benchmark_group!(
        name = whole,
        benchmarks = [
            fresh_claim_alone,
            fresh_claims_1024_in_a_batch,
            complete_alone,
            duplicate_in_flight,
            duplicate_completed_2_kib
        ]
    );

    fn numbered(number: u64) -> Operation {
        Operation::new("bench", number.to_le_bytes())
    }

    fn new(claim: Claim) -> Ticket {
        match claim {
            Claim::New(ticket) => ticket,
            other => panic!("a fresh key is new: {other:?}"),
        }
    }

    /// A batch that has rows, so that its buffers are there.
    fn begun() -> FillingBatch {
        let mut batch = FillingBatch::empty();
        (0..100).for_each(|_| batch.push());
        batch
    }

    /// A store in memory with operations in flight.
    fn store() -> Store {
        let store = Options::new().in_memory().unwrap();
        let claims = store.claim_many((0..LIVE).map(numbered)).wait().unwrap();
        claims.into_iter().map(new).for_each(std::mem::forget);
        store
    }

    fn claimed() -> (Store, Ticket) {
        let store = store();
        let ticket = new(store.claim(numbered(LIVE)).wait().unwrap());
        (store, ticket)
    }

    fn completed() -> Store {
        let (store, ticket) = claimed();
        ticket.complete(REPLY.to_vec()).wait().unwrap();
        store
    }
}

#[cfg(instructions)]
use counted::{parts, whole};

#[cfg(instructions)]
gungraun::main!(library_benchmark_groups = parts, whole);

#[cfg(not(instructions))]
#[expect(clippy::print_stdout, reason = "says why nothing is counted")]
fn main() {
    println!("no instructions are counted: see benches/instructions.rs for what that takes");
}
