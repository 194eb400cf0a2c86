//! Operators of whom one is drawn, each as likely as any other: neither how many hosts it has matters, nor how it is called.

use std::collections::BTreeMap;

use registry::id::OperatorId;
use serde::{Deserialize, Serialize};

use super::listed::Listed;

/// Operators, with how many hosts each has in here. Their order follows from how they came and went, and is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Urn(Listed<OperatorId, u32>);

impl Urn {
    /// One more host of the operator is here, or one less.
    pub(super) fn count(&mut self, operator: OperatorId, one_more: bool) {
        match (self.0.place(operator), one_more) {
            (None, true) => self.0.push(operator, 1),
            (None, false) => {}
            (Some(place), _) => self.count_at(place, one_more),
        }
    }

    fn count_at(&mut self, place: usize, one_more: bool) {
        let Some(hosts) = self.0.at_mut(place) else { return };
        *hosts = if one_more { *hosts + 1 } else { *hosts - 1 };
        if *hosts == 0 {
            self.0.swap_remove(place);
        }
    }

    /// All of them as the lot says: each is as likely as any other to be the first, and to be the next of those that are left.
    pub(super) fn drawn(&self, lot: [u8; 32]) -> impl Iterator<Item = OperatorId> {
        let mut below = numbers(lot);
        // The list is shuffled as far as it is asked for, in what differs from it.
        let (all, mut moved) = (self.0.len(), BTreeMap::new());
        (0..all).filter_map(move |turn| {
            let drawn = turn + below(all - turn);
            let first = moved.remove(&turn).unwrap_or(turn);
            let place = if drawn == turn { first } else { moved.insert(drawn, first).unwrap_or(drawn) };
            self.0.at(place).map(|(operator, _)| operator)
        })
    }

    /// Operators in their order, with their hosts.
    pub(super) fn in_order(&self) -> Vec<(OperatorId, u32)> {
        let mut operators: Vec<_> = self.0.iter().map(|(operator, hosts)| (operator, *hosts)).collect();
        operators.sort_unstable();
        operators
    }
}

/// What a lot gives: numbers below what is asked for each time, or 0.
fn numbers(lot: [u8; 32]) -> impl FnMut(usize) -> usize {
    let mut bytes = blake3::Hasher::new().update(&lot).finalize_xof();
    move |bound| {
        let mut number = [0; 8];
        bytes.fill(&mut number);
        ((u128::from(u64::from_le_bytes(number)) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use registry::canon;

    use super::*;

    fn operator(name: u8) -> OperatorId {
        OperatorId([name; 32])
    }

    fn lot(number: u32) -> [u8; 32] {
        canon::hash("test", &number)
    }

    #[test]
    fn each_operator_is_as_likely_to_be_drawn_however_many_hosts_it_has() {
        let mut urn = Urn::default();
        (0..10).for_each(|name| urn.count(operator(name), true));
        (0..500).for_each(|_| urn.count(operator(3), true));
        let mut first = [0; 10];
        let mut second = [0; 10];
        for number in 0..10_000 {
            let drawn: Vec<OperatorId> = urn.drawn(lot(number)).take(2).collect();
            first[usize::from(drawn[0].0[0])] += 1;
            // Where the first may not: whoever comes after it.
            if drawn[0] == operator(7) {
                second[usize::from(drawn[1].0[0])] += 1;
            }
        }
        // Six standard deviations around 1,000, and around a ninth of as many as the seventh has.
        assert!(first.iter().all(|times| (820..1_180).contains(times)), "{first:?}");
        assert!(second.iter().zip(0..).all(|(times, name)| name == 7 || (50..190).contains(times)), "{second:?}");
    }

    proptest! {
        #[test]
        fn operators_are_counted_and_each_is_drawn_once(
            changes in proptest::collection::vec((any::<bool>(), 0u8..12), 0..60),
            number in any::<u32>(),
        ) {
            let (mut urn, mut counts) = (Urn::default(), BTreeMap::<OperatorId, u32>::new());
            for (comes, name) in changes {
                let hosts = counts.entry(operator(name)).or_default();
                urn.count(operator(name), comes);
                *hosts = if comes { *hosts + 1 } else { hosts.saturating_sub(1) };
            }
            counts.retain(|_, hosts| *hosts > 0);
            let counts: Vec<(OperatorId, u32)> = counts.into_iter().collect();
            prop_assert_eq!(urn.in_order(), counts.clone());
            let mut drawn: Vec<OperatorId> = urn.drawn(lot(number)).collect();
            drawn.sort_unstable();
            prop_assert_eq!(drawn, counts.iter().map(|(operator, _)| *operator).collect::<Vec<_>>());
            let bytes = canon::encode(&urn);
            let read: Urn = canon::decode(&bytes, usize::MAX).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(&read, &urn);
            prop_assert!(read.0.iter().all(|(operator, _)| read.0.place(operator) == urn.0.place(operator)));
        }
    }
}
