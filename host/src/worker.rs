//! The host's side: takes assignments, runs them in the sandbox, signs what came of them.
//!
//! ```text
//! Assign ─link► Book ─job► content at hand ─► Book ─executor► Request ─sandbox► Finished ─signer► Done ─► Book ─link► Receipts
//! ```
//! - `book`: what the host holds and in which state: waiting, running, finished; the queue; what is still to be said.
//! - `job`: what the tasks of one job share, and how it gets here.
//! - `executor`: the threads that run tasks, one a slot.
//! - `checkpoint`: tasks with steps, whose states are kept as they run.
//! - `signer`: the thread that signs what is ready with one signature. `log`: where it keeps what it signed.
//! - `link`: the connection to the coordinator, made again for ever.
//! - `conduct`: the test aid that makes a host lie.
//!
//! # Who owns what
//! The book owns every assignment from the moment that it arrives until its receipt is acknowledged, it is revoked, its lease
//! ends before it ran, or it is faulted. A finished assignment owns its receipt and keeps its large outputs in the store.
//! Connections come and go without touching any of it.
//!
//! # What a crash loses
//! Everything that is held: the hello after the restart lists nothing, so the coordinator gives the work to others. Nothing
//! on disk has to be cleaned up; large outputs lose their hold with the process. The log of what was signed stays, and goes on.

mod book;
mod checkpoint;
mod conduct;
mod executor;
mod job;
mod link;
mod log;
mod signer;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc, time::Duration};

use grid::flow::Offer;
use iroh::{Endpoint, protocol::Router};
use registry::{
    id::{NodeId, OperatorId},
    membership::{NodeCert, Ticket},
    price::PriceTable,
    sign::{SecretKey, SignatureError, Signed},
    store::{self, Store},
};

use self::{book::Book, log::ReceiptLog};
pub use self::{
    conduct::Conduct,
    log::{ReceiptLogError, export},
};
use crate::{
    clock::Stopwatch,
    limits,
    metrics::HostMetrics,
    net::{client::LinkError, endpoint, node_id},
    sandbox::Sandboxes,
};

/// What a worker is made of.
#[derive(Clone)]
pub struct WorkerOptions {
    /// Leads to the coordinator.
    pub ticket: Ticket,
    /// The operator's word for `key`.
    pub cert: Signed<NodeCert>,
    /// The node's key; the endpoint's, too.
    pub key: SecretKey,
    /// Where the coordinator is dialled from, and may fetch large outputs at. The worker takes connections at it, and closes
    /// it when it ends.
    pub endpoint: Endpoint,
    /// Where the log of what it signed lies; it belongs to the key.
    pub log_dir: PathBuf,
    /// Where modules, models, inputs and large outputs lie.
    pub store: Store,
    /// Runs the tasks.
    pub sandboxes: Arc<Sandboxes>,
    /// Tasks that run at a time.
    pub slots: u32,
    /// Assignments held besides those that run.
    pub queue_max: u32,
    /// Memory in bytes that one task may have.
    pub memory_bytes_max: u64,
    /// Time in milliseconds after which a state of a task with steps is kept.
    pub checkpoint_ms: u64,
    /// What it asks.
    pub prices: PriceTable,
    /// Whether it is honest.
    pub conduct: Conduct,
    /// What it counts.
    pub metrics: HostMetrics,
}

/// Why a worker does not start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// An option is out of bounds.
    #[error("{what} is {value}, outside the bounds of {min} to {max}: change the host's options")]
    Option {
        /// Which.
        what: &'static str,
        /// As given.
        value: u64,
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
    },
    /// The endpoint has another identity than the key.
    #[error("endpoint is of node {endpoint}, the key of node {key}: bind the endpoint with the node's key")]
    Identity {
        /// The endpoint's.
        endpoint: NodeId,
        /// The key's.
        key: NodeId,
    },
    /// The certificate does not hold.
    #[error("operator's certificate: {0}")]
    Cert(#[from] SignatureError),
    /// The certificate is for another node.
    #[error("operator's certificate is for node {cert}, this is node {node}: certify this node's key")]
    OtherCert {
        /// As certified.
        cert: NodeId,
        /// As is.
        node: NodeId,
    },
    /// The log of what the node signed cannot be used.
    #[error("{0}")]
    Log(#[from] ReceiptLogError),
    /// A thread did not start.
    #[error("thread for a slot does not start: {0}")]
    Thread(std::io::Error),
    /// The coordinator cannot be joined, ever.
    #[error("{0}")]
    Link(#[from] LinkError),
}

/// What all parts of a worker share.
struct Shared {
    options: WorkerOptions,
    node: NodeId,
    operator: OperatorId,
    book: Book,
    files: job::Files,
    /// Modules and models that may be loaded at a time.
    loads: Arc<tokio::sync::Semaphore>,
    runtime: tokio::runtime::Handle,
}

/// Runs a host until `shutdown` is ready, however often the coordinator goes away in between.
///
/// On shutdown what waits is given back, what runs has [`limits::SHUTDOWN_MS_MAX`] to end and to be acknowledged, and the
/// endpoint is closed.
///
/// # Errors
/// When an option makes no sense, or the coordinator refuses this host for good.
pub async fn run(options: WorkerOptions, shutdown: impl Future<Output = ()>) -> Result<(), WorkerError> {
    let shared = Arc::new(Shared::new(options)?);
    let log = ReceiptLog::open(&shared.options.log_dir, shared.node)?;
    let executors = executor::start(&shared, log)?;
    let WorkerOptions { endpoint, store, ticket, .. } = &shared.options;
    let coordinator = ticket.coordinator;
    let blobs = store.protocol(Arc::new(move |node| node == coordinator));
    let router = Router::builder(endpoint.clone()).accept(store::ALPN, blobs).spawn();
    let ended = link::stay(&shared, shutdown).await;
    shared.book.stop();
    shared.options.metrics.set_connected(false);
    executors.join().await;
    if let Err(error) = router.shutdown().await {
        tracing::warn!(%error, "the router did not stop in peace");
    }
    ended
}

impl Shared {
    fn new(options: WorkerOptions) -> Result<Self, WorkerError> {
        let slots_max = limits::SLOTS_MAX.min(options.sandboxes.native().options().slots_max);
        let memory_bytes_max = options.sandboxes.native().options().memory_bytes_max;
        within("slots", options.slots.into(), 1, slots_max.into())?;
        within("queue_max", options.queue_max.into(), 0, limits::HOST_QUEUE_MAX.into())?;
        within("checkpoint_ms", options.checkpoint_ms, limits::CHECKPOINT_MS_MIN, limits::CHECKPOINT_MS_MAX)?;
        within("memory_bytes_max", options.memory_bytes_max, 1, memory_bytes_max)?;
        let (endpoint, node) = (node_id(options.endpoint.id()), NodeId(options.key.public()));
        if endpoint != node {
            return Err(WorkerError::Identity { endpoint, key: node });
        }
        let (cert, operator) = options.cert.open()?;
        if cert.node != node {
            return Err(WorkerError::OtherCert { cert: cert.node, node });
        }
        let held_max = options.slots as usize + options.queue_max as usize;
        Ok(Self {
            node,
            operator: OperatorId(operator),
            book: Book::new(held_max, options.metrics.clone()),
            files: job::Files::default(),
            loads: Arc::new(tokio::sync::Semaphore::new(limits::LOADS_MAX)),
            runtime: tokio::runtime::Handle::current(),
            options,
        })
    }

    fn offer(&self) -> Offer {
        let WorkerOptions { slots, queue_max, memory_bytes_max, sandboxes, .. } = &self.options;
        Offer {
            slots: *slots,
            queue_max: *queue_max,
            memory_bytes_max: *memory_bytes_max,
            engines: sandboxes.engines().clone(),
            prices: self.options.prices.clone(),
        }
    }

    /// Who has the content of jobs.
    fn providers(&self) -> Vec<iroh::EndpointAddr> {
        let Ticket { coordinator, addrs, .. } = &self.options.ticket;
        endpoint::peer(*coordinator, addrs).into_iter().collect()
    }
}

/// A span of time that an assignment may take.
#[derive(Debug, Clone, Copy)]
struct Lease {
    since: Stopwatch,
    lease: Duration,
}

impl Lease {
    fn new(lease_ms: u64) -> Self {
        Self { since: Stopwatch::start(), lease: Duration::from_millis(lease_ms) }
    }

    /// Milliseconds that are left; none when it is over.
    fn left_ms(&self) -> Option<u64> {
        let left = self.lease.checked_sub(self.since.elapsed())?;
        u64::try_from(left.as_millis()).ok().filter(|left| *left > 0)
    }
}

fn within(what: &'static str, value: u64, min: u64, max: u64) -> Result<(), WorkerError> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(WorkerError::Option { what, value, min, max }) }
}
