//! Commands on their way to the meta group: decided upon what is applied and what was proposed before, and proposed in that order.
//!
//! # Invariant
//! Everything that this server proposes to the meta group goes through here, so that a decision sees all that was decided before it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use raft::group::Role;

use super::super::meta::request::Decision;
use super::super::meta::{Ahead, Change, Command, Meta, Ticket};
use super::super::types::{ApiError, ErrorCode};
use super::meta_machine::{MetaMachine, ProposeError, UnderWay};

/// How long a command may take to be committed.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(4);

/// Proposes to the meta group, on its leader.
pub(super) struct Proposer {
    machine: Arc<MetaMachine>,
    runtime: tokio::runtime::Handle,
    foresight: Mutex<Foresight>,
}

/// What is foreseen, by the leader of one term.
struct Foresight {
    term: u64,
    ahead: Ahead,
}

/// A command between its proposal and its outcome.
struct InFlight<'a> {
    proposer: &'a Proposer,
    term: u64,
    ticket: Ticket,
    committed: bool,
    under_way: Option<UnderWay>,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut foresight = self.proposer.foresight.lock();
        if foresight.term == self.term {
            let applied = self.proposer.machine.meta();
            foresight.ahead.ended(self.ticket, self.committed, &applied);
        }
    }
}

impl Proposer {
    pub fn new(machine: Arc<MetaMachine>, runtime: tokio::runtime::Handle) -> Arc<Self> {
        Arc::new(Self {
            machine,
            runtime,
            foresight: Mutex::new(Foresight {
                term: 0,
                ahead: Ahead::default(),
            }),
        })
    }

    /// Decides about a request, proposes what was decided, and says what became of it. Waits.
    pub fn decide(
        &self,
        decide: impl FnOnce(&Meta) -> Result<Decision, ApiError>,
    ) -> Result<(Decision, Vec<Change>), ApiError> {
        let (decision, in_flight) = {
            let mut foresight = self.foresight.lock();
            let term = self.enter(&mut foresight).map_err(refusal)?;
            let (decision, ticket) = foresight.ahead.decide(decide)?;
            let in_flight = match (&decision, ticket) {
                (Decision::Propose(command), Some(ticket)) => {
                    Some(self.send(term, ticket, command))
                }
                _ => None,
            };
            (decision, in_flight)
        };
        let changes = match in_flight {
            Some(in_flight) => self
                .runtime
                .block_on(self.outcome(in_flight))
                .map_err(refusal)?,
            None => Vec::new(),
        };
        let refused = changes.iter().find_map(|change| match change {
            Change::Refused(refusal) => Some(*refusal),
            _ => None,
        });
        match refused {
            Some(refusal) => Err(refusal.into()),
            None => Ok((decision, changes)),
        }
    }

    /// Proposes a command, and says what it changed.
    pub async fn propose(&self, command: &Command) -> Result<Vec<Change>, ProposeError> {
        let in_flight = {
            let mut foresight = self.foresight.lock();
            let term = self.enter(&mut foresight)?;
            let ticket = foresight.ahead.foresee(command);
            self.send(term, ticket, command)
        };
        self.outcome(in_flight).await
    }

    /// The term in which this server leads, with a foresight that belongs to it.
    fn enter(&self, foresight: &mut Foresight) -> Result<u64, ProposeError> {
        let Role::Leader { term } = *self.machine.roles().borrow() else {
            return Err(ProposeError::NotLeader);
        };
        if foresight.term != term || foresight.ahead.in_flight() == 0 {
            foresight.term = term;
            foresight.ahead = Ahead::of(&self.machine.meta());
        }
        Ok(term)
    }

    /// Called with the foresight locked, so that the order of decisions is that of proposals.
    fn send(&self, term: u64, ticket: Ticket, command: &Command) -> InFlight<'_> {
        InFlight {
            proposer: self,
            term,
            ticket,
            committed: false,
            under_way: self.machine.begin_proposal(command, COMMIT_TIMEOUT),
        }
    }

    async fn outcome(&self, mut in_flight: InFlight<'_>) -> Result<Vec<Change>, ProposeError> {
        let under_way = in_flight.under_way.take();
        let under_way = under_way.ok_or(ProposeError::NotLeader)?;
        let outcome = self.machine.outcome(under_way).await;
        in_flight.committed = outcome.is_ok();
        outcome
    }
}

fn refusal(error: ProposeError) -> ApiError {
    match error {
        ProposeError::NotLeader => ErrorCode::ClusterNotLeader.into(),
        ProposeError::Unknown => ErrorCode::ClusterNotAvail.into(),
    }
}
