//! Disputes: finds the one segment in which two receipts part, and runs it again.
//!
//! ```text
//! make:    two receipts, their records ─diverge► segment k ─run to k-1► snapshot ─run k► Dispute, snapshot
//! referee: Dispute ─check► snapshot ─run k► what it led to ─judge► first, second or neither
//! ```
//! Finding the segment needs both records of segments, each proven by the root in its receipt; making the snapshot needs one run
//! up to it. Whoever replays the dispute runs one segment.

use bytes::Bytes;
use registry::{
    dispute::{Dispute, End, Ending, Judgement, Parting, Start, contradict},
    id::{BlobHash, EngineFingerprint, NodeId, StateRoot, TaskId},
    receipt::{Execution, Receipt, Witness},
    segment::{SEGMENT_RECORD_BYTES_MAX, SegmentRecord, Snapshot},
};
use serde::Serialize;

use super::{ContentError, Folder, Player, ReplayError, find::Task, on_a_thread};
use crate::{
    sandbox::{self, HostFault, Ran, Request, Sandbox, Span},
    task,
};

/// What came of running a dispute's segment again.
#[derive(Debug, Serialize)]
pub(crate) struct Refereed {
    pub(crate) task: TaskId,
    pub(crate) engine: EngineFingerprint,
    /// From 0.
    pub(crate) segment: u32,
    /// Who is right about it.
    pub(crate) judgement: Judgement,
    /// Whether it came out as the file says.
    pub(crate) as_filed: bool,
    /// Who signed each side.
    pub(crate) first: NodeId,
    pub(crate) second: NodeId,
    /// What the segment led to.
    pub(crate) found: End,
}

impl Player {
    /// Runs the segment of a dispute again, and says who is right.
    ///
    /// # Errors
    /// When the dispute does not hold, or its segment cannot be run here.
    pub(crate) async fn referee(&mut self, dispute: &Dispute) -> Result<Refereed, ReplayError> {
        let checked = dispute.check()?;
        let Receipt { execution: Execution { task, engine, .. }, .. } = checked.first;
        let table = self.table(&checked.first).await?;
        let from = match dispute.start {
            Some(start) => Some(self.snapshot(start, table.snapshot_bytes_max()).await?),
            None => None,
        };
        let found = table.segment(from, dispute.segment).await?;
        Ok(Refereed {
            task,
            engine,
            segment: dispute.segment,
            judgement: checked.judge(&found),
            as_filed: found == dispute.found,
            first: checked.first.node,
            second: checked.second.node,
            found,
        })
    }

    /// Makes a dispute of two receipts that contradict each other, and puts the snapshot that it needs into a folder.
    ///
    /// # Errors
    /// When they do not, a record is missing or not the one that was signed, or the task cannot be run here.
    pub(crate) async fn dispute(&mut self, [a, b]: [Witness; 2], keep: &Folder) -> Result<Dispute, ReplayError> {
        let (first, second) = (a.open()?, b.open()?);
        contradict(&first.execution, &second.execution)?;
        let records = (self.segments(&first).await?, self.segments(&second).await?);
        let parting = Parting::new((a, &records.0), (b, &records.1));
        let table = self.table(&first).await?;
        let mut from = None;
        if let Some(before) = parting.segment.checked_sub(1) {
            let snapshot = table.pause(before).await?;
            let state = root(&snapshot, table.snapshot_bytes_max())?;
            if Some(state) != parting.start {
                return Err(ReplayError::State {
                    index: before,
                    signed: parting.start.map(|state| state.short()),
                    found: state.short(),
                });
            }
            keep.put_blob(&snapshot)?;
            from = Some(snapshot);
        }
        let snapshot = from.as_ref().map(|snapshot| BlobHash::of(snapshot));
        let found = table.segment(from, parting.segment).await?;
        Ok(parting.dispute(snapshot, found))
    }

    /// The states that a receipt signed.
    async fn segments(&self, receipt: &Receipt) -> Result<SegmentRecord, ReplayError> {
        let signed = receipt.execution.segment_root;
        let Some(root) = signed else { return Ok(SegmentRecord::default()) };
        let missing = ContentError::Missing { what: "record of segments", hash: root };
        let hash = receipt.segment_record.ok_or(missing)?;
        let bytes = self.sources.blob("record of segments", hash, SEGMENT_RECORD_BYTES_MAX as u64).await?;
        Ok(SegmentRecord::open(&bytes, signed)?)
    }

    /// The snapshot that a segment starts from.
    async fn snapshot(&self, start: Start, bytes_max: u64) -> Result<Bytes, ReplayError> {
        let bytes = self.sources.blob("snapshot", start.snapshot, bytes_max).await?;
        let found = root(&bytes, bytes_max)?;
        if found == start.state {
            return Ok(bytes);
        }
        Err(ReplayError::Start { signed: start.state.short(), found: found.short() })
    }

    /// Everything that running the task of a receipt takes.
    async fn table(&mut self, receipt: &Receipt) -> Result<Table, ReplayError> {
        let signed = &receipt.execution;
        let task = Task::find(&self.sources, receipt.job, receipt.shard, signed).await?;
        if let Some(difference) = task.difference(signed) {
            return Err(ReplayError::Task { detail: difference.to_string() });
        }
        let (sandbox, engines) = self.sandbox(signed, None)?;
        if let Some(detail) = engines {
            let own = sandbox.fingerprint().short();
            return Err(ReplayError::Engine { signed: signed.engine.short(), own, detail });
        }
        let (request, has_steps) = self.ready(&sandbox, &task).await?;
        Ok(Table { task, sandbox, request, has_steps })
    }
}

fn root(snapshot: &[u8], bytes_max: u64) -> Result<StateRoot, ReplayError> {
    Ok(Snapshot::open(snapshot, bytes_max)?.state.root())
}

/// A task that is ready to be run, as often as it takes.
struct Table {
    task: Task,
    sandbox: Sandbox,
    request: Request,
    has_steps: bool,
}

impl Table {
    fn snapshot_bytes_max(&self) -> u64 {
        sandbox::snapshot_bytes_max(&self.request.limits)
    }

    async fn run(&self, from: Option<Bytes>, until: Option<u32>) -> Result<Ran, ReplayError> {
        on_a_thread(self.sandbox.clone(), self.request.clone(), Span { from, until, pause_ms: None }).await
    }

    /// The snapshot of a state.
    async fn pause(&self, index: u32) -> Result<Bytes, ReplayError> {
        let none = || ReplayError::State { index, signed: None, found: "the end of the task".to_owned() };
        if !self.has_steps {
            return Err(none());
        }
        match self.run(None, Some(index)).await? {
            Ran::Paused(snapshot) => Ok(snapshot),
            Ran::Done(_) => Err(none()),
        }
    }

    /// What a segment leads to.
    async fn segment(&self, from: Option<Bytes>, segment: u32) -> Result<End, ReplayError> {
        if from.is_some() && !self.has_steps {
            return Err(ReplayError::Fault(HostFault::Snapshot { detail: "the module has no steps".to_owned() }));
        }
        Ok(match self.run(from, self.has_steps.then_some(segment)).await? {
            Ran::Paused(snapshot) => End::State(root(&snapshot, self.snapshot_bytes_max())?),
            Ran::Done(finished) => {
                let output = task::output(&finished);
                let execution = self.task.call().execution(self.sandbox.fingerprint(), &finished, &output);
                End::Task(Ending::from(&execution))
            }
        })
    }
}
