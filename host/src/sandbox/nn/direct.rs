//! A backend without a guest in front of it: what benches hold the wasi-nn functions against.

use std::sync::{Arc, OnceLock};

use guest_sdk::abi::nn::TensorType;

use super::{
    backend::{BackendOptions, Graph, Tensor, signature},
    guarded, load, start,
};
use crate::sandbox::{CpuClass, Sandbox, SandboxOptions, TensorDecl, pin_class};

/// A model, loaded by a backend.
pub struct DirectModel(Arc<dyn Graph>);

/// Inputs, ready to be given to it as often as it takes.
pub struct DirectInputs(Vec<Tensor>);

impl DirectInputs {
    /// Tensors by type, dimensions and elements in row-major order, little end first.
    pub fn new(tensors: impl IntoIterator<Item = (TensorType, Vec<u32>, Vec<u8>)>) -> Self {
        Self(tensors.into_iter().map(|(element, dims, data)| Tensor { element, dims, data }).collect())
    }
}

impl DirectModel {
    /// Loads a model as a sandbox does. Kernels are pinned to the same class as the process's sandboxes, the processor's best
    /// when there is none.
    ///
    /// # Errors
    /// When the process is pinned to another class, or the model does not load.
    pub fn load(options: BackendOptions, class: Option<CpuClass>, bytes: &[u8]) -> Result<Self, String> {
        let class = class.unwrap_or_else(CpuClass::detect);
        pin_class(class).map_err(|error| error.to_string())?;
        if options == BackendOptions::Referee {
            static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
            let options = SandboxOptions { backend: options, cpu_class: Some(class), ..SandboxOptions::default() };
            let sandbox = match SANDBOX.get() {
                Some(sandbox) => sandbox,
                None => {
                    let started = Sandbox::new(options).map_err(|error| error.to_string())?;
                    SANDBOX.get_or_init(|| started)
                }
            };
            return Self::load_in(sandbox, bytes);
        }
        let backend = start(&options, class).map_err(|error| error.to_string())?;
        load(&*backend, bytes).map(Self).map_err(|error| error.to_string())
    }

    /// Loads a model as this sandbox does, which runs tasks in threads: for backends that need one.
    ///
    /// # Errors
    /// When the model does not load, or tasks run elsewhere.
    pub fn load_in(sandbox: &Sandbox, bytes: &[u8]) -> Result<Self, String> {
        let sandbox = sandbox.in_threads().ok_or("its tasks run in processes")?;
        let backend = sandbox.backend().map_err(|error| error.to_string())?;
        load(backend, bytes).map(Self).map_err(|error| error.to_string())
    }

    /// What it takes.
    pub fn inputs(&self) -> &[TensorDecl] {
        self.0.inputs()
    }

    /// Compiles it for the shapes of these inputs: what a task's first inference waits for.
    ///
    /// # Errors
    /// When the model cannot run on such inputs.
    pub fn open(&self, inputs: &DirectInputs) -> Result<(), String> {
        guarded(|| self.0.open(&signature(&inputs.0), &mut u64::MAX.clone())).map_err(|error| error.to_string())
    }

    /// One inference on inputs whose shapes are open; the elements of each output.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, inputs: &DirectInputs) -> Result<Vec<Vec<u8>>, String> {
        let outputs = guarded(|| self.0.run(&inputs.0, &mut u64::MAX.clone())).map_err(|error| error.to_string())?;
        Ok(outputs.into_iter().map(|output| output.data).collect())
    }
}
