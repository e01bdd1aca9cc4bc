//! From a specification to a running replica.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use openraft::Raft;
use parking_lot::Mutex;

use super::applier::{Applier, Shared};
use super::hub::Hub;
use super::machine::Machine;
use super::members::Position;
use super::network::Network;
use super::options::GroupsOptions;
use super::replica::Replica;
use super::spec::{Begin, GroupSpec, StartError};
use crate::log::GroupLog;

/// What Raft is told of the options. A state machine says by checkpoints what may be purged, and a follower gets entries as long as they are there.
pub(super) fn config(options: &GroupsOptions) -> Result<openraft::Config, openraft::ConfigError> {
    let timing = &options.timing;
    let ms = |duration: std::time::Duration| duration.as_millis() as u64;
    openraft::Config {
        cluster_name: options.server.clone(),
        heartbeat_interval: ms(timing.heartbeat_interval),
        heartbeat_min_interval: Some(ms(timing.heartbeat_interval) / 2),
        election_timeout_min: ms(timing.election_timeout_min),
        election_timeout_max: ms(timing.election_timeout_max),
        max_payload_entries: options.limits.append_entries_max,
        replication_lag_threshold: u64::MAX,
        snapshot_policy: openraft::SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        api_channel_size: Some(1024),
        notification_channel_size: Some(1024),
        state_machine_channel_size: Some(64),
        // Nobody looks at what openraft would measure, and it sets room aside for it.
        log_stage_capacity: Some(1),
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        backoff: "50ms 100ms 200ms ...500ms".to_owned(),
        ..openraft::Config::default()
    }
    .validate()
}

/// Starts a replica. Runs on the runtime of the groups.
pub(super) async fn start(
    hub: Arc<Hub>,
    spec: GroupSpec,
    machine: Arc<dyn Machine>,
) -> Result<Arc<Replica>, StartError> {
    check(&spec)?;
    let (group, node) = (spec.number, spec.node);
    let failed = |reason: String| StartError::Failed { group, reason };
    if hub.replica(group).is_some() {
        return Err(StartError::Running(group));
    }
    let limits = &hub.options.limits;
    let journal = Arc::clone(&hub.journal);
    let mut log = GroupLog::new(spec.owner, journal, spec.image)
        .with_limits(limits.log_tail_bytes_max, limits.append_bytes_max);
    if spec.begin != Begin::Again {
        // So that a later start under this id can tell that it was here.
        log.begin(node)
            .await
            .map_err(|error| failed(error.to_string()))?;
    }
    if let Some(checkpoint) = &spec.checkpoint {
        let begun = log.begin_after(checkpoint.at.log_id()).await;
        begun.map_err(|error| failed(error.to_string()))?;
    }
    let founders = match (&spec.checkpoint, spec.begin) {
        (Some(checkpoint), Begin::Founder) => Some(checkpoint.members.voters()),
        _ => None,
    };
    let shared = Arc::new(Shared {
        reached: Mutex::new(spec.checkpoint.clone()),
        released: Mutex::new(spec.checkpoint),
        running: AtomicBool::new(false),
    });
    let seen = (Arc::clone(&shared), log.view());
    let replica = Replica::new(group, node, Arc::clone(&hub), machine, seen);
    let replica = Arc::new(replica);
    let applier = Applier::new(
        Arc::clone(&replica.machine),
        Arc::clone(&replica.roles),
        Arc::clone(&shared),
        limits.apply_bytes_max,
    );
    let applier = applier.map_err(|error| failed(error.to_string()))?;
    let network = Network {
        hub: Arc::clone(&hub),
        group,
        node,
    };
    let config = Arc::clone(&hub.config);
    let core = Raft::build(node, config, network, log, applier).await;
    let core = core.map_err(|fatal| failed(fatal.to_string()))?;
    shared.running.store(true, Ordering::Release);
    replica.set_core(core.clone());
    if !hub.insert(&replica) {
        return Err(StartError::Running(group));
    }
    core.run();
    hub.runtime.spawn(Arc::clone(&replica).watch());
    if let Some(founders) = founders {
        hub.runtime
            .spawn(Arc::clone(&replica).call_first_election(founders));
    }
    Ok(replica)
}

/// Whether a replica may begin this way. What it voted on must be there, and its log must go on where its state ends.
fn check(spec: &GroupSpec) -> Result<(), StartError> {
    let (group, node) = (spec.number, spec.node);
    match (spec.begin, &spec.checkpoint) {
        (Begin::Founder | Begin::Joiner, _) if !spec.image.is_blank() => {
            return Err(StartError::NotFresh { group, node });
        }
        (Begin::Founder, Some(checkpoint)) if checkpoint.members.is_voter(node) => {}
        (Begin::Joiner, None) => {}
        (Begin::Founder | Begin::Joiner, _) => return Err(StartError::Checkpoint { group, node }),
        (Begin::Again, _) if spec.image.is_blank() => {
            return Err(StartError::Amnesia { group, node });
        }
        (Begin::Again, _) => {}
    }
    let at = spec.checkpoint.as_ref().map(|checkpoint| checkpoint.at);
    let checkpoint = at.unwrap_or_default();
    if let Some(purged) = spec.image.purged.as_ref().map(Position::of)
        && purged.index > checkpoint.index
    {
        return Err(StartError::Gap {
            group,
            checkpoint,
            purged,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use storage::journal::Owner;

    use super::super::members::{Checkpoint, Members};
    use super::super::spec::GroupNumber;
    use super::*;
    use crate::codec::log_id;
    use crate::log::LogImage;

    const GROUP: GroupNumber = GroupNumber(1);

    fn spec(begin: Begin, image: LogImage, checkpoint: Option<u64>) -> GroupSpec {
        let members = Members::of_voters([(7, "s1".to_owned())]);
        GroupSpec {
            number: GROUP,
            owner: Owner(1),
            node: 7,
            begin,
            image,
            checkpoint: checkpoint.map(|index| Checkpoint::founding(index, members)),
        }
    }

    fn purged(index: u64) -> LogImage {
        let mut image = LogImage::default();
        image.purge(log_id(1, index));
        image
    }

    #[test]
    fn the_usual_options_make_sense_to_raft() {
        let options = GroupsOptions::new("s1");
        assert_eq!(options.timing.check(), Ok(()));
        assert!(config(&options).is_ok());
    }

    #[test]
    fn an_id_that_was_here_before_needs_its_log_and_a_fresh_one_has_none() {
        let (group, node) = (GROUP, 7);
        let blank = LogImage::default;
        assert_eq!(check(&spec(Begin::Founder, blank(), Some(0))), Ok(()));
        assert_eq!(check(&spec(Begin::Joiner, blank(), None)), Ok(()));
        assert_eq!(check(&spec(Begin::Again, purged(3), Some(3))), Ok(()));
        let amnesia = StartError::Amnesia { group, node };
        assert_eq!(check(&spec(Begin::Again, blank(), Some(3))), Err(amnesia));
        let not_fresh = StartError::NotFresh { group, node };
        assert_eq!(
            check(&spec(Begin::Founder, purged(3), Some(3))),
            Err(not_fresh)
        );
        let no_state = StartError::Checkpoint { group, node };
        assert_eq!(check(&spec(Begin::Founder, blank(), None)), Err(no_state));
    }

    #[test]
    fn a_log_that_begins_after_the_state_ends_is_a_gap() {
        let gap = StartError::Gap {
            group: GROUP,
            checkpoint: Position { term: 0, index: 2 },
            purged: Position { term: 1, index: 3 },
        };
        assert_eq!(check(&spec(Begin::Again, purged(3), Some(2))), Err(gap));
    }
}
