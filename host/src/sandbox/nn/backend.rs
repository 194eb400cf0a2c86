//! The seam for inference backends: two small traits, one error. A backend is one file beside this one, and one line in
//! [`start`](super::start).

use std::{ffi::OsString, path::PathBuf, sync::Arc};

use registry::{device::Device, job::Class};
use serde::{Deserialize, Serialize};
use wasmtime::Engine;

pub(in crate::sandbox) use super::tensor::{BackendError, Signature, Tensor, signature};
use super::{TensorDecl, onnxruntime::library::SILENCE, referee::OwnModule};
#[cfg(target_os = "linux")]
use crate::sandbox::jail::Drivers;
use crate::sandbox::{LoadedModule, state::Watch};

/// What an inference may still take of its task.
pub(in crate::sandbox) trait Allowance {
    /// Fuel that is left.
    fn left(&mut self) -> &mut u64;
    /// Why the task may have to end before its fuel does: for backends that can stop in the middle of their work.
    fn watch(&self) -> Watch;
}

/// Fuel, and all the time there is.
impl Allowance for u64 {
    fn left(&mut self) -> &mut u64 {
        self
    }

    fn watch(&self) -> Watch {
        Watch::forever()
    }
}

/// Takes `amount` from the fuel that a task has left.
pub(in crate::sandbox) fn draw(allowance: &mut dyn Allowance, amount: u64) -> Result<(), BackendError> {
    let fuel = allowance.left();
    let left = fuel.checked_sub(amount);
    *fuel = left.unwrap_or(0);
    left.map(drop).ok_or(BackendError::Fuel)
}

/// What a sandbox infers with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum BackendOptions {
    /// tract: pure Rust, on the processor, exact.
    #[default]
    Tract,
    /// tract, compiled to wasm, in the sandbox: exact on every processor, and slower. What the portable profile has.
    Referee,
    /// ONNX Runtime: a library of this machine's, opened when the sandbox starts. One process has one such library.
    Onnxruntime {
        /// The library, e.g. `/usr/lib/libonnxruntime.so.1.32.0`.
        library: PathBuf,
        /// What runs the models.
        provider: Provider,
    },
}

impl BackendOptions {
    /// Whether it is a library of the machine's, which is asked in a process of its own alone.
    pub const fn is_native(&self) -> bool {
        matches!(self, Self::Onnxruntime { .. })
    }

    /// Memory in bytes that a model takes as soon as it is loaded, by the length of its file: what it is admitted by before
    /// anything is known of it.
    pub(in crate::sandbox) const fn session_bytes(&self, file_bytes: u64) -> u64 {
        match self {
            // Its weights as they are, and once more for the shapes of its first inference.
            Self::Tract => file_bytes.saturating_mul(2),
            // The referee's memory with the parsed model, and with one shape.
            Self::Referee => file_bytes.saturating_mul(4),
            // The file, which prices are computed from, and its weights.
            Self::Onnxruntime { .. } => file_bytes.saturating_mul(2),
        }
    }

    /// Whether it works through a driver of a GPU, which the jail has to leave open.
    pub const fn is_gpu(&self) -> bool {
        matches!(self, Self::Onnxruntime { provider: Provider::Cuda | Provider::Webgpu { .. }, .. })
    }

    /// What a process that runs it has in its environment: of the host's own what drivers are found by, and no more.
    pub(in crate::sandbox) fn env(&self) -> Vec<(OsString, OsString)> {
        let mut env = Vec::new();
        if self.is_native() {
            env.push((SILENCE.0.into(), SILENCE.1.into()));
        }
        if self.is_gpu() {
            env.extend(GPU_ENV.iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?))));
        }
        env
    }
}

#[cfg(target_os = "linux")]
impl BackendOptions {
    /// What the jail of a process that runs it leaves open, where it works through a driver.
    pub(in crate::sandbox) fn drivers(&self) -> Option<Drivers> {
        let Self::Onnxruntime { library, provider } = self else { return None };
        let plugin = match provider {
            Provider::Cpu => return None,
            Provider::Cuda => None,
            Provider::Webgpu { plugin } => Some(plugin),
        };
        let mut readable: Vec<PathBuf> = READABLE.iter().map(PathBuf::from).collect();
        // Libraries lie beside those that load them.
        for path in [Some(library), plugin].into_iter().flatten() {
            let own = path.canonicalize().ok();
            readable.extend(
                [Some(path), own.as_ref()].into_iter().flatten().filter_map(|path| path.parent()).map(PathBuf::from),
            );
        }
        for (name, value) in self.env() {
            let paths = std::env::split_paths(&value);
            match name.to_str() {
                Some("LD_LIBRARY_PATH") => readable.extend(paths),
                Some("VK_DRIVER_FILES" | "VK_ICD_FILENAMES") => {
                    readable.extend(paths.filter_map(|path| Some(path.parent()?.to_owned())));
                }
                _ => {}
            }
        }
        let devices = std::fs::read_dir("/dev").into_iter().flatten().flatten();
        let nvidia = devices.filter(|entry| entry.file_name().to_string_lossy().starts_with("nvidia"));
        let devices = DEVICES.iter().map(PathBuf::from).chain(nvidia.map(|entry| entry.path())).collect();
        Some(Drivers { readable, devices })
    }
}

/// What drivers read: the system's libraries and what they are told there, the machine's hardware, their own process.
#[cfg(target_os = "linux")]
const READABLE: &[&str] = &[
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/local/cuda",
    "/usr/local/nvidia",
    "/usr/share/vulkan",
    "/usr/share/nvidia",
    "/usr/share/drirc.d",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/vulkan",
    "/sys",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/devices",
    "/proc/modules",
    "/proc/version",
    "/proc/driver",
    "/proc/sys/vm",
];

/// Devices beside those of NVIDIA's driver.
#[cfg(target_os = "linux")]
const DEVICES: &[&str] = &["/dev/dri", "/dev/dxg", "/dev/null", "/dev/zero", "/dev/urandom"];

/// Variables by which drivers and their libraries are found, and devices chosen.
const GPU_ENV: &[&str] = &[
    "CUDA_VISIBLE_DEVICES",
    "LD_LIBRARY_PATH",
    "NVIDIA_VISIBLE_DEVICES",
    "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER",
    "VK_DRIVER_FILES",
    "VK_ICD_FILENAMES",
];

/// What ONNX Runtime runs models on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Provider {
    /// The processor, on one thread: the same bits from run to run.
    #[default]
    Cpu,
    /// An NVIDIA GPU, through CUDA. The library has to be built with it, and brings its own `libonnxruntime_providers_cuda.so`.
    Cuda,
    /// Any GPU with a Vulkan driver, through the WebGPU plug-in.
    Webgpu {
        /// The plug-in, `libonnxruntime_providers_webgpu.so`.
        plugin: PathBuf,
    },
}

impl Provider {
    /// Which it is.
    pub const fn kind(&self) -> ProviderKind {
        match self {
            Self::Cpu => ProviderKind::Cpu,
            Self::Cuda => ProviderKind::Cuda,
            Self::Webgpu { .. } => ProviderKind::Webgpu,
        }
    }

    /// A stable word, as devices and configuration have it.
    pub const fn word(&self) -> &'static str {
        self.kind().word()
    }
}

/// A [`Provider`], without what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderKind {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
    /// Any GPU with a Vulkan driver.
    Webgpu,
}

impl ProviderKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Cuda, Self::Webgpu];

    /// A stable word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Webgpu => "webgpu",
        }
    }

    /// What a backend that infers by it is called, e.g. `onnxruntime-cpu`.
    pub const fn backend(self) -> &'static str {
        match self {
            Self::Cpu => "onnxruntime-cpu",
            Self::Cuda => "onnxruntime-cuda",
            Self::Webgpu => "onnxruntime-webgpu",
        }
    }
}

/// Turns model files into graphs.
pub(in crate::sandbox) trait Backend: Send + Sync {
    /// One word.
    fn name(&self) -> &'static str;
    /// Version and whatever else its bits depend on.
    fn version(&self) -> String;
    /// The strongest class that its results have.
    fn class(&self) -> Class;
    /// What it runs on.
    fn device(&self) -> Device;
    /// Memory in bytes that models can use on what it runs on; the machine's, where it cannot be asked.
    fn memory_bytes(&self) -> u64 {
        super::measure::host_memory_bytes()
    }
    /// A module of ours that it runs models in.
    fn module(&self) -> Option<&'static OwnModule> {
        None
    }
    /// Gets that module, before the first model.
    fn equip(&self, _: &Engine, _: Arc<LoadedModule>) -> Result<(), BackendError> {
        Ok(())
    }
    /// Parses a model file.
    fn load(&self, bytes: &[u8]) -> Result<Arc<dyn Graph>, BackendError>;
}

/// A model that can run. What it draws of a task's fuel depends on the model and the inputs alone, never on what the host has
/// kept of earlier tasks, and is drawn before the work is done or while it is: a failure is paid too.
pub(in crate::sandbox) trait Graph: Send + Sync {
    /// What it takes, in order.
    fn inputs(&self) -> &[TensorDecl];
    /// What it gives, in order.
    fn outputs(&self) -> &[TensorDecl];
    /// Memory in bytes that it holds: weights, compiled shapes, arenas. It may grow as it is used.
    fn held_bytes(&self) -> u64;
    /// Lets go of what it can make again, least recently used first, until it holds no more than so many bytes or nothing is
    /// left to let go of.
    fn shrink(&self, _bytes_max: u64) {}
    /// Gets ready for inputs of these types and shapes. A task does it once for each, and pays as if nobody had before.
    fn open(&self, signature: &Signature, fuel: &mut dyn Allowance) -> Result<(), BackendError>;
    /// Runs it on inputs whose signature is open.
    fn run(&self, inputs: &[Tensor], fuel: &mut dyn Allowance) -> Result<Vec<Tensor>, BackendError>;
}
