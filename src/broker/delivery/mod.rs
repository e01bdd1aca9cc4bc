//! What a producer owns to get its messages to their receivers: matches it has found lately, and what
//! each receiver of the current batch is to get.
//!
//! # Invariant
//! Everything staged reaches its target in the order it was published, and nothing stays staged after
//! [`Delivery::hand_over`].

mod cache;
mod internal_batch;
mod routed;
mod staging;

use std::sync::Arc;

use bytes::Bytes;

use super::account::Account;
use super::client::{Client, ClientInfo};
use super::internal::Outgoing;
use super::outbox::chunk::COPIED_BYTES_MAX;
use super::subscription::{Admission, Subscription, Target};
use super::traffic::Traffic;
use cache::MatchCache;
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
        let Self {
            cache,
            clients,
            internals,
            random,
            flow,
            picked,
            untaken,
        } = self;
        let (matches, routes) = cache.find(account, to);
        let mut stage = Stage {
            clients,
            internals,
            account,
            message,
            origin,
        };
        let mut delivered = 0;
        for subscription in &matches.plain {
            delivered += u32::from(stage.deliver(subscription));
            if stage.clients.bytes() > STAGED_BYTES_MAX
                && let stall @ Flow::Stall(_) = stage.clients.hand_over(traffic)
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
        delivered
    }

    /// A plain subscription of this client that would receive what is published to the subject.
    pub fn subscription_of(
        &mut self,
        account: &Arc<Account>,
        subject: &[u8],
        of: &Client,
    ) -> Option<Bytes> {
        self.cache.find(account, subject).0.plain.iter().find_map(
            |subscription| match &subscription.target {
                Target::Client { client, sid } if client.id == of.id => Some(sid.clone()),
                _ => None,
            },
        )
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
        self.internals.hand_over();
        let early = std::mem::take(&mut self.flow);
        match self.clients.hand_over(traffic) {
            Flow::Continue => early,
            stall => stall,
        }
    }

    /// Forgets what was found and gives memory back; for a producer that has fallen quiet.
    pub fn rest(&mut self) {
        self.cache = MatchCache::default();
        self.internals.rest();
    }
}

/// One message on its way into the stages of its receivers.
struct Stage<'a, 'm> {
    clients: &'a mut ClientStages,
    internals: &'a mut InternalBatches,
    account: &'a Arc<Account>,
    message: &'a Message<'m>,
    origin: Option<&'a Origin<'a>>,
}

impl Stage<'_, '_> {
    /// Whether the subscription took the message.
    fn deliver(&mut self, subscription: &Arc<Subscription>) -> bool {
        if let (Some(origin), Target::Client { client, .. }) = (self.origin, &subscription.target) {
            let is_own_echo = !origin.echo && origin.client.id == client.id;
            if is_own_echo || (origin.passes_over_pressed && client.outbox().is_pressed()) {
                return false;
            }
        }
        if let Some(deny) = &subscription.deny
            && deny.denies(self.message.subject, subscription.queue.as_deref())
        {
            return false;
        }
        let admission = subscription.admit();
        if admission == Admission::Refused {
            return false;
        }
        match &subscription.target {
            Target::Client { client, sid } => {
                self.clients.stage(client, sid, self.message);
                if !self.message.reply.is_empty()
                    && let Some(responses) = &**client.responses()
                {
                    responses.note(self.message.reply);
                }
            }
            Target::Internal { target, tag } => {
                let client = self.origin.map(|origin| origin.info);
                self.internals
                    .stage(target, *tag, self.account, self.message, client);
            }
            // Taken out of the matches before: other servers have a stage of their own.
            Target::Route { .. } => return false,
        }
        if admission == Admission::TakenAsLast {
            self.account.remove(subscription);
        }
        true
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
