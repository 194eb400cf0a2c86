//! What a grid's owner enters by hand: credits that come and go, and stake.

use registry::{
    credits::{Credits, Delta},
    id::OperatorId,
};
use serde::{Deserialize, Serialize};

use super::{
    Holder, Ledger,
    account::{Account, PostingId},
    error::LedgerError,
};
use crate::flow::{Millis, Payer};

/// One of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Entry {
    /// Credits come into the grid.
    Deposit {
        /// Whose they are.
        to: Holder,
        /// How many.
        amount: Credits,
    },
    /// Credits leave it.
    Withdraw {
        /// Whose they were.
        from: Holder,
        /// How many.
        amount: Credits,
    },
    /// An operator vouches with more of its own.
    Stake {
        /// Who.
        operator: OperatorId,
        /// How many.
        amount: Credits,
    },
    /// An operator wants stake back.
    Unbond {
        /// Who.
        operator: OperatorId,
        /// How many.
        amount: Credits,
    },
}

impl Entry {
    /// What it takes from which account.
    fn takes(&self) -> (Account, Credits) {
        match *self {
            Self::Deposit { amount, .. } => (Account::Mint, amount),
            Self::Withdraw { from, amount } => (from.into(), amount),
            Self::Stake { operator, amount } => (Account::Operator(operator), amount),
            Self::Unbond { operator, amount } => (Account::Stake(operator), amount),
        }
    }

    const fn word(&self) -> &'static str {
        match self {
            Self::Deposit { .. } => "deposited",
            Self::Withdraw { .. } => "withdrawn",
            Self::Stake { .. } => "staked",
            Self::Unbond { .. } => "unbonded",
        }
    }
}

impl Ledger {
    /// Whether the entry would be made, for who has to answer before it is journalled.
    ///
    /// # Errors
    /// Why [`Ledger::enter`] would refuse.
    pub fn admits(&self, entry: &Entry) -> Result<(), LedgerError> {
        let (account, amount) = entry.takes();
        if amount.is_zero() {
            return Err(LedgerError::Nothing { what: entry.word() });
        }
        if let Entry::Stake { operator, .. } = *entry
            && let Some(convicted) = self.convicted(operator)
        {
            return Err(LedgerError::Convicted { operator, convicted });
        }
        self.has(account, amount)
    }

    /// Whether there is enough for a job's cap.
    ///
    /// # Errors
    /// When its requester has less.
    pub fn admits_job(&self, payer: &Payer) -> Result<(), LedgerError> {
        self.has(Account::Requester(payer.requester), payer.cap)
    }

    fn has(&self, account: Account, amount: Credits) -> Result<(), LedgerError> {
        // The mint gives, as long as what it gave is within the bound of all credits.
        let left = self.balance(account).plus(-Delta::from(amount))?;
        let has = self.balance(account).credits().unwrap_or_default();
        if account != Account::Mint && left.credits().is_none() {
            return Err(LedgerError::Funds { account, has, short: -left });
        }
        Ok(())
    }

    /// Makes the entry.
    ///
    /// # Errors
    /// When there is too little, nothing is moved, or the operator was slashed.
    pub fn enter(&mut self, entry: &Entry, now: Millis) -> Result<PostingId, LedgerError> {
        match *entry {
            Entry::Deposit { to, amount } => self.deposit(to, amount, now),
            Entry::Withdraw { from, amount } => self.withdraw(from, amount, now),
            Entry::Stake { operator, amount } => self.stake(operator, amount, now),
            Entry::Unbond { operator, amount } => self.unbond(operator, amount, now),
        }
    }
}
