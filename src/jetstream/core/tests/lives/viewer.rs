//! A consumer as its clients see it: what they were sent, what they have acknowledged, and what must not happen to them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use storage::filter::Filter;
use storage::store::Message;

use super::super::text;
use super::model::{Model, header};
use crate::jetstream::core::{AckSubject, Outgoing};
use crate::jetstream::types::{
    AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy, PriorityPolicy, ReplayPolicy,
};

/// What is known of a message that was delivered.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// How often, as far as the consumer said.
    deliveries: u64,
    /// In which life of the server.
    boot: u64,
    /// Before this time it must not come again.
    not_before_ns: i64,
    /// Where its acks go.
    pub(super) delivery: Outgoing,
}

/// A pull request on its way.
#[derive(Debug, Clone)]
struct Asked {
    left: u64,
    ends_ns: i64,
    min_pending: u64,
    min_ack_pending: u64,
    pin: Option<String>,
    is_over: bool,
}

/// A pull request's body, as far as it matters here.
#[derive(Debug, Clone, Default)]
pub(super) struct Ask {
    pub(super) batch: u64,
    pub(super) expires_ns: i64,
    pub(super) no_wait: bool,
    pub(super) min_pending: u64,
    pub(super) min_ack_pending: u64,
    pub(super) pin: Option<String>,
    pub(super) priority: u64,
}

pub(super) struct Viewer {
    pub(super) config: ConsumerConfig,
    /// The consumer's number in its stream.
    pub(super) id: u64,
    filter: Filter,
    seen: BTreeMap<u64, Seen>,
    /// Acks that were confirmed, and those that were sent.
    confirmed: BTreeSet<u64>,
    sent: BTreeMap<u64, u64>,
    /// The highest stream and consumer sequence that was delivered in this life of the server.
    last_new: u64,
    last_delivery: Option<u64>,
    /// The ack floor only grows.
    floor: u64,
    /// The most that could wait for acks at any time.
    ack_pending_max: i64,
    asked: BTreeMap<String, Asked>,
    pub(super) paused_until_ns: i64,
    pub(super) pin: Option<String>,
    /// Until when nobody else may be pinned, unless somebody released it.
    pub(super) pin_may_change: bool,
    /// Whether somebody listens on the deliver subject.
    pub(super) is_heard: bool,
    /// Flow control requests that are not answered.
    stalled: Vec<(Bytes, u64, u64)>,
    boot: u64,
}

impl Viewer {
    pub(super) fn new(config: ConsumerConfig, id: u64, boot: u64) -> Self {
        let filters = config.filters().iter().map(|filter| filter.as_bytes());
        Self {
            filter: match config.filters().is_empty() {
                true => Filter::everything(),
                false => Filter::new(filters),
            },
            ack_pending_max: config.max_ack_pending,
            config,
            id,
            seen: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            sent: BTreeMap::new(),
            last_new: 0,
            last_delivery: None,
            floor: 0,
            asked: BTreeMap::new(),
            paused_until_ns: 0,
            pin: None,
            pin_may_change: true,
            is_heard: true,
            stalled: Vec::new(),
            boot,
        }
    }

    pub(super) fn matches(&self, subject: &[u8]) -> bool {
        self.filter.matches(subject)
    }

    fn acks(&self) -> bool {
        matches!(self.config.ack_policy, AckPolicy::Explicit | AckPolicy::All)
    }

    /// The server ended. What it knew and was not durable is forgotten.
    pub(super) fn restarted(&mut self, boot: u64) {
        self.boot = boot;
        self.last_new = 0;
        self.last_delivery = None;
        self.asked.clear();
        self.sent.clear();
        self.pin = None;
        self.pin_may_change = true;
        self.stalled.clear();
        if self.config.ack_policy == AckPolicy::None {
            // What was delivered last may be forgotten, and is the floor.
            self.floor = 0;
        }
    }

    /// It was moved, or what it is about has changed.
    pub(super) fn moved(&mut self) {
        self.seen.clear();
        self.confirmed.clear();
        self.sent.clear();
        self.last_new = 0;
        self.last_delivery = None;
        self.floor = 0;
    }

    /// A pull request is made; its body.
    pub(super) fn ask(&mut self, inbox: &str, ask: &Ask, now_ns: i64) -> String {
        let ends_ns = match ask.expires_ns {
            0 => i64::MAX,
            expires_ns => now_ns + expires_ns,
        };
        let asked = Asked {
            left: ask.batch,
            ends_ns,
            min_pending: ask.min_pending,
            min_ack_pending: ask.min_ack_pending,
            pin: ask.pin.clone(),
            is_over: false,
        };
        self.asked.insert(inbox.to_owned(), asked);
        let mut body = format!(r#"{{"batch":{},"expires":{}"#, ask.batch, ask.expires_ns);
        if ask.no_wait {
            body.push_str(r#","no_wait":true"#);
        }
        if self.config.priority_policy != PriorityPolicy::None {
            body.push_str(&format!(r#","group":"{}""#, super::draw::GROUP));
        }
        for (name, value) in [
            ("min_pending", ask.min_pending),
            ("min_ack_pending", ask.min_ack_pending),
            ("priority", ask.priority),
        ] {
            if value > 0 {
                body.push_str(&format!(r#","{name}":{value}"#));
            }
        }
        if let Some(pin) = &ask.pin {
            body.push_str(&format!(r#","id":"{pin}""#));
        }
        body.push('}');
        body
    }

    /// Where requests wait that are answered only when enough is pending.
    pub(super) fn conditional(&self) -> impl Iterator<Item = Bytes> + '_ {
        let bounded = |asked: &Asked| asked.min_pending > 0 || asked.min_ack_pending > 0;
        let asked = self.asked.iter().filter(move |one| bounded(one.1));
        asked.map(|(inbox, _)| Bytes::from(inbox.clone()))
    }

    /// Something else than a message came to a pull request.
    pub(super) fn was_told(&mut self, inbox: &str, status: &str) {
        if status.contains(" 100 ") {
            return;
        }
        if let Some(asked) = self.asked.get_mut(inbox) {
            asked.is_over = true;
        }
    }

    /// A message came. `Err` says what is wrong with that.
    pub(super) fn was_delivered(
        &mut self,
        delivery: Outgoing,
        model: &Model,
        now_ns: i64,
    ) -> Result<(), String> {
        let subject = AckSubject::parse(&delivery.reply).ok_or("no ack subject")?;
        let (sequence, deliveries) = (subject.stream_sequence, subject.deliveries);
        let (place, pending) = (subject.consumer_sequence, subject.pending);
        match model.history.get(&sequence) {
            Some(message) => self.check_content(&delivery, message)?,
            // It came and went at once.
            None if sequence <= model.last => {}
            None => return Err(format!("{sequence} was never stored")),
        }
        if now_ns < self.paused_until_ns {
            return Err(format!("{sequence} is delivered while it is paused"));
        }
        if self.confirmed.contains(&sequence) {
            return Err(format!("{sequence} comes again, and its ack was confirmed"));
        }
        if self.sent.get(&sequence) == Some(&self.boot) {
            return Err(format!("{sequence} comes again, and was acknowledged"));
        }
        if let Some(last) = self.last_delivery
            && place != last + 1
        {
            return Err(format!("delivery {place} comes after {last}"));
        }
        let is_new = self.check_times(sequence, deliveries, now_ns)?;
        if is_new && self.acks() {
            self.check_ack_pending(model)?;
        }
        match self.config.is_push() {
            true if !self.is_heard => {
                return Err(format!("{sequence} is delivered to nobody"));
            }
            true => {}
            false => self.take_from_request(&delivery, sequence, pending, now_ns)?,
        }
        self.last_delivery = Some(place);
        let wait_ns = self.wait_ns(deliveries);
        let seen = Seen {
            deliveries,
            boot: self.boot,
            not_before_ns: now_ns.saturating_add(wait_ns),
            delivery,
        };
        self.sent.remove(&sequence);
        self.seen.insert(sequence, seen);
        Ok(())
    }

    fn check_content(&self, delivery: &Outgoing, message: &Message) -> Result<(), String> {
        let sequence = message.sequence;
        let is_it = delivery.subject == message.subject && self.matches(&message.subject);
        let payload_is_it = match self.config.headers_only {
            true => {
                let size = header(&delivery.headers, "Nats-Msg-Size");
                delivery.payload.is_empty() && size == Some(message.payload.len().to_string())
            }
            false => delivery.payload == message.payload,
        };
        match is_it && payload_is_it {
            true => Ok(()),
            false => Err(format!(
                "{sequence} was {message:?}, and is delivered as {delivery:?}"
            )),
        }
    }

    /// Whether it is delivered for the first time.
    fn check_times(&mut self, sequence: u64, deliveries: u64, now_ns: i64) -> Result<bool, String> {
        let max = self.config.max_deliver;
        let Some(seen) = self.seen.get(&sequence) else {
            // What may have been delivered before the server ended is marked, too.
            if self.boot == 0 && deliveries != 1 {
                return Err(format!(
                    "{sequence} comes for the first time as {deliveries}"
                ));
            }
            if sequence <= self.last_new {
                return Err(format!("{sequence} comes after {}", self.last_new));
            }
            self.last_new = sequence;
            return Ok(true);
        };
        if !self.acks() {
            let never_again = self.config.ack_policy == AckPolicy::None;
            let again = seen.boot == self.boot && never_again;
            return match again {
                true => Err(format!("{sequence} comes twice, and needs no ack")),
                false => {
                    self.last_new = self.last_new.max(sequence);
                    Ok(true)
                }
            };
        }
        if seen.boot == self.boot {
            if deliveries != seen.deliveries + 1 {
                let before = seen.deliveries;
                return Err(format!("{sequence} comes as {deliveries} after {before}"));
            }
            if now_ns < seen.not_before_ns {
                let early_ns = seen.not_before_ns - now_ns;
                return Err(format!("{sequence} comes again {early_ns} ns too early"));
            }
            if max > 0 && deliveries > max as u64 {
                return Err(format!("{sequence} comes as {deliveries} of {max}"));
            }
            return Ok(false);
        }
        if deliveries < 2 {
            return Err(format!("{sequence} came before, and is not marked"));
        }
        self.last_new = self.last_new.max(sequence);
        Ok(false)
    }

    fn check_ack_pending(&self, model: &Model) -> Result<(), String> {
        let max = self.config.max_ack_pending;
        let outstanding = self.outstanding(model);
        match max > 0 && outstanding as i64 >= max {
            true => Err(format!("{outstanding} of {max} wait for acks already")),
            false => Ok(()),
        }
    }

    /// How many were delivered in this life of the server, and surely wait for an ack.
    fn outstanding(&self, model: &Model) -> usize {
        let max = self.config.max_deliver;
        let seen = self.seen.iter().filter(|(sequence, seen)| {
            let is_exhausted = max > 0 && seen.deliveries >= max as u64;
            seen.boot == self.boot
                && !is_exhausted
                && !self.sent.contains_key(sequence)
                && !self.confirmed.contains(sequence)
                && model.live.contains_key(sequence)
                && !model.unsure.contains(sequence)
        });
        seen.count()
    }

    fn take_from_request(
        &mut self,
        delivery: &Outgoing,
        sequence: u64,
        pending: u64,
        now_ns: i64,
    ) -> Result<(), String> {
        let inbox = text(&delivery.to);
        let Some(asked) = self.asked.get_mut(&inbox) else {
            return Err(format!("{sequence} comes to {inbox}, which did not ask"));
        };
        if asked.left == 0 || asked.is_over || now_ns > asked.ends_ns {
            return Err(format!(
                "{sequence} comes to {inbox}, which is over: {asked:?}"
            ));
        }
        asked.left -= 1;
        match self.config.priority_policy {
            PriorityPolicy::Overflow => {
                let bounded = asked.min_pending > 0 || asked.min_ack_pending > 0;
                let by_pending = asked.min_pending > 0 && pending + 1 >= asked.min_pending;
                if bounded && !by_pending && asked.min_ack_pending == 0 {
                    return Err(format!(
                        "{sequence} comes to {asked:?} with {pending} pending"
                    ));
                }
            }
            PriorityPolicy::PinnedClient => {
                let pin = header(&delivery.headers, "Nats-Pin-Id");
                if pin.is_none() {
                    return Err(format!("{sequence} names no pin"));
                }
                if self.pin.is_some() && self.pin != pin && !self.pin_may_change {
                    return Err(format!("{sequence} names {pin:?} and not {:?}", self.pin));
                }
                if asked.pin.is_some() && asked.pin != pin {
                    return Err(format!("{sequence} names {pin:?} to {asked:?}"));
                }
                self.pin_may_change &= self.pin == pin;
                self.pin = pin;
            }
            _ => {}
        }
        Ok(())
    }

    /// How long an ack may take after so many deliveries.
    fn wait_ns(&self, deliveries: u64) -> i64 {
        let backoff = &self.config.backoff;
        let at = (deliveries as usize).saturating_sub(1);
        let waits = backoff.get(at).or(backoff.last());
        waits.copied().unwrap_or(self.config.ack_wait)
    }

    /// An ack of what an earlier life of the server delivered: it may not know of that.
    pub(super) fn acknowledges_old(&mut self, sequence: u64) {
        let before = self.boot.wrapping_sub(1);
        for settled in self.settled_by(sequence) {
            self.sent.entry(settled).or_insert(before);
        }
        self.sent.insert(sequence, before);
    }

    /// It is configured otherwise.
    pub(super) fn becomes(&mut self, config: ConsumerConfig) {
        let ceiling = [self.ack_pending_max, config.max_ack_pending];
        self.ack_pending_max = ceiling.into_iter().max().unwrap_or(0);
        self.config = config;
    }

    /// An ack that settles is sent; says which messages that is about.
    pub(super) fn acknowledges(&mut self, sequence: u64) -> Vec<u64> {
        let settled = self.settled_by(sequence);
        for sequence in &settled {
            self.sent.insert(*sequence, self.boot);
        }
        settled
    }

    fn settled_by(&self, sequence: u64) -> Vec<u64> {
        match self.config.ack_policy == AckPolicy::All {
            true => self.seen.range(..=sequence).map(|one| *one.0).collect(),
            false => vec![sequence],
        }
    }

    pub(super) fn is_confirmed(&mut self, settled: &[u64]) {
        self.confirmed.extend(settled);
    }

    /// A message is wanted again, or some more time for it.
    pub(super) fn may_come(&mut self, sequence: u64, from_ns: i64) {
        if let Some(seen) = self.seen.get_mut(&sequence) {
            seen.not_before_ns = from_ns;
        }
    }

    pub(super) fn needs_more_time(&mut self, sequence: u64, now_ns: i64) {
        if let Some(seen) = self.seen.get(&sequence) {
            let wait_ns = self.wait_ns(seen.deliveries);
            self.is_put_off(sequence, now_ns, wait_ns);
        }
    }

    /// A message is wanted again after so long.
    pub(super) fn is_put_off(&mut self, sequence: u64, now_ns: i64, wait_ns: i64) {
        let seen = self.seen.get(&sequence);
        // Otherwise it is on its way again already.
        if seen.is_some_and(|seen| now_ns < seen.not_before_ns) {
            self.may_come(sequence, now_ns.saturating_add(wait_ns));
        }
    }

    /// Something that was delivered and not acknowledged, by any number.
    pub(super) fn held(&self, any: u64) -> Option<(u64, Seen)> {
        let open: Vec<&u64> = self
            .seen
            .keys()
            .filter(|sequence| {
                !self.sent.contains_key(sequence) && !self.confirmed.contains(sequence)
            })
            .collect();
        if open.is_empty() {
            return None;
        }
        let sequence = *open[any as usize % open.len()];
        Some((sequence, self.seen[&sequence].clone()))
    }

    pub(super) fn is_of_now(&self, seen: &Seen) -> bool {
        seen.boot == self.boot
    }

    /// It is asked to say how far it has come.
    pub(super) fn stalls(&mut self, subject: Bytes) {
        let consumer = self.last_delivery.unwrap_or(0);
        let stream = self.last_new;
        self.stalled.push((subject, consumer, stream));
    }

    /// Says how far it has come.
    pub(super) fn answer(&mut self) -> Vec<(Bytes, u64, u64)> {
        std::mem::take(&mut self.stalled)
    }

    /// What the consumer says of itself.
    pub(super) fn check_info(&mut self, info: &ConsumerInfo, model: &Model) -> Result<(), String> {
        let (floor, delivered) = (info.ack_floor.stream_seq, info.delivered.stream_seq);
        if floor < self.floor {
            return Err(format!("the ack floor goes from {} to {floor}", self.floor));
        }
        self.floor = floor;
        if floor > delivered {
            return Err(format!(
                "{floor} is acknowledged, and {delivered} delivered"
            ));
        }
        let max = self.ack_pending_max;
        if self.acks() && max > 0 && info.num_ack_pending as i64 > max {
            return Err(format!("{} of {max} wait for acks", info.num_ack_pending));
        }
        if self.config.deliver_policy == DeliverPolicy::LastPerSubject || !model.unsure.is_empty() {
            return Ok(());
        }
        let later = model.live.range(delivered + 1..);
        let pending = later.filter(|(_, message)| self.matches(&message.subject));
        let pending = pending.count() as u64;
        // Before anything is delivered, it is the consumer's beginning that counts.
        let exact =
            info.delivered.consumer_seq > 0 || self.config.deliver_policy == DeliverPolicy::All;
        if info.num_pending > pending || exact && info.num_pending != pending {
            return Err(format!(
                "{} are pending, and there are {pending} after {delivered}",
                info.num_pending
            ));
        }
        let least = self.outstanding(model) as u64;
        if self.acks() && info.num_ack_pending < least {
            return Err(format!(
                "{} wait for acks, and {least} were delivered",
                info.num_ack_pending
            ));
        }
        Ok(())
    }

    pub(super) fn is_slow(&self) -> bool {
        self.config.replay_policy == ReplayPolicy::Original
    }
}
