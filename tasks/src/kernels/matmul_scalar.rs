//! Product of two 256 x 256 matrices of f32, `n` times, by rows and columns: each sum waits for the one before it.
//!
//! Floats may not be added in another order, so no compiler makes vectors of it.

use super::{Numbers, mix};

pub(super) const SIDE: usize = 256;

pub(super) fn run(n: u32) -> u64 {
    repeat(n, multiply)
}

/// Multiplies `n` times, each time with the last product's values, brought back to below 1, on the left.
pub(super) fn repeat(n: u32, multiply: fn(&[f32], &[f32], &mut [f32])) -> u64 {
    let mut numbers = Numbers::new(SIDE as u64);
    let mut matrix = || -> Vec<f32> { (0..SIDE * SIDE).map(|_| numbers.unit() as f32).collect() };
    let (mut left, right) = (matrix(), matrix());
    let mut product = vec![0.0; SIDE * SIDE];
    for _ in 0..n {
        multiply(&left, &right, &mut product);
        for (left, product) in left.iter_mut().zip(&product) {
            *left = product / SIDE as f32;
        }
    }
    product.iter().fold(n.into(), |sum, value| mix(sum, value.to_bits().into()))
}

fn multiply(left: &[f32], right: &[f32], product: &mut [f32]) {
    for (left, product) in left.chunks_exact(SIDE).zip(product.chunks_exact_mut(SIDE)) {
        for (column, value) in product.iter_mut().enumerate() {
            let mut sum = 0.0;
            for (left, right) in left.iter().zip(right.chunks_exact(SIDE)) {
                sum += left * right[column];
            }
            *value = sum;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Multiplies two matrices whose product is known: rows of `k` times the identity doubled.
    pub(in super::super) fn doubles(multiply: fn(&[f32], &[f32], &mut [f32])) {
        let left: Vec<f32> = (0..SIDE * SIDE).map(|at| at as f32).collect();
        let twice = |at: usize| if at / SIDE == at % SIDE { 2.0 } else { 0.0 };
        let right: Vec<f32> = (0..SIDE * SIDE).map(twice).collect();
        let mut product = vec![f32::NAN; SIDE * SIDE];
        multiply(&left, &right, &mut product);
        assert!(product.iter().zip(&left).all(|(product, left)| *product == 2.0 * left));
    }

    #[test]
    fn a_doubled_identity_doubles() {
        doubles(multiply);
    }
}
