//! Runs one task of an untrusted module, deterministically and within its limits.
//!
//! ```text
//! bytes ─load_module► preflight, admit, compiled in a child, kept on disk ─► loaded, cached by hash
//! Request ─run► checks ─instantiate► guest ⇄ WASI, wasi-nn, hashing ─► Response::Done | Response::Fault
//! ```
//!
//! Reading order:
//! - [`request`]: what goes in and what comes out, plain values.
//! - [`preflight`], [`imports`]: what a module must be before a compiler sees it.
//! - [`admit`]: the module is rewritten to meter itself; [`fuel`]: the host's side of that.
//! - [`engine`]: the compiler's settings and their fingerprint; [`mod@compile`]: from bytes to machine code, within a budget,
//!   once; [`cache`]: what is loaded.
//! - [`steps`]: tasks in steps: what lies between two segments, and going on from there.
//! - [`run`]: one execution; [`state`]: what it has, and how its calls of the host are charged; [`limiter`]: what it may grow.
//! - [`wall`]: where tasks run, [`process`]: in processes of their own, [`jail`]: which the kernel locks in.
//! - [`wasi`]: the 46 functions of preview 1; [`nn`]: the six of wasi-nn and the seam for backends; [`hash`]: two hash
//!   functions.
//!
//! **A result is exact.** Module, request and fingerprint determine outcome, fuel, output, log and inferences to the bit.
//! Fuel is charged per operation and per call of the host, and running out of it is exact, so what a task wrote before it
//! was stopped is part of the result too. What cannot be exact is a [`HostFault`] and never a result: deadlines, missing
//! content, the host's memory.
//!
//! **Memory.** Growth beyond the task's limit answers -1. A task that then traps or exits with another code than 0 ends as
//! [`MemoryOut`](registry::receipt::Outcome::MemoryOut), one that copes ends as it does. Starting with more than the limit
//! is `MemoryOut` without running.
//!
//! **Ownership.** A `ThreadSandbox` owns one engine, one pool of instances, and the caches; a task's store lives inside one
//! [`Sandbox::run`] and is dropped after it, whatever happened. With [`Isolation::Process`] each process of the pool has one
//! with one slot. A crash loses nothing but work that can be run again.

mod admit;
mod cache;
pub(crate) mod compile;
mod engine;
mod fuel;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod hash;
mod imports;
#[cfg(target_os = "linux")]
pub mod jail;
mod limiter;
mod memory_file;
mod nn;
mod preflight;
#[cfg(target_os = "linux")]
mod process;
mod profiles;
mod request;
mod run;
mod state;
mod steps;
#[cfg(test)]
mod tests;
mod wall;
mod wasi;

use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use registry::{
    id::{EngineFingerprint, ModelHash, ModuleHash},
    job::Profile,
};
use serde::{Deserialize, Serialize};
use wasmtime::{Engine, InstancePre, Linker, Module, ModuleExport};

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub use self::nn::direct;
#[doc(hidden)]
pub use self::nn::onnx;
#[cfg(target_os = "linux")]
pub use self::process::child;
use self::{
    cache::Cache,
    compile::{Artifact, Compiler},
    nn::{
        NamedModel,
        backend::{Backend, Graph},
    },
    state::State,
};
pub use self::{
    compile::{Budget, CompileBudget, CompileCache, CompileOptions, CompileStats},
    engine::{CpuClass, EngineDescription, HOST_ABI},
    nn::{
        ModelInfo, TensorDecl,
        backend::{BackendOptions, Provider, ProviderKind},
        measure::Measured,
        onnxruntime::find,
        preflight::{DynamicAxis, ModelFacts, ModelRefusal, model_preflight},
        record::{Answer, Answered, NN_RECORD_VERSION, NnRecord, NnRecordError, NnTensor},
    },
    preflight::{ModuleInfo, PAGE_BYTES, Refusal, preflight},
    profiles::{NoEngine, Sandboxes},
    request::{CancelToken, Finished, HostFault, Inference, Ran, Request, Response, Span},
    steps::snapshot_bytes_max,
    wall::{Isolation, ModelStats, ProcessStats, Sandbox},
};
use crate::limits;

/// What this host gives to tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxOptions {
    /// Linear memory in bytes that one task may ask for.
    pub memory_bytes_max: u64,
    /// Output in bytes that one task may ask for.
    pub output_bytes_max: u64,
    /// Scratch in bytes that one task may ask for.
    pub scratch_bytes_max: u64,
    /// Tasks that may run at once.
    pub slots_max: u32,
    /// Compiled modules kept, in bytes of code.
    pub module_cache_bytes_max: u64,
    /// How modules are compiled, and where they are kept.
    pub compile: CompileOptions,
    /// Memory in bytes that models may have in all tasks together: weights, compiled shapes, arenas. Their files may have as
    /// much again.
    pub model_cache_bytes_max: u64,
    /// Memory in bytes that each idle slot keeps, to be ready sooner.
    pub keep_resident_bytes_max: usize,
    /// The instruction set; the processor's best when absent. Hosts of different classes never agree, so a grid of mixed
    /// machines may want `generic` everywhere. One process has one class.
    pub cpu_class: Option<CpuClass>,
    /// What results may depend on.
    pub profile: Profile,
    /// What models run on in the native profile; the portable one has [`BackendOptions::Referee`].
    pub backend: BackendOptions,
    /// How code is compiled. Everything but the determinism lint has it fast; it is part of the fingerprint.
    #[serde(skip)]
    pub optimisation: Optimisation,
    /// What a task that breaks out of WebAssembly would find itself in.
    pub isolation: Isolation,
    /// Whether a model is opened, for the shape that it declares, when it is loaded before a task runs. Who only looks whether
    /// models load need not.
    pub warms_models: bool,
    /// Whether there is no sandbox where the kernel lacks a part of [`jail`], rather than a warning.
    pub every_layer: bool,
    /// Time in milliseconds after which a sandbox process that has nothing to do is ended.
    pub process_idle_ms: u64,
    /// What sandbox processes execute; this very program when absent. It has to begin with [`child::run_if_asked`].
    pub program: Option<PathBuf>,
}

/// How much the compiler makes of a module's code. Results must not depend on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Optimisation {
    /// Fast code.
    #[default]
    Speed,
    /// Code as it comes.
    None,
}

impl SandboxOptions {
    /// What models run on: the portable profile has the one that runs the same everywhere, whatever is asked for.
    pub(crate) fn infers_with(&self) -> &BackendOptions {
        match self.profile {
            Profile::Native => &self.backend,
            Profile::Portable => &BackendOptions::Referee,
        }
    }
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self {
            memory_bytes_max: 1 << 30,
            output_bytes_max: 256 << 20,
            scratch_bytes_max: 256 << 20,
            slots_max: 64,
            module_cache_bytes_max: 512 << 20,
            compile: CompileOptions::default(),
            model_cache_bytes_max: 1 << 30,
            keep_resident_bytes_max: 64 << 10,
            cpu_class: None,
            profile: Profile::Native,
            backend: BackendOptions::default(),
            optimisation: Optimisation::Speed,
            isolation: Isolation::Thread,
            warms_models: true,
            every_layer: false,
            process_idle_ms: limits::SANDBOX_IDLE_MS,
            program: None,
        }
    }
}

/// Why there is no sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum SandboxError {
    /// An option is out of bounds.
    #[error("{what} is {value}, outside the bounds of {min} to {max}: change the sandbox's options")]
    Option {
        /// Which option.
        what: String,
        /// As given.
        value: u64,
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
    },
    /// Another sandbox of this process runs with another instruction set.
    #[error("cpu_class is {asked}, but this process already runs with {pinned}: start another process")]
    CpuClass {
        /// As asked.
        asked: String,
        /// As is.
        pinned: String,
    },
    /// The engine refused its settings, or the processor cannot run them.
    #[error("engine does not start: {detail}")]
    Engine {
        /// What it said.
        detail: String,
    },
    /// What models run on does not start.
    #[error("inference backend does not start: {detail}; `quorate doctor` says what this machine has")]
    Backend {
        /// What is missing or failed.
        detail: String,
    },
    /// A thread did not start.
    #[error("thread does not start: {detail}")]
    Thread {
        /// What the system said.
        detail: String,
    },
    /// Tasks cannot be kept apart as was asked.
    #[error("isolation: {detail}")]
    Isolation {
        /// What is missing or failed.
        detail: String,
    },
}

/// Why a module or model is not loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum LoadError {
    /// The bytes are not what their hash says: fetch them again, from elsewhere.
    #[error("content has hash {found} instead of {expected}: fetch it again from another source")]
    Hash {
        /// As asked.
        expected: String,
        /// As computed.
        found: String,
    },
    /// The module may not run here, or anywhere.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The module passed the checks but does not compile or link.
    #[error("module does not compile: {detail}")]
    Compile {
        /// What the compiler said.
        detail: String,
    },
    /// Compiling the module would take more than it may.
    #[error(
        "compiling the module passes the compile budget: {budget} is over {bound}: make the module smaller, or run it on a host that gives more"
    )]
    CompileBudget {
        /// Which part of the budget.
        budget: Budget,
        /// As much as was given.
        bound: u64,
    },
    /// The compiler crashed, which no module should bring about.
    #[error("compiler crashed on the module: {detail}")]
    CompilerCrashed {
        /// How, and what it said last.
        detail: String,
    },
    /// This host failed to compile the module, which is not to blame.
    #[error("host failed to compile the module: {stage}: {detail}; try again")]
    CompilerFailed {
        /// What was tried.
        stage: String,
        /// What the system said.
        detail: String,
    },
    /// The model is longer than a model may be.
    #[error("model has {bytes} bytes, over the bound of {bytes_max}")]
    ModelTooLarge {
        /// As found.
        bytes: u64,
        /// Largest allowed.
        bytes_max: u64,
    },
    /// The model would take more memory than models get here.
    #[error(
        "model takes {bytes} bytes of memory to run, over the {bytes_max} that models get on this host: run it on a host that gives more"
    )]
    ModelMemory {
        /// As estimated from its length, or as found.
        bytes: u64,
        /// As much as there is for all models.
        bytes_max: u64,
    },
    /// No backend here takes the model.
    #[error(transparent)]
    ModelRefused(#[from] ModelRefusal),
    /// The backend cannot run the model.
    #[error("model does not load: {detail}")]
    Model {
        /// What the backend said.
        detail: String,
    },
    /// The process that was to load it ended, or took too long.
    #[error("a sandbox process ended while it loaded this ({how}): retry, here or elsewhere")]
    SandboxDied {
        /// A signal's name, an exit code, or what was wrong with what it said.
        how: String,
    },
}

impl LoadError {
    /// A stable word for metrics and the wire.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Hash { .. } => "hash",
            Self::Refused(refusal) => refusal.word(),
            Self::Compile { .. } => "compile",
            Self::CompileBudget { .. } => "compile_budget",
            Self::CompilerCrashed { .. } => "compiler_crashed",
            Self::CompilerFailed { .. } => "compiler_failed",
            Self::ModelTooLarge { .. } => "model_too_large",
            Self::ModelMemory { .. } => "model_memory",
            Self::ModelRefused(refusal) => refusal.word(),
            Self::Model { .. } => "model",
            Self::SandboxDied { .. } => "sandbox_died",
        }
    }

    /// Whether the same content has the same end again, on this host.
    pub const fn is_final(&self) -> bool {
        // Wall time passes faster when the machine has other work.
        !matches!(
            self,
            Self::Hash { .. } | Self::CompilerFailed { .. } | Self::CompileBudget { budget: Budget::WallMs, .. }
        )
    }
}

/// A compiled module, ready to be instantiated.
struct LoadedModule {
    info: ModuleInfo,
    pre: InstancePre<State>,
    /// Where its exports are: finding one by its name takes longer than a short task.
    exports: Exports,
}

/// What of a rewritten module is used by the host.
struct Exports {
    fuel: ModuleExport,
    start: Option<ModuleExport>,
    entry: ModuleExport,
    steps: Option<StepExports>,
}

/// What is used of a module with steps.
struct StepExports {
    step: ModuleExport,
    memory: ModuleExport,
    /// Its mutable globals, in their order.
    globals: Vec<ModuleExport>,
}

impl LoadedModule {
    fn new(shared: &Shared, info: ModuleInfo, module: &Module) -> Result<Self, LoadError> {
        let pre = shared.linker.instantiate_pre(module).map_err(compile)?;
        let find = |name: &str| module.get_export_index(name);
        let missing = || LoadError::Compile { detail: "module was rewritten without its exports".to_owned() };
        let (fuel, entry) = find(admit::FUEL).zip(find("_start")).ok_or_else(missing)?;
        let steps = match find(admit::STEP) {
            Some(step) => {
                let globals = (0..).map_while(|number| find(&admit::global_name(number))).collect();
                Some(StepExports { step, memory: find("memory").ok_or_else(missing)?, globals })
            }
            None => None,
        };
        Ok(Self { info, pre, exports: Exports { fuel, start: find(admit::START), entry, steps } })
    }
}

struct Shared {
    options: SandboxOptions,
    engine: Engine,
    linker: Linker<State>,
    backend: Arc<dyn Backend>,
    description: EngineDescription,
    fingerprint: EngineFingerprint,
    compiler: Compiler,
    modules: Cache<ModuleHash, LoadedModule, LoadError>,
    models: Cache<ModelHash, NamedModel, LoadError>,
    model_counts: ModelCounts,
    slots_used: AtomicU32,
}

/// What was counted of models: see [`ModelStats`].
#[derive(Debug, Default)]
struct ModelCounts {
    found: AtomicU64,
    loaded: AtomicU64,
    refused: AtomicU64,
}

impl ModelCounts {
    /// Counts a model that was made ready, or was not.
    fn made<T>(&self, made: &Result<T, LoadError>) {
        let count = if made.is_ok() { &self.loaded } else { &self.refused };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self, evicted: u64) -> ModelStats {
        let [found, loaded, refused] =
            [&self.found, &self.loaded, &self.refused].map(|count| count.load(Ordering::Relaxed));
        ModelStats { found, loaded, refused, evicted, ..ModelStats::default() }
    }
}

/// Runs tasks in threads of this process. Cheap to clone: clones share everything.
#[derive(Clone)]
struct ThreadSandbox {
    shared: Arc<Shared>,
}

/// Pins the inference kernels of this process to `class`. [`ThreadSandbox::new`] does it; nothing that infers may run before.
fn pin_class(asked: CpuClass) -> Result<(), SandboxError> {
    static PINNED: OnceLock<CpuClass> = OnceLock::new();
    let pinned = *PINNED.get_or_init(|| {
        nn::tract::pin_kernels(asked);
        asked
    });
    if pinned == asked {
        return Ok(());
    }
    Err(SandboxError::CpuClass { asked: asked.word().to_owned(), pinned: pinned.word().to_owned() })
}

fn start_backend(options: &SandboxOptions, class: CpuClass) -> Result<Box<dyn Backend>, SandboxError> {
    nn::start(options.infers_with(), class).map_err(|error| SandboxError::Backend { detail: nn::why(error) })
}

impl ThreadSandbox {
    /// Builds the engine and reserves address space for the pool; memory is used as tasks use it.
    fn new(options: SandboxOptions) -> Result<Self, SandboxError> {
        check_options(&options)?;
        let class = options.cpu_class.unwrap_or_else(CpuClass::detect);
        pin_class(class)?;
        let engine = engine::build(&options, class)?;
        let mut linker = Linker::new(&engine);
        let linked = wasi::link(&mut linker)
            .and_then(|()| nn::link(&mut linker))
            .and_then(|()| hash::link(&mut linker))
            .and_then(|()| fuel::link(&mut linker));
        linked.map_err(|error| SandboxError::Engine { detail: format!("{error:#}") })?;
        let backend = start_backend(&options, class)?;
        let backend_bytes = backend.memory_bytes();
        let description = engine::describe(&engine, options.profile, class, &*backend);
        let shared = Shared {
            compiler: Compiler::new(&options, class, engine.clone()),
            engine,
            linker,
            backend: Arc::from(backend),
            fingerprint: description.fingerprint(),
            description,
            modules: Cache::new(options.module_cache_bytes_max),
            models: Cache::new(model_bytes_max(options.model_cache_bytes_max, backend_bytes)),
            model_counts: ModelCounts::default(),
            slots_used: AtomicU32::new(0),
            options,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What a sandbox with these options would say of itself. It pins nothing, so it can be asked for many.
    ///
    /// # Errors
    /// When the engine would not start.
    fn description_of(options: &SandboxOptions) -> Result<EngineDescription, SandboxError> {
        let class = options.cpu_class.unwrap_or_else(CpuClass::detect);
        let backend = start_backend(options, class)?;
        Ok(engine::describe(&engine::build(options, class)?, options.profile, class, &*backend))
    }

    /// What it was built with.
    fn options(&self) -> &SandboxOptions {
        &self.shared.options
    }

    /// Names the conditions that results are reproducible under.
    fn fingerprint(&self) -> EngineFingerprint {
        self.shared.fingerprint
    }

    /// The text behind the fingerprint.
    fn describe(&self) -> &EngineDescription {
        &self.shared.description
    }

    /// Checks and compiles a module, once however many ask at once, and keeps it for [`Sandbox::run`].
    ///
    /// # Errors
    /// When the bytes are not those of `hash`, or the module may not run here.
    fn load_module(&self, hash: ModuleHash, bytes: &[u8]) -> Result<ModuleInfo, LoadError> {
        if let Some(loaded) = self.shared.modules.get(hash) {
            return Ok(loaded.info);
        }
        // Before anybody waits for it: whoever brings the right bytes at the same time must not share this failure.
        check_hash(&hash, &ModuleHash::of(bytes))?;
        let made =
            self.shared.modules.get_or_make(hash, || self.loaded(&self.shared.compiler.artifact(hash, bytes)?))?;
        Ok(made.info)
    }

    /// Loads a module that is kept on disk, without its bytes, if it is there.
    fn load_compiled(&self, hash: ModuleHash) -> Option<ModuleInfo> {
        if let Some(loaded) = self.shared.modules.get(hash) {
            return Some(loaded.info);
        }
        let artifact = self.shared.compiler.cached(hash)?;
        let made = self.shared.modules.get_or_make(hash, || self.loaded(&artifact));
        made.inspect_err(|error| tracing::warn!(%error, "a compiled module is not loaded")).ok().map(|made| made.info)
    }

    /// What was compiled, and found compiled, since the start.
    fn compile_stats(&self) -> CompileStats {
        self.shared.compiler.stats()
    }

    /// Loads code that the host of this process handed over.
    #[cfg(target_os = "linux")]
    fn load_code(&self, info: ModuleInfo, code: &[u8]) -> Result<(), LoadError> {
        let made = self.shared.modules.get_or_make(info.hash, || {
            let module = Artifact::load_bytes(&self.shared.engine, code)?;
            Ok((LoadedModule::new(&self.shared, info, &module)?, code.len() as u64))
        });
        made.map(drop)
    }

    fn loaded(&self, artifact: &Artifact) -> Result<(LoadedModule, u64), LoadError> {
        check_start(&artifact.info(), &self.shared.options)?;
        let module = artifact.load(&self.shared.engine)?;
        let loaded = LoadedModule::new(&self.shared, artifact.info(), &module)?;
        Ok((loaded, artifact.code_bytes().saturating_add(artifact.info().bytes)))
    }

    /// Whether a module is ready to run.
    fn has_module(&self, hash: ModuleHash) -> bool {
        self.shared.modules.get(hash).is_some()
    }

    /// Parses a model, once however many ask at once, and keeps it for [`Sandbox::run`].
    ///
    /// # Errors
    /// When the bytes are not those of `hash`, or the backend cannot run the model.
    fn load_model(&self, hash: ModelHash, bytes: &[u8]) -> Result<ModelInfo, LoadError> {
        if let Some(loaded) = self.shared.models.get(hash) {
            return Ok(loaded.info());
        }
        let length = bytes.len() as u64;
        if length > limits::MODEL_BYTES_MAX {
            return Err(LoadError::ModelTooLarge { bytes: length, bytes_max: limits::MODEL_BYTES_MAX });
        }
        check_hash(&hash, &ModelHash::of(bytes))?;
        let made = self.shared.models.get_or_make(hash, || {
            let made = self.graph(bytes);
            self.shared.model_counts.made(&made);
            let graph = made?;
            let held = graph.held_bytes();
            // What others can make again goes before any of them does.
            self.settle_models(Some(self.shared.models.bytes_max().saturating_sub(held)));
            Ok((NamedModel { hash, bytes: length, graph }, held))
        })?;
        Ok(made.info())
    }

    /// Gets a loaded model ready for the inference that its declarations let one expect: a row, if the number of rows is open, and
    /// none at all if more is. What comes of it shows when a task infers.
    fn warm_model(&self, hash: ModelHash) {
        let Some(model) = self.shared.models.get(hash) else { return };
        if nn::warm(&*model.graph) {
            self.settle_models(None);
        }
    }

    /// What models run on, with the module that it may need.
    fn backend(&self) -> Result<&dyn Backend, LoadError> {
        let Shared { backend, engine, modules, .. } = &*self.shared;
        if let Some(own) = backend.module() {
            self.load_module(own.hash, own.bytes)?;
            let module = modules.get(own.hash);
            let module = module.ok_or_else(|| LoadError::Model { detail: "its engine was pushed out".to_owned() })?;
            backend.equip(engine, module).map_err(|error| LoadError::Model { detail: error.to_string() })?;
        }
        Ok(&**backend)
    }

    /// A model that has room: what surely has none is not even parsed.
    fn graph(&self, bytes: &[u8]) -> Result<Arc<dyn Graph>, LoadError> {
        let bytes_max = self.shared.models.bytes_max();
        check_room(self.shared.options.infers_with().session_bytes(bytes.len() as u64), bytes_max)?;
        let graph = nn::load(self.backend()?, bytes)?;
        check_room(graph.held_bytes(), bytes_max)?;
        Ok(graph)
    }

    /// Counts what models hold after they were used, and has them keep no more than so many bytes, or than they may.
    fn settle_models(&self, bytes_max: Option<u64>) {
        let models = &self.shared.models;
        let bytes_max = bytes_max.unwrap_or(u64::MAX).min(models.bytes_max());
        models.settle(bytes_max, |model| model.graph.held_bytes(), |model, bytes| model.graph.shrink(bytes));
    }

    /// The models that are loaded, with the memory that each was last counted to hold.
    #[cfg(target_os = "linux")]
    fn sessions(&self) -> Vec<(ModelHash, u64)> {
        self.shared.models.sizes()
    }

    /// What became of models since the start.
    fn model_stats(&self) -> ModelStats {
        let held = self.shared.models.sizes();
        ModelStats {
            sessions: held.len() as u64,
            bytes: held.iter().map(|(_, bytes)| bytes).sum(),
            ..self.shared.model_counts.read(self.shared.models.evicted())
        }
    }

    /// Memory in bytes that models can use on what they run on.
    #[cfg(target_os = "linux")]
    fn backend_bytes(&self) -> u64 {
        self.shared.backend.memory_bytes()
    }

    /// Whether a model is ready to run.
    fn has_model(&self, hash: ModelHash) -> bool {
        self.shared.models.get(hash).is_some()
    }

    /// Times the backend on a small model of its own.
    ///
    /// # Errors
    /// When the backend does not run it.
    fn measure(&self) -> Result<Measured, SandboxError> {
        let backend = self.backend().map_err(|error| SandboxError::Backend { detail: error.to_string() })?;
        nn::measure::measure(backend).map_err(|detail| SandboxError::Backend { detail })
    }

    /// Runs one task, or a span of it. Blocks: call it from a thread that may, with 2 MiB of stack or more. Ends with
    /// [`HostFault::Cancelled`] soon after `cancel` is cancelled.
    fn run(&self, request: Request, span: Span, cancel: Option<&CancelToken>) -> Result<Ran, HostFault> {
        run::run(self, request, span, cancel.cloned())
    }
}

/// A module that starts with more memory than any task gets here would never run.
fn check_start(info: &ModuleInfo, options: &SandboxOptions) -> Result<(), LoadError> {
    let value = info.memory_pages_min.saturating_mul(PAGE_BYTES);
    if value <= options.memory_bytes_max {
        return Ok(());
    }
    let what = "initial memory in bytes".to_owned();
    Err(Refusal::TooLarge { what, value, bound: options.memory_bytes_max }.into())
}

/// Memory in bytes for models: no more than there is, where that is known.
fn model_bytes_max(given: u64, backend_bytes: u64) -> u64 {
    if backend_bytes == 0 { given } else { given.min(backend_bytes) }
}

/// A model that takes more memory than all models may have would never run.
fn check_room(bytes: u64, bytes_max: u64) -> Result<(), LoadError> {
    if bytes > bytes_max { Err(LoadError::ModelMemory { bytes, bytes_max }) } else { Ok(()) }
}

fn check_options(options: &SandboxOptions) -> Result<(), SandboxError> {
    check_option("memory_bytes_max", options.memory_bytes_max, PAGE_BYTES, limits::MEMORY_BYTES_MAX)?;
    check_option("output_bytes_max", options.output_bytes_max, 0, limits::OUTPUT_BYTES_MAX)?;
    check_option("scratch_bytes_max", options.scratch_bytes_max, 0, limits::SCRATCH_BYTES_MAX)?;
    check_option("slots_max", options.slots_max.into(), 1, limits::SLOTS_MAX.into())
}

/// Has native libraries report nothing to their makers. Call it first thing in the program, before there are threads.
#[allow(unsafe_code, reason = "the environment may be changed while nobody else reads it")]
pub(crate) fn silence() {
    let (name, value) = nn::onnxruntime::library::SILENCE;
    if std::env::var_os(name).is_none() {
        // SAFETY: the program has one thread, as the caller sees to.
        unsafe { std::env::set_var(name, value) };
    }
}

/// What this machine's processor is called.
pub fn processor() -> &'static str {
    &nn::onnxruntime::cpu::own().name
}

/// Memory of this machine in bytes; 0 where the system does not tell.
pub fn memory_bytes() -> u64 {
    nn::measure::host_memory_bytes()
}

/// The functions of WASI preview 1 that a module may import, sorted.
pub fn wasi_functions() -> impl Iterator<Item = &'static str> {
    imports::WASI.into_iter().map(|(name, _)| name)
}

fn check_option(what: &str, value: u64, min: u64, max: u64) -> Result<(), SandboxError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(SandboxError::Option { what: what.to_owned(), value, min, max })
    }
}

fn check_hash<H: PartialEq + ToString>(expected: &H, found: &H) -> Result<(), LoadError> {
    if expected == found {
        return Ok(());
    }
    Err(LoadError::Hash { expected: expected.to_string(), found: found.to_string() })
}

/// Why a module does not link.
fn compile(error: wasmtime::Error) -> LoadError {
    LoadError::Compile { detail: format!("{error:#}").chars().take(300).collect() }
}
