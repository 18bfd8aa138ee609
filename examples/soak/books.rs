//! The books: what the workers said was acknowledged, checked against itself and the store.
//!
//! A reply of a key that is kept for a day must be shown to everyone after, in every run, and be in
//! the store at the end. Keys of short windows come back; of those, fences only grow.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fmt;
use std::path::Path;

use justonce::{EntryState, Store};

/// Differences that are kept; the others are counted by the exit alone.
const MAX_WRONG: usize = 40;

#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) facts: u64,
    pub(crate) runs: u64,
    /// The reply of each key that is kept.
    kept: HashMap<String, String>,
    fences: HashSet<u64>,
    /// The largest fence of all runs before, and of all so far.
    fence_before: u64,
    fence: u64,
    wrong: Vec<String>,
}

impl Books {
    pub(crate) fn begin_run(&mut self) {
        self.runs += 1;
        self.fence_before = self.fence;
    }

    /// Enters a fact; `false` where the line is none, as the last of a killed worker may be.
    pub(crate) fn enter(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["won", fence] => {
                let Ok(fence) = fence.parse() else { return false };
                if fence <= self.fence_before || !self.fences.insert(fence) {
                    self.wrong(format!("fence {fence} in run {} was there before", self.runs));
                }
                self.fence = self.fence.max(fence);
            }
            ["replied" | "shown", key, body] => {
                if *self.kept.entry(key.to_owned()).or_insert_with(|| body.to_owned()) != body {
                    self.wrong(format!("{key} was answered with two replies, {body} is one"));
                }
            }
            ["new", key] => {
                if self.kept.contains_key(key) {
                    self.wrong(format!("{key} was new after it had a reply"));
                }
            }
            _ => return false,
        }
        self.facts += 1;
        true
    }

    /// Opens the store and looks every kept reply up; says all that was wrong.
    pub(crate) fn check(&mut self, path: &Path) -> Result<Vec<String>, Box<dyn Error>> {
        let store = Store::open(path)?;
        for (key, body) in std::mem::take(&mut self.kept) {
            let entry = store.lookup("kept", &key).wait()?;
            let is_there = entry.as_ref().is_some_and(|entry| {
                entry.state() == EntryState::Completed
                    && entry.reply().is_some_and(|reply| reply.body() == body.as_bytes())
            });
            if !is_there {
                self.wrong(format!("{key}: reply {body} is lost, there is {entry:?}"));
            }
            self.kept.insert(key, body);
        }
        store.close().wait()?;
        Ok(std::mem::take(&mut self.wrong))
    }

    fn wrong(&mut self, what: String) {
        if self.wrong.len() < MAX_WRONG {
            self.wrong.push(what);
        }
    }
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Books { facts, runs, kept, fences, .. } = self;
        let (kept, owners) = (kept.len(), fences.len());
        write!(f, "{facts} facts of {runs} runs: {owners} owners, {kept} replies kept and checked")
    }
}
