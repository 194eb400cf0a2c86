//! Jobs' logs by the coordinator's handle: what was kept of a job, and the file of it with its end signed.

use registry::{
    id::{JobId, NodeId},
    job::ShardInfo,
    log::{
        Entry, JobHead,
        job::{START, file},
    },
    receipt::{Record, RecordError},
};

use super::{Closed, Coordinator, LoggedRecord};
use crate::{clock, journal::JournalError};

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogFileError {
    /// Stopping.
    #[error("{0}")]
    Closed(#[from] Closed),
    /// The records cannot be read.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// Nothing is known of the job.
    #[error("job {job} is not known here")]
    Unknown {
        /// Which.
        job: JobId,
    },
    /// A record makes no sense.
    #[error("a record of job {job} is damaged: {source}; restore the journal from a copy")]
    Damaged {
        /// Whose.
        job: JobId,
        /// Why.
        source: RecordError,
    },
}

impl Coordinator {
    /// The records of a job that stand, by shard.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn records(&self, job: JobId) -> Result<Vec<LoggedRecord>, JournalError> {
        self.journal.records(job).await
    }

    /// Machines that records of this part of a job accuse, with the records' places in the job's log.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn evidence(&self, job: JobId, shard: ShardInfo) -> Result<Vec<(NodeId, u64)>, JournalError> {
        self.journal.evidence(job, shard).await
    }

    /// The file of a job's log as far as it goes now: all records that the job ever had, in their order, with an end that this coordinator
    /// has signed.
    ///
    /// # Errors
    /// When nothing is known of the job, the coordinator is stopping, or its journal cannot be read.
    pub async fn log_file(&self, job: JobId) -> Result<Vec<u8>, LogFileError> {
        let audited = self.ask(move |state| state.job(job).map(|job| (job.spec.policy, job.secret()))).await?;
        let (policy, (secret_hash, secret)) = audited.ok_or(LogFileError::Unknown { job })?;
        let mut prev = START;
        let entry = |logged: LoggedRecord| {
            let record = Record::from_bytes(&logged.record.bytes)?;
            Ok(Entry { seq: logged.seq, prev: std::mem::replace(&mut prev, logged.link), record })
        };
        let entries: Result<Vec<Entry>, RecordError> = self.journal.log(job).await?.into_iter().map(entry).collect();
        let entries = entries.map_err(|source| LogFileError::Damaged { job, source })?;
        let (coordinator, at_ms) = (NodeId(self.key.public()), clock::now_ms());
        Ok(file(job, &entries, &self.key, |entries, link| JobHead {
            coordinator,
            job,
            entries,
            link,
            at_ms,
            policy,
            secret_hash,
            secret,
        }))
    }
}
