//! Durations as error texts and status lines write them: `1h2m3.5s`, `100ms`, `0s`.

use std::fmt::Write;

/// A duration in nanoseconds in Go's notation.
pub fn go_duration(duration_ns: i64) -> String {
    if duration_ns == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    if duration_ns < 0 {
        text.push('-');
    }
    let total_ns = duration_ns.unsigned_abs();
    for (unit_ns, unit) in [
        (1_000_000_000, ""),
        (1_000_000, "ms"),
        (1_000, "µs"),
        (1, "ns"),
    ] {
        if total_ns < unit_ns {
            continue;
        }
        if !unit.is_empty() {
            push_fraction(&mut text, total_ns / unit_ns, total_ns % unit_ns, unit_ns);
            text.push_str(unit);
            break;
        }
        let seconds = total_ns / unit_ns;
        if seconds >= 3600 {
            // Writing to a String cannot fail.
            let _ = write!(text, "{}h", seconds / 3600);
        }
        if seconds >= 60 {
            let _ = write!(text, "{}m", seconds / 60 % 60);
        }
        push_fraction(&mut text, seconds % 60, total_ns % unit_ns, unit_ns);
        text.push('s');
        break;
    }
    text
}

fn push_fraction(text: &mut String, whole: u64, rest: u64, unit: u64) {
    let _ = write!(text, "{whole}");
    if rest > 0 {
        let width = unit.ilog10() as usize;
        let digits = format!("{rest:0width$}");
        let _ = write!(text, ".{}", digits.trim_end_matches('0'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_writes_them() {
        for (duration_ns, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (100_000_000, "100ms"),
            (1_000_000_000, "1s"),
            (1_500_000_000, "1.5s"),
            (120_000_000_000, "2m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (-1_000_000_000, "-1s"),
            (90_061_000_000_001, "25h1m1.000000001s"),
        ] {
            assert_eq!(go_duration(duration_ns), text);
        }
    }
}
