//! The work: calling upstream as the owner of an operation, and picking up what a crash left.
//!
//! Work is a task of its own, so that no client's leaving ends it. Each upstream call is noted in
//! the record before it is made: how many there were, and the body, if it fits.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use justonce::{Claim, EntryState, Error, MAX_CHECKPOINT_BYTES, Prior, Reply, Store, Ticket};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;

use crate::arguments::Arguments;
use crate::shown::Shown;
use crate::upstream::{Answer, Upstream};

/// The pause before the second upstream call, which doubles with each; at most the second.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// How long an operation has failed whose tries are used up.
const FAILED_FOR: Duration = Duration::from_mins(1);

/// A sign of life while upstream takes its time, well within the lease.
const LEASE: Duration = Duration::from_mins(2);
const RENEW_EVERY: Duration = Duration::from_secs(40);

#[derive(Clone)]
pub(crate) struct Gateway(Arc<Inner>);

struct Inner {
    store: Store,
    upstream: Upstream,
    tries: u32,
    longest_wait: Duration,
    at_most_once: bool,
    shown: Shown,
    /// Requests being worked on.
    at_work: watch::Sender<usize>,
}

/// The note in the record of an operation in flight.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Note {
    calls: u32,
    body: Option<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) resumed: usize,
    pub(crate) left: usize,
    pub(crate) failed: usize,
}

/// What a stored reply is, as its content tag says: `STATUS;CALLS`.
pub(crate) struct Outcome {
    pub(crate) status: u16,
    pub(crate) calls: u32,
    pub(crate) body: Bytes,
}

impl Outcome {
    pub(crate) fn of(reply: &Reply) -> Option<Self> {
        let (status, calls) = reply.content_tag()?.split_once(';')?;
        let body = Bytes::copy_from_slice(reply.body());
        Some(Outcome { status: status.parse().ok()?, calls: calls.parse().ok()?, body })
    }

    fn into_reply(self) -> Reply {
        let tag = format!("{};{}", self.status, self.calls);
        Reply::new(self.body).content(tag)
    }

    fn error(status: u16, calls: u32, code: &str, message: &str) -> Self {
        let body = json!({"error": {"message": message, "type": "gateway_error", "code": code}});
        Outcome { status, calls, body: Bytes::from(body.to_string()) }
    }
}

impl Gateway {
    pub(crate) fn new(store: Store, upstream: &str, arguments: &Arguments) -> Self {
        Gateway(Arc::new(Inner {
            store,
            upstream: Upstream::new(upstream, std::env::var("UPSTREAM_API_KEY").ok()),
            tries: arguments.tries.max(1),
            longest_wait: arguments.wait,
            at_most_once: arguments.at_most_once,
            shown: Shown::default(),
            at_work: watch::Sender::new(0),
        }))
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(crate) fn shown(&self) -> &Shown {
        &self.0.shown
    }

    pub(crate) fn longest_wait(&self) -> Duration {
        self.0.longest_wait
    }

    /// Resolves when nothing is being worked on.
    pub(crate) async fn idle(&self) {
        let _ = self.0.at_work.subscribe().wait_for(|at_work| *at_work == 0).await;
    }

    /// Works on an operation in a task.
    pub(crate) fn start(&self, ticket: Ticket, prior: Option<&Prior>, body: String) {
        let (gateway, dispatched) = (self.clone(), prior.is_some_and(Prior::dispatched));
        let calls = prior.and_then(Prior::checkpoint).map_or(0, |note| noted(note).calls);
        let counted = Counted::new(&self.0);
        tokio::spawn(async move {
            let id = ticket.request_id();
            let outcome = if dispatched && gateway.0.at_most_once {
                gateway.give_up(ticket, calls).await
            } else {
                gateway.work(ticket, calls, &body).await
            };
            if let Err(error) = outcome {
                // Left to whoever claims it next.
                gateway.0.shown.failed(id, &error);
            }
            drop(counted);
        });
    }

    async fn give_up(&self, ticket: Ticket, calls: u32) -> Result<(), Error> {
        let message = "The gateway died while this request was upstream: it may have been done.";
        ticket.fail(Outcome::error(502, calls, "interrupted", message).into_reply()).await
    }

    async fn work(&self, ticket: Ticket, before: u32, body: &str) -> Result<(), Error> {
        let (id, mut pause) = (ticket.request_id(), FIRST_PAUSE);
        let mut last = String::new();
        for calls in before + 1..=before + self.0.tries {
            if calls > before + 1 {
                self.alive(&ticket, tokio::time::sleep(pause)).await?;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            self.note(&ticket, calls, body).await?;
            let began = tokio::time::Instant::now();
            let calling = self.0.upstream.complete(id, body);
            match self.alive(&ticket, calling).await? {
                Answer::Final { status, body } => {
                    self.0.shown.answered(id, status, began.elapsed());
                    let reply = Outcome { status, calls, body }.into_reply();
                    return match status {
                        200..=299 => ticket.complete(reply).await,
                        _ => ticket.fail(reply).await,
                    };
                }
                Answer::Passing { what, pause: asked_for } => {
                    pause = asked_for.map_or(pause, |time| time.min(LONGEST_PAUSE));
                    self.0.shown.failed(id, &what);
                    last = what;
                }
            }
        }
        let failed = Outcome::error(502, before + self.0.tries, "upstream", &last);
        ticket.fail(failed.into_reply().retention(FAILED_FOR)).await
    }

    /// Says what is about to be done, in one commit.
    async fn note(&self, ticket: &Ticket, calls: u32, body: &str) -> Result<(), Error> {
        let short = Note { calls, body: Some(body.to_owned()) };
        let mut note = serde_json::to_vec(&short).unwrap_or_default();
        if note.len() > MAX_CHECKPOINT_BYTES {
            note = serde_json::to_vec(&Note { calls, body: None }).unwrap_or_default();
        }
        let (noted, marked) = (ticket.checkpoint(note), ticket.mark_dispatched());
        noted.await?;
        marked.await
    }

    /// Renews the lease while something goes on; an error where the ownership is lost.
    async fn alive<T>(&self, ticket: &Ticket, doing: impl Future<Output = T>) -> Result<T, Error> {
        let mut doing = std::pin::pin!(doing);
        loop {
            tokio::select! {
                done = &mut doing => return Ok(done),
                () = tokio::time::sleep(RENEW_EVERY) => ticket.renew(LEASE).await?,
            }
        }
    }

    /// Picks up what an earlier run left without a reply.
    pub(crate) async fn recover(&self) -> Result<Recovered, Error> {
        let mut recovered = Recovered::default();
        for entry in self.store().in_flight().await? {
            if !matches!(entry.state(), EntryState::Lapsed | EntryState::Released) {
                continue;
            }
            let body = entry.checkpoint().and_then(|note| noted(note).body);
            let fails = self.0.at_most_once && entry.dispatched();
            match (fails, body) {
                (false, None) => {
                    recovered.left += 1;
                    continue;
                }
                (true, _) => recovered.failed += 1,
                (false, Some(_)) => recovered.resumed += 1,
            }
            let body = entry.checkpoint().and_then(|note| noted(note).body).unwrap_or_default();
            if let Claim::Resumed(ticket, prior) = self.store().claim(entry.operation()).await? {
                self.0.shown.resumed(ticket.request_id());
                self.start(ticket, Some(&prior), body);
            }
        }
        Ok(recovered)
    }
}

fn noted(note: &[u8]) -> Note {
    serde_json::from_slice(note).unwrap_or_default()
}

/// Counts a request as being worked on until it is dropped.
struct Counted(Arc<Inner>);

impl Counted {
    fn new(gateway: &Arc<Inner>) -> Self {
        gateway.at_work.send_modify(|at_work| *at_work += 1);
        Counted(Arc::clone(gateway))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.at_work.send_modify(|at_work| *at_work -= 1);
    }
}
