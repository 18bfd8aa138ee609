//! The bytes of a record: what docs/format.md specifies, and nothing outside this file knows.
//!
//! ```text
//! format: u8 = 1 │ wire, little-endian, fixed width │ CRC-32 of position, format and wire: u32
//! ```
//!
//! The checksum covers the position as well, so a row that turns up in another place does not
//! pass for the row that belongs there. Fields that most records lack take one byte when absent.

use bincode::{BorrowDecode, Encode};
use bytes::Bytes;

use super::{Failure, Names, Payload, Position, Record, State, WindowFrom};
use crate::identity::{Fingerprint, OperationId, ProjectId};

/// The record format this version writes.
pub(crate) const FORMAT: u8 = 1;

const CHECKSUM_BYTES: usize = 4;

const IN_FLIGHT: u8 = 1;
const RELEASED: u8 = 2;
const COMPLETED: u8 = 3;
const FAILED: u8 = 4;
const EXHAUSTED: u8 = 5;
const FORGOTTEN: u8 = 6;

const DISPATCHED: u8 = 1;
const FROM_FIRST_CLAIM: u8 = 2;

/// Field for field what stands in docs/format.md.
#[derive(Encode, BorrowDecode)]
struct Wire<'a> {
    state: u8,
    flags: u8,
    operation: [u8; 16],
    project: [u8; 8],
    sequence: u64,
    claimed_at: u64,
    window: u64,
    /// End of the lease; zero where nobody owns it.
    lease_until: u64,
    epoch: u32,
    /// Absent: 1.
    attempt: Option<u32>,
    /// Absent: the sequence.
    fence: Option<u64>,
    prev: Option<(u32, u32)>,
    /// Absent: when it was claimed.
    changed_at: Option<u64>,
    /// Absent: when it expires.
    retained_until: Option<u64>,
    fingerprint: Option<[u8; 16]>,
    checkpoint: Option<&'a [u8]>,
    label: Option<&'a str>,
    names: Option<(&'a [u8], &'a [u8])>,
    /// Reason of a release, or content tag of a reply.
    text: Option<&'a str>,
    body: Option<&'a [u8]>,
}

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("the row is cut short")]
    Short,
    #[error("the row has format {0}, this version reads {FORMAT}")]
    Format(u8),
    #[error("the row's checksum does not match")]
    Checksum,
    #[error("the row's fields do not make a record")]
    Fields,
}

/// The bytes of a record that has no sequence and no place yet: all that can be done before the
/// queue is locked.
pub(crate) struct Draft {
    plain: [u8; PLAIN_BYTES],
    filled: usize,
    /// In place of `plain` where that is too short.
    long: Option<Vec<u8>>,
}

/// Room for a record without notes, names and reply.
const PLAIN_BYTES: usize = 128;

/// Where the sequence stands: after format, state, flags, operation and project.
const SEQUENCE_AT: usize = 27;

impl Draft {
    /// Of a record whose sequence is zero, and its fence as well if that is to be the sequence.
    pub(crate) fn of(record: &Record) -> Self {
        let wire = wire(record);
        let mut draft = Draft { plain: [FORMAT; PLAIN_BYTES], filled: 1, long: None };
        let room = draft.plain.get_mut(1..).unwrap_or_default();
        if let Ok(written) = bincode::encode_into_slice(&wire, room, CONFIG) {
            draft.filled += written;
        } else {
            // The encoder refuses no field of a wire record: it is too long, and nothing else.
            let mut long = bincode::encode_to_vec(&wire, CONFIG).unwrap_or_default();
            long.insert(0, FORMAT);
            draft.long = Some(long);
        }
        draft
    }

    /// Appends the finished bytes to `out`.
    pub(crate) fn stamp(&self, sequence: u64, position: Position, out: &mut Vec<u8>) {
        let start = out.len();
        let plain = || self.plain.get(..self.filled).unwrap_or_default();
        out.extend_from_slice(self.long.as_deref().unwrap_or_else(plain));
        if let Some(bytes) = out.get_mut(start..) {
            if let Some(place) = bytes.get_mut(SEQUENCE_AT..SEQUENCE_AT + 8) {
                place.copy_from_slice(&sequence.to_le_bytes());
            }
            let sum = checksum(position, bytes);
            out.extend_from_slice(&sum.to_le_bytes());
        }
    }
}

/// Reads the record that stands at `position`. Copies what it keeps.
pub(crate) fn decode(row: &[u8], position: Position) -> Result<Record, CodecError> {
    record(&read(row, position)?).ok_or(CodecError::Fields)
}

/// What an index has to know of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Glance {
    pub(crate) operation: OperationId,
    pub(crate) sequence: u64,
    pub(crate) prev: Option<Position>,
    pub(crate) epoch: u32,
    pub(crate) changed_at: u64,
    pub(crate) retained_until: u64,
    pub(crate) is_unanswered: bool,
}

/// Reads of a record what an index has to know of it, and copies nothing.
pub(crate) fn glance(row: &[u8], position: Position) -> Result<Glance, CodecError> {
    let wire = read(row, position)?;
    let is_unanswered = matches!(wire.state, IN_FLIGHT | RELEASED);
    let changed_at = wire.changed_at.unwrap_or(wire.claimed_at);
    let from = if wire.flags & FROM_FIRST_CLAIM == 0 { changed_at } else { wire.claimed_at };
    let expires_at = match wire.state {
        IN_FLIGHT => from.saturating_add(wire.window).max(wire.lease_until),
        RELEASED | COMPLETED | FAILED | EXHAUSTED => from.saturating_add(wire.window),
        FORGOTTEN => 0,
        _ => return Err(CodecError::Fields),
    };
    Ok(Glance {
        operation: OperationId(wire.operation),
        sequence: wire.sequence,
        prev: wire.prev.map(|(generation, row)| Position { generation, row }),
        epoch: wire.epoch,
        changed_at,
        retained_until: wire.retained_until.unwrap_or(expires_at),
        is_unanswered,
    })
}

fn read(row: &[u8], position: Position) -> Result<Wire<'_>, CodecError> {
    let (covered, sum) = row.split_last_chunk::<CHECKSUM_BYTES>().ok_or(CodecError::Short)?;
    let (&format, bytes) = covered.split_first().ok_or(CodecError::Short)?;
    let is_right = checksum(position, covered) == u32::from_le_bytes(*sum);
    if !is_right && !cfg!(planted = "checksum-ignored") {
        return Err(CodecError::Checksum);
    }
    if format != FORMAT {
        return Err(CodecError::Format(format));
    }
    let (wire, read) = bincode::borrow_decode_from_slice::<Wire<'_>, _>(bytes, CONFIG)
        .map_err(|_| CodecError::Fields)?;
    if read != bytes.len() || wire.flags & !(DISPATCHED | FROM_FIRST_CLAIM) != 0 {
        return Err(CodecError::Fields);
    }
    Ok(wire)
}

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
> = bincode::config::standard().with_fixed_int_encoding();

fn checksum(position: Position, covered: &[u8]) -> u32 {
    let mut place = [0u8; 8];
    let (generation, row) = place.split_at_mut(4);
    generation.copy_from_slice(&position.generation.to_le_bytes());
    row.copy_from_slice(&position.row.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&place);
    hasher.update(covered);
    hasher.finalize()
}

fn wire(record: &Record) -> Wire<'_> {
    let (state, lease_until, text, body) = match &record.state {
        State::InFlight { lease_until } => (IN_FLIGHT, *lease_until, None, None),
        State::Released { reason } => (RELEASED, 0, Some(&**reason), None),
        State::Completed(payload) => {
            (COMPLETED, 0, payload.content_tag.as_deref(), Some(&*payload.body))
        }
        State::Failed(Failure::Reply(payload)) => {
            (FAILED, 0, payload.content_tag.as_deref(), Some(&*payload.body))
        }
        State::Failed(Failure::AttemptsExhausted) => (EXHAUSTED, 0, None, None),
        State::Forgotten => (FORGOTTEN, 0, None, None),
    };
    let mut flags = 0;
    if record.dispatched {
        flags |= DISPATCHED;
    }
    if record.window_from == WindowFrom::FirstClaim {
        flags |= FROM_FIRST_CLAIM;
    }
    Wire {
        state,
        flags,
        operation: record.operation.0,
        project: record.project.0,
        sequence: record.sequence,
        claimed_at: record.claimed_at,
        window: record.window,
        lease_until,
        epoch: record.epoch,
        attempt: unless(record.attempt, &1),
        fence: unless(record.fence, &record.sequence),
        prev: record.prev.map(|prev| (prev.generation, prev.row)),
        changed_at: unless(record.changed_at, &record.claimed_at),
        retained_until: unless(record.retained_until, &record.expires_at()),
        fingerprint: record.fingerprint.map(|print| print.0),
        checkpoint: record.checkpoint.as_deref(),
        label: record.label.as_deref(),
        names: record.names.as_ref().map(|names| (&*names.project, &*names.key)),
        text,
        body,
    }
}

fn record(wire: &Wire<'_>) -> Option<Record> {
    let payload = || Payload {
        content_tag: wire.text.map(Into::into),
        body: Bytes::copy_from_slice(wire.body.unwrap_or_default()),
    };
    let state = match wire.state {
        IN_FLIGHT => State::InFlight { lease_until: wire.lease_until },
        RELEASED => State::Released { reason: wire.text.unwrap_or_default().into() },
        COMPLETED => State::Completed(payload()),
        FAILED => State::Failed(Failure::Reply(payload())),
        EXHAUSTED => State::Failed(Failure::AttemptsExhausted),
        FORGOTTEN => State::Forgotten,
        _ => return None,
    };
    let mut record = Record {
        operation: OperationId(wire.operation),
        project: ProjectId(wire.project),
        sequence: wire.sequence,
        fence: wire.fence.unwrap_or(wire.sequence),
        prev: wire.prev.map(|(generation, row)| Position { generation, row }),
        attempt: wire.attempt.unwrap_or(1),
        epoch: wire.epoch,
        claimed_at: wire.claimed_at,
        changed_at: wire.changed_at.unwrap_or(wire.claimed_at),
        window: wire.window,
        window_from: match wire.flags & FROM_FIRST_CLAIM {
            0 => WindowFrom::LastChange,
            _ => WindowFrom::FirstClaim,
        },
        retained_until: 0,
        fingerprint: wire.fingerprint.map(Fingerprint),
        dispatched: wire.flags & DISPATCHED != 0,
        checkpoint: wire.checkpoint.map(Bytes::copy_from_slice),
        label: wire.label.map(Into::into),
        names: wire.names.map(|(project, key)| {
            let copy = Bytes::copy_from_slice;
            Box::new(Names { project: copy(project), key: copy(key) })
        }),
        state,
    };
    record.retained_until = wire.retained_until.unwrap_or_else(|| record.expires_at());
    Some(record)
}

/// Nothing, where `value` is what its absence stands for.
fn unless<T: PartialEq>(value: T, implied: &T) -> Option<T> {
    (value != *implied).then_some(value)
}

/// Reads bytes as a row, and as one whose checksum is right: what is a record is written and read
/// as the same one.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let position = Position { generation: 7, row: 9 };
    let _ = decode(bytes, position);
    let mut row = [&[FORMAT], bytes].concat();
    row.extend_from_slice(&checksum(position, &row).to_le_bytes());
    let read = decode(&row, position);
    let glance = glance(&row, position);
    let Ok(record) = read else { return };
    let glance = glance.unwrap_or_else(|error| panic!("{error}: {record:?}"));
    assert_eq!(glance.operation, record.operation);
    assert_eq!(glance.sequence, record.sequence);
    assert_eq!(glance.prev, record.prev);
    assert_eq!(glance.epoch, record.epoch);
    assert_eq!(glance.changed_at, record.changed_at);
    assert_eq!(glance.retained_until, record.retained_until);
    assert_eq!(glance.is_unanswered, record.is_unanswered());
    let mut written = Vec::new();
    Draft::of(&record).stamp(record.sequence, position, &mut written);
    assert_eq!(decode(&written, position), Ok(record));
}

#[cfg(test)]
mod tests;
