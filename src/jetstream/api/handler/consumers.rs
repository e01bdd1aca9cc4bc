//! Consumers: make, change, show, list, pause, move, remove.

use std::collections::BTreeMap;

use super::super::super::core::{ConsumerCreate, StreamReply, StreamRequest};
use super::super::super::id;
use super::super::super::registry::Stream;
use super::super::super::types::{
    AckPolicy, ApiError, ConsumerConfig, ConsumerInfo, ErrorCode, Retention, Strictness, decode,
    decode_optional, is_empty_request,
};
use super::super::body::{
    Action, ConsumerCreateRequest, ConsumerPauseRequest, ConsumerResetRequest,
    ConsumerUnpinRequest, ConsumersRequest,
};
use super::super::response::{
    ConsumerCreated, ConsumerDeleted, ConsumerListPage, ConsumerNamesPage, ConsumerPaused,
    ConsumerReset, ConsumerShown, ConsumerUnpinned, Paged,
};
use super::super::route::ConsumerSubject;
use super::super::validate::{
    check_consumer, check_consumer_update, has_path_separators, is_valid_group,
};
use super::{Context, at_most, unexpected};

/// Names on one page.
const NAMES_PAGE: usize = 1024;
/// Infos on one page.
const LIST_PAGE: usize = 256;

pub(super) fn create(
    context: &Context<'_>,
    subject: ConsumerSubject<'_>,
) -> Result<ConsumerCreated, ApiError> {
    let request: ConsumerCreateRequest = decode(context.body, context.server.strictness)?;
    context.check_level()?;
    let (config, pedantic, action) = (request.config, request.pedantic, request.action);
    if subject.stream() != request.stream_name {
        return Err(ErrorCode::StreamMismatch.into());
    }
    let mut config = named(config, subject)?;
    if config.num_replicas > 1 && !context.server.is_clustered() {
        return Err(ErrorCode::StreamReplicasNotSupported.into());
    }
    let stream = context.account.find(subject.stream())?;
    settle_sourcing(&mut config, stream.config().retention);
    let _change = stream.change.lock();
    let name = if config.is_durable() {
        config.durable_name.clone()
    } else if config.name.is_empty() {
        id::short()
    } else {
        config.name.clone()
    };
    let existing = lookup(&stream, &name)?;
    if let Some(existing) = &existing {
        config.pause_until = existing.config.pause_until;
        if config.sourcing && config.is_durable() {
            // Where it began once is not where who renews it wants to go on.
            config.deliver_policy = existing.config.deliver_policy;
            config.opt_start_seq = existing.config.opt_start_seq;
            config.opt_start_time = existing.config.opt_start_time;
        }
    }
    // Who asks again for a consumer of a copy has lost what was on its way: deliveries begin anew after what it has confirmed.
    let is_renewed = config.sourcing && existing.is_some();
    config.set_stored_metadata();
    let tiers = context.account.tiers();
    let (limits, _) = tiers.select(config.replicas_on(&stream.config()))?;
    let rules = context.rules(limits, pedantic);
    let mut config = check_consumer(config, &stream.config(), &rules)?;
    if let Some(existing) = &existing {
        if action == Action::Create {
            config.take_stored_metadata(&existing.config);
            if config != existing.config {
                return Err(ErrorCode::ConsumerAlreadyExists.into());
            }
        }
        check_rebinding(context, &existing.config, &config)?;
    }
    stamp_inactivity(&mut config, existing.as_ref());
    let renewal = StreamRequest::ConsumerReset {
        name: name.clone(),
        sequence: 0,
    };
    let request = StreamRequest::ConsumerCreate(Box::new(ConsumerCreate {
        name,
        config,
        action: action.into(),
        check_update: check_consumer_update,
        consumers_max: limits.max_consumers,
    }));
    let mut made = stream.ask(request);
    if is_renewed && matches!(made, StreamReply::ConsumerCreated { .. }) {
        made = stream.ask(renewal);
    }
    match made {
        StreamReply::ConsumerCreated { info, .. } | StreamReply::Reset { info, .. } => {
            Ok(ConsumerCreated {
                info: Some(complete(context, *info)),
            })
        }
        other => Err(unexpected(other)),
    }
}

/// What becomes of a consumer that another server asks for, in order to copy the stream. It comes under a name that stays the same. Where messages
/// go once they are confirmed it becomes a durable one that confirms what is stored there; elsewhere every attempt gets one of its own.
fn settle_sourcing(config: &mut ConsumerConfig, retention: Retention) {
    if !config.direct || !config.sourcing || config.name.is_empty() {
        return;
    }
    if retention == Retention::Limits {
        config.name = format!("{}-{}", config.name, id::short());
        return;
    }
    config.direct = false;
    config.durable_name.clone_from(&config.name);
    config.ack_policy = AckPolicy::FlowControl;
    config.ack_wait = 0;
    config.max_deliver = 0;
    config.inactive_threshold = 0;
}

/// Settles the consumer's name between the subject and the request.
fn named(config: ConsumerConfig, subject: ConsumerSubject<'_>) -> Result<ConsumerConfig, ApiError> {
    let mut config = config;
    let name = match subject {
        ConsumerSubject::Unnamed { .. } => config.name.clone(),
        ConsumerSubject::Named { consumer, .. } => consumer.to_owned(),
        ConsumerSubject::Durable { consumer, .. } => consumer
            .ok_or(ErrorCode::ConsumerDurableNameNotInSubject)?
            .to_owned(),
    };
    if has_path_separators(&name) {
        return Err(ErrorCode::ConsumerNameContainsPathSeparators.into());
    }
    let mut named_filter = None;
    match subject {
        ConsumerSubject::Durable { .. } => {
            if !config.is_durable() {
                return Err(ErrorCode::ConsumerDurableNameNotSet.into());
            }
            if config.durable_name != name {
                return Err(ErrorCode::ConsumerDurableNameNotMatchSubject.into());
            }
            config.name = name;
        }
        ConsumerSubject::Named { filter, .. } => {
            if config.is_durable() && config.durable_name != name {
                return Err(ErrorCode::ConsumerDurableNameNotMatchSubject.into());
            }
            config.name = name;
            named_filter = filter;
        }
        ConsumerSubject::Unnamed { .. } if config.is_durable() => {
            return Err(ErrorCode::ConsumerEphemeralWithDurableName.into());
        }
        ConsumerSubject::Unnamed { .. } => {}
    }
    if let Some(filter) = named_filter {
        if !config.filter_subjects.is_empty() {
            return Err(ErrorCode::ConsumerMultipleFiltersNotAllowed.into());
        }
        if config.filter_subject != filter {
            return Err(ErrorCode::ConsumerCreateFilterSubjectMismatch.into());
        }
    }
    Ok(config)
}

/// How long a consumer that does not outlive its clients may be unused when nothing else is asked for.
const INACTIVE_DEFAULT_NS: i64 = 5_000_000_000;

/// A consumer that does not outlive its clients always has a threshold; an update that does not touch it leaves it alone.
/// Whether it outlives them is what it was before the update, as in the reference.
fn stamp_inactivity(config: &mut ConsumerConfig, existing: Option<&ConsumerInfo>) {
    let existing = existing.map(|info| &info.config);
    let untouched = existing.is_some_and(|old| old.inactive_threshold == config.inactive_threshold);
    let durable = existing.unwrap_or(config).is_durable();
    if !untouched && !durable && config.inactive_threshold <= 0 {
        config.inactive_threshold = INACTIVE_DEFAULT_NS;
    }
}

/// A push consumer moves to another subject only when nobody listens on the old one any more.
fn check_rebinding(
    context: &Context<'_>,
    old: &ConsumerConfig,
    new: &ConsumerConfig,
) -> Result<(), ApiError> {
    let moves = old.is_push() && new.is_push() && old.deliver_subject != new.deliver_subject;
    let maker = &context.server.maker;
    if moves && maker.has_interest(context.account, &old.deliver_subject) {
        check_consumer_update(old, new)?;
        return Err(ErrorCode::ConsumerNameExist.into());
    }
    Ok(())
}

pub(super) fn lookup(stream: &Stream, name: &str) -> Result<Option<ConsumerInfo>, ApiError> {
    let name = name.to_owned();
    match stream.ask(StreamRequest::ConsumerInfo { name }) {
        StreamReply::Consumer(info) => Ok(Some(*info)),
        StreamReply::Refused(error) if error.is(ErrorCode::ConsumerNotFound) => Ok(None),
        other => Err(unexpected(other)),
    }
}

fn complete(context: &Context<'_>, info: ConsumerInfo) -> ConsumerInfo {
    ConsumerInfo {
        cluster: context.cluster(&info.stream_name),
        config: info.config.with_reply_metadata(),
        ts: context.now(),
        ..info
    }
}

pub(super) fn info(
    context: &Context<'_>,
    stream: &str,
    name: &str,
) -> Result<ConsumerShown, ApiError> {
    if !is_empty_request(context.body) {
        return Err(ErrorCode::NotEmptyRequest.into());
    }
    context.check_level()?;
    if let Some(unsupported) = context.account.unsupported_consumers(stream) {
        return Err(match unsupported.get(name) {
            Some(reason) => ErrorCode::ConsumerOfflineReason.with(reason),
            None => ErrorCode::ConsumerNotFound.into(),
        });
    }
    let stream = context.account.find(stream)?;
    let info = lookup(&stream, name)?.ok_or(ErrorCode::ConsumerNotFound)?;
    Ok(ConsumerShown {
        info: Some(complete(context, info)),
    })
}

pub(super) fn delete(
    context: &Context<'_>,
    stream: &str,
    name: &str,
) -> Result<ConsumerDeleted, ApiError> {
    context.check_level()?;
    if !is_empty_request(context.body) {
        return Err(ErrorCode::NotEmptyRequest.into());
    }
    let stream = context.account.find(stream)?;
    let name = name.to_owned();
    match stream.ask(StreamRequest::ConsumerDelete { name }) {
        StreamReply::Done => Ok(ConsumerDeleted { success: true }),
        other => Err(unexpected(other)),
    }
}

pub(super) fn names(context: &Context<'_>, stream: &str) -> Result<ConsumerNamesPage, ApiError> {
    context.check_level()?;
    let request: ConsumersRequest = decode_optional(context.body, context.server.strictness)?;
    let names = match context.account.unsupported_consumers(stream) {
        Some(unsupported) => unsupported.into_keys().collect(),
        None => match context
            .account
            .find(stream)?
            .ask(StreamRequest::ConsumerNames)
        {
            StreamReply::ConsumerNames(names) => names,
            other => return Err(unexpected(other)),
        },
    };
    let total = names.len();
    let offset = at_most(request.offset, total);
    Ok(ConsumerNamesPage {
        paged: Paged {
            total,
            offset,
            limit: NAMES_PAGE,
        },
        consumers: names.into_iter().skip(offset).take(NAMES_PAGE).collect(),
    })
}

pub(super) fn list(context: &Context<'_>, stream: &str) -> Result<ConsumerListPage, ApiError> {
    context.check_level()?;
    let request: ConsumersRequest = decode_optional(context.body, context.server.strictness)?;
    if let Some(unsupported) = context.account.unsupported_consumers(stream) {
        return Ok(unsupported_page(unsupported, request.offset));
    }
    let stream = context.account.find(stream)?;
    let offset = at_most(request.offset, usize::MAX);
    let request = StreamRequest::ConsumerInfos {
        offset,
        limit: LIST_PAGE,
    };
    let (infos, total) = match stream.ask(request) {
        StreamReply::ConsumerInfos { infos, total } => (infos, total),
        other => return Err(unexpected(other)),
    };
    let ts = context.now();
    let cluster = context.cluster(&stream.name);
    Ok(ConsumerListPage {
        paged: Paged {
            total,
            offset: offset.min(total),
            limit: LIST_PAGE,
        },
        consumers: infos
            .into_iter()
            .map(|info| ConsumerInfo {
                cluster: cluster.clone(),
                ts,
                ..info
            })
            .collect(),
        missing: Vec::new(),
        offline: BTreeMap::new(),
    })
}

/// What is listed of a stream that cannot run: the consumers that keep it from that, and why.
fn unsupported_page(unsupported: BTreeMap<String, String>, offset: i64) -> ConsumerListPage {
    let total = unsupported.len();
    let offset = at_most(offset, total);
    let offline: BTreeMap<_, _> = unsupported.into_iter().skip(offset).collect();
    ConsumerListPage {
        paged: Paged {
            total,
            offset,
            limit: LIST_PAGE,
        },
        consumers: Vec::new(),
        missing: offline.keys().cloned().collect(),
        offline,
    }
}

pub(super) fn pause(
    context: &Context<'_>,
    stream: &str,
    name: &str,
) -> Result<ConsumerPaused, ApiError> {
    let request: ConsumerPauseRequest = decode_optional(context.body, context.server.strictness)?;
    context.check_level()?;
    let stream = context.account.find(stream)?;
    let until = request.pause_until;
    let question = StreamRequest::ConsumerPause {
        name: name.to_owned(),
        until_ns: (!until.is_zero()).then_some(until.nanoseconds()),
    };
    match stream.ask(question) {
        StreamReply::Paused { .. } => {
            let remaining = until
                .nanoseconds()
                .saturating_sub(context.now().nanoseconds());
            let paused = !until.is_zero() && remaining > 0;
            Ok(ConsumerPaused {
                paused,
                pause_until: until,
                pause_remaining: if paused { remaining } else { 0 },
            })
        }
        other => Err(unexpected(other)),
    }
}

pub(super) fn reset(
    context: &Context<'_>,
    stream: &str,
    name: &str,
) -> Result<ConsumerReset, ApiError> {
    context.check_level()?;
    // In the reference consumers take this themselves, and are not as strict as its API.
    let request: ConsumerResetRequest = decode(context.body, Strictness::Lenient)?;
    let stream = context.account.find(stream)?;
    let question = StreamRequest::ConsumerReset {
        name: name.to_owned(),
        sequence: request.seq,
    };
    match stream.ask(question) {
        StreamReply::Reset { info, sequence } => Ok(ConsumerReset {
            info: Some(complete(context, *info)),
            reset_seq: sequence,
        }),
        other => Err(unexpected(other)),
    }
}

pub(super) fn unpin(
    context: &Context<'_>,
    stream: &str,
    name: &str,
) -> Result<ConsumerUnpinned, ApiError> {
    context.check_level()?;
    let request: ConsumerUnpinRequest = decode(context.body, context.server.strictness)?;
    if request.group.is_empty() {
        return Err(ErrorCode::InvalidJson.with("consumer group not specified"));
    }
    if !is_valid_group(&request.group) {
        return Err(ErrorCode::ConsumerInvalidGroupName.into());
    }
    let stream = context.account.find(stream)?;
    let question = StreamRequest::ConsumerUnpin {
        name: name.to_owned(),
        group: request.group,
    };
    match stream.ask(question) {
        StreamReply::Consumer(_) | StreamReply::Done => Ok(ConsumerUnpinned {}),
        other => Err(unexpected(other)),
    }
}
