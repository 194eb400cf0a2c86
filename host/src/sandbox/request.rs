//! What crosses the wall of the sandbox: plain values only, so that the wall can become a process boundary.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use registry::{
    id::{BlobHash, ModelHash, ModuleHash},
    job::Limits,
    receipt::Outcome,
    segment::SegmentRecord,
};
use serde::{Deserialize, Serialize};

/// One execution to do. Equal requests have equal [`Finished`] results, wall time apart, on every host of one fingerprint.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The module, loaded before.
    pub module: ModuleHash,
    /// Arguments after the program's name, which is always `task`.
    pub args: Vec<String>,
    /// Environment variables: these and no others.
    pub env: BTreeMap<String, String>,
    /// Standard input.
    pub stdin: Bytes,
    /// Files under `/in`, by name.
    pub files: BTreeMap<String, Bytes>,
    /// Models by the local name that the guest loads them by, loaded before.
    pub models: BTreeMap<String, ModelHash>,
    /// What the task may use.
    pub limits: Limits,
    /// Seed of everything random that the guest sees.
    pub seed: [u8; 32],
    /// Whether what the models answer is kept: [`Finished::nn_record`].
    pub record: bool,
    /// The bytes of an [`NnRecord`](super::NnRecord) whose answers the guest gets, for their price. The models run here all the
    /// same, and what they answer is kept.
    pub recorded: Option<Bytes>,
}

impl Request {
    /// A request with nothing but a module.
    pub fn new(module: ModuleHash) -> Self {
        Self {
            module,
            args: Vec::new(),
            env: BTreeMap::new(),
            stdin: Bytes::new(),
            files: BTreeMap::new(),
            models: BTreeMap::new(),
            limits: Limits::default(),
            seed: [0; 32],
            record: false,
            recorded: None,
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("module", &self.module)
            .field("args", &self.args.len())
            .field("env", &self.env.len())
            .field("stdin_bytes", &self.stdin.len())
            .field("files", &self.files.len())
            .field("models", &self.models)
            .field("limits", &self.limits)
            .field("record", &self.record)
            .field("recorded_bytes", &self.recorded.as_ref().map(Bytes::len))
            .finish_non_exhaustive()
    }
}

/// Which part of a task with steps to run.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// The bytes of the [`Snapshot`](registry::segment::Snapshot) to go on from; the task's beginning when absent.
    pub from: Option<Bytes>,
    /// The state to stop at, by its index; the task's end when absent.
    pub until: Option<u32>,
    /// Milliseconds after which it stops at the next state that it comes to; it does not for the time when absent, nor where the
    /// module has no steps. Where that is differs from run to run, and nothing of how the task ends depends on it.
    pub pause_ms: Option<u64>,
}

impl Span {
    /// All of the task.
    pub const WHOLE: Self = Self { from: None, until: None, pause_ms: None };

    /// Whether it names a state of the task, which then has to have steps.
    pub fn names_state(&self) -> bool {
        self.from.is_some() || self.until.is_some()
    }

    /// Whether it may stop before the task's end.
    pub fn pauses(&self) -> bool {
        self.until.is_some() || self.pause_ms.is_some()
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Span")
            .field("from_bytes", &self.from.as_ref().map(Bytes::len))
            .field("until", &self.until)
            .field("pause_ms", &self.pause_ms)
            .finish()
    }
}

/// What came of a span.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Ran {
    /// The task ended.
    Done(Box<Finished>),
    /// It stopped where it should: the bytes of a [`Snapshot`](registry::segment::Snapshot).
    Paused(Bytes),
}

impl fmt::Debug for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(finished) => f.debug_tuple("Done").field(finished).finish(),
            Self::Paused(snapshot) => f.debug_struct("Paused").field("bytes", &snapshot.len()).finish(),
        }
    }
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Response {
    /// A result: deterministic, can be signed.
    Done(Finished),
    /// The host could not carry it through: never a result, nobody is paid or punished for it.
    Fault(HostFault),
}

/// The result of an execution. Everything but `wall_micros` is the same on every host of one fingerprint.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// Fuel spent, at most the limit.
    pub fuel_used: u64,
    /// Standard output, up to where the task was stopped.
    pub stdout: Bytes,
    /// Standard error, cut at its limit.
    pub stderr: Bytes,
    /// Files under `/out` by relative path, sorted. Directories without files leave no trace.
    pub files: Vec<(String, Bytes)>,
    /// The most linear memory that it had.
    pub memory_peak_bytes: u64,
    /// Time from the request to the result, in microseconds. No part of what is compared.
    pub wall_micros: u64,
    /// Every inference in the order they ran.
    pub inferences: Vec<Inference>,
    /// Hash over `inferences`, when there are any.
    pub nn_root: Option<BlobHash>,
    /// The bytes of an [`NnRecord`](super::NnRecord), when it was asked for and there is something in it.
    pub nn_record: Option<Bytes>,
    /// The states between its segments, when there are any: what its segment root is of.
    pub segments: Option<SegmentRecord>,
}

/// That of all of a task.
impl From<Result<Ran, HostFault>> for Response {
    fn from(ran: Result<Ran, HostFault>) -> Self {
        match ran {
            Ok(Ran::Done(finished)) => Self::Done(*finished),
            Ok(Ran::Paused(_)) => {
                Self::Fault(HostFault::Internal { detail: "task was paused, which nobody asked for".to_owned() })
            }
            Err(fault) => Self::Fault(fault),
        }
    }
}

impl fmt::Debug for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finished")
            .field("outcome", &self.outcome)
            .field("fuel_used", &self.fuel_used)
            .field("stdout_bytes", &self.stdout.len())
            .field("stderr_bytes", &self.stderr.len())
            .field("files", &self.files.len())
            .field("memory_peak_bytes", &self.memory_peak_bytes)
            .field("wall_micros", &self.wall_micros)
            .field("inferences", &self.inferences.len())
            .finish_non_exhaustive()
    }
}

/// One inference: what went in and what came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inference {
    /// The model.
    pub model: ModelHash,
    /// Hash of the input tensors.
    pub input: BlobHash,
    /// Hash of the output tensors.
    pub output: BlobHash,
}

/// Why the host could not carry an execution through. Another host, or this one later, may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum HostFault {
    /// Ran longer than `wall_ms_max`.
    #[error("task ran longer than its {wall_ms_max} ms: retry on a faster host, or raise `wall_ms_max`")]
    Deadline {
        /// The limit.
        wall_ms_max: u64,
    },
    /// Its token was cancelled.
    #[error("task was cancelled")]
    Cancelled,
    /// The module was never loaded, or was evicted since.
    #[error("module {module} is not loaded: load it and run again")]
    ModuleMissing {
        /// The module.
        module: ModuleHash,
    },
    /// A model was never loaded, or was evicted since.
    #[error("model `{name}` ({model}) is not loaded: load it and run again")]
    ModelMissing {
        /// The local name.
        name: String,
        /// The model.
        model: ModelHash,
    },
    /// The host has no memory for an instance, or could not give a guest memory within its limit.
    #[error("host has no memory for the task: retry later or elsewhere ({detail})")]
    HostMemory {
        /// What the engine said.
        detail: String,
    },
    /// The guest used up its native stack before the module's own count of it ended the recursion; where that happens depends
    /// on compiled code, so it is no result.
    #[error("task overflowed its stack of {stack_bytes_max} bytes")]
    StackOverflow {
        /// The bound.
        stack_bytes_max: u64,
    },
    /// The task asks for more than this host gives.
    #[error("task asks for {asked} of {what}, over this host's bound of {bound}")]
    LimitTooLarge {
        /// Name of the limit.
        what: String,
        /// As asked.
        asked: u64,
        /// This host's bound.
        bound: u64,
    },
    /// The request breaks a rule that a checked job keeps.
    #[error("request is malformed: {detail}")]
    BadRequest {
        /// The rule.
        detail: String,
    },
    /// The snapshot to go on from is not one of this task.
    #[error("snapshot is refused: {detail}")]
    Snapshot {
        /// Why.
        detail: String,
    },
    /// All instances of the pool are in use.
    #[error("all {slots_max} slots are in use: retry when one is free")]
    NoSlot {
        /// Slots of the pool.
        slots_max: u32,
    },
    /// The inference backend broke: it panicked, where a model it cannot run would be an error number for the guest.
    #[error("inference backend failed: {detail}")]
    Backend {
        /// What it said.
        detail: String,
    },
    /// The process that ran it ended, or said what makes no sense, and was replaced.
    #[error("the task's sandbox process ended ({how}) and was replaced: retry, here or elsewhere")]
    SandboxDied {
        /// A signal's name, an exit code, or what was wrong with what it said.
        how: String,
    },
    /// The engine reported what cannot happen by the rules above.
    #[error("engine failed: {detail}")]
    Internal {
        /// What it said.
        detail: String,
    },
}

impl HostFault {
    /// A stable word for metrics and the wire.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Deadline { .. } => "deadline",
            Self::Cancelled => "cancelled",
            Self::ModuleMissing { .. } => "module_missing",
            Self::ModelMissing { .. } => "model_missing",
            Self::HostMemory { .. } => "host_memory",
            Self::StackOverflow { .. } => "stack_overflow",
            Self::LimitTooLarge { .. } => "limit_too_large",
            Self::BadRequest { .. } => "bad_request",
            Self::Snapshot { .. } => "snapshot",
            Self::NoSlot { .. } => "no_slot",
            Self::Backend { .. } => "backend",
            Self::SandboxDied { .. } => "sandbox_died",
            Self::Internal { .. } => "internal",
        }
    }
}

/// Stops a run from outside, at its next look at the fuel.
#[derive(Debug, Clone, Default)]
pub struct CancelToken {
    cancelled: Arc<AtomicBool>,
    /// Who else may say so.
    asks: Option<fn() -> bool>,
}

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// A token that is also cancelled when `asks` says so, which is asked at every look.
    #[cfg(target_os = "linux")]
    pub(super) fn asking(asks: fn() -> bool) -> Self {
        Self { cancelled: Arc::default(), asks: Some(asks) }
    }

    /// Stops every run that has this token; there is no way back.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire) || self.asks.is_some_and(|asks| asks())
    }
}
