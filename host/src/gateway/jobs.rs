//! Jobs: submit, look at, cancel, and why a shard is where it is.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use grid::dispatch::{JobView, Why};
use registry::{
    device::Device,
    id::{JobId, NodeId},
    job::Stage,
    receipt::{Outcome, Record},
};
use serde::{Deserialize, Serialize};

use super::{
    ApiError, Gateway, blobs, plan, resolve, results,
    wire::{JobRequest, Submitted},
};
use crate::limits;

/// What may be said beside a job.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SubmitQuery {
    /// Answer when the job has ended.
    wait: bool,
}

/// A job with what is known of its result.
#[derive(Debug, Serialize)]
pub(super) struct JobAnswer {
    #[serde(flatten)]
    view: JobView,
    /// How the tasks ended and how many each way; absent for jobs of many shards.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcomes: Option<BTreeMap<String, u32>>,
    /// What models ran on, and in how many tasks; absent when none ran, and for jobs of many shards.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    devices: BTreeMap<String, u32>,
    /// Standard output, when it is short and text.
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout: Option<String>,
    /// Standard output, when it is short and no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout_base64: Option<String>,
}

/// `POST /v1/jobs`
pub(super) async fn submit(
    State(gateway): State<Gateway>,
    query: Result<Query<SubmitQuery>, QueryRejection>,
    body: Body,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(ApiError::malformed_query)?;
    let request: JobRequest = blobs::json("job", body).await?;
    let payer = request.payer;
    let inner = &gateway.inner;
    let spec = resolve::resolve(&gateway, request).await?;
    inner.preflight.job(&spec).await?;
    let plan = plan::plan(&inner.store, &spec).await?;
    if query.wait {
        let view = inner.coordinator.submit_and_wait(spec, plan, payer).await?;
        return Ok(Json(answer(&gateway, view, true).await?).into_response());
    }
    let (shards, nonce) = (plan.shards.len(), spec.nonce);
    let id = inner.coordinator.submit(spec, plan, payer).await?;
    let secret_hash = inner.coordinator.ask_now(move |state| state.job(id).map(|job| job.secret().0)).await?;
    let secret_hash = secret_hash.ok_or_else(|| ApiError::not_found("unknown_job", "job is not known any more"))?;
    Ok((StatusCode::CREATED, Json(Submitted { id, shards, nonce, secret_hash })).into_response())
}

async fn answer(gateway: &Gateway, view: JobView, with_stdout: bool) -> Result<JobAnswer, ApiError> {
    let (outcomes, devices) = ended_how(gateway, &view).await?.unzip();
    let devices = devices.unwrap_or_default();
    let mut answer = JobAnswer { view, outcomes, devices, stdout: None, stdout_base64: None };
    if with_stdout && let Some(bytes) = results::short_stdout(gateway, &answer.view).await? {
        match String::from_utf8(bytes) {
            Ok(text) => answer.stdout = Some(text),
            Err(error) => answer.stdout_base64 = Some(data_encoding::BASE64.encode(error.as_bytes())),
        }
    }
    Ok(answer)
}

/// How many tasks there are of each word.
type Count = BTreeMap<String, u32>;

/// How the tasks ended, and what their models ran on, by what the accepted records say.
async fn ended_how(gateway: &Gateway, view: &JobView) -> Result<Option<(Count, Count)>, ApiError> {
    if view.shards > limits::HTTP_OUTCOMES_SHARDS_MAX {
        return Ok(None);
    }
    let (mut outcomes, mut devices) = (Count::new(), Count::new());
    for logged in gateway.inner.coordinator.records(view.id).await? {
        let record = logged.record;
        if record.accused.is_none()
            && let Some((outcome, device)) = said(&record.bytes)
        {
            *outcomes.entry(outcome.to_string()).or_insert(0) += 1;
            if let Some(device) = device {
                *devices.entry(device.to_string()).or_insert(0) += 1;
            }
        }
    }
    Ok(Some((outcomes, devices)))
}

/// What a record that this grid wrote says about its task: how it ended, and what its models ran on.
pub(super) fn said(record: &[u8]) -> Option<(Outcome, Option<Device>)> {
    let record = Record::from_bytes(record).ok()?;
    let receipt = record.agreeing().first()?.receipt.peek().ok()?;
    Some((receipt.execution.outcome, receipt.device))
}

/// How many jobs to list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListQuery {
    max: Option<usize>,
}

/// `GET /v1/jobs`: the latest first.
pub(super) async fn list(
    State(gateway): State<Gateway>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Vec<JobView>>, ApiError> {
    let Query(query) = query.map_err(ApiError::malformed_query)?;
    let max = query.max.unwrap_or(limits::HTTP_JOBS_LISTED_MAX).min(limits::HTTP_JOBS_LISTED_MAX);
    Ok(Json(gateway.inner.coordinator.ask(move |state| state.job_views(max)).await?))
}

/// What to tell of a job.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ReadQuery {
    /// Its standard output, when that is short.
    stdout: bool,
}

/// `GET /v1/jobs/{id}`
pub(super) async fn read(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    query: Result<Query<ReadQuery>, QueryRejection>,
) -> Result<Json<JobAnswer>, ApiError> {
    let Query(query) = query.map_err(ApiError::malformed_query)?;
    let id: JobId = id.parse()?;
    let view = gateway.inner.coordinator.ask(move |state| state.job_view(id)).await?;
    Ok(Json(answer(&gateway, view.ok_or_else(|| ApiError::unknown_job(id))?, query.stdout).await?))
}

/// A cancelled job.
#[derive(Debug, Serialize)]
pub(super) struct Cancelled {
    id: JobId,
    /// Whether it was unfinished before.
    cancelled: bool,
}

/// `DELETE /v1/jobs/{id}`
pub(super) async fn cancel(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<Json<Cancelled>, ApiError> {
    let id: JobId = id.parse()?;
    let coordinator = &gateway.inner.coordinator;
    if !coordinator.ask(move |state| state.job(id).is_some()).await? {
        return Err(ApiError::unknown_job(id));
    }
    Ok(Json(Cancelled { id, cancelled: coordinator.cancel(id).await? }))
}

/// Which shard is asked about.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WhyQuery {
    /// The first without a result when absent.
    shard: Option<u32>,
    /// `map` when absent.
    stage: Option<Stage>,
}

/// Why a shard is where it is, and which of the job's records are evidence against whoever signed something else.
#[derive(Debug, Serialize)]
pub(super) struct WhyRow {
    #[serde(flatten)]
    why: Why,
    evidence: Vec<EvidenceRow>,
}

/// A record that accuses somebody.
#[derive(Debug, Serialize)]
struct EvidenceRow {
    /// The machine that it accuses.
    node: NodeId,
    /// Its place in the job's log.
    seq: u64,
}

/// `GET /v1/jobs/{id}/why`
pub(super) async fn why(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    query: Result<Query<WhyQuery>, QueryRejection>,
) -> Result<Json<WhyRow>, ApiError> {
    let Query(WhyQuery { shard, stage }) = query.map_err(ApiError::malformed_query)?;
    let id: JobId = id.parse()?;
    let (known, why) = gateway
        .inner
        .coordinator
        .ask(move |state| {
            let Some(job) = state.job(id) else { return (false, None) };
            let reducing = job.accepted_count() == job.shard_count();
            let why = match (shard, stage) {
                (Some(shard), stage) => state.why(id, stage.unwrap_or(Stage::Map), shard),
                (None, None | Some(Stage::Reduce)) if reducing || stage.is_some() => {
                    state.why(id, Stage::Reduce, 0).or_else(|| state.why(id, Stage::Map, 0))
                }
                (None, _) => {
                    let done: std::collections::BTreeSet<u32> =
                        job.map_parts().iter().map(|part| part.shard.index).collect();
                    let first = (0..job.shard_count()).find(|index| !done.contains(index)).unwrap_or(0);
                    state.why(id, Stage::Map, first)
                }
            };
            (true, why)
        })
        .await?;
    let no_shard = || ApiError::not_found("unknown_shard", format!("job {id} has no such shard: count from 0"));
    let why = if known { why.ok_or_else(no_shard)? } else { return Err(ApiError::unknown_job(id)) };
    let evidence = gateway.inner.coordinator.evidence(id, why.shard.shard).await?;
    let evidence = evidence.into_iter().map(|(node, seq)| EvidenceRow { node, seq }).collect();
    Ok(Json(WhyRow { why, evidence }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let parse = |json: &[u8]| blobs::parse::<JobRequest>("job", json);
        let refusal = parse(br#"{"module":"alice/digits@1","colour":"red"}"#).unwrap_err();
        assert_eq!((refusal.status, refusal.word), (StatusCode::BAD_REQUEST, "malformed"));
        assert!(refusal.message.contains("unknown field `colour`"), "{refusal}");
        assert!(parse(b"{").unwrap_err().message.contains("line 1"));
    }
}
