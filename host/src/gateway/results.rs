//! Results: standard outputs one after another, in shard order, and the files below `/out`.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::Response,
};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use grid::{
    aggregate,
    dispatch::{Job, JobView, Phase, State as GridState},
    flow::Part,
};
use registry::{
    id::{BlobHash, JobId},
    job::ShardInfo,
};
use serde::{Deserialize, Serialize};

use super::{ApiError, Gateway, blobs};
use crate::limits;

/// Which part of a result.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ResultsQuery {
    /// One shard of the map, as soon as its result stands.
    shard: Option<u32>,
}

/// `GET /v1/jobs/{id}/results`
pub(super) async fn stdout(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    query: Result<Query<ResultsQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(ApiError::malformed_query)?;
    let id: JobId = id.parse()?;
    let parts = match query.shard {
        Some(shard) => vec![shard_part(&gateway, id, shard).await?],
        None => done_parts(&gateway, id).await?,
    };
    let bytes = aggregate::stdout_bytes(&parts);
    let chunks = stream::iter(parts).then(move |part| stream_part(gateway.clone(), part)).try_flatten();
    Ok(blobs::stream_response(bytes, chunks))
}

pub(super) type Chunks = std::pin::Pin<Box<dyn Stream<Item = Result<Bytes, ApiError>> + Send>>;

async fn stream_part(gateway: Gateway, part: Part) -> Result<Chunks, ApiError> {
    Ok(content(&gateway, part.output.stdout, part.output.stdout_bytes).await?.1)
}

/// A small output lies beside its receipt, a larger one is a blob. No bytes are there always.
pub(super) async fn content(gateway: &Gateway, hash: BlobHash, bytes: u64) -> Result<(u64, Chunks), ApiError> {
    if bytes == 0 {
        return Ok((0, stream::empty().boxed()));
    }
    if let Some(kept) = gateway.inner.coordinator.output(hash).await? {
        return Ok((kept.len() as u64, stream::iter([Ok(kept)]).boxed()));
    }
    let reader = gateway.inner.store.reader(hash)?;
    let failed = |error| ApiError::later(StatusCode::SERVICE_UNAVAILABLE, "store", error);
    Ok((reader.len(), reader.map_err(failed).boxed()))
}

/// Standard output of a job that is done, unless it is long. The view was answered before, so its end is on disk.
pub(super) async fn short_stdout(gateway: &Gateway, view: &JobView) -> Result<Option<Vec<u8>>, ApiError> {
    let id = view.id;
    if view.phase != Phase::Done.verb() {
        return Ok(None);
    }
    let result = gateway.inner.coordinator.ask_now(move |state| state.job(id).and_then(Job::result)).await?;
    let Some(parts) = result else { return Ok(None) };
    if aggregate::stdout_bytes(&parts) > limits::HTTP_STDOUT_BYTES_MAX {
        return Ok(None);
    }
    let mut stdout = Vec::new();
    for part in parts {
        let (_, mut chunks) = content(gateway, part.output.stdout, part.output.stdout_bytes).await?;
        while let Some(chunk) = chunks.next().await {
            stdout.extend_from_slice(&chunk?);
        }
    }
    Ok(Some(stdout))
}

/// The result's parts; a refusal that says where the job is when there is none.
async fn done_parts(gateway: &Gateway, id: JobId) -> Result<Vec<Part>, ApiError> {
    let job = move |state: &GridState| state.job(id).map(|job| (job.result(), job.phase.clone()));
    let (result, phase) = gateway.inner.coordinator.ask(job).await?.ok_or_else(|| ApiError::unknown_job(id))?;
    let none = |word, message: String| Err(ApiError::new(StatusCode::CONFLICT, word, message));
    if let Some(parts) = result {
        return Ok(parts);
    }
    match phase {
        Phase::Failed { reason } => none("failed", format!("job {id} failed and has no result: {reason}")),
        Phase::Cancelled => none("cancelled", format!("job {id} was cancelled and has no result")),
        phase => {
            let message = format!("job {id} is {} and has no result yet: wait for it to end", phase.verb());
            Err(ApiError::later(StatusCode::CONFLICT, "not_ended", message))
        }
    }
}

async fn shard_part(gateway: &Gateway, id: JobId, shard: u32) -> Result<Part, ApiError> {
    let found = gateway.inner.coordinator.ask(move |state| {
        let job = state.job(id)?;
        let part = job.map_parts().into_iter().find(|part| part.shard.index == shard);
        Some((part, shard < job.shard_count(), job.phase.is_ended()))
    });
    match found.await?.ok_or_else(|| ApiError::unknown_job(id))? {
        (Some(part), ..) => Ok(part),
        (None, false, _) => {
            Err(ApiError::not_found("unknown_shard", format!("job {id} has no shard {shard}: count from 0")))
        }
        (None, true, ended) => {
            let message = format!("shard {shard} of job {id} has no result");
            Err(ApiError { retry: !ended, ..ApiError::new(StatusCode::CONFLICT, "not_ended", message) })
        }
    }
}

/// One file of a result.
#[derive(Debug, Serialize)]
pub(super) struct FileRow {
    shard: ShardInfo,
    path: String,
    hash: BlobHash,
    bytes: u64,
}

/// `GET /v1/jobs/{id}/results/files`
pub(super) async fn files(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<Json<Vec<FileRow>>, ApiError> {
    let rows = done_parts(&gateway, id.parse()?).await?.into_iter().flat_map(|part| {
        let row = move |file: registry::receipt::OutputFile| FileRow {
            shard: part.shard,
            path: file.path,
            hash: file.hash,
            bytes: file.bytes,
        };
        part.output.files.into_iter().map(row)
    });
    Ok(Json(rows.collect()))
}

/// `GET /v1/jobs/{id}/results/files/{shard}/{path}`
pub(super) async fn file(
    State(gateway): State<Gateway>,
    Path((id, shard, path)): Path<(String, String, String)>,
) -> Result<Response, ApiError> {
    let parts = done_parts(&gateway, id.parse()?).await?;
    let shard: u32 = shard.parse().map_err(|_| ApiError::malformed("shard is no number: count from 0"))?;
    let files = parts.into_iter().filter(|part| part.shard.index == shard).flat_map(|part| part.output.files);
    let file = files.into_iter().find(|file| file.path == path);
    let file = file.ok_or_else(|| {
        let path: String = path.chars().take(80).collect();
        ApiError::not_found("unknown_file", format!("shard {shard} of job {id} wrote no file `{path}`"))
    })?;
    let (bytes, chunks) = content(&gateway, file.hash, file.bytes).await?;
    Ok(blobs::stream_response(bytes, chunks))
}
