//! Inference by tract: pure Rust, on the processor, no library to install.
//!
//! tract picks its kernels by what the processor has, and their bits differ, so [`pin_kernels`] takes away what is above the
//! process's [`CpuClass`] before the first kernel is picked. A model with open dimensions is compiled for each concrete
//! input shape, and the last few are kept. Inference cannot be interrupted: its fuel, paid before it runs, bounds it.

mod bounded;
mod model;
mod tanh;

use std::sync::{
    Arc, OnceLock, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use registry::{
    device::{Device, DeviceKind},
    job::Class,
};
use tract_onnx::{
    prelude::{InferenceModel, TypedFact, TypedModel, TypedRunnableModel, tract_linalg},
    tract_core::ops::{
        TypedOp,
        cnn::{Deconv, MaxPool, PoolSpec, SumPool},
        logic::IfThenElse,
        scan::Scan,
    },
};

use self::model::{Parsed, failed, read, typed};
use super::{
    TensorDecl,
    backend::{Allowance, Backend, BackendError, Graph, Signature, Tensor, draw, signature},
};
use crate::{limits, sandbox::CpuClass};

/// Version of tract; a test holds it against the lock file.
pub(in crate::sandbox) const TRACT_VERSION: &str = "0.23.9";

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
        let Parsed { model, inputs, outputs } = model::parse(bytes)?;
        let file_bytes = bytes.len() as u64;
        Ok(Arc::new(Onnx { model, file_bytes, inputs, outputs, plans: Plans::default() }))
    }
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
    let plain = typed(model, signature)?;
    let work = work(&plain)?;
    Ok(Plan { runnable: model::runnable(plain)?, work })
}

/// What one inference of a model takes, for backends that run it in another way: it costs the same on each.
pub(super) fn work_of(bytes: &[u8], signature: &Signature) -> Result<u64, BackendError> {
    bounded::with_room(|| {
        let model = read(bytes)?;
        work(&typed(&model, signature)?)
    })
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

    fn open(&self, signature: &Signature, fuel: &mut dyn Allowance) -> Result<(), BackendError> {
        draw(fuel, self.file_bytes.saturating_mul(limits::NN_SHAPE_FUEL_PER_BYTE))?;
        self.plan(signature).map(drop)
    }

    fn run(&self, inputs: &[Tensor], fuel: &mut dyn Allowance) -> Result<Vec<Tensor>, BackendError> {
        let plan = self.plan(&signature(inputs))?;
        draw(fuel, plan.work)?;
        model::infer(&plan.runnable, inputs)
    }
}

#[cfg(test)]
mod tests;
