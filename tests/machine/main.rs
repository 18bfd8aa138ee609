//! The real machine: processes that are killed, stopped and forked, disks that are full or fail,
//! threads and files that run out.
//!
//! A child is this program again, told which test it has a part in. What a machine has not, or a
//! user who is not root may not do, is left out, and a line says so.

#![cfg(unix)]
#![allow(unreachable_pub, reason = "a module of test binaries has no outside")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]
#![allow(clippy::print_stderr, reason = "what was left out, and seeds, are shown")]

#[path = "../common/mod.rs"]
mod common;

mod child;
mod directory;
mod disks;
mod forked;
mod killed;
mod ledger;
mod limits;
mod panics;
mod stopped;
