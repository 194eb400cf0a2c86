//! Lists that nearly always have one item at most, as there are many of.
//!
//! A grid has as many of them as tasks, and most of what it does about a task is to look at them. The one item of [`Few`] lies in the
//! list itself, so that it costs no allocation, and nothing else in memory is looked at to find it. [`Seldom`] is for lists that most
//! tasks have no item for.

use std::ops::Deref;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// Such a list. It is written as any other.
pub(crate) type Few<T> = SmallVec<[T; 1]>;

/// Lists that nearly always are empty: they take the room of a pointer. It is written as any other.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "Vec<T>", into = "Vec<T>", bound(serialize = "T: Clone + Serialize"))]
#[allow(clippy::box_collection, reason = "a list takes three times the room of a pointer to one")]
pub(crate) struct Seldom<T>(Option<Box<Vec<T>>>);

impl<T> Seldom<T> {
    pub(crate) fn push(&mut self, item: T) {
        self.0.get_or_insert_default().push(item);
    }

    /// Keeps the items of which this holds.
    pub(crate) fn retain(&mut self, holds: impl FnMut(&T) -> bool) {
        if let Some(items) = &mut self.0 {
            items.retain(holds);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }
}

impl<T> Default for Seldom<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Deref for Seldom<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }
}

impl<T> Extend<T> for Seldom<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        items.into_iter().for_each(|item| self.push(item));
    }
}

impl<T: PartialEq> PartialEq for Seldom<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Eq> Eq for Seldom<T> {}

impl<T> From<Vec<T>> for Seldom<T> {
    fn from(items: Vec<T>) -> Self {
        Self((!items.is_empty()).then(|| Box::new(items)))
    }
}

impl<T> From<Seldom<T>> for Vec<T> {
    fn from(seldom: Seldom<T>) -> Self {
        seldom.0.map_or(Self::new(), |items| *items)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use registry::canon;

    use super::*;

    proptest! {
        #[test]
        fn it_is_what_a_list_is(steps in proptest::collection::vec((any::<bool>(), 0u8..4), 0..12)) {
            let (mut few, mut seldom, mut list) = (Few::default(), Seldom::default(), Vec::new());
            for (adds, item) in steps {
                if adds {
                    few.push(item);
                    seldom.push(item);
                    list.push(item);
                } else {
                    few.retain(|other| *other != item);
                    seldom.retain(|other| *other != item);
                    list.retain(|other| *other != item);
                }
                prop_assert_eq!(&*few, &*list);
                prop_assert_eq!(&few, &Few::from(list.clone()));
                prop_assert_eq!(&seldom, &Seldom::from(list.clone()));
                let bytes = canon::encode(&few);
                prop_assert_eq!(&bytes, &canon::encode(&list));
                prop_assert_eq!(&bytes, &canon::encode(&seldom));
                prop_assert_eq!(&canon::decode::<Few<u8>>(&bytes, 100).unwrap(), &few);
                prop_assert_eq!(&canon::decode::<Seldom<u8>>(&bytes, 100).unwrap(), &seldom);
            }
        }
    }
}
