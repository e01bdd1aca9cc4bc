//! Reports of elections and of groups that nobody can lead, to those who listen.
//!
//! What concerns a stream is told in its account, and with the account's name in the system account.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use raft::group::{GroupNumber, Role};
use tokio::time::Instant;

use super::super::accounts::Accounts;
use super::super::advisory::cluster::{
    DOMAIN_LEADER_ELECTED, DomainLeaderElected, GroupAdvisory, GroupEvent,
};
use super::super::api::now;
use super::super::core::{StreamReply, StreamRequest};
use super::super::meta::Meta;
use super::super::shard::Streams;
use super::super::types::{PeerId, PeerInfo};
use super::meta_machine::MetaMachine;
use super::shown::Shown;

/// A group counts as one that nobody can lead when it had no leader for so long.
const QUORUM_PATIENCE: Duration = Duration::from_secs(2);
/// That is told again after this time at the earliest.
const QUORUM_INTERVAL: Duration = Duration::from_secs(10);

/// Reports what groups of this server come to.
pub(super) struct Advisories {
    pub own: Arc<str>,
    pub cluster: String,
    pub accounts: Arc<Accounts>,
    pub streams: Arc<Streams>,
    pub shown: Arc<Shown>,
    pub stalled: Mutex<Stalled>,
}

/// Groups that had no leader when they were last looked at, and those that were told of lately.
#[derive(Default)]
pub(super) struct Stalled(HashMap<GroupNumber, Leaderless>);

/// A group without a leader, or one that was told of lately.
#[derive(Default)]
struct Leaderless {
    /// Since when it has none, unless it has one again.
    since: Option<Instant>,
    /// Whether that was told.
    is_told: bool,
    /// When the group was last told of.
    told: Option<Instant>,
}

impl Stalled {
    /// These groups have no leader now, and all others have. Says which of them are to be reported.
    fn look(&mut self, groups: &[GroupNumber]) -> Vec<GroupNumber> {
        let now = Instant::now();
        let is_over = |told: Instant| now - told >= QUORUM_INTERVAL;
        let without: HashSet<&GroupNumber> = groups.iter().collect();
        self.0.retain(|group, known| {
            let leaderless = without.contains(group);
            if !leaderless {
                (known.since, known.is_told) = (None, false);
            }
            leaderless || known.told.is_some_and(|told| !is_over(told))
        });
        let mut stalled = Vec::new();
        for group in groups {
            let known = self.0.entry(*group).or_default();
            let since = *known.since.get_or_insert(now);
            let is_due = now - since >= QUORUM_PATIENCE && known.told.is_none_or(is_over);
            if is_due && !known.is_told {
                (known.is_told, known.told) = (true, Some(now));
                stalled.push(*group);
            }
        }
        stalled
    }
}

impl Advisories {
    /// This server leads these groups from now on. Asks shards, if anybody listens.
    pub fn begin_to_lead(&self, meta: &Meta, groups: &[GroupNumber]) {
        let event = GroupEvent::LeaderElected { leader: &self.own };
        self.tell(meta, groups, event);
    }

    /// These groups have no leader, as far as their replicas here know; all others have. Says which of them are to be reported.
    pub fn stalled(&self, groups: &[GroupNumber]) -> Vec<GroupNumber> {
        self.stalled.lock().look(groups)
    }

    /// Nobody can lead these groups. Asks shards, if anybody listens.
    pub fn lose_quorum(&self, meta: &Meta, groups: &[GroupNumber]) {
        for (of, _) in meta.all_streams() {
            if groups.contains(&of.group) {
                tracing::warn!(
                    "JetStream cluster stream '{} > {}' has NO quorum, stalled",
                    of.account,
                    of.stream
                );
            }
        }
        self.tell(meta, groups, GroupEvent::QuorumLost);
    }

    fn tell(&self, meta: &Meta, groups: &[GroupNumber], event: GroupEvent<'_>) {
        for (of, assignment) in meta.all_streams() {
            // Of an account that has no JetStream here others tell.
            if !groups.contains(&of.group) || self.accounts.get(&of.account).is_none() {
                continue;
            }
            let seen = self.shown.seen_here(&of.account, &of.stream);
            let replicas = seen.map(|seen| seen.replicas).unwrap_or_default();
            let advisory = GroupAdvisory {
                account: "",
                stream: &of.stream,
                consumer: "",
                event,
                replicas: &replicas,
                domain: self.streams.domain(),
            };
            self.publish(&of.account, advisory);
            for consumer in self.consumers(&of.account, &of.stream, assignment.config()) {
                let consumer = consumer.as_str();
                self.publish(
                    &of.account,
                    GroupAdvisory {
                        consumer,
                        ..advisory
                    },
                );
            }
        }
    }

    /// The consumers of a stream that count as replicated.
    fn consumers(
        &self,
        account: &str,
        stream: &str,
        config: &super::super::types::StreamConfig,
    ) -> Vec<String> {
        let found = self.accounts.get(account);
        let Some(found) = found.and_then(|account| account.get(stream)) else {
            return Vec::new();
        };
        let all = StreamRequest::ConsumerInfos {
            offset: 0,
            limit: usize::MAX,
        };
        let StreamReply::ConsumerInfos { infos, .. } = found.ask(all) else {
            return Vec::new();
        };
        let replicated = infos
            .into_iter()
            .filter(|info| info.config.replicas_on(config) > 1);
        replicated.map(|info| info.name).collect()
    }

    fn publish(&self, account: &str, advisory: GroupAdvisory<'_>) {
        let subject = advisory.subject();
        self.streams
            .tell(Some(account), &subject, || advisory.payload(now()));
        let named = GroupAdvisory {
            account,
            ..advisory
        };
        self.streams.tell(None, &subject, || named.payload(now()));
    }

    fn meta_led(&self, replicas: &[PeerInfo]) {
        let own = PeerId::of(&self.own);
        let elected = DomainLeaderElected {
            leader: own.as_str(),
            replicas,
            cluster: &self.cluster,
            domain: self.streams.domain(),
        };
        self.streams
            .tell(None, DOMAIN_LEADER_ELECTED, || elected.payload(now()));
    }

    /// Reports when this server begins to lead the meta group, as long as that goes on.
    pub async fn watch_meta(self: Arc<Self>, machine: Arc<MetaMachine>) {
        let mut roles = machine.roles();
        let mut led = None;
        loop {
            let role = roles.borrow_and_update().clone();
            match role {
                Role::Leader { term } if led != Some(term) => {
                    led = Some(term);
                    tracing::info!("This server leads the JetStream meta group");
                    self.meta_led(&self.shown.meta().replicas);
                }
                _ => {}
            }
            if roles.changed().await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupNumber = GroupNumber(3);
    const OTHER: GroupNumber = GroupNumber(4);

    /// Looks at groups after some time.
    async fn after(time: Duration, stalled: &mut Stalled, groups: &[GroupNumber]) -> Vec<u64> {
        tokio::time::advance(time).await;
        let told = stalled.look(groups);
        told.into_iter().map(|group| group.0).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_has_no_leader_for_a_while_is_told_of_once() {
        let second = Duration::from_secs(1);
        let mut stalled = Stalled::default();
        assert!(stalled.look(&[GROUP]).is_empty(), "it may have one soon");
        assert!(
            after(second, &mut stalled, &[GROUP, OTHER])
                .await
                .is_empty()
        );
        assert_eq!(after(second, &mut stalled, &[GROUP, OTHER]).await, [3]);
        assert_eq!(after(second, &mut stalled, &[GROUP, OTHER]).await, [4]);
        for _ in 0..30 {
            assert!(
                after(second, &mut stalled, &[GROUP, OTHER])
                    .await
                    .is_empty()
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_loses_its_leader_again_is_told_of_again_after_ten_seconds_and_no_sooner()
    {
        let mut stalled = Stalled::default();
        let none = Duration::ZERO;
        after(none, &mut stalled, &[GROUP]).await;
        assert_eq!(after(QUORUM_PATIENCE, &mut stalled, &[GROUP]).await, [3]);
        // It has a leader in between, but not for long.
        after(none, &mut stalled, &[]).await;
        after(none, &mut stalled, &[GROUP]).await;
        let nearly = QUORUM_INTERVAL - Duration::from_millis(1);
        assert!(after(nearly, &mut stalled, &[GROUP]).await.is_empty());
        let rest = Duration::from_millis(1);
        assert_eq!(after(rest, &mut stalled, &[GROUP]).await, [3]);
        assert!(
            after(QUORUM_INTERVAL, &mut stalled, &[GROUP])
                .await
                .is_empty()
        );
        // With a leader for as long it is one like all others.
        after(none, &mut stalled, &[]).await;
        assert!(stalled.0.is_empty());
        after(none, &mut stalled, &[GROUP]).await;
        assert_eq!(after(QUORUM_PATIENCE, &mut stalled, &[GROUP]).await, [3]);
    }
}
