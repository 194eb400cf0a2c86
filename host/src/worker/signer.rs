//! Signs results, all that are ready with one signature.
//!
//! One thread takes what the slots finished. A result that comes alone is signed alone and at once. While the batch before is
//! on its way to the disk, results pile up, and all of them are the next one: so neither signing nor the disk bounds how
//! many there are a second, and nobody ever waits for company.
//!
//! A batch is in the host's log before its receipts are in the book, from where they are sent (see [`log`](super::log)).

use std::{
    sync::{Arc, mpsc},
    thread,
};

use bytes::Bytes;
use grid::flow::Fault;
use registry::{
    receipt::{Output, Receipt},
    sign::{BATCH_ITEMS_MAX, Batch, SignatureError, Signed},
    store::BlobReader,
};

use super::{
    Shared, WorkerError,
    book::{Entry, Kept, Word},
    log::{ReceiptLog, ReceiptLogError},
};
use crate::net::wire::Done;

/// A result that nobody signed yet.
pub(super) struct Unsigned {
    pub(super) entry: Entry,
    pub(super) receipt: Receipt,
    pub(super) output: Output,
    pub(super) stdout: Option<Bytes>,
    pub(super) task_us: u64,
    pub(super) outputs: Vec<BlobReader>,
}

/// Starts the thread; it ends when the last sender is gone and everything is signed.
pub(super) fn start(
    shared: &Arc<Shared>,
    mut log: ReceiptLog,
) -> Result<(mpsc::Sender<Unsigned>, thread::JoinHandle<()>), WorkerError> {
    let (results, inbox) = mpsc::channel();
    let shared = shared.clone();
    let work = move || {
        while let Some(batch) = next_batch(&inbox) {
            sign(&shared, &mut log, batch);
        }
    };
    let thread = thread::Builder::new().name("signer".into()).spawn(work).map_err(WorkerError::Thread)?;
    Ok((results, thread))
}

/// Waits for a result, and takes those that are ready with it.
fn next_batch(inbox: &mpsc::Receiver<Unsigned>) -> Option<Vec<Unsigned>> {
    let first = inbox.recv().ok()?;
    Some(std::iter::once(first).chain(inbox.try_iter().take(BATCH_ITEMS_MAX - 1)).collect())
}

fn sign(shared: &Shared, log: &mut ReceiptLog, batch: Vec<Unsigned>) {
    let receipts: Vec<Receipt> = batch.iter().map(|unsigned| unsigned.receipt.clone()).collect();
    match seal(shared, log, &receipts) {
        Ok(signed) => {
            for (unsigned, receipt) in batch.into_iter().zip(signed) {
                let Unsigned { entry, output, stdout, task_us, outputs, .. } = unsigned;
                let done = Arc::new(Done { receipt, output, stdout, task_us });
                shared.book.finished(entry, Kept { word: Word::Done(done), _outputs: outputs });
            }
        }
        Err(error) => {
            tracing::error!(%error, "results cannot be signed; the coordinator gives them to others");
            for unsigned in batch {
                shared.book.faulted(unsigned.entry, Fault::new("receipt_log", error.to_string()));
            }
        }
    }
}

/// Why a batch is not signed.
#[derive(Debug, thiserror::Error)]
enum SealError {
    #[error("{0}")]
    Log(#[from] ReceiptLogError),
    #[error("{0}")]
    Batch(#[from] SignatureError),
}

fn seal(shared: &Shared, log: &mut ReceiptLog, receipts: &[Receipt]) -> Result<Vec<Signed<Receipt>>, SealError> {
    let (batch, next) = Batch::seal(receipts, log.tip(), &shared.options.key)?;
    let signed = batch.signed()?;
    log.append(&batch, next)?;
    Ok(signed)
}
