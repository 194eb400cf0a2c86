//! The driver of the event machine: one task owns the [`State`], everybody else has a [`Coordinator`] handle.
//!
//! A round of the loop takes all commands that are waiting, feeds their events to `grid::dispatch::on_event`, appends
//! them to the [`Journal`] and performs the effects. Assignments go out at once; what somebody may rely on (an
//! acknowledgement, an answer to a submitter, a notice) waits in [`release`] until the journal says that its events are
//! on disk. On start the journal is replayed through the same machine. What the machine hands over for good is read back from the
//! journal: old postings and invoices in `books`, records in `logs`, changes of operators' standings in `histories`.
//!
//! A crash loses what was never acknowledged. Hosts keep receipts until they are, and come back by themselves.

mod books;
mod histories;
mod logs;
mod release;
#[cfg(test)]
mod tests;
mod work;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use grid::{
    config::Config,
    dispatch::{Event, JobView, Notice, State, on_event},
    flow::{Assignment, AssignmentId, Attested, Checkpoint, Fault, Found, Offer, Payer, Plan},
    ledger::{Entry, LedgerError},
    subnet::Subnet,
};
use registry::{
    audit::Secret,
    canon::{self, CanonError},
    id::{BlobHash, JobId, ManifestHash, NodeId, OperatorId},
    job::{JobSpec, TaskTemplate},
    membership::NodeCert,
    name::{Index, Name, NameEntry, NameError, NameStatement},
    receipt::{Output, Receipt},
    sign::{SecretKey, Signed},
    store::Store,
};
use tokio::sync::{broadcast, mpsc, oneshot};

use self::work::Loop;
pub use self::{
    books::StatementError,
    histories::{HistoryError, HistoryFile, KnownOperator},
    logs::LogFileError,
};
pub use crate::journal::{Changed, LoggedRecord, StoredRecord};
use crate::{
    journal::{Journal, JournalError, Replay, Row},
    limits,
    metrics::CoordinatorMetrics,
};

/// The coordinator is stopping or has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("coordinator is stopping: try again in a moment")]
pub struct Closed;

/// Why a job or a name is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// As many jobs as allowed are unfinished.
    #[error("coordinator has {open_jobs} unfinished jobs, its bound: try again when some have ended")]
    Busy {
        /// Unfinished jobs.
        open_jobs: usize,
    },
    /// The journal cannot be written.
    #[error("coordinator cannot write its journal, so it takes no new work: its operator should check the disk")]
    Journal,
    /// Stopping.
    #[error("{0}")]
    Closed(#[from] Closed),
    /// The name's rules say no.
    #[error("{0}")]
    Name(#[from] NameError),
    /// No secret can be made for what is audited.
    #[error("system has no randomness: {0}; try again later")]
    Random(getrandom::Error),
    /// The ledger says no.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
}

/// Why a coordinator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its journal cannot be read.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// An entry of its journal makes no sense.
    #[error("journal's {what} is damaged ({source}); restore the file from a copy")]
    Damaged {
        /// What.
        what: &'static str,
        /// Why.
        source: canon::CanonError,
    },
}

/// One connection of a host; a later one of the same host replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionId(u64);

/// A host that joins or comes back.
#[derive(Debug)]
pub struct Arrival {
    /// The machine.
    pub node: NodeId,
    /// Who answers for it.
    pub operator: OperatorId,
    /// The operator's word for that.
    pub cert: Signed<NodeCert>,
    /// What it offers.
    pub offer: Offer,
    /// Where its connection comes from.
    pub subnet: Subnet,
    /// Assignments that it still works on or has results of.
    pub holding: Vec<AssignmentId>,
}

/// A receipt as it enters: signature checked, output at hand.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// The receipt.
    pub receipt: Attested,
    /// What the task wrote.
    pub output: Output,
    /// Standard output, unless it is in the store.
    pub stdout: Option<Bytes>,
    /// The host's time for it in microseconds, by its own word.
    pub task_us: u64,
}

impl Delivered {
    /// Whether it brings no blobs.
    pub fn is_whole(&self) -> bool {
        let Receipt { nn_record, segment_record, .. } = self.receipt.receipt();
        self.stdout.is_some() && self.output.files.is_empty() && nn_record.is_none() && segment_record.is_none()
    }
}

/// A message for a host.
#[derive(Debug, Clone)]
pub enum ToHost {
    /// Run this.
    Assign {
        /// What.
        assignment: Box<Assignment>,
        /// What it shares with its job's other tasks.
        template: Arc<TaskTemplate>,
        /// Its standard input.
        input: Input,
    },
    /// Not wanted any more.
    Revoke(AssignmentId),
    /// The receipt is on disk.
    Acknowledge(AssignmentId),
}

/// A shard's standard input.
#[derive(Debug, Clone)]
pub enum Input {
    /// Here it is.
    Inline(Bytes),
    /// A range of a blob: see the assignment's slice.
    Blob,
}

/// A question about the state; what it gives back tells the answer to whoever asked.
type Question = Box<dyn FnOnce(&State) -> Answer + Send>;
type Answer = Box<dyn FnOnce() + Send>;

enum Command {
    Submit {
        spec: Box<JobSpec>,
        plan: Plan,
        secret: Secret,
        payer: Option<Payer>,
        input: Option<Bytes>,
        reply: SubmitReply,
    },
    Enter {
        entry: Entry,
        reply: oneshot::Sender<Result<(), SubmitError>>,
    },
    Cancel {
        job: JobId,
        reply: oneshot::Sender<bool>,
    },
    HostUp {
        event: Box<Event>,
        node: NodeId,
        session: SessionId,
        outbox: mpsc::Sender<ToHost>,
    },
    HostDown {
        node: NodeId,
        session: SessionId,
    },
    Deliver {
        node: NodeId,
        delivered: Vec<Delivered>,
    },
    Faulted {
        node: NodeId,
        faults: Vec<(AssignmentId, Fault)>,
    },
    Name {
        statement: Vec<u8>,
        reply: oneshot::Sender<()>,
    },
    Ask {
        question: Question,
        once_on_disk: bool,
    },
    Event(Box<Event>),
    Close,
}

enum SubmitReply {
    /// Once the job is on disk.
    Taken(oneshot::Sender<Result<JobId, SubmitError>>),
    /// Once its end is.
    Ended(oneshot::Sender<Result<JobView, SubmitError>>),
}

/// A handle on the coordinator.
#[derive(Clone)]
pub struct Coordinator {
    key: Arc<SecretKey>,
    commands: mpsc::Sender<Command>,
    notices: broadcast::Sender<(JobId, Notice)>,
    journal: Journal,
    store: Store,
    names: Arc<RwLock<Index>>,
    sessions: Arc<std::sync::atomic::AtomicU64>,
}

impl Coordinator {
    /// Replays what the journal held and starts the loop. `key` is the coordinator's own: it signs what is handed out of histories.
    ///
    /// # Errors
    /// When the journal is damaged.
    pub fn start(
        config: Config,
        key: SecretKey,
        journal: Journal,
        replay: Replay,
        store: Store,
        metrics: CoordinatorMetrics,
    ) -> Result<(Self, tokio::task::JoinHandle<()>), StartError> {
        let names = replayed_names(&replay)?;
        let events = replay.entries.len() as u64;
        let is_new = replay.snapshot.is_none() && events == 0;
        let state = replayed_state(&config, replay)?;
        if is_new {
            // Its parameters are part of the state: without a snapshot a replay would decide with those that hold then.
            journal.snapshot(canon::encode(&state));
        }
        // What the journal decided with stays in it; from here on it is what the owner says now.
        let configured = (*state.config() != config).then(|| Event::Configured { config: Box::new(config) });
        let begin = (!state.has_histories()).then_some(Event::HistoriesBegin);
        let first = configured.into_iter().chain(begin).collect();
        let (commands, inbox) = mpsc::channel(limits::COMMANDS_MAX);
        let notices = broadcast::Sender::new(limits::NOTICES_MAX);
        let this = Self {
            key: Arc::new(key),
            commands: commands.clone(),
            notices: notices.clone(),
            journal: journal.clone(),
            store: store.clone(),
            names: Arc::new(RwLock::new(names)),
            sessions: Arc::default(),
        };
        let work = Loop::new(state, events, journal, store, commands, release::start(notices), metrics);
        Ok((this, tokio::spawn(work.run(first, inbox))))
    }

    async fn send(&self, command: Command) -> Result<(), Closed> {
        self.commands.send(command).await.map_err(|_| Closed)
    }

    /// Takes a job; returns once it is on disk. The same job again is the same job.
    ///
    /// # Errors
    /// When there is no room, or nothing can be written.
    pub async fn submit(&self, spec: JobSpec, plan: Plan, payer: Option<Payer>) -> Result<JobId, SubmitError> {
        let (reply, answer) = oneshot::channel();
        self.hand_in(spec, plan, payer, SubmitReply::Taken(reply)).await?;
        answer.await.map_err(|_| Closed)?
    }

    /// Takes a job; returns once it has ended and that is on disk.
    ///
    /// # Errors
    /// When there is no room, or nothing can be written.
    pub async fn submit_and_wait(
        &self,
        spec: JobSpec,
        plan: Plan,
        payer: Option<Payer>,
    ) -> Result<JobView, SubmitError> {
        let (reply, answer) = oneshot::channel();
        self.hand_in(spec, plan, payer, SubmitReply::Ended(reply)).await?;
        answer.await.map_err(|_| Closed)?
    }

    async fn hand_in(
        &self,
        spec: JobSpec,
        plan: Plan,
        payer: Option<Payer>,
        reply: SubmitReply,
    ) -> Result<(), SubmitError> {
        let secret = Secret::generate().map_err(SubmitError::Random)?;
        self.pin(spec.id(), spec.blobs().into_iter()).await;
        let input = self.cached_input(&spec).await;
        Ok(self.send(Command::Submit { spec: Box::new(spec), plan, secret, payer, input, reply }).await?)
    }

    /// Cancels a job; says whether it was unfinished.
    ///
    /// # Errors
    /// When the coordinator is stopping.
    pub async fn cancel(&self, job: JobId) -> Result<bool, Closed> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Cancel { job, reply }).await?;
        answer.await.map_err(|_| Closed)
    }

    /// Asks the state something. The answer comes once what it tells is on disk, so that nobody is told of an end that a
    /// crash takes back; while the journal cannot be written it comes at once.
    ///
    /// # Errors
    /// When the coordinator is stopping.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, Closed> {
        self.put(question, true).await
    }

    /// Asks the state something that is known to be on disk: the answer comes at once.
    ///
    /// # Errors
    /// When the coordinator is stopping.
    pub async fn ask_now<T: Send + 'static>(
        &self,
        question: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, Closed> {
        self.put(question, false).await
    }

    async fn put<T: Send + 'static>(
        &self,
        question: impl FnOnce(&State) -> T + Send + 'static,
        once_on_disk: bool,
    ) -> Result<T, Closed> {
        let (reply, answer) = oneshot::channel();
        let ask: Question = Box::new(move |state| {
            let answer = question(state);
            // Whoever asked may have gone away.
            Box::new(move || drop(reply.send(answer)))
        });
        self.send(Command::Ask { question: ask, once_on_disk }).await?;
        answer.await.map_err(|_| Closed)
    }

    /// Notices of all jobs, from now on, each once it is on disk.
    pub fn watch(&self) -> broadcast::Receiver<(JobId, Notice)> {
        self.notices.subscribe()
    }

    /// Registers a connection of a host; messages for it go to `outbox`.
    ///
    /// # Errors
    /// When the coordinator is stopping.
    pub async fn host_up(&self, arrival: Arrival, outbox: mpsc::Sender<ToHost>) -> Result<SessionId, Closed> {
        let Arrival { node, operator, cert, offer, subnet, holding } = arrival;
        let session = SessionId(self.sessions.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let cert = Arc::new(cert);
        let event = Box::new(Event::HostUp { node, operator, cert, offer, subnet, holding });
        self.send(Command::HostUp { event, node, session, outbox }).await?;
        Ok(session)
    }

    /// A connection ended. Ignored when the host has a later one.
    pub async fn host_down(&self, node: NodeId, session: SessionId) {
        // A stopping coordinator marks every host as away when it starts again.
        let _ = self.send(Command::HostDown { node, session }).await;
    }

    /// Receipts of a host, checked.
    pub async fn deliver(&self, node: NodeId, delivered: Vec<Delivered>) {
        for delivered in &delivered {
            if self.is_wanted(node, delivered).await {
                self.pin_outputs(delivered).await;
            }
        }
        // Unacknowledged receipts are sent again after a restart.
        let _ = self.send(Command::Deliver { node, delivered }).await;
    }

    /// Executions of a host that gave no result.
    pub async fn faulted(&self, node: NodeId, faults: Vec<(AssignmentId, Fault)>) {
        // After a restart the host does not hold them any more, which says the same.
        let _ = self.send(Command::Faulted { node, faults }).await;
    }

    /// A state that a host has kept of what it runs, and that is in the store.
    pub async fn checkpoint(&self, node: NodeId, assignment: AssignmentId, checkpoint: Checkpoint) {
        // After a restart the task goes on from an earlier one, or from its beginning.
        let event = Event::Checkpoint { node, assignment, checkpoint };
        let _ = self.send(Command::Event(Box::new(event))).await;
    }

    /// Whether a state is wanted that a host keeps after so much fuel, or that it was ordered to find, where it says nothing of fuel.
    pub async fn wants_state(&self, node: NodeId, assignment: AssignmentId, fuel_used: Option<u64>) -> bool {
        let wants = move |state: &State| match fuel_used {
            Some(fuel_used) => state.wants_checkpoint(node, assignment, fuel_used),
            None => state.finds_state(node, assignment).is_some(),
        };
        self.ask_now(wants).await.unwrap_or(false)
    }

    /// What a host has found that was to run a task to a state; a snapshot that was asked for is in the store.
    pub async fn found(&self, node: NodeId, assignment: AssignmentId, found: Found) {
        let job = self.ask(move |state| state.finds_state(node, assignment)).await.ok().flatten();
        let Some(job) = job else { return };
        // Evidence that anyone can replay needs it as long as the job is remembered.
        self.pin(job, found.checkpoint.map(|checkpoint| checkpoint.snapshot).into_iter()).await;
        let _ = self.send(Command::Event(Box::new(Event::Found { node, assignment, found }))).await;
    }

    /// Applies a statement about a name; returns once it is on disk.
    ///
    /// # Errors
    /// When the name's rules say no, or nothing can be written.
    pub async fn publish_name(&self, statement: Signed<NameStatement>) -> Result<Name, SubmitError> {
        if !self.journal.is_healthy() {
            return Err(SubmitError::Journal);
        }
        let name = self.names.write().unwrap_or_else(PoisonError::into_inner).apply(&statement)?;
        let (reply, answer) = oneshot::channel();
        self.send(Command::Name { statement: canon::encode(&statement), reply }).await?;
        answer.await.map_err(|_| Closed)?;
        Ok(name)
    }

    /// The manifest that a new job gets for a name.
    ///
    /// # Errors
    /// When the name is unknown or yanked.
    pub fn resolve(&self, name: &Name) -> Result<ManifestHash, NameError> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).resolve(name)
    }

    /// Every name, in order.
    pub fn names(&self) -> Vec<(Name, NameEntry)> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.entries().map(|(name, entry)| (name.clone(), entry.clone())).collect()
    }

    /// A small output, as it was kept beside its receipt; larger ones are in the store.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn output(&self, hash: BlobHash) -> Result<Option<Bytes>, JournalError> {
        self.journal.output(hash).await
    }

    /// Whether new work is taken.
    pub fn is_healthy(&self) -> bool {
        self.journal.is_healthy()
    }

    /// Commits what is left and stops.
    pub async fn close(&self) {
        let _ = self.send(Command::Close).await;
        self.commands.closed().await;
        let journal = self.journal.clone();
        // A panic of the journal's thread has been logged; there is nothing left to save.
        let _ = tokio::task::spawn_blocking(move || journal.close()).await;
    }

    /// Whether the receipt brings blobs for an execution that is under way: others would be kept for a job that nobody has.
    async fn is_wanted(&self, node: NodeId, delivered: &Delivered) -> bool {
        if delivered.is_whole() {
            return false;
        }
        let (id, job) = (AssignmentId(delivered.receipt.receipt().nonce), delivered.receipt.receipt().job);
        self.ask(move |state| state.open_job(node, id) == Some(job)).await.unwrap_or(false)
    }

    /// Outputs that are in the store stay there as long as their job is remembered.
    async fn pin_outputs(&self, delivered: &Delivered) {
        let stdout = delivered.stdout.is_none().then_some(delivered.output.stdout);
        let Receipt { nn_record, segment_record, .. } = *delivered.receipt.receipt();
        let files = delivered.output.files.iter().map(|file| file.hash);
        let blobs = stdout.into_iter().chain(files).chain(nn_record).chain(segment_record);
        self.pin(delivered.receipt.receipt().job, blobs).await;
    }

    /// Keeps blobs for a job. One that is kept already is not kept twice: pinning costs a write to disk.
    async fn pin(&self, job: JobId, blobs: impl Iterator<Item = BlobHash>) {
        for hash in blobs.filter(|hash| !self.store.is_pinned(*hash)) {
            if let Err(error) = self.store.pin_for(hash, &job.to_string()).await {
                tracing::warn!(%error, blob = %hash.short(), "blob cannot be pinned and may be evicted");
            }
        }
    }

    async fn cached_input(&self, spec: &JobSpec) -> Option<Bytes> {
        let registry::job::JobInput::Blob(blob) = &spec.input else { return None };
        self.store.read(*blob, limits::INPUT_CACHE_BYTES_MAX).await.ok()
    }
}

fn replayed_names(replay: &Replay) -> Result<Index, StartError> {
    let mut names = Index::default();
    for statement in &replay.names {
        let statement: Signed<NameStatement> = canon::decode(statement, limits::EVENT_BYTES_MAX)
            .map_err(|source| StartError::Damaged { what: "name", source })?;
        if let Err(error) = names.apply(&statement) {
            tracing::warn!(%error, "journal holds a statement about a name that does not apply");
        }
    }
    Ok(names)
}

fn replayed_state(config: &Config, replay: Replay) -> Result<State, StartError> {
    let damaged = |what| move |source| StartError::Damaged { what, source };
    let mut state = match replay.snapshot {
        Some(bytes) => match canon::decode(&bytes, usize::MAX) {
            Err(CanonError::NotCanonical) => {
                tracing::info!("the snapshot is one of another version: what that did not keep has its usual value");
                canon::decode_own(&bytes)
            }
            read => read,
        }
        .map_err(damaged("snapshot"))?,
        None => State::new(config.clone()),
    };
    for (now, bytes) in replay.entries {
        let event = canon::decode(&bytes, limits::EVENT_BYTES_MAX).map_err(damaged("event"))?;
        on_event(&mut state, event, now);
    }
    Ok(state)
}

/// Outboxes of connected hosts.
type Outboxes = HashMap<NodeId, (SessionId, mpsc::Sender<ToHost>)>;

/// The rows that a delivered receipt brings with it.
fn output_row(delivered: &Delivered) -> Option<Row> {
    let body = delivered.stdout.clone()?;
    Some(Row::Output { job: delivered.receipt.receipt().job, hash: delivered.output.stdout, body })
}
