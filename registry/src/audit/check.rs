//! Whether a job's results were checked as its policy says, from its records and its secret alone.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Secret;
use crate::{
    id::{JobId, ReceiptId, SecretHash},
    job::{ShardInfo, Stage},
    receipt::{Accepted, Record, RecordError, Witness},
};

/// How a job's results came to stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Audited {
    /// Results.
    pub results: u32,
    /// Of these, on one operator's word: nothing was drawn against them.
    pub by_word: u32,
    /// After an audit that was drawn.
    pub by_audit: u32,
    /// Since operators agreed for another reason: none had standing, or a newcomer said otherwise.
    pub by_quorum: u32,
    /// Smallest rate that anything was drawn at, in parts per million.
    pub rate_ppm_min: Option<u32>,
    /// Largest.
    pub rate_ppm_max: Option<u32>,
    /// Machines that signed something else, each with evidence.
    pub accused: usize,
}

/// Why a job's results were not checked as they should have been.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Another secret than was committed to.
    #[error("secret is not the one that was committed to as {committed}: what it draws shows nothing")]
    Secret {
        /// As told when the job was accepted.
        committed: SecretHash,
    },
    /// A record does not hold.
    #[error("record {index}: {source}")]
    Record {
        /// Which, from 0.
        index: usize,
        /// Why.
        source: RecordError,
    },
    /// A record is about something else.
    #[error("record {index} is about job {job}")]
    Job {
        /// Which, from 0.
        index: usize,
        /// Its job.
        job: JobId,
    },
    /// A shard has no record.
    #[error("shard {index} of {count} has no record")]
    Missing {
        /// Which, from 0.
        index: u32,
        /// How many there are.
        count: u32,
    },
    /// A shard has no result, since nobody reproduced one.
    #[error(
        "shard {index} of {count} has no result to audit: {receipts} receipts differ, and the job failed as inconclusive"
    )]
    Inconclusive {
        /// Which, from 0.
        index: u32,
        /// How many there are.
        count: u32,
        /// Receipts of it.
        receipts: usize,
    },
    /// A result stands on one operator's word, and nothing was drawn for it.
    #[error("shard {}: its result stands on one operator's word, and nothing was drawn for it", shard.index)]
    Undrawn {
        /// Which.
        shard: ShardInfo,
    },
    /// What was drawn is not about any receipt of the shard.
    #[error("shard {}: receipt {receipt}, for which it was drawn, is not among its records", shard.index)]
    Stranger {
        /// Which.
        shard: ShardInfo,
        /// As the record says.
        receipt: ReceiptId,
    },
    /// A result had to be audited and was not.
    #[error("shard {}: it was drawn for an audit at a rate of {rate_ppm} ppm, and one operator alone signed its result", shard.index)]
    Unaudited {
        /// Which.
        shard: ShardInfo,
        /// The rate, in parts per million.
        rate_ppm: u32,
    },
}

/// Draws again for each of a job's results. `records` are all that were kept for the job; of several accepted ones of a shard, the
/// last one counts.
///
/// # Errors
/// Names the first thing that is not as it should be.
pub fn check(job: JobId, committed: SecretHash, secret: &Secret, records: &[Record]) -> Result<Audited, AuditError> {
    if secret.hash() != committed {
        return Err(AuditError::Secret { committed });
    }
    let mut results: BTreeMap<ShardInfo, (usize, &Accepted)> = BTreeMap::new();
    let mut receipts: BTreeMap<ShardInfo, BTreeSet<ReceiptId>> = BTreeMap::new();
    let (mut accused, mut inconclusive) = (BTreeSet::new(), BTreeMap::new());
    for (index, record) in records.iter().enumerate() {
        let failed = |source| AuditError::Record { index, source };
        let checked = record.check().map_err(failed)?;
        if checked.job != job {
            return Err(AuditError::Job { index, job: checked.job });
        }
        accused.extend(checked.accused.map(|(node, _)| node));
        match record {
            Record::Accepted(accepted) => _ = results.insert(checked.shard, (checked.operators.len(), accepted)),
            Record::Inconclusive(record) => _ = inconclusive.insert(checked.shard, record.witnesses.len()),
            Record::Evidence(_) | Record::Dispute(_) => {}
        }
        for receipt in record.witnesses().map(Witness::open) {
            receipts.entry(checked.shard).or_default().insert(receipt.map_err(failed)?.id());
        }
    }
    complete(&results, &inconclusive)?;
    let mut audited = Audited { accused: accused.len(), ..Audited::default() };
    for (shard, (operators, accepted)) in results {
        let known = receipts.remove(&shard).unwrap_or_default();
        audited.count(job, secret, shard, operators, accepted, &known)?;
    }
    Ok(audited)
}

/// Whether each shard of the map has a result.
fn complete(
    results: &BTreeMap<ShardInfo, (usize, &Accepted)>,
    inconclusive: &BTreeMap<ShardInfo, usize>,
) -> Result<(), AuditError> {
    if let Some((shard, receipts)) = inconclusive.iter().find(|(shard, _)| !results.contains_key(shard)) {
        return Err(AuditError::Inconclusive { index: shard.index, count: shard.count, receipts: *receipts });
    }
    let of_map = || results.keys().filter(|shard| shard.stage == Stage::Map);
    let map: BTreeSet<u32> = of_map().map(|shard| shard.index).collect();
    let count = of_map().map(|shard| shard.count).max().unwrap_or(1);
    match (0..count).find(|index| !map.contains(index)) {
        Some(index) => Err(AuditError::Missing { index, count }),
        None => Ok(()),
    }
}

impl Audited {
    fn count(
        &mut self,
        job: JobId,
        secret: &Secret,
        shard: ShardInfo,
        operators: usize,
        accepted: &Accepted,
        known: &BTreeSet<ReceiptId>,
    ) -> Result<(), AuditError> {
        self.results += 1;
        let Some(drawn) = accepted.drawn else {
            if operators < 2 {
                return Err(AuditError::Undrawn { shard });
            }
            self.by_quorum += 1;
            return Ok(());
        };
        if !known.contains(&drawn.receipt) {
            return Err(AuditError::Stranger { shard, receipt: drawn.receipt });
        }
        let rate_ppm = drawn.rate_ppm;
        self.rate_ppm_min = Some(self.rate_ppm_min.map_or(rate_ppm, |least| least.min(rate_ppm)));
        self.rate_ppm_max = Some(self.rate_ppm_max.map_or(rate_ppm, |most| most.max(rate_ppm)));
        match (drawn.audits(secret, job), operators) {
            (true, 0..2) => return Err(AuditError::Unaudited { shard, rate_ppm }),
            (true, _) => self.by_audit += 1,
            (false, 0..2) => self.by_word += 1,
            (false, _) => self.by_quorum += 1,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{Drawn, PPM},
        id::{BlobHash, EngineFingerprint, ModuleHash, NodeId, OperatorId, TaskId},
        job::Class,
        membership::NodeCert,
        receipt::{Evidence, Execution, Inconclusive, Outcome, Receipt},
        sign::{SecretKey, Signed},
    };

    const SECRET: Secret = Secret::from_bytes([7; 32]);
    const JOB: JobId = JobId([8; 32]);

    fn witness(operator: u8, index: u32, output: u8) -> Witness {
        let (node, owner) = (SecretKey::from_bytes(&[operator; 32]), SecretKey::from_bytes(&[operator + 100; 32]));
        let execution = Execution {
            task: TaskId([3; 32]),
            module: ModuleHash::of(b"module"),
            class: Class::Exact,
            engine: EngineFingerprint([4; 32]),
            outcome: Outcome::Ok,
            fuel_used: 1,
            output: BlobHash([output; 32]),
            nn_root: None,
            segment_root: None,
        };
        let receipt = Receipt {
            job: JOB,
            shard: shard(index),
            execution,
            device: None,
            node: NodeId(node.public()),
            operator: OperatorId(owner.public()),
            nonce: u64::from(index),
            price_micro: 0,
            nn_record: None,
            segment_record: None,
        };
        let cert = NodeCert { node: receipt.node, issued_ms: 0 };
        Witness { receipt: Signed::seal(&receipt, &node), cert: Signed::seal(&cert, &owner) }
    }

    fn shard(index: u32) -> ShardInfo {
        ShardInfo { stage: Stage::Map, index, count: 2 }
    }

    fn accepted(rate_ppm: Option<u32>, witnesses: Vec<Witness>) -> Accepted {
        let receipt = witnesses[0].open().unwrap().id();
        let quorum = u8::try_from(witnesses.len()).unwrap();
        Accepted { quorum, witnesses, drawn: rate_ppm.map(|rate_ppm| Drawn { receipt, rate_ppm }) }
    }

    fn checked(results: Vec<Accepted>) -> Result<Audited, AuditError> {
        check(JOB, SECRET.hash(), &SECRET, &results.into_iter().map(Record::Accepted).collect::<Vec<_>>())
    }

    #[test]
    fn results_are_counted_by_what_they_stand_on() {
        let one = accepted(Some(0), vec![witness(1, 0, 1)]);
        let two = accepted(Some(PPM), vec![witness(1, 1, 1), witness(2, 1, 1)]);
        let audited = checked(vec![one, two]).unwrap();
        assert_eq!((audited.results, audited.by_word, audited.by_audit, audited.by_quorum), (2, 1, 1, 0));
        assert_eq!((audited.rate_ppm_min, audited.rate_ppm_max), (Some(0), Some(PPM)));
    }

    #[test]
    fn what_is_not_as_it_should_be_is_named() {
        let fine = || accepted(Some(0), vec![witness(1, 0, 1)]);
        let refused = |other: Accepted| checked(vec![fine(), other]).unwrap_err().to_string();
        let spared = accepted(Some(PPM), vec![witness(1, 1, 1)]);
        assert!(refused(spared).contains("shard 1: it was drawn for an audit at a rate of 1000000 ppm"));
        let undrawn = accepted(None, vec![witness(1, 1, 1)]);
        assert!(refused(undrawn).contains("nothing was drawn for it"));
        let mut stranger = accepted(Some(0), vec![witness(1, 1, 1)]);
        stranger.drawn = Some(Drawn { receipt: ReceiptId([0; 32]), rate_ppm: 0 });
        assert!(refused(stranger).contains("is not among its records"));
        let mut torn = accepted(Some(0), vec![witness(1, 1, 1)]);
        torn.witnesses[0].cert = witness(2, 1, 1).cert;
        assert!(refused(torn).contains("record 1: certificate does not tie node"));
        assert!(checked(vec![fine()]).unwrap_err().to_string().contains("shard 1 of 2 has no record"));
        let other = check(JobId([9; 32]), SECRET.hash(), &SECRET, &[Record::Accepted(fine())]).unwrap_err();
        assert!(other.to_string().starts_with("record 0 is about job"));
        let other = check(JOB, Secret::from_bytes([1; 32]).hash(), &SECRET, &[]).unwrap_err();
        assert!(other.to_string().contains("not the one that was committed to"));
    }

    #[test]
    fn a_job_of_which_nobody_reproduced_a_shard_is_told_as_that() {
        let one = Record::Accepted(accepted(Some(0), vec![witness(1, 0, 1)]));
        let witnesses = vec![witness(1, 1, 1), witness(2, 1, 2), witness(3, 1, 3)];
        let none = Record::Inconclusive(Inconclusive { quorum: 2, witnesses, outputs: Vec::new() });
        let refused = check(JOB, SECRET.hash(), &SECRET, &[one, none]).unwrap_err().to_string();
        assert_eq!(
            refused,
            "shard 1 of 2 has no result to audit: 3 receipts differ, and the job failed as inconclusive"
        );
    }

    #[test]
    fn the_receipt_that_was_drawn_for_may_be_the_one_that_was_contradicted() {
        let lie = witness(3, 1, 9);
        let truth = accepted(Some(PPM), vec![witness(1, 1, 1), witness(2, 1, 1)]);
        let drawn = Some(Drawn { receipt: lie.open().unwrap().id(), rate_ppm: PPM });
        let truth = Accepted { drawn, ..truth };
        let evidence = Record::Evidence(Evidence { accepted: truth.clone(), accused: lie });
        let fine = Record::Accepted(accepted(Some(0), vec![witness(1, 0, 1)]));
        let audited = check(JOB, SECRET.hash(), &SECRET, &[fine, Record::Accepted(truth), evidence]).unwrap();
        assert_eq!((audited.by_audit, audited.accused), (1, 1));
    }
}
