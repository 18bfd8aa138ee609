//! Walking back over the records of one request, from newer to older.

use super::Table;
use crate::error::Error;
use crate::generation::Generations;
use crate::record::Record;

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
        let before = match self.row(&generation, position.row) {
            Err(_) if generation.is_retired() => None,
            read => read?,
        };
        Ok(before.map(|(before, _)| before).filter(|before| {
            before.request_id() == record.request_id() && before.sequence < record.sequence
        }))
    }
}
