//! Lists that nearly always have one item at most, as there are many of.
//!
//! A grid has as many of them as tasks, and most of what it does about a task is to look at them. The one item of [`Few`] lies in the
//! list itself, so that it costs no allocation, and nothing else in memory is looked at to find it. [`Seldom`] is for lists that most
//! tasks have no item for.

use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Serialize};

/// Such a list. It is written as any other.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Vec<T>", into = "Vec<T>", bound(serialize = "T: Clone + Serialize"))]
pub(crate) enum Few<T> {
    #[default]
    None,
    One(T),
    More(Vec<T>),
}

impl<T> Few<T> {
    pub(crate) fn push(&mut self, item: T) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(item),
            Self::One(first) => Self::More(vec![first, item]),
            Self::More(mut items) => {
                items.push(item);
                Self::More(items)
            }
        };
    }

    /// Puts an item before the one that is there.
    pub(crate) fn insert(&mut self, at: usize, item: T) {
        match self {
            Self::More(items) => items.insert(at.min(items.len()), item),
            Self::None => *self = Self::One(item),
            Self::One(_) => {
                self.push(item);
                if at == 0 {
                    self.reverse();
                }
            }
        }
    }

    /// Takes the item that is there away.
    pub(crate) fn remove(&mut self, at: usize) {
        match self {
            Self::More(items) if at < items.len() => _ = items.remove(at),
            Self::One(_) if at == 0 => *self = Self::None,
            Self::None | Self::One(_) | Self::More(_) => {}
        }
    }

    /// Keeps the items of which this holds.
    pub(crate) fn retain(&mut self, mut holds: impl FnMut(&T) -> bool) {
        match self {
            Self::None => {}
            Self::One(item) if holds(item) => {}
            Self::One(_) => *self = Self::None,
            Self::More(items) => items.retain(holds),
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::None;
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::None => &[],
            Self::One(item) => std::slice::from_ref(item),
            Self::More(items) => items,
        }
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::None => &mut [],
            Self::One(item) => std::slice::from_mut(item),
            Self::More(items) => items,
        }
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Equal lists have equal items, however they came to them.
impl<T: PartialEq> PartialEq for Few<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Eq> Eq for Few<T> {}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut few = Self::None;
        items.into_iter().for_each(|item| few.push(item));
        few
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(mut items: Vec<T>) -> Self {
        match items.pop() {
            None => Self::None,
            Some(item) if items.is_empty() => Self::One(item),
            Some(last) => {
                items.push(last);
                Self::More(items)
            }
        }
    }
}

impl<T> From<Few<T>> for Vec<T> {
    fn from(few: Few<T>) -> Self {
        match few {
            Few::None => Self::new(),
            Few::One(item) => vec![item],
            Few::More(items) => items,
        }
    }
}

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
