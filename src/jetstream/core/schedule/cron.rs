//! Cron patterns of six fields: second, minute, hour, day of the month, month, day of the week.

use chrono::{DateTime, Datelike, Duration, NaiveDate, NaiveDateTime, TimeZone, Utc};
use chrono_tz::Tz;

/// How far ahead a matching time is looked for.
const YEARS_AHEAD: i32 = 5;

const MONTHS: &[&str] = &[
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// The values of one field that match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    bits: u64,
    /// Whether it was left open (`*` or `?`).
    open: bool,
}

impl Field {
    fn has(self, value: u32) -> bool {
        self.bits & (1 << value) != 0
    }
}

struct Bounds {
    min: u32,
    max: u32,
    /// Names of values, from `min` on.
    names: &'static [&'static str],
}

/// A cron pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cron {
    second: Field,
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

impl Cron {
    pub(super) fn parse(pattern: &str) -> Option<Self> {
        const NONE: &[&str] = &[];
        let bounds = |min, max, names| Bounds { min, max, names };
        let mut fields = pattern.split_ascii_whitespace();
        let mut field = |bounds| parse_field(fields.next()?, &bounds);
        let cron = Self {
            second: field(bounds(0, 59, NONE))?,
            minute: field(bounds(0, 59, NONE))?,
            hour: field(bounds(0, 23, NONE))?,
            day: field(bounds(1, 31, NONE))?,
            month: field(bounds(1, 12, MONTHS))?,
            weekday: field(bounds(0, 6, DAYS))?,
        };
        fields.next().is_none().then_some(cron)
    }

    /// The first matching second after a time.
    pub(super) fn after(&self, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        let start = after.with_timezone(&zone).naive_local();
        let year_max = start.year() + YEARS_AHEAD;
        let mut date = start.date();
        while date.year() <= year_max {
            if !self.month.has(date.month()) {
                date = first_of_next_month(date)?;
                continue;
            }
            if self.matches_day(date)
                && let Some(found) = self.within(date, after, zone)
            {
                return Some(found);
            }
            date = date.succ_opt()?;
        }
        None
    }

    /// Day of the month and day of the week are either both to match, or, when both say something, one of them.
    fn matches_day(&self, date: NaiveDate) -> bool {
        let day = self.day.has(date.day());
        let weekday = self.weekday.has(date.weekday().num_days_from_sunday());
        if self.day.open || self.weekday.open {
            day && weekday
        } else {
            day || weekday
        }
    }

    /// The first matching second of a day that lies after a time.
    fn within(&self, date: NaiveDate, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        (0..24)
            .filter(|hour| self.hour.has(*hour))
            .find_map(|hour| self.within_hour(date, hour, after, zone))
    }

    /// The same for one of its hours. What the clock shows twice matches twice, what it leaves out never.
    fn within_hour(
        &self,
        date: NaiveDate,
        hour: u32,
        after: DateTime<Utc>,
        zone: Tz,
    ) -> Option<DateTime<Utc>> {
        let minutes = (0..60).filter(|minute| self.minute.has(*minute));
        let shown = minutes.filter_map(|minute| date.and_hms_opt(hour, minute, 0));
        let begins = shown.flat_map(|local| instants(zone, local));
        let still_runs = begins.filter(|begin| *begin + Duration::minutes(1) > after);
        let found = still_runs.filter_map(|begin| {
            let seconds = (0..60).filter(|second| self.second.has(*second));
            let mut moments = seconds.map(|second| begin + Duration::seconds(i64::from(second)));
            moments.find(|moment| *moment > after)
        });
        found.min()
    }
}

/// When a clock in the zone showed this, once, twice or never.
fn instants(zone: Tz, local: NaiveDateTime) -> impl Iterator<Item = DateTime<Utc>> {
    let found = zone.from_local_datetime(&local);
    let (first, second) = (found.earliest(), found.latest());
    let second = second.filter(|second| first != Some(*second));
    first
        .into_iter()
        .chain(second)
        .map(|instant| instant.with_timezone(&Utc))
}

fn first_of_next_month(date: NaiveDate) -> Option<NaiveDate> {
    match date.month() {
        12 => NaiveDate::from_ymd_opt(date.year() + 1, 1, 1),
        month => NaiveDate::from_ymd_opt(date.year(), month + 1, 1),
    }
}

/// Ranges with commas between them.
fn parse_field(text: &str, bounds: &Bounds) -> Option<Field> {
    let mut field = Field {
        bits: 0,
        open: false,
    };
    for range in text.split(',').filter(|range| !range.is_empty()) {
        let range = parse_range(range, bounds)?;
        field.bits |= range.bits;
        field.open |= range.open;
    }
    Some(field)
}

/// `*`, `5`, `1-5`, each with `/step` if need be.
fn parse_range(text: &str, bounds: &Bounds) -> Option<Field> {
    let mut parts = text.split('/');
    let range = parts.next()?;
    let step = parts.next();
    if parts.next().is_some() {
        return None;
    }
    let mut ends = range.split('-');
    let (first, last) = (ends.next()?, ends.next());
    let open = matches!(first, "*" | "?");
    let (start, end) = if open {
        (bounds.min, bounds.max)
    } else {
        let start = parse_value(first, bounds)?;
        let end = match last {
            _ if ends.next().is_some() => return None,
            Some(last) => parse_value(last, bounds)?,
            // `5/10` goes on to the end.
            None if step.is_some() => bounds.max,
            None => start,
        };
        (start, end)
    };
    let end = if open && last.is_none() && step.is_some() {
        bounds.max
    } else {
        end
    };
    let step = match step {
        Some(step) => parse_number(step)?,
        None => 1,
    };
    if start < bounds.min || end > bounds.max || start > end || step == 0 {
        return None;
    }
    let values = (start..=end).step_by(step as usize);
    Some(Field {
        bits: values.fold(0, |bits, value| bits | 1 << value),
        open: open && step == 1,
    })
}

fn parse_value(text: &str, bounds: &Bounds) -> Option<u32> {
    let text = text.to_ascii_lowercase();
    let named = bounds.names.iter().position(|name| *name == text);
    match named {
        Some(at) => u32::try_from(at).ok().map(|at| bounds.min + at),
        None => parse_number(&text),
    }
}

fn parse_number(text: &str) -> Option<u32> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pattern: &str, time: &str, zone: &str) -> Option<String> {
        let cron = Cron::parse(pattern).expect("a pattern");
        let time: DateTime<Utc> = time.parse().expect("a time");
        let zone: Tz = zone.parse().expect("a zone");
        let found = cron.after(time, zone)?;
        Some(found.with_timezone(&zone).to_rfc3339())
    }

    #[test]
    fn the_next_matching_second_is_found() {
        for (pattern, time, expected) in [
            (
                "* * * * * *",
                "2026-01-01T00:00:00.5Z",
                "2026-01-01T00:00:01+00:00",
            ),
            (
                "0 0 * * * *",
                "2026-01-01T00:00:00Z",
                "2026-01-01T01:00:00+00:00",
            ),
            (
                "30 15 10 * * *",
                "2026-01-01T10:15:30Z",
                "2026-01-02T10:15:30+00:00",
            ),
            (
                "0 */15 * * * *",
                "2026-01-01T23:46:00Z",
                "2026-01-02T00:00:00+00:00",
            ),
            (
                "5/20 0 0 1 1 *",
                "2026-02-01T00:00:00Z",
                "2027-01-01T00:00:05+00:00",
            ),
            (
                "0 0 0 29 feb *",
                "2026-01-01T00:00:00Z",
                "2028-02-29T00:00:00+00:00",
            ),
            (
                "0 0 0 * * MON-WED",
                "2026-01-01T00:00:00Z",
                "2026-01-05T00:00:00+00:00",
            ),
            // Both say something: either day will do.
            (
                "0 0 0 13 * fri",
                "2026-01-01T00:00:00Z",
                "2026-01-02T00:00:00+00:00",
            ),
            (
                "0 0 0 1,15 * ?",
                "2026-01-02T00:00:00Z",
                "2026-01-15T00:00:00+00:00",
            ),
        ] {
            let found = after(pattern, time, "UTC");
            assert_eq!(found.as_deref(), Some(expected), "{pattern}");
        }
        assert_eq!(after("0 0 0 31 feb *", "2026-01-01T00:00:00Z", "UTC"), None);
    }

    #[test]
    fn a_zone_decides_what_the_clock_shows() {
        for (time, expected) in [
            ("2026-01-15T00:00:00Z", "2026-01-15T09:30:00-05:00"),
            ("2026-07-15T00:00:00Z", "2026-07-15T09:30:00-04:00"),
        ] {
            let found = after("0 30 9 * * *", time, "America/New_York");
            assert_eq!(found.as_deref(), Some(expected));
        }
        // The clock goes from 02:00 to 03:00: that day has no 02:30.
        let found = after("0 30 2 * * *", "2026-03-29T00:00:00Z", "Europe/Berlin");
        assert_eq!(found.as_deref(), Some("2026-03-30T02:30:00+02:00"));
        // It goes back from 03:00 to 02:00: 02:30 comes twice.
        let found = after("0 30 2 * * *", "2026-10-25T00:30:00Z", "Europe/Berlin");
        assert_eq!(found.as_deref(), Some("2026-10-25T02:30:00+01:00"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in [
            "",
            "* * * * *",
            "* * * * * * *",
            "60 * * * * *",
            "* * 24 * * *",
            "* * * 0 * *",
            "* * * * 13 *",
            "* * * * * 7",
            "5-1 * * * * *",
            "1-2-3 * * * * *",
            "*/0 * * * * *",
            "1/2/3 * * * * *",
            "-1 * * * * *",
            "a * * * * *",
        ] {
            assert!(Cron::parse(pattern).is_none(), "{pattern:?}");
        }
    }
}
