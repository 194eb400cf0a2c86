//! Inference by tract: pure Rust, on the processor, no library to install.
//!
//! tract picks its kernels by what the processor has, and their bits differ, so [`pin_kernels`] takes away what is above the
//! process's [`CpuClass`] before the first kernel is picked. A model with open dimensions is compiled for each concrete
//! input shape, and the last few are kept. Inference cannot be interrupted: its fuel, paid before it runs, bounds it.

mod bounded;
mod tanh;

use std::{
    collections::HashSet,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use guest_sdk::abi::nn::TensorType;
use registry::{
    device::{Device, DeviceKind},
    job::Class,
};
use tract_onnx::{
    prelude::{
        DatumType, Framework, InferenceFact, InferenceModel, InferenceModelExt, IntoRunnable, IntoTValue, TVec,
        TractError, TypedFact, TypedModel, TypedRunnableModel, tract_linalg,
    },
    tract_core::ops::{
        TypedOp,
        cnn::{Deconv, MaxPool, PoolSpec, SumPool},
        logic::IfThenElse,
        scan::Scan,
    },
    tract_hir::{infer::Factoid, ops::unimpl::UnimplementedOp},
};

use self::bounded::{TooMuch, Unknown};
use super::{
    TensorDecl,
    backend::{Backend, BackendError, Graph, Signature, Tensor, draw, signature, word},
};
use crate::{limits, sandbox::CpuClass};

/// Version of tract; a test holds it against the lock file.
const TRACT_VERSION: &str = "0.23.9";

/// Takes instructions above `class` away from tract. Works only before its first kernel is picked.
pub(in crate::sandbox) fn pin_kernels(class: CpuClass) {
    let without = match class {
        _ if !cfg!(target_arch = "x86_64") => return,
        CpuClass::Avx2 => "-avx512f,-avx512vnni,-avx512fp16,-avxvnni,-amx-int8,-amx-bf16",
        CpuClass::Generic => "-avx,-avx2,-fma,-f16c,-avx512f,-avx512vnni,-avx512fp16,-avxvnni,-amx-int8,-amx-bf16",
    };
    tract_linalg::knobs::TRACT_CPU_ISA.set(Some(without.to_owned()));
    tract_linalg::knobs::TRACT_AMX_BF16.set(false);
}

/// The backend.
pub(in crate::sandbox) struct Tract {
    /// What its kernels were pinned to.
    pub(in crate::sandbox) class: CpuClass,
}

impl Backend for Tract {
    fn name(&self) -> &'static str {
        "tract"
    }

    fn version(&self) -> String {
        // Its own operators are part of what results depend on.
        format!("{TRACT_VERSION}+tanh")
    }

    fn class(&self) -> Class {
        Class::Exact
    }

    fn device(&self) -> Device {
        Device { kind: DeviceKind::Cpu, provider: "tract".to_owned(), name: self.class.word().to_owned() }
    }

    fn load(&self, bytes: &[u8]) -> Result<Arc<dyn Graph>, BackendError> {
        bounded::with_room(|| {
            let model = parse(bytes)?;
            if let Some(node) = model.nodes.iter().find(|node| node.op_is::<UnimplementedOp>()) {
                return Err(BackendError::Unsupported { what: format!("operator {}", node.op.name()) });
            }
            let inputs = (0..model.inputs.len()).map(|at| declare(&model, at, true)).collect::<Result<Vec<_>, _>>()?;
            let mut analysed = model.clone();
            let known = match analysed.analyse(false) {
                Ok(_) => true,
                Err(error) if error.root_cause().is::<TooMuch>() => return Err(failed(error)),
                // A model whose outputs cannot be told yet may still run once its inputs are known.
                Err(_) => false,
            };
            let described = if known { &analysed } else { &model };
            let outputs =
                (0..model.outputs.len()).map(|at| declare(described, at, false)).collect::<Result<Vec<_>, _>>()?;
            let file_bytes = bytes.len() as u64;
            Ok(Arc::new(Onnx { model, file_bytes, inputs, outputs, plans: Plans::default() }) as Arc<dyn Graph>)
        })
    }
}

/// Reads a model. Operators may share a name in a file; tract, where it is built with its own checks, wants each its own.
fn parse(mut bytes: &[u8]) -> Result<InferenceModel, BackendError> {
    let mut model = bounded::reader().model_for_read(&mut bytes).map_err(failed)?;
    let mut names = HashSet::new();
    for node in &mut model.nodes {
        while !names.insert(node.name.clone()) {
            node.name = format!("{}#{}", node.name, node.id);
        }
    }
    Ok(model)
}

fn failed(error: impl Into<TractError>) -> BackendError {
    let error = error.into();
    if let Some(TooMuch { what, value, bound }) = error.root_cause().downcast_ref() {
        return BackendError::TooLarge { what: (*what).to_owned(), value: *value, bound: *bound };
    }
    if let Some(unknown) = error.root_cause().downcast_ref::<Unknown>() {
        return BackendError::Unsupported { what: unknown.to_string() };
    }
    BackendError::Failed { detail: format!("{error:#}") }
}

fn broken(detail: &str) -> BackendError {
    BackendError::Failed { detail: detail.to_owned() }
}

/// Types that both sides have.
const TYPES: [(TensorType, DatumType); 6] = [
    (TensorType::F16, DatumType::F16),
    (TensorType::F32, DatumType::F32),
    (TensorType::F64, DatumType::F64),
    (TensorType::U8, DatumType::U8),
    (TensorType::I32, DatumType::I32),
    (TensorType::I64, DatumType::I64),
];

fn to_tract(element: TensorType) -> DatumType {
    TYPES.into_iter().find(|(own, _)| *own == element).map_or(DatumType::F32, |(_, theirs)| theirs)
}

fn from_tract(datum: DatumType) -> Result<TensorType, BackendError> {
    // Its own word for whole numbers that may be shapes.
    let datum = if datum == DatumType::TDim { DatumType::I64 } else { datum };
    let known = TYPES.into_iter().find(|(_, theirs)| *theirs == datum);
    known.map(|(own, _)| own).ok_or_else(|| BackendError::Unsupported { what: format!("tensors of {datum:?}") })
}

fn declare(model: &InferenceModel, at: usize, input: bool) -> Result<TensorDecl, BackendError> {
    let outlets = if input { &model.inputs } else { &model.outputs };
    let outlet = *outlets.get(at).ok_or_else(|| broken("no such input or output"))?;
    let fact = model.outlet_fact(outlet).map_err(failed)?;
    let element = fact.datum_type.concretize().map(from_tract).transpose()?.map(|element| word(element).to_owned());
    let dims = fact.shape.rank().concretize().map(|_| {
        let dim = |dim: &tract_onnx::tract_hir::infer::DimFact| dim.concretize()?.to_i64().ok()?.try_into().ok();
        fact.shape.dims().map(dim).collect()
    });
    let name = model.outlet_label(outlet).map_or_else(|| model.node(outlet.node).name.clone(), str::to_owned);
    Ok(TensorDecl { name: name.chars().take(200).collect(), element, dims })
}

/// An ONNX model and its compiled shapes.
struct Onnx {
    model: InferenceModel,
    file_bytes: u64,
    inputs: Vec<TensorDecl>,
    outputs: Vec<TensorDecl>,
    plans: Plans,
}

struct Plan {
    runnable: Arc<TypedRunnableModel>,
    /// Multiply-accumulates of one run, and elements produced. The same on every host.
    work: u64,
}

/// The compiled shapes of a model: each made once, however many ask at once, and the least recently used leave first. To look
/// one up takes a read lock, which runs on the same model share.
#[derive(Default)]
struct Plans {
    clock: AtomicU64,
    kept: RwLock<Vec<Arc<Kept>>>,
}

struct Kept {
    signature: Signature,
    plan: OnceLock<Result<Arc<Plan>, BackendError>>,
    used: AtomicU64,
}

impl Plans {
    fn get(&self, signature: &Signature) -> Arc<Kept> {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let find = |kept: &[Arc<Kept>]| {
            let found = kept.iter().find(|kept| kept.signature == *signature).map(Arc::clone)?;
            found.used.store(now, Ordering::Relaxed);
            Some(found)
        };
        if let Some(kept) = find(&self.kept.read().unwrap_or_else(PoisonError::into_inner)) {
            return kept;
        }
        let mut all = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = find(&all) {
            return kept;
        }
        let new = Kept { signature: signature.clone(), plan: OnceLock::new(), used: AtomicU64::new(now) };
        all.push(Arc::new(new));
        shrink(&mut all, limits::NN_PLANS_MAX);
        all.last().map_or_else(|| unreachable!("one was just added"), Arc::clone)
    }

    fn len(&self) -> usize {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn keep(&self, plans_max: usize) {
        shrink(&mut self.kept.write().unwrap_or_else(PoisonError::into_inner), plans_max);
    }
}

/// The last ones used, at the end the very last.
fn shrink(all: &mut Vec<Arc<Kept>>, plans_max: usize) {
    if let Some(extra) = all.len().checked_sub(plans_max) {
        all.sort_by_key(|kept| kept.used.load(Ordering::Relaxed));
        all.drain(..extra);
    }
}

impl Onnx {
    fn plan(&self, signature: &Signature) -> Result<Arc<Plan>, BackendError> {
        let kept = self.plans.get(signature);
        kept.plan.get_or_init(|| bounded::with_room(|| compile(&self.model, signature)).map(Arc::new)).clone()
    }
}

fn compile(model: &InferenceModel, signature: &Signature) -> Result<Plan, BackendError> {
    let mut plain = typed(model, signature)?;
    let work = work(&plain)?;
    tanh::replace(&mut plain);
    let runnable = plain.into_optimized().and_then(IntoRunnable::into_runnable).map_err(failed)?;
    Ok(Plan { runnable, work })
}

/// What one inference of a model takes, for backends that run it in another way: it costs the same on each.
pub(super) fn work_of(bytes: &[u8], signature: &Signature) -> Result<u64, BackendError> {
    bounded::with_room(|| {
        let model = parse(bytes)?;
        work(&typed(&model, signature)?)
    })
}

/// The model with concrete shapes, before any kernel is chosen.
fn typed(model: &InferenceModel, signature: &Signature) -> Result<TypedModel, BackendError> {
    let mut model = model.clone();
    for (at, (element, dims)) in signature.iter().enumerate() {
        let shape: TVec<usize> = dims.iter().map(|dim| *dim as usize).collect();
        model.set_input_fact(at, InferenceFact::dt_shape(to_tract(*element), shape)).map_err(failed)?;
    }
    // Outputs are whatever the concrete inputs make of them.
    for at in 0..model.outputs.len() {
        model.set_output_fact(at, InferenceFact::default()).map_err(failed)?;
    }
    let typed = model.into_typed().map_err(failed)?;
    bounded::check(&typed).map_err(failed)?;
    let plain = typed.into_decluttered().map_err(failed)?;
    bounded::check_run(&plain).map_err(failed)?;
    Ok(plain)
}

/// Counts on the decluttered model, before kernels are chosen, so that it is the same on every processor.
fn work(model: &TypedModel) -> Result<u64, BackendError> {
    let mut sum = 0u64;
    for node in &model.nodes {
        let inputs = model.node_input_facts(node.id).map_err(failed)?;
        let made = node.outputs.iter().map(|output| elements(&output.fact)).fold(0, u64::saturating_add);
        sum = sum.saturating_add(made).saturating_add(operations(&*node.op, &inputs, made)?);
        if let Some(scan) = node.op.downcast_ref::<Scan>() {
            let rounds = scan.iteration_count(&inputs).map_or(1, |rounds| number(rounds.to_i64()));
            sum = sum.saturating_add(work(&scan.body)?.saturating_mul(rounds));
        }
        if let Some(branch) = node.op.downcast_ref::<IfThenElse>() {
            sum = sum.saturating_add(work(&branch.then_body)?.max(work(&branch.else_body)?));
        }
    }
    Ok(sum)
}

/// What an operator does beside making `made` elements.
fn operations(op: &dyn TypedOp, inputs: &[&TypedFact], made: u64) -> Result<u64, BackendError> {
    let taken = || inputs.iter().map(|input| elements(input)).fold(0, u64::saturating_add);
    let kernel = |pool: &PoolSpec| pool.kernel_shape.iter().fold(1u64, |all, side| all.saturating_mul(*side as u64));
    if let Some(pool) = op.downcast_ref::<MaxPool>() {
        return Ok(made.saturating_mul(kernel(&pool.pool_spec)));
    }
    if let Some(pool) = op.downcast_ref::<SumPool>() {
        return Ok(made.saturating_mul(kernel(&pool.pool_spec)));
    }
    if let Some(conv) = op.downcast_ref::<Deconv>() {
        let each = kernel(&conv.pool_spec).saturating_mul((conv.pool_spec.output_channels / conv.group.max(1)) as u64);
        return Ok(inputs.first().map_or(0, |input| elements(input)).saturating_mul(each));
    }
    if op.name() == "NonMaxSuppression" {
        // Boxes are compared in pairs.
        return Ok(taken().saturating_mul(inputs.first().map_or(0, |boxes| elements(boxes) / 4)));
    }
    let mut sum = 0u64;
    let counts = op.cost(inputs).map_err(failed)?;
    if counts.is_empty() {
        return Ok(taken());
    }
    for (kind, count) in counts {
        if kind.is_compute() {
            sum = sum.saturating_add(number(count.to_i64()));
        }
    }
    Ok(sum)
}

fn elements(fact: &TypedFact) -> u64 {
    fact.shape.iter().fold(1, |all, dim| all.saturating_mul(number(dim.to_i64())))
}

/// A count that is still open after the inputs are concrete is not bounded: it costs all there is.
fn number<E>(count: Result<i64, E>) -> u64 {
    count.ok().and_then(|count| u64::try_from(count).ok()).unwrap_or(u64::MAX)
}

impl Graph for Onnx {
    fn inputs(&self) -> &[TensorDecl] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorDecl] {
        &self.outputs
    }

    fn held_bytes(&self) -> u64 {
        // The parsed model has its weights once, and each compiled shape may have them packed anew: one is as good as there.
        self.file_bytes.saturating_mul(self.plans.len().max(1) as u64 + 1)
    }

    fn shrink(&self, bytes_max: u64) {
        let copies = usize::try_from(bytes_max / self.file_bytes.max(1)).unwrap_or(usize::MAX);
        self.plans.keep(copies.saturating_sub(1));
    }

    fn open(&self, signature: &Signature, fuel: &mut u64) -> Result<(), BackendError> {
        draw(fuel, self.file_bytes.saturating_mul(limits::NN_SHAPE_FUEL_PER_BYTE))?;
        self.plan(signature).map(drop)
    }

    fn run(&self, inputs: &[Tensor], fuel: &mut u64) -> Result<Vec<Tensor>, BackendError> {
        let plan = self.plan(&signature(inputs))?;
        draw(fuel, plan.work)?;
        let mut values = TVec::new();
        for input in inputs {
            values.push(to_value(input)?.into_tvalue());
        }
        let outputs = plan.runnable.run(values).map_err(failed)?;
        outputs.iter().map(|output| from_value(output)).collect()
    }
}

fn to_value(input: &Tensor) -> Result<tract_onnx::prelude::Tensor, BackendError> {
    let shape: TVec<usize> = input.dims.iter().map(|dim| *dim as usize).collect();
    let mut tensor = tract_onnx::prelude::Tensor::zero_dt(to_tract(input.element), &shape).map_err(failed)?;
    let bytes = tensor.as_bytes_mut();
    if bytes.len() != input.data.len() {
        return Err(broken("tensor data does not fit its shape"));
    }
    bytes.copy_from_slice(&input.data);
    Ok(tensor)
}

fn from_value(value: &tract_onnx::prelude::Tensor) -> Result<Tensor, BackendError> {
    let dims = value.shape().iter().map(|dim| u32::try_from(*dim).map_err(failed)).collect::<Result<_, _>>()?;
    let element = from_tract(value.datum_type())?;
    let plain = value.cast_to_dt(to_tract(element)).map_err(failed)?;
    Ok(Tensor { element, dims, data: plain.as_bytes().to_vec() })
}

#[cfg(test)]
mod tests;
