//! Counters and gauges over a closed set of words, and what both roles count of their blobs.

use prometheus::{Counter, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use registry::store::{StoreStats, Usage};

use super::register;

/// What a word counts as when it is not in its set.
pub(super) const OTHER: &str = "other";

/// A counter for each word of a closed set, and one for all other words. Counting looks at no lock.
#[derive(Clone)]
pub struct Words {
    words: &'static [&'static str],
    counters: Vec<IntCounter>,
    other: IntCounter,
}

impl Words {
    pub(super) fn new(
        registry: &Registry,
        name: &str,
        help: &str,
        label: &str,
        words: &'static [&'static str],
    ) -> Self {
        let family = register(registry, IntCounterVec::new(Opts::new(name, help), &[label]));
        let counters = words.iter().map(|word| family.with_label_values(&[word])).collect();
        Self { words, counters, other: family.with_label_values(&[OTHER]) }
    }

    /// Counts one.
    pub fn count(&self, word: &str) {
        self.of(word).inc();
    }

    /// Counts what somebody else counted: as many as there were since the last time.
    pub(super) fn set(&self, word: &str, total: u64) {
        let counter = self.of(word);
        counter.inc_by(total.saturating_sub(counter.get()));
    }

    fn of(&self, word: &str) -> &IntCounter {
        let known = self.words.iter().position(|known| *known == word).and_then(|index| self.counters.get(index));
        known.unwrap_or(&self.other)
    }

    /// Raises the counters, in the order of their words, to what somebody else has counted.
    pub(super) fn raise(&self, totals: &[u64]) {
        for (counter, total) in self.counters.iter().zip(totals) {
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }
}

pub(super) fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(name, help))
}

pub(super) fn seconds_counter(registry: &Registry, name: &str, help: &str) -> Counter {
    register(registry, Counter::new(name, help))
}

pub(super) fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(name, help))
}

/// A gauge holds `i64`; what is larger is shown as the largest.
pub(super) fn level(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// What the blob store holds and did.
#[derive(Clone)]
pub(super) struct BlobMetrics {
    blobs: IntGauge,
    bytes: IntGauge,
    pinned_bytes: IntGauge,
    totals: [IntCounter; 6],
}

impl BlobMetrics {
    pub(super) fn new(registry: &Registry, role: &str) -> Self {
        let name = |rest: &str| format!("quorate_{role}blobs{rest}");
        Self {
            blobs: gauge(registry, &name(""), "Blobs in the store, partial and referenced ones too."),
            bytes: gauge(registry, &name("_bytes"), "Bytes that count against the store's quota."),
            pinned_bytes: gauge(registry, &name("_pinned_bytes"), "Bytes that pins hold."),
            totals: [
                counter(registry, &name("_fetched_total"), "Blobs completed from other nodes."),
                counter(registry, &name("_fetched_bytes_total"), "Content received from other nodes in bytes."),
                counter(registry, &name("_served_total"), "Requests of other nodes answered to the end."),
                counter(registry, &name("_served_bytes_total"), "Content sent to other nodes in bytes."),
                counter(registry, &name("_evicted_total"), "Blobs deleted to make room."),
                counter(registry, &name("_evicted_bytes_total"), "Bytes deleted to make room."),
            ],
        }
    }

    pub(super) fn set(&self, usage: Usage, stats: StoreStats) {
        self.blobs.set(level(usage.blobs));
        self.bytes.set(level(usage.bytes));
        self.pinned_bytes.set(level(usage.pinned_bytes));
        let totals = [
            stats.blobs_fetched,
            stats.bytes_fetched,
            stats.requests_served,
            stats.bytes_served,
            stats.blobs_evicted,
            stats.bytes_evicted,
        ];
        for (counter, total) in self.totals.iter().zip(totals) {
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }
}
