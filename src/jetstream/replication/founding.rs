//! How servers without a meta group come to have one: who its first members are, decided once.
//!
//! Pure: what is known and how long it has been so is passed in.
//!
//! Each server says of itself whether it is blank, has promised itself to a founding, or belongs to a group. When as many blank servers as the cluster is to
//! have are linked with each other, or after a while a majority of that, the one with the least name proposes all of them as founders. A blank server promises itself to one
//! founding at a time; when all have, the proposer begins the group, and whoever promised follows when it hears of that. Whoever is left blank joins
//! a group that it hears of.
//!
//! # Invariant
//! A group is founded by a majority of the servers that are to be, each of which promised itself to it alone: two groups cannot come to be.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A majority goes ahead when the others are not there for so long.
pub(super) const ALL_AWAITED_FOR: Duration = Duration::from_secs(5);
/// A promise is void when the founding has not begun within this time, and its proposer, as far as it can be asked, does not know of it any more.
pub(super) const PROMISE_KEPT_FOR: Duration = Duration::from_secs(10);
/// More servers than this found no group.
const FOUNDERS_MAX: usize = 64;

/// The first members of a group, and which founding that is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proposal {
    /// Random, so that it is told apart from all others.
    pub founding: u64,
    /// The server that proposes it.
    pub by: String,
    /// The founders.
    pub founders: BTreeSet<String>,
}

impl Proposal {
    /// Whether it can be what a blank server promises itself to.
    pub fn is_sound(&self) -> bool {
        let within = (1..=FOUNDERS_MAX).contains(&self.founders.len());
        within && self.founders.contains(&self.by)
    }
}

/// What a server is to the meta group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// It has none.
    Blank,
    /// It has promised itself to a founding.
    Promised(Proposal),
    /// It belongs to a group, or is about to join it.
    Belongs {
        /// The founding of the group.
        founding: u64,
    },
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    /// Its name.
    pub server: String,
    /// How many servers it expects.
    pub expected: usize,
    /// What it is.
    pub state: State,
}

/// What a server without a group is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing, for now.
    Wait,
    /// Ask these for their promise.
    Propose(BTreeSet<String>),
    /// Begin the group as one of its founders.
    Found(Proposal),
    /// Join the group of that founding.
    Join {
        /// Which.
        founding: u64,
    },
    /// Go back on the promise.
    Withdraw,
}

/// What is known to a server, and for how long.
#[derive(Debug)]
pub(super) struct View<'a> {
    /// What it says of itself.
    pub own: &'a Standing,
    /// What those that it is linked with say of themselves.
    pub others: &'a [Standing],
    /// How long it has been as it is.
    pub since: Duration,
}

impl View<'_> {
    /// What to do next.
    pub fn step(&self) -> Step {
        match &self.own.state {
            State::Belongs { .. } => Step::Wait,
            State::Promised(proposal) => self.promised(proposal),
            State::Blank => self.blank(),
        }
    }

    fn group(&self) -> Option<u64> {
        self.others.iter().find_map(|other| match other.state {
            State::Belongs { founding } => Some(founding),
            _ => None,
        })
    }

    fn promised(&self, proposal: &Proposal) -> Step {
        if let Some(founding) = self.group() {
            return match founding == proposal.founding {
                true => Step::Found(proposal.clone()),
                false => Step::Join { founding },
            };
        }
        if self.since < PROMISE_KEPT_FOR {
            return Step::Wait;
        }
        let proposer = self.others.iter().find(|other| other.server == proposal.by);
        match proposer.map(|proposer| &proposer.state) {
            Some(State::Promised(theirs)) if theirs.founding == proposal.founding => Step::Wait,
            _ => Step::Withdraw,
        }
    }

    fn blank(&self) -> Step {
        if let Some(founding) = self.group() {
            return Step::Join { founding };
        }
        let all = || self.others.iter().chain([self.own]);
        let expected = all().map(|standing| standing.expected).max().unwrap_or(1);
        let blank = || all().filter(|standing| standing.state == State::Blank);
        let count = blank().count();
        let majority = expected / 2 + 1;
        let enough = count >= expected || (count >= majority && self.since >= ALL_AWAITED_FOR);
        let least = blank().map(|standing| &standing.server).min();
        if !enough || least != Some(&self.own.server) {
            return Step::Wait;
        }
        let founders = blank().map(|standing| standing.server.clone());
        Step::Propose(founders.take(FOUNDERS_MAX).collect())
    }
}

/// Whether a server that says this of itself promises itself to a founding.
pub(super) fn accepts(own: &Standing, proposal: &Proposal) -> bool {
    let named = proposal.founders.contains(&own.server);
    let free = match &own.state {
        State::Blank => true,
        // It asks again, having given the earlier founding up.
        State::Promised(earlier) => earlier.by == proposal.by && proposal.by != own.server,
        State::Belongs { .. } => false,
    };
    named && free && proposal.is_sound()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(server: &str, state: State) -> Standing {
        Standing {
            server: server.to_owned(),
            expected: 3,
            state,
        }
    }

    fn blank(server: &str) -> Standing {
        standing(server, State::Blank)
    }

    fn proposal(by: &str, founding: u64) -> Proposal {
        let founders = ["a", "b", "c"].map(str::to_owned);
        Proposal {
            founding,
            by: by.to_owned(),
            founders: founders.into(),
        }
    }

    fn step(own: &Standing, others: &[Standing], since_s: u64) -> Step {
        let since = Duration::from_secs(since_s);
        let view = View { own, others, since };
        view.step()
    }

    #[test]
    fn the_least_name_proposes_when_all_are_there() {
        let others = [blank("b"), blank("c")];
        let founders = proposal("a", 1).founders;
        assert_eq!(step(&blank("a"), &others, 0), Step::Propose(founders));
        assert_eq!(step(&blank("b"), &[blank("a"), blank("c")], 0), Step::Wait);
        assert_eq!(step(&blank("a"), &others[..1], 4), Step::Wait);
    }

    #[test]
    fn a_majority_goes_ahead_after_a_while_and_less_never_does() {
        let others = [blank("b")];
        let Step::Propose(founders) = step(&blank("a"), &others, 5) else {
            panic!("two of three are enough");
        };
        assert_eq!(founders.len(), 2);
        assert_eq!(step(&blank("a"), &[], 500), Step::Wait);
        // One of them knows of more servers than the others do.
        let mut knows_more = blank("b");
        knows_more.expected = 5;
        assert_eq!(step(&blank("a"), &[knows_more], 500), Step::Wait);
    }

    #[test]
    fn one_that_is_promised_counts_for_nobody_else() {
        let promised = standing("b", State::Promised(proposal("c", 7)));
        let others = [promised, blank("c")];
        assert_eq!(step(&blank("a"), &others, 0), Step::Wait);
    }

    #[test]
    fn a_promise_is_kept_until_the_group_begins_or_its_proposer_gives_up() {
        let own = standing("b", State::Promised(proposal("a", 7)));
        let asks = standing("a", State::Promised(proposal("a", 7)));
        assert_eq!(step(&own, std::slice::from_ref(&asks), 100), Step::Wait);
        let begun = standing("a", State::Belongs { founding: 7 });
        assert_eq!(step(&own, &[begun], 0), Step::Found(proposal("a", 7)));
        let other = standing("c", State::Belongs { founding: 8 });
        assert_eq!(step(&own, &[other], 0), Step::Join { founding: 8 });
        assert_eq!(step(&own, &[blank("a")], 0), Step::Wait);
        assert_eq!(step(&own, &[blank("a")], 10), Step::Withdraw);
        assert_eq!(step(&own, &[], 10), Step::Withdraw);
    }

    #[test]
    fn a_blank_server_joins_what_it_hears_of() {
        let begun = standing("c", State::Belongs { founding: 7 });
        let expected = Step::Join { founding: 7 };
        assert_eq!(step(&blank("a"), &[blank("b"), begun], 0), expected);
    }

    #[test]
    fn a_server_promises_itself_once_and_only_to_what_names_it() {
        let own = blank("b");
        assert!(accepts(&own, &proposal("a", 1)));
        let promised = standing("b", State::Promised(proposal("a", 1)));
        assert!(accepts(&promised, &proposal("a", 2)), "asked again");
        assert!(!accepts(&promised, &proposal("c", 2)));
        let proposes = standing("b", State::Promised(proposal("b", 1)));
        assert!(!accepts(&proposes, &proposal("b", 2)));
        assert!(!accepts(&blank("d"), &proposal("a", 1)));
        assert!(!accepts(&own, &proposal("z", 1)), "it is not among them");
        let belongs = standing("b", State::Belongs { founding: 1 });
        assert!(!accepts(&belongs, &proposal("a", 1)));
    }
}
