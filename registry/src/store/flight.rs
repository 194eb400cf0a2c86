//! Single flight: callers who want the same blob at the same time share one fetch.
//!
//! The fetch runs in a task of its own and goes on as long as anybody waits for it, whoever began it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use iroh::EndpointId;
use tokio::sync::watch;

use super::{error::StoreError, fault::ProviderFailure, fetch::Fetched};
use crate::id::BlobHash;

/// What a flight ends with.
pub(super) type Outcome = Result<Fetched, StoreError>;

/// What a flight asks of whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) providers: BTreeSet<EndpointId>,
    pub(super) bytes_max: u64,
}

impl Terms {
    /// Whether the failure of a flight on these terms answers for one on `other` terms.
    pub(super) fn cover(&self, other: &Self) -> bool {
        self.bytes_max >= other.bytes_max && self.providers.is_superset(&other.providers)
    }
}

/// The part of a flight that all who wait see.
#[derive(Clone)]
pub(super) struct Flight {
    outcome: Arc<watch::Sender<Option<Outcome>>>,
    pub(super) terms: Terms,
    /// Providers given up so far.
    pub(super) given_up: Arc<Mutex<Vec<ProviderFailure>>>,
}

impl Flight {
    /// Providers given up so far.
    pub(super) fn given_up(&self) -> Vec<ProviderFailure> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A caller's way in.
pub(super) struct Boarding {
    pub(super) flight: Flight,
    pub(super) outcome: watch::Receiver<Option<Outcome>>,
    /// Whether the caller has to start it.
    pub(super) leads: bool,
}

/// All flights under way.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<BlobHash, Flight>>);

impl Flights {
    /// Joins the flight for `hash`, or registers a new one.
    pub(super) fn board(&self, hash: BlobHash, terms: &Terms) -> Boarding {
        let mut flights = self.flights();
        let leads = !flights.contains_key(&hash);
        let flight = flights.entry(hash).or_insert_with(|| Flight {
            outcome: Arc::new(watch::Sender::new(None)),
            terms: terms.clone(),
            given_up: Arc::default(),
        });
        Boarding { outcome: flight.outcome.subscribe(), flight: flight.clone(), leads }
    }

    /// Runs `work` until it ends or nobody waits any more, then `settle`, and tells those who wait.
    pub(super) async fn fly(
        &self,
        hash: BlobHash,
        flight: Flight,
        work: impl Future<Output = Outcome>,
        settle: impl AsyncFnOnce(),
    ) {
        let landing = Landing { flights: self, hash };
        let outcome = {
            let mut work = std::pin::pin!(work);
            loop {
                tokio::select! {
                    outcome = &mut work => break Some(outcome),
                    () = flight.outcome.closed() => {
                        let mut flights = self.flights();
                        // Somebody may have boarded since.
                        if flight.outcome.receiver_count() == 0 {
                            flights.remove(&hash);
                            break None;
                        }
                    }
                }
            }
        };
        settle().await;
        drop(landing);
        flight.outcome.send_replace(outcome);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.flights().is_empty()
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<BlobHash, Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a flight off the board, even if its work panics.
struct Landing<'a> {
    flights: &'a Flights,
    hash: BlobHash,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.flights.flights().remove(&self.hash);
    }
}
