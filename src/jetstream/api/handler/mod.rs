//! What each operation does.
//!
//! A handler runs on an API worker. It may wait for a shard and for the disk; it holds locks of the registry only while a
//! stream changes, and never one that a shard takes.

mod account;
mod consumers;
mod leaders;
mod messages;
pub(crate) mod shares;
mod streams;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::archive::{Landing, StreamBuilder, StreamMeta};
use super::super::core::{StreamCore, StreamReply};
use super::super::limits::ServerLimits;
use super::super::registry::{AccountStreams, Stream};
use super::super::types::{
    ApiError, ClusterInfo, ErrorCode, StreamAlternate, StreamConfig, StreamInfo, Strictness, Time,
    header_exceeds_level,
};
use super::backup::{self, Backups, FollowUp};
use super::elsewhere::AskingClient;
use super::response::{
    AccountShown, Body, ConsumerCreated, ConsumerDeleted, ConsumerListPage, ConsumerNamesPage,
    ConsumerPaused, ConsumerReset, ConsumerShown, ConsumerSteppedDown, ConsumerUnpinned,
    MessageDeleted, MessageShown, PeerRemoved, StreamCreated, StreamDeleted, StreamListPage,
    StreamNamesPage, StreamPurged, StreamRestore, StreamShown, StreamSnapshot, StreamSteppedDown,
    StreamUpdated, encode_reply,
};
use super::route::Operation;
use super::validate::{Adjust, Rules};
pub(crate) use leaders::{Steward, administer, answer_administration};
pub(crate) use streams::{check_room_for, encode_created, refuse_unfit_consumers};

/// Makes and removes streams, in storage and on a shard.
pub(crate) trait StreamMaker: Send + Sync {
    /// Makes a stream; it is durable and runs when this returns.
    fn create(
        &self,
        account: &AccountStreams,
        config: StreamConfig,
        created: Time,
    ) -> Result<Arc<Stream>, ApiError>;
    /// Gives a stream another configuration, which was checked; subjects and direct gets follow it.
    fn update(
        &self,
        account: &AccountStreams,
        stream: &Stream,
        config: StreamConfig,
    ) -> Result<StreamInfo, ApiError>;
    /// Removes a stream; nothing of it is left when this returns.
    fn remove(&self, account: &AccountStreams, stream: &Stream) -> Result<(), ApiError>;
    /// Removes a stream that could not be brought back.
    fn remove_offline(&self, account: &AccountStreams, name: &str) -> Result<(), ApiError>;
    /// Bytes that all accounts may still reserve on this server in this storage.
    fn unreserved(&self, storage: super::super::types::Storage) -> u64;
    /// Whether anybody listens on a literal subject of the account.
    fn has_interest(&self, account: &AccountStreams, subject: &str) -> bool;

    /// Makes a place for a stream that is being restored, of which nobody else knows yet.
    fn land(
        &self,
        account: &AccountStreams,
        meta: StreamMeta,
    ) -> Result<(Landing, StreamBuilder), ApiError>;
    /// Lets a restored stream run; it is durable when this returns.
    fn take_up(
        &self,
        account: &AccountStreams,
        landing: Landing,
        core: StreamCore,
    ) -> Result<Arc<Stream>, ApiError>;
}

/// Knows who holds the copies of streams, on a server of a cluster.
pub(crate) trait ClusterInfos: Send + Sync {
    /// Who holds copies of a stream, as its leader sees it. May wait for another server.
    fn of_stream(&self, account: &str, stream: &str) -> Option<ClusterInfo>;
    /// The stream and its mirrors, the nearest first; nothing when it has none. Names no domain.
    fn alternates(&self, account: &str, stream: &str) -> Vec<StreamAlternate>;
}

/// What handlers know of the server.
pub(crate) struct Server {
    pub name: String,
    /// Empty for none.
    pub cluster: String,
    pub domain: String,
    /// Looks after its groups, where it is part of a cluster.
    pub steward: Option<Arc<dyn Steward>>,
    pub strictness: Strictness,
    pub limits: ServerLimits,
    pub maker: Arc<dyn StreamMaker>,
    pub backups: Arc<Backups>,
    /// Present on a server of a cluster.
    pub cluster_infos: Option<Arc<dyn ClusterInfos>>,
    /// Nothing can be stored any more.
    pub is_disabled: AtomicBool,
    pub now: fn() -> Time,
}

impl Server {
    pub(crate) fn is_clustered(&self) -> bool {
        self.steward.is_some()
    }
}

/// A request with all that its handler may use.
pub(crate) struct Context<'a> {
    pub server: &'a Server,
    pub account: &'a AccountStreams,
    /// The value of `Nats-Required-Api-Level`.
    pub required_level: &'a [u8],
    /// Who asks, where that is known and of use.
    pub client: Option<&'a AskingClient>,
    pub body: &'a [u8],
}

/// What a request is answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub payload: Vec<u8>,
    pub outcome: Outcome,
}

/// A request that was looked at.
pub(crate) struct Handled {
    pub answer: Answer,
    /// What is to be done once the answer is out.
    pub follow_up: Option<FollowUp>,
}

impl From<Answer> for Handled {
    fn from(answer: Answer) -> Self {
        Self {
            answer,
            follow_up: None,
        }
    }
}

impl Handled {
    fn with_more<B: Body>(result: Result<(B, Option<FollowUp>), ApiError>) -> Self {
        match result {
            Ok((body, follow_up)) => Self {
                answer: answer(Ok(body)),
                follow_up,
            },
            Err(error) => answer::<B>(Err(error)).into(),
        }
    }
}

/// How a request is counted and whether it is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was answered.
    Answered,
    /// It was refused.
    Refused,
    /// It read a message or moved a consumer, which is neither counted nor reported.
    Unreported,
}

impl Context<'_> {
    pub(crate) fn rules<'a>(
        &'a self,
        limits: &'a super::super::limits::AccountLimits,
        pedantic: bool,
    ) -> Rules<'a> {
        Rules {
            server: &self.server.limits,
            account: limits,
            adjust: if pedantic {
                Adjust::Never
            } else {
                Adjust::Freely
            },
        }
    }

    pub(crate) fn check_level(&self) -> Result<(), ApiError> {
        if header_exceeds_level(self.required_level) {
            return Err(ErrorCode::RequiredApiLevel.into());
        }
        Ok(())
    }

    fn now(&self) -> Time {
        (self.server.now)()
    }

    /// Who holds copies of a stream; `None` outside a cluster.
    fn cluster(&self, stream: &str) -> Option<ClusterInfo> {
        let infos = self.server.cluster_infos.as_ref()?;
        infos.of_stream(&self.account.name, stream)
    }
}

fn answer<B: Body>(result: Result<B, ApiError>) -> Answer {
    let outcome = match &result {
        Ok(_) => Outcome::Answered,
        Err(_) => Outcome::Refused,
    };
    Answer {
        payload: encode_reply(result),
        outcome,
    }
}

/// Refuses an operation whoever would do it, in the form of its answer.
pub(crate) fn refuse_operation(operation: Operation<'_>, error: ApiError) -> Answer {
    match operation {
        Operation::AccountInfo => answer::<AccountShown>(Err(error)),
        Operation::StreamCreate(_) => answer::<StreamCreated>(Err(error)),
        Operation::StreamUpdate(_) => answer::<StreamUpdated>(Err(error)),
        Operation::StreamInfo(_) => answer::<StreamShown>(Err(error)),
        Operation::StreamDelete(_) => answer::<StreamDeleted>(Err(error)),
        Operation::StreamPurge(_) => answer::<StreamPurged>(Err(error)),
        Operation::StreamNames => answer::<StreamNamesPage>(Err(error)),
        Operation::StreamList => answer::<StreamListPage>(Err(error)),
        Operation::MessageGet(_) => answer::<MessageShown>(Err(error)),
        Operation::MessageDelete(_) => answer::<MessageDeleted>(Err(error)),
        Operation::StreamSnapshot(_) => answer::<StreamSnapshot>(Err(error)),
        Operation::StreamRestore(_) => answer::<StreamRestore>(Err(error)),
        Operation::StreamPeerRemove(_) => answer::<PeerRemoved>(Err(error)),
        Operation::StreamStepDown(_) => answer::<StreamSteppedDown>(Err(error)),
        Operation::ConsumerCreate(_) => answer::<ConsumerCreated>(Err(error)),
        Operation::ConsumerInfo(..) => answer::<ConsumerShown>(Err(error)),
        Operation::ConsumerDelete(..) => answer::<ConsumerDeleted>(Err(error)),
        Operation::ConsumerNames(_) => answer::<ConsumerNamesPage>(Err(error)),
        Operation::ConsumerList(_) => answer::<ConsumerListPage>(Err(error)),
        Operation::ConsumerPause(..) => answer::<ConsumerPaused>(Err(error)),
        Operation::ConsumerReset(..) => answer::<ConsumerReset>(Err(error)),
        Operation::ConsumerUnpin(..) => answer::<ConsumerUnpinned>(Err(error)),
        Operation::ConsumerStepDown(..) => answer::<ConsumerSteppedDown>(Err(error)),
    }
}

/// Does what `operation` says, or has it done once the answer is out.
pub(crate) fn handle(context: &Context<'_>, operation: Operation<'_>) -> Handled {
    if context.server.is_disabled.load(Ordering::Acquire) {
        return refuse_operation(operation, ErrorCode::NotEnabled.into()).into();
    }
    match operation {
        Operation::StreamSnapshot(name) => Handled::with_more(backup::snapshot(context, name)),
        Operation::StreamRestore(name) => Handled::with_more(backup::restore(context, name)),
        operation => handle_at_once(context, operation).into(),
    }
}

fn handle_at_once(context: &Context<'_>, operation: Operation<'_>) -> Answer {
    match operation {
        Operation::AccountInfo => answer(account::info(context)),
        Operation::StreamCreate(name) => answer(streams::create(context, name)),
        Operation::StreamUpdate(name) => answer(streams::update(context, name)),
        Operation::StreamInfo(name) => answer(streams::info(context, name)),
        Operation::StreamDelete(name) => answer(streams::delete(context, name)),
        Operation::StreamPurge(name) => answer(messages::purge(context, name)),
        Operation::StreamNames => answer(streams::names(context)),
        Operation::StreamList => answer(streams::list(context)),
        Operation::MessageGet(name) => messages::get(context, name),
        Operation::MessageDelete(name) => messages::delete(context, name),
        Operation::StreamSnapshot(_) | Operation::StreamRestore(_) => {
            refuse_operation(operation, ErrorCode::BadRequest.into())
        }
        Operation::StreamPeerRemove(name) => answer(leaders::remove_replica(context, name)),
        Operation::StreamStepDown(name) => answer(leaders::stream(context, name)),
        Operation::ConsumerStepDown(stream, name) => {
            answer(leaders::consumer(context, stream, name))
        }
        Operation::ConsumerCreate(subject) => answer(consumers::create(context, subject)),
        Operation::ConsumerInfo(stream, name) => answer(consumers::info(context, stream, name)),
        Operation::ConsumerDelete(stream, name) => answer(consumers::delete(context, stream, name)),
        Operation::ConsumerNames(stream) => answer(consumers::names(context, stream)),
        Operation::ConsumerList(stream) => answer(consumers::list(context, stream)),
        Operation::ConsumerPause(stream, name) => answer(consumers::pause(context, stream, name)),
        Operation::ConsumerReset(stream, name) => Answer {
            outcome: Outcome::Unreported,
            ..answer(consumers::reset(context, stream, name))
        },
        Operation::ConsumerUnpin(stream, name) => answer(consumers::unpin(context, stream, name)),
    }
}

/// A reply of the wrong kind is a fault of ours that must not take the server down.
pub(crate) fn unexpected(reply: StreamReply) -> ApiError {
    match reply {
        StreamReply::Refused(error) => error,
        other => {
            debug_assert!(false, "unexpected reply {other:?}");
            ErrorCode::StreamGeneral.with("unexpected reply")
        }
    }
}

fn at_most(offset: i64, total: usize) -> usize {
    usize::try_from(offset).unwrap_or(0).min(total)
}
