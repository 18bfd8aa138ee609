//! fjall: a get, an insert and a persist under a lock for the key.
//!
//! Its journal is allocated ahead, so `SyncData` makes an insert durable. What is over is dropped
//! by a compaction filter.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fjall::compaction::filter::{
    CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict,
};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::record::Row;
use super::stripes::Stripes;
use super::{CACHE_BYTES, Claimed, Failure, Key, Owner, Peer, Settings, millis, now_millis};

pub(super) struct Fjall {
    database: Database,
    operations: Keyspace,
    stripes: Stripes,
    window: u64,
}

impl Fjall {
    pub(super) fn open(at: &Path, with: &Settings) -> Result<Self, Failure> {
        let mut builder = Database::builder(at).cache_size(CACHE_BYTES as u64);
        if with.expiring {
            builder = builder.with_compaction_filter_factories(Arc::new(|_keyspace| {
                Some(Arc::new(Over) as Arc<dyn Factory>)
            }));
        }
        let database = builder.open()?;
        let operations = database.keyspace("operations", KeyspaceCreateOptions::default)?;
        Ok(Fjall { database, operations, stripes: Stripes::new(), window: millis(with.window) })
    }

    fn row<'a>(&self, now: u64, reply: Option<&'a [u8]>) -> Row<'a> {
        Row { claimed_at: now, expires_at: now + self.window, reply }
    }
}

impl Peer for Fjall {
    fn claim(&self, key: Key) -> Result<Claimed, Failure> {
        let (id, now) = (key.id(), now_millis());
        let _stripe = self.stripes.of(&id);
        if let Some(found) = self.operations.get(id)?
            && let Some(seen) = Row::from_bytes(&found)?.seen_at(now)
        {
            return Ok(seen);
        }
        self.operations.insert(id, self.row(now, None).to_bytes())?;
        self.database.persist(PersistMode::SyncData)?;
        Ok(Claimed::New(Owner::by_insertion()))
    }

    fn complete(&self, key: Key, owner: Owner, reply: &[u8]) -> Result<(), Failure> {
        let id = key.id();
        let _stripe = self.stripes.of(&id);
        let found = self.operations.get(id)?.ok_or("it was claimed before")?;
        let claimed_at = Row::from_bytes(&found)?.claimed_at;
        let row = Row { claimed_at, ..self.row(now_millis(), Some(reply)) };
        self.operations.insert(id, row.to_bytes())?;
        self.database.persist(PersistMode::SyncData)?;
        owner.keep();
        Ok(())
    }

    fn lookup(&self, key: Key) -> Result<Option<Vec<u8>>, Failure> {
        let Some(found) = self.operations.get(key.id())? else { return Ok(None) };
        Ok(Row::from_bytes(&found)?.reply.map(<[u8]>::to_vec))
    }

    fn fill(&self, keys: Range<u64>, reply: Option<&[u8]>) -> Result<(), Failure> {
        let bytes = self.row(now_millis(), reply).to_bytes();
        for number in keys {
            self.operations.insert(Key(number).id(), &bytes[..])?;
        }
        Ok(self.database.persist(PersistMode::SyncData)?)
    }

    fn rest(&self) -> Result<(), Failure> {
        while self.database.outstanding_flushes() > 0 || self.database.active_compactions() > 0 {
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// Drops rows that are over.
struct Over;

impl Factory for Over {
    fn name(&self) -> &'static str {
        "over"
    }

    fn make_filter(&self, _context: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Over)
    }
}

impl CompactionFilter for Over {
    fn filter_item(
        &mut self,
        item: ItemAccessor<'_>,
        _context: &Context,
    ) -> CompactionFilterResult {
        let value = item.value()?;
        match Row::from_bytes(&value) {
            Ok(row) if row.expires_at <= now_millis() => Ok(Verdict::Remove),
            _ => Ok(Verdict::Keep),
        }
    }
}
