//! One generation's file: `log`, row → record, written at its end only.
//!
//! A file carries the identity of its store and its own number, so that a file put in another's
//! place is noticed. Which lane it serves is written with its first rows; until then it is a
//! spare. Rows count from zero without gaps.

use std::ops::Range;

use redb::{
    Builder, Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable,
    ReadableTableMetadata, TableDefinition,
};

use super::backend::Halt;
use super::engine::{InFile, database, guarded};
use super::lane::Opening;
use super::unchanged::unchanged;
use super::{FORMAT, File, Place, missing_or_io};
use crate::error::{Error, ErrorKind};
use crate::record::codec::{self, Glance};
use crate::record::{Position, Record};
use crate::sync::{Arc, Mutex};

const LOG: TableDefinition<u32, &[u8]> = TableDefinition::new("log");
pub(super) const IDENTITY: TableDefinition<&str, &[u8]> = TableDefinition::new("identity");

/// Name of a generation's file.
pub(crate) fn file_name(generation: u32) -> String {
    format!("{generation:08}.redb")
}

/// The generation a file name stands for.
pub(crate) fn parse_file_name(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".redb")?;
    let is_ours = digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_ours.then(|| digits.parse().ok()).flatten()
}

#[derive(Debug)]
pub(crate) struct LogFile {
    generation: u32,
    name: Arc<str>,
    place: Place,
    database: Mutex<Option<Database>>,
}

/// Rows to append: the first one's number and the bytes of each.
pub(crate) struct Rows<'a, I: Iterator<Item = &'a [u8]>> {
    pub(crate) first: u32,
    pub(crate) bytes: I,
    /// The lane, with the first rows of a file.
    pub(crate) opening: Option<Opening>,
}

impl LogFile {
    /// Makes the file under a temporary name, with its identity committed, and moves it into
    /// place. The manifest does not list it yet.
    pub(crate) fn create(place: &Place, generation: u32) -> Result<Self, Error> {
        let name = file_name(generation);
        let temporary = format!("{name}.tmp");
        let directory = &place.directory;
        let names = directory.list().map_err(|error| place.io(&name, error))?;
        if names.contains(&name) {
            return Err(Error::corrupt(format_args!("{} is there already", place.name(&name))));
        }
        let file = directory.create(&temporary).map_err(|error| place.io(&temporary, error))?;
        let log = LogFile::over(place, generation, file)?;
        log.write(true, |write, name| {
            write.open_table(LOG).in_file(name)?;
            let mut identity = write.open_table(IDENTITY).in_file(name)?;
            for (key, value) in [
                ("format", &FORMAT.to_le_bytes()[..]),
                ("store", &place.store[..]),
                ("generation", &generation.to_le_bytes()[..]),
            ] {
                identity.insert(key, value).in_file(name)?;
            }
            Ok(())
        })?;
        directory.rename(&temporary, &name).map_err(|error| place.io(&name, error))?;
        if cfg!(planted = "unsynced-name") {
            return Ok(log);
        }
        directory.sync().map_err(|error| place.io(&name, error))?;
        Ok(log)
    }

    /// Opens a listed file and checks that it is the one meant.
    pub(crate) fn open(place: &Place, generation: u32) -> Result<(Self, Option<Opening>), Error> {
        let name = file_name(generation);
        let file = place.directory.open(&name);
        let file = file.map_err(|error| missing_or_io(place, &name, error))?;
        if file.is_empty().map_err(|error| place.io(&name, error))? {
            return Err(Error::corrupt(format_args!("{} is empty", place.name(&name))));
        }
        let log = LogFile::over(place, generation, file)
            .map_err(|damage| first_damaged_row(place, generation).unwrap_or(damage))?;
        let opening = log.with(|database| {
            let read = database.begin_read().in_file(&log.name)?;
            identify(&read, place, generation, &log.name)
        })?;
        Ok((log, opening))
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    fn over(place: &Place, generation: u32, file: Box<dyn File>) -> Result<Self, Error> {
        let name: Arc<str> = place.name(&file_name(generation)).into();
        let database = database(&name, place.backend(file), place.cache_bytes_per_file)?;
        Ok(LogFile { generation, name, place: place.clone(), database: Mutex::new(Some(database)) })
    }

    /// The same file, opened once more to be read in a store that takes no more writes: redb reads
    /// no more of one that it could not write to. Nothing of it is changed on the disk.
    pub(crate) fn beside(&self) -> Option<Result<Self, Error>> {
        let Place { directory, halt, .. } = &self.place;
        halt.is_halted().then(|| {
            let name = file_name(self.generation);
            let file = directory.open(&name).and_then(unchanged);
            let file = file.map_err(|error| self.place.io(&name, error))?;
            let place = Place { halt: Halt::default(), ..self.place.clone() };
            LogFile::over(&place, self.generation, file)
        })
    }

    /// Appends rows in one commit and returns a view that has them.
    pub(crate) fn append<'a>(
        &self,
        rows: Rows<'a, impl Iterator<Item = &'a [u8]>>,
        two_phase: bool,
    ) -> Result<Snapshot, Error> {
        self.write(two_phase, |write, name| {
            let mut log = write.open_table(LOG).in_file(name)?;
            let mut cursor =
                log.upper_bound_mut(std::ops::Bound::<u32>::Unbounded).in_file(name)?;
            for (row, bytes) in (rows.first..).zip(rows.bytes) {
                cursor.insert_before(row, bytes).in_file(name)?;
            }
            cursor.close().in_file(name)?;
            if let Some(opening) = rows.opening {
                let mut identity = write.open_table(IDENTITY).in_file(name)?;
                let bytes = opening.to_bytes();
                identity.insert("lane", &bytes[..]).in_file(name)?;
            }
            Ok(())
        })?;
        self.snapshot()
    }

    /// A view of what is durable now.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, Error> {
        self.with(|database| {
            let read = database.begin_read().in_file(&self.name)?;
            view(&read, self.generation, &self.name)
        })
    }

    /// Closes the file cleanly. Views of it answer `Closed` from then on.
    pub(crate) fn close(&self) -> Result<(), Error> {
        match self.database.lock().take() {
            Some(database) => guarded(&self.name, || database.close().in_file(&self.name)),
            None => Ok(()),
        }
    }

    pub(super) fn write(
        &self,
        two_phase: bool,
        work: impl FnOnce(&redb::WriteTransaction, &str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let name = &*self.name;
        self.with(|database| {
            let mut write = database.begin_write().in_file(name)?;
            write.set_two_phase_commit(two_phase);
            work(&write, name)?;
            write.commit().in_file(name)
        })
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, Error>) -> Result<T, Error> {
        let guard = self.database.lock();
        let database = guard.as_ref().ok_or_else(Error::closed)?;
        guarded(&self.name, || work(database))
    }
}

/// Of a file that was closed and is damaged, the error of the first row that cannot be read, if
/// it is a row that was hit.
fn first_damaged_row(place: &Place, generation: u32) -> Option<Error> {
    let file_name = file_name(generation);
    let name: Arc<str> = place.name(&file_name).into();
    let file = place.directory.open(&file_name).ok()?;
    let read = guarded(&name, || {
        let backend = place.backend(file);
        let database = Builder::new().open_read_only_with_backend(backend).in_file(&name)?;
        view(&database.begin_read().in_file(&name)?, generation, &name)
    });
    let snapshot = read.ok()?;
    let damage = snapshot.replay(0..snapshot.rows().ok()?, |_, _, _| {}).err()?;
    (damage.kind() == ErrorKind::Corrupt).then_some(damage)
}

/// Checks that a file is the one meant, and reads which lane it serves.
pub(super) fn identify(
    read: &ReadTransaction,
    place: &Place,
    generation: u32,
    name: &str,
) -> Result<Option<Opening>, Error> {
    let identity = read.open_table(IDENTITY).in_file(name)?;
    let row = |key: &str| -> Result<Option<Vec<u8>>, Error> {
        let found = identity.get(key).in_file(name)?;
        Ok(found.map(|found| found.value().to_vec()))
    };
    let format = row("format")?.and_then(|row| Some(u32::from_le_bytes(row.try_into().ok()?)));
    match format {
        Some(FORMAT) => {}
        Some(found) => {
            return Err(Error::new(
                ErrorKind::Incompatible { found, supported: FORMAT },
                format!(
                    "{name} has format {found}, this version reads {FORMAT}: use a \
                             matching version"
                ),
            ));
        }
        None => return Err(Error::corrupt(format_args!("{name} lacks its format"))),
    }
    if row("store")?.as_deref() != Some(&place.store[..])
        || row("generation")?.as_deref() != Some(&generation.to_le_bytes()[..])
    {
        return Err(Error::corrupt(format_args!(
            "{name} belongs to another store or another generation"
        )));
    }
    match row("lane")? {
        None => Ok(None),
        Some(bytes) => Opening::from_bytes(&bytes)
            .map(Some)
            .ok_or_else(|| Error::corrupt(format_args!("{name} names no lane"))),
    }
}

/// A view of the rows in a file.
pub(super) fn view(
    read: &ReadTransaction,
    generation: u32,
    name: &Arc<str>,
) -> Result<Snapshot, Error> {
    let table = read.open_table(LOG).in_file(name)?;
    Ok(Snapshot { generation, name: Arc::clone(name), table })
}

/// A view of one generation's durable rows, shared by all readers until the next commit.
pub(crate) struct Snapshot {
    generation: u32,
    name: Arc<str>,
    table: ReadOnlyTable<u32, &'static [u8]>,
}

impl Snapshot {
    /// Reads one row and says how many bytes it takes; one tree descent, from the cache or the
    /// disk.
    pub(crate) fn record(&self, row: u32) -> Result<(Record, usize), Error> {
        // Looking at the bytes may panic on a damaged file, as finding them may.
        guarded(&self.name, || {
            let found = self.table.get(row).in_file(&self.name)?;
            let bytes = found.ok_or_else(|| self.corrupt(row, &"it is not there"))?;
            Ok((self.decode(row, bytes.value())?, bytes.value().len()))
        })
    }

    /// An error where there are rows behind those that are counted.
    pub(crate) fn check_end(&self) -> Result<(), Error> {
        let rows = self.rows()?;
        let last = guarded(&self.name, || {
            Ok(self.table.last().in_file(&self.name)?.map(|(row, _)| row.value()))
        })?;
        match last {
            Some(last) if last >= rows => Err(Error::corrupt(format_args!(
                "{} counts {rows} rows of table log and has row {last}",
                self.name
            ))),
            _ => Ok(()),
        }
    }

    /// How many rows there are; they are numbered from zero.
    pub(crate) fn rows(&self) -> Result<u32, Error> {
        let rows = guarded(&self.name, || self.table.len().in_file(&self.name))?;
        u32::try_from(rows)
            .map_err(|_| Error::corrupt(format_args!("{} has too many rows", self.name)))
    }

    /// Reads some rows in order, with the bytes each takes, up to the first that cannot be read.
    pub(crate) fn replay(
        &self,
        rows: Range<u32>,
        mut each: impl FnMut(u32, Glance, usize),
    ) -> Result<(), Error> {
        guarded(&self.name, || {
            let mut found = self.table.range(rows.clone()).in_file(&self.name)?;
            for row in rows {
                let Some(entry) = found.next() else {
                    return Err(self.corrupt(row, &"it is not there"));
                };
                let (stands_at, bytes) = entry.in_file(&self.name)?;
                if stands_at.value() != row {
                    return Err(self.corrupt(row, &"it is not there"));
                }
                let position = Position { generation: self.generation, row };
                let glance = codec::glance(bytes.value(), position)
                    .map_err(|error| self.corrupt(row, &error).with_source(error))?;
                each(row, glance, bytes.value().len());
            }
            Ok(())
        })
    }

    fn decode(&self, row: u32, bytes: &[u8]) -> Result<Record, Error> {
        codec::decode(bytes, Position { generation: self.generation, row })
            .map_err(|error| self.corrupt(row, &error).with_source(error))
    }

    fn corrupt(&self, row: u32, why: &dyn std::fmt::Display) -> Error {
        Error::corrupt(format_args!(
            "row {row} of table log in {} cannot be read, {why}",
            self.name
        ))
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("generation", &self.generation).finish_non_exhaustive()
    }
}
