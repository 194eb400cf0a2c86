//! What this machine has for running tasks, found out by trying: what `quorate doctor` says.
//!
//! - [`Machine`]: the processor, memory, the kernel.
//! - [`JailLayer`]: what the kernel gives of each layer around a task, as the first sandbox process tells at every start of a host.
//! - [`Backend`]: everything that models may run on. Each is started as a host starts it, in a jailed process, and multiplies two
//!   matrices there. So nothing is believed that was not seen, and a library that crashes takes down that process alone.
//!
//! What is missing is one line that says what to do. Only a machine where no task would run is an error.

use std::{
    fs,
    path::{Path, PathBuf},
};

use registry::{device::Device, id::EngineFingerprint, job::Class};
use serde::Serialize;

use crate::{
    calibrate::backends::{self, AtHand},
    sandbox::{
        self, BackendOptions, CpuClass, Measured, Provider, ProviderKind, Sandbox, SandboxError, SandboxOptions,
        find::{self, Absent, Wanted},
    },
};

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Version of this program.
    pub version: &'static str,
    /// The machine.
    pub machine: Machine,
    /// What is around tasks; none where no sandbox process starts.
    pub jail: Vec<JailLayer>,
    /// What models run on, the one that every host has first.
    pub backends: Vec<Backend>,
    /// Whether tasks run here at all.
    pub runs: bool,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// E.g. `x86_64`.
    pub architecture: &'static str,
    /// What its processor calls itself.
    pub processor: String,
    /// The instruction set that tasks are compiled for: see [`CpuClass`].
    pub cpu_class: CpuClass,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory in bytes; 0 where the system does not tell.
    pub memory_bytes: u64,
    /// E.g. `linux 6.12.1`.
    pub system: String,
}

/// What the kernel gives of one layer of the jail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JailLayer {
    /// Its word: see [`sandbox::jail`].
    pub layer: &'static str,
    /// What it lacks; nothing when it is complete.
    pub lacks: Option<String>,
}

/// One thing that models may run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// Its word, as `run --backend` and `calibrate --backend` take it.
    pub name: String,
    /// The library, where it needs one that is found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub library: Option<PathBuf>,
    /// How it was found: `environment`, `installed`, `system` or `python`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<&'static str>,
    /// Whether it runs.
    #[serde(flatten)]
    pub state: State,
    /// What to do, in one line, if there is anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// Whether a backend runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// It has started and given a right matrix product.
    Runs {
        /// Name and version, and what else its results depend on.
        version: String,
        /// The strongest class that its results have.
        class: Class,
        /// What it runs on.
        device: Option<Device>,
        /// Memory in bytes that this has for models.
        memory_bytes: u64,
        /// Millions of floating-point operations a second in that product.
        mflops: u64,
        /// The engine that a host would offer.
        engine: EngineFingerprint,
    },
    /// It is there and does not run.
    Fails {
        /// Why.
        why: String,
    },
    /// It is not there.
    Missing {
        /// What.
        why: String,
    },
}

impl State {
    /// A stable word.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Runs { .. } => "runs",
            Self::Fails { .. } => "fails",
            Self::Missing { .. } => "missing",
        }
    }

    const fn runs(&self) -> bool {
        matches!(self, Self::Runs { .. })
    }
}

/// Looks at this machine. Takes some seconds.
pub fn look() -> Report {
    let (tract, jail) = tract();
    let mut backends = tract;
    let runs = backends.iter().any(|backend| backend.state.runs());
    for kind in ProviderKind::ALL {
        backends.extend(onnxruntime(kind));
    }
    Report { version: env!("CARGO_PKG_VERSION"), machine: machine(), jail, backends, runs }
}

fn machine() -> Machine {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Machine {
        architecture: std::env::consts::ARCH,
        processor: sandbox::processor().to_owned(),
        cpu_class: CpuClass::detect(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: sandbox::memory_bytes(),
        system: format!("{} {}", std::env::consts::OS, release.trim()).trim().to_owned(),
    }
}

/// The backend that every host has, with each class of kernels; and what is around its process.
fn tract() -> (Vec<Backend>, Vec<JailLayer>) {
    let mut jail = Vec::new();
    let tried = backends::tract().into_iter().map(|AtHand { name, options }| {
        let started = Sandbox::new(options);
        if let (Ok(sandbox), true) = (&started, jail.is_empty()) {
            jail = layers(sandbox);
        }
        let state = measured(started);
        let advice = match &state {
            State::Fails { .. } => {
                Some("no host starts here as it is: see why, and SECURITY.md for what a host needs of the kernel")
            }
            State::Runs { .. } | State::Missing { .. } => None,
        };
        Backend { name, library: None, found: None, state, advice: advice.map(str::to_owned) }
    });
    let tried = tried.collect();
    (tried, jail)
}

/// What the kernel gave to a sandbox's first process.
#[cfg(target_os = "linux")]
fn layers(sandbox: &Sandbox) -> Vec<JailLayer> {
    let lacks = |layer| sandbox.gaps().iter().find(|gap| gap.layer == layer).map(|gap| gap.detail.clone());
    sandbox::jail::Layer::ALL.map(|layer| JailLayer { layer: layer.word(), lacks: lacks(layer) }).into()
}

#[cfg(not(target_os = "linux"))]
fn layers(_: &Sandbox) -> Vec<JailLayer> {
    Vec::new()
}

/// What became of starting one, and what it measures.
fn measured(started: Result<Sandbox, SandboxError>) -> State {
    let tried = started.and_then(|sandbox| Ok((sandbox.measure()?, sandbox)));
    match tried {
        Ok((Measured { memory_bytes, mflops }, sandbox)) => {
            let about = sandbox.describe();
            State::Runs {
                version: about.backend.clone(),
                class: about.class,
                device: about.device.clone(),
                memory_bytes,
                mflops,
                engine: about.fingerprint(),
            }
        }
        // The rest of the sentence would send people here.
        Err(SandboxError::Backend { detail }) => State::Fails { why: detail },
        Err(error) => State::Fails { why: error.to_string() },
    }
}

/// Every library that may run models by a provider, up to the first that does.
fn onnxruntime(kind: ProviderKind) -> Vec<Backend> {
    let wanted = if kind == ProviderKind::Cuda { Wanted::Cuda } else { Wanted::Library };
    let libraries = find::find(wanted);
    let plugin = find::find(Wanted::Webgpu).into_iter().next().map(|found| found.path);
    let provider = match (kind, plugin) {
        (ProviderKind::Cpu, _) => Provider::Cpu,
        (ProviderKind::Cuda, _) => Provider::Cuda,
        (ProviderKind::Webgpu, Some(plugin)) => Provider::Webgpu { plugin },
        (ProviderKind::Webgpu, None) => return vec![missing(kind, Absent::Webgpu)],
    };
    if libraries.is_empty() {
        return vec![missing(kind, if kind == ProviderKind::Cuda { Absent::Cuda } else { Absent::Library })];
    }
    let mut tried: Vec<Backend> = Vec::new();
    for found in libraries {
        let backend = BackendOptions::Onnxruntime { library: found.path.clone(), provider: provider.clone() };
        let state = measured(Sandbox::new(SandboxOptions { slots_max: 1, ..backends::alone(backend) }));
        let is_first = tried.is_empty();
        let advice = advice(kind, &found.path, &state, is_first);
        let runs = state.runs();
        let (library, found) = (Some(found.path), Some(found.place.word()));
        tried.push(Backend { name: kind.backend().to_owned(), library, found, state, advice });
        if runs {
            break;
        }
    }
    tried
}

fn missing(kind: ProviderKind, absent: Absent) -> Backend {
    let said = absent.to_string();
    // What is absent, and what to do.
    let (why, advice) = said.split_once(": ").unwrap_or((&said, ""));
    let advice = if kind == ProviderKind::Cuda && !has_nvidia() { NO_NVIDIA } else { advice };
    Backend {
        name: kind.backend().to_owned(),
        library: None,
        found: None,
        state: State::Missing { why: why.to_owned() },
        advice: Some(advice.to_owned()),
    }
}

/// What there is to do where CUDA has nothing to run on.
const NO_NVIDIA: &str = "nothing to do: this machine has no driver of an NVIDIA GPU";

/// Whether the driver of an NVIDIA GPU is loaded.
fn has_nvidia() -> bool {
    ["/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg"].iter().any(|path| Path::new(path).exists())
}

/// What to do about a backend whose library was found.
fn advice(kind: ProviderKind, library: &Path, state: &State, is_first: bool) -> Option<String> {
    let said = match (state, kind) {
        (State::Runs { .. }, _) if is_first => {
            format!("to offer it: [host.inference] onnxruntime = \"auto\", providers = [\"{}\"]", kind.word())
        }
        (State::Runs { .. }, _) => format!(
            "to offer it: [host.inference] onnxruntime = \"{}\", providers = [\"{}\"]; \"auto\" takes the first that is found",
            library.display(),
            kind.word()
        ),
        (_, ProviderKind::Cpu) => "replace the library: tools/install-onnxruntime, or set QUORATE_ONNXRUNTIME to another".to_owned(),
        (_, ProviderKind::Cuda) if !has_nvidia() => NO_NVIDIA.to_owned(),
        (_, ProviderKind::Cuda) => {
            "CUDA needs an NVIDIA GPU with its driver, CUDA 13 and cuDNN 9, and LD_LIBRARY_PATH where these are not the system's: see docs/gpu.md".to_owned()
        }
        (_, ProviderKind::Webgpu) => {
            "WebGPU needs a GPU with a Vulkan driver and libvulkan.so.1 (on Debian: libvulkan1, mesa-vulkan-drivers): see docs/gpu.md".to_owned()
        }
    };
    Some(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_says_what_to_do() {
        let backend = missing(ProviderKind::Webgpu, Absent::Webgpu);
        assert_eq!(backend.state, State::Missing { why: "no WebGPU plug-in is found".to_owned() });
        assert!(backend.advice.unwrap().contains("tools/install-onnxruntime webgpu"));
    }

    #[test]
    fn a_library_that_is_not_the_first_is_named_in_the_configuration() {
        let runs = State::Runs {
            version: "onnxruntime 1.32.0".into(),
            class: Class::Homogeneous,
            device: None,
            memory_bytes: 1,
            mflops: 1,
            engine: EngineFingerprint([1; 32]),
        };
        let said = |is_first| advice(ProviderKind::Cpu, Path::new("/a/lib.so"), &runs, is_first).unwrap();
        assert!(said(true).contains("onnxruntime = \"auto\", providers = [\"cpu\"]"), "{}", said(true));
        assert!(said(false).contains("onnxruntime = \"/a/lib.so\""), "{}", said(false));
    }
}
