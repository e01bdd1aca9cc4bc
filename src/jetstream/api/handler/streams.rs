//! Streams: make, change, show, list, remove.

use std::collections::BTreeMap;

use super::super::super::core::{InfoQuery, StreamCore, StreamReply, StreamRequest};
use super::super::super::limits::{AccountLimits, Tier, reservation};
use super::super::super::registry::{AccountStreams, Stream};
use super::super::super::types::{
    ApiError, ClusterInfo, ErrorCode, StreamConfig, StreamInfo, decode_optional, is_empty_request,
};
use super::super::body::{StreamConfigRequest, StreamInfoRequest, StreamNamesRequest};
use super::super::response::{
    Paged, StreamCreated, StreamDeleted, StreamListPage, StreamNamesPage, StreamShown,
    StreamUpdated, encode_reply,
};
use super::super::validate::{
    check_consumer, check_origins, check_stream, check_stream_creation, check_update,
};
use super::{Context, Server, at_most, unexpected};
use crate::subject::overlap;

/// Names on one page.
const NAMES_PAGE: usize = 1024;
/// Infos on one page.
pub(super) const LIST_PAGE: usize = 256;
/// Subjects on one page.
const SUBJECTS_PAGE: usize = 100_000;

pub(super) fn create(context: &Context<'_>, name: &str) -> Result<StreamCreated, ApiError> {
    context.check_level()?;
    let request = StreamConfigRequest::decode(context.body, context.server.strictness)?;
    let (mut config, account) = (request.config, context.account);
    if let Some(steward) = &context.server.steward {
        let stream = steward.create_stream(account, name, config, request.pedantic)?;
        return Ok(StreamCreated {
            info: Some(show(context, &stream, InfoQuery::default())?.0),
            did_create: true,
        });
    }
    config.set_stored_metadata();
    check_stream_creation(name, &config)?;
    let _change = account.change.lock();
    let tiers = account.tiers();
    let (limits, tier) = tiers.select(config.replicas())?;
    check_stream_count(account, limits, tier, name)?;
    check_resources(context, limits, tier, &config, reservation(&config))?;
    let rules = context.rules(limits, request.pedantic);
    let config = check_stream(config, &rules)?;
    let mut config = check_origins(config, &find_in(account), &rules)?;
    if config.num_replicas > 1 {
        return Err(ErrorCode::StreamReplicasNotSupported.into());
    }
    let stream = match account.get(name) {
        Some(existing) => {
            let current = existing.config();
            config.take_stored_metadata(&current);
            if config != *current {
                return Err(ErrorCode::StreamNameExist.into());
            }
            existing
        }
        None => {
            if let Some(reason) = account.offline(name) {
                return Err(ErrorCode::StreamOfflineReason.with(reason));
            }
            check_overlap(account, &config)?;
            let stream = context
                .server
                .maker
                .create(account, config, context.now())?;
            account.insert(std::sync::Arc::clone(&stream));
            stream
        }
    };
    Ok(StreamCreated {
        info: Some(show(context, &stream, InfoQuery::default())?.0),
        did_create: true,
    })
}

/// Looks up the streams of an account.
fn find_in(account: &AccountStreams) -> impl Fn(&str) -> Option<StreamConfig> {
    move |name| {
        let stream = account.get(name)?;
        Some(StreamConfig::clone(&stream.config()))
    }
}

fn check_stream_count(
    account: &AccountStreams,
    limits: &AccountLimits,
    tier: Tier,
    name: &str,
) -> Result<(), ApiError> {
    let others = account.others(tier, name);
    match usize::try_from(limits.max_streams) {
        Ok(limit) if limit > 0 && others >= limit => Err(ErrorCode::MaximumStreamsLimit.into()),
        _ => Ok(()),
    }
}

/// Checks what the account and the server have left, `more_bytes` being what the server must find beyond what it has
/// already set aside for this stream.
fn check_resources(
    context: &Context<'_>,
    limits: &AccountLimits,
    tier: Tier,
    config: &StreamConfig,
    more_bytes: u64,
) -> Result<(), ApiError> {
    if limits.max_consumers > 0 && config.max_consumers > limits.max_consumers {
        return Err(ErrorCode::MaximumConsumersLimit.into());
    }
    let exceeded = match config.storage {
        super::super::super::types::Storage::File => ErrorCode::StorageResourcesExceeded,
        super::super::super::types::Storage::Memory => ErrorCode::MemoryResourcesExceeded,
    };
    let except = Some(config.name.as_str());
    let reserved = context.account.reserved(tier, config.storage, except);
    if let Some(limit) = limits.bytes_max(config.storage) {
        // A stream without a limit of its own needs room for something at least.
        let wanted = reservation(config).max(u64::from(config.max_bytes < 0));
        if reserved.saturating_add(wanted) > limit {
            return Err(exceeded.into());
        }
    }
    if more_bytes > context.server.maker.unreserved(config.storage) {
        return Err(exceeded.into());
    }
    Ok(())
}

fn check_overlap(account: &AccountStreams, config: &StreamConfig) -> Result<(), ApiError> {
    let overlaps = account
        .all()
        .iter()
        .filter(|other| other.name != config.name)
        .any(|other| {
            let other = other.config();
            config
                .subjects
                .iter()
                .any(|subject| other.subjects.iter().any(|taken| overlap(subject, taken)))
        });
    if overlaps {
        return Err(ErrorCode::StreamSubjectOverlap.into());
    }
    Ok(())
}

pub(super) fn update(context: &Context<'_>, name: &str) -> Result<StreamUpdated, ApiError> {
    context.check_level()?;
    let request = StreamConfigRequest::decode(context.body, context.server.strictness)?;
    let account = context.account;
    if let Some(steward) = &context.server.steward {
        let stream = account.find(name)?;
        check_consumer_limits(&stream, &stream.config(), &request.config)?;
        let info = steward.update_stream(account, name, request.config, request.pedantic)?;
        return Ok(StreamUpdated {
            info: Some(complete(context, info)),
        });
    }
    let _change = account.change.lock();
    let tiers = account.tiers();
    let (limits, tier) = tiers.select(request.config.replicas())?;
    let mut config = check_stream(request.config, &context.rules(limits, request.pedantic))?;
    if config.name != name {
        return Err(ErrorCode::StreamMismatch.into());
    }
    let stream = account.find(name)?;
    config.set_stored_metadata();
    let old = stream.config();
    // What the first check switched on may break a rule that stands before it.
    let config = check_stream(config, &context.rules(limits, request.pedantic))?;
    let config = check_update(&old, config)?;
    let rules = context.rules(limits, request.pedantic);
    let config = check_origins(config, &find_in(account), &rules)?;
    if config.num_replicas > 1 {
        return Err(ErrorCode::StreamReplicasNotSupported.into());
    }
    let more_bytes = reservation(&config).saturating_sub(reservation(&old));
    check_resources(context, limits, tier, &config, more_bytes)?;
    let _consumers = stream.change.lock();
    check_consumer_limits(&stream, &old, &config)?;
    check_overlap(account, &config)?;
    let info = context.server.maker.update(account, &stream, config)?;
    Ok(StreamUpdated {
        info: Some(complete(context, info)),
    })
}

/// Limits that the stream's consumers already exceed are refused.
fn check_consumer_limits(
    stream: &Stream,
    old: &StreamConfig,
    new: &StreamConfig,
) -> Result<(), ApiError> {
    let (was, is) = (&old.consumer_limits, &new.consumer_limits);
    let tightened = (is.inactive_threshold > 0 && is.inactive_threshold != was.inactive_threshold)
        || (is.max_ack_pending > 0 && is.max_ack_pending != was.max_ack_pending);
    if !tightened {
        return Ok(());
    }
    let request = StreamRequest::ConsumerInfos {
        offset: 0,
        limit: usize::MAX,
    };
    let infos = match stream.ask(request) {
        StreamReply::ConsumerInfos { infos, .. } => infos,
        other => return Err(unexpected(other)),
    };
    let violating: Vec<String> = infos
        .into_iter()
        .filter(|info| {
            let config = &info.config;
            (is.inactive_threshold > 0 && config.inactive_threshold > is.inactive_threshold)
                || (is.max_ack_pending > 0 && config.max_ack_pending > is.max_ack_pending)
        })
        .map(|info| info.name)
        .collect();
    if violating.is_empty() {
        return Ok(());
    }
    Err(ErrorCode::StreamUpdate.with(format_args!(
        "change to limits violates consumers: {}",
        violating.join(", ")
    )))
}

pub(super) fn delete(context: &Context<'_>, name: &str) -> Result<StreamDeleted, ApiError> {
    context.check_level()?;
    if !is_empty_request(context.body) {
        return Err(ErrorCode::NotEmptyRequest.into());
    }
    let account = context.account;
    if let Some(steward) = &context.server.steward {
        steward.delete_stream(account, name)?;
        return Ok(StreamDeleted { success: true });
    }
    let _change = account.change.lock();
    match account.offline(name) {
        Some(_) => context.server.maker.remove_offline(account, name)?,
        None => {
            let stream = account.find(name)?;
            context.server.maker.remove(account, &stream)?;
        }
    }
    account.remove(name);
    Ok(StreamDeleted { success: true })
}

pub(super) fn info(context: &Context<'_>, name: &str) -> Result<StreamShown, ApiError> {
    context.check_level()?;
    let request: StreamInfoRequest = decode_optional(context.body, context.server.strictness)?;
    let stream = context.account.find(name)?;
    let offset = at_most(request.offset, usize::MAX);
    let asks_subjects = !request.subjects_filter.is_empty();
    let query = InfoQuery {
        subjects_filter: asks_subjects.then_some(request.subjects_filter),
        subjects_offset: offset,
        subjects_limit: SUBJECTS_PAGE,
        deleted_details: request.deleted_details,
    };
    let (mut info, subjects_total) = show(context, &stream, query)?;
    // A server on its own names itself here, and nowhere else.
    info.cluster.get_or_insert_with(|| ClusterInfo {
        leader: context.server.name.clone(),
        ..ClusterInfo::default()
    });
    if let Some(infos) = &context.server.cluster_infos {
        let mut alternates = infos.alternates(&context.account.name, name);
        for alternate in &mut alternates {
            alternate.domain.clone_from(&context.server.domain);
        }
        info.alternates = alternates;
    }
    let paged = if asks_subjects && subjects_total > 0 {
        Paged {
            total: subjects_total,
            offset,
            limit: SUBJECTS_PAGE,
        }
    } else {
        Paged::default()
    };
    Ok(StreamShown {
        paged,
        info: Some(info),
    })
}

/// Asks the stream what it is, for a reply about this stream alone.
fn show(
    context: &Context<'_>,
    stream: &Stream,
    query: InfoQuery,
) -> Result<(StreamInfo, usize), ApiError> {
    match stream.ask(StreamRequest::Info(query)) {
        StreamReply::Info {
            info,
            subjects_total,
        } => Ok((complete(context, *info), subjects_total)),
        other => Err(unexpected(other)),
    }
}

fn complete(context: &Context<'_>, info: StreamInfo) -> StreamInfo {
    let mut info = in_list(context, info);
    info.config = info.config.with_reply_metadata();
    info
}

pub(super) fn in_list(context: &Context<'_>, info: StreamInfo) -> StreamInfo {
    let cluster = info.cluster.clone();
    StreamInfo {
        cluster: cluster.or_else(|| context.cluster(&info.config.name)),
        domain: context.server.domain.clone(),
        ts: context.now(),
        ..info
    }
}

pub(super) fn matching(
    context: &Context<'_>,
) -> Result<(StreamNamesRequest, Vec<std::sync::Arc<Stream>>), ApiError> {
    context.check_level()?;
    let request: StreamNamesRequest = decode_optional(context.body, context.server.strictness)?;
    let mut streams = context.account.all();
    if !request.subject.is_empty() {
        streams.retain(|stream| {
            let config = stream.config();
            let mut subjects = config.subjects.iter();
            subjects.any(|subject| overlap(subject, &request.subject))
        });
    }
    Ok((request, streams))
}

pub(super) fn names(context: &Context<'_>) -> Result<StreamNamesPage, ApiError> {
    let (request, streams) = matching(context)?;
    let mut names: Vec<String> = streams.iter().map(|stream| stream.name.clone()).collect();
    if request.subject.is_empty() {
        names.extend(context.account.all_offline().into_keys());
        names.sort();
    }
    let total = names.len();
    let offset = at_most(request.offset, total);
    let names: Vec<String> = names.into_iter().skip(offset).take(NAMES_PAGE).collect();
    Ok(StreamNamesPage {
        paged: Paged {
            total,
            offset,
            limit: NAMES_PAGE,
        },
        streams: (!names.is_empty()).then_some(names),
    })
}

/// Streams that could not be brought back stand beside the first page.
pub(super) fn list(context: &Context<'_>) -> Result<StreamListPage, ApiError> {
    let (request, streams) = matching(context)?;
    let offset = at_most(request.offset, streams.len());
    let pending: Vec<_> = streams
        .iter()
        .skip(offset)
        .take(LIST_PAGE)
        .map(|stream| stream.start(StreamRequest::Info(InfoQuery::default())))
        .collect();
    let total = streams.len();
    let streams = pending
        .into_iter()
        .filter_map(|pending| match pending.wait() {
            StreamReply::Info { info, .. } => Some(in_list(context, *info)),
            // It has gone meanwhile.
            _ => None,
        })
        .collect();
    let offline = match offset {
        0 if request.subject.is_empty() => context.account.all_offline(),
        _ => BTreeMap::new(),
    };
    Ok(StreamListPage {
        paged: Paged {
            total: total + offline.len(),
            offset,
            limit: LIST_PAGE,
        },
        streams,
        missing: offline.keys().cloned().collect(),
        offline,
    })
}

/// Checks that there is room for one more stream beside those that there are.
pub(crate) fn check_room_for(
    server: &Server,
    account: &AccountStreams,
    config: &StreamConfig,
) -> Result<(), ApiError> {
    let context = context_of(server, account);
    let tiers = account.tiers();
    let (limits, tier) = tiers.select(config.replicas())?;
    check_stream_count(account, limits, tier, &config.name)?;
    check_resources(&context, limits, tier, config, reservation(config))?;
    check_overlap(account, config)
}

/// Checks that consumers which come with their stream could have been made here.
pub(crate) fn refuse_unfit_consumers(
    server: &Server,
    account: &AccountStreams,
    core: &StreamCore,
) -> Result<(), ApiError> {
    let context = context_of(server, account);
    let tiers = account.tiers();
    for (name, config) in core.consumer_configs() {
        let (limits, _) = tiers.select(config.replicas_on(core.config()))?;
        let rules = context.rules(limits, false);
        if let Err(error) = check_consumer(config.clone(), core.config(), &rules) {
            let reason = error.description;
            let restored = format_args!("error restoring consumer [{name:?}]: {reason}");
            return Err(ErrorCode::StreamRestore.with(restored));
        }
    }
    Ok(())
}

/// What whoever restored a stream is answered.
pub(crate) fn encode_created(
    server: &Server,
    account: &AccountStreams,
    restored: Result<std::sync::Arc<Stream>, ApiError>,
) -> Vec<u8> {
    let context = context_of(server, account);
    let shown = restored.and_then(|stream| show(&context, &stream, InfoQuery::default()));
    encode_reply(shown.map(|(info, _)| StreamCreated {
        info: Some(info),
        did_create: false,
    }))
}

/// For what follows a request.
fn context_of<'a>(server: &'a Server, account: &'a AccountStreams) -> Context<'a> {
    Context {
        server,
        account,
        required_level: b"",
        client: None,
        body: b"",
    }
}
