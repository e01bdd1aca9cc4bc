//! Management requests and direct gets.

use super::*;
use crate::jetstream::core::{DirectQuery, InfoQuery, MessageQuery, PurgeQuery};
use crate::jetstream::types::ErrorCode;

fn filled() -> Bench {
    let mut bench = Bench::new(stream("S", &["s.>"]));
    for (subject, payload) in [("s.a", "1"), ("s.b", "2"), ("s.a", "3"), ("s.c", "4")] {
        bench.publish(subject, payload);
    }
    bench
}

fn refused(reply: StreamReply, code: ErrorCode, text: &str) {
    match reply {
        StreamReply::Refused(error) => {
            assert!(error.is(code), "{error}");
            assert_eq!(error.description, text);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_is_found_by_sequence_subject_or_time() {
    let mut bench = filled();
    for (query, expected) in [
        (MessageQuery::Sequence(2), Some("2")),
        (MessageQuery::Sequence(9), None),
        (MessageQuery::LastBySubject("s.a".to_owned()), Some("3")),
        (MessageQuery::LastBySubject("s.*".to_owned()), Some("4")),
        (MessageQuery::LastBySubject("s.z".to_owned()), None),
        (
            MessageQuery::NextBySubject {
                sequence: 2,
                subject: "s.a".to_owned(),
            },
            Some("3"),
        ),
        (
            MessageQuery::AtTime {
                time_ns: 0,
                subject: "s.c".to_owned(),
            },
            Some("4"),
        ),
    ] {
        match (bench.request(StreamRequest::Get(query.clone())), expected) {
            (StreamReply::Message(message), Some(expected)) => {
                assert_eq!(text(&message.payload), expected);
            }
            (StreamReply::Refused(error), None) => {
                assert!(error.is(ErrorCode::NoMessageFound));
            }
            other => panic!("{query:?}: {other:?}"),
        }
    }
}

#[test]
fn a_message_is_deleted_once() {
    let mut bench = filled();
    let delete = |sequence| StreamRequest::Delete {
        sequence,
        erase: true,
    };
    assert!(matches!(bench.request(delete(2)), StreamReply::Done));
    refused(
        bench.request(delete(2)),
        ErrorCode::SequenceNotFound,
        "sequence 2 not found",
    );
    refused(
        bench.request(delete(99)),
        ErrorCode::StreamMsgDeleteFailed,
        "stream store EOF",
    );
    refused(
        bench.request(delete(0)),
        ErrorCode::StreamMsgDeleteFailed,
        "no message found",
    );
    let state = bench.info().state;
    assert_eq!((state.messages, state.num_deleted), (3, 1));
}

#[test]
fn a_purge_beyond_the_last_message_moves_the_next_sequence() {
    let mut bench = filled();
    bench.instant = false;
    let query = PurgeQuery {
        below_sequence: 20,
        ..PurgeQuery::default()
    };
    bench.ask(StreamRequest::Purge(query));
    // Decided before the purge is durable, and on top of it.
    bench.publish("s.a", "x");
    bench.instant = true;
    bench.publish("s.a", "y");
    let state = bench.info().state;
    assert_eq!(
        (state.messages, state.first_seq, state.last_seq),
        (2, 20, 21)
    );
    assert!(matches!(
        bench.request(StreamRequest::Purge(PurgeQuery::default())),
        StreamReply::Purged(2)
    ));
}

#[test]
fn a_purge_says_how_many_went() {
    for (query, purged, first) in [
        (PurgeQuery::default(), 4, 5),
        (
            PurgeQuery {
                filter: "s.a".to_owned(),
                keep: 1,
                ..PurgeQuery::default()
            },
            1,
            2,
        ),
        (
            PurgeQuery {
                below_sequence: 3,
                ..PurgeQuery::default()
            },
            2,
            3,
        ),
    ] {
        let mut bench = filled();
        match bench.request(StreamRequest::Purge(query.clone())) {
            StreamReply::Purged(count) => assert_eq!(count, purged, "{query:?}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(bench.info().state.first_seq, first, "{query:?}");
    }
}

#[test]
fn what_is_denied_is_refused() {
    let mut bench = Bench::new(StreamConfig {
        deny_delete: true,
        deny_purge: true,
        ..stream("S", &["s.>"])
    });
    bench.publish("s.a", "1");
    let delete = StreamRequest::Delete {
        sequence: 1,
        erase: true,
    };
    refused(
        bench.request(delete),
        ErrorCode::StreamMsgDeleteFailed,
        "message delete not permitted",
    );
    refused(
        bench.request(StreamRequest::Purge(PurgeQuery::default())),
        ErrorCode::StreamPurgeFailed,
        "stream purge not permitted",
    );
}

#[test]
fn an_answer_rests_on_what_is_durable() {
    let mut bench = filled();
    bench.instant = false;
    bench.send("s.a", &[], "5");
    let info = bench.ask(StreamRequest::Info(InfoQuery::default()));
    let purge = bench.ask(StreamRequest::Purge(PurgeQuery::default()));
    assert!(bench.reply(info).is_none());
    bench.commit();
    match bench.reply(info) {
        Some(StreamReply::Info { info, .. }) => assert_eq!(info.state.messages, 5),
        other => panic!("{other:?}"),
    }
    assert!(bench.reply(purge).is_none());
    bench.settle();
    bench.commit();
    assert!(matches!(bench.reply(purge), Some(StreamReply::Purged(5))));
}

#[test]
fn another_configuration_counts_from_then_on() {
    let mut bench = filled();
    let config = StreamConfig {
        max_msgs: 2,
        ..stream("S", &["s.>"])
    };
    match bench.request(StreamRequest::Update(Box::new(config))) {
        StreamReply::Info { info, .. } => {
            assert_eq!((info.config.max_msgs, info.state.messages), (2, 2));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn info_lists_subjects_and_deleted_sequences_when_asked() {
    let mut bench = filled();
    bench.request(StreamRequest::Delete {
        sequence: 2,
        erase: false,
    });
    let query = InfoQuery {
        subjects_filter: Some(">".to_owned()),
        subjects_limit: 1,
        deleted_details: true,
        ..InfoQuery::default()
    };
    match bench.request(StreamRequest::Info(query)) {
        StreamReply::Info {
            info,
            subjects_total,
        } => {
            assert_eq!(subjects_total, 2);
            let subjects = info.state.subjects.expect("subjects");
            assert_eq!(
                subjects.into_iter().collect::<Vec<_>>(),
                [("s.a".to_owned(), 2)]
            );
            assert_eq!(info.state.deleted, [2]);
        }
        other => panic!("{other:?}"),
    }
}

fn direct(bench: &mut Bench, query: DirectQuery) -> Vec<String> {
    bench.event(Event::Direct {
        reply: Bytes::from_static(b"inbox"),
        query,
    });
    let answers = bench.sent_to("inbox");
    answers
        .iter()
        .map(|answer| {
            let lines: Vec<String> = text(&answer.headers)
                .lines()
                .filter(|line| !line.starts_with("Nats-Time-Stamp"))
                .map(str::to_owned)
                .collect();
            format!("{}{}", lines.join("|"), text(&answer.payload))
        })
        .collect()
}

#[test]
fn a_direct_get_answers_with_the_message_itself() {
    let mut bench = filled();
    let one = |query| DirectQuery::One {
        query,
        no_headers: false,
    };
    assert_eq!(
        direct(
            &mut bench,
            one(MessageQuery::LastBySubject("s.a".to_owned()))
        ),
        ["NATS/1.0|Nats-Stream: S|Nats-Subject: s.a|Nats-Sequence: 3|3"]
    );
    assert_eq!(
        direct(&mut bench, one(MessageQuery::Sequence(9))),
        ["NATS/1.0 404 Message Not Found|"]
    );
}

#[test]
fn a_direct_batch_counts_down_and_says_when_it_is_over() {
    let mut bench = filled();
    let query = DirectQuery::Batch {
        sequence: 2,
        time_ns: None,
        subject: String::new(),
        batch: 2,
        bytes_max: 0,
    };
    assert_eq!(
        direct(&mut bench, query),
        [
            "NATS/1.0|Nats-Stream: S|Nats-Subject: s.b|Nats-Sequence: 2|Nats-Num-Pending: 2|Nats-Last-Sequence: 0|2",
            "NATS/1.0|Nats-Stream: S|Nats-Subject: s.a|Nats-Sequence: 3|Nats-Num-Pending: 1|Nats-Last-Sequence: 2|3",
            "NATS/1.0 204 EOB|Nats-Num-Pending: 1|Nats-Last-Sequence: 3|",
        ]
    );
}

#[test]
fn the_last_of_each_subject_comes_in_order_of_sequence() {
    let mut bench = filled();
    let query = |subject: &str, upto_sequence| DirectQuery::LastOfEach {
        subjects: vec![subject.to_owned()],
        upto_sequence,
        upto_time_ns: None,
        from_sequence: 0,
        batch: 0,
        bytes_max: 0,
    };
    let last = |answers: Vec<String>| answers.last().cloned().unwrap_or_default();
    let answers = direct(&mut bench, query("s.>", 0));
    assert_eq!(answers.len(), 4);
    assert_eq!(
        last(answers),
        "NATS/1.0 204 EOB|Nats-Num-Pending: 0|Nats-Last-Sequence: 4|Nats-UpTo-Sequence: 4|"
    );
    let answers = direct(&mut bench, query("s.*", 2));
    assert_eq!(
        last(answers),
        "NATS/1.0 204 EOB|Nats-Num-Pending: 0|Nats-Last-Sequence: 2|Nats-UpTo-Sequence: 2|"
    );
    assert_eq!(
        direct(&mut bench, query("z", 0)),
        ["NATS/1.0 404 No Results|"]
    );
}

#[test]
fn a_stream_that_is_told_where_to_begin_says_so_before_it_has_messages() {
    for first in [1, 10] {
        let mut bench = Bench::new(StreamConfig {
            first_seq: first,
            ..stream("S", &["s.>"])
        });
        let state = bench.info().state;
        assert_eq!((state.first_seq, state.last_seq), (first, first - 1));
    }
}
