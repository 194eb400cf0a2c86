//! What is wrong with a provider.

use std::{error::Error, fmt, sync::Arc};

use crate::id::NodeId;

/// What lies below an error. Shared, because callers who joined one fetch all get its error.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// One provider that did not give the blob.
#[derive(Debug, Clone)]
pub struct ProviderFailure {
    /// The provider.
    pub node: NodeId,
    /// Why it was given up.
    pub fault: ProviderFault,
}

/// Why a provider was given up.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ProviderFault {
    /// No connection.
    #[error("cannot be reached: {cause}")]
    Unreachable {
        /// What the endpoint said.
        #[source]
        cause: Cause,
    },
    /// No connection within the limit.
    #[error("no connection within connect_ms_max = {connect_ms_max}")]
    ConnectTimedOut {
        /// The limit.
        connect_ms_max: u64,
    },
    /// It does not serve this node.
    #[error("refused this node")]
    Refused,
    /// It does not have the blob, or not all of it.
    #[error("does not have the blob")]
    Missing,
    /// What it sent does not hash to what was asked for.
    #[error("sent corrupt data: {cause}")]
    Corrupt {
        /// Where verification failed.
        #[source]
        cause: Cause,
    },
    /// It says that the blob is longer than the fetch allows.
    #[error("claims {claimed_bytes} bytes, the limit bytes_max is {bytes_max}")]
    TooLarge {
        /// Length it claims.
        claimed_bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// It says another length than was verified before.
    #[error("claims {claimed_bytes} bytes, but the blob has {bytes}")]
    WrongLength {
        /// Length it claims.
        claimed_bytes: u64,
        /// Length as verified.
        bytes: u64,
    },
    /// It fell silent.
    #[error("sent nothing for stall_ms_max = {stall_ms_max}")]
    Stalled {
        /// The limit.
        stall_ms_max: u64,
    },
    /// The connection broke.
    #[error("transfer broke off: {cause}")]
    Broken {
        /// What the connection said.
        #[source]
        cause: Cause,
    },
}

impl ProviderFault {
    /// Whether the same provider may succeed later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::ConnectTimedOut { .. }
            | Self::Missing
            | Self::Stalled { .. }
            | Self::Broken { .. } => true,
            Self::Refused | Self::Corrupt { .. } | Self::TooLarge { .. } | Self::WrongLength { .. } => false,
        }
    }
}

/// Each provider with why, in one line.
pub(super) struct Reasons<'a>(pub(super) &'a [ProviderFailure]);

impl fmt::Display for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no provider failed or none was named");
        }
        for (nth, failure) in self.0.iter().enumerate() {
            let separator = if nth == 0 { "" } else { "; " };
            write!(f, "{separator}{} {}", failure.node.short(), OneLine(&failure.fault))?;
        }
        Ok(())
    }
}

/// Foreign messages may hold line breaks; ours are one line.
struct OneLine<'a>(&'a ProviderFault);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string().replace('\n', " "))
    }
}
