//! Random lives of a stream on three replicas: what must hold whoever leads, and whatever is lost on the way.
//!
//! `NATS_SIMULATION_SEEDS` sets how many seeds are tried, `NATS_SIMULATION_SEED` replays one.

mod fast_batches;
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
use crate::jetstream::types::{ErrorCode, Retention, StreamSource};

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
    /// Who leads in which term, and the last message that it was brought from a source.
    brought: ((usize, u64), u64),
}

/// A stream that is copied from.
fn origin() -> StreamSource {
    StreamSource {
        name: "O".to_owned(),
        ..StreamSource::default()
    }
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
            allow_atomic: true,
            allow_msg_schedules: true,
            allow_msg_ttl: true,
            subject_delete_marker_ttl: if dice.below(2) == 0 { 2 * SECOND } else { 0 },
            sources: vec![origin()],
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
            brought: ((0, 0), 0),
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
            match self.dice.below(50) {
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
                40..42 => self.publish_batch(at),
                42 => self.publish_mortal(at),
                43 => self.publish_schedule(at),
                44..50 => self.bring(),
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

    /// Publishes messages that are stored together or not at all.
    fn publish_batch(&mut self, at: usize) {
        self.count += 1;
        let name = format!("b{}", self.count);
        let subject = format!("s.batch.{}", self.count);
        for sequence in 1..=3 {
            let last = sequence == 3;
            let mut block =
                format!("NATS/1.0\r\nNats-Batch-Id: {name}\r\nNats-Batch-Sequence: {sequence}\r\n");
            if last {
                block.push_str("Nats-Batch-Commit: 1\r\n");
            }
            block.push_str("\r\n");
            let payload = format!("{name}/{sequence}");
            let publish = Publish {
                subject: Bytes::from(subject.clone()),
                headers: Bytes::from(block),
                payload: Bytes::from(payload.clone()),
                ..Publish::default()
            };
            let mut reply = String::new();
            if last {
                reply = format!("reply.{}", self.count);
                let sent = Sent {
                    subject: "s.batch",
                    payload,
                    id: None,
                    expected: None,
                };
                self.unanswered.insert(reply.clone(), sent);
            }
            self.group.publish(at, &reply, publish);
        }
    }

    fn publish_plainly(&mut self, at: usize, subject: &'static str, block: &'static str) {
        self.count += 1;
        let publish = Publish {
            subject: Bytes::from_static(subject.as_bytes()),
            headers: Bytes::from_static(block.as_bytes()),
            payload: Bytes::from(format!("p{}", self.count)),
            ..Publish::default()
        };
        self.group.publish(at, "", publish);
    }

    fn publish_mortal(&mut self, at: usize) {
        self.publish_plainly(at, "s.mortal", "NATS/1.0\r\nNats-TTL: 2\r\n\r\n");
    }

    fn publish_schedule(&mut self, at: usize) {
        let block = "NATS/1.0\r\nNats-Schedule: @every 2s\r\nNats-Schedule-Target: s.made\r\n\r\n";
        self.publish_plainly(at, "s.plan", block);
    }

    /// The leader is brought the next message of its source: after what it has stored, when it has just begun to lead or lost what was
    /// in flight.
    fn bring(&mut self) {
        let (at, term) = (self.group.leader, self.group.term);
        let replica = &mut self.group.replicas[at];
        let (lost, refused) = replica.effects.take_copying();
        assert!(refused.is_empty(), "seed {}", self.seed);
        if lost || self.brought.0 != (at, term) {
            let position = replica.core.source_positions().of(&origin());
            self.brought = ((at, term), position.unwrap_or(0));
        }
        self.brought.1 += 1;
        let sequence = self.brought.1;
        let block = format!("NATS/1.0\r\nNats-Stream-Source: O {sequence} > > o\r\n\r\n");
        let message = Publish {
            subject: Bytes::from(format!("s.copied.{}", sequence % 50)),
            headers: Bytes::from(block),
            payload: Bytes::from(format!("o{sequence}")),
            ..Publish::default()
        };
        let event = Event::Sourced {
            attempt: term,
            sequence,
            message,
        };
        self.group.event(at, event);
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
        self.check_batches(&history);
        self.check_copied(&history);
        self.check_made(&history);
    }

    /// Batches are stored as a whole or not at all.
    fn check_batches(&self, history: &BTreeMap<u64, Message>) {
        let mut stored: BTreeMap<String, u64> = BTreeMap::new();
        for message in history.values() {
            if message.subject.starts_with(b"s.batch.") {
                let payload = text(&message.payload);
                let name = payload.split('/').next().unwrap_or_default().to_owned();
                *stored.entry(name).or_default() += 1;
            }
        }
        let seed = self.seed;
        assert!(
            stored.values().all(|count| *count == 3),
            "seed {seed}: {stored:?}"
        );
    }

    /// Every message of the source was stored once, in order.
    fn check_copied(&self, history: &BTreeMap<u64, Message>) {
        let copied = history
            .values()
            .filter(|message| message.subject.starts_with(b"s.copied."))
            .map(|message| text(&message.payload));
        for (at, payload) in copied.enumerate() {
            assert_eq!(payload, format!("o{}", at + 1), "seed {}", self.seed);
        }
    }

    /// No schedule fired twice for one time.
    fn check_made(&self, history: &BTreeMap<u64, Message>) {
        let mut seen = BTreeSet::new();
        for message in history.values().filter(|it| it.subject == "s.made") {
            let fired = (text(&message.headers), text(&message.payload));
            assert!(
                seen.insert(fired.clone()),
                "seed {}: {fired:?} twice",
                self.seed
            );
        }
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
