//! Tasks in processes of their own: a pool of them, this program executed again, each serving one task at a time and many in
//! its life.
//!
//! ```text
//! Request ─Pool::run► Member (an idle process, or a new one) ─wire► child: jail, ThreadSandbox ─wire► Response
//! ```
//! - [`wire`]: what host and process say to each other; [`content`]: bytes that they share.
//! - [`child`]: the process: jails itself, then serves. [`member`]: the host's hold on one. [`keeper`]: the thread that starts
//!   them, and ends those that have nothing to do. [`memory`]: what the models of all of them may have.
//!
//! # Who owns what
//! The pool owns idle members, and the content of modules and models within the bounds of the caches: as sealed memory files,
//! so that every process maps the same pages. A process has sessions of its own, made from that once and kept for the tasks that
//! come to it: as many as tasks with the model run at once, within one bound for all processes. A running task owns its member. A member owns its process: whoever drops one has
//! killed the process and waited for it.
//!
//! # Who trusts whom
//! A process trusts its host. The host believes nothing of a process that has seen content of others: every frame, section and
//! number is bounded, and one that says what makes no sense is killed and replaced. What it cannot see is whether a *result* is
//! true; that is for audits and quorums, as with a host that lies.
//!
//! # What ends a process
//! Its own crash; a layer of the jail; a deadline or a cancellation that it did not keep; nonsense; an hour of work; memory that
//! it did not give back; a minute with nothing to do. The task at hand, if any, is a fault of the host, and the next task gets
//! another process. When the host goes, however it goes, the kernel kills them all.

pub mod child;
mod content;
mod keeper;
mod member;
mod memory;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use registry::id::{EngineFingerprint, ModelHash, ModuleHash};

use self::{
    content::Content,
    keeper::Keeper,
    member::{Broken, Job, Member, Met},
    memory::Memory,
};
use super::{
    BackendOptions, CancelToken, CompileOptions, CompileStats, CpuClass, EngineDescription, HostFault, LoadError,
    Measured, ModelCounts, ModelInfo, ModelStats, ModuleInfo, ProcessStats, Ran, Request, SandboxError, SandboxOptions,
    Span,
    cache::Cache,
    check_hash, check_options, check_room, check_start,
    compile::{Artifact, Compiler},
    jail::Gap,
    model_bytes_max,
    nn::referee::{self, OwnModule},
    run,
};
use crate::{clock::Stopwatch, limits};

/// Why a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Idle,
    Retired,
    Deadline,
    Cancelled,
    Garbage,
    Died,
}

/// How many processes were started, and why they ended.
#[derive(Debug, Default)]
struct Counters {
    /// Those that are there, by the system's numbers.
    alive: Mutex<BTreeSet<u32>>,
    started: AtomicU64,
    ended: [AtomicU64; 6],
}

impl Counters {
    fn alive(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn started(&self, process: u32) {
        self.alive().insert(process);
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    fn ended(&self, process: u32, end: End) {
        self.alive().remove(&process);
        self.ended[end as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> ProcessStats {
        let [idle, retired, deadline, cancelled, garbage, died] =
            std::array::from_fn(|at| self.ended[at].load(Ordering::Relaxed));
        let started = self.started.load(Ordering::Relaxed);
        let alive = self.alive().len() as u64;
        ProcessStats { alive, started, idle, retired, deadline, cancelled, garbage, died }
    }
}

/// What was loaded once, and can be handed to any process.
struct Held<I> {
    info: I,
    content: Content,
}

/// A model that was loaded once.
struct HeldModel {
    held: Held<ModelInfo>,
    /// Memory in bytes of a session of it that has not run many shapes.
    session_bytes: u64,
}

/// Processes for tasks.
pub(super) struct Pool {
    options: SandboxOptions,
    engine: EngineDescription,
    fingerprint: EngineFingerprint,
    gaps: Vec<Gap>,
    keeper: Keeper,
    idle: Mutex<Vec<Member>>,
    modules: Cache<ModuleHash, Held<ModuleInfo>, LoadError>,
    models: Cache<ModelHash, HeldModel, LoadError>,
    /// The module that models run in, where they run in one.
    own: OnceLock<Arc<Held<ModuleInfo>>>,
    memory: Arc<Memory>,
    model_counts: ModelCounts,
    slots_used: AtomicU32,
    loads: Loads,
    counters: Arc<Counters>,
    compiler: Compiler,
}

impl Pool {
    /// Starts a first process, which shows that isolation works here, and tells what engine all have.
    pub(super) fn start(options: SandboxOptions) -> Result<Arc<Self>, SandboxError> {
        check_options(&options)?;
        // All processes of a pool agree, whatever each would find best.
        let class = options.cpu_class.unwrap_or_else(CpuClass::detect);
        let counters = Arc::new(Counters::default());
        // They get code, and compile nothing.
        let compile = CompileOptions::default();
        let own = SandboxOptions { cpu_class: Some(class), compile, ..options.clone() };
        // Whoever keeps tasks apart keeps the compiler apart too.
        let program = options.compile.program.clone().or_else(|| options.program.clone());
        let compile =
            CompileOptions { program: program.or_else(CompileOptions::this_program), ..options.compile.clone() };
        let compiler = Compiler::alone(&SandboxOptions { compile, ..own.clone() }, class)?;
        let keeper = Keeper::start(own, Arc::clone(&counters))?;
        let memory = Memory::new(options.model_cache_bytes_max);
        let (first, Met { engine, gaps, backend_bytes }) = keeper.member(&memory)?;
        memory.bound(model_bytes_max(options.model_cache_bytes_max, backend_bytes));
        for gap in &gaps {
            tracing::warn!(layer = %gap.layer, "sandbox processes are jailed in part: {}", gap.detail);
        }
        if let (true, Some(gap)) = (options.every_layer, gaps.first()) {
            return Err(SandboxError::Isolation { detail: gap.to_string() });
        }
        let pool = Arc::new(Self {
            fingerprint: engine.fingerprint(),
            engine,
            gaps,
            keeper,
            idle: Mutex::new(vec![first]),
            modules: Cache::new(options.module_cache_bytes_max),
            models: Cache::new(options.model_cache_bytes_max),
            own: OnceLock::new(),
            memory,
            model_counts: ModelCounts::default(),
            slots_used: AtomicU32::new(0),
            loads: Loads::default(),
            counters,
            compiler,
            options,
        });
        pool.keeper.watch(&pool);
        Ok(pool)
    }

    pub(super) fn options(&self) -> &SandboxOptions {
        &self.options
    }

    pub(super) fn fingerprint(&self) -> EngineFingerprint {
        self.fingerprint
    }

    pub(super) fn describe(&self) -> &EngineDescription {
        &self.engine
    }

    /// What the jail of its first process lacks.
    pub(super) fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    pub(super) fn stats(&self) -> ProcessStats {
        self.counters.read()
    }

    pub(super) fn process_ids(&self) -> Vec<u32> {
        self.counters.alive().iter().copied().collect()
    }

    pub(super) fn has_module(&self, hash: ModuleHash) -> bool {
        self.modules.get(hash).is_some()
    }

    pub(super) fn has_model(&self, hash: ModelHash) -> bool {
        self.models.get(hash).is_some()
    }

    pub(super) fn load_module(&self, hash: ModuleHash, bytes: &[u8]) -> Result<ModuleInfo, LoadError> {
        if let Some(held) = self.modules.get(hash) {
            return Ok(held.info);
        }
        check_hash(&hash, &ModuleHash::of(bytes))?;
        let held = self.modules.get_or_make(hash, || self.held(&self.compiler.artifact(hash, bytes)?))?;
        Ok(held.info)
    }

    pub(super) fn load_compiled(&self, hash: ModuleHash) -> Option<ModuleInfo> {
        if let Some(held) = self.modules.get(hash) {
            return Some(held.info);
        }
        let artifact = self.compiler.cached(hash)?;
        let held = self.modules.get_or_make(hash, || self.held(&artifact));
        held.inspect_err(|error| tracing::warn!(%error, "a compiled module is not loaded")).ok().map(|held| held.info)
    }

    pub(super) fn compile_stats(&self) -> CompileStats {
        self.compiler.stats()
    }

    /// Code as processes get it.
    fn held(&self, artifact: &Artifact) -> Result<(Held<ModuleInfo>, u64), LoadError> {
        check_start(&artifact.info(), &self.options)?;
        let content = Content::code(artifact).map_err(failed)?;
        Ok((Held { info: artifact.info(), content }, artifact.code_bytes()))
    }

    pub(super) fn load_model(&self, hash: ModelHash, bytes: &[u8]) -> Result<ModelInfo, LoadError> {
        if let Some(model) = self.models.get(hash) {
            return Ok(model.held.info.clone());
        }
        let length = bytes.len() as u64;
        if length > limits::MODEL_BYTES_MAX {
            return Err(LoadError::ModelTooLarge { bytes: length, bytes_max: limits::MODEL_BYTES_MAX });
        }
        check_hash(&hash, &ModelHash::of(bytes))?;
        let model = self.models.get_or_make(hash, || {
            let made = self.first_session(hash, bytes);
            self.model_counts.made(&made);
            Ok((made?, length))
        })?;
        Ok(model.held.info.clone())
    }

    /// Has a process load a model that no process here has loaded yet.
    fn first_session(&self, hash: ModelHash, bytes: &[u8]) -> Result<HeldModel, LoadError> {
        let estimate = self.options.infers_with().session_bytes(bytes.len() as u64);
        check_room(estimate, self.memory.bytes_max())?;
        let content = Content::seal(&[bytes]).map_err(failed)?;
        let own = self.own()?;
        self.load(|member| {
            if let Err(error) = provide(own.as_deref(), member, None)? {
                return Ok(Err(error));
            }
            let watch = Stopwatch::start();
            while !self.make_room(member, estimate)? {
                if watch.elapsed_ms() > limits::SANDBOX_LOAD_MS_MAX {
                    return Ok(Err(failed("models of running tasks have all the memory that there is for models")));
                }
            }
            let loaded = member.load_model(hash, &content, self.options.warms_models, None)?;
            // With the shapes of its first inference.
            let session_bytes = member.bytes_of(hash).max(estimate);
            Ok(loaded.map(|info| HeldModel { held: Held { info, content }, session_bytes }))
        })
    }

    pub(super) fn model_stats(&self) -> ModelStats {
        let memory::Held { bytes, sessions } = self.memory.held();
        ModelStats { sessions, bytes, ..self.model_counts.read(self.memory.evicted()) }
    }

    /// Has a process load something for the first time.
    fn load<I>(&self, load: impl FnOnce(&mut Member) -> Result<Result<I, LoadError>, Broken>) -> Result<I, LoadError> {
        let _permit = self.loads.take();
        let mut member = self.take(None).map_err(failed)?;
        match load(&mut member) {
            Ok(loaded) => {
                self.give_back(member);
                loaded
            }
            Err(broken) => Err(LoadError::SandboxDied { how: member.end(broken).how }),
        }
    }

    /// The module that models run in, where they run in one: compiled when it is first asked for, and kept.
    fn own(&self) -> Result<Option<Arc<Held<ModuleInfo>>>, LoadError> {
        let BackendOptions::Referee = self.options.infers_with() else { return Ok(None) };
        if let Some(own) = self.own.get() {
            return Ok(Some(Arc::clone(own)));
        }
        let OwnModule { hash, bytes } = *referee::module();
        let held = self.modules.get_or_make(hash, || self.held(&self.compiler.artifact(hash, bytes)?))?;
        Ok(Some(Arc::clone(self.own.get_or_init(|| held))))
    }

    pub(super) fn measure(&self) -> Result<Measured, SandboxError> {
        let broken = |error: LoadError| SandboxError::Backend { detail: error.to_string() };
        let own = self.own().map_err(broken)?;
        let mut member = self.take(None)?;
        let measured = match provide(own.as_deref(), &mut member, None) {
            Ok(Ok(())) => member.measure(),
            Ok(Err(error)) => Ok(Err(broken(error))),
            Err(broken) => Err(broken),
        };
        match measured {
            Ok(measured) => {
                self.give_back(member);
                measured
            }
            Err(broken) => Err(SandboxError::Backend { detail: member.end(broken).how }),
        }
    }

    pub(super) fn run(&self, request: Request, span: Span, cancel: Option<&CancelToken>) -> Result<Ran, HostFault> {
        let watch = Stopwatch::start();
        let mut ran = self.finish(request, span, cancel)?;
        if let Ran::Done(finished) = &mut ran {
            finished.wall_micros = u64::try_from(watch.elapsed().as_micros()).unwrap_or(u64::MAX);
        }
        Ok(ran)
    }

    fn finish(&self, request: Request, span: Span, cancel: Option<&CancelToken>) -> Result<Ran, HostFault> {
        run::check(&request, &self.options)?;
        let needs = self.needs(&request)?;
        let _slot = run::Slot::take(&self.slots_used, self.options.slots_max)?;
        if cancel.is_some_and(CancelToken::is_cancelled) {
            return Err(HostFault::Cancelled);
        }
        let died = |error: SandboxError| HostFault::SandboxDied { how: error.to_string() };
        let no_memory = |error: std::io::Error| HostFault::HostMemory { detail: error.to_string() };
        let job = Job::new(request, span).map_err(no_memory)?;
        let mut member = self.take(Some(&needs)).map_err(died)?;
        let found = needs.models.iter().filter(|(model, _)| member.has_model(**model)).count();
        self.model_counts.found.fetch_add(found as u64, Ordering::Relaxed);
        match self.serve(&mut member, &job, &needs, cancel) {
            Ok(ran) => {
                member.worked(&job, &ran);
                self.give_back(member);
                ran
            }
            Err(broken) => Err(member.end(broken).fault(job.limits())),
        }
    }

    /// Runs it in this process, which is given what it lacks.
    fn serve(
        &self,
        member: &mut Member,
        job: &Job,
        needs: &Needs,
        cancel: Option<&CancelToken>,
    ) -> Result<Result<Ran, HostFault>, Broken> {
        if let Err(fault) = self.provide(member, job, needs, cancel)? {
            return Ok(Err(fault));
        }
        let ran = member.run(job, cancel)?;
        let Err(HostFault::ModuleMissing { .. } | HostFault::ModelMissing { .. }) = ran else { return Ok(ran) };
        // Its caches had no room for everything.
        member.forget();
        match self.provide(member, job, needs, cancel)? {
            Ok(()) => member.run(job, cancel),
            Err(fault) => Ok(Err(fault)),
        }
    }

    /// Gives a process what it lacks, as soon as there is room.
    fn provide(
        &self,
        member: &mut Member,
        job: &Job,
        needs: &Needs,
        cancel: Option<&CancelToken>,
    ) -> Result<Result<(), HostFault>, Broken> {
        // It was loaded once, so that only the machine can be why it is not again.
        let fault = |error: LoadError| HostFault::Internal { detail: error.to_string() };
        for module in [Some(&needs.module.1), needs.own.as_ref()] {
            if let Err(error) = provide(module.map(|held| &**held), member, cancel)? {
                return Ok(Err(fault(error)));
            }
        }
        let watch = Stopwatch::start();
        while !self.make_room(member, needs.lacking_room(member))? {
            if cancel.is_some_and(CancelToken::is_cancelled) {
                return Ok(Err(HostFault::Cancelled));
            }
            if watch.elapsed_ms() > job.limits().wall_ms_max {
                return Ok(Err(HostFault::Deadline { wall_ms_max: job.limits().wall_ms_max }));
            }
        }
        for (hash, model) in &needs.models {
            if !member.has_model(*hash) {
                let loaded = member.load_model(*hash, &model.held.content, false, cancel)?;
                self.model_counts.made(&loaded);
                if let Err(error) = loaded {
                    return Ok(Err(fault(error)));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Has memory for sessions of so many bytes more in this process, or waits a moment for it. What has nothing to do lets go
    /// of its sessions, the process itself at last: one that waits for others holds nothing that they could wait for.
    fn make_room(&self, member: &mut Member, bytes: u64) -> Result<bool, Broken> {
        if bytes == 0 || member.make_room(bytes) {
            return Ok(true);
        }
        let excess = self.memory.excess(bytes);
        if !self.shrink_idle(excess) {
            match member.session_bytes() {
                0 => self.memory.wait(limits::SANDBOX_POLL_MS),
                own => member.shrink(own.saturating_sub(excess))?,
            }
        }
        Ok(false)
    }

    /// Has the process that has had nothing to do for longest, of those with sessions, let go of so many bytes. Says whether there
    /// was one.
    fn shrink_idle(&self, bytes: u64) -> bool {
        let oldest = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let at = idle.iter().position(|member| member.session_bytes() > 0);
            at.map(|at| idle.remove(at))
        };
        let Some(mut member) = oldest else { return false };
        match member.shrink(member.session_bytes().saturating_sub(bytes)) {
            // It is still the one that has rested for longest.
            Ok(()) => self.idle.lock().unwrap_or_else(PoisonError::into_inner).insert(0, member),
            Err(broken) => drop(member.end(broken)),
        }
        true
    }

    fn needs(&self, request: &Request) -> Result<Needs, HostFault> {
        let module = self.modules.get(request.module);
        let module = module.ok_or(HostFault::ModuleMissing { module: request.module })?;
        let model = |(name, model): (&String, &ModelHash)| match self.models.get(*model) {
            Some(held) => Ok((*model, held)),
            None => Err(HostFault::ModelMissing { name: name.clone(), model: *model }),
        };
        // One model may have several names.
        let models = request.models.iter().map(model).collect::<Result<BTreeMap<_, _>, _>>()?;
        let asked = models.values().fold(0, |sum: u64, model| sum.saturating_add(model.session_bytes));
        let bound = self.memory.bytes_max();
        if asked > bound {
            let what = "memory of the task's models in bytes".to_owned();
            return Err(HostFault::LimitTooLarge { what, asked, bound });
        }
        // A model was loaded, which was not done without it.
        let own = if models.is_empty() { None } else { self.own.get().map(Arc::clone) };
        Ok(Needs { module: (request.module, module), own, models })
    }

    /// The idle process that has most of what is needed, of several the last that worked; or a new one.
    fn take(&self, needs: Option<&Needs>) -> Result<Member, SandboxError> {
        loop {
            let idle = {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                let lacks = |at: &usize| needs.map_or(0, |needs| needs.lacking_bytes(&idle[*at]));
                let best = (0..idle.len()).rev().min_by_key(lacks);
                best.map(|at| idle.remove(at))
            };
            let Some(mut member) = idle else { break };
            if member.is_alive() {
                return Ok(member);
            }
            // Somebody killed it while it had nothing to do.
        }
        let (member, Met { engine, .. }) = self.keeper.member(&self.memory)?;
        if engine != self.engine {
            return Err(SandboxError::Isolation { detail: format!("program was replaced by one with {engine}") });
        }
        Ok(member)
    }

    fn give_back(&self, mut member: Member) {
        member.rest();
        if member.is_worn() {
            member.retire(End::Retired);
        } else {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(member);
        }
        // Sessions grow while tasks run.
        while let excess @ 1.. = self.memory.excess(0)
            && self.shrink_idle(excess)
        {}
        self.memory.look();
    }

    /// Ends processes that have had nothing to do for so long.
    fn reap(&self, idle_ms: u64) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<Member> = idle.extract_if(.., |member| member.idle_ms() >= idle_ms).collect();
        drop(idle);
        gone.into_iter().for_each(|member| member.retire(End::Idle));
    }
}

fn failed(error: impl std::fmt::Display) -> LoadError {
    LoadError::SandboxDied { how: error.to_string() }
}

/// Gives a process a module that it lacks, if there is one.
fn provide(
    module: Option<&Held<ModuleInfo>>,
    member: &mut Member,
    cancel: Option<&CancelToken>,
) -> Result<Result<(), LoadError>, Broken> {
    match module {
        Some(held) if !member.has_module(held.info.hash) => member.load_module(held.info, &held.content, cancel),
        _ => Ok(Ok(())),
    }
}

/// What a request needs loaded.
struct Needs {
    module: (ModuleHash, Arc<Held<ModuleInfo>>),
    /// What the models run in.
    own: Option<Arc<Held<ModuleInfo>>>,
    models: BTreeMap<ModelHash, Arc<HeldModel>>,
}

impl Needs {
    fn lacking(&self, member: &Member) -> impl Iterator<Item = &HeldModel> {
        self.models.iter().filter(|(model, _)| !member.has_model(**model)).map(|(_, held)| &**held)
    }

    /// Bytes of what a process would have to be given.
    fn lacking_bytes(&self, member: &Member) -> u64 {
        let (module, held) = &self.module;
        let code = if member.has_module(*module) { 0 } else { held.content.bytes() };
        self.lacking(member).fold(code, |sum, model| sum.saturating_add(model.held.content.bytes()))
    }

    /// Memory in bytes of the sessions that a process would have to make.
    fn lacking_room(&self, member: &Member) -> u64 {
        self.lacking(member).fold(0, |sum, model| sum.saturating_add(model.session_bytes))
    }
}

/// Lets [`limits::LOADS_MAX`] first loads through at a time: each takes much memory.
#[derive(Default)]
struct Loads {
    running: Mutex<usize>,
    freed: Condvar,
}

/// A load that may go on, until it is dropped.
struct Permit<'a>(&'a Loads);

impl Loads {
    fn take(&self) -> Permit<'_> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        while *running >= limits::LOADS_MAX {
            running = self.freed.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
        *running += 1;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.freed.notify_one();
    }
}
