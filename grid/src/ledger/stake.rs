//! What an operator vouches with: deposit, withdrawal after a time, and loss.

use std::collections::BTreeMap;

use registry::{
    credits::Credits,
    id::{Commitment, JobId, OperatorId, ReceiptId},
    job::ShardInfo,
    receipt::{Receipt, Record, RecordError},
};
use serde::{Deserialize, Serialize};

use super::{
    Due, Ledger,
    account::{Account, Cause, PaymentKey, PostingId},
    books::Draft,
    budget::Budget,
    error::LedgerError,
    paid::{Paid, Place},
    payment::Standing,
};
use crate::flow::{Attested, Millis};

/// Stake that is being withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unbonding {
    pub(super) operator: OperatorId,
    pub(super) amount: Credits,
    pub(super) due_ms: Millis,
}

/// Why an operator is not convicted.
#[derive(Debug, thiserror::Error)]
pub enum ConvictionError {
    /// The record does not hold.
    #[error("nobody is convicted: {0}")]
    Record(#[from] RecordError),
    /// It accuses nobody.
    #[error("nobody is convicted: the record says why a result stands, and accuses nobody")]
    NoAccused,
}

/// An operator signed a result in class `exact` that is proven wrong. There is none without a record that checks, or the
/// attested receipts that such a record is made of: it cannot be read from anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conviction {
    operator: OperatorId,
    job: JobId,
    shard: ShardInfo,
    receipt: ReceiptId,
    truth: Commitment,
    auditor: Option<OperatorId>,
}

impl Conviction {
    /// What the record proves. It checks every signature in it.
    ///
    /// # Errors
    /// When the record does not hold, or accuses nobody.
    pub fn of(record: &Record) -> Result<Self, ConvictionError> {
        let checked = record.check()?;
        let lie = record.accused().ok_or(ConvictionError::NoAccused)?.open()?;
        let (operator, receipt, truth) = (lie.operator, lie.id(), checked.commitment);
        Ok(Self { operator, job: lie.job, shard: lie.shard, receipt, truth, auditor: None })
    }

    /// Of two receipts whose signatures were checked as they came in, the one that a verdict contradicts, and one that it is for.
    pub(crate) fn found(lie: &Attested, truth: &Attested) -> Self {
        let Receipt { operator, job, shard, .. } = *lie.receipt();
        Self { operator, job, shard, receipt: lie.id(), truth: truth.commitment(), auditor: None }
    }

    /// The same, found by an auditor, who gets a part. There is none where a quorum noticed by itself.
    #[must_use]
    pub fn found_by(self, auditor: OperatorId) -> Self {
        Self { auditor: Some(auditor), ..self }
    }

    /// Who is convicted.
    pub fn operator(&self) -> OperatorId {
        self.operator
    }
}

/// Where an operator's credits went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slashed {
    /// Unsettled payments, to who paid them.
    pub returned: Credits,
    /// Of the stake, to the requester who was lied to.
    pub requester: Credits,
    /// Of the stake, to the auditor.
    pub auditor: Credits,
    /// Of the stake, to nobody.
    pub burned: Credits,
}

impl Ledger {
    /// An operator vouches with more of its own credits.
    ///
    /// # Errors
    /// When it was slashed, stakes nothing, or has less.
    pub fn stake(&mut self, operator: OperatorId, amount: Credits, now: Millis) -> Result<PostingId, LedgerError> {
        if let Some(convicted) = self.convicted(operator) {
            return Err(LedgerError::Convicted { operator, convicted });
        }
        self.transfer(Cause::Staked, Account::Operator(operator), Account::Stake(operator), amount, now)
    }

    /// An operator wants stake back. It gets it once the unbonding time is over, by [`Ledger::settle`]; until then it can
    /// lose it.
    ///
    /// # Errors
    /// When it asks for nothing, or for more than its stake.
    pub fn unbond(&mut self, operator: OperatorId, amount: Credits, now: Millis) -> Result<PostingId, LedgerError> {
        let due_ms = now.saturating_add(self.rules.unbonding_ms);
        if amount.is_zero() {
            return Err(LedgerError::Nothing { what: "unbonded" });
        }
        let (cause, stake) = (Cause::UnbondingBegun { due_ms }, Account::Stake(operator));
        let draft = Draft::transfer(cause, stake, Account::Unbonding(operator), amount)?;
        let asked = self.books.commit(vec![draft], now)?;
        self.unbonding.insert(asked, Unbonding { operator, amount, due_ms });
        self.due.insert((due_ms, Due::Unbonding(asked)));
        self.changed();
        Ok(asked)
    }

    /// What an operator can lose: its stake, what of it is unbonding, and what it has earned and is not settled.
    pub fn at_risk(&self, operator: OperatorId) -> Credits {
        // Three parts of what the mint gave are no more than that.
        self.books.at_risk(operator).into_iter().fold(Credits::ZERO, |sum, part| sum.plus(part).unwrap_or(Credits::MAX))
    }

    /// What of that it loses in any case when it is convicted: what it has earned and is not settled. Who signs alone what is wrong keeps
    /// its stake.
    pub fn unsettled(&self, operator: OperatorId) -> Credits {
        let [.., earned] = self.books.at_risk(operator);
        earned
    }

    /// Takes from a convicted operator what it has earned and is not settled: it is paid no more and may not stake again.
    /// Its orders keep their holds until they are released. Says how much went back.
    ///
    /// # Errors
    /// When it was convicted before, or convicts itself; this changes nothing.
    pub fn expel(&mut self, conviction: &Conviction, now: Millis) -> Result<Credits, LedgerError> {
        let operator = conviction.operator;
        if let Some(convicted) = self.convicted(operator) {
            return Err(LedgerError::Convicted { operator, convicted });
        }
        self.take(conviction, None, now)
    }

    /// Takes all that it can lose, for good.
    ///
    /// # Errors
    /// When it was slashed before, or convicts itself; this changes nothing.
    pub fn slash(&mut self, conviction: &Conviction, now: Millis) -> Result<Slashed, LedgerError> {
        let operator = conviction.operator;
        if let Some(convicted) = self.convicted(operator).filter(|_| self.is_slashed(operator)) {
            return Err(LedgerError::Convicted { operator, convicted });
        }
        let (fine, slashed) = self.fine(conviction)?;
        let returned = self.take(conviction, fine, now)?;
        for (asked, unbonding) in self.unbonding.extract_if(.., |_, unbonding| unbonding.operator == operator) {
            self.due.remove(&(unbonding.due_ms, Due::Unbonding(asked)));
        }
        self.slashed.insert(operator);
        self.changed();
        Ok(Slashed { returned, ..slashed })
    }

    /// Takes what is not settled, and this fine.
    fn take(&mut self, conviction: &Conviction, fine: Option<Draft>, now: Millis) -> Result<Credits, LedgerError> {
        let Conviction { operator, auditor, receipt, .. } = *conviction;
        if auditor == Some(operator) {
            return Err(LedgerError::OwnAuditor { operator });
        }
        let Returns { payments, budgets, mut drafts } = self.returns(operator, receipt)?;
        let returned = self.books.funds(Account::Earned(operator));
        let is_fined = fine.is_some();
        drafts.extend(fine);
        self.books.commit(drafts, now)?;
        // From here on nothing fails.
        for (id, budget) in budgets {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.budget = budget;
            }
        }
        payments.into_iter().for_each(|(id, place)| self.decide(id, place, Standing::Returned));
        self.convicted.entry(operator).or_insert(receipt);
        if !is_fined {
            self.changed();
        }
        Ok(returned)
    }

    /// Unsettled payments go back whole: into the escrow, so that the work can be done again under the same cap, or to the
    /// requester once its job has ended.
    fn returns(&self, operator: OperatorId, convicted: ReceiptId) -> Result<Returns, LedgerError> {
        let mut returns = Returns::default();
        let own = self.unsettled.get(&operator).into_iter().flatten().filter_map(|(opened, place)| {
            let id = *self.opened.get(opened)?;
            let job = self.jobs.get(&id)?;
            Some((id, job, *place, job.payments.at(*place)?))
        });
        let mut lost: Vec<_> = own.collect();
        lost.sort_unstable_by_key(|(id, _, _, paid)| (*id, paid.shard, paid.node));
        for (job_id, job, place, &Paid { shard, node, payment }) in lost {
            let key = PaymentKey { job: job_id, shard, node };
            let budget = returns.budgets.entry(key.job).or_insert(job.budget);
            *budget = budget.put_back(payment.role, payment.bill)?;
            let mut to = Account::Escrow(key.job);
            if job.closed_ms.is_some() {
                *budget = budget.refund(payment.bill)?;
                to = Account::Requester(job.terms.requester);
            }
            let cause = Cause::Returned { payment: key, convicted };
            returns.drafts.push(Draft::transfer(cause, Account::Earned(operator), to, payment.bill)?);
            returns.payments.push((key.job, place));
        }
        Ok(returns)
    }

    /// The stake is split. Shares are rounded down and the rest is burned, so that no unit is lost or made.
    fn fine(&self, conviction: &Conviction) -> Result<(Option<Draft>, Slashed), LedgerError> {
        let Conviction { operator, job, shard, receipt, truth, auditor } = *conviction;
        let (stake, unbonding) = (Account::Stake(operator), Account::Unbonding(operator));
        let withdrawn = self.books.funds(unbonding);
        let fine = self.books.funds(stake).plus(withdrawn)?;
        if fine.is_zero() {
            return Ok((None, Slashed::default()));
        }
        // A job that was settled and forgotten has nobody left to give to.
        let lied_to = self.jobs.get(&job).map(|job| Account::Requester(job.terms.requester));
        let share = |to: Option<Account>, ppm| to.map_or(Credits::ZERO, |_| fine.share(ppm));
        let found_by = auditor.map(Account::Operator);
        let requester = share(lied_to, self.rules.slash_requester_ppm);
        let auditor_share = share(found_by, self.rules.slash_auditor_ppm);
        let burned = fine.minus(requester)?.minus(auditor_share)?;
        let cause = Cause::Slashed { job, shard, convicted: receipt, truth, auditor };
        let parts = [(lied_to, requester), (found_by, auditor_share), (Some(Account::Burn), burned)];
        let mut draft = Draft::new(cause).and(unbonding, stake, withdrawn)?;
        for (to, amount) in parts.into_iter().filter_map(|(to, amount)| Some((to?, amount))) {
            draft = draft.and(stake, to, amount)?;
        }
        Ok((Some(draft), Slashed { returned: Credits::ZERO, requester, auditor: auditor_share, burned }))
    }
}

/// What an operator's unsettled payments become.
#[derive(Debug, Default)]
struct Returns {
    payments: Vec<(JobId, Place)>,
    budgets: BTreeMap<JobId, Budget>,
    drafts: Vec<Draft>,
}
