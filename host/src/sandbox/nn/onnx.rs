//! Writes ONNX files, field by field: the model that devices are measured with, and small and bad ones for tests, with
//! nothing between them and the bytes.
//!
//! ```
//! use host::sandbox::onnx::{Model, f32s, FLOAT};
//!
//! let bytes = Model::new()
//!     .input("x", FLOAT, &[-1, 4])
//!     .constant("one", FLOAT, &[1], &f32s(&[1.0]))
//!     .node("Add", &["x", "one"], &["y"], &[])
//!     .output("y", FLOAT, &[-1, 4])
//!     .bytes();
//! assert!(host::sandbox::model_preflight(&bytes).is_ok());
//! ```

/// ONNX's numbers of element types.
pub const FLOAT: i32 = 1;
/// Unsigned bytes.
pub const UINT8: i32 = 2;
/// Signed bytes.
pub const INT8: i32 = 3;
/// 32-bit integers.
pub const INT32: i32 = 6;
/// 64-bit integers.
pub const INT64: i32 = 7;
/// Texts.
pub const STRING: i32 = 8;
/// Booleans.
pub const BOOL: i32 = 9;
/// IEEE half.
pub const FLOAT16: i32 = 10;
/// IEEE double.
pub const DOUBLE: i32 = 11;
/// The upper half of an IEEE single.
pub const BFLOAT16: i32 = 16;

/// A message in the making.
#[derive(Debug, Clone, Default)]
pub struct Message(pub Vec<u8>);

impl Message {
    /// A base-128 number.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    /// An integer field.
    #[must_use]
    pub fn number(mut self, field: u64, value: i64) -> Self {
        self.varint(field << 3);
        self.varint(value.cast_unsigned());
        self
    }

    /// A field with a length: text, bytes, another message, a packed list.
    #[must_use]
    pub fn field(mut self, field: u64, content: impl AsRef<[u8]>) -> Self {
        self.varint(field << 3 | 2);
        self.varint(content.as_ref().len() as u64);
        self.0.extend_from_slice(content.as_ref());
        self
    }

    /// A field of four bytes.
    #[must_use]
    pub fn float(mut self, field: u64, value: f32) -> Self {
        self.varint(field << 3 | 5);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A packed list of integers.
    #[must_use]
    pub fn numbers(self, field: u64, values: &[i64]) -> Self {
        let mut packed = Self::default();
        values.iter().for_each(|value| packed.varint(value.cast_unsigned()));
        self.field(field, packed)
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Bytes of numbers, little end first.
pub fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Bytes of numbers, little end first.
pub fn i64s(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A constant: `TensorProto`.
pub fn tensor(name: &str, element: i32, dims: &[i64], raw: &[u8]) -> Message {
    Message::default().numbers(1, dims).number(2, element.into()).field(8, name).field(9, raw)
}

/// An attribute of an operator: `AttributeProto`.
pub fn attribute(name: &str, value: &Attribute) -> Message {
    let message = Message::default().field(1, name);
    match value {
        Attribute::Float(value) => message.float(2, *value).number(20, 1),
        Attribute::Int(value) => message.number(3, *value).number(20, 2),
        Attribute::Text(value) => message.field(4, value).number(20, 3),
        Attribute::Tensor(value) => message.field(5, value).number(20, 4),
        Attribute::Graph(value) => message.field(6, value).number(20, 5),
        Attribute::Ints(value) => message.numbers(8, value).number(20, 7),
    }
}

/// The value of an attribute.
#[derive(Debug, Clone)]
pub enum Attribute {
    /// A number.
    Float(f32),
    /// An integer.
    Int(i64),
    /// A text.
    Text(String),
    /// A constant.
    Tensor(Message),
    /// A graph.
    Graph(Message),
    /// Integers.
    Ints(Vec<i64>),
}

/// A model in the making; operator set 13 unless it is told otherwise.
#[derive(Debug, Clone)]
pub struct Model {
    graph: Message,
    opset: i64,
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

impl Model {
    /// No operators.
    pub fn new() -> Self {
        Self { graph: Message::default().field(2, "graph"), opset: 13 }
    }

    /// With the operators of this set.
    #[must_use]
    pub fn opset(self, opset: i64) -> Self {
        Self { opset, ..self }
    }

    fn value(self, field: u64, name: &str, element: i32, dims: &[i64]) -> Self {
        let shape = dims.iter().fold(Message::default(), |shape, dim| {
            let open = Message::default().field(2, "n");
            shape.field(1, if *dim < 0 { open } else { Message::default().number(1, *dim) })
        });
        let ty = Message::default().field(1, Message::default().number(1, element.into()).field(2, shape));
        self.with(field, Message::default().field(1, name).field(2, ty))
    }

    /// An input; dimensions below zero are open.
    #[must_use]
    pub fn input(self, name: &str, element: i32, dims: &[i64]) -> Self {
        self.value(11, name, element, dims)
    }

    /// An output; dimensions below zero are open.
    #[must_use]
    pub fn output(self, name: &str, element: i32, dims: &[i64]) -> Self {
        self.value(12, name, element, dims)
    }

    /// A constant.
    #[must_use]
    pub fn constant(self, name: &str, element: i32, dims: &[i64], raw: &[u8]) -> Self {
        self.with(5, tensor(name, element, dims, raw))
    }

    /// An operator.
    #[must_use]
    pub fn node(self, operator: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, Attribute)]) -> Self {
        self.node_of("", operator, inputs, outputs, attributes)
    }

    /// An operator of another domain than ONNX's own.
    #[must_use]
    pub fn node_of(
        self,
        domain: &str,
        operator: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[(&str, Attribute)],
    ) -> Self {
        let node = inputs.iter().fold(Message::default(), |node, name| node.field(1, name));
        let node = outputs.iter().fold(node, |node, name| node.field(2, name));
        let node = node.field(3, outputs.first().copied().unwrap_or_default()).field(4, operator);
        let node = attributes.iter().fold(node, |node, (name, value)| node.field(5, attribute(name, value)));
        self.with(1, if domain.is_empty() { node } else { node.field(7, domain) })
    }

    /// Any field of the graph.
    #[must_use]
    pub fn with(self, field: u64, content: impl AsRef<[u8]>) -> Self {
        Self { graph: self.graph.field(field, content), ..self }
    }

    /// The graph alone, for an attribute.
    pub fn graph(self) -> Message {
        self.graph
    }

    /// The file as a message, to add to.
    pub fn message(self) -> Message {
        let opset = Message::default().field(1, "").number(2, self.opset);
        Message::default().number(1, 8).field(2, "quorate").field(7, self.graph).field(8, opset)
    }

    /// The file.
    pub fn bytes(self) -> Vec<u8> {
        self.message().0
    }
}
