//! Makes this server hold what the meta layer says that it is to hold, and know of everything else.
//!
//! What is to be done follows from the state and from what is here (`meta::reconcile`); this room does it, one thing after another.
//!
//! # Invariant
//! A stream is removed only when the state names it as released. One that nobody assigned is set aside, with all that it holds, and not before this server knows the state
//! as it is. Until then nothing is begun either: a replica that was here before under the same id would have forgotten its votes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use raft::group::GroupNumber;
use raft::types::NodeId;
use storage::engine::Recovered;
use storage::store::FileStore;

use super::super::api::handler::StreamMaker;
use super::super::api::now;
use super::super::api::workers::Accounts;
use super::super::core::{InfoQuery, StreamReply, StreamRequest};
use super::super::meta::{
    Action, Command, Condition, Form, Held, Holdings, Meta, Past, Start, StreamAssignment,
    StreamRef, reconcile,
};
use super::super::registry::{AccountStreams, Stream};
use super::super::shard::{Aside, Streams};
use super::super::types::{ApiError, ErrorCode, StreamConfig};
use super::ask::RemotePort;
use super::replicated::{Lost, Replicated};
use super::reports::Reporter;
use super::view::View;
use crate::cluster::link::Links;

/// How long something that failed is left alone.
const FAILED_PAUSE: Duration = Duration::from_secs(2);
/// How long something that cannot be done yet is left alone.
const EARLY_PAUSE: Duration = Duration::from_millis(50);

/// Follows the meta layer's state on one server.
pub(super) struct Follower {
    own: String,
    accounts: Arc<Accounts>,
    streams: Arc<Streams>,
    links: Arc<Links>,
    pub view: Arc<View>,
    pub replicated: Arc<Replicated>,
    reporter: Arc<Reporter>,
    pub runtime: tokio::runtime::Handle,
    here: Mutex<Here>,
    /// Reports that are on their way.
    told: Arc<Mutex<HashSet<Vec<u8>>>>,
}

/// What a follower is made of.
pub(super) struct FollowerParts {
    pub own: String,
    pub accounts: Arc<Accounts>,
    pub streams: Arc<Streams>,
    pub links: Arc<Links>,
    pub view: Arc<View>,
    pub replicated: Arc<Replicated>,
    pub reporter: Arc<Reporter>,
    pub runtime: tokio::runtime::Handle,
    /// Replicas that a start found.
    pub replicas: Vec<Recovered<FileStore>>,
    /// What was set aside in earlier runs.
    pub aside: Vec<Aside>,
}

/// What is on this server.
struct Here {
    holdings: BTreeMap<GroupNumber, Holding>,
    /// Streams with one replica that a start found, and whose group is not known yet: by account and name.
    unmatched: BTreeSet<(String, String)>,
    /// Replicas whose group is not known, because the catalog was damaged.
    nameless: Vec<Recovered<FileStore>>,
    /// Streams that are elsewhere, as the API knows them here.
    elsewhere: HashMap<(String, String), Elsewhere>,
    aside: Vec<Aside>,
    /// Present once the state is known as it is.
    past: Option<Past>,
    /// Groups that are left alone for a while.
    pauses: HashMap<GroupNumber, Instant>,
}

struct Elsewhere {
    group: GroupNumber,
    revision: u64,
    stream: Arc<Stream>,
}

/// A replica that this server has.
struct Holding {
    account: String,
    stream: String,
    node: NodeId,
    form: Form,
    revision: u64,
    kind: Kind,
}

enum Kind {
    /// It runs, with a plain log.
    Plain(Arc<Stream>),
    /// It runs, in its group.
    Replica(Arc<Stream>),
    /// It is in storage, and does not run.
    Found(Box<Recovered<FileStore>>),
    /// What it must not forget is lost; what is left of it is in storage, if anything is.
    Lost(Lost),
    /// It cannot run in this process any more.
    Offline,
}

/// Why something was not done.
enum NotDone {
    /// Something else has to happen first.
    Early,
    Failed(ApiError),
}

impl From<ApiError> for NotDone {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

impl Holding {
    fn held(&self) -> Held {
        Held {
            node: self.node,
            form: self.form,
            condition: match self.kind {
                Kind::Plain(_) | Kind::Replica(_) | Kind::Offline => Condition::Running,
                Kind::Found(_) => Condition::Stopped,
                Kind::Lost(_) => Condition::Lost,
            },
            revision: self.revision,
            account: self.account.clone(),
            stream: self.stream.clone(),
            // Consumers live in the logs of their streams.
            consumers: BTreeMap::new(),
        }
    }

    fn key(&self) -> (String, String) {
        (self.account.clone(), self.stream.clone())
    }
}

impl Follower {
    /// With what a start found: streams with one replica are in their accounts, and run.
    pub fn new(parts: FollowerParts) -> Arc<Self> {
        let mut unmatched = BTreeSet::new();
        for account in parts.accounts.values() {
            let running = account.all().into_iter().map(|stream| stream.name.clone());
            let names = running.chain(account.all_offline().into_keys());
            unmatched.extend(names.map(|name| (account.name.clone(), name)));
        }
        let (mut holdings, mut nameless) = (BTreeMap::new(), Vec::new());
        for found in parts.replicas {
            let replica = found.form.replica();
            let Some(replica) = replica.filter(|replica| replica.group != 0) else {
                nameless.push(found);
                continue;
            };
            let holding = Holding {
                account: found.account.clone(),
                stream: found.name.clone(),
                node: replica.node,
                form: Form::Raft,
                revision: 0,
                kind: Kind::Found(Box::new(found)),
            };
            holdings.insert(GroupNumber(replica.group), holding);
        }
        Arc::new(Self {
            own: parts.own,
            accounts: parts.accounts,
            streams: parts.streams,
            links: parts.links,
            view: parts.view,
            replicated: parts.replicated,
            reporter: parts.reporter,
            runtime: parts.runtime,
            here: Mutex::new(Here {
                holdings,
                unmatched,
                nameless,
                elsewhere: HashMap::new(),
                aside: parts.aside,
                past: None,
                pauses: HashMap::new(),
            }),
            told: Arc::default(),
        })
    }

    pub fn own(&self) -> &str {
        &self.own
    }

    /// Does what has to be done to be as the state says; `current` when that is the state as it is. Waits for shards and disks. Says whether something is left to do
    /// that no change of the state will bring up again.
    pub fn follow(&self, meta: &Meta, current: bool) -> bool {
        let mut here = self.here.lock();
        if current && here.past.is_none() {
            here.past = Some(Past::of(meta));
        }
        self.match_found(meta, &mut here);
        if current {
            self.set_strays_aside(&mut here);
            self.note_what_is_aside(meta, &here);
        }
        let holdings: Holdings = here
            .holdings
            .iter()
            .map(|(number, holding)| (*number, holding.held()))
            .collect();
        let unknown = Past::default();
        let past = here.past.as_ref().unwrap_or(&unknown);
        let mut actions = reconcile(meta, &self.own, &holdings, past);
        if !current {
            actions.retain(may_be_early);
        }
        // A name must be free before another stream takes it.
        actions.sort_by_key(|action| {
            !matches!(action, Action::Delete { .. } | Action::SetAside { .. })
        });
        let mut left = false;
        let begun = Instant::now();
        here.pauses.retain(|_, until| *until > begun);
        for action in actions {
            let group = group_of(&action);
            if here.pauses.contains_key(&group) {
                left = true;
                continue;
            }
            match self.carry_out(meta, action, &mut here) {
                Ok(again) => left |= again,
                Err(not_done) => {
                    left = true;
                    let pause = match not_done {
                        NotDone::Early => EARLY_PAUSE,
                        NotDone::Failed(error) => {
                            tracing::error!(
                                "JetStream group {group} is not as it is to be on this server: {}",
                                error.description
                            );
                            FAILED_PAUSE
                        }
                    };
                    here.pauses.insert(group, Instant::now() + pause);
                }
            }
        }
        self.show_what_is_elsewhere(meta, &mut here);
        left || !self.told.lock().is_empty()
    }

    /// Finds the groups of streams that a start found: those they are assigned to, or were released from.
    fn match_found(&self, meta: &Meta, here: &mut Here) {
        let unmatched = std::mem::take(&mut here.unmatched);
        for (account, name) in unmatched {
            match self.matched(meta, &account, &name) {
                Some((group, holding)) if !here.holdings.contains_key(&group) => {
                    let plain = matches!(holding.kind, Kind::Plain(_));
                    self.view.set_here(&account, &name, plain);
                    here.holdings.insert(group, holding);
                }
                _ => {
                    here.unmatched.insert((account, name));
                }
            }
        }
        for found in std::mem::take(&mut here.nameless) {
            let assigned = meta.stream(&found.account, &found.name);
            let member = assigned.and_then(|stream| {
                let member = stream.group.member_on(&self.own)?;
                Some((stream.group.number, member.node))
            });
            match member.filter(|(group, _)| !here.holdings.contains_key(group)) {
                Some((group, node)) => {
                    let holding = Holding {
                        account: found.account,
                        stream: found.name,
                        node,
                        form: Form::Raft,
                        revision: 0,
                        kind: Kind::Lost(Lost::damaged(found.id)),
                    };
                    here.holdings.insert(group, holding);
                }
                None => here.nameless.push(found),
            }
        }
    }

    fn matched(&self, meta: &Meta, account: &str, name: &str) -> Option<(GroupNumber, Holding)> {
        let streams = self.accounts.get(account)?;
        let found = streams.get(name);
        let created = found.as_ref().and_then(|found| found.created());
        let kind = match found {
            Some(found) => Kind::Plain(found),
            None => Kind::Offline,
        };
        let is_it = |other| created.is_none_or(|created| created == other);
        let holding = |node, revision| Holding {
            account: account.to_owned(),
            stream: name.to_owned(),
            node,
            form: Form::Plain,
            revision,
            kind,
        };
        let assigned = meta.stream(account, name);
        if let Some(stream) = assigned.filter(|stream| is_it(stream.created)) {
            let member = stream.group.member_on(&self.own)?;
            let node = match stream.group.form {
                Form::Plain => member.node,
                // An id from before the group: none that it has now.
                Form::Raft => 0,
            };
            return Some((stream.group.number, holding(node, 0)));
        }
        let mut released = meta.released().iter();
        let ((group, node), _) = released.find(|(_, released)| {
            let named = released.account == account && released.stream == name;
            named && released.server == self.own && created == Some(released.created)
        })?;
        Some((*group, holding(*node, 0)))
    }

    /// What a start found and nothing in the state explains.
    fn set_strays_aside(&self, here: &mut Here) {
        for (account, name) in std::mem::take(&mut here.unmatched) {
            let Some(streams) = self.accounts.get(&account) else {
                continue;
            };
            let aside = match streams.get(&name) {
                Some(stream) => {
                    let aside = self.streams.set_stream_aside(streams, &stream);
                    streams.remove_exactly(&stream);
                    aside
                }
                None => {
                    let aside = self.streams.set_offline_aside(streams, &name);
                    streams.remove(&name);
                    aside
                }
            };
            here.aside.extend(aside);
        }
        for found in std::mem::take(&mut here.nameless) {
            let aside = self
                .streams
                .set_aside(found.id, &found.account, &found.name);
            here.aside.extend(aside);
        }
    }

    /// Has the state name all that was set aside here, and nothing that is not there any more.
    fn note_what_is_aside(&self, meta: &Meta, here: &Here) {
        let key = |aside: &Aside| (self.own.clone(), aside.place.clone());
        for aside in &here.aside {
            if !meta.orphans().contains_key(&key(aside)) {
                self.tell(Command::OrphanNote {
                    server: self.own.clone(),
                    place: aside.place.clone(),
                    account: aside.account.clone(),
                    stream: aside.stream.clone(),
                    reason: aside.reason.clone(),
                    since: now(),
                });
            }
        }
        let noted = meta.orphans().keys().filter(|(on, _)| *on == self.own);
        for (_, place) in noted {
            if !here.aside.iter().any(|aside| aside.place == *place) {
                self.tell(Command::OrphanGone {
                    server: self.own.clone(),
                    place: place.clone(),
                });
            }
        }
    }

    /// Reports to the leader of the meta group, once at a time.
    fn tell(&self, command: Command) {
        let bytes = command.encode();
        if !self.told.lock().insert(bytes.clone()) {
            return;
        }
        let (reporter, told) = (Arc::clone(&self.reporter), Arc::clone(&self.told));
        self.runtime.spawn(async move {
            if let Err(reason) = reporter.report(&command).await {
                tracing::debug!("The meta group did not take a report: {reason}");
                tokio::time::sleep(FAILED_PAUSE).await;
            }
            told.lock().remove(&bytes);
        });
    }

    fn account(&self, of: &StreamRef) -> Result<&Arc<AccountStreams>, NotDone> {
        let account = self.accounts.get(&of.account);
        account.ok_or_else(|| NotDone::Failed(ErrorCode::NotEnabledForAccount.into()))
    }

    /// Does one thing. Says whether it has to be looked at again.
    fn carry_out(&self, meta: &Meta, action: Action, here: &mut Here) -> Result<bool, NotDone> {
        match action {
            Action::Start { of, node, how, .. } => {
                let assignment = assigned(meta, &of)?;
                self.start(&of, assignment, node, &how, here)
            }
            Action::Convert {
                of,
                node,
                form,
                how,
                ..
            } => {
                let assignment = assigned(meta, &of)?;
                let account = self.account(&of)?;
                self.convert(account, &of, assignment, (node, form), &how, here)
            }
            Action::Configure { of, revision } => {
                let assignment = assigned(meta, &of)?;
                self.take_config(&of, assignment, revision, here)?;
                Ok(false)
            }
            Action::Delete { group, .. } => {
                if let Some(holding) = here.holdings.remove(&group) {
                    self.delete(group, holding)?;
                }
                // What is gone is reported next.
                Ok(true)
            }
            Action::ReportGone { group, node } => {
                self.tell(Command::ReplicaGone { group, node });
                Ok(true)
            }
            Action::ReportLost { of, node } => {
                self.tell(Command::MemberLost { of, node });
                Ok(true)
            }
            Action::SetAside { group, reason } => {
                tracing::error!("{reason}: it is set aside, nothing of it is removed");
                if let Some(holding) = here.holdings.remove(&group) {
                    here.aside.extend(self.put_aside(group, holding));
                }
                Ok(true)
            }
            Action::Offline { of, reason } => {
                self.account(&of)?.set_offline(&of.stream, reason);
                Ok(false)
            }
            // Consumers live in the logs of their streams.
            Action::PutConsumer { .. } | Action::DeleteConsumer { .. } => Ok(false),
        }
    }

    fn start(
        &self,
        of: &StreamRef,
        assignment: &StreamAssignment,
        node: NodeId,
        how: &Start,
        here: &mut Here,
    ) -> Result<bool, NotDone> {
        let account = self.account(of)?;
        let kind = match how {
            Start::New => {
                let config = assignment.config().clone();
                let created = assignment.created;
                Kind::Plain(self.streams.create(account, config, created)?)
            }
            Start::Again => {
                let Some(holding) = here.holdings.get_mut(&of.group) else {
                    return Ok(true);
                };
                let Kind::Found(found) = std::mem::replace(&mut holding.kind, Kind::Offline) else {
                    return Ok(false);
                };
                match self.replicated.start_again(&of.account, *found) {
                    Ok(stream) => Kind::Replica(Arc::new(stream)),
                    Err(lost) => {
                        tracing::error!(
                            "JetStream stream '{} > {}': this server's replica is lost: {}",
                            of.account,
                            of.stream,
                            lost.reason
                        );
                        holding.kind = Kind::Lost(lost);
                        return Ok(true);
                    }
                }
            }
            Start::Founder { .. } | Start::Joiner => {
                let replica = self.replicated.start_new(&of.account, assignment, node)?;
                Kind::Replica(Arc::new(replica))
            }
        };
        let revision = match how {
            Start::Again => 0,
            _ => assignment.revision,
        };
        self.holds(account, of, (node, revision), kind, here);
        Ok(*how == Start::Again)
    }

    /// A replica runs here from now on.
    fn holds(
        &self,
        account: &AccountStreams,
        of: &StreamRef,
        (node, revision): (NodeId, u64),
        kind: Kind,
        here: &mut Here,
    ) {
        let form = match &kind {
            Kind::Plain(_) => Form::Plain,
            _ => Form::Raft,
        };
        self.view
            .set_here(&of.account, &of.stream, form == Form::Plain);
        if let Kind::Plain(stream) | Kind::Replica(stream) = &kind {
            account.insert(Arc::clone(stream));
        }
        let holding = Holding {
            account: of.account.clone(),
            stream: of.stream.clone(),
            node,
            form,
            revision,
            kind,
        };
        here.elsewhere.remove(&holding.key());
        here.holdings.insert(of.group, holding);
    }

    /// Lets a replica go on as another one, with what it has where that counts.
    fn convert(
        &self,
        account: &Arc<AccountStreams>,
        of: &StreamRef,
        assignment: &StreamAssignment,
        (node, form): (NodeId, Form),
        how: &Start,
        here: &mut Here,
    ) -> Result<bool, NotDone> {
        let Some(holding) = here.holdings.get(&of.group) else {
            return Ok(true);
        };
        let replica = matches!(holding.kind, Kind::Replica(_));
        if form == Form::Plain && replica && !self.replicated.is_alone_and_current(of.group) {
            return Err(NotDone::Early);
        }
        let founds = matches!(how, Start::Founder { .. });
        let Some(mut holding) = here.holdings.remove(&of.group) else {
            return Ok(true);
        };
        let kind = match std::mem::replace(&mut holding.kind, Kind::Offline) {
            // What its log has is applied by its group: that has to run before it can be left.
            Kind::Found(found) if form == Form::Plain || founds => {
                let before = holding.node;
                holding.kind = Kind::Found(found);
                here.holdings.insert(of.group, holding);
                return self.start(of, assignment, before, &Start::Again, here);
            }
            kind => kind,
        };
        // Requests are answered that the stream is nowhere for a moment, not that there is none.
        account.insert(Arc::new(self.remote(account, assignment)));
        let converted = match kind {
            Kind::Plain(stream) if form == Form::Raft && founds => self
                .replicated
                .found_with(account, &stream, assignment, node)
                .map(|stream| Kind::Replica(Arc::new(stream))),
            Kind::Replica(_) if form == Form::Plain => {
                self.replicated.to_plain(account, of.group).map(Kind::Plain)
            }
            Kind::Replica(_) => self
                .replicated
                .renew(account, assignment, node, founds)
                .map(|stream| Kind::Replica(Arc::new(stream))),
            Kind::Offline => {
                here.holdings.insert(of.group, holding);
                let reason = "the stream went offline on this server earlier";
                return Err(ErrorCode::StreamOfflineReason.with(reason).into());
            }
            // What is left of it counts no more, and is not thrown away either.
            kind => {
                let left = Holding { kind, ..holding };
                here.aside.extend(self.put_aside(of.group, left));
                return Ok(true);
            }
        };
        match converted {
            Ok(kind) => {
                let form_now = (node, holding.revision);
                self.holds(account, of, form_now, kind, here);
                Ok(true)
            }
            Err(error) => {
                account.set_offline(&of.stream, error.description.to_string());
                holding.kind = Kind::Offline;
                (holding.node, holding.form) = (node, form);
                here.holdings.insert(of.group, holding);
                Err(error.into())
            }
        }
    }

    fn take_config(
        &self,
        of: &StreamRef,
        assignment: &StreamAssignment,
        revision: u64,
        here: &mut Here,
    ) -> Result<(), NotDone> {
        let account = self.account(of)?;
        let Some(holding) = here.holdings.get_mut(&of.group) else {
            return Ok(());
        };
        let config = assignment.config();
        match &holding.kind {
            Kind::Plain(stream) => {
                if *stream.config() != *config {
                    self.streams.update(account, stream, config.clone())?;
                }
            }
            Kind::Replica(stream) => self.configure(account, stream, config),
            Kind::Found(_) | Kind::Lost(_) | Kind::Offline => {}
        }
        holding.revision = revision;
        Ok(())
    }

    /// Has streams that this server began to lead be as they are to be: whoever led before may not have come to it.
    pub fn configure_led(&self, meta: &Meta) {
        for (of, assignment) in meta.all_streams() {
            if assignment.group.form != Form::Raft || !self.view.leads(&of.account, &of.stream) {
                continue;
            }
            let account = self.accounts.get(&of.account);
            let stream = account.and_then(|account| account.get(&of.stream));
            if let (Some(account), Some(stream)) = (account, stream) {
                self.configure(account, &stream, assignment.config());
            }
        }
    }

    /// Tells a replica of its configuration: the one that leads writes it into the stream's log.
    fn configure(&self, account: &AccountStreams, stream: &Stream, config: &StreamConfig) {
        stream.set_config(config.clone());
        if !self.view.leads(&account.name, &stream.name) {
            return;
        }
        let is_so = match stream.ask(StreamRequest::Info(InfoQuery::default())) {
            StreamReply::Info { info, .. } => info.config == *config,
            _ => true,
        };
        if !is_so
            && let StreamReply::Refused(error) =
                stream.ask(StreamRequest::Update(Box::new(config.clone())))
        {
            tracing::warn!(
                "JetStream stream '{} > {}' did not take its configuration: {}",
                account.name,
                stream.name,
                error.description
            );
        }
    }

    /// Removes a replica that was released, with all that it holds.
    fn delete(&self, group: GroupNumber, holding: Holding) -> Result<(), ApiError> {
        self.view.set_here(&holding.account, &holding.stream, false);
        let account = self.accounts.get(&holding.account);
        let removed = match (&holding.kind, account) {
            (Kind::Plain(stream), Some(account)) => {
                account.remove_exactly(stream);
                self.streams.remove(account, stream)
            }
            (Kind::Replica(stream), account) => {
                if let Some(account) = account {
                    account.remove_exactly(stream);
                }
                self.replicated.remove(group)
            }
            (Kind::Found(found), _) => self.replicated.remove_stored(found.id),
            (Kind::Lost(lost), _) => match lost.storage {
                Some(id) => self.replicated.remove_stored(id),
                None => Ok(()),
            },
            (Kind::Offline, Some(account)) => {
                account.remove(&holding.stream);
                let removed = self.streams.remove_offline(account, &holding.stream);
                removed.and_then(|()| self.replicated.remove(group))
            }
            (Kind::Plain(_) | Kind::Offline, None) => Ok(()),
        };
        removed.inspect_err(|error| {
            tracing::error!(
                "JetStream stream '{} > {}' could not be removed: {}",
                holding.account,
                holding.stream,
                error.description
            );
        })
    }

    /// Lets a replica run no more, and keeps all that it holds under another name.
    fn put_aside(&self, group: GroupNumber, holding: Holding) -> Option<Aside> {
        let Holding {
            account, stream, ..
        } = &holding;
        self.view.set_here(account, stream, false);
        let streams = self.accounts.get(account);
        match &holding.kind {
            Kind::Plain(running) => {
                let streams = streams?;
                streams.remove_exactly(running);
                self.streams.set_stream_aside(streams, running)
            }
            Kind::Replica(running) => {
                if let Some(streams) = streams {
                    streams.remove_exactly(running);
                }
                let id = self.replicated.let_go(group)?;
                self.streams.set_aside(id, account, stream)
            }
            Kind::Found(found) => self.streams.set_aside(found.id, account, stream),
            Kind::Lost(lost) => {
                let id = lost.storage?;
                match lost.is_empty {
                    // It never had anything.
                    true => {
                        if let Err(error) = self.replicated.remove_stored(id) {
                            tracing::error!("What a replica left could not be removed: {error:?}");
                        }
                        None
                    }
                    false => self.streams.set_aside(id, account, stream),
                }
            }
            Kind::Offline => {
                let streams = streams?;
                let aside = self.streams.set_offline_aside(streams, stream);
                streams.remove(stream);
                aside
            }
        }
    }

    fn remote(&self, account: &AccountStreams, assignment: &StreamAssignment) -> Stream {
        let port = RemotePort {
            account: account.name.clone(),
            stream: assignment.config().name.clone(),
            links: Arc::clone(&self.links),
            view: Arc::downgrade(&self.view),
            runtime: self.runtime.clone(),
        };
        Stream::new(assignment.config().clone(), Box::new(port))
    }

    /// Lets the API know of all streams that are not here, and of no other ones.
    fn show_what_is_elsewhere(&self, meta: &Meta, here: &mut Here) {
        let Here {
            holdings,
            unmatched,
            elsewhere,
            ..
        } = here;
        elsewhere.retain(|(account, name), shown| {
            let assigned = meta.stream(account, name);
            let stays = assigned.is_some_and(|stream| stream.group.number == shown.group);
            if !stays && let Some(account) = self.accounts.get(account) {
                account.remove_exactly(&shown.stream);
            }
            stays
        });
        for (of, assignment) in meta.all_streams() {
            let runs =
                |holding: &Holding| matches!(holding.kind, Kind::Plain(_) | Kind::Replica(_));
            if holdings.get(&of.group).is_some_and(runs) {
                continue;
            }
            let key = (of.account.clone(), of.stream.clone());
            let Some(account) = self.accounts.get(&of.account) else {
                continue;
            };
            // What is here under that name is told apart first.
            if unmatched.contains(&key) || assignment.stored.unsupported.is_some() {
                continue;
            }
            // A stream whose only replica cannot run here is offline.
            if assignment.group.form == Form::Plain
                && account.offline(&of.stream).is_some()
                && holdings.contains_key(&of.group)
            {
                continue;
            }
            match elsewhere.get_mut(&key) {
                Some(shown) if shown.revision == assignment.revision => {}
                Some(shown) => {
                    shown.stream.set_config(assignment.config().clone());
                    shown.revision = assignment.revision;
                }
                None => {
                    let stream = Arc::new(self.remote(account, assignment));
                    account.insert(Arc::clone(&stream));
                    let shown = Elsewhere {
                        group: of.group,
                        revision: assignment.revision,
                        stream,
                    };
                    elsewhere.insert(key, shown);
                }
            }
        }
    }
}

fn assigned<'a>(meta: &'a Meta, of: &StreamRef) -> Result<&'a StreamAssignment, NotDone> {
    let stream = meta.stream_of(of).map(|stream| &**stream);
    stream.ok_or_else(|| NotDone::Failed(ErrorCode::StreamNotFound.into()))
}

/// What is right on a state that was committed, although there may be a later one.
fn may_be_early(action: &Action) -> bool {
    matches!(
        action,
        Action::Start {
            how: Start::Again,
            ..
        } | Action::Delete { .. }
            | Action::Configure { .. }
    )
}

fn group_of(action: &Action) -> GroupNumber {
    match action {
        Action::Start { of, .. }
        | Action::Convert { of, .. }
        | Action::Configure { of, .. }
        | Action::PutConsumer { of, .. }
        | Action::DeleteConsumer { of, .. }
        | Action::ReportLost { of, .. }
        | Action::Offline { of, .. } => of.group,
        Action::Delete { group, .. }
        | Action::ReportGone { group, .. }
        | Action::SetAside { group, .. } => *group,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_begun_or_set_aside_on_a_state_that_may_be_old() {
        let of = StreamRef {
            account: "A".to_owned(),
            stream: "S".to_owned(),
            group: GroupNumber(1),
        };
        let start = |how| Action::Start {
            of: of.clone(),
            node: 1,
            form: Form::Raft,
            how,
        };
        assert!(may_be_early(&start(Start::Again)));
        assert!(!may_be_early(&start(Start::Joiner)));
        assert!(!may_be_early(&start(Start::New)));
        let aside = Action::SetAside {
            group: GroupNumber(1),
            reason: String::new(),
        };
        assert!(!may_be_early(&aside));
        let lost = Action::ReportLost {
            of: of.clone(),
            node: 1,
        };
        assert!(!may_be_early(&lost));
        assert_eq!(group_of(&lost), GroupNumber(1));
    }
}
