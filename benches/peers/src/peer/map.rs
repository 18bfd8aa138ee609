//! A limit: a map in memory, in 256 shards with a lock each. Nothing is on disk.

use std::collections::HashMap;
use std::ops::Range;

use parking_lot::{Mutex, MutexGuard};

use super::{Claimed, Failure, Id, Key, Owner, Peer, Settings, millis, now_millis};

const SHARDS: usize = 256;

struct Kept {
    expires_at: u64,
    reply: Option<Box<[u8]>>,
}

type Shard = HashMap<Id, Kept>;

pub(super) struct Map {
    shards: Box<[Mutex<Shard>]>,
    window: u64,
}

impl Map {
    pub(super) fn new(with: &Settings) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Map { shards, window: millis(with.window) }
    }

    fn shard(&self, id: &Id) -> MutexGuard<'_, Shard> {
        self.shards[usize::from(id[0])].lock()
    }
}

impl Peer for Map {
    fn claim(&self, key: Key) -> Result<Claimed, Failure> {
        let (id, now) = (key.id(), now_millis());
        let mut shard = self.shard(&id);
        if let Some(found) = shard.get(&id).filter(|found| found.expires_at > now) {
            return Ok(match &found.reply {
                Some(reply) => Claimed::Completed(reply.to_vec()),
                None => Claimed::InFlight,
            });
        }
        shard.insert(id, Kept { expires_at: now + self.window, reply: None });
        Ok(Claimed::New(Owner::by_insertion()))
    }

    fn complete(&self, key: Key, owner: Owner, reply: &[u8]) -> Result<(), Failure> {
        let (id, expires_at) = (key.id(), now_millis() + self.window);
        self.shard(&id).insert(id, Kept { expires_at, reply: Some(reply.into()) });
        owner.keep();
        Ok(())
    }

    fn lookup(&self, key: Key) -> Result<Option<Vec<u8>>, Failure> {
        let id = key.id();
        Ok(self.shard(&id).get(&id).and_then(|found| Some(found.reply.as_ref()?.to_vec())))
    }

    fn fill(&self, keys: Range<u64>, reply: Option<&[u8]>) -> Result<(), Failure> {
        let expires_at = now_millis() + self.window;
        for number in keys {
            let id = Key(number).id();
            self.shard(&id).insert(id, Kept { expires_at, reply: reply.map(Into::into) });
        }
        Ok(())
    }

    fn expire(&self) -> Result<(), Failure> {
        let now = now_millis();
        for shard in &self.shards {
            shard.lock().retain(|_, found| found.expires_at > now);
        }
        Ok(())
    }
}
