//! The event machine of a coordinator: `on_event(&mut State, Event, now) -> Vec<Effect>`.
//!
//! The machine does no I/O and reads no clock. Its driver journals every event with its `now`, then performs the effects;
//! a machine fed the same events again is in the same state, so that is how a coordinator restarts. What a crash loses is
//! what was in no journal yet: effects that others may rely on ([`Effect::waits_for_journal`]) are held back until the
//! event that caused them is on disk; an assignment is not, since running a task twice harms nobody.
//!
//! A shard goes: queued -> assigned to as many operators as its policy wants -> receipts come in and are judged ->
//! accepted, or asked again elsewhere. A fault (timeout, lost host, refused task) is no result: it queues the shard again
//! after a back-off. A job ends when all its shards are accepted, when one of them has used up its attempts or cannot be
//! agreed on, at its deadline, or when it is cancelled: so it always ends.
//!
//! - `job`: a job and its shards. `executions`: what of them is under way. `cast`: what came of it.
//! - `checkpoint`: what was kept of executions that came to nothing. `heir`: who goes on from there.
//! - `queue`: shards that wait, and whose turn it is. `schedule`: they meet hosts with room.
//! - `money`: what that means for the ledger.
//! - `settle`: receipts and faults come in.
//! - `trial`: two results differ, and a referee runs the segment in which they part.
//! - `referee`: results differ, and one that the grid's owner answers for is waited for.
//! - `history`: what that does to an operator's standing is said, with its evidence.
//! - `standing`: audits are drawn, newcomers show what they are worth, who is caught loses what stood on its word alone (`unchecked`).
//! - `timers`: leases, stragglers, back-offs, deadlines, lost hosts.
//! - `unsteady`: modules of which nobody reproduced a result.
//! - `view`: what may be asked of the machine.
//! - `sane`: what holds of it at every time.

mod cast;
mod checkpoint;
mod executions;
mod heir;
mod history;
mod job;
mod money;
mod queue;
mod referee;
mod sane;
mod schedule;
mod settle;
mod standing;
#[cfg(test)]
mod tests;
mod timers;
mod trial;
mod unchecked;
mod unsteady;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use registry::{
    audit::Secret,
    dispute::Parting,
    id::{BlobHash, JobId, NodeId, OperatorId},
    job::{Class, JobSpec},
    membership::NodeCert,
    receipt::{Output, Record, Witness},
    reputation::Change,
    sign::Signed,
};
use serde::{Deserialize, Serialize};

use self::job::ShardKey;
pub use self::{
    checkpoint::REFUSED as SNAPSHOT_REFUSED,
    job::{Job, Phase},
    sane::Insane,
    unsteady::Unsteady,
    view::{
        ClassView, Costs, Doubtful, ExecutionView, HostQuote, HostView, JobView, OperatorView, Pay, Purpose, ShardView,
        Why,
    },
};
use self::{
    executions::{Executions, Open},
    queue::{Line, Turns},
    standing::Qualification,
    timers::Timers,
    unsteady::Marks,
};
use crate::{
    config::Config,
    fleet::Fleet,
    flow::{Assignment, AssignmentId, Attested, Checkpoint, Fault, Found, Millis, Offer, Part, Payer, Plan},
    ledger::{Entry, Invoice, Ledger, Posting},
    reputation::{Reputation, Standing},
    subnet::Subnet,
};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A checked job with its plan was accepted. The same job again changes nothing.
    Submitted {
        /// The job.
        spec: Box<JobSpec>,
        /// How it is cut.
        plan: Plan,
        /// What decides which of its results are audited.
        #[serde(default)]
        secret: Secret,
        /// Who pays for it; nobody when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        payer: Option<Payer>,
    },
    /// The grid's owner enters credits that come or go, or stake. What the ledger refuses changes nothing: see
    /// [`Ledger::admits`].
    Entered {
        /// What is entered.
        entry: Entry,
    },
    /// The grid's owner has changed the parameters.
    Configured {
        /// As they are from now on.
        config: Box<Config>,
    },
    /// A host joined or came back.
    HostUp {
        /// The machine.
        node: NodeId,
        /// Who answers for it.
        operator: OperatorId,
        /// The operator's word for that.
        cert: Arc<Signed<NodeCert>>,
        /// What it offers.
        offer: Offer,
        /// Where its connection comes from.
        #[serde(default, skip_serializing_if = "Subnet::is_relayed")]
        subnet: Subnet,
        /// Assignments that it still works on or has results of.
        holding: Vec<AssignmentId>,
    },
    /// A host's connection is gone.
    HostDown {
        /// The machine.
        node: NodeId,
    },
    /// A receipt came, its signature checked and its output at hand.
    Receipt {
        /// The machine that it came from.
        node: NodeId,
        /// The receipt.
        receipt: Attested,
        /// What the task wrote.
        output: Output,
        /// The host's time for it, by its own word.
        task_us: u64,
    },
    /// An execution gave no result.
    Faulted {
        /// The machine.
        node: NodeId,
        /// Which execution.
        assignment: AssignmentId,
        /// Why.
        fault: Fault,
    },
    /// A host has kept a state of what it runs, and the driver has it too.
    Checkpoint {
        /// The machine.
        node: NodeId,
        /// Which execution.
        assignment: AssignmentId,
        /// The state.
        checkpoint: Checkpoint,
    },
    /// Where two results part, as the driver found it in what both have signed; none where that cannot be told.
    Parted {
        /// The job.
        job: JobId,
        /// Which part of it.
        shard: registry::job::ShardInfo,
        /// Where.
        parting: Option<Box<Parting>>,
    },
    /// A host has run a task to the state that it was ordered to. Of a snapshot that was asked for, the driver has seen that it is one
    /// of that state.
    Found {
        /// The machine.
        node: NodeId,
        /// Which order.
        assignment: AssignmentId,
        /// What it found.
        found: Found,
    },
    /// The shards' outputs lie one after another in a blob: the reduce task's input.
    Concatenated {
        /// The job.
        job: JobId,
        /// The blob.
        input: BlobHash,
        /// Its length.
        bytes: u64,
    },
    /// Something that the driver had to do for a job cannot be done.
    Broken {
        /// The job.
        job: JobId,
        /// Why.
        fault: Fault,
    },
    /// The submitter wants no result any more.
    Cancelled {
        /// The job.
        job: JobId,
    },
    /// The coordinator starts again: no host is connected.
    Restarted,
    /// From here on operators have histories: each change of a standing is said, and what is so already is said first.
    HistoriesBegin,
    /// Time passed: see [`State::next_timer`].
    Tick,
}

/// What the driver shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send an assignment.
    Assign {
        /// To this machine.
        node: NodeId,
        /// What to run.
        assignment: Assignment,
    },
    /// Tell a host that an assignment is not wanted any more.
    Revoke {
        /// The machine.
        node: NodeId,
        /// Which one.
        assignment: AssignmentId,
    },
    /// Tell a host that its receipt is on disk and may be forgotten.
    Acknowledge {
        /// The machine.
        node: NodeId,
        /// Which one.
        assignment: AssignmentId,
    },
    /// Keep a record, together with the event.
    Keep {
        /// The job.
        job: JobId,
        /// Which part of it.
        shard: registry::job::ShardInfo,
        /// The node that the record accuses, if it is evidence.
        accused: Option<NodeId>,
        /// The record.
        record: Record,
    },
    /// Lay the parts one after another in a blob and say [`Event::Concatenated`].
    Concat {
        /// The job.
        job: JobId,
        /// In order.
        parts: Vec<Part>,
    },
    /// Find where these part, by the records of segments that they name, and say [`Event::Parted`].
    Part {
        /// The job.
        job: JobId,
        /// Which part of it.
        shard: registry::job::ShardInfo,
        /// Both, with their records.
        sides: Box<[(Witness, BlobHash); 2]>,
    },
    /// Tell whoever watches the job.
    Notify {
        /// The job.
        job: JobId,
        /// What is new.
        notice: Notice,
    },
    /// Keep postings that are not at hand any more, together with the event.
    Archive {
        /// The oldest, in their order.
        postings: Vec<Posting>,
    },
    /// Keep what a job cost in the end, together with the event.
    Invoice {
        /// All of it settled.
        invoice: Box<Invoice>,
    },
    /// Keep a change of an operator's standing as the next entry of its history, together with the event.
    Changed {
        /// Whose.
        operator: OperatorId,
        /// What has changed, and why.
        change: Box<Change>,
    },
    /// The job is forgotten: so may be what was kept for it.
    Forget {
        /// The job.
        job: JobId,
        /// Blobs that it read or wrote.
        blobs: Vec<BlobHash>,
    },
}

impl Effect {
    /// Whether somebody may rely on the effect, so that its event has to be on disk first.
    pub fn waits_for_journal(&self) -> bool {
        // The outputs that are joined may be rows of the very commit that their acceptance is in.
        matches!(self, Self::Acknowledge { .. } | Self::Notify { .. } | Self::Forget { .. } | Self::Concat { .. })
    }
}

/// What is new about a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Notice {
    /// It was accepted and cut.
    Planned {
        /// How many shards it has.
        shards: u32,
    },
    /// A shard's result stands.
    Accepted {
        /// Which one.
        shard: registry::job::ShardInfo,
        /// Executions that it cost.
        executions: u32,
    },
    /// A shard's result does not stand any more: it is run again.
    Withdrawn {
        /// Which one.
        shard: registry::job::ShardInfo,
    },
    /// An execution gave no result.
    Faulted {
        /// Which shard.
        shard: registry::job::ShardInfo,
        /// The machine.
        node: NodeId,
        /// Why.
        fault: Fault,
    },
    /// A host was caught.
    Caught {
        /// In which shard.
        shard: registry::job::ShardInfo,
        /// The machine.
        node: NodeId,
        /// Who answers for it.
        operator: OperatorId,
    },
    /// The job ended.
    Ended {
        /// How.
        phase: String,
    },
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Timer {
    /// The execution takes unusually long.
    Straggler(AssignmentId),
    /// The execution's lease ends.
    Lease(AssignmentId),
    /// The shard's back-off ends.
    Retry(JobId, ShardKey),
    /// The job's time is over.
    Deadline(JobId),
    /// The host has been away for its grace.
    Lost(NodeId),
    /// Jobs wait that no event had time to look at; scheduling follows every event, so there is nothing else to do.
    Scan,
}

/// Everything that a coordinator decides on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    config: Config,
    fleet: Fleet,
    reputation: Reputation,
    /// Connected hosts of operators without standing.
    newcomers: BTreeSet<NodeId>,
    qualification: Qualification,
    jobs: BTreeMap<JobId, Job>,
    /// Executions under way.
    open: Executions,
    /// Jobs with queued shards.
    #[serde(default)]
    turns: Turns,
    timers: Timers,
    /// Ended jobs, oldest first.
    ended: VecDeque<JobId>,
    /// Shards of these.
    ended_shards: u64,
    assignments: u64,
    ledger: Ledger,
    /// Modules of which nobody reproduced a result.
    #[serde(default, skip_serializing_if = "Marks::is_empty")]
    unsteady: Marks,
    /// Whether changes of standings are said: see [`Event::HistoriesBegin`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    histories: bool,
    /// Shards that are to be judged before the event is over, once nothing else of it is half done.
    #[serde(skip)]
    unjudged: VecDeque<(JobId, ShardKey)>,
}

impl State {
    /// A machine that knows nobody and has nothing to do.
    pub fn new(config: Config) -> Self {
        // Rules that do not fit together are refused where the configuration is read; the usual ones hold in their place.
        let ledger = Ledger::new(config.ledger.clone()).unwrap_or_default();
        Self {
            ledger,
            fleet: Fleet::new(config.ahead_ms),
            reputation: Reputation::new(&config.vouched),
            newcomers: BTreeSet::new(),
            qualification: Qualification::new(&config.audit),
            config,
            jobs: BTreeMap::new(),
            open: Executions::default(),
            turns: Turns::default(),
            timers: Timers::default(),
            ended: VecDeque::new(),
            ended_shards: 0,
            assignments: 0,
            unsteady: Marks::default(),
            histories: false,
            unjudged: VecDeque::new(),
        }
    }

    /// A machine of a grid whose operators have shown something already.
    pub fn with_standings(config: Config, standings: impl IntoIterator<Item = (OperatorId, Class, Standing)>) -> Self {
        let mut state = Self::new(config);
        for (operator, class, standing) in standings {
            state.reputation.bring(&state.config.audit, operator, class, standing);
        }
        state
    }

    /// When the next [`Event::Tick`] is due.
    pub fn next_timer(&self) -> Option<Millis> {
        let timer = self.timers.first().map(|(due, _)| due);
        timer.into_iter().chain(self.ledger.next_due()).min()
    }

    /// How much is remembered, in jobs and their shards: what a snapshot of it costs grows with this.
    pub fn size(&self) -> u64 {
        self.jobs.len() as u64 + self.ended_shards
    }

    /// Whether one more job fits.
    pub fn has_room_for_job(&self) -> bool {
        self.jobs.len() - self.ended.len() < self.config.open_jobs_max
    }
}

/// Takes one event and says what to do about it.
pub fn on_event(state: &mut State, event: Event, now: Millis) -> Vec<Effect> {
    let mut effects = Vec::new();
    take(state, event, now, &mut effects);
    effects
}

/// The same, said at the end of a list: one that is used again costs no allocation.
pub(crate) fn take(state: &mut State, event: Event, now: Millis, effects: &mut Vec<Effect>) {
    match event {
        Event::Submitted { spec, plan, secret, payer } => submitted(state, *spec, plan, secret, payer, now, effects),
        Event::Entered { entry } => {
            // Who asked was told before: see `Ledger::admits`.
            let _refused = state.ledger.enter(&entry, now);
        }
        Event::Configured { config } => standing::configured(state, *config, now, effects),
        Event::HostUp { node, operator, cert, offer, subnet, holding } => {
            state.fleet.up(node, operator, cert, offer, subnet, now);
            standing::sort(state, node);
            settle::not_held(state, node, &holding, now, effects);
            referee::host_changed(state, node);
        }
        Event::HostDown { node } => {
            state.fleet.down(node, now);
            standing::sort(state, node);
            state.timers.insert((now + state.config.host_grace_ms, Timer::Lost(node)));
        }
        Event::Receipt { node, receipt, output, task_us } => {
            settle::receipt(state, node, receipt, output, task_us, now, effects)
        }
        Event::Faulted { node, assignment, fault } => settle::fault(state, node, assignment, fault, now, effects),
        Event::Checkpoint { node, assignment, checkpoint } => {
            checkpoint::kept(state, node, assignment, checkpoint, now)
        }
        Event::Parted { job, shard, parting } => trial::parted(state, job, shard, parting, now, effects),
        Event::Found { node, assignment, found } => trial::found(state, node, assignment, found, now, effects),
        Event::Concatenated { job, input, bytes } => settle::concatenated(state, job, input, bytes),
        Event::Broken { job, fault } => end(state, job, Phase::Failed { reason: fault }, now, effects),
        Event::Cancelled { job } => end(state, job, Phase::Cancelled, now, effects),
        Event::Restarted => timers::restarted(state, now, effects),
        Event::HistoriesBegin => history::begin(state, now, effects),
        Event::Tick => timers::tick(state, now, effects),
    }
    settle::judge_left(state, now, effects);
    schedule::schedule(state, now, effects);
    standing::qualify(state, now, effects);
    money::settle(state, now, effects);
}

fn submitted(
    state: &mut State,
    spec: JobSpec,
    plan: Plan,
    secret: Secret,
    payer: Option<Payer>,
    now: Millis,
    effects: &mut Vec<Effect>,
) {
    let id = spec.id();
    if state.jobs.contains_key(&id) {
        return;
    }
    let deadline = now.saturating_add(spec.deadline_ms);
    let job = Job::new(spec, plan, secret, now);
    effects.push(Effect::Notify { job: id, notice: Notice::Planned { shards: job.shard_count() } });
    // As many of them are given out at once as hosts have room: so long a list is not to grow bit by bit.
    effects.reserve(state.fleet.room().min(job.shard_count() as usize));
    state.timers.insert((deadline, Timer::Deadline(id)));
    state.jobs.insert(id, job);
    match money::open(state, id, payer, now) {
        Ok(()) => state.turns.join(Line::Others, id),
        Err(reason) => end(state, id, Phase::Failed { reason }, now, effects),
    }
}

/// Ends a job: its executions are revoked, its receipts have been kept, its shards' outputs stay.
fn end(state: &mut State, id: JobId, phase: Phase, now: Millis, effects: &mut Vec<Effect>) {
    let Some(job) = state.jobs.get_mut(&id).filter(|job| !job.phase.is_ended()) else { return };
    state.timers.remove((job.submitted_ms.saturating_add(job.spec.deadline_ms), Timer::Deadline(id)));
    for (due, key) in job.back_offs() {
        state.timers.remove((due, Timer::Retry(id, key)));
    }
    let open = job.end(phase, &state.qualification.recent_of(id), now);
    effects.push(Effect::Notify { job: id, notice: Notice::Ended { phase: job.phase.verb().to_owned() } });
    state.ended_shards += u64::from(job.shard_count());
    for assignment in open {
        if let Some(open) = settle::drop_open(state, assignment, now) {
            effects.push(Effect::Revoke { node: open.node, assignment });
        }
    }
    money::close(state, id, now);
    state.ended.push_back(id);
    forget_oldest(state, effects);
}

/// Keeps what is remembered of ended jobs within its bounds.
fn forget_oldest(state: &mut State, effects: &mut Vec<Effect>) {
    let Config { finished_jobs_max, finished_shards_max, .. } = state.config;
    while state.ended.len() > finished_jobs_max.max(1)
        || (state.ended_shards > finished_shards_max && state.ended.len() > 1)
    {
        let Some(oldest) = state.ended.pop_front() else { return };
        let Some(job) = state.jobs.remove(&oldest) else { continue };
        state.ended_shards -= u64::from(job.shard_count());
        effects.push(Effect::Forget { job: oldest, blobs: job.blobs() });
        money::forget(state, oldest, effects);
    }
}
