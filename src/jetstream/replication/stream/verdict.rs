//! Which of the replicas that differ are wrong.
//!
//! # Invariant
//! A majority of all that vote has to say the same. Who does not answer counts for neither side, and nobody's word, not the leader's either, counts for more than
//! one.

use std::collections::BTreeMap;

use raft::types::NodeId;

/// Whether a replica is one of those that are wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A majority has what it has.
    Right,
    /// A majority has something else.
    Wrong {
        /// What that is.
        digest: u64,
    },
    /// It cannot be told: too few have answered, or no majority agrees.
    Open,
}

/// Of a replica with the digest `ours`, given those of the replicas that said theirs, itself among them when it votes.
pub(super) fn verdict(ours: u64, said: &BTreeMap<NodeId, u64>, voters: usize) -> Verdict {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for digest in said.values() {
        *counts.entry(*digest).or_default() += 1;
    }
    let majority = counts.into_iter().find(|(_, count)| *count > voters / 2);
    match majority {
        Some((digest, _)) if digest == ours => Verdict::Right,
        Some((digest, _)) => Verdict::Wrong { digest },
        None => Verdict::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(ours: u64, said: &[u64], voters: usize) -> Verdict {
        let said = (1..).zip(said.iter().copied()).collect();
        verdict(ours, &said, voters)
    }

    #[test]
    fn the_majority_is_right_whoever_leads() {
        assert_eq!(judged(7, &[7, 7, 9], 3), Verdict::Right);
        assert_eq!(judged(9, &[7, 7, 9], 3), Verdict::Wrong { digest: 7 });
        assert_eq!(judged(9, &[9, 7, 7, 9, 7], 5), Verdict::Wrong { digest: 7 });
    }

    #[test]
    fn without_a_majority_of_all_that_vote_nobody_is_wrong() {
        assert_eq!(judged(9, &[9, 7], 2), Verdict::Open);
        assert_eq!(judged(9, &[9, 7], 3), Verdict::Open, "one is silent");
        assert_eq!(judged(9, &[9, 7, 8], 3), Verdict::Open);
        assert_eq!(judged(9, &[7, 7, 9], 5), Verdict::Open, "two are silent");
        assert_eq!(judged(9, &[], 0), Verdict::Open);
    }

    #[test]
    fn two_of_three_are_enough_when_one_is_silent() {
        assert_eq!(judged(7, &[7, 7], 3), Verdict::Right);
        assert_eq!(judged(9, &[7, 7], 3), Verdict::Wrong { digest: 7 });
    }
}
