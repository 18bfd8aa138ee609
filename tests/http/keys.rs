//! Which requests are guarded, where the key comes from, and what belongs to it.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{HeaderName, Method, Request};
use http_body_util::Full;

use super::*;

#[tokio::test]
async fn a_quoted_key_and_a_bare_one_are_the_same() {
    let (service, calls) = counting(&layer(&memory()));
    send(&service, post("\"k-1\"", "a")).await;
    assert!(send(&service, post("k-1", "a")).await.is_replayed());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn two_projects_may_use_the_same_key() {
    let (service, calls) = counting(&layer(&memory()));
    send(&service, post("k", "a")).await;
    let mut other = post("k", "a");
    other.headers_mut().insert("project", "globex".parse().unwrap());
    assert!(!send(&service, other).await.is_replayed());
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_request_without_a_key_is_passed_on_untouched() {
    let (service, calls) = counting(&layer(&memory()));
    for _ in 0..2 {
        assert!(!send(&service, keyless("a")).await.is_replayed());
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_request_that_is_not_guarded_is_passed_on_with_its_key() {
    let (service, calls) = counting(&layer(&memory()));
    for _ in 0..2 {
        let mut get = post("k", "");
        *get.method_mut() = Method::GET;
        assert!(!send(&service, get).await.is_replayed());
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_closure_says_what_is_guarded() {
    let (service, calls) = counting(&layer(&memory()).guards(|parts| parts.method == Method::PUT));
    for _ in 0..2 {
        let mut put = post("k", "");
        *put.method_mut() = Method::PUT;
        send(&service, put).await;
        send(&service, post("k", "")).await;
    }
    assert_eq!(calls.load(Ordering::SeqCst), 3, "one PUT, two POSTs");
}

#[tokio::test]
async fn another_header_may_carry_the_key() {
    let header = HeaderName::from_static("x-request-key");
    let (service, calls) = counting(&layer(&memory()).header(header));
    for _ in 0..2 {
        let mut request = keyless("a");
        request.headers_mut().insert("x-request-key", "k".parse().unwrap());
        send(&service, request).await;
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_closure_takes_the_key_from_the_body_where_there_is_no_header() {
    let by_body = layer(&memory()).key_from(|_, body| {
        let body: serde_json::Value = serde_json::from_slice(body).ok()?;
        Some(body.get("event")?.as_str()?.to_owned())
    });
    let (service, calls) = counting(&by_body);
    send(&service, keyless(r#"{"event":"e1"}"#)).await;
    assert!(send(&service, keyless(r#"{"event":"e1"}"#)).await.is_replayed());
    assert!(!send(&service, keyless(r#"{"event":"e2"}"#)).await.is_replayed());
    assert!(!send(&service, post("e1x", r#"{"event":"e1"}"#)).await.is_replayed());
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    send(&service, keyless("no key in here")).await;
    send(&service, keyless("no key in here")).await;
    assert_eq!(calls.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn the_service_gets_the_body_that_was_read_for_the_key() {
    let echo = guarded(&layer(&memory()), |request: Seen| async {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Body::from(body))
    });
    assert_eq!(send(&echo, post("k", "hello")).await.body, "hello");
    assert_eq!(send(&echo, keyless("there")).await.body, "there");
}

#[tokio::test]
async fn method_path_query_and_body_belong_to_the_key() {
    let (service, calls) = counting(&layer(&memory()));
    send(&service, post("k", "a")).await;
    let sent = |method: Method, target: &str, body: &str| -> Given {
        Request::builder()
            .method(method)
            .uri(target)
            .header("project", "acme")
            .header("idempotency-key", "k")
            .body(Full::from(Bytes::from(body.to_owned())))
            .unwrap()
    };
    for other in [
        sent(Method::PATCH, "/charges?currency=eur", "a"),
        sent(Method::POST, "/refunds?currency=eur", "a"),
        sent(Method::POST, "/charges?currency=usd", "a"),
        sent(Method::POST, "/charges?currency=eur", "b"),
        sent(Method::POST, "/charges?currency=eura", ""),
    ] {
        let answer = send(&service, other).await;
        assert_eq!((answer.status.as_u16(), &*answer.problem()), (422, "key_reused"));
    }
    assert!(send(&service, sent(Method::POST, "/charges?currency=eur", "a")).await.is_replayed());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}
