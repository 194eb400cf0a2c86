//! What one inference costs: as much as on tract, wherever tract can tell.
//!
//! Where it cannot, because it lacks an operator, the file is asked instead. Each node counts the elements of the largest
//! input. A weight (a constant of two dimensions or more) is multiplied as often as the largest input has rows of the weight's
//! second dimension, or of its smaller one where it has two: for a fully connected layer that is exact, and for a convolution
//! it is what a layer costs that keeps its image's size. Branches all count, and loops once. So the estimate is the same on
//! every host, and no measurement: the deadline bounds what it misses.

use prost::Message;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};

use super::super::{
    backend::{BackendError, Signature},
    guarded, tract,
};

/// Multiply-accumulates of one inference and elements produced.
pub(super) fn work(file: &[u8], signature: &Signature) -> Result<u64, BackendError> {
    match guarded(|| tract::work_of(file, signature)) {
        Ok(work) => Ok(work),
        Err(error) => {
            tracing::debug!(%error, "the price of a model is estimated");
            let model = ModelProto::decode(file).map_err(|error| BackendError::Failed { detail: error.to_string() })?;
            Ok(model.graph.as_ref().map_or(0, |graph| estimate(graph, largest(signature))))
        }
    }
}

/// Elements of the largest input.
fn largest(signature: &Signature) -> u64 {
    let elements = |dims: &Vec<u32>| dims.iter().fold(1u64, |all, dim| all.saturating_mul((*dim).into()));
    signature.iter().map(|(_, dims)| elements(dims)).max().unwrap_or(1)
}

fn estimate(graph: &GraphProto, elements: u64) -> u64 {
    let weights = graph.initializer.iter().map(|tensor| products(tensor, elements));
    let nodes = graph.node.iter().map(|node| node_estimate(node, elements));
    weights.chain(nodes).fold(0, u64::saturating_add)
}

fn node_estimate(node: &NodeProto, elements: u64) -> u64 {
    let constants = node.attribute.iter().flat_map(|attribute| attribute.t.iter().chain(&attribute.tensors));
    let graphs = node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
    let constants = constants.map(|tensor| products(tensor, elements)).fold(0, u64::saturating_add);
    graphs.map(|graph| estimate(graph, elements)).fold(constants.saturating_add(elements), u64::saturating_add)
}

/// Multiply-accumulates with a constant.
fn products(tensor: &TensorProto, elements: u64) -> u64 {
    let dims: Vec<u64> = tensor.dims.iter().map(|dim| u64::try_from(*dim).unwrap_or(0)).collect();
    let row = match dims[..] {
        [] | [_] => return 0,
        [rows, columns] => rows.min(columns),
        [_, channels, ..] => channels,
    };
    let weights = dims.iter().fold(1, |all: u64, dim| all.saturating_mul(*dim));
    weights.saturating_mul(elements.div_ceil(row.max(1)))
}
