//! What a stream's slot does as one of several replicas: takes what its group commits, leads or follows.
//!
//! # Invariant
//! Its core applies what the group commits, in order, and nothing else. It listens to clients only while it leads, but for direct gets. A cut is told
//! to the group when it is durable, never before.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use raft::group::{Applied, Content, MachineFailed, Role};
use tokio::sync::{oneshot, watch};

use super::handover::Catchup;
use super::inbox::Taken;
use super::port::Port;
use super::replica_port::ReplicaPort;
use super::replicated_log::ReplicatedLog;
use super::slot::Slot;
use crate::broker::{Account, InternalSubscription, InternalTarget};
use crate::jetstream::core::{
    ApplyError, Divergence, LogPlace, Mark, Receiving, StreamCore, Unsupported,
};
use crate::jetstream::intake::{self, Purpose};
use crate::jetstream::log::{Checkpoint, Log, LogError};
use crate::jetstream::usage::Meter;

/// How long a leader waits before it proposes again what is in doubt.
const AGAIN_NS: i64 = 20_000_000;
/// A replica in memory lets its group forget entries when there are so many bytes of them.
const VOLATILE_ENTRY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A replica about to live on a shard.
pub(crate) struct ReplicaSetup {
    /// The stream as of its checkpoint.
    pub core: StreamCore,
    /// Whose stream it is.
    pub account: Arc<Account>,
    /// Where its checkpoints go.
    pub storage_log: Arc<dyn Log>,
    /// Its number in storage, 0 for a stream in memory.
    pub storage: u64,
    /// Whose its group's entries in the journal are, in memory too.
    pub owner: u64,
    /// Counts what it holds.
    pub meter: Meter,
    /// Where its group stands with the checkpoint.
    pub position: raft::group::Checkpoint,
    /// Its messages cannot be trusted: when it is given a state it keeps none of them.
    pub keeps_nothing: bool,
    /// Its account has no JetStream.
    pub rests: bool,
}

/// What is to be seen of a replica from outside.
#[derive(Debug, Clone)]
pub(crate) struct ReplicaStatus {
    /// What it is to its group.
    pub role: Role,
    /// The last entry that is applied, and the members as of it.
    pub position: raft::group::Checkpoint,
    /// The digest after that entry.
    pub digest: Mark,
    /// Where it was found to differ from another replica, until it is known which of them is wrong.
    pub divergence: Option<Divergence>,
    /// Present while it is given a state.
    pub catchup: Option<Catchup>,
    /// Why it takes nothing any more.
    pub offline: Option<String>,
    /// What a later version has written into it, so that it takes nothing any more.
    pub unsupported: Option<Unsupported>,
    /// Why what it holds is of no use, if it is not: it differs from the other replicas, or cannot be read or written. Another one has to take its place.
    pub spoilt: Option<String>,
}

/// The replica's part of a slot.
pub(crate) struct Replica {
    pub(super) log: Arc<ReplicatedLog>,
    pub(super) position: raft::group::Checkpoint,
    pub(super) role: Role,
    status: Arc<Mutex<ReplicaStatus>>,
    differences: watch::Sender<Option<Divergence>>,
    /// Why what it holds is of no use.
    pub(super) spoilt: Option<String>,
    /// Whether another replica is to lead.
    pub(super) holds_back: bool,
    /// Whether it was said that nobody knows who is wrong.
    pub(super) is_contested: bool,
    pub(super) keeps_nothing: bool,
    /// Whether its account has no JetStream, so that it is a stream to nobody.
    pub(super) rests: bool,
    /// Whether its messages are not those of its state.
    pub(super) receives: bool,
    pub(super) receiving: Option<Receiving>,
    pub(super) catchup: Catchup,
    /// Bytes of records that came since the last cut.
    pub(super) unkept_bytes: u64,
    /// What was committed while it is given a state.
    pub(super) waiting: Vec<(Vec<Applied>, Taken)>,
    /// When to propose again what is in doubt.
    pub(super) again_ns: Option<i64>,
    /// Cuts that are being made durable.
    cuts: VecDeque<raft::group::Checkpoint>,
    /// The newest cut that is durable and that the group was not told of.
    durable_cut: Option<raft::group::Checkpoint>,
    /// The last entry that the group has handed over: a state that was received may reach beyond it.
    handed_index: u64,
    /// Who waits until a cut at or above an index is durable.
    pub(super) durable: Option<(u64, oneshot::Sender<()>)>,
    /// Bytes of entries applied since the last cut.
    entry_bytes: usize,
    is_volatile: bool,
    pub(super) wants_checkpoint: bool,
    subscriptions: Vec<InternalSubscription>,
    pub(super) prepared: VecDeque<(u64, Bytes)>,
    pub(super) prepared_last: u64,
}

impl Slot {
    /// A slot for a replica, and how it is reached.
    pub(super) fn new_replica(
        setup: ReplicaSetup,
        log: Arc<ReplicatedLog>,
        port: Port,
    ) -> (Self, ReplicaPort) {
        let ReplicaSetup {
            core,
            account,
            storage_log: _,
            storage,
            owner,
            meter,
            position,
            keeps_nothing,
            rests,
        } = setup;
        let status = ReplicaStatus {
            role: Role::Leaderless,
            position: position.clone(),
            digest: core.digest(),
            divergence: None,
            catchup: None,
            offline: None,
            unsupported: None,
            spoilt: None,
        };
        let status = Arc::new(Mutex::new(status));
        let (differences, differs) = watch::channel(None);
        let as_log: Arc<dyn Log> = Arc::<ReplicatedLog>::clone(&log);
        let mut slot = Self::new(core, account, as_log, storage, port, meter);
        slot.owner = owner;
        slot.core.set_has_replicas(true);
        slot.replica = Some(Box::new(Replica {
            log,
            handed_index: position.at.index,
            durable_cut: None,
            position,
            role: Role::Leaderless,
            status: Arc::clone(&status),
            differences,
            spoilt: None,
            holds_back: false,
            is_contested: false,
            keeps_nothing,
            rests,
            receives: false,
            receiving: None,
            catchup: Catchup::default(),
            unkept_bytes: 0,
            waiting: Vec::new(),
            again_ns: None,
            cuts: VecDeque::new(),
            durable: None,
            entry_bytes: 0,
            is_volatile: storage == 0,
            wants_checkpoint: false,
            subscriptions: Vec::new(),
            prepared: VecDeque::new(),
            prepared_last: 0,
        }));
        slot.stop_unsupported();
        slot.replica_changed();
        let port = ReplicaPort {
            port: slot.port.clone(),
            status,
            differences: differs,
        };
        (slot, port)
    }

    pub(super) fn is_receiving(&self) -> bool {
        self.replica.as_deref().is_some_and(|one| one.receives)
    }

    /// The group has committed something.
    pub(super) fn take_committed(&mut self, batch: Vec<Applied>, done: Taken, now_ns: i64) {
        let Some(replica) = self.replica.as_deref_mut() else {
            return;
        };
        if replica.receives {
            replica.waiting.push((batch, done));
            return;
        }
        let handed = batch.last().map_or(0, |applied| applied.at.index);
        replica.handed_index = replica.handed_index.max(handed);
        let result = self.apply_committed(batch, now_ns);
        // A group that stops does not wait any more.
        let _ = done.send(result);
        self.release();
    }

    /// Lets the group forget what a durable cut covers, as far as it has handed that over itself.
    fn release(&mut self) {
        if let Some(replica) = self.replica.as_deref_mut() {
            let handed = replica.handed_index;
            let cut = replica.durable_cut.take_if(|cut| cut.at.index <= handed);
            if let Some(cut) = cut {
                replica.log.released(cut);
            }
        }
    }

    fn apply_committed(&mut self, batch: Vec<Applied>, now_ns: i64) -> Result<(), MachineFailed> {
        for applied in batch {
            if let Some(offline) = &self.offline {
                return Err(MachineFailed(offline.0.clone()));
            }
            if applied.at.index <= self.core.applied_index() {
                continue;
            }
            if let Some(replica) = self.replica.as_deref_mut() {
                replica.position.advance(&applied);
                if let Content::Command(entry) = &applied.content {
                    replica.entry_bytes += entry.len();
                }
            }
            let at = LogPlace {
                index: applied.at.index,
                term: Some(applied.at.term),
            };
            let Content::Command(entry) = applied.content else {
                self.core.pass(at.index);
                continue;
            };
            let taken = self.step(now_ns, |core, step| core.take_committed(at, &entry, step));
            match taken {
                Ok(()) if self.core.store().guesses() > 0 => {
                    self.spoil("what a message counted in the stream's state cannot be read here");
                }
                Ok(()) => {}
                Err(ApplyError::Unsupported { .. }) => self.stop_unsupported(),
                Err(error @ ApplyError::Store { .. }) => self.spoil(&error.to_string()),
                Err(error) => self.fail(&error.to_string()),
            }
        }
        match &self.offline {
            Some(offline) => Err(MachineFailed(offline.0.clone())),
            None => Ok(()),
        }
    }

    /// The replica is something else to its group.
    pub(super) fn take_role(&mut self, role: Role, now_ns: i64) {
        let Some(replica) = self.replica.as_deref_mut() else {
            return;
        };
        replica.role = role.clone();
        replica.again_ns = None;
        replica.holds_back = false;
        replica.log.is_resolved();
        let (is_spoilt, rests) = (replica.spoilt.is_some(), replica.rests);
        self.stop_leading();
        self.core.set_has_replicas(true);
        if let Role::Leader { term } = role
            && self.offline.is_none()
            && !self.is_receiving()
            && !rests
        {
            match is_spoilt {
                true => self.hold_back(),
                false => {
                    self.step(now_ns, |core, step| core.lead(term, step));
                    self.is_busy = true;
                }
            }
        }
        self.listen();
    }

    pub(super) fn stop_leading(&mut self) {
        if self.core.is_leading() {
            self.core.follow(&mut self.effects);
            // Also when it leads again at once: what was in flight may never be applied.
            self.effects.lost = true;
        }
        // Consumers that were announced in this round are not to be listened for any more.
        self.effects.consumers.clear();
        self.watches.clear();
        self.pulls.clear();
    }

    /// Listens to what concerns a replica of this role. What stays is neither missed nor heard twice.
    pub(super) fn listen(&mut self) {
        let Some(replica) = self.replica.as_deref_mut() else {
            return;
        };
        let leads = self.core.is_leading();
        let is_current = matches!(replica.role, Role::Leader { .. } | Role::Follower { .. });
        let is_sound = replica.spoilt.is_none() || leads;
        let is_whole = !replica.receives && self.offline.is_none();
        let answers = is_current && is_sound && is_whole && !replica.rests;
        let wanted: Vec<(String, Purpose)> =
            intake::patterns(self.core.config(), self.core.ack_names())
                .into_iter()
                .filter(|(_, purpose)| if purpose.is_direct() { answers } else { leads })
                .collect();
        let is_wanted = |subscription: &InternalSubscription| {
            let subject = subscription.subject();
            wanted
                .iter()
                .any(|(pattern, _)| pattern.as_bytes() == subject.as_ref())
        };
        replica.subscriptions.retain(is_wanted);
        for (pattern, purpose) in wanted {
            let mut known = replica.subscriptions.iter();
            if known.any(|one| one.subject().as_ref() == pattern.as_bytes()) {
                continue;
            }
            let target: Arc<dyn InternalTarget> = Arc::new(self.port.clone());
            // The API has checked a stream's subjects; the other patterns are ours.
            let new = self
                .account
                .subscribe(&pattern, purpose.queue(), target, purpose as u64);
            replica.subscriptions.extend(new.ok());
        }
    }

    pub(super) fn stop_listening(&mut self) {
        if let Some(replica) = self.replica.as_deref_mut() {
            replica.subscriptions.clear();
        }
    }

    /// Some proposals were answered without having been seen applied.
    pub(super) fn is_in_doubt(&mut self, now_ns: i64) {
        let leads = self.core.is_leading();
        if let Some(replica) = self.replica.as_deref_mut() {
            match leads {
                true => replica.again_ns = Some(now_ns.saturating_add(AGAIN_NS)),
                false => replica.log.is_resolved(),
            }
        }
    }

    pub(super) fn propose_again_when_due(&mut self, now_ns: i64) {
        let Some(replica) = self.replica.as_deref_mut() else {
            return;
        };
        if replica.again_ns.is_none_or(|again_ns| now_ns < again_ns) {
            return;
        }
        replica.again_ns = None;
        if replica.log.is_answered() {
            replica.log.is_resolved();
            let open = self.core.in_flight();
            replica.log.propose(open.into_iter().map(|one| one.1));
        }
    }

    /// Decides and proposes what a leader gives back before it hands its lead over.
    pub(super) fn give_back(&mut self, now_ns: i64) {
        if self.replica.is_none() || !self.core.is_leading() {
            return;
        }
        let entries = self.step(now_ns, |core, step| core.take_last_entries(step));
        if let Some(replica) = self.replica.as_deref() {
            replica.log.propose(entries.into_iter().map(|one| one.1));
        }
    }

    /// Carries what has changed to those who look from outside.
    pub(super) fn replica_changed(&mut self) {
        let reconfigured = std::mem::take(&mut self.effects.reconfigured);
        if self.replica.is_none() {
            return;
        }
        if reconfigured {
            self.listen();
        }
        let digest = self.core.digest();
        let divergence = self.core.divergence();
        let offline = self.offline.as_ref().map(|offline| offline.0.clone());
        let Some(replica) = self.replica.as_deref_mut() else {
            return;
        };
        if replica.is_volatile && replica.entry_bytes >= VOLATILE_ENTRY_BYTES_MAX {
            replica.wants_checkpoint = true;
        }
        let mut status = replica.status.lock();
        if status.position.at != replica.position.at {
            status.position.clone_from(&replica.position);
        }
        if status.role != replica.role {
            status.role.clone_from(&replica.role);
        }
        status.digest = digest;
        status.divergence = divergence;
        if status.spoilt.is_none() {
            status.spoilt.clone_from(&replica.spoilt);
        }
        status.catchup = replica.receives.then(|| replica.catchup.clone());
        if status.unsupported.is_none() && offline.is_some() {
            status.unsupported = self.core.unsupported().cloned();
        }
        status.offline = offline;
        drop(status);
        replica.differences.send_if_modified(|known| {
            let differs = *known != divergence;
            *known = divergence;
            differs
        });
    }

    /// The stream cannot go on here: whoever waits for it hears so.
    pub(super) fn replica_failed(&mut self, reason: &str) {
        self.watches.clear();
        self.pulls.clear();
        if let Some(replica) = self.replica.as_deref_mut() {
            replica.subscriptions.clear();
            replica.durable = None;
            for (_, done) in replica.waiting.drain(..) {
                let _ = done.send(Err(MachineFailed(reason.to_owned())));
            }
        }
    }

    /// Whether a checkpoint should begin; says so once.
    pub(super) fn wants_checkpoint(&mut self) -> bool {
        let replica = self.replica.as_deref_mut();
        replica.is_some_and(|replica| std::mem::take(&mut replica.wants_checkpoint))
    }

    #[cfg(test)]
    pub(super) fn want_checkpoint(&mut self) {
        if let Some(replica) = self.replica.as_deref_mut() {
            replica.wants_checkpoint = true;
        }
    }

    /// Has `done` hear when the state as it is outlives the process.
    pub(super) fn make_durable(&mut self, done: oneshot::Sender<()>) {
        let index = self.core.applied_index();
        if let Some(replica) = self.replica.as_deref_mut() {
            replica.durable = Some((index, done));
            replica.wants_checkpoint = true;
        }
    }

    pub(super) fn checkpoint_replica(&mut self) -> Result<Checkpoint, LogError> {
        let Some(replica) = self.replica.as_deref_mut() else {
            return Ok(Checkpoint::Pointless);
        };
        if replica.receives {
            return self.keep_received();
        }
        self.core.set_group(replica.position.encode());
        let (core, index) = (self.core.snapshot(), self.core.applied_index());
        let log = Arc::clone(&replica.log);
        let store: &mut dyn Any = self.core.store_mut();
        let begun = log.checkpoint(self.storage, store, index, core)?;
        let cut = replica.position.clone();
        match begun {
            Checkpoint::Busy => return Ok(begun),
            Checkpoint::Begun => replica.cuts.push_back(cut),
            Checkpoint::Pointless => {
                replica.is_volatile = true;
                replica.cuts.push_back(cut);
            }
        }
        replica.entry_bytes = 0;
        if begun == Checkpoint::Pointless {
            self.checkpointed(index);
        }
        Ok(begun)
    }

    /// A cut at an index is durable.
    pub(super) fn checkpointed(&mut self, index: u64) {
        let Some(replica) = self.replica.as_deref_mut() else {
            return;
        };
        while replica
            .cuts
            .front()
            .is_some_and(|cut| cut.at.index <= index)
        {
            replica.durable_cut = replica.cuts.pop_front();
        }
        let waited = replica.durable.take_if(|(upto, _)| *upto <= index);
        if let Some((_, done)) = waited {
            // Whoever waited may have given up.
            let _ = done.send(());
        }
        self.release();
    }

    /// The group runs: proposals go to it.
    pub(super) fn join(&mut self, group: Arc<dyn super::Proposer>) {
        if let Some(replica) = self.replica.as_deref() {
            replica.log.join(group);
        }
    }

    /// Where the state stands.
    pub(super) fn position(&self) -> Option<raft::group::Checkpoint> {
        let replica = self.replica.as_deref()?;
        (!replica.receives).then(|| replica.position.clone())
    }
}
