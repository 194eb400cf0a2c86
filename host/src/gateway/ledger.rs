//! Who has which credits, what happened to them, and what jobs cost and would cost.
//!
//! Whoever holds the token is the grid's owner: it may enter credits for anybody, and has any job paid by any requester. Amounts are
//! whole micro-credits, in both directions.

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use grid::{
    dispatch::HostQuote,
    ledger::{Account, Entry, Invoice, ParseAccountError, QuoteError, Statement},
};
use registry::{credits::Delta, id::JobId};
use serde::Deserialize;

use super::{
    ApiError, Gateway, blobs, plan, resolve,
    wire::{AccountRow, QuoteRequest},
};

const CSV: &str = "text/csv; charset=utf-8";

/// How rows are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    #[default]
    Json,
    Csv,
}

/// How an invoice is told.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct InvoiceQuery {
    format: Format,
}

/// Which account, and over which time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StatementQuery {
    account: String,
    #[serde(default)]
    from_ms: u64,
    to_ms: Option<u64>,
    #[serde(default)]
    format: Format,
}

/// `GET /v1/ledger`: every account with something on it.
pub(super) async fn accounts(State(gateway): State<Gateway>) -> Result<Json<Vec<AccountRow>>, ApiError> {
    let rows = |(account, balance): (Account, Delta)| AccountRow {
        account: account.to_string(),
        balance_micro: balance.micro(),
    };
    Ok(Json(gateway.inner.coordinator.ask(move |state| state.ledger().accounts().map(rows).collect()).await?))
}

/// `POST /v1/ledger`: credits come or go, or stake.
pub(super) async fn enter(State(gateway): State<Gateway>, body: Body) -> Result<StatusCode, ApiError> {
    let entry: Entry = blobs::json("entry", body).await?;
    gateway.inner.coordinator.enter(entry).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/ledger/statement`
pub(super) async fn statement(
    State(gateway): State<Gateway>,
    query: Result<Query<StatementQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(ApiError::malformed_query)?;
    let account: Account = query.account.parse().map_err(|error: ParseAccountError| ApiError::malformed(error))?;
    let range = query.from_ms..query.to_ms.unwrap_or(u64::MAX);
    let statement: Statement = gateway.inner.coordinator.statement(account, range).await?;
    Ok(match query.format {
        Format::Json => Json(statement).into_response(),
        Format::Csv => csv(statement.table().csv()),
    })
}

/// `GET /v1/jobs/{id}/invoice`
pub(super) async fn invoice(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    query: Result<Query<InvoiceQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(ApiError::malformed_query)?;
    let id: JobId = id.parse()?;
    let invoice: Invoice = gateway.inner.coordinator.invoice(id).await?;
    Ok(match query.format {
        Format::Json => Json(invoice).into_response(),
        Format::Csv => csv(invoice.table().csv()),
    })
}

/// `POST /v1/quote`: at the prices of each kind of host that is there and could run the job.
pub(super) async fn quote(State(gateway): State<Gateway>, body: Body) -> Result<Json<Vec<HostQuote>>, ApiError> {
    let QuoteRequest { job, sample } = blobs::json("quote", body).await?;
    let cap = job.payer.map(|payer| payer.cap).unwrap_or_default();
    let inner = &gateway.inner;
    let spec = resolve::resolve(&gateway, job).await?;
    inner.preflight.job(&spec).await?;
    let shards = plan::plan(&inner.store, &spec).await?.shards.len();
    let tried = (sample.fuel, sample.output_bytes);
    Ok(Json(inner.coordinator.ask_now(move |state| state.quotes(&spec, shards, tried, cap)).await??))
}

fn csv(text: String) -> Response {
    ([(header::CONTENT_TYPE, CSV)], text).into_response()
}

impl From<QuoteError> for ApiError {
    fn from(error: QuoteError) -> Self {
        Self::unprocessable("quote", error)
    }
}
