//! SQLite: `INSERT … ON CONFLICT DO NOTHING`, write-ahead log, synchronous = FULL.
//!
//! One connection writes, behind a mutex. With a connection for each thread, SQLite's own lock is
//! waited for by sleeping and trying again. Reading has a connection for each that reads at once.

use std::ops::Range;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};

use super::{CACHE_BYTES, Claimed, Failure, Id, Key, Owner, Peer, Settings, millis, now_millis};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS operations (
    id BLOB PRIMARY KEY, claimed_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, reply BLOB
) WITHOUT ROWID";
const EXPIRIES: &str = "CREATE INDEX IF NOT EXISTS expiries ON operations (expires_at)";
const SELECT: &str = "SELECT expires_at, reply FROM operations WHERE id = ?1";
const INSERT: &str = "INSERT INTO operations VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
const RENEW: &str = "UPDATE operations SET claimed_at = ?2, expires_at = ?3, reply = NULL
    WHERE id = ?1 AND expires_at <= ?2";
const COMPLETE: &str = "UPDATE operations SET expires_at = ?2, reply = ?3 WHERE id = ?1";
const DELETE: &str = "DELETE FROM operations WHERE id IN
    (SELECT id FROM operations WHERE expires_at <= ?1 LIMIT 1000)";

/// Rows deleted in a transaction, as in `DELETE`.
const SWEEP: usize = 1000;

pub(super) struct Sqlite {
    path: PathBuf,
    writer: Mutex<Connection>,
    /// Those that nobody reads with now.
    readers: Mutex<Vec<Connection>>,
    window: u64,
}

impl Sqlite {
    pub(super) fn open(at: &Path, with: &Settings) -> Result<Self, Failure> {
        let path = at.join("table.sqlite");
        let writer = connect(&path)?;
        writer.execute_batch(TABLE)?;
        if with.expiring {
            writer.execute_batch(EXPIRIES)?;
        }
        let window = millis(with.window);
        Ok(Sqlite { path, writer: Mutex::new(writer), readers: Mutex::default(), window })
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Failure>) -> Result<T, Failure> {
        let idle = self.readers.lock().pop();
        let reader = match idle {
            Some(reader) => reader,
            None => connect(&self.path)?,
        };
        let result = work(&reader)?;
        self.readers.lock().push(reader);
        Ok(result)
    }
}

impl Peer for Sqlite {
    fn claim(&self, key: Key) -> Result<Claimed, Failure> {
        let (id, now) = (key.id(), now_millis());
        if let Some(seen) = self.read(|reader| seen(reader, &id, now))? {
            return Ok(seen);
        }
        let writer = self.writer.lock();
        let until = now + self.window;
        let inserted =
            writer.prepare_cached(INSERT)?.execute(params![id, now, until, None::<&[u8]>])?;
        if inserted == 0 && writer.prepare_cached(RENEW)?.execute(params![id, now, until])? == 0 {
            return seen(&writer, &id, now)?.ok_or_else(|| "neither there nor over".into());
        }
        Ok(Claimed::New(Owner::by_insertion()))
    }

    fn complete(&self, key: Key, owner: Owner, reply: &[u8]) -> Result<(), Failure> {
        let until = now_millis() + self.window;
        let writer = self.writer.lock();
        writer.prepare_cached(COMPLETE)?.execute(params![key.id(), until, reply])?;
        owner.keep();
        Ok(())
    }

    fn lookup(&self, key: Key) -> Result<Option<Vec<u8>>, Failure> {
        self.read(|reader| {
            let mut select = reader.prepare_cached(SELECT)?;
            let reply = select.query_row([key.id()], |row| row.get::<_, Option<Vec<u8>>>(1));
            Ok(reply.optional()?.flatten())
        })
    }

    fn fill(&self, keys: Range<u64>, reply: Option<&[u8]>) -> Result<(), Failure> {
        let mut ids: Vec<Id> = keys.map(|number| Key(number).id()).collect();
        ids.sort_unstable();
        let now = now_millis();
        let mut writer = self.writer.lock();
        let transaction = writer.transaction()?;
        for id in ids {
            let mut insert = transaction.prepare_cached(INSERT)?;
            insert.execute(params![id, now, now + self.window, reply])?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn expire(&self) -> Result<(), Failure> {
        let now = now_millis();
        while self.writer.lock().prepare_cached(DELETE)?.execute([now])? == SWEEP {}
        Ok(())
    }
}

fn seen(connection: &Connection, id: &Id, now: u64) -> Result<Option<Claimed>, Failure> {
    let mut select = connection.prepare_cached(SELECT)?;
    let found = select
        .query_row([id], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, Option<Vec<u8>>>(1)?)))
        .optional()?;
    Ok(found.filter(|(expires_at, _)| *expires_at > now).map(|(_, reply)| match reply {
        Some(reply) => Claimed::Completed(reply),
        None => Claimed::InFlight,
    }))
}

fn connect(path: &Path) -> Result<Connection, Failure> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let kibibytes = i64::try_from(CACHE_BYTES >> 10)?;
    connection.pragma_update(None, "cache_size", -kibibytes)?;
    Ok(connection)
}
