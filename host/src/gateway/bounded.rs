//! A map that forgets what it learnt first once it is full: for verdicts on content, which never change.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Mutex, PoisonError},
};

pub(super) struct Bounded<K, V> {
    inner: Mutex<(HashMap<K, V>, VecDeque<K>)>,
    len_max: usize,
}

impl<K: Copy + Eq + Hash, V: Clone> Bounded<K, V> {
    pub(super) fn new(len_max: usize) -> Self {
        Self { inner: Mutex::default(), len_max }
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).0.get(key).cloned()
    }

    pub(super) fn insert(&self, key: K, value: V) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (map, order) = &mut *inner;
        if map.insert(key, value).is_none() {
            order.push_back(key);
        }
        if map.len() > self.len_max
            && let Some(oldest) = order.pop_front()
        {
            map.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_goes_when_it_is_full() {
        let map = Bounded::new(2);
        for key in [1, 2, 2, 3] {
            map.insert(key, key * 10);
        }
        assert_eq!([1, 2, 3].map(|key| map.get(&key)), [None, Some(20), Some(30)]);
    }
}
