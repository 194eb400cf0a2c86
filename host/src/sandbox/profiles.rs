//! The sandboxes of one host: one for each engine that it offers.
//!
//! - The native one runs what most jobs ask for, with tract. A host without it does not start.
//! - The portable one starts with the first job that asks for it, which few do. It infers in the sandbox itself
//!   ([`BackendOptions::Referee`](super::BackendOptions::Referee)).
//! - One for each further backend that the configuration names. One that does not start, or cannot multiply two matrices, is
//!   logged and left out of the offer: a missing library costs the host the jobs that need it, and no others.
//!
//! # What all of them together take
//! Tasks run on the slots of the worker, whichever sandbox they are for, and the caches of modules and models are divided among
//! the native and the further ones: a second engine does not double what the host gives.

use std::sync::{Mutex, OnceLock, PoisonError};

use grid::engines::{EngineAsk, EngineOffer, Engines, Lack};
use registry::{id::EngineFingerprint, job::Profile};

use super::{CompileStats, Measured, ModelStats, ProcessStats, Sandbox, SandboxError, SandboxOptions};

/// The sandboxes of one host, by engine.
#[derive(Debug)]
pub struct Sandboxes {
    native: Sandbox,
    portable: Portable,
    further: Vec<Sandbox>,
    engines: Engines,
}

/// Started when it is first asked for.
#[derive(Debug)]
struct Portable {
    options: SandboxOptions,
    offer: EngineOffer,
    started: OnceLock<Sandbox>,
    starting: Mutex<()>,
}

/// Why a task has no sandbox here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoEngine {
    /// The host has no such engine.
    #[error("host has no engine {}: its coordinator means an earlier offer", asked.short())]
    Unknown {
        /// Which was ordered.
        asked: EngineFingerprint,
    },
    /// The task asks for something else than the engine that was ordered.
    #[error("engine {} {lack}: the task is not run on another", asked.short())]
    Lacks {
        /// Which was ordered.
        asked: EngineFingerprint,
        /// What it lacks.
        lack: Lack,
    },
    /// It does not start.
    #[error("{0}")]
    Start(#[from] SandboxError),
}

impl NoEngine {
    /// A stable word for metrics and the wire.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "no_engine",
            Self::Lacks { .. } => "engine_lacks",
            Self::Start(_) => "internal",
        }
    }
}

impl Sandboxes {
    /// Starts the native one; there are no further ones.
    ///
    /// # Errors
    /// When it does not start.
    pub fn new(options: SandboxOptions) -> Result<Self, SandboxError> {
        Self::with(options, Vec::new())
    }

    /// Starts the native one, and those of the further ones that do start.
    ///
    /// # Errors
    /// When the native one does not start.
    pub fn with(options: SandboxOptions, further: Vec<SandboxOptions>) -> Result<Self, SandboxError> {
        let sharing = 1 + further.len() as u64;
        let portable = SandboxOptions { profile: Profile::Portable, ..options.clone() };
        let native = Sandbox::new(share(SandboxOptions { profile: Profile::Native, ..options }, sharing))?;
        let measured = native.measure().unwrap_or_else(|error| {
            tracing::warn!(%error, "what models run on could not be measured");
            Measured { memory_bytes: 0, mflops: 0 }
        });
        let portable = Portable::new(portable, measured)?;
        let mut engines = Engines(vec![native.describe().offer(measured), portable.offer.clone()]);
        let mut started = Vec::new();
        for options in further {
            if let Some((sandbox, offer)) = start(share(options, sharing), &engines) {
                engines.0.push(offer);
                started.push(sandbox);
            }
        }
        Ok(Self { native, portable, further: started, engines })
    }

    /// The sandbox with this engine, for a task that asks so. It is never another one: what the task asks for is looked at
    /// once more, so that a GPU that was asked for is a GPU, whatever the coordinator thinks.
    ///
    /// # Errors
    /// When there is none, it is not what the task asks for, or it does not start.
    pub fn of(&self, engine: EngineFingerprint, ask: &EngineAsk) -> Result<&Sandbox, NoEngine> {
        let offer = self.engines.get(engine).ok_or(NoEngine::Unknown { asked: engine })?;
        if let Some(lack) = ask.lack(std::slice::from_ref(offer)) {
            return Err(NoEngine::Lacks { asked: engine, lack });
        }
        if engine == self.portable.offer.fingerprint {
            return Ok(self.portable.get()?);
        }
        let mut all = std::iter::once(&self.native).chain(&self.further);
        all.find(|sandbox| sandbox.fingerprint() == engine).ok_or(NoEngine::Unknown { asked: engine })
    }

    fn all(&self) -> impl Iterator<Item = &Sandbox> {
        std::iter::once(&self.native).chain(self.portable.started.get()).chain(&self.further)
    }

    /// What became of sandbox processes, and of modules, since the start.
    pub fn stats(&self) -> (ProcessStats, CompileStats) {
        let each = self.all().map(|sandbox| (sandbox.process_stats(), sandbox.compile_stats()));
        each.fold(Default::default(), |(processes, compiles), (more, compiled)| (processes + more, compiles + compiled))
    }

    /// What became of models since the start.
    pub fn model_stats(&self) -> ModelStats {
        self.all().map(Sandbox::model_stats).fold(ModelStats::default(), |sum, more| sum + more)
    }

    /// The one that most jobs take.
    pub fn native(&self) -> &Sandbox {
        &self.native
    }

    /// What the host offers: each engine with what was measured of it.
    pub fn engines(&self) -> &Engines {
        &self.engines
    }

    /// The fingerprint of the engine for jobs of this profile that ask for nothing else.
    pub fn plain(&self, profile: Profile) -> EngineFingerprint {
        match profile {
            Profile::Native => self.native.fingerprint(),
            Profile::Portable => self.portable.offer.fingerprint,
        }
    }
}

impl Portable {
    fn new(options: SandboxOptions, native: Measured) -> Result<Self, SandboxError> {
        let about = Sandbox::description_of(&options)?;
        // It has the same memory. It is not chosen for its speed, so that it need not be started to be measured.
        let offer = about.offer(Measured { mflops: 0, ..native });
        Ok(Self { options, offer, started: OnceLock::new(), starting: Mutex::new(()) })
    }

    fn get(&self) -> Result<&Sandbox, SandboxError> {
        // One starts it, the others wait for that.
        let _starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(started) = self.started.get() {
            return Ok(started);
        }
        let sandbox = Sandbox::new(self.options.clone())?;
        Ok(self.started.get_or_init(|| sandbox))
    }
}

/// A further sandbox, unless it does not start or is one that is there.
fn start(options: SandboxOptions, known: &Engines) -> Option<(Sandbox, EngineOffer)> {
    let backend = format!("{:?}", options.backend);
    let started = Sandbox::new(options).and_then(|sandbox| Ok((sandbox.measure()?, sandbox)));
    let (measured, sandbox) = match started {
        Ok(started) => started,
        Err(error) => {
            tracing::warn!(%error, backend, "a backend of inference does not start and is not offered");
            return None;
        }
    };
    if known.get(sandbox.fingerprint()).is_some() {
        tracing::warn!(backend, engine = %sandbox.describe(), "a backend of inference is configured twice");
        return None;
    }
    let Measured { memory_bytes, mflops } = measured;
    tracing::info!(engine = %sandbox.describe(), memory_bytes, mflops, "a further engine is up");
    let offer = sandbox.describe().offer(measured);
    Some((sandbox, offer))
}

/// Its part of the caches.
fn share(options: SandboxOptions, sharing: u64) -> SandboxOptions {
    SandboxOptions {
        module_cache_bytes_max: options.module_cache_bytes_max / sharing,
        model_cache_bytes_max: options.model_cache_bytes_max / sharing,
        ..options
    }
}

#[cfg(test)]
mod tests {
    use registry::{
        device::DeviceAsk,
        job::{Class, JobSpec},
    };

    use super::*;
    use crate::sandbox::CpuClass;

    fn ask(change: impl FnOnce(&mut JobSpec)) -> EngineAsk {
        let mut spec = JobSpec::new(registry::id::ModuleHash([1; 32]), 1);
        change(&mut spec);
        EngineAsk::from(&spec)
    }

    #[test]
    fn a_further_engine_that_does_not_start_or_is_there_already_is_left_out() {
        let options = SandboxOptions { slots_max: 1, ..SandboxOptions::default() };
        // One process has one class of kernels.
        let other = match CpuClass::detect() {
            CpuClass::Generic => CpuClass::Avx2,
            CpuClass::Avx2 => CpuClass::Generic,
        };
        let further = vec![SandboxOptions { cpu_class: Some(other), ..options.clone() }, options.clone()];
        let sandboxes = Sandboxes::with(options, further).unwrap();
        let offered: Vec<Profile> = sandboxes.engines().0.iter().map(|engine| engine.profile).collect();
        assert_eq!(offered, [Profile::Native, Profile::Portable]);
        sandboxes.engines().check().unwrap();
        let native = &sandboxes.engines().0[0];
        assert!(native.mflops > 0 && native.device_memory_bytes > 1 << 20, "what is offered was measured: {native:?}");
    }

    #[test]
    fn a_task_gets_the_engine_that_was_ordered_or_none() {
        let sandboxes = Sandboxes::new(SandboxOptions { slots_max: 1, ..SandboxOptions::default() }).unwrap();
        let native = sandboxes.plain(Profile::Native);
        assert_eq!(sandboxes.of(native, &ask(|_| {})).unwrap().fingerprint(), native);
        let refused = |engine, ask: &EngineAsk| sandboxes.of(engine, ask).unwrap_err();
        assert_eq!(refused(EngineFingerprint([7; 32]), &ask(|_| {})).word(), "no_engine");
        // Whatever the coordinator ordered: what asks for a GPU does not run on the processor.
        let gpu = ask(|spec| (spec.device, spec.class) = (DeviceAsk::Gpu, Class::Tolerant));
        let refusal = refused(native, &gpu);
        assert_eq!(refusal.word(), "engine_lacks");
        assert!(refusal.to_string().contains("has no GPU, which the job asks for"), "{refusal}");
        let portable = sandboxes.plain(Profile::Portable);
        assert_eq!(refused(portable, &ask(|_| {})).word(), "engine_lacks");
        let portably = ask(|spec| spec.profile = Profile::Portable);
        assert_eq!(sandboxes.of(portable, &portably).unwrap().fingerprint(), portable);
    }
}
