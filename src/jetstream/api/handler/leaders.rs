//! Requests that another replica should lead, and others about the cluster itself.
//!
//! A consumer lives in its stream's group, so that whoever leads the stream leads it too.

use std::sync::Arc;

use super::super::super::registry::{AccountStreams, Stream};
use super::super::super::types::{
    ApiError, ErrorCode, StreamConfig, StreamInfo, Strictness, header_exceeds_level,
};
use super::super::administration::Administration;
use super::super::elsewhere::AskingClient;
use super::super::response::{ConsumerSteppedDown, PeerRemoved, StreamSteppedDown};
use super::consumers::lookup;
use super::{Answer, Context, Outcome, Server};

/// Carries out on this server's groups what requests about the cluster ask for. What is said to happen on the leader of the meta group waits until it has happened, or
/// gives up after a while.
pub(crate) trait Steward: Send + Sync {
    /// Makes a stream, or finds that it is there as it is wanted; on the leader of the meta group. `name` is that of the request's subject.
    fn create_stream(
        &self,
        account: &AccountStreams,
        name: &str,
        config: StreamConfig,
        pedantic: bool,
    ) -> Result<Arc<Stream>, ApiError>;
    /// Makes a stream different, and has it go where it is to be then; on the leader of the meta group.
    fn update_stream(
        &self,
        account: &AccountStreams,
        name: &str,
        config: StreamConfig,
        pedantic: bool,
    ) -> Result<StreamInfo, ApiError>;
    /// Removes a stream; on the leader of the meta group.
    fn delete_stream(&self, account: &AccountStreams, name: &str) -> Result<(), ApiError>;
    /// Takes a replica of a stream off a server for good; `body` is the request, which says which. On the leader of the meta group.
    fn remove_replica(
        &self,
        account: &AccountStreams,
        name: &str,
        body: &[u8],
        strictness: Strictness,
    ) -> Result<(), ApiError>;
    /// Lets another replica of a stream lead that this server leads; `body` is the request, which may say which.
    fn hand_stream_over(
        &self,
        account: &str,
        stream: &str,
        body: &[u8],
        strictness: Strictness,
    ) -> Result<(), ApiError>;
    /// Has another server wait for a stream's archive, and says on which subject it does; `None` when it is this one that is to. On the leader of the meta group.
    fn restore_elsewhere(
        &self,
        account: &AccountStreams,
        config: &StreamConfig,
        client: Option<&AskingClient>,
    ) -> Result<Option<String>, ApiError>;
    /// Does what a request about the cluster itself asks for; `body` is the request. On the leader of the meta group. With the stream that moves, if one does.
    fn administer(
        &self,
        asked: Administration<'_>,
        body: &[u8],
        strictness: Strictness,
    ) -> Result<Option<Box<StreamInfo>>, ApiError>;
}

/// Does what a request about the cluster itself asks for.
pub(crate) fn administer(
    server: &Server,
    asked: Administration<'_>,
    required_level: &[u8],
    body: &[u8],
) -> Answer {
    let result = match &server.steward {
        Some(_) if header_exceeds_level(required_level) => Err(ErrorCode::RequiredApiLevel.into()),
        Some(steward) => steward.administer(asked, body, server.strictness),
        None => Err(ErrorCode::ClusterRequired.into()),
    };
    answer_administration(asked, result)
}

/// The answer to a request about the cluster itself.
pub(crate) fn answer_administration(
    asked: Administration<'_>,
    result: Result<Option<Box<StreamInfo>>, ApiError>,
) -> Answer {
    let outcome = match &result {
        Ok(_) => Outcome::Answered,
        Err(_) => Outcome::Refused,
    };
    Answer {
        payload: asked.reply(result),
        outcome,
    }
}

pub(super) fn stream(context: &Context<'_>, name: &str) -> Result<StreamSteppedDown, ApiError> {
    let steward = steward(context)?;
    context.account.find(name)?;
    context.check_level()?;
    hand_over(context, steward, name)?;
    Ok(StreamSteppedDown { success: true })
}

pub(super) fn consumer(
    context: &Context<'_>,
    stream: &str,
    name: &str,
) -> Result<ConsumerSteppedDown, ApiError> {
    let steward = steward(context)?;
    let found = context.account.find(stream)?;
    context.check_level()?;
    lookup(&found, name)?.ok_or(ErrorCode::ConsumerNotFound)?;
    hand_over(context, steward, stream)?;
    Ok(ConsumerSteppedDown { success: true })
}

pub(super) fn remove_replica(context: &Context<'_>, name: &str) -> Result<PeerRemoved, ApiError> {
    let steward = steward(context)?;
    context.check_level()?;
    let (account, strictness) = (context.account, context.server.strictness);
    steward.remove_replica(account, name, context.body, strictness)?;
    Ok(PeerRemoved { success: true })
}

fn steward<'a>(context: &Context<'a>) -> Result<&'a Arc<dyn Steward>, ApiError> {
    let steward = context.server.steward.as_ref();
    steward.ok_or_else(|| ErrorCode::ClusterRequired.into())
}

fn hand_over(
    context: &Context<'_>,
    steward: &Arc<dyn Steward>,
    stream: &str,
) -> Result<(), ApiError> {
    let (account, strictness) = (&context.account.name, context.server.strictness);
    steward.hand_stream_over(account, stream, context.body, strictness)
}
