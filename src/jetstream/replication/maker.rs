//! Makes, changes and removes streams of a cluster: on the meta leader, by what it decides and proposes.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::super::api::administration::remove_peer;
use super::super::api::handler::{StreamMaker, unexpected};
use super::super::api::now;
use super::super::archive::{Landing, StreamBuilder, StreamMeta};
use super::super::core::{InfoQuery, StreamCore, StreamReply, StreamRequest};
use super::super::limits::{AccountTiers, ServerLimits};
use super::super::meta::request::{Decision, Desk, stream};
use super::super::meta::{Command, Meta, PlacementRules, Sightings, Stored};
use super::super::registry::{AccountStreams, Stream};
use super::super::shard::Streams;
use super::super::types::{
    ApiError, ErrorCode, Storage, StreamConfig, StreamInfo, Strictness, Time,
};
use super::assembly::random_id;
use super::landed::LandedStreams;
use super::meta_machine::MetaMachine;
use super::proposer::Proposer;
use super::reports::Reporter;
use super::router::{Directory, StreamLeader};
use super::view::View;
use crate::cluster::link::Links;

/// How long a stream may take to run where it was placed.
const START_TIMEOUT: Duration = Duration::from_secs(4);
/// How often it is looked for.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// Makes streams of a cluster.
pub(super) struct ClusterMaker {
    pub cluster: String,
    /// The tag in which the servers of a stream's replicas must differ; empty for none.
    pub unique_tag: String,
    pub limits: ServerLimits,
    pub machine: Arc<MetaMachine>,
    pub proposer: Arc<Proposer>,
    pub reporter: Arc<Reporter>,
    /// It knows the server, which knows who makes streams.
    pub view: Weak<View>,
    /// The streams of this server.
    pub streams: Arc<Streams>,
    /// Those of them that came out of backups and are not in the state yet.
    pub landed: Arc<LandedStreams>,
    pub own: String,
    pub links: Arc<Links>,
    pub runtime: tokio::runtime::Handle,
}

impl ClusterMaker {
    fn view(&self) -> Result<Arc<View>, ApiError> {
        let view = self.view.upgrade();
        view.ok_or_else(|| ErrorCode::ClusterNotAvail.into())
    }

    /// What the operator asks of every placement.
    pub fn rules(&self) -> PlacementRules<'_> {
        PlacementRules {
            unique_tag: &self.unique_tag,
            ha_assets_max: u64::try_from(self.limits.max_ha_assets).unwrap_or(0),
        }
    }

    /// Looks at a request about an account without carrying anything out.
    pub fn consider<T>(
        &self,
        account: &str,
        look: impl FnOnce(&Desk<'_>) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        self.look(account, &AccountTiers::default(), look)
    }

    /// The same of an account that may use that much.
    pub fn look<T>(
        &self,
        account: &str,
        tiers: &AccountTiers,
        look: impl FnOnce(&Desk<'_>) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let (meta, sightings) = (self.machine.meta(), self.view()?.sightings());
        look(&self.desk(&meta, &sightings, account, tiers))
    }

    fn desk<'a>(
        &'a self,
        meta: &'a Meta,
        sightings: &'a Sightings,
        account: &'a str,
        tiers: &'a AccountTiers,
    ) -> Desk<'a> {
        Desk {
            meta,
            sightings,
            placement: self.rules(),
            account,
            tiers,
            server: &self.limits,
            cluster: &self.cluster,
            // Without gateways there is one cluster.
            alternates: &[],
            now: now(),
            seed: random_id(),
        }
    }

    /// Decides about a request for an account that may use that much, and carries the decision out in the state of the meta group. Waits.
    pub fn decide(
        &self,
        account: &str,
        tiers: Option<Arc<AccountTiers>>,
        decide: impl FnOnce(&Desk<'_>) -> Result<Decision, ApiError>,
    ) -> Result<Decision, ApiError> {
        let sightings = self.view()?.sightings();
        let tiers = tiers.unwrap_or_default();
        let decided = self
            .proposer
            .decide(|meta| decide(&self.desk(meta, &sightings, account, &tiers)));
        decided.map(|(decision, _)| decision)
    }

    pub fn create_stream(
        &self,
        account: &AccountStreams,
        name: &str,
        config: StreamConfig,
        pedantic: bool,
    ) -> Result<Arc<Stream>, ApiError> {
        self.decide(&account.name, Some(account.tiers()), |desk| {
            stream::create(desk, name, config, pedantic)
        })?;
        let is_it = |info: &StreamInfo| {
            let meta = self.machine.meta();
            let assigned = meta.stream(&account.name, name);
            assigned.is_some_and(|assigned| assigned.created == info.created)
        };
        self.await_stream(account, name, is_it)
            .map(|(stream, _)| stream)
    }

    pub fn update_stream(
        &self,
        account: &AccountStreams,
        name: &str,
        config: StreamConfig,
        pedantic: bool,
    ) -> Result<StreamInfo, ApiError> {
        let leader = match self.view()?.stream_leader(&account.name, name) {
            StreamLeader::Server(server) => Some(server),
            _ => None,
        };
        let decision = self.decide(&account.name, Some(account.tiers()), |desk| {
            stream::update(desk, name, config, pedantic, leader.as_deref())
        })?;
        let config = match &decision {
            Decision::Propose(Command::StreamUpdate { config, .. }) => {
                Some(Stored::<StreamConfig>::from_json(config).config)
            }
            _ => None,
        };
        let is_so = |info: &StreamInfo| config.as_ref().is_none_or(|config| info.config == *config);
        self.await_stream(account, name, is_so)
            .map(|(_, info)| info)
    }

    pub fn delete_stream(&self, account: &AccountStreams, name: &str) -> Result<(), ApiError> {
        let stream = account.get(name);
        self.decide(&account.name, Some(account.tiers()), |desk| {
            stream::delete(desk, name)
        })?;
        if let Some(stream) = stream {
            // Whoever asks next must not be shown it; what it holds goes as soon as this server follows.
            account.remove_exactly(&stream);
        }
        Ok(())
    }

    pub fn remove_replica(
        &self,
        account: &AccountStreams,
        name: &str,
        body: &[u8],
        strictness: Strictness,
    ) -> Result<(), ApiError> {
        let mut replicas = 0;
        let decided = self.decide(&account.name, Some(account.tiers()), |desk| {
            replicas = desk.find(name)?.group.servers().len();
            remove_peer(desk, name, body, strictness)
        })?;
        match decided {
            // It is done, and told as the reference tells it: nobody was there to take the place.
            Decision::Propose(Command::MembersReplace { members, .. })
                if members.servers.len() < replicas =>
            {
                tracing::warn!(
                    "JetStream cluster could not replace peer for stream '{} > {name}'",
                    account.name
                );
                Err(ErrorCode::PeerRemap.into())
            }
            _ => Ok(()),
        }
    }

    /// Waits until a stream runs where it is, as it is to be.
    pub fn await_stream(
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
        // A stream that changes its form is nowhere for a moment.
        match last.is(ErrorCode::StreamNotFound) {
            true => Err(ErrorCode::ClusterNotAvail.into()),
            false => Err(last),
        }
    }

    fn is_led(&self, account: &str, name: &str) -> bool {
        self.view().is_ok_and(|view| {
            let leader = view.stream_leader(account, name);
            matches!(leader, StreamLeader::Server(_))
        })
    }
}

impl StreamMaker for ClusterMaker {
    /// When it was created is decided with the stream.
    fn create(
        &self,
        account: &AccountStreams,
        config: StreamConfig,
        _created: Time,
    ) -> Result<Arc<Stream>, ApiError> {
        let name = config.name.clone();
        self.create_stream(account, &name, config, false)
    }

    fn update(
        &self,
        account: &AccountStreams,
        stream: &Stream,
        config: StreamConfig,
    ) -> Result<StreamInfo, ApiError> {
        self.update_stream(account, &stream.name, config, false)
    }

    fn remove(&self, account: &AccountStreams, stream: &Stream) -> Result<(), ApiError> {
        self.delete_stream(account, &stream.name)
    }

    fn remove_offline(&self, account: &AccountStreams, name: &str) -> Result<(), ApiError> {
        self.delete_stream(account, name)
    }

    /// What each server has left is looked at when a stream is placed.
    fn unreserved(&self, _storage: Storage) -> u64 {
        u64::MAX
    }

    fn has_interest(&self, account: &AccountStreams, subject: &str) -> bool {
        self.streams.has_interest(account, subject)
    }

    fn land(
        &self,
        account: &AccountStreams,
        meta: StreamMeta,
    ) -> Result<(Landing, StreamBuilder), ApiError> {
        self.streams.land(account, meta)
    }

    fn take_up(
        &self,
        account: &AccountStreams,
        landing: Landing,
        core: StreamCore,
    ) -> Result<Arc<Stream>, ApiError> {
        self.take_in(account, landing, core)
    }
}
