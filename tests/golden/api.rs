//! Replays API requests, with looks at the monitoring port between them.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::Outcome;
use super::common::{Server, ServerOptions, Wire, http_get};
use super::compare::{self, Place};
use super::frames::{self, Frame, Message};
use super::recording::{Numbered, Recording, Reply, Step};

/// How long an answer may take, and how much less where none is expected to match.
const PATIENCE: Duration = Duration::from_secs(4);
const PATIENCE_NOT_YET: Duration = Duration::from_secs(1);
/// How long silence is listened to where the recording is silent: as long as the recorder did, because what expires
/// meanwhile shows in later steps.
const SILENCE: Duration = Duration::from_secs(3);
/// After all that was recorded has come, what more comes this soon is too much.
const QUIET: Duration = Duration::from_millis(25);

const CONNECT: &str = r#"{"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1,"lang":"bar","version":"0"}"#;
/// As long as the recorder's, so that byte counters agree.
const INBOX: &str = "_INBOX.0123456789abcdef";

/// Replays every step on one connection to a fresh server.
pub fn replay(
    recording: &Recording,
    steps: &[Numbered<Step>],
    expected_to_match: &dyn Fn(&str) -> bool,
) -> Vec<Outcome> {
    let server = ServerOptions::default()
        .config(&recording.config)
        .monitoring()
        .try_start();
    let mut session = server.as_ref().map(Session::open);
    let compared = |step: &&Numbered<Step>| step.value.action != "sleep" || server.is_ok();
    let mut outcomes = Vec::new();
    for Numbered { line, value } in steps.iter().filter(compared) {
        if value.action == "sleep" {
            let seconds = value.subject.parse().expect("a pause in seconds");
            std::thread::sleep(Duration::from_secs_f64(seconds));
            continue;
        }
        let id = recording.id(*line);
        let patience = if expected_to_match(&id) {
            PATIENCE
        } else {
            PATIENCE_NOT_YET
        };
        let differences = match &mut session {
            Ok(session) => session.step(value, patience),
            Err(reason) => vec![format!("the server did not start: {reason}")],
        };
        outcomes.push(Outcome {
            id,
            title: title(value),
            differences,
        });
    }
    outcomes
}

fn title(step: &Step) -> String {
    let text = format!("{} {} {}", step.action, step.subject, step.payload);
    text.trim_end().chars().take(100).collect()
}

/// The one connection, and the requests sent on it so far.
struct Session<'a> {
    server: &'a Server,
    wire: Wire,
    requests: u32,
}

impl<'a> Session<'a> {
    fn open(server: &'a Server) -> Self {
        // The recorder looked whether the server was up with a connection that it closed again: it shows in /connz.
        Wire::connect(server.address()).expect("INFO ");
        let mut wire = Wire::ready(server.address(), CONNECT);
        wire.send(format!("SUB {INBOX}.> 1\r\n"));
        wire.round_trip();
        Self {
            server,
            wire,
            requests: 0,
        }
    }

    fn step(&mut self, step: &Step, patience: Duration) -> Vec<String> {
        match step.action.split_once(':') {
            None if step.action == "http" => self.page(step),
            None if step.action == "req" => {
                let inbox = self.request(step);
                let replies = self.collect(step, patience, |message| message.subject == inbox);
                compare_replies(&step.replies, &replies, &inbox)
            }
            Some(("collect", _)) => {
                let inbox = self.request(step);
                let replies = self.collect(step, patience, |_| true);
                compare_replies(&step.replies, &replies, &inbox)
            }
            _ => panic!("unknown step {:?}", step.action),
        }
    }

    fn page(&self, step: &Step) -> Vec<String> {
        let answer = match http_get(self.server.monitor_address(), &step.subject) {
            Ok(answer) => answer,
            Err(error) => return vec![error.to_string()],
        };
        if answer.status != step.status {
            return vec![format!(
                "status: recorded {}, now {} {:?}",
                step.status, answer.status, answer.body
            )];
        }
        if step.subject == "/" {
            return Vec::new();
        }
        compare_bodies(Place::Page(&step.subject), &step.body, &answer.body)
    }

    /// Publishes the step's request; returns its reply subject.
    fn request(&mut self, step: &Step) -> String {
        self.requests += 1;
        let inbox = format!("{INBOX}.{:08x}", self.requests);
        let (subject, payload) = (&step.subject, &step.payload);
        match &step.headers {
            None => self.wire.send(format!(
                "PUB {subject} {inbox} {}\r\n{payload}\r\n",
                payload.len()
            )),
            Some(headers) => {
                let mut block = "NATS/1.0\r\n".to_owned();
                for (key, value) in headers {
                    let value = value.as_str().expect("header values are text");
                    block.push_str(&format!("{key}: {value}\r\n"));
                }
                block.push_str("\r\n");
                self.wire.send(format!(
                    "HPUB {subject} {inbox} {} {}\r\n{block}{payload}\r\n",
                    block.len(),
                    block.len() + payload.len()
                ));
            }
        }
        inbox
    }

    /// Takes as many messages as were recorded, and one more where one comes at once that is asked for by name.
    fn collect(
        &mut self,
        step: &Step,
        patience: Duration,
        wanted: impl Fn(&Message) -> bool,
    ) -> Vec<Message> {
        let mut messages = Vec::new();
        let deadline = Instant::now()
            + if step.replies.is_empty() {
                SILENCE
            } else {
                patience
            };
        while messages.len() < step.replies.len() || step.replies.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.next_frame(left) {
                Some(Frame::Message(message)) if wanted(&message) => messages.push(message),
                Some(_) => {}
                None => break,
            }
            if step.replies.is_empty() && !messages.is_empty() {
                break;
            }
        }
        let collects_all = step.action == format!("collect:{}", step.replies.len());
        if !step.replies.is_empty() && !collects_all {
            while let Some(frame) = self.next_frame(QUIET) {
                if let Frame::Message(message) = frame
                    && wanted(&message)
                {
                    messages.push(message);
                }
            }
        }
        messages
    }

    fn next_frame(&mut self, patience: Duration) -> Option<Frame> {
        self.wire
            .read_until(patience, |bytes, _| frames::first(bytes).is_some());
        let (frame, length) = frames::first(self.wire.received())?;
        self.wire.take_first(length);
        Some(frame)
    }
}

fn compare_replies(expected: &[Reply], actual: &[Message], inbox: &str) -> Vec<String> {
    let mut differences = Vec::new();
    for index in 0..expected.len().max(actual.len()) {
        match (expected.get(index), actual.get(index)) {
            (Some(expected), Some(actual)) => {
                let lines = compare_reply(expected, &as_recorded(actual, inbox));
                differences.extend(
                    lines
                        .into_iter()
                        .map(|line| format!("reply {index}: {line}")),
                );
            }
            (Some(expected), None) => differences.push(format!(
                "reply {index}: recorded {:?} {:?} {:?}, now nothing",
                expected.subject, expected.headers, expected.payload
            )),
            (None, Some(actual)) => {
                let actual = as_recorded(actual, inbox);
                differences.push(format!(
                    "reply {index}: recorded nothing, now {:?} {:?} {:?}",
                    actual.subject, actual.headers, actual.payload
                ));
            }
            (None, None) => {}
        }
    }
    differences
}

fn as_recorded(message: &Message, inbox: &str) -> Reply {
    let subject = if message.subject == inbox {
        "<reply>".to_owned()
    } else {
        message.subject.clone()
    };
    Reply {
        subject,
        reply: message.reply.clone(),
        headers: String::from_utf8_lossy(&message.headers).into_owned(),
        payload: String::from_utf8_lossy(&message.payload).into_owned(),
    }
}

fn compare_reply(expected: &Reply, actual: &Reply) -> Vec<String> {
    let earlier_reply = |subject: &str| {
        if subject.starts_with("_INBOX.") {
            "<the reply subject of an earlier request>".to_owned()
        } else {
            subject.to_owned()
        }
    };
    let mut differences = Vec::new();
    let mut compare_text = |what: &str, expected: String, actual: String| {
        if expected != actual {
            differences.push(format!("{what}: recorded {expected:?}, now {actual:?}"));
        }
    };
    compare_text(
        "subject",
        earlier_reply(&expected.subject),
        earlier_reply(&actual.subject),
    );
    compare_text(
        "reply subject",
        compare::comparable_ack_subject(&expected.reply),
        compare::comparable_ack_subject(&actual.reply),
    );
    compare_text(
        "headers",
        compare::comparable_headers(&expected.headers),
        compare::comparable_headers(&actual.headers),
    );
    differences.extend(compare_bodies(
        Place::Reply,
        &expected.payload,
        &actual.payload,
    ));
    differences
}

fn compare_bodies(place: Place<'_>, expected: &str, actual: &str) -> Vec<String> {
    let parsed = |text: &str| {
        serde_json::from_str::<Value>(text)
            .ok()
            .filter(Value::is_object)
    };
    match (parsed(expected), parsed(actual)) {
        (Some(expected), Some(actual)) => compare::json(place, &expected, &actual),
        _ if expected == actual => Vec::new(),
        _ => vec![format!("recorded {expected:?}, now {actual:?}")],
    }
}
