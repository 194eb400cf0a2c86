//! Some of the hosts, by their places: a bit for each, so that ten thousand are looked through in what one look at memory brings.

use serde::{Deserialize, Serialize};

/// Places of hosts in the roster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Places {
    words: Vec<u64>,
    len: usize,
}

impl Places {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn contains(&self, place: usize) -> bool {
        self.words.get(place / 64).is_some_and(|word| word & (1 << (place % 64)) != 0)
    }

    /// It is among them from now on, or not.
    pub(super) fn set(&mut self, place: usize, is_in: bool) {
        let (at, bit) = (place / 64, 1 << (place % 64));
        if at >= self.words.len() {
            self.words.resize(at + 1, 0);
        }
        let word = &mut self.words[at];
        let before = *word;
        *word = if is_in { before | bit } else { before & !bit };
        self.len = self.len + word.count_ones() as usize - before.count_ones() as usize;
    }

    /// All of them in their order, those after `start` first.
    pub(super) fn after(&self, start: Option<usize>) -> impl Iterator<Item = usize> {
        let early = start.into_iter().flat_map(|start| self.from(0).take_while(move |place| *place <= start));
        self.from(start.map_or(0, |start| start + 1)).chain(early)
    }

    fn from(&self, first: usize) -> impl Iterator<Item = usize> {
        let words = self.words.iter().copied().enumerate().skip(first / 64);
        words.flat_map(move |(at, word)| {
            let mut left = if at == first / 64 { word & (u64::MAX << (first % 64)) } else { word };
            std::iter::from_fn(move || {
                let place = at * 64 + left.trailing_zeros() as usize;
                (left != 0).then(|| {
                    left &= left - 1;
                    place
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn places_are_those_that_were_put_in_and_not_taken_out(
            changes in proptest::collection::vec((any::<bool>(), 0usize..300), 0..200),
            start in proptest::option::of(0usize..400),
        ) {
            let (mut places, mut set) = (Places::default(), BTreeSet::new());
            for (comes, place) in changes {
                places.set(place, comes);
                if comes { set.insert(place) } else { set.remove(&place) };
            }
            prop_assert_eq!(places.len(), set.len());
            prop_assert!((0..400).all(|place| places.contains(place) == set.contains(&place)));
            let late = set.iter().filter(|place| start.is_none_or(|start| **place > start));
            let early = set.iter().filter(|place| start.is_some_and(|start| **place <= start));
            let around: Vec<usize> = late.chain(early).copied().collect();
            prop_assert_eq!(places.after(start).collect::<Vec<_>>(), around);
        }
    }
}
