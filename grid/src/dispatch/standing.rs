//! Whose word is enough. Audits are drawn, newcomers show what they are worth, and who is caught takes with it what stood on
//! its word alone.
//!
//! - **A draw** follows a shard's first receipt, when that is of an operator with standing: see [`registry::audit`]. A result that is
//!   audited is not accepted before another operator, who cannot tell an audit from a task, has signed the same.
//! - **A probe** is a result that stands and is repeated by a newcomer. It decides nothing: equal, it builds the newcomer's standing;
//!   otherwise the result is withdrawn and more operators are asked, a referee where there is one. One of the two is caught.
//! - **Voided**: results of unfinished jobs for which a caught operator stands, alone or with newcomers that repeated them, are
//!   withdrawn and run again.
//!
//! A map's results can be withdrawn until the last of them is accepted. What was delivered by then stays delivered; newcomers repeat it
//! all the same, a referee is asked where they say otherwise, and what was wrong is told and put right.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use registry::{
    audit::{self, Drawn, PPM},
    id::{JobId, NodeId, OperatorId},
    job::{Class, Stage},
};
use serde::{Deserialize, Serialize};

use super::{
    Effect, Notice, Open, Phase, State,
    cast::Cast,
    history,
    job::{Shard, ShardKey},
    money, referee,
    schedule::{self, Piece, Placed},
    settle,
};
use crate::{
    audit::{AuditConfig, rate_ppm},
    config::Config,
    engines::EngineAsk,
    fleet,
    flow::{Millis, Verdict},
    place::{self, Among, Need},
};

/// How newcomers come to standing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Qualification {
    /// Accepted results, the latest last.
    recent: VecDeque<(JobId, ShardKey)>,
    /// Probes that may be ordered, in millionths.
    allowance: u64,
    /// The newcomer that was given a probe last.
    cursor: Option<NodeId>,
    /// Results that were withdrawn since a newcomer said otherwise, by newcomer.
    disputes: BTreeMap<OperatorId, (JobId, ShardKey)>,
}

impl Qualification {
    pub(super) fn new(config: &AuditConfig) -> Self {
        let allowance = u64::from(config.qualification_first) * u64::from(PPM);
        Self { recent: VecDeque::new(), allowance, cursor: None, disputes: BTreeMap::new() }
    }

    /// One more result stands; gives the one that is too old to be repeated from now on, if any.
    fn accepted(&mut self, config: &AuditConfig, job: JobId, key: ShardKey) -> Option<(JobId, ShardKey)> {
        let most = u64::from(config.qualification_first.max(1)) * u64::from(PPM);
        self.allowance = self.allowance.saturating_add(config.qualification_ppm.into()).min(most);
        self.recent.push_back((job, key));
        if self.recent.len() > config.qualification_window { self.recent.pop_front() } else { None }
    }

    /// The job's results that may still be repeated.
    pub(super) fn recent_of(&self, job: JobId) -> BTreeSet<ShardKey> {
        self.recent.iter().filter(|(id, _)| *id == job).map(|(_, key)| *key).collect()
    }
}

/// The parameters are others from now on.
pub(super) fn configured(state: &mut State, config: Config, now: Millis, effects: &mut Vec<Effect>) {
    let before = std::mem::replace(&mut state.config, config);
    history::vouched(state, &before.vouched, now, effects);
    // Rules that do not fit together are refused where the configuration is read; those that were hold on.
    let _refused = state.ledger.configure(state.config.ledger.clone());
    state.reputation.vouch(&state.config.audit, &before.vouched, &state.config.vouched);
    let nodes: Vec<NodeId> = state.fleet.hosts().map(|(node, _)| node).collect();
    nodes.into_iter().for_each(|node| sort(state, node));
    referee::regard(state);
}

/// Sorts the host with the newcomers, or with those whose results may be accepted alone.
pub(super) fn sort(state: &mut State, node: NodeId) {
    let Some(host) = state.fleet.get(node) else { return };
    let operator = host.operator;
    let trusted = state.reputation.classes(operator);
    if host.connected && host.suspended.is_none() && !trusted.contains(Class::Exact) {
        state.newcomers.insert(node);
    } else {
        state.newcomers.remove(&node);
    }
    state.fleet.trust(node, trusted);
}

fn sort_all_of(state: &mut State, operator: OperatorId) {
    let nodes: Vec<NodeId> = state.fleet.hosts_of(operator).map(|(node, _)| node).collect();
    nodes.into_iter().for_each(|node| sort(state, node));
}

/// Draws whether the shard's first result is audited.
pub(super) fn draw(state: &mut State, open: &Open, now: Millis) {
    let (id, key) = (open.job, open.shard);
    let Some(job) = state.jobs.get_mut(&id).filter(|job| job.audits()) else { return };
    let (class, secret) = (job.spec.class, job.secret);
    let Some(shard) = job.shard_mut(key).filter(|shard| shard.quorum == 1 && shard.drawn.is_none()) else { return };
    let Some(receipt) = shard.casts.last().and_then(Cast::receipt) else { return };
    let (config, operator) = (&state.config.audit, receipt.receipt().operator);
    let is_vouched = state.config.vouched.contains(&operator);
    // The owner answers for it with all that the grid is.
    let (checked, at_risk) = if is_vouched {
        (u64::MAX, u64::MAX)
    } else {
        let standing = state.reputation.standing(operator, class);
        let at_risk = config.stake_micro.saturating_add(state.ledger.unsettled(operator).micro());
        (standing.checked_micro(now, config.half_life_ms), at_risk)
    };
    // What a lie about it gains is what it is worth.
    let gain = config.rules().value_micro(receipt.receipt().price_micro);
    let rate_ppm = rate_ppm(config, checked, at_risk, gain);
    let receipt = receipt.id();
    let drawn = audit::draw(&secret, receipt, id);
    shard.drawn = Some(Drawn { receipt, rate_ppm });
    if drawn.audits(rate_ppm) {
        // Who has it already was not drawn: a host could hold its answer back until an accomplice is asked in its place.
        let before = u8::try_from(shard.open.len()).unwrap_or(u8::MAX);
        shard.quorum = config.auditors.saturating_add(1).saturating_add(before);
        shard.auditor = Some(Box::new(drawn.auditor()));
        // Where it was when it was asked: it could go elsewhere until it answers, to be audited by others.
        shard.apart = (!is_vouched).then_some(open.subnet);
    }
}

/// A shard's result stands from now on.
pub(super) fn accepted(state: &mut State, id: JobId, key: ShardKey, now: Millis, effects: &mut Vec<Effect>) {
    let Some(job) = state.jobs.get(&id) else { return };
    let Some(shard) = job.shard(key) else { return };
    let class = job.spec.class;
    let alone = shard.sole_supporter();
    let witnesses = if shard.sole_witness().is_some() { BTreeSet::new() } else { shard.witnesses() };
    if let (Some(operator), Some(job)) = (alone, state.jobs.get_mut(&id)) {
        job.unchecked.insert(operator, key);
    }
    witnesses.into_iter().for_each(|operator| confirm(state, (id, key), operator, now, effects));
    if class == Class::Exact && key.stage == Stage::Map {
        let old = state.qualification.accepted(&state.config.audit, id, key);
        let old = old.and_then(|(id, key)| {
            state.jobs.get_mut(&id).filter(|job| job.phase.is_ended()).and_then(|job| job.shard_mut(key))
        });
        old.into_iter().for_each(Shard::summarise);
    }
}

/// The operator's result of this shard was checked and holds.
fn confirm(
    state: &mut State,
    (id, key): (JobId, ShardKey),
    operator: OperatorId,
    now: Millis,
    effects: &mut Vec<Effect>,
) {
    let Some(job) = state.jobs.get(&id) else { return };
    let (class, prices) = (job.spec.class, job.shard(key).into_iter().flat_map(Shard::agreed_prices));
    let worth_micro = state.config.audit.rules().worth_micro(prices);
    if state.fleet.is_suspended(operator) {
        return;
    }
    let was_qualified = state.reputation.qualified(class).contains(&operator);
    state.reputation.confirm(&state.config.audit, operator, class, worth_micro, now);
    history::confirmed(state, (id, key), operator, worth_micro, now, effects);
    if !was_qualified && state.reputation.qualified(class).contains(&operator) {
        sort_all_of(state, operator);
    }
}

/// Gives newcomers results to repeat, as many as the grid has to spare. Where nobody has standing there is nobody to learn from:
/// everyone is asked in quorums anyway.
pub(super) fn qualify(state: &mut State, now: Millis, effects: &mut Vec<Effect>) {
    while state.qualification.allowance >= PPM.into() && !state.reputation.qualified(Class::Exact).is_empty() {
        let Some((id, placed)) = next_probe(state) else { return };
        state.qualification.allowance -= u64::from(PPM);
        state.qualification.cursor = Some(placed.1);
        schedule::order(state, id, placed, Piece::Repetition, now, effects);
    }
}

/// A newcomer with room and a result that it can repeat.
fn next_probe(state: &State) -> Option<(JobId, Placed)> {
    let Config { candidates_max, scan_max, .. } = state.config;
    let nodes = fleet::after(&state.newcomers, state.qualification.cursor).take(candidates_max);
    nodes.filter(|node| state.fleet.is_roomy(*node)).find_map(|node| {
        // One at a time: whoever lies about the first shall not have lied about ten.
        let host =
            state.fleet.get(node).filter(|host| host.assignments.is_empty() && !disputes(state, host.operator))?;
        state.qualification.recent.iter().rev().take(scan_max).find_map(|(id, key)| {
            let job = state.jobs.get(id).filter(|job| matches!(job.phase, Phase::Mapping | Phase::Done))?;
            let shard = job.shard(*key).filter(|shard| shard.accepted.is_some())?;
            let engine = host.offer.engines.get(shard.engine?)?;
            let suits = EngineAsk::from(&job.spec).suits(engine) && job.capable(host).is_ok();
            let fits = suits && !shard.operators().contains(&host.operator);
            fits.then_some((*id, (*key, node, engine.fingerprint)))
        })
    })
}

/// Whether it is not known yet who is right, the newcomer or whom it contradicted.
fn disputes(state: &State, newcomer: OperatorId) -> bool {
    let disputed = state.qualification.disputes.get(&newcomer).and_then(|(id, key)| {
        let job = state.jobs.get(id)?;
        let shard = job.shard(*key)?;
        Some(if job.phase.is_ended() { !shard.probes.is_empty() } else { shard.accepted.is_none() })
    });
    disputed.unwrap_or(false)
}

/// A newcomer has repeated a result.
pub(super) fn probed(state: &mut State, open: &Open, cast: Cast, now: Millis, effects: &mut Vec<Effect>) {
    let (id, key) = (open.job, open.shard);
    let Some(job) = state.jobs.get_mut(&id) else { return };
    let has_ended = job.phase.is_ended();
    let Some(shard) = job.shard_mut(key) else { return };
    let alone = shard.sole_witness();
    let says = cast.commitment();
    shard.casts.push(cast);
    shard.probers.push(open.operator);
    let is_referee = state.config.vouched.contains(&open.operator);
    if is_referee && has_ended {
        refereed(state, open, now, effects);
        return;
    }
    match shard.accepted.as_ref().map(|(truth, _)| *truth == says) {
        Some(true) => {
            confirm(state, (id, key), open.operator, now, effects);
            state.fleet.record(open.node, |record| record.confirmed += 1);
            // It stays among those that are run again if its operator is caught: the newcomer may be of the same ring.
            if let Some(operator) = alone {
                confirm(state, (id, key), operator, now, effects);
            }
        }
        // The result was withdrawn meanwhile: it is held against what stands in the end.
        None => settle::judge(state, id, key, now, effects),
        Some(false) => contradicted(state, open, now, effects),
    }
}

/// Somebody says otherwise than a result that stands. Either it is blamed, or more are asked; where nobody is there who could tell,
/// the result stands as it did.
fn contradicted(state: &mut State, open: &Open, now: Millis, effects: &mut Vec<Effect>) {
    let (id, key) = (open.job, open.shard);
    let Some(job) = state.jobs.get(&id) else { return };
    let Some(shard) = job.shard(key) else { return };
    let agreeing = shard.witnesses();
    let referees = &state.config.vouched;
    let is_checked = agreeing.len() > 1;
    if is_checked && (referees.is_empty() || !referees.is_disjoint(&agreeing)) {
        settle::compare(state, id, key, open.node, now, effects);
        return;
    }
    let operators = shard.operators();
    if job.phase == Phase::Mapping {
        let told = if is_checked {
            referee::may_be_asked(state, id, job, shard)
        } else {
            shard.engine.is_some_and(|engine| state.fleet.has_other_operator(engine, &operators))
        };
        if told {
            reopen(state, open, shard.supporters().len(), now, effects);
        }
        return;
    }
    // What was delivered cannot be taken back, but who was wrong can be found out.
    let need = schedule::need(state, id, job, shard, &operators);
    let placed = place::pick(&Need { among: Among::Referees(referees), ..need }, &state.fleet, &state.config);
    if let Some((node, engine)) = placed.filter(|(_, engine)| Some(*engine) == shard.engine) {
        state.qualification.disputes.insert(open.operator, (id, key));
        schedule::order(state, id, (key, node, engine), Piece::Repetition, now, effects);
    }
}

/// The result is withdrawn, and one operator more than support it by now has to agree.
fn reopen(state: &mut State, open: &Open, supporters: usize, now: Millis, effects: &mut Vec<Effect>) {
    let (id, key) = (open.job, open.shard);
    withdraw(state, id, key, effects);
    if let Some(shard) = state.jobs.get_mut(&id).and_then(|job| job.shard_mut(key)) {
        shard.quorum = u8::try_from(supporters + 1).unwrap_or(u8::MAX).max(2);
    }
    state.qualification.disputes.insert(open.operator, (id, key));
    settle::judge(state, id, key, now, effects);
}

/// A referee has repeated a result of an ended job that a newcomer contradicted: whoever it agrees with was right.
fn refereed(state: &mut State, open: &Open, now: Millis, effects: &mut Vec<Effect>) {
    let (id, key) = (open.job, open.shard);
    let Some(shard) = state.jobs.get_mut(&id).and_then(|job| job.shard_mut(key)) else { return };
    shard.quorum = 2;
    let Verdict::Accepted(truth) = shard.verdict(&state.config) else { return };
    let stood = shard.accepted.as_ref().map(|(commitment, _)| *commitment);
    let nodes: Vec<NodeId> = shard.casts.iter().map(Cast::node).collect();
    let right = shard.casts.iter().find_map(|cast| match cast {
        Cast::Receipt { output, .. } if cast.commitment() == truth => Some(output.clone()),
        Cast::Receipt { .. } | Cast::Summary(_) => None,
    });
    let Some(output) = right else { return };
    if stood != Some(truth) {
        shard.accepted = Some((truth, output));
        settle::keep_accepted(state, id, key, effects);
    }
    for node in nodes {
        settle::compare(state, id, key, node, now, effects);
    }
}

/// A map's result does not stand any more.
fn withdraw(state: &mut State, id: JobId, key: ShardKey, effects: &mut Vec<Effect>) {
    money::contest(state, id, key);
    let Some(job) = state.jobs.get_mut(&id) else { return };
    let shard = job.info(key);
    let alone = job.shard(key).and_then(Shard::sole_supporter);
    if job.shard_mut(key).and_then(|shard| shard.accepted.take()).is_some() {
        job.count_withdrawn();
        effects.push(Effect::Notify { job: id, notice: Notice::Withdrawn { shard } });
    }
    if let Some(operator) = alone {
        job.unchecked.remove(operator, key);
    }
}

/// The operator was caught: nothing stands on its word alone, where that can still be mended.
pub(super) fn void(state: &mut State, operator: OperatorId, effects: &mut Vec<Effect>) {
    state.reputation.forget(operator);
    state.qualification.disputes.remove(&operator);
    sort_all_of(state, operator);
    let alone = state.jobs.iter().flat_map(|(id, job)| job.unchecked.of(operator).map(|key| (*id, key)));
    let alone: Vec<(JobId, ShardKey)> = alone.collect();
    for (id, key) in alone {
        let is_mapping = state.jobs.get(&id).is_some_and(|job| job.phase == Phase::Mapping);
        if !is_mapping || key.stage != Stage::Map {
            continue;
        }
        withdraw(state, id, key, effects);
        let Some(job) = state.jobs.get_mut(&id) else { continue };
        let quorum = job.spec.policy.quorum();
        if let Some(shard) = job.shard_mut(key) {
            shard.restart(quorum);
        }
        state.unjudged.push_back((id, key));
    }
}
