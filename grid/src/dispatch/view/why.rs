//! Why a shard is where it is: for whom it waits, why its result stands, what each of its executions was for and what came of it.

use std::collections::BTreeMap;

use registry::{
    device::Device,
    id::{Commitment, EngineFingerprint, JobId, NodeId, OperatorId},
    job::{ShardInfo, Stage},
};
use serde::{Deserialize, Serialize};

use super::{
    super::{
        Job, State,
        cast::Cast,
        checkpoint,
        job::{Shard, ShardKey},
        referee, schedule, trial,
    },
    Pay,
    costs::pay,
};
use crate::{
    engines::EngineAsk,
    fleet::Suspension,
    flow::{AssignmentId, Checkpoint, Fault},
    ledger::Role,
    place::{self, Among},
};

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
    /// What it is for.
    pub purpose: Purpose,
    /// `running`, `confirmed`, `contradicted` or `undecided`.
    pub fate: &'static str,
    /// In what its operator was caught, here or elsewhere, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caught: Option<Suspension>,
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The policy asks for it before anything is known.
    #[default]
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
    /// What an execution under way is for.
    pub fn purpose(&self, id: AssignmentId) -> Option<Purpose> {
        self.open.get(id).map(|open| open.purpose)
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
        return stands(state, id, job, shard);
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
    if shard.is_disputed(&state.config) && referee::is_awaited(state, id, job, shard) {
        return "its results differ: it waits for an operator that the grid's owner answers for".to_owned();
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

/// Why an accepted result stands.
fn stands(state: &State, id: JobId, job: &Job, shard: &Shard) -> String {
    let supporting = shard.supporters();
    let supporters = supporting.len();
    let drawn = shard.drawn.map(|drawn| (drawn.audits(&job.secret, id), drawn.rate_ppm));
    let stands = match drawn {
        Some((true, rate_ppm)) => {
            format!("accepted by {supporters} operators: drawn for an audit, at a rate of {rate_ppm} ppm")
        }
        Some((false, rate_ppm)) if supporters == 1 => {
            format!("accepted on one operator's word: not drawn for an audit, at a rate of {rate_ppm} ppm")
        }
        Some((false, rate_ppm)) => {
            format!(
                "accepted: {supporters} operators agree, though it was not drawn for an audit, at a rate of {rate_ppm} ppm"
            )
        }
        None => format!("accepted: its quorum of {} agrees", shard.quorum),
    };
    let (referees, newcomers): (Vec<OperatorId>, Vec<OperatorId>) =
        shard.witnesses().difference(&supporting).partition(|operator| state.config.vouched.contains(operator));
    let refereed = if referees.is_empty() { "" } else { "; one that the grid's owner answers for came to the same" };
    let repeated = match newcomers.len() {
        0 => String::new(),
        1 => "; a newcomer has repeated it".to_owned(),
        several => format!("; {several} newcomers have repeated it"),
    };
    let doubted: Vec<String> = state.doubted(shard).iter().map(ToString::to_string).collect();
    let doubt = match doubted.as_slice() {
        [] => String::new(),
        [operator] => format!("; operator {operator} was caught since, so it may be wrong"),
        several => format!("; operators {} were caught since, so it may be wrong", several.join(" and ")),
    };
    format!("{stands}{refereed}{repeated}{doubt}")
}

/// Why no shard of the job can be run by the hosts that are there, however idle they were.
pub(super) fn standstill(state: &State, id: JobId, job: &Job) -> Option<String> {
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
        purpose: purpose(state, cast),
        caught: caught(state, cast.operator()),
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
        let (node, operator, purpose) = (open.node, *operator, open.purpose);
        let caught = caught(state, operator);
        let (commitment, fate) = (None, "running");
        Some(ExecutionView { node, operator, device, commitment, purpose, fate, caught, pay, checkpoint })
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

/// What an execution was for. Who referees has nothing to show: it repeats what a newcomer has contradicted.
fn purpose(state: &State, cast: &Cast) -> Purpose {
    match cast.purpose() {
        Purpose::Qualification if state.config.vouched.contains(&cast.operator()) => Purpose::Dispute,
        purpose => purpose,
    }
}

/// In what an operator was caught.
fn caught(state: &State, operator: OperatorId) -> Option<Suspension> {
    state.fleet.suspension(operator).cloned()
}

/// What this engine of a host infers on, as the host offers it now.
fn device(state: &State, node: NodeId, engine: EngineFingerprint) -> Option<Device> {
    state.fleet.get(node)?.offer.engines.get(engine)?.device.clone()
}
