//! What happened on one account, and what stands on all of them.

use std::ops::Range;

use registry::{
    credits::{CreditsError, Delta},
    id::{JobId, ReceiptId},
};
use serde::{Deserialize, Serialize};

use super::{
    Ledger,
    account::{Account, Cause, Posting, PostingId},
    error::LedgerError,
    table::{Cell, Table},
};
use crate::flow::Millis;

/// One change of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatementLine {
    /// The posting.
    pub posting: PostingId,
    /// When.
    pub at_ms: Millis,
    /// Why.
    pub cause: Cause,
    /// By how much.
    pub change: Delta,
    /// What then stood on it.
    pub balance: Delta,
}

/// An account over a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Which one.
    pub account: Account,
    /// What stood on it before.
    pub opening: Delta,
    /// What changed it, oldest first.
    pub lines: Vec<StatementLine>,
    /// What stood on it after.
    pub closing: Delta,
}

impl Statement {
    /// An account from `range.start` to before `range.end`, by postings in their order and what stood on it before the first
    /// of them: for who keeps archived ones.
    ///
    /// # Errors
    /// When the postings do not add up within the bounds of credits, which those of a ledger do.
    pub fn of<'a>(
        account: Account,
        opening: Delta,
        postings: impl IntoIterator<Item = &'a Posting>,
        range: Range<Millis>,
    ) -> Result<Self, CreditsError> {
        let mut statement = Self { account, opening, lines: Vec::new(), closing: opening };
        for posting in postings.into_iter().filter(|posting| posting.at_ms < range.end) {
            let Some(change) = posting.change(account) else { continue };
            let balance = statement.closing.plus(change)?;
            statement.closing = balance;
            if posting.at_ms < range.start {
                statement.opening = balance;
                continue;
            }
            let Posting { id, at_ms, cause, .. } = *posting;
            statement.lines.push(StatementLine { posting: id, at_ms, cause, change, balance });
        }
        Ok(statement)
    }

    /// A row a change.
    pub fn table(&self) -> Table {
        let columns =
            vec!["posting", "at_ms", "cause", "job", "stage", "shard", "receipt", "change_micro", "balance_micro"];
        let row = |line: &StatementLine| {
            let StatementLine { posting, at_ms, cause, change, balance } = line;
            let shard = cause.shard();
            vec![
                posting.0.into(),
                (*at_ms).into(),
                cause.word().into(),
                cause.job().map(text::<JobId>).into(),
                shard.map(|shard| shard.stage.word()).into(),
                shard.map(|shard| u64::from(shard.index)).into(),
                cause.receipt().map(text::<ReceiptId>).into(),
                (*change).into(),
                (*balance).into(),
            ]
        };
        Table { columns, rows: self.lines.iter().map(row).collect() }
    }
}

fn text<T: ToString>(id: T) -> String {
    id.to_string()
}

impl Ledger {
    /// What happened on an account from `range.start` to before `range.end`.
    ///
    /// # Errors
    /// When some of that is archived.
    pub fn statement(&self, account: Account, range: Range<Millis>) -> Result<Statement, LedgerError> {
        if let Some(from_ms) = self.books.archived_until()
            && range.start <= from_ms
        {
            return Err(LedgerError::Archived { from_ms: from_ms.saturating_add(1) });
        }
        Ok(Statement::of(account, self.books.opening(account), self.books.postings(), range)?)
    }

    /// A row for each account with something on it.
    pub fn table(&self) -> Table {
        let row = |(account, balance): (Account, Delta)| -> Vec<Cell> {
            vec![account.word().into(), account.to_string().into(), balance.into()]
        };
        Table { columns: vec!["kind", "account", "balance_micro"], rows: self.accounts().map(row).collect() }
    }
}
