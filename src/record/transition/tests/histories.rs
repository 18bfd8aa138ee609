//! Arbitrary histories of one operation, and what holds of each record in them.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// One operation's life under arbitrary calls, each found record being the one written before.
    #[test]
    fn every_history_keeps_the_invariants(steps in prop::collection::vec(steps(), 1..40)) {
        let mut history = History::begun();
        for step in steps {
            history.take(step)?;
        }
    }
}

/// What has been written of one operation, and what the queue would have stamped on it.
struct History {
    moment: Moment,
    latest: Option<Found>,
    next_sequence: u64,
    fences: Vec<u64>,
}

#[derive(Debug, Clone)]
struct Step {
    later: u64,
    restart: bool,
    drop_ticket: bool,
    /// Which owner acts, counted back from the latest.
    owner: usize,
    intent: Intent,
}

impl History {
    fn begun() -> Self {
        History { moment: MOMENT, latest: None, next_sequence: 1, fences: Vec::new() }
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        self.moment.now = self.moment.now.saturating_add(step.later);
        self.moment.epoch += u32::from(step.restart);
        if let Some(found) = &mut self.latest {
            found.owner_dropped |= step.drop_ticket;
        }
        let intent = match step.intent {
            Intent::Owner { act, .. } => {
                let fence = self.fences.iter().rev().nth(step.owner).copied().unwrap_or(u64::MAX);
                Intent::Owner { fence, act }
            }
            other => other,
        };
        let before = self.latest.clone();
        let verdict = transition(before.as_ref(), intent.clone(), &self.moment);
        check_answer(before.as_ref(), &intent, &verdict, &self.moment)?;
        if let Some(record) = verdict.write {
            check_record(before.as_ref(), &intent, &verdict.answer, &record, &self.moment)?;
            self.append(record);
        }
        Ok(())
    }

    fn append(&mut self, mut record: Record) {
        record.sequence = self.next_sequence;
        self.next_sequence += 1;
        if record.fence == 0 {
            record.fence = record.sequence;
            if matches!(record.state, State::InFlight { .. }) {
                self.fences.push(record.fence);
            }
        }
        let dropped = self
            .latest
            .as_ref()
            .is_some_and(|found| found.owner_dropped && found.record.fence == record.fence);
        let row = u32::try_from(record.sequence).unwrap_or(u32::MAX);
        let position = Position { generation: 1, row };
        self.latest = Some(Found { record, position, owner_dropped: dropped });
    }
}

fn check_answer(
    before: Option<&Found>,
    intent: &Intent,
    verdict: &Verdict,
    moment: &Moment,
) -> Result<(), TestCaseError> {
    let stands = before.map_or(Standing::Absent, |found| standing(found, moment));
    if stands == Standing::Absent {
        let told = match intent {
            Intent::Claim(_) | Intent::Record(_) => Answer::New,
            Intent::Owner { .. } => Answer::Gone,
            Intent::Forget { .. } => Answer::NothingThere,
        };
        prop_assert_eq!(&verdict.answer, &told, "what is over counts as absent");
    }
    match verdict.answer {
        Answer::InFlight { lease_until } => {
            prop_assert!(lease_until > moment.now, "in flight with a lease that is over");
        }
        Answer::New => prop_assert_eq!(stands, Standing::Absent),
        Answer::Resumed(cause) => prop_assert_eq!(
            stands,
            cause.map_or(Standing::Released, Standing::Lapsed),
            "resumed with an owner, or settled"
        ),
        _ => {}
    }
    let must_write = matches!(verdict.answer, Answer::New | Answer::Resumed(_));
    let may_write = must_write || matches!(verdict.answer, Answer::Done | Answer::Failed);
    let wrote = verdict.write.is_some();
    prop_assert!(wrote || !must_write, "{:?} without a record", verdict.answer);
    prop_assert!(may_write || !wrote, "{:?} with a record", verdict.answer);
    Ok(())
}

fn check_record(
    before: Option<&Found>,
    intent: &Intent,
    answer: &Answer,
    record: &Record,
    moment: &Moment,
) -> Result<(), TestCaseError> {
    let owned = matches!(record.state, State::InFlight { .. });
    let claims = matches!(intent, Intent::Claim(_) | Intent::Record(_));
    if record.fence == 0 {
        prop_assert!(claims || record.state == State::Forgotten, "a fence made by {:?}", intent);
    }
    prop_assert!(record.retained_until >= record.expires_at());
    prop_assert!(record.changed_at >= record.claimed_at);
    let Some(Found { record: old, position, .. }) = before else {
        prop_assert!(owned || matches!(intent, Intent::Record(_)));
        return Ok(());
    };
    prop_assert_eq!(record.prev, Some(*position));
    prop_assert!(record.retained_until >= old.retained_until, "kept for less time");
    prop_assert!(record.changed_at >= old.changed_at, "changed before it was");
    if *answer == Answer::New {
        prop_assert!(record.claimed_at > old.claimed_at, "a life begins with the one before");
        prop_assert_eq!(record.attempt, 1);
        return Ok(());
    }
    prop_assert_eq!(record.request_id(), old.request_id());
    let resumes = u32::from(matches!(answer, Answer::Resumed(_)));
    prop_assert_eq!(record.attempt, old.attempt.saturating_add(resumes));
    prop_assert_eq!(record.fence == 0, resumes == 1 || record.state == State::Forgotten);
    if matches!(old.state, State::Completed(_) | State::Failed(_)) {
        prop_assert_eq!(&record.state, &State::Forgotten, "a final reply was replaced");
        prop_assert!(old.expires_at() > moment.now);
    }
    Ok(())
}

fn steps() -> impl Strategy<Value = Step> {
    let later = prop_oneof![
        3 => Just(0),
        3 => 1..LEASE,
        2 => LEASE..WINDOW,
        1 => WINDOW..3 * WINDOW,
    ];
    (later, prop::bool::weighted(0.1), prop::bool::weighted(0.1), 0..3usize, intents()).prop_map(
        |(later, restart, drop_ticket, owner, intent)| Step {
            later,
            restart,
            drop_ticket,
            owner,
            intent,
        },
    )
}

fn intents() -> impl Strategy<Value = Intent> {
    prop_oneof![
        4 => any_terms().prop_map(Intent::Claim),
        1 => any_terms().prop_map(Intent::Record),
        4 => any_act().prop_map(|act| Intent::Owner { fence: 0, act }),
        1 => any::<bool>().prop_map(|force| Intent::Forget { force }),
    ]
}

prop_compose! {
    fn any_terms()(
        window in spans(),
        lease in spans(),
        from_first_claim: bool,
        report in prop::bool::weighted(0.2),
        max_attempts in prop::option::weighted(0.2, 1..4u32),
        fingerprint in prop::option::of(0..2u8),
    ) -> Terms {
        Terms {
            window,
            lease,
            window_from: if from_first_claim {
                WindowFrom::FirstClaim
            } else {
                WindowFrom::LastChange
            },
            on_lapsed: if report { OnLapsed::Report } else { OnLapsed::Resume },
            max_attempts,
            fingerprint: fingerprint.map(|byte| Fingerprint([byte; 16])),
            ..terms()
        }
    }
}

fn any_act() -> impl Strategy<Value = Act> {
    let payload = || {
        any::<u8>()
            .prop_map(|byte| Payload { content_tag: None, body: Bytes::copy_from_slice(&[byte]) })
    };
    prop_oneof![
        (payload(), prop::option::of(spans()))
            .prop_map(|(payload, window)| Act::Complete { payload, window }),
        (payload(), prop::option::of(spans()))
            .prop_map(|(payload, window)| Act::Fail { payload, window }),
        Just(Act::Release { reason: "busy".into() }),
        spans().prop_map(|lease| Act::Renew { lease }),
        Just(Act::MarkDispatched),
        Just(Act::Checkpoint(Bytes::from_static(b"job-19"))),
    ]
}

/// Windows and leases: those that are in use, and the shortest and longest there are.
fn spans() -> impl Strategy<Value = u64> {
    prop_oneof![Just(1), Just(LEASE), Just(WINDOW), 1..2 * WINDOW, Just(u64::MAX)]
}
