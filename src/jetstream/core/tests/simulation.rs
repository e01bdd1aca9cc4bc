//! Random lives of a stream, from a seed: publishes, pulls, acks, crashes, and what must hold whatever happens.
//!
//! `NATS_SIMULATION_SEEDS` sets how many seeds are tried, `NATS_SIMULATION_SEED` replays one.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::jetstream::types::Retention;

/// Steps in one life.
const STEPS: usize = 300;
/// Subjects that are published to.
const SUBJECTS: [&str; 3] = ["s.a", "s.b", "s.c"];

/// A small generator: the same seed gives the same life.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

struct Life {
    seed: u64,
    dice: Dice,
    config: StreamConfig,
    bench: Bench,
    consumers: Vec<ConsumerConfig>,
    /// Acknowledged publishes: sequence and payload.
    acknowledged: BTreeMap<u64, String>,
    /// Publishes whose ack has not been seen, by reply subject.
    unanswered: BTreeMap<String, String>,
    /// Deliveries that could still be acknowledged.
    held: Vec<Outgoing>,
    /// Acks that were confirmed, by consumer.
    confirmed: BTreeMap<String, BTreeSet<u64>>,
    /// Acks whose confirmation is awaited, by reply subject.
    confirming: BTreeMap<String, (String, u64)>,
    /// Ack floors seen, by consumer.
    floors: BTreeMap<String, (u64, u64)>,
    /// Ids of acknowledged messages.
    ids: BTreeMap<String, u64>,
    /// Batches whose ack has not been seen, and those that were acknowledged: how many messages each has.
    batches: BTreeMap<String, u64>,
    stored_batches: BTreeMap<String, u64>,
    count: u64,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let retention = match dice.below(3) {
            0 => Retention::Workqueue,
            _ => Retention::Limits,
        };
        let mut any = || dice.below(2) == 0;
        let config = StreamConfig {
            retention,
            allow_atomic: any(),
            allow_batched: any(),
            allow_msg_schedules: any(),
            allow_msg_ttl: true,
            allow_rollup_hdrs: true,
            subject_delete_marker_ttl: if any() { 2 * SECOND } else { 0 },
            ..stream("S", &["s.>"])
        };
        let consumers = if retention == Retention::Workqueue {
            vec![filtered("one", "s.a"), filtered("two", "s.b")]
        } else {
            vec![
                durable("one"),
                filtered("two", "s.b"),
                ConsumerConfig {
                    ack_policy: AckPolicy::All,
                    max_ack_pending: 7,
                    ..durable("three")
                },
                ConsumerConfig {
                    ack_policy: AckPolicy::None,
                    ..durable("four")
                },
            ]
        };
        let mut bench = Bench::new(config.clone());
        for consumer in &consumers {
            bench.consumer(consumer.clone());
        }
        bench.instant = false;
        Self {
            seed,
            dice,
            config,
            bench,
            consumers,
            acknowledged: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            held: Vec::new(),
            confirmed: BTreeMap::new(),
            confirming: BTreeMap::new(),
            floors: BTreeMap::new(),
            ids: BTreeMap::new(),
            batches: BTreeMap::new(),
            stored_batches: BTreeMap::new(),
            count: 0,
        }
    }

    fn live(&mut self) {
        for _ in 0..STEPS {
            match self.dice.below(20) {
                0 => self.publish_otherwise(),
                1..6 => self.publish(),
                6..10 => self.pull(),
                10..14 => self.ack(),
                14..17 => self.commit(),
                17 => {
                    let by = self.dice.below(40) as i64 * SECOND / 2;
                    self.bench.pass(by);
                }
                18 => self.crash(),
                _ => self.check_counts(),
            }
            self.collect();
        }
        while self.bench.commit() {
            self.bench.settle();
            self.collect();
        }
        self.bench.instant = true;
        self.bench.pass(SECOND);
        self.collect();
        self.check_batches();
        self.check_due();
        if self.config.allow_msg_schedules {
            let end = [
                ("Nats-Scheduler", "s.plan"),
                ("Nats-Schedule-Next", "purge"),
            ];
            self.bench.send("s.made", &end, "");
        }
        self.bench.pass(70 * SECOND);
        self.collect();
        self.check_all();
    }

    fn publish(&mut self) {
        self.count += 1;
        let payload = format!("m{}", self.count);
        let subject = SUBJECTS[self.dice.below(3) as usize];
        let id = format!("id{}", self.dice.below(self.count * 2 + 1));
        let with_id = self.dice.below(3) == 0;
        let headers = [("Nats-Msg-Id", id.as_str())];
        let headers = if with_id { &headers[..] } else { &[] };
        let reply = self.bench.send(subject, headers, &payload);
        let payload = if with_id {
            format!("{payload}/{id}")
        } else {
            payload
        };
        self.unanswered.insert(reply, payload);
    }

    /// Publishes what is not simply one message.
    fn publish_otherwise(&mut self) {
        self.count += 1;
        let name = format!("b{}", self.count);
        let messages = 1 + self.dice.below(5);
        match self.dice.below(4) {
            0 if self.config.allow_atomic => self.publish_atomic(&name, messages),
            1 if self.config.allow_batched => self.publish_fast(&name, messages),
            2 if self.config.allow_msg_schedules => {
                let headers = [
                    ("Nats-Schedule", "@every 3s"),
                    ("Nats-Schedule-Target", "s.made"),
                    ("Nats-Schedule-TTL", "60s"),
                ];
                self.bench.send("s.plan", &headers, &name);
            }
            _ => {
                self.bench.send("s.mortal", &[("Nats-TTL", "4s")], &name);
            }
        }
    }

    fn publish_atomic(&mut self, name: &str, messages: u64) {
        for at in 1..=messages {
            let sequence = at.to_string();
            let mut headers = vec![("Nats-Batch-Id", name), ("Nats-Batch-Sequence", &sequence)];
            if at == messages {
                headers.push(("Nats-Batch-Commit", "1"));
            }
            let reply = self.bench.send("s.batch", &headers, name);
            if at == messages {
                self.batches.insert(reply, messages);
            }
        }
    }

    fn publish_fast(&mut self, name: &str, messages: u64) {
        for at in 1..=messages {
            let operation = match at {
                at if at == messages => 2,
                1 => 0,
                _ => 1,
            };
            let reply = format!("fast.{name}.3.fail.{at}.{operation}.$FI");
            self.batches.insert(reply.clone(), messages);
            self.bench.event(Event::Publish(Publish {
                subject: Bytes::from_static(b"s.fast"),
                reply: Bytes::from(reply),
                headers: Bytes::new(),
                payload: Bytes::from(name.to_owned()),
            }));
        }
    }

    fn pull(&mut self) {
        let at = self.dice.below(self.consumers.len() as u64) as usize;
        let batch = 1 + self.dice.below(5);
        let no_wait = self.dice.below(2) == 0;
        let name = self.consumers[at].name.clone();
        let body = format!(r#"{{"batch":{batch},"no_wait":{no_wait},"expires":5000000000}}"#);
        self.bench.pull_to(&name, "inbox", &body);
    }

    fn ack(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let at = self.dice.below(self.held.len() as u64) as usize;
        let message = self.held.swap_remove(at);
        let body = match self.dice.below(8) {
            0 => "-NAK",
            1 => "-NAK 3s",
            2 => "+WPI",
            3 => "+TERM",
            _ => "",
        };
        let settles = matches!(body, "" | "+TERM");
        if settles && self.dice.below(2) == 0 {
            self.count += 1;
            let reply = format!("confirm.{}", self.count);
            let (consumer, sequence) = about(&message);
            self.bench.ack_with(&message, body, &reply);
            self.confirming.insert(reply, (consumer, sequence));
        } else {
            self.bench.ack(&message, body);
        }
    }

    fn commit(&mut self) {
        self.bench.commit();
        self.bench.settle();
    }

    /// The process dies: what was not durable is gone.
    fn crash(&mut self) {
        self.collect();
        self.bench = self.bench.crashed(self.config.clone());
        self.bench.instant = false;
        self.unanswered.clear();
        self.confirming.clear();
        self.batches.clear();
        // Clients still hold what they were sent; its acks may come yet.
        self.bench.settle();
        self.check_durable();
    }

    /// Looks at what was sent.
    fn collect(&mut self) {
        for outgoing in self.bench.sent() {
            let to = text(&outgoing.to);
            if let Some(payload) = self.unanswered.remove(&to) {
                self.answered(&payload, &text(&outgoing.payload));
            } else if let Some(messages) = self.batches.get(&to) {
                let ack = text(&outgoing.payload);
                if let Some((_, name)) = ack.split_once(r#""batch":""#) {
                    let name = name.split('"').next().unwrap_or_default();
                    self.stored_batches.insert(name.to_owned(), *messages);
                    assert!(
                        ack.ends_with(&format!(r#""count":{messages}}}"#)),
                        "seed {}: {ack}",
                        self.seed
                    );
                }
            } else if let Some((consumer, sequence)) = self.confirming.remove(&to) {
                self.confirmed.entry(consumer).or_default().insert(sequence);
            } else if outgoing.reply.starts_with(b"$JS.ACK") {
                self.delivered(outgoing);
            }
        }
    }

    fn answered(&mut self, payload: &str, ack: &str) {
        let sequence: u64 = ack
            .strip_prefix("{\"stream\":\"S\",\"seq\":")
            .and_then(|rest| rest.split([',', '}']).next())
            .and_then(|number| number.parse().ok())
            .unwrap_or_else(|| panic!("seed {}: {ack}", self.seed));
        let (payload, id) = match payload.split_once('/') {
            Some((payload, id)) => (payload, Some(id.to_owned())),
            None => (payload, None),
        };
        if ack.contains("duplicate") {
            let id = id.expect("only ids are duplicates");
            if let Some(first) = self.ids.get(&id) {
                assert_eq!(*first, sequence, "seed {}: duplicate of {id}", self.seed);
            }
            return;
        }
        if let Some(id) = id {
            self.ids.insert(id, sequence);
        }
        let before = self.acknowledged.insert(sequence, payload.to_owned());
        assert_eq!(
            before, None,
            "seed {}: sequence {sequence} twice",
            self.seed
        );
    }

    fn delivered(&mut self, outgoing: Outgoing) {
        let (consumer, sequence) = about(&outgoing);
        let confirmed = self.confirmed.get(&consumer);
        assert!(
            !confirmed.is_some_and(|confirmed| confirmed.contains(&sequence)),
            "seed {}: {consumer} got {sequence} again after its ack was confirmed",
            self.seed
        );
        if let Some(payload) = self.acknowledged.get(&sequence) {
            assert_eq!(text(&outgoing.payload), *payload, "seed {}", self.seed);
        }
        self.held.push(outgoing);
    }

    /// What was acknowledged is there, unless a work queue has let it go.
    fn check_durable(&mut self) {
        for (sequence, payload) in &self.acknowledged {
            let query = crate::jetstream::core::MessageQuery::Sequence(*sequence);
            match self.bench.core.get(&query) {
                Some(message) => assert_eq!(text(&message.payload), *payload),
                None => assert!(
                    self.config.retention == Retention::Workqueue,
                    "seed {}: {sequence} was acknowledged and is gone",
                    self.seed
                ),
            }
        }
    }

    /// A batch is there as a whole or not at all, and as a whole when that was promised.
    fn check_batches(&mut self) {
        let mut stored: BTreeMap<String, u64> = BTreeMap::new();
        let filter = storage::filter::Filter::new([&b"s.batch"[..], b"s.fast"]);
        let store = self.bench.core.store();
        let mut from = 1;
        while let Ok(Some(message)) = store.next(from, &filter) {
            from = message.sequence + 1;
            *stored.entry(text(&message.payload)).or_default() += 1;
        }
        for (name, messages) in &self.stored_batches {
            assert_eq!(
                stored.get(name),
                Some(messages),
                "seed {}: {name}",
                self.seed
            );
        }
        let atomic = storage::filter::Filter::new([&b"s.batch"[..]]);
        let mut from = 1;
        let mut last: Option<(String, bool)> = None;
        while let Ok(Some(message)) = store.next(from, &atomic) {
            from = message.sequence + 1;
            let name = text(&message.payload);
            let ends = text(&message.headers).contains("Nats-Batch-Commit");
            if let Some((before, ended)) = &last {
                assert!(*before == name || *ended, "seed {}: {before}", self.seed);
            }
            last = Some((name, ends));
        }
        assert!(last.is_none_or(|(_, ended)| ended), "seed {}", self.seed);
    }

    /// Nothing outlives its time, and a schedule does not fire twice for one time.
    fn check_due(&mut self) {
        let store = self.bench.core.store();
        let filter = storage::filter::Filter::new([&b"s.made"[..]]);
        let mut from = 1;
        let mut seen = BTreeSet::new();
        while let Ok(Some(message)) = store.next(from, &filter) {
            from = message.sequence + 1;
            let headers = text(&message.headers);
            let next = headers
                .lines()
                .find(|line| line.starts_with("Nats-Schedule-Next"));
            let next = next.unwrap_or_default().to_owned();
            assert!(
                seen.insert((next.clone(), text(&message.payload))),
                "seed {}: fired twice: {next}",
                self.seed
            );
        }
        if self.bench.core.is_settled() {
            let due = store.due(self.bench.now - SECOND, u64::MAX);
            assert_eq!(due, [0; 0], "seed {}", self.seed);
        }
    }

    /// What is pending is what a count says; floors do not move back while the process lives.
    fn check_counts(&mut self) {
        if !self.bench.core.is_settled() {
            return;
        }
        for consumer in self.consumers.clone() {
            let info = self.bench.consumer_info(&consumer.name);
            let filter = storage::filter::Filter::new(
                consumer.filters().iter().map(|filter| filter.as_bytes()),
            );
            let from = info.delivered.stream_seq + 1;
            let store = self.bench.core.store();
            let counted = store.count(from, &filter, storage::store::Counting::Every);
            assert_eq!(
                info.num_pending, counted,
                "seed {}: {} after {from}",
                self.seed, consumer.name
            );
            let floor = (info.ack_floor.consumer_seq, info.ack_floor.stream_seq);
            assert!(floor.1 <= info.delivered.stream_seq, "seed {}", self.seed);
        }
    }

    fn check_all(&mut self) {
        self.check_durable();
        self.check_counts();
        for consumer in self.consumers.clone() {
            let info = self.bench.consumer_info(&consumer.name);
            let floor = (info.ack_floor.consumer_seq, info.ack_floor.stream_seq);
            let seen = self.floors.entry(consumer.name.clone()).or_default();
            assert!(*seen <= floor, "seed {}", self.seed);
            *seen = floor;
        }
        // Whatever has not been settled is delivered in the end.
        self.bench.instant = true;
        self.bench.settle();
        for consumer in self.consumers.clone() {
            for _ in 0..2000 {
                self.bench.pass(31 * SECOND);
                let messages = self
                    .bench
                    .pull(&consumer.name, r#"{"batch":50,"no_wait":true}"#);
                if messages.iter().all(|message| message.reply.is_empty()) {
                    break;
                }
                for message in messages.iter().filter(|message| !message.reply.is_empty()) {
                    self.bench.ack(message, "");
                }
            }
            let info = self.bench.consumer_info(&consumer.name);
            assert_eq!(
                (info.num_pending, info.num_ack_pending),
                (0, 0),
                "seed {}: {}",
                self.seed,
                consumer.name
            );
        }
        if self.config.retention == Retention::Workqueue {
            let left = self.bench.info().state.messages;
            let unwanted = self.bench.core.store().count(
                0,
                &storage::filter::Filter::new([
                    &b"s.c"[..],
                    b"s.batch",
                    b"s.fast",
                    b"s.made",
                    b"s.mortal",
                ]),
                storage::store::Counting::Every,
            );
            assert_eq!(left, unwanted, "seed {}", self.seed);
        }
        self.check_snapshot();
    }

    /// A snapshot and the entries after it give the same as all entries.
    fn check_snapshot(&mut self) {
        let replayed = self.bench.crashed(self.config.clone());
        assert_eq!(
            replayed.core.snapshot(),
            self.bench.core.snapshot(),
            "seed {}: replay differs",
            self.seed
        );
        assert_eq!(
            replayed.core.store().state(),
            self.bench.core.store().state()
        );
    }
}

fn filtered(name: &str, filter: &str) -> ConsumerConfig {
    ConsumerConfig {
        filter_subject: filter.to_owned(),
        ..durable(name)
    }
}

/// The consumer and the stream sequence of a delivery.
fn about(message: &Outgoing) -> (String, u64) {
    let subject =
        crate::jetstream::core::AckSubject::parse(&message.reply).expect("an ack subject");
    (subject.consumer.to_owned(), subject.stream_sequence)
}

pub(super) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_happens_no_acknowledged_message_is_lost_and_every_count_is_right() {
    if let Some(seed) = number("NATS_SIMULATION_SEED") {
        return Life::new(seed).live();
    }
    for seed in 0..number("NATS_SIMULATION_SEEDS").unwrap_or(60) {
        // The seed stands in the output of a failure even when the failure itself does not name it.
        println!("seed {seed}");
        Life::new(seed).live();
    }
}
