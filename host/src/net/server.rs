//! The coordinator's end: hosts come in, are checked, and get a session each.
//!
//! [`Hosts`] owns the router of the endpoint. It takes connections under two names: the grid's own protocol, and blobs for
//! members. A *member* is a node with a live session, and only members may read blobs here.
//!
//! - `session`: one host, from its hello to its farewell.
//! - `heads`: what is known of hosts' logs, across sessions.
//! - `check`: receipts, from bytes to what the event machine may believe.
//!
//! # What is bounded
//! Connections without a hello, sessions, the bytes of a first frame and of any other, the time for each, and what one host
//! may have under check at a time: a host that sends faster than it can be checked is read more slowly.
//!
//! # What a crash loses
//! Nothing: sessions are made anew, and hosts send again what was not acknowledged.

mod check;
mod heads;
mod keep;
mod session;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use grid::flow::{AssignmentId, Checkpoint, Fault, Found};
use iroh::{
    Endpoint,
    endpoint::Connection,
    protocol::{AcceptError, ProtocolHandler, Router},
};
use registry::{
    id::NodeId,
    store::{self, Store},
};
use tokio::sync::{Semaphore, mpsc, watch};

use super::{node_id, wire};
use crate::{
    coordinator::{Arrival, Closed, Coordinator, Delivered, SessionId, ToHost},
    limits,
};

/// What sessions tell the event machine: the seam between the network and the decisions.
pub trait Desk: Clone + Send + Sync + 'static {
    /// Tells two sessions of one host apart.
    type Session: Copy + Send + Sync;

    /// A host's session begins; messages for it go to `outbox`.
    fn host_up(
        &self,
        arrival: Arrival,
        outbox: mpsc::Sender<ToHost>,
    ) -> impl Future<Output = Result<Self::Session, Closed>> + Send;

    /// A host's session ended.
    fn host_down(&self, node: NodeId, session: Self::Session) -> impl Future<Output = ()> + Send;

    /// Receipts whose signatures hold and whose outputs are here.
    fn deliver(&self, node: NodeId, delivered: Vec<Delivered>) -> impl Future<Output = ()> + Send;

    /// Executions that gave no result.
    fn faulted(&self, node: NodeId, faults: Vec<(AssignmentId, Fault)>) -> impl Future<Output = ()> + Send;

    /// A state that a host has kept of what it runs, and that is here.
    fn checkpoint(
        &self,
        node: NodeId,
        assignment: AssignmentId,
        checkpoint: Checkpoint,
    ) -> impl Future<Output = ()> + Send;

    /// Whether a state is wanted that a host keeps after so much fuel, or that it was ordered to find, where it says nothing of fuel.
    fn wants_state(
        &self,
        node: NodeId,
        assignment: AssignmentId,
        fuel_used: Option<u64>,
    ) -> impl Future<Output = bool> + Send;

    /// What a host has found that was to run a task to a state; a snapshot that was asked for is here.
    fn found(&self, node: NodeId, assignment: AssignmentId, found: Found) -> impl Future<Output = ()> + Send;
}

impl Desk for Coordinator {
    type Session = SessionId;

    async fn host_up(&self, arrival: Arrival, outbox: mpsc::Sender<ToHost>) -> Result<SessionId, Closed> {
        Self::host_up(self, arrival, outbox).await
    }

    async fn host_down(&self, node: NodeId, session: SessionId) {
        Self::host_down(self, node, session).await;
    }

    async fn deliver(&self, node: NodeId, delivered: Vec<Delivered>) {
        Self::deliver(self, node, delivered).await;
    }

    async fn faulted(&self, node: NodeId, faults: Vec<(AssignmentId, Fault)>) {
        Self::faulted(self, node, faults).await;
    }

    async fn checkpoint(&self, node: NodeId, assignment: AssignmentId, checkpoint: Checkpoint) {
        Self::checkpoint(self, node, assignment, checkpoint).await;
    }

    async fn wants_state(&self, node: NodeId, assignment: AssignmentId, fuel_used: Option<u64>) -> bool {
        Self::wants_state(self, node, assignment, fuel_used).await
    }

    async fn found(&self, node: NodeId, assignment: AssignmentId, found: Found) {
        Self::found(self, node, assignment, found).await;
    }
}

/// Takes hosts in at `endpoint` until it is shut down.
pub fn start<D: Desk>(endpoint: Endpoint, desk: D, store: Store) -> Hosts {
    let members = Members::default();
    let (stop, stopping) = watch::channel(false);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let shared = Arc::new(Shared {
        desk,
        store: store.clone(),
        endpoint: endpoint.clone(),
        members: members.clone(),
        hellos: Semaphore::new(limits::HELLOS_MAX),
        sessions: Semaphore::new(limits::HOSTS_MAX),
        checks: Arc::new(Semaphore::new(cores)),
        heads: heads::KnownHeads::default(),
        stopping,
    });
    let admitted = members.clone();
    let blobs = store.protocol(Arc::new(move |node| admitted.contains(node)));
    let router = Router::builder(endpoint).accept(wire::ALPN, Reception(shared)).accept(store::ALPN, blobs).spawn();
    Hosts { router, members, stop }
}

/// The connected hosts of a coordinator.
#[derive(Debug)]
pub struct Hosts {
    router: Router,
    members: Members,
    stop: watch::Sender<bool>,
}

impl Hosts {
    /// Hosts with a live session.
    pub fn connected(&self) -> usize {
        self.members.count()
    }

    /// Says farewell to every host, then closes the endpoint.
    pub async fn shutdown(&self) {
        let _ = self.stop.send(true);
        let gone = async {
            while self.members.count() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        // Who is still here then is closed without a word.
        let _ = tokio::time::timeout(Duration::from_millis(limits::FAREWELL_MS_MAX), gone).await;
        if let Err(error) = self.router.shutdown().await {
            tracing::warn!(%error, "the router did not stop in peace");
        }
    }
}

/// What all sessions share.
struct Shared<D> {
    desk: D,
    store: Store,
    endpoint: Endpoint,
    members: Members,
    hellos: Semaphore,
    sessions: Semaphore,
    /// As many checks at a time as there are cores.
    checks: Arc<Semaphore>,
    heads: heads::KnownHeads,
    stopping: watch::Receiver<bool>,
}

/// The handler under [`wire::ALPN`].
struct Reception<D>(Arc<Shared<D>>);

impl<D> fmt::Debug for Reception<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reception")
    }
}

impl<D: Desk> ProtocolHandler for Reception<D> {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let node = node_id(connection.remote_id());
        let farewell = session::host(&self.0, &connection, node).await;
        connection.close(farewell.code(), farewell.word().as_bytes());
        Ok(())
    }
}

/// The nodes that have a live session.
#[derive(Debug, Clone, Default)]
struct Members(Arc<RwLock<HashMap<NodeId, u32>>>);

impl Members {
    fn contains(&self, node: NodeId) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains_key(&node)
    }

    fn count(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn enter(&self, node: NodeId) -> Member {
        *self.0.write().unwrap_or_else(PoisonError::into_inner).entry(node).or_default() += 1;
        Member { members: self.clone(), node }
    }
}

/// While it lives its node is a member. A node that reconnects has two for a moment.
struct Member {
    members: Members,
    node: NodeId,
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut members = self.members.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(sessions) = members.get_mut(&self.node) {
            *sessions -= 1;
            if *sessions == 0 {
                members.remove(&self.node);
            }
        }
    }
}
