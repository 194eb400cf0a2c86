//! The wall around tasks: in threads of this process, or in processes of their own. What crosses it is the same.

#[cfg(target_os = "linux")]
use std::sync::Arc;

use registry::id::{EngineFingerprint, ModelHash, ModuleHash};
use serde::{Deserialize, Serialize};

use super::{
    CancelToken, CompileStats, EngineDescription, HostFault, LoadError, Measured, ModelInfo, ModuleInfo, Ran, Refusal,
    Request, Response, SandboxError, SandboxOptions, Span, ThreadSandbox, preflight,
};
#[cfg(target_os = "linux")]
use super::{jail::Gap, process::Pool};

/// What a task that breaks out of WebAssembly, or a model that breaks a parser, would find itself in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// A process of its own, jailed by the kernel: see [`jail`](super::jail). What hosts use by default.
    Process,
    /// This process. For modules and models that one trusts, and for tests.
    Thread,
}

/// What became of sandbox processes since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessStats {
    /// Processes that are there now.
    pub alive: u64,
    /// Started.
    pub started: u64,
    /// Ended because there was nothing to do for long.
    pub idle: u64,
    /// Replaced because they kept memory, or had worked for long.
    pub retired: u64,
    /// Killed at the deadline of a task, which the process itself did not keep.
    pub deadline: u64,
    /// Killed because they did not let go of a cancelled task.
    pub cancelled: u64,
    /// Killed because of what they said.
    pub garbage: u64,
    /// Ended by themselves: killed by a layer of the jail, crashed, or killed by somebody else.
    pub died: u64,
}

impl std::ops::Add for ProcessStats {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            alive: self.alive + more.alive,
            started: self.started + more.started,
            idle: self.idle + more.idle,
            retired: self.retired + more.retired,
            deadline: self.deadline + more.deadline,
            cancelled: self.cancelled + more.cancelled,
            garbage: self.garbage + more.garbage,
            died: self.died + more.died,
        }
    }
}

/// What became of models since the start. A model that is loaded and ready to infer is a session: sandbox processes have one
/// each, threads share one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModelStats {
    /// Models of tasks that had a session already.
    pub found: u64,
    /// Sessions made.
    pub loaded: u64,
    /// Models that got none, since they are no models or have no room.
    pub refused: u64,
    /// Sessions let go of to make room.
    pub evicted: u64,
    /// Sessions that there are now.
    pub sessions: u64,
    /// Memory in bytes that these hold: weights, compiled shapes, arenas.
    pub bytes: u64,
}

impl std::ops::Add for ModelStats {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            found: self.found + more.found,
            loaded: self.loaded + more.loaded,
            refused: self.refused + more.refused,
            evicted: self.evicted + more.evicted,
            sessions: self.sessions + more.sessions,
            bytes: self.bytes + more.bytes,
        }
    }
}

/// Runs tasks. Cheap to clone: clones share everything.
#[derive(Clone)]
pub struct Sandbox(Wall);

#[derive(Clone)]
enum Wall {
    Thread(ThreadSandbox),
    #[cfg(target_os = "linux")]
    Process(Arc<Pool>),
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox").field("options", self.options()).finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Starts the engine: in this process, where it reserves address space for the pool and uses memory as tasks use it; or in
    /// a first process of its own, which shows that isolation works here.
    ///
    /// # Errors
    /// When an option is out of bounds, the engine does not start, or isolation is not to be had.
    pub fn new(options: SandboxOptions) -> Result<Self, SandboxError> {
        match options.isolation {
            Isolation::Thread => Ok(Self(Wall::Thread(ThreadSandbox::new(options)?))),
            #[cfg(target_os = "linux")]
            Isolation::Process => Ok(Self(Wall::Process(Pool::start(options)?))),
            #[cfg(not(target_os = "linux"))]
            Isolation::Process => Err(SandboxError::Isolation {
                detail: "processes are jailed on Linux alone: set `isolation = \"thread\"`".to_owned(),
            }),
        }
    }

    /// What a sandbox with these options would say of itself. It pins and starts nothing, so it can be asked for many.
    ///
    /// # Errors
    /// When the engine would not start.
    pub fn description_of(options: &SandboxOptions) -> Result<EngineDescription, SandboxError> {
        ThreadSandbox::description_of(options)
    }

    /// The sandbox in this process, if it is in this process.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn in_threads(&self) -> Option<&ThreadSandbox> {
        match &self.0 {
            Wall::Thread(sandbox) => Some(sandbox),
            #[cfg(target_os = "linux")]
            Wall::Process(_) => None,
        }
    }

    /// What it was built with.
    pub fn options(&self) -> &SandboxOptions {
        match &self.0 {
            Wall::Thread(sandbox) => sandbox.options(),
            #[cfg(target_os = "linux")]
            Wall::Process(pool) => pool.options(),
        }
    }

    /// Names the conditions that results are reproducible under. The same in every isolation.
    pub fn fingerprint(&self) -> EngineFingerprint {
        match &self.0 {
            Wall::Thread(sandbox) => sandbox.fingerprint(),
            #[cfg(target_os = "linux")]
            Wall::Process(pool) => pool.fingerprint(),
        }
    }

    /// The text behind the fingerprint.
    pub fn describe(&self) -> &EngineDescription {
        match &self.0 {
            Wall::Thread(sandbox) => sandbox.describe(),
            #[cfg(target_os = "linux")]
            Wall::Process(pool) => pool.describe(),
        }
    }

    /// Checks a module without compiling it.
    ///
    /// # Errors
    /// Names the first rule that it breaks.
    pub fn preflight(bytes: &[u8]) -> Result<ModuleInfo, Refusal> {
        preflight(bytes)
    }

    /// Checks and compiles a module, once however many ask at once, and keeps it for [`Sandbox::run`].
    ///
    /// # Errors
    /// When the bytes are not those of `hash`, or the module may not run here.
    pub fn load_module(&self, hash: ModuleHash, bytes: &[u8]) -> Result<ModuleInfo, LoadError> {
        match &self.0 {
            Wall::Thread(sandbox) => sandbox.load_module(hash, bytes),
            #[cfg(target_os = "linux")]
            Wall::Process(pool) => pool.load_module(hash, bytes),
        }
    }

    /// Loads a module that is kept on disk, without its bytes, if it is there.
    pub fn load_compiled(&self, hash: ModuleHash) -> Option<ModuleInfo> {
        match &self.0 {
            Wall::Thread(sandbox) => sandbox.load_compiled(hash),
            #[cfg(target_os = "linux")]
            Wall::Process(pool) => pool.load_compiled(hash),
        }
    }

    /// What was compiled, and found compiled, since the start.
    pub fn compile_stats(&self) -> CompileStats {
        match &self.0 {
            Wall::Thread(sandbox) => sandbox.compile_stats(),
            #[cfg(target_os = "linux")]
            Wall::Process(pool) => pool.compile_stats(),
        }
    }

    /// Whether a module is ready to run.
    pub fn has_module(&self, hash: ModuleHash) -> bool {
        match &self.0 {
            Wall::Thread(sandbox) => sandbox.has_module(hash),
            #[cfg(target_os = "linux")]
            Wall::Process(pool) => pool.has_module(hash),
        }
    }

    /// Parses a model, once however many ask at once, and keeps it for [`Sandbox::run`].
    ///
    /// # Errors
    /// When the bytes are not those of `hash`, or the backend cannot run the model.
    pub fn load_model(&self, hash: ModelHash, bytes: &[u8]) -> Result<ModelInfo, LoadError> {
        match &self.0 {
            Wall::Thread(sandbox) => {
                let known = sandbox.has_model(hash);
                let loaded = sandbox.load_model(hash, bytes)?;
                if !known && sandbox.options().warms_models {
                    sandbox.warm_model(hash);
                }
                Ok(loaded)
            }
            #[cfg(target_os = "linux")]
            Wall::Process(pool) => pool.load_model(hash, bytes),
        }
    }

    /// Whether a model is ready to run.
    pub fn has_model(&self, hash: ModelHash) -> bool {
        match &self.0 {
            Wall::Thread(sandbox) => sandbox.has_model(hash),
            #[cfg(target_os = "linux")]
            Wall::Process(pool) => pool.has_model(hash),
        }
    }

    /// What became of models since the start.
    pub fn model_stats(&self) -> ModelStats {
        match &self.0 {
            Wall::Thread(sandbox) => sandbox.model_stats(),
            #[cfg(target_os = "linux")]
            Wall::Process(pool) => pool.model_stats(),
        }
    }

    /// Measures what its models run on: a short matrix product through the backend itself, where tasks run. Takes some tenths
    /// of a second.
    ///
    /// # Errors
    /// When the backend does not run it.
    pub fn measure(&self) -> Result<Measured, SandboxError> {
        match &self.0 {
            Wall::Thread(sandbox) => sandbox.measure(),
            #[cfg(target_os = "linux")]
            Wall::Process(pool) => pool.measure(),
        }
    }

    /// Runs one task. Blocks: call it from a thread that may.
    pub fn run(&self, request: Request) -> Response {
        self.run_span(request, Span::WHOLE, None).into()
    }

    /// As [`Sandbox::run`]; ends with [`HostFault::Cancelled`] soon after `cancel` is cancelled.
    pub fn run_cancellable(&self, request: Request, cancel: &CancelToken) -> Response {
        self.run_span(request, Span::WHOLE, Some(cancel)).into()
    }

    /// Runs a task with steps from a snapshot on, or up to one. However it is cut, the task ends the same. Blocks, and may be
    /// cancelled, as the others do.
    ///
    /// # Errors
    /// When this host could not carry it through, or the snapshot is not one of this task.
    pub fn run_span(&self, request: Request, span: Span, cancel: Option<&CancelToken>) -> Result<Ran, HostFault> {
        match &self.0 {
            Wall::Thread(sandbox) => sandbox.run(request, span, cancel),
            #[cfg(target_os = "linux")]
            Wall::Process(pool) => pool.run(request, span, cancel),
        }
    }

    /// What the jail of its processes lacks on this kernel; nothing where there are none.
    #[cfg(target_os = "linux")]
    pub fn gaps(&self) -> &[Gap] {
        match &self.0 {
            Wall::Thread(_) => &[],
            Wall::Process(pool) => pool.gaps(),
        }
    }

    /// What became of sandbox processes; nothing where there are none.
    pub fn process_stats(&self) -> ProcessStats {
        match &self.0 {
            Wall::Thread(_) => ProcessStats::default(),
            #[cfg(target_os = "linux")]
            Wall::Process(pool) => pool.stats(),
        }
    }

    /// The system's numbers of the sandbox processes that are there.
    pub fn process_ids(&self) -> Vec<u32> {
        match &self.0 {
            Wall::Thread(_) => Vec::new(),
            #[cfg(target_os = "linux")]
            Wall::Process(pool) => pool.process_ids(),
        }
    }
}
