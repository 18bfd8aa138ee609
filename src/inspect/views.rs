//! What is told of a store, as values that stand on the line: times in milliseconds, names of
//! states in lower case.

use serde::{Deserialize, Serialize};

use super::protocol::{MAX_BODY_BYTES, Octets};
use crate::claim::{Entry, EntryState, Reply, Why};
use crate::clock::{millis_of, unix_millis};
use crate::commit::CommitFigures;
use crate::store::{GenerationInfo, GenerationState, Stats};
use crate::table::Counts;
use crate::verify::Progress;

/// [`EntryState`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "as in `EntryState`")]
#[non_exhaustive]
pub enum StateView {
    InFlight,
    Lapsed,
    Released,
    Completed,
    Failed,
}

/// [`Why`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "as in `Why`")]
#[non_exhaustive]
pub enum WhyView {
    Lease,
    Dropped,
    Restart,
    Released,
}

/// [`GenerationState`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "as in `GenerationState`")]
#[non_exhaustive]
pub enum GenerationStateView {
    Spare,
    Open,
    Frozen,
    Sealed,
}

/// [`Entry`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as the methods of `Entry` and `Prior`")]
#[non_exhaustive]
pub struct EntryView {
    pub request_id: String,
    pub state: StateView,
    pub attempt: u32,
    pub fence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<Octets>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Octets>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    pub claimed_at_millis: u64,
    pub changed_at_millis: u64,
    pub expires_at_millis: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_until_millis: Option<u64>,
    pub dispatched: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Octets>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<WhyView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<ReplyView>,
}

/// [`Reply`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReplyView {
    /// What the bytes are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_tag: Option<String>,
    /// How many there are.
    pub body_bytes: u64,
    /// They, where they were asked for and are at most [`MAX_BODY_BYTES`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Octets>,
    /// The number of attempts, where they were used up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts_exhausted: Option<u32>,
}

/// [`GenerationInfo`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in `GenerationInfo`")]
#[non_exhaustive]
pub struct GenerationView {
    pub id: u32,
    pub state: GenerationStateView,
    pub records: u64,
    pub unanswered: u64,
    pub bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retained_until_millis: Option<u64>,
}

/// [`Stats`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in `Stats`")]
#[non_exhaustive]
pub struct StatsView {
    pub claims: ClaimsView,
    pub commits: CommitsView,
    pub records_live: u64,
    pub unanswered: u64,
    pub generations: u64,
    pub sealed_generations: u64,
    pub queued_bytes: u64,
    pub waiters: u64,
    pub poisoned: bool,
    pub clock_skew_millis: u64,
}

/// [`ClaimCounts`](crate::ClaimCounts).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in `ClaimCounts`")]
#[non_exhaustive]
pub struct ClaimsView {
    pub new: u64,
    pub resumed: u64,
    pub in_flight: u64,
    pub completed: u64,
    pub failed: u64,
    pub mismatch: u64,
    pub lapsed: u64,
}

/// [`CommitFigures`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in `CommitFigures`")]
#[non_exhaustive]
pub struct CommitsView {
    pub batches: u64,
    pub records: u64,
    pub record_bytes: u64,
    pub latency_p50_micros: u64,
    pub latency_p99_micros: u64,
}

/// [`Progress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in `Progress`")]
#[non_exhaustive]
pub struct ProgressView {
    pub generations: u64,
    pub generations_in_all: u64,
    pub unread: u64,
    pub records: u64,
    pub entries: u64,
    pub bytes: u64,
    pub damages: u64,
}

impl EntryView {
    /// What there is to tell of an entry; the body of its reply if `with_body`.
    #[must_use]
    pub fn of(entry: &Entry, with_body: bool) -> Self {
        let prior = entry.prior();
        EntryView {
            request_id: entry.request_id().to_string(),
            state: entry.state().into(),
            attempt: entry.attempt(),
            fence: entry.fence(),
            project: entry.project().map(Octets::from),
            key: entry.key().map(Octets::from),
            label: entry.label().map(str::to_owned),
            claimed_at_millis: unix_millis(entry.claimed_at()),
            changed_at_millis: unix_millis(entry.changed_at()),
            expires_at_millis: unix_millis(entry.expires_at()),
            lease_until_millis: entry.lease_until().map(unix_millis),
            dispatched: entry.dispatched(),
            checkpoint: entry.checkpoint().map(Octets::from),
            why: prior.as_ref().map(|prior| prior.why().into()),
            reason: prior.as_ref().and_then(|prior| prior.reason()).map(str::to_owned),
            reply: entry.reply().map(|reply| ReplyView::of(reply, with_body)),
        }
    }
}

impl ReplyView {
    fn of(reply: &Reply, with_body: bool) -> Self {
        let body = reply.body();
        let is_told = with_body && body.len() <= MAX_BODY_BYTES;
        ReplyView {
            content_tag: reply.content_tag().map(str::to_owned),
            body_bytes: body.len() as u64,
            body: is_told.then(|| Octets::from(body)),
            attempts_exhausted: reply.attempts_exhausted(),
        }
    }
}

impl StateView {
    /// Whether it lacks a reply.
    #[must_use]
    pub fn is_unanswered(self) -> bool {
        matches!(self, StateView::InFlight | StateView::Lapsed | StateView::Released)
    }
}

impl From<EntryState> for StateView {
    fn from(state: EntryState) -> Self {
        match state {
            EntryState::InFlight => StateView::InFlight,
            EntryState::Lapsed => StateView::Lapsed,
            EntryState::Released => StateView::Released,
            EntryState::Completed => StateView::Completed,
            EntryState::Failed => StateView::Failed,
        }
    }
}

impl From<Why> for WhyView {
    fn from(why: Why) -> Self {
        match why {
            Why::Lease => WhyView::Lease,
            Why::Dropped => WhyView::Dropped,
            Why::Restart => WhyView::Restart,
            Why::Released => WhyView::Released,
        }
    }
}

impl From<&GenerationInfo> for GenerationView {
    fn from(info: &GenerationInfo) -> Self {
        GenerationView {
            id: info.id,
            state: match info.state {
                GenerationState::Spare => GenerationStateView::Spare,
                GenerationState::Open => GenerationStateView::Open,
                GenerationState::Frozen => GenerationStateView::Frozen,
                GenerationState::Sealed => GenerationStateView::Sealed,
            },
            records: info.records,
            unanswered: info.unanswered,
            bytes: info.bytes,
            retained_until_millis: info.retained_until.map(unix_millis),
        }
    }
}

impl From<&Stats> for StatsView {
    fn from(stats: &Stats) -> Self {
        StatsView {
            claims: (&stats.claims).into(),
            commits: (&stats.commits).into(),
            records_live: stats.records_live,
            unanswered: stats.unanswered,
            generations: stats.generations as u64,
            sealed_generations: stats.sealed_generations as u64,
            queued_bytes: stats.queued_bytes as u64,
            waiters: stats.waiters as u64,
            poisoned: stats.poisoned,
            clock_skew_millis: millis_of(stats.clock_skew),
        }
    }
}

impl From<&Counts> for ClaimsView {
    fn from(claims: &Counts) -> Self {
        ClaimsView {
            new: claims.new,
            resumed: claims.resumed,
            in_flight: claims.in_flight,
            completed: claims.completed,
            failed: claims.failed,
            mismatch: claims.mismatch,
            lapsed: claims.lapsed,
        }
    }
}

impl From<&CommitFigures> for CommitsView {
    fn from(commits: &CommitFigures) -> Self {
        let micros =
            |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        CommitsView {
            batches: commits.batches,
            records: commits.records,
            record_bytes: commits.record_bytes,
            latency_p50_micros: micros(commits.latency_p50),
            latency_p99_micros: micros(commits.latency_p99),
        }
    }
}

impl From<&Progress> for ProgressView {
    fn from(progress: &Progress) -> Self {
        ProgressView {
            generations: progress.generations as u64,
            generations_in_all: progress.generations_in_all as u64,
            unread: progress.unread as u64,
            records: progress.records,
            entries: progress.entries,
            bytes: progress.bytes,
            damages: progress.damages as u64,
        }
    }
}
