//! Who belongs to whom, and where a grid is found: an operator's [`NodeCert`] for its machine, and a grid's [`Ticket`].

use std::{fmt, net::SocketAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{canon, id::NodeId, sign::Statement};

/// An operator answers for a machine. Signed by the operator's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeCert {
    /// The machine.
    pub node: NodeId,
    /// When it was signed, in milliseconds since 1970.
    pub issued_ms: u64,
}

impl Statement for NodeCert {
    const DOMAIN: &'static str = "quorate/node-cert/1";
    const BYTES_MAX: usize = 256;
}

/// Addresses that a ticket may list.
pub const TICKET_ADDRS_MAX: usize = 16;
const TICKET_PREFIX: &str = "quorate1";
const TICKET_BYTES_MAX: usize = 2048;

/// How to reach a grid's coordinator: its key and its addresses. It holds no secret; a coordinator is known by its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// The coordinator's key.
    pub coordinator: NodeId,
    /// Where it listens, the likeliest first.
    pub addrs: Vec<SocketAddr>,
    /// When the ticket stops being good, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// Why a ticket is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Not a ticket.
    #[error("not a ticket: expected text that starts with `{TICKET_PREFIX}`, as `quorate up` prints it")]
    Form,
    /// Past its time.
    #[error(
        "ticket is stale: it expired {hours} h ago; ask the grid's operator for the file `ticket` of its coordinator, written anew at each start"
    )]
    Stale {
        /// Full hours since then.
        hours: u64,
    },
}

impl Ticket {
    /// The ticket, unless it is past its time.
    ///
    /// # Errors
    /// When it expired before `now_ms`.
    pub fn fresh(self, now_ms: u64) -> Result<Self, TicketError> {
        match now_ms.checked_sub(self.expires_ms) {
            None | Some(0) => Ok(self),
            Some(late_ms) => Err(TicketError::Stale { hours: late_ms / 3_600_000 }),
        }
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = data_encoding::BASE32_NOPAD.encode(&canon::encode(&TicketBody::from(self)));
        write!(f, "{TICKET_PREFIX}{}", body.to_lowercase())
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let body = text.trim().strip_prefix(TICKET_PREFIX).ok_or(TicketError::Form)?;
        if body.len() > TICKET_BYTES_MAX {
            return Err(TicketError::Form);
        }
        let bytes =
            data_encoding::BASE32_NOPAD.decode(body.to_uppercase().as_bytes()).map_err(|_| TicketError::Form)?;
        let body: TicketBody = canon::decode(&bytes, TICKET_BYTES_MAX).map_err(|_| TicketError::Form)?;
        let addrs: Result<Vec<SocketAddr>, _> = body.addrs.iter().map(|addr| addr.parse()).collect();
        match addrs {
            Ok(addrs) if (1..=TICKET_ADDRS_MAX).contains(&addrs.len()) => {
                Ok(Self { coordinator: body.coordinator, addrs, expires_ms: body.expires_ms })
            }
            _ => Err(TicketError::Form),
        }
    }
}

/// A ticket as it is encoded: addresses as text, which CBOR has one form for.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TicketBody {
    coordinator: NodeId,
    addrs: Vec<String>,
    expires_ms: u64,
}

impl From<&Ticket> for TicketBody {
    fn from(ticket: &Ticket) -> Self {
        let addrs = ticket.addrs.iter().map(ToString::to_string).collect();
        Self { coordinator: ticket.coordinator, addrs, expires_ms: ticket.expires_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket { coordinator: NodeId([5; 32]), addrs: vec!["127.0.0.1:4433".parse().unwrap()], expires_ms: 3_600_000 }
    }

    #[test]
    fn a_ticket_reads_back_from_its_own_text() {
        assert_eq!(ticket().to_string().parse::<Ticket>().unwrap(), ticket());
    }

    #[test]
    fn a_text_that_is_no_ticket_is_refused() {
        let text = ticket().to_string();
        for text in ["", "quorate1", "quorate1!!", &text[1..], &text[..text.len() - 8]] {
            assert_eq!(text.parse::<Ticket>(), Err(TicketError::Form), "{text}");
        }
    }

    #[test]
    fn a_stale_ticket_says_what_to_do() {
        assert!(ticket().fresh(3_600_000).is_ok());
        let refusal = ticket().fresh(3 * 3_600_000).unwrap_err().to_string();
        assert!(refusal.contains("expired 2 h ago") && refusal.contains("ask the grid's operator"), "{refusal}");
    }
}
