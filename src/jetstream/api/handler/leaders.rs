//! Requests that another replica should lead, and others about the cluster itself.
//!
//! A consumer lives in its stream's group, so that whoever leads the stream leads it too.

use std::sync::Arc;

use super::super::super::types::{ApiError, ErrorCode, Strictness, header_exceeds_level};
use super::super::administration::Administration;
use super::super::response::{ConsumerSteppedDown, StreamSteppedDown};
use super::consumers::lookup;
use super::{Answer, Context, Outcome, Server};

/// Carries out on this server's groups what requests about the cluster ask for.
pub(crate) trait Steward: Send + Sync {
    /// Lets another replica of a stream lead that this server leads; `body` is the request, which may say which.
    fn hand_stream_over(
        &self,
        account: &str,
        stream: &str,
        body: &[u8],
        strictness: Strictness,
    ) -> Result<(), ApiError>;
    /// Does what a request about the cluster itself asks for; `body` is the request. On the leader of the meta group.
    fn administer(
        &self,
        asked: Administration<'_>,
        body: &[u8],
        strictness: Strictness,
    ) -> Result<(), ApiError>;
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
    result: Result<(), ApiError>,
) -> Answer {
    let outcome = match &result {
        Ok(()) => Outcome::Answered,
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
