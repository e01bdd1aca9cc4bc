//! How an answer looks, and how a question's parameters are read.

use super::subscriptions::Listed;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};
use std::num::{IntErrorKind, ParseIntError};
use std::time::Duration;

/// An answer in JSON, indented as the reference indents it.
pub fn json<T: Serialize>(value: &T) -> Response {
    match serde_json::to_string_pretty(value) {
        Ok(text) => raw_json(StatusCode::OK, escape(&text)),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// An answer in JSON on one line.
pub fn compact_json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => raw_json(status, escape(&text)),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn raw_json(status: StatusCode, text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ];
    (status, headers, text).into_response()
}

/// An answer in plain words.
pub fn plain(status: StatusCode, text: impl Into<String>) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (status, headers, text.into()).into_response()
}

/// The reference escapes what HTML would trip over; in JSON these characters stand in strings only.
fn escape(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

/// The parameters of a request.
#[derive(Clone, Debug, Default)]
pub struct Parameters(pub Vec<(String, String)>);

impl Parameters {
    /// The first value of a parameter; empty without one.
    pub fn text(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value.as_str())
    }

    /// A boolean; false without one.
    pub fn bool(&self, name: &str) -> Result<bool, BadParameter> {
        match self.text(name) {
            "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            value => Err(BadParameter(format!(
                "Error decoding boolean for '{name}': strconv.ParseBool: parsing {value:?}: invalid syntax"
            ))),
        }
    }

    /// A number that is never negative; 0 without one.
    pub fn unsigned(&self, name: &str) -> Result<u64, BadParameter> {
        match self.text(name) {
            "" => Ok(0),
            value => value.parse().map_err(|error| {
                let complaint = complaint(&error);
                BadParameter(format!(
                    "Error decoding uint64 for '{name}': strconv.ParseUint: parsing {value:?}: {complaint}"
                ))
            }),
        }
    }

    /// How much of subscriptions is to be shown.
    pub fn listed(&self) -> Result<Listed, BadParameter> {
        match self.text("subs").eq_ignore_ascii_case("detail") {
            true => Ok(Listed::Details),
            false => Ok(Listed::switched(self.bool("subs")?, false)),
        }
    }

    /// An integer; 0 without one.
    pub fn integer(&self, name: &str) -> Result<i64, BadParameter> {
        match self.text(name) {
            "" => Ok(0),
            value => value.parse().map_err(|error| {
                let complaint = complaint(&error);
                BadParameter(format!(
                    "Error decoding int for '{name}': strconv.Atoi: parsing {value:?}: {complaint}"
                ))
            }),
        }
    }
}

/// What Go says of a number that it cannot read.
fn complaint(error: &ParseIntError) -> &'static str {
    match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    }
}

/// Where a page begins and how long it is; what makes no sense is taken for nothing.
pub(super) fn page(offset: i64, limit: i64, limit_default: usize) -> (usize, usize) {
    let limit = usize::try_from(limit).unwrap_or(0);
    let limit = match limit {
        0 => limit_default,
        limit => limit,
    };
    (usize::try_from(offset).unwrap_or(0), limit)
}

/// A parameter that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadParameter(pub String);

impl IntoResponse for BadParameter {
    fn into_response(self) -> Response {
        plain(StatusCode::BAD_REQUEST, self.0)
    }
}

/// A duration as JSON has it: nanoseconds.
pub fn nanoseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

/// A decimal number as Go writes it: whole numbers without a point.
pub fn decimal<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    match number.fract() == 0.0 && number.abs() < 1e15 {
        true => serializer.serialize_i64(*number as i64),
        false => serializer.serialize_f64(*number),
    }
}

/// How long something has run, for people: `25s`, `3h2m1s`, `1y2d3h4m5s`.
pub fn uptime(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let years = days / 365;
    let below_days = format!("{}h{}m{}s", hours % 24, minutes % 60, seconds % 60);
    if years > 0 {
        format!("{years}y{}d{below_days}", days % 365)
    } else if days > 0 {
        format!("{days}d{below_days}")
    } else if hours > 0 {
        below_days
    } else if minutes > 0 {
        format!("{minutes}m{}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptimes_read_as_the_references() {
        for (seconds, text) in [
            (0, "0s"),
            (25, "25s"),
            (61, "1m1s"),
            (3_661, "1h1m1s"),
            (90_061, "1d1h1m1s"),
            (31_536_000 + 90_061, "1y1d1h1m1s"),
        ] {
            assert_eq!(uptime(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn parameters_are_read_as_go_reads_them() {
        let parameters = Parameters(vec![
            ("a".into(), "T".into()),
            ("b".into(), "yes".into()),
            ("n".into(), "-3".into()),
            ("a".into(), "false".into()),
        ]);
        assert_eq!(parameters.bool("a"), Ok(true));
        assert!(parameters.bool("b").is_err());
        assert_eq!(parameters.bool("none"), Ok(false));
        assert_eq!(parameters.integer("n"), Ok(-3));
        assert!(parameters.integer("a").is_err());
    }
}
