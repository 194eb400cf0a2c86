//! The simulator's randomness: one seed decides a run, and every machine draws the same from it.

/// A stream of numbers (SplitMix64): small, and each stream forks into others that do not disturb it.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own for one concern, so that what one concern draws does not shift the others.
    pub(super) fn fork(&self, concern: u64) -> Self {
        let mut seed = Self(self.0 ^ concern.wrapping_mul(0xd6e8_feb8_6659_fd93));
        Self(seed.next())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, or 0 where there is none.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(bound);
        (wide >> 64) as u64
    }

    /// A number from `least` to `most`.
    pub(super) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most.saturating_sub(least) + 1)
    }

    /// Whether something of such a chance, in parts per million, happens.
    pub(super) fn happens(&mut self, chance_ppm: u32) -> bool {
        chance_ppm > 0 && self.below(1_000_000) < u64::from(chance_ppm)
    }
}

/// A number that tells nothing of the one that it comes from.
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_even_and_the_same_for_the_same_seed() {
        let mut random = Random::new(7);
        let hits = (0..100_000).filter(|_| random.happens(20_000)).count();
        // Five standard deviations around 2,000.
        assert!((1_779..=2_221).contains(&hits), "{hits}");
        let mut counts = [0; 7];
        (0..70_000).for_each(|_| counts[random.below(7) as usize] += 1);
        assert!(counts.iter().all(|count| (9_500..=10_500).contains(count)), "{counts:?}");
        let (mut one, mut same) = (Random::new(3).fork(1), Random::new(3).fork(1));
        assert!((0..100).all(|_| one.next() == same.next()));
        assert_ne!(Random::new(3).fork(2).next(), Random::new(3).fork(1).next());
        assert_eq!((random.below(0), random.between(5, 5)), (0, 5));
    }
}
