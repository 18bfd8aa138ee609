//! The parts of a claim, each by itself, for `benches`. Not part of the API: no version promises
//! anything of it.
//!
//! Each type sets a part up as it is in a store at work and has a method for what a claim does with
//! it. Nothing here decides anything.

use bytes::Bytes;

use crate::commit::Batch;
use crate::error::Error;
use crate::generation::{Columns, Filter, Generation};
use crate::identity::{Fingerprint, OperationId, ProjectId, Secret};
use crate::record::codec::{self, Draft};
use crate::record::transition::{
    Act, Answer, Found, Intent, Moment, OnLapsed, Terms, Verdict, transition,
};
use crate::record::{Payload, Position, Record, State, WindowFrom};
use crate::storage::{Lane, LogFile, Marks, Memory, Opening, Rows, Snapshot, Storage};
use crate::sync::{Arc, Weak};
use crate::table::Shard;

const NOW: u64 = 1_700_000_000_000;
const HOUR: u64 = 3_600_000;
const CACHE_BYTES: usize = 64 << 20;

/// Ids and hashes.
#[derive(Debug)]
pub struct Identity(Secret);

/// Decisions about an operation that is absent, in flight or completed.
#[derive(Debug)]
pub struct Decisions {
    in_flight: Found,
    completed: Found,
}

/// A record and its bytes.
#[derive(Debug)]
pub struct Row {
    record: Record,
    bytes: Vec<u8>,
}

/// The index of one shard of a generation that is open.
#[derive(Debug)]
pub struct ShardIndex {
    shard: Shard,
    next_row: u32,
    full: usize,
}

/// Filters of sealed generations, side by side.
#[derive(Debug)]
pub struct Filters {
    first: Filter,
    columns: Columns,
}

/// A batch that fills.
#[derive(Debug)]
pub struct FillingBatch {
    batch: Batch,
    generation: Arc<Generation>,
    record: Record,
    next_row: u32,
}

/// The bytes of claims that follow one another in a log.
#[derive(Debug)]
pub struct Claims {
    first: u32,
    rows: Vec<Vec<u8>>,
}

/// A generation's file, in memory, as it is read and appended to.
#[derive(Debug)]
pub struct Log {
    // Dropped in this order.
    snapshot: Snapshot,
    file: LogFile,
    _storage: Storage,
}

impl Identity {
    pub fn of(secret: [u8; 32]) -> Self {
        Identity(Secret(secret))
    }

    pub fn operation(&self, project: &[u8], key: &[u8]) -> [u8; 16] {
        self.0.operation(project, key).0
    }

    pub fn project(&self, project: &[u8]) -> [u8; 8] {
        self.0.project(project).0
    }

    pub fn fingerprint(body: &[u8]) -> [u8; 16] {
        Fingerprint::of(body).0
    }
}

impl Decisions {
    pub fn with_reply(body: Vec<u8>) -> Self {
        let payload = Payload { content_tag: None, body: Bytes::from(body) };
        Decisions { in_flight: found(in_flight()), completed: found(State::Completed(payload)) }
    }

    /// Whether a claim of an absent operation has something to write.
    pub fn claim_absent(&self) -> bool {
        decide(None, Intent::Claim(terms())).write.is_some()
    }

    pub fn claim_in_flight(&self) -> bool {
        let verdict = decide(Some(&self.in_flight), Intent::Claim(terms()));
        matches!(verdict.answer, Answer::InFlight { .. })
    }

    pub fn claim_completed(&self) -> bool {
        let verdict = decide(Some(&self.completed), Intent::Claim(terms()));
        verdict.answer == Answer::Completed
    }

    /// Whether the owner's reply has something to write.
    pub fn complete(&self, body: &Bytes) -> bool {
        let payload = Payload { content_tag: None, body: body.clone() };
        let act = Act::Complete { payload, window: None };
        let fence = self.in_flight.record.fence;
        decide(Some(&self.in_flight), Intent::Owner { fence, act }).write.is_some()
    }
}

impl Row {
    /// Of a claim.
    pub fn in_flight() -> Self {
        Row::of(in_flight())
    }

    pub fn completed(body: Vec<u8>) -> Self {
        Row::of(State::Completed(Payload { content_tag: None, body: Bytes::from(body) }))
    }

    fn of(state: State) -> Self {
        let record = record(state);
        let mut row = Row { record, bytes: Vec::new() };
        let mut bytes = Vec::new();
        row.write(&mut bytes);
        row.bytes = bytes;
        row
    }

    /// Encodes it and stamps it with its sequence, place and checksum.
    pub fn write(&self, out: &mut Vec<u8>) {
        Draft::of(&self.record).stamp(self.record.sequence, position(0), out);
    }

    /// Decodes its bytes; whether they are a record.
    pub fn read(&self) -> bool {
        codec::decode(&self.bytes, position(0)).is_ok()
    }

    /// Reads what an index has to know; whether they are a record.
    pub fn glance(&self) -> bool {
        codec::glance(&self.bytes, position(0)).is_ok()
    }
}

impl ShardIndex {
    /// With so many entries, of `full` at most.
    pub fn filled(entries: u32, full: usize) -> Self {
        let mut shard = Shard::default();
        shard.list(Arc::new(Generation::unmade(position(0).generation)), 0);
        let mut index = ShardIndex { shard, next_row: 0, full };
        (0..entries).for_each(|_| index.place());
        index
    }

    /// Lists the next fresh operation.
    pub fn place(&mut self) {
        self.shard.place(tag(self.next_row), position(self.next_row), None, self.full);
        self.next_row += 1;
    }

    /// The row of an operation that is there or is not.
    pub fn find(&self, number: u32) -> Option<u32> {
        self.shard.indexes().find_map(|of| of.index.find(tag(number), |row| row == number))
    }

    /// Lists a newer record of an operation that is there.
    pub fn replace(&mut self, number: u32) {
        let here = position(number);
        self.shard.place(tag(number), here, Some(here), self.full);
    }
}

impl Filters {
    /// Of a full shard of so many generations, each with `entries`. Nothing where none could be
    /// built.
    pub fn build(generations: u32, entries: u32) -> Option<Self> {
        let filter = |number: u32| {
            let tags = number * entries..(number + 1) * entries;
            let mut tags: Vec<u64> = tags.map(|number| u64::from(tag(number))).collect();
            tags.sort_unstable();
            Filter::build(tags, entries as usize)
        };
        let first = filter(0)?;
        let mut columns = Columns::like(&first, Columns::COUNT);
        let mut column = 0;
        for filter in (0..generations).filter_map(filter) {
            // One in a hundred has another shape, and leaves its column empty.
            if columns.fits(&filter) && column < Columns::COUNT {
                // What is left of a filter is asked where its column says yes.
                drop(columns.put(column, filter));
                column += 1;
            }
        }
        Some(Filters { first, columns })
    }

    /// Asks one filter.
    pub fn may_have(&self, number: u32) -> bool {
        self.first.may_have(u64::from(tag(number)))
    }

    /// Asks all that stand side by side.
    pub fn probe(&self, number: u32) -> u16 {
        self.columns.probe(u64::from(tag(number)))
    }
}

impl FillingBatch {
    /// With no rows, for records of claims.
    pub fn empty() -> Self {
        FillingBatch {
            batch: Batch::first(Weak::new()),
            generation: Arc::new(Generation::unmade(position(0).generation)),
            record: record(in_flight()),
            next_row: 0,
        }
    }

    /// Encodes a record and appends it.
    pub fn push(&mut self) {
        let (draft, position) = (Draft::of(&self.record), position(self.next_row));
        self.batch.push(&self.generation, None, position, &self.record, &draft);
        self.next_row += 1;
    }
}

impl Claims {
    /// Of so many rows, from this one on.
    pub fn of(first: u32, count: u32) -> Self {
        Claims { first, rows: claims(first, count) }
    }
}

impl Log {
    /// With so many rows, in one commit.
    ///
    /// # Errors
    /// Those of storage, which has no disk here.
    pub fn filled(rows: u32) -> Result<Self, Error> {
        let (storage, _) = Storage::open(Arc::new(Memory::default()), CACHE_BYTES)?;
        let file = storage.create_generation(position(0).generation, Marks::default())?;
        let opening = Opening { lane: Lane::for_retention(HOUR), opened_at: NOW };
        let rows = claims(0, rows);
        let bytes = rows.iter().map(Vec::as_slice);
        let snapshot = file.append(Rows { first: 0, bytes, opening: Some(opening) }, false)?;
        Ok(Log { snapshot, file, _storage: storage })
    }

    /// Appends rows that follow those it has, in one commit.
    ///
    /// # Errors
    /// Those of storage, which has no disk here.
    pub fn append(&mut self, claims: &Claims) -> Result<(), Error> {
        let bytes = claims.rows.iter().map(Vec::as_slice);
        let rows = Rows { first: claims.first, bytes, opening: None };
        self.snapshot = self.file.append(rows, false)?;
        Ok(())
    }

    /// Reads the record at a row; its sequence.
    ///
    /// # Errors
    /// `Corrupt` where there is no such row.
    pub fn read(&self, row: u32) -> Result<u64, Error> {
        Ok(self.snapshot.record(row)?.0.sequence)
    }
}

fn claims(first: u32, count: u32) -> Vec<Vec<u8>> {
    let draft = Draft::of(&record(in_flight()));
    let row = |row: u32| {
        let mut bytes = Vec::new();
        draft.stamp(record(in_flight()).sequence, position(row), &mut bytes);
        bytes
    };
    (first..first + count).map(row).collect()
}

fn decide(found: Option<&Found>, intent: Intent) -> Verdict {
    transition(found, intent, &Moment { now: NOW, epoch: 1, owners_survive_restart: false })
}

fn terms() -> Terms {
    Terms {
        operation: OperationId([7; 16]),
        project: ProjectId([7; 8]),
        fingerprint: None,
        window: 24 * HOUR,
        window_from: WindowFrom::LastChange,
        lease: HOUR,
        on_lapsed: OnLapsed::Resume,
        max_attempts: None,
        label: None,
        names: None,
    }
}

fn found(state: State) -> Found {
    Found { record: record(state), position: position(0), owner_dropped: false }
}

fn record(state: State) -> Record {
    let mut record = Record {
        operation: OperationId([7; 16]),
        project: ProjectId([7; 8]),
        sequence: 842,
        fence: 842,
        prev: None,
        attempt: 1,
        epoch: 1,
        claimed_at: NOW,
        changed_at: NOW,
        window: 24 * HOUR,
        window_from: WindowFrom::LastChange,
        retained_until: 0,
        fingerprint: None,
        dispatched: false,
        checkpoint: None,
        label: None,
        names: None,
        state,
    };
    record.retained_until = record.expires_at();
    record
}

fn in_flight() -> State {
    State::InFlight { lease_until: NOW + HOUR }
}

fn position(row: u32) -> Position {
    Position { generation: 1, row }
}

/// A tag for each number: an odd factor mixes them and maps no two to one.
fn tag(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b1)
}
