//! Where hosts are seen whose results may be accepted alone: those that may audit.

use std::collections::{BTreeMap, BTreeSet};

use registry::id::NodeId;
use serde::{Deserialize, Serialize};

use crate::subnet::Subnet;

/// Part of them that has to be elsewhere for an audit to wait for one: a few could not keep up with the audits of many.
const ELSEWHERE_MIN: usize = 8;

/// Such hosts, by subnet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    subnets: BTreeMap<Subnet, BTreeSet<NodeId>>,
    all: usize,
}

impl Seen {
    pub(super) fn insert(&mut self, node: NodeId, subnet: Subnet) {
        self.all += usize::from(self.subnets.entry(subnet).or_default().insert(node));
    }

    pub(super) fn remove(&mut self, node: NodeId, subnet: Subnet) {
        let Some(nodes) = self.subnets.get_mut(&subnet) else { return };
        self.all -= usize::from(nodes.remove(&node));
        if nodes.is_empty() {
            self.subnets.remove(&subnet);
        }
    }

    /// Those in other subnets; none where they are less than an eighth of all.
    pub(super) fn elsewhere(&self, than: Subnet) -> impl Iterator<Item = NodeId> {
        let near = self.subnets.get(&than).map_or(0, BTreeSet::len);
        let is_enough = (self.all - near) * ELSEWHERE_MIN >= self.all;
        let others = self.subnets.iter().filter(move |(subnet, _)| is_enough && **subnet != than);
        others.flat_map(|(_, nodes)| nodes).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_elsewhere_are_not_waited_for() {
        let (mut seen, [here, there]) = (Seen::default(), [1, 2].map(|site| Subnet::V4([203, 0, site])));
        (0..8).for_each(|node| seen.insert(NodeId([node; 32]), here));
        let elsewhere = |seen: &Seen| seen.elsewhere(here).count();
        seen.insert(NodeId([100; 32]), there);
        assert_eq!(elsewhere(&seen), 0);
        seen.remove(NodeId([7; 32]), here);
        seen.remove(NodeId([7; 32]), here);
        assert_eq!((elsewhere(&seen), seen.elsewhere(there).count(), seen.all), (1, 7, 8));
    }
}
