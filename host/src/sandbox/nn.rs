//! wasi-nn for core modules: six functions of our own over a small seam for backends.
//!
//! A guest opens a graph by its local name, makes a context, sets inputs, computes, and reads outputs. Preview 1 has no way
//! to close anything, so handles, shapes and tensor bytes have quotas. Bad pointers, tensors and names are error numbers.
//! A backend that panics as it infers ends the task as a fault of the host.
//!
//! **Models that a guest brings** (`load`) are for tasks of class `exact` on a backend whose bits are pinned: nobody could
//! publish a tolerance for a file that is no part of the job. They pass the same checks as any other, are gone with their task,
//! and stand by their hash in its record of inferences, so that whoever runs the module again finds the same.
//!
//! **Fuel.** An inference costs [`limits::NN_INFERENCE_FUEL`] and the model's work, and the first use of a graph with a shape
//! costs more, whether or not the host has the shape compiled. A native backend counts one unit for each multiply-accumulate
//! and each element that an operation produces, on the model with concrete shapes before any kernel is chosen, and
//! [`limits::NN_SHAPE_FUEL_PER_BYTE`] for each byte of the file; nothing runs that the fuel left does not pay for. A model that
//! a guest brings costs [`limits::NN_LOAD_FUEL_PER_BYTE`] before it is looked at, and [`limits::NN_LOAD_FUEL_PER_NODE`] before a
//! backend sees it, every time, whether or not it loads. The [`referee`] is compiled code as a task is, and what it burns is
//! drawn as it burns it.

pub(super) mod backend;
#[cfg(any(test, feature = "fuzzing"))]
pub mod direct;
pub(super) mod measure;
pub mod onnx;
pub(super) mod onnxruntime;
pub(super) mod preflight;
pub(super) mod record;
pub(super) mod referee;
pub(super) mod tensor;
pub(super) mod tract;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use guest_sdk::abi::nn::{ENCODING_ONNX, Errno, MODULE, TARGET_CPU, TARGET_TPU, TensorType};
use registry::id::{BlobHash, ModelHash};
use serde::{Deserialize, Serialize};
use wasmtime::{Caller, Linker};

pub use self::tensor::TensorDecl;
use self::{
    backend::{Backend, BackendError, BackendOptions, Graph, Signature, Tensor, signature},
    preflight::{ModelRefusal, model_preflight},
    record::Recorder,
};
use super::{
    CpuClass, LoadError,
    request::Inference,
    state::{Call, Fail, State, Stop, call},
};
use crate::limits;

/// Starts the backend that a sandbox infers with: one line for each.
pub(super) fn start(options: &BackendOptions, class: CpuClass) -> Result<Box<dyn Backend>, BackendError> {
    Ok(match options {
        BackendOptions::Tract => Box::new(tract::Tract { class }),
        BackendOptions::Referee => Box::new(referee::Referee::default()),
        BackendOptions::Onnxruntime { library, provider } => {
            Box::new(onnxruntime::Onnxruntime::start(library, provider)?)
        }
    })
}

/// Why a backend did not start.
pub(super) fn why(error: BackendError) -> String {
    match error {
        // No model had anything to do with it.
        BackendError::Failed { detail } => detail,
        error => error.to_string(),
    }
}

/// Has a backend open and read all that it will want to, before this process is jailed: a first inference of its own included.
pub(super) fn prepare(options: &BackendOptions, class: CpuClass) -> Result<(), BackendError> {
    if options.is_native() {
        measure::infer_once(&*start(options, class)?, options.is_gpu())?;
    }
    measure::host_memory_bytes();
    Ok(())
}

/// Opens a graph for the shapes that it declares, with one row where their number is open. A task pays for a shape whether or not it
/// is open, so that nobody can tell but by the time. Says whether anything was made.
pub(super) fn warm(graph: &dyn Graph) -> bool {
    let expected = graph.inputs().iter().map(|input| {
        let element = TensorType::ALL.into_iter().find(|known| input.element.as_deref() == Some(known.word()))?;
        let dims = input.dims.as_ref()?.iter().enumerate();
        let dims = dims.map(|(axis, dim)| dim.or((axis == 0).then_some(1))).collect::<Option<Vec<u32>>>()?;
        Some((element, dims))
    });
    let Some(expected) = expected.collect::<Option<Signature>>() else { return false };
    let mut fuel = limits::NN_WARM_FUEL_MAX;
    guarded(|| graph.open(&expected, &mut fuel)).is_ok()
}

/// A model that is loaded.
pub(super) struct NamedModel {
    pub(super) hash: ModelHash,
    pub(super) bytes: u64,
    pub(super) graph: Arc<dyn Graph>,
}

impl NamedModel {
    pub(super) fn info(&self) -> ModelInfo {
        ModelInfo {
            hash: self.hash,
            bytes: self.bytes,
            inputs: self.graph.inputs().to_vec(),
            outputs: self.graph.outputs().to_vec(),
        }
    }
}

/// What is known of a loaded model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelInfo {
    /// Its name.
    pub hash: ModelHash,
    /// Length of its file in bytes.
    pub bytes: u64,
    /// What it takes.
    pub inputs: Vec<TensorDecl>,
    /// What it gives.
    pub outputs: Vec<TensorDecl>,
}

/// Runs a backend's code, whose panics stay here. It has a stack, however deep the guest is that calls, and leaves the
/// processor as compiled code wants it.
fn guarded<T>(body: impl FnOnce() -> Result<T, BackendError>) -> Result<T, BackendError> {
    let body = || stacker::maybe_grow(limits::NN_STACK_BYTES, limits::NN_STACK_BYTES, body);
    let ended = catch_unwind(AssertUnwindSafe(body));
    clear_upper_halves();
    ended.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(BackendError::Panic { detail: text.unwrap_or("panicked").chars().take(200).collect() })
    })
}

/// tract's kernels end with something in the upper halves of the vector registers. Code without AVX, a guest's among it, runs
/// 40 times slower until they are cleared.
#[allow(unsafe_code, reason = "there is no safe way to say this one instruction")]
fn clear_upper_halves() {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx") {
        // SAFETY: the processor has the instruction, and no code that is compiled keeps anything there across a call.
        unsafe { std::arch::x86_64::_mm256_zeroupper() }
    }
}

fn short(text: &str) -> String {
    text.chars().take(300).collect()
}

/// Checks and parses a model file.
pub(super) fn load(backend: &dyn Backend, bytes: &[u8]) -> Result<Arc<dyn Graph>, LoadError> {
    model_preflight(bytes)?;
    guarded(|| backend.load(bytes)).map_err(|error| LoadError::Model { detail: short(&error.to_string()) })
}

/// A graph that a task opened.
struct Opened {
    model: Arc<NamedModel>,
    /// What it was opened for in this task, and whether it could be.
    open: Vec<(Signature, Result<(), Errno>)>,
}

/// An execution context.
struct Context {
    graph: usize,
    inputs: Vec<Option<Tensor>>,
    outputs: Vec<Tensor>,
}

/// What a task may bring models of its own for, and what it has brought.
struct Brought {
    backend: Arc<dyn Backend>,
    /// How often it tried: a file that does not load has cost the host its time too.
    tries: usize,
    /// Bytes of all of them, as files or as constants in memory, whichever is more.
    bytes: u64,
}

/// Everything that a task has open, and the record of what it inferred.
pub(super) struct Inferences {
    models: BTreeMap<String, Arc<NamedModel>>,
    /// None where models come by name alone.
    brought: Option<Brought>,
    graphs: Vec<Opened>,
    contexts: Vec<Context>,
    /// Bytes of all tensors that contexts hold.
    held: u64,
    record: Vec<Inference>,
    pub(super) recorder: Recorder,
}

impl Inferences {
    /// With the models of a task, and what it may load others with.
    pub(super) fn new(
        models: BTreeMap<String, Arc<NamedModel>>,
        loads_with: Option<Arc<dyn Backend>>,
        recorder: Recorder,
    ) -> Self {
        let brought = loads_with.map(|backend| Brought { backend, tries: 0, bytes: 0 });
        Self { models, brought, graphs: Vec::new(), contexts: Vec::new(), held: 0, record: Vec::new(), recorder }
    }

    /// Whether the task has opened nothing yet, nor tried to: preview 1 has no way to close what it has.
    pub(super) fn is_untouched(&self) -> bool {
        let brought = self.brought.as_ref().is_none_or(|brought| (brought.tries, brought.bytes) == (0, 0));
        brought && self.graphs.is_empty() && self.contexts.is_empty()
    }

    pub(super) fn into_record(self) -> (Vec<Inference>, Recorder) {
        (self.record, self.recorder)
    }

    fn context(&mut self, handle: u32) -> Result<&mut Context, Errno> {
        self.contexts.get_mut(handle as usize).ok_or(Errno::InvalidArgument)
    }

    /// Counts models that the task brings.
    fn brings(&mut self, tries: usize, bytes: u64) -> Result<(), Errno> {
        let brought = self.brought.as_mut().ok_or(Errno::UnsupportedOperation)?;
        let (tries, bytes) = (brought.tries.saturating_add(tries), brought.bytes.saturating_add(bytes));
        if tries > limits::NN_HANDLES_MAX || bytes > limits::NN_BROUGHT_BYTES_MAX {
            return Err(Errno::TooLarge);
        }
        (brought.tries, brought.bytes) = (tries, bytes);
        Ok(())
    }

    /// Replaces tensors worth `old` bytes by some worth `new`.
    fn hold(&mut self, old: u64, new: u64) -> Result<(), Errno> {
        let held = self.held.saturating_sub(old).saturating_add(new);
        if held > limits::NN_TENSOR_BYTES_MAX {
            return Err(Errno::TooLarge);
        }
        self.held = held;
        Ok(())
    }
}

impl From<Errno> for Fail {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno as u32)
    }
}

macro_rules! link {
    ($linker:ident, $($name:literal => $body:path, ($($arg:ident),*);)*) => {$(
        $linker.func_wrap(MODULE, $name, |caller: Caller<'_, State>, $($arg: u32),*| {
            call(caller, Errno::MissingMemory as u32, |call| $body(call, $($arg),*))
        })?;
    )*};
}

/// Adds the six functions.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    link!(linker,
        "load" => load_bytes, (builders, builders_len, encoding, target, out);
        "load_by_name" => load_by_name, (name, name_len, out);
        "init_execution_context" => init_execution_context, (graph, out);
        "set_input" => set_input, (context, index, tensor);
        "compute" => compute, (context);
        "get_output" => get_output, (context, index, buffer, buffer_len, written);
    );
    Ok(())
}

fn load_bytes(
    call: &mut Call<'_>,
    builders: u32,
    builders_len: u32,
    encoding: u32,
    target: u32,
    out: u32,
) -> Result<(), Fail> {
    call.memory.slice(out, 4)?;
    call.memory.slice(builders, builders_len.checked_mul(8).ok_or(Errno::MissingMemory)?)?;
    if encoding != ENCODING_ONNX {
        return Err(Errno::InvalidEncoding.into());
    }
    if target > TARGET_TPU {
        return Err(Errno::InvalidArgument.into());
    }
    // Backends whose bits are pinned are on the processor.
    if target != TARGET_CPU || call.state.nn.brought.is_none() {
        return Err(Errno::UnsupportedOperation.into());
    }
    // A model of ONNX has one part.
    if builders_len != 1 {
        return Err(Errno::InvalidArgument.into());
    }
    let (at, len) = (call.memory.read_u32(builders, 0)?, call.memory.read_u32(builders, 4)?);
    call.memory.slice(at, len)?;
    let handle = handle(call.state.nn.graphs.len())?;
    let model = bring(call, at, len)?;
    call.state.nn.graphs.push(Opened { model, open: Vec::new() });
    Ok(call.memory.write_u32(out, handle)?)
}

/// Loads the model in a guest's memory. Nothing of what the host keeps for other tasks is asked, so that it costs the same
/// everywhere; what this task has open already is the same everywhere too.
fn bring(call: &mut Call<'_>, at: u32, len: u32) -> Result<Arc<NamedModel>, Fail> {
    let bytes = u64::from(len);
    call.state.nn.brings(1, bytes)?;
    call.pay(bytes.saturating_mul(limits::NN_LOAD_FUEL_PER_BYTE))?;
    if let Some(stop) = call.state.interrupted() {
        return Err(stop.into());
    }
    let file = call.memory.slice(at, len)?;
    let facts = model_preflight(file).map_err(|refusal| unfit(&refusal))?;
    let (nodes, more) = (u64::from(facts.nodes), facts.constant_bytes.saturating_sub(bytes));
    call.state.nn.brings(0, more)?;
    call.pay(nodes.saturating_mul(limits::NN_LOAD_FUEL_PER_NODE))?;
    let file = call.memory.slice(at, len)?;
    let hash = ModelHash::of(file);
    let nn = &call.state.nn;
    if let Some(open) = nn.graphs.iter().find(|open| open.model.hash == hash) {
        return Ok(Arc::clone(&open.model));
    }
    let backend = Arc::clone(&nn.brought.as_ref().ok_or(Errno::UnsupportedOperation)?.backend);
    let graph = guarded(|| backend.load(file)).map_err(|error| match error {
        // The file is the guest's own, and what was made of it is gone.
        BackendError::Panic { .. } => Errno::RuntimeError.into(),
        error => failed(error),
    })?;
    Ok(Arc::new(NamedModel { hash, bytes, graph }))
}

/// What a guest is told of a file that no backend is given.
fn unfit(refusal: &ModelRefusal) -> Errno {
    match refusal {
        ModelRefusal::Malformed { .. } | ModelRefusal::ConstantLength { .. } => Errno::InvalidEncoding,
        ModelRefusal::TooLarge { .. } => Errno::TooLarge,
        ModelRefusal::ExternalData { .. }
        | ModelRefusal::ElementType { .. }
        | ModelRefusal::Sparse
        | ModelRefusal::Functions { .. }
        | ModelRefusal::Random { .. } => Errno::UnsupportedOperation,
    }
}

fn load_by_name(call: &mut Call<'_>, name: u32, name_len: u32, out: u32) -> Result<(), Fail> {
    call.memory.slice(out, 4)?;
    let name = call.memory.slice(name, name_len)?;
    if name_len > limits::NN_NAME_BYTES_MAX {
        return Err(Errno::TooLarge.into());
    }
    let name = std::str::from_utf8(name).map_err(|_| Errno::InvalidArgument)?;
    let nn = &mut call.state.nn;
    let model = Arc::clone(nn.models.get(name).ok_or(Errno::NotFound)?);
    let handle = handle(nn.graphs.len())?;
    nn.graphs.push(Opened { model, open: Vec::new() });
    Ok(call.memory.write_u32(out, handle)?)
}

fn init_execution_context(call: &mut Call<'_>, graph: u32, out: u32) -> Result<(), Fail> {
    call.memory.slice(out, 4)?;
    let nn = &mut call.state.nn;
    let graph = graph as usize;
    let opened = nn.graphs.get(graph).ok_or(Errno::InvalidArgument)?;
    let inputs = opened.model.graph.inputs().iter().map(|_| None).collect();
    let handle = handle(nn.contexts.len())?;
    nn.contexts.push(Context { graph, inputs, outputs: Vec::new() });
    Ok(call.memory.write_u32(out, handle)?)
}

fn handle(open: usize) -> Result<u32, Errno> {
    if open >= limits::NN_HANDLES_MAX { Err(Errno::TooLarge) } else { u32::try_from(open).map_err(|_| Errno::TooLarge) }
}

fn set_input(call: &mut Call<'_>, context: u32, index: u32, tensor: u32) -> Result<(), Fail> {
    let tensor = read_tensor(call, tensor)?;
    let nn = &mut call.state.nn;
    let (graph, old) = {
        let context = nn.context(context)?;
        let slot = context.inputs.get(index as usize).ok_or(Errno::InvalidArgument)?;
        (context.graph, slot.as_ref().map_or(0, Tensor::bytes))
    };
    let opened = nn.graphs.get(graph).ok_or(Errno::InvalidArgument)?;
    let decl = opened.model.graph.inputs().get(index as usize).ok_or(Errno::InvalidArgument)?;
    if !tensor.fits(decl) {
        return Err(Errno::InvalidArgument.into());
    }
    nn.hold(old, tensor.bytes())?;
    if let Some(slot) = nn.context(context)?.inputs.get_mut(index as usize) {
        *slot = Some(tensor);
    }
    Ok(())
}

/// The record of the specification: dimensions' pointer and number, type, data's pointer and length.
fn read_tensor(call: &mut Call<'_>, at: u32) -> Result<Tensor, Fail> {
    let (dims_at, rank) = (call.memory.read_u32(at, 0)?, call.memory.read_u32(at, 4)?);
    let element = TensorType::from_code(call.memory.read_u8(at, 8)?.into()).ok_or(Errno::InvalidArgument)?;
    let (data_at, data_len) = (call.memory.read_u32(at, 12)?, call.memory.read_u32(at, 16)?);
    if rank > limits::NN_RANK_MAX {
        return Err(Errno::TooLarge.into());
    }
    // The rank is small: four times it does not overflow.
    let dims: Vec<u32> = call
        .memory
        .slice(dims_at, rank * 4)?
        .chunks_exact(4)
        .map(|dim| u32::from_le_bytes(std::array::from_fn(|at| dim[at])))
        .collect();
    let elements = dims.iter().try_fold(1u64, |product, dim| product.checked_mul((*dim).into()));
    let bytes = elements.and_then(|elements| elements.checked_mul(element.element_bytes() as u64));
    call.memory.slice(data_at, data_len)?;
    if bytes != Some(data_len.into()) || data_len == 0 {
        return Err(Errno::InvalidArgument.into());
    }
    if u64::from(data_len) > limits::NN_TENSOR_BYTES_MAX {
        return Err(Errno::TooLarge.into());
    }
    call.pay_bytes(data_len.into())?;
    Ok(Tensor { element, dims, data: call.memory.slice(data_at, data_len)?.to_vec() })
}

fn compute(call: &mut Call<'_>, context: u32) -> Result<(), Fail> {
    call.pay(limits::NN_INFERENCE_FUEL)?;
    let nn = &mut call.state.nn;
    let Context { graph, inputs, outputs } = nn.context(context)?;
    let (graph, is_ready) = (*graph, inputs.iter().all(Option::is_some));
    // Whatever comes of this, the outputs of an earlier inference are not those of this one.
    let old = std::mem::take(outputs).iter().map(Tensor::bytes).sum();
    nn.hold(old, 0)?;
    if !is_ready {
        return Err(Errno::InvalidArgument.into());
    }
    if nn.record.len() >= limits::NN_INFERENCES_MAX {
        return Err(Errno::TooLarge.into());
    }
    if let Some(stop) = call.state.interrupted() {
        return Err(stop.into());
    }
    let nn = &mut call.state.nn;
    let model = nn.graphs.get(graph).ok_or(Errno::InvalidArgument)?.model.hash;
    // Lent to the backend without a copy; a context keeps its inputs.
    let inputs: Vec<Tensor> = std::mem::take(&mut nn.context(context)?.inputs).into_iter().flatten().collect();
    let input = hash(&inputs);
    let answered = record::observe(call, model, input, |call| {
        let model = opened(call, graph, signature(&inputs))?;
        guarded(|| model.graph.run(&inputs, call)).map_err(failed)
    });
    let nn = &mut call.state.nn;
    nn.context(context)?.inputs = inputs.into_iter().map(Some).collect();
    let outputs = answered?;
    nn.record.push(Inference { model, input, output: hash(&outputs) });
    nn.hold(0, outputs.iter().map(Tensor::bytes).sum())?;
    nn.context(context)?.outputs = outputs;
    Ok(())
}

/// The model of a graph, ready for inputs of this signature. One that it cannot be made ready for is tried once.
fn opened(call: &mut Call<'_>, graph: usize, signature: Signature) -> Result<Arc<NamedModel>, Fail> {
    let opened = call.state.nn.graphs.get(graph).ok_or(Errno::InvalidArgument)?;
    let model = Arc::clone(&opened.model);
    if let Some((_, ready)) = opened.open.iter().find(|(open, _)| *open == signature) {
        return Ok(ready.map(|()| model)?);
    }
    if opened.open.len() >= limits::NN_SHAPES_MAX {
        return Err(Errno::TooLarge.into());
    }
    let ready = match guarded(|| model.graph.open(&signature, call)) {
        Ok(()) => Ok(()),
        Err(error) => Err(refused(error)?),
    };
    if let Some(opened) = call.state.nn.graphs.get_mut(graph) {
        opened.open.push((signature, ready));
    }
    Ok(ready.map(|()| model)?)
}

/// A model that cannot run on these inputs is the guest's to handle; a backend that broke is not.
fn refused(error: BackendError) -> Result<Errno, Stop> {
    match error {
        BackendError::Fuel => Err(Stop::Fuel),
        BackendError::Interrupted { cancelled: true } => Err(Stop::Cancelled),
        BackendError::Interrupted { cancelled: false } => Err(Stop::Deadline),
        BackendError::Panic { .. } => Err(Stop::Backend(error.to_string())),
        BackendError::Unsupported { .. } => Ok(Errno::UnsupportedOperation),
        BackendError::TooLarge { .. } => Ok(Errno::TooLarge),
        BackendError::Failed { .. } => Ok(Errno::RuntimeError),
    }
}

fn failed(error: BackendError) -> Fail {
    refused(error).map_or_else(Fail::from, Fail::from)
}

fn get_output(
    call: &mut Call<'_>,
    context: u32,
    index: u32,
    buffer: u32,
    buffer_len: u32,
    written: u32,
) -> Result<(), Fail> {
    call.memory.slice(buffer, buffer_len)?;
    call.memory.slice(written, 4)?;
    let open = call.state.nn.context(context)?;
    let len = open.outputs.get(index as usize).ok_or(Errno::InvalidArgument)?.data.len();
    if len > buffer_len as usize {
        return Err(Errno::TooLarge.into());
    }
    call.pay_bytes(len as u64)?;
    let outputs = &call.state.nn.context(context)?.outputs;
    let data = &outputs.get(index as usize).ok_or(Errno::InvalidArgument)?.data;
    call.memory.write(buffer, data)?;
    Ok(call.memory.write_u32(written, u32::try_from(len).map_err(|_| Errno::TooLarge)?)?)
}

/// Hash of tensors: their number, then for each its type, rank, dimensions and data, numbers as 32 bits, little end first.
fn hash(tensors: &[Tensor]) -> BlobHash {
    let mut hasher = blake3::Hasher::new();
    let number = |hasher: &mut blake3::Hasher, number: u32| {
        hasher.update(&number.to_le_bytes());
    };
    let len = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
    hasher.update(b"quorate/tensors/1\0");
    number(&mut hasher, len(tensors.len()));
    for tensor in tensors {
        number(&mut hasher, tensor.element as u32);
        number(&mut hasher, len(tensor.dims.len()));
        for dim in &tensor.dims {
            number(&mut hasher, *dim);
        }
        hasher.update(&tensor.data);
    }
    BlobHash(*hasher.finalize().as_bytes())
}
