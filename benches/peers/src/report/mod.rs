//! What was measured, and how it is shown: tables, JSON, plots.

mod plots;
mod table;

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::arguments::Arguments;
use crate::machine::Machine;
use crate::peer::{Failure, Kind};
use crate::workload::Workload;

/// Around what a run fills in a page.
const MARKS: [&str; 2] = ["<!-- results -->", "<!-- end of results -->"];

#[derive(Debug, Default, Serialize)]
pub(crate) struct Book {
    measurements: Vec<Measurement>,
    steady: Vec<Steady>,
}

/// A case of a workload on one peer, round by round.
#[derive(Debug, Serialize)]
struct Measurement {
    workload: Workload,
    case: String,
    unit: Unit,
    peer: Kind,
    rounds: Vec<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unit {
    /// More is better.
    PerSecond,
    /// Less is better.
    Micros,
}

/// A peer's windows, one after the other.
#[derive(Debug, Serialize)]
struct Steady {
    peer: Kind,
    windows: Vec<Window>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Window {
    pub(crate) claims_per_second: f64,
    pub(crate) p999_micros: f64,
    /// On disk at its end.
    pub(crate) bytes: u64,
}

impl Book {
    /// Notes what a round gave.
    pub(crate) fn add(
        &mut self,
        (workload, case): (Workload, &str),
        unit: Unit,
        peer: Kind,
        value: f64,
    ) {
        let known = self
            .measurements
            .iter_mut()
            .find(|of| of.workload == workload && of.case == case && of.peer == peer);
        match known {
            Some(measurement) => measurement.rounds.push(value),
            None => {
                let case = case.to_owned();
                let rounds = vec![value];
                self.measurements.push(Measurement { workload, case, unit, peer, rounds });
            }
        }
    }

    pub(crate) fn add_steady(&mut self, peer: Kind, windows: Vec<Window>) {
        self.steady.push(Steady { peer, windows });
    }

    pub(crate) fn tables(&self) -> String {
        table::all(self)
    }

    /// Workloads in the order they were measured.
    fn workloads(&self) -> Vec<Workload> {
        distinct(self.measurements.iter().map(|of| of.workload))
    }

    fn of(&self, workload: Workload) -> Vec<&Measurement> {
        self.measurements.iter().filter(|of| of.workload == workload).collect()
    }
}

impl Measurement {
    fn median(&self) -> f64 {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted[..] {
            [] => f64::NAN,
            _ if sorted.len().is_multiple_of(2) => (sorted[middle - 1] + sorted[middle]) / 2.0,
            _ => sorted[middle],
        }
    }
}

impl Unit {
    /// How many times as fast `ours` is.
    fn ratio(self, ours: f64, theirs: f64) -> f64 {
        match self {
            Unit::PerSecond => ours / theirs,
            Unit::Micros => theirs / ours,
        }
    }
}

#[derive(Serialize)]
struct Results<'a> {
    machine: &'a Machine,
    arguments: &'a Arguments,
    #[serde(flatten)]
    book: &'a Book,
}

/// Writes `results.json` and the plots, and the tables into the page of the directory's name.
pub(crate) fn write(
    directory: &Path,
    book: &Book,
    machine: &Machine,
    arguments: &Arguments,
) -> Result<(), Failure> {
    fs::create_dir_all(directory)?;
    let results = Results { machine, arguments, book };
    let json = serde_json::to_string_pretty(&results)? + "\n";
    fs::write(directory.join("results.json"), json)?;
    let plots = plots::draw(directory, book)?;
    let page = directory.with_extension("md");
    if let Ok(text) = fs::read_to_string(&page) {
        let filled = fill(&text, &section(directory, book, machine, arguments, &plots))
            .ok_or_else(|| format!("{} lacks the marks {MARKS:?}", page.display()))?;
        fs::write(page, filled)?;
    }
    Ok(())
}

fn section(
    directory: &Path,
    book: &Book,
    machine: &Machine,
    arguments: &Arguments,
    plots: &[&str],
) -> String {
    let Arguments { rounds, seconds, .. } = arguments;
    let mut text = format!(
        "Measured on: {}. Medians of {rounds} rounds of {seconds} s a case.\n\n{}",
        machine.sentence(),
        book.tables()
    );
    let folder = directory.file_name().unwrap_or_default().to_string_lossy();
    for plot in plots {
        text += &format!("\n![{}]({folder}/{plot}.svg)\n", plot.replace('-', " "));
    }
    text
}

/// The page with something else between its marks.
fn fill(page: &str, section: &str) -> Option<String> {
    let (before, rest) = page.split_once(MARKS[0])?;
    let (_, after) = rest.split_once(MARKS[1])?;
    Some(format!("{before}{}\n\n{}\n\n{}{after}", MARKS[0], section.trim(), MARKS[1]))
}

fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    all.fold(Vec::new(), |mut found, one| {
        if !found.contains(&one) {
            found.push(one);
        }
        found
    })
}
