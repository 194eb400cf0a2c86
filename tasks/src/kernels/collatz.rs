//! Steps of the Collatz sequences that start below `n` times 2, at odd numbers.

pub(super) fn run(n: u32) -> u64 {
    (0..u64::from(n)).map(|start| steps(2 * start + 1)).sum()
}

fn steps(mut number: u64) -> u64 {
    let mut steps = 0;
    while number != 1 {
        number = if number.is_multiple_of(2) { number / 2 } else { 3 * number + 1 };
        steps += 1;
    }
    steps
}

#[cfg(test)]
mod tests {
    #[test]
    fn twenty_seven_takes_111_steps() {
        assert_eq!(super::steps(27), 111);
    }
}
