//! From a verdict to an operator's own account.
//!
//! [`Payable`] has no constructor that takes a receipt without a verdict, cannot be read from anywhere, and borrows what it is
//! about, so that it is not kept for later. The receipt's own price is no part of this: the bill follows from the prices that
//! the hold was made at.

use std::collections::{BTreeMap, BTreeSet};

use registry::{
    credits::Credits,
    id::{BlobHash, Commitment, JobId, OperatorId, PriceId, ReceiptId},
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
    paid::{Paid, Place},
    stake::Unbonding,
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
    attested: &'a Attested,
    output: &'a Output,
    ground: Ground,
}

impl<'a> Payable<'a> {
    /// The execution that `receipt` is about, by the verdict on its shard. A commitment covers the task, so that a verdict
    /// on one shard accepts nothing in another.
    ///
    /// # Errors
    /// When the verdict is open or for another result, or the output is not the receipt's.
    pub fn of(verdict: Verdict, attested: &'a Attested, output: &'a Output) -> Result<Self, NotPayable> {
        let receipt = attested.id();
        let (named, given) = (attested.receipt().execution.output, output.hash());
        if named != given {
            return Err(NotPayable::Output { receipt, named, given });
        }
        let found = attested.commitment();
        let ground = match verdict {
            Verdict::Open { .. } => return Err(NotPayable::Open { receipt }),
            Verdict::Accepted(accepted) if accepted != found => {
                return Err(NotPayable::Contradicted { receipt, found, accepted });
            }
            Verdict::Accepted(accepted) => Ground::Accepted(accepted),
            Verdict::Inconclusive => Ground::Inconclusive,
        };
        Ok(Self { attested, output, ground })
    }

    fn receipt(&self) -> &'a Receipt {
        self.attested.receipt()
    }

    /// What it is paid as.
    pub fn key(&self) -> PaymentKey {
        PaymentKey { job: self.receipt().job, shard: self.receipt().shard, node: self.receipt().node }
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

    /// When it is settled, as long as it is not.
    pub(super) const fn due_ms(self) -> Option<Millis> {
        match self {
            Self::Pending { due_ms } => Some(due_ms),
            Self::Settled | Self::Returned => None,
        }
    }

    fn is_due(self, now: Millis) -> bool {
        self.due_ms().is_some_and(|due_ms| due_ms <= now)
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
        for (_, paid) in self.payments.of(shard) {
            if paid.node == node {
                return Err(LedgerError::AlreadyPaid { payment });
            }
            if paid.payment.operator == operator {
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
        let Payable { attested, output, ground } = *payable;
        let receipt = attested.receipt();
        let (key, operator, id) = (payable.key(), receipt.operator, attested.id());
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
        let place = job.payments.next()?;
        let posting = self.books.commit(drafts, now)?;
        // From here on nothing fails.
        let due_ms = self.rules.due_ms(now);
        let (role, prices, standing) = (hold.order.role, hold.prices, Standing::Pending { due_ms });
        let payment =
            Payment { receipt: id, operator, role, ground, usage, prices, bill, paid_ms: now, posting, standing };
        job.budget = budget;
        job.holds.remove(&assignment);
        job.payments.push(place, Paid { shard: key.shard, node: key.node, payment });
        if !job.contested.contains(&key.shard) {
            job.date(key.job, due_ms, &mut self.due);
        }
        self.unsettled.entry(operator).or_default().insert((job.opened, place));
        self.changed();
        Ok(posting)
    }

    /// Settles what is due: payments whose audit window is over, and stake whose unbonding time is. Says where that begins
    /// on the books, if there was anything.
    ///
    /// # Errors
    /// Never, as long as [`Ledger::check`] holds.
    pub fn settle(&mut self, now: Millis) -> Result<Option<PostingId>, LedgerError> {
        let due = self.due.iter().take_while(|(at, _)| *at <= now);
        let due: BTreeSet<Due> = due.map(|(_, what)| *what).collect();
        if due.is_empty() {
            return Ok(None);
        }
        let batches: Vec<Batch> = due.iter().map(|what| self.batch(*what, now)).collect::<Result<_, _>>()?;
        let (drafts, settled): (Vec<_>, Vec<_>) =
            batches.into_iter().map(|batch| (batch.draft, batch.payments)).unzip();
        let first = self.books.commit(drafts.into_iter().flatten().collect(), now)?;
        for (what, payments) in due.into_iter().zip(settled) {
            match what {
                Due::Job(job) => payments.into_iter().for_each(|place| self.decide(job, place, Standing::Settled)),
                Due::Unbonding(asked) => {
                    let unbonding = self.unbonding.remove(&asked);
                    unbonding.map(|unbonding| self.due.remove(&(unbonding.due_ms, what)));
                }
            }
        }
        self.changed();
        Ok(Some(first))
    }

    /// What is settled together, and the posting that does it, if there is anything.
    fn batch(&self, due: Due, now: Millis) -> Result<Batch, LedgerError> {
        match due {
            Due::Job(job) => self.payments_due(job, now),
            Due::Unbonding(asked) => {
                let nothing = LedgerError::Nothing { what: "unbonded" };
                let Unbonding { operator, amount, .. } = *self.unbonding.get(&asked).ok_or(nothing)?;
                let (from, to) = (Account::Unbonding(operator), Account::Operator(operator));
                let draft = Some(Draft::transfer(Cause::Unbonded { asked }, from, to, amount)?);
                Ok(Batch { draft, payments: Vec::new() })
            }
        }
    }

    /// Payments of the job whose date has come, as one posting.
    fn payments_due(&self, job: JobId, now: Millis) -> Result<Batch, LedgerError> {
        let open = self.jobs.get(&job).ok_or(LedgerError::JobUnknown { job })?;
        let mut earned: BTreeMap<OperatorId, Credits> = BTreeMap::new();
        let mut payments = Vec::new();
        for (place, Paid { payment, .. }) in open.pending().filter(|(_, paid)| paid.payment.standing.is_due(now)) {
            let earned = earned.entry(payment.operator).or_default();
            *earned = earned.plus(payment.bill)?;
            payments.push(place);
        }
        let own = |(operator, amount)| (Account::Earned(operator), Account::Operator(operator), amount);
        let draft = Draft::apart(Cause::Settled { job }, earned.into_iter().map(own));
        Ok(Batch { draft: Some(draft).filter(|_| !payments.is_empty()), payments })
    }
}

/// What is settled together.
struct Batch {
    draft: Option<Draft>,
    payments: Vec<Place>,
}
