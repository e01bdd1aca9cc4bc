//! Replicas that are here: how they begin, change and end.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use raft::group::GroupNumber;
use raft::types::NodeId;
use storage::engine::{Recovered, StreamId};
use storage::store::FileStore;

use super::super::super::advisory::StreamAction;
use super::super::super::api::handler::StreamMaker;
use super::super::super::core::{InfoQuery, Retirement, StreamReply, StreamRequest};
use super::super::super::meta::{Form, Meta, Start, StreamAssignment, StreamRef};
use super::super::super::registry::{AccountStreams, Stream};
use super::super::super::shard::{Aside, UNEXPLAINED};
use super::super::super::types::{ErrorCode, Storage, StreamConfig};
use super::super::landed::Landed;
use super::super::replicated::Lost;
use super::super::stream::scale::is_half_plain;
use super::{Follower, Here, Holding, Kind, NotDone};

/// How long a stream may take to answer about its configuration.
const CONFIGURE_WAIT: Duration = Duration::from_secs(2);

/// Why a stream is set aside that came out of a backup.
const UNNAMED: &str = "it was restored, and the cluster has not taken it in";

impl Follower {
    pub(super) fn start(
        &self,
        of: &StreamRef,
        assignment: &StreamAssignment,
        node: NodeId,
        how: &Start,
        here: &mut Here,
    ) -> Result<bool, NotDone> {
        let account = self.accounts.get(&of.account);
        let kind = match how {
            Start::New => {
                let account = self.account(of)?;
                let config = assignment.config().clone();
                let created = assignment.created;
                Kind::Plain(self.streams.create(&account, config, created)?)
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
                        let stream = format!("{} > {}", of.account, of.stream);
                        self.repairs.begin(of.group, stream, node, &lost.reason);
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
        self.holds(account.as_deref(), of, (node, revision), kind, here);
        Ok(*how == Start::Again)
    }

    /// Lets streams run that came out of backups here and that the state has come to name, and sets aside those that it does not come to name.
    pub(super) fn take_up_landed(&self, meta: &Meta, here: &mut Here) {
        for (account, landed) in self.landed.take_assigned(meta, &self.own) {
            let name = landed.core.config().name.clone();
            let assigned = meta.stream(&account, &name).and_then(|stream| {
                let member = stream.group.member_on(&self.own)?;
                Some((&stream.group, member.node))
            });
            let Some((group, node)) = assigned else {
                continue;
            };
            let node = match group.form {
                Form::Plain => node,
                // An id from before the group: none that it has now.
                Form::Raft => 0,
            };
            let streams = self.accounts.get(&account);
            let kind = match streams {
                Some(_) => {
                    let stream = self.streams.run_landed(&account, landed.core, landed.id);
                    Kind::Plain(stream)
                }
                None => {
                    self.streams.park_landed(&account, landed.core, landed.id);
                    Kind::Parked
                }
            };
            let of = StreamRef {
                account,
                stream: name,
                group: group.number,
            };
            self.holds(streams.as_deref(), &of, (node, 0), kind, here);
        }
        for (account, landed) in self.landed.take_unnamed(meta, &self.own) {
            let Landed { core, id } = *landed;
            let name = core.config().name.clone();
            // The store has to be closed before it is called otherwise.
            drop(core);
            let aside = self.streams.set_aside(id, &account, &name, UNNAMED);
            here.aside.extend(aside);
        }
    }

    /// A replica is here from now on.
    fn holds(
        &self,
        account: Option<&AccountStreams>,
        of: &StreamRef,
        (node, revision): (NodeId, u64),
        kind: Kind,
        here: &mut Here,
    ) {
        let form = match &kind {
            Kind::Plain(_) | Kind::Parked => Form::Plain,
            _ => Form::Raft,
        };
        let leads = matches!(kind, Kind::Plain(_));
        self.view.set_here(&of.account, &of.stream, leads);
        if let (Some(account), Kind::Plain(stream) | Kind::Replica(stream)) = (account, &kind) {
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
    pub(super) fn convert(
        &self,
        account: Option<&Arc<AccountStreams>>,
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
        // Who founds a group with others begins with nothing, as they do: with what it has it would found another one, alone.
        let founds_alone = matches!(how, Start::Founder { founders, .. } if founders.len() == 1);
        let Some(mut holding) = here.holdings.remove(&of.group) else {
            return Ok(true);
        };
        let kind = match std::mem::replace(&mut holding.kind, Kind::Offline) {
            Kind::Found(found) if is_half_plain(&found) => {
                let Some(account) = account else {
                    holding.kind = Kind::Found(found);
                    here.holdings.insert(of.group, holding);
                    return Err(NotDone::Early);
                };
                return self.finish_plain(account, of, (holding, found), here);
            }
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
        if let Some(account) = account {
            account.insert(Arc::new(self.remote(account, assignment)));
        }
        let converted = match (kind, account) {
            (Kind::Plain(stream), Some(account)) if form == Form::Raft && founds_alone => self
                .replicated
                .found_with(account, &stream, assignment, node)
                .map(|stream| Kind::Replica(Arc::new(stream))),
            (Kind::Replica(_), Some(account)) if form == Form::Plain => {
                self.replicated.to_plain(account, of.group).map(Kind::Plain)
            }
            (Kind::Replica(_), _) if founds_alone => self
                .replicated
                .found_anew(assignment, node)
                .map(|stream| Kind::Replica(Arc::new(stream))),
            (
                Kind::Lost(Lost {
                    storage: Some(id),
                    unfinished: Some(unfinished),
                    ..
                }),
                _,
            ) if *how == Start::Joiner => self
                .replicated
                .join_on(&of.account, (id, unfinished), assignment, node)
                .map(|stream| Kind::Replica(Arc::new(stream))),
            (Kind::Offline, _) => {
                here.holdings.insert(of.group, holding);
                let reason = "the stream went offline on this server earlier";
                return Err(ErrorCode::StreamOfflineReason.with(reason).into());
            }
            // What is left of it counts no more, and is not thrown away either.
            (kind, _) => {
                let left = Holding { kind, ..holding };
                let reason = self.repairs.reason(of.group);
                let reason = reason.as_deref().unwrap_or(UNEXPLAINED);
                let aside = self.put_aside(of.group, left, reason);
                if let Some(aside) = &aside {
                    self.repairs.kept(of.group, &aside.place);
                }
                here.aside.extend(aside);
                return Ok(true);
            }
        };
        match converted {
            Ok(kind) => {
                let form_now = (node, holding.revision);
                self.holds(account.map(Arc::as_ref), of, form_now, kind, here);
                Ok(true)
            }
            Err(error) => {
                if let Some(account) = account {
                    account.set_offline(&of.stream, error.description.to_string());
                }
                holding.kind = Kind::Offline;
                (holding.node, holding.form) = (node, form);
                here.holdings.insert(of.group, holding);
                Err(error.into())
            }
        }
    }

    /// An earlier run ended in the middle of a conversion to one replica: that is brought to its end before anything else.
    fn finish_plain(
        &self,
        account: &AccountStreams,
        of: &StreamRef,
        (mut holding, found): (Holding, Box<Recovered<FileStore>>),
        here: &mut Here,
    ) -> Result<bool, NotDone> {
        match self.replicated.finish_plain(account, *found) {
            Ok(stream) => {
                let form_now = (holding.node, 0);
                self.holds(Some(account), of, form_now, Kind::Plain(stream), here);
                Ok(true)
            }
            Err(error) => {
                account.set_offline(&of.stream, error.description.to_string());
                holding.kind = Kind::Offline;
                here.holdings.insert(of.group, holding);
                Err(error.into())
            }
        }
    }

    pub(super) fn take_config(
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
                    self.streams.update(&account, stream, config.clone())?;
                }
            }
            Kind::Replica(stream) => self.configure(&account, stream, config)?,
            Kind::Parked | Kind::Found(_) | Kind::Lost(_) | Kind::Offline => {}
        }
        holding.revision = revision;
        Ok(())
    }

    /// Has streams that this server began to lead be as they are to be: whoever led before may not have come to it.
    pub fn configure_led(&self, meta: &Meta, began: &[GroupNumber]) {
        let began: HashSet<&GroupNumber> = began.iter().collect();
        for (of, assignment) in meta.all_streams() {
            if !began.contains(&of.group) || assignment.group.form != Form::Raft {
                continue;
            }
            let account = self.accounts.get(&of.account);
            let stream = account.as_ref().and_then(|account| account.get(&of.stream));
            if let (Some(account), Some(stream)) = (account, stream)
                && self
                    .configure(&account, &stream, assignment.config())
                    .is_err()
            {
                tracing::warn!(
                    "JetStream stream '{} > {}' does not take its configuration yet",
                    of.account,
                    of.stream
                );
            }
        }
    }

    /// Tells a replica of its configuration: the one that leads writes it into the stream's log. A group that does not answer must not hold up all others.
    fn configure(
        &self,
        account: &AccountStreams,
        stream: &Stream,
        config: &StreamConfig,
    ) -> Result<(), NotDone> {
        stream.set_config(config.clone());
        if !self.view.leads(&account.name, &stream.name) {
            return Ok(());
        }
        let ask = |request| {
            let reply = stream.start(request).wait_for(CONFIGURE_WAIT);
            reply.ok_or_else(|| NotDone::Failed(ErrorCode::ClusterNotAvail.into()))
        };
        let is_so = match ask(StreamRequest::Info(InfoQuery::default()))? {
            StreamReply::Info { info, .. } => info.config == *config,
            _ => true,
        };
        if !is_so
            && let StreamReply::Refused(error) =
                ask(StreamRequest::Update(Box::new(config.clone())))?
        {
            tracing::warn!(
                "JetStream stream '{} > {}' did not take its configuration: {}",
                account.name,
                stream.name,
                error.description
            );
        }
        Ok(())
    }

    /// Removes a replica that was released, with all that it holds. What could not be removed is still held, and removed later.
    pub(super) fn delete(
        &self,
        meta: &Meta,
        group: GroupNumber,
        here: &mut Here,
    ) -> Result<(), NotDone> {
        let Some(mut holding) = here.holdings.remove(&group) else {
            return Ok(());
        };
        self.view.set_here(&holding.account, &holding.stream, false);
        let assigned = meta.stream(&holding.account, &holding.stream);
        let assigned = assigned.filter(|stream| stream.stored.unsupported.is_none());
        if let (Some(account), Some(assigned)) = (self.accounts.get(&holding.account), assigned) {
            // It is elsewhere from now on: at no moment there is none.
            account.insert(Arc::new(self.remote(&account, assigned)));
        }
        let is_plain = holding.form == Form::Plain;
        let Some(id) = self.end(group, &holding) else {
            return Ok(());
        };
        let removed = self.replicated.remove_stored(id);
        if removed.is_ok() && is_plain {
            let (account, stream) = (&holding.account, &holding.stream);
            self.streams.advise(account, stream, StreamAction::Deleted);
        }
        removed.map_err(|error| {
            tracing::error!(
                "JetStream stream '{} > {}' could not be removed: {}",
                holding.account,
                holding.stream,
                error.description
            );
            holding.kind = Kind::Lost(Lost {
                storage: Some(id),
                is_empty: false,
                unfinished: None,
                reason: "it was released".to_owned(),
            });
            here.holdings.insert(group, holding);
            error.into()
        })
    }

    /// Lets a replica run no more. Says where what it holds is.
    fn end(&self, group: GroupNumber, holding: &Holding) -> Option<StreamId> {
        let account = self.accounts.get(&holding.account);
        match &holding.kind {
            Kind::Plain(stream) => {
                let account = account?;
                account.remove_exactly(stream);
                self.streams.let_go(&account, stream)
            }
            Kind::Parked => {
                let parked = self
                    .streams
                    .forget_parked(&holding.account, &holding.stream);
                parked.map(|(id, _)| id)
            }
            Kind::Replica(stream) => {
                if let Some(account) = account {
                    account.remove_exactly(stream);
                    self.forget_stopped(&account, &holding.stream, group);
                }
                self.replicated.let_go(group, Retirement::Removed)
            }
            Kind::Found(found) => Some(found.id),
            Kind::Lost(lost) => lost.storage,
            Kind::Offline => {
                let account = account?;
                account.remove(&holding.stream);
                let stored = self.streams.forget_offline(&account.name, &holding.stream);
                stored.or_else(|| self.replicated.let_go(group, Retirement::Removed))
            }
        }
    }

    /// A replica that has stopped at what a later version wrote goes, and with it what was said of that.
    fn forget_stopped(&self, account: &AccountStreams, stream: &str, group: GroupNumber) {
        let replica = self.replicated.replica(group);
        if replica.is_some_and(|replica| replica.port.status().unsupported.is_some()) {
            account.set_online(stream);
        }
    }

    /// Lets a replica run no more, and keeps all that it holds under another name.
    pub(super) fn put_aside(
        &self,
        group: GroupNumber,
        holding: Holding,
        reason: &str,
    ) -> Option<Aside> {
        let Holding {
            account, stream, ..
        } = &holding;
        self.view.set_here(account, stream, false);
        let streams = self.accounts.get(account);
        match &holding.kind {
            Kind::Plain(running) => {
                let streams = streams?;
                streams.remove_exactly(running);
                self.streams.set_stream_aside(&streams, running)
            }
            Kind::Parked => {
                let (id, is_empty) = self.streams.forget_parked(account, stream)?;
                self.keep_or_remove(id, is_empty, (account, stream), reason)
            }
            Kind::Replica(running) => {
                if let Some(streams) = streams {
                    streams.remove_exactly(running);
                    self.forget_stopped(&streams, stream, group);
                }
                let in_memory = running.config().storage == Storage::Memory;
                let id = self.replicated.let_go(group, Retirement::LeadershipLost)?;
                self.keep_or_remove(id, in_memory, (account, stream), reason)
            }
            Kind::Found(found) => self.streams.set_aside(found.id, account, stream, reason),
            Kind::Lost(lost) => {
                let id = lost.storage?;
                self.keep_or_remove(id, lost.is_empty, (account, stream), reason)
            }
            Kind::Offline => {
                let streams = streams?;
                let aside = self.streams.set_offline_aside(&streams, stream);
                streams.remove(stream);
                aside
            }
        }
    }

    /// Sets aside what is in storage, unless nothing of a stream is in it.
    fn keep_or_remove(
        &self,
        id: StreamId,
        is_empty: bool,
        (account, stream): (&str, &str),
        reason: &str,
    ) -> Option<Aside> {
        if !is_empty {
            return self.streams.set_aside(id, account, stream, reason);
        }
        if let Err(error) = self.replicated.remove_stored(id) {
            tracing::error!("What a replica left could not be removed: {error:?}");
        }
        None
    }
}
