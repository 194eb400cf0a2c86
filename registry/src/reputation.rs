//! What an operator has shown, and the changes that led there: its history.
//!
//! - [`Standing`]: the worth of results that others checked and found to hold, in one determinism class. It halves as time passes.
//! - [`Change`]: one thing that happened to an operator's standing, or to what is known of its machines, with its evidence.
//! - [`Shown`]: what follows from all of an operator's changes, in their order. [`Shown::apply`] computes each number anew.
//!
//! The arithmetic is that of [`Standing`] alone, which a coordinator decides with: who has a history needs nothing more to come to
//! what the coordinator held. Histories in files, chained and signed, are in [`log::history`](crate::log::history).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    id::{JobId, NodeId, ReceiptId, TaskId},
    job::{Class, ShardInfo},
};

/// Each determinism class: standing is kept for each of them apart.
pub const CLASSES: [Class; 3] = [Class::Exact, Class::Homogeneous, Class::Tolerant];
/// Machines that one operator's history may be about.
pub const MACHINES_MAX: usize = 1 << 16;

/// Checked results that standing takes at least, however much was paid for them: no single dear task makes a name.
const RESULTS_MIN: u64 = 100;
/// What a result is worth that nobody pays for, in micro-credits, unless the grid's owner says otherwise.
pub const FREE_TASK_MICRO: u64 = 1_000_000;

/// What a coordinator reckoned standing by, at the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandingRules {
    /// Time in which standing halves; never when 0.
    pub half_life_ms: u64,
    /// Worth of checked work, in micro-credits, from which on an operator's results may be accepted alone.
    pub newcomer_micro: u64,
    /// What a result is worth that nobody pays for, in micro-credits.
    #[serde(default = "free_task_micro", skip_serializing_if = "is_usual")]
    pub free_task_micro: u64,
}

const fn free_task_micro() -> u64 {
    FREE_TASK_MICRO
}

/// Whether the grid's owner says nothing else of what a result is worth that nobody pays for.
pub fn is_usual(free_task_micro: &u64) -> bool {
    *free_task_micro == FREE_TASK_MICRO
}

impl StandingRules {
    /// What a result is worth for whoever was asked such a price for it, in micro-credits.
    pub fn value_micro(&self, price_micro: u64) -> u64 {
        if price_micro == 0 { self.free_task_micro } else { price_micro }
    }

    /// What a checked result adds to a standing, in micro-credits: as much as the least of the prices that those ask who signed it.
    /// So nobody's own price speaks for it. Standing takes [a hundred results](RESULTS_MIN) at least, or as many as nobody pays for.
    pub fn worth_micro(&self, prices_micro: impl IntoIterator<Item = u64>) -> u64 {
        let least = prices_micro.into_iter().map(|price| self.value_micro(price)).min();
        let bound = (self.newcomer_micro / RESULTS_MIN).max(self.free_task_micro);
        least.unwrap_or(self.free_task_micro).min(bound)
    }
}

/// What an operator has shown in one class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// Worth of its checked results, in micro-credits, as of `at_ms`.
    pub checked_micro: u64,
    /// When that was reckoned.
    pub at_ms: u64,
    /// Results of it that were checked and held.
    pub confirmed: u64,
}

impl Standing {
    /// Worth of its checked results now.
    pub fn checked_micro(&self, now: u64, half_life_ms: u64) -> u64 {
        let age = now.saturating_sub(self.at_ms);
        let halvings = age.checked_div(half_life_ms).unwrap_or(0);
        let Some(rest) = u32::try_from(halvings).ok().and_then(|halvings| self.checked_micro.checked_shr(halvings))
        else {
            return 0;
        };
        // Between two halvings along a line.
        let part = u128::from(age.checked_rem(half_life_ms).unwrap_or(0));
        let lost = u128::from(rest) * part / (2 * u128::from(half_life_ms)).max(1);
        rest - u64::try_from(lost).unwrap_or(rest)
    }

    /// What it is once a further result was checked now and held.
    #[must_use]
    pub fn confirmed(&self, rules: StandingRules, worth_micro: u64, now: u64) -> Self {
        Self {
            checked_micro: self.checked_micro(now, rules.half_life_ms).saturating_add(worth_micro),
            at_ms: now,
            confirmed: self.confirmed.saturating_add(1),
        }
    }

    /// Whether it is enough for results to be accepted alone, as of when it was reckoned.
    pub fn qualifies(&self, rules: StandingRules) -> bool {
        self.checked_micro >= rules.newcomer_micro
    }
}

/// Which work a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// The job.
    pub job: JobId,
    /// Which part of it.
    pub shard: ShardInfo,
    /// The task that this comes to.
    pub task: TaskId,
}

/// How often a machine was there for what it was given. That is no matter of honesty, and no part of its operator's standing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Availability {
    /// Executions that it was given.
    pub given: u64,
    /// Those of them that gave no result.
    pub faults: u64,
}

/// One thing that happened to an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// When, by the coordinator's clock.
    pub at_ms: u64,
    /// What.
    pub cause: Cause,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Cause {
    /// This was so in a class when the history began.
    Found {
        /// The class.
        class: Class,
        /// What the operator had shown.
        standing: Standing,
        /// What that was reckoned by.
        rules: StandingRules,
        /// Whether its results could be accepted alone.
        qualified: bool,
    },
    /// A result of the operator was checked and held.
    Confirmed {
        /// The class that it ran in.
        class: Class,
        /// What was run.
        work: Work,
        /// The operator's receipt for it; absent when the coordinator had forgotten its name by then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        receipt: Option<ReceiptId>,
        /// What it adds, in micro-credits.
        worth_micro: u64,
        /// What the standing was reckoned by.
        rules: StandingRules,
        /// The operator's standing in the class from then on.
        after: Standing,
    },
    /// A result of the operator was checked and did not hold. That changes no number by itself: see [`Cause::Expelled`].
    Refuted {
        /// What was run.
        work: Work,
        /// The operator's receipt for it.
        receipt: ReceiptId,
        /// A receipt of another operator that the verdict is for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        against: Option<ReceiptId>,
    },
    /// The operator was caught: it has shown nothing, in any class, and gets no more work.
    Expelled {
        /// In which job.
        job: JobId,
        /// In which part of it.
        shard: ShardInfo,
        /// Which machine of it.
        node: NodeId,
    },
    /// The grid's owner answers for the operator, or says so again: its results may be accepted alone.
    Vouched,
    /// The grid's owner does not answer for the operator any more: what it has shown speaks for it from then on.
    Released {
        /// What that is held against.
        rules: StandingRules,
    },
    /// A machine of the operator gave no result: not for each time, but for each doubling of how often that happened.
    Faulted {
        /// Which machine.
        node: NodeId,
        /// How often so far.
        so_far: Availability,
    },
}

impl Cause {
    /// One word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Found { .. } => "found",
            Self::Confirmed { .. } => "confirmed",
            Self::Refuted { .. } => "refuted",
            Self::Expelled { .. } => "expelled",
            Self::Vouched => "vouched",
            Self::Released { .. } => "released",
            Self::Faulted { .. } => "faulted",
        }
    }
}

/// Why a change cannot follow those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// A number is another than follows.
    #[error(
        "numbers do not follow: {named} micro-credits of {named_confirmed} results in class {}, where {found} of \
         {found_confirmed} follow from the entries before",
        class.word()
    )]
    Numbers {
        /// In which class.
        class: Class,
        /// Worth of checked work as it is said.
        named: u64,
        /// Confirmed results as they are said.
        named_confirmed: u64,
        /// The worth that follows.
        found: u64,
        /// The results that follow.
        found_confirmed: u64,
    },
    /// The standing is said to be of another time than the change.
    #[error("numbers do not follow: a standing as of {named} ms in an entry of {at_ms} ms")]
    Time {
        /// As said of the standing.
        named: u64,
        /// As said of the change.
        at_ms: u64,
    },
    /// An expelled operator gets no work.
    #[error("entry is `{word}` of an operator that was expelled before")]
    Expelled {
        /// What is said to have happened.
        word: &'static str,
    },
    /// The owner takes back what was not said.
    #[error("entry is `released` of an operator that the grid's owner did not answer for")]
    NotVouched,
    /// What was counted of a machine goes back, or does not add up.
    #[error(
        "numbers do not follow: machine {node} has {} faults of {} executions, after {} of {}",
        named.faults, named.given, before.faults, before.given
    )]
    Counts {
        /// Which machine.
        node: NodeId,
        /// As said.
        named: Availability,
        /// As said before.
        before: Availability,
    },
    /// More machines than may be.
    #[error("history is about more than {MACHINES_MAX} machines, its bound")]
    Machines,
}

/// What an operator has shown, by its history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// In each class in which it has shown something.
    pub standings: BTreeMap<Class, Standing>,
    /// What standing was reckoned by when that was last said.
    pub rules: Option<StandingRules>,
    /// Classes in which its results may be accepted alone.
    pub qualified: BTreeSet<Class>,
    /// Whether the grid's owner answers for it.
    pub vouched: bool,
    /// Whether it was caught, and gets no more work.
    pub expelled: bool,
    /// What was last said of each of its machines that gave no result at least once.
    pub machines: BTreeMap<NodeId, Availability>,
}

impl Shown {
    /// What it has shown in a class.
    pub fn standing(&self, class: Class) -> Standing {
        self.standings.get(&class).copied().unwrap_or_default()
    }

    /// Goes on by one change, whose numbers are computed anew.
    ///
    /// # Errors
    /// When the change cannot follow what was before, or its numbers are others; then nothing has changed.
    pub fn apply(&mut self, change: &Change) -> Result<(), ChangeError> {
        let word = change.cause.word();
        match change.cause {
            Cause::Found { class, standing, rules, qualified } => {
                self.standings.insert(class, standing);
                self.rules = Some(rules);
                self.qualify(class, qualified);
            }
            Cause::Confirmed { .. } | Cause::Expelled { .. } if self.expelled => {
                return Err(ChangeError::Expelled { word });
            }
            Cause::Confirmed { class, worth_micro, rules, after, .. } => {
                let found = self.standing(class).confirmed(rules, worth_micro, change.at_ms);
                check(class, &after, &found)?;
                self.standings.insert(class, found);
                self.rules = Some(rules);
                if found.qualifies(rules) {
                    self.qualified.insert(class);
                }
            }
            Cause::Refuted { .. } => {}
            Cause::Expelled { .. } => {
                self.standings.clear();
                self.qualified.clear();
                self.expelled = true;
            }
            Cause::Vouched => {
                self.vouched = true;
                self.qualified.extend(CLASSES);
            }
            Cause::Released { .. } if !self.vouched => return Err(ChangeError::NotVouched),
            Cause::Released { rules } => {
                self.vouched = false;
                self.rules = Some(rules);
                CLASSES.into_iter().for_each(|class| {
                    let is_enough = self.standing(class).qualifies(rules);
                    self.qualify(class, is_enough && self.qualified.contains(&class));
                });
            }
            Cause::Faulted { node, so_far } => self.count(node, so_far)?,
        }
        Ok(())
    }

    fn qualify(&mut self, class: Class, qualified: bool) {
        if qualified {
            self.qualified.insert(class);
        } else {
            self.qualified.remove(&class);
        }
    }

    fn count(&mut self, node: NodeId, named: Availability) -> Result<(), ChangeError> {
        let known = self.machines.get(&node).copied();
        let before = known.unwrap_or_default();
        if named.faults <= before.faults || named.given < before.given || named.faults > named.given {
            return Err(ChangeError::Counts { node, named, before });
        }
        if known.is_none() && self.machines.len() >= MACHINES_MAX {
            return Err(ChangeError::Machines);
        }
        self.machines.insert(node, named);
        Ok(())
    }
}

fn check(class: Class, named: &Standing, found: &Standing) -> Result<(), ChangeError> {
    if named.at_ms != found.at_ms {
        return Err(ChangeError::Time { named: named.at_ms, at_ms: found.at_ms });
    }
    if named == found {
        return Ok(());
    }
    Err(ChangeError::Numbers {
        class,
        named: named.checked_micro,
        named_confirmed: named.confirmed,
        found: found.checked_micro,
        found_confirmed: found.confirmed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(newcomer_micro: u64, free_task_micro: u64) -> StandingRules {
        StandingRules { half_life_ms: 0, newcomer_micro, free_task_micro }
    }

    #[test]
    fn a_result_is_worth_the_least_that_anybody_asks_for_it() {
        let rules = rules(2_000_000_000, FREE_TASK_MICRO);
        assert_eq!(rules.worth_micro([3_000_000, 2_000_000, 9_000_000]), 2_000_000);
        assert_eq!(rules.worth_micro([0, 0]), FREE_TASK_MICRO, "nobody pays");
        assert_eq!(rules.worth_micro([]), FREE_TASK_MICRO);
        // Whoever asks for nothing makes dear work cheap, and no cheap work dear.
        assert_eq!(rules.worth_micro([0, 40]), 40);
        assert_eq!(rules.worth_micro([0, 5_000_000]), FREE_TASK_MICRO);
    }

    #[test]
    fn no_single_result_makes_a_name() {
        assert_eq!(rules(2_000_000_000, FREE_TASK_MICRO).worth_micro([u64::MAX, u64::MAX]), 20_000_000);
        assert_eq!(rules(100, FREE_TASK_MICRO).worth_micro([0]), FREE_TASK_MICRO);
        assert_eq!(rules(2_000_000_000, 0).worth_micro([0]), 0, "the owner lets nobody show anything with free work");
    }
}
