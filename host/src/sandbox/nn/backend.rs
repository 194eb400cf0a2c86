//! The seam for inference backends: two small traits, one error.

use std::sync::Arc;

use guest_sdk::abi::nn::TensorType;

use super::TensorDecl;

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
    /// It panicked: nothing is known about it any more.
    #[error("backend panicked: {detail}")]
    Panic { detail: String },
}

/// Turns model files into graphs.
pub(in crate::sandbox) trait Backend: Send + Sync {
    /// One word.
    fn name(&self) -> &'static str;
    /// Version and whatever else its bits depend on.
    fn version(&self) -> String;
    /// Parses a model file.
    fn load(&self, bytes: &[u8]) -> Result<Arc<dyn Graph>, BackendError>;
}

/// A model that can run. Equal inputs have equal outputs.
pub(in crate::sandbox) trait Graph: Send + Sync {
    /// What it takes, in order.
    fn inputs(&self) -> &[TensorDecl];
    /// What it gives, in order.
    fn outputs(&self) -> &[TensorDecl];
    /// Work of one run on inputs of these shapes: multiply-accumulates, and elements produced. The same on every host.
    fn work(&self, inputs: &[Tensor]) -> Result<u64, BackendError>;
    /// Runs it.
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, BackendError>;
}
