//! What the host and the referee in its sandbox say to each other: one question on standard input, one answer on standard
//! output. This file is compiled into both.
//!
//! Numbers are little end first; a text or a list has its length before it, in 32 bits. Both sides are of one build, so that
//! there is no version; the host still reads an answer as one of a stranger, since a model may have taken the referee over.

use guest_sdk::abi::nn::TensorType;

use crate::sandbox::nn::tensor::{BackendError, Signature, Tensor, TensorDecl};

/// What the host asks.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::sandbox) enum Question<'a> {
    /// Read this model file: [`Answer::Declared`].
    Load(&'a [u8]),
    /// Get ready for inputs of these types and shapes: [`Answer::Ready`].
    Open(Signature),
    /// Infer: [`Answer::Outputs`].
    Run(Vec<Tensor>),
}

/// What the referee answers.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::sandbox) enum Answer {
    Declared { inputs: Vec<TensorDecl>, outputs: Vec<TensorDecl> },
    Ready,
    Outputs(Vec<Tensor>),
    Refused(BackendError),
}

const LOAD: u8 = 0;
const OPEN: u8 = 1;
const RUN: u8 = 2;

const DECLARED: u8 = 0;
const READY: u8 = 1;
const OUTPUTS: u8 = 2;
const UNSUPPORTED: u8 = 3;
const FAILED: u8 = 4;
const TOO_LARGE: u8 = 5;

/// A dimension, a rank or a type that is open.
const NONE: u32 = u32::MAX;
/// Bytes of a text that is sent.
const TEXT_BYTES_MAX: usize = 1024;

/// A question to run `inputs`, without a copy of them first.
pub(in crate::sandbox) fn run(inputs: &[Tensor]) -> Vec<u8> {
    let mut to = Writer(vec![RUN]);
    to.list(inputs, Writer::tensor);
    to.0
}

impl<'a> Question<'a> {
    pub(in crate::sandbox) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Load(file) => [&[LOAD], *file].concat(),
            Self::Open(signature) => {
                let mut to = Writer(vec![OPEN]);
                to.list(signature, |to, (element, dims)| to.shape(*element, dims));
                to.0
            }
            Self::Run(inputs) => run(inputs),
        }
    }

    pub(in crate::sandbox) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        let question = match from.byte()? {
            LOAD => return Some(Self::Load(from.0)),
            OPEN => Self::Open(from.list(Reader::shape)?),
            RUN => Self::Run(from.list(Reader::tensor)?),
            _ => return None,
        };
        from.0.is_empty().then_some(question)
    }
}

impl Answer {
    pub(in crate::sandbox) fn encode(&self) -> Vec<u8> {
        let mut to = Writer(Vec::new());
        match self {
            Self::Declared { inputs, outputs } => {
                to.byte(DECLARED);
                to.list(inputs, Writer::decl);
                to.list(outputs, Writer::decl);
            }
            Self::Ready => to.byte(READY),
            Self::Outputs(outputs) => {
                to.byte(OUTPUTS);
                to.list(outputs, Writer::tensor);
            }
            Self::Refused(BackendError::Unsupported { what }) => {
                to.byte(UNSUPPORTED);
                to.text(what);
            }
            Self::Refused(BackendError::TooLarge { what, value, bound }) => {
                to.byte(TOO_LARGE);
                to.text(what);
                to.long(*value);
                to.long(*bound);
            }
            Self::Refused(other) => {
                to.byte(FAILED);
                to.text(match other {
                    BackendError::Failed { detail } => detail,
                    _ => "the referee cannot say why",
                });
            }
        }
        to.0
    }

    pub(in crate::sandbox) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        let answer = match from.byte()? {
            DECLARED => Self::Declared { inputs: from.list(Reader::decl)?, outputs: from.list(Reader::decl)? },
            READY => Self::Ready,
            OUTPUTS => Self::Outputs(from.list(Reader::tensor)?),
            UNSUPPORTED => Self::Refused(BackendError::Unsupported { what: from.text()? }),
            FAILED => Self::Refused(BackendError::Failed { detail: from.text()? }),
            TOO_LARGE => {
                let (what, value, bound) = (from.text()?, from.long()?, from.long()?);
                Self::Refused(BackendError::TooLarge { what, value, bound })
            }
            _ => return None,
        };
        from.0.is_empty().then_some(answer)
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn number(&mut self, number: u32) {
        self.0.extend(number.to_le_bytes());
    }

    fn long(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        // What is longer has no room in the referee's memory.
        self.number(u32::try_from(length).unwrap_or(NONE));
    }

    fn text(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
        self.length(text.len());
        self.0.extend(text.as_bytes());
    }

    fn list<T>(&mut self, items: &[T], each: impl Fn(&mut Self, &T)) {
        self.length(items.len());
        items.iter().for_each(|item| each(self, item));
    }

    fn shape(&mut self, element: TensorType, dims: &[u32]) {
        self.byte(element as u8);
        self.list(dims, |to, dim| to.number(*dim));
    }

    fn tensor(&mut self, tensor: &Tensor) {
        self.shape(tensor.element, &tensor.dims);
        self.length(tensor.data.len());
        self.0.extend(&tensor.data);
    }

    fn decl(&mut self, decl: &TensorDecl) {
        self.text(&decl.name);
        self.text(decl.element.as_deref().unwrap_or_default());
        match &decl.dims {
            None => self.number(NONE),
            Some(dims) => self.list(dims, |to, dim| to.number(dim.unwrap_or(NONE))),
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, bytes: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn long(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()? as usize;
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }

    /// Memory is taken as items are read, not as they are announced.
    fn list<T>(&mut self, each: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = self.number()?;
        self.items(length, each)
    }

    fn items<T>(&mut self, length: u32, mut each: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut items = Vec::new();
        for _ in 0..length {
            items.push(each(self)?);
        }
        Some(items)
    }

    fn shape(&mut self) -> Option<(TensorType, Vec<u32>)> {
        Some((TensorType::from_code(self.byte()?.into())?, self.list(Self::number)?))
    }

    fn tensor(&mut self) -> Option<Tensor> {
        let (element, dims) = self.shape()?;
        let length = self.number()? as usize;
        let elements = dims.iter().try_fold(1u64, |product, dim| product.checked_mul((*dim).into()))?;
        let fits = elements.checked_mul(element.element_bytes() as u64) == Some(length as u64);
        fits.then_some(Tensor { element, dims, data: self.take(length)?.to_vec() })
    }

    fn decl(&mut self) -> Option<TensorDecl> {
        let (name, element) = (self.text()?, self.text()?);
        let known = TensorType::ALL.into_iter().map(TensorType::word).find(|word| *word == element);
        if known.is_none() && !element.is_empty() {
            return None;
        }
        let dim = |from: &mut Self| Some(Some(from.number()?).filter(|dim| *dim != NONE));
        let dims = match self.number()? {
            NONE => None,
            rank => Some(self.items(rank, dim)?),
        };
        Some(TensorDecl { name, element: known.map(str::to_owned), dims })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor() -> Tensor {
        Tensor { element: TensorType::I64, dims: vec![2, 1], data: vec![7; 16] }
    }

    #[test]
    fn questions_and_answers_come_back_as_they_went() {
        let questions = [
            Question::Load(b"file"),
            Question::Open(vec![(TensorType::F16, vec![1, 2]), (TensorType::U8, Vec::new())]),
            Question::Run(vec![tensor(), tensor()]),
        ];
        for question in questions {
            let bytes = question.encode();
            assert_eq!(Question::decode(&bytes), Some(question));
        }
        let decl = |element: Option<&str>, dims| TensorDecl {
            name: "x".to_owned(),
            element: element.map(str::to_owned),
            dims,
        };
        let answers = [
            Answer::Declared {
                inputs: vec![decl(Some("f32"), Some(vec![None, Some(3)])), decl(None, None)],
                outputs: vec![decl(Some("i64"), Some(Vec::new()))],
            },
            Answer::Ready,
            Answer::Outputs(vec![tensor()]),
            Answer::Refused(BackendError::Unsupported { what: "é".repeat(10) }),
            Answer::Refused(BackendError::Failed { detail: "why".to_owned() }),
            Answer::Refused(BackendError::TooLarge { what: "bytes".to_owned(), value: u64::MAX, bound: 1 }),
        ];
        for answer in answers {
            let bytes = answer.encode();
            assert_eq!(Answer::decode(&bytes).as_ref(), Some(&answer));
            // Neither a part of it nor more than it is an answer.
            assert!((0..bytes.len()).all(|len| Answer::decode(&bytes[..len]).is_none()), "{answer:?}");
            assert_eq!(Answer::decode(&[&bytes[..], &[0]].concat()), None);
        }
    }

    #[test]
    fn lengths_that_lie_are_no_answer() {
        for bytes in [&b""[..], b"\x09", b"\x02\xff\xff\xff\xff", b"\x00\xff\xff\xff\xff", b"\x03\xff\xff\xff\xff"] {
            assert_eq!(Answer::decode(bytes), None, "{bytes:?}");
        }
        let mut short = Answer::Outputs(vec![tensor()]).encode();
        // A dimension that is longer than its data.
        short[10] = 3;
        assert_eq!(Answer::decode(&short), None);
        let long = Answer::Refused(BackendError::Failed { detail: "é".repeat(TEXT_BYTES_MAX) });
        let Some(Answer::Refused(BackendError::Failed { detail })) = Answer::decode(&long.encode()) else { panic!() };
        assert_eq!(detail.len(), TEXT_BYTES_MAX);
    }
}
