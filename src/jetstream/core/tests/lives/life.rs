//! One life of a stream: what its clients do, in which order, and what has to hold after each step.

use std::collections::BTreeMap;

use bytes::Bytes;
use storage::filter::Filter;
use storage::store::{Counting, Message};

use super::super::simulation::Dice;
use super::super::{SECOND, text};
use super::draw::{self, SUBJECTS};
use super::host::{End, Host, Museum};
use super::model::{Fate, Letter, Model, header, is_live};
use super::viewer::{Ask, Viewer};
use crate::jetstream::api::validate::check_consumer_update;
use crate::jetstream::core::{
    Advisory, ConsumerAction, ConsumerChange, ConsumerCreate, Event, MessageQuery, Outgoing,
    Publish, PurgeQuery, StreamReply, StreamRequest,
};
use crate::jetstream::types::{
    AckPolicy, ConsumerConfig, ConsumerInfo, Discard, PriorityPolicy, Retention, StreamConfig,
    StreamSource,
};

/// Steps in one life.
const STEPS: usize = 120;

pub(super) type Checked = Result<(), String>;

pub(super) struct Life {
    pub(super) dice: Dice,
    pub(super) host: Host,
    pub(super) model: Model,
    pub(super) viewers: BTreeMap<String, Viewer>,
    boots: u64,
    count: u64,
    made: u64,
    /// What was answered, by the subject that it was sent to.
    answers: BTreeMap<String, String>,
    /// The log was damaged, and the server said so: it goes no further.
    has_ended: bool,
    /// Says what happens.
    pub(super) talks: bool,
}

fn is_wanted_in(viewers: &BTreeMap<String, Viewer>, config: &StreamConfig, subject: &str) -> bool {
    config.retention != Retention::Interest
        || viewers
            .values()
            .any(|viewer| viewer.matches(subject.as_bytes()))
}

impl Life {
    pub(super) fn new(seed: u64, museum: Museum) -> Self {
        let mut dice = Dice(seed);
        let config = draw::a_stream(&mut dice);
        let mut host = Host::new(seed, config.clone());
        host.open_museum(museum);
        Self {
            host,
            model: Model::new(config),
            dice,
            viewers: BTreeMap::new(),
            boots: 0,
            count: 0,
            made: 0,
            answers: BTreeMap::new(),
            has_ended: false,
            talks: false,
        }
    }

    pub(super) fn say(&self, what: impl FnOnce() -> String) {
        if self.talks {
            let at = (self.host.now - super::super::START) as f64 / SECOND as f64;
            println!("{at:>8.3}: {}", what());
        }
    }

    pub(super) fn config(&self) -> &StreamConfig {
        &self.model.config
    }

    pub(super) fn live(&mut self) -> Checked {
        self.say(|| format!("{:?}", self.model.config));
        for _ in 0..1 + self.dice.below(3) {
            self.create_consumer()?;
        }
        for _ in 0..STEPS {
            match self.dice.below(100) {
                0..30 => self.publish()?,
                30..34 => self.publish_batch()?,
                34..37 => self.bring()?,
                37..57 => self.pull()?,
                57..75 => self.ack()?,
                75..84 => {
                    let most = [SECOND, 4 * SECOND, 30 * SECOND][self.dice.below(3) as usize];
                    let by = self.dice.below(most as u64) as i64;
                    self.pass(by)?;
                }
                84 => self.purge()?,
                85 => self.delete()?,
                86 | 87 => self.change_a_consumer()?,
                88 => self.come_or_go()?,
                89 => self.update_stream()?,
                90 | 91 => self.answer_flow_control()?,
                92 => self.turn_interest()?,
                93 => self.host.checkpoint(),
                94 => self.restart(End::Clean)?,
                95 => self.restart(End::Killed)?,
                96 => self.restart(End::PowerCut)?,
                97 => self.crash_in_the_middle()?,
                98 if self.dice.below(4) == 0 => self.damage_the_log()?,
                _ => self.look_at_consumers()?,
            }
            if self.has_ended {
                return Ok(());
            }
            self.check()?;
        }
        self.drain()?;
        self.restart(End::PowerCut)?;
        self.check()
    }

    /// Whether it is known at every moment what must be there.
    fn is_exact(&self) -> bool {
        self.model.unsure.is_empty() || !self.model.is_limited()
    }

    pub(super) fn check(&mut self) -> Checked {
        let store = self.host.core.store();
        if self.model.unsure.is_empty() || !self.model.is_limited() {
            self.model.compare(store)?;
            self.model.look(store);
        } else {
            // What left on account of a limit depends on what had left before.
            self.model.believe(store);
            self.model.look(store);
        }
        self.check_limits()
    }

    fn check_limits(&self) -> Checked {
        let state = self.host.core.store().state();
        let config = self.config();
        if config.discard == Discard::New {
            // Limits that came later, or a message that takes another one's place, let it stand above.
            return Ok(());
        }
        let over = |limit: i64, value: u64| limit > 0 && value > limit as u64;
        match over(config.max_msgs, state.messages) || over(config.max_bytes, state.bytes) {
            true => Err(format!("{state:?} is beyond the limits")),
            false => Ok(()),
        }
    }

    // ---- what comes out

    /// Takes what was stored since, and what was sent.
    pub(super) fn observe(&mut self, letters: &[Letter]) -> Checked {
        let first = self.model.last + 1;
        let last = self.host.core.store().state().last_sequence;
        for sequence in first..=last {
            let at = (sequence - first) as usize;
            let stored = self.host.core.store().load(sequence);
            let stored = stored.map_err(|error| error.to_string())?;
            match (stored, letters.get(at)) {
                (Some(message), letter) => {
                    self.check_stored(&message, letter)?;
                    self.model.pass(message.time_ns);
                    self.model.stored(message);
                }
                (None, Some(letter)) => {
                    if is_wanted_in(&self.viewers, &self.model.config, &letter.subject) {
                        // It may have left at once: a limit, or a consumer that was done with it.
                        let message = self.as_message(letter, sequence);
                        self.model.stored(message);
                        if self.config().retention != Retention::Limits
                            && self.model.live.contains_key(&sequence)
                        {
                            self.model.unsure.insert(sequence);
                        }
                    } else {
                        let now = self.host.now;
                        self.model.skipped(letter, sequence, now);
                    }
                }
                (None, None) => {
                    self.model.last = sequence;
                    self.driven_out();
                }
            }
        }
        self.collect()
    }

    /// Something that nobody published, as what a schedule brings, came and left at once. What it was is not known, nor what it drove out.
    fn driven_out(&mut self) {
        if self.model.is_limited() {
            let store = self.host.core.store();
            self.model.live.retain(|at, _| is_live(store, *at));
        }
    }

    fn as_message(&self, letter: &Letter, sequence: u64) -> Message {
        Message {
            sequence,
            time_ns: self.host.now,
            subject: Bytes::from(letter.subject.clone()),
            headers: Bytes::from(letter.block()),
            payload: Bytes::from(letter.payload.clone()),
        }
    }

    fn check_stored(&self, message: &Message, letter: Option<&Letter>) -> Checked {
        let Some(letter) = letter else {
            let by_itself = ["Nats-Marker-Reason", "Nats-Scheduler", "Nats-Stream-Source"];
            let mut names = by_itself.into_iter();
            return match names.any(|name| header(&message.headers, name).is_some()) {
                true => Ok(()),
                false => Err(format!("nobody published {message:?}")),
            };
        };
        let mut payload = letter.payload.clone();
        if let Some(by) = letter.increment {
            let value = self.model.value_on(&letter.subject) + by;
            payload = format!(r#"{{"val":"{value}"}}"#);
        }
        match message.subject == letter.subject && message.payload == payload {
            true => Ok(()),
            false => Err(format!("{letter:?} is stored as {message:?}")),
        }
    }

    fn collect(&mut self) -> Checked {
        for advisory in std::mem::take(&mut self.host.effects.advisories) {
            if let Advisory::Unpinned { consumer, .. } = &advisory
                && let Some(viewer) = self.viewers.get_mut(consumer)
            {
                viewer.pin_may_change = true;
            }
        }
        for outgoing in self.host.sent() {
            self.hear(outgoing)?;
        }
        Ok(())
    }

    fn hear(&mut self, outgoing: Outgoing) -> Checked {
        let to = text(&outgoing.to);
        let now = self.host.now;
        let name = |of: &str| of.split('.').nth(1).unwrap_or_default().to_owned();
        if outgoing.reply.starts_with(b"$JS.ACK.") {
            let consumer = text(&outgoing.reply);
            let consumer = consumer.split('.').nth(3).unwrap_or_default().to_owned();
            self.say(|| format!("  {consumer} gets {}", text(&outgoing.reply)));
            let Some(viewer) = self.viewers.get_mut(&consumer) else {
                return Err(format!("{consumer} is gone, and delivers {outgoing:?}"));
            };
            let settles = viewer.config.ack_policy == AckPolicy::None
                && self.model.config.retention != Retention::Limits;
            let sequence = crate::jetstream::core::AckSubject::parse(&outgoing.reply)
                .map_or(0, |subject| subject.stream_sequence);
            viewer
                .was_delivered(outgoing, &self.model, now)
                .map_err(|found| format!("{consumer}: {found}"))?;
            if settles && self.model.live.contains_key(&sequence) {
                self.model.unsure.insert(sequence);
            }
        } else if to.starts_with("inbox.") {
            let status = text(&outgoing.headers);
            self.say(|| format!("  {to} hears {}", status.trim_end()));
            if let Some(viewer) = self.viewers.get_mut(&name(&to)) {
                viewer.was_told(&to, &status);
            }
        } else if to.starts_with("push.") {
            let Some(viewer) = self.viewers.get_mut(&name(&to)) else {
                return Err(format!("{to} is gone, and hears {outgoing:?}"));
            };
            if outgoing.reply.starts_with(b"$JS.FC.") {
                viewer.stalls(outgoing.reply);
            }
        } else {
            self.say(|| format!("  {to}: {}", text(&outgoing.payload)));
            self.answers.insert(to, text(&outgoing.payload));
        }
        Ok(())
    }

    // ---- publishing

    fn a_letter(&mut self) -> Letter {
        self.count += 1;
        let dice = &mut self.dice;
        let subject = SUBJECTS[dice.below(SUBJECTS.len() as u64) as usize].to_owned();
        let counts = self.model.config.allow_msg_counter;
        let mut letter = Letter {
            payload: format!("m{}", self.count),
            increment: counts.then(|| dice.below(9) as i64 - 3),
            ..Letter::default()
        };
        if counts {
            letter.payload = String::new();
        } else {
            if dice.below(4) == 0 {
                letter.id = Some(format!("id-{}", dice.below(8)));
            }
            if dice.below(10) == 0 {
                letter.rollup = Some(["sub", "sub", "all"][dice.below(3) as usize]);
            }
            if dice.below(6) == 0 {
                letter.ttl = Some(["4s", "10", "never"][dice.below(3) as usize]);
            }
            if dice.below(12) == 0 {
                letter
                    .payload
                    .push_str(&".".repeat(dice.below(600) as usize));
            }
        }
        if dice.below(12) == 0 {
            letter.expected_last = Some(self.model.last.saturating_sub(dice.below(2)));
        }
        if dice.below(8) == 0 {
            let last = self.model.last_on(&subject);
            let off = dice.below(2) * dice.below(3);
            letter.expected_on_subject = Some(last.saturating_sub(off));
        }
        if self.model.config.allow_msg_schedules && dice.below(8) == 0 {
            letter.schedule = true;
            letter.id = None;
            letter.rollup = None;
            letter.ttl = None;
        }
        letter.subject = match letter.schedule {
            true => "s.plan".to_owned(),
            false => subject,
        };
        if letter.schedule {
            letter.expected_on_subject = None;
        }
        letter
    }

    fn send(&mut self, letter: &Letter, reply: &str) {
        self.say(|| format!("{reply} publishes {letter:?}"));
        let publish = Publish {
            subject: Bytes::from(letter.subject.clone()),
            reply: Bytes::from(reply.to_owned()),
            headers: Bytes::from(letter.block()),
            payload: Bytes::from(letter.payload.clone()),
        };
        self.host.event(Event::Publish(publish));
    }

    fn publish(&mut self) -> Checked {
        let letter = self.a_letter();
        let is_wanted = is_wanted_in(&self.viewers, &self.model.config, &letter.subject);
        let fate = self.model.judge(&letter, self.host.now, is_wanted);
        // Whether there was room is not known where it is not known what is there.
        let counts_bytes = self.config().allow_msg_counter && self.config().max_bytes > 0;
        let is_exact = self.is_exact() && !counts_bytes;
        let next = self.model.last + 1;
        let reply = format!("reply.{}", self.count);
        self.send(&letter, &reply);
        self.observe(std::slice::from_ref(&letter))?;
        let ack = self.answers.remove(&reply);
        let ack = ack.ok_or_else(|| format!("{letter:?} is not answered"))?;
        let found = read_ack(&ack, next)?;
        if is_exact && found != fate {
            return Err(format!("{letter:?} must be {fate:?}, and is {ack}"));
        }
        Ok(())
    }

    fn publish_batch(&mut self) -> Checked {
        let config = self.config().clone();
        if config.allow_msg_counter || !(config.allow_atomic || config.allow_batched) {
            return Ok(());
        }
        let atomic = config.allow_atomic && (!config.allow_batched || self.dice.below(2) == 0);
        if !atomic && config.discard == Discard::New {
            return Ok(());
        }
        let length = 1 + self.dice.below(4);
        let name = format!("b{}", self.count);
        let first = self.model.last + 1;
        let mut letters = Vec::new();
        let mut reply = String::new();
        for at in 1..=length {
            self.count += 1;
            let subject = SUBJECTS[self.dice.below(SUBJECTS.len() as u64) as usize];
            let letter = Letter {
                subject: subject.to_owned(),
                payload: format!("m{}", self.count),
                ..Letter::default()
            };
            let (headers, to) = batch_part(&name, at, length, atomic);
            self.say(|| format!("{to} publishes {letter:?} of batch {name}"));
            self.host.event(Event::Publish(Publish {
                subject: Bytes::from_static(subject.as_bytes()),
                reply: Bytes::from(to.clone()),
                headers: Bytes::from(headers),
                payload: Bytes::from(letter.payload.clone()),
            }));
            letters.push(letter);
            reply = to;
        }
        let last = self.host.core.store().state().last_sequence;
        let stored = last + 1 - first;
        self.observe(&letters)?;
        let ack = self.answers.remove(&reply).unwrap_or_default();
        let is_whole = stored == length && ack.contains(&format!(r#""seq":{last}"#));
        let is_nothing = stored == 0 && ack.contains("error");
        match !atomic || is_whole || is_nothing {
            true => Ok(()),
            false => Err(format!(
                "{stored} of batch {name} of {length} are stored: {ack}"
            )),
        }
    }

    /// The stream is brought the next message of its source.
    fn bring(&mut self) -> Checked {
        if self.config().sources.is_empty() {
            return Ok(());
        }
        let origin = StreamSource {
            name: draw::ORIGIN.to_owned(),
            ..StreamSource::default()
        };
        let position = self.host.core.source_positions().of(&origin);
        let sequence = position.unwrap_or(0) + 1 + self.dice.below(2);
        let block = format!("NATS/1.0\r\nNats-Stream-Source: O {sequence} > > o\r\n\r\n");
        let message = Publish {
            subject: Bytes::from_static(SUBJECTS[(sequence % 4) as usize].as_bytes()),
            headers: Bytes::from(block),
            payload: Bytes::from(format!("o{sequence}")),
            ..Publish::default()
        };
        let subject = text(&message.subject);
        let is_wanted = is_wanted_in(&self.viewers, &self.model.config, &subject);
        self.say(|| format!("the source brings {sequence}"));
        self.host.event(Event::Sourced {
            attempt: 1,
            sequence,
            message: message.clone(),
        });
        let _ = self.host.effects.take_copying();
        let last = self.host.core.store().state().last_sequence;
        if last > self.model.last && !is_live(self.host.core.store(), last) {
            // A limit, or a consumer, did not let it stay; or nobody wants it.
            let gone = Message {
                sequence: last,
                time_ns: self.host.now,
                subject: message.subject,
                headers: message.headers,
                payload: message.payload,
            };
            match is_wanted {
                true => self.model.stored(gone),
                false => self.model.last = last,
            }
            if self.config().retention != Retention::Limits {
                self.model
                    .unsure
                    .extend(self.model.live.contains_key(&last).then_some(last));
            }
        }
        self.observe(&[])
    }

    // ---- consuming

    fn a_viewer(&mut self) -> Option<String> {
        let names: Vec<&String> = self.viewers.keys().collect();
        match names.is_empty() {
            true => None,
            false => Some(names[self.dice.below(names.len() as u64) as usize].clone()),
        }
    }

    fn pull(&mut self) -> Checked {
        let Some(name) = self.a_viewer() else {
            return Ok(());
        };
        let (batch, expires) = (
            1 + self.dice.below(5),
            self.dice.below(8) as i64 * SECOND / 2,
        );
        let mut ask = Ask {
            batch,
            expires_ns: expires,
            no_wait: self.dice.below(2) == 0,
            ..Ask::default()
        };
        let viewer = &self.viewers[&name];
        match viewer.config.priority_policy {
            PriorityPolicy::Overflow => {
                ask.min_pending = self.dice.below(4);
                ask.min_ack_pending = self.dice.below(3);
            }
            PriorityPolicy::PinnedClient if self.dice.below(2) == 0 => {
                ask.pin.clone_from(&viewer.pin);
            }
            PriorityPolicy::Prioritized => ask.priority = self.dice.below(4),
            _ => {}
        }
        self.ask(&name, &ask)
    }

    pub(super) fn ask(&mut self, name: &str, ask: &Ask) -> Checked {
        self.count += 1;
        let inbox = format!("inbox.{name}.{}", self.count);
        let now = self.host.now;
        let Some(viewer) = self.viewers.get_mut(name) else {
            return Ok(());
        };
        if viewer.config.is_push() {
            return Ok(());
        }
        let body = viewer.ask(&inbox, ask, now);
        self.say(|| format!("{inbox} asks {body}"));
        self.host.event(Event::Pull {
            consumer: name.to_owned(),
            reply: Bytes::from(inbox),
            body: Bytes::from(body),
        });
        self.observe(&[])
    }

    fn ack(&mut self) -> Checked {
        let Some(name) = self.a_viewer() else {
            return Ok(());
        };
        let any = self.dice.next();
        let body = match self.dice.below(10) {
            0 => "-NAK",
            1 => "-NAK 3s",
            2 => "+WPI",
            3 => "+TERM",
            _ => "+ACK",
        };
        self.acknowledge(&name, any, body)
    }

    /// Answers some delivery that is open.
    pub(super) fn acknowledge(&mut self, name: &str, any: u64, body: &str) -> Checked {
        let now = self.host.now;
        let retention = self.config().retention;
        let must_confirm = retention != Retention::Limits && self.model.is_limited();
        let confirms = must_confirm || any.is_multiple_of(2);
        let Some(viewer) = self.viewers.get_mut(name) else {
            return Ok(());
        };
        if !matches!(
            viewer.config.ack_policy,
            AckPolicy::Explicit | AckPolicy::All
        ) {
            return Ok(());
        }
        let Some((sequence, seen)) = viewer.held(any) else {
            return Ok(());
        };
        let is_old = !viewer.is_of_now(&seen);
        let settled = match body {
            "-NAK" => {
                viewer.may_come(sequence, now);
                Vec::new()
            }
            "-NAK 3s" => {
                viewer.is_put_off(sequence, now, 3 * SECOND);
                Vec::new()
            }
            "+WPI" => {
                viewer.needs_more_time(sequence, now);
                Vec::new()
            }
            // What the server was told before it ended it may not know any more.
            _ if is_old => {
                viewer.acknowledges_old(sequence);
                Vec::new()
            }
            _ => viewer.acknowledges(sequence),
        };
        self.count += 1;
        let reply = match confirms {
            true => format!("confirm.{}", self.count),
            false => String::new(),
        };
        self.say(|| format!("{name} answers {sequence} with {body}, {reply}"));
        let is_settling = matches!(body, "+ACK" | "+TERM");
        if is_settling && retention != Retention::Limits {
            let live = &self.model.live;
            let about = match is_old {
                true => live.range(..=sequence).map(|one| *one.0).collect(),
                false => settled.clone(),
            };
            let about = about.into_iter();
            let present = about.filter(|sequence| live.contains_key(sequence));
            self.model.unsure.extend(present);
        }
        self.host.event(Event::Ack {
            subject: seen.delivery.reply.clone(),
            reply: Bytes::from(reply.clone()),
            body: Bytes::copy_from_slice(body.as_bytes()),
        });
        self.observe(&[])?;
        if is_settling && !reply.is_empty() && self.answers.remove(&reply).is_some() {
            if let Some(viewer) = self.viewers.get_mut(name) {
                viewer.is_confirmed(&settled);
            }
            if retention == Retention::Workqueue {
                for sequence in settled {
                    self.model.remove(sequence);
                }
            }
        }
        Ok(())
    }

    fn answer_flow_control(&mut self) -> Checked {
        match self.a_viewer() {
            Some(name) => self.answer_flow_control_of(&name),
            None => Ok(()),
        }
    }

    pub(super) fn answer_flow_control_of(&mut self, name: &str) -> Checked {
        let Some(viewer) = self.viewers.get_mut(name) else {
            return Ok(());
        };
        let (policy, stalled) = (viewer.config.ack_policy, viewer.answer());
        for (subject, consumer, stream) in stalled {
            let mut headers = Bytes::new();
            if policy == AckPolicy::FlowControl {
                let block = format!(
                    "NATS/1.0\r\nNats-Last-Consumer: {consumer}\r\nNats-Last-Stream: {stream}\r\n\r\n"
                );
                headers = Bytes::from(block);
                if self.config().retention != Retention::Limits {
                    let live = self.model.live.keys().copied();
                    let settled = live.filter(|sequence| *sequence <= stream);
                    let settled: Vec<u64> = settled.collect();
                    self.model.unsure.extend(settled);
                }
            }
            self.host.event(Event::FlowControl { subject, headers });
            self.observe(&[])?;
        }
        Ok(())
    }

    fn turn_interest(&mut self) -> Checked {
        let Some(name) = self.a_viewer() else {
            return Ok(());
        };
        let heard = !self.viewers[&name].is_heard;
        self.set_interest(&name, heard)
    }

    pub(super) fn set_interest(&mut self, name: &str, heard: bool) -> Checked {
        let Some(viewer) = self.viewers.get_mut(name) else {
            return Ok(());
        };
        if !viewer.config.is_push() || viewer.is_heard == heard {
            return Ok(());
        }
        viewer.is_heard = heard;
        let (consumer, to) = (
            viewer.id,
            Bytes::from(viewer.config.deliver_subject.clone()),
        );
        match heard {
            true => self.host.world.deaf.borrow_mut().remove(&to),
            false => self.host.world.deaf.borrow_mut().insert(to),
        };
        self.say(|| format!("{name} is heard: {heard}"));
        let active = heard;
        self.host.event(Event::Interest { consumer, active });
        self.observe(&[])
    }

    // ---- time, and ends

    pub(super) fn pass(&mut self, nanoseconds: i64) -> Checked {
        let end = self.host.now + nanoseconds;
        self.say(|| format!("{:.3} s pass", nanoseconds as f64 / SECOND as f64));
        loop {
            let next = self.host.next_deadline_ns();
            let at = next.min(end);
            self.host.advance(at);
            // Dead is what is dead by now, whether it is gone before what is new comes or after.
            self.observe(&[])?;
            let now = self.host.now;
            self.model.pass(now);
            if at == end {
                return Ok(());
            }
        }
    }

    fn restart(&mut self, end: End) -> Checked {
        if self.host.in_memory() {
            return Ok(());
        }
        self.say(|| format!("the server ends: {end:?}"));
        self.collect()?;
        let (index, before) = (self.host.core.applied_index(), self.host.core.snapshot());
        self.host.restart(end)?;
        if self.host.recovered.0 == index && self.host.recovered.1 != before {
            return Err("what is brought back is not what was there".to_owned());
        }
        self.came_back()
    }

    /// What clients know of an earlier life of the server counts no more in all respects.
    fn begins_anew(&mut self) {
        self.boots += 1;
        for viewer in self.viewers.values_mut() {
            viewer.restarted(self.boots);
        }
        self.answers.clear();
    }

    fn came_back(&mut self) -> Checked {
        self.begins_anew();
        self.what_is_back()
    }

    fn what_is_back(&mut self) -> Checked {
        // An ack that was not durable is lost, and what it was about must be there then.
        let store = self.host.core.store();
        let unsure = std::mem::take(&mut self.model.unsure);
        let gone = unsure.into_iter();
        for sequence in gone.filter(|sequence| !is_live(store, *sequence)) {
            self.model.remove(sequence);
        }
        self.observe(&[])?;
        self.pass(1)
    }

    /// The power goes while something is being stored.
    fn crash_in_the_middle(&mut self) -> Checked {
        if self.host.in_memory() || !self.is_exact() {
            return Ok(());
        }
        let letter = self.a_letter();
        let is_wanted = is_wanted_in(&self.viewers, &self.model.config, &letter.subject);
        let fate = self.model.judge(&letter, self.host.now, is_wanted);
        if self.dice.below(3) == 0 {
            self.host.checkpoint();
        }
        self.host.cut_power_after(self.dice.below(8));
        let reply = format!("reply.{}", self.count);
        let last = self.model.last;
        self.send(&letter, &reply);
        if self.dice.below(2) == 0 {
            self.host.checkpoint();
        }
        let applied = self.host.core.store().state().last_sequence > last;
        if applied {
            self.observe(std::slice::from_ref(&letter))?;
        } else {
            self.collect()?;
        }
        let acked = self.answers.remove(&reply);
        let acked = acked.is_some_and(|ack| !ack.contains("error"));
        self.say(|| format!("the power goes; applied: {applied}, acknowledged: {acked}"));
        self.host.restart(End::PowerCut)?;
        self.begins_anew();
        let after = self.host.core.store().state().last_sequence;
        if applied && after < self.model.last {
            return Err(format!(
                "{} was stored, and {after} is the last",
                self.model.last
            ));
        }
        if !applied && after > last {
            if fate != Fate::Stored {
                return Err(format!("{letter:?} must be {fate:?}, and is stored"));
            }
            self.observe(std::slice::from_ref(&letter))?;
        }
        self.what_is_back()
    }

    /// A bit of the log flips that was synced long ago. Then the server says so, or nothing is lost.
    fn damage_the_log(&mut self) -> Checked {
        let Some(written) = self.host.newest_segment() else {
            return Ok(());
        };
        // Whatever comes later tells the end of the log from a bad place in it. They may be refused.
        for _ in 0..3 {
            self.publish()?;
            // What one of them drives out depends on what was there before it.
            self.check()?;
        }
        let Some(damage) = self.host.a_place_in(&written, &mut self.dice) else {
            return Ok(());
        };
        self.say(|| format!("the log is damaged: {damage:?}"));
        self.collect()?;
        self.host.damage = Some(damage);
        if let Err(reason) = self.host.restart(End::Killed) {
            self.say(|| reason);
            self.has_ended = true;
            return Ok(());
        }
        self.came_back()
    }

    // ---- management

    fn purge(&mut self) -> Checked {
        if self.config().deny_purge || !self.is_exact() {
            return Ok(());
        }
        let filter = ["", "s.a", "s.c.*"][self.dice.below(3) as usize];
        let (below, keep) = match self.dice.below(3) {
            0 => (1 + self.dice.below(self.model.last + 2), 0),
            1 => (0, self.dice.below(4)),
            _ => (0, 0),
        };
        self.say(|| format!("a purge of {filter} below {below} keeps {keep}"));
        let query = PurgeQuery {
            filter: filter.to_owned(),
            below_sequence: below,
            keep,
        };
        let blurred = !self.model.unsure.is_empty();
        let reply = self.host.request(StreamRequest::Purge(query));
        let gone = self.model.purge(filter, below, keep);
        self.observe(&[])?;
        match reply {
            Some(StreamReply::Purged(purged)) if blurred || purged == gone => Ok(()),
            reply => Err(format!("{gone} must go, and the answer is {reply:?}")),
        }
    }

    fn delete(&mut self) -> Checked {
        if self.config().deny_delete {
            return Ok(());
        }
        let sequence = 1 + self.dice.below(self.model.last + 1);
        let erase = self.dice.below(2) == 0;
        self.say(|| format!("{sequence} is deleted"));
        let unsure = self.model.unsure.contains(&sequence);
        let was_there = self.model.live.contains_key(&sequence);
        let request = StreamRequest::Delete { sequence, erase };
        let reply = self.host.request(request);
        self.model.remove(sequence);
        self.observe(&[])?;
        match reply {
            Some(StreamReply::Done) if was_there => Ok(()),
            Some(StreamReply::Refused(_)) if !was_there || unsure => Ok(()),
            reply => Err(format!("{sequence} is there: {was_there}, and {reply:?}")),
        }
    }

    fn create_consumer(&mut self) -> Checked {
        self.made += 1;
        let name = format!("c{}", self.made);
        let filters = match self.config().retention {
            Retention::Workqueue => ["s.a", "s.b", "s.c.*", "s.c.1"],
            _ => ["", "s.a", "s.c.*", "s.b"],
        };
        let filter = filters[self.dice.below(4) as usize];
        let (stream, now) = (self.config().clone(), self.host.now);
        let config = draw::a_consumer(&mut self.dice, &stream, &name, filter, now);
        self.say(|| format!("{config:?}"));
        let reply = self.try_consumer(config.clone(), ConsumerAction::Create);
        let id = self.id_of(&name);
        match (reply, id) {
            (Some(StreamReply::ConsumerCreated { created: true, .. }), Some(id)) => {
                let viewer = Viewer::new(config, id, self.boots);
                self.viewers.insert(name, viewer);
            }
            (Some(StreamReply::Refused(_)), _) if stream.retention == Retention::Workqueue => {}
            (reply, _) => return Err(format!("{name} is answered by {reply:?}")),
        }
        // Older messages may be for it.
        self.blur();
        self.observe(&[])
    }

    /// Where consumers decide what stays, it is not known any more what that is.
    fn blur(&mut self) {
        if self.config().retention == Retention::Interest {
            let live = self.model.live.keys().copied();
            self.model.unsure.extend(live);
        }
    }

    fn id_of(&mut self, name: &str) -> Option<u64> {
        let changes = std::mem::take(&mut self.host.effects.consumers);
        changes.into_iter().find_map(|change| match change {
            ConsumerChange::Present { id, name: of, .. } if of == name => Some(id),
            _ => None,
        })
    }

    fn try_consumer(
        &mut self,
        config: ConsumerConfig,
        action: ConsumerAction,
    ) -> Option<StreamReply> {
        let create = ConsumerCreate {
            name: config.name.clone(),
            config,
            action,
            check_update: check_consumer_update,
            consumers_max: -1,
        };
        self.host
            .request(StreamRequest::ConsumerCreate(Box::new(create)))
    }

    fn come_or_go(&mut self) -> Checked {
        if self.viewers.len() < 4 && self.dice.below(2) == 0 {
            return self.create_consumer();
        }
        let Some(name) = self.a_viewer() else {
            return Ok(());
        };
        self.say(|| format!("{name} goes"));
        self.collect()?;
        self.viewers.remove(&name);
        let reply = self.host.request(StreamRequest::ConsumerDelete { name });
        self.blur();
        self.observe(&[])?;
        match reply {
            Some(StreamReply::Done) => Ok(()),
            reply => Err(format!("a consumer that goes is answered by {reply:?}")),
        }
    }

    /// A consumer is paused, moved, released, or configured otherwise.
    fn change_a_consumer(&mut self) -> Checked {
        let Some(name) = self.a_viewer() else {
            return Ok(());
        };
        let now = self.host.now;
        match self.dice.below(4) {
            0 => {
                let until_ns = now + self.dice.below(12) as i64 * SECOND;
                self.pause(&name, until_ns)
            }
            1 if self.config().retention == Retention::Limits => {
                let sequence = self.dice.below(self.model.last + 2);
                self.say(|| format!("{name} is moved to {sequence}"));
                let request = StreamRequest::ConsumerReset {
                    name: name.clone(),
                    sequence,
                };
                // What comes at once is what is delivered after it.
                self.collect()?;
                let Some(mut before) = self.viewers.remove(&name) else {
                    return Ok(());
                };
                let reply = self.host.request(request);
                match reply {
                    Some(StreamReply::Refused(_)) => self.say(|| format!("  {reply:?}")),
                    _ => before.moved(),
                }
                self.viewers.insert(name, before);
                self.observe(&[])
            }
            2 => {
                let request = StreamRequest::ConsumerUnpin {
                    name: name.clone(),
                    group: draw::GROUP.to_owned(),
                };
                self.say(|| format!("{name} is released"));
                if let Some(viewer) = self.viewers.get_mut(&name) {
                    viewer.pin_may_change = true;
                }
                self.host.request(request);
                self.observe(&[])
            }
            _ => self.configure(&name),
        }
    }

    pub(super) fn pause(&mut self, name: &str, until_ns: i64) -> Checked {
        self.say(|| format!("{name} is paused until {until_ns}"));
        let request = StreamRequest::ConsumerPause {
            name: name.to_owned(),
            until_ns: Some(until_ns),
        };
        self.collect()?;
        let reply = self.host.request(request);
        if let Some(viewer) = self.viewers.get_mut(name) {
            viewer.paused_until_ns = until_ns;
        }
        match reply {
            Some(StreamReply::Paused { .. }) => self.observe(&[]),
            reply => Err(format!("a pause is answered by {reply:?}")),
        }
    }

    fn configure(&mut self, name: &str) -> Checked {
        let Some(viewer) = self.viewers.get(name) else {
            return Ok(());
        };
        let old = viewer.config.clone();
        let mut config = old.clone();
        if config.max_ack_pending > 0 {
            config.max_ack_pending = 1 + self.dice.below(8) as i64;
        }
        config.headers_only = self.dice.below(2) == 0;
        self.say(|| format!("{name} becomes {config:?}"));
        self.collect()?;
        let reply = self.try_consumer(config.clone(), ConsumerAction::Update);
        match reply {
            Some(StreamReply::ConsumerCreated { .. }) => {
                if let Some(viewer) = self.viewers.get_mut(name) {
                    viewer.becomes(config);
                    // It says nothing of a pause.
                    viewer.paused_until_ns = 0;
                }
                self.observe(&[])
            }
            Some(StreamReply::Refused(_)) => self.observe(&[]),
            reply => Err(format!("another configuration is answered by {reply:?}")),
        }
    }

    fn update_stream(&mut self) -> Checked {
        let old = self.config().clone();
        let drawn = draw::a_stream(&mut self.dice);
        let new = StreamConfig {
            max_msgs: drawn.max_msgs,
            max_bytes: drawn.max_bytes,
            max_msgs_per_subject: drawn.max_msgs_per_subject,
            max_age: drawn.max_age,
            discard: drawn.discard,
            discard_new_per_subject: drawn.discard_new_per_subject,
            // What left a window is forgotten, also when that grows again.
            duplicate_window: match drawn.duplicate_window {
                0 => old.duplicate_window,
                window => window.min(old.duplicate_window),
            },
            ..old.clone()
        };
        let Some(new) = draw::updated(&old, new) else {
            return Ok(());
        };
        self.say(|| format!("the stream becomes {new:?}"));
        self.collect()?;
        let reply = self
            .host
            .request(StreamRequest::Update(Box::new(new.clone())));
        if !matches!(reply, Some(StreamReply::Info { .. })) {
            return Err(format!("an update is answered by {reply:?}"));
        }
        self.model.config = new;
        self.model.apply_limits();
        self.blur();
        let (before, now) = (self.model.live.len(), self.host.now);
        self.model.pass(now);
        if self.model.live.len() != before {
            // What is too old now goes when that is looked at the next time.
            self.observe(&[])?;
            return self.pass(2 * SECOND);
        }
        self.observe(&[])
    }

    // ---- looking

    fn look_at_consumers(&mut self) -> Checked {
        // What is decided and rides the next commit is applied after a while.
        self.pass(SECOND / 5)?;
        self.model.look(self.host.core.store());
        for name in self.viewers.keys().cloned().collect::<Vec<_>>() {
            let info = self.info(&name)?;
            let Some(viewer) = self.viewers.get_mut(&name) else {
                continue;
            };
            viewer
                .check_info(&info, &self.model)
                .map_err(|found| format!("{name}: {found}: {info:?}"))?;
        }
        self.get()
    }

    pub(super) fn info(&mut self, name: &str) -> Result<ConsumerInfo, String> {
        let request = StreamRequest::ConsumerInfo {
            name: name.to_owned(),
        };
        match self.host.request(request) {
            Some(StreamReply::Consumer(info)) => Ok(*info),
            reply => Err(format!("{name} is shown as {reply:?}")),
        }
    }

    /// Reads a message in one way or another.
    fn get(&mut self) -> Checked {
        if !self.model.unsure.is_empty() {
            return Ok(());
        }
        let subject = SUBJECTS[self.dice.below(4) as usize];
        let from = 1 + self.dice.below(self.model.last + 1);
        let filter = Filter::new([subject.as_bytes()]);
        let live = &self.model.live;
        let on = |message: &&Message| filter.matches(&message.subject);
        let (query, wanted) = match self.dice.below(3) {
            0 => (MessageQuery::Sequence(from), live.get(&from)),
            1 => (
                MessageQuery::LastBySubject(subject.to_owned()),
                live.values().rfind(on),
            ),
            _ => (
                MessageQuery::NextBySubject {
                    sequence: from,
                    subject: subject.to_owned(),
                },
                live.range(from..).map(|one| one.1).find(on),
            ),
        };
        let wanted = wanted.cloned();
        let counted = live.range(from..).map(|one| one.1).filter(on).count();
        let store = self.host.core.store();
        let count = store.count(from, &filter, Counting::Every);
        if count != counted as u64 {
            return Err(format!(
                "{count} on {subject} from {from}, and not {counted}"
            ));
        }
        let reply = self.host.request(StreamRequest::Get(query.clone()));
        match (&reply, &wanted) {
            (Some(StreamReply::Message(found)), Some(wanted)) if found == wanted => Ok(()),
            (Some(StreamReply::Refused(_)), None) => Ok(()),
            _ => Err(format!(
                "{query:?} must give {wanted:?}, and gives {reply:?}"
            )),
        }
    }

    // ---- the end

    /// Whatever is not settled is delivered in the end.
    fn drain(&mut self) -> Checked {
        self.say(|| "the end begins".to_owned());
        let names: Vec<String> = self.viewers.keys().cloned().collect();
        for name in &names {
            let now = self.host.now;
            self.pause(name, now)?;
            self.set_interest(name, true)?;
            // Who waits for an overflow that does not come any more goes home, and makes room for others to wait.
            if let Some(viewer) = self.viewers.get(name) {
                self.host
                    .world
                    .deaf
                    .borrow_mut()
                    .extend(viewer.conditional());
            }
        }
        let mut last = String::new();
        for _ in 0..200 {
            for name in &names {
                let viewer = self.viewers.get(name);
                let policy = viewer.map(|viewer| viewer.config.priority_policy);
                let pin = viewer.and_then(|viewer| viewer.pin.clone());
                // One that does not wait is refused because of others that wait for more to overflow.
                let no_wait = policy != Some(PriorityPolicy::Overflow);
                for pin in [pin, None] {
                    let ask = Ask {
                        batch: 5,
                        no_wait,
                        expires_ns: if no_wait { 0 } else { SECOND / 2 },
                        pin,
                        ..Ask::default()
                    };
                    self.ask(name, &ask)?;
                }
                // Each answer may let more come, and ask again.
                for _ in 0..10 {
                    self.answer_flow_control_of(name)?;
                }
                for _ in 0..10 {
                    self.acknowledge(name, 0, "+ACK")?;
                }
            }
            self.check()?;
            match self.what_is_left(&names)? {
                Some(left) => last = left,
                None => return Ok(()),
            }
            // Clients that are asked how far they have come say so at once. What a schedule brings would keep ahead of those that wait.
            for _ in 0..6 {
                self.pass(SECOND)?;
                for name in &names {
                    self.answer_flow_control_of(name)?;
                }
            }
        }
        Err(format!("it does not come to its end: {last}"))
    }

    fn what_is_left(&mut self, names: &[String]) -> Result<Option<String>, String> {
        for name in names {
            let info = self.info(name)?;
            let slow = self.viewers.get(name).is_some_and(Viewer::is_slow);
            let max = info.config.max_deliver;
            // What was delivered as often as it may waits for ever.
            let mut waits = info.num_ack_pending > 0 && max < 0;
            // A schedule goes on for ever; what it brought last is acknowledged with what it brings next.
            let by_flow = info.config.ack_policy == AckPolicy::FlowControl;
            waits &= !(by_flow && info.ack_floor.consumer_seq + 1 == info.delivered.consumer_seq);
            if info.num_pending > 0 && !slow && !(max > 0 && info.num_ack_pending > 0) || waits {
                return Ok(Some(format!("{name}: {info:?}")));
            }
        }
        Ok(None)
    }
}

/// The headers and the reply subject of a part of a batch.
fn batch_part(name: &str, at: u64, length: u64, atomic: bool) -> (String, String) {
    if !atomic {
        let operation = match at {
            at if at == length => 2,
            1 => 0,
            _ => 1,
        };
        let reply = format!("fast.{name}.3.fail.{at}.{operation}.$FI");
        return (String::new(), reply);
    }
    let mut block = format!("NATS/1.0\r\nNats-Batch-Id: {name}\r\nNats-Batch-Sequence: {at}\r\n");
    if at == length {
        block.push_str("Nats-Batch-Commit: 1\r\n");
    }
    block.push_str("\r\n");
    (block, format!("batch.{name}.{at}"))
}

/// What an ack says; a message that is stored is the next one.
fn read_ack(ack: &str, next: u64) -> Result<Fate, String> {
    if ack.contains("\"error\"") {
        return Ok(Fate::Refused);
    }
    let sequence = ack
        .split_once("\"seq\":")
        .and_then(|(_, rest)| rest.split([',', '}']).next())
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| format!("an ack reads {ack}"))?;
    match ack.contains("\"duplicate\": true") {
        true => Ok(Fate::Duplicate(sequence)),
        false if sequence == next => Ok(Fate::Stored),
        false => Err(format!("{next} is the next, and the ack says {ack}")),
    }
}
