//! What a host does with a task: runs it, signs something else, or waits.
//!
//! Everybody decides with what it can know: how much its operator has done, what its ring knows of the task, what has leaked of it. Not
//! whether it audits, and not what the coordinator keeps.

use super::{
    adversary::Adversary,
    random::Random,
    work::{Answer, Task},
};
use crate::flow::{Millis, Until};

/// Longest that who waits for another of its ring holds back an answer: then another host has been asked, if one ever is.
const PATIENCE_MS: Millis = 12_000;
const LOOK_AGAIN_MS: Millis = 250;
const RARELY_PPM: u32 = 20_000;

/// What a liar can know when it has a task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment<'a> {
    /// What is known of the task.
    pub(super) task: &'a Task,
    /// Tasks that its operator has done.
    pub(super) done: u32,
    /// Tasks after which an operator has standing, as far as it can tell.
    pub(super) standing_tasks: u32,
    /// Which half of the ring it is of.
    pub(super) confirms: bool,
    /// For how long it has had the task.
    pub(super) waited_ms: Millis,
    /// Tasks have steps, so that two results that differ go to trial.
    pub(super) has_trials: bool,
}

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    /// Runs the task and signs what comes of it.
    Run,
    /// Runs the task, and something else comes of it.
    Err,
    /// Signs this at once.
    Sign(Answer),
    /// Looks again after so long.
    Wait(Millis),
    /// Never answers.
    Withhold,
}

/// What a host does that is asked for a piece of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// Runs it and gives what comes of it.
    Give,
    /// Gives another state than it signed.
    Forge,
    /// Never answers.
    Withhold,
}

/// What a liar does that has this order of a trial: it has signed, and is asked for the state on which both sides agree.
pub(super) fn reply(adversary: Adversary, until: Until, order: u64) -> Reply {
    match adversary {
        Adversary::Withholder if until.keeps && order.is_multiple_of(2) => Reply::Withhold,
        Adversary::Withholder if until.keeps => Reply::Forge,
        _ => Reply::Give,
    }
}

/// What a liar does with a task.
pub(super) fn decide(adversary: Adversary, moment: &Moment<'_>, random: &mut Random) -> Move {
    use Adversary as A;
    let task = moment.task;
    let has_standing = moment.done >= moment.standing_tasks;
    match adversary {
        A::Lazy if random.happens(500_000) => Move::Sign(Answer::EMPTY),
        A::RandomLiar if random.happens(500_000) => Move::Sign(Answer::unique(random)),
        A::FlakyHardware if random.happens(10_000) => Move::Err,
        A::Lazy | A::RandomLiar | A::FlakyHardware | A::NondeterministicModule | A::VersionSkew => Move::Run,
        // Where there are trials, it is in those that it withholds.
        A::Withholder if task.ring_lies && !moment.has_trials => Move::Withhold,
        _ if task.ring_lies => Move::Sign(Answer::RING),
        // One of the ring has told the truth about it already.
        _ if task.ring_is_honest => Move::Run,
        A::AnswerCopier if moment.confirms => task.leaked.map_or(Move::Run, Move::Sign),
        A::ConfirmingAuditor if moment.confirms => Move::Run,
        A::BuildThenBurst { build_tasks } => lie_if(moment.done >= build_tasks),
        A::Whitewasher => Move::Sign(Answer::RING),
        A::FalseAccuser => lie_if(!has_standing),
        A::SybilFlood | A::SybilFloodOneSubnet => lie_if(has_standing),
        A::ValueAsymmetric => lie_if(has_standing && task.is_dear),
        A::ColludeWhenSafe if !has_standing || moment.waited_ms > PATIENCE_MS => Move::Run,
        A::ColludeWhenSafe if task.ring_holders > 1 => Move::Sign(Answer::RING),
        A::ColludeWhenSafe => Move::Wait(LOOK_AGAIN_MS),
        A::RareCheat | A::ConfirmingAuditor | A::AnswerCopier | A::Withholder | A::SeedGrinder => {
            lie_if(has_standing && random.happens(RARELY_PPM))
        }
    }
}

fn lie_if(lies: bool) -> Move {
    if lies { Move::Sign(Answer::RING) } else { Move::Run }
}
