//! A stream on its shard: the core, and everything between it and the server.

use std::any::Any;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use storage::store::FileStore;

use super::copying::{self, Copying};
use super::inbox::Answer;
use super::port::Port;
use super::replica::Replica;
use crate::broker::message_trace::disabled;
use crate::broker::{
    Account, Broker, Inbound, InterestWatch, InternalSubscription, InternalTarget, Outgoing,
    PublishCache,
};
use crate::jetstream::advisory::consumer as advisory;
use crate::jetstream::core::{
    self, Advisory, ConsumerChange, Effects, Event, Retirement, Step, StreamCore, StreamReply,
    StreamRequest, World,
};
use crate::jetstream::intake::{self, Intake, Purpose};
use crate::jetstream::log::{Checkpoint, Entry, Log, LogError, Pressure};
use crate::jetstream::types::{ApiError, ErrorCode, Time};
use crate::jetstream::usage::Meter;

/// An open block with less than this is quick to read again, and better continued.
const ENDED_BYTES_MIN: u64 = 4 << 20;

/// While a stream has more bytes than this that are in the log and not yet in its files, its publishers wait. One piece is being written then, and two are ready.
const BACKLOG_BYTES_MAX: usize = 24 << 20;

/// Why a stream takes nothing any more.
#[derive(Debug, Clone)]
pub(crate) struct Offline(pub(crate) String);

/// A stream on its shard.
pub(crate) struct Slot {
    pub(super) core: StreamCore,
    pub(super) account: Arc<Account>,
    log: Arc<dyn Log>,
    /// Present for one of several replicas.
    pub(super) replica: Option<Box<Replica>>,
    /// Its number in storage.
    pub(super) storage: u64,
    /// Whose its entries in the journal are; 0 when it has none there. A replica in memory has some, those of its group.
    pub(super) owner: u64,
    /// The last entry of the newest cut that was begun.
    cut_index: Option<u64>,
    /// The journal has named it as one that holds it back.
    holds_journal: bool,
    pub(super) port: Port,
    pub(super) meter: Meter,
    requests: HashMap<u64, Answer>,
    token: u64,
    /// Interest in the deliver subjects of push consumers.
    pub(super) watches: HashMap<u64, InterestWatch>,
    /// Where pull requests are heard, by consumer.
    pub(super) pulls: HashMap<u64, InternalSubscription>,
    /// Present while the stream copies from others.
    pub(super) copying: Option<Box<Copying>>,
    pub(super) effects: Effects,
    pub(super) outgoing: Vec<Outgoing>,
    pub(super) offline: Option<Offline>,
    /// For when the stream is on the shard's list of deadlines.
    pub(super) scheduled_ns: Option<i64>,
    /// Whether its consumers have more to deliver at once.
    pub(super) is_busy: bool,
    random: u64,
}

/// A stream that has left its shard: whoever has it may let it live on in another form.
pub(crate) struct Surrendered {
    /// The stream, with its store, after the last entry that was decided.
    pub core: StreamCore,
    /// Whose stream it is.
    pub account: Arc<Account>,
    /// Its number in storage.
    pub storage: u64,
    /// Counts what it holds.
    pub meter: Meter,
}

/// The world as a stream sees it.
struct AccountWorld<'a> {
    account: &'a Account,
    random: std::cell::Cell<u64>,
}

impl World for AccountWorld<'_> {
    fn interested(&self, subject: &[u8]) -> bool {
        std::str::from_utf8(subject).is_ok_and(|subject| self.account.has_interest(subject))
    }

    fn is_heard(&self, subject: &[u8], group: &[u8]) -> bool {
        let group = (!group.is_empty()).then_some(group);
        self.account.is_subscribed(subject, group)
    }

    fn random(&self) -> u64 {
        // The operating system gave the start; what follows only has to differ.
        let next = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Slot {
    pub(super) fn new(
        mut core: StreamCore,
        account: Arc<Account>,
        log: Arc<dyn Log>,
        storage: u64,
        port: Port,
        meter: Meter,
    ) -> Self {
        core.set_has_replicas(false);
        core.keep_to(meter.terms(), account.name());
        Self {
            core,
            account,
            log,
            replica: None,
            storage,
            owner: storage,
            cut_index: None,
            holds_journal: false,
            port,
            meter,
            requests: HashMap::new(),
            token: 0,
            watches: HashMap::new(),
            pulls: HashMap::new(),
            copying: None,
            effects: Effects::default(),
            outgoing: Vec::new(),
            offline: None,
            scheduled_ns: None,
            is_busy: false,
            random: RandomState::new().hash_one(storage),
        }
    }

    pub(super) fn step<R>(
        &mut self,
        now_ns: i64,
        act: impl FnOnce(&mut StreamCore, &mut Step<'_>) -> R,
    ) -> R {
        let world = AccountWorld {
            account: &self.account,
            random: std::cell::Cell::new(self.random),
        };
        let mut step = Step {
            now_ns,
            world: &world,
            effects: &mut self.effects,
        };
        let result = act(&mut self.core, &mut step);
        self.random = world.random.get();
        result
    }

    /// A number that nobody can guess.
    pub(super) fn next_random(&mut self) -> u64 {
        let world = AccountWorld {
            account: &self.account,
            random: std::cell::Cell::new(self.random),
        };
        let random = world.random();
        self.random = world.random.get();
        random
    }

    /// Starts to lead.
    pub(super) fn lead(&mut self, now_ns: i64) {
        self.step(now_ns, |core, step| core.lead(1, step));
        self.is_busy = true;
    }

    /// Takes messages from the broker in.
    pub(super) fn take(&mut self, batch: Vec<Inbound>, takes_new: bool, now_ns: i64) {
        let refusal = match &self.offline {
            Some(Offline(reason)) => Some(ErrorCode::StreamStoreFailed.with(reason)),
            None if !takes_new => Some(ErrorCode::InsufficientResources.into()),
            None => self.meter.refusal().map(ApiError::from),
        };
        // Who follows hears no publishes but those that were on their way when it stopped to lead.
        let hears = self.replica.is_none() || self.core.is_leading();
        for inbound in batch {
            if copying::is_for_origin(inbound.tag) {
                // Without room it is as good as lost on the way: it will be missed, and asked for again.
                if refusal.is_none() {
                    self.take_from_origin(inbound, now_ns);
                }
                continue;
            }
            let is_publish = inbound.tag == Purpose::Publish as u64;
            let refusal = match (&refusal, is_publish && hears) {
                (_, false) => None,
                (None, true) => self.refusal_by_account(&inbound),
                (refusal, true) => refusal.clone(),
            };
            if let Some(refusal) = &refusal {
                let Inbound { trace, .. } = &inbound;
                if let Some(trace) = trace {
                    let why = Some(refusal.to_string());
                    trace.judged(self.core.name(), &inbound.subject, false, why);
                }
                if !trace.as_ref().is_some_and(|trace| trace.is_only()) {
                    self.core.reject(inbound.reply, refusal, &mut self.effects);
                }
                continue;
            }
            if inbound.trace.is_some() {
                self.take_traced(inbound, now_ns);
                continue;
            }
            match intake::read(inbound) {
                Intake::Event(event) => self.decide(event, now_ns),
                Intake::Refusal(outgoing) => self.outgoing.push(outgoing),
                Intake::Nothing => {}
            }
        }
    }

    /// Takes a message in that is traced: its report says what becomes of it, and perhaps that is all.
    #[cold]
    fn take_traced(&mut self, mut inbound: Inbound, now_ns: i64) {
        let Some(trace) = inbound.trace.take() else {
            return;
        };
        let Intake::Event(Event::Publish(mut publish)) = intake::read(inbound) else {
            return;
        };
        let trial = self.step(now_ns, |core, step| core.trial(&publish, step));
        let name = self.core.name();
        trace.judged(name, &trial.subject, trial.is_unwanted, trial.refusal);
        if !trace.is_only() {
            // Nobody shall trace it again when it is delivered.
            publish.headers = disabled(&publish.headers).into();
            self.decide(Event::Publish(publish), now_ns);
        }
    }

    pub(super) fn decide(&mut self, event: Event, now_ns: i64) {
        self.step(now_ns, |core, step| core.handle(event, step));
    }

    /// Tells publishers that too much waits for this stream.
    pub(super) fn overrun(&mut self, replies: Vec<Bytes>) {
        if self.replica.is_some() && !self.core.is_leading() {
            return;
        }
        let error: ApiError = ErrorCode::StreamTooManyRequests.into();
        for reply in replies {
            self.core.reject(reply, &error, &mut self.effects);
            if let Some(refusal) = self.effects.outgoing.last_mut() {
                refusal.headers = Bytes::from_static(b"NATS/1.0 429 Too Many Requests\r\n\r\n");
            }
        }
    }

    pub(super) fn request(&mut self, request: StreamRequest, answer: Answer, now_ns: i64) {
        if let Some(Offline(reason)) = &self.offline {
            answer(StreamReply::Refused(
                ErrorCode::StreamStoreFailed.with(reason),
            ));
            return;
        }
        if self.is_receiving() {
            answer(StreamReply::Refused(ErrorCode::ClusterNotAvail.into()));
            return;
        }
        self.token += 1;
        let token = self.token;
        self.requests.insert(token, answer);
        self.decide(Event::Request { token, request }, now_ns);
    }

    pub(super) fn interest(&mut self, consumer: u64, active: bool, now_ns: i64) {
        self.decide(Event::Interest { consumer, active }, now_ns);
    }

    /// An entry is durable.
    pub(super) fn committed(&mut self, index: u64, now_ns: i64) {
        if self.offline.is_some() {
            return;
        }
        if let Err(error) = self.step(now_ns, |core, step| core.committed(index, step)) {
            self.fail(&error.to_string());
        }
    }

    /// Whether so much is in the log and not yet in its files that who publishes should wait.
    pub(super) fn is_behind(&mut self) -> bool {
        self.core.store_mut().backlog_bytes() > BACKLOG_BYTES_MAX
    }

    /// Takes nothing any more, and says why.
    pub(super) fn fail(&mut self, reason: &str) {
        if self.offline.is_some() {
            return;
        }
        self.port.faults.note(
            self.port.slot,
            format!(
                "JetStream stream '{} > {}' write error: {reason}",
                self.account.name(),
                self.core.name()
            ),
        );
        self.go_offline(reason, ErrorCode::StreamStoreFailed);
    }

    /// The same where nothing is wrong with what is here, but for this version.
    pub(super) fn stop_unsupported(&mut self) {
        if self.offline.is_none()
            && let Some(unsupported) = self.core.unsupported()
        {
            let reason = unsupported.reason.clone();
            self.go_offline(&reason, ErrorCode::StreamOfflineReason);
        }
    }

    fn go_offline(&mut self, reason: &str, refusal: ErrorCode) {
        tracing::error!(
            "JetStream stream '{} > {}' is offline: {reason}",
            self.account.name(),
            self.core.name()
        );
        self.offline = Some(Offline(reason.to_owned()));
        let refusal = StreamReply::Refused(refusal.with(reason));
        for (_, answer) in self.requests.drain() {
            answer(refusal.clone());
        }
        self.core.retire(Retirement::Shutdown, &mut self.effects);
        // What it listens to would be delivered for as long as it listens.
        self.copying = None;
        self.replica_failed(reason);
    }

    /// Lets deadlines and consumers run, and hands what was decided to the log.
    pub(super) fn run(&mut self, slot: u64, now_ns: i64) -> Vec<Entry> {
        if self.offline.is_some() {
            self.is_busy = false;
            return Vec::new();
        }
        if self
            .core
            .next_deadline_ns()
            .is_some_and(|at_ns| at_ns <= now_ns)
        {
            self.step(now_ns, |core, step| core.tick(step));
        }
        self.copying_changed(now_ns);
        self.see_to_copying(now_ns);
        self.is_busy = self.step(now_ns, |core, step| core.run(step));
        if self.look_for_damage() {
            self.is_busy = false;
            return Vec::new();
        }
        self.propose_again_when_due(now_ns);
        let entries = self.core.take_entries(now_ns);
        self.entries(slot, entries)
    }

    /// The last entries before a clean stop.
    pub(super) fn last_entries(&mut self, slot: u64, now_ns: i64) -> Vec<Entry> {
        if self.offline.is_some() || self.replica.is_some() {
            return Vec::new();
        }
        let entries = self.step(now_ns, |core, step| core.take_last_entries(step));
        self.entries(slot, entries)
    }

    fn entries(&self, slot: u64, entries: Vec<(u64, Bytes)>) -> Vec<Entry> {
        let stream = self.storage;
        let entry = |(index, payload)| Entry {
            stream,
            index,
            payload,
            token: slot,
        };
        entries.into_iter().map(entry).collect()
    }

    pub(super) fn log(&self) -> &Arc<dyn Log> {
        &self.log
    }

    /// Begins a checkpoint.
    pub(super) fn checkpoint(&mut self) -> Result<Checkpoint, LogError> {
        let index = self.core.applied_index();
        let begun = match self.replica.is_some() {
            true => self.checkpoint_replica(),
            false => self.checkpoint_plain(),
        };
        if matches!(begun, Ok(Checkpoint::Begun | Checkpoint::Pointless)) {
            self.cut_index = Some(index);
        }
        begun
    }

    fn checkpoint_plain(&mut self) -> Result<Checkpoint, LogError> {
        let core = self.core.snapshot();
        let index = self.core.applied_index();
        let store: &mut dyn Any = self.core.store_mut();
        self.log.checkpoint(self.storage, store, index, core)
    }

    /// Makes the next start quick, ahead of the last cut.
    pub(super) fn end_files(&mut self) {
        let store: &mut dyn Any = self.core.store_mut();
        if let Some(store) = store.downcast_mut::<FileStore>() {
            store.end_open_block(ENDED_BYTES_MIN);
        }
    }

    /// Whether a cut would cover entries that the one before does not. The journal gets nothing from another one, which is itself written there.
    pub(super) fn has_entries_to_cover(&self) -> bool {
        self.cut_index != Some(self.core.applied_index())
    }

    /// The journal cannot free what is oldest because of this stream.
    pub(super) fn holds_journal(&mut self) {
        self.holds_journal = true;
    }

    /// Whether a cut is due because the journal is full and the stream, which was named, has applied more of what it has there.
    /// The journal names it again only when something changes, and with all publishes held back nothing may.
    pub(super) fn relieves_journal(&mut self) -> bool {
        if !self.holds_journal {
            return false;
        }
        match self.log.pressure() {
            Pressure::None => {
                self.holds_journal = false;
                false
            }
            Pressure::Checkpoints => self.has_entries_to_cover(),
            Pressure::Wait => false,
        }
    }

    /// Ends the stream on this server.
    pub(super) fn retire(&mut self, reason: Retirement) {
        if matches!(reason, Retirement::Removed) {
            self.leave_origins();
        }
        self.core.retire(reason, &mut self.effects);
        self.watches.clear();
        self.pulls.clear();
        self.copying = None;
        self.stop_listening();
    }

    /// Hands the stream back. It listens to nobody any more, and those who wait were told so.
    pub(super) fn surrender(self) -> Surrendered {
        Surrendered {
            core: self.core,
            account: self.account,
            storage: self.storage,
            meter: self.meter,
        }
    }

    /// When there is something to do although nothing comes.
    pub(super) fn next_deadline_ns(&self) -> Option<i64> {
        let again_ns = self.replica.as_ref().and_then(|replica| replica.again_ns);
        let core_ns = self.core.next_deadline_ns();
        let copying_ns = self.next_copying_ns();
        [again_ns, core_ns, copying_ns].into_iter().flatten().min()
    }

    /// Whether everything decided is durable. What a replica has decided is in the hands of its group.
    pub(super) fn is_settled(&self) -> bool {
        self.replica.is_some() || self.core.is_settled()
    }

    /// Carries out what the core wants done in the world.
    pub(super) fn carry_out(&mut self, broker: &Broker, cache: &mut PublishCache, now_ns: i64) {
        let replicas = self.core.config().replicas();
        self.meter.note(self.core.store().state().bytes, replicas);
        self.look_for_damage();
        self.replica_changed();
        for change in std::mem::take(&mut self.effects.consumers) {
            self.consumer_changed(change);
        }
        let sent = self.effects.outgoing.drain(..).map(into_outgoing);
        self.outgoing.extend(sent);
        for advisory in std::mem::take(&mut self.effects.advisories) {
            self.advise(&advisory, now_ns);
        }
        if !self.outgoing.is_empty() {
            broker.publish(&self.account, &self.outgoing, cache);
            self.outgoing.clear();
        }
        for (token, mut reply) in std::mem::take(&mut self.effects.replies) {
            self.tell_of_copying(&mut reply, now_ns);
            if let Some(answer) = self.requests.remove(&token) {
                answer(reply);
            }
        }
    }

    fn advise(&mut self, advisory: &Advisory, now_ns: i64) {
        if let Advisory::Damaged {
            consumer,
            stream_sequence,
            reason,
        } = advisory
        {
            tracing::error!(
                "JetStream consumer '{} > {} > {consumer}' passes over message {stream_sequence}: {reason}",
                self.account.name(),
                self.core.name()
            );
        }
        let subject = advisory::subject(advisory, self.core.name());
        if !self.account.has_interest(&subject) {
            return;
        }
        let now = Time::from_nanoseconds(now_ns);
        let payload = advisory::payload(
            advisory,
            self.account.name(),
            self.core.name(),
            self.core.domain(),
            now,
        );
        self.outgoing.push(Outgoing {
            subject: Bytes::from(subject),
            payload: Bytes::from(payload),
            ..Outgoing::default()
        });
    }

    /// Listens for a consumer, or no longer.
    fn consumer_changed(&mut self, change: ConsumerChange) {
        match change {
            ConsumerChange::Absent { id, .. } => {
                self.watches.remove(&id);
                self.pulls.remove(&id);
            }
            ConsumerChange::Present {
                id,
                name,
                deliver_subject,
                deliver_group,
            } => {
                if !self.pulls.contains_key(&id) {
                    let subject = intake::pull_subject(self.core.name(), &name);
                    let target: Arc<dyn InternalTarget> = Arc::new(self.port.clone());
                    let subscribed =
                        self.account
                            .subscribe(&subject, None, target, Purpose::Pull as u64);
                    self.pulls.extend(subscribed.ok().map(|one| (id, one)));
                }
                self.watches.remove(&id);
                if deliver_subject.is_empty() {
                    return;
                }
                let subject = String::from_utf8_lossy(&deliver_subject);
                let group = String::from_utf8_lossy(&deliver_group);
                let group = (!group.is_empty()).then_some(&*group);
                let watch =
                    self.account
                        .watch_interest(&subject, group, Arc::new(self.port.clone()), id);
                // The core looked before the watch began; what changed in between it hears from here.
                self.port.inbox.push(super::inbox::Item::Interest {
                    slot: self.port.slot,
                    consumer: id,
                    active: watch.interested_at_start(),
                });
                self.watches.insert(id, watch);
            }
        }
    }
}

fn into_outgoing(outgoing: core::Outgoing) -> Outgoing {
    let core::Outgoing {
        to,
        subject,
        reply,
        headers,
        payload,
    } = outgoing;
    Outgoing {
        subject,
        to,
        reply,
        headers,
        payload,
    }
}
