//! What a task's models answered, kept so that an auditor can run the task again without their noise.
//!
//! ```text
//! compute ─[observe]─► backend ─► kept: (model, input hash, fuel, outputs | error | fuel spent)
//!                └─ where answers are fed: the guest gets the recorded one, and what this backend gave is kept
//! ```
//!
//! A receipt of a class other than `exact` names the [`NnRecord`] of its task as a blob. Its outputs hash to those that the
//! execution's `nn_root` commits to, which [`NnRecord::open`] checks; what the root says nothing of, fuel and failures, is
//! bound by the receipt's signature and checked by running the inferences.
//!
//! **Feeding.** A task whose answers are fed does exactly what it did where they were recorded, on any backend: guests see
//! tensors, error numbers and fuel, and all three come from the record. Each inference runs here all the same, and what it
//! gives is the new record, for the host to compare. From the first call on that is not the recorded one, nothing is fed any
//! more: the comparison finds that place.

use std::collections::VecDeque;

use guest_sdk::abi::nn::{Errno, TensorType};
use registry::{
    canon::{self, CanonError},
    id::{BlobHash, EngineFingerprint, ModelHash},
    preimage::{Preimage, PreimageError},
    receipt::Execution,
};
use serde::{Deserialize, Serialize};

use super::{backend::Tensor, hash};
use crate::{
    limits,
    sandbox::{
        engine::EngineDescription,
        request::{HostFault, Inference, Request},
        state::{Call, Fail, Stop},
    },
};

/// Version of the record's layout.
pub const NN_RECORD_VERSION: u32 = 1;
/// Bytes of one inference in a record beside its outputs, at most; of one output beside its data.
const ENTRY_BYTES: u64 = 256;

/// What the models of one task answered, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NnRecord {
    /// [`NN_RECORD_VERSION`].
    pub version: u32,
    /// Canonical bytes of the [`EngineDescription`] that the execution's fingerprint is of.
    pub engine: canon::Bytes,
    /// Every inference that reached the backend.
    pub inferences: Vec<Answered>,
}

/// One inference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answered {
    /// The model.
    pub model: ModelHash,
    /// Hash of the input tensors.
    pub input: BlobHash,
    /// Fuel that it took beyond the fixed price.
    pub fuel: u64,
    /// What came of it.
    pub answer: Answer,
}

/// What came of an inference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Answer {
    /// These tensors.
    Outputs(Vec<NnTensor>),
    /// The guest got this error number.
    Errno(u32),
    /// It took more fuel than was left, which ended the task.
    FuelOut,
}

/// A tensor: elements in row-major order, little end first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NnTensor {
    /// Number of its element type in wasi-nn.
    pub element: u8,
    /// Its shape.
    pub dims: Vec<u32>,
    /// Its elements.
    pub data: canon::Bytes,
}

/// Why bytes are not the record of an execution.
#[derive(Debug, thiserror::Error)]
pub enum NnRecordError {
    /// No record at all.
    #[error("not a record of inferences: {0}")]
    Form(#[from] CanonError),
    /// Of a later program.
    #[error("record of inferences has version {found}, and this program reads {NN_RECORD_VERSION}")]
    Version {
        /// As found.
        found: u32,
    },
    /// The engine in it is another than the execution's.
    #[error("record of inferences is of another engine: {0}")]
    Engine(#[from] PreimageError),
    /// A tensor has a type that is unknown, or not as many bytes as its shape says.
    #[error(
        "record of inferences: output {output} of inference {index} has a shape or type that does not fit its data"
    )]
    Tensor {
        /// Which inference, from 0.
        index: usize,
        /// Which of its outputs.
        output: usize,
    },
    /// Its inferences are not those that were signed.
    #[error(
        "record of inferences does not hash to the signed root: the receipt commits to {}, the record gives {}",
        shown(.signed), shown(.found)
    )]
    Root {
        /// As signed.
        signed: Option<BlobHash>,
        /// As computed.
        found: Option<BlobHash>,
    },
}

fn shown(root: &Option<BlobHash>) -> String {
    root.map_or_else(|| "none".to_owned(), |root| root.short())
}

impl NnRecord {
    /// The canonical bytes: what a record file holds.
    pub fn to_bytes(&self) -> Vec<u8> {
        canon::encode(self)
    }

    /// The record in these bytes, if every recorded output hashes to the one that the execution commits to, and the engine in it
    /// is the execution's.
    ///
    /// # Errors
    /// Names what does not hold.
    pub fn open(bytes: &[u8], execution: &Execution) -> Result<Self, NnRecordError> {
        let record = Self::decode(bytes)?;
        record.engine(execution.engine)?;
        let found = record.root();
        if found != execution.nn_root {
            return Err(NnRecordError::Root { signed: execution.nn_root, found });
        }
        Ok(record)
    }

    /// The record in these bytes, whatever it is of.
    ///
    /// # Errors
    /// When they are none.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, NnRecordError> {
        let record: Self = canon::decode(bytes, limits::NN_RECORD_FILE_BYTES_MAX)?;
        if record.version != NN_RECORD_VERSION {
            return Err(NnRecordError::Version { found: record.version });
        }
        for (index, answered) in record.inferences.iter().enumerate() {
            if let Answer::Outputs(outputs) = &answered.answer
                && let Some(output) = outputs.iter().position(|output| output.tensor().is_none())
            {
                return Err(NnRecordError::Tensor { index, output });
            }
        }
        Ok(record)
    }

    /// The engine that it was recorded on.
    ///
    /// # Errors
    /// When its fingerprint is another.
    pub fn engine(&self, fingerprint: EngineFingerprint) -> Result<EngineDescription, PreimageError> {
        EngineDescription::open(fingerprint.0, &self.engine)
    }

    /// What `nn_root` commits to: the inferences that gave tensors.
    pub fn inferences(&self) -> Vec<Inference> {
        let each = self.inferences.iter().filter_map(|Answered { model, input, answer, .. }| match answer {
            Answer::Outputs(outputs) => {
                let tensors: Option<Vec<Tensor>> = outputs.iter().map(NnTensor::tensor).collect();
                Some(Inference { model: *model, input: *input, output: hash(&tensors?) })
            }
            Answer::Errno(_) | Answer::FuelOut => None,
        });
        each.collect()
    }

    /// Hash over [`NnRecord::inferences`], when there are any.
    pub fn root(&self) -> Option<BlobHash> {
        root(&self.inferences())
    }
}

/// Hash over inferences, when there are any: the `nn_root` of an execution.
pub(in crate::sandbox) fn root(inferences: &[Inference]) -> Option<BlobHash> {
    (!inferences.is_empty()).then(|| BlobHash(canon::hash("quorate/nn/1", &inferences)))
}

impl NnTensor {
    fn new(tensor: &Tensor) -> Self {
        // Element types have small numbers.
        let element = u8::try_from(tensor.element as u32).unwrap_or(u8::MAX);
        Self { element, dims: tensor.dims.clone(), data: tensor.data.clone().into() }
    }

    /// Its element type, if there is one of that number.
    pub fn element_type(&self) -> Option<TensorType> {
        TensorType::from_code(self.element.into())
    }

    fn tensor(&self) -> Option<Tensor> {
        let element = self.element_type()?;
        let elements = self.dims.iter().try_fold(1u64, |product, dim| product.checked_mul((*dim).into()))?;
        let bytes = elements.checked_mul(element.element_bytes() as u64)?;
        let fits = bytes == self.data.len() as u64;
        fits.then(|| Tensor { element, dims: self.dims.clone(), data: self.data.to_vec() })
    }
}

/// Keeps what models answer, and feeds what they answered before.
#[derive(Default)]
pub(in crate::sandbox) struct Recorder {
    keeps: bool,
    kept: Vec<Answered>,
    /// Bytes of the record, at most.
    bytes: u64,
    /// What is still to be fed; nothing is once a call was not the recorded one.
    fed: Option<VecDeque<Answered>>,
}

impl Recorder {
    /// A recorder as the request asks for it.
    pub(in crate::sandbox) fn new(request: &Request) -> Result<Self, HostFault> {
        let Some(recorded) = &request.recorded else { return Ok(Self { keeps: request.record, ..Self::default() }) };
        let malformed = |error: NnRecordError| HostFault::BadRequest { detail: error.to_string() };
        let record = NnRecord::decode(recorded).map_err(malformed)?;
        Ok(Self { keeps: true, fed: Some(record.inferences.into()), ..Self::default() })
    }

    /// The record, when it was asked for and there is something in it.
    pub(in crate::sandbox) fn into_bytes(self, engine: &EngineDescription) -> Option<Vec<u8>> {
        if self.kept.is_empty() {
            return None;
        }
        let engine = canon::encode(engine).into();
        Some(NnRecord { version: NN_RECORD_VERSION, engine, inferences: self.kept }.to_bytes())
    }

    /// What is to be fed for this call.
    fn next(&mut self, model: ModelHash, input: BlobHash) -> Option<Answered> {
        let next = self.fed.as_mut()?.pop_front().filter(|next| (next.model, next.input) == (model, input));
        if next.is_none() {
            self.fed = None;
        }
        next
    }

    /// Keeps an answer of this backend, if the record has room for it and for what the guest gets.
    fn keep(&mut self, own: Answered, given: &Result<Vec<Tensor>, Fail>) -> Result<(), Errno> {
        let outputs = |outputs: u64, bytes: u64| ENTRY_BYTES.saturating_mul(outputs + 1).saturating_add(bytes);
        let given = match given {
            Ok(tensors) => outputs(tensors.len() as u64, tensors.iter().map(Tensor::bytes).sum()),
            Err(_) => ENTRY_BYTES,
        };
        let own_bytes = match &own.answer {
            Answer::Outputs(own) => outputs(own.len() as u64, own.iter().map(|own| own.data.len() as u64).sum()),
            Answer::Errno(_) | Answer::FuelOut => ENTRY_BYTES,
        };
        let bytes = self.bytes.saturating_add(given.max(own_bytes));
        if bytes > limits::NN_RECORD_BYTES_MAX {
            return Err(Errno::TooLarge);
        }
        self.bytes = bytes;
        self.kept.push(own);
        Ok(())
    }
}

/// Runs one inference. Where the task is recorded, what it gives and costs is kept; where answers are fed, the guest gets the
/// recorded one for the recorded price.
pub(super) fn observe(
    call: &mut Call<'_>,
    model: ModelHash,
    input: BlobHash,
    infer: impl FnOnce(&mut Call<'_>) -> Result<Vec<Tensor>, Fail>,
) -> Result<Vec<Tensor>, Fail> {
    if !call.state.nn.recorder.keeps {
        return infer(call);
    }
    let before = *call.fuel();
    let ran = infer(call);
    let answer = match &ran {
        Ok(outputs) => Answer::Outputs(outputs.iter().map(NnTensor::new).collect()),
        Err(Fail::Errno(errno)) => Answer::Errno(*errno),
        Err(Fail::Stop(Stop::Fuel)) => Answer::FuelOut,
        // Whatever ends the task otherwise is no result.
        Err(_) => return ran,
    };
    let own = Answered { model, input, fuel: before.saturating_sub(*call.fuel()), answer };
    let recorder = &mut call.state.nn.recorder;
    let given = match recorder.next(model, input) {
        None => ran,
        Some(Answered { fuel, answer, .. }) => {
            let left = before.checked_sub(fuel);
            *call.fuel() = left.unwrap_or(0);
            match (left, answer) {
                (None, _) | (_, Answer::FuelOut) => Err(Stop::Fuel.into()),
                (Some(_), Answer::Errno(errno)) => Err(Fail::Errno(errno)),
                // Decoding has seen that they are tensors.
                (Some(_), Answer::Outputs(outputs)) => Ok(outputs.iter().filter_map(NnTensor::tensor).collect()),
            }
        }
    };
    call.state.nn.recorder.keep(own, &given)?;
    given
}

#[cfg(test)]
mod tests {
    use registry::{id::ModuleHash, id::TaskId, job::Class, receipt::Outcome};

    use super::*;
    use crate::sandbox::{Sandbox, SandboxOptions};

    fn tensor(value: f32) -> Tensor {
        Tensor { element: TensorType::F32, dims: vec![1, 1], data: value.to_le_bytes().to_vec() }
    }

    fn answered(answer: Answer) -> Answered {
        Answered { model: ModelHash([1; 32]), input: BlobHash([2; 32]), fuel: 3, answer }
    }

    fn record() -> NnRecord {
        let outputs = Answer::Outputs(vec![NnTensor::new(&tensor(1.0))]);
        let inferences = vec![answered(outputs), answered(Answer::Errno(6)), answered(Answer::FuelOut)];
        NnRecord { version: NN_RECORD_VERSION, engine: b"engine".to_vec().into(), inferences }
    }

    #[test]
    fn the_bytes_of_a_record() {
        let hex: String = record().to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let head = |fuel: &str| {
            format!("a4656d6f64656c5820{}65696e7075745820{}{fuel}66616e73776572", "01".repeat(32), "02".repeat(32))
        };
        let golden = [
            "a36776657273696f6e0166656e67696e6546656e67696e656a696e666572656e63657383".to_owned(),
            head("646675656c03"),
            "a1676f75747075747381a367656c656d656e74016464696d73820101646461746144".to_owned() + "0000803f",
            head("646675656c03"),
            "a1656572726e6f06".to_owned(),
            head("646675656c03"),
            "686675656c5f6f7574".to_owned(),
        ];
        assert_eq!(hex, golden.concat());
        assert_eq!(NnRecord::decode(&record().to_bytes()).unwrap(), record());
    }

    #[test]
    fn a_record_is_of_one_execution_and_every_output_is_the_signed_one() {
        let engine = Sandbox::description_of(&SandboxOptions::default()).unwrap();
        let record = NnRecord { engine: canon::encode(&engine).into(), ..record() };
        let execution = Execution {
            task: TaskId([3; 32]),
            module: ModuleHash([4; 32]),
            class: Class::Tolerant,
            engine: engine.fingerprint(),
            outcome: Outcome::Ok,
            fuel_used: 1,
            output: BlobHash([5; 32]),
            nn_root: record.root(),
            segment_root: None,
        };
        assert_eq!(NnRecord::open(&record.to_bytes(), &execution).unwrap(), record);
        assert_eq!(record.engine(execution.engine).unwrap(), engine);
        let refused = |record: &NnRecord| NnRecord::open(&record.to_bytes(), &execution).unwrap_err().to_string();

        let mut moved = record.clone();
        moved.inferences[0].answer = Answer::Outputs(vec![NnTensor::new(&tensor(1.5))]);
        assert!(refused(&moved).contains("does not hash to the signed root"));
        let mut fewer = record.clone();
        fewer.inferences.remove(0);
        assert!(refused(&fewer).contains("the record gives none"));
        assert!(refused(&NnRecord { engine: b"other".to_vec().into(), ..record.clone() }).contains("another engine"));
        assert!(refused(&NnRecord { version: 2, ..record.clone() }).contains("version 2"));
        let mut torn = record.clone();
        torn.inferences[0].answer =
            Answer::Outputs(vec![NnTensor { dims: vec![u32::MAX, u32::MAX, 2], ..NnTensor::new(&tensor(1.0)) }]);
        assert!(refused(&torn).contains("output 0 of inference 0"));
        torn.inferences[0].answer = Answer::Outputs(vec![NnTensor { element: 99, ..NnTensor::new(&tensor(1.0)) }]);
        assert!(refused(&torn).contains("output 0 of inference 0"));
        assert!(NnRecord::open(b"nonsense", &execution).is_err());
    }

    #[test]
    fn a_record_keeps_to_its_bound() {
        let mut recorder = Recorder { keeps: true, ..Recorder::default() };
        let given = Ok(vec![tensor(1.0)]);
        recorder.bytes = limits::NN_RECORD_BYTES_MAX - 2 * ENTRY_BYTES - 4;
        recorder.keep(answered(Answer::FuelOut), &given).unwrap();
        assert_eq!(recorder.keep(answered(Answer::FuelOut), &given), Err(Errno::TooLarge));
        assert_eq!(recorder.kept.len(), 1);
    }
}
