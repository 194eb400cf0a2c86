//! States of tasks: fetched from a host while it is there.
//!
//! - Those that it keeps of what it runs, so that they outlive it. They are not looked into: whoever goes on from a state sees that it is
//!   one of the task, and it is only given to hosts that have a reason to believe it. The store forgets them when it needs the room.
//! - Those that it was ordered to find, since two results differ. Of these the snapshot has to be one of the state that the host
//!   names; what does not come, or is another, is a fault of that order.

use std::{collections::BTreeMap, time::Duration};

use futures::stream::{FuturesUnordered, StreamExt};
use grid::flow::{AssignmentId, Checkpoint, Fault, Found};
use iroh::endpoint::Connection;
use registry::{dispute::End as Ending, id::NodeId, segment::Snapshot, store::FetchLimits};
use tokio::{sync::mpsc, time::Instant};

use super::{
    Desk, Shared, check,
    session::{End, Open},
};
use crate::limits;

/// What a host tells of a state.
#[derive(Debug, Clone, Copy)]
pub(super) enum Told {
    /// It keeps one.
    Kept(Checkpoint),
    /// It was to find one.
    Found(Found),
}

impl Told {
    fn checkpoint(&self) -> Option<Checkpoint> {
        match self {
            Self::Kept(checkpoint) => Some(*checkpoint),
            Self::Found(found) => found.checkpoint,
        }
    }
}

/// Fetches states until the session's reader is gone. Of each execution the last that was told of is fetched.
pub(super) async fn run<D: Desk>(
    shared: &Shared<D>,
    connection: &Connection,
    node: NodeId,
    open: &Open,
    mut told: mpsc::Receiver<Vec<(AssignmentId, Told)>>,
) -> End {
    let mut waiting: BTreeMap<AssignmentId, Told> = BTreeMap::new();
    let mut fetches = FuturesUnordered::new();
    // When the next one may begin.
    let mut next = Instant::now();
    loop {
        while fetches.len() < limits::CHECKPOINT_FETCHES_MAX
            && next <= Instant::now()
            && let Some((id, told)) = waiting.pop_first()
        {
            next = Instant::now() + pause(&told);
            fetches.push(fetch(shared, connection, id, told));
        }
        tokio::select! {
            () = tokio::time::sleep_until(next), if !waiting.is_empty() && next > Instant::now() => {}
            told = told.recv() => match told {
                None => return End::Left,
                // No more than the host has under way.
                Some(told) => waiting.extend(told.into_iter().filter(|(id, _)| open.output_bytes_max(*id).is_some())),
            },
            Some((id, told, fetched)) = fetches.next() => match (told, fetched) {
                (Told::Kept(checkpoint), Ok(())) => shared.desk.checkpoint(node, id, checkpoint).await,
                // No loss: the task goes on where it is.
                (Told::Kept(_), Err(detail)) => tracing::debug!(assignment = id.0, detail, "a kept state does not come"),
                (Told::Found(found), Ok(())) => shared.desk.found(node, id, found).await,
                (Told::Found(_), Err(detail)) => {
                    open.close(id);
                    shared.desk.faulted(node, vec![(id, Fault::new("state_missing", detail))]).await;
                }
            },
        }
    }
}

/// How long the next state has to wait after this one.
fn pause(told: &Told) -> Duration {
    let bytes = told.checkpoint().map_or(0, |checkpoint| checkpoint.bytes);
    Duration::from_millis(bytes.saturating_mul(1000) / limits::CHECKPOINT_BYTES_PER_S_MAX)
}

/// Takes a state from the host, if there is one to take.
async fn fetch<D: Desk>(
    shared: &Shared<D>,
    connection: &Connection,
    id: AssignmentId,
    told: Told,
) -> (AssignmentId, Told, Result<(), String>) {
    let wall_ms_max = limits::OUTPUT_FETCH_MS_MAX;
    let Some(checkpoint) = told.checkpoint() else { return (id, told, Ok(())) };
    let terms = FetchLimits { bytes_max: checkpoint.bytes, wall_ms_max };
    let provider = [check::provider(connection)];
    let fetch = shared.store.fetch(&shared.endpoint, checkpoint.snapshot, &provider, terms);
    let fetched = match tokio::time::timeout(Duration::from_millis(wall_ms_max), fetch).await {
        Ok(Ok(fetched)) if fetched.len == checkpoint.bytes => match told {
            Told::Kept(_) => Ok(()),
            Told::Found(found) => is_state(shared, checkpoint, found.end).await,
        },
        Ok(Ok(fetched)) => Err(format!("blob has {} bytes instead of {}", fetched.len, checkpoint.bytes)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("not here within {wall_ms_max} ms")),
    };
    (id, told, fetched)
}

/// Whether the snapshot is one of the state that was named.
async fn is_state<D: Desk>(shared: &Shared<D>, checkpoint: Checkpoint, end: Ending) -> Result<(), String> {
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
