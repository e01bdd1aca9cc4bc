//! Requests that the leader of the meta group decides about: a command to propose, or what is wrong with the request.
//!
//! - `stream`: create, update and delete; `consumer`: the same.
//! - `moves`: streams that move, and those that are to stay after all.
//! - `servers`: servers that go, replicas that are taken off a server, and who leads next.
//!
//! # Invariant
//! A decision rests on the state as it will be when the command is applied: the leader looks ahead over what it has proposed already. Nothing is decided on what
//! another server says it holds.

pub mod consumer;
pub mod moves;
pub mod servers;
pub mod stream;

use super::assignment::{StreamAssignment, StreamRef};
use super::command::Command;
use super::peer::Sightings;
use super::placement::PlacementRules;
use super::state::Meta;
use crate::jetstream::api::validate::{Adjust, Rules};
use crate::jetstream::limits::{AccountLimits, AccountTiers, ServerLimits};
use crate::jetstream::types::{ApiError, ErrorCode, Storage, Time};

/// What a decision may rest on.
#[derive(Debug, Clone, Copy)]
pub struct Desk<'a> {
    /// The state, ahead by what was proposed.
    pub meta: &'a Meta,
    /// What is known of the servers.
    pub sightings: &'a Sightings,
    /// What the operator asks of every placement.
    pub placement: PlacementRules<'a>,
    /// The account that the request is about.
    pub account: &'a str,
    /// What this account may use.
    pub tiers: &'a AccountTiers,
    /// What the server allows each stream and consumer.
    pub server: &'a ServerLimits,
    /// The cluster that the request came from.
    pub cluster: &'a str,
    /// Other clusters, in the order in which they are tried when that one has no place.
    pub alternates: &'a [String],
    /// Now.
    pub now: Time,
    /// A number that was drawn for this request.
    pub seed: u64,
}

/// What a request comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// This is to be proposed, and the request is answered when it is applied.
    Propose(Command),
    /// All is as the request wants it: nothing is proposed.
    Already(StreamRef),
}

impl<'a> Desk<'a> {
    pub(crate) fn find(&self, name: &str) -> Result<&'a StreamAssignment, ApiError> {
        let stream = self.meta.stream(self.account, name);
        stream
            .map(|stream| &**stream)
            .ok_or_else(|| ErrorCode::StreamNotFound.into())
    }

    fn stream_ref(&self, name: &str, stream: &StreamAssignment) -> StreamRef {
        StreamRef {
            account: self.account.to_owned(),
            stream: name.to_owned(),
            group: stream.group.number,
        }
    }

    fn rules<'r>(&'r self, limits: &'r AccountLimits, pedantic: bool) -> Rules<'r> {
        Rules {
            server: self.server,
            account: limits,
            adjust: match pedantic {
                true => Adjust::Never,
                false => Adjust::Freely,
            },
        }
    }

    /// Whether none of the stream's servers can be reached.
    fn is_out_of_reach(&self, stream: &StreamAssignment) -> bool {
        let mut everyone = stream.group.everyone();
        !everyone.any(|member| super::peer::is_online(self.sightings, &member.server))
    }

    /// What a group with so many replicas is called: a name that no other one has, as good as certainly.
    fn group_name(&self, replicas: usize, storage: Storage) -> String {
        let kind = match storage {
            Storage::File => 'F',
            Storage::Memory => 'M',
        };
        let drawn = format!("{}-{}", self.seed, self.meta.applied());
        let unique = crate::jetstream::types::PeerId::of(&drawn);
        format!("S-R{replicas}{kind}-{unique}")
    }
}
