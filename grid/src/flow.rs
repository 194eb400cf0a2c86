//! What is handed from stage to stage. Nothing here is hashed, signed or sent as it is.

use std::fmt;

use registry::{
    credits::Credits,
    dispute::End,
    id::{BlobHash, Commitment, EngineFingerprint, JobId, NodeId, OperatorId, ReceiptId, RequesterId},
    job::ShardInfo,
    price::PriceTable,
    receipt::{Output, Receipt},
    sign::{Head, SignatureError, Signed},
};
use serde::{Deserialize, Serialize};

use crate::engines::Engines;

/// Milliseconds since 1970, as the driver's clock reads them.
pub type Millis = u64;

/// One execution order, unique in its grid. It is the nonce of the receipt that answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AssignmentId(pub u64);

/// Where a shard's standard input lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// The blob that holds it; absent for inline inputs.
    pub blob: Option<BlobHash>,
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// One shard as planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedShard {
    /// Where its input lies.
    pub slice: Slice,
    /// Hash of its input's bytes.
    pub input: BlobHash,
}

/// How a job is cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// In the order of the input.
    pub shards: Vec<PlannedShard>,
}

/// A state of a task in steps that its host has kept, so that the task can go on from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Which of the task's states.
    pub index: u32,
    /// Fuel that the task had spent by then.
    pub fuel_used: u64,
    /// The blob with the [`Snapshot`](registry::segment::Snapshot).
    pub snapshot: BlobHash,
    /// Its length.
    pub bytes: u64,
}

/// The state that a host runs a task to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Until {
    /// Its index.
    pub state: u32,
    /// Whether its snapshot is asked for.
    pub keeps: bool,
}

/// What a host found that ran a task to a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    /// The state, or the task's end where it comes first.
    pub end: End,
    /// The state's snapshot, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
}

/// A task given to one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Unique in the grid.
    pub id: AssignmentId,
    /// The job.
    pub job: JobId,
    /// Which part of it.
    pub shard: ShardInfo,
    /// Where the input lies.
    pub slice: Slice,
    /// Hash of the input's bytes.
    pub input: BlobHash,
    /// Which of the host's engines runs it.
    pub engine: EngineFingerprint,
    /// The host's time for it, from now.
    pub lease_ms: u64,
    /// What to go on from; the task's beginning when absent.
    pub from: Option<Checkpoint>,
    /// The state to stop at, of which nothing is signed; the task's end when absent.
    pub until: Option<Until>,
}

/// A receipt whose signature was checked when it entered the grid.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Signed<Receipt>", into = "Signed<Receipt>")]
pub struct Attested(Box<Checked>);

/// What a receipt is handed on with, all in one place: it goes from hand to hand, and lies there until its job ends.
#[derive(Clone, PartialEq, Eq)]
struct Checked {
    signed: Signed<Receipt>,
    receipt: Receipt,
    /// What it commits to, and what names it: compared many times, hashed once.
    commitment: Commitment,
    id: ReceiptId,
}

impl Attested {
    /// Checks that `node` signed it and names itself.
    ///
    /// # Errors
    /// When the signature does not hold or another node signed.
    pub fn check(signed: Signed<Receipt>, node: NodeId) -> Result<Self, SignatureError> {
        Self::check_by(signed, node, |head| head.open().map(drop))
    }

    /// The same, where `believe` says of the head of a batch whether it is signed: see [`Signed::open_by`].
    ///
    /// # Errors
    /// When the signature does not hold or another node signed.
    pub fn check_by<E: From<SignatureError>>(
        signed: Signed<Receipt>,
        node: NodeId,
        believe: impl FnOnce(&Signed<Head>) -> Result<(), E>,
    ) -> Result<Self, E> {
        let (receipt, signer) = signed.open_by(believe)?;
        if signer != node.0 || receipt.node != node {
            return Err(SignatureError::Key.into());
        }
        Ok(Self::of(signed, receipt))
    }

    fn of(signed: Signed<Receipt>, receipt: Receipt) -> Self {
        let (commitment, id) = receipt.hashes();
        Self(Box::new(Checked { signed, receipt, commitment, id }))
    }

    /// A receipt that nobody signed, for [`sim`](crate::sim) and nothing else: whoever asks for its signature is refused, and it
    /// does not read back from a journal, so that it cannot get into a grid.
    pub(crate) fn simulated(receipt: Receipt) -> Self {
        Self::of(Signed::nothing(), receipt)
    }

    /// What it says.
    pub fn receipt(&self) -> &Receipt {
        &self.0.receipt
    }

    /// The hash that names it.
    pub fn id(&self) -> ReceiptId {
        self.0.id
    }

    /// What it commits to.
    pub fn commitment(&self) -> Commitment {
        self.0.commitment
    }

    /// As it was signed.
    pub fn signed(&self) -> &Signed<Receipt> {
        &self.0.signed
    }
}

impl fmt::Debug for Attested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attested({:?})", self.0.id)
    }
}

/// Reading back a journal: what is in there was checked when it was written.
impl TryFrom<Signed<Receipt>> for Attested {
    type Error = SignatureError;

    fn try_from(signed: Signed<Receipt>) -> Result<Self, SignatureError> {
        let receipt = signed.peek()?;
        Ok(Self::of(signed, receipt))
    }
}

impl From<Attested> for Signed<Receipt> {
    fn from(attested: Attested) -> Self {
        attested.0.signed
    }
}

/// What a host that joins offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// Tasks that it runs at a time.
    pub slots: u32,
    /// Assignments that it holds besides those that run.
    pub queue_max: u32,
    /// Memory in bytes that one task may have.
    pub memory_bytes_max: u64,
    /// What it runs tasks on.
    pub engines: Engines,
    /// What it asks for that.
    #[serde(default, skip_serializing_if = "PriceTable::is_free")]
    pub prices: PriceTable,
}

/// Who pays for a job. One that nobody pays for runs on hosts that ask for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payer {
    /// Who.
    pub requester: RequesterId,
    /// What the job may cost, all in all.
    pub cap: Credits,
}

/// Why an execution gave no result. Nobody is paid or punished for it; the task goes elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// A stable word for machines, e.g. `deadline`.
    pub word: String,
    /// One line for people.
    pub detail: String,
}

/// Bytes of a [`Fault`]'s word and detail that are kept.
pub const FAULT_BYTES_MAX: usize = 512;

impl Fault {
    /// A fault with its texts cut to their bound.
    pub fn new(word: impl Into<String>, detail: impl Into<String>) -> Self {
        let cut = |text: String| text.chars().take(FAULT_BYTES_MAX / 4).collect();
        Self { word: cut(word.into()), detail: cut(detail.into()) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.word, self.detail)
    }
}

/// What `verify` compares: one execution of one operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vote {
    /// Who answers for it.
    pub operator: OperatorId,
    /// What it commits to.
    pub commitment: Commitment,
    /// Whether the grid's owner answers for them.
    pub referee: bool,
}

/// What `verify` says of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet: so many more executions are wanted.
    Open {
        /// Executions of further operators.
        wanted: u8,
    },
    /// This is the result.
    Accepted(Commitment),
    /// The most executions allowed do not agree.
    Inconclusive,
}

/// One piece of a job's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The shard that wrote it.
    pub shard: ShardInfo,
    /// What it wrote.
    pub output: Output,
}
