//! What happens by itself as time passes: leases end, stragglers are hedged, back-offs and graces end, jobs time out.

use std::collections::BTreeSet;

use registry::id::{JobId, NodeId};
use serde::{Deserialize, Serialize};

use super::{Effect, Job, Phase, State, Timer, end, job::ShardKey, referee, settle, standing, trial};
use crate::flow::{AssignmentId, Fault, Millis};

/// Hosts have this many graces to come back after the coordinator itself was away.
const RESTART_GRACES: u64 = 5;

/// Timers in their order. Executions have by far the most, and short names: they are kept apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Timers {
    executions: BTreeSet<(Millis, OfExecution)>,
    others: BTreeSet<(Millis, Timer)>,
}

/// Those of executions, which come before all others of the same time, as one number: there are as many as executions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub(super) struct OfExecution(u64);

/// How it is written.
#[derive(Serialize, Deserialize)]
enum Written {
    Straggler(AssignmentId),
    Lease(AssignmentId),
}

/// Of two of the same time the lease comes last. No grid gives out as many orders as that.
const LEASE: u64 = 1 << 63;

impl OfExecution {
    pub(super) fn straggler(id: AssignmentId) -> Self {
        Self(id.0)
    }

    pub(super) fn lease(id: AssignmentId) -> Self {
        Self(id.0 | LEASE)
    }

    fn of(timer: Timer) -> Option<Self> {
        match timer {
            Timer::Straggler(id) => Some(Self::straggler(id)),
            Timer::Lease(id) => Some(Self::lease(id)),
            Timer::Retry(..) | Timer::Deadline(_) | Timer::Lost(_) | Timer::Scan => None,
        }
    }
}

impl From<OfExecution> for Written {
    fn from(OfExecution(timer): OfExecution) -> Self {
        let id = AssignmentId(timer & !LEASE);
        if timer < LEASE { Self::Straggler(id) } else { Self::Lease(id) }
    }
}

impl From<Written> for OfExecution {
    fn from(written: Written) -> Self {
        match written {
            Written::Straggler(id) => Self::straggler(id),
            Written::Lease(id) => Self::lease(id),
        }
    }
}

impl From<OfExecution> for Timer {
    fn from(timer: OfExecution) -> Self {
        match timer.into() {
            Written::Straggler(id) => Self::Straggler(id),
            Written::Lease(id) => Self::Lease(id),
        }
    }
}

impl Timers {
    pub(super) fn insert(&mut self, (due, timer): (Millis, impl Into<Timer>)) {
        let timer = timer.into();
        match OfExecution::of(timer) {
            Some(execution) => self.executions.insert((due, execution)),
            None => self.others.insert((due, timer)),
        };
    }

    pub(super) fn remove(&mut self, (due, timer): (Millis, impl Into<Timer>)) {
        let timer = timer.into();
        match OfExecution::of(timer) {
            Some(execution) => self.executions.remove(&(due, execution)),
            None => self.others.remove(&(due, timer)),
        };
    }

    /// Whether there is this one of an execution.
    pub(super) fn contains(&self, timer: &(Millis, OfExecution)) -> bool {
        self.executions.contains(timer)
    }

    /// What is due first.
    pub(super) fn first(&self) -> Option<(Millis, Timer)> {
        let execution = self.executions.first().map(|(due, timer)| (*due, Timer::from(*timer)));
        execution.into_iter().chain(self.others.first().copied()).min()
    }
}

/// Handles every timer that is due.
pub(super) fn tick(state: &mut State, now: Millis, effects: &mut Vec<Effect>) {
    while let Some((due, timer)) = state.timers.first()
        && due <= now
    {
        state.timers.remove((due, timer));
        match timer {
            Timer::Straggler(id) => straggler(state, id, now, effects),
            Timer::Lease(id) => lease_over(state, id, now, effects),
            Timer::Retry(job, key) => retry(state, job, key, now, effects),
            Timer::Deadline(job) => {
                let late = "the job's deadline passed before all its shards were accepted".to_owned();
                let fault = Fault::new("deadline", state.waits(job).unwrap_or(late));
                end(state, job, Phase::Failed { reason: fault }, now, effects);
            }
            Timer::Lost(node) => lost(state, node, now, effects),
            Timer::Scan => {}
        }
    }
}

/// Asks one more host; the straggler goes on.
fn straggler(state: &mut State, id: AssignmentId, now: Millis, effects: &mut Vec<Effect>) {
    let Some(open) = state.open.get_mut(id) else { return };
    let elapsed = now.saturating_sub(open.since);
    let average = state.jobs.get(&open.job).and_then(Job::task_ms);
    // A host that was given the job's first work and never answers must not hold it up to the end of its lease: until
    // there is something to compare with, the execution is looked at again and again, ever more rarely.
    let patience = average.map_or(elapsed * 2, |average| average.saturating_mul(state.config.hedge_factor));
    let due = open.since.saturating_add(patience.max(state.config.hedge_ms_min));
    if due > now && due < open.lease_until {
        open.timer = (due, OfExecution::straggler(id));
        state.timers.insert(open.timer);
        return;
    }
    open.straggling = !open.probe;
    open.timer = (open.lease_until, OfExecution::lease(id));
    state.timers.insert(open.timer);
    let (job, key, node) = (open.job, open.shard, open.node);
    if open.probe {
        trial::straggles(state, job, key, node, now, effects);
        return;
    }
    if let Some(shard) = state.jobs.get_mut(&job).and_then(|job| job.shard_mut(key)) {
        shard.straggling += 1;
    }
    settle::requeue(state, job, key, now);
}

fn lease_over(state: &mut State, id: AssignmentId, now: Millis, effects: &mut Vec<Effect>) {
    let Some(node) = state.open.get(id).map(|open| open.node) else { return };
    effects.push(Effect::Revoke { node, assignment: id });
    settle::fault(state, node, id, Fault::new("lease", "the host let the assignment's lease end"), now, effects);
}

fn retry(state: &mut State, job: JobId, key: ShardKey, now: Millis, effects: &mut Vec<Effect>) {
    if let Some(shard) = state.jobs.get_mut(&job).and_then(|job| job.shard_mut(key)) {
        shard.not_before = 0;
    }
    settle::judge(state, job, key, now, effects);
}

fn lost(state: &mut State, node: NodeId, now: Millis, effects: &mut Vec<Effect>) {
    if state.fleet.get(node).is_none_or(|host| host.connected) {
        return;
    }
    state.fleet.lose(node);
    for id in settle::open_of(state, node) {
        settle::fault(state, node, id, Fault::new("host_lost", "the host's connection is gone"), now, effects);
    }
    referee::host_changed(state, node);
}

/// The coordinator was away: every host has to come back, and no lease ended while nobody could answer.
pub(super) fn restarted(state: &mut State, now: Millis, effects: &mut Vec<Effect>) {
    let grace = now + state.config.host_grace_ms * RESTART_GRACES;
    let nodes: Vec<NodeId> = state.fleet.hosts().map(|(node, _)| node).collect();
    for node in nodes {
        state.fleet.down(node, now);
        standing::sort(state, node);
        state.timers.insert((grace, Timer::Lost(node)));
    }
    for (id, open) in state.open.iter_mut() {
        state.timers.remove(open.timer);
        open.lease_until = open.lease_until.max(grace);
        open.timer = (open.lease_until, OfExecution::lease(id));
        state.timers.insert(open.timer);
    }
    trial::restarted(state, effects);
    // Who waits is derived anew: a snapshot may be of a coordinator that kept it otherwise.
    let unfinished = state.jobs.iter().filter(|(_, job)| !job.phase.is_ended());
    let shards: Vec<_> = unfinished.flat_map(|(id, job)| job.shards().map(|(key, _)| (*id, key))).collect();
    shards.into_iter().for_each(|(id, key)| settle::requeue(state, id, key, now));
    for (id, job) in state.jobs.iter().filter(|(_, job)| job.phase == Phase::Concatenating) {
        effects.push(Effect::Concat { job: *id, parts: job.map_parts() });
    }
}
