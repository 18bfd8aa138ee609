//! The ledger: the books that the store is checked against, kept by another process and from the
//! facts alone.
//!
//! Facts of one client come in the order it told them; those of different clients may come in any
//! order. So nothing is judged when it is entered; [`audit`](crate::audit) judges at the end.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::facts::{Answer, Fact, How, Shown, Ticket, Told, Totals, TurnedAway};
use crate::traffic::Plan;

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) accounts: BTreeMap<usize, Account>,
    pub(crate) begun: HashSet<usize>,
    pub(crate) ended: HashSet<usize>,
    /// One for each process that had the store open.
    pub(crate) runs: Vec<Run>,
    pub(crate) times: Times,
    /// Facts of an owner that the ledger does not know: there should be none.
    pub(crate) strangers: Vec<String>,
}

/// What is known of an operation.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) requests: BTreeSet<String>,
    /// By fence.
    pub(crate) owners: BTreeMap<u64, Owner>,
    /// All replies that anyone was shown.
    pub(crate) shown: BTreeSet<Answer>,
}

/// Who won a claim, and what became of it.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) run: usize,
    pub(crate) ticket: Ticket,
    /// When the claim's answer was told.
    pub(crate) told: u64,
    pub(crate) calls: u32,
    pub(crate) dispatched: bool,
    pub(crate) noted: bool,
    /// What it was about to store.
    pub(crate) settling: Option<Answer>,
    pub(crate) settled: bool,
    /// When it was about to drop its ticket, or to give it back.
    pub(crate) dropping: Option<u64>,
    pub(crate) releasing: Option<u64>,
    pub(crate) hangs: bool,
    pub(crate) lost: bool,
}

/// What one process did.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// Operations without a reply that it found.
    pub(crate) unanswered: usize,
    /// The books' own count of what the store counts as well.
    pub(crate) counted: Totals,
    /// The store's, where the process ended in good order.
    pub(crate) told: Option<Totals>,
    pub(crate) waited: u64,
    pub(crate) busy: u64,
    /// Submissions that its end cut off.
    pub(crate) cut_off: usize,
    /// How few and how many operations without a reply it can have left.
    pub(crate) leaves: (usize, usize),
    pub(crate) was_killed: bool,
}

/// How long calls took, in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Times {
    pub(crate) claims: Vec<u64>,
    pub(crate) duplicates: Vec<u64>,
}

impl Ledger {
    /// Opens the page of the next process.
    pub(crate) fn begin_run(&mut self) {
        self.runs.push(Run::default());
    }

    /// Closes it: whatever has begun and not ended was cut off.
    pub(crate) fn end_run(&mut self, was_killed: bool, plan: &Plan) {
        let cut_off: Vec<_> = self.begun.difference(&self.ended).copied().collect();
        let leaves = self.unanswered(&cut_off, plan);
        if let Some(run) = self.runs.last_mut() {
            *run = Run { cut_off: cut_off.len(), leaves, was_killed, ..std::mem::take(run) };
        }
        self.begun.retain(|submission| self.ended.contains(submission));
    }

    pub(crate) fn enter(&mut self, told: Told) {
        let number = self.runs.len().saturating_sub(1);
        let Some(run) = self.runs.last_mut() else { return };
        let at = told.at;
        match told.fact {
            Fact::Opened { unanswered } => run.unanswered = unanswered,
            Fact::Closed(totals) => run.told = Some(totals),
            Fact::Busy => run.busy += 1,
            Fact::Begun { submission } => {
                self.begun.insert(submission);
            }
            Fact::Ended { submission } => {
                self.ended.insert(submission);
            }
            Fact::Won { operation, fence, ticket } => {
                run.counted.records_written += 1;
                if ticket.resumed.is_some() {
                    run.counted.resumed += 1;
                } else {
                    run.counted.new += 1;
                    self.times.claims.extend(ticket.took);
                }
                let account = self.accounts.entry(operation).or_default();
                account.requests.insert(ticket.request.clone());
                account.owners.insert(fence, Owner::new(number, ticket, at));
            }
            Fact::TurnedAway { operation, request, why, took } => {
                match why {
                    TurnedAway::InFlight => run.counted.in_flight += 1,
                    TurnedAway::Mismatch => run.counted.mismatch += 1,
                }
                self.times.duplicates.extend(took);
                self.accounts.entry(operation).or_default().requests.insert(request);
            }
            Fact::Shown { operation, shown: Shown { request, answer }, how, took } => {
                match how {
                    How::Claimed if answer.has_failed => run.counted.failed += 1,
                    How::Claimed => run.counted.completed += 1,
                    How::Waited => run.waited += 1,
                    How::Owned => {}
                }
                self.times.duplicates.extend(took);
                let account = self.accounts.entry(operation).or_default();
                account.requests.insert(request);
                account.shown.insert(answer);
            }
            fact => self.enter_owners(number, at, fact),
        }
    }

    /// Enters what an owner tells of its work.
    fn enter_owners(&mut self, number: usize, at: u64, fact: Fact) {
        let (Fact::Dispatched { operation, fence }
        | Fact::Noted { operation, fence }
        | Fact::Calling { operation, fence }
        | Fact::Settling { operation, fence, .. }
        | Fact::Settled { operation, fence }
        | Fact::Releasing { operation, fence }
        | Fact::Released { operation, fence }
        | Fact::Dropping { operation, fence }
        | Fact::Hanging { operation, fence }
        | Fact::LeaseLost { operation, fence }) = fact
        else {
            return;
        };
        let account = self.accounts.entry(operation).or_default();
        let Some(owner) = account.owners.get_mut(&fence).filter(|owner| owner.run == number) else {
            self.strangers.push(format!("operation {operation}, fence {fence}: {fact:?}"));
            return;
        };
        let mut wrote = 0;
        match fact {
            Fact::Dispatched { .. } => (owner.dispatched, wrote) = (true, 1),
            Fact::Noted { .. } => (owner.noted, wrote) = (true, 1),
            Fact::Settled { .. } => (owner.settled, wrote) = (true, 1),
            Fact::Released { .. } => wrote = 1,
            Fact::Calling { .. } => owner.calls += 1,
            Fact::Settling { reply, .. } => owner.settling = Some(reply),
            Fact::Releasing { .. } => owner.releasing = Some(at),
            Fact::Dropping { .. } => owner.dropping = Some(at),
            Fact::Hanging { .. } => owner.hangs = true,
            Fact::LeaseLost { .. } => owner.lost = true,
            _ => {}
        }
        if let Some(run) = self.runs.last_mut() {
            run.counted.records_written += wrote;
        }
    }

    /// Operations without a reply: those that certainly have none, and those that may have none.
    /// A claim or a reply whose acknowledgement was cut off may be there.
    fn unanswered(&self, cut_off: &[usize], plan: &Plan) -> (usize, usize) {
        let lacks_reply = |account: &&Account| !account.is_answered();
        let may_lack: Vec<_> = self.accounts.values().filter(lacks_reply).collect();
        let certainly = may_lack.iter().filter(|account| {
            !account.owners.is_empty()
                && account.owners.values().all(|owner| owner.settling.is_none())
        });
        let unheard_of: HashSet<_> = cut_off
            .iter()
            .filter_map(|submission| Some(plan.submissions.get(*submission)?.operation))
            .filter(|operation| !self.accounts.contains_key(operation))
            .collect();
        (certainly.count(), may_lack.len() + unheard_of.len())
    }

    pub(crate) fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.accounts.values().flat_map(|account| account.owners.values())
    }
}

impl Account {
    /// Whether anyone was told a reply, or that it is stored.
    fn is_answered(&self) -> bool {
        !self.shown.is_empty() || self.owners.values().any(|owner| owner.settled)
    }

    /// All replies that were acknowledged or shown: at most one, if the store keeps its word.
    pub(crate) fn answers(&self) -> BTreeSet<&Answer> {
        let stored = self.owners.values().filter(|owner| owner.settled);
        self.shown.iter().chain(stored.filter_map(|owner| owner.settling.as_ref())).collect()
    }
}

impl Owner {
    fn new(run: usize, ticket: Ticket, told: u64) -> Self {
        Owner {
            run,
            ticket,
            told,
            calls: 0,
            dispatched: false,
            noted: false,
            settling: None,
            settled: false,
            dropping: None,
            releasing: None,
            hangs: false,
            lost: false,
        }
    }
}
