//! The plots: one SVG.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use crate::fill::Filled;
use crate::measure::{Quantiles, megabytes, millions};

const SIZE: (u32, u32) = (1000, 760);

/// A curve: what it shows, and its points.
struct Curve<'a> {
    caption: &'a str,
    axis: &'a str,
    points: Vec<(f64, f64)>,
}

pub(crate) fn draw(
    path: &Path,
    filled: &Filled,
    bars: &[(&str, Quantiles)],
) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (curves, latencies) = root.split_vertically(380);
    let panels = curves.split_evenly((1, 2));
    let stretches = &filled.stretches;
    // What is much shorter than a generation says little of a rate.
    let longest = stretches.iter().map(|of| of.fresh).max().unwrap_or(0);
    let whole = stretches.iter().filter(|of| of.fresh > longest / 2);
    let rates = Curve {
        caption: "durable claims of fresh keys",
        axis: "1,000 claims a second",
        points: whole.clone().map(|of| (millions(of.keys), of.rate() / 1e3)).collect(),
    };
    let memory = Curve {
        caption: "resident memory",
        axis: "MB",
        points: stretches
            .iter()
            .map(|of| (millions(of.keys), megabytes(of.resident_bytes)))
            .collect(),
    };
    for (panel, curve) in panels.iter().zip([rates, memory]) {
        draw_curve(panel, &curve)?;
    }
    draw_latencies(&latencies, bars)?;
    root.present()?;
    Ok(())
}

type Panel<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw_curve(panel: &Panel<'_>, curve: &Curve<'_>) -> Result<(), Box<dyn Error>> {
    let max = |of: fn(&(f64, f64)) -> f64| curve.points.iter().map(of).fold(1e-3, f64::max);
    let mut chart = ChartBuilder::on(panel)
        .caption(curve.caption, ("sans-serif", 20))
        .margin(14)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..max(|point| point.0), 0.0..max(|point| point.1) * 1.1)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("million live keys")
        .y_desc(curve.axis)
        .label_style(("sans-serif", 13))
        .draw()?;
    chart.draw_series(LineSeries::new(curve.points.iter().copied(), BLUE.stroke_width(2)))?;
    Ok(())
}

/// Three dots a row on a logarithmic axis: p50, p99, p99.9.
fn draw_latencies(panel: &Panel<'_>, rows: &[(&str, Quantiles)]) -> Result<(), Box<dyn Error>> {
    let labels: Vec<&str> = rows.iter().map(|row| row.0).collect();
    let label = |at: &f64| {
        let index = at.round();
        let is_row = (at - index).abs() < 1e-6 && index >= 0.0;
        let name = is_row.then(|| labels.get(index as usize)).flatten();
        name.map_or_else(String::new, ToString::to_string)
    };
    let mut chart = ChartBuilder::on(panel)
        .caption("one call: p50, p99, p99.9", ("sans-serif", 20))
        .margin(14)
        .x_label_area_size(40)
        .y_label_area_size(230)
        .build_cartesian_2d((1.0..100_000.0_f64).log_scale(), -0.5..rows.len() as f64 - 0.5)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(WHITE)
        .y_labels(rows.len() * 2 + 1)
        .y_label_formatter(&label)
        .x_desc("microseconds")
        .label_style(("sans-serif", 13))
        .draw()?;
    for (number, (_, quantiles)) in rows.iter().enumerate() {
        let dots = [(quantiles.p50, GREEN), (quantiles.p99, BLUE), (quantiles.p999, RED)];
        chart.draw_series(dots.iter().map(|(at, colour)| {
            Circle::new((at.as_secs_f64() * 1e6, number as f64), 5, colour.filled())
        }))?;
    }
    Ok(())
}
