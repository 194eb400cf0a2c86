//! Content that comes from this machine: bytes, files and streams.
//!
//! A blob enters in two steps. iroh-blobs imports it and answers with a temporary tag that protects it; then room is made
//! and it enters the books. If that fails, dropping the tag and sweeping deletes it again.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use iroh_blobs::{
    BlobFormat,
    api::{
        TempTag,
        blobs::{AddPathOptions, BlobStatus, ImportMode},
    },
};
use n0_future::{Stream, StreamExt, stream};
use tokio::sync::mpsc;

use super::{
    Store, blob_hash,
    error::{AtStage, StoreError},
    iroh_hash,
};
use crate::id::BlobHash;

const STAGE: &str = "publish";
const SHORTEN: &str = "split the content, or raise the limit";
/// Chunks of a stream on their way to the disk.
const CHUNKS_IN_FLIGHT_MAX: usize = 8;

/// A blob that is now in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Its name.
    pub hash: BlobHash,
    /// Its length in bytes.
    pub len: u64,
}

impl Store {
    /// Publishes bytes.
    pub async fn publish_bytes(&self, bytes: impl Into<Bytes>) -> Result<Published, StoreError> {
        self.check_open(STAGE)?;
        let bytes = bytes.into();
        let len = bytes.len() as u64;
        self.check_len(len, self.inner.options.blob_bytes_max)?;
        let hash = BlobHash::of(&bytes);
        let _hold = self.hold(hash);
        if self.index().complete_len(&hash).is_some() {
            self.index().touch(&hash);
            return Ok(Published { hash, len });
        }
        self.check_could_fit(len)?;
        let tag = self.inner.fs.add_bytes(bytes).temp_tag().await.at(STAGE)?;
        self.enter(tag).await
    }

    /// Publishes a file where it lies: it is hashed, not copied, and does not count against the quota. The caller
    /// promises not to change it; if it is changed or removed, reading the blob fails. Files of at most
    /// [`INLINE_BYTES_MAX`](super::options::INLINE_BYTES_MAX) bytes are copied.
    pub async fn publish_path(&self, path: &Path) -> Result<Published, StoreError> {
        self.check_open(STAGE)?;
        let failed = |error| StoreError::file(STAGE, path, error);
        let absolute = tokio::fs::canonicalize(path).await.map_err(failed)?;
        let about = tokio::fs::metadata(&absolute).await.map_err(failed)?;
        if !about.is_file() {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a file; publish files only")));
        }
        self.check_len(about.len(), self.inner.options.blob_bytes_max)?;
        let options = AddPathOptions { path: absolute, format: BlobFormat::Raw, mode: ImportMode::TryReference };
        let tag = self.inner.fs.add_path_with_opts(options).temp_tag().await.at(STAGE)?;
        self.enter(tag).await
    }

    /// Publishes a stream of unknown length, which goes to the disk as it comes. Refused as soon as it exceeds `len_max`,
    /// the longest blob or the quota, or in the end if it is not the `expected` blob; nothing of it is kept then.
    pub async fn publish_stream<S>(
        &self,
        stream: S,
        len_max: u64,
        expected: Option<BlobHash>,
    ) -> Result<Published, StoreError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        self.check_open(STAGE)?;
        let len_max = len_max.min(self.inner.options.blob_bytes_max);
        let (chunks, mut received) = mpsc::channel(CHUNKS_IN_FLIGHT_MAX);
        let incoming = Incoming { store: self.clone(), bytes: 0.into() };
        let incoming = Arc::new(incoming);
        // A task of its own: a caller who gives up must not break the import off, which would leave a temporary file.
        let pump = tokio::spawn(pump(incoming.clone(), stream, len_max, chunks));
        let refusal = Arc::new(Mutex::new(None));
        let slot = refusal.clone();
        let bounded = stream::poll_fn(move |context| {
            received.poll_recv(context).map(|chunk| match chunk? {
                Ok(chunk) => Some(Ok(chunk)),
                Err(error) => {
                    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    None
                }
            })
        });
        let imported = self.inner.fs.add_stream(bounded).await.temp_tag().await;
        let refused = refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
        let outcome = match (refused, pump.await) {
            (Some(error), _) => Err(error),
            (None, Err(panicked)) => Err(StoreError::backend(STAGE, panicked)),
            (None, Ok(())) => Ok(()),
        };
        let tag = imported.at(STAGE)?;
        let found = blob_hash(tag.hash());
        let outcome = outcome.and_then(|()| match expected {
            Some(expected) if expected != found => Err(StoreError::HashMismatch { expected, found }),
            _ => Ok(()),
        });
        match outcome {
            Ok(()) => self.enter(tag).await,
            Err(error) => {
                self.discard(tag).await;
                Err(error)
            }
        }
    }

    /// Enters an imported blob into the books, or deletes it again.
    async fn enter(&self, tag: TempTag) -> Result<Published, StoreError> {
        let hash = blob_hash(tag.hash());
        let _hold = self.hold(hash);
        let entered = async {
            let BlobStatus::Complete { size: len } = self.inner.fs.status(iroh_hash(hash)).await.at(STAGE)? else {
                return Err(StoreError::NotFound { stage: STAGE, hash });
            };
            self.admit(STAGE, hash, len).await?;
            Ok(Published { hash, len })
        };
        let entered = entered.await;
        match &entered {
            Ok(_) => drop(tag),
            Err(_) => self.discard(tag).await,
        }
        self.save_recency_sometimes().await;
        entered
    }

    /// Lets go of an import that is not wanted. What the books know by that hash stays.
    async fn discard(&self, tag: TempTag) {
        drop(tag);
        if let Err(error) = self.sweep().await {
            tracing::warn!(%error, "a refused blob stays on disk until the next sweep");
        }
    }

    pub(super) fn check_len(&self, bytes: u64, bytes_max: u64) -> Result<(), StoreError> {
        if bytes > bytes_max {
            return Err(StoreError::TooLarge { stage: STAGE, bytes, bytes_max, advice: SHORTEN });
        }
        Ok(())
    }

    fn check_could_fit(&self, bytes: u64) -> Result<(), StoreError> {
        let fits = self.index().could_fit(bytes, self.inner.options.quota_bytes_max);
        fits.map_err(|shortage| self.quota_exceeded(STAGE, bytes, shortage))
    }
}

/// Bytes of one stream that are on the disk and in no book. Streams that come in at once share the quota.
struct Incoming {
    store: Store,
    bytes: AtomicU64,
}

impl Incoming {
    /// Counts a piece; gives the stream's length so far.
    fn add(&self, piece: u64) -> Result<u64, StoreError> {
        let all = self.store.inner.incoming_bytes.fetch_add(piece, Ordering::Relaxed).saturating_add(piece);
        let own = self.bytes.fetch_add(piece, Ordering::Relaxed).saturating_add(piece);
        self.store.check_could_fit(all)?;
        Ok(own)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.store.inner.incoming_bytes.fetch_sub(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Passes chunks on until the stream ends or breaks a rule.
async fn pump<S>(incoming: Arc<Incoming>, source: S, len_max: u64, chunks: mpsc::Sender<Result<Bytes, StoreError>>)
where
    S: Stream<Item = io::Result<Bytes>> + Send,
{
    let mut source = std::pin::pin!(source);
    let mut bytes = 0u64;
    while let Some(chunk) = source.next().await {
        let chunk = chunk.map_err(|cause| StoreError::Source { bytes, cause: Arc::new(cause) }).and_then(|chunk| {
            bytes = incoming.add(chunk.len() as u64)?;
            incoming.store.check_len(bytes, len_max)?;
            Ok(chunk)
        });
        let refused = chunk.is_err();
        if chunks.send(chunk).await.is_err() || refused {
            return;
        }
    }
}
