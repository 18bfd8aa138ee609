//! RocksDB: a get and a synced put under a lock for the key, with a bloom filter of 10 bits.
//!
//! Its own group commit puts the claims of many threads behind one sync. What is over is dropped by
//! a compaction filter, as its documentation has it for rows with a life of their own.

use std::ops::Range;
use std::path::Path;

use rocksdb::compaction_filter::Decision;
use rocksdb::{
    BlockBasedOptions, Cache, DB, Options, WaitForCompactOptions, WriteBatch, WriteOptions,
};

use super::record::Row;
use super::stripes::Stripes;
use super::{CACHE_BYTES, Claimed, Failure, Key, Owner, Peer, Settings, millis, now_millis};

const BLOOM_BITS: f64 = 10.0;

pub(super) struct Rocks {
    database: DB,
    stripes: Stripes,
    synced: WriteOptions,
    window: u64,
}

impl Rocks {
    pub(super) fn open(at: &Path, with: &Settings) -> Result<Self, Failure> {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_bloom_filter(BLOOM_BITS, false);
        blocks.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&blocks);
        if with.expiring {
            options.set_periodic_compaction_seconds(with.window.as_secs().max(1));
            options.set_compaction_filter("over", |_level, _key, value| {
                match Row::from_bytes(value) {
                    Ok(row) if row.expires_at <= now_millis() => Decision::Remove,
                    _ => Decision::Keep,
                }
            });
        }
        let database = DB::open(&options, at)?;
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        Ok(Rocks { database, stripes: Stripes::new(), synced, window: millis(with.window) })
    }

    fn row<'a>(&self, now: u64, reply: Option<&'a [u8]>) -> Row<'a> {
        Row { claimed_at: now, expires_at: now + self.window, reply }
    }
}

impl Peer for Rocks {
    fn claim(&self, key: Key) -> Result<Claimed, Failure> {
        let (id, now) = (key.id(), now_millis());
        let _stripe = self.stripes.of(&id);
        if let Some(found) = self.database.get_pinned(id)?
            && let Some(seen) = Row::from_bytes(&found)?.seen_at(now)
        {
            return Ok(seen);
        }
        self.database.put_opt(id, self.row(now, None).to_bytes(), &self.synced)?;
        Ok(Claimed::New(Owner::by_insertion()))
    }

    fn complete(&self, key: Key, owner: Owner, reply: &[u8]) -> Result<(), Failure> {
        let id = key.id();
        let _stripe = self.stripes.of(&id);
        let found = self.database.get_pinned(id)?.ok_or("it was claimed before")?;
        let claimed_at = Row::from_bytes(&found)?.claimed_at;
        let row = Row { claimed_at, ..self.row(now_millis(), Some(reply)) };
        self.database.put_opt(id, row.to_bytes(), &self.synced)?;
        owner.keep();
        Ok(())
    }

    fn lookup(&self, key: Key) -> Result<Option<Vec<u8>>, Failure> {
        let Some(found) = self.database.get_pinned(key.id())? else { return Ok(None) };
        Ok(Row::from_bytes(&found)?.reply.map(<[u8]>::to_vec))
    }

    fn fill(&self, keys: Range<u64>, reply: Option<&[u8]>) -> Result<(), Failure> {
        let bytes = self.row(now_millis(), reply).to_bytes();
        let mut batch = WriteBatch::default();
        for number in keys {
            batch.put(Key(number).id(), &bytes);
        }
        self.database.write_opt(batch, &self.synced)?;
        Ok(())
    }

    fn rest(&self) -> Result<(), Failure> {
        Ok(self.database.wait_for_compact(&WaitForCompactOptions::default())?)
    }
}
