//! Times and sizes, for people.

use std::fmt;

/// Milliseconds since the Unix epoch, as a date and a time of day in UTC.
pub(crate) struct Utc(pub(crate) u64);

/// Bytes, in the unit that suits.
pub(crate) struct Bytes(pub(crate) u64);

const DAY_MILLIS: u64 = 86_400_000;

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date(self.0 / DAY_MILLIS);
        let of_day = self.0 % DAY_MILLIS;
        let (hours, minutes) = (of_day / 3_600_000, of_day / 60_000 % 60);
        let (seconds, millis) = (of_day / 1000 % 60, of_day % 1000);
        write!(f, "{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
    }
}

/// Year, month and day of a number of days since 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    // Years begin in March here, so that the day that comes and goes is the last of one. The
    // calendar repeats after 400 years of 146,097 days.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let mut unit = 0;
        let mut tenths = u128::from(self.0) * 10;
        while tenths >= 10_240 && unit + 1 < UNITS.len() {
            tenths /= 1024;
            unit += 1;
        }
        let name = UNITS.get(unit).copied().unwrap_or_default();
        if unit == 0 {
            write!(f, "{} {name}", self.0)
        } else {
            write!(f, "{}.{} {name}", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_as_its_date() {
        let text = |millis| Utc(millis).to_string();
        assert_eq!(text(0), "1970-01-01 00:00:00.000Z");
        // From `date -u -d @…`.
        assert_eq!(text(951_782_400_000), "2000-02-29 00:00:00.000Z");
        assert_eq!(text(1_735_689_599_999), "2024-12-31 23:59:59.999Z");
        assert_eq!(text(4_107_542_400_000), "2100-03-01 00:00:00.000Z");
    }

    #[test]
    fn each_day_follows_the_one_before() {
        let mut before = date(0);
        for days in 1..200_000 {
            let next = date(days);
            let (year, month, day) = before;
            let follows = next == (year, month, day + 1)
                || next == (year, month + 1, 1) && day >= 28
                || next == (year + 1, 1, 1) && (month, day) == (12, 31);
            assert!(follows, "{next:?} after {before:?}");
            before = next;
        }
    }

    #[test]
    fn a_size_reads_in_its_unit() {
        assert_eq!(Bytes(0).to_string(), "0 B");
        assert_eq!(Bytes(1023).to_string(), "1023 B");
        assert_eq!(Bytes(1536).to_string(), "1.5 KiB");
        assert_eq!(Bytes(64 << 20).to_string(), "64.0 MiB");
    }
}
