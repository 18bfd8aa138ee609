//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde::Serialize;

use crate::peer::Kind;
use crate::workload::Workload;

/// Measures justonce beside what a user would pick instead, and beside the limits.
///
/// At the same durability, in one process and run, round by round; medians. The whole takes
/// more than an hour: `--quick` shows that all of it works, and says nothing of speed.
#[derive(Debug, Clone, Parser, Serialize)]
pub(crate) struct Arguments {
    /// Live keys of the tables that are claimed onto; several sizes, by commas
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1000000,10000000",
        default_value_if("quick", "true", "20000")
    )]
    pub(crate) keys: Vec<u64>,

    /// Numbers of threads
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1,64,256",
        value_parser = at_least_one
    )]
    pub(crate) threads: Vec<usize>,

    /// Numbers of tasks in flight
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1024,8192",
        value_parser = at_least_one
    )]
    pub(crate) tasks: Vec<usize>,

    /// How long a case of a round lasts
    #[arg(
        long,
        default_value_t = 3.0,
        default_value_if("quick", "true", "0.1"),
        value_parser = above_zero
    )]
    pub(crate) seconds: f64,

    /// Rounds, each with every case and peer
    #[arg(
        long,
        default_value_t = 5,
        default_value_if("quick", "true", "1"),
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(crate) rounds: u32,

    /// Window of the steady state, in seconds
    #[arg(
        long,
        default_value_t = 10.0,
        default_value_if("quick", "true", "0.5"),
        value_parser = above_zero
    )]
    pub(crate) window: f64,

    /// How many windows the steady state lasts
    #[arg(
        long,
        default_value_t = 11,
        default_value_if("quick", "true", "3"),
        value_parser = at_least_one
    )]
    pub(crate) windows: usize,

    /// Those to measure; all by default
    #[arg(long, value_delimiter = ',', value_enum)]
    pub(crate) peers: Vec<Kind>,

    /// What to measure; all by default
    #[arg(long, value_delimiter = ',', value_enum)]
    pub(crate) workloads: Vec<Workload>,

    /// A directory on the disk to measure, never in memory; the default is beside the sources
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,

    /// Where results.json and the plots go; a page DIR.md beside it gets the tables between its
    /// marks
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,

    /// Everything small where it is not said otherwise: 20,000 keys, a round of tenths of a second
    #[arg(long)]
    pub(crate) quick: bool,
}

impl Arguments {
    pub(crate) fn peers(&self) -> Vec<Kind> {
        if self.peers.is_empty() { Kind::value_variants().to_vec() } else { self.peers.clone() }
    }

    pub(crate) fn workloads(&self) -> Vec<Workload> {
        if self.workloads.is_empty() {
            Workload::value_variants().to_vec()
        } else {
            self.workloads.clone()
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("give at least 1".into()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

fn above_zero(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if seconds > 0.0 && seconds < 1e6 => Ok(seconds),
        Ok(_) => Err("give some seconds".into()),
        Err(error) => Err(format!("{error}")),
    }
}
