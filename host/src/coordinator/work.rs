//! The loop that owns the state.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use grid::{
    dispatch::{Effect, Event, JobView, State, on_event},
    flow::{Assignment, AssignmentId, Part, Payer},
};
use registry::{
    canon,
    dispute::Parting,
    id::{BlobHash, JobId, NodeId},
    job::{JobInput, ShardInfo, TaskTemplate},
    receipt::Witness,
    segment::{SEGMENT_RECORD_BYTES_MAX, SegmentRecord},
    store::Store,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Command, Input, Outboxes, StoredRecord, SubmitError, SubmitReply, ToHost, output_row,
    release::{Batch, Held},
};
use crate::{
    clock,
    journal::{Entry, Journal, Row},
    limits,
    metrics::CoordinatorMetrics,
};

/// Commands taken in one round.
const ROUND_MAX: usize = 1024;

pub(super) struct Loop {
    state: State,
    journal: Journal,
    store: Store,
    commands: mpsc::Sender<Command>,
    batches: mpsc::UnboundedSender<Batch>,
    metrics: CoordinatorMetrics,
    outboxes: Outboxes,
    templates: HashMap<JobId, Arc<TaskTemplate>>,
    inputs: HashMap<JobId, Bytes>,
    input_bytes: u64,
    waiting: HashMap<JobId, Vec<oneshot::Sender<Result<JobView, SubmitError>>>>,
    /// Events since the last snapshot.
    events: u64,
    round: Round,
}

/// What one round has to append and to hold back.
#[derive(Default)]
struct Round {
    entries: Vec<Entry>,
    rows: Vec<Row>,
    held: Vec<Held>,
}

impl Loop {
    pub(super) fn new(
        state: State,
        events: u64,
        journal: Journal,
        store: Store,
        commands: mpsc::Sender<Command>,
        batches: mpsc::UnboundedSender<Batch>,
        metrics: CoordinatorMetrics,
    ) -> Self {
        Self {
            state,
            events,
            journal,
            store,
            commands,
            batches,
            metrics,
            outboxes: HashMap::new(),
            templates: HashMap::new(),
            inputs: HashMap::new(),
            input_bytes: 0,
            waiting: HashMap::new(),
            round: Round::default(),
        }
    }

    /// Begins with these events.
    pub(super) async fn run(mut self, first: Vec<Event>, mut inbox: mpsc::Receiver<Command>) {
        first.into_iter().for_each(|event| self.happened(event));
        self.happened(Event::Restarted);
        self.finish_round();
        let mut commands = Vec::with_capacity(ROUND_MAX);
        loop {
            let due = self.state.next_timer();
            let sleep =
                due.map_or(Duration::from_secs(3600), |due| Duration::from_millis(due.saturating_sub(clock::now_ms())));
            tokio::select! {
                biased;
                received = inbox.recv_many(&mut commands, ROUND_MAX) => if received == 0 { break },
                () = tokio::time::sleep(sleep) => {}
            }
            if due.is_some_and(|due| due <= clock::now_ms()) {
                self.happened(Event::Tick);
            }
            let mut closing = false;
            for command in commands.drain(..) {
                closing |= matches!(command, Command::Close);
                self.take(command);
            }
            self.finish_round();
            if closing {
                break;
            }
        }
        self.snapshot();
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Submit { spec, plan, secret, payer, input, reply } => {
                let id = spec.id();
                if let Some(refusal) = self.refuses(id, payer) {
                    refuse(reply, refusal);
                    return;
                }
                if let Some(input) = input {
                    self.remember_input(id, input);
                }
                let known = self.state.job(id).is_some();
                if !known {
                    self.happened(Event::Submitted { spec, plan, secret, payer });
                }
                self.reply_to(id, reply);
            }
            Command::Enter { entry, reply } => {
                let refusal = if self.journal.is_healthy() {
                    self.state.ledger().admits(&entry).map_err(SubmitError::from)
                } else {
                    Err(SubmitError::Journal)
                };
                match refusal {
                    Ok(()) => {
                        self.happened(Event::Entered { entry });
                        self.round.held.push(Held::Answer(Box::new(move || drop(reply.send(Ok(()))))));
                    }
                    refusal => drop(reply.send(refusal)),
                }
            }
            Command::Cancel { job, reply } => {
                let is_open = self.state.job(job).is_some_and(|job| !job.phase.is_ended());
                if is_open {
                    self.happened(Event::Cancelled { job });
                }
                self.round.held.push(Held::Cancelled(reply, is_open));
            }
            Command::HostUp { event, node, session, outbox } => {
                self.outboxes.insert(node, (session, outbox));
                self.happened(*event);
            }
            Command::HostDown { node, session } => {
                if self.outboxes.get(&node).is_some_and(|(current, _)| *current == session) {
                    self.outboxes.remove(&node);
                    self.happened(Event::HostDown { node });
                }
            }
            Command::Deliver { node, delivered } => {
                for delivered in delivered {
                    let (id, job) = (AssignmentId(delivered.receipt.receipt().nonce), delivered.receipt.receipt().job);
                    let Some(open) = self.state.open_job(node, id) else {
                        // Late, or never ordered. Nothing of it is kept: whoever makes receipts up must not fill the disk.
                        self.acknowledge(node, id);
                        continue;
                    };
                    if open == job {
                        self.round.rows.extend(output_row(&delivered));
                    }
                    let (receipt, output, task_us) = (delivered.receipt, delivered.output, delivered.task_us);
                    self.happened(Event::Receipt { node, receipt, output, task_us });
                }
            }
            Command::Faulted { node, faults } => {
                for (assignment, fault) in faults {
                    if self.state.open_job(node, assignment).is_none() {
                        continue;
                    }
                    self.happened(Event::Faulted { node, assignment, fault });
                }
            }
            Command::Name { statement, reply } => {
                self.round.rows.push(Row::Name(statement.into()));
                self.round.held.push(Held::Named(reply));
            }
            Command::Ask { question, once_on_disk } => {
                let answer = question(&self.state);
                if once_on_disk && self.journal.is_healthy() {
                    self.round.held.push(Held::Answer(answer))
                } else {
                    answer()
                }
            }
            Command::Event(event) => self.happened(*event),
            Command::Close => {}
        }
    }

    /// Why the job is not taken, if so. One that is known already always is.
    fn refuses(&self, id: JobId, payer: Option<Payer>) -> Option<SubmitError> {
        let refusal = |payer| self.state.ledger().admits_job(&payer).err();
        if self.state.job(id).is_some() {
            None
        } else if !self.journal.is_healthy() {
            Some(SubmitError::Journal)
        } else if !self.state.has_room_for_job() {
            Some(SubmitError::Busy { open_jobs: self.state.open_jobs() })
        } else {
            payer.and_then(refusal).map(SubmitError::from)
        }
    }

    fn reply_to(&mut self, id: JobId, reply: SubmitReply) {
        match reply {
            SubmitReply::Taken(reply) => self.round.held.push(Held::Taken(reply, id)),
            SubmitReply::Ended(reply) => match self.state.job_view(id).filter(|job| job.ended_ms.is_some()) {
                Some(view) => self.round.held.push(Held::Ended(reply, Box::new(view))),
                None => self.waiting.entry(id).or_default().push(reply),
            },
        }
    }

    fn remember_input(&mut self, id: JobId, input: Bytes) {
        let bytes = input.len() as u64;
        if self.input_bytes + bytes <= limits::INPUT_CACHE_BYTES_MAX && !self.inputs.contains_key(&id) {
            self.input_bytes += bytes;
            self.inputs.insert(id, input);
        }
    }

    /// Feeds one event to the machine and performs or holds back what it says.
    fn happened(&mut self, event: Event) {
        let now = clock::now_ms();
        self.metrics.observe_event(&event);
        self.round.entries.push((now, canon::encode(&event)));
        for effect in on_event(&mut self.state, event, now) {
            self.metrics.observe_effect(&effect);
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Assign { node, assignment } => self.assign(node, assignment),
            Effect::Revoke { node, assignment } => self.tell(node, ToHost::Revoke(assignment)),
            Effect::Acknowledge { node, assignment } => self.acknowledge(node, assignment),
            Effect::Keep { job, shard, accused, record } => {
                let record = StoredRecord { shard, accused, bytes: record.to_bytes().into() };
                self.round.rows.push(Row::Record(job, record));
            }
            Effect::Concat { job, parts } => self.concat(job, parts),
            Effect::Part { job, shard, sides } => self.part(job, shard, *sides),
            Effect::Notify { job, notice } => {
                if self.state.job(job).is_none_or(|job| job.phase.is_ended()) {
                    self.ended(job);
                }
                self.round.held.push(Held::Notice(job, notice));
            }
            Effect::Archive { postings } => {
                let rows = postings.iter().map(|posting| (posting.id.0, canon::encode(posting))).collect();
                self.round.rows.push(Row::Postings(rows));
            }
            Effect::Invoice { invoice } => {
                self.round.rows.push(Row::Invoice(invoice.job, canon::encode(&*invoice)));
            }
            Effect::Changed { operator, change } => {
                self.round.rows.push(Row::Change(operator, canon::encode(&*change)));
            }
            Effect::Forget { job, blobs } => {
                self.round.rows.push(Row::Forget(job));
                self.round.held.push(Held::Forget(self.store.clone(), job, blobs));
            }
        }
    }

    fn acknowledge(&mut self, node: NodeId, assignment: AssignmentId) {
        if let Some((_, outbox)) = self.outboxes.get(&node) {
            self.round.held.push(Held::Acknowledge(outbox.clone(), assignment));
        }
    }

    fn ended(&mut self, job: JobId) {
        self.templates.remove(&job);
        if let Some(input) = self.inputs.remove(&job) {
            self.input_bytes -= input.len() as u64;
        }
        let Some(view) = self.state.job_view(job) else { return };
        for reply in self.waiting.remove(&job).into_iter().flatten() {
            self.round.held.push(Held::Ended(reply, Box::new(view.clone())));
        }
    }

    fn assign(&mut self, node: NodeId, assignment: Assignment) {
        let Some(job) = self.state.job(assignment.job) else { return };
        let made = || Arc::new(job.spec.template());
        let template = match job.phase.is_ended() {
            // A newcomer repeats it: nobody would forget the template again.
            true => made(),
            false => self.templates.entry(assignment.job).or_insert_with(made).clone(),
        };
        let (start, end) = (assignment.slice.start, assignment.slice.end);
        let input = match (&job.spec.input, self.inputs.get(&assignment.job)) {
            _ if end - start > limits::INPUT_INLINE_BYTES_MAX => Input::Blob,
            _ if start == end => Input::Inline(Bytes::new()),
            (JobInput::Inline(bytes), _) if assignment.slice.blob.is_none() => {
                Input::Inline(Bytes::copy_from_slice(&bytes[start as usize..end as usize]))
            }
            (JobInput::Blob(blob), Some(input)) if assignment.slice.blob == Some(*blob) => {
                Input::Inline(input.slice(start as usize..end as usize))
            }
            _ => Input::Blob,
        };
        self.tell(node, ToHost::Assign { assignment: Box::new(assignment), template, input });
    }

    /// A host that does not read its messages is as good as gone: its connection is dropped, and it comes back.
    fn tell(&mut self, node: NodeId, message: ToHost) {
        let Some((_, outbox)) = self.outboxes.get(&node) else { return };
        if outbox.try_send(message).is_err() {
            tracing::warn!(node = %node.short(), "host does not read its messages; dropping its connection");
            self.outboxes.remove(&node);
            // A command, not a call: the machine is in the middle of an event.
            let commands = self.commands.clone();
            tokio::spawn(async move {
                let _ = commands.send(Command::Event(Box::new(Event::HostDown { node }))).await;
            });
        }
    }

    fn concat(&mut self, job: JobId, parts: Vec<Part>) {
        let (journal, store, commands) = (self.journal.clone(), self.store.clone(), self.commands.clone());
        let concat = async move {
            let event = match concatenated(&journal, &store, &parts).await {
                Ok((input, bytes)) => Event::Concatenated { job, input, bytes },
                Err(detail) => Event::Broken { job, fault: grid::flow::Fault::new("output_missing", detail) },
            };
            let _ = commands.send(Command::Event(Box::new(event))).await;
        };
        self.round.held.push(Held::Concat(Box::new(move || drop(tokio::spawn(concat)))));
    }

    /// Looks where two results part, in the records that both have signed.
    fn part(&mut self, job: JobId, shard: ShardInfo, sides: [(Witness, BlobHash); 2]) {
        let (store, commands) = (self.store.clone(), self.commands.clone());
        let part = async move {
            let parting = parting(&store, sides).await;
            let parting = parting.inspect_err(|error| tracing::warn!(%job, error, "two results are not compared"));
            let event = Event::Parted { job, shard, parting: parting.ok().map(Box::new) };
            let _ = commands.send(Command::Event(Box::new(event))).await;
        };
        self.round.held.push(Held::Concat(Box::new(move || drop(tokio::spawn(part)))));
    }

    /// Hands the round to the journal, and what relies on it to the releaser.
    fn finish_round(&mut self) {
        let Round { entries, rows, held } = std::mem::take(&mut self.round);
        self.events += entries.len() as u64;
        if !held.is_empty() {
            let on_disk = self.journal.append_and_tell(entries, rows);
            // The releaser ends with the process.
            let _ = self.batches.send((on_disk, held));
        } else if !(entries.is_empty() && rows.is_empty()) {
            self.journal.append(entries, rows);
        }
        // A snapshot costs as much as what is remembered: taken after as many events, it costs each of them a constant.
        let due = limits::SNAPSHOT_EVENTS_MIN.max(self.state.size());
        let idle = self.state.open_jobs() == 0 && self.events >= due;
        if idle || self.events >= limits::SNAPSHOT_EVENTS_MAX.max(due) {
            self.snapshot();
        }
    }

    fn snapshot(&mut self) {
        self.events = 0;
        self.journal.snapshot(canon::encode(&self.state));
    }
}

fn refuse(reply: SubmitReply, refusal: SubmitError) {
    match reply {
        SubmitReply::Taken(reply) => drop(reply.send(Err(refusal))),
        SubmitReply::Ended(reply) => drop(reply.send(Err(refusal))),
    }
}

/// Where two results part.
async fn parting(store: &Store, sides: [(Witness, BlobHash); 2]) -> Result<Parting, String> {
    let [(first, of_first), (second, of_second)] = sides;
    let one = segments(store, &first, of_first).await?;
    let other = segments(store, &second, of_second).await?;
    Ok(Parting::new((first, &one), (second, &other)))
}

/// The states that a receipt signed.
async fn segments(store: &Store, of: &Witness, record: BlobHash) -> Result<SegmentRecord, String> {
    let bytes = store.read(record, SEGMENT_RECORD_BYTES_MAX as u64).await.map_err(|error| error.to_string())?;
    let receipt = of.receipt.peek().map_err(|error| error.to_string())?;
    SegmentRecord::open(&bytes, receipt.execution.segment_root).map_err(|error| error.to_string())
}

/// Lays the parts' standard outputs one after another in a blob.
async fn concatenated(journal: &Journal, store: &Store, parts: &[Part]) -> Result<(BlobHash, u64), String> {
    let mut all = Vec::new();
    for part in parts {
        let hash = part.output.stdout;
        if all.len() as u64 + part.output.stdout_bytes > limits::REDUCE_INPUT_BYTES_MAX {
            return Err(format!(
                "outputs for the reduce task are over the bound of {} bytes",
                limits::REDUCE_INPUT_BYTES_MAX
            ));
        }
        match journal.output(hash).await.map_err(|error| error.to_string())? {
            Some(bytes) => all.extend_from_slice(&bytes),
            None => all.extend_from_slice(
                &store.read(hash, part.output.stdout_bytes).await.map_err(|error| error.to_string())?,
            ),
        }
    }
    let published = store.publish_bytes(all).await.map_err(|error| error.to_string())?;
    Ok((published.hash, published.len))
}
