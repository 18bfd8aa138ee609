//! Any history, beside a store that seals only what time has closed.

use std::collections::BTreeMap;
use std::time::Duration;

use justonce::{Claim, EntryState, Filter, ManualClock, Pending, Reply, RequestId, Ticket};
use proptest::prelude::*;

use crate::common::*;
use crate::{MILLI, MONTH, Restart, SHORT, interrupted, requests, restart, sealing};

const HISTORY_KEYS: usize = 3;
const WINDOWS: [Duration; 4] = [MINUTE, SHORT, DAY, MONTH];

#[derive(Debug, Clone)]
enum Step {
    Claim {
        key: usize,
        window: usize,
    },
    Complete {
        key: usize,
        retention: Option<usize>,
    },
    Fail {
        key: usize,
        retention: Option<usize>,
    },
    Release(usize),
    Note(usize),
    DropTicket(usize),
    RecordOnce {
        key: usize,
        window: usize,
    },
    Forget {
        key: usize,
        is_forced: bool,
    },
    Advance(usize),
    /// The lanes of these windows.
    Seal(Vec<usize>),
    Restart {
        is_clean: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (key, window) = (|| 0..HISTORY_KEYS, || 0..WINDOWS.len());
    let retention = || proptest::option::of(0..WINDOWS.len());
    prop_oneof![
        6 => (key(), window()).prop_map(|(key, window)| Step::Claim { key, window }),
        4 => (key(), retention()).prop_map(|(key, retention)| Step::Complete { key, retention }),
        2 => (key(), retention()).prop_map(|(key, retention)| Step::Fail { key, retention }),
        2 => key().prop_map(Step::Release),
        1 => key().prop_map(Step::Note),
        2 => key().prop_map(Step::DropTicket),
        2 => (key(), window()).prop_map(|(key, window)| Step::RecordOnce { key, window }),
        2 => (key(), any::<bool>()).prop_map(|(key, is_forced)| Step::Forget { key, is_forced }),
        2 => (0..5usize).prop_map(Step::Advance),
        6 => proptest::sample::subsequence(vec![0, 1, 2, 3], 1..=2).prop_map(Step::Seal),
        3 => any::<bool>().prop_map(|is_clean| Step::Restart { is_clean }),
    ]
}

/// One of the two stores, and the tickets it gave.
struct Side {
    world: World,
    tickets: [Option<Ticket>; HISTORY_KEYS],
}

/// What was answered, and the ids of the requests that showed.
type Answers = (Vec<String>, Vec<RequestId>);

impl Side {
    fn step(&mut self, step: &Step) -> Answers {
        let name = |key: usize| format!("key {key}");
        let kind = |call: Pending<()>| vec![format!("{:?}", call.wait().map_err(|of| of.kind()))];
        let kept = |body: &str, retention: Option<usize>| match retention {
            Some(window) => Reply::new(body).retention(WINDOWS[window]),
            None => Reply::new(body),
        };
        let store = self.world.store.clone();
        let mut ticket = |key: usize| self.tickets[key].take();
        let said = match *step {
            Step::Claim { key, window } => {
                let claim = store.claim(op(&name(key)).window(WINDOWS[window])).wait().unwrap();
                let request = claim.request_id();
                let said = match claim {
                    Claim::New(ticket) => {
                        self.tickets[key] = Some(ticket);
                        "new".to_owned()
                    }
                    Claim::Resumed(ticket, prior) => {
                        let said = format!(
                            "resumed: {}, {:?}, {:?}, {:?}",
                            ticket.attempt(),
                            prior.why(),
                            prior.reason(),
                            prior.checkpoint()
                        );
                        self.tickets[key] = Some(ticket);
                        said
                    }
                    Claim::Completed(reply) => format!("completed: {:?}", reply.body()),
                    Claim::Failed(reply) => format!("failed: {:?}", reply.body()),
                    Claim::InFlight(flight) => format!("in flight: {:?}", flight.retry_after()),
                    other => panic!("{other:?}"),
                };
                return (vec![said], vec![request]);
            }
            Step::Complete { key, retention } => ticket(key)
                .map(|ticket| kind(ticket.complete(kept("done", retention))))
                .unwrap_or_default(),
            Step::Fail { key, retention } => ticket(key)
                .map(|ticket| kind(ticket.fail(kept("broken", retention))))
                .unwrap_or_default(),
            Step::Release(key) => {
                ticket(key).map(|ticket| kind(ticket.release("busy"))).unwrap_or_default()
            }
            Step::Note(key) => self.tickets[key]
                .as_ref()
                .map(|ticket| kind(ticket.checkpoint("a note")))
                .unwrap_or_default(),
            Step::DropTicket(key) => {
                drop(ticket(key));
                Vec::new()
            }
            Step::RecordOnce { key, window } => {
                let operation = op(&name(key)).window(WINDOWS[window]);
                vec![format!("{:?}", store.record_once(operation).wait().unwrap())]
            }
            Step::Forget { key, is_forced } => {
                let call = if is_forced {
                    store.forget_forced("acme", name(key))
                } else {
                    store.forget("acme", name(key))
                };
                vec![format!("{:?}", call.wait().map_err(|error| error.kind()))]
            }
            // The clock is one for both; and one of them seals by itself.
            Step::Advance(_) | Step::Seal(_) => Vec::new(),
            Step::Restart { is_clean } => {
                drop(store);
                restart(&mut self.world, if is_clean { Restart::Clean } else { Restart::CutOff });
                self.tickets = Default::default();
                Vec::new()
            }
        };
        (said, Vec::new())
    }

    /// What all the looks show that write nothing.
    fn look(&self) -> Answers {
        let (mut said, mut shown) = (Vec::new(), Vec::new());
        for key in 0..HISTORY_KEYS {
            let Some(entry) = self.world.lookup(&format!("key {key}")) else {
                said.push("absent".to_owned());
                continue;
            };
            let request = entry.request_id();
            shown.push(request);
            let by_request = self.world.store.lookup_request(request).wait().unwrap();
            let body = entry.reply().map(|reply| reply.body().to_vec());
            said.push(format!(
                "{:?}, {}, {body:?}, {:?}, {:?}",
                entry.state(),
                entry.attempt(),
                entry.expires_at(),
                by_request.map(|entry| entry.state())
            ));
            let is_open = !matches!(entry.state(), EntryState::Completed | EntryState::Failed);
            assert_eq!(interrupted(&self.world).contains(&request), is_open);
        }
        let mut all = requests(&self.world, Filter::new());
        said.push(format!("{} of them", all.len()));
        all.sort();
        shown.sort();
        assert_eq!(all, shown, "a scan shows what look-ups show, each once");
        (said, shown)
    }
}

/// The two stores name requests each in its own way, but the same ones alike.
#[derive(Default)]
struct Names(BTreeMap<RequestId, RequestId>, BTreeMap<RequestId, RequestId>);

impl Names {
    fn are_alike(&mut self, one: RequestId, other: RequestId) -> bool {
        *self.0.entry(one).or_insert(other) == other && *self.1.entry(other).or_insert(one) == one
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 32,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_history_is_answered_as_if_nothing_was_sealed(
        steps in prop::collection::vec(step(), 20..60),
    ) {
        let clock = ManualClock::new();
        let plain = World::on_faulty_disk(|options| options.clock(&clock));
        let sealed = sealing(|options| options.clock(&clock).tag_bits(1));
        let [mut plain, mut sealed] =
            [plain, sealed].map(|world| Side { world, tickets: Default::default() });
        let mut names = Names::default();
        for step in &steps {
            // An operation claimed anew in the millisecond it was forgotten in is a case apart.
            clock.advance(MILLI);
            match step {
                Step::Advance(by) => {
                    clock.advance([MINUTE, 10 * MINUTE, SHORT, DAY, 8 * DAY][*by]);
                }
                Step::Seal(lanes) => {
                    let world = &sealed.world;
                    let filler = |lane: &usize| world.filler().window(WINDOWS[*lane]);
                    world.seal_most(lanes.iter().map(filler));
                }
                _ => {}
            }
            let (expected, answered) = (plain.step(step), sealed.step(step));
            prop_assert_eq!(&answered.0, &expected.0, "{:?}", step);
            for (one, other) in expected.1.into_iter().zip(answered.1) {
                prop_assert!(names.are_alike(one, other), "another request: {:?}", step);
            }
            let (expected, shown) = (plain.look(), sealed.look());
            prop_assert_eq!(&shown.0, &expected.0, "after {:?}", step);
        }
    }
}
