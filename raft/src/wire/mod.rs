//! What replicas say to each other, as bytes.
//!
//! A frame goes from one server to another and holds the messages of all their groups that were written between two flushes. All
//! integers are little-endian.
//!
//! ```text
//! frame      version u8 (1) | messages, to the end
//! message    length u32, of what follows | kind u8 | body
//!
//! liveness   kind 1: run u64, the number of this run of the sender
//!
//! of a group: kind | group u64 | from node u64 | to node u64 | request u64 | body
//!   vote       kind 2: vote | last log id? | transfer u8 (0, 1)
//!   pre-vote   kind 3: the same
//!   append     kind 4: vote | previous log id? | committed log id? | first index u64 | count u32 | each entry: length u32, bytes
//!   transfer   kind 5: vote of the leader | to node u64 | last log id?
//!   manifest   kind 6: vote | checkpoint: length u32, bytes | content, to the end
//!   quiet      kind 7: term u64 | index u64, at which the log ends everywhere. Request 0: it is not answered
//!   gone       kind 8, no body: the sender takes no part in the group any more. Request 0: it is not answered
//!
//!   answers, to the request of that number
//!   vote       kind 130, pre-vote kind 131: vote | granted u8 (0, 1) | last log id?
//!   append     kind 132: 0 = all taken; 1 = taken up to: log id?; 2 = conflict; 3 = higher vote: vote
//!   transfer   kind 133: 0 = taken; 1 = refused
//!   manifest   kind 134: vote
//!   refused    kind 255: reason u8: 1 = no such group, 2 = another node id, 3 = failed
//!
//! vote       term u64 | voted for u64 | committed u8 (0, 1)
//! log id     term u64 | index u64
//! x?         present u8 (0, 1) | x when present
//! ```
//!
//! An entry's bytes are those of the journal (see [`codec`](crate::codec)), the checkpoint's those of
//! [`Checkpoint::encode`](crate::group::Checkpoint::encode).
//!
//! # Invariant
//! Decoding believes no count or length before the bytes for it are there. A message that cannot be read costs that message and nothing else.

mod decode;
mod encode;
mod message;

pub(crate) use decode::{Messages, Received};
pub(crate) use encode::{begin_frame, put_liveness, put_message};
pub(crate) use message::{
    Append, AppendAnswer, Body, Envelope, ManifestOffer, RefusedReason, VoteAnswer, VoteCall,
};

/// The version of a frame.
const VERSION: u8 = 1;
/// Bytes of a message before its body: length, kind, group, from, to, request.
const HEAD_BYTES: usize = 4 + 1 + 4 * 8;
/// Kinds of messages.
const LIVENESS: u8 = 1;
const VOTE: u8 = 2;
const PRE_VOTE: u8 = 3;
const APPEND: u8 = 4;
const TRANSFER: u8 = 5;
const MANIFEST: u8 = 6;
const QUIET: u8 = 7;
const GONE: u8 = 8;
const VOTE_ANSWER: u8 = 130;
const PRE_VOTE_ANSWER: u8 = 131;
const APPEND_ANSWER: u8 = 132;
const TRANSFER_ANSWER: u8 = 133;
const MANIFEST_ANSWER: u8 = 134;
const REFUSED: u8 = 255;

#[cfg(test)]
mod tests;
