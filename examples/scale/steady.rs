//! A store in which files come and go all the time, beside one in which none does.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use justonce::{Claim, ManualClock, Operation, Options, Store};

use crate::fill::{keep, operation};
use crate::measure::{Latencies, Quantiles};

const WINDOW: Duration = Duration::from_hours(1);

/// The clock moves this far at a time: more than an eighth of the windows' lane, so that each time
/// a file is begun, the one before is sealed, and one is over.
const STEP: Duration = Duration::from_mins(10);

const EVERY: Duration = Duration::from_millis(100);
const LASTS: Duration = Duration::from_secs(15);

/// Operations of a batch of the load beside which single claims are timed.
const BATCH: u64 = 256;

#[derive(Debug)]
pub(crate) struct Steady {
    pub(crate) at_rest: Quantiles,
    pub(crate) in_motion: Quantiles,
    pub(crate) files_gone: u64,
}

pub(crate) fn run(path: &Path) -> Result<Steady, Box<dyn Error>> {
    let (at_rest, _) = time(&path.join("at rest"), false)?;
    let (in_motion, files_gone) = time(&path.join("in motion"), true)?;
    Ok(Steady { at_rest, in_motion, files_gone })
}

fn time(path: &Path, moving: bool) -> Result<(Quantiles, u64), Box<dyn Error>> {
    let clock = ManualClock::new();
    let store = Options::new().window(WINDOW).clock(&clock).open(path)?;
    let (over, gone) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let load = scope.spawn(|| load(&store, &over));
        let motion = scope.spawn(|| {
            let mut before = 0;
            while !over.load(Ordering::Relaxed) {
                thread::sleep(EVERY);
                let sealed = store.stats().sealed_generations as u64;
                // One was sealed and did not add to them: another went.
                gone.fetch_add(u64::from(sealed > 0 && sealed <= before), Ordering::Relaxed);
                before = sealed;
                if moving {
                    clock.advance(STEP);
                }
            }
        });
        let latencies = probe(&store);
        over.store(true, Ordering::Relaxed);
        load.join().map_err(|_| "the load panicked")??;
        motion.join().map_err(|_| "the clock panicked")?;
        Ok((latencies?.quantiles(), gone.load(Ordering::Relaxed)))
    })
}

fn load(store: &Store, over: &AtomicBool) -> Result<(), justonce::Error> {
    for batch in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let from = batch * BATCH;
        for claim in store.claim_many((from..from + BATCH).map(operation)).wait()? {
            if let Claim::New(ticket) = claim {
                keep(ticket);
            }
        }
    }
    Ok(())
}

fn probe(store: &Store) -> Result<Latencies, justonce::Error> {
    let mut latencies = Latencies::default();
    let started = Instant::now();
    for number in 0_u64.. {
        if started.elapsed() > LASTS {
            break;
        }
        let key = Operation::new("probe", number.to_le_bytes());
        if let Claim::New(ticket) = latencies.time(|| store.claim(key).wait())? {
            keep(ticket);
        }
    }
    Ok(latencies)
}
