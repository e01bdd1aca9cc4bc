//! Streams that copy from others: random lives of an origin and a copy, with what is lost on the way between them.
//!
//! `NATS_SIMULATION_SEEDS` sets how many seeds are tried, `NATS_SIMULATION_SEED` replays one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use storage::filter::Filter;
use storage::store::Message;

use super::simulation::{Dice, number};
use super::*;
use crate::jetstream::core::{ConsumerChange, PurgeQuery};
use crate::jetstream::sourcing::{Doings, Ear, Ground, Heard, Now, Request, Sourcing};
use crate::jetstream::types::{
    ApiError, DeliverPolicy, StreamSource, Strictness, SubjectTransform, decode, encode,
};

/// An origin, a stream that copies from it, and the way between them.
struct Pair {
    seed: u64,
    dice: Dice,
    origin: Bench,
    copy: Bench,
    sourcing: Sourcing,
    listens: HashMap<String, (u64, Ear)>,
    /// What is on its way to the copy.
    on_the_way: Vec<(String, Heard)>,
    /// Whether messages get lost on the way.
    loses: bool,
    /// The origin's consumers by deliver subject.
    consumers: HashMap<String, u64>,
    /// What the origin ever had.
    history: BTreeMap<u64, Message>,
}

fn from_origin() -> StreamSource {
    StreamSource {
        name: "O".to_owned(),
        ..StreamSource::default()
    }
}

impl Pair {
    fn new(seed: u64, config: StreamConfig) -> Self {
        let mut pair = Self {
            seed,
            dice: Dice(seed),
            origin: Bench::new(stream("O", &["o.>"])),
            copy: Bench::new(config),
            sourcing: Sourcing::new("$G", ""),
            listens: HashMap::new(),
            on_the_way: Vec::new(),
            loses: false,
            consumers: HashMap::new(),
            history: BTreeMap::new(),
        };
        pair.configure();
        pair
    }

    fn configure(&mut self) {
        let config = Arc::clone(self.copy.core.config());
        self.act(|sourcing, ground, now, doings| sourcing.configure(&config, ground, now, doings));
    }

    fn act(&mut self, act: impl FnOnce(&mut Sourcing, &Ground<'_>, Now, &mut Doings)) {
        let now = Now {
            ns: self.copy.now,
            random: self.dice.next(),
        };
        let mut doings = Doings::default();
        act(&mut self.sourcing, &ground(&self.copy), now, &mut doings);
        self.carry_out(doings);
        let (lost, refused) = self.copy.effects.take_copying();
        assert!(!lost);
        for (attempt, sequence) in refused {
            let mut doings = Doings::default();
            self.sourcing.refused(attempt, sequence, now, &mut doings);
            self.carry_out(doings);
        }
    }

    fn carry_out(&mut self, doings: Doings) {
        for listen in doings.listens {
            let key = (listen.origin, listen.ear);
            let before = self.listens.iter().find(|(_, known)| **known == key);
            if let Some(before) = before.map(|(subject, _)| subject.clone()) {
                self.listens.remove(&before);
                self.interest(&before, false);
            }
            if let Some(subject) = listen.subject {
                self.listens.insert(subject.clone(), key);
                self.interest(&subject, true);
            }
        }
        for event in doings.events {
            self.copy.event(event);
        }
        for request in doings.requests {
            self.request(request);
        }
    }

    /// Somebody listens to a subject of the origin's account, or no longer.
    fn interest(&mut self, subject: &str, active: bool) {
        let bytes = Bytes::copy_from_slice(subject.as_bytes());
        match active {
            true => self.origin.world.deaf.borrow_mut().remove(&bytes),
            false => self.origin.world.deaf.borrow_mut().insert(bytes),
        };
        if let Some(consumer) = self.consumers.get(subject).copied() {
            self.origin.event(Event::Interest { consumer, active });
        }
    }

    /// The API of the origin's server.
    fn request(&mut self, request: Request) {
        let Request {
            subject,
            reply,
            level: _,
            body,
        } = request;
        if subject.starts_with("$JS.API.CONSUMER.CREATE.O") {
            #[derive(serde::Deserialize)]
            struct Create {
                config: ConsumerConfig,
            }
            let mut create: Create = decode(&body, Strictness::Lenient).expect("a request");
            assert!(create.config.direct && create.config.flow_control);
            // As the API does it: each attempt has a consumer of its own.
            assert!(create.config.sourcing);
            create.config.name = format!("{}-{}", create.config.name, self.dice.next());
            let action = ConsumerAction::CreateOrUpdate;
            let to = create.config.deliver_subject.clone();
            self.interest(&to, false);
            let body = match self.origin.try_consumer(create.config, action) {
                StreamReply::ConsumerCreated { info, .. } => encode(info.as_ref()),
                StreamReply::Refused(error) => refusal(&error),
                other => panic!("{other:?}"),
            };
            for change in std::mem::take(&mut self.origin.effects.consumers) {
                if let ConsumerChange::Present { id, .. } = change {
                    self.consumers.insert(to.clone(), id);
                }
            }
            self.answer(reply, body);
        } else if let Some(name) = subject.strip_prefix("$JS.API.CONSUMER.DELETE.O.") {
            let name = name.to_owned();
            self.origin.request(StreamRequest::ConsumerDelete { name });
        } else {
            assert!(subject.starts_with("$JS.FC.O."), "{subject}");
            self.origin.event(Event::FlowControl {
                subject: Bytes::from(subject),
                headers: Bytes::new(),
            });
        }
    }

    fn answer(&mut self, reply: String, body: Vec<u8>) {
        let heard = Heard {
            subject: Bytes::from(reply.clone()),
            reply: Bytes::new(),
            headers: Bytes::new(),
            payload: Bytes::from(body),
        };
        self.on_the_way.push((reply, heard));
    }

    /// Moves what is on its way; what is lost stays lost.
    fn carry(&mut self) {
        for outgoing in self.origin.sent() {
            let heard = Heard {
                subject: outgoing.subject,
                reply: outgoing.reply,
                headers: outgoing.headers,
                payload: outgoing.payload,
            };
            self.on_the_way.push((text(&outgoing.to), heard));
        }
        for (to, heard) in std::mem::take(&mut self.on_the_way) {
            let lost = self.loses && self.dice.below(20) == 0;
            let Some((origin, ear)) = self.listens.get(&to).copied().filter(|_| !lost) else {
                continue;
            };
            self.act(|sourcing, _, now, doings| sourcing.take(origin, ear, heard, now, doings));
        }
        for outgoing in self.copy.sent() {
            if outgoing.to.starts_with(b"$JS.FC.") {
                self.origin.event(Event::FlowControl {
                    subject: outgoing.to,
                    headers: outgoing.headers,
                });
            }
        }
    }

    fn pass(&mut self, nanoseconds: i64) {
        self.origin.pass(nanoseconds);
        self.copy.pass(nanoseconds);
        self.act(|sourcing, ground, now, doings| sourcing.tick(ground, now, doings));
        self.carry();
    }

    /// Until everything has come over.
    fn come_to_rest(&mut self) {
        self.loses = false;
        self.copy.instant = true;
        for _ in 0..400 {
            self.copy.commit();
            self.copy.settle();
            self.pass(SECOND / 2);
        }
    }

    fn publish(&mut self, subject: &str, payload: &str) {
        let ack = self.origin.publish(subject, payload);
        let sequence = self.origin.core.store().state().last_sequence;
        assert!(ack.contains(&format!("\"seq\":{sequence}")), "{ack}");
        let message = self.origin.core.store().load(sequence).expect("reads");
        self.history.extend(message.map(|it| (sequence, it)));
    }

    /// The process of the copy dies: what was not durable is gone.
    fn crash(&mut self) {
        let config = StreamConfig::clone(self.copy.core.config());
        self.copy = self.copy.crashed(config);
        self.copy.instant = false;
        self.sourcing = Sourcing::new("$G", "");
        for subject in std::mem::take(&mut self.listens).into_keys() {
            self.interest(&subject, false);
        }
        self.configure();
    }

    fn live(&mut self) {
        self.copy.instant = false;
        self.loses = true;
        for step in 0..200u64 {
            match self.dice.below(20) {
                0..9 => {
                    let subject = ["o.a", "o.b", "o.c.d"][self.dice.below(3) as usize];
                    self.publish(subject, &format!("m{step}"));
                }
                9 => {
                    let last = self.origin.core.store().state().last_sequence;
                    let sequence = 1 + self.dice.below(last.max(1));
                    self.origin.request(StreamRequest::Delete {
                        sequence,
                        erase: false,
                    });
                }
                10 if self.dice.below(4) == 0 => {
                    let last = self.origin.core.store().state().last_sequence;
                    self.origin.request(StreamRequest::Purge(PurgeQuery {
                        below_sequence: self.dice.below(last + 1),
                        ..PurgeQuery::default()
                    }));
                }
                11 => self.crash(),
                12..16 => {
                    self.copy.commit();
                    self.copy.settle();
                    self.carry();
                }
                _ => {
                    let by = self.dice.below(30) as i64 * SECOND / 10;
                    self.pass(by);
                }
            }
            self.carry();
        }
        self.come_to_rest();
    }

    fn copied(&self) -> Vec<Message> {
        let (store, everything) = (self.copy.core.store(), Filter::everything());
        let mut copied: Vec<Message> = Vec::new();
        while let Ok(Some(message)) = store.next(
            copied.last().map_or(0, |last| last.sequence) + 1,
            &everything,
        ) {
            copied.push(message);
        }
        copied
    }

    fn originals(&self) -> Vec<Message> {
        let (store, everything) = (self.origin.core.store(), Filter::everything());
        let mut originals: Vec<Message> = Vec::new();
        while let Ok(Some(message)) = store.next(
            originals.last().map_or(0, |last| last.sequence) + 1,
            &everything,
        ) {
            originals.push(message);
        }
        originals
    }
}

fn ground(bench: &Bench) -> Ground<'_> {
    Ground {
        state: bench.core.store().state(),
        last_sequence: bench.core.last_sequence(),
        positions: bench.core.source_positions(),
    }
}

fn refusal(error: &ApiError) -> Vec<u8> {
    format!("{{\"error\":{}}}", String::from_utf8_lossy(&encode(error))).into_bytes()
}

fn mirror() -> StreamConfig {
    StreamConfig {
        mirror: Some(from_origin()),
        subjects: Vec::new(),
        duplicate_window: 0,
        ..stream("M", &[])
    }
}

fn sourcing(source: StreamSource) -> StreamConfig {
    StreamConfig {
        sources: vec![source],
        duplicate_window: 0,
        ..stream("C", &["own"])
    }
}

#[test]
fn a_mirror_has_the_same_messages_under_the_same_sequences_and_times() {
    let mut pair = Pair::new(1, mirror());
    pair.publish("o.a", "one");
    pair.publish("o.b", "two");
    pair.origin.request(StreamRequest::Delete {
        sequence: 1,
        erase: false,
    });
    pair.pass(SECOND);
    pair.pass(SECOND);
    pair.publish("o.a", "three");
    pair.pass(SECOND);
    assert_eq!(pair.copied(), pair.originals());
    let info = pair.sourcing.mirror_info(pair.copy.now).expect("a mirror");
    assert_eq!((info.name.as_str(), info.lag), ("O", 0));
    assert!(info.active >= 0 && info.error.is_none());
}

#[test]
fn a_mirror_of_an_emptied_stream_begins_where_that_goes_on() {
    let mut pair = Pair::new(1, mirror());
    for count in 0..5 {
        pair.publish("o.a", &count.to_string());
    }
    pair.origin
        .request(StreamRequest::Purge(PurgeQuery::default()));
    pair.pass(SECOND);
    pair.pass(SECOND);
    assert_eq!(pair.copy.info().state.last_seq, 5);
    pair.publish("o.a", "six");
    pair.pass(SECOND);
    assert_eq!(pair.copied(), pair.originals());
    assert_eq!(pair.copy.info().state.first_seq, 6);
}

#[test]
fn a_source_says_where_its_messages_came_from() {
    let source = StreamSource {
        subject_transforms: vec![SubjectTransform {
            src: "o.*".to_owned(),
            dest: "c.{{wildcard(1)}}".to_owned(),
        }],
        ..from_origin()
    };
    let mut pair = Pair::new(1, sourcing(source));
    pair.copy.publish("own", "mine");
    let headers = [
        ("Nats-Expected-Stream", "O"),
        ("Nats-Stream-Source", "X 9 > > x"),
        ("Mine", "1"),
    ];
    pair.origin.publish_with("o.a", &headers, "one");
    pair.origin.publish("o.b.c", "not selected");
    pair.pass(SECOND);
    pair.pass(SECOND);
    let copied = pair.copied();
    assert_eq!(copied.len(), 2);
    assert_eq!(text(&copied[1].subject), "c.a");
    assert_eq!(
        text(&copied[1].headers),
        "NATS/1.0\r\nMine: 1\r\nNats-Stream-Source: O 1 o.* c.{{wildcard(1)}} o.a\r\n\r\n"
    );
    let infos = pair.sourcing.source_infos(pair.copy.now);
    assert_eq!(infos[0].subject_transforms.len(), 1);
}

#[test]
fn a_copy_has_the_lifetime_of_its_message_and_dies_of_it_alone() {
    let mut pair = Pair::new(
        1,
        StreamConfig {
            allow_msg_ttl: true,
            ..sourcing(from_origin())
        },
    );
    let with_ttl = StreamConfig {
        allow_msg_ttl: true,
        ..stream("O", &["o.>"])
    };
    pair.origin
        .request(StreamRequest::Update(Box::new(with_ttl)));
    pair.origin
        .publish_with("o.a", &[("Nats-TTL", "60s")], "dies");
    pair.origin.publish("o.b", "stays");
    pair.pass(SECOND);
    pair.pass(SECOND);
    let copied = pair.copied();
    assert_eq!(copied.len(), 2);
    assert!(text(&copied[0].headers).contains("Nats-TTL: 60s\r\n"));
    // The origin's own is deleted: the copy is not.
    pair.origin.request(StreamRequest::Delete {
        sequence: 1,
        erase: false,
    });
    pair.pass(SECOND);
    assert_eq!(pair.copied().len(), 2);
    pair.pass(70 * SECOND);
    let payloads: Vec<_> = pair.copied().iter().map(|one| text(&one.payload)).collect();
    assert_eq!(payloads, ["stays"]);
}

#[test]
fn an_origin_that_is_not_there_is_asked_for_again_later_each_time() {
    let mut pair = Pair::new(1, mirror());
    let error = crate::jetstream::types::ErrorCode::StreamNotFound.into();
    let mut asked = Vec::new();
    for _ in 0..800 {
        let now = Now {
            ns: pair.copy.now,
            random: 7,
        };
        let mut doings = Doings::default();
        pair.sourcing.tick(&ground(&pair.copy), now, &mut doings);
        for request in doings.requests {
            if !request.reply.is_empty() {
                asked.push((pair.copy.now - START) / SECOND);
                let listen = doings.listens.iter().find(|it| it.subject.is_some());
                let heard = Heard {
                    subject: Bytes::new(),
                    reply: Bytes::new(),
                    headers: Bytes::new(),
                    payload: Bytes::from(refusal(&error)),
                };
                let origin = listen.expect("it listens").origin;
                let mut doings = Doings::default();
                pair.sourcing
                    .take(origin, Ear::Answers, heard, now, &mut doings);
            }
        }
        pair.copy.pass(SECOND / 4);
    }
    assert_eq!(asked, [0, 12, 34, 67, 109, 161]);
    let info = pair.sourcing.mirror_info(pair.copy.now).expect("a mirror");
    assert_eq!(info.error.map(|error| error.err_code), Some(10059));
    assert_eq!(info.active, -1);
}

#[test]
fn a_full_stream_takes_what_its_source_has_once_there_is_room() {
    let mut pair = Pair::new(
        1,
        StreamConfig {
            discard: crate::jetstream::types::Discard::New,
            max_msgs: 2,
            ..sourcing(from_origin())
        },
    );
    for count in 1..=4 {
        pair.publish("o.a", &count.to_string());
    }
    pair.pass(SECOND);
    pair.pass(SECOND);
    assert_eq!(pair.copied().len(), 2);
    pair.copy
        .request(StreamRequest::Purge(PurgeQuery::default()));
    for _ in 0..20 {
        pair.pass(SECOND);
    }
    let payloads: Vec<String> = pair.copied().iter().map(|it| text(&it.payload)).collect();
    assert_eq!(payloads, ["3", "4"]);
}

#[test]
fn a_counter_gathers_what_its_sources_count() {
    let mut pair = Pair::new(
        1,
        StreamConfig {
            allow_msg_counter: true,
            ..sourcing(from_origin())
        },
    );
    pair.origin = Bench::new(StreamConfig {
        allow_msg_counter: true,
        ..stream("O", &["o.>"])
    });
    pair.copy.publish_with("own", &[("Nats-Incr", "1")], "");
    for increment in ["5", "-2", "10"] {
        pair.origin
            .publish_with("o.a", &[("Nats-Incr", increment)], "");
    }
    pair.pass(SECOND);
    pair.pass(SECOND);
    let last = pair.copied().pop().expect("copied");
    assert_eq!(text(&last.payload), r#"{"val":"13"}"#);
    let headers = text(&last.headers);
    assert!(
        headers.contains("Nats-Counter-Sources: {\"O\":{\"o.a\":\"13\"}}\r\n"),
        "{headers}"
    );
}

#[test]
fn a_mirror_that_is_none_any_more_takes_messages_of_its_own() {
    let mut pair = Pair::new(1, mirror());
    pair.publish("o.a", "one");
    pair.pass(SECOND);
    pair.pass(SECOND);
    let promoted = StreamConfig {
        mirror: None,
        subjects: vec!["m".to_owned()],
        ..StreamConfig::clone(pair.copy.core.config())
    };
    pair.copy.request(StreamRequest::Update(Box::new(promoted)));
    pair.configure();
    assert!(pair.sourcing.mirror_info(pair.copy.now).is_none());
    let ack = pair.copy.publish("m", "own");
    assert!(ack.contains(r#""seq":2"#), "{ack}");
}

#[test]
fn whatever_is_lost_on_the_way_every_message_is_copied_once() {
    let seeds = match number("NATS_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("NATS_SIMULATION_SEEDS").unwrap_or(40),
    };
    for seed in seeds {
        println!("seed {seed}");
        let mut pair = Pair::new(seed, mirror());
        pair.live();
        let copied: BTreeMap<u64, Message> = pair
            .copied()
            .into_iter()
            .map(|it| (it.sequence, it))
            .collect();
        for original in pair.originals() {
            assert_eq!(
                copied.get(&original.sequence),
                Some(&original),
                "seed {seed}"
            );
        }
        for (sequence, message) in &copied {
            assert_eq!(pair.history.get(sequence), Some(message), "seed {seed}");
        }
        // What was gone before it could be copied, a mirror hears of with the next message.
        let last = pair.copy.core.store().state().last_sequence;
        let last_live = pair.originals().last().map_or(0, |it| it.sequence);
        let bounds = last_live..=pair.origin.core.store().state().last_sequence;
        assert!(bounds.contains(&last), "seed {seed}: {last}, {bounds:?}");

        let filtered = StreamSource {
            filter_subject: ["", "o.a", "o.*"][seed as usize % 3].to_owned(),
            ..from_origin()
        };
        let mut pair = Pair::new(seed, sourcing(filtered));
        pair.live();
        let copied: Vec<String> = pair.copied().iter().map(|it| text(&it.payload)).collect();
        let place = |payload: &String| {
            let mut history = pair.history.values();
            history.position(|it| text(&it.payload) == *payload)
        };
        let places: Vec<_> = copied.iter().map(place).collect();
        let in_order = places.is_sorted_by(|one, other| one < other);
        assert!(in_order, "seed {seed}: {places:?}");
        let filter = ["o.>", "o.a", "o.*"][seed as usize % 3];
        for original in pair.originals() {
            if crate::subject::subject_matches(&original.subject, filter) {
                let payload = text(&original.payload);
                assert!(copied.contains(&payload), "seed {seed}: {payload}");
            }
        }
        assert_eq!(pair.seed, seed);
    }
}

#[test]
fn a_source_begins_where_it_is_told_to() {
    let source = StreamSource {
        opt_start_seq: 3,
        ..from_origin()
    };
    let mut pair = Pair::new(1, sourcing(source));
    for count in 1..=4 {
        pair.publish("o.a", &count.to_string());
    }
    pair.pass(SECOND);
    pair.pass(SECOND);
    let payloads: Vec<String> = pair.copied().iter().map(|it| text(&it.payload)).collect();
    assert_eq!(payloads, ["3", "4"]);
    assert_eq!(DeliverPolicy::default(), DeliverPolicy::All);
}
