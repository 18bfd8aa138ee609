//! Who is who: store, project, operation and request ids, and fingerprints.
//!
//! Operation and project ids are keyed BLAKE3 with a secret made at creation, so that a crafted
//! key can neither collide with another nor flood a shard, and an id tells nothing of the key.
//! Project and key are length-prefixed: `("a", "bc")` and `("ab", "c")` are two operations.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;

use smallvec::SmallVec;

use crate::error::{Error, ErrorKind};

/// Longest project or key, in bytes.
pub const MAX_NAME_BYTES: usize = 1024;

/// Number of shards of the table; the first byte of an operation id chooses one.
pub(crate) const SHARDS: usize = 256;

/// Identity of one store: files that do not carry it are another store's.
pub(crate) type StoreId = [u8; 16];

/// Key of the hash, made at creation.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) [u8; 32]);

/// Keyed BLAKE3 of project and key, 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct OperationId(pub(crate) [u8; 16]);

/// Keyed BLAKE3 of the project, 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct ProjectId(pub(crate) [u8; 8]);

/// The project a thread asked for last.
#[derive(Default)]
struct LastProject {
    secret: [u8; 32],
    /// Empty, which no project is, until there is one.
    name: SmallVec<[u8; 48]>,
    id: ProjectId,
}

thread_local! {
    static LAST_PROJECT: RefCell<LastProject> = RefCell::default();
}

/// BLAKE3 of what the caller says the operation is, 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint(pub(crate) [u8; 16]);

impl Secret {
    pub(crate) fn operation(&self, project: &[u8], key: &[u8]) -> OperationId {
        let length = u32::try_from(project.len()).unwrap_or(u32::MAX).to_le_bytes();
        OperationId(self.hash(&[&length, project, key]))
    }

    /// The thread's last project is remembered: its hash was a seventh of a claim's instructions.
    pub(crate) fn project(&self, project: &[u8]) -> ProjectId {
        LAST_PROJECT.with_borrow_mut(|last| {
            if last.name.as_slice() != project || last.secret != self.0 {
                *last = LastProject {
                    secret: self.0,
                    name: SmallVec::from_slice(project),
                    id: self.hash_project(project),
                };
            }
            last.id
        })
    }

    fn hash_project(&self, project: &[u8]) -> ProjectId {
        // No operation has this prefix: project lengths are bounded far below it.
        let hash = self.hash(&[&u32::MAX.to_le_bytes(), project]);
        ProjectId(hash.first_chunk().copied().unwrap_or_default())
    }

    /// Authenticates a detached ticket.
    pub(crate) fn seal(&self, token: &[u8]) -> [u8; 16] {
        self.hash(&[&(u32::MAX - 1).to_le_bytes(), token])
    }

    fn hash(&self, parts: &[&[u8]]) -> [u8; 16] {
        // Most names fit one hash block; a buffer on the stack saves the incremental hasher,
        // whose state is 1.9 KB to set up.
        let mut buffer = [0u8; 256];
        let mut filled = 0;
        for part in parts {
            let Some(space) = buffer.get_mut(filled..filled + part.len()) else {
                return self.hash_long(parts);
            };
            space.copy_from_slice(part);
            filled += part.len();
        }
        let bytes = buffer.get(..filled).unwrap_or_default();
        first_half(blake3::keyed_hash(&self.0, bytes))
    }

    fn hash_long(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in parts {
            hasher.update(part);
        }
        first_half(hasher.finalize())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

fn first_half(hash: blake3::Hash) -> [u8; 16] {
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

impl OperationId {
    /// Which shard looks after it.
    pub(crate) fn shard(self) -> u8 {
        self.0[0]
    }

    /// The 32 bits an index keeps, other bits than the shard's. An index leads to records, whose
    /// ids tell operations apart: of a hundred million, one in ten thousand shares its shard and
    /// tag with another.
    pub(crate) fn tag(self) -> u32 {
        u32::from_le_bytes(self.0.last_chunk().copied().unwrap_or_default())
    }
}

impl Fingerprint {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Fingerprint(first_half(blake3::hash(bytes)))
    }
}

/// Names one request for the life of its record: `rr_` and 36 characters.
///
/// Sorts by the time of the first claim, tells nothing of project or key, and is all that
/// [`Store::lookup_request`](crate::Store::lookup_request) needs. The characters are Crockford's
/// base32 of 48 bits of milliseconds and the 128-bit operation id; reading takes either case.
///
/// ```
/// use justonce::RequestId;
///
/// let id: RequestId = "rr_064K72CQR0G7ZC2Q4WQ5KQ2XWZ0BV0J8QW3G".parse()?;
/// assert_eq!(id.to_string(), "rr_064K72CQR0G7ZC2Q4WQ5KQ2XWZ0BV0J8QW3G");
/// assert!("rr_short".parse::<RequestId>().is_err());
/// # Ok::<(), justonce::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId {
    claimed_at: u64,
    operation: OperationId,
}

const PREFIX: &str = "rr_";
const DIGITS: usize = 36;
const CLAIMED_AT_BITS: u32 = 48;
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl RequestId {
    pub(crate) fn new(claimed_at: u64, operation: OperationId) -> Self {
        RequestId { claimed_at: claimed_at & ((1 << CLAIMED_AT_BITS) - 1), operation }
    }

    /// Stands where there is no request; no record has it.
    pub(crate) fn none() -> Self {
        RequestId { claimed_at: 0, operation: OperationId([0; 16]) }
    }

    pub(crate) fn operation(self) -> OperationId {
        self.operation
    }

    pub(crate) fn claimed_at(self) -> u64 {
        self.claimed_at
    }
}

impl fmt::Display for RequestId {
    #[expect(clippy::indexing_slicing, reason = "five bits are one of 32 letters")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 36 digits hold 180 bits: the 176 in use, and four zero bits below them.
        let low = u128::from_be_bytes(self.operation.0);
        let mut text = [0u8; DIGITS];
        let mut bits = Bits { high: self.claimed_at, low };
        for digit in &mut text {
            *digit = ALPHABET[usize::from(bits.take_five())];
        }
        f.write_str(PREFIX)?;
        text.iter().try_for_each(|digit| write!(f, "{}", char::from(*digit)))
    }
}

/// The 176 bits of an id, taken five at a time from the top.
struct Bits {
    high: u64,
    low: u128,
}

impl Bits {
    fn take_five(&mut self) -> u8 {
        let top = (self.high >> (CLAIMED_AT_BITS - 5)) & 0x1f;
        self.high = ((self.high << 5) | (self.low >> 123) as u64) & ((1 << CLAIMED_AT_BITS) - 1);
        self.low <<= 5;
        top as u8
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RequestId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        decode(text).ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                "malformed request id: give rr_ and 36 characters of Crockford base32, as handed out",
            )
        })
    }
}

fn decode(text: &str) -> Option<RequestId> {
    let digits = text.strip_prefix(PREFIX)?.as_bytes();
    if digits.len() != DIGITS {
        return None;
    }
    let (mut high, mut low) = (0u64, 0u128);
    for digit in digits {
        let upper = digit.to_ascii_uppercase();
        let value = ALPHABET.iter().position(|&letter| letter == upper)? as u128;
        high = (high << 5) | (low >> 123) as u64;
        low = (low << 5) | value;
    }
    // 180 bits were read, the lowest four must be zero and go.
    if low & 0xf != 0 {
        return None;
    }
    low = (low >> 4) | (u128::from(high & 0xf) << 124);
    high >>= 4;
    Some(RequestId { claimed_at: high, operation: OperationId(low.to_be_bytes()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_request_id_reads_back_as_it_was_written(at in 0u64..(1 << 48), id: [u8; 16]) {
            let request = RequestId::new(at, OperationId(id));
            prop_assert_eq!(request.to_string().len(), 39);
            prop_assert_eq!(request.to_string().parse::<RequestId>().unwrap(), request);
            prop_assert_eq!(
                request.to_string().to_lowercase().parse::<RequestId>().unwrap(),
                request
            );
        }

        #[test]
        fn request_ids_sort_as_text_by_time(
            first in 0u64..(1 << 48),
            second in 0u64..(1 << 48),
            id: [u8; 16],
        ) {
            let id = OperationId(id);
            let (first, second) = (RequestId::new(first, id), RequestId::new(second, id));
            prop_assert_eq!(first.cmp(&second), first.to_string().cmp(&second.to_string()));
        }

        #[test]
        fn text_that_is_no_request_id_is_refused(text in ".{0,48}") {
            if let Ok(request) = text.parse::<RequestId>() {
                prop_assert_eq!(request.to_string(), text.to_uppercase().replacen("RR_", "rr_", 1));
            }
        }

        #[test]
        fn where_the_project_ends_matters(
            joined in prop::collection::vec(any::<u8>(), 2..600),
            at in 1usize..600,
            other in 1usize..600,
        ) {
            let secret = Secret([7; 32]);
            let (at, other) = (at % joined.len(), other % joined.len());
            prop_assume!(at != other);
            let (a, b) = joined.split_at(at);
            let (c, d) = joined.split_at(other);
            prop_assert_ne!(secret.operation(a, b), secret.operation(c, d));
        }
    }

    #[test]
    fn a_long_name_hashes_as_its_bytes_whichever_way_it_is_fed() {
        let secret = Secret([3; 32]);
        let project = vec![b'p'; 200];
        let key = vec![b'k'; MAX_NAME_BYTES];
        let mut joined = 200u32.to_le_bytes().to_vec();
        joined.extend_from_slice(&project);
        joined.extend_from_slice(&key);
        let whole = blake3::keyed_hash(&secret.0, &joined);
        assert_eq!(secret.operation(&project, &key).0, whole.as_bytes()[..16]);
    }

    #[test]
    fn project_hash_and_operation_hash_never_share_an_input() {
        let secret = Secret([9; 32]);
        assert_ne!(secret.project(b"acme").0, secret.operation(b"acme", b"").0[..8]);
    }
}
