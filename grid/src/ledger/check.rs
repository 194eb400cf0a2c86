//! Every invariant, derived again from postings, payments and holds alone.

use std::collections::{BTreeMap, BTreeSet};

use registry::{
    credits::{Credits, CreditsError, Delta},
    id::{JobId, OperatorId, ReceiptId},
};

use super::{
    Due, Ledger,
    account::{Account, Cause, PaymentKey, PostingId},
    budget::{Budget, Role, Use},
    escrow::Job,
    paid::Paid,
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
        self.check_once()?;
        self.check_kept()?;
        let mut pending = 0;
        for (id, job) in &self.jobs {
            let derived = self.derive(*id, job)?;
            self.check_budget(*id, job, &derived)?;
            pending += derived.pending;
        }
        self.check_unsettled(pending)
    }

    /// [`Ledger::check`], each time while there is little, and then so rarely that it costs the same for each change.
    pub(super) fn check_if_due(&self) -> Result<(), Violation> {
        let payments: usize = self.jobs.values().map(|job| job.payments.len() + job.holds.len()).sum();
        let size = u64::try_from(self.books.len() + payments).unwrap_or(u64::MAX);
        if self.changes.is_multiple_of(1 + size / CHECKED_MAX) { self.check() } else { Ok(()) }
    }

    /// Postings add up to nothing each, to what stands on the accounts, and nobody is below zero.
    fn check_books(&self) -> Result<(), Violation> {
        let mut computed = self.books.openings().collect::<BTreeMap<_, _>>();
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

    /// No receipt is paid twice, and no operator for one shard.
    fn check_once(&self) -> Result<(), Violation> {
        // Receipts that differ nearly always do so in their first eight bytes: there are too many to sort more of them.
        let head = |receipt: ReceiptId| receipt.0.first_chunk().map_or(0, |head| u64::from_be_bytes(*head));
        let mut heads: Vec<u64> = self.payments().map(|(_, paid)| head(paid.receipt)).collect();
        heads.sort_unstable();
        if heads.windows(2).any(|pair| pair[0] == pair[1]) {
            let mut receipts = BTreeSet::new();
            if let Some((payment, _)) = self.payments().find(|(_, paid)| !receipts.insert(paid.receipt)) {
                return Err(Violation::Twice { payment });
            }
        }
        self.jobs.iter().try_for_each(|(id, job)| job.check_shards(*id))
    }

    /// Each payment that is on the books is kept.
    fn check_kept(&self) -> Result<(), Violation> {
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
        self.jobs.iter().flat_map(|(id, job)| job.payments.iter().map(|(_, paid)| (paid.key(*id), &paid.payment)))
    }

    /// What a job's payments and holds say. Each payment is on the books with its verdict, unless those are archived.
    fn derive(&self, id: JobId, job: &Job) -> Result<Derived, Violation> {
        let first = self.books.first();
        let mut derived = Derived { are_billed: true, ..Derived::default() };
        for (_, paid) in job.payments.iter() {
            let Payment { posting, prices, usage, bill, role, standing, .. } = &paid.payment;
            let archived = first.is_none_or(|first| *posting < first);
            if !archived && !self.is_on_books(paid.key(id), &paid.payment) {
                return Err(Violation::Payment { payment: paid.key(id), posting: *posting });
            }
            let computed = job.prices.get(prices).and_then(|prices| prices.bill(usage).ok());
            derived.are_billed &= computed.is_some_and(|computed| computed.total == *bill);
            if *standing != Standing::Returned {
                let used = derived.used(*role);
                used.spent = used.spent.plus(*bill)?;
            }
            if let Some(due_ms) = standing.due_ms() {
                derived.pending += 1;
                if !job.contested.contains(&paid.shard) {
                    *derived.dates.entry(due_ms).or_default() += 1;
                }
            }
        }
        for hold in job.holds.values() {
            let used = derived.used(hold.order.role);
            used.held = used.held.plus(hold.worst)?;
        }
        Ok(derived)
    }

    fn is_on_books(&self, payment: PaymentKey, paid: &Payment) -> bool {
        self.books.posting(paid.posting).is_some_and(|posting| {
            let Cause::Paid { payment: posted, receipt, ground, prices, .. } = posting.cause else { return false };
            (posted, receipt, ground, prices) == (payment, paid.receipt, paid.ground, paid.prices)
                && posting.gain(Account::Earned(paid.operator)) == paid.bill
        })
    }

    /// A job's budget is its payments and holds, within its cap, its escrow is what is left, and its dates are its
    /// payments'.
    fn check_budget(&self, id: JobId, job: &Job, derived: &Derived) -> Result<(), Violation> {
        let Budget { cap, audit_reserve, work, audits, .. } = job.budget;
        let escrow = self.books.funds(Account::Escrow(id));
        let for_work = cap.minus(audit_reserve)?;
        let rules = [
            (work == derived.work && audits == derived.audits, "budget"),
            (work.spent.plus(work.held)? <= for_work, "part of the cap for audits"),
            (job.budget.escrow()? == escrow, "escrow"),
            (work.held.plus(audits.held)? <= escrow, "sum of the holds"),
            (job.closed_ms.is_none() || job.budget.free()?.is_zero(), "refund"),
            (derived.are_billed, "bills"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, what)) => Err(Violation::Budget { job: id, what }),
            None if derived.dates != job.dates => Err(Violation::Index { what: "dates" }),
            None => Ok(()),
        }
    }

    /// Escrow is of jobs, earnings are unsettled payments, and what is unsettled has its date and its owner.
    fn check_unsettled(&self, pending: usize) -> Result<(), Violation> {
        self.check_dates()?;
        let mut computed = self.earned(pending)?;
        for unbonding in self.unbonding.values() {
            add(&mut computed, Account::Unbonding(unbonding.operator), unbonding.amount)?;
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
        match at_risk.find(|(_, at_risk)| !at_risk.is_zero()) {
            Some((operator, at_risk)) => Err(Violation::Convicted { operator, at_risk }),
            None => Ok(()),
        }
    }

    /// What is unsettled has its date, and every job is found by the posting that opened it.
    fn check_dates(&self) -> Result<(), Violation> {
        let payments = self.jobs.iter().flat_map(|(id, job)| job.dates.keys().map(|due_ms| (*due_ms, Due::Job(*id))));
        let stakes = self.unbonding.iter().map(|(asked, unbonding)| (unbonding.due_ms, Due::Unbonding(*asked)));
        let due: BTreeSet<(Millis, Due)> = payments.chain(stakes).collect();
        let opened = self.jobs.iter().map(|(id, job)| (job.opened, *id)).collect();
        match [(due == self.due, "dates"), (self.opened == opened, "openings")].into_iter().find(|(holds, _)| !holds) {
            Some((_, what)) => Err(Violation::Index { what }),
            None => Ok(()),
        }
    }

    /// What operators have earned and is not settled, once it is clear that those payments are just the ones that are known
    /// as theirs: each of these is pending, and there are as many.
    fn earned(&self, pending: usize) -> Result<BTreeMap<Account, Credits>, Violation> {
        let (mut earned, mut known) = (BTreeMap::new(), 0);
        for (operator, own) in &self.unsettled {
            let mut sum = Credits::ZERO;
            for (opened, place) in own {
                let job = self.opened.get(opened).and_then(|id| self.jobs.get(id));
                let paid = job.and_then(|job| job.payments.at(*place)).map(|paid| &paid.payment);
                let Some(paid) = paid.filter(|paid| paid.operator == *operator && paid.standing.is_pending()) else {
                    return Err(Violation::Index { what: "operators' payments" });
                };
                sum = sum.plus(paid.bill)?;
            }
            known += own.len();
            earned.insert(Account::Earned(*operator), sum);
        }
        if pending == known { Ok(earned) } else { Err(Violation::Index { what: "operators' payments" }) }
    }
}

/// What follows from a job's payments and holds.
#[derive(Debug, Default)]
struct Derived {
    work: Use,
    audits: Use,
    /// Whether each bill follows from what was used.
    are_billed: bool,
    /// Payments that can still be lost.
    pending: usize,
    dates: BTreeMap<Millis, u32>,
}

impl Derived {
    fn used(&mut self, role: Role) -> &mut Use {
        match role {
            Role::Work => &mut self.work,
            Role::Audit => &mut self.audits,
        }
    }
}

impl Job {
    /// Each payment is found by its shard, for which its operator has no other.
    fn check_shards(&self, id: JobId) -> Result<(), Violation> {
        // Payments lie together by shard, each of which has few.
        let mut earlier: Vec<&Paid> = Vec::new();
        let mut found = 0;
        for (shard, paid) in self.payments.by_shard() {
            let Some(paid) = paid.filter(|paid| paid.shard == shard) else {
                return Err(Violation::Index { what: "shards' payments" });
            };
            earlier.retain(|other| other.shard == shard);
            if earlier.iter().any(|other| other.payment.operator == paid.payment.operator) {
                return Err(Violation::Twice { payment: paid.key(id) });
            }
            earlier.push(paid);
            found += 1;
        }
        if found == self.payments.len() { Ok(()) } else { Err(Violation::Index { what: "shards' payments" }) }
    }
}

fn add(amounts: &mut BTreeMap<Account, Credits>, account: Account, amount: Credits) -> Result<(), CreditsError> {
    let sum = amounts.entry(account).or_default();
    *sum = sum.plus(amount)?;
    Ok(())
}
