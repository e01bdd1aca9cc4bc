//! Brings the groups that this server leads to the members that they are to have, and the state of the meta group up to what they have come to.
//!
//! # Invariant
//! What is next follows from the meta group's state and from how a leader sees its group now; but for which servers are new to the leader of the meta group,
//! nothing is remembered here. A group does one step at a time, and a step that fails is thought over again after a pause.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use raft::group::{Group, GroupNumber, Member};
use raft::types::NodeId;
use tokio::sync::{Notify, watch};

use super::super::meta::request::servers::{refills, repairs};
use super::super::meta::{
    Command, Form, Meta, PlacementRules, Sightings, Step, StreamAssignment, StreamRef, View,
    is_led, is_online, plan,
};
use super::assembly::{Attempt, random_id};

/// How often groups are looked at that are on their way.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a group is left alone after a step failed.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// How long the members of a group may take to change; they have caught up before.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a leader can do with its group.
pub(super) trait Led: Send + Sync {
    /// How it sees the group. `None` when it does not lead.
    fn view(&self) -> Option<View>;
    /// Takes these in without a vote.
    fn learn(&self, members: Vec<Member>) -> Attempt<'_, ()>;
    /// Makes these the voters, and the only members.
    fn vote(&self, voters: BTreeMap<NodeId, String>) -> Attempt<'_, ()>;
    /// Lets another member lead.
    fn transfer(&self, to: NodeId) -> Attempt<'_, ()>;
}

/// The replicas that this server runs.
pub(super) trait Replicas: Send + Sync {
    /// The one of that group.
    fn replica(&self, group: GroupNumber) -> Option<Arc<dyn Led>>;
}

/// What is known of the cluster, and who is told.
pub(super) trait Surroundings: Send + Sync {
    /// What is known of the servers now.
    fn sightings(&self) -> Sightings;
    /// Changes when a server is reached, or not any more.
    fn reached(&self) -> watch::Receiver<u64>;
    /// The tag in which replicas of a stream must differ; empty for none.
    fn unique_tag(&self) -> &str;
    /// Has the meta group's leader propose a command; ready when that is applied.
    fn report(&self, command: Command) -> Attempt<'_, ()>;
}

impl Led for Group {
    fn view(&self) -> Option<View> {
        View::of_leader(&self.status())
    }

    fn learn(&self, members: Vec<Member>) -> Attempt<'_, ()> {
        Box::pin(async move {
            let added = self.add_learners(members).await;
            added.map_err(|error| error.to_string())
        })
    }

    fn vote(&self, voters: BTreeMap<NodeId, String>) -> Attempt<'_, ()> {
        Box::pin(async move {
            let changed = self.change_members(voters, CHANGE_TIMEOUT).await;
            changed.map_err(|error| error.to_string())
        })
    }

    fn transfer(&self, to: NodeId) -> Attempt<'_, ()> {
        Box::pin(async move {
            let handed_over = self.transfer_leadership(to).await;
            handed_over.map_err(|error| error.to_string())
        })
    }
}

/// Looks after the members of all groups that this server leads.
pub(super) struct Members {
    replicas: Arc<dyn Replicas>,
    surroundings: Arc<dyn Surroundings>,
    meta: watch::Receiver<Arc<Meta>>,
    /// Groups whose next step is being done.
    busy: Mutex<HashSet<GroupNumber>>,
    /// A step was done.
    done: Notify,
    /// The servers of which no stream has to be repaired.
    sound: Mutex<BTreeSet<String>>,
    /// The servers of the cluster that streams were spread over already, once that is known.
    settled: Mutex<Option<BTreeSet<String>>>,
}

/// Something that a leader does.
enum Deed {
    Step(Arc<dyn Led>, Step),
    Report(Command),
    Reports(Vec<Command>),
}

impl Members {
    /// Of these replicas, as that state wants them.
    pub fn new(
        replicas: Arc<dyn Replicas>,
        surroundings: Arc<dyn Surroundings>,
        meta: watch::Receiver<Arc<Meta>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            replicas,
            surroundings,
            meta,
            busy: Mutex::new(HashSet::new()),
            done: Notify::new(),
            sound: Mutex::new(BTreeSet::new()),
            settled: Mutex::new(None),
        })
    }

    /// Goes on until the state is not published any more.
    pub async fn run(self: Arc<Self>) {
        let (mut meta, mut reached) = (self.meta.clone(), self.surroundings.reached());
        loop {
            let now = Arc::clone(&meta.borrow_and_update());
            reached.borrow_and_update();
            let on_their_way = self.look(&now);
            let again = async {
                match on_their_way {
                    true => tokio::time::sleep(LOOK_INTERVAL).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                () = again => {}
                () = self.done.notified() => {}
                changed = meta.changed() => if changed.is_err() {
                    return;
                },
                changed = reached.changed() => if changed.is_err() {
                    return;
                }
            }
        }
    }

    /// Begins what is next wherever something is. Says whether any group is on its way.
    fn look(self: &Arc<Self>, meta: &Arc<Meta>) -> bool {
        let sightings = self.surroundings.sightings();
        let mut on_their_way = self.look_at_cluster(meta, &sightings);
        for (account, streams) in meta.accounts() {
            for (name, stream) in streams.iter() {
                if !is_on_its_way(stream) {
                    continue;
                }
                on_their_way = true;
                let number = stream.group.number;
                let Some(replica) = self.replicas.replica(number) else {
                    continue;
                };
                let of = || StreamRef {
                    account: account.clone(),
                    stream: name.clone(),
                    group: number,
                };
                if let Some(deed) = next(of, stream, replica, &sightings) {
                    self.begin(number, deed);
                }
            }
        }
        on_their_way
    }

    /// Streams on servers that are gone, and servers that have come: both are for the leader of the meta group. Says whether something is on its way.
    fn look_at_cluster(self: &Arc<Self>, meta: &Meta, sightings: &Sightings) -> bool {
        let own = self.replicas.replica(GroupNumber::META);
        if own.and_then(|own| own.view()).is_none() {
            self.sound.lock().clear();
            *self.settled.lock() = None;
            return false;
        }
        let servers: BTreeSet<String> = meta.peers().keys().cloned().collect();
        let rules = PlacementRules {
            unique_tag: self.surroundings.unique_tag(),
            ha_assets_max: 0,
        };
        if let Some(settled) = self.settled.lock().as_mut() {
            settled.retain(|server| servers.contains(server));
        }
        if *self.sound.lock() != servers {
            let repairs = repairs(meta, sightings, &rules, random_id());
            if !repairs.is_empty() {
                self.begin(GroupNumber::META, Deed::Reports(repairs));
                return true;
            }
            self.sound.lock().clone_from(&servers);
        }
        self.look_who_came(meta, servers, sightings, &rules)
    }

    /// Servers that come to the cluster take replicas that streams lack, when they are reached. Says whether that is on its way.
    fn look_who_came(
        self: &Arc<Self>,
        meta: &Meta,
        servers: BTreeSet<String>,
        sightings: &Sightings,
        rules: &PlacementRules<'_>,
    ) -> bool {
        let mut settled = self.settled.lock();
        let Some(known) = settled.as_mut() else {
            *settled = Some(servers);
            return false;
        };
        let came: BTreeSet<String> = servers
            .into_iter()
            .filter(|server| !known.contains(server) && is_online(sightings, server))
            .collect();
        if came.is_empty() {
            return false;
        }
        let refills = refills(meta, sightings, rules, &came, random_id());
        if refills.is_empty() {
            known.extend(came);
            return false;
        }
        self.begin(GroupNumber::META, Deed::Reports(refills));
        true
    }

    /// Does it, unless the group does something already.
    fn begin(self: &Arc<Self>, number: GroupNumber, deed: Deed) {
        if !self.busy.lock().insert(number) {
            return;
        }
        let members = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(reason) = members.carry_out(deed).await {
                tracing::debug!(
                    "The members of group {number} are not as they are to be: {reason}"
                );
                tokio::time::sleep(FAILED_PAUSE).await;
            }
            members.busy.lock().remove(&number);
            members.done.notify_one();
        });
    }

    async fn carry_out(&self, deed: Deed) -> Result<(), String> {
        match deed {
            Deed::Step(replica, Step::Learn(members)) => replica.learn(members).await,
            Deed::Step(replica, Step::Vote(voters)) => replica.vote(voters).await,
            Deed::Step(replica, Step::Transfer { to }) => replica.transfer(to).await,
            // The report of a stream's group is made with its name, below.
            Deed::Step(_, Step::Settled { .. }) => Ok(()),
            Deed::Report(command) => self.surroundings.report(command).await,
            Deed::Reports(commands) => {
                for command in commands {
                    self.surroundings.report(command).await?;
                }
                Ok(())
            }
        }
    }
}

/// Whether somebody has to look after the members of its group.
fn is_on_its_way(stream: &StreamAssignment) -> bool {
    let group = &stream.group;
    group.form == Form::Raft && (group.is_changing() || !group.begun)
}

/// What the leader of a stream's group does next.
fn next(
    of: impl Fn() -> StreamRef,
    stream: &StreamAssignment,
    replica: Arc<dyn Led>,
    sightings: &Sightings,
) -> Option<Deed> {
    let view = replica.view()?;
    if !is_led(&stream.group, &view) {
        return None;
    }
    if !stream.group.begun {
        return Some(Deed::Report(Command::GroupBegun { of: of() }));
    }
    Some(match plan(&stream.group, &view, sightings)? {
        Step::Settled { nodes } => Deed::Report(Command::GroupSettled { of: of(), nodes }),
        step => Deed::Step(replica, step),
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::meta::{Change, ChangeKind, NewMembers, PeerProfile, Sighting};
    use super::super::super::types::{StreamConfig, Time, encode};
    use super::*;

    /// Groups that do at once what they are told, and a meta group that applies at once what is reported.
    struct World {
        meta: watch::Sender<Arc<Meta>>,
        groups: Mutex<BTreeMap<GroupNumber, View>>,
        failures: Mutex<usize>,
        /// Servers that are not reached.
        away: Mutex<BTreeSet<String>>,
        /// How often was looked which ones are.
        looks: Mutex<usize>,
        reached: watch::Sender<u64>,
    }

    struct Replica(Arc<World>, GroupNumber);

    impl Replica {
        fn with(&self, change: impl FnOnce(&mut View)) -> Attempt<'_, ()> {
            let mut failures = self.0.failures.lock();
            if *failures > 0 {
                *failures -= 1;
                return Box::pin(async { Err("not now".to_owned()) });
            }
            let mut groups = self.0.groups.lock();
            let view = groups.get_mut(&self.1).expect("the group");
            change(view);
            view.caught_up = view
                .voters
                .keys()
                .chain(view.learners.keys())
                .copied()
                .collect();
            Box::pin(async { Ok(()) })
        }
    }

    impl Led for Replica {
        fn view(&self) -> Option<View> {
            self.0.groups.lock().get(&self.1).cloned()
        }

        fn learn(&self, members: Vec<Member>) -> Attempt<'_, ()> {
            self.with(|view| {
                let pairs = members
                    .into_iter()
                    .map(|member| (member.node, member.server));
                view.learners.extend(pairs);
            })
        }

        fn vote(&self, voters: BTreeMap<NodeId, String>) -> Attempt<'_, ()> {
            self.with(|view| {
                view.voters = voters;
                view.learners.clear();
            })
        }

        fn transfer(&self, to: NodeId) -> Attempt<'_, ()> {
            self.with(|view| view.leader = to)
        }
    }

    struct All(Arc<World>);

    impl Replicas for All {
        fn replica(&self, group: GroupNumber) -> Option<Arc<dyn Led>> {
            let there = self.0.groups.lock().contains_key(&group);
            there.then(|| Arc::new(Replica(Arc::clone(&self.0), group)) as Arc<dyn Led>)
        }
    }

    impl Surroundings for World {
        fn sightings(&self) -> Sightings {
            let seen = Sighting {
                online: true,
                ..Sighting::default()
            };
            *self.looks.lock() += 1;
            let all = (1..=4).map(|number| format!("n{number}"));
            let away = self.away.lock();
            let reached = all.filter(|server| !away.contains(server));
            reached.map(|server| (server, seen)).collect()
        }

        fn reached(&self) -> watch::Receiver<u64> {
            self.reached.subscribe()
        }

        fn unique_tag(&self) -> &str {
            ""
        }

        fn report(&self, command: Command) -> Attempt<'_, ()> {
            self.apply(&command);
            Box::pin(async { Ok(()) })
        }
    }

    impl World {
        fn of(servers: usize) -> Arc<Self> {
            let names: Vec<String> = (1..=servers).map(|number| format!("n{number}")).collect();
            let meta = Meta::founding(names.iter().map(String::as_str));
            let voters = meta.peers().values();
            let voters = voters.map(|peer| (peer.node, peer.profile.server.clone()));
            let own = View {
                leader: 1,
                voters: voters.collect(),
                ..View::default()
            };
            let world = Arc::new(Self {
                meta: watch::Sender::new(Arc::new(meta)),
                groups: Mutex::new(BTreeMap::from([(GroupNumber::META, own)])),
                failures: Mutex::new(0),
                away: Mutex::default(),
                looks: Mutex::new(0),
                reached: watch::Sender::new(0),
            });
            for server in names {
                let profile = PeerProfile {
                    server,
                    cluster: "C".to_owned(),
                    jetstream: true,
                    ..PeerProfile::default()
                };
                let renew = false;
                world.apply(&Command::PeerPut { profile, renew });
            }
            world
        }

        fn apply(&self, command: &Command) -> Vec<Change> {
            let mut meta = Meta::clone(&self.meta.borrow());
            let changes = meta.apply(meta.applied() + 1, command);
            self.meta.send_replace(Arc::new(meta));
            changes
        }

        /// A stream with these replicas, whose group runs.
        fn stream(&self, servers: &[&str]) -> StreamRef {
            let config = StreamConfig {
                name: "S".to_owned(),
                num_replicas: servers.len() as i64,
                ..StreamConfig::default()
            };
            let servers = servers.iter().map(|server| (*server).to_owned());
            let changes = self.apply(&Command::StreamCreate {
                account: "A".to_owned(),
                stream: "S".to_owned(),
                config: encode(&config),
                created: Time::from_nanoseconds(1),
                group_name: "S-R3F-x".to_owned(),
                cluster: "C".to_owned(),
                servers: servers.collect(),
                preferred: String::new(),
            });
            let Some(Change::StreamCreated(of)) = changes.into_iter().next() else {
                panic!("not created");
            };
            let meta = self.meta.borrow();
            let group = &meta.stream_of(&of).expect("the stream").group;
            let members = group.members.iter();
            let voters: BTreeMap<u64, String> = members
                .map(|member| (member.node, member.server.clone()))
                .collect();
            let view = View {
                leader: 1,
                caught_up: voters.keys().copied().collect(),
                voters,
                ..View::default()
            };
            drop(self.groups.lock().insert(of.group, view));
            of
        }

        fn members(self: &Arc<Self>) -> Arc<Members> {
            let replicas = Arc::new(All(Arc::clone(self)));
            let surroundings: Arc<dyn Surroundings> = self.clone();
            Members::new(replicas, surroundings, self.meta.subscribe())
        }

        async fn until(&self, what: &str, so: impl Fn(&Meta, &View) -> bool, of: &StreamRef) {
            let begun = std::time::Instant::now();
            loop {
                let meta = Arc::clone(&self.meta.borrow());
                let view = self.groups.lock()[&of.group].clone();
                if so(&meta, &view) {
                    return;
                }
                assert!(
                    begun.elapsed() < Duration::from_secs(20),
                    "waited in vain until {what}"
                );
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    fn settled(meta: &Meta, of: &StreamRef) -> bool {
        let stream = meta.stream_of(of).expect("the stream");
        stream.group.begun && !stream.group.is_changing()
    }

    #[tokio::test]
    async fn a_group_is_reported_and_then_moved_step_by_step() {
        let world = World::of(4);
        let of = world.stream(&["n1", "n2", "n3"]);
        let running = tokio::spawn(world.members().run());
        world
            .until("it has begun", |meta, _| settled(meta, &of), &of)
            .await;
        *world.failures.lock() = 1;
        let revision = world
            .meta
            .borrow()
            .stream_of(&of)
            .expect("the stream")
            .revision;
        world.apply(&Command::MembersReplace {
            of: of.clone(),
            revision,
            members: NewMembers {
                kind: ChangeKind::Move,
                servers: ["n2", "n3", "n4"].map(str::to_owned).into(),
                preferred: String::new(),
                name: String::new(),
                cluster: String::new(),
            },
        });
        let moved = |meta: &Meta, view: &View| {
            settled(meta, &of) && view.voters.keys().copied().eq([2, 3, 4]) && view.leader != 1
        };
        world.until("it has moved", moved, &of).await;
        assert_eq!(world.meta.borrow().released().len(), 1);
        running.abort();
    }

    #[tokio::test]
    async fn a_removed_server_leaves_its_streams() {
        let world = World::of(4);
        let of = world.stream(&["n1", "n2", "n3"]);
        let running = tokio::spawn(world.members().run());
        world
            .until("it has begun", |meta, _| settled(meta, &of), &of)
            .await;
        let server = "n3".to_owned();
        world.apply(&Command::PeerRemove { server });
        let replaced = |meta: &Meta, view: &View| {
            settled(meta, &of)
                && view.voters.values().all(|server| server != "n3")
                && view.voters.len() == 3
        };
        world.until("another has its place", replaced, &of).await;
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_comes_back_takes_the_replica_that_its_stream_lacks_when_it_is_reached() {
        let world = World::of(3);
        let of = world.stream(&["n1", "n2", "n3"]);
        let running = tokio::spawn(world.members().run());
        world
            .until("it has begun", |meta, _| settled(meta, &of), &of)
            .await;
        let server = "n3".to_owned();
        world.apply(&Command::PeerRemove { server });
        let fewer = |meta: &Meta, view: &View| settled(meta, &of) && view.voters.len() == 2;
        world.until("it goes on with two", fewer, &of).await;
        world.away.lock().insert("n3".to_owned());
        world.apply(&Command::PeerPut {
            profile: PeerProfile {
                server: "n3".to_owned(),
                cluster: "C".to_owned(),
                jetstream: true,
                ..PeerProfile::default()
            },
            renew: false,
        });
        // It is a member of the cluster before it is reached, and nobody looks for it all the time.
        *world.looks.lock() = 0;
        tokio::time::sleep(100 * LOOK_INTERVAL).await;
        assert!((1..10).contains(&*world.looks.lock()));
        assert_eq!(world.groups.lock()[&of.group].voters.len(), 2);
        world.away.lock().clear();
        world.reached.send_modify(|changes| *changes += 1);
        let whole = |meta: &Meta, view: &View| {
            let on_it = view.voters.values().any(|server| server == "n3");
            settled(meta, &of) && view.voters.len() == 3 && on_it
        };
        world.until("it has three again", whole, &of).await;
        running.abort();
    }
}
