//! One fetch: the length from the first provider that answers, then rounds in which all that are left share the work.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use iroh::{Endpoint, EndpointAddr};
use iroh_blobs::{
    api::blobs::Bitfield,
    protocol::{ChunkRanges, ChunkRangesExt},
};
use tokio::task::JoinSet;

use super::{
    Store,
    error::{AtStage, StoreError},
    fault::{ProviderFailure, ProviderFault},
    fetch::{Contribution, Fetched, STAGE, check_len},
    flight::{Flight, Outcome},
    iroh_hash, node_id,
    options::{PIECE_BYTES_MIN, PIECES_PER_PROVIDER, SPLIT_BYTES_MIN},
    transfer::{self, Incoming, Stop},
};
use crate::id::{BlobHash, NodeId};

/// BLAKE3's chunk.
const CHUNK_BYTES: u64 = 1024;

/// One fetch.
pub(super) struct Job {
    pub(super) store: Store,
    endpoint: Endpoint,
    pub(super) hash: BlobHash,
    providers: Vec<EndpointAddr>,
    bytes_max: u64,
    given_up: Arc<Mutex<Vec<ProviderFailure>>>,
    from: Mutex<BTreeMap<NodeId, Arc<AtomicU64>>>,
}

impl Job {
    pub(super) fn new(
        store: &Store,
        endpoint: &Endpoint,
        hash: BlobHash,
        providers: Vec<EndpointAddr>,
        bytes_max: u64,
        flight: &Flight,
    ) -> Arc<Self> {
        let (store, endpoint, given_up) = (store.clone(), endpoint.clone(), flight.given_up.clone());
        Arc::new(Self { store, endpoint, hash, providers, bytes_max, given_up, from: Mutex::default() })
    }

    pub(super) async fn run(self: Arc<Self>) -> Outcome {
        let _hold = self.store.hold(self.hash);
        let gathered = self.clone().gather().await;
        let from: Vec<_> = self.contributions();
        let bytes_moved = from.iter().map(|contribution| contribution.bytes).sum();
        let len = gathered?;
        self.store.inner.counters.blobs_fetched.fetch_add(1, Ordering::Relaxed);
        Ok(Fetched { len, bytes_moved, from, given_up: self.given_up() })
    }

    async fn gather(self: Arc<Self>) -> Result<u64, StoreError> {
        let len = self.length().await?;
        let mut missing = self.missing(len).await?;
        while !missing.is_empty() {
            let given_up = self.given_up().len();
            self.clone().round(len, &missing).await?;
            let still = self.missing(len).await?;
            if still == missing && self.given_up().len() == given_up {
                let stuck = io::Error::other("all pieces arrived, but the blob is not complete");
                return Err(StoreError::backend(STAGE, stuck));
            }
            missing = still;
        }
        Ok(len)
    }

    /// The length, from an earlier fetch or the first provider that answers. Room is made. Short blobs are complete then.
    async fn length(&self) -> Result<u64, StoreError> {
        if let Some(len) = self.present().await?.validated_size().filter(|len| *len > 0) {
            check_len(len, self.bytes_max)?;
            self.store.reserve(STAGE, self.hash, len).await?;
            return Ok(len);
        }
        for provider in &self.providers {
            match self.first_answer(provider).await {
                Ok(len) => return Ok(len),
                Err(Stop::Local(error)) => return Err(error),
                Err(Stop::Provider(fault)) => self.give_up(provider, fault),
            }
        }
        Err(self.failed())
    }

    async fn first_answer(&self, provider: &EndpointAddr) -> Result<u64, Stop> {
        let beginning = &ChunkRanges::bytes(..SPLIT_BYTES_MIN) - &self.present().await?.ranges;
        let incoming = self.ask(provider, beginning).await?;
        let claimed_bytes = incoming.claimed_bytes;
        if claimed_bytes > self.bytes_max {
            return Err(ProviderFault::TooLarge { claimed_bytes, bytes_max: self.bytes_max }.into());
        }
        if claimed_bytes <= SPLIT_BYTES_MIN {
            self.store.reserve(STAGE, self.hash, claimed_bytes).await?;
            self.keep(provider, incoming).await?;
            return Ok(claimed_bytes);
        }
        drop(incoming);
        let (connection, _) = self.store.inner.peers.connect(&self.endpoint, provider.clone()).await?;
        let len = transfer::verified_len(&connection, self.hash, self.store.inner.options.stall_ms_max).await?;
        if len != claimed_bytes {
            return Err(ProviderFault::WrongLength { claimed_bytes, bytes: len }.into());
        }
        self.store.reserve(STAGE, self.hash, len).await?;
        Ok(len)
    }

    /// Everybody who is left takes pieces of what is missing until there are none, or fails.
    async fn round(self: Arc<Self>, len: u64, missing: &ChunkRanges) -> Result<(), StoreError> {
        let given_up: BTreeSet<_> = self.given_up().iter().map(|failure| failure.node).collect();
        let left: Vec<_> = self.providers.iter().filter(|provider| !given_up.contains(&node_id(provider.id))).collect();
        if left.is_empty() {
            return Err(self.failed());
        }
        let pieces = pieces(missing, len, left.len() as u64);
        let workers = left.len().min(pieces.len());
        let queue = Arc::new(Mutex::new(pieces));
        let mut round = JoinSet::new();
        for provider in left.into_iter().take(workers) {
            round.spawn(self.clone().work(provider.clone(), len, queue.clone()));
        }
        while let Some(worker) = round.join_next().await {
            worker.at(STAGE)??;
        }
        Ok(())
    }

    async fn work(
        self: Arc<Self>,
        provider: EndpointAddr,
        len: u64,
        queue: Arc<Mutex<VecDeque<ChunkRanges>>>,
    ) -> Result<(), StoreError> {
        let queue = || queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let Some(piece) = queue().pop_front() else { return Ok(()) };
            match self.piece(&provider, len, &piece).await {
                Ok(()) => {}
                Err(Stop::Local(error)) => return Err(error),
                Err(Stop::Provider(fault)) => {
                    queue().push_front(piece);
                    self.give_up(&provider, fault);
                    return Ok(());
                }
            }
        }
    }

    async fn piece(&self, provider: &EndpointAddr, len: u64, piece: &ChunkRanges) -> Result<(), Stop> {
        let missing = piece & &self.missing(len).await?;
        if missing.is_empty() {
            return Ok(());
        }
        let incoming = self.ask(provider, missing).await?;
        let claimed_bytes = incoming.claimed_bytes;
        if claimed_bytes != len {
            return Err(ProviderFault::WrongLength { claimed_bytes, bytes: len }.into());
        }
        self.keep(provider, incoming).await
    }

    /// Asks over the open connection, and once more over a new one if that turns out to be dead.
    async fn ask(&self, provider: &EndpointAddr, ranges: ChunkRanges) -> Result<Incoming, ProviderFault> {
        let (peers, options) = (&self.store.inner.peers, &self.store.inner.options);
        let (connection, reused) = peers.connect(&self.endpoint, provider.clone()).await?;
        let answer = transfer::ask(&connection, self.hash, ranges.clone(), options.stall_ms_max).await;
        match answer {
            Err(ProviderFault::Broken { .. }) if reused && connection.close_reason().is_some() => {
                let (connection, _) = peers.connect(&self.endpoint, provider.clone()).await?;
                transfer::ask(&connection, self.hash, ranges, options.stall_ms_max).await
            }
            answer => answer,
        }
    }

    async fn keep(&self, provider: &EndpointAddr, incoming: Incoming) -> Result<(), Stop> {
        let moved = {
            let mut from = self.from.lock().unwrap_or_else(PoisonError::into_inner);
            from.entry(node_id(provider.id)).or_default().clone()
        };
        let counters = &self.store.inner.counters;
        let count = |bytes| {
            moved.fetch_add(bytes, Ordering::Relaxed);
            counters.bytes_fetched.fetch_add(bytes, Ordering::Relaxed);
        };
        incoming.keep(&self.store.inner.fs, count).await
    }

    async fn present(&self) -> Result<Bitfield, StoreError> {
        self.store.inner.fs.observe(iroh_hash(self.hash)).await.at(STAGE)
    }

    async fn missing(&self, len: u64) -> Result<ChunkRanges, StoreError> {
        Ok(&ChunkRanges::chunks(..len.div_ceil(CHUNK_BYTES)) - &self.present().await?.ranges)
    }

    fn give_up(&self, provider: &EndpointAddr, fault: ProviderFault) {
        let failure = ProviderFailure { node: node_id(provider.id), fault };
        tracing::debug!(hash = %self.hash, node = %failure.node, fault = %failure.fault, "provider given up");
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
    }

    fn given_up(&self) -> Vec<ProviderFailure> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn failed(&self) -> StoreError {
        StoreError::FetchFailed { hash: self.hash, providers: self.given_up() }
    }

    fn contributions(&self) -> Vec<Contribution> {
        let from = self.from.lock().unwrap_or_else(PoisonError::into_inner);
        from.iter().map(|(node, bytes)| Contribution { node: *node, bytes: bytes.load(Ordering::Relaxed) }).collect()
    }
}

/// Cuts what is missing of a blob into pieces for several providers; for one provider or a short blob it is one piece.
fn pieces(missing: &ChunkRanges, len: u64, providers: u64) -> VecDeque<ChunkRanges> {
    if providers < 2 || len <= SPLIT_BYTES_MIN {
        return VecDeque::from([missing.clone()]);
    }
    let piece_bytes = (len / (providers * PIECES_PER_PROVIDER)).max(PIECE_BYTES_MIN);
    // Whole 16 KiB groups, because less is not verified, nor sent, on its own.
    let piece_chunks = piece_bytes.div_ceil(CHUNK_BYTES).next_multiple_of(16);
    let cuts = (0..len.div_ceil(CHUNK_BYTES)).step_by(usize::try_from(piece_chunks).unwrap_or(usize::MAX));
    let cut = cuts.map(|start| missing & &ChunkRanges::chunks(start..start + piece_chunks));
    cut.filter(|piece| !piece.is_empty()).collect()
}
