//! Queued shards meet hosts with room: jobs take turns, one assignment at a time.

use registry::id::{EngineFingerprint, JobId, NodeId, OperatorId};

use super::{
    Effect, Job, Open, Phase, Purpose, State, Timer, checkpoint,
    heir::{self, Busy},
    job::{Shard, ShardKey},
    money,
    queue::Line,
    referee, settle,
    timers::OfExecution,
};
use crate::{
    config::Config,
    fleet::Host,
    flow::{Assignment, AssignmentId, Checkpoint, Millis, Until},
    place::{self, Among, Need},
};

#[cfg(test)]
mod tests;

/// Wait before the jobs that one event had no time to look at are looked at.
const SCAN_AGAIN_MS: Millis = 1_000;

/// Gives out work until no host has room or no queued shard fits one that has. However many jobs wait for hosts that are
/// not there, one event looks at `scan_jobs_max` of each line at most; the others have their turn next. Of many hosts with room one event
/// looks at some, and the next one at others.
pub(super) fn schedule(state: &mut State, now: Millis, effects: &mut Vec<Effect>) {
    let left = Line::ALL.map(|line| serve(state, line, now, effects));
    let is_waiting = left.iter().any(|left| *left != Left::Nothing);
    let is_passed_over = is_waiting && state.fleet.pass_over(state.config.candidates_max);
    if is_passed_over || left.contains(&Left::Unseen) {
        scan_again(state, now);
    }
}

/// What of a line is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// None, or no host has room.
    Nothing,
    /// Jobs of which nothing fits a host that was looked at.
    Waiting,
    /// Jobs that were not looked at.
    Unseen,
}

/// Gives out work of jobs in a line.
fn serve(state: &mut State, line: Line, now: Millis, effects: &mut Vec<Effect>) -> Left {
    let (mut passed_over, mut busy) = (0_usize, Busy::default());
    while passed_over < state.turns.of(line).len() && state.fleet.has_room() {
        if passed_over == state.config.scan_jobs_max {
            return Left::Unseen;
        }
        // It keeps its place meanwhile, so that whatever queues more of it does not give it a second one.
        let Some(&id) = state.turns.of(line).front() else { break };
        let is_served = match next_of(state, id, line, &mut busy) {
            Some(Next::Place(placed)) => assign(state, id, placed, now, effects),
            Some(Next::Judge(key)) => {
                settle::judge(state, id, key, now, effects);
                settle::judge_left(state, now, effects);
                busy = Busy::default();
                true
            }
            Some(Next::Begin(key)) => {
                state.jobs.get_mut(&id).and_then(|job| job.shard_mut(key)).map(checkpoint::wait_no_more);
                settle::requeue(state, id, key, now);
                true
            }
            None => false,
        };
        passed_over = if is_served { 0 } else { passed_over + 1 };
        if !is_served && let Some(reason) = money::is_spent(state, id) {
            super::end(state, id, Phase::Failed { reason }, now, effects);
        }
        let waits = state.jobs.get(&id).is_some_and(|job| job.queued.has(line));
        let turns = state.turns.of(line);
        turns.pop_front();
        if waits {
            turns.push_back(id);
        } else {
            // It is in the line no more, and hides nobody behind it.
            passed_over = passed_over.saturating_sub(1);
        }
    }
    if passed_over > 0 && !state.turns.of(line).is_empty() { Left::Waiting } else { Left::Nothing }
}

fn scan_again(state: &mut State, now: Millis) {
    state.timers.insert((now - now % SCAN_AGAIN_MS + SCAN_AGAIN_MS, Timer::Scan));
}

/// What runs where, and on which of its engines.
pub(super) type Placed = (ShardKey, NodeId, EngineFingerprint);

/// What becomes of a queued shard.
pub(super) enum Next {
    /// It has a host.
    Place(Placed),
    /// It waited for a referee, and none that could be asked is there any more: what is known of it has to do.
    Judge(ShardKey),
    /// It waited for one who may go on from a state, and none that could is there any more: anybody may begin it anew.
    Begin(ShardKey),
}

fn next_of(state: &State, id: JobId, line: Line, busy: &mut Busy) -> Option<Next> {
    let job = state.jobs.get(&id)?;
    match line {
        Line::Few => next_disputed(state, id, job).or_else(|| heir::next(state, id, job, busy)),
        Line::Others => next_other(state, id, job),
    }
}

/// The first of the job's disputed shards that fits a host with room, or needs none. Those that wait for their first referee on one engine
/// are all alike: where one of them fits nobody, none does.
fn next_disputed(state: &State, id: JobId, job: &Job) -> Option<Next> {
    let mut nobody_referees = None;
    for key in job.queued.disputed().take(state.config.scan_max) {
        let Some(shard) = job.shard(key) else { continue };
        let is_decided = shard.has_verdict(&state.config);
        if is_decided && !referee::is_awaited(state, id, job, shard) {
            return Some(Next::Judge(key));
        }
        let waits = !referee::has_voted(shard, &state.config);
        if waits && nobody_referees == Some(shard.engine) {
            continue;
        }
        let operators = shard.operators();
        let need = need(state, id, job, shard, &operators);
        let referees = matches!(need.among, Among::Referees(_));
        let picked = || place::pick(&need, &state.fleet, &state.config);
        let placed = if is_decided {
            // However long the one takes that has it, nobody else is asked, and on no engine but that of what there is to compare.
            referees.then(picked).flatten().filter(|(_, engine)| Some(*engine) == shard.engine)
        } else {
            picked()
        };
        if let Some((node, engine)) = placed {
            return Some(Next::Place((key, node, engine)));
        }
        if waits && referees {
            nobody_referees = Some(shard.engine);
        }
    }
    None
}

/// The first of the job's other shards that fits a host with room. Those that nobody has had are all alike: where one of them fits nobody,
/// none does.
fn next_other(state: &State, id: JobId, job: &Job) -> Option<Next> {
    let mut nobody_begins = false;
    for key in job.queued.others(state.config.scan_max) {
        let Some(shard) = job.shard(key) else { continue };
        let is_new = shard.attempts == 0;
        if is_new && nobody_begins {
            continue;
        }
        let operators = shard.operators();
        let need = need(state, id, job, shard, &operators);
        let placed = heir::free(state, id, shard, &need).or_else(|| place::pick(&need, &state.fleet, &state.config));
        if let Some((node, engine)) = placed {
            return Some(Next::Place((key, node, engine)));
        }
        nobody_begins |= is_new;
    }
    None
}

/// What the shard's next execution needs of a host; `operators` are the shard's own. Whose hosts may run it follows from what
/// is known of them: where results differ, a referee decides; where one result may be enough, it is of an operator with
/// standing; and where nobody is there who could, it is anybody's.
pub(super) fn need<'a>(
    state: &'a State,
    id: JobId,
    job: &'a Job,
    shard: &'a Shard,
    operators: &'a [OperatorId],
) -> Need<'a> {
    let need = Need { budget: money::budget(state, id, shard), ..job.need(shard, operators) };
    let (referees, qualified) = (&state.config.vouched, state.reputation.qualified(job.spec.class));
    let may_pay = |host: &Host| money::may_pay(state, id, job, shard, host);
    let among = if shard.is_disputed(&state.config) && place::any_of(referees, &need, &state.fleet, may_pay) {
        Among::Referees(referees)
    } else if job.audits() && place::any_of(qualified, &need, &state.fleet, |_| true) {
        Among::Qualified
    } else {
        Among::All
    };
    let next = || job.next_of_quorum(shard, operators).filter(|_| !matches!(among, Among::Referees(_)));
    Need { among, lot: need.lot.or_else(next), ..need }
}

/// Orders the execution, if its job can pay for it.
fn assign(state: &mut State, id: JobId, placed: Placed, now: Millis, effects: &mut Vec<Effect>) -> bool {
    let (key, node, engine) = placed;
    let role = state.jobs.get(&id).and_then(|job| job.shard(key)).map(|shard| money::role(shard, &state.config));
    let (Some(role), Some(host)) = (role, state.fleet.get(node)) else { return false };
    let trusted = host.trusted;
    if !money::hold(state, id, key, AssignmentId(state.assignments + 1), node, role) {
        return false;
    }
    let newcomers_quorum = state.config.audit.newcomers_quorum;
    let Some(job) = state.jobs.get_mut(&id) else { return false };
    let newcomer = job.audits() && !trusted.contains(job.spec.class);
    let Some(shard) = job.shard_mut(key) else { return false };
    shard.engine = Some(engine);
    shard.attempts += 1;
    if newcomer {
        shard.quorum = shard.quorum.max(newcomers_quorum);
    }
    order(state, id, placed, Piece::Work, now, effects);
    settle::requeue(state, id, key, now);
    true
}

/// What is ordered of a host.
#[derive(Debug, Clone, Copy)]
pub(super) enum Piece {
    /// The task, for its result.
    Work,
    /// The task, whose result stands.
    Repetition,
    /// The task up to a state, from this one on.
    Segment(Until, Option<Checkpoint>),
}

/// Gives a shard to a host, or a piece of it.
pub(super) fn order(
    state: &mut State,
    id: JobId,
    (key, node, engine): Placed,
    piece: Piece,
    now: Millis,
    effects: &mut Vec<Effect>,
) {
    let Some((operator, subnet)) = state.fleet.get(node).map(|host| (host.operator, host.subnet)) else { return };
    let (until, from, kept) = match piece {
        Piece::Work => {
            let kept = checkpoint::inherit(state, (id, key), operator, engine);
            (None, kept.as_ref().map(|kept| kept.checkpoint), kept)
        }
        Piece::Repetition => (None, None, None),
        Piece::Segment(until, from) => (Some(until), from, None),
    };
    // Nobody waits for it, and its shard does not count it.
    let probe = !matches!(piece, Piece::Work);
    let Some(job) = state.jobs.get_mut(&id) else { return };
    let info = job.info(key);
    let lease_ms = job.spec.limits.wall_ms_max.saturating_add(state.config.lease_slack_ms);
    // What is unusually long is known when the job's first results are: see `timers::straggler`.
    // With nothing to compare with, an execution is slow when it has taken a good part of what its task may take.
    let expected_ms =
        job.task_ms().map_or(job.spec.limits.wall_ms_max / 8, |average| average * state.config.hedge_factor);
    let straggles_ms = expected_ms.max(state.config.hedge_ms_min).min(lease_ms);
    let asked = job.spec.policy.quorum();
    let Some(shard) = job.shard_mut(key) else { return };
    shard.resumed += u32::from(kept.is_some());
    state.assignments += 1;
    let assignment = AssignmentId(state.assignments);
    shard.order(assignment, operator, probe);
    let purpose = if probe { Purpose::Qualification } else { purpose(shard, asked, &state.config) };
    effects.push(Effect::Assign {
        node,
        assignment: Assignment {
            id: assignment,
            job: id,
            shard: info,
            slice: shard.planned.slice.clone(),
            input: shard.planned.input,
            engine,
            lease_ms,
            from,
            until,
        },
    });
    let lease_until = now + lease_ms;
    // Of a repetition and of a referee's segment nobody else is asked meanwhile.
    let is_hedged = until.map_or(!probe, |until| until.keeps);
    let timer = if is_hedged {
        (now + straggles_ms, OfExecution::straggler(assignment))
    } else {
        (lease_until, OfExecution::lease(assignment))
    };
    state.timers.insert(timer);
    let open = Open {
        job: id,
        shard: key,
        node,
        operator,
        engine,
        since: now,
        lease_until,
        timer,
        subnet,
        straggling: false,
        purpose,
        probe,
        until,
        from_fuel: kept.as_ref().map(|kept| kept.checkpoint.fuel_used),
        kept,
    };
    state.open.insert(assignment, open);
    state.fleet.take(node, assignment);
}

/// What the execution of the shard is for that was ordered last, where the policy asks for so many.
fn purpose(shard: &Shard, asked: u8, config: &Config) -> Purpose {
    let given = shard.open.len() + shard.casts.len();
    if shard.is_disputed(config) {
        Purpose::Dispute
    } else if given > usize::from(shard.quorum) {
        Purpose::Again
    } else if given > usize::from(asked) {
        Purpose::Audit
    } else if usize::try_from(shard.attempts).is_ok_and(|all| all > given) {
        Purpose::Again
    } else {
        Purpose::Work
    }
}
