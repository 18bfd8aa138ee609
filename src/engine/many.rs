//! Many claims in one call and one batch.
//!
//! They are done shard by shard, and in the order given within each: so a repeat finds the earlier
//! one, and what is looked up for those of one shard lies together and is fetched together. The
//! answers go back in the order given.

use super::{Engine, later};
use crate::claim::Claim;
use crate::commit::{BatchCell, RECORD_BYTES, Room};
use crate::error::Error;
use crate::pending::Pending;
use crate::record::transition::Terms;
use crate::sync::Arc;

/// One claim of a call, and where its answer goes.
struct Call<'a> {
    shard: u8,
    terms: &'a mut Option<Terms>,
    answer: &'a mut Option<Claim>,
}

impl Engine {
    pub(crate) fn claim_many(self: &Arc<Self>, all: Vec<Terms>) -> Pending<Vec<Claim>> {
        let bytes = all.len().saturating_mul(RECORD_BYTES);
        let claimed = self.committer.together(bytes, || {
            let mut terms: Vec<_> = all.into_iter().map(Some).collect();
            let mut answers: Vec<_> = terms.iter().map(|_| None).collect();
            let rests_on = self.claim_by_shard(&mut terms, &mut answers)?;
            Ok((answers.into_iter().flatten().collect(), rests_on))
        });
        match claimed.flatten() {
            Ok((claims, rests_on)) => Pending::resting_on(rests_on, claims),
            Err(error) => Pending::refused(error),
        }
    }

    /// Answers each claim, and returns the batch that the answers rest on.
    fn claim_by_shard(
        self: &Arc<Self>,
        terms: &mut [Option<Terms>],
        answers: &mut [Option<Claim>],
    ) -> Result<Option<Arc<BatchCell>>, Error> {
        let moment = self.moment();
        let mut latest = None;
        let calls = terms.iter_mut().zip(answers).filter_map(|(terms, answer)| {
            let shard = terms.as_ref()?.operation.shard();
            Some(Call { shard, terms, answer })
        });
        let mut calls: Vec<_> = calls.collect();
        // Not all from the same shard on: calls of several threads would meet at each.
        let first = calls.first().map_or(0, |call| call.shard);
        calls.sort_by_key(|call| call.shard.wrapping_sub(first));
        for of_shard in calls.chunk_by_mut(|one, next| one.shard == next.shard) {
            let terms = of_shard.iter().filter_map(|call| call.terms.as_ref());
            self.table.look_ahead(terms.map(|terms| terms.operation));
            for Call { terms, answer, .. } in of_shard {
                let Some(terms) = terms.take() else { continue };
                let (claim, rests_on) = self.claimed(terms, &moment, Room::Reserved)?;
                // Batches become durable in order, and nothing here rests on a later one than
                // what is written here.
                latest = later(latest.take(), rests_on);
                **answer = Some(claim);
            }
        }
        Ok(latest)
    }
}
