//! Points in time as the API writes them: RFC 3339 in UTC with as many fraction digits as needed.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time in nanoseconds since the Unix epoch, or [`Time::ZERO`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

const NANOSECONDS: i64 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;

impl Time {
    /// No time at all, written as `0001-01-01T00:00:00Z`.
    pub const ZERO: Self = Self(i64::MIN);

    /// The time this many nanoseconds after the Unix epoch.
    pub const fn from_nanoseconds(time_ns: i64) -> Self {
        Self(time_ns)
    }

    /// Nanoseconds since the Unix epoch; far in the past for [`Time::ZERO`].
    pub const fn nanoseconds(self) -> i64 {
        self.0
    }

    /// Whether this is no time at all.
    pub const fn is_zero(self) -> bool {
        self.0 == Self::ZERO.0
    }
}

impl Default for Time {
    fn default() -> Self {
        Self::ZERO
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0001-01-01T00:00:00Z");
        }
        let seconds = self.0.div_euclid(NANOSECONDS);
        let fraction = self.0.rem_euclid(NANOSECONDS);
        let (year, month, day) = civil(seconds.div_euclid(DAY_SECONDS));
        let second = seconds.rem_euclid(DAY_SECONDS);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
            second / 3600,
            second / 60 % 60,
            second % 60
        )?;
        if fraction != 0 {
            let digits = format!("{fraction:09}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

/// The Gregorian date of a day counted from 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn civil(day_number: i64) -> (i64, i64, i64) {
    let shifted = day_number + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| de::Error::custom(format!("parsing time {text:?}")))
    }
}

/// Times outside of what 64-bit nanoseconds hold become [`Time::ZERO`] (before) or the last one (after).
fn parse(text: &str) -> Option<Time> {
    let format = &::time::format_description::well_known::Rfc3339;
    let parsed = ::time::OffsetDateTime::parse(text, format).ok()?;
    let time_ns = parsed.unix_timestamp_nanos();
    Some(match i64::try_from(time_ns) {
        Ok(time_ns) => Time(time_ns),
        Err(_) if time_ns < 0 => Time::ZERO,
        Err(_) => Time(i64::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_as_many_digits_as_needed() {
        for (time_ns, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_795_423_022_664_419_122, "2026-11-23T08:37:02.664419122Z"),
            (1_795_423_022_664_000_000, "2026-11-23T08:37:02.664Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (4_070_908_800_000_000_000, "2099-01-01T00:00:00Z"),
        ] {
            assert_eq!(Time::from_nanoseconds(time_ns).to_string(), text);
            assert_eq!(parse(text), Some(Time::from_nanoseconds(time_ns)));
        }
    }

    #[test]
    fn no_time_survives_a_round_trip() {
        assert_eq!(parse(&Time::ZERO.to_string()), Some(Time::ZERO));
    }

    #[test]
    fn other_zones_are_taken_to_utc() {
        assert_eq!(
            parse("2026-11-23T10:37:02+02:00").map(|time| time.to_string()),
            Some("2026-11-23T08:37:02Z".to_owned())
        );
        assert_eq!(parse("yesterday"), None);
    }
}
