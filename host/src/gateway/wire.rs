//! What crosses the socket as JSON. Unknown keys are refused with their names.

use std::collections::BTreeMap;

use grid::flow::Payer;
use registry::{
    canon::Bytes,
    device::DeviceAsk,
    id::{BlobHash, JobId, ManifestHash, ModelHash, SecretHash},
    job::{Class, JobInput, Limits, Policy, Profile, Reduce, Split},
    name::Name,
    tolerance::Tolerance,
};
use serde::{Deserialize, Serialize};

/// A job as it is asked for: as [`registry::job::JobSpec`], with a name instead of a hash where there is one, and the
/// module's manifest for what is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    /// A name, `alice/digits@1`, or the hash of a module in the store.
    pub module: String,
    /// Arguments after the program's name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Blobs that appear under `/in`, by file name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, BlobHash>,
    /// Models by local name; the manifest's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<BTreeMap<String, ModelHash>>,
    /// How far an auditor's answers of a model may differ, by its local name; the manifest's when absent. Jobs of class
    /// `tolerant` alone have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerances: Option<BTreeMap<String, Tolerance>>,
    /// The input.
    #[serde(default)]
    pub input: InputRequest,
    /// How the input becomes shards.
    #[serde(default)]
    pub split: Split,
    /// How outputs become the result.
    #[serde(default)]
    pub reduce: Reduce,
    /// How results are checked.
    #[serde(default)]
    pub policy: Policy,
    /// Which executions must agree; the manifest's class when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// What its executions may depend on.
    #[serde(default, skip_serializing_if = "Profile::is_native")]
    pub profile: Profile,
    /// What its models run on.
    #[serde(default, skip_serializing_if = "DeviceAsk::is_any")]
    pub device: DeviceAsk,
    /// Memory in bytes that this device has at least; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_memory_bytes_min: Option<u64>,
    /// What differs from the manifest's limits.
    #[serde(default, skip_serializing_if = "LimitsRequest::is_empty")]
    pub limits: LimitsRequest,
    /// Executions that one shard may cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts_max: Option<u32>,
    /// Time in milliseconds after which the job fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Who pays for it, and how much at most. A job that nobody pays for runs on hosts that ask for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payer: Option<Payer>,
    /// Random when absent. The same job with the same nonce is the same job, so that sending it again is safe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<u64>,
}

/// Where a job's input comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputRequest {
    /// No input.
    #[default]
    None,
    /// A few bytes in base64.
    Inline(Bytes),
    /// A few bytes of text.
    Text(String),
    /// One blob.
    Blob(BlobHash),
    /// Several blobs, each a shard.
    Blobs(Vec<BlobHash>),
}

impl From<InputRequest> for JobInput {
    fn from(input: InputRequest) -> Self {
        match input {
            InputRequest::None => Self::None,
            InputRequest::Inline(bytes) => Self::Inline(bytes),
            InputRequest::Text(text) => Self::Inline(text.into_bytes().into()),
            InputRequest::Blob(blob) => Self::Blob(blob),
            InputRequest::Blobs(blobs) => Self::Blobs(blobs),
        }
    }
}

/// Limits that differ from a module's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsRequest {
    /// Fuel units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel_max: Option<u64>,
    /// Linear memory in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes_max: Option<u64>,
    /// Standard output and files, together, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes_max: Option<u64>,
    /// Standard error kept, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_bytes_max: Option<u64>,
    /// Files under `/tmp`, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch_bytes_max: Option<u64>,
    /// Time in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_ms_max: Option<u64>,
}

impl LimitsRequest {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// `own` with what differs.
    pub fn over(&self, own: Limits) -> Limits {
        Limits {
            fuel_max: self.fuel_max.unwrap_or(own.fuel_max),
            memory_bytes_max: self.memory_bytes_max.unwrap_or(own.memory_bytes_max),
            output_bytes_max: self.output_bytes_max.unwrap_or(own.output_bytes_max),
            log_bytes_max: self.log_bytes_max.unwrap_or(own.log_bytes_max),
            scratch_bytes_max: self.scratch_bytes_max.unwrap_or(own.scratch_bytes_max),
            wall_ms_max: self.wall_ms_max.unwrap_or(own.wall_ms_max),
        }
    }
}

/// A job was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// Its id.
    pub id: JobId,
    /// Shards of its map.
    pub shards: usize,
    /// The nonce that it has: to send the same job again.
    pub nonce: u64,
    /// What commits to the secret that decides which of its results are audited: to be kept for `quorate job verify`.
    pub secret_hash: SecretHash,
}

/// What a job would cost is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuoteRequest {
    /// The job.
    pub job: JobRequest,
    /// What one of its tasks used when it was tried.
    pub sample: SampleRequest,
}

/// What a task used when it was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleRequest {
    /// Fuel spent.
    pub fuel: u64,
    /// Standard output and files, together, in bytes.
    pub output_bytes: u64,
}

/// An account with something on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRow {
    /// Which one, as `stake:` and 64 hexadecimal digits.
    pub account: String,
    /// What stands on it, in micro-credits.
    pub balance_micro: i64,
}

/// A blob was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedBlob {
    /// Its hash.
    pub hash: BlobHash,
    /// Its length in bytes.
    pub bytes: u64,
}

/// A name and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRow {
    /// The name.
    pub name: Name,
    /// Hash of its manifest.
    pub manifest: ManifestHash,
    /// The publisher's reason, when yanked.
    pub yanked: Option<String>,
}

/// Every refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why.
    pub error: RefusedError,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedError {
    /// A stable word for programs.
    pub word: String,
    /// One line for people: the rule that was broken, and what to do.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retry: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back_and_leaves_out_what_is_not_said() {
        let request = JobRequest {
            module: "alice/digits@1".into(),
            input: InputRequest::Text("a\nb".into()),
            split: Split::Lines(1),
            ..JobRequest::default()
        };
        let text = serde_json::to_string(&request).unwrap();
        assert!(!text.contains("nonce") && !text.contains("limits"), "{text}");
        assert_eq!(serde_json::from_str::<JobRequest>(&text).unwrap(), request);
    }

    #[test]
    fn unknown_keys_are_refused_by_name_wherever_they_are() {
        for text in [
            r#"{"module":"a/b@1","colour":1}"#,
            r#"{"module":"a/b@1","limits":{"colour":1}}"#,
            r#"{"module":"a/b@1","input":{"colour":1}}"#,
            r#"{"module":"a/b@1","split":{"records":{"bytes":1,"delimiter":10,"colour":1}}}"#,
        ] {
            let refusal = serde_json::from_str::<JobRequest>(text).unwrap_err().to_string();
            assert!(refusal.contains("colour"), "{refusal}");
        }
    }

    #[test]
    fn limits_override_one_by_one() {
        let request: LimitsRequest = serde_json::from_str(r#"{"fuel_max":7}"#).unwrap();
        assert_eq!(request.over(Limits::default()), Limits { fuel_max: 7, ..Limits::default() });
    }
}
