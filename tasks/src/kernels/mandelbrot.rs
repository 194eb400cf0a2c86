//! The Mandelbrot set on `n` by `n` points, up to 200 steps each.

use super::mix;

const STEPS_MAX: u32 = 200;

pub(super) fn run(n: u32) -> u64 {
    let pixel = 3.0 / f64::from(n);
    let mut sum = 0;
    for row in 0..n {
        for column in 0..n {
            let (steps, distance) = leave(f64::from(column) * pixel - 2.25, f64::from(row) * pixel - 1.5);
            sum = mix(sum, distance.to_bits() ^ u64::from(steps));
        }
    }
    sum
}

/// Steps until the point passes distance 2, and its squared distance then; 0 when it stays.
fn leave(cx: f64, cy: f64) -> (u32, f64) {
    let (mut x, mut y) = (0.0, 0.0);
    for step in 0..STEPS_MAX {
        let (xx, yy) = (x * x, y * y);
        if xx + yy > 4.0 {
            return (step, xx + yy);
        }
        (x, y) = (xx - yy + cx, 2.0 * x * y + cy);
    }
    (STEPS_MAX, 0.0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_origin_stays_and_a_corner_leaves() {
        assert_eq!(super::leave(0.0, 0.0), (200, 0.0));
        assert!(super::leave(-2.25, -1.5).0 < 3);
    }
}
