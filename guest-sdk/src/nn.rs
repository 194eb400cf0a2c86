//! Typed wasi-nn: inference on the models that the task declared.
//!
//! The host has loaded them before the task starts; the task asks for one by the local name it gave it:
//!
//! ```no_run
//! use guest_sdk::nn::{Error, Graph, Tensor};
//!
//! fn classify(pixels: Vec<f32>) -> Result<Vec<f32>, Error> {
//!     let digits = u32::try_from(pixels.len() / 64).unwrap_or(u32::MAX);
//!     let mut context = Graph::by_name("digits")?.context()?;
//!     let scores: Tensor<f32> = context.infer(&Tensor::new(vec![digits, 64], pixels)?, &[digits, 10])?;
//!     Ok(scores.into_data())
//! }
//! ```
//!
//! A task of class `exact` may bring a model of its own ([`Graph::from_bytes`]), e.g. as an input file.
//!
//! wasi-nn reports no shapes, so the task says which shape it expects of an output and gets an error, not a slice of
//! something else, when the number of bytes differs. The preview-1 ABI has no way to free a graph or a context: both
//! live as long as the task, which is why [`Graph`] and [`Context`] do nothing when dropped and why one context should
//! serve many inferences.
//!
//! On wasm the calls are imports of the host ([`crate::abi::nn`]). Elsewhere they go to closures registered with
//! `stub::register`, so that a task's own unit tests run its real source.

#[cfg(target_arch = "wasm32")]
#[path = "nn/imports.rs"]
mod backend;
mod half;
#[cfg(not(target_arch = "wasm32"))]
pub mod stub;
mod tensor;

pub use half::F16;
#[cfg(not(target_arch = "wasm32"))]
use stub as backend;
pub use tensor::{AnyTensor, Element, Tensor};

use crate::abi::nn::{Errno, TensorType};

/// Why an inference did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The host refused a call.
    #[error("wasi-nn {call} on {subject}: {errno:?} (errno {})", *.errno as u16)]
    Host {
        /// The wasi-nn function.
        call: &'static str,
        /// The graph, or the input or output, that it was called for.
        subject: String,
        /// The number the host gave.
        errno: Errno,
    },
    /// A tensor's shape and its data disagree.
    #[error("a tensor of shape {dims:?} has {expected} elements, not {found}")]
    Shape {
        /// The shape asked for.
        dims: Vec<u32>,
        /// Elements of that shape.
        expected: usize,
        /// Elements there were.
        found: usize,
    },
    /// A shape has more elements than this machine can address.
    #[error("a tensor of shape {dims:?} passes the address space")]
    ShapeTooLarge {
        /// The shape asked for.
        dims: Vec<u32>,
    },
    /// The host gave a number of bytes that is not what the expected shape takes.
    #[error("output {index} has {found} bytes, a {kind:?} tensor of shape {dims:?} takes {expected}")]
    OutputSize {
        /// Which output.
        index: u32,
        /// The element type expected.
        kind: TensorType,
        /// The shape expected.
        dims: Vec<u32>,
        /// Bytes of that shape.
        expected: usize,
        /// Bytes the host gave.
        found: usize,
    },
    /// A tensor of one element type was asked for as another.
    #[error("a tensor of {found:?} was asked for as {expected:?}")]
    Type {
        /// The type asked for.
        expected: TensorType,
        /// The type there is.
        found: TensorType,
    },
}

/// A model that the host has loaded for this task.
#[derive(Debug)]
pub struct Graph {
    name: String,
    handle: u32,
}

impl Graph {
    /// The model that the task declared under this local name.
    ///
    /// # Errors
    /// [`Errno::NotFound`] when the task declared none of that name.
    pub fn by_name(name: &str) -> Result<Self, Error> {
        let handle = backend::load_by_name(name).map_err(|errno| refused("load_by_name", name, errno))?;
        Ok(Self { name: name.to_owned(), handle })
    }

    /// A model that the task brings itself: an ONNX file, whose weights are inside.
    ///
    /// The host parses it anew for each task, which costs fuel by its length, and has a bound for all that a task brings. A
    /// model that many tasks use is better declared.
    ///
    /// # Errors
    /// [`Errno::UnsupportedOperation`] when the job's class is not `exact` or no backend here has an operator,
    /// [`Errno::InvalidEncoding`] when it is no model, [`Errno::TooLarge`] when it passes the host's bounds.
    pub fn from_bytes(model: &[u8]) -> Result<Self, Error> {
        let name = format!("a model of {} bytes", model.len());
        let handle = backend::load(model).map_err(|errno| refused("load", &name, errno))?;
        Ok(Self { name, handle })
    }

    /// A context to run inferences in, one after another.
    ///
    /// # Errors
    /// When the host's quota of contexts is used up.
    pub fn context(&self) -> Result<Context, Error> {
        let handle = backend::init_execution_context(self.handle)
            .map_err(|errno| refused("init_execution_context", &self.name, errno))?;
        Ok(Context { graph: self.name.clone(), handle })
    }
}

/// Where one inference at a time takes its inputs and leaves its outputs.
#[derive(Debug)]
pub struct Context {
    graph: String,
    handle: u32,
}

impl Context {
    /// One whole inference on a model of one input and one output: sets input 0, computes, takes output 0 of shape
    /// `dims`.
    ///
    /// # Errors
    /// Those of [`Context::set_input`], [`Context::compute`] and [`Context::output`].
    pub fn infer<I: Element, O: Element>(&mut self, input: &Tensor<I>, dims: &[u32]) -> Result<Tensor<O>, Error> {
        self.set_input(0, input)?;
        self.compute()?;
        self.output(0, dims)
    }

    /// Sets the input of this index, counted as the model declares them.
    ///
    /// # Errors
    /// When the model has no such input or takes another type or shape, or the tensor passes the host's quota.
    pub fn set_input<T: Element>(&mut self, index: u32, tensor: &Tensor<T>) -> Result<(), Error> {
        backend::set_input(self.handle, index, &AnyTensor::from(tensor))
            .map_err(|errno| refused("set_input", &format!("{} input {index}", self.graph), errno))
    }

    /// Runs the model on the inputs set.
    ///
    /// # Errors
    /// When an input is missing, or the model fails on these.
    pub fn compute(&mut self) -> Result<(), Error> {
        backend::compute(self.handle).map_err(|errno| refused("compute", &self.graph, errno))
    }

    /// Takes the output of this index, which is expected to have the shape `dims`.
    ///
    /// # Errors
    /// When the model has no such output, nothing was computed, or the output has another size.
    pub fn output<T: Element>(&self, index: u32, dims: &[u32]) -> Result<Tensor<T>, Error> {
        let expected = tensor::bytes_of(T::TYPE, dims)?;
        let mut bytes = vec![0; expected];
        let found = backend::get_output(self.handle, index, &mut bytes)
            .map_err(|errno| refused("get_output", &format!("{} output {index}", self.graph), errno))?;
        if found != expected {
            return Err(Error::OutputSize { index, kind: T::TYPE, dims: dims.to_vec(), expected, found });
        }
        Tensor::new(dims.to_vec(), T::from_bytes(&bytes))
    }
}

fn refused(call: &'static str, subject: &str, errno: Errno) -> Error {
    Error::Host { call, subject: subject.to_owned(), errno }
}
