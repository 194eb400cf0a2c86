//! What is known of the heads of one host.
//!
//! A head is checked once, however many receipts of its batch come along. Two heads of one number, or a head that does not
//! follow the one before it, contradict each other: both are signed, so together they are evidence against the host, whoever
//! holds them.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    id::NodeId,
    sign::{Head, SignatureError, Signed},
};

/// Heads that are remembered of one host unless somebody says otherwise.
pub const HEADS_PER_HOST_MAX: usize = 1 << 16;

/// Two heads that one host signed and that cannot stand in one chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conflict {
    /// The head with the lower number, or the one seen first.
    pub one: Signed<Head>,
    /// The other.
    pub other: Signed<Head>,
}

/// How two heads contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contradiction {
    /// Both have one number.
    Equivocation {
        /// Who signed them.
        node: NodeId,
        /// The number.
        seq: u64,
    },
    /// The second names another one before it.
    Fork {
        /// Who signed them.
        node: NodeId,
        /// The number of the second.
        seq: u64,
    },
}

impl Conflict {
    /// How the two contradict each other, if both are signed and do so.
    ///
    /// # Errors
    /// When a signature does not hold.
    pub fn check(&self) -> Result<Option<Contradiction>, SignatureError> {
        let (one, other) = (self.one.peek()?, self.other.peek()?);
        one.open(&self.one)?;
        other.open(&self.other)?;
        Ok(contradiction(&one, &other).filter(|_| one.node == other.node))
    }
}

fn contradiction(one: &Head, other: &Head) -> Option<Contradiction> {
    let (node, seq) = (other.node, other.seq);
    if one.seq == seq && one != other {
        Some(Contradiction::Equivocation { node, seq })
    } else if other.before().heads == one.tip().heads && other.before() != one.tip() {
        Some(Contradiction::Fork { node, seq })
    } else {
        None
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equivocation { node, seq } => {
                write!(f, "equivocation: node {node} signed two heads with number {seq}, which is evidence against it")
            }
            Self::Fork { node, seq } => write!(
                f,
                "fork: node {node} signed head {seq} after another one than the head {} that it signed, which is evidence \
                 against it",
                seq.saturating_sub(1)
            ),
        }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.check() {
            Ok(Some(contradiction)) => contradiction.fmt(f),
            Ok(None) => f.write_str("two heads that do not contradict each other"),
            Err(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Conflict {}

/// Why a head is not believed.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// Its signature does not hold, or it is another host's.
    #[error("{0}")]
    Signature(#[from] SignatureError),
    /// Its host signed another one that contradicts it.
    #[error("{0}")]
    Conflict(Box<Conflict>),
}

/// The latest heads that were checked, by host and number.
#[derive(Debug)]
pub struct Heads {
    known: BTreeMap<NodeId, BTreeMap<u64, (Head, Signed<Head>)>>,
    per_host_max: usize,
}

impl Default for Heads {
    fn default() -> Self {
        Self::new(HEADS_PER_HOST_MAX)
    }
}

impl Heads {
    /// Nothing is known yet; so many of each host will be remembered, those with the highest numbers.
    pub const fn new(per_host_max: usize) -> Self {
        Self { known: BTreeMap::new(), per_host_max }
    }

    /// Checks a head; one that is known costs nothing.
    ///
    /// # Errors
    /// When its signature does not hold, it is another host's, or it contradicts one that is known.
    pub fn believe(&mut self, signed: &Signed<Head>) -> Result<(), HeadError> {
        let head = signed.peek()?;
        let known = self.known.get(&head.node).and_then(|of_host| of_host.get(&head.seq));
        if known.is_some_and(|(_, known)| known == signed) {
            return Ok(());
        }
        head.open(signed)?;
        let of_host = self.known.entry(head.node).or_default();
        if let Some(conflict) = conflict(of_host, &head, signed) {
            return Err(HeadError::Conflict(Box::new(conflict)));
        }
        // The same head under another signature is no other head.
        of_host.entry(head.seq).or_insert_with(|| (head, signed.clone()));
        while of_host.len() > self.per_host_max {
            of_host.pop_first();
        }
        Ok(())
    }
}

/// A head contradicts at most those with its number and beside it.
fn conflict(known: &BTreeMap<u64, (Head, Signed<Head>)>, head: &Head, signed: &Signed<Head>) -> Option<Conflict> {
    let around = head.seq.saturating_sub(1)..=head.seq.saturating_add(1);
    known.range(around).find_map(|(seq, (other, other_signed))| {
        let is_later = head.seq >= *seq;
        let (one, two) = if is_later { (other, head) } else { (head, other) };
        contradiction(one, two)?;
        let (one, other) = if is_later { (other_signed, signed) } else { (signed, other_signed) };
        Some(Conflict { one: one.clone(), other: other.clone() })
    })
}
