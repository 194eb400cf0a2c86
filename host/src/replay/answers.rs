//! What models answered: fed to the replay, and held against what they answer here.
//!
//! The part of a task that is no inference is exact: fed with the recorded answers it has to come out to the bit, fuel and all,
//! on any engine whose WebAssembly part is the signed one. Then each recorded answer is held against this machine's, by the
//! class of the job: `homogeneous` asks for equality on the same engine, `tolerant` for the job's tolerance of that model, on
//! any backend. A model without a tolerance has to answer equally.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use registry::{
    id::{BlobHash, EngineFingerprint, ModelHash},
    job::Class,
    receipt::Execution,
    tolerance::Tolerance,
};
use serde::Serialize;

use super::{Difference, ReplayError, Sources, compare, content::ContentError};
use crate::{
    calibrate::judge::{Closeness, Outside, judge},
    limits,
    sandbox::{Answer, Answered, EngineDescription, Finished, Inference, NN_RECORD_VERSION, NnRecord, NnRecordError},
};

/// The recorded answers of one execution.
pub(super) struct Recorded {
    pub(super) bytes: Bytes,
    pub(super) record: NnRecord,
    /// What it was recorded on.
    pub(super) engine: EngineDescription,
}

impl Recorded {
    /// The record that a receipt names, once it is known to be that of its execution. `exact` needs none; where nothing was
    /// inferred there is none.
    pub(super) async fn find(
        sources: &Sources,
        signed: &Execution,
        hash: Option<BlobHash>,
    ) -> Result<Option<Self>, ReplayError> {
        let hash = match (signed.class, hash, signed.nn_root) {
            (Class::Exact, _, _) | (_, None, None) => return Ok(None),
            (_, Some(hash), _) => hash,
            (_, None, Some(root)) => {
                return Err(ContentError::Missing { what: "record of inferences with root", hash: root }.into());
            }
        };
        let bytes = sources.blob("record of inferences", hash, limits::NN_RECORD_FILE_BYTES_MAX as u64).await?;
        let record = NnRecord::open(&bytes, signed)?;
        let engine = record.engine(signed.engine).map_err(NnRecordError::from)?;
        Ok(Some(Self { bytes, record, engine }))
    }
}

/// Whether what is no inference runs the same on both engines.
pub(super) fn runs_alike(one: &EngineDescription, other: &EngineDescription) -> bool {
    wasm_part(one) == wasm_part(other)
}

/// The description without what inference alone depends on.
fn wasm_part(description: &EngineDescription) -> EngineDescription {
    // A field that is added to the description has to be put on one side here.
    let EngineDescription {
        profile,
        wasmtime,
        settings,
        target,
        cpu_class,
        host_abi,
        admission,
        backend: _,
        class: _,
        device: _,
        math: _,
    } = description.clone();
    EngineDescription {
        profile,
        wasmtime,
        settings,
        target,
        cpu_class,
        host_abi,
        admission,
        backend: String::new(),
        class: Class::Exact,
        device: None,
        math: String::new(),
    }
}

/// The first answer that is not as good as this machine's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct AnswerDifference {
    /// From 0, in the order they ran.
    pub(crate) index: usize,
    pub(crate) model: ModelHash,
    /// Whether the job says how far answers of this model may differ; without that they have to be equal.
    pub(crate) has_tolerance: bool,
    #[serde(flatten)]
    pub(crate) what: AnswerSubject,
}

/// In what it is not.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum AnswerSubject {
    /// Another kind of answer: tensors, an error number, or an end of fuel.
    Kind { there: String, here: String },
    /// It took other fuel.
    Fuel { there: u64, here: u64 },
    /// A tensor outside the tolerance.
    Outputs(Outside),
    /// Each element is within, but the largest of a row are others too often. The inference is the last of the model.
    Top { rows: u64, disagreeing: u64, disagreeing_max: u64 },
}

/// How close the answers of one model were.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ModelAnswers {
    pub(crate) model: ModelHash,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tolerance: Option<Tolerance>,
    #[serde(flatten)]
    pub(crate) closeness: Closeness,
    /// Whether every answer was the same to the bit.
    pub(crate) equal: bool,
}

/// What came of holding all answers of a record against this machine's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Answers {
    /// What gave those here.
    pub(crate) engine: EngineFingerprint,
    /// By name and version.
    pub(crate) backend: String,
    pub(crate) models: Vec<ModelAnswers>,
}

impl Answers {
    /// Whether every answer was the same to the bit.
    pub(crate) fn are_equal(&self) -> bool {
        self.models.iter().all(|model| model.equal)
    }
}

/// What this machine's models answered, of a task that was fed.
pub(super) fn own(finished: &Finished) -> Result<NnRecord, ReplayError> {
    match &finished.nn_record {
        Some(bytes) => Ok(NnRecord::decode(bytes)?),
        None => Ok(NnRecord { version: NN_RECORD_VERSION, engine: Vec::new().into(), inferences: Vec::new() }),
    }
}

/// Where the calls of the models are not the recorded ones: the fed task went another way.
pub(super) fn calls(recorded: &NnRecord, found: &[Inference], own: &NnRecord) -> Option<Difference> {
    let signed = recorded.inferences();
    let call = |inference: &Inference| (inference.model, inference.input);
    let same = signed.iter().map(call).eq(found.iter().map(call));
    let whole = |record: &NnRecord| record.inferences.iter().map(|one| (one.model, one.input)).collect::<Vec<_>>();
    if same && whole(recorded) == whole(own) {
        return None;
    }
    let first = compare::inference(&signed, found);
    Some(Difference::Inferences { signed: recorded.root(), found: own.root(), first })
}

/// Holds the recorded answers against this machine's, which are to the same calls.
pub(super) fn compare(
    recorded: &Recorded,
    own: &NnRecord,
    here: &EngineDescription,
    class: Class,
    tolerances: &BTreeMap<ModelHash, Tolerance>,
) -> (Answers, Option<AnswerDifference>) {
    let mut models: BTreeMap<ModelHash, ModelAnswers> = BTreeMap::new();
    let mut first = None;
    let counts_alike = counts_alike(&recorded.engine, here);
    for (index, (there, here)) in recorded.record.inferences.iter().zip(&own.inferences).enumerate() {
        let tolerance = tolerances.get(&there.model).filter(|_| class == Class::Tolerant);
        let entry = models.entry(there.model).or_insert_with(|| ModelAnswers {
            model: there.model,
            tolerance: tolerance.copied(),
            closeness: Closeness::default(),
            equal: true,
        });
        entry.equal &= there.answer == here.answer;
        if let (Answer::Outputs(there), Answer::Outputs(here)) = (&there.answer, &here.answer) {
            entry.closeness.add(there, here, tolerance.and_then(|tolerance| tolerance.top).map(|top| top.k));
        }
        if first.is_none()
            && let Err(what) = one(there, here, tolerance, counts_alike)
        {
            first = Some(AnswerDifference { index, model: there.model, has_tolerance: tolerance.is_some(), what });
        }
    }
    let first = first.or_else(|| models.values().find_map(|model| top(model, &recorded.record)));
    let models = models.into_values().collect();
    (Answers { engine: here.fingerprint(), backend: here.backend.clone(), models }, first)
}

fn one(
    there: &Answered,
    here: &Answered,
    tolerance: Option<&Tolerance>,
    counts_alike: bool,
) -> Result<(), AnswerSubject> {
    match (&there.answer, &here.answer) {
        (Answer::Outputs(there), Answer::Outputs(here)) => {
            judge(tolerance, there, here).map_err(AnswerSubject::Outputs)?;
        }
        (there, here) if there == here => {}
        (there, here) => return Err(AnswerSubject::Kind { there: kind(there), here: kind(here) }),
    }
    if counts_alike && there.fuel != here.fuel {
        return Err(AnswerSubject::Fuel { there: there.fuel, here: here.fuel });
    }
    Ok(())
}

fn kind(answer: &Answer) -> String {
    match answer {
        Answer::Outputs(outputs) => format!("{} tensors", outputs.len()),
        Answer::Errno(errno) => format!("error number {errno}"),
        Answer::FuelOut => "out of fuel".to_owned(),
    }
}

fn top(model: &ModelAnswers, recorded: &NnRecord) -> Option<AnswerDifference> {
    let top = model.tolerance?.top?;
    let Closeness { rows, rows_disagreeing: disagreeing, .. } = model.closeness;
    model.closeness.disagrees(&top).then(|| AnswerDifference {
        index: recorded.inferences.iter().rposition(|one| one.model == model.model).unwrap_or_default(),
        model: model.model,
        has_tolerance: true,
        what: AnswerSubject::Top { rows, disagreeing, disagreeing_max: top.disagreeing_max(rows) },
    })
}

/// Whether both engines draw the same fuel for the same inference: a backend at another version may count other operations.
fn counts_alike(there: &EngineDescription, here: &EngineDescription) -> bool {
    there.backend == here.backend
}

impl fmt::Display for AnswerDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, model, has_tolerance, what } = self;
        let model = model.short();
        match what {
            AnswerSubject::Kind { there, here } => {
                write!(f, "number {index}, of model {model}, gave {there} there and {here} here")
            }
            AnswerSubject::Fuel { there, here } => {
                write!(f, "number {index}, of model {model}, took {there} units of fuel there and takes {here} here")
            }
            AnswerSubject::Outputs(outside) => {
                write!(f, "number {index}, of model {model}, is outside its tolerance: {outside}")?;
                if *has_tolerance { Ok(()) } else { f.write_str(" (the job says no tolerance for this model)") }
            }
            AnswerSubject::Top { rows, disagreeing, disagreeing_max } => write!(
                f,
                "up to number {index}, the largest elements of model {model} are others in {disagreeing} of {rows} rows, \
                 where at most {disagreeing_max} may be"
            ),
        }
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "on {}", self.backend)?;
        for ModelAnswers { model, closeness, equal, .. } in &self.models {
            let Closeness { answers, max_abs, max_rel, rows, rows_disagreeing, .. } = closeness;
            write!(f, "; model {}: {answers} answers", model.short())?;
            if *equal {
                f.write_str(" equal")?;
                continue;
            }
            write!(f, " within {max_abs:.1e} and {max_rel:.1e} of the value")?;
            if *rows > 0 {
                write!(f, ", largest elements equal in {} of {rows} rows", rows - rows_disagreeing)?;
            }
        }
        Ok(())
    }
}
