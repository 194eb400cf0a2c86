//! The host's log on disk: every batch that it signed, in files that anyone can check.
//!
//! ```text
//! receipts/00000000000000000000.log   head 0, 1, ... 811
//! receipts/00000000000000000812.log   head 812, ...            the last one grows
//! ```
//! Each file is a log by itself (`registry::log`), named by the number of its first head. Past [`limits::RECEIPT_LOG_SEGMENT_BYTES`]
//! a new one is begun; past [`limits::RECEIPT_LOG_BYTES_MAX`] in all the oldest goes.
//!
//! # Who owns what
//! The signer's thread owns the log, and one process the directory. The directory belongs to the node's key: who takes the key
//! elsewhere without it begins a second chain under the same key, which is what a host that equivocates does.
//!
//! # What a crash loses
//! Nothing that anybody was sent: a batch is on disk before its first receipt leaves the host. There is no other file that
//! says where the chain is: the end of the log does. A batch that was being written may be there in part, and is cut off, or
//! whole, and then it stays though nobody was sent it: its head was never sent either, so the next one may follow it. After a
//! write that failed the file is cut back to where it was; where that fails too, nothing is signed until the host is started
//! again and reads what is there.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use registry::{
    canon,
    id::NodeId,
    log::{
        Kind, LogError,
        file::{self, Items},
        host::decode,
    },
    receipt::Receipt,
    sign::{Batch, Tip},
};

use crate::limits;

const EXTENSION: &str = "log";

/// Why a host's log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptLogError {
    /// The file system says no.
    #[error("receipt log {}: {source}; check the disk and the directory's permissions", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in a file is no log.
    #[error(
        "receipt log {} is damaged after {bytes} bytes ({source}): restore it from a copy, or give the host another key", path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Bytes of it that are sound.
        bytes: u64,
        /// What is wrong.
        source: LogError,
    },
    /// The log is of another node.
    #[error("receipt log {} is of node {found}, this is node {node}: move it away, to where the other's key is", path.display())]
    OtherNode {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Whose it should be.
        node: NodeId,
    },
    /// An earlier failure left the file in an unknown state.
    #[error("receipt log could not be put back after a failed write: start the host again")]
    Unknown,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ReceiptLogError {
    let path = path.to_owned();
    |source| ReceiptLogError::File { path, source }
}

/// One file of a log.
#[derive(Debug)]
struct Segment {
    path: PathBuf,
    bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct ReceiptLog {
    dir: PathBuf,
    /// Oldest first; the last one grows.
    segments: VecDeque<Segment>,
    /// The last one, open.
    file: Option<File>,
    tip: Tip,
    is_unknown: bool,
}

impl ReceiptLog {
    /// Opens the log of `node`, or begins one.
    pub(super) fn open(dir: &Path, node: NodeId) -> Result<Self, ReceiptLogError> {
        fs::create_dir_all(dir).map_err(at(dir))?;
        let mut segments: VecDeque<Segment> = segments(dir)?.into();
        let mut tip = None;
        while tip.is_none()
            && let Some(last) = segments.back_mut()
        {
            tip = recover(last, node)?;
            if tip.is_none() {
                // Begun, and nothing written to it.
                fs::remove_file(&last.path).map_err(at(&last.path))?;
                segments.pop_back();
            }
        }
        let append = |segment: &Segment| OpenOptions::new().append(true).open(&segment.path).map_err(at(&segment.path));
        let file = segments.back().map(append).transpose()?;
        Ok(Self { dir: dir.to_owned(), segments, file, tip: tip.unwrap_or(Tip::START), is_unknown: false })
    }

    /// Where the chain goes on.
    pub(super) fn tip(&self) -> Tip {
        self.tip
    }

    /// Writes a batch, whose head's tip is `next`; it is on disk when this returns.
    pub(super) fn append(&mut self, batch: &Batch<Receipt>, next: Tip) -> Result<(), ReceiptLogError> {
        if self.is_unknown {
            return Err(ReceiptLogError::Unknown);
        }
        let mut item = Vec::new();
        file::push(&mut item, &canon::encode(batch));
        let (file, segment) = self.growing(item.len() as u64)?;
        let written = file.write_all(&item).and_then(|()| file.sync_data());
        if let Err(source) = written {
            let path = segment.path.clone();
            self.is_unknown = file.set_len(segment.bytes).and_then(|()| file.sync_data()).is_err();
            return Err(ReceiptLogError::File { path, source });
        }
        segment.bytes += item.len() as u64;
        self.tip = next;
        self.drop_oldest();
        Ok(())
    }

    /// The file that so many bytes more go to.
    fn growing(&mut self, bytes: u64) -> Result<(&mut File, &mut Segment), ReceiptLogError> {
        let has_room =
            self.segments.back().is_some_and(|segment| segment.bytes + bytes <= limits::RECEIPT_LOG_SEGMENT_BYTES);
        if !has_room {
            let path = self.dir.join(format!("{:020}.{EXTENSION}", self.tip.heads));
            let begun = begin(&path, &self.dir).map_err(at(&path))?;
            self.segments.push_back(Segment { path, bytes: Kind::Host.line().len() as u64 });
            self.file = Some(begun);
        }
        match (&mut self.file, self.segments.back_mut()) {
            (Some(file), Some(segment)) => Ok((file, segment)),
            _ => Err(ReceiptLogError::Unknown),
        }
    }

    fn drop_oldest(&mut self) {
        let mut bytes: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
        while bytes > limits::RECEIPT_LOG_BYTES_MAX
            && self.segments.len() > 1
            && let Some(oldest) = self.segments.pop_front()
        {
            bytes -= oldest.bytes;
            if let Err(error) = fs::remove_file(&oldest.path) {
                tracing::warn!(%error, file = %oldest.path.display(), "an old part of the receipt log stays");
            }
        }
    }
}

/// Makes a file with its first line, and sees to it that the directory names it.
fn begin(path: &Path, dir: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.set_len(0)?;
    file.write_all(Kind::Host.line())?;
    file.sync_data()?;
    File::open(dir)?.sync_all()?;
    Ok(file)
}

/// The files of a log, oldest first.
fn segments(dir: &Path) -> Result<Vec<Segment>, ReceiptLogError> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let path = entry.map_err(at(dir))?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            let bytes = fs::metadata(&path).map_err(at(&path))?.len();
            segments.push(Segment { path, bytes });
        }
    }
    segments.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(segments)
}

/// Where the chain is at the end of a file, whose torn end is cut off; nowhere if no batch is in it.
fn recover(segment: &mut Segment, node: NodeId) -> Result<Option<Tip>, ReceiptLogError> {
    let path = &segment.path;
    let Some(mut items) = read(path)? else { return Ok(None) };
    let (mut tip, line) = (None, Kind::Host.line().len() as u64);
    loop {
        let sound = line + items.bytes();
        let damaged = |source| ReceiptLogError::Damaged { path: path.clone(), bytes: sound, source };
        let item = match items.next() {
            Ok(Some(item)) => item,
            Ok(None) => break,
            Err(LogError::Truncated) => {
                tracing::warn!(file = %path.display(), bytes = sound, "a batch that was being written is cut off");
                let file = OpenOptions::new().write(true).open(path).map_err(at(path))?;
                file.set_len(sound).and_then(|()| file.sync_data()).map_err(at(path))?;
                segment.bytes = sound;
                break;
            }
            Err(source) => return Err(damaged(source)),
        };
        let head = decode(&item).and_then(|batch| Ok(batch.head.peek()?)).map_err(damaged)?;
        if head.node != node {
            return Err(ReceiptLogError::OtherNode { path: path.clone(), found: head.node, node });
        }
        tip = Some(head.tip());
    }
    Ok(tip)
}

/// The items of a file; none if not even its first line is whole.
fn read(path: &Path) -> Result<Option<Items<BufReader<File>>>, ReceiptLogError> {
    let mut from = BufReader::new(File::open(path).map_err(at(path))?);
    let mut line = Vec::new();
    let expected = Kind::Host.line();
    from.by_ref().take(expected.len() as u64).read_to_end(&mut line).map_err(at(path))?;
    if !expected.starts_with(&line) {
        return Err(at(path)(io::Error::new(io::ErrorKind::InvalidData, "file does not begin as a host's log does")));
    }
    Ok((line == expected).then(|| Items::new(Kind::Host, from)))
}

/// Writes a host's log as one file; gives the batches in it. A batch that is being written meanwhile is left out.
///
/// # Errors
/// When the log cannot be read, or the copy not written.
pub fn export(dir: &Path, to: &Path) -> Result<u64, ReceiptLogError> {
    let mut out = io::BufWriter::new(File::create(to).map_err(at(to))?);
    out.write_all(Kind::Host.line()).map_err(at(to))?;
    let mut batches = 0;
    for Segment { path, .. } in segments(dir)? {
        let Some(mut items) = read(&path)? else { continue };
        loop {
            let bytes = items.bytes();
            let item = match items.next() {
                Ok(Some(item)) => item,
                Ok(None) | Err(LogError::Truncated) => break,
                Err(source) => return Err(ReceiptLogError::Damaged { path, bytes, source }),
            };
            let mut framed = Vec::with_capacity(item.len() + 4);
            file::push(&mut framed, &item);
            out.write_all(&framed).map_err(at(to))?;
            batches += 1;
        }
    }
    out.flush().map_err(at(to))?;
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use registry::{
        id::{BlobHash, EngineFingerprint, JobId, ModuleHash, OperatorId, TaskId},
        job::{Class, ShardInfo, Stage},
        log::{Heads, HostLog, host::HostSaid},
        receipt::{Execution, Outcome},
        sign::SecretKey,
    };

    use super::*;

    fn key() -> SecretKey {
        SecretKey::from_bytes(&[1; 32])
    }

    fn node() -> NodeId {
        NodeId(key().public())
    }

    fn receipt(nonce: u64) -> Receipt {
        let execution = Execution {
            task: TaskId([3; 32]),
            module: ModuleHash([2; 32]),
            class: Class::Exact,
            engine: EngineFingerprint([4; 32]),
            outcome: Outcome::Ok,
            fuel_used: 1,
            output: BlobHash([5; 32]),
            nn_root: None,
            segment_root: None,
        };
        Receipt {
            job: JobId([1; 32]),
            shard: ShardInfo { stage: Stage::Map, index: 0, count: 1 },
            execution,
            device: None,
            node: node(),
            operator: OperatorId([6; 32]),
            nonce,
            price_micro: 0,
            nn_record: None,
            segment_record: None,
        }
    }

    fn sign(log: &mut ReceiptLog, receipts: std::ops::Range<u64>) {
        let receipts: Vec<Receipt> = receipts.map(receipt).collect();
        let (batch, next) = Batch::seal(&receipts, log.tip(), &key()).unwrap();
        log.append(&batch, next).unwrap();
    }

    fn exported(dir: &Path) -> HostSaid {
        let file = dir.with_extension("exported");
        export(dir, &file).unwrap();
        let bytes = fs::read(&file).unwrap();
        HostLog::check(bytes.strip_prefix(Kind::Host.line()).unwrap(), &mut Heads::default()).unwrap()
    }

    #[test]
    fn a_log_goes_on_after_a_restart_and_verifies_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("receipts");
        for start in 0..3 {
            let mut log = ReceiptLog::open(&dir, node()).unwrap();
            assert_eq!(log.tip().heads, 2 * start);
            sign(&mut log, 0..1);
            sign(&mut log, 1..5);
        }
        let said = exported(&dir);
        assert_eq!((said.first, said.last, said.receipts), (0, 5, 15));
    }

    #[test]
    fn a_batch_that_was_being_written_is_cut_off_and_its_number_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("receipts");
        let mut log = ReceiptLog::open(&dir, node()).unwrap();
        sign(&mut log, 0..1);
        let before = log.tip();
        let path = log.segments[0].path.clone();
        let whole = fs::metadata(&path).unwrap().len();
        sign(&mut log, 1..9);
        let written = fs::metadata(&path).unwrap().len();
        drop(log);
        for bytes in [written - 1, whole + 3] {
            OpenOptions::new().write(true).open(&path).unwrap().set_len(bytes).unwrap();
            let log = ReceiptLog::open(&dir, node()).unwrap();
            assert_eq!((log.tip(), fs::metadata(&path).unwrap().len()), (before, whole));
        }
        sign(&mut ReceiptLog::open(&dir, node()).unwrap(), 1..2);
        assert_eq!(exported(&dir).last, 1);
    }

    #[test]
    fn old_parts_go_and_a_part_that_was_only_begun_is_begun_again() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("receipts");
        let mut log = ReceiptLog::open(&dir, node()).unwrap();
        sign(&mut log, 0..1);
        sign(&mut log, 0..1);
        // As if it were full, and the oldest over the bound.
        log.segments[0].bytes = limits::RECEIPT_LOG_BYTES_MAX;
        sign(&mut log, 0..3);
        assert_eq!(log.segments.len(), 1);
        let said = exported(&dir);
        assert_eq!((said.first, said.last, said.receipts), (2, 2, 3));
        fs::write(dir.join(format!("{:020}.log", 3)), b"quorate/ho").unwrap();
        let mut log = ReceiptLog::open(&dir, node()).unwrap();
        sign(&mut log, 0..1);
        assert_eq!(exported(&dir).last, 3);
    }

    #[test]
    fn a_file_of_somebody_else_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.log");
        fs::write(&path, b"something else").unwrap();
        let refused = ReceiptLog::open(dir.path(), node()).unwrap_err().to_string();
        assert!(refused.contains("does not begin as a host's log does") && path.exists(), "{refused}");
    }

    #[test]
    fn a_log_of_another_node_and_a_damaged_one_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = ReceiptLog::open(dir.path(), node()).unwrap();
        sign(&mut log, 0..1);
        sign(&mut log, 1..2);
        let refused = |node| ReceiptLog::open(dir.path(), node).unwrap_err().to_string();
        assert!(refused(NodeId([9; 32])).contains("is of node"), "{}", refused(NodeId([9; 32])));
        let path = log.segments[0].path.clone();
        let mut bytes = fs::read(&path).unwrap();
        bytes[40] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(refused(node()).contains("is damaged after 19 bytes"), "{}", refused(node()));
    }
}
