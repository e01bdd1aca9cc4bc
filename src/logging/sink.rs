//! Where lines go: standard error, or a file that can be put aside and opened again.

use super::line::{LineFormat, Tag, write_text};
use super::queue::Queue;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file smaller than this is not put aside, whatever the limit says: its own first lines would fill it.
const FILE_BYTES_LEAST: u64 = 512;

/// Where lines go.
#[derive(Debug)]
pub enum Sink {
    /// Standard error.
    Stderr,
    /// A file.
    File(LogFile),
    /// The system's log.
    Syslog(Queue),
}

impl Sink {
    /// Whether lines may carry colours.
    pub fn is_terminal(&self) -> bool {
        match self {
            Sink::Stderr => io::stderr().is_terminal(),
            Sink::File(_) | Sink::Syslog(_) => false,
        }
    }

    /// Writes a text as a whole line at once. A log that cannot be written is no reason to stop serving.
    pub fn write(&mut self, format: &LineFormat, now: SystemTime, tag: Tag, text: &str) {
        let mut line = String::with_capacity(text.len() + 64);
        match self {
            Sink::Stderr => {
                format.write(&mut line, now, tag, text);
                let _ = io::stderr().lock().write_all(line.as_bytes());
            }
            Sink::File(file) => {
                format.write(&mut line, now, tag, text);
                file.write(format, &line);
            }
            Sink::Syslog(log) => {
                write_text(&mut line, text);
                log.push(now, tag, line);
            }
        }
    }
}

/// A log file.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Put the file aside beyond this; 0 is never.
    bytes_max: u64,
    /// Keep so many files, this one included; 0 is all.
    files_max: u64,
}

impl LogFile {
    /// Opens a file to append to.
    pub fn open(path: &Path, bytes_max: u64, files_max: u64) -> io::Result<Self> {
        let (file, bytes) = open(path)?;
        Ok(LogFile {
            path: path.to_owned(),
            file,
            bytes,
            bytes_max: match bytes_max {
                0 => 0,
                limit => limit.max(FILE_BYTES_LEAST),
            },
            files_max,
        })
    }

    /// Opens the path again, after something else has moved the file away.
    pub fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.bytes) = open(&self.path)?;
        Ok(())
    }

    fn write(&mut self, format: &LineFormat, line: &str) {
        if self.file.write_all(line.as_bytes()).is_ok() {
            self.bytes += line.len() as u64;
        }
        if self.bytes_max > 0 && self.bytes > self.bytes_max {
            self.put_aside(format);
        }
    }

    /// Moves the file away under the name of the moment and begins a new one.
    fn put_aside(&mut self, format: &LineFormat) {
        let aside = aside_name(&self.path, SystemTime::now());
        let mut line = String::new();
        let now = SystemTime::now();
        match std::fs::rename(&self.path, &aside).and_then(|()| self.reopen()) {
            Ok(()) => {
                let text = format!("Rotated log, backup saved as {:?}", aside.display());
                format.write(&mut line, now, Tag::Info, &text);
                self.remove_oldest();
            }
            Err(error) => {
                // Not tried again at each line: the limit moves on by one file's length.
                self.bytes = 0;
                let text = format!("Unable to rotate the log file: {error}");
                format.write(&mut line, now, Tag::Error, &text);
            }
        }
        let _ = self.file.write_all(line.as_bytes());
        self.bytes += line.len() as u64;
    }

    fn remove_oldest(&self) {
        if self.files_max == 0 {
            return;
        }
        let Some(directory) = self.path.parent() else {
            return;
        };
        let directory = match directory.as_os_str().is_empty() {
            true => Path::new("."),
            false => directory,
        };
        let (Ok(entries), Some(name)) = (std::fs::read_dir(directory), self.path.file_name())
        else {
            return;
        };
        let prefix = format!("{}.", name.to_string_lossy());
        let mut aside: Vec<PathBuf> = entries
            .filter_map(Result::ok)
            .filter(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name.strip_prefix(&prefix).is_some_and(is_aside_suffix)
            })
            .map(|entry| entry.path())
            .collect();
        // The moment in the name sorts by age.
        aside.sort();
        let keep = usize::try_from(self.files_max - 1).unwrap_or(usize::MAX);
        let surplus = aside.len().saturating_sub(keep);
        for path in aside.into_iter().take(surplus) {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

/// `name.2026.11.23.12.00.00.000000000`
fn aside_name(path: &Path, now: SystemTime) -> PathBuf {
    let date = time::OffsetDateTime::from(now);
    let suffix = format!(
        ".{:04}.{:02}.{:02}.{:02}.{:02}.{:02}.{:09}",
        date.year(),
        u8::from(date.month()),
        date.day(),
        date.hour(),
        date.minute(),
        date.second(),
        date.nanosecond(),
    );
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn is_aside_suffix(suffix: &str) -> bool {
    let widths = [4, 2, 2, 2, 2, 2, 9];
    let parts: Vec<&str> = suffix.split('.').collect();
    parts.len() == widths.len()
        && parts
            .iter()
            .zip(widths)
            .all(|(part, width)| part.len() == width && part.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format() -> LineFormat {
        LineFormat::new(false, true, false)
    }

    #[test]
    fn a_file_that_grew_too_large_is_put_aside_and_only_so_many_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nats.log");
        std::fs::write(directory.path().join("nats.log.old"), "not ours").unwrap();
        let mut sink = Sink::File(LogFile::open(&path, 600, 3).unwrap());
        let text = "x".repeat(185);
        for _ in 0..40 {
            sink.write(&format(), SystemTime::now(), Tag::Info, &text);
        }
        let mut names: Vec<String> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(
            names.contains(&"nats.log".to_owned()) && names.contains(&"nats.log.old".to_owned())
        );
        assert!(std::fs::metadata(&path).unwrap().len() <= 900);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("Rotated log, backup saved as"));
    }

    #[test]
    fn a_file_moved_away_is_opened_again_under_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nats.log");
        let mut file = LogFile::open(&path, 0, 0).unwrap();
        file.write(&format(), "one\n");
        std::fs::rename(&path, directory.path().join("moved")).unwrap();
        file.write(&format(), "two\n");
        file.reopen().unwrap();
        file.write(&format(), "three\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        let moved = std::fs::read_to_string(directory.path().join("moved")).unwrap();
        assert_eq!(moved, "one\ntwo\n");
    }
}
