//! The states that a stepped task goes through, and the root over them that a receipt signs.
//!
//! A task whose module exports `step` is cut into segments: its `_start`, then as many calls of `step` as it takes to spend
//! some fuel, and so on to its end. Between two segments nothing of it is on any stack, so that a [`State`] is all that the
//! rest depends on. Its hash is a [`StateRoot`]; the list of them is a [`SegmentRecord`]; the Merkle root over that is the
//! `segment_root` of an [`Execution`](crate::receipt::Execution), next to which a receipt names the record as a blob.
//!
//! - **A state names its task and engine**, and the states before it by a chain, so that two lists which agree at one place
//!   agree at all places before it. The first difference of two lists can therefore be found by halving, by who has one of
//!   them and asks for parts of the other.
//! - **There is no state at the end.** How a task ended is signed by itself: outcome, fuel, output. A task with `n` states has
//!   `n + 1` segments.
//! - **A [`Snapshot`] is a state with its bytes.** It proves itself: what it holds hashes to its root, and to nothing else.

mod snapshot;

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

pub use self::snapshot::{SNAPSHOT_HEAD_BYTES_MAX, Snapshot, SnapshotError};
use crate::{
    canon::{self, CanonError},
    id::{BlobHash, EngineFingerprint, ModuleHash, StateRoot, TaskId},
    merkle::{List, Proof},
};

/// Segments of a task, in number.
pub const SEGMENTS_MAX: u32 = 4096;
/// Length in bytes of a page of memory.
pub const PAGE_BYTES: usize = 65_536;
/// Pages of a memory, in number: what 32 bits address.
pub const PAGES_MAX: u32 = 65_536;
/// Mutable globals of a module, in number.
pub const GLOBALS_MAX: usize = 10_000;
/// Length in bytes that the canonical form of a record may have.
pub const SEGMENT_RECORD_BYTES_MAX: usize = SEGMENTS_MAX as usize * 34 + 64;

/// Kind of the tree over the states of a task.
const SEGMENTS: List = List("quorate/segments/1");
/// Kind of the tree over the pages of a memory, each by its BLAKE3 hash.
const MEMORY: List = List("quorate/memory/1");
/// What states of one task are chained under.
const CHAIN: &str = "quorate/segments/chain/1";

/// Everything that the rest of a stepped task depends on, big things by their hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The module.
    pub module: ModuleHash,
    /// The task, which says input, arguments, models and limits.
    pub task: TaskId,
    /// The conditions that it runs under.
    pub engine: EngineFingerprint,
    /// States before this one.
    pub index: u32,
    /// [`chain`] over these.
    pub before: BlobHash,
    /// Fuel spent so far.
    pub fuel_used: u64,
    /// Virtual time that it has slept, in nanoseconds; all other time is fuel.
    pub slept_ns: u64,
    /// Random bytes that it has drawn.
    pub random_bytes: u64,
    /// Its memory.
    pub memory: MemoryState,
    /// The mutable globals that the module defines, in their order.
    pub globals: Vec<Global>,
    /// Bytes that it has read of standard input.
    pub stdin_bytes: u64,
    /// What it has written to standard output.
    pub stdout: Stream,
    /// What is kept of what it has written to standard error.
    pub log: Stream,
}

/// Linear memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryState {
    /// Its length in pages.
    pub pages: u32,
    /// Root over the hashes of its pages.
    pub root: BlobHash,
    /// Whether the task ever asked for more than its limit.
    pub refused: bool,
}

/// A global's value, floats by their bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Global {
    /// 32-bit integer.
    I32(u32),
    /// 64-bit integer.
    I64(u64),
    /// 32-bit float.
    F32(u32),
    /// 64-bit float.
    F64(u64),
}

/// Bytes written so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Their hash.
    pub hash: BlobHash,
    /// Their number.
    pub bytes: u64,
}

impl Stream {
    /// That of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self { hash: BlobHash::of(bytes), bytes: bytes.len() as u64 }
    }
}

impl State {
    /// The hash that names it.
    pub fn root(&self) -> StateRoot {
        StateRoot(canon::hash("quorate/state/1", self))
    }
}

/// What stands for a list of states that is one longer.
pub fn chain(before: BlobHash, next: StateRoot) -> BlobHash {
    BlobHash(canon::hash(CHAIN, &(before, next)))
}

/// What stands for these states, and for none.
pub fn chained<'a>(states: impl IntoIterator<Item = &'a StateRoot>) -> BlobHash {
    let none = BlobHash(canon::hash(CHAIN, &()));
    states.into_iter().fold(none, |before, state| chain(before, *state))
}

/// Root over the pages of a memory; a last page that is cut short counts as it is.
pub fn memory_root(memory: &[u8]) -> BlobHash {
    pages_root(memory.chunks(PAGE_BYTES).map(page_hash))
}

fn pages_root(pages: impl IntoIterator<Item = BlobHash>) -> BlobHash {
    BlobHash(MEMORY.root(pages.into_iter().map(|page| page.0)))
}

/// Hash of one page.
fn page_hash(page: &[u8]) -> BlobHash {
    if is_zero(page) { zero_page() } else { BlobHash::of(page) }
}

static ZERO: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

fn zero_page() -> BlobHash {
    static HASH: OnceLock<BlobHash> = OnceLock::new();
    *HASH.get_or_init(|| BlobHash::of(&ZERO))
}

/// Whether a whole page is zero: then it need not be hashed, nor kept.
pub fn is_zero(page: &[u8]) -> bool {
    page == ZERO
}

/// The states between the segments of one task, by their roots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentRecord {
    /// In order.
    pub states: Vec<StateRoot>,
}

/// Why bytes are not the segment record of an execution.
#[derive(Debug, thiserror::Error)]
pub enum SegmentRecordError {
    /// No record at all.
    #[error("not a record of segments: {0}")]
    Form(#[from] CanonError),
    /// More segments than a task has.
    #[error("record has {segments} segments, over the bound of {SEGMENTS_MAX}")]
    TooMany {
        /// As found.
        segments: u64,
    },
    /// The roots in it are not those that were signed.
    #[error(
        "record of segments does not hash to the signed root: the receipt commits to {}, the record gives {}",
        shown(.signed), shown(.found)
    )]
    Root {
        /// As signed.
        signed: Option<BlobHash>,
        /// As computed.
        found: Option<BlobHash>,
    },
}

fn shown(root: &Option<BlobHash>) -> String {
    root.map_or_else(|| "none".to_owned(), |root| root.short())
}

impl SegmentRecord {
    /// The `segment_root` of the execution; none where there is one segment only.
    pub fn root(&self) -> Option<BlobHash> {
        let leaves = || self.states.iter().map(|state| state.0);
        (!self.states.is_empty()).then(|| BlobHash(SEGMENTS.root(leaves())))
    }

    /// The canonical bytes: what the record's blob holds.
    pub fn to_bytes(&self) -> Vec<u8> {
        canon::encode(self)
    }

    /// The record in these bytes, whatever it is of.
    ///
    /// # Errors
    /// When they are none, or it has too many segments.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SegmentRecordError> {
        let record: Self = canon::decode(bytes, SEGMENT_RECORD_BYTES_MAX)?;
        let segments = record.states.len() as u64 + 1;
        if segments > SEGMENTS_MAX.into() { Err(SegmentRecordError::TooMany { segments }) } else { Ok(record) }
    }

    /// The record in these bytes, if an execution signed it.
    ///
    /// # Errors
    /// Names what does not hold.
    pub fn open(bytes: &[u8], signed: Option<BlobHash>) -> Result<Self, SegmentRecordError> {
        let record = Self::from_bytes(bytes)?;
        let found = record.root();
        if found == signed { Ok(record) } else { Err(SegmentRecordError::Root { signed, found }) }
    }

    /// That the state at this index is one of them.
    pub fn prove(&self, index: u32) -> Option<Proof> {
        SEGMENTS.prove(self.states.iter().map(|state| state.0), index)
    }

    /// The first segment in which two executions of a task differ, given that they do: where their states first do, or else the
    /// last segment of the one that has fewer.
    pub fn diverge(&self, other: &Self) -> u32 {
        let same = self.states.iter().zip(&other.states).take_while(|(own, other)| own == other).count();
        u32::try_from(same).unwrap_or(u32::MAX)
    }
}

/// The `segment_root` that a state proves to be under; none where the proof is malformed.
pub fn proven(state: StateRoot, proof: &Proof) -> Option<BlobHash> {
    proof.root(SEGMENTS, state.0).map(BlobHash)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn state(memory: &[u8], stdout: &[u8], log: &[u8]) -> State {
        State {
            module: ModuleHash([1; 32]),
            task: TaskId([2; 32]),
            engine: EngineFingerprint([3; 32]),
            index: 0,
            before: chained([]),
            fuel_used: 7,
            slept_ns: 0,
            random_bytes: 0,
            memory: MemoryState {
                pages: u32::try_from(memory.len() / PAGE_BYTES).unwrap(),
                root: memory_root(memory),
                refused: false,
            },
            globals: vec![Global::I32(1_048_576), Global::F64(f64::NAN.to_bits())],
            stdin_bytes: 0,
            stdout: Stream::of(stdout),
            log: Stream::of(log),
        }
    }

    fn record(states: u32) -> SegmentRecord {
        SegmentRecord { states: (0..states).map(|at| StateRoot(*blake3::hash(&at.to_le_bytes()).as_bytes())).collect() }
    }

    #[test]
    fn everything_in_a_state_is_in_its_root() {
        let state = state(&[0; PAGE_BYTES], b"", b"");
        type Change = fn(&mut State);
        let changes: [Change; 17] = [
            |state| state.module.0[0] ^= 1,
            |state| state.task.0[0] ^= 1,
            |state| state.engine.0[0] ^= 1,
            |state| state.index += 1,
            |state| state.before.0[0] ^= 1,
            |state| state.fuel_used += 1,
            |state| state.slept_ns += 1,
            |state| state.random_bytes += 1,
            |state| state.memory.pages += 1,
            |state| state.memory.root.0[0] ^= 1,
            |state| state.memory.refused = true,
            |state| state.globals[0] = Global::I64(1_048_576),
            |state| state.globals.truncate(1),
            |state| state.stdin_bytes += 1,
            |state| state.stdout.hash.0[0] ^= 1,
            |state| state.stdout.bytes += 1,
            |state| state.log.hash.0[0] ^= 1,
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let mut other = state.clone();
            change(&mut other);
            assert_ne!(other.root(), state.root(), "change {at}");
        }
    }

    #[test]
    fn a_memory_is_its_pages_whether_or_not_they_are_zero() {
        let mut memory = vec![0; 3 * PAGE_BYTES];
        let zero = memory_root(&memory);
        assert_ne!(zero, memory_root(&memory[PAGE_BYTES..]));
        *memory.last_mut().unwrap() = 1;
        let last = memory_root(&memory);
        memory.rotate_right(PAGE_BYTES);
        let first = memory_root(&memory);
        assert!(zero != last && last != first && first != zero);
        // The shortcut for pages of zeros gives the hash of such a page.
        assert_eq!(page_hash(&[0; PAGE_BYTES]), BlobHash::of(&[0; PAGE_BYTES]));
    }

    #[test]
    fn a_record_opens_under_its_own_root_alone() {
        let record = record(5);
        let (bytes, root) = (record.to_bytes(), record.root());
        assert_eq!(SegmentRecord::open(&bytes, root).unwrap(), record);
        let refused = |bytes: &[u8], signed| SegmentRecord::open(bytes, signed).unwrap_err().to_string();
        let mut forged = bytes.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert!(refused(&forged, root).contains("does not hash to the signed root"));
        assert!(refused(&bytes, None).contains("the receipt commits to none"));
        assert!(refused(&bytes[..bytes.len() - 1], root).contains("not a record of segments"));
        assert!(refused(&[0; SEGMENT_RECORD_BYTES_MAX + 1], root).contains("over the bound"));
        assert_eq!(SegmentRecord::default().root(), None);
    }

    #[test]
    fn a_record_has_as_many_segments_as_a_task_may_have() {
        let fits = record(SEGMENTS_MAX - 1);
        assert_eq!(SegmentRecord::from_bytes(&fits.to_bytes()).unwrap(), fits);
        let refused = SegmentRecord::from_bytes(&record(SEGMENTS_MAX).to_bytes()).unwrap_err();
        assert_eq!(refused.to_string(), "record has 4097 segments, over the bound of 4096");
    }

    #[test]
    fn each_state_is_proven_at_its_place_and_at_no_other() {
        let record = record(7);
        for (index, state) in (0..).zip(&record.states) {
            let proof = record.prove(index).unwrap();
            assert_eq!(proven(*state, &proof), record.root());
            assert_ne!(proven(record.states[(index as usize + 1) % 7], &proof), record.root());
        }
        assert_eq!(record.prove(7), None);
    }

    #[test]
    fn the_first_segment_that_differs_is_found() {
        let own = record(6);
        let mut other = own.clone();
        other.states[4].0[0] ^= 1;
        assert_eq!((own.diverge(&other), other.diverge(&own)), (4, 4));
        // One that ended sooner differs in the segment in which it ended.
        other.states.truncate(3);
        assert_eq!((own.diverge(&other), other.diverge(&own)), (3, 3));
        assert_eq!(own.diverge(&own), 6);
        assert_eq!(own.diverge(&SegmentRecord::default()), 0);
    }

    #[test]
    fn a_chain_tells_every_list_from_every_other() {
        let states = record(4).states;
        let mut links: Vec<BlobHash> = (0..=4).map(|count| chained(&states[..count])).collect();
        links.push(chained(states.iter().rev()));
        links.sort();
        links.dedup();
        assert_eq!(links.len(), 6);
    }
}
