//! The program `justonce`, as a person or a script runs it: beside a service, and on its own.

#![cfg(all(feature = "cli", unix))]
#![allow(clippy::allow_attributes, reason = "lints that fire in some helpers only")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use common::{ClaimExt, World, eventually, op};
use justonce::inspect::serve;
use justonce::{Operation, Options, Store};
use serde_json::Value;

fn justonce(store: &Path) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_justonce"));
    program.arg("--store").arg(store);
    program
}

/// What it says, and what it exits with.
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn said(output: Output) -> Said {
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn run<A: AsRef<OsStr>>(store: &Path, arguments: &[A]) -> Said {
    said(justonce(store).args(arguments).output().unwrap())
}

#[track_caller]
fn json(store: &Path, arguments: &[&str]) -> Vec<Value> {
    let said = said(justonce(store).arg("--json").args(arguments).output().unwrap());
    assert_eq!(said.code, 0, "{arguments:?}: {}", said.err);
    said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A line without the spaces that lay a table out.
fn rows(said: &Said) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    said.out.lines().map(words).collect()
}

/// A store with an operation of each kind: `done`, `owned` and `back`, and another project's.
fn world() -> World {
    let world = World::on_disk(|options| options.keep_keys(true));
    world.claim(op("done")).new().complete("spam").wait().unwrap();
    world.claim(op("back")).new().release("upstream is down").wait().unwrap();
    assert!(world.store.record_once(Operation::new("other", "evt_1")).wait().unwrap());
    world
}

#[test]
fn beside_a_service_it_shows_what_the_service_knows() {
    let world = world();
    let _inspector = serve(&world.store).unwrap();
    let ticket = world.claim(op("owned")).new();
    let path = world.path();

    let shown = run(&path, &["get", "acme", "done"]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    let lines = rows(&shown);
    for line in ["project acme", "key done", "state completed", "attempt 1", "body spam"] {
        assert!(lines.iter().any(|found| found == line), "{line:?} is not in {lines:#?}");
    }
    assert_eq!(run(&path, &["get", "acme", "done", "--body"]).out, "spam");
    assert_eq!(run(&path, &["get", "acme", "owned", "--body"]).code, 1);

    let id = ticket.request_id().to_string();
    let by_id = json(&path, &["request", &id]);
    assert_eq!((&by_id[0]["key"], &by_id[0]["state"]), (&"owned".into(), &"in_flight".into()));

    let all = run(&path, &["ls"]);
    assert_eq!(rows(&all)[0], "REQUEST STATE ATTEMPT CHANGED REPLY PROJECT KEY");
    assert_eq!(all.out.lines().count(), 5, "{}", all.out);
    assert_eq!(json(&path, &["ls", "--project", "acme"]).len(), 3);
    let released = json(&path, &["ls", "--state", "released"]);
    assert_eq!((released.len(), &released[0]["reason"]), (1, &"upstream is down".into()));
    assert_eq!(json(&path, &["in-flight"]).len(), 2);

    drop(ticket);
    let lapsed = run(&path, &["in-flight"]);
    assert!(rows(&lapsed).iter().any(|row| row.contains("lapsed (dropped)")), "{}", lapsed.out);

    let stats = json(&path, &["stats"]);
    assert_eq!((&stats[0]["claims"]["new"], &stats[0]["unanswered"]), (&4.into(), &2.into()));
    assert!(rows(&run(&path, &["stats"])).contains(&"claims: new 4".to_owned()));
    let verified = run(&path, &["verify"]);
    assert_eq!(verified.code, 0);
    assert!(verified.out.starts_with("sound: "), "{}", verified.out);
    assert_eq!(json(&path, &["verify"])[0]["sound"], true);
}

#[test]
fn a_history_shows_each_attempt_and_generations_their_files() {
    let world = world();
    let _inspector = serve(&world.store).unwrap();
    let (ticket, _) = world.claim(op("back")).resumed();
    ticket.checkpoint("sent as 17").wait().unwrap();
    ticket.complete("ham").wait().unwrap();
    let path = world.path();
    let history = run(&path, &["history", "acme", "back"]);
    let rows = rows(&history);
    assert!(rows[0].starts_with("rr_"), "{rows:#?}");
    assert_eq!(rows[1], "ATTEMPT WRITTEN CAME TO FENCE NOTE");
    let attempts: Vec<_> = rows[2..].iter().map(|row| &row[..1]).collect();
    assert_eq!(attempts, ["2", "2", "2", "1", "1"]);
    assert!(rows[2].contains("completed") && rows[3].ends_with("sent as 17"), "{rows:#?}");
    assert!(rows[5].contains("released") && rows[5].ends_with("upstream is down"), "{rows:#?}");
    assert_eq!(run(&path, &["history", "acme", "never"]).code, 1);

    eventually("there is a spare", || json(&path, &["generations"]).len() == 2);
    let generations = json(&path, &["generations"]);
    let states: Vec<_> = generations.iter().map(|of| of["state"].as_str().unwrap()).collect();
    assert!(states.contains(&"open") && states.contains(&"spare"), "{states:?}");
    let length = std::fs::metadata(path.join("00000001.redb")).unwrap().len();
    assert_eq!(generations[0]["bytes"], length);
}

#[test]
fn what_is_not_there_exits_with_1_and_wrong_usage_with_2() {
    let world = world();
    let _inspector = serve(&world.store).unwrap();
    let path = world.path();
    let absent = run(&path, &["get", "acme", "never"]);
    assert_eq!((absent.code, absent.out.as_str()), (1, ""));
    assert!(absent.err.contains("no such operation"), "{}", absent.err);
    let over = "rr_064K72CQR0G7ZC2Q4WQ5KQ2XWZ0BV0J8QW3G";
    assert_eq!(run(&path, &["request", over]).code, 1);
    assert_eq!(run(&path, &["request", "rr_short"]).code, 2);
    assert_eq!(run(&path, &["get", "", "k"]).code, 2);
    assert_eq!(run(&path, &["ls", "--state", "lost"]).code, 2);
    assert_eq!(run(&path, &["destroy"]).code, 2);
}

#[test]
fn an_open_store_that_is_not_served_exits_with_3_and_says_which_line_is_missing() {
    let world = world();
    let path = world.path();
    let refused = run(&path, &["stats"]);
    assert_eq!(refused.code, 3);
    assert!(refused.err.contains("justonce::inspect::serve(&store)?"), "{}", refused.err);
    let _inspector = serve(&world.store).unwrap();
    for change in [&["forget", "acme", "done"][..], &["forget-project", "acme"]] {
        let refused = run(&path, change);
        assert_eq!(refused.code, 3);
        assert!(refused.err.contains("close it there first"), "{}", refused.err);
    }
    assert_eq!(run(&path, &["get", "acme", "done"]).code, 0);
}

#[test]
fn where_there_is_no_store_it_exits_with_3_and_makes_none() {
    let nothing = tempfile::tempdir().unwrap();
    for arguments in [&["stats"][..], &["ls"], &["verify"], &["forget", "acme", "k"]] {
        let refused = run(nothing.path(), arguments);
        assert_eq!(refused.code, 3, "{arguments:?}: {}", refused.err);
        assert!(refused.err.contains("holds no store"), "{}", refused.err);
    }
    assert_eq!(std::fs::read_dir(nothing.path()).unwrap().count(), 0);
}

#[test]
fn a_closed_store_is_shown_as_it_is_and_only_forgetting_changes_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let store = Options::new().keep_keys(true).open(path).unwrap();
    for key in ["a", "b", "c"] {
        assert!(store.record_once(op(key)).wait().unwrap());
    }
    let ticket = store.claim(op("owned")).wait().unwrap().new();
    store.close().wait().unwrap();
    drop(ticket);
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (std::fs::read(&path).unwrap(), path))
            .collect();
        files.sort();
        files
    };
    let before = files();
    assert_eq!(json(path, &["ls"]).len(), 4);
    let in_flight = json(path, &["in-flight"]);
    assert_eq!(
        (&in_flight[0]["state"], &in_flight[0]["why"]),
        (&"lapsed".into(), &"restart".into())
    );
    let in_flight = json(path, &["in-flight", "--external-owners"]);
    assert_eq!(in_flight[0]["state"], "in_flight");
    assert_eq!(run(path, &["verify"]).code, 0);
    assert!(files() == before, "looking changed a file");

    assert_eq!(run(path, &["forget", "acme", "a"]).out, "forgotten\n");
    assert_eq!(run(path, &["forget", "acme", "a"]).code, 1);
    assert_eq!(run(path, &["get", "acme", "a"]).code, 1);
    assert_eq!(run(path, &["--external-owners", "forget", "acme", "owned"]).code, 4);
    let purged = json(path, &["forget-project", "acme"]);
    assert_eq!(purged[0]["forgotten"], 3);
    let store = Store::open(path).unwrap();
    assert!(store.lookup("acme", "b").wait().unwrap().is_none());
}

#[test]
fn damage_exits_with_1_and_names_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let store = Options::new().generation_bytes(1).open(path).unwrap();
    for key in 0..4 {
        assert!(store.record_once(op(&key.to_string())).wait().unwrap());
    }
    eventually("files are sealed", || store.stats().sealed_generations >= 3);
    store.close().wait().unwrap();
    let name = "00000001.redb";
    let mut bytes = std::fs::read(path.join(name)).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(path.join(name), bytes).unwrap();
    let damaged = run(path, &["verify"]);
    assert_eq!(damaged.code, 1, "{}{}", damaged.out, damaged.err);
    assert!(damaged.out.contains("damaged: ") && damaged.out.contains(name), "{}", damaged.out);
    let report = justonce(path).args(["verify", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["sound"], false);

    std::fs::remove_file(path.join(name)).unwrap();
    let missing = run(path, &["verify"]);
    assert_eq!(missing.code, 1, "{}{}", missing.out, missing.err);
    assert!(missing.out.contains(name), "{}", missing.out);
    assert_eq!(run(path, &["stats"]).code, 3);
}

#[test]
fn an_export_has_every_operation_with_all_its_bytes() {
    let world = world();
    let _inspector = serve(&world.store).unwrap();
    let key = OsStr::from_bytes(b"\xff key");
    let ticket = world.store.claim(Operation::new("acme", key.as_bytes())).wait().unwrap().new();
    ticket.complete(vec![0, 159, 146, 150]).wait().unwrap();
    let path = world.path();
    let exported = run(&path, &["export"]);
    assert_eq!(exported.code, 0);
    let lines: Vec<Value> =
        exported.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    let of_key = |key: Value| lines.iter().find(|line| line["key"] == key).unwrap();
    assert_eq!(of_key("done".into())["reply"]["body"], "spam");
    let hex = |digits: &str| serde_json::json!({ "hex": digits });
    assert_eq!(of_key(hex("ff206b6579"))["reply"]["body"], hex("009f9296"));

    let arguments = [OsStr::new("get"), OsStr::new("acme"), key, OsStr::new("--body")];
    let body = justonce(&path).args(arguments).output().unwrap();
    assert_eq!(body.stdout, [0, 159, 146, 150]);
}

#[test]
fn a_reader_that_has_had_enough_is_no_error() {
    let world = World::on_disk(|options| options);
    let _inspector = serve(&world.store).unwrap();
    let calls: Vec<_> =
        (0..5_000).map(|key| world.store.record_once(op(&key.to_string()))).collect();
    for call in calls {
        assert!(call.wait().unwrap());
    }
    let mut piped = justonce(&world.path());
    piped.arg("export").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 10]).unwrap();
    let ended = said(child.wait_with_output().unwrap());
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
}

#[test]
fn control_characters_of_a_tenant_do_not_reach_the_terminal() {
    let world = World::on_disk(|options| options.keep_keys(true));
    let _inspector = serve(&world.store).unwrap();
    world.claim(op("k\u{1b}[2Jx\n")).new().complete("\u{1b}]0;title\u{7}").wait().unwrap();
    let listed = run(&world.path(), &["ls"]);
    assert!(!listed.out.contains('\u{1b}') && listed.out.lines().count() == 2, "{:?}", listed.out);
    let got = run(&world.path(), &["get", "acme", "k\u{1b}[2Jx\n"]);
    assert!(got.code == 0 && !got.out.contains(['\u{1b}', '\u{7}']), "{:?}", got.out);
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    let nowhere = Path::new("/nonexistent");
    let commands = ["stats", "get", "request", "ls", "in-flight", "history", "generations"];
    let changes = ["verify", "export", "forget", "forget-project"];
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(nowhere, &["completions", shell]);
        assert_eq!(script.code, 0);
        for command in commands.iter().chain(&changes) {
            assert!(script.out.contains(command), "{shell}: {command}");
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let written = run(nowhere, &[OsStr::new("man"), directory.path().as_os_str()]);
    assert_eq!(written.code, 0, "{}", written.err);
    for command in commands.iter().chain(&changes) {
        let page = directory.path().join(format!("justonce-{command}.1"));
        assert!(std::fs::read_to_string(page).unwrap().contains(".TH"), "{command}");
    }
    assert!(run(nowhere, &["man"]).out.contains(".TH justonce 1"));
}

const SERVED: &str = "JUSTONCE_TEST_SERVED";

/// The service of the test below: this program again, until it is killed.
#[test]
fn a_service() {
    let Some(path) = std::env::var_os(SERVED) else { return };
    let store = Options::new().keep_keys(true).open(path).unwrap();
    let _inspector = serve(&store).unwrap();
    let _ticket = store.claim(op("owned")).wait().unwrap();
    // What the test waits for.
    assert!(run_by_child());
}

#[allow(clippy::print_stdout, reason = "how a child tells that it is ready")]
fn run_by_child() -> bool {
    println!("\nserving");
    std::io::stdin().read_to_end(&mut Vec::new()).is_ok()
}

fn service(path: &Path) -> Child {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", "a_service", "--nocapture"]).env(SERVED, path);
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "serving"), "it does not come up");
    child
}

#[test]
fn a_killed_service_leaves_a_store_that_is_shown_and_a_socket_that_the_next_replaces() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for _ in 0..2 {
        let mut service = service(path);
        let owned = json(path, &["get", "acme", "owned"]);
        assert_eq!(owned[0]["state"], "in_flight");
        service.kill().unwrap();
        service.wait().unwrap();
        assert!(path.join("inspect.sock").exists(), "a kill removes nothing");
        let lapsed = json(path, &["get", "acme", "owned"]);
        assert_eq!((&lapsed[0]["state"], &lapsed[0]["why"]), (&"lapsed".into(), &"restart".into()));
    }
}
