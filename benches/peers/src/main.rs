//! justonce beside what a user would pick instead, and beside the limits.
//!
//! `peer` has a file for each way to keep such a table, `workload` one for each load, `report` the
//! tables and plots. None of them knows how another works. docs/benchmarks.md says what the numbers
//! mean and what is unfair to whom.

#![deny(unsafe_code)]

mod arguments;
mod machine;
mod peer;
mod report;
mod workload;

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use arguments::Arguments;
use peer::Failure;
use report::Book;
use workload::Stage;

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let beside_sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let directory = arguments.dir.as_deref().unwrap_or(&beside_sources);
    std::fs::create_dir_all(directory)?;
    machine::refuse_memory(directory)?;
    let machine = machine::Machine::of(directory);
    eprintln!("{}, in {}", machine.sentence(), directory.display());

    let workloads = arguments.workloads();
    let progress = ProgressBar::new(workloads.len() as u64)
        .with_style(ProgressStyle::with_template("{elapsed_precise} {bar:20} {pos}/{len} {msg}")?);
    progress.enable_steady_tick(Duration::from_millis(200));
    let mut book = Book::default();
    for workload in workloads {
        let stage = Stage { arguments: &arguments, directory, progress: &progress };
        workload.run(&stage, &mut book)?;
        progress.inc(1);
    }
    progress.finish_and_clear();

    println!("{}", book.tables());
    if let Some(out) = &arguments.out {
        report::write(out, &book, &machine, &arguments)?;
    }
    Ok(())
}
