//! Streams out of backups, in a cluster: where they are taken in, and how the cluster comes to have them.
//!
//! The leader of the meta group chooses the server; that one waits for the archive, makes the stream durable, and only then asks for it to be in the state. It
//! begins there with the one replica that is there, and goes on to the others as any stream does that is to have more.

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
use super::super::meta::AccountTiers;
use super::super::meta::request::stream;
use super::super::registry::{AccountStreams, Stream};
use super::super::types::{ApiError, ErrorCode, StreamConfig, StreamInfo, Time};
use super::kinds::{RESTORE, RESTORED};
use super::landed::Landed;
use super::maker::ClusterMaker;
use crate::cluster::link::{Links, Request, RequestKind};

/// How long another server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the state is asked to name a stream that is here, and how long is waited in between.
const NAMING_TIMEOUT: Duration = Duration::from_secs(30);
const NAMING_PAUSE: Duration = Duration::from_millis(200);

/// Wait for the archive of a stream.
#[derive(Debug, Serialize, Deserialize)]
struct Wait {
    account: String,
    config: StreamConfig,
    client: Option<Box<AskingClient>>,
}

/// Have a stream be in the state that was taken in where this comes from.
#[derive(Debug, Serialize, Deserialize)]
struct Name {
    account: String,
    config: StreamConfig,
    created: Time,
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
        let tiers = AccountTiers::of_all(account.limits());
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
        self.ask(&home, RESTORE, &wait).map(Some)
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
        if let Err(unnamed) = self.have_named(account, config, created) {
            let title = format!("{} > {name}", account.name);
            return Err(match unnamed {
                Unnamed::Refused(error) => {
                    if let Some(landed) = self.landed.take(&account.name, &name) {
                        self.remove(landed);
                    }
                    error
                }
                Unnamed::Unknown => {
                    tracing::error!(
                        "Whether the cluster has taken the restored stream '{title}' is not known: it is kept"
                    );
                    ErrorCode::ClusterNotAvail.into()
                }
            });
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

    fn have_named(
        &self,
        account: &AccountStreams,
        config: StreamConfig,
        created: Time,
    ) -> Result<(), Unnamed> {
        let name = Name {
            account: account.name.clone(),
            config,
            created,
        };
        let begun = Instant::now();
        let mut may_be_so = false;
        loop {
            let error = match self.try_to_name(account, &name) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let not_asked = error.is(ErrorCode::ClusterNotLeader);
            if !not_asked && !error.is(ErrorCode::ClusterNotAvail) {
                return Err(Unnamed::Refused(error));
            }
            may_be_so |= !not_asked;
            if begun.elapsed() >= NAMING_TIMEOUT {
                return Err(match may_be_so {
                    true => Unnamed::Unknown,
                    false => Unnamed::Refused(error),
                });
            }
            std::thread::sleep(NAMING_PAUSE);
        }
    }

    fn try_to_name(&self, account: &AccountStreams, name: &Name) -> Result<(), ApiError> {
        if self.machine.leads() {
            return self.name(account, name, &self.own);
        }
        let leader = self.machine.group().and_then(|group| group.leader());
        let leader = leader.ok_or(ErrorCode::ClusterNotLeader)?;
        self.ask(&leader.server, RESTORED, name)
    }

    fn name(&self, account: &AccountStreams, name: &Name, home: &str) -> Result<(), ApiError> {
        let decided = self.decide(&account.name, Some(account.limits()), |desk| {
            stream::restored(desk, &name.config, name.created, home)
        });
        decided.map(drop)
    }

    fn ask<T: Serialize, A: DeserializeOwned>(
        &self,
        server: &str,
        kind: RequestKind,
        question: &T,
    ) -> Result<A, ApiError> {
        let unavailable = ErrorCode::ClusterNotAvail;
        let body = encode(question);
        let asked = (self.links).request(server, Channel::Control, kind, body, ANSWER_TIMEOUT);
        let answer = self.runtime.block_on(asked).map_err(|error| {
            tracing::debug!("{server:?} did not answer about a restore: {error}");
            ApiError::from(unavailable)
        })?;
        match serde_json::from_slice(&answer) {
            Ok(Reply::Done(answer)) => Ok(answer),
            Ok(Reply::Refused(error)) => Err(error),
            Err(_) => Err(unavailable.into()),
        }
    }
}

/// Why the state does not name a stream that was taken in.
enum Unnamed {
    /// It never will.
    Refused(ApiError),
    /// It may yet.
    Unknown,
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
            let named = match accounts.get(&name.account) {
                Some(account) => maker.name(&account, &name, &request.from),
                None => Err(ErrorCode::NotEnabledForAccount.into()),
            };
            request.responder.answer(encode(&Reply::from(named)));
        });
    };
    links.handle(RESTORED, Arc::new(asked));
}
