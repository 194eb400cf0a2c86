//! Who goes on from a state that was kept of a shard, and for whom one waits meanwhile.
//!
//! An heir with room has the shard at once. Where all of them are busy the shard waits for the first to have room, for as long as the
//! execution had taken that was lost: then, or when none of them is there any more, anybody may begin it anew.

use std::collections::BTreeSet;

use registry::id::{EngineFingerprint, JobId, NodeId, OperatorId};

use super::{
    State, checkpoint,
    job::{Job, Shard},
    schedule::{self, Next},
};
use crate::{
    fleet::Host,
    place::{self, Among, Need},
};

/// Operators whose states nobody has room to go on from: found once for all jobs that one event looks at.
#[derive(Debug, Default)]
pub(super) struct Busy(BTreeSet<OperatorId>);

/// The first of the job's shards of which a state was kept that somebody goes on with, or that nobody is waited for any more.
pub(super) fn next(state: &State, id: JobId, job: &Job, busy: &mut Busy) -> Option<Next> {
    for (operator, shards) in job.queued.kept() {
        // All of them on one engine are alike: where one of them waits, all do.
        let mut awaited = None;
        for key in shards.iter().take(state.config.scan_max) {
            if busy.0.contains(&operator) {
                break;
            }
            let Some((shard, kept)) = job.shard(*key).and_then(|shard| Some((shard, checkpoint::left(shard)?))) else {
                return Some(Next::Begin(*key));
            };
            if awaited == Some(kept.engine()) {
                continue;
            }
            let operators = shard.operators();
            let need = schedule::need(state, id, job, shard, &operators);
            if let Some((node, engine)) = free(state, id, shard, &need) {
                return Some(Next::Place((*key, node, engine)));
            }
            let heirs = kept.heirs(state, id);
            if !is_there(state, &heirs, kept.engine(), &need) {
                return Some(Next::Begin(*key));
            }
            awaited = Some(kept.engine());
            let hosts = || heirs.iter().flat_map(|heir| state.fleet.hosts_of(*heir));
            if !hosts().any(|(node, _)| state.fleet.is_roomy(node)) {
                busy.0.insert(operator);
            }
        }
    }
    None
}

/// A host with room that may go on from what was kept of the shard, and its engine. One that failed it before is better than none: what it
/// has kept is here.
pub(super) fn free(state: &State, id: JobId, shard: &Shard, need: &Need<'_>) -> Option<(NodeId, EngineFingerprint)> {
    let fits = |kept: &&checkpoint::Kept| {
        let is_engine = shard.engine.is_none_or(|engine| engine == kept.engine());
        is_engine && state.fleet.operators(kept.engine()) >= usize::from(need.quorum)
    };
    let kept = checkpoint::left(shard).filter(fits)?;
    let heirs = kept.heirs(state, id);
    let need = Need { among: Among::Heirs(&heirs), engine: Some(kept.engine()), ..*need };
    let again = || place::pick(&Need { faulted: &[], ..need }, &state.fleet, &state.config);
    place::pick(&need, &state.fleet, &state.config).or_else(again)
}

/// Whether a host is there, or has its grace to come back, that may go on and can once it has room.
fn is_there(state: &State, heirs: &BTreeSet<OperatorId>, engine: EngineFingerprint, need: &Need<'_>) -> bool {
    let can = |host: &Host| {
        let affordable = || place::affordable(need.limits, need.ask.device, need.budget, host).is_ok();
        !host.is_lost && place::could_on(engine, need.limits, &need.ask, host) && affordable()
    };
    let others = heirs.iter().filter(|heir| !need.operators.contains(heir));
    others.flat_map(|heir| state.fleet.hosts_of(*heir)).any(|(_, host)| can(host))
}
