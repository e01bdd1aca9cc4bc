//! Reports to the leader of the meta group: what servers say of themselves, and what has become of what they hold.
//!
//! Each is the command that the leader is to propose. A server reports on itself and on groups that it is part of, and on nothing else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft::group::Channel;

use super::super::meta::{Command, Meta, StreamRef};
use super::kinds::REPORT;
use super::meta_machine::MetaMachine;
use super::proposer::Proposer;
use crate::cluster::link::{Links, Request};

/// How long the leader may take to take a report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(4);

/// Tells the leader of the meta group, wherever it is.
pub(super) struct Reporter {
    pub machine: Arc<MetaMachine>,
    pub proposer: Arc<Proposer>,
    pub links: Arc<Links>,
}

impl Reporter {
    /// Has a command proposed; what it reports is applied when this returns.
    pub async fn report(&self, command: &Command) -> Result<(), String> {
        if self.machine.leads() {
            let proposed = self.proposer.propose(command).await;
            return proposed.map(drop).map_err(|error| error.to_string());
        }
        let leader = self.machine.group().and_then(|group| group.leader());
        let leader = leader.ok_or("the meta group has no leader")?;
        let body = Bytes::from(command.encode());
        let (to, within) = (&leader.server, REPORT_TIMEOUT);
        let told = self
            .links
            .request(to, Channel::Control, REPORT, body, within);
        told.await.map(drop).map_err(|error| error.to_string())
    }

    /// Takes the reports of other servers, when this one leads.
    pub fn listen(self: &Arc<Self>, runtime: &tokio::runtime::Handle) {
        let (reporter, runtime) = (Arc::downgrade(self), runtime.clone());
        let heard = move |request: Request| {
            let Some(reporter) = reporter.upgrade() else {
                return;
            };
            let command = match Command::decode(&request.body) {
                Ok(command) if may_report(&reporter.machine.meta(), &request.from, &command) => {
                    command
                }
                Ok(_) => return request.responder.refuse("not for you to report"),
                Err(_) => return request.responder.refuse("malformed"),
            };
            runtime.spawn(async move {
                match reporter.proposer.propose(&command).await {
                    Ok(_) => request.responder.answer(Bytes::new()),
                    Err(error) => request.responder.refuse(error.to_string()),
                }
            });
        };
        self.links.handle(REPORT, Arc::new(heard));
    }
}

/// Whether a server may report this.
fn may_report(meta: &Meta, from: &str, command: &Command) -> bool {
    let is_part_of = |of: &StreamRef| {
        let stream = meta.stream_of(of);
        stream.is_none_or(|stream| stream.group.member_on(from).is_some())
    };
    match command {
        Command::PeerPut { profile, renew } => profile.server == from && !renew,
        Command::GroupBegun { of } | Command::GroupSettled { of, .. } => is_part_of(of),
        Command::MemberLost { of, node } | Command::MemberSpoilt { of, node } => {
            meta.stream_of(of).is_none_or(|stream| {
                let mut everyone = stream.group.everyone();
                everyone.all(|member| member.node != *node || member.server == from)
            })
        }
        Command::ReplicaGone { group, node } => {
            let released = meta.released().get(&(*group, *node));
            released.is_none_or(|released| released.server == from)
        }
        Command::OrphanNote { server, .. } | Command::OrphanGone { server, .. } => server == from,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use raft::group::GroupNumber;

    use super::super::super::meta::{Change, PeerProfile};
    use super::super::super::types::{StreamConfig, Time, encode};
    use super::*;

    fn create(meta: &mut Meta) -> StreamRef {
        let config = StreamConfig {
            name: "S".to_owned(),
            num_replicas: 2,
            ..StreamConfig::default()
        };
        let changes = meta.apply(
            1,
            &Command::StreamCreate {
                account: "A".to_owned(),
                stream: "S".to_owned(),
                config: encode(&config),
                created: Time::from_nanoseconds(1),
                group_name: "S-R2F-x".to_owned(),
                cluster: "C".to_owned(),
                servers: vec!["n1".to_owned(), "n2".to_owned()],
                preferred: String::new(),
            },
        );
        match changes.into_iter().next() {
            Some(Change::StreamCreated(of)) => of,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_server_reports_on_itself_and_on_its_groups() {
        let mut meta = Meta::founding(["n1", "n2", "n3"]);
        let of = create(&mut meta);
        let put = |server: &str, renew| Command::PeerPut {
            profile: PeerProfile {
                server: server.to_owned(),
                ..PeerProfile::default()
            },
            renew,
        };
        assert!(may_report(&meta, "n1", &put("n1", false)));
        assert!(!may_report(&meta, "n1", &put("n2", false)));
        assert!(!may_report(&meta, "n1", &put("n1", true)));
        let begun = Command::GroupBegun { of: of.clone() };
        assert!(may_report(&meta, "n2", &begun));
        assert!(!may_report(&meta, "n3", &begun));
        let lost = Command::MemberLost {
            of: of.clone(),
            node: 1,
        };
        assert!(may_report(&meta, "n1", &lost));
        assert!(!may_report(&meta, "n2", &lost));
        let delete = Command::StreamDelete { of };
        assert!(!may_report(&meta, "n1", &delete), "that is for clients");
        meta.apply(2, &delete);
        let gone = Command::ReplicaGone {
            group: GroupNumber(1),
            node: 1,
        };
        assert!(may_report(&meta, "n1", &gone));
        assert!(!may_report(&meta, "n2", &gone));
    }
}
