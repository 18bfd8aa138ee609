//! Concurrent duplicates: threads and tasks submit the same operations at the same time, and each
//! is done by one owner at a time and answered with one reply.
//!
//! `JUSTONCE_SOAK=50` runs fifty times as many cases.

#![allow(clippy::allow_attributes, reason = "lints that fire in some helpers only")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, LazyLock};
use std::time::Duration;

use futures_lite::future::{block_on, yield_now};
use justonce::{
    Claim, Durability, EntryState, Error, Operation, Options, Pending, Prior, Reply, RequestId,
    Store, Ticket, Why,
};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use tokio::runtime::Runtime;

const HOUR: Duration = Duration::from_hours(1);

static TOKIO: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(3).build().unwrap()
});

/// What an owner does with its ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    RenewAndComplete,
    NoteAndComplete,
    Fail,
    Release,
    Drop,
}

#[derive(Debug, Clone)]
struct Plan {
    threads: usize,
    tasks: usize,
    keys: usize,
    rounds: usize,
    durability: Durability,
    on_disk: bool,
    tiny: bool,
    /// By key and attempt, over and over.
    ends: Vec<End>,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Thread,
    Task,
}

impl Way {
    async fn claim(self, claim: Pending<Claim>) -> Result<Claim, Error> {
        match self {
            Way::Thread => claim.wait(),
            Way::Task => claim.await,
        }
    }

    async fn act(self, act: Pending<()>) -> Result<(), Error> {
        match self {
            Way::Thread => act.wait(),
            Way::Task => act.await,
        }
    }
}

/// What one submission came to.
#[derive(Debug)]
enum Came {
    Worked {
        fence: u64,
        attempt: u32,
        prior: Option<(u32, Why)>,
        end: End,
    },
    SawInFlight {
        attempt: u32,
    },
    SawReply {
        failed: bool,
        attempt: u32,
        body: Vec<u8>,
    },
    /// The reply a submitter that insisted ended with.
    EndedWith(Vec<u8>),
}

#[derive(Debug)]
struct Seen {
    key: usize,
    request: RequestId,
    came: Came,
}

/// What all submitters of a case share.
#[derive(Debug)]
struct Shared {
    store: Store,
    plan: Plan,
    someone_works: Vec<AtomicBool>,
    worked: Vec<AtomicUsize>,
    two_at_once: AtomicBool,
}

fn operation(key: usize) -> Operation {
    Operation::new("acme", format!("key-{key}")).fingerprint(key.to_le_bytes())
}

fn body_of(key: usize, attempt: u32, fence: u64) -> Vec<u8> {
    format!("reply of attempt {attempt} at key {key}, fence {fence}").into_bytes()
}

impl Shared {
    fn new(plan: &Plan) -> (Arc<Self>, Option<tempfile::TempDir>) {
        let options = Options::new().durability(plan.durability);
        let options = if plan.tiny { options.index_entries(8).tag_bits(1) } else { options };
        let (store, directory) = if plan.on_disk {
            let directory = tempfile::tempdir().unwrap();
            (options.open(directory.path().join("store")).unwrap(), Some(directory))
        } else {
            (options.in_memory().unwrap(), None)
        };
        let shared = Shared {
            store,
            plan: plan.clone(),
            someone_works: (0..plan.keys).map(|_| AtomicBool::new(false)).collect(),
            worked: (0..plan.keys).map(|_| AtomicUsize::new(0)).collect(),
            two_at_once: AtomicBool::new(false),
        };
        (Arc::new(shared), directory)
    }

    fn end(&self, key: usize, attempt: u32) -> End {
        let attempt = usize::try_from(attempt).unwrap();
        self.plan.ends[(key + attempt - 1) % self.plan.ends.len()]
    }

    /// Does the work of a ticket; `None` where that is to give it up.
    async fn work(
        &self,
        way: Way,
        key: usize,
        ticket: Ticket,
        prior: Option<Prior>,
    ) -> (Came, Option<Vec<u8>>) {
        if self.someone_works[key].swap(true, Ordering::SeqCst) {
            self.two_at_once.store(true, Ordering::SeqCst);
        }
        self.worked[key].fetch_add(1, Ordering::SeqCst);
        for _ in 0..3 {
            match way {
                Way::Thread => std::thread::yield_now(),
                Way::Task => yield_now().await,
            }
        }
        let (fence, attempt) = (ticket.fence(), ticket.attempt());
        let end = self.end(key, attempt);
        let body = body_of(key, attempt, fence);
        match end {
            End::RenewAndComplete => way.act(ticket.renew(HOUR)).await.unwrap(),
            End::NoteAndComplete => way.act(ticket.checkpoint("half-way")).await.unwrap(),
            _ => {}
        }
        self.someone_works[key].store(false, Ordering::SeqCst);
        let reply = match end {
            End::Complete | End::RenewAndComplete | End::NoteAndComplete => {
                way.act(ticket.complete(body.clone())).await.unwrap();
                Some(body)
            }
            End::Fail => {
                way.act(ticket.fail(body.clone())).await.unwrap();
                Some(body)
            }
            End::Release => {
                way.act(ticket.release("try again")).await.unwrap();
                None
            }
            End::Drop => {
                drop(ticket);
                None
            }
        };
        let prior = prior.map(|prior| (prior.attempt(), prior.why()));
        (Came::Worked { fence, attempt, prior, end }, reply)
    }

    async fn claimed(&self, way: Way, key: usize, claim: Claim) -> (Seen, Option<Vec<u8>>) {
        let request = claim.request_id();
        let saw = |reply: Reply, failed| {
            let attempt = reply.attempt().unwrap();
            let body = reply.into_body();
            (Came::SawReply { failed, attempt, body: body.clone() }, Some(body))
        };
        let (came, reply) = match claim {
            Claim::New(ticket) => self.work(way, key, ticket, None).await,
            Claim::Resumed(ticket, prior) => self.work(way, key, ticket, Some(prior)).await,
            Claim::InFlight(flight) => (Came::SawInFlight { attempt: flight.attempt() }, None),
            Claim::Completed(reply) => saw(reply, false),
            Claim::Failed(reply) => saw(reply, true),
            other => panic!("no answer to a duplicate: {other:?}"),
        };
        (Seen { key, request, came }, reply)
    }

    /// One submitter: each round it claims every key once, beginning with another.
    async fn submit(self: Arc<Self>, way: Way, number: usize) -> Vec<Seen> {
        let mut all = Vec::new();
        for round in 0..self.plan.rounds {
            for nth in 0..self.plan.keys {
                let key = (number + round + nth) % self.plan.keys;
                let claim = way.claim(self.store.claim(operation(key))).await.unwrap();
                all.push(self.claimed(way, key, claim).await.0);
            }
        }
        all
    }

    /// One submitter that goes on with every key until it has its reply.
    async fn insist(self: Arc<Self>, way: Way, number: usize) -> Vec<Seen> {
        let mut all = Vec::new();
        for nth in 0..self.plan.keys {
            let key = (number + nth) % self.plan.keys;
            loop {
                let claim = way.claim(self.store.claim_or_wait(operation(key), HOUR)).await;
                let (seen, reply) = self.claimed(way, key, claim.unwrap()).await;
                let request = seen.request;
                all.push(seen);
                if let Some(body) = reply {
                    all.push(Seen { key, request, came: Came::EndedWith(body) });
                    break;
                }
            }
        }
        all
    }
}

/// Starts all submitters at once; what they saw, together.
fn run<F>(shared: &Arc<Shared>, submit: impl Fn(Arc<Shared>, Way, usize) -> F) -> Vec<Seen>
where
    F: Future<Output = Vec<Seen>> + Send + 'static,
{
    let Plan { threads, tasks, .. } = shared.plan;
    let start_line = Arc::new(Barrier::new(threads + 1));
    let in_threads: Vec<_> = (0..threads)
        .map(|number| {
            let submitted = submit(Arc::clone(shared), Way::Thread, number);
            let start_line = Arc::clone(&start_line);
            let body = move || {
                start_line.wait();
                block_on(submitted)
            };
            std::thread::Builder::new().spawn(body).unwrap()
        })
        .collect();
    start_line.wait();
    let in_tasks: Vec<_> = (threads..threads + tasks)
        .map(|number| TOKIO.spawn(submit(Arc::clone(shared), Way::Task, number)))
        .collect();
    let mut seen = Vec::new();
    for thread in in_threads {
        seen.extend(thread.join().unwrap());
    }
    for task in in_tasks {
        seen.extend(block_on(task).unwrap());
    }
    seen
}

/// The rules, over all that was seen of one key.
fn check_key(shared: &Shared, key: usize, seen: &[&Seen]) -> Result<(), TestCaseError> {
    let Some(first) = seen.first() else { return Ok(()) };
    let request = first.request;
    for one in seen {
        prop_assert_eq!(one.request, request, "key {} has two request ids", key);
    }
    let mut owners = BTreeMap::new();
    for one in seen {
        if let Came::Worked { fence, attempt, prior, end } = one.came {
            let other = owners.insert(attempt, (fence, prior, end));
            prop_assert!(other.is_none(), "key {key} has two owners of attempt {attempt}");
        }
    }
    prop_assert_eq!(owners.len(), shared.worked[key].load(Ordering::SeqCst));
    let mut before: Option<(u32, u64, End)> = None;
    for (&attempt, &(fence, prior, end)) in &owners {
        match before {
            None => prop_assert!(attempt == 1 && prior.is_none(), "key {key} was never new"),
            Some((last, last_fence, last_end)) => {
                let why = if last_end == End::Drop { Why::Dropped } else { Why::Released };
                prop_assert!(
                    matches!(last_end, End::Drop | End::Release),
                    "key {key} was resumed after its reply"
                );
                prop_assert!(fence > last_fence, "key {key} has a fence that went back");
                prop_assert_eq!(attempt, last + 1);
                prop_assert_eq!(prior, Some((last, why)));
            }
        }
        before = Some((attempt, fence, end));
    }
    let (attempt, fence, end) = before.unwrap();
    let body = body_of(key, attempt, fence);
    for one in seen {
        match &one.came {
            Came::SawReply { failed, attempt: of, body: saw } => {
                prop_assert_eq!(saw, &body, "key {} has another reply", key);
                prop_assert_eq!((*of, *failed), (attempt, end == End::Fail));
            }
            Came::EndedWith(ended) => {
                prop_assert_eq!(ended, &body, "key {} has another reply", key);
            }
            Came::SawInFlight { attempt } => prop_assert!(owners.contains_key(attempt)),
            Came::Worked { .. } => {}
        }
    }
    let entry = shared.store.lookup("acme", format!("key-{key}")).wait().unwrap().unwrap();
    let state = match end {
        End::Fail => EntryState::Failed,
        End::Release => EntryState::Released,
        End::Drop => EntryState::Lapsed,
        _ => EntryState::Completed,
    };
    prop_assert_eq!(entry.state(), state);
    prop_assert_eq!(entry.request_id(), request);
    if let Some(reply) = entry.reply() {
        prop_assert_eq!(reply.body(), &body[..]);
    }
    Ok(())
}

fn check(shared: &Shared, seen: &[Seen]) -> Result<(), TestCaseError> {
    prop_assert!(!shared.two_at_once.load(Ordering::SeqCst), "two owners worked at once");
    for key in 0..shared.plan.keys {
        let of_key: Vec<_> = seen.iter().filter(|seen| seen.key == key).collect();
        check_key(shared, key, &of_key)?;
    }
    prop_assert_eq!(shared.store.stats().waiters, 0);
    Ok(())
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![
        2 => Just(Durability::Synced),
        1 => Just(Durability::Strict),
        1 => Just(Durability::Relaxed { within: Duration::from_millis(2) }),
    ]
}

fn plan(ends: impl Strategy<Value = Vec<End>>) -> impl Strategy<Value = Plan> {
    let shape = (1..6usize, 0..12usize, 1..5usize, 1..5usize);
    (shape, durability(), any::<bool>(), any::<bool>(), ends).prop_map(
        |((threads, tasks, keys, rounds), durability, on_disk, tiny, ends)| Plan {
            threads,
            tasks,
            keys,
            rounds,
            durability,
            on_disk,
            tiny,
            ends,
        },
    )
}

fn success() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Complete), Just(End::RenewAndComplete), Just(End::NoteAndComplete)]
}

fn any_end() -> impl Strategy<Value = End> {
    prop_oneof![success(), Just(End::Fail), Just(End::Release), Just(End::Drop)]
}

fn cases(cases: u32) -> ProptestConfig {
    let soak: u32 = std::env::var("JUSTONCE_SOAK").map_or(1, |times| times.parse().unwrap());
    ProptestConfig { cases: cases * soak, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn each_attempt_has_one_owner_and_each_operation_one_reply(
        plan in plan(proptest::collection::vec(any_end(), 1..6)),
    ) {
        let (shared, _directory) = Shared::new(&plan);
        let seen = run(&shared, Shared::submit);
        check(&shared, &seen)?;
    }

    #[test]
    fn each_operation_is_done_once_by_owners_that_never_fail(
        plan in plan(proptest::collection::vec(success(), 1..4)),
    ) {
        let (shared, _directory) = Shared::new(&plan);
        let seen = run(&shared, Shared::insist);
        check(&shared, &seen)?;
        for (key, worked) in shared.worked.iter().enumerate() {
            prop_assert_eq!(worked.load(Ordering::SeqCst), 1, "work done for key {}", key);
        }
    }

    #[test]
    fn all_who_wait_end_with_one_reply_though_owners_come_and_go(
        mut ends in proptest::collection::vec(
            prop_oneof![Just(End::Release), Just(End::Drop)],
            0..6,
        ),
        plan in plan(success().prop_map(|end| vec![end])),
    ) {
        ends.extend(&plan.ends);
        let plan = Plan { ends, ..plan };
        let (shared, _directory) = Shared::new(&plan);
        let seen = run(&shared, Shared::insist);
        check(&shared, &seen)?;
        let replies = seen.iter().filter(|seen| matches!(seen.came, Came::EndedWith(_)));
        prop_assert_eq!(replies.count(), (plan.threads + plan.tasks) * plan.keys);
    }
}
