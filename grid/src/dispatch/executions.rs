//! Executions under way, by the numbers of their orders.
//!
//! Tens of thousands come and go all the time, and nothing is said of them in their order but in snapshots and where somebody is
//! caught: so a hash finds them, and who walks them in order sorts them first.

use registry::id::{EngineFingerprint, JobId, NodeId, OperatorId};
use serde::{Deserialize, Serialize};

use super::{Purpose, checkpoint::Kept, job::ShardKey, timers::OfExecution};
use crate::{
    flow::{AssignmentId, Millis, Until},
    named::Named,
    subnet::Subnet,
};

/// One execution that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Open {
    pub(super) job: JobId,
    pub(super) shard: ShardKey,
    pub(super) node: NodeId,
    pub(super) operator: OperatorId,
    /// Which of the host's engines it was ordered on.
    pub(super) engine: EngineFingerprint,
    pub(super) since: Millis,
    /// When its lease ends.
    pub(super) lease_until: Millis,
    /// Its entry among the timers.
    pub(super) timer: (Millis, OfExecution),
    /// Where the host was seen then.
    #[serde(default, skip_serializing_if = "Subnet::is_relayed")]
    pub(super) subnet: Subnet,
    /// It takes so long that another host is asked too.
    pub(super) straggling: bool,
    /// What it was ordered for.
    #[serde(default)]
    pub(super) purpose: Purpose,
    /// It repeats a result that stands, to show what its operator is worth.
    #[serde(default)]
    pub(super) probe: bool,
    /// It is of a trial, and ends at this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<Until>,
    /// The last state that was kept of it, or that it went on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) kept: Option<Box<Kept>>,
    /// Fuel after which it went on from an earlier one's state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) from_fuel: Option<u64>,
}

/// All of them. They are written as an ordered map.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Executions(Named<AssignmentId, Open>);

impl Executions {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn contains(&self, id: AssignmentId) -> bool {
        self.0.contains_key(&id)
    }

    pub(super) fn get(&self, id: AssignmentId) -> Option<&Open> {
        self.0.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: AssignmentId) -> Option<&mut Open> {
        self.0.get_mut(&id)
    }

    pub(super) fn insert(&mut self, id: AssignmentId, open: Open) {
        self.0.insert(id, open);
    }

    pub(super) fn remove(&mut self, id: AssignmentId) -> Option<Open> {
        self.0.remove(&id)
    }

    /// In no order.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (AssignmentId, &mut Open)> {
        self.0.iter_mut().map(|(id, open)| (*id, open))
    }

    /// In no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (AssignmentId, &Open)> {
        self.0.iter().map(|(id, open)| (*id, open))
    }

    /// Those of an operator's hosts, in the order in which they were given out.
    pub(super) fn of(&self, operator: OperatorId) -> Vec<AssignmentId> {
        let mut of: Vec<_> = self.0.iter().filter(|(_, open)| open.operator == operator).map(|(id, _)| *id).collect();
        of.sort_unstable();
        of
    }
}
