//! A reply: bytes, and a small tag that says what they are.

use std::ops::Deref;
use std::time::Duration;

use bytes::Bytes;

use crate::identity::RequestId;
use crate::record::{Failure, Payload, Record, State};

/// Longest content tag, in bytes.
pub const MAX_CONTENT_TAG_BYTES: usize = 255;

/// What an operation was answered with, for its duplicates to be answered with as well.
///
/// Bytes and texts turn into one by themselves; [`Reply::json`] makes one of a serde value.
/// Its bytes and tag are read through [`Payload`]. Cloning shares the bytes. The default cap is
/// 8 MiB ([`Options::max_reply_bytes`](crate::Options::max_reply_bytes)).
///
/// ```
/// use justonce::{Claim, Operation, Options, Reply};
///
/// let store = Options::new().in_memory()?;
/// let claim = || store.claim(Operation::new("acme", "k")).wait();
/// let Claim::New(ticket) = claim()? else { panic!() };
/// ticket.complete(Reply::new("<ok/>").content("application/xml")).wait()?;
///
/// let Claim::Completed(reply) = claim()? else { panic!() };
/// assert_eq!(reply.body(), b"<ok/>");
/// assert_eq!(reply.content_tag(), Some("application/xml"));
/// # Ok::<(), justonce::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub(crate) payload: Payload,
    pub(crate) retention: Option<Duration>,
    stored: Option<Stored>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stored {
    request_id: RequestId,
    attempt: u32,
    exhausted: bool,
}

impl Reply {
    /// A reply of these bytes.
    #[must_use]
    pub fn new(body: impl Into<Vec<u8>>) -> Self {
        Reply {
            payload: Payload { content_tag: None, body: Bytes::from(body.into()) },
            retention: None,
            stored: None,
        }
    }

    /// Says what the bytes are, such as a media type; at most 255 bytes.
    #[must_use]
    pub fn content(mut self, tag: impl Into<String>) -> Self {
        self.payload.content_tag = Some(tag.into().into_boxed_str());
        self
    }

    /// Has the reply remembered this long, in place of the operation's window.
    #[must_use]
    pub fn retention(mut self, window: Duration) -> Self {
        self.retention = Some(window);
        self
    }

    /// A reply of a value as JSON, tagged `application/json`. Read back with [`Payload::json`].
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) where the value does not serialize.
    ///
    /// ```
    /// use justonce::Reply;
    ///
    /// let reply = Reply::json(&vec![1, 2, 3])?;
    /// assert_eq!(reply.body(), b"[1,2,3]");
    /// assert_eq!(reply.json::<Vec<u8>>()?, [1, 2, 3]);
    /// # Ok::<(), justonce::Error>(())
    /// ```
    #[cfg(feature = "json")]
    pub fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<Self, crate::Error> {
        match serde_json::to_vec(value) {
            Ok(body) => Ok(Reply::new(body).content("application/json")),
            Err(error) => Err(crate::Error::new(
                crate::ErrorKind::Invalid,
                "the reply does not serialize as JSON: mend its type",
            )
            .with_source(error)),
        }
    }

    /// The bytes, without a copy where nobody else shares them.
    #[must_use]
    pub fn into_body(self) -> Vec<u8> {
        self.payload.body.into()
    }

    /// The request it is the reply to; of a stored reply only.
    #[must_use]
    pub fn request_id(&self) -> Option<RequestId> {
        self.stored.map(|stored| stored.request_id)
    }

    /// The attempt that gave it; of a stored reply only.
    #[must_use]
    pub fn attempt(&self) -> Option<u32> {
        self.stored.map(|stored| stored.attempt)
    }

    /// The number of attempts, where the operation failed for having used them up
    /// ([`Operation::max_attempts`](crate::Operation::max_attempts)); the body is empty then.
    #[must_use]
    pub fn attempts_exhausted(&self) -> Option<u32> {
        self.stored.filter(|stored| stored.exhausted).map(|stored| stored.attempt)
    }

    /// The reply in a settled record.
    pub(crate) fn of(record: &Record) -> Option<Self> {
        let (payload, exhausted) = match &record.state {
            State::Completed(payload) | State::Failed(Failure::Reply(payload)) => {
                (payload.clone(), false)
            }
            State::Failed(Failure::AttemptsExhausted) => (Payload::default(), true),
            State::InFlight { .. } | State::Released { .. } | State::Forgotten => return None,
        };
        let stored = Stored { request_id: record.request_id(), attempt: record.attempt, exhausted };
        Some(Reply { payload, retention: None, stored: Some(stored) })
    }

    /// The request of a reply that came out of the store.
    pub(crate) fn stored_as(&self) -> RequestId {
        // Only stored replies are put into answers.
        self.stored.map_or_else(RequestId::none, |stored| stored.request_id)
    }
}

impl Deref for Reply {
    type Target = Payload;

    fn deref(&self) -> &Payload {
        &self.payload
    }
}

impl From<Vec<u8>> for Reply {
    fn from(body: Vec<u8>) -> Self {
        Reply::new(body)
    }
}

impl From<&[u8]> for Reply {
    fn from(body: &[u8]) -> Self {
        Reply::new(body)
    }
}

impl<const N: usize> From<&[u8; N]> for Reply {
    fn from(body: &[u8; N]) -> Self {
        Reply::new(body.as_slice())
    }
}

impl From<&str> for Reply {
    fn from(body: &str) -> Self {
        Reply::new(body)
    }
}

impl From<String> for Reply {
    fn from(body: String) -> Self {
        Reply::new(body)
    }
}
