//! Whatever bytes a row, a shard's summary or a token is said to be: no panic, and what reads as a
//! record is written and read as the same one.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    justonce::fuzzing::record(bytes);
    justonce::fuzzing::summary(bytes);
});
