//! What operators have shown: at a glance as JSON, and the signed history of each as a file that anyone can check.

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use futures::TryStreamExt;
use grid::dispatch::OperatorView;
use registry::id::{LinkId, OperatorId};
use serde::Serialize;

use super::{ApiError, Gateway};
use crate::{
    coordinator::{HistoryError, KnownOperator},
    limits,
};

/// One operator.
#[derive(Debug, Serialize)]
pub(super) struct OperatorRow {
    #[serde(flatten)]
    view: OperatorView,
    /// Entries of its history.
    entries: u64,
    /// What stands for all of them: who keeps it sees later whether the history was shortened or written anew.
    head: LinkId,
}

/// `GET /v1/reputation`
pub(super) async fn list(State(gateway): State<Gateway>) -> Result<Json<Vec<OperatorRow>>, ApiError> {
    let known = gateway.inner.coordinator.operators(limits::HTTP_OPERATORS_LISTED_MAX).await?;
    let row = |KnownOperator { view, history }| OperatorRow { view, entries: history.entries, head: history.last };
    Ok(Json(known.into_iter().map(row).collect()))
}

/// `GET /v1/reputation/{operator}/history`
pub(super) async fn history(
    State(gateway): State<Gateway>,
    Path(operator): Path<String>,
) -> Result<Response, ApiError> {
    let operator: OperatorId = operator.parse()?;
    let file = gateway.inner.coordinator.history(operator).await?;
    // What breaks off closes the connection, so that nobody takes it for the whole; and the head says how many entries there are.
    let mut response = Response::new(Body::from_stream(file.chunks().map_err(ApiError::from)));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

impl From<HistoryError> for ApiError {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Closed(closed) => closed.into(),
            HistoryError::Journal(error) => error.into(),
            HistoryError::Unknown { .. } => Self::not_found("unknown_operator", error),
            HistoryError::TooLong { .. } => Self::unprocessable("too_long", error),
            HistoryError::Damaged { .. } => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "damaged", error),
        }
    }
}
