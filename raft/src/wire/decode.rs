//! Bytes to messages.

use bytes::{Buf, Bytes};

use super::message::{
    Append, AppendAnswer, Body, Envelope, ManifestOffer, RefusedReason, VoteAnswer, VoteCall,
};
use super::{
    APPEND, APPEND_ANSWER, GONE, LIVENESS, MANIFEST, MANIFEST_ANSWER, PRE_VOTE, PRE_VOTE_ANSWER,
    QUIET, REFUSED, TRANSFER, TRANSFER_ANSWER, VERSION, VOTE, VOTE_ANSWER,
};
use crate::codec::{DecodeError, Reader, decode_entry};
use crate::group::{Checkpoint, GroupNumber};
use crate::types::{Entry, LeaderId, LogId, Payload, Vote};

/// A command that is less than this part of the frame it came in is copied out of it, so that a few bytes in a log do not keep a whole frame.
const SHARE_OF_FRAME_MIN: usize = 4;

/// One message out of a frame.
#[derive(Debug, Clone)]
pub(crate) enum Received {
    Liveness { run: u64 },
    OfGroup(Envelope, Body),
}

/// The messages of a frame, in order. A message that cannot be read is an error in its place; after a damaged length there is nothing more.
pub(crate) struct Messages {
    rest: Bytes,
    frame_bytes: usize,
    begun: bool,
}

impl Messages {
    pub fn of(frame: Bytes) -> Self {
        Self {
            frame_bytes: frame.len(),
            rest: frame,
            begun: false,
        }
    }

    fn begin(&mut self) -> Result<(), DecodeError> {
        let what = "frame of groups";
        let version = self.rest.try_get_u8();
        match version.map_err(|_| DecodeError::Short { what })? {
            VERSION => Ok(()),
            version => Err(DecodeError::Version { what, version }),
        }
    }

    fn cut(&mut self) -> Result<Bytes, DecodeError> {
        let what = "message of a group";
        let length = self.rest.try_get_u32_le();
        let length = length.map_err(|_| DecodeError::Short { what })? as usize;
        if length > self.rest.len() {
            return Err(DecodeError::Short { what });
        }
        Ok(self.rest.split_to(length))
    }
}

impl Iterator for Messages {
    type Item = Result<Received, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.begun {
            self.begun = true;
            if let Err(error) = self.begin() {
                self.rest.clear();
                return Some(Err(error));
            }
        }
        if self.rest.is_empty() {
            return None;
        }
        match self.cut() {
            Ok(message) => Some(decode(&message, self.frame_bytes)),
            Err(error) => {
                self.rest.clear();
                Some(Err(error))
            }
        }
    }
}

fn decode(message: &Bytes, frame_bytes: usize) -> Result<Received, DecodeError> {
    let mut reader = Reader::new(message, "message of a group");
    let kind = reader.u8()?;
    if kind == LIVENESS {
        let run = reader.u64()?;
        reader.end()?;
        return Ok(Received::Liveness { run });
    }
    let envelope = Envelope {
        group: GroupNumber(reader.u64()?),
        from: reader.u64()?,
        to: reader.u64()?,
        request: reader.u64()?,
    };
    let body = match kind {
        VOTE => Body::Vote(call(reader)?),
        PRE_VOTE => Body::PreVote(call(reader)?),
        APPEND => Body::Append(append(reader, message, frame_bytes)?),
        TRANSFER => transfer(reader)?,
        MANIFEST => Body::Manifest(manifest(reader, message)?),
        QUIET => quiet(reader)?,
        GONE => reader.end().map(|()| Body::Gone)?,
        VOTE_ANSWER => Body::VoteAnswer(vote_answer(reader)?),
        PRE_VOTE_ANSWER => Body::PreVoteAnswer(vote_answer(reader)?),
        APPEND_ANSWER => Body::AppendAnswer(append_answer(reader)?),
        TRANSFER_ANSWER => transfer_answer(reader)?,
        MANIFEST_ANSWER => Body::ManifestAnswer(ended(vote, reader)?),
        REFUSED => Body::Refused(refused(reader)?),
        kind => {
            return Err(DecodeError::Value {
                what: "kind of a message",
                value: kind.into(),
            });
        }
    };
    Ok(Received::OfGroup(envelope, body))
}

/// Reads one value, which must be the last.
fn ended<T>(
    read: impl Fn(&mut Reader<'_>) -> Result<T, DecodeError>,
    mut reader: Reader<'_>,
) -> Result<T, DecodeError> {
    let value = read(&mut reader)?;
    reader.end()?;
    Ok(value)
}

fn vote(reader: &mut Reader<'_>) -> Result<Vote, DecodeError> {
    let term = reader.u64()?;
    let voted_for = reader.u64()?;
    let committed = reader.flag("committed flag of a vote")?;
    Ok(Vote {
        leader_id: LeaderId { term, voted_for },
        committed,
    })
}

fn optional(reader: &mut Reader<'_>) -> Result<Option<LogId>, DecodeError> {
    match reader.flag("presence flag of a log id")? {
        true => reader.log_id().map(Some),
        false => Ok(None),
    }
}

fn call(mut reader: Reader<'_>) -> Result<VoteCall, DecodeError> {
    let call = VoteCall {
        vote: vote(&mut reader)?,
        last: optional(&mut reader)?,
        transfer: reader.flag("transfer flag of a vote")?,
    };
    reader.end()?;
    Ok(call)
}

fn append(
    mut reader: Reader<'_>,
    message: &Bytes,
    frame_bytes: usize,
) -> Result<Append, DecodeError> {
    let vote = vote(&mut reader)?;
    let previous = optional(&mut reader)?;
    let committed = optional(&mut reader)?;
    let first = reader.u64()?;
    let count = reader.u32()?;
    let mut entries = Vec::new();
    for at in 0..u64::from(count) {
        let length = reader.u32()? as usize;
        let bytes = message.slice_ref(reader.take(length)?);
        let index = first.checked_add(at).ok_or(DecodeError::Value {
            what: "index of an entry",
            value: first,
        })?;
        let entry = decode_entry(index, &bytes)?;
        entries.push(own_small(entry, frame_bytes));
    }
    reader.end()?;
    Ok(Append {
        vote,
        previous,
        committed,
        entries,
    })
}

/// Copies a command that would keep far more in memory than it is long.
fn own_small(mut entry: Entry, frame_bytes: usize) -> Entry {
    if let Payload::Normal(command) = &mut entry.payload
        && command.0.len() < frame_bytes / SHARE_OF_FRAME_MIN
    {
        command.0 = Bytes::copy_from_slice(&command.0);
    }
    entry
}

fn transfer(mut reader: Reader<'_>) -> Result<Body, DecodeError> {
    let body = Body::Transfer {
        leader: vote(&mut reader)?,
        to: reader.u64()?,
        last: optional(&mut reader)?,
    };
    reader.end()?;
    Ok(body)
}

fn manifest(mut reader: Reader<'_>, message: &Bytes) -> Result<ManifestOffer, DecodeError> {
    let vote = vote(&mut reader)?;
    let length = reader.u32()? as usize;
    let checkpoint = Checkpoint::decode(reader.take(length)?)?;
    Ok(ManifestOffer {
        vote,
        checkpoint,
        content: message.slice_ref(reader.bytes),
    })
}

fn quiet(mut reader: Reader<'_>) -> Result<Body, DecodeError> {
    let term = reader.u64()?;
    let index = reader.u64()?;
    reader.end()?;
    Ok(Body::Quiet { term, index })
}

fn vote_answer(mut reader: Reader<'_>) -> Result<VoteAnswer, DecodeError> {
    let answer = VoteAnswer {
        vote: vote(&mut reader)?,
        granted: reader.flag("granted flag of a vote")?,
        last: optional(&mut reader)?,
    };
    reader.end()?;
    Ok(answer)
}

fn append_answer(mut reader: Reader<'_>) -> Result<AppendAnswer, DecodeError> {
    let answer = match reader.u8()? {
        0 => AppendAnswer::All,
        1 => AppendAnswer::UpTo(optional(&mut reader)?),
        2 => AppendAnswer::Conflict,
        3 => AppendAnswer::HigherVote(vote(&mut reader)?),
        value => {
            return Err(DecodeError::Value {
                what: "answer to an append",
                value: value.into(),
            });
        }
    };
    reader.end()?;
    Ok(answer)
}

fn transfer_answer(mut reader: Reader<'_>) -> Result<Body, DecodeError> {
    let taken = !reader.flag("answer to a transfer")?;
    reader.end()?;
    Ok(Body::TransferAnswer { taken })
}

fn refused(mut reader: Reader<'_>) -> Result<RefusedReason, DecodeError> {
    let reason = match reader.u8()? {
        1 => RefusedReason::NoSuchGroup,
        2 => RefusedReason::OtherNode,
        3 => RefusedReason::Failed,
        value => {
            return Err(DecodeError::Value {
                what: "reason of a refusal",
                value: value.into(),
            });
        }
    };
    reader.end()?;
    Ok(reason)
}
