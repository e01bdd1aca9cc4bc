//! What happens to groups: who leads, when nobody can, and who goes.

use serde::Serialize;

use super::super::types::{PeerInfo, Time};
use super::typed;

/// Where it is reported that a server leads the meta group.
pub(crate) const DOMAIN_LEADER_ELECTED: &str = "$JS.EVENT.ADVISORY.DOMAIN.LEADER_ELECTED";
/// Where it is reported that a server was removed.
pub(crate) const SERVER_REMOVED: &str = "$JS.EVENT.ADVISORY.SERVER.REMOVED";
/// Where it is reported that a server can store nothing any more.
pub(crate) const SERVER_OUT_OF_STORAGE: &str = "$JS.EVENT.ADVISORY.SERVER.OUT_OF_STORAGE";

/// A server leads the meta group from now on.
#[derive(Debug, Serialize)]
pub(crate) struct DomainLeaderElected<'a> {
    /// Its peer id.
    pub leader: &'a str,
    pub replicas: &'a [PeerInfo],
    pub cluster: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub domain: &'a str,
}

impl DomainLeaderElected<'_> {
    /// What is reported.
    pub(crate) fn payload(&self, now: Time) -> Vec<u8> {
        typed(
            "io.nats.jetstream.advisory.v1.domain_leader_elected",
            now,
            self,
        )
    }
}

/// What the group of a stream, or of a consumer in it, has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupEvent<'a> {
    /// A server leads from now on.
    LeaderElected {
        /// Its name.
        leader: &'a str,
    },
    /// No majority can be reached.
    QuorumLost,
}

/// The group of a stream or of a consumer, and what it has come to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupAdvisory<'a> {
    pub account: &'a str,
    pub stream: &'a str,
    /// Empty when it is about the stream itself.
    pub consumer: &'a str,
    pub event: GroupEvent<'a>,
    pub replicas: &'a [PeerInfo],
    pub domain: &'a str,
}

impl GroupAdvisory<'_> {
    /// Where it is reported.
    pub(crate) fn subject(&self) -> String {
        let verb = match self.event {
            GroupEvent::LeaderElected { .. } => "LEADER_ELECTED",
            GroupEvent::QuorumLost => "QUORUM_LOST",
        };
        let stream = self.stream;
        match self.consumer {
            "" => format!("$JS.EVENT.ADVISORY.STREAM.{verb}.{stream}"),
            consumer => format!("$JS.EVENT.ADVISORY.CONSUMER.{verb}.{stream}.{consumer}"),
        }
    }

    /// What is reported.
    pub(crate) fn payload(&self, now: Time) -> Vec<u8> {
        #[derive(Serialize)]
        struct Event<'a> {
            #[serde(skip_serializing_if = "str::is_empty")]
            account: &'a str,
            stream: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            consumer: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            leader: Option<&'a str>,
            replicas: &'a [PeerInfo],
            #[serde(skip_serializing_if = "str::is_empty")]
            domain: &'a str,
        }
        let of_stream = self.consumer.is_empty();
        let (kind, leader) = match self.event {
            GroupEvent::LeaderElected { leader } if of_stream => (
                "io.nats.jetstream.advisory.v1.stream_leader_elected",
                Some(leader),
            ),
            GroupEvent::LeaderElected { leader } => (
                "io.nats.jetstream.advisory.v1.consumer_leader_elected",
                Some(leader),
            ),
            GroupEvent::QuorumLost if of_stream => {
                ("io.nats.jetstream.advisory.v1.stream_quorum_lost", None)
            }
            GroupEvent::QuorumLost => ("io.nats.jetstream.advisory.v1.consumer_quorum_lost", None),
        };
        let event = Event {
            account: self.account,
            stream: self.stream,
            consumer: self.consumer,
            leader,
            replicas: self.replicas,
            domain: self.domain,
        };
        typed(kind, now, event)
    }
}

/// A server was removed from the cluster.
#[derive(Debug, Serialize)]
pub(crate) struct ServerRemoved<'a> {
    pub server: &'a str,
    pub server_id: &'a str,
    pub cluster: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub domain: &'a str,
}

impl ServerRemoved<'_> {
    /// What is reported.
    pub(crate) fn payload(&self, now: Time) -> Vec<u8> {
        typed("io.nats.jetstream.advisory.v1.server_removed", now, self)
    }
}

/// A server can store nothing any more, and has ended JetStream.
#[derive(Debug, Serialize)]
pub(crate) struct ServerOutOfStorage<'a> {
    pub server: &'a str,
    pub server_id: &'a str,
    /// The stream that found out.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub stream: &'a str,
    pub cluster: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub domain: &'a str,
}

impl ServerOutOfStorage<'_> {
    /// What is reported.
    pub(crate) fn payload(&self, now: Time) -> Vec<u8> {
        typed(
            "io.nats.jetstream.advisory.v1.server_out_of_space",
            now,
            self,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::types::PeerId;
    use super::*;

    /// The text after the id and the time, which are new each time.
    fn tail(payload: Vec<u8>) -> (String, String) {
        let text = String::from_utf8(payload).expect("text");
        let kind = text.split('"').nth(3).expect("a type").to_owned();
        let at = text.find("\"timestamp\":\"1970-01-01T00:00:00Z\",");
        let at = at.expect("a time") + "\"timestamp\":\"1970-01-01T00:00:00Z\",".len();
        (kind, text[at..].to_owned())
    }

    fn replicas() -> Vec<PeerInfo> {
        vec![PeerInfo {
            name: "n2".to_owned(),
            current: true,
            peer: PeerId::of("n2"),
            ..PeerInfo::default()
        }]
    }

    const NOW: Time = Time::from_nanoseconds(0);

    #[test]
    fn an_election_names_the_leader_and_the_others() {
        let replicas = replicas();
        let mut advisory = GroupAdvisory {
            account: "A",
            stream: "S",
            consumer: "",
            event: GroupEvent::LeaderElected { leader: "n1" },
            replicas: &replicas,
            domain: "",
        };
        let id = PeerId::of("n2");
        let others = format!(r#"[{{"name":"n2","current":true,"active":0,"peer":"{id}"}}]"#);
        assert_eq!(
            advisory.subject(),
            "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.S"
        );
        assert_eq!(
            tail(advisory.payload(NOW)),
            (
                "io.nats.jetstream.advisory.v1.stream_leader_elected".to_owned(),
                format!(r#""account":"A","stream":"S","leader":"n1","replicas":{others}}}"#)
            )
        );
        advisory.consumer = "C";
        advisory.domain = "hub";
        assert_eq!(
            advisory.subject(),
            "$JS.EVENT.ADVISORY.CONSUMER.LEADER_ELECTED.S.C"
        );
        assert_eq!(
            tail(advisory.payload(NOW)),
            (
                "io.nats.jetstream.advisory.v1.consumer_leader_elected".to_owned(),
                format!(
                    r#""account":"A","stream":"S","consumer":"C","leader":"n1","replicas":{others},"domain":"hub"}}"#
                )
            )
        );
    }

    #[test]
    fn a_lost_quorum_names_no_leader() {
        let advisory = GroupAdvisory {
            account: "",
            stream: "S",
            consumer: "C",
            event: GroupEvent::QuorumLost,
            replicas: &[],
            domain: "",
        };
        assert_eq!(
            advisory.subject(),
            "$JS.EVENT.ADVISORY.CONSUMER.QUORUM_LOST.S.C"
        );
        assert_eq!(
            tail(advisory.payload(NOW)),
            (
                "io.nats.jetstream.advisory.v1.consumer_quorum_lost".to_owned(),
                r#""stream":"S","consumer":"C","replicas":[]}"#.to_owned()
            )
        );
        let stream = GroupAdvisory {
            consumer: "",
            ..advisory
        };
        assert_eq!(stream.subject(), "$JS.EVENT.ADVISORY.STREAM.QUORUM_LOST.S");
        assert!(tail(stream.payload(NOW)).0.ends_with("stream_quorum_lost"));
    }

    #[test]
    fn the_meta_group_and_its_servers_have_advisories_of_their_own() {
        let elected = DomainLeaderElected {
            leader: "n1",
            replicas: &[],
            cluster: "C1",
            domain: "",
        };
        assert_eq!(
            tail(elected.payload(NOW)),
            (
                "io.nats.jetstream.advisory.v1.domain_leader_elected".to_owned(),
                r#""leader":"n1","replicas":[],"cluster":"C1"}"#.to_owned()
            )
        );
        let removed = ServerRemoved {
            server: "n3",
            server_id: "NCX",
            cluster: "C1",
            domain: "hub",
        };
        assert_eq!(
            [DOMAIN_LEADER_ELECTED, SERVER_REMOVED],
            [
                "$JS.EVENT.ADVISORY.DOMAIN.LEADER_ELECTED",
                "$JS.EVENT.ADVISORY.SERVER.REMOVED"
            ]
        );
        let full = ServerOutOfStorage {
            server: "n3",
            server_id: "NCX",
            stream: "S",
            cluster: "",
            domain: "",
        };
        assert_eq!(
            tail(full.payload(NOW)),
            (
                "io.nats.jetstream.advisory.v1.server_out_of_space".to_owned(),
                r#""server":"n3","server_id":"NCX","stream":"S","cluster":""}"#.to_owned()
            )
        );
        assert_eq!(
            tail(removed.payload(NOW)),
            (
                "io.nats.jetstream.advisory.v1.server_removed".to_owned(),
                r#""server":"n3","server_id":"NCX","cluster":"C1","domain":"hub"}"#.to_owned()
            )
        );
    }
}
