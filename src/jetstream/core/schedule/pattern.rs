//! When a schedule fires.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use super::cron::Cron;
use crate::jetstream::core::duration;

const SECOND_NS: i64 = 1_000_000_000;

/// When a schedule fires next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Firing {
    /// In nanoseconds since the epoch.
    pub(crate) at_ns: i64,
    /// Whether it fires again after that.
    pub(crate) repeats: bool,
}

/// What is wrong with a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatternError {
    /// The pattern.
    Pattern,
    /// The time zone.
    TimeZone,
}

/// When a schedule fires after `last_ns`. One that would have fired several times until `now_ns` fires once for all of them.
pub(crate) fn next(
    pattern: &str,
    zone: Option<&[u8]>,
    last_ns: i64,
    now_ns: i64,
) -> Result<Firing, PatternError> {
    let zone = zone.map(parse_zone).transpose()?;
    let at = pattern.strip_prefix("@at ");
    let every = pattern.strip_prefix("@every ");
    if (at.is_some() || every.is_some()) && zone.is_some() {
        return Err(PatternError::Pattern);
    }
    if let Some(time) = at {
        let time = DateTime::parse_from_rfc3339(time).ok();
        let at_ns = time.and_then(|time| time.timestamp_nanos_opt());
        return Ok(Firing {
            at_ns: at_ns.ok_or(PatternError::Pattern)?,
            repeats: false,
        });
    }
    let after = |last_ns: i64| match every {
        Some(interval) => {
            let interval_ns = duration::parse(interval).filter(|ns| *ns >= SECOND_NS);
            to_second(last_ns).checked_add(interval_ns?)
        }
        None => {
            let cron = Cron::parse(predefined(pattern))?;
            let after: DateTime<Utc> = DateTime::from_timestamp_nanos(last_ns);
            let found = cron.after(after, zone.unwrap_or(Tz::UTC))?;
            found.timestamp_nanos_opt()
        }
    };
    let next_ns = match after(last_ns) {
        Some(at_ns) if at_ns < now_ns => after(to_second(now_ns)),
        at_ns => at_ns,
    };
    Ok(Firing {
        at_ns: next_ns.ok_or(PatternError::Pattern)?,
        repeats: true,
    })
}

/// Whether a time zone can be one.
pub(crate) fn check_zone(name: &[u8]) -> Result<(), PatternError> {
    parse_zone(name).map(|_| ())
}

/// The nearest second.
fn to_second(time_ns: i64) -> i64 {
    let rest = time_ns.rem_euclid(SECOND_NS);
    let down = time_ns - rest;
    if rest * 2 >= SECOND_NS {
        down.saturating_add(SECOND_NS)
    } else {
        down
    }
}

fn predefined(pattern: &str) -> &str {
    match pattern {
        "@yearly" | "@annually" => "0 0 0 1 1 *",
        "@monthly" => "0 0 0 1 * *",
        "@weekly" => "0 0 0 * * 0",
        "@daily" | "@midnight" => "0 0 0 * * *",
        "@hourly" => "0 0 * * * *",
        pattern => pattern,
    }
}

/// A zone of the IANA database. A machine's own zone is none: every replica must mean the same time.
fn parse_zone(name: &[u8]) -> Result<Tz, PatternError> {
    let name = std::str::from_utf8(name).map_err(|_| PatternError::TimeZone)?;
    name.parse().map_err(|_| PatternError::TimeZone)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-01T00:00:00Z.
    const START: i64 = 1_767_225_600 * SECOND_NS;

    fn fires(pattern: &str, last_ns: i64, now_ns: i64) -> Option<(i64, bool)> {
        let firing = next(pattern, None, last_ns, now_ns).ok()?;
        Some(((firing.at_ns - START) / SECOND_NS, firing.repeats))
    }

    #[test]
    fn patterns_say_when() {
        let now = START + 400_000_000;
        for (pattern, expected) in [
            ("@at 2026-01-01T00:01:00Z", Some((60, false))),
            ("@at 2026-01-01T01:01:00+01:00", Some((60, false))),
            ("@at yesterday", None),
            ("@every 5s", Some((5, true))),
            ("@every 1m30s", Some((90, true))),
            ("@every 500ms", None),
            ("@every", None),
            ("@hourly", Some((3600, true))),
            ("@daily", Some((86_400, true))),
            ("@midnight", Some((86_400, true))),
            ("@weekly", Some((3 * 86_400, true))),
            ("@monthly", Some((31 * 86_400, true))),
            ("@yearly", Some((365 * 86_400, true))),
            ("0 30 * * * *", Some((1800, true))),
            ("bogus", None),
            ("", None),
        ] {
            assert_eq!(fires(pattern, now, now), expected, "{pattern:?}");
        }
    }

    #[test]
    fn what_was_missed_is_made_up_for_once() {
        let now = START + 100 * SECOND_NS;
        assert_eq!(fires("@every 10s", START, now), Some((110, true)));
        assert_eq!(fires("0 * * * * *", START, now), Some((120, true)));
    }

    #[test]
    fn only_cron_patterns_know_time_zones() {
        let with = |pattern, zone: &[u8]| next(pattern, Some(zone), START, START).map(|f| f.at_ns);
        assert_eq!(
            with("0 0 0 * * *", b"Asia/Tokyo"),
            Ok(START + 15 * 3600 * SECOND_NS)
        );
        assert_eq!(with("0 0 0 * * *", b""), Err(PatternError::TimeZone));
        assert_eq!(
            with("0 0 0 * * *", b"Mars/Base"),
            Err(PatternError::TimeZone)
        );
        assert_eq!(with("@every 5s", b"UTC"), Err(PatternError::Pattern));
    }
}
