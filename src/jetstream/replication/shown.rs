//! The groups of this server as clients and monitoring see them.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use raft::group::Status;

use super::super::api::handler::ClusterInfos;
use super::super::api::now;
use super::super::core::{InfoQuery, StreamReply, StreamRequest};
use super::super::meta::{Follower, Form, Leadership, Sightings, StreamAssignment};
use super::super::registry::StreamPort;
use super::super::types::{ClusterInfo, MetaClusterInfo};
use super::ask::RemotePort;
use super::meta_machine::MetaMachine;
use super::replicated::Replicated;
use super::router::Directory;
use crate::cluster::link::Links;

/// Shows the groups of this server, and who holds copies of the streams of its cluster.
pub(super) struct Shown {
    pub own: Arc<str>,
    /// The cluster.
    pub cluster: String,
    pub machine: Arc<MetaMachine>,
    pub links: Arc<Links>,
    /// It knows what this server knows of who leads, which knows who answers requests, who knows this.
    pub replicated: Weak<Replicated>,
    pub runtime: tokio::runtime::Handle,
}

impl Shown {
    /// The meta group's servers as this one sees them.
    fn sightings(&self) -> Sightings {
        let replicated = self.replicated.upgrade();
        replicated.map_or_else(Sightings::new, |replicated| replicated.view.sightings())
    }

    /// Who holds copies of a stream, as this server sees it: all that there is to see where it leads.
    pub fn seen_here(&self, account: &str, stream: &str) -> Option<ClusterInfo> {
        let meta = self.machine.meta();
        let assignment = meta.stream(account, stream)?;
        Some(self.of_assignment(assignment))
    }

    fn of_assignment(&self, assignment: &StreamAssignment) -> ClusterInfo {
        let group = &assignment.group;
        if group.form == Form::Plain {
            let holder = group.members.first();
            // As in the reference, a stream with one replica has no group to show.
            return ClusterInfo {
                name: group.cluster.clone(),
                leader: holder.map_or_else(String::new, |holder| holder.server.clone()),
                ..ClusterInfo::default()
            };
        }
        let mut led = Leadership::default();
        if let Some(replicated) = self.replicated.upgrade() {
            if let Some((leader, since)) = replicated.view.leaders.leadership(group.number) {
                led.leader = leader.to_string();
                led.since = Some(since);
            }
            let status = replicated.group_status(group.number);
            led.followers = status.map_or_else(BTreeMap::new, |status| followers(&status));
        }
        group.shown(&led, &self.sightings(), now())
    }

    /// Whether a copy of the stream is on this server, or is to be.
    pub fn holds(&self, account: &str, stream: &str) -> bool {
        let meta = self.machine.meta();
        let assignment = meta.stream(account, stream);
        assignment.is_some_and(|assignment| assignment.group.member_on(&self.own).is_some())
    }

    /// The meta group.
    pub fn meta(&self) -> MetaClusterInfo {
        let meta = self.machine.meta();
        let replicated = self.replicated.upgrade();
        let leader = replicated.and_then(|replicated| replicated.view.meta_leader());
        let mut led = Leadership {
            leader: leader.map_or_else(String::new, |leader| leader.to_string()),
            ..Leadership::default()
        };
        if let Some(group) = self.machine.group() {
            led.followers = followers(&group.status());
        }
        let snapshot = self.machine.snapshot_stats();
        let sightings = self.sightings();
        meta.shown(&self.own, &self.cluster, &led, &sightings, now(), snapshot)
    }

    /// Asks the server that leads the stream. Waits for its answer.
    fn asked_elsewhere(&self, account: &str, stream: &str) -> Option<ClusterInfo> {
        let replicated = self.replicated.upgrade()?;
        replicated.view.leader_elsewhere(account, stream)?;
        let port = RemotePort {
            account: account.to_owned(),
            stream: stream.to_owned(),
            links: Arc::clone(&self.links),
            view: Arc::downgrade(&replicated.view),
            runtime: self.runtime.clone(),
        };
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let answer = Box::new(move |reply| {
            // Whoever asked may have gone.
            let _ = sender.send(reply);
        });
        port.ask(StreamRequest::Info(InfoQuery::default()), answer);
        match receiver.recv() {
            Ok(StreamReply::Info { info, .. }) => info.cluster,
            _ => None,
        }
    }
}

impl ClusterInfos for Shown {
    fn of_stream(&self, account: &str, stream: &str) -> Option<ClusterInfo> {
        let elsewhere = self.asked_elsewhere(account, stream);
        elsewhere.or_else(|| self.seen_here(account, stream))
    }
}

/// What a leader knows of the others, by server.
fn followers(status: &Status) -> BTreeMap<String, Follower> {
    let followers = status.followers.iter().map(|follower| {
        let silent = follower.last_contact;
        let known = Follower {
            lag: status
                .committed_index
                .saturating_sub(follower.matched_index),
            silent_ns: silent.map(|silent| i64::try_from(silent.as_nanos()).unwrap_or(i64::MAX)),
        };
        (follower.member.server.clone(), known)
    });
    followers.collect()
}
