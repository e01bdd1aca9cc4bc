//! The format of a line.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use tz::TimeZone;

/// How grave a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// The protocol itself.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What an operator wants to see.
    Info,
    /// What an operator should look at.
    Warning,
    /// What went wrong.
    Error,
    /// What ended the server.
    Fatal,
}

impl Tag {
    fn name(self) -> &'static str {
        match self {
            Tag::Trace => "TRC",
            Tag::Debug => "DBG",
            Tag::Info => "INF",
            Tag::Warning => "WRN",
            Tag::Error => "ERR",
            Tag::Fatal => "FTL",
        }
    }

    /// The terminal's code for the tag's colour.
    fn color(self) -> &'static str {
        match self {
            Tag::Trace => "33",
            Tag::Debug => "36",
            Tag::Info => "32",
            Tag::Warning => "93",
            Tag::Error | Tag::Fatal => "31",
        }
    }
}

/// How lines look.
#[derive(Debug)]
pub struct LineFormat {
    process: u32,
    timestamps: Option<Zone>,
    colors: bool,
}

/// Which clock the time stamps are in.
#[derive(Debug)]
enum Zone {
    Utc,
    Local(TimeZone),
}

impl LineFormat {
    /// Lines of this process; times are local unless `utc`.
    pub fn new(timestamps: bool, utc: bool, colors: bool) -> Self {
        let zone = || match TimeZone::local() {
            Ok(zone) if !utc => Zone::Local(zone),
            _ => Zone::Utc,
        };
        LineFormat {
            process: std::process::id(),
            timestamps: timestamps.then(zone),
            colors,
        }
    }

    /// Writes one line, its new line included. Control characters are escaped: what a client sends must not forge lines.
    pub fn write(&self, line: &mut String, now: SystemTime, tag: Tag, text: &str) {
        let _ = write!(line, "[{}] ", self.process);
        if let Some(zone) = &self.timestamps {
            zone.write(line, now);
        }
        let name = tag.name();
        let _ = match self.colors {
            true => write!(line, "[\x1b[{}m{name}\x1b[0m] ", tag.color()),
            false => write!(line, "[{name}] "),
        };
        write_text(line, text);
        line.push('\n');
    }
}

/// Writes a text so that it cannot forge lines: control characters are escaped.
pub(super) fn write_text(line: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\t' => line.push(c),
            c if c.is_control() => {
                let _ = write!(line, "{}", c.escape_default());
            }
            c => line.push(c),
        }
    }
}

impl Zone {
    fn write(&self, line: &mut String, now: SystemTime) {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or(0);
        let offset = match self {
            Zone::Utc => 0,
            Zone::Local(zone) => zone
                .find_local_time_type(seconds)
                .map_or(0, |local| i64::from(local.ut_offset())),
        };
        let date = OffsetDateTime::from_unix_timestamp(seconds + offset)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let _ = write!(
            line,
            "{:04}/{:02}/{:02} {:02}:{:02}:{:02}.{:06} ",
            date.year(),
            u8::from(date.month()),
            date.day(),
            date.hour(),
            date.minute(),
            date.second(),
            since.subsec_micros(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn write(format: &LineFormat, tag: Tag, text: &str) -> String {
        let mut line = String::new();
        let now = UNIX_EPOCH + Duration::from_micros(1_764_000_000_000_042);
        format.write(&mut line, now, tag, text);
        line
    }

    #[test]
    fn a_line_has_the_references_shape() {
        let process = std::process::id();
        let format = LineFormat::new(true, true, false);
        assert_eq!(
            write(&format, Tag::Info, "Server is ready"),
            format!("[{process}] 2025/11/24 16:00:00.000042 [INF] Server is ready\n")
        );
        let bare = LineFormat::new(false, false, false);
        assert_eq!(
            write(&bare, Tag::Fatal, "x"),
            format!("[{process}] [FTL] x\n")
        );
    }

    #[test]
    fn colors_touch_nothing_but_the_tag() {
        let format = LineFormat::new(false, false, true);
        let plain = write(&format, Tag::Warning, "x")
            .replace("\x1b[93m", "")
            .replace("\x1b[0m", "");
        assert_eq!(
            plain,
            write(&LineFormat::new(false, false, false), Tag::Warning, "x")
        );
    }

    #[test]
    fn a_text_cannot_forge_a_second_line() {
        let format = LineFormat::new(false, false, false);
        let line = write(&format, Tag::Error, "a\n[1] [INF] b\r\x1b[2Jc");
        assert_eq!(line.matches('\n').count(), 1);
        assert!(!line.contains('\x1b') && line.contains("a\\n[1]"));
    }
}
