//! A job and its shards, as the machine keeps them.

use std::collections::BTreeSet;

use registry::{
    audit::{self, Drawn, Secret},
    credits::Credits,
    id::{BlobHash, Commitment, EngineFingerprint, NodeId, OperatorId, SecretHash, TaskId},
    job::{JobSpec, Policy, ShardInfo, Stage, task_id},
    receipt::Output,
};
use serde::{Deserialize, Serialize};

use super::{
    cast::Cast,
    checkpoint::{self, Kept},
    queue::{Queued, Waits},
    referee,
    trial::Trial,
    unchecked::Unchecked,
};
use crate::{
    config::Config,
    engines::EngineAsk,
    few::{Few, Seldom},
    fleet::Host,
    flow::{AssignmentId, Attested, Fault, Millis, Part, Plan, PlannedShard, Slice, Verdict, Vote},
    place::{self, Among, Lot, Need, Reason},
    subnet::Subnet,
    verify,
};

#[cfg(test)]
mod tests;

/// A shard within its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct ShardKey {
    pub(super) stage: Stage,
    pub(super) index: u32,
}

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its shards are being run.
    Mapping,
    /// The driver lays the outputs one after another.
    Concatenating,
    /// The reduce task is being run.
    Reducing,
    /// It has its result: see [`Job::result`].
    Done,
    /// It has none and gets none.
    Failed {
        /// Why.
        reason: Fault,
    },
    /// Its submitter cancelled it.
    Cancelled,
}

impl Phase {
    /// Whether the job has ended.
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Done | Self::Failed { .. } | Self::Cancelled)
    }

    /// One word for it.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Mapping => "mapping",
            Self::Concatenating => "concatenating",
            Self::Reducing => "reducing",
            Self::Done => "done",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shard {
    pub(super) planned: PlannedShard,
    pub(super) task: TaskId,
    /// The engine of its executions, from the first assignment on. Votes of other engines do not count.
    pub(super) engine: Option<EngineFingerprint>,
    /// Distinct operators that have to agree, as far as is known: more once an audit was drawn, or a newcomer has contradicted.
    pub(super) quorum: u8,
    /// Those that the policy asks for.
    pub(super) asked: u8,
    /// What was drawn for its first receipt, where results are audited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) drawn: Option<Drawn>,
    /// What was drawn for its auditor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) auditor: Option<Box<NodeId>>,
    /// Where its auditor is not to be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) apart: Option<Subnet>,
    /// Executions under way by newcomers that repeat its accepted result.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub(super) probes: Seldom<(AssignmentId, OperatorId)>,
    /// Whose receipts came of those: they decide nothing by themselves.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub(super) probers: Seldom<OperatorId>,
    /// Executions that were ordered.
    pub(super) attempts: u32,
    /// Executions under way, with the operators that have them.
    pub(super) open: Few<(AssignmentId, OperatorId)>,
    /// How many of those are straggling.
    pub(super) straggling: u8,
    pub(super) casts: Few<Cast>,
    pub(super) faults: u32,
    pub(super) faulted: Seldom<NodeId>,
    pub(super) last_fault: Option<Box<Fault>>,
    /// Not queued before this time.
    pub(super) not_before: Millis,
    pub(super) accepted: Option<(Commitment, Output)>,
    /// Blobs that its results are checked with: what models answered and which states there were, as receipts name them, and states
    /// that were given in trials.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub(super) evidence: Seldom<BlobHash>,
    /// The farthest state that was kept of executions that came to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) kept: Option<Box<Kept>>,
    /// Executions that went on from such a state.
    #[serde(default)]
    pub(super) resumed: u32,
    /// How its two results are told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) trial: Option<Box<Trial>>,
    /// Results that were refuted in that way.
    #[serde(default)]
    pub(super) refuted: u8,
    /// What was signed there, as long as the job goes on: whoever signs the same has not erred alone.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub(super) lies: Seldom<Attested>,
}

impl Shard {
    fn new(planned: PlannedShard, task: TaskId, quorum: u8) -> Self {
        Self {
            planned,
            task,
            engine: None,
            quorum,
            asked: quorum,
            drawn: None,
            auditor: None,
            apart: None,
            probes: Seldom::default(),
            probers: Seldom::default(),
            attempts: 0,
            open: Few::default(),
            straggling: 0,
            casts: Few::default(),
            faults: 0,
            faulted: Seldom::default(),
            last_fault: None,
            not_before: 0,
            accepted: None,
            evidence: Seldom::default(),
            kept: None,
            resumed: 0,
            trial: None,
            refuted: 0,
            lies: Seldom::default(),
        }
    }

    /// It is given to an operator's host, to repeat its result or for it.
    pub(super) fn order(&mut self, assignment: AssignmentId, operator: OperatorId, probe: bool) {
        if probe {
            self.probes.push((assignment, operator));
        } else {
            self.open.push((assignment, operator));
        }
    }

    /// Whether a trial has refuted whoever signed this.
    pub(super) fn is_refuted(&self, commitment: Commitment) -> bool {
        self.lies.iter().any(|lie| lie.commitment() == commitment)
    }

    /// Every comparable result, by whomever.
    fn results(&self, config: &Config) -> Few<Vote> {
        let comparable = self.casts.iter().filter(|cast| Some(cast.engine()) == self.engine);
        let vote = |cast: &Cast| {
            let operator = cast.operator();
            Vote { operator, commitment: cast.commitment(), referee: config.vouched.contains(&operator) }
        };
        comparable.map(vote).collect()
    }

    /// What counts of that. Newcomers decide nothing: however many of them say the same, it counts only as what a referee, once
    /// one has voted, agrees or disagrees with.
    fn votes(&self, config: &Config) -> Few<Vote> {
        let mut votes = self.results(config);
        // What was refuted in a trial is wrong, whoever signs it.
        votes.retain(|vote| !self.is_refuted(vote.commitment));
        if !self.probers.is_empty() && !votes.iter().any(|vote| vote.referee) {
            votes.retain(|vote| !self.probers.contains(&vote.operator));
        }
        votes
    }

    /// Distinct operators that have to agree as things are: where a referee has voted, nobody has to outnumber those that it
    /// disagrees with.
    fn needed(&self, votes: &[Vote]) -> u8 {
        let is_refereed = votes.iter().any(|vote| vote.referee) && verify::is_disputed(votes);
        if is_refereed { self.asked.max(2) } else { self.quorum }
    }

    pub(super) fn verdict(&self, config: &Config) -> Verdict {
        let votes = self.votes(config);
        // What newcomers have signed uses up none of the executions that a dispute may cost.
        let besides = u8::try_from(self.probers.len()).unwrap_or(u8::MAX);
        verify::judge(self.needed(&votes), config.replicas_max.saturating_add(besides), &votes)
    }

    /// Whether it has one by what is here, whoever may be waited for.
    pub(super) fn has_verdict(&self, config: &Config) -> bool {
        !matches!(self.verdict(config), Verdict::Open { .. })
    }

    /// The result stands; so many had to agree on it in the end.
    pub(super) fn accept(&mut self, commitment: Commitment, output: Output, config: &Config) {
        self.quorum = self.needed(&self.votes(config));
        self.accepted = Some((commitment, output));
    }

    /// Whose receipts agree with the accepted result.
    pub(super) fn agreeing(&self) -> impl Iterator<Item = OperatorId> {
        let truth = self.accepted.as_ref().map(|(commitment, _)| *commitment);
        self.casts.iter().filter(move |cast| Some(cast.commitment()) == truth).map(Cast::operator)
    }

    /// What those ask whose receipts agree with the accepted result, in micro-credits.
    pub(super) fn agreed_prices(&self) -> impl Iterator<Item = u64> {
        let truth = self.accepted.as_ref().map(|(commitment, _)| *commitment);
        self.casts.iter().filter(move |cast| Some(cast.commitment()) == truth).map(Cast::price_micro)
    }

    /// Operators that stand for the accepted result.
    pub(super) fn witnesses(&self) -> BTreeSet<OperatorId> {
        self.agreeing().collect()
    }

    /// The only one of these, if there is only one.
    pub(super) fn sole_witness(&self) -> Option<OperatorId> {
        only(self.agreeing())
    }

    /// Those of them that did not only repeat it: newcomers that did may be of the same ring.
    pub(super) fn supporting(&self) -> impl Iterator<Item = OperatorId> {
        self.agreeing().filter(|operator| !self.probers.contains(operator))
    }

    /// Operators that do so.
    pub(super) fn supporters(&self) -> BTreeSet<OperatorId> {
        self.supporting().collect()
    }

    /// The only one of these, if there is only one.
    pub(super) fn sole_supporter(&self) -> Option<OperatorId> {
        only(self.supporting())
    }

    /// Whether its results differ so far.
    pub(super) fn is_disputed(&self, config: &Config) -> bool {
        self.casts.len() > 1 && verify::is_disputed(&self.results(config))
    }

    /// Whether any do besides those that trials have refuted.
    pub(super) fn differs(&self, config: &Config) -> bool {
        if self.casts.len() < 2 {
            return false;
        }
        let mut results = self.results(config);
        results.retain(|vote| !self.is_refuted(vote.commitment));
        verify::is_disputed(&results)
    }

    /// Whether it waits for what comes of a trial.
    pub(super) fn is_on_trial(&self) -> bool {
        self.trial.as_deref().is_some_and(Trial::is_under_way)
    }

    /// Executions to order now, besides those under way.
    fn missing(&self, config: &Config, now: Millis) -> usize {
        if self.accepted.is_some() || self.not_before > now || self.is_on_trial() {
            return 0;
        }
        let wanted = match self.verdict(config) {
            Verdict::Open { wanted } => wanted,
            Verdict::Accepted(_) if referee::is_needed(self, config) => 1,
            Verdict::Accepted(_) | Verdict::Inconclusive => return 0,
        };
        (usize::from(wanted) + usize::from(self.straggling)).saturating_sub(self.open.len())
    }

    /// What it waits as, if it does.
    fn waits_as(&self, missing: usize, config: &Config, now: Millis) -> Waits {
        // Where several are missing, the others need not wait: a state has one heir.
        if let Some(kept) = checkpoint::left(self).filter(|kept| missing == 1 && kept.is_awaited(now)) {
            return Waits::Kept(kept.operator());
        }
        match (self.casts.is_empty() && self.open.is_empty(), self.is_disputed(config)) {
            (true, _) => Waits::Fresh,
            (false, true) => Waits::Disputed,
            (false, false) => Waits::Partial,
        }
    }

    /// Operators that may not have it again.
    pub(super) fn operators(&self) -> Few<OperatorId> {
        let cast = self.casts.iter().map(Cast::operator);
        cast.chain(self.open.iter().chain(self.probes.iter()).map(|(_, operator)| *operator)).collect()
    }

    /// Forgets its receipts but for what `why` shows of them.
    pub(super) fn summarise(&mut self) {
        self.casts.iter_mut().for_each(Cast::summarise);
    }

    /// Nothing of it is known any more: it is run as if for the first time.
    pub(super) fn restart(&mut self, quorum: u8) {
        (self.accepted, self.engine, self.drawn, self.auditor) = (None, None, None, None);
        self.apart = None;
        (self.kept, self.trial) = (None, None);
        self.quorum = quorum;
        self.casts.clear();
        self.probers.clear();
    }
}

/// The one operator that all of these are.
fn only(mut operators: impl Iterator<Item = OperatorId>) -> Option<OperatorId> {
    let first = operators.next()?;
    operators.all(|other| other == first).then_some(first)
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// As submitted.
    pub spec: JobSpec,
    /// When it was accepted.
    pub submitted_ms: Millis,
    /// When it ended.
    pub ended_ms: Option<Millis>,
    /// Where it is.
    pub phase: Phase,
    /// Executions that gave a receipt.
    pub executions: u64,
    /// Sum of their times, in microseconds.
    pub task_us: u64,
    /// What decides which of its results are audited; told when it has ended.
    pub(super) secret: Secret,
    template: BlobHash,
    map: Vec<Shard>,
    reduce: Option<Shard>,
    /// Map shards accepted.
    accepted: u32,
    /// Its shards that wait for hosts.
    #[serde(default)]
    pub(super) queued: Queued,
    /// Accepted results, until the job ends, that one operator alone stands for, whatever newcomers have repeated of them.
    pub(super) unchecked: Unchecked,
}

impl Job {
    pub(super) fn new(spec: JobSpec, plan: Plan, secret: Secret, now: Millis) -> Self {
        let (template, quorum) = (spec.template().hash(), spec.policy.quorum());
        let count = u32::try_from(plan.shards.len()).unwrap_or(u32::MAX);
        let shard = |(planned, index): (PlannedShard, u32)| {
            let task = task_id(template, ShardInfo { stage: Stage::Map, index, count }, planned.input);
            Shard::new(planned, task, quorum)
        };
        Self {
            secret,
            template,
            map: plan.shards.into_iter().zip(0..).map(shard).collect(),
            reduce: None,
            spec,
            submitted_ms: now,
            ended_ms: None,
            phase: Phase::Mapping,
            executions: 0,
            task_us: 0,
            accepted: 0,
            queued: Queued::fresh((0..count).map(|index| ShardKey { stage: Stage::Map, index })),
            unchecked: Unchecked::default(),
        }
    }

    /// Whether results are believed of operators with standing, and audited.
    pub(super) fn audits(&self) -> bool {
        self.spec.policy == Policy::Audit
    }

    /// What its secret is committed to by, and the secret itself once nothing is drawn with it any more.
    pub fn secret(&self) -> (SecretHash, Option<Secret>) {
        (self.secret.hash(), self.phase.is_ended().then_some(self.secret))
    }

    /// Shards of the map.
    pub fn shard_count(&self) -> u32 {
        u32::try_from(self.map.len()).unwrap_or(u32::MAX)
    }

    /// Shards of the map whose result stands.
    pub fn accepted_count(&self) -> u32 {
        self.accepted
    }

    pub(super) fn info(&self, key: ShardKey) -> ShardInfo {
        let count = match key.stage {
            Stage::Map => self.shard_count(),
            Stage::Reduce => 1,
        };
        ShardInfo { stage: key.stage, index: key.index, count }
    }

    pub(super) fn shard(&self, key: ShardKey) -> Option<&Shard> {
        match key.stage {
            Stage::Map => self.map.get(key.index as usize),
            Stage::Reduce => self.reduce.as_ref().filter(|_| key.index == 0),
        }
    }

    pub(super) fn shard_mut(&mut self, key: ShardKey) -> Option<&mut Shard> {
        match key.stage {
            Stage::Map => self.map.get_mut(key.index as usize),
            Stage::Reduce => self.reduce.as_mut().filter(|_| key.index == 0),
        }
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = (ShardKey, &Shard)> {
        let map = self.map.iter().zip(0..).map(|(shard, index)| (ShardKey { stage: Stage::Map, index }, shard));
        map.chain(self.reduce.iter().map(|shard| (ShardKey { stage: Stage::Reduce, index: 0 }, shard)))
    }

    /// What the shard's next execution needs of a host; `operators` are the shard's own.
    pub(super) fn need<'a>(&'a self, shard: &'a Shard, operators: &'a [OperatorId]) -> Need<'a> {
        Need {
            module: self.spec.module,
            limits: &self.spec.limits,
            quorum: self.spec.policy.operators().max(shard.quorum),
            ask: EngineAsk::from(&self.spec),
            engine: shard.engine,
            operators,
            faulted: &shard.faulted,
            among: Among::All,
            budget: Credits::ZERO,
            lot: shard.auditor.as_deref().map(|order| Lot { order: *order, apart: shard.apart }),
        }
    }

    /// What is drawn for the next of several that have to agree on the shard, which these have had.
    pub(super) fn next_of_quorum(&self, shard: &Shard, operators: &[OperatorId]) -> Option<Lot> {
        let is_next = shard.quorum > 1 && !operators.is_empty();
        let order = || audit::next_of_quorum(&self.secret, shard.task, operators.len());
        is_next.then(|| Lot { order: order(), apart: None })
    }

    /// Whether the host could run shards of the job, were it idle.
    pub(super) fn capable(&self, host: &Host) -> Result<(), Reason> {
        place::capable(&self.spec.limits, &EngineAsk::from(&self.spec), host)
    }

    /// Queues the shard, or takes it out of its queue, as its state says.
    pub(super) fn requeue(&mut self, key: ShardKey, config: &Config, now: Millis) {
        let Some(shard) = self.shard(key) else { return };
        let may = !self.phase.is_ended() && shard.attempts < self.spec.attempts_max;
        let missing = if may { shard.missing(config, now) } else { 0 };
        let waits = (missing > 0).then(|| shard.waits_as(missing, config, now));
        self.queued.put(key, waits);
    }

    /// Average time of an execution in milliseconds, once there is one.
    pub(super) fn task_ms(&self) -> Option<u64> {
        (self.task_us / 1000).checked_div(self.executions)
    }

    /// One more shard of the map has its result; says whether that was the last.
    pub(super) fn count_accepted(&mut self) -> bool {
        self.accepted += 1;
        self.accepted == self.shard_count()
    }

    /// A shard of the map has lost its result.
    pub(super) fn count_withdrawn(&mut self) {
        self.accepted -= 1;
    }

    /// Where a shard's input lies, and what the shard wrote once its result stands.
    pub fn work(&self, stage: Stage, index: u32) -> Option<(&PlannedShard, Option<&Output>)> {
        let shard = self.shard(ShardKey { stage, index })?;
        Some((&shard.planned, shard.accepted.as_ref().map(|(_, output)| output)))
    }

    /// The task of a shard.
    pub fn task(&self, stage: Stage, index: u32) -> Option<TaskId> {
        Some(self.shard(ShardKey { stage, index })?.task)
    }

    /// The outputs of the map, in order, as far as they stand.
    pub fn map_parts(&self) -> Vec<Part> {
        self.parts(Stage::Map)
    }

    /// The pieces of the result, in order, once the job is done.
    pub fn result(&self) -> Option<Vec<Part>> {
        let stage = if self.reduce.is_some() { Stage::Reduce } else { Stage::Map };
        (self.phase == Phase::Done).then(|| self.parts(stage))
    }

    pub(super) fn parts(&self, stage: Stage) -> Vec<Part> {
        let of_stage = self.shards().filter(|(key, _)| key.stage == stage);
        of_stage
            .filter_map(|(key, shard)| {
                let (_, output) = shard.accepted.as_ref()?;
                Some(Part { shard: self.info(key), output: output.clone() })
            })
            .collect()
    }

    /// Every blob that the job reads or wrote.
    pub(super) fn blobs(&self) -> Vec<BlobHash> {
        let outputs = self.shards().filter_map(|(_, shard)| shard.accepted.as_ref().map(|(_, output)| output));
        let written =
            outputs.flat_map(|output| std::iter::once(output.stdout).chain(output.files.iter().map(|file| file.hash)));
        let reduced = self.reduce.as_ref().and_then(|shard| shard.planned.slice.blob);
        let records = self.shards().flat_map(|(_, shard)| shard.evidence.iter().copied());
        self.spec.blobs().into_iter().chain(written).chain(reduced).chain(records).collect()
    }

    /// The reduce task exists from here on.
    pub(super) fn begin_reduce(&mut self, input: BlobHash, bytes: u64) {
        let key = ShardKey { stage: Stage::Reduce, index: 0 };
        let planned = PlannedShard { slice: Slice { blob: Some(input), start: 0, end: bytes }, input };
        self.phase = Phase::Reducing;
        let quorum = self.spec.policy.quorum();
        self.reduce = Some(Shard::new(planned, task_id(self.template, self.info(key), input), quorum));
        self.queued.put(key, Some(Waits::Fresh));
    }

    pub(super) fn back_offs(&self) -> Vec<(Millis, ShardKey)> {
        self.shards().filter(|(_, shard)| shard.not_before > 0).map(|(key, shard)| (shard.not_before, key)).collect()
    }

    /// Ends the job; gives the executions that nobody wants any more. Receipts shrink to what `why` shows of them: a coordinator
    /// remembers many more shards of ended jobs than it has under way. Those that newcomers may still repeat are kept.
    pub(super) fn end(&mut self, phase: Phase, kept: &BTreeSet<ShardKey>, now: Millis) -> Vec<AssignmentId> {
        (self.phase, self.ended_ms) = (phase, Some(now));
        self.queued = Queued::default();
        self.unchecked.clear();
        let is_done = self.phase == Phase::Done;
        let mut open = Vec::new();
        let map = self.map.iter_mut().zip(0..).map(|(shard, index)| (Stage::Map, index, shard));
        let reduce = self.reduce.iter_mut().map(|shard| (Stage::Reduce, 0, shard));
        for (stage, index, shard) in map.chain(reduce) {
            open.extend(shard.open.iter().map(|(assignment, _)| *assignment));
            shard.open.clear();
            if !is_done {
                open.extend(shard.probes.iter().map(|(assignment, _)| *assignment));
            }
            if !(is_done && kept.contains(&ShardKey { stage, index })) {
                shard.summarise();
            }
            shard.faulted.clear();
            shard.lies.clear();
            (shard.kept, shard.trial) = (None, None);
        }
        open
    }
}
