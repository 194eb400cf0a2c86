//! The HTTP gateway: jobs, blobs, names and answers about them, for the CLI and for any other program.
//!
//! It decides nothing about work. A request is parsed once at the edge, checked ([`preflight`]: nothing is accepted that
//! could not run), turned into values of `registry` and `grid`, and given to the [`Coordinator`] or the [`Store`].
//!
//! Reading order:
//! - [`wire`]: what crosses the socket as JSON; [`error`]: every refusal, with its status, word and advice.
//! - [`serve`]: connections; [`guard`]: who may ask what; [`token`]: the secret that says so.
//! - [`jobs`], [`resolve`], [`preflight`], [`plan`]: from a request to an accepted job.
//! - [`ledger`]: what it costs, and who has which credits. [`reputation`]: what operators have shown, and how they came to it.
//! - [`events`], [`results`], [`receipts`]: what comes of it; [`work`]: what it takes to do it again. [`blobs`], [`names`], [`grid_routes`]: the rest.
//!
//! **Attackers.** It listens on loopback unless told otherwise. Whatever changes or tells anything needs the token of the
//! data directory; a web page in the user's browser does not get past the checks of `Host` and `Origin`. Heads, bodies,
//! times, connections and requests are bounded (see `limits`); blobs go to the disk as they come.
//!
//! **A crash** loses requests under way. What was answered is on disk; the same job sent again with the same nonce is the
//! same job.

mod blobs;
mod bounded;
mod error;
mod events;
mod grid_routes;
mod guard;
mod jobs;
mod ledger;
mod names;
mod plan;
mod preflight;
mod receipts;
mod reputation;
mod resolve;
mod results;
mod serve;
#[cfg(test)]
mod tests;
pub mod token;
pub mod wire;
mod work;

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, post},
};
use registry::store::Store;
use tokio::sync::Semaphore;

pub use self::{
    error::ApiError,
    serve::{Peer, serve, serve_metrics},
};
use self::{preflight::Preflight, resolve::Manifests, token::Token};
use crate::{coordinator::Coordinator, limits, metrics::CoordinatorMetrics, sandbox::Sandbox};

/// What the routes work on. Clones share everything.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    coordinator: Coordinator,
    store: Store,
    metrics: CoordinatorMetrics,
    token: Token,
    ticket: String,
    preflight: Preflight,
    manifests: Manifests,
    requests: Arc<Semaphore>,
    event_streams: Arc<Semaphore>,
}

impl Gateway {
    /// A gateway to this coordinator and store. `sandbox` is asked whether modules and models load; `ticket` is what
    /// hosts join with.
    pub fn new(
        coordinator: Coordinator,
        store: Store,
        sandbox: Sandbox,
        metrics: CoordinatorMetrics,
        token: Token,
        ticket: String,
    ) -> Self {
        let inner = Inner {
            coordinator,
            preflight: Preflight::new(store.clone(), sandbox),
            store,
            metrics,
            token,
            ticket,
            manifests: Manifests::new(),
            requests: Arc::new(Semaphore::new(limits::HTTP_REQUESTS_MAX)),
            event_streams: Arc::new(Semaphore::new(limits::HTTP_EVENT_STREAMS_MAX)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Every route. Patterns here are the labels in `metrics::words::ROUTES`.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/healthz", get(grid_routes::healthz))
            .route("/metrics", get(grid_routes::metrics))
            .route("/v1/blobs", post(blobs::publish))
            .route("/v1/blobs/{hash}", get(blobs::read))
            .route("/v1/names", get(names::list).post(names::publish))
            .route("/v1/names/{publisher}/{name}/{version}", get(names::read))
            .route("/v1/jobs", get(jobs::list).post(jobs::submit))
            .route("/v1/jobs/{id}", get(jobs::read).delete(jobs::cancel))
            .route("/v1/jobs/{id}/events", get(events::stream))
            .route("/v1/jobs/{id}/results", get(results::stdout))
            .route("/v1/jobs/{id}/results/files", get(results::files))
            .route("/v1/jobs/{id}/results/files/{shard}/{*path}", get(results::file))
            .route("/v1/jobs/{id}/receipts", get(receipts::list))
            .route("/v1/jobs/{id}/receipts/{index}", get(receipts::read))
            .route("/v1/jobs/{id}/log", get(receipts::log))
            .route("/v1/jobs/{id}/spec", get(work::spec))
            .route("/v1/jobs/{id}/shards/{stage}/{index}/input", get(work::input))
            .route("/v1/jobs/{id}/shards/{stage}/{index}/output", get(work::output))
            .route("/v1/jobs/{id}/shards/{stage}/{index}/stdout", get(work::stdout))
            .route("/v1/jobs/{id}/why", get(jobs::why))
            .route("/v1/jobs/{id}/invoice", get(ledger::invoice))
            .route("/v1/quote", post(ledger::quote))
            .route("/v1/ledger", get(ledger::accounts).post(ledger::enter))
            .route("/v1/ledger/statement", get(ledger::statement))
            .route("/v1/reputation", get(reputation::list))
            .route("/v1/reputation/{operator}/history", get(reputation::history))
            .route("/v1/engine", get(work::engine))
            .route("/v1/nodes", get(grid_routes::nodes))
            .route("/v1/ticket", get(grid_routes::ticket))
            .fallback(guard::unknown_route)
            .method_not_allowed_fallback(guard::unknown_method)
            .layer(axum::middleware::from_fn_with_state(self.clone(), guard::guard))
            .with_state(self.clone())
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("store", &self.inner.store).finish_non_exhaustive()
    }
}
