//! What happens to those who wait when a leader stops to lead, and what a follower answers.

use bytes::Bytes;

use super::{Bench, SECOND, durable, status, stream, text};
use crate::jetstream::core::{
    ConsumerAction, ConsumerCreate, DirectQuery, Event, LogPlace, MessageQuery, Retirement,
    StreamReply, StreamRequest,
};
use crate::jetstream::types::ErrorCode;

fn retire(bench: &mut Bench, reason: Retirement) {
    bench.core.retire(reason, &mut bench.effects);
}

fn at(index: u64, term: u64) -> LogPlace {
    LogPlace {
        index,
        term: Some(term),
    }
}

fn refused(reply: Option<StreamReply>, code: ErrorCode) {
    match reply {
        Some(StreamReply::Refused(error)) => assert!(error.is(code), "{error:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn whoever_waits_for_a_lost_leader_hears_so_and_publishers_hear_nothing() {
    let mut bench = Bench::new(stream("S", &["a"]));
    bench.consumer(durable("c"));
    bench.pull_to("c", "inbox", "1");
    bench.instant = false;
    let publish = bench.send("a", &[], "in flight");
    let delete = bench.ask(StreamRequest::Purge(Default::default()));
    let info = bench.ask(StreamRequest::Info(Default::default()));
    retire(&mut bench, Retirement::LeadershipLost);
    for token in [delete, info] {
        refused(bench.reply(token), ErrorCode::ClusterNotAvail);
    }
    let told = bench.sent_to("inbox");
    assert_eq!(told.len(), 1);
    assert_eq!(
        text(&told[0].headers),
        "NATS/1.0 409 Leadership Change\r\n\r\n"
    );
    assert!(bench.sent_to(&publish).is_empty());
}

#[test]
fn why_a_leader_stops_decides_what_those_who_wait_hear() {
    for (reason, expected) in [
        (Retirement::Shutdown, "NATS/1.0 409 Server Shutdown"),
        (Retirement::Removed, "NATS/1.0 409 Consumer Deleted"),
    ] {
        let mut bench = Bench::new(stream("S", &["a"]));
        bench.consumer(durable("c"));
        bench.pull_to("c", "inbox", "1");
        retire(&mut bench, reason);
        assert_eq!(status(&bench.sent_to("inbox")[0]), expected);
    }
}

#[test]
fn a_follower_answers_reads_refuses_changes_and_sends_nothing_by_itself() {
    let mut leader = Bench::new(stream("S", &["a"]));
    leader.consumer(durable("c"));
    leader.publish("a", "hello");
    let mut follower = Bench::new(stream("S", &["a"]));
    follower.core.follow(&mut follower.effects);
    for (index, entry) in leader.log.clone() {
        follower.step(|core, step| {
            core.take_committed(at(index, 1), &entry, step)
                .expect("applies");
        });
    }
    follower.pass(SECOND);
    assert!(follower.effects.is_empty());
    assert_eq!(follower.info().state.messages, 1);
    assert_eq!(follower.consumer_info("c").num_pending, 0);
    follower.event(Event::Direct {
        reply: Bytes::from_static(b"direct"),
        query: DirectQuery::One {
            query: MessageQuery::Sequence(1),
            no_headers: true,
        },
    });
    assert_eq!(text(&follower.sent_to("direct")[0].payload), "hello");
    let token = follower.ask(StreamRequest::Purge(Default::default()));
    refused(follower.reply(token), ErrorCode::ClusterNotLeader);
    assert_eq!(follower.publish("a", "no"), "");
    assert!(follower.pull("c", "1").is_empty());
}

#[test]
fn an_index_that_the_group_uses_itself_leaves_no_gap() {
    let mut leader = Bench::new(stream("S", &["a"]));
    leader.publish("a", "one");
    let (_, entry) = leader.log[0].clone();
    let mut follower = Bench::new(stream("S", &["a"]));
    follower.core.follow(&mut follower.effects);
    follower.core.pass(1);
    follower.core.pass(1);
    follower.step(|core, step| {
        for _ in 0..2 {
            core.take_committed(at(2, 1), &entry, step)
                .expect("applies");
        }
        core.take_committed(at(3, 1), &entry, step)
            .expect("passes over");
    });
    assert_eq!(follower.core.applied_index(), 3);
    assert_eq!(follower.core.store().state().last_sequence, 1);
}

#[test]
fn a_leader_that_another_chain_overtakes_drops_what_it_decided_and_keeps_what_waits() {
    let mut before = Bench::new(stream("S", &["a"]));
    before.publish("a", "of the one before");
    let (_, foreign) = before.log[0].clone();
    let mut bench = Bench::new(stream("S", &["a"]));
    bench.instant = false;
    let lost = bench.send("a", &[], "lost");
    let purge = bench.ask(StreamRequest::Purge(Default::default()));
    bench.step(|core, step| {
        core.take_committed(at(1, 1), &foreign, step)
            .expect("applies");
    });
    bench.settle();
    assert!(bench.sent_to(&lost).is_empty());
    // The purge was not decided yet: it is now, on top of what there is.
    let (_, entry) = bench.log.last().cloned().expect("an entry");
    bench.step(|core, step| {
        let overtaken = core.in_flight();
        assert_eq!(overtaken.len(), 1);
        core.take_committed(at(2, 1), &entry, step)
            .expect("applies");
    });
    assert!(matches!(bench.reply(purge), Some(StreamReply::Purged(1))));
}

#[test]
fn requests_for_messages_outlive_a_chain_that_was_overtaken() {
    let create = || {
        StreamRequest::ConsumerCreate(Box::new(ConsumerCreate {
            name: "c".to_owned(),
            config: durable("c"),
            action: ConsumerAction::Create,
            check_update: |_, _| Ok(()),
            consumers_max: -1,
        }))
    };
    let mut before = Bench::new(stream("S", &["a"]));
    before.request(create());
    before.publish("a", "of the one before");
    let mut bench = Bench::new(stream("S", &["a"]));
    bench.instant = false;
    let (_, created) = before.log[0].clone();
    bench.step(|core, step| {
        core.take_committed(at(1, 1), &created, step)
            .expect("applies");
    });
    bench.pull_to("c", "inbox", "1");
    // Decided on nothing that this leader has in flight, by the chain that created the consumer.
    let foreign = before.log[1..].to_vec();
    for (index, entry) in foreign {
        bench.step(|core, step| {
            core.take_committed(at(index, 1), &entry, step)
                .expect("applies");
        });
        bench.settle();
    }
    let (index, reserved) = bench.log.last().cloned().expect("a reservation");
    bench.step(|core, step| {
        core.take_committed(at(index + 10, 1), &reserved, step)
            .expect("applies");
    });
    bench.settle();
    assert_eq!(
        text(&bench.sent_to("inbox")[0].payload),
        "of the one before"
    );
}
