//! What decisions do to operators' standings, said with its evidence: each function is one cause, and none decides anything.
//!
//! Histories are effects alone. The machine keeps nothing of them but whether they have begun, so that its state does not grow with
//! them; until they have begun nothing is said at all, and a simulation, where nobody would read it, pays nothing for it.

use std::collections::BTreeSet;

use registry::{
    id::{JobId, NodeId, OperatorId},
    reputation::{Availability, CLASSES, Cause, Change, Standing, Work},
};

use super::{Effect, State, cast::Cast, job::ShardKey};
use crate::{
    fleet::Suspension,
    flow::{Attested, Millis},
};

fn say(operator: OperatorId, at_ms: Millis, cause: Cause, effects: &mut Vec<Effect>) {
    effects.push(Effect::Changed { operator, change: Box::new(Change { at_ms, cause }) });
}

/// Everything that is so already is said once: who was caught, whom the owner answers for, and what was shown.
pub(super) fn begin(state: &mut State, now: Millis, effects: &mut Vec<Effect>) {
    if std::mem::replace(&mut state.histories, true) {
        return;
    }
    for (operator, suspension) in state.fleet.suspensions() {
        say(operator, now, caught(suspension), effects);
    }
    for operator in &state.config.vouched {
        say(*operator, now, Cause::Vouched, effects);
    }
    let rules = state.config.audit.rules();
    for operator in known(state) {
        for class in CLASSES {
            let standing = state.reputation.standing(operator, class);
            let qualified = state.reputation.qualified(class).contains(&operator);
            // What follows from the owner's word alone needs not be said again.
            if standing != Standing::default() || qualified != state.config.vouched.contains(&operator) {
                say(operator, now, Cause::Found { class, standing, rules, qualified }, effects);
            }
        }
    }
    for (node, host) in state.fleet.hosts().filter(|(_, host)| host.record.faults > 0) {
        let so_far = Availability { given: host.record.assigned, faults: host.record.faults };
        say(host.operator, now, Cause::Faulted { node, so_far }, effects);
    }
}

/// Operators of whom something is known besides that they have hosts.
fn known(state: &State) -> BTreeSet<OperatorId> {
    let shown = state.reputation.standings().map(|(operator, ..)| operator);
    let qualified = CLASSES.into_iter().flat_map(|class| state.reputation.qualified(class)).copied();
    shown.chain(qualified).chain(state.config.vouched.iter().copied()).collect()
}

/// The owner answers for others than before.
pub(super) fn vouched(state: &State, before: &BTreeSet<OperatorId>, now: Millis, effects: &mut Vec<Effect>) {
    if !state.histories {
        return;
    }
    let vouched = &state.config.vouched;
    for operator in before.difference(vouched) {
        say(*operator, now, Cause::Released { rules: state.config.audit.rules() }, effects);
    }
    for operator in vouched {
        // One that was caught has standing again: the owner has the last word.
        let has_it = CLASSES.into_iter().all(|class| state.reputation.qualified(class).contains(operator));
        if !(before.contains(operator) && has_it) {
            say(*operator, now, Cause::Vouched, effects);
        }
    }
}

/// The operator's result of this shard was checked and held, and that is reckoned with already.
pub(super) fn confirmed(
    state: &State,
    (id, key): (JobId, ShardKey),
    operator: OperatorId,
    worth_micro: u64,
    now: Millis,
    effects: &mut Vec<Effect>,
) {
    let Some(job) = state.jobs.get(&id).filter(|_| state.histories) else { return };
    let Some(shard) = job.shard(key) else { return };
    let truth = shard.accepted.as_ref().map(|(commitment, _)| *commitment);
    let own = shard.casts.iter().filter(|cast| cast.operator() == operator && Some(cast.commitment()) == truth);
    let receipt = own.filter_map(Cast::receipt).map(Attested::id).next();
    let (class, work) = (job.spec.class, Work { job: id, shard: job.info(key), task: shard.task });
    let (rules, after) = (state.config.audit.rules(), state.reputation.standing(operator, class));
    say(operator, now, Cause::Confirmed { class, work, receipt, worth_micro, rules, after }, effects);
}

/// A result was checked and did not hold, against a receipt that the verdict is for.
pub(super) fn refuted(
    state: &State,
    (id, key): (JobId, ShardKey),
    receipt: &Attested,
    against: Option<&Attested>,
    now: Millis,
    effects: &mut Vec<Effect>,
) {
    if !state.histories {
        return;
    }
    let Some((shard, task)) = state.jobs.get(&id).and_then(|job| Some((job.info(key), job.shard(key)?.task))) else {
        return;
    };
    let (work, against) = (Work { job: id, shard, task }, against.map(Attested::id));
    say(receipt.receipt().operator, now, Cause::Refuted { work, receipt: receipt.id(), against }, effects);
}

/// The operator was caught, and gets no more work.
pub(super) fn expelled(
    state: &State,
    operator: OperatorId,
    suspension: &Suspension,
    now: Millis,
    effects: &mut Vec<Effect>,
) {
    if state.histories {
        say(operator, now, caught(suspension), effects);
    }
}

fn caught(suspension: &Suspension) -> Cause {
    let Suspension { job, shard, node } = *suspension;
    Cause::Expelled { job, shard, node }
}

/// A machine gave no result once more. That is said when the number has doubled: a machine that fails at everything it is given must
/// not fill the coordinator's disk.
pub(super) fn faulted(state: &State, node: NodeId, now: Millis, effects: &mut Vec<Effect>) {
    let Some(host) = state.fleet.get(node).filter(|_| state.histories) else { return };
    let so_far = Availability { given: host.record.assigned, faults: host.record.faults };
    if so_far.faults.is_power_of_two() {
        say(host.operator, now, Cause::Faulted { node, so_far }, effects);
    }
}
