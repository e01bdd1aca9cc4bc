//! The meta layer's state, driven by its group and carried in the journal.
//!
//! ```text
//! carried state, and the content of a manifest: version u8 (1) | u32 length and bytes of the group's checkpoint | the meta layer's state
//! ```
//!
//! # Invariant
//! What is published was committed. The group's log is released up to a carried state only when that is durable.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use raft::group::{
    Applied, Checkpoint, Content, Group, MANIFEST_BYTES_MAX, Machine, MachineFailed, Manifest,
    ManifestWork, Outcome, Role, Work,
};
use storage::engine::FileEngine;
use storage::journal::{Commit, CommitSink, JournalError, Owner};
use tokio::sync::{oneshot, watch};

use super::super::api::now;
use super::super::meta::{Change, Command, Meta};
use super::super::types::{MetaSnapshotStats, Time};
use crate::config::options::MetaCompaction;

const VERSION: u8 = 1;
/// The state is carried when so many entries were applied since, unless the operator says otherwise.
const ENTRIES_BETWEEN_CARRIES: u64 = 256;
/// Or when they have so many bytes.
const BYTES_BETWEEN_CARRIES: u64 = 1024 * 1024;
/// What became of so many commands is remembered for those who proposed them.
const CHANGES_KEPT: usize = 4096;

/// The state machine of the meta group on this server.
pub(super) struct MetaMachine {
    engine: Arc<FileEngine>,
    compaction: Mutex<MetaCompaction>,
    state: Mutex<State>,
    published: watch::Sender<Arc<Meta>>,
    role: watch::Sender<Role>,
    /// Since when this server leads.
    led_since: Mutex<Option<Time>>,
    /// Present while the replica runs. Each holds the other until [`MetaMachine::ended`].
    group: RwLock<Option<Group>>,
    this: Weak<Self>,
}

struct State {
    /// `None` before the group was begun here.
    owner: Option<Owner>,
    meta: Meta,
    checkpoint: Checkpoint,
    changes: BTreeMap<u64, Vec<Change>>,
    entries: u64,
    bytes: usize,
    carrying: bool,
    /// The entry up to which a carried state, or the founding, durably covers the log.
    covered: u64,
    /// When the state was last carried, and how long that took.
    carried: Option<(Time, Duration)>,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProposeError {
    /// This server does not lead the meta group.
    #[error("this server does not lead the meta group")]
    NotLeader,
    /// Whether it was carried out is not known.
    #[error("whether it was done is not known")]
    Unknown,
}

/// A command that was proposed.
pub(super) struct UnderWay(oneshot::Receiver<Outcome>);

/// Bytes that are no carried state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the state of the meta group cannot be read: {0}")]
pub(super) struct MalformedState(String);

fn encode(meta: &Meta, checkpoint: &Checkpoint) -> Bytes {
    let (checkpoint, meta) = (checkpoint.encode(), meta.encode());
    let mut out = BytesMut::with_capacity(5 + checkpoint.len() + meta.len());
    out.put_u8(VERSION);
    out.put_u32_le(u32::try_from(checkpoint.len()).unwrap_or(u32::MAX));
    out.put_slice(&checkpoint);
    out.put_slice(&meta);
    out.freeze()
}

/// Reads a carried state.
pub(super) fn decode(mut bytes: &[u8]) -> Result<(Meta, Checkpoint), MalformedState> {
    let short = || MalformedState("it ends too early".to_owned());
    match bytes.try_get_u8() {
        Ok(VERSION) => {}
        Ok(other) => return Err(MalformedState(format!("version {other} is not known"))),
        Err(_) => return Err(short()),
    }
    let length = bytes.try_get_u32_le().map_err(|_| short())?;
    let length = usize::try_from(length).map_err(|_| short())?;
    let (checkpoint, meta) = bytes.split_at_checked(length).ok_or_else(short)?;
    let unreadable = |error: &dyn std::fmt::Display| MalformedState(error.to_string());
    let checkpoint = Checkpoint::decode(checkpoint).map_err(|error| unreadable(&error))?;
    let meta = Meta::decode(meta).map_err(|error| unreadable(&error))?;
    Ok((meta, checkpoint))
}

/// Without a limit, the state is carried as this room likes it.
fn with_defaults(compaction: MetaCompaction) -> MetaCompaction {
    match compaction {
        MetaCompaction {
            entries: None,
            bytes: None,
            waits,
        } => MetaCompaction {
            entries: Some(ENTRIES_BETWEEN_CARRIES),
            bytes: Some(BYTES_BETWEEN_CARRIES),
            waits,
        },
        chosen => chosen,
    }
}

impl MetaMachine {
    /// An empty state, before the group is begun here.
    pub fn new(engine: Arc<FileEngine>, compaction: MetaCompaction) -> Arc<Self> {
        let compaction = Mutex::new(with_defaults(compaction));
        Arc::new_cyclic(|this| Self {
            engine,
            compaction,
            state: Mutex::new(State {
                owner: None,
                meta: Meta::default(),
                checkpoint: Checkpoint::default(),
                changes: BTreeMap::new(),
                entries: 0,
                bytes: 0,
                carrying: false,
                covered: 0,
                carried: None,
            }),
            published: watch::Sender::new(Arc::default()),
            role: watch::Sender::new(Role::Leaderless),
            led_since: Mutex::default(),
            group: RwLock::new(None),
            this: this.clone(),
        })
    }

    /// The state is carried at other times from now on; at once when that is due.
    pub fn set_compaction(&self, compaction: MetaCompaction) {
        *self.compaction.lock() = with_defaults(compaction);
        let mut state = self.state.lock();
        // Nobody applies anything meanwhile: there is nobody to wait for it.
        drop(self.carry_if_due(&mut state));
    }

    /// Begins with that state, where a checkpoint says that it stands, and carries later ones under that owner.
    pub fn begin(&self, owner: Owner, meta: Meta, checkpoint: Checkpoint) {
        let mut state = self.state.lock();
        state.owner = Some(owner);
        state.meta = meta;
        state.covered = checkpoint.at.index;
        state.checkpoint = checkpoint;
        self.publish(&state);
    }

    /// The replica runs.
    pub fn started(&self, group: Group) {
        *self.group.write() = Some(group);
    }

    /// The replica does not run any more.
    pub fn ended(&self) {
        *self.group.write() = None;
    }

    /// The group is not this server's any more: nothing is known of its state here.
    pub fn left(&self) {
        self.ended();
        let mut state = self.state.lock();
        state.owner = None;
        state.meta = Meta::default();
        state.checkpoint = Checkpoint::default();
        state.changes.clear();
        (state.entries, state.bytes, state.covered) = (0, 0, 0);
        self.publish(&state);
        self.role.send_replace(Role::Leaderless);
    }

    /// The replica, once it runs.
    pub fn group(&self) -> Option<Group> {
        self.group.read().clone()
    }

    /// The state as it is committed.
    pub fn meta(&self) -> Arc<Meta> {
        Arc::clone(&self.published.borrow())
    }

    /// Changes with the state.
    pub fn changes(&self) -> watch::Receiver<Arc<Meta>> {
        self.published.subscribe()
    }

    /// Changes with the role.
    pub fn roles(&self) -> watch::Receiver<Role> {
        self.role.subscribe()
    }

    /// Whether this server leads the meta group, with all that was committed applied.
    pub fn leads(&self) -> bool {
        matches!(*self.role.borrow(), Role::Leader { .. })
    }

    /// Since when this server leads, if it does.
    pub fn led_since(&self) -> Option<Time> {
        *self.led_since.lock()
    }

    fn publish(&self, state: &State) {
        self.published.send_replace(Arc::new(state.meta.clone()));
    }

    /// Proposes a command. `None` when there is no replica here.
    pub fn begin_proposal(&self, command: &Command, within: Duration) -> Option<UnderWay> {
        let group = self.group()?;
        let (sender, receiver) = oneshot::channel();
        group.propose(command.encode().into(), within, move |outcome| {
            // Whoever proposed may have gone.
            let _ = sender.send(outcome);
        });
        Some(UnderWay(receiver))
    }

    /// What a proposed command changed.
    pub async fn outcome(&self, under_way: UnderWay) -> Result<Vec<Change>, ProposeError> {
        match under_way.0.await {
            Ok(Outcome::Committed(at)) => {
                let state = self.state.lock();
                let changes = state.changes.get(&at.index).cloned();
                changes.ok_or(ProposeError::Unknown)
            }
            Ok(Outcome::Refused { .. }) => Err(ProposeError::NotLeader),
            Ok(Outcome::Unknown) | Err(_) => Err(ProposeError::Unknown),
        }
    }

    /// How the state was last carried.
    pub fn snapshot_stats(&self) -> MetaSnapshotStats {
        let state = self.state.lock();
        let (last_time, took) = state.carried.unwrap_or_default();
        MetaSnapshotStats {
            pending_entries: state.entries,
            pending_size: state.bytes as u64,
            last_time,
            last_duration: i64::try_from(took.as_nanos()).unwrap_or(i64::MAX),
        }
    }

    /// Carries the state now, so that the journal may forget the entries that led to it. When it is carried already, the group hears of that once more: it may not have run
    /// when it was told.
    pub fn carry(&self) {
        let mut state = self.state.lock();
        if state.covered < state.checkpoint.at.index {
            return self.carry_state(&mut state, None);
        }
        let covered = state.checkpoint.clone();
        drop(state);
        if let Some(group) = self.group().filter(|_| covered.at.index > 0) {
            group.released(covered);
        }
    }

    /// Carries the state when that is due. With what hears of its end, when that is to be waited for.
    fn carry_if_due(&self, state: &mut State) -> Option<oneshot::Receiver<Result<(), String>>> {
        let MetaCompaction {
            entries,
            bytes,
            waits,
        } = *self.compaction.lock();
        let is_due = entries.is_some_and(|max| state.entries >= max)
            || bytes.is_some_and(|max| state.bytes as u64 >= max);
        if !is_due || state.carrying {
            return None;
        }
        if !waits {
            self.carry_state(state, None);
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        self.carry_state(state, Some(sender));
        Some(receiver)
    }

    fn carry_state(&self, state: &mut State, told: Option<oneshot::Sender<Result<(), String>>>) {
        let Some(owner) = state.owner else {
            return;
        };
        if state.carrying && told.is_none() {
            return;
        }
        state.carrying = true;
        (state.entries, state.bytes) = (0, 0);
        let bytes = encode(&state.meta, &state.checkpoint);
        let index = state.checkpoint.at.index;
        let sink: Arc<dyn CommitSink> = Arc::new(Carried {
            machine: self.this.clone(),
            owner,
            checkpoint: state.checkpoint.clone(),
            begun: Instant::now(),
            told: Mutex::new(told),
        });
        if let Err(error) = self.engine.carry_state(owner, index, bytes, &sink) {
            state.carrying = false;
            tracing::error!("The state of the meta group could not be carried: {error}");
        }
    }

    fn take(&self, applied: Applied, state: &mut State) {
        let index = applied.at.index;
        if applied.at <= state.checkpoint.at {
            return;
        }
        state.checkpoint.advance(&applied);
        let changes = match &applied.content {
            Content::Command(bytes) => match Command::decode(bytes) {
                Ok(command) => {
                    state.bytes += bytes.len();
                    state.meta.apply(index, &command)
                }
                // The same bytes on every server, and so the same on every server of this version.
                Err(error) => {
                    tracing::error!("Entry {index} of the meta group cannot be read: {error}");
                    state.meta.pass(index);
                    Vec::new()
                }
            },
            Content::Blank | Content::Members(_) => {
                state.meta.pass(index);
                Vec::new()
            }
        };
        state.entries += 1;
        state.changes.insert(index, changes);
        while state.changes.len() > CHANGES_KEPT {
            state.changes.pop_first();
        }
    }
}

impl Machine for MetaMachine {
    fn apply(&self, batch: Vec<Applied>) -> Work<'_> {
        let mut state = self.state.lock();
        for applied in batch {
            self.take(applied, &mut state);
        }
        self.publish(&state);
        match self.carry_if_due(&mut state) {
            None => Box::pin(ready(Ok(()))),
            Some(carried) => Box::pin(async move {
                // One that fails is told of in the log, and tried again when it is due again.
                let _ = carried.await;
                Ok(())
            }),
        }
    }

    fn role(&self, role: Role) {
        if let Role::Stopped { reason } = &role {
            tracing::error!("The meta group's replica on this server stopped: {reason}");
        }
        let leads = matches!(role, Role::Leader { .. });
        *self.led_since.lock() = leads.then(now);
        self.role.send_replace(role);
    }

    fn manifest(&self) -> ManifestWork<'_> {
        let state = self.state.lock();
        let content = encode(&state.meta, &state.checkpoint);
        let manifest = match content.len() <= MANIFEST_BYTES_MAX {
            true => Ok(Manifest {
                checkpoint: state.checkpoint.clone(),
                content,
            }),
            false => {
                let reason = format!("its state has {} bytes", content.len());
                Err(MachineFailed(reason))
            }
        };
        Box::pin(ready(manifest))
    }

    fn install(&self, manifest: Manifest, from: &str) -> Work<'_> {
        let from = from.to_owned();
        Box::pin(async move {
            let failed = |reason: String| MachineFailed(reason);
            let (meta, checkpoint) =
                decode(&manifest.content).map_err(|error| failed(error.to_string()))?;
            let (sender, receiver) = oneshot::channel();
            {
                let mut state = self.state.lock();
                if checkpoint.at <= state.checkpoint.at {
                    return Ok(());
                }
                tracing::info!("Took over the state of the meta group from {from:?}");
                state.meta = meta;
                state.checkpoint = checkpoint;
                self.publish(&state);
                self.carry_state(&mut state, Some(sender));
            }
            match receiver.await {
                Ok(carried) => carried.map_err(failed),
                Err(_) => Err(failed("it could not be carried".to_owned())),
            }
        })
    }
}

/// Hears that a carried state is durable.
struct Carried {
    /// The journal keeps who hears of commits, and the machine keeps the journal.
    machine: Weak<MetaMachine>,
    /// Whose log it covers; the group may have been left meanwhile, and another one joined.
    owner: Owner,
    checkpoint: Checkpoint,
    begun: Instant,
    told: Mutex<Option<oneshot::Sender<Result<(), String>>>>,
}

impl Carried {
    fn tell(&self, result: Result<(), String>) {
        if let Some(told) = self.told.lock().take() {
            // Whoever installed it may have gone.
            let _ = told.send(result);
        }
    }
}

impl CommitSink for Carried {
    fn committed(&self, _commits: &[Commit]) {
        if let Some(machine) = self.machine.upgrade() {
            let is_current = {
                let mut state = machine.state.lock();
                state.carrying = false;
                state.carried = Some((now(), self.begun.elapsed()));
                let is_current = state.owner == Some(self.owner);
                if is_current {
                    state.covered = state.covered.max(self.checkpoint.at.index);
                }
                is_current
            };
            if let Some(group) = machine.group().filter(|_| is_current) {
                group.released(self.checkpoint.clone());
            }
        }
        self.tell(Ok(()));
    }

    fn failed(&self, error: &JournalError) {
        if let Some(machine) = self.machine.upgrade() {
            machine.state.lock().carrying = false;
        }
        self.tell(Err(error.to_string()));
    }
}
