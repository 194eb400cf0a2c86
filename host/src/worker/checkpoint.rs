//! Tasks with steps, whose states are kept as they run, so that a task can go on elsewhere should this host be lost.
//!
//! A task is run in spans: after [`checkpoint_ms`](super::WorkerOptions::checkpoint_ms) it stops at its next state, the snapshot of
//! that goes into the store, where the coordinator fetches it from, and the task goes on. What comes of the task is the same, and
//! so is its receipt. A task without steps is one span.

use bytes::Bytes;
use grid::{
    dispatch::SNAPSHOT_REFUSED,
    flow::{Checkpoint, Fault},
};
use registry::{
    id::TaskId,
    segment::{Snapshot, SnapshotError},
    store::BlobReader,
};

use super::{Shared, book::Task, executor::Stop};
use crate::{
    clock::Stopwatch,
    limits,
    sandbox::{CancelToken, Finished, HostFault, Ran, Request, Sandbox, Span},
};

/// Runs a task to its end, from where the order says.
pub(super) fn run(
    shared: &Shared,
    task: &Task,
    sandbox: &Sandbox,
    mut request: Request,
    cancel: &CancelToken,
) -> Result<Finished, Stop> {
    let (since, wall_ms_max) = (Stopwatch::start(), request.limits.wall_ms_max);
    let mut from = inherited(shared, task)?;
    let mut before_micros = 0u64;
    let mut pause_ms = Some(shared.options.checkpoint_ms);
    // While it lives, the store keeps the snapshot that was told of last.
    let mut kept: Option<BlobReader> = None;
    loop {
        let span = Span { from: from.take(), until: None, pause_ms };
        match sandbox.run_span(request.clone(), span, Some(cancel)) {
            Ok(Ran::Done(finished)) => {
                drop(kept);
                return Ok(Finished { wall_micros: before_micros.saturating_add(finished.wall_micros), ..*finished });
            }
            Ok(Ran::Paused(snapshot)) => {
                match keep(shared, task, sandbox, &request, snapshot.clone()) {
                    Ok(reader) => kept = Some(reader),
                    Err(Unkept::Refused(error)) => return Err(broken(&error).into()),
                    // It may well be that all of the task's states are: it is not stopped again.
                    Err(Unkept::Room(detail)) => {
                        tracing::warn!(assignment = task.order.id.0, detail, "a state is not kept");
                        pause_ms = None;
                    }
                }
                from = Some(snapshot);
                before_micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
                // Each span has what is left of the task's time.
                let left = wall_ms_max.saturating_sub(since.elapsed_ms());
                if left == 0 {
                    return Err(HostFault::Deadline { wall_ms_max }.into());
                }
                request.limits.wall_ms_max = left;
            }
            Err(HostFault::Deadline { .. }) => return Err(HostFault::Deadline { wall_ms_max }.into()),
            Err(fault) => return Err(fault.into()),
        }
    }
}

/// What the order says to go on from.
fn inherited(shared: &Shared, task: &Task) -> Result<Option<Bytes>, Fault> {
    let Some(from) = task.order.from else { return Ok(None) };
    let read = shared.runtime.block_on(shared.options.store.read(from.snapshot, from.bytes));
    read.map(Some).map_err(|error| Fault::new(SNAPSHOT_REFUSED, error.to_string()))
}

/// Why a state is not kept.
enum Unkept {
    /// It is none of this task: what ran it is broken.
    Refused(SnapshotError),
    /// There is no room for it.
    Room(String),
}

fn broken(error: &SnapshotError) -> HostFault {
    HostFault::SandboxDied { how: format!("it gave a snapshot that is none of its task: {error}") }
}

/// Puts a snapshot into the store and tells the coordinator. It comes from a process that is believed nothing.
fn keep(
    shared: &Shared,
    task: &Task,
    sandbox: &Sandbox,
    request: &Request,
    bytes: Bytes,
) -> Result<BlobReader, Unkept> {
    let length = bytes.len() as u64;
    if length > limits::CHECKPOINT_BYTES_MAX {
        return Err(Unkept::Room(format!("it has {length} bytes, over the bound of {}", limits::CHECKPOINT_BYTES_MAX)));
    }
    let snapshot = Snapshot::open(&bytes, limits::CHECKPOINT_BYTES_MAX).map_err(Unkept::Refused)?;
    snapshot.check_of(request.module, TaskId(request.seed), sandbox.fingerprint()).map_err(Unkept::Refused)?;
    let (index, fuel_used) = (snapshot.state.index, snapshot.state.fuel_used);
    let store = &shared.options.store;
    let published = shared.runtime.block_on(store.publish_bytes(bytes));
    let kept = published.and_then(|published| Ok((published.hash, store.reader(published.hash)?)));
    let (snapshot, reader) = kept.map_err(|error| Unkept::Room(error.to_string()))?;
    shared.book.kept(task.entry, Checkpoint { index, fuel_used, snapshot, bytes: length });
    Ok(reader)
}
