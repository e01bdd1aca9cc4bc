//! This server's replica of the meta group: what is left of it at a start, how it is founded or joined, and whom it takes in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use raft::group::{Begin, Checkpoint, Group, GroupNumber, GroupSpec, Groups, Members, Role};
use raft::log::{LogImage, recover_from};
use raft::types::NodeId;
use storage::engine::FileEngine;
use storage::journal::{Commit, CommitSink, Damage, JournalError, Owner, OwnerReplay};
use tokio::sync::oneshot;

use super::super::meta::{Change, Command, Meta, PeerProfile};
use super::assembly::{Attempt, MetaHost};
use super::founding::{Proposal, State};
use super::identity::Identity;
use super::meta_machine::{MetaMachine, decode};
use super::proposer::Proposer;

/// Whose frames this server's identity is in the journal.
const IDENTITY_OWNER: Owner = Owner(1);
/// Owners of logs of the meta group: one is used, and another one after it was lost.
const LOG_OWNERS: std::ops::RangeInclusive<u8> = 2..=15;
/// How long a new member may take to catch up.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(20);

/// What an earlier run left of the meta group.
pub(crate) struct Remains {
    /// Owners that hold something in the journal.
    used: BTreeSet<u8>,
    identity_index: u64,
    whole: Option<Whole>,
}

/// A replica that can go on.
struct Whole {
    identity: Identity,
    image: LogImage,
    meta: Meta,
    checkpoint: Option<Checkpoint>,
}

impl Remains {
    /// Takes it out of what the journal holds.
    pub fn of(others: &mut BTreeMap<Owner, OwnerReplay>, damage: &[Damage]) -> Self {
        let used = LOG_OWNERS.filter(|owner| others.contains_key(&Owner((*owner).into())));
        let used = used.collect();
        let kept = others.remove(&IDENTITY_OWNER).and_then(|kept| kept.carry);
        let identity_index = kept.as_ref().map_or(0, |kept| kept.index);
        let whole = kept.and_then(|kept| match Whole::of(&kept.payload, others, damage) {
            Ok(whole) => Some(whole),
            Err(reason) => {
                tracing::error!(
                    "What this server had of the JetStream meta group cannot be used, it joins anew: {reason}"
                );
                None
            }
        });
        Self {
            used,
            identity_index,
            whole,
        }
    }
}

impl Whole {
    fn of(
        identity: &[u8],
        others: &mut BTreeMap<Owner, OwnerReplay>,
        damage: &[Damage],
    ) -> Result<Self, String> {
        let identity = Identity::decode(identity).map_err(|error| error.to_string())?;
        let owner = Owner(identity.owner.into());
        let frames = others.remove(&owner).unwrap_or_default();
        let carried = frames
            .carry
            .as_ref()
            .map(|carried| decode(&carried.payload));
        let image = recover_from(owner, frames, damage).map_err(|error| error.to_string())?;
        if image.is_blank() {
            return Err("its log is not there".to_owned());
        }
        let (meta, checkpoint) = match carried {
            Some(carried) => {
                let (meta, checkpoint) = carried.map_err(|error| error.to_string())?;
                (meta, Some(checkpoint))
            }
            None if identity.founders.is_empty() => (Meta::default(), None),
            None => {
                let (meta, checkpoint) = founding(&identity.founders);
                (meta, Some(checkpoint))
            }
        };
        Ok(Self {
            identity,
            image,
            meta,
            checkpoint,
        })
    }
}

/// What a group begins with: the same on all of its founders.
fn founding(founders: &BTreeSet<String>) -> (Meta, Checkpoint) {
    let meta = Meta::founding(founders.iter().map(String::as_str));
    let peers = meta.peers().iter();
    let members = Members::of_voters(peers.map(|(server, peer)| (peer.node, server.clone())));
    (meta, Checkpoint::founding(0, members))
}

/// Holds this server's replica of the meta group.
pub(super) struct Host {
    own: String,
    groups: Arc<Groups>,
    engine: Arc<FileEngine>,
    machine: Arc<MetaMachine>,
    proposer: Arc<Proposer>,
    kept: Mutex<Kept>,
}

struct Kept {
    used: BTreeSet<u8>,
    identity_index: u64,
    identity: Option<Identity>,
}

impl Kept {
    /// The owners of logs that nobody needs, now that a durable identity names another one.
    fn lost(&self) -> Vec<Owner> {
        let Some(identity) = &self.identity else {
            return Vec::new();
        };
        let lost = self.used.iter().filter(|used| **used != identity.owner);
        lost.map(|owner| Owner((*owner).into())).collect()
    }
}

impl Host {
    /// On the server of that name. A replica that an earlier run left goes on, and the state says to which group it belongs.
    pub async fn start(
        own: String,
        groups: Arc<Groups>,
        engine: Arc<FileEngine>,
        machine: Arc<MetaMachine>,
        proposer: Arc<Proposer>,
        remains: Remains,
    ) -> (Arc<Self>, State) {
        let host = Arc::new(Self {
            own,
            groups,
            engine,
            machine,
            proposer,
            kept: Mutex::new(Kept {
                used: remains.used,
                identity_index: remains.identity_index,
                identity: None,
            }),
        });
        let Some(whole) = remains.whole else {
            return (host, State::Blank);
        };
        let founding = whole.identity.founding;
        match host.go_on(whole).await {
            Ok(()) => (host, State::Belongs { founding }),
            Err(error) => {
                tracing::error!("This server joins the JetStream meta group anew: {error}");
                (host, State::Blank)
            }
        }
    }

    async fn go_on(&self, whole: Whole) -> Result<(), String> {
        let Whole {
            identity,
            image,
            meta,
            checkpoint,
        } = whole;
        let owner = Owner(identity.owner.into());
        let stands = checkpoint.clone().unwrap_or_default();
        self.machine.begin(owner, meta, stands);
        let spec = GroupSpec {
            number: GroupNumber::META,
            owner,
            node: identity.node,
            begin: Begin::Again,
            image,
            checkpoint,
        };
        self.run(spec).await?;
        self.kept.lock().identity = Some(identity);
        self.forget_lost();
        Ok(())
    }

    async fn run(&self, spec: GroupSpec) -> Result<(), String> {
        let machine: Arc<dyn raft::group::Machine> = self.machine.clone();
        let started = self.groups.start(spec, machine).await;
        let group = started.map_err(|error| error.to_string())?;
        self.machine.started(group);
        Ok(())
    }

    /// An owner whose name no log in the journal has.
    fn fresh_owner(&self) -> Result<u8, String> {
        let mut kept = self.kept.lock();
        let mut owners = LOG_OWNERS;
        let owner = owners
            .find(|owner| !kept.used.contains(owner))
            .ok_or("the journal holds too many lost logs of the meta group")?;
        kept.used.insert(owner);
        Ok(owner)
    }

    /// Keeps the identity in the journal; durable when it returns.
    async fn keep(&self, identity: &Identity) -> Result<(), String> {
        let index = {
            let mut kept = self.kept.lock();
            kept.identity_index += 1;
            kept.identity_index
        };
        let (sender, receiver) = oneshot::channel();
        let sink: Arc<dyn CommitSink> = Arc::new(Told(Mutex::new(Some(sender))));
        let bytes = identity.encode();
        self.engine
            .carry_state(IDENTITY_OWNER, index, bytes, &sink)
            .map_err(|error| error.to_string())?;
        let told = receiver.await;
        told.map_err(|_| "the journal ended".to_owned())??;
        self.kept.lock().identity = Some(identity.clone());
        self.forget_lost();
        Ok(())
    }

    /// Lets the journal forget the logs of earlier identities. Not before another identity is durable: a start that finds one of them without its log must not take it
    /// for its own, whose votes it would have forgotten. Their owners are not used again in this run: what they wrote may still be found by the next one.
    fn forget_lost(&self) {
        for lost in self.kept.lock().lost() {
            self.engine.forget_owner(lost);
        }
    }

    fn group(&self) -> Result<Group, String> {
        self.machine
            .group()
            .ok_or_else(|| "no group here".to_owned())
    }

    fn check_leads(&self) -> Result<(), String> {
        match self.machine.leads() {
            true => Ok(()),
            false => Err("this server does not lead the meta group".to_owned()),
        }
    }
}

impl MetaHost for Host {
    fn found(&self, proposal: Proposal) -> Attempt<'_, ()> {
        Box::pin(async move {
            let (meta, checkpoint) = founding(&proposal.founders);
            let node = meta.peers().get(&self.own).map(|peer| peer.node);
            let identity = Identity {
                owner: self.fresh_owner()?,
                node: node.ok_or("this server is not among the founders")?,
                founding: proposal.founding,
                founders: proposal.founders,
            };
            self.keep(&identity).await?;
            let owner = Owner(identity.owner.into());
            self.machine.begin(owner, meta, checkpoint.clone());
            self.run(GroupSpec {
                number: GroupNumber::META,
                owner,
                node: identity.node,
                begin: Begin::Founder,
                image: LogImage::default(),
                checkpoint: Some(checkpoint),
            })
            .await
        })
    }

    fn join(&self, node: NodeId, founding: u64) -> Attempt<'_, ()> {
        Box::pin(async move {
            let identity = Identity {
                owner: self.fresh_owner()?,
                node,
                founding,
                founders: BTreeSet::new(),
            };
            self.keep(&identity).await?;
            let owner = Owner(identity.owner.into());
            self.machine
                .begin(owner, Meta::default(), Checkpoint::default());
            self.run(GroupSpec {
                number: GroupNumber::META,
                owner,
                node,
                begin: Begin::Joiner,
                image: LogImage::default(),
                checkpoint: None,
            })
            .await
        })
    }

    fn register(&self, server: String) -> Attempt<'_, NodeId> {
        Box::pin(async move {
            self.check_leads()?;
            let profile = PeerProfile {
                server,
                ..PeerProfile::default()
            };
            let command = Command::PeerPut {
                profile,
                renew: true,
            };
            let changes = self.proposer.propose(&command).await;
            let changes = changes.map_err(|error| error.to_string())?;
            let node = changes.iter().find_map(|change| match change {
                Change::PeerPut { node, .. } => Some(*node),
                _ => None,
            });
            node.ok_or_else(|| "it was given no id".to_owned())
        })
    }

    fn admit(&self, server: String, node: NodeId) -> Attempt<'_, ()> {
        Box::pin(async move {
            self.check_leads()?;
            let meta = self.machine.meta();
            let registered = meta.peers().get(&server).map(|peer| peer.node);
            if registered != Some(node) {
                return Err("it was given another id".to_owned());
            }
            let group = self.group()?;
            let members = group.members();
            let voters = members.voters().into_iter().filter_map(|node| {
                let server = members.server_of(node)?.to_owned();
                Some((node, server))
            });
            // An earlier id of the server leaves, and so do servers that were removed.
            let known = |name: &String| meta.peers().contains_key(name);
            let mut voters: BTreeMap<NodeId, String> = voters
                .filter(|(_, name)| *name != server && known(name))
                .collect();
            voters.insert(node, server);
            let changed = group.change_members(voters, CATCH_UP_TIMEOUT).await;
            changed.map_err(|error| error.to_string())
        })
    }

    fn is_in_state(&self) -> bool {
        let (meta, node) = (self.machine.meta(), self.node());
        let known = meta.peers().get(&self.own);
        known.is_some_and(|peer| Some(peer.node) == node)
    }

    fn has_leader(&self) -> bool {
        let roles = self.machine.roles();
        let role = roles.borrow();
        matches!(*role, Role::Leader { .. } | Role::Follower { .. })
    }

    fn knows(&self, server: String, node: NodeId) -> Attempt<'_, bool> {
        Box::pin(async move {
            self.check_leads()?;
            // One that does not lead any more may not know who came since.
            let current = self.group()?.read_index().await;
            current.map_err(|error| error.to_string())?;
            let meta = self.machine.meta();
            let known = meta.peers().get(&server);
            Ok(known.is_some_and(|peer| peer.node == node))
        })
    }

    fn leave(&self) -> Attempt<'_, ()> {
        Box::pin(async move {
            self.groups.stop(GroupNumber::META).await;
            self.machine.left();
            // Joining again keeps another identity. Until then a start finds this one, and asks again.
            self.kept.lock().identity = None;
            Ok(())
        })
    }

    fn node(&self) -> Option<NodeId> {
        let group = self.machine.group()?;
        Some(group.myself().node)
    }

    fn is_member(&self) -> bool {
        self.machine
            .group()
            .is_some_and(|group| group.members().is_voter(group.myself().node))
    }
}

/// Hears that something is durable.
struct Told(Mutex<Option<oneshot::Sender<Result<(), String>>>>);

impl Told {
    fn tell(&self, result: Result<(), String>) {
        if let Some(told) = self.0.lock().take() {
            // Whoever waited may have gone.
            let _ = told.send(result);
        }
    }
}

impl CommitSink for Told {
    fn committed(&self, _commits: &[Commit]) {
        self.tell(Ok(()));
    }

    fn failed(&self, error: &JournalError) {
        self.tell(Err(error.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use raft::group::{Channel, GroupsOptions, Outbound};
    use storage::disk::sim::SimDisk;
    use storage::engine::{EngineOptions, Opened, Threads};
    use storage::entropy::SeededEntropy;
    use storage::journal::{Frame, FrameKind};
    use storage::store::FileStore;

    use super::*;
    use crate::config::options::MetaCompaction;

    /// Of a log that nobody has any more.
    const LOST: Owner = Owner(2);

    struct Nobody;

    impl Outbound for Nobody {
        fn send(&self, _to: &str, _channel: Channel, _frame: bytes::Bytes) {}
    }

    struct Ignored;

    impl CommitSink for Ignored {
        fn committed(&self, _commits: &[Commit]) {}

        fn failed(&self, error: &JournalError) {
            panic!("{error}");
        }
    }

    fn open(disk: &SimDisk, run: u64) -> Opened<FileStore> {
        let mut options = EngineOptions::new("/store");
        options.threads = Threads::None;
        options.reserve_bytes = 0;
        options.journal.segment_bytes = 128 * 1024;
        let disk = Arc::new(disk.clone());
        FileEngine::open(disk, options, Arc::new(SeededEntropy::new(run))).expect("the store opens")
    }

    fn log(engine: &FileEngine, owner: Owner, index: u64, bytes: usize) {
        let frame = Frame {
            owner,
            index,
            kind: FrameKind::Entry,
            payload: bytes::Bytes::from(vec![0; bytes]).into(),
        };
        let sink: Arc<dyn CommitSink> = Arc::new(Ignored);
        let submitted = engine.submit_frames([(frame, 0)], &sink);
        submitted.expect("it is taken");
    }

    /// Fills segments with what nobody needs, so that the journal lets go of the oldest.
    fn roll(engine: &FileEngine) {
        const FILLER: Owner = Owner(99);
        for index in 1..=40 {
            log(engine, FILLER, index, 32 * 1024);
            engine.release_frames(FILLER, index);
        }
    }

    fn used(opened: &mut Opened<FileStore>) -> Vec<u8> {
        let remains = Remains::of(&mut opened.others, &opened.damage);
        remains.used.into_iter().collect()
    }

    #[test]
    fn the_journal_forgets_a_lost_log_when_the_server_is_in_the_group_under_another_identity() {
        let disk = SimDisk::new(1);
        let engine = open(&disk, 1).engine;
        log(&engine, LOST, 1, 100);
        roll(&engine);
        engine.close();
        drop(engine);
        let mut opened = open(&disk, 2);
        let engine = Arc::clone(&opened.engine);
        let remains = Remains::of(&mut opened.others, &opened.damage);
        assert_eq!(remains.used, BTreeSet::from([2]), "it is kept until then");
        let runtime = raft::runtime::start(1).expect("a runtime starts");
        let (journal, handle) = (Arc::clone(&engine), runtime.handle().clone());
        let outbound: Arc<dyn Outbound> = Arc::new(Nobody);
        let groups = Groups::new(GroupsOptions::new("a"), journal, outbound, handle.clone());
        let groups = Arc::new(groups.expect("the options make sense"));
        let machine = MetaMachine::new(Arc::clone(&engine), MetaCompaction::default());
        let proposer = Proposer::new(Arc::clone(&machine), handle);
        let own = "a".to_owned();
        let (host, state) = runtime.block_on(Host::start(
            own.clone(),
            Arc::clone(&groups),
            Arc::clone(&engine),
            Arc::clone(&machine),
            proposer,
            remains,
        ));
        assert_eq!(state, State::Blank);
        let proposal = Proposal {
            founding: 7,
            by: own.clone(),
            founders: BTreeSet::from([own]),
        };
        let founded = runtime.block_on(host.found(proposal));
        founded.expect("it is founded");
        roll(&engine);
        runtime.block_on(groups.close());
        machine.ended();
        engine.close();
        drop((host, groups, machine, engine, opened));
        drop(runtime);
        assert_eq!(used(&mut open(&disk, 3)), [3], "only the new log is there");
    }
}
