//! Power cuts at any change of the disk: what was acknowledged is there, whatever was lost, kept or
//! torn of what was not synced, and though the power goes again while the store recovers.
//!
//! A store works on a disk that keeps a journal of its changes. From that, images of the disk are
//! rebuilt as power cuts may leave them, and each is opened, held to what had been answered, worked
//! with, cut off once more and opened again. The threads of a store take turns as they like, so a
//! seed gives the same calls and not the same journal.
//!
//! `JUSTONCE_SOAK=50` runs fifty times as many seeds, `JUSTONCE_SEED` says which is the first.

#![allow(clippy::allow_attributes, reason = "lints that fire in some helpers only")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use common::image::{Fate, Replay};
use common::journal::{Change, Image, Journal};
use common::ledger::Ledger;
use common::random::{Random, first_seed, soak};
use common::work::Work;
use justonce::{Durability, ManualClock, Options, Store};

const OPERATIONS: usize = 16;

/// Changes that are shown where a test fails.
const SHOWN: usize = 12;

/// A store that works, from its first opening, and what came of it.
struct Run {
    options: Options,
    seed: u64,
    log: Vec<Change>,
    ledger: Ledger,
}

impl Run {
    fn of(durability: Durability, seed: u64, steps: usize) -> Self {
        let mut random = Random::of(seed);
        let options = Options::new()
            .durability(durability)
            .generation_bytes(random.pick(&[1, 600, 2_000, 8_000]))
            .index_entries(8)
            .tag_bits(random.pick(&[4, 32]));
        let clock = ManualClock::new();
        let ledger = Ledger::of(vec![None; OPERATIONS], clock.wall());
        let journal = Journal::default();
        let mut work = Work::on(&journal, options.clone(), clock, ledger, random, None);
        (0..steps).for_each(|_| work.step());
        let (journal, ledger) = work.end();
        Run { options, seed, log: journal.log(), ledger }
    }

    /// Cuts it off at each of some positions, in order, and holds what is left to what was told:
    /// for one fate of what was not synced, or for each.
    fn cut_off_at(&self, positions: impl Iterator<Item = usize>, each_fate: bool) -> u64 {
        let mut images = 0;
        let nothing = Image::new();
        let mut replay = Replay::of(&nothing, &self.log);
        for position in positions {
            replay.advance_to(position);
            let mut random = Random::of(self.seed ^ (position as u64) << 32);
            let one = [random.pick(&Fate::ALL)];
            for &fate in if each_fate { &Fate::ALL[..] } else { &one[..] } {
                let mut random = random.clone();
                let image = replay.image(fate, &mut random);
                let case = format!("seed {}, {fate:?}, {:?}", self.seed, self.options);
                images += named(&case, &self.log, position, || {
                    self.recover_twice(&image, position, random)
                });
            }
        }
        images
    }

    /// Opens an image, works a little, cuts that off too and opens what is left. Returns how many
    /// images there were.
    fn recover_twice(&self, image: &Image, position: usize, mut random: Random) -> u64 {
        let clock = ManualClock::new();
        clock.set_wall(self.ledger.time(position));
        let journal = Journal::on(image);
        let store = self.open(&journal, &clock);
        let found = self.ledger.check(&store, position);
        if random.one_in(4) {
            found.assert_claims(&store, self.ledger.last_fence(position));
            return 1;
        }
        let options = self.options.clone();
        let steps = random.pick(&[0, 0, 1, 6]);
        let mut work = Work::on(&journal, options, clock, found, random.clone(), Some(store));
        (0..steps).for_each(|_| work.step());
        let (journal, ledger) = work.end();

        let log = journal.log();
        let mut replay = Replay::of(image, &log);
        let position = random.below(log.len() + 1);
        replay.advance_to(position);
        let fate = random.pick(&Fate::ALL);
        let image = replay.image(fate, &mut random);
        named(&format!("again, {fate:?}"), &log, position, || {
            let left = Journal::on(&image);
            let clock = ManualClock::new();
            clock.set_wall(ledger.time(position));
            let store = self.open(&left, &clock);
            let found = ledger.check(&store, position);
            found.assert_claims(&store, ledger.last_fence(position));
            left.cut_off();
        });
        2
    }

    fn open(&self, journal: &Journal, clock: &ManualClock) -> Store {
        let options = self.options.clone().clock(clock);
        options.open_in(Arc::new(journal.clone())).unwrap()
    }
}

/// Says where it was if `test` fails: the case, and the last changes before the cut.
fn named<T>(case: &str, log: &[Change], position: usize, test: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(test)).unwrap_or_else(|panic| {
        eprintln!("cut off at {position} of {}: {case}", log.len());
        let first = position.saturating_sub(SHOWN);
        for (at, change) in (first..position).zip(&log[first..position]) {
            eprintln!("{at}: {}", shown(change));
        }
        resume_unwind(panic)
    })
}

fn shown(change: &Change) -> String {
    match change {
        Change::Write { file, offset, data } => {
            format!("write {} bytes at {offset} of file {file}", data.len())
        }
        other => format!("{other:?}"),
    }
}

/// Cuts runs of a store off at positions of which there are `cuts` a run.
fn cut_off_at_random(durability: Durability, seeds: u64, cuts: usize) {
    let (mut images, mut changes) = (0, 0);
    for seed in first_seed()..first_seed() + seeds * soak() {
        let run = Run::of(durability, seed, 150);
        let mut random = Random::of(!seed);
        let mut positions: Vec<_> = (0..cuts).map(|_| random.below(run.log.len() + 1)).collect();
        positions.sort_unstable();
        changes += run.log.len();
        images += run.cut_off_at(positions.into_iter(), false);
    }
    eprintln!("{images} images of {seeds} x {} runs with {changes} changes", soak());
}

#[test]
fn nothing_acknowledged_is_lost_wherever_a_synced_store_is_cut_off() {
    cut_off_at_random(Durability::Synced, 8, 300);
}

#[test]
fn nothing_acknowledged_is_lost_wherever_a_strict_store_is_cut_off() {
    cut_off_at_random(Durability::Strict, 4, 300);
}

/// All positions of a store's first opening, its first calls, and its end.
#[test]
fn a_store_that_is_cut_off_while_it_is_made_can_be_opened() {
    let mut images = 0;
    for seed in first_seed()..first_seed() + 2 * soak() {
        let run = Run::of(Durability::Synced, seed, 3);
        images += run.cut_off_at(0..=run.log.len(), true);
    }
    eprintln!("{images} images");
}
