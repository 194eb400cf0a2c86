//! One task on this machine: from what it is to a request for the sandbox, and from what the sandbox finished to what is
//! signed.
//!
//! The worker and `quorate run` both go through here, so that a task does on its author's desk what it does on a host.
//! Nothing in a [`Call`] names a job: the same template, shard and input have the same id, and the same commitment, in
//! every job and outside of any.

use std::collections::BTreeMap;

use bytes::Bytes;
use guest_sdk::abi;
use registry::{
    id::{BlobHash, EngineFingerprint, TaskId},
    job::{Class, Limits, ShardInfo, Stage, TaskTemplate, task_id},
    receipt::{Execution, Output, OutputFile},
    segment::SegmentRecord,
};

use crate::{
    limits,
    sandbox::{Finished, ModuleInfo, PAGE_BYTES, Request, SandboxOptions},
};

/// One pure function call.
pub(crate) struct Call<'a> {
    pub(crate) template: &'a TaskTemplate,
    /// [`TaskTemplate::hash`], computed once a job.
    pub(crate) template_hash: BlobHash,
    pub(crate) shard: ShardInfo,
    /// Hash of standard input.
    pub(crate) input: BlobHash,
}

impl Call<'_> {
    pub(crate) fn id(&self) -> TaskId {
        task_id(self.template_hash, self.shard, self.input)
    }

    /// What the sandbox is to run. `wall_ms_max` is the template's limit, or less where a lease ends before; it is no part
    /// of the result.
    pub(crate) fn request(&self, stdin: Bytes, files: BTreeMap<String, Bytes>, wall_ms_max: u64) -> Request {
        let template = self.template;
        let mut env = template.env.clone();
        env.extend(shard_env(self.shard));
        Request {
            module: template.module,
            args: template.args.clone(),
            env,
            stdin,
            files,
            models: template.models.clone(),
            limits: Limits { wall_ms_max, ..template.limits },
            seed: self.id().0,
            // Who audits it gets the same answers from no other machine.
            record: template.class != Class::Exact,
            recorded: None,
        }
    }

    /// What a host signs about the result, and a quorum compares.
    pub(crate) fn execution(&self, engine: EngineFingerprint, finished: &Finished, output: &Output) -> Execution {
        Execution {
            task: self.id(),
            module: self.template.module,
            class: self.template.class,
            engine,
            outcome: finished.outcome,
            fuel_used: finished.fuel_used,
            output: output.hash(),
            nn_root: finished.nn_root,
            segment_root: finished.segments.as_ref().and_then(SegmentRecord::root),
        }
    }
}

/// Options of a sandbox for one task at a time, which gives what any host may give; what the hosts of a grid really give
/// is theirs to say.
pub(crate) fn alone() -> SandboxOptions {
    SandboxOptions {
        memory_bytes_max: limits::MEMORY_BYTES_MAX,
        output_bytes_max: limits::OUTPUT_BYTES_MAX,
        scratch_bytes_max: limits::SCRATCH_BYTES_MAX,
        slots_max: 1,
        ..SandboxOptions::default()
    }
}

fn shard_env(shard: ShardInfo) -> [(String, String); 3] {
    let stage = match shard.stage {
        Stage::Map => abi::STAGE_MAP,
        Stage::Reduce => abi::STAGE_REDUCE,
    };
    [
        (abi::ENV_SHARD.to_owned(), shard.index.to_string()),
        (abi::ENV_SHARDS.to_owned(), shard.count.to_string()),
        (abi::ENV_STAGE.to_owned(), stage.to_owned()),
    ]
}

/// What a task wrote, by its hashes.
pub(crate) fn output(finished: &Finished) -> Output {
    let file = |(path, bytes): &(String, Bytes)| OutputFile {
        path: path.clone(),
        hash: BlobHash::of(bytes),
        bytes: bytes.len() as u64,
    };
    Output {
        stdout: BlobHash::of(&finished.stdout),
        stdout_bytes: finished.stdout.len() as u64,
        files: finished.files.iter().map(file).collect(),
    }
}

/// Why no host would run a task: said before it is tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// Asks for more than any host may give.
    #[error("limits.{what} is {value}, over the bound of {bound}: ask for less")]
    Limit { what: &'static str, value: u64, bound: u64 },
    /// Cannot even start within its own limit.
    #[error("module starts with {bytes} bytes of memory, over limits.memory_bytes_max of {bound}: raise the limit")]
    Memory { bytes: u64, bound: u64 },
}

impl Unfit {
    /// A stable word for the wire and for programs.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Limit { .. } => "limit_too_large",
            Self::Memory { .. } => "memory_limit",
        }
    }
}

/// More than any host may give is refused, by name.
pub(crate) fn check_limits(asked: &Limits) -> Result<(), Unfit> {
    let rules = [
        ("memory_bytes_max", asked.memory_bytes_max, limits::MEMORY_BYTES_MAX),
        ("output_bytes_max", asked.output_bytes_max, limits::OUTPUT_BYTES_MAX),
        ("log_bytes_max", asked.log_bytes_max, limits::LOG_BYTES_MAX),
        ("scratch_bytes_max", asked.scratch_bytes_max, limits::SCRATCH_BYTES_MAX),
        ("wall_ms_max", asked.wall_ms_max, limits::WALL_MS_MAX),
    ];
    match rules.into_iter().find(|(_, value, bound)| value > bound) {
        Some((what, value, bound)) => Err(Unfit::Limit { what, value, bound }),
        None => Ok(()),
    }
}

/// A module that starts with more memory than its limit never runs.
pub(crate) fn check_memory(module: &ModuleInfo, asked: &Limits) -> Result<(), Unfit> {
    let bytes = module.memory_pages_min.saturating_mul(PAGE_BYTES);
    if bytes > asked.memory_bytes_max {
        return Err(Unfit::Memory { bytes, bound: asked.memory_bytes_max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_any_host_has_is_refused_by_name() {
        check_limits(&Limits::default()).unwrap();
        let refusal = check_limits(&Limits { memory_bytes_max: u64::MAX, ..Limits::default() }).unwrap_err();
        assert_eq!(refusal.word(), "limit_too_large");
        assert!(refusal.to_string().contains("limits.memory_bytes_max is"), "{refusal}");
    }
}
