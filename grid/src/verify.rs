//! When results are believed: a quorum of distinct operators with equal commitments.
//!
//! A commitment covers the task, the engine's fingerprint, the outcome, the fuel and the output, so votes of different
//! engines never count together. The first `quorum` executions have to agree; when they do not, one further operator at a
//! time is asked, up to `replicas_max`, until one commitment has its quorum and more votes than any other. Otherwise the
//! shard is inconclusive and nobody is blamed.

use std::collections::BTreeMap;

use registry::id::Commitment;

use crate::flow::{Verdict, Vote};

/// Judges the votes cast so far. An operator's first vote counts, later ones do not.
pub fn judge(quorum: u8, replicas_max: u8, votes: &[Vote]) -> Verdict {
    let mut tally: BTreeMap<Commitment, u8> = BTreeMap::new();
    let mut cast: u8 = 0;
    for (index, vote) in votes.iter().enumerate() {
        if votes[..index].iter().all(|earlier| earlier.operator != vote.operator) {
            *tally.entry(vote.commitment).or_default() += 1;
            cast = cast.saturating_add(1);
        }
    }
    let leader = tally.iter().max_by_key(|(_, votes)| **votes);
    let (lead, ahead) = match leader {
        Some((commitment, votes)) => {
            let runner_up =
                tally.iter().filter(|(other, _)| *other != commitment).map(|(_, votes)| *votes).max().unwrap_or(0);
            if *votes >= quorum && *votes > runner_up {
                return Verdict::Accepted(*commitment);
            }
            (*votes, runner_up)
        }
        None => (0, 0),
    };
    let allowed = replicas_max.max(quorum).saturating_sub(cast);
    let wanted = quorum.saturating_sub(lead).max(u8::from(lead == ahead)).min(allowed);
    if wanted == 0 { Verdict::Inconclusive } else { Verdict::Open { wanted } }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use registry::id::OperatorId;

    use super::*;

    fn votes(cast: &[(u8, u8)]) -> Vec<Vote> {
        cast.iter()
            .map(|&(operator, result)| Vote {
                operator: OperatorId([operator; 32]),
                commitment: Commitment([result; 32]),
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

    proptest! {
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
