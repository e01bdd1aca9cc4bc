//! Fast batches when another replica comes to lead.

use bytes::Bytes;

use super::group::Group;
use crate::jetstream::core::Publish;
use crate::jetstream::core::tests::{SECOND, payloads, stream};
use crate::jetstream::types::StreamConfig;

fn group() -> Group {
    let mut group = Group::new(StreamConfig {
        num_replicas: 3,
        allow_batched: true,
        ..stream("B", &["b.>"])
    });
    for replica in &mut group.replicas {
        replica.core.set_has_replicas(true);
    }
    group
}

/// Sends a message of a fast batch to the leader and gives what is sent then, once all of it is stored.
fn send(group: &mut Group, said: &str) -> Vec<String> {
    let publish = Publish {
        subject: Bytes::from_static(b"b.a"),
        headers: Bytes::new(),
        payload: Bytes::from_static(b"x"),
        ..Publish::default()
    };
    let at = group.leader;
    group.publish(at, &format!("inbox.{said}.$FI"), publish);
    group.come_to_rest();
    payloads(&group.sent())
}

#[test]
fn a_new_leader_goes_on_with_the_fast_batches_of_the_one_before_it() {
    let mut group = group();
    send(&mut group, "over.9.fail.1.0");
    send(&mut group, "over.9.fail.2.2");
    send(&mut group, "id.9.fail.1.0");
    send(&mut group, "id.9.fail.2.1");
    group.elect(1);
    let told = group.sent();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].to, "inbox.id.9.fail.2.1.$FI");
    assert_eq!(payloads(&told), [r#"{"type":"ack","seq":2,"msgs":9}"#]);
    assert!(send(&mut group, "id.9.fail.3.1").is_empty());
    let ended = send(&mut group, "id.9.fail.4.2");
    assert_eq!(ended, [r#"{"stream":"B","seq":6,"batch":"id","count":4}"#]);
    group.elect(2);
    assert!(group.sent().is_empty(), "both are over");
    assert!(send(&mut group, "over.9.fail.3.1")[0].contains("10208"));
}

#[test]
fn what_a_lost_leader_had_not_stored_of_a_fast_batch_is_missing_to_the_next_one() {
    let after_one = |said: &str| {
        let mut group = group();
        send(&mut group, said);
        group.elect(1);
        group.sent();
        group
    };
    let mut group = after_one("may.9.ok.1.0");
    assert_eq!(
        send(&mut group, "may.9.ok.4.1"),
        [r#"{"type":"gap","last_seq":2,"seq":4}"#]
    );
    let mut group = after_one("must.9.fail.1.0");
    assert_eq!(
        send(&mut group, "must.9.fail.3.1"),
        [
            r#"{"type":"gap","last_seq":2,"seq":3}"#,
            r#"{"stream":"B","seq":1,"batch":"must","count":1}"#,
        ]
    );
}

#[test]
fn a_new_leader_does_not_go_on_with_a_fast_batch_that_was_idle_for_long() {
    let mut group = group();
    send(&mut group, "id.9.ok.1.0");
    group.now += 11 * SECOND;
    group.elect(1);
    assert!(group.sent().is_empty());
    assert!(send(&mut group, "id.9.ok.2.1")[0].contains("10208"));
}
