//! Sockets: an endpoint that talks to nobody it was not told of.
//!
//! No relay, no lookup service, no port mapping: a node is dialled by its key at the addresses of its ticket. Both ends
//! use the same timeouts, so that a cut is noticed within [`EndpointOptions::idle_ms_max`] on either side.

use std::{net::SocketAddr, time::Duration};

use iroh::{
    Endpoint, EndpointAddr,
    endpoint::{IdleTimeout, PortmapperConfig, QuicTransportConfig, presets},
};
use registry::{
    id::NodeId,
    membership::{TICKET_ADDRS_MAX, Ticket},
    sign::SecretKey,
};

use super::node_id;

/// Streams that a peer may have open at a time: one for the grid, the others for blobs.
const STREAMS_MAX: u32 = 128;

/// How soon a cut is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointOptions {
    /// Silence in milliseconds after which a connection is lost.
    pub idle_ms_max: u64,
    /// Silence in milliseconds after which a sign of life is sent.
    pub keep_alive_ms: u64,
}

impl Default for EndpointOptions {
    fn default() -> Self {
        Self { idle_ms_max: 5_000, keep_alive_ms: 1_000 }
    }
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The address cannot be listened at.
    #[error("cannot listen at {addr}: {cause}; use another address or port")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What failed.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An option is outside what the transport can do.
    #[error("{what} is {value} ms, outside the bounds of {min} to {max} ms")]
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
}

/// Listens at `addr` under the identity of `secret`.
///
/// # Errors
/// When the address cannot be listened at, or an option is out of bounds.
pub async fn bind(secret: &SecretKey, addr: SocketAddr, options: EndpointOptions) -> Result<Endpoint, EndpointError> {
    let failed = |cause: Box<dyn std::error::Error + Send + Sync>| EndpointError::Bind { addr, cause };
    let builder = Endpoint::builder(presets::Minimal)
        .secret_key(iroh::SecretKey::from_bytes(&secret.to_bytes()))
        .portmapper_config(PortmapperConfig::Disabled)
        .transport_config(transport(options)?)
        .clear_ip_transports()
        .bind_addr(addr)
        .map_err(|error| failed(error.into()))?;
    builder.bind().await.map_err(|error| failed(error.into()))
}

/// iroh allows a path to be idle for 15 s at most, and a connection's own timeouts to be as short as we like.
fn transport(options: EndpointOptions) -> Result<QuicTransportConfig, EndpointError> {
    let EndpointOptions { idle_ms_max, keep_alive_ms } = options;
    within("idle_ms_max", idle_ms_max, 100, 15_000)?;
    within("keep_alive_ms", keep_alive_ms, 10, (idle_ms_max / 2).min(5_000))?;
    let (idle, keep_alive) = (Duration::from_millis(idle_ms_max), Duration::from_millis(keep_alive_ms));
    let timeout = IdleTimeout::try_from(idle).ok();
    Ok(QuicTransportConfig::builder()
        .max_idle_timeout(timeout)
        .keep_alive_interval(keep_alive)
        .default_path_max_idle_timeout(idle)
        .default_path_keep_alive_interval(keep_alive)
        .max_concurrent_bidi_streams(STREAMS_MAX.into())
        .max_concurrent_uni_streams(0u32.into())
        .build())
}

fn within(what: &'static str, value: u64, min: u64, max: u64) -> Result<(), EndpointError> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(EndpointError::Option { what, value, min, max }) }
}

/// Where the endpoint can be reached: what it is bound to, or, bound to every address, what it found out about itself.
pub fn addrs(endpoint: &Endpoint) -> Vec<SocketAddr> {
    let bound = endpoint.bound_sockets();
    let own = endpoint.addr();
    let found = own.ip_addrs().copied().filter(|addr| !addr.ip().is_unspecified());
    let mut addrs: Vec<SocketAddr> =
        bound.into_iter().filter(|addr| !addr.ip().is_unspecified()).chain(found).collect();
    let mut seen = std::collections::BTreeSet::new();
    addrs.retain(|addr| seen.insert(*addr));
    addrs.truncate(TICKET_ADDRS_MAX);
    addrs
}

/// The ticket that leads to this endpoint.
pub fn ticket(endpoint: &Endpoint, expires_ms: u64) -> Ticket {
    Ticket { coordinator: node_id(endpoint.id()), addrs: addrs(endpoint), expires_ms }
}

/// A node's key and addresses as iroh has them; none when the key is no point on the curve.
pub fn peer(node: NodeId, addrs: &[SocketAddr]) -> Option<EndpointAddr> {
    let id = iroh::PublicKey::from_bytes(node.as_bytes()).ok()?;
    Some(addrs.iter().fold(EndpointAddr::new(id), |peer, addr| peer.with_ip_addr(*addr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_endpoint_has_the_identity_of_its_key_and_a_ticket_that_leads_to_it() {
        let secret = SecretKey::from_bytes(&[5; 32]);
        let endpoint = bind(&secret, "127.0.0.1:0".parse().unwrap(), EndpointOptions::default()).await.unwrap();
        let ticket = ticket(&endpoint, 7);
        assert_eq!(ticket.coordinator, NodeId(secret.public()));
        assert_eq!(ticket.addrs, endpoint.bound_sockets());
        assert_eq!(ticket.to_string().parse::<Ticket>().unwrap(), ticket);
        endpoint.close().await;
    }

    #[tokio::test]
    async fn an_address_in_use_is_refused_with_what_to_do() {
        let secret = SecretKey::from_bytes(&[5; 32]);
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let refused = bind(&secret, taken.local_addr().unwrap(), EndpointOptions::default()).await.unwrap_err();
        assert!(refused.to_string().contains("use another address or port"), "{refused}");
        let odd = EndpointOptions { idle_ms_max: 5_000, keep_alive_ms: 4_000 };
        assert!(matches!(bind(&secret, "127.0.0.1:0".parse().unwrap(), odd).await, Err(EndpointError::Option { .. })));
    }
}
