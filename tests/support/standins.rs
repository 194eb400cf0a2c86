//! Models that are nearly a given one: what a host might run in its place, and one that also answers what it was asked.
//!
//! A model's weights are its constants of 32-bit floats with two dimensions or more, wherever they are in the file.

use half::f16;
use prost::Message;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};

/// ONNX's number of 32-bit floats.
const FLOAT: i32 = 1;
/// The largest magnitude of a weight of eight bits.
const INT8_MAX: f32 = 127.0;

/// What is run in place of a model. All have its inputs, outputs and operators.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StandIn {
    /// Another model: within each constant, the weights are in another order.
    Shuffled,
    /// The model after some more training: each weight moved by up to this share of itself.
    Moved(f32),
    /// Weights rounded to eight bits, with a scale for each row: what a quantised copy computes with.
    Int8,
    /// Weights rounded to 16-bit floats.
    Half,
}

/// The model with other weights.
///
/// # Panics
/// When it is no ONNX file, or has no weights to change.
pub fn stand_in(model: &[u8], how: StandIn) -> Vec<u8> {
    let mut model = ModelProto::decode(model).expect("an ONNX file");
    let mut changed = 0;
    let mut dice = Dice(1);
    let graph = model.graph.as_mut().expect("a graph");
    each_constant(graph, &mut |constant| changed += usize::from(change(constant, how, &mut dice)));
    assert!(changed > 0, "the model has no weights");
    model.encode_to_vec()
}

/// The model with an output more for each input, which is what it was given.
///
/// # Panics
/// When it is no ONNX file.
pub fn showing(model: &[u8]) -> Vec<u8> {
    let mut model = ModelProto::decode(model).expect("an ONNX file");
    let graph = model.graph.as_mut().expect("a graph");
    let constants: Vec<&str> = graph.initializer.iter().map(|constant| constant.name.as_str()).collect();
    let inputs: Vec<ValueInfoProto> =
        graph.input.iter().filter(|input| !constants.contains(&input.name.as_str())).cloned().collect();
    for input in inputs {
        let shown = format!("shown_{}", input.name);
        // The larger of it and itself: nothing that is simplified away until an output is an input.
        graph.node.push(NodeProto {
            input: vec![input.name.clone(); 2],
            output: vec![shown.clone()],
            name: shown.clone(),
            op_type: "Max".to_owned(),
            ..NodeProto::default()
        });
        graph.output.push(ValueInfoProto { name: shown, ..input });
    }
    model.encode_to_vec()
}

/// Every constant of a graph and of those inside of its operators.
fn each_constant(graph: &mut GraphProto, visit: &mut impl FnMut(&mut TensorProto)) {
    graph.initializer.iter_mut().for_each(&mut *visit);
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        attribute.t.iter_mut().for_each(&mut *visit);
        for inner in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            each_constant(inner, visit);
        }
    }
}

/// Changes a constant, if it is one of weights.
fn change(constant: &mut TensorProto, how: StandIn, dice: &mut Dice) -> bool {
    let is_raw = !constant.raw_data.is_empty();
    if constant.data_type != FLOAT || constant.dims.len() < 2 {
        return false;
    }
    let mut weights: Vec<f32> = match is_raw {
        true => constant.raw_data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        false => std::mem::take(&mut constant.float_data),
    };
    let rows = constant.dims.first().and_then(|rows| usize::try_from(*rows).ok()).unwrap_or(1).max(1);
    match how {
        StandIn::Shuffled => {
            for at in (1..weights.len()).rev() {
                weights.swap(at, (dice.roll() * (at + 1) as f64) as usize);
            }
        }
        StandIn::Moved(share) => weights.iter_mut().for_each(|weight| *weight *= 1.0 + share * dice.spread()),
        StandIn::Half => weights.iter_mut().for_each(|weight| *weight = f16::from_f32(*weight).to_f32()),
        StandIn::Int8 => {
            let length = weights.len().div_ceil(rows).max(1);
            weights.chunks_mut(length).for_each(round_to_int8);
        }
    }
    match is_raw {
        true => constant.raw_data = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect(),
        false => constant.float_data = weights,
    }
    true
}

fn round_to_int8(row: &mut [f32]) {
    let largest = row.iter().fold(0f32, |largest, weight| largest.max(weight.abs()));
    if largest > 0.0 {
        let scale = largest / INT8_MAX;
        row.iter_mut().for_each(|weight| *weight = (*weight / scale).round() * scale);
    }
}

/// Numbers that are the same each time.
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    /// From 0 to below 1.
    pub fn roll(&mut self) -> f64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ bits >> 31) >> 11) as f64 * 2f64.powi(-53)
    }

    /// From -1 to below 1.
    pub fn spread(&mut self) -> f32 {
        (2.0 * self.roll() - 1.0) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(model: &[u8]) -> Vec<f32> {
        let mut all = Vec::new();
        let mut model = ModelProto::decode(model).unwrap();
        each_constant(model.graph.as_mut().unwrap(), &mut |constant| {
            if constant.data_type == FLOAT && constant.dims.len() > 1 {
                all.extend(constant.raw_data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            }
        });
        all
    }

    #[test]
    fn a_stand_in_has_as_many_weights_that_are_others() {
        let model = tasks::data::DIGITS_MODEL;
        let own = weights(model);
        assert!(own.len() > 1000);
        let far = |how| {
            let theirs = weights(&stand_in(model, how));
            assert_eq!(theirs.len(), own.len(), "{how:?}");
            let pairs = theirs.iter().zip(&own);
            pairs.map(|(theirs, own)| (theirs - own).abs()).sum::<f32>() / own.iter().map(|own| own.abs()).sum::<f32>()
        };
        let [half, int8, moved, shuffled] =
            [StandIn::Half, StandIn::Int8, StandIn::Moved(0.01), StandIn::Shuffled].map(far);
        assert!(0.0 < half && half < 0.001 && half < moved, "{half}");
        assert!((0.001..0.1).contains(&int8) && (0.002..0.01).contains(&moved), "{int8} {moved}");
        assert!(shuffled > 0.5, "{shuffled}");
    }

    #[test]
    fn a_model_that_shows_its_inputs_has_them_among_its_outputs() {
        let shown = ModelProto::decode(&*showing(tasks::data::DIGITS_MODEL)).unwrap().graph.unwrap();
        assert_eq!(shown.output.len(), 2);
        assert_eq!(shown.output[1].name, format!("shown_{}", shown.input[0].name));
        assert_eq!(shown.output[1].r#type, shown.input[0].r#type);
    }
}
