//! Times of alternatives that are run in turn, and one table.

use std::time::Duration;

/// Runs each of the alternatives in turn, `rounds` times, so that a machine that drifts drifts for all of them; gives the
/// sorted times of each.
pub fn interleaved<const N: usize>(
    rounds: usize,
    mut alternatives: [&mut dyn FnMut() -> Duration; N],
) -> [Vec<Duration>; N] {
    let mut times: [Vec<Duration>; N] = std::array::from_fn(|_| Vec::with_capacity(rounds));
    for _ in 0..rounds {
        for (alternative, times) in alternatives.iter_mut().zip(&mut times) {
            times.push(alternative());
        }
    }
    times.iter_mut().for_each(|times| times.sort_unstable());
    times
}

/// The value below which `per_mille` of a sorted list lies.
///
/// # Panics
/// When there are no times.
pub fn quantile(sorted: &[Duration], per_mille: usize) -> Duration {
    sorted[(sorted.len() - 1) * per_mille / 1000]
}

/// Microseconds with one decimal.
pub fn us(time: Duration) -> String {
    format!("{:.1} us", time.as_secs_f64() * 1e6)
}

/// Prints rows in aligned columns, the first row as the heading.
pub fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for (index, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).enumerate();
        let line: Vec<String> = cells
            .map(
                |(column, (cell, width))| {
                    if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        println!("{}", line.join("  ").trim_end());
        if index == 0 {
            println!("{}", "-".repeat(widths.iter().sum::<usize>() + 2 * (columns - 1)));
        }
    }
}
