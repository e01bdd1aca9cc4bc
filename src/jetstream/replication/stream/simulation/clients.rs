//! Clients of one stream: what they ask for, what they were promised, and what must not happen to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use raft::group::GroupNumber;
use rand::RngExt;
use rand::rngs::SmallRng;
use storage::store::Message;

use super::oracle::{Committed, Oracle};
use super::server::{Heard, Server};
use crate::broker::{Inbound, Outgoing};
use crate::jetstream::core::{
    AckSubject, ConsumerAction, ConsumerCreate, PurgeQuery, StreamReply, StreamRequest,
};
use crate::jetstream::types::{
    AckPolicy, ApiError, ConsumerConfig, ErrorCode, Retention, StreamConfig,
};

/// How many different message ids are used.
const IDS: u64 = 12;
/// Registers that are written by compare-and-set.
const REGISTERS: u64 = 2;
/// Messages kept per subject, where there is a limit.
const PER_SUBJECT_MAX: i64 = 15;
/// Consumers of this name come and go, and are moved about.
const PASSING: &str = "passing";

/// Whether somebody moves that consumer back now and then.
pub(super) fn may_go_back(consumer: &str) -> bool {
    consumer.starts_with(PASSING)
}

/// What a client has published.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    subject: String,
    payload: String,
    id: Option<String>,
    /// The last sequence of its subject that it rests on.
    expected: Option<u64>,
    /// The highest sequence that was acknowledged before it was sent.
    after: u64,
}

/// A management request on its way.
type Answered = Arc<Mutex<Vec<(u64, StreamReply)>>>;

pub(super) struct Clients {
    pub(super) group: GroupNumber,
    pub(super) config: StreamConfig,
    pub(super) oracle: Oracle,
    count: u64,
    unanswered: BTreeMap<u64, Sent>,
    /// By sequence.
    pub(super) acknowledged: BTreeMap<u64, (u64, Sent)>,
    /// Sequences known to be stored under an id.
    ids: BTreeMap<String, u64>,
    /// What was delivered and not acknowledged.
    held: Vec<Inbound>,
    /// What was delivered as if for the first time, by consumer and sequence, and in which term.
    unmarked: BTreeMap<(String, u64), u64>,
    /// Acks waiting to be confirmed.
    confirming: BTreeMap<u64, (String, u64)>,
    /// Those that were, and in which term at the latest.
    confirmed: BTreeMap<(String, u64), u64>,
    /// Sequences that some consumer may have acknowledged.
    acked: BTreeSet<u64>,
    answered: Answered,
    deleting: BTreeMap<u64, u64>,
    /// Sequences that somebody asked to remove; and those of which it is known that they are.
    removed: BTreeSet<u64>,
    surely_removed: BTreeSet<u64>,
    purged_below: u64,
    passing: u64,
    pub(super) delivered: u64,
    /// Whether some disk has failed or was full: then publishes may have been refused.
    pub(super) disks_were_hurt: bool,
}

impl Clients {
    pub(super) fn new(
        group: GroupNumber,
        config: StreamConfig,
        committed: &Arc<Committed>,
    ) -> Self {
        Self {
            oracle: Oracle::new(group, config.clone(), committed),
            group,
            config,
            count: 0,
            unanswered: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            ids: BTreeMap::new(),
            held: Vec::new(),
            unmarked: BTreeMap::new(),
            confirming: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            acked: BTreeSet::new(),
            answered: Arc::default(),
            deleting: BTreeMap::new(),
            removed: BTreeSet::new(),
            surely_removed: BTreeSet::new(),
            purged_below: 0,
            passing: 0,
            delivered: 0,
            disks_were_hurt: false,
        }
    }

    pub(super) fn answered_count(&self) -> u64 {
        self.count - self.unanswered.len() as u64
    }

    fn is_queue(&self) -> bool {
        self.config.retention == Retention::Workqueue
    }

    fn subject(&self, last: &str) -> String {
        format!("{}.{last}", self.config.name)
    }

    fn consumers(&self) -> &'static [&'static str] {
        match self.is_queue() {
            true => &["one"],
            false => &["one", "two"],
        }
    }

    /// Makes the consumers that stay, where they are not there yet.
    pub(super) fn make_consumers(&mut self, server: &Server) {
        for name in self.consumers() {
            let filter = match *name {
                "one" if !self.is_queue() => self.subject("work"),
                _ => String::new(),
            };
            self.create(server, name, filter);
        }
    }

    fn create(&mut self, server: &Server, name: &str, filter_subject: String) {
        let config = ConsumerConfig {
            name: name.to_owned(),
            durable_name: name.to_owned(),
            ack_policy: AckPolicy::Explicit,
            ack_wait: 3_000_000_000,
            max_deliver: -1,
            max_waiting: 64,
            max_ack_pending: 1000,
            filter_subject,
            ..ConsumerConfig::default()
        };
        let request = StreamRequest::ConsumerCreate(Box::new(ConsumerCreate {
            name: name.to_owned(),
            config,
            action: ConsumerAction::CreateOrUpdate,
            check_update: |_, _| Ok(()),
            consumers_max: -1,
        }));
        self.ask(server, request);
    }

    fn ask(&mut self, server: &Server, request: StreamRequest) -> u64 {
        self.count += 1;
        let token = self.count;
        let answered = Arc::clone(&self.answered);
        if let Some(replica) = server.replica(self.group) {
            let answer = Box::new(move |reply| answered.lock().push((token, reply)));
            replica.port.port.request(request, answer);
        }
        token
    }

    /// Some client does something, over a server that leads, or believes to.
    pub(super) fn act(&mut self, server: &Server, random: &mut SmallRng) {
        match random.random_range(0..40) {
            0..14 => self.publish(server, random),
            14..19 => self.compare_and_set(server, random),
            19..24 => self.pull(server, random, 8),
            24..36 => self.ack(server, random),
            36 => self.remove(server, random),
            37 => self.come_and_go(server, random),
            _ => self.send_again(server, random),
        }
    }

    fn send(&self, server: &Server, number: u64, sent: &Sent) {
        let mut block = String::from("NATS/1.0\r\n");
        if let Some(id) = &sent.id {
            block.push_str(&format!("Nats-Msg-Id: {id}\r\n"));
        }
        if let Some(expected) = sent.expected {
            let name = "Nats-Expected-Last-Subject-Sequence";
            block.push_str(&format!("{name}: {expected}\r\n"));
        }
        block.push_str("\r\n");
        let has_headers = sent.id.is_some() || sent.expected.is_some();
        let headers = if has_headers { block } else { String::new() };
        self.message(
            server,
            &sent.subject,
            &self.inbox("publish", number),
            headers,
            &sent.payload,
        );
    }

    fn message(&self, server: &Server, to: &str, reply: &str, headers: String, payload: &str) {
        let subject = Bytes::copy_from_slice(to.as_bytes());
        server.publish(Outgoing {
            to: subject.clone(),
            subject,
            reply: Bytes::copy_from_slice(reply.as_bytes()),
            headers: Bytes::from(headers),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
        });
    }

    fn inbox(&self, kind: &str, number: u64) -> String {
        format!("inbox.{}.{kind}.{number}", self.config.name)
    }

    fn last_acknowledged(&self) -> u64 {
        self.acknowledged.keys().next_back().copied().unwrap_or(0)
    }

    fn publish(&mut self, server: &Server, random: &mut SmallRng) {
        self.count += 1;
        let id = match random.random_range(0..3) {
            0 => Some(format!("id-{}", random.random_range(0..IDS))),
            _ => None,
        };
        // A publish with an id is always the same one: sent again by somebody who heard nothing.
        let (last, payload) = match &id {
            Some(id) => ("work", id.clone()),
            None => {
                let subjects = ["work", "other", "more"];
                let last = subjects[random.random_range(0..subjects.len())];
                let padding = match random.random_range(0..4) {
                    0 => random.random_range(0..1500),
                    _ => 0,
                };
                (last, format!("m{}{}", self.count, ".".repeat(padding)))
            }
        };
        let sent = Sent {
            subject: self.subject(last),
            payload,
            id,
            expected: None,
            after: self.last_acknowledged(),
        };
        self.send(server, self.count, &sent);
        self.unanswered.insert(self.count, sent);
    }

    /// Somebody who heard nothing sends again what has an id.
    fn send_again(&mut self, server: &Server, random: &mut SmallRng) {
        let with_id = self.unanswered.iter();
        let with_id: Vec<u64> = with_id
            .filter(|(_, sent)| sent.id.is_some())
            .map(|(number, _)| *number)
            .collect();
        if !with_id.is_empty() {
            let number = with_id[random.random_range(0..with_id.len())];
            self.send(server, number, &self.unanswered[&number]);
        }
    }

    /// Writes to a register, expecting what it held, or holds in somebody's eyes.
    fn compare_and_set(&mut self, server: &Server, random: &mut SmallRng) {
        self.count += 1;
        let register = format!("register{}", random.random_range(0..REGISTERS));
        let subject = self.subject(&register);
        let mut writes = self.acknowledged.values();
        let known = match random.random_range(0..4) {
            0 => writes
                .rfind(|(_, sent)| sent.subject == subject)
                .and_then(|(_, sent)| sent.expected),
            _ => {
                let held = self.oracle.core.store().subject(subject.as_bytes());
                held.map(|held| held.last_sequence)
            }
        };
        let sent = Sent {
            subject,
            payload: format!("r{}", self.count),
            id: None,
            expected: Some(known.unwrap_or(0)),
            after: self.last_acknowledged(),
        };
        self.send(server, self.count, &sent);
        self.unanswered.insert(self.count, sent);
    }

    fn a_consumer(&self, random: &mut SmallRng) -> &'static str {
        let consumers = self.consumers();
        consumers[random.random_range(0..consumers.len())]
    }

    pub(super) fn pull(&mut self, server: &Server, random: &mut SmallRng, most: u64) {
        self.count += 1;
        let consumer = self.a_consumer(random);
        let batch = random.random_range(1..=most);
        let body = format!(r#"{{"batch":{batch},"expires":2000000000}}"#);
        let name = &self.config.name;
        let to = format!("$JS.API.CONSUMER.MSG.NEXT.{name}.{consumer}");
        let reply = self.inbox("pull", self.count);
        self.message(server, &to, &reply, String::new(), &body);
    }

    fn ack(&mut self, server: &Server, random: &mut SmallRng) {
        if self.held.is_empty() {
            return;
        }
        let which = random.random_range(0..self.held.len());
        let message = self.held.swap_remove(which);
        let body = match random.random_range(0..8) {
            0 => "-NAK",
            1 => "+WPI",
            _ => "+ACK",
        };
        self.acknowledge(server, &message, body);
    }

    /// Acknowledges all that is held.
    pub(super) fn ack_all(&mut self, server: &Server) {
        for message in std::mem::take(&mut self.held) {
            self.acknowledge(server, &message, "+ACK");
        }
    }

    fn acknowledge(&mut self, server: &Server, message: &Inbound, body: &str) {
        self.count += 1;
        if body == "+ACK" {
            let about = about(message);
            self.acked.insert(about.1);
            self.confirming.insert(self.count, about);
        }
        let to = String::from_utf8_lossy(&message.reply).into_owned();
        let reply = self.inbox("ack", self.count);
        self.message(server, &to, &reply, String::new(), body);
    }

    fn remove(&mut self, server: &Server, random: &mut SmallRng) {
        let last = self.oracle.core.store().state().last_sequence;
        if last == 0 {
            return;
        }
        let sequence = random.random_range(1..=last);
        if random.random_range(0..5) > 0 {
            self.removed.insert(sequence);
            let erase = random.random_range(0..4) == 0;
            let token = self.ask(server, StreamRequest::Delete { sequence, erase });
            self.deleting.insert(token, sequence);
        } else {
            let below_sequence = (sequence / 2).max(1);
            self.purged_below = self.purged_below.max(below_sequence);
            let query = PurgeQuery {
                below_sequence,
                ..PurgeQuery::default()
            };
            self.ask(server, StreamRequest::Purge(query));
        }
    }

    /// Consumers are made, changed, moved, paused and removed.
    fn come_and_go(&mut self, server: &Server, random: &mut SmallRng) {
        if self.is_queue() {
            return;
        }
        let name = format!("{PASSING}{}", self.passing);
        let request = match random.random_range(0..6) {
            0 | 1 => {
                self.passing += 1;
                let name = format!("{PASSING}{}", self.passing);
                let filter = self.subject("more");
                return self.create(server, &name, filter);
            }
            2 => {
                // Changed.
                let filter = self.subject("other");
                return self.create(server, &name, filter);
            }
            3 => StreamRequest::ConsumerPause {
                name,
                until_ns: Some(super::oracle::CREATED_NS + random.random_range(0..100_000_000_000)),
            },
            4 => {
                let sequence = random.random_range(0..20);
                StreamRequest::ConsumerReset { name, sequence }
            }
            _ => StreamRequest::ConsumerDelete { name },
        };
        self.ask(server, request);
    }

    /// Takes what a server has sent.
    pub(super) fn hear(&mut self, heard: &Heard) -> Result<(), String> {
        let message = &heard.message;
        if message.reply.starts_with(b"$JS.ACK") {
            return self.was_delivered(heard);
        }
        let subject = String::from_utf8_lossy(&message.subject).into_owned();
        let mut tokens = subject.split('.').skip(2);
        let (kind, number) = (tokens.next(), tokens.next());
        let Some(number) = number.and_then(|number| number.parse().ok()) else {
            return Err(format!("{subject} is not the clients'"));
        };
        match kind {
            Some("publish") => self.was_published(number, &message.payload),
            Some("ack") => {
                // Whoever confirms it may have lost its lead meanwhile, and have it from the next leader.
                let term = heard.term_of_commits(self.group);
                if let Some(acked) = self.confirming.remove(&number) {
                    self.confirmed.insert(acked, term);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn was_published(&mut self, number: u64, ack: &[u8]) -> Result<(), String> {
        let ack = String::from_utf8_lossy(ack).into_owned();
        let Some(sent) = self.unanswered.get(&number).cloned() else {
            // Sent again, and answered twice.
            return Ok(());
        };
        if ack.contains("\"error\"") {
            self.unanswered.remove(&number);
            let is_expected = sent.expected.is_some() && ack.contains("wrong last sequence");
            let refuses = [
                ErrorCode::InsufficientResources,
                ErrorCode::StreamStoreFailed,
            ];
            let is_no_room = |code: ErrorCode| {
                ack.contains(&format!("\"err_code\":{},", ApiError::from(code).err_code))
            };
            let is_hurt = self.disks_were_hurt && refuses.into_iter().any(is_no_room);
            return match is_expected || is_hurt {
                true => Ok(()),
                false => Err(format!("{sent:?} was refused: {ack}")),
            };
        }
        let prefix = format!("{{\"stream\":\"{}\",\"seq\":", self.config.name);
        let sequence: Option<u64> = ack
            .strip_prefix(&prefix)
            .and_then(|rest| rest.split([',', '}']).next())
            .and_then(|number| number.parse().ok());
        let Some(sequence) = sequence else {
            return Err(format!("{sent:?} was answered by {ack}"));
        };
        self.unanswered.remove(&number);
        if let Some(id) = &sent.id {
            let known = *self.ids.entry(id.clone()).or_insert(sequence);
            if known != sequence {
                return Err(format!("{id} is stored at {known} and at {sequence}"));
            }
        }
        if ack.contains("duplicate") {
            return Ok(());
        }
        if sequence <= sent.after && sent.id.is_none() {
            let after = sent.after;
            return Err(format!(
                "{sent:?} was sent after {after} was acknowledged, and is {sequence}"
            ));
        }
        match self.acknowledged.insert(sequence, (number, sent.clone())) {
            Some((_, before)) if before.payload != sent.payload => Err(format!(
                "{before:?} and {sent:?} were both acknowledged at {sequence}"
            )),
            _ => Ok(()),
        }
    }

    fn was_delivered(&mut self, heard: &Heard) -> Result<(), String> {
        let message = &heard.message;
        let about = about(message);
        if may_go_back(&about.0) {
            return Ok(());
        }
        self.delivered += 1;
        let subject = AckSubject::parse(&message.reply).ok_or("no ack subject")?;
        // Where two lead for a moment, one of them marks what both deliver.
        let term = heard.term_led(self.group);
        if subject.deliveries <= 1
            && let Some(before) = self.unmarked.insert(about.clone(), term)
        {
            return Err(format!(
                "{about:?} is delivered in term {term}, was so before in term {before}, and is not marked"
            ));
        }
        if let Some(confirmed) = self.confirmed.get(&about)
            && term >= *confirmed
        {
            return Err(format!(
                "{about:?} is delivered in term {term}, and its ack was confirmed in term {confirmed}"
            ));
        }
        self.held.push(message.clone());
        Ok(())
    }

    /// Takes the answers to management requests.
    pub(super) fn take_answers(&mut self) -> Result<(), String> {
        let answers = std::mem::take(&mut *self.answered.lock());
        for (token, reply) in answers {
            let deleted = self.deleting.remove(&token);
            match (&reply, deleted) {
                (StreamReply::Done, Some(sequence)) => {
                    self.surely_removed.insert(sequence);
                }
                (StreamReply::Refused(error), _) => {
                    let known = [
                        ErrorCode::ClusterNotAvail,
                        ErrorCode::ClusterNotLeader,
                        ErrorCode::SequenceNotFound,
                        ErrorCode::StreamMsgDeleteFailed,
                        ErrorCode::ConsumerNotFound,
                        ErrorCode::StreamStoreFailed,
                    ];
                    let is_known = known.into_iter().any(|code| error.is(code));
                    let is_reset = format!("{error:?}").contains("reset");
                    if !is_known && !is_reset {
                        return Err(format!("a request was refused: {error:?}"));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What must be so once everything is well.
    pub(super) fn check(&self) -> Result<(), String> {
        self.check_acknowledged()?;
        self.check_once()?;
        self.check_registers()?;
        for sequence in &self.surely_removed {
            let held = self.oracle.core.store().load(*sequence);
            if held.is_ok_and(|held| held.is_some()) {
                return Err(format!("{sequence} was removed, and is there"));
            }
        }
        Ok(())
    }

    /// What was acknowledged was stored, and is there, unless somebody removed it or a limit did.
    fn check_acknowledged(&self) -> Result<(), String> {
        let history = &self.oracle.history;
        for (sequence, (_, sent)) in &self.acknowledged {
            let stored = history.get(sequence);
            if stored.is_none_or(|stored| stored.payload != sent.payload.as_bytes()) {
                return Err(format!("{sequence} was {sent:?}, and is {stored:?}"));
            }
            let held = self.oracle.core.store().load(*sequence);
            if held.is_ok_and(|held| held.is_some()) {
                continue;
            }
            let later = history.range(sequence + 1..).map(|one| one.1);
            let on_subject = later.filter(|later| later.subject == sent.subject);
            let may_be_gone = self.removed.contains(sequence)
                || *sequence < self.purged_below
                || self.is_queue() && self.acked.contains(sequence)
                || !self.is_queue() && on_subject.count() as i64 >= PER_SUBJECT_MAX;
            if !may_be_gone {
                return Err(format!("{sequence}, {sent:?}, is lost"));
            }
        }
        Ok(())
    }

    /// Nothing was stored twice. Every payload is another one, unless it has an id.
    fn check_once(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for Message {
            sequence, payload, ..
        } in self.oracle.history.values()
        {
            if !seen.insert(payload.clone()) {
                let payload = String::from_utf8_lossy(payload);
                return Err(format!(
                    "{payload} is stored twice, and again at {sequence}"
                ));
            }
        }
        Ok(())
    }

    /// Every write to a register followed the one that it expected.
    fn check_registers(&self) -> Result<(), String> {
        for (sequence, (_, sent)) in &self.acknowledged {
            let Some(expected) = sent.expected else {
                continue;
            };
            let between = self.oracle.history.range(expected + 1..*sequence);
            let between = between
                .filter(|(at, write)| {
                    // What was removed is not the last one any more.
                    let removed = self.removed.contains(at)
                        || **at < self.purged_below
                        || self.acked.contains(at);
                    write.subject == sent.subject && !removed
                })
                .map(|(at, _)| *at)
                .next();
            if let Some(between) = between {
                return Err(format!("{sent:?} was taken as {sequence}, after {between}"));
            }
        }
        Ok(())
    }
}

/// The consumer and the stream sequence of a delivery.
fn about(message: &Inbound) -> (String, u64) {
    let subject = AckSubject::parse(&message.reply).expect("an ack subject");
    (subject.consumer.to_owned(), subject.stream_sequence)
}

/// A stream of either kind.
pub(super) fn stream(name: &str, retention: Retention) -> StreamConfig {
    let per_subject_max = match retention {
        Retention::Limits => PER_SUBJECT_MAX,
        _ => -1,
    };
    StreamConfig {
        name: name.to_owned(),
        subjects: vec![format!("{name}.>")],
        retention,
        num_replicas: 3,
        duplicate_window: 600_000_000_000,
        allow_direct: true,
        max_consumers: -1,
        max_msgs: -1,
        max_bytes: -1,
        max_msgs_per_subject: per_subject_max,
        max_msg_size: -1,
        ..StreamConfig::default()
    }
}
