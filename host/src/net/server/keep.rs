//! States of tasks: fetched from a host while it is there.
//!
//! - Those that it keeps of what it runs, so that they outlive it. They are not looked into: whoever goes on from a state sees that it is
//!   one of the task, and it is only given to hosts that have a reason to believe it. The store forgets them when it needs the room.
//! - Those that it was ordered to find, since two results differ. Of these the snapshot has to be one of the state that the host
//!   names; what does not come, or is another, is a fault of that order. They go before the others.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    time::Duration,
};

use futures::stream::{FuturesUnordered, StreamExt};
use grid::flow::{AssignmentId, Checkpoint, Fault, Found};
use iroh::endpoint::Connection;
use registry::{dispute::End as Ending, id::NodeId, segment::Snapshot};
use tokio::{sync::mpsc, time::Instant};

use super::{
    Desk, Shared, check,
    session::{End, Open},
};
use crate::{coordinator::ToHost, limits};

/// What a host tells of a state.
#[derive(Debug, Clone, Copy)]
pub(super) enum Told {
    /// It keeps one.
    Kept(Checkpoint),
    /// It was to find one.
    Found(Found),
}

/// What waits to be fetched: what was ordered first, the rest in turn.
#[derive(Default)]
struct Waiting {
    found: VecDeque<(AssignmentId, Found)>,
    kept: BTreeMap<AssignmentId, Checkpoint>,
    /// Whose turn it was last.
    last: Option<AssignmentId>,
    /// When the next state that was kept may be fetched.
    next: Option<Instant>,
}

impl Waiting {
    fn push(&mut self, id: AssignmentId, told: Told) {
        match told {
            Told::Found(found) => self.found.push_back((id, found)),
            // Of each execution the last that was told of.
            Told::Kept(checkpoint) => drop(self.kept.insert(id, checkpoint)),
        }
    }

    fn pop(&mut self) -> Option<(AssignmentId, Told)> {
        if let Some((id, found)) = self.found.pop_front() {
            return Some((id, Told::Found(found)));
        }
        if self.next.is_some_and(|next| next > Instant::now()) {
            return None;
        }
        let after = (self.last.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let id = *self.kept.range(after).next().or_else(|| self.kept.first_key_value())?.0;
        let checkpoint = self.kept.remove(&id)?;
        let ms = checkpoint.bytes.saturating_mul(1000) / limits::CHECKPOINT_BYTES_PER_S_MAX;
        self.next = Some(Instant::now() + Duration::from_millis(ms.max(limits::CHECKPOINT_MS_MIN)));
        self.last = Some(id);
        Some((id, Told::Kept(checkpoint)))
    }
}

/// Fetches states until the session's reader is gone.
pub(super) async fn run<D: Desk>(
    shared: &Shared<D>,
    connection: &Connection,
    node: NodeId,
    open: &Open,
    outbox: mpsc::WeakSender<ToHost>,
    mut told: mpsc::Receiver<Vec<(AssignmentId, Told)>>,
) -> End {
    let mut waiting = Waiting::default();
    let mut fetches = FuturesUnordered::new();
    loop {
        while fetches.len() < limits::CHECKPOINT_FETCHES_MAX
            && let Some((id, told)) = waiting.pop()
        {
            fetches.push(fetch(shared, connection, node, id, told));
        }
        let has_room = fetches.len() < limits::CHECKPOINT_FETCHES_MAX;
        let next = waiting.next.filter(|_| has_room && !waiting.kept.is_empty());
        tokio::select! {
            // No more of them than the host has under way.
            told = told.recv(), if waiting.found.len() < limits::HOLDING_MAX => match told {
                None => return End::Left,
                Some(told) => told
                    .into_iter()
                    .filter(|(id, _)| open.output_bytes_max(*id).is_some())
                    .for_each(|(id, told)| waiting.push(id, told)),
            },
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            Some((id, told, fetched)) = fetches.next() => match (told, fetched) {
                (Told::Kept(checkpoint), Fetched::Here) => shared.desk.checkpoint(node, id, checkpoint).await,
                // No loss: the task goes on where it is.
                (Told::Kept(_), Fetched::Unwanted) => {}
                (Told::Kept(_), Fetched::Missing(detail)) => {
                    tracing::debug!(assignment = id.0, detail, "a kept state does not come");
                }
                (Told::Found(found), Fetched::Here) => shared.desk.found(node, id, found).await,
                (Told::Found(_), Fetched::Unwanted) => check::forget(&outbox, id),
                (Told::Found(_), Fetched::Missing(detail)) => {
                    open.close(id);
                    shared.desk.faulted(node, vec![(id, Fault::new("state_missing", detail))]).await;
                    check::forget(&outbox, id);
                }
            },
        }
    }
}

/// What came of a state.
enum Fetched {
    /// Everything of it that there is to have is here.
    Here,
    /// Nobody asked for it.
    Unwanted,
    /// It does not come, or is another.
    Missing(String),
}

/// Takes a state from the host, if it is wanted and there is something to take.
async fn fetch<D: Desk>(
    shared: &Shared<D>,
    connection: &Connection,
    node: NodeId,
    id: AssignmentId,
    told: Told,
) -> (AssignmentId, Told, Fetched) {
    let (checkpoint, fuel_used) = match told {
        Told::Kept(checkpoint) => (Some(checkpoint), Some(checkpoint.fuel_used)),
        Told::Found(found) => (found.checkpoint, None),
    };
    if !shared.desk.wants_state(node, id, fuel_used).await {
        return (id, told, Fetched::Unwanted);
    }
    let Some(checkpoint) = checkpoint else { return (id, told, Fetched::Here) };
    let taken = match (check::take(shared, connection, checkpoint.snapshot, checkpoint.bytes).await, told) {
        (Ok(()), Told::Found(found)) => is_state(shared, checkpoint, found.end).await,
        (taken, _) => taken,
    };
    (id, told, taken.map_or_else(Fetched::Missing, |()| Fetched::Here))
}

/// Whether the snapshot is one of the state that was named.
async fn is_state<D: Desk>(shared: &Shared<D>, checkpoint: Checkpoint, end: Ending) -> Result<(), String> {
    // Each takes as much memory as the state has, and a core. The semaphore is never closed.
    let _permit = shared.checks.clone().acquire_owned().await.map_err(|error| error.to_string())?;
    let bytes = shared.store.read(checkpoint.snapshot, checkpoint.bytes).await.map_err(|error| error.to_string())?;
    let root = tokio::task::spawn_blocking(move || {
        Snapshot::open(&bytes, limits::CHECKPOINT_BYTES_MAX).map(|snapshot| snapshot.state.root())
    });
    match root.await {
        Ok(Ok(root)) if end == Ending::State(root) => Ok(()),
        Ok(Ok(_)) => Err("the snapshot is of another state than the one that is named".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("opening a snapshot panicked".to_owned()),
    }
}
