//! What crosses sockets between hosts and their coordinator. The only user of iroh's control plane.
//!
//! # Participants
//! A *coordinator* listens; a *host* dials it by the key in its ticket, keeps one connection, and opens one
//! bidirectional stream on it under [`wire::ALPN`]. Blobs travel beside it, over iroh-blobs: the host takes modules,
//! models and inputs from the coordinator, the coordinator takes large outputs from the host.
//!
//! # The conversation
//! ```text
//! host                                                coordinator
//! Hello { version, cert, offer, holding, agent } ──►
//!                      ◄── Welcome { version, agent } | Refused { word, detail, retry }
//!                      ◄── Templates([(job, template)])        once a job and connection
//!                      ◄── Assign([order])
//! Receipts([done]) ──►                                         again after a reconnect, until
//!                      ◄── Acknowledge([assignment])           the receipt is on the coordinator's disk
//! Faults([(assignment, fault)]) ──►                            said once: a hello without it says the same
//!                      ◄── Revoke([assignment])
//! Heartbeat ◄──►                                               by whoever was silent for a second
//! ```
//! Messages are frames: a length and canonical CBOR. Both sides batch: what has piled up while one write was under way
//! goes out as few frames with the next.
//!
//! # Goals
//! - *Known by keys*: a ticket names the coordinator's key, a hello carries the operator's certificate for the very key
//!   that the connection proved.
//! - *Nothing is believed*: frames are bounded before they are read, decoded strictly, and a receipt reaches the event
//!   machine only with a signature that holds and with its output here. Whoever breaks a rule loses the connection.
//! - *A cut is noticed within about 5 s* on both sides, by the transport and by heartbeats, so that a process that hangs
//!   is noticed like a cable that is cut.
//! - *Nothing is lost by a cut*: receipts are kept and sent again until they are acknowledged.
//!
//! # Non-goals
//! Discovery, holes through NATs, hosts that talk to each other, and order between assignments. Nothing here decides.
//!
//! Reading order: [`wire`] (the messages), [`frame`] (their framing), [`templates`] (what both ends remember),
//! [`endpoint`] (sockets), [`server`] (the coordinator's end), [`client`] (the host's end), [`backoff`].

pub mod backoff;
pub mod client;
pub mod endpoint;
pub mod frame;
pub mod server;
pub mod templates;
pub mod wire;

use iroh::endpoint::VarInt;
use registry::id::NodeId;

/// Why a connection was closed, as its last words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// Whoever closes is leaving in peace.
    Bye,
    /// The hello was refused.
    Refused,
    /// The other side broke the protocol.
    Garbage,
    /// The host has a newer connection, or did not keep up with its messages.
    Replaced,
    /// The coordinator is stopping.
    Stopping,
    /// The other side was silent for too long.
    Silent,
    /// There is no room for another connection.
    Busy,
}

impl Farewell {
    const ALL: [Self; 7] =
        [Self::Bye, Self::Refused, Self::Garbage, Self::Replaced, Self::Stopping, Self::Silent, Self::Busy];

    /// The number in the closing frame.
    pub fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    /// What a number means, if it is one of ours.
    pub fn from_code(code: VarInt) -> Option<Self> {
        Self::ALL.into_iter().find(|farewell| farewell.code() == code)
    }

    /// A stable word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bye => "bye",
            Self::Refused => "refused",
            Self::Garbage => "garbage",
            Self::Replaced => "replaced",
            Self::Stopping => "stopping",
            Self::Silent => "silent",
            Self::Busy => "busy",
        }
    }
}

/// A node by the key that its connection proved.
pub fn node_id(id: iroh::EndpointId) -> NodeId {
    NodeId(*id.as_bytes())
}
