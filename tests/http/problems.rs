//! What the layer answers by itself.

use std::sync::atomic::Ordering;

use http_body_util::Full;
use justonce::Operation;
use justonce::http::Code;

use super::*;

#[tokio::test]
async fn a_missing_key_is_refused_where_one_is_required() {
    let required = layer(&memory()).required(true);
    let (service, calls) = counting(&required);
    let answer = send(&service, keyless("a")).await;
    assert_eq!((answer.status.as_u16(), &*answer.problem()), (400, "key_missing"));
    let (by_body, _) = counting(&required.key_from(|_, _| None::<String>));
    assert_eq!(send(&by_body, keyless("a")).await.problem(), "key_missing");
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_malformed_key_is_refused() {
    let (service, calls) = counting(&layer(&memory()));
    for key in ["", "\"\"", "\"open", "a b", &"k".repeat(1025)] {
        let answer = send(&service, post(key, "a")).await;
        assert_eq!((answer.status.as_u16(), &*answer.problem()), (400, "key_malformed"), "{key}");
    }
    let mut twice = post("a", "a");
    twice.headers_mut().append("idempotency-key", "b".parse().unwrap());
    assert_eq!(send(&service, twice).await.problem(), "key_malformed");
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    send(&service, post(&"k".repeat(1024), "a")).await;
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_request_of_nobody_is_refused() {
    let (service, calls) = counting(&layer(&memory()));
    let mut request = post("k", "a");
    request.headers_mut().remove("project");
    let answer = send(&service, request).await;
    assert_eq!((answer.status.as_u16(), &*answer.problem()), (400, "project_unknown"));
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let (service, calls) = counting(&layer(&memory()).max_body_bytes(4));
    assert_eq!(send(&service, post("k", "abcd")).await.status, 200);
    let answer = send(&service, post("other", "abcde")).await;
    assert_eq!((answer.status.as_u16(), &*answer.problem()), (413, "body_too_large"));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_body_without_a_length_is_read_no_further_than_the_limit() {
    let (service, calls) = counting_bodies(&layer(&memory()).max_body_bytes(4));
    let endless = futures_lite::stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from("ab")));
    let request = post("k", "").map(|_| Body::from_stream(endless));
    let answer = read(service.clone().oneshot(request).await.unwrap()).await;
    assert_eq!((answer.status.as_u16(), &*answer.problem()), (413, "body_too_large"));
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_request() {
    let (service, calls) = counting_bodies(&layer(&memory()));
    let broken = futures_lite::stream::iter([Ok(Bytes::from("ab")), Err("gone")]);
    let request = post("k", "").map(|_| Body::from_stream(broken));
    let answer = read(service.clone().oneshot(request).await.unwrap()).await;
    assert_eq!((answer.status.as_u16(), &*answer.problem()), (400, "body_unreadable"));
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

/// As [`counting`], of requests whose bodies are of any kind.
fn counting_bodies(
    layer: &IdempotencyLayer,
) -> (BoxCloneSyncService<Request<Body>, Answered, Infallible>, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let service = service_fn(move |_: Request<RequestBody<Body>>| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, Infallible>(Response::new(Body::empty())) }
    });
    (BoxCloneSyncService::new(layer.layer(service)), calls)
}

#[tokio::test]
async fn a_key_in_flight_is_answered_with_when_to_come_back() {
    let (entered, mut entries) = tokio::sync::mpsc::unbounded_channel();
    let service = guarded(&layer(&memory()), move |_| {
        entered.send(()).unwrap();
        std::future::pending()
    });
    let first = tokio::spawn({
        let service = service.clone();
        async move { send(&service, post("k", "a")).await }
    });
    entries.recv().await.unwrap();
    let answer = send(&service, post("k", "a")).await;
    assert_eq!((answer.status.as_u16(), &*answer.problem()), (409, "in_flight"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(problem["request_id"].as_str().unwrap().starts_with("rr_"));
    first.abort();
}

#[tokio::test]
async fn a_store_that_is_closed_is_a_503_and_the_service_is_not_called() {
    let store = memory();
    let (service, calls) = counting(&layer(&store));
    send(&service, post("k", "a")).await;
    store.close().await.unwrap();
    for key in ["k", "fresh"] {
        let answer = send(&service, post(key, "a")).await;
        assert_eq!((answer.status.as_u16(), &*answer.problem()), (503, "storage"));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_answer_that_cannot_be_stored_is_not_shown() {
    let store = memory();
    let closing = store.clone();
    let service = guarded(&layer(&store), move |_| {
        let closing = closing.clone();
        async move {
            closing.close().await.unwrap();
            Response::new(Body::from("charged"))
        }
    });
    let answer = send(&service, post("k", "a")).await;
    assert_eq!((answer.status.as_u16(), &*answer.problem()), (503, "storage"));
}

#[tokio::test]
async fn a_key_that_something_else_settled_is_not_replayed() {
    let store = memory();
    store.record_once(Operation::new("acme", "k")).await.unwrap();
    let (service, calls) = counting(&layer(&store));
    let answer = send(&service, post("k", "a")).await;
    assert_eq!((answer.status.as_u16(), &*answer.problem()), (500, "reply_foreign"));
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_layer_with_a_lease_out_of_bounds_says_that_it_is_the_servers_fault() {
    let (service, _) = counting(&layer(&memory()).lease(std::time::Duration::ZERO));
    let answer = send(&service, post("k", "a")).await;
    assert_eq!((answer.status.as_u16(), &*answer.problem()), (500, "misconfigured"));
    assert_eq!(Code::Misconfigured.as_str(), "misconfigured");
}

#[tokio::test]
async fn a_refused_request_has_claimed_nothing() {
    let store = memory();
    let (service, _) = counting(&layer(&store).max_body_bytes(1));
    let request = post("k", "").map(|_: Full<Bytes>| Full::from("too long"));
    assert_eq!(send(&service, request).await.status, 413);
    assert!(store.lookup("acme", "k").await.unwrap().is_none());
}
