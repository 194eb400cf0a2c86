//! What came of an execution: a receipt, and what is left of it once its job has ended.

use std::sync::Arc;

use registry::{
    id::{Commitment, EngineFingerprint, NodeId, OperatorId},
    membership::NodeCert,
    receipt::Output,
    sign::Signed,
};
use serde::{Deserialize, Serialize};

use super::Purpose;
use crate::flow::{AssignmentId, Attested};

/// What came of one execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Cast {
    /// A receipt, until the job ends.
    Receipt {
        receipt: Attested,
        output: Output,
        /// The operator's word for the host, as it was then: a host may come back under another operator.
        cert: Arc<Signed<NodeCert>>,
        /// What it was ordered for.
        #[serde(default)]
        purpose: Purpose,
    },
    /// What is left of one.
    Summary(Box<Summary>),
}

/// What `why` shows of a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Summary {
    pub(super) node: NodeId,
    pub(super) operator: OperatorId,
    pub(super) engine: EngineFingerprint,
    pub(super) commitment: Commitment,
    /// What it was ordered for.
    #[serde(default)]
    pub(super) purpose: Purpose,
    /// Whether it ran models.
    pub(super) inferred: bool,
    /// What it asked, in micro-credits.
    #[serde(default, skip_serializing_if = "is_free")]
    pub(super) price_micro: u64,
}

fn is_free(price_micro: &u64) -> bool {
    *price_micro == 0
}

impl Cast {
    pub(super) fn node(&self) -> NodeId {
        match self {
            Self::Receipt { receipt, .. } => receipt.receipt().node,
            Self::Summary(summary) => summary.node,
        }
    }

    pub(super) fn operator(&self) -> OperatorId {
        match self {
            Self::Receipt { receipt, .. } => receipt.receipt().operator,
            Self::Summary(summary) => summary.operator,
        }
    }

    pub(super) fn engine(&self) -> EngineFingerprint {
        match self {
            Self::Receipt { receipt, .. } => receipt.receipt().execution.engine,
            Self::Summary(summary) => summary.engine,
        }
    }

    /// The receipt, as long as it is here.
    pub(super) fn receipt(&self) -> Option<&Attested> {
        match self {
            Self::Receipt { receipt, .. } => Some(receipt),
            Self::Summary(_) => None,
        }
    }

    /// The order that it answers, as long as that is known.
    pub(super) fn assignment(&self) -> Option<AssignmentId> {
        self.receipt().map(|receipt| AssignmentId(receipt.receipt().nonce))
    }

    /// Whether it ran models.
    pub(super) fn inferred(&self) -> bool {
        match self {
            Self::Receipt { receipt, .. } => receipt.receipt().execution.nn_root.is_some(),
            Self::Summary(summary) => summary.inferred,
        }
    }

    /// What it was ordered for.
    pub(super) fn purpose(&self) -> Purpose {
        match self {
            Self::Receipt { purpose, .. } => *purpose,
            Self::Summary(summary) => summary.purpose,
        }
    }

    pub(super) fn price_micro(&self) -> u64 {
        match self {
            Self::Receipt { receipt, .. } => receipt.receipt().price_micro,
            Self::Summary(summary) => summary.price_micro,
        }
    }

    pub(super) fn commitment(&self) -> Commitment {
        match self {
            Self::Receipt { receipt, .. } => receipt.commitment(),
            Self::Summary(summary) => summary.commitment,
        }
    }

    /// Forgets the receipt but for what `why` shows of it.
    pub(super) fn summarise(&mut self) {
        if self.receipt().is_some() {
            *self = Self::Summary(Box::new(Summary {
                node: self.node(),
                operator: self.operator(),
                engine: self.engine(),
                commitment: self.commitment(),
                purpose: self.purpose(),
                inferred: self.inferred(),
                price_micro: self.price_micro(),
            }));
        }
    }
}
