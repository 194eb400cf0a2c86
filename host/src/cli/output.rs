//! What people and programs read: tables, JSON, and times in words.

use std::io::{self, Write};

use registry::id::JobId;
use serde::Serialize;

use super::CliError;
use crate::net::wire;

/// Hexadecimal digits of a job's id in a table: enough to name it again.
const JOB_DIGITS: usize = 12;

/// Writes a line to standard output.
pub(crate) fn line(text: &str) -> Result<(), CliError> {
    Ok(writeln!(io::stdout(), "{text}")?)
}

/// Writes a line to standard error, for people.
pub(crate) fn note(text: &str) {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes one JSON value to standard output.
pub(crate) fn json(value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
    line(&text)
}

/// Lines up columns; a column whose cells all begin with a digit is aligned to the right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> Result<(), CliError> {
    line(render(head, rows).trim_end())
}

fn render(head: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |row: &[String], column: usize| row.get(column).cloned().unwrap_or_default();
    let is_number = |text: &String| text.is_empty() || text == "-" || text.starts_with(|c: char| c.is_ascii_digit());
    let is_right = |column| {
        let mut cells = rows.iter().map(|row| cell(row, column));
        !head[column].is_empty() && !rows.is_empty() && column > 0 && cells.all(|text| is_number(&text))
    };
    let columns: Vec<(usize, bool)> = (0..head.len())
        .map(|column| {
            let widest = rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0);
            (widest.max(head[column].chars().count()), is_right(column))
        })
        .collect();
    let head: Vec<String> = head.iter().map(|text| text.to_uppercase()).collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let cells: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(column, &(width, right))| {
                let text = cell(row, column);
                if right { format!("{text:>width$}") } else { format!("{text:<width$}") }
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// The beginning of a job's id.
pub(crate) fn short(id: JobId) -> String {
    id.to_string().chars().take(JOB_DIGITS).collect()
}

/// A span of time in words.
pub(crate) fn span_ms(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..100_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        100_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

/// A length in words.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1000),
        10_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

/// Text that a guest or a stranger wrote, for one line of a terminal.
pub(crate) fn shown(text: &str) -> String {
    wire::one_line(&text.chars().take(200).collect::<String>())
}

/// The same for a text of ours that may quote one of theirs, in full.
pub(crate) fn escaped(text: &str) -> String {
    text.chars().flat_map(wire::shown_char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_line_up_left_and_numbers_right() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let text = render(&["job", "shards", "phase"], &[row(["ab", "9", "done"]), row(["abcdef", "1000", ""])]);
        assert_eq!(text, "JOB     SHARDS  PHASE\nab           9  done\nabcdef    1000\n");
    }

    #[test]
    fn a_table_without_rows_is_its_head() {
        assert_eq!(render(&["job", "phase"], &[]), "JOB  PHASE\n");
    }

    #[test]
    fn times_are_told_in_the_unit_that_suits_them() {
        assert_eq!(
            [0, 999, 1_500, 150_000, 7_200_000, 172_800_000].map(span_ms),
            ["0 ms", "999 ms", "1.5 s", "2 min", "2 h", "2 d"]
        );
    }

    #[test]
    fn what_a_guest_wrote_cannot_steer_the_terminal() {
        assert_eq!(shown("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }
}
