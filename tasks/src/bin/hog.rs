//! Takes memory until there is none: what the memory limit is for.
//!
//! A refused `memory.grow` ends in the allocator's abort, which is a trap.

/// Small beside any limit, so that the hog comes close to it.
const STEP_BYTES: usize = 1 << 20;

fn main() {
    let mut kept = Vec::new();
    loop {
        // Not zero: each page is really written to.
        kept.push(std::hint::black_box(vec![1u8; STEP_BYTES]));
    }
}
