//! Results differ, and one that the grid's owner answers for is waited for.
//!
//! Whoever was asked meanwhile, since somebody took long, may be a liar's accomplice: so nothing is accepted of such a shard before a
//! referee has voted, and nobody else is asked, as long as one could be. That one is there, suits, can be paid and may be asked at all
//! may change with any event; who looks for the shard's host sees that ([`schedule`](super::schedule)), and so does whoever sees a referee
//! go ([`regard`]).

use registry::id::{JobId, NodeId};

use super::{
    State,
    job::{Job, Shard, ShardKey},
    money,
};
use crate::{config::Config, engines::EngineAsk, fleet::Host, place};

/// Whether nothing is accepted of the shard before more is known: a referee's vote does not wait, but others may be those of liars who
/// outnumber the one that the trial, or a referee that is there, would show to be right.
pub(super) fn is_awaited(state: &State, id: JobId, job: &Job, shard: &Shard) -> bool {
    let config = &state.config;
    if shard.is_on_trial() {
        return !has_voted(shard, config);
    }
    let is_asked = || shard.open.iter().any(|(_, operator)| config.vouched.contains(operator));
    is_needed(shard, config) && (is_asked() || may_be_asked(state, id, job, shard))
}

/// Whether a referee could be asked for the shard, now or soon: one whose connection is gone may come back, and credits may be free again.
pub(super) fn may_be_asked(state: &State, id: JobId, job: &Job, shard: &Shard) -> bool {
    let may = |(_, host): (NodeId, &Host)| !host.is_lost && money::may_pay(state, id, job, shard, host);
    shard.attempts < job.spec.attempts_max && referees(state, job, shard).any(may)
}

/// Whether results of the shard differ, no trial is to tell them apart and no referee has voted: one is asked for all of it, as long as
/// more may be asked at all. What a trial has refuted differs from nothing.
pub(super) fn is_needed(shard: &Shard, config: &Config) -> bool {
    let may_ask = shard.casts.len() < usize::from(config.replicas_max) + shard.probers.len();
    may_ask && shard.differs(config) && !shard.is_on_trial() && !has_voted(shard, config)
}

/// Whether a referee has voted on the shard.
pub(super) fn has_voted(shard: &Shard, config: &Config) -> bool {
    shard.casts.iter().any(|cast| config.vouched.contains(&cast.operator()))
}

/// Hosts that referee, and could run the shard on its engine when they have room and a connection.
fn referees<'a>(state: &'a State, job: &'a Job, shard: &Shard) -> impl Iterator<Item = (NodeId, &'a Host)> {
    let (engine, ask, had) = (shard.engine, EngineAsk::from(&job.spec), shard.operators());
    let others = state.config.vouched.iter().filter(move |operator| !had.contains(operator));
    let hosts = others.flat_map(|operator| state.fleet.hosts_of(*operator));
    hosts.filter(move |(_, host)| engine.is_some_and(|engine| place::could_on(engine, &job.spec.limits, &ask, host)))
}

/// The least busy of those that have a connection.
pub(super) fn least_busy(state: &State, job: &Job, shard: &Shard) -> Option<NodeId> {
    let hosts = referees(state, job, shard).filter(|(_, host)| host.connected);
    hosts.min_by_key(|(node, host)| (!state.fleet.is_roomy(*node), host.in_flight(), *node)).map(|(node, _)| node)
}

/// A host came back, perhaps with another offer, or is lost.
pub(super) fn host_changed(state: &mut State, node: NodeId) {
    if state.fleet.get(node).is_some_and(|host| state.config.vouched.contains(&host.operator)) {
        regard(state);
    }
}

/// Others referee than before: nobody waits for one that is not there any more.
pub(super) fn regard(state: &mut State) {
    let disputed = state.jobs.iter().flat_map(|(id, job)| job.queued.disputed().map(|key| (*id, key)));
    let decided = |(id, key): &(JobId, ShardKey)| {
        let shard = state.jobs.get(id).and_then(|job| job.shard(*key));
        shard.is_some_and(|shard| shard.has_verdict(&state.config))
    };
    state.unjudged.extend(disputed.filter(decided));
}
