//! Stories: what a service lives through, as scripts for people who know no Rust.
//!
//! Each file of `tests/stories` is a script. A line says what someone does, a line with `>` what
//! they are told, and a line with `#` is for the reader. `UPDATE_STORIES=1` writes down what the
//! store says now.
//!
//! | line | meaning |
//! |---|---|
//! | `alice claims "k"` | a claim; `, with body "b"`, `, at most 3 attempts`, `, only to be told`, `, for a lease of 1 minute`, `, remembered for 1 hour` and `, remembered for 1 hour from the first claim` can follow |
//! | `bob claims "k" and waits up to 1 minute` | a claim that waits for whoever is at it; the answer comes with `bob hears` |
//! | `alice completes with "done"`, `alice fails with "no"`, `alice releases because "429"` | the owner ends it |
//! | `alice renews for 10 minutes`, `alice is about to send`, `alice notes "msg_1"` | the owner goes on |
//! | `alice dies` | her ticket is dropped |
//! | `the hook records "evt_1"` | claims and completes in one write |
//! | `someone looks up "k"`, `someone forgets "k"`, `someone forgets "k" by force` | |
//! | `someone lists what is unanswered` | |
//! | `10 minutes pass`, `the process restarts` | |

#![allow(clippy::allow_attributes, reason = "lints that fire in some helpers only")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use justonce::{
    Claim, EntryState, Error, ErrorKind, ManualClock, OnLapsed, Operation, Options, Pending, Prior,
    Reply, RequestId, Store, Ticket, Why, WindowFrom,
};

/// Each script is a test of its own.
macro_rules! stories {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        const STORIES: &[&str] = &[$(stringify!($name)),*];
    };
}

stories! {
    a_client_retries_in_a_storm
    a_final_error_is_final
    a_lapsed_operation_is_only_reported
    a_provider_is_busy_and_the_work_is_released
    a_restart_in_the_middle_of_work
    a_user_clicks_twice
    a_webhook_is_delivered_twice
    an_old_key_comes_with_another_body
    an_operation_is_forgotten
    an_owner_dies
    an_owner_hangs_and_is_taken_over
    an_owner_is_late_but_nobody_took_over
    an_owner_leaves_notes_for_the_next
    an_owner_renews_its_lease
    the_attempts_are_used_up
    the_window_is_over
}

#[test]
fn every_script_is_run() {
    let files = std::fs::read_dir(folder()).unwrap();
    for file in files {
        let file = file.unwrap().path();
        let name = file.file_stem().unwrap().to_str().unwrap();
        assert!(STORIES.contains(&name), "{} is not listed in {}", file.display(), file!());
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories")
}

fn check(name: &str) {
    let path = folder().join(format!("{name}.txt"));
    let script = std::fs::read_to_string(&path).unwrap();
    let told = Stage::new().tell(&script);
    if std::env::var_os("UPDATE_STORIES").is_some() {
        std::fs::write(&path, &told).unwrap();
        return;
    }
    assert!(
        told == script,
        "{name} goes otherwise now:\n\n{told}\nUPDATE_STORIES=1 writes it down"
    );
}

/// A store, a clock, and the people of a story.
struct Stage {
    directory: tempfile::TempDir,
    options: Options,
    clock: ManualClock,
    store: Store,
    tickets: HashMap<String, Ticket>,
    waiting: HashMap<String, Pending<Claim>>,
    /// Requests, by the order in which they came up.
    requests: Vec<RequestId>,
}

impl Stage {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = ManualClock::new();
        let options = Options::new().clock(&clock).keep_keys(true);
        let store = options.clone().open(directory.path().join("store")).unwrap();
        Stage {
            directory,
            options,
            clock,
            store,
            tickets: HashMap::new(),
            waiting: HashMap::new(),
            requests: Vec::new(),
        }
    }

    /// The script with what it leads to in place of what it said it would.
    fn tell(&mut self, script: &str) -> String {
        let mut told = String::new();
        for line in script.lines().filter(|line| !line.starts_with('>')) {
            writeln!(told, "{line}").unwrap();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            for answer in self.act(line) {
                writeln!(told, "> {answer}").unwrap();
            }
        }
        told
    }

    fn act(&mut self, line: &str) -> Vec<String> {
        if let Some(time) = line.strip_suffix(" pass").or(line.strip_suffix(" passes")) {
            self.clock.advance(duration(time));
            return Vec::new();
        }
        match line {
            "the process restarts" => {
                self.restart();
                return Vec::new();
            }
            "someone lists what is unanswered" => return self.unanswered(),
            _ => {}
        }
        let (who, deed) = verb(line);
        if deed == "dies" {
            drop(self.tickets.remove(who).unwrap());
            return Vec::new();
        }
        vec![self.deed(who, deed)]
    }

    fn deed(&mut self, who: &str, deed: &str) -> String {
        if let Some(claim) = deed.strip_prefix("claims ") {
            return self.claim(who, claim);
        }
        if let Some(key) = deed.strip_prefix("records ") {
            let is_first = self.store.record_once(operation(quoted(key))).wait().unwrap();
            return if is_first { "the first time" } else { "seen before" }.to_owned();
        }
        if let Some(key) = deed.strip_prefix("looks up ") {
            return self.look_up(quoted(key));
        }
        if let Some(key) = deed.strip_prefix("forgets ") {
            let forgotten = match key.strip_suffix(" by force") {
                Some(key) => self.store.forget_forced("acme", quoted(key)).wait(),
                None => self.store.forget("acme", quoted(key)).wait(),
            };
            return match forgotten {
                Ok(true) => "forgotten".to_owned(),
                Ok(false) => "nothing to forget".to_owned(),
                Err(error) => refusal(&error),
            };
        }
        if deed == "hears" {
            let claim = self.waiting.remove(who).unwrap().wait().unwrap();
            return self.answer(who, claim);
        }
        match self.own(who, deed) {
            Ok(()) => "stored".to_owned(),
            Err(error) => refusal(&error),
        }
    }

    /// What an owner does with its ticket.
    fn own(&mut self, who: &str, deed: &str) -> Result<(), Error> {
        let ticket = self.tickets.remove(who).unwrap_or_else(|| panic!("{who} has no ticket"));
        if let Some(reply) = deed.strip_prefix("completes with ") {
            return ticket.complete(quoted(reply)).wait();
        }
        if let Some(reply) = deed.strip_prefix("fails with ") {
            return ticket.fail(quoted(reply)).wait();
        }
        if let Some(reason) = deed.strip_prefix("releases because ") {
            return ticket.release(quoted(reason)).wait();
        }
        let kept = if let Some(lease) = deed.strip_prefix("renews for ") {
            ticket.renew(duration(lease)).wait()
        } else if let Some(note) = deed.strip_prefix("notes ") {
            ticket.checkpoint(quoted(note)).wait()
        } else if deed == "is about to send" {
            ticket.mark_dispatched().wait()
        } else {
            panic!("what is this: {who} {deed}")
        };
        self.tickets.insert(who.to_owned(), ticket);
        kept
    }

    fn claim(&mut self, who: &str, claim: &str) -> String {
        if let Some((key, timeout)) = claim.split_once(" and waits up to ") {
            let waiting = self.store.claim_or_wait(operation(quoted(key)), duration(timeout));
            self.waiting.insert(who.to_owned(), waiting);
            return "waiting".to_owned();
        }
        let mut said = claim.split(", ");
        let mut operation = operation(quoted(said.next().unwrap()));
        for more in said {
            operation = qualified(operation, more);
        }
        let answer = self.store.claim(operation).wait().unwrap();
        self.answer(who, answer)
    }

    fn answer(&mut self, who: &str, claim: Claim) -> String {
        let request = self.number(claim.request_id());
        match claim {
            Claim::New(ticket) => {
                let told = format!("new: {request}, attempt {}", ticket.attempt());
                self.tickets.insert(who.to_owned(), ticket);
                told
            }
            Claim::Resumed(ticket, prior) => {
                let attempt = ticket.attempt();
                self.tickets.insert(who.to_owned(), ticket);
                format!("resumed: {request}, attempt {attempt}, because {}", because(&prior))
            }
            Claim::InFlight(flight) => {
                let (attempt, left) = (flight.attempt(), flight.retry_after());
                format!("in flight: {request}, attempt {attempt}, come back within {}", time(left))
            }
            Claim::Completed(reply) => format!("completed: {request}, {}", text(&reply)),
            Claim::Failed(reply) => format!("failed: {request}, {}", text(&reply)),
            Claim::Mismatch(seen) => {
                format!("mismatch: the key is {request}'s, which is {}", state(seen.state()))
            }
            Claim::Lapsed(prior) => format!("lapsed: {request}, because {}", because(&prior)),
            other => panic!("an answer without words: {other:?}"),
        }
    }

    fn look_up(&mut self, key: &str) -> String {
        let Some(entry) = self.store.lookup("acme", key).wait().unwrap() else {
            return "nothing is known of it".to_owned();
        };
        let request = self.number(entry.request_id());
        format!("{}: {request}, attempt {}", state(entry.state()), entry.attempt())
    }

    fn unanswered(&mut self) -> Vec<String> {
        let mut entries = self.store.in_flight().wait().unwrap();
        if entries.is_empty() {
            return vec!["nothing".to_owned()];
        }
        entries.sort_by(|one, other| one.key().cmp(&other.key()));
        let mut lines = Vec::new();
        for entry in entries {
            let key = String::from_utf8(entry.key().unwrap().to_vec()).unwrap();
            let request = self.number(entry.request_id());
            let because = entry
                .prior()
                .map(|prior| format!(", because {}", because(&prior)))
                .unwrap_or_default();
            lines.push(format!("{key:?} is {}: {request}{because}", state(entry.state())));
        }
        lines
    }

    fn restart(&mut self) {
        self.store.close().wait().unwrap();
        self.tickets.clear();
        self.waiting.clear();
        self.store = self.options.clone().open(self.directory.path().join("store")).unwrap();
    }

    fn number(&mut self, request: RequestId) -> String {
        let known = self.requests.iter().position(|known| *known == request);
        let number = known.unwrap_or_else(|| {
            self.requests.push(request);
            self.requests.len() - 1
        });
        format!("request #{}", number + 1)
    }
}

fn operation(key: &str) -> Operation {
    Operation::new("acme", key)
}

fn qualified(operation: Operation, said: &str) -> Operation {
    if let Some(body) = said.strip_prefix("with body ") {
        operation.fingerprint(quoted(body))
    } else if let Some(most) = said.strip_prefix("at most ") {
        operation.max_attempts(most.split_once(' ').unwrap().0.parse().unwrap())
    } else if let Some(lease) = said.strip_prefix("for a lease of ") {
        operation.lease(duration(lease))
    } else if let Some(window) = said.strip_prefix("remembered for ") {
        match window.strip_suffix(" from the first claim") {
            Some(window) => operation.window(duration(window)).window_from(WindowFrom::FirstClaim),
            None => operation.window(duration(window)),
        }
    } else if said == "only to be told" {
        operation.on_lapsed(OnLapsed::Report)
    } else {
        panic!("what is this: {said}")
    }
}

/// Who does it, and what: names are one word, or one with an article.
fn verb(line: &str) -> (&str, &str) {
    let words = usize::from(line.starts_with("the ")) + 1;
    let (at, _) = line.match_indices(' ').nth(words - 1).unwrap();
    (&line[..at], &line[at + 1..])
}

fn quoted(text: &str) -> &str {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    inner.unwrap_or_else(|| panic!("not in quotes: {text}"))
}

const UNITS: [(&str, u64); 4] =
    [("hour", 3_600_000), ("minute", 60_000), ("second", 1_000), ("millisecond", 1)];

fn duration(text: &str) -> Duration {
    let (count, unit) = text.split_once(' ').unwrap_or_else(|| panic!("no time: {text}"));
    let unit = unit.strip_suffix('s').unwrap_or(unit);
    let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit).unwrap();
    Duration::from_millis(count.parse::<u64>().unwrap() * millis)
}

fn time(duration: Duration) -> String {
    let all = u64::try_from(duration.as_millis()).unwrap();
    let (unit, millis) = UNITS.iter().find(|(_, millis)| all.is_multiple_of(*millis)).unwrap();
    let count = all / millis;
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

fn state(state: EntryState) -> &'static str {
    match state {
        EntryState::InFlight => "in flight",
        EntryState::Lapsed => "lapsed",
        EntryState::Released => "released",
        EntryState::Completed => "completed",
        EntryState::Failed => "failed",
        other => panic!("a state without words: {other:?}"),
    }
}

fn because(prior: &Prior) -> String {
    let mut because = match prior.why() {
        Why::Lease => "the lease ran out".to_owned(),
        Why::Dropped => "the owner died".to_owned(),
        Why::Restart => "the process restarted".to_owned(),
        Why::Released => format!("it was released: {:?}", prior.reason().unwrap_or_default()),
        other => panic!("a reason without words: {other:?}"),
    };
    if prior.dispatched() {
        because.push_str("; it may have been sent");
    }
    if let Some(note) = prior.checkpoint() {
        write!(because, "; noted: {:?}", String::from_utf8_lossy(note)).unwrap();
    }
    because
}

fn text(reply: &Reply) -> String {
    match reply.attempts_exhausted() {
        Some(attempts) => format!("its {attempts} attempts are used up"),
        None => format!("{:?}", String::from_utf8_lossy(reply.body())),
    }
}

fn refusal(error: &Error) -> String {
    match error.kind() {
        ErrorKind::LeaseLost => "lease lost",
        ErrorKind::Gone => "the record is gone",
        ErrorKind::InFlight => "refused: in flight",
        other => panic!("a refusal without words: {other:?}"),
    }
    .to_owned()
}
