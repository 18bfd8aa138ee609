//! Children: this program again, to play a part in one test.
//!
//! What a child tells its parent are lines that begin with `> `, each written at once: a kill
//! leaves none of them in half.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// The test that a child has a part in, and where.
const PART: &str = "JUSTONCE_PART";
const PLACE: &str = "JUSTONCE_PLACE";

/// Where this process is to play its part in a test, if it was started for that.
pub fn part_in(test: &str) -> Option<PathBuf> {
    (std::env::var_os(PART)? == test).then(|| std::env::var_os(PLACE).map(PathBuf::from))?
}

/// This program again, with a part in one test.
pub fn child(test: &str, place: &Path) -> Command {
    under::<&str>(&[], test, place)
}

/// The same, started by another program.
pub fn under<S: AsRef<OsStr>>(starter: &[S], test: &str, place: &Path) -> Command {
    run(&std::env::current_exe().unwrap(), starter, test, place)
}

/// The same, of a copy of this program.
pub fn run<S: AsRef<OsStr>>(program: &Path, starter: &[S], test: &str, place: &Path) -> Command {
    let mut words: Vec<OsString> = starter.iter().map(|word| word.as_ref().to_owned()).collect();
    words.push(program.into());
    let how = ["--exact", test, "--include-ignored", "--nocapture", "--test-threads=1"];
    words.extend(how.map(OsString::from));
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env(PART, test).env(PLACE, place).stdout(Stdio::piped());
    command
}

/// Tells the parent.
pub fn tell(fact: &str) {
    // The harness has begun a line.
    std::io::stdout().lock().write_all(format!("\n> {fact}\n").as_bytes()).unwrap();
}

/// What a child tells, line by line, until it ends.
pub fn told_by(child: &mut Child) -> Receiver<String> {
    let output = child.stdout.take().unwrap();
    let (sender, facts) = channel();
    let reader = std::thread::Builder::new().name("facts".to_owned());
    let reading = reader.spawn(move || {
        for fact in facts_in(output) {
            if sender.send(fact).is_err() {
                return;
            }
        }
    });
    reading.unwrap();
    facts
}

pub fn facts_in(output: impl Read) -> impl Iterator<Item = String> {
    let lines = BufReader::new(output).lines().map_while(Result::ok);
    lines.filter_map(|line| line.strip_prefix("> ").map(str::to_owned))
}

/// Has a child play its part to its end, which is to be a good one.
#[track_caller]
pub fn plays_to_its_end(mut child: Command) -> Vec<String> {
    let Output { status, stdout, stderr } = child.stderr(Stdio::piped()).output().unwrap();
    let (shown, errors) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{child:?} ended with {status}\n{shown}\n{errors}");
    facts_in(&stdout[..]).collect()
}

/// Ends a child that its test has lost interest in.
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lets real time pass.
pub fn pass(time: Duration) {
    let (_never, nothing) = channel::<()>();
    let _ = nothing.recv_timeout(time);
}

/// Says that something is left out on this machine.
pub fn left_out(what: &str, why: &str) {
    eprintln!("left out on this machine: {what}: {why}");
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a command is there and ends well.
pub fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
