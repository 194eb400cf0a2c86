//! Inference by ONNX Runtime: a library of this machine's, opened when the sandbox starts, on the processor or on a GPU.
//!
//! - [`find`]: where such a library may be. [`library`]: it is opened once in a process. [`raw`]: what its C interface alone
//!   tells. [`cpu`]: the processor by name. [`price`]: what an inference costs.
//!
//! **Same bits.** On the processor a session has one thread, runs its operators in the order of the file, does not spin, and
//! has its optimisation fixed: the same library on the same kind of processor gives the same bits from run to run, so its class
//! is [`Class::Homogeneous`]. Its kernels follow the processor and cannot be pinned; that is why the fingerprint names library,
//! processor and instructions. On a GPU the class is [`Class::Tolerant`].
//!
//! **Never another device.** A session for a GPU fails where the provider does not start, and one whose products and
//! convolutions were given to the processor after all is refused: shapes and indices may stay there, work may not.
//!
//! **Trust.** The library is the machine owner's; the models are anybody's. It is written in C++ and parses them, so hosts run
//! it in sandbox processes alone. [`super::preflight`] has looked at each file before: what is no ONNX model, or has its data
//! elsewhere, does not reach it.
//!
//! **Interruption.** Nothing inside stops an inference: a sandbox process is killed at the deadline.

pub(in crate::sandbox) mod cpu;
pub mod find;
pub(in crate::sandbox) mod library;
mod price;
mod raw;

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use guest_sdk::abi::nn::TensorType;
use half::f16;
use ort::{
    device::Device as OrtDevice,
    ep,
    memory::{AllocationDevice, Allocator, AllocatorType, DeviceType, MemoryInfo, MemoryType},
    session::{
        Session, SessionInputValue,
        builder::{AutoDevicePolicy, GraphOptimizationLevel, SessionBuilder},
    },
    value::{DynValue, Outlet, PrimitiveTensorElementType, Tensor as OrtTensor, TensorElementType, ValueType},
};
use registry::{
    device::{DEVICE_TEXT_BYTES_MAX, Device, DeviceKind},
    job::Class,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use self::library::Library;
use super::{
    TensorDecl,
    backend::{Allowance, Backend, BackendError, Graph, Provider, Signature, Tensor, draw, signature},
};
use crate::limits;

/// What sessions are built with, in a word for the fingerprint: it changes with [`Onnxruntime::builder`].
const SETTINGS: &str = "1 thread, optimised";
/// What the WebGPU plug-in calls its provider.
const WEBGPU: &str = "WebGpuExecutionProvider";
/// What the CUDA provider is called.
const CUDA: &str = "CUDAExecutionProvider";
/// Operators that are the work of a model: where one of them runs is where the model runs.
const WORK: &[&str] =
    &["MatMul", "Gemm", "Conv", "ConvTranspose", "FusedConv", "FusedMatMul", "FusedGemm", "LSTM", "GRU"];

/// The backend.
pub(in crate::sandbox) struct Onnxruntime {
    library: &'static Library,
    provider: Provider,
    device: Device,
    memory_bytes: Option<u64>,
}

impl Onnxruntime {
    /// Opens the library, if this process has not yet, and looks at the device.
    pub(in crate::sandbox) fn start(library: &Path, provider: &Provider) -> Result<Self, BackendError> {
        let library = library::open(library).map_err(failed)?;
        let (kind, name, memory_bytes) = match provider {
            Provider::Cpu => (DeviceKind::Cpu, cpu::own().name.clone(), None),
            Provider::Cuda => {
                let gpu = raw::cuda_device().map_err(failed)?;
                (DeviceKind::Gpu, text(&gpu.name), Some(gpu.memory_bytes))
            }
            Provider::Webgpu { plugin } => {
                library.plug_in("webgpu", plugin).map_err(failed)?;
                let device = webgpu_device(library)?;
                (DeviceKind::Gpu, webgpu_name(&device), None)
            }
        };
        let provider_word = if *provider == Provider::Cpu { "onnxruntime" } else { provider.word() };
        let device = Device { kind, provider: provider_word.to_owned(), name };
        Ok(Self { library, provider: provider.clone(), device, memory_bytes })
    }

    /// What every session is built with.
    fn builder(&self) -> Result<SessionBuilder, BackendError> {
        self.try_builder().map_err(failed)
    }

    fn try_builder(&self) -> Result<SessionBuilder, ort::Error> {
        let builder = Session::builder(&self.library.environment)?
            .with_auto_device(AutoDevicePolicy::PreferCPU)?
            .with_intra_threads(1)?
            .with_inter_threads(1)?
            .with_parallel_execution(false)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            .with_optimization_level(GraphOptimizationLevel::Level3)?
            .with_deterministic_compute(true)?;
        let kept = ("session.record_ep_graph_assignment_info", "1");
        match &self.provider {
            Provider::Cpu => Ok(builder),
            Provider::Cuda => Ok(builder
                .with_config_entry(kept.0, kept.1)?
                .with_execution_providers([ep::CUDA::default().build().error_on_failure()])?),
            Provider::Webgpu { .. } => {
                let devices = self.library.environment.devices().filter(is_webgpu).take(1);
                Ok(builder.with_config_entry(kept.0, kept.1)?.with_devices(devices, None)?)
            }
        }
    }

    fn session(&self, file: &[u8]) -> Result<Session, BackendError> {
        let session = self.builder()?.commit_from_memory(file).map_err(failed)?;
        let wanted = match self.provider {
            Provider::Cpu => return Ok(session),
            Provider::Cuda => CUDA,
            Provider::Webgpu { .. } => WEBGPU,
        };
        let assigned = raw::assignments(&session).map_err(failed)?;
        let elsewhere = assigned.iter().find(|(ep, operator)| ep != wanted && WORK.contains(&&**operator));
        if let Some((_, operator)) = elsewhere {
            let what = format!("{operator} of this model on the GPU, and would run it on the processor");
            return Err(BackendError::Unsupported { what });
        }
        if !assigned.iter().any(|(ep, _)| ep == wanted) {
            return Err(BackendError::Unsupported { what: "any operator of this model on the GPU".to_owned() });
        }
        Ok(session)
    }
}

fn is_webgpu(device: &OrtDevice<'_>) -> bool {
    device.ep().is_ok_and(|ep| ep == WEBGPU)
}

fn webgpu_device(library: &Library) -> Result<OrtDevice<'_>, BackendError> {
    let none = || failed("the WebGPU plug-in finds no GPU with a driver for Vulkan");
    library.environment.devices().find(is_webgpu).ok_or_else(none)
}

/// What a GPU is called, as far as the system tells. A driver that is software, which the plug-in takes where it is told to, is
/// called what it is.
fn webgpu_name(device: &OrtDevice<'_>) -> String {
    let hardware = device.hardware_device();
    if hardware.ty() == DeviceType::CPU {
        return text(&format!("software on {}", cpu::own().name));
    }
    let vendor = hardware.vendor().unwrap_or("unknown vendor");
    let properties = raw::properties(device);
    let named = ["Description", "description", "name", "Name"];
    let name = properties.iter().find(|(key, value)| named.contains(&&**key) && !value.is_empty());
    match name {
        Some((_, name)) => text(name),
        None => text(&format!("{vendor} {:04x}", hardware.id())),
    }
}

/// A name as devices have them: one short line.
fn text(name: &str) -> String {
    let plain = name.chars().filter(|char| (' '..='~').contains(char));
    let text: String = plain.take(DEVICE_TEXT_BYTES_MAX).collect();
    if text.trim().is_empty() { "unknown".to_owned() } else { text.trim().to_owned() }
}

impl Backend for Onnxruntime {
    fn name(&self) -> &'static str {
        "onnxruntime"
    }

    fn version(&self) -> String {
        match self.provider {
            Provider::Cpu => format!("{} ({SETTINGS}, {})", self.library.version, cpu::own().instructions),
            Provider::Cuda | Provider::Webgpu { .. } => format!("{} ({SETTINGS})", self.library.version),
        }
    }

    fn class(&self) -> Class {
        match self.provider {
            Provider::Cpu => Class::Homogeneous,
            Provider::Cuda | Provider::Webgpu { .. } => Class::Tolerant,
        }
    }

    fn device(&self) -> Device {
        self.device.clone()
    }

    fn memory_bytes(&self) -> u64 {
        self.memory_bytes.unwrap_or_else(super::measure::host_memory_bytes)
    }

    fn load(&self, bytes: &[u8]) -> Result<Arc<dyn Graph>, BackendError> {
        let session = self.session(bytes)?;
        let inputs = session.inputs().iter().map(declare).collect::<Result<_, _>>()?;
        let outputs = session.outputs().iter().map(declare).collect::<Result<_, _>>()?;
        let arenas = self.arenas(&session);
        let arena_bytes = AtomicU64::new(arenas.iter().map(arena_bytes).sum());
        Ok(Arc::new(Model {
            file: bytes.to_vec(),
            ready: Mutex::new(Ready { arenas, session }),
            inputs,
            outputs,
            prices: Mutex::default(),
            arena_bytes,
            grows: AtomicBool::new(false),
        }))
    }
}

impl Onnxruntime {
    /// What a session takes its memory from, where that keeps count.
    fn arenas(&self, session: &Session) -> Vec<Allocator> {
        let further = match self.provider {
            Provider::Cpu => None,
            Provider::Cuda => Some(AllocationDevice::CUDA),
            Provider::Webgpu { .. } => Some(AllocationDevice::WEBGPU_BUFFER),
        };
        let arena = |device| {
            let info = MemoryInfo::new(device, 0, AllocatorType::Device, MemoryType::Default).ok()?;
            Allocator::new(session, info).ok()
        };
        std::iter::once(AllocationDevice::CPU).chain(further).filter_map(arena).collect()
    }
}

/// Bytes that an arena has taken from the system: weights, and the largest inference so far.
fn arena_bytes(arena: &Allocator) -> u64 {
    let statistics = raw::statistics(arena);
    let total = statistics.iter().find(|(name, _)| name == "TotalAllocated");
    total.and_then(|(_, bytes)| bytes.parse().ok()).unwrap_or(0)
}

fn failed(error: impl std::fmt::Display) -> BackendError {
    BackendError::Failed { detail: error.to_string() }
}

/// Types that both sides have.
const TYPES: [(TensorType, TensorElementType); 6] = [
    (TensorType::F16, TensorElementType::Float16),
    (TensorType::F32, TensorElementType::Float32),
    (TensorType::F64, TensorElementType::Float64),
    (TensorType::U8, TensorElementType::Uint8),
    (TensorType::I32, TensorElementType::Int32),
    (TensorType::I64, TensorElementType::Int64),
];

fn from_ort(value: &ValueType) -> Result<TensorType, BackendError> {
    let unsupported = || BackendError::Unsupported { what: format!("values of type {value}") };
    let element = value.tensor_type().ok_or_else(unsupported)?;
    TYPES.into_iter().find(|(_, theirs)| *theirs == element).map(|(own, _)| own).ok_or_else(unsupported)
}

fn declare(outlet: &Outlet) -> Result<TensorDecl, BackendError> {
    let element = from_ort(outlet.dtype())?;
    let dims = outlet.dtype().tensor_shape().map(|shape| shape.iter().map(|dim| u32::try_from(*dim).ok()).collect());
    let name = outlet.name().chars().take(200).collect();
    Ok(TensorDecl { name, element: Some(element.word().to_owned()), dims })
}

/// A model and its session.
struct Model {
    file: Vec<u8>,
    /// The library's own sessions may be shared, the crate's may not; a sandbox process has one task at a time anyway.
    ready: Mutex<Ready>,
    inputs: Vec<TensorDecl>,
    outputs: Vec<TensorDecl>,
    /// What one inference costs, the most recently used last.
    prices: Mutex<Vec<(Signature, u64)>>,
    /// What its arenas had when it last ran with a shape for the first time.
    arena_bytes: AtomicU64,
    /// Whether its next run has a shape that is new.
    grows: AtomicBool,
}

/// A session. Its arenas go first.
struct Ready {
    arenas: Vec<Allocator>,
    session: Session,
}

impl Model {
    fn price(&self, signature: &Signature) -> Result<u64, BackendError> {
        let mut prices = self.prices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = prices.iter().position(|(known, _)| known == signature) {
            let known = prices.remove(at);
            let price = known.1;
            prices.push(known);
            return Ok(price);
        }
        drop(prices);
        self.grows.store(true, Ordering::Relaxed);
        let price = price::work(&self.file, signature)?;
        let mut prices = self.prices.lock().unwrap_or_else(PoisonError::into_inner);
        prices.push((signature.clone(), price));
        if prices.len() > limits::NN_PLANS_MAX {
            prices.remove(0);
        }
        Ok(price)
    }
}

impl Graph for Model {
    fn inputs(&self) -> &[TensorDecl] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorDecl] {
        &self.outputs
    }

    fn held_bytes(&self) -> u64 {
        // The file, and the session: its weights, packed anew for its kernels or not, and the most that an inference took.
        let file = self.file.len() as u64;
        file.saturating_add(self.arena_bytes.load(Ordering::Relaxed).max(file))
    }

    fn open(&self, signature: &Signature, fuel: &mut dyn Allowance) -> Result<(), BackendError> {
        draw(fuel, (self.file.len() as u64).saturating_mul(limits::NN_SHAPE_FUEL_PER_BYTE))?;
        self.price(signature).map(drop)
    }

    fn run(&self, inputs: &[Tensor], fuel: &mut dyn Allowance) -> Result<Vec<Tensor>, BackendError> {
        draw(fuel, self.price(&signature(inputs))?)?;
        let values = inputs.iter().map(to_value).collect::<Result<Vec<SessionInputValue<'_>>, _>>()?;
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let Ready { arenas, session } = &mut *ready;
        let outputs = session.run(values.as_slice()).map_err(failed)?;
        if self.grows.swap(false, Ordering::Relaxed) {
            self.arena_bytes.store(arenas.iter().map(arena_bytes).sum(), Ordering::Relaxed);
        }
        outputs.values().map(|value| from_value(&value)).collect()
    }
}

/// An element of a tensor, which lies in memory as it does in a file.
trait Element: PrimitiveTensorElementType + FromBytes + IntoBytes + Immutable + std::fmt::Debug {}

impl<T: PrimitiveTensorElementType + FromBytes + IntoBytes + Immutable + std::fmt::Debug> Element for T {}

#[cfg(target_endian = "big")]
compile_error!("tensors have the little end first, here and for guests");

fn to_value(tensor: &Tensor) -> Result<SessionInputValue<'static>, BackendError> {
    match tensor.element {
        TensorType::F16 => filled::<f16>(tensor),
        TensorType::F32 => filled::<f32>(tensor),
        TensorType::F64 => filled::<f64>(tensor),
        TensorType::U8 => filled::<u8>(tensor),
        TensorType::I32 => filled::<i32>(tensor),
        TensorType::I64 => filled::<i64>(tensor),
    }
}

fn filled<T: Element>(tensor: &Tensor) -> Result<SessionInputValue<'static>, BackendError> {
    let dims: Vec<i64> = tensor.dims.iter().map(|dim| i64::from(*dim)).collect();
    let mut value = OrtTensor::<T>::new(&Allocator::default(), dims).map_err(failed)?;
    let (_, elements) = value.try_extract_tensor_mut::<T>().map_err(failed)?;
    if elements.len().checked_mul(size_of::<T>()) != Some(tensor.data.len()) {
        return Err(failed("tensor data does not fit its shape"));
    }
    elements.as_mut_bytes().copy_from_slice(&tensor.data);
    Ok(value.into())
}

fn from_value(value: &DynValue) -> Result<Tensor, BackendError> {
    let element = from_ort(value.dtype())?;
    match element {
        TensorType::F16 => extracted::<f16>(value, element),
        TensorType::F32 => extracted::<f32>(value, element),
        TensorType::F64 => extracted::<f64>(value, element),
        TensorType::U8 => extracted::<u8>(value, element),
        TensorType::I32 => extracted::<i32>(value, element),
        TensorType::I64 => extracted::<i64>(value, element),
    }
}

fn extracted<T: Element>(value: &DynValue, element: TensorType) -> Result<Tensor, BackendError> {
    let (shape, elements) = value.try_extract_tensor::<T>().map_err(failed)?;
    let dims = shape.iter().map(|dim| u32::try_from(*dim).map_err(failed)).collect::<Result<_, _>>()?;
    Ok(Tensor { element, dims, data: elements.as_bytes().to_vec() })
}

#[cfg(test)]
mod tests;
