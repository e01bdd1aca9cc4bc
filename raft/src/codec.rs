//! A group's votes and entries as bytes, for the journal.
//!
//! All integers are little-endian.
//!
//! ```text
//! log id      term u64 | index u64
//! vote        version u8 (1) | term u64 | voted for u64 | committed u8 (0, 1)
//! entry       version u8 (1) | term u64 | kind u8 | body     (the index is the journal frame's own)
//!   blank       kind 0, no body
//!   command     kind 1, body is the command, to the end
//!   membership  kind 2, u8 number of voter sets | each: u16 count | node ids u64
//!                       u16 number of nodes | each: id u64 | u16 length | server name, UTF-8
//! mark        version u8 (1) | present u8 (0, 1) | log id when present
//! ```
//!
//! # Invariant
//! Decoding believes no count or length before the bytes for it are there, and takes no bytes beyond the end.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::types::{
    Command, CommittedLeaderId, Entry, LeaderId, LogId, Membership, NodeId, Payload, Peer, Vote,
};

const VERSION: u8 = 1;
const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("{what} is cut short")]
    Short {
        /// The value that was read.
        what: &'static str,
    },
    /// Bytes are left after the value.
    #[error("{what} has {bytes} bytes too many")]
    Long {
        /// The value that was read.
        what: &'static str,
        /// How many are left.
        bytes: usize,
    },
    /// A version written by a later release.
    #[error("{what} has version {version}, this release reads up to {VERSION}")]
    Version {
        /// The value that was read.
        what: &'static str,
        /// The version found.
        version: u8,
    },
    /// A field has a value that it cannot have.
    #[error("{what} cannot be {value}")]
    Value {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// The members contradict each other.
    #[error("membership: {0}")]
    Membership(String),
}

/// Reads from a slice, never past its end.
pub(crate) struct Reader<'a> {
    pub(crate) bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { bytes, what }
    }

    pub(crate) fn versioned(bytes: &'a [u8], what: &'static str) -> Result<Self, DecodeError> {
        let mut reader = Self::new(bytes, what);
        match reader.u8()? {
            VERSION => Ok(reader),
            version => Err(DecodeError::Version { what, version }),
        }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.bytes
            .try_get_u8()
            .map_err(|_| DecodeError::Short { what: self.what })
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.bytes
            .try_get_u16_le()
            .map_err(|_| DecodeError::Short { what: self.what })
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.bytes
            .try_get_u32_le()
            .map_err(|_| DecodeError::Short { what: self.what })
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.bytes
            .try_get_u64_le()
            .map_err(|_| DecodeError::Short { what: self.what })
    }

    pub(crate) fn flag(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError::Value {
                what,
                value: value.into(),
            }),
        }
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(length)
            .ok_or(DecodeError::Short { what: self.what })?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(crate) fn log_id(&mut self) -> Result<LogId, DecodeError> {
        let term = self.u64()?;
        let index = self.u64()?;
        Ok(log_id(term, index))
    }

    pub(crate) fn end(self) -> Result<(), DecodeError> {
        match self.bytes.len() {
            0 => Ok(()),
            bytes => Err(DecodeError::Long {
                what: self.what,
                bytes,
            }),
        }
    }
}

/// The log id of an entry that the leader of `term` wrote at `index`.
pub fn log_id(term: u64, index: u64) -> LogId {
    LogId {
        leader_id: CommittedLeaderId::new(term),
        index,
    }
}

pub(crate) fn put_log_id(out: &mut BytesMut, id: &LogId) {
    out.put_u64_le(id.leader_id.term);
    out.put_u64_le(id.index);
}

/// Writes a vote.
pub fn encode_vote(vote: &Vote) -> Bytes {
    let mut out = BytesMut::with_capacity(18);
    out.put_u8(VERSION);
    out.put_u64_le(vote.leader_id.term);
    out.put_u64_le(vote.leader_id.voted_for);
    out.put_u8(vote.committed.into());
    out.freeze()
}

/// Reads a vote.
pub fn decode_vote(bytes: &[u8]) -> Result<Vote, DecodeError> {
    let mut reader = Reader::versioned(bytes, "vote")?;
    let term = reader.u64()?;
    let voted_for = reader.u64()?;
    let committed = reader.flag("committed flag of a vote")?;
    reader.end()?;
    Ok(Vote {
        leader_id: LeaderId { term, voted_for },
        committed,
    })
}

/// Writes a mark in the log: the last purged or the last committed log id.
pub fn encode_mark(mark: Option<&LogId>) -> Bytes {
    let mut out = BytesMut::with_capacity(18);
    out.put_u8(VERSION);
    out.put_u8(mark.is_some().into());
    if let Some(id) = mark {
        put_log_id(&mut out, id);
    }
    out.freeze()
}

/// Reads a mark.
pub fn decode_mark(bytes: &[u8]) -> Result<Option<LogId>, DecodeError> {
    let mut reader = Reader::versioned(bytes, "log mark")?;
    let mark = match reader.flag("presence flag of a log mark")? {
        true => Some(reader.log_id()?),
        false => None,
    };
    reader.end()?;
    Ok(mark)
}

/// Bytes of an entry before its body.
pub(crate) const ENTRY_HEAD_BYTES: usize = 10;

/// How many bytes an entry is written as.
pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        Payload::Blank => ENTRY_HEAD_BYTES,
        Payload::Normal(command) => ENTRY_HEAD_BYTES + command.0.len(),
        Payload::Membership(_) => entry_parts(entry).0.len(),
    }
}

/// Writes an entry, without its index.
pub fn encode_entry(entry: &Entry) -> Bytes {
    let (head, body) = entry_parts(entry);
    match body {
        None => head,
        Some(body) => {
            let mut out = BytesMut::with_capacity(head.len() + body.len());
            out.put_slice(&head);
            out.put_slice(&body);
            out.freeze()
        }
    }
}

/// The same in two parts, of which the second shares the memory of the command.
pub(crate) fn entry_parts(entry: &Entry) -> (Bytes, Option<Bytes>) {
    let mut head = BytesMut::with_capacity(ENTRY_HEAD_BYTES);
    head.put_u8(VERSION);
    head.put_u64_le(entry.log_id.leader_id.term);
    match &entry.payload {
        Payload::Blank => head.put_u8(BLANK),
        Payload::Normal(command) => {
            head.put_u8(COMMAND);
            return (head.freeze(), Some(command.0.clone()));
        }
        Payload::Membership(membership) => {
            head.put_u8(MEMBERSHIP);
            put_membership(&mut head, membership);
        }
    }
    (head.freeze(), None)
}

/// Reads the entry at `index`. A command shares the memory of `bytes`.
pub fn decode_entry(index: u64, bytes: &Bytes) -> Result<Entry, DecodeError> {
    let mut reader = Reader::versioned(bytes, "entry")?;
    let term = reader.u64()?;
    let payload = match reader.u8()? {
        BLANK => {
            reader.end()?;
            Payload::Blank
        }
        COMMAND => Payload::Normal(Command(bytes.slice_ref(reader.bytes))),
        MEMBERSHIP => Payload::Membership(membership(reader)?),
        kind => {
            return Err(DecodeError::Value {
                what: "kind of an entry",
                value: kind.into(),
            });
        }
    };
    Ok(Entry {
        log_id: log_id(term, index),
        payload,
    })
}

pub(crate) fn put_membership(out: &mut BytesMut, membership: &Membership) {
    let voters: Vec<&BTreeSet<NodeId>> = membership.get_joint_config().iter().collect();
    let nodes = membership.nodes();
    let nodes = nodes.map(|(id, peer)| (*id, peer.server.clone()));
    put_members(out, &voters, &nodes.collect());
}

pub(crate) fn put_members(
    out: &mut BytesMut,
    voters: &[&BTreeSet<NodeId>],
    servers: &BTreeMap<NodeId, String>,
) {
    out.put_u8(voters.len() as u8);
    for set in voters {
        out.put_u16_le(set.len() as u16);
        for id in *set {
            out.put_u64_le(*id);
        }
    }
    out.put_u16_le(servers.len() as u16);
    for (id, server) in servers {
        out.put_u64_le(*id);
        out.put_u16_le(server.len() as u16);
        out.put_slice(server.as_bytes());
    }
}

pub(crate) fn membership(mut reader: Reader<'_>) -> Result<Membership, DecodeError> {
    let mut configs = Vec::new();
    for _ in 0..reader.u8()? {
        let mut voters = BTreeSet::new();
        for _ in 0..reader.u16()? {
            voters.insert(reader.u64()?);
        }
        configs.push(voters);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..reader.u16()? {
        let id = reader.u64()?;
        let length = reader.u16()?;
        let server = std::str::from_utf8(reader.take(length.into())?)
            .map_err(|error| DecodeError::Membership(error.to_string()))?;
        nodes.insert(
            id,
            Peer {
                server: server.to_owned(),
            },
        );
    }
    reader.end()?;
    Membership::new(configs, nodes).map_err(|error| DecodeError::Membership(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn membership_of(ids: &[u64], learners: &[u64]) -> Membership {
        let nodes = ids
            .iter()
            .chain(learners)
            .map(|id| {
                let server = format!("server-{id}");
                (*id, Peer { server })
            })
            .collect::<BTreeMap<_, _>>();
        Membership::new(vec![ids.iter().copied().collect()], nodes).unwrap()
    }

    #[test]
    fn every_kind_of_entry_comes_back_as_it_was() {
        for payload in [
            Payload::Blank,
            Payload::Normal(Command(Bytes::from_static(b"append"))),
            Payload::Normal(Command(Bytes::new())),
            Payload::Membership(membership_of(&[1, 2, 3], &[4])),
        ] {
            let entry = Entry {
                log_id: log_id(7, 42),
                payload,
            };
            let decoded = decode_entry(42, &encode_entry(&entry)).unwrap();
            assert_eq!(decoded.log_id, entry.log_id);
            assert_eq!(decoded.payload, entry.payload);
        }
    }

    #[test]
    fn votes_and_marks_come_back_as_they_were() {
        for committed in [false, true] {
            let vote = Vote {
                leader_id: LeaderId {
                    term: u64::MAX,
                    voted_for: 9,
                },
                committed,
            };
            assert_eq!(decode_vote(&encode_vote(&vote)), Ok(vote));
        }
        for mark in [None, Some(log_id(3, 5))] {
            assert_eq!(decode_mark(&encode_mark(mark.as_ref())), Ok(mark));
        }
    }

    #[test]
    fn the_documented_bytes_are_the_bytes_written() {
        let entry = Entry {
            log_id: log_id(0x0102, 9),
            payload: Payload::Membership(membership_of(&[5], &[])),
        };
        let mut expected = vec![1, 2, 1, 0, 0, 0, 0, 0, 0, 2];
        expected.extend([1, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 8, 0]);
        expected.extend(b"server-5");
        assert_eq!(encode_entry(&entry), expected);
    }

    #[test]
    fn a_later_version_is_refused_by_name() {
        let bytes = Bytes::from_static(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            decode_entry(1, &bytes),
            Err(DecodeError::Version {
                what: "entry",
                version: 2
            })
        );
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = decode_entry(1, &bytes);
            let _ = decode_vote(&bytes);
            let _ = decode_mark(&bytes);
        }

        #[test]
        fn a_changed_membership_entry_never_panics(at in 0usize..60, value: u8) {
            let entry = Entry { log_id: log_id(1, 1), payload: Payload::Membership(membership_of(&[1, 2, 3], &[4])) };
            let mut bytes = encode_entry(&entry).to_vec();
            if let Some(byte) = bytes.get_mut(at) { *byte = value; }
            let _ = decode_entry(1, &Bytes::from(bytes));
        }
    }
}
