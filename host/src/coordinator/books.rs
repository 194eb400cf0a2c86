//! Credits by the coordinator's handle: entries, statements and invoices, from the state and from what has left it for the journal.

use std::ops::Range;

use grid::{
    dispatch::State,
    flow::Millis,
    ledger::{Account, Entry, Invoice, LedgerError, Posting, Statement},
};
use registry::{
    canon,
    credits::{CreditsError, Delta},
    id::JobId,
};
use tokio::sync::oneshot;

use super::{Closed, Command, Coordinator, SubmitError};
use crate::{journal::JournalError, limits};

/// Why there is no statement or invoice.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// Stopping.
    #[error("{0}")]
    Closed(#[from] Closed),
    /// The archive cannot be read.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// The ledger says no.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    /// An entry of the archive makes no sense.
    #[error("archive of the ledger is damaged: {0}; restore the journal from a copy")]
    Damaged(#[from] canon::CanonError),
    /// The postings do not add up.
    #[error("archive of the ledger does not add up: {0}; restore the journal from a copy")]
    Credits(#[from] CreditsError),
}

impl Coordinator {
    /// Enters credits that come or go, or stake; returns once that is on disk.
    ///
    /// # Errors
    /// When the ledger refuses, or nothing can be written.
    pub async fn enter(&self, entry: Entry) -> Result<(), SubmitError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Enter { entry, reply }).await?;
        answer.await.map_err(|_| Closed)?
    }

    /// What happened on an account, from what is at hand and from the archive.
    ///
    /// # Errors
    /// When the coordinator is stopping, or the archive cannot be read.
    pub async fn statement(&self, account: Account, range: Range<Millis>) -> Result<Statement, StatementError> {
        // What is at hand first: what is archived meanwhile is in both, and is left out of the archive below.
        let recent = move |state: &State| {
            let postings = || state.ledger().postings();
            let own = postings().filter(|posting| posting.change(account).is_some()).cloned();
            (postings().next().map_or(u64::MAX, |first| first.id.0), own.collect::<Vec<Posting>>())
        };
        let (upto, recent) = self.ask(recent).await?;
        let (mut postings, mut from) = (Vec::new(), 0);
        while from < upto {
            let page = self.journal.postings(from, limits::POSTINGS_PAGE_MAX).await?;
            let page = page.iter().map(|body| canon::decode(body, limits::POSTING_BYTES_MAX));
            let page = page.collect::<Result<Vec<Posting>, _>>()?;
            let Some(last) = page.last() else { break };
            from = last.id.0 + 1;
            let is_own = |posting: &Posting| posting.id.0 < upto && posting.change(account).is_some();
            postings.extend(page.into_iter().filter(is_own));
        }
        postings.extend(recent);
        Ok(Statement::of(account, Delta::ZERO, &postings, range)?)
    }

    /// What a job cost, once it has ended.
    ///
    /// # Errors
    /// When the ledger does not know the job, or it has not ended; when the archive cannot be read.
    pub async fn invoice(&self, job: JobId) -> Result<Invoice, StatementError> {
        match self.ask(move |state| state.ledger().invoice(job)).await? {
            Err(LedgerError::JobUnknown { .. }) => {}
            known => return Ok(known?),
        }
        match self.journal.invoice(job).await? {
            Some(body) => Ok(canon::decode(&body, limits::INVOICE_BYTES_MAX)?),
            None => Err(LedgerError::JobUnknown { job }.into()),
        }
    }
}
