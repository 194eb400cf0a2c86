//! What a host signs about one execution.
//!
//! An [`Execution`] is what must be equal on every host of one fingerprint: its hash is the [`Commitment`] that a quorum
//! compares. A [`Receipt`] binds an execution to a host, an operator, an assignment and a price; the host signs it. Wall
//! time is no part of either. What anyone can check of receipts offline is a [`Record`].

mod record;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::record::{Accepted, Checked, Evidence, Inconclusive, RECORD_BYTES_MAX, Record, RecordError, Witness};
use crate::{
    canon,
    device::Device,
    id::{BlobHash, Commitment, EngineFingerprint, JobId, ModuleHash, NodeId, OperatorId, ReceiptId, TaskId},
    job::{Class, ShardInfo},
    preimage::Preimage,
    sign::Statement,
};

/// Length in bytes that a path below `/out` may have.
pub const OUTPUT_PATH_BYTES_MAX: usize = 1024;
/// Files that a task may write below `/out`.
pub const OUTPUT_FILES_MAX: usize = 1024;

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
    const DOMAIN: &'static str = "quorate/execution/1";

    /// What a quorum compares.
    pub fn commitment(&self) -> Commitment {
        Commitment(canon::hash(Self::DOMAIN, self))
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

    /// What it commits to, and the hash that names it: at once, since each receipt that comes in is asked for both.
    pub fn hashes(&self) -> (Commitment, ReceiptId) {
        let (commitment, id) = canon::hash_with_field(Self::DOMAIN, self, (Execution::DOMAIN, "execution"));
        (Commitment(commitment), ReceiptId(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
