//! Replication: what makes the JetStream of several servers one.
//!
//! - `cluster`: this server's part in it: what is started, in which order, and ended; `rounds`: what goes on all the while.
//! - `founding`: who the first members of the meta group are, decided once; pure.
//! - `assembly`: servers coming together, until all belong to one meta group.
//! - `host`: this server's replica of the meta group; `identity`: who it is there, as it is kept.
//! - `meta_machine`: the meta layer's state, driven by its group and carried in the journal.
//! - `follower`: makes this server hold what that state says; `currency`: when that state is the one that holds.
//! - `removal`: servers that the state does not know any more leave the meta group.
//! - `repairs`: replicas here that are of no use any more, until others have taken their places.
//! - `replicated`: the streams with several replicas that this server has a replica of.
//! - `members`: brings the groups that this server leads to the members that they are to have; `led`: those groups, and what is known of the cluster.
//! - `proposer`: commands on their way to the meta group, in one order; `reports`: what servers tell its leader.
//! - `maker`: makes, changes and removes streams of a cluster.
//! - `restores`: streams out of backups; `landed`: those that are durable here and not in the state yet; `naming`: how they come to be in it.
//! - `router`: which server answers an API request, and how it gets there; `carry`: requests and answers on that way, as bytes; `gather`: answers that
//!   no server has alone.
//! - `view`: what this server knows of who leads what; `leaders`: the groups' leaders in it.
//! - `steward`: has other servers lead what this one leads, and carries out what else requests about the cluster ask for.
//! - `departure`: has others lead what this server leads, before it goes.
//! - `room`: has others lead what this server leads while its disk is full.
//! - `shown`: groups as clients and monitoring see them.
//! - `advisories`: elections and lost majorities, told to those who listen.
//! - `ask`: a stream elsewhere, reached as one that is here.
//! - `kinds`: what servers ask each other.
//! - `stream`: a stream on several servers.

mod advisories;
mod ask;
mod assembly;
mod carry;
mod cluster;
mod currency;
mod departure;
mod follower;
mod founding;
mod gather;
mod host;
mod identity;
mod kinds;
mod landed;
mod leaders;
mod led;
mod maker;
mod members;
mod meta_machine;
mod naming;
mod proposer;
mod removal;
mod repairs;
mod replicated;
mod reports;
mod restores;
mod room;
mod rounds;
mod router;
mod shown;
mod steward;
pub(crate) mod stream;
mod view;

pub use cluster::ClusterSetup;
pub(crate) use cluster::{Cluster, Parts};

#[cfg(test)]
mod tests;
