//! Who has which credits, what happened to them, and what jobs cost and would cost.
//!
//! Whoever holds the token is the grid's owner: it may enter credits for anybody, and has any job paid by any requester. Amounts are
//! whole micro-credits, in both directions.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use grid::{
    engines::EngineAsk,
    ledger::{Account, Ask, Entry, Invoice, ParseAccountError, QuoteError, Statement, quote as quoted},
    place,
};
use registry::{
    credits::Delta,
    device::{DeviceAsk, DeviceKind},
    id::JobId,
    job::{JobSpec, Policy, Reduce},
    price::{PriceTable, Usage},
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    ApiError, Gateway, blobs, plan, resolve,
    wire::{AccountRow, QuoteRequest, QuoteRow},
};
use crate::limits;

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
    let entry: Entry = parse("entry", body).await?;
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
pub(super) async fn quote(State(gateway): State<Gateway>, body: Body) -> Result<Json<Vec<QuoteRow>>, ApiError> {
    let QuoteRequest { job, sample } = parse("quote", body).await?;
    let cap = job.payer.map(|payer| payer.cap).unwrap_or_default();
    let inner = &gateway.inner;
    let spec = resolve::resolve(&gateway, job).await?;
    inner.preflight.job(&spec).await?;
    let shards = plan::plan(&inner.store, &spec).await?.shards.len();
    let tasks = u32::try_from(shards).unwrap_or(u32::MAX).saturating_add(u32::from(spec.reduce == Reduce::Task));
    let (asked, config) = (spec.clone(), inner.coordinator.ask_now(|state| state.config().clone()).await?);
    let tables = inner.coordinator.ask_now(move |state| tables(state, &asked)).await?;
    let device = match (spec.models.is_empty(), spec.device) {
        (true, _) => None,
        (false, DeviceAsk::Gpu) => Some(DeviceKind::Gpu),
        (false, DeviceAsk::Any | DeviceAsk::Cpu) => Some(DeviceKind::Cpu),
    };
    let usage = Usage {
        fuel: sample.fuel,
        memory_bytes: spec.limits.memory_bytes_max,
        output_bytes: sample.output_bytes,
        device,
    };
    let is_audited = spec.policy == Policy::Audit;
    let ask = Ask {
        sample: usage,
        limits: spec.limits,
        device: spec.device,
        tasks,
        replicas: spec.policy.quorum(),
        replicas_max: config.replicas_max,
        audit_ppm: if is_audited { config.audit.rate_ppm_min * 2 } else { 0 },
        auditors: if is_audited { config.audit.auditors } else { 0 },
        cap,
    };
    let row = |(prices, hosts)| Ok(QuoteRow { hosts, quote: quoted(&ask, &prices)?, prices });
    let mut rows = tables.into_iter().map(row).collect::<Result<Vec<_>, QuoteError>>()?;
    rows.sort_by_key(|row| row.quote.expected);
    Ok(Json(rows))
}

/// The price tables of connected hosts that could run the job, and how many ask each.
fn tables(state: &grid::dispatch::State, spec: &JobSpec) -> BTreeMap<PriceTable, u32> {
    let mut tables = BTreeMap::new();
    let (limits, ask) = (&spec.limits, EngineAsk::from(spec));
    for host in state.hosts().filter(|host| host.connected && place::capable(limits, &ask, host).is_ok()) {
        *tables.entry(host.offer.prices.clone()).or_insert(0) += 1;
    }
    tables
}

async fn parse<T: DeserializeOwned>(what: &str, body: Body) -> Result<T, ApiError> {
    let body = blobs::collect(body, limits::HTTP_JOB_BYTES_MAX).await?;
    serde_json::from_slice(&body).map_err(|error| ApiError::malformed(format!("{what} is malformed: {error}")))
}

fn csv(text: String) -> Response {
    ([(header::CONTENT_TYPE, CSV)], text).into_response()
}

impl From<QuoteError> for ApiError {
    fn from(error: QuoteError) -> Self {
        Self::unprocessable("quote", error)
    }
}
