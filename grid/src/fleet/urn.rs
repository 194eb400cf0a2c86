//! Operators of whom one is drawn, each as likely as any other: neither how many hosts it has matters, nor how it is called.

use std::{collections::BTreeMap, num::NonZero};

use serde::{Deserialize, Serialize};

/// Operators by their numbers in the fleet, with how many hosts each has in here. Their order follows from how they came and went, and is
/// kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Vec<(u32, u32)>", into = "Vec<(u32, u32)>")]
pub(super) struct Urn {
    operators: Vec<(u32, u32)>,
    /// Where each number is among them, if it is.
    places: Vec<Option<NonZero<u32>>>,
}

impl Urn {
    /// One more host of the operator is here, or one less.
    pub(super) fn count(&mut self, operator: u32, one_more: bool) {
        match (self.place(operator), one_more) {
            (None, true) => {
                self.operators.push((operator, 1));
                self.put(operator, self.operators.len() - 1);
            }
            (None, false) => {}
            (Some(place), true) => self.operators[place].1 += 1,
            (Some(place), false) => self.take(place),
        }
    }

    fn take(&mut self, place: usize) {
        let (operator, hosts) = &mut self.operators[place];
        *hosts -= 1;
        if *hosts == 0 {
            self.places[*operator as usize] = None;
            self.operators.swap_remove(place);
            if let Some((moved, _)) = self.operators.get(place) {
                self.put(*moved, place);
            }
        }
    }

    fn place(&self, operator: u32) -> Option<usize> {
        self.places.get(operator as usize).copied().flatten().map(|place| place.get() as usize - 1)
    }

    fn put(&mut self, operator: u32, place: usize) {
        let at = operator as usize;
        if at >= self.places.len() {
            self.places.resize(at + 1, None);
        }
        self.places[at] = u32::try_from(place + 1).ok().and_then(NonZero::new);
    }

    /// All of them as the lot says: each is as likely as any other to be the first, and to be the next of those that are left.
    pub(super) fn drawn(&self, lot: [u8; 32]) -> impl Iterator<Item = u32> {
        let mut below = numbers(lot);
        // The list is shuffled as far as it is asked for, in what differs from it.
        let (all, mut moved) = (self.operators.len(), BTreeMap::new());
        (0..all).filter_map(move |turn| {
            let drawn = turn + below(all - turn);
            let first = moved.remove(&turn).unwrap_or(turn);
            let place = if drawn == turn { first } else { moved.insert(drawn, first).unwrap_or(drawn) };
            self.operators.get(place).map(|(operator, _)| *operator)
        })
    }

    /// Operators in the order of their numbers, with their hosts.
    pub(super) fn in_order(&self) -> Vec<(u32, u32)> {
        let mut operators = self.operators.clone();
        operators.sort_unstable();
        operators
    }
}

impl From<Vec<(u32, u32)>> for Urn {
    fn from(operators: Vec<(u32, u32)>) -> Self {
        let mut urn = Self::default();
        operators.iter().zip(0..).for_each(|((operator, _), place)| urn.put(*operator, place));
        Self { operators, ..urn }
    }
}

impl From<Urn> for Vec<(u32, u32)> {
    fn from(urn: Urn) -> Self {
        urn.operators
    }
}

/// Where each is follows from their order.
impl PartialEq for Urn {
    fn eq(&self, other: &Self) -> bool {
        self.operators == other.operators
    }
}

impl Eq for Urn {}

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

    fn lot(number: u32) -> [u8; 32] {
        canon::hash("test", &number)
    }

    #[test]
    fn each_operator_is_as_likely_to_be_drawn_however_many_hosts_it_has() {
        let mut urn = Urn::default();
        (0..10).for_each(|operator| urn.count(operator, true));
        (0..500).for_each(|_| urn.count(3, true));
        let mut first = [0; 10];
        let mut second = [0; 10];
        for number in 0..10_000 {
            let drawn: Vec<u32> = urn.drawn(lot(number)).take(2).collect();
            first[drawn[0] as usize] += 1;
            // Where the first may not: whoever comes after it.
            if drawn[0] == 7 {
                second[drawn[1] as usize] += 1;
            }
        }
        // Six standard deviations around 1,000, and around a ninth of as many as the seventh has.
        assert!(first.iter().all(|times| (820..1_180).contains(times)), "{first:?}");
        assert!(second.iter().zip(0..).all(|(times, name)| name == 7 || (50..190).contains(times)), "{second:?}");
    }

    proptest! {
        #[test]
        fn operators_are_counted_and_each_is_drawn_once(
            changes in proptest::collection::vec((any::<bool>(), 0u32..12), 0..60),
            number in any::<u32>(),
        ) {
            let (mut urn, mut counts) = (Urn::default(), BTreeMap::<u32, u32>::new());
            for (comes, operator) in changes {
                let hosts = counts.entry(operator).or_default();
                urn.count(operator, comes);
                *hosts = if comes { *hosts + 1 } else { hosts.saturating_sub(1) };
            }
            counts.retain(|_, hosts| *hosts > 0);
            let counts: Vec<(u32, u32)> = counts.into_iter().collect();
            prop_assert_eq!(urn.in_order(), counts.clone());
            let mut drawn: Vec<u32> = urn.drawn(lot(number)).collect();
            drawn.sort_unstable();
            prop_assert_eq!(drawn, counts.iter().map(|(operator, _)| *operator).collect::<Vec<_>>());
            let bytes = canon::encode(&urn);
            let read: Urn = canon::decode(&bytes, usize::MAX).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(&read, &urn);
            prop_assert!((0..12).all(|operator| read.place(operator) == urn.place(operator)));
        }
    }
}
