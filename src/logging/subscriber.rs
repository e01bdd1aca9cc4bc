//! Events of `tracing` into lines.

use super::line::{LineFormat, Tag};
use super::queue::Queue;
use super::repeats::Repeats;
use super::sink::{LogFile, Sink};
use super::syslog::{Place, Syslog};
use crate::config::options::{LogLevel, LogOptions};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::fmt::{self, Write};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

/// The crates whose events are the server's own.
const OWN_CRATES: [&str; 3] = ["nats_server", "storage", "raft"];

/// Lines of these places are logged only for who asks for all of the protocol: the server's own part in it.
const VERBOSE_ONLY: &str = "nats_server::system::spoken";

/// The field that makes an error a fatal one.
const FATAL_FIELD: &str = "fatal";

/// The server's log. Clones write to the same place.
#[derive(Clone, Debug)]
pub struct Logger {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    output: Mutex<Output>,
    levels: ArcSwap<Levels>,
    warnings: Repeats,
}

/// Where lines go, and how they look there.
#[derive(Debug)]
struct Output {
    format: LineFormat,
    sink: Sink,
}

/// Which lines are logged.
#[derive(Debug)]
struct Levels {
    most: LevelFilter,
    /// Tracing without debugging shows the protocol and leaves the rest out.
    debug: bool,
    /// The server's own part in the protocol is shown, too.
    verbose: bool,
    /// Of single subsystems; the last one that fits counts.
    of_subsystems: Vec<(String, LevelFilter)>,
}

/// A log that is open and not written to yet.
#[derive(Debug)]
pub struct PreparedLog {
    output: Output,
    levels: Levels,
}

/// Logs a line that explains why the server ends.
pub fn fatal(text: &str) {
    tracing::error!(fatal = true, "{text}");
}

impl PreparedLog {
    fn open(options: &LogOptions) -> io::Result<Self> {
        let wrong = |reason| io::Error::new(io::ErrorKind::InvalidInput, reason);
        let sink = match (&options.file, &options.remote_syslog) {
            (Some(path), _) => Sink::File(LogFile::open(
                path,
                options.file_bytes_max,
                options.files_max,
            )?),
            (None, Some(address)) => {
                let place = Place::parse(address).map_err(wrong)?;
                Sink::Syslog(Queue::start(Syslog::open(place)?)?)
            }
            (None, None) if options.syslog => {
                Sink::Syslog(Queue::start(Syslog::open(Place::Local)?)?)
            }
            (None, None) => Sink::Stderr,
        };
        let format = LineFormat::new(
            options.timestamps,
            options.timestamps_utc,
            sink.is_terminal(),
        );
        Ok(Self {
            output: Output { format, sink },
            levels: Levels::of(options),
        })
    }
}

impl Levels {
    fn of(options: &LogOptions) -> Self {
        let most = match (options.trace, options.debug) {
            (true, _) => LevelFilter::TRACE,
            (false, true) => LevelFilter::DEBUG,
            (false, false) => LevelFilter::INFO,
        };
        let of_subsystems = options.levels.iter().map(|level| {
            let filter = match level.level {
                LogLevel::Error => LevelFilter::ERROR,
                LogLevel::Warning => LevelFilter::WARN,
                LogLevel::Info => LevelFilter::INFO,
                LogLevel::Debug => LevelFilter::DEBUG,
                LogLevel::Trace => LevelFilter::TRACE,
            };
            (level.subsystem.clone(), filter)
        });
        Self {
            most,
            debug: options.debug,
            verbose: options.trace_verbose,
            of_subsystems: of_subsystems.collect(),
        }
    }

    fn admit(&self, target: &str, level: &Level) -> bool {
        let (own, within) = target.split_once("::").unwrap_or((target, ""));
        if !OWN_CRATES.contains(&own) {
            return false;
        }
        // The server's rooms are named by themselves, the other crates by their names.
        let subsystem = if own == OWN_CRATES[0] { within } else { target };
        let fits = |name: &str| {
            let rest = subsystem.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        let own_level = self.of_subsystems.iter().rev().find(|(name, _)| fits(name));
        match own_level {
            Some((_, filter)) => level <= filter,
            None => {
                let is_asked_for = self.verbose || target != VERBOSE_ONLY;
                is_asked_for && *level <= self.most && (self.debug || *level != Level::DEBUG)
            }
        }
    }

    fn most(&self) -> LevelFilter {
        let others = self.of_subsystems.iter().map(|(_, filter)| *filter);
        others.fold(self.most, LevelFilter::max)
    }
}

impl Logger {
    /// A log as the options describe it.
    pub fn open(options: &LogOptions) -> io::Result<Self> {
        let PreparedLog { output, levels } = PreparedLog::open(options)?;
        Ok(Logger {
            shared: Arc::new(Shared {
                output: Mutex::new(output),
                levels: ArcSwap::from_pointee(levels),
                warnings: Repeats::default(),
            }),
        })
    }

    /// Makes this the log of the whole process.
    pub fn install(&self) {
        let subscriber = LogSubscriber {
            shared: Arc::clone(&self.shared),
        };
        // A second server in one process, as in tests, keeps the first one's log.
        let _ = tracing::subscriber::set_global_default(subscriber);
    }

    /// Opens another log, which [`Logger::change`] puts in the place of this one.
    pub fn prepare(&self, options: &LogOptions) -> io::Result<PreparedLog> {
        PreparedLog::open(options)
    }

    /// From now on lines go there.
    pub fn change(&self, log: PreparedLog) {
        *self.shared.output.lock() = log.output;
        self.shared.levels.store(Arc::new(log.levels));
        // What was decided about each place that logs holds no more.
        tracing::callsite::rebuild_interest_cache();
    }

    /// Waits, no longer than so, until the log has all lines.
    pub fn flush(&self, at_most: Duration) {
        if let Sink::Syslog(queue) = &self.shared.output.lock().sink {
            queue.flush(at_most);
        }
    }

    /// Opens the log file again under its name. False when there is no file.
    pub fn reopen(&self) -> io::Result<bool> {
        match &mut self.shared.output.lock().sink {
            Sink::Stderr | Sink::Syslog(_) => Ok(false),
            Sink::File(file) => file.reopen().map(|()| true),
        }
    }
}

struct LogSubscriber {
    shared: Arc<Shared>,
}

impl Subscriber for LogSubscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let levels = self.shared.levels.load();
        levels.admit(metadata.target(), metadata.level())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.shared.levels.load().most())
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
        text.message.push_str(&text.fields);
        let now = Instant::now();
        if tag == Tag::Warning && !self.shared.warnings.admits(&text.message, now) {
            return;
        }
        let mut output = self.shared.output.lock();
        let Output { format, sink } = &mut *output;
        sink.write(format, SystemTime::now(), tag, &text.message);
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
    use crate::config::options::SubsystemLevel;

    fn lines(debug: bool, trace: bool, say: impl Fn()) -> Vec<String> {
        lines_with(debug, trace, &[], say)
    }

    fn lines_with(debug: bool, trace: bool, levels: &[&str], say: impl Fn()) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut options = Options::default().log;
        options.debug = debug;
        options.trace = trace;
        let levels = levels
            .iter()
            .map(|text| SubsystemLevel::parse(text).unwrap());
        options.levels = levels.collect();
        options.timestamps = false;
        options.file = Some(path.clone());
        let logger = Logger::open(&options).unwrap();
        let subscriber = LogSubscriber {
            shared: Arc::clone(&logger.shared),
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

    #[test]
    fn the_server_s_own_part_in_the_protocol_is_for_who_asks_for_all() {
        let levels = |trace, verbose| {
            let mut options = Options::default().log;
            (options.trace, options.trace_verbose) = (trace, verbose);
            Levels::of(&options)
        };
        assert!(VERBOSE_ONLY.starts_with(env!("CARGO_CRATE_NAME")));
        assert!(levels(true, true).admit(VERBOSE_ONLY, &Level::TRACE));
        assert!(!levels(true, false).admit(VERBOSE_ONLY, &Level::TRACE));
        assert!(levels(true, false).admit("nats_server::system::service", &Level::TRACE));
    }

    #[test]
    fn a_warning_that_repeats_itself_is_told_once() {
        let found = lines(false, false, || {
            for _ in 0..5 {
                tracing::warn!("w");
                tracing::error!("e");
            }
        });
        assert_eq!(found.iter().filter(|line| *line == "[WRN] w").count(), 1);
        assert_eq!(found.iter().filter(|line| *line == "[ERR] e").count(), 5);
    }

    #[test]
    fn a_subsystem_may_have_a_level_of_its_own() {
        let say = || {
            tracing::debug!(target: "nats_server::connection::task", "c");
            tracing::info!(target: "nats_server::monitor", "m");
            tracing::info!(target: "nats_server::connections", "other");
            tracing::debug!(target: "storage::journal", "s");
            tracing::debug!("d");
        };
        let levels = ["connection=debug", "monitor=warn", "storage=trace"];
        let found = lines_with(false, false, &levels, say);
        assert_eq!(found, ["[DBG] c", "[INF] other", "[DBG] s"]);
        assert_eq!(SubsystemLevel::parse("connection"), None);
        assert_eq!(SubsystemLevel::parse("connection=loud"), None);
        assert_eq!(SubsystemLevel::parse("a b=info"), None);
    }
}
