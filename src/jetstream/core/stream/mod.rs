//! A stream with all its consumers.
//!
//! Reading order: [`StreamCore`] holds the state; `apply` changes it by entries from the log, `consumers` is the part of that about consumers,
//! and `chain` says which entries fit; `lead` is what its leader does between the log and the world, `follow` what a replica does that may
//! lose its lead; `publish`, `requests` and `direct` decide about events, `judge` by the rules for messages and `due` about what the clock
//! brings; `snapshot` writes it down and `recover` takes it up again; `arrival` takes up one that comes from elsewhere with its messages.

mod apply;
mod arrival;
mod batch;
mod chain;
mod consumers;
mod copies;
mod counter;
mod direct;
mod due;
mod fast;
mod fast_log;
mod fast_trail;
mod follow;
mod judge;
mod lead;
mod lost;
mod outline;
mod overlay;
mod publish;
mod recover;
mod requests;
mod retention;
mod rewrites;
mod rules;
mod schedules;
mod snapshot;
mod staged;
mod start;
mod transfer;
mod trial;
mod unsupported;
mod volatile;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use storage::store::{ChangeError, Store};
use thiserror::Error;

pub use arrival::{ArrivalError, ArrivedConsumer};
pub use chain::LogPlace;
#[cfg(test)]
pub(crate) use chain::museum;
pub use follow::Retirement;
pub use outline::StreamOutline;
pub use recover::{RecoverError, Salvaged};
pub use rules::limits;
pub use snapshot::{BeginError, SNAPSHOT_VERSION};
pub use transfer::{ReceiveError, Receiving, ReceivingNeeds};
pub use unsupported::Unsupported;
pub use volatile::VolatileConsumers;

use super::ack_names::{AckForm, AckNames};
use super::batch_quota::BatchQuota;
use super::codec::DecodeError;
use super::consumer::Consumer;
use super::dedupe::Dedupe;
use super::digest::Digest;
use super::effects::{Effects, World};
use super::request::{DirectQuery, Publish, StreamRequest};
use super::schedule::Schedules;
use super::sources::SourcePositions;
use super::terms::StreamTerms;
use crate::jetstream::types::StreamConfig;
use chain::Chain;
use fast_trail::FastTrails;
use lead::Lead;
use rewrites::Rewrites;

/// Something for a stream to decide about.
#[derive(Debug, Clone)]
pub enum Event {
    /// A message to store.
    Publish(Publish),
    /// A management request; the answer carries the token.
    Request {
        /// Whose request it is.
        token: u64,
        /// What is asked.
        request: StreamRequest,
    },
    /// A pull request.
    Pull {
        /// The consumer's name.
        consumer: String,
        /// Where messages go.
        reply: Bytes,
        /// The request's body.
        body: Bytes,
    },
    /// An ack.
    Ack {
        /// The subject it was sent to.
        subject: Bytes,
        /// Where to confirm it; empty for nowhere.
        reply: Bytes,
        /// Its body.
        body: Bytes,
    },
    /// An answer to a flow control request.
    FlowControl {
        /// The subject it was sent to.
        subject: Bytes,
        /// Its header block.
        headers: Bytes,
    },
    /// A direct get.
    Direct {
        /// Where messages go.
        reply: Bytes,
        /// What is asked.
        query: DirectQuery,
    },
    /// The listeners on a push consumer's deliver subject came or went.
    Interest {
        /// The consumer's id.
        consumer: u64,
        /// Whether somebody listens.
        active: bool,
    },
    /// A mirror gets the message that its origin has under a sequence.
    Mirrored {
        /// Its sequence.
        sequence: u64,
        /// When the origin stored it, in nanoseconds since the epoch.
        time_ns: i64,
        /// The message; nobody waits for an ack.
        message: Publish,
    },
    /// A mirror's origin has nothing up to a sequence.
    Skipped {
        /// Up to which one.
        last_sequence: u64,
    },
    /// A source has a message.
    Sourced {
        /// By which attempt to follow the source it was brought.
        attempt: u64,
        /// Its sequence there.
        sequence: u64,
        /// The message, with the header that says where it came from.
        message: Publish,
    },
    /// An origin's consumer asks whether to go on.
    SourceFlow {
        /// Where to answer.
        reply: Bytes,
        /// Its last delivery.
        delivered: u64,
        /// The last message of the origin.
        sequence: u64,
    },
    /// What the clock has made due and depends on what was in flight. The core hands it to itself.
    Due,
}

/// What surrounds one step of a leader.
pub struct Step<'a> {
    /// The clock, in nanoseconds since the epoch.
    pub now_ns: i64,
    /// What can be asked of the world.
    pub world: &'a dyn World,
    /// What is to be done in it.
    pub effects: &'a mut Effects,
}

/// An entry that could not be applied. The stream is of no further use.
#[derive(Debug, Clone, Error)]
pub enum ApplyError {
    /// It cannot be read.
    #[error("entry {index} cannot be read: {source}")]
    Decode {
        /// Which entry.
        index: u64,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The store did not take it.
    #[error("entry {index} cannot be stored: {source}")]
    Store {
        /// Which entry.
        index: u64,
        /// What the store says.
        source: ChangeError,
    },
    /// A later version has written it.
    #[error("entry {index} is of a later version")]
    Unsupported {
        /// Which entry.
        index: u64,
    },
}

/// A stream and its consumers.
pub struct StreamCore {
    name: Arc<str>,
    config: Arc<StreamConfig>,
    created_ns: i64,
    store: Box<dyn Store>,
    dedupe: Dedupe,
    /// The id of the last message, empty when it had none.
    last_id: Box<[u8]>,
    schedules: Schedules,
    /// How far the sources have come.
    positions: SourcePositions,
    rewrites: Rewrites,
    consumers: BTreeMap<u64, Consumer>,
    names: HashMap<String, u64>,
    consumer_id_last: u64,
    chain: Chain,
    digest: Digest,
    /// What the entry that is being applied has removed so far, as a sum.
    removed_sum: u64,
    /// The last entry applied, or passed over.
    applied_index: u64,
    /// The time of the last entry applied.
    applied_ns: i64,
    /// The start of every publish ack.
    ack_prefix: Bytes,
    domain: Arc<str>,
    /// What a replica's group has to find with the state again; nothing for a log of one replica.
    group: Bytes,
    /// Whether what is damaged here is left to others, and not passed over.
    has_replicas: bool,
    /// How many batches may be open, shared with the server's other streams.
    batch_quota: Arc<BatchQuota>,
    /// What a later version has written into it, so that it cannot go on.
    unsupported: Option<Unsupported>,
    /// How far fast batches are, for when this replica leads.
    fast_trails: FastTrails,
    /// What its consumers' acks are sent to.
    ack_names: AckNames,
    lead: Option<Box<Lead>>,
}

impl StreamCore {
    /// A new stream over an empty store.
    pub fn create(
        config: StreamConfig,
        domain: &str,
        created_ns: i64,
        mut store: Box<dyn Store>,
    ) -> Result<Self, ChangeError> {
        store.set_limits(limits(&config), &mut ())?;
        if config.first_seq > 0 {
            store.compact(config.first_seq, &mut ())?;
        }
        Ok(Self {
            name: Arc::from(config.name.as_str()),
            dedupe: Dedupe::new(config.duplicate_window),
            last_id: Box::default(),
            schedules: Schedules::default(),
            positions: SourcePositions::default(),
            rewrites: Rewrites::of(&config),
            consumers: BTreeMap::new(),
            names: HashMap::new(),
            consumer_id_last: 0,
            chain: Chain::default(),
            digest: Digest::default(),
            removed_sum: 0,
            applied_index: 0,
            applied_ns: created_ns,
            ack_prefix: ack_prefix(&config.name, domain),
            domain: Arc::from(domain),
            group: Bytes::new(),
            created_ns,
            store,
            has_replicas: false,
            batch_quota: Arc::default(),
            unsupported: None,
            fast_trails: FastTrails::default(),
            ack_names: AckNames::new(domain, "", &config.name, AckForm::default()),
            config: Arc::new(config),
            lead: None,
        })
    }

    /// Says whether other servers have the stream too. Then consumers do not pass over messages that are damaged here, but wait.
    pub fn set_has_replicas(&mut self, has_replicas: bool) {
        let changed = std::mem::replace(&mut self.has_replicas, has_replicas) != has_replicas;
        if changed && let Some(lead) = self.lead.as_deref_mut() {
            lead.ready.extend(self.consumers.keys());
        }
    }

    /// Takes up what the settings of its server mean for it, and whose it is. It does not lead yet.
    pub(crate) fn keep_to(&mut self, terms: StreamTerms, account: &str) {
        self.batch_quota = terms.batches;
        self.ack_names = AckNames::new(&self.domain, account, &self.name, terms.ack_form);
    }

    /// How many messages a batch may have here.
    #[cfg(test)]
    pub(crate) fn batch_messages_max(&self) -> usize {
        self.batch_quota.messages_max()
    }

    /// What its consumers' acks are sent to.
    pub(crate) fn ack_names(&self) -> &AckNames {
        &self.ack_names
    }

    /// The domain of its server; empty for none.
    pub(crate) fn domain(&self) -> &str {
        &self.domain
    }

    /// The stream's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its configuration.
    pub fn config(&self) -> &Arc<StreamConfig> {
        &self.config
    }

    /// When it was created, in nanoseconds since the epoch.
    pub fn created_ns(&self) -> i64 {
        self.created_ns
    }

    /// Its messages.
    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// Its messages, for those who keep them on disk. Messages themselves change only by entries.
    pub fn store_mut(&mut self) -> &mut dyn Store {
        self.store.as_mut()
    }

    /// The last entry applied.
    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    /// What the group of a replica has stored with the state.
    pub fn group(&self) -> &Bytes {
        &self.group
    }

    /// Has something stored with the state for the group of a replica.
    pub fn set_group(&mut self, group: Bytes) {
        self.group = group;
    }

    /// The same for a group that begins: it counts its terms from the start, whatever an earlier one came to.
    pub fn begin_group(&mut self, group: Bytes) {
        self.set_group(group);
        self.chain.begin_group();
    }

    /// How many consumers it has.
    pub fn consumer_count(&self) -> usize {
        self.consumers.len()
    }

    /// Applies an entry of a log of one replica again, after a restart.
    pub fn replay(&mut self, index: u64, entry: &Bytes) -> Result<(), ApplyError> {
        let mut effects = Effects::default();
        let at = LogPlace { index, term: None };
        self.apply(at, entry, Vec::new(), None, &mut effects)?;
        Ok(())
    }

    /// Applies an entry of a group's log again, for looking only: `None` is one of the group's own.
    pub fn replay_committed(
        &mut self,
        at: LogPlace,
        entry: Option<&Bytes>,
    ) -> Result<(), ApplyError> {
        match entry {
            _ if at.index <= self.applied_index => {}
            None => self.pass(at.index),
            Some(entry) => {
                self.apply(at, entry, Vec::new(), None, &mut Effects::default())?;
            }
        }
        Ok(())
    }

    fn consumer(&self, name: &str) -> Option<&Consumer> {
        self.consumers.get(self.names.get(name)?)
    }
}

fn ack_prefix(name: &str, domain: &str) -> Bytes {
    let text = |text: &str| serde_json::to_string(text).unwrap_or_default();
    let name = text(name);
    let domain = match domain {
        "" => String::new(),
        domain => format!(",\"domain\":{}", text(domain)),
    };
    Bytes::from(format!("{{\"stream\":{name}{domain},\"seq\":"))
}
