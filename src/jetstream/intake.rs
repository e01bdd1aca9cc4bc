//! What reaches a stream from the broker, turned into what its core decides about.
//!
//! All of it is heard by subscriptions of the stream itself: its subjects, the acks and flow control answers of its
//! consumers, pull requests for each consumer, and direct gets where they are allowed.

use bytes::Bytes;

use super::api::direct::{self, DirectRefusal};
use super::api::workers::REQUIRED_LEVEL;
use super::core::{AckNames, DirectQuery, Event, Publish};
use super::types::{StreamConfig, header_exceeds_level};
use crate::broker::{Inbound, Outgoing};
use crate::protocol::headers;

/// The queue group in which replicas and mirrors share direct gets.
pub(crate) const DIRECT_QUEUE: &str = "_sys_";

/// What a subscription of a stream is for; broker messages carry it as their tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Purpose {
    /// Messages to store.
    Publish = 0,
    /// Acks.
    Ack = 1,
    /// Answers to flow control.
    FlowControl = 2,
    /// Direct gets that say in their body what they want.
    Direct = 3,
    /// Direct gets that say so in their subject.
    DirectBySubject = 4,
    /// Pull requests.
    Pull = 5,
}

impl Purpose {
    /// Whether it only reads, so that any replica can answer.
    pub(crate) fn is_direct(self) -> bool {
        matches!(self, Self::Direct | Self::DirectBySubject)
    }

    /// The queue group in which it is heard: whoever has the messages of a stream shares its direct gets.
    pub(crate) fn queue(self) -> Option<&'static str> {
        self.is_direct().then_some(DIRECT_QUEUE)
    }

    fn of(tag: u64) -> Option<Self> {
        [
            Self::Publish,
            Self::Ack,
            Self::FlowControl,
            Self::Direct,
            Self::DirectBySubject,
            Self::Pull,
        ]
        .into_iter()
        .find(|purpose| *purpose as u64 == tag)
    }
}

/// What a stream listens to, apart from pull requests, which are heard for each consumer.
pub(crate) fn patterns(config: &StreamConfig, names: &AckNames) -> Vec<(String, Purpose)> {
    let name = &config.name;
    let mut patterns: Vec<(String, Purpose)> = config
        .subjects
        .iter()
        .map(|subject| (subject.clone(), Purpose::Publish))
        .collect();
    let acks = names.ack_patterns().map(|pattern| (pattern, Purpose::Ack));
    let flow = names
        .flow_patterns()
        .map(|pattern| (pattern, Purpose::FlowControl));
    patterns.extend(acks.into_iter().chain(flow));
    if config.allow_direct {
        patterns.push((format!("$JS.API.DIRECT.GET.{name}"), Purpose::Direct));
        patterns.push((
            format!("$JS.API.DIRECT.GET.{name}.>"),
            Purpose::DirectBySubject,
        ));
    }
    patterns
}

/// Where pull requests for a consumer are heard.
pub(crate) fn pull_subject(stream: &str, consumer: &str) -> String {
    format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}")
}

/// What a message from the broker means to a stream.
#[derive(Debug)]
pub(crate) enum Intake {
    /// Its core decides.
    Event(Event),
    /// It is refused with this.
    Refusal(Outgoing),
    /// It means nothing.
    Nothing,
}

/// Reads a message.
pub(crate) fn read(inbound: Inbound) -> Intake {
    let Inbound {
        tag,
        subject,
        reply,
        headers,
        payload,
        ..
    } = inbound;
    match Purpose::of(tag) {
        Some(Purpose::Publish) => Intake::Event(Event::Publish(Publish {
            subject,
            reply,
            headers,
            payload,
        })),
        Some(Purpose::Ack) => Intake::Event(Event::Ack {
            subject,
            reply,
            body: payload,
        }),
        Some(Purpose::FlowControl) => Intake::Event(Event::FlowControl { subject, headers }),
        Some(Purpose::Direct | Purpose::DirectBySubject) => {
            let query = direct_query(tag, &subject, &headers, &payload);
            direct_get(reply, query.unwrap_or(Err(DirectRefusal::Bad)))
        }
        Some(Purpose::Pull) => pull(&subject, reply, &headers, payload),
        None => Intake::Nothing,
    }
}

/// What a direct get asks for; nothing when the message is none, or asks for nothing that can be answered.
pub(crate) fn query_of(inbound: &Inbound) -> Option<DirectQuery> {
    let Inbound {
        tag,
        subject,
        headers,
        payload,
        ..
    } = inbound;
    direct_query(*tag, subject, headers, payload)?.ok()
}

fn direct_query(
    tag: u64,
    subject: &[u8],
    headers: &[u8],
    payload: &[u8],
) -> Option<Result<DirectQuery, DirectRefusal>> {
    match Purpose::of(tag)? {
        Purpose::Direct => Some(direct::parse(required_level(headers), payload)),
        Purpose::DirectBySubject => {
            let wanted = std::str::from_utf8(after_tokens(subject, 5));
            let query = wanted
                .map(|wanted| direct::parse_by_subject(wanted, required_level(headers), payload));
            Some(query.unwrap_or(Err(DirectRefusal::Bad)))
        }
        _ => None,
    }
}

fn direct_get(reply: Bytes, query: Result<DirectQuery, DirectRefusal>) -> Intake {
    match query {
        _ if reply.is_empty() => Intake::Nothing,
        Ok(query) => Intake::Event(Event::Direct { reply, query }),
        Err(refusal) => refuse(reply, refusal),
    }
}

fn pull(subject: &[u8], reply: Bytes, headers: &[u8], body: Bytes) -> Intake {
    if reply.is_empty() {
        return Intake::Nothing;
    }
    if header_exceeds_level(required_level(headers)) {
        return refuse(reply, DirectRefusal::Level);
    }
    match std::str::from_utf8(after_tokens(subject, 6)) {
        Ok(consumer) => Intake::Event(Event::Pull {
            consumer: consumer.to_owned(),
            reply,
            body,
        }),
        Err(_) => Intake::Nothing,
    }
}

fn refuse(reply: Bytes, refusal: DirectRefusal) -> Intake {
    Intake::Refusal(Outgoing {
        subject: reply,
        headers: Bytes::from_static(refusal.block()),
        ..Outgoing::default()
    })
}

fn required_level(block: &[u8]) -> &[u8] {
    headers::get(block, REQUIRED_LEVEL).unwrap_or_default()
}

/// What follows the first `count` tokens.
fn after_tokens(subject: &[u8], count: usize) -> &[u8] {
    let mut rest = subject;
    for _ in 0..count {
        match rest.iter().position(|byte| *byte == b'.') {
            Some(dot) => rest = rest.get(dot + 1..).unwrap_or_default(),
            None => return &[],
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::broker::Broker;
    use crate::jetstream::core::AckForm;

    fn inbound(purpose: Purpose, subject: &str, headers: &str, body: &str) -> Inbound {
        Inbound {
            account: Arc::clone(Broker::new().global()),
            tag: purpose as u64,
            subject: Bytes::copy_from_slice(subject.as_bytes()),
            reply: Bytes::from_static(b"r"),
            headers: Bytes::copy_from_slice(headers.as_bytes()),
            payload: Bytes::copy_from_slice(body.as_bytes()),
            client: None,
            trace: None,
        }
    }

    #[test]
    fn a_stream_hears_its_subjects_and_its_consumers() {
        let config = StreamConfig {
            name: "S".to_owned(),
            subjects: vec!["a.>".to_owned()],
            allow_direct: true,
            ..StreamConfig::default()
        };
        let names = AckNames::new("", "$G", "S", AckForm::Short);
        let heard: Vec<String> = patterns(&config, &names)
            .into_iter()
            .map(|(pattern, _)| pattern)
            .collect();
        assert_eq!(
            heard,
            [
                "a.>",
                "$JS.ACK.S.*.*.*.*.*.*",
                "$JS.ACK._.szMpdrwD.S.*.*.*.*.*.>",
                "$JS.FC.S.*.*",
                "$JS.FC._.szMpdrwD.S.*.*",
                "$JS.API.DIRECT.GET.S",
                "$JS.API.DIRECT.GET.S.>"
            ]
        );
        assert_eq!(pull_subject("S", "C"), "$JS.API.CONSUMER.MSG.NEXT.S.C");
    }

    #[test]
    fn requests_name_their_consumer_and_their_subject() {
        let pull = inbound(Purpose::Pull, "$JS.API.CONSUMER.MSG.NEXT.S.C", "", "5");
        match read(pull) {
            Intake::Event(Event::Pull { consumer, body, .. }) => {
                assert_eq!((consumer.as_str(), &body[..]), ("C", &b"5"[..]));
            }
            other => panic!("{other:?}"),
        }
        let get = inbound(Purpose::DirectBySubject, "$JS.API.DIRECT.GET.S.a.b", "", "");
        match read(get) {
            Intake::Event(Event::Direct { query, .. }) => {
                assert!(
                    format!("{query:?}").contains("LastBySubject(\"a.b\")"),
                    "{query:?}"
                );
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_needs_a_later_server_is_refused() {
        let level = "NATS/1.0\r\nNats-Required-Api-Level: 99\r\n\r\n";
        for (purpose, subject) in [
            (Purpose::Pull, "$JS.API.CONSUMER.MSG.NEXT.S.C"),
            (Purpose::Direct, "$JS.API.DIRECT.GET.S"),
        ] {
            match read(inbound(purpose, subject, level, "{\"seq\":1}")) {
                Intake::Refusal(message) => {
                    assert_eq!(message.headers, "NATS/1.0 412 Required Api Level\r\n\r\n");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
