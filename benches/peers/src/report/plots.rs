//! Plots: one SVG for each workload.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::{Book, Measurement, Steady, Unit, Window, distinct};
use crate::peer::{Failure, Kind};
use crate::workload::Workload;

const WIDTH: u32 = 1000;
const ROW_HEIGHT: u32 = 44;
const FRAME_HEIGHT: u32 = 130;
const PANEL_HEIGHT: u32 = 260;
const LABELS: u32 = 250;

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// What is drawn of a window.
type OfWindow = fn(&Window) -> f64;

/// Draws them into a directory and returns their names.
pub(super) fn draw(directory: &Path, book: &Book) -> Result<Vec<&'static str>, Failure> {
    let mut names = Vec::new();
    for workload in book.workloads() {
        let name = file_name(workload);
        draw_cases(&directory.join(name).with_extension("svg"), workload, &book.of(workload))?;
        names.push(name);
    }
    if !book.steady.is_empty() {
        let name = file_name(Workload::Steady);
        draw_steady(&directory.join(name).with_extension("svg"), &book.steady)?;
        names.push(name);
    }
    Ok(names)
}

fn file_name(workload: Workload) -> &'static str {
    match workload {
        Workload::Fresh => "fresh-claims",
        Workload::Duplicates => "duplicates",
        Workload::Complete => "claim-and-complete",
        Workload::Steady => "steady-state",
        Workload::Strict => "strict-beside-synced",
    }
}

/// A row for each case, and on it a dot for each peer.
fn draw_cases(path: &Path, workload: Workload, all: &[&Measurement]) -> Result<(), Failure> {
    let cases = distinct(all.iter().map(|of| &of.case));
    let height = FRAME_HEIGHT + ROW_HEIGHT * u32::try_from(cases.len())?;
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let unit = all.first().map_or(Unit::PerSecond, |of| of.unit);
    let medians = || all.iter().map(|of| of.median());
    let range = medians().fold(f64::MAX, f64::min) / 1.5..medians().fold(0.0, f64::max) * 1.5;
    // The first case on top.
    let row = |case: &String| cases.iter().rev().position(|of| *of == case).unwrap_or(0);
    let label = |at: &f64| {
        let index = at.round();
        let is_row = (at - index).abs() < 1e-6 && index >= 0.0;
        let case = is_row.then(|| cases.iter().rev().nth(index as usize)).flatten();
        case.map_or_else(String::new, ToString::to_string)
    };
    let mut chart = ChartBuilder::on(&root)
        .caption(workload.name(), ("sans-serif", 20))
        .margin(14)
        .x_label_area_size(40)
        .y_label_area_size(LABELS)
        .build_cartesian_2d(range.log_scale(), -0.5..cases.len() as f64 - 0.5)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(WHITE)
        .y_labels(cases.len() * 2 + 1)
        .y_label_formatter(&label)
        .x_desc(match unit {
            Unit::PerSecond => "a second",
            Unit::Micros => "microseconds",
        })
        .label_style(("sans-serif", 13))
        .draw()?;
    for peer in distinct(all.iter().map(|of| of.peer)) {
        let colour = colour(peer);
        let dots = all.iter().filter(|of| of.peer == peer);
        let dots = dots.map(|of| (of.median(), row(&of.case) as f64));
        chart
            .draw_series(dots.map(|dot| Circle::new(dot, 5, colour.filled())))?
            .label(peer.name())
            .legend(move |at| Circle::new(at, 5, colour.filled()));
    }
    legend(&mut chart)?;
    root.present()?;
    Ok(())
}

/// Rate, p99.9 and space on disk, window by window; a line for each peer.
fn draw_steady(path: &Path, peers: &[Steady]) -> Result<(), Failure> {
    let root = SVGBackend::new(path, (WIDTH, PANEL_HEIGHT * 3)).into_drawing_area();
    root.fill(&WHITE)?;
    let shown: [(&str, OfWindow); 3] = [
        ("claims a second", |window| window.claims_per_second),
        ("p99.9, microseconds", |window| window.p999_micros),
        ("MB on disk", |window| window.bytes as f64 / 1e6),
    ];
    for (panel, (caption, of_window)) in root.split_evenly((3, 1)).iter().zip(shown) {
        draw_windows(panel, caption, peers, of_window)?;
    }
    root.present()?;
    Ok(())
}

fn draw_windows(
    panel: &Panel<'_>,
    caption: &str,
    peers: &[Steady],
    of_window: OfWindow,
) -> Result<(), Failure> {
    // What is not there has no place on a logarithmic axis.
    let points = |of: &Steady| -> Vec<(f64, f64)> {
        let values = of.windows.iter().map(of_window);
        (1..).map(f64::from).zip(values).filter(|(_, value)| *value > 0.0).collect()
    };
    let all: Vec<_> = peers.iter().flat_map(points).collect();
    let of_all = |start: f64, pick: fn(f64, f64) -> f64| {
        all.iter().map(|(_, value)| *value).fold(start, pick)
    };
    let last = all.iter().map(|(window, _)| *window).fold(1.0, f64::max);
    let range = of_all(f64::MAX, f64::min) / 1.5..of_all(1e-3, f64::max) * 1.5;
    let mut chart = ChartBuilder::on(panel)
        .caption(caption, ("sans-serif", 20))
        .margin(14)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(1.0..last.max(2.0), range.log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("window")
        .label_style(("sans-serif", 13))
        .draw()?;
    for of in peers {
        let colour = colour(of.peer);
        chart
            .draw_series(LineSeries::new(points(of), colour.stroke_width(2)))?
            .label(of.peer.name())
            .legend(move |at| Circle::new(at, 5, colour.filled()));
    }
    legend(&mut chart)
}

fn legend<'a, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
) -> Result<(), Failure>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 13))
        .draw()?;
    Ok(())
}

/// Told apart by those who see few colours as well.
fn colour(peer: Kind) -> RGBColor {
    match peer {
        Kind::Justonce => RGBColor(0, 0, 0),
        Kind::Strict => RGBColor(120, 120, 120),
        Kind::Redb => RGBColor(213, 94, 0),
        Kind::Sqlite => RGBColor(0, 114, 178),
        Kind::Lmdb => RGBColor(0, 158, 115),
        #[cfg(feature = "rocksdb")]
        Kind::Rocksdb => RGBColor(204, 121, 167),
        Kind::Fjall => RGBColor(230, 159, 0),
        Kind::RawLog => RGBColor(86, 180, 233),
        Kind::Map => RGBColor(190, 190, 120),
    }
}
