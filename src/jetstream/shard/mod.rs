//! Shards: the threads on which streams live.
//!
//! - `inbox`: what a shard is handed from outside, and how it is woken.
//! - `port`: how the rest of the server reaches one stream.
//! - `slot`: a stream on its shard, with everything around its core.
//! - `worker`: the thread's loop.
//! - `shards`: all of them; `faults`: those that are offline.
//! - `engine_log`: the storage engine as the log of file streams.
//! - `backend`: making, bringing back and removing streams; `giving`: those that leave and come back in another form; `aside`: those that are kept and never run.
//! - `copying`: what a stream's slot does for its mirror or its sources.
//! - `replica`: what a stream's slot does beyond that as one of several replicas.
//! - `replica_port`: how others reach a replica.
//! - `replicated_log`: the stream's group as its log.
//! - `by_hand`: a shard that tests drive themselves, without a thread.
//! - `remembered`: what of a memory stream outlives the process.
//!
//! A shard takes everything that has come since it last looked, lets the cores decide, submits one entry per stream to the
//! log, applies what has become durable, and hands all messages that follow to the broker in one batch per stream.
//!
//! # Invariant
//! Nothing here decides what happens to a stream; that is its core's. Nobody holds a lock while a core works.

mod aside;
mod backend;
#[cfg(test)]
mod by_hand;
mod copying;
mod engine_log;
mod faults;
mod giving;
mod inbox;
mod port;
mod remembered;
#[allow(dead_code, reason = "the controller of a cluster starts replicas")]
mod replica;
#[allow(dead_code, reason = "the controller of a cluster starts replicas")]
mod replica_port;
#[allow(dead_code, reason = "the controller of a cluster starts replicas")]
mod replicated_log;
#[cfg(test)]
mod replicated_log_tests;
mod shards;
mod slot;
#[cfg(test)]
mod tests;
mod worker;

pub(crate) use aside::Aside;
pub(crate) use backend::{OpenedStreams, Streams};
#[cfg(test)]
pub(crate) use by_hand::HandShard;
#[cfg(test)]
pub(crate) use engine_log::EngineLog;
pub(crate) use giving::GivenUp;
pub use inbox::WaitingMax;
#[cfg(test)]
pub(crate) use port::Port;
pub(crate) use replica::ReplicaSetup;
#[cfg(test)]
pub(crate) use replica::ReplicaStatus;
pub(crate) use replica_port::{ReplicaGone, ReplicaPort};
pub(crate) use replicated_log::Proposer;
pub(crate) use shards::Shards;
pub(crate) use slot::Surrendered;
