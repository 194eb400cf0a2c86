//! States that a host keeps of what it runs: fetched while the host is there, so that they outlive it.
//!
//! What is fetched is not looked into: whoever goes on from a state sees that it is one of the task, and it is only given to hosts that
//! have a reason to believe it. It is nothing that has to be kept: the store forgets it when it needs the room.

use std::{collections::BTreeMap, time::Duration};

use futures::stream::{FuturesUnordered, StreamExt};
use grid::flow::{AssignmentId, Checkpoint};
use iroh::endpoint::Connection;
use registry::{id::NodeId, store::FetchLimits};
use tokio::sync::mpsc;

use super::{
    Desk, Shared, check,
    session::{End, Open},
};
use crate::limits;

/// Fetches states until the session's reader is gone. Of each execution the last that was told of is fetched.
pub(super) async fn run<D: Desk>(
    shared: &Shared<D>,
    connection: &Connection,
    node: NodeId,
    open: &Open,
    mut told: mpsc::Receiver<Vec<(AssignmentId, Checkpoint)>>,
) -> End {
    let mut waiting: BTreeMap<AssignmentId, Checkpoint> = BTreeMap::new();
    let mut fetches = FuturesUnordered::new();
    loop {
        while fetches.len() < limits::CHECKPOINT_FETCHES_MAX
            && let Some((id, checkpoint)) = waiting.pop_first()
        {
            fetches.push(fetch(shared, connection, id, checkpoint));
        }
        tokio::select! {
            told = told.recv() => match told {
                None => return End::Left,
                // No more than the host has under way.
                Some(told) => waiting.extend(told.into_iter().filter(|(id, _)| open.output_bytes_max(*id).is_some())),
            },
            Some(fetched) = fetches.next() => if let Some((id, checkpoint)) = fetched {
                shared.desk.checkpoint(node, id, checkpoint).await;
            },
        }
    }
}

/// Takes a state from the host. One that does not come is no loss: the task goes on where it is.
async fn fetch<D: Desk>(
    shared: &Shared<D>,
    connection: &Connection,
    id: AssignmentId,
    checkpoint: Checkpoint,
) -> Option<(AssignmentId, Checkpoint)> {
    let wall_ms_max = limits::OUTPUT_FETCH_MS_MAX;
    let terms = FetchLimits { bytes_max: checkpoint.bytes, wall_ms_max };
    let provider = [check::provider(connection)];
    let fetch = shared.store.fetch(&shared.endpoint, checkpoint.snapshot, &provider, terms);
    match tokio::time::timeout(Duration::from_millis(wall_ms_max), fetch).await {
        Ok(Ok(fetched)) if fetched.len == checkpoint.bytes => Some((id, checkpoint)),
        Ok(Ok(_)) | Err(_) => None,
        Ok(Err(error)) => {
            tracing::debug!(assignment = id.0, %error, "a kept state does not come");
            None
        }
    }
}
