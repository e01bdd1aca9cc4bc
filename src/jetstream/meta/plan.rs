//! How the leader of a group brings it to the members that it is to have, one step after the other.
//!
//! # Invariant
//! A step is decided on the assignment and on what the leader sees now, and on nothing that was done before: whoever leads next goes on from there. No step
//! removes a member before those that are to stay have all that was committed.

use std::collections::{BTreeMap, BTreeSet};

use raft::group::{Member, Status};
use raft::types::NodeId;

use super::assignment::{Form, Group};
use super::peer::{Sightings, is_online};
use super::state::Meta;

/// How the leader of a group sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The leader: who sees it so.
    pub leader: NodeId,
    /// Those with a vote; of both sets while they change.
    pub voters: BTreeMap<NodeId, String>,
    /// Those without.
    pub learners: BTreeMap<NodeId, String>,
    /// Whether a change of the voters is under way in the group.
    pub changing: bool,
    /// Those that have nearly all that the leader has.
    pub caught_up: BTreeSet<NodeId>,
}

/// A member that lacks no more entries than this counts as caught up.
const CAUGHT_UP_ENTRIES: u64 = 64;

impl View {
    /// What a leader's status says. `None` when it does not lead.
    pub fn of_leader(status: &Status) -> Option<Self> {
        let leads = matches!(status.role, raft::group::Role::Leader { .. });
        if !leads {
            return None;
        }
        let caught_up = status.followers.iter().filter(|follower| {
            follower.matched_index.saturating_add(CAUGHT_UP_ENTRIES) >= status.last_log_index
        });
        let mut caught_up: BTreeSet<NodeId> =
            caught_up.map(|follower| follower.member.node).collect();
        caught_up.insert(status.node);
        let servers = status.members.servers().iter();
        let (voters, learners) = servers
            .map(|(node, server)| (*node, server.clone()))
            .partition(|(node, _)| status.members.is_voter(*node));
        Some(Self {
            leader: status.node,
            voters,
            learners,
            changing: status.members.is_changing(),
            caught_up,
        })
    }

    fn has(&self, node: NodeId) -> bool {
        self.voters.contains_key(&node) || self.learners.contains_key(&node)
    }
}

/// What the leader of a group does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Takes these in without a vote, so that they can catch up.
    Learn(Vec<Member>),
    /// Makes these the voters, and the only members.
    Vote(BTreeMap<NodeId, String>),
    /// Lets another member lead.
    Transfer {
        /// Which one.
        to: NodeId,
    },
    /// Reports that the group has the members that it was to have.
    Settled {
        /// Their ids.
        nodes: Vec<NodeId>,
    },
}

/// Whether the group as it is assigned is the one that the leader leads, and not one that went before it.
pub fn is_led(group: &Group, view: &View) -> bool {
    group.form == Form::Raft && group.everyone().any(|member| member.node == view.leader)
}

/// The next step towards what is assigned. `None` when there is none: the group is as it is to be, or something has to happen first that only time brings.
pub fn plan(group: &Group, view: &View, sightings: &Sightings) -> Option<Step> {
    if view.changing || !is_led(group, view) {
        return None;
    }
    let wanted: BTreeMap<NodeId, String> = group
        .members
        .iter()
        .map(|member| (member.node, member.server.clone()))
        .collect();
    let unknown: Vec<Member> = group
        .members
        .iter()
        .filter(|member| !view.has(member.node))
        .cloned()
        .collect();
    if !unknown.is_empty() {
        return Some(Step::Learn(unknown));
    }
    let stays = wanted.contains_key(&view.leader);
    let without_vote: Vec<NodeId> = wanted
        .keys()
        .filter(|node| !view.voters.contains_key(node))
        .copied()
        .collect();
    if !without_vote.is_empty() {
        if !without_vote
            .iter()
            .all(|node| view.caught_up.contains(node))
        {
            return None;
        }
        let mut voters = wanted;
        if !stays && let Some(server) = view.voters.get(&view.leader) {
            // It hands over first: a leader outside of its own group is a leader for too long.
            voters.insert(view.leader, server.clone());
        }
        return Some(Step::Vote(voters));
    }
    if !stays {
        let heir = heir(group, view, sightings)?;
        return Some(Step::Transfer { to: heir });
    }
    if view.voters != wanted || !view.learners.is_empty() {
        return Some(Step::Vote(wanted));
    }
    if let Some(to) = preferred(group, view, sightings) {
        return Some(Step::Transfer { to });
    }
    let nodes = wanted.into_keys().collect();
    group.is_changing().then_some(Step::Settled { nodes })
}

/// The next step of the meta group's leader: servers that are not part of the cluster any more leave the group. Those that come are taken in when they ask.
pub fn plan_meta(meta: &Meta, view: &View, sightings: &Sightings) -> Option<Step> {
    if view.changing {
        return None;
    }
    let known = |server: &String| meta.peers().contains_key(server);
    let stay: BTreeMap<NodeId, String> = view
        .voters
        .iter()
        .filter(|(_, server)| known(server))
        .map(|(node, server)| (*node, server.clone()))
        .collect();
    if stay.is_empty() || stay.len() == view.voters.len() {
        return None;
    }
    if stay.contains_key(&view.leader) {
        return Some(Step::Vote(stay));
    }
    let heir = stay
        .iter()
        .find(|(node, server)| view.caught_up.contains(node) && is_online(sightings, server));
    heir.map(|(node, _)| Step::Transfer { to: *node })
}

/// Who leads when the present leader goes: the preferred one if it can, else one that can be reached.
fn heir(group: &Group, view: &View, sightings: &Sightings) -> Option<NodeId> {
    let ready = |member: &&Member| {
        view.caught_up.contains(&member.node) && is_online(sightings, &member.server)
    };
    let mut members = group.members.iter();
    let preferred = members.find(|member| member.server == group.preferred);
    let chosen = preferred.filter(ready);
    let chosen = chosen.or_else(|| group.members.iter().find(ready));
    chosen.map(|member| member.node)
}

/// The member that is to lead, when it does not and could.
fn preferred(group: &Group, view: &View, sightings: &Sightings) -> Option<NodeId> {
    let mut members = group.members.iter();
    let member = members.find(|member| member.server == group.preferred)?;
    let can = view.caught_up.contains(&member.node) && is_online(sightings, &member.server);
    (member.node != view.leader && can).then_some(member.node)
}
