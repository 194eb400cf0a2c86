//! Accounts, and the postings that move credits between them.

use std::{fmt, str::FromStr};

use registry::{
    credits::{Credits, Delta},
    id::{Commitment, JobId, NodeId, OperatorId, PriceId, ReceiptId, RequesterId},
    job::ShardInfo,
};
use serde::{Deserialize, Serialize};

use super::payment::Ground;
use crate::flow::{AssignmentId, Millis};

/// Where credits lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Account {
    /// Where all credits come from: what stands on it, below zero, is what the grid has.
    Mint,
    /// Where slashed credits end.
    Burn,
    /// A requester's own.
    Requester(RequesterId),
    /// An operator's own.
    Operator(OperatorId),
    /// Set aside for a job.
    Escrow(JobId),
    /// Paid to an operator, and not settled yet.
    Earned(OperatorId),
    /// What an operator vouches with.
    Stake(OperatorId),
    /// Stake that is being withdrawn.
    Unbonding(OperatorId),
}

impl Account {
    /// A stable word for its kind.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Mint => "mint",
            Self::Burn => "burn",
            Self::Requester(_) => "requester",
            Self::Operator(_) => "operator",
            Self::Escrow(_) => "escrow",
            Self::Earned(_) => "earned",
            Self::Stake(_) => "stake",
            Self::Unbonding(_) => "unbonding",
        }
    }
}

/// `mint`, or the kind and whose it is: `stake:` and 64 hexadecimal digits.
impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word();
        match self {
            Self::Mint | Self::Burn => f.write_str(word),
            Self::Requester(requester) => write!(f, "{word}:{requester}"),
            Self::Escrow(job) => write!(f, "{word}:{job}"),
            Self::Operator(operator) | Self::Earned(operator) | Self::Stake(operator) | Self::Unbonding(operator) => {
                write!(f, "{word}:{operator}")
            }
        }
    }
}

/// A text names no account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no account: expected mint, burn, or one of requester, operator, escrow, earned, stake and unbonding with a colon and 64 hexadecimal digits"
)]
pub struct ParseAccountError {
    text: String,
}

impl FromStr for Account {
    type Err = ParseAccountError;

    fn from_str(text: &str) -> Result<Self, ParseAccountError> {
        let parsed = match text.split_once(':') {
            None if text == "mint" => Some(Self::Mint),
            None if text == "burn" => Some(Self::Burn),
            None => None,
            Some(("requester", id)) => id.parse().ok().map(Self::Requester),
            Some(("operator", id)) => id.parse().ok().map(Self::Operator),
            Some(("escrow", id)) => id.parse().ok().map(Self::Escrow),
            Some(("earned", id)) => id.parse().ok().map(Self::Earned),
            Some(("stake", id)) => id.parse().ok().map(Self::Stake),
            Some(("unbonding", id)) => id.parse().ok().map(Self::Unbonding),
            Some(_) => None,
        };
        parsed.ok_or_else(|| ParseAccountError { text: text.chars().take(80).collect() })
    }
}

/// What may be paid once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentKey {
    /// The job.
    pub job: JobId,
    /// Which part of it.
    pub shard: ShardInfo,
    /// The machine that ran it.
    pub node: NodeId,
}

impl fmt::Display for PaymentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { job, shard, node } = self;
        write!(f, "job {} shard {} node {}", job.short(), shard.index, node.short())
    }
}

/// Why credits moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// They came into the grid.
    Deposited,
    /// They left it.
    Withdrawn,
    /// A job was accepted.
    Escrowed {
        /// The job.
        job: JobId,
    },
    /// An execution was judged. Whether it was an audit is not said here: its operator reads this before the job ends.
    Paid {
        /// Which one.
        payment: PaymentKey,
        /// What the host signed.
        receipt: ReceiptId,
        /// The order that it answers.
        assignment: AssignmentId,
        /// What the verdict said.
        ground: Ground,
        /// The prices that the bill follows from.
        prices: PriceId,
    },
    /// The audit window of payments is over.
    Settled {
        /// Of which job.
        job: JobId,
    },
    /// A job that has ended left some of its cap.
    Refunded {
        /// The job.
        job: JobId,
    },
    /// An operator vouches with more.
    Staked,
    /// An operator wants stake back.
    UnbondingBegun {
        /// When it has it.
        due_ms: Millis,
    },
    /// It has it.
    Unbonded {
        /// The posting that asked.
        asked: PostingId,
    },
    /// An unsettled payment went back because its operator was convicted.
    Returned {
        /// Which one.
        payment: PaymentKey,
        /// The receipt that the operator was convicted of.
        convicted: ReceiptId,
    },
    /// An operator lost its stake.
    Slashed {
        /// The job in which it lied.
        job: JobId,
        /// In which part of it.
        shard: ShardInfo,
        /// The receipt that it was convicted of.
        convicted: ReceiptId,
        /// What is true instead.
        truth: Commitment,
        /// Who found out, unless it was a quorum.
        auditor: Option<OperatorId>,
    },
}

impl Cause {
    /// A stable word for its kind.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Deposited => "deposited",
            Self::Withdrawn => "withdrawn",
            Self::Escrowed { .. } => "escrowed",
            Self::Paid { .. } => "paid",
            Self::Settled { .. } => "settled",
            Self::Refunded { .. } => "refunded",
            Self::Staked => "staked",
            Self::UnbondingBegun { .. } => "unbonding_begun",
            Self::Unbonded { .. } => "unbonded",
            Self::Returned { .. } => "returned",
            Self::Slashed { .. } => "slashed",
        }
    }

    /// The job that it is about, if any.
    pub const fn job(&self) -> Option<JobId> {
        match self {
            Self::Escrowed { job } | Self::Settled { job } | Self::Refunded { job } | Self::Slashed { job, .. } => {
                Some(*job)
            }
            Self::Paid { payment, .. } | Self::Returned { payment, .. } => Some(payment.job),
            Self::Deposited | Self::Withdrawn | Self::Staked | Self::UnbondingBegun { .. } | Self::Unbonded { .. } => {
                None
            }
        }
    }

    /// The part of it, if any.
    pub const fn shard(&self) -> Option<ShardInfo> {
        match self {
            Self::Paid { payment, .. } | Self::Returned { payment, .. } => Some(payment.shard),
            Self::Slashed { shard, .. } => Some(*shard),
            _ => None,
        }
    }

    /// The receipt that it rests on, if any.
    pub const fn receipt(&self) -> Option<ReceiptId> {
        match self {
            Self::Paid { receipt, .. } => Some(*receipt),
            Self::Returned { convicted, .. } | Self::Slashed { convicted, .. } => Some(*convicted),
            _ => None,
        }
    }
}

/// A posting, by its place on the books.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PostingId(pub u64);

/// Credits that moved. Its entries add up to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Posting {
    /// Its place on the books.
    pub id: PostingId,
    /// When; never before the posting ahead of it.
    pub at_ms: Millis,
    /// Why.
    pub cause: Cause,
    /// By how much each account changed, each account once.
    pub entries: Vec<(Account, Delta)>,
}

impl Posting {
    /// By how much an account changed, if it did.
    pub fn change(&self, account: Account) -> Option<Delta> {
        self.entries.iter().find(|(other, _)| *other == account).map(|(_, delta)| *delta)
    }

    /// What came onto an account; nothing if the account lost.
    pub fn gain(&self, account: Account) -> Credits {
        self.change(account).and_then(|delta| delta.credits()).unwrap_or_default()
    }
}
