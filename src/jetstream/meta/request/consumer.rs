//! Consumers: create, update, delete.

use super::{Decision, Desk};
use crate::jetstream::api::validate::{check_consumer, check_consumer_update, filters_collide};
use crate::jetstream::core::ConsumerAction;
use crate::jetstream::meta::assignment::StreamAssignment;
use crate::jetstream::meta::command::Command;
use crate::jetstream::meta::peer::is_online;
use crate::jetstream::types::{
    AckPolicy, ApiError, ConsumerConfig, DeliverPolicy, ErrorCode, Retention, encode,
};

/// How long a consumer that does not outlive its clients may be unused when nothing else is asked for.
const INACTIVE_DEFAULT_NS: i64 = 5_000_000_000;

/// A consumer as it is asked for.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// Its name: the durable one, the one given, or one made up that no consumer of the stream has.
    pub name: &'a str,
    /// What it is to do; names and filters agree with the request's subject already.
    pub config: ConsumerConfig,
    /// What may happen.
    pub action: ConsumerAction,
    /// Whether values may not be adjusted.
    pub pedantic: bool,
}

/// A consumer is asked for.
pub fn create(desk: &Desk<'_>, stream: &str, wanted: Wanted<'_>) -> Result<Decision, ApiError> {
    let assignment = desk.find(stream)?;
    let Wanted {
        name,
        mut config,
        action,
        pedantic,
    } = wanted;
    let existing = assignment.consumers.get(name);
    if let Some(existing) = existing {
        config.pause_until = existing.config().pause_until;
    }
    config.set_stored_metadata();
    let counted = config.replicas_on(assignment.config());
    let (limits, _) = desk.tiers.select(counted)?;
    let mut config = check_consumer(config, assignment.config(), &desk.rules(limits, pedantic))?;
    let of = desk.stream_ref(stream, assignment);
    let Some(existing) = existing else {
        if action == ConsumerAction::Update {
            return Err(ErrorCode::ConsumerDoesNotExist.into());
        }
        check_count(assignment, limits.max_consumers)?;
        check_servers(desk, assignment, counted)?;
        check_work_queue(assignment, name, &config)?;
        stamp_inactivity(&mut config, None);
        return Ok(Decision::Propose(Command::ConsumerCreate {
            of,
            name: name.to_owned(),
            config: encode(&config),
            created: desk.now,
        }));
    };
    if action == ConsumerAction::Create {
        config.take_stored_metadata(existing.config());
        stamp_inactivity(&mut config, None);
        return match config == *existing.config() {
            true => Ok(Decision::Already(of)),
            false => Err(ErrorCode::ConsumerAlreadyExists.into()),
        };
    }
    check_consumer_update(existing.config(), &config)?;
    if desk.is_out_of_reach(assignment) {
        return Err(ErrorCode::ConsumerOffline.into());
    }
    check_work_queue(assignment, name, &config)?;
    stamp_inactivity(&mut config, Some(existing.config()));
    if config == *existing.config() {
        return Ok(Decision::Already(of));
    }
    Ok(Decision::Propose(Command::ConsumerUpdate {
        of,
        name: name.to_owned(),
        revision: existing.revision,
        config: encode(&config),
    }))
}

/// A consumer that does not outlive its clients always has a threshold; an update that does not touch it leaves it alone.
/// Whether it outlives them is what it was before the update, as in the reference.
fn stamp_inactivity(config: &mut ConsumerConfig, existing: Option<&ConsumerConfig>) {
    let untouched = existing.is_some_and(|old| old.inactive_threshold == config.inactive_threshold);
    let durable = existing.unwrap_or(config).is_durable();
    if !untouched && !durable && config.inactive_threshold <= 0 {
        config.inactive_threshold = INACTIVE_DEFAULT_NS;
    }
}

/// The stream's own limit counts, unless the account's is lower.
fn check_count(stream: &StreamAssignment, account_max: i64) -> Result<(), ApiError> {
    let mut max = stream.config().max_consumers;
    if max <= 0 || (account_max > 0 && account_max < max) {
        max = account_max;
    }
    let consumers = stream.consumers.values();
    let counted = consumers.filter(|consumer| {
        let config = consumer.config();
        !config.direct && !config.sourcing && consumer.stored.unsupported.is_none()
    });
    match usize::try_from(max) {
        Ok(max) if max > 0 && counted.count() >= max => {
            Err(ErrorCode::MaximumConsumersLimit.into())
        }
        _ => Ok(()),
    }
}

/// Most of the servers that are to have it must be there.
fn check_servers(
    desk: &Desk<'_>,
    stream: &StreamAssignment,
    counted: usize,
) -> Result<(), ApiError> {
    let members = stream.group.members.iter();
    let online = members
        .filter(|member| is_online(desk.sightings, &member.server))
        .count();
    let all = stream.config().replicas();
    let enough = online > counted / 2 && (counted >= all || online >= counted);
    match enough {
        true => Ok(()),
        false => Err(ErrorCode::InsufficientResources.into()),
    }
}

/// No message of a work queue belongs to two consumers.
fn check_work_queue(
    stream: &StreamAssignment,
    name: &str,
    config: &ConsumerConfig,
) -> Result<(), ApiError> {
    if stream.config().retention != Retention::Workqueue || config.direct || config.sourcing {
        return Ok(());
    }
    if !matches!(
        config.ack_policy,
        AckPolicy::Explicit | AckPolicy::FlowControl
    ) {
        return Err(ErrorCode::ConsumerWorkQueueRequiresExplicitAck.into());
    }
    if config.deliver_policy != DeliverPolicy::All {
        return Err(ErrorCode::ConsumerWorkQueueConsumerNotDeliverAll.into());
    }
    let others: Vec<&ConsumerConfig> = stream
        .consumers
        .iter()
        .filter(|(other, consumer)| {
            let config = consumer.config();
            *other != name && !config.direct && !config.sourcing
        })
        .map(|(_, consumer)| consumer.config())
        .collect();
    if config.filters().is_empty() && !others.is_empty() {
        return Err(ErrorCode::ConsumerWorkQueueMultipleUnfiltered.into());
    }
    let mut others = others.into_iter();
    match others.any(|other| filters_collide(config.filters(), other.filters())) {
        true => Err(ErrorCode::ConsumerWorkQueueConsumerNotUnique.into()),
        false => Ok(()),
    }
}

/// A consumer is to be gone.
pub fn delete(desk: &Desk<'_>, stream: &str, name: &str) -> Result<Decision, ApiError> {
    let assignment = desk.find(stream)?;
    if !assignment.consumers.contains_key(name) {
        return Err(ErrorCode::ConsumerNotFound.into());
    }
    Ok(Decision::Propose(Command::ConsumerDelete {
        of: desk.stream_ref(stream, assignment),
        name: name.to_owned(),
    }))
}
