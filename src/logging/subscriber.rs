//! Events of `tracing` into lines.

use super::line::{LineFormat, Tag};
use super::sink::{LogFile, Sink};
use crate::config::options::LogOptions;
use parking_lot::Mutex;
use std::fmt::{self, Write};
use std::io;
use std::sync::Arc;
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

/// The crates whose events are the server's own.
const OWN_CRATES: [&str; 3] = ["nats_server", "storage", "raft"];

/// The field that makes an error a fatal one.
const FATAL_FIELD: &str = "fatal";

/// The server's log. Clones write to the same place.
#[derive(Clone, Debug)]
pub struct Logger {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    format: LineFormat,
    sink: Mutex<Sink>,
    level: LevelFilter,
}

/// Logs a line that explains why the server ends.
pub fn fatal(text: &str) {
    tracing::error!(fatal = true, "{text}");
}

impl Logger {
    /// A log as the options describe it.
    pub fn open(options: &LogOptions) -> io::Result<Self> {
        let sink = match &options.file {
            Some(path) => Sink::File(LogFile::open(
                path,
                options.file_bytes_max,
                options.files_max,
            )?),
            None => Sink::Stderr,
        };
        let format = LineFormat::new(
            options.timestamps,
            options.timestamps_utc,
            sink.is_terminal(),
        );
        let level = match (options.trace, options.debug) {
            (true, _) => LevelFilter::TRACE,
            (false, true) => LevelFilter::DEBUG,
            (false, false) => LevelFilter::INFO,
        };
        // Tracing without debugging shows the protocol and leaves the rest out; see `enabled`.
        let shared = Arc::new(Shared {
            format,
            sink: Mutex::new(sink),
            level,
        });
        Ok(Logger { shared })
    }

    /// Makes this the log of the whole process.
    pub fn install(&self, debug: bool) {
        let subscriber = LogSubscriber {
            shared: Arc::clone(&self.shared),
            debug,
        };
        // A second server in one process, as in tests, keeps the first one's log.
        let _ = tracing::subscriber::set_global_default(subscriber);
    }

    /// Opens the log file again under its name. False when there is no file.
    pub fn reopen(&self) -> io::Result<bool> {
        match &mut *self.shared.sink.lock() {
            Sink::Stderr => Ok(false),
            Sink::File(file) => file.reopen().map(|()| true),
        }
    }
}

struct LogSubscriber {
    shared: Arc<Shared>,
    debug: bool,
}

impl Subscriber for LogSubscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let own = metadata.target().split("::").next().unwrap_or("");
        *metadata.level() <= self.shared.level
            && (self.debug || *metadata.level() != Level::DEBUG)
            && OWN_CRATES.contains(&own)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.shared.level)
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let tag = match *event.metadata().level() {
            Level::TRACE => Tag::Trace,
            Level::DEBUG => Tag::Debug,
            Level::INFO => Tag::Info,
            Level::WARN => Tag::Warning,
            Level::ERROR if text.fatal => Tag::Fatal,
            Level::ERROR => Tag::Error,
        };
        let mut line = String::with_capacity(text.message.len() + text.fields.len() + 64);
        text.message.push_str(&text.fields);
        let format = &self.shared.format;
        format.write(&mut line, SystemTime::now(), tag, &text.message);
        self.shared.sink.lock().write(format, &line);
    }

    // Spans are not used: a line says what it needs to say.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// The message of an event and its further fields as ` name=value`.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
    fatal: bool,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        match field.name() {
            FATAL_FIELD => self.fatal = value,
            _ => self.record_debug(field, &value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Options;

    fn lines(debug: bool, trace: bool, say: impl Fn()) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut options = Options::default().log;
        options.debug = debug;
        options.trace = trace;
        options.timestamps = false;
        options.file = Some(path.clone());
        let logger = Logger::open(&options).unwrap();
        let subscriber = LogSubscriber {
            shared: Arc::clone(&logger.shared),
            debug,
        };
        tracing::subscriber::with_default(subscriber, say);
        let text = std::fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| line.split_once("] ").unwrap().1.to_owned())
            .collect()
    }

    fn one_of_each() {
        tracing::trace!("t");
        tracing::debug!("d");
        tracing::info!("i {}", 1);
        tracing::warn!(stream = "S", "w");
        tracing::error!("e");
        fatal("f");
        tracing::error!(target: "hyper::server", "foreign");
    }

    #[test]
    fn levels_are_those_of_the_flags() {
        let always = ["[INF] i 1", "[WRN] w stream=\"S\"", "[ERR] e", "[FTL] f"];
        assert_eq!(lines(false, false, one_of_each), always);
        assert_eq!(lines(true, false, one_of_each)[0], "[DBG] d");
        let traced = lines(false, true, one_of_each);
        assert_eq!((traced[0].as_str(), traced.len()), ("[TRC] t", 5));
        assert_eq!(lines(true, true, one_of_each).len(), 6);
    }
}
