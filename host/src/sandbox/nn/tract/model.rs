//! From an ONNX file to a model that tract runs, and tensors on their way in and out.
//!
//! The native backend keeps what this makes, and the referee in its sandbox is this file compiled to wasm: both read the same
//! models, refuse the same ones, and have the same operators.

use std::{collections::HashSet, sync::Arc};

use guest_sdk::abi::nn::TensorType;
use tract_onnx::{
    prelude::{
        self, DatumType, Framework, InferenceFact, InferenceModel, InferenceModelExt, IntoRunnable, IntoTValue, TVec,
        TractError, TypedModel, TypedRunnableModel,
    },
    tract_hir::{
        infer::{DimFact, Factoid},
        ops::unimpl::UnimplementedOp,
    },
};

use super::{
    bounded::{self, TooMuch, Unknown},
    tanh,
};
use crate::sandbox::nn::tensor::{BackendError, Signature, Tensor, TensorDecl};

/// A model as its file has it, and what it declares.
pub(in crate::sandbox) struct Parsed {
    pub(in crate::sandbox) model: InferenceModel,
    pub(in crate::sandbox) inputs: Vec<TensorDecl>,
    pub(in crate::sandbox) outputs: Vec<TensorDecl>,
}

/// Reads a model file.
pub(in crate::sandbox) fn parse(bytes: &[u8]) -> Result<Parsed, BackendError> {
    bounded::with_room(|| {
        let model = read(bytes)?;
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
        Ok(Parsed { model, inputs, outputs })
    })
}

/// Reads a model. Operators may share a name in a file; tract, where it is built with its own checks, wants each its own.
pub(in crate::sandbox) fn read(mut bytes: &[u8]) -> Result<InferenceModel, BackendError> {
    let mut model = bounded::reader().model_for_read(&mut bytes).map_err(failed)?;
    let mut names = HashSet::new();
    for node in &mut model.nodes {
        while !names.insert(node.name.clone()) {
            node.name = format!("{}#{}", node.name, node.id);
        }
    }
    Ok(model)
}

/// The model with concrete shapes, before any kernel is chosen.
pub(in crate::sandbox) fn typed(model: &InferenceModel, signature: &Signature) -> Result<TypedModel, BackendError> {
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

/// The model with the kernels that it runs on.
pub(in crate::sandbox) fn runnable(mut plain: TypedModel) -> Result<Arc<TypedRunnableModel>, BackendError> {
    tanh::replace(&mut plain);
    plain.into_optimized().and_then(IntoRunnable::into_runnable).map_err(failed)
}

/// One inference.
pub(in crate::sandbox) fn infer(
    runnable: &Arc<TypedRunnableModel>,
    inputs: &[Tensor],
) -> Result<Vec<Tensor>, BackendError> {
    let values = inputs.iter().map(|input| Ok(to_value(input)?.into_tvalue())).collect::<Result<_, BackendError>>()?;
    let outputs = runnable.run(values).map_err(failed)?;
    outputs.iter().map(|output| from_value(output)).collect()
}

pub(in crate::sandbox) fn failed(error: impl Into<TractError>) -> BackendError {
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
    let element = fact.datum_type.concretize().map(from_tract).transpose()?.map(|element| element.word().to_owned());
    let dims = fact.shape.rank().concretize().map(|_| {
        let dim = |dim: &DimFact| dim.concretize()?.to_i64().ok()?.try_into().ok();
        fact.shape.dims().map(dim).collect()
    });
    let name = model.outlet_label(outlet).map_or_else(|| model.node(outlet.node).name.clone(), str::to_owned);
    Ok(TensorDecl { name: name.chars().take(200).collect(), element, dims })
}

fn to_value(input: &Tensor) -> Result<prelude::Tensor, BackendError> {
    let shape: TVec<usize> = input.dims.iter().map(|dim| *dim as usize).collect();
    let mut tensor = prelude::Tensor::zero_dt(to_tract(input.element), &shape).map_err(failed)?;
    let bytes = tensor.as_bytes_mut();
    if bytes.len() != input.data.len() {
        return Err(broken("tensor data does not fit its shape"));
    }
    bytes.copy_from_slice(&input.data);
    Ok(tensor)
}

fn from_value(value: &prelude::Tensor) -> Result<Tensor, BackendError> {
    let dims = value.shape().iter().map(|dim| u32::try_from(*dim).map_err(failed)).collect::<Result<_, _>>()?;
    let element = from_tract(value.datum_type())?;
    let plain = value.cast_to_dt(to_tract(element)).map_err(failed)?;
    Ok(Tensor { element, dims, data: plain.as_bytes().to_vec() })
}
