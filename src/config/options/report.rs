//! What is wrong with a configuration, and the reading of single values.
//!
//! A file is read to its end and every problem is reported, in the order of the file, as `file:line:column: reason`.

use super::super::duration::parse_nanoseconds;
use super::super::value::{Map, Node, Position, Value};
use std::fmt;
use std::time::Duration;

/// What is wrong with one value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionProblem {
    /// No option has this name.
    #[error("unknown field {0:?}")]
    UnknownField(String),
    /// The reference has this option and this server does not have it yet.
    #[error("{field:?} is not supported by this server yet: {what}")]
    NotSupported {
        /// The key.
        field: String,
        /// What it would do.
        what: &'static str,
    },
    /// The value has another type than the option.
    #[error("{field:?} must be {expected} but is {found}")]
    WrongType {
        /// The key.
        field: String,
        /// The type the option has.
        expected: &'static str,
        /// The type the value has.
        found: &'static str,
    },
    /// The value has the right type and makes no sense.
    #[error("{0}")]
    Invalid(String),
}

/// One problem and its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{position}: {problem}")]
pub struct OptionError {
    /// Where the key stands.
    pub position: Position,
    /// What is wrong.
    pub problem: OptionProblem,
}

/// All problems of a file, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// At least one.
    pub errors: Vec<OptionError>,
    /// What would have been a warning, already in words.
    pub warnings: Vec<String>,
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for warning in &self.warnings {
            writeln!(formatter, "{warning}")?;
        }
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                writeln!(formatter)?;
            }
            write!(formatter, "{error}")?;
        }
        Ok(())
    }
}

/// Collects problems while a file is read.
#[derive(Debug, Default)]
pub(super) struct Report {
    errors: Vec<OptionError>,
    warnings: Vec<(Position, String)>,
}

impl Report {
    /// The warnings in words, or every problem.
    pub(super) fn finish(mut self) -> Result<Vec<String>, Problems> {
        self.errors.sort_by(|a, b| a.position.cmp(&b.position));
        self.warnings.sort();
        let warnings = self.warnings.into_iter().map(|(_, text)| text).collect();
        match self.errors.is_empty() {
            true => Ok(warnings),
            false => Err(Problems {
                errors: self.errors,
                warnings,
            }),
        }
    }

    /// Whether nothing is wrong so far.
    pub(super) fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    pub(super) fn error(&mut self, position: &Position, problem: OptionProblem) {
        self.errors.push(OptionError {
            position: position.clone(),
            problem,
        });
    }

    pub(super) fn warn(&mut self, position: &Position, field: &str, reason: String) {
        let text = format!("{position}: invalid use of field {field:?}: {reason}");
        self.warnings.push((position.clone(), text));
    }
}

/// The members of a map in the order of the file, so that of two spellings of one key the later wins.
pub(super) fn in_file_order(map: &Map) -> Vec<Field<'_>> {
    let mut fields: Vec<Field<'_>> = map
        .iter()
        .map(|(name, node)| Field { name, node })
        .collect();
    fields.sort_by(|a, b| a.node.position.cmp(&b.node.position));
    fields
}

/// One key and its value.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) name: &'a str,
    pub(super) node: &'a Node,
}

impl<'a> Field<'a> {
    pub(super) fn key(&self) -> String {
        self.name.to_ascii_lowercase()
    }

    pub(super) fn value(&self) -> &'a Value {
        &self.node.value
    }

    pub(super) fn fail(&self, report: &mut Report, problem: OptionProblem) {
        report.error(&self.node.position, problem);
    }

    pub(super) fn invalid(&self, report: &mut Report, reason: impl Into<String>) {
        self.fail(report, OptionProblem::Invalid(reason.into()));
    }

    /// A key that no option has: an error, unless it only defines a variable.
    pub(super) fn unknown(&self, report: &mut Report) {
        if !self.node.used_as_variable {
            self.fail(report, OptionProblem::UnknownField(self.name.to_owned()));
        }
    }

    pub(super) fn not_supported(&self, report: &mut Report, what: &'static str) {
        let field = self.name.to_owned();
        self.fail(report, OptionProblem::NotSupported { field, what });
    }

    pub(super) fn wrong_type(&self, report: &mut Report, expected: &'static str) {
        let problem = OptionProblem::WrongType {
            field: self.name.to_owned(),
            expected,
            found: self.node.value.kind(),
        };
        self.fail(report, problem);
    }

    pub(super) fn string(&self, report: &mut Report) -> Option<String> {
        match self.value() {
            Value::String(text) => Some(text.clone()),
            _ => {
                self.wrong_type(report, "a string");
                None
            }
        }
    }

    pub(super) fn bool(&self, report: &mut Report) -> Option<bool> {
        match self.value() {
            Value::Bool(value) => Some(*value),
            _ => {
                self.wrong_type(report, "a boolean");
                None
            }
        }
    }

    pub(super) fn map(&self, report: &mut Report) -> Option<&'a Map> {
        match self.value() {
            Value::Map(map) => Some(map),
            _ => {
                self.wrong_type(report, "a map");
                None
            }
        }
    }

    pub(super) fn integer(&self, report: &mut Report) -> Option<i64> {
        match self.value() {
            Value::Integer(number) => Some(*number),
            _ => {
                self.wrong_type(report, "an integer");
                None
            }
        }
    }

    /// An integer within bounds, converted.
    pub(super) fn within<T: TryFrom<i64>>(
        &self,
        report: &mut Report,
        least: i64,
        most: i64,
    ) -> Option<T> {
        let number = self.integer(report)?;
        if !(least..=most).contains(&number) {
            let reason = format!(
                "{:?} must be between {least} and {most} but is {number}",
                self.name
            );
            self.invalid(report, reason);
            return None;
        }
        T::try_from(number).ok()
    }

    /// A duration as text; a bare number counts seconds and earns a warning.
    pub(super) fn duration(&self, report: &mut Report) -> Option<Duration> {
        let nanoseconds = match self.value() {
            Value::String(text) => match parse_nanoseconds(text) {
                Ok(nanoseconds) => nanoseconds,
                Err(error) => {
                    self.invalid(report, format!("error parsing {}: {error}", self.name));
                    return None;
                }
            },
            Value::Integer(seconds) => {
                let reason = format!("{} should be converted to a duration", self.name);
                report.warn(&self.node.position, self.name, reason);
                seconds.saturating_mul(1_000_000_000)
            }
            _ => {
                self.wrong_type(report, "a duration");
                return None;
            }
        };
        match u64::try_from(nanoseconds) {
            Ok(nanoseconds) => Some(Duration::from_nanos(nanoseconds)),
            Err(_) => {
                self.invalid(report, format!("{} cannot be negative", self.name));
                None
            }
        }
    }

    /// A list of strings, or one string.
    pub(super) fn strings(&self, report: &mut Report) -> Option<Vec<String>> {
        let wrong = |report: &mut Report| {
            self.wrong_type(report, "a string or a list of strings");
            None
        };
        match self.value() {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(items) => {
                let mut strings = Vec::with_capacity(items.len());
                for item in items {
                    match &item.value {
                        Value::String(text) => strings.push(text.clone()),
                        _ => return wrong(report),
                    }
                }
                Some(strings)
            }
            _ => wrong(report),
        }
    }

    /// A port: -1 is any free one.
    pub(super) fn port(&self, report: &mut Report, number: i64) -> Option<super::Port> {
        match number {
            -1 => Some(super::Port::Random),
            _ => match u16::try_from(number) {
                Ok(port) => Some(super::Port::Fixed(port)),
                Err(_) => {
                    self.invalid(report, format!("{number} is not a port"));
                    None
                }
            },
        }
    }

    /// `host:port`, `:port` or a bare port.
    pub(super) fn listen(&self, report: &mut Report) -> Option<(Option<String>, super::Port)> {
        match self.value() {
            Value::Integer(number) => Some((None, self.port(report, *number)?)),
            Value::String(text) => match split_host_port(text) {
                Some((host, port)) => {
                    let host = Some(host.to_owned()).filter(|host| !host.is_empty());
                    Some((host, self.port(report, port)?))
                }
                None => {
                    self.invalid(report, format!("could not parse address string {text:?}"));
                    None
                }
            },
            _ => {
                self.wrong_type(report, "a port or host:port");
                None
            }
        }
    }
}

/// Splits `host:port` and `[v6]:port`.
fn split_host_port(text: &str) -> Option<(&str, i64)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:")?,
        None => text
            .rsplit_once(':')
            .filter(|(host, _)| !host.contains(':'))?,
    };
    Some((host, port.parse().ok()?))
}
