//! What the machine's decisions mean for the [`Ledger`](crate::ledger): each function is one decision, and none decides anything.
//!
//! - A job that somebody pays for has its cap in escrow from its acceptance to its end. One that nobody pays for has no budget, and
//!   runs on hosts that ask for nothing.
//! - An order is held for before it goes out, and its hold ends with it: paid by the verdict on its shard, or released.
//! - A repetition by a newcomer has no hold. It is what a new identity costs, and nobody pays it.
//! - Who is caught loses what it has earned and is not settled, and its stake where it lied together with others.
//!
//! The ledger refuses what must not be, by name; where it refuses a payment the hold is released, so that no credits stay behind.

use registry::{
    credits::Credits,
    id::{JobId, NodeId, OperatorId},
};

use super::{
    Effect, State,
    cast::Cast,
    job::{Job, Shard, ShardKey},
};
use crate::{
    config::Config,
    fleet::Host,
    flow::{AssignmentId, Attested, Fault, Millis, Payer, Verdict},
    ledger::{Conviction, LedgerError, Order, Payable, Role, Terms, audit_reserve},
    place,
};

/// The job's cap goes into escrow.
///
/// # Errors
/// When its payer has too little.
pub(super) fn open(state: &mut State, id: JobId, payer: Option<Payer>, now: Millis) -> Result<(), Fault> {
    let (Some(Payer { requester, cap }), Some(job)) = (payer, state.jobs.get(&id)) else { return Ok(()) };
    let (rate_ppm, auditors) = state.config.audit.usual(job.spec.policy);
    let reserve = audit_reserve(cap, job.shard_count(), job.spec.policy.quorum(), rate_ppm, auditors);
    let terms = Terms::of(&job.spec, requester, cap, reserve);
    let opened = state.ledger.open(id, terms, now);
    opened.map(drop).map_err(|refusal| {
        let word = if matches!(refusal, LedgerError::Funds { .. }) { "funds" } else { "escrow" };
        Fault::new(word, refusal.to_string())
    })
}

/// What the shard's next execution is for.
pub(super) fn role(shard: &Shard, config: &Config) -> Role {
    if shard.quorum > shard.asked || shard.is_disputed(config) { Role::Audit } else { Role::Work }
}

/// What the shard's next execution may cost.
pub(super) fn budget(state: &State, id: JobId, shard: &Shard) -> Credits {
    state.ledger.free_for(id, role(shard, &state.config))
}

/// Whether the job can pay for an execution of the shard at the host, or could be able to once what is under way of it has ended.
pub(super) fn may_pay(state: &State, id: JobId, job: &Job, shard: &Shard, host: &Host) -> bool {
    let free = budget(state, id, shard);
    place::affordable(&job.spec.limits, job.spec.device, free, host).is_ok() || has_held(state, id)
}

/// Whether something of the job is under way that could leave more than is free now.
fn has_held(state: &State, id: JobId) -> bool {
    state.ledger.held_of(id).any(|assignment| state.open.contains(assignment))
}

/// Sets aside what an order may cost. Says whether it may go out.
pub(super) fn hold(
    state: &mut State,
    id: JobId,
    key: ShardKey,
    assignment: AssignmentId,
    node: NodeId,
    role: Role,
) -> bool {
    let (Some(host), Some(job)) = (state.fleet.get(node), state.jobs.get(&id)) else { return false };
    if !state.ledger.knows(id) {
        return place::affordable(&job.spec.limits, job.spec.device, Credits::ZERO, host).is_ok();
    }
    let order = Order { assignment, shard: job.info(key), node, operator: host.operator, role };
    state.ledger.hold(id, order, &host.offer.prices).is_ok()
}

/// An order came to nothing.
pub(super) fn release(state: &mut State, id: JobId, assignment: AssignmentId, now: Millis) {
    if state.ledger.is_held(id, assignment) {
        // Whatever it refuses is no hold, and then there is nothing to release.
        let _no_hold = state.ledger.release(id, assignment, now);
    }
}

/// There is a verdict on the shard: those that it is for are paid, and what was held for the others is free.
pub(super) fn judged(state: &mut State, id: JobId, key: ShardKey, verdict: Verdict, now: Millis) {
    if !state.ledger.knows(id) {
        return;
    }
    let State { jobs, ledger, .. } = state;
    let Some(job) = jobs.get(&id) else { return };
    let Some(shard) = job.shard(key) else { return };
    for cast in &shard.casts {
        let (Cast::Receipt { receipt, output, .. }, Some(assignment)) = (cast, cast.assignment()) else { continue };
        if !ledger.is_held(id, assignment) {
            continue;
        }
        let paid = !shard.is_refuted(receipt.commitment())
            && Payable::of(verdict, receipt, output).is_ok_and(|payable| ledger.pay(&payable, now).is_ok());
        if !paid {
            let _no_hold = ledger.release(id, assignment, now);
        }
    }
    // What was paid for the shard before a dispute is settled at its date again.
    let _unknown = ledger.absolve(id, job.info(key));
}

/// The shard's result is in dispute: what was paid for it waits.
pub(super) fn contest(state: &mut State, id: JobId, key: ShardKey) {
    let Some(shard) = state.jobs.get(&id).map(|job| job.info(key)) else { return };
    let _unpaid = state.ledger.contest(id, shard);
}

/// What is known of a wrong result.
pub(super) struct Lie<'a> {
    pub(super) receipt: &'a Attested,
    /// One that the verdict is for.
    pub(super) truth: &'a Attested,
    /// Who was asked to look, and found it.
    pub(super) auditor: Option<OperatorId>,
    /// Another operator signed the same.
    pub(super) is_shared: bool,
}

/// Who signed this loses what it has earned; and its stake too, if it did not err alone.
pub(super) fn convict(state: &mut State, lie: &Lie<'_>, now: Millis) {
    let conviction = Conviction::found(lie.receipt, lie.truth);
    let conviction = lie.auditor.into_iter().fold(conviction, Conviction::found_by);
    // Both refuse what was done before.
    let _convicted = match lie.is_shared {
        true => state.ledger.slash(&conviction, now).map(|slashed| slashed.returned),
        false => state.ledger.expel(&conviction, now),
    };
}

/// The job has ended: what has no verdict by now gets none, and what is left of the cap goes back.
pub(super) fn close(state: &mut State, id: JobId, now: Millis) {
    let held: Vec<AssignmentId> = state.ledger.held_of(id).collect();
    for assignment in held {
        release(state, id, assignment, now);
    }
    let _unpaid = state.ledger.close(id, now);
}

/// The job's cap leaves too little for any host that it has had, and nothing is under way that could leave more: why it ends.
pub(super) fn is_spent(state: &State, id: JobId) -> Option<Fault> {
    // What work may cost, audits may too: to look at what is queued costs as much as to place it.
    let least = state.ledger.least_held(id).filter(|least| *least > state.ledger.free_for(id, Role::Work))?;
    let job = state.jobs.get(&id).filter(|job| !job.phase.is_ended())?;
    let max = state.config.scan_max;
    let kept = || job.queued.kept().flat_map(|(_, shards)| shards.iter().take(max)).copied();
    let keys = || job.queued.disputed().take(max).chain(kept()).chain(job.queued.others(max));
    let queued = || keys().filter_map(|key| job.shard(key));
    let free = queued().map(|shard| budget(state, id, shard)).max()?;
    // What waits for a referee has its verdict in the end, and that leaves more too.
    let waits = || queued().any(|shard| shard.has_verdict(&state.config));
    if least <= free || has_held(state, id) || waits() {
        return None;
    }
    let (accepted, shards) = (job.accepted_count(), job.shard_count());
    let detail = format!(
        "the cap leaves {free} credits, an execution may cost {least}, and {accepted} of {shards} shards are accepted: ask for a higher cap, or for lower limits"
    );
    Some(Fault::new("cap", detail))
}

/// Settles what is due, and hands over what needs not be at hand any more.
pub(super) fn settle(state: &mut State, now: Millis, effects: &mut Vec<Effect>) {
    if state.ledger.next_due().is_some_and(|due| due <= now) {
        let touched = state.ledger.jobs_due(now);
        // It refuses nothing as long as its invariants hold, and then it stays as it is.
        let _settled = state.ledger.settle(now);
        touched.into_iter().for_each(|id| forget(state, id, effects));
    }
    let postings = state.ledger.postings_len();
    if postings > state.config.postings_max.max(1) {
        let upto = state.ledger.postings().nth(postings / 2).map(|posting| posting.id);
        let Some(upto) = upto else { return };
        effects.push(Effect::Archive { postings: state.ledger.archive(upto) });
    }
}

/// A job that is settled, and that the machine does not remember, leaves the ledger with its invoice.
pub(super) fn forget(state: &mut State, id: JobId, effects: &mut Vec<Effect>) {
    if !state.jobs.contains_key(&id)
        && let Ok(invoice) = state.ledger.forget(id)
    {
        effects.push(Effect::Invoice { invoice: Box::new(invoice) });
    }
}
