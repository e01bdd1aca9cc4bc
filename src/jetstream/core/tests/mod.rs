//! What the stream core promises, on a store in memory, a log that commits when it is told to, and a clock of our own.

mod acks;
mod batches;
mod consumers;
mod copies;
mod details;
mod following;
mod later_versions;
mod lives;
mod publishing;
mod replicas;
mod requests;
mod retention;
mod rewrites;
mod schedules;
mod simulation;
mod snapshots;
mod transfer;
mod volatile;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use bytes::Bytes;
use storage::store::{Limits, MemStore};

use super::{
    ConsumerAction, ConsumerCreate, Effects, Event, Outgoing, Publish, Step, StreamCore,
    StreamReply, StreamRequest, World,
};
use crate::jetstream::types::{AckPolicy, ConsumerConfig, ConsumerInfo, StreamConfig, StreamInfo};

pub(super) const SECOND: i64 = 1_000_000_000;
pub(super) const START: i64 = 1_700_000_000 * SECOND;

/// A world in which everybody listens, but for those who do not.
#[derive(Default)]
pub(super) struct TestWorld {
    pub(super) deaf: RefCell<HashSet<Bytes>>,
    random: Cell<u64>,
}

impl World for TestWorld {
    fn interested(&self, subject: &[u8]) -> bool {
        !self.deaf.borrow().contains(subject)
    }

    fn is_heard(&self, subject: &[u8], _group: &[u8]) -> bool {
        self.interested(subject)
    }

    fn random(&self) -> u64 {
        self.random.set(
            self.random
                .get()
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407),
        );
        self.random.get()
    }
}

/// A stream core with everything around it.
pub(super) struct Bench {
    pub(super) core: StreamCore,
    pub(super) now: i64,
    pub(super) world: TestWorld,
    pub(super) effects: Effects,
    /// Entries that were submitted, all of them; the first `durable` are committed.
    pub(super) log: Vec<(u64, Bytes)>,
    pub(super) durable: usize,
    /// Whether entries are committed as soon as they are submitted.
    pub(super) instant: bool,
    replies: u64,
    token: u64,
}

pub(super) fn stream(name: &str, subjects: &[&str]) -> StreamConfig {
    StreamConfig {
        name: name.to_owned(),
        subjects: subjects
            .iter()
            .map(|subject| (*subject).to_owned())
            .collect(),
        max_consumers: -1,
        max_msgs: -1,
        max_bytes: -1,
        max_msgs_per_subject: -1,
        max_msg_size: -1,
        num_replicas: 1,
        duplicate_window: 120 * SECOND,
        ..StreamConfig::default()
    }
}

pub(super) fn durable(name: &str) -> ConsumerConfig {
    ConsumerConfig {
        name: name.to_owned(),
        durable_name: name.to_owned(),
        ack_policy: AckPolicy::Explicit,
        ack_wait: 30 * SECOND,
        max_deliver: -1,
        max_waiting: 512,
        max_ack_pending: 1000,
        ..ConsumerConfig::default()
    }
}

impl Bench {
    pub(super) fn new(config: StreamConfig) -> Self {
        let store = Box::new(MemStore::new(Limits::default()));
        let core = StreamCore::create(config, "", START, store).expect("creates");
        Self::around(core, START)
    }

    fn around(core: StreamCore, now: i64) -> Self {
        let mut bench = Self {
            core,
            now,
            world: TestWorld::default(),
            effects: Effects::default(),
            log: Vec::new(),
            durable: 0,
            instant: true,
            replies: 0,
            token: 0,
        };
        bench.step(|core, step| core.lead(1, step));
        bench
    }

    /// The same stream after a crash: a new store and core from the given configuration, and every durable entry replayed.
    pub(super) fn crashed(&self, config: StreamConfig) -> Self {
        let store = Box::new(MemStore::new(Limits::default()));
        let mut core = StreamCore::create(config, "", START, store).expect("creates");
        for (index, entry) in &self.log[..self.durable] {
            core.replay(*index, entry).expect("replays");
        }
        let mut bench = Self::around(core, self.now);
        bench.log = self.log[..self.durable].to_vec();
        bench.durable = self.durable;
        bench.replies = self.replies;
        bench
    }

    pub(super) fn step<R>(&mut self, act: impl FnOnce(&mut StreamCore, &mut Step<'_>) -> R) -> R {
        let mut step = Step {
            now_ns: self.now,
            world: &self.world,
            effects: &mut self.effects,
        };
        act(&mut self.core, &mut step)
    }

    /// Hands an event in and lets everything happen that follows.
    pub(super) fn event(&mut self, event: Event) {
        self.step(|core, step| core.handle(event, step));
        self.settle();
    }

    pub(super) fn settle(&mut self) {
        loop {
            let more = self.step(|core, step| core.run(step));
            let entries = self.core.take_entries(self.now);
            let submitted = !entries.is_empty();
            self.log.extend(entries);
            let committed = self.instant && self.commit();
            if !(more || submitted || committed) {
                return;
            }
        }
    }

    /// Makes everything that was submitted durable; whether that was anything.
    pub(super) fn commit(&mut self) -> bool {
        let mut any = false;
        while self.durable < self.log.len() {
            let index = self.log[self.durable].0;
            self.durable += 1;
            self.step(|core, step| core.committed(index, step).expect("applies"));
            any = true;
        }
        any
    }

    /// Lets time pass, with every deadline in it.
    pub(super) fn pass(&mut self, nanoseconds: i64) {
        let end = self.now + nanoseconds;
        loop {
            let next = self
                .core
                .next_deadline_ns()
                .unwrap_or(i64::MAX)
                .max(self.now + 1);
            if next > end {
                break;
            }
            self.now = next;
            self.step(|core, step| core.tick(step));
            self.settle();
        }
        self.now = end;
        self.step(|core, step| core.tick(step));
        self.settle();
    }

    /// What was sent since the last look.
    pub(super) fn sent(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.effects.outgoing)
    }

    /// What was sent to a subject, and nothing else is forgotten.
    pub(super) fn sent_to(&mut self, to: &str) -> Vec<Outgoing> {
        let (matching, rest) = self.sent().into_iter().partition(|one| one.to == to);
        self.effects.outgoing = rest;
        matching
    }

    /// Publishes and gives the ack's text, empty when there was none (yet).
    pub(super) fn publish(&mut self, subject: &str, payload: &str) -> String {
        self.publish_with(subject, &[], payload)
    }

    pub(super) fn publish_with(
        &mut self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: &str,
    ) -> String {
        let reply = self.send(subject, headers, payload);
        let acks = self.sent_to(&reply);
        assert!(acks.len() <= 1, "one ack at most: {acks:?}");
        acks.first()
            .map(|ack| text(&ack.payload))
            .unwrap_or_default()
    }

    /// Publishes and gives the subject to which the ack goes.
    pub(super) fn send(
        &mut self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: &str,
    ) -> String {
        self.replies += 1;
        let reply = format!("reply.{}", self.replies);
        let mut block = String::new();
        if !headers.is_empty() {
            block.push_str("NATS/1.0\r\n");
            for (name, value) in headers {
                block.push_str(&format!("{name}: {value}\r\n"));
            }
            block.push_str("\r\n");
        }
        self.event(Event::Publish(Publish {
            subject: Bytes::from(subject.to_owned()),
            reply: Bytes::from(reply.clone()),
            headers: Bytes::from(block),
            payload: Bytes::from(payload.to_owned()),
        }));
        reply
    }

    pub(super) fn request(&mut self, request: StreamRequest) -> StreamReply {
        let token = self.ask(request);
        self.reply(token).expect("an answer")
    }

    pub(super) fn ask(&mut self, request: StreamRequest) -> u64 {
        self.token += 1;
        let token = self.token;
        self.event(Event::Request { token, request });
        token
    }

    pub(super) fn reply(&mut self, token: u64) -> Option<StreamReply> {
        let at = self
            .effects
            .replies
            .iter()
            .position(|reply| reply.0 == token)?;
        Some(self.effects.replies.remove(at).1)
    }

    pub(super) fn consumer(&mut self, config: ConsumerConfig) -> ConsumerInfo {
        match self.try_consumer(config, ConsumerAction::CreateOrUpdate) {
            StreamReply::ConsumerCreated { info, .. } => *info,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn try_consumer(
        &mut self,
        config: ConsumerConfig,
        action: ConsumerAction,
    ) -> StreamReply {
        self.request(StreamRequest::ConsumerCreate(Box::new(ConsumerCreate {
            name: config.name.clone(),
            config,
            action,
            check_update: |_, _| Ok(()),
            consumers_max: -1,
        })))
    }

    pub(super) fn info(&mut self) -> StreamInfo {
        match self.request(StreamRequest::Info(Default::default())) {
            StreamReply::Info { info, .. } => *info,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn consumer_info(&mut self, name: &str) -> ConsumerInfo {
        let name = name.to_owned();
        match self.request(StreamRequest::ConsumerInfo { name }) {
            StreamReply::Consumer(info) => *info,
            other => panic!("{other:?}"),
        }
    }

    /// Sends a pull request and gives what came back to its reply subject.
    pub(super) fn pull(&mut self, consumer: &str, body: &str) -> Vec<Outgoing> {
        self.pull_to(consumer, "inbox", body);
        self.sent_to("inbox")
    }

    pub(super) fn pull_to(&mut self, consumer: &str, inbox: &str, body: &str) {
        self.event(Event::Pull {
            consumer: consumer.to_owned(),
            reply: Bytes::from(inbox.to_owned()),
            body: Bytes::from(body.to_owned()),
        });
    }

    pub(super) fn ack(&mut self, message: &Outgoing, body: &str) {
        self.ack_with(message, body, "");
    }

    pub(super) fn ack_with(&mut self, message: &Outgoing, body: &str, reply: &str) {
        self.event(Event::Ack {
            subject: message.reply.clone(),
            reply: Bytes::from(reply.to_owned()),
            body: Bytes::from(body.to_owned()),
        });
    }
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The payloads of deliveries, in order.
pub(super) fn payloads(messages: &[Outgoing]) -> Vec<String> {
    messages
        .iter()
        .map(|message| text(&message.payload))
        .collect()
}

/// The status line of a message without payload.
pub(super) fn status(message: &Outgoing) -> String {
    let block = text(&message.headers);
    block.lines().next().unwrap_or_default().to_owned()
}
