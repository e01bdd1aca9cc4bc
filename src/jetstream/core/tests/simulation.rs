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
    count: u64,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let retention = match dice.below(3) {
            0 => Retention::Workqueue,
            _ => Retention::Limits,
        };
        let config = StreamConfig {
            retention,
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
            count: 0,
        }
    }

    fn live(&mut self) {
        for _ in 0..STEPS {
            match self.dice.below(20) {
                0..6 => self.publish(),
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
                &storage::filter::Filter::new([&b"s.c"[..]]),
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
