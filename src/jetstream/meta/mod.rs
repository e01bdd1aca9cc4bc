//! The meta layer: which servers, streams and consumers there are, on which servers they live, and what follows from that.
//!
//! Reading order:
//! - `peer`: servers; `assignment`: streams, their groups and consumers.
//! - `command`: what can be asked of the state; `change`: what became of it.
//! - `state` and `apply`: the state, and how commands change it; `course`: how a group goes from one set of members to another.
//! - `placement`: which servers a stream is put on; `plan`: how a group's leader brings it to its members, step by step.
//! - `reconcile`: what a server has to do so that it runs what is assigned to it.
//! - `request`: what the leader answers requests: a command to propose, or an error; `ahead`: the state that it decides upon; `tiers`: what accounts use beside what they may use.
//! - `shown`: groups as clients and monitoring see them.
//! - `codec`: commands and the state as bytes.
//!
//! # Invariant
//! A pure state machine: it reads no clock, draws no randomness, does no I/O and knows no broker. The same commands in the same order lead to the same state on
//! every server. Nothing is deleted on an inference: a server may delete a replica only when the state names it as released.

mod ahead;
mod apply;
mod assignment;
mod change;
mod codec;
mod command;
mod course;
pub(crate) mod fuzz;
mod peer;
mod placement;
mod plan;
mod reconcile;
pub mod request;
mod shown;
mod state;
#[cfg(test)]
mod tests;
mod tiers;

pub use ahead::{Ahead, Ticket};
pub use apply::ORPHANS_MAX;
pub use assignment::{
    ChangeKind, ConsumerAssignment, Form, Group, Orphan, Released, Stored, StreamAssignment,
    StreamRef,
};
pub use change::{Change, Refusal};
pub use codec::{COMMAND_BYTES_MAX, DecodeError};
pub use command::{Command, NewMembers};
pub use peer::{Peer, PeerProfile, Sighting, Sightings, is_online};
pub use placement::{NoPlace, PlacementRules, Wish, place};
pub use plan::{Step, View, is_led, plan, plan_meta};
pub use reconcile::{Action, Condition, Held, Holdings, Past, Start, reconcile};
pub use shown::{Follower, Leadership};
pub use state::{Meta, Streams};
pub use tiers::Usage;
