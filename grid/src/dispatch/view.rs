//! What may be asked of the machine: jobs, hosts, and why a shard is where it is.

use registry::{
    id::{Commitment, JobId, NodeId, OperatorId},
    job::{Profile, ShardInfo, Stage},
};
use serde::Serialize;

use super::{
    Job, Phase, State,
    job::{Shard, ShardKey},
};
use crate::{
    fleet::{Host, Record, Suspension},
    flow::{AssignmentId, Engines, Fault, Millis},
    place,
};

/// A job at a glance.
#[derive(Debug, Clone, Serialize)]
pub struct JobView {
    /// The job.
    pub id: JobId,
    /// One word for where it is.
    pub phase: &'static str,
    /// Why it failed, if it did.
    pub reason: Option<Fault>,
    /// Shards of its map.
    pub shards: u32,
    /// Those whose result stands.
    pub accepted: u32,
    /// Executions that gave a receipt.
    pub executions: u64,
    /// Executions under way.
    pub open: usize,
    /// When it was accepted.
    pub submitted_ms: Millis,
    /// When it ended.
    pub ended_ms: Option<Millis>,
}

/// A host at a glance.
#[derive(Debug, Clone, Serialize)]
pub struct HostView {
    /// The machine.
    pub node: NodeId,
    /// Who answers for it.
    pub operator: OperatorId,
    /// Whether it is connected.
    pub connected: bool,
    /// When that last changed.
    pub since_ms: Millis,
    /// Tasks that it runs at a time.
    pub slots: u32,
    /// Assignments that it holds.
    pub in_flight: u32,
    /// Running average of its time for a task, in microseconds.
    pub task_us: u64,
    /// The conditions of its results, by profile.
    pub engines: Engines,
    /// How it did.
    #[serde(flatten)]
    pub record: Record,
    /// Why it gets no more work, if so.
    pub suspended: Option<Suspension>,
}

/// One execution of a shard.
#[derive(Debug, Clone, Serialize)]
pub struct ExecutionView {
    /// The machine.
    pub node: NodeId,
    /// Who answers for it.
    pub operator: OperatorId,
    /// What it signed; absent while it runs.
    pub commitment: Option<Commitment>,
    /// `running`, `confirmed`, `contradicted` or `undecided`.
    pub fate: &'static str,
}

/// A shard at a glance.
#[derive(Debug, Clone, Serialize)]
pub struct ShardView {
    /// Which one.
    pub shard: ShardInfo,
    /// Whether its result stands.
    pub accepted: bool,
    /// Executions that were ordered.
    pub attempts: u32,
    /// Executions that gave no result.
    pub faults: u32,
    /// The last of these.
    pub last_fault: Option<Fault>,
    /// Its executions.
    pub executions: Vec<ExecutionView>,
}

/// Why a shard is where it is.
#[derive(Debug, Clone, Serialize)]
pub struct Why {
    /// The shard.
    #[serde(flatten)]
    pub shard: ShardView,
    /// One line that says it.
    pub summary: String,
    /// What speaks for or against each host for its next execution; empty when it needs none.
    pub hosts: Vec<WhyHost>,
}

/// What speaks for or against a host.
#[derive(Debug, Clone, Serialize)]
pub struct WhyHost {
    /// The machine.
    pub node: NodeId,
    /// How well it suits.
    pub score: Option<i64>,
    /// Why it does not.
    pub reason: Option<String>,
}

impl State {
    /// The job, if it is remembered.
    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    /// The job at a glance.
    pub fn job_view(&self, id: JobId) -> Option<JobView> {
        let job = self.jobs.get(&id)?;
        let reason = match &job.phase {
            Phase::Failed { reason } => Some(reason.clone()),
            _ => None,
        };
        Some(JobView {
            id,
            phase: job.phase.verb(),
            reason,
            shards: job.shard_count(),
            accepted: job.accepted_count(),
            executions: job.executions,
            open: if job.phase.is_ended() { 0 } else { job.shards().map(|(_, shard)| shard.open.len()).sum() },
            submitted_ms: job.submitted_ms,
            ended_ms: job.ended_ms,
        })
    }

    /// Jobs, the latest first, `max` at most.
    pub fn job_views(&self, max: usize) -> Vec<JobView> {
        let mut ids: Vec<(Millis, JobId)> = self.jobs.iter().map(|(id, job)| (job.submitted_ms, *id)).collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.into_iter().take(max).filter_map(|(_, id)| self.job_view(id)).collect()
    }

    /// Every host that ever joined.
    pub fn host_views(&self) -> Vec<HostView> {
        self.fleet.hosts().map(|(node, host)| host_view(node, host)).collect()
    }

    /// A host, if it ever joined.
    pub fn host(&self, node: NodeId) -> Option<&Host> {
        self.fleet.get(node)
    }

    /// The most distinct operators that any one engine for this profile has connected: the largest quorum that can be
    /// reached now.
    pub fn operators_max(&self, profile: Profile) -> usize {
        self.fleet.operators_max(profile)
    }

    /// Executions under way.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// The job of an execution that the host has under way; none if it has no such execution, and then nothing that it says
    /// about it changes anything.
    pub fn open_job(&self, node: NodeId, id: AssignmentId) -> Option<JobId> {
        self.open.get(&id).filter(|open| open.node == node).map(|open| open.job)
    }

    /// Jobs that have not ended.
    pub fn open_jobs(&self) -> usize {
        self.jobs.len() - self.ended.len()
    }

    /// Why the shard is where it is.
    pub fn why(&self, id: JobId, stage: Stage, index: u32) -> Option<Why> {
        let job = self.jobs.get(&id)?;
        let key = ShardKey { stage, index };
        let shard = job.shard(key)?;
        let view = shard_view(self, job, key, shard);
        let waits = shard.accepted.is_none() && !job.phase.is_ended();
        let operators = shard.operators();
        let hosts =
            if waits { place::explain(&job.need(shard, &operators), &self.fleet, &self.config) } else { Vec::new() };
        let hosts: Vec<WhyHost> = hosts
            .into_iter()
            .map(|(node, result)| WhyHost {
                node,
                score: result.ok().map(|score| score.0),
                reason: result.err().map(|reason| reason.to_string()),
            })
            .collect();
        Some(Why { summary: summary(self, job, shard, &hosts), shard: view, hosts })
    }
}

fn summary(state: &State, job: &Job, shard: &Shard, hosts: &[WhyHost]) -> String {
    if shard.accepted.is_some() {
        return format!("accepted: its quorum of {} agrees", job.quorum());
    }
    if job.phase.is_ended() {
        return format!("not run to an end: the job is {}", job.phase.verb());
    }
    if !shard.open.is_empty() {
        return format!(
            "running on {} hosts, {} receipts of a quorum of {}",
            shard.open.len(),
            shard.casts.len(),
            job.quorum()
        );
    }
    if shard.not_before > 0 {
        let fault = shard.last_fault.as_ref().map_or_else(String::new, |fault| format!(" after {fault}"));
        return format!("waits to be tried again{fault}");
    }
    if hosts.is_empty() {
        return "waits: no host has joined the grid".to_owned();
    }
    let operators = state.operators_max(job.spec.profile);
    if operators < usize::from(job.quorum()) {
        return format!(
            "waits: a quorum of {} needs as many operators, {} are connected on one engine",
            job.quorum(),
            operators
        );
    }
    "queued: it gets the next host that fits".to_owned()
}

fn shard_view(state: &State, job: &Job, key: ShardKey, shard: &Shard) -> ShardView {
    let truth = shard.accepted.as_ref().map(|(commitment, _)| *commitment);
    let cast = shard.casts.iter().map(|cast| ExecutionView {
        node: cast.node(),
        operator: cast.operator(),
        commitment: Some(cast.commitment()),
        fate: match truth {
            None => "undecided",
            Some(truth) if truth == cast.commitment() => "confirmed",
            Some(_) => "contradicted",
        },
    });
    let open = shard.open.iter().filter_map(|(id, operator)| {
        let node = state.open.get(id)?.node;
        Some(ExecutionView { node, operator: *operator, commitment: None, fate: "running" })
    });
    ShardView {
        shard: job.info(key),
        accepted: truth.is_some(),
        attempts: shard.attempts,
        faults: shard.faults,
        last_fault: shard.last_fault.clone(),
        executions: cast.chain(open).collect(),
    }
}

fn host_view(node: NodeId, host: &Host) -> HostView {
    HostView {
        node,
        operator: host.operator,
        connected: host.connected,
        since_ms: host.since_ms,
        slots: host.offer.slots,
        in_flight: host.in_flight,
        task_us: host.task_us,
        engines: host.offer.engines,
        record: host.record,
        suspended: host.suspended.clone(),
    }
}
