//! Chance, seeded: the same numbers for the same seed, in every process that asks.
//!
//! `SplitMix64`. A stream is named by what it is for, so that adding one source of duplicates does
//! not move another.

#![expect(clippy::cast_precision_loss, reason = "52 of 64 random bits are plenty")]

/// A stream of numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream for something, such as the third attempt of an operation.
    pub(crate) fn of(seed: u64, what: &str, which: u64) -> Self {
        let mut stream = Random(seed);
        for byte in what.bytes() {
            stream.0 = stream.next() ^ u64::from(byte);
        }
        stream.0 = stream.next() ^ which;
        stream.next();
        stream
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number in `[0, 1)`.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    pub(crate) fn chance(&mut self, of: f64) -> bool {
        self.unit() < of
    }

    /// A number that spreads as the bell curve does: mean 0, deviation 1.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// The gap to the next of events that happen once in `mean`, each by itself.
    pub(crate) fn gap(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}
