//! What waits for the disk: released in order, each batch once the journal has its events.

use grid::{
    dispatch::{JobView, Notice},
    flow::AssignmentId,
};
use registry::{
    id::{BlobHash, JobId},
    store::Store,
};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::{Answer, SubmitError, ToHost};

/// Something that somebody relies on.
pub(super) enum Held {
    /// A host may forget a receipt.
    Acknowledge(mpsc::Sender<ToHost>, AssignmentId),
    /// Something is new about a job.
    Notice(JobId, Notice),
    /// A submitter hears that its job is taken.
    Taken(oneshot::Sender<Result<JobId, SubmitError>>, JobId),
    /// A submitter hears that its job has ended.
    Ended(oneshot::Sender<Result<JobView, SubmitError>>, Box<JobView>),
    /// A job is cancelled, or was not there to be.
    Cancelled(oneshot::Sender<bool>, bool),
    /// Somebody hears what they asked about the state.
    Answer(Answer),
    /// The outputs of a job are joined: the last of them may be rows of this very batch.
    Concat(Answer),
    /// A name is published.
    Named(oneshot::Sender<()>),
    /// A job's blobs need not be kept for it any more.
    Forget(Store, JobId, Vec<BlobHash>),
}

/// A batch with the journal's word for it.
pub(super) type Batch = (oneshot::Receiver<()>, Vec<Held>);

/// Starts the task that releases batches in the order in which they come.
pub(super) fn start(notices: broadcast::Sender<(JobId, Notice)>) -> mpsc::UnboundedSender<Batch> {
    let (batches, mut inbox) = mpsc::unbounded_channel::<Batch>();
    tokio::spawn(async move {
        while let Some((on_disk, held)) = inbox.recv().await {
            if on_disk.await.is_err() {
                // The journal closed without committing: nobody may hear of it.
                continue;
            }
            for held in held {
                release(held, &notices);
            }
        }
    });
    batches
}

/// Whoever waits may have gone away, so every send may fail; a host whose outbox is full hears it after it reconnects.
fn release(held: Held, notices: &broadcast::Sender<(JobId, Notice)>) {
    match held {
        Held::Acknowledge(outbox, id) => drop(outbox.try_send(ToHost::Acknowledge(id))),
        Held::Notice(job, notice) => drop(notices.send((job, notice))),
        Held::Taken(reply, job) => drop(reply.send(Ok(job))),
        Held::Ended(reply, view) => drop(reply.send(Ok(*view))),
        Held::Cancelled(reply, was_open) => drop(reply.send(was_open)),
        Held::Answer(answer) | Held::Concat(answer) => answer(),
        Held::Named(reply) => drop(reply.send(())),
        Held::Forget(store, job, blobs) => drop(tokio::spawn(unpin(store, job, blobs))),
    }
}

async fn unpin(store: Store, job: JobId, blobs: Vec<BlobHash>) {
    let owner = job.to_string();
    // Most outputs were small and never blobs; unpinning costs a write to disk.
    let pinned = |hash: &BlobHash| store.is_pinned(*hash);
    for hash in blobs.into_iter().filter(pinned) {
        if let Err(error) = store.unpin_for(hash, &owner).await {
            tracing::warn!(%error, blob = %hash.short(), "blob of a forgotten job stays pinned");
        }
    }
}
