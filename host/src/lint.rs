//! The determinism lint: runs a module on its sample input under conditions that must not matter, and says whether they do.
//!
//! | condition | what is different from the first run |
//! |---|---|
//! | `plain` | nothing: it is the first |
//! | `used_memory` | another task filled the memory that it gets, in the same slot of the pool |
//! | `unoptimised` | its code is compiled without optimisation: other instructions, other registers, another stack |
//! | `process` | another process: other time, environment, directory, address space |
//! | `busy` | three of it run at once, started from other threads |
//! | `generic` | another process, whose code uses the instructions that every processor has |
//!
//! Everything that a task can give is compared: outcome, fuel, standard output, files, log, inferences, memory. The lint
//! stops at the first difference. `generic` is left out for modules with models, because the bits of inference belong to a
//! class of processors, and where `generic` is the machine's best.
//!
//! What it cannot find: what depends on the input (it has one), and what no two machines at hand do differently. A fault of
//! the host in any run, such as a deadline, is no verdict.
//!
//! **Another process** is the same program with the hidden verb [`CHILD_VERB`], which takes a [`Work`] as canonical bytes on
//! standard input and answers with what came of it.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use bytes::Bytes;
use registry::{
    canon::{self, CanonError},
    id::{BlobHash, EngineFingerprint, ModelHash, ModuleHash},
    job::{Class, JobError, JobSpec, Limits, ShardInfo, Stage},
    manifest::{Lint, LintCondition, LintDifference, LintRun, LintSubject},
};
use serde::{Deserialize, Serialize};

use crate::{
    limits,
    sandbox::{
        CpuClass, Finished, HostFault, LoadError, Optimisation, PAGE_BYTES, Request, Response, Sandbox, SandboxError,
        SandboxOptions,
    },
    task::{self, Call, Unfit},
};

/// The hidden verb of the program that runs a part of the lint.
pub(crate) const CHILD_VERB: &str = "lint-child";
/// Runs at once under `busy`.
const BUSY_SLOTS: u32 = 3;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LintError {
    /// No host would run it.
    #[error("{0}")]
    Job(#[from] JobError),
    /// No host would run it.
    #[error("{0}")]
    Unfit(#[from] Unfit),
    /// The module or a model does not load.
    #[error("{0}")]
    Load(#[from] LoadError),
    /// There is no sandbox.
    #[error("{0}")]
    Sandbox(#[from] SandboxError),
    /// A run came to no result.
    #[error("the run under condition {} came to no result: {fault}", condition.word())]
    Fault {
        /// Which run.
        condition: LintCondition,
        /// Why.
        fault: HostFault,
    },
    /// A thread did not start or broke down.
    #[error("a thread of the lint broke down")]
    Thread,
    /// The other process did not start, or broke off.
    #[error("the other process of the lint broke down: {0}")]
    Process(#[from] io::Error),
    /// The other process said something that makes no sense.
    #[error("the other process of the lint failed: {detail}")]
    Answer {
        /// What it said, or what is wrong with that.
        detail: String,
    },
    /// What the other process got makes no sense.
    #[error("work for the lint is malformed: {0}")]
    Form(#[from] CanonError),
}

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Work {
    module: Bytes,
    models: BTreeMap<ModelHash, Bytes>,
    request: Request,
    /// Of the process; the machine's best when absent.
    cpu_class: Option<CpuClass>,
    slots_max: u32,
    /// In order, on one sandbox.
    conditions: Vec<LintCondition>,
    /// Whether code is optimised. Another process always does.
    #[serde(skip)]
    optimisation: Optimisation,
}

/// What came of one condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ran {
    condition: LintCondition,
    engine: EngineFingerprint,
    /// One, or as many as ran at once.
    finished: Vec<Finished>,
}

impl Work {
    /// The module on its sample, as the only shard of a job with these limits.
    ///
    /// # Errors
    /// When no host would take that job.
    pub(crate) fn new(
        module: Bytes,
        models: BTreeMap<String, Bytes>,
        sample: Bytes,
        class: Class,
        limits: Limits,
    ) -> Result<Self, LintError> {
        let names = models.iter().map(|(name, bytes)| (name.clone(), ModelHash::of(bytes))).collect();
        let deadline_ms = registry::job::DEADLINE_MS_MAX;
        let spec = JobSpec { models: names, class, limits, deadline_ms, ..JobSpec::new(ModuleHash::of(&module), 0) };
        spec.check()?;
        task::check_limits(&limits)?;
        let template = spec.template();
        let call = Call {
            template: &template,
            template_hash: template.hash(),
            shard: ShardInfo { stage: Stage::Map, index: 0, count: 1 },
            input: BlobHash::of(&sample),
        };
        let request = call.request(sample, BTreeMap::new(), limits.wall_ms_max);
        Ok(Self {
            module,
            models: models.into_values().map(|bytes| (ModelHash::of(&bytes), bytes)).collect(),
            request,
            cpu_class: None,
            slots_max: 1,
            conditions: Vec::new(),
            optimisation: Optimisation::Speed,
        })
    }

    /// The parts that are run one after another, each on a sandbox of its own, and whether in another process.
    fn parts(&self) -> Vec<(Self, bool)> {
        use LintCondition::{Busy, Generic, Plain, Process, Unoptimised, UsedMemory};
        let part = |conditions: &[LintCondition]| Self { conditions: conditions.to_vec(), ..self.clone() };
        let mut parts = vec![
            (part(&[Plain, UsedMemory]), false),
            (Self { optimisation: Optimisation::None, ..part(&[Unoptimised]) }, false),
            (Self { slots_max: BUSY_SLOTS, ..part(&[Process, Busy]) }, true),
        ];
        if self.models.is_empty() && CpuClass::detect() != CpuClass::Generic {
            parts.push((Self { cpu_class: Some(CpuClass::Generic), ..part(&[Generic]) }, true));
        }
        parts
    }
}

/// Runs the module under every condition, until one differs. `exe` is this program.
///
/// # Errors
/// When it comes to no verdict.
pub(crate) fn lint(work: &Work, exe: &Path) -> Result<Lint, LintError> {
    judge(work.parts().into_iter().map(|(part, apart)| if apart { elsewhere(&part, exe) } else { here(&part) }))
}

/// The verdict over what the parts give, which are only run as long as all is equal.
fn judge(parts: impl IntoIterator<Item = Result<Vec<Ran>, LintError>>) -> Result<Lint, LintError> {
    let mut lint = Lint { runs: Vec::new(), difference: None };
    let mut first = None;
    for part in parts {
        for Ran { condition, engine, finished } in part? {
            lint.runs.push(LintRun { condition, engine });
            for finished in finished {
                let first = first.get_or_insert_with(|| finished.clone());
                if let Some(subject) = difference(first, &finished) {
                    lint.difference = Some(LintDifference { condition, subject });
                    return Ok(lint);
                }
            }
        }
    }
    Ok(lint)
}

/// The first thing in which two results differ.
fn difference(first: &Finished, other: &Finished) -> Option<LintSubject> {
    // What is added to a result has to be compared here.
    let Finished {
        outcome,
        fuel_used,
        stdout,
        stderr,
        files,
        memory_peak_bytes,
        wall_micros: _,
        inferences,
        nn_root,
        nn_record,
        // States name their engine, and conditions have several.
        segments: _,
    } = first;
    let is_inferred = *inferences == other.inferences && *nn_root == other.nn_root && *nn_record == other.nn_record;
    let subjects = [
        (LintSubject::Outcome, *outcome == other.outcome),
        (LintSubject::Fuel, *fuel_used == other.fuel_used),
        (LintSubject::Stdout, *stdout == other.stdout),
        (LintSubject::Files, *files == other.files),
        (LintSubject::Stderr, *stderr == other.stderr),
        (LintSubject::Inferences, is_inferred),
        (LintSubject::Memory, *memory_peak_bytes == other.memory_peak_bytes),
    ];
    subjects.into_iter().find(|(_, equal)| !equal).map(|(subject, _)| subject)
}

/// Runs a part in this process.
fn here(work: &Work) -> Result<Vec<Ran>, LintError> {
    let options = SandboxOptions {
        cpu_class: work.cpu_class,
        optimisation: work.optimisation,
        slots_max: work.slots_max,
        ..task::alone()
    };
    let sandbox = Sandbox::new(options)?;
    let info = sandbox.load_module(work.request.module, &work.module)?;
    task::check_memory(&info, &work.request.limits)?;
    for (hash, bytes) in &work.models {
        sandbox.load_model(*hash, bytes)?;
    }
    let run = |condition: &LintCondition| {
        let finished = perform(&sandbox, work, *condition)?;
        Ok(Ran { condition: *condition, engine: sandbox.fingerprint(), finished })
    };
    work.conditions.iter().map(run).collect()
}

fn perform(sandbox: &Sandbox, work: &Work, condition: LintCondition) -> Result<Vec<Finished>, LintError> {
    let result = |response| match response {
        Response::Done(finished) => Ok(finished),
        Response::Fault(fault) => Err(LintError::Fault { condition, fault }),
    };
    if condition == LintCondition::UsedMemory {
        result(fill_memory(sandbox, work.request.limits)?)?;
    }
    let at_once = if condition == LintCondition::Busy { BUSY_SLOTS } else { 1 };
    let requests = (0..at_once).map(|_| work.request.clone()).collect();
    on_threads(sandbox, requests)?.into_iter().map(result).collect()
}

/// Runs requests at once, each on a thread like those of a host, which have stack enough for guests.
fn on_threads(sandbox: &Sandbox, requests: Vec<Request>) -> Result<Vec<Response>, LintError> {
    thread::scope(|scope| {
        let start = |request| {
            let own = thread::Builder::new().name("lint".into()).stack_size(limits::EXECUTOR_STACK_BYTES);
            own.spawn_scoped(scope, || sandbox.run(request))
        };
        let threads = requests.into_iter().map(start).collect::<io::Result<Vec<_>>>()?;
        // All of them, so that none is still running when the first one's failure is told.
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        ended.into_iter().map(|response| response.map_err(|_| LintError::Thread)).collect()
    })
}

/// A task that fills every byte of the memory that it can get:
///
/// ```wat
/// (module
///   (memory (export "memory") 1)
///   (func (export "_start") (local i32)
///     loop
///       (memory.fill (local.get 0) (i32.const 0xa5) (i32.const 65536))
///       (local.set 0 (i32.add (local.get 0) (i32.const 65536)))
///       (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))
///     end))
/// ```
const FILL: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x05\x03\x01\0\x01\
    \x07\x13\x02\x06memory\x02\0\x06_start\0\0\
    \x0a\x27\x01\x25\x01\x01\x7f\x03\x40\x20\0\x41\xa5\x01\x41\x80\x80\x04\xfc\x0b\0\
    \x20\0\x41\x80\x80\x04\x6a\x21\0\x41\x01\x40\0\x41\x7f\x47\x0d\0\x0b\x0b";

/// Fills what a task with these limits could have of the slot's memory, but no more than some.
fn fill_memory(sandbox: &Sandbox, limits: Limits) -> Result<Response, LintError> {
    let hash = ModuleHash::of(FILL);
    sandbox.load_module(hash, FILL)?;
    let memory_bytes_max = limits.memory_bytes_max.clamp(PAGE_BYTES, limits::LINT_FILL_BYTES_MAX);
    let limits = Limits { memory_bytes_max, ..Limits::default() };
    let mut ended = on_threads(sandbox, vec![Request { limits, ..Request::new(hash) }])?;
    ended.pop().ok_or(LintError::Thread)
}

/// Runs a part in another process of this program.
fn elsewhere(work: &Work, exe: &Path) -> Result<Vec<Ran>, LintError> {
    let mut command = Command::new(exe);
    command.arg(CHILD_VERB).current_dir("/").env_clear().env("TZ", "Pacific/Kiritimati").env("LANG", "C");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().ok_or_else(|| io::Error::other("it has no standard input"))?;
    let bytes = canon::encode(work);
    // One that stops reading says why on its standard error.
    let writer = thread::spawn(move || drop(stdin.write_all(&bytes)));
    let output = child.wait_with_output()?;
    drop(writer.join());
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let detail: String = said.lines().last().unwrap_or_default().chars().take(300).collect();
        return Err(LintError::Answer { detail: format!("{}: {detail}", output.status) });
    }
    let answer: Result<Vec<Ran>, CanonError> = canon::decode(&output.stdout, limits::LINT_ANSWER_BYTES_MAX);
    answer.map_err(|error| LintError::Answer { detail: error.to_string() })
}

/// The other process: work from `stdin`, what came of it to `stdout`.
///
/// # Errors
/// When the work makes no sense, or comes to no result.
pub(crate) fn child(stdin: impl Read, mut stdout: impl Write) -> Result<(), LintError> {
    let mut bytes = Vec::new();
    stdin.take(limits::LINT_WORK_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    let work: Work = canon::decode(&bytes, limits::LINT_WORK_BYTES_MAX)?;
    Ok(stdout.write_all(&canon::encode(&here(&work)?))?)
}
