//! What a submitter asks for ([`JobSpec`]), and what a host runs ([`TaskTemplate`]).
//!
//! A job is a map of one module over the shards of its input, and an optional reduce over the shards' outputs. A task is
//! one pure function call: two tasks with equal specs have equal results, on any host, and its id is the hash of its
//! canonical bytes. What differs from shard to shard is little, so hosts get a [`TaskTemplate`] once a job.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    canon::{self, Bytes},
    device::DeviceAsk,
    id::{BlobHash, JobId, ModelHash, ModuleHash, TaskId},
    preimage::Preimage,
    tolerance::{Tolerance, ToleranceError},
};

/// Length in bytes that a job's canonical form may have.
pub const JOB_BYTES_MAX: usize = 1024 * 1024;
/// Length in bytes that an inline input may have; longer inputs are pushed as blobs.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Arguments of a task, in number.
pub const ARGS_MAX: usize = 256;
/// Environment variables of a task, in number.
pub const ENV_MAX: usize = 256;
/// Named input files of a task, in number.
pub const FILES_MAX: usize = 1024;
/// Length in bytes of all arguments, and of all environment variables.
pub const ARGS_BYTES_MAX: usize = 64 * 1024;
/// Models of a task, in number.
pub const MODELS_MAX: usize = 16;
/// Shards of a job, in number.
pub const SHARDS_MAX: usize = 1_000_000;
/// Replicas that a quorum may ask for.
pub const QUORUM_MAX: u8 = 5;
/// Attempts a shard may ask for.
pub const ATTEMPTS_MAX: u32 = 100;
/// Time that a job may ask for, in milliseconds: thirty days.
pub const DEADLINE_MS_MAX: u64 = 30 * 24 * 3600 * 1000;
/// Memory in bytes that a job may ask its device to have: 1 TiB, more than any device of today.
pub const DEVICE_MEMORY_BYTES_MAX: u64 = 1 << 40;

/// Which executions must agree bit for bit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Equal everywhere inside one engine fingerprint. Only this class can prove a lie.
    #[default]
    Exact,
    /// Equal on the same engine, backend version and hardware class.
    Homogeneous,
    /// Equal within a calibrated tolerance.
    Tolerant,
}

impl Class {
    /// A stable word, as it is encoded.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Homogeneous => "homogeneous",
            Self::Tolerant => "tolerant",
        }
    }
}

/// What an execution's bits may depend on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// One architecture and instruction set: fastest, inference by far.
    #[default]
    Native,
    /// Nothing of the machine: equal on every architecture. Models run in the sandbox too.
    Portable,
}

impl Profile {
    /// A stable word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Portable => "portable",
        }
    }

    /// Whether it is what jobs take unless they ask.
    pub fn is_native(&self) -> bool {
        *self == Self::Native
    }
}

/// What a task may use. Each is enforced by the sandbox; a host refuses a task that asks for more than the host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Fuel units: about one a wasm operation.
    pub fuel_max: u64,
    /// Linear memory in bytes.
    pub memory_bytes_max: u64,
    /// Standard output and files under `/out`, together, in bytes.
    pub output_bytes_max: u64,
    /// Standard error kept, in bytes. What goes beyond is dropped: a log is no part of the result.
    pub log_bytes_max: u64,
    /// Files under `/tmp`, in bytes.
    pub scratch_bytes_max: u64,
    /// Time in milliseconds. A safety net: what it ends is a fault of the host, never a result.
    pub wall_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel_max: 10_000_000_000,
            memory_bytes_max: 256 << 20,
            output_bytes_max: 16 << 20,
            log_bytes_max: 64 << 10,
            scratch_bytes_max: 64 << 20,
            wall_ms_max: 60_000,
        }
    }
}

/// Where a job's input comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum JobInput {
    /// No input: standard input is empty.
    #[default]
    None,
    /// A few bytes, in the job itself.
    Inline(Bytes),
    /// One blob.
    Blob(BlobHash),
    /// Several blobs, each a shard.
    Blobs(Vec<BlobHash>),
}

/// How the input becomes shards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Split {
    /// One shard for each input.
    #[default]
    Each,
    /// So many lines a shard; a line keeps its end.
    Lines(u64),
    /// About so many bytes a shard, cut only after a delimiter.
    Records {
        /// Bytes aimed at; a single longer record is a shard of its own.
        bytes: u64,
        /// The byte that ends a record.
        delimiter: u8,
    },
    /// Byte ranges as the submitter lists them: start and end, in order, without gaps or overlaps.
    Ranges(Vec<(u64, u64)>),
}

/// How a result is checked before it is accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Policy {
    /// The first result is believed.
    None,
    /// So many hosts of distinct operators must agree; 1 believes the first.
    Quorum(u8),
    /// One host runs it whose operator has standing. Whether another has to repeat it is drawn once it has signed: see
    /// [`crate::audit`]. Where no operator has standing, two have to agree.
    #[default]
    Audit,
}

impl Policy {
    /// Distinct operators that have to agree before anything is known of who runs it.
    pub const fn quorum(self) -> u8 {
        match self {
            Self::None | Self::Audit => 1,
            Self::Quorum(quorum) => quorum,
        }
    }

    /// Distinct operators that the policy may need for one shard.
    pub const fn operators(self) -> u8 {
        match self {
            Self::None => 1,
            Self::Quorum(quorum) => quorum,
            Self::Audit => 2,
        }
    }
}

/// As people write it: `none`, `audit`, `quorum:3`.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Audit => f.write_str("audit"),
            Self::Quorum(quorum) => write!(f, "quorum:{quorum}"),
        }
    }
}

impl FromStr for Policy {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, ParsePolicyError> {
        let refused = || ParsePolicyError { text: text.chars().take(80).collect() };
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            None if text == "audit" => Ok(Self::Audit),
            None if text == "quorum" => Ok(Self::Quorum(2)),
            Some(("quorum", number)) => number.parse().map(Self::Quorum).map_err(|_| refused()),
            _ => Err(refused()),
        }
    }
}

/// Why a text is not a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no policy: expected none, audit, quorum or quorum:K with K operators that have to agree")]
pub struct ParsePolicyError {
    text: String,
}

/// How the shards' outputs become the job's result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduce {
    /// Standard outputs one after another, in shard order.
    #[default]
    Concat,
    /// As `Concat`, then once more through the module, in stage `reduce`.
    Task,
}

/// A job, resolved: hashes only. The CLI and the gateway turn names into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// The module.
    pub module: ModuleHash,
    /// Arguments after the program's name.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Blobs that appear under `/in`, by file name.
    #[serde(default)]
    pub files: BTreeMap<String, BlobHash>,
    /// Models by the local name that the module loads them by.
    #[serde(default)]
    pub models: BTreeMap<String, ModelHash>,
    /// How far an auditor's answers of a model may differ, by its local name; not at all where none is said.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tolerances: BTreeMap<String, Tolerance>,
    /// The input.
    #[serde(default)]
    pub input: JobInput,
    /// How the input becomes shards.
    #[serde(default)]
    pub split: Split,
    /// How outputs become the result.
    #[serde(default)]
    pub reduce: Reduce,
    /// How results are checked.
    #[serde(default)]
    pub policy: Policy,
    /// Which executions must agree.
    #[serde(default)]
    pub class: Class,
    /// What its executions may depend on; the native one when absent.
    #[serde(default, skip_serializing_if = "Profile::is_native")]
    pub profile: Profile,
    /// What its models run on; whatever there is when absent.
    #[serde(default, skip_serializing_if = "DeviceAsk::is_any")]
    pub device: DeviceAsk,
    /// Memory in bytes that this device has at least; any when absent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub device_memory_bytes_min: u64,
    /// What each task may use.
    #[serde(default)]
    pub limits: Limits,
    /// Executions that one shard may cost before the job fails.
    #[serde(default = "default_attempts")]
    pub attempts_max: u32,
    /// Time in milliseconds after which the job fails.
    #[serde(default = "default_deadline")]
    pub deadline_ms: u64,
    /// Tells two submissions of the same work apart; the same spec with the same nonce is the same job.
    pub nonce: u64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn default_attempts() -> u32 {
    12
}

fn default_deadline() -> u64 {
    3_600_000
}

/// Why a job is not accepted as written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// A number is outside its bounds.
    #[error("{what} is {value}, outside the bounds of {min} to {max}")]
    Bound {
        /// Which number.
        what: &'static str,
        /// As received.
        value: u64,
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
    },
    /// A file or model name could leave its directory or is empty.
    #[error(
        "{what} name `{name}` is refused: use 1 to 255 bytes of letters, digits, `.`, `_` and `-`, not starting with `.`"
    )]
    Name {
        /// `file` or `model`.
        what: &'static str,
        /// As received.
        name: String,
    },
    /// Text with a NUL byte, or an environment name with `=`.
    #[error(
        "{what} `{text}` is refused: it holds a byte that arguments and variables cannot have (NUL, or = in a variable's name)"
    )]
    Text {
        /// `argument` or `environment variable`.
        what: &'static str,
        /// As received.
        text: String,
    },
    /// A tolerance is for none of the job's models, or has a number out of bounds.
    #[error("tolerance of model `{name}` is refused: {}", .source.map_or_else(|| "the job has no such model".to_owned(), |source| source.to_string()))]
    Tolerance {
        /// Local name of the model.
        name: String,
        /// What is wrong with it.
        source: Option<ToleranceError>,
    },
    /// Several inputs only go with one shard each.
    #[error("split does not fit the input: several blobs are one shard each, so use split `each` or a single input")]
    Split,
    /// A GPU's results cannot be what is asked of them.
    #[error("device gpu does not go with {with}: {why}")]
    Gpu {
        /// What else was asked for.
        with: &'static str,
        /// Why not, and what to do.
        why: &'static str,
    },
}

fn within(what: &'static str, value: u64, min: u64, max: u64) -> Result<(), JobError> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(JobError::Bound { what, value, min, max }) }
}

impl JobSpec {
    /// A job over `module` with every default.
    pub fn new(module: ModuleHash, nonce: u64) -> Self {
        Self {
            module,
            args: Vec::new(),
            env: BTreeMap::new(),
            files: BTreeMap::new(),
            models: BTreeMap::new(),
            tolerances: BTreeMap::new(),
            input: JobInput::None,
            split: Split::Each,
            reduce: Reduce::Concat,
            policy: Policy::default(),
            class: Class::Exact,
            profile: Profile::Native,
            device: DeviceAsk::Any,
            device_memory_bytes_min: 0,
            limits: Limits::default(),
            attempts_max: default_attempts(),
            deadline_ms: default_deadline(),
            nonce,
        }
    }

    /// The hash that names it.
    pub fn id(&self) -> JobId {
        JobId(self.name())
    }

    /// Checks everything that can be checked without looking at a blob.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn check(&self) -> Result<(), JobError> {
        within("number of arguments", self.args.len() as u64, 0, ARGS_MAX as u64)?;
        within("number of environment variables", self.env.len() as u64, 0, ENV_MAX as u64)?;
        within("number of files", self.files.len() as u64, 0, FILES_MAX as u64)?;
        within("number of models", self.models.len() as u64, 0, MODELS_MAX as u64)?;
        let args: usize = self.args.iter().map(String::len).sum();
        within("length of the arguments in bytes", args as u64, 0, ARGS_BYTES_MAX as u64)?;
        let env: usize = self.env.iter().map(|(name, value)| name.len() + value.len()).sum();
        within("length of the environment in bytes", env as u64, 0, ARGS_BYTES_MAX as u64)?;
        within("quorum", self.policy.quorum().into(), 1, QUORUM_MAX.into())?;
        within("attempts_max", self.attempts_max.into(), self.policy.operators().into(), ATTEMPTS_MAX.into())?;
        within("deadline_ms", self.deadline_ms, 1, DEADLINE_MS_MAX)?;
        within("limits.wall_ms_max", self.limits.wall_ms_max, 1, self.deadline_ms)?;
        within("limits.fuel_max", self.limits.fuel_max, 1, u64::MAX / 2)?;
        within("device_memory_bytes_min", self.device_memory_bytes_min, 0, DEVICE_MEMORY_BYTES_MAX)?;
        self.check_device()?;
        self.check_texts()?;
        self.check_tolerances()?;
        self.check_input()
    }

    /// What a GPU computes differs in its last bits from GPU to GPU: nobody could hold two such results against each other.
    fn check_device(&self) -> Result<(), JobError> {
        if self.device != DeviceAsk::Gpu {
            return Ok(());
        }
        if self.profile == Profile::Portable {
            let why = "what a GPU computes depends on the machine; take profile native and class tolerant";
            return Err(JobError::Gpu { with: "profile portable", why });
        }
        match self.class {
            Class::Exact => {
                let why = "the bits of a GPU's results are not the same everywhere; ask for class tolerant";
                Err(JobError::Gpu { with: "class exact", why })
            }
            Class::Homogeneous | Class::Tolerant => Ok(()),
        }
    }

    fn check_texts(&self) -> Result<(), JobError> {
        let shown = |text: &str| text.chars().take(80).collect();
        if let Some(arg) = self.args.iter().find(|arg| arg.contains('\0')) {
            return Err(JobError::Text { what: "argument", text: shown(arg) });
        }
        if let Some((name, _)) =
            self.env.iter().find(|(name, value)| name.is_empty() || name.contains(['\0', '=']) || value.contains('\0'))
        {
            return Err(JobError::Text { what: "environment variable", text: shown(name) });
        }
        let files = self.files.keys().map(|name| ("file", name));
        let models = self.models.keys().map(|name| ("model", name));
        match files.chain(models).find(|(_, name)| !is_file_name(name)) {
            Some((what, name)) => Err(JobError::Name { what, name: shown(name) }),
            None => Ok(()),
        }
    }

    fn check_tolerances(&self) -> Result<(), JobError> {
        for (name, tolerance) in &self.tolerances {
            let source = match (self.models.contains_key(name), tolerance.check()) {
                (true, Ok(())) => continue,
                (true, Err(source)) => Some(source),
                (false, _) => None,
            };
            return Err(JobError::Tolerance { name: name.chars().take(80).collect(), source });
        }
        Ok(())
    }

    fn check_input(&self) -> Result<(), JobError> {
        if let JobInput::Inline(bytes) = &self.input {
            within("inline input in bytes", bytes.len() as u64, 0, INLINE_BYTES_MAX as u64)?;
        }
        if let JobInput::Blobs(blobs) = &self.input {
            within("number of shards", blobs.len() as u64, 1, SHARDS_MAX as u64)?;
        }
        match (&self.input, &self.split) {
            (JobInput::Blobs(_) | JobInput::None, split) if *split != Split::Each => Err(JobError::Split),
            (_, Split::Lines(lines)) => within("lines per shard", *lines, 1, u64::MAX),
            (_, Split::Records { bytes, .. }) => within("bytes per shard", *bytes, 1, u64::MAX),
            (_, Split::Ranges(ranges)) => within("number of shards", ranges.len() as u64, 1, SHARDS_MAX as u64),
            _ => Ok(()),
        }
    }

    /// Every blob that the job reads.
    pub fn blobs(&self) -> Vec<BlobHash> {
        let inputs: &[BlobHash] = match &self.input {
            JobInput::None | JobInput::Inline(_) => &[],
            JobInput::Blob(blob) => std::slice::from_ref(blob),
            JobInput::Blobs(blobs) => blobs,
        };
        let models = self.models.values().map(|model| BlobHash::from(*model));
        let named = self.files.values().copied().chain(models);
        std::iter::once(self.module.into()).chain(inputs.iter().copied()).chain(named).collect()
    }

    /// What all tasks of the job have in common.
    pub fn template(&self) -> TaskTemplate {
        TaskTemplate {
            module: self.module,
            args: self.args.clone(),
            env: self.env.clone(),
            files: self.files.clone(),
            models: self.models.clone(),
            class: self.class,
            profile: self.profile,
            device: self.device,
            device_memory_bytes_min: self.device_memory_bytes_min,
            limits: self.limits,
        }
    }
}

/// Whether `name` is one path component that means the same on every system.
pub fn is_file_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Which part of a job a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// One shard of the input.
    Map,
    /// The one task over all the shards' outputs.
    Reduce,
}

impl Stage {
    /// A stable word, as it is encoded.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Reduce => "reduce",
        }
    }
}

/// Which slice of a job's input a task has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardInfo {
    /// The part.
    pub stage: Stage,
    /// From 0.
    pub index: u32,
    /// How many shards the stage has.
    pub count: u32,
}

/// What all tasks of a job have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskTemplate {
    /// The module.
    pub module: ModuleHash,
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Blobs that appear under `/in`, by file name.
    pub files: BTreeMap<String, BlobHash>,
    /// Models by local name.
    pub models: BTreeMap<String, ModelHash>,
    /// Which executions must agree.
    pub class: Class,
    /// What its executions may depend on; the native one when absent.
    #[serde(default, skip_serializing_if = "Profile::is_native")]
    pub profile: Profile,
    /// What its models run on; whatever there is when absent.
    #[serde(default, skip_serializing_if = "DeviceAsk::is_any")]
    pub device: DeviceAsk,
    /// Memory in bytes that this device has at least; any when absent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub device_memory_bytes_min: u64,
    /// What the task may use.
    pub limits: Limits,
}

impl TaskTemplate {
    /// Hash of the template: computed once, so that a task's id costs the same however long the template is.
    pub fn hash(&self) -> BlobHash {
        BlobHash(canon::hash("quorate/template/1", self))
    }
}

/// The id of the task that runs `template` (by its [`TaskTemplate::hash`]) on one shard.
pub fn task_id(template: BlobHash, shard: ShardInfo, input: BlobHash) -> TaskId {
    TaskId(TaskKey { template, shard, input }.name())
}

/// What a [`TaskId`] is the hash of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(BlobHash, ShardInfo, BlobHash)", into = "(BlobHash, ShardInfo, BlobHash)")]
pub struct TaskKey {
    /// [`TaskTemplate::hash`].
    pub template: BlobHash,
    /// Which part of the job it is.
    pub shard: ShardInfo,
    /// Hash of its standard input.
    pub input: BlobHash,
}

impl From<(BlobHash, ShardInfo, BlobHash)> for TaskKey {
    fn from((template, shard, input): (BlobHash, ShardInfo, BlobHash)) -> Self {
        Self { template, shard, input }
    }
}

impl From<TaskKey> for (BlobHash, ShardInfo, BlobHash) {
    fn from(key: TaskKey) -> Self {
        (key.template, key.shard, key.input)
    }
}

impl Preimage for TaskKey {
    const WHAT: &'static str = "task";
    const DOMAIN: &'static str = "quorate/task/1";
    const BYTES_MAX: usize = 256;
}

impl Preimage for JobSpec {
    const WHAT: &'static str = "job";
    const DOMAIN: &'static str = "quorate/job/1";
    const BYTES_MAX: usize = JOB_BYTES_MAX;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> JobSpec {
        JobSpec::new(ModuleHash::of(b"module"), 1)
    }

    #[test]
    fn a_job_is_named_by_everything_in_it() {
        let job = spec();
        assert_eq!(job.id(), spec().id());
        assert_ne!(JobSpec { nonce: 2, ..spec() }.id(), job.id());
        assert_ne!(JobSpec { policy: Policy::Quorum(3), ..spec() }.id(), job.id());
    }

    #[test]
    fn unknown_keys_are_refused() {
        let text = format!(r#"{{"module":"{}","nonce":1,"colour":"red"}}"#, ModuleHash::of(b"m"));
        assert!(serde_json::from_str::<JobSpec>(&text).unwrap_err().to_string().contains("colour"));
    }

    #[test]
    fn each_broken_rule_is_named_with_its_bound() {
        let cases: [(JobSpec, &str); 8] = [
            (
                JobSpec { args: vec!["a".into(); 257], ..spec() },
                "number of arguments is 257, outside the bounds of 0 to 256",
            ),
            (JobSpec { policy: Policy::Quorum(0), ..spec() }, "quorum is 0, outside the bounds of 1 to 5"),
            (JobSpec { attempts_max: 1, ..spec() }, "attempts_max is 1, outside the bounds of 2 to 100"),
            (
                JobSpec { files: [("../etc".into(), BlobHash::of(b""))].into(), ..spec() },
                "file name `../etc` is refused",
            ),
            (JobSpec { env: [("A=B".into(), "".into())].into(), ..spec() }, "environment variable `A=B` is refused"),
            (
                JobSpec { input: JobInput::Inline(vec![0; INLINE_BYTES_MAX + 1].into()), ..spec() },
                "inline input in bytes is 65537",
            ),
            (
                JobSpec { split: Split::Lines(0), input: JobInput::Inline(vec![1].into()), ..spec() },
                "lines per shard is 0",
            ),
            (
                JobSpec { split: Split::Lines(1), input: JobInput::Blobs(vec![BlobHash::of(b"")]), ..spec() },
                "split does not fit the input",
            ),
        ];
        for (job, expected) in cases {
            let refusal = job.check().unwrap_err().to_string();
            assert!(refusal.contains(expected), "{refusal}");
        }
        spec().check().unwrap();
    }

    #[test]
    fn a_gpu_goes_with_results_that_may_differ_and_the_refusal_says_what_to_ask_for() {
        let gpu = |class| JobSpec { device: DeviceAsk::Gpu, class, ..spec() };
        for class in [Class::Homogeneous, Class::Tolerant] {
            gpu(class).check().unwrap();
        }
        let refusal = gpu(Class::Exact).check().unwrap_err().to_string();
        assert!(refusal.contains("class exact") && refusal.contains("ask for class tolerant"), "{refusal}");
        let portable = JobSpec { profile: Profile::Portable, ..gpu(Class::Tolerant) };
        let refusal = portable.check().unwrap_err().to_string();
        assert!(refusal.contains("profile portable") && refusal.contains("take profile native"), "{refusal}");
        JobSpec { device: DeviceAsk::Cpu, profile: Profile::Portable, ..spec() }.check().unwrap();
        let most = JobSpec { device_memory_bytes_min: DEVICE_MEMORY_BYTES_MAX, ..spec() };
        most.check().unwrap();
        let more = JobSpec { device_memory_bytes_min: DEVICE_MEMORY_BYTES_MAX + 1, ..spec() };
        let refusal = more.check().unwrap_err().to_string();
        assert!(refusal.contains("device_memory_bytes_min is 1099511627777, outside the bounds"), "{refusal}");
    }
}
