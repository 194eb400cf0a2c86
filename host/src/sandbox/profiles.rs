//! One sandbox for each engine profile. Few jobs ask for the portable one, so its sandbox starts with the first that does.

use std::sync::{Mutex, OnceLock, PoisonError};

use grid::flow::Engines;
use registry::job::Profile;

use super::{CompileStats, ProcessStats, Sandbox, SandboxError, SandboxOptions};

/// The sandboxes of one host, by profile.
#[derive(Debug)]
pub struct Sandboxes {
    native: Sandbox,
    portable: OnceLock<Sandbox>,
    starting: Mutex<()>,
    engines: Engines,
}

impl Sandboxes {
    /// Starts the native one.
    ///
    /// # Errors
    /// When it does not start.
    pub fn new(options: SandboxOptions) -> Result<Self, SandboxError> {
        let portable = SandboxOptions { profile: Profile::Portable, ..options.clone() };
        let portable = Sandbox::description_of(&portable)?.fingerprint();
        let native = Sandbox::new(SandboxOptions { profile: Profile::Native, ..options })?;
        let engines = Engines { native: native.fingerprint(), portable };
        Ok(Self { native, portable: OnceLock::new(), starting: Mutex::new(()), engines })
    }

    /// The sandbox for jobs of this profile.
    ///
    /// # Errors
    /// When it does not start.
    pub fn of(&self, profile: Profile) -> Result<&Sandbox, SandboxError> {
        if profile == Profile::Native {
            return Ok(&self.native);
        }
        // One starts it, the others wait for that.
        let _starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(portable) = self.portable.get() {
            return Ok(portable);
        }
        let options = SandboxOptions { profile, ..self.native.options().clone() };
        Ok(self.portable.get_or_init({
            let portable = Sandbox::new(options)?;
            || portable
        }))
    }

    /// What became of sandbox processes, and of modules, since the start.
    pub fn stats(&self) -> (ProcessStats, CompileStats) {
        let all = std::iter::once(&self.native).chain(self.portable.get());
        let each = all.map(|sandbox| (sandbox.process_stats(), sandbox.compile_stats()));
        each.fold(Default::default(), |(processes, compiles), (more, compiled)| (processes + more, compiles + compiled))
    }

    /// The one that most jobs take.
    pub fn native(&self) -> &Sandbox {
        &self.native
    }

    /// The engine of each profile.
    pub fn engines(&self) -> Engines {
        self.engines
    }
}
