//! The made-up model: how long a call takes, and what it answers.
//!
//! A call takes 150 ms, a quarter of a millisecond for each token of the prompt and 20 ms for each
//! token of the answer. The answer has four bytes a token and differs from attempt to attempt, as
//! that of a real model does: two replies of one operation can be told apart.

use std::time::Duration;

use crate::trace::Row;

const BYTES_PER_TOKEN: usize = 4;

/// In the time of the trace.
pub(crate) fn duration(row: &Row) -> Duration {
    Duration::from_millis(150)
        + Duration::from_micros(250) * row.context_tokens
        + Duration::from_millis(20) * row.generated_tokens
}

/// What the call of an attempt answers.
pub(crate) fn answer(row: &Row, operation: usize, fence: u64) -> Vec<u8> {
    let size = row.generated_tokens as usize * BYTES_PER_TOKEN;
    let mut words = blake3::Hasher::new()
        .update(&(operation as u64).to_le_bytes())
        .update(&fence.to_le_bytes())
        .finalize_xof();
    let mut answer = vec![0; size];
    words.fill(&mut answer);
    answer
}

/// What a refused prompt is answered.
pub(crate) fn refusal(operation: usize, fence: u64) -> Vec<u8> {
    format!("{{\"error\":\"content_policy\",\"operation\":{operation},\"call\":{fence}}}")
        .into_bytes()
}

/// The provider's name of the call of an attempt.
pub(crate) fn call_id(operation: usize, fence: u64) -> String {
    format!("call-{operation}-{fence}")
}

/// What the books know a reply by.
pub(crate) fn digest(reply: &[u8]) -> String {
    blake3::hash(reply).to_hex().as_str().chars().take(32).collect()
}
