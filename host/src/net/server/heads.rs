//! What the coordinator knows of its hosts' logs: the heads that it saw, so that one check serves all receipts of a batch, and
//! so that a host which signs two histories is found out.
//!
//! A host may skip numbers here, since what was revoked is signed and never sent. What it may not do is sign two heads of one
//! number, or one that does not follow the one before: that ends the session, and the log keeps both heads, which anybody can
//! check. Kept in memory: a coordinator that starts again begins to look again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use data_encoding::BASE64;
use registry::{
    canon,
    id::NodeId,
    log::{Heads, heads::HeadError},
    sign::{Head, SignatureError, Signed},
};

use crate::limits;

/// The heads of all hosts.
#[derive(Default)]
pub(super) struct KnownHeads(Mutex<HashMap<NodeId, Arc<HostHeads>>>);

impl KnownHeads {
    /// Those of one host.
    pub(super) fn of(&self, node: NodeId) -> Arc<HostHeads> {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= limits::HEADS_HOSTS_MAX && !hosts.contains_key(&node) {
            // Those of hosts that are away; who comes back is looked at anew.
            hosts.retain(|_, heads| Arc::strong_count(heads) > 1);
        }
        hosts.entry(node).or_insert_with(|| Arc::new(HostHeads::new(node))).clone()
    }
}

/// The heads of one host.
pub(super) struct HostHeads {
    node: NodeId,
    heads: Mutex<Heads>,
}

impl HostHeads {
    fn new(node: NodeId) -> Self {
        Self { node, heads: Mutex::new(Heads::new(limits::HEADS_PER_HOST_MAX)) }
    }

    /// Checks a head; while one is checked, receipts of the same batch wait rather than check it too.
    pub(super) fn believe(&self, head: &Signed<Head>) -> Result<(), HeadError> {
        if head.peek()?.node != self.node {
            return Err(SignatureError::Key.into());
        }
        let believed = self.heads.lock().unwrap_or_else(PoisonError::into_inner).believe(head);
        if let Err(HeadError::Conflict(conflict)) = &believed {
            let evidence = BASE64.encode(&canon::encode(conflict));
            tracing::error!(node = %self.node, evidence, "host contradicts itself: {conflict}");
        }
        believed
    }
}
