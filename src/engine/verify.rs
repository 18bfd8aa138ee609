//! Verifying: files against their hashes, records against their checksums, indexes against
//! records, while the store is used.
//!
//! All is read as claims read it, a row or a block at a time; of locks, only those are taken that
//! a look-up takes, and for no longer. What is over and goes meanwhile is no damage.

use std::time::{Duration, Instant};

use super::Engine;
use crate::clock::instant;
use crate::error::{Error, ErrorKind};
use crate::generation::{Entry, Generation, Summary};
use crate::record::Record;
use crate::storage::file_name;
use crate::sync::Arc;
use crate::verify::{Progress, Verified, Verify};

/// Bytes between two looks at the time, and at whether the store was closed.
const BYTES_A_PIECE: u64 = 1 << 16;

/// Bytes between two words to the caller.
const BYTES_A_WORD: u64 = 1 << 20;

impl Engine {
    /// Reads everything and says what is damaged.
    pub(crate) fn verify(&self, verify: Verify<'_>) -> Result<Verified, Error> {
        verify.check()?;
        self.committer.check_open()?;
        let generations = self.generations.all();
        let progress = Progress { generations_in_all: generations.len(), ..Progress::default() };
        let mut verifier = Verifier {
            engine: self,
            verify,
            verified: Verified { progress, damages: Vec::new() },
            began: instant(),
            looked_at: 0,
            told_at: 0,
        };
        verifier.manifest()?;
        for generation in generations {
            match verifier.generation(&generation) {
                Err(error) if error.kind() == ErrorKind::Io && verifier.is_poisoned() => {
                    verifier.verified.progress.unread += 1;
                }
                done => done?,
            }
            verifier.verified.progress.generations += 1;
            verifier.tell();
        }
        Ok(verifier.verified)
    }
}

struct Verifier<'e, 'p> {
    engine: &'e Engine,
    verify: Verify<'p>,
    verified: Verified,
    began: Instant,
    /// Bytes at the last look at the time.
    looked_at: u64,
    /// Bytes at the last word to the caller.
    told_at: u64,
}

impl Verifier<'_, '_> {
    fn manifest(&mut self) -> Result<(), Error> {
        if self.is_poisoned() {
            // A change of it may have stopped half-way, which the next opening mends.
            return Ok(());
        }
        match self.engine.storage.manifest.verify(&self.engine.storage.place) {
            Ok(bytes) => self.spend(bytes),
            Err(error) => self.note(None, error),
        }
    }

    fn is_poisoned(&self) -> bool {
        self.engine.committer.poisoned_by().is_some()
    }

    fn generation(&mut self, generation: &Arc<Generation>) -> Result<(), Error> {
        if let Err(error) = self.file(generation) {
            self.note(Some(generation), error)?;
        }
        if let Err(error) = check_end(generation) {
            self.note(Some(generation), error)?;
        }
        for row in 0..generation.durable_rows() {
            match self.record(generation, row) {
                Ok(bytes) => {
                    self.verified.progress.records += 1;
                    self.spend(bytes as u64)?;
                }
                Err(error) => self.note(Some(generation), error)?,
            }
            if generation.is_retired() {
                return Ok(());
            }
        }
        if generation.is_sealed() {
            self.index(generation)?;
        }
        Ok(())
    }

    /// The file of a sealed generation as a whole.
    fn file(&mut self, generation: &Generation) -> Result<(), Error> {
        if !generation.is_sealed() {
            return Ok(());
        }
        let storage = &self.engine.storage;
        let id = generation.id;
        // It is listed when it has been hashed for the first time.
        let Some(seal) = storage.manifest.seal_of(id)? else { return Ok(()) };
        let mut spent = Ok(());
        let found = storage.place.hash(id, |bytes| {
            spent = self.spend(bytes as u64);
            spent.is_ok() && !generation.is_retired()
        });
        spent?;
        found?.map_or(Ok(()), |found| self.engine.storage.place.compare(id, &seal, &found))
    }

    /// A row by itself, and that its operation is found; how many bytes it takes.
    fn record(&self, generation: &Generation, row: u32) -> Result<usize, Error> {
        let read = generation.durable_measured(row)?;
        let (record, bytes) = read.ok_or_else(|| generation.lacks(row))?;
        if self.is_found(&record)? {
            return Ok(bytes);
        }
        Err(Error::corrupt(format_args!(
            "row {row} of table log in {} is the newest of its operation and no index has it",
            file_name(generation.id)
        )))
    }

    /// Whether a look-up leads to a record or to a newer one of its operation.
    fn is_found(&self, record: &Record) -> Result<bool, Error> {
        match self.engine.table.look_up(record.operation, self.engine.now()) {
            Ok(Some(seen)) if seen.found.record.sequence >= record.sequence => Ok(true),
            // What took its place was over no sooner, and went with its file.
            Ok(_) => Ok(record.retained_until <= self.engine.now()),
            // The newest is in a batch of which nobody knows whether it landed, or in its file.
            Err(error) if error.kind() != ErrorKind::Corrupt && self.is_poisoned() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The index of a sealed generation against its rows.
    fn index(&mut self, generation: &Generation) -> Result<(), Error> {
        let mut entries = 0;
        let mut is_whole = true;
        for shard in 0..=u8::MAX {
            match self.shard(generation, shard) {
                Ok(of_shard) => entries += of_shard,
                Err(error) => {
                    is_whole = false;
                    self.note(Some(generation), error)?;
                }
            }
            if generation.is_retired() {
                return Ok(());
            }
        }
        self.verified.progress.entries += entries;
        if is_whole && entries != generation.sealed_entries() {
            let damage = Error::corrupt(format_args!(
                "table index in {} has {entries} entries and was sealed with {}",
                file_name(generation.id),
                generation.sealed_entries()
            ));
            self.note(Some(generation), damage)?;
        }
        Ok(())
    }

    /// One shard's part of it; how many entries it has.
    fn shard(&mut self, generation: &Generation, shard: u8) -> Result<u64, Error> {
        let Summary { filter, blocks } = generation.summary(shard)?;
        let entries = blocks.entries(generation.blocks()?, shard)?;
        if !entries.is_sorted() {
            return Err(of_entry(generation, shard, "is out of order"));
        }
        for Entry { tag, row } in &entries {
            if filter.as_ref().is_some_and(|filter| !filter.may_have(u64::from(*tag))) {
                return Err(of_entry(generation, shard, "is held back by its filter"));
            }
            let read = match generation.durable_measured(*row) {
                // Named with the rows.
                Err(error) if error.kind() == ErrorKind::Corrupt => continue,
                read => read?,
            };
            let (record, bytes) = read.ok_or_else(|| generation.lacks(*row))?;
            if !self.engine.table.is_listed_under(record.operation, shard, *tag) {
                return Err(of_entry(generation, shard, "names another operation's row"));
            }
            self.spend(bytes as u64)?;
        }
        Ok(entries.len() as u64)
    }

    /// Takes note of damage. What is of a file that is over and gone is none; all else ends it.
    fn note(&mut self, of: Option<&Generation>, error: Error) -> Result<(), Error> {
        self.engine.committer.check_open()?;
        if of.is_some_and(Generation::is_retired) {
            return Ok(());
        }
        if error.kind() != ErrorKind::Corrupt {
            return Err(error);
        }
        self.verified.note(error);
        Ok(())
    }

    /// Counts what is read, waits where that is more than is allowed, and tells the caller.
    fn spend(&mut self, bytes: u64) -> Result<(), Error> {
        self.verified.progress.bytes += bytes;
        let all = self.verified.progress.bytes;
        if all - self.looked_at < BYTES_A_PIECE {
            return Ok(());
        }
        self.looked_at = all;
        if self.verify.stop_when.as_mut().is_some_and(|is_to_stop| is_to_stop()) {
            return Err(Error::new(
                ErrorKind::Closed,
                "verifying was stopped by whoever asked for it: begin again to know",
            ));
        }
        if all - self.told_at >= BYTES_A_WORD {
            self.told_at = all;
            self.tell();
        }
        if let Some(rate) = self.verify.bytes_per_second {
            let due = Duration::from_micros(all.saturating_mul(1_000_000) / rate);
            if let Some(due) = self.began.checked_add(due) {
                // Ends early where the store is closed.
                let _ = self.engine.closed.wait(Some(due));
            }
        }
        self.engine.committer.check_open()
    }

    fn tell(&mut self) {
        if let Some(tell) = &mut self.verify.on_progress {
            tell(&self.verified.progress);
        }
    }
}

/// That there are no rows but those that are counted.
fn check_end(generation: &Generation) -> Result<(), Error> {
    if generation.durable_rows() == 0 {
        return Ok(());
    }
    let snapshot = generation.snapshot()?;
    match snapshot.check_end() {
        // It has another view by now, having been sealed meanwhile.
        Err(_) if !Arc::ptr_eq(&snapshot, &generation.snapshot()?) => {
            generation.snapshot()?.check_end()
        }
        checked => checked,
    }
}

fn of_entry(generation: &Generation, shard: u8, what: &str) -> Error {
    Error::corrupt(format_args!(
        "an entry of shard {shard} of table index in {} {what}",
        file_name(generation.id)
    ))
}
