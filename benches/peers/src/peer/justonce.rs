//! justonce as its README has it, with its defaults.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use justonce::{Claim, Durability, Operation, Options, Store, Ticket};

use super::{Claimed, Failure, Key, Owner, Peer, Settings, Tasks};

const PROJECT: &str = "acme";
const BATCH: u64 = 8192;

pub(super) struct JustOnce {
    store: Store,
    window: Duration,
}

impl JustOnce {
    pub(super) fn open(at: &Path, with: &Settings, strict: bool) -> Result<Self, Failure> {
        let durability = if strict { Durability::Strict } else { Durability::Synced };
        // A record is not over before its lease is.
        let lease = with.window.min(Duration::from_mins(10));
        let options = Options::new().window(with.window).lease(lease).durability(durability);
        Ok(JustOnce { store: options.open(at.join("store"))?, window: with.window })
    }
}

impl Peer for JustOnce {
    fn claim(&self, key: Key) -> Result<Claimed, Failure> {
        match self.store.claim(operation(key)).wait()? {
            Claim::New(ticket) | Claim::Resumed(ticket, _) => Ok(Claimed::New(Owner(Some(ticket)))),
            Claim::InFlight(_) => Ok(Claimed::InFlight),
            Claim::Completed(reply) => Ok(Claimed::Completed(reply.into_body())),
            other => Err(unexpected(&other)),
        }
    }

    fn complete(&self, _key: Key, owner: Owner, reply: &[u8]) -> Result<(), Failure> {
        Ok(ticket(owner)?.complete(reply).wait()?)
    }

    fn lookup(&self, key: Key) -> Result<Option<Vec<u8>>, Failure> {
        let entry = self.store.lookup(PROJECT, key.name()).wait()?;
        Ok(entry.and_then(|entry| Some(entry.reply()?.body().to_vec())))
    }

    fn fill(&self, keys: Range<u64>, reply: Option<&[u8]>) -> Result<(), Failure> {
        // Tickets that are kept for the run are not to lapse within it.
        let lease = self.window.max(Duration::from_hours(24));
        let mut from = keys.start;
        while from < keys.end {
            let batch = from..keys.end.min(from + BATCH);
            from = batch.end;
            let operations = batch.map(|number| operation(Key(number)).lease(lease));
            let mut completed = Vec::new();
            for claim in self.store.claim_many(operations).wait()? {
                match (claim, reply) {
                    (Claim::New(ticket), None) => Owner(Some(ticket)).keep(),
                    (Claim::New(ticket), Some(reply)) => completed.push(ticket.complete(reply)),
                    (other, _) => return Err(unexpected(&other)),
                }
            }
            for pending in completed {
                pending.wait()?;
            }
        }
        Ok(())
    }

    fn tasks(&self) -> Option<Tasks> {
        Some(Tasks::JustOnce(self.store.clone()))
    }
}

impl Drop for JustOnce {
    fn drop(&mut self) {
        // Tickets that are kept hold the store open. What fails here fails when it is opened again.
        let _ = self.store.close().wait();
    }
}

pub(super) async fn claim(store: &Store, key: Key) -> Result<Owner, Failure> {
    match store.claim(operation(key)).await? {
        Claim::New(ticket) => Ok(Owner(Some(ticket))),
        other => Err(unexpected(&other)),
    }
}

pub(super) fn ticket(owner: Owner) -> Result<Ticket, Failure> {
    owner.0.ok_or_else(|| "an owner without a ticket".into())
}

fn operation(key: Key) -> Operation {
    Operation::new(PROJECT, key.name())
}

fn unexpected(claim: &Claim) -> Failure {
    format!("a claim was answered with {claim:?}").into()
}
