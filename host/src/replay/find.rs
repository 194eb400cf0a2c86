//! From a signed execution to the task that it was of.
//!
//! The receipt's job id names the job, which holds the template; its task id names template, shard and input. Both come
//! from a source of content and are held against the receipt. The input is a blob of its own or, where that is not at
//! hand, the slice that the job's plan gives.

use bytes::Bytes;
use grid::plan::Cutter;
use registry::{
    id::{BlobHash, JobId, TaskId},
    job::{JobInput, JobSpec, ShardInfo, Stage, TaskKey, TaskTemplate},
    preimage::Preimage,
    receipt::Execution,
};

use super::{Difference, ReplayError, Sources, content::ContentError};
use crate::{limits, task::Call};

/// A task with its input.
pub(super) struct Task {
    pub(super) template: TaskTemplate,
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
        let named: Option<TaskKey> = sources.preimage(execution.task.0)?;
        let at_hand = match named {
            Some(key) => sources.find("input", key.input, limits::STDIN_BYTES_MAX).await?,
            None => None,
        };
        let (input_hash, input) = match (named, at_hand) {
            (Some(key), Some(input)) => (key.input, input),
            (named, _) => {
                let missing = || match named {
                    Some(key) => ContentError::Missing { what: "input", hash: key.input },
                    None => ContentError::Missing { what: "task", hash: BlobHash(execution.task.0) },
                };
                let input = planned(sources, &spec, shard).await?.ok_or_else(missing)?;
                (BlobHash::of(&input), input)
            }
        };
        // The job's template and the receipt's shard, whatever the task's own bytes say: that they agree is what is compared.
        let key = TaskKey { template: template.hash(), shard, input: input_hash };
        Ok(Self { template, key, input })
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

/// The shard's slice of the job's input, cut as the grid cuts it, if the whole is at hand.
async fn planned(sources: &Sources, spec: &JobSpec, shard: ShardInfo) -> Result<Option<Bytes>, ReplayError> {
    if shard.stage == Stage::Reduce {
        return Ok(None);
    }
    let index = shard.index as usize;
    let whole = match &spec.input {
        JobInput::None => Some(Bytes::new()),
        JobInput::Inline(bytes) => Some(Bytes::copy_from_slice(bytes)),
        JobInput::Blob(blob) => sources.find("input", *blob, limits::STDIN_BYTES_MAX).await?,
        JobInput::Blobs(blobs) => match blobs.get(index) {
            Some(blob) => return Ok(sources.find("input", *blob, limits::STDIN_BYTES_MAX).await?),
            None => None,
        },
    };
    let Some(whole) = whole else { return Ok(None) };
    let mut cutter = Cutter::new(&spec.split, None)?;
    cutter.push(&whole)?;
    let plan = cutter.finish()?;
    let slice = plan.shards.get(index).filter(|_| plan.shards.len() == shard.count as usize);
    // The plan lies within the input that was cut.
    Ok(slice.map(|planned| whole.slice(planned.slice.start as usize..planned.slice.end as usize)))
}
