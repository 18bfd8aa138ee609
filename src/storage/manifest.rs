//! `store.redb`: what the store is, and which generations it has.
//!
//! Small, and committed in two phases each time: it changes when the store is opened or closed
//! and when a generation comes, is sealed or goes, never for a claim. What it lists must exist; a
//! generation file it does not list is a leftover of a crash and holds nothing that was
//! acknowledged.

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::backend::{Backend, Halt};
use super::engine::{InFile, database, guarded};
use super::{FORMAT, Place, memory, missing_or_io};
use crate::error::{Error, ErrorKind};
use crate::identity::{Secret, StoreId};
use crate::sync::Mutex;

pub(crate) const NAME: &str = "store.redb";

const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");
const BYTES: TableDefinition<&str, &[u8]> = TableDefinition::new("bytes");
const GENERATIONS: TableDefinition<u32, &[u8]> = TableDefinition::new("generations");
const ROWS: TableDefinition<u32, (u32, u32)> = TableDefinition::new("rows");
const UNANSWERED: TableDefinition<u32, &[u8]> = TableDefinition::new("unanswered");

const CACHE_BYTES: usize = 1 << 20;

/// What only grows, and must not fall back when the files that last showed it are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Marks {
    /// The store's clock, in milliseconds.
    pub(crate) clock: u64,
    /// A sequence number that no record has reached.
    pub(crate) sequence: u64,
}

/// What the manifest says when the store is opened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) id: StoreId,
    pub(crate) secret: Secret,
    pub(crate) epoch: u32,
    pub(crate) marks: Marks,
    pub(crate) next_generation: u32,
    /// Whether the last run closed the store.
    pub(crate) clean: bool,
    /// The generations, by their number.
    pub(crate) generations: Vec<Listed>,
}

/// A generation that the manifest lists.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) id: u32,
    pub(crate) seal: Option<Seal>,
    /// Of a sealed one: its rows without a reply, as bytes of a bitmap.
    pub(crate) unanswered: Vec<u8>,
    /// Of one that is not sealed: its rows, where the last run counted them when it closed.
    pub(crate) rows: Option<u32>,
}

/// What a file was when it was sealed: it never changes after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seal {
    pub(crate) bytes: u64,
    /// BLAKE3 of the file.
    pub(crate) hash: [u8; 32],
}

/// Rows without a reply, by generation, as bytes of a bitmap.
pub(crate) type Unanswered = Vec<(u32, Vec<u8>)>;

impl Contents {
    /// A number that no generation has or had.
    pub(crate) fn first_free_generation(&self) -> u32 {
        let last_listed = self.generations.iter().map(|listed| listed.id).max();
        let after_listed = last_listed.map_or(1, |id| id.saturating_add(1));
        self.next_generation.max(after_listed)
    }
}

impl Seal {
    fn to_bytes(self) -> Vec<u8> {
        [&self.bytes.to_le_bytes()[..], &self.hash].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (bytes, hash) = bytes.split_first_chunk()?;
        Some(Seal { bytes: u64::from_le_bytes(*bytes), hash: hash.try_into().ok()? })
    }
}

#[derive(Debug)]
pub(crate) struct Manifest {
    name: String,
    database: Mutex<Option<Database>>,
}

impl Manifest {
    /// Writes the manifest of a new store under a temporary name and moves it into place, so that
    /// it is there whole or not at all.
    pub(super) fn create(place: &Place) -> Result<(), Error> {
        let temporary = format!("{NAME}.tmp");
        let (mut id, mut secret) = ([0; 16], [0; 32]);
        random(&mut id)?;
        random(&mut secret)?;
        let directory = &place.directory;
        let file = directory.create(&temporary).map_err(|error| place.io(&temporary, error))?;
        let manifest = Manifest::over(place, &temporary, place.backend(file))?;
        manifest.change(|tables| {
            tables.number("format", u64::from(FORMAT))?;
            tables.number("epoch", 0)?;
            tables.number("next_generation", 1)?;
            tables.number("clean", 1)?;
            tables.marks(Marks::default())?;
            tables.bytes("id", &id)?;
            tables.bytes("secret", &secret)
        })?;
        manifest.close()?;
        directory.rename(&temporary, NAME).map_err(|error| place.io(NAME, error))?;
        directory.sync().map_err(|error| place.io(NAME, error))
    }

    pub(super) fn open(place: &Place) -> Result<(Self, Contents), Error> {
        let file = place.directory.open(NAME).map_err(|error| place.io(NAME, error))?;
        // An empty file would be taken for a store to be made.
        if file.is_empty().map_err(|error| place.io(NAME, error))? {
            return Err(Error::corrupt(format_args!("{} is empty", place.name(NAME))));
        }
        let manifest = Manifest::over(place, NAME, place.backend(file))?;
        let contents = manifest.read()?;
        Ok((manifest, contents))
    }

    /// Begins a run: the epoch counts up and the store is no longer closed.
    pub(crate) fn begin_epoch(&self, epoch: u32, marks: Marks) -> Result<(), Error> {
        self.change(|tables| {
            tables.number("epoch", u64::from(epoch))?;
            tables.number("clean", 0)?;
            tables.marks(marks)
        })
    }

    pub(crate) fn add_generation(&self, id: u32, marks: Marks) -> Result<(), Error> {
        self.change(|tables| {
            tables.generations.insert(id, &[][..])?;
            tables.number_at_least("next_generation", u64::from(id) + 1)?;
            tables.marks(marks)
        })
    }

    pub(crate) fn remove_generation(&self, id: u32, marks: Marks) -> Result<(), Error> {
        self.change(|tables| {
            tables.generations.remove(id)?;
            tables.unanswered.remove(id)?;
            tables.marks(marks)
        })
    }

    /// Notes that a generation is sealed, and which rows lack a reply, there and in other sealed
    /// generations: what is not sealed tells what happened since.
    pub(crate) fn seal_generation(
        &self,
        id: u32,
        seal: Seal,
        unanswered: &Unanswered,
        marks: Marks,
    ) -> Result<(), Error> {
        self.change(|tables| {
            tables.generations.insert(id, &seal.to_bytes()[..])?;
            tables.unanswered(unanswered)?;
            tables.marks(marks)
        })
    }

    /// Notes that everything was written and nobody was cut off, and how many rows there are in
    /// the generations that are not sealed: a file whose last commits were lost is sound by itself.
    pub(crate) fn end_epoch(
        &self,
        epoch: u32,
        rows: &[(u32, u32)],
        unanswered: &Unanswered,
        marks: Marks,
    ) -> Result<(), Error> {
        self.change(|tables| {
            tables.number("clean", 1)?;
            tables.rows(epoch, rows)?;
            tables.unanswered(unanswered)?;
            tables.marks(marks)
        })
    }

    /// What a generation was when it was sealed, if it is listed as sealed.
    pub(crate) fn seal_of(&self, generation: u32) -> Result<Option<Seal>, Error> {
        let contents = self.read()?;
        let listed = contents.generations.iter().find(|listed| listed.id == generation);
        Ok(listed.and_then(|listed| listed.seal))
    }

    /// An error where the file does not say what was written to it: a copy of it is taken, between
    /// two changes, and checked whole. Returns its length.
    pub(crate) fn verify(&self, place: &Place) -> Result<u64, Error> {
        let io = |error| place.io(NAME, error);
        let (copy, written) = {
            let guard = self.database.lock();
            let database = guard.as_ref().ok_or_else(Error::closed)?;
            let file =
                place.directory.open(NAME).map_err(|error| missing_or_io(place, NAME, error))?;
            let bytes = file.len().map_err(io)?;
            let mut copy = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
            file.read(0, &mut copy).map_err(io)?;
            (copy, self.contents(database)?)
        };
        let bytes = copy.len() as u64;
        let backend = Backend { file: memory::file(copy), halt: Halt::default() };
        let copied = Manifest::over(place, NAME, backend)?.read()?;
        if copied == written {
            Ok(bytes)
        } else {
            Err(Error::corrupt(format_args!("{} is not what was written to it", self.name)))
        }
    }

    pub(crate) fn close(&self) -> Result<(), Error> {
        match self.database.lock().take() {
            Some(database) => guarded(&self.name, || database.close().in_file(&self.name)),
            None => Ok(()),
        }
    }

    fn over(place: &Place, name: &str, backend: Backend) -> Result<Self, Error> {
        let name = place.name(name);
        let database = database(&name, backend, CACHE_BYTES)?;
        Ok(Manifest { name, database: Mutex::new(Some(database)) })
    }

    fn read(&self) -> Result<Contents, Error> {
        let guard = self.database.lock();
        self.contents(guard.as_ref().ok_or_else(Error::closed)?)
    }

    fn contents(&self, database: &Database) -> Result<Contents, Error> {
        let name = &self.name;
        guarded(name, || {
            let read = database.begin_read().in_file(name)?;
            let numbers = read.open_table(NUMBERS).in_file(name)?;
            let number = |key: &str| -> Result<u64, Error> {
                let found = numbers.get(key).in_file(name)?;
                let found = found.ok_or_else(|| missing(name, key))?;
                Ok(found.value())
            };
            let small = |key: &str| u32::try_from(number(key)?).map_err(|_| missing(name, key));
            let format = small("format")?;
            if format != FORMAT {
                return Err(Error::new(
                    ErrorKind::Incompatible { found: format, supported: FORMAT },
                    format!(
                        "{name} has format {format}, this version reads {FORMAT}: use a matching version"
                    ),
                ));
            }
            let bytes = read.open_table(BYTES).in_file(name)?;
            let blob = |key: &str| -> Result<Vec<u8>, Error> {
                let found = bytes.get(key).in_file(name)?;
                let found = found.ok_or_else(|| missing(name, key))?;
                Ok(found.value().to_vec())
            };
            let unanswered = read.open_table(UNANSWERED).in_file(name)?;
            let rows = match read.open_table(ROWS) {
                Err(redb::TableError::TableDoesNotExist(_)) => None,
                opened => Some(opened.in_file(name)?),
            };
            let (epoch, clean) = (small("epoch")?, number("clean")? == 1);
            let mut generations = Vec::new();
            for row in read.open_table(GENERATIONS).in_file(name)?.iter().in_file(name)? {
                let (id, seal) = row.in_file(name)?;
                let id = id.value();
                let seal = match seal.value() {
                    [] => None,
                    bytes => Some(Seal::from_bytes(bytes).ok_or_else(|| missing(name, "seal"))?),
                };
                let unanswered = unanswered.get(id).in_file(name)?;
                let unanswered = unanswered.map_or_else(Vec::new, |rows| rows.value().to_vec());
                let rows = match &rows {
                    Some(rows) => rows.get(id).in_file(name)?.map(|rows| rows.value()),
                    None => None,
                };
                // Those of an earlier run tell nothing of the last.
                let rows = rows.filter(|(counted_in, _)| clean && *counted_in == epoch);
                generations.push(Listed { id, seal, unanswered, rows: rows.map(|(_, rows)| rows) });
            }
            Ok(Contents {
                id: blob("id")?.try_into().map_err(|_| missing(name, "id"))?,
                secret: Secret(blob("secret")?.try_into().map_err(|_| missing(name, "secret"))?),
                epoch,
                marks: Marks { clock: number("clock")?, sequence: number("sequence")? },
                next_generation: small("next_generation")?,
                clean,
                generations,
            })
        })
    }

    fn change(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<(), redb::StorageError>,
    ) -> Result<(), Error> {
        let name = &self.name;
        let guard = self.database.lock();
        let database = guard.as_ref().ok_or_else(Error::closed)?;
        guarded(name, || {
            let mut write = database.begin_write().in_file(name)?;
            write.set_two_phase_commit(true);
            {
                let mut tables = Tables {
                    numbers: write.open_table(NUMBERS).in_file(name)?,
                    bytes: write.open_table(BYTES).in_file(name)?,
                    generations: write.open_table(GENERATIONS).in_file(name)?,
                    rows: write.open_table(ROWS).in_file(name)?,
                    unanswered: write.open_table(UNANSWERED).in_file(name)?,
                };
                work(&mut tables).in_file(name)?;
            }
            write.commit().in_file(name)
        })
    }
}

/// The tables of one change.
struct Tables<'t> {
    numbers: redb::Table<'t, &'static str, u64>,
    bytes: redb::Table<'t, &'static str, &'static [u8]>,
    generations: redb::Table<'t, u32, &'static [u8]>,
    rows: redb::Table<'t, u32, (u32, u32)>,
    unanswered: redb::Table<'t, u32, &'static [u8]>,
}

impl Tables<'_> {
    fn number(&mut self, key: &str, value: u64) -> Result<(), redb::StorageError> {
        self.numbers.insert(key, value).map(drop)
    }

    /// Numbers are given out in order, but files come to be listed as they get ready.
    fn number_at_least(&mut self, key: &str, value: u64) -> Result<(), redb::StorageError> {
        let before = self.numbers.get(key)?.map_or(0, |found| found.value());
        self.number(key, value.max(before))
    }

    fn bytes(&mut self, key: &str, value: &[u8]) -> Result<(), redb::StorageError> {
        self.bytes.insert(key, value).map(drop)
    }

    /// In place of those of earlier runs.
    fn rows(&mut self, epoch: u32, rows: &[(u32, u32)]) -> Result<(), redb::StorageError> {
        self.rows.retain(|_, _| false)?;
        for (id, rows) in rows {
            self.rows.insert(id, (epoch, *rows))?;
        }
        Ok(())
    }

    fn unanswered(&mut self, unanswered: &Unanswered) -> Result<(), redb::StorageError> {
        for (id, rows) in unanswered {
            self.unanswered.insert(id, &rows[..])?;
        }
        Ok(())
    }

    fn marks(&mut self, marks: Marks) -> Result<(), redb::StorageError> {
        self.number("clock", marks.clock)?;
        self.number("sequence", marks.sequence)
    }
}

fn missing(name: &str, key: &str) -> Error {
    Error::corrupt(format_args!("{name} lacks a sound row {key:?}"))
}

fn random(bytes: &mut [u8]) -> Result<(), Error> {
    if cfg!(shuttle) {
        // Which operations share a shard has to be the same whenever a schedule is run again.
        bytes.fill(7);
        return Ok(());
    }
    getrandom::fill(bytes).map_err(|error| {
        Error::new(ErrorKind::Io, "the system gives no random numbers: try again")
            .with_source(std::io::Error::other(error.to_string()))
    })
}
