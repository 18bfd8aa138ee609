//! What can happen, and any sequence of it.

use justonce::{EntryState, WindowFrom};
use proptest::prelude::*;

use crate::common::fault::Keep;

/// Two projects of two keys each.
pub(crate) const KEYS: [(&str, &str); 4] = [("p", "a"), ("p", "b"), ("q", "a"), ("q", "b")];

/// Windows, leases and steps of the clock meet one another's ends exactly.
const DURATIONS: [u64; 6] = [1, 10, 99, 100, 1_000, 60_000];

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Claim(usize, Say),
    ClaimMany(Vec<(usize, Say)>),
    RecordOnce(usize, Say),
    Act(usize, Act),
    DropTicket(usize),
    Detach(usize),
    Attach(usize),
    Lookup(usize),
    LookupRequest(usize),
    Forget {
        key: usize,
        force: bool,
    },
    InFlight,
    Scan {
        project: Option<&'static str>,
        state: Option<EntryState>,
    },
    Advance(u64),
    /// Events of other keys, to fill generations with.
    Crowd(usize),
    Reopen {
        close_first: bool,
    },
    /// What the disk has at this moment is all there is, while events of other keys are under way.
    CutOff {
        keep: Keep,
        under_way: usize,
    },
    /// Steps the wall clock, by milliseconds: no store notices before it is opened.
    SetWall {
        by: u64,
        back: bool,
    },
}

/// What a claim says of its operation beside its name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Say {
    pub(crate) fingerprint: Option<u8>,
    pub(crate) window: Option<u64>,
    pub(crate) window_from: Option<WindowFrom>,
    pub(crate) lease: Option<u64>,
    pub(crate) report: bool,
    pub(crate) max_attempts: Option<u32>,
}

#[derive(Debug, Clone)]
pub(crate) enum Act {
    Complete { body: u8, retention: Option<u64> },
    Fail { body: u8, retention: Option<u64> },
    Release { reason: u8 },
    Renew { lease: u64 },
    Checkpoint { note: u8 },
    MarkDispatched,
}

pub(crate) fn duration() -> impl Strategy<Value = u64> {
    proptest::sample::select(DURATIONS.as_slice())
}

pub(crate) fn say() -> impl Strategy<Value = Say> {
    let window_from = prop_oneof![Just(WindowFrom::LastChange), Just(WindowFrom::FirstClaim)];
    let all = (
        proptest::option::of(0..2u8),
        proptest::option::weighted(0.2, duration()),
        proptest::option::weighted(0.2, window_from),
        proptest::option::weighted(0.3, duration()),
        proptest::bool::weighted(0.2),
        proptest::option::weighted(0.2, 1..4u32),
    );
    let all = all.prop_map(|(fingerprint, window, window_from, lease, report, max_attempts)| Say {
        fingerprint,
        window,
        window_from,
        lease,
        report,
        max_attempts,
    });
    prop_oneof![Just(Say::default()), all]
}

pub(crate) fn act() -> impl Strategy<Value = Act> {
    let retention = || proptest::option::weighted(0.2, duration());
    prop_oneof![
        3 => (any::<u8>(), retention())
            .prop_map(|(body, retention)| Act::Complete { body, retention }),
        2 => (any::<u8>(), retention()).prop_map(|(body, retention)| Act::Fail { body, retention }),
        3 => any::<u8>().prop_map(|reason| Act::Release { reason }),
        2 => duration().prop_map(|lease| Act::Renew { lease }),
        1 => any::<u8>().prop_map(|note| Act::Checkpoint { note }),
        1 => Just(Act::MarkDispatched),
    ]
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS.len();
    let number = || 0..8usize;
    let project = proptest::sample::select([None, Some("p"), Some("q")].as_slice());
    let state = proptest::option::of(proptest::sample::select(
        [
            EntryState::InFlight,
            EntryState::Lapsed,
            EntryState::Released,
            EntryState::Completed,
            EntryState::Failed,
        ]
        .as_slice(),
    ));
    let keep = proptest::sample::select([Keep::Written, Keep::Synced].as_slice());
    prop_oneof![
        20 => (key(), say()).prop_map(|(key, say)| Step::Claim(key, say)),
        3 => proptest::collection::vec((key(), say()), 1..5).prop_map(Step::ClaimMany),
        3 => (key(), say()).prop_map(|(key, say)| Step::RecordOnce(key, say)),
        15 => (number(), act()).prop_map(|(ticket, act)| Step::Act(ticket, act)),
        4 => number().prop_map(Step::DropTicket),
        3 => number().prop_map(Step::Detach),
        3 => number().prop_map(Step::Attach),
        2 => key().prop_map(Step::Lookup),
        2 => number().prop_map(Step::LookupRequest),
        3 => (key(), any::<bool>()).prop_map(|(key, force)| Step::Forget { key, force }),
        2 => Just(Step::InFlight),
        2 => (project, state).prop_map(|(project, state)| Step::Scan { project, state }),
        10 => duration().prop_map(Step::Advance),
        1 => (1..300usize).prop_map(Step::Crowd),
        2 => any::<bool>().prop_map(|close_first| Step::Reopen { close_first }),
        3 => (keep, 0..20usize).prop_map(|(keep, under_way)| Step::CutOff { keep, under_way }),
        3 => (duration(), any::<bool>()).prop_map(|(by, back)| Step::SetWall { by, back }),
    ]
}
