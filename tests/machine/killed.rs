//! `kill -9`, at work and while a store or a generation is made: what was acknowledged is there,
//! nobody owned what another owned, and fences grow.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use justonce::{Options, Store};

use crate::child::{
    Ended, child, left_out, part_in, pass, plays_to_its_end, tell, told_by, under, works,
};
use crate::ledger::{Ledger, work};

const KILLS: &str =
    "killed::nothing_acknowledged_is_lost_and_nobody_owns_twice_wherever_a_kill_comes";

const THREADS: usize = 4;

/// Kills in a run of all tests; `JUSTONCE_SOAK` has all of them.
const ROUNDS: usize = 40;
const ALL_ROUNDS: usize = 300;

/// Kills of each store.
const ROUNDS_PER_STORE: usize = 10;

const SIGKILL: i32 = 9;

/// Small files: one is begun, and one sealed, every few records.
fn open(place: &Path) -> Result<Store, justonce::Error> {
    Options::new().generation_bytes(2048).open(place.join("store"))
}

/// Opens the store and works until it is killed, or until the store fails.
fn serve(place: &Path) {
    tell("begun");
    let store = match open(place) {
        Ok(store) => store,
        Err(error) => return tell(&format!("not opened: {:?}", error.kind())),
    };
    tell("opened");
    let process = u64::from(std::process::id());
    std::thread::scope(|threads| {
        for number in 0..THREADS {
            let (store, name) = (&store, format!("{process}-{number}"));
            threads.spawn(move || {
                let error = work(store, &name, process * 31 + number as u64);
                tell(&format!("stopped: {:?}", error.kind()));
            });
        }
    });
}

#[test]
fn nothing_acknowledged_is_lost_and_nobody_owns_twice_wherever_a_kill_comes() {
    if let Some(place) = part_in(KILLS) {
        return serve(&place);
    }
    let rounds = if std::env::var_os("JUSTONCE_SOAK").is_some() { ALL_ROUNDS } else { ROUNDS };
    let seed = random();
    eprintln!("{rounds} kills, seed {seed}");
    let (mut facts, mut sealed, mut early) = (0, 0, 0);
    for first in (0..rounds).step_by(ROUNDS_PER_STORE) {
        let place = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::default();
        for round in first..rounds.min(first + ROUNDS_PER_STORE) {
            // Every third from when it begins to open the store, the first of all among them.
            let while_opening = (round - first).is_multiple_of(3);
            let last = if while_opening { 14 } else { 50 };
            let after = Duration::from_millis(1 + mixed(seed, round) % last);
            let case = format!("seed {seed}, kill {round}, {after:?}, opening: {while_opening}");
            ledger.begin_run();
            let opened = kill(place.path(), &mut ledger, after, while_opening, &case);
            early += usize::from(!opened);
            let store = open(place.path()).unwrap_or_else(|error| panic!("{case}: {error}"));
            ledger.check(&store, &case);
            ledger.go_on(&store, round);
            sealed += store.stats().sealed_generations;
            store.close().wait().unwrap();
        }
        facts += ledger.facts;
    }
    eprintln!(
        "{facts} facts, {early} killed before the store was open, {sealed} sealed files seen"
    );
    // How many depends on how busy the machine is.
    assert!(facts > rounds && sealed > 0 && early > 0, "the kills hit nothing");
}

/// Has a child work and kills it; says whether it had opened the store.
fn kill(
    place: &Path,
    ledger: &mut Ledger,
    after: Duration,
    while_opening: bool,
    case: &str,
) -> bool {
    let mut child = Ended(child(KILLS, place).spawn().unwrap());
    let facts = told_by(&mut child.0);
    let mut opened = false;
    for fact in &facts {
        opened |= fact == "opened";
        if fact == "opened" || fact == "begun" && while_opening {
            break;
        }
    }
    pass(after);
    child.0.kill().unwrap();
    let status = child.0.wait().unwrap();
    for fact in facts {
        assert!(!fact.starts_with("stopped") && !fact.starts_with("not opened"), "{case}: {fact}");
        if fact == "opened" {
            opened = true;
        } else {
            ledger.enter(&fact);
        }
    }
    assert_eq!(status.signal(), Some(SIGKILL), "{case}: {status}");
    opened
}

/// The system call that makes a file or a directory durable fails, as often as it is asked.
#[test]
fn nothing_acknowledged_is_lost_whichever_sync_the_system_fails() {
    const NAME: &str = "killed::nothing_acknowledged_is_lost_whichever_sync_the_system_fails";
    if let Some(place) = part_in(NAME) {
        return serve(&place);
    }
    if !works("strace", &["-o", "/dev/null", "-e", "trace=fdatasync", "true"]) {
        return left_out("syncs that fail by strace", "it is not there or may not trace");
    }
    let (mut refused, mut not_opened) = (0, 0);
    for (number, when) in ["1", "3", "6+", "9", "10+", "14", "20+", "33"].iter().enumerate() {
        let place = tempfile::tempdir().unwrap();
        let inject = format!("inject=fdatasync,fsync:error=EIO:when={when}");
        let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync"];
        let starter = [&strace[..], &["-e", &inject]].concat();
        let mut ledger = Ledger::default();
        ledger.begin_run();
        for fact in plays_to_its_end(under(&starter, NAME, place.path())) {
            match fact.split_once(": ") {
                Some(("not opened", kind)) => {
                    assert_eq!(kind, "Io", "at sync {when}");
                    not_opened += 1;
                }
                Some(("stopped", kind)) => {
                    assert!(matches!(kind, "Unknown" | "Poisoned"), "at sync {when}: {kind}");
                    refused += 1;
                }
                _ => ledger.enter(&fact),
            }
        }
        let store = open(place.path()).unwrap();
        ledger.check(&store, &format!("sync {when}"));
        ledger.go_on(&store, number);
    }
    assert!(refused > 0 && not_opened > 0, "{refused} refused, {not_opened} not opened");
}

fn random() -> u64 {
    use std::hash::BuildHasher;
    std::hash::RandomState::new().hash_one(0)
}

fn mixed(seed: u64, number: usize) -> u64 {
    (seed ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33
}
