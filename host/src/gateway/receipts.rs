//! Records of receipts: listed as JSON, downloaded as the canonical bytes that anyone can check.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use registry::{
    device::Device,
    id::{JobId, LinkId, NodeId},
    job::ShardInfo,
};
use serde::Serialize;

use super::{ApiError, Gateway, jobs::said};
use crate::coordinator::{LogFileError, LoggedRecord};

/// One record of a job.
#[derive(Debug, Serialize)]
pub(super) struct ReceiptRow {
    /// To download it by.
    index: usize,
    shard: ShardInfo,
    /// The node that it accuses, if it is evidence.
    accused: Option<NodeId>,
    /// How the task ended.
    outcome: Option<String>,
    /// What its models ran on, by the first receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<Device>,
    /// Length of the file.
    bytes: usize,
    /// Its place in the job's log.
    seq: u64,
    /// What stands for it and everything before it; that of the latest is the head of the log.
    link: LinkId,
}

/// `GET /v1/jobs/{id}/receipts`
pub(super) async fn list(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<Json<Vec<ReceiptRow>>, ApiError> {
    let records = records(&gateway, id.parse()?).await?;
    let row = |(index, logged): (usize, LoggedRecord)| {
        let LoggedRecord { record, seq, link, .. } = logged;
        let (outcome, device) = said(&record.bytes).unzip();
        ReceiptRow {
            index,
            shard: record.shard,
            accused: record.accused,
            outcome: outcome.map(|outcome| outcome.to_string()),
            device: device.flatten(),
            bytes: record.bytes.len(),
            seq,
            link,
        }
    };
    Ok(Json(records.into_iter().enumerate().map(row).collect()))
}

/// `GET /v1/jobs/{id}/receipts/{index}`
pub(super) async fn read(
    State(gateway): State<Gateway>,
    Path((id, index)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let id: JobId = id.parse()?;
    let number: Option<usize> = index.parse().ok();
    let record = match number {
        Some(number) => records(&gateway, id).await?.into_iter().nth(number),
        None => None,
    };
    let none = || {
        ApiError::not_found(
            "unknown_receipt",
            format!("job {id} has no such record: list them first, and count from 0"),
        )
    };
    let bytes = record.ok_or_else(none)?.record.bytes;
    let kind = HeaderValue::from_static("application/cbor");
    Ok(([(header::CONTENT_TYPE, kind)], bytes).into_response())
}

/// `GET /v1/jobs/{id}/log`: all records that the job ever had, chained, and signed at the end.
pub(super) async fn log(State(gateway): State<Gateway>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let file = gateway.inner.coordinator.log_file(id.parse()?).await?;
    let kind = HeaderValue::from_static("application/octet-stream");
    Ok(([(header::CONTENT_TYPE, kind)], file).into_response())
}

impl From<LogFileError> for ApiError {
    fn from(error: LogFileError) -> Self {
        match error {
            LogFileError::Closed(closed) => closed.into(),
            LogFileError::Journal(error) => error.into(),
            LogFileError::Unknown { job } => Self::unknown_job(job),
            LogFileError::Damaged { .. } => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "damaged", error),
        }
    }
}

async fn records(gateway: &Gateway, id: JobId) -> Result<Vec<LoggedRecord>, ApiError> {
    known(gateway, id).await?;
    Ok(gateway.inner.coordinator.records(id).await?)
}

async fn known(gateway: &Gateway, id: JobId) -> Result<(), ApiError> {
    let is_known = gateway.inner.coordinator.ask(move |state| state.job(id).is_some()).await?;
    if is_known { Ok(()) } else { Err(ApiError::unknown_job(id)) }
}
