//! The histories of operators, each change chained to the one before. They are never taken out: what they tell is over, and what
//! follows from it is not.

use registry::{
    id::{LinkId, OperatorId},
    log::{chain::Chain, history::link},
};
use rusqlite::{Connection, OptionalExtension, params};

use super::Changed;

pub(super) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS history (
        operator BLOB NOT NULL, seq INTEGER NOT NULL, link BLOB NOT NULL, body BLOB NOT NULL,
        PRIMARY KEY (operator, seq)) WITHOUT ROWID;
";

/// Writes a change as the next entry of its operator's history.
pub(super) fn append(connection: &Connection, operator: OperatorId, change: &[u8]) -> rusqlite::Result<()> {
    let Chain { entries, last } = tip(connection, operator)?;
    let link = link(operator, entries, last, change);
    let sql = "INSERT INTO history (operator, seq, link, body) VALUES (?1, ?2, ?3, ?4)";
    connection.prepare_cached(sql)?.execute(params![operator.as_bytes(), entries, link.as_bytes(), change])?;
    Ok(())
}

/// Where an operator's history ends.
pub(super) fn tip(connection: &Connection, operator: OperatorId) -> rusqlite::Result<Chain> {
    let sql = "SELECT seq, link FROM history WHERE operator = ?1 ORDER BY seq DESC LIMIT 1";
    let mut query = connection.prepare_cached(sql)?;
    let last = query.query_row([operator.as_bytes()], |row| Ok((row.get::<_, u64>(0)?, LinkId(row.get(1)?))));
    Ok(last.optional()?.map_or_else(Chain::default, |(seq, last)| Chain { entries: seq + 1, last }))
}

/// Changes of an operator in their order, from this number on, so many at most.
pub(super) fn read(
    connection: &Connection,
    operator: OperatorId,
    from: u64,
    max: usize,
) -> rusqlite::Result<Vec<Changed>> {
    let sql = "SELECT link, body FROM history WHERE operator = ?1 AND seq >= ?2 ORDER BY seq LIMIT ?3";
    let mut query = connection.prepare_cached(sql)?;
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let rows = query.query_map(params![operator.as_bytes(), from, max], |row| {
        Ok(Changed { link: LinkId(row.get(0)?), change: row.get(1)? })
    })?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use registry::log::chain::START;

    use super::*;
    use crate::journal::{Journal, Row};

    const ONE: OperatorId = OperatorId([1; 32]);
    const OTHER: OperatorId = OperatorId([2; 32]);

    fn open(dir: &std::path::Path) -> Journal {
        Journal::open(&dir.join("journal.db"), Box::new(|_, _| {})).unwrap().0
    }

    #[tokio::test]
    async fn changes_are_chained_for_each_operator_apart_and_go_on_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let changes: [&[u8]; 3] = [b"a", b"b", b"c"];
        let row = |operator, change: &[u8]| Row::Change(operator, change.to_vec());
        let journal = open(dir.path());
        let rows = vec![row(ONE, changes[0]), row(OTHER, b"other"), row(ONE, changes[1])];
        journal.append_and_tell(vec![], rows).await.unwrap();
        journal.close();
        let journal = open(dir.path());
        journal.append_and_tell(vec![], vec![row(ONE, changes[2])]).await.unwrap();
        let read = journal.history(ONE, 0, 10).await.unwrap();
        let mut prev = START;
        assert_eq!(read.len(), changes.len());
        for (seq, (read, change)) in (0..).zip(read.iter().zip(changes)) {
            prev = link(ONE, seq, prev, change);
            assert_eq!((read.link, read.change.as_slice()), (prev, change));
        }
        let tips = journal.history_tips(vec![ONE, OTHER, OperatorId([3; 32])]).await.unwrap();
        assert_eq!(tips.iter().map(|tip| tip.entries).collect::<Vec<_>>(), [3, 1, 0]);
        assert_eq!((tips[0].last, tips[2]), (prev, Chain::default()));
        let page = journal.history(ONE, 1, 1).await.unwrap();
        assert_eq!(page.iter().map(|read| read.change.as_slice()).collect::<Vec<_>>(), [b"b"]);
    }

    #[tokio::test]
    async fn a_journal_without_histories_gets_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        open(dir.path()).close();
        let old = Connection::open(&path).unwrap();
        old.execute_batch("DROP TABLE history; PRAGMA user_version = 3;").unwrap();
        drop(old);
        let journal = open(dir.path());
        journal.append_and_tell(vec![], vec![Row::Change(ONE, b"a".to_vec())]).await.unwrap();
        assert_eq!(journal.history(ONE, 0, 10).await.unwrap().len(), 1);
        journal.close();
        let version: i64 =
            Connection::open(&path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(version, 4);
    }
}
