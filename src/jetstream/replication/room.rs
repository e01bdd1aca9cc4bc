//! A server whose disk is full takes nothing new: others lead the streams that it led, and these go on where there is room.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use raft::group::{GroupNumber, Role, Status};
use raft::types::NodeId;
use tokio::task::JoinSet;

use super::super::meta::Sightings;
use super::replicated::Replicated;
use super::steward::able_to_lead;

/// How often is looked whether there is room.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a group that comes back is kept before it is handed over again. Each time it is twice as long: all others may be as full.
const KEPT_FOR: Duration = Duration::from_secs(5);
/// So often is that doubled.
const DOUBLED_MAX: u32 = 6;
/// So many groups are handed over at the same time.
const AT_ONCE: usize = 64;

/// What was handed over since there is no room.
#[derive(Default)]
struct HandedOver {
    groups: HashMap<GroupNumber, (u32, Instant)>,
}

impl HandedOver {
    /// Who is to lead a group next, that this server leads; each time another one.
    fn next(
        &mut self,
        group: GroupNumber,
        status: &Status,
        sightings: &Sightings,
        now: Instant,
    ) -> Option<NodeId> {
        if !matches!(status.role, Role::Leader { .. }) {
            return None;
        }
        let (times, kept_until) = self.groups.get(&group).copied().unwrap_or((0, now));
        if now < kept_until {
            return None;
        }
        let able = able_to_lead(status, sightings);
        let next = *able.get(times as usize % able.len().max(1))?;
        let kept_for = KEPT_FOR * 2u32.pow(times.min(DOUBLED_MAX));
        self.groups
            .insert(group, (times.saturating_add(1), now + kept_for));
        Some(next)
    }
}

/// Has others lead as long as there is no room here. Runs until the server ends.
pub(super) async fn lead_only_with_room(replicated: Arc<Replicated>) {
    let mut handed_over = HandedOver::default();
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let engine = Arc::clone(&replicated.engine);
        // It asks the file system.
        let look = tokio::task::spawn_blocking(move || engine.has_room());
        if look.await.unwrap_or(true) {
            handed_over.groups.clear();
            continue;
        }
        let (sightings, now) = (replicated.view.sightings(), Instant::now());
        let mut under_way = JoinSet::new();
        for replica in replicated.all() {
            let (group, status) = (replica.group.number(), replica.group.status());
            let Some(next) = handed_over.next(group, &status, &sightings, now) else {
                continue;
            };
            tracing::warn!(
                "The disk is full: another server is to lead group {}",
                group.0
            );
            if under_way.len() >= AT_ONCE {
                under_way.join_next().await;
            }
            under_way.spawn(async move {
                if let Err(error) = replica.hand_over(next).await {
                    tracing::debug!("Group {} is not handed over: {error}", group.0);
                }
            });
        }
        while under_way.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use raft::group::{FollowerStatus, Member, Members};

    use super::super::super::meta::Sighting;
    use super::*;

    fn leading(nodes: u64) -> Status {
        let voters = (1..=nodes).map(|node| (node, format!("n{node}")));
        let follower = |node| FollowerStatus {
            member: Member {
                node,
                server: format!("n{node}"),
            },
            voter: true,
            matched_index: 7,
            last_contact: None,
        };
        Status {
            node: 1,
            term: 1,
            role: Role::Leader { term: 1 },
            leader: None,
            members: Members::of_voters(voters),
            last_log_index: 7,
            committed_index: 7,
            applied_index: 7,
            purged_index: 0,
            quiet: false,
            followers: (2..=nodes).map(follower).collect(),
        }
    }

    fn reached(nodes: u64) -> Sightings {
        let online = Sighting {
            online: true,
            ..Sighting::default()
        };
        let servers = (1..=nodes).map(|node| (format!("n{node}"), online));
        servers.collect()
    }

    #[test]
    fn each_of_the_others_is_asked_in_turn_and_ever_less_often() {
        let (mut handed_over, group) = (HandedOver::default(), GroupNumber(9));
        let (status, seen, begun) = (leading(3), reached(3), Instant::now());
        let mut asked = |seconds| {
            let now = begun + Duration::from_secs(seconds);
            handed_over.next(group, &status, &seen, now)
        };
        assert_eq!(asked(0), Some(2));
        assert_eq!([asked(1), asked(4)], [None, None]);
        assert_eq!(asked(5), Some(3));
        assert_eq!(asked(14), None);
        assert_eq!(asked(15), Some(2));
        assert_eq!(asked(34), None);
    }

    #[test]
    fn who_does_not_lead_or_is_alone_keeps_what_it_has() {
        let (mut handed_over, group) = (HandedOver::default(), GroupNumber(9));
        let follows = Status {
            role: Role::Leaderless,
            ..leading(3)
        };
        let now = Instant::now();
        assert_eq!(handed_over.next(group, &follows, &reached(3), now), None);
        assert_eq!(handed_over.next(group, &leading(3), &reached(1), now), None);
        assert_eq!(
            handed_over.next(group, &leading(3), &reached(3), now),
            Some(2)
        );
    }
}
