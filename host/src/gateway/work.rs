//! What it takes to run a shard again: the job, the shard's input, what it wrote, and the engine's description.
//!
//! Whoever has a record of receipts needs to trust none of this. The job and the output are canonical bytes whose hashes
//! the record holds; the input is right when it gives the record's task id.

use axum::{
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use grid::{dispatch::Job, flow::Slice};
use registry::{
    canon,
    id::JobId,
    job::{JobInput, JobSpec, Stage},
    receipt::Output,
};
use serde::Serialize;

use super::{ApiError, Gateway, blobs, results};

/// `GET /v1/jobs/{id}/spec`
pub(super) async fn spec(State(gateway): State<Gateway>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let id: JobId = id.parse()?;
    let spec = gateway.inner.coordinator.ask(move |state| state.job(id).map(|job| job.spec.clone())).await?;
    Ok(canonical(&spec.ok_or_else(|| ApiError::unknown_job(id))?))
}

/// `GET /v1/engine`: of the coordinator, which hosts need not share.
pub(super) async fn engine(State(gateway): State<Gateway>) -> Response {
    canonical(gateway.inner.preflight.engine())
}

/// `GET /v1/jobs/{id}/shards/{stage}/{index}/input`
pub(super) async fn input(
    State(gateway): State<Gateway>,
    Path(shard): Path<(String, String, String)>,
) -> Result<Response, ApiError> {
    let (spec, slice, _) = work(&gateway, shard).await?;
    let Slice { blob, start, end } = slice;
    let bytes = end.saturating_sub(start);
    match (blob, spec.input) {
        (Some(blob), _) => Ok(blobs::stream_response(bytes, gateway.inner.store.range_reader(blob, start, bytes)?)),
        (None, JobInput::Inline(inline)) => {
            let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
            let slice = range.and_then(|(start, end)| inline.get(start..end));
            let outside =
                || ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "input", "the shard lies outside its job's input");
            Ok(whole(Bytes::copy_from_slice(slice.ok_or_else(outside)?)))
        }
        (None, _) => Ok(whole(Bytes::new())),
    }
}

/// `GET /v1/jobs/{id}/shards/{stage}/{index}/output`
pub(super) async fn output(
    State(gateway): State<Gateway>,
    Path(shard): Path<(String, String, String)>,
) -> Result<Response, ApiError> {
    Ok(canonical(&written(&gateway, shard).await?))
}

/// `GET /v1/jobs/{id}/shards/{stage}/{index}/stdout`
pub(super) async fn stdout(
    State(gateway): State<Gateway>,
    Path(shard): Path<(String, String, String)>,
) -> Result<Response, ApiError> {
    let output = written(&gateway, shard).await?;
    let (bytes, chunks) = results::content(&gateway, output.stdout, output.stdout_bytes).await?;
    Ok(blobs::stream_response(bytes, chunks))
}

async fn written(gateway: &Gateway, shard: (String, String, String)) -> Result<Output, ApiError> {
    let none = || ApiError::new(StatusCode::CONFLICT, "not_ended", "shard has no result");
    work(gateway, shard).await?.2.ok_or_else(none)
}

/// The job, where the shard's input lies, and what the shard wrote.
async fn work(
    gateway: &Gateway,
    (id, stage, index): (String, String, String),
) -> Result<(JobSpec, Slice, Option<Output>), ApiError> {
    let id: JobId = id.parse()?;
    let stage = match stage.as_str() {
        "map" => Stage::Map,
        "reduce" => Stage::Reduce,
        _ => return Err(ApiError::malformed("stage is neither `map` nor `reduce`")),
    };
    let index: u32 = index.parse().map_err(|_| ApiError::malformed("shard is no number: count from 0"))?;
    let found = move |job: &Job| {
        let (planned, output) = job.work(stage, index)?;
        Some((job.spec.clone(), planned.slice.clone(), output.cloned()))
    };
    let found = gateway.inner.coordinator.ask(move |state| state.job(id).map(found)).await?;
    let no_shard = || ApiError::not_found("unknown_shard", format!("job {id} has no such shard: count from 0"));
    found.ok_or_else(|| ApiError::unknown_job(id))?.ok_or_else(no_shard)
}

fn canonical(value: &impl Serialize) -> Response {
    let kind = HeaderValue::from_static("application/cbor");
    ([(header::CONTENT_TYPE, kind)], canon::encode(value)).into_response()
}

fn whole(bytes: Bytes) -> Response {
    let chunks: results::Chunks = stream::iter([Ok(bytes.clone())]).boxed();
    blobs::stream_response(bytes.len() as u64, chunks)
}
