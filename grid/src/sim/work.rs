//! Jobs and tasks as the world knows them: what is true of each, who signed what, and what the liars know.
//!
//! Nothing is executed. An output is named by its job, its shard and an [`Answer`], so that the truth is a function of the task and
//! what a grid accepted can be read off the output's hash.

use std::collections::BTreeMap;

use registry::{
    audit::Secret,
    id::{BlobHash, JobId, ModuleHash},
    job::{JobSpec, Limits},
    receipt::Output,
};

use super::{
    Options, purse,
    random::{Random, mix},
};
use crate::{
    few::Few,
    flow::{Millis, Plan, PlannedShard, Slice},
};

/// What a host signs in the end about a task; 0 is the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Answer(u32);

impl Answer {
    pub(super) const TRUTH: Self = Self(0);
    /// The lie that all of the ring sign.
    pub(super) const RING: Self = Self(1);
    /// What who does not run a task writes.
    pub(super) const EMPTY: Self = Self(2);

    /// The answer of this number.
    pub(super) const fn of(number: u32) -> Self {
        Self(number)
    }

    pub(super) const fn number(self) -> u32 {
        self.0
    }

    /// What nobody else signs.
    pub(super) fn unique(random: &mut Random) -> Self {
        Self(3 + random.below(u64::from(u32::MAX - 3)) as u32)
    }
}

/// A shard.
#[derive(Debug)]
pub(super) struct Task {
    /// Whether the liars gain much by a lie about it: one in a hundred.
    pub(super) is_dear: bool,
    /// Hosts of the ring that have it and have not answered.
    pub(super) ring_holders: u8,
    /// One of the ring has decided to lie about it.
    pub(super) ring_lies: bool,
    /// One of the ring has decided to be honest.
    pub(super) ring_is_honest: bool,
    /// What was signed first, for who copies.
    pub(super) leaked: Option<Answer>,
    /// Who signed what, by operator, as far as it reached the coordinator.
    pub(super) votes: Few<(u32, Answer)>,
    /// When it was first given to a host.
    pub(super) ordered_ms: Option<Millis>,
    /// What stands, and since when.
    pub(super) stands: Option<(Answer, Millis)>,
}

/// A job.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) id: JobId,
    pub(super) secret: Secret,
    pub(super) submitted_ms: Millis,
    /// Its module writes something else each time.
    pub(super) is_unsteady: bool,
    pub(super) has_ended: bool,
    pub(super) tasks: Vec<Task>,
}

/// The module of all jobs.
pub(super) fn module() -> ModuleHash {
    ModuleHash([7; 32])
}

/// A job with so many tasks as it is submitted, and as the world knows it.
pub(super) fn submit(
    options: &Options,
    number: u32,
    tasks: u32,
    now: Millis,
    random: &mut Random,
) -> (JobSpec, Plan, Work) {
    // Four times what the longest takes that an average host runs.
    let wall_ms_max = (6 * options.task_ms).max(60_000);
    let limits = Limits { wall_ms_max, fuel_max: purse::fuel_max(options), ..Limits::default() };
    let spec = JobSpec {
        policy: options.policy,
        limits,
        attempts_max: 50,
        deadline_ms: 24 * 3_600_000,
        ..JobSpec::new(module(), number.into())
    };
    let planned = (0..tasks).map(|shard| PlannedShard {
        slice: Slice { blob: None, start: shard.into(), end: u64::from(shard) + 1 },
        input: input(number, shard),
    });
    let plan = Plan { shards: planned.collect() };
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&random.next().to_le_bytes());
    let (id, secret) = (spec.id(), Secret::from_bytes(secret));
    let mut work = Work { id, secret, submitted_ms: now, is_unsteady: false, has_ended: false, tasks: Vec::new() };
    let tasks = (0..tasks).map(|index| Task {
        is_dear: mix(u64::from(number) << 32 | u64::from(index)).is_multiple_of(100),
        ring_holders: 0,
        ring_lies: false,
        ring_is_honest: false,
        leaked: None,
        votes: Few::default(),
        ordered_ms: None,
        stands: None,
    });
    work.tasks = tasks.collect();
    (spec, plan, work)
}

fn named(kind: u8, number: u32, shard: u32, answer: Answer) -> BlobHash {
    let mut bytes = [kind; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    bytes[4..8].copy_from_slice(&shard.to_le_bytes());
    bytes[8..12].copy_from_slice(&answer.0.to_le_bytes());
    BlobHash(bytes)
}

fn input(number: u32, shard: u32) -> BlobHash {
    named(0x11, number, shard, Answer::TRUTH)
}

/// What a host writes that answers so.
pub(super) fn output(number: u32, shard: u32, answer: Answer) -> Output {
    Output { stdout: named(0x22, number, shard, answer), stdout_bytes: 64, files: Vec::new() }
}

/// What whoever wrote this output answered.
pub(super) fn answered(output: &Output) -> Answer {
    let [_, _, _, _, _, _, _, _, a, b, c, d, ..] = output.stdout.0;
    Answer(u32::from_le_bytes([a, b, c, d]))
}

/// Jobs that the machine remembers, by number.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    works: BTreeMap<u32, Work>,
    numbers: BTreeMap<JobId, u32>,
    open: usize,
}

impl Jobs {
    pub(super) fn insert(&mut self, number: u32, work: Work) {
        self.numbers.insert(work.id, number);
        self.works.insert(number, work);
        self.open += 1;
    }

    /// The job has ended; gives it, if it had not before.
    pub(super) fn end(&mut self, id: JobId) -> Option<&Work> {
        let number = self.numbers.get(&id)?;
        let work = self.works.get_mut(number).filter(|work| !work.has_ended)?;
        work.has_ended = true;
        self.open -= 1;
        Some(work)
    }

    pub(super) fn forget(&mut self, id: JobId) {
        if let Some(number) = self.numbers.remove(&id) {
            self.works.remove(&number);
        }
    }

    pub(super) fn number(&self, id: JobId) -> Option<u32> {
        self.numbers.get(&id).copied()
    }

    /// Its name; nobody's where it is forgotten.
    pub(super) fn id(&self, number: u32) -> JobId {
        self.works.get(&number).map_or(JobId([0; 32]), |work| work.id)
    }

    pub(super) fn get(&self, number: u32) -> Option<&Work> {
        self.works.get(&number)
    }

    pub(super) fn task_mut(&mut self, number: u32, shard: u32) -> Option<&mut Task> {
        self.works.get_mut(&number)?.tasks.get_mut(shard as usize)
    }

    /// How many have not ended.
    pub(super) fn open(&self) -> usize {
        self.open
    }
}
