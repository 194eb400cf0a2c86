//! Values by the names of hosts or operators, or by the numbers of orders.
//!
//! Every event looks for some among ten thousand others that are not looked at meanwhile. A search through an ordered map is a walk
//! through places in memory that nobody has looked at for as long; a hash leads to one. They are in no order until they are written,
//! which is as an ordered map.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, Hash, Hasher, RandomState},
    ops::{Deref, DerefMut},
    sync::OnceLock,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Names are keys, as good as random unless somebody has chosen them, and orders are counted: the first bytes are the hash, mixed with a
/// number that nobody knows. It is another one in each process, and nothing is decided by the order that follows from it.
#[derive(Debug)]
pub(crate) struct Head {
    seed: u64,
    hash: u64,
}

impl Hasher for Head {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(head) = bytes.first_chunk() {
            let product = u128::from(u64::from_le_bytes(*head) ^ self.seed) * u128::from(self.seed | 1);
            self.hash = (product >> 64) as u64 ^ product as u64;
        }
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}

/// Makes hashes with the number of this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seed(u64);

impl Default for Seed {
    fn default() -> Self {
        static SEED: OnceLock<u64> = OnceLock::new();
        Self(*SEED.get_or_init(|| RandomState::new().hash_one(0)))
    }
}

impl BuildHasher for Seed {
    type Hasher = Head;

    fn build_hasher(&self) -> Head {
        Head { seed: self.0, hash: 0 }
    }
}

/// Such values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named<K: Hash + Eq, V>(HashMap<K, V, Seed>);

impl<K: Hash + Eq, V> Default for Named<K, V> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<K: Hash + Eq, V> Deref for Named<K, V> {
    type Target = HashMap<K, V, Seed>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<K: Hash + Eq, V> DerefMut for Named<K, V> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<K: Hash + Eq, V> FromIterator<(K, V)> for Named<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl<K: Hash + Ord, V> Named<K, V> {
    /// In the order of their names.
    pub(crate) fn in_order(&self) -> BTreeMap<&K, &V> {
        self.0.iter().collect()
    }
}

impl<K: Hash + Ord + Serialize, V: Serialize> Serialize for Named<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.in_order().serialize(serializer)
    }
}

impl<'de, K: Hash + Ord + Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for Named<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(BTreeMap::deserialize(deserializer)?.into_iter().collect())
    }
}
