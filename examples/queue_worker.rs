//! A worker of a queue that delivers at least once: `cargo run --example queue_worker`
#![allow(clippy::panic, clippy::unwrap_used, reason = "an example checks what it shows")]
use justonce::{Claim, Error, ManualClock, Operation, Options, Store, Why};
use std::{env, process, time::Duration};
const LEASE: Duration = Duration::from_mins(1);
/// Handles one delivery; `false` has the queue deliver it again. `send` hands the job to a provider
/// and returns the id it gave it; `follow` waits a while for the result.
fn work(
    store: &Store,
    job: &str,
    send: impl FnOnce() -> Result<String, &'static str>,
    follow: impl Fn(),
) -> Result<bool, Error> {
    let (ticket, prior) = match store.claim(Operation::new("jobs", job).lease(LEASE)).wait()? {
        Claim::New(ticket) => (ticket, None),
        Claim::Resumed(ticket, prior) => (ticket, Some(prior)),
        Claim::Completed(_) | Claim::Failed(_) => return Ok(true), // done before: acknowledge
        _ => return Ok(false),                                     // someone is at it
    };
    let lost = prior.filter(|prior| prior.why() != Why::Released);
    if lost.as_ref().is_none_or(|prior| !prior.dispatched()) {
        ticket.mark_dispatched().wait()?; // from here on, it may have been sent
        match send() {
            Ok(id) => ticket.checkpoint(id).wait()?, // for whoever has to go on
            Err(busy) => return ticket.release(busy).wait().map(|()| false),
        }
    } else if lost.is_some_and(|prior| prior.checkpoint().is_none()) {
        return ticket.fail("sent, or not: ask the provider").wait().map(|()| true);
    }
    for _ in 0..3 {
        follow();
        ticket.renew(LEASE).wait()?; // `LeaseLost`: someone took over, stop
    }
    ticket.complete("done").wait().map(|()| true)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ours = env::temp_dir().join(format!("justonce-{}", process::id()));
    let (path, clock) = (env::args_os().nth(2).map_or(ours, Into::into), ManualClock::new());
    let open = || Options::new().clock(&clock).open(&path);
    if let Some(job) = env::args().nth(1) {
        let send = || if job == "a" { Ok("batch 1".to_owned()) } else { process::abort() };
        work(&open()?, &job, send, || process::abort())?;
    }
    for job in ["a", "b"] {
        let this_again = process::Command::new(env::current_exe()?).arg(job).arg(&path).status()?;
        assert!(!this_again.success()); // it ended in the middle of its job
    }
    let store = open()?;
    assert!(work(&store, "a", || panic!("sent twice"), || ())?); // goes on with batch 1
    assert!(work(&store, "b", || panic!("sent twice"), || ())?); // has failed: nobody knows
    let redelivered = || assert!(!work(&store, "c", || panic!("two at it"), || ()).unwrap());
    let long = || (clock.advance(LEASE * 2 / 3), redelivered()).1; // thrice: more than the lease
    assert!(!work(&store, "c", || Err("429"), long)?); // the provider is busy: deliver it again
    assert!(work(&store, "c", || Ok("batch 2".to_owned()), long)?);
    assert!(work(&store, "c", || panic!("done before"), long)?); // acknowledged, and not sent
    drop(store);
    Ok(std::fs::remove_dir_all(&path)?)
}
