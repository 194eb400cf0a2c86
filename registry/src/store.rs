//! Blobs: content by its BLAKE3 hash, on disk and between peers, over iroh-blobs.
//!
//! A module, a model, an input or a manifest is a blob. Whoever knows the hash can take the bytes from anybody, because
//! every 16 KiB are verified as they arrive and again as they are read: a wrong byte never leaves this module.
//!
//! Reading order:
//! - `options`: every bound, and [`FetchLimits`]; `error` and `fault`: every way to fail.
//! - `index`: the books, without I/O: who holds how many bytes, who is pinned, in use, and used last.
//! - `room`: makes room within the quota and really frees the disk; `recency` keeps the order of last use over a restart.
//! - `open`, `publish`, `read`, `pins`: the local half.
//! - `fetch` (the protocol), `job` (which provider gives what), `transfer` (one request to one provider), `flight` (callers
//!   who want the same blob join), `peers` (open connections): the half that asks others.
//! - `serve`: the half that is asked.
//!
//! # Who owns what
//! - iroh-blobs' `FsStore` owns `blobs.db`, `data/` and `temp/`: the content, its hash trees and the named tags.
//! - The [`Store`] owns the directory (`store.lock`, held from open to shutdown), the books and the file `recency`.
//! - A file published by reference stays its publisher's: the store only reads it, it does not count against the quota,
//!   and if it changes, reads and transfers fail instead of giving wrong bytes.
//! - The router owns the [`Serving`] handler. Shutting the router down does not shut the store down.
//!
//! # Keeping and deleting
//! Everything is kept until the quota is reached. Then the least recently used blobs go, except those that are pinned or
//! being read, served or fetched. A pin is a named tag `quorate/pin/HASH/OWNER`, so that two owners do not undo each
//! other. iroh-blobs deletes only in its own collector; ours runs that collector on demand, with the books as the list of
//! what lives, instead of by a timer. Whatever is not in the books when it runs is deleted.
//!
//! # What a crash loses
//! - A blob whose `publish` or `fetch` returned may be lost if the machine stops within the half second that iroh-blobs
//!   takes to commit. A pin is on disk when `pin` returns.
//! - The order of last use since it was last written (every [`options::USES_PER_SAVE`] uses and at shutdown): a blob that
//!   the file does not know counts as used last.
//! - Of a fetch under way, what its partial file does not hold yet; the rest is found and resumed.
//! - Temporary files of a publish under way are removed at the next open.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use iroh_blobs::{Hash, store::fs::FsStore};

use crate::id::{BlobHash, NodeId};

mod error;
mod fault;
mod fetch;
mod flight;
mod index;
mod job;
mod open;
pub mod options;
mod peers;
mod pins;
mod publish;
mod read;
mod recency;
mod room;
mod serve;
mod transfer;

#[cfg(test)]
mod tests;

pub use error::StoreError;
pub use fault::{Cause, ProviderFailure, ProviderFault};
pub use fetch::{Contribution, Fetched};
pub use iroh_blobs::ALPN;
pub use options::{FetchLimits, StoreOptions};
pub use publish::Published;
pub use read::BlobReader;
pub use serve::{Access, Serving};

/// A store of blobs. Clones share one store.
///
/// End it with [`Store::shutdown`]. If the last clone is dropped without, the same happens in the background, except that
/// the order of last use is not written; until then the directory is in use.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    options: StoreOptions,
    fs: FsStore,
    index: Mutex<index::Index>,
    /// Held while room is made and while a blob enters the books: the collector never meets a blob between the two.
    room: tokio::sync::Mutex<room::Sweeper>,
    flights: flight::Flights,
    peers: peers::Peers,
    counters: Counters,
    /// Bytes of streams on their way in, which no book has yet.
    incoming_bytes: AtomicU64,
    uses_saved: AtomicU64,
    closed: AtomicBool,
    lock: Mutex<Option<std::fs::File>>,
    runtime: tokio::runtime::Handle,
}

/// What the store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Blobs, partial and referenced ones too.
    pub blobs: u64,
    /// Bytes that count against the quota.
    pub bytes: u64,
    /// Of these, bytes that pins hold.
    pub pinned_bytes: u64,
}

/// What the store did since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Blobs completed from other nodes.
    pub blobs_fetched: u64,
    /// Content received from other nodes, that of failed transfers too.
    pub bytes_fetched: u64,
    /// Requests of other nodes answered to the end.
    pub requests_served: u64,
    /// Content sent to other nodes.
    pub bytes_served: u64,
    /// Blobs deleted to make room.
    pub blobs_evicted: u64,
    /// Bytes these held.
    pub bytes_evicted: u64,
}

#[derive(Debug, Default)]
struct Counters {
    blobs_fetched: AtomicU64,
    bytes_fetched: AtomicU64,
    requests_served: AtomicU64,
    bytes_served: AtomicU64,
    blobs_evicted: AtomicU64,
    bytes_evicted: AtomicU64,
}

impl Store {
    /// The directory of the store.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The options it was opened with.
    pub fn options(&self) -> &StoreOptions {
        &self.inner.options
    }

    /// What the store holds now.
    pub fn usage(&self) -> Usage {
        let index = self.index();
        let blobs = index.by_use().count() as u64;
        Usage { blobs, bytes: index.disk_bytes(), pinned_bytes: index.pinned_bytes() }
    }

    /// What the store did since it was opened.
    pub fn stats(&self) -> StoreStats {
        let counters = &self.inner.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreStats {
            blobs_fetched: read(&counters.blobs_fetched),
            bytes_fetched: read(&counters.bytes_fetched),
            requests_served: read(&counters.requests_served),
            bytes_served: read(&counters.bytes_served),
            blobs_evicted: read(&counters.blobs_evicted),
            bytes_evicted: read(&counters.bytes_evicted),
        }
    }

    fn index(&self) -> MutexGuard<'_, index::Index> {
        self.inner.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_open(&self, stage: &'static str) -> Result<(), StoreError> {
        if self.inner.closed.load(Ordering::Acquire) { Err(StoreError::Closed { stage }) } else { Ok(()) }
    }

    /// Keeps `hash` from being deleted until the hold is dropped.
    fn hold(&self, hash: BlobHash) -> Hold {
        self.index().hold(hash);
        Hold { store: self.clone(), hash }
    }

    /// Holds a blob that is complete, and notes the use.
    fn hold_complete(&self, stage: &'static str, hash: BlobHash) -> Result<(Hold, u64), StoreError> {
        self.check_open(stage)?;
        let len = {
            let mut index = self.index();
            let len = index.complete_len(&hash).ok_or(StoreError::NotFound { stage, hash })?;
            index.touch(&hash);
            index.hold(hash);
            len
        };
        Ok((Hold { store: self.clone(), hash }, len))
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let usage = self.usage();
        write!(f, "Store({}, {} blobs, {} bytes)", self.inner.dir.display(), usage.blobs, usage.bytes)
    }
}

/// While it lives, its blob is not deleted.
struct Hold {
    store: Store,
    hash: BlobHash,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.store.index().release(&self.hash);
    }
}

fn iroh_hash(hash: BlobHash) -> Hash {
    Hash::from_bytes(hash.0)
}

fn blob_hash(hash: Hash) -> BlobHash {
    BlobHash(*hash.as_bytes())
}

fn node_id(id: iroh::EndpointId) -> NodeId {
    NodeId(*id.as_bytes())
}
