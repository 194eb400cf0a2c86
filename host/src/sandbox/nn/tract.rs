//! Inference by tract: pure Rust, on the processor, no library to install.
//!
//! tract picks its kernels by what the processor has, and their bits differ, so [`pin_kernels`] takes away what is above the
//! process's [`CpuClass`] before the first kernel is picked. A model with open dimensions is compiled for each concrete
//! input shape, and the last few are kept. Inference cannot be interrupted: its fuel, paid before it runs, bounds it.

mod tanh;

use std::sync::{Arc, Mutex, PoisonError};

use guest_sdk::abi::nn::TensorType;
use registry::{
    device::{Device, DeviceKind},
    job::Class,
};
use tract_onnx::{
    prelude::{
        DatumType, Framework, InferenceFact, InferenceModel, InferenceModelExt, IntoRunnable, IntoTValue, TVec,
        TypedModel, TypedRunnableModel, tract_linalg,
    },
    tract_core::ops::scan::Scan,
    tract_hir::infer::Factoid,
};

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
        let model = tract_onnx::onnx().model_for_read(&mut &*bytes).map_err(failed)?;
        let inputs = (0..model.inputs.len()).map(|at| declare(&model, at, true)).collect::<Result<Vec<_>, _>>()?;
        let mut analysed = model.clone();
        // A model whose outputs cannot be told yet may still run once its inputs are known.
        let known = analysed.analyse(false).is_ok();
        let described = if known { &analysed } else { &model };
        let outputs =
            (0..model.outputs.len()).map(|at| declare(described, at, false)).collect::<Result<Vec<_>, _>>()?;
        let file_bytes = bytes.len() as u64;
        Ok(Arc::new(Onnx { model, file_bytes, inputs, outputs, plans: Mutex::new(Vec::new()) }))
    }
}

fn failed(error: impl std::fmt::Display) -> BackendError {
    BackendError::Failed { detail: format!("{error:#}") }
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
    let known = TYPES.into_iter().find(|(_, theirs)| *theirs == datum);
    known.map(|(own, _)| own).ok_or_else(|| BackendError::Unsupported { what: format!("tensors of {datum:?}") })
}

fn declare(model: &InferenceModel, at: usize, input: bool) -> Result<TensorDecl, BackendError> {
    let outlets = if input { &model.inputs } else { &model.outputs };
    let outlet = *outlets.get(at).ok_or_else(|| failed("no such input or output"))?;
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
    /// The most recently used last.
    plans: Mutex<Vec<(Signature, Arc<Plan>)>>,
}

struct Plan {
    runnable: Arc<TypedRunnableModel>,
    /// Multiply-accumulates of one run, and elements produced. The same on every host.
    work: u64,
}

impl Onnx {
    fn plan(&self, signature: &Signature) -> Result<Arc<Plan>, BackendError> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = plans.iter().position(|(kept, _)| kept == signature) {
            let entry = plans.remove(at);
            let plan = Arc::clone(&entry.1);
            plans.push(entry);
            return Ok(plan);
        }
        drop(plans);
        let plan = Arc::new(compile(&self.model, signature)?);
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        plans.push((signature.clone(), Arc::clone(&plan)));
        if plans.len() > limits::NN_PLANS_MAX {
            plans.remove(0);
        }
        Ok(plan)
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
    let model = tract_onnx::onnx().model_for_read(&mut &*bytes).map_err(failed)?;
    work(&typed(&model, signature)?)
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
    model.into_typed().and_then(TypedModel::into_decluttered).map_err(failed)
}

/// Counts on the decluttered model, before kernels are chosen, so that it is the same on every processor.
fn work(model: &TypedModel) -> Result<u64, BackendError> {
    let mut sum = 0u64;
    for node in &model.nodes {
        let inputs = model.node_input_facts(node.id).map_err(failed)?;
        for (kind, count) in node.op.cost(&inputs).map_err(failed)? {
            if kind.is_compute() {
                sum = sum.saturating_add(number(count.to_i64()));
            }
        }
        for output in &node.outputs {
            sum = sum
                .saturating_add(output.fact.shape.iter().fold(1, |all, dim| all.saturating_mul(number(dim.to_i64()))));
        }
        if let Some(scan) = node.op.downcast_ref::<Scan>() {
            let rounds = scan.iteration_count(&inputs).map_or(1, |rounds| number(rounds.to_i64()));
            sum = sum.saturating_add(work(&scan.body)?.saturating_mul(rounds));
        }
    }
    Ok(sum)
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
        // The parsed model has its weights once, and each compiled shape may have them packed anew.
        let plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
        self.file_bytes.saturating_mul(plans + 1)
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
            let shape: TVec<usize> = input.dims.iter().map(|dim| *dim as usize).collect();
            let mut tensor = tract_onnx::prelude::Tensor::zero_dt(to_tract(input.element), &shape).map_err(failed)?;
            let bytes = tensor.as_bytes_mut();
            if bytes.len() != input.data.len() {
                return Err(failed("tensor data does not fit its shape"));
            }
            bytes.copy_from_slice(&input.data);
            values.push(tensor.into_tvalue());
        }
        let outputs = plan.runnable.run(values).map_err(failed)?;
        outputs.iter().map(|output| from_value(output)).collect()
    }
}

fn from_value(value: &tract_onnx::prelude::Tensor) -> Result<Tensor, BackendError> {
    let dims = value.shape().iter().map(|dim| u32::try_from(*dim).map_err(failed)).collect::<Result<_, _>>()?;
    Ok(Tensor { element: from_tract(value.datum_type())?, dims, data: value.as_bytes().to_vec() })
}
