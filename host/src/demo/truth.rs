//! What is true, asked of nobody: the shards run in a sandbox of this process, and the labels that came with the data.

use std::collections::BTreeMap;

use registry::id::{ModelHash, ModuleHash};

use super::{DemoError, MODEL_NAME};
use crate::sandbox::{Request, Response, Sandbox, SandboxOptions};

/// The outputs of all shards, in order.
pub(super) fn outputs(lines_per_shard: u64) -> Result<Vec<Vec<u8>>, DemoError> {
    let failed = |error: &dyn std::fmt::Display| DemoError::Truth(error.to_string());
    let sandbox = Sandbox::new(SandboxOptions::default()).map_err(|error| failed(&error))?;
    let (wasm, onnx) = (tasks::DIGITS.wasm, tasks::data::DIGITS_MODEL);
    let (module, model) = (ModuleHash::of(wasm), ModelHash::of(onnx));
    sandbox.load_module(module, wasm).map_err(|error| failed(&error))?;
    sandbox.load_model(model, onnx).map_err(|error| failed(&error))?;
    let pixels: &[u8] = tasks::data::DIGITS_PIXELS;
    let lines: Vec<&[u8]> = pixels.split_inclusive(|byte| *byte == b'\n').collect();
    let shards = lines.chunks(usize::try_from(lines_per_shard).unwrap_or(usize::MAX));
    let run = |shard: &[&[u8]]| {
        let request = Request {
            stdin: shard.concat().into(),
            models: BTreeMap::from([(MODEL_NAME.to_owned(), model)]),
            ..Request::new(module)
        };
        match sandbox.run(request) {
            Response::Done(done) => Ok(done.stdout.to_vec()),
            Response::Fault(fault) => Err(failed(&fault)),
        }
    };
    shards.map(run).collect()
}

/// The labels, and which of them the model was not trained on.
pub(super) fn labels() -> Vec<(String, bool)> {
    let text = String::from_utf8_lossy(tasks::data::DIGITS_LABELS).into_owned();
    let rows = text.lines().filter_map(|line| line.split_once(','));
    rows.filter(|(label, _)| label.bytes().all(|byte| byte.is_ascii_digit()))
        .map(|(label, split)| (label.to_owned(), split == "heldout"))
        .collect()
}
