//! Reading blobs. Every byte is verified against the hash again, because a file published by reference can change.

use std::{
    io,
    path::Path,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use iroh_blobs::{
    api::blobs::EncodedItem,
    protocol::{ChunkRanges, ChunkRangesExt},
};
use n0_future::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

use super::{
    Hold, Store,
    error::{AtStage, StoreError},
    iroh_hash,
};
use crate::id::BlobHash;

/// The bytes of one blob, in order: a stream of chunks of at most 16 KiB, or an [`AsyncRead`].
///
/// While it lives the blob is not deleted.
pub struct BlobReader {
    chunks: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
    rest: Bytes,
    len: u64,
    _hold: Option<Hold>,
}

impl Store {
    /// Whether all of the blob is here.
    pub fn has(&self, hash: BlobHash) -> bool {
        self.index().complete_len(&hash).is_some()
    }

    /// Length of a blob that is here.
    pub fn len(&self, hash: BlobHash) -> Result<u64, StoreError> {
        self.index().complete_len(&hash).ok_or(StoreError::NotFound { stage: "length", hash })
    }

    /// The whole blob in memory, refused if it is longer than `bytes_max`.
    pub async fn read(&self, hash: BlobHash, bytes_max: u64) -> Result<Bytes, StoreError> {
        const STAGE: &str = "read";
        let reader = self.reader(hash)?;
        if reader.len > bytes_max {
            let advice = "read a range of it, or stream it";
            return Err(StoreError::TooLarge { stage: STAGE, bytes: reader.len, bytes_max, advice });
        }
        reader.collect().await
    }

    /// `len` bytes from `offset` on, in memory.
    pub async fn read_range(&self, hash: BlobHash, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        self.range_reader(hash, offset, len)?.collect().await
    }

    /// The whole blob as a stream.
    pub fn reader(&self, hash: BlobHash) -> Result<BlobReader, StoreError> {
        let (hold, len) = self.hold_complete("read", hash)?;
        Ok(self.chunks(hold, 0, len))
    }

    /// `len` bytes from `offset` on as a stream.
    pub fn range_reader(&self, hash: BlobHash, offset: u64, len: u64) -> Result<BlobReader, StoreError> {
        let (hold, blob_bytes) = self.hold_complete("read", hash)?;
        match offset.checked_add(len) {
            Some(end) if end <= blob_bytes => Ok(self.chunks(hold, offset, len)),
            _ => Err(StoreError::Range { hash, offset, len, blob_bytes }),
        }
    }

    /// Copies the blob to a file, which appears when it is complete and replaces what was there.
    pub async fn export(&self, hash: BlobHash, path: &Path) -> Result<u64, StoreError> {
        const STAGE: &str = "export to";
        let mut reader = self.reader(hash)?;
        let failed = |error| StoreError::file(STAGE, path, error);
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", hash.short()));
        let part = path.with_file_name(name);
        let copied = async {
            let mut file = tokio::fs::File::create(&part).await.map_err(failed)?;
            while let Some(chunk) = reader.next().await {
                file.write_all(&chunk.at("read")?).await.map_err(failed)?;
            }
            file.flush().await.map_err(failed)?;
            tokio::fs::rename(&part, path).await.map_err(failed)
        };
        let copied = copied.await;
        if copied.is_err() {
            tokio::fs::remove_file(&part).await.ok();
        }
        copied.map(|()| reader.len)
    }

    /// Deletes a blob now, whether there is room or not. To remove what is not here is no error.
    pub async fn remove(&self, hash: BlobHash) -> Result<(), StoreError> {
        self.check_open("remove")?;
        {
            let mut index = self.index();
            if let Some(owner) = index.pin_owner(&hash) {
                return Err(StoreError::Pinned { hash, owner: owner.to_owned() });
            }
            if index.is_held(&hash) {
                return Err(StoreError::Busy { hash });
            }
            if index.remove(&hash).is_none() {
                return Ok(());
            }
        }
        self.sweep().await
    }

    fn chunks(&self, hold: Hold, offset: u64, len: u64) -> BlobReader {
        let end = offset + len;
        if len == 0 {
            return BlobReader { chunks: Box::pin(n0_future::stream::empty()), rest: Bytes::new(), len, _hold: None };
        }
        let export = self.inner.fs.export_bao(iroh_hash(hold.hash), ChunkRanges::bytes(offset..end));
        let chunks = export.stream().filter_map(move |item| match item {
            EncodedItem::Leaf(leaf) => {
                let leaf_end = leaf.offset + leaf.data.len() as u64;
                let (start, stop) = (offset.max(leaf.offset), end.min(leaf_end));
                let cut = |position: u64| (position - leaf.offset) as usize;
                (start < stop).then(|| Ok(leaf.data.slice(cut(start)..cut(stop))))
            }
            EncodedItem::Error(error) => Some(Err(io::Error::other(error))),
            EncodedItem::Size(_) | EncodedItem::Parent(_) | EncodedItem::Done => None,
        });
        BlobReader { chunks: Box::pin(chunks), rest: Bytes::new(), len, _hold: Some(hold) }
    }
}

impl BlobReader {
    /// How many bytes it gives in all.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it gives none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    async fn collect(mut self) -> Result<Bytes, StoreError> {
        const STAGE: &str = "read";
        let mut bytes = BytesMut::with_capacity(usize::try_from(self.len).at(STAGE)?);
        while let Some(chunk) = self.next().await {
            bytes.extend_from_slice(&chunk.at(STAGE)?);
        }
        if bytes.len() as u64 != self.len {
            let short = format!("{} of {} bytes could be read", bytes.len(), self.len);
            return Err(StoreError::backend(STAGE, io::Error::new(io::ErrorKind::UnexpectedEof, short)));
        }
        Ok(bytes.freeze())
    }
}

impl Stream for BlobReader {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.chunks.as_mut().poll_next(context)
    }
}

impl AsyncRead for BlobReader {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.chunks.as_mut().poll_next(context)) {
                Some(chunk) => self.rest = chunk?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let take = self.rest.len().min(into.remaining());
        into.put_slice(&self.rest.split_to(take));
        Poll::Ready(Ok(()))
    }
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobReader({} bytes)", self.len)
    }
}
