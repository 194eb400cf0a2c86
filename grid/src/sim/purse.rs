//! Money in a simulation: each task costs one credit, every operator vouches with as many tasks as [`Options`] say, and a
//! requester has enough for all. A dear task takes several times the fuel, so that it costs as many credits; not the time, so that
//! nothing but its worth tells it from others.
//!
//! A lie gains what its execution was paid and not returned; whoever tells it has saved the work. It loses stake that is taken, and
//! payments for honest work that are returned. What is left is the ring's [`Purse::balance`]: all liars together, since they share
//! what they have. Work that nobody pays for, which every new name costs, is counted beside and not among the losses, so that the
//! balance speaks of what is taken from liars alone.

use std::collections::BTreeSet;

use registry::{
    credits::{Credits, MICRO_PER_CREDIT},
    id::{OperatorId, ReceiptId, RequesterId},
    job::Limits,
    price::{FUEL_PER_GIGA, PriceTable},
};
use serde::Serialize;

use super::{Options, check::Broken, world::World};
use crate::{
    dispatch::Event,
    flow::{Millis, Payer},
    ledger::{Account, Cause, Entry, Holder, Invoice, Posting, Standing},
};

/// Whoever pays for all jobs.
const REQUESTER: RequesterId = RequesterId([0x33; 32]);
/// From one settlement to the next, when all jobs have ended.
const STEP_MS: Millis = 1_000;
/// Executions of each task that a job can pay for: a dispute of five and as many again.
const EXECUTIONS_MAX: u64 = 10;
/// Fuel of a task that is not dear.
const TASK_FUEL: u64 = FUEL_PER_GIGA;

/// What liars have in the end, in tasks: a dear one is as many as it costs credits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Purse {
    /// Executions of all hosts that were paid, and not returned.
    pub paid: u64,
    /// Wrong results among them.
    pub lies_paid: u64,
    /// Honest executions of liars whose payment was returned.
    pub returned: u64,
    /// Stake that liars have lost.
    pub slashed: u64,
    /// Of that, what auditors got who are liars too.
    pub rewarded: u64,
    /// Stake that honest operators have lost: none, ever.
    pub honest_slashed: u64,
}

impl Purse {
    /// What lying has brought all liars together, less what it has cost them.
    pub fn balance(&self) -> i64 {
        let [gained, lost] = [self.lies_paid + self.rewarded, self.returned + self.slashed]
            .map(|tasks| i64::try_from(tasks).unwrap_or(i64::MAX));
        gained.saturating_sub(lost)
    }
}

/// Who signed what, and what is on the books that are not at hand any more.
#[derive(Debug, Default)]
pub(super) struct Till {
    /// Receipts that are wrong.
    lies: BTreeSet<ReceiptId>,
    purse: Purse,
}

/// What every host asks, so that a task costs a credit.
pub(super) fn prices(options: &Options) -> PriceTable {
    let giga_fuel_micro = if options.stake_tasks > 0 { MICRO_PER_CREDIT } else { 0 };
    PriceTable { giga_fuel_micro, ..PriceTable::default() }
}

/// How many credits a task costs.
pub(super) fn worth(options: &Options, is_dear: bool) -> u64 {
    if is_dear { options.dear } else { 1 }
}

/// Fuel of a task.
pub(super) fn fuel(options: &Options, is_dear: bool) -> u64 {
    TASK_FUEL * worth(options, is_dear)
}

/// What a job lets its tasks spend: as always, or more where that would not be enough.
pub(super) fn fuel_max(options: &Options) -> u64 {
    Limits::default().fuel_max.max(fuel(options, true))
}

/// Credits for so many tasks, each of which is held for as if it spent all that it may.
fn cap(options: &Options, tasks: u64) -> Credits {
    credits(tasks * EXECUTIONS_MAX * fuel_max(options).div_ceil(Limits::default().fuel_max))
}

fn credits(tasks: u64) -> Credits {
    Credits::from_micro(u128::from(tasks) * u128::from(MICRO_PER_CREDIT)).unwrap_or(Credits::MAX)
}

fn tasks(amount: Credits) -> u64 {
    amount.micro() / MICRO_PER_CREDIT
}

impl World<'_> {
    /// Credits for everything that will be submitted.
    pub(super) fn fund(&mut self) -> Result<(), Broken> {
        if self.options.stake_tasks == 0 {
            return Ok(());
        }
        let amount = cap(self.options, u64::from(self.options.tasks) + u64::from(self.options.job_tasks));
        self.feed(Event::Entered { entry: Entry::Deposit { to: Holder::Requester(REQUESTER), amount } })?;
        (0..self.operators.len()).try_for_each(|operator| self.vouch(operator))
    }

    /// An operator brings its stake.
    pub(super) fn vouch(&mut self, operator: usize) -> Result<(), Broken> {
        let (operator, amount) = (self.operators[operator].id, credits(self.options.stake_tasks));
        if amount.is_zero() {
            return Ok(());
        }
        self.feed(Event::Entered { entry: Entry::Deposit { to: Holder::Operator(operator), amount } })?;
        self.feed(Event::Entered { entry: Entry::Stake { operator, amount } })
    }

    pub(super) fn payer(&self, tasks: u32) -> Option<Payer> {
        let cap = cap(self.options, tasks.into());
        (self.options.stake_tasks > 0).then_some(Payer { requester: REQUESTER, cap })
    }

    pub(super) fn lied(&mut self, receipt: ReceiptId) {
        if self.options.stake_tasks > 0 {
            self.till.lies.insert(receipt);
        }
    }

    /// A job is settled.
    pub(super) fn invoiced(&mut self, invoice: &Invoice) {
        for line in &invoice.lines {
            let (is_lie, is_liar) = (self.till.lies.contains(&line.receipt), self.is_liar(line.operator));
            let (purse, worth) = (&mut self.till.purse, tasks(line.bill.total));
            match line.standing {
                Standing::Settled | Standing::Pending { .. } => {
                    purse.paid += worth;
                    purse.lies_paid += if is_lie && is_liar { worth } else { 0 };
                }
                Standing::Returned => purse.returned += if !is_lie && is_liar { worth } else { 0 },
            }
        }
    }

    /// Postings that are not at hand from now on.
    pub(super) fn posted<'p>(&mut self, postings: impl IntoIterator<Item = &'p Posting>) {
        for posting in postings {
            let Cause::Slashed { auditor, .. } = posting.cause else { continue };
            let fined = posting.entries.iter().filter_map(|(account, delta)| match account {
                Account::Stake(operator) => Some((*operator, tasks((-*delta).credits()?))),
                _ => None,
            });
            for (operator, fine) in fined {
                let is_liar = self.is_liar(operator);
                let purse = &mut self.till.purse;
                *(if is_liar { &mut purse.slashed } else { &mut purse.honest_slashed }) += fine;
            }
            if let Some(auditor) = auditor.filter(|auditor| self.is_liar(*auditor)) {
                self.till.purse.rewarded += tasks(posting.gain(Account::Operator(auditor)));
            }
        }
    }

    fn is_liar(&self, operator: OperatorId) -> bool {
        self.operators.get(self.names.operator(operator) as usize).is_some_and(|operator| operator.lies)
    }

    /// Time passes until everything is settled, and what liars have then is counted.
    pub(super) fn settle(&mut self) -> Result<Purse, Broken> {
        // In steps: what is settled at once is in memory at once.
        while let Some(due) = self.state.ledger().next_due() {
            self.now = self.now.max(due) + STEP_MS;
            self.feed(Event::Tick)?;
        }
        let ledger = self.state.ledger();
        let invoices: Vec<Invoice> = self.state.jobs_known().filter_map(|id| ledger.invoice(id).ok()).collect();
        let postings: Vec<Posting> = ledger.postings().cloned().collect();
        invoices.iter().for_each(|invoice| self.invoiced(invoice));
        self.posted(&postings);
        let purse = self.till.purse;
        if purse.honest_slashed > 0 {
            let detail = format!("{} tasks' worth", purse.honest_slashed);
            return Err(self.broken("no honest operator loses its stake", detail));
        }
        Ok(purse)
    }
}
