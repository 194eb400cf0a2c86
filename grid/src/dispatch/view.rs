//! What may be asked of the machine: jobs, hosts, and why a shard is where it is. `costs`: what that costs. `operators`: what
//! operators have shown. `doubtful`: what was delivered on the word of those that were caught since.

mod costs;
mod doubtful;
mod operators;

use std::collections::BTreeMap;

use registry::{
    audit::Secret,
    credits::Credits,
    device::Device,
    id::{Commitment, EngineFingerprint, JobId, ModuleHash, NodeId, OperatorId, SecretHash},
    job::{Class, Policy, ShardInfo, Stage},
    price::PriceTable,
};
use serde::Serialize;

use self::costs::pay;
pub use self::costs::{Costs, HostQuote, Pay};
pub use self::doubtful::Doubtful;
pub use self::operators::{ClassView, OperatorView};
use super::{
    Job, Phase, State, Unsteady, checkpoint,
    job::{Shard, ShardKey},
    schedule, trial,
};
use crate::{
    config::Config,
    engines::{EngineAsk, Engines},
    fleet::{Host, Record, Suspension},
    flow::{AssignmentId, Checkpoint, Fault, Millis},
    ledger::{Ledger, Role},
    place::{self, Among},
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

/// One execution of a shard.
#[derive(Debug, Clone, Serialize)]
pub struct ExecutionView {
    /// The machine.
    pub node: NodeId,
    /// Who answers for it.
    pub operator: OperatorId,
    /// What its models run on; absent when there is nothing to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// What it signed; absent while it runs.
    pub commitment: Option<Commitment>,
    /// `running`, `confirmed`, `contradicted` or `undecided`.
    pub fate: &'static str,
    /// What it costs; absent in a job that nobody pays for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pay: Option<Pay>,
    /// While it runs: the last state that was kept of it, or that it went on from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
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
    /// Those that went on from a state that was kept of an earlier one.
    pub resumed: u32,
    /// The state that the next one may go on from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
}

/// What an execution is for. Its host cannot tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The policy asks for it before anything is known.
    Work,
    /// It repeats a result that was drawn for an audit, or one that only newcomers have signed.
    Audit,
    /// A newcomer repeats a result that stands.
    Qualification,
    /// Results differ.
    Dispute,
    /// An earlier execution is slow, gave no result, or is not believed any more.
    Again,
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

    /// What an execution under way is for, as things are now.
    pub fn purpose(&self, id: AssignmentId) -> Option<Purpose> {
        let open = self.open.get(id)?;
        let job = self.jobs.get(&open.job)?;
        let shard = job.shard(open.shard)?;
        let given = shard.open.len() + shard.casts.len();
        Some(if open.probe {
            Purpose::Qualification
        } else if shard.is_disputed(&self.config) {
            Purpose::Dispute
        } else if given > usize::from(shard.quorum) {
            Purpose::Again
        } else if given > usize::from(job.spec.policy.quorum()) {
            Purpose::Audit
        } else if usize::try_from(shard.attempts).is_ok_and(|all| all > given) {
            Purpose::Again
        } else {
            Purpose::Work
        })
    }

    /// Whether the operator's results may be accepted alone.
    pub fn is_qualified(&self, operator: OperatorId, class: Class) -> bool {
        self.reputation.qualified(class).contains(&operator)
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
        let view = shard_view(self, id, job, key, shard);
        let waits = shard.accepted.is_none() && !job.phase.is_ended();
        let operators = shard.operators();
        let heirs = checkpoint::left(shard).filter(|_| job.queued.is_kept(key)).map(|kept| kept.heirs(self, id));
        let mut need = schedule::need(self, id, job, shard, &operators);
        if let Some(heirs) = &heirs {
            need.among = Among::Heirs(heirs);
        }
        let hosts = if waits { place::explain(&need, &self.fleet, &self.config) } else { Vec::new() };
        let hosts: Vec<WhyHost> = hosts
            .into_iter()
            .map(|(node, result)| WhyHost {
                node,
                score: result.ok().map(|fit| fit.score.0),
                reason: result.err().map(|reason| reason.to_string()),
            })
            .collect();
        Some(Why { summary: summary(self, id, job, key, shard), shard: view, hosts })
    }
}

fn summary(state: &State, id: JobId, job: &Job, key: ShardKey, shard: &Shard) -> String {
    if shard.accepted.is_some() {
        let stands = match (&shard.drawn, shard.sole_witness()) {
            (Some(drawn), Some(_)) => {
                format!("accepted on one operator's word: not drawn for an audit, at a rate of {} ppm", drawn.rate_ppm)
            }
            (Some(drawn), None) => format!("accepted: audited, at a rate of {} ppm", drawn.rate_ppm),
            (None, _) => format!("accepted: its quorum of {} agrees", shard.quorum),
        };
        let doubted: Vec<String> = state.doubted(shard).iter().map(ToString::to_string).collect();
        return match doubted.as_slice() {
            [] => stands,
            [operator] => format!("{stands}; operator {operator} was caught since, so it may be wrong"),
            several => format!("{stands}; operators {} were caught since, so it may be wrong", several.join(" and ")),
        };
    }
    if job.phase.is_ended() {
        return format!("not run to an end: the job is {}", job.phase.verb());
    }
    if let Some(trial) = trial::shown(shard) {
        return trial;
    }
    if !shard.open.is_empty() {
        return format!(
            "running on {} hosts, {} receipts of a quorum of {}",
            shard.open.len(),
            shard.casts.len(),
            shard.quorum
        );
    }
    if shard.not_before > 0 {
        let fault = shard.last_fault.as_ref().map_or_else(String::new, |fault| format!(" after {fault}"));
        return match checkpoint::left(shard) {
            Some(kept) => format!("waits to be tried again{fault}; it may go on from state {}", kept.checkpoint.index),
            None => format!("waits to be tried again{fault}"),
        };
    }
    if let Some(kept) = checkpoint::left(shard).filter(|_| job.queued.is_kept(key)) {
        return format!(
            "waits for a host of its operator to have room and go on from state {}; in the end another begins anew",
            kept.checkpoint.index
        );
    }
    match standstill(state, id, job) {
        Some(why) => format!("waits: {why}"),
        None => "queued: it gets the next host that fits".to_owned(),
    }
}

/// Why no shard of the job can be run by the hosts that are there, however idle they were.
fn standstill(state: &State, id: JobId, job: &Job) -> Option<String> {
    let there = || state.fleet.hosts().filter(|(_, host)| host.connected && host.suspended.is_none());
    let count = there().count();
    if count == 0 {
        let joined = state.fleet.hosts().next().is_some();
        return Some(if joined { "no host is connected" } else { "no host has joined the grid" }.to_owned());
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for (_, host) in there() {
        let device = job.spec.device;
        let affordable = || place::affordable(&job.spec.limits, device, state.ledger.free_for(id, Role::Audit), host);
        if let Err(reason) = job.capable(host).and_then(|()| affordable()) {
            *reasons.entry(reason.to_string()).or_default() += 1;
        }
    }
    if reasons.values().sum::<usize>() == count {
        return Some(nobody(count, &reasons));
    }
    let (operators, quorum) = (state.operators_max(&EngineAsk::from(&job.spec)), job.spec.policy.operators());
    (operators < usize::from(quorum)).then(|| {
        format!("a quorum of {quorum} needs as many operators, {operators} are connected on one engine that suits")
    })
}

/// No connected host can ever run it, for these reasons.
fn nobody(hosts: usize, reasons: &BTreeMap<String, usize>) -> String {
    let mut all = reasons.iter();
    match (all.next(), all.next()) {
        (Some((reason, _)), None) => format!("none of the {hosts} connected hosts can run it: each {reason}"),
        _ => {
            let each: Vec<String> = reasons.iter().map(|(reason, of)| format!("{of} {reason}")).collect();
            format!("none of the {hosts} connected hosts can run it: {}", each.join("; "))
        }
    }
}

fn shard_view(state: &State, id: JobId, job: &Job, key: ShardKey, shard: &Shard) -> ShardView {
    let truth = shard.accepted.as_ref().map(|(commitment, _)| *commitment);
    let cast = shard.casts.iter().map(|cast| ExecutionView {
        node: cast.node(),
        operator: cast.operator(),
        device: cast.inferred().then(|| device(state, cast.node(), cast.engine())).flatten(),
        commitment: Some(cast.commitment()),
        fate: match truth {
            None => "undecided",
            Some(truth) if truth == cast.commitment() => "confirmed",
            Some(_) => "contradicted",
        },
        pay: pay(state, id, job, key, cast),
        checkpoint: None,
    });
    let open = shard.open.iter().filter_map(|(assignment, operator)| {
        let open = state.open.get(*assignment)?;
        let pay = state.ledger.held(id, *assignment).map(|worst| Pay::Held { worst });
        let device = (!job.spec.models.is_empty()).then(|| device(state, open.node, open.engine)).flatten();
        let checkpoint = open.kept.as_ref().map(|kept| kept.checkpoint);
        let (node, operator) = (open.node, *operator);
        Some(ExecutionView { node, operator, device, commitment: None, fate: "running", pay, checkpoint })
    });
    ShardView {
        shard: job.info(key),
        accepted: truth.is_some(),
        attempts: shard.attempts,
        faults: shard.faults,
        last_fault: shard.last_fault.as_deref().cloned(),
        executions: cast.chain(open).collect(),
        resumed: shard.resumed,
        checkpoint: checkpoint::left(shard).map(|kept| kept.checkpoint),
    }
}

/// What this engine of a host infers on, as the host offers it now.
fn device(state: &State, node: NodeId, engine: EngineFingerprint) -> Option<Device> {
    state.fleet.get(node)?.offer.engines.get(engine)?.device.clone()
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
