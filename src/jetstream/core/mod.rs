//! The stream core: a stream with all its consumers as one deterministic state machine.
//!
//! # Invariant
//! Nothing here reads a clock, does I/O, starts a thread or knows the broker. Time, events and the store are handed in. Durable
//! state changes only when an entry is applied; what a leader knows beyond that (pull requests, redelivery queues, flow
//! control) is rebuilt from durable state when it starts to lead.

mod request;

pub use request::{
    ConsumerAction, ConsumerCreate, DirectQuery, InfoQuery, MessageQuery, Outgoing, Publish,
    PurgeQuery, StreamReply, StreamRequest,
};
