//! The stored form of an answer: its status, headers, body and trailers as bytes.
//!
//! Written a second time in `docs/http.md`. The record has a checksum of its own, so what is found
//! here is what was written; decoding takes any bytes all the same, since a key may have been
//! settled by something else.

use bytes::{Buf, Bytes};
use http::header::{
    AUTHORIZATION, CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::body::Whole;
use super::problem::Code;
use crate::claim::Reply;

/// The content tag of what is encoded here, version included.
const CONTENT_TAG: &str = "justonce.http/1";

/// What is never stored: what is between this client and this connection, and secrets.
const NEVER: [HeaderName; 9] = [
    AUTHORIZATION,
    CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    SET_COOKIE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Such headers that have no name among the constants.
const NEVER_EITHER: [&str; 3] = ["keep-alive", "proxy-connection", "set-cookie2"];

/// Status and headers of an answer, without those that are never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    status: StatusCode,
    headers: HeaderMap,
}

impl Head {
    pub(super) fn of(parts: &Parts) -> Self {
        let mut headers = parts.headers.clone();
        let named =
            parts.headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        for name in named.flat_map(|names| names.split(',')) {
            headers.remove(name.trim());
        }
        for name in &NEVER {
            headers.remove(name);
        }
        for name in NEVER_EITHER {
            headers.remove(name);
        }
        Head { status: parts.status, headers }
    }

    /// The reply that replays all of an answer.
    pub(super) fn with(&self, body: &[u8], trailers: Option<&HeaderMap>) -> Reply {
        let mut bytes = Vec::with_capacity(body.len() + 64 * self.headers.len() + 64);
        bytes.extend_from_slice(&self.status.as_u16().to_le_bytes());
        bytes.push(1);
        put_headers(&mut bytes, Some(&self.headers));
        put_headers(&mut bytes, trailers);
        bytes.extend_from_slice(body);
        Reply::new(bytes).content(CONTENT_TAG)
    }

    /// The reply that says that there was an answer.
    pub(super) fn not_kept(&self) -> Reply {
        let [low, high] = self.status.as_u16().to_le_bytes();
        Reply::new(vec![low, high, 0]).content(CONTENT_TAG)
    }
}

fn put_headers(bytes: &mut Vec<u8>, headers: Option<&HeaderMap>) {
    // A header map holds at most 2^15 values, each of a length that came over the wire.
    let count = headers.map_or(0, HeaderMap::len);
    bytes.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
    for (name, value) in headers.into_iter().flatten() {
        put_bytes(bytes, name.as_str().as_bytes());
        put_bytes(bytes, value.as_bytes());
    }
}

fn put_bytes(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(text);
}

/// The answer that a reply was made of.
///
/// # Errors
/// [`Code::ReplyNotKept`] where it had too large a body, [`Code::ReplyForeign`] where the reply was
/// not encoded here.
pub(super) fn decode(reply: Reply) -> Result<Response<Whole>, Code> {
    if reply.content_tag() != Some(CONTENT_TAG) {
        return Err(Code::ReplyForeign);
    }
    decoded(Bytes::from(reply.into_body())).unwrap_or(Err(Code::ReplyForeign))
}

fn decoded(mut bytes: Bytes) -> Option<Result<Response<Whole>, Code>> {
    let status = StatusCode::from_u16(bytes.try_get_u16_le().ok()?).ok()?;
    match bytes.try_get_u8().ok()? {
        0 if bytes.is_empty() => return Some(Err(Code::ReplyNotKept)),
        1 => {}
        _ => return None,
    }
    let headers = take_headers(&mut bytes)?;
    let trailers = Some(take_headers(&mut bytes)?).filter(|trailers| !trailers.is_empty());
    let mut response = Response::new(Whole { data: bytes, trailers });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Some(Ok(response))
}

fn take_headers(bytes: &mut Bytes) -> Option<HeaderMap> {
    let count = bytes.try_get_u32_le().ok()?;
    let mut headers = HeaderMap::new();
    for _ in 0..count {
        let name = HeaderName::from_bytes(&take_bytes(bytes)?).ok()?;
        let value = HeaderValue::from_maybe_shared(take_bytes(bytes)?).ok()?;
        headers.try_append(name, value).ok()?;
    }
    Some(headers)
}

fn take_bytes(bytes: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(bytes.try_get_u32_le().ok()?).ok()?;
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(status: u16, headers: &[(&'static str, &str)]) -> Parts {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            response.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
        }
        response.into_parts().0
    }

    #[test]
    fn the_bytes_are_those_of_the_page() {
        let head = Head::of(&parts(201, &[("x-a", "1")]));
        let mut trailers = HeaderMap::new();
        trailers.insert("t", HeaderValue::from_static("ok"));
        let golden = [
            &[201, 0, 1][..],
            &[1, 0, 0, 0, 3, 0, 0, 0, b'x', b'-', b'a', 1, 0, 0, 0, b'1'],
            &[1, 0, 0, 0, 1, 0, 0, 0, b't', 2, 0, 0, 0, b'o', b'k'],
            b"hi",
        ];
        let reply = head.with(b"hi", Some(&trailers));
        assert_eq!(reply.content_tag(), Some("justonce.http/1"));
        assert_eq!(reply.body(), golden.concat());
        assert_eq!(head.not_kept().body(), [201, 0, 0]);
        assert_eq!(decode(head.not_kept()).unwrap_err(), Code::ReplyNotKept);
    }

    #[test]
    fn secrets_and_what_is_of_the_connection_are_left_out() {
        let head = Head::of(&parts(
            200,
            &[
                ("authorization", "Bearer s"),
                ("connection", "keep-alive, X-Hop"),
                ("content-type", "text/plain"),
                ("keep-alive", "timeout=5"),
                ("set-cookie", "session=s"),
                ("set-cookie", "another=s"),
                ("transfer-encoding", "chunked"),
                ("x-hop", "1"),
            ],
        ));
        let names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["content-type"]);
    }

    #[test]
    fn replies_of_others_are_foreign() {
        assert!(matches!(decode(Reply::new("spam")), Err(Code::ReplyForeign)));
        let other = Reply::new(vec![200, 0, 1]).content("application/json");
        assert!(matches!(decode(other), Err(Code::ReplyForeign)));
    }

    proptest! {
        #[test]
        fn any_answer_comes_back(
            status in 100_u16..1000,
            values in prop::collection::vec(("[a-z][a-z0-9-]{0,8}", "[ -~]{0,20}"), 0..8),
            trailers in prop::collection::vec(("t[a-z]{0,8}", "[ -~]{0,20}"), 0..3),
            body in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let map = |pairs: &[(String, String)]| {
                let mut map = HeaderMap::new();
                for (name, value) in pairs {
                    let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                    map.append(name, HeaderValue::from_str(value).unwrap());
                }
                map
            };
            let status = StatusCode::from_u16(status).unwrap();
            let head = Head { status, headers: map(&values) };
            let trailers = Some(map(&trailers)).filter(|trailers| !trailers.is_empty());
            let response = decode(head.with(&body, trailers.as_ref())).unwrap();
            prop_assert_eq!(response.status(), status);
            prop_assert_eq!(response.headers(), &head.headers);
            prop_assert_eq!(response.body(), &Whole { data: body.into(), trailers });
        }

        #[test]
        fn arbitrary_bytes_are_decoded_or_foreign(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            looks_right in any::<bool>(),
        ) {
            let bytes = if looks_right { [&[200, 0, 1][..], &bytes].concat() } else { bytes };
            let _ = decode(Reply::new(bytes).content(CONTENT_TAG));
        }

        #[test]
        fn an_answer_that_is_cut_or_has_a_bit_flipped_is_decoded_or_foreign(
            cut in 0_usize..60,
            at in 0_usize..60,
            bit in 0_u8..8,
        ) {
            let head = Head::of(&parts(200, &[("content-type", "text/plain"), ("x", "y")]));
            let mut bytes = head.with(b"body", None).into_body();
            bytes.truncate(bytes.len().min(cut));
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
            let _ = decode(Reply::new(bytes).content(CONTENT_TAG));
        }
    }
}
