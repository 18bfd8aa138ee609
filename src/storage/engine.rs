//! redb behind a narrow waist: how its databases are opened, and its errors and panics read.

use std::fmt::Display;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::{Builder, Database};

use super::backend::Backend;
use crate::error::{Error, ErrorKind};

/// Opens, repairs where its last user was cut off, or makes a database in `backend`.
///
/// One process writes and the directory's lock says which, so redb needs no mode in which
/// processes share a file; those commit in two phases whatever is asked of them.
///
/// The checksum of every page is looked at, which ordinary reads do not: of a file that was closed
/// they would take a wrong number of rows, or a wrong key of all hashes, for what was written.
pub(super) fn database(
    name: &str,
    backend: Backend,
    cache_bytes: usize,
) -> Result<Database, Error> {
    guarded(name, || {
        Builder::new()
            .set_cache_size(cache_bytes)
            .set_check_integrity_on_open(!cfg!(planted = "pages-not-checked"))
            .create_with_backend(backend)
            .in_file(name)
    })
}

/// Runs `work` on a database and turns a panic on a damaged file into an error that names it.
pub(super) fn guarded<T>(name: &str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // What a panic may leave half-done is redb's, and redb refuses to go on with it by itself.
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::corrupt(format_args!("{name} is damaged"))))
}

/// Reads an error of redb as one of ours that names the file.
pub(super) trait InFile<T> {
    fn in_file(self, name: &str) -> Result<T, Error>;
}

impl<T, E: Into<redb::Error>> InFile<T> for Result<T, E> {
    fn in_file(self, name: &str) -> Result<T, Error> {
        self.map_err(|error| fault(name, error.into()))
    }
}

/// What an error of redb means for the caller.
fn fault(name: &str, error: redb::Error) -> Error {
    match error {
        redb::Error::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            Error::corrupt(format_args!("{name} is no file of a store")).with_source(error)
        }
        redb::Error::Io(error) => Error::io(name, error),
        redb::Error::DatabaseAlreadyOpen => already_open(&name),
        redb::Error::DatabaseClosed => Error::closed(),
        // Of a file that was closed, which is what is opened to be read only.
        error @ (redb::Error::RepairAborted
        | redb::Error::Corrupted(_)
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::UpgradeRequired(_)) => {
            Error::corrupt(format_args!("{name} is damaged")).with_source(error)
        }
        error => Error::new(
            ErrorKind::Io,
            format!("{name}: the storage engine failed: open the store again"),
        )
        .with_source(error),
    }
}

pub(super) fn already_open(name: &dyn Display) -> Error {
    Error::new(
        ErrorKind::AlreadyOpen,
        format!("{name} is open already, here or in another process: close it there first"),
    )
}
