//! Clients that go away, and services that panic.

use parking_lot::Mutex;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_lite::FutureExt;
use justonce::{EntryState, Why};
use tokio::sync::{Notify, mpsc};

use super::*;

/// A service that tells when it is called, and answers when it may.
fn held(layer: &IdempotencyLayer) -> (Guarded, mpsc::UnboundedReceiver<()>, Arc<Notify>) {
    let (entered, entries) = mpsc::unbounded_channel();
    let finish = Arc::new(Notify::new());
    let finished = Arc::clone(&finish);
    let service = guarded(layer, move |_| {
        entered.send(()).unwrap();
        let finished = Arc::clone(&finished);
        async move {
            finished.notified().await;
            Response::new(Body::from("done"))
        }
    });
    (service, entries, finish)
}

/// Asks until the service is called, and drops the future of the answer.
async fn ask_and_go(service: &Guarded, entries: &mut mpsc::UnboundedReceiver<()>) {
    let asking = async {
        begin(service, post("k", "a")).await;
        unreachable!("it is not answered");
    };
    asking.or(async { entries.recv().await.unwrap() }).await;
}

#[tokio::test]
async fn the_work_goes_on_when_the_client_goes_away() {
    let store = memory();
    let (service, mut entries, finish) = held(&layer(&store).wait(Duration::from_mins(1)));
    ask_and_go(&service, &mut entries).await;
    let entry = store.lookup("acme", "k").await.unwrap().unwrap();
    assert_eq!(entry.state(), EntryState::InFlight);
    finish.notify_one();
    let answer = send(&service, post("k", "a")).await;
    assert!(answer.is_replayed());
    assert_eq!(answer.body, "done");
    assert!(entries.try_recv().is_err(), "called once");
}

#[tokio::test]
async fn the_work_is_dropped_with_its_client_where_the_layer_cancels() {
    let store = memory();
    let (service, mut entries, finish) = held(&layer(&store).cancel_on_disconnect(true));
    ask_and_go(&service, &mut entries).await;
    let entry = store.lookup("acme", "k").await.unwrap().unwrap();
    assert_eq!(entry.prior().unwrap().why(), Why::Dropped);
    finish.notify_one();
    let answer = send(&service, post("k", "a")).await;
    assert!(!answer.is_replayed());
    assert_eq!(answer.body, "done");
    assert!(entries.try_recv().is_ok(), "called again");
}

#[tokio::test]
async fn a_client_that_only_waits_leaves_nothing_behind() {
    let store = memory();
    let (service, mut entries, finish) = held(&layer(&store).wait(Duration::from_mins(1)));
    let first = tokio::spawn({
        let service = service.clone();
        async move { send(&service, post("k", "a")).await }
    });
    entries.recv().await.unwrap();
    let waiting = async { send(&service, post("k", "a")).await.body };
    let seen_waiting = async {
        while store.stats().waiters == 0 {
            tokio::task::yield_now().await;
        }
        Bytes::new()
    };
    assert_eq!(waiting.or(seen_waiting).await, Bytes::new());
    assert_eq!(store.stats().waiters, 0);
    finish.notify_one();
    assert_eq!(first.await.unwrap().body, "done");
    assert!(entries.try_recv().is_err(), "called once");
}

#[tokio::test]
async fn a_runtime_that_shuts_down_leaves_the_key_to_be_resumed() {
    let store = memory();
    let other = tokio::runtime::Runtime::new().unwrap();
    let (service, mut entries, _finish) = held(&layer(&store));
    let asked = other.spawn(async move {
        ask_and_go(&service, &mut entries).await;
    });
    asked.await.unwrap();
    other.shutdown_background();
    while store.in_flight().await.unwrap()[0].state() == EntryState::InFlight {
        tokio::task::yield_now().await;
    }
    let (service, calls) = counting(&layer(&store));
    assert_eq!(send(&service, post("k", "a")).await.body, "call 1");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_panic_of_the_service_releases_the_key_and_goes_on() {
    let store = memory();
    let panics = Arc::new(Mutex::new(2));
    let service = guarded(&layer(&store), move |_| {
        let mut left = panics.lock();
        let panics = *left;
        *left = (*left - 1).max(0);
        drop(left);
        // Once in the call itself, once in its future.
        assert!(panics != 2, "in the call");
        async move {
            assert!(panics == 0, "in the future");
            Response::new(Body::from("done"))
        }
    });
    for said in ["in the call", "in the future"] {
        let panic = AssertUnwindSafe(begin(&service, post("k", "a"))).catch_unwind().await;
        assert_eq!(*panic.unwrap_err().downcast::<&str>().unwrap(), said);
        let entry = store.lookup("acme", "k").await.unwrap().unwrap();
        assert_eq!(entry.prior().unwrap().reason(), Some("the service panicked"));
    }
    assert_eq!(send(&service, post("k", "a")).await.body, "done");
}

#[tokio::test]
async fn a_panic_of_a_streamed_answer_releases_the_key() {
    let store = memory();
    let service = guarded(&layer(&store), |_| async {
        let body =
            futures_lite::stream::poll_fn(|_| -> std::task::Poll<Option<Result<Bytes, _>>> {
                if true {
                    panic!("in the stream")
                } else {
                    std::task::Poll::Ready(Some(Err("never")))
                }
            });
        Response::new(Body::from_stream(body))
    });
    let answered = begin(&service, post("k", "a")).await;
    let panic = AssertUnwindSafe(answered.into_body().collect()).catch_unwind().await;
    assert_eq!(*panic.unwrap_err().downcast::<&str>().unwrap(), "in the stream");
    let entry = store.lookup("acme", "k").await.unwrap().unwrap();
    assert_eq!(entry.prior().unwrap().reason(), Some("the service panicked"));
}
