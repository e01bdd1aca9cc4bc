//! Fast batches when another replica comes to lead.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use super::group::Group;
use crate::jetstream::core::Publish;
use crate::jetstream::core::tests::simulation::{Dice, number};
use crate::jetstream::core::tests::{SECOND, payloads, stream, text};
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

/// What publishers of fast batches were promised, by batch: how many of its messages are stored, and where the last of so many is.
#[derive(Default)]
struct Promises {
    progress: BTreeMap<String, u64>,
    ended: BTreeMap<String, (u64, u64)>,
}

impl Promises {
    fn note(&mut self, group: &mut Group) {
        for outgoing in group.sent() {
            let to = text(&outgoing.to);
            let batch = to.split('.').nth(1).expect("a batch").to_owned();
            let said: Value = serde_json::from_slice(&outgoing.payload).expect("JSON");
            if said["type"] == "ack" {
                let stored = self.progress.entry(batch).or_default();
                *stored = said["seq"].as_u64().expect("a number").max(*stored);
            } else if let (Some(count), Some(sequence)) =
                (said["count"].as_u64(), said["seq"].as_u64())
            {
                self.ended.insert(batch, (count, sequence));
            }
        }
    }

    /// Whether all of a batch is stored up to there, in order, once.
    fn check(&self, group: &Group, seed: u64) {
        let mut stored: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for message in group.history().into_values() {
            let payload = text(&message.payload);
            let (batch, at) = payload.split_once('/').expect("a batch and a place");
            let places = stored.entry(batch.to_owned()).or_default();
            let at: u64 = at.parse().expect("a number");
            assert_eq!(at, places.len() as u64 + 1, "seed {seed}: {payload}");
            places.push(message.sequence);
        }
        let place = |batch: &str, at: u64| {
            let places = stored.get(batch).map_or(&[][..], Vec::as_slice);
            places.get((at - 1) as usize).copied()
        };
        for (batch, at) in self.progress.iter().filter(|(_, at)| **at > 0) {
            assert!(place(batch, *at).is_some(), "seed {seed}: {batch} {at}");
        }
        // Of a batch whose first message was lost, nothing is stored.
        let ended = self.ended.iter().filter(|(_, (count, _))| *count > 0);
        for (batch, (count, sequence)) in ended {
            let last = place(batch, *count);
            assert_eq!(last, Some(*sequence), "seed {seed}: {batch} {count}");
        }
    }
}

/// Publishers that send on whatever they hear, while leaders come and go and lose what they have proposed.
fn live(seed: u64) -> usize {
    let mut dice = Dice(seed);
    let (mut group, mut promises) = (group(), Promises::default());
    let mut open: Vec<(String, u64)> = Vec::new();
    for step in 0..400 {
        let at = match group.stale() {
            Some(stale) if dice.below(3) == 0 => stale,
            _ => group.leader,
        };
        match dice.below(30) {
            0 => open.push((format!("b{step}"), 0)),
            1..16 if !open.is_empty() => {
                let which = dice.below(open.len() as u64) as usize;
                let (batch, place) = &mut open[which];
                *place += 1;
                let operation = match (*place, dice.below(15)) {
                    (1, _) => 0,
                    (_, 0) => 2,
                    _ => 1,
                };
                let publish = Publish {
                    subject: Bytes::from_static(b"b.a"),
                    headers: Bytes::new(),
                    payload: Bytes::from(format!("{batch}/{place}")),
                    ..Publish::default()
                };
                let reply = format!("inbox.{batch}.3.fail.{place}.{operation}.$FI");
                group.publish(at, &reply, publish);
                if operation == 2 {
                    open.swap_remove(which);
                }
            }
            16..24 => group.commit(&mut dice),
            24..26 => group.apply(dice.below(3) as usize, dice.below(9)),
            26 => group.pass_time(dice.below(4) as i64 * SECOND),
            27 => group.depose(dice.below(3) as usize, &mut dice),
            28 => {
                if let Some(stale) = group.stale() {
                    group.learn(stale);
                }
            }
            _ => {
                let at = dice.below(3) as usize;
                if !group.replicas[at].core.is_leading() {
                    group.restart(at, &mut dice);
                    group.replicas[at].core.set_has_replicas(true);
                }
            }
        }
        promises.note(&mut group);
    }
    group.come_to_rest();
    promises.note(&mut group);
    promises.check(&group, seed);
    promises.ended.len()
}

#[test]
fn what_publishers_of_fast_batches_are_promised_is_kept_whoever_leads() {
    let seeds = number("NATS_SIMULATION_SEEDS").unwrap_or(60);
    let ended: usize = (0..seeds).map(live).sum();
    assert!(ended > seeds as usize, "batches come to their ends");
}
