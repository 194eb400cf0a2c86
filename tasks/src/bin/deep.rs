//! Recurses without end: what the stack limit is for.

use std::hint::black_box;

fn main() {
    black_box(descend(black_box(0)));
}

/// Uses its result after the call, so that the call is no jump.
#[allow(unconditional_recursion, reason = "the point of this task")]
fn descend(depth: u64) -> u64 {
    black_box(descend(black_box(depth + 1))).wrapping_add(depth)
}
