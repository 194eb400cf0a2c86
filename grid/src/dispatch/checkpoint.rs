//! A task in steps that loses its host goes on elsewhere, from the last state that was kept of it.
//!
//! Who goes on from a state signs for all of the task, so a state is only taken over where that is no risk to whoever takes it:
//! - by hosts of the operator that kept it, which answers for both parts;
//! - between operators that the grid's owner answers for, and that referee each other's results anyway, where nobody pays for the job.
//!
//! All others begin anew, and not at once: where the heirs' hosts are all busy one is waited for, for as long as the state has taken.
//! Whoever begins anew at once is no farther by then. A state has one heir at a time, and only while the shard has no result: two results that grew from the
//! same state would agree whether or not that state is right.

use std::collections::BTreeSet;

use registry::id::{EngineFingerprint, JobId, NodeId, OperatorId};
use serde::{Deserialize, Serialize};

use super::{
    Open, State,
    job::{Shard, ShardKey},
};
use crate::flow::{AssignmentId, Checkpoint, Fault, Millis};

/// The word of a fault that says that a state cannot be gone on from.
pub const REFUSED: &str = "snapshot";

/// Words of faults that say nothing of what was inherited: the host is gone.
const LOST: [&str; 4] = ["host_lost", "host_restarted", "lease", "shutting_down"];

/// Executions of a shard that go on from a state: the next ones begin anew, so that whoever keeps states and fails leaves most of a
/// shard's attempts to others.
const HEIRS_MAX: u32 = 4;

/// A state that was kept, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) checkpoint: Checkpoint,
    operator: OperatorId,
    engine: EngineFingerprint,
    /// How long the execution took that came to it; nothing once another has gone on from it, since that was waited for.
    #[serde(default)]
    took_ms: Millis,
    /// Until when one who may go on from it is waited for, once its execution has come to nothing.
    #[serde(default)]
    until_ms: Millis,
}

impl Kept {
    /// Operators whose hosts may go on from it, where it is of this job.
    pub(super) fn heirs(&self, state: &State, job: JobId) -> BTreeSet<OperatorId> {
        let vouched = &state.config.vouched;
        // Whoever signs is paid for all of the task: what an operator has done must not be another one's to sell.
        let is_shared = vouched.contains(&self.operator) && !state.ledger.knows(job);
        if is_shared { vouched.clone() } else { BTreeSet::from([self.operator]) }
    }

    /// Whether one who may go on from it is waited for.
    pub(super) fn is_awaited(&self, now: Millis) -> bool {
        now < self.until_ms
    }

    /// Who has kept it.
    pub(super) fn operator(&self) -> OperatorId {
        self.operator
    }

    /// The engine that goes on from it.
    pub(super) fn engine(&self) -> EngineFingerprint {
        self.engine
    }
}

/// A host has kept a state of what it runs.
pub(super) fn kept(state: &mut State, node: NodeId, id: AssignmentId, checkpoint: Checkpoint, now: Millis) {
    if !is_farther(state, node, id, checkpoint.fuel_used) {
        return;
    }
    let Some(open) = state.open.get_mut(id) else { return };
    let (operator, engine) = (open.operator, open.engine);
    // What others have taken before was waited for when they were lost: in all nobody waits for longer than the state has taken.
    let took_ms = now.saturating_sub(open.since);
    open.kept = Some(Box::new(Kept { checkpoint, operator, engine, took_ms, until_ms: 0 }));
}

/// Whether a state after so much fuel is one to keep of the host's execution. Nobody has looked into it: one that says to be farther than
/// any can be would displace all others.
pub(super) fn is_farther(state: &State, node: NodeId, id: AssignmentId, fuel_used: u64) -> bool {
    let Some(open) = state.open.get(id).filter(|open| open.node == node && !open.probe) else { return false };
    let can_be = state.jobs.get(&open.job).is_some_and(|job| fuel_used <= job.spec.limits.fuel_max);
    can_be && open.kept.as_ref().is_none_or(|kept| fuel_used > kept.checkpoint.fuel_used)
}

/// An execution came to nothing: what was kept of it is for the next one, unless that was why, or its host has failed by itself at
/// what it had inherited.
pub(super) fn bequeath(shard: &mut Shard, open: &mut Open, fault: &Fault, now: Millis) {
    let is_lost = LOST.contains(&fault.word.as_str());
    let is_new = |kept: &Kept| open.from_fuel.is_none_or(|from| kept.checkpoint.fuel_used > from);
    let Some(kept) = open.kept.take() else { return };
    if fault.word == REFUSED || shard.accepted.is_some() || !(is_lost || is_new(&kept)) {
        return;
    }
    let fuel = |kept: &Kept| kept.checkpoint.fuel_used;
    if shard.kept.as_deref().is_none_or(|other| fuel(&kept) > fuel(other)) {
        let until_ms = now.saturating_add(kept.took_ms);
        shard.kept = Some(Box::new(Kept { until_ms, ..*kept }));
    }
}

/// What the shard's next execution may go on from.
pub(super) fn left(shard: &Shard) -> Option<&Kept> {
    shard.kept.as_deref().filter(|_| shard.casts.is_empty() && shard.resumed < HEIRS_MAX)
}

/// The same, if it is ordered of this operator on this engine: nobody else goes on from it meanwhile.
pub(super) fn inherit(
    state: &mut State,
    (id, key): (JobId, ShardKey),
    operator: OperatorId,
    engine: EngineFingerprint,
) -> Option<Box<Kept>> {
    let kept = left(state.jobs.get(&id)?.shard(key)?)?;
    let fits = kept.engine == engine && kept.heirs(state, id).contains(&operator);
    let kept = if fits { state.jobs.get_mut(&id)?.shard_mut(key)?.kept.take() } else { None };
    kept.map(|kept| Box::new(Kept { took_ms: 0, ..*kept }))
}

/// Nobody is waited for any more who may go on from what was kept of the shard.
pub(super) fn wait_no_more(shard: &mut Shard) {
    if let Some(kept) = &mut shard.kept {
        kept.until_ms = 0;
    }
}

/// Until when one is waited for who may go on from what was kept of the shard, if that is later than this.
pub(super) fn wait_ends(shard: &Shard, after: Millis) -> Option<Millis> {
    left(shard).map(|kept| kept.until_ms).filter(|until_ms| *until_ms > after)
}
