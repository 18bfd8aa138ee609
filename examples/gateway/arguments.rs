//! The command line.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const USAGE: &str = "\
usage: gateway [--port N] [--upstream URL] [--dir PATH] [--tries N] [--wait SECONDS]
               [--at-most-once] [--latency-ms N] [--fail-every N] [--model-server]

  --port N          where to listen on 127.0.0.1 (8080; 0: any)
  --upstream URL    the model server, http alone (one of its own)
  --dir PATH        the store's directory, which is kept (a temporary one)
  --tries N         upstream calls an attempt may take (4)
  --wait SECONDS    longest a client may wait (300)
  --at-most-once    fail what may have been sent when the gateway died
  --latency-ms N    of the gateway's own model server (400)
  --fail-every N    every N-th call of it answers 503 (0: never)
  --model-server    be that model server and nothing else";

#[derive(Debug, Clone)]
pub(crate) struct Arguments {
    pub(crate) port: u16,
    pub(crate) upstream: Option<String>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) tries: u32,
    pub(crate) wait: Duration,
    pub(crate) at_most_once: bool,
    pub(crate) latency: Duration,
    pub(crate) fail_every: u64,
    pub(crate) model_server: bool,
}

impl Arguments {
    pub(crate) fn parse(
        mut arguments: impl Iterator<Item = String>,
    ) -> Result<Self, Box<dyn Error>> {
        let mut parsed = Arguments {
            port: 8080,
            upstream: None,
            directory: None,
            tries: 4,
            wait: Duration::from_mins(5),
            at_most_once: false,
            latency: Duration::from_millis(400),
            fail_every: 0,
            model_server: false,
        };
        while let Some(argument) = arguments.next() {
            let mut value =
                || arguments.next().ok_or_else(|| format!("{argument} lacks its value"));
            match argument.as_str() {
                "--port" => parsed.port = value()?.parse()?,
                "--upstream" => {
                    parsed.upstream = Some(value()?.trim_end_matches('/').to_owned());
                }
                "--dir" => parsed.directory = Some(value()?.into()),
                "--tries" => parsed.tries = value()?.parse()?,
                "--wait" => parsed.wait = Duration::from_secs(value()?.parse()?),
                "--at-most-once" => parsed.at_most_once = true,
                "--latency-ms" => parsed.latency = Duration::from_millis(value()?.parse()?),
                "--fail-every" => parsed.fail_every = value()?.parse()?,
                "--model-server" => parsed.model_server = true,
                _ => return Err(format!("{argument} is not known").into()),
            }
        }
        Ok(parsed)
    }
}
