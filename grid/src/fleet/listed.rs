//! Values in a list, each with a name by which its place is found at once.

use std::hash::Hash;

use serde::{Deserialize, Serialize};

use crate::named::Named;

/// Such values. They are written as the list.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(
    from = "Vec<(K, V)>",
    into = "Vec<(K, V)>",
    bound(
        serialize = "K: Copy + Eq + Hash + Serialize, V: Clone + Serialize",
        deserialize = "K: Copy + Eq + Hash + Deserialize<'de>, V: Deserialize<'de>"
    )
)]
pub(super) struct Listed<K: Hash + Eq, V> {
    items: Vec<(K, V)>,
    places: Named<K, usize>,
}

impl<K: Copy + Eq + Hash, V> Listed<K, V> {
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn place(&self, name: K) -> Option<usize> {
        self.places.get(&name).copied()
    }

    pub(super) fn at(&self, place: usize) -> Option<(K, &V)> {
        self.items.get(place).map(|(name, value)| (*name, value))
    }

    pub(super) fn at_mut(&mut self, place: usize) -> Option<&mut V> {
        self.items.get_mut(place).map(|(_, value)| value)
    }

    pub(super) fn get(&self, name: K) -> Option<&V> {
        self.at(self.place(name)?).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, name: K) -> Option<&mut V> {
        self.at_mut(self.place(name)?)
    }

    /// At the end, under a name that nothing has yet.
    pub(super) fn push(&mut self, name: K, value: V) {
        self.places.insert(name, self.items.len());
        self.items.push((name, value));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.items.iter().map(|(name, value)| (*name, value))
    }
}

impl<K: Hash + Eq, V> Default for Listed<K, V> {
    fn default() -> Self {
        Self { items: Vec::new(), places: Named::default() }
    }
}

impl<K: Copy + Eq + Hash, V> From<Vec<(K, V)>> for Listed<K, V> {
    fn from(items: Vec<(K, V)>) -> Self {
        Self { places: items.iter().zip(0..).map(|((name, _), place)| (*name, place)).collect(), items }
    }
}

impl<K: Hash + Eq, V> From<Listed<K, V>> for Vec<(K, V)> {
    fn from(listed: Listed<K, V>) -> Self {
        listed.items
    }
}

/// Where each is follows from their order.
impl<K: Hash + Eq, V: PartialEq> PartialEq for Listed<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.items == other.items
    }
}

impl<K: Hash + Eq, V: Eq> Eq for Listed<K, V> {}

#[cfg(test)]
mod tests {
    use registry::{
        canon,
        id::{EngineFingerprint, NodeId, OperatorId},
        price::PriceTable,
        sign::Signed,
    };

    use super::*;
    use crate::{
        engines::Engines,
        fleet::{Fleet, Host},
        flow::Offer,
        subnet::Subnet,
    };

    #[test]
    fn hosts_are_found_by_name_and_walked_and_written_as_they_joined() {
        let engines = Engines::plain(EngineFingerprint([9; 32]), EngineFingerprint([8; 32]));
        let offer = Offer { slots: 1, queue_max: 0, memory_bytes_max: 1, engines, prices: PriceTable::default() };
        let mut fleet = Fleet::new(50);
        for name in [7, 1, 200, 30] {
            fleet.up(
                NodeId([name; 32]),
                OperatorId([name; 32]),
                Signed::nothing().into(),
                offer.clone(),
                Subnet::Relayed,
                0,
            );
        }
        let names: Vec<u8> = fleet.hosts.iter().map(|(node, _)| node.0[0]).collect();
        assert_eq!(names, [7, 1, 200, 30]);
        let bytes = canon::encode(&fleet.hosts);
        let read: Listed<NodeId, Host> = canon::decode(&bytes, usize::MAX).unwrap();
        assert_eq!((&read, read.at(2).map(|(node, _)| node)), (&fleet.hosts, Some(NodeId([200; 32]))));
        assert!(read.get(NodeId([30; 32])).is_some() && read.get(NodeId([31; 32])).is_none());
    }
}
