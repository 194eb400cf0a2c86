//! What the gateway answers, as far as a client needs it. A newer gateway may say more.

use std::{collections::BTreeMap, fmt};

use grid::{
    dispatch::{Doubtful, Purpose, Unsteady},
    fleet::Suspension,
    flow::{Checkpoint, Fault},
    ledger::Standing,
};
use registry::{
    audit::Secret,
    credits::Credits,
    device::Device,
    id::{BlobHash, EngineFingerprint, JobId, LinkId, NodeId, OperatorId, RequesterId, SecretHash},
    job::{Class, Policy, Profile, ShardInfo},
    reputation,
};
use serde::{Deserialize, Serialize};

/// A job at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobAnswer {
    /// The job.
    pub id: JobId,
    /// One word for where it is.
    pub phase: String,
    /// Why it failed, if it did.
    pub reason: Option<Fault>,
    /// Shards of its map.
    pub shards: u32,
    /// Those whose result stands.
    pub accepted: u32,
    /// Executions that gave a receipt.
    pub executions: u64,
    /// Executions under way.
    pub open: usize,
    /// When it was accepted.
    pub submitted_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// How its results are checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// What commits to the secret that decides which of them are audited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_hash: Option<SecretHash>,
    /// That secret, once the job has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// What it may cost and has cost; absent when nobody pays for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub costs: Option<CostsAnswer>,
    /// What has to change before anything of it is run, when no host that is there can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
    /// That nobody reproduced a result of its module, in this job or in another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsteady: Option<Unsteady>,
    /// Results that rest on the word of operators that were caught since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubtful: Option<Doubtful>,
    /// How its tasks ended, and how many each way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcomes: Option<BTreeMap<String, u32>>,
    /// What models ran on, and in how many tasks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub devices: BTreeMap<String, u32>,
    /// Standard output, when it is short and text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// Standard output, when it is short and no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_base64: Option<String>,
}

impl JobAnswer {
    /// Tasks whose outcome is another than `ok`: the job is done, the tasks are not what they should be.
    pub fn bad_outcomes(&self) -> impl Iterator<Item = (&str, u32)> {
        let outcomes = self.outcomes.iter().flatten();
        outcomes.filter(|(word, _)| *word != "ok").map(|(word, tasks)| (word.as_str(), *tasks))
    }
}

/// What a job may cost and has cost, in micro-credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostsAnswer {
    /// Who pays.
    pub requester: RequesterId,
    /// The most.
    pub cap: Credits,
    /// Paid, and not returned.
    pub spent: Credits,
    /// Set aside for what has no verdict yet.
    pub held: Credits,
    /// Back with who pays.
    pub refunded: Credits,
}

/// A host at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAnswer {
    /// The machine.
    pub node: NodeId,
    /// Who answers for it.
    pub operator: OperatorId,
    /// Whether it is connected.
    pub connected: bool,
    /// Tasks that it runs at a time.
    pub slots: u32,
    /// Assignments that it holds.
    pub in_flight: u32,
    /// Running average of its time for a task, in microseconds.
    pub task_us: u64,
    /// Executions whose result was accepted.
    pub confirmed: u64,
    /// Executions that a quorum contradicts.
    pub contradicted: u64,
    /// Executions that gave no result.
    pub faults: u64,
    /// Whether its operator's results may be accepted alone.
    #[serde(default)]
    pub qualified: bool,
    /// Whether the grid's owner answers for its operator.
    #[serde(default)]
    pub vouched: bool,
    /// What its operator can lose, in micro-credits.
    #[serde(default)]
    pub at_risk: Credits,
    /// What it runs tasks on.
    #[serde(default)]
    pub engines: Vec<EngineAnswer>,
    /// Why it gets no more work, if so.
    pub suspended: Option<SuspensionAnswer>,
}

/// One engine of a host, by its own word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineAnswer {
    /// The conditions of its results.
    pub fingerprint: EngineFingerprint,
    /// What its results may depend on.
    pub profile: Profile,
    /// The strongest class that its results have.
    pub class: Class,
    /// What it infers on; none when its bits depend on no device.
    pub device: Option<Device>,
    /// Memory of the device in bytes; 0 when not measured.
    pub device_memory_bytes: u64,
    /// Millions of floating-point operations a second; 0 when not measured.
    pub mflops: u64,
}

/// An operator at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorAnswer {
    /// Who.
    pub operator: OperatorId,
    /// Whether the grid's owner answers for it.
    pub vouched: bool,
    /// Machines of it that ever joined.
    pub machines: usize,
    /// Those of them that are connected.
    pub connected: usize,
    /// Executions that these were given.
    pub given: u64,
    /// Those that gave no result.
    pub faults: u64,
    /// What it has shown, by class.
    pub classes: Vec<ClassAnswer>,
    /// In what it was caught, if so.
    pub suspended: Option<SuspensionAnswer>,
    /// Entries of its history.
    pub entries: u64,
    /// What stands for all of them.
    pub head: LinkId,
}

/// What an operator has shown in a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassAnswer {
    /// The class.
    pub class: Class,
    /// Worth of its checked results now, in micro-credits.
    pub now_micro: u64,
    /// That as it was last reckoned.
    pub standing: reputation::Standing,
    /// Whether its results may be accepted alone.
    pub qualified: bool,
}

/// Why a host gets no more work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspensionAnswer {
    /// The job in which it was caught.
    pub job: JobId,
    /// The shard.
    pub shard: ShardInfo,
}

/// A record of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptAnswer {
    /// To download it by.
    pub index: usize,
    /// The shard.
    pub shard: ShardInfo,
    /// The node that it accuses, if it is evidence.
    pub accused: Option<NodeId>,
    /// How the task ended; absent where results differ and nobody reproduced any.
    pub outcome: Option<String>,
    /// What its models ran on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// Length of the file.
    pub bytes: u64,
    /// Its place in the job's log.
    pub seq: u64,
    /// What stands for it and everything before it; that of the latest is the head of the log.
    pub link: LinkId,
}

/// A file that a job wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileAnswer {
    /// The shard that wrote it.
    pub shard: ShardInfo,
    /// Its path below `/out`: text from a guest, not to be trusted.
    pub path: String,
    /// Its hash.
    pub hash: BlobHash,
    /// Its length.
    pub bytes: u64,
}

/// Why a shard is where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyAnswer {
    /// The shard.
    pub shard: ShardInfo,
    /// One line that says it.
    pub summary: String,
    /// Executions that were ordered.
    pub attempts: u32,
    /// Executions that gave no result.
    pub faults: u32,
    /// The last of these.
    pub last_fault: Option<Fault>,
    /// Its executions.
    pub executions: Vec<ExecutionAnswer>,
    /// Those that went on from a state that was kept of an earlier one.
    #[serde(default)]
    pub resumed: u32,
    /// The state that the next one may go on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
    /// What speaks for or against each host.
    pub hosts: Vec<WhyHostAnswer>,
    /// Records of the job that are evidence about this shard.
    #[serde(default)]
    pub evidence: Vec<EvidenceAnswer>,
}

/// A record of a job that accuses somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceAnswer {
    /// The machine that it accuses.
    pub node: NodeId,
    /// Its place in the job's log.
    pub seq: u64,
}

/// What an execution costs whoever pays for its job, in micro-credits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum PayAnswer {
    /// It may cost so much.
    Held {
        /// The most.
        worst: Credits,
    },
    /// It was paid.
    Paid {
        /// What it cost.
        bill: Credits,
        /// Whether that can still be lost.
        standing: Standing,
    },
    /// Nobody pays for it.
    Unpaid {
        /// Why.
        why: String,
    },
}

impl fmt::Display for PayAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { worst } => write!(f, "up to {worst}"),
            Self::Paid { bill, standing } => write!(f, "{bill} {}", standing.word()),
            Self::Unpaid { why } => write!(f, "unpaid: {why}"),
        }
    }
}

/// One execution of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionAnswer {
    /// The machine.
    pub node: NodeId,
    /// Who answers for it.
    pub operator: OperatorId,
    /// What its models run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// What it is for.
    #[serde(default)]
    pub purpose: Purpose,
    /// `running`, `confirmed`, `contradicted` or `undecided`.
    pub fate: String,
    /// In what its operator was caught, here or elsewhere, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caught: Option<Suspension>,
    /// What it costs; absent in a job that nobody pays for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pay: Option<PayAnswer>,
    /// While it runs: the last state that was kept of it, or that it went on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
}

/// What speaks for or against a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyHostAnswer {
    /// The machine.
    pub node: NodeId,
    /// How well it suits.
    pub score: Option<i64>,
    /// Why it does not.
    pub reason: Option<String>,
}
