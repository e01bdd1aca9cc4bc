//! Makes, changes and removes streams of a cluster: on the meta leader, by what it proposes.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::super::api::handler::{StreamMaker, unexpected};
use super::super::core::{InfoQuery, StreamReply, StreamRequest};
use super::super::id;
use super::super::limits::reservation;
use super::super::meta::{Change, Command, Meta, Stored, StreamRef, replicas};
use super::super::registry::{AccountStreams, Stream};
use super::super::runtime::Backend;
use super::super::types::{ApiError, ErrorCode, Storage, StreamConfig, StreamInfo, Time};
use super::meta_machine::{MetaMachine, ProposeError};
use super::router::{Directory, StreamLeader};
use super::view::View;
use crate::cluster::link::Links;

/// How long a command may take to be committed.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a stream may take to run where it was placed.
const START_TIMEOUT: Duration = Duration::from_secs(4);
/// How often it is looked for.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// Makes streams of a cluster.
pub(super) struct ClusterMaker {
    pub own: String,
    pub cluster: String,
    pub machine: Arc<MetaMachine>,
    /// It knows the server, which knows who makes streams.
    pub view: Weak<View>,
    pub local: Arc<dyn Backend>,
    pub links: Arc<Links>,
    pub runtime: tokio::runtime::Handle,
}

impl ClusterMaker {
    /// Proposes to the meta group, and says what it changed. Waits.
    pub fn propose(&self, command: &Command) -> Result<Vec<Change>, ApiError> {
        let proposed = self.machine.propose(command, COMMIT_TIMEOUT);
        let changes = self
            .runtime
            .block_on(proposed)
            .map_err(|error| match error {
                ProposeError::NotLeader => ErrorCode::ClusterNotLeader,
                ProposeError::Unknown => ErrorCode::ClusterNotAvail,
            })?;
        let refused = changes.iter().find_map(|change| match change {
            Change::Refused(refusal) => Some(*refusal),
            _ => None,
        });
        match refused {
            Some(refusal) => Err(refusal.into()),
            None => Ok(changes),
        }
    }

    /// The servers that a stream is to live on: such as can be reached and have room, the least used first.
    fn place(&self, meta: &Meta, config: &StreamConfig) -> Result<Vec<String>, ApiError> {
        let mut streams: HashMap<&str, (usize, u64)> = HashMap::new();
        for (_, stream) in meta.all_streams() {
            let other = stream.config();
            let bytes = match other.storage == config.storage {
                true => reservation(other),
                false => 0,
            };
            for member in stream.group.everyone() {
                let held = streams.entry(&member.server).or_default();
                held.0 += 1;
                held.1 = held.1.saturating_add(bytes);
            }
        }
        let wanted = reservation(config);
        let mut candidates = Vec::new();
        let mut full = false;
        for (server, peer) in meta.peers() {
            let reached = *server == self.own || self.is_reached(server);
            if !reached || !peer.profile.jetstream {
                continue;
            }
            let (count, held) = streams.get(server.as_str()).copied().unwrap_or_default();
            let max = match config.storage {
                Storage::File => peer.profile.storage_bytes_max,
                Storage::Memory => peer.profile.memory_bytes_max,
            };
            if held.saturating_add(wanted) > max {
                full = true;
                continue;
            }
            candidates.push((count, held, *server != self.own, server));
        }
        candidates.sort_unstable();
        let wanted = replicas(config);
        if candidates.len() < wanted {
            let reason = match full {
                true => "no suitable peers for placement, insufficient storage",
                false => "no suitable peers for placement, peer offline",
            };
            return Err(ErrorCode::ClusterNoPeers.with(reason));
        }
        let best = candidates.into_iter().take(wanted);
        Ok(best.map(|(_, _, _, server)| server.clone()).collect())
    }

    fn is_reached(&self, server: &str) -> bool {
        self.links
            .is_connected(server, raft::group::Channel::Control)
    }

    /// Waits until a stream runs where it is, as it is to be.
    fn await_stream(
        &self,
        account: &AccountStreams,
        name: &str,
        is_so: impl Fn(&StreamInfo) -> bool,
    ) -> Result<(Arc<Stream>, StreamInfo), ApiError> {
        let begun = Instant::now();
        let mut last = ErrorCode::ClusterNotAvail.into();
        while begun.elapsed() < START_TIMEOUT {
            if let Some(stream) = account
                .get(name)
                .filter(|_| self.is_led(&account.name, name))
            {
                match stream.ask(StreamRequest::Info(InfoQuery::default())) {
                    StreamReply::Info { info, .. } if is_so(&info) => return Ok((stream, *info)),
                    StreamReply::Info { .. } => {}
                    other => last = unexpected(other),
                }
            }
            std::thread::sleep(LOOK_PAUSE);
        }
        tracing::warn!(
            "JetStream stream '{} > {name}' does not answer where it was placed",
            account.name
        );
        Err(last)
    }

    fn is_led(&self, account: &str, name: &str) -> bool {
        let view = self.view.upgrade();
        view.is_some_and(|view| {
            let leader = view.stream_leader(account, name);
            matches!(leader, StreamLeader::Server(_))
        })
    }

    fn reference(&self, account: &str, name: &str) -> Result<(StreamRef, u64), ApiError> {
        let meta = self.machine.meta();
        let stream = meta
            .stream(account, name)
            .ok_or(ErrorCode::StreamNotFound)?;
        let of = StreamRef {
            account: account.to_owned(),
            stream: name.to_owned(),
            group: stream.group.number,
        };
        Ok((of, stream.revision))
    }
}

/// What a group is called: how many replicas, on what, and something random.
fn group_name(config: &StreamConfig) -> String {
    let storage = match config.storage {
        Storage::File => 'F',
        Storage::Memory => 'M',
    };
    format!("S-R{}{storage}-{}", config.num_replicas.max(1), id::short())
}

impl StreamMaker for ClusterMaker {
    fn create(
        &self,
        account: &AccountStreams,
        config: StreamConfig,
        created: Time,
    ) -> Result<Arc<Stream>, ApiError> {
        let name = config.name.clone();
        let servers = self.place(&self.machine.meta(), &config)?;
        self.propose(&Command::StreamCreate {
            account: account.name.clone(),
            stream: name.clone(),
            group_name: group_name(&config),
            config: Stored::of(config).json().to_vec(),
            created,
            cluster: self.cluster.clone(),
            servers,
            preferred: String::new(),
        })?;
        let is_it = |info: &StreamInfo| info.created == created;
        self.await_stream(account, &name, is_it)
            .map(|(stream, _)| stream)
    }

    fn update(
        &self,
        account: &AccountStreams,
        stream: &Stream,
        config: StreamConfig,
    ) -> Result<StreamInfo, ApiError> {
        let (of, revision) = self.reference(&account.name, &stream.name)?;
        self.propose(&Command::StreamUpdate {
            of,
            revision,
            config: Stored::of(config.clone()).json().to_vec(),
            members: None,
        })?;
        let is_so = |info: &StreamInfo| info.config == config;
        self.await_stream(account, &stream.name, is_so)
            .map(|(_, info)| info)
    }

    fn remove(&self, account: &AccountStreams, stream: &Stream) -> Result<(), ApiError> {
        let (of, _) = self.reference(&account.name, &stream.name)?;
        self.propose(&Command::StreamDelete { of }).map(drop)
    }

    fn remove_offline(&self, account: &AccountStreams, name: &str) -> Result<(), ApiError> {
        match self.reference(&account.name, name) {
            Ok((of, _)) => self.propose(&Command::StreamDelete { of }).map(drop),
            Err(_) => self.local.remove_offline(account, name),
        }
    }

    /// What each server has left is looked at when a stream is placed.
    fn unreserved(&self, _storage: Storage) -> u64 {
        u64::MAX
    }

    fn has_interest(&self, account: &AccountStreams, subject: &str) -> bool {
        self.local.has_interest(account, subject)
    }
}
