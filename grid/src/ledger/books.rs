//! What stands on the accounts. [`Books::commit`] is the one place where that changes: several postings or none.

use std::collections::{BTreeMap, VecDeque};

use registry::{
    credits::{Credits, CreditsError, Delta},
    id::OperatorId,
};
use serde::{Deserialize, Serialize};

use super::{
    account::{Account, Cause, Posting, PostingId},
    balances::Balances,
    error::LedgerError,
};
use crate::flow::Millis;

/// A posting to be. It is made of transfers alone, so that it adds up to nothing.
#[derive(Debug)]
pub(super) struct Draft {
    cause: Cause,
    entries: Vec<(Account, Delta)>,
}

impl Draft {
    pub(super) fn new(cause: Cause) -> Self {
        Self { cause, entries: Vec::new() }
    }

    pub(super) fn transfer(cause: Cause, from: Account, to: Account, amount: Credits) -> Result<Self, CreditsError> {
        Self::new(cause).moved(from, to, amount)
    }

    /// Transfers between accounts of which none is named twice, so that none has to be looked for; none of nothing.
    pub(super) fn apart(cause: Cause, transfers: impl IntoIterator<Item = (Account, Account, Credits)>) -> Self {
        let moved = transfers.into_iter().filter(|(.., amount)| !amount.is_zero());
        let entries = moved.flat_map(|(from, to, amount)| [(from, -Delta::from(amount)), (to, amount.into())]);
        Self { cause, entries: entries.collect() }
    }

    /// One more transfer under the same cause; none of nothing.
    pub(super) fn and(self, from: Account, to: Account, amount: Credits) -> Result<Self, CreditsError> {
        if amount.is_zero() { Ok(self) } else { self.moved(from, to, amount) }
    }

    fn moved(mut self, from: Account, to: Account, amount: Credits) -> Result<Self, CreditsError> {
        for (account, delta) in [(from, -Delta::from(amount)), (to, amount.into())] {
            match self.entries.iter_mut().find(|(other, _)| *other == account) {
                Some((_, entry)) => *entry = entry.plus(delta)?,
                None => self.entries.push((account, delta)),
            }
        }
        Ok(self)
    }
}

/// Accounts and the postings that made them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Books {
    balances: Balances,
    /// What the archived postings add up to.
    opening: Balances,
    /// Those that are not archived, without a gap.
    postings: VecDeque<Posting>,
    /// When the last of the archived ones was made.
    archived_ms: Option<Millis>,
    next: PostingId,
    last_ms: Millis,
}

impl Books {
    pub(super) fn balance(&self, account: Account) -> Delta {
        self.balances.get(account)
    }

    /// What an operator can lose, part by part.
    pub(super) fn at_risk(&self, operator: OperatorId) -> [Credits; 3] {
        self.balances.at_risk(operator).map(|part| part.credits().unwrap_or_default())
    }

    /// What may be taken from an account. The mint gives, it is not taken from.
    pub(super) fn funds(&self, account: Account) -> Credits {
        self.balance(account).credits().unwrap_or_default()
    }

    pub(super) fn balances(&self) -> impl Iterator<Item = (Account, Delta)> {
        self.balances.iter()
    }

    /// What stood on an account before the first posting that is not archived.
    pub(super) fn opening(&self, account: Account) -> Delta {
        self.opening.get(account)
    }

    pub(super) fn openings(&self) -> impl Iterator<Item = (Account, Delta)> {
        self.opening.iter()
    }

    pub(super) fn postings(&self) -> impl Iterator<Item = &Posting> {
        self.postings.iter()
    }

    pub(super) fn posting(&self, id: PostingId) -> Option<&Posting> {
        let place = usize::try_from(id.0.checked_sub(self.first()?.0)?).ok()?;
        self.postings.get(place)
    }

    /// The first posting that is not archived.
    pub(super) fn first(&self) -> Option<PostingId> {
        self.postings.front().map(|posting| posting.id)
    }

    /// The time of the last posting that is archived.
    pub(super) fn archived_until(&self) -> Option<Millis> {
        self.archived_ms
    }

    /// How many postings are not archived.
    pub(super) fn len(&self) -> usize {
        self.postings.len()
    }

    /// Puts all drafts on the books in their order, and says where the first one is.
    ///
    /// # Errors
    /// When an account but the mint would go below zero or one out of bounds; then nothing has changed.
    pub(super) fn commit(&mut self, drafts: Vec<Draft>, now: Millis) -> Result<PostingId, LedgerError> {
        let touched = match &drafts[..] {
            // Most by far, and no account is named twice in one posting.
            [Draft { entries, .. }] => entries
                .iter()
                .map(|(account, delta)| Ok((*account, stands_then(*account, self.balance(*account), *delta)?)))
                .collect::<Result<Vec<_>, LedgerError>>()?,
            several => self.touched(several)?,
        };
        let first = self.next;
        let count = u64::try_from(drafts.len()).map_err(|_| LedgerError::Full)?;
        self.next = PostingId(first.0.checked_add(count).ok_or(LedgerError::Full)?);
        self.last_ms = self.last_ms.max(now);
        for (id, Draft { cause, entries }) in (first.0..).map(PostingId).zip(drafts) {
            self.postings.push_back(Posting { id, at_ms: self.last_ms, cause, entries });
        }
        touched.into_iter().for_each(|(account, stands)| self.balances.set(account, stands));
        Ok(first)
    }

    /// What then stands on the accounts that these name.
    fn touched(&self, drafts: &[Draft]) -> Result<Vec<(Account, Delta)>, LedgerError> {
        let mut touched: BTreeMap<Account, Delta> = BTreeMap::new();
        for (account, delta) in drafts.iter().flat_map(|draft| &draft.entries) {
            let stands = touched.get(account).copied().unwrap_or_else(|| self.balance(*account));
            touched.insert(*account, stands_then(*account, stands, *delta)?);
        }
        Ok(touched.into_iter().collect())
    }

    /// Takes postings off the front, as long as what they add up to is within bounds, which it is on books that hold.
    pub(super) fn archive(&mut self, upto: PostingId) -> Vec<Posting> {
        let mut archived = Vec::new();
        while let Some(posting) = self.postings.front()
            && posting.id < upto
        {
            let Some(opening) = added(&self.opening, posting) else { break };
            opening.into_iter().for_each(|(account, stands)| self.opening.set(account, stands));
            self.archived_ms = Some(posting.at_ms);
            archived.extend(self.postings.pop_front());
        }
        archived
    }
}

/// What then stands on an account, of which none but the mint goes below zero.
fn stands_then(account: Account, stands: Delta, delta: Delta) -> Result<Delta, LedgerError> {
    let stands_then = stands.plus(delta)?;
    if account != Account::Mint && stands_then.credits().is_none() {
        let has = stands.credits().unwrap_or_default();
        return Err(LedgerError::Funds { account, has, short: -stands_then });
    }
    Ok(stands_then)
}

/// What then stands on the accounts of a posting.
fn added(balances: &Balances, posting: &Posting) -> Option<Vec<(Account, Delta)>> {
    posting.entries.iter().map(|(account, delta)| Some((*account, balances.get(*account).plus(*delta).ok()?))).collect()
}
