//! Clients: threads that call in a loop, and tasks that do.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::peer::Failure;

/// Has so many threads call until the time is over; calls a second, of all. A call that has begun
/// is waited for and counts.
pub(super) fn threads(
    count: usize,
    lasts: Duration,
    call: impl Fn() -> Result<(), Failure> + Sync,
) -> Result<f64, Failure> {
    let (over, start) = (AtomicBool::new(false), Barrier::new(count + 1));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..count)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    let mut calls = 0_u64;
                    while !over.load(Ordering::Relaxed) {
                        call()?;
                        calls += 1;
                    }
                    Ok::<_, Failure>(calls)
                })
            })
            .collect();
        start.wait();
        let started = Instant::now();
        thread::sleep(lasts);
        over.store(true, Ordering::Relaxed);
        let mut calls = 0;
        for client in clients {
            calls += client.join().map_err(|_| "a client panicked")??;
        }
        Ok(calls as f64 / started.elapsed().as_secs_f64())
    })
}

/// The same with tasks, on a worker for each processor.
pub(super) fn tasks<F>(
    count: usize,
    lasts: Duration,
    call: impl Fn() -> F + Clone + Send + 'static,
) -> Result<f64, Failure>
where
    F: Future<Output = Result<(), Failure>> + Send,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    let over = Arc::new(AtomicBool::new(false));
    let started = Instant::now();
    let clients: Vec<_> = (0..count)
        .map(|_| {
            let (call, over) = (call.clone(), Arc::clone(&over));
            runtime.spawn(async move {
                let mut calls = 0_u64;
                while !over.load(Ordering::Relaxed) {
                    call().await?;
                    calls += 1;
                }
                Ok::<_, Failure>(calls)
            })
        })
        .collect();
    thread::sleep(lasts);
    over.store(true, Ordering::Relaxed);
    let mut calls = 0;
    for client in clients {
        calls += runtime.block_on(client)??;
    }
    Ok(calls as f64 / started.elapsed().as_secs_f64())
}
