//! Open connections to providers. iroh's `connect` makes a new one each time; a handshake costs more than a small blob.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use iroh::{Endpoint, EndpointAddr, EndpointId, endpoint::Connection};

use super::{fault::ProviderFault, options::CONNECTIONS_MAX};

/// From which endpoint of ours to whom.
type Route = (EndpointId, EndpointId);
/// One route's connection. Whoever connects holds the lock, so that others wait for the same connection.
type Slot = Arc<tokio::sync::Mutex<Option<Connection>>>;

/// The pool.
pub(super) struct Peers {
    slots: Mutex<HashMap<Route, Slot>>,
    connect_ms_max: u64,
}

impl Peers {
    pub(super) fn new(connect_ms_max: u64) -> Self {
        Self { slots: Mutex::default(), connect_ms_max }
    }

    /// A connection to this provider, and whether it was open before.
    pub(super) async fn connect(
        &self,
        endpoint: &Endpoint,
        to: EndpointAddr,
    ) -> Result<(Connection, bool), ProviderFault> {
        let connect_ms_max = self.connect_ms_max;
        let attempt = async {
            let slot = self.slot((endpoint.id(), to.id));
            let mut slot = slot.lock().await;
            if let Some(open) = slot.as_ref().filter(|connection| connection.close_reason().is_none()) {
                return Ok((open.clone(), true));
            }
            let connected = endpoint.connect(to, iroh_blobs::ALPN).await;
            let fresh = connected.map_err(|error| ProviderFault::Unreachable { cause: Arc::new(error) })?;
            *slot = Some(fresh.clone());
            Ok((fresh, false))
        };
        let attempt = tokio::time::timeout(Duration::from_millis(connect_ms_max), attempt).await;
        attempt.unwrap_or(Err(ProviderFault::ConnectTimedOut { connect_ms_max }))
    }

    fn slot(&self, route: Route) -> Slot {
        let mut slots = self.slots();
        if slots.len() >= CONNECTIONS_MAX && !slots.contains_key(&route) {
            // Idle connections are many and cheap to make again; those in use have their own handle.
            slots.retain(|_, slot| slot.try_lock().is_err());
        }
        slots.entry(route).or_default().clone()
    }

    /// Lets go of every connection.
    pub(super) fn close(&self) {
        self.slots().clear();
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<Route, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
