//! Shares with their bounds, and percentiles.

use serde::Serialize;

/// How often something happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Share {
    /// Times that it happened.
    pub events: u64,
    /// Times that it could have.
    pub of: u64,
}

impl Share {
    /// The share itself.
    pub fn value(&self) -> f64 {
        if self.of == 0 { 0.0 } else { self.events as f64 / self.of as f64 }
    }

    /// The share that is exceeded with a chance of 5 % at most, were each time for itself: none in N is 3/N. Lies come in
    /// bursts, so over several seeds their spread tells more.
    pub fn bound_95(&self) -> f64 {
        if self.of == 0 { 1.0 } else { (poisson_bound_95(self.events) / self.of as f64).min(1.0) }
    }

    /// Both of two.
    pub fn and(self, other: Self) -> Self {
        Self { events: self.events + other.events, of: self.of + other.of }
    }
}

/// The mean under which so few events or fewer have a chance of 5 %.
fn poisson_bound_95(events: u64) -> f64 {
    let (mut least, mut most) = (events as f64, events as f64 + 10.0 + 4.0 * (events as f64).sqrt());
    for _ in 0..60 {
        let middle = f64::midpoint(least, most);
        if chance_of_at_most(events, middle) > 0.05 { least = middle } else { most = middle }
    }
    most
}

/// Chance of `events` or fewer where `mean` are expected.
fn chance_of_at_most(events: u64, mean: f64) -> f64 {
    let mut log_term = -mean;
    let mut sum = log_term.exp();
    for event in 1..=events {
        log_term += (mean / event as f64).ln();
        sum += log_term.exp();
    }
    sum
}

/// Where a measure lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// Half are below.
    pub p50: u64,
    /// One in a hundred is above.
    pub p99: u64,
    /// None is above.
    pub max: u64,
}

impl Percentiles {
    /// Of these values.
    pub fn of(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        let at = |percent: usize| values.get((values.len() * percent / 100).min(values.len().saturating_sub(1)));
        let [p50, p99, max] = [50, 99, 100].map(|percent| at(percent).copied().unwrap_or(0));
        Self { p50, p99, max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_three_in_n_without_events_and_near_the_share_with_many() {
        let bound = |events, of| Share { events, of }.bound_95();
        assert!((bound(0, 10_000) - 2.9957e-4).abs() < 1e-7);
        assert!((bound(1, 10_000) - 4.7439e-4).abs() < 1e-7);
        assert!((bound(10, 1_000) - 16.962e-3).abs() < 1e-5);
        assert!((1.05e-2..1.06e-2).contains(&bound(1_000, 100_000)));
        assert_eq!((bound(0, 0), bound(5, 5)), (1.0, 1.0));
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let all = Percentiles::of((1..=200).rev().collect());
        assert_eq!(all, Percentiles { p50: 101, p99: 199, max: 200 });
        assert_eq!(Percentiles::of(Vec::new()), Percentiles::default());
    }
}
