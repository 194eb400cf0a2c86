//! Tensors, what models declare of them, and why there are none: what the host and the referee in its sandbox have in common.
//! This file is compiled into both.

use guest_sdk::abi::nn::TensorType;
use serde::{Deserialize, Serialize};

/// One input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorDecl {
    /// Its name in the model.
    pub name: String,
    /// Element type, e.g. `f32`; absent when the model leaves it open.
    pub element: Option<String>,
    /// Dimensions, absent where the model leaves one open; none at all when it leaves the rank open.
    pub dims: Option<Vec<Option<u32>>>,
}

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
        let element = decl.element.as_deref().is_none_or(|element| element == self.element.word());
        let dims = decl.dims.as_ref().is_none_or(|dims| {
            let fits = |(dim, own): (&Option<u32>, &u32)| dim.is_none_or(|dim| dim == *own);
            dims.len() == self.dims.len() && dims.iter().zip(&self.dims).all(fits)
        });
        element && dims
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
    /// The task has to end, and its inference ended with it.
    #[error("inference was {}", if *cancelled { "cancelled" } else { "stopped at the deadline" })]
    Interrupted { cancelled: bool },
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
