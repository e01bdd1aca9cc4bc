//! Replicated groups: what the rest of the server sees of Raft.
//!
//! What others see:
//! - `groups`: [`Groups`], all groups of a server.
//! - `handle`: [`Group`], one replica of one group.
//! - `machine`: what a group demands of the state machine that it drives.
//! - `members`: who is in a group, and where in its log that holds.
//! - `spec`: what a replica is started with.
//! - `outcome`: what became of a proposal or another request.
//! - `status`: how a replica sees its group.
//! - `options`: times, limits, and the way out to other servers.
//!
//! What is behind:
//! - `start`: from a specification to a running replica.
//! - `hub`: what all groups of a server share, and who looks after them.
//! - `replica`: one replica while it runs.
//! - `proposals`: proposals in order, answered exactly once.
//! - `roles`: what a replica is told to be, in order with what it applies.
//! - `liveness`, `campaign`, `quiet`: which servers live, who takes over, and what happens while nothing does.
//! - `change`: members come and go.
//! - `applier`, `network`: the state machine and the other replicas, as openraft sees them.
//! - `post`, `inbound`: messages of all groups gathered into frames, and taken out of them.
//!
//! # Invariant
//! Everything of openraft runs on the runtime that was given to [`Groups`]. A state machine is told that it leads only after it took all that was committed in
//! earlier terms. A proposal is answered once, whatever happens.

mod applier;
mod campaign;
mod change;
mod groups;
mod handle;
mod hub;
mod inbound;
mod liveness;
mod machine;
mod members;
mod network;
mod options;
mod outcome;
mod post;
mod proposals;
mod quiet;
mod replica;
mod roles;
mod spec;
mod start;
mod status;

pub use groups::{Groups, GroupsError};
pub use handle::Group;
pub use machine::{
    Applied, Content, MANIFEST_BYTES_MAX, Machine, MachineFailed, Manifest, ManifestWork, Member,
    Role, Work,
};
pub use members::{Checkpoint, Members, Position};
pub use options::{BadTiming, Channel, GroupsOptions, Limits, Outbound, Timing};
pub use outcome::{ChangeError, LogReadError, Outcome, ReadError, TransferError};
pub use spec::{Begin, GroupNumber, GroupSpec, StartError};
pub use status::{FollowerStatus, Status};
