//! Hosts by their names: one is found at once, all are walked in order.

use std::collections::BTreeSet;

use registry::id::NodeId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Host;
use crate::named::Named;

/// Every host that ever joined. It is written as an ordered map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Roster {
    hosts: Named<NodeId, Box<Host>>,
    order: BTreeSet<NodeId>,
}

impl Roster {
    pub(super) fn get(&self, node: NodeId) -> Option<&Host> {
        self.hosts.get(&node).map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, node: NodeId) -> Option<&mut Host> {
        self.hosts.get_mut(&node).map(Box::as_mut)
    }

    pub(super) fn insert(&mut self, node: NodeId, host: Host) {
        self.hosts.insert(node, Box::new(host));
        self.order.insert(node);
    }

    /// In the order of their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Host)> {
        self.order.iter().filter_map(|node| Some((*node, self.get(*node)?)))
    }
}

impl Serialize for Roster {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.hosts.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Roster {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hosts = Named::<NodeId, Box<Host>>::deserialize(deserializer)?;
        Ok(Self { order: hosts.keys().copied().collect(), hosts })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use registry::{canon, id::EngineFingerprint, id::OperatorId, price::PriceTable, sign::Signed};

    use super::*;
    use crate::{engines::Engines, fleet::Fleet, flow::Offer, subnet::Subnet};

    #[test]
    fn hosts_are_walked_in_the_order_of_their_names_and_written_as_a_map_of_them() {
        let engines = Engines::plain(EngineFingerprint([9; 32]), EngineFingerprint([8; 32]));
        let offer = Offer { slots: 1, queue_max: 0, memory_bytes_max: 1, engines, prices: PriceTable::default() };
        let mut fleet = Fleet::new(50);
        for name in [7, 1, 200, 30] {
            fleet.up(NodeId([name; 32]), OperatorId([name; 32]), Signed::nothing(), offer.clone(), Subnet::Relayed, 0);
        }
        let names: Vec<u8> = fleet.hosts.iter().map(|(node, _)| node.0[0]).collect();
        assert_eq!(names, [1, 7, 30, 200]);
        let map: BTreeMap<NodeId, &Host> = fleet.hosts.iter().collect();
        let bytes = canon::encode(&fleet.hosts);
        assert_eq!(bytes, canon::encode(&map));
        assert!(fleet.get(NodeId([30; 32])).is_some() && fleet.get(NodeId([31; 32])).is_none());
        assert_eq!(canon::decode::<Roster>(&bytes, usize::MAX).map(|read| read.order.len()).unwrap_or(0), 4);
    }
}
