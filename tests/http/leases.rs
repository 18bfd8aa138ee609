//! Work that takes longer than its lease. Time is the store's, and pauses are the test's.

use std::time::Duration;

use justonce::http::{Runtime, Task};
use justonce::{ManualClock, Store};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::*;

/// A runtime whose pauses end when the test says.
struct Paused(UnboundedSender<Pause>);

struct Pause {
    time: Duration,
    end: oneshot::Sender<()>,
}

impl Runtime for Paused {
    fn spawn(&self, task: Task) {
        tokio::spawn(task);
    }

    fn sleep(&self, time: Duration) -> Task {
        let (end, ended) = oneshot::channel();
        self.0.send(Pause { time, end }).unwrap();
        Box::pin(async { ended.await.unwrap() })
    }
}

struct Bench {
    clock: ManualClock,
    store: Store,
    service: Guarded,
    pauses: UnboundedReceiver<Pause>,
    calls: UnboundedReceiver<oneshot::Sender<&'static str>>,
}

/// A service with a lease of a minute, each of whose calls the test answers.
fn bench() -> Bench {
    let clock = ManualClock::new();
    let store = Options::new().clock(&clock).in_memory().unwrap();
    let (begun, pauses) = unbounded_channel();
    let (called, calls) = unbounded_channel();
    let layer = layer(&store).lease(Duration::from_mins(1)).runtime(Paused(begun));
    let service = guarded(&layer, move |_| {
        let (answer, answered) = oneshot::channel();
        called.send(answer).unwrap();
        async { Response::new(Body::from(answered.await.unwrap())) }
    });
    Bench { clock, store, service, pauses, calls }
}

fn ask(service: &Guarded) -> tokio::task::JoinHandle<Answer> {
    let service = service.clone();
    tokio::spawn(async move { send(&service, post("k", "a")).await })
}

#[tokio::test]
async fn the_lease_is_renewed_while_the_work_goes_on() {
    let mut bench = bench();
    let first = ask(&bench.service);
    let answer = bench.calls.recv().await.unwrap();
    let mut pause = bench.pauses.recv().await.unwrap();
    for _ in 0..5 {
        assert_eq!(pause.time, Duration::from_secs(20));
        bench.clock.advance(Duration::from_secs(50));
        pause.end.send(()).unwrap();
        // The next pause begins once the lease is renewed.
        pause = bench.pauses.recv().await.unwrap();
    }
    assert_eq!(send(&bench.service, post("k", "a")).await.problem(), "in_flight");
    answer.send("done").unwrap();
    assert_eq!(first.await.unwrap().body, "done");
}

#[tokio::test]
async fn an_owner_that_was_taken_over_does_not_show_its_answer() {
    let mut bench = bench();
    let first = ask(&bench.service);
    let answer = bench.calls.recv().await.unwrap();
    bench.clock.advance(Duration::from_secs(61));
    let second = ask(&bench.service);
    let other_answer = bench.calls.recv().await.unwrap();
    answer.send("late").unwrap();
    let late = first.await.unwrap();
    assert_eq!((late.status.as_u16(), &*late.problem()), (409, "taken_over"));
    assert_eq!(late.header("retry-after"), Some("1"));
    other_answer.send("in time").unwrap();
    assert_eq!(second.await.unwrap().body, "in time");
    assert_eq!(send(&bench.service, post("k", "a")).await.body, "in time");
}

#[tokio::test]
async fn an_answer_that_is_late_counts_if_nobody_took_over() {
    let mut bench = bench();
    let first = ask(&bench.service);
    let answer = bench.calls.recv().await.unwrap();
    bench.clock.advance(Duration::from_mins(2));
    answer.send("late").unwrap();
    assert_eq!(first.await.unwrap().body, "late");
    assert!(send(&bench.service, post("k", "a")).await.is_replayed());
}

#[tokio::test]
async fn work_whose_key_was_forgotten_by_force_is_not_stored() {
    let mut bench = bench();
    let first = ask(&bench.service);
    let answer = bench.calls.recv().await.unwrap();
    bench.store.forget_forced("acme", "k").await.unwrap();
    answer.send("late").unwrap();
    assert_eq!(first.await.unwrap().problem(), "taken_over");
    assert!(bench.store.lookup("acme", "k").await.unwrap().is_none());
}
