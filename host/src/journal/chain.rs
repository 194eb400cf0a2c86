//! The records of jobs, each chained to the one before.

use registry::{
    id::{JobId, LinkId, NodeId},
    job::{ShardInfo, Stage},
    log::{job::START, link},
};
use rusqlite::{Connection, OptionalExtension, params};

use super::{LoggedRecord, StoredRecord};

/// Writes a record as the next one of its job. What is accepted now takes the place of what was withdrawn.
pub(super) fn append(connection: &Connection, job: JobId, record: &StoredRecord) -> rusqlite::Result<()> {
    let StoredRecord { shard: ShardInfo { stage, index, count }, accused, bytes } = record;
    let (job_bytes, stage) = (job.as_bytes(), u8::from(*stage == Stage::Reduce));
    if accused.is_none() {
        let sql = "UPDATE record SET withdrawn = 1
            WHERE job = ?1 AND stage = ?2 AND shard = ?3 AND accused IS NULL AND withdrawn = 0";
        connection.prepare_cached(sql)?.execute(params![job_bytes, stage, index])?;
    }
    let sql = "SELECT seq, link FROM record WHERE job = ?1 ORDER BY seq DESC LIMIT 1";
    let last = connection.prepare_cached(sql)?.query_row([job_bytes], place).optional()?;
    let (seq, prev) = last.map_or((0, START), |(seq, link)| (seq + 1, link));
    let sql = "INSERT INTO record (job, stage, shard, shards, accused, body, seq, link)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let accused = accused.as_ref().map(|node| node.as_bytes().as_slice());
    let link = link(job, seq, prev, bytes);
    let values = params![job_bytes, stage, index, count, accused, bytes.as_ref(), seq, link.as_bytes()];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

fn place(row: &rusqlite::Row<'_>) -> rusqlite::Result<(u64, LinkId)> {
    Ok((row.get(0)?, LinkId(row.get(1)?)))
}

/// All records of a job, in their order.
pub(super) fn read(connection: &Connection, job: JobId) -> rusqlite::Result<Vec<LoggedRecord>> {
    let sql =
        "SELECT seq, link, withdrawn, stage, shard, shards, accused, body FROM record WHERE job = ?1 ORDER BY seq";
    let mut query = connection.prepare_cached(sql)?;
    let rows = query.query_map([job.as_bytes()], |row| {
        let (seq, link) = place(row)?;
        let stage = if row.get::<_, u8>(3)? == 0 { Stage::Map } else { Stage::Reduce };
        let accused: Option<[u8; 32]> = row.get(6)?;
        let record = StoredRecord {
            shard: ShardInfo { stage, index: row.get(4)?, count: row.get(5)? },
            accused: accused.map(NodeId),
            bytes: row.get::<_, Vec<u8>>(7)?.into(),
        };
        Ok(LoggedRecord { record, seq, link, withdrawn: row.get(2)? })
    })?;
    rows.collect()
}

/// Whom the records of a part of a job accuse, and where they are in its log.
pub(super) fn evidence(connection: &Connection, job: JobId, shard: ShardInfo) -> rusqlite::Result<Vec<(NodeId, u64)>> {
    let sql = "SELECT accused, seq FROM record
        WHERE job = ?1 AND stage = ?2 AND shard = ?3 AND accused IS NOT NULL ORDER BY seq";
    let mut query = connection.prepare_cached(sql)?;
    let stage = u8::from(shard.stage == Stage::Reduce);
    let rows =
        query.query_map(params![job.as_bytes(), stage, shard.index], |row| Ok((NodeId(row.get(0)?), row.get(1)?)))?;
    rows.collect()
}

/// Chains the records of a file that was written without, in the order in which they were written.
pub(super) fn begin(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(
        "ALTER TABLE record ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE record ADD COLUMN link BLOB NOT NULL DEFAULT x'';
        ALTER TABLE record ADD COLUMN withdrawn INTEGER NOT NULL DEFAULT 0;
        DROP INDEX IF EXISTS record_job;
        DROP INDEX IF EXISTS record_accepted;",
    )?;
    {
        let mut query = transaction.prepare("SELECT id, job, body FROM record ORDER BY job, id")?;
        let mut rows = query.query([])?;
        let mut update = transaction.prepare("UPDATE record SET seq = ?2, link = ?3 WHERE id = ?1")?;
        let mut last: Option<(JobId, u64, LinkId)> = None;
        while let Some(row) = rows.next()? {
            let (id, job, body): (i64, _, Vec<u8>) = (row.get(0)?, JobId(row.get(1)?), row.get(2)?);
            let (seq, prev) = match last {
                Some((of, seq, link)) if of == job => (seq + 1, link),
                _ => (0, START),
            };
            let link = link(job, seq, prev, &body);
            update.execute(params![id, seq, link.as_bytes()])?;
            last = Some((job, seq, link));
        }
    }
    // With the columns, so that a crash leaves both or none.
    transaction.pragma_update(None, "user_version", super::SCHEMA)?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Journal, Row};

    const JOB: JobId = JobId([1; 32]);

    fn record(index: u32, bytes: &'static [u8]) -> Row {
        let shard = ShardInfo { stage: Stage::Map, index, count: 3 };
        Row::Record(JOB, StoredRecord { shard, accused: None, bytes: bytes.into() })
    }

    fn is_chained(log: &[LoggedRecord]) -> bool {
        let mut prev = START;
        log.iter().zip(0..).all(|(logged, seq)| {
            prev = link(JOB, seq, prev, &logged.record.bytes);
            (logged.seq, logged.link) == (seq, prev)
        })
    }

    #[tokio::test]
    async fn records_are_chained_in_the_order_in_which_they_were_kept_and_none_is_taken_out() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(&dir.path().join("journal.db"), Box::new(|_, _| {})).unwrap();
        let rows = vec![record(2, b"two"), record(0, b"zero"), record(2, b"two again"), record(1, b"one")];
        journal.append_and_tell(vec![], rows).await.unwrap();
        let log = journal.log(JOB).await.unwrap();
        let kept: Vec<_> = log.iter().map(|logged| (logged.record.bytes.to_vec(), logged.withdrawn)).collect();
        let expected = [(&b"two"[..], true), (b"zero", false), (b"two again", false), (b"one", false)];
        assert_eq!(kept, expected.map(|(bytes, withdrawn)| (bytes.to_vec(), withdrawn)));
        assert!(is_chained(&log));
        let standing = journal.records(JOB).await.unwrap();
        let standing: Vec<_> = standing.iter().map(|logged| logged.seq).collect();
        assert_eq!(standing, [1, 3, 2]);
        let Row::Record(_, StoredRecord { shard, .. }) = record(2, b"") else { panic!("a row of another kind") };
        assert_eq!(journal.evidence(JOB, shard).await.unwrap(), []);
        let accused = NodeId([9; 32]);
        let evidence = Row::Record(JOB, StoredRecord { shard, accused: Some(accused), bytes: b"x"[..].into() });
        journal.append_and_tell(vec![], vec![evidence]).await.unwrap();
        assert_eq!(journal.evidence(JOB, shard).await.unwrap(), [(accused, 4)]);
        assert_eq!(journal.evidence(JOB, ShardInfo { index: 1, ..shard }).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_journal_without_a_chain_gets_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(
            "CREATE TABLE record (
                id INTEGER PRIMARY KEY, job BLOB NOT NULL, stage INTEGER NOT NULL, shard INTEGER NOT NULL,
                shards INTEGER NOT NULL, accused BLOB, body BLOB NOT NULL);
            CREATE INDEX record_job ON record (job);
            CREATE UNIQUE INDEX record_accepted ON record (job, stage, shard) WHERE accused IS NULL;
            PRAGMA user_version = 2;",
        )
        .unwrap();
        let sql = "INSERT INTO record (job, stage, shard, shards, accused, body) VALUES (?1, 0, ?2, 3, NULL, ?3)";
        for (job, shard, body) in [(JOB, 1, b"b"), (JobId([2; 32]), 0, b"c"), (JOB, 0, b"a")] {
            old.execute(sql, params![job.as_bytes(), shard, body.as_slice()]).unwrap();
        }
        drop(old);
        let (journal, _) = Journal::open(&path, Box::new(|_, _| {})).unwrap();
        journal.append_and_tell(vec![], vec![record(2, b"d"), record(0, b"e")]).await.unwrap();
        let log = journal.log(JOB).await.unwrap();
        let bodies: Vec<_> = log.iter().map(|logged| logged.record.bytes.to_vec()).collect();
        assert_eq!(bodies, [b"b", b"a", b"d", b"e"]);
        assert!(is_chained(&log) && log[1].withdrawn);
    }
}
