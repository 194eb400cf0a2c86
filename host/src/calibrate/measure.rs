//! Asks backends the same things of one model, and compares what they answer.
//!
//! A backend is a sandbox in a process of its own; it is asked by a task that runs the model over tensors, and answers in the
//! record that tasks of a class other than exact leave. So what is measured is what hosts do, and a model that breaks a
//! backend breaks a jailed process.

use std::{collections::BTreeMap, mem};

use registry::{
    id::{ModelHash, ModuleHash},
    job::Limits,
    receipt::Outcome,
    tolerance::Tolerance,
};
use serde::Serialize;

use super::{backends::AtHand, fit::Fit, judge::Closeness, samples::Sample};
use crate::{
    limits,
    sandbox::{
        Answer, HostFault, LoadError, ModelInfo, NnRecord, NnRecordError, NnTensor, Request, Response, Sandbox,
        SandboxError,
    },
};

/// Bytes of samples that one task gets, unless a single one is longer.
const TASK_BYTES: u64 = 8 << 20;
/// Samples that one task gets.
const TASK_SAMPLES: usize = 256;

/// Why a backend gives no answers.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// It does not start.
    #[error("{0}")]
    Sandbox(#[from] SandboxError),
    /// It cannot run the model.
    #[error("{0}")]
    Load(#[from] LoadError),
    /// The task that asks it came to no result.
    #[error("{0}")]
    Fault(#[from] HostFault),
    /// The task that asks it failed.
    #[error("asking came to {outcome}: {said}")]
    Ended {
        /// How.
        outcome: Outcome,
        /// What the task said last.
        said: String,
    },
    /// Its answers are none.
    #[error("{0}")]
    Record(#[from] NnRecordError),
    /// It fails on a sample.
    #[error("sample {sample}: the model fails with error number {errno}")]
    Fails {
        /// Which.
        sample: String,
        /// As the task got it.
        errno: u32,
    },
}

/// A backend that has loaded the model.
#[derive(Debug)]
pub struct Asked {
    /// Its word.
    pub name: String,
    /// Name and version of the backend, as its engine says.
    pub backend: String,
    /// What is known of the model there.
    pub model: ModelInfo,
    sandbox: Sandbox,
}

impl Asked {
    /// Starts a backend, which loads the model.
    ///
    /// # Errors
    /// When it does not start, or cannot run the model.
    pub fn start(at_hand: AtHand, model: &[u8]) -> Result<Self, MeasureError> {
        let sandbox = Sandbox::new(at_hand.options)?;
        sandbox.load_module(module(), tasks::INFER.wasm)?;
        let model = sandbox.load_model(ModelHash::of(model), model)?;
        Ok(Self { name: at_hand.name, backend: sandbox.describe().backend.clone(), model, sandbox })
    }

    /// What the model answers to each sample.
    ///
    /// # Errors
    /// When it fails on one.
    pub fn answers(&self, samples: &[Sample]) -> Result<Vec<Vec<NnTensor>>, MeasureError> {
        let mut all = Vec::with_capacity(samples.len());
        for samples in tasks_of(samples) {
            all.extend(self.task(samples)?);
        }
        Ok(all)
    }

    fn task(&self, samples: &[Sample]) -> Result<Vec<Vec<NnTensor>>, MeasureError> {
        let limits = Limits {
            fuel_max: u64::MAX / 2,
            memory_bytes_max: limits::MEMORY_BYTES_MAX,
            wall_ms_max: limits::WALL_MS_MAX,
            ..Limits::default()
        };
        let request = Request {
            stdin: input(samples).into(),
            models: BTreeMap::from([("model".to_owned(), self.model.hash)]),
            limits,
            record: true,
            ..Request::new(module())
        };
        let finished = match self.sandbox.run(request) {
            Response::Done(finished) => finished,
            Response::Fault(fault) => return Err(fault.into()),
        };
        if finished.outcome != Outcome::Ok {
            let said: String = String::from_utf8_lossy(&finished.stderr).trim().chars().take(200).collect();
            return Err(MeasureError::Ended { outcome: finished.outcome, said });
        }
        let record = NnRecord::decode(&finished.nn_record.unwrap_or_default())?;
        let answer = |(sample, answer): (&Sample, Answer)| match answer {
            Answer::Outputs(outputs) => Ok(outputs),
            Answer::Errno(errno) => Err(MeasureError::Fails { sample: sample.name.clone(), errno }),
            // There was all fuel there is.
            Answer::FuelOut => Err(MeasureError::Fails { sample: sample.name.clone(), errno: 0 }),
        };
        samples.iter().zip(record.inferences.into_iter().map(|one| one.answer)).map(answer).collect()
    }
}

fn module() -> ModuleHash {
    ModuleHash::of(tasks::INFER.wasm)
}

/// Samples in as many tasks as they take.
fn tasks_of(samples: &[Sample]) -> Vec<&[Sample]> {
    let mut tasks = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, sample) in samples.iter().enumerate() {
        if at > start && (at - start >= TASK_SAMPLES || bytes + sample.bytes() > TASK_BYTES) {
            tasks.push(&samples[mem::replace(&mut start, at)..at]);
            bytes = 0;
        }
        bytes += sample.bytes();
    }
    tasks.push(&samples[start..]);
    tasks
}

/// Samples as the task `infer` reads them.
fn input(samples: &[Sample]) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Tensors are bounded far below.
    let len = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
    for sample in samples {
        bytes.extend(len(sample.inputs.len()));
        for NnTensor { element, dims, data } in &sample.inputs {
            bytes.extend(u32::from(*element).to_le_bytes());
            bytes.extend(len(dims.len()));
            dims.iter().for_each(|dim| bytes.extend(dim.to_le_bytes()));
            bytes.extend(len(data.len()));
            bytes.extend_from_slice(data);
        }
    }
    bytes
}

/// How close two backends are on a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    /// One of them.
    pub one: String,
    /// The other.
    pub other: String,
    /// How close.
    #[serde(flatten)]
    pub closeness: Closeness,
    /// Parts per million of the rows in which the largest elements are the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement_ppm: Option<u32>,
}

/// Compares each backend's answers with each other's; gives the tolerance that covers all of them.
pub fn compare(answers: &[(String, Vec<Vec<NnTensor>>)], top_k: Option<u32>) -> (Vec<Pair>, Tolerance) {
    let (mut pairs, mut all) = (Vec::new(), Fit::default());
    for (at, (other, others)) in answers.iter().enumerate() {
        for (one, ones) in &answers[..at] {
            let mut closeness = Closeness::default();
            for (one, other) in ones.iter().zip(others) {
                closeness.add(one, other, top_k);
                all.add(one, other, top_k);
            }
            let agreement_ppm = closeness.agreement_ppm();
            pairs.push(Pair { one: one.clone(), other: other.clone(), closeness, agreement_ppm });
        }
    }
    (pairs, all.tolerance(top_k))
}

#[cfg(test)]
mod tests {
    use registry::tolerance::PPM;

    use super::*;
    use crate::{
        calibrate::{
            judge::tests::output,
            samples::{Random, random},
        },
        sandbox::{BackendOptions, Isolation, SandboxOptions},
    };

    #[test]
    fn long_samples_get_tasks_of_their_own() {
        let sample =
            |floats: usize| Sample { name: String::new(), inputs: vec![output(&[floats as u32], &vec![0.0; floats])] };
        let counts = |samples: &[Sample]| tasks_of(samples).iter().map(|task| task.len()).collect::<Vec<_>>();
        assert_eq!(counts(&vec![sample(1); 600]), [256, 256, 88]);
        assert_eq!(counts(&[sample(3 << 20), sample(1), sample(1)]), [1, 2]);
    }

    #[test]
    fn a_backend_answers_each_sample_as_the_model_does() {
        // In this process: the pool of a test's program cannot start others.
        let options = SandboxOptions { isolation: Isolation::Thread, ..crate::task::alone() };
        let at_hand =
            AtHand { name: "here".to_owned(), options: SandboxOptions { backend: BackendOptions::Tract, ..options } };
        let asked = Asked::start(at_hand.clone(), tasks::data::DIGITS_MODEL).unwrap();
        let samples = random(&asked.model, Random { samples: 300, high: 16.0, ..Random::default() }).unwrap();
        let answers = asked.answers(&samples).unwrap();
        assert_eq!(answers.len(), 300);
        assert!(answers.iter().all(|answer| answer.len() == 1 && answer[0].dims == [1, 10]));
        assert_eq!(asked.answers(&samples[299..]).unwrap(), answers[299..]);
        let twice = [("a".to_owned(), answers.clone()), ("b".to_owned(), answers)];
        let (pairs, tolerance) = compare(&twice, Some(1));
        assert_eq!((pairs.len(), pairs[0].closeness.max_abs, pairs[0].agreement_ppm), (1, 0.0, Some(PPM)));
        tolerance.check().unwrap();
        let misfit = Sample { name: "odd".to_owned(), inputs: vec![output(&[1, 3], &[0.0; 3])] };
        let refused = asked.answers(&[misfit]).unwrap_err().to_string();
        assert!(refused.contains("input 0 is refused"), "{refused}");
        assert!(matches!(Asked::start(at_hand, b"no model"), Err(MeasureError::Load(_))));
    }
}
