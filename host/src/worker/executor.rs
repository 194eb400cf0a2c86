//! The threads that run tasks, one a slot: from a task with everything at hand to a receipt that is to be signed.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use bytes::Bytes;
use grid::flow::Fault;
use registry::{
    id::BlobHash,
    price::Usage,
    receipt::{Output, Receipt},
    store::BlobReader,
};

use super::{
    Shared, WorkerError,
    book::{Kept, Task},
    checkpoint,
    job::{self, unavailable},
    log::ReceiptLog,
    signer::{self, Unsigned},
};
use crate::{
    limits,
    net::wire::Stdin,
    sandbox::{CancelToken, Finished, HostFault, Request, Sandbox},
    task::{self, Call},
};

/// The threads.
pub(super) struct Executors(Vec<thread::JoinHandle<()>>);

/// Starts a thread for each slot, and the one that signs.
pub(super) fn start(shared: &Arc<Shared>, log: ReceiptLog) -> Result<Executors, WorkerError> {
    let (results, signing) = signer::start(shared, log)?;
    let mut threads = vec![signing];
    for slot in 0..shared.options.slots {
        let (own, results) = (shared.clone(), results.clone());
        let thread = thread::Builder::new().name(format!("slot-{slot}")).stack_size(limits::EXECUTOR_STACK_BYTES);
        match thread.spawn(move || work(&own, &results)) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                shared.book.stop();
                return Err(WorkerError::Thread(error));
            }
        }
    }
    Ok(Executors(threads))
}

impl Executors {
    /// Waits for the threads, but not for one that hangs: it ends with the process.
    pub(super) async fn join(self) {
        let joined = tokio::task::spawn_blocking(move || self.0.into_iter().for_each(|thread| drop(thread.join())));
        if tokio::time::timeout(Duration::from_millis(limits::SHUTDOWN_MS_MAX), joined).await.is_err() {
            tracing::warn!("a task does not stop: its thread is left behind");
        }
    }
}

fn work(shared: &Arc<Shared>, results: &mpsc::Sender<Unsigned>) {
    while let Some((task, cancel)) = shared.book.next() {
        let entry = task.entry;
        // A panic is a bug of the host, and no reason for its other slots' work to be lost.
        shared.options.metrics.running(1);
        let ended = catch_unwind(AssertUnwindSafe(|| execute(shared, &task, &cancel)));
        shared.options.metrics.running(-1);
        match ended.unwrap_or_else(|_| Err(Stop::Fault(Fault::new("internal", "host panicked while it ran the task"))))
        {
            Ok(Ended::Found(kept)) => shared.book.finished(entry, kept),
            Ok(Ended::Unsigned(unsigned)) => {
                if results.send(*unsigned).is_err() {
                    shared.book.faulted(entry, Fault::new("internal", "host does not sign any more"));
                }
            }
            Err(Stop::Fault(fault)) => shared.book.faulted(entry, fault),
            Err(Stop::Again) => {
                if shared.book.again(entry, task.lease) {
                    job::gather(shared, task);
                }
            }
        }
    }
}

/// Why a task has no result.
pub(super) enum Stop {
    Fault(Fault),
    /// Something of it was evicted since it was queued.
    Again,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<HostFault> for Stop {
    fn from(fault: HostFault) -> Self {
        match fault {
            HostFault::ModuleMissing { .. } | HostFault::ModelMissing { .. } => Self::Again,
            fault => Self::Fault(Fault::new(fault.word(), fault.to_string())),
        }
    }
}

/// What came of an order.
enum Ended {
    /// A result.
    Unsigned(Box<Unsigned>),
    /// A state, or an end, that somebody wants to know of.
    Found(Kept),
}

fn execute(shared: &Shared, task: &Task, cancel: &CancelToken) -> Result<Ended, Stop> {
    let request = request(shared, task)?;
    let sandbox = task.job.sandbox(shared, task.order.engine)?;
    if let Some(until) = task.order.until {
        return checkpoint::find(shared, task, sandbox, request, until, cancel).map(Ended::Found);
    }
    let finished = checkpoint::run(shared, task, sandbox, request, cancel)?;
    let finished = shared.options.conduct.apply(finished, shared.node);
    let metrics = &shared.options.metrics;
    metrics.task_done(finished.outcome, Duration::from_micros(finished.wall_micros), finished.fuel_used);
    let output = task::output(&finished);
    let (stdout, outputs) = keep(shared, &finished)?;
    let receipt = receipt(shared, task, sandbox, &finished, &output);
    metrics.task_inferred(receipt.device.as_ref());
    let task_us = finished.wall_micros;
    Ok(Ended::Unsigned(Box::new(Unsigned { entry: task.entry, receipt, output, stdout, task_us, outputs })))
}

/// The task as one call.
pub(super) fn call(task: &Task) -> Call<'_> {
    let (order, job) = (&task.order, &task.job);
    Call { template: &job.template, template_hash: job.hash, shard: order.shard, input: order.input }
}

fn request(shared: &Shared, task: &Task) -> Result<Request, Stop> {
    let left_ms = task.lease.left_ms().ok_or_else(|| Fault::new("deadline", "lease ended before the task ran"))?;
    let files = task.job.files().ok_or(Stop::Again)?;
    let stdin = stdin(shared, task)?;
    let wall_ms_max = task.job.template.limits.wall_ms_max.min(left_ms);
    Ok(call(task).request(stdin, BTreeMap::clone(&files), wall_ms_max))
}

/// The input, if it is the one that the order names.
fn stdin(shared: &Shared, task: &Task) -> Result<Bytes, Fault> {
    let bytes = match &task.order.stdin {
        Stdin::Inline(bytes) => bytes.clone(),
        Stdin::Slice { blob, start, end } => {
            let read = shared.options.store.read_range(*blob, *start, end.saturating_sub(*start));
            shared.runtime.block_on(read).map_err(|error| unavailable(&error))?
        }
    };
    if BlobHash::of(&bytes) != task.order.input {
        return Err(Fault::new("input_hash", "input is not the one that the assignment names"));
    }
    Ok(bytes)
}

/// Standard output, if it is short enough to travel with the receipt; everything else goes into the store.
fn keep(shared: &Shared, finished: &Finished) -> Result<(Option<Bytes>, Vec<BlobReader>), Fault> {
    let inline = finished.stdout.len() <= limits::OUTPUT_INLINE_BYTES_MAX;
    let stdout = (!inline).then_some(&finished.stdout);
    let segments = finished.segments.as_ref().map(|record| Bytes::from(record.to_bytes()));
    let files = finished.files.iter().map(|(_, bytes)| bytes);
    let blobs = stdout.into_iter().chain(files).chain(&finished.nn_record).chain(&segments);
    let mut outputs = Vec::new();
    for bytes in blobs {
        let store = &shared.options.store;
        let kept = shared.runtime.block_on(store.publish_bytes(bytes.clone()));
        let kept = kept.and_then(|published| store.reader(published.hash));
        outputs.push(kept.map_err(|error| Fault::new("output_store", error.to_string()))?);
    }
    Ok((inline.then(|| finished.stdout.clone()), outputs))
}

fn receipt(shared: &Shared, task: &Task, sandbox: &Sandbox, finished: &Finished, output: &Output) -> Receipt {
    let order = &task.order;
    let receipt = Receipt {
        job: order.job,
        shard: order.shard,
        execution: call(task).execution(sandbox.fingerprint(), finished, output),
        // What the engine that ran it says of itself, and not what was ordered.
        device: finished.nn_root.and_then(|_| sandbox.describe().device.clone()),
        node: shared.node,
        operator: shared.operator,
        nonce: order.id.0,
        price_micro: 0,
        nn_record: finished.nn_record.as_ref().map(|record| BlobHash::of(record)),
        segment_record: finished.segments.as_ref().map(|record| BlobHash::of(&record.to_bytes())),
    };
    let usage = Usage::of(&receipt, output, task.job.template.limits.memory_bytes_max);
    // Within prices that were checked and a task's limits there is always a bill.
    let price_micro = shared.options.prices.bill(&usage).map_or(0, |bill| bill.total.micro());
    Receipt { price_micro, ..receipt }
}
