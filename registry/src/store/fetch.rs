//! Taking a blob from other nodes.
//!
//! Participants: the caller, who names providers in the order of preference; the `job`; one `transfer` at a time to
//! each provider.
//!
//! 1. *Length.* In the given order, a provider is asked for the first `SPLIT_BYTES_MIN` bytes. Its answer opens with
//!    the length, which is checked against the limits, and room is made, before anything is read. A short blob is
//!    complete with that answer. The length of a longer one is first proven by its last chunk, so that nobody can make us
//!    delete what we have for a blob that does not exist.
//! 2. *Rounds.* What is missing is cut into pieces, and all providers that are left take pieces from one queue. One that
//!    fails is given up and its piece goes back. The next round asks those who are left for what is then missing.
//!
//! Goals: every byte is verified as it arrives; what was verified is kept and never asked for again, over failures,
//! rounds, calls and restarts. Non-goals: finding providers, hash sequences, fairness between fetches.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use iroh::{Endpoint, EndpointAddr};

use super::{
    Store,
    error::StoreError,
    fault::ProviderFailure,
    flight::{Flight, Terms},
    job::Job,
    options::{FETCH_MS_MAX, FetchLimits, PROVIDERS_MAX},
};
use crate::id::{BlobHash, NodeId};

pub(super) const STAGE: &str = "fetch";

/// A blob that is now in the store, and how it came.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Its length in bytes.
    pub len: u64,
    /// Content that crossed the network for this fetch; 0 if the blob was here.
    pub bytes_moved: u64,
    /// Who gave it, in the order of node ids; empty if the blob was here.
    pub from: Vec<Contribution>,
    /// Providers that were tried and given up.
    pub given_up: Vec<ProviderFailure>,
}

/// What one provider gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contribution {
    /// The provider.
    pub node: NodeId,
    /// Content it sent, verified or not.
    pub bytes: u64,
}

impl Store {
    /// Takes a blob from the first providers that have it, unless it is here.
    ///
    /// Providers beyond [`PROVIDERS_MAX`] are ignored. Callers who want the same blob at the same time share one fetch.
    pub async fn fetch(
        &self,
        endpoint: &Endpoint,
        hash: BlobHash,
        providers: &[EndpointAddr],
        limits: FetchLimits,
    ) -> Result<Fetched, StoreError> {
        let FetchLimits { bytes_max, wall_ms_max } = limits;
        let bytes_max = bytes_max.min(self.inner.options.blob_bytes_max);
        let providers = distinct(providers);
        let terms = Terms { providers: providers.iter().map(|provider| provider.id).collect(), bytes_max };
        let deadline = tokio::time::Instant::now() + Duration::from_millis(wall_ms_max.min(FETCH_MS_MAX));
        loop {
            self.check_open(STAGE)?;
            let here = self.index().complete_len(&hash);
            if let Some(len) = here {
                check_len(len, bytes_max)?;
                self.index().touch(&hash);
                return Ok(Fetched { len, bytes_moved: 0, from: Vec::new(), given_up: Vec::new() });
            }
            let mut boarding = self.inner.flights.board(hash, &terms);
            let flight = boarding.flight;
            if boarding.leads {
                let job = Job::new(self, endpoint, hash, providers.clone(), bytes_max, &flight);
                tokio::spawn(fly(job, flight.clone()));
            }
            let outcome = tokio::time::timeout_at(deadline, boarding.outcome.wait_for(Option::is_some)).await;
            let outcome = match outcome {
                Err(_) => return Err(StoreError::FetchTimedOut { hash, wall_ms_max, providers: flight.given_up() }),
                Ok(Err(gone)) => return Err(StoreError::backend(STAGE, gone)),
                Ok(Ok(outcome)) => outcome.clone(),
            };
            match outcome {
                Some(Ok(fetched)) => return check_len(fetched.len, bytes_max).map(|()| fetched),
                Some(Err(error)) if boarding.leads || flight.terms.cover(&terms) => return Err(error),
                // Somebody else's fetch failed, on narrower terms than ours.
                Some(Err(_)) | None => {}
            }
        }
    }
}

async fn fly(job: Arc<Job>, flight: Flight) {
    let (store, hash) = (job.store.clone(), job.hash);
    let settle = async || {
        if let Err(error) = store.settle(STAGE, hash).await {
            tracing::warn!(%hash, %error, "the books may be wrong about this blob until the next open");
        }
        store.save_recency_sometimes().await;
    };
    store.inner.flights.fly(hash, flight, job.run(), settle).await;
}

pub(super) fn check_len(bytes: u64, bytes_max: u64) -> Result<(), StoreError> {
    if bytes > bytes_max {
        let advice = "allow more";
        return Err(StoreError::TooLarge { stage: STAGE, bytes, bytes_max, advice });
    }
    Ok(())
}

fn distinct(providers: &[EndpointAddr]) -> Vec<EndpointAddr> {
    let mut seen = BTreeSet::new();
    providers.iter().filter(|provider| seen.insert(provider.id)).take(PROVIDERS_MAX).cloned().collect()
}
