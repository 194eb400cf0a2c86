//! The files of logs: one line that says which log it is, then items, each four bytes of length, most significant first, and
//! as many of canonical CBOR. A file grows at its end, and two that follow each other are joined by leaving out one line.

use std::io::{self, BufRead, Read};

use crate::{
    canon::CanonError,
    id::{JobId, LinkId, NodeId, OperatorId},
    job::ShardInfo,
    receipt::{RECORD_BYTES_MAX, Receipt, RecordError},
    reputation::ChangeError,
    sign::{BATCH_ITEMS_MAX, SignatureError, Statement},
};

use super::{evidence::EvidenceError, heads::HeadError};

/// Length in bytes of one item of a host's log: a batch.
pub const BATCH_BYTES_MAX: usize = BATCH_ITEMS_MAX * (Receipt::BYTES_MAX + 8) + 1024;
/// Length in bytes of one item of a job's log: a record with its place.
pub const ENTRY_BYTES_MAX: usize = RECORD_BYTES_MAX + 256;
/// Length in bytes of one item of an operator's history: a change with its place, or the signed head.
pub const HISTORY_ITEM_BYTES_MAX: usize = 2048;
/// Entries of one history.
pub const HISTORY_ENTRIES_MAX: u64 = 1 << 24;
/// Length in bytes of a history's file.
pub const HISTORY_BYTES_MAX: u64 = HISTORY_ENTRIES_MAX * 1024;
/// Bytes of the length before an item.
const LENGTH_BYTES: usize = 4;

/// Which log a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What a host signed.
    Host,
    /// What was kept of a job.
    Job,
    /// What became of an operator's standing.
    History,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Host, Self::Job, Self::History];
    /// Bytes of a file from which on its kind can be told.
    pub const LINE_BYTES_MAX: usize = 32;

    /// The first line of the file.
    pub const fn line(self) -> &'static [u8] {
        match self {
            Self::Host => b"quorate/host-log/1\n",
            Self::Job => b"quorate/job-log/1\n",
            Self::History => b"quorate/history/1\n",
        }
    }

    const fn item_bytes_max(self) -> usize {
        match self {
            Self::Host => BATCH_BYTES_MAX,
            Self::Job => ENTRY_BYTES_MAX,
            Self::History => HISTORY_ITEM_BYTES_MAX,
        }
    }

    /// Which log a file holds that begins with these bytes, if it is one.
    pub fn of(beginning: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| beginning.starts_with(kind.line()))
    }
}

/// The first entry of a log that does not hold, and where it is.
#[derive(Debug, thiserror::Error)]
#[error("entry {entry}: {error}")]
pub struct Place {
    /// Entries before it.
    pub entry: u64,
    /// What is wrong.
    pub error: LogError,
}

/// Why a log is not believed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// The file ends in the middle of an entry, or before the entry that ends it.
    #[error("log is truncated: it ends before its end")]
    Truncated,
    /// Something comes after the entry that ends it.
    #[error("log goes on after its end")]
    Trailing,
    /// An entry is longer than any.
    #[error("entry of {bytes} bytes is over the bound of {bytes_max} bytes")]
    TooLong {
        /// As said.
        bytes: usize,
        /// Length allowed.
        bytes_max: usize,
    },
    /// An entry is none.
    #[error("not an entry of such a log: {0}")]
    Form(#[from] CanonError),
    /// A head does not hold, not for its batch, or not beside another one.
    #[error("{0}")]
    Head(#[from] HeadError),
    /// A record does not hold.
    #[error("{0}")]
    Record(#[from] RecordError),
    /// Nothing is in it.
    #[error("log has no entries")]
    Empty,
    /// A head of another host.
    #[error("head is of node {found}, the log of node {expected}: a head of another host")]
    OtherHost {
        /// Whose log it is.
        expected: NodeId,
        /// Whose head.
        found: NodeId,
    },
    /// A receipt of another host.
    #[error("receipt of node {named} in a batch that node {node} signed")]
    OtherReceipt {
        /// Who signed the batch.
        node: NodeId,
        /// Whom the receipt names.
        named: NodeId,
    },
    /// Entries are missing.
    #[error("log has a gap: number {expected} is missing, {found} comes in its place")]
    Gap {
        /// The number missing.
        expected: u64,
        /// As found.
        found: u64,
    },
    /// Entries stand in another order.
    #[error("log is reordered: number {found} stands where {expected} belongs")]
    Order {
        /// What belongs there.
        expected: u64,
        /// As found.
        found: u64,
    },
    /// An entry comes twice.
    #[error("number {number} is repeated: a replayed entry")]
    Repeated {
        /// Which.
        number: u64,
    },
    /// A record comes twice.
    #[error("record is repeated: it is that of entry {earlier} again")]
    RepeatedRecord {
        /// Where it was first.
        earlier: u64,
    },
    /// A head does not follow the one before it, which is not remembered any more.
    #[error("head {seq} does not name the one before it")]
    Apart {
        /// Its number.
        seq: u64,
    },
    /// An entry of a job's log is not what the one after it was chained to.
    #[error("entry is chained to {named}, the one before it is {found}: an entry was exchanged")]
    Chain {
        /// As named.
        named: LinkId,
        /// As computed.
        found: LinkId,
    },
    /// A record of another job.
    #[error("record is of job {found}, the log of job {expected}")]
    OtherJob {
        /// Whose log it is.
        expected: JobId,
        /// Whose record.
        found: JobId,
    },
    /// The signed end of another job's log.
    #[error("head is of job {found}, the log of job {expected}")]
    OtherHead {
        /// Whose log it is.
        expected: JobId,
        /// Whose head.
        found: JobId,
    },
    /// Signed by another key than the coordinator's that it names.
    #[error("head names coordinator {named} but another key signed it")]
    Signer {
        /// The coordinator named.
        named: NodeId,
    },
    /// Another coordinator's history, or job's log.
    #[error("it is signed by coordinator {found} instead of {expected}: another grid's")]
    OtherCoordinator {
        /// Whose was expected.
        expected: NodeId,
        /// Who signed.
        found: NodeId,
    },
    /// Another operator's history.
    #[error("history is of operator {found} instead of {expected}: another operator's")]
    OtherOperator {
        /// Whose was expected.
        expected: OperatorId,
        /// Whose it is.
        found: OperatorId,
    },
    /// More entries than may be.
    #[error("history of {entries} entries is over the bound of {HISTORY_ENTRIES_MAX} entries")]
    TooMany {
        /// As signed.
        entries: u64,
    },
    /// A head that is known from elsewhere is none of its links.
    #[error("history of {entries} entries does not go through head {head}: it is truncated, or another one")]
    Elsewhere {
        /// The head that it has to go through.
        head: LinkId,
        /// Entries of the history.
        entries: u64,
    },
    /// An entry of a history does not follow from those before it.
    #[error("{0}")]
    Change(#[from] ChangeError),
    /// What an entry of a history names is not there, or says something else.
    #[error("{0}")]
    Evidence(Box<EvidenceError>),
    /// Shards of one stage do not agree on how many they are.
    #[error("shard {found:?} is of another cut than {first:?}")]
    OtherCut {
        /// The first of its stage.
        first: ShardInfo,
        /// As found.
        found: ShardInfo,
    },
}

impl From<EvidenceError> for LogError {
    fn from(error: EvidenceError) -> Self {
        Self::Evidence(Box::new(error))
    }
}

impl From<SignatureError> for LogError {
    fn from(error: SignatureError) -> Self {
        Self::Head(error.into())
    }
}

impl LogError {
    /// The same, but that an entry which is missing here, and comes among what is left, is in the wrong place. `number` says which
    /// entry an item holds.
    pub(super) fn or_reordered(self, rest: &mut Items<impl BufRead>, number: impl Fn(&[u8]) -> Option<u64>) -> Self {
        let Self::Gap { expected, found } = self else { return self };
        while let Ok(Some(item)) = rest.next() {
            if number(&item) == Some(expected) {
                return Self::Order { expected, found };
            }
        }
        self
    }
}

/// Adds an item to a file.
///
/// # Panics
/// When the item is over the bound of its kind by far: a broken invariant, since whoever makes items bounds them.
pub fn push(file: &mut Vec<u8>, item: &[u8]) {
    let length = u32::try_from(item.len()).expect("items are bounded far below 4 GiB");
    file.extend_from_slice(&length.to_be_bytes());
    file.extend_from_slice(item);
}

/// The items of a file after its first line.
#[derive(Debug)]
pub struct Items<R> {
    from: R,
    kind: Kind,
    whole: u64,
}

impl<R: BufRead> Items<R> {
    /// Reads what comes after the first line.
    pub fn new(kind: Kind, from: R) -> Self {
        Self { from, kind, whole: 0 }
    }

    /// Bytes of the items read so far, with their lengths.
    pub fn bytes(&self) -> u64 {
        self.whole
    }

    /// The next item; none at the end of the file.
    ///
    /// # Errors
    /// When the file cannot be read, ends in the middle of an item, or an item is over its bound.
    #[expect(clippy::should_implement_trait, reason = "an iterator could not be asked how far it is")]
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, LogError> {
        if self.from.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut length = [0; LENGTH_BYTES];
        self.from.read_exact(&mut length).map_err(ended)?;
        let (bytes, bytes_max) = (u32::from_be_bytes(length) as usize, self.kind.item_bytes_max());
        if bytes > bytes_max {
            return Err(LogError::TooLong { bytes, bytes_max });
        }
        let mut item = Vec::new();
        // Room is made as bytes come: a length alone takes none.
        self.from.by_ref().take(bytes as u64).read_to_end(&mut item)?;
        if item.len() < bytes {
            return Err(LogError::Truncated);
        }
        self.whole += (LENGTH_BYTES + bytes) as u64;
        Ok(Some(item))
    }
}

fn ended(error: io::Error) -> LogError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => LogError::Truncated,
        _ => LogError::Read(error),
    }
}
