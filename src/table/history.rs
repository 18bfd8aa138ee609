//! Walking back over the records of one request, from newer to older.

use super::Table;
use crate::error::Error;
use crate::generation::{Generation, Generations};
use crate::record::{Position, Record};

impl Table {
    /// The record that one took the place of, where it is of the same request and still there. An
    /// older file may be gone; and a crash may have taken the row that `prev` names and left the
    /// record that names it, or given the row to another record since.
    pub(crate) fn record_before(
        &self,
        record: &Record,
        generations: &Generations,
    ) -> Result<Option<Record>, Error> {
        let Some(position) = record.prev else { return Ok(None) };
        let Some(generation) = generations.get(position.generation) else { return Ok(None) };
        let before = match self.row(&generation, position) {
            Err(_) if generation.is_retired() => None,
            read => read?,
        };
        Ok(before.filter(|before| {
            before.request_id() == record.request_id() && before.sequence < record.sequence
        }))
    }

    fn row(&self, generation: &Generation, position: Position) -> Result<Option<Record>, Error> {
        if let Some(record) = generation.durable(position.row)? {
            return Ok(Some(record));
        }
        if let Some((record, _)) = self.committer.pending(position)? {
            return Ok(Some(record));
        }
        // It became durable between the two looks, or it is nowhere.
        generation.durable(position.row)
    }
}
