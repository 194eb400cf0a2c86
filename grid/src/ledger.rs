//! The ledger: who has which credits, and why. Double entry, whole micro-credits, every posting with its cause.
//!
//! Credits lie on [`Account`]s and move in [`Posting`]s, whose entries add up to nothing; so do all accounts together, and
//! none but the mint is ever below zero. Nothing is changed or taken back: a return is a posting of its own. The way of a
//! requester's credits:
//!
//! ```text
//! mint ─deposit► requester ─open► escrow ─pay► earned ─settle► operator ─stake► stake ─unbond► unbonding ─settle► operator
//!                    ▲───────close───┘           │                               │               │
//!                    └─────── slash: returned ───┴── slash: split ── requester, auditor, burn ◄──┴
//! ```
//!
//! - **A hard cap.** Accepting a job puts its whole cap into escrow ([`Ledger::open`]). Before an execution is ordered, the
//!   most that it can cost within the task's limits, at the host's own prices, is set aside ([`Ledger::hold`]); what the
//!   cap leaves no room for is not ordered. So no job costs more than its cap, and no host works for what is not there.
//! - **Verdicts are paid, receipts are not.** [`Ledger::pay`] takes a [`Payable`], and there is none without a
//!   [`Verdict`](crate::flow::Verdict): the accepted commitment's executions, or all of them where nothing reproduces, for
//!   which nobody is to blame. A receipt that the verdict contradicts makes none, nor does a fault.
//! - **Once.** A payment is known by (job, shard, node). The second for the same is refused by name and changes nothing,
//!   whichever coordinator asks, and so is one to another node of an operator that has had its payment for the shard. A
//!   payment also uses up its hold, of which each assignment has one: a job that was forgotten and is run again cannot be
//!   billed with its old receipts.
//! - **Settlement.** A payment lies in the operator's earned account until the audit window is over, longer where its shard
//!   is contested. Those of a job that are due at about the same time are one posting: there are as many payments as
//!   executions. Stake that is withdrawn lies unbonding for at least as long. Both, with the stake, are what the operator
//!   can lose ([`Ledger::at_risk`]). What of that it loses even if it lied alone ([`Ledger::unsettled`]) counts in the audit rate.
//! - **Expulsion** follows a [`Conviction`]: a record in class `exact` whose signatures were checked. Unsettled payments go
//!   back whole to those who paid them, since nobody pays for the work of a liar, and the operator is paid no more. It keeps its
//!   stake: one wrong result of one operator may be broken hardware, and a fault is not fraud.
//! - **Slashing** takes that stake too, once and for good: hardware does not break twice in one way, so who signed the same
//!   wrong result as another operator meant to. The stake is split between the requester who was lied to, the auditor, and
//!   nobody: what is burned keeps an operator from convicting itself through a friend at no loss. The burned part takes what
//!   rounding leaves.
//! - **Audits are paid out of the job's own budget**, as any execution: hosts do not know that they audit, so they must be
//!   paid alike. A part of the cap is set aside for audits and disputes alone ([`Terms::audit_reserve`]), so that a job's
//!   last credits do not go to work that nobody can check any more; the quote says how much that takes ([`quote`]).
//! - **Qualification is paid by nobody.** A newcomer's first tasks repeat settled ones, decide nothing and are no part of
//!   any job's budget: they are ordered without a hold, and without a hold there is no payment. They are what a new identity
//!   costs.
//! - **Anyone can compute a bill again**: an [`Invoice`] has the price tables, what each receipt says was used, and the
//!   receipts' ids; `registry::price` does the rest.
//!
//! Every method leaves the ledger as it was when it refuses. [`Ledger::check`] derives every invariant again from postings
//! and payments alone; debug builds do so as they go. The ledger is part of the coordinator's state and has its journal: a
//! crash loses what the journal has not, and no more. What it keeps is bounded by [`Ledger::forget`] for jobs and by
//! [`Ledger::archive`] for postings.
//!
//! - `account`: accounts and postings. `balances`: what stands on them. `books`: the one place where that changes.
//! - `entry`: what an owner enters by hand.
//! - `escrow`: a job's holds and refunds, out of its `budget`. `payment`: from a verdict to an operator. `paid`: where payments lie. `stake`: deposit, withdrawal, loss.
//! - `quote`: what a job will cost. `statement`, `invoice`: what happened, for people, by `table` as CSV and JSON.
//! - `check`: the invariants.

mod account;
mod balances;
mod books;
mod budget;
mod check;
mod entry;
mod error;
mod escrow;
mod invoice;
mod paid;
mod payment;
#[cfg(test)]
mod properties;
mod quote;
mod stake;
mod statement;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use registry::{
    credits::{Credits, Delta, PPM},
    id::{JobId, OperatorId, ReceiptId, RequesterId},
};
use serde::{Deserialize, Serialize};

pub use self::{
    account::{Account, Cause, ParseAccountError, PaymentKey, Posting, PostingId},
    budget::{Budget, Role, Use},
    check::Violation,
    entry::Entry,
    error::{LedgerError, RulesError},
    escrow::{Order, Terms},
    invoice::{Invoice, InvoiceError, InvoiceLine},
    payment::{Ground, NotPayable, Payable, Payment, Standing},
    quote::{Ask, Quote, QuoteError, audit_reserve, quote},
    stake::{Conviction, ConvictionError, Slashed},
    statement::{Statement, StatementLine},
    table::{Cell, Table},
};
use self::{books::Books, escrow::Job, paid::Unsettled, stake::Unbonding};
use crate::flow::Millis;

/// Payments of a job are settled together, so many times in an audit window.
const SETTLEMENTS_PER_WINDOW: u64 = 24;

/// Parameters of one grid's ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// How long a payment is unsettled.
    pub audit_window_ms: u64,
    /// How long stake that is withdrawn can still be lost: the audit window and the longest dispute, at least.
    pub unbonding_ms: u64,
    /// Millionths of a slashed stake that the requester gets.
    pub slash_requester_ppm: u32,
    /// Millionths of a slashed stake that the auditor gets. What is left of it is burned.
    pub slash_auditor_ppm: u32,
}

impl Default for Rules {
    fn default() -> Self {
        let hour_ms = 3_600_000;
        Self {
            audit_window_ms: 24 * hour_ms,
            unbonding_ms: 7 * 24 * hour_ms,
            slash_requester_ppm: 300_000,
            slash_auditor_ppm: 100_000,
        }
    }
}

impl Rules {
    /// When what is paid now is settled: at the end of the audit window, or a little later with others.
    fn due_ms(&self, now: Millis) -> Millis {
        let grain = (self.audit_window_ms / SETTLEMENTS_PER_WINDOW).max(1);
        now.saturating_add(self.audit_window_ms).checked_next_multiple_of(grain).unwrap_or(Millis::MAX)
    }

    /// Whether they fit together.
    ///
    /// # Errors
    /// Names the rule that is broken.
    pub fn check(&self) -> Result<(), RulesError> {
        let Self { audit_window_ms, unbonding_ms, slash_requester_ppm, slash_auditor_ppm } = *self;
        if unbonding_ms < audit_window_ms {
            return Err(RulesError::Unbonding { unbonding_ms, audit_window_ms });
        }
        let shares_ppm = u64::from(slash_requester_ppm) + u64::from(slash_auditor_ppm);
        if shares_ppm > u64::from(PPM) { Err(RulesError::Shares { shares_ppm }) } else { Ok(()) }
    }
}

/// Who may bring credits into the grid and take them out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// Whoever pays for jobs.
    Requester(RequesterId),
    /// Whoever answers for hosts.
    Operator(OperatorId),
}

impl From<Holder> for Account {
    fn from(holder: Holder) -> Self {
        match holder {
            Holder::Requester(requester) => Self::Requester(requester),
            Holder::Operator(operator) => Self::Operator(operator),
        }
    }
}

/// What has a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Due {
    /// Payments of a job are settled.
    Job(JobId),
    /// Stake is free.
    Unbonding(PostingId),
}

/// All credits of one grid.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    rules: Rules,
    books: Books,
    jobs: BTreeMap<JobId, Job>,
    /// What [`Ledger::settle`] does, and when.
    due: BTreeSet<(Millis, Due)>,
    /// Jobs by the postings that opened them, which are shorter names.
    opened: BTreeMap<PostingId, JobId>,
    unsettled: Unsettled,
    /// Stake that is being withdrawn, by the posting that asked.
    unbonding: BTreeMap<PostingId, Unbonding>,
    /// Operators that are paid no more, by the receipt that each was convicted of.
    convicted: BTreeMap<OperatorId, ReceiptId>,
    /// Those of them that have lost their stake.
    slashed: BTreeSet<OperatorId>,
    /// Changes so far: says when a debug build checks everything again.
    changes: u64,
}

impl Ledger {
    /// A ledger without credits.
    ///
    /// # Errors
    /// When the rules do not fit together.
    pub fn new(rules: Rules) -> Result<Self, RulesError> {
        let mut ledger = Self::default();
        ledger.configure(rules)?;
        Ok(ledger)
    }

    /// The rules are others from now on. What has a date keeps it.
    ///
    /// # Errors
    /// When they do not fit together; this changes nothing.
    pub fn configure(&mut self, rules: Rules) -> Result<(), RulesError> {
        rules.check()?;
        self.rules = rules;
        Ok(())
    }

    /// Credits come into the grid.
    ///
    /// # Errors
    /// When nothing is deposited, or all that the grid has would be over the bound of [`Credits`].
    pub fn deposit(&mut self, to: Holder, amount: Credits, now: Millis) -> Result<PostingId, LedgerError> {
        self.transfer(Cause::Deposited, Account::Mint, to.into(), amount, now)
    }

    /// Credits leave the grid.
    ///
    /// # Errors
    /// When nothing is withdrawn, or more than there is.
    pub fn withdraw(&mut self, from: Holder, amount: Credits, now: Millis) -> Result<PostingId, LedgerError> {
        self.transfer(Cause::Withdrawn, from.into(), Account::Mint, amount, now)
    }

    /// What stands on an account.
    pub fn balance(&self, account: Account) -> Delta {
        self.books.balance(account)
    }

    /// Every account with something on it.
    pub fn accounts(&self) -> impl Iterator<Item = (Account, Delta)> {
        self.books.balances()
    }

    /// Postings that are not archived, oldest first.
    pub fn postings(&self) -> impl Iterator<Item = &Posting> {
        self.books.postings()
    }

    /// When there is something to do for [`Ledger::settle`].
    pub fn next_due(&self) -> Option<Millis> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Jobs of which something is settled by then.
    pub fn jobs_due(&self, now: Millis) -> BTreeSet<JobId> {
        let due = self.due.iter().take_while(|(at, _)| *at <= now);
        due.filter_map(|(_, due)| if let Due::Job(job) = due { Some(*job) } else { None }).collect()
    }

    /// How many postings are not archived.
    pub fn postings_len(&self) -> usize {
        self.books.len()
    }

    /// The receipt that an operator was convicted of, if it was.
    pub fn convicted(&self, operator: OperatorId) -> Option<ReceiptId> {
        self.convicted.get(&operator).copied()
    }

    /// Whether an operator has lost its stake.
    pub fn is_slashed(&self, operator: OperatorId) -> bool {
        self.slashed.contains(&operator)
    }

    /// Takes the postings before `upto` off the books, oldest first, for whoever keeps them. What they add up to stays.
    pub fn archive(&mut self, upto: PostingId) -> Vec<Posting> {
        let archived = self.books.archive(upto);
        self.changed();
        archived
    }

    /// Credits that are somebody's to give go from one account to another.
    fn transfer(
        &mut self,
        cause: Cause,
        from: Account,
        to: Account,
        amount: Credits,
        now: Millis,
    ) -> Result<PostingId, LedgerError> {
        if amount.is_zero() {
            return Err(LedgerError::Nothing { what: cause.word() });
        }
        let posting = self.books.commit(vec![books::Draft::transfer(cause, from, to, amount)?], now)?;
        self.changed();
        Ok(posting)
    }

    /// Debug builds check everything after a change: each time while the ledger is short, and then so often that it costs
    /// the same for each change however long it gets.
    fn changed(&mut self) {
        self.changes = self.changes.wrapping_add(1);
        debug_assert_eq!(self.check_if_due(), Ok(()), "an invariant of the ledger is broken");
    }
}
