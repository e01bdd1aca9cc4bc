//! What a producer owns to get its messages to their receivers: matches it has found lately, and what
//! each receiver of the current batch is to get.
//!
//! # Invariant
//! Everything staged reaches its target in the order it was published, and nothing stays staged after
//! [`Delivery::hand_over`].

mod cache;
mod crossing;
mod internal_batch;
mod routed;
mod staging;

use std::sync::Arc;

use bytes::Bytes;

use super::SYSTEM_ACCOUNT;
use super::account::Account;
use super::client::{Client, ClientInfo};
use super::internal::{Offer, Outgoing, TracedAs};
use super::message_trace::{MessageTrace, passed};
use super::outbox::chunk::COPIED_BYTES_MAX;
use super::sharing::Shadow;
use super::subscription::{Admission, Subscription, Target};
use super::traffic::Traffic;
use cache::{Found, MatchCache};
use crossing::Way;
use internal_batch::InternalBatches;
use staging::ClientStages;

/// More staged bytes than this are handed over before the batch ends, and even in the middle of one
/// message's receivers, so that a large fan-out does not hold its product in memory.
const STAGED_BYTES_MAX: usize = 1 << 20;

/// A message to publish, borrowed from wherever it stands.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The literal subject.
    pub subject: &'a [u8],
    /// The reply subject, empty when there is none.
    pub reply: &'a [u8],
    /// The raw header block, empty when there is none.
    pub headers: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
    /// Who holds the bytes, so that large payloads need not be copied.
    pub owner: Owner<'a>,
    /// Present when what happens to the message is noted.
    pub trace: Option<&'a Arc<MessageTrace>>,
}

/// Who holds the bytes of a message.
#[derive(Debug, Clone, Copy)]
pub enum Owner<'a> {
    /// A buffer that will be used again: everything must be copied.
    Buffer,
    /// This frame: reply, headers, payload and a final CRLF lie in it, from the headers on in one piece; the subject may have been
    /// mapped to another.
    Frame(&'a Bytes),
    /// This message.
    Outgoing(&'a Outgoing),
}

impl<'a> Message<'a> {
    /// The message that a part of the server publishes.
    pub fn from_outgoing(outgoing: &'a Outgoing) -> Self {
        Self {
            subject: &outgoing.subject,
            reply: &outgoing.reply,
            headers: &outgoing.headers,
            payload: &outgoing.payload,
            owner: Owner::Outgoing(outgoing),
            trace: None,
        }
    }

    /// Whether the payload is shared among receivers instead of copied.
    fn is_shared(&self) -> bool {
        self.headers.len() + self.payload.len() > COPIED_BYTES_MAX
            && !matches!(self.owner, Owner::Buffer)
    }
}

/// The client that publishes.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// Its connection.
    pub client: &'a Arc<Client>,
    /// Who it is.
    pub info: &'a Arc<ClientInfo>,
    /// Whether its own subscriptions get its messages too.
    pub echo: bool,
    /// Whether receivers close to their limit are passed over instead of slowing this client down.
    pub passes_over_pressed: bool,
}

/// What a producer should do after it handed its batch over.
#[derive(Debug, Clone, Default)]
pub enum Flow {
    /// Go on.
    #[default]
    Continue,
    /// Wait a little: this receiver is close to its limit.
    Stall(Arc<Client>),
}

/// The delivery of one producer.
#[derive(Debug)]
pub struct Delivery {
    cache: MatchCache,
    clients: ClientStages,
    internals: InternalBatches,
    random: u64,
    /// What an early hand-over within the batch asked for.
    flow: Flow,
    /// The current message's queue groups that go to other servers: which connection, which group.
    picked: Vec<(usize, usize)>,
    /// The current message's queue groups that nobody here took.
    untaken: Vec<usize>,
    /// The current message's subject as an account calls it that imports it.
    renamed: Vec<u8>,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            cache: MatchCache::default(),
            clients: ClientStages::default(),
            internals: InternalBatches::default(),
            random: seed(),
            flow: Flow::Continue,
            picked: Vec::new(),
            untaken: Vec::new(),
            renamed: Vec::new(),
        }
    }
}

/// A random number other than 0; the hasher's keys come from the operating system.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u8) | 1
}

impl Delivery {
    /// Stages a message for everybody who listens, and says to how many it goes.
    pub fn publish(
        &mut self,
        account: &Arc<Account>,
        message: &Message<'_>,
        origin: Option<&Origin<'_>>,
        traffic: &Traffic,
    ) -> u32 {
        self.publish_to(account, message.subject, message, origin, traffic)
    }

    /// As [`Delivery::publish`], for those who listen on `to` whatever the message's own subject is.
    pub fn publish_to(
        &mut self,
        account: &Arc<Account>,
        to: &[u8],
        message: &Message<'_>,
        origin: Option<&Origin<'_>>,
        traffic: &Traffic,
    ) -> u32 {
        let way = Way {
            traffic,
            origin,
            before: None,
        };
        self.publish_by(account, to, message, &way)
    }

    /// As [`Delivery::publish_to`], for a message that may have come from another account.
    fn publish_by(
        &mut self,
        account: &Arc<Account>,
        to: &[u8],
        message: &Message<'_>,
        way: &Way<'_>,
    ) -> u32 {
        let Self {
            cache,
            clients,
            internals,
            random,
            flow,
            picked,
            untaken,
            renamed,
        } = self;
        let Found {
            matches,
            routes,
            exits,
        } = cache.find(account, to);
        let mut stage = Stage {
            clients,
            internals,
            renamed,
            account,
            to,
            message,
            origin: way.origin,
            is_asked: way.before.is_some(),
        };
        let mut delivered = 0;
        for subscription in &matches.plain {
            delivered += u32::from(stage.deliver(subscription));
            if stage.clients.bytes() > STAGED_BYTES_MAX
                && let stall @ Flow::Stall(_) = stage.clients.hand_over(way.traffic)
            {
                *flow = stall;
            }
        }
        untaken.clear();
        for (at, group) in matches.queues.iter().enumerate() {
            let members = &group.members;
            let start = next_below(random, members.len());
            let (later, first) = members.split_at(start);
            // Who is picked may refuse (it just ended, or hears no echo): then the next one gets it.
            let taken = first
                .iter()
                .chain(later)
                .any(|member| stage.deliver(member));
            delivered += u32::from(taken);
            if !taken {
                untaken.push(at);
            }
        }
        if !routes.is_empty() {
            picked.clear();
            for (at, group) in routes.groups.iter().enumerate() {
                // Members here come first.
                if group.local.is_none_or(|local| untaken.contains(&local)) {
                    picked.push((group.pick(next(random)), at));
                }
            }
            delivered += routed::stage(clients, account, to, message, routes, picked);
        }
        if exits.is_empty() {
            return delivered;
        }
        let exits = exits.to_vec();
        delivered + self.cross(account, &exits, to, message, way)
    }

    /// A plain subscription of this client that would receive what is published to the subject.
    pub fn subscription_of(
        &mut self,
        account: &Arc<Account>,
        subject: &[u8],
        of: &Client,
    ) -> Option<Bytes> {
        self.cache
            .find(account, subject)
            .matches
            .plain
            .iter()
            .find_map(|subscription| match &subscription.target {
                Target::Client { client, sid } if client.id == of.id => Some(sid.clone()),
                _ => None,
            })
    }

    /// Stages bytes of the protocol itself for one client, in order with its messages.
    pub fn write_to(
        &mut self,
        client: &Arc<Client>,
        bytes_max: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        self.clients.of(client).write(bytes_max, write);
    }

    /// A random number.
    pub fn random(&mut self) -> u32 {
        next(&mut self.random) as u32
    }

    /// Whether so much is staged that it should be handed over before the batch ends.
    pub fn is_full(&self) -> bool {
        self.clients.bytes() + self.internals.bytes() > STAGED_BYTES_MAX
    }

    /// Hands everything over and flushes every receiver once.
    pub fn hand_over(&mut self, traffic: &Traffic) -> Flow {
        let _ = self.internals.hand_over(false);
        self.hand_over_to_clients(traffic)
    }

    /// The same for a producer that may do itself what follows from its batch.
    pub fn hand_over_offered(&mut self, traffic: &Traffic) -> (Flow, Option<Offer>) {
        let offer = self.internals.hand_over(true);
        (self.hand_over_to_clients(traffic), offer)
    }

    fn hand_over_to_clients(&mut self, traffic: &Traffic) -> Flow {
        let early = std::mem::take(&mut self.flow);
        match self.clients.hand_over(traffic) {
            Flow::Continue => early,
            stall => stall,
        }
    }

    /// Forgets what was found and gives memory back; for a producer that has fallen quiet.
    pub fn rest(&mut self) {
        self.cache = MatchCache::default();
        self.clients.rest();
        self.internals.rest();
        self.picked = Vec::new();
        self.untaken = Vec::new();
        self.renamed = Vec::new();
    }
}

/// One message on its way into the stages of its receivers.
struct Stage<'a, 'm> {
    clients: &'a mut ClientStages,
    internals: &'a mut InternalBatches,
    renamed: &'a mut Vec<u8>,
    account: &'a Arc<Account>,
    /// The subject that receivers were found by.
    to: &'a [u8],
    message: &'a Message<'m>,
    origin: Option<&'a Origin<'a>>,
    /// Whether another account asks: what it asks is no stream that a third one could listen to.
    is_asked: bool,
}

impl Stage<'_, '_> {
    /// Whether the subscription took the message.
    fn deliver(&mut self, subscription: &Arc<Subscription>) -> bool {
        if let Target::Shadow(shadow) = &subscription.target {
            return !self.is_asked && self.deliver_abroad(shadow);
        }
        self.give(subscription, self.account, self.message)
    }

    /// Gives the message to a subscription of an account that imports it, under that account's name for it.
    fn deliver_abroad(&mut self, shadow: &Shadow) -> bool {
        let mut renamed = std::mem::take(self.renamed);
        let is_named = shadow.rename(self.to, &mut renamed);
        let mut message = *self.message;
        // What a stream delivers keeps its own subject, wherever it is delivered to.
        if message.subject == self.to {
            message.subject = &renamed;
        }
        let mut is_taken = false;
        if let Some(trace) = message.trace.filter(|_| is_named) {
            trace.exported(shadow.importer.name(), &renamed);
            // What others do with it is told only if they allow it.
            message.trace = message.trace.filter(|_| shadow.allows_trace());
            // What is only traced would have gone there: its publisher is not told that nobody listens.
            is_taken = message.trace.is_none() && trace.is_only();
        }
        let given = match is_named && !is_taken {
            true => self.give(&shadow.of, &shadow.importer, &message),
            false => is_taken,
        };
        *self.renamed = renamed;
        given
    }

    /// Whether a subscription of this account took this message.
    fn give(
        &mut self,
        subscription: &Arc<Subscription>,
        account: &Arc<Account>,
        message: &Message<'_>,
    ) -> bool {
        if let (Some(origin), Target::Client { client, .. }) = (self.origin, &subscription.target) {
            let is_own_echo = !origin.echo && origin.client.id == client.id;
            if is_own_echo {
                return passes_over(subscription, account, message, passed::NO_ECHO);
            }
            if origin.passes_over_pressed && client.outbox().is_pressed() {
                return passes_over(subscription, account, message, passed::SLOW);
            }
        }
        if let Some(deny) = &subscription.deny
            && deny.denies(message.subject, subscription.queue.as_deref())
        {
            return passes_over(subscription, account, message, passed::DENIED);
        }
        if let Some(trace) = message.trace
            && let Some(taken) = only_noted(subscription, account, message, trace)
        {
            return taken;
        }
        let admission = subscription.admit();
        if admission == Admission::Refused {
            let why = match subscription.is_closed() {
                true => passed::ENDED,
                false => passed::EXCEEDED,
            };
            return passes_over(subscription, account, message, why);
        }
        match &subscription.target {
            Target::Client { client, sid } => {
                if let Some(trace) = message.trace {
                    let is_open = client.outbox().closed().is_none();
                    let error = (!is_open).then_some(passed::CLOSED);
                    trace.delivered(subscription, account, error);
                }
                self.clients.stage(client, sid, message);
                if !message.reply.is_empty() {
                    client.note_response(message.reply);
                }
            }
            Target::Internal { target, tag } => {
                let client = self.origin.map(|origin| origin.info);
                let mut message = *message;
                if message.trace.is_some() && !matches!(target.traced_as(*tag), TracedAs::Stream(_))
                {
                    message.trace = None;
                }
                self.internals
                    .stage(target, *tag, account, &message, client);
            }
            // Taken out of the matches before: other servers have a stage of their own, and into other accounts it goes afterwards.
            Target::Route { .. } | Target::Service(_) | Target::Replies => return false,
            // Those have been followed to the subscription that casts them.
            Target::Shadow(_) => return false,
        }
        if admission == Admission::TakenAsLast {
            account.remove(subscription);
        }
        true
    }
}

/// The subscription of this account does not get this message, for this reason.
fn passes_over(
    subscription: &Subscription,
    account: &Account,
    message: &Message<'_>,
    why: &'static str,
) -> bool {
    if let Some(trace) = message.trace {
        trace.delivered(subscription, account, Some(why));
    }
    false
}

/// Notes what a traced message does at a subscription that may have it; whether it counts as taken, when it goes no further.
fn only_noted(
    subscription: &Subscription,
    account: &Account,
    message: &Message<'_>,
    trace: &MessageTrace,
) -> Option<bool> {
    match &subscription.target {
        Target::Client { .. } if trace.is_only() => {
            let ended = subscription.is_closed();
            let error = ended.then_some(passed::ENDED);
            trace.delivered(subscription, account, error);
            Some(!ended)
        }
        Target::Internal { target, tag } => match target.traced_as(*tag) {
            TracedAs::Stream(name) => {
                trace.to_stream(name);
                None
            }
            TracedAs::Service => {
                let subject = message.subject;
                trace.imported(SYSTEM_ACCOUNT, subject, subject);
                trace.is_only().then_some(true)
            }
            TracedAs::Nothing => trace.is_only().then_some(true),
        },
        _ => None,
    }
}

/// 32 random bits, good enough to spread work.
fn next(state: &mut u64) -> u64 {
    // xorshift64*, Vigna 2016.
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32
}

/// A random number below `bound`.
fn next_below(state: &mut u64, bound: usize) -> usize {
    ((next(state) * bound as u64) >> 32) as usize
}
