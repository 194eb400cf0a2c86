//! From a verdict to an operator's own account.
//!
//! [`Payable`] has no constructor that takes a receipt without a verdict, cannot be read from anywhere, and borrows what it is
//! about, so that it is not kept for later. The receipt's own price is no part of this: the bill follows from the prices that
//! the hold was made at.

use registry::{
    credits::Credits,
    id::{BlobHash, Commitment, JobId, OperatorId, PriceId, ReceiptId},
    job::ShardInfo,
    price::Usage,
    receipt::{Output, Receipt},
};
use serde::{Deserialize, Serialize};

use super::{
    Due, Ledger,
    account::{Account, Cause, PaymentKey, PostingId},
    books::Draft,
    budget::Role,
    error::LedgerError,
    escrow::Job,
};
use crate::flow::{Attested, Millis, Verdict};

/// What a verdict says of an execution that is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ground {
    /// Its commitment is the result.
    Accepted(Commitment),
    /// Nothing reproduces: the module is to blame and no host, so that who asked for it pays for what ran.
    Inconclusive,
}

/// Why an execution is not paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotPayable {
    /// There is no verdict yet.
    #[error("receipt {} is not paid: its shard has no verdict yet", .receipt.short())]
    Open {
        /// Which receipt.
        receipt: ReceiptId,
    },
    /// The verdict is for another result.
    #[error("receipt {} is not paid: it commits to {found} and the result is {accepted}", .receipt.short())]
    Contradicted {
        /// Which receipt.
        receipt: ReceiptId,
        /// What it commits to.
        found: Commitment,
        /// What was accepted.
        accepted: Commitment,
    },
    /// The output is not the receipt's.
    #[error("receipt {} is not paid: it commits to output {named} and not to {given}", .receipt.short())]
    Output {
        /// Which receipt.
        receipt: ReceiptId,
        /// As it says.
        named: BlobHash,
        /// As given.
        given: BlobHash,
    },
}

/// An execution that a verdict says is to be paid: the only thing that [`Ledger::pay`] takes.
#[derive(Debug, Clone, Copy)]
pub struct Payable<'a> {
    receipt: &'a Receipt,
    output: &'a Output,
    ground: Ground,
}

impl<'a> Payable<'a> {
    /// The execution that `receipt` is about, by the verdict on its shard. A commitment covers the task, so that a verdict
    /// on one shard accepts nothing in another.
    ///
    /// # Errors
    /// When the verdict is open or for another result, or the output is not the receipt's.
    pub fn of(verdict: Verdict, receipt: &'a Attested, output: &'a Output) -> Result<Self, NotPayable> {
        let receipt = receipt.receipt();
        let (named, given) = (receipt.execution.output, output.hash());
        if named != given {
            return Err(NotPayable::Output { receipt: receipt.id(), named, given });
        }
        let found = receipt.execution.commitment();
        let ground = match verdict {
            Verdict::Open { .. } => return Err(NotPayable::Open { receipt: receipt.id() }),
            Verdict::Accepted(accepted) if accepted != found => {
                return Err(NotPayable::Contradicted { receipt: receipt.id(), found, accepted });
            }
            Verdict::Accepted(accepted) => Ground::Accepted(accepted),
            Verdict::Inconclusive => Ground::Inconclusive,
        };
        Ok(Self { receipt, output, ground })
    }

    /// What it is paid as.
    pub fn key(&self) -> PaymentKey {
        PaymentKey { job: self.receipt.job, shard: self.receipt.shard, node: self.receipt.node }
    }
}

/// How a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The operator can still lose it.
    Pending {
        /// When it is settled, unless it is contested then.
        due_ms: Millis,
    },
    /// It is the operator's own.
    Settled,
    /// It went back to who paid it.
    Returned,
}

impl Standing {
    /// A stable word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Settled => "settled",
            Self::Returned => "returned",
        }
    }

    pub(super) const fn is_pending(self) -> bool {
        matches!(self, Self::Pending { .. })
    }
}

/// What was paid for one execution, and everything that the bill follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payment {
    /// The receipt.
    pub receipt: ReceiptId,
    /// Who answers for its host.
    pub operator: OperatorId,
    /// What it was for.
    pub role: Role,
    /// What the verdict said.
    pub ground: Ground,
    /// What was used.
    pub usage: Usage,
    /// At which prices.
    pub prices: PriceId,
    /// What that costs.
    pub bill: Credits,
    /// When it was paid.
    pub paid_ms: Millis,
    /// Where it is on the books.
    pub posting: PostingId,
    /// How it stands.
    pub standing: Standing,
}

impl Job {
    /// Whether nobody was paid in the payment's place.
    fn unpaid(&self, payment: PaymentKey, operator: OperatorId) -> Result<(), LedgerError> {
        let PaymentKey { job, shard, node } = payment;
        for (paid, earlier) in self.paid_for(shard) {
            if paid == node {
                return Err(LedgerError::AlreadyPaid { payment });
            }
            if earlier.operator == operator {
                return Err(LedgerError::OperatorPaid { job, shard, operator });
            }
        }
        Ok(())
    }
}

impl Ledger {
    /// Pays an execution out of its job's escrow, by what its receipt says was used.
    ///
    /// # Errors
    /// When it was paid already, was not ordered, is not what was ordered, costs more than its limits allow, or when its
    /// operator was slashed.
    pub fn pay(&mut self, payable: &Payable<'_>, now: Millis) -> Result<PostingId, LedgerError> {
        let Payable { receipt, output, ground } = *payable;
        let (key, operator, id) = (payable.key(), receipt.operator, receipt.id());
        let convicted = self.convicted(operator);
        let job = self.jobs.get_mut(&key.job).ok_or(LedgerError::JobUnknown { job: key.job })?;
        job.unpaid(key, operator)?;
        if let Some(convicted) = convicted {
            return Err(LedgerError::Convicted { operator, convicted });
        }
        let hold = job.ordered(receipt)?;
        let assignment = hold.order.assignment;
        let usage = Usage::of(receipt, output, job.terms.limits.memory_bytes_max);
        let prices = job.prices.get(&hold.prices).ok_or(LedgerError::NotHeld { job: key.job, assignment })?;
        let bill = prices.bill(&usage)?.total;
        if bill > hold.worst {
            return Err(LedgerError::OverHold { bill, held: hold.worst });
        }
        let mut budget = job.budget.pay(hold.order.role, hold.worst, bill)?;
        let cause = Cause::Paid { payment: key, receipt: id, assignment, ground, prices: hold.prices };
        let mut drafts = vec![Draft::transfer(cause, Account::Escrow(key.job), Account::Earned(operator), bill)?];
        if job.closed_ms.is_some() {
            drafts.extend(job.rest(key.job, &mut budget)?);
        }
        let posting = self.books.commit(drafts, now)?;
        // From here on nothing fails.
        let due_ms = now.saturating_add(self.rules.audit_window_ms);
        let (role, prices, standing) = (hold.order.role, hold.prices, Standing::Pending { due_ms });
        let payment =
            Payment { receipt: id, operator, role, ground, usage, prices, bill, paid_ms: now, posting, standing };
        job.budget = budget;
        job.holds.remove(&assignment);
        job.payments.insert((key.shard, key.node), payment);
        if !job.contested.contains(&key.shard) {
            self.due.insert((due_ms, Due::Payment(key)));
        }
        self.unsettled.insert((operator, key));
        self.changed();
        Ok(posting)
    }

    /// The result of a shard is in dispute: its payments are not settled before [`Ledger::absolve`].
    ///
    /// # Errors
    /// When there is no such job.
    pub fn contest(&mut self, job: JobId, shard: ShardInfo) -> Result<(), LedgerError> {
        let contested = self.jobs.get_mut(&job).ok_or(LedgerError::JobUnknown { job })?;
        contested.contested.insert(shard);
        for due in pending(contested, job, shard) {
            self.due.remove(&due);
        }
        self.changed();
        Ok(())
    }

    /// The dispute is over: payments that nobody lost are settled at their date, or now if it has passed.
    ///
    /// # Errors
    /// When there is no such job.
    pub fn absolve(&mut self, job: JobId, shard: ShardInfo) -> Result<(), LedgerError> {
        let contested = self.jobs.get_mut(&job).ok_or(LedgerError::JobUnknown { job })?;
        if contested.contested.remove(&shard) {
            self.due.extend(pending(contested, job, shard));
        }
        self.changed();
        Ok(())
    }

    /// Settles what is due: payments whose audit window is over, and stake whose unbonding time is. Says where that begins
    /// on the books, if there was anything.
    ///
    /// # Errors
    /// Never, as long as [`Ledger::check`] holds.
    pub fn settle(&mut self, now: Millis) -> Result<Option<PostingId>, LedgerError> {
        let due: Vec<(Millis, Due)> = self.due.iter().take_while(|(at, _)| *at <= now).copied().collect();
        if due.is_empty() {
            return Ok(None);
        }
        let drafts: Vec<Draft> = due.iter().map(|(_, what)| self.settled(*what)).collect::<Result<_, _>>()?;
        let first = self.books.commit(drafts, now)?;
        for (at, what) in due {
            self.due.remove(&(at, what));
            match what {
                Due::Payment(key) => {
                    if let Some(operator) = self.payment(key).map(|payment| payment.operator) {
                        self.unsettled.remove(&(operator, key));
                    }
                    self.stand(key, Standing::Settled);
                }
                Due::Unbonding(asked) => {
                    self.unbonding.remove(&asked);
                }
            }
        }
        self.changed();
        Ok(Some(first))
    }

    /// The posting that settles it.
    fn settled(&self, due: Due) -> Result<Draft, LedgerError> {
        let (cause, operator, from, amount) = match due {
            Due::Payment(key) => {
                let payment = self.payment(key).ok_or(LedgerError::JobUnknown { job: key.job })?;
                let operator = payment.operator;
                (Cause::Settled { payment: key }, operator, Account::Earned(operator), payment.bill)
            }
            Due::Unbonding(asked) => {
                let nothing = LedgerError::Nothing { what: "unbonded" };
                let unbonding = self.unbonding.get(&asked).ok_or(nothing)?;
                let operator = unbonding.operator;
                (Cause::Unbonded { asked }, operator, Account::Unbonding(operator), unbonding.amount)
            }
        };
        Ok(Draft::transfer(cause, from, Account::Operator(operator), amount)?)
    }
}

/// The dates of a shard's unsettled payments.
fn pending(open: &Job, job: JobId, shard: ShardInfo) -> Vec<(Millis, Due)> {
    let dates = open.paid_for(shard).filter_map(|(node, payment)| match payment.standing {
        Standing::Pending { due_ms } => Some((due_ms, Due::Payment(PaymentKey { job, shard, node }))),
        Standing::Settled | Standing::Returned => None,
    });
    dates.collect()
}
