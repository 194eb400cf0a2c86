//! Blobs in and out, as streams: nothing is held in memory.

use std::{io, time::Duration};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use futures::{Stream, StreamExt, stream};
use registry::id::BlobHash;
use serde::{Deserialize, de::DeserializeOwned};

use super::{ApiError, Gateway, wire::PublishedBlob};
use crate::limits;

/// What may be said of an upload.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PublishQuery {
    /// What the content must hash to.
    hash: Option<BlobHash>,
}

/// `POST /v1/blobs`
pub(super) async fn publish(
    State(gateway): State<Gateway>,
    query: Result<Query<PublishQuery>, axum::extract::rejection::QueryRejection>,
    body: Body,
) -> Result<(StatusCode, Json<PublishedBlob>), ApiError> {
    let Query(query) = query.map_err(|rejection| ApiError::malformed(rejection.body_text()))?;
    let chunks = chunks(body);
    let published = gateway.inner.store.publish_stream(chunks, limits::HTTP_BLOB_BYTES_MAX, query.hash).await?;
    Ok((StatusCode::CREATED, Json(PublishedBlob { hash: published.hash, bytes: published.len })))
}

/// `GET` and `HEAD /v1/blobs/{hash}`
pub(super) async fn read(State(gateway): State<Gateway>, Path(hash): Path<String>) -> Result<Response, ApiError> {
    let hash: BlobHash = hash.parse()?;
    let reader = gateway.inner.store.reader(hash)?;
    Ok(stream_response(reader.len(), reader))
}

/// A response of known length. A stream that breaks off closes the connection, so that nobody takes it for the whole.
pub(super) fn stream_response(
    bytes: u64,
    chunks: impl Stream<Item = Result<Bytes, impl Into<axum::BoxError>>> + Send + 'static,
) -> Response {
    let mut response = Response::new(Body::from_stream(chunks));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The body's pieces, each within its time.
fn chunks(body: Body) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let wait = Duration::from_millis(limits::HTTP_BODY_STALL_MS_MAX);
    stream::unfold(Some(body.into_data_stream()), move |body| async move {
        let mut body = body?;
        match tokio::time::timeout(wait, body.next()).await {
            Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(body))),
            Ok(Some(Err(error))) => Some((Err(io::Error::other(error)), None)),
            Ok(None) => None,
            Err(_) => {
                let late = format!("nothing came for {} ms", limits::HTTP_BODY_STALL_MS_MAX);
                Some((Err(io::Error::new(io::ErrorKind::TimedOut, late)), None))
            }
        }
    })
}

/// A body of JSON that says `what`.
pub(super) async fn json<T: DeserializeOwned>(what: &str, body: Body) -> Result<T, ApiError> {
    parse(what, &collect(body, limits::HTTP_JOB_BYTES_MAX).await?)
}

/// JSON that says `what`.
pub(super) fn parse<T: DeserializeOwned>(what: &str, json: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(json).map_err(|error| ApiError::malformed(format!("{what} is malformed: {error}")))
}

/// A body that is kept in memory.
pub(super) async fn collect(body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    let wait = Duration::from_millis(limits::HTTP_BODY_MS_MAX);
    let limited = http_body_util::Limited::new(body, bytes_max);
    let collected = tokio::time::timeout(wait, http_body_util::BodyExt::collect(limited)).await;
    let slow = |_| {
        let message = format!("body did not come within {} ms: send it again", limits::HTTP_BODY_MS_MAX);
        ApiError::later(StatusCode::REQUEST_TIMEOUT, "slow", message)
    };
    match collected.map_err(slow)? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let message = format!("body is over the bound of {bytes_max} bytes");
            Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message))
        }
        Err(error) => Err(ApiError::malformed(format!("body broke off: {error}"))),
    }
}
