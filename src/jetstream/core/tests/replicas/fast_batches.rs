//! Fast batches when another replica comes to lead.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::Value;

use super::group::Group;
use crate::jetstream::core::headers;
use crate::jetstream::core::tests::simulation::{Dice, number};
use crate::jetstream::core::tests::{SECOND, payloads, stream, text};
use crate::jetstream::core::{Outgoing, Publish, StreamRequest};
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

fn message(payload: &str, headers: &[(&str, &str)]) -> Publish {
    let mut block = String::new();
    if !headers.is_empty() {
        let lines = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"));
        block = format!("NATS/1.0\r\n{}\r\n", lines.collect::<String>());
    }
    Publish {
        subject: Bytes::from_static(b"b.a"),
        headers: Bytes::from(block),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        ..Publish::default()
    }
}

/// Sends a message of a fast batch to the leader and gives what is sent then, once all of it is stored.
fn send_with(group: &mut Group, said: &str, headers: &[(&str, &str)]) -> Vec<String> {
    let at = group.leader;
    group.publish(at, &format!("inbox.{said}.$FI"), message("x", headers));
    group.come_to_rest();
    payloads(&group.sent())
}

fn send(group: &mut Group, said: &str) -> Vec<String> {
    send_with(group, said, &[])
}

/// Lets time pass, and all that is logged then be applied everywhere.
fn rest_for(group: &mut Group, nanoseconds: i64) {
    for nanoseconds in [nanoseconds, SECOND] {
        group.pass_time(nanoseconds);
        group.come_to_rest();
    }
}

/// The batches that each replica would go on with.
fn remembered(group: &Group) -> Vec<Vec<String>> {
    let replicas = group.replicas.iter();
    replicas
        .map(|replica| replica.core.remembered_fast_batches())
        .collect()
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

const KNOWN: [(&str, &str); 1] = [("Nats-Msg-Id", "known")];

#[test]
fn every_replica_knows_that_a_fast_batch_is_over_however_it_ended() {
    let wrong = [("Nats-Expected-Last-Sequence", "77")];
    let too_new = [("Nats-Required-Api-Level", "99")];
    for (mode, said, headers, told) in [
        ("fail", "2.3", &[][..], r#""seq":2,"batch":"id","count":1"#),
        ("fail", "3.1", &[], r#""seq":2,"batch":"id","count":1"#),
        ("fail", "2.4", &[], r#""seq":2,"batch":"id","count":1"#),
        ("fail", "2.1", &wrong, r#""seq":2,"batch":"id","count":1"#),
        ("ok", "2.2", &wrong, r#""seq":2,"batch":"id","count":1"#),
        ("ok", "2.2", &KNOWN, r#""seq":2,"batch":"id","count":2"#),
        ("ok", "2.1", &too_new, "10185"),
    ] {
        let mut group = group();
        let at = group.leader;
        group.publish(at, "inbox", message("x", &KNOWN));
        send(&mut group, &format!("id.9.{mode}.1.0"));
        assert_eq!(remembered(&group), [["id"]; 3]);
        let last = send_with(&mut group, &format!("id.9.{mode}.{said}"), headers).pop();
        let last = last.expect("it is told");
        assert!(last.contains(told), "{said}: {last}");
        rest_for(&mut group, 0);
        assert_eq!(remembered(&group), [[""; 0]; 3], "{said}");
        group.elect(1);
        assert!(group.sent().is_empty(), "{said}");
    }
}

#[test]
fn every_replica_knows_that_a_fast_batch_was_given_up() {
    let mut group = group();
    send(&mut group, "idle.9.fail.1.0");
    rest_for(&mut group, 11 * SECOND);
    assert_eq!(remembered(&group), [[""; 0]; 3]);
    // Also where its leader was lost before that.
    send(&mut group, "idle.9.fail.1.0");
    group.now += 11 * SECOND;
    group.elect(1);
    rest_for(&mut group, 0);
    assert_eq!(remembered(&group), [[""; 0]; 3]);
    // And where the stream does not take batches any more.
    send(&mut group, "open.9.fail.1.0");
    let config = StreamConfig {
        num_replicas: 3,
        ..stream("B", &["b.>"])
    };
    group.ask(1, StreamRequest::Update(Box::new(config)));
    group.come_to_rest();
    assert_eq!(remembered(&group), [[""; 0]; 3]);
}

#[test]
fn a_fast_batch_is_over_for_its_publisher_only_once_the_log_knows() {
    let mut group = group();
    send(&mut group, "id.9.fail.1.0");
    let at = group.leader;
    group.publish(at, "inbox.id.9.fail.2.3.$FI", message("", &[]));
    assert!(group.sent().is_empty());
    group.elect(1);
    let told = payloads(&group.sent());
    assert_eq!(told, [r#"{"type":"ack","seq":1,"msgs":9}"#]);
    assert_eq!(
        send(&mut group, "id.9.fail.2.3"),
        [r#"{"stream":"B","seq":1,"batch":"id","count":1}"#]
    );
}

#[test]
fn a_new_leader_knows_which_messages_of_a_fast_batch_were_stored_before() {
    let mut group = group();
    let at = group.leader;
    group.publish(at, "inbox", message("x", &KNOWN));
    send(&mut group, "id.2.fail.1.0");
    let told = send_with(&mut group, "id.2.fail.2.1", &KNOWN);
    assert_eq!(told, [r#"{"type":"ack","seq":2,"msgs":2}"#]);
    send_with(&mut group, "id.2.fail.3.1", &KNOWN);
    send_with(&mut group, "fresh.2.fail.1.0", &KNOWN);
    group.elect(1);
    let told = payloads(&group.sent());
    let expected = [1, 3].map(|seq| format!(r#"{{"type":"ack","seq":{seq},"msgs":1}}"#));
    assert_eq!(told, expected);
    assert_eq!(
        send(&mut group, "id.2.fail.4.2"),
        [r#"{"stream":"B","seq":3,"batch":"id","count":4}"#]
    );
    assert_eq!(
        send_with(&mut group, "fresh.2.fail.2.2", &KNOWN),
        [r#"{"stream":"B","seq":0,"batch":"fresh","count":2}"#]
    );
}

/// What a message of a fast batch was sent as.
struct Sent {
    batch: String,
    place: u64,
    id: Option<String>,
}

/// What publishers of fast batches were told, by batch.
#[derive(Default)]
struct Promises {
    sent: Vec<Sent>,
    /// Up to where all is seen to, as anybody said, and as those said who led.
    progress: BTreeMap<String, u64>,
    led: BTreeMap<String, u64>,
    /// How many messages it came to, and where the last of them is that was stored.
    ended: BTreeMap<String, (u64, u64)>,
    /// How many ended with something else than a last message.
    cut_short: usize,
    /// Those that were given up with messages stored, and have begun once more.
    again: BTreeSet<String>,
}

impl Promises {
    fn begin_again(&mut self, batch: &str) {
        self.led.remove(batch);
        self.again.insert(batch.to_owned());
    }

    fn note(&mut self, group: &mut Group, seed: u64) {
        for at in 0..3 {
            let told = std::mem::take(&mut group.replicas[at].effects.outgoing);
            for outgoing in told {
                self.note_one(&outgoing, at == group.leader, seed);
            }
        }
    }

    /// Whoever leads says nothing that was said otherwise before, and nothing of what is over. Who only believes to may be late.
    fn note_one(&mut self, outgoing: &Outgoing, leads: bool, seed: u64) {
        let to = text(&outgoing.to);
        let mut words = to.split('.').skip(1);
        let batch = words.next().expect("a batch").to_owned();
        let said: Value = serde_json::from_slice(&outgoing.payload).expect("JSON");
        if said["error"].is_object() {
            return;
        }
        // One without messages may begin again.
        let is_over = self.ended.get(&batch).is_some_and(|ended| ended.0 > 0);
        assert!(!(leads && is_over), "seed {seed}: {batch} is over: {said}");
        if said["type"] == "ack" {
            let place = said["seq"].as_u64().expect("a number");
            if leads {
                let told = self.led.insert(batch.clone(), place).unwrap_or_default();
                assert!(place >= told, "seed {seed}: {to} {told}: {said}");
            }
            let told = self.progress.entry(batch).or_default();
            *told = place.max(*told);
        } else if let Some(count) = said["count"].as_u64() {
            let sequence = match said["duplicate"].is_null() {
                true => said["seq"].as_u64().expect("a number"),
                false => 0,
            };
            let last = self.ended.insert(batch, (count, sequence));
            assert!(last.is_none_or(|last| last == (count, sequence)));
            self.cut_short += usize::from(words.nth(3) != Some("2"));
        }
    }

    /// Whether of each batch, once and in order, all is stored that was promised, and nothing after its end.
    fn check(&self, group: &Group, seed: u64) {
        let mut stored: BTreeMap<String, BTreeMap<u64, u64>> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for message in group.history().into_values() {
            let payload = text(&message.payload);
            let (batch, place) = payload.split_once('/').expect("a batch and a place");
            let places = stored.entry(batch.to_owned()).or_default();
            let place: u64 = place.parse().expect("a number");
            let last = places.keys().next_back();
            assert!(
                last.is_none_or(|last| *last < place),
                "seed {seed}: {payload}"
            );
            places.insert(place, message.sequence);
            let id = headers::get(&message.headers, "Nats-Msg-Id");
            ids.extend(id.map(text));
        }
        for Sent { batch, place, id } in &self.sent {
            let places = stored.get(batch);
            let last = places.and_then(|places| places.last_key_value());
            let last = last.map_or((0, 0), |(place, sequence)| (*place, *sequence));
            let told = self.progress.get(batch).copied().unwrap_or_default();
            let ended = self.ended.get(batch).copied();
            let complete = told.max(last.0).max(ended.map_or(0, |ended| ended.0));
            let is_stored = places.is_some_and(|places| places.contains_key(place))
                || id.as_ref().is_some_and(|id| ids.contains(id));
            let may_be_missing = batch.ends_with("ok") || *place > complete;
            assert!(is_stored || may_be_missing, "seed {seed}: {batch} {place}");
            if let Some((count, sequence)) = ended.filter(|_| !self.again.contains(batch)) {
                assert!(last.0 <= count, "seed {seed}: {batch} {place}");
                assert_eq!(last.1, sequence, "seed {seed}: {batch} {count}");
            }
        }
    }
}

/// Batches of which nothing comes for so long are given up.
const IDLE_NS_MAX: i64 = 10 * SECOND;

/// A batch that its publisher goes on with.
struct Open {
    batch: String,
    mode: &'static str,
    place: u64,
    /// When something was sent for it last.
    active_ns: i64,
}

/// Sends what comes next in one of the batches, whatever was heard of it.
fn send_next(
    group: &mut Group,
    at: usize,
    open: &mut Vec<Open>,
    promises: &mut Promises,
    dice: &mut Dice,
) {
    let which = dice.below(open.len() as u64) as usize;
    let Open {
        batch,
        mode,
        place,
        active_ns,
    } = &mut open[which];
    let is_first = *place == 0;
    let operation = match dice.below(30) {
        _ if is_first => 0,
        0 => 2,
        1 => 3,
        2 | 3 => 4,
        4 => {
            // One got lost on the way.
            *place += 1;
            1
        }
        _ => 1,
    };
    if operation != 4 {
        *place += 1;
    }
    if operation == 4 && *place == 1 && group.now - *active_ns >= IDLE_NS_MAX {
        // It was given up, and begins once more: also with the question how far its first message has come.
        promises.begin_again(batch);
    }
    *active_ns = group.now;
    let id = (dice.below(4) == 0).then(|| format!("id-{}", dice.below(9)));
    let mut headers = Vec::new();
    headers.extend(id.as_deref().map(|id| ("Nats-Msg-Id", id)));
    if dice.below(30) == 0 {
        headers.push(("Nats-Expected-Last-Sequence", "999999"));
    }
    if operation < 3 {
        promises.sent.push(Sent {
            batch: batch.clone(),
            place: *place,
            id: id.clone(),
        });
    }
    let reply = format!("inbox.{batch}.3.{mode}.{place}.{operation}.$FI");
    let payload = format!("{batch}/{place}");
    group.publish(at, &reply, message(&payload, &headers));
    if matches!(operation, 2 | 3) {
        open.swap_remove(which);
    }
}

/// Publishers that send on whatever they hear, while leaders come and go and lose what they have proposed. How many batches were told to be over, and how
/// many of them otherwise than with a last message.
fn live(seed: u64) -> (usize, usize) {
    let mut dice = Dice(seed);
    let (mut group, mut promises) = (group(), Promises::default());
    let mut open: Vec<Open> = Vec::new();
    for step in 0..400 {
        let at = match group.stale() {
            Some(stale) if dice.below(3) == 0 => stale,
            _ => group.leader,
        };
        match dice.below(30) {
            0 => {
                let mode = if dice.below(3) == 0 { "ok" } else { "fail" };
                open.push(Open {
                    batch: format!("b{step}{mode}"),
                    mode,
                    place: 0,
                    active_ns: group.now,
                });
            }
            1..16 if !open.is_empty() => {
                send_next(&mut group, at, &mut open, &mut promises, &mut dice);
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
        promises.note(&mut group, seed);
    }
    group.come_to_rest();
    promises.note(&mut group, seed);
    promises.check(&group, seed);
    rest_for(&mut group, 11 * SECOND);
    assert_eq!(remembered(&group), [[""; 0]; 3], "seed {seed}");
    (promises.ended.len(), promises.cut_short)
}

#[test]
fn what_publishers_of_fast_batches_are_promised_is_kept_whoever_leads() {
    if let Some(seed) = number("NATS_SIMULATION_SEED") {
        live(seed);
        return;
    }
    let seeds = number("NATS_SIMULATION_SEEDS").unwrap_or(60);
    let ended: Vec<(usize, usize)> = (0..seeds).map(live).collect();
    let all: usize = ended.iter().map(|one| one.0).sum();
    let cut_short: usize = ended.iter().map(|one| one.1).sum();
    assert!(all > seeds as usize, "batches come to their ends");
    assert!(cut_short > seeds as usize / 2, "in all ways");
}
