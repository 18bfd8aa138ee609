//! The layer's own answers: problem details (RFC 9457).

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use super::body::Whole;
use crate::error::{Error, ErrorKind};
use crate::identity::RequestId;

/// Why the layer answered in place of the service: the member `code` of its problem details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// 400 `key_missing`: a key is required.
    KeyMissing,
    /// 400 `key_malformed`: more than one key, no string, empty, or over 1,024 bytes.
    KeyMalformed,
    /// 400 `project_unknown`: the request does not say whose it is.
    ProjectUnknown,
    /// 400 `body_unreadable`: the body broke off.
    BodyUnreadable,
    /// 413 `body_too_large`: the body is over the layer's limit.
    BodyTooLarge,
    /// 409 `in_flight`: the first request with the key is being worked on; with `Retry-After`.
    InFlight,
    /// 409 `interrupted`: its owner is gone, and the layer is told not to take over
    /// ([`OnLapsed::Report`](crate::OnLapsed::Report)).
    Interrupted,
    /// 409 `taken_over`: this request's lease was over, and another took over or the key was
    /// forgotten; this answer is not stored. With `Retry-After`.
    TakenOver,
    /// 409 `reply_not_kept`: done before, and the answer was too large to be kept.
    ReplyNotKept,
    /// 422 `key_reused`: the key belongs to another request.
    KeyReused,
    /// 500 `reply_foreign`: the key was settled by something else than this layer.
    ReplyForeign,
    /// 500 `misconfigured`: the store does not accept the layer's window or lease, or the project.
    Misconfigured,
    /// 503 `storage`: the store refuses or fails; with `Retry-After` where it is only busy.
    Storage,
}

impl Code {
    /// As in the member `code`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.facts().1
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(self) -> StatusCode {
        self.facts().0
    }

    fn facts(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Code::KeyMissing => {
                (S::BAD_REQUEST, "key_missing", "This request needs an idempotency key.")
            }
            Code::KeyMalformed => (
                S::BAD_REQUEST,
                "key_malformed",
                "The idempotency key must be one string of 1 to 1024 bytes.",
            ),
            Code::ProjectUnknown => {
                (S::BAD_REQUEST, "project_unknown", "The request does not say whose it is.")
            }
            Code::BodyUnreadable => (S::BAD_REQUEST, "body_unreadable", "The body broke off."),
            Code::BodyTooLarge => {
                (S::PAYLOAD_TOO_LARGE, "body_too_large", "The body is over the limit.")
            }
            Code::InFlight => {
                (S::CONFLICT, "in_flight", "A request with this key is being worked on.")
            }
            Code::Interrupted => (
                S::CONFLICT,
                "interrupted",
                "A request with this key was interrupted, and is not done again by itself.",
            ),
            Code::TakenOver => (
                S::CONFLICT,
                "taken_over",
                "Another request with this key took over. Its answer is the one that counts.",
            ),
            Code::ReplyNotKept => (
                S::CONFLICT,
                "reply_not_kept",
                "A request with this key was done. Its answer was too large to be kept.",
            ),
            Code::KeyReused => (
                S::UNPROCESSABLE_ENTITY,
                "key_reused",
                "This key was used with another method, path or body.",
            ),
            Code::ReplyForeign => (
                S::INTERNAL_SERVER_ERROR,
                "reply_foreign",
                "This key was settled by something else than an HTTP request.",
            ),
            Code::Misconfigured => (
                S::INTERNAL_SERVER_ERROR,
                "misconfigured",
                "The idempotency layer is set up with values out of bounds.",
            ),
            Code::Storage => (
                S::SERVICE_UNAVAILABLE,
                "storage",
                "The idempotency store cannot answer. Whether the work was done is not known here.",
            ),
        }
    }
}

/// An answer in place of the service's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Problem {
    code: Code,
    request_id: Option<RequestId>,
    retry_after: Option<Duration>,
}

impl Problem {
    pub(super) fn of_request(mut self, request_id: RequestId) -> Self {
        self.request_id = Some(request_id);
        self
    }

    /// Rounded up to whole seconds, at least one.
    pub(super) fn retry_after(mut self, time: Duration) -> Self {
        self.retry_after = Some(time);
        self
    }

    /// What a client is told of an error: no more than what it can do.
    pub(super) fn of_error(error: &Error, busy_retry: Duration) -> Self {
        match error.kind() {
            ErrorKind::Invalid => Code::Misconfigured.into(),
            ErrorKind::LeaseLost | ErrorKind::Gone => {
                Problem::from(Code::TakenOver).retry_after(busy_retry)
            }
            ErrorKind::Busy => Problem::from(Code::Storage).retry_after(busy_retry),
            _ => Code::Storage.into(),
        }
    }

    pub(super) fn response(&self) -> Response<Whole> {
        let (status, code, detail) = self.code.facts();
        let title = status.canonical_reason().unwrap_or_default();
        let number = status.as_u16();
        let request = self.request_id.map(|id| format!(r#","request_id":"{id}""#));
        let request = request.unwrap_or_default();
        let standard = format!(r#""type":"about:blank","title":"{title}","status":{number}"#);
        let body = format!(r#"{{{standard},"detail":"{detail}","code":"{code}"{request}}}"#);
        let mut response = Response::new(Whole::of(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(time) = self.retry_after {
            let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

impl From<Code> for Problem {
    fn from(code: Code) -> Self {
        Problem { code, request_id: None, retry_after: None }
    }
}
