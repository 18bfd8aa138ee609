//! Answers that come bit by bit.

use http::HeaderValue;
use http_body::Frame;
use http_body_util::channel::{Channel, Sender};
use justonce::{EntryState, Why};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;

type Feed = Sender<Bytes, std::io::Error>;

/// A service whose answers the test feeds, one sender a call.
fn fed(layer: &IdempotencyLayer) -> (Guarded, UnboundedReceiver<Feed>) {
    let (calls, called) = unbounded_channel();
    let service = guarded(layer, move |_| {
        let (feed, body) = Channel::new(8);
        calls.send(feed).unwrap();
        async { Response::new(Body::new(body)) }
    });
    (service, called)
}

#[tokio::test]
async fn a_stream_is_passed_on_as_it_comes_and_replayed_as_a_whole() {
    let store = memory();
    let (service, mut called) = fed(&layer(&store));
    let mut first = begin(&service, post("k", "a")).await;
    let mut feed = called.recv().await.unwrap();
    feed.send_data(Bytes::from("one ")).await.unwrap();
    let frame = first.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "one ");
    let entry = store.lookup("acme", "k").await.unwrap().unwrap();
    assert_eq!(entry.state(), EntryState::InFlight, "not stored before its end");
    assert_eq!(send(&service, post("k", "a")).await.problem(), "in_flight");
    feed.send_data(Bytes::from("two")).await.unwrap();
    drop(feed);
    assert_eq!(read(first).await.body, "two");
    let replayed = send(&service, post("k", "a")).await;
    assert!(replayed.is_replayed());
    assert_eq!(replayed.body, "one two");
}

#[tokio::test]
async fn trailers_are_held_back_until_all_is_stored_and_replayed() {
    let store = memory();
    let (service, mut called) = fed(&layer(&store));
    let mut first = begin(&service, post("k", "a")).await;
    let mut feed = called.recv().await.unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    feed.send(Frame::data(Bytes::from("x"))).await.unwrap();
    feed.send(Frame::trailers(trailers.clone())).await.unwrap();
    first.body_mut().frame().await.unwrap().unwrap();
    let frame = first.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.into_trailers().unwrap(), trailers);
    let entry = store.lookup("acme", "k").await.unwrap().unwrap();
    assert_eq!(entry.state(), EntryState::Completed);
    let replayed = send(&service, post("k", "a")).await;
    assert_eq!((replayed.body, replayed.trailers), (Bytes::from("x"), Some(trailers)));
}

#[tokio::test]
async fn a_stream_longer_than_the_limit_is_passed_on_and_not_made_again() {
    let (service, mut called) = fed(&layer(&memory()).max_reply_bytes(6));
    let first = begin(&service, post("k", "a")).await;
    let mut feed = called.recv().await.unwrap();
    for _ in 0..3 {
        feed.send_data(Bytes::from("abc")).await.unwrap();
    }
    drop(feed);
    assert_eq!(read(first).await.body, "abcabcabc");
    assert_eq!(send(&service, post("k", "a")).await.problem(), "reply_not_kept");
}

#[tokio::test]
async fn a_stream_that_breaks_off_releases_the_key() {
    let store = memory();
    let (service, mut called) = fed(&layer(&store));
    let mut first = begin(&service, post("k", "a")).await;
    called.recv().await.unwrap().abort(std::io::Error::other("cut"));
    assert_eq!(first.body_mut().frame().await.unwrap().unwrap_err().to_string(), "cut");
    assert!(first.body_mut().frame().await.is_none());
    let entry = store.lookup("acme", "k").await.unwrap().unwrap();
    assert_eq!(entry.prior().unwrap().reason(), Some("the answer broke off"));
}

#[tokio::test]
async fn a_stream_whose_end_cannot_be_stored_ends_in_an_error() {
    let store = memory();
    let (service, mut called) = fed(&layer(&store));
    let mut first = begin(&service, post("k", "a")).await;
    let mut feed = called.recv().await.unwrap();
    feed.send_data(Bytes::from("x")).await.unwrap();
    drop(feed);
    first.body_mut().frame().await.unwrap().unwrap();
    store.close().await.unwrap();
    let error = first.body_mut().frame().await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the answer could not be stored");
}

#[tokio::test]
async fn the_rest_of_a_stream_is_stored_when_the_client_goes_away() {
    let store = memory();
    let waits = layer(&store).wait(std::time::Duration::from_mins(1));
    let (service, mut called) = fed(&waits);
    let mut first = begin(&service, post("k", "a")).await;
    let mut feed = called.recv().await.unwrap();
    feed.send_data(Bytes::from("one ")).await.unwrap();
    first.body_mut().frame().await.unwrap().unwrap();
    drop(first);
    feed.send_data(Bytes::from("two")).await.unwrap();
    drop(feed);
    let replayed = send(&service, post("k", "a")).await;
    assert!(replayed.is_replayed());
    assert_eq!(replayed.body, "one two");
}

#[tokio::test]
async fn a_stream_is_dropped_with_its_client_where_the_layer_cancels() {
    let store = memory();
    let (service, mut called) = fed(&layer(&store).cancel_on_disconnect(true));
    let first = begin(&service, post("k", "a")).await;
    let mut feed = called.recv().await.unwrap();
    drop(first);
    assert!(feed.send_data(Bytes::from("x")).await.is_err(), "nobody reads it");
    let entry = store.lookup("acme", "k").await.unwrap().unwrap();
    assert_eq!(entry.prior().unwrap().why(), Why::Dropped);
}

#[tokio::test]
async fn a_stated_length_has_the_answer_stored_before_the_client_sees_it() {
    let store = memory();
    let service = guarded(&layer(&store), move |_| {
        let (mut feed, body) = Channel::<Bytes, std::io::Error>::new(8);
        feed.try_send(Frame::data(Bytes::from("abc"))).unwrap();
        let answer = Response::builder().header("content-length", "3");
        async { answer.body(Body::new(body)).unwrap() }
    });
    let first = begin(&service, post("k", "a")).await;
    let entry = store.lookup("acme", "k").await.unwrap().unwrap();
    assert_eq!(entry.state(), EntryState::Completed);
    assert_eq!(read(first).await.body, "abc");
}

#[tokio::test]
async fn an_answer_longer_than_its_stated_length_is_an_error() {
    let store = memory();
    let service = guarded(&layer(&store).max_reply_bytes(4), move |_| {
        let (mut feed, body) = Channel::<Bytes, std::io::Error>::new(8);
        feed.try_send(Frame::data(Bytes::from("abcdefgh"))).unwrap();
        let answer = Response::builder().header("content-length", "3");
        async { answer.body(Body::new(body)).unwrap() }
    });
    let mut first = begin(&service, post("k", "a")).await;
    assert!(first.body_mut().frame().await.unwrap().is_err());
    let entry = store.lookup("acme", "k").await.unwrap().unwrap();
    assert_eq!(entry.state(), EntryState::Released);
}
