//! A job's cap: in escrow from the job's acceptance, set aside order by order, refunded when the job has ended.
//!
//! A hold moves nothing between accounts; it is a promise out of the job's escrow, as large as the execution can cost.

use std::collections::{BTreeMap, BTreeSet};

use registry::{
    credits::{Credits, CreditsError},
    device::DeviceAsk,
    id::{JobId, NodeId, OperatorId, PriceId, RequesterId},
    job::{JobSpec, Limits, ShardInfo},
    price::PriceTable,
    receipt::Receipt,
};
use serde::{Deserialize, Serialize};

use super::{
    Ledger,
    account::{Account, Cause, PaymentKey, PostingId},
    books::Draft,
    budget::{Budget, Role},
    error::LedgerError,
    invoice::Invoice,
    paid::Payments,
    payment::Payment,
};
use crate::flow::{AssignmentId, Millis};

/// Price tables that an order's is compared with.
const COMPARED_MAX: usize = 8;

/// On which terms a job is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Who pays.
    pub requester: RequesterId,
    /// What the job may cost, all in all.
    pub cap: Credits,
    /// What of that is for audits and disputes alone.
    pub audit_reserve: Credits,
    /// What each of its tasks may use.
    pub limits: Limits,
    /// What its models run on.
    pub device: DeviceAsk,
}

impl Terms {
    /// The terms of this job.
    pub fn of(spec: &JobSpec, requester: RequesterId, cap: Credits, audit_reserve: Credits) -> Self {
        Self { requester, cap, audit_reserve, limits: spec.limits, device: spec.device }
    }
}

/// An execution that is about to be ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The nonce of the receipt that will answer it.
    pub assignment: AssignmentId,
    /// Which part of the job.
    pub shard: ShardInfo,
    /// Who runs it.
    pub node: NodeId,
    /// Who answers for that.
    pub operator: OperatorId,
    /// What it is for.
    pub role: Role,
}

/// Credits for an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hold {
    pub(super) order: Order,
    pub(super) prices: PriceId,
    /// The most that it can cost.
    pub(super) worst: Credits,
}

/// A job, as long as something of it is unsettled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Job {
    pub(super) terms: Terms,
    pub(super) budget: Budget,
    /// The posting that opened it.
    pub(super) opened: PostingId,
    pub(super) opened_ms: Millis,
    /// When it ended.
    pub(super) closed_ms: Option<Millis>,
    /// The prices of its executions.
    pub(super) prices: BTreeMap<PriceId, PriceTable>,
    pub(super) holds: BTreeMap<AssignmentId, Hold>,
    pub(super) payments: Payments,
    /// When how many of them are settled.
    pub(super) dates: BTreeMap<Millis, u32>,
    /// The smallest hold so far.
    pub(super) least: Option<Credits>,
    /// Shards whose payments wait for a dispute.
    pub(super) contested: BTreeSet<ShardInfo>,
}

impl Job {
    fn new(terms: Terms, opened: PostingId, now: Millis) -> Self {
        Self {
            budget: Budget::new(terms.cap, terms.audit_reserve),
            terms,
            opened,
            opened_ms: now,
            closed_ms: None,
            prices: BTreeMap::new(),
            holds: BTreeMap::new(),
            payments: Payments::default(),
            dates: BTreeMap::new(),
            least: None,
            contested: BTreeSet::new(),
        }
    }

    /// The hold that the receipt answers.
    pub(super) fn ordered(&self, receipt: &Receipt) -> Result<Hold, LedgerError> {
        let assignment = AssignmentId(receipt.nonce);
        let hold = self.holds.get(&assignment).ok_or(LedgerError::NotHeld { job: receipt.job, assignment })?;
        let rules = [
            (hold.order.shard == receipt.shard, "shard"),
            (hold.order.node == receipt.node, "node"),
            (hold.order.operator == receipt.operator, "operator"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, what)) => Err(LedgerError::Ordered { assignment, what }),
            None => Ok(*hold),
        }
    }

    /// What is free of an ended job's escrow goes back: this is that posting, and it is taken off the budget.
    pub(super) fn rest(&self, job: JobId, budget: &mut Budget) -> Result<Option<Draft>, CreditsError> {
        let free = budget.free()?;
        if free.is_zero() {
            return Ok(None);
        }
        *budget = budget.refund(free)?;
        let requester = Account::Requester(self.terms.requester);
        Draft::transfer(Cause::Refunded { job }, Account::Escrow(job), requester, free).map(Some)
    }
}

impl Ledger {
    /// A job is accepted: its cap goes into escrow.
    ///
    /// # Errors
    /// When it has an escrow already, or its requester has less than the cap.
    pub fn open(&mut self, job: JobId, terms: Terms, now: Millis) -> Result<PostingId, LedgerError> {
        if self.jobs.contains_key(&job) {
            return Err(LedgerError::JobOpen { job });
        }
        let Terms { requester, cap, audit_reserve, .. } = terms;
        if audit_reserve > cap {
            return Err(LedgerError::Reserve { reserve: audit_reserve, cap });
        }
        let (cause, from) = (Cause::Escrowed { job }, Account::Requester(requester));
        let posting = self.books.commit(vec![Draft::transfer(cause, from, Account::Escrow(job), cap)?], now)?;
        self.jobs.insert(job, Job::new(terms, posting, now));
        self.opened.insert(posting, job);
        self.changed();
        Ok(posting)
    }

    /// An execution is about to be ordered: sets aside what it costs at most, and says how much that is.
    ///
    /// # Errors
    /// When the job has ended, the order has its hold, the operator was slashed, or the cap leaves too little.
    pub fn hold(&mut self, job: JobId, order: Order, prices: &PriceTable) -> Result<Credits, LedgerError> {
        let Order { assignment, operator, role, .. } = order;
        if let Some(convicted) = self.convicted(operator) {
            return Err(LedgerError::Convicted { operator, convicted });
        }
        let open = self.jobs.get_mut(&job).ok_or(LedgerError::JobUnknown { job })?;
        if open.closed_ms.is_some() {
            return Err(LedgerError::JobClosed { job });
        }
        if open.holds.contains_key(&assignment) {
            return Err(LedgerError::Held { assignment });
        }
        let worst = prices.worst(&open.terms.limits, open.terms.device)?.total;
        let free = open.budget.free_for(role)?;
        if worst > free {
            return Err(LedgerError::Cap { job, worst, free });
        }
        open.budget = open.budget.hold(role, worst)?;
        // Most hosts of a job ask the same, and to name a table costs more than to compare it.
        let known = open.prices.iter().take(COMPARED_MAX).find(|(_, known)| *known == prices).map(|(id, _)| *id);
        let id = known.unwrap_or_else(|| prices.id());
        open.prices.entry(id).or_insert_with(|| prices.clone());
        open.holds.insert(assignment, Hold { order, prices: id, worst });
        open.least = Some(open.least.map_or(worst, |least| least.min(worst)));
        self.changed();
        Ok(worst)
    }

    /// An order came to nothing, or to a receipt that is not paid: its hold is free again.
    ///
    /// # Errors
    /// When there is no such hold.
    pub fn release(&mut self, job: JobId, assignment: AssignmentId, now: Millis) -> Result<(), LedgerError> {
        let open = self.jobs.get_mut(&job).ok_or(LedgerError::JobUnknown { job })?;
        let hold = open.holds.get(&assignment).ok_or(LedgerError::NotHeld { job, assignment })?;
        let mut budget = open.budget.release(hold.order.role, hold.worst)?;
        if open.closed_ms.is_some() {
            self.books.commit(Vec::from_iter(open.rest(job, &mut budget)?), now)?;
        }
        open.budget = budget;
        open.holds.remove(&assignment);
        self.changed();
        Ok(())
    }

    /// A job has ended, whatever came of it, and its audits are in: nothing is ordered for it any more, and what is not held
    /// goes back. What is still held follows as it is released, or paid. Until then its reserve can pay for an audit whose
    /// auditor was lost.
    ///
    /// # Errors
    /// When there is no such job, or it has ended before.
    pub fn close(&mut self, job: JobId, now: Millis) -> Result<(), LedgerError> {
        let open = self.jobs.get_mut(&job).ok_or(LedgerError::JobUnknown { job })?;
        if open.closed_ms.is_some() {
            return Err(LedgerError::JobClosed { job });
        }
        let mut budget = open.budget;
        self.books.commit(Vec::from_iter(open.rest(job, &mut budget)?), now)?;
        open.budget = budget;
        open.closed_ms = Some(now);
        open.payments.shrink();
        self.changed();
        Ok(())
    }

    /// A job is over and settled: the ledger forgets it, and gives its invoice.
    ///
    /// # Errors
    /// When the job has not ended, or something of it is unsettled.
    pub fn forget(&mut self, job: JobId) -> Result<Invoice, LedgerError> {
        let open = self.jobs.get(&job).ok_or(LedgerError::JobUnknown { job })?;
        let holds = open.holds.len();
        let payments = open.payments.iter().filter(|(_, paid)| paid.payment.standing.is_pending()).count();
        if open.closed_ms.is_some() && (holds > 0 || payments > 0) {
            return Err(LedgerError::JobUnsettled { job, holds, payments });
        }
        let (opened, invoice) = (open.opened, self.invoice(job)?);
        self.jobs.remove(&job);
        self.opened.remove(&opened);
        self.changed();
        Ok(invoice)
    }

    /// Whether the job has an escrow, or had one and is not forgotten.
    pub fn knows(&self, job: JobId) -> bool {
        self.jobs.contains_key(&job)
    }

    /// What the job's next execution may cost; nothing when nobody pays for it.
    pub fn free_for(&self, job: JobId, role: Role) -> Credits {
        let open = self.jobs.get(&job).filter(|job| job.closed_ms.is_none());
        // A budget that holds is within its cap.
        open.and_then(|job| job.budget.free_for(role).ok()).unwrap_or_default()
    }

    /// Whether there is a hold for the order.
    pub fn is_held(&self, job: JobId, assignment: AssignmentId) -> bool {
        self.jobs.get(&job).is_some_and(|job| job.holds.contains_key(&assignment))
    }

    /// What the order may cost, if there is a hold for it.
    pub fn held(&self, job: JobId, assignment: AssignmentId) -> Option<Credits> {
        self.jobs.get(&job)?.holds.get(&assignment).map(|hold| hold.worst)
    }

    /// Orders of the job that there are holds for.
    pub fn held_of(&self, job: JobId) -> impl Iterator<Item = AssignmentId> {
        self.jobs.get(&job).into_iter().flat_map(|job| job.holds.keys().copied())
    }

    /// The least that any order of the job could cost at most; none before the first.
    pub fn least_held(&self, job: JobId) -> Option<Credits> {
        self.jobs.get(&job)?.least
    }

    /// On which terms a job was accepted.
    pub fn terms(&self, job: JobId) -> Option<&Terms> {
        self.jobs.get(&job).map(|job| &job.terms)
    }

    /// Where a job's cap is.
    pub fn budget(&self, job: JobId) -> Option<Budget> {
        self.jobs.get(&job).map(|job| job.budget)
    }

    /// What was paid for (job, shard, node), and how that stands.
    pub fn payment(&self, key: PaymentKey) -> Option<&Payment> {
        self.jobs.get(&key.job).and_then(|job| job.payments.get(key.shard, key.node))
    }
}
