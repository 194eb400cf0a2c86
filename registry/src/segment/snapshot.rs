//! A state with its bytes: enough to go on from, anywhere.
//!
//! ```text
//! magic: 8 bytes ‖ length of the head: u32, little endian ‖ head: canonical CBOR ‖ pages ‖ standard output ‖ log
//! ```
//! The head is the [`State`], the roots of the states before it, and which pages follow: those that are not zero, in order. A
//! state has exactly one snapshot. Nothing in one is believed: pages, streams and earlier roots are hashed and held against
//! the state as it is opened, so that whoever knows the root knows the snapshot.

use serde::{Deserialize, Serialize};

use super::{
    GLOBALS_MAX, PAGE_BYTES, PAGES_MAX, SEGMENTS_MAX, State, chained, is_zero, page_hash, pages_root, zero_page,
};
use crate::{
    canon::{self, Bytes, CanonError},
    id::{BlobHash, EngineFingerprint, ModuleHash, StateRoot, TaskId},
};

const MAGIC: &[u8; 8] = b"QRTstep1";
/// Length of what is before the head.
const PREFIX_BYTES: usize = MAGIC.len() + 4;
/// Length in bytes that a snapshot may have beside pages and streams.
pub const SNAPSHOT_HEAD_BYTES_MAX: usize = PREFIX_BYTES + HEAD_BYTES_MAX;
const HEAD_BYTES_MAX: usize = SEGMENTS_MAX as usize * 34 + GLOBALS_MAX * 16 + PAGES_MAX as usize / 8 + 1024;

/// A state with its bytes, checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot<'a> {
    /// The state.
    pub state: State,
    /// The roots of those before it.
    pub earlier: Vec<StateRoot>,
    /// Which pages are not zero, a bit each, the lowest first.
    present: Vec<u8>,
    pages: &'a [u8],
    /// Standard output so far.
    pub stdout: &'a [u8],
    /// The log so far.
    pub log: &'a [u8],
}

impl std::fmt::Debug for Snapshot<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("state", &self.state)
            .field("page_bytes", &self.pages.len())
            .finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    state: State,
    earlier: Vec<StateRoot>,
    present: Bytes,
}

/// Why bytes are not a snapshot, or not the one that is wanted.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Longer than the reader allows.
    #[error("snapshot of {bytes} bytes is over the bound of {bytes_max} bytes")]
    TooLong {
        /// As found.
        bytes: u64,
        /// Largest allowed.
        bytes_max: u64,
    },
    /// Of another kind.
    #[error("not a snapshot: it does not start with `QRTstep1`")]
    Magic,
    /// Cut short, or followed by something.
    #[error("snapshot has {bytes} bytes, where its head says {expected}: it is cut short, or has bytes after its end")]
    Length {
        /// As found.
        bytes: u64,
        /// As the head says.
        expected: u64,
    },
    /// The head is malformed.
    #[error("head of the snapshot: {0}")]
    Head(#[from] CanonError),
    /// More than a task has.
    #[error("snapshot has {value} {what}, over the bound of {bound}")]
    TooMany {
        /// Pages, states or globals.
        what: &'static str,
        /// As found.
        value: u64,
        /// Largest allowed.
        bound: u64,
    },
    /// Another spelling of a snapshot: each state has one.
    #[error("snapshot is not in canonical form: {rule}")]
    NotCanonical {
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// Its bytes are not those that its state commits to.
    #[error("snapshot was altered: its {what} hash to {found} instead of {expected}")]
    Altered {
        /// Which part.
        what: &'static str,
        /// As the state commits to.
        expected: BlobHash,
        /// As computed.
        found: BlobHash,
    },
    /// Of another module, task or engine.
    #[error("snapshot is of {what} {found} instead of {expected}")]
    Other {
        /// What differs.
        what: &'static str,
        /// As wanted.
        expected: BlobHash,
        /// As found.
        found: BlobHash,
    },
}

impl SnapshotError {
    /// A stable word for programs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::TooLong { .. } | Self::TooMany { .. } => "snapshot_too_large",
            Self::Magic | Self::Length { .. } | Self::Head(_) | Self::NotCanonical { .. } => "snapshot_form",
            Self::Altered { .. } => "snapshot_altered",
            Self::Other { .. } => "snapshot_other",
        }
    }
}

impl<'a> Snapshot<'a> {
    /// The bytes of a snapshot. `memory`, `stdout`, `log` and `earlier` are what the state commits to.
    pub fn encode(state: &State, earlier: &[StateRoot], memory: &[u8], stdout: &[u8], log: &[u8]) -> Vec<u8> {
        let pages = || memory.chunks(PAGE_BYTES).enumerate().filter(|(_, page)| !is_zero(page));
        let mut present = vec![0; (state.memory.pages as usize).div_ceil(8)];
        for (index, _) in pages() {
            if let Some(byte) = present.get_mut(index / 8) {
                *byte |= 1 << (index % 8);
            }
        }
        let head = Head { state: state.clone(), earlier: earlier.to_vec(), present: present.into() };
        let head = canon::encode(&head);
        let bytes = PREFIX_BYTES + head.len() + pages().count() * PAGE_BYTES + stdout.len() + log.len();
        let mut snapshot = Vec::with_capacity(bytes);
        snapshot.extend_from_slice(MAGIC);
        snapshot.extend_from_slice(&u32::try_from(head.len()).unwrap_or(u32::MAX).to_le_bytes());
        snapshot.extend_from_slice(&head);
        for (_, page) in pages() {
            snapshot.extend_from_slice(page);
        }
        snapshot.extend_from_slice(stdout);
        snapshot.extend_from_slice(log);
        snapshot
    }

    /// The snapshot in these bytes, if everything in it is what its state commits to.
    ///
    /// # Errors
    /// Names the first rule that it breaks.
    pub fn open(bytes: &'a [u8], bytes_max: u64) -> Result<Self, SnapshotError> {
        let length = bytes.len() as u64;
        if length > bytes_max {
            return Err(SnapshotError::TooLong { bytes: length, bytes_max });
        }
        let rest = bytes.strip_prefix(MAGIC).ok_or(SnapshotError::Magic)?;
        let short = |expected: usize| SnapshotError::Length { bytes: length, expected: expected as u64 };
        let (head_bytes, rest) = rest.split_first_chunk().ok_or_else(|| short(PREFIX_BYTES))?;
        let head_bytes = u32::from_le_bytes(*head_bytes) as usize;
        if head_bytes > HEAD_BYTES_MAX {
            let source = CanonError::TooLong { bytes: head_bytes, bytes_max: HEAD_BYTES_MAX };
            return Err(SnapshotError::Head(source));
        }
        let (head, body) = rest.split_at_checked(head_bytes).ok_or_else(|| short(PREFIX_BYTES + head_bytes))?;
        let Head { state, earlier, present } = canon::decode(head, HEAD_BYTES_MAX)?;
        check_counts(&state, &earlier)?;
        let count = present_pages(&state, &present)?;
        let page_bytes = count * PAGE_BYTES as u64;
        let expected = (PREFIX_BYTES as u64 + head_bytes as u64)
            .saturating_add(page_bytes)
            .saturating_add(state.stdout.bytes)
            .saturating_add(state.log.bytes);
        if expected != length {
            return Err(SnapshotError::Length { bytes: length, expected });
        }
        // They add up to a length in memory.
        let (pages, streams) = body.split_at(page_bytes as usize);
        let (stdout, log) = streams.split_at(state.stdout.bytes as usize);
        let snapshot = Self { state, earlier, present: present.0, pages, stdout, log };
        snapshot.check_hashes()?;
        Ok(snapshot)
    }

    fn check_hashes(&self) -> Result<(), SnapshotError> {
        if self.pages.chunks(PAGE_BYTES).any(is_zero) {
            return Err(SnapshotError::NotCanonical { rule: "pages of zeros are left out" });
        }
        let state = &self.state;
        let pages = self.all_pages().map(|(_, page)| page.map_or_else(zero_page, page_hash));
        let parts = [
            ("earlier states", state.before, chained(&self.earlier)),
            ("pages", state.memory.root, pages_root(pages)),
            ("output", state.stdout.hash, BlobHash::of(self.stdout)),
            ("log", state.log.hash, BlobHash::of(self.log)),
        ];
        match parts.into_iter().find(|(_, expected, found)| expected != found) {
            Some((what, expected, found)) => Err(SnapshotError::Altered { what, expected, found }),
            None => Ok(()),
        }
    }

    /// Whether it is one of this task, on this engine.
    ///
    /// # Errors
    /// Says what it is of otherwise.
    pub fn check_of(&self, module: ModuleHash, task: TaskId, engine: EngineFingerprint) -> Result<(), SnapshotError> {
        let State { module: own_module, task: own_task, engine: own_engine, .. } = self.state;
        let parts =
            [("module", module.0, own_module.0), ("task", task.0, own_task.0), ("engine", engine.0, own_engine.0)];
        match parts.into_iter().find(|(_, expected, found)| expected != found) {
            Some((what, expected, found)) => {
                Err(SnapshotError::Other { what, expected: BlobHash(expected), found: BlobHash(found) })
            }
            None => Ok(()),
        }
    }

    /// Every page of the memory by its index; none where it is zero.
    pub fn all_pages(&self) -> impl Iterator<Item = (u32, Option<&'a [u8]>)> {
        let mut pages = self.pages.chunks(PAGE_BYTES);
        (0..self.state.memory.pages).map(move |index| {
            let is_present = self.present.get(index as usize / 8).is_some_and(|byte| byte & 1 << (index % 8) != 0);
            (index, if is_present { pages.next() } else { None })
        })
    }
}

fn check_counts(state: &State, earlier: &[StateRoot]) -> Result<(), SnapshotError> {
    let rules = [
        ("pages", u64::from(state.memory.pages), u64::from(PAGES_MAX)),
        // The last segment is after the last state.
        ("states before it", earlier.len() as u64, u64::from(SEGMENTS_MAX) - 2),
        ("globals", state.globals.len() as u64, GLOBALS_MAX as u64),
    ];
    if let Some((what, value, bound)) = rules.into_iter().find(|(_, value, bound)| value > bound) {
        return Err(SnapshotError::TooMany { what, value, bound });
    }
    if state.index as usize != earlier.len() {
        return Err(SnapshotError::NotCanonical { rule: "as many states before it as its index says" });
    }
    Ok(())
}

/// How many pages follow the head.
fn present_pages(state: &State, present: &[u8]) -> Result<u64, SnapshotError> {
    let pages = state.memory.pages as usize;
    let spare = present.len().saturating_mul(8).saturating_sub(pages);
    let is_spare_clear = present.last().is_none_or(|last| u32::from(*last) < 1 << (8 - spare.min(8)));
    if present.len() != pages.div_ceil(8) || !is_spare_clear {
        return Err(SnapshotError::NotCanonical { rule: "one bit for each page of the memory" });
    }
    Ok(present.iter().map(|byte| u64::from(byte.count_ones())).sum())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{Global, MemoryState, memory_root, tests::state},
        *,
    };

    const MAX: u64 = 1 << 30;

    /// Ten pages, of which the first, the third and the last are not zero.
    fn memory() -> Vec<u8> {
        let mut memory = vec![0; 10 * PAGE_BYTES];
        for (at, byte) in [(0, 1), (2 * PAGE_BYTES + 9, 2), (10 * PAGE_BYTES - 1, 3)] {
            memory[at] = byte;
        }
        memory
    }

    fn second() -> (State, Vec<StateRoot>) {
        let earlier = vec![StateRoot([9; 32])];
        (State { index: 1, before: chained(&earlier), ..state(&memory(), b"out", b"log!") }, earlier)
    }

    fn snapshot() -> Vec<u8> {
        let (state, earlier) = second();
        Snapshot::encode(&state, &earlier, &memory(), b"out", b"log!")
    }

    fn refused(bytes: &[u8]) -> String {
        Snapshot::open(bytes, MAX).unwrap_err().to_string()
    }

    #[test]
    fn a_snapshot_opens_to_what_was_put_in() {
        let bytes = snapshot();
        let opened = Snapshot::open(&bytes, MAX).unwrap();
        let (state, earlier) = second();
        assert_eq!((&opened.state, opened.state.root(), &opened.earlier), (&state, state.root(), &earlier));
        assert_eq!((opened.stdout, opened.log), (&b"out"[..], &b"log!"[..]));
        let zero = vec![0; PAGE_BYTES];
        let pages: Vec<&[u8]> = opened.all_pages().map(|(_, page)| page.unwrap_or(&zero)).collect();
        assert_eq!(pages.concat(), memory());
        assert_eq!(bytes.len() / PAGE_BYTES, 3);
    }

    #[test]
    fn a_byte_changed_anywhere_is_noticed_and_so_is_a_byte_less_or_more() {
        let bytes = snapshot();
        let head = PREFIX_BYTES..PREFIX_BYTES + 600;
        for at in (0..PREFIX_BYTES).chain(head).chain([bytes.len() - 2 * PAGE_BYTES, bytes.len() - 5, bytes.len() - 1])
        {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            let root = second().0.root();
            // A change of the state itself is another state, which whoever knows the root tells apart.
            assert!(Snapshot::open(&altered, MAX).map_or(true, |opened| opened.state.root() != root), "byte {at}");
        }
        for length in [0, 5, PREFIX_BYTES, PREFIX_BYTES + 40, bytes.len() - 1] {
            assert!(Snapshot::open(&bytes[..length], MAX).is_err(), "{length}");
        }
        assert!(refused(&[&bytes[..], b"x"].concat()).contains("bytes after its end"));
        assert!(refused(&bytes[..bytes.len() - 1]).contains("cut short"));
        assert!(refused(b"\0asm").contains("does not start with"));
    }

    #[test]
    fn each_part_is_held_against_the_state() {
        let (state, earlier) = second();
        let other = vec![StateRoot([8; 32])];
        let mut page = memory();
        page[5] = 1;
        let forged = [
            ("earlier states", Snapshot::encode(&state, &other, &memory(), b"out", b"log!")),
            ("pages", Snapshot::encode(&state, &earlier, &page, b"out", b"log!")),
            ("output", Snapshot::encode(&state, &earlier, &memory(), b"oat", b"log!")),
            ("log", Snapshot::encode(&state, &earlier, &memory(), b"out", b"lag!")),
        ];
        for (what, bytes) in forged {
            assert!(refused(&bytes).contains(&format!("its {what} hash to")), "{what}: {}", refused(&bytes));
        }
    }

    #[test]
    fn lengths_and_numbers_have_bounds() {
        let bytes = snapshot();
        let refusal = Snapshot::open(&bytes, 100).unwrap_err();
        assert!(refusal.to_string().contains("over the bound of 100 bytes") && refusal.word() == "snapshot_too_large");
        let (state, _) = second();
        let of =
            |state: &State, earlier: &[StateRoot]| refused(&Snapshot::encode(state, earlier, &[], b"out", b"log!"));
        let empty = MemoryState { pages: 0, root: memory_root(&[]), ..state.memory.clone() };
        let state = State { memory: empty, ..state };
        let many = vec![StateRoot([9; 32]); SEGMENTS_MAX as usize - 1];
        let long = State { index: SEGMENTS_MAX - 1, before: chained(&many), ..state.clone() };
        assert_eq!(of(&long, &many), "snapshot has 4095 states before it, over the bound of 4094");
        let globals = vec![Global::I32(0); GLOBALS_MAX + 1];
        let wide = State { globals, index: 0, before: chained([]), ..state.clone() };
        assert_eq!(of(&wide, &[]), "snapshot has 10001 globals, over the bound of 10000");
        assert!(of(&state, &[]).contains("as many states before it as its index says"));
    }

    #[test]
    fn a_snapshot_of_something_else_is_told_by_name() {
        let bytes = snapshot();
        let opened = Snapshot::open(&bytes, MAX).unwrap();
        let State { module, task, engine, .. } = opened.state;
        opened.check_of(module, task, engine).unwrap();
        let of = |module, task, engine| opened.check_of(module, task, engine).unwrap_err().to_string();
        assert!(of(ModuleHash([9; 32]), task, engine).starts_with("snapshot is of module 0101"));
        assert!(of(module, TaskId([9; 32]), engine).starts_with("snapshot is of task 0202"));
        assert!(of(module, task, EngineFingerprint([9; 32])).starts_with("snapshot is of engine 0303"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), is_magic: bool) {
            let bytes = if is_magic { [&MAGIC[..], &[64, 0, 0, 0], &bytes].concat() } else { bytes };
            prop_assert!(Snapshot::open(&bytes, MAX).is_err());
        }
    }
}
