//! The host's end: one attempt to reach a coordinator and be let in.

use std::time::Duration;

use iroh::{
    Endpoint,
    endpoint::{Connection, ConnectionError, RecvStream, SendStream},
};
use registry::membership::Ticket;
use tokio::time::timeout;

use super::{
    Farewell, endpoint,
    frame::{self, FrameError},
    wire::{self, Hello, Refused, ToCoordinator, ToHost, Welcome},
};
use crate::limits;

/// A connection over which the coordinator said welcome.
#[derive(Debug)]
pub struct Link {
    /// The connection.
    pub connection: Connection,
    /// To the coordinator.
    pub send: SendStream,
    /// From the coordinator.
    pub recv: RecvStream,
    /// What it said.
    pub welcome: Welcome,
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The ticket's key is none.
    #[error("ticket names a coordinator key that is no ed25519 key; ask the grid's operator for another ticket")]
    Key,
    /// Somebody with another key listens there.
    #[error(
        "at the ticket's address somebody listens whose key is not the coordinator's; ask the grid's operator for a new \
         ticket"
    )]
    OtherKey,
    /// Nobody answers.
    #[error("coordinator does not answer: {reason}; trying again")]
    Unreachable {
        /// What the transport said.
        reason: String,
    },
    /// No answer to the hello.
    #[error("coordinator did not answer the hello: {reason}; trying again")]
    NoWelcome {
        /// What happened instead.
        reason: String,
    },
    /// The coordinator does not want this host.
    #[error("coordinator {0}")]
    Refused(#[from] Refused),
}

impl LinkError {
    /// Whether the same attempt can never succeed. A key that is not the coordinator's is for good only if this process
    /// never saw the right one: otherwise somebody else took the port of a coordinator that is away.
    pub fn is_for_good(&self, joined_before: bool) -> bool {
        match self {
            Self::Key => true,
            Self::OtherKey => !joined_before,
            Self::Unreachable { .. } | Self::NoWelcome { .. } => false,
            Self::Refused(refused) => !refused.retry,
        }
    }
}

/// Dials the coordinator and says hello.
///
/// # Errors
/// When it cannot be reached, does not answer, or refuses.
pub async fn connect(endpoint: &Endpoint, ticket: &Ticket, hello: Hello) -> Result<Link, LinkError> {
    let coordinator = endpoint::peer(ticket.coordinator, &ticket.addrs).ok_or(LinkError::Key)?;
    let dialled = timeout(Duration::from_millis(limits::CONNECT_MS_MAX), endpoint.connect(coordinator, wire::ALPN));
    let connection = match dialled.await {
        Err(_) => {
            let reason = format!("no answer within {} ms", limits::CONNECT_MS_MAX);
            return Err(LinkError::Unreachable { reason });
        }
        Ok(Err(error)) if is_other_key(&error) => return Err(LinkError::OtherKey),
        Ok(Err(error)) => return Err(LinkError::Unreachable { reason: format!("{error:#}") }),
        Ok(Ok(connection)) => connection,
    };
    let greeted = timeout(Duration::from_millis(limits::HELLO_MS_MAX), greet(&connection, hello)).await;
    let greeted = greeted.unwrap_or_else(|_| {
        Err(LinkError::NoWelcome { reason: format!("no answer within {} ms", limits::HELLO_MS_MAX) })
    });
    match greeted {
        Ok((send, recv, welcome)) => Ok(Link { connection, send, recv, welcome }),
        Err(error) => {
            connection.close(Farewell::Bye.code(), Farewell::Bye.word().as_bytes());
            Err(error)
        }
    }
}

/// The handshake fails on our side, because the certificate is of another key.
fn is_other_key(error: &iroh::endpoint::ConnectError) -> bool {
    use iroh::endpoint::{ConnectError, ConnectingError};
    let source = match error {
        ConnectError::Connection { source, .. } => source,
        ConnectError::Connecting { source: ConnectingError::ConnectionError { source, .. }, .. } => source,
        ConnectError::Connecting { source: ConnectingError::HandshakeFailure { .. }, .. } => return true,
        _ => return false,
    };
    // Of the alerts of TLS, these are about certificates: bad, unsupported, revoked, expired, unknown, unknown issuer.
    const CERTIFICATE_ALERTS: std::ops::RangeInclusive<u64> = 0x100 + 42..=0x100 + 48;
    match source {
        ConnectionError::TransportError(error) => CERTIFICATE_ALERTS.contains(&u64::from(error.code)),
        _ => false,
    }
}

async fn greet(connection: &Connection, hello: Hello) -> Result<(SendStream, RecvStream, Welcome), LinkError> {
    let reason = |error: String| LinkError::NoWelcome { reason: reason(connection, error) };
    let (mut send, mut recv) = connection.open_bi().await.map_err(|error| reason(error.to_string()))?;
    let mut frames = Vec::new();
    frame::push(&mut frames, &ToCoordinator::Hello(Box::new(hello)));
    send.write_all(&frames).await.map_err(|error| reason(error.to_string()))?;
    match frame::read(&mut recv, limits::HELLO_BYTES_MAX).await {
        Ok(Some(ToHost::Welcome(welcome))) => Ok((send, recv, welcome)),
        Ok(Some(ToHost::Refused(refused))) => {
            let detail = wire::one_line(&refused.detail);
            Err(LinkError::Refused(Refused { detail, ..refused }))
        }
        Ok(Some(_)) => Err(reason("something else than a welcome".to_owned())),
        Ok(None) => Err(reason("stream ended".to_owned())),
        Err(error @ FrameError::Stream(_)) => Err(reason(error.to_string())),
        Err(error) => Err(reason(error.to_string())),
    }
}

/// Why a connection ended, in the coordinator's words if it had any.
pub fn reason(connection: &Connection, otherwise: String) -> String {
    match connection.close_reason() {
        Some(ConnectionError::ApplicationClosed(closed)) => match Farewell::from_code(closed.error_code) {
            Some(farewell) => format!("coordinator said `{}`", farewell.word()),
            None => format!("coordinator closed with code {}", closed.error_code),
        },
        Some(error) => error.to_string(),
        None => otherwise,
    }
}
