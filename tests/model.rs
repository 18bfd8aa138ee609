//! A store against a model: any sequence of calls, restarts, power cuts and steps of the wall clock
//! is answered as a plain map and the rules of the contract would answer it.
//!
//! `JUSTONCE_SOAK=50` runs fifty times as many cases.

#![allow(clippy::allow_attributes, reason = "lints that fire in some helpers only")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

#[path = "model/bench.rs"]
mod bench;
#[path = "model/reference.rs"]
mod reference;
#[path = "model/said.rs"]
mod said;
#[path = "model/steps.rs"]
mod steps;

use std::time::Duration;

use bench::Bench;
use common::eventually;
use justonce::{Operation, Options, WindowFrom};
use proptest::prelude::*;
use reference::Rules;
use steps::{Step, step};

fn soak() -> u32 {
    std::env::var("JUSTONCE_SOAK").map_or(1, |times| times.parse().unwrap())
}

#[expect(clippy::needless_pass_by_value, reason = "each configuration makes its own")]
fn agrees_with_the_model(options: Options, rules: Rules) {
    let config = ProptestConfig {
        cases: 24 * soak(),
        failure_persistence: None,
        max_shrink_iters: 4_000,
        ..ProptestConfig::default()
    };
    proptest!(config, |(steps in proptest::collection::vec(step(), 1..80))| {
        let mut bench = Bench::new(options.clone(), rules);
        for step in &steps {
            bench.step(step)?;
        }
    });
}

const PLAIN: Rules =
    Rules { owners_outlive_the_process: false, window_from: WindowFrom::LastChange };

#[test]
fn a_store_agrees_with_the_model() {
    agrees_with_the_model(Options::new(), PLAIN);
}

#[test]
fn tiny_generations_and_colliding_tags_agree_with_the_model() {
    agrees_with_the_model(Options::new().index_entries(8).tag_bits(3), PLAIN);
}

#[test]
fn owners_that_outlive_the_process_agree_with_the_model() {
    agrees_with_the_model(Options::new(), Rules { owners_outlive_the_process: true, ..PLAIN });
}

#[test]
fn windows_from_the_first_claim_agree_with_the_model() {
    agrees_with_the_model(
        Options::new().index_entries(8).tag_bits(3),
        Rules { window_from: WindowFrom::FirstClaim, ..PLAIN },
    );
}

/// Each record in a file of its own, and all but the last of them sealed before the next step.
#[test]
fn sealed_records_agree_with_the_model() {
    let config = ProptestConfig {
        cases: 8 * soak(),
        failure_persistence: None,
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    };
    proptest!(config, |(steps in proptest::collection::vec(step(), 1..60))| {
        let mut bench = Bench::new(Options::new().generation_bytes(1).tag_bits(3), PLAIN);
        for step in &steps {
            // A batch that begins hundreds of files is a case apart.
            let step = if let Step::Crowd(count) = step { &Step::Crowd(count % 10) } else { step };
            bench.step(step)?;
            eventually("all but the last is sealed", || {
                let stats = bench.store.stats();
                stats.generations <= stats.sealed_generations + 2
            });
        }
    });
}

/// A batch that begins several generations makes their files while the next one is made ready
/// beside it. Whichever is made last, no later file may take the place of one of them.
#[test]
fn nothing_is_lost_when_several_generations_begin_at_once() {
    const STORES: u32 = 6;
    const LANES: u32 = 6;
    for number in 0..STORES {
        let directory = tempfile::tempdir().unwrap();
        let open = || Options::new().open(directory.path().join("store")).unwrap();
        // Twice the window is another lane, and a lane's first record begins a generation.
        let window = |lane: u32| Duration::from_hours(1) * 2u32.pow(lane);
        let event = |lane: u32| Operation::new("acme", format!("lane-{lane}")).window(window(lane));

        let store = open();
        assert!(store.record_once(event(0)).wait().unwrap());
        eventually("the next file is ready", || store.stats().generations == 2);
        let at_once: Vec<_> = (1..LANES - 1).map(|lane| store.record_once(event(lane))).collect();
        for call in at_once {
            assert!(call.wait().unwrap());
        }
        store.close().wait().unwrap();

        let store = open();
        assert!(store.record_once(event(LANES - 1)).wait().unwrap());
        for more in 0..20 {
            // Commits, for about as long as it takes to make the next file.
            let more = Operation::new("crowd", more.to_string()).window(window(0));
            assert!(store.record_once(more).wait().unwrap());
        }
        store.close().wait().unwrap();

        let store = open();
        for lane in 0..LANES {
            let is_first = store.record_once(event(lane)).wait().unwrap();
            assert!(!is_first, "store {number}: the record of lane {lane} is lost");
        }
    }
}
