//! Style as a test: what a reader may rely on without looking.
//!
//! Each rule is a function from a file's path and text to what is wrong with it, and is shown to
//! find what it is for in a planted breach.

#![allow(clippy::allow_attributes, reason = "lints that fire in some helpers only")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::fs;
use std::path::Path;

/// The layers of `src`, lowest first; those of one line may know each other.
const LAYERS: &[&[&str]] = &[
    &["sync"],
    &["error"],
    &["clock", "identity", "observe"],
    &["record"],
    &["storage"],
    &["generation"],
    &["commit"],
    &["table"],
    &["engine", "operation", "claim", "pending", "options", "parts", "publish", "store", "verify"],
    &["http", "inspect"],
    &["bin"],
];

/// What a lower layer may know of a higher one: an error gives a ticket back to its owner.
const UPWARD: &[(&str, &str)] = &[("src/error.rs", "crate::claim::Ticket")];

/// Names that the crate's root re-exports and code calls by `crate::Name`, with their layer.
const ROOT_NAMES: &[(&str, &str)] = &[("Error", "error"), ("ErrorKind", "error")];

const MAX_LINES: usize = 500;
const MAX_COLUMNS: usize = 100;

/// What is named here may only be named there.
const AT_HOME: &[(&str, &str)] = &[
    ("std::sync::", "src/sync/"),
    ("parking_lot", "src/sync/"),
    ("thread::spawn", "src/sync/"),
    ("thread::scope", "src/sync/"),
    ("thread::Builder", "src/sync/"),
    ("thread::sleep", "src/sync/"),
    ("thread::park", "src/sync/"),
    ("thread::yield_now", "src/sync/"),
    ("SystemTime::now", "src/clock.rs"),
    ("Instant::now", "src/clock.rs"),
    ("redb::", "src/storage/"),
    ("bincode", "src/record/codec.rs"),
    ("tracing::", "src/observe/"),
];

/// An `Arc` orders no threads.
const STD_SYNC_ANYWHERE: &str = "use std::sync::Arc;";

const LEFT_BEHIND: &[&str] = &["TODO", "FIXME", "XXX", "dbg!(", "todo!(", "unimplemented!("];

#[test]
fn layers_point_down() {
    assert_clean(&files("src", "rs"), upward_references);
}

#[test]
fn every_file_says_what_it_owns() {
    assert_clean(&files("src", "rs"), lacks_essay);
    assert_clean(&files("tests", "rs"), lacks_essay);
}

#[test]
fn files_are_short() {
    assert_clean(&files("src", "rs"), too_long);
}

#[test]
fn lines_are_short() {
    for folder in ["src", "tests", "examples", "benches"] {
        assert_clean(&files(folder, "rs"), too_wide);
    }
}

#[test]
fn nothing_is_left_behind() {
    for folder in ["src", "examples", "benches"] {
        assert_clean(&files(folder, "rs"), left_behind);
    }
}

#[test]
fn locks_threads_time_and_foreign_formats_stay_at_home() {
    assert_clean(&files("src", "rs"), away_from_home);
}

#[test]
fn the_changelog_has_this_version() {
    let heading = format!("## {}", env!("CARGO_PKG_VERSION"));
    let found = read("CHANGELOG.md").lines().any(|line| line.starts_with(&heading));
    assert!(found, "CHANGELOG.md lacks a heading {heading:?}");
}

#[test]
fn links_lead_somewhere() {
    assert_clean(&pages(), dead_links);
}

#[test]
fn paths_that_pages_name_exist() {
    assert_clean(&pages(), dead_paths);
}

#[test]
fn each_test_file_has_its_place_in_the_guarantees() {
    let page = read("docs/guarantees.md");
    for (path, _) in files("tests", "rs") {
        let is_test = Path::new(&path).parent() == Some(Path::new("tests"));
        assert!(!is_test || page.contains(&path), "docs/guarantees.md does not name {path}");
    }
}

#[test]
fn the_gate_runs_what_the_readme_tells_a_user_to_run() {
    let gate = read(".ci/run");
    let readme = read("README.md");
    let commands = commands(&readme);
    assert!(commands.contains(&"cargo test"), "found only {commands:?}");
    for command in commands {
        let step = format!("step {command}");
        assert!(gate.lines().any(|line| line == step), ".ci/run lacks the line {step:?}");
    }
}

#[test]
fn a_planted_breach_of_each_rule_is_found() {
    let planted: &[(Rule, &str, &str)] = &[
        (upward_references, "src/record/mod.rs", "use crate::storage::Lane;\n"),
        (upward_references, "src/table/mod.rs", "    let options: crate::Options = x;\n"),
        (upward_references, "src/storage/log.rs", "use crate::{engine::Engine, error::Error};\n"),
        (upward_references, "src/error.rs", "use crate::claim::Claim;\n"),
        (upward_references, "src/new_part/mod.rs", "use crate::sync::Arc;\n"),
        (lacks_essay, "src/table/mod.rs", "use crate::sync::Arc;\n"),
        (too_long, "src/table/mod.rs", &"\n".repeat(MAX_LINES + 1)),
        (too_wide, "src/table/mod.rs", &"x".repeat(MAX_COLUMNS + 1)),
        (left_behind, "src/table/mod.rs", "    // TODO: lock\n"),
        (left_behind, "src/table/mod.rs", "    dbg!(row);\n"),
        (away_from_home, "src/table/mod.rs", "use std::sync::Mutex;\n"),
        (away_from_home, "src/table/mod.rs", "use std::sync::atomic::AtomicBool;\n"),
        (away_from_home, "src/engine/open.rs", "    std::thread::spawn(work);\n"),
        (away_from_home, "src/table/mod.rs", "use redb::Database;\n"),
        (away_from_home, "src/record/mod.rs", "#[derive(bincode::Encode)]\n"),
        (dead_links, "docs/design.md", "see [the table](../src/no_such_part.rs)\n"),
        (dead_paths, "docs/design.md", "see `tests/no_such_test.rs`\n"),
    ];
    for (rule, path, text) in planted {
        assert!(!rule(path, text).is_empty(), "not found in {path}: {text:?}");
    }
}

type Rule = fn(&str, &str) -> Vec<String>;

fn upward_references(path: &str, text: &str) -> Vec<String> {
    let part = part_of(path);
    if part == "lib" {
        return Vec::new();
    }
    let Some(layer) = layer_of(part) else {
        return vec![format!("{path}: {part} has no place among the layers of tests/tidy.rs")];
    };
    let mut wrong = Vec::new();
    for (number, line) in code_lines(text) {
        if line.contains("use crate::{") {
            wrong.push(format!("{path}:{number}: one `use` a part, so that this test can read it"));
        }
        for (at, _) in line.match_indices("crate::") {
            let is_allowed = |(file, name): &(&str, &str)| {
                *file == path && line[at..].trim_end_matches(';') == *name
            };
            let name = identifier(&line[at + "crate::".len()..]);
            let owner = ROOT_NAMES.iter().find(|(root, _)| *root == name).map_or(name, |of| of.1);
            let is_below = layer_of(owner).is_some_and(|known| known <= layer);
            if !owner.is_empty() && !is_below && !UPWARD.iter().any(is_allowed) {
                wrong.push(format!("{path}:{number}: {part} knows {name}, which is above it"));
            }
        }
    }
    wrong
}

fn lacks_essay(path: &str, text: &str) -> Vec<String> {
    if text.starts_with("//! ") { Vec::new() } else { vec![format!("{path}: begin with `//!`")] }
}

fn too_long(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    if lines > MAX_LINES { vec![format!("{path}: {lines} lines")] } else { Vec::new() }
}

/// Rows of a table and literals cannot be broken, by rustfmt or by hand.
fn too_wide(path: &str, text: &str) -> Vec<String> {
    let cannot_break = |line: &str| {
        let is_row = line.trim_start().trim_start_matches(['/', '!', ' ']).starts_with('|');
        let longest = line.split('"').skip(1).step_by(2).map(|text| text.chars().count()).max();
        is_row || longest.is_some_and(|longest| longest > MAX_COLUMNS / 2)
    };
    text.lines()
        .zip(1..)
        .filter(|(line, _)| line.chars().count() > MAX_COLUMNS && !cannot_break(line))
        .map(|(line, number)| format!("{path}:{number}: {} columns", line.chars().count()))
        .collect()
}

fn left_behind(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        for word in LEFT_BEHIND.iter().filter(|word| line.contains(**word)) {
            wrong.push(format!("{path}:{number}: {word}"));
        }
    }
    wrong
}

fn away_from_home(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, line) in code_lines(text).filter(|(_, line)| *line != STD_SYNC_ANYWHERE) {
        for (name, home) in AT_HOME {
            if line.contains(name) && !path.starts_with(home) {
                wrong.push(format!("{path}:{number}: {name} belongs to {home}"));
            }
        }
    }
    wrong
}

fn dead_links(path: &str, text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let folder = Path::new(path).parent().unwrap();
    targets
        .filter(|target| !target.starts_with("https://") && !target.starts_with('#'))
        .map(|target| target.split('#').next().unwrap())
        .filter(|target| !root().join(folder).join(target).exists())
        .map(|target| format!("{path}: {target} is not there"))
        .collect()
}

/// Paths in backticks; those of the disk format and of an example's arguments are not ours.
fn dead_paths(path: &str, text: &str) -> Vec<String> {
    let quoted = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    quoted
        .filter(|name| {
            ["src/", "tests/", "docs/", "examples/", "benches/", ".ci/"]
                .iter()
                .any(|folder| name.starts_with(folder))
        })
        .filter(|name| !root().join(name).exists())
        .map(|name| format!("{path}: {name} is not there"))
        .collect()
}

#[track_caller]
fn assert_clean(files: &[(String, String)], rule: Rule) {
    assert!(!files.is_empty(), "no files to look at");
    let wrong: Vec<_> = files.iter().flat_map(|(path, text)| rule(path, text)).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The part of `src` that a file belongs to.
fn part_of(path: &str) -> &str {
    let below = path.strip_prefix("src/").unwrap();
    below.split('/').next().unwrap().trim_end_matches(".rs")
}

fn layer_of(part: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&part))
}

fn identifier(text: &str) -> &str {
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
    &text[..end.unwrap_or(text.len())]
}

/// Lines that are no comment, trimmed, with their numbers.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().zip(1..).map(|(line, number)| (number, line.trim()));
    numbered.filter(|(_, line)| !line.starts_with("//"))
}

/// What a page tells its reader to run.
fn commands(page: &str) -> Vec<&str> {
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.flat_map(str::lines).filter(|line| !line.trim().is_empty()).collect()
}

fn pages() -> Vec<(String, String)> {
    let mut pages = files("docs", "md");
    for name in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        pages.push((name.to_owned(), read(name)));
    }
    pages
}

/// The files of a folder and of those in it, by their paths from the project's root; what was
/// built is passed over.
fn files(folder: &str, extension: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            if entry.file_name() != "target" {
                found.extend(files(&path, extension));
            }
        } else if Path::new(&path).extension().is_some_and(|found| found == extension) {
            found.push((path.clone(), read(&path)));
        }
    }
    found.sort();
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
