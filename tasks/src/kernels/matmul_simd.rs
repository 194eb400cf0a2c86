//! Product of two 256 x 256 matrices of f32, `n` times, four columns a vector.
//!
//! The same source is vectors on both sides: lanes of four are what wasm has and what any x86-64 has. Tiles of two rows
//! and eight columns keep their sums in registers.

use super::matmul_scalar::{SIDE, repeat};

const LANES: usize = 4;
const TILE_ROWS: usize = 2;
const TILE_VECTORS: usize = 2;
const TILE_COLUMNS: usize = TILE_VECTORS * LANES;

pub(super) fn run(n: u32) -> u64 {
    repeat(n, multiply)
}

fn multiply(left: &[f32], right: &[f32], product: &mut [f32]) {
    let rows = left.chunks_exact(TILE_ROWS * SIDE).zip(product.chunks_exact_mut(TILE_ROWS * SIDE));
    for (left, product) in rows {
        let (first, second) = left.split_at(SIDE);
        for column in (0..SIDE).step_by(TILE_COLUMNS) {
            let sums = tile(first, second, right, column);
            for (sums, row) in sums.as_flattened().chunks_exact(TILE_VECTORS).zip(product.chunks_exact_mut(SIDE)) {
                row[column..column + TILE_COLUMNS].copy_from_slice(sums.as_flattened());
            }
        }
    }
}

/// The sums of two rows and eight columns.
fn tile(first: &[f32], second: &[f32], right: &[f32], column: usize) -> [[[f32; LANES]; TILE_VECTORS]; TILE_ROWS] {
    let mut sums = [[[0.0; LANES]; TILE_VECTORS]; TILE_ROWS];
    for ((first, second), right) in first.iter().zip(second).zip(right.chunks_exact(SIDE)) {
        let (vectors, _) = right[column..column + TILE_COLUMNS].as_chunks::<LANES>();
        for (row, left) in sums.iter_mut().zip([first, second]) {
            for (sum, vector) in row.iter_mut().zip(vectors) {
                for (sum, value) in sum.iter_mut().zip(vector) {
                    *sum += left * value;
                }
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_have_the_same_product_to_the_bit() {
        super::super::matmul_scalar::tests::doubles(multiply);
        assert_eq!(run(2), super::super::matmul_scalar::run(2));
    }
}
