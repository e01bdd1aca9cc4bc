//! This server's part in the JetStream of a cluster: what is started, in which order, and ended.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use raft::group::{Groups, GroupsOptions, Outbound, Role};
use raft::log::LogJournal;
use storage::engine::Recovered;
use storage::journal::{Damage, Owner, OwnerReplay};
use storage::store::FileStore;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::super::accounts::Accounts;
use super::super::api::elsewhere::Elsewhere;
use super::super::api::handler::{ClusterInfos, Server, Steward, StreamMaker};
use super::super::api::workers::ApiQueue;
use super::super::limits::{AccountTiers, ServerLimits};
use super::super::meta::{PeerProfile, Sightings};
use super::super::monitor::{GroupDetails, StreamFault};
use super::super::runtime::StartError;
use super::super::shard::Aside;
use super::super::shard::Streams;
use super::super::types::{ClusterInfo, MetaClusterInfo};
use super::advisories::Advisories;
use super::assembly::{Assembly, MetaHost};
use super::follower::{Follower, FollowerParts};
use super::founding::Standing;
use super::host::{Host, Remains};
use super::landed::LandedStreams;
use super::led::{Around, Own};
use super::maker::ClusterMaker;
use super::members::Members;
use super::meta_machine::MetaMachine;
use super::proposer::Proposer;
use super::removal::take_out_removed;
use super::repairs::Repairs;
use super::replicated::{LinkFetch, Replicated};
use super::reports::Reporter;
use super::room::lead_only_what_can_go_on;
use super::rounds::{be_known, follow, give_what_is_lacked, hear_who_leads, look_who_leads};
use super::router::{Directory, Router};
use super::shown::Shown;
use super::steward::GroupSteward;
use super::stream::machine::Pace;
use super::stream::replica::{Replicas, StreamReplica};
use super::view::View;
use super::{ask, currency, restores};
use crate::cluster::link::{FrameSink, Links};
use crate::config::options::MetaCompaction;

/// Threads of the groups.
const RAFT_THREADS: usize = 2;
/// How often is looked whether what is committed has been applied.
const CURRENT_PAUSE: Duration = Duration::from_millis(50);
/// How long a server may take to apply what is committed, and still count as current.
const CURRENT_PATIENCE: Duration = Duration::from_millis(500);

/// What JetStream is told of the cluster that it is part of.
#[derive(Clone)]
pub struct ClusterSetup {
    /// The name of the cluster.
    pub name: String,
    /// The links with the other servers.
    pub links: Arc<Links>,
    /// How many servers the cluster has when it begins.
    pub expected: usize,
    /// This server's tags, in lower case.
    pub tags: Vec<String>,
    /// The tag in which the servers of a stream's replicas must differ; empty for none.
    pub unique_tag: String,
    /// When the log of the meta group is compacted.
    pub compaction: MetaCompaction,
    /// How much of what replicas elsewhere lack may be on its way to them.
    pub catchup_bytes_max: u64,
    /// Where waiting happens that is not the groups'.
    pub runtime: tokio::runtime::Handle,
}

/// What a cluster is made of on this server.
pub(crate) struct Parts {
    pub own: String,
    pub setup: ClusterSetup,
    pub accounts: Arc<Accounts>,
    pub streams: Arc<Streams>,
    /// Replicas of streams that a start found.
    pub replicas: Vec<Recovered<FileStore>>,
    /// Streams that were set aside in earlier runs.
    pub aside: Vec<Aside>,
    pub others: BTreeMap<Owner, OwnerReplay>,
    pub damage: Vec<Damage>,
    pub profile: PeerProfile,
    pub limits: ServerLimits,
}

/// This server's part in the JetStream of a cluster.
pub(crate) struct Cluster {
    /// What this server says of itself.
    profile: watch::Sender<PeerProfile>,
    groups: Arc<Groups>,
    machine: Arc<MetaMachine>,
    assembly: Arc<Assembly>,
    router: Arc<Router>,
    view: Arc<View>,
    accounts: Arc<Accounts>,
    maker: Arc<ClusterMaker>,
    steward: Arc<GroupSteward>,
    replicated: Arc<Replicated>,
    repairs: Arc<Repairs>,
    follower: Arc<Follower>,
    shown: Arc<Shown>,
    links: Arc<Links>,
    /// Links hold it weakly.
    _sink: Arc<dyn FrameSink>,
    raft: Mutex<Option<tokio::runtime::Runtime>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Cluster {
    /// Starts the groups and brings the server together with the others. Waits for disks.
    pub fn start(parts: Parts) -> Result<Arc<Self>, StartError> {
        let Parts {
            own,
            setup,
            accounts,
            streams,
            replicas,
            aside,
            mut others,
            damage,
            profile,
            limits,
        } = parts;
        let engine = Arc::clone(streams.engine());
        let raft = raft::runtime::start(RAFT_THREADS)?;
        let (links, runtime) = (setup.links, setup.runtime);
        let journal: Arc<dyn LogJournal> = engine.clone();
        let outbound: Arc<dyn Outbound> = links.clone();
        let options = GroupsOptions::new(own.clone());
        let groups = Groups::new(options, journal, outbound, raft.handle().clone());
        let groups = Arc::new(groups.map_err(|error| StartError::Cluster(error.to_string()))?);
        let sink: Arc<dyn FrameSink> = groups.clone();
        links.deliver_to(&sink);
        let machine = MetaMachine::new(Arc::clone(&engine), setup.compaction);
        let remains = Remains::of(&mut others, &damage);
        let proposer = Proposer::new(Arc::clone(&machine), runtime.clone());
        let reporter = Arc::new(Reporter {
            machine: Arc::clone(&machine),
            proposer: Arc::clone(&proposer),
            links: Arc::clone(&links),
        });
        reporter.listen(&runtime);
        let starting = Host::start(
            own.clone(),
            Arc::clone(&groups),
            Arc::clone(&engine),
            Arc::clone(&machine),
            Arc::clone(&proposer),
            remains,
        );
        let (host, state) = runtime.block_on(starting);
        let standing = Standing {
            server: own.clone(),
            expected: setup.expected,
            state,
        };
        let as_host: Arc<dyn MetaHost> = host;
        let assembly = Assembly::new(Arc::clone(&links), as_host, standing, runtime.clone());
        let view = View::new(
            Arc::from(own.as_str()),
            Arc::clone(&links),
            Arc::clone(&machine),
            Arc::clone(&accounts),
            Arc::clone(&streams),
        );
        let directory: Arc<dyn Directory> = view.clone();
        let router = Router::new(own.as_str(), Arc::clone(&links), directory, runtime.clone());
        let landed = Arc::new(LandedStreams::default());
        let maker = Arc::new(ClusterMaker {
            cluster: setup.name.clone(),
            unique_tag: setup.unique_tag.clone(),
            limits,
            machine: Arc::clone(&machine),
            proposer: Arc::clone(&proposer),
            reporter: Arc::clone(&reporter),
            view: Arc::downgrade(&view),
            streams: Arc::clone(&streams),
            landed: Arc::clone(&landed),
            own: own.clone(),
            links: Arc::clone(&links),
            runtime: runtime.clone(),
        });
        let shared = Replicas {
            groups: Arc::clone(&groups),
            shards: Arc::clone(streams.shards()),
            sources: Arc::default(),
            fetch: Arc::new(LinkFetch(Arc::clone(&links))),
            pace: Pace::default(),
        };
        let replicated = Arc::new(Replicated {
            streams: Arc::clone(&streams),
            engine,
            replicas: shared,
            view: Arc::clone(&view),
            runtime: runtime.clone(),
            damage,
            running: Mutex::new(HashMap::new()),
        });
        let shown = Arc::new(Shown {
            own: Arc::from(own.as_str()),
            cluster: setup.name,
            machine: Arc::clone(&machine),
            links: Arc::clone(&links),
            replicated: Arc::downgrade(&replicated),
            runtime: runtime.clone(),
            seen: Mutex::default(),
        });
        let advisories = Arc::new(Advisories {
            own: Arc::from(own.as_str()),
            cluster: shown.cluster.clone(),
            accounts: Arc::clone(&accounts),
            streams: Arc::clone(&streams),
            shown: Arc::clone(&shown),
            stalled: Mutex::default(),
        });
        let steward = Arc::new(GroupSteward {
            own: own.clone(),
            machine: Arc::clone(&machine),
            view: Arc::downgrade(&view),
            replicated: Arc::downgrade(&replicated),
            maker: Arc::clone(&maker),
            accounts: Arc::clone(&accounts),
            shown: Arc::clone(&shown),
            runtime: runtime.clone(),
        });
        ask::listen(&links, &accounts, &view, &shown);
        give_what_is_lacked(&links, &replicated, setup.catchup_bytes_max, &runtime);
        hear_who_leads(&links, &view);
        currency::listen(&links, &machine, &runtime);
        let repairs = Arc::new(Repairs::default());
        let profile = watch::Sender::new(profile);
        let told = profile.subscribe();
        let follower = Follower::new(FollowerParts {
            replicated: Arc::clone(&replicated),
            own,
            accounts: Arc::clone(&accounts),
            streams,
            links: Arc::clone(&links),
            view: Arc::clone(&view),
            reporter: Arc::clone(&reporter),
            runtime: runtime.clone(),
            landed,
            repairs: Arc::clone(&repairs),
            replicas,
            aside,
        });
        let groups_here = Arc::new(Own {
            machine: Arc::clone(&machine),
            replicated: Arc::clone(&replicated),
        });
        let around = Arc::new(Around {
            view: Arc::clone(&view),
            unique_tag: setup.unique_tag,
            reporter: Arc::clone(&reporter),
        });
        let members = Members::new(groups_here, around, machine.changes());
        let tasks = vec![
            runtime.spawn(Arc::clone(&assembly).run()),
            runtime.spawn(follow(
                Arc::clone(&machine),
                Arc::clone(&links),
                Arc::clone(&follower),
            )),
            runtime.spawn(members.run()),
            runtime.spawn(take_out_removed(
                Arc::clone(&machine),
                Arc::downgrade(&view),
            )),
            runtime.spawn(lead_only_what_can_go_on(Arc::clone(&replicated))),
            runtime.spawn(look_who_leads(
                Arc::clone(&machine),
                Arc::clone(&follower),
                Arc::clone(&advisories),
            )),
            runtime.spawn(advisories.watch_meta(Arc::clone(&machine))),
            runtime.spawn(be_known(told, reporter)),
        ];
        Ok(Arc::new(Self {
            profile,
            groups,
            machine,
            assembly,
            router,
            view,
            accounts,
            maker,
            steward,
            replicated,
            repairs,
            follower,
            shown,
            links,
            _sink: sink,
            raft: Mutex::new(Some(raft)),
            tasks: Mutex::new(tasks),
        }))
    }

    /// The server says something else of itself from now on.
    pub fn change_profile(&self, change: impl FnOnce(&mut PeerProfile)) {
        self.profile.send_modify(change);
    }

    /// An account has JetStream from now on, with all that is here of it.
    pub fn give_to(&self, account: &str, limits: AccountTiers) {
        self.follower.give_to(account, limits);
    }

    /// An account has JetStream no more. What is here of it stays. Waits for shards.
    pub fn take_from(&self, account: &str) {
        self.follower.take_from(account);
    }

    /// The meta group's state is carried at other times from now on.
    pub fn set_compaction(&self, compaction: MetaCompaction) {
        self.machine.set_compaction(compaction);
    }

    /// Makes streams for the API.
    pub fn maker(&self) -> Arc<dyn StreamMaker> {
        self.maker.clone()
    }

    /// Looks after the groups of this server for the API.
    pub fn steward(&self) -> Arc<dyn Steward> {
        self.steward.clone()
    }

    /// Knows who holds copies.
    pub fn infos(&self) -> Arc<dyn ClusterInfos> {
        self.shown.clone()
    }

    /// Knows where API requests belong.
    pub fn elsewhere(&self) -> Arc<dyn Elsewhere> {
        self.router.clone()
    }

    /// The API is there: what other servers carry here is answered from now on.
    pub fn serve(&self, server: &Arc<Server>, queue: Arc<ApiQueue>) {
        self.view.serve(server);
        restores::listen(&self.links, &self.maker, server, &self.accounts);
        self.router.listen(queue);
    }

    /// Whom to tell, on a thread that must not be held up, when this server is removed from the cluster while it runs.
    pub fn on_removal(&self, listener: impl Fn() + Send + Sync + 'static) {
        self.assembly.on_removal(listener);
    }

    /// The server that leads the meta group.
    pub fn meta_leader(&self) -> Option<Arc<str>> {
        self.view.meta_leader()
    }

    /// The meta group, as monitoring shows it.
    pub fn meta_info(&self) -> MetaClusterInfo {
        self.shown.meta()
    }

    /// Whether a copy of the stream is on this server, or is to be.
    pub fn holds(&self, account: &str, stream: &str) -> bool {
        self.shown.holds(account, stream)
    }

    /// Who holds copies of a stream, as this server sees it.
    pub fn seen_here(&self, account: &str, stream: &str) -> Option<ClusterInfo> {
        self.shown.seen_here(account, stream)
    }

    /// Whether this server leads the stream.
    pub fn leads(&self, account: &str, stream: &str) -> bool {
        self.view.leads(account, stream)
    }

    /// What the group of a stream is called.
    pub fn group_name(&self, account: &str, stream: &str) -> Option<String> {
        let meta = self.machine.meta();
        let assigned = meta.stream(account, stream)?;
        Some(assigned.group.name.clone())
    }

    /// The groups that this server takes part in.
    pub fn group_details(&self) -> GroupDetails {
        self.shown.groups()
    }

    /// A stream that is to be here and is not as it is to be.
    pub fn stream_fault(&self) -> Option<StreamFault> {
        self.shown.stream_fault(&self.accounts)
    }

    /// Groups that this server takes part in, the meta group among them.
    pub fn groups(&self) -> usize {
        self.replicated.count() + usize::from(self.machine.group().is_some())
    }

    /// Why the meta group cannot be relied on here, in the reference's words. May wait a moment for this server to catch up.
    pub fn meta_fault(&self) -> Option<String> {
        if let Role::Stopped { .. } = &*self.machine.roles().borrow() {
            return Some("JetStream meta layer is not running".to_owned());
        }
        if !self.is_ready() {
            return Some("JetStream has not established contact with a meta leader".to_owned());
        }
        let committed = || Some(self.machine.group()?.status().committed_index);
        let applied = || Some(self.machine.group()?.status().applied_index);
        let begun = Instant::now();
        let goal = committed();
        while applied() < goal {
            if begun.elapsed() > CURRENT_PATIENCE {
                return Some("JetStream is not current with the meta leader".to_owned());
            }
            std::thread::sleep(CURRENT_PAUSE);
        }
        None
    }

    /// This server's replica of a stream.
    #[cfg(test)]
    pub(super) fn replica(&self, stream: &str) -> Option<StreamReplica> {
        let meta = self.machine.meta();
        let mut streams = meta.all_streams();
        let (of, _) = streams.find(|(of, _)| of.stream == stream)?;
        self.replicated.replica(of.group)
    }

    /// What servers have set aside: where, and why.
    #[cfg(test)]
    pub(super) fn orphans(&self) -> Vec<(String, String)> {
        let meta = self.machine.meta();
        let orphans = meta.orphans().iter();
        orphans
            .map(|((server, _), orphan)| (server.clone(), orphan.reason.clone()))
            .collect()
    }

    /// Takes a stream in as one of which nobody knows whether the state names it.
    #[cfg(test)]
    pub(super) fn land_in_doubt(&self, account: &str, config: super::super::types::StreamConfig) {
        let account = self.accounts.get(account).expect("it has JetStream");
        self.maker.land_in_doubt(&account, config);
    }

    /// A replica of this server that is of no use, and that no other one has replaced yet.
    pub fn fault(&self) -> Option<String> {
        self.repairs.first()
    }

    /// Whether this server belongs to a meta group that has a leader and knows this server as it is: then streams can be put here.
    pub fn is_ready(&self) -> bool {
        let meta = self.machine.meta();
        let known = meta.peers().get(&self.profile.borrow().server);
        if known.is_none_or(|known| known.profile != *self.profile.borrow()) {
            return false;
        }
        let belongs = matches!(
            self.assembly.standing().state,
            super::founding::State::Belongs { .. }
        );
        belongs && self.meta_leader().is_some()
    }

    /// Has a command carried out, if this server leads the meta group.
    #[cfg(test)]
    pub(super) async fn propose(&self, command: &super::super::meta::Command) -> bool {
        self.maker.proposer.propose(command).await.is_ok()
    }

    /// The journal would like to forget what led to the meta group's state.
    pub fn relieve(&self) {
        self.machine.carry();
    }

    /// Where the groups run; nothing when they have ended.
    pub(super) fn raft_runtime(&self) -> Option<tokio::runtime::Handle> {
        let raft = self.raft.lock();
        raft.as_ref().map(|raft| raft.handle().clone())
    }

    /// The meta group, once this server belongs to it.
    pub(super) fn meta_group(&self) -> Option<raft::group::Group> {
        self.machine.group()
    }

    /// The replicas of streams on this server.
    pub(super) fn replicas(&self) -> Vec<StreamReplica> {
        self.replicated.all()
    }

    /// Which servers were seen lately.
    pub(super) fn sightings(&self) -> Sightings {
        self.view.sightings()
    }

    /// Ends the groups of this server. Their logs stay.
    pub fn stop(&self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        self.machine.carry();
        let Some(raft) = self.raft.lock().take() else {
            return;
        };
        let groups = &self.groups;
        let handle = raft.handle();
        // On a thread of its own, as whoever stops the server may be one of a runtime's.
        std::thread::scope(|scope| {
            let closing = scope.spawn(|| {
                handle.block_on(async {
                    self.replicated.stop_all().await;
                    groups.close().await;
                });
            });
            if closing.join().is_err() {
                tracing::error!("The groups of this server did not end in order");
            }
        });
        self.machine.ended();
        self.links.close();
        raft.shutdown_background();
    }
}
