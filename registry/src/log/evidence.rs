//! Receipts that are at hand, to hold an operator's history against: those that it names have to be among them, and to say what it
//! says.
//!
//! A record carries certificates, so that its receipts are surely their operators'. A host's log has none: its receipts are the
//! machine's, and name the operator by the machine's word alone, unless a record brings the certificate.

use std::collections::{BTreeMap, BTreeSet};

use super::{file::LogError, heads::Heads};
use crate::{
    id::{Commitment, JobId, NodeId, OperatorId, ReceiptId, TaskId},
    job::ShardInfo,
    receipt::{Receipt, Record},
    reputation::{Cause, Work},
};

/// Receipts that may be at hand.
pub const RECEIPTS_MAX: usize = 1 << 22;

/// Why the receipts do not bear a history out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// A receipt that is named is not there.
    #[error("receipt {receipt} is in none of the files given")]
    Missing {
        /// Which.
        receipt: ReceiptId,
    },
    /// A receipt is another operator's.
    #[error("receipt {receipt} is of operator {found} instead of {expected}")]
    OtherOperator {
        /// Which.
        receipt: ReceiptId,
        /// Whose history it is.
        expected: OperatorId,
        /// Whose receipt.
        found: OperatorId,
    },
    /// A receipt is about something else.
    #[error("receipt {receipt} is of other work than the entry says")]
    OtherWork {
        /// Which.
        receipt: ReceiptId,
    },
    /// It adds more than the operator's own price allows for.
    #[error("receipt {receipt} asks {price_micro} micro-credits, for which the entry adds {named} and may add {most}")]
    Worth {
        /// The operator's.
        receipt: ReceiptId,
        /// What it asks.
        price_micro: u64,
        /// What is added.
        named: u64,
        /// What it may come to, whatever the others asked.
        most: u64,
    },
    /// What should contradict does not.
    #[error("receipt {receipt} does not contradict receipt {against}, which refutes it by the entry")]
    NoContradiction {
        /// The operator's.
        receipt: ReceiptId,
        /// The other.
        against: ReceiptId,
    },
    /// More receipts than may be.
    #[error("more than {RECEIPTS_MAX} receipts are given, the bound: give those of fewer jobs")]
    TooMany,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    operator: OperatorId,
    node: NodeId,
    job: JobId,
    shard: ShardInfo,
    task: TaskId,
    commitment: Commitment,
    price_micro: u64,
}

impl Known {
    fn is_of(&self, work: &Work) -> bool {
        (self.job, self.shard, self.task) == (work.job, work.shard, work.task)
    }
}

/// Receipts that are at hand, checked.
#[derive(Debug, Default)]
pub struct Receipts {
    known: BTreeMap<ReceiptId, Known>,
    certified: BTreeSet<(NodeId, OperatorId)>,
}

impl Receipts {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Adds a receipt whose signature was checked.
    ///
    /// # Errors
    /// When there are too many.
    pub fn add(&mut self, receipt: &Receipt) -> Result<(), EvidenceError> {
        if self.known.len() >= RECEIPTS_MAX {
            return Err(EvidenceError::TooMany);
        }
        let Receipt { job, shard, node, operator, price_micro, .. } = *receipt;
        let (task, commitment) = (receipt.execution.task, receipt.execution.commitment());
        self.known.insert(receipt.id(), Known { operator, node, job, shard, task, commitment, price_micro });
        Ok(())
    }

    /// Adds all receipts of a record, if it holds.
    ///
    /// # Errors
    /// When the record does not hold, or there are too many.
    pub fn add_record(&mut self, record: &Record, heads: &mut Heads) -> Result<(), LogError> {
        record.check_by(heads)?;
        for witness in record.witnesses() {
            let receipt = witness.open_by(heads)?;
            self.add(&receipt)?;
            self.certified.insert((receipt.node, receipt.operator));
        }
        Ok(())
    }

    /// Holds what happened to an operator against the receipts; says of the one that it names whether its machine is certified.
    ///
    /// # Errors
    /// When one that it names is not there, or says something else.
    pub fn check(&self, operator: OperatorId, cause: &Cause) -> Result<Option<bool>, EvidenceError> {
        let (work, receipt, against) = match cause {
            Cause::Confirmed { work, receipt: Some(receipt), .. } => (work, *receipt, None),
            Cause::Refuted { work, receipt, against } => (work, *receipt, *against),
            _ => return Ok(None),
        };
        let own = self.named(receipt, work)?;
        if own.operator != operator {
            return Err(EvidenceError::OtherOperator { receipt, expected: operator, found: own.operator });
        }
        if let Cause::Confirmed { worth_micro: named, rules, .. } = *cause {
            // Histories that are older than prices count each result as one that nobody pays for.
            let most = rules.worth_micro([own.price_micro]).max(rules.free_task_micro);
            let price_micro = own.price_micro;
            if named > most {
                return Err(EvidenceError::Worth { receipt, price_micro, named, most });
            }
        }
        if let Some(against) = against {
            let other = self.named(against, work)?;
            if other.commitment == own.commitment || other.operator == operator {
                return Err(EvidenceError::NoContradiction { receipt, against });
            }
        }
        Ok(Some(self.certified.contains(&(own.node, operator))))
    }

    fn named(&self, receipt: ReceiptId, work: &Work) -> Result<&Known, EvidenceError> {
        let known = self.known.get(&receipt).ok_or(EvidenceError::Missing { receipt })?;
        if known.is_of(work) { Ok(known) } else { Err(EvidenceError::OtherWork { receipt }) }
    }
}
