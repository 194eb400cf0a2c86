//! A task as a host runs it: the same module and request in every way that this program has to run them.
//!
//! All give the same outcome, fuel, output, log, files and inferences, and never a fault: what a module does is its own
//! result, whatever it does. And what preflight takes loads.

#[cfg(target_os = "linux")]
use std::path::Path;

use registry::{id::ModuleHash, job::Profile};

#[cfg(target_os = "linux")]
use super::super::Isolation;
use super::super::{Finished, LoadError, Optimisation, Request, Response, Sandbox, SandboxOptions, preflight};
use crate::limits;

/// Code in bytes that stays compiled: a module is run here and never again.
const CACHE_BYTES: u64 = 1 << 20;

/// One way to run a task.
struct Way {
    name: &'static str,
    sandbox: Sandbox,
}

fn way(name: &'static str, options: SandboxOptions) -> Result<Way, String> {
    Sandbox::new(options).map(|sandbox| Way { name, sandbox }).map_err(|error| error.to_string())
}

/// As much memory as preflight lets a module start with.
fn options() -> SandboxOptions {
    SandboxOptions {
        memory_bytes_max: limits::MEMORY_BYTES_MAX,
        slots_max: 8,
        module_cache_bytes_max: CACHE_BYTES,
        ..SandboxOptions::default()
    }
}

/// All ways, for one profile.
pub struct Ways(Vec<Way>);

impl Ways {
    /// Builds the engines.
    ///
    /// # Errors
    /// When one does not start.
    pub fn new(profile: Profile) -> Result<Self, String> {
        let options = |optimisation| SandboxOptions { profile, optimisation, ..options() };
        let optimised = way("optimised", options(Optimisation::Speed))?;
        Ok(Self(vec![optimised, way("not optimised", options(Optimisation::None))?]))
    }

    /// One way more: in processes of their own, which execute `program`.
    ///
    /// # Errors
    /// When one does not start.
    #[cfg(target_os = "linux")]
    pub fn and_processes(mut self, program: &Path) -> Result<Self, String> {
        let Some(Way { sandbox, .. }) = self.0.first() else { return Ok(self) };
        let program = Some(program.to_owned());
        let options = SandboxOptions { isolation: Isolation::Process, program, ..sandbox.options().clone() };
        self.0.insert(1, way("in a process", options)?);
        Ok(self)
    }

    /// Whether preflight takes these bytes; a module that it takes must load.
    ///
    /// # Errors
    /// When it does not.
    pub fn loads(&self, wasm: &[u8]) -> Result<bool, String> {
        let hash = ModuleHash::of(wasm);
        let taken = preflight::preflight(wasm);
        // The last compiles fastest.
        let Some(Way { name, sandbox }) = self.0.last() else { return Ok(taken.is_ok()) };
        match (&taken, sandbox.load_module(hash, wasm)) {
            (Ok(info), Ok(loaded)) if *info == loaded => Ok(true),
            (Err(refusal), Err(LoadError::Refused(same))) if *refusal == same => Ok(false),
            (taken, loaded) => Err(format!("preflight says {taken:?}, and {name} it is {loaded:?}")),
        }
    }

    /// Runs a module in each way, twice.
    ///
    /// # Errors
    /// When two runs differ, or one is a fault of the host.
    pub fn agree(&self, wasm: &[u8], request: impl Fn(ModuleHash) -> Request) -> Result<Finished, String> {
        let hash = ModuleHash::of(wasm);
        let mut first: Option<Finished> = None;
        for Way { name, sandbox } in &self.0 {
            sandbox.load_module(hash, wasm).map_err(|error| format!("{name}: {error}"))?;
            for _ in 0..2 {
                let done = match sandbox.run(request(hash)) {
                    Response::Done(done) => Finished { wall_micros: 0, ..done },
                    Response::Fault(fault) => return Err(format!("{name}: the host is at fault: {fault}")),
                };
                match &first {
                    Some(first) if *first != done => return Err(format!("{name} it is {done:?}, and was {first:?}")),
                    Some(_) => {}
                    None => first = Some(done),
                }
            }
        }
        first.ok_or_else(|| "there is no way to run it".to_owned())
    }
}
