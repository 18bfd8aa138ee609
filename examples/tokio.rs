//! A hundred tasks want the same work done: one does it, all get its reply.
//!
//! `cargo run --example tokio`

#![allow(clippy::panic, clippy::print_stdout, reason = "an example checks what it shows")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use justonce::{Claim, Error, Operation, Options, Store};
use tokio::task::JoinSet;

/// What costs money.
async fn ask_the_model(calls: &AtomicU32) -> &'static str {
    calls.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(20)).await;
    "spam"
}

async fn classify(store: Store, calls: Arc<AtomicU32>) -> Result<Vec<u8>, Error> {
    let operation = Operation::new("acme", "ticket-842").fingerprint(b"classify ticket 842");
    // Waits, without polling, while someone else is at it.
    match store.claim_or_wait(operation, Duration::from_mins(1)).await? {
        Claim::New(ticket) | Claim::Resumed(ticket, _) => {
            let answer = ask_the_model(&calls).await;
            ticket.complete(answer).await?;
            Ok(answer.into())
        }
        Claim::Completed(reply) => Ok(reply.into_body()),
        other => panic!("no reply within a minute: {other:?}"),
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let store = Options::new().in_memory()?; // or `.open(path)`: on disk
    let calls = Arc::new(AtomicU32::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        tasks.spawn(classify(store.clone(), Arc::clone(&calls)));
    }
    for answer in tasks.join_all().await {
        assert_eq!(answer?, b"spam");
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1);

    // An owner that goes away, here a task that is aborted, frees the operation at once.
    let operation = || Operation::new("acme", "ticket-843");
    let Claim::New(ticket) = store.claim(operation()).await? else { panic!("not new") };
    tokio::spawn(async { (ticket, std::future::pending::<()>().await) }).abort();
    let next = store.claim_or_wait(operation(), Duration::from_mins(1)).await?;
    assert!(matches!(next, Claim::Resumed(..)));

    store.close().await?;
    println!("100 tasks, {} call", calls.load(Ordering::Relaxed));
    Ok(())
}
