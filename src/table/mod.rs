//! The table: one lock an operation, under which it is found, decided and appended.
//!
//! ```text
//! apply(operation, intent):  shard lock ─► find ─► transition ─► append ─► index
//! ```
//!
//! Two claims of one key therefore never both find nothing, and what is found is the newest
//! record, whether it is durable yet or not. An answer that rests on a record that is not names
//! the batch it has to wait for ([`Applied::rests_on`]).

mod flights;
mod history;
mod replay;
mod sealed;
mod shard;
mod walk;

use std::task::Waker;

pub(crate) use flights::Waiter;
pub(crate) use replay::replay;
pub(crate) use shard::Shard;
pub(crate) use walk::Walk;

use crate::commit::{BatchCell, Committer, Room};
use crate::error::{Error, ErrorKind};
use crate::generation::{Entry, Generation, Summary};
use crate::identity::{OperationId, SHARDS};
use crate::record::transition::{
    Answer, Found, Intent, Moment, Standing, Verdict, standing, transition,
};
use crate::record::{Position, Record, State};
use crate::sync::{Arc, AtomicUsize, Mutex, MutexGuard, Ordering};
use sealed::SealedShard;

/// Waiters a store takes: each is a parked thread or task of the caller's.
const MAX_WAITERS: usize = 1 << 20;

/// What bounds an index, and how much of an operation id it keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IndexLimits {
    /// Entries of one shard's index before its generation is rotated.
    pub(crate) entries_per_shard: usize,
    /// Bits of a tag in use: all, or fewer where a test wants operations to share tags.
    pub(crate) tag_mask: u32,
}

/// The shards by themselves: all that is rebuilt when a store is opened.
#[derive(Debug)]
pub(crate) struct Shards {
    all: Box<[Mutex<Shard>]>,
    limits: IndexLimits,
}

#[derive(Debug)]
pub(crate) struct Table {
    shards: Shards,
    committer: Arc<Committer>,
    waiting: AtomicUsize,
}

/// A record that was read, and the batch that is to make it durable, if it is not.
type Row = (Record, Option<Arc<BatchCell>>);

/// What came of an intent.
#[derive(Debug)]
pub(crate) struct Applied<'a> {
    pub(crate) answer: Answer,
    /// The record that was found.
    pub(crate) found: Option<&'a Record>,
    /// The record that was appended.
    pub(crate) written: Option<&'a Record>,
}

/// A record that was found, and the batch that is to make it durable, if it is not.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) found: Found,
    pub(crate) rests_on: Option<Arc<BatchCell>>,
}

/// What someone who waits for an operation sees.
#[derive(Debug)]
pub(crate) enum Observed {
    /// Still in flight; the waiter is woken by any change, but not by the end of the lease.
    InFlight { lease_until: u64 },
    /// Not in flight any more, and this is what is stored; nothing where it is gone.
    Settled(Option<(Standing, Box<Record>)>),
    /// Changed, and the change is not durable yet; the batch's outcome wakes the waiter.
    Changing,
}

/// How claims were answered since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counts {
    /// `New`: a ticket for an operation not seen before.
    pub new: u64,
    /// `Resumed`: a ticket for an operation whose owner was gone.
    pub resumed: u64,
    /// `InFlight`: a duplicate of an operation being worked on.
    pub in_flight: u64,
    /// `Completed`: a duplicate that got the stored reply.
    pub completed: u64,
    /// `Failed`: a duplicate that got the stored error reply.
    pub failed: u64,
    /// `Mismatch`: an old key with another body.
    pub mismatch: u64,
    /// `Lapsed`: reported, not resumed.
    pub lapsed: u64,
}

impl Shards {
    pub(crate) fn new(limits: IndexLimits) -> Self {
        Shards { all: (0..SHARDS).map(|_| Mutex::default()).collect(), limits }
    }

    fn of(&self, operation: OperationId) -> MutexGuard<'_, Shard> {
        self.at(operation.shard()).lock()
    }

    #[expect(clippy::indexing_slicing, reason = "there are as many shards as bytes")]
    fn at(&self, shard: u8) -> &Mutex<Shard> {
        &self.all[usize::from(shard)]
    }

    /// Finds a generation's records by a summary from now on.
    pub(crate) fn seal(&self, shard: u8, generation: &Arc<Generation>, summary: Summary) {
        let generation = Arc::clone(generation);
        let index = self.at(shard).lock().seal(generation, summary);
        // With no lock held.
        drop(index);
    }

    /// Makes room for a summary. To be called by one thread at a time, which copies what is there
    /// with no lock held.
    fn make_room(&self, shard: u8, summary: &Summary) {
        let shard = self.at(shard);
        let narrow = shard.lock().sealed.too_narrow_for(summary);
        if let Some(narrow) = narrow {
            let widened = narrow.widened();
            let narrow = shard.lock().sealed.replace(widened);
            drop(narrow);
        }
    }

    fn tag(&self, operation: OperationId) -> u32 {
        operation.tag() & self.limits.tag_mask
    }
}

impl Table {
    pub(crate) fn new(shards: Shards, committer: Arc<Committer>) -> Self {
        Table { shards, committer, waiting: AtomicUsize::new(0) }
    }

    fn shard(&self, operation: OperationId) -> MutexGuard<'_, Shard> {
        self.shards.of(operation)
    }

    /// Finds, decides and appends, under one lock; then has the caller `read` what came of it. The
    /// answer holds once the batch it is returned with is durable.
    pub(crate) fn apply<T>(
        &self,
        operation: OperationId,
        intent: Intent,
        moment: &Moment,
        room: Room,
        read: impl FnOnce(Applied<'_>) -> T,
    ) -> Result<(T, Option<Arc<BatchCell>>), Error> {
        self.committer.check_open_at(moment.now)?;
        let is_claim = matches!(intent, Intent::Claim(_) | Intent::Record(_));
        let mut shard = self.shard(operation);
        let seen = self.find(&shard, operation)?;
        if cfg!(planted = "unlocked") {
            drop(shard);
            shard = self.shard(operation);
        }
        let (found, mut rests_on) = match seen {
            Some(Seen { found, rests_on }) => (Some(found), rests_on),
            None => (None, None),
        };
        let Verdict { answer, mut write } = transition(found.as_ref(), intent, moment);
        let mut waiters = None;
        if let Some(record) = &mut write {
            let appended = self.committer.append(record, moment.now, room)?;
            self.place(&mut shard, record, appended.position)?;
            if let Some(found) = &found
                && found.record.fence != record.fence
            {
                shard.unmark_dropped(found.record.fence);
            }
            if !shard.flights.is_empty() {
                waiters = shard.flights.get(&operation).cloned();
            }
            rests_on = Some(appended.batch);
        }
        if is_claim {
            shard.counts.count(&answer);
        }
        drop(shard);
        let rests_on = self.committer.to_await(rests_on);
        match (waiters, &rests_on) {
            (Some(cell), Some(batch)) => batch.notify(Waker::from(cell)),
            (Some(cell), None) => cell.wake_all(),
            (None, _) => {}
        }
        let found = found.as_ref().map(|found| &found.record);
        Ok((read(Applied { answer, found, written: write.as_ref() }), rests_on))
    }

    /// Lists an appended record as its operation's newest.
    fn place(&self, shard: &mut Shard, record: &Record, at: Position) -> Result<(), Error> {
        if !shard.lists(at.generation) {
            shard.list(self.committer.generation(at.generation)?, 0);
        }
        let tag = self.shards.tag(record.operation);
        shard.place(tag, at, record.prev, self.shards.limits.entries_per_shard);
        Ok(())
    }

    /// The newest record of an operation, whatever its age.
    pub(crate) fn look_up(&self, operation: OperationId, now: u64) -> Result<Option<Seen>, Error> {
        self.committer.check_open_at(now)?;
        self.find(&self.shard(operation), operation)
    }

    /// Looks at an operation on behalf of one who waits for it, and puts `waker` where a change
    /// will wake it. `claimed_at` tells one life of the record from the next.
    pub(crate) fn observe(
        self: &Arc<Self>,
        operation: OperationId,
        claimed_at: u64,
        moment: &Moment,
        waiter: &mut Option<Waiter>,
        waker: &Waker,
    ) -> Result<Observed, Error> {
        self.committer.check_process()?;
        let mut shard = self.shard(operation);
        let seen = self.find(&shard, operation)?;
        let Some(Seen { found, rests_on }) = seen else { return Ok(Observed::Settled(None)) };
        let standing = standing(&found, moment);
        if let Standing::InFlight { lease_until } = standing
            && found.record.claimed_at == claimed_at
        {
            // Nothing will happen to it any more in a store that has stopped.
            self.committer.check_running()?;
            if cfg!(planted = "unwoken") {
                drop(shard);
                shard = self.shard(operation);
            }
            let replaced = match waiter {
                Some(waiter) => waiter.replace_waker(waker),
                None if self.waiting() >= MAX_WAITERS => {
                    return Err(Error::new(
                        ErrorKind::Busy,
                        "a million waiters wait already: try again later",
                    ));
                }
                None => {
                    *waiter = Some(Waiter::join(self, &mut shard.flights, operation, waker));
                    None
                }
            };
            drop(shard);
            drop(replaced);
            return Ok(Observed::InFlight { lease_until });
        }
        drop(shard);
        if let Some(batch) = self.committer.to_await(rests_on) {
            batch.notify(waker.clone());
            return Ok(Observed::Changing);
        }
        let same_life = found.record.claimed_at == claimed_at && standing != Standing::Absent;
        Ok(Observed::Settled(same_life.then(|| (standing, Box::new(found.record)))))
    }

    /// Notes that a ticket was dropped: the operation counts as lapsed from now on.
    pub(crate) fn drop_ticket(&self, operation: OperationId, fence: u64, now: u64) {
        let mut shard = self.shard(operation);
        // A record that cannot be read, of a store that is closed or damaged, lapses by itself.
        let Ok(Some(seen)) = self.find(&shard, operation) else { return };
        if let Record { fence: owner, state: State::InFlight { lease_until }, .. } =
            seen.found.record
            && owner == fence
        {
            shard.mark_dropped(fence, lease_until, now);
            let cell = shard.flights.get(&operation).cloned();
            drop(shard);
            if let Some(cell) = cell {
                cell.wake_all();
            }
        }
    }

    /// The newest record of an operation. Where it is the one of this fence, its owner is there
    /// again, and the mark of a dropped ticket is taken back.
    pub(crate) fn pick_up_ticket(
        &self,
        operation: OperationId,
        fence: u64,
        now: u64,
    ) -> Result<Option<Seen>, Error> {
        self.committer.check_open_at(now)?;
        let mut shard = self.shard(operation);
        let seen = self.find(&shard, operation)?;
        if seen.as_ref().is_some_and(|seen| seen.found.record.fence == fence) {
            shard.unmark_dropped(fence);
        }
        Ok(seen)
    }

    /// Wakes all who wait for operations, to see that the store has stopped.
    pub(crate) fn wake_everyone(&self) {
        for shard in &self.shards.all {
            let cells: Vec<_> = shard.lock().flights.values().cloned().collect();
            for cell in cells {
                cell.wake_all();
            }
        }
    }

    /// Whether that is where an index has an operation.
    pub(crate) fn is_listed_under(&self, operation: OperationId, shard: u8, tag: u32) -> bool {
        operation.shard() == shard && self.shards.tag(operation) == tag
    }

    /// The entries of one shard of an unsealed generation, sorted.
    pub(crate) fn entries_of(&self, shard: u8, generation: u32) -> Vec<Entry> {
        let mut entries = self.shards.at(shard).lock().entries_of(generation);
        entries.sort_unstable();
        entries
    }

    /// Finds a generation's records by a summary in place of the index in memory, which is freed.
    /// For the one thread that seals.
    pub(crate) fn seal(&self, shard: u8, generation: &Arc<Generation>, summary: Summary) {
        self.shards.make_room(shard, &summary);
        self.shards.seal(shard, generation, summary);
    }

    /// How many entries a shard of a generation has at most.
    pub(crate) fn max_entries(&self) -> usize {
        self.shards.limits.entries_per_shard
    }

    /// Frees what is kept in memory of a generation. Nobody finds a record of it any more.
    pub(crate) fn forget_generation(&self, id: u32) {
        for shard in &self.shards.all {
            shard.lock().forget_generation(id);
        }
    }

    /// How many wait for operations.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How claims were answered, and how many operations are listed.
    pub(crate) fn counts(&self) -> (Counts, u64) {
        self.shards.all.iter().fold((Counts::default(), 0), |(counts, entries), shard| {
            let shard = shard.lock();
            (counts.plus(&shard.counts), entries + shard.entries() as u64)
        })
    }

    /// The newest record of an operation, whatever its age; its shard is locked by the caller.
    fn find(&self, shard: &Shard, operation: OperationId) -> Result<Option<Seen>, Error> {
        match self.find_unsealed(shard, operation)? {
            Some(seen) => Ok(Some(seen)),
            None => self.find_sealed(shard, operation),
        }
    }

    fn find_sealed(&self, shard: &Shard, operation: OperationId) -> Result<Option<Seen>, Error> {
        let tag = self.shards.tag(operation);
        let mut newest: Option<Found> = None;
        for SealedShard { generation, blocks } in shard.sealed.with(tag) {
            for row in blocks.rows(generation.blocks()?, operation.shard(), tag)? {
                // It may be this operation's, so an error is not to be passed over.
                let (record, _) = self.read(generation, row)?;
                let is_newer =
                    newest.as_ref().is_none_or(|newest| newest.record.sequence < record.sequence);
                if record.operation == operation && is_newer {
                    let position = Position { generation: generation.id, row };
                    let owner_dropped = shard.is_dropped(record.fence);
                    newest = Some(Found { record, position, owner_dropped });
                }
            }
        }
        Ok(newest.map(|found| Seen { found, rests_on: None }))
    }

    fn find_unsealed(&self, shard: &Shard, operation: OperationId) -> Result<Option<Seen>, Error> {
        let tag = self.shards.tag(operation);
        for of in shard.indexes() {
            let mut hit = Ok(None);
            of.index.find(tag, |row| match self.read(&of.generation, row) {
                // Another operation of the same tag.
                Ok((record, _)) if record.operation != operation => false,
                Ok((record, rests_on)) => {
                    let position = Position { generation: of.generation.id, row };
                    let owner_dropped = shard.is_dropped(record.fence);
                    hit = Ok(Some(Seen {
                        found: Found { record, position, owner_dropped },
                        rests_on,
                    }));
                    true
                }
                // It may be this operation's, so it must not be passed over.
                Err(error) => {
                    hit = Err(error);
                    true
                }
            });
            if let Some(seen) = hit? {
                return Ok(Some(seen));
            }
        }
        Ok(None)
    }

    fn read(&self, generation: &Generation, row: u32) -> Result<Row, Error> {
        self.row(generation, row)?.ok_or_else(|| generation.lacks(row))
    }

    /// Reads a row; nothing where it is nowhere.
    fn row(&self, generation: &Generation, row: u32) -> Result<Option<Row>, Error> {
        if let Some(record) = generation.durable(row)? {
            return Ok(Some((record, None)));
        }
        let position = Position { generation: generation.id, row };
        if let Some((record, batch)) = self.committer.pending(position)? {
            return Ok(Some((record, Some(batch))));
        }
        // It became durable between the two looks, or it is nowhere.
        Ok(generation.durable(row)?.map(|record| (record, None)))
    }
}

impl Counts {
    fn count(&mut self, answer: &Answer) {
        match answer {
            Answer::New => self.new += 1,
            Answer::Resumed(_) => self.resumed += 1,
            Answer::InFlight { .. } => self.in_flight += 1,
            Answer::Completed => self.completed += 1,
            Answer::Failed => self.failed += 1,
            Answer::Mismatch(_) => self.mismatch += 1,
            Answer::Lapsed(_) => self.lapsed += 1,
            Answer::Done
            | Answer::NothingThere
            | Answer::LeaseLost
            | Answer::Gone
            | Answer::Owned => {}
        }
    }

    fn plus(self, other: &Counts) -> Counts {
        Counts {
            new: self.new + other.new,
            resumed: self.resumed + other.resumed,
            in_flight: self.in_flight + other.in_flight,
            completed: self.completed + other.completed,
            failed: self.failed + other.failed,
            mismatch: self.mismatch + other.mismatch,
            lapsed: self.lapsed + other.lapsed,
        }
    }
}
