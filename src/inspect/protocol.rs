//! Questions and answers, as they stand on the line.

use serde::{Deserialize, Serialize};

use super::views::{EntryView, GenerationView, ProgressView, StateView, StatsView};
use crate::error::{Error, ErrorKind};

/// Version of the protocol. A service answers questions of its own version alone.
pub const VERSION: u32 = 1;

/// Longest question, in bytes: two names, each of their bytes spelled out.
pub(super) const MAX_QUESTION_BYTES: u64 = 16 << 10;

/// Longest body of a reply that is put into an answer, in bytes; of a longer one the length is
/// told.
pub const MAX_BODY_BYTES: usize = 16 << 20;

/// What can be asked of a store. Nothing that is asked changes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Question {
    /// [`Store::stats`](crate::Store::stats): one [`Answer::Stats`].
    Stats,
    /// [`Store::lookup`](crate::Store::lookup): an [`Answer::Entry`], or none.
    Lookup {
        /// The project.
        project: Octets,
        /// The key.
        key: Octets,
    },
    /// [`Store::lookup_request`](crate::Store::lookup_request): an [`Answer::Entry`], or none.
    Request {
        /// `rr_…`.
        id: String,
    },
    /// [`Store::scan`](crate::Store::scan): an [`Answer::Entry`] for each operation, in no order.
    Scan {
        /// Only those of this project.
        project: Option<Octets>,
        /// Only those in this state.
        state: Option<StateView>,
        /// Whether the bodies of replies are told.
        bodies: bool,
    },
    /// [`Store::in_flight`](crate::Store::in_flight): an [`Answer::Entry`] for each.
    InFlight,
    /// [`Store::history`](crate::Store::history): an [`Answer::Entry`] for each, newest first.
    History {
        /// The project.
        project: Octets,
        /// The key.
        key: Octets,
    },
    /// [`Store::generations`](crate::Store::generations): an [`Answer::Generation`] for each.
    Generations,
    /// [`Store::verify`](crate::Store::verify): [`Answer::Progress`] on the way, an
    /// [`Answer::Damage`] for each, and [`Answer::Verified`].
    Verify {
        /// Reads no faster; at least 1 MiB a second.
        bytes_per_second: Option<u64>,
    },
}

/// One line of what is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Answer {
    /// Counts, sizes and times.
    Stats(Box<StatsView>),
    /// An operation, or a record of one.
    Entry(Box<EntryView>),
    /// A generation.
    Generation(GenerationView),
    /// How far verifying is.
    Progress(ProgressView),
    /// Something that cannot be read. Other answers follow.
    Damage(Trouble),
    /// Verifying is done; its damages are told before it.
    Verified(ProgressView),
    /// Why there is no answer, or none any more. The last line.
    Error(Trouble),
    /// All is told. The last line.
    End {
        /// Entries or generations that were told.
        count: u64,
    },
}

/// An error, as it stands on the line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Trouble {
    /// The [`ErrorKind`], in lower case: `corrupt`, `closed`.
    pub kind: String,
    /// What and what next.
    pub message: String,
}

/// Bytes: a string where they are UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Octets {
    /// UTF-8.
    Text(String),
    /// Anything else, two digits a byte.
    Hex {
        /// The digits.
        hex: String,
    },
}

/// A question on the line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) version: u32,
    #[serde(flatten)]
    pub(super) question: Question,
}

/// The version alone, which is read first: what else stands in a later one is not known.
#[derive(Debug, Deserialize)]
struct AskedVersion {
    version: u32,
}

impl Asked {
    pub(super) fn read(line: &[u8]) -> Result<Question, Error> {
        let malformed = |error: serde_json::Error| {
            let message = format!("the question is malformed, {error}: mend it");
            Error::new(ErrorKind::Invalid, message).with_source(error)
        };
        let AskedVersion { version } = serde_json::from_slice(line).map_err(malformed)?;
        if version != VERSION {
            return Err(Error::new(
                ErrorKind::Incompatible { found: version, supported: VERSION },
                format!(
                    "the question is of version {version} and the service answers version \
                     {VERSION}: use a program of the service's version of this crate"
                ),
            ));
        }
        let Asked { question, .. } = serde_json::from_slice(line).map_err(malformed)?;
        Ok(question)
    }
}

impl Octets {
    /// The bytes.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) where the digits are none.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        match self {
            Octets::Text(text) => Ok(text.clone().into_bytes()),
            Octets::Hex { hex } => {
                let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
                let bytes: Option<Vec<u8>> = pairs
                    .iter()
                    .map(|[high, low]| {
                        let digit = |of: u8| char::from(of).to_digit(16);
                        u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()
                    })
                    .collect();
                bytes.filter(|_| rest.is_empty()).ok_or_else(|| {
                    Error::new(ErrorKind::Invalid, "hex is not pairs of digits: mend it")
                })
            }
        }
    }
}

impl From<&[u8]> for Octets {
    fn from(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Octets::Text(text.to_owned()),
            Err(_) => Octets::Hex { hex: bytes.iter().flat_map(digits).collect() },
        }
    }
}

/// The two digits of a byte.
fn digits(byte: &u8) -> impl Iterator<Item = char> {
    let digit = |of: u8| char::from_digit(u32::from(of), 16);
    [digit(byte >> 4), digit(byte & 15)].into_iter().flatten()
}

const KINDS: &[(&str, ErrorKind)] = &[
    ("invalid", ErrorKind::Invalid),
    ("busy", ErrorKind::Busy),
    ("lease_lost", ErrorKind::LeaseLost),
    ("gone", ErrorKind::Gone),
    ("in_flight", ErrorKind::InFlight),
    ("unknown", ErrorKind::Unknown),
    ("poisoned", ErrorKind::Poisoned),
    ("corrupt", ErrorKind::Corrupt),
    ("already_open", ErrorKind::AlreadyOpen),
    ("not_a_store", ErrorKind::NotAStore),
    ("io", ErrorKind::Io),
    ("closed", ErrorKind::Closed),
];

impl From<&Error> for Trouble {
    fn from(error: &Error) -> Self {
        let known = KINDS.iter().find(|(_, kind)| *kind == error.kind());
        let kind = match error.kind() {
            ErrorKind::TooLarge { .. } => "too_large",
            ErrorKind::Incompatible { .. } => "incompatible",
            _ => known.map_or("other", |(name, _)| name),
        };
        Trouble { kind: kind.to_owned(), message: error.to_string() }
    }
}

impl From<&Trouble> for Error {
    /// An error of the kind that was told; numbers it had are in the message alone.
    fn from(trouble: &Trouble) -> Self {
        let known = KINDS.iter().find(|(name, _)| *name == trouble.kind);
        let kind = match trouble.kind.as_str() {
            "incompatible" => ErrorKind::Incompatible { found: 0, supported: VERSION },
            _ => known.map_or(ErrorKind::Io, |(_, kind)| *kind),
        };
        Error::new(kind, trouble.message.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::MAX_NAME_BYTES;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_read_back_as_they_were_put_on_the_line(bytes: Vec<u8>) {
            let line = serde_json::to_string(&Octets::from(&bytes[..])).unwrap();
            let octets: Octets = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(octets.to_bytes().unwrap(), bytes);
        }

        #[test]
        fn any_line_is_a_question_or_refused(line: Vec<u8>) {
            let _ = Asked::read(&line);
        }
    }

    #[test]
    fn the_longest_names_fit_into_a_question() {
        let name = Octets::from(&[0u8; MAX_NAME_BYTES][..]);
        let question = Question::History { project: name.clone(), key: name };
        let line = serde_json::to_vec(&Asked { version: VERSION, question }).unwrap();
        assert!((line.len() as u64) < MAX_QUESTION_BYTES, "{}", line.len());
    }
}
