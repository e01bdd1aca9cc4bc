//! Messages: read one, remove one, remove many.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use storage::store::Message;

use super::super::super::core::{MessageQuery, PurgeQuery, StreamReply, StreamRequest};
use super::super::super::types::{
    ApiError, ErrorCode, StoredMessage, Time, decode, decode_optional, is_empty_request,
};
use super::super::body::{MessageDeleteRequest, MessageGetRequest, StreamPurgeRequest};
use super::super::response::{MessageDeleted, MessageShown, StreamPurged};
use super::{Answer, Context, Outcome, answer, unexpected};

pub(super) fn get(context: &Context<'_>, name: &str) -> Answer {
    let mut answer = answer(read(context, name));
    if answer.outcome == Outcome::Answered {
        answer.outcome = Outcome::Unreported;
    }
    answer
}

fn read(context: &Context<'_>, name: &str) -> Result<MessageShown, ApiError> {
    context.check_level()?;
    if is_empty_request(context.body) {
        return Err(ErrorCode::BadRequest.into());
    }
    let request: MessageGetRequest = decode(context.body, context.server.strictness)?;
    let no_headers = request.no_hdr;
    let query = query(request).ok_or(ErrorCode::BadRequest)?;
    let stream = context.account.find(name)?;
    match stream.ask(StreamRequest::Get(query)) {
        StreamReply::Message(message) => Ok(MessageShown {
            message: Some(show(&message, no_headers)),
        }),
        other => Err(unexpected(other)),
    }
}

/// Which message is meant; `None` when the request contradicts itself or says nothing.
fn query(request: MessageGetRequest) -> Option<MessageQuery> {
    if request.batch > 0 || request.max_bytes > 0 {
        return None;
    }
    match request {
        MessageGetRequest {
            seq,
            last_by_subj,
            next_by_subj,
            start_time: None,
            ..
        } if !last_by_subj.is_empty() => (seq == 0 && next_by_subj.is_empty())
            .then_some(MessageQuery::LastBySubject(last_by_subj)),
        MessageGetRequest {
            seq: 0,
            last_by_subj,
            next_by_subj,
            start_time: Some(start),
            ..
        } => last_by_subj.is_empty().then_some(MessageQuery::AtTime {
            time_ns: start.nanoseconds(),
            subject: next_by_subj,
        }),
        MessageGetRequest {
            start_time: Some(_),
            ..
        } => None,
        MessageGetRequest {
            seq, next_by_subj, ..
        } if !next_by_subj.is_empty() => Some(MessageQuery::NextBySubject {
            sequence: seq,
            subject: next_by_subj,
        }),
        MessageGetRequest { seq: 0, .. } => None,
        MessageGetRequest { seq, .. } => Some(MessageQuery::Sequence(seq)),
    }
}

fn show(message: &Message, no_headers: bool) -> StoredMessage {
    StoredMessage {
        subject: String::from_utf8_lossy(&message.subject).into_owned(),
        seq: message.sequence,
        hdrs: if no_headers {
            String::new()
        } else {
            BASE64.encode(&message.headers)
        },
        data: BASE64.encode(&message.payload),
        time: Time::from_nanoseconds(message.time_ns),
    }
}

/// What went wrong after the stream was asked counts as answered, as in the reference.
pub(super) fn delete(context: &Context<'_>, name: &str) -> Answer {
    let request = match deletion(context, name) {
        Ok(request) => request,
        Err(error) => return answer::<MessageDeleted>(Err(error)),
    };
    let result = match request.0.ask(request.1) {
        StreamReply::Done => Ok(MessageDeleted { success: true }),
        other => Err(unexpected(other)),
    };
    let mut answer = answer(result);
    answer.outcome = Outcome::Answered;
    answer
}

type Addressed = (
    std::sync::Arc<super::super::super::registry::Stream>,
    StreamRequest,
);

fn deletion(context: &Context<'_>, name: &str) -> Result<Addressed, ApiError> {
    context.check_level()?;
    if is_empty_request(context.body) {
        return Err(ErrorCode::BadRequest.into());
    }
    let request: MessageDeleteRequest = decode(context.body, context.server.strictness)?;
    let stream = context.account.find(name)?;
    let config = stream.config();
    if config.sealed {
        return Err(ErrorCode::StreamSealed.into());
    }
    if config.deny_delete {
        return Err(ErrorCode::StreamMsgDeleteFailed.with("message delete not permitted"));
    }
    let request = StreamRequest::Delete {
        sequence: request.seq,
        erase: !request.no_erase,
    };
    Ok((stream, request))
}

pub(super) fn purge(context: &Context<'_>, name: &str) -> Result<StreamPurged, ApiError> {
    context.check_level()?;
    let request: StreamPurgeRequest = decode_optional(context.body, context.server.strictness)?;
    if request.seq > 0 && request.keep > 0 {
        return Err(ErrorCode::BadRequest.into());
    }
    let stream = context.account.find(name)?;
    let config = stream.config();
    if config.sealed {
        return Err(ErrorCode::StreamSealed.into());
    }
    if config.deny_purge {
        return Err(ErrorCode::StreamPurgeFailed.with("stream purge not permitted"));
    }
    let query = PurgeQuery {
        filter: request.filter,
        below_sequence: request.seq,
        keep: request.keep,
    };
    match stream.ask(StreamRequest::Purge(query)) {
        StreamReply::Purged(purged) => Ok(StreamPurged {
            success: true,
            purged,
        }),
        other => Err(unexpected(other)),
    }
}
