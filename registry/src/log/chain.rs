//! The chain of a log whose entries are not signed one by one: each has a number and names the link of the one before.

use super::file::LogError;
use crate::id::LinkId;

/// What the first entry is chained to.
pub const START: LinkId = LinkId([0; 32]);

/// A chain as far as it was followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// Entries so far, and with it the number of the next one.
    pub entries: u64,
    /// The link of the last of them.
    pub last: LinkId,
}

impl Default for Chain {
    fn default() -> Self {
        Self { entries: 0, last: START }
    }
}

impl Chain {
    /// Whether an entry with this number, chained to this link, is the next one.
    ///
    /// # Errors
    /// Says how it is not.
    pub fn check(&self, seq: u64, prev: LinkId) -> Result<(), LogError> {
        let (expected, found) = (self.entries, seq);
        if found > expected {
            return Err(LogError::Gap { expected, found });
        }
        if found < expected {
            return Err(LogError::Repeated { number: found });
        }
        if prev != self.last {
            return Err(LogError::Chain { named: prev, found: self.last });
        }
        Ok(())
    }

    /// The next entry's link is this.
    pub fn push(&mut self, link: LinkId) {
        self.entries = self.entries.saturating_add(1);
        self.last = link;
    }
}
