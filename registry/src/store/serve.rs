//! Answering other nodes.
//!
//! Goals: who may read is asked for each connection and again for each request, so that a node that was struck off gets
//! nothing more over a connection it kept; a blob is not deleted while it is sent; what was sent is counted.
//! Non-goals: nobody can write here, list what is here, or ask for many blobs in one request.

use std::{collections::HashMap, sync::Arc};

use iroh::{
    endpoint::Connection,
    protocol::{AcceptError, ProtocolHandler},
};
use iroh_blobs::{
    BlobsProtocol,
    provider::events::{
        AbortReason, ConnectMode, EventMask, EventSender, ObserveMode, ProviderMessage, RequestMode, RequestUpdate,
        ThrottleMode,
    },
};
use tokio::sync::mpsc;

use super::{Hold, Ordering, Store, blob_hash, node_id};
use crate::id::{BlobHash, NodeId};

/// Decides who may read blobs.
pub type Access = Arc<dyn Fn(NodeId) -> bool + Send + Sync>;

/// Events that wait for a decision.
const EVENTS_MAX: usize = 256;

const MASK: EventMask = EventMask {
    connected: ConnectMode::Intercept,
    get: RequestMode::InterceptLog,
    get_many: RequestMode::Disabled,
    push: RequestMode::Disabled,
    // Once a connection is refused, so is observing over it.
    observe: ObserveMode::Intercept,
    throttle: ThrottleMode::None,
};

/// Serves the blobs of a store; to be given to a router under [`ALPN`](super::ALPN).
#[derive(Debug, Clone)]
pub struct Serving(BlobsProtocol);

impl ProtocolHandler for Serving {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        self.0.accept(connection).await
    }
    // `shutdown` does nothing: unlike `BlobsProtocol`, a router that stops does not close the store.
}

impl Store {
    /// Serves this store's blobs to the nodes that `access` lets in.
    pub fn protocol(&self, access: Access) -> Serving {
        let (events, received) = EventSender::channel(EVENTS_MAX, MASK);
        self.inner.runtime.spawn(Gate { store: self.clone(), access, connected: HashMap::new() }.run(received));
        Serving(BlobsProtocol::new(&self.inner.fs, Some(events)))
    }
}

struct Gate {
    store: Store,
    access: Access,
    connected: HashMap<u64, NodeId>,
}

impl Gate {
    async fn run(mut self, mut events: mpsc::Receiver<ProviderMessage>) {
        while let Some(event) = events.recv().await {
            match event {
                ProviderMessage::ClientConnected(event) => {
                    let node = event.inner.endpoint_id.map(node_id);
                    let admitted = node.filter(|node| (self.access)(*node));
                    if let Some(node) = admitted {
                        self.connected.insert(event.inner.connection_id, node);
                    }
                    event.tx.send(decision(admitted.is_some())).await.ok();
                }
                ProviderMessage::ConnectionClosed(event) => {
                    self.connected.remove(&event.inner.connection_id);
                }
                ProviderMessage::GetRequestReceived(event) => {
                    let admitted = self.admits(event.inner.connection_id);
                    event.tx.send(decision(admitted)).await.ok();
                    if admitted {
                        let served = Served::begin(&self.store, blob_hash(event.inner.request.hash));
                        let mut updates = event.rx;
                        tokio::spawn(async move {
                            while let Ok(Some(update)) = updates.recv().await {
                                served.note(&update);
                            }
                        });
                    }
                }
                ProviderMessage::ObserveRequestReceived(event) => {
                    event.tx.send(decision(self.admits(event.inner.connection_id))).await.ok();
                }
                // The mask sends no others.
                other => tracing::debug!(?other, "unexpected event of iroh-blobs"),
            }
        }
    }

    fn admits(&self, connection_id: u64) -> bool {
        self.connected.get(&connection_id).is_some_and(|node| (self.access)(*node))
    }
}

fn decision(admitted: bool) -> Result<(), AbortReason> {
    if admitted { Ok(()) } else { Err(AbortReason::Permission) }
}

/// One request that is being answered. While it lives its blob is not deleted.
struct Served(Hold);

impl Served {
    fn begin(store: &Store, hash: BlobHash) -> Self {
        store.index().touch(&hash);
        Self(store.hold(hash))
    }

    fn note(&self, update: &RequestUpdate) {
        let counters = &self.0.store.inner.counters;
        match update {
            RequestUpdate::Completed(done) => {
                counters.requests_served.fetch_add(1, Ordering::Relaxed);
                counters.bytes_served.fetch_add(done.stats.payload_bytes_sent, Ordering::Relaxed);
            }
            RequestUpdate::Aborted(done) => {
                counters.bytes_served.fetch_add(done.stats.payload_bytes_sent, Ordering::Relaxed);
            }
            RequestUpdate::Started(_) | RequestUpdate::Progress(_) => {}
        }
    }
}
