//! Runs the task of a record again, and says whether it comes out as it was signed.
//!
//! ```text
//! Record ─check► execution ─find► task and content ─sandbox► Finished ─compare► Replayed
//! ```
//!
//! Reading order:
//! - `content`: where bytes come from: folders of files named by their hashes, and stores of nodes that do not run.
//! - `find`: from a signed execution to the task that it was: job, shard, input.
//! - `engine`: the conditions that it ran under, and whether this machine has them.
//! - `compare`: the first difference between what was signed and what was found.
//! - `answers`: what models answered, where the job's class is not exact.
//! - `dispute`: the one segment in which two receipts part.
//! - `fetch`: fills a folder from a coordinator, so that nothing needs a grid afterwards.
//!
//! **Nobody is believed.** The record's signatures are checked first. Everything else is reached from it by hashes: its job id
//! names the job as submitted, its task id names template, shard and input, and those name the blobs. A byte changed
//! anywhere is refused before anything runs. What cannot be told from a record is who its operators are.
//!
//! **Inference that is not exact** is fed with what the receipt's record says that the models answered, so that all the rest
//! comes out to the bit; then each answer is held against this machine's, within the tolerance that the job says.
//!
//! **What a replay proves.** Equal: whoever signed did the work, or knew its result. Different on the same engine: the signed
//! result is wrong, or this machine is. Evidence is replayed against both sides.

mod answers;
mod compare;
mod content;
mod dispute;
mod engine;
mod fetch;
mod find;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::PathBuf, thread};

use bytes::Bytes;
use registry::{
    dispute::DisputeError,
    id::{BlobHash, EngineFingerprint, JobId, ModelHash, NodeId, TaskId},
    job::{Class, ShardInfo},
    receipt::{Execution, Inconclusive, Record, RecordError, Witness},
    segment::{SegmentRecordError, SnapshotError},
    tolerance::Tolerance,
};
use serde::Serialize;

pub(crate) use self::{
    answers::Answers,
    compare::{Difference, Found},
    content::{CONTENT_DIR, ContentError, Folder, Sources, read_file},
    dispute::Refereed,
    fetch::{FetchError, Fetched, fetch},
};
use self::{answers::Recorded, compare::Scope, find::Task};
use crate::{
    limits,
    sandbox::{
        EngineDescription, Finished, HostFault, LoadError, NnRecordError, Ran, Request, Sandbox, SandboxError, Span,
    },
    task,
};

/// Why a record was not run again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    /// The record itself does not hold.
    #[error("{0}")]
    Record(#[from] RecordError),
    /// Content is missing, or is not what its hash says.
    #[error("{0}")]
    Content(#[from] ContentError),
    /// The job's input cannot be cut as the job says.
    #[error("the job's input cannot be cut: {0}")]
    Plan(#[from] grid::plan::PlanError),
    /// No engine of this build has the record's fingerprint.
    #[error(
        "signed on engine {signed}, and this machine has {own} ({detail}): replay it where that engine is, or compare \
         outcome and output alone with --any-engine"
    )]
    Engine {
        /// As signed.
        signed: String,
        /// The best that there is.
        own: String,
        /// Which parts of its description differ, if that can be known.
        detail: String,
    },
    /// What models answered is not what was signed.
    #[error("{0}")]
    Answers(#[from] NnRecordError),
    /// A dispute does not hold.
    #[error("{0}")]
    Dispute(#[from] DisputeError),
    /// A record of segments is not the one that was signed.
    #[error("{0}")]
    Segments(#[from] SegmentRecordError),
    /// A snapshot does not hold.
    #[error("{0}")]
    Snapshot(#[from] SnapshotError),
    /// A snapshot is of another state than the one that both sides signed.
    #[error("the dispute starts from state {signed}, and its snapshot is of state {found}")]
    Start {
        /// As signed.
        signed: String,
        /// As found.
        found: String,
    },
    /// Both sides signed the same state, and this machine comes to another.
    #[error(
        "both sides signed {} as state {index}, and this machine comes to {found}: they agree on what is wrong, or it is",
        .signed.as_deref().unwrap_or("a state")
    )]
    State {
        /// Which.
        index: u32,
        /// As signed.
        signed: Option<String>,
        /// As found.
        found: String,
    },
    /// The job gives another task than the one that was signed.
    #[error("{detail}")]
    Task {
        /// In what it differs.
        detail: String,
    },
    /// There is no sandbox.
    #[error("{0}")]
    Sandbox(#[from] SandboxError),
    /// The module or a model does not load.
    #[error("{what} {hash}: {source}")]
    Load {
        /// `module` or `model`.
        what: &'static str,
        /// Which.
        hash: BlobHash,
        /// Why.
        source: Box<LoadError>,
    },
    /// This machine could not carry the task through.
    #[error("this machine could not run the task: {0}")]
    Fault(HostFault),
    /// The thread for the task did not start, or broke down.
    #[error("the thread that runs the task broke down")]
    Thread,
}

impl ReplayError {
    /// A stable word for programs.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Record(_) => "record",
            Self::Content(error) => error.word(),
            Self::Plan(_) => "plan",
            Self::Engine { .. } => "engine",
            Self::Answers(NnRecordError::Root { .. }) => "nn_root",
            Self::Answers(_) => "nn_record",
            Self::Dispute(error) => error.word(),
            Self::Segments(SegmentRecordError::Root { .. }) => "segment_root",
            Self::Segments(_) => "segment_record",
            Self::Snapshot(error) => error.word(),
            Self::Start { .. } | Self::State { .. } => "state",
            Self::Task { .. } => "task",
            Self::Sandbox(_) => "sandbox",
            Self::Load { source, .. } => source.word(),
            Self::Fault(fault) => fault.word(),
            Self::Thread => "internal",
        }
    }
}

/// How a replay compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// As the record says.
    Equal,
    /// As the record says, but for what models answered, and that is within the job's tolerance.
    Within,
    /// Not as the quorum signed.
    Different,
    /// As the accused signed, against the quorum: the evidence is against the wrong side.
    AccusedRight,
}

/// What came of running a record's task again.
#[derive(Debug, Serialize)]
pub(crate) struct Replayed {
    pub(crate) job: JobId,
    pub(crate) shard: ShardInfo,
    pub(crate) task: TaskId,
    pub(crate) verdict: Verdict,
    /// The engine that it was signed on.
    pub(crate) engine: EngineFingerprint,
    /// The engine that it ran on now; none when it was not worth running.
    pub(crate) ran_on: Option<EngineFingerprint>,
    /// What differs between the engines, when they are not the same and outcome and output alone were compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) engines: Option<String>,
    /// How close what models answered is to what they answer here, where answers were recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) answers: Option<Answers>,
    /// From what the quorum signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) difference: Option<Difference>,
    /// Whom the record accuses, if it is evidence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) accused: Option<Accused>,
    /// How many receipts of a record in which all differ say what came out, and of how many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reproduced: Option<(usize, usize)>,
}

/// What became of an accusation.
#[derive(Debug, Serialize)]
pub(crate) struct Accused {
    pub(crate) node: NodeId,
    /// What it signed differently from what was found; none when it signed what was found.
    pub(crate) difference: Option<Difference>,
}

/// Replays records, one after another.
#[derive(Debug)]
pub(crate) struct Player {
    sources: Sources,
    /// Whether a record of another engine is run all the same.
    any_engine: bool,
    /// Where what the replays wrote is kept.
    keep: Option<Folder>,
    /// One an engine: they keep what they have loaded.
    sandboxes: Vec<Sandbox>,
    /// How far answers of a model may differ, whatever the job says.
    tolerances: BTreeMap<ModelHash, Tolerance>,
    /// How the name of the backend begins that models run on here; any will do when absent.
    backend: Option<String>,
}

impl Player {
    /// A player of what these sources have. `keep` gets what the tasks write, each file named by its hash.
    pub(crate) fn new(sources: Sources, any_engine: bool, keep: Option<PathBuf>) -> Self {
        let keep = keep.map(Folder::new);
        Self { sources, any_engine, keep, sandboxes: Vec::new(), tolerances: BTreeMap::new(), backend: None }
    }

    /// Judges answers of a model by this, whatever the job says.
    pub(crate) fn tolerate(&mut self, model: ModelHash, tolerance: Tolerance) {
        self.tolerances.insert(model, tolerance);
    }

    /// Runs models on a backend whose name begins like this alone.
    pub(crate) fn run_on(&mut self, backend: String) {
        self.backend = Some(backend);
    }

    /// One more folder to look into, before the others.
    pub(crate) fn look_into(&mut self, folder: Folder) {
        self.sources.prefer(folder);
    }

    /// Frees the stores.
    pub(crate) async fn close(self) {
        self.sources.close().await;
    }

    /// Runs the record's task again.
    ///
    /// # Errors
    /// When the record does not hold, or its task cannot be run here. That it comes out differently is no error.
    pub(crate) async fn replay(&mut self, record: &Record) -> Result<Replayed, ReplayError> {
        let checked = record.check()?;
        let accused = record.accused().map(Witness::open).transpose()?;
        let signed = &checked.execution;
        let replayed = Replayed {
            job: checked.job,
            shard: checked.shard,
            task: signed.task,
            verdict: Verdict::Different,
            engine: signed.engine,
            ran_on: None,
            engines: None,
            answers: None,
            difference: None,
            accused: None,
            reproduced: None,
        };
        let task = Task::find(&self.sources, checked.job, checked.shard, signed).await?;
        if let Some(difference) = task.difference(signed) {
            return Ok(Replayed { difference: Some(difference), ..replayed });
        }
        let recorded = Recorded::find(&self.sources, signed, checked.nn_record).await?;
        let (sandbox, engines) = self.sandbox(signed, recorded.as_ref())?;
        let scope = if engines.is_none() { Scope::Everything } else { Scope::OutcomeAndOutput };
        let tolerances = task.tolerances.iter().chain(&self.tolerances).map(|(model, of)| (*model, *of)).collect();
        let found = self.run(&sandbox, task, recorded.as_ref()).await?;
        self.keep(&sandbox, &found)?;
        let (answers, difference) = match &recorded {
            Some(recorded) => self.compare_fed(signed, recorded, &found, scope, (&sandbox, &tolerances)).await?,
            None => (None, self.compare(signed, &found, scope).await?),
        };
        let accused = match accused {
            Some(receipt) => {
                let difference = self.compare(&receipt.execution, &found, scope).await?;
                Some(Accused { node: receipt.node, difference })
            }
            None => None,
        };
        let reproduced = match record {
            Record::Inconclusive(record) => Some((self::reproduced(record, &found, scope)?, record.witnesses.len())),
            Record::Accepted(_) | Record::Evidence(_) | Record::Dispute(_) => None,
        };
        let verdict = match (&difference, &accused) {
            // That one of several results comes out makes it no more than one of several.
            _ if reproduced.is_some() => Verdict::Different,
            (None, _) if answers.as_ref().is_some_and(|answers| !answers.are_equal()) => Verdict::Within,
            (None, _) => Verdict::Equal,
            (Some(_), Some(Accused { difference: None, .. })) => Verdict::AccusedRight,
            (Some(_), _) => Verdict::Different,
        };
        let ran_on = Some(sandbox.fingerprint());
        Ok(Replayed { verdict, ran_on, engines, answers, difference, accused, reproduced, ..replayed })
    }

    /// A sandbox for a record of this engine, and in what it differs if it does in what counts. Where answers are fed and may
    /// differ within a tolerance, what models run on does not count.
    fn sandbox(
        &mut self,
        execution: &Execution,
        recorded: Option<&Recorded>,
    ) -> Result<(Sandbox, Option<String>), ReplayError> {
        let signed = execution.engine;
        let fed = recorded.filter(|_| execution.class == Class::Tolerant);
        let is_wanted = |own: &EngineDescription| {
            self.backend.as_ref().is_none_or(|backend| own.backend.starts_with(backend.as_str()))
        };
        let is_same = |own: &EngineDescription| is_wanted(own) && own.fingerprint() == signed;
        let is_alike =
            |own: &EngineDescription| is_wanted(own) && fed.is_some_and(|fed| answers::runs_alike(&fed.engine, own));
        let has = |will_do: &dyn Fn(&EngineDescription) -> bool| {
            self.sandboxes.iter().find(|sandbox| will_do(sandbox.describe())).cloned()
        };
        if let Some(sandbox) = has(&is_same).or_else(|| has(&is_alike)) {
            return Ok((sandbox, None));
        }
        let like = |will_do: &dyn Fn(&EngineDescription) -> bool| engine::options_like(execution.class, will_do);
        let options = like(&is_same).or_else(|| like(&is_alike));
        let made = options.map(Sandbox::new);
        match (made, self.sandboxes.first()) {
            (Some(Ok(sandbox)), _) => {
                self.sandboxes.push(sandbox.clone());
                return Ok((sandbox, None));
            }
            // Of a class that this process cannot have beside the one that it has.
            (Some(Err(_)), Some(_)) if self.any_engine => {}
            (Some(Err(error)), _) => return Err(error.into()),
            (None, _) => {}
        }
        let sandbox = match self.sandboxes.first() {
            Some(sandbox) => sandbox.clone(),
            None => Sandbox::new(task::alone())?,
        };
        let detail = match recorded {
            Some(recorded) => engine::parts(&recorded.engine, sandbox.describe()),
            None => engine::difference(&self.sources, signed, sandbox.describe())?,
        };
        if !self.any_engine {
            return Err(ReplayError::Engine { signed: signed.short(), own: sandbox.fingerprint().short(), detail });
        }
        if self.sandboxes.is_empty() {
            self.sandboxes.push(sandbox.clone());
        }
        Ok((sandbox, Some(detail)))
    }

    /// Loads what the task needs, as far as it is not loaded, and gives what is to be run, and whether it has steps.
    async fn ready(&self, sandbox: &Sandbox, task: &Task) -> Result<(Request, bool), ReplayError> {
        let module = task.template.module;
        let bytes = self.sources.blob("module", module.into(), limits::MODULE_BYTES_MAX).await?;
        let failed = |source| ReplayError::Load { what: "module", hash: module.into(), source: Box::new(source) };
        let info = sandbox.load_module(module, &bytes).map_err(failed)?;
        for model in task.template.models.values().copied() {
            if !sandbox.has_model(model) {
                let bytes = self.sources.blob("model", model.into(), limits::MODEL_BYTES_MAX).await?;
                let failed = |source| ReplayError::Load { what: "model", hash: model.into(), source: Box::new(source) };
                sandbox.load_model(model, &bytes).map_err(failed)?;
            }
        }
        let mut files = std::collections::BTreeMap::new();
        let mut left = limits::FILE_CACHE_BYTES_MAX;
        for (name, hash) in &task.template.files {
            let bytes = self.sources.blob("file", *hash, left).await?;
            left -= bytes.len() as u64;
            files.insert(name.clone(), bytes);
        }
        // Time is no part of a result, and this machine may be slower than the one that signed: fuel ends the task.
        Ok((task.call().request(task.input.clone(), files, limits::WALL_MS_MAX), info.steps))
    }

    /// Runs it.
    async fn run(&self, sandbox: &Sandbox, task: Task, recorded: Option<&Recorded>) -> Result<Found, ReplayError> {
        let (request, _) = self.ready(sandbox, &task).await?;
        let recorded = recorded.map(|recorded| recorded.bytes.clone());
        let request = Request { recorded, ..request };
        let finished = match on_a_thread(sandbox.clone(), request, Span::WHOLE).await? {
            Ran::Done(finished) => *finished,
            // Nobody asked for it.
            Ran::Paused(_) => return Err(ReplayError::Thread),
        };
        let call = task.call();
        let output = task::output(&finished);
        let execution = call.execution(sandbox.fingerprint(), &finished, &output);
        Ok(Found { execution, output, finished })
    }

    async fn compare(
        &self,
        signed: &Execution,
        found: &Found,
        scope: Scope,
    ) -> Result<Option<Difference>, ReplayError> {
        match compare::first(signed, &found.execution, scope) {
            Some(difference) => Ok(Some(compare::locate(&self.sources, difference, found).await?)),
            None => Ok(None),
        }
    }

    /// The first difference of a task that was fed with recorded answers: another call of a model explains everything else, and
    /// what models answer is the least of it.
    async fn compare_fed(
        &self,
        signed: &Execution,
        recorded: &Recorded,
        found: &Found,
        scope: Scope,
        (sandbox, tolerances): (&Sandbox, &BTreeMap<ModelHash, Tolerance>),
    ) -> Result<(Option<Answers>, Option<Difference>), ReplayError> {
        let own = answers::own(&found.finished)?;
        if let Some(difference) = answers::calls(&recorded.record, &found.finished.inferences, &own) {
            return Ok((None, Some(difference)));
        }
        let exact = self.compare(signed, found, scope).await?;
        let (answers, first) = answers::compare(recorded, &own, sandbox.describe(), signed.class, tolerances);
        Ok((Some(answers), exact.or(first.map(Difference::Answer))))
    }

    fn keep(&self, sandbox: &Sandbox, found: &Found) -> Result<(), ReplayError> {
        let Some(folder) = &self.keep else { return Ok(()) };
        let Finished { stdout, files, inferences, nn_record, segments, .. } = &found.finished;
        for bytes in std::iter::once(stdout).chain(files.iter().map(|(_, bytes)| bytes)).chain(nn_record) {
            folder.put_blob(bytes)?;
        }
        if let Some(segments) = segments {
            folder.put_blob(&segments.to_bytes())?;
        }
        folder.put(&found.output)?;
        folder.put(sandbox.describe())?;
        if !inferences.is_empty() {
            folder.put(&compare::Inferences(inferences.clone()))?;
        }
        Ok(())
    }
}

/// How many of the receipts say what was found.
fn reproduced(record: &Inconclusive, found: &Found, scope: Scope) -> Result<usize, RecordError> {
    let mut equal = 0;
    for witness in &record.witnesses {
        equal += usize::from(compare::first(&witness.open()?.execution, &found.execution, scope).is_none());
    }
    Ok(equal)
}

/// Runs it on a thread like those of a host, which have stack enough for guests.
async fn on_a_thread(sandbox: Sandbox, request: Request, span: Span) -> Result<Ran, ReplayError> {
    let (say, said) = tokio::sync::oneshot::channel();
    let own = thread::Builder::new().name("task".into()).stack_size(limits::EXECUTOR_STACK_BYTES);
    // Whoever asked may have gone.
    let run = move || drop(say.send(sandbox.run_span(request, span, None)));
    own.spawn(run).map_err(|_| ReplayError::Thread)?;
    said.await.map_err(|_| ReplayError::Thread)?.map_err(ReplayError::Fault)
}

/// No bytes need no source.
fn is_empty(hash: BlobHash) -> Option<Bytes> {
    (hash == BlobHash::of(b"")).then(Bytes::new)
}
