//! Groups as clients and monitoring see them.

use std::collections::BTreeMap;

use super::assignment::Group;
use super::peer::{Sightings, is_online};
use super::state::Meta;
use crate::jetstream::types::{
    ClusterInfo, MetaClusterInfo, MetaSnapshotStats, PeerId, PeerInfo, Time,
};

/// A replica that was not heard of for so long does not count as current.
const SILENT_NS: i64 = 10_000_000_000;

/// What a leader knows of another replica.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Follower {
    /// How many entries it lacks.
    pub lag: u64,
    /// How long ago it was heard of, in nanoseconds; `None` when it never was.
    pub silent_ns: Option<i64>,
}

/// How a group is led, as far as it is known where the question is answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The server that leads; empty for none.
    pub leader: String,
    /// Since when.
    pub since: Option<Time>,
    /// What the leader knows of the others, by server. Empty where that is not known.
    pub followers: BTreeMap<String, Follower>,
    /// Whether it is the leader that says so: a server that is not among its followers has nothing yet.
    pub by_leader: bool,
}

impl Leadership {
    /// Another server of the group.
    fn peer(&self, server: &str, sightings: &Sightings, now: Time) -> PeerInfo {
        let follower = self.followers.get(server).copied();
        let seen = sightings.get(server).map(|seen| seen.last_seen);
        let silent_ns = follower
            .and_then(|follower| follower.silent_ns)
            .or_else(|| {
                let seen = seen.filter(|seen| !seen.is_zero())?;
                Some(now.nanoseconds().saturating_sub(seen.nanoseconds()).max(0))
            });
        let lag = follower.map_or(0, |follower| follower.lag);
        let heard = silent_ns.is_some_and(|silent| silent <= SILENT_NS);
        PeerInfo {
            name: server.to_owned(),
            current: heard && lag == 0 && (follower.is_some() || !self.by_leader),
            offline: !is_online(sightings, server),
            active: silent_ns.unwrap_or(0),
            lag,
            peer: PeerId::of(server),
        }
    }

    /// All servers of the group but the one that leads, by name.
    pub fn peers<'a>(
        &self,
        servers: impl IntoIterator<Item = &'a str>,
        sightings: &Sightings,
        now: Time,
    ) -> Vec<PeerInfo> {
        let mut names: Vec<&str> = servers.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        let others = names.into_iter().filter(|server| *server != self.leader);
        others
            .map(|server| self.peer(server, sightings, now))
            .collect()
    }
}

impl Group {
    /// Who holds copies, for the infos of a stream and its consumers.
    pub fn shown(&self, led: &Leadership, sightings: &Sightings, now: Time) -> ClusterInfo {
        let servers = self.everyone().map(|member| member.server.as_str());
        ClusterInfo {
            name: self.cluster.clone(),
            raft_group: self.name.clone(),
            leader: led.leader.clone(),
            leader_since: led.since,
            system_account: true,
            traffic_account: String::new(),
            replicas: led.peers(servers, sightings, now),
        }
    }
}

impl Meta {
    /// The meta group, as the server `own` of that cluster shows it: only the leader shows the others.
    pub fn shown(
        &self,
        own: &str,
        cluster: &str,
        led: &Leadership,
        sightings: &Sightings,
        now: Time,
        snapshot: MetaSnapshotStats,
    ) -> MetaClusterInfo {
        let servers = self.peers().keys().map(String::as_str);
        let known = !led.leader.is_empty();
        MetaClusterInfo {
            name: cluster.to_owned(),
            leader: led.leader.clone(),
            peer: known.then(|| PeerId::of(&led.leader)),
            replicas: match led.leader == own {
                true => led.peers(servers, sightings, now),
                false => Vec::new(),
            },
            cluster_size: self.peers().len() as u64,
            pending: 0,
            pending_requests: 0,
            pending_infos: 0,
            snapshot: Some(snapshot),
        }
    }
}
