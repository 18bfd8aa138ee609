//! Lanes: records that are kept about equally long share files.
//!
//! A lane is a power of two of milliseconds; a record goes to the smallest that its retention
//! fits, so a record of a minute never waits in a file for one of a month.

/// Shortest lane: 65.5 s. Shorter windows are exact all the same; only their files live longer.
const SHORTEST_LOG2: u32 = 16;

/// Longest lane: 69 years, more than any window and lease together.
const LONGEST_LOG2: u32 = 41;

/// A class of retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Lane(u8);

/// What a file is told with its first rows: the lane it serves, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opening {
    pub(crate) lane: Lane,
    pub(crate) opened_at: u64,
}

impl Lane {
    /// The lane of a record that is to be kept this long from now on.
    pub(crate) fn for_retention(millis: u64) -> Self {
        let log2 = millis.max(1).next_power_of_two().trailing_zeros();
        Lane(log2.clamp(SHORTEST_LOG2, LONGEST_LOG2) as u8)
    }

    /// How long its files take new records: an eighth of its length, in milliseconds.
    pub(crate) fn rotation_millis(self) -> u64 {
        (1 << self.0) / 8
    }
}

impl Opening {
    /// Whether the file should take no more records at this time.
    pub(crate) fn is_over(&self, now: u64) -> bool {
        now >= self.over_at()
    }

    /// From when on it should take no more.
    pub(crate) fn over_at(&self) -> u64 {
        self.opened_at.saturating_add(self.lane.rotation_millis())
    }

    pub(super) fn to_bytes(self) -> [u8; 9] {
        let mut bytes = [self.lane.0; 9];
        bytes[1..].copy_from_slice(&self.opened_at.to_le_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&lane, opened_at) = bytes.split_first()?;
        let opened_at = u64::from_le_bytes(opened_at.try_into().ok()?);
        let known = (SHORTEST_LOG2..=LONGEST_LOG2).contains(&u32::from(lane));
        known.then_some(Opening { lane: Lane(lane), opened_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_goes_to_the_smallest_lane_it_fits() {
        let day = 86_400_000;
        let lane = Lane::for_retention(day);
        assert_eq!(lane, Lane::for_retention(1 << 27));
        assert_ne!(lane, Lane::for_retention((1 << 27) + 1));
        assert_eq!(lane.rotation_millis(), (1 << 27) / 8);
        assert_eq!(Lane::for_retention(0), Lane::for_retention(60_000));
        assert_eq!(Lane::for_retention(u64::MAX / 2).0, 41);
    }

    #[test]
    fn an_opening_reads_back_and_nothing_else_does() {
        let opening = Opening { lane: Lane::for_retention(86_400_000), opened_at: 77 };
        assert_eq!(Opening::from_bytes(&opening.to_bytes()), Some(opening));
        assert_eq!(Opening::from_bytes(&[200; 9]), None);
        assert_eq!(Opening::from_bytes(&[20; 8]), None);
        assert_eq!(Opening::from_bytes(&[]), None);
    }
}
