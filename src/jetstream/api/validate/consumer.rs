//! Whether a consumer can be as it is asked to be.

use super::name::{
    DESCRIPTION_BYTES_MAX, METADATA_BYTES_MAX, NAME_BYTES_MAX, is_valid_name, metadata_bytes,
};
use super::stream::invalid;
use super::{Adjust, Rules};
use crate::jetstream::types::{
    AckPolicy, ApiError, ConsumerConfig, DeliverPolicy, ErrorCode, PriorityPolicy, Retention,
    StreamConfig, go_duration,
};
use crate::subject::{has_wildcard, is_subset, is_valid_subject, overlap};

const MILLISECOND_NS: i64 = 1_000_000;
const SECOND_NS: i64 = 1_000_000_000;
/// Pull requests that may wait when nothing else is asked for.
const WAITING_DEFAULT: i64 = 512;
/// How long an ack may take when nothing else is asked for.
const ACK_WAIT_DEFAULT_NS: i64 = 30 * SECOND_NS;
/// Messages that may wait for an ack when nothing else is asked for.
const ACK_PENDING_DEFAULT: i64 = 1000;
/// How long a silent client keeps its pin when nothing else is asked for.
const PINNED_DEFAULT_NS: i64 = 120 * SECOND_NS;
/// The heartbeat of a consumer whose acks are flow control replies.
const FLOW_CONTROL_HEARTBEAT_NS: i64 = SECOND_NS;
/// Bytes the name of a priority group may have.
const GROUP_NAME_BYTES_MAX: usize = 16;

/// Fills in what `config` leaves open and checks it against everything but the stream's other consumers.
pub fn check_consumer(
    config: ConsumerConfig,
    stream: &StreamConfig,
    rules: &Rules<'_>,
) -> Result<ConsumerConfig, ApiError> {
    let mut config = config;
    set_defaults(&mut config, stream, rules)?;
    check_name_and_replicas(&config, stream)?;
    check_ack_policy(&config)?;
    if config.description.len() > DESCRIPTION_BYTES_MAX {
        return Err(ErrorCode::ConsumerDescriptionTooLong.with(DESCRIPTION_BYTES_MAX));
    }
    if config.is_push() {
        check_push(&config, stream)?;
    } else {
        check_pull(&config, stream, rules)?;
    }
    check_limits(&config, stream, rules)?;
    check_filters(&config)?;
    check_start(&config)?;
    check_rest(&config)?;
    check_priorities(&config)?;
    Ok(config)
}

fn set_defaults(
    config: &mut ConsumerConfig,
    stream: &StreamConfig,
    rules: &Rules<'_>,
) -> Result<(), ApiError> {
    let pedantic = rules.adjust == Adjust::Never;
    raise_negative_values(config, pedantic)?;
    if !config.is_push() && config.max_waiting == 0 {
        config.max_waiting = WAITING_DEFAULT;
    }
    let acks = matches!(config.ack_policy, AckPolicy::Explicit | AckPolicy::All);
    if config.ack_wait == 0 && acks {
        config.ack_wait = ACK_WAIT_DEFAULT_NS;
    }
    if let Some(first) = config.backoff.first().copied() {
        if pedantic && config.ack_wait != first {
            return Err(ErrorCode::Pedantic.with("first backoff value has to equal batch AckWait"));
        }
        config.ack_wait = first;
    }
    take_stream_limits(config, stream, pedantic)?;
    if config.max_ack_pending == 0 && config.ack_policy != AckPolicy::None {
        config.max_ack_pending = [rules.server.max_ack_pending, rules.account.max_ack_pending]
            .into_iter()
            .filter(|limit| *limit > 0)
            .fold(ACK_PENDING_DEFAULT, i64::min);
    }
    if !config.is_push() && config.max_batch == 0 && rules.server.max_request_batch > 0 {
        if pedantic {
            return Err(ErrorCode::Pedantic
                .with("max_request_batch must be set if it's JetStream limits are set"));
        }
        config.max_batch = rules.server.max_request_batch;
    }
    if config.priority_policy == PriorityPolicy::PinnedClient && config.priority_timeout == 0 {
        config.priority_timeout = PINNED_DEFAULT_NS;
    }
    if config.ack_policy == AckPolicy::FlowControl && !pedantic {
        config.flow_control = true;
        config.idle_heartbeat = FLOW_CONTROL_HEARTBEAT_NS;
    }
    Ok(())
}

/// What is negative becomes "no limit" or "not set".
fn raise_negative_values(config: &mut ConsumerConfig, pedantic: bool) -> Result<(), ApiError> {
    let refuse = |text: &str| -> Result<(), ApiError> {
        if pedantic {
            return Err(ErrorCode::Pedantic.with(text));
        }
        Ok(())
    };
    if config.max_deliver < -1 {
        refuse("max_deliver must be set to -1")?;
    }
    if config.max_deliver == 0 || config.max_deliver < -1 {
        config.max_deliver = -1;
    }
    let zeroed = |value: &mut i64, text: &str| -> Result<(), ApiError> {
        if *value < 0 {
            refuse(text)?;
            *value = 0;
        }
        Ok(())
    };
    zeroed(&mut config.max_waiting, "max_waiting must not be negative")?;
    if config.max_ack_pending < -1 {
        refuse("max_ack_pending must be set to -1")?;
        config.max_ack_pending = -1;
    }
    zeroed(&mut config.max_batch, "max_batch must not be negative")?;
    zeroed(&mut config.max_expires, "max_expires must not be negative")?;
    zeroed(&mut config.max_bytes, "max_bytes must not be negative")?;
    zeroed(
        &mut config.idle_heartbeat,
        "idle_heartbeat must not be negative",
    )?;
    zeroed(
        &mut config.inactive_threshold,
        "inactive_threshold must not be negative",
    )?;
    zeroed(
        &mut config.priority_timeout,
        "priority_timeout must not be negative",
    )
}

fn take_stream_limits(
    config: &mut ConsumerConfig,
    stream: &StreamConfig,
    pedantic: bool,
) -> Result<(), ApiError> {
    let limits = &stream.consumer_limits;
    if config.max_ack_pending == 0 {
        if pedantic && limits.max_ack_pending > 0 {
            return Err(ErrorCode::Pedantic
                .with("max_ack_pending must be set if it's configured in stream limits"));
        }
        config.max_ack_pending = limits.max_ack_pending;
    }
    if config.inactive_threshold == 0 {
        if pedantic && limits.inactive_threshold > 0 {
            return Err(ErrorCode::Pedantic
                .with("inactive_threshold must be set if it's configured in stream limits"));
        }
        config.inactive_threshold = limits.inactive_threshold;
    }
    Ok(())
}

fn check_name_and_replicas(config: &ConsumerConfig, stream: &StreamConfig) -> Result<(), ApiError> {
    if !config.name.is_empty() && !is_valid_name(&config.name) {
        return Err(invalid(
            "consumer name can not contain '.', '*', '>', '\\', '/'",
        ));
    }
    if !config.durable_name.is_empty() && !is_valid_name(&config.durable_name) {
        return Err(invalid(
            "consumer durable name can not contain '.', '*', '>', '\\', '/'",
        ));
    }
    if config.name.len().max(config.durable_name.len()) > NAME_BYTES_MAX {
        return Err(ErrorCode::ConsumerNameTooLong.with(NAME_BYTES_MAX));
    }
    let keeps = stream.retention == Retention::Limits;
    first(&[
        (
            config.num_replicas > 0 && config.num_replicas > stream.num_replicas,
            ErrorCode::ConsumerReplicasExceedsStream,
        ),
        (
            config.num_replicas < 0,
            ErrorCode::ReplicasCountCannotBeNegative,
        ),
        (
            !keeps && config.num_replicas != 0 && config.num_replicas != stream.num_replicas,
            ErrorCode::ConsumerReplicasShouldMatchStream,
        ),
    ])
}

fn check_ack_policy(config: &ConsumerConfig) -> Result<(), ApiError> {
    first(&[
        (
            config.backoff.iter().any(|backoff| *backoff < 0),
            ErrorCode::ConsumerBackOffNegative,
        ),
        (config.ack_wait < 0, ErrorCode::ConsumerAckWaitNegative),
    ])?;
    if config.ack_policy == AckPolicy::FlowControl {
        first(&[
            (
                !config.is_push(),
                ErrorCode::ConsumerAckFlowControlRequiresPush,
            ),
            (
                !config.flow_control,
                ErrorCode::ConsumerAckFlowControlRequiresFlowControl,
            ),
        ])?;
        if config.idle_heartbeat != FLOW_CONTROL_HEARTBEAT_NS {
            return Err(invalid("flow control ack policy heartbeat needs to be 1s"));
        }
        first(&[
            (
                config.max_ack_pending <= 0,
                ErrorCode::ConsumerAckFlowControlRequiresMaxAckPending,
            ),
            (
                config.ack_wait != 0 || !config.backoff.is_empty(),
                ErrorCode::ConsumerAckFlowControlRequiresNoAckWait,
            ),
            (
                config.max_deliver > 0,
                ErrorCode::ConsumerAckFlowControlRequiresNoMaxDeliver,
            ),
        ])?;
    }
    check_backoff(config)
}

fn check_backoff(config: &ConsumerConfig) -> Result<(), ApiError> {
    let steps = i64::try_from(config.backoff.len()).unwrap_or(i64::MAX);
    if steps > 0 && config.max_deliver != -1 && steps > config.max_deliver {
        return Err(ErrorCode::ConsumerMaxDeliverBackoff.into());
    }
    Ok(())
}

fn check_push(config: &ConsumerConfig, stream: &StreamConfig) -> Result<(), ApiError> {
    let subject = &config.deliver_subject;
    let cycles = stream.subjects.iter().any(|own| is_subset(subject, own));
    first(&[
        (has_wildcard(subject), ErrorCode::ConsumerDeliverToWildcards),
        (
            !is_valid_subject(subject),
            ErrorCode::ConsumerInvalidDeliverSubject,
        ),
        (cycles, ErrorCode::ConsumerDeliverCycle),
        (config.max_waiting != 0, ErrorCode::ConsumerPushMaxWaiting),
        (
            config.max_ack_pending > 0 && config.ack_policy == AckPolicy::None,
            ErrorCode::ConsumerMaxPendingAckPolicyRequired,
        ),
        (
            config.idle_heartbeat > 0 && config.idle_heartbeat < 100 * MILLISECOND_NS,
            ErrorCode::ConsumerSmallHeartbeat,
        ),
    ])
}

fn check_pull(
    config: &ConsumerConfig,
    stream: &StreamConfig,
    rules: &Rules<'_>,
) -> Result<(), ApiError> {
    first(&[
        (
            config.ack_policy == AckPolicy::None && stream.retention == Retention::Workqueue,
            ErrorCode::ConsumerPullRequiresAck,
        ),
        (
            config.rate_limit_bps > 0,
            ErrorCode::ConsumerPullWithRateLimit,
        ),
        (
            config.idle_heartbeat > 0,
            ErrorCode::ConsumerHeartbeatRequiresPush,
        ),
        (
            config.flow_control,
            ErrorCode::ConsumerFlowControlRequiresPush,
        ),
        (
            config.max_expires != 0 && config.max_expires < MILLISECOND_NS,
            ErrorCode::ConsumerMaxRequestExpiresTooSmall,
        ),
    ])?;
    let batch_max = rules.server.max_request_batch;
    if batch_max > 0 && config.max_batch > batch_max {
        return Err(ErrorCode::ConsumerMaxRequestBatchExceeded.with(batch_max));
    }
    Ok(())
}

fn check_limits(
    config: &ConsumerConfig,
    stream: &StreamConfig,
    rules: &Rules<'_>,
) -> Result<(), ApiError> {
    for limit in [
        rules.server.max_ack_pending,
        rules.account.max_ack_pending,
        stream.consumer_limits.max_ack_pending,
    ] {
        if limit > 0 && config.max_ack_pending > limit {
            return Err(ErrorCode::ConsumerMaxPendingAckExcess.with(limit));
        }
    }
    let threshold_max = stream.consumer_limits.inactive_threshold;
    if threshold_max > 0 && config.inactive_threshold > threshold_max {
        return Err(ErrorCode::ConsumerInactiveThresholdExcess.with(go_duration(threshold_max)));
    }
    if config.direct {
        first(&[
            (!config.is_push(), ErrorCode::ConsumerDirectRequiresPush),
            (
                config.is_durable(),
                ErrorCode::ConsumerDirectRequiresEphemeral,
            ),
        ])?;
    }
    Ok(())
}

fn check_filters(config: &ConsumerConfig) -> Result<(), ApiError> {
    if !config.filter_subject.is_empty() && !config.filter_subjects.is_empty() {
        return Err(ErrorCode::ConsumerDuplicateFilterSubjects.into());
    }
    if config.filter_subjects.iter().any(String::is_empty) {
        return Err(ErrorCode::ConsumerEmptyFilter.into());
    }
    let filters = config.filters();
    for (position, filter) in filters.iter().enumerate() {
        if !is_valid_subject(filter) {
            return Err(invalid("invalid subject"));
        }
        let mut others = filters.iter().enumerate();
        if others.any(|(other, pattern)| other != position && is_subset(filter, pattern)) {
            return Err(ErrorCode::ConsumerOverlappingSubjectFilters.into());
        }
    }
    Ok(())
}

fn check_start(config: &ConsumerConfig) -> Result<(), ApiError> {
    let (policy, takes) = match config.deliver_policy {
        DeliverPolicy::All => ("all", Start::Nothing),
        DeliverPolicy::Last => ("last", Start::Nothing),
        DeliverPolicy::New => ("new", Start::Nothing),
        DeliverPolicy::LastPerSubject => ("last per subject", Start::Nothing),
        DeliverPolicy::ByStartSequence => ("by start sequence", Start::Sequence),
        DeliverPolicy::ByStartTime => ("by start time", Start::Time),
    };
    let refuse = |what: &str, verb: &str| {
        Err(ErrorCode::ConsumerInvalidPolicy.with(format_args!(
            "consumer delivery policy is deliver {policy}, but optional {what} is {verb}"
        )))
    };
    let has_sequence = config.opt_start_seq > 0;
    let has_time = config.opt_start_time.is_some();
    match takes {
        Start::Nothing if has_sequence => refuse("start sequence", "also set"),
        Start::Sequence if !has_sequence => refuse("start sequence", "not set"),
        Start::Nothing | Start::Sequence if has_time => refuse("start time", "also set"),
        Start::Time if !has_time => refuse("start time", "not set"),
        Start::Time if has_sequence => refuse("start start sequence", "also set"),
        Start::Nothing
            if config.deliver_policy == DeliverPolicy::LastPerSubject
                && config.filters().is_empty() =>
        {
            refuse("filter subject", "not set")
        }
        _ => Ok(()),
    }
}

/// Which start a deliver policy takes.
enum Start {
    Nothing,
    Sequence,
    Time,
}

fn check_rest(config: &ConsumerConfig) -> Result<(), ApiError> {
    if !config.sample_freq.is_empty() {
        let freq = &config.sample_freq;
        let digits = freq.strip_suffix('%').unwrap_or(freq);
        let problem = match digits.parse::<i64>() {
            Ok(share) if share >= 0 => None,
            Ok(_) => Some("<nil>".to_owned()),
            Err(_) => Some(format!("strconv.Atoi: parsing {digits:?}: invalid syntax")),
        };
        if let Some(problem) = problem {
            return Err(ErrorCode::ConsumerInvalidSampling.with(problem));
        }
    }
    if config.flow_control && config.idle_heartbeat == 0 {
        return Err(ErrorCode::ConsumerWithFlowControlNeedsHeartbeats.into());
    }
    let both_named = config.is_durable() && !config.name.is_empty();
    if both_named && config.name != config.durable_name {
        return Err(ErrorCode::ConsumerCreateDurableAndNameMismatch.into());
    }
    if metadata_bytes(&config.metadata) > METADATA_BYTES_MAX {
        let limit = format!("{}KB", METADATA_BYTES_MAX / 1024);
        return Err(ErrorCode::ConsumerMetadataLength.with(limit));
    }
    Ok(())
}

fn check_priorities(config: &ConsumerConfig) -> Result<(), ApiError> {
    let groups = &config.priority_groups;
    if config.priority_policy == PriorityPolicy::None {
        return first(&[
            (
                !groups.is_empty(),
                ErrorCode::ConsumerPriorityGroupWithPolicyNone,
            ),
            (
                config.priority_timeout > 0,
                ErrorCode::ConsumerPinnedTtlWithoutPriorityPolicyNone,
            ),
        ]);
    }
    first(&[
        (config.is_push(), ErrorCode::ConsumerPushWithPriorityGroup),
        (
            groups.is_empty(),
            ErrorCode::ConsumerPriorityPolicyWithoutGroup,
        ),
    ])?;
    for group in groups {
        first(&[
            (group.is_empty(), ErrorCode::ConsumerEmptyGroupName),
            (!is_valid_group(group), ErrorCode::ConsumerInvalidGroupName),
        ])?;
    }
    Ok(())
}

/// Whether a priority group can be called this.
pub fn is_valid_group(name: &str) -> bool {
    (1..=GROUP_NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'=' | b'-'))
}

fn first(rules: &[(bool, ErrorCode)]) -> Result<(), ApiError> {
    match rules.iter().find(|(broken, _)| *broken) {
        Some((_, code)) => Err((*code).into()),
        None => Ok(()),
    }
}

/// Whether an existing consumer may go from `old` to `new`. Whether somebody still listens on the old deliver subject is for
/// the caller to know.
pub fn check_consumer_update(old: &ConsumerConfig, new: &ConsumerConfig) -> Result<(), ApiError> {
    let fixed = [
        (
            old.deliver_policy != new.deliver_policy,
            "deliver policy can not be updated",
        ),
        (
            old.mem_storage != new.mem_storage,
            "storage type can not be updated",
        ),
        (
            old.opt_start_seq != new.opt_start_seq,
            "start sequence can not be updated",
        ),
        (
            old.opt_start_time != new.opt_start_time,
            "start time can not be updated",
        ),
        (
            old.ack_policy != new.ack_policy,
            "ack policy can not be updated",
        ),
        (
            old.replay_policy != new.replay_policy,
            "replay policy can not be updated",
        ),
        (
            old.idle_heartbeat != new.idle_heartbeat,
            "heart beats can not be updated",
        ),
        (
            old.flow_control != new.flow_control,
            "flow control can not be updated",
        ),
        (
            !old.is_push() && new.is_push(),
            "can not update pull consumer to push based",
        ),
        (
            old.is_push() && !new.is_push(),
            "can not update push consumer to pull based",
        ),
        (
            old.max_waiting != new.max_waiting,
            "max waiting can not be updated",
        ),
    ];
    if let Some((_, text)) = fixed.iter().find(|(changed, _)| *changed) {
        return Err(ErrorCode::ConsumerCreate.with(*text));
    }
    check_backoff(new)
}

/// Whether the filters of two consumers of a work queue share a subject; no filter means every subject.
pub fn filters_collide(left: &[String], right: &[String]) -> bool {
    left.is_empty()
        || right.is_empty()
        || left
            .iter()
            .any(|one| right.iter().any(|other| overlap(one, other)))
}
