//! Whole states between replicas: giving one that lacks it what is here, and taking another's in its place.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::slot::Slot;
use crate::jetstream::core::{Manifest, ReceiveError, Receiving, ReceivingNeeds, StreamCore};
use crate::jetstream::log::{Checkpoint, Log, LogError};

/// Manifests that are kept for those who fetch them piece by piece.
const PREPARED_MAX: usize = 4;

/// A replica that is given its first state keeps what has come after so many bytes, so that a start goes on from there.
const KEPT_AFTER_BYTES: u64 = if cfg!(test) {
    64 * 1024
} else {
    64 * 1024 * 1024
};
/// What stands for the group's checkpoint in a cut of a replica that has a part of its first state only.
pub(crate) const RECEIVING: &[u8] = b"receiving";

/// How far a replica is that is given another's state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Catchup {
    /// Messages of the state.
    pub messages: u64,
    /// Messages that are here.
    pub present: u64,
    /// Bytes of records that were received.
    pub bytes: u64,
}

impl Slot {
    /// A cut of what a replica has of its first state. One that had a state before has a log and a vote with it, and keeps those.
    pub(super) fn keep_received(&mut self) -> Result<Checkpoint, LogError> {
        let Some(replica) = self.replica.as_deref_mut() else {
            return Ok(Checkpoint::Pointless);
        };
        if replica.position.at.index > 0 || self.storage == 0 {
            return Ok(Checkpoint::Pointless);
        }
        self.core.set_group(Bytes::from_static(RECEIVING));
        let (core, index) = (self.core.snapshot(), self.core.applied_index());
        self.core.set_group(Bytes::new());
        let log = Arc::clone(&replica.log);
        let store: &mut dyn Any = self.core.store_mut();
        let begun = log.checkpoint(self.storage, store, index, core)?;
        if begun != Checkpoint::Busy {
            replica.unkept_bytes = 0;
        }
        Ok(begun)
    }

    /// Describes the state for one that lacks it; under which number the description is kept, and how long it is.
    pub(super) fn prepare_manifest(
        &mut self,
        after: u64,
        records_max: usize,
    ) -> Option<(u64, u64)> {
        let position = self.position()?;
        self.core.set_group(position.encode());
        let manifest = self.core.manifest(after, records_max).encode();
        let replica = self.replica.as_deref_mut()?;
        replica.prepared_last += 1;
        let number = replica.prepared_last;
        let length = manifest.len() as u64;
        if replica.prepared.len() == PREPARED_MAX {
            replica.prepared.pop_front();
        }
        replica.prepared.push_back((number, manifest));
        Some((number, length))
    }

    /// A piece of a description. The last one ends it.
    pub(super) fn manifest_piece(
        &mut self,
        number: u64,
        offset: u64,
        bytes_max: usize,
    ) -> Option<Bytes> {
        let replica = self.replica.as_deref_mut()?;
        let at = replica.prepared.iter().position(|one| one.0 == number)?;
        let (_, whole) = replica.prepared.get(at)?;
        let begin = usize::try_from(offset).ok()?;
        let end = begin.saturating_add(bytes_max).min(whole.len());
        if begin > end {
            return None;
        }
        let piece = whole.slice(begin..end);
        if end == whole.len() {
            replica.prepared.remove(at);
        }
        Some(piece)
    }

    /// Records for one that lacks them.
    pub(super) fn records(&self, from: u64, upto: u64, bytes_max: usize) -> Result<Bytes, String> {
        if self.is_receiving() || self.offline.is_some() {
            return Err("this replica is not whole".to_owned());
        }
        let records = self.core.records(from, upto, bytes_max);
        records.map_err(|error| error.to_string())
    }

    /// The last sequence that is here.
    pub(super) fn last_sequence(&self) -> u64 {
        self.core.store().state().last_sequence
    }

    /// Begins to take over another replica's state.
    pub(super) fn begin_receiving(&mut self, manifest: Manifest) -> Result<(), String> {
        let config = StreamCore::config_of(manifest.core()).map_err(|error| error.to_string())?;
        if config.name != self.core.name() {
            return Err(format!("the state is that of stream '{}'", config.name));
        }
        let Some(replica) = self.replica.as_deref_mut() else {
            return Err("this stream has one replica".to_owned());
        };
        if let Some(offline) = &self.offline {
            return Err(offline.0.clone());
        }
        let keeps_nothing = std::mem::take(&mut replica.keeps_nothing);
        replica.receives = true;
        replica.catchup.messages = manifest.messages();
        self.stop_leading();
        self.listen();
        let begun = self
            .core
            .begin_receiving(manifest, keeps_nothing)
            .and_then(|receiving| {
                self.core.receive_enclosed(&receiving)?;
                Ok(receiving)
            });
        let receiving = self.or_fail(begun)?;
        if let Some(replica) = self.replica.as_deref_mut() {
            replica.receiving = Some(receiving);
        }
        Ok(())
    }

    pub(super) fn go_on_receiving(&mut self) -> Result<ReceivingNeeds, String> {
        let Some(mut receiving) = self.take_receiving() else {
            return Err("nothing is being received".to_owned());
        };
        let needs = self.core.go_on_receiving(&mut receiving);
        let needs = self.or_fail(needs);
        self.keep_receiving(receiving);
        needs
    }

    pub(super) fn receive(&mut self, records: &[u8]) -> Result<u64, String> {
        let Some(receiving) = self.take_receiving() else {
            return Err("nothing is being received".to_owned());
        };
        let upto = self.core.receive(&receiving, records);
        let upto = self.or_fail(upto);
        self.keep_receiving(receiving);
        let present = self.core.store().state().messages;
        if let Some(replica) = self.replica.as_deref_mut() {
            replica.catchup.present = present;
            replica.catchup.bytes += records.len() as u64;
            replica.unkept_bytes += records.len() as u64;
            if replica.position.at.index == 0 && replica.unkept_bytes >= KEPT_AFTER_BYTES {
                replica.wants_checkpoint = true;
            }
        }
        upto
    }

    /// Takes the state over, when all of its messages are here; `false` when some have left the stream in the meantime, and a newer description is
    /// needed. `durable` hears when what was received outlives the process.
    pub(super) fn finish_receiving(
        &mut self,
        durable: oneshot::Sender<()>,
        now_ns: i64,
    ) -> Result<bool, String> {
        let Some(receiving) = self.take_receiving() else {
            return Err("nothing is being received".to_owned());
        };
        match self.core.finish_receiving(&receiving) {
            Err(ReceiveError::Outdated) => return Ok(false),
            other => self.or_fail(other)?,
        }
        self.stop_unsupported();
        if let Some(offline) = &self.offline {
            return Err(offline.0.clone());
        }
        let position = raft::group::Checkpoint::decode(self.core.group());
        let position = position.map_err(|error| error.to_string());
        let Some(replica) = self.replica.as_deref_mut() else {
            return Ok(false);
        };
        match position {
            Ok(position) => replica.position = position,
            Err(error) => {
                self.fail(&error);
                return Err(error);
            }
        }
        replica.receives = false;
        replica.catchup = Catchup::default();
        replica.wants_checkpoint = true;
        replica.durable = Some((self.core.applied_index(), durable));
        let waiting = std::mem::take(&mut replica.waiting);
        for (batch, done) in waiting {
            self.take_committed(batch, done, now_ns);
        }
        self.listen();
        Ok(true)
    }

    fn take_receiving(&mut self) -> Option<Receiving> {
        self.replica.as_deref_mut()?.receiving.take()
    }

    fn keep_receiving(&mut self, receiving: Receiving) {
        if let Some(replica) = self.replica.as_deref_mut() {
            replica.receiving = Some(receiving);
        }
    }

    /// What a store does not take ends the replica; what a peer sent wrongly does not.
    fn or_fail<T>(&mut self, result: Result<T, ReceiveError>) -> Result<T, String> {
        result.map_err(|error| {
            let text = error.to_string();
            if matches!(error, ReceiveError::Store(_)) {
                self.spoil(&text);
            }
            text
        })
    }
}
