//! What the host holds, and in which state.
//!
//! ```text
//! take ─► Waiting ─(content at hand)─► queue ─next─► Running ─finished─► Finished ─acknowledged─► gone
//!            │ fault, lease over, revoke                │ fault, revoke       │ revoke
//!            └──────────────► gone ◄────────────────────┴─────────────────────┘
//! ```
//! One lock, never held while anything waits. What has to be said to the coordinator is listed here and said by `link`,
//! whenever there is a connection; receipts stay listed as finished until they are acknowledged.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use grid::flow::{AssignmentId, Checkpoint, Fault, Found};
use registry::store::BlobReader;
use tokio::sync::Notify;

use super::{Lease, job::Job};
use crate::{
    limits,
    metrics::HostMetrics,
    net::wire::{Done, Order},
    sandbox::CancelToken,
};

/// One assignment on its way through the host.
pub(super) struct Task {
    pub(super) order: Order,
    pub(super) job: Arc<Job>,
    pub(super) lease: Lease,
    /// Which entry of the book it is: a coordinator that lost its last moments may use an assignment's number again.
    pub(super) entry: Entry,
    /// Times that its content turned out to be gone again.
    pub(super) tries: u8,
}

/// A result that is not acknowledged.
pub(super) struct Kept {
    pub(super) word: Word,
    /// While these live, the store keeps the large outputs: nobody reads from them.
    pub(super) _outputs: Vec<BlobReader>,
}

/// What is said of an assignment that came to something.
#[derive(Clone)]
pub(super) enum Word {
    /// A signed result.
    Done(Arc<Done>),
    /// What a task was run to, of which nothing is signed.
    Found(Found),
}

impl Word {
    /// Bytes that it takes in a frame, at most.
    fn weight(&self) -> usize {
        const FOUND: usize = 512;
        match self {
            Self::Done(done) => done.weight(),
            Self::Found(_) => FOUND,
        }
    }
}

/// One entry of the book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: AssignmentId,
    serial: u64,
}

struct Held {
    serial: u64,
    stage: Stage,
}

enum Stage {
    Waiting(Lease),
    Running(CancelToken),
    Finished(Kept),
}

/// See the module.
pub(super) struct Book {
    state: Mutex<State>,
    /// There is something to run, or nothing ever will be.
    work: Condvar,
    /// There is something to say.
    news: Notify,
    unfinished_max: usize,
    metrics: HostMetrics,
}

#[derive(Default)]
struct State {
    held: HashMap<AssignmentId, Held>,
    /// Entries so far.
    entries: u64,
    unfinished: usize,
    queue: VecDeque<Task>,
    unsent: VecDeque<AssignmentId>,
    faults: VecDeque<(AssignmentId, Fault)>,
    /// The last state that was kept of what runs, where that is unsaid.
    checkpoints: BTreeMap<AssignmentId, Checkpoint>,
    /// A batch of news is being written.
    saying: bool,
    /// Nothing new is taken.
    closing: bool,
    /// Threads end.
    stopped: bool,
}

impl State {
    /// How far an entry is, if it is still in the book.
    fn stage(&mut self, entry: Entry) -> Option<&mut Stage> {
        self.held.get_mut(&entry.id).filter(|held| held.serial == entry.serial).map(|held| &mut held.stage)
    }
}

/// What there is to say.
#[derive(Default)]
pub(super) struct News {
    pub(super) receipts: Vec<Arc<Done>>,
    pub(super) faults: Vec<(AssignmentId, Fault)>,
    pub(super) checkpoints: Vec<(AssignmentId, Checkpoint)>,
    pub(super) found: Vec<(AssignmentId, Found)>,
}

impl News {
    pub(super) fn is_empty(&self) -> bool {
        let nothing_done = self.receipts.is_empty() && self.found.is_empty();
        nothing_done && self.faults.is_empty() && self.checkpoints.is_empty()
    }
}

impl Book {
    pub(super) fn new(unfinished_max: usize, metrics: HostMetrics) -> Self {
        Self { state: Mutex::default(), work: Condvar::new(), news: Notify::new(), unfinished_max, metrics }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters an assignment that arrived, if it is to be done.
    pub(super) fn take(&self, id: AssignmentId, lease: Lease) -> Option<Entry> {
        let mut state = self.lock();
        if state.held.contains_key(&id) {
            // The coordinator sends nothing twice; what there is to say about it will be said.
            return None;
        }
        let refusal = if state.closing {
            Some(Fault::new("shutting_down", "host is shutting down"))
        } else if state.unfinished >= self.unfinished_max {
            Some(Fault::new(
                "queue_full",
                format!("host holds {} assignments, as many as it offered", state.unfinished),
            ))
        } else if state.held.len() >= limits::HOLDING_MAX {
            Some(Fault::new("queue_full", format!("host holds {} unacknowledged receipts", limits::HOLDING_MAX)))
        } else {
            None
        };
        if let Some(fault) = refusal {
            self.say(&mut state, id, fault);
            return None;
        }
        state.entries += 1;
        let entry = Entry { id, serial: state.entries };
        state.held.insert(id, Held { serial: entry.serial, stage: Stage::Waiting(lease) });
        state.unfinished += 1;
        self.metrics.set_in_flight(state.unfinished);
        Some(entry)
    }

    /// Queues a task whose content is at hand.
    pub(super) fn ready(&self, task: Task) {
        let mut state = self.lock();
        if matches!(state.stage(task.entry), Some(Stage::Waiting(_))) {
            state.queue.push_back(task);
            self.work.notify_one();
        }
    }

    /// The next task to run, with what cancels it; none when the threads shall end. Blocks.
    pub(super) fn next(&self) -> Option<(Task, CancelToken)> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            let Some(task) = state.queue.pop_front() else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let Some(stage @ Stage::Waiting(_)) = state.stage(task.entry) else { continue };
            if task.lease.left_ms().is_some() {
                let cancel = CancelToken::new();
                *stage = Stage::Running(cancel.clone());
                return Some((task, cancel));
            }
            self.drop_held(&mut state, task.entry.id);
        }
    }

    /// A running task shall wait for its content once more; says whether it is still wanted.
    pub(super) fn again(&self, entry: Entry, lease: Lease) -> bool {
        let mut state = self.lock();
        let Some(stage @ Stage::Running(_)) = state.stage(entry) else { return false };
        *stage = Stage::Waiting(lease);
        true
    }

    /// A task gave a result. If it was revoked meanwhile, nobody wants it.
    pub(super) fn finished(&self, entry: Entry, kept: Kept) {
        let mut state = self.lock();
        let Some(stage @ Stage::Running(_)) = state.stage(entry) else { return };
        *stage = Stage::Finished(kept);
        state.checkpoints.remove(&entry.id);
        state.unfinished -= 1;
        state.unsent.push_back(entry.id);
        self.metrics.set_in_flight(state.unfinished);
        self.news.notify_one();
    }

    /// A state of a running task was kept.
    pub(super) fn kept(&self, entry: Entry, checkpoint: Checkpoint) {
        let mut state = self.lock();
        if matches!(state.stage(entry), Some(Stage::Running(_))) {
            state.checkpoints.insert(entry.id, checkpoint);
            self.news.notify_one();
        }
    }

    /// A task gave none.
    pub(super) fn faulted(&self, entry: Entry, fault: Fault) {
        let mut state = self.lock();
        if state.stage(entry).is_some() {
            self.drop_held(&mut state, entry.id);
            self.say(&mut state, entry.id, fault);
        }
    }

    /// The coordinator does not want these any more, or has them on disk.
    pub(super) fn forget(&self, ids: &[AssignmentId]) {
        let mut state = self.lock();
        for id in ids {
            if let Some(Held { stage: Stage::Running(cancel), .. }) = state.held.get(id) {
                cancel.cancel();
            }
            self.drop_held(&mut state, *id);
        }
        if state.queue.len() > 2 * self.unfinished_max {
            let State { queue, held, .. } = &mut *state;
            queue.retain(|task| held.get(&task.entry.id).is_some_and(|held| held.serial == task.entry.serial));
        }
    }

    /// What is held, in order, without what expired while it waited; from now on everything finished is unsent.
    pub(super) fn introduce(&self) -> Vec<AssignmentId> {
        let mut state = self.lock();
        let over = |held: &Held| matches!(&held.stage, Stage::Waiting(lease) if lease.left_ms().is_none());
        let expired: Vec<_> = state.held.iter().filter(|(_, held)| over(held)).map(|(id, _)| *id).collect();
        for id in expired {
            self.drop_held(&mut state, id);
        }
        // A hello that does not list them says the same.
        state.faults.clear();
        state.saying = false;
        let finished = |held: &Held| matches!(held.stage, Stage::Finished(_));
        let mut unsent: Vec<_> = state.held.iter().filter(|(_, held)| finished(held)).map(|(id, _)| *id).collect();
        unsent.sort();
        state.unsent = unsent.into();
        let mut holding: Vec<_> = state.held.keys().copied().collect();
        holding.sort();
        holding
    }

    /// Waits until there is something to say, and takes a batch of it.
    pub(super) async fn news(&self) -> News {
        loop {
            let heard = self.news.notified();
            let news = self.take_news();
            if !news.is_empty() {
                return news;
            }
            heard.await;
        }
    }

    /// A batch of what there is to say, without waiting.
    fn take_news(&self) -> News {
        let mut state = self.lock();
        let mut news = News::default();
        let mut bytes = 0;
        while let Some(id) = state.unsent.front()
            && news.receipts.len() + news.found.len() < limits::BATCH_ITEMS_MAX
        {
            if let Some(Held { stage: Stage::Finished(kept), .. }) = state.held.get(id) {
                let weight = kept.word.weight();
                if bytes > 0 && bytes + weight > limits::BATCH_BYTES {
                    break;
                }
                bytes += weight;
                match kept.word.clone() {
                    Word::Done(done) => news.receipts.push(done),
                    Word::Found(found) => news.found.push((*id, found)),
                }
            }
            state.unsent.pop_front();
        }
        let faults = state.faults.len().min(limits::BATCH_ITEMS_MAX);
        news.faults.extend(state.faults.drain(..faults));
        // What runs is no more than there are slots.
        news.checkpoints.extend(std::mem::take(&mut state.checkpoints));
        state.saying = !news.is_empty();
        news
    }

    /// The last batch of news was written.
    pub(super) fn said(&self) {
        self.lock().saying = false;
    }

    /// Gives back what does not run yet, and takes nothing new.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        state.queue.clear();
        let waiting = |held: &Held| matches!(held.stage, Stage::Waiting(_));
        let waiting: Vec<_> = state.held.iter().filter(|(_, held)| waiting(held)).map(|(id, _)| *id).collect();
        for id in waiting {
            self.drop_held(&mut state, id);
            self.say(&mut state, id, Fault::new("shutting_down", "host is shutting down"));
        }
    }

    /// Cancels what runs and ends the threads.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.closing = true;
        state.stopped = true;
        for held in state.held.values() {
            if let Stage::Running(cancel) = &held.stage {
                cancel.cancel();
            }
        }
        self.work.notify_all();
    }

    /// Whether nothing is held and nothing is left to say.
    pub(super) fn is_done(&self) -> bool {
        let state = self.lock();
        state.held.is_empty() && state.faults.is_empty() && !state.saying
    }

    fn drop_held(&self, state: &mut State, id: AssignmentId) {
        let Some(held) = state.held.remove(&id) else { return };
        state.checkpoints.remove(&id);
        if !matches!(held.stage, Stage::Finished(_)) {
            state.unfinished -= 1;
            self.metrics.set_in_flight(state.unfinished);
        }
    }

    fn say(&self, state: &mut State, id: AssignmentId, fault: Fault) {
        self.metrics.task_faulted(&fault.word);
        // Who is offline says it by not listing the assignment; this only bounds what a stream of orders can pile up.
        if state.faults.len() < limits::HOLDING_MAX {
            state.faults.push_back((id, fault));
        }
        self.news.notify_one();
    }
}
