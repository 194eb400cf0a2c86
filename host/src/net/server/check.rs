//! Receipts, from bytes to what the event machine may believe.
//!
//! 1. *Verified* on threads that may block: the signature is this node's and its head contradicts none that is known, the
//!    output is the one that was signed, an inline standard output is the one in the output. Whatever does not hold ends the session: an honest host never sends it.
//! 2. *Fetched*, if something of the output is not in the frame, from the host and within the task's own limit. What does
//!    not come is a fault `output_missing`, not garbage: networks break. Records of inferences and of segments come the same way, and
//!    are held against the signed roots: `record_missing`, `record_wrong`.
//! 3. *Delivered*, in whatever order they get ready.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use grid::flow::{AssignmentId, Attested, Fault};
use iroh::{EndpointAddr, TransportAddr, endpoint::Connection};
use registry::{
    id::{BlobHash, NodeId},
    receipt::Receipt,
    segment::{SEGMENT_RECORD_BYTES_MAX, SegmentRecord},
    store::{FetchLimits, StoreError},
};
use tokio::sync::mpsc;

use super::{
    Desk, Shared,
    heads::HostHeads,
    session::{End, Open},
};
use crate::{
    coordinator::{Delivered, ToHost},
    limits,
    net::wire::Done,
    sandbox::NnRecord,
};

/// A receipt as it came.
pub(super) type Raw = Arc<Done>;

/// Checks receipts until the session's reader is gone or one of them is garbage.
pub(super) async fn run<D: Desk>(
    shared: &Shared<D>,
    connection: &Connection,
    node: NodeId,
    open: &Open,
    outbox: mpsc::WeakSender<ToHost>,
    mut batches: mpsc::Receiver<Vec<Raw>>,
) -> End {
    let heads = shared.heads.of(node);
    let mut checks = FuturesUnordered::new();
    let mut fetches = FuturesUnordered::new();
    loop {
        let room = checks.len() < limits::CHECKS_MAX && fetches.len() < limits::FETCHES_MAX;
        tokio::select! {
            batch = batches.recv(), if room => match batch {
                None => return End::Left,
                Some(batch) => {
                    for piece in batch.chunks(limits::CHECK_ITEMS_MAX) {
                        checks.push(verify(shared, node, &heads, piece.to_vec()));
                    }
                }
            },
            Some(verified) = checks.next() => match verified {
                Err(end) => return end,
                Ok(verified) => {
                    let (whole, parts): (Vec<_>, Vec<_>) = verified.into_iter().partition(Delivered::is_whole);
                    if !whole.is_empty() {
                        shared.desk.deliver(node, whole).await;
                    }
                    for delivered in parts {
                        match open.output_bytes_max(id(&delivered)) {
                            Some(bytes_max) => fetches.push(fetch(shared, connection, delivered, bytes_max)),
                            // Long settled: fetching it would only cost.
                            None => forget(&outbox, id(&delivered)),
                        }
                    }
                }
            },
            Some(fetched) = fetches.next() => match fetched {
                Ok(delivered) => shared.desk.deliver(node, vec![delivered]).await,
                Err((id, fault)) => {
                    open.close(id);
                    shared.desk.faulted(node, vec![(id, fault)]).await;
                    forget(&outbox, id);
                }
            },
        }
    }
}

fn id(delivered: &Delivered) -> AssignmentId {
    AssignmentId(delivered.receipt.receipt().nonce)
}

/// Tells the host that it need not keep a receipt.
pub(super) fn forget(outbox: &mpsc::WeakSender<ToHost>, id: AssignmentId) {
    if let Some(outbox) = outbox.upgrade() {
        // A host whose outbox is full hears it after it reconnects.
        let _ = outbox.try_send(ToHost::Acknowledge(id));
    }
}

async fn verify<D: Desk>(
    shared: &Shared<D>,
    node: NodeId,
    heads: &Arc<HostHeads>,
    piece: Vec<Raw>,
) -> Result<Vec<Delivered>, End> {
    let heads = heads.clone();
    // The semaphore is never closed.
    let permit = shared.checks.clone().acquire_owned().await.map_err(|_| End::Stopping)?;
    let verified = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        piece.into_iter().map(|done| check(done, node, &heads)).collect::<Result<Vec<_>, String>>()
    });
    match verified.await {
        Ok(verified) => verified.map_err(End::Garbage),
        Err(_) => Err(End::Stopping),
    }
}

/// What one receipt must hold by itself.
fn check(done: Raw, node: NodeId, heads: &HostHeads) -> Result<Delivered, String> {
    let Done { receipt, output, stdout, task_us } = Arc::unwrap_or_clone(done);
    let receipt = Attested::check_by(receipt, node, |head| heads.believe(head));
    let receipt = receipt.map_err(|error| format!("receipt: {error}"))?;
    if receipt.receipt().execution.output != output.hash() {
        return Err("receipt: the output is not the one that was signed".to_owned());
    }
    let Receipt { segment_record, execution, .. } = receipt.receipt();
    if segment_record.is_some() != execution.segment_root.is_some() {
        return Err("receipt: a record of segments goes with a segment root".to_owned());
    }
    if let Some(stdout) = &stdout
        && (stdout.len() as u64 != output.stdout_bytes || BlobHash::of(stdout) != output.stdout)
    {
        return Err("receipt: standard output is not the one in the output".to_owned());
    }
    Ok(Delivered { receipt, output, stdout, task_us })
}

/// Takes what is not here of an output from the host.
async fn fetch<D: Desk>(
    shared: &Shared<D>,
    connection: &Connection,
    delivered: Delivered,
    bytes_max: u64,
) -> Result<Delivered, (AssignmentId, Fault)> {
    let id = id(&delivered);
    let output = &delivered.output;
    if output.bytes() > bytes_max {
        let detail = format!("output of {} bytes is over the task's limit of {bytes_max}", output.bytes());
        return Err((id, Fault::new("output_limit", detail)));
    }
    let stdout = delivered.stdout.is_none().then_some((output.stdout, output.stdout_bytes));
    let blobs = stdout.into_iter().chain(output.files.iter().map(|file| (file.hash, file.bytes)));
    let missing = |detail: String| (id, Fault::new("output_missing", detail));
    let all = async {
        for (hash, bytes) in blobs {
            take(shared, connection, hash, bytes).await.map_err(missing)?;
        }
        record(shared, connection, &delivered).await.map_err(|fault| (id, fault))?;
        segments(shared, connection, &delivered).await.map_err(|fault| (id, fault))
    };
    let in_time = tokio::time::timeout(Duration::from_millis(limits::OUTPUT_FETCH_MS_MAX), all).await;
    in_time.unwrap_or_else(|_| Err(missing(format!("not here within {} ms", limits::OUTPUT_FETCH_MS_MAX))))?;
    Ok(delivered)
}

/// Takes a blob of this length from the host.
pub(super) async fn take<D: Desk>(
    shared: &Shared<D>,
    connection: &Connection,
    hash: BlobHash,
    bytes: u64,
) -> Result<(), String> {
    let terms = FetchLimits { bytes_max: bytes, wall_ms_max: limits::OUTPUT_FETCH_MS_MAX };
    match shared.store.fetch(&shared.endpoint, hash, &[provider(connection)], terms).await {
        Ok(fetched) if fetched.len == bytes => Ok(()),
        Ok(fetched) => Err(format!("blob has {} bytes instead of {bytes}", fetched.len)),
        Err(error) => Err(error.to_string()),
    }
}

/// Takes the record of inferences from the host, and sees that it is the one that was signed: without it nobody could check the
/// result.
async fn record<D: Desk>(shared: &Shared<D>, connection: &Connection, delivered: &Delivered) -> Result<(), Fault> {
    let receipt = delivered.receipt.receipt();
    let Some(hash) = receipt.nn_record else { return Ok(()) };
    let bytes = record_bytes(shared, connection, hash, limits::NN_RECORD_FILE_BYTES_MAX).await?;
    let execution = receipt.execution.clone();
    let opened = tokio::task::spawn_blocking(move || NnRecord::open(&bytes, &execution).map(drop)).await;
    match opened {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Fault::new("record_wrong", error.to_string())),
        Err(_) => Err(Fault::new("internal", "checking a record of inferences panicked")),
    }
}

/// The same of the record of segments: without it nobody could say where two results part.
async fn segments<D: Desk>(shared: &Shared<D>, connection: &Connection, delivered: &Delivered) -> Result<(), Fault> {
    let Receipt { segment_record, execution, .. } = delivered.receipt.receipt();
    let Some(hash) = *segment_record else { return Ok(()) };
    let bytes = record_bytes(shared, connection, hash, SEGMENT_RECORD_BYTES_MAX).await?;
    let opened = SegmentRecord::open(&bytes, execution.segment_root);
    opened.map(drop).map_err(|error| Fault::new("record_wrong", error.to_string()))
}

async fn record_bytes<D: Desk>(
    shared: &Shared<D>,
    connection: &Connection,
    hash: BlobHash,
    bytes_max: usize,
) -> Result<Bytes, Fault> {
    let missing = |error: StoreError| Fault::new("record_missing", error.to_string());
    let bytes_max = bytes_max as u64;
    let terms = FetchLimits { bytes_max, wall_ms_max: limits::OUTPUT_FETCH_MS_MAX };
    shared.store.fetch(&shared.endpoint, hash, &[provider(connection)], terms).await.map_err(missing)?;
    shared.store.read(hash, bytes_max).await.map_err(missing)
}

/// The host, where its connection comes from.
fn provider(connection: &Connection) -> EndpointAddr {
    let mut provider = EndpointAddr::new(connection.remote_id());
    for path in connection.paths().iter() {
        if let TransportAddr::Ip(addr) = path.remote_addr() {
            provider = provider.with_ip_addr(*addr);
        }
    }
    provider
}
