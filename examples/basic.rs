//! A claim, its reply, and what a retry, another body and an expired window are told.
//!
//! `cargo run --example basic`

#![allow(clippy::panic, clippy::print_stdout, reason = "an example checks what it shows")]

use std::time::Duration;

use justonce::{Claim, ManualClock, Operation, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::temp_dir().join(format!("justonce-basic-{}", std::process::id()));
    let clock = ManualClock::new(); // so that this ends today; leave it out for real time
    let store = Options::new().window(Duration::from_hours(24)).clock(&clock).open(&directory)?;

    let body = br#"{"prompt":"classify ticket 842"}"#;
    let operation = || Operation::new("acme", "ticket-842").fingerprint(body);

    // The first to come is given the ticket, and does the work.
    let Claim::New(ticket) = store.claim(operation()).wait()? else { panic!("not new") };
    let request = ticket.request_id();

    // Whoever comes meanwhile is told that it is being done.
    let Claim::InFlight(flight) = store.claim(operation()).wait()? else { panic!("not at work") };
    assert_eq!(flight.request_id(), request);

    // On disk when this returns: from here on every retry gets this reply.
    ticket.complete("spam").wait()?;
    let Claim::Completed(reply) = store.claim(operation()).wait()? else { panic!("not done") };
    assert_eq!((reply.body(), reply.request_id()), (&b"spam"[..], Some(request)));

    // The same key with another body is another request, and does not get the reply.
    let other = Operation::new("acme", "ticket-842").fingerprint(b"another body");
    assert!(matches!(store.claim(other).wait()?, Claim::Mismatch(_)));

    // It is remembered across a restart.
    store.close().wait()?;
    let store = Options::new().window(Duration::from_hours(24)).clock(&clock).open(&directory)?;
    assert!(matches!(store.claim(operation()).wait()?, Claim::Completed(_)));

    // And forgotten when its window is over.
    clock.advance(Duration::from_hours(25));
    assert!(matches!(store.claim(operation()).wait()?, Claim::New(_)));

    drop(store);
    std::fs::remove_dir_all(&directory)?;
    println!("{request} was done once");
    Ok(())
}
