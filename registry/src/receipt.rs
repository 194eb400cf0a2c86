//! What a host signs about one execution, and the records that anyone can check offline.
//!
//! An [`Execution`] is what must be equal on every host of one fingerprint: its hash is the [`Commitment`] that a quorum
//! compares. A [`Receipt`] binds an execution to a host, an operator, an assignment and a price; the host signs it. Wall
//! time is no part of either. A [`Record`] is a file: the receipts that a shard was [`Accepted`] on, the
//! [`Evidence`] that a host signed something else, or the [`Dispute`] that refutes it. Both carry the operators' certificates, so [`Record::check`] needs
//! nothing but the file.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    audit::Drawn,
    canon,
    device::Device,
    dispute::Dispute,
    id::{BlobHash, Commitment, EngineFingerprint, JobId, ModuleHash, NodeId, OperatorId, ReceiptId, TaskId},
    job::{Class, QUORUM_MAX, ShardInfo},
    log::{Conflict, Heads, heads::HeadError},
    membership::NodeCert,
    preimage::Preimage,
    sign::{SignatureError, Signed, Statement},
};

/// Length in bytes that a path below `/out` may have.
pub const OUTPUT_PATH_BYTES_MAX: usize = 1024;
/// Files that a task may write below `/out`.
pub const OUTPUT_FILES_MAX: usize = 1024;
/// Length in bytes that a record file may have.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// How a task ended. Each is a result: deterministic, signed, paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Returned, or exited with 0.
    Ok,
    /// Exited with this code, 1 to 255.
    Exit(u8),
    /// Stopped by a trap.
    Trap(Trap),
    /// Spent its fuel.
    FuelOut,
    /// Failed after it asked for more memory than its limit.
    MemoryOut,
    /// Wrote more than its limit.
    OutputOut,
}

/// The traps of core WebAssembly that are the same on every host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trap {
    /// `unreachable` was reached: how most languages abort.
    Unreachable,
    /// A load or store outside the memory.
    MemoryOutOfBounds,
    /// An access outside a table.
    TableOutOfBounds,
    /// An indirect call to an empty slot.
    IndirectCallToNull,
    /// An indirect call with another signature.
    BadSignature,
    /// An integer overflow.
    IntegerOverflow,
    /// A division by zero.
    IntegerDivisionByZero,
    /// A float that is no integer.
    BadConversionToInteger,
    /// A misaligned atomic.
    HeapMisaligned,
    /// Calls nested deeper than the stack.
    StackOverflow,
}

impl Outcome {
    /// A stable word for its kind, for metrics and programs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Exit(_) => "exit",
            Self::Trap(_) => "trap",
            Self::FuelOut => "fuel_out",
            Self::MemoryOut => "memory_out",
            Self::OutputOut => "output_out",
        }
    }
}

impl Trap {
    /// A stable word, as it is encoded.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::MemoryOutOfBounds => "memory_out_of_bounds",
            Self::TableOutOfBounds => "table_out_of_bounds",
            Self::IndirectCallToNull => "indirect_call_to_null",
            Self::BadSignature => "bad_signature",
            Self::IntegerOverflow => "integer_overflow",
            Self::IntegerDivisionByZero => "integer_division_by_zero",
            Self::BadConversionToInteger => "bad_conversion_to_integer",
            Self::HeapMisaligned => "heap_misaligned",
            Self::StackOverflow => "stack_overflow",
        }
    }
}

/// One word: `ok`, `exit(3)`, `trap(unreachable)`.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit({code})"),
            Self::Trap(trap) => write!(f, "trap({})", trap.word()),
            outcome => f.write_str(outcome.word()),
        }
    }
}

/// What a task wrote: standard output and a sorted tree of files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Hash of standard output.
    pub stdout: BlobHash,
    /// Length of standard output in bytes.
    pub stdout_bytes: u64,
    /// Files below `/out`, by path.
    pub files: Vec<OutputFile>,
}

/// One file below `/out`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputFile {
    /// Relative path, components joined by `/`.
    pub path: String,
    /// Hash of the content.
    pub hash: BlobHash,
    /// Length in bytes.
    pub bytes: u64,
}

impl Output {
    /// The hash that an execution commits to.
    pub fn hash(&self) -> BlobHash {
        BlobHash(self.name())
    }

    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(self.stdout_bytes, |sum, file| sum.saturating_add(file.bytes))
    }
}

impl Preimage for Output {
    const WHAT: &'static str = "output";
    const DOMAIN: &'static str = "quorate/output/1";
    const BYTES_MAX: usize = OUTPUT_FILES_MAX * (OUTPUT_PATH_BYTES_MAX + 128) + 128;
}

/// What must be equal on every host of one fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Execution {
    /// The task.
    pub task: TaskId,
    /// The module, again, for who has only the receipt.
    pub module: ModuleHash,
    /// The class that it ran in.
    pub class: Class,
    /// The conditions that it ran under.
    pub engine: EngineFingerprint,
    /// How it ended.
    pub outcome: Outcome,
    /// Fuel spent.
    pub fuel_used: u64,
    /// [`Output::hash`] of what it wrote.
    pub output: BlobHash,
    /// Root over its inferences, each (model, input, output); none ran when absent.
    pub nn_root: Option<BlobHash>,
    /// Root over the states after its steps; one segment when absent.
    pub segment_root: Option<BlobHash>,
}

impl Execution {
    /// What a quorum compares.
    pub fn commitment(&self) -> Commitment {
        Commitment(canon::hash("quorate/execution/1", self))
    }
}

/// What a host signs about one execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The job.
    pub job: JobId,
    /// Which part of it.
    pub shard: ShardInfo,
    /// What was run and what came of it.
    pub execution: Execution,
    /// What its inferences ran on; absent when none ran, or when its engine depends on no device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// The machine; its key signs.
    pub node: NodeId,
    /// Who answers for it.
    pub operator: OperatorId,
    /// The assignment's nonce: a receipt answers one assignment and no other.
    pub nonce: u64,
    /// Price asked, in micro-credits.
    pub price_micro: u64,
    /// The blob with what the models answered, where the execution's class asks for one; its outputs hash to those that the
    /// execution commits to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nn_record: Option<BlobHash>,
    /// The blob with the states of its segments, where there are several; they hash to the segment root that the execution
    /// commits to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment_record: Option<BlobHash>,
}

impl Statement for Receipt {
    const DOMAIN: &'static str = "quorate/receipt/1";
    const BYTES_MAX: usize = 2048;
}

impl Receipt {
    /// The hash that names it.
    pub fn id(&self) -> ReceiptId {
        ReceiptId(canon::hash(Self::DOMAIN, self))
    }
}

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
}

/// What a record says, once checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The job.
    pub job: JobId,
    /// Which part of it.
    pub shard: ShardInfo,
    /// What was accepted.
    pub execution: Execution,
    /// Its hash.
    pub commitment: Commitment,
    /// Distinct operators that signed it.
    pub operators: Vec<OperatorId>,
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
        }
    }

    /// The receipt that it accuses, if it does.
    pub fn accused(&self) -> Option<&Witness> {
        match self {
            Self::Accepted(_) => None,
            Self::Evidence(evidence) => Some(&evidence.accused),
            Self::Dispute(dispute) => dispute.settled().map(|(_, wrong)| &wrong.witness),
        }
    }

    /// All receipts in it.
    pub fn witnesses(&self) -> impl Iterator<Item = &Witness> {
        self.agreeing().iter().chain(self.accused())
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
    use crate::{job::Stage, sign::SecretKey};

    fn execution(output: &[u8]) -> Execution {
        Execution {
            task: TaskId([3; 32]),
            module: ModuleHash::of(b"module"),
            class: Class::Exact,
            engine: EngineFingerprint([4; 32]),
            outcome: Outcome::Ok,
            fuel_used: 1000,
            output: BlobHash::of(output),
            nn_root: None,
            segment_root: None,
        }
    }

    fn witness(host: u8, output: &[u8]) -> Witness {
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
    fn an_outcome_is_one_word_and_a_traps_word_is_its_encoding() {
        assert_eq!(Outcome::Exit(3).to_string(), "exit(3)");
        assert_eq!(Outcome::Trap(Trap::Unreachable).to_string(), "trap(unreachable)");
        assert_eq!(Outcome::FuelOut.to_string(), "fuel_out");
        for trap in [
            Trap::Unreachable,
            Trap::MemoryOutOfBounds,
            Trap::TableOutOfBounds,
            Trap::IndirectCallToNull,
            Trap::BadSignature,
            Trap::IntegerOverflow,
            Trap::IntegerDivisionByZero,
            Trap::BadConversionToInteger,
            Trap::HeapMisaligned,
            Trap::StackOverflow,
        ] {
            assert_eq!(canon::encode(&trap), canon::encode(&trap.word()));
        }
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
