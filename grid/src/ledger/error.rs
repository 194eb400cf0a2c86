//! Why the ledger refuses. Whatever it refuses, it is as it was before.

use registry::{
    credits::{Credits, CreditsError, Delta, PPM},
    id::{JobId, OperatorId, ReceiptId},
    job::ShardInfo,
    price::PriceError,
};

use super::account::{Account, PaymentKey};
use crate::flow::{AssignmentId, Millis};

/// Why something is not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// An amount is out of bounds.
    #[error("ledger: {0}")]
    Credits(#[from] CreditsError),
    /// There is no bill.
    #[error("ledger: {0}")]
    Price(#[from] PriceError),
    /// Nothing is moved.
    #[error("ledger: nothing is {what}: the least amount is one micro-credit")]
    Nothing {
        /// What was to be done with it.
        what: &'static str,
    },
    /// An account has less than is taken from it.
    #[error("ledger: account {account} has {has} credits, {short} too few")]
    Funds {
        /// Which one.
        account: Account,
        /// What stands on it.
        has: Credits,
        /// What is missing.
        short: Delta,
    },
    /// There are as many postings as there are numbers for them.
    #[error("ledger: the books are full: postings are numbered with 64 bits")]
    Full,
    /// The job has its escrow.
    #[error("ledger: job {job} has its escrow already")]
    JobOpen {
        /// Which one.
        job: JobId,
    },
    /// The job has none, or is settled and forgotten.
    #[error("ledger: job {job} has no escrow")]
    JobUnknown {
        /// Which one.
        job: JobId,
    },
    /// The job has ended: nothing more is ordered for it.
    #[error("ledger: job {job} has ended, and nothing is ordered for it any more")]
    JobClosed {
        /// Which one.
        job: JobId,
    },
    /// The job has not ended.
    #[error("ledger: job {job} has not ended")]
    JobRunning {
        /// Which one.
        job: JobId,
    },
    /// The job's executions are not all judged, or its payments not all settled. It will pass.
    #[error(
        "ledger: job {job} is unsettled: {holds} executions under way, {payments} payments within their audit window"
    )]
    JobUnsettled {
        /// Which one.
        job: JobId,
        /// Orders that are neither paid nor released.
        holds: usize,
        /// Payments that are not settled.
        payments: usize,
    },
    /// More is set aside for audits than the job may cost.
    #[error("ledger: {reserve} credits set aside for audits are over the job's cap of {cap}")]
    Reserve {
        /// For audits.
        reserve: Credits,
        /// The cap.
        cap: Credits,
    },
    /// The job's cap leaves no room for the execution. It may, once others are judged.
    #[error("ledger: an execution may cost {worst} credits, and the cap of job {job} leaves {free}")]
    Cap {
        /// Which job.
        job: JobId,
        /// What it may cost.
        worst: Credits,
        /// What is left.
        free: Credits,
    },
    /// The order has its hold.
    #[error("ledger: assignment {} is held for already", .assignment.0)]
    Held {
        /// Which one.
        assignment: AssignmentId,
    },
    /// There is no such order: never made, released, or paid.
    #[error("ledger: job {job} has no hold for assignment {}", .assignment.0)]
    NotHeld {
        /// Which job.
        job: JobId,
        /// Which one.
        assignment: AssignmentId,
    },
    /// The receipt is not about what was ordered.
    #[error("ledger: the receipt of assignment {} names another {what} than was ordered", .assignment.0)]
    Ordered {
        /// Which one.
        assignment: AssignmentId,
        /// What differs.
        what: &'static str,
    },
    /// The bill is over what the task's limits allow.
    #[error("ledger: a bill of {bill} credits is over the {held} that the task's limits allow")]
    OverHold {
        /// The bill.
        bill: Credits,
        /// What was held.
        held: Credits,
    },
    /// It was paid. Ask no more.
    #[error("ledger: {payment} was paid already")]
    AlreadyPaid {
        /// Which one.
        payment: PaymentKey,
    },
    /// Another machine of the same operator was paid. Ask no more.
    #[error("ledger: operator {} was paid for shard {} of job {job} already", .operator.short(), .shard.index)]
    OperatorPaid {
        /// Which job.
        job: JobId,
        /// Which part of it.
        shard: ShardInfo,
        /// Whose.
        operator: OperatorId,
    },
    /// The operator was convicted: it is paid no more, and may not vouch again.
    #[error("ledger: operator {} was convicted of receipt {}", .operator.short(), .convicted.short())]
    Convicted {
        /// Which one.
        operator: OperatorId,
        /// What it was convicted of.
        convicted: ReceiptId,
    },
    /// Nobody is paid for convicting itself.
    #[error("ledger: operator {} cannot be the auditor who convicts it", .operator.short())]
    OwnAuditor {
        /// Which one.
        operator: OperatorId,
    },
    /// A statement is asked for from before what is on the books.
    #[error("ledger: postings of before {from_ms} are archived; ask for a later time, or add them from the archive")]
    Archived {
        /// The earliest time that can be asked for.
        from_ms: Millis,
    },
}

/// Why rules do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// Stake would be back before it can be lost.
    #[error(
        "unbonding_ms is {unbonding_ms}, below audit_window_ms of {audit_window_ms}: stake would be back before a lie is found"
    )]
    Unbonding {
        /// As received.
        unbonding_ms: u64,
        /// The least.
        audit_window_ms: u64,
    },
    /// More is given than there is.
    #[error("slash_requester_ppm and slash_auditor_ppm are {shares_ppm} together, over the bound of {PPM}")]
    Shares {
        /// As received.
        shares_ppm: u64,
    },
}
