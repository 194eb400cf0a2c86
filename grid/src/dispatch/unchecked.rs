//! Which of a job's results one operator alone stands for: asked for when an operator is caught, and changed with every result.

use std::collections::BTreeSet;

use registry::id::OperatorId;
use serde::{Deserialize, Serialize};

use super::job::ShardKey;
use crate::{few::Few, named::Named};

/// Such results. They are written as an ordered set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeSet<(OperatorId, ShardKey)>", into = "BTreeSet<(OperatorId, ShardKey)>")]
pub(super) struct Unchecked(Named<OperatorId, Few<ShardKey>>);

impl Unchecked {
    pub(super) fn insert(&mut self, operator: OperatorId, key: ShardKey) {
        let keys = self.0.entry(operator).or_default();
        // They come nearly in order, and a job may have a million.
        if let Err(at) = keys.binary_search(&key) {
            keys.insert(at, key);
        }
    }

    pub(super) fn remove(&mut self, operator: OperatorId, key: ShardKey) {
        if let Some(keys) = self.0.get_mut(&operator) {
            if let Ok(at) = keys.binary_search(&key) {
                keys.remove(at);
            }
            if keys.is_empty() {
                self.0.remove(&operator);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn contains(&self, operator: OperatorId, key: ShardKey) -> bool {
        self.0.get(&operator).is_some_and(|keys| keys.binary_search(&key).is_ok())
    }

    pub(super) fn len(&self) -> usize {
        self.0.values().map(|keys| keys.len()).sum()
    }

    /// Those that this operator stands for, in order.
    pub(super) fn of(&self, operator: OperatorId) -> impl Iterator<Item = ShardKey> {
        self.0.get(&operator).into_iter().flatten().copied()
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (OperatorId, ShardKey)> {
        self.0.iter().flat_map(|(operator, keys)| keys.iter().map(|key| (*operator, *key)))
    }
}

impl From<BTreeSet<(OperatorId, ShardKey)>> for Unchecked {
    fn from(written: BTreeSet<(OperatorId, ShardKey)>) -> Self {
        let mut unchecked = Self::default();
        written.into_iter().for_each(|(operator, key)| unchecked.insert(operator, key));
        unchecked
    }
}

impl From<Unchecked> for BTreeSet<(OperatorId, ShardKey)> {
    fn from(unchecked: Unchecked) -> Self {
        unchecked.iter().collect()
    }
}
