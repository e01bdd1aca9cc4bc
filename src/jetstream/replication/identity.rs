//! Who this server is in the meta group, kept in the journal.
//!
//! ```text
//! version u8 (1) | owner u8 | node u64 | founding u64 | founders: u16 count, each: u16 length and bytes of the server's name
//! ```
//!
//! The owner is the one in whose name the group's log lies in the journal. A joiner has no founders. All numbers are little-endian.

use std::collections::BTreeSet;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::types::NodeId;

const VERSION: u8 = 1;

/// Who this server is in the meta group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// Whose frames the group's log is in the journal. A server that lost its log begins another one under another owner.
    pub owner: u8,
    /// Its id in the group.
    pub node: NodeId,
    /// Which founding the group comes from.
    pub founding: u64,
    /// The first members, when it is one of them.
    pub founders: BTreeSet<String>,
}

/// Bytes that are no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this server's identity in the meta group cannot be read")]
pub(super) struct MalformedIdentity;

impl Identity {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        out.put_u8(VERSION);
        out.put_u8(self.owner);
        out.put_u64_le(self.node);
        out.put_u64_le(self.founding);
        // A sound proposal has some dozens of founders, with names that a link takes.
        out.put_u16_le(u16::try_from(self.founders.len()).unwrap_or(u16::MAX));
        for server in self.founders.iter().take(usize::from(u16::MAX)) {
            out.put_u16_le(u16::try_from(server.len()).unwrap_or(u16::MAX));
            out.put_slice(server.as_bytes());
        }
        out.freeze()
    }

    /// Reads what [`Identity::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedIdentity> {
        Self::read(bytes).ok_or(MalformedIdentity)
    }

    fn read(mut bytes: &[u8]) -> Option<Self> {
        if bytes.try_get_u8().ok()? != VERSION {
            return None;
        }
        let owner = bytes.try_get_u8().ok()?;
        let node = bytes.try_get_u64_le().ok()?;
        let founding = bytes.try_get_u64_le().ok()?;
        let count = bytes.try_get_u16_le().ok()?;
        let mut founders = BTreeSet::new();
        for _ in 0..count {
            let length = usize::from(bytes.try_get_u16_le().ok()?);
            let (name, rest) = bytes.split_at_checked(length)?;
            founders.insert(String::from_utf8(name.to_vec()).ok()?);
            bytes = rest;
        }
        bytes.is_empty().then_some(Self {
            owner,
            node,
            founding,
            founders,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_comes_back_as_it_was_and_nothing_else_is_one() {
        let founders = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        for founders in [founders, BTreeSet::new()] {
            let identity = Identity {
                owner: 2,
                node: 3,
                founding: 7,
                founders,
            };
            let bytes = identity.encode();
            assert_eq!(Identity::decode(&bytes), Ok(identity));
            for cut in 0..bytes.len() {
                assert_eq!(Identity::decode(&bytes[..cut]), Err(MalformedIdentity));
            }
        }
        assert_eq!(Identity::decode(b"\x02"), Err(MalformedIdentity));
    }
}
