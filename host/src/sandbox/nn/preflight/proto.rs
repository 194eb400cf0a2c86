//! The wire format of protobuf, read without believing it: fields one after the other, nothing allocated.

use super::ModelRefusal;
use crate::limits;

/// One field's value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Number(u64),
    Fixed64,
    Fixed32,
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The content of a field that has a length.
    pub(super) fn bytes(self) -> Result<&'a [u8], ModelRefusal> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(ModelRefusal::malformed("a field has another wire type than its message says")),
        }
    }

    /// Text, of a length that a name may have.
    pub(super) fn text(self) -> Result<&'a str, ModelRefusal> {
        let bytes = self.bytes()?;
        if bytes.len() > limits::MODEL_NAME_BYTES_MAX {
            let (value, bound) = (bytes.len() as u64, limits::MODEL_NAME_BYTES_MAX as u64);
            return Err(ModelRefusal::TooLarge { what: "length of a name in bytes".to_owned(), value, bound });
        }
        std::str::from_utf8(bytes).map_err(|_| ModelRefusal::malformed("a name is not UTF-8"))
    }

    /// An integer, as signed as its message has it.
    pub(super) fn signed(self) -> Result<i64, ModelRefusal> {
        match self {
            Self::Number(number) => Ok(number.cast_signed()),
            _ => Err(ModelRefusal::malformed("a number has another wire type than its message says")),
        }
    }
}

/// Reads the fields of one message.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next field's number and value.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, ModelRefusal> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed64)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            5 => self.take(4).map(|_| Value::Fixed32)?,
            _ => return Err(ModelRefusal::malformed("a field has a wire type that ONNX does not use")),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], ModelRefusal> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(cut)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, ModelRefusal> {
        let mut number = 0u64;
        for (at, byte) in self.rest.iter().take(10).enumerate() {
            number |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.rest = self.rest.get(at + 1..).unwrap_or_default();
                return Ok(number);
            }
        }
        Err(cut())
    }
}

fn cut() -> ModelRefusal {
    ModelRefusal::malformed("it ends inside a field")
}

/// How many integers a packed field has, or one for a field that is not packed.
pub(super) fn integers(value: Value<'_>) -> u64 {
    match value {
        // Each ends with a byte whose highest bit is not set.
        Value::Bytes(bytes) => bytes.iter().filter(|byte| **byte < 0x80).count() as u64,
        _ => 1,
    }
}

/// The integers of a packed field, or the one of a field that is not packed.
pub(super) fn each_integer(
    value: Value<'_>,
    mut each: impl FnMut(i64) -> Result<(), ModelRefusal>,
) -> Result<(), ModelRefusal> {
    match value {
        Value::Bytes(bytes) => {
            let mut fields = Fields::new(bytes);
            while !fields.rest.is_empty() {
                each(fields.varint()?.cast_signed())?;
            }
            Ok(())
        }
        value => each(value.signed()?),
    }
}

/// How many floating-point numbers of so many bytes a packed field has, or one for a field that is not packed.
pub(super) fn floats(value: Value<'_>, bytes_each: u64) -> Result<u64, ModelRefusal> {
    match value {
        Value::Bytes(bytes) if bytes.len() as u64 % bytes_each == 0 => Ok(bytes.len() as u64 / bytes_each),
        Value::Fixed32 if bytes_each == 4 => Ok(1),
        Value::Fixed64 if bytes_each == 8 => Ok(1),
        _ => Err(ModelRefusal::malformed("a list of numbers has a broken length")),
    }
}
