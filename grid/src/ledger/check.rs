//! Every invariant, derived again from postings, payments and holds alone.

use std::collections::{BTreeMap, BTreeSet};

use registry::{
    credits::{self, Credits, CreditsError, Delta},
    id::{JobId, NodeId, OperatorId, ReceiptId},
    job::ShardInfo,
};

use super::{
    Due, Ledger,
    account::{Account, Cause, PaymentKey, PostingId},
    budget::{Budget, Role, Use},
    escrow::Job,
    payment::{Payment, Standing},
};
use crate::flow::Millis;

/// Postings and payments up to which a debug build checks everything after each change.
const CHECKED_MAX: u64 = 16;

/// An invariant that does not hold: a broken ledger, never a refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A sum is out of bounds.
    #[error("a sum is out of bounds: {0}")]
    Bound(#[from] CreditsError),
    /// All accounts together are not nothing.
    #[error("all accounts add up to {sum} micro-credits instead of nothing")]
    Sum {
        /// What they add up to.
        sum: i128,
    },
    /// A posting's entries are not nothing.
    #[error("the entries of posting {} add up to {sum} micro-credits instead of nothing", .posting.0)]
    Posting {
        /// Which one.
        posting: PostingId,
        /// What they add up to.
        sum: i128,
    },
    /// An account but the mint is below zero.
    #[error("account {account} is below zero: {balance}")]
    Negative {
        /// Which one.
        account: Account,
        /// What stands on it.
        balance: Delta,
    },
    /// What stands on an account is not what its postings add up to.
    #[error("account {account} has {balance}, and its postings add up to {computed}")]
    Balance {
        /// Which one.
        account: Account,
        /// As kept.
        balance: Delta,
        /// As computed.
        computed: Delta,
    },
    /// Somebody earned without a verdict.
    #[error("posting {} pays for no verdict", .posting.0)]
    NoVerdict {
        /// Which one.
        posting: PostingId,
    },
    /// A receipt, or an operator for one shard, was paid twice.
    #[error("{payment} was paid, and its receipt or its operator had been paid before")]
    Twice {
        /// The second payment.
        payment: PaymentKey,
    },
    /// A payment is not on the books as it is kept.
    #[error("{payment} is not on the books as posting {}", .posting.0)]
    Payment {
        /// Which one.
        payment: PaymentKey,
        /// Where it should be.
        posting: PostingId,
    },
    /// A job's budget is not what its payments and holds add up to, is over its cap, or its escrow has something else.
    #[error("the {what} of job {job} does not hold")]
    Budget {
        /// Which job.
        job: JobId,
        /// What of it.
        what: &'static str,
    },
    /// What is at risk of an operator is not what its payments and withdrawals add up to.
    #[error("account {account} has {balance}, and {computed} are unsettled")]
    AtRisk {
        /// Which account.
        account: Account,
        /// As kept.
        balance: Credits,
        /// As computed.
        computed: Credits,
    },
    /// A convicted operator has something to lose again.
    #[error("operator {operator} was convicted and has {at_risk} credits at risk")]
    Convicted {
        /// Which one.
        operator: OperatorId,
        /// What it has.
        at_risk: Credits,
    },
    /// What has a date, or whose it is, is not what is unsettled.
    #[error("the {what} are not those that are unsettled")]
    Index {
        /// Which index.
        what: &'static str,
    },
}

impl Ledger {
    /// Derives every invariant again.
    ///
    /// # Errors
    /// Names the first that does not hold.
    pub fn check(&self) -> Result<(), Violation> {
        self.check_books()?;
        self.check_payments()?;
        for (id, job) in &self.jobs {
            self.check_budget(*id, job)?;
        }
        self.check_unsettled()
    }

    /// [`Ledger::check`], each time while there is little, and then so rarely that it costs the same for each change.
    pub(super) fn check_if_due(&self) -> Result<(), Violation> {
        let payments: usize = self.jobs.values().map(|job| job.payments.len() + job.holds.len()).sum();
        let size = u64::try_from(self.books.len() + payments).unwrap_or(u64::MAX);
        if self.changes.is_multiple_of(1 + size / CHECKED_MAX) { self.check() } else { Ok(()) }
    }

    /// Postings add up to nothing each, to what stands on the accounts, and nobody is below zero.
    fn check_books(&self) -> Result<(), Violation> {
        let mut computed = self.books.openings().clone();
        for posting in self.books.postings() {
            let sum: i128 = posting.entries.iter().map(|(_, delta)| i128::from(delta.micro())).sum();
            if sum != 0 {
                return Err(Violation::Posting { posting: posting.id, sum });
            }
            for (account, delta) in &posting.entries {
                let stands = computed.entry(*account).or_default();
                *stands = stands.plus(*delta)?;
            }
            let earned = posting
                .entries
                .iter()
                .any(|(account, delta)| matches!(account, Account::Earned(_)) && delta.micro() > 0);
            if earned && !matches!(posting.cause, Cause::Paid { .. }) {
                return Err(Violation::NoVerdict { posting: posting.id });
            }
        }
        computed.retain(|_, stands| *stands != Delta::ZERO);
        let kept: BTreeMap<_, _> = self.books.balances().collect();
        if let Some(account) = kept.keys().chain(computed.keys()).find(|at| kept.get(at) != computed.get(at)) {
            let of = |balances: &BTreeMap<Account, Delta>| balances.get(account).copied().unwrap_or_default();
            return Err(Violation::Balance { account: *account, balance: of(&kept), computed: of(&computed) });
        }
        if let Some((account, balance)) =
            kept.iter().find(|(account, balance)| **account != Account::Mint && balance.credits().is_none())
        {
            return Err(Violation::Negative { account: *account, balance: *balance });
        }
        let sum: i128 = kept.values().map(|balance| i128::from(balance.micro())).sum();
        if sum == 0 { Ok(()) } else { Err(Violation::Sum { sum }) }
    }

    /// Each payment is on the books with its verdict, none is there twice, and none is there that is not kept.
    fn check_payments(&self) -> Result<(), Violation> {
        let mut receipts: BTreeSet<ReceiptId> = BTreeSet::new();
        let mut operators: BTreeSet<(JobId, ShardInfo, OperatorId)> = BTreeSet::new();
        for (payment, paid) in self.payments() {
            let first = operators.insert((payment.job, payment.shard, paid.operator));
            if !receipts.insert(paid.receipt) || !first {
                return Err(Violation::Twice { payment });
            }
            // Older ones are archived.
            let archived = self.books.first().is_none_or(|first| paid.posting < first);
            if !archived && !self.is_on_books(payment, paid) {
                return Err(Violation::Payment { payment, posting: paid.posting });
            }
        }
        for posting in self.books.postings() {
            let Cause::Paid { payment, .. } = posting.cause else { continue };
            let kept = self.payment(payment).map(|paid| paid.posting);
            if self.jobs.get(&payment.job).is_some_and(|job| job.opened <= posting.id) && kept != Some(posting.id) {
                return Err(Violation::Payment { payment, posting: posting.id });
            }
        }
        Ok(())
    }

    fn payments(&self) -> impl Iterator<Item = (PaymentKey, &Payment)> {
        let keyed = |job: JobId, (shard, node): (ShardInfo, NodeId)| PaymentKey { job, shard, node };
        self.jobs.iter().flat_map(move |(id, job)| job.payments.iter().map(move |(key, paid)| (keyed(*id, *key), paid)))
    }

    fn is_on_books(&self, payment: PaymentKey, paid: &Payment) -> bool {
        self.books.posting(paid.posting).is_some_and(|posting| {
            let Cause::Paid { payment: posted, receipt, ground, prices, .. } = posting.cause else { return false };
            (posted, receipt, ground, prices) == (payment, paid.receipt, paid.ground, paid.prices)
                && posting.gain(Account::Earned(paid.operator)) == paid.bill
        })
    }

    /// A job's budget is its payments and holds, within its cap, and its escrow is what is left.
    fn check_budget(&self, id: JobId, job: &Job) -> Result<(), Violation> {
        let of = |role: Role| -> Result<Use, CreditsError> {
            let paid = job.payments.values().filter(|paid| paid.role == role && paid.standing != Standing::Returned);
            let held = job.holds.values().filter(|hold| hold.order.role == role);
            Ok(Use {
                spent: credits::sum(paid.map(|paid| paid.bill))?,
                held: credits::sum(held.map(|hold| hold.worst))?,
            })
        };
        let Budget { cap, audit_reserve, work, audits, .. } = job.budget;
        let escrow = self.books.funds(Account::Escrow(id));
        let for_work = cap.minus(audit_reserve)?;
        let bills = job.payments.values().map(|paid| {
            let bill = job.prices.get(&paid.prices).and_then(|prices| prices.bill(&paid.usage).ok());
            bill.is_some_and(|bill| bill.total == paid.bill)
        });
        let rules = [
            (work == of(Role::Work)? && audits == of(Role::Audit)?, "budget"),
            (work.spent.plus(work.held)? <= for_work, "part of the cap for audits"),
            (job.budget.escrow()? == escrow, "escrow"),
            (work.held.plus(audits.held)? <= escrow, "sum of the holds"),
            (job.closed_ms.is_none() || job.budget.free()?.is_zero(), "refund"),
            (bills.into_iter().all(|holds| holds), "bills"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, what)) => Err(Violation::Budget { job: id, what }),
            None => Ok(()),
        }
    }

    /// Escrow is of jobs, earnings are unsettled payments, and what is unsettled has its date and its owner.
    fn check_unsettled(&self) -> Result<(), Violation> {
        let mut computed: BTreeMap<Account, Credits> = BTreeMap::new();
        let mut due: BTreeSet<(Millis, Due)> = BTreeSet::new();
        let mut unsettled = BTreeSet::new();
        for (key, paid) in self.payments() {
            let Standing::Pending { due_ms } = paid.standing else { continue };
            add(&mut computed, Account::Earned(paid.operator), paid.bill)?;
            unsettled.insert((paid.operator, key.job));
            if self.jobs.get(&key.job).is_some_and(|job| !job.contested.contains(&key.shard)) {
                due.insert((due_ms, Due::Job(key.job)));
            }
        }
        for (asked, unbonding) in &self.unbonding {
            add(&mut computed, Account::Unbonding(unbonding.operator), unbonding.amount)?;
            due.insert((unbonding.due_ms, Due::Unbonding(*asked)));
        }
        for (account, balance) in self.books.balances().map(|(account, stands)| (account, stands.credits())) {
            let balance = balance.unwrap_or_default();
            match account {
                Account::Earned(_) | Account::Unbonding(_) => {
                    let computed = computed.remove(&account).unwrap_or_default();
                    if balance != computed {
                        return Err(Violation::AtRisk { account, balance, computed });
                    }
                }
                Account::Escrow(job) if !self.jobs.contains_key(&job) => {
                    return Err(Violation::Budget { job, what: "escrow" });
                }
                _ => {}
            }
        }
        if let Some((account, computed)) = computed.into_iter().find(|(_, amount)| !amount.is_zero()) {
            return Err(Violation::AtRisk { account, balance: Credits::ZERO, computed });
        }
        let unsettled_of = |operator: &OperatorId| (*operator, self.books.funds(Account::Earned(*operator)));
        let slashed = self.slashed.iter().map(|operator| (*operator, self.at_risk(*operator)));
        let mut at_risk = self.convicted.keys().map(unsettled_of).chain(slashed);
        if let Some((operator, at_risk)) = at_risk.find(|(_, at_risk)| !at_risk.is_zero()) {
            return Err(Violation::Convicted { operator, at_risk });
        }
        let indices = [(due == self.due, "dates"), (unsettled == self.unsettled, "operators' payments")];
        match indices.into_iter().find(|(holds, _)| !holds) {
            Some((_, what)) => Err(Violation::Index { what }),
            None => Ok(()),
        }
    }
}

fn add(amounts: &mut BTreeMap<Account, Credits>, account: Account, amount: Credits) -> Result<(), CreditsError> {
    let sum = amounts.entry(account).or_default();
    *sum = sum.plus(amount)?;
    Ok(())
}
