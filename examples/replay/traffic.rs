//! The traffic: who asks for what and when, and what becomes of each attempt.
//!
//! Made from the trace and a seed alone, so that the process that keeps the books and the one that
//! has the store open know the same plan without telling each other. Times are those of the trace.
//!
//! Each request of the trace is one operation. Its client asks once; then come the duplicates:
//!
//! | source | of | when |
//! |---|---|---|
//! | double click | 8 % of chats | 80-600 ms later |
//! | time-out retry | chats that take over 10 s, or whose owner hangs; 2 % of the others | after 10 s, 30 s |
//! | webhook redelivery | 30 % of webhooks | up to four times: 5 s, 30 s, 2 min, 10 min |
//! | queue redelivery | 20 % of queue messages | after 30 s out of sight |
//! | queue replay | all messages of the last 3 minutes | at a third and two thirds of the trace |
//! | cron twice | all cron runs | a second scheduler, in the same moment |
//! | cron replay | 15 % of cron runs | a minute later, for good measure |
//! | wrong body | 1 % of all | another request under the old key |

use std::time::Duration;

use crate::random::Random;
use crate::trace::Row;

pub(crate) const THREADS: usize = 8;
pub(crate) const TASKS: usize = 1_024;
const PROJECTS: f64 = 36.0;
/// Share of the submissions that blocking clients make, in threads.
const IN_THREADS: f64 = 0.1;
/// How long a client waits for its answer before it asks again.
const PATIENCE: Duration = Duration::from_secs(10);
/// From this attempt on, nothing goes wrong.
const SAFE_ATTEMPT: u32 = 5;

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) rows: Vec<Row>,
    /// In the order of their times.
    pub(crate) submissions: Vec<Submission>,
    seed: u64,
}

/// One arrival at the gateway.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Submission {
    pub(crate) operation: usize,
    pub(crate) at: Duration,
    pub(crate) source: Source,
    pub(crate) lane: Lane,
    pub(crate) manner: Manner,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    First,
    DoubleClick,
    TimeoutRetry,
    WebhookRedelivery,
    QueueRedelivery,
    QueueReplay,
    CronTwice,
    CronReplay,
    WrongBody,
}

/// Which thread or task makes a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Thread(usize),
    Task(usize),
}

/// What a client does when someone is at its operation already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Waits inside the claim.
    ClaimOrWait,
    /// Waits for the flight, then claims again.
    AwaitFlight,
    /// Is answered 409, and comes back when the answer says.
    ComeBack,
}

/// What an attempt comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Completes,
    /// The owner's code ends early, before the model is called.
    DiesBeforeCall,
    /// It ends early once the model was called, and the answer is lost.
    DiesAfterCall,
    /// It comes back when its lease is long over.
    Hangs,
    /// The provider says 503: to be tried again.
    ProviderError,
    /// The provider refuses the prompt: an error for good.
    FinalError,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Chat,
    Webhook,
    Queue,
    Cron,
}

impl Source {
    pub(crate) const ALL: [(Source, &str); 9] = [
        (Source::First, "first"),
        (Source::DoubleClick, "double click"),
        (Source::TimeoutRetry, "time-out retry"),
        (Source::WebhookRedelivery, "webhook redelivery"),
        (Source::QueueRedelivery, "queue redelivery"),
        (Source::QueueReplay, "queue replay"),
        (Source::CronTwice, "cron twice"),
        (Source::CronReplay, "cron replay"),
        (Source::WrongBody, "wrong body"),
    ];
}

impl Plan {
    pub(crate) fn new(rows: Vec<Row>, seed: u64) -> Self {
        let mut plan = Plan { rows, submissions: Vec::new(), seed };
        let end = plan.rows.last().map_or(Duration::ZERO, |row| row.at);
        let replays = [end / 3, end * 2 / 3];
        let mut arrivals = Vec::new();
        for (operation, row) in plan.rows.iter().enumerate() {
            let mut arrive = |source, later| arrivals.push((row.at + later, operation, source));
            arrive(Source::First, Duration::ZERO);
            plan.duplicates(operation, row, replays, &mut arrive);
        }
        arrivals.sort_unstable();
        let mut random = Random::of(seed, "lanes", 0);
        plan.submissions = (0..)
            .zip(arrivals)
            .map(|(number, (at, operation, source))| {
                let in_thread = random.chance(IN_THREADS);
                let manner = match random.unit() {
                    unit if unit < 0.4 => Manner::ClaimOrWait,
                    unit if unit < 0.7 || in_thread => Manner::AwaitFlight,
                    _ => Manner::ComeBack,
                };
                let lane = if in_thread {
                    Lane::Thread(number % THREADS)
                } else {
                    Lane::Task(number % TASKS)
                };
                Submission { operation, at, source, lane, manner }
            })
            .collect();
        plan
    }

    fn duplicates(
        &self,
        operation: usize,
        row: &Row,
        replays: [Duration; 2],
        arrive: &mut impl FnMut(Source, Duration),
    ) {
        let mut random = Random::of(self.seed, "duplicates", operation as u64);
        let mut within = |low: f64, high: f64| Duration::from_secs_f64(random.between(low, high));
        let (click, wrong) = (within(0.08, 0.6), within(20.0, 300.0));
        match self.origin(operation) {
            Origin::Chat => {
                if random.chance(0.08) {
                    arrive(Source::DoubleClick, click);
                }
                let is_slow = crate::model::duration(row) > PATIENCE;
                let hangs = self.fate(operation, 1) == Fate::Hangs;
                if is_slow || hangs || random.chance(0.02) {
                    arrive(Source::TimeoutRetry, PATIENCE);
                    if random.chance(0.3) {
                        arrive(Source::TimeoutRetry, PATIENCE * 3);
                    }
                }
            }
            Origin::Webhook if random.chance(0.3) => {
                for after in [5, 30, 120, 600] {
                    arrive(Source::WebhookRedelivery, Duration::from_secs(after));
                    if random.chance(0.4) {
                        break;
                    }
                }
            }
            Origin::Webhook => {}
            Origin::Queue => {
                if random.chance(0.2) {
                    arrive(Source::QueueRedelivery, Duration::from_secs(30));
                }
                for replay in replays {
                    let age = replay.saturating_sub(row.at);
                    if !age.is_zero() && age < Duration::from_mins(3) {
                        arrive(Source::QueueReplay, age);
                    }
                }
            }
            Origin::Cron => {
                arrive(Source::CronTwice, Duration::ZERO);
                if random.chance(0.15) {
                    arrive(Source::CronReplay, Duration::from_mins(1));
                }
            }
        }
        if random.chance(0.01) {
            arrive(Source::WrongBody, wrong);
        }
    }

    fn origin(&self, operation: usize) -> Origin {
        match Random::of(self.seed, "origin", operation as u64).unit() {
            unit if unit < 0.68 => Origin::Chat,
            unit if unit < 0.82 => Origin::Webhook,
            unit if unit < 0.94 => Origin::Queue,
            _ => Origin::Cron,
        }
    }

    /// What becomes of an attempt.
    pub(crate) fn fate(&self, operation: usize, attempt: u32) -> Fate {
        if attempt >= SAFE_ATTEMPT {
            return Fate::Completes;
        }
        let which = (operation as u64) << 8 | u64::from(attempt);
        match Random::of(self.seed, "fate", which).unit() {
            unit if unit < 0.010 => Fate::DiesBeforeCall,
            unit if unit < 0.020 => Fate::DiesAfterCall,
            unit if unit < 0.025 => Fate::Hangs,
            unit if unit < 0.045 => Fate::ProviderError,
            unit if unit < 0.055 => Fate::FinalError,
            _ => Fate::Completes,
        }
    }

    /// The tenant: a few large ones, many small ones.
    pub(crate) fn project(&self, operation: usize) -> String {
        let unit = Random::of(self.seed, "project", operation as u64).unit();
        format!("tenant-{:02.0}", (unit * unit * PROJECTS).floor())
    }

    /// The key that the client chose; it ends in the number of the operation.
    pub(crate) fn key(&self, operation: usize) -> String {
        let kind = match self.origin(operation) {
            Origin::Chat => "chat",
            Origin::Webhook => "evt",
            Origin::Queue => "msg",
            Origin::Cron => "cron",
        };
        format!("{kind}-{operation}")
    }

    /// The operation that a key is of.
    pub(crate) fn operation_of(&self, key: &[u8]) -> Option<usize> {
        let number = std::str::from_utf8(key).ok()?.rsplit_once('-')?.1.parse().ok()?;
        (number < self.rows.len()).then_some(number)
    }

    /// The body of the request, or another one under the same key.
    pub(crate) fn body(&self, operation: usize, is_wrong: bool) -> String {
        let tokens = self.rows.get(operation).map_or(0, |row| row.context_tokens);
        let wrong = if is_wrong { ",\"temperature\":2" } else { "" };
        format!("{{\"prompt\":\"{operation}\",\"tokens\":{tokens}{wrong}}}")
    }
}
