//! Hosts by their names, and by the places in which they joined: one is found at once, and all are walked as they lie.

use registry::id::NodeId;
use serde::{Deserialize, Serialize};

use super::Host;
use crate::named::Named;

/// Every host that ever joined. It is written as a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(NodeId, Host)>", into = "Vec<(NodeId, Host)>")]
pub(super) struct Roster {
    /// As they joined.
    hosts: Vec<(NodeId, Host)>,
    places: Named<NodeId, usize>,
}

impl Roster {
    /// Where the host is, from when it joins on.
    pub(super) fn place(&self, node: NodeId) -> Option<usize> {
        self.places.get(&node).copied()
    }

    pub(super) fn at(&self, place: usize) -> Option<(NodeId, &Host)> {
        self.hosts.get(place).map(|(node, host)| (*node, host))
    }

    pub(super) fn get(&self, node: NodeId) -> Option<&Host> {
        self.at(self.place(node)?).map(|(_, host)| host)
    }

    pub(super) fn get_mut(&mut self, node: NodeId) -> Option<&mut Host> {
        self.at_mut(self.place(node)?)
    }

    pub(super) fn at_mut(&mut self, place: usize) -> Option<&mut Host> {
        self.hosts.get_mut(place).map(|(_, host)| host)
    }

    /// A host that was never here joins.
    pub(super) fn insert(&mut self, node: NodeId, host: Host) {
        self.places.insert(node, self.hosts.len());
        self.hosts.push((node, host));
    }

    /// As they joined.
    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Host)> {
        self.hosts.iter().map(|(node, host)| (*node, host))
    }
}

impl From<Vec<(NodeId, Host)>> for Roster {
    fn from(hosts: Vec<(NodeId, Host)>) -> Self {
        Self { places: hosts.iter().zip(0..).map(|((node, _), place)| (*node, place)).collect(), hosts }
    }
}

impl From<Roster> for Vec<(NodeId, Host)> {
    fn from(roster: Roster) -> Self {
        roster.hosts
    }
}

#[cfg(test)]
mod tests {
    use registry::{canon, id::EngineFingerprint, id::OperatorId, price::PriceTable, sign::Signed};

    use super::*;
    use crate::{engines::Engines, fleet::Fleet, flow::Offer, subnet::Subnet};

    #[test]
    fn hosts_are_found_by_name_and_walked_and_written_as_they_joined() {
        let engines = Engines::plain(EngineFingerprint([9; 32]), EngineFingerprint([8; 32]));
        let offer = Offer { slots: 1, queue_max: 0, memory_bytes_max: 1, engines, prices: PriceTable::default() };
        let mut fleet = Fleet::new(50);
        for name in [7, 1, 200, 30] {
            fleet.up(NodeId([name; 32]), OperatorId([name; 32]), Signed::nothing(), offer.clone(), Subnet::Relayed, 0);
        }
        let names: Vec<u8> = fleet.hosts.iter().map(|(node, _)| node.0[0]).collect();
        assert_eq!(names, [7, 1, 200, 30]);
        let bytes = canon::encode(&fleet.hosts);
        let read: Roster = canon::decode(&bytes, usize::MAX).unwrap();
        assert_eq!((&read, read.at(2).map(|(node, _)| node)), (&fleet.hosts, Some(NodeId([200; 32]))));
        assert!(read.get(NodeId([30; 32])).is_some() && read.get(NodeId([31; 32])).is_none());
    }
}
