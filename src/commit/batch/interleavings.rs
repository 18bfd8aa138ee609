//! Every interleaving of a batch's outcome with those who wait for it.
//!
//! ```sh
//! RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom \
//!     cargo test --release --lib every_interleaving
//! ```

use std::task::Wake;

use ::loom::model;

use super::*;
use crate::clock::instant;
use crate::sync::{AtomicUsize, Ordering, start};

/// A task: counts how often it is woken.
#[derive(Debug, Default)]
struct Task(AtomicUsize);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn task() -> (Arc<Task>, Waker) {
    let task = Arc::new(Task::default());
    (Arc::clone(&task), Waker::from(task))
}

#[test]
fn every_interleaving_of_an_outcome_with_threads_ends_their_waits() {
    model(|| {
        let cell = Arc::new(BatchCell::default());
        let threads = [(); 2].map(|()| {
            let cell = Arc::clone(&cell);
            start(move || assert!(matches!(cell.wait(None), Some(Ok(())))))
        });
        cell.settle(Ok(()));
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn every_interleaving_of_an_outcome_with_a_wait_in_time_shows_it_or_nothing() {
    model(|| {
        let cell = Arc::new(BatchCell::default());
        let thread = {
            let cell = Arc::clone(&cell);
            start(move || assert!(matches!(cell.wait(Some(instant())), None | Some(Ok(())))))
        };
        cell.settle(Ok(()));
        thread.join().unwrap();
        assert_eq!(cell.state.lock().threads, 0);
    });
}

#[test]
fn every_interleaving_of_an_outcome_with_tasks_shows_it_or_wakes_them() {
    model(|| {
        let cell = Arc::new(BatchCell::default());
        let tasks = [(); 2].map(|()| {
            let cell = Arc::clone(&cell);
            start(move || {
                let ((task, waker), mut known) = (task(), None);
                let shown = cell.poll(&waker, &mut known).is_some();
                (task, shown)
            })
        });
        cell.settle(Ok(()));
        for thread in tasks {
            let (task, shown) = thread.join().unwrap();
            assert_eq!(task.0.load(Ordering::SeqCst), usize::from(!shown));
        }
    });
}

#[test]
fn every_interleaving_of_an_outcome_with_one_to_be_notified_wakes_it_once() {
    model(|| {
        let cell = Arc::new(BatchCell::default());
        let (task, waker) = task();
        let thread = {
            let cell = Arc::clone(&cell);
            start(move || cell.notify(waker))
        };
        cell.settle(Ok(()));
        thread.join().unwrap();
        assert_eq!(task.0.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn every_interleaving_of_two_outcomes_shows_all_the_same() {
    model(|| {
        let cell = Arc::new(BatchCell::default());
        let threads = [Ok(()), Err(Error::closed())].map(|outcome| {
            let cell = Arc::clone(&cell);
            start(move || {
                cell.settle(outcome);
                cell.outcome().unwrap().is_ok()
            })
        });
        let seen = threads.map(|thread| thread.join().unwrap());
        assert_eq!(seen[0], seen[1]);
    });
}

#[test]
fn every_interleaving_of_an_offer_with_one_who_leaves_reaches_one_who_stays() {
    model(|| {
        let cell = Arc::new(BatchCell::default());
        let leaves = {
            let cell = Arc::clone(&cell);
            start(move || {
                let woken = cell.enter().park(Some(instant()));
                if let Woken::Offered = woken {
                    cell.settle(Ok(()));
                }
            })
        };
        let stays = {
            let cell = Arc::clone(&cell);
            start(move || drop(cell.enter().park(None)))
        };
        if cell.offer() != Offer::ToThread {
            cell.settle(Ok(()));
        }
        leaves.join().unwrap();
        stays.join().unwrap();
    });
}
