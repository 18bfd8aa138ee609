//! A directory on disk that is left as it is: what is changed is changed in memory alone.
//!
//! For looking into a closed store: opening one counts its epoch up, repairs what a crash left and
//! clears leftovers away, none of which whoever looks should do. The lock is taken as always, so
//! that nobody changes a file that is read here.
//!
//! Also for reading on in a store that a fault has stopped.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use super::directory::{Directory, File};
use super::disk::Disk;
use crate::sync::Arc;
use crate::sync::below::RwLock;

/// Changes are kept in pieces of this size: the engine's pages.
const PIECE_BYTES: u64 = 4096;

/// A file that is left as it is, whatever is written to what is returned.
pub(super) fn unchanged(file: Box<dyn File>) -> io::Result<Box<dyn File>> {
    Ok(Box::new(Arc::new(Changed::over(file)?)))
}

/// A directory, and the files of it that were opened, made, renamed or removed.
#[derive(Debug)]
pub(crate) struct Unchanged {
    disk: Disk,
    /// Nothing where a file was removed.
    files: RwLock<BTreeMap<String, Option<Arc<Changed>>>>,
}

impl Unchanged {
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        Ok(Unchanged { disk: Disk::existing(path)?, files: RwLock::default() })
    }
}

impl fmt::Display for Unchanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disk.fmt(f)
    }
}

impl Directory for Unchanged {
    fn lock(&self) -> io::Result<bool> {
        self.disk.lock()
    }

    fn unlock(&self) {
        self.disk.unlock();
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut files = self.files.write();
        if let Some(known) = files.get(name) {
            let file = known.as_ref().ok_or(io::ErrorKind::NotFound)?;
            return Ok(Box::new(Arc::clone(file)));
        }
        let file = self.disk.file(name, OpenOptions::new().read(true))?;
        let file = Arc::new(Changed::over(file)?);
        files.insert(name.to_owned(), Some(Arc::clone(&file)));
        Ok(Box::new(file))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let file = Arc::new(Changed::default());
        self.files.write().insert(name.to_owned(), Some(Arc::clone(&file)));
        Ok(Box::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        drop(self.open(from)?);
        let mut files = self.files.write();
        let file = files.insert(from.to_owned(), None).flatten();
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.write().insert(name.to_owned(), None);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let files = self.files.read();
        let on_disk = self.disk.list()?.into_iter().filter(|name| !files.contains_key(name));
        let changed = files.iter().filter(|(_, file)| file.is_some());
        Ok(on_disk.chain(changed.map(|(name, _)| name.clone())).collect())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn drop_cached(&self, name: &str) -> io::Result<()> {
        self.disk.drop_cached(name)
    }

    fn path(&self) -> Option<&Path> {
        self.disk.path()
    }

    fn check_in_place(&self) -> io::Result<()> {
        self.disk.check_in_place()
    }
}

/// A file, and what was written to it.
#[derive(Debug, Default)]
struct Changed {
    below: Option<Box<dyn File>>,
    now: RwLock<Now>,
}

#[derive(Debug, Default)]
struct Now {
    len: u64,
    /// How much of the file below still shows: it was cut there.
    below_len: u64,
    /// By their number.
    pieces: BTreeMap<u64, Box<[u8]>>,
}

/// A stretch of a read or write that lies in one piece.
struct Stretch {
    piece: u64,
    within: std::ops::Range<usize>,
    of_caller: std::ops::Range<usize>,
}

impl Changed {
    fn over(below: Box<dyn File>) -> io::Result<Self> {
        let len = below.len()?;
        let now = RwLock::new(Now { len, below_len: len, pieces: BTreeMap::new() });
        Ok(Changed { below: Some(below), now })
    }

    /// A stretch of the file below; zeros where it has ended.
    fn read_below(&self, below_len: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0);
        let left = usize::try_from(below_len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let there = out.len().min(left);
        match (&self.below, out.get_mut(..there)) {
            (Some(below), Some(out)) if there > 0 => below.read(offset, out),
            _ => Ok(()),
        }
    }

    fn check_end(now: &Now, offset: u64, len: usize) -> io::Result<()> {
        let ends_within = offset.checked_add(len as u64).is_some_and(|end| end <= now.len);
        if ends_within { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl File for Arc<Changed> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.now.read().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let now = self.now.read();
        Changed::check_end(&now, offset, out.len())?;
        self.read_below(now.below_len, offset, out)?;
        if now.pieces.is_empty() {
            return Ok(());
        }
        for stretch in stretches(offset, out.len()) {
            if let Some(piece) = now.pieces.get(&stretch.piece)
                && let Some(from) = piece.get(stretch.within)
                && let Some(to) = out.get_mut(stretch.of_caller)
            {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut now = self.now.write();
        Changed::check_end(&now, offset, data.len())?;
        for stretch in stretches(offset, data.len()) {
            if !now.pieces.contains_key(&stretch.piece) {
                let mut piece = vec![0; usize::try_from(PIECE_BYTES).unwrap_or(usize::MAX)];
                self.read_below(now.below_len, stretch.piece * PIECE_BYTES, &mut piece)?;
                now.pieces.insert(stretch.piece, piece.into_boxed_slice());
            }
            if let Some(piece) = now.pieces.get_mut(&stretch.piece)
                && let Some(to) = piece.get_mut(stretch.within)
                && let Some(from) = data.get(stretch.of_caller)
            {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut now = self.now.write();
        now.len = len;
        now.below_len = now.below_len.min(len);
        now.pieces.retain(|piece, _| piece * PIECE_BYTES < len);
        // What is cut off reads as zeros if the file grows again.
        let end = usize::try_from(len % PIECE_BYTES).unwrap_or(usize::MAX);
        if let Some(piece) = now.pieces.get_mut(&(len / PIECE_BYTES))
            && let Some(cut) = piece.get_mut(end..)
        {
            cut.fill(0);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn stretches(offset: u64, len: usize) -> impl Iterator<Item = Stretch> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let at = offset + done as u64;
        // Both are less than a piece.
        let start = usize::try_from(at % PIECE_BYTES).ok()?;
        let room = usize::try_from(PIECE_BYTES).ok()? - start;
        let take = room.min(len - done);
        let of_caller = done..done + take;
        done += take;
        Some(Stretch { piece: at / PIECE_BYTES, within: start..start + take, of_caller })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::storage::memory;

    #[derive(Debug, Clone)]
    enum Step {
        Write(usize, Vec<u8>),
        SetLen(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let write = (0usize..20_000, prop::collection::vec(any::<u8>(), 1..6_000));
        let step = prop_oneof![
            write.prop_map(|(at, data)| Step::Write(at, data)),
            (0usize..20_000).prop_map(Step::SetLen),
        ];
        prop::collection::vec(step, 0..12)
    }

    proptest! {
        #[test]
        fn it_reads_as_a_file_that_was_changed_and_the_one_below_is_as_it_was(
            before in prop::collection::vec(any::<u8>(), 0..12_000),
            steps in steps(),
        ) {
            let mut model = before.clone();
            let below = Arc::new(Changed::over(memory::file(before.clone())).unwrap());
            let file = Arc::new(Changed::over(Box::new(Arc::clone(&below))).unwrap());
            for step in steps {
                match step {
                    Step::Write(at, data) => {
                        let end = at + data.len();
                        let fits = end <= model.len();
                        prop_assert_eq!(file.write(at as u64, &data).is_ok(), fits);
                        if fits {
                            model[at..end].copy_from_slice(&data);
                        }
                    }
                    Step::SetLen(len) => {
                        file.set_len(len as u64).unwrap();
                        model.resize(len, 0);
                    }
                }
                let mut read = vec![1; model.len()];
                file.read(0, &mut read).unwrap();
                prop_assert_eq!(&read, &model);
                prop_assert_eq!(file.len().unwrap(), model.len() as u64);
            }
            let mut untouched = vec![1; before.len()];
            below.read(0, &mut untouched).unwrap();
            prop_assert_eq!(untouched, before);
        }
    }
}
