//! What a group demands of the state machine that it drives.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use super::members::{Checkpoint, Members, Position};
use crate::types::NodeId;

/// Work that a state machine does elsewhere; the group waits for it without holding a thread.
pub type Work<'a> = Pin<Box<dyn Future<Output = Result<(), MachineFailed>> + Send + 'a>>;

/// The same, with a manifest as its result.
pub type ManifestWork<'a> =
    Pin<Box<dyn Future<Output = Result<Manifest, MachineFailed>> + Send + 'a>>;

/// A committed entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its place in the log.
    pub at: Position,
    /// What it holds.
    pub content: Content,
}

/// What a committed entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing: a leader's first entry, or a barrier. It takes an index all the same.
    Blank,
    /// What was proposed.
    Command(Bytes),
    /// The members from here on.
    Members(Members),
}

/// Why a state machine cannot go on. Its replica stops.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the state machine failed: {0}")]
pub struct MachineFailed(pub String);

/// A member of a group, and the server it lives on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id in the group.
    pub node: NodeId,
    /// The name of its server.
    pub server: String,
}

/// What a replica is to its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It leads, and all that was committed in earlier terms is applied.
    Leader {
        /// The term that it leads in.
        term: u64,
    },
    /// Someone else leads.
    Follower {
        /// Who.
        leader: Member,
    },
    /// Nobody is known to lead; or this replica did, and has not heard of a majority for so long that another may. It is told that it leads when that was not so after all.
    Leaderless,
    /// The replica takes no part any more: its log, its journal or its state machine failed.
    Stopped {
        /// What happened.
        reason: String,
    },
}

/// What a replica that lags too far needs to become equal: a description, from which its state machine fetches the data by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Where the state stands that it describes.
    pub checkpoint: Checkpoint,
    /// The description, opaque here. At most [`MANIFEST_BYTES_MAX`].
    pub content: Bytes,
}

/// The longest manifest: it travels in one frame.
pub const MANIFEST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A replicated state machine. All methods are called on the runtime of the groups: they hand on and do not block.
pub trait Machine: Send + Sync + 'static {
    /// Takes committed entries, in order and without a gap. The next batch comes when the future is ready: that is how a state machine holds back. After a
    /// start, entries after the checkpoint come again; an index that is applied already is to be passed over.
    ///
    /// A proposal is answered as committed when the future of its batch is ready.
    fn apply(&self, batch: Vec<Applied>) -> Work<'_>;

    /// The replica's role changed. Told in order with [`Machine::apply`]: a leader's role comes after the blank entry of its term was taken.
    fn role(&self, role: Role);

    /// Describes the state as it is, or as a checkpoint holds it that is not older than the last one reported as released. Asked of a leader when a
    /// replica lacks entries that are purged.
    fn manifest(&self) -> ManifestWork<'_>;

    /// Makes the state the one that the manifest describes, by whatever has to be fetched from the server `from`; ready when that is durable. What
    /// was there before may be kept as far as it is the same. Entries may come by [`Machine::apply`] meanwhile: those that the manifest covers are
    /// passed over.
    fn install(&self, manifest: Manifest, from: &str) -> Work<'_>;
}
