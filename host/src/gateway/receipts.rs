//! Records of receipts: listed as JSON, downloaded as the canonical bytes that anyone can check.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use registry::{
    device::Device,
    id::{JobId, NodeId},
    job::ShardInfo,
};
use serde::Serialize;

use super::{ApiError, Gateway, jobs::said};
use crate::coordinator::StoredRecord;

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
}

/// `GET /v1/jobs/{id}/receipts`
pub(super) async fn list(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
) -> Result<Json<Vec<ReceiptRow>>, ApiError> {
    let records = records(&gateway, id.parse()?).await?;
    let row = |(index, record): (usize, StoredRecord)| {
        let (outcome, device) = said(&record.bytes).unzip();
        ReceiptRow {
            index,
            shard: record.shard,
            accused: record.accused,
            outcome: outcome.map(|outcome| outcome.to_string()),
            device: device.flatten(),
            bytes: record.bytes.len(),
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
    let bytes = record.ok_or_else(none)?.bytes;
    let kind = HeaderValue::from_static("application/cbor");
    Ok(([(header::CONTENT_TYPE, kind)], bytes).into_response())
}

async fn records(gateway: &Gateway, id: JobId) -> Result<Vec<StoredRecord>, ApiError> {
    if !gateway.inner.coordinator.ask(move |state| state.job(id).is_some()).await? {
        return Err(ApiError::unknown_job(id));
    }
    Ok(gateway.inner.coordinator.records(id).await?)
}
