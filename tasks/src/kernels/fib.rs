//! The `n`-th Fibonacci number by its definition.

pub(super) fn run(n: u32) -> u64 {
    if n < 2 { n.into() } else { run(n - 1).wrapping_add(run(n - 2)) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_tenth_is_55() {
        assert_eq!(super::run(10), 55);
    }
}
