//! What differs between what two servers did, and what of it is meant to.

use serde_json::Value;

use super::accepted::ACCEPTED;
use super::compare::{self, Place};
use super::session::Seen;

/// What differs and is not accepted, one line each; the reference's is called recorded.
pub fn differences(kind: &str, reference: &[Seen], ours: &[Seen]) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut left, mut right) = (reference, ours);
    // Both are sorted by subject.
    while let Some(subject) = [left.first(), right.first()]
        .into_iter()
        .flatten()
        .map(|message| message.subject.as_str())
        .min()
    {
        let count = |list: &[Seen]| list.iter().take_while(|m| m.subject == subject).count();
        let (of_left, rest_left) = left.split_at(count(left));
        let (of_right, rest_right) = right.split_at(count(right));
        lines.extend(of_subject(of_left, of_right));
        (left, right) = (rest_left, rest_right);
    }
    lines.retain(|line| !accepted(kind, line));
    lines
}

fn of_subject(reference: &[Seen], ours: &[Seen]) -> Vec<String> {
    let mut lines = Vec::new();
    for index in 0..reference.len().max(ours.len()) {
        match (reference.get(index), ours.get(index)) {
            (Some(reference), Some(ours)) => lines.extend(of_message(reference, ours)),
            (Some(one), None) => {
                lines.push(format!("message: recorded {}, now nothing", shown(one)));
            }
            (None, Some(one)) => {
                lines.push(format!("message: recorded nothing, now {}", shown(one)));
            }
            (None, None) => {}
        }
    }
    lines
}

fn shown(message: &Seen) -> String {
    let headers = message.headers.trim_end().replace("\r\n", " | ");
    let payload: String = message.payload.chars().take(400).collect();
    let subject = if message.subject.starts_with("_INBOX.") {
        "reply"
    } else {
        &message.subject
    };
    format!("{subject} ({}) {headers:?} {payload:?}", message.reply)
}

fn of_message(reference: &Seen, ours: &Seen) -> Vec<String> {
    let mut lines = Vec::new();
    let mut text = |what: &str, reference: &str, ours: &str| {
        if reference != ours {
            lines.push(format!("{what}: recorded {reference:?}, now {ours:?}"));
        }
    };
    text("reply subject", &reference.reply, &ours.reply);
    text("headers", &reference.headers, &ours.headers);
    match (reference.json(), ours.json()) {
        (Some(mut reference), Some(mut ours)) => {
            in_one_order(&mut reference);
            in_one_order(&mut ours);
            lines.extend(compare::json(Place::Reply, &reference, &ours));
        }
        _ => text("payload", &reference.payload, &ours.payload),
    }
    lines
}

/// Lists of consumers are sorted by names that the servers made up.
fn in_one_order(body: &mut Value) {
    if let Some(Value::Array(consumers)) = body.get_mut("consumers") {
        consumers.sort_by_key(|one| one.get("name").unwrap_or(one).to_string());
    }
}

fn accepted(kind: &str, line: &str) -> bool {
    ACCEPTED.iter().any(|accepted| {
        (accepted.kind.is_empty() || accepted.kind == kind) && matches(accepted.difference, line)
    })
}

/// Whether a text is as a pattern says, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Whether both refused, in whichever words: the scenario can go on.
pub fn both_refused(reference: &[Seen], ours: &[Seen]) -> bool {
    let refused = |messages: &[Seen]| {
        !messages.is_empty()
            && messages.iter().all(|message| {
                let error = message
                    .json()
                    .is_some_and(|body| body.get("error").is_some());
                error || message.headers.starts_with("NATS/1.0 4")
            })
    };
    refused(reference) && refused(ours)
}

/// Under what a difference is counted: its words without those that vary.
pub fn signature(kind: &str, line: &str) -> String {
    let line: String = line.chars().take(260).collect();
    let mut text = String::new();
    let mut in_number = false;
    for letter in line.chars() {
        if letter.is_ascii_digit() {
            if !in_number {
                text.push('#');
            }
            in_number = true;
        } else {
            in_number = false;
            text.push(letter);
        }
    }
    format!("{kind}: {text}")
}

#[test]
fn a_star_stands_for_anything() {
    assert!(matches("a: * b", "a: what comes b"));
    assert!(matches("a", "a"));
    assert!(!matches("a: * b", "a: what comes c"));
    assert!(!matches("a", "ab"));
}
