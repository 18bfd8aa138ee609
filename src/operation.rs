//! What a caller says of an operation when claiming it.

use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::clock::millis_of;
use crate::error::{Error, ErrorKind};
use crate::identity::{Fingerprint, MAX_NAME_BYTES, OperationId, ProjectId, Secret};
use crate::record::transition::{OnLapsed, Terms};
use crate::record::{Names, WindowFrom};

/// Longest window or lease: 366 days.
pub const MAX_DURATION: Duration = Duration::from_hours(366 * 24);

/// Longest label, in bytes.
pub const MAX_LABEL_BYTES: usize = 255;

/// Names this long or shorter are kept without an allocation.
const INLINE_BYTES: usize = 48;

/// One logical operation: a project, a key, and what the caller says of it.
///
/// Project and key are exact bytes, 1 to 1,024 each: nothing is trimmed or folded. What is not
/// said here comes from the store's [`Options`](crate::Options). Nothing is checked before the
/// operation is claimed.
///
/// ```
/// use std::time::Duration;
/// use justonce::{OnLapsed, Operation};
///
/// let operation = Operation::new("acme", "ticket-842-classification")
///     .fingerprint(br#"{"model":"m","prompt":"hello"}"#)
///     .lease(Duration::from_secs(120))
///     .max_attempts(5)
///     .on_lapsed(OnLapsed::Report)
///     .label("classification");
/// ```
#[derive(Debug, Clone)]
#[must_use = "an operation does nothing until it is claimed"]
pub struct Operation {
    name: Name,
    fingerprint: Option<Fingerprint>,
    window: Option<Duration>,
    window_from: Option<WindowFrom>,
    lease: Option<Duration>,
    on_lapsed: OnLapsed,
    max_attempts: Option<u32>,
    label: Option<Box<str>>,
}

type Text = SmallVec<[u8; INLINE_BYTES]>;

#[derive(Debug, Clone)]
enum Name {
    Given {
        project: Text,
        key: Text,
    },
    /// Of a record whose key is not at hand.
    Known {
        operation: OperationId,
        project: ProjectId,
    },
}

/// What the store fills in where an operation does not say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Defaults {
    pub(crate) window: Duration,
    pub(crate) window_from: WindowFrom,
    pub(crate) lease: Duration,
    pub(crate) keep_keys: bool,
}

impl Operation {
    /// An operation of a project (a tenant, a customer) under a key the client chose for it.
    pub fn new(project: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        Operation::named(Name::Given {
            project: Text::from_slice(project.as_ref()),
            key: Text::from_slice(key.as_ref()),
        })
    }

    pub(crate) fn known(operation: OperationId, project: ProjectId) -> Self {
        Operation::named(Name::Known { operation, project })
    }

    fn named(name: Name) -> Self {
        Operation {
            name,
            fingerprint: None,
            window: None,
            window_from: None,
            lease: None,
            on_lapsed: OnLapsed::default(),
            max_attempts: None,
            label: None,
        }
    }

    /// What the operation is, such as the body of the request. Hashed here and now (BLAKE3, 128
    /// bits kept). A claim of the key with another fingerprint is a
    /// [`Mismatch`](crate::Claim::Mismatch); one without is not compared.
    pub fn fingerprint(mut self, of: impl AsRef<[u8]>) -> Self {
        self.fingerprint = Some(Fingerprint::of(of.as_ref()));
        self
    }

    /// How long the operation is remembered after its last change. Up to 366 days; the store's
    /// default is 24 hours.
    pub fn window(mut self, window: Duration) -> Self {
        self.window = Some(window);
        self
    }

    /// What the window counts from. The store's default is the last change.
    pub fn window_from(mut self, from: WindowFrom) -> Self {
        self.window_from = Some(from);
        self
    }

    /// How long a ticket is trusted without a sign of life. Up to 366 days; the store's default is
    /// 10 minutes.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// What to do if the owner is gone. The default is to take over.
    pub fn on_lapsed(mut self, on_lapsed: OnLapsed) -> Self {
        self.on_lapsed = on_lapsed;
        self
    }

    /// How many attempts there may be. A claim that would be one more turns the operation failed,
    /// with [`Reply::attempts_exhausted`](crate::Reply::attempts_exhausted). No limit by default.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// A note for people who look at the store; at most 255 bytes.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into().into_boxed_str());
        self
    }

    /// Checks everything and fills in what was not said.
    pub(crate) fn terms(
        self,
        secret: &Secret,
        defaults: &Defaults,
        now: u64,
    ) -> Result<Terms, Error> {
        let (operation, project) = match &self.name {
            Name::Given { project, key } => {
                (checked_operation(secret, project, key)?, secret.project(project))
            }
            Name::Known { operation, project } => (*operation, *project),
        };
        let window = self.window.unwrap_or(defaults.window);
        let lease = self.lease.unwrap_or(defaults.lease);
        checked_span("the window", window, now)?;
        checked_span("the lease", lease, now)?;
        let (window, lease) = (millis_of(window), millis_of(lease));
        if self.max_attempts == Some(0) {
            return Err(Error::new(ErrorKind::Invalid, "max_attempts is 0: allow at least one"));
        }
        if let Some(label) = &self.label
            && label.len() > MAX_LABEL_BYTES
        {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "the label is {} bytes long: give at most {MAX_LABEL_BYTES} bytes",
                    label.len()
                ),
            ));
        }
        let names = match &self.name {
            Name::Given { project, key } if defaults.keep_keys => Some(Box::new(Names {
                project: Bytes::copy_from_slice(project),
                key: Bytes::copy_from_slice(key),
            })),
            Name::Given { .. } | Name::Known { .. } => None,
        };
        Ok(Terms {
            operation,
            project,
            fingerprint: self.fingerprint,
            window,
            window_from: self.window_from.unwrap_or(defaults.window_from),
            lease,
            on_lapsed: self.on_lapsed,
            max_attempts: self.max_attempts,
            label: self.label,
            names,
        })
    }
}

/// The id of an operation whose names are within bounds.
pub(crate) fn checked_operation(
    secret: &Secret,
    project: &[u8],
    key: &[u8],
) -> Result<OperationId, Error> {
    checked_name("the project", project)?;
    checked_name("the key", key)?;
    Ok(secret.operation(project, key))
}

pub(crate) fn checked_name(field: &str, name: &[u8]) -> Result<(), Error> {
    if (1..=MAX_NAME_BYTES).contains(&name.len()) {
        Ok(())
    } else {
        Err(Error::invalid_size(field, name.len(), MAX_NAME_BYTES))
    }
}

/// A duration within bounds that, from now on, ends before the clock does.
pub(crate) fn checked_span(field: &str, span: Duration, now: u64) -> Result<(), Error> {
    checked_duration(field, span)?;
    match now.checked_add(millis_of(span)) {
        Some(_) => Ok(()),
        None => Err(Error::new(
            ErrorKind::Invalid,
            format!("{field} ends after the last time the clock can show: shorten it"),
        )),
    }
}

/// At least a millisecond, which is what the store counts in, and at most [`MAX_DURATION`].
pub(crate) fn checked_duration(field: &str, duration: Duration) -> Result<(), Error> {
    if (Duration::from_millis(1)..=MAX_DURATION).contains(&duration) {
        Ok(())
    } else {
        Err(Error::new(
            ErrorKind::Invalid,
            format!("{field} is {duration:?}: give 1 ms to 366 days"),
        ))
    }
}
