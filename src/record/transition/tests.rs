//! Every cell of the contract's table; what holds of whole histories is in [`histories`].

mod histories;

use super::*;

const NOW: u64 = 1_577_836_800_000;
const SECOND: u64 = 1_000;
const LEASE: u64 = 600 * SECOND;
const WINDOW: u64 = 86_400 * SECOND;
const EPOCH: u32 = 3;
const FENCE: u64 = 40;
const MOMENT: Moment = Moment { now: NOW, epoch: EPOCH, owners_survive_restart: false };
const PLACE: Position = Position { generation: 7, row: 9 };

/// What may stand in the store when someone asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    Nothing,
    Over,
    Forgotten,
    InFlight,
    LeaseOver,
    Dropped,
    Restarted,
    Released,
    Completed,
    Failed,
    Exhausted,
}

use Stored::{
    Completed, Dropped, Exhausted, Failed, Forgotten, InFlight, LeaseOver, Nothing, Over, Released,
    Restarted,
};

const ABSENT: [Stored; 3] = [Nothing, Over, Forgotten];
const LAPSED: [(Stored, LapseCause); 3] = [
    (LeaseOver, LapseCause::Lease),
    (Dropped, LapseCause::Dropped),
    (Restarted, LapseCause::Restart),
];
const FINAL: [(Stored, Answer); 3] =
    [(Completed, Answer::Completed), (Failed, Answer::Failed), (Exhausted, Answer::Failed)];
const UNOWNED: [Stored; 4] = [LeaseOver, Dropped, Restarted, Released];

#[test]
fn an_absent_operation_is_new_under_any_terms() {
    for stored in ABSENT {
        for terms in [terms(), other_fingerprint(), reporting(), one_attempt()] {
            let record = written(stored, Intent::Claim(terms), &Answer::New);
            assert_eq!((record.attempt, record.fence), (1, 0), "{stored:?}");
            assert_eq!(record.state, State::InFlight { lease_until: NOW + LEASE }, "{stored:?}");
            assert!(record.changed_at == record.claimed_at && record.claimed_at >= NOW);
        }
    }
}

#[test]
fn a_new_life_begins_after_the_life_before_it() {
    let over = found(Forgotten);
    let at = Moment { now: over.record.claimed_at, ..MOMENT };
    let verdict = transition(Some(&over), Intent::Claim(terms()), &at);
    let record = verdict.write.unwrap();
    assert_eq!(record.claimed_at, over.record.claimed_at + 1);
    assert_ne!(record.request_id(), over.record.request_id());
    assert_eq!(record.prev, Some(PLACE));
}

#[test]
fn an_operation_in_flight_is_answered_so() {
    let answer = Answer::InFlight { lease_until: NOW + 1 };
    for terms in [terms(), no_fingerprint(), reporting(), one_attempt()] {
        unwritten(InFlight, Intent::Claim(terms.clone()), &answer);
        unwritten(InFlight, Intent::Record(terms), &answer);
    }
}

#[test]
fn a_lapsed_operation_is_resumed_and_the_cause_told() {
    for (stored, cause) in LAPSED {
        let before = found(stored).record;
        for terms in [terms(), no_fingerprint()] {
            let record = written(stored, Intent::Claim(terms), &Answer::Resumed(Some(cause)));
            assert_eq!(record.request_id(), before.request_id());
            assert_eq!((record.attempt, record.fence), (before.attempt + 1, 0));
            assert_eq!(record.state, State::InFlight { lease_until: NOW + LEASE });
            assert_eq!(record.fingerprint, before.fingerprint);
            assert!(record.dispatched && record.checkpoint == before.checkpoint, "notes are kept");
        }
    }
}

#[test]
fn a_lapsed_operation_is_only_reported_where_that_is_asked() {
    for (stored, cause) in LAPSED {
        unwritten(stored, Intent::Claim(reporting()), &Answer::Lapsed(cause));
        unwritten(stored, Intent::Record(reporting()), &Answer::Lapsed(cause));
    }
}

#[test]
fn a_released_operation_is_resumed_under_any_policy() {
    for terms in [terms(), no_fingerprint(), reporting()] {
        let record = written(Released, Intent::Claim(terms), &Answer::Resumed(None));
        assert_eq!(record.attempt, found(Released).record.attempt + 1);
    }
}

#[test]
fn a_claim_past_the_last_attempt_fails_the_operation() {
    for stored in UNOWNED {
        let attempt = found(stored).record.attempt;
        let terms = Terms { max_attempts: Some(attempt), ..terms() };
        let record = written(stored, Intent::Claim(terms.clone()), &Answer::Failed);
        assert_eq!(record.state, State::Failed(Failure::AttemptsExhausted), "{stored:?}");
        assert_eq!(record.attempt, attempt);
        assert_eq!(record.fence, FENCE, "nobody became its owner");
        assert!(record.dispatched && record.checkpoint.is_some(), "its notes stay");
        let one_more = Terms { max_attempts: Some(attempt + 1), ..terms };
        let verdict = verdict(stored, Intent::Claim(one_more));
        assert!(matches!(verdict.answer, Answer::Resumed(_)), "{stored:?}: {verdict:?}");
    }
}

#[test]
fn a_settled_operation_answers_with_what_is_stored() {
    for (stored, answer) in FINAL {
        for terms in [terms(), no_fingerprint(), reporting()] {
            unwritten(stored, Intent::Claim(terms.clone()), &answer);
            unwritten(stored, Intent::Record(terms), &answer);
        }
    }
}

#[test]
fn another_fingerprint_is_a_mismatch_in_every_live_state() {
    for stored in [InFlight, LeaseOver, Dropped, Restarted, Released, Completed, Failed, Exhausted]
    {
        let answer = Answer::Mismatch(standing(&found(stored), &MOMENT));
        unwritten(stored, Intent::Claim(other_fingerprint()), &answer);
        unwritten(stored, Intent::Record(other_fingerprint()), &answer);
        let strict =
            Terms { max_attempts: Some(1), on_lapsed: OnLapsed::Report, ..other_fingerprint() };
        unwritten(stored, Intent::Claim(strict), &answer);
    }
}

#[test]
fn a_fingerprint_is_not_compared_with_none() {
    let mut released = found(Released);
    released.record.fingerprint = None;
    let verdict = transition(Some(&released), Intent::Claim(other_fingerprint()), &MOMENT);
    assert_eq!(verdict.answer, Answer::Resumed(None));
    assert_eq!(verdict.write.unwrap().fingerprint, other_fingerprint().fingerprint, "it is kept");
}

#[test]
fn recording_completes_what_a_claim_would_have_owned() {
    let resumed = LAPSED.map(|(stored, cause)| (stored, Answer::Resumed(Some(cause))));
    let new = ABSENT.map(|stored| (stored, Answer::New));
    for (stored, answer) in
        resumed.into_iter().chain(new).chain([(Released, Answer::Resumed(None))])
    {
        let record = written(stored, Intent::Record(terms()), &answer);
        assert_eq!(record.state, State::Completed(Payload::default()), "{stored:?}");
        assert!(!record.dispatched && record.checkpoint.is_none(), "{stored:?}: notes are left");
    }
}

#[test]
fn what_is_recorded_is_not_kept_for_a_lease_it_never_had() {
    let brief = Terms { window: SECOND, ..terms() };
    let record = written(Nothing, Intent::Record(brief), &Answer::New);
    assert_eq!(record.retained_until, NOW + SECOND);
}

#[test]
fn an_owner_may_do_anything_while_nobody_took_over() {
    for stored in [InFlight, LeaseOver, Dropped, Restarted] {
        let before = found(stored).record;
        for act in acts() {
            let record = written(stored, own(FENCE, act.clone()), &Answer::Done);
            let state = match act {
                Act::Complete { payload, .. } => State::Completed(payload),
                Act::Fail { payload, .. } => State::Failed(Failure::Reply(payload)),
                Act::Release { reason } => State::Released { reason },
                Act::Renew { lease } => State::InFlight { lease_until: NOW + lease },
                Act::MarkDispatched | Act::Checkpoint(_) => before.state.clone(),
            };
            assert_eq!(record.state, state, "{stored:?}");
            assert_eq!((record.fence, record.attempt), (FENCE, before.attempt));
            assert_eq!((record.changed_at, record.epoch), (NOW, EPOCH));
        }
    }
}

#[test]
fn notes_are_kept_until_the_operation_is_settled() {
    let checkpoint = Act::Checkpoint(Bytes::from_static(b"job-18"));
    let noted = written(InFlight, own(FENCE, checkpoint), &Answer::Done);
    assert_eq!(noted.checkpoint.as_deref(), Some(&b"job-18"[..]));
    let release = Act::Release { reason: "busy".into() };
    let released = written(InFlight, own(FENCE, release), &Answer::Done);
    assert!(released.dispatched && released.checkpoint.is_some());
    for act in [complete(None), fail(None)] {
        let settled = written(InFlight, own(FENCE, act), &Answer::Done);
        assert!(!settled.dispatched && settled.checkpoint.is_none());
    }
}

#[test]
fn a_reply_may_be_kept_for_a_time_of_its_own() {
    for act in [complete(Some(5 * WINDOW)), fail(Some(5 * WINDOW))] {
        let record = written(InFlight, own(FENCE, act), &Answer::Done);
        assert_eq!(record.expires_at(), NOW + 5 * WINDOW);
    }
}

#[test]
fn another_fence_is_refused_in_every_live_state() {
    for stored in [InFlight, LeaseOver, Dropped, Restarted, Released, Completed, Failed, Exhausted]
    {
        for act in acts() {
            unwritten(stored, own(FENCE - 1, act.clone()), &Answer::LeaseLost);
            unwritten(stored, own(FENCE + 1, act), &Answer::LeaseLost);
        }
    }
}

#[test]
fn an_owner_of_what_is_gone_is_told_so() {
    for stored in ABSENT {
        for act in acts() {
            unwritten(stored, own(FENCE, act), &Answer::Gone);
        }
    }
}

#[test]
fn settling_twice_keeps_the_first_reply() {
    unwritten(Completed, own(FENCE, complete(None)), &Answer::Done);
    unwritten(Failed, own(FENCE, fail(None)), &Answer::Done);
}

#[test]
fn an_owner_that_gave_up_the_operation_has_no_more_say() {
    for act in acts() {
        let completing = matches!(act, Act::Complete { .. });
        let failing = matches!(act, Act::Fail { .. });
        unwritten(Released, own(FENCE, act.clone()), &Answer::LeaseLost);
        unwritten(Exhausted, own(FENCE, act.clone()), &Answer::LeaseLost);
        if !completing {
            unwritten(Completed, own(FENCE, act.clone()), &Answer::LeaseLost);
        }
        if !failing {
            unwritten(Failed, own(FENCE, act), &Answer::LeaseLost);
        }
    }
}

#[test]
fn forgetting_spares_a_live_owner_unless_forced() {
    unwritten(InFlight, Intent::Forget { force: false }, &Answer::Owned);
    assert_forgotten(InFlight, true);
    for stored in [LeaseOver, Dropped, Restarted, Released, Completed, Failed, Exhausted] {
        assert_forgotten(stored, false);
        assert_forgotten(stored, true);
    }
    for stored in ABSENT {
        for force in [false, true] {
            unwritten(stored, Intent::Forget { force }, &Answer::NothingThere);
        }
    }
}

#[test]
fn owners_that_outlive_the_process_outlive_a_restart() {
    let external = Moment { owners_survive_restart: true, ..MOMENT };
    let standing = standing(&found(Restarted), &external);
    assert_eq!(standing, Standing::InFlight { lease_until: NOW + 1 });
}

#[test]
fn a_record_is_absent_from_the_millisecond_its_window_ends() {
    for (stored, _) in FINAL {
        let mut found = found(stored);
        found.record.changed_at = NOW - WINDOW + 1;
        assert_ne!(standing(&found, &MOMENT), Standing::Absent, "{stored:?}");
        found.record.changed_at -= 1;
        assert_eq!(standing(&found, &MOMENT), Standing::Absent, "{stored:?}");
    }
}

#[test]
fn a_lease_longer_than_the_window_keeps_its_operation() {
    let mut found = found(InFlight);
    found.record.window = 1;
    assert!(matches!(standing(&found, &MOMENT), Standing::InFlight { .. }));
    let over = Moment { now: NOW + 1, ..MOMENT };
    assert_eq!(standing(&found, &over), Standing::Absent);
}

#[test]
fn a_lease_is_over_in_the_millisecond_it_ends() {
    let at_its_end = Moment { now: NOW + 1, ..MOMENT };
    assert_eq!(standing(&found(InFlight), &at_its_end), Standing::Lapsed(LapseCause::Lease));
}

#[test]
fn attempts_and_times_stop_at_their_largest_value() {
    let mut lapsed = found(LeaseOver);
    lapsed.record.attempt = u32::MAX;
    let verdict = transition(Some(&lapsed), Intent::Claim(terms()), &MOMENT);
    assert_eq!(verdict.write.unwrap().attempt, u32::MAX);
    let last = Moment { now: u64::MAX - 1, ..MOMENT };
    let record = transition(None, Intent::Claim(terms()), &last).write.unwrap();
    assert_eq!(record.expires_at(), u64::MAX);
    assert_eq!(record.state, State::InFlight { lease_until: u64::MAX });
}

#[test]
fn an_older_record_is_never_kept_longer_than_what_took_its_place() {
    let brief = Terms { window: 1, lease: 1, ..terms() };
    for stored in [Over, Forgotten, LeaseOver, Dropped, Restarted, Released] {
        let verdict = verdict(stored, Intent::Claim(brief.clone()));
        let kept_until = verdict.write.unwrap().retained_until;
        assert!(kept_until >= found(stored).record.retained_until, "{stored:?}");
    }
    let forgotten = written(Completed, Intent::Forget { force: false }, &Answer::Done);
    assert_eq!(forgotten.retained_until, found(Completed).record.retained_until);
}

/// A record of each kind, with its fence, that nobody has written to for a while.
fn found(stored: Stored) -> Found {
    let payload = Payload { content_tag: None, body: Bytes::from_static(b"first") };
    let state = match stored {
        Nothing | Over | InFlight | Dropped | Restarted => State::InFlight { lease_until: NOW + 1 },
        LeaseOver => State::InFlight { lease_until: NOW },
        Forgotten => State::Forgotten,
        Released => State::Released { reason: "busy".into() },
        Completed => State::Completed(payload),
        Failed => State::Failed(Failure::Reply(payload)),
        Exhausted => State::Failed(Failure::AttemptsExhausted),
    };
    let mut record = Record {
        operation: terms().operation,
        project: terms().project,
        sequence: FENCE + 1,
        fence: FENCE,
        prev: None,
        attempt: 2,
        epoch: if stored == Restarted { EPOCH - 1 } else { EPOCH },
        claimed_at: NOW - LEASE,
        changed_at: NOW - LEASE,
        window: WINDOW,
        window_from: WindowFrom::LastChange,
        retained_until: NOW + 2 * WINDOW,
        fingerprint: terms().fingerprint,
        dispatched: true,
        checkpoint: Some(Bytes::from_static(b"job-17")),
        label: None,
        names: None,
        state,
    };
    if stored == Over {
        record.window = LEASE;
        record.state = State::InFlight { lease_until: NOW };
    }
    Found { record, position: PLACE, owner_dropped: stored == Dropped }
}

fn terms() -> Terms {
    Terms {
        operation: OperationId([1; 16]),
        project: ProjectId([2; 8]),
        fingerprint: Some(Fingerprint([3; 16])),
        window: WINDOW,
        window_from: WindowFrom::LastChange,
        lease: LEASE,
        on_lapsed: OnLapsed::Resume,
        max_attempts: None,
        label: None,
        names: None,
    }
}

fn no_fingerprint() -> Terms {
    Terms { fingerprint: None, ..terms() }
}

fn other_fingerprint() -> Terms {
    Terms { fingerprint: Some(Fingerprint([4; 16])), ..terms() }
}

fn reporting() -> Terms {
    Terms { on_lapsed: OnLapsed::Report, ..terms() }
}

fn one_attempt() -> Terms {
    Terms { max_attempts: Some(1), ..terms() }
}

fn own(fence: u64, act: Act) -> Intent {
    Intent::Owner { fence, act }
}

fn complete(window: Option<u64>) -> Act {
    Act::Complete { payload: Payload::default(), window }
}

fn fail(window: Option<u64>) -> Act {
    Act::Fail { payload: Payload::default(), window }
}

fn acts() -> [Act; 6] {
    [
        complete(None),
        fail(None),
        Act::Release { reason: "busy".into() },
        Act::Renew { lease: LEASE },
        Act::MarkDispatched,
        Act::Checkpoint(Bytes::from_static(b"job-18")),
    ]
}

fn verdict(stored: Stored, intent: Intent) -> Verdict {
    let found = (stored != Nothing).then(|| found(stored));
    transition(found.as_ref(), intent, &MOMENT)
}

#[track_caller]
fn written(stored: Stored, intent: Intent, answer: &Answer) -> Record {
    let verdict = verdict(stored, intent);
    assert_eq!(&verdict.answer, answer, "{stored:?}");
    let record = verdict.write.expect("something is written");
    assert_eq!(record.prev, (stored != Nothing).then_some(PLACE), "{stored:?}");
    // The draft leaves a fence out that is the sequence: an owner's, were the old one kept here.
    assert_eq!(record.sequence, 0, "stamped at append: {stored:?}");
    record
}

#[track_caller]
fn unwritten(stored: Stored, intent: Intent, answer: &Answer) {
    let asked = format!("{stored:?}, {intent:?}");
    let verdict = verdict(stored, intent);
    assert_eq!(&verdict.answer, answer, "{asked}");
    assert_eq!(verdict.write, None, "{asked}");
}

#[track_caller]
fn assert_forgotten(stored: Stored, force: bool) {
    let record = written(stored, Intent::Forget { force }, &Answer::Done);
    assert_eq!(record.state, State::Forgotten, "{stored:?}");
    assert_eq!(record.fence, 0, "a fence of its own, so that no ticket fits: {stored:?}");
}
