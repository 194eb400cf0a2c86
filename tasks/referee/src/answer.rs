//! Answers the host's questions about one model, which is kept in memory between calls.

use std::{cell::RefCell, sync::Arc};

use tract_onnx::prelude::{InferenceModel, TypedRunnableModel};

use super::nn::{
    referee::wire::{Answer, Question},
    tensor::BackendError,
    tract::model::{self, Parsed},
};

/// What is kept between calls.
enum Model {
    None,
    Loaded(InferenceModel),
    Open(Arc<TypedRunnableModel>),
}

thread_local! {
    static MODEL: RefCell<Model> = const { RefCell::new(Model::None) };
}

/// The answer to a question, both as they are sent.
pub(crate) fn answer(question: Vec<u8>) -> Vec<u8> {
    answered(question).unwrap_or_else(Answer::Refused).encode()
}

fn answered(question: Vec<u8>) -> Result<Answer, BackendError> {
    let asked = Question::decode(&question).ok_or_else(|| failed("no question"))?;
    match asked {
        Question::Load(file) => {
            let Parsed { model, inputs, outputs } = model::parse(file)?;
            MODEL.set(Model::Loaded(model));
            Ok(Answer::Declared { inputs, outputs })
        }
        Question::Open(signature) => {
            // The parsed model goes as soon as it is compiled: what is kept of this memory is smaller for it.
            let Model::Loaded(model) = MODEL.replace(Model::None) else { return Err(failed("no model is loaded")) };
            let runnable = model::runnable(model::typed(&model, &signature)?)?;
            MODEL.set(Model::Open(runnable));
            Ok(Answer::Ready)
        }
        Question::Run(inputs) => {
            drop(question);
            MODEL.with_borrow(|model| {
                let Model::Open(runnable) = model else { return Err(failed("no model is open")) };
                Ok(Answer::Outputs(model::infer(runnable, &inputs)?))
            })
        }
    }
}

fn failed(detail: &str) -> BackendError {
    BackendError::Failed { detail: detail.to_owned() }
}
