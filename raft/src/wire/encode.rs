//! Messages to bytes.

use bytes::{BufMut, BytesMut};

use super::message::{Append, AppendAnswer, Body, Envelope, RefusedReason, VoteAnswer, VoteCall};
use super::{
    APPEND, APPEND_ANSWER, GONE, HEAD_BYTES, LIVENESS, MANIFEST, MANIFEST_ANSWER, PRE_VOTE,
    PRE_VOTE_ANSWER, QUIET, REFUSED, TRANSFER, TRANSFER_ANSWER, VERSION, VOTE, VOTE_ANSWER,
};
use crate::codec::{entry_parts, put_log_id};
use crate::types::{LogId, Vote};

/// Begins a frame.
pub(crate) fn begin_frame(out: &mut BytesMut) {
    out.put_u8(VERSION);
}

/// Adds a sign of life.
pub(crate) fn put_liveness(out: &mut BytesMut, run: u64) {
    out.put_u32_le(1 + 8);
    out.put_u8(LIVENESS);
    out.put_u64_le(run);
}

/// Adds a message of a group.
pub(crate) fn put_message(out: &mut BytesMut, envelope: &Envelope, body: &Body) {
    let begin = out.len();
    out.reserve(HEAD_BYTES + 64);
    out.put_u32_le(0);
    out.put_u8(kind_of(body));
    out.put_u64_le(envelope.group.0);
    out.put_u64_le(envelope.from);
    out.put_u64_le(envelope.to);
    out.put_u64_le(envelope.request);
    put_body(out, body);
    // A message is bounded by the limits of appends and manifests, far below this.
    let length = (out.len() - begin - 4) as u32;
    if let Some(slot) = out.get_mut(begin..begin + 4) {
        slot.copy_from_slice(&length.to_le_bytes());
    }
}

fn kind_of(body: &Body) -> u8 {
    match body {
        Body::Vote(_) => VOTE,
        Body::PreVote(_) => PRE_VOTE,
        Body::Append(_) => APPEND,
        Body::Transfer { .. } => TRANSFER,
        Body::Manifest(_) => MANIFEST,
        Body::Quiet { .. } => QUIET,
        Body::Gone => GONE,
        Body::VoteAnswer(_) => VOTE_ANSWER,
        Body::PreVoteAnswer(_) => PRE_VOTE_ANSWER,
        Body::AppendAnswer(_) => APPEND_ANSWER,
        Body::TransferAnswer { .. } => TRANSFER_ANSWER,
        Body::ManifestAnswer(_) => MANIFEST_ANSWER,
        Body::Refused(_) => REFUSED,
    }
}

fn put_body(out: &mut BytesMut, body: &Body) {
    match body {
        Body::Vote(call) | Body::PreVote(call) => put_call(out, call),
        Body::Append(append) => put_append(out, append),
        Body::Transfer { leader, to, last } => {
            put_vote(out, leader);
            out.put_u64_le(*to);
            put_optional(out, last.as_ref());
        }
        Body::Manifest(offer) => {
            put_vote(out, &offer.vote);
            let checkpoint = offer.checkpoint.encode();
            out.put_u32_le(checkpoint.len() as u32);
            out.put_slice(&checkpoint);
            out.put_slice(&offer.content);
        }
        Body::Quiet { term, index } => {
            out.put_u64_le(*term);
            out.put_u64_le(*index);
        }
        Body::Gone => {}
        Body::VoteAnswer(answer) | Body::PreVoteAnswer(answer) => put_vote_answer(out, answer),
        Body::AppendAnswer(answer) => put_append_answer(out, answer),
        Body::TransferAnswer { taken } => out.put_u8((!taken).into()),
        Body::ManifestAnswer(vote) => put_vote(out, vote),
        Body::Refused(reason) => out.put_u8(match reason {
            RefusedReason::NoSuchGroup => 1,
            RefusedReason::OtherNode => 2,
            RefusedReason::Failed => 3,
        }),
    }
}

fn put_call(out: &mut BytesMut, call: &VoteCall) {
    put_vote(out, &call.vote);
    put_optional(out, call.last.as_ref());
    out.put_u8(call.transfer.into());
}

fn put_append(out: &mut BytesMut, append: &Append) {
    put_vote(out, &append.vote);
    put_optional(out, append.previous.as_ref());
    put_optional(out, append.committed.as_ref());
    let first = append.entries.first().map_or(0, |entry| entry.log_id.index);
    out.put_u64_le(first);
    out.put_u32_le(append.entries.len() as u32);
    for entry in &append.entries {
        let (head, body) = entry_parts(entry);
        let body = body.unwrap_or_default();
        out.put_u32_le((head.len() + body.len()) as u32);
        out.put_slice(&head);
        out.put_slice(&body);
    }
}

fn put_vote_answer(out: &mut BytesMut, answer: &VoteAnswer) {
    put_vote(out, &answer.vote);
    out.put_u8(answer.granted.into());
    put_optional(out, answer.last.as_ref());
}

fn put_append_answer(out: &mut BytesMut, answer: &AppendAnswer) {
    match answer {
        AppendAnswer::All => out.put_u8(0),
        AppendAnswer::UpTo(last) => {
            out.put_u8(1);
            put_optional(out, last.as_ref());
        }
        AppendAnswer::Conflict => out.put_u8(2),
        AppendAnswer::HigherVote(vote) => {
            out.put_u8(3);
            put_vote(out, vote);
        }
    }
}

fn put_vote(out: &mut BytesMut, vote: &Vote) {
    out.put_u64_le(vote.leader_id.term);
    out.put_u64_le(vote.leader_id.voted_for);
    out.put_u8(vote.committed.into());
}

fn put_optional(out: &mut BytesMut, id: Option<&LogId>) {
    out.put_u8(id.is_some().into());
    if let Some(id) = id {
        put_log_id(out, id);
    }
}
