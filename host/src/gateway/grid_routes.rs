//! The grid at a glance: its health, its hosts, how to join it.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use grid::dispatch::HostView;
use serde_json::{Value, json};

use super::{ApiError, Gateway};
use crate::{limits, metrics::CONTENT_TYPE};

/// `GET /healthz`
pub(super) async fn healthz(State(gateway): State<Gateway>) -> (StatusCode, Json<Value>) {
    if gateway.inner.coordinator.is_healthy() {
        (StatusCode::OK, Json(json!({ "status": "ok" })))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "journal cannot be written: check the disk" })))
    }
}

/// `GET /metrics`: answered even when the coordinator is stuck, with what is known.
pub(super) async fn metrics(State(gateway): State<Gateway>) -> impl IntoResponse {
    let inner = &gateway.inner;
    let metrics = inner.metrics.clone();
    let gauges = inner.coordinator.ask(move |state| metrics.set_gauges(state));
    // A coordinator that is late or stopping leaves the gauges as they were.
    let _ = tokio::time::timeout(Duration::from_millis(limits::HTTP_SCRAPE_MS_MAX), gauges).await;
    inner.metrics.set_blobs(inner.store.usage(), inner.store.stats());
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], inner.metrics.render())
}

/// `GET /v1/nodes`
pub(super) async fn nodes(State(gateway): State<Gateway>) -> Result<Json<Vec<HostView>>, ApiError> {
    Ok(Json(gateway.inner.coordinator.ask(|state| state.host_views()).await?))
}

/// `GET /v1/ticket`
pub(super) async fn ticket(State(gateway): State<Gateway>) -> Json<Value> {
    Json(json!({ "ticket": gateway.inner.ticket }))
}
