//! What a host measures of its devices: memory, and the speed of one matrix product through the backend itself.
//!
//! The number is for placing work and for people to look at, and no promise: a model that is nothing but small operations runs
//! at a fraction of it.

use std::sync::{Arc, OnceLock};

use guest_sdk::abi::nn::TensorType;
use registry::device::DeviceKind;
use serde::{Deserialize, Serialize};

use super::{
    backend::{Backend, BackendError, Graph, Tensor, signature},
    guarded,
    onnx::{FLOAT, Model},
};
use crate::{clock::Stopwatch, limits};

/// What one backend was measured to have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Memory in bytes: of the device where that can be asked, else of the machine.
    pub memory_bytes: u64,
    /// Millions of floating-point operations in a second: the best of a few products of square f32 matrices.
    pub mflops: u64,
}

/// Times a matrix product on a backend: on a GPU larger ones too, with their way there and back.
pub(in crate::sandbox) fn measure(backend: &dyn Backend) -> Result<Measured, String> {
    guarded(|| time(backend)).map_err(|error| super::short(&error.to_string()))
}

/// The smallest product there is. Its graph is kept for good where a device goes with the last that uses it.
pub(super) fn infer_once(backend: &dyn Backend, is_kept: bool) -> Result<(), BackendError> {
    let product = Product::new(backend, 8)?;
    product.run()?;
    if is_kept {
        std::mem::forget(product);
    }
    Ok(())
}

/// A product of two matrices of ones.
struct Product {
    graph: Arc<dyn Graph>,
    inputs: [Tensor; 2],
    side: u32,
}

impl Product {
    fn new(backend: &dyn Backend, side: u32) -> Result<Self, BackendError> {
        let ones = 1f32.to_le_bytes().repeat((side * side) as usize);
        let matrix = Tensor { element: TensorType::F32, dims: vec![side, side], data: ones };
        let inputs = [matrix.clone(), matrix];
        let dims = [i64::from(side); 2];
        let model = Model::new().input("a", FLOAT, &dims).input("b", FLOAT, &dims);
        let model = model.node("MatMul", &["a", "b"], &["product"], &[]).output("product", FLOAT, &dims);
        let graph = backend.load(&model.bytes())?;
        graph.open(&signature(&inputs), &mut u64::MAX.clone())?;
        Ok(Self { graph, inputs, side })
    }

    fn run(&self) -> Result<(), BackendError> {
        let outputs = self.graph.run(&self.inputs, &mut u64::MAX.clone())?;
        // Each element is a sum of as many ones: a device that does not compute would measure well.
        let expected = (self.side as f32).to_le_bytes();
        match outputs.first() {
            Some(product) if product.data.chunks_exact(4).all(|element| element == expected) => Ok(()),
            _ => Err(BackendError::Failed { detail: "it gives a wrong matrix product".to_owned() }),
        }
    }
}

fn time(backend: &dyn Backend) -> Result<Measured, BackendError> {
    let sides: &[u32] = match backend.device().kind {
        DeviceKind::Cpu => &[limits::MEASURE_CPU_SIDE],
        DeviceKind::Gpu => &limits::MEASURE_GPU_SIDES,
    };
    let watch = Stopwatch::start();
    let mut mflops = 0;
    for side in sides {
        mflops = mflops.max(time_product(&Product::new(backend, *side)?, &watch)?);
        // What is slow shows it with small ones, and would take minutes for a large one.
        if watch.elapsed_ms() > limits::MEASURE_MS_MAX {
            break;
        }
    }
    Ok(Measured { memory_bytes: backend.memory_bytes(), mflops })
}

/// The best of a few products, as long as there is time.
fn time_product(product: &Product, watch: &Stopwatch) -> Result<u64, BackendError> {
    let mut best_ns = u128::MAX;
    for round in 0..limits::MEASURE_ROUNDS_MAX {
        let one = Stopwatch::start();
        product.run()?;
        best_ns = best_ns.min(one.elapsed().as_nanos());
        // The first may have to make kernels for its shape.
        if round > 0 && watch.elapsed_ms() > limits::MEASURE_MS_MAX {
            break;
        }
    }
    let operations = 2 * u128::from(product.side).pow(3);
    // One operation in a nanosecond is a thousand million in a second.
    Ok(u64::try_from(operations.saturating_mul(1000) / best_ns.max(1)).unwrap_or(u64::MAX))
}

/// Memory of this machine in bytes; 0 where the system does not tell. Asked once: a jailed process cannot ask any more.
pub(in crate::sandbox) fn host_memory_bytes() -> u64 {
    static BYTES: OnceLock<u64> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total =
            text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
        total.map_or(0, |kib: u64| kib << 10)
    })
}
