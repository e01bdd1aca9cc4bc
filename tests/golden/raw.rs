//! Replays raw connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::Outcome;
use super::common::{ServerOptions, Wire};
use super::compare::{self, Place};
use super::frames::{self, Frame, Message};
use super::recording::{Connection, Numbered, Recording};

/// How long an answer may take, and how much less where none is expected to match.
const PATIENCE: Duration = Duration::from_secs(3);
const PATIENCE_NOT_YET: Duration = Duration::from_millis(500);
/// What stays silent this long says nothing.
const QUIET: Duration = Duration::from_millis(30);

/// Replays every connection against a fresh server.
pub fn replay(
    recording: &Recording,
    connections: &[Numbered<Connection>],
    expected_to_match: &dyn Fn(&str) -> bool,
) -> Vec<Outcome> {
    let server = ServerOptions::default()
        .config(&recording.config)
        .try_start();
    connections
        .iter()
        .map(|Numbered { line, value }| {
            let id = recording.id(*line);
            let patience = if expected_to_match(&id) {
                PATIENCE
            } else {
                PATIENCE_NOT_YET
            };
            let differences = match &server {
                Ok(server) => replay_connection(server.address(), value, patience),
                Err(reason) => vec![format!("the server did not start: {reason}")],
            };
            Outcome {
                id,
                title: value.title.clone(),
                differences,
            }
        })
        .collect()
}

/// Replays one connection up to its first difference.
fn replay_connection(
    address: SocketAddr,
    connection: &Connection,
    patience: Duration,
) -> Vec<String> {
    let mut wire = Wire::connect(address);
    let mut queues = QueueMembers::default();
    let last = connection.steps.len() - 1;
    for (number, step) in connection.steps.iter().enumerate() {
        if let Some(bytes) = &step.send {
            queues.learn(bytes);
            wire.send(bytes);
        }
        let expected = queues.normalize(frames::all(step.recv.as_bytes()));
        let complete = |bytes: &[u8], closed: bool| {
            (!step.closed || closed) && frames::all(bytes).len() >= expected.len()
        };
        let waits_for_something = step.closed || !expected.is_empty();
        if waits_for_something {
            wire.read_until(patience, complete);
        }
        if !waits_for_something || number == last {
            wire.settle(QUIET);
        }
        let actual = queues.normalize(frames::all(&wire.take()));
        let mut differences = compare_frames(&expected, &actual);
        if step.closed != wire.is_closed() {
            let state = |closed| if closed { "closed" } else { "open" };
            differences.push(format!(
                "connection: recorded {}, now {}",
                state(step.closed),
                state(wire.is_closed())
            ));
        }
        if !differences.is_empty() {
            let sent = step.send.as_deref().unwrap_or("");
            differences.insert(0, format!("after step {number}, sent {:?}", shorten(sent)));
            return differences;
        }
    }
    Vec::new()
}

fn shorten(text: &str) -> String {
    text.chars().take(120).collect()
}

fn compare_frames(expected: &[Frame], actual: &[Frame]) -> Vec<String> {
    let mut differences = Vec::new();
    for index in 0..expected.len().max(actual.len()) {
        match (expected.get(index), actual.get(index)) {
            (Some(Frame::Info(expected)), Some(Frame::Info(actual))) => {
                differences.extend(compare::json(Place::Info, expected, actual));
            }
            (Some(expected), Some(actual)) if expected == actual => {}
            (Some(expected), Some(actual)) => {
                differences.push(format!(
                    "frame {index}: recorded {expected:?}, now {actual:?}"
                ));
            }
            (Some(expected), None) => {
                differences.push(format!("frame {index}: recorded {expected:?}, now nothing"));
            }
            (None, Some(actual)) => {
                differences.push(format!("frame {index}: recorded nothing, now {actual:?}"));
            }
            (None, None) => {}
        }
    }
    differences
}

/// Which subscriptions of a connection share a queue: any of them may get a message.
#[derive(Default)]
struct QueueMembers {
    group_of_sid: BTreeMap<String, String>,
}

impl QueueMembers {
    fn learn(&mut self, sent: &str) {
        for line in sent.split("\r\n") {
            if let ["SUB", subject, queue, sid] = line.split_whitespace().collect::<Vec<_>>()[..] {
                self.group_of_sid
                    .insert(sid.to_owned(), format!("a member of {queue} on {subject}"));
            }
        }
    }

    /// Names queues instead of members, and puts the copies of one publish in a fixed order.
    fn normalize(&self, mut frames: Vec<Frame>) -> Vec<Frame> {
        for frame in &mut frames {
            if let Frame::Message(message) = frame
                && let Some(group) = self.group_of_sid.get(&message.sid)
            {
                message.sid.clone_from(group);
            }
        }
        let same_publish = |left: &Frame, right: &Frame| match (left, right) {
            (Frame::Message(left), Frame::Message(right)) => {
                unaddressed(left) == unaddressed(right)
            }
            _ => false,
        };
        for copies in frames.chunk_by_mut(same_publish) {
            copies.sort_by_key(|frame| match frame {
                Frame::Message(message) => message.sid.clone(),
                _ => String::new(),
            });
        }
        frames
    }
}

/// All of a message but the subscription that it went to.
fn unaddressed(message: &Message) -> (&str, &str, &[u8], &[u8]) {
    (
        &message.subject,
        &message.reply,
        &message.headers,
        &message.payload,
    )
}
