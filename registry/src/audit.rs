//! Which results are audited: drawn after a host committed to its result, with a secret that was committed to before.
//!
//! 1. Whoever coordinates a job picks a [`Secret`] and tells its [`SecretHash`] as the job is accepted.
//! 2. A host signs its receipt. It does not know the secret, so nothing that it could put into the receipt helps it.
//! 3. [`draw`] hashes secret, receipt and job to a number. The result is audited if that is below the rate that its operator
//!    has at the time, which the record of the result keeps ([`Drawn`]).
//! 4. When the job has ended the secret is told. Anyone can now draw again: a coordinator that spared a host, or picked on it,
//!    shows. The job's id stands for the submitter's share, since the job's nonce is part of it.
//!
//! What this does not show: that a coordinator threw a receipt away and asked for another one.

mod check;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    canon,
    id::{JobId, NodeId, ReceiptId, SecretHash, TaskId},
};

pub use self::check::{AuditError, Audited, check};

/// A whole in parts per million.
pub const PPM: u32 = 1_000_000;

/// What decides which results of a job are audited. Kept until the job has ended.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SecretHash", into = "SecretHash")]
pub struct Secret([u8; 32]);

impl Secret {
    /// A secret of the operating system's randomness.
    ///
    /// # Errors
    /// When the operating system has none.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The secret with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, once the secret may be told.
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// What commits to it.
    pub fn hash(&self) -> SecretHash {
        SecretHash(canon::hash("quorate/secret/1", self))
    }
}

/// As ids are written: hexadecimal for people, a byte string on the wire.
impl From<Secret> for SecretHash {
    fn from(secret: Secret) -> Self {
        Self(secret.0)
    }
}

impl From<SecretHash> for Secret {
    fn from(written: SecretHash) -> Self {
        Self(written.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What was drawn for one receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw([u8; 32]);

/// Draws for a receipt.
pub fn draw(secret: &Secret, receipt: ReceiptId, job: JobId) -> Draw {
    Draw(canon::hash("quorate/draw/1", &(secret, receipt, job)))
}

/// What the next host of a task is drawn with whose results have to agree, after so many others, in the form of a machine's name. Who
/// runs many hosts shall not know which of them are asked for the same.
pub fn next_of_quorum(secret: &Secret, task: TaskId, others: usize) -> NodeId {
    NodeId(canon::hash("quorate/quorum/1", &(secret, task, others as u64)))
}

impl Draw {
    /// Whether a result is audited that is to be so at this rate in parts per million.
    pub fn audits(self, rate_ppm: u32) -> bool {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        let drawn = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        (u128::from(drawn) * u128::from(PPM)) >> 64 < u128::from(rate_ppm)
    }

    /// What its auditor is drawn with, in the form of a machine's name.
    pub fn auditor(self) -> NodeId {
        NodeId(canon::hash("quorate/auditor/1", &self.0))
    }
}

/// What was drawn, as the record of a result keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drawn {
    /// For this receipt.
    pub receipt: ReceiptId,
    /// At this rate, in parts per million.
    pub rate_ppm: u32,
}

impl Drawn {
    /// Whether the result has to be audited.
    pub fn audits(&self, secret: &Secret, job: JobId) -> bool {
        draw(secret, self.receipt, job).audits(self.rate_ppm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audited(secret: u8, rate_ppm: u32) -> usize {
        let secret = Secret::from_bytes([secret; 32]);
        let receipts = (0..20_000u32).map(|number| ReceiptId(canon::hash("test", &number)));
        receipts.filter(|receipt| draw(&secret, *receipt, JobId([1; 32])).audits(rate_ppm)).count()
    }

    #[test]
    fn as_many_are_drawn_as_the_rate_says() {
        assert_eq!(audited(1, 0), 0);
        assert_eq!(audited(1, PPM), 20_000);
        // Five standard deviations around 1,000.
        assert!((846..=1154).contains(&audited(1, 50_000)), "{}", audited(1, 50_000));
    }

    #[test]
    fn who_does_not_know_the_secret_cannot_tell_what_is_drawn() {
        let [one, other] = [1, 2].map(|secret| Secret::from_bytes([secret; 32]));
        let receipts = (0..10_000u32).map(|number| ReceiptId(canon::hash("test", &number)));
        let both = receipts
            .filter(|receipt| [one, other].iter().all(|secret| draw(secret, *receipt, JobId([1; 32])).audits(PPM / 2)));
        let both = both.count();
        assert!((2_250..=2_750).contains(&both), "{both} of 10,000 are drawn by both of two secrets at one half each");
        assert_ne!(one.hash(), other.hash());
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::from_bytes([7; 32])), "Secret(..)");
    }
}
