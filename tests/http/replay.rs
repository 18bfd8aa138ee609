//! What is stored of an answer, and what a client gets that asks again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use justonce::http::Claimed;
use justonce::{EntryState, ManualClock, OnLapsed, Why};

use super::*;

#[tokio::test]
async fn status_headers_and_body_are_replayed_byte_for_byte() {
    let bytes: Vec<u8> = (0..=255).collect();
    let body = bytes.clone();
    let service = guarded(&layer(&memory()), move |_| {
        let body = Body::from(body.clone());
        let answer = Response::builder()
            .status(201)
            .header("content-type", "application/octet-stream")
            .header("x-many", "first")
            .header("x-many", "second")
            .header("x-latin", http::HeaderValue::from_bytes(b"caf\xe9").unwrap());
        async { answer.body(body).unwrap() }
    });
    let first = send(&service, post("k", "a")).await;
    let mut second = send(&service, post("k", "a")).await;
    assert!(!first.is_replayed());
    assert!(second.is_replayed());
    second.headers.remove("idempotent-replayed");
    assert_eq!((second.status, &second.headers), (first.status, &first.headers));
    assert_eq!(first.body, bytes);
    assert_eq!(second.body, bytes);
}

#[tokio::test]
async fn secrets_reach_the_first_client_alone() {
    let service = guarded(&layer(&memory()), |_| async {
        Response::builder()
            .header("set-cookie", "session=s3cret")
            .header("authorization", "Bearer s3cret")
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .body(Body::from("hello"))
            .unwrap()
    });
    let first = send(&service, post("k", "a")).await;
    assert_eq!(first.header("set-cookie"), Some("session=s3cret"));
    let second = send(&service, post("k", "a")).await;
    let names: Vec<_> = second.headers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["idempotent-replayed"]);
}

#[tokio::test]
async fn an_answer_outlives_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Options::new().open(&path).unwrap();
    let (service, _) = counting(&layer(&store));
    send(&service, post("k", "a")).await;
    drop(service);
    store.close().await.unwrap();
    drop(store);
    let (service, calls) = counting(&layer(&Options::new().open(&path).unwrap()));
    let answer = send(&service, post("k", "a")).await;
    assert_eq!(answer.body, "call 1");
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

/// How often a service that always answers with a status is called for two requests.
async fn calls_for(layer: &IdempotencyLayer, status: u16) -> usize {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let service = guarded(layer, move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move { Response::builder().status(status).body(Body::empty()).unwrap() }
    });
    for _ in 0..2 {
        let key = format!("k{status}");
        assert_eq!(send(&service, post(&key, "a")).await.status, status);
    }
    calls.load(Ordering::SeqCst)
}

#[tokio::test]
async fn the_status_says_whether_an_answer_is_stored() {
    let layer = layer(&memory());
    for status in [200, 201, 204, 302, 400, 401, 404, 422, 451] {
        assert_eq!(calls_for(&layer, status).await, 1, "{status} is stored");
    }
    for status in [408, 409, 425, 429, 500, 502, 503, 504] {
        assert_eq!(calls_for(&layer, status).await, 2, "{status} is released");
    }
}

#[tokio::test]
async fn a_closure_says_which_answers_are_stored() {
    let layer = layer(&memory()).stores(|status| status == 500);
    assert_eq!(calls_for(&layer, 500).await, 1);
    assert_eq!(calls_for(&layer, 200).await, 2);
}

#[tokio::test]
async fn a_released_key_is_resumed_under_the_same_request_id() {
    let store = memory();
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let service = guarded(&layer(&store), move |request: Seen| {
        let claimed = request.extensions().get::<Claimed>().unwrap().clone();
        let status = if claimed.attempt() == 1 { 503 } else { 200 };
        noted.lock().push(claimed);
        async move { Response::builder().status(status).body(Body::empty()).unwrap() }
    });
    assert_eq!(send(&service, post("k", "a")).await.status, 503);
    let entry = store.lookup("acme", "k").await.unwrap().unwrap();
    assert_eq!(entry.state(), EntryState::Released);
    assert_eq!(send(&service, post("k", "a")).await.status, 200);
    let seen = seen.lock();
    assert_eq!(seen[0].request_id(), seen[1].request_id());
    assert!(seen[0].fence() < seen[1].fence());
    assert!(seen[0].prior().is_none());
    let prior = seen[1].prior().unwrap();
    assert_eq!(prior.why(), Why::Released);
    assert_eq!(prior.reason(), Some("answered 503 Service Unavailable"));
}

#[tokio::test]
async fn a_service_that_fails_releases_the_key() {
    let store = memory();
    let service = layer(&store).layer(service_fn(|_: Seen| async {
        Err::<Response<Body>, _>(std::io::Error::other("no upstream"))
    }));
    for attempt in 1..=2 {
        let error = service.clone().oneshot(post("k", "a")).await.unwrap_err();
        assert_eq!(error.to_string(), "no upstream");
        let entry = store.lookup("acme", "k").await.unwrap().unwrap();
        assert_eq!((entry.state(), entry.attempt()), (EntryState::Released, attempt));
    }
}

#[tokio::test]
async fn an_answer_too_large_to_be_kept_is_passed_on_and_not_made_again() {
    let (service, calls) = counting(&layer(&memory()).max_reply_bytes(5));
    assert_eq!(send(&service, post("k", "a")).await.body, "call 1");
    let answer = send(&service, post("k", "a")).await;
    assert_eq!((answer.status.as_u16(), &*answer.problem()), (409, "reply_not_kept"));
    assert_eq!(answer.header("retry-after"), None);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_stores_own_limit_holds_as_well() {
    let store = Options::new().max_reply_bytes(10).in_memory().unwrap();
    let (service, calls) = counting(&layer(&store));
    assert_eq!(send(&service, post("k", "a")).await.body, "call 1");
    assert_eq!(send(&service, post("k", "a")).await.problem(), "reply_not_kept");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_answer_is_forgotten_after_its_window() {
    let clock = ManualClock::new();
    let store = Options::new().clock(&clock).in_memory().unwrap();
    let (service, calls) = counting(&layer(&store).window(Duration::from_mins(1)));
    send(&service, post("k", "a")).await;
    clock.advance(Duration::from_secs(59));
    assert!(send(&service, post("k", "a")).await.is_replayed());
    clock.advance(Duration::from_secs(2));
    assert!(!send(&service, post("k", "a")).await.is_replayed());
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_duplicate_that_waits_gets_the_answer_of_the_first() {
    let store = memory();
    let (entered, mut entries) = tokio::sync::mpsc::unbounded_channel();
    let finish = Arc::new(tokio::sync::Notify::new());
    let finished = Arc::clone(&finish);
    let service = guarded(&layer(&store).wait(Duration::from_mins(1)), move |_| {
        entered.send(()).unwrap();
        let finished = Arc::clone(&finished);
        async move {
            finished.notified().await;
            Response::new(Body::from("done"))
        }
    });
    let ask = |service: Guarded| async move { send(&service, post("k", "a")).await };
    let first = tokio::spawn(ask(service.clone()));
    entries.recv().await.unwrap();
    let waiting = tokio::spawn(ask(service.clone()));
    while store.stats().waiters == 0 {
        tokio::task::yield_now().await;
    }
    finish.notify_one();
    let (first, second) = (first.await.unwrap(), waiting.await.unwrap());
    assert!(!first.is_replayed());
    assert!(second.is_replayed());
    assert_eq!((first.body, second.body), (Bytes::from("done"), Bytes::from("done")));
}

#[tokio::test]
async fn a_wait_that_is_over_is_answered_as_in_flight() {
    let clock = ManualClock::new();
    let store = Options::new().clock(&clock).in_memory().unwrap();
    let service = guarded(&layer(&store).wait(Duration::from_secs(5)), |_| std::future::pending());
    let ask = |service: Guarded| async move { send(&service, post("k", "a")).await };
    let first = tokio::spawn(ask(service.clone()));
    while store.in_flight().await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let waiting = tokio::spawn(ask(service));
    while store.stats().waiters == 0 {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_secs(5));
    assert_eq!(waiting.await.unwrap().problem(), "in_flight");
    first.abort();
}

#[tokio::test]
async fn interrupted_work_is_only_reported_where_that_is_asked_for() {
    let store = memory();
    drop(store.claim(justonce::Operation::new("acme", "k")).await.unwrap());
    let report = layer(&store).on_lapsed(OnLapsed::Report);
    let (service, calls) = counting(&report);
    let answer = send(&service, post("k", "a")).await;
    assert_eq!((answer.status.as_u16(), &*answer.problem()), (409, "interrupted"));
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    let (service, calls) = counting(&layer(&store));
    assert_eq!(send(&service, post("k", "a")).await.status, 200);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}
