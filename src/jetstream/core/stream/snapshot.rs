//! The core's own state at one point of the log: everything that is not in the store.
//!
//! ```text
//! version u8 | applied index u64 | applied time i64 | created i64
//! chain: term u64, base index number, ordinal number, changed index number
//! digest u64, last mark told number
//! configuration (JSON) blob | last message id blob
//! duplicate window: count number, each time i64, sequence number, id blob
//! last consumer id number | consumers: count number, each
//!   id number, name blob, created i64, configuration (JSON) blob, progress
//! schedules: count number, each subject blob, sequence number, next time i64 (since version 3)
//! sources: count number, each name blob, last sequence number (since version 3)
//! what a replica's group keeps with it blob
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use storage::store::{ChangeError, Limits, MemStore, Store};
use thiserror::Error;

use super::chain::Chain;
use super::fast_trail::FastTrails;
use super::rewrites::Rewrites;
use super::unsupported::Findings;
use super::{StreamCore, ack_prefix, limits};
use crate::jetstream::core::ack_names::{AckForm, AckNames};
use crate::jetstream::core::codec::{DecodeError, Reader, Writer};
use crate::jetstream::core::consumer::{Consumer, Progress};
use crate::jetstream::core::dedupe::Dedupe;
use crate::jetstream::core::digest::Digest;
use crate::jetstream::core::schedule::Schedules;
use crate::jetstream::core::sources::SourcePositions;
use crate::jetstream::types::{ConsumerConfig, StreamConfig, Strictness, decode, encode};

/// The version written.
pub const SNAPSHOT_VERSION: u8 = 3;
/// The first version that is read; it knew no schedules and no sources.
const SNAPSHOT_VERSION_FIRST: u8 = 2;

/// A stream that could not be taken up.
#[derive(Debug, Clone, Error)]
pub enum BeginError {
    /// Its state cannot be read.
    #[error("its state cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// Its store does not take changes.
    #[error("its store takes no changes: {0}")]
    Store(#[from] ChangeError),
}

impl StreamCore {
    /// Writes down what the store does not hold, as of the last applied entry.
    pub fn snapshot(&self) -> Bytes {
        let mut writer = Writer::default();
        writer.u8(SNAPSHOT_VERSION);
        writer.u64(self.applied_index);
        writer.i64(self.applied_ns);
        writer.i64(self.created_ns);
        self.chain.write(&mut writer);
        self.digest.write(&mut writer);
        writer.blob(&encode(self.config.as_ref()));
        writer.blob(&self.last_id);
        self.dedupe.write(&mut writer);
        writer.number(self.consumer_id_last);
        writer.number(self.consumers.len() as u64);
        for consumer in self.consumers.values() {
            writer.number(consumer.id);
            writer.blob(consumer.name.as_bytes());
            writer.i64(consumer.created_ns);
            writer.blob(&encode(consumer.config.as_ref()));
            consumer.progress.write(&mut writer);
        }
        self.schedules.write(&mut writer);
        self.positions.write(&mut writer);
        writer.blob(&self.group);
        Bytes::from(writer.bytes)
    }

    /// Writes down what a new stream is born with, as its first entry.
    pub fn birth(&mut self, index: u64) -> Bytes {
        self.applied_index = index;
        self.chain = Chain::born(index);
        self.snapshot()
    }

    /// Begins a stream anew from what it was born with, over an empty store.
    pub fn begin(birth: &[u8], domain: &str, store: Box<dyn Store>) -> Result<Self, BeginError> {
        Self::begin_noting(birth, domain, store, &mut Findings::default())
    }

    pub(super) fn begin_noting(
        birth: &[u8],
        domain: &str,
        mut store: Box<dyn Store>,
        findings: &mut Findings,
    ) -> Result<Self, BeginError> {
        let first_sequence = {
            let config = Self::config_of(birth)?;
            store.set_limits(limits(&config), &mut ())?;
            config.first_seq
        };
        if first_sequence > 0 {
            store.compact(first_sequence, &mut ())?;
        }
        Self::restore_noting(birth, domain, store, findings)
    }

    /// The configuration in a snapshot.
    pub fn config_of(snapshot: &[u8]) -> Result<StreamConfig, DecodeError> {
        let mut reader = Reader::new(snapshot);
        let version = reader.u8()?;
        if !(SNAPSHOT_VERSION_FIRST..=SNAPSHOT_VERSION).contains(&version) {
            return Err(DecodeError::Version(version));
        }
        reader.take(8 + 8 + 8)?;
        Chain::read(&mut reader)?;
        Digest::read(&mut reader)?;
        decode_config(reader.blob()?)
    }

    /// What the group of a replica has stored with a state.
    pub fn group_of(snapshot: &[u8]) -> Result<Bytes, BeginError> {
        let store = Box::new(MemStore::new(Limits::default()));
        Ok(Self::restore(snapshot, "", store)?.group)
    }

    /// Takes another replica's state over its own. The messages are that state's already; their limits come with it.
    pub(super) fn take_over(&mut self, snapshot: &[u8]) -> Result<(), BeginError> {
        // In the way of the exchange only: a stream always has a store.
        let spare = || Box::new(MemStore::new(Limits::default()));
        let mut taken = Self::restore(snapshot, &self.domain, spare())?;
        std::mem::swap(&mut taken.store, &mut self.store);
        taken.has_replicas = self.has_replicas;
        // The server's settings are those of this server.
        taken.batch_quota = Arc::clone(&self.batch_quota);
        taken.ack_names = self.ack_names.clone();
        let limits = limits(&taken.config);
        let set = taken.store.set_limits(limits, &mut ());
        *self = taken;
        Ok(set?)
    }

    /// Takes up a stream where a snapshot left it. The store must be as it was then.
    pub fn restore(
        snapshot: &[u8],
        domain: &str,
        store: Box<dyn Store>,
    ) -> Result<Self, BeginError> {
        let mut findings = Findings::default();
        let mut core = Self::restore_noting(snapshot, domain, store, &mut findings)?;
        core.unsupported = findings.verdict();
        Ok(core)
    }

    /// The same, and notes what a later version has written.
    pub(super) fn restore_noting(
        snapshot: &[u8],
        domain: &str,
        store: Box<dyn Store>,
        findings: &mut Findings,
    ) -> Result<Self, BeginError> {
        let mut reader = Reader::new(snapshot);
        let version = reader.u8()?;
        if !(SNAPSHOT_VERSION_FIRST..=SNAPSHOT_VERSION).contains(&version) {
            return Err(DecodeError::Version(version).into());
        }
        let applied_index = reader.u64()?;
        let applied_ns = reader.i64()?;
        let created_ns = reader.i64()?;
        let chain = Chain::read(&mut reader)?;
        let digest = Digest::read(&mut reader)?;
        let json = reader.blob()?;
        findings.note_stream(json);
        let config: StreamConfig = decode_config(json)?;
        let last_id = Box::from(reader.blob()?);
        let dedupe = Dedupe::read(config.duplicate_window, &mut reader)?;
        let consumer_id_last = reader.number()?;
        let mut consumers = BTreeMap::new();
        let mut names = HashMap::new();
        for _ in 0..reader.number()? {
            let id = reader.number()?;
            let name = reader.text()?.to_owned();
            let created_ns = reader.i64()?;
            let json = reader.blob()?;
            findings.note_consumer(id, &name, json);
            let config: ConsumerConfig = decode_config(json)?;
            let progress = Progress::read(&mut reader)?;
            names.insert(name.clone(), id);
            consumers.insert(id, Consumer::new(id, name, created_ns, config, progress));
        }
        let (mut schedules, mut positions) = (Schedules::default(), SourcePositions::default());
        if version > SNAPSHOT_VERSION_FIRST {
            schedules = Schedules::read(&mut reader)?;
            positions = SourcePositions::read(&mut reader)?;
        }
        let group = Bytes::copy_from_slice(reader.blob()?);
        Ok(Self {
            name: Arc::from(config.name.as_str()),
            ack_prefix: ack_prefix(&config.name, domain),
            domain: Arc::from(domain),
            group,
            rewrites: Rewrites::of(&config),
            created_ns,
            store,
            dedupe,
            last_id,
            schedules,
            positions,
            consumers,
            names,
            consumer_id_last,
            chain,
            digest,
            removed_sum: 0,
            applied_index,
            applied_ns,
            has_replicas: false,
            batch_quota: Arc::default(),
            unsupported: None,
            fast_trails: FastTrails::default(),
            ack_names: AckNames::new(domain, "", &config.name, AckForm::default()),
            config: Arc::new(config),
            lead: None,
        })
    }
}

fn decode_config<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T, DecodeError> {
    decode(json, Strictness::Lenient).map_err(|error| DecodeError::Config(error.to_string()))
}
