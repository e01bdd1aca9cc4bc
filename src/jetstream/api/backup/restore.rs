//! An archive from a client becomes a stream.

use std::sync::Arc;

use super::FollowUp;
use super::feed::{Feed, FeedReader};
use super::told;
use super::under_way::Claim;
use crate::broker::{InternalSubscription, InternalTarget};
use crate::jetstream::api::body::StreamRestoreRequest;
use crate::jetstream::api::elsewhere::AskingClient;
use crate::jetstream::api::handler::{
    Answer, Context, Server, check_room_for, encode_created, refuse_unfit_consumers,
};
use crate::jetstream::api::now;
use crate::jetstream::api::response::StreamRestore;
use crate::jetstream::api::route::Operation;
use crate::jetstream::api::validate::{check_stream, has_path_separators};
use crate::jetstream::archive::{ArchiveError, ArchiveReader, StreamMeta};
use crate::jetstream::id;
use crate::jetstream::registry::{AccountStreams, Stream};
use crate::jetstream::types::{
    ApiError, ErrorCode, Storage, StreamConfig, decode, is_empty_request,
};

/// What a restore needs to know of where it happens.
struct Target {
    server: Arc<Server>,
    account: Arc<AccountStreams>,
    config: StreamConfig,
}

/// Looks whether a stream can be restored, and where. That server waits for the archive when the answer is out.
pub(crate) fn restore(
    context: &Context<'_>,
    name: &str,
) -> Result<(StreamRestore, Option<FollowUp>), ApiError> {
    context.check_level()?;
    let config = wanted(context, name)?;
    if let Some(steward) = &context.server.steward {
        let elsewhere = steward.restore_elsewhere(context.account, &config, context.client)?;
        if let Some(deliver_subject) = elsewhere {
            return Ok((StreamRestore { deliver_subject }, None));
        }
    } else {
        check_room_for(context.server, context.account, &config)?;
        let account = context.account;
        if account.get(name).is_some() || account.offline(name).is_some() {
            return Err(ErrorCode::StreamNameExistRestoreFailed.into());
        }
        if config.num_replicas > 1 {
            return Err(ErrorCode::StreamReplicasNotSupported.into());
        }
    }
    let (body, begin) = restore_here(context.server, &context.account.name, config)?;
    Ok((body, Some(begin)))
}

/// The stream that a request asks for.
fn wanted(context: &Context<'_>, name: &str) -> Result<StreamConfig, ApiError> {
    if is_empty_request(context.body) {
        return Err(ErrorCode::BadRequest.into());
    }
    let request: StreamRestoreRequest = decode(context.body, context.server.strictness)?;
    let mut config = request.config;
    if config.name.is_empty() {
        name.clone_into(&mut config.name);
    }
    if config.name != name {
        return Err(ErrorCode::StreamMismatch.into());
    }
    if has_path_separators(name) {
        return Err(ErrorCode::StreamNameContainsPathSeparators.into());
    }
    config.set_stored_metadata();
    let tiers = context.account.tiers();
    let (limits, _) = tiers.select(config.replicas())?;
    let config = check_stream(config, &context.rules(limits, false))?;
    if config.storage == Storage::Memory {
        return Err(ErrorCode::StreamRestore.with("a stream in memory cannot be restored"));
    }
    Ok(config)
}

/// Makes ready for an archive on this server; it is waited for when the answer is out.
pub(crate) fn restore_here(
    server: &Server,
    account: &str,
    config: StreamConfig,
) -> Result<(StreamRestore, FollowUp), ApiError> {
    let name = &config.name;
    let claim = (server.backups)
        .claim(account, name)
        .map_err(|refused| ErrorCode::StreamRestore.with(refused))?;
    let deliver_subject = format!("$JS.SNAPSHOT.RESTORE.{name}.{}", id::unique());
    let feed = Arc::new(Feed::default());
    let listener: Arc<dyn InternalTarget> = Arc::clone(&feed) as _;
    let subscription = claim
        .account
        .subscribe(&deliver_subject, None, listener, 0)
        .map_err(|_| ErrorCode::RestoreSubscribeFailed.with(&deliver_subject))?;
    let begin: FollowUp = Box::new(move |answered| {
        let target = Target {
            server: answered.server,
            account: answered.account,
            config,
        };
        claim.run("js-restore", move |claim| {
            run(
                claim,
                &target,
                feed,
                subscription,
                answered.client.as_deref(),
            );
        });
    });
    Ok((StreamRestore { deliver_subject }, begin))
}

/// The subject on which an archive is waited for, when that is what an operation was answered.
pub(crate) fn deliver_subject(operation: Option<Operation<'_>>, answer: &Answer) -> Option<String> {
    let Some(Operation::StreamRestore(_)) = operation else {
        return None;
    };
    let body: StreamRestore = serde_json::from_slice(&answer.payload).ok()?;
    Some(body.deliver_subject).filter(|subject| !subject.is_empty())
}

/// Why a stream was not restored.
enum Broken {
    Archive(ArchiveError),
    Api(ApiError),
}

impl From<ArchiveError> for Broken {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}

impl From<ApiError> for Broken {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

fn run(
    claim: &Claim,
    target: &Target,
    feed: Arc<Feed>,
    subscription: InternalSubscription,
    asker: Option<&AskingClient>,
) {
    let title = claim.title();
    tracing::info!("Starting restore for stream '{title}'");
    let start = now();
    told::restore_begun(claim, asker);
    let mut reader = FeedReader::new(feed, claim);
    let restored = take(target, &mut reader);
    let bytes = reader.total();
    told::restore_ended(claim, asker, start, bytes);
    let result = restored.map_err(|broken| match (broken, reader.failed()) {
        (_, Some(failed)) => ErrorCode::StreamRestore.with(failed),
        (Broken::Archive(error), None) => ErrorCode::StreamRestore.with(error),
        (Broken::Api(error), None) => error,
    });
    match &result {
        Ok(_) => tracing::info!("Completed restore of {bytes} bytes for stream '{title}'"),
        Err(error) => {
            let reason = &error.description;
            tracing::warn!("Restore failed for {bytes} bytes for stream '{title}': {reason}");
        }
    }
    let reply = reader.into_reply();
    drop(subscription);
    claim.free();
    if let Some(reply) = reply {
        let answer = encode_created(&target.server, &target.account, result);
        claim.answer(&reply, answer);
    }
}

fn take(target: &Target, reader: &mut FeedReader<'_>) -> Result<Arc<Stream>, Broken> {
    let archive = ArchiveReader::open(&mut *reader)?;
    if target.account.get(&target.config.name).is_some() {
        return Err(Broken::Api(ErrorCode::StreamNameExistRestoreFailed.into()));
    }
    if archive.meta().config.name != target.config.name {
        let error = ErrorCode::StreamRestore.with("stream names do not match");
        return Err(error.into());
    }
    let meta = StreamMeta {
        created: match archive.meta().created {
            created if created.is_zero() => now(),
            created => created,
        },
        config: target.config.clone(),
    };
    let (server, account) = (&target.server, &target.account);
    let (landing, mut builder) = server.maker.land(account, meta)?;
    let room = room_for(target);
    archive.read_into(&mut builder, |bytes| match bytes > room {
        true => Err(Broken::Api(ErrorCode::StorageResourcesExceeded.into())),
        false => Ok(()),
    })?;
    reader
        .drain()
        .map_err(|error| ErrorCode::StreamRestore.with(error))?;
    let finished = builder.finish(now().nanoseconds());
    let (core, _) = finished.map_err(ArchiveError::from)?;
    refuse_unfit_consumers(server, account, &core)?;
    if server.is_clustered() {
        // Names and subjects are looked at where the cluster's streams are decided about.
        return Ok(server.maker.take_up(account, landing, core)?);
    }
    // From here on names, subjects and reservations do not change.
    let _change = account.change.lock();
    if account.get(&target.config.name).is_some() {
        return Err(Broken::Api(ErrorCode::StreamNameExistRestoreFailed.into()));
    }
    check_room_for(server, account, &target.config)?;
    let stream = server.maker.take_up(account, landing, core)?;
    account.insert(Arc::clone(&stream));
    Ok(stream)
}

/// Bytes that the stream's files may have.
fn room_for(target: &Target) -> u64 {
    let storage = target.config.storage;
    let tiers = target.account.tiers();
    let limits = tiers.select(target.config.replicas()).ok();
    let of_account = limits.and_then(|(limits, _)| limits.bytes_max(storage));
    let of_account = of_account.unwrap_or(u64::MAX);
    let of_server = target.server.maker.unreserved(storage);
    of_account.min(of_server)
}
