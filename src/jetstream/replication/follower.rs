//! Makes this server hold what the meta layer says that it is to hold, and know of everything else.
//!
//! # Invariant
//! A stream is removed only when this server was told of it and then that it is gone: a group's number never comes back. One that nobody assigned is
//! set aside, with all that it holds.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use raft::group::GroupNumber;

use super::super::api::workers::Accounts;
use super::super::core::{InfoQuery, StreamReply, StreamRequest};
use super::super::meta::{Form, Meta, StreamAssignment};
use super::super::registry::{AccountStreams, Stream};
use super::super::runtime::Backend;
use super::super::types::{ApiError, ErrorCode, StreamConfig};
use super::ask::RemotePort;
use super::replicated::Replicated;
use super::view::View;
use crate::cluster::link::Links;

/// Follows the meta layer's state on one server.
pub(super) struct Follower {
    pub own: String,
    pub accounts: Arc<Accounts>,
    pub backend: Arc<dyn Backend>,
    pub links: Arc<Links>,
    pub view: Arc<View>,
    pub replicated: Arc<Replicated>,
    pub runtime: tokio::runtime::Handle,
    pub known: Mutex<HashMap<(String, String), Known>>,
}

/// A stream that this server was told of.
#[derive(Clone)]
pub(super) struct Known {
    group: GroupNumber,
    revision: u64,
    place: Place,
}

#[derive(Clone)]
enum Place {
    /// It is kept here too: the API forgets a stream as soon as its removal is agreed upon, before it is removed.
    Here(Arc<Stream>),
    /// A replica of it is here.
    Replica,
    Elsewhere,
    /// It should be here, and cannot be.
    Missing,
}

impl Follower {
    /// Does what has to be done to be as the state says. Waits for shards and disks.
    pub fn follow(&self, meta: &Meta) {
        let mut known = self.known.lock();
        let gone: Vec<(String, String)> = known
            .iter()
            .filter(|((account, name), known)| {
                let stream = meta.stream(account, name);
                stream.is_none_or(|stream| stream.group.number != known.group)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            if let (Some(known), Some(account)) = (known.remove(&key), self.accounts.get(&key.0)) {
                self.forget(account, &key.1, known);
            }
        }
        for (of, assignment) in meta.all_streams() {
            let Some(account) = self.accounts.get(&of.account) else {
                continue;
            };
            let key = (of.account.clone(), of.stream.clone());
            let now = match known.get(&key) {
                None => self.meet(account, assignment),
                Some(before) if before.revision != assignment.revision => {
                    self.change(account, assignment, before.clone())
                }
                Some(_) => continue,
            };
            known.insert(key, now);
        }
    }

    /// Streams that were found at the start and that nobody assigned: called when the state is as new as the group's.
    pub fn set_strays_aside(&self, meta: &Meta) {
        let known = self.known.lock();
        for account in self.accounts.values() {
            for stream in account.all() {
                let key = (account.name.clone(), stream.name.clone());
                if !known.contains_key(&key) && meta.stream(&key.0, &key.1).is_none() {
                    tracing::error!(
                        "JetStream stream '{} > {}' is not known to the meta group: it is set aside, nothing of it is removed",
                        key.0,
                        key.1
                    );
                    self.backend.set_aside(account, &stream);
                    account.remove(&stream.name);
                }
            }
        }
    }

    fn forget(&self, account: &AccountStreams, name: &str, known: Known) {
        self.view.set_here(&account.name, name, false);
        let removed = match known.place {
            Place::Here(stream) => self.backend.remove(account, &stream),
            Place::Replica => self.replicated.remove(known.group),
            Place::Elsewhere | Place::Missing => Ok(()),
        };
        if let Err(error) = removed {
            tracing::error!(
                "JetStream stream '{} > {name}' could not be removed: {error:?}",
                account.name
            );
        }
        account.remove(name);
    }

    /// A stream that this server hears of for the first time in this run.
    fn meet(&self, account: &AccountStreams, assignment: &StreamAssignment) -> Known {
        let group = &assignment.group;
        let ours = group.member_on(&self.own);
        let held = match (ours, group.form) {
            (Some(_), Form::Plain) => Some(self.hold(account, assignment).map(Place::Here)),
            (Some(member), Form::Raft) => {
                let started = self
                    .replicated
                    .start(&account.name, assignment, member.node);
                Some(started.map(|stream| {
                    account.insert(Arc::new(stream));
                    Place::Replica
                }))
            }
            (None, _) => None,
        };
        let place = match held {
            Some(held) => match held {
                Ok(place) => place,
                Err(error) => {
                    let name = &assignment.config().name;
                    tracing::error!(
                        "JetStream stream '{} > {name}' cannot run here: {}",
                        account.name,
                        error.description
                    );
                    account.set_offline(name, error.description.to_string());
                    Place::Missing
                }
            },
            None => {
                let stream = Stream::new(
                    assignment.config().clone(),
                    self.port_to(account, assignment),
                );
                account.insert(Arc::new(stream));
                Place::Elsewhere
            }
        };
        let name = &assignment.config().name;
        let here = matches!(place, Place::Here(_));
        self.view.set_here(&account.name, name, here);
        Known {
            group: group.number,
            revision: assignment.revision,
            place,
        }
    }

    fn port_to(&self, account: &AccountStreams, assignment: &StreamAssignment) -> Box<RemotePort> {
        Box::new(RemotePort {
            account: account.name.clone(),
            stream: assignment.config().name.clone(),
            links: Arc::clone(&self.links),
            view: Arc::downgrade(&self.view),
            runtime: self.runtime.clone(),
        })
    }

    /// Makes a stream run here: the one that is here already, or a new one.
    fn hold(
        &self,
        account: &AccountStreams,
        assignment: &StreamAssignment,
    ) -> Result<Arc<Stream>, ApiError> {
        let config = assignment.config();
        if let Some(found) = account.get(&config.name) {
            if found.created() == Some(assignment.created) {
                self.take_config(account, &found, assignment)?;
                return Ok(found);
            }
            // Perhaps an earlier stream of that name, removed while this server was away; perhaps not.
            let reason = "another stream of that name is here that the meta group does not know";
            return Err(ErrorCode::StreamOfflineReason.with(reason));
        }
        let stream = self
            .backend
            .create(account, config.clone(), assignment.created)?;
        account.insert(Arc::clone(&stream));
        Ok(stream)
    }

    fn take_config(
        &self,
        account: &AccountStreams,
        stream: &Stream,
        assignment: &StreamAssignment,
    ) -> Result<(), ApiError> {
        let config = assignment.config();
        if *stream.config() == *config {
            return Ok(());
        }
        self.backend
            .update(account, stream, config.clone())
            .map(drop)
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

    /// A stream that this server knows is to be different.
    fn change(
        &self,
        account: &AccountStreams,
        assignment: &StreamAssignment,
        before: Known,
    ) -> Known {
        let config = assignment.config();
        let stream = account.get(&config.name);
        match (&before.place, stream) {
            (Place::Here(stream), _) => {
                if let Err(error) = self.take_config(account, stream, assignment) {
                    tracing::error!(
                        "JetStream stream '{} > {}' did not take its configuration: {}",
                        account.name,
                        config.name,
                        error.description
                    );
                }
            }
            (Place::Replica, Some(stream)) => self.configure(account, &stream, config),
            (Place::Elsewhere, Some(stream)) => stream.set_config(config.clone()),
            _ => {}
        }
        Known {
            revision: assignment.revision,
            ..before
        }
    }
}
