//! A disk that writes down, in order, each change that is asked of it.
//!
//! What is written is there at once, and stays. From the log any state can be rebuilt that a power
//! cut may leave: see [`super::image`].

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use justonce::seam::{Directory, File};
use parking_lot::Mutex;

const PAGE: usize = 4096;

/// The bytes of a file, in pages that copies share.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// None: zeros.
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
    len: usize,
}

/// Files by name, by their numbers.
pub type Names = BTreeMap<String, usize>;

/// What is on a disk that nobody uses.
pub type Image = BTreeMap<String, Content>;

/// One change of the disk. Files are numbered in the order they were made.
#[derive(Debug, Clone)]
pub enum Change {
    Create { name: String },
    Write { file: usize, offset: usize, data: Arc<[u8]> },
    SetLen { file: usize, len: usize },
    Sync { file: usize },
    Rename { from: String, to: String },
    Remove { name: String },
    SyncNames,
}

/// A directory in memory that outlives the stores opened in it, with the log of its changes.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<Disk>>);

#[derive(Debug, Default)]
struct Disk {
    files: Vec<Content>,
    names: Names,
    log: Vec<Change>,
    is_locked: bool,
    is_cut_off: bool,
}

impl Journal {
    /// A disk that has something to begin with, all of it durable.
    pub fn on(image: &Image) -> Self {
        let names = image.keys().cloned().zip(0..).collect();
        let files = image.values().cloned().collect();
        Journal(Arc::new(Mutex::new(Disk { files, names, ..Disk::default() })))
    }

    /// How many changes there were.
    pub fn position(&self) -> usize {
        self.0.lock().log.len()
    }

    /// The changes there were.
    pub fn log(&self) -> Vec<Change> {
        self.0.lock().log.clone()
    }

    /// Lets no further change happen.
    pub fn cut_off(&self) {
        self.0.lock().is_cut_off = true;
    }
}

impl Disk {
    fn change(&mut self, change: Change) -> io::Result<()> {
        if self.is_cut_off {
            return Err(io::Error::other("the power is off"));
        }
        match &change {
            Change::Write { file, offset, data } => self.files[*file].write(*offset, data),
            Change::SetLen { file, len } => self.files[*file].set_len(*len),
            Change::Create { .. } => self.files.push(Content::default()),
            _ => {}
        }
        rename(&mut self.names, &change, self.files.len());
        self.log.push(change);
        Ok(())
    }
}

/// What a change does to the names; `files` is how many there are after it.
pub fn rename(names: &mut Names, change: &Change, files: usize) {
    match change {
        Change::Create { name } => {
            names.insert(name.clone(), files - 1);
        }
        Change::Rename { from, to } => {
            let file = names.remove(from);
            names.extend(file.map(|file| (to.clone(), file)));
        }
        Change::Remove { name } => {
            names.remove(name);
        }
        _ => {}
    }
}

impl Content {
    /// `None` where the file ends before.
    fn read(&self, offset: usize, out: &mut [u8]) -> Option<()> {
        if offset + out.len() > self.len {
            return None;
        }
        let mut at = offset;
        for part in split(offset, out.len()) {
            let (to, from) = (&mut out[at - offset..][..part.len()], at % PAGE);
            match &self.pages[at / PAGE] {
                Some(page) => to.copy_from_slice(&page[from..from + part.len()]),
                None => to.fill(0),
            }
            at += part.len();
        }
        Some(())
    }

    /// Writes what is within the file's length: a file does not show what is behind it.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        let data = &data[..data.len().min(self.len.saturating_sub(offset))];
        for part in split(offset, data.len()) {
            let page = self.pages[part.start / PAGE].get_or_insert_with(|| Arc::new([0; PAGE]));
            let to = &mut Arc::make_mut(page)[part.start % PAGE..][..part.len()];
            to.copy_from_slice(&data[part.start - offset..][..part.len()]);
        }
    }

    pub fn set_len(&mut self, len: usize) {
        self.pages.resize(len.div_ceil(PAGE), None);
        if len < self.len
            && let Some(Some(page)) = self.pages.get_mut(len / PAGE)
        {
            Arc::make_mut(page)[len % PAGE..].fill(0);
        }
        self.len = len;
    }
}

/// A stretch of a file, cut at its pages.
fn split(offset: usize, len: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let end = offset + len;
    let mut at = offset;
    std::iter::from_fn(move || {
        let start = at;
        at = ((start / PAGE + 1) * PAGE).min(end);
        (start < end).then_some(start..at)
    })
}

impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(a journal)")
    }
}

impl Journal {
    fn file(&self, file: usize) -> Box<dyn File> {
        Box::new(JournalFile { disk: Arc::clone(&self.0), file })
    }
}

impl Directory for Journal {
    fn lock(&self) -> io::Result<bool> {
        Ok(!std::mem::replace(&mut self.0.lock().is_locked, true))
    }

    fn unlock(&self) {
        self.0.lock().is_locked = false;
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let file = self.0.lock().names.get(name).copied().ok_or(ErrorKind::NotFound)?;
        Ok(self.file(file))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut disk = self.0.lock();
        disk.change(Change::Create { name: name.to_owned() })?;
        Ok(self.file(disk.files.len() - 1))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.names.get(from).ok_or(ErrorKind::NotFound)?;
        disk.change(Change::Rename { from: from.to_owned(), to: to.to_owned() })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.names.get(name).ok_or(ErrorKind::NotFound)?;
        disk.change(Change::Remove { name: name.to_owned() })
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().names.keys().cloned().collect())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.lock().change(Change::SyncNames)
    }

    fn drop_cached(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn check_in_place(&self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct JournalFile {
    disk: Arc<Mutex<Disk>>,
    file: usize,
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

impl File for JournalFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().files[self.file].len as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = place(offset)?;
        let read = self.disk.lock().files[self.file].read(offset, out);
        read.ok_or_else(|| ErrorKind::UnexpectedEof.into())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = place(offset)?;
        let mut disk = self.disk.lock();
        if offset + data.len() > disk.files[self.file].len {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        disk.change(Change::Write { file: self.file, offset, data: data.into() })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = place(len)?;
        self.disk.lock().change(Change::SetLen { file: self.file, len })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.lock().change(Change::Sync { file: self.file })
    }
}
