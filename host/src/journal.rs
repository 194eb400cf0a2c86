//! The coordinator's memory: every event in order, and what was kept beside it, in one SQLite file.
//!
//! One thread owns the writing connection. Whatever has queued up while the last commit ran goes into the next one (group
//! commit), and a commit is on disk when it returns (`WAL`, `synchronous = FULL`). Appends that nobody waits for are
//! held back for [`LINGER`], so that a task whose submission and receipt are milliseconds apart costs one commit.
//!
//! A crash loses what was appended and not yet committed: nobody was told of it. When a commit fails (a full disk, an
//! I/O error) the batch is kept and tried again; until it succeeds [`Journal::is_healthy`] says no and new work is
//! refused. A snapshot of the state replaces the events before it.
//!
//! Records of a job are its log: each is chained to the one before as it is written (`registry::log::job`), in the transaction
//! that has the event which led to it. None is taken out: one that was withdrawn is marked. Changes of an operator's standing are
//! its history, which is written in the same way (`registry::log::history`).
//!
//! SQLite through `rusqlite`: the journal is one writer on one thread, which is the shape of a synchronous library.

mod chain;
mod history;

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use registry::{
    canon,
    id::{BlobHash, JobId, LinkId, NodeId, OperatorId},
    job::ShardInfo,
    log::chain::Chain,
};
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;

use crate::{clock::Stopwatch, limits};

/// How long an append that nobody waits for may wait for company.
pub const LINGER: Duration = Duration::from_millis(4);
/// Wait before a failed commit is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// Version of the tables and of the events in them.
const SCHEMA: i64 = 4;
/// The version before, which has no histories: its coordinator begins them.
const SCHEMA_WITHOUT_HISTORIES: i64 = 3;
/// The version before that, whose records have no chain: it is made when such a file is opened.
const SCHEMA_UNCHAINED: i64 = 2;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// SQLite says no.
    #[error("journal {path}: {source}; check the disk and the directory's permissions")]
    Sqlite {
        /// The file.
        path: String,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Written by another version.
    #[error("journal {path} has schema {found}, this version reads {SCHEMA}: use the version that wrote it")]
    Schema {
        /// The file.
        path: String,
        /// As found.
        found: i64,
    },
    /// An entry does not decode.
    #[error("journal {path}: entry {seq} is damaged ({source}); restore the file from a copy")]
    Damaged {
        /// The file.
        path: String,
        /// Which entry.
        seq: i64,
        /// Why.
        source: canon::CanonError,
    },
    /// Its thread ended.
    #[error("journal is closed: the coordinator is stopping")]
    Closed,
}

/// What is kept beside the events.
#[derive(Debug, Clone)]
pub enum Row {
    /// A small output.
    Output {
        /// The job it was written for.
        job: JobId,
        /// Its hash.
        hash: BlobHash,
        /// Its bytes.
        body: Bytes,
    },
    /// A record of receipts.
    Record(JobId, StoredRecord),
    /// A signed statement about a name.
    Name(Bytes),
    /// Postings that the ledger has no more at hand: each with its place, and as it is encoded.
    Postings(Vec<(u64, Vec<u8>)>),
    /// What a job cost in the end, as it is encoded.
    Invoice(JobId, Vec<u8>),
    /// A change of an operator's standing, as it is encoded.
    Change(OperatorId, Vec<u8>),
    /// Everything of a job may go, but for what it cost.
    Forget(JobId),
}

/// A record of receipts as it is kept: canonical bytes of a `registry::receipt::Record`.
#[derive(Debug, Clone)]
pub struct StoredRecord {
    /// The shard.
    pub shard: ShardInfo,
    /// The node that it accuses, if it is evidence.
    pub accused: Option<NodeId>,
    /// Its canonical bytes.
    pub bytes: Bytes,
}

/// A record with its place in its job's log.
#[derive(Debug, Clone)]
pub struct LoggedRecord {
    /// The record.
    pub record: StoredRecord,
    /// Records of the job before it.
    pub seq: u64,
    /// What stands for it and everything before it.
    pub link: LinkId,
    /// Another one has taken its place.
    pub withdrawn: bool,
}

/// A change of an operator's standing in its history.
#[derive(Debug, Clone)]
pub struct Changed {
    /// What stands for it and everything before it.
    pub link: LinkId,
    /// Its canonical bytes.
    pub change: Vec<u8>,
}

/// One event as it is journalled: its time and its canonical bytes.
pub type Entry = (u64, Vec<u8>);

enum Command {
    Append { entries: Vec<Entry>, rows: Vec<Row>, done: Option<oneshot::Sender<()>> },
    Snapshot(Vec<u8>),
    Close,
}

/// Measures one commit: events in it, and its time.
pub type OnCommit = Box<dyn Fn(usize, Duration) + Send>;

/// A handle on the journal.
#[derive(Clone)]
pub struct Journal {
    commands: mpsc::Sender<Command>,
    healthy: Arc<AtomicBool>,
    reader: Arc<Mutex<Connection>>,
    path: Arc<str>,
    thread: Arc<Mutex<Option<thread::JoinHandle<()>>>>,
}

/// What a journal held when it was opened.
#[derive(Debug, Default)]
pub struct Replay {
    /// The last snapshot.
    pub snapshot: Option<Vec<u8>>,
    /// The events after it.
    pub entries: Vec<Entry>,
    /// Every statement about a name.
    pub names: Vec<Vec<u8>>,
}

impl Journal {
    /// Opens the journal file, or makes one, and reads what it holds.
    ///
    /// # Errors
    /// When the file cannot be opened, read or is of another version.
    pub fn open(path: &Path, on_commit: OnCommit) -> Result<(Self, Replay), JournalError> {
        let shown: Arc<str> = path.display().to_string().into();
        let failed = |source| JournalError::Sqlite { path: shown.to_string(), source };
        let mut writer = connect(path).map_err(failed)?;
        let found: i64 = writer.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
        if ![0, SCHEMA_UNCHAINED, SCHEMA_WITHOUT_HISTORIES, SCHEMA].contains(&found) {
            return Err(JournalError::Schema { path: shown.to_string(), found });
        }
        if found == SCHEMA_UNCHAINED {
            chain::begin(&mut writer).map_err(failed)?;
        }
        writer.execute_batch(TABLES).and_then(|()| writer.execute_batch(history::TABLE)).map_err(failed)?;
        writer.pragma_update(None, "user_version", SCHEMA).map_err(failed)?;
        let replay = replay(&writer).map_err(failed)?;
        let reader = connect(path).map_err(failed)?;
        let healthy = Arc::new(AtomicBool::new(true));
        let (commands, inbox) = mpsc::channel();
        let mut thread = Writer { connection: writer, healthy: healthy.clone(), on_commit };
        let thread = thread::Builder::new().name("journal".into()).spawn(move || thread.run(&inbox));
        let thread = thread.map_err(|error| failed(rusqlite::Error::ToSqlConversionFailure(Box::new(error))))?;
        let reader = Arc::new(Mutex::new(reader));
        let thread = Arc::new(Mutex::new(Some(thread)));
        Ok((Self { commands, healthy, reader, path: shown, thread }, replay))
    }

    /// Whether the last commit worked.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Appends without waiting.
    pub fn append(&self, entries: Vec<Entry>, rows: Vec<Row>) {
        // A closed journal means that the process is stopping: nobody was promised anything.
        let _ = self.commands.send(Command::Append { entries, rows, done: None });
    }

    /// Appends; the receiver hears when everything up to here is on disk.
    pub fn append_and_tell(&self, entries: Vec<Entry>, rows: Vec<Row>) -> oneshot::Receiver<()> {
        let (done, told) = oneshot::channel();
        let _ = self.commands.send(Command::Append { entries, rows, done: Some(done) });
        told
    }

    /// Replaces all events appended before by a snapshot of the state that they led to.
    pub fn snapshot(&self, state: Vec<u8>) {
        let _ = self.commands.send(Command::Snapshot(state));
    }

    /// Commits what is left and ends the thread. Blocks.
    pub fn close(&self) {
        let _ = self.commands.send(Command::Close);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }

    /// A small output, by its hash.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn output(&self, hash: BlobHash) -> Result<Option<Bytes>, JournalError> {
        self.read(move |connection| {
            let mut query = connection.prepare_cached("SELECT body FROM output WHERE hash = ?1 LIMIT 1")?;
            let body: Option<Vec<u8>> = query.query_row([hash.as_bytes()], |row| row.get(0)).optional()?;
            Ok(body.map(Bytes::from))
        })
        .await
    }

    /// The records of a job that stand, by shard, evidence after what it is held against.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn records(&self, job: JobId) -> Result<Vec<LoggedRecord>, JournalError> {
        let mut records = self.log(job).await?;
        records.retain(|logged| !logged.withdrawn);
        // The sort keeps the order in which they were written.
        records.sort_by_key(|logged| (logged.record.shard.stage, logged.record.shard.index));
        Ok(records)
    }

    /// Machines that records of this part of a job accuse, with the records' places in the job's log.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn evidence(&self, job: JobId, shard: ShardInfo) -> Result<Vec<(NodeId, u64)>, JournalError> {
        self.read(move |connection| chain::evidence(connection, job, shard)).await
    }

    /// All records that a job ever had, in the order in which they were written.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn log(&self, job: JobId) -> Result<Vec<LoggedRecord>, JournalError> {
        self.read(move |connection| chain::read(connection, job)).await
    }

    /// Postings from the archive, in their order, from this place on, so many at most; as they are encoded.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn postings(&self, from: u64, max: usize) -> Result<Vec<Vec<u8>>, JournalError> {
        let (from, max) = (i64::try_from(from).unwrap_or(i64::MAX), i64::try_from(max).unwrap_or(i64::MAX));
        self.read(move |connection| {
            let sql = "SELECT body FROM posting WHERE place >= ?1 ORDER BY place LIMIT ?2";
            let mut query = connection.prepare_cached(sql)?;
            query.query_map([from, max], |row| row.get(0))?.collect()
        })
        .await
    }

    /// What a job cost in the end, as it is encoded, if the job was settled and forgotten.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn invoice(&self, job: JobId) -> Result<Option<Vec<u8>>, JournalError> {
        self.read(move |connection| {
            let mut query = connection.prepare_cached("SELECT body FROM invoice WHERE job = ?1")?;
            query.query_row([job.as_bytes()], |row| row.get(0)).optional()
        })
        .await
    }

    /// Changes of an operator's standing, in their order, from this number on, so many at most.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn history(&self, operator: OperatorId, from: u64, max: usize) -> Result<Vec<Changed>, JournalError> {
        self.read(move |connection| history::read(connection, operator, from, max)).await
    }

    /// Where the histories of these operators end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn history_tips(&self, operators: Vec<OperatorId>) -> Result<Vec<Chain>, JournalError> {
        self.read(move |connection| operators.into_iter().map(|operator| history::tip(connection, operator)).collect())
            .await
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, JournalError> {
        let reader = self.reader.clone();
        let read = tokio::task::spawn_blocking(move || query(&reader.lock().unwrap_or_else(PoisonError::into_inner)));
        let read = read.await.map_err(|_| JournalError::Closed)?;
        read.map_err(|source| JournalError::Sqlite { path: self.path.to_string(), source })
    }
}

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS event (seq INTEGER PRIMARY KEY, now INTEGER NOT NULL, body BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS snapshot (id INTEGER PRIMARY KEY CHECK (id = 0), body BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS output (job BLOB NOT NULL, hash BLOB NOT NULL, body BLOB NOT NULL);
    CREATE UNIQUE INDEX IF NOT EXISTS output_hash ON output (hash, job);
    CREATE TABLE IF NOT EXISTS record (
        id INTEGER PRIMARY KEY, job BLOB NOT NULL, stage INTEGER NOT NULL, shard INTEGER NOT NULL,
        shards INTEGER NOT NULL, accused BLOB, body BLOB NOT NULL,
        seq INTEGER NOT NULL DEFAULT 0, link BLOB NOT NULL DEFAULT x'', withdrawn INTEGER NOT NULL DEFAULT 0);
    CREATE UNIQUE INDEX IF NOT EXISTS record_log ON record (job, seq);
    CREATE INDEX IF NOT EXISTS record_evidence ON record (job, stage, shard, accused, seq) WHERE accused IS NOT NULL;
    CREATE UNIQUE INDEX IF NOT EXISTS record_stands ON record (job, stage, shard) WHERE accused IS NULL AND withdrawn = 0;
    CREATE TABLE IF NOT EXISTS posting (place INTEGER PRIMARY KEY, body BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS invoice (job BLOB PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS name (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
";

/// Makes the file for its owner alone, since secrets of unfinished jobs are in it; SQLite gives its other files the same mode.
fn make_private(path: &Path) {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // Whatever is wrong with it, SQLite finds it as well and says what.
    drop(options.open(path));
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    make_private(path);
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", limits::JOURNAL_CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "cache_size", -i64::from(limits::JOURNAL_CACHE_KIB))?;
    Ok(connection)
}

fn replay(connection: &Connection) -> rusqlite::Result<Replay> {
    let snapshot = connection.query_row("SELECT body FROM snapshot", [], |row| row.get(0)).optional()?;
    let mut query = connection.prepare("SELECT now, body FROM event ORDER BY seq")?;
    let entries = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    let mut query = connection.prepare("SELECT body FROM name ORDER BY seq")?;
    let names = query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(Replay { snapshot, entries, names })
}

struct Writer {
    connection: Connection,
    healthy: Arc<AtomicBool>,
    on_commit: OnCommit,
}

/// What goes into one commit.
#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    rows: Vec<Row>,
    waiting: Vec<oneshot::Sender<()>>,
    snapshot: Option<Vec<u8>>,
    last: bool,
}

impl Batch {
    fn add(&mut self, command: Command) {
        match command {
            Command::Append { entries, rows, done } => {
                self.entries.extend(entries);
                self.rows.extend(rows);
                self.waiting.extend(done);
            }
            Command::Snapshot(state) => {
                self.entries.clear();
                self.snapshot = Some(state);
            }
            Command::Close => self.last = true,
        }
    }

    /// Whether there is nothing to write: somebody only waits for what came before.
    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.rows.is_empty() && self.snapshot.is_none()
    }

    fn is_urgent(&self) -> bool {
        !self.waiting.is_empty() || self.last
    }

    fn is_full(&self) -> bool {
        self.entries.len() + self.rows.len() >= limits::JOURNAL_BATCH_MAX
    }
}

impl Writer {
    fn run(&mut self, inbox: &mpsc::Receiver<Command>) {
        while let Some(batch) = next_batch(inbox) {
            let watch = Stopwatch::start();
            while !batch.is_empty()
                && let Err(error) = self.commit(&batch)
            {
                self.healthy.store(false, Ordering::Relaxed);
                tracing::error!(%error, "journal cannot commit; new work is refused until it can");
                if batch.last {
                    return;
                }
                thread::sleep(RETRY);
            }
            self.healthy.store(true, Ordering::Relaxed);
            if !batch.is_empty() {
                (self.on_commit)(batch.entries.len(), watch.elapsed());
            }
            for waiting in batch.waiting {
                // Whoever asked may have gone away.
                let _ = waiting.send(());
            }
            if batch.last {
                return;
            }
        }
    }

    fn commit(&mut self, batch: &Batch) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        if let Some(state) = &batch.snapshot {
            transaction.execute("DELETE FROM event", [])?;
            transaction.execute("INSERT OR REPLACE INTO snapshot (id, body) VALUES (0, ?1)", [state])?;
        }
        {
            let mut insert = transaction.prepare_cached("INSERT INTO event (now, body) VALUES (?1, ?2)")?;
            for (now, body) in &batch.entries {
                insert.execute(params![now, body])?;
            }
        }
        for row in &batch.rows {
            keep(&transaction, row)?;
        }
        transaction.commit()
    }
}

fn keep(connection: &Connection, row: &Row) -> rusqlite::Result<()> {
    match row {
        Row::Output { job, hash, body } => {
            let sql = "INSERT OR IGNORE INTO output (job, hash, body) VALUES (?1, ?2, ?3)";
            connection.prepare_cached(sql)?.execute(params![job.as_bytes(), hash.as_bytes(), body.as_ref()])?;
        }
        Row::Record(job, record) => chain::append(connection, *job, record)?,
        Row::Name(body) => {
            connection.prepare_cached("INSERT INTO name (body) VALUES (?1)")?.execute([body.as_ref()])?;
        }
        Row::Postings(postings) => {
            // What is appended again, since its commit failed half way, is the same.
            let mut insert =
                connection.prepare_cached("INSERT OR REPLACE INTO posting (place, body) VALUES (?1, ?2)")?;
            for (place, body) in postings {
                insert.execute(params![i64::try_from(*place).unwrap_or(i64::MAX), body])?;
            }
        }
        Row::Invoice(job, body) => {
            let sql = "INSERT OR REPLACE INTO invoice (job, body) VALUES (?1, ?2)";
            connection.prepare_cached(sql)?.execute(params![job.as_bytes(), body])?;
        }
        Row::Change(operator, change) => history::append(connection, *operator, change)?,
        Row::Forget(job) => {
            connection.prepare_cached("DELETE FROM output WHERE job = ?1")?.execute([job.as_bytes()])?;
            connection.prepare_cached("DELETE FROM record WHERE job = ?1")?.execute([job.as_bytes()])?;
        }
    }
    Ok(())
}

/// Waits for something to commit: at once when somebody waits for it, else after a linger.
fn next_batch(inbox: &mpsc::Receiver<Command>) -> Option<Batch> {
    let mut batch = Batch::default();
    batch.add(inbox.recv().ok()?);
    let watch = Stopwatch::start();
    while !batch.is_full() && !batch.last {
        let next = if batch.is_urgent() {
            inbox.try_recv().ok()
        } else {
            inbox.recv_timeout(LINGER.saturating_sub(watch.elapsed())).ok()
        };
        match next {
            Some(command) => batch.add(command),
            None => break,
        }
    }
    Some(batch)
}

#[cfg(test)]
mod tests {
    use registry::job::Stage;

    use super::*;

    fn open(path: &Path) -> (Journal, Replay) {
        Journal::open(path, Box::new(|_, _| {})).unwrap()
    }

    #[tokio::test]
    async fn what_was_told_to_be_on_disk_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let (journal, replay) = open(&path);
        assert!(replay.snapshot.is_none() && replay.entries.is_empty());
        journal.append(vec![(1, b"one".to_vec())], vec![Row::Name(Bytes::from_static(b"name"))]);
        journal.append_and_tell(vec![(2, b"two".to_vec())], vec![]).await.unwrap();
        // Opened beside the first, as after a SIGKILL: nothing was closed.
        let (_, replay) = open(&path);
        assert_eq!(replay.entries, [(1, b"one".to_vec()), (2, b"two".to_vec())]);
        assert_eq!(replay.names, [b"name"]);
    }

    #[tokio::test]
    async fn a_snapshot_replaces_the_events_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let (journal, _) = open(&path);
        journal.append_and_tell(vec![(1, b"one".to_vec())], vec![]).await.unwrap();
        journal.append(vec![(2, b"two".to_vec())], vec![]);
        journal.snapshot(b"state".to_vec());
        journal.append_and_tell(vec![(3, b"three".to_vec())], vec![]).await.unwrap();
        journal.close();
        let (_, replay) = open(&path);
        assert_eq!(replay.snapshot.as_deref(), Some(b"state".as_slice()));
        assert_eq!(replay.entries, [(3, b"three".to_vec())]);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn its_files_are_readable_by_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = open(&dir.path().join("journal.db"));
        journal.append_and_tell(vec![], vec![Row::Name(b"name".to_vec().into())]).await.unwrap();
        let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap()).collect();
        assert!(files.len() >= 2, "{files:?}");
        for file in files {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        }
    }

    #[tokio::test]
    async fn outputs_and_records_go_with_their_job() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = open(&dir.path().join("journal.db"));
        let (job, hash) = (JobId([1; 32]), BlobHash::of(b"out"));
        let shard = ShardInfo { stage: Stage::Map, index: 0, count: 1 };
        let record = StoredRecord { shard, accused: Some(NodeId([2; 32])), bytes: Bytes::from_static(b"record") };
        let output = Row::Output { job, hash, body: Bytes::from_static(b"out") };
        let accepted =
            |bytes| Row::Record(job, StoredRecord { shard, accused: None, bytes: Bytes::from_static(bytes) });
        let rows = vec![output, accepted(b"withdrawn"), Row::Record(job, record), accepted(b"stands")];
        journal.append_and_tell(vec![], rows).await.unwrap();
        assert_eq!(journal.output(hash).await.unwrap().as_deref(), Some(b"out".as_slice()));
        let records = journal.records(job).await.unwrap();
        let kept = |logged: &LoggedRecord| (logged.record.accused, logged.record.bytes.to_vec());
        let kept: Vec<_> = records.iter().map(kept).collect();
        assert_eq!(kept, [(Some(NodeId([2; 32])), b"record".to_vec()), (None, b"stands".to_vec())]);
        journal.append_and_tell(vec![], vec![Row::Forget(job)]).await.unwrap();
        assert_eq!(journal.output(hash).await.unwrap(), None);
        assert!(journal.records(job).await.unwrap().is_empty());
    }

    #[test]
    fn a_journal_of_another_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let refusal = Journal::open(&path, Box::new(|_, _| {})).err().unwrap().to_string();
        assert!(refusal.contains("schema 99"), "{refusal}");
    }
}
