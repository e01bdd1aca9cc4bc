//! What the groups have committed, as their replicas were told, and what a stream must be that applies all of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use raft::group::{
    Applied, Content, GroupNumber, Machine, Manifest, ManifestWork, Position, Role, Work,
};
use storage::store::{Accounting, Limits, MemStore, Message};

use crate::jetstream::core::{
    Effects, Event, LogPlace, Step, StreamCore, StreamReply, StreamRequest, World,
};
use crate::jetstream::replication::stream::machine::StreamMachine;
use crate::jetstream::types::{Storage, StreamConfig};

/// When every stream of a simulation was created.
pub(super) const CREATED_NS: i64 = 1_700_000_000_000_000_000;

/// What was committed in each group.
#[derive(Default)]
pub(super) struct Committed {
    groups: Mutex<BTreeMap<GroupNumber, BTreeMap<u64, Applied>>>,
    /// Two replicas were told different things.
    broken: Mutex<Option<String>>,
}

impl Committed {
    fn take(&self, server: &str, group: GroupNumber, batch: &[Applied]) {
        let mut groups = self.groups.lock();
        let log = groups.entry(group).or_default();
        for applied in batch {
            let index = applied.at.index;
            let known = log.entry(index).or_insert_with(|| applied.clone());
            if known != applied {
                let found = format!("{server} was told another entry {index} of group {group}");
                self.broken.lock().get_or_insert(found);
            }
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        self.broken.lock().take().map_or(Ok(()), Err)
    }

    fn entry(&self, group: GroupNumber, index: u64) -> Option<Applied> {
        self.groups.lock().get(&group)?.get(&index).cloned()
    }
}

/// A state machine that tells what it is told.
pub(super) struct Tap {
    pub(super) server: String,
    pub(super) group: GroupNumber,
    pub(super) committed: Arc<Committed>,
    pub(super) machine: StreamMachine,
}

impl Machine for Tap {
    fn apply(&self, batch: Vec<Applied>) -> Work<'_> {
        self.committed.take(&self.server, self.group, &batch);
        self.machine.apply(batch)
    }

    fn role(&self, role: Role) {
        self.machine.role(role);
    }

    fn manifest(&self) -> ManifestWork<'_> {
        self.machine.manifest()
    }

    fn install(&self, manifest: Manifest, from: &str) -> Work<'_> {
        self.machine.install(manifest, from)
    }
}

/// Nobody listens, and nothing is random.
struct Nowhere;

impl World for Nowhere {
    fn interested(&self, _subject: &[u8]) -> bool {
        false
    }

    fn is_heard(&self, _subject: &[u8], _group: &[u8]) -> bool {
        false
    }

    fn random(&self) -> u64 {
        0
    }
}

/// A stream that applies all that its group has committed, and remembers everything that it ever stored.
pub(super) struct Oracle {
    group: GroupNumber,
    committed: Arc<Committed>,
    pub(super) core: StreamCore,
    /// By sequence.
    pub(super) history: BTreeMap<u64, Message>,
    /// After every entry.
    digests: Vec<u64>,
    floors: BTreeMap<String, u64>,
}

impl Oracle {
    pub(super) fn new(
        group: GroupNumber,
        config: StreamConfig,
        committed: &Arc<Committed>,
    ) -> Self {
        let accounting = match config.storage {
            Storage::File => Accounting::File,
            Storage::Memory => Accounting::Memory,
        };
        let store = Box::new(MemStore::counting(Limits::default(), accounting));
        let core = StreamCore::create(config, "", CREATED_NS, store).expect("creates");
        Self {
            group,
            committed: Arc::clone(committed),
            digests: vec![core.digest().digest],
            core,
            history: BTreeMap::new(),
            floors: BTreeMap::new(),
        }
    }

    /// Applies what was committed since.
    pub(super) fn advance(&mut self) -> Result<(), String> {
        while let Some(applied) = self
            .committed
            .entry(self.group, self.core.applied_index() + 1)
        {
            let Position { index, term } = applied.at;
            let before = self.core.store().state().last_sequence;
            let entry = match &applied.content {
                Content::Command(entry) => Some(entry),
                Content::Blank | Content::Members(_) => None,
            };
            let term = Some(term);
            let applied = self.core.replay_committed(LogPlace { index, term }, entry);
            applied.map_err(|error| error.to_string())?;
            let store = self.core.store();
            for sequence in before + 1..=store.state().last_sequence {
                let message = store.load(sequence).map_err(|error| error.to_string())?;
                self.history
                    .extend(message.map(|message| (sequence, message)));
            }
            self.digests.push(self.core.digest().digest);
        }
        self.check_floors()
    }

    /// The digest after an entry; nothing when nobody was told of it yet.
    pub(super) fn digest_at(&self, index: u64) -> Option<u64> {
        self.digests.get(usize::try_from(index).ok()?).copied()
    }

    /// No consumer goes back.
    fn check_floors(&mut self) -> Result<(), String> {
        let mut effects = Effects::default();
        let mut step = Step {
            now_ns: CREATED_NS,
            world: &Nowhere,
            effects: &mut effects,
        };
        let (offset, limit) = (0, usize::MAX);
        let request = StreamRequest::ConsumerInfos { offset, limit };
        let asked = Event::Request { token: 1, request };
        self.core.handle(asked, &mut step);
        let replies = effects.replies.into_iter();
        for (_, reply) in replies {
            let StreamReply::ConsumerInfos { infos, .. } = reply else {
                continue;
            };
            for info in infos {
                let floor = info.ack_floor.stream_seq;
                let known = self.floors.entry(info.name.clone()).or_default();
                if floor < *known && !super::clients::may_go_back(&info.name) {
                    let name = info.name;
                    return Err(format!(
                        "the ack floor of {name} goes from {known} to {floor}"
                    ));
                }
                *known = floor;
            }
        }
        Ok(())
    }
}
