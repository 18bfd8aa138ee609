//! What is compared: answers of the store in words that the model uses as well.

use std::time::SystemTime;

use justonce::{EntryState, Prior, Reply, RequestId, Why};

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    New,
    Resumed { attempt: u32, prior: PriorSaid },
    InFlight { attempt: u32, retry_after: u64 },
    Settled(ReplySaid),
    Mismatch(EntryState),
    Lapsed(PriorSaid),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PriorSaid {
    pub(crate) attempt: u32,
    pub(crate) why: Why,
    pub(crate) reason: Option<String>,
    pub(crate) dispatched: bool,
    pub(crate) checkpoint: Option<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReplySaid {
    pub(crate) failed: bool,
    pub(crate) body: Vec<u8>,
    pub(crate) attempt: u32,
    pub(crate) exhausted: bool,
}

/// Notes are for whoever resumes; what becomes of them once there is a reply is left open.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EntrySaid {
    pub(crate) state: EntryState,
    pub(crate) request: RequestId,
    pub(crate) fence: u64,
    pub(crate) attempt: u32,
    pub(crate) reply: Option<ReplySaid>,
    pub(crate) prior: Option<PriorSaid>,
    pub(crate) dispatched: bool,
    pub(crate) checkpoint: Option<Vec<u8>>,
    pub(crate) expires_at: u64,
}

pub(crate) fn prior_said(prior: &Prior) -> PriorSaid {
    PriorSaid {
        attempt: prior.attempt(),
        why: prior.why(),
        reason: prior.reason().map(str::to_owned),
        dispatched: prior.dispatched(),
        checkpoint: prior.checkpoint().map(<[u8]>::to_vec),
    }
}

pub(crate) fn reply_said(reply: &Reply, failed: bool) -> ReplySaid {
    ReplySaid {
        failed,
        body: reply.body().to_vec(),
        attempt: reply.attempt().unwrap(),
        exhausted: reply.attempts_exhausted().is_some(),
    }
}

pub(crate) fn entry_said(entry: &justonce::Entry) -> EntrySaid {
    EntrySaid {
        state: entry.state(),
        request: entry.request_id(),
        fence: entry.fence(),
        attempt: entry.attempt(),
        reply: entry.reply().map(|reply| reply_said(reply, entry.state() == EntryState::Failed)),
        prior: entry.prior().as_ref().map(prior_said),
        dispatched: entry.dispatched() && entry.reply().is_none(),
        checkpoint: entry.checkpoint().filter(|_| entry.reply().is_none()).map(<[u8]>::to_vec),
        expires_at: millis(entry.expires_at()),
    }
}

pub(crate) fn millis(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
