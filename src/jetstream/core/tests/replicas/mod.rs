//! Random lives of a stream on three replicas: what must hold whoever leads, and whatever is lost on the way.
//!
//! `NATS_SIMULATION_SEEDS` sets how many seeds are tried, `NATS_SIMULATION_SEED` replays one.

mod group;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use group::Group;
use storage::filter::Filter;
use storage::store::Message;

use super::simulation::{Dice, number};
use super::{SECOND, durable, stream, text};
use crate::jetstream::core::{
    AckSubject, ConsumerAction, ConsumerCreate, Event, MessageQuery, Outgoing, Publish, PurgeQuery,
    StreamReply, StreamRequest,
};
use crate::jetstream::types::{ErrorCode, Retention};

/// Steps in one life.
const STEPS: usize = 400;
/// How many different message ids are used.
const IDS: u64 = 12;
/// Messages kept per subject, where there is a limit.
const PER_SUBJECT_MAX: i64 = 15;

/// A publish whose ack has not been seen.
#[derive(Debug, Clone)]
struct Sent {
    subject: &'static str,
    payload: String,
    id: Option<String>,
    expected: Option<u64>,
}

struct Life {
    seed: u64,
    dice: Dice,
    group: Group,
    retention: Retention,
    count: u64,
    unanswered: BTreeMap<String, Sent>,
    /// Acknowledged publishes by sequence.
    acknowledged: BTreeMap<u64, Sent>,
    /// Sequences known to be stored under an id.
    ids: BTreeMap<String, u64>,
    held: Vec<Outgoing>,
    /// What was delivered as if for the first time, by consumer and sequence.
    unmarked: BTreeSet<(String, u64)>,
    /// Acks waiting to be confirmed, and those that were.
    confirming: BTreeMap<String, (String, u64)>,
    confirmed: BTreeSet<(String, u64)>,
    /// Sequences that somebody asked to remove.
    removed: BTreeSet<u64>,
    purged_below: u64,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let retention = match dice.below(3) {
            0 => Retention::Workqueue,
            _ => Retention::Limits,
        };
        let config = crate::jetstream::types::StreamConfig {
            retention,
            num_replicas: 3,
            allow_rollup_hdrs: true,
            max_msgs_per_subject: if retention == Retention::Limits {
                PER_SUBJECT_MAX
            } else {
                -1
            },
            ..stream("S", &["s.>"])
        };
        let mut life = Self {
            seed,
            dice,
            group: Group::new(config),
            retention,
            count: 0,
            unanswered: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            ids: BTreeMap::new(),
            held: Vec::new(),
            unmarked: BTreeSet::new(),
            confirming: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            removed: BTreeSet::new(),
            purged_below: 0,
        };
        life.consumer("one", "s.work");
        if retention == Retention::Limits {
            life.consumer("two", "");
        }
        life
    }

    fn live(&mut self) {
        for _ in 0..STEPS {
            let at = self.a_leader();
            match self.dice.below(40) {
                0..10 => self.publish(at),
                10..14 => self.compare_and_set(at),
                14..18 => self.pull(at),
                18..23 => self.ack(at),
                23..31 => self.group.commit(&mut self.dice),
                31..34 => {
                    let (at, most) = (self.dice.below(3) as usize, self.dice.below(9));
                    self.group.apply(at, most);
                }
                34 => {
                    let by = self.dice.below(20) as i64 * SECOND / 4;
                    self.group.pass_time(by);
                }
                35 => self.remove(at),
                36..38 => {
                    let next = self.dice.below(3) as usize;
                    self.group.depose(next, &mut self.dice);
                }
                38 => {
                    if let Some(at) = self.group.stale() {
                        self.group.learn(at);
                    }
                }
                _ => {
                    let at = self.dice.below(3) as usize;
                    if !self.group.replicas[at].core.is_leading() {
                        self.group.restart(at, &mut self.dice);
                    }
                }
            }
            self.collect();
        }
        self.group.come_to_rest();
        self.collect();
        self.check();
    }

    /// The leader, or now and then one that does not know yet that it is none.
    fn a_leader(&mut self) -> usize {
        match self.group.stale() {
            Some(stale) if self.dice.below(3) == 0 => stale,
            _ => self.group.leader,
        }
    }

    fn consumer(&mut self, name: &str, filter: &str) {
        let config = crate::jetstream::types::ConsumerConfig {
            filter_subject: filter.to_owned(),
            ..durable(name)
        };
        let create = StreamRequest::ConsumerCreate(Box::new(ConsumerCreate {
            name: name.to_owned(),
            config,
            action: ConsumerAction::Create,
            check_update: |_, _| Ok(()),
            consumers_max: -1,
        }));
        let token = self.group.ask(self.group.leader, create);
        self.group.come_to_rest();
        let replies = self.group.replies();
        assert!(
            matches!(replies[..], [(answered, StreamReply::ConsumerCreated { .. })] if answered == token),
            "{replies:?}"
        );
    }

    fn send(&mut self, at: usize, headers: &[(&str, String)], sent: Sent) {
        let reply = format!("reply.{}", self.count);
        let mut block = String::from("NATS/1.0\r\n");
        for (name, value) in headers {
            block.push_str(&format!("{name}: {value}\r\n"));
        }
        block.push_str("\r\n");
        let publish = Publish {
            subject: Bytes::from_static(sent.subject.as_bytes()),
            headers: Bytes::from(block),
            payload: Bytes::from(sent.payload.clone()),
            ..Publish::default()
        };
        self.unanswered.insert(reply.clone(), sent);
        self.group.publish(at, &reply, publish);
    }

    fn publish(&mut self, at: usize) {
        self.count += 1;
        let subject = ["s.work", "s.other", "s.more"][self.dice.below(3) as usize];
        let id = (self.dice.below(3) == 0).then(|| format!("id-{}", self.dice.below(IDS)));
        // A publish with an id is always the same one: sent again by somebody who heard nothing.
        let (subject, payload) = match &id {
            Some(id) => ("s.work", id.clone()),
            None => (subject, format!("m{}", self.count)),
        };
        let headers: Vec<(&str, String)> = id
            .iter()
            .map(|id| ("Nats-Msg-Id", id.clone()))
            .chain([("Unique", self.count.to_string())])
            .collect();
        let sent = Sent {
            subject,
            payload,
            id: id.clone(),
            expected: None,
        };
        self.send(at, &headers, sent);
    }

    /// Writes to a register, expecting what some replica holds of it.
    fn compare_and_set(&mut self, at: usize) {
        self.count += 1;
        let seen = self.dice.below(3) as usize;
        let store = self.group.replicas[seen].core.store();
        let expected = store
            .subject(b"s.register")
            .map_or(0, |it| it.last_sequence);
        let headers = [("Nats-Expected-Last-Subject-Sequence", expected.to_string())];
        let sent = Sent {
            subject: "s.register",
            payload: format!("r{}", self.count),
            id: None,
            expected: Some(expected),
        };
        self.send(at, &headers, sent);
    }

    fn pull(&mut self, at: usize) {
        let consumer = self.a_consumer();
        let body = format!(r#"{{"batch":{}}}"#, 1 + self.dice.below(8));
        let event = Event::Pull {
            consumer: consumer.to_owned(),
            reply: Bytes::from_static(b"inbox"),
            body: Bytes::from(body),
        };
        self.group.event(at, event);
    }

    fn a_consumer(&mut self) -> &'static str {
        match self.retention {
            Retention::Limits if self.dice.below(2) == 0 => "two",
            _ => "one",
        }
    }

    fn ack(&mut self, at: usize) {
        if self.held.is_empty() {
            return;
        }
        let which = self.dice.below(self.held.len() as u64) as usize;
        let message = self.held.swap_remove(which);
        let body = match self.dice.below(6) {
            0 => "-NAK",
            1 => "+WPI",
            _ => "+ACK",
        };
        self.count += 1;
        let reply = format!("confirm.{}", self.count);
        if body == "+ACK" {
            self.confirming.insert(reply.clone(), about(&message));
        }
        let event = Event::Ack {
            subject: message.reply,
            reply: Bytes::from(reply),
            body: Bytes::from_static(body.as_bytes()),
        };
        self.group.event(at, event);
    }

    fn remove(&mut self, at: usize) {
        let last = self.group.replicas[at].core.store().state().last_sequence;
        if last == 0 {
            return;
        }
        let sequence = 1 + self.dice.below(last);
        let request = if self.dice.below(4) > 0 {
            self.removed.insert(sequence);
            StreamRequest::Delete {
                sequence,
                erase: false,
            }
        } else {
            let below_sequence = (sequence / 2).max(1);
            self.purged_below = self.purged_below.max(below_sequence);
            StreamRequest::Purge(PurgeQuery {
                below_sequence,
                ..PurgeQuery::default()
            })
        };
        self.group.ask(at, request);
    }

    fn collect(&mut self) {
        for outgoing in self.group.sent() {
            let to = text(&outgoing.to);
            if let Some(sent) = self.unanswered.remove(&to) {
                self.answered(sent, &text(&outgoing.payload));
            } else if let Some(acked) = self.confirming.remove(&to) {
                self.confirmed.insert(acked);
            } else if outgoing.reply.starts_with(b"$JS.ACK") {
                self.was_delivered(outgoing);
            }
        }
        for (_, reply) in self.group.replies() {
            if let StreamReply::Refused(error) = reply {
                let unknown = [ErrorCode::ClusterNotAvail, ErrorCode::SequenceNotFound];
                let known = unknown.into_iter().any(|code| error.is(code))
                    || error.is(ErrorCode::StreamMsgDeleteFailed);
                assert!(known, "seed {}: {error:?}", self.seed);
            }
        }
    }

    fn answered(&mut self, sent: Sent, ack: &str) {
        if ack.contains("\"error\"") {
            assert!(sent.expected.is_some(), "seed {}: {ack}", self.seed);
            return;
        }
        let sequence: u64 = ack
            .strip_prefix("{\"stream\":\"S\",\"seq\":")
            .and_then(|rest| rest.split([',', '}']).next())
            .and_then(|number| number.parse().ok())
            .unwrap_or_else(|| panic!("seed {}: {ack}", self.seed));
        if let Some(id) = &sent.id {
            let known = *self.ids.entry(id.clone()).or_insert(sequence);
            assert_eq!(known, sequence, "seed {}: {id} is stored twice", self.seed);
        }
        if !ack.contains("duplicate") {
            let before = self.acknowledged.insert(sequence, sent);
            assert!(before.is_none(), "seed {}: {sequence} twice", self.seed);
        }
    }

    fn was_delivered(&mut self, outgoing: Outgoing) {
        let about = about(&outgoing);
        let subject = AckSubject::parse(&outgoing.reply).expect("an ack subject");
        // Where two lead for a moment, one of them marks what both deliver.
        assert!(
            subject.deliveries > 1 || self.unmarked.insert(about.clone()),
            "seed {}: {about:?} was delivered before and is not marked",
            self.seed
        );
        assert!(
            !self.confirmed.contains(&about) || self.group.stale().is_some(),
            "seed {}: {about:?} again after its ack was confirmed",
            self.seed
        );
        self.held.push(outgoing);
    }

    fn check(&mut self) {
        let seed = self.seed;
        let snapshots: Vec<Bytes> = self.cores().map(|core| core.snapshot()).collect();
        assert_eq!(snapshots[0], snapshots[1], "seed {seed}");
        assert_eq!(snapshots[0], snapshots[2], "seed {seed}");
        let digests: Vec<u64> = self.cores().map(|core| core.digest().digest).collect();
        assert!(digests.iter().all(|one| *one == digests[0]), "seed {seed}");
        assert!(self.cores().all(|core| core.divergence().is_none()));
        let records: Vec<Vec<Message>> = self.cores().map(records).collect();
        assert_eq!(records[0], records[1], "seed {seed}");
        assert_eq!(records[0], records[2], "seed {seed}");
        let history = self.group.history();
        self.check_acknowledged(&history);
        self.check_ids(&history);
        self.check_register(&history);
    }

    fn cores(&self) -> impl Iterator<Item = &crate::jetstream::core::StreamCore> {
        self.group.replicas.iter().map(|replica| &replica.core)
    }

    /// What was acknowledged was stored, and is there, unless somebody removed it or a limit did.
    fn check_acknowledged(&self, history: &BTreeMap<u64, Message>) {
        let core = &self.group.replicas[0].core;
        for (sequence, sent) in &self.acknowledged {
            let stored = history.get(sequence).map(|message| text(&message.payload));
            let crowded = history.len() < core.store().state().last_sequence as usize;
            assert!(
                stored.as_ref() == Some(&sent.payload) || (stored.is_none() && crowded),
                "seed {}: {sequence} is {sent:?} and {stored:?}",
                self.seed
            );
            if core.get(&MessageQuery::Sequence(*sequence)).is_none() {
                let later = history.range(sequence + 1..).map(|one| one.1);
                let on_subject = later.filter(|later| later.subject == sent.subject);
                let may_be_gone = self.removed.contains(sequence)
                    || *sequence < self.purged_below
                    || self.retention == Retention::Workqueue
                    || on_subject.count() as i64 >= PER_SUBJECT_MAX;
                assert!(may_be_gone, "seed {}: {sequence} is lost", self.seed);
            }
        }
    }

    /// No message was stored twice under one id.
    fn check_ids(&self, history: &BTreeMap<u64, Message>) {
        let mut seen = BTreeSet::new();
        for message in history.values() {
            let payload = text(&message.payload);
            let first = !payload.starts_with("id-") || seen.insert(payload.clone());
            assert!(first, "seed {}: {payload} twice", self.seed);
        }
    }

    /// Every write to the register followed the one it expected.
    fn check_register(&self, history: &BTreeMap<u64, Message>) {
        let writes: Vec<u64> = history
            .values()
            .filter(|message| message.subject == "s.register")
            .map(|message| message.sequence)
            .collect();
        for (sequence, sent) in &self.acknowledged {
            let Some(expected) = sent.expected else {
                continue;
            };
            let between = writes.iter().any(|at| {
                // What was removed is not the last one any more.
                let removed = self.removed.contains(at) || *at < self.purged_below;
                expected < *at && at < sequence && !removed
            });
            assert!(
                !between,
                "seed {}: {sequence} expected {expected} and {writes:?}",
                self.seed
            );
        }
    }
}

/// The consumer and the stream sequence of a delivery.
fn about(message: &Outgoing) -> (String, u64) {
    let subject = AckSubject::parse(&message.reply).expect("an ack subject");
    (subject.consumer.to_owned(), subject.stream_sequence)
}

fn records(core: &crate::jetstream::core::StreamCore) -> Vec<Message> {
    let (store, filter) = (core.store(), Filter::everything());
    let mut records = Vec::new();
    while let Ok(Some(message)) = store.next(
        records.last().map_or(0, |last: &Message| last.sequence) + 1,
        &filter,
    ) {
        records.push(message);
    }
    records
}

#[test]
fn replicas_end_equal_and_whatever_was_promised_is_kept() {
    if let Some(seed) = number("NATS_SIMULATION_SEED") {
        return Life::new(seed).live();
    }
    for seed in 0..number("NATS_SIMULATION_SEEDS").unwrap_or(80) {
        println!("seed {seed}");
        Life::new(seed).live();
    }
}
