//! Plain redb: hash → record, a transaction for each claim.
//!
//! It is asked in a read transaction first, which spares a duplicate the one writer.

use std::ops::Range;
use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::record::Row;
use super::{Claimed, Failure, Id, Key, Owner, Peer, Settings, millis, now_millis};

const OPERATIONS: TableDefinition<&Id, &[u8]> = TableDefinition::new("operations");
const EXPIRIES: TableDefinition<(u64, &Id), ()> = TableDefinition::new("expiries");

/// Rows deleted in a transaction.
const SWEEP: usize = 1000;

pub(super) struct Redb {
    database: Database,
    window: u64,
    expiring: bool,
}

impl Redb {
    pub(super) fn open(at: &Path, with: &Settings) -> Result<Self, Failure> {
        let database = Database::create(at.join("table.redb"))?;
        let write = database.begin_write()?;
        write.open_table(OPERATIONS)?;
        write.open_table(EXPIRIES)?;
        write.commit()?;
        Ok(Redb { database, window: millis(with.window), expiring: with.expiring })
    }

    fn put(&self, write: &WriteTransaction, id: &Id, row: Row<'_>) -> Result<(), Failure> {
        write.open_table(OPERATIONS)?.insert(id, &row.to_bytes()[..])?;
        if self.expiring {
            write.open_table(EXPIRIES)?.insert((row.expires_at, id), ())?;
        }
        Ok(())
    }

    fn row<'a>(&self, now: u64, reply: Option<&'a [u8]>) -> Row<'a> {
        Row { claimed_at: now, expires_at: now + self.window, reply }
    }
}

impl Peer for Redb {
    fn claim(&self, key: Key) -> Result<Claimed, Failure> {
        let (id, now) = (key.id(), now_millis());
        let read = self.database.begin_read()?.open_table(OPERATIONS)?;
        if let Some(seen) = seen(&read, &id, now)? {
            return Ok(seen);
        }
        drop(read);
        let write = self.database.begin_write()?;
        if let Some(seen) = seen(&write.open_table(OPERATIONS)?, &id, now)? {
            return Ok(seen);
        }
        self.put(&write, &id, self.row(now, None))?;
        write.commit()?;
        Ok(Claimed::New(Owner::by_insertion()))
    }

    fn complete(&self, key: Key, owner: Owner, reply: &[u8]) -> Result<(), Failure> {
        let (id, now) = (key.id(), now_millis());
        let write = self.database.begin_write()?;
        let found = claimed(&write.open_table(OPERATIONS)?, &id)?;
        let (claimed_at, expires_at) = found.ok_or("what is completed was claimed before")?;
        if self.expiring {
            write.open_table(EXPIRIES)?.remove((expires_at, &id))?;
        }
        self.put(&write, &id, Row { claimed_at, ..self.row(now, Some(reply)) })?;
        write.commit()?;
        owner.keep();
        Ok(())
    }

    fn lookup(&self, key: Key) -> Result<Option<Vec<u8>>, Failure> {
        let read = self.database.begin_read()?.open_table(OPERATIONS)?;
        let Some(found) = read.get(&key.id())? else { return Ok(None) };
        Ok(Row::from_bytes(found.value())?.reply.map(<[u8]>::to_vec))
    }

    fn fill(&self, keys: Range<u64>, reply: Option<&[u8]>) -> Result<(), Failure> {
        let mut ids: Vec<Id> = keys.map(|number| Key(number).id()).collect();
        ids.sort_unstable();
        let bytes = self.row(now_millis(), reply).to_bytes();
        let write = self.database.begin_write()?;
        let mut operations = write.open_table(OPERATIONS)?;
        for id in &ids {
            operations.insert(id, &bytes[..])?;
        }
        drop(operations);
        write.commit()?;
        Ok(())
    }

    fn expire(&self) -> Result<(), Failure> {
        let now = now_millis();
        loop {
            let write = self.database.begin_write()?;
            let swept =
                sweep(&mut write.open_table(OPERATIONS)?, &mut write.open_table(EXPIRIES)?, now)?;
            write.commit()?;
            if swept < SWEEP {
                return Ok(());
            }
        }
    }
}

fn seen(
    table: &impl ReadableTable<&'static Id, &'static [u8]>,
    id: &Id,
    now: u64,
) -> Result<Option<Claimed>, Failure> {
    match table.get(id)? {
        Some(found) => Ok(Row::from_bytes(found.value())?.seen_at(now)),
        None => Ok(None),
    }
}

fn claimed(
    table: &impl ReadableTable<&'static Id, &'static [u8]>,
    id: &Id,
) -> Result<Option<(u64, u64)>, Failure> {
    let Some(found) = table.get(id)? else { return Ok(None) };
    let row = Row::from_bytes(found.value())?;
    Ok(Some((row.claimed_at, row.expires_at)))
}

fn sweep(
    operations: &mut Table<'_, &'static Id, &'static [u8]>,
    expiries: &mut Table<'_, (u64, &'static Id), ()>,
    now: u64,
) -> Result<usize, Failure> {
    let mut over: Vec<(u64, Id)> = Vec::new();
    for entry in expiries.range(..(now, &[0; 16]))?.take(SWEEP) {
        let (key, ()) = entry.map(|(key, _)| (key, ()))?;
        let (expires_at, id) = key.value();
        over.push((expires_at, *id));
    }
    for (expires_at, id) in &over {
        expiries.remove((*expires_at, id))?;
        operations.remove(id)?;
    }
    Ok(over.len())
}
