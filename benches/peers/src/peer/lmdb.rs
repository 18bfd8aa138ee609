//! LMDB through heed: a put that overwrites nothing, a transaction for each claim.
//!
//! It is asked in a read transaction first, which spares a duplicate the one writer. LMDB has no
//! cache of its own: it reads the page cache, however large.

use std::ops::Range;
use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, RwTxn};

use super::record::Row;
use super::{Claimed, Failure, Id, Key, Owner, Peer, Settings, millis, now_millis};

/// Address space, not disk.
const MAP_BYTES: usize = 1 << 38;

/// Threads that read at once.
const READERS: u32 = 1024;

/// Rows deleted in a transaction.
const SWEEP: usize = 1000;

type Table = Database<'static, Bytes, Bytes>;

pub(super) struct Lmdb {
    environment: Env,
    operations: Table,
    /// When it is over, big-endian, and id; to nothing.
    expiries: Table,
    window: u64,
    expiring: bool,
}

impl Lmdb {
    pub(super) fn open(at: &Path, with: &Settings) -> Result<Self, Failure> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES).max_readers(READERS).max_dbs(2);
        let environment = open(&options, at)?;
        let operations = table(&environment, "operations")?;
        let expiries = table(&environment, "expiries")?;
        let (window, expiring) = (millis(with.window), with.expiring);
        Ok(Lmdb { environment, operations, expiries, window, expiring })
    }

    fn row<'a>(&self, now: u64, reply: Option<&'a [u8]>) -> Row<'a> {
        Row { claimed_at: now, expires_at: now + self.window, reply }
    }

    fn note_expiry(&self, write: &mut RwTxn<'_>, id: &Id, at: u64) -> Result<(), Failure> {
        if self.expiring {
            self.expiries.put(write, &expiry(at, id), &[])?;
        }
        Ok(())
    }
}

#[expect(unsafe_code, reason = "a map of a file is sound while nobody else changes the file")]
fn open(options: &EnvOpenOptions<heed::WithTls>, at: &Path) -> Result<Env, heed::Error> {
    // SAFETY: the directory is this run's own and the environment is opened once at a time.
    unsafe { options.open(at) }
}

fn table(environment: &Env, name: &str) -> Result<Table, heed::Error> {
    let created = environment
        .create_databases_and_commit(environment.write_txn()?, |open, write| {
            open.create_database(write, Some(name)).map(CommitOrAbort::<_, ()>::Commit)
        });
    Ok(created?.unwrap_commit())
}

impl Peer for Lmdb {
    fn claim(&self, key: Key) -> Result<Claimed, Failure> {
        let (id, now) = (key.id(), now_millis());
        let read = self.environment.read_txn()?;
        if let Some(found) = self.operations.get(&read, &id)?
            && let Some(seen) = Row::from_bytes(found)?.seen_at(now)
        {
            return Ok(seen);
        }
        drop(read);
        let mut write = self.environment.write_txn()?;
        let row = self.row(now, None);
        let bytes = row.to_bytes();
        // With NO_OVERWRITE: what is there stays, and is returned.
        let found = self.operations.get_or_put(&mut write, &id, &bytes)?;
        if let Some(found) = found {
            if let Some(seen) = Row::from_bytes(found)?.seen_at(now) {
                return Ok(seen);
            }
            self.operations.put(&mut write, &id, &bytes)?;
        }
        self.note_expiry(&mut write, &id, row.expires_at)?;
        write.commit()?;
        Ok(Claimed::New(Owner::by_insertion()))
    }

    fn complete(&self, key: Key, owner: Owner, reply: &[u8]) -> Result<(), Failure> {
        let (id, now) = (key.id(), now_millis());
        let mut write = self.environment.write_txn()?;
        let found = self.operations.get(&write, &id)?.ok_or("it was claimed before")?;
        let Row { claimed_at, expires_at, .. } = Row::from_bytes(found)?;
        if self.expiring {
            self.expiries.delete(&mut write, &expiry(expires_at, &id))?;
        }
        let row = Row { claimed_at, ..self.row(now, Some(reply)) };
        self.operations.put(&mut write, &id, &row.to_bytes())?;
        self.note_expiry(&mut write, &id, row.expires_at)?;
        write.commit()?;
        owner.keep();
        Ok(())
    }

    fn lookup(&self, key: Key) -> Result<Option<Vec<u8>>, Failure> {
        let read = self.environment.read_txn()?;
        let Some(found) = self.operations.get(&read, &key.id())? else { return Ok(None) };
        Ok(Row::from_bytes(found)?.reply.map(<[u8]>::to_vec))
    }

    fn fill(&self, keys: Range<u64>, reply: Option<&[u8]>) -> Result<(), Failure> {
        let mut ids: Vec<Id> = keys.map(|number| Key(number).id()).collect();
        ids.sort_unstable();
        let bytes = self.row(now_millis(), reply).to_bytes();
        let mut write = self.environment.write_txn()?;
        for id in &ids {
            self.operations.put(&mut write, id, &bytes)?;
        }
        write.commit()?;
        Ok(())
    }

    fn expire(&self) -> Result<(), Failure> {
        let until = expiry(now_millis(), &[0; 16]);
        loop {
            let mut write = self.environment.write_txn()?;
            let mut over: Vec<Vec<u8>> = Vec::new();
            for entry in self.expiries.iter(&write)?.take(SWEEP) {
                over.push(entry?.0.to_vec());
            }
            over.retain(|expiry| expiry[..] < until[..]);
            for expiry in &over {
                self.expiries.delete(&mut write, expiry)?;
                self.operations.delete(&mut write, &expiry[8..])?;
            }
            write.commit()?;
            if over.len() < SWEEP {
                return Ok(());
            }
        }
    }
}

fn expiry(at: u64, id: &Id) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&at.to_be_bytes());
    key[8..].copy_from_slice(id);
    key
}
