//! The state as it will be when all that the leader proposed is applied.
//!
//! # Invariant
//! All commands of the group go through it, in the order in which they are proposed: then what it foresees is what happens. Should one not be committed, or come from
//! elsewhere, what was decided on top is checked again when it is applied and refused there; nothing wrong comes of it.

use std::collections::BTreeMap;

use super::command::Command;
use super::request::Decision;
use super::state::Meta;
use crate::jetstream::types::ApiError;

/// Names a command between its proposal and its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What a leader decides upon: what is applied, and on top of it what it has proposed.
#[derive(Debug, Clone, Default)]
pub struct Ahead {
    foreseen: Meta,
    in_flight: BTreeMap<Ticket, Command>,
    next: u64,
}

impl Ahead {
    /// Nothing is in flight; this is applied.
    pub fn of(applied: &Meta) -> Self {
        Self {
            foreseen: applied.clone(),
            in_flight: BTreeMap::new(),
            next: 0,
        }
    }

    /// The state as it will be.
    pub fn foreseen(&self) -> &Meta {
        &self.foreseen
    }

    /// How many commands are in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Decides about a request. What is to be proposed is foreseen from now on: it must be proposed before the next decision, and its outcome told.
    pub fn decide(
        &mut self,
        decide: impl FnOnce(&Meta) -> Result<Decision, ApiError>,
    ) -> Result<(Decision, Option<Ticket>), ApiError> {
        let decision = decide(&self.foreseen)?;
        let ticket = match &decision {
            Decision::Propose(command) => Some(self.foresee(command)),
            Decision::Already(_) => None,
        };
        Ok((decision, ticket))
    }

    /// A command that needs no decision is about to be proposed.
    pub fn foresee(&mut self, command: &Command) -> Ticket {
        self.foreseen.apply(self.foreseen.applied() + 1, command);
        let ticket = Ticket(self.next);
        self.next += 1;
        self.in_flight.insert(ticket, command.clone());
        ticket
    }

    /// A command was applied, or will not be as far as is known; `applied` is the state now.
    pub fn ended(&mut self, ticket: Ticket, committed: bool, applied: &Meta) {
        let known = self.in_flight.remove(&ticket).is_some();
        // With nothing in flight the state itself is what will be. A copy costs little: it shares what does not change.
        if self.in_flight.is_empty() || (known && !committed) {
            self.foreseen = applied.clone();
            for command in self.in_flight.values() {
                // One that is applied already changes nothing again: names are taken, revisions have moved on.
                self.foreseen.apply(self.foreseen.applied() + 1, command);
            }
        }
    }
}
