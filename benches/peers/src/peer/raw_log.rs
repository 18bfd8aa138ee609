//! A limit: the same clients and the same queue in front of a log that is never read.
//!
//! A claim is a record of a plain claim's length, appended to the batch that fills. Whoever waits
//! and finds nobody writing takes the role, gathers, and writes everybody's batch with one `write`
//! and one `fdatasync`; a thread of its own does so for tasks. The file is allocated and written
//! beforehand and gone through round and round, so that a sync writes data and nothing else.
//!
//! It tells no duplicate from a fresh key and could not be opened again: it is what the disk and
//! the waking of callers leave to be had.

use std::fs::{File, OpenOptions};
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::thread;

use parking_lot::{Condvar, Mutex};

use super::{Claimed, Failure, Key, Owner, Peer, Tasks};

/// Bytes of a plain claim, as docs/format.md has it.
const RECORD_BYTES: usize = 78;

const FILE_BYTES: usize = 64 << 20;

/// How often one who is about to write lets others run first, as long as that brings records.
const GATHER_ROUNDS: usize = 8;

/// Closes with its last handle.
#[derive(Clone)]
pub(crate) struct RawLog(Arc<Handle>);

struct Handle(Arc<Log>);

struct Log {
    file: File,
    queue: Mutex<Queue>,
    /// The thread that writes for tasks.
    call: Mutex<Call>,
    called: Condvar,
}

#[derive(Default)]
struct Queue {
    filling: Arc<Batch>,
    bytes: Vec<u8>,
    /// The buffer that is not filling.
    spare: Vec<u8>,
    offset: usize,
    /// Somebody has the role.
    writing: bool,
}

#[derive(Default)]
struct Batch {
    outcome: OnceLock<Result<(), io::ErrorKind>>,
    waiters: Mutex<Waiters>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiters {
    threads: usize,
    /// The role is free, and one of the threads is to take it.
    offered: bool,
    tasks: Vec<Waker>,
}

#[derive(Default)]
struct Call {
    wanted: bool,
    over: bool,
}

impl RawLog {
    pub(super) fn open(at: &Path) -> Result<Self, Failure> {
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create(true).truncate(true).open(at.join("log"))?;
        file.write_all_at(&vec![0; FILE_BYTES], 0)?;
        file.sync_all()?;
        let queue = Mutex::default();
        let log = Arc::new(Log { file, queue, call: Mutex::default(), called: Condvar::new() });
        let background = Arc::clone(&log);
        thread::Builder::new().spawn(move || background.write_for_tasks())?;
        Ok(RawLog(Arc::new(Handle(log))))
    }

    /// For tasks: appends a record with so much more.
    pub(super) async fn append(&self, more: &[u8]) -> Result<Owner, Failure> {
        let log = &self.0.0;
        let batch = log.push(more);
        let mut listed = false;
        poll_fn(|context| {
            if let Some(outcome) = batch.outcome.get() {
                return Poll::Ready(*outcome);
            }
            let is_first = {
                let mut waiters = batch.waiters.lock();
                if let Some(outcome) = batch.outcome.get() {
                    return Poll::Ready(*outcome);
                }
                if !std::mem::replace(&mut listed, true) {
                    waiters.tasks.push(context.waker().clone());
                }
                waiters.tasks.len() == 1
            };
            if is_first && !log.queue.lock().writing {
                log.call();
            }
            Poll::Pending
        })
        .await
        .map_err(io::Error::from)?;
        Ok(Owner::by_insertion())
    }
}

impl Peer for RawLog {
    fn claim(&self, _key: Key) -> Result<Claimed, Failure> {
        let log = &self.0.0;
        log.wait(&log.push(&[]))?;
        Ok(Claimed::New(Owner::by_insertion()))
    }

    fn complete(&self, _key: Key, owner: Owner, reply: &[u8]) -> Result<(), Failure> {
        let log = &self.0.0;
        log.wait(&log.push(reply))?;
        owner.keep();
        Ok(())
    }

    fn lookup(&self, _key: Key) -> Result<Option<Vec<u8>>, Failure> {
        Err("a raw log is never read".into())
    }

    fn fill(&self, _keys: Range<u64>, _reply: Option<&[u8]>) -> Result<(), Failure> {
        Ok(())
    }

    fn tasks(&self) -> Option<Tasks> {
        Some(Tasks::RawLog(self.clone()))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.call.lock().over = true;
        self.0.called.notify_one();
    }
}

impl Log {
    fn push(&self, more: &[u8]) -> Arc<Batch> {
        let mut queue = self.queue.lock();
        queue.bytes.extend_from_slice(&[7; RECORD_BYTES]);
        queue.bytes.extend_from_slice(more);
        Arc::clone(&queue.filling)
    }

    fn wait(&self, batch: &Batch) -> io::Result<()> {
        batch.waiters.lock().threads += 1;
        loop {
            if batch.outcome.get().is_none() && self.try_role() {
                self.gather();
                self.write_next();
            }
            let mut waiters = batch.waiters.lock();
            loop {
                if let Some(outcome) = batch.outcome.get() {
                    waiters.threads -= 1;
                    return outcome.map_err(io::Error::from);
                }
                if std::mem::take(&mut waiters.offered) {
                    break;
                }
                batch.changed.wait(&mut waiters);
            }
        }
    }

    fn try_role(&self) -> bool {
        !std::mem::replace(&mut self.queue.lock().writing, true)
    }

    fn gather(&self) {
        let mut bytes = self.queue.lock().bytes.len();
        for _ in 0..GATHER_ROUNDS {
            thread::yield_now();
            let more = self.queue.lock().bytes.len();
            if more == bytes {
                return;
            }
            bytes = more;
        }
    }

    /// Writes the batch that fills, gives the role up, and offers it to who waits for the next.
    fn write_next(&self) {
        let (batch, bytes, offset) = {
            let mut queue = self.queue.lock();
            let spare = std::mem::take(&mut queue.spare);
            let bytes = std::mem::replace(&mut queue.bytes, spare);
            if queue.offset + bytes.len() > FILE_BYTES {
                queue.offset = 0;
            }
            let offset = queue.offset as u64;
            queue.offset += bytes.len();
            (std::mem::take(&mut queue.filling), bytes, offset)
        };
        let written = self.file.write_all_at(&bytes, offset).and_then(|()| self.file.sync_data());
        let tasks = {
            let mut waiters = batch.waiters.lock();
            // A batch is written once.
            let _ = batch.outcome.set(written.map_err(|error| error.kind()));
            std::mem::take(&mut waiters.tasks)
        };
        batch.changed.notify_all();
        let next = {
            let mut queue = self.queue.lock();
            queue.spare = bytes;
            queue.spare.clear();
            queue.writing = false;
            Arc::clone(&queue.filling)
        };
        let is_for_tasks = {
            let mut waiters = next.waiters.lock();
            waiters.offered = waiters.threads > 0;
            next.changed.notify_one();
            waiters.threads == 0 && !waiters.tasks.is_empty()
        };
        tasks.into_iter().for_each(Waker::wake);
        if is_for_tasks {
            self.call();
        }
    }

    fn call(&self) {
        self.call.lock().wanted = true;
        self.called.notify_one();
    }

    fn write_for_tasks(&self) {
        loop {
            let mut call = self.call.lock();
            while !std::mem::take(&mut call.wanted) {
                if call.over {
                    return;
                }
                self.called.wait(&mut call);
            }
            drop(call);
            if self.try_role() {
                self.gather();
                self.write_next();
            }
        }
    }
}
