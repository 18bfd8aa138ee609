//! The audit: the ledger against itself, and against the store when all is over.
//!
//! | promise | how it is checked |
//! |---|---|
//! | one request id | all answers of an operation carry the same, and no two operations share one |
//! | one owner | a claim was only won once the owner before was over: by its own word, by its lease, or with its process |
//! | fences grow | no fence was given twice, and attempts grow with fences |
//! | one reply | everyone was shown the same one, and it is one that an owner was about to store |
//! | no reply is lost | whatever was acknowledged or shown is in the store, byte for byte |
//! | work is done once | one call of the model where nothing came between |
//! | notes survive | whoever resumed was told of an acknowledged `mark_dispatched` and `checkpoint` |
//! | all ends | every operation is completed or failed, and there is none besides |

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::path::Path;
use std::time::Duration;

use justonce::{Claim, Entry, EntryState, Filter, Operation, Store};

use crate::facts::{Answer, Why};
use crate::ledger::{Account, Ledger, Owner, Run};
use crate::model;
use crate::traffic::{Plan, Source};
use crate::worker;

/// The store counts in milliseconds, at both ends of a lease.
const ROUNDING: Duration = Duration::from_millis(2);

#[derive(Debug, Default)]
pub(crate) struct Audit {
    pub(crate) completed: usize,
    pub(crate) failed: usize,
    pub(crate) lost_replies: usize,
    pub(crate) double_replies: usize,
    pub(crate) two_owners: usize,
    pub(crate) reply_bytes: usize,
    /// A line each.
    pub(crate) differences: Vec<String>,
}

impl Audit {
    pub(crate) fn of(
        ledger: &Ledger,
        plan: &Plan,
        store: &Path,
        lease: Duration,
    ) -> Result<Self, Box<dyn Error>> {
        let mut audit = Audit::default();
        let none = Account::default();
        let mut requests = HashMap::new();
        let mut fences = HashSet::new();
        for operation in 0..plan.rows.len() {
            let account = ledger.accounts.get(&operation).unwrap_or(&none);
            audit.requests(operation, account, &mut requests);
            audit.owners(operation, account, lease);
            audit.replies(operation, account);
            for fence in account.owners.keys().filter(|fence| !fences.insert(**fence)) {
                audit.differ(operation, format!("fence {fence} was given before"));
            }
        }
        audit.differences.extend(ledger.strangers.iter().cloned());
        audit.runs(&ledger.runs, plan);

        let store = worker::open(store)?;
        audit.whole_store(&store, plan)?;
        for operation in 0..plan.rows.len() {
            let account = ledger.accounts.get(&operation).unwrap_or(&none);
            audit.stored(operation, account, plan, &store)?;
        }
        store.close().wait()?;
        Ok(audit)
    }

    fn differ(&mut self, operation: usize, what: impl std::fmt::Display) {
        self.differences.push(format!("operation {operation}: {what}"));
    }

    fn requests<'l>(
        &mut self,
        operation: usize,
        account: &'l Account,
        all: &mut HashMap<&'l str, usize>,
    ) {
        if account.requests.len() != 1 {
            self.differ(operation, format!("its request ids are {:?}", account.requests));
        }
        for request in &account.requests {
            if let Some(other) = all.insert(request, operation) {
                self.differ(operation, format!("it shares {request} with operation {other}"));
            }
        }
    }

    fn owners(&mut self, operation: usize, account: &Account, lease: Duration) {
        let mut before: Option<(u64, &Owner)> = None;
        let mut dispatched = false;
        let mut noted = None;
        for (&fence, owner) in &account.owners {
            if let Err(why) = succeeds(before.map(|(_, owner)| owner), owner, lease) {
                self.two_owners += 1;
                self.differ(operation, format!("fence {fence}: {why}"));
            }
            if let Some(resumed) = &owner.ticket.resumed {
                if dispatched && !resumed.dispatched {
                    self.differ(operation, format!("fence {fence}: not told of the dispatch"));
                }
                // Another process may have left a later note than it could tell of.
                let same_run = before.is_some_and(|(_, before)| before.run == owner.run);
                if noted.is_some() && (resumed.note.is_none() || same_run && resumed.note != noted)
                {
                    let told = &resumed.note;
                    self.differ(operation, format!("fence {fence}: {noted:?} became {told:?}"));
                }
            }
            if owner.calls > 1 {
                self.differ(operation, format!("fence {fence}: {} model calls", owner.calls));
            }
            dispatched |= owner.dispatched;
            if owner.noted {
                noted = Some(model::call_id(operation, fence));
            }
            before = Some((fence, owner));
        }
        let mut owners = account.owners.values();
        if let (Some(only), None) = (owners.next(), owners.next())
            && only.ticket.resumed.is_none()
            && only.calls != 1
        {
            self.differ(operation, format!("{} model calls, and nothing between", only.calls));
        }
    }

    fn replies(&mut self, operation: usize, account: &Account) {
        let answers = account.answers();
        if answers.len() > 1 {
            self.double_replies += 1;
            self.differ(operation, format!("several replies: {answers:?}"));
        }
        for shown in &account.shown {
            if giver(account, shown).is_none() {
                self.differ(operation, format!("nobody gave the reply that was shown: {shown:?}"));
            }
        }
    }

    fn runs(&mut self, runs: &[Run], plan: &Plan) {
        let mut left = (0, 0);
        for (number, run) in (1..).zip(runs) {
            let (least, most) = left;
            if !(least..=most).contains(&run.unanswered) {
                let found = run.unanswered;
                self.differences.push(format!(
                    "process {number}: found {found} operations without a reply, not {least} to {most}"
                ));
            }
            left = run.leaves;
            let Some(told) = run.told else { continue };
            let counted = run.counted;
            let mut same = told;
            // `claim_or_wait` claims several times for one answer, and has duplicates wait.
            same.in_flight = told.in_flight.min(counted.in_flight);
            same.batches = counted.batches;
            if same != counted {
                self.differences.push(format!(
                    "process {number}: the store counted {told:?}, the ledger {counted:?}"
                ));
            }
        }
        if runs.last().is_none_or(|run| run.told.is_none()) {
            self.differences.push("the last process did not close its store".to_owned());
        }
        let wrong = plan.submissions.iter().filter(|of| of.source == Source::WrongBody).count();
        let cut_off: usize = runs.iter().map(|run| run.cut_off).sum();
        let mismatches: u64 = runs.iter().map(|run| run.counted.mismatch).sum();
        if !(wrong..=wrong + cut_off).contains(&usize::try_from(mismatches).unwrap_or(usize::MAX)) {
            self.differences.push(format!("{mismatches} mismatches of {wrong} wrong bodies"));
        }
    }

    fn whole_store(&mut self, store: &Store, plan: &Plan) -> Result<(), justonce::Error> {
        let mut seen = HashSet::new();
        for entry in store.scan(Filter::new()) {
            let entry = entry?;
            let operation = entry.key().and_then(|key| plan.operation_of(key));
            if !operation.is_some_and(|operation| seen.insert(operation)) {
                self.differences.push(format!("an operation nobody asked for: {entry:?}"));
            }
        }
        if seen.len() != plan.rows.len() {
            let (has, asked) = (seen.len(), plan.rows.len());
            self.differences.push(format!("the store lists {has} operations of {asked}"));
        }
        let (unanswered, left) = (store.stats().unanswered, store.in_flight().wait()?.len());
        if (unanswered, left) != (0, 0) {
            self.differences
                .push(format!("{unanswered} operations unanswered, {left} listed as in flight"));
        }
        Ok(())
    }

    /// What a last duplicate is told, and what both look-ups say.
    fn stored(
        &mut self,
        operation: usize,
        account: &Account,
        plan: &Plan,
        store: &Store,
    ) -> Result<(), justonce::Error> {
        let (project, key) = (plan.project(operation), plan.key(operation));
        let asked = Operation::new(&project, &key).fingerprint(plan.body(operation, false));
        let (reply, has_failed) = match store.claim(asked).wait()? {
            Claim::Completed(reply) => (reply, false),
            Claim::Failed(reply) => (reply, true),
            other => {
                self.lost_replies += usize::from(!account.answers().is_empty());
                self.differ(operation, format!("it has no reply: {other:?}"));
                return Ok(());
            }
        };
        self.completed += usize::from(!has_failed);
        self.failed += usize::from(has_failed);
        self.reply_bytes += reply.body().len();
        let stored = Answer {
            attempt: reply.attempt().unwrap_or_default(),
            has_failed,
            digest: model::digest(reply.body()),
        };
        for answer in account.answers() {
            if *answer != stored {
                self.lost_replies += 1;
                self.differ(operation, format!("{answer:?} was promised, {stored:?} is stored"));
            }
        }
        let Some(giver) = giver(account, &stored) else {
            self.differ(operation, format!("nobody gave the reply that is stored: {stored:?}"));
            return Ok(());
        };
        let request = reply.request_id().map(|id| id.to_string()).unwrap_or_default();
        if !account.requests.contains(&request) {
            self.differ(operation, format!("the reply is of another request: {request}"));
        }
        let by_key = store.lookup(&project, &key).wait()?;
        let by_request = match reply.request_id() {
            Some(id) => store.lookup_request(id).wait()?,
            None => None,
        };
        let state = if has_failed { EntryState::Failed } else { EntryState::Completed };
        let agrees = |entry: &Entry| {
            entry.state() == state
                && entry.fence() == giver
                && entry.reply().is_some_and(|looked_up| looked_up.body() == reply.body())
                && entry.is_of(store, &project)
        };
        if !by_key.as_ref().is_some_and(agrees) || !by_request.as_ref().is_some_and(agrees) {
            self.differ(operation, format!("looked up as {by_key:?} and {by_request:?}"));
        }
        Ok(())
    }
}

/// The fence of the owner that was about to store a reply.
fn giver(account: &Account, answer: &Answer) -> Option<u64> {
    let mut owners = account.owners.iter();
    owners.find(|(_, owner)| owner.settling.as_ref() == Some(answer)).map(|(fence, _)| *fence)
}

/// Whether an owner could become one after the one before it.
fn succeeds(before: Option<&Owner>, owner: &Owner, lease: Duration) -> Result<(), String> {
    let attempt = owner.ticket.attempt;
    let Some(resumed) = &owner.ticket.resumed else {
        return match before {
            None if attempt == 1 => Ok(()),
            None => Err(format!("new, and yet attempt {attempt}")),
            Some(before) => Err(format!("new after attempt {}", before.ticket.attempt)),
        };
    };
    // The kill may have come before an owner could tell that it is one: then an attempt is missing.
    let Some(before) = before else {
        let is_of_the_past = owner.run > 0 && resumed.why == Why::Restart && attempt > 1;
        return is_of_the_past
            .then_some(())
            .ok_or_else(|| format!("resumed what was not: {owner:?}"));
    };
    let same_run = before.run == owner.run;
    let is_next = attempt == before.ticket.attempt + 1;
    if !(is_next || !same_run && attempt > before.ticket.attempt) {
        return Err(format!("attempt {attempt} after attempt {}", before.ticket.attempt));
    }
    let lease_micros = u64::try_from((lease.saturating_sub(ROUNDING)).as_micros());
    let is_over = match resumed.why {
        Why::Restart => !same_run,
        Why::Dropped => same_run && before.dropping.is_some_and(|at| at <= owner.told),
        Why::Released => !same_run || before.releasing.is_some_and(|at| at <= owner.told),
        Why::Lease => {
            same_run && lease_micros.is_ok_and(|lease| owner.told >= before.ticket.asked + lease)
        }
    };
    if is_over && !before.settled {
        Ok(())
    } else {
        Err(format!("won by {:?} while {before:?} was the owner", resumed.why))
    }
}
