//! Shards: the threads on which streams live.
//!
//! - `inbox`: what a shard is handed from outside, and how it is woken.
//! - `light`: which work is so little that who brings it may do it.
//! - `port`: how the rest of the server reaches one stream.
//! - `slot`: a stream on its shard, with everything around its core; `account_room`: whether its account has room for one more message.
//! - `worker`: what is done in a round; `bench`: where it is done, by the shard's thread or by who brought the work.
//! - `shards`: all of them; `faults`: those that are offline.
//! - `engine_log`: the storage engine as the log of file streams.
//! - `backend`: all of a server's streams; `making`: what the API has made, changed and removed of them; `revival`: bringing them back at a start; `giving`: those that leave and come back in another form; `aside`: those that are kept and never run; `parked`: those of
//!   accounts without JetStream.
//! - `copying`: what a stream's slot does for its mirror or its sources.
//! - `replica`: what a stream's slot does beyond that as one of several replicas; `resting`: those of accounts without JetStream; `handover`: whole
//!   states that are given and taken.
//! - `soundness`: whether what a replica holds can be relied upon.
//! - `replica_port`: how others reach a replica.
//! - `replicated_log`: the stream's group as its log.
//! - `by_hand`: a shard that tests drive themselves, without a thread.
//! - `remembered`: what of a memory stream outlives the process.
//!
//! A shard takes everything that has come since it last looked, lets the cores decide, submits one entry per stream to the
//! log, applies what has become durable, and hands all messages that follow to the broker in one batch per stream.
//!
//! # Invariant
//! Nothing here decides what happens to a stream; that is its core's. Whoever lets a core work holds the shard's bench, and no other lock. A parked stream's core does no
//! work: snapshots of it are taken under the lock on what is parked.

mod account_room;
mod aside;
mod backend;
mod bench;
#[cfg(test)]
mod by_hand;
mod copying;
mod engine_log;
mod faults;
mod giving;
mod handover;
mod inbox;
mod light;
mod making;
mod parked;
mod port;
#[cfg(test)]
mod pressure_tests;
mod remembered;
mod replica;
mod replica_port;
mod replicated_log;
#[cfg(test)]
mod replicated_log_tests;
mod resting;
mod revival;
mod shards;
mod slot;
mod soundness;
#[cfg(test)]
mod tests;
mod worker;

pub(crate) use aside::{Aside, UNEXPLAINED};
pub(crate) use backend::{OpenedStreams, OutageListener, Streams};
#[cfg(test)]
pub(crate) use by_hand::HandShard;
#[cfg(test)]
pub(crate) use engine_log::EngineLog;
pub(crate) use faults::OutageCause;
pub(crate) use giving::GivenUp;
pub(crate) use handover::RECEIVING;
pub use inbox::WaitingMax;
#[cfg(test)]
pub(crate) use port::Port;
pub(crate) use replica::{ReplicaSetup, ReplicaStatus};
pub(crate) use replica_port::{Glance, ReplicaGone, ReplicaPort};
pub(crate) use replicated_log::Proposer;
pub(crate) use shards::Shards;
pub(crate) use slot::Surrendered;
