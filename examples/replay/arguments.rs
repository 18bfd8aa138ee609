//! The command line, and what is settled by it: the same for the process that keeps the books and
//! for the one that has the store open.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::trace::{self, Row};

pub(crate) const USAGE: &str = "\
usage: replay [trace.csv] [--speed N] [--minutes M] [--seed N] [--kills N] [--dir PATH]

  trace.csv     TIMESTAMP,ContextTokens,GeneratedTokens; without it, an hour is made up
  --speed N     how many times faster than the trace (100)
  --minutes M   only the first M minutes of the trace
  --seed N      which double clicks, deaths and faults there are (1)
  --kills N     how often the process with the store is killed on the way (1)
  --dir PATH    a new directory for the store, which is kept; else a temporary one";

#[derive(Debug, Clone)]
pub(crate) struct Arguments {
    pub(crate) trace: Option<PathBuf>,
    pub(crate) speed: f64,
    pub(crate) minutes: Option<f64>,
    pub(crate) seed: u64,
    pub(crate) kills: u32,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) worker: Option<WorkerArguments>,
}

/// What a worker is told besides: hidden arguments, given by the process that starts it.
#[derive(Debug, Clone)]
pub(crate) struct WorkerArguments {
    /// How far into the trace it starts.
    pub(crate) from: Duration,
}

impl Arguments {
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut parsed = Arguments {
            trace: None,
            speed: 100.0,
            minutes: None,
            seed: 1,
            kills: 1,
            directory: None,
            worker: None,
        };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            if !argument.starts_with("--") {
                parsed.trace = Some(argument.into());
                continue;
            }
            let value = arguments.next().ok_or_else(|| format!("{argument} lacks its value"))?;
            let wrong = |error: &dyn Error| format!("{argument} {value}: {error}");
            match argument.as_str() {
                "--speed" => parsed.speed = value.parse().map_err(|error| wrong(&error))?,
                "--minutes" => parsed.minutes = Some(value.parse().map_err(|e| wrong(&e))?),
                "--seed" => parsed.seed = value.parse().map_err(|error| wrong(&error))?,
                "--kills" => parsed.kills = value.parse().map_err(|error| wrong(&error))?,
                "--dir" => parsed.directory = Some(value.into()),
                "--worker-from-millis" => {
                    let from = value.parse().map_err(|error| wrong(&error))?;
                    parsed.worker = Some(WorkerArguments { from: Duration::from_millis(from) });
                }
                _ => return Err(format!("{argument} is no option").into()),
            }
        }
        if !(parsed.speed > 0.0 && parsed.speed <= 10_000.0) {
            return Err("--speed: give more than 0 and at most 10000".into());
        }
        if parsed.minutes.is_some_and(|minutes| !(minutes > 0.0 && minutes < 1e9)) {
            return Err("--minutes: give more than 0".into());
        }
        Ok(parsed)
    }

    /// The command line of a worker that goes on where `from` says, over the store at `store`.
    pub(crate) fn of_worker(&self, store: &Path, from: Duration) -> Vec<PathBuf> {
        let mut words: Vec<PathBuf> = self.trace.iter().cloned().collect();
        let mut option = |name: &str, value: PathBuf| words.extend([name.into(), value]);
        option("--speed", self.speed.to_string().into());
        option("--seed", self.seed.to_string().into());
        if let Some(minutes) = self.minutes {
            option("--minutes", minutes.to_string().into());
        }
        option("--dir", store.to_owned());
        option("--worker-from-millis", from.as_millis().to_string().into());
        words
    }

    pub(crate) fn rows(&self) -> Result<Vec<Row>, Box<dyn Error>> {
        let mut rows = match &self.trace {
            Some(path) => trace::read(path)?,
            None => trace::generate(self.seed),
        };
        if let Some(minutes) = self.minutes {
            let end = Duration::from_secs_f64(minutes * 60.0);
            rows.retain(|row| row.at < end);
        }
        Ok(rows)
    }

    pub(crate) fn trace_name(&self) -> String {
        match &self.trace {
            Some(path) => path.display().to_string(),
            None => "a made-up trace".to_owned(),
        }
    }
}
