//! What operators have shown: the worth of their results that others checked and found to hold.
//!
//! Nothing else builds standing: not time, not work that nobody repeated, not anybody's word. It halves as time passes, is
//! kept for each determinism class apart, and is gone when an operator is caught. The arithmetic is [`Standing`]'s own, so that who
//! has an operator's [history](registry::reputation) comes to the same. Being there, or failing to be, is another
//! matter: see [`fleet::Record`](crate::fleet::Record).
//!
//! An operator with standing is *qualified*: its results may be accepted alone. One that the grid's owner answers for is so
//! from the start, and referees where results differ.

use std::collections::{BTreeMap, BTreeSet};

pub use registry::reputation::Standing;
use registry::{id::OperatorId, job::Class, reputation::CLASSES};
use serde::{Deserialize, Serialize};

use crate::{audit::AuditConfig, flow::Millis, named::Named};

/// Some of the classes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Classes([bool; 3]);

impl Classes {
    /// This class alone.
    pub fn only(class: Class) -> Self {
        Self(CLASSES.map(|other| other == class))
    }

    /// Whether the class is one of them.
    pub fn contains(self, class: Class) -> bool {
        CLASSES.into_iter().zip(self.0).any(|(other, is_in)| is_in && other == class)
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Class> {
        CLASSES.into_iter().zip(self.0).filter(|(_, is_in)| *is_in).map(|(class, _)| class)
    }
}

/// All operators' standings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reputation {
    standings: Named<(Class, OperatorId), Standing>,
    /// Whose results may be accepted alone.
    qualified: BTreeMap<Class, BTreeSet<OperatorId>>,
}

impl Reputation {
    /// Nobody has shown anything.
    pub fn new(vouched: &BTreeSet<OperatorId>) -> Self {
        let mut new = Self::default();
        new.vouch(&AuditConfig::default(), &BTreeSet::new(), vouched);
        new
    }

    /// The grid's owner answers for these operators, where it did for those before.
    pub fn vouch(&mut self, config: &AuditConfig, before: &BTreeSet<OperatorId>, vouched: &BTreeSet<OperatorId>) {
        for class in CLASSES {
            let standings = &self.standings;
            let qualified = self.qualified.entry(class).or_default();
            qualified.retain(|operator| {
                let shown = standings.get(&(class, *operator)).copied().unwrap_or_default();
                !before.contains(operator) || shown.qualifies(config.rules())
            });
            qualified.extend(vouched);
        }
    }

    /// What an operator has shown.
    pub fn standing(&self, operator: OperatorId, class: Class) -> Standing {
        self.standings.get(&(class, operator)).copied().unwrap_or_default()
    }

    /// What every operator has shown, in no order.
    pub fn standings(&self) -> impl Iterator<Item = (OperatorId, Class, Standing)> {
        self.standings.iter().map(|((class, operator), standing)| (*operator, *class, *standing))
    }

    /// Whose results may be accepted alone.
    pub fn qualified(&self, class: Class) -> &BTreeSet<OperatorId> {
        const NOBODY: &BTreeSet<OperatorId> = &BTreeSet::new();
        self.qualified.get(&class).unwrap_or(NOBODY)
    }

    /// Classes in which the operator's results may be accepted alone.
    pub fn classes(&self, operator: OperatorId) -> Classes {
        Classes(CLASSES.map(|class| self.qualified(class).contains(&operator)))
    }

    /// A result of the operator was checked and held.
    pub fn confirm(&mut self, config: &AuditConfig, operator: OperatorId, class: Class, worth_micro: u64, now: Millis) {
        let standing = self.standings.entry((class, operator)).or_default();
        *standing = standing.confirmed(config.rules(), worth_micro, now);
        if standing.qualifies(config.rules()) {
            self.qualified.entry(class).or_default().insert(operator);
        }
    }

    /// The operator comes with what it has shown elsewhere or before.
    pub fn bring(&mut self, config: &AuditConfig, operator: OperatorId, class: Class, standing: Standing) {
        self.standings.insert((class, operator), standing);
        if standing.qualifies(config.rules()) {
            self.qualified.entry(class).or_default().insert(operator);
        }
    }

    /// The operator was caught: it has shown nothing.
    pub fn forget(&mut self, operator: OperatorId) {
        for class in CLASSES {
            self.standings.remove(&(class, operator));
        }
        for qualified in self.qualified.values_mut() {
            qualified.remove(&operator);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::TASK_MICRO;

    const ONE: OperatorId = OperatorId([1; 32]);

    #[test]
    fn standing_comes_from_checked_results_and_is_gone_when_caught() {
        let config = AuditConfig { newcomer_micro: 3 * TASK_MICRO, ..AuditConfig::default() };
        let mut reputation = Reputation::new(&[OperatorId([2; 32])].into());
        for checked in 1..=3 {
            assert!(!reputation.qualified(Class::Exact).contains(&ONE), "after {checked} results");
            reputation.confirm(&config, ONE, Class::Exact, TASK_MICRO, 0);
        }
        assert!(reputation.qualified(Class::Exact).contains(&ONE));
        assert!(!reputation.qualified(Class::Tolerant).contains(&ONE), "each class is apart");
        reputation.forget(ONE);
        assert!(!reputation.qualified(Class::Exact).contains(&ONE));
        assert_eq!(reputation.standing(ONE, Class::Exact), Standing::default());
        assert!(reputation.qualified(Class::Exact).contains(&OperatorId([2; 32])), "the owner answers for it");
    }

    #[test]
    fn standing_halves_as_time_passes_and_never_grows_by_it() {
        let standing = Standing { checked_micro: 1_000, at_ms: 100, confirmed: 1 };
        let after = |ms: u64| standing.checked_micro(100 + ms, 1_000);
        assert_eq!([after(0), after(500), after(1_000), after(2_000), after(1_500)], [1_000, 750, 500, 250, 375]);
        assert_eq!(after(1_000_000), 0);
        assert_eq!(standing.checked_micro(0, 1_000), 1_000, "a clock that goes back changes nothing");
        assert_eq!(standing.checked_micro(5_000, 0), 1_000, "no half-life, no loss");
        let all = (0..5_000).map(after).collect::<Vec<_>>();
        assert!(all.windows(2).all(|pair| pair[1] <= pair[0]));
    }
}
