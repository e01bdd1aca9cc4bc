//! The stream core: a stream with all its consumers as one deterministic state machine.
//!
//! Events go in and become entries ([`StreamCore::handle`], [`StreamCore::take_entries`]); entries that are durable change the
//! state ([`StreamCore::committed`], [`StreamCore::replay`]); what the world gets to see comes out as [`Effects`].
//!
//! With one replica the log is the stream's own, and what is submitted is what becomes durable. With several, anything may be committed:
//! [`StreamCore::take_committed`] applies it on leader and follower alike, and tells the leader by its content which of its own it was.
//!
//! # Invariant
//! Nothing here reads a clock, does I/O, starts a thread or knows the broker. Time, events and the store are handed in. Durable
//! state changes only when an entry is applied; what a leader knows beyond that (pull requests, redelivery queues, flow
//! control) is rebuilt from durable state when it starts to lead.

mod ack;
mod ack_names;
mod batch_quota;
pub(in crate::jetstream) mod codec;
mod consumer;
mod decimal;
mod dedupe;
mod digest;
mod draft;
mod duration;
mod effects;
pub(crate) mod entry;
mod fast_reply;
mod headers;
mod pull;
mod request;
mod schedule;
pub(crate) mod sources;
mod status;
mod stream;
mod terms;
#[cfg(test)]
mod tests;
mod transfer;

pub use ack::{AckKind, AckSubject};
pub use ack_names::{AckForm, AckNames};
pub use batch_quota::{BatchKind, BatchLimits, BatchPlace, BatchQuota};
pub use codec::DecodeError;
pub use consumer::{Pending, Place, Progress};
pub use digest::{Divergence, Mark, Recollection};
pub use effects::{Advisory, ConsumerChange, Effects, World};
pub use pull::PullRequest;
pub use request::{
    ConsumerAction, ConsumerCreate, DirectQuery, InfoQuery, MessageQuery, Outgoing, Publish,
    PurgeQuery, StreamReply, StreamRequest,
};
#[cfg(test)]
pub(crate) use stream::museum;
pub use stream::{
    ApplyError, ArrivalError, ArrivedConsumer, BeginError, Event, LogPlace, ReceiveError,
    Receiving, ReceivingNeeds, RecoverError, Retirement, SNAPSHOT_VERSION, Salvaged, Step,
    StreamCore, StreamOutline, Unsupported, VolatileConsumers, limits,
};
pub use terms::StreamTerms;
pub use transfer::Manifest;
