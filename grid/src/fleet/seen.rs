//! Where operators' hosts are seen whose results may be accepted alone: those that may audit.
//!
//! Operators count and not their hosts, of which one may have any number. What is only reached through a relay is elsewhere than
//! nothing, since any host may go through one.

use std::collections::{BTreeMap, BTreeSet};

use registry::id::{NodeId, OperatorId};
use serde::{Deserialize, Serialize};

use crate::{named::Named, subnet::Subnet};

/// Such hosts, by subnet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    subnets: BTreeMap<Subnet, BTreeMap<OperatorId, BTreeSet<NodeId>>>,
    /// Subnets in which an operator has any.
    operators: BTreeMap<OperatorId, u32>,
}

impl Seen {
    pub(super) fn is_empty(&self) -> bool {
        self.operators.is_empty()
    }

    pub(super) fn insert(&mut self, node: NodeId, operator: OperatorId, subnet: Subnet) {
        let nodes = self.subnets.entry(subnet).or_default().entry(operator).or_default();
        if nodes.is_empty() {
            *self.operators.entry(operator).or_default() += 1;
        }
        nodes.insert(node);
    }

    pub(super) fn remove(&mut self, node: NodeId, operator: OperatorId, subnet: Subnet) {
        let Some(operators) = self.subnets.get_mut(&subnet) else { return };
        let Some(nodes) = operators.get_mut(&operator) else { return };
        if !nodes.remove(&node) || !nodes.is_empty() {
            return;
        }
        operators.remove(&operator);
        if operators.is_empty() {
            self.subnets.remove(&subnet);
        }
        if let Some(subnets) = self.operators.get_mut(&operator) {
            *subnets -= 1;
            if *subnets == 0 {
                self.operators.remove(&operator);
            }
        }
    }

    /// Whether these are all that are here.
    pub(super) fn is_of(&self, mut hosts: impl Iterator<Item = (NodeId, (OperatorId, Subnet))>) -> bool {
        let nodes = |subnet, operator| self.subnets.get(&subnet).and_then(|operators| operators.get(&operator));
        let mut found = 0;
        let are_here = hosts.all(|(node, (operator, subnet))| {
            found += 1;
            nodes(subnet, operator).is_some_and(|nodes| nodes.contains(&node))
        });
        let mut operators: Named<OperatorId, u32> = Named::default();
        self.subnets.values().flat_map(BTreeMap::keys).for_each(|name| *operators.entry(*name).or_default() += 1);
        let kept: usize = self.subnets.values().flat_map(BTreeMap::values).map(BTreeSet::len).sum();
        let are_counted = self.operators.iter().all(|(operator, subnets)| operators.get(operator) == Some(subnets));
        are_here && kept == found && are_counted && operators.len() == self.operators.len()
    }

    /// Those in other subnets; none where fewer than half of the operators are there alone: a few could not keep up with the audits of
    /// many, and whoever has some of them would audit more than its share.
    pub(super) fn elsewhere(&self, than: Subnet) -> impl Iterator<Item = NodeId> {
        let in_it = |subnet: Subnet| self.subnets.get(&subnet).map_or(0, BTreeMap::len);
        let near = in_it(than) + if than.is_relayed() { 0 } else { in_it(Subnet::Relayed) };
        let is_enough = 2 * self.operators.len().saturating_sub(near) >= self.operators.len();
        let others =
            self.subnets.iter().filter(move |(subnet, _)| is_enough && **subnet != than && !subnet.is_relayed());
        others.flat_map(|(_, operators)| operators.values().flatten()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_operators_elsewhere_are_not_waited_for_however_many_hosts_they_have() {
        let (mut seen, [here, there]) = (Seen::default(), [1, 2].map(|site| Subnet::V4([203, 0, site])));
        let operator = |name: u8| OperatorId([name; 32]);
        (0..4).for_each(|name| seen.insert(NodeId([name; 32]), operator(name), here));
        (100..150).for_each(|node| seen.insert(NodeId([node; 32]), operator(9), there));
        let elsewhere = |seen: &Seen| seen.elsewhere(here).count();
        assert_eq!((elsewhere(&seen), seen.elsewhere(there).count()), (0, 4));
        (10..13).for_each(|name| seen.insert(NodeId([name; 32]), operator(name), there));
        assert_eq!(elsewhere(&seen), 53);
        // Through a relay everybody may be anywhere.
        (20..24).for_each(|name| seen.insert(NodeId([name; 32]), operator(name), Subnet::Relayed));
        assert_eq!(elsewhere(&seen), 0);
        (20..24).for_each(|name| seen.remove(NodeId([name; 32]), operator(name), Subnet::Relayed));
        (0..2).for_each(|_| seen.remove(NodeId([10; 32]), operator(10), there));
        assert_eq!((seen.operators.len(), elsewhere(&seen)), (7, 0));
    }
}
