//! The history of an operator: every change of its standing, in order, chained, and signed at its end by the coordinator that decided.
//!
//! The file begins with the signed head, which says whose history it is, how many entries come and what the last one's link is.
//! Entries are checked as they are read, one at a time, whatever the file's length: each has to follow the one before, and its
//! numbers are computed anew.

#[cfg(test)]
mod tests;

use std::io::BufRead;

use serde::{Deserialize, Serialize};

use super::{
    chain::Chain,
    evidence::Receipts,
    file::{self, HISTORY_ENTRIES_MAX, HISTORY_ITEM_BYTES_MAX, Items, Kind, LogError, Place},
};
use crate::{
    canon,
    id::{BlobHash, LinkId, NodeId, OperatorId},
    reputation::{Availability, Cause, Change, Shown, StandingRules},
    sign::{SecretKey, Signed, Statement},
};

/// What stands for a change and everything before it: entry `seq` of an operator's history is this change.
pub fn link(operator: OperatorId, seq: u64, prev: LinkId, change: &[u8]) -> LinkId {
    LinkId(canon::hash("quorate/history/1", &(operator, seq, prev, BlobHash::of(change))))
}

/// One change in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Entries before it.
    pub seq: u64,
    /// The link of the one before; zeros for the first.
    pub prev: LinkId,
    /// The change.
    pub change: Change,
}

/// What a coordinator signs about a history: where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryHead {
    /// Who signs, and decided; in it, so that one grid's history is none of another.
    pub coordinator: NodeId,
    /// Whose history it is.
    pub operator: OperatorId,
    /// Entries in it.
    pub entries: u64,
    /// The link of the last; zeros when there is none.
    pub link: LinkId,
    /// When it was signed.
    pub at_ms: u64,
    /// What the coordinator reckons standing by at that time.
    pub rules: StandingRules,
    /// What all machines of the operator were given by then, and what of it gave no result. Of this the entries tell some steps alone.
    pub available: Availability,
}

impl Statement for HistoryHead {
    const DOMAIN: &'static str = "quorate/history-head/1";
    const BYTES_MAX: usize = 512;
}

impl HistoryHead {
    /// The head, when the coordinator that it names has signed it.
    fn open(signed: &Signed<Self>) -> Result<Self, LogError> {
        let (head, signer) = signed.open()?;
        if head.coordinator.0 != signer {
            return Err(LogError::Signer { named: head.coordinator });
        }
        if head.entries > HISTORY_ENTRIES_MAX {
            return Err(LogError::TooMany { entries: head.entries });
        }
        Ok(head)
    }
}

/// What is known of a history from elsewhere: it is held against that.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected {
    /// Whose it has to be.
    pub operator: Option<OperatorId>,
    /// Who has to have signed it.
    pub coordinator: Option<NodeId>,
    /// A head that it has to go through, or end in: one that was seen earlier.
    pub through: Option<LinkId>,
    /// What the operator had shown is asked as of this time: as of the end when absent.
    pub at_ms: Option<u64>,
}

/// What a history says, once checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistorySaid {
    /// What the coordinator signed.
    #[serde(flatten)]
    pub head: HistoryHead,
    /// Results that were checked and held, over all of it.
    pub confirmed: u64,
    /// Results that were checked and did not.
    pub refuted: u64,
    /// The time that the following is of.
    pub as_of_ms: u64,
    /// What the operator had shown by then, computed anew from the entries.
    pub shown: Shown,
    /// What its worth at that time is reckoned by.
    pub rules: StandingRules,
    /// Receipts that entries name and that were at hand.
    pub receipts: u64,
    /// Those of them whose machine has the operator's certificate at hand; the others name the operator by their machine's word.
    pub certified: u64,
}

/// A history as far as it was checked.
#[derive(Debug)]
pub struct History {
    head: HistoryHead,
    chain: Chain,
    shown: Shown,
    /// What it was before the first entry that is later than what is asked.
    before: Option<Shown>,
    said: HistorySaid,
    is_through: bool,
}

impl History {
    fn new(head: HistoryHead, expected: &Expected) -> Result<Self, LogError> {
        let HistoryHead { coordinator, operator, at_ms, .. } = head;
        if let Some(expected) = expected.coordinator.filter(|expected| *expected != coordinator) {
            return Err(LogError::OtherCoordinator { expected, found: coordinator });
        }
        if let Some(expected) = expected.operator.filter(|expected| *expected != operator) {
            return Err(LogError::OtherOperator { expected, found: operator });
        }
        let as_of_ms = expected.at_ms.unwrap_or(at_ms);
        let said = HistorySaid {
            head,
            confirmed: 0,
            refuted: 0,
            as_of_ms,
            shown: Shown::default(),
            rules: head.rules,
            receipts: 0,
            certified: 0,
        };
        let is_through = expected.through.is_none_or(|head| head == Chain::default().last);
        Ok(Self { head, chain: Chain::default(), shown: Shown::default(), before: None, said, is_through })
    }

    /// Checks the next entry: that it follows, that its numbers do, and that what it names is among the receipts, if there are any.
    fn push(&mut self, entry: &Entry, expected: &Expected, receipts: Option<&Receipts>) -> Result<(), LogError> {
        self.chain.check(entry.seq, entry.prev)?;
        if entry.seq >= self.head.entries {
            return Err(LogError::Trailing);
        }
        if self.before.is_none() && expected.at_ms.is_some_and(|at_ms| entry.change.at_ms > at_ms) {
            self.before = Some(self.shown.clone());
        }
        self.shown.apply(&entry.change)?;
        if let Some(receipts) = receipts {
            let found = receipts.check(self.head.operator, &entry.change.cause)?;
            self.said.receipts += u64::from(found.is_some());
            self.said.certified += u64::from(found == Some(true));
        }
        self.said.confirmed += u64::from(matches!(entry.change.cause, Cause::Confirmed { .. }));
        self.said.refuted += u64::from(matches!(entry.change.cause, Cause::Refuted { .. }));
        self.chain.push(link(self.head.operator, entry.seq, entry.prev, &canon::encode(&entry.change)));
        self.is_through |= expected.through == Some(self.chain.last);
        Ok(())
    }

    /// What the operator had shown by the time that is asked.
    fn shown_then(&self) -> &Shown {
        self.before.as_ref().unwrap_or(&self.shown)
    }

    fn end(mut self, expected: &Expected) -> Result<HistorySaid, LogError> {
        let HistoryHead { entries, link, .. } = self.head;
        if self.chain.entries < entries {
            return Err(LogError::Truncated);
        }
        if self.chain.last != link {
            return Err(LogError::Chain { named: link, found: self.chain.last });
        }
        if let Some(head) = expected.through.filter(|_| !self.is_through) {
            return Err(LogError::Elsewhere { head, entries });
        }
        if let Some(rules) = self.shown_then().rules.filter(|_| expected.at_ms.is_some()) {
            self.said.rules = rules;
        }
        self.said.shown = self.before.unwrap_or(self.shown);
        Ok(self.said)
    }

    /// Checks a whole file, after its first line, against what is known from elsewhere; with receipts, that those which it names are
    /// among them, and are the operator's.
    ///
    /// # Errors
    /// Names the first entry that does not hold, with its position.
    pub fn check(file: impl BufRead, expected: &Expected, receipts: Option<&Receipts>) -> Result<HistorySaid, Place> {
        let mut items = Items::new(Kind::History, file);
        let place = |entry| move |error| Place { entry, error };
        let mut history = begin(&mut items, expected).map_err(place(0))?;
        let read = history.read(&mut items, expected, receipts);
        read.map_err(place(history.chain.entries))?;
        let entries = history.chain.entries;
        history.end(expected).map_err(place(entries))
    }

    fn read(
        &mut self,
        items: &mut Items<impl BufRead>,
        expected: &Expected,
        receipts: Option<&Receipts>,
    ) -> Result<(), LogError> {
        while let Some(item) = items.next()? {
            let entry: Entry = canon::decode(&item, HISTORY_ITEM_BYTES_MAX)?;
            self.push(&entry, expected, receipts).map_err(|error| error.or_reordered(items, number))?;
        }
        Ok(())
    }
}

fn begin(items: &mut Items<impl BufRead>, expected: &Expected) -> Result<History, LogError> {
    let head = items.next()?.ok_or(LogError::Truncated)?;
    let head: Signed<HistoryHead> = canon::decode(&head, HISTORY_ITEM_BYTES_MAX)?;
    History::new(HistoryHead::open(&head)?, expected)
}

/// The number of the entry that an item holds, if it holds one.
fn number(item: &[u8]) -> Option<u64> {
    canon::decode::<Entry>(item, HISTORY_ITEM_BYTES_MAX).ok().map(|entry| entry.seq)
}

/// How the file of a history begins: its first line, and the head, signed.
pub fn beginning(head: &HistoryHead, key: &SecretKey) -> Vec<u8> {
    let mut file = Kind::History.line().to_vec();
    file::push(&mut file, &canon::encode(&Signed::seal(head, key)));
    file
}

/// Adds an entry to a file.
pub fn push(file: &mut Vec<u8>, entry: &Entry) {
    file::push(file, &canon::encode(entry));
}
