//! The seam for inference backends: two small traits, one error. A backend is one file beside this one, and one line in
//! [`start`](super::start).

use std::{ffi::OsString, path::PathBuf, sync::Arc};

use guest_sdk::abi::nn::TensorType;
use registry::{device::Device, job::Class};
use serde::{Deserialize, Serialize};

use super::{TensorDecl, onnxruntime::library::SILENCE};
#[cfg(target_os = "linux")]
use crate::sandbox::jail::Drivers;

/// A tensor: elements in row-major order, little end first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sandbox) struct Tensor {
    pub(in crate::sandbox) element: TensorType,
    pub(in crate::sandbox) dims: Vec<u32>,
    pub(in crate::sandbox) data: Vec<u8>,
}

impl Tensor {
    /// Length of the data in bytes.
    pub(in crate::sandbox) fn bytes(&self) -> u64 {
        self.data.len() as u64
    }

    /// Whether type and shape are what the model declares.
    pub(in crate::sandbox) fn fits(&self, decl: &TensorDecl) -> bool {
        let element = decl.element.as_deref().is_none_or(|element| element == word(self.element));
        let dims = decl.dims.as_ref().is_none_or(|dims| {
            let fits = |(dim, own): (&Option<u32>, &u32)| dim.is_none_or(|dim| dim == *own);
            dims.len() == self.dims.len() && dims.iter().zip(&self.dims).all(fits)
        });
        element && dims
    }
}

/// The word for an element type.
pub(in crate::sandbox) const fn word(element: TensorType) -> &'static str {
    match element {
        TensorType::F16 => "f16",
        TensorType::F32 => "f32",
        TensorType::F64 => "f64",
        TensorType::U8 => "u8",
        TensorType::I32 => "i32",
        TensorType::I64 => "i64",
    }
}

/// Why a backend does not deliver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::sandbox) enum BackendError {
    /// It has no such operation or type.
    #[error("backend does not support {what}")]
    Unsupported { what: String },
    /// The model is malformed, or cannot run on these inputs.
    #[error("model fails: {detail}")]
    Failed { detail: String },
    /// It takes more memory than a model or an inference may.
    #[error("{what} is {value}, over the bound of {bound}")]
    TooLarge { what: String, value: u64, bound: u64 },
    /// It takes more fuel than the task has left.
    #[error("inference takes more fuel than is left")]
    Fuel,
    /// It panicked: nothing is known about it any more.
    #[error("backend panicked: {detail}")]
    Panic { detail: String },
}

/// Types and shapes of all inputs of a graph, in order: what a backend compiles a graph for.
pub(in crate::sandbox) type Signature = Vec<(TensorType, Vec<u32>)>;

/// The signature of these inputs.
pub(in crate::sandbox) fn signature(inputs: &[Tensor]) -> Signature {
    inputs.iter().map(|input| (input.element, input.dims.clone())).collect()
}

/// Takes `amount` from the fuel that a task has left.
pub(in crate::sandbox) fn draw(fuel: &mut u64, amount: u64) -> Result<(), BackendError> {
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
        if *self != Self::Tract {
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
    fn open(&self, signature: &Signature, fuel: &mut u64) -> Result<(), BackendError>;
    /// Runs it on inputs whose signature is open.
    fn run(&self, inputs: &[Tensor], fuel: &mut u64) -> Result<Vec<Tensor>, BackendError>;
}
