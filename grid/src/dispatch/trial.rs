//! Two results of a task with steps differ, and a referee runs the one segment in which they part.
//!
//! ```text
//! two receipts ─Effect::Part► where they part ─order► a side gives the state before it ─order► a referee runs the segment ─► who is wrong
//! ```
//! Whoever is refuted is caught, and its receipt counts no more: the shard goes on as if it had never signed, and asks whom its policy
//! asks for. So a referee spends a segment where it would spend a task, everybody can run that segment again, and what is accepted
//! still stands on whole executions alone. That the other side is right about a segment says nothing about the rest.
//!
//! - **Where it begins**: class `exact`, two results that both name their states, neither of a referee, and a referee is there.
//! - **Withholding gains nothing**: a side that does not give the state, or gives another one than it signed, is not asked again, and where
//!   one takes unusually long the other is asked too. Where neither gives it, or no side is right, a referee runs all of the task, as
//!   for a task without steps.
//! - **Its end is waited for** (`referee`): what comes in meanwhile is kept, and nothing is accepted before it, but what a referee has voted on.
//! - **Nothing of a trial is paid**, and no order of it counts as an execution.
//! - **Who lies together** is convicted of that, though they be refuted one after the other: what was refuted is remembered with the shard, and
//!   nobody who was refuted before loses more by what is signed afterwards.

use registry::{
    dispute::{Dispute, End, Parting, Side},
    id::{BlobHash, JobId, NodeId, OperatorId, StateRoot},
    job::{Class, ShardInfo},
    receipt::{Receipt, Record},
};
use serde::{Deserialize, Serialize};

use super::{
    Effect, Notice, Open, State,
    cast::Cast,
    history,
    job::{Shard, ShardKey},
    money, referee,
    schedule::{self, Piece},
    settle,
};
use crate::{
    few::Few,
    flow::{AssignmentId, Attested, Checkpoint, Found, Millis, Until},
};

/// How far a trial is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Trial {
    /// The driver looks where these part.
    Parting([AssignmentId; 2]),
    /// Sides are asked for the state before the segment; those that were asked in vain, or take long.
    Asking(Box<Parting>, Vec<NodeId>),
    /// A referee runs the segment, from this blob on.
    Refereeing(Box<Parting>, Option<BlobHash>),
    /// Nothing came of it: a referee runs all of the task.
    Failed,
}

impl Trial {
    /// Whether something may come of it.
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self, Self::Failed)
    }
}

/// Begins a trial, if the shard's results are of that kind and there has been none.
pub(super) fn begin(state: &mut State, id: JobId, key: ShardKey, effects: &mut Vec<Effect>) {
    let Some(job) = state.jobs.get(&id).filter(|job| !job.phase.is_ended() && job.spec.class == Class::Exact) else {
        return;
    };
    let Some(shard) = job.shard(key).filter(|shard| shard.trial.is_none() && shard.accepted.is_none()) else { return };
    let Some(assignments) = two_sides(shard, |operator| state.config.vouched.contains(&operator)) else { return };
    let Some(effect) = part(id, job.info(key), shard, assignments) else { return };
    if referee::least_busy(state, job, shard).is_none() {
        return;
    }
    effects.push(effect);
    if let Some(shard) = state.jobs.get_mut(&id).and_then(|job| job.shard_mut(key)) {
        shard.trial = Some(Box::new(Trial::Parting(assignments)));
    }
}

/// The shard's results, if they are two that differ, of one engine and by nobody who referees.
fn two_sides(shard: &Shard, referees: impl Fn(OperatorId) -> bool) -> Option<[AssignmentId; 2]> {
    let [first, second] = &shard.casts[..] else { return None };
    let is_judged = referees(first.operator()) || referees(second.operator());
    let differs = first.commitment() != second.commitment() && first.operator() != second.operator();
    let is_comparable = Some(first.engine()) == shard.engine && Some(second.engine()) == shard.engine;
    if is_judged || !differs || !is_comparable { None } else { Some([first.assignment()?, second.assignment()?]) }
}

/// What the driver is asked about the receipts of these orders, as long as both are here and name their records.
fn part(job: JobId, info: ShardInfo, shard: &Shard, assignments: [AssignmentId; 2]) -> Option<Effect> {
    let side = |id| {
        let (receipt, cast) = cast_of(shard, id)?;
        Some((settle::witness(cast)?, receipt.receipt().segment_record?))
    };
    let [Some(first), Some(second)] = assignments.map(side) else { return None };
    Some(Effect::Part { job, shard: info, sides: Box::new([first, second]) })
}

/// The receipt that answers an order.
fn cast_of(shard: &Shard, id: AssignmentId) -> Option<(&Attested, &Cast)> {
    let cast = shard.casts.iter().find(|cast| cast.assignment() == Some(id))?;
    Some((cast.receipt()?, cast))
}

/// The driver has found where the two part, or has not.
pub(super) fn parted(
    state: &mut State,
    id: JobId,
    info: ShardInfo,
    parting: Option<Box<Parting>>,
    now: Millis,
    effects: &mut Vec<Effect>,
) {
    let key = ShardKey { stage: info.stage, index: info.index };
    let job = state.jobs.get_mut(&id).filter(|job| !job.phase.is_ended());
    let Some(shard) = job.and_then(|job| job.shard_mut(key)) else { return };
    let Some(Trial::Parting(sides)) = shard.trial.as_deref() else { return };
    let of_these = |parting: &Parting| {
        let nonces = [&parting.first, &parting.second].map(|side| Some(AssignmentId(peek(side)?.nonce)));
        nonces == sides.map(Some)
    };
    if parting.as_ref().is_some_and(|parting| !of_these(parting)) {
        return;
    }
    shard.trial = Some(Box::new(match parting {
        // The first segment starts from the task alone.
        Some(parting) if parting.start.is_none() => Trial::Refereeing(parting, None),
        Some(parting) => Trial::Asking(parting, Vec::new()),
        None => Trial::Failed,
    }));
    go_on(state, id, key, None, now, effects);
}

/// Orders what the trial needs next; `from` is what a segment is run from.
fn go_on(
    state: &mut State,
    id: JobId,
    key: ShardKey,
    from: Option<Checkpoint>,
    now: Millis,
    effects: &mut Vec<Effect>,
) {
    let Some(job) = state.jobs.get(&id) else { return };
    let Some(shard) = job.shard(key) else { return };
    let next = match shard.trial.as_deref() {
        Some(Trial::Asking(parting, asked)) => {
            let sides = [&parting.first, &parting.second].into_iter().filter_map(|side| Some(peek(side)?.node));
            let is_there =
                |node: &NodeId| state.fleet.get(*node).is_some_and(|host| host.connected && host.suspended.is_none());
            let sides = sides.filter(|node| !asked.contains(node)).filter(is_there);
            let side = sides.min_by_key(|node| !state.fleet.is_roomy(*node));
            let until = Until { state: parting.segment.saturating_sub(1), keeps: true };
            side.map(|node| (node, until))
        }
        Some(Trial::Refereeing(parting, _)) => {
            referee::least_busy(state, job, shard).map(|node| (node, Until { state: parting.segment, keeps: false }))
        }
        Some(Trial::Parting(_) | Trial::Failed) | None => None,
    };
    let placed = next.and_then(|(node, until)| Some((node, until, shard.engine?)));
    match placed {
        Some((node, until, engine)) => {
            schedule::order(state, id, (key, node, engine), Piece::Segment(until, from), now, effects);
        }
        // One that takes long may still give it.
        None if !orders(state, id, key).is_empty() => {}
        None => fail(state, id, key),
    }
}

/// What is ordered of the shard's trial and under way.
fn orders(state: &State, id: JobId, key: ShardKey) -> Few<AssignmentId> {
    let probes = state.jobs.get(&id).and_then(|job| job.shard(key)).map(|shard| &shard.probes[..]);
    let probes = probes.into_iter().flatten().map(|(assignment, _)| *assignment);
    probes.filter(|id| state.open.get(*id).is_some_and(|open| open.until.is_some())).collect()
}

/// Nothing that is ordered of the shard's trial is wanted any more.
fn revoke(state: &mut State, id: JobId, key: ShardKey, now: Millis, effects: &mut Vec<Effect>) {
    for &assignment in &orders(state, id, key) {
        if let Some(open) = settle::drop_open(state, assignment, now) {
            effects.push(Effect::Revoke { node: open.node, assignment });
        }
    }
}

/// A side takes unusually long to give the state: the other is asked too.
pub(super) fn straggles(
    state: &mut State,
    id: JobId,
    key: ShardKey,
    node: NodeId,
    now: Millis,
    effects: &mut Vec<Effect>,
) {
    let Some(shard) = state.jobs.get_mut(&id).and_then(|job| job.shard_mut(key)) else { return };
    if let Some(Trial::Asking(_, asked)) = shard.trial.as_deref_mut() {
        asked.push(node);
        go_on(state, id, key, None, now, effects);
    }
}

/// Nothing comes of the trial.
fn fail(state: &mut State, id: JobId, key: ShardKey) {
    if let Some(shard) = state.jobs.get_mut(&id).and_then(|job| job.shard_mut(key)) {
        shard.trial = Some(Box::new(Trial::Failed));
    }
    state.unjudged.push_back((id, key));
}

/// An order of a trial came to nothing.
pub(super) fn faulted(state: &mut State, open: &Open, now: Millis, effects: &mut Vec<Effect>) {
    let (id, key) = (open.job, open.shard);
    let Some(shard) = state.jobs.get_mut(&id).and_then(|job| job.shard_mut(key)) else { return };
    match shard.trial.as_deref_mut() {
        Some(Trial::Asking(_, asked)) => {
            asked.push(open.node);
            go_on(state, id, key, None, now, effects);
        }
        Some(Trial::Refereeing(..)) => fail(state, id, key),
        Some(Trial::Parting(_) | Trial::Failed) | None => {}
    }
}

/// A host has run what it was ordered of a trial.
pub(super) fn found(
    state: &mut State,
    node: NodeId,
    assignment: AssignmentId,
    found: Found,
    now: Millis,
    effects: &mut Vec<Effect>,
) {
    let is_ordered = state.open.get(assignment).is_some_and(|open| open.node == node && open.until.is_some());
    effects.push(Effect::Acknowledge { node, assignment });
    if !is_ordered {
        return;
    }
    let Some(open) = settle::drop_open(state, assignment, now) else { return };
    let (id, key) = (open.job, open.shard);
    let is_referee = state.config.vouched.contains(&open.operator);
    let Some(shard) = state.jobs.get_mut(&id).and_then(|job| job.shard_mut(key)) else { return };
    // What was given is kept for the job, whatever it is, and goes with it.
    shard.evidence.extend(found.checkpoint.map(|checkpoint| checkpoint.snapshot));
    match shard.trial.take().map(|trial| *trial) {
        Some(Trial::Asking(parting, mut asked)) => {
            let state_of = |root: StateRoot| found.checkpoint.filter(|_| parting.start == Some(root));
            let given = match found.end {
                End::State(root) => state_of(root),
                End::Task(_) => None,
            };
            if let Some(checkpoint) = given {
                shard.trial = Some(Box::new(Trial::Refereeing(parting, Some(checkpoint.snapshot))));
                revoke(state, id, key, now, effects);
            } else {
                asked.push(node);
                shard.trial = Some(Box::new(Trial::Asking(parting, asked)));
            }
            go_on(state, id, key, given, now, effects);
        }
        // The owner may have thought better of who referees.
        Some(Trial::Refereeing(..)) if !is_referee => fail(state, id, key),
        Some(Trial::Refereeing(parting, snapshot)) => {
            let dispute = parting.dispute(snapshot, found.end);
            conclude(state, id, key, dispute, now, effects);
        }
        other => shard.trial = other.map(Box::new),
    }
}

/// Whoever is refuted is caught, and the shard goes on without it; nobody is where the dispute does not hold.
fn conclude(state: &mut State, id: JobId, key: ShardKey, dispute: Dispute, now: Millis, effects: &mut Vec<Effect>) {
    let sides = dispute.settled().filter(|_| dispute.check().is_ok());
    let Some((right, wrong)) = sides.and_then(|(right, wrong)| Some((peek(right)?, peek(wrong)?))) else {
        fail(state, id, key);
        return;
    };
    let Some(job) = state.jobs.get_mut(&id) else { return };
    let (info, audits) = (job.info(key), job.audits());
    let Some(shard) = job.shard_mut(key) else { return };
    let attested = |of: &Receipt| cast_of(shard, AssignmentId(of.nonce)).map(|(receipt, _)| receipt.clone());
    let (truth, lie) = (attested(&right), attested(&wrong));
    // Who has signed the same by now did not know that it would be refuted.
    let told_by_others = lie.as_ref().is_some_and(|lie| {
        let casts =
            shard.casts.iter().any(|cast| cast.commitment() == lie.commitment() && cast.operator() != wrong.operator);
        casts || was_told_before(shard, lie)
    });
    shard.casts.retain(|cast| cast.assignment() != Some(AssignmentId(wrong.nonce)));
    shard.probers.retain(|operator| *operator != wrong.operator);
    // Another dispute of the shard may be settled in the same way; where there is a third, a referee runs all of it and ends it.
    shard.refuted = shard.refuted.saturating_add(1);
    shard.trial = (shard.refuted > 1).then(|| Box::new(Trial::Failed));
    // Liars are not to use up the attempts of a shard.
    shard.attempts = shard.attempts.saturating_sub(1);
    money::release(state, id, AssignmentId(wrong.nonce), now);
    let record = Record::Dispute(Box::new(dispute));
    effects.push(Effect::Keep { job: id, shard: info, accused: Some(wrong.node), record });
    let caught = Notice::Caught { shard: info, node: wrong.node, operator: wrong.operator };
    effects.push(Effect::Notify { job: id, notice: caught });
    if let (Some(truth), Some(lie)) = (truth, lie) {
        history::refuted(state, (id, key), &lie, Some(&truth), now, effects);
        let auditor = audits.then_some(right.operator);
        money::convict(state, &money::Lie { receipt: &lie, truth: &truth, auditor, is_shared: told_by_others }, now);
        if let Some(shard) = state.jobs.get_mut(&id).and_then(|job| job.shard_mut(key)) {
            shard.lies.push(lie);
        }
    }
    settle::expel(state, (id, info), &wrong, now, effects);
    settle::judge(state, id, key, now, effects);
}

/// Whether another operator was refuted for the same in a trial of the shard before. That one is convicted of nothing more: what it signed
/// is known since, and anybody could sign the same to have it lose its stake.
pub(super) fn was_told_before(shard: &Shard, lie: &Attested) -> bool {
    let is_same =
        |other: &Attested| other.commitment() == lie.commitment() && other.receipt().operator != lie.receipt().operator;
    shard.lies.iter().any(is_same)
}

/// The shard has its result, or its job is over: nothing of a trial is wanted any more.
pub(super) fn abandon(state: &mut State, id: JobId, key: ShardKey, now: Millis, effects: &mut Vec<Effect>) {
    let Some(shard) = state.jobs.get_mut(&id).and_then(|job| job.shard_mut(key)) else { return };
    if shard.trial.take().is_none() {
        return;
    }
    revoke(state, id, key, now, effects);
}

/// The coordinator was away, and with it what its driver looked for.
pub(super) fn restarted(state: &State, effects: &mut Vec<Effect>) {
    for (id, job) in state.jobs.iter().filter(|(_, job)| !job.phase.is_ended()) {
        for (key, shard) in job.shards() {
            if let Some(Trial::Parting(assignments)) = shard.trial.as_deref() {
                effects.extend(part(*id, job.info(key), shard, *assignments));
            }
        }
    }
}

/// What a side signed. Who brought it was checked as it came in.
fn peek(side: &Side) -> Option<Receipt> {
    side.witness.receipt.peek().ok()
}

/// What a trial of the shard is about, for people.
pub(super) fn shown(shard: &Shard) -> Option<String> {
    let of = |parting: &Parting| parting.segment;
    Some(match shard.trial.as_deref()? {
        Trial::Parting(_) => "two results differ: where they part is looked for".to_owned(),
        Trial::Asking(parting, _) => {
            format!("two results part in segment {}: the state before it is asked for", of(parting))
        }
        Trial::Refereeing(parting, _) => format!("two results part in segment {}: a referee runs it", of(parting)),
        Trial::Failed => return None,
    })
}
