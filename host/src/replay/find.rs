//! From a signed execution to the task that it was of.
//!
//! The receipt's job id names the job, which holds the template; its task id names template, shard and input. Both come
//! from a source of content and are held against the receipt.
//!
//! The input is the one that the job says, wherever the job alone says it: no input, bytes in the job, a blob a shard. Of one
//! blob that is cut into shards the task's own bytes name the slice, so that the whole need not be at hand; where they are
//! not at hand the blob is cut again. That such a slice is the job's own is then the word of those who signed.

use std::collections::BTreeMap;

use bytes::Bytes;
use grid::plan::Cutter;
use registry::{
    id::{BlobHash, JobId, ModelHash, TaskId},
    job::{JobInput, JobSpec, ShardInfo, Split, Stage, TaskKey, TaskTemplate},
    preimage::Preimage,
    receipt::Execution,
    tolerance::Tolerance,
};

use super::{Difference, ReplayError, Sources, content::ContentError};
use crate::{limits, task::Call};

/// A task with its input.
pub(super) struct Task {
    pub(super) template: TaskTemplate,
    /// How far answers of models may differ, as the job says.
    pub(super) tolerances: BTreeMap<ModelHash, Tolerance>,
    key: TaskKey,
    pub(super) input: Bytes,
}

impl Task {
    /// The task of the job that the execution is said to be of.
    pub(super) async fn find(
        sources: &Sources,
        job: JobId,
        shard: ShardInfo,
        execution: &Execution,
    ) -> Result<Self, ReplayError> {
        let spec: JobSpec =
            sources.preimage(job.0)?.ok_or(ContentError::Missing { what: "job", hash: BlobHash(job.0) })?;
        let template = spec.template();
        let is_in_job = shard.stage == Stage::Map && matches!(spec.input, JobInput::Inline(_));
        let input = match said_by_job(&spec, shard) {
            Some(hash) => Some((hash, sources.blob("input", hash, limits::STDIN_BYTES_MAX).await?)),
            None if is_in_job => None,
            None => named_by_task(sources, execution.task).await?,
        };
        let (input_hash, input) = match input {
            Some(input) => input,
            None => {
                let missing = ContentError::Missing { what: "input of task", hash: BlobHash(execution.task.0) };
                let input = planned(sources, &spec, shard).await?.ok_or(missing)?;
                (BlobHash::of(&input), input)
            }
        };
        // The job's template and the receipt's shard, whatever the task's own bytes say: that they agree is what is compared.
        let key = TaskKey { template: template.hash(), shard, input: input_hash };
        let of_model = |(name, tolerance): (&String, &Tolerance)| Some((*template.models.get(name)?, *tolerance));
        let tolerances = spec.tolerances.iter().filter_map(of_model).collect();
        Ok(Self { template, tolerances, key, input })
    }

    /// How it differs from the task that was signed: then there is nothing to run.
    pub(super) fn difference(&self, signed: &Execution) -> Option<Difference> {
        let (task, module) = (TaskId(self.key.name()), self.template.module);
        if signed.task != task {
            return Some(Difference::Task { signed: signed.task, found: task });
        }
        (signed.module != module).then_some(Difference::Module { signed: signed.module, found: module })
    }

    pub(super) fn call(&self) -> Call<'_> {
        let TaskKey { template, shard, input } = self.key;
        Call { template: &self.template, template_hash: template, shard, input }
    }
}

/// Hash of the shard's input, where the job names it.
fn said_by_job(spec: &JobSpec, shard: ShardInfo) -> Option<BlobHash> {
    match (&spec.input, shard.stage) {
        (_, Stage::Reduce) => None,
        (JobInput::None, Stage::Map) => Some(BlobHash::of(b"")),
        (JobInput::Blob(blob), Stage::Map) => (spec.split == Split::Each).then_some(*blob),
        (JobInput::Blobs(blobs), Stage::Map) => blobs.get(shard.index as usize).copied(),
        (JobInput::Inline(_), Stage::Map) => None,
    }
}

/// The input that the task's own bytes name, if both are at hand.
async fn named_by_task(sources: &Sources, task: TaskId) -> Result<Option<(BlobHash, Bytes)>, ContentError> {
    let Some(TaskKey { input, .. }) = sources.preimage(task.0)? else { return Ok(None) };
    Ok(sources.find("input", input, limits::STDIN_BYTES_MAX).await?.map(|bytes| (input, bytes)))
}

/// The shard's slice of the job's input, cut as the grid cuts it, if the whole is at hand.
async fn planned(sources: &Sources, spec: &JobSpec, shard: ShardInfo) -> Result<Option<Bytes>, ReplayError> {
    let whole = match (&spec.input, shard.stage) {
        (JobInput::Inline(bytes), Stage::Map) => Some(Bytes::copy_from_slice(bytes)),
        (JobInput::Blob(blob), Stage::Map) => sources.find("input", *blob, limits::STDIN_BYTES_MAX).await?,
        _ => None,
    };
    let Some(whole) = whole else { return Ok(None) };
    let mut cutter = Cutter::new(&spec.split, None)?;
    cutter.push(&whole)?;
    let plan = cutter.finish()?;
    let slice = plan.shards.get(shard.index as usize).filter(|_| plan.shards.len() == shard.count as usize);
    // The plan lies within the input that was cut.
    Ok(slice.map(|planned| whole.slice(planned.slice.start as usize..planned.slice.end as usize)))
}
