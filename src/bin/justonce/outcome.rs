//! How the program ends. The numbers are part of its surface, and in its help.

use std::io;
use std::process::ExitCode;

use justonce::{Error, ErrorKind};

/// It was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Found,
    NotFound,
    Damaged,
}

/// It was not.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The store, or its service, says why.
    Store(Error),
    /// It is open elsewhere, and what can be done about that.
    Unreached(String),
    /// The program does not do that.
    Refused(String),
    /// What is to be told cannot be written.
    Output(io::Error),
}

impl Failure {
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Failure::Refused(message.into())
    }

    /// What to say; nothing where whoever reads has had enough.
    pub(crate) fn message(&self) -> Option<String> {
        match self {
            Failure::Store(error) => Some(error.to_string()),
            Failure::Unreached(message) | Failure::Refused(message) => Some(message.clone()),
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
            Failure::Output(error) => Some(format!("cannot write: {error}")),
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Found => ExitCode::SUCCESS,
            Outcome::NotFound | Outcome::Damaged => ExitCode::from(1),
        }
    }
}

impl From<Failure> for ExitCode {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                ExitCode::SUCCESS
            }
            Failure::Store(error) => match error.kind() {
                ErrorKind::Invalid => ExitCode::from(2),
                ErrorKind::Busy | ErrorKind::InFlight => ExitCode::from(4),
                _ => ExitCode::from(3),
            },
            Failure::Refused(_) => ExitCode::from(4),
            Failure::Unreached(_) | Failure::Output(_) => ExitCode::from(3),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Store(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Output(error)
    }
}
