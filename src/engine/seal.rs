//! Sealing: the index of a frozen generation goes from memory to its file.
//!
//! ```text
//! copy a shard ─► sort ─► filter and blocks ─► commit some shards ─┐ (256 shards)
//!   file closed ◄── facts ◄────────────────────────────────────────┘
//!   └► opened read-only ─► hashed ─► listed as sealed ─► shards turn to their filters
//! ```
//!
//! A crash anywhere before it is listed leaves a log to be replayed and sealed again; what was
//! written of its index is cleared away then. Until the shards turn to their filters, everything
//! is found through the index in memory.

use super::Engine;
use crate::clock::instant;
use crate::error::Error;
use crate::generation::{Generation, Summary};
use crate::identity::SHARDS;
use crate::observe::{Event, Span};
use crate::sync::{Arc, yield_now};

/// Entries written in one commit: 2 MB, so that no commit of a claim waits behind a long sync.
const ENTRIES_PER_COMMIT: usize = 1 << 18;

impl Engine {
    /// Seals the oldest generation that takes no more records. `false` where there is none.
    pub(super) fn seal_next(&self) -> Result<bool, Error> {
        let is_next = |of: &&Arc<Generation>| !of.is_sealed() && self.committer.is_frozen(of);
        match self.generations.all().iter().find(is_next) {
            Some(generation) => self.seal(generation).map(|()| true),
            None => Ok(false),
        }
    }

    fn seal(&self, generation: &Arc<Generation>) -> Result<(), Error> {
        let began = instant();
        let _span = self.committer.observer.span(Span::Seal { generation: generation.id });
        let Some(summaries) = self.write_index(generation)? else { return Ok(()) };
        self.storage.check_in_place()?;
        generation.turn_read_only(&self.storage.place)?;
        let goes_on = |_| {
            yield_now();
            !self.keeper.is_stopping()
        };
        // Closed in the middle of it, the store opens it unsealed the next time.
        let Some(seal) = self.storage.place.hash(generation.id, goes_on)? else { return Ok(()) };
        // What took the place of a record here is not in its index, so it must not get lost.
        if !cfg!(planted = "seal-not-awaited") {
            self.committer.make_durable()?;
        }
        let unanswered = self.changed_unanswered();
        let marks = self.committer.marks();
        self.storage.manifest.seal_generation(generation.id, seal, &unanswered, marks)?;
        for (shard, summary) in (0..=u8::MAX).zip(summaries) {
            self.table.seal(shard, generation, summary);
        }
        generation.set_seal_listed();
        let (entries, took) = (generation.sealed_entries(), began.elapsed());
        self.committer.observer.tell(Event::Sealed { generation: generation.id, entries, took });
        Ok(())
    }

    /// Writes a generation's index and returns what is kept of it in memory, or nothing where the
    /// store is being closed.
    fn write_index(&self, generation: &Arc<Generation>) -> Result<Option<Vec<Summary>>, Error> {
        let two_phase = self.committer.two_phase();
        let file = generation.log_file()?;
        let mut summaries = Vec::with_capacity(SHARDS);
        let mut unwritten = Vec::new();
        let (mut entries, mut written_entries) = (0, 0);
        for shard in 0..=u8::MAX {
            if self.keeper.is_stopping() {
                return Ok(None);
            }
            let listed = self.table.entries_of(shard, generation.id);
            entries += listed.len();
            let (summary, bytes) = Summary::build(shard, &listed, self.table.max_entries());
            summaries.push(summary);
            unwritten.push(bytes);
            if entries - written_entries >= ENTRIES_PER_COMMIT || shard == u8::MAX {
                file.add_shards(&std::mem::take(&mut unwritten), two_phase)?;
                written_entries = entries;
                // The next lane may have begun meanwhile.
                self.committer.prepare_spare()?;
            }
            yield_now();
        }
        file.finish_index(&generation.facts(entries as u64), two_phase)?;
        Ok(Some(summaries))
    }

    /// The rows without a reply of each sealed generation where they have changed since they were
    /// last written down.
    pub(super) fn changed_unanswered(&self) -> Vec<(u32, Vec<u8>)> {
        let all = self.generations.all();
        let sealed = all.iter().filter(|of| of.is_sealed());
        sealed.filter_map(|of| Some((of.id, of.take_changed_unanswered()?))).collect()
    }
}
