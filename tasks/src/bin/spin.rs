//! Never ends: what fuel and deadlines are for.

fn main() {
    let mut turns = 0u64;
    loop {
        // Opaque to the compiler, so that the loop has a body that burns fuel.
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}
