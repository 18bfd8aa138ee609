//! Tokens: detached tickets, as bytes that only their own store takes back.
//!
//! ```text
//! operation id: 16 │ claimed_at: u64 │ fence: u64 │ attempt: u32 │ zero: u32 │ store id: 8 │
//! seal: 16
//! ```
//!
//! The seal is a keyed hash of what comes before it, so a token cannot be made up.

use super::Engine;
use crate::error::{Error, ErrorKind};
use crate::identity::{OperationId, RequestId};

const BODY_BYTES: usize = 48;
const SEAL_BYTES: usize = 16;

/// What a token stands for.
pub(super) struct Token {
    pub(super) operation: OperationId,
    pub(super) request_id: RequestId,
    pub(super) fence: u64,
}

impl Engine {
    pub(crate) fn token(
        &self,
        operation: OperationId,
        request_id: RequestId,
        fence: u64,
        attempt: u32,
    ) -> Vec<u8> {
        let mut token = Vec::with_capacity(BODY_BYTES + SEAL_BYTES);
        token.extend_from_slice(&operation.0);
        token.extend_from_slice(&request_id.claimed_at().to_le_bytes());
        token.extend_from_slice(&fence.to_le_bytes());
        token.extend_from_slice(&attempt.to_le_bytes());
        token.extend_from_slice(&[0; 4]);
        token.extend_from_slice(self.store.first_chunk::<8>().unwrap_or(&[0; 8]));
        let seal = self.secret.seal(&token);
        token.extend_from_slice(&seal);
        token
    }

    pub(super) fn read_token(&self, token: &[u8]) -> Result<Token, Error> {
        let read = || {
            let (body, seal) = token.split_last_chunk::<SEAL_BYTES>()?;
            if body.len() != BODY_BYTES || self.secret.seal(body) != *seal {
                return None;
            }
            let (operation, rest) = body.split_first_chunk::<16>()?;
            let (claimed_at, rest) = rest.split_first_chunk::<8>()?;
            let (fence, _) = rest.split_first_chunk::<8>()?;
            let operation = OperationId(*operation);
            Some(Token {
                operation,
                request_id: RequestId::new(u64::from_le_bytes(*claimed_at), operation),
                fence: u64::from_le_bytes(*fence),
            })
        };
        read().ok_or_else(|| {
            Error::new(
                ErrorKind::Gone,
                "the token was not made by this store: attach it where it was detached",
            )
        })
    }
}
