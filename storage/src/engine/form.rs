//! What a stream's log consists of.

/// Which replica of which group a stream is. Numbers are given by whoever replicates; to the engine they are opaque.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Replica {
    /// The number of its group.
    pub group: u64,
    /// Its id in the group, never used there by another replica, nor by one that lost its log.
    pub node: u64,
}

impl Replica {
    /// Of a stream whose entry in the catalog was lost to damage while its log shows that it is replicated: it must not go on under any id that it had.
    pub const UNKNOWN: Self = Self { group: 0, node: 0 };
}

/// What a stream's log consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// Entries that the stream's owner submits, one index after another.
    #[default]
    Plain,
    /// A group's votes, entries and marks. The index of an entry is its index in the group.
    Replicated(Replica),
}

impl Form {
    /// The replica, if it is one.
    pub fn replica(self) -> Option<Replica> {
        match self {
            Self::Plain => None,
            Self::Replicated(replica) => Some(replica),
        }
    }

    /// Whether the log is a group's.
    pub fn is_replicated(self) -> bool {
        self.replica().is_some()
    }
}
