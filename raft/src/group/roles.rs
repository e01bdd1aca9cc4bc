//! What a replica is told to be, in order with what it is given to apply.

use std::sync::Arc;

use parking_lot::Mutex;

use super::machine::{Machine, Member, Role};

/// Tells the state machine of its role.
pub(super) struct Roles {
    machine: Arc<dyn Machine>,
    state: Mutex<State>,
}

struct State {
    seen: Seen,
    /// The term of the last entry that was applied.
    applied_term: u64,
    /// It leads, and has not heard of a majority for long: others may have a leader that it does not know of.
    cut_off: bool,
    told: Role,
}

/// What Raft says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Leading { term: u64 },
    Following(Option<Member>),
    Stopped(String),
}

impl Roles {
    pub fn new(machine: Arc<dyn Machine>) -> Self {
        let state = State {
            seen: Seen::Following(None),
            applied_term: 0,
            cut_off: false,
            told: Role::Leaderless,
        };
        Self {
            machine,
            state: Mutex::new(state),
        }
    }

    /// Raft says something else. True when a leader's role was given up with that.
    pub fn saw(&self, seen: Seen) -> bool {
        let mut state = self.state.lock();
        let led = match (&state.seen, &seen) {
            (Seen::Stopped(_), _) => return false,
            (Seen::Leading { term: before }, Seen::Leading { term }) => before != term,
            (Seen::Leading { .. }, _) => true,
            _ => false,
        };
        state.cut_off &= seen == state.seen;
        state.seen = seen;
        self.tell(&mut state, led);
        led
    }

    /// Whether the others, a majority with this one, are heard of.
    pub fn is_cut_off(&self, cut_off: bool) {
        let mut state = self.state.lock();
        if state.cut_off != cut_off {
            state.cut_off = cut_off;
            self.tell(&mut state, false);
        }
    }

    /// An entry of that term was taken by the state machine.
    pub fn applied(&self, term: u64) {
        let mut state = self.state.lock();
        if term > state.applied_term {
            state.applied_term = term;
            self.tell(&mut state, false);
        }
    }

    /// What was last told.
    pub fn told(&self) -> Role {
        self.state.lock().told.clone()
    }

    fn tell(&self, state: &mut State, led: bool) {
        let role = match &state.seen {
            // The first entry of a term is its blank one.
            Seen::Leading { term } if state.applied_term == *term && !state.cut_off => {
                Role::Leader { term: *term }
            }
            Seen::Leading { .. } | Seen::Following(None) => Role::Leaderless,
            Seen::Following(Some(leader)) => Role::Follower {
                leader: leader.clone(),
            },
            Seen::Stopped(reason) => Role::Stopped {
                reason: reason.clone(),
            },
        };
        if role == state.told {
            return;
        }
        // From one term of one's own to the next there was something between.
        let both_lead = matches!(
            (&role, &state.told),
            (Role::Leader { .. }, Role::Leader { .. })
        );
        if led && both_lead {
            self.machine.role(Role::Leaderless);
        }
        state.told = role.clone();
        self.machine.role(role);
    }
}
