//! Takes `exports` and `imports` apart, one entry at a time, as far as that can be done without the other accounts.

use std::time::Duration;

use super::super::super::duration::parse_nanoseconds;
use super::super::super::value::{Map, Value};
use super::super::report::{Field, Report, in_file_order};
use super::{Latency, ResponseType};

/// All requests are measured when nothing else is said.
const SAMPLING_DEFAULT: u8 = 100;
const BAD_SAMPLING: &str = "bad sampling percentage, should be 1-100";

/// An entry of `exports`.
pub(in super::super) struct Shared<'a> {
    pub(super) field: Field<'a>,
    pub(super) subject: String,
    pub(super) accounts: Vec<String>,
    pub(super) token_position: Option<usize>,
    /// What only services have; streams have none of it.
    pub(super) service: Option<ServiceParts>,
}

/// What is said of a service.
#[derive(Default)]
pub(super) struct ServiceParts {
    pub(super) response: ResponseType,
    pub(super) threshold: Option<Duration>,
    pub(super) latency: Option<Latency>,
    pub(super) allow_trace: bool,
}

/// An entry of `imports`.
pub(in super::super) struct Imported<'a> {
    pub(super) field: Field<'a>,
    pub(super) account: String,
    pub(super) subject: String,
    pub(super) kind: ImportKind,
}

/// What is said of one kind of import.
pub(super) enum ImportKind {
    Stream {
        prefix: Option<String>,
        to: Option<String>,
        allow_trace: bool,
    },
    Service {
        to: Option<String>,
        share: bool,
    },
}

/// Reads a list of exports.
pub(in super::super) fn exports<'a>(field: &Field<'a>, report: &mut Report) -> Vec<Shared<'a>> {
    let items = items(field, report, "Exports should be an array");
    let read = |(item, members)| export(item, members, report);
    items.into_iter().filter_map(read).collect()
}

/// Reads a list of imports.
pub(in super::super) fn imports<'a>(field: &Field<'a>, report: &mut Report) -> Vec<Imported<'a>> {
    let items = items(field, report, "Imports should be an array");
    let mut found: Vec<Imported<'a>> = Vec::with_capacity(items.len());
    for (item, members) in items {
        let Some(import) = import(item, members, report) else {
            continue;
        };
        let before = found.iter().find(|before| before.is_same_service(&import));
        match before {
            Some(before) => item.invalid(
                report,
                format!(
                    "Duplicate service import subject {:?}, previously used in import for account {:?}, subject {:?}",
                    import.local().unwrap_or_default(),
                    before.account,
                    before.subject
                ),
            ),
            None => found.push(import),
        }
    }
    found
}

impl Imported<'_> {
    /// What a service is called here.
    fn local(&self) -> Option<&str> {
        match &self.kind {
            ImportKind::Service { to, .. } => Some(to.as_deref().unwrap_or(&self.subject)),
            ImportKind::Stream { .. } => None,
        }
    }

    fn is_same_service(&self, other: &Self) -> bool {
        self.local().is_some() && self.local() == other.local() && self.account == other.account
    }
}

/// The maps of a list.
fn items<'a>(field: &Field<'a>, report: &mut Report, expected: &str) -> Vec<(Field<'a>, &'a Map)> {
    let Value::Array(nodes) = field.value() else {
        field.invalid(
            report,
            format!("{expected}, got {}", field.node.value.kind()),
        );
        return Vec::new();
    };
    let mut items = Vec::with_capacity(nodes.len());
    for node in nodes {
        let item = Field {
            name: field.name,
            node,
        };
        match item.value() {
            Value::Map(map) => items.push((item, map)),
            other => {
                let what = match field.name.starts_with(['e', 'E']) {
                    true => "Export",
                    false => "Import",
                };
                let kind = other.kind();
                let reason = format!("{what} Items should be a map with type entry, got {kind}");
                item.invalid(report, reason);
            }
        }
    }
    items
}

/// What was seen of an export so far.
#[derive(Default)]
struct Seen<'a> {
    stream: Option<String>,
    service: Option<String>,
    accounts: Vec<String>,
    token_position: Option<usize>,
    parts: ServiceParts,
    has_response: bool,
    has_threshold: bool,
    /// Keys that only services have, and how errors name them.
    only_for_services: Vec<(Field<'a>, &'static str)>,
}

fn export<'a>(item: Field<'a>, members: &'a Map, report: &mut Report) -> Option<Shared<'a>> {
    let mut seen = Seen::default();
    for member in in_file_order(members) {
        export_member(&mut seen, member, report);
    }
    let subject = match (seen.stream, seen.service) {
        (Some(subject), None) => {
            for (field, what) in &seen.only_for_services {
                field.invalid(report, format!("Detected {what} directive on non-service"));
            }
            return Some(Shared {
                field: item,
                subject,
                accounts: seen.accounts,
                token_position: seen.token_position,
                service: None,
            });
        }
        (None, Some(subject)) => subject,
        // Both were told where the second stands; neither is nothing at all, as the reference has it.
        _ => return None,
    };
    Some(Shared {
        field: item,
        subject,
        accounts: seen.accounts,
        token_position: seen.token_position,
        service: Some(seen.parts),
    })
}

fn export_member<'a>(seen: &mut Seen<'a>, member: Field<'a>, report: &mut Report) {
    match member.key().as_str() {
        "stream" => {
            let subject = member.string(report);
            if seen.service.is_some() {
                let subject = subject.unwrap_or_default();
                let reason = format!("Detected stream {subject:?} but already saw a service");
                return member.invalid(report, reason);
            }
            seen.stream = subject;
        }
        "service" => {
            let subject = member.string(report);
            if seen.stream.is_some() {
                let subject = subject.unwrap_or_default();
                let reason = format!("Detected service {subject:?} but already saw a stream");
                return member.invalid(report, reason);
            }
            seen.service = subject;
        }
        "response" | "response_type" => {
            if std::mem::replace(&mut seen.has_response, true) {
                return member.invalid(report, "Duplicate response type definition");
            }
            seen.only_for_services.push((member, "response"));
            if let Some(word) = member.string(report) {
                match response_type(&word) {
                    Some(response) => seen.parts.response = response,
                    None => member.invalid(report, format!("Unknown response type: {word:?}")),
                }
            }
        }
        "threshold" | "response_threshold" | "response_max_time" | "response_time" => {
            if std::mem::replace(&mut seen.has_threshold, true) {
                return member.invalid(report, "Duplicate response threshold detected");
            }
            seen.only_for_services.push((member, "response"));
            seen.parts.threshold = threshold(&member, report);
        }
        "accounts" => seen.accounts = member.strings(report).unwrap_or_default(),
        "latency" => {
            seen.only_for_services.push((member, "latency"));
            seen.parts.latency = latency(&member, report);
            if seen.parts.latency.is_some() {
                member.not_supported(report, "how long services take is not measured");
            }
        }
        "account_token_position" => {
            // No line of the protocol has more tokens.
            let position = member.within::<usize>(report, 0, i64::from(u16::MAX));
            seen.token_position = position.filter(|position| *position > 0);
        }
        "allow_trace" => {
            seen.only_for_services.push((member, "allow_trace"));
            seen.parts.allow_trace = member.bool(report).unwrap_or_default();
        }
        _ => member.unknown(report),
    }
}

fn response_type(word: &str) -> Option<ResponseType> {
    Some(match word.to_ascii_lowercase().as_str() {
        "single" | "singleton" => ResponseType::Singleton,
        "stream" => ResponseType::Streamed,
        "chunk" | "chunked" => ResponseType::Chunked,
        _ => return None,
    })
}

/// A duration as text; none at all leaves what happens without one.
fn threshold(field: &Field<'_>, report: &mut Report) -> Option<Duration> {
    let text = field.string(report)?;
    let nanoseconds = parse_nanoseconds(&text).ok();
    match nanoseconds.and_then(|nanoseconds| u64::try_from(nanoseconds).ok()) {
        Some(nanoseconds) => Some(Duration::from_nanos(nanoseconds)).filter(|time| !time.is_zero()),
        None => {
            let reason = format!(
                "Expected response threshold to be a parseable time duration, got {text:?}"
            );
            field.invalid(report, reason);
            None
        }
    }
}

fn latency(field: &Field<'_>, report: &mut Report) -> Option<Latency> {
    let members = match field.value() {
        Value::String(subject) => {
            return Some(Latency {
                sampling: SAMPLING_DEFAULT,
                subject: subject.clone(),
            });
        }
        Value::Map(members) => members,
        _ => {
            field.wrong_type(report, "a subject, or a map with a subject");
            return None;
        }
    };
    let mut sampling = SAMPLING_DEFAULT;
    let mut subject = None;
    for member in in_file_order(members) {
        match member.key().as_str() {
            "sampling" => sampling = self::sampling(&member, report)?,
            "subject" => subject = Some(member.string(report)?),
            _ => member.unknown(report),
        }
    }
    let Some(subject) = subject else {
        field.invalid(report, "Latency subject required, but missing");
        return None;
    };
    Some(Latency { sampling, subject })
}

/// A number of a hundred, with or without the sign for that, or `headers`.
fn sampling(field: &Field<'_>, report: &mut Report) -> Option<u8> {
    let number = match field.value() {
        Value::Integer(number) => *number,
        Value::String(text) if text.trim().eq_ignore_ascii_case("headers") => return Some(0),
        Value::String(text) => match text.strip_suffix('%').unwrap_or(text).parse() {
            Ok(number) => number,
            Err(error) => {
                field.invalid(report, format!("Failed to parse latency sample: {error}"));
                return None;
            }
        },
        _ => {
            field.wrong_type(report, "a number, a percentage or 'headers'");
            return None;
        }
    };
    match u8::try_from(number) {
        Ok(sampling @ 1..=100) => Some(sampling),
        _ => {
            field.invalid(report, BAD_SAMPLING);
            None
        }
    }
}

fn import<'a>(item: Field<'a>, members: &'a Map, report: &mut Report) -> Option<Imported<'a>> {
    let (mut stream, mut service) = (None, None);
    let (mut prefix, mut to) = (None, None);
    let (mut share, mut trace) = (false, None);
    for member in in_file_order(members) {
        match member.key().as_str() {
            "stream" if service.is_some() => {
                member.invalid(report, "Detected stream but already saw a service");
            }
            "stream" => stream = source(&member, "Stream", report),
            "service" if stream.is_some() => {
                member.invalid(report, "Detected service but already saw a stream");
            }
            "service" => service = source(&member, "Service", report),
            "prefix" => prefix = member.string(report).map(|text| (member, text)),
            "to" => to = member.string(report).map(|text| (member, text)),
            "share" => share = member.bool(report).unwrap_or_default(),
            "allow_trace" => trace = member.bool(report).map(|allow| (member, allow)),
            _ => member.unknown(report),
        }
    }
    let filled = |(_, text): (Field<'_>, String)| Some(text).filter(|text| !text.is_empty());
    if let Some((account, subject)) = stream {
        if let (Some((_, prefix)), Some((member, _))) = (&prefix, &to)
            && !prefix.is_empty()
        {
            let reason = "Stream import can not have a 'prefix' and a 'to' property";
            member.invalid(report, reason);
            return None;
        }
        return Some(Imported {
            field: item,
            account,
            subject,
            kind: ImportKind::Stream {
                prefix: prefix.and_then(filled),
                to: to.and_then(filled),
                allow_trace: trace.is_some_and(|(_, allow)| allow),
            },
        });
    }
    let (account, subject) = service?;
    if let Some((member, _)) = trace {
        let reason = "Detected allow_trace directive on a non-stream";
        member.invalid(report, reason);
    }
    Some(Imported {
        field: item,
        account,
        subject,
        kind: ImportKind::Service {
            to: to.and_then(filled),
            share,
        },
    })
}

/// The account and the subject that are imported.
fn source(field: &Field<'_>, what: &str, report: &mut Report) -> Option<(String, String)> {
    let Value::Map(members) = field.value() else {
        let kind = field.node.value.kind();
        let reason = format!("{what} entry should be an account map, got {kind}");
        field.invalid(report, reason);
        return None;
    };
    let (mut account, mut subject) = (String::new(), String::new());
    for member in in_file_order(members) {
        match member.key().as_str() {
            "account" => account = member.string(report)?,
            "subject" => subject = member.string(report)?,
            _ => member.unknown(report),
        }
    }
    if account.is_empty() || subject.is_empty() {
        field.invalid(report, "Expect an account name and a subject");
        return None;
    }
    Some((account, subject))
}
