//! The messages between a host and its coordinator. They import what is hashed or signed from `registry` and what is
//! decided on from `grid::flow`; everything else is only here.
//!
//! A message that decodes has still to pass its own `check`: how many items, how long a text. What the event machine
//! checks (is this the task that was ordered?) is not checked here.

use std::sync::Arc;

use bytes::Bytes;
use grid::flow::{Assignment, AssignmentId, Checkpoint, FAULT_BYTES_MAX, Fault, Found, Offer, Until};
use registry::{
    id::{BlobHash, EngineFingerprint, JobId},
    job::{ShardInfo, TaskTemplate},
    membership::NodeCert,
    receipt::{OUTPUT_FILES_MAX, OUTPUT_PATH_BYTES_MAX, Output, Receipt},
    sign::{INCLUSION_BYTES_MAX, Signed},
};
use serde::{Deserialize, Serialize};

use crate::{coordinator::Input, limits};

/// The protocol's name. A layout that older peers cannot read is a new name.
pub const ALPN: &[u8] = b"quorate/grid/2";
/// Version of the messages under this name. A peer with another one is refused by name, not as garbage.
pub const VERSION: u16 = 4;
/// What this program calls itself.
pub const AGENT: &str = concat!("quorate/", env!("CARGO_PKG_VERSION"));

/// A rule of the messages that is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// Something is too long or too many.
    #[error("{what} is {value}, over the bound of {max}")]
    Bound {
        /// What.
        what: &'static str,
        /// As received.
        value: u64,
        /// Largest allowed.
        max: u64,
    },
    /// A word for machines is none.
    #[error("{what} is no word of 1 to {} small letters, digits and `_`", limits::WORD_BYTES_MAX)]
    Word {
        /// Which.
        what: &'static str,
    },
    /// A message that does not belong here, such as a second hello.
    #[error("message `{message}` is out of turn")]
    Turn {
        /// Which.
        message: &'static str,
    },
    /// A slice ends before it starts.
    #[error("slice ends before it starts")]
    Slice,
}

/// A message that can be checked beyond its form.
pub trait Message: Serialize + serde::de::DeserializeOwned {
    /// Checks counts and lengths.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    fn check(&self) -> Result<(), Breach>;
}

/// From a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum ToCoordinator {
    /// The first message, and never again.
    Hello(Box<Hello>),
    /// Results.
    Receipts(Vec<Arc<Done>>),
    /// Executions that gave none.
    Faults(Vec<(AssignmentId, Fault)>),
    /// States that it has kept of what it runs, each the last one: blobs that it has while the task runs.
    Checkpoints(Vec<(AssignmentId, Checkpoint)>),
    /// What it found that was to run tasks to a state.
    Found(Vec<(AssignmentId, Found)>),
    /// Still here.
    Heartbeat,
}

/// From a coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum ToHost {
    /// The first message, if the hello was taken.
    Welcome(Welcome),
    /// The first message, if it was not; and the last.
    Refused(Refused),
    /// What all tasks of a job have in common.
    Templates(Vec<(JobId, Arc<TaskTemplate>)>),
    /// Run these.
    Assign(Vec<Order>),
    /// Not wanted any more.
    Revoke(Vec<AssignmentId>),
    /// Receipts that are on disk.
    Acknowledge(Vec<AssignmentId>),
    /// Still here.
    Heartbeat,
}

/// Who a host is and what it offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// [`VERSION`].
    pub version: u16,
    /// The operator's word for the key that the connection proved.
    pub cert: Signed<NodeCert>,
    /// What it offers.
    pub offer: Offer,
    /// Assignments that it still works on or has unacknowledged receipts of, in order.
    pub holding: Vec<AssignmentId>,
    /// Name and version of its program.
    pub agent: String,
}

/// The hello was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// [`VERSION`].
    pub version: u16,
    /// Name and version of the coordinator's program.
    pub agent: String,
}

/// The hello was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("refused ({word}): {detail}")]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// A stable word for machines.
    pub word: String,
    /// One line for people.
    pub detail: String,
    /// Whether the same hello may be taken later.
    pub retry: bool,
}

/// One execution to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Unique in the grid; the nonce of the receipt.
    pub id: AssignmentId,
    /// The job, whose template was sent before.
    pub job: JobId,
    /// Which part of it.
    pub shard: ShardInfo,
    /// Hash of the standard input's bytes.
    pub input: BlobHash,
    /// Which of the host's engines runs it.
    pub engine: EngineFingerprint,
    /// Where these are.
    pub stdin: Stdin,
    /// What to go on from, in a blob that the coordinator has; the task's beginning when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Checkpoint>,
    /// The state to run it to, of which nothing is signed; its end when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Until>,
    /// Time for it in milliseconds, from when it arrives.
    pub lease_ms: u64,
}

/// Where a task's standard input is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Stdin {
    /// Here.
    Inline(Bytes),
    /// In a blob that the coordinator has.
    Slice {
        /// The blob.
        blob: BlobHash,
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
}

/// One execution that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    /// What the host signs.
    pub receipt: Signed<Receipt>,
    /// What the task wrote.
    pub output: Output,
    /// Standard output, unless it is long; then, like the files, it is a blob that the host has.
    pub stdout: Option<Bytes>,
    /// The host's time for it in microseconds, by its own word.
    pub task_us: u64,
}

impl Order {
    /// An assignment as it is sent; none if its input is neither at hand nor in a blob.
    pub fn new(assignment: Assignment, input: Input) -> Option<Self> {
        let Assignment { id, job, shard, slice, input: hash, engine, lease_ms, from, until } = assignment;
        let stdin = match input {
            Input::Inline(bytes) => Stdin::Inline(bytes),
            Input::Blob => Stdin::Slice { blob: slice.blob?, start: slice.start, end: slice.end },
        };
        Some(Self { id, job, shard, input: hash, engine, stdin, from, until, lease_ms })
    }

    /// Bytes that it takes in a frame, at most.
    pub fn weight(&self) -> usize {
        const REST: usize = 512;
        REST + match &self.stdin {
            Stdin::Inline(bytes) => bytes.len(),
            Stdin::Slice { .. } => 0,
        }
    }
}

impl Done {
    /// Bytes that it takes in a frame, at most.
    pub fn weight(&self) -> usize {
        const REST: usize = 2048 + INCLUSION_BYTES_MAX;
        let files: usize = self.output.files.iter().map(|file| file.path.len() + 96).sum();
        REST + files + self.stdout.as_ref().map_or(0, Bytes::len)
    }
}

impl Message for ToCoordinator {
    fn check(&self) -> Result<(), Breach> {
        match self {
            Self::Hello(hello) => hello.check(),
            Self::Receipts(done) => {
                bound("number of receipts in a frame", done.len(), limits::BATCH_ITEMS_MAX)?;
                done.iter().try_for_each(|done| done.check())
            }
            Self::Faults(faults) => {
                bound("number of faults in a frame", faults.len(), limits::BATCH_ITEMS_MAX)?;
                faults.iter().try_for_each(|(_, fault)| check_fault(fault))
            }
            Self::Checkpoints(kept) => {
                bound("number of states in a frame", kept.len(), limits::BATCH_ITEMS_MAX)?;
                kept.iter().try_for_each(|(_, checkpoint)| check_checkpoint(checkpoint))
            }
            Self::Found(found) => {
                bound("number of findings in a frame", found.len(), limits::BATCH_ITEMS_MAX)?;
                found.iter().filter_map(|(_, found)| found.checkpoint.as_ref()).try_for_each(check_checkpoint)
            }
            Self::Heartbeat => Ok(()),
        }
    }
}

impl Message for ToHost {
    fn check(&self) -> Result<(), Breach> {
        match self {
            Self::Welcome(welcome) => agent(&welcome.agent),
            Self::Refused(refused) => {
                word("refusal", &refused.word)?;
                bound("length of a refusal in bytes", refused.detail.len(), FAULT_BYTES_MAX)
            }
            Self::Templates(templates) => bound("number of templates", templates.len(), limits::BATCH_ITEMS_MAX),
            Self::Assign(orders) => {
                bound("number of assignments in a frame", orders.len(), limits::BATCH_ITEMS_MAX)?;
                orders.iter().try_for_each(Order::check)
            }
            Self::Revoke(ids) | Self::Acknowledge(ids) => {
                bound("number of assignments in a frame", ids.len(), limits::BATCH_ITEMS_MAX)
            }
            Self::Heartbeat => Ok(()),
        }
    }
}

impl Hello {
    fn check(&self) -> Result<(), Breach> {
        bound("number of assignments held", self.holding.len(), limits::HOLDING_MAX)?;
        agent(&self.agent)
    }
}

impl Order {
    fn check(&self) -> Result<(), Breach> {
        self.from.iter().try_for_each(check_checkpoint)?;
        match &self.stdin {
            Stdin::Inline(bytes) => {
                bound("length of an inline input in bytes", bytes.len(), limits::INPUT_INLINE_BYTES_MAX as usize)
            }
            Stdin::Slice { start, end, .. } => match end.checked_sub(*start) {
                Some(bytes) if bytes <= limits::STDIN_BYTES_MAX => Ok(()),
                Some(value) => {
                    Err(Breach::Bound { what: "length of an input in bytes", value, max: limits::STDIN_BYTES_MAX })
                }
                None => Err(Breach::Slice),
            },
        }
    }
}

impl Done {
    fn check(&self) -> Result<(), Breach> {
        bound("number of output files", self.output.files.len(), OUTPUT_FILES_MAX)?;
        for file in &self.output.files {
            bound("length of an output path in bytes", file.path.len(), OUTPUT_PATH_BYTES_MAX)?;
        }
        let inline = self.stdout.as_ref().map_or(0, Bytes::len);
        bound("length of an inline output in bytes", inline, limits::OUTPUT_INLINE_BYTES_MAX)
    }
}

fn check_fault(fault: &Fault) -> Result<(), Breach> {
    word("fault", &fault.word)?;
    bound("length of a fault in bytes", fault.detail.len(), FAULT_BYTES_MAX)
}

fn check_checkpoint(checkpoint: &Checkpoint) -> Result<(), Breach> {
    let (value, max) = (checkpoint.bytes, limits::CHECKPOINT_BYTES_MAX);
    if value <= max { Ok(()) } else { Err(Breach::Bound { what: "length of a kept state in bytes", value, max }) }
}

fn agent(text: &str) -> Result<(), Breach> {
    bound("length of the agent in bytes", text.len(), limits::AGENT_BYTES_MAX)
}

fn bound(what: &'static str, value: usize, max: usize) -> Result<(), Breach> {
    if value <= max { Ok(()) } else { Err(Breach::Bound { what, value: value as u64, max: max as u64 }) }
}

fn word(what: &'static str, text: &str) -> Result<(), Breach> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let fits = (1..=limits::WORD_BYTES_MAX).contains(&text.len()) && text.bytes().all(good);
    if fits { Ok(()) } else { Err(Breach::Word { what }) }
}

/// One line of a peer's text as it may be shown: control characters, among them line ends, are escaped.
pub fn one_line(text: &str) -> String {
    text.chars().take(FAULT_BYTES_MAX).flat_map(shown_char).collect()
}

/// A character as it may be shown: escaped when it steers a terminal, or turns the text around it.
pub fn shown_char(character: char) -> impl Iterator<Item = char> {
    const INVISIBLE: [std::ops::RangeInclusive<char>; 4] =
        ['\u{200b}'..='\u{200f}', '\u{2028}'..='\u{202e}', '\u{2060}'..='\u{206f}', '\u{feff}'..='\u{feff}'];
    let steers = character.is_control() || INVISIBLE.iter().any(|range| range.contains(&character));
    let escaped = steers.then(|| character.escape_default()).into_iter().flatten();
    escaped.chain((!steers).then_some(character))
}
