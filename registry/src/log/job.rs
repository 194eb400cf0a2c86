//! A job's log: its records, accepted ones and evidence, in the order in which they were kept. Nothing is taken out of it: a
//! result that was withdrawn stays, and what took its place comes later.
//!
//! The coordinator signs where it ends, together with what decided the job's audits. Who has the file can draw them again with nothing
//! else, and a coordinator that signs two logs of which neither goes on from the other has given evidence against itself.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::BufRead,
};

use serde::{Deserialize, Serialize};

pub use super::chain::START;
use super::{
    chain::Chain,
    file::{self, ENTRY_BYTES_MAX, Items, Kind, LogError, Place},
    heads::Heads,
};
use crate::{
    audit::Secret,
    canon,
    id::{BlobHash, JobId, LinkId, NodeId, SecretHash},
    job::{Policy, ShardInfo, Stage},
    receipt::{Checked, Record},
    sign::{SecretKey, Signed, Statement},
};

/// What stands for an entry and everything before it: entry `seq` of a job's log holds this record.
pub fn link(job: JobId, seq: u64, prev: LinkId, record: &[u8]) -> LinkId {
    LinkId(canon::hash("quorate/job-log/1", &(job, seq, prev, BlobHash::of(record))))
}

/// One record in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Entries before it.
    pub seq: u64,
    /// The link of the one before; zeros for the first.
    pub prev: LinkId,
    /// The record.
    pub record: Record,
}

/// What a coordinator signs about a job's log: where it ends, and what decided the job's audits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobHead {
    /// Who signs, and decided.
    pub coordinator: NodeId,
    /// Whose log it is.
    pub job: JobId,
    /// Entries in it.
    pub entries: u64,
    /// The link of the last; zeros when there is none.
    pub link: LinkId,
    /// When it was signed: more may have come since.
    pub at_ms: u64,
    /// How results are checked.
    pub policy: Policy,
    /// What was committed to when the job was accepted.
    pub secret_hash: SecretHash,
    /// That secret, once the job has ended: until then audits are drawn with it.
    pub secret: Option<Secret>,
}

impl Statement for JobHead {
    const DOMAIN: &'static str = "quorate/job-log-head/1";
    const BYTES_MAX: usize = 512;
}

impl JobHead {
    /// The head, when the coordinator that it names has signed it.
    fn open(signed: &Signed<Self>) -> Result<Self, LogError> {
        let (head, signer) = signed.open()?;
        if head.coordinator.0 == signer { Ok(head) } else { Err(LogError::Signer { named: head.coordinator }) }
    }
}

/// An item of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Item {
    /// An entry.
    Entry(Box<Entry>),
    /// The end, so that a file which was cut is seen to be: of files that are older than signed ends.
    End {
        /// Entries.
        entries: u64,
        /// The link of the last.
        head: LinkId,
    },
    /// The end, signed by the coordinator.
    Signed(Box<Signed<JobHead>>),
}

impl Item {
    /// The item with these canonical bytes.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LogError> {
        Ok(canon::decode(bytes, ENTRY_BYTES_MAX)?)
    }
}

/// What a job's log says, once checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobSaid {
    /// The job.
    pub job: JobId,
    /// Records in it.
    pub records: u64,
    /// Those of them that are evidence.
    pub evidence: u64,
    /// Those that show a shard which nobody reproduced.
    pub inconclusive: u64,
    /// Shards with an accepted result.
    pub accepted: u64,
    /// Shards of the stages that have results.
    pub shards: u64,
    /// The link of the last.
    pub head: LinkId,
    /// What the coordinator signed about it; nothing in files that are older than that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed: Option<JobHead>,
}

/// A job's log as far as it was checked.
#[derive(Debug, Default)]
pub struct JobLog {
    job: Option<JobId>,
    chain: Chain,
    records: HashMap<BlobHash, u64>,
    cuts: BTreeMap<Stage, ShardInfo>,
    accepted: BTreeSet<ShardInfo>,
    evidence: u64,
    inconclusive: u64,
}

impl JobLog {
    /// Checks the next entry: that it follows, that its record holds, and that it is of this job.
    ///
    /// # Errors
    /// Names the first thing that does not hold.
    pub fn push(&mut self, entry: &Entry, heads: &mut Heads) -> Result<(), LogError> {
        let checked = entry.record.check_by(heads)?;
        let job = *self.job.get_or_insert(checked.job);
        if checked.job != job {
            return Err(LogError::OtherJob { expected: job, found: checked.job });
        }
        let bytes = entry.record.to_bytes();
        let link = link(job, entry.seq, entry.prev, &bytes);
        self.chain.check(entry.seq, entry.prev)?;
        let earlier = *self.records.entry(BlobHash::of(&bytes)).or_insert(entry.seq);
        if earlier != entry.seq {
            return Err(LogError::RepeatedRecord { earlier });
        }
        self.note(&checked)?;
        self.chain.push(link);
        Ok(())
    }

    fn note(&mut self, checked: &Checked) -> Result<(), LogError> {
        let found = checked.shard;
        let first = *self.cuts.entry(found.stage).or_insert(found);
        if first.count != found.count {
            return Err(LogError::OtherCut { first, found });
        }
        match (checked.accused, checked.differing) {
            (Some(_), _) => self.evidence += 1,
            (None, Some(_)) => {
                self.inconclusive += 1;
                self.accepted.remove(&found);
            }
            (None, None) => _ = self.accepted.insert(found),
        }
        Ok(())
    }

    fn end(&self, entries: u64, head: LinkId) -> Result<JobSaid, LogError> {
        let Chain { entries: records, last } = self.chain;
        if entries > records {
            return Err(LogError::Truncated);
        }
        if (entries, head) != (records, last) {
            return Err(LogError::Chain { named: head, found: last });
        }
        Ok(JobSaid {
            job: self.job.ok_or(LogError::Empty)?,
            records,
            evidence: self.evidence,
            inconclusive: self.inconclusive,
            accepted: self.accepted.len() as u64,
            shards: self.cuts.values().map(|shard| u64::from(shard.count)).sum(),
            head,
            signed: None,
        })
    }

    /// The same, of an end that is signed.
    fn end_signed(&self, signed: &Signed<JobHead>) -> Result<JobSaid, LogError> {
        let head = JobHead::open(signed)?;
        let said = self.end(head.entries, head.link)?;
        if said.job != head.job {
            return Err(LogError::OtherHead { expected: said.job, found: head.job });
        }
        Ok(JobSaid { signed: Some(head), ..said })
    }

    /// Checks a whole file, after its first line; `heads` may know of heads from elsewhere.
    ///
    /// # Errors
    /// Names the first entry that does not hold, with its position.
    pub fn check(file: impl BufRead, heads: &mut Heads) -> Result<JobSaid, Place> {
        Self::check_each(file, heads, |_| Ok(()))
    }

    /// The same; `each` is shown every record that holds, and may refuse it.
    ///
    /// # Errors
    /// Names the first entry that does not hold, or is refused, with its position.
    pub fn check_each(
        file: impl BufRead,
        heads: &mut Heads,
        each: impl FnMut(&Record) -> Result<(), LogError>,
    ) -> Result<JobSaid, Place> {
        let mut items = Items::new(Kind::Job, file);
        let mut log = Self::default();
        let checked = log.read(&mut items, heads, each);
        checked.map_err(|error| Place { entry: log.chain.entries, error })
    }

    fn read(
        &mut self,
        items: &mut Items<impl BufRead>,
        heads: &mut Heads,
        mut each: impl FnMut(&Record) -> Result<(), LogError>,
    ) -> Result<JobSaid, LogError> {
        while let Some(item) = items.next()? {
            let said = match Item::from_bytes(&item)? {
                Item::Entry(entry) => {
                    self.push(&entry, heads).map_err(|error| error.or_reordered(items, number))?;
                    each(&entry.record)?;
                    continue;
                }
                Item::End { entries, head } => self.end(entries, head)?,
                Item::Signed(signed) => self.end_signed(&signed)?,
            };
            return if items.next()?.is_none() { Ok(said) } else { Err(LogError::Trailing) };
        }
        Err(LogError::Truncated)
    }
}

/// The number of the entry that an item holds, if it holds one.
fn number(item: &[u8]) -> Option<u64> {
    match Item::from_bytes(item) {
        Ok(Item::Entry(entry)) => Some(entry.seq),
        Ok(Item::End { .. } | Item::Signed(_)) | Err(_) => None,
    }
}

/// The file that holds these entries, which are a whole log; `sign` says what is signed of so many with this link of the last.
pub fn file(job: JobId, entries: &[Entry], key: &SecretKey, sign: impl FnOnce(u64, LinkId) -> JobHead) -> Vec<u8> {
    let (mut file, head) = beginning(job, entries);
    let head = sign(entries.len() as u64, head);
    file::push(&mut file, &canon::encode(&Item::Signed(Box::new(Signed::seal(&head, key)))));
    file
}

/// The file without its end, and the link of the last entry.
fn beginning(job: JobId, entries: &[Entry]) -> (Vec<u8>, LinkId) {
    let mut file = Kind::Job.line().to_vec();
    let mut head = START;
    for entry in entries {
        head = link(job, entry.seq, entry.prev, &entry.record.to_bytes());
        file::push(&mut file, &canon::encode(&Item::Entry(Box::new(entry.clone()))));
    }
    (file, head)
}
