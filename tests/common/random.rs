//! Chance, seeded: the same numbers for the same seed.

/// A stream of numbers: `SplitMix64`.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn of(seed: u64) -> Self {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// Whether something happens that does so once in `times`.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// How many times as many cases are to run: `JUSTONCE_SOAK`, or 1.
pub fn soak() -> u64 {
    std::env::var("JUSTONCE_SOAK").map_or(1, |times| times.parse().unwrap())
}

/// What the seeds of a test begin with: `JUSTONCE_SEED`, or 1.
pub fn first_seed() -> u64 {
    std::env::var("JUSTONCE_SEED").map_or(1, |seed| seed.parse().unwrap())
}
