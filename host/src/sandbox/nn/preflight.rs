//! Checks a model file before a backend sees it: one pass over the bytes of ONNX's protobuf, in bounded memory.
//!
//! Backends decode a file into structures many times its size, and believe what it says of itself. Here everything is counted
//! first: messages, nodes, the depth of graphs in graphs, the elements of constants against the bytes that are there. What is
//! refused is refused for every backend: files that are no model, that name other files, whose constants are not as long as
//! their shape says, that bring functions of their own, or whose operators draw random numbers. Whether a backend has an
//! operator is the backend's to say; whether constants grow while a model is compiled is checked there too, since only a
//! backend knows shapes.

mod proto;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use self::proto::{Fields, Value, each_integer, floats, integers};
use super::TensorDecl;
use crate::limits;

/// What is known of a model file that may be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFacts {
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Version of the file format.
    pub ir_version: i64,
    /// What wrote it, with its version.
    pub producer: String,
    /// Versions of operator sets by domain; ONNX's own domain is empty.
    pub opsets: BTreeMap<String, i64>,
    /// How often each operator occurs, by domain; graphs inside of operators count too.
    pub operators: BTreeMap<String, BTreeMap<String, u32>>,
    /// Operators in all.
    pub nodes: u32,
    /// Element types of inputs, outputs and constants, as [`TensorDecl::element`] has them.
    pub types: BTreeSet<String>,
    /// Elements of all constants.
    pub parameters: u64,
    /// Bytes of all constants, decoded.
    pub constant_bytes: u64,
    /// Whether it computes with quantized numbers.
    pub quantized: bool,
    /// What it takes, without inputs that have a default.
    pub inputs: Vec<TensorDecl>,
    /// What it gives.
    pub outputs: Vec<TensorDecl>,
    /// Dimensions of inputs that a caller chooses.
    pub dynamic: Vec<DynamicAxis>,
}

/// A dimension of an input that the model leaves open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DynamicAxis {
    /// The input.
    pub input: String,
    /// Which dimension, from 0.
    pub axis: u32,
    /// What the model calls it, if anything: dimensions of one name are equal.
    pub name: Option<String>,
}

/// Why a model file is not loaded, by any backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum ModelRefusal {
    /// No ONNX file, or a damaged one.
    #[error("not an ONNX model: {detail}; export it again, or fetch it again")]
    Malformed {
        /// What is wrong.
        detail: String,
    },
    /// Longer or more numerous than a model may be.
    #[error("{what} is {value}, over the bound of {bound}: make the model smaller")]
    TooLarge {
        /// What was counted.
        what: String,
        /// As found.
        value: u64,
        /// Largest allowed.
        bound: u64,
    },
    /// A constant has another length than its type and shape say.
    #[error("constant `{tensor}` has {found} bytes, its type and shape take {expected}: export the model again")]
    ConstantLength {
        /// The constant.
        tensor: String,
        /// What type and shape take.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// Constants lie in another file.
    #[error("constant `{tensor}` lies in another file: save the model with its weights inside")]
    ExternalData {
        /// The constant.
        tensor: String,
    },
    /// A tensor has a type that no backend here computes with.
    #[error("tensor `{tensor}` has element type {code}, which is unknown here: convert the model")]
    ElementType {
        /// The tensor.
        tensor: String,
        /// ONNX's number of the type.
        code: i64,
    },
    /// Sparse constants, which are small in the file and large in memory.
    #[error("model has sparse constants: convert them to dense ones")]
    Sparse,
    /// Functions of its own, which expand to any number of operators.
    #[error("model defines {count} functions of its own: export it with functions inlined")]
    Functions {
        /// How many.
        count: u64,
    },
    /// An operator whose results differ from run to run.
    #[error("operator {operator} draws random numbers, so that no two runs agree: give them to the model as an input")]
    Random {
        /// The operator.
        operator: String,
    },
}

impl ModelRefusal {
    fn malformed(detail: &str) -> Self {
        Self::Malformed { detail: detail.to_owned() }
    }

    /// A stable word for metrics and the wire.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "model_malformed",
            Self::TooLarge { .. } => "model_too_large",
            Self::ConstantLength { .. } => "model_constant_length",
            Self::ExternalData { .. } => "model_external_data",
            Self::ElementType { .. } => "model_element_type",
            Self::Sparse => "model_sparse",
            Self::Functions { .. } => "model_functions",
            Self::Random { .. } => "model_random",
        }
    }
}

/// Checks a model file, and says what is in it.
///
/// # Errors
/// The first rule that it breaks.
pub fn model_preflight(bytes: &[u8]) -> Result<ModelFacts, ModelRefusal> {
    bounded("length of the model in bytes", bytes.len() as u64, limits::MODEL_BYTES_MAX)?;
    let mut walk = Walk::new(bytes.len() as u64);
    walk.model(bytes)?;
    Ok(walk.facts)
}

fn bounded(what: &str, value: u64, bound: u64) -> Result<(), ModelRefusal> {
    if value <= bound { Ok(()) } else { Err(ModelRefusal::TooLarge { what: what.to_owned(), value, bound }) }
}

/// ONNX's number, our word, and the bits of one element.
const TYPES: [(i64, &str, u64); 23] = [
    (1, "f32", 32),
    (2, "u8", 8),
    (3, "i8", 8),
    (4, "u16", 16),
    (5, "i16", 16),
    (6, "i32", 32),
    (7, "i64", 64),
    // Each has bytes of its own beside this; preflight counts messages and lengths.
    (8, "string", 0),
    (9, "bool", 8),
    (10, "f16", 16),
    (11, "f64", 64),
    (12, "u32", 32),
    (13, "u64", 64),
    (14, "complex64", 64),
    (15, "complex128", 128),
    (16, "bf16", 16),
    (17, "f8e4m3fn", 8),
    (18, "f8e4m3fnuz", 8),
    (19, "f8e5m2", 8),
    (20, "f8e5m2fnuz", 8),
    (21, "u4", 4),
    (22, "i4", 4),
    (23, "f4e2m1", 4),
];

fn element(tensor: &str, code: i64) -> Result<(&'static str, u64), ModelRefusal> {
    let known = TYPES.iter().find(|(number, ..)| *number == code);
    let unknown = || ModelRefusal::ElementType { tensor: tensor.to_owned(), code };
    known.map(|(_, word, bits)| (*word, *bits)).ok_or_else(unknown)
}

/// Operators with a random number in them, in ONNX's own domain.
const RANDOM: [&str; 6] =
    ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"];

/// Whether an operator computes with quantized numbers.
fn is_quantized(operator: &str) -> bool {
    operator.starts_with("QLinear")
        || operator.starts_with("DynamicQuantize")
        || operator.starts_with("QAttention")
        || ["QuantizeLinear", "DequantizeLinear", "ConvInteger", "MatMulInteger", "MatMulNBits"].contains(&operator)
        || operator.ends_with("BlockQuantized")
}

/// An input or output as it is read.
struct Declared {
    decl: TensorDecl,
    /// Names of dimensions, by axis.
    open: Vec<(u32, Option<String>)>,
}

struct Walk {
    facts: ModelFacts,
    /// Fields seen, of all messages.
    fields: u64,
}

impl Walk {
    fn new(bytes: u64) -> Self {
        let facts = ModelFacts {
            bytes,
            ir_version: 0,
            producer: String::new(),
            opsets: BTreeMap::new(),
            operators: BTreeMap::new(),
            nodes: 0,
            types: BTreeSet::new(),
            parameters: 0,
            constant_bytes: 0,
            quantized: false,
            inputs: Vec::new(),
            outputs: Vec::new(),
            dynamic: Vec::new(),
        };
        Self { facts, fields: 0 }
    }

    /// Each field of a message, counted.
    fn each<'a>(
        &mut self,
        message: &'a [u8],
        mut field: impl FnMut(&mut Self, u64, Value<'a>) -> Result<(), ModelRefusal>,
    ) -> Result<(), ModelRefusal> {
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next()? {
            self.fields += 1;
            bounded("number of fields of the model", self.fields, limits::MODEL_FIELDS_MAX)?;
            field(self, number, value)?;
        }
        Ok(())
    }

    fn model(&mut self, bytes: &[u8]) -> Result<(), ModelRefusal> {
        let (mut graphs, mut functions) = (0u64, 0u64);
        let mut names = [String::new(), String::new()];
        self.each(bytes, |walk, field, value| {
            match field {
                1 => walk.facts.ir_version = value.signed()?,
                2 => value.text()?.clone_into(&mut names[0]),
                3 => value.text()?.clone_into(&mut names[1]),
                7 => {
                    // A second one would be merged into the first by some readers and replace it in others.
                    graphs += 1;
                    if graphs > 1 {
                        return Err(ModelRefusal::malformed("it has two graphs"));
                    }
                    walk.graph(value.bytes()?, 0)?;
                }
                8 => walk.opset(value.bytes()?)?,
                14 => walk.each(value.bytes()?, |_, _, _| Ok(()))?,
                25 => functions += 1,
                _ => {}
            }
            Ok(())
        })?;
        self.facts.producer = names.join(" ").trim().chars().take(100).collect();
        if functions > 0 {
            return Err(ModelRefusal::Functions { count: functions });
        }
        if graphs == 0 {
            return Err(ModelRefusal::malformed("it has no graph"));
        }
        if self.facts.opsets.is_empty() {
            return Err(ModelRefusal::malformed("it names no operator set"));
        }
        Ok(())
    }

    fn opset(&mut self, bytes: &[u8]) -> Result<(), ModelRefusal> {
        let (mut domain, mut version) = ("", 0);
        self.each(bytes, |_, field, value| {
            match field {
                1 => domain = value.text()?,
                2 => version = value.signed()?,
                _ => {}
            }
            Ok(())
        })?;
        self.facts.opsets.insert(own_domain(domain).to_owned(), version);
        bounded("number of operator sets", self.facts.opsets.len() as u64, limits::MODEL_OPSETS_MAX)
    }

    /// A graph; `depth` graphs are around it.
    fn graph(&mut self, bytes: &[u8], depth: u64) -> Result<(), ModelRefusal> {
        bounded("depth of graphs in graphs", depth, limits::MODEL_DEPTH_MAX)?;
        let mut constants = BTreeSet::new();
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        self.each(bytes, |walk, field, value| {
            match field {
                1 => walk.node(value.bytes()?, depth)?,
                5 => {
                    constants.insert(walk.tensor(value.bytes()?)?);
                }
                11 => inputs.push(walk.value_info(value.bytes()?)?),
                12 => outputs.push(walk.value_info(value.bytes()?)?),
                13 => drop(walk.value_info(value.bytes()?)?),
                14 | 16 => walk.each(value.bytes()?, |_, _, _| Ok(()))?,
                15 => return Err(ModelRefusal::Sparse),
                _ => {}
            }
            Ok(())
        })?;
        if depth > 0 {
            return Ok(());
        }
        for Declared { decl, open } in inputs.into_iter().filter(|input| !constants.contains(input.decl.name.as_str()))
        {
            let name = |(axis, name)| DynamicAxis { input: decl.name.clone(), axis, name };
            self.facts.dynamic.extend(open.into_iter().map(name));
            self.facts.inputs.push(decl);
        }
        self.facts.outputs.extend(outputs.into_iter().map(|output| output.decl));
        let tensors = self.facts.inputs.len().max(self.facts.outputs.len()) as u64;
        bounded("number of inputs or outputs", tensors, limits::MODEL_TENSORS_MAX)?;
        let each = self.facts.inputs.iter().chain(&self.facts.outputs);
        self.facts.types.extend(each.filter_map(|decl| decl.element.clone()));
        Ok(())
    }

    fn node(&mut self, bytes: &[u8], depth: u64) -> Result<(), ModelRefusal> {
        let (mut operator, mut domain) = ("", "");
        self.each(bytes, |walk, field, value| {
            match field {
                4 => operator = value.text()?,
                5 => walk.attribute(value.bytes()?, depth)?,
                7 => domain = value.text()?,
                9 | 10 => walk.each(value.bytes()?, |_, _, _| Ok(()))?,
                _ => {}
            }
            Ok(())
        })?;
        let domain = own_domain(domain);
        if domain.is_empty() && RANDOM.contains(&operator) {
            return Err(ModelRefusal::Random { operator: operator.to_owned() });
        }
        self.facts.nodes += 1;
        bounded("number of operators", self.facts.nodes.into(), limits::MODEL_NODES_MAX)?;
        self.facts.quantized |= is_quantized(operator);
        let operators = self.facts.operators.entry(domain.to_owned()).or_default();
        *operators.entry(operator.to_owned()).or_default() += 1;
        Ok(())
    }

    fn attribute(&mut self, bytes: &[u8], depth: u64) -> Result<(), ModelRefusal> {
        let mut numbers = 0u64;
        self.each(bytes, |walk, field, value| {
            match field {
                5 | 10 => drop(walk.tensor(value.bytes()?)?),
                6 | 11 => walk.graph(value.bytes()?, depth + 1)?,
                7 => numbers += floats(value, 4)?,
                8 => numbers += integers(value),
                22 | 23 => return Err(ModelRefusal::Sparse),
                _ => {}
            }
            bounded("number of values of an attribute", numbers, limits::MODEL_ATTRIBUTE_VALUES_MAX)
        })
    }

    /// A constant; gives its name.
    fn tensor<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a str, ModelRefusal> {
        let (mut name, mut code, mut elements, mut rank) = ("", 0, Some(1u64), 0u64);
        // Numbers by lists of their own, bytes as they are in memory, texts.
        let (mut listed, mut raw, mut texts, mut text_bytes) = (0u64, None, 0u64, 0u64);
        self.each(bytes, |_, field, value| {
            match field {
                1 => each_integer(value, |dim| {
                    rank += 1;
                    let dim = u64::try_from(dim)
                        .map_err(|_| ModelRefusal::malformed("a constant has a negative dimension"))?;
                    elements = elements.and_then(|elements| elements.checked_mul(dim));
                    bounded("rank of a constant", rank, limits::MODEL_RANK_MAX)
                })?,
                2 => code = value.signed()?,
                3 => return Err(ModelRefusal::malformed("a constant is cut into segments")),
                4 => listed += floats(value, 4)?,
                5 | 7 | 11 => listed += integers(value),
                6 => {
                    texts += 1;
                    text_bytes += value.bytes()?.len() as u64;
                }
                8 => name = value.text()?,
                9 => raw = Some(value.bytes()?.len() as u64).filter(|raw| *raw > 0),
                10 => listed += floats(value, 8)?,
                13 => return Err(ModelRefusal::ExternalData { tensor: name.to_owned() }),
                14 if value.signed()? != 0 => return Err(ModelRefusal::ExternalData { tensor: name.to_owned() }),
                _ => {}
            }
            Ok(())
        })?;
        let (word, bits) = element(name, code)?;
        let bytes_of = |elements: u64| elements.checked_mul(bits).map(|bits| bits.div_ceil(8));
        let expected = elements.and_then(bytes_of).unwrap_or(u64::MAX);
        let found = match (raw, code) {
            (Some(raw), _) if code != 8 && listed == 0 && texts == 0 => raw,
            (None, 8) if listed == 0 && elements == Some(texts) => 0,
            // Two numbers each.
            (None, 14 | 15) if texts == 0 => bytes_of(listed / 2).unwrap_or(u64::MAX),
            // Two in one number of the list, if whoever wrote it did so.
            (None, 21..=23) if texts == 0 && Some(listed) == elements.map(|elements| elements.div_ceil(2)) => expected,
            (None, _) if texts == 0 && code != 8 => bytes_of(listed).unwrap_or(u64::MAX),
            _ => return Err(ModelRefusal::malformed("a constant has its values in two ways, or in a wrong one")),
        };
        if found != expected {
            return Err(ModelRefusal::ConstantLength { tensor: name.to_owned(), expected, found });
        }
        self.facts.types.insert(word.to_owned());
        self.facts.parameters = self.facts.parameters.saturating_add(elements.unwrap_or(u64::MAX));
        let bytes = expected.saturating_add(text_bytes);
        self.facts.constant_bytes = self.facts.constant_bytes.saturating_add(bytes);
        bounded("bytes of all constants", self.facts.constant_bytes, limits::MODEL_CONSTANT_BYTES_MAX)?;
        Ok(name)
    }

    /// An input, an output, or what is known of a tensor between.
    fn value_info(&mut self, bytes: &[u8]) -> Result<Declared, ModelRefusal> {
        let mut name = "";
        let mut ty = None;
        self.each(bytes, |_, field, value| {
            match field {
                1 => name = value.text()?,
                2 if ty.is_some() => return Err(ModelRefusal::malformed("a tensor has two types")),
                2 => ty = Some(value.bytes()?),
                _ => {}
            }
            Ok(())
        })?;
        let decl = TensorDecl { name: name.to_owned(), element: None, dims: None };
        let mut declared = Declared { decl, open: Vec::new() };
        self.each(ty.unwrap_or_default(), |walk, field, value| {
            // Anything but a tensor: a backend that has lists or maps may take it.
            if field != 1 { Ok(()) } else { walk.tensor_type(value.bytes()?, &mut declared) }
        })?;
        Ok(declared)
    }

    fn tensor_type(&mut self, bytes: &[u8], declared: &mut Declared) -> Result<(), ModelRefusal> {
        self.each(bytes, |walk, field, value| {
            match field {
                1 => {
                    let (word, _) = element(&declared.decl.name, value.signed()?)?;
                    declared.decl.element = Some(word.to_owned());
                }
                2 if declared.decl.dims.is_some() => return Err(ModelRefusal::malformed("a tensor has two shapes")),
                2 => {
                    declared.decl.dims = Some(Vec::new());
                    walk.each(value.bytes()?, |walk, field, value| {
                        if field != 1 { Ok(()) } else { walk.dimension(value.bytes()?, declared) }
                    })?;
                }
                _ => {}
            }
            Ok(())
        })?;
        let dims = declared.decl.dims.iter().flatten().map(|dim| u64::from(dim.unwrap_or(1)));
        let elements = dims.fold(1u64, u64::saturating_mul);
        // One element takes a byte or more, so that nobody could ever bring more of them.
        bounded(
            &format!("number of elements of `{}`", short(&declared.decl.name)),
            elements,
            limits::NN_TENSOR_BYTES_MAX,
        )
    }

    fn dimension(&mut self, bytes: &[u8], declared: &mut Declared) -> Result<(), ModelRefusal> {
        let (mut length, mut name) = (None, None);
        self.each(bytes, |_, field, value| {
            match field {
                1 => length = Some(value.signed()?),
                2 => name = Some(value.text()?),
                _ => {}
            }
            Ok(())
        })?;
        // Below zero is a way to leave it open.
        let length = length.and_then(|length| u64::try_from(length).ok());
        let length = length.map(|length| {
            bounded("length of a dimension", length, limits::NN_TENSOR_BYTES_MAX).map(|()| u32::try_from(length).ok())
        });
        let length = length.transpose()?.flatten();
        let dims = declared.decl.dims.get_or_insert_default();
        if length.is_none() {
            let axis = u32::try_from(dims.len()).unwrap_or(u32::MAX);
            declared.open.push((axis, name.filter(|name| !name.is_empty()).map(str::to_owned)));
        }
        dims.push(length);
        bounded("rank of a tensor", dims.len() as u64, limits::MODEL_RANK_MAX)
    }
}

/// ONNX's own operators have two names for their domain.
fn own_domain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

fn short(name: &str) -> String {
    name.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::onnx::*, *};

    const DIGITS: &[u8] = include_bytes!("../../../../data/digits/digits.onnx");

    fn small() -> Model {
        Model::new()
            .input("x", FLOAT, &[-1, 4])
            .constant("one", FLOAT, &[1], &f32s(&[1.0]))
            .node("Add", &["x", "one"], &["y"], &[])
            .output("y", FLOAT, &[-1, 4])
    }

    fn refused(model: Model) -> &'static str {
        model_preflight(&model.bytes()).unwrap_err().word()
    }

    #[test]
    fn a_model_is_described() {
        let facts = model_preflight(DIGITS).unwrap();
        assert_eq!((facts.bytes, facts.nodes, facts.quantized), (DIGITS.len() as u64, 4, false));
        assert_eq!(facts.parameters, 1 + 64 * 256 + 256 + 256 * 10 + 10);
        assert_eq!((facts.inputs.len(), facts.inputs[0].dims.clone()), (1, Some(vec![None, Some(64)])));
        assert_eq!(facts.types, BTreeSet::from(["f32".to_owned()]));
        let facts = model_preflight(&small().bytes()).unwrap();
        assert_eq!(facts.operators, BTreeMap::from([(String::new(), BTreeMap::from([("Add".to_owned(), 1)]))]));
        let axis = DynamicAxis { input: "x".to_owned(), axis: 0, name: Some("n".to_owned()) };
        assert_eq!((facts.dynamic, facts.opsets), (vec![axis], BTreeMap::from([(String::new(), 13)])));
    }

    #[test]
    fn an_input_with_a_default_is_none() {
        let facts = model_preflight(&small().input("one", FLOAT, &[1]).bytes()).unwrap();
        assert_eq!(facts.inputs.len(), 1);
    }

    #[test]
    fn quantized_models_say_so() {
        let model = small().node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"], &[]);
        assert!(model_preflight(&model.bytes()).unwrap().quantized);
    }

    #[test]
    fn every_cut_and_every_flip_is_refused_or_read() {
        let bytes = small().node("If", &["x"], &["z"], &[("then_branch", Attribute::Graph(small().graph()))]).bytes();
        for length in 0..bytes.len() {
            let _ = model_preflight(&bytes[..length]);
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[length] ^= 1 << bit;
                let _ = model_preflight(&flipped);
            }
        }
        assert_eq!(model_preflight(&bytes[..bytes.len() - 1]).unwrap_err().word(), "model_malformed");
        assert_eq!(model_preflight(b"").unwrap_err().word(), "model_malformed");
    }

    #[test]
    fn each_rule_has_its_word() {
        let constant = |element, dims: &[i64], raw: &[u8]| small().constant("c", element, dims, raw);
        let deep = (0..10).fold(small(), |inner, _| {
            small().node("If", &["x"], &["z"], &[("then_branch", Attribute::Graph(inner.graph()))])
        });
        let attribute = |value| small().node("Cast", &["x"], &["z"], &[("to", value)]);
        let cases = [
            ("model_constant_length", constant(FLOAT, &[1 << 40], &[0; 4])),
            ("model_constant_length", constant(FLOAT, &[1 << 40, 1 << 40], &[0; 4])),
            ("model_constant_length", constant(FLOAT, &[2], &[0; 4])),
            ("model_constant_length", constant(INT64, &[0], &[0; 8])),
            ("model_malformed", constant(FLOAT, &[-1], &[0; 4])),
            ("model_malformed", constant(STRING, &[1], b"text")),
            ("model_element_type", constant(99, &[1], &[0; 4])),
            ("model_element_type", small().input("z", 0, &[1])),
            ("model_too_large", constant(FLOAT, &[1; 17], &[0; 4])),
            ("model_too_large", small().input("z", FLOAT, &[1 << 30, 1 << 30])),
            ("model_too_large", small().input("z", FLOAT, &[1 << 40])),
            ("model_too_large", (0..20_001).fold(small(), |model, _| model.with(1, b""))),
            ("model_too_large", small().with(1, (0..1 << 20).fold(Message::default(), |node, _| node.field(6, b"")))),
            ("model_too_large", deep),
            ("model_too_large", attribute(Attribute::Ints(vec![0; (1 << 20) + 1]))),
            ("model_too_large", small().with(1, Message::default().field(4, "x".repeat(5000)))),
            ("model_sparse", small().with(15, b"")),
            ("model_random", small().node("RandomNormalLike", &["x"], &["z"], &[])),
            ("model_external_data", small().with(5, tensor("c", FLOAT, &[1], b"").number(14, 1))),
        ];
        for (word, model) in cases {
            assert_eq!(refused(model), word);
        }
        let functions = small().message().field(25, b"").0;
        assert_eq!(model_preflight(&functions).unwrap_err().word(), "model_functions");
        let twice = small().message().field(7, small().graph()).0;
        assert_eq!(model_preflight(&twice).unwrap_err().word(), "model_malformed");
    }

    #[test]
    fn lists_of_numbers_are_constants_too() {
        let list = |dims: &[i64], numbers: &[i64]| {
            small()
                .with(5, Message::default().numbers(1, dims).number(2, INT64.into()).field(8, "c").numbers(7, numbers))
        };
        assert_eq!(model_preflight(&list(&[3], &[1, -1, 300]).bytes()).unwrap().parameters, 4);
        assert_eq!(refused(list(&[2], &[1, -1, 300])), "model_constant_length");
        let half = Message::default().numbers(1, &[2]).number(2, FLOAT16.into()).numbers(5, &[1, 2]);
        assert_eq!(model_preflight(&small().with(5, half).bytes()).unwrap().constant_bytes, 8);
    }
}
