//! Receipts and faults come in; shards are judged, hosts are caught, jobs end.

use registry::{
    device::{DeviceAsk, DeviceKind},
    id::{BlobHash, JobId, NodeId},
    job::{Class, ShardInfo, Stage},
    price::Usage,
    receipt::{Accepted, Evidence, Inconclusive, Output, Receipt, Record, Witness},
    sign::Signed,
};

use super::{
    Effect, Notice, Open, Phase, State, Timer,
    cast::Cast,
    checkpoint, end, history,
    job::{Job, Shard, ShardKey},
    money::{self, Lie},
    queue::Line,
    referee, standing, trial,
};
use crate::{
    aggregate::{self, Next},
    few::Few,
    fleet::Suspension,
    flow::{AssignmentId, Attested, Fault, Millis, Verdict},
};

/// An execution has come to nothing, or is not wanted any more.
pub(super) fn drop_open(state: &mut State, id: AssignmentId, now: Millis) -> Option<Open> {
    let open = close(state, id)?;
    money::release(state, open.job, id, now);
    Some(open)
}

/// Takes an execution off the lists, whatever came of it.
fn close(state: &mut State, id: AssignmentId) -> Option<Open> {
    let open = state.open.remove(id)?;
    state.timers.remove(open.timer);
    state.fleet.release(open.node, id);
    if let Some(shard) = state.jobs.get_mut(&open.job).and_then(|job| job.shard_mut(open.shard)) {
        shard.open.retain(|(assignment, _)| *assignment != id);
        shard.probes.retain(|(assignment, _)| *assignment != id);
        shard.straggling -= u8::from(open.straggling);
    }
    Some(open)
}

/// Queues the shard as its state says, and sees to it that its job has its turn.
pub(super) fn requeue(state: &mut State, id: JobId, key: ShardKey, now: Millis) {
    let Some(job) = state.jobs.get_mut(&id) else { return };
    let had = Line::ALL.map(|line| job.queued.has(line));
    job.requeue(key, &state.config, now);
    for (line, had) in Line::ALL.into_iter().zip(had) {
        if !had && job.queued.has(line) {
            state.turns.join(line, id);
        }
    }
}

/// A host came back: what it was given and does not hold any more goes elsewhere.
pub(super) fn not_held(
    state: &mut State,
    node: NodeId,
    holding: &[AssignmentId],
    now: Millis,
    effects: &mut Vec<Effect>,
) {
    for id in open_of(state, node) {
        if !holding.contains(&id) {
            fault(
                state,
                node,
                id,
                Fault::new("host_restarted", "the host came back without the assignment"),
                now,
                effects,
            );
        }
    }
    for id in holding.iter().filter(|id| !is_open(state, node, **id)) {
        effects.push(Effect::Revoke { node, assignment: *id });
    }
}

/// Executions that a host has.
pub(super) fn open_of(state: &State, node: NodeId) -> Vec<AssignmentId> {
    state.fleet.get(node).map_or_else(Vec::new, |host| host.assignments.to_vec())
}

/// Whether the host has this execution.
fn is_open(state: &State, node: NodeId, id: AssignmentId) -> bool {
    state.open.get(id).is_some_and(|open| open.node == node)
}

/// A receipt came.
pub(super) fn receipt(
    state: &mut State,
    node: NodeId,
    receipt: Attested,
    output: Output,
    task_us: u64,
    now: Millis,
    effects: &mut Vec<Effect>,
) {
    let id = AssignmentId(receipt.receipt().nonce);
    if !is_open(state, node, id) {
        // Late: its lease ended or its job did. The host may forget it.
        effects.push(Effect::Acknowledge { node, assignment: id });
        return;
    }
    if let Err(rule) = answers(state, id, &receipt, &output) {
        fault(state, node, id, Fault::new("garbage", rule), now, effects);
        effects.push(Effect::Acknowledge { node, assignment: id });
        return;
    }
    let Some(cert) = state.fleet.get(node).map(|host| host.cert.clone()) else { return };
    let Some(open) = close(state, id) else { return };
    effects.push(Effect::Acknowledge { node, assignment: id });
    state.fleet.finished(node, receipt.receipt().execution.module, task_us);
    let Some(job) = state.jobs.get_mut(&open.job) else { return };
    if !job.phase.is_ended() {
        job.executions += 1;
        job.task_us = job.task_us.saturating_add(task_us);
    }
    let Some(shard) = job.shard_mut(open.shard) else { return };
    shard.evidence.extend(receipt.receipt().nn_record);
    shard.evidence.extend(receipt.receipt().segment_record);
    let cast = Cast::Receipt { receipt, output, cert, purpose: open.purpose };
    if open.probe {
        standing::probed(state, &open, cast, now, effects);
        return;
    }
    shard.casts.push(cast);
    standing::draw(state, &open, now);
    // Accepting a shard closed its other executions, so this one's shard is still undecided.
    judge(state, open.job, open.shard, now, effects);
}

/// Whether the receipt is about the very execution that was ordered.
fn answers(state: &State, id: AssignmentId, attested: &Attested, output: &Output) -> Result<(), &'static str> {
    let unknown = "the receipt's assignment is unknown";
    let open = state.open.get(id).ok_or(unknown)?;
    let job = state.jobs.get(&open.job).ok_or(unknown)?;
    let shard = job.shard(open.shard).ok_or(unknown)?;
    let host = state.fleet.get(open.node).ok_or(unknown)?;
    let receipt = attested.receipt();
    let execution = &receipt.execution;
    let device = receipt.device.as_ref();
    let inferred = execution.nn_root.is_some();
    let on_gpu = device.is_some_and(|device| device.kind == DeviceKind::Gpu);
    let offered = host.offer.engines.get(open.engine);
    let usage = Usage::of(receipt, output, job.spec.limits.memory_bytes_max);
    let rules = [
        (receipt.job == open.job && receipt.shard == job.info(open.shard), "the receipt names another shard"),
        (open.until.is_none(), "the order was to find a state, and nothing of that is signed"),
        (receipt.operator == open.operator, "the receipt names another operator"),
        (execution.task == shard.task, "the receipt names another task"),
        (execution.module == job.spec.module, "the receipt names another module"),
        (execution.class == job.spec.class, "the receipt names another determinism class"),
        (execution.engine == open.engine, "the receipt names another engine than the one that was ordered"),
        (offered.is_some(), "the host does not offer the engine of the receipt any more"),
        (
            !inferred || job.spec.device != DeviceAsk::Gpu || on_gpu,
            "the job asks for a GPU, and the receipt's inferences ran on none",
        ),
        (inferred || device.is_none(), "the receipt names a device, and nothing was inferred"),
        (
            !inferred || device == offered.and_then(|engine| engine.device.as_ref()),
            "the receipt names another device than its engine's",
        ),
        (
            inferred || execution.class != Class::Exact || receipt.nn_record.is_none(),
            "the receipt names a record of inferences, and nothing was inferred",
        ),
        (
            host.offer.prices.bill(&usage).is_ok_and(|bill| bill.total.micro() == receipt.price_micro),
            "the receipt asks another price than what its host offered comes to",
        ),
        (execution.fuel_used <= job.spec.limits.fuel_max, "the receipt claims more fuel than the task's limit"),
        (output.bytes() <= job.spec.limits.output_bytes_max, "the output is over the task's limit"),
        (execution.output == output.hash(), "the output does not match the receipt"),
        (
            execution.class == Class::Exact || execution.nn_root.is_none() || receipt.nn_record.is_some(),
            "the receipt names no record of its inferences, which its class asks for",
        ),
    ];
    match rules.into_iter().find(|(holds, _)| !holds) {
        Some((_, rule)) => Err(rule),
        None => Ok(()),
    }
}

/// Judges what an event has left to be judged. Whoever is caught may have been waited for by any shard, the one that is being settled among
/// them: so nothing is judged before that is over.
pub(super) fn judge_left(state: &mut State, now: Millis, effects: &mut Vec<Effect>) {
    while let Some((id, key)) = state.unjudged.pop_front() {
        judge(state, id, key, now, effects);
    }
}

/// Looks at what is known of a shard that has no result yet, and does what follows.
pub(super) fn judge(state: &mut State, id: JobId, key: ShardKey, now: Millis, effects: &mut Vec<Effect>) {
    let Some(job) = state.jobs.get(&id).filter(|job| !job.phase.is_ended()) else { return };
    let Some(shard) = job.shard(key).filter(|shard| shard.accepted.is_none()) else { return };
    match shard.verdict(&state.config) {
        // What a trial or a referee is about to say of one of them is waited for: its end judges again.
        Verdict::Accepted(_) | Verdict::Inconclusive if referee::is_awaited(state, id, job, shard) => {
            requeue(state, id, key, now);
        }
        Verdict::Accepted(_) => accept(state, id, key, now, effects),
        verdict @ Verdict::Inconclusive => {
            let votes = shard.casts.len();
            let detail =
                format!("{votes} executions of shard {} give no quorum: the module may be nondeterministic", key.index);
            let (info, record) = (job.info(key), Record::Inconclusive(inconclusive_record(shard)));
            effects.push(Effect::Keep { job: id, shard: info, accused: None, record });
            state.unsteady.mark(job.spec.module, id, info, now);
            money::judged(state, id, key, verdict, now);
            end(state, id, Phase::Failed { reason: Fault::new("inconclusive", detail) }, now, effects);
        }
        Verdict::Open { .. } => {
            trial::begin(state, id, key, effects);
            requeue(state, id, key, now);
            exhausted(state, id, key, now, effects);
        }
    }
}

/// Ends the job when a shard may not be tried again.
fn exhausted(state: &mut State, id: JobId, key: ShardKey, now: Millis, effects: &mut Vec<Effect>) {
    let Some(job) = state.jobs.get(&id) else { return };
    let Some(shard) = job.shard(key) else { return };
    if shard.attempts >= job.spec.attempts_max && shard.open.is_empty() && shard.accepted.is_none() {
        let last = shard.last_fault.as_ref().map_or(String::new(), |fault| format!("; the last fault was {fault}"));
        let detail = format!("shard {} has no result after {} executions{last}", key.index, shard.attempts);
        end(state, id, Phase::Failed { reason: Fault::new("attempts", detail) }, now, effects);
    }
}

/// The shard's result stands: keep why, blame who said otherwise, go on with the job.
fn accept(state: &mut State, id: JobId, key: ShardKey, now: Millis, effects: &mut Vec<Effect>) {
    let Some(job) = state.jobs.get_mut(&id) else { return };
    let Some(shard) = job.shard_mut(key) else { return };
    let Verdict::Accepted(commitment) = shard.verdict(&state.config) else { return };
    let truth = shard.casts.iter().find(|cast| cast.commitment() == commitment);
    let Some(Cast::Receipt { output, .. }) = truth else { return };
    let output = output.clone();
    shard.accept(commitment, output, &state.config);
    let unneeded: Few<_> = shard.open.iter().map(|(assignment, _)| *assignment).collect();
    keep_accepted(state, id, key, effects);
    for &assignment in &unneeded {
        if let Some(open) = drop_open(state, assignment, now) {
            effects.push(Effect::Revoke { node: open.node, assignment });
        }
    }
    trial::abandon(state, id, key, now, effects);
    money::judged(state, id, key, Verdict::Accepted(commitment), now);
    let casts = state.jobs.get(&id).and_then(|job| job.shard(key)).map(|shard| &shard.casts);
    let nodes: Few<NodeId> = casts.into_iter().flatten().map(Cast::node).collect();
    for &node in &nodes {
        compare(state, id, key, node, now, effects);
    }
    standing::accepted(state, id, key, now, effects);
    requeue(state, id, key, now);
    advance(state, id, key, now, effects);
}

/// Keeps why the shard's result stands, and says that it does.
pub(super) fn keep_accepted(state: &State, id: JobId, key: ShardKey, effects: &mut Vec<Effect>) {
    let Some(job) = state.jobs.get(&id) else { return };
    let (shard, record) = (job.info(key), Record::Accepted(accepted_record(job, key)));
    let executions = job.shard(key).map_or(0, |shard| u32::try_from(shard.casts.len()).unwrap_or(u32::MAX));
    effects.push(Effect::Keep { job: id, shard, accused: None, record });
    effects.push(Effect::Notify { job: id, notice: Notice::Accepted { shard, executions } });
}

/// The receipts that agree on the shard's accepted result.
fn accepted_record(job: &Job, key: ShardKey) -> Accepted {
    let shard = job.shard(key);
    let commitment = shard.and_then(|shard| shard.accepted.as_ref()).map(|(commitment, _)| *commitment);
    let casts = shard.into_iter().flat_map(|shard| &shard.casts).filter(|cast| Some(cast.commitment()) == commitment);
    let (quorum, drawn) = shard.map_or((job.spec.policy.quorum(), None), |shard| (shard.quorum, shard.drawn));
    Accepted { quorum, witnesses: casts.filter_map(witness).collect(), drawn }
}

/// All receipts of a shard that nobody reproduced, with what they are paid for.
fn inconclusive_record(shard: &Shard) -> Inconclusive {
    let signed = shard.casts.iter().filter_map(|cast| match cast {
        Cast::Receipt { output, .. } => Some((witness(cast)?, output.clone())),
        Cast::Summary { .. } => None,
    });
    Inconclusive::of(shard.quorum, signed)
}

pub(super) fn witness(cast: &Cast) -> Option<Witness> {
    let Cast::Receipt { receipt, cert, .. } = cast else { return None };
    Some(Witness { receipt: receipt.signed().clone(), cert: Signed::clone(cert) })
}

/// Holds a node's vote against the accepted result: credit, or evidence and suspension.
pub(super) fn compare(
    state: &mut State,
    id: JobId,
    key: ShardKey,
    node: NodeId,
    now: Millis,
    effects: &mut Vec<Effect>,
) {
    let Some(job) = state.jobs.get(&id) else { return };
    let Some(shard) = job.shard(key) else { return };
    let Some((truth, _)) = &shard.accepted else { return };
    let Some(cast) = shard.casts.iter().find(|cast| cast.node() == node) else { return };
    if cast.commitment() == *truth {
        state.fleet.record(node, |record| record.confirmed += 1);
        return;
    }
    let Some(receipt) = cast.receipt() else { return };
    if job.spec.class != Class::Exact || Some(receipt.receipt().execution.engine) != shard.engine {
        return;
    }
    // Operators that collude must not be able to put the blame on an honest one: where there are referees, one has to agree.
    let referees = &state.config.vouched;
    let agreeing = || shard.casts.iter().filter(|cast| cast.commitment() == *truth);
    if !referees.is_empty() && !agreeing().any(|cast| referees.contains(&cast.operator())) {
        return;
    }
    let (operator, info, receipt) = (cast.operator(), job.info(key), receipt.clone());
    let says = cast.commitment();
    // Where nobody referees, a majority may be the liars': then nobody loses what it brought.
    let is_shared =
        !referees.is_empty() && shard.casts.iter().any(|cast| cast.commitment() == says && cast.operator() != operator);
    let Some(accused) = witness(cast) else { return };
    let right = shard.casts.iter().filter(|cast| cast.commitment() == *truth).find_map(Cast::receipt).cloned();
    // Where nothing is audited nobody was asked to look: a quorum noticed by itself.
    let auditor = right.as_ref().filter(|_| job.audits()).map(|right| right.receipt().operator);
    let evidence = Evidence { accepted: accepted_record(job, key), accused };
    effects.push(Effect::Keep { job: id, shard: info, accused: Some(node), record: Record::Evidence(evidence) });
    effects.push(Effect::Notify { job: id, notice: Notice::Caught { shard: info, node, operator } });
    history::refuted(state, (id, key), &receipt, right.as_ref(), now, effects);
    if let Some(truth) = &right {
        let mut lie = Lie { receipt: &receipt, truth, auditor, is_shared };
        let shard = state.jobs.get(&id).and_then(|job| job.shard(key));
        lie.is_shared |= shard.is_some_and(|shard| trial::was_told_before(shard, &receipt));
        money::convict(state, &lie, now);
    }
    expel(state, (id, info), receipt.receipt(), now, effects);
}

/// Who signed this is caught: it gets no more work, and nothing stands on its word alone.
pub(super) fn expel(
    state: &mut State,
    (job, shard): (JobId, ShardInfo),
    lie: &Receipt,
    now: Millis,
    effects: &mut Vec<Effect>,
) {
    let Receipt { node, operator, .. } = *lie;
    state.fleet.record(node, |record| record.contradicted += 1);
    if !state.fleet.is_suspended(operator) {
        let suspension = Suspension { job, shard, node };
        state.fleet.suspend(operator, &suspension);
        history::expelled(state, operator, &suspension, now, effects);
        relieve(state, operator, now, effects);
        standing::void(state, operator, effects);
        if state.config.vouched.contains(&operator) {
            referee::regard(state);
        }
    }
}

/// Takes back what a suspended operator's hosts still have.
fn relieve(state: &mut State, operator: registry::id::OperatorId, now: Millis, effects: &mut Vec<Effect>) {
    for id in state.open.of(operator) {
        if let Some(open) = drop_open(state, id, now) {
            effects.push(Effect::Revoke { node: open.node, assignment: id });
            if open.until.is_some() {
                trial::faulted(state, &open, now, effects);
            }
            state.unjudged.push_back((open.job, open.shard));
        }
    }
}

/// Goes on with the job after one of its shards was accepted.
fn advance(state: &mut State, id: JobId, key: ShardKey, now: Millis, effects: &mut Vec<Effect>) {
    let Some(job) = state.jobs.get_mut(&id) else { return };
    let next = match key.stage {
        Stage::Map if !job.count_accepted() => return,
        Stage::Map => aggregate::after_map(job.spec.reduce),
        Stage::Reduce => Next::Done,
    };
    match next {
        Next::Done => end(state, id, Phase::Done, now, effects),
        Next::Reduce => {
            let parts = job.map_parts();
            job.phase = Phase::Concatenating;
            effects.push(Effect::Concat { job: id, parts });
        }
    }
}

/// The reduce task's input is there.
pub(super) fn concatenated(state: &mut State, id: JobId, input: BlobHash, bytes: u64) {
    let Some(job) = state.jobs.get_mut(&id).filter(|job| job.phase == Phase::Concatenating) else { return };
    job.begin_reduce(input, bytes);
    state.turns.join(Line::Others, id);
}

/// An execution gave no result: back off, then try elsewhere.
pub(super) fn fault(
    state: &mut State,
    node: NodeId,
    id: AssignmentId,
    fault: Fault,
    now: Millis,
    effects: &mut Vec<Effect>,
) {
    if !is_open(state, node, id) {
        return;
    }
    let Some(mut open) = drop_open(state, id, now) else { return };
    state.fleet.record(node, |record| record.faults += 1);
    history::faulted(state, node, now, effects);
    if open.until.is_some() {
        trial::faulted(state, &open, now, effects);
    }
    if open.probe {
        return;
    }
    let Some(job) = state.jobs.get_mut(&open.job) else { return };
    let info = job.info(open.shard);
    let Some(shard) = job.shard_mut(open.shard) else { return };
    shard.faults += 1;
    if !shard.faulted.contains(&node) {
        shard.faulted.push(node);
    }
    checkpoint::bequeath(shard, &mut open, &fault, now);
    shard.last_fault = Some(Box::new(fault.clone()));
    effects.push(Effect::Notify { job: open.job, notice: Notice::Faulted { shard: info, node, fault } });
    if shard.accepted.is_none() {
        let doubled = state.config.retry_ms_min.saturating_mul(1 << (shard.faults - 1).min(20));
        let earlier = (shard.not_before, Timer::Retry(open.job, open.shard));
        shard.not_before = now + doubled.min(state.config.retry_ms_max);
        state.timers.remove(earlier);
        state.timers.insert((shard.not_before, Timer::Retry(open.job, open.shard)));
        // It is looked at again when nobody is waited for any more who may go on from a state.
        if let Some(until_ms) = checkpoint::wait_ends(shard, shard.not_before) {
            state.timers.insert((until_ms, Timer::Retry(open.job, open.shard)));
        }
        if shard.casts.is_empty() && shard.open.is_empty() {
            // Nothing to compare with: any engine will do.
            shard.engine = None;
        }
    }
    // What was waited for it is so no more, perhaps.
    judge(state, open.job, open.shard, now, effects);
}
