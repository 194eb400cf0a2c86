//! How a task ended: one JSON object for programs, one line for people.

use std::{collections::BTreeMap, fmt};

use registry::{
    id::{BlobHash, Commitment, EngineFingerprint, TaskId},
    job::Limits,
    receipt::Outcome,
};
use serde::Serialize;

use super::local::{Done, Ended, Reason};
use crate::cli::output;

/// The object. Every key is there; what does not apply is `null`.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    /// `ok`, `exit`, `trap`, `fuel_out`, `memory_out`, `output_out`, `rejected` or `host_fault`.
    outcome: &'static str,
    /// What the task exited with.
    exit_code: Option<u8>,
    /// A stable word: of the trap, of why it was rejected, of the fault.
    reason: Option<&'static str>,
    /// One line for people.
    detail: Option<String>,
    fuel_used: Option<u64>,
    memory_peak_bytes: Option<u64>,
    /// Standard output and files, together.
    output_bytes: Option<u64>,
    wall_ms: Option<u64>,
    stdout_base64: Option<String>,
    stderr_base64: Option<String>,
    /// Files below `/out`: path to hash.
    output_files: Option<BTreeMap<&'a str, BlobHash>>,
    output_hash: Option<BlobHash>,
    task: Option<TaskId>,
    commitment: Option<Commitment>,
    engine_fingerprint: Option<EngineFingerprint>,
    /// Segments that it was run in: one, unless its module has steps.
    segments: Option<usize>,
    /// Root over the states between them.
    segment_root: Option<BlobHash>,
    /// What models ran on, e.g. `cpu by tract (avx2)`.
    device: Option<String>,
}

impl<'a> Report<'a> {
    pub(super) fn new(ended: &'a Ended) -> Self {
        match ended {
            Ended::Done(done) => Self::done(done),
            Ended::Rejected(reason) => Self::none("rejected", reason),
            Ended::Fault(reason) => Self::none("host_fault", reason),
        }
    }

    fn done(done: &'a Done) -> Self {
        let Done { finished, output, execution, device, limits } = done;
        let outcome = execution.outcome;
        let (exit_code, reason) = match outcome {
            Outcome::Ok => (Some(0), None),
            Outcome::Exit(code) => (Some(code), None),
            Outcome::Trap(trap) => (None, Some(trap.word())),
            Outcome::FuelOut | Outcome::MemoryOut | Outcome::OutputOut => (None, None),
        };
        Self {
            outcome: outcome.word(),
            exit_code,
            reason,
            detail: detail(outcome, limits),
            fuel_used: Some(finished.fuel_used),
            memory_peak_bytes: Some(finished.memory_peak_bytes),
            output_bytes: Some(output.bytes()),
            wall_ms: Some(finished.wall_micros / 1000),
            stdout_base64: Some(data_encoding::BASE64.encode(&finished.stdout)),
            stderr_base64: Some(data_encoding::BASE64.encode(&finished.stderr)),
            output_files: Some(output.files.iter().map(|file| (file.path.as_str(), file.hash)).collect()),
            output_hash: Some(execution.output),
            task: Some(execution.task),
            commitment: Some(execution.commitment()),
            engine_fingerprint: Some(execution.engine),
            segments: Some(1 + finished.segments.as_ref().map_or(0, |record| record.states.len())),
            segment_root: execution.segment_root,
            device: device.as_ref().map(ToString::to_string),
        }
    }

    fn none(outcome: &'static str, reason: &Reason) -> Self {
        Self {
            outcome,
            exit_code: None,
            reason: Some(reason.word),
            detail: Some(reason.detail.clone()),
            fuel_used: None,
            memory_peak_bytes: None,
            output_bytes: None,
            wall_ms: None,
            stdout_base64: None,
            stderr_base64: None,
            output_files: None,
            output_hash: None,
            task: None,
            commitment: None,
            engine_fingerprint: reason.engine,
            segments: None,
            segment_root: None,
            device: None,
        }
    }
}

/// What stopped the task, and what to do.
fn detail(outcome: Outcome, limits: &Limits) -> Option<String> {
    match outcome {
        Outcome::Ok | Outcome::Exit(_) => None,
        Outcome::Trap(trap) => Some(format!("stopped by a trap, {}; its standard error may say why", trap.word())),
        Outcome::FuelOut => {
            Some(format!("spent its {} units of fuel: raise --fuel-max, or give it less to do", limits.fuel_max))
        }
        Outcome::MemoryOut => Some(format!(
            "asked for more than its {} bytes of memory: raise --memory-bytes-max",
            limits.memory_bytes_max
        )),
        Outcome::OutputOut => {
            Some(format!("wrote more than its {} bytes of output: raise --output-bytes-max", limits.output_bytes_max))
        }
    }
}

/// The line.
impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = self.detail.as_deref().unwrap_or_default();
        let (Some(fuel), Some(memory), Some(wall_ms)) = (self.fuel_used, self.memory_peak_bytes, self.wall_ms) else {
            return f.write_str(detail);
        };
        match self.exit_code {
            Some(0) => f.write_str("task ok")?,
            Some(code) => write!(f, "task exit({code})")?,
            None => write!(f, "task {}: {detail}", self.outcome)?,
        }
        write!(f, "; fuel {fuel}, memory {}, {}", output::bytes(memory), output::span_ms(wall_ms))
    }
}
