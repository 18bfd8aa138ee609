//! The bytes of a peer's row: a state, two times, and the reply.
//!
//! 17 bytes before the reply. A row of justonce's has more to tell: fence, attempt, lease, request
//! id, project, what it takes the place of, a checksum. So the peers write less than it does.

use super::{Claimed, Failure};

const IN_FLIGHT: u8 = 1;
const COMPLETED: u8 = 2;
const HEAD_BYTES: usize = 17;

#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) claimed_at: u64,
    pub(super) expires_at: u64,
    pub(super) reply: Option<&'a [u8]>,
}

impl<'a> Row<'a> {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let reply = self.reply.unwrap_or_default();
        let mut bytes = Vec::with_capacity(HEAD_BYTES + reply.len());
        bytes.push(if self.reply.is_some() { COMPLETED } else { IN_FLIGHT });
        bytes.extend_from_slice(&self.claimed_at.to_le_bytes());
        bytes.extend_from_slice(&self.expires_at.to_le_bytes());
        bytes.extend_from_slice(reply);
        bytes
    }

    pub(super) fn from_bytes(bytes: &'a [u8]) -> Result<Self, Failure> {
        let row = || {
            let (&state, bytes) = bytes.split_first()?;
            let (claimed_at, bytes) = bytes.split_first_chunk()?;
            let (expires_at, reply) = bytes.split_first_chunk()?;
            Some(Row {
                claimed_at: u64::from_le_bytes(*claimed_at),
                expires_at: u64::from_le_bytes(*expires_at),
                reply: (state == COMPLETED).then_some(reply),
            })
        };
        row().ok_or_else(|| "a row is cut short".into())
    }

    /// What a claim is told of it, where it is not over.
    pub(super) fn seen_at(&self, now: u64) -> Option<Claimed> {
        (self.expires_at > now).then(|| match self.reply {
            Some(reply) => Claimed::Completed(reply.to_vec()),
            None => Claimed::InFlight,
        })
    }
}
