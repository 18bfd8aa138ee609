//! A webhook that is delivered twice, and is handled once: `cargo run --example webhook`

#![allow(clippy::unwrap_used, reason = "an example checks what it shows")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use justonce::{Claim, Error, Operation, Options, Store};

static CALLS: AtomicU32 = AtomicU32::new(0);

/// What must not be done twice, and goes wrong at times: here, at the third call.
fn send_receipt() -> Result<String, &'static str> {
    match CALLS.fetch_add(1, Ordering::Relaxed) + 1 {
        3 => Err("the mail server is down"),
        call => Ok(format!("mail {call}")),
    }
}

/// Answers one delivery: status and body. The provider sends it again until it gets a 2xx.
fn handle(store: &Store, provider: &str, event: &str, body: &str) -> Result<(u16, String), Error> {
    let operation = Operation::new(provider, event).fingerprint(body.as_bytes());
    Ok(match store.claim_or_wait(operation, Duration::from_secs(5)).wait()? {
        Claim::New(ticket) | Claim::Resumed(ticket, _) => match send_receipt() {
            Ok(mail) => {
                ticket.complete(mail.as_str()).wait()?;
                (200, mail)
            }
            Err(problem) => {
                ticket.release(problem).wait()?; // the next delivery tries again
                (503, problem.to_owned())
            }
        },
        Claim::Completed(reply) => (200, String::from_utf8_lossy(reply.body()).into_owned()),
        Claim::Mismatch(_) => (422, "this event came with another body".to_owned()),
        _ => (409, "it is being handled".to_owned()),
    })
}

fn main() -> Result<(), Error> {
    let store = Options::new().window(Duration::from_hours(72)).in_memory()?; // or `.open(path)`
    // Delivered again, because the first answer was lost on the way.
    assert_eq!(handle(&store, "stripe", "evt_1", "paid")?, (200, "mail 1".to_owned()));
    assert_eq!(handle(&store, "stripe", "evt_1", "paid")?, (200, "mail 1".to_owned()));
    // Delivered twice at once: both get the one answer.
    std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| handle(&store, "stripe", "evt_2", "paid")));
        for one in both {
            assert_eq!(one.join().unwrap().unwrap(), (200, "mail 2".to_owned()));
        }
    });
    // It could not be handled, and is with the next delivery.
    assert_eq!(handle(&store, "stripe", "evt_3", "paid")?.0, 503);
    assert_eq!(handle(&store, "stripe", "evt_3", "paid")?, (200, "mail 4".to_owned()));
    assert_eq!(handle(&store, "stripe", "evt_3", "forged")?.0, 422);
    assert_eq!(CALLS.load(Ordering::Relaxed), 4);
    Ok(())
}
