//! Replicated groups: what the rest of the server sees of Raft.
//!
//! - `members`: who is in a group, and where in its log that holds.
//! - `machine`: what a group demands of the state machine that it drives.
//! - `spec`: what a replica is started with.
//! - `outcome`: what became of a proposal or another request.
//! - `status`: how a replica sees its group.
//! - `options`: times, limits, and the way out to other servers.

mod machine;
mod members;
mod options;
mod outcome;
mod spec;
mod status;

pub use machine::{
    Applied, Content, MANIFEST_BYTES_MAX, Machine, MachineFailed, Manifest, ManifestWork, Member,
    Role, Work,
};
pub use members::{Checkpoint, Members, Position};
pub use options::{BadTiming, Channel, GroupsOptions, Limits, Outbound, Timing};
pub use outcome::{ChangeError, Outcome, ReadError, TransferError};
pub use spec::{Begin, GroupNumber, GroupSpec, StartError};
pub use status::{FollowerStatus, Status};
