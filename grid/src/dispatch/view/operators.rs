//! What operators have shown, and apart from that how their machines were there for what they were given.

use std::collections::BTreeSet;

use registry::{
    id::OperatorId,
    job::Class,
    reputation::{Availability, CLASSES, Standing},
};
use serde::Serialize;

use super::super::State;
use crate::{fleet::Suspension, flow::Millis};

/// An operator at a glance.
#[derive(Debug, Clone, Serialize)]
pub struct OperatorView {
    /// Who.
    pub operator: OperatorId,
    /// Whether the grid's owner answers for it.
    pub vouched: bool,
    /// Machines of it that ever joined.
    pub machines: usize,
    /// Those of them that are connected.
    pub connected: usize,
    /// Executions that these were given, and those that gave no result.
    #[serde(flatten)]
    pub available: Availability,
    /// What it has shown, in each class in which it has shown something or in which its results may be accepted alone.
    pub classes: Vec<ClassView>,
    /// In what it was caught, if so.
    pub suspended: Option<Suspension>,
}

/// What an operator has shown in a class.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ClassView {
    /// The class.
    pub class: Class,
    /// Worth of its checked results now, in micro-credits.
    pub now_micro: u64,
    /// That as it was last reckoned.
    pub standing: Standing,
    /// Whether its results may be accepted alone.
    pub qualified: bool,
}

impl State {
    /// Every operator that ever had a host, or of whom something is known otherwise.
    pub fn operator_views(&self, now: Millis) -> Vec<OperatorView> {
        let hosts = self.fleet.hosts().map(|(_, host)| host.operator);
        let shown = self.reputation.standings().map(|(operator, ..)| operator);
        let suspended = self.fleet.suspensions().map(|(operator, _)| operator);
        let all = hosts.chain(shown).chain(suspended).chain(self.config.vouched.iter().copied());
        all.collect::<BTreeSet<_>>().into_iter().map(|operator| self.operator_view(operator, now)).collect()
    }

    /// An operator, whether anything is known of it or not.
    pub fn operator_view(&self, operator: OperatorId, now: Millis) -> OperatorView {
        let hosts = || self.fleet.hosts_of(operator).map(|(_, host)| host);
        let available = hosts().fold(Availability::default(), |sum, host| Availability {
            given: sum.given.saturating_add(host.record.assigned),
            faults: sum.faults.saturating_add(host.record.faults),
        });
        let class = |class| {
            let standing = self.reputation.standing(operator, class);
            let now_micro = standing.checked_micro(now, self.config.audit.half_life_ms);
            ClassView { class, now_micro, standing, qualified: self.is_qualified(operator, class) }
        };
        let classes = CLASSES.map(class).into_iter().filter(|view| view.qualified || view.standing.confirmed > 0);
        OperatorView {
            operator,
            vouched: self.config.vouched.contains(&operator),
            machines: hosts().count(),
            connected: hosts().filter(|host| host.connected).count(),
            available,
            classes: classes.collect(),
            suspended: self.fleet.suspension(operator).cloned(),
        }
    }

    /// Whether changes of standings are said: see [`Event::HistoriesBegin`](crate::dispatch::Event::HistoriesBegin).
    pub fn has_histories(&self) -> bool {
        self.histories
    }
}
