//! Two receipts that differ, and the one segment that says which of them is wrong.
//!
//! ```text
//! receipt A, record A ┐                                        ┌ state k-1, equal on both sides, proven under both roots
//! receipt B, record B ┴ first difference: segment k ──► Dispute ┤ what each says of the end of segment k, proven too
//!                                                              └ what a referee found, who ran segment k alone
//! ```
//! Both receipts are about the same task on the same engine in class `exact`, so at most one of them is right. A list of
//! states is one small blob, so that the first difference is found where both lists are; nothing has to be asked for over a
//! network in rounds. Whoever has the file, the snapshot of state k-1 and the content of the task runs segment k again and
//! comes to the same [`Judgement`], with no grid and on nobody's word.
//!
//! **What it proves.** A side whose claim is not what comes of the segment signed something false: either state k does not follow
//! from the state that it signed before, or the task does not end as it signed. The other side is right about this segment,
//! and about the whole only as far as nobody refutes it elsewhere.

use serde::{Deserialize, Serialize};

use crate::{
    canon::{self, CanonError},
    id::{BlobHash, StateRoot},
    job::Class,
    merkle::Proof,
    receipt::{Execution, Outcome, Receipt, RecordError, Witness},
    segment::{SEGMENTS_MAX, SegmentRecord, proven},
};

/// Length in bytes that a dispute's file may have.
pub const DISPUTE_BYTES_MAX: usize = 64 << 10;
/// Version of its layout.
pub const DISPUTE_VERSION: u32 = 1;

/// A file that anyone can check, and replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dispute {
    /// [`DISPUTE_VERSION`].
    pub version: u32,
    /// The segment in which they differ first, from 0.
    pub segment: u32,
    /// The state that it starts from; none for the first, which starts from the task alone.
    pub start: Option<Start>,
    /// One side.
    pub first: Side,
    /// The other.
    pub second: Side,
    /// What came of the segment where it was run for this file.
    pub found: End,
}

/// The state before the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Its root.
    pub state: StateRoot,
    /// The blob with its snapshot.
    pub snapshot: BlobHash,
}

/// Where two results of one task part, and what each side says of it: a dispute whose segment nobody has run yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parting {
    /// The segment, from 0.
    pub segment: u32,
    /// The state before it, on which they agree; none before the first.
    pub start: Option<StateRoot>,
    /// One side.
    pub first: Side,
    /// The other.
    pub second: Side,
}

impl Parting {
    /// Where these part, given that they do, by the records that they signed.
    pub fn new((first, of_first): (Witness, &SegmentRecord), (second, of_second): (Witness, &SegmentRecord)) -> Self {
        let segment = of_first.diverge(of_second);
        let start = segment.checked_sub(1).and_then(|before| of_first.states.get(before as usize).copied());
        let (first, second) = (Side::new(first, of_first, segment), Side::new(second, of_second, segment));
        Self { segment, start, first, second }
    }

    /// The dispute, with what came of the segment; `snapshot` is of the state before it.
    pub fn dispute(self, snapshot: Option<BlobHash>, found: End) -> Dispute {
        let Self { segment, start, first, second } = self;
        let start = start.zip(snapshot).map(|(state, snapshot)| Start { state, snapshot });
        Dispute { version: DISPUTE_VERSION, segment, start, first, second, found }
    }
}

/// What one host signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Side {
    /// Its receipt.
    pub witness: Witness,
    /// That it signed the state before the segment.
    pub start: Option<Proof>,
    /// What it says the segment led to.
    pub claim: Claim,
}

/// What a side says the segment led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Claim {
    /// To this state, as it proves.
    State {
        /// Its root.
        state: StateRoot,
        /// That it signed that.
        proof: Proof,
    },
    /// To the end of the task, as its receipt says: its record has no state more.
    End,
}

/// What a segment led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum End {
    /// To a state.
    State(StateRoot),
    /// To the end of the task.
    Task(Ending),
}

/// How a task ended: what a receipt says of it beside its states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ending {
    /// How.
    pub outcome: Outcome,
    /// Fuel spent.
    pub fuel_used: u64,
    /// Hash of what it wrote.
    pub output: BlobHash,
    /// Root over its inferences.
    pub nn_root: Option<BlobHash>,
}

impl From<&Execution> for Ending {
    fn from(execution: &Execution) -> Self {
        let Execution { outcome, fuel_used, output, nn_root, .. } = *execution;
        Self { outcome, fuel_used, output, nn_root }
    }
}

/// Why a file is no dispute, or none that holds.
#[derive(Debug, thiserror::Error)]
pub enum DisputeError {
    /// No dispute at all.
    #[error("not a dispute: {0}")]
    Form(#[from] CanonError),
    /// Of a later program.
    #[error("dispute has version {found}, and this program reads {DISPUTE_VERSION}")]
    Version {
        /// As found.
        found: u32,
    },
    /// A signature does not hold.
    #[error("{side} side: {source}")]
    Witness {
        /// `first` or `second`.
        side: &'static str,
        /// What is wrong.
        source: RecordError,
    },
    /// The receipts are no contradiction.
    #[error("receipts do not contradict each other: {rule}")]
    NoContradiction {
        /// What there is instead.
        rule: &'static str,
    },
    /// A proof does not lead to what was signed.
    #[error("{side} side: proof of the {what} does not lead to the signed segment root")]
    Proof {
        /// `first` or `second`.
        side: &'static str,
        /// Which proof.
        what: &'static str,
    },
    /// A number is out of bounds.
    #[error("segment {segment} is over the bound of {SEGMENTS_MAX} segments")]
    Segment {
        /// As found.
        segment: u32,
    },
}

impl DisputeError {
    /// A stable word for programs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Form(_) | Self::Version { .. } => "dispute_form",
            Self::Witness { .. } => "record",
            Self::NoContradiction { .. } => "no_contradiction",
            Self::Proof { .. } => "proof",
            Self::Segment { .. } => "dispute_form",
        }
    }
}

/// Who is right about a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// The first side; the second is refuted.
    First,
    /// The second side; the first is refuted.
    Second,
    /// Both are refuted.
    Neither,
}

/// A dispute whose signatures and proofs hold.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The receipt of the first side.
    pub first: Receipt,
    /// The receipt of the second side.
    pub second: Receipt,
    ends: [End; 2],
}

impl Checked {
    /// Who is right, if the segment led to this.
    pub fn judge(&self, found: &End) -> Judgement {
        let [first, second] = &self.ends;
        // They differ, so that not both are what was found.
        match (first == found, second == found) {
            (true, _) => Judgement::First,
            (_, true) => Judgement::Second,
            _ => Judgement::Neither,
        }
    }
}

impl Side {
    /// What a receipt says of a segment, out of the record that it signed.
    pub fn new(witness: Witness, record: &SegmentRecord, segment: u32) -> Self {
        let start = segment.checked_sub(1).and_then(|before| record.prove(before));
        let state = record.states.get(segment as usize).copied();
        let claim = match state.zip(record.prove(segment)) {
            Some((state, proof)) => Claim::State { state, proof },
            None => Claim::End,
        };
        Self { witness, start, claim }
    }

    /// What it says that the segment led to.
    fn end(&self) -> Option<End> {
        match &self.claim {
            Claim::State { state, .. } => Some(End::State(*state)),
            Claim::End => Some(End::Task(Ending::from(&self.witness.receipt.peek().ok()?.execution))),
        }
    }

    /// The receipt, and what it says that the segment led to, if it signed that.
    fn open(&self, name: &'static str, segment: u32, start: Option<StateRoot>) -> Result<(Receipt, End), DisputeError> {
        let receipt = self.witness.open().map_err(|source| DisputeError::Witness { side: name, source })?;
        let signed = receipt.execution.segment_root;
        let refused = |what| DisputeError::Proof { side: name, what };
        let holds =
            |state, proof: &Proof, index| proof.index == index && signed.is_some() && proven(state, proof) == signed;
        let states = match (start, &self.start, segment.checked_sub(1)) {
            (Some(state), Some(proof), Some(before)) if holds(state, proof, before) => Some(proof.count),
            (None, None, None) => None,
            _ => return Err(refused("state before")),
        };
        let end = match &self.claim {
            Claim::State { state, proof } if holds(*state, proof, segment) => End::State(*state),
            Claim::State { .. } => return Err(refused("state after")),
            // There are no more states than those before.
            Claim::End if states.map_or(signed.is_none(), |count| count == segment) => {
                End::Task(Ending::from(&receipt.execution))
            }
            Claim::End => return Err(refused("end")),
        };
        Ok((receipt, end))
    }
}

impl Dispute {
    /// The canonical bytes: what a dispute's file holds.
    pub fn to_bytes(&self) -> Vec<u8> {
        canon::encode(self)
    }

    /// The dispute with these canonical bytes.
    ///
    /// # Errors
    /// When the bytes are no canonical dispute.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DisputeError> {
        let dispute: Self = canon::decode(bytes, DISPUTE_BYTES_MAX)?;
        if dispute.version == DISPUTE_VERSION {
            Ok(dispute)
        } else {
            Err(DisputeError::Version { found: dispute.version })
        }
    }

    /// Who is right and who is wrong by what was found, if one of them is right. Whether anything of it holds is for
    /// [`Dispute::check`] to say.
    pub fn settled(&self) -> Option<(&Side, &Side)> {
        let holds = |side: &Side| side.end() == Some(self.found);
        match (holds(&self.first), holds(&self.second)) {
            (true, false) => Some((&self.first, &self.second)),
            (false, true) => Some((&self.second, &self.first)),
            _ => None,
        }
    }

    /// Checks every signature and proof, and that the two sides contradict each other.
    ///
    /// # Errors
    /// Names the first thing that does not hold.
    pub fn check(&self) -> Result<Checked, DisputeError> {
        if self.segment >= SEGMENTS_MAX {
            return Err(DisputeError::Segment { segment: self.segment });
        }
        let start = self.start.map(|start| start.state);
        let (first, first_end) = self.first.open("first", self.segment, start)?;
        let (second, second_end) = self.second.open("second", self.segment, start)?;
        contradict(&first.execution, &second.execution)?;
        if first_end == second_end {
            return Err(DisputeError::NoContradiction { rule: "both say the same of this segment" });
        }
        Ok(Checked { first, second, ends: [first_end, second_end] })
    }
}

/// Whether two executions cannot both be right.
///
/// # Errors
/// Says why they can.
pub fn contradict(first: &Execution, second: &Execution) -> Result<(), DisputeError> {
    let rules = [
        (first.task == second.task && first.module == second.module, "they are about different tasks"),
        (first.engine == second.engine, "they are of different engines"),
        (first.class == Class::Exact && second.class == Class::Exact, "their class is not exact"),
        (first.commitment() != second.commitment(), "they agree"),
    ];
    match rules.into_iter().find(|(kept, _)| !kept) {
        Some((_, rule)) => Err(DisputeError::NoContradiction { rule }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::{EngineFingerprint, JobId, ModuleHash, NodeId, OperatorId, TaskId},
        job::{ShardInfo, Stage},
        membership::NodeCert,
        receipt::Record,
        sign::{SecretKey, Signed},
    };

    fn record(states: &[u8]) -> SegmentRecord {
        SegmentRecord { states: states.iter().map(|state| StateRoot([*state; 32])).collect() }
    }

    fn execution(record: &SegmentRecord, output: u8) -> Execution {
        Execution {
            task: TaskId([2; 32]),
            module: ModuleHash([3; 32]),
            class: Class::Exact,
            engine: EngineFingerprint([4; 32]),
            outcome: Outcome::Ok,
            fuel_used: 5,
            output: BlobHash([output; 32]),
            nn_root: None,
            segment_root: record.root(),
        }
    }

    fn witness(host: u8, execution: Execution) -> Witness {
        let (machine, owner) = (SecretKey::from_bytes(&[host; 32]), SecretKey::from_bytes(&[host + 100; 32]));
        let node = NodeId(machine.public());
        let receipt = Receipt {
            job: JobId([1; 32]),
            shard: ShardInfo { stage: Stage::Map, index: 0, count: 1 },
            execution,
            device: None,
            node,
            operator: OperatorId(owner.public()),
            nonce: host.into(),
            price_micro: 0,
            nn_record: None,
            segment_record: None,
        };
        let cert = NodeCert { node, issued_ms: 0 };
        Witness { receipt: Signed::seal(&receipt, &machine), cert: Signed::seal(&cert, &owner) }
    }

    /// A dispute of two hosts with these states, whose outputs differ; the referee found what the first says.
    fn dispute(first: &[u8], second: &[u8]) -> Dispute {
        let (first, second) = (record(first), record(second));
        let side = |host, record: &SegmentRecord| witness(host, execution(record, host));
        let parting = Parting::new((side(1, &first), &first), (side(2, &second), &second));
        let found = match first.states.get(parting.segment as usize) {
            Some(state) => End::State(*state),
            None => End::Task(Ending::from(&execution(&first, 1))),
        };
        parting.dispute(Some(BlobHash([6; 32])), found)
    }

    #[test]
    fn whoever_signed_what_was_found_is_right_wherever_they_part() {
        let cases: [(&[u8], &[u8], u32); 7] = [
            (&[1, 2, 3], &[1, 9, 8], 1),
            (&[1, 2, 3], &[7, 9, 8], 0),
            (&[1, 2, 3], &[1, 2, 3], 3),
            (&[1, 2, 3], &[1, 2], 2),
            (&[1, 2], &[1, 2, 3], 2),
            (&[], &[1], 0),
            (&[], &[], 0),
        ];
        for (first, second, segment) in cases {
            let dispute = dispute(first, second);
            assert_eq!(dispute.segment, segment);
            let checked = dispute.check().unwrap();
            assert_eq!(checked.judge(&dispute.found), Judgement::First, "{first:?} {second:?}");
            let turned = Dispute { first: dispute.second.clone(), second: dispute.first.clone(), ..dispute.clone() };
            assert_eq!(turned.check().unwrap().judge(&dispute.found), Judgement::Second);
            assert_eq!(checked.judge(&End::State(StateRoot([99; 32]))), Judgement::Neither);
            assert_eq!(Dispute::from_bytes(&dispute.to_bytes()).unwrap(), dispute);
        }
    }

    #[test]
    fn what_does_not_contradict_is_no_dispute() {
        let refused = |change: fn(&mut Execution)| {
            let mut dispute = dispute(&[1, 2, 3], &[1, 9, 8]);
            let mut other = execution(&record(&[1, 9, 8]), 2);
            change(&mut other);
            dispute.second.witness = witness(2, other);
            dispute.check().unwrap_err().to_string()
        };
        assert!(refused(|other| other.task.0[0] ^= 1).contains("different tasks"));
        assert!(refused(|other| other.engine.0[0] ^= 1).contains("different engines"));
        assert!(refused(|other| other.class = Class::Tolerant).contains("class is not exact"));
        let mut same = dispute(&[1, 2, 3], &[1, 9, 8]);
        same.second = same.first.clone();
        assert!(same.check().unwrap_err().to_string().contains("they agree"));
    }

    #[test]
    fn a_proof_of_anything_else_is_refused() {
        let whole = dispute(&[1, 2, 3], &[1, 9, 8]);
        let refused = |change: &dyn Fn(&mut Dispute)| {
            let mut changed = whole.clone();
            change(&mut changed);
            changed.check().unwrap_err().to_string()
        };
        // Another leaf, another place, another list, nothing at all.
        let other = record(&[1, 2, 3]);
        assert!(
            refused(&|dispute| dispute.start.as_mut().unwrap().state.0[0] ^= 1)
                .contains("first side: proof of the state before")
        );
        assert!(
            refused(&|dispute| dispute.second.start = other.prove(0))
                .contains("second side: proof of the state before")
        );
        assert!(
            refused(&|dispute| dispute.first.start = other.prove(1)).contains("first side: proof of the state before")
        );
        assert!(refused(&|dispute| dispute.first.start = None).contains("state before"));
        assert!(refused(&|dispute| dispute.start = None).contains("state before"));
        assert!(refused(&|dispute| dispute.segment = 2).contains("state before"));
        assert!(refused(&|dispute| dispute.segment = SEGMENTS_MAX).contains("over the bound of 4096 segments"));
        // A side cannot say that it ended where it did not, nor claim a state that it did not sign.
        assert!(refused(&|dispute| dispute.second.claim = Claim::End).contains("second side: proof of the end"));
        let claim = |state| Claim::State { state: StateRoot([state; 32]), proof: other.prove(1).unwrap() };
        assert!(refused(&|dispute| dispute.second.claim = claim(9)).contains("second side: proof of the state after"));
        assert!(refused(&|dispute| dispute.first.claim = claim(9)).contains("first side: proof of the state after"));
        // And nobody else can sign for it.
        assert!(
            refused(&|dispute| dispute.first.witness.cert = dispute.second.witness.cert.clone())
                .starts_with("first side: certificate")
        );
    }

    #[test]
    fn a_side_with_states_cannot_say_that_it_ended_in_the_first_segment() {
        let mut dispute = dispute(&[1, 2], &[7, 2]);
        dispute.first.claim = Claim::End;
        assert!(dispute.check().unwrap_err().to_string().contains("proof of the end"));
    }

    #[test]
    fn a_dispute_is_a_record_against_the_side_that_is_refuted() {
        let dispute = dispute(&[1, 2, 3], &[1, 9, 8]);
        let of = |dispute: &Dispute| Record::Dispute(Box::new(dispute.clone()));
        let record = Record::from_bytes(&of(&dispute).to_bytes()).unwrap();
        let checked = record.check().unwrap();
        let (right, wrong) = (dispute.first.witness.open().unwrap(), dispute.second.witness.open().unwrap());
        assert_eq!(checked.execution, right.execution);
        assert_eq!(checked.accused, Some((wrong.node, wrong.execution.commitment())));
        assert_eq!(
            (record.agreeing(), record.accused().cloned()),
            (&[dispute.first.witness.clone()][..], Some(dispute.second.witness.clone()))
        );
        // The same of the other side, of none, and of one that does not hold.
        let other = Dispute { found: End::State(StateRoot([9; 32])), ..dispute.clone() };
        assert_eq!(of(&other).check().unwrap().accused.map(|(node, _)| node), Some(right.node));
        let neither = Dispute { found: End::State(StateRoot([99; 32])), ..dispute.clone() };
        assert!(of(&neither).check().unwrap_err().to_string().contains("refutes both"));
        assert_eq!((of(&neither).agreeing().len(), of(&neither).accused()), (0, None));
        let forged = Dispute { segment: 2, ..dispute };
        assert!(of(&forged).check().unwrap_err().to_string().contains("state before"));
    }

    #[test]
    fn form_version_and_length_are_checked() {
        let dispute = dispute(&[1, 2, 3], &[1, 9, 8]);
        let bytes = dispute.to_bytes();
        assert!(Dispute::from_bytes(&bytes[..bytes.len() - 1]).unwrap_err().to_string().starts_with("not a dispute"));
        assert!(Dispute::from_bytes(&[0; DISPUTE_BYTES_MAX + 1]).unwrap_err().to_string().contains("over the bound"));
        let later = Dispute { version: 2, ..dispute };
        assert_eq!(
            Dispute::from_bytes(&later.to_bytes()).unwrap_err().to_string(),
            "dispute has version 2, and this program reads 1"
        );
    }
}
