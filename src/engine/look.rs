//! What is on disk, for those who look into a store: the history of a request, the generations.

use std::path::Path;

use super::Engine;
use crate::claim::{Entry, MAX_HISTORY_ENTRIES};
use crate::clock::system_time;
use crate::error::Error;
use crate::generation::Generation;
use crate::identity::OperationId;
use crate::pending::Pending;
use crate::record::transition::{Found, LapseCause, Moment, Standing, standing};
use crate::record::{Failure, Position, Record, State};
use crate::store::{GenerationInfo, GenerationState};
use crate::sync::Arc;
use crate::table::Seen;

impl Engine {
    /// The records of the request that an operation has now, newest first.
    pub(crate) fn history(self: &Arc<Self>, operation: OperationId) -> Pending<Vec<Entry>> {
        self.read_history(operation).unwrap_or_else(Pending::refused)
    }

    fn read_history(&self, operation: OperationId) -> Result<Pending<Vec<Entry>>, Error> {
        let Some(Seen { found, rests_on }) = self.table.look_up(operation, self.now())? else {
            return Ok(Pending::ready(Vec::new()));
        };
        let mut entries = Vec::new();
        let (mut record, mut came_to) = (found.record.clone(), standing(&found, &self.moment()));
        // Of an operation that is over or forgotten nothing is told, whatever is still on disk.
        while let Some(entry) = Entry::new(record.clone(), came_to)
            && entries.len() < MAX_HISTORY_ENTRIES
        {
            entries.push(entry);
            let before = self.table.record_before(&record, &self.generations)?;
            let Some(before) = before else { break };
            came_to = self.came_to(&before, &record);
            record = before;
        }
        // What is older is durable no later.
        Ok(Pending::resting_on(self.committer.to_await(rests_on), entries))
    }

    /// How a record stood when another took its place.
    fn came_to(&self, record: &Record, next: &Record) -> Standing {
        let exhausted = matches!(next.state, State::Failed(Failure::AttemptsExhausted));
        let State::InFlight { lease_until } = record.state else {
            let moment = self.moment_of(next);
            return standing(&found(record), &Moment { now: record.changed_at, ..moment });
        };
        if record.fence == next.fence && !exhausted {
            // Its owner went on, even if late.
            return Standing::InFlight { lease_until };
        }
        match standing(&found(record), &self.moment_of(next)) {
            // Only one thing ends an ownership whose lease runs, in the run that gave it.
            Standing::InFlight { .. } => Standing::Lapsed(LapseCause::Dropped),
            came_to => came_to,
        }
    }

    fn moment_of(&self, record: &Record) -> Moment {
        Moment { now: record.changed_at, epoch: record.epoch, ..self.moment() }
    }

    /// An error where the store is closed, or in a forked child.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        self.committer.check_process()?;
        self.committer.check_open()
    }

    /// Where it is, if it is a directory of the system's.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.storage.place.directory.path()
    }

    /// The generations, oldest first.
    pub(crate) fn generation_infos(&self) -> Result<Vec<GenerationInfo>, Error> {
        self.check_open()?;
        self.generations.all().iter().map(|of| self.generation_info(of)).collect()
    }

    fn generation_info(&self, generation: &Generation) -> Result<GenerationInfo, Error> {
        let rows = generation.durable_rows();
        let state = if generation.is_seal_listed() {
            GenerationState::Sealed
        } else if self.committer.is_open(generation) {
            GenerationState::Open
        } else if rows == 0 {
            GenerationState::Spare
        } else {
            GenerationState::Frozen
        };
        Ok(GenerationInfo {
            id: generation.id,
            state,
            records: u64::from(rows),
            unanswered: generation.unanswered_count(),
            bytes: self.storage.place.generation_bytes(generation.id)?,
            retained_until: (rows > 0).then(|| system_time(generation.retained_until())),
        })
    }
}

fn found(record: &Record) -> Found {
    // Nothing will take its place, so nothing asks where it stands.
    let position = Position { generation: 0, row: 0 };
    Found { record: record.clone(), position, owner_dropped: false }
}
