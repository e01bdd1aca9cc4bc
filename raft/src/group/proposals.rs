//! Proposals of one replica on their way: in the order they were made, answered exactly once.
//!
//! Raft refuses proposals while a leader cannot be sure of its majority: right after an election, and after a silence. Such a refusal is no answer
//! to give. So after a silence one proposal goes ahead alone, and is tried again until it is taken; the others follow when it is committed. As
//! long as commits keep coming, proposals go straight through. Nothing is tried again with later ones in flight: that would change the order.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::machine::Member;
use super::outcome::Outcome;

/// Hears what became of a proposal.
pub(super) type Hear = Box<dyn FnOnce(Outcome) + Send>;

/// The proposals of a replica.
pub(super) struct Proposals {
    state: Mutex<State>,
    /// After a commit, proposals are taken to be welcome for this long.
    trust: Duration,
    held_max: usize,
}

#[derive(Default)]
struct State {
    /// Not handed to Raft yet.
    waiting: VecDeque<Proposal>,
    /// Handed to Raft, by ticket.
    in_flight: BTreeMap<u64, InFlight>,
    last_ticket: u64,
    /// The one that went ahead alone.
    scout: Option<u64>,
    trusted_until: Option<Instant>,
    /// A task is handing over.
    pumping: bool,
    /// Nothing is handed over for now.
    held: bool,
    /// No deadline passes before this.
    next_deadline: Option<Instant>,
}

struct Proposal {
    command: Bytes,
    deadline: Instant,
    hear: Hear,
}

struct InFlight {
    proposal: Proposal,
    sent: Instant,
}

/// What Raft said of a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Done(Outcome),
    /// The leader is not sure of its majority.
    NotYet,
}

/// What is to be done after a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    /// There is something to hand over: start a pump.
    Pump,
    /// The same, a little later.
    PumpLater,
}

impl Proposals {
    pub fn new(trust: Duration, held_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            trust,
            held_max,
        }
    }

    /// Takes a proposal; says whether a pump has to be started.
    pub fn add(&self, command: Bytes, deadline: Instant, hear: Hear) -> Next {
        let mut state = self.state.lock();
        if state.waiting.len() >= self.held_max {
            drop(state);
            hear(Outcome::Refused { leader: None });
            return Next::Nothing;
        }
        let next = state
            .next_deadline
            .map_or(deadline, |next| next.min(deadline));
        state.next_deadline = Some(next);
        state.waiting.push_back(Proposal {
            command,
            deadline,
            hear,
        });
        state.begin_pump()
    }

    /// How many were not handed to Raft yet.
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// The next to hand over. `None` ends the pump.
    pub fn next(&self, now: Instant) -> Option<(u64, Bytes)> {
        let mut state = self.state.lock();
        let trusted = state.trusted_until.is_some_and(|until| now < until);
        let alone = state.in_flight.is_empty();
        if state.held || state.scout.is_some() || !(trusted || alone) {
            state.pumping = false;
            return None;
        }
        let Some(proposal) = state.waiting.pop_front() else {
            state.pumping = false;
            return None;
        };
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        let command = proposal.command.clone();
        let sent = now;
        state.in_flight.insert(ticket, InFlight { proposal, sent });
        if !trusted {
            state.scout = Some(ticket);
        }
        Some((ticket, command))
    }

    /// Raft's verdict on the proposal with that ticket. `myself` is named to whoever may propose again at once.
    pub fn verdict(&self, ticket: u64, verdict: Verdict, myself: &Member) -> Next {
        let mut state = self.state.lock();
        let Some(found) = state.in_flight.remove(&ticket) else {
            // Answered already: its time was up, or leadership was lost.
            return state.begin_pump();
        };
        let scouted = state.scout == Some(ticket);
        if scouted {
            state.scout = None;
        }
        let outcome = match verdict {
            Verdict::NotYet if scouted => {
                state.waiting.push_front(found.proposal);
                return Next::PumpLater;
            }
            Verdict::NotYet => {
                state.trusted_until = None;
                let leader = Some(myself.clone());
                Outcome::Refused { leader }
            }
            Verdict::Done(outcome) => outcome,
        };
        if matches!(outcome, Outcome::Committed(_)) {
            state.trusted_until = Some(found.sent + self.trust);
        }
        let next = state.begin_pump();
        drop(state);
        (found.proposal.hear)(outcome);
        next
    }

    /// Starts what [`Next::PumpLater`] put off.
    pub fn resume(&self) -> Next {
        self.state.lock().begin_pump()
    }

    /// Leadership is lost: what is in flight may be committed by another leader, or never.
    pub fn lost(&self) -> Next {
        let mut state = self.state.lock();
        let in_flight = std::mem::take(&mut state.in_flight);
        state.scout = None;
        state.trusted_until = None;
        let next = state.begin_pump();
        drop(state);
        for (_, found) in in_flight {
            (found.proposal.hear)(Outcome::Unknown);
        }
        next
    }

    /// Answers all: the replica takes no part any more.
    pub fn end(&self) {
        self.lost();
        let waiting = std::mem::take(&mut self.state.lock().waiting);
        for proposal in waiting {
            (proposal.hear)(Outcome::Refused { leader: None });
        }
    }

    /// Answers those whose time is up.
    pub fn expire(&self, now: Instant) -> Next {
        let mut late = Vec::new();
        let mut state = self.state.lock();
        if state.next_deadline.is_none_or(|next| now < next) {
            return Next::Nothing;
        }
        let tickets: Vec<u64> = state
            .in_flight
            .iter()
            .filter(|(_, found)| found.proposal.deadline <= now)
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in tickets {
            if state.scout == Some(ticket) {
                state.scout = None;
            }
            let found = state.in_flight.remove(&ticket);
            late.extend(found.map(|found| (found.proposal, Outcome::Unknown)));
        }
        let waiting = std::mem::take(&mut state.waiting);
        for proposal in waiting {
            match proposal.deadline <= now {
                true => late.push((proposal, Outcome::Refused { leader: None })),
                false => state.waiting.push_back(proposal),
            }
        }
        state.next_deadline = state.earliest_deadline();
        let next = state.begin_pump();
        drop(state);
        for (proposal, outcome) in late {
            (proposal.hear)(outcome);
        }
        next
    }

    /// Hands nothing over until it is let go.
    pub fn hold(&self) {
        self.state.lock().held = true;
    }

    /// Lets go what is held.
    pub fn let_go(&self) -> Next {
        let mut state = self.state.lock();
        state.held = false;
        state.begin_pump()
    }

    /// Whether nothing is in flight.
    pub fn is_drained(&self) -> bool {
        self.state.lock().in_flight.is_empty()
    }

    /// Whether there is nothing at all.
    pub fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.in_flight.is_empty() && state.waiting.is_empty()
    }
}

impl State {
    fn begin_pump(&mut self) -> Next {
        if self.pumping || self.held || self.scout.is_some() || self.waiting.is_empty() {
            return Next::Nothing;
        }
        self.pumping = true;
        Next::Pump
    }

    fn earliest_deadline(&self) -> Option<Instant> {
        let in_flight = self.in_flight.values().map(|found| found.proposal.deadline);
        let waiting = self.waiting.iter().map(|proposal| proposal.deadline);
        in_flight.chain(waiting).min()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::members::Position;
    use super::*;

    type Told = Arc<Mutex<Vec<(u8, Outcome)>>>;

    const TRUST: Duration = Duration::from_millis(500);
    const COMMITTED: Verdict = Verdict::Done(Outcome::Committed(Position { term: 1, index: 1 }));

    fn myself() -> Member {
        Member {
            node: 1,
            server: "s1".to_owned(),
        }
    }

    fn add(proposals: &Proposals, told: &Told, number: u8, deadline: Instant) -> Next {
        let told = told.clone();
        let hear = Box::new(move |outcome| told.lock().push((number, outcome)));
        proposals.add(Bytes::copy_from_slice(&[number]), deadline, hear)
    }

    /// Hands over all that may be; says which, with their tickets.
    fn pump(proposals: &Proposals, now: Instant) -> Vec<(u64, u8)> {
        std::iter::from_fn(|| proposals.next(now))
            .map(|(ticket, command)| (ticket, command[0]))
            .collect()
    }

    fn three() -> (Proposals, Told, Instant) {
        let (proposals, told) = (Proposals::new(TRUST, 100), Told::default());
        let now = Instant::now();
        for number in 1..=3 {
            add(&proposals, &told, number, now + Duration::from_secs(5));
        }
        (proposals, told, now)
    }

    #[test]
    fn one_goes_ahead_alone_until_it_is_taken_and_the_others_follow_in_order() {
        let (proposals, told, now) = three();
        assert_eq!(pump(&proposals, now), [(1, 1)]);
        assert_eq!(
            proposals.verdict(1, Verdict::NotYet, &myself()),
            Next::PumpLater
        );
        assert_eq!(proposals.resume(), Next::Pump);
        assert_eq!(pump(&proposals, now), [(2, 1)]);
        assert_eq!(proposals.verdict(2, COMMITTED, &myself()), Next::Pump);
        assert_eq!(pump(&proposals, now), [(3, 2), (4, 3)]);
        for ticket in [3, 4] {
            proposals.verdict(ticket, COMMITTED, &myself());
        }
        let order: Vec<u8> = told.lock().iter().map(|(number, _)| *number).collect();
        assert_eq!(order, [1, 2, 3]);
        assert!(proposals.is_idle());
    }

    #[test]
    fn a_refusal_with_others_in_flight_is_an_answer() {
        let (proposals, told, now) = three();
        pump(&proposals, now);
        proposals.verdict(1, COMMITTED, &myself());
        assert_eq!(pump(&proposals, now), [(2, 2), (3, 3)]);
        proposals.verdict(2, Verdict::NotYet, &myself());
        let leader = Some(myself());
        assert_eq!(told.lock()[1], (2, Outcome::Refused { leader }));
        // Trust is gone: what comes next waits for the one in flight, and then goes ahead alone.
        add(&proposals, &told, 4, now + TRUST);
        assert_eq!(pump(&proposals, now), []);
        assert_eq!(proposals.verdict(3, Verdict::NotYet, &myself()), Next::Pump);
        assert_eq!(pump(&proposals, now), [(4, 4)]);
    }

    #[test]
    fn a_late_verdict_changes_nothing() {
        let (proposals, told, now) = three();
        pump(&proposals, now);
        proposals.expire(now + Duration::from_secs(6));
        proposals.verdict(1, COMMITTED, &myself());
        let refused = Outcome::Refused { leader: None };
        let expected = [(1, Outcome::Unknown), (2, refused.clone()), (3, refused)];
        assert_eq!(*told.lock(), expected);
    }

    #[test]
    fn lost_leadership_leaves_what_is_in_flight_unknown_and_asks_again_for_the_rest() {
        let (proposals, told, now) = three();
        pump(&proposals, now);
        assert_eq!(proposals.lost(), Next::Pump);
        assert_eq!(*told.lock(), [(1, Outcome::Unknown)]);
        assert_eq!(pump(&proposals, now), [(2, 2)]);
        proposals.end();
        assert_eq!(told.lock().len(), 3);
    }

    #[test]
    fn what_is_held_is_handed_over_when_it_is_let_go() {
        let (proposals, _, now) = three();
        proposals.hold();
        assert_eq!(pump(&proposals, now), []);
        assert!(proposals.is_drained());
        assert_eq!(proposals.let_go(), Next::Pump);
        assert_eq!(pump(&proposals, now), [(1, 1)]);
    }

    #[test]
    fn more_than_can_be_held_is_refused() {
        let (proposals, told) = (Proposals::new(TRUST, 1), Told::default());
        let deadline = Instant::now() + TRUST;
        add(&proposals, &told, 1, deadline);
        add(&proposals, &told, 2, deadline);
        let refused = Outcome::Refused { leader: None };
        assert_eq!(*told.lock(), [(2, refused)]);
    }
}
