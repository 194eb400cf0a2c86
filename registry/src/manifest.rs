//! What a publisher says of a task module or of a model. A manifest is a blob: its hash names it, a signed name points at it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    canon::{self, CanonError},
    id::{BlobHash, ManifestHash, ModelHash, ModuleHash},
    job::{Class, Limits},
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
