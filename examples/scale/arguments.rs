//! The command line.

use std::error::Error;
use std::path::PathBuf;

pub(crate) const USAGE: &str = "\
usage: scale [--keys N] [--clients N] [--batch N] [--completed PERCENT] [--days N]
             [--dir PATH] [--svg PATH]

  --keys N             fresh keys to claim (10000000)
  --clients N          threads that claim, two batches under way each (2)
  --batch N            operations of a batch (8192)
  --completed PERCENT  how many of the operations are completed, with 100 bytes (0)
  --days N             length of the run with mixed windows; 0: none (30)
  --dir PATH           a new directory for the store, which is kept; else a temporary one
  --svg PATH           where the plots go; else nowhere";

#[derive(Debug, Clone)]
pub(crate) struct Arguments {
    pub(crate) keys: u64,
    pub(crate) clients: u64,
    pub(crate) batch: u64,
    pub(crate) completed_percent: u64,
    pub(crate) days: u64,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) svg: Option<PathBuf>,
    /// Hidden: claims keys from this one on in `directory` until it is killed.
    pub(crate) claim_from: Option<u64>,
}

impl Arguments {
    pub(crate) fn parse(
        mut arguments: impl Iterator<Item = String>,
    ) -> Result<Self, Box<dyn Error>> {
        let mut parsed = Arguments {
            keys: 10_000_000,
            clients: 2,
            batch: 8192,
            completed_percent: 0,
            days: 30,
            directory: None,
            svg: None,
            claim_from: None,
        };
        while let Some(argument) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{argument} lacks its value"))?;
            let number = || value.parse().map_err(|error| format!("{argument} {value}: {error}"));
            match argument.as_str() {
                "--keys" => parsed.keys = number()?,
                "--clients" => parsed.clients = number()?,
                "--batch" => parsed.batch = number()?,
                "--completed" => parsed.completed_percent = number()?,
                "--days" => parsed.days = number()?,
                "--claim-from" => parsed.claim_from = Some(number()?),
                "--dir" => parsed.directory = Some(value.into()),
                "--svg" => parsed.svg = Some(value.into()),
                _ => return Err(format!("{argument} is no option").into()),
            }
        }
        let too_small = parsed.clients == 0 || parsed.batch == 0 || parsed.keys < parsed.batch;
        if too_small || parsed.completed_percent > 100 {
            return Err("give at least one client and one batch, and at most 100 percent".into());
        }
        Ok(parsed)
    }
}
