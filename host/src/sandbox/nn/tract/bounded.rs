//! What keeps hostile models from growing while tract compiles them.
//!
//! tract computes what is constant in a model as it analyses and simplifies it, and looks at sizes only afterwards. A model of
//! a hundred bytes can so ask for any amount of memory: a shape of three constants multiplied, a row added to a column. So
//! every operator is read as a [`Bounded`] one: its shapes are inferred first, and nothing is computed that has no room.
//! Where a shape is made of numbers in a tensor, inference is not believed, which takes the lower 32 bits of a number where an
//! operator takes them all ([`grown`]).
//! What is compiled is held to the same bounds before it is simplified ([`check`]), and to one for all that is alive at once
//! before it runs ([`peak`]).

use std::{cell::Cell, collections::HashMap, sync::LazyLock};

use tract_onnx::{
    Onnx,
    model::{OnnxOpRegister, ParsingContext},
    pb::NodeProto,
    prelude::TypedModel,
    tract_core::{
        ops::{konst::Const, logic::IfThenElse, scan::Scan},
        optim::CONST_FOLD_MEM_BUDGET,
        tract_data::TooEarly,
    },
    tract_hir::internal::*,
};

use crate::limits;

/// Why a model is not compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {value}, over the bound of {bound}")]
pub(super) struct TooMuch {
    pub(super) what: &'static str,
    pub(super) value: u64,
    pub(super) bound: u64,
}

/// An operator that is not here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("operator {operator} of the domain `{domain}`")]
pub(super) struct Unknown {
    domain: String,
    operator: String,
}

fn within(what: &'static str, value: u64, bound: u64) -> Result<(), TooMuch> {
    if value <= bound { Ok(()) } else { Err(TooMuch { what, value, bound }) }
}

thread_local! {
    /// Bytes that constants of the model at hand may still grow by.
    static ROOM: Cell<u64> = const { Cell::new(0) };
}

/// Loads or compiles one model, with room for so many bytes of constants that it computes.
pub(super) fn with_room<T>(body: impl FnOnce() -> T) -> T {
    ROOM.set(limits::NN_FOLD_BYTES_MAX);
    body()
}

fn take_room(bytes: u64) -> Result<(), TooMuch> {
    let Some(left) = ROOM.get().checked_sub(bytes) else {
        let bound = limits::NN_FOLD_BYTES_MAX;
        let value = bound.saturating_sub(ROOM.get()).saturating_add(bytes);
        return Err(TooMuch { what: "bytes of constants that the model computes", value, bound });
    };
    ROOM.set(left);
    Ok(())
}

static BUILDERS: LazyLock<OnnxOpRegister> = LazyLock::new(|| tract_onnx::onnx().op_register);

/// Domains whose operators tract has; it goes by an operator's name alone.
const DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];

/// Reads ONNX into operators that are bounded, those of graphs inside of operators too.
pub(super) fn reader() -> Onnx {
    let mut onnx = tract_onnx::onnx();
    onnx.op_register.0.values_mut().for_each(|builder| *builder = build);
    onnx
}

fn build(context: &ParsingContext<'_>, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let builder = BUILDERS.0.get(&node.op_type).filter(|_| DOMAINS.contains(&node.domain.as_str()));
    let unknown = || Unknown { domain: node.domain.clone(), operator: node.op_type.clone() };
    let builder = builder.ok_or_else(unknown)?;
    let (op, closures) = builder(context, node)?;
    Ok((Box::new(Bounded { operator: node.op_type.clone(), op }), closures))
}

/// An operator that computes nothing as a model is analysed which would have no room.
#[derive(Debug, Clone)]
struct Bounded {
    /// ONNX's name of it.
    operator: String,
    op: Box<dyn InferenceOp>,
}

impl PartialEq for Bounded {
    fn eq(&self, _: &Self) -> bool {
        false
    }
}

impl Eq for Bounded {}

impl EvalOp for Bounded {
    fn eval(&self, context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.op.eval(context, inputs)
    }

    fn forwards_input(&self) -> Option<usize> {
        self.op.forwards_input()
    }

    fn eval_out_of_plan(&self, inputs: TVec<TValue>) -> TractResult<Option<TVec<TValue>>> {
        self.op.eval_out_of_plan(inputs)
    }

    fn state(&self, context: &EvalContext<'_>) -> TractResult<Option<Box<dyn OpState>>> {
        self.op.state(context)
    }
}

impl Op for Bounded {
    fn name(&self) -> StaticName {
        self.op.name()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        self.op.info()
    }

    fn mints_runtime_symbols(&self) -> bool {
        self.op.mints_runtime_symbols()
    }

    fn as_typed(&self) -> Option<&dyn TypedOp> {
        self.op.as_typed()
    }
}

impl InferenceOp for Bounded {
    /// As the trait has it, with a look at the sizes before anything is computed and not after.
    fn infer(
        &mut self,
        inputs: TVec<&InferenceFact>,
        outputs: TVec<&InferenceFact>,
        observed: TVec<&InferenceFact>,
    ) -> TractResult<(TVec<InferenceFact>, TVec<InferenceFact>, TVec<InferenceFact>)> {
        let (inputs, outputs, observed) = self.op.infer_facts(inputs, outputs, observed).context("inferring facts")?;
        let bytes = outputs.iter().map(inferred_bytes).collect::<Vec<_>>();
        let known = inputs.iter().map(|input| input.value.concretize().filter(|value| value.is_plain_ram()));
        let Some(values) = known.collect::<Option<TVec<_>>>().filter(|values| !values.is_empty()) else {
            return Ok((inputs, outputs, observed));
        };
        let grown = grown(&self.operator, &values);
        if let Some(grown) = grown {
            within("bytes of a tensor", grown, limits::NN_ACTIVATION_BYTES_MAX)?;
        }
        let small = values.iter().all(|value| tensor_bytes(value) <= CONST_FOLD_MEM_BUDGET);
        let room = values.iter().map(|value| tensor_bytes(value)).sum::<u64>().max(CONST_FOLD_MEM_BUDGET);
        // Where the shape is not known before, it is that of what is found in the inputs.
        let inferred = bytes.iter().try_fold(0u64, |sum, bytes| Some(sum.saturating_add((*bytes)?)));
        let grows = grown.max(inferred);
        if !small || grows.is_some_and(|grows| grows > room) {
            return Ok((inputs, outputs, observed));
        }
        take_room(grows.unwrap_or(room))?;
        match self.op.eval_out_of_plan(values.into_iter().map(IntoTValue::into_tvalue).collect()) {
            Ok(None) => {}
            Ok(Some(values)) if values.iter().map(|value| tensor_bytes(value)).sum::<u64>() > room => {}
            Ok(Some(values)) => {
                let facts = values.into_iter().map(|value| value.into_arc_tensor().try_into());
                return Ok((inputs, facts.collect::<TractResult<_>>()?, observed));
            }
            Err(error) if error.root_cause().is::<TooEarly>() => {}
            Err(error) => return Err(error).context("computing a constant"),
        }
        Ok((inputs, outputs, observed))
    }

    fn observe_outlets(&self, model: &InferenceModel, node: &InferenceNode) -> TractResult<Vec<OutletId>> {
        self.op.observe_outlets(model, node)
    }

    fn infer_facts(
        &mut self,
        inputs: TVec<&InferenceFact>,
        outputs: TVec<&InferenceFact>,
        observed: TVec<&InferenceFact>,
    ) -> TractResult<(TVec<InferenceFact>, TVec<InferenceFact>, TVec<InferenceFact>)> {
        self.op.infer_facts(inputs, outputs, observed)
    }

    fn incorporate(&self, model: &InferenceModel, node: &InferenceNode) -> TractResult<Option<InferenceModelPatch>> {
        self.op.incorporate(model, node)
    }

    fn nboutputs(&self) -> TractResult<usize> {
        self.op.nboutputs()
    }

    fn as_op(&self) -> &dyn Op {
        self
    }

    fn as_op_mut(&mut self) -> &mut dyn Op {
        self
    }

    /// Adding an operator to a typed model computes it where its inputs are constants of a few elements, whatever comes out.
    fn to_typed(
        &self,
        source: &InferenceModel,
        node: &InferenceNode,
        target: &mut TypedModel,
        mapping: &HashMap<OutletId, OutletId>,
    ) -> TractResult<TVec<OutletId>> {
        let known = |outlet: &OutletId| target.outlet_fact(*mapping.get(outlet)?).ok()?.konst.clone();
        if !node.inputs.is_empty()
            && let Some(values) = node.inputs.iter().map(known).collect::<Option<TVec<_>>>()
        {
            let inferred =
                |output: &Outlet<InferenceFact>| inferred_bytes(&output.fact).unwrap_or(CONST_FOLD_MEM_BUDGET);
            let inferred = node.outputs.iter().map(inferred).fold(0, u64::saturating_add);
            take_room(grown(&self.operator, &values).unwrap_or(0).max(inferred))?;
        }
        self.op.to_typed(source, node, target, mapping)
    }
}

/// Bytes that an operator makes of these inputs at most, if its output's shape is made of numbers in them.
fn grown(operator: &str, inputs: &[Arc<Tensor>]) -> Option<u64> {
    let length = |at: usize| inputs.get(at).map_or(1, |input| input.len() as u64);
    let numbers = |at: usize| inputs.get(at).and_then(|input| numbers(input)).unwrap_or_default();
    let product = |at: usize| numbers(at).into_iter().fold(1.0, |product: f64, number| product * number.abs().max(1.0));
    let elements = match operator {
        "ConstantOfShape" | "HannWindow" | "HammingWindow" | "BlackmanWindow" => product(0),
        "Expand" | "Tile" | "OneHot" => length(0) as f64 * product(1),
        "MelWeightMatrix" => product(0) * product(1),
        "Range" => {
            let [from, to, step] = [0, 1, 2].map(|at| numbers(at).first().copied().unwrap_or(0.0));
            // A step of nothing never ends.
            if step == 0.0 { f64::INFINITY } else { ((to - from) / step).max(0.0) }
        }
        "Pad" => {
            let more = numbers(1).into_iter().fold(0.0, |sum: f64, number| sum + number.abs());
            inputs.first()?.shape().iter().fold(1.0, |product, side| product * (*side as f64 + more))
        }
        "Resize" => length(0) as f64 * product(1) * product(2) * product(3),
        // What they make depends on attributes, and no model needs it of constants before it runs.
        "AveragePool" | "Conv" | "ConvInteger" | "ConvTranspose" | "DFT" | "MaxPool" | "QLinearConv" | "STFT" => {
            return Some(CONST_FOLD_MEM_BUDGET + 1);
        }
        _ => return None,
    };
    let element = inputs.iter().map(|input| input.datum_type().size_of()).max().unwrap_or(1).max(8);
    // What has no number is too much as well.
    let bytes = elements * element as f64;
    Some(if bytes < limits::NN_FOLD_BYTES_MAX as f64 { bytes as u64 } else { u64::MAX })
}

/// The numbers in a tensor, if they are few.
fn numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    if tensor.len() as u64 > limits::MODEL_RANK_MAX * 2 {
        return None;
    }
    let numbers = tensor.cast_to::<f64>().ok()?;
    Some(numbers.try_as_plain_ram().ok()?.as_slice::<f64>().ok()?.to_vec())
}

fn tensor_bytes(tensor: &Tensor) -> u64 {
    (tensor.len() as u64).saturating_mul(tensor.datum_type().size_of() as u64)
}

/// Bytes of a tensor whose type and shape are known.
fn inferred_bytes(fact: &InferenceFact) -> Option<u64> {
    let element = fact.datum_type.concretize()?.size_of() as u64;
    fact.shape.concretize()?.iter().try_fold(element, |bytes, dim| Some(bytes.saturating_mul(length(dim)?)))
}

fn length(dim: &TDim) -> Option<u64> {
    u64::try_from(dim.to_i64().ok()?).ok()
}

/// Bytes of a tensor whose shape is known.
pub(super) fn typed_bytes(fact: &TypedFact) -> Option<u64> {
    let element = fact.datum_type.size_of() as u64;
    fact.shape.iter().try_fold(element, |bytes, dim| Some(bytes.saturating_mul(length(dim)?)))
}

/// Looks at every tensor of a model before it is simplified, and at what simplifying will compute.
pub(super) fn check(model: &TypedModel) -> TractResult<()> {
    let mut constant = vec![false; model.nodes.len()];
    for id in model.eval_order()? {
        let node = model.node(id);
        let known = |outlet: &OutletId| constant.get(outlet.node).copied().unwrap_or(false);
        let computed = !node.inputs.is_empty() && node.inputs.iter().all(known);
        let is_const = node.op_is::<Const>();
        for output in &node.outputs {
            let Some(bytes) = typed_bytes(&output.fact) else { continue };
            within("bytes of a tensor", bytes, limits::NN_ACTIVATION_BYTES_MAX)?;
            if computed {
                take_room(bytes)?;
            }
        }
        if let Some(known) = constant.get_mut(id) {
            *known = computed || is_const;
        }
        bodies(node.op.as_ref()).into_iter().try_for_each(check)?;
    }
    Ok(())
}

/// The models inside of an operator.
pub(super) fn bodies(op: &dyn TypedOp) -> Vec<&TypedModel> {
    if let Some(scan) = op.downcast_ref::<Scan>() {
        return vec![&scan.body];
    }
    op.downcast_ref::<IfThenElse>().map_or_else(Vec::new, |branch| vec![&branch.then_body, &branch.else_body])
}

/// The most bytes of tensors that are alive at once as a model runs, without its constants. What is not known yet counts as
/// nothing: a model with such a tensor is not run, see `work`.
pub(super) fn peak(model: &TypedModel) -> TractResult<u64> {
    let order = model.eval_order()?;
    let mut last = vec![0; model.nodes.len()];
    for (step, id) in order.iter().enumerate() {
        for input in &model.node(*id).inputs {
            last[input.node] = step;
        }
    }
    for output in model.output_outlets()? {
        last[output.node] = order.len();
    }
    let mut ends: Vec<u64> = vec![0; order.len() + 1];
    let (mut alive, mut peak) = (0u64, 0u64);
    for (step, id) in order.iter().enumerate() {
        let node = model.node(*id);
        let own = if node.op_is::<Const>() { 0 } else { node_bytes(node) };
        let inside = bodies(node.op.as_ref())
            .into_iter()
            .map(self::peak)
            .try_fold(0, |most: u64, peak| TractResult::Ok(most.max(peak?)))?;
        alive = alive.saturating_add(own);
        peak = peak.max(alive.saturating_add(inside));
        let end = last[*id].max(step);
        ends[end] = ends[end].saturating_add(own);
        alive = alive.saturating_sub(ends[step]);
    }
    Ok(peak)
}

fn node_bytes(node: &TypedNode) -> u64 {
    node.outputs.iter().filter_map(|output| typed_bytes(&output.fact)).fold(0, u64::saturating_add)
}

/// Whether a model that is ready to run has room.
pub(super) fn check_run(model: &TypedModel) -> TractResult<()> {
    within("bytes of tensors at once", peak(model)?, limits::NN_ACTIVATION_BYTES_MAX)?;
    let outputs = model.output_outlets()?.iter().map(|outlet| model.outlet_fact(*outlet));
    let bytes = outputs.filter_map(|fact| typed_bytes(fact.ok()?)).fold(0, u64::saturating_add);
    Ok(within("bytes of all outputs", bytes, limits::NN_TENSOR_BYTES_MAX)?)
}
