//! Tasks with steps, whose states are kept as they run, so that a task can go on elsewhere should this host be lost.
//!
//! A task is run in spans: after [`checkpoint_ms`](super::WorkerOptions::checkpoint_ms) it stops at its next state, the snapshot of
//! that goes into the store, where the coordinator fetches it from, and the task goes on. What comes of the task is the same, and
//! so is its receipt. A task without steps is one span.
//!
//! Where two results differ, a host is asked for a state, or for what comes of one segment: that is a span too, and nothing of it is
//! signed.

use bytes::Bytes;
use grid::{
    dispatch::SNAPSHOT_REFUSED,
    flow::{Checkpoint, Fault, Found, Until},
};
use registry::{
    dispute::End,
    id::{BlobHash, StateRoot, TaskId},
    segment::{Snapshot, SnapshotError, State},
    store::BlobReader,
};

use super::{
    Shared,
    book::{Kept, Task, Word},
    executor::{Stop, call},
};
use crate::{
    clock::Stopwatch,
    limits,
    sandbox::{CancelToken, Finished, HostFault, Ran, Request, Sandbox, Span, snapshot_bytes_max},
    task,
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

/// Runs a task to a state, from where the order says, and tells what that is. A host that lies about tasks is asked for what it signed,
/// which it has not: what it finds is the truth, and that is against it.
pub(super) fn find(
    shared: &Shared,
    task: &Task,
    sandbox: &Sandbox,
    request: Request,
    until: Until,
    cancel: &CancelToken,
) -> Result<Kept, Stop> {
    let span = Span { from: inherited(shared, task)?, until: Some(until.state), pause_ms: None };
    let (end, kept) = match sandbox.run_span(request.clone(), span, Some(cancel))? {
        Ran::Done(finished) => {
            let output = task::output(&finished);
            (End::Task((&call(task).execution(sandbox.fingerprint(), &finished, &output)).into()), None)
        }
        Ran::Paused(bytes) => {
            let (root, checkpoint) = opened(sandbox, &request, &bytes).map_err(|error| broken(&error))?;
            (End::State(root), until.keeps.then_some((checkpoint, bytes)))
        }
    };
    let (checkpoint, bytes) = kept.unzip();
    let outputs = bytes.map(|bytes| publish(shared, bytes)).transpose();
    let outputs = outputs.map_err(|detail| Fault::new("output_store", detail))?;
    Ok(Kept { word: Word::Found(Found { end, checkpoint }), _outputs: outputs.into_iter().collect() })
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

/// Puts a snapshot into the store and tells the coordinator.
fn keep(
    shared: &Shared,
    task: &Task,
    sandbox: &Sandbox,
    request: &Request,
    bytes: Bytes,
) -> Result<BlobReader, Unkept> {
    let (_, checkpoint) = opened(sandbox, request, &bytes).map_err(Unkept::Refused)?;
    let reader = publish(shared, bytes).map_err(Unkept::Room)?;
    shared.book.kept(task.entry, checkpoint);
    Ok(reader)
}

/// The state of a snapshot, which comes from a process that is believed nothing.
fn opened(sandbox: &Sandbox, request: &Request, bytes: &Bytes) -> Result<(StateRoot, Checkpoint), SnapshotError> {
    let snapshot = Snapshot::open(bytes, snapshot_bytes_max(&request.limits))?;
    snapshot.check_of(request.module, TaskId(request.seed), sandbox.fingerprint())?;
    let State { index, fuel_used, .. } = snapshot.state;
    let length = bytes.len() as u64;
    let checkpoint = Checkpoint { index, fuel_used, snapshot: BlobHash::of(bytes), bytes: length };
    Ok((snapshot.state.root(), checkpoint))
}

fn publish(shared: &Shared, bytes: Bytes) -> Result<BlobReader, String> {
    let (store, length) = (&shared.options.store, bytes.len() as u64);
    if length > limits::CHECKPOINT_BYTES_MAX {
        return Err(format!("a state has {length} bytes, over the bound of {}", limits::CHECKPOINT_BYTES_MAX));
    }
    let published = shared.runtime.block_on(store.publish_bytes(bytes));
    published.and_then(|published| store.reader(published.hash)).map_err(|error| error.to_string())
}
