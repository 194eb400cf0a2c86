//! From the bytes of an untrusted module to machine code that may be loaded, within a budget, once.
//!
//! ```text
//! bytes ─in a child, with limits: preflight ─► admit ─► compile─► Artifact ─signed, on disk─► file ─load─► Module
//! ```
//! - [`artifact`]: a file of machine code and what is known of its module, under a code that only this host can make.
//! - [`store`]: the directory of such files: bounded, the least recently used leave first, one process compiles at a time.
//! - [`child`]: the process that compiles, from within; [`parent`]: the same from outside.
//!
//! **Compiling hostile input is not bounded by the compiler.** Preflight refuses what is known to be dear; everything else
//! is stopped by a [`CompileBudget`] in processor time, memory, wall time and length of the result. A budget is enforced on
//! a process, so a child compiles: this very program, started anew, with no environment and no files but the module, the
//! result and its words. A compiler that crashes takes nothing with it. Without a program to start
//! ([`CompileOptions::program`]) the calling thread compiles, bounded by preflight alone: for modules of one's own.
//!
//! **Whose fault.** [`LoadError::CompileBudget`] and [`LoadError::CompilerCrashed`] are the module's, and told again at once
//! to who asks again, except for wall time, which other work on the machine uses up too.
//! [`LoadError::CompilerFailed`] is the host's: no process, no memory file, killed from outside. It may be tried again.
//!
//! **Who is trusted.** Machine code runs unchecked, so it is loaded only when this host compiled it: [`artifact`] has a keyed
//! hash over all of it, with a key that never leaves the host. Code from a peer is never accepted. What is damaged, of another
//! key, engine, setting or admission is deleted and compiled again.
//!
//! **What fails harmlessly.** The directory is a help: when it is full, read-only or not there, modules are compiled into
//! memory, with a warning. A crash leaves at most one unfinished file a module, which the next one overwrites.

mod artifact;
#[cfg(target_os = "linux")]
pub(crate) mod child;
#[cfg(target_os = "linux")]
mod parent;
mod store;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use registry::{canon, id::ModuleHash, job::Profile};
use serde::{Deserialize, Serialize};
use wasmtime::{Engine, OutOfMemory};

pub(super) use self::artifact::Artifact;
use self::store::Store;
use super::{
    LoadError, Optimisation, SandboxError, SandboxOptions, admit,
    engine::{self, CpuClass},
    memory_file,
    preflight::{ModuleInfo, PAGE_BYTES, Refusal, preflight},
};
use crate::{clock::Stopwatch, limits};

/// How modules are compiled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct CompileOptions {
    /// The program that compiles, by its absolute path: `quorate` itself. Without one, whoever loads a module compiles it
    /// on its own thread and without a budget.
    pub program: Option<PathBuf>,
    /// Where compiled modules are kept; in memory when absent.
    pub cache: Option<CompileCache>,
    /// What compiling one module may take.
    pub budget: CompileBudget,
}

impl CompileOptions {
    /// The running program, from wherever it was started, and even when its file was replaced since.
    pub fn this_program() -> Option<PathBuf> {
        cfg!(target_os = "linux").then(|| PathBuf::from("/proc/self/exe"))
    }
}

/// Where compiled modules are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompileCache {
    /// The directory; made when it is not there. Several processes of one owner may share it.
    pub dir: PathBuf,
    /// The key that its files are authenticated with; made when it is not there.
    pub key_file: PathBuf,
    /// Bytes that its files may have together.
    pub bytes_max: u64,
}

/// What compiling one module may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompileBudget {
    /// Processor time in seconds.
    pub cpu_s_max: u64,
    /// Memory in bytes.
    pub memory_bytes_max: u64,
    /// Time in milliseconds.
    pub wall_ms_max: u64,
    /// Length in bytes of the machine code.
    pub artifact_bytes_max: u64,
}

impl Default for CompileBudget {
    fn default() -> Self {
        Self {
            cpu_s_max: limits::COMPILE_CPU_S,
            memory_bytes_max: limits::COMPILE_MEMORY_BYTES,
            wall_ms_max: limits::COMPILE_WALL_MS,
            artifact_bytes_max: limits::ARTIFACT_BYTES_MAX,
        }
    }
}

/// A budget that compiling passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// Processor time in seconds.
    CpuS,
    /// Memory in bytes.
    MemoryBytes,
    /// Time in milliseconds.
    WallMs,
    /// Length in bytes of the machine code.
    ArtifactBytes,
}

impl std::fmt::Display for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CpuS => "cpu_s",
            Self::MemoryBytes => "memory_bytes",
            Self::WallMs => "wall_ms",
            Self::ArtifactBytes => "artifact_bytes",
        })
    }
}

impl CompileBudget {
    /// The error of a module that passed it.
    fn passed(&self, budget: Budget) -> LoadError {
        let bound = match budget {
            Budget::CpuS => self.cpu_s_max,
            Budget::MemoryBytes => self.memory_bytes_max,
            Budget::WallMs => self.wall_ms_max,
            Budget::ArtifactBytes => self.artifact_bytes_max,
        };
        LoadError::CompileBudget { budget, bound }
    }
}

/// What was compiled since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompileStats {
    /// Modules compiled.
    pub compiled: u64,
    /// Modules found compiled, on disk.
    pub cached: u64,
    /// Modules that are refused, do not compile, pass the budget or crash the compiler.
    pub refused: u64,
    /// Modules that this host failed to compile.
    pub failed: u64,
    /// Time in microseconds that compilers ran, whatever came of it.
    pub compile_micros: u64,
}

impl std::ops::Add for CompileStats {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            compiled: self.compiled + more.compiled,
            cached: self.cached + more.cached,
            refused: self.refused + more.refused,
            failed: self.failed + more.failed,
            compile_micros: self.compile_micros + more.compile_micros,
        }
    }
}

#[derive(Default)]
struct Counters {
    compiled: AtomicU64,
    cached: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    compile_micros: AtomicU64,
}

/// Compiles modules, and remembers them.
pub(super) struct Compiler {
    options: CompileOptions,
    /// Has the settings that code is compiled for.
    engine: Engine,
    target: Target,
    settings: Settings,
    store: Option<Store>,
    /// What is wrong with modules that were tried: compiling a bomb again would spend its whole budget again.
    refused: Mutex<HashMap<ModuleHash, LoadError>>,
    counters: Counters,
}

/// What code is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    pub(super) class: CpuClass,
    pub(super) profile: Profile,
}

impl Target {
    /// An engine that compiles for it, with the smallest pool.
    fn engine(self, optimisation: Optimisation) -> Result<Engine, SandboxError> {
        let options = SandboxOptions {
            slots_max: 1,
            memory_bytes_max: PAGE_BYTES,
            profile: self.profile,
            optimisation,
            ..SandboxOptions::default()
        };
        engine::build(&options, self.class)
    }
}

/// What machine code depends on beside the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Settings {
    engine: String,
    target: Target,
    admission: u32,
}

impl Compiler {
    /// One with an engine of its own, for a process that runs no tasks.
    pub(super) fn alone(options: &SandboxOptions, class: CpuClass) -> Result<Self, SandboxError> {
        let engine = Target { class, profile: options.profile }.engine(options.optimisation)?;
        Ok(Self::new(options, class, engine))
    }

    /// Opens the directory, if one is given; without one that can be used, says so in the log and does without. `engine` has the
    /// settings of these options.
    pub(super) fn new(options: &SandboxOptions, class: CpuClass, engine: Engine) -> Self {
        let target = Target { class, profile: options.profile };
        let mut compile = options.compile.clone();
        // Children know one.
        if options.optimisation != Optimisation::Speed {
            compile.program = None;
        }
        let options = compile;
        let store = options.cache.as_ref().and_then(|cache| match Store::open(cache) {
            Ok(store) => Some(store),
            Err(error) => {
                tracing::warn!(%error, dir = %cache.dir.display(), "compiled modules are not kept on disk");
                None
            }
        });
        let settings = Settings { engine: engine::settings(&engine), target, admission: admit::VERSION };
        let (refused, counters) = Default::default();
        Self { options, engine, target, settings, store, refused, counters }
    }

    /// Names what a module is compiled to.
    fn key(&self, module: ModuleHash) -> [u8; 32] {
        canon::hash("quorate/compiled/2", &(module, &self.settings))
    }

    /// The module, if it is on disk.
    pub(super) fn cached(&self, module: ModuleHash) -> Option<Artifact> {
        let found = self.store.as_ref()?.find(&self.key(module))?;
        self.counters.cached.fetch_add(1, Ordering::Relaxed);
        Some(found)
    }

    /// The module, from disk or compiled now. Among the processes that share a directory one compiles and the others wait.
    ///
    /// # Errors
    /// When the module is refused, does not compile within its budget, or this host fails.
    pub(super) fn artifact(&self, module: ModuleHash, bytes: &[u8]) -> Result<Artifact, LoadError> {
        if let Some(found) = self.cached(module) {
            return Ok(found);
        }
        if let Some(error) = self.known(module) {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            return Err(error);
        }
        let Some(store) = &self.store else { return self.compile(module, bytes) };
        let key = self.key(module);
        // Whoever holds the lock is bounded by a budget of its own; waiting longer is waiting for a process that hangs.
        let Some(lock) = store.lock(&key, self.options.budget.wall_ms_max) else {
            return self.compile(module, bytes);
        };
        if let Some(found) = self.cached(module) {
            return Ok(found);
        }
        let made = self.compile(module, bytes)?;
        Ok(store.put(&lock, &made).unwrap_or(made))
    }

    fn known(&self, module: ModuleHash) -> Option<LoadError> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).get(&module).cloned()
    }

    fn compile(&self, module: ModuleHash, bytes: &[u8]) -> Result<Artifact, LoadError> {
        let watch = Stopwatch::start();
        let made = self.compile_now(bytes);
        let micros = u64::try_from(watch.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counters.compile_micros.fetch_add(micros, Ordering::Relaxed);
        let counter = match &made {
            Ok(_) => &self.counters.compiled,
            Err(error) if error.is_final() => {
                self.remember(module, error);
                &self.counters.refused
            }
            Err(LoadError::CompileBudget { .. }) => &self.counters.refused,
            Err(_) => &self.counters.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        made
    }

    fn compile_now(&self, bytes: &[u8]) -> Result<Artifact, LoadError> {
        #[cfg(target_os = "linux")]
        if let Some(program) = &self.options.program {
            return parent::compile(program, self.target, self.options.budget, bytes);
        }
        let budget = &self.options.budget;
        let (info, code) =
            precompile(&self.engine, self.target.profile, bytes, budget).map_err(|end| end.into_error(budget))?;
        let file = memory_file::constant("module", &[&code])
            .map_err(|error| LoadError::failed("memory for the code", &error))?;
        Artifact::made(file, info)
    }

    fn remember(&self, module: ModuleHash, error: &LoadError) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= limits::COMPILE_REFUSALS_MAX {
            refused.clear();
        }
        refused.insert(module, error.clone());
    }

    /// What was compiled since the start.
    pub(super) fn stats(&self) -> CompileStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { compiled, cached, refused, failed, compile_micros } = &self.counters;
        CompileStats {
            compiled: of(compiled),
            cached: of(cached),
            refused: of(refused),
            failed: of(failed),
            compile_micros: of(compile_micros),
        }
    }
}

/// Why a compiler has no code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum NoCode {
    /// Preflight refuses the module.
    Refused(Refusal),
    /// The compiler does.
    NotCompiled(String),
    /// It would take more than the budget.
    Passed(Budget),
    /// Something that is not the module's fault.
    Failed {
        /// What was tried.
        stage: String,
        /// What the system said.
        detail: String,
    },
}

impl NoCode {
    fn failed(stage: &str, detail: &dyn std::fmt::Display) -> Self {
        Self::Failed { stage: stage.to_owned(), detail: detail.to_string() }
    }

    fn into_error(self, budget: &CompileBudget) -> LoadError {
        match self {
            Self::Refused(refusal) => refusal.into(),
            Self::NotCompiled(detail) => LoadError::Compile { detail: line(&detail) },
            Self::Passed(passed) => budget.passed(passed),
            Self::Failed { stage, detail } => LoadError::failed(&stage, &detail),
        }
    }
}

/// The whole way of a module through the compiler: what is known of it, and its machine code.
fn precompile(
    engine: &Engine,
    profile: Profile,
    bytes: &[u8],
    budget: &CompileBudget,
) -> Result<(ModuleInfo, Vec<u8>), NoCode> {
    let info = preflight(bytes).map_err(NoCode::Refused)?;
    let admitted = admit::admit(bytes, profile);
    let admitted = admitted.map_err(|error| NoCode::Refused(Refusal::Invalid { detail: error.to_string() }))?;
    let code = engine.precompile_module(&admitted).map_err(|error| match error.downcast_ref::<OutOfMemory>() {
        Some(_) => NoCode::Passed(Budget::MemoryBytes),
        None => NoCode::NotCompiled(format!("{error:#}")),
    })?;
    if code.len() as u64 > budget.artifact_bytes_max {
        return Err(NoCode::Passed(Budget::ArtifactBytes));
    }
    Ok((info, code))
}

/// What a compiler or a system said, for one line of a message.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).flat_map(char::escape_default).collect()
}

impl LoadError {
    /// This host's own failure.
    fn failed(stage: &str, detail: &dyn std::fmt::Display) -> Self {
        Self::CompilerFailed { stage: stage.to_owned(), detail: line(&detail.to_string()) }
    }
}
