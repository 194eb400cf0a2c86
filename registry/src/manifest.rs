//! What a publisher says of a task module or of a model. A manifest is a blob: its hash names it, a signed name points at it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    canon::{self, CanonError},
    id::{BlobHash, EngineFingerprint, ManifestHash, ModelHash, ModuleHash},
    job::{Class, Limits},
    tolerance::Tolerance,
};

/// Length in bytes that a manifest may have.
pub const MANIFEST_BYTES_MAX: usize = 64 * 1024;
/// Length in bytes that a description may have.
pub const DESCRIPTION_BYTES_MAX: usize = 4096;

/// A task module with everything it needs by default. A job may override the limits, never the models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskManifest {
    /// One paragraph for people.
    pub description: String,
    /// The module.
    pub module: ModuleHash,
    /// The module's length in bytes.
    pub module_bytes: u64,
    /// Models by the local name that the module loads them by.
    pub models: BTreeMap<String, ModelManifest>,
    /// The strongest determinism class that the module holds.
    pub class: Class,
    /// Limits that suit the module.
    pub limits: Limits,
    /// An input to try it on, for quotes and for the determinism lint.
    pub sample: Option<BlobHash>,
    /// What the publisher's determinism lint found on the sample. A manifest without one has the bytes that it had before
    /// there was a lint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lint: Option<Lint>,
}

/// The module's runs on its sample input under different conditions, and whether they were equal. The publisher's word: it
/// saves an honest publisher's users from a mistake, and binds nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lint {
    /// In the order in which they were run; the others are compared with the first.
    pub runs: Vec<LintRun>,
    /// The first difference; all runs were equal when there is none.
    pub difference: Option<LintDifference>,
}

/// One run of the lint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LintRun {
    /// What was different about it.
    pub condition: LintCondition,
    /// The engine that it ran on.
    pub engine: EngineFingerprint,
}

/// What a run of the lint had different from the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LintCondition {
    /// Nothing: the first run, alone on a fresh engine.
    Plain,
    /// The memory that it got had been filled by another task.
    UsedMemory,
    /// Other tasks ran at the same time, and it was started from another thread.
    Busy,
    /// Its code was compiled without optimisation: other machine code, other registers.
    Unoptimised,
    /// Another process: another time, environment and address space.
    Process,
    /// Another process, whose compiled code uses the instructions that every processor has.
    Generic,
}

impl LintCondition {
    /// A stable word, as it is encoded.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::UsedMemory => "used_memory",
            Self::Busy => "busy",
            Self::Unoptimised => "unoptimised",
            Self::Process => "process",
            Self::Generic => "generic",
        }
    }
}

/// Where two runs differ first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LintDifference {
    /// The run that differs from the first.
    pub condition: LintCondition,
    /// In what.
    pub subject: LintSubject,
}

/// What of a result may differ, in the order in which it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LintSubject {
    /// How it ended.
    Outcome,
    /// Fuel spent.
    Fuel,
    /// Standard output.
    Stdout,
    /// Files below `/out`.
    Files,
    /// Standard error.
    Stderr,
    /// What went into models and came out.
    Inferences,
    /// The most memory that it had.
    Memory,
}

impl LintSubject {
    /// A stable word, as it is encoded.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Outcome => "outcome",
            Self::Fuel => "fuel",
            Self::Stdout => "stdout",
            Self::Files => "files",
            Self::Stderr => "stderr",
            Self::Inferences => "inferences",
            Self::Memory => "memory",
        }
    }
}

/// A model file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelManifest {
    /// The file.
    pub model: ModelHash,
    /// The file's length in bytes.
    pub model_bytes: u64,
    /// How the file is encoded.
    pub encoding: ModelEncoding,
    /// How far backends may differ on it, as its publisher measured. A manifest without has the bytes that it had before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Tolerance>,
}

/// How a model file is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelEncoding {
    /// ONNX protobuf.
    Onnx,
}

/// What a published name may point at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Manifest {
    /// A task module.
    Task(TaskManifest),
    /// A model.
    Model(ModelManifest),
}

impl Manifest {
    /// The canonical bytes: what the manifest hash is of.
    pub fn to_bytes(&self) -> Vec<u8> {
        canon::encode(self)
    }

    /// The manifest with these canonical bytes.
    ///
    /// # Errors
    /// When the bytes are no canonical manifest.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CanonError> {
        canon::decode(bytes, MANIFEST_BYTES_MAX)
    }

    /// The hash that names it.
    pub fn hash(&self) -> ManifestHash {
        ManifestHash::of(&self.to_bytes())
    }
}
