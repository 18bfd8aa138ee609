//! How many instructions a hot path takes, counted by valgrind's callgrind: a measure that does not
//! depend on who else uses the machine.
//!
//! ```sh
//! apt-get install valgrind && cargo install gungraun-runner --version 0.20.0
//! RUSTFLAGS="--cfg instructions" CARGO_TARGET_DIR=target/instructions \
//!     cargo bench --bench instructions
//! ```
//!
//! Without the `cfg` nothing is counted, and nothing is needed. Of a write, what the caller does
//! until it waits and what a commit does are counted apart: which thread commits is for the system
//! to say, and differs from run to run. Files are in memory, so a commit has no system calls.

#[cfg(instructions)]
mod counted {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a benchmark that fails should stop")]

    use std::hint::black_box;

    use gungraun::{library_benchmark, library_benchmark_group};
    use justonce::parts::{
        Claims, Decisions, FillingBatch, Filters, Identity, Log, Row, ShardIndex,
    };
    use justonce::{Claim, Operation, Options, Pending, Store, Ticket};

    const REPLY: [u8; 2048] = [7; 2048];
    const FULL: u32 = 12_800;

    /// Operations that a store has before anything is counted.
    const LIVE: u64 = 10_000;

    /// Rows that a file has before anything is counted.
    const ROWS: u32 = 10_000;

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
    #[bench::of(Log::filled(ROWS).unwrap())]
    fn read_a_row_of_a_file(log: Log) -> Log {
        black_box(log.read(4242).unwrap());
        log
    }

    #[library_benchmark]
    #[bench::one((Log::filled(ROWS).unwrap(), Claims::of(ROWS, 1)))]
    #[bench::many((Log::filled(ROWS).unwrap(), Claims::of(ROWS, 1024)))]
    fn commit_rows((mut log, claims): (Log, Claims)) -> (Log, Claims) {
        log.append(&claims).unwrap();
        (log, claims)
    }

    #[library_benchmark]
    #[bench::of(store())]
    fn submit_a_fresh_claim(store: Store) -> (Store, Pending<Claim>) {
        let claim = store.claim(numbered(LIVE));
        (store, claim)
    }

    #[library_benchmark]
    #[bench::of((claimed(), REPLY.to_vec()))]
    fn submit_a_reply_of_2_kib(
        ((store, ticket), reply): ((Store, Ticket), Vec<u8>),
    ) -> (Store, Pending<()>) {
        let completed = ticket.complete(reply);
        (store, completed)
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
            read_a_row_of_a_file,
            commit_rows
        ]
    );

    library_benchmark_group!(
        name = whole,
        benchmarks = [
            submit_a_fresh_claim,
            submit_a_reply_of_2_kib,
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
