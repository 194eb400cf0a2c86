//! What may be asked of the machine: jobs and hosts. `why`: why a shard is where it is. `costs`: what that costs. `operators`: what
//! operators have shown. `doubtful`: what was delivered on the word of those that were caught since.

mod costs;
mod doubtful;
mod operators;
mod why;

use registry::{
    audit::Secret,
    credits::Credits,
    id::{JobId, ModuleHash, NodeId, OperatorId, SecretHash},
    job::{Class, Policy},
    price::PriceTable,
};
use serde::Serialize;

pub use self::costs::{Costs, HostQuote, Pay};
pub use self::doubtful::Doubtful;
pub use self::operators::{ClassView, OperatorView};
use self::why::standstill;
pub use self::why::{ExecutionView, Purpose, ShardView, Why};
use super::{Job, Phase, State, Unsteady, checkpoint};
use crate::{
    config::Config,
    engines::{EngineAsk, Engines},
    fleet::{Host, Record, Suspension},
    flow::{AssignmentId, Fault, Millis},
    ledger::Ledger,
    reputation,
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
    /// How its results are checked.
    pub policy: Policy,
    /// What commits to the secret that decides which of them are audited.
    pub secret_hash: SecretHash,
    /// That secret, once the job has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// What it may cost and has cost; absent when nobody pays for it, or when that is settled and forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub costs: Option<Costs>,
    /// What has to change before anything of it is run, when no host that is there can; left out of lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
    /// That nobody reproduced a result of its module, in this job or in another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsteady: Option<Unsteady>,
    /// Results that rest on the word of operators that were caught since; left out of lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doubtful: Option<Doubtful>,
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
    /// Where it is seen, e.g. `203.0.113.0/24`.
    pub subnet: String,
    /// What it runs tasks on, as it measured that.
    pub engines: Engines,
    /// How it did.
    #[serde(flatten)]
    pub record: Record,
    /// Whether its operator's results may be accepted alone, in class `exact`.
    pub qualified: bool,
    /// Whether the grid's owner answers for its operator.
    pub vouched: bool,
    /// What its operator has shown in class `exact`.
    pub standing: reputation::Standing,
    /// What it asks.
    #[serde(skip_serializing_if = "PriceTable::is_free")]
    pub prices: PriceTable,
    /// What its operator can lose: stake, and what it has earned and is not settled; in micro-credits.
    pub at_risk: Credits,
    /// Why it gets no more work, if so.
    pub suspended: Option<Suspension>,
}

impl State {
    /// The job, if it is remembered.
    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    /// The job at a glance.
    pub fn job_view(&self, id: JobId) -> Option<JobView> {
        let doubtful = self.jobs.get(&id).and_then(|job| self.doubtful(job));
        Some(JobView { waits: self.waits(id), doubtful, ..self.glance(id)? })
    }

    fn glance(&self, id: JobId) -> Option<JobView> {
        let job = self.jobs.get(&id)?;
        let reason = match &job.phase {
            Phase::Failed { reason } => Some(reason.clone()),
            _ => None,
        };
        let (secret_hash, secret) = job.secret();
        Some(JobView {
            id,
            policy: job.spec.policy,
            secret_hash,
            secret,
            phase: job.phase.verb(),
            reason,
            shards: job.shard_count(),
            accepted: job.accepted_count(),
            executions: job.executions,
            open: if job.phase.is_ended() { 0 } else { job.shards().map(|(_, shard)| shard.open.len()).sum() },
            submitted_ms: job.submitted_ms,
            ended_ms: job.ended_ms,
            costs: self.costs(id),
            waits: None,
            unsteady: self.unsteady(job.spec.module),
            doubtful: None,
        })
    }

    /// That nobody reproduced a result of the module, if so.
    pub fn unsteady(&self, module: ModuleHash) -> Option<Unsteady> {
        self.unsteady.get(module)
    }

    /// Why nothing of the job can be run by the hosts that are there, if so.
    pub(super) fn waits(&self, id: JobId) -> Option<String> {
        let job = self.jobs.get(&id).filter(|job| !job.queued.is_empty())?;
        let is_idle = job.shards().all(|(_, shard)| shard.open.is_empty());
        if is_idle { standstill(self, id, job) } else { None }
    }

    /// Jobs, the latest first, `max` at most.
    pub fn job_views(&self, max: usize) -> Vec<JobView> {
        let mut ids: Vec<(Millis, JobId)> = self.jobs.iter().map(|(id, job)| (job.submitted_ms, *id)).collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.into_iter().take(max).filter_map(|(_, id)| self.glance(id)).collect()
    }

    /// Every host that ever joined.
    pub fn host_views(&self) -> Vec<HostView> {
        self.fleet.hosts().map(|(node, host)| host_view(self, node, host)).collect()
    }

    /// A host, if it ever joined.
    pub fn host(&self, node: NodeId) -> Option<&Host> {
        self.fleet.get(node)
    }

    /// The most distinct operators that any one engine has connected that suits: the largest quorum that can be reached now.
    pub fn operators_max(&self, ask: &EngineAsk) -> usize {
        self.fleet.operators_max(ask)
    }

    /// The parameters that decide now.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Jobs that are remembered.
    pub fn jobs_known(&self) -> impl Iterator<Item = JobId> {
        self.jobs.keys().copied()
    }

    /// Who has which credits.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Executions under way.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// The job of an execution that the host has under way; none if it has no such execution, and then nothing that it says
    /// about it changes anything.
    pub fn open_job(&self, node: NodeId, id: AssignmentId) -> Option<JobId> {
        self.open.get(id).filter(|open| open.node == node).map(|open| open.job)
    }

    /// Whether a host that keeps a state of this execution, after so much fuel, has kept none that is farther.
    pub fn wants_checkpoint(&self, node: NodeId, id: AssignmentId, fuel_used: u64) -> bool {
        checkpoint::is_farther(self, node, id, fuel_used)
    }

    /// The job of an order to find a state, if the host has such an order.
    pub fn finds_state(&self, node: NodeId, id: AssignmentId) -> Option<JobId> {
        self.open.get(id).filter(|open| open.node == node && open.until.is_some()).map(|open| open.job)
    }

    /// Whether the operator's results may be accepted alone.
    pub fn is_qualified(&self, operator: OperatorId, class: Class) -> bool {
        self.reputation.qualified(class).contains(&operator)
    }

    /// Jobs that have not ended.
    pub fn open_jobs(&self) -> usize {
        self.jobs.len() - self.ended.len()
    }
}

fn host_view(state: &State, node: NodeId, host: &Host) -> HostView {
    HostView {
        qualified: state.reputation.qualified(Class::Exact).contains(&host.operator),
        vouched: state.config.vouched.contains(&host.operator),
        standing: state.reputation.standing(host.operator, Class::Exact),
        prices: host.offer.prices.clone(),
        at_risk: state.ledger.at_risk(host.operator),
        node,
        operator: host.operator,
        connected: host.connected,
        since_ms: host.since_ms,
        slots: host.offer.slots,
        in_flight: host.in_flight(),
        task_us: host.task_us,
        subnet: host.subnet.to_string(),
        engines: host.offer.engines.clone(),
        record: host.record,
        suspended: host.suspended.as_deref().cloned(),
    }
}
