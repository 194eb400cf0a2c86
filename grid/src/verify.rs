//! When results are believed: a quorum of distinct operators with equal commitments.
//!
//! A commitment covers the task, the engine's fingerprint, the outcome, the fuel and the output, so votes of different
//! engines never count together. The first `quorum` executions have to agree. When any two differ:
//! - a referee decides, an operator that the grid's owner answers for, together with as many others as the quorum needs, one
//!   at least;
//! - where none has voted, one further operator at a time is asked, up to `replicas_max`, until one commitment has its quorum
//!   and more votes than any other.
//!
//! Otherwise the shard is inconclusive and nobody is blamed: nobody, the referee included, reproduced anybody's result.

use registry::id::Commitment;

use crate::{
    few::Few,
    flow::{Verdict, Vote},
};

/// Votes for one commitment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Tally {
    referees: u8,
    votes: u8,
}

/// Judges the votes cast so far. An operator's first vote counts, later ones do not.
pub fn judge(quorum: u8, replicas_max: u8, votes: &[Vote]) -> Verdict {
    let mut tally: Few<(Commitment, Tally)> = Few::default();
    let mut cast: u8 = 0;
    for (index, vote) in votes.iter().enumerate() {
        if votes[..index].iter().all(|earlier| earlier.operator != vote.operator) {
            count(&mut tally, vote);
            cast = cast.saturating_add(1);
        }
    }
    let refereed = tally.len() > 1 && tally.iter().any(|(_, tally)| tally.referees > 0);
    let needed = if refereed { quorum.max(2) } else { quorum };
    let counted = || tally.iter().filter(|(_, tally)| !refereed || tally.referees > 0);
    let Some((commitment, lead)) = counted().max_by_key(|(_, tally)| *tally) else {
        return wanting(quorum, replicas_max.max(quorum).saturating_sub(cast));
    };
    let runner_up = counted().filter(|(other, _)| other != commitment).map(|(_, tally)| *tally).max();
    let ahead = runner_up.is_none_or(|other| (lead.referees, lead.votes) > (other.referees, other.votes));
    if lead.votes >= needed && ahead {
        return Verdict::Accepted(*commitment);
    }
    let wanted = needed.saturating_sub(lead.votes).max(u8::from(!ahead));
    wanting(wanted, replicas_max.max(quorum).saturating_sub(cast))
}

/// One more vote. There are as many commitments as results that differ: one, nearly always.
fn count(tally: &mut Few<(Commitment, Tally)>, vote: &Vote) {
    let (votes, referees) = (1, u8::from(vote.referee));
    match tally.iter_mut().find(|(commitment, _)| *commitment == vote.commitment) {
        Some((_, tally)) => {
            tally.votes = tally.votes.saturating_add(votes);
            tally.referees = tally.referees.saturating_add(referees);
        }
        None => tally.push((vote.commitment, Tally { referees, votes })),
    }
}

fn wanting(wanted: u8, allowed: u8) -> Verdict {
    match wanted.min(allowed) {
        0 => Verdict::Inconclusive,
        wanted => Verdict::Open { wanted },
    }
}

/// Whether votes differ, so that a referee is asked.
pub fn is_disputed(votes: &[Vote]) -> bool {
    votes.windows(2).any(|pair| pair[0].commitment != pair[1].commitment)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use registry::id::OperatorId;

    use super::*;

    fn votes(cast: &[(u8, u8)]) -> Vec<Vote> {
        cast.iter()
            .map(|&(operator, result)| Vote {
                operator: OperatorId([operator; 32]),
                commitment: Commitment([result; 32]),
                referee: operator >= 100,
            })
            .collect()
    }

    fn judged(cast: &[(u8, u8)]) -> Verdict {
        judge(2, 5, &votes(cast))
    }

    #[test]
    fn two_operators_that_agree_decide() {
        assert_eq!(judged(&[]), Verdict::Open { wanted: 2 });
        assert_eq!(judged(&[(1, 7)]), Verdict::Open { wanted: 1 });
        assert_eq!(judged(&[(1, 7), (2, 7)]), Verdict::Accepted(Commitment([7; 32])));
    }

    #[test]
    fn one_operator_twice_is_one_vote() {
        assert_eq!(judged(&[(1, 7), (1, 7)]), Verdict::Open { wanted: 1 });
    }

    #[test]
    fn a_dispute_asks_one_more_at_a_time_up_to_five() {
        assert_eq!(judged(&[(1, 7), (2, 8)]), Verdict::Open { wanted: 1 });
        assert_eq!(judged(&[(1, 7), (2, 8), (3, 7)]), Verdict::Accepted(Commitment([7; 32])));
        assert_eq!(judged(&[(1, 7), (2, 8), (3, 9), (4, 6)]), Verdict::Open { wanted: 1 });
        assert_eq!(judged(&[(1, 7), (2, 8), (3, 9), (4, 6), (5, 5)]), Verdict::Inconclusive);
        assert_eq!(judge(3, 5, &votes(&[(1, 7), (2, 7), (3, 8), (4, 8)])), Verdict::Open { wanted: 1 });
    }

    #[test]
    fn a_referee_decides_with_one_that_it_agrees_with() {
        assert_eq!(judge(1, 5, &votes(&[(1, 7)])), Verdict::Accepted(Commitment([7; 32])));
        assert_eq!(judged(&[(1, 7), (2, 8), (100, 8)]), Verdict::Accepted(Commitment([8; 32])));
        // Two that collude, against one and the referee.
        assert_eq!(judge(3, 5, &votes(&[(1, 7), (2, 7), (3, 8), (100, 8)])), Verdict::Open { wanted: 1 });
        let decided = [(1, 7), (2, 7), (3, 8), (100, 8), (4, 8)];
        assert_eq!(judge(3, 5, &votes(&decided)), Verdict::Accepted(Commitment([8; 32])));
        // The referee alone is one operator among others: somebody has to reproduce its result.
        assert_eq!(judged(&[(100, 7), (2, 8)]), Verdict::Open { wanted: 1 });
        assert_eq!(judged(&[(100, 7), (2, 8), (3, 7)]), Verdict::Accepted(Commitment([7; 32])));
        // A module whose results are never the same.
        assert_eq!(judged(&[(1, 1), (2, 2), (100, 3), (3, 4), (4, 5)]), Verdict::Inconclusive);
        assert_eq!(judged(&[(1, 1), (100, 2), (101, 3), (2, 2), (3, 3)]), Verdict::Inconclusive);
    }

    proptest! {
        #[test]
        fn where_a_referee_voted_nothing_else_is_accepted_than_what_a_referee_said(
            quorum in 1u8..=5,
            cast in proptest::collection::vec((prop_oneof![0u8..5, 100u8..103], 0u8..3), 0..12),
        ) {
            let votes = votes(&cast);
            if let (Verdict::Accepted(commitment), true) = (judge(quorum, 5, &votes), is_disputed(&votes)) {
                let firsts: BTreeMap<OperatorId, &Vote> = votes.iter().rev().map(|vote| (vote.operator, vote)).collect();
                let disputed = firsts.values().any(|vote| vote.commitment != commitment);
                let refereed = firsts.values().any(|vote| vote.referee);
                let agreeing: Vec<_> = firsts.values().filter(|vote| vote.commitment == commitment).collect();
                prop_assert!(!disputed || !refereed || agreeing.iter().any(|vote| vote.referee) && agreeing.len() >= 2);
            }
        }

        #[test]
        fn nothing_is_accepted_without_a_quorum_of_distinct_operators(
            quorum in 1u8..=5,
            cast in proptest::collection::vec((0u8..6, 0u8..3), 0..12),
        ) {
            let votes = votes(&cast);
            match judge(quorum, 5, &votes) {
                Verdict::Accepted(commitment) => {
                    let mut firsts: BTreeMap<OperatorId, Commitment> = BTreeMap::new();
                    for vote in &votes {
                        firsts.entry(vote.operator).or_insert(vote.commitment);
                    }
                    let agreeing = firsts.values().filter(|other| **other == commitment).count();
                    prop_assert!(agreeing >= usize::from(quorum));
                }
                Verdict::Open { wanted } => prop_assert!(wanted >= 1),
                Verdict::Inconclusive => prop_assert!(!votes.is_empty()),
            }
        }
    }
}
