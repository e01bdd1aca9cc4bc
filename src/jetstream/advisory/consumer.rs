//! What happens to consumers and their messages.

use serde::Serialize;

use super::super::core::Advisory;
use super::super::types::Time;
use super::typed;

/// What each of these says beside the stream.
#[derive(Default, Serialize)]
struct Event<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    account: &'a str,
    stream: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    consumer: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    action: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_until: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<u64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pinned_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    batch: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    domain: &'a str,
}

/// What an advisory of a stream is about, as far as its subject says.
struct Shape<'a> {
    verb: &'static str,
    kind: &'static str,
    event: Event<'a>,
}

/// The verb of what is measured of acks.
const ACK: &str = "ACK";

/// Where an advisory is published.
pub(crate) fn subject(advisory: &Advisory, stream: &str) -> String {
    let shape = shape(advisory, "", stream);
    match shape.event.consumer {
        // A measurement rather than an event.
        consumer if shape.verb == ACK => {
            format!("$JS.EVENT.METRIC.CONSUMER.{ACK}.{stream}.{consumer}")
        }
        "" => format!("$JS.EVENT.ADVISORY.STREAM.{}.{stream}", shape.verb),
        consumer => format!(
            "$JS.EVENT.ADVISORY.CONSUMER.{}.{stream}.{consumer}",
            shape.verb
        ),
    }
}

/// What an advisory says.
pub(crate) fn payload(
    advisory: &Advisory,
    account: &str,
    stream: &str,
    domain: &str,
    now: Time,
) -> Vec<u8> {
    let Shape { kind, event, .. } = shape(advisory, account, stream);
    typed(kind, now, Event { domain, ..event })
}

fn shape<'a>(advisory: &'a Advisory, account: &'a str, stream: &'a str) -> Shape<'a> {
    let about = |consumer: &'a str| Event {
        stream,
        consumer,
        ..Event::default()
    };
    match advisory {
        Advisory::ConsumerCreated { consumer } | Advisory::ConsumerDeleted { consumer } => {
            let created = matches!(advisory, Advisory::ConsumerCreated { .. });
            Shape {
                verb: if created { "CREATED" } else { "DELETED" },
                kind: "io.nats.jetstream.advisory.v1.consumer_action",
                event: Event {
                    action: if created { "create" } else { "delete" },
                    ..about(consumer)
                },
            }
        }
        Advisory::ConsumerPaused { consumer, until_ns } => Shape {
            verb: "PAUSE",
            kind: "io.nats.jetstream.advisory.v1.consumer_pause",
            event: Event {
                paused: Some(until_ns.is_some()),
                pause_until: Some(until_ns.map_or(Time::ZERO, Time::from_nanoseconds)),
                ..about(consumer)
            },
        },
        Advisory::DeliveriesExceeded {
            consumer,
            stream_sequence,
            deliveries,
        } => Shape {
            verb: "MAX_DELIVERIES",
            kind: "io.nats.jetstream.advisory.v1.max_deliver",
            event: Event {
                stream_seq: Some(*stream_sequence),
                deliveries: Some(*deliveries),
                ..about(consumer)
            },
        },
        Advisory::Naked {
            consumer,
            consumer_sequence,
            stream_sequence,
            deliveries,
        } => Shape {
            verb: "MSG_NAKED",
            kind: "io.nats.jetstream.advisory.v1.nak",
            event: Event {
                consumer_seq: Some(*consumer_sequence),
                stream_seq: Some(*stream_sequence),
                deliveries: Some(*deliveries),
                ..about(consumer)
            },
        },
        Advisory::Terminated {
            consumer,
            consumer_sequence,
            stream_sequence,
            deliveries,
            reason,
        } => Shape {
            verb: "MSG_TERMINATED",
            kind: "io.nats.jetstream.advisory.v1.terminated",
            event: Event {
                consumer_seq: Some(*consumer_sequence),
                stream_seq: Some(*stream_sequence),
                deliveries: Some(*deliveries),
                reason,
                ..about(consumer)
            },
        },
        Advisory::Acknowledged {
            consumer,
            consumer_sequence,
            stream_sequence,
            deliveries,
            ack_time_ns,
        } => Shape {
            verb: ACK,
            kind: "io.nats.jetstream.metric.v1.consumer_ack",
            event: Event {
                consumer_seq: Some(*consumer_sequence),
                stream_seq: Some(*stream_sequence),
                ack_time: Some(*ack_time_ns),
                deliveries: Some(*deliveries),
                ..about(consumer)
            },
        },
        Advisory::Pinned {
            consumer,
            group,
            id,
        } => Shape {
            verb: "PINNED",
            kind: "io.nats.jetstream.advisory.v1.consumer_group_pinned",
            event: Event {
                account,
                group,
                pinned_id: id,
                ..about(consumer)
            },
        },
        Advisory::Unpinned {
            consumer,
            group,
            reason,
        } => Shape {
            verb: "UNPINNED",
            kind: "io.nats.jetstream.advisory.v1.consumer_group_unpinned",
            event: Event {
                account,
                group,
                reason,
                ..about(consumer)
            },
        },
        Advisory::BatchAbandoned { batch, reason } => Shape {
            verb: "BATCH_ABANDONED",
            kind: "io.nats.jetstream.advisory.v1.stream_batch_abandoned",
            event: Event {
                account,
                batch,
                reason,
                ..about("")
            },
        },
        // Ours, beside what the reference reports: damage is never passed over in silence.
        Advisory::Damaged {
            consumer,
            stream_sequence,
            reason,
        } => Shape {
            verb: "MSG_DAMAGED",
            kind: "io.nats.jetstream.advisory.v1.damaged",
            event: Event {
                stream_seq: Some(*stream_sequence),
                reason,
                ..about(consumer)
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(advisory: &Advisory) -> (String, String) {
        let payload = payload(advisory, "$G", "S", "", Time::from_nanoseconds(0));
        let text = String::from_utf8(payload).expect("text");
        let start = text.find("\"timestamp\"").expect("a time");
        (subject(advisory, "S"), text[start..].to_owned())
    }

    #[test]
    fn advisories_have_the_subjects_and_keys_of_the_reference() {
        let (subject, text) = shown(&Advisory::Naked {
            consumer: "C".to_owned(),
            consumer_sequence: 1,
            stream_sequence: 2,
            deliveries: 3,
        });
        assert_eq!(subject, "$JS.EVENT.ADVISORY.CONSUMER.MSG_NAKED.S.C");
        assert_eq!(
            text,
            r#""timestamp":"1970-01-01T00:00:00Z","stream":"S","consumer":"C","consumer_seq":1,"stream_seq":2,"deliveries":3}"#
        );
        let (subject, text) = shown(&Advisory::Unpinned {
            consumer: "C".to_owned(),
            group: "g".to_owned(),
            reason: "admin",
        });
        assert_eq!(subject, "$JS.EVENT.ADVISORY.CONSUMER.UNPINNED.S.C");
        assert_eq!(
            text,
            r#""timestamp":"1970-01-01T00:00:00Z","account":"$G","stream":"S","consumer":"C","group":"g","reason":"admin"}"#
        );
        let (_, text) = shown(&Advisory::ConsumerPaused {
            consumer: "C".to_owned(),
            until_ns: None,
        });
        assert_eq!(
            text,
            r#""timestamp":"1970-01-01T00:00:00Z","stream":"S","consumer":"C","paused":false,"pause_until":"0001-01-01T00:00:00Z"}"#
        );
    }

    #[test]
    fn a_sampled_ack_is_a_measurement() {
        let (subject, text) = shown(&Advisory::Acknowledged {
            consumer: "C".to_owned(),
            consumer_sequence: 1,
            stream_sequence: 2,
            deliveries: 3,
            ack_time_ns: 4,
        });
        assert_eq!(subject, "$JS.EVENT.METRIC.CONSUMER.ACK.S.C");
        assert_eq!(
            text,
            r#""timestamp":"1970-01-01T00:00:00Z","stream":"S","consumer":"C","consumer_seq":1,"stream_seq":2,"ack_time":4,"deliveries":3}"#
        );
    }

    #[test]
    fn every_event_of_a_consumer_has_its_own_subject() {
        let consumer = || "C".to_owned();
        for (advisory, expected_subject, expected_keys) in [
            (
                Advisory::ConsumerCreated {
                    consumer: consumer(),
                },
                "CONSUMER.CREATED.S.C",
                r#""stream":"S","consumer":"C","action":"create"}"#,
            ),
            (
                Advisory::ConsumerDeleted {
                    consumer: consumer(),
                },
                "CONSUMER.DELETED.S.C",
                r#""stream":"S","consumer":"C","action":"delete"}"#,
            ),
            (
                Advisory::DeliveriesExceeded {
                    consumer: consumer(),
                    stream_sequence: 7,
                    deliveries: 3,
                },
                "CONSUMER.MAX_DELIVERIES.S.C",
                r#""stream":"S","consumer":"C","stream_seq":7,"deliveries":3}"#,
            ),
            (
                Advisory::Terminated {
                    consumer: consumer(),
                    consumer_sequence: 1,
                    stream_sequence: 2,
                    deliveries: 3,
                    reason: "bad".to_owned(),
                },
                "CONSUMER.MSG_TERMINATED.S.C",
                r#""stream":"S","consumer":"C","consumer_seq":1,"stream_seq":2,"deliveries":3,"reason":"bad"}"#,
            ),
            (
                Advisory::Pinned {
                    consumer: consumer(),
                    group: "g".to_owned(),
                    id: "i".to_owned(),
                },
                "CONSUMER.PINNED.S.C",
                r#""account":"$G","stream":"S","consumer":"C","group":"g","pinned_id":"i"}"#,
            ),
            (
                Advisory::BatchAbandoned {
                    batch: "b".to_owned(),
                    reason: "timeout",
                },
                "STREAM.BATCH_ABANDONED.S",
                r#""account":"$G","stream":"S","batch":"b","reason":"timeout"}"#,
            ),
        ] {
            let (subject, text) = shown(&advisory);
            assert_eq!(subject, format!("$JS.EVENT.ADVISORY.{expected_subject}"));
            assert!(text.ends_with(expected_keys), "{text}");
        }
    }
}
