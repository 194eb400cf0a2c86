//! A host's log: the batches that it signed, each after the one before it.
//!
//! A log need not begin with the host's first head, since hosts drop what is old; from its first head on, nothing is missing.

use std::io::BufRead;

use serde::Serialize;

use super::{
    file::{BATCH_BYTES_MAX, Items, Kind, LogError, Place},
    heads::Heads,
};
use crate::{
    canon,
    id::{HeadId, NodeId},
    receipt::Receipt,
    sign::{Batch, Head, Tip},
};

/// A host's log as far as it was checked.
#[derive(Debug, Default)]
pub struct HostLog {
    seen: Option<Seen>,
}

#[derive(Debug)]
struct Seen {
    said: HostSaid,
    tip: Tip,
}

/// What a host's log says, once checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HostSaid {
    /// The host.
    pub node: NodeId,
    /// Number of its first head.
    pub first: u64,
    /// Number of its last.
    pub last: u64,
    /// The last head.
    pub head: HeadId,
    /// Receipts in all batches.
    pub receipts: u64,
}

impl HostLog {
    /// Where the log goes on.
    pub fn tip(&self) -> Option<Tip> {
        self.seen.as_ref().map(|seen| seen.tip)
    }

    /// Checks the next batch: its signature, that its receipts are what was signed and are the host's, and that it follows. Gives
    /// the receipts.
    ///
    /// # Errors
    /// Names the first thing that does not hold.
    pub fn push(&mut self, batch: &Batch<Receipt>, heads: &mut Heads) -> Result<Vec<Receipt>, LogError> {
        // What contradicts an earlier head is evidence, and more than a hole.
        let (head, receipts) = batch.open_by(|head| heads.believe(head).map_err(LogError::from))?;
        if let Some(receipt) = receipts.iter().find(|receipt| receipt.node != head.node) {
            return Err(LogError::OtherReceipt { node: head.node, named: receipt.node });
        }
        let seen = self.seen.get_or_insert_with(|| Seen::before(&head));
        seen.follow(&head)?;
        seen.said.receipts += receipts.len() as u64;
        Ok(receipts)
    }

    /// What it says; nothing if it is empty.
    pub fn said(&self) -> Option<HostSaid> {
        self.seen.as_ref().map(|seen| seen.said)
    }

    /// Checks a whole file, after its first line; `heads` may know of heads from elsewhere.
    ///
    /// # Errors
    /// Names the first entry that does not hold, with its position.
    pub fn check(file: impl BufRead, heads: &mut Heads) -> Result<HostSaid, Place> {
        Self::check_each(file, heads, |_| Ok(()))
    }

    /// The same; `each` is shown every receipt of a batch that holds, and may refuse it.
    ///
    /// # Errors
    /// Names the first entry that does not hold, or is refused, with its position.
    pub fn check_each(
        file: impl BufRead,
        heads: &mut Heads,
        mut each: impl FnMut(&Receipt) -> Result<(), LogError>,
    ) -> Result<HostSaid, Place> {
        let mut items = Items::new(Kind::Host, file);
        let (mut log, mut entry) = (Self::default(), 0);
        let place = |entry| move |error| Place { entry, error };
        while let Some(item) = items.next().map_err(place(entry))? {
            let batch = decode(&item).map_err(place(entry))?;
            let receipts = log.push(&batch, heads).map_err(|error| error.or_reordered(&mut items, number));
            receipts.and_then(|receipts| receipts.iter().try_for_each(&mut each)).map_err(place(entry))?;
            entry += 1;
        }
        log.said().ok_or(Place { entry, error: LogError::Empty })
    }
}

impl Seen {
    fn before(head: &Head) -> Self {
        let Head { node, seq, .. } = *head;
        let said = HostSaid { node, first: seq, last: seq, head: head.id(), receipts: 0 };
        Self { said, tip: head.before() }
    }

    fn follow(&mut self, head: &Head) -> Result<(), LogError> {
        if head.node != self.said.node {
            return Err(LogError::OtherHost { expected: self.said.node, found: head.node });
        }
        let (expected, found) = (self.tip.heads, head.seq);
        if found > expected {
            return Err(LogError::Gap { expected, found });
        }
        if found < expected {
            let is_repeated = found >= self.said.first;
            return Err(match is_repeated {
                true => LogError::Repeated { number: found },
                false => LogError::Order { expected, found },
            });
        }
        if head.before() != self.tip {
            return Err(LogError::Apart { seq: found });
        }
        self.tip = head.tip();
        (self.said.last, self.said.head) = (head.seq, head.id());
        Ok(())
    }
}

/// The batch that an item of a host's log holds.
///
/// # Errors
/// When it holds none.
pub fn decode(item: &[u8]) -> Result<Batch<Receipt>, LogError> {
    Ok(canon::decode(item, BATCH_BYTES_MAX)?)
}

/// The number of the head that an item holds, if it holds one.
fn number(item: &[u8]) -> Option<u64> {
    Some(decode(item).ok()?.head.peek().ok()?.seq)
}
