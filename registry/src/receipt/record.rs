//! Records: files about a shard that anyone can check.
//!
//! - [`Accepted`]: the receipts that its result stands on.
//! - [`Evidence`]: that a host signed something else. [`Dispute`]: that the one segment in which it did refutes it.
//! - [`Inconclusive`]: the receipts of a shard that nobody reproduced; nobody is accused.
//!
//! Each carries the operators' certificates, so [`Record::check`] needs nothing but the file.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Execution, Output, Receipt};
use crate::{
    audit::Drawn,
    canon,
    device::Device,
    dispute::Dispute,
    id::{BlobHash, Commitment, JobId, NodeId, OperatorId},
    job::{Class, QUORUM_MAX, ShardInfo},
    log::{Conflict, Heads, heads::HeadError},
    membership::NodeCert,
    sign::{SignatureError, Signed},
};

/// Length in bytes that a record file may have.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// Length in bytes that outputs in a record may have together.
const OUTPUTS_BYTES_MAX: usize = RECORD_BYTES_MAX / 2;

/// A receipt with the certificate that ties its machine to its operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// Signed by the machine.
    pub receipt: Signed<Receipt>,
    /// Signed by the operator.
    pub cert: Signed<NodeCert>,
}

/// Why a witness or a record is not believed.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not a record file.
    #[error("not a record of receipts: {0}")]
    Form(#[from] canon::CanonError),
    /// A signature does not hold.
    #[error("{0}")]
    Signature(SignatureError),
    /// A host contradicts itself.
    #[error("{0}")]
    Conflict(Box<Conflict>),
    /// Signed by another machine than it names.
    #[error("receipt names node {named} but another key signed it")]
    Signer {
        /// The node named.
        named: NodeId,
    },
    /// The certificate is for another machine or operator.
    #[error("certificate does not tie node {node} to operator {operator}")]
    Operator {
        /// The node.
        node: NodeId,
        /// The operator named.
        operator: OperatorId,
    },
    /// The receipts are about different work.
    #[error("receipts are not about the same shard of the same job")]
    Subject,
    /// The receipts that should agree do not.
    #[error("receipts of the quorum do not agree on one commitment")]
    Disagree,
    /// Fewer distinct operators than the quorum.
    #[error("{operators} distinct operators agree, fewer than the quorum of {quorum}")]
    Quorum {
        /// As counted.
        operators: usize,
        /// As claimed.
        quorum: u8,
    },
    /// The receipts that should differ do not.
    #[error("record shows nothing that differs: its receipts have one commitment, or one operator signed two of them")]
    NoDifference,
    /// An output is not what its receipt commits to.
    #[error("record has output {found} beside a receipt that commits to {named}")]
    Output {
        /// As the receipt names it.
        named: BlobHash,
        /// As it is.
        found: BlobHash,
    },
    /// The receipt that should contradict does not.
    #[error(
        "evidence shows no contradiction: the accused receipt agrees with the quorum, or ran another task or engine"
    )]
    NoContradiction,
    /// A dispute that does not hold, or that refutes both of its sides.
    #[error("{detail}")]
    Dispute {
        /// Why.
        detail: String,
    },
}

impl From<SignatureError> for RecordError {
    fn from(error: SignatureError) -> Self {
        Self::Signature(error)
    }
}

impl From<HeadError> for RecordError {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Signature(error) => Self::Signature(error),
            HeadError::Conflict(conflict) => Self::Conflict(conflict),
        }
    }
}

impl Witness {
    /// The receipt, when both signatures hold and tie together.
    ///
    /// # Errors
    /// Names what does not hold.
    pub fn open(&self) -> Result<Receipt, RecordError> {
        self.open_by(&mut Heads::default())
    }

    /// The same, beside heads that are known from elsewhere.
    ///
    /// # Errors
    /// Names what does not hold, or contradicts those.
    pub fn open_by(&self, heads: &mut Heads) -> Result<Receipt, RecordError> {
        let (receipt, signer) = self.receipt.open_by(|head| heads.believe(head).map_err(RecordError::from))?;
        let (cert, operator) = self.cert.open()?;
        if receipt.node.0 != signer {
            return Err(RecordError::Signer { named: receipt.node });
        }
        if cert.node != receipt.node || receipt.operator.0 != operator {
            return Err(RecordError::Operator { node: receipt.node, operator: receipt.operator });
        }
        Ok(receipt)
    }
}

/// Why a shard's result stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// Distinct operators that had to agree.
    pub quorum: u8,
    /// Those that did.
    pub witnesses: Vec<Witness>,
    /// What was drawn for the first receipt, where the job's policy is to audit; none when operators without standing agreed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drawn: Option<Drawn>,
}

/// Proof that a host signed a result that a quorum contradicts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// What the quorum says.
    pub accepted: Accepted,
    /// What the host signed.
    pub accused: Witness,
}

/// The receipts of a shard of which none was signed by as many as had to agree: its module is likely to differ from run to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inconclusive {
    /// Distinct operators that had to agree.
    pub quorum: u8,
    /// What each of those that were asked has signed.
    pub witnesses: Vec<Witness>,
    /// What they wrote, in the same order, so that what they are paid can be computed again; none where that is too much for a record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Output>,
}

/// A file that anyone can check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Record {
    /// Why a shard's result stands.
    Accepted(Accepted),
    /// Proof against a host.
    Evidence(Evidence),
    /// Proof against a host by the one segment of the task in which its receipt parts from another one's: what came of it was found by
    /// a referee, and anyone can run it again.
    Dispute(Box<Dispute>),
    /// Why a shard has no result.
    Inconclusive(Inconclusive),
}

/// What a record says, once checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The job.
    pub job: JobId,
    /// Which part of it.
    pub shard: ShardInfo,
    /// What was accepted; the first of those that differ, where nothing was.
    pub execution: Execution,
    /// Its hash.
    pub commitment: Commitment,
    /// Distinct operators that signed it, or one of those that differ.
    pub operators: Vec<OperatorId>,
    /// How many commitments there are where nothing was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differing: Option<usize>,
    /// Distinct devices that they say its inferences ran on; none when nothing was inferred.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// The blob with what the models answered, if a receipt names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nn_record: Option<BlobHash>,
    /// The blob with the states of its segments, if a receipt names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment_record: Option<BlobHash>,
    /// The blob with the state that a dispute's segment is run from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<BlobHash>,
    /// The node that signed something else, with the commitment that it signed.
    pub accused: Option<(NodeId, Commitment)>,
}

impl Accepted {
    fn check(&self, heads: &mut Heads) -> Result<Checked, RecordError> {
        let quorum = self.quorum.clamp(1, QUORUM_MAX);
        let none = RecordError::Quorum { operators: 0, quorum };
        let (first, rest) = self.witnesses.split_first().ok_or(none)?;
        let first = first.open_by(heads)?;
        let commitment = first.execution.commitment();
        let mut operators = BTreeSet::from([first.operator]);
        let mut devices = BTreeSet::from_iter(first.device.clone());
        let (mut nn_record, mut segment_record) = (first.nn_record, first.segment_record);
        for witness in rest {
            let receipt = witness.open_by(heads)?;
            if (receipt.job, receipt.shard) != (first.job, first.shard) {
                return Err(RecordError::Subject);
            }
            if receipt.execution.commitment() != commitment {
                return Err(RecordError::Disagree);
            }
            operators.insert(receipt.operator);
            devices.extend(receipt.device);
            // They agree on its hashes, so that one is as good as another.
            nn_record = nn_record.or(receipt.nn_record);
            segment_record = segment_record.or(receipt.segment_record);
        }
        if operators.len() < usize::from(quorum) {
            return Err(RecordError::Quorum { operators: operators.len(), quorum });
        }
        let Receipt { job, shard, execution, .. } = first;
        let (operators, devices) = (operators.into_iter().collect(), devices.into_iter().collect());
        Ok(Checked {
            job,
            shard,
            execution,
            commitment,
            operators,
            devices,
            nn_record,
            segment_record,
            differing: None,
            snapshot: None,
            accused: None,
        })
    }
}

impl Inconclusive {
    /// The record of these receipts, with what each of them wrote.
    pub fn of(quorum: u8, signed: impl IntoIterator<Item = (Witness, Output)>) -> Self {
        let (witnesses, outputs): (Vec<_>, Vec<_>) = signed.into_iter().unzip();
        let is_short = canon::encode(&outputs).len() <= OUTPUTS_BYTES_MAX;
        Self { quorum, witnesses, outputs: if is_short { outputs } else { Vec::new() } }
    }

    fn check(&self, heads: &mut Heads) -> Result<Checked, RecordError> {
        let receipts: Vec<Receipt> =
            self.witnesses.iter().map(|witness| witness.open_by(heads)).collect::<Result<_, _>>()?;
        let first = receipts.first().ok_or(RecordError::NoDifference)?;
        let subject = |receipt: &Receipt| (receipt.job, receipt.shard, receipt.execution.task);
        if receipts.iter().any(|receipt| subject(receipt) != subject(first)) {
            return Err(RecordError::Subject);
        }
        let operators: BTreeSet<OperatorId> = receipts.iter().map(|receipt| receipt.operator).collect();
        let commitments: BTreeSet<Commitment> = receipts.iter().map(|receipt| receipt.execution.commitment()).collect();
        if operators.len() < receipts.len() || commitments.len() < 2 {
            return Err(RecordError::NoDifference);
        }
        for (receipt, output) in receipts.iter().zip(&self.outputs) {
            let (named, found) = (receipt.execution.output, output.hash());
            if named != found {
                return Err(RecordError::Output { named, found });
            }
        }
        let devices: BTreeSet<Device> = receipts.iter().filter_map(|receipt| receipt.device.clone()).collect();
        Ok(Checked {
            job: first.job,
            shard: first.shard,
            commitment: first.execution.commitment(),
            execution: first.execution.clone(),
            operators: operators.into_iter().collect(),
            differing: Some(commitments.len()),
            devices: devices.into_iter().collect(),
            nn_record: first.nn_record,
            segment_record: first.segment_record,
            snapshot: None,
            accused: None,
        })
    }
}

/// What a dispute proves: one side is right about a segment, and the other is not.
fn refuted(dispute: &Dispute, heads: &mut Heads) -> Result<Checked, RecordError> {
    dispute.check().map_err(|error| RecordError::Dispute { detail: error.to_string() })?;
    let both = || RecordError::Dispute { detail: "dispute refutes both of its sides, and none alone".to_owned() };
    let (right, wrong) = dispute.settled().ok_or_else(both)?;
    let (right, wrong) = (right.witness.open_by(heads)?, wrong.witness.open_by(heads)?);
    if (right.job, right.shard) != (wrong.job, wrong.shard) {
        return Err(RecordError::Subject);
    }
    let Receipt { job, shard, execution, operator, device, nn_record, segment_record, .. } = right;
    Ok(Checked {
        job,
        shard,
        commitment: execution.commitment(),
        execution,
        operators: vec![operator],
        devices: device.into_iter().collect(),
        nn_record,
        segment_record,
        differing: None,
        snapshot: dispute.start.map(|start| start.snapshot),
        accused: Some((wrong.node, wrong.execution.commitment())),
    })
}

impl Record {
    /// The canonical bytes: what a record file holds.
    pub fn to_bytes(&self) -> Vec<u8> {
        canon::encode(self)
    }

    /// The record with these canonical bytes.
    ///
    /// # Errors
    /// When the bytes are no canonical record.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        Ok(canon::decode(bytes, RECORD_BYTES_MAX)?)
    }

    /// The receipts that agree on what it says is right, as far as it holds.
    pub fn agreeing(&self) -> &[Witness] {
        match self {
            Self::Accepted(accepted) => &accepted.witnesses,
            Self::Evidence(evidence) => &evidence.accepted.witnesses,
            Self::Dispute(dispute) => dispute.settled().map_or(&[], |(right, _)| std::slice::from_ref(&right.witness)),
            Self::Inconclusive(_) => &[],
        }
    }

    /// The receipt that it accuses, if it does.
    pub fn accused(&self) -> Option<&Witness> {
        match self {
            Self::Accepted(_) | Self::Inconclusive(_) => None,
            Self::Evidence(evidence) => Some(&evidence.accused),
            Self::Dispute(dispute) => dispute.settled().map(|(_, wrong)| &wrong.witness),
        }
    }

    /// All receipts in it.
    pub fn witnesses(&self) -> impl Iterator<Item = &Witness> {
        let differing = match self {
            Self::Inconclusive(record) => &record.witnesses[..],
            Self::Accepted(_) | Self::Evidence(_) | Self::Dispute(_) => &[],
        };
        self.agreeing().iter().chain(self.accused()).chain(differing)
    }

    /// Checks every signature and that they say what the record claims.
    ///
    /// # Errors
    /// Names the first thing that does not hold.
    pub fn check(&self) -> Result<Checked, RecordError> {
        self.check_by(&mut Heads::default())
    }

    /// The same, beside heads that are known from elsewhere.
    ///
    /// # Errors
    /// Names the first thing that does not hold, or contradicts those.
    pub fn check_by(&self, heads: &mut Heads) -> Result<Checked, RecordError> {
        let evidence = match self {
            Self::Accepted(accepted) => return accepted.check(heads),
            Self::Dispute(dispute) => return refuted(dispute, heads),
            Self::Inconclusive(record) => return record.check(heads),
            Self::Evidence(evidence) => evidence,
        };
        let checked = evidence.accepted.check(heads)?;
        let accused = evidence.accused.open_by(heads)?;
        if (accused.job, accused.shard) != (checked.job, checked.shard) {
            return Err(RecordError::Subject);
        }
        let (signed, truth) = (&accused.execution, &checked.execution);
        let same_work = signed.task == truth.task && signed.engine == truth.engine && signed.class == Class::Exact;
        let commitment = signed.commitment();
        if !same_work || commitment == checked.commitment {
            return Err(RecordError::NoContradiction);
        }
        Ok(Checked { accused: Some((accused.node, commitment)), ..checked })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::{EngineFingerprint, ModuleHash, TaskId},
        job::Stage,
        receipt::{Outcome, OutputFile},
        sign::SecretKey,
    };

    fn execution(output: BlobHash) -> Execution {
        Execution {
            task: TaskId([3; 32]),
            module: ModuleHash::of(b"module"),
            class: Class::Exact,
            engine: EngineFingerprint([4; 32]),
            outcome: Outcome::Ok,
            fuel_used: 1000,
            output,
            nn_root: None,
            segment_root: None,
        }
    }

    fn witness(host: u8, output: &[u8]) -> Witness {
        witness_of(host, BlobHash::of(output))
    }

    fn witness_of(host: u8, output: BlobHash) -> Witness {
        let (node, operator) = (SecretKey::from_bytes(&[host; 32]), SecretKey::from_bytes(&[host + 100; 32]));
        let receipt = Receipt {
            job: JobId([1; 32]),
            shard: ShardInfo { stage: Stage::Map, index: 0, count: 1 },
            execution: execution(output),
            device: None,
            node: NodeId(node.public()),
            operator: OperatorId(operator.public()),
            nonce: 9,
            price_micro: 0,
            nn_record: None,
            segment_record: None,
        };
        let cert = NodeCert { node: NodeId(node.public()), issued_ms: 0 };
        Witness { receipt: Signed::seal(&receipt, &node), cert: Signed::seal(&cert, &operator) }
    }

    fn accepted(witnesses: Vec<Witness>) -> Accepted {
        Accepted { quorum: 2, witnesses, drawn: None }
    }

    #[test]
    fn two_operators_that_agree_make_a_record_that_checks_from_its_file() {
        let record = Record::Accepted(accepted(vec![witness(1, b"7"), witness(2, b"7")]));
        let checked = Record::from_bytes(&record.to_bytes()).unwrap().check().unwrap();
        assert_eq!(checked.operators.len(), 2);
        assert_eq!(checked.accused, None);
    }

    #[test]
    fn one_operator_twice_is_no_quorum() {
        let record = Record::Accepted(accepted(vec![witness(1, b"7"), witness(1, b"7")]));
        assert!(matches!(record.check(), Err(RecordError::Quorum { operators: 1, quorum: 2 })));
    }

    #[test]
    fn evidence_needs_a_contradiction_about_the_same_work() {
        let truth = accepted(vec![witness(1, b"7"), witness(2, b"7")]);
        let lie = Record::Evidence(Evidence { accepted: truth.clone(), accused: witness(3, b"8") });
        assert!(lie.check().unwrap().accused.is_some());
        let honest = Record::Evidence(Evidence { accepted: truth, accused: witness(3, b"7") });
        assert!(matches!(honest.check(), Err(RecordError::NoContradiction)));
    }

    #[test]
    fn a_shard_that_nobody_reproduced_is_shown_by_receipts_that_differ_and_what_they_wrote() {
        let written =
            |bytes: &[u8]| Output { stdout: BlobHash::of(bytes), stdout_bytes: bytes.len() as u64, files: Vec::new() };
        let signed = |host: u8, bytes: &[u8]| (witness_of(host, written(bytes).hash()), written(bytes));
        let record = |signed: &[(Witness, Output)]| Record::Inconclusive(Inconclusive::of(2, signed.to_vec()));
        let three = [signed(1, b"7"), signed(2, b"8"), signed(3, b"7")];
        let fine = record(&three);
        let checked = Record::from_bytes(&fine.to_bytes()).unwrap().check().unwrap();
        assert_eq!((checked.differing, checked.operators.len(), checked.accused), (Some(2), 3, None));
        assert_eq!((fine.agreeing().len(), fine.witnesses().count()), (0, 3));
        for none in [&three[..1], &[signed(1, b"7"), signed(2, b"7")], &[signed(1, b"7"), signed(1, b"8")], &[]] {
            assert!(matches!(record(none).check(), Err(RecordError::NoDifference)));
        }
        let mut swapped = three.clone();
        swapped[1].1 = written(b"7");
        assert!(matches!(record(&swapped).check(), Err(RecordError::Output { .. })));
    }

    #[test]
    fn outputs_that_are_too_much_for_a_record_are_left_out_of_it() {
        let file = |index: usize| OutputFile { path: format!("{index:01000}"), bytes: 1, hash: BlobHash([7; 32]) };
        let large = Output { files: (0..600).map(file).collect(), stdout: BlobHash([0; 32]), stdout_bytes: 0 };
        let signed = [1, 2].map(|host| (witness_of(host, BlobHash([host; 32])), large.clone()));
        let record = Record::Inconclusive(Inconclusive::of(2, signed));
        assert!(record.to_bytes().len() < RECORD_BYTES_MAX);
        assert_eq!(record.check().unwrap().differing, Some(2));
    }

    #[test]
    fn a_certificate_of_another_operator_is_refused() {
        let mut forged = witness(1, b"7");
        forged.cert = witness(2, b"7").cert;
        let record = Record::Accepted(accepted(vec![forged, witness(2, b"7")]));
        assert!(matches!(record.check(), Err(RecordError::Operator { .. })));
    }

    #[test]
    fn any_changed_byte_of_a_record_is_noticed() {
        let record = Record::Accepted(accepted(vec![witness(1, b"7"), witness(2, b"7")]));
        let before = record.check().unwrap();
        let bytes = record.to_bytes();
        for at in (0..bytes.len()).step_by(7) {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let after = Record::from_bytes(&changed).and_then(|record| record.check());
            assert!(!after.is_ok_and(|after| after != before), "byte {at} changed what the record says");
        }
    }
}
