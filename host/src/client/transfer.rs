//! Content up and down, as streams.

use std::{io, path::Path};

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::{Method, body::Frame, header};
use registry::id::BlobHash;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::io::ReaderStream;

use super::{Chunks, Client, ClientError, empty, full};
use crate::gateway::wire::PublishedBlob;

/// Bytes read from a file at a time.
const READ_BYTES: usize = 256 << 10;

/// Content on its way here.
pub struct Download {
    /// Its length, if it is known.
    pub bytes: Option<u64>,
    chunks: Chunks,
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Download({:?} bytes)", self.bytes)
    }
}

impl Download {
    /// The next piece; none at the end.
    ///
    /// # Errors
    /// When the connection breaks off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        self.chunks.next().await.transpose()
    }

    /// Everything, in memory.
    ///
    /// # Errors
    /// When the connection breaks off.
    pub async fn collect(mut self) -> Result<Vec<u8>, ClientError> {
        let mut all = Vec::new();
        while let Some(chunk) = self.next().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }

    /// Everything, into `out`; gives its length. `path` is what an error of `out` names.
    ///
    /// # Errors
    /// When the connection breaks off, or `out` cannot be written.
    pub async fn write_to(mut self, out: &mut (impl AsyncWrite + Unpin), path: &Path) -> Result<u64, ClientError> {
        let failed = |source| ClientError::File { path: path.to_owned(), source };
        let mut bytes = 0;
        while let Some(chunk) = self.next().await? {
            bytes += chunk.len() as u64;
            out.write_all(&chunk).await.map_err(failed)?;
        }
        out.flush().await.map_err(failed)?;
        Ok(bytes)
    }
}

impl Client {
    /// Content of a route, as it comes.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn download(&self, path: &str) -> Result<Download, ClientError> {
        let response = self.send(Method::GET, path, "application/octet-stream", empty()).await?;
        let length = response.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let broken = |error: hyper::Error| ClientError::Broken(error.to_string());
        let chunks = response.into_body().into_data_stream().map(move |chunk| chunk.map_err(broken));
        Ok(Download { bytes: length, chunks: chunks.boxed() })
    }

    /// Publishes bytes, unless they are there.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn publish_bytes(&self, bytes: Bytes) -> Result<PublishedBlob, ClientError> {
        let hash = BlobHash::of(&bytes);
        if self.has_blob(hash).await? {
            return Ok(PublishedBlob { hash, bytes: bytes.len() as u64 });
        }
        self.ask(Method::POST, &format!("/v1/blobs?hash={hash}"), "application/octet-stream", full(bytes)).await
    }

    /// Publishes what a reader gives; `sent` hears of each piece's length.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn publish_reader(
        &self,
        reader: impl AsyncRead + Send + 'static,
        sent: impl Fn(u64) + Send + 'static,
    ) -> Result<PublishedBlob, ClientError> {
        let frames = ReaderStream::with_capacity(reader, READ_BYTES).map(move |chunk: io::Result<Bytes>| {
            let chunk = chunk?;
            sent(chunk.len() as u64);
            Ok(Frame::data(chunk))
        });
        let body = StreamBody::new(frames).boxed_unsync();
        self.ask(Method::POST, "/v1/blobs", "application/octet-stream", body).await
    }

    /// Publishes a file as a stream.
    ///
    /// # Errors
    /// See [`Client::get`], or when the file cannot be read.
    pub async fn publish_file(
        &self,
        path: &Path,
        sent: impl Fn(u64) + Send + 'static,
    ) -> Result<PublishedBlob, ClientError> {
        let file = tokio::fs::File::open(path).await;
        let file = file.map_err(|source| ClientError::File { path: path.to_owned(), source })?;
        self.publish_reader(file, sent).await
    }
}
