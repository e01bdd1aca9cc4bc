//! Streams out of backups, in a cluster: where they are taken in, and how the cluster comes to have them.
//!
//! The leader of the meta group chooses the server; that one waits for the archive, makes the stream durable, and only then asks for it to be in the state
//! (`naming`). It begins there with the one replica that is there, and goes on to the others as any stream does that is to have more.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft::group::Channel;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::accounts::Accounts;
use super::super::api::backup::{Answered, restore_here};
use super::super::api::elsewhere::AskingClient;
use super::super::api::handler::Server;
use super::super::archive::Landing;
use super::super::core::StreamCore;
use super::super::meta::request::stream;
use super::super::registry::{AccountStreams, Stream};
use super::super::types::{ApiError, ErrorCode, StreamConfig, StreamInfo};
use super::kinds::{RESTORE, RESTORED};
use super::landed::Landed;
use super::maker::ClusterMaker;
use super::naming::{Name, Unnamed};
use crate::cluster::link::{Links, Request, RequestKind};

/// How long another server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Wait for the archive of a stream.
#[derive(Debug, Serialize, Deserialize)]
struct Wait {
    account: String,
    config: StreamConfig,
    client: Option<Box<AskingClient>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply<T> {
    Done(T),
    Refused(ApiError),
}

impl<T> From<Result<T, ApiError>> for Reply<T> {
    fn from(result: Result<T, ApiError>) -> Self {
        match result {
            Ok(done) => Self::Done(done),
            Err(error) => Self::Refused(error),
        }
    }
}

fn encode<T: Serialize>(value: &T) -> Bytes {
    // Values of the API: there is always JSON of them.
    Bytes::from(serde_json::to_vec(value).unwrap_or_default())
}

impl ClusterMaker {
    /// Chooses the server that takes a stream in, and has it wait for the archive, unless it is this one. On the leader of the meta group.
    pub fn restore_elsewhere(
        &self,
        account: &AccountStreams,
        config: &StreamConfig,
        client: Option<&AskingClient>,
    ) -> Result<Option<String>, ApiError> {
        let tiers = account.tiers();
        let home = self.look(&account.name, &tiers, |desk| {
            stream::home_of_restored(desk, config)
        })?;
        if home == self.own {
            return Ok(None);
        }
        let wait = Wait {
            account: account.name.clone(),
            config: config.clone(),
            client: client.cloned().map(Box::new),
        };
        Ok(Some(self.ask(&home, RESTORE, &wait)?))
    }

    /// Has a stream that was taken in be one of the cluster's, and says when it runs.
    pub fn take_in(
        &self,
        account: &AccountStreams,
        landing: Landing,
        mut core: StreamCore,
    ) -> Result<Arc<Stream>, ApiError> {
        let failed = |error: &dyn std::fmt::Display| ErrorCode::StreamRestore.with(error);
        let id = landing.finish(&mut core).map_err(|error| failed(&error))?;
        let config = StreamConfig::clone(core.config());
        let landed = Box::new(Landed { core, id });
        let created = landed.created();
        if let Err(landed) = self.landed.put(&account.name, landed) {
            self.remove(landed);
            return Err(ErrorCode::StreamNameExistRestoreFailed.into());
        }
        let name = config.name.clone();
        match self.have_named(account, config, created) {
            Ok(()) => {}
            Err(Unnamed::Unknown) => {
                tracing::error!(
                    "Whether the cluster has taken the restored stream '{} > {name}' is not known: it is kept",
                    account.name
                );
                self.settle(&account.name, &name, created);
                return Err(ErrorCode::ClusterNotAvail.into());
            }
            Err(Unnamed::NotAsked(error) | Unnamed::Refused(error)) => {
                if let Some(landed) = self.landed.take(&account.name, &name) {
                    self.remove(landed);
                }
                return Err(error);
            }
        }
        let is_it = |info: &StreamInfo| info.created == created;
        let awaited = self.await_stream(account, &name, is_it);
        awaited.map(|(stream, _)| stream)
    }

    fn remove(&self, landed: Box<Landed>) {
        let Landed { core, id } = *landed;
        drop(core);
        if let Err(error) = self.streams.engine().remove(id) {
            tracing::error!("What was restored for nothing could not be removed: {error}");
        }
    }

    /// Asks another server, and waits for what it says.
    pub(super) fn ask<T: Serialize, A: DeserializeOwned>(
        &self,
        server: &str,
        kind: RequestKind,
        question: &T,
    ) -> Result<A, NotDone> {
        let body = encode(question);
        let asked = (self.links).request(server, Channel::Control, kind, body, ANSWER_TIMEOUT);
        let answer = self.runtime.block_on(asked).map_err(|error| {
            tracing::debug!("{server:?} did not answer about a restore: {error}");
            match error.may_be_done() {
                true => NotDone::Unknown,
                false => NotDone::NotAsked,
            }
        })?;
        match serde_json::from_slice(&answer) {
            Ok(Reply::Done(answer)) => Ok(answer),
            Ok(Reply::Refused(error)) => Err(NotDone::Refused(error)),
            Err(_) => Err(NotDone::Unknown),
        }
    }
}

/// Why what another server was asked for is not done.
pub(super) enum NotDone {
    /// That server was not asked.
    NotAsked,
    /// It refuses.
    Refused(ApiError),
    /// It was asked and gave no answer: it may be done.
    Unknown,
}

impl From<NotDone> for ApiError {
    fn from(not_done: NotDone) -> Self {
        match not_done {
            NotDone::Refused(error) => error,
            NotDone::NotAsked | NotDone::Unknown => ErrorCode::ClusterNotAvail.into(),
        }
    }
}

/// Answers other servers about restores, from now on.
pub(super) fn listen(
    links: &Links,
    maker: &Arc<ClusterMaker>,
    server: &Arc<Server>,
    accounts: &Arc<Accounts>,
) {
    let (serving, accounts) = (Arc::downgrade(server), Arc::clone(accounts));
    let (runtime, known) = (maker.runtime.clone(), Arc::clone(&accounts));
    let asked = move |request: Request| {
        let Some(server) = serving.upgrade() else {
            return;
        };
        let Ok(wait) = serde_json::from_slice::<Wait>(&request.body) else {
            return request.responder.refuse("malformed");
        };
        let accounts = Arc::clone(&known);
        runtime.spawn_blocking(move || {
            let account = accounts.get(&wait.account);
            let account = account.ok_or(ErrorCode::NotEnabledForAccount);
            let begun = account.map_err(ApiError::from).and_then(|account| {
                let (body, begin) = restore_here(&server, &wait.account, wait.config)?;
                Ok((account, body.deliver_subject, begin))
            });
            let (account, subject, begin) = match begun {
                Ok(begun) => begun,
                Err(error) => {
                    let refused = Reply::<String>::Refused(error);
                    return request.responder.answer(encode(&refused));
                }
            };
            request.responder.answer(encode(&Reply::Done(subject)));
            begin(Answered {
                server,
                account,
                client: wait.client,
            });
        });
    };
    links.handle(RESTORE, Arc::new(asked));
    let (maker, runtime): (Weak<ClusterMaker>, _) = (Arc::downgrade(maker), maker.runtime.clone());
    let asked = move |request: Request| {
        let Some(maker) = maker.upgrade() else {
            return;
        };
        let Ok(name) = serde_json::from_slice::<Name>(&request.body) else {
            return request.responder.refuse("malformed");
        };
        let accounts = Arc::clone(&accounts);
        runtime.spawn_blocking(move || {
            // Whoever asked does not count on this one any more, and may ask what became of it.
            if Instant::now() >= request.deadline {
                return request.responder.refuse("too late");
            }
            let named = match accounts.get(&name.account) {
                Some(account) => maker.name(&account, &name, &request.from),
                None => Err(ErrorCode::NotEnabledForAccount.into()),
            };
            request.responder.answer(encode(&Reply::from(named)));
        });
    };
    links.handle(RESTORED, Arc::new(asked));
}
