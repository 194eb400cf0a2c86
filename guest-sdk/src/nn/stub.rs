//! Stands in for the host's models when a task's own tests run natively.
//!
//! A model is a closure from inputs to outputs, registered under the name the task asks for. Registrations belong to
//! the thread, as each Rust test has its own. Calls are refused with the error numbers that a host would give, so that
//! a task's error paths can be tested too.
//!
//! ```
//! use guest_sdk::nn::{AnyTensor, Graph, Tensor, stub};
//!
//! stub::register("double", |inputs| {
//!     let input = inputs[0].typed::<f32>().map_err(|_| guest_sdk::abi::nn::Errno::InvalidArgument)?;
//!     let doubled = input.data().iter().map(|x| x * 2.0).collect();
//!     let output = Tensor::new(input.dims().to_vec(), doubled).map_err(|_| guest_sdk::abi::nn::Errno::RuntimeError)?;
//!     Ok(vec![AnyTensor::from(&output)])
//! });
//!
//! let mut context = Graph::by_name("double")?.context()?;
//! let output: Tensor<f32> = context.infer(&Tensor::new(vec![2], vec![1.5f32, 2.0])?, &[2])?;
//! assert_eq!(output.data(), [3.0, 4.0]);
//! # Ok::<(), guest_sdk::nn::Error>(())
//! ```

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use super::AnyTensor;
use crate::abi::nn::Errno;

type Model = Rc<dyn Fn(&[AnyTensor]) -> Result<Vec<AnyTensor>, Errno>>;

thread_local! {
    static MODELS: RefCell<Models> = const { RefCell::new(Models::new()) };
}

/// What this thread has registered and loaded. A handle is a position.
struct Models {
    named: BTreeMap<String, Model>,
    brought: BTreeMap<Vec<u8>, Model>,
    graphs: Vec<Model>,
    contexts: Vec<Inference>,
}

#[derive(Clone)]
struct Inference {
    model: Model,
    inputs: BTreeMap<u32, AnyTensor>,
    outputs: Vec<AnyTensor>,
}

/// Registers a model for this thread, in place of one of the same name.
pub fn register(name: &str, model: impl Fn(&[AnyTensor]) -> Result<Vec<AnyTensor>, Errno> + 'static) {
    MODELS.with_borrow_mut(|models| models.named.insert(name.to_owned(), Rc::new(model)));
}

/// Registers for this thread what a model does whose file a task brings itself.
pub fn register_file(file: &[u8], model: impl Fn(&[AnyTensor]) -> Result<Vec<AnyTensor>, Errno> + 'static) {
    MODELS.with_borrow_mut(|models| models.brought.insert(file.to_owned(), Rc::new(model)));
}

/// Forgets every model, graph and context of this thread.
pub fn clear() {
    MODELS.with_borrow_mut(|models| *models = Models::new());
}

pub(super) fn load(file: &[u8]) -> Result<u32, Errno> {
    MODELS.with_borrow_mut(|models| {
        let model = models.brought.get(file).ok_or(Errno::InvalidEncoding)?.clone();
        push(&mut models.graphs, model)
    })
}

pub(super) fn load_by_name(name: &str) -> Result<u32, Errno> {
    MODELS.with_borrow_mut(|models| {
        let model = models.named.get(name).ok_or(Errno::NotFound)?.clone();
        push(&mut models.graphs, model)
    })
}

pub(super) fn init_execution_context(graph: u32) -> Result<u32, Errno> {
    MODELS.with_borrow_mut(|models| {
        let model = models.graphs.get(graph as usize).ok_or(Errno::InvalidArgument)?.clone();
        push(&mut models.contexts, Inference { model, inputs: BTreeMap::new(), outputs: Vec::new() })
    })
}

pub(super) fn set_input(context: u32, index: u32, tensor: &AnyTensor) -> Result<(), Errno> {
    with_context(context, |inference| {
        inference.inputs.insert(index, tensor.clone());
        Ok(())
    })
}

pub(super) fn compute(context: u32) -> Result<(), Errno> {
    // The model runs outside the borrow: it is the test's code, and may itself use this module.
    let Inference { model, inputs, .. } = with_context(context, |inference| Ok(inference.clone()))?;
    let gapless = (0u32..).zip(inputs.keys()).all(|(position, index)| position == *index);
    if inputs.is_empty() || !gapless {
        return Err(Errno::InvalidArgument);
    }
    let outputs = model(&inputs.into_values().collect::<Vec<_>>())?;
    with_context(context, |inference| {
        inference.outputs = outputs;
        Ok(())
    })
}

pub(super) fn get_output(context: u32, index: u32, out: &mut [u8]) -> Result<usize, Errno> {
    with_context(context, |inference| {
        let bytes = &inference.outputs.get(index as usize).ok_or(Errno::InvalidArgument)?.bytes;
        out.get_mut(..bytes.len()).ok_or(Errno::TooLarge)?.copy_from_slice(bytes);
        Ok(bytes.len())
    })
}

impl Models {
    const fn new() -> Self {
        Self { named: BTreeMap::new(), brought: BTreeMap::new(), graphs: Vec::new(), contexts: Vec::new() }
    }
}

fn with_context<T>(context: u32, f: impl FnOnce(&mut Inference) -> Result<T, Errno>) -> Result<T, Errno> {
    MODELS.with_borrow_mut(|models| f(models.contexts.get_mut(context as usize).ok_or(Errno::InvalidArgument)?))
}

fn push<T>(list: &mut Vec<T>, item: T) -> Result<u32, Errno> {
    let handle = u32::try_from(list.len()).map_err(|_| Errno::TooLarge)?;
    list.push(item);
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use crate::nn::{Error, F16, Graph, Tensor};

    use super::*;

    fn errno<T: std::fmt::Debug>(result: Result<T, Error>) -> Errno {
        match result.unwrap_err() {
            Error::Host { errno, .. } => errno,
            other => panic!("not the host's refusal: {other}"),
        }
    }

    #[test]
    fn the_calls_are_refused_as_a_host_would() {
        clear();
        register("echo", |inputs| Ok(inputs.to_vec()));
        assert_eq!(errno(Graph::by_name("unknown")), Errno::NotFound);

        let mut context = Graph::by_name("echo").unwrap().context().unwrap();
        assert_eq!(errno(context.compute()), Errno::InvalidArgument, "no input is set");
        assert_eq!(errno(context.output::<u8>(0, &[1])), Errno::InvalidArgument, "nothing is computed");

        let input = Tensor::new(vec![4], vec![1u8, 2, 3, 4]).unwrap();
        context.set_input(1, &input).unwrap();
        assert_eq!(errno(context.compute()), Errno::InvalidArgument, "input 0 is missing");
    }

    #[test]
    fn a_file_that_is_no_model_is_refused() {
        register_file(b"model", |inputs| Ok(inputs.to_vec()));
        assert_eq!(errno(Graph::from_bytes(b"garbage")), Errno::InvalidEncoding);
        let mut context = Graph::from_bytes(b"model").unwrap().context().unwrap();
        let halves = Tensor::new(vec![2], vec![F16::from(0.5), F16::from(-2.0)]).unwrap();
        assert_eq!(context.infer::<F16, F16>(&halves, &[2]).unwrap(), halves);
    }

    #[test]
    fn an_output_of_another_size_is_an_error() {
        register("echo", |inputs| Ok(inputs.to_vec()));
        let mut context = Graph::by_name("echo").unwrap().context().unwrap();
        let input = Tensor::new(vec![4], vec![1u8, 2, 3, 4]).unwrap();
        assert_eq!(context.infer::<u8, u8>(&input, &[2, 2]).unwrap().data(), [1, 2, 3, 4]);
        assert_eq!(errno(context.infer::<u8, u8>(&input, &[3])), Errno::TooLarge);
        let error = context.infer::<u8, u8>(&input, &[5]).unwrap_err();
        assert!(matches!(error, Error::OutputSize { expected: 5, found: 4, .. }), "{error}");
    }
}
