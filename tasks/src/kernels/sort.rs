//! Sorts `n` 64-bit numbers without keeping the order of equals.

use super::{Numbers, mix};

pub(super) fn run(n: u32) -> u64 {
    let mut numbers = Numbers::new(64);
    let mut list: Vec<u64> = (0..n).map(|_| numbers.next()).collect();
    list.sort_unstable();
    list.iter().fold(0, |sum, number| mix(sum, *number))
}
