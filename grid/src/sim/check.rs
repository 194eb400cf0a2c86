//! What has to hold in every run, whatever the world does. The machine is not asked whether it did right: who signed what is known
//! here from what was sent.

use registry::{
    id::JobId,
    job::{Class, Policy},
    receipt::Accepted,
};

use super::{
    work::{Answer, Work},
    world::{Operator, World},
};
use crate::flow::{AssignmentId, Millis};

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invariant broken: {invariant} ({detail}), at {now_ms} ms, event {event}, seed {seed}")]
pub struct Broken {
    /// Which one.
    pub invariant: &'static str,
    /// What was found.
    pub detail: String,
    /// Virtual time.
    pub now_ms: Millis,
    /// Number of the event.
    pub event: u64,
    /// What shows it again, with the same options.
    pub seed: u64,
}

impl World<'_> {
    pub(super) fn broken(&self, invariant: &'static str, detail: impl Into<String>) -> Broken {
        let (now_ms, event, seed) = (self.now, self.tally.events, self.options.seed);
        Broken { invariant, detail: detail.into(), now_ms, event, seed }
    }

    /// An operator was accused, or gets no more work.
    pub(super) fn check_accused(&self, operator: u32) -> Result<(), Broken> {
        if self.operators[operator as usize].lies || self.options.vouched == 0 {
            return Ok(());
        }
        Err(self.broken("no honest operator is accused", format!("operator {operator} is honest")))
    }

    /// Something was ordered for a trial, or found.
    pub(super) fn check_unpaid(&self, job: JobId, order: AssignmentId) -> Result<(), Broken> {
        match self.state.ledger().is_held(job, order) {
            true => Err(self.broken("nothing of a trial is paid", format!("order {} of job {job}", order.0))),
            false => Ok(()),
        }
    }

    /// A result was accepted: as many operators signed it as the policy asks for, and whoever stands alone may.
    pub(super) fn check_accepted(
        &self,
        work: &Work,
        shard: u32,
        answer: Answer,
        record: &Accepted,
    ) -> Result<(), Broken> {
        let Some(task) = work.tasks.get(shard as usize) else { return Ok(()) };
        let mut agreeing: Vec<u32> =
            task.votes.iter().filter(|(_, other)| *other == answer).map(|(operator, _)| *operator).collect();
        agreeing.sort_unstable();
        agreeing.dedup();
        let audit = &self.options.config.audit;
        let needed = match (self.options.policy, record.drawn) {
            _ if work.has_ended => 2,
            (Policy::None, _) => 1,
            (Policy::Quorum(quorum), _) => quorum,
            (Policy::Audit, None) => audit.newcomers_quorum,
            // To draw again costs as much as everything else here.
            (Policy::Audit, Some(drawn)) if shard.is_multiple_of(8) && drawn.audits(&work.secret, work.id) => {
                audit.auditors + 1
            }
            (Policy::Audit, Some(_)) => 1,
        };
        let witnesses = record.witnesses.len();
        if agreeing.len() < usize::from(needed) || witnesses < usize::from(needed) || witnesses > agreeing.len() {
            let detail = format!("{} operators of {needed} signed it, the record has {witnesses}", agreeing.len());
            return Err(self.broken("what is accepted was signed by as many as the policy asks for", detail));
        }
        let alone = (self.options.policy == Policy::Audit && agreeing.len() == 1).then(|| agreeing[0]);
        if let Some(operator) = alone.map(|alone| &self.operators[alone as usize])
            && operator.caught_ms.is_none()
            && !self.is_trusted(operator)
        {
            return Err(self.broken("nothing is accepted on a newcomer's word", format!("shard {shard}")));
        }
        Ok(())
    }

    /// Whether the machine takes an operator's hosts for those of one with standing.
    fn is_trusted(&self, operator: &Operator) -> bool {
        let host = operator.hosts.first().and_then(|host| self.state.host(self.hosts[*host as usize].node));
        host.is_some_and(|host| host.trusted.contains(Class::Exact))
    }

    /// Everything that can be derived anew.
    pub(super) fn check_all(&self) -> Result<(), Broken> {
        self.state.check().map_err(|insane| self.broken(insane.rule, insane.detail))?;
        for host in self.hosts.iter() {
            let is_suspended = self.state.host(host.node).is_some_and(|host| host.suspended.is_some());
            if is_suspended {
                self.check_accused(host.operator)?;
            }
        }
        Ok(())
    }

    /// All jobs are said to have ended.
    pub(super) fn check_ended(&self) -> Result<(), Broken> {
        let open = self.state.open_jobs();
        if open == 0 && self.jobs.open() == 0 && self.state.open_count() == 0 {
            return self.check_all();
        }
        let detail = format!("{open} jobs and {} executions are open", self.state.open_count());
        Err(self.broken("every job ends and takes its executions with it", detail))
    }
}
