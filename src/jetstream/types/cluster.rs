//! Who holds copies, as clients and monitoring see it.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Time, is_false, is_zero};
use crate::protocol::base62::digit;

/// A server as the JSON of clusters names it: eight characters that follow from its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 8]);

impl Default for PeerId {
    /// Nobody's.
    fn default() -> Self {
        Self(*b"00000000")
    }
}

/// The eight letters and digits that stand for a name.
pub fn name_hash(name: &str) -> [u8; 8] {
    let digest = Sha256::digest(name.as_bytes());
    let mut hash = [0; 8];
    for (character, byte) in hash.iter_mut().zip(digest) {
        *character = digit(byte);
    }
    hash
}

impl PeerId {
    /// The id of the server with this name: a server that is renamed is another one.
    pub fn of(server: &str) -> Self {
        Self(name_hash(server))
    }

    /// Its characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for PeerId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for PeerId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let id = text.as_bytes().try_into();
        let id: [u8; 8] = id.map_err(|_| serde::de::Error::custom("a peer id has 8 characters"))?;
        if !id.iter().all(u8::is_ascii_alphanumeric) {
            return Err(serde::de::Error::custom("a peer id has letters and digits"));
        }
        Ok(Self(id))
    }
}

/// Another server that holds a copy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Its name.
    pub name: String,
    /// Whether it has all that the leader has.
    pub current: bool,
    /// Whether it is out of reach.
    #[serde(default, skip_serializing_if = "is_false")]
    pub offline: bool,
    /// How long ago it was heard of, in nanoseconds.
    pub active: i64,
    /// How many entries it lacks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lag: u64,
    /// Its id.
    pub peer: PeerId,
}

/// Who holds copies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterInfo {
    /// The cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The name of the group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub raft_group: String,
    /// The server that leads.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub leader: String,
    /// Since when it leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_since: Option<Time>,
    /// Whether the group's messages travel in the system account.
    #[serde(skip_serializing_if = "is_false")]
    pub system_account: bool,
    /// The account in which they travel.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub traffic_account: String,
    /// The other servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<PeerInfo>,
}

/// How the meta group's state was last written down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetaSnapshotStats {
    /// Entries since.
    pub pending_entries: u64,
    /// Their bytes.
    pub pending_size: u64,
    /// When it was.
    pub last_time: Time,
    /// How long it took, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub last_duration: i64,
}

/// The meta group, as monitoring shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetaClusterInfo {
    /// The cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The server that leads.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub leader: String,
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerId>,
    /// The other servers, which only the leader shows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<PeerInfo>,
    /// How many servers there are.
    pub cluster_size: u64,
    /// Entries that are not applied yet.
    pub pending: u64,
    /// Requests that wait.
    pub pending_requests: u64,
    /// Questions that wait.
    pub pending_infos: u64,
    /// How the state was last written down.
    pub snapshot: Option<MetaSnapshotStats>,
}

#[cfg(test)]
mod tests {
    use super::super::{Strictness, decode, encode};
    use super::*;

    fn json<T: Serialize>(value: &T) -> String {
        String::from_utf8(encode(value)).expect("text")
    }

    fn peer() -> PeerInfo {
        PeerInfo {
            name: "n2".to_owned(),
            current: true,
            active: 52_000_000,
            peer: PeerId::of("n2"),
            ..PeerInfo::default()
        }
    }

    #[test]
    fn a_peer_id_follows_from_the_servers_name() {
        // The first eight bytes of the SHA-256 of each name, in base 62.
        assert_eq!(PeerId::of("S1").as_str(), "sQnRv29R");
        assert_eq!(PeerId::of("S2").as_str(), "n2ha8Va6");
        assert_eq!(PeerId::of("").as_str(), "fqA4S4SK");
    }

    #[test]
    fn a_cluster_is_written_key_by_key_and_leaves_out_what_it_has_not() {
        let mut info = ClusterInfo {
            name: "C1".to_owned(),
            leader: "n1".to_owned(),
            ..ClusterInfo::default()
        };
        assert_eq!(json(&info), r#"{"name":"C1","leader":"n1"}"#);
        info.raft_group = "S-R3F-abcdefgh".to_owned();
        info.leader_since = Some(Time::from_nanoseconds(0));
        info.system_account = true;
        info.traffic_account = "$SYS".to_owned();
        info.replicas = vec![peer()];
        let written = json(&info);
        let id = PeerId::of("n2");
        assert_eq!(
            written,
            format!(
                r#"{{"name":"C1","raft_group":"S-R3F-abcdefgh","leader":"n1","leader_since":"1970-01-01T00:00:00Z","system_account":true,"traffic_account":"$SYS","replicas":[{{"name":"n2","current":true,"active":52000000,"peer":"{id}"}}]}}"#
            )
        );
        assert_eq!(
            decode::<ClusterInfo>(written.as_bytes(), Strictness::Strict),
            Ok(info)
        );
    }

    #[test]
    fn a_peer_that_lags_or_is_away_says_so() {
        let peer = PeerInfo {
            offline: true,
            lag: 7,
            current: false,
            ..peer()
        };
        let id = PeerId::of("n2");
        assert_eq!(
            json(&peer),
            format!(
                r#"{{"name":"n2","current":false,"offline":true,"active":52000000,"lag":7,"peer":"{id}"}}"#
            )
        );
        assert!(decode::<PeerInfo>(br#"{"name":"n","peer":"short"}"#, Strictness::Strict).is_err());
    }

    #[test]
    fn the_meta_group_is_written_key_by_key() {
        let mut meta = MetaClusterInfo {
            name: "C1".to_owned(),
            leader: "n1".to_owned(),
            peer: Some(PeerId::of("n1")),
            cluster_size: 3,
            ..MetaClusterInfo::default()
        };
        let id = PeerId::of("n1");
        let open = format!(
            r#"{{"name":"C1","leader":"n1","peer":"{id}","cluster_size":3,"pending":0,"pending_requests":0,"pending_infos":0,"snapshot":"#
        );
        assert_eq!(json(&meta), format!("{open}null}}"));
        meta.snapshot = Some(MetaSnapshotStats {
            pending_entries: 2,
            pending_size: 99,
            last_time: Time::from_nanoseconds(0),
            last_duration: 1000,
        });
        assert_eq!(
            json(&meta),
            format!(
                r#"{open}{{"pending_entries":2,"pending_size":99,"last_time":"1970-01-01T00:00:00Z","last_duration":1000}}}}"#
            )
        );
    }
}
