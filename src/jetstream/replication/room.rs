//! Streams that this server should not lead, and that others are to lead, who can: all of them while its disk is full, since it takes nothing new, and those of accounts
//! that have no JetStream here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use raft::group::{GroupNumber, Role};
use raft::types::NodeId;
use tokio::task::JoinSet;

use super::super::meta::Sightings;
use super::replicated::Replicated;
use super::steward::able_to_lead;
use super::stream::replica::StreamReplica;
use super::view::View;
use crate::broker::Account;

/// How often is looked what should not be led here.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a group that comes back is kept before it is handed over again. Each time it is twice as long: it may be no better with all others.
const KEPT_FOR: Duration = Duration::from_secs(5);
/// So often is that doubled.
const DOUBLED_MAX: u32 = 6;
/// So many groups are handed over at the same time.
const AT_ONCE: usize = 64;

/// What was handed over since it should not be led here.
#[derive(Default)]
struct HandedOver {
    groups: HashMap<GroupNumber, (u32, Instant)>,
}

impl HandedOver {
    /// Who of those that can is to lead a group next, that this server leads; each time another one.
    fn next(&mut self, group: GroupNumber, able: &[NodeId], now: Instant) -> Option<NodeId> {
        let (times, kept_until) = self.groups.get(&group).copied().unwrap_or((0, now));
        if now < kept_until {
            return None;
        }
        let next = *able.get(times as usize % able.len().max(1))?;
        let kept_for = KEPT_FOR * 2u32.pow(times.min(DOUBLED_MAX));
        self.groups
            .insert(group, (times.saturating_add(1), now + kept_for));
        Some(next)
    }
}

/// A replica that others should lead for, and why.
struct Unwelcome {
    replica: StreamReplica,
    /// Present where the account has no JetStream here.
    account: Option<Arc<Account>>,
}

impl Unwelcome {
    /// Who could lead instead, if this replica leads.
    fn able(&self, view: &View, sightings: &Sightings) -> Vec<NodeId> {
        let status = self.replica.group.status();
        if !matches!(status.role, Role::Leader { .. }) {
            return Vec::new();
        }
        let mut able = able_to_lead(&status, sightings);
        if let Some(account) = &self.account {
            let servers = status.members.servers();
            able.retain(|node| {
                let server = servers.get(node);
                server.is_some_and(|server| view.serves(server, account.name()))
            });
        }
        able
    }

    fn reason(&self) -> &'static str {
        match self.account {
            Some(_) => "Its account has no JetStream here",
            None => "The disk is full",
        }
    }
}

/// What should not be led here.
async fn unwelcome(replicated: &Arc<Replicated>) -> Vec<Unwelcome> {
    let engine = Arc::clone(&replicated.engine);
    // It asks the file system.
    let look = tokio::task::spawn_blocking(move || engine.has_room());
    let resting = || {
        let resting = replicated.resting().into_iter();
        resting.map(|(replica, account)| Unwelcome {
            replica,
            account: Some(account),
        })
    };
    let all = || {
        let all = replicated.all().into_iter();
        all.map(|replica| Unwelcome {
            replica,
            account: None,
        })
    };
    match look.await.unwrap_or(true) {
        true => resting().collect(),
        false => all().collect(),
    }
}

/// Has others lead what should not be led here. Runs until the server ends.
pub(super) async fn lead_only_what_can_go_on(replicated: Arc<Replicated>) {
    let mut handed_over = HandedOver::default();
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let unwelcome = unwelcome(&replicated).await;
        let number = |one: &Unwelcome| one.replica.group.number();
        let numbers: HashSet<_> = unwelcome.iter().map(number).collect();
        handed_over
            .groups
            .retain(|group, _| numbers.contains(group));
        if unwelcome.is_empty() {
            continue;
        }
        let (sightings, now) = (replicated.view.sightings(), Instant::now());
        let mut under_way = JoinSet::new();
        for one in unwelcome {
            let (group, able) = (number(&one), one.able(&replicated.view, &sightings));
            let Some(next) = handed_over.next(group, &able, now) else {
                continue;
            };
            tracing::warn!(
                "{}: another server is to lead group {}",
                one.reason(),
                group.0
            );
            if under_way.len() >= AT_ONCE {
                under_way.join_next().await;
            }
            under_way.spawn(async move {
                if let Err(error) = one.replica.hand_over(next).await {
                    tracing::debug!("Group {} is not handed over: {error}", group.0);
                }
            });
        }
        while under_way.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_others_is_asked_in_turn_and_ever_less_often() {
        let (mut handed_over, group) = (HandedOver::default(), GroupNumber(9));
        let begun = Instant::now();
        let mut asked = |seconds| {
            let now = begun + Duration::from_secs(seconds);
            handed_over.next(group, &[2, 3], now)
        };
        assert_eq!(asked(0), Some(2));
        assert_eq!([asked(1), asked(4)], [None, None]);
        assert_eq!(asked(5), Some(3));
        assert_eq!(asked(14), None);
        assert_eq!(asked(15), Some(2));
        assert_eq!(asked(34), None);
    }

    #[test]
    fn where_nobody_else_can_lead_nothing_is_handed_over() {
        let (mut handed_over, group) = (HandedOver::default(), GroupNumber(9));
        let now = Instant::now();
        assert_eq!(handed_over.next(group, &[], now), None);
        assert_eq!(handed_over.next(group, &[2], now), Some(2));
    }
}
