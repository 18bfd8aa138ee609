//! Tables, in Markdown: a row for each case, a column for each peer.

use std::fmt::Write as _;

use super::{Book, Measurement, Steady, Unit, distinct};
use crate::peer::{Kind, Role};
use crate::workload::Workload;

pub(super) fn all(book: &Book) -> String {
    let mut text = String::new();
    for workload in book.workloads() {
        text += &cases(workload, &book.of(workload));
    }
    if !book.steady.is_empty() {
        text += &steady(&book.steady);
    }
    text
}

/// In brackets how many times as fast justonce is; below a peer that has no tasks, than it is at
/// its best number of threads.
fn cases(workload: Workload, measurements: &[&Measurement]) -> String {
    let peers = distinct(measurements.iter().map(|of| of.peer));
    let mut text = format!("### {}\n\n| case |", workload.name());
    for peer in &peers {
        let _ = write!(text, " {} |", peer.name());
    }
    text += "\n|---|";
    text += &"---:|".repeat(peers.len());
    for case in distinct(measurements.iter().map(|of| &of.case)) {
        let of_case: Vec<_> = measurements.iter().filter(|of| of.case == *case).copied().collect();
        let ours = of_case.iter().find(|of| of.peer == Kind::Justonce).map(|of| of.median());
        let _ = write!(text, "\n| {case} |");
        for peer in &peers {
            let here = of_case.iter().find(|of| of.peer == *peer);
            let best = || best_of(measurements, *peer, case);
            text += &match (here, here.copied().or_else(best), ours) {
                (Some(of), ..) if *peer == Kind::Justonce => format!(" **{}** |", value(of)),
                (Some(of), _, None) => format!(" {} |", value(of)),
                (Some(of), _, Some(ours)) => {
                    format!(" {} ({}) |", value(of), times(of.unit.ratio(ours, of.median())))
                }
                (None, Some(of), Some(ours)) => {
                    format!(" ({}) |", times(of.unit.ratio(ours, of.median())))
                }
                (None, ..) => " |".to_owned(),
            };
        }
    }
    text + "\n\n"
}

/// The best that a peer did with the same table, however many threads it took.
fn best_of<'a>(
    measurements: &[&'a Measurement],
    peer: Kind,
    case: &str,
) -> Option<&'a Measurement> {
    let table = |case: &str| case.rsplit_once(", ").map(|(table, _)| table.to_owned());
    measurements
        .iter()
        .filter(|of| of.peer == peer && of.unit == Unit::PerSecond)
        .filter(|of| table(&of.case) == table(case))
        .max_by(|a, b| a.median().total_cmp(&b.median()))
        .copied()
}

/// First window, last window, and the one against the other.
fn steady(peers: &[Steady]) -> String {
    let mut text = "### steady state with expiry\n\n| | claims/s, first window | last | ratio \
                    | p99.9, first | last | ratio | on disk, second window | last | ratio |\n|---"
        .to_owned();
    text += &"|---:".repeat(9);
    text += "|";
    for Steady { peer, windows } in peers {
        let (Some(first), Some(last)) = (windows.first(), windows.last()) else { continue };
        let second = windows.get(1).unwrap_or(first);
        // What has nothing on disk has no size to compare.
        let growth =
            if second.bytes == 0 { f64::NAN } else { last.bytes as f64 / second.bytes as f64 };
        let _ = write!(
            text,
            "\n| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            emphasized(*peer),
            rate(first.claims_per_second),
            rate(last.claims_per_second),
            times(last.claims_per_second / first.claims_per_second),
            micros(first.p999_micros),
            micros(last.p999_micros),
            times(last.p999_micros / first.p999_micros),
            megabytes(second.bytes),
            megabytes(last.bytes),
            times(growth),
        );
    }
    text + "\n\n"
}

fn emphasized(peer: Kind) -> String {
    match peer.role() {
        Role::Ours => format!("**{}**", peer.name()),
        Role::Peer | Role::Limit => peer.name().to_owned(),
    }
}

fn value(of: &Measurement) -> String {
    match of.unit {
        Unit::PerSecond => rate(of.median()),
        Unit::Micros => micros(of.median()),
    }
}

/// Three digits.
fn digits(value: f64) -> String {
    match value {
        value if value <= 0.0 => "0".to_owned(),
        value if value >= 99.95 => format!("{value:.0}"),
        value if value >= 9.995 => format!("{value:.1}"),
        value if value >= 0.0995 => format!("{value:.2}"),
        value => format!("{value:.4}"),
    }
}

fn rate(value: f64) -> String {
    match value {
        value if value >= 999_500.0 => format!("{} M", digits(value / 1e6)),
        value if value >= 999.5 => format!("{} k", digits(value / 1e3)),
        value => digits(value),
    }
}

fn micros(value: f64) -> String {
    if value >= 999.5 { format!("{} ms", digits(value / 1e3)) } else { digits(value) + " µs" }
}

fn megabytes(bytes: u64) -> String {
    digits(bytes as f64 / 1e6) + " MB"
}

fn times(ratio: f64) -> String {
    if ratio.is_finite() { format!("{}×", digits(ratio)) } else { "–".to_owned() }
}
