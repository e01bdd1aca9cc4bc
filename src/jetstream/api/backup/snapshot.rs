//! A stream as an archive, for a client.

use std::sync::Arc;

use storage::store::State;

use super::FollowUp;
use super::chunks::{Chunks, Pace};
use super::told;
use super::under_way::Claim;
use crate::jetstream::api::body::StreamSnapshotRequest;
use crate::jetstream::api::elsewhere::AskingClient;
use crate::jetstream::api::handler::{Context, unexpected};
use crate::jetstream::api::now;
use crate::jetstream::api::response::StreamSnapshot;
use crate::jetstream::archive::{ArchiveWriter, StreamMeta, WriteError};
use crate::jetstream::core::{StreamOutline, StreamReply, StreamRequest};
use crate::jetstream::registry::Stream;
use crate::jetstream::types::{
    ApiError, ErrorCode, Storage, StreamState, Time, decode, is_empty_request,
};
use crate::subject;

/// Bytes of messages that a stream is asked for at one time.
const SLICE_BYTES: usize = 512 << 10;

/// Why the archive is not complete.
enum Broken {
    /// The client does not take it.
    Write(WriteError),
    /// The stream does not give it.
    Stream(String),
}

impl From<WriteError> for Broken {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

/// Looks whether a backup can be made; it begins when the answer is out.
pub(crate) fn snapshot(
    context: &Context<'_>,
    name: &str,
) -> Result<(StreamSnapshot, Option<FollowUp>), ApiError> {
    context.check_level()?;
    if is_empty_request(context.body) {
        return Err(ErrorCode::BadRequest.into());
    }
    let stream = context.account.find(name)?;
    let request: StreamSnapshotRequest = decode(context.body, context.server.strictness)?;
    if !subject::is_valid_literal(&request.deliver_subject) {
        return Err(ErrorCode::SnapshotDeliverSubjectInvalid.into());
    }
    if stream.config().storage == Storage::Memory {
        // The reference's words: what is in memory only cannot be backed up.
        return Err(ErrorCode::StreamSnapshot.with("no impl"));
    }
    let backups = &context.server.backups;
    let claim = backups
        .claim(&context.account.name, name)
        .map_err(|refused| ErrorCode::StreamSnapshot.with(refused))?;
    let outline = match stream.ask(StreamRequest::Outline) {
        StreamReply::Outline(outline) => *outline,
        other => return Err(unexpected(other)),
    };
    // A backup that lacks something must not pass for a whole one, whether the client asked for a check or not.
    if outline.state.lost > 0 {
        let bad = format!(
            "snapshot check detected {} bad messages",
            outline.state.lost
        );
        return Err(ErrorCode::StreamSnapshot.with(&bad));
    }
    let answer = StreamSnapshot {
        config: Some(outline.config.clone()),
        state: Some(outline.shown.clone()),
    };
    let begin: FollowUp = Box::new(move |answered| {
        claim.run("js-snapshot", move |claim| {
            let asker = answered.client.as_deref();
            run(claim, &stream, &outline, &request, asker);
        });
    });
    Ok((answer, Some(begin)))
}

fn run(
    claim: &Claim,
    stream: &Arc<Stream>,
    outline: &StreamOutline,
    request: &StreamSnapshotRequest,
    asker: Option<&AskingClient>,
) {
    let title = claim.title();
    tracing::info!("Starting snapshot for stream '{title}'");
    let start = now();
    let shown: &StreamState = &outline.shown;
    told::snapshot_begun(claim, asker, shown);
    let pace = Pace::new(request.chunk_size, request.window_size);
    let mut chunks = Chunks::new(claim, &request.deliver_subject, pace);
    chunks.await_interest();
    let written = write(&mut chunks, stream, outline, !request.no_consumers);
    claim.free();
    let status = match (written, chunks.unheard()) {
        (Ok(()), _) => {
            chunks.end();
            told::snapshot_ended(claim, asker, start);
            tracing::info!(
                "Completed snapshot of {} bytes for stream '{title}'",
                shown.bytes
            );
            return;
        }
        (_, Some(unheard)) => unheard.to_string(),
        (Err(Broken::Write(error)), None) => format!("500 {error}"),
        (Err(Broken::Stream(error)), None) => format!("500 {error}"),
    };
    tracing::warn!("Snapshot of stream '{title}' failed: {status}");
    chunks.break_off(&status);
}

fn write(
    chunks: &mut Chunks<'_>,
    stream: &Stream,
    outline: &StreamOutline,
    with_consumers: bool,
) -> Result<(), Broken> {
    let meta = StreamMeta {
        created: Time::from_nanoseconds(outline.created_ns),
        config: outline.config.clone(),
    };
    let state: &State = &outline.state;
    let mut archive = ArchiveWriter::begin(chunks, &meta, now().nanoseconds())?;
    let mut next = state.first_sequence;
    while next <= state.last_sequence && state.messages > 0 {
        let request = StreamRequest::Messages {
            from: next,
            upto: state.last_sequence,
            bytes_max: SLICE_BYTES,
        };
        let (messages, covered) = match stream.ask(request) {
            StreamReply::Messages { messages, covered } => (messages, covered),
            StreamReply::Refused(error) => {
                return Err(Broken::Stream(error.description.into_owned()));
            }
            other => return Err(Broken::Stream(unexpected(other).description.into_owned())),
        };
        for message in &messages {
            archive.message(message)?;
        }
        next = covered.max(next) + 1;
    }
    archive.end_messages(state.last_sequence, state.last_time_ns)?;
    if with_consumers {
        archive.consumers(&outline.consumers)?;
    }
    archive.finish()?;
    Ok(())
}
