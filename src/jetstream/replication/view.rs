//! What this server knows of the others and of who leads what, and its share of answers that all give together.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::RwLock;
use raft::group::{Channel, GroupNumber, Members};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::accounts::Accounts;
use super::super::api::elsewhere::Carried;
use super::super::api::handler::{Answer, Context, Server, refuse_operation, shares};
use super::super::api::now;
use super::super::api::route::Operation;
use super::super::meta::{Form, Group, Sighting, Sightings, StreamAssignment};
use super::super::shard::Streams;
use super::super::types::{ErrorCode, Storage, Time};
use super::super::usage::HeldByTier;
use super::leaders::{self, Leaders, Report};
use super::meta_machine::MetaMachine;
use super::router::{Directory, StreamLeader};
use crate::cluster::link::Links;

/// What is known here of who leads what.
pub(super) struct View {
    /// When this server started.
    pub(super) started_ns: i64,
    own: Arc<str>,
    pub links: Arc<Links>,
    machine: Arc<MetaMachine>,
    pub leaders: Leaders,
    accounts: Arc<Accounts>,
    streams: Arc<Streams>,
    /// Accounts without JetStream that this server has replicas of.
    resting: RwLock<BTreeSet<String>>,
    /// Groups whose replica here has stopped at what a later version wrote.
    stopped: RwLock<BTreeSet<GroupNumber>>,
    /// Groups whose replica here has started again, and has met nobody since who has what was in memory.
    forgot: RwLock<BTreeSet<GroupNumber>>,
    /// What other servers said last that they hold, and when.
    heard: RwLock<HashMap<Arc<str>, Heard>>,
    /// Streams with one replica that are here, by account and name.
    here: RwLock<HashSet<(String, String)>>,
    server: OnceLock<Arc<Server>>,
}

/// What a server said of itself.
#[derive(Debug, Clone)]
struct Heard {
    memory_bytes: u64,
    storage_bytes: u64,
    /// Accounts that have no JetStream there.
    resting: BTreeSet<String>,
    /// Groups whose replica there has stopped at what a later version wrote.
    stopped: BTreeSet<GroupNumber>,
    /// Groups whose memory is lost there.
    forgot: BTreeSet<GroupNumber>,
    /// What accounts with limits hold there.
    held: BTreeMap<String, HeldByTier>,
    at: Time,
}

impl View {
    pub fn new(
        own: Arc<str>,
        links: Arc<Links>,
        machine: Arc<MetaMachine>,
        accounts: Arc<Accounts>,
        streams: Arc<Streams>,
    ) -> Arc<Self> {
        Arc::new(Self {
            own,
            started_ns: now().nanoseconds(),
            links,
            machine,
            leaders: Leaders::default(),
            resting: RwLock::default(),
            stopped: RwLock::default(),
            forgot: RwLock::default(),
            accounts,
            streams,
            heard: RwLock::default(),
            here: RwLock::default(),
            server: OnceLock::new(),
        })
    }

    /// What handlers know of this server, once it is made.
    pub fn serve(&self, server: &Arc<Server>) {
        // Once per run.
        let _ = self.server.set(Arc::clone(server));
    }

    /// Whether an account has JetStream on this server.
    pub fn has_jetstream(&self, account: &str) -> bool {
        self.accounts.get(account).is_some()
    }

    /// Replicas of an account rest here, or do not any more.
    pub fn set_resting(&self, account: &str, rests: bool) {
        let mut resting = self.resting.write();
        match rests {
            true => resting.insert(account.to_owned()),
            false => resting.remove(account),
        };
    }

    /// The accounts whose replicas rest here.
    pub fn resting(&self) -> BTreeSet<String> {
        self.resting.read().clone()
    }

    /// Whether a server has said that an account has JetStream there, as far as it has replicas of it.
    pub fn serves(&self, server: &str, account: &str) -> bool {
        let heard = self.heard.read();
        let heard = heard.get(server);
        heard.is_some_and(|heard| !heard.resting.contains(account))
    }

    /// A stream is here, or not any more.
    pub fn set_here(&self, account: &str, stream: &str, here: bool) {
        let key = (account.to_owned(), stream.to_owned());
        let mut streams = self.here.write();
        match here {
            true => streams.insert(key),
            false => streams.remove(&key),
        };
    }

    /// Whether this server leads a stream.
    pub fn leads(&self, account: &str, stream: &str) -> bool {
        let meta = self.machine.meta();
        let Some(assignment) = meta.stream(account, stream) else {
            return false;
        };
        match assignment.group.form {
            Form::Plain => {
                let key = (account.to_owned(), stream.to_owned());
                self.here.read().contains(&key)
            }
            Form::Raft => self.leader_of(assignment) == Some(Arc::clone(&self.own)),
        }
    }

    fn leader_of(&self, assignment: &StreamAssignment) -> Option<Arc<str>> {
        let group = &assignment.group;
        match group.form {
            Form::Plain => group
                .members
                .first()
                .map(|member| Arc::from(member.server.as_str())),
            Form::Raft => self.leaders.leader(group.number),
        }
    }

    fn reaches(&self, server: &str) -> bool {
        *server == *self.own || self.links.is_connected(server, Channel::Control)
    }

    /// The replicas here that have stopped at what a later version wrote; whether they are others than before.
    pub fn set_stopped(&self, groups: BTreeSet<GroupNumber>) -> bool {
        let changed = *self.stopped.read() != groups;
        if changed {
            *self.stopped.write() = groups;
        }
        changed
    }

    /// Replicas of these groups start again here.
    pub fn forget(&self, groups: impl IntoIterator<Item = GroupNumber>) {
        self.forgot.write().extend(groups);
    }

    /// What the group's consumers have in memory is here, too; whether that is news.
    pub fn remember(&self, group: GroupNumber) -> bool {
        let forgot = self.forgot.read().contains(&group);
        forgot && self.forgot.write().remove(&group)
    }

    /// Whether it is lost here, as far as is known.
    pub fn has_forgotten(&self, group: GroupNumber) -> bool {
        self.forgot.read().contains(&group)
    }

    /// Whether a server has what the group's consumers have in memory; `None` when it cannot be reached, or has not said yet.
    pub fn remembers(&self, server: &str, group: GroupNumber) -> Option<bool> {
        let heard = self.heard.read();
        let heard = heard.get(server).filter(|_| self.reaches(server))?;
        Some(!heard.forgot.contains(&group))
    }

    /// A server that can be reached and whose replica has stopped at what a later version wrote: it knows why the stream is offline.
    fn stopped_on(&self, group: &Group) -> Option<Arc<str>> {
        if self.stopped.read().contains(&group.number) {
            return Some(Arc::clone(&self.own));
        }
        let heard = self.heard.read();
        let mut servers = group.everyone().map(|member| member.server.as_str());
        let stopped = servers.find(|server| {
            let heard = heard.get(*server);
            heard.is_some_and(|heard| heard.stopped.contains(&group.number)) && self.reaches(server)
        });
        stopped.map(Arc::from)
    }

    /// What this server tells all others.
    pub fn report(&self) -> Report {
        Report {
            memory_bytes: self.streams.held_bytes(Storage::Memory),
            storage_bytes: self.streams.held_bytes(Storage::File),
            resting: self.resting(),
            stopped: self.stopped.read().clone(),
            forgot: self.forgot.read().clone(),
            held: self.held(),
            led: self.leaders.led_by(&self.own),
        }
    }

    /// Another server has told what it leads and holds.
    pub fn heard(&self, from: &Arc<str>, heard: leaders::Heard) {
        let leaders::Heard { report, groups } = heard;
        let led: HashSet<GroupNumber> = report.led.iter().map(|led| led.group).collect();
        for before in self.leaders.led_by(from) {
            if groups.contains(&before.group) && !led.contains(&before.group) {
                self.leaders.leads_no_more(from, before.group);
            }
        }
        for led in report.led {
            self.leaders.leads(from, led);
        }
        let heard = Heard {
            memory_bytes: report.memory_bytes,
            storage_bytes: report.storage_bytes,
            resting: report.resting,
            stopped: report.stopped,
            forgot: report.forgot,
            held: report.held,
            at: now(),
        };
        let accounts: BTreeSet<String> = heard.held.keys().cloned().collect();
        let before = self.heard.write().insert(Arc::clone(from), heard);
        let before = before.map(|before| before.held).unwrap_or_default();
        let gone = self.forget_the_removed(from);
        for account in accounts.into_iter().chain(before.into_keys()).chain(gone) {
            self.count_elsewhere(&account);
        }
    }

    /// What servers hold that are removed is nobody's any more: the accounts of that. Who has just told something may not be in the state yet.
    fn forget_the_removed(&self, from: &str) -> Vec<String> {
        let meta = self.machine.meta();
        let mut heard = self.heard.write();
        let is_gone = |server: &str| server != from && !meta.peers().contains_key(server);
        let gone = heard.extract_if(|server, _| is_gone(server));
        gone.flat_map(|(_, heard)| heard.held.into_keys()).collect()
    }

    /// What accounts with limits hold here.
    pub fn held(&self) -> BTreeMap<String, HeldByTier> {
        self.streams.held_by_limited()
    }

    /// What other servers hold of an account is part of what it may hold on all together. Those that are away hold it, too.
    fn count_elsewhere(&self, account: &str) {
        let meta = self.machine.meta();
        let heard = self.heard.read();
        let belonging = heard
            .iter()
            .filter(|(server, _)| meta.peers().contains_key(&***server));
        let mut all = HeldByTier::default();
        for held in belonging.filter_map(|(_, heard)| heard.held.get(account)) {
            all.add(held);
        }
        self.streams.set_held_elsewhere(account, &all);
    }

    /// The servers as this one sees them now.
    pub fn sightings(&self) -> Sightings {
        let meta = self.machine.meta();
        let mut assets: BTreeMap<&str, u64> = BTreeMap::new();
        for (_, stream) in meta.all_streams() {
            if stream.group.members.len() > 1 {
                for member in stream.group.everyone() {
                    *assets.entry(&member.server).or_default() += 1;
                }
            }
        }
        let heard = self.heard.read();
        let seen = meta.peers().keys().map(|server| {
            let (memory_bytes, storage_bytes, last_seen) = match **server == *self.own {
                true => (
                    self.streams.held_bytes(Storage::Memory),
                    self.streams.held_bytes(Storage::File),
                    now(),
                ),
                false => heard
                    .get(server.as_str())
                    .map_or((0, 0, Time::ZERO), |heard| {
                        (heard.memory_bytes, heard.storage_bytes, heard.at)
                    }),
            };
            let sighting = Sighting {
                online: self.reaches(server),
                last_seen,
                memory_bytes,
                storage_bytes,
                ha_assets: assets.get(server.as_str()).copied().unwrap_or(0),
            };
            (server.clone(), sighting)
        });
        seen.collect()
    }

    fn reaches_majority(&self, members: &Members) -> bool {
        let voters = members.voters();
        let servers = voters.iter().filter_map(|node| members.server_of(*node));
        servers.filter(|server| self.reaches(server)).count() > voters.len() / 2
    }

    /// The other server that leads a stream.
    pub fn leader_elsewhere(&self, account: &str, stream: &str) -> Option<Arc<str>> {
        let meta = self.machine.meta();
        let leader = self.leader_of(meta.stream(account, stream)?)?;
        (leader != self.own).then_some(leader)
    }
}

/// What one server has of an account.
#[derive(Debug, Serialize, Deserialize)]
struct Share {
    /// Streams that it leads, as the API shows them in a list.
    streams: Vec<Box<RawValue>>,
    /// Streams that it cannot run, and why.
    offline: BTreeMap<String, String>,
    usage: shares::Usage,
}

/// As much of a stream's info as is needed to put it in its place.
#[derive(Deserialize)]
struct Named {
    config: NamedConfig,
}

#[derive(Deserialize)]
struct NamedConfig {
    name: String,
}

impl Directory for View {
    fn meta_leader(&self) -> Option<Arc<str>> {
        let group = self.machine.group()?;
        let leader: Arc<str> = Arc::from(group.leader()?.server);
        let leads = match leader == self.own {
            // A leader that reaches no majority leads nobody.
            true => self.machine.leads() && self.reaches_majority(&group.members()),
            false => self.reaches(&leader),
        };
        leads.then_some(leader)
    }

    fn stream_leader(&self, account: &str, stream: &str) -> StreamLeader {
        let meta = self.machine.meta();
        let Some(assignment) = meta.stream(account, stream) else {
            return StreamLeader::NoStream;
        };
        // One that cannot be reached leads no more, or nobody here can ask it.
        let leader = self.leader_of(assignment);
        if let Some(server) = leader.filter(|server| self.reaches(server)) {
            return StreamLeader::Server(server);
        }
        if let Some(server) = self.stopped_on(&assignment.group) {
            return StreamLeader::Server(server);
        }
        if let Some(reason) = &assignment.stored.unsupported {
            return StreamLeader::Unsupported(reason.clone());
        }
        let mut everyone = assignment.group.everyone();
        match everyone.any(|member| self.reaches(&member.server)) {
            true => StreamLeader::Nobody,
            false => StreamLeader::Offline,
        }
    }

    fn share(&self, carried: &Carried) -> Bytes {
        let (Some(server), Some(account), Some(operation)) = (
            self.server.get(),
            self.accounts.get(&carried.account),
            Operation::parse(&carried.subject),
        ) else {
            return Bytes::new();
        };
        let context = Context {
            server,
            account: &account,
            required_level: &carried.required_level,
            client: None,
            body: &carried.body,
        };
        let led = |stream: &str| self.leads(&carried.account, stream);
        let share = Share {
            streams: match operation {
                Operation::StreamList => shares::streams(&context, led),
                _ => Vec::new(),
            },
            offline: account.all_offline(),
            usage: shares::usage(&context, self.streams.held_by(&carried.account), led),
        };
        // Values of the API: there is always JSON of them.
        Bytes::from(serde_json::to_vec(&share).unwrap_or_default())
    }

    fn merge(&self, carried: &Carried, given: Vec<Bytes>, silent: usize) -> Answer {
        let Some(operation) = Operation::parse(&carried.subject) else {
            return refuse_operation(Operation::StreamList, ErrorCode::ClusterNotAvail.into());
        };
        let (Some(server), Some(account)) =
            (self.server.get(), self.accounts.get(&carried.account))
        else {
            return refuse_operation(operation, ErrorCode::ClusterNotAvail.into());
        };
        let context = Context {
            server,
            account: &account,
            required_level: &carried.required_level,
            client: None,
            body: &carried.body,
        };
        let (mut streams, mut offline) = (BTreeMap::new(), BTreeMap::new());
        let mut usage = shares::Usage::default();
        for share in given {
            let Ok(share) = serde_json::from_slice::<Share>(&share) else {
                continue;
            };
            usage.add(&share.usage);
            offline.extend(share.offline);
            for info in share.streams {
                if let Ok(named) = serde_json::from_str::<Named>(info.get()) {
                    streams.insert(named.config.name, info);
                }
            }
        }
        if silent > 0 {
            tracing::debug!("{silent} servers did not say what they have");
        }
        match operation {
            Operation::StreamList => shares::list_page(&context, streams, &offline),
            _ => {
                // Every server knows all streams; a new one may have no leader yet that could count it.
                let meta = self.machine.meta();
                for (_, stream) in meta.streams(&carried.account) {
                    usage.count_stream(stream.config());
                }
                shares::account_info(&context, &usage)
            }
        }
    }

    fn sharers(&self) -> Vec<Arc<str>> {
        let meta = self.machine.meta();
        let names = meta.peers().keys();
        names
            .filter(|name| **name != *self.own)
            .map(|name| Arc::from(name.as_str()))
            .collect()
    }
}
