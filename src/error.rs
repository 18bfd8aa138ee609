//! The one error type, sorted by what the caller can do about it.
//!
//! Every message ends in the next step. No other crate's error type shows in a signature; what
//! went wrong underneath is reachable through [`std::error::Error::source`].

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::claim::Ticket;

/// What went wrong, by what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument is out of bounds. Nothing was written. Mend the argument.
    Invalid,
    /// A reply, checkpoint or note is over its limit. Nothing was written, and a ticket that was
    /// handed in is still owned: see [`Error::into_ticket`].
    #[non_exhaustive]
    TooLarge {
        /// Size handed in, in bytes.
        size: usize,
        /// Largest size accepted, in bytes.
        max: usize,
    },
    /// The queue, or the list of waiters, is full. Nothing was submitted. Try again shortly.
    Busy,
    /// Someone else owns the operation now, or it was settled by them. This work is not stored.
    LeaseLost,
    /// The record is not there: expired, forgotten, or never of this store.
    Gone,
    /// The operation has a live owner, so it is not forgotten. Wait for it, or force it.
    InFlight,
    /// The commit failed half-way: the write may or may not have landed. Do not do the work again;
    /// open the store again and look the operation up.
    Unknown,
    /// An earlier commit failed, so the store takes no more writes. Nothing was written. Open the
    /// store again.
    Poisoned,
    /// A file or a row of it cannot be trusted. The message names it. Other keys go on working.
    Corrupt,
    /// The store was written by another format. Use a matching version of this crate.
    #[non_exhaustive]
    Incompatible {
        /// Format the store has.
        found: u32,
        /// Newest format this version reads.
        supported: u32,
    },
    /// This or another process has the store open. Close it there first.
    AlreadyOpen,
    /// The path is a file, or a directory that holds other things. It was not touched.
    NotAStore,
    /// The operating system refused, outside of a commit. The message names the path.
    Io,
    /// The store was closed, or this is a forked child of the process that opened it.
    Closed,
}

/// Why a call did not do what it was asked.
///
/// [`kind`](Error::kind) says what to do about it; [`Display`](fmt::Display) says it in a
/// sentence; [`source`](StdError::source) has what lies underneath.
///
/// ```
/// use justonce::{ErrorKind, Operation, Options};
///
/// let store = Options::new().in_memory()?;
/// let refused = store.claim(Operation::new("acme", "")).wait().unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Invalid);
/// # Ok::<(), justonce::Error>(())
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Source>,
    ticket: Option<Ticket>,
}

/// A cause shared by everyone whose write was in the same batch.
type Source = Arc<dyn StdError + Send + Sync>;

impl Error {
    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The ticket of a consuming call that failed for a reason that can be mended
    /// ([`TooLarge`](ErrorKind::TooLarge), [`Busy`](ErrorKind::Busy),
    /// [`Invalid`](ErrorKind::Invalid)): still owned, to be tried with again.
    ///
    /// ```
    /// use justonce::{Claim, Operation, Options};
    ///
    /// let store = Options::new().max_reply_bytes(4).in_memory()?;
    /// let Claim::New(ticket) = store.claim(Operation::new("acme", "k")).wait()? else { panic!() };
    /// let refused = ticket.complete("too long").wait().unwrap_err();
    /// let ticket = refused.into_ticket().expect("the ticket comes back");
    /// ticket.complete("ok").wait()?;
    /// # Ok::<(), justonce::Error>(())
    /// ```
    #[must_use]
    pub fn into_ticket(self) -> Option<Ticket> {
        self.0.ticket
    }

    /// Whether a full disk is at the bottom of it.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        let mut cause = self.source();
        while let Some(error) = cause {
            if let Some(io) = error.downcast_ref::<io::Error>() {
                return matches!(
                    io.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                );
            }
            cause = error.source();
        }
        false
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), source: None, ticket: None }))
    }

    pub(crate) fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    pub(crate) fn with_ticket(mut self, ticket: Ticket) -> Self {
        self.0.ticket = Some(ticket);
        self
    }

    /// The same error for another waiter of the same batch. A ticket stays with the first.
    pub(crate) fn share(&self) -> Self {
        Error(Box::new(Inner {
            kind: self.0.kind,
            message: self.0.message.clone(),
            source: self.0.source.clone(),
            ticket: None,
        }))
    }

    /// The same cause, seen by another caller as another kind.
    pub(crate) fn seen_as(&self, kind: ErrorKind, message: impl Into<String>) -> Self {
        let mut seen = self.share();
        seen.0.kind = kind;
        seen.0.message = message.into();
        seen
    }

    pub(crate) fn invalid_size(field: &str, size: usize, max: usize) -> Self {
        Error::new(
            ErrorKind::Invalid,
            format!("{field} is {size} bytes long: give 1 to {max} bytes"),
        )
    }

    pub(crate) fn too_large(field: &str, size: usize, max: usize) -> Self {
        Error::new(
            ErrorKind::TooLarge { size, max },
            format!("{field} is {size} bytes long: give at most {max} bytes"),
        )
    }

    pub(crate) fn closed() -> Self {
        Error::new(ErrorKind::Closed, "the store is closed: open it again")
    }

    pub(crate) fn corrupt(what: impl fmt::Display) -> Self {
        Error::new(
            ErrorKind::Corrupt,
            format!("{what}: restore the file from a copy, or forget the key; other keys go on"),
        )
    }

    pub(crate) fn io(path: impl fmt::Display, error: io::Error) -> Self {
        let message = format!("{path}: {error}: check that the path exists and can be written");
        Error::new(ErrorKind::Io, message).with_source(error)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        // Not the `Arc`, behind which nobody could tell what it is.
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut error = f.debug_struct("Error");
        error.field("kind", &self.0.kind).field("message", &self.0.message);
        if let Some(source) = &self.0.source {
            error.field("source", source);
        }
        error.finish_non_exhaustive()
    }
}
