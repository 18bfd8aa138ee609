//! The queue: the batch that fills, the one that is being committed, and the lanes' open files.
//!
//! Appending is a bump of two counters and a copy into the batch's buffer, under one lock.
//! The lock is never held over a system call.
//!
//! Invariant: a row that is not durable is in `filling` or in `committing`, unless the store was
//! stopped by a failed commit.

use std::collections::VecDeque;

use super::batch::{Batch, BatchCell};
use super::{Committer, Start};
use crate::error::{Error, ErrorKind};
use crate::generation::{Generation, Generations};
use crate::record::codec::Draft;
use crate::record::{Position, Record};
use crate::storage::{Lane, Marks, Opening};
use crate::sync::{Arc, Weak};

/// Rows a generation takes; far above what its index holds, so only rewrites of the same keys
/// come near it.
const MAX_ROWS: u32 = 1 << 31;

/// What one record may take beside its variable parts, for the estimate of what is queued.
pub(crate) const RECORD_BYTES: usize = 256;

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) filling: Batch,
    pub(super) committing: Option<Arc<Batch>>,
    pub(super) stopped: Option<Stopped>,
    lanes: Vec<OpenLane>,
    spares: VecDeque<Arc<Generation>>,
    generations: Arc<Generations>,
    next_generation: u32,
    next_sequence: u64,
    reserved_bytes: usize,
    limits: Limits,
}

/// What bounds the queue and the files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) queue_bytes: usize,
    pub(crate) generation_bytes: u64,
}

/// Why the queue takes nothing more.
#[derive(Debug)]
pub(super) enum Stopped {
    Closed,
    Poisoned(Error),
}

#[derive(Debug)]
struct OpenLane {
    opening: Opening,
    generation: Arc<Generation>,
    next_row: u32,
    bytes: u64,
    /// Whether this run of the store has written to it.
    begun: bool,
}

/// Whether there is room for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// It is asked for now.
    Asked,
    /// It was reserved beforehand.
    Reserved,
}

/// Where a record was put.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) position: Position,
    pub(crate) batch: Arc<BatchCell>,
    /// The batch was empty: someone has to know that there is work.
    pub(super) was_empty: bool,
}

/// A lane's open generation, found when the store is opened.
#[derive(Debug)]
pub(crate) struct Reopened {
    pub(crate) opening: Opening,
    pub(crate) generation: Arc<Generation>,
    /// Bytes of records in it.
    pub(crate) bytes: u64,
}

impl Queue {
    pub(super) fn new(
        start: Start,
        generations: Arc<Generations>,
        committer: Weak<Committer>,
    ) -> Self {
        Queue {
            filling: Batch::first(committer),
            committing: None,
            stopped: None,
            lanes: start.lanes.into_iter().map(OpenLane::from).collect(),
            spares: start.spares.into(),
            generations,
            next_generation: start.next_generation,
            next_sequence: start.next_sequence,
            reserved_bytes: 0,
            limits: start.limits,
        }
    }

    /// Stamps a record with its sequence (and, where it makes an owner, its fence) and its place,
    /// and puts it into the filling batch.
    #[expect(clippy::indexing_slicing, reason = "a lane that was found or opened")]
    pub(super) fn append(
        &mut self,
        record: &mut Record,
        draft: &Draft,
        now: u64,
        room: Room,
    ) -> Result<Appended, Error> {
        self.refuse_stopped()?;
        if room == Room::Asked {
            self.refuse_full(size_estimate(record))?;
        }
        let lane = Lane::for_retention(record.retained_until.saturating_sub(now));
        let index = self.open_lane(lane, now);
        record.sequence = self.next_sequence;
        self.next_sequence += 1;
        if record.fence == 0 {
            record.fence = record.sequence;
        }
        let was_empty = self.filling.is_empty();
        let open = &mut self.lanes[index];
        let position = Position { generation: open.generation.id, row: open.next_row };
        let opening = (open.next_row == 0).then_some(open.opening);
        if !std::mem::replace(&mut open.begun, true) {
            open.generation.begin_epoch(position.row, record.epoch);
        }
        let before = self.filling.bytes;
        self.filling.push(&open.generation, opening, position, record, draft);
        open.next_row += 1;
        open.bytes += (self.filling.bytes - before) as u64;
        open.generation.note(record.sequence, record.changed_at, record.retained_until);
        Ok(Appended { position, batch: Arc::clone(&self.filling.cell), was_empty })
    }

    /// Keeps room for a call that must not stop half-way.
    pub(super) fn reserve(&mut self, bytes: usize) -> Result<(), Error> {
        self.refuse_stopped()?;
        self.refuse_full(bytes)?;
        self.reserved_bytes += bytes;
        Ok(())
    }

    pub(super) fn give_back(&mut self, bytes: usize) {
        self.reserved_bytes -= bytes;
    }

    pub(super) fn refuse_stopped(&self) -> Result<(), Error> {
        match &self.stopped {
            None => Ok(()),
            Some(Stopped::Closed) => Err(Error::closed()),
            Some(Stopped::Poisoned(cause)) => Err(cause.seen_as(
                ErrorKind::Poisoned,
                "an earlier commit failed, so nothing was written: open the store again",
            )),
        }
    }

    /// Swaps the filling batch out.
    pub(super) fn take(&mut self) -> Option<Arc<Batch>> {
        if self.filling.is_empty() {
            return None;
        }
        let batch = Arc::new(self.renew_filling());
        self.committing = Some(Arc::clone(&batch));
        Some(batch)
    }

    /// Takes the filling batch and begins the next.
    pub(super) fn renew_filling(&mut self) -> Batch {
        let next = self.filling.next();
        std::mem::replace(&mut self.filling, next)
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.filling.bytes + self.committing.as_ref().map_or(0, |batch| batch.bytes)
    }

    /// A sequence number that no record has.
    pub(super) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    pub(super) fn wants_spare(&self) -> bool {
        self.stopped.is_none() && self.spares.is_empty()
    }

    /// A number for a generation about to be made.
    pub(super) fn new_generation_id(&mut self) -> u32 {
        let id = self.next_generation;
        self.next_generation += 1;
        id
    }

    pub(super) fn add_spare(&mut self, generation: Arc<Generation>) {
        self.spares.push_back(generation);
    }

    /// Whether nothing of a generation is queued and nothing will be: closes it to appends if its
    /// records are over.
    pub(super) fn let_go(&mut self, generation: &Generation, now: u64) -> bool {
        if generation.retained_until() > now || self.is_queued(generation) {
            return false;
        }
        self.lanes.retain(|open| open.generation.id != generation.id);
        true
    }

    /// Closes the generations to appends that were begun long enough ago, though nothing came to
    /// take their places.
    pub(super) fn freeze_over(&mut self, now: u64) {
        self.lanes.retain(|open| !open.opening.is_over(now));
    }

    /// Takes a batch for durable, and says whether one of its generations was begun with it or
    /// takes no more records after it.
    pub(super) fn settled(&mut self, batch: &Batch) -> bool {
        self.committing = None;
        batch.parts.iter().any(|part| {
            let is_open = self.lanes.iter().any(|open| open.generation.id == part.generation.id);
            part.first == 0 || !is_open
        })
    }

    /// When that is to be done next.
    pub(super) fn next_over(&self) -> Option<u64> {
        self.lanes.iter().map(|open| open.opening.over_at()).min()
    }

    /// Whether a generation has records, all of them durable, and takes no more.
    pub(super) fn is_frozen(&self, generation: &Generation) -> bool {
        generation.durable_rows() > 0 && !self.is_open(generation) && !self.is_queued(generation)
    }

    pub(super) fn is_open(&self, generation: &Generation) -> bool {
        self.lanes.iter().any(|open| open.generation.id == generation.id)
    }

    fn is_queued(&self, generation: &Generation) -> bool {
        let has_rows =
            |batch: &Batch| batch.parts.iter().any(|part| part.generation.id == generation.id);
        has_rows(&self.filling)
            || self.committing.as_deref().is_some_and(has_rows)
            || self.spares.iter().any(|spare| spare.id == generation.id)
    }

    #[expect(clippy::indexing_slicing, reason = "where it was found")]
    fn open_lane(&mut self, lane: Lane, now: u64) -> usize {
        let found = self.lanes.iter().position(|open| open.opening.lane == lane);
        match found {
            Some(index) if !self.lanes[index].must_rotate(now, &self.limits) => index,
            Some(index) => {
                self.lanes[index] = self.opened(lane, now);
                index
            }
            None => {
                let opened = self.opened(lane, now);
                self.lanes.push(opened);
                self.lanes.len() - 1
            }
        }
    }

    fn opened(&mut self, lane: Lane, now: u64) -> OpenLane {
        let generation = self.spares.pop_front().unwrap_or_else(|| {
            let generation = Arc::new(Generation::unmade(self.new_generation_id()));
            self.generations.insert(Arc::clone(&generation));
            generation
        });
        let opening = Opening { lane, opened_at: now };
        OpenLane { opening, generation, next_row: 0, bytes: 0, begun: false }
    }

    fn refuse_full(&self, more: usize) -> Result<(), Error> {
        let queued = self.queued_bytes() + self.reserved_bytes;
        // What is larger than the queue itself is taken when it is empty, or it never could be.
        if queued > 0 && queued + more > self.limits.queue_bytes {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("{queued} bytes wait to be committed: try again shortly"),
            ));
        }
        Ok(())
    }

    pub(super) fn marks(&self, clock: u64) -> Marks {
        Marks { clock, sequence: self.next_sequence() }
    }
}

impl From<Reopened> for OpenLane {
    fn from(Reopened { opening, generation, bytes }: Reopened) -> Self {
        OpenLane { opening, next_row: generation.durable_rows(), generation, bytes, begun: false }
    }
}

impl OpenLane {
    fn must_rotate(&self, now: u64, limits: &Limits) -> bool {
        self.next_row > 0
            && (self.opening.is_over(now)
                || self.generation.is_crowded()
                || self.bytes >= limits.generation_bytes
                || self.next_row >= MAX_ROWS)
    }
}

/// What a record will about take in the queue.
pub(crate) fn size_estimate(record: &Record) -> usize {
    use crate::record::{Failure, State};
    let body = match &record.state {
        State::Completed(payload) | State::Failed(Failure::Reply(payload)) => payload.body.len(),
        _ => 0,
    };
    RECORD_BYTES + body + record.checkpoint.as_ref().map_or(0, bytes::Bytes::len)
}
