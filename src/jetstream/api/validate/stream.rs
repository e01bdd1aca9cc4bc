//! Whether a stream can be as it is asked to be.

use std::collections::HashSet;

use super::name::{
    DESCRIPTION_BYTES_MAX, METADATA_BYTES_MAX, NAME_BYTES_MAX, has_path_separators, is_valid_name,
    metadata_bytes,
};
use super::{Adjust, Rules};
use crate::jetstream::types::{
    ApiError, Discard, ErrorCode, PersistMode, Placement, Retention, Storage, StreamConfig,
    StreamSource, SubjectTransform, go_duration,
};
use crate::subject::transform::{Transform, TransformError};
use crate::subject::{has_wildcard, is_subset, is_valid_subject, overlap};

const MILLISECOND_NS: i64 = 1_000_000;
const SECOND_NS: i64 = 1_000_000_000;
/// How long message ids are remembered when nothing else is asked for.
const DUPLICATE_WINDOW_DEFAULT_NS: i64 = 120 * SECOND_NS;
const REPLICAS_MAX: i64 = 5;

/// Checks `config` and fills in what was left open.
pub fn check_stream(config: StreamConfig, rules: &Rules<'_>) -> Result<StreamConfig, ApiError> {
    check_texts(&config)?;
    let mut config = config;
    check_replicas(&mut config)?;
    normalise_limits(&mut config, rules.adjust)?;
    check_age(&config)?;
    check_duplicate_window(&mut config, rules)?;
    check_features(&mut config, rules.adjust)?;
    check_mirror(&config)?;
    check_sources(&config)?;
    check_subjects(&mut config)?;
    check_account(&config, rules)?;
    check_rewrites(&mut config, rules.adjust)?;
    check_placement(&mut config)?;
    Ok(config)
}

/// Checks what only a stream that is to be created must not ask for; `name` is that of the request's subject.
pub fn check_stream_creation(name: &str, config: &StreamConfig) -> Result<(), ApiError> {
    if config.name != name {
        return Err(ErrorCode::StreamMismatch.into());
    }
    if has_path_separators(name) {
        return Err(ErrorCode::StreamNameContainsPathSeparators.into());
    }
    first_broken(&[
        (
            config.sealed,
            "stream configuration for create can not be sealed",
        ),
        (
            config.mirror_direct && config.mirror.is_none(),
            "stream has no mirror but does have mirror direct",
        ),
    ])
}

pub(super) fn invalid(text: &str) -> ApiError {
    ErrorCode::StreamInvalidConfig.with(text)
}

fn check_texts(config: &StreamConfig) -> Result<(), ApiError> {
    if !is_valid_name(&config.name) {
        return Err(invalid(
            "stream name is required and can not contain '.', '*', '>', '\\', '/'",
        ));
    }
    if config.name.len() > NAME_BYTES_MAX {
        return Err(invalid(&format!(
            "stream name is too long, maximum allowed is {NAME_BYTES_MAX}"
        )));
    }
    if config.description.len() > DESCRIPTION_BYTES_MAX {
        return Err(invalid(&format!(
            "stream description is too long, maximum allowed is {DESCRIPTION_BYTES_MAX}"
        )));
    }
    if metadata_bytes(&config.metadata) > METADATA_BYTES_MAX {
        return Err(invalid(&format!(
            "stream metadata exceeds maximum size of {METADATA_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

fn check_replicas(config: &mut StreamConfig) -> Result<(), ApiError> {
    if config.num_replicas == 0 {
        config.num_replicas = 1;
    }
    if config.num_replicas > REPLICAS_MAX {
        return Err(invalid(&format!("maximum replicas is {REPLICAS_MAX}")));
    }
    if config.num_replicas < 0 {
        return Err(ErrorCode::ReplicasCountCannotBeNegative.into());
    }
    Ok(())
}

fn normalise_limits(config: &mut StreamConfig, adjust: Adjust) -> Result<(), ApiError> {
    let unlimited = |value: &mut i64, field: &str| {
        if *value == 0 || *value < -1 {
            if adjust == Adjust::Never && *value < -1 {
                return Err(ErrorCode::Pedantic.with(format_args!("{field} must be set to -1")));
            }
            *value = -1;
        }
        Ok(())
    };
    unlimited(&mut config.max_msgs, "max_msgs")?;
    unlimited(&mut config.max_msgs_per_subject, "max_msgs_per_subject")?;
    unlimited(&mut config.max_bytes, "max_bytes")?;
    let mut message_bytes_max = i64::from(config.max_msg_size);
    unlimited(&mut message_bytes_max, "max_msg_size")?;
    if message_bytes_max == -1 {
        config.max_msg_size = -1;
    }
    unlimited(&mut config.max_consumers, "max_consumers")
}

fn check_age(config: &StreamConfig) -> Result<(), ApiError> {
    if config.max_age < 0 {
        return Err(invalid("max age can not be negative"));
    }
    if config.max_age != 0 && config.max_age < 100 * MILLISECOND_NS {
        return Err(invalid("max age needs to be >= 100ms"));
    }
    Ok(())
}

fn check_duplicate_window(config: &mut StreamConfig, rules: &Rules<'_>) -> Result<(), ApiError> {
    let pedantic = rules.adjust == Adjust::Never;
    let server_max = rules.server.duplicate_window_ns;
    if config.duplicate_window == 0 && config.mirror.is_none() && config.sources.is_empty() {
        let mut window = DUPLICATE_WINDOW_DEFAULT_NS;
        if server_max > 0 && window > server_max {
            if pedantic {
                return Err(ErrorCode::Pedantic
                    .with("duplicate window limits are higher than current limits"));
            }
            window = server_max;
        }
        if config.max_age != 0 && config.max_age < window {
            if pedantic {
                return Err(
                    ErrorCode::Pedantic.with("duplicate window cannot be bigger than max age")
                );
            }
            window = config.max_age;
        }
        config.duplicate_window = window;
    }
    let window = config.duplicate_window;
    if window < 0 {
        return Err(invalid("duplicates window can not be negative"));
    }
    if config.max_age != 0 && window > config.max_age {
        return Err(invalid("duplicates window can not be larger then max age"));
    }
    if server_max > 0 && window > server_max {
        return Err(invalid(&format!(
            "duplicates window can not be larger then server limit of {}",
            go_duration(server_max)
        )));
    }
    if window > 0 && window < 100 * MILLISECOND_NS {
        return Err(invalid("duplicates window needs to be >= 100ms"));
    }
    Ok(())
}

fn check_features(config: &mut StreamConfig, adjust: Adjust) -> Result<(), ApiError> {
    if config.deny_purge && config.allow_rollup_hdrs {
        return Err(invalid("roll-ups require the purge permission"));
    }
    check_counter(config)?;
    check_discard_new_per_subject(config)?;
    check_delete_markers(config, adjust)?;
    if config.allow_msg_schedules {
        if config.discard == Discard::New {
            return Err(invalid("message scheduling cannot use discard new"));
        }
        allow_rollups(
            config,
            adjust,
            "message scheduling cannot be set if roll-ups are disabled",
        )?;
    }
    check_persist_mode(config)
}

fn check_counter(config: &StreamConfig) -> Result<(), ApiError> {
    if !config.allow_msg_counter {
        return Ok(());
    }
    let broken = [
        (
            config.discard == Discard::New,
            "counter stream cannot use discard new",
        ),
        (
            config.allow_msg_ttl,
            "counter stream cannot use message TTLs",
        ),
        (
            config.allow_msg_schedules,
            "counter stream cannot use message schedules",
        ),
        (
            config.retention != Retention::Limits,
            "counter stream can only use limits retention",
        ),
    ];
    first_broken(&broken)
}

pub(super) fn check_discard_new_per_subject(config: &StreamConfig) -> Result<(), ApiError> {
    if !config.discard_new_per_subject {
        return Ok(());
    }
    first_broken(&[
        (
            config.discard != Discard::New,
            "discard new per subject requires discard new policy to be set",
        ),
        (
            config.max_msgs_per_subject <= 0,
            "discard new per subject requires max msgs per subject > 0",
        ),
    ])
}

fn check_delete_markers(config: &mut StreamConfig, adjust: Adjust) -> Result<(), ApiError> {
    let ttl = config.subject_delete_marker_ttl;
    if ttl < 0 {
        return Err(invalid("subject delete marker TTL must not be negative"));
    }
    if ttl == 0 {
        return Ok(());
    }
    if ttl < SECOND_NS {
        return Err(invalid(
            "subject delete marker TTL must be at least 1 second",
        ));
    }
    if !config.allow_msg_ttl {
        if adjust == Adjust::Never {
            return Err(invalid(
                "subject delete marker cannot be set if message TTLs are disabled",
            ));
        }
        config.allow_msg_ttl = true;
    }
    allow_rollups(
        config,
        adjust,
        "subject delete marker cannot be set if roll-ups are disabled",
    )
}

fn allow_rollups(config: &mut StreamConfig, adjust: Adjust, refusal: &str) -> Result<(), ApiError> {
    if !config.allow_rollup_hdrs {
        if adjust == Adjust::Never {
            return Err(invalid(refusal));
        }
        config.allow_rollup_hdrs = true;
        config.deny_purge = false;
    }
    Ok(())
}

fn check_persist_mode(config: &StreamConfig) -> Result<(), ApiError> {
    if config.persist_mode != PersistMode::Async {
        return Ok(());
    }
    first_broken(&[
        (
            config.storage != Storage::File,
            "async persist mode is only supported on file storage",
        ),
        (
            config.num_replicas > 1,
            "async persist mode is not supported on replicated streams",
        ),
        (
            config.allow_atomic,
            "async persist mode is not supported with atomic batch publish",
        ),
    ])
}

fn first_broken(rules: &[(bool, &str)]) -> Result<(), ApiError> {
    match rules.iter().find(|(broken, _)| *broken) {
        Some((_, text)) => Err(invalid(text)),
        None => Ok(()),
    }
}

fn first_code(rules: &[(bool, ErrorCode)]) -> Result<(), ApiError> {
    match rules.iter().find(|(broken, _)| *broken) {
        Some((_, code)) => Err((*code).into()),
        None => Ok(()),
    }
}

fn check_mirror(config: &StreamConfig) -> Result<(), ApiError> {
    let Some(mirror) = &config.mirror else {
        return Ok(());
    };
    first_code(&[
        (config.first_seq > 0, ErrorCode::MirrorWithFirstSeq),
        (!config.subjects.is_empty(), ErrorCode::MirrorWithSubjects),
        (!config.sources.is_empty(), ErrorCode::MirrorWithSources),
        (config.allow_msg_counter, ErrorCode::MirrorWithCounters),
        (config.allow_atomic, ErrorCode::MirrorWithAtomicPublish),
        (config.allow_batched, ErrorCode::MirrorWithBatchPublish),
        (
            config.allow_msg_schedules,
            ErrorCode::MirrorWithMsgSchedules,
        ),
        (
            !is_usable_source_consumer(mirror),
            ErrorCode::MirrorDurableConsumerConfigInvalid,
        ),
        (
            !mirror.filter_subject.is_empty() && !mirror.subject_transforms.is_empty(),
            ErrorCode::MirrorMultipleFiltersNotAllowed,
        ),
    ])?;
    if config.subject_delete_marker_ttl > 0 {
        return Err(invalid("subject delete markers forbidden on mirrors"));
    }
    let transforms = &mirror.subject_transforms;
    for (position, outer) in transforms.iter().enumerate() {
        if !outer.src.is_empty() && !is_valid_subject(&outer.src) {
            return Err(ErrorCode::MirrorInvalidSubjectFilter
                .with(format_args!("invalid subject {}", outer.src)));
        }
        check_transform(outer)
            .map_err(|error| ErrorCode::MirrorInvalidTransformDestination.with(error))?;
        let mut others = transforms.iter().enumerate();
        if others.any(|(other, inner)| other != position && overlap(&outer.src, &inner.src)) {
            return Err(ErrorCode::MirrorOverlappingSubjectFilters.into());
        }
    }
    if mirror.external.is_none() && !is_valid_name(&mirror.name) {
        return Err(ErrorCode::MirrorInvalidStreamName.into());
    }
    Ok(())
}

/// A consumer that was made beforehand starts where it stands, so nothing else may say where.
fn is_usable_source_consumer(source: &StreamSource) -> bool {
    source.consumer.as_ref().is_none_or(|consumer| {
        is_valid_name(&consumer.name)
            && !has_wildcard(&consumer.deliver_subject)
            && is_valid_subject(&consumer.deliver_subject)
            && source.opt_start_seq == 0
            && source.opt_start_time.is_none()
            && source.filter_subject.is_empty()
    })
}

fn check_sources(config: &StreamConfig) -> Result<(), ApiError> {
    if config.allow_msg_schedules && !config.sources.is_empty() {
        return Err(ErrorCode::SourceWithMsgSchedules.into());
    }
    for (position, source) in config.sources.iter().enumerate() {
        if !is_valid_name(&source.name) {
            return Err(ErrorCode::SourceInvalidStreamName.into());
        }
        let mut earlier = config.sources.iter().take(position);
        if earlier.any(|earlier| is_same_source(earlier, source)) {
            return Err(ErrorCode::SourceDuplicateDetected.into());
        }
        if !source.filter_subject.is_empty() && !source.subject_transforms.is_empty() {
            return Err(ErrorCode::SourceMultipleFiltersNotAllowed.into());
        }
        check_source_transforms(source)?;
        if !is_usable_source_consumer(source) {
            return Err(ErrorCode::SourceDurableConsumerConfigInvalid.into());
        }
        // A consumer delivers to one.
        let mut earlier = config.sources.iter().take(position);
        if source.consumer.is_some() && earlier.any(|earlier| shares_consumer(earlier, source)) {
            return Err(ErrorCode::SourceDurableConsumerDuplicateDetected.into());
        }
    }
    Ok(())
}

fn shares_consumer(left: &StreamSource, right: &StreamSource) -> bool {
    let name = |source: &StreamSource| source.consumer.as_ref().map(|it| it.name.clone());
    let api = |source: &StreamSource| source.external.as_ref().map(|it| it.api.clone());
    left.name == right.name && name(left) == name(right) && api(left) == api(right)
}

fn is_same_source(left: &StreamSource, right: &StreamSource) -> bool {
    let api = |source: &StreamSource| {
        source
            .external
            .as_ref()
            .map(|external| external.api.clone())
    };
    let consumer = |source: &StreamSource| source.consumer.as_ref().map(|it| it.name.clone());
    left.name == right.name
        && consumer(left) == consumer(right)
        && left.filter_subject == right.filter_subject
        && left.subject_transforms == right.subject_transforms
        && api(left) == api(right)
}

fn check_source_transforms(source: &StreamSource) -> Result<(), ApiError> {
    let transforms = &source.subject_transforms;
    for transform in transforms {
        if !transform.src.is_empty() && !is_valid_subject(&transform.src) {
            return Err(ErrorCode::SourceInvalidSubjectFilter
                .with(format_args!("invalid subject {}", transform.src)));
        }
        check_transform(transform)
            .map_err(|error| ErrorCode::SourceInvalidTransformDestination.with(error))?;
    }
    for (position, outer) in transforms.iter().enumerate() {
        let mut others = transforms.iter().enumerate();
        if others.any(|(other, inner)| other != position && is_subset(&outer.src, &inner.src)) {
            return Err(ErrorCode::SourceOverlappingSubjectFilters.into());
        }
    }
    Ok(())
}

fn check_subjects(config: &mut StreamConfig) -> Result<(), ApiError> {
    if config.subjects.is_empty() {
        if config.mirror.is_none() && config.sources.is_empty() {
            config.subjects.push(config.name.clone());
        }
        return Ok(());
    }
    let mut seen = HashSet::new();
    for (position, subject) in config.subjects.iter().enumerate() {
        if !is_valid_subject(subject) {
            return Err(invalid("invalid subject"));
        }
        if !seen.insert(subject) {
            return Err(invalid("duplicate subjects detected"));
        }
        check_reserved(config, subject)?;
        for later in config.subjects.iter().skip(position + 1) {
            if overlap(later, subject) {
                return Err(invalid(&format!(
                    "subject {subject:?} overlaps with {later:?}"
                )));
            }
        }
    }
    Ok(())
}

/// A stream that acknowledges must not swallow the server's own subjects: the acks would feed it for ever.
fn check_reserved(config: &StreamConfig, subject: &str) -> Result<(), ApiError> {
    if subject == ">" {
        first_broken(&[
            (
                !config.no_ack,
                "capturing all subjects requires no-ack to be true",
            ),
            (
                config.num_replicas != 1,
                "capturing all subjects requires replicas of 1",
            ),
        ])?;
    }
    if config.no_ack {
        return Ok(());
    }
    let touches_api = ["$JS.>", "$JSC.>", "$NRG.>"]
        .iter()
        .any(|space| overlap(subject, space));
    first_broken(&[
        (
            touches_api && !is_subset(subject, "$JS.EVENT.>"),
            "subjects that overlap with jetstream api require no-ack to be true",
        ),
        (
            overlap(subject, "$SYS.>") && !is_subset(subject, "$SYS.ACCOUNT.>"),
            "subjects that overlap with system api require no-ack to be true",
        ),
    ])
}

fn check_account(config: &StreamConfig, rules: &Rules<'_>) -> Result<(), ApiError> {
    if rules.account.max_bytes_required && config.max_bytes <= 0 {
        return Err(ErrorCode::StreamMaxBytesRequired.into());
    }
    match rules.account.stream_bytes_max(config.storage) {
        Some(limit) if config.max_bytes > limit => {
            Err(ErrorCode::StreamMaxStreamBytesExceeded.into())
        }
        _ => Ok(()),
    }
}

fn check_rewrites(config: &mut StreamConfig, adjust: Adjust) -> Result<(), ApiError> {
    if let Some(transform) = &config.subject_transform
        && !transform.src.is_empty()
        && !is_valid_subject(&transform.src)
    {
        return Err(ErrorCode::StreamTransformInvalidSource
            .with(format_args!("invalid subject {}", transform.src)));
    }
    if let Some(transform) = &config.subject_transform {
        check_transform(transform)
            .map_err(|error| ErrorCode::StreamTransformInvalidDestination.with(error))?;
    }
    check_republish(config, adjust)
}

/// Whether a transform can be made; one without a destination leaves subjects as they are.
fn check_transform(transform: &SubjectTransform) -> Result<(), TransformError> {
    match transform.dest.is_empty() {
        true => Ok(()),
        false => Transform::for_mapping(&transform.src, &transform.dest).map(|_| ()),
    }
}

fn check_republish(config: &mut StreamConfig, adjust: Adjust) -> Result<(), ApiError> {
    let Some(republish) = &mut config.republish else {
        return Ok(());
    };
    if republish.src.is_empty() {
        if adjust == Adjust::Never {
            return Err(ErrorCode::Pedantic.with("republish source can not be empty"));
        }
        republish.src = ">".to_owned();
    }
    // All messages under the subject that they are stored under: no cycle when that is never one that the stream listens to.
    if republish.src == ">"
        && republish.dest == ">"
        && let ([subject], Some(transform)) = (&config.subjects[..], &config.subject_transform)
        && transform.src == *subject
    {
        if adjust == Adjust::Never {
            return Err(ErrorCode::Pedantic.with("implicit republish based on subject transform"));
        }
        republish.src.clone_from(&transform.dest);
        republish.dest.clone_from(&transform.dest);
    }
    let republish = &*republish;
    // Nothing is published again then.
    if republish.dest.is_empty() {
        return Ok(());
    }
    let mut subjects = config.subjects.iter();
    if subjects.any(|subject| overlap(&republish.dest, subject)) {
        return Err(invalid(
            "stream configuration for republish destination forms a cycle",
        ));
    }
    Transform::new(&republish.src, &republish.dest)
        .map(|_| ())
        .map_err(|_| {
            invalid(&format!(
                "stream configuration for republish with transform from '{}' to '{}' not valid",
                republish.src, republish.dest
            ))
        })
}

fn check_placement(config: &mut StreamConfig) -> Result<(), ApiError> {
    if config.placement.as_ref() == Some(&Placement::default()) {
        config.placement = None;
    }
    match &config.placement {
        Some(placement) if !placement.preferred.is_empty() => {
            Err(invalid("preferred server not permitted in placement"))
        }
        _ => Ok(()),
    }
}
