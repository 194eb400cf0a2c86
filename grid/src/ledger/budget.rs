//! Where a job's cap is: what is held, spent and refunded is never more than the cap, and what goes to work leaves the part
//! for audits alone.

use registry::credits::{Credits, CreditsError};
use serde::{Deserialize, Serialize};

/// What an execution is for. It costs the same, and hosts do not learn it before the job ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The job's result: its replicas.
    Work,
    /// That the result is right: audits, and what a dispute takes.
    Audit,
}

impl Role {
    /// A stable word, as it is encoded.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Audit => "audit",
        }
    }
}

/// Of one role: what was paid, and what is held for orders.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Use {
    /// Paid, and not returned.
    pub spent: Credits,
    /// Set aside.
    pub held: Credits,
}

impl Use {
    fn all(self) -> Result<Credits, CreditsError> {
        self.spent.plus(self.held)
    }
}

/// Where a job's cap is. Each change gives another budget, so that a change that fails has changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// What the job may cost.
    pub cap: Credits,
    /// What of that is for audits alone.
    pub audit_reserve: Credits,
    /// For the result.
    pub work: Use,
    /// For audits.
    pub audits: Use,
    /// Back with the requester.
    pub refunded: Credits,
}

impl Budget {
    pub(super) fn new(cap: Credits, audit_reserve: Credits) -> Self {
        Self { cap, audit_reserve, work: Use::default(), audits: Use::default(), refunded: Credits::ZERO }
    }

    /// What was paid, and not returned.
    ///
    /// # Errors
    /// Never, as long as it is within the cap.
    pub fn spent(&self) -> Result<Credits, CreditsError> {
        self.work.spent.plus(self.audits.spent)
    }

    /// What lies in escrow.
    pub(super) fn escrow(&self) -> Result<Credits, CreditsError> {
        self.cap.minus(self.refunded.plus(self.spent()?)?)
    }

    /// What of that is not held.
    pub(super) fn free(&self) -> Result<Credits, CreditsError> {
        self.escrow()?.minus(self.work.held.plus(self.audits.held)?)
    }

    /// What of that may be held for the role.
    pub(super) fn free_for(&self, role: Role) -> Result<Credits, CreditsError> {
        let free = self.free()?;
        match role {
            Role::Work => Ok(free.min(self.cap.minus(self.audit_reserve)?.minus(self.work.all()?)?)),
            Role::Audit => Ok(free),
        }
    }

    fn with(self, role: Role, change: impl FnOnce(Use) -> Result<Use, CreditsError>) -> Result<Self, CreditsError> {
        match role {
            Role::Work => Ok(Self { work: change(self.work)?, ..self }),
            Role::Audit => Ok(Self { audits: change(self.audits)?, ..self }),
        }
    }

    pub(super) fn hold(self, role: Role, worst: Credits) -> Result<Self, CreditsError> {
        self.with(role, |used| Ok(Use { held: used.held.plus(worst)?, ..used }))
    }

    pub(super) fn release(self, role: Role, worst: Credits) -> Result<Self, CreditsError> {
        self.with(role, |used| Ok(Use { held: used.held.minus(worst)?, ..used }))
    }

    pub(super) fn pay(self, role: Role, worst: Credits, bill: Credits) -> Result<Self, CreditsError> {
        self.release(role, worst)?.with(role, |used| Ok(Use { spent: used.spent.plus(bill)?, ..used }))
    }

    /// A payment goes back into the escrow.
    pub(super) fn put_back(self, role: Role, bill: Credits) -> Result<Self, CreditsError> {
        self.with(role, |used| Ok(Use { spent: used.spent.minus(bill)?, ..used }))
    }

    pub(super) fn refund(self, amount: Credits) -> Result<Self, CreditsError> {
        Ok(Self { refunded: self.refunded.plus(amount)?, ..self })
    }
}
