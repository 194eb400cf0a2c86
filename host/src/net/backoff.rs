//! How long to wait before the next attempt: doubling, with jitter, so that hosts that lost one coordinator do not come
//! back all at once.

use std::time::Duration;

/// Waits between attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    ms_min: u64,
    ms_max: u64,
    failures: u32,
}

impl Backoff {
    /// Waits from `ms_min` to `ms_max`.
    pub const fn new(ms_min: u64, ms_max: u64) -> Self {
        Self { ms_min, ms_max, failures: 0 }
    }

    /// The next wait: between half and all of `ms_min` doubled for each failure so far, at most `ms_max`.
    pub fn next(&mut self, random: u64) -> Duration {
        let doubled = self.ms_min.saturating_mul(1 << self.failures.min(20)).min(self.ms_max);
        self.failures = self.failures.saturating_add(1);
        let half = doubled / 2;
        Duration::from_millis(half + random % (doubled - half + 1))
    }

    /// An attempt succeeded: the next failure is the first.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_over() {
        let mut backoff = Backoff::new(100, 3_000);
        let waits: Vec<u128> = (0..8).map(|_| backoff.next(u64::MAX / 2).as_millis()).collect();
        assert!(
            waits.iter().zip([100, 200, 400, 800, 1600, 3000, 3000, 3000]).all(|(w, max)| *w >= max / 2 && *w <= max)
        );
        backoff.reset();
        assert!(backoff.next(7).as_millis() <= 100);
    }
}
