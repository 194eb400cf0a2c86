//! Histories of operators by the coordinator's handle: who has which standing, and the signed file of how it came to it.

use bytes::Bytes;
use futures::{Stream, stream};
use grid::dispatch::{OperatorView, State};
use registry::{
    canon,
    id::{NodeId, OperatorId},
    log::{
        chain::Chain,
        file::{HISTORY_ENTRIES_MAX, HISTORY_ITEM_BYTES_MAX},
        history::{Entry, HistoryHead, beginning, push},
    },
    reputation::Change,
};

use super::{Changed, Closed, Coordinator};
use crate::{clock, journal::JournalError, limits};

/// Why there is no history.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Stopping.
    #[error("{0}")]
    Closed(#[from] Closed),
    /// The histories cannot be read.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// Nothing is known of the operator.
    #[error("operator {operator} is not known here: no host of it ever joined, and nobody vouches for it")]
    Unknown {
        /// Who.
        operator: OperatorId,
    },
    /// An entry makes no sense, or is missing.
    #[error("history of operator {operator} is damaged at entry {entry}; restore the journal from a copy")]
    Damaged {
        /// Whose.
        operator: OperatorId,
        /// Entries before it.
        entry: u64,
    },
    /// Longer than anybody reads.
    #[error("history of {entries} entries is over the bound of {HISTORY_ENTRIES_MAX} entries")]
    TooLong {
        /// Entries.
        entries: u64,
    },
}

/// An operator and where its history ends.
#[derive(Debug, Clone)]
pub struct KnownOperator {
    /// The operator at a glance.
    pub view: OperatorView,
    /// Entries of its history, and the link of the last.
    pub history: Chain,
}

/// A history on its way out.
pub struct HistoryFile {
    coordinator: Coordinator,
    head: HistoryHead,
    chain: Chain,
    has_begun: bool,
}

impl Coordinator {
    /// Operators of whom something is known, in their order, `max` at most, with where their histories end.
    ///
    /// # Errors
    /// When the coordinator is stopping, or its journal cannot be read.
    pub async fn operators(&self, max: usize) -> Result<Vec<KnownOperator>, HistoryError> {
        let now = clock::now_ms();
        let mut views = self.ask(move |state| state.operator_views(now)).await?;
        views.truncate(max);
        let tips = self.journal.history_tips(views.iter().map(|view| view.operator).collect()).await?;
        Ok(views.into_iter().zip(tips).map(|(view, history)| KnownOperator { view, history }).collect())
    }

    /// The file of an operator's history, as far as it goes now, signed by this coordinator.
    ///
    /// # Errors
    /// When nothing is known of the operator, the coordinator is stopping, or its journal cannot be read.
    pub async fn history(&self, operator: OperatorId) -> Result<HistoryFile, HistoryError> {
        let at_ms = clock::now_ms();
        let ask = move |state: &State| (state.operator_view(operator, at_ms), state.config().audit.rules());
        let (view, rules) = self.ask(ask).await?;
        let tips = self.journal.history_tips(vec![operator]).await?;
        let Chain { entries, last } = tips.into_iter().next().unwrap_or_default();
        if entries == 0 && view.machines == 0 {
            return Err(HistoryError::Unknown { operator });
        }
        if entries > HISTORY_ENTRIES_MAX {
            return Err(HistoryError::TooLong { entries });
        }
        let coordinator = NodeId(self.key.public());
        let head = HistoryHead { coordinator, operator, entries, link: last, at_ms, rules, available: view.available };
        Ok(HistoryFile { coordinator: self.clone(), head, chain: Chain::default(), has_begun: false })
    }
}

impl HistoryFile {
    /// The file in pieces. One that cannot be read on ends with an error, and what came of it is no history.
    pub fn chunks(self) -> impl Stream<Item = Result<Bytes, HistoryError>> + Send + 'static {
        stream::try_unfold(self, |mut file| async move { Ok(file.next().await?.map(|chunk| (chunk, file))) })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, HistoryError> {
        if !std::mem::replace(&mut self.has_begun, true) {
            return Ok(Some(beginning(&self.head, &self.coordinator.key).into()));
        }
        let HistoryHead { operator, entries, .. } = self.head;
        let left = entries.saturating_sub(self.chain.entries);
        if left == 0 {
            return Ok(None);
        }
        // What has come since the head was signed stays out.
        let max = usize::try_from(left).unwrap_or(usize::MAX).min(limits::HISTORY_PAGE_MAX);
        let page = self.coordinator.journal.history(operator, self.chain.entries, max).await?;
        let damaged = |entry| HistoryError::Damaged { operator, entry };
        if page.is_empty() {
            return Err(damaged(self.chain.entries));
        }
        let mut chunk = Vec::new();
        for Changed { link, change } in page {
            let Chain { entries: seq, last: prev } = self.chain;
            let change: Change = canon::decode(&change, HISTORY_ITEM_BYTES_MAX).map_err(|_| damaged(seq))?;
            push(&mut chunk, &Entry { seq, prev, change });
            self.chain.push(link);
        }
        Ok(Some(chunk.into()))
    }
}
