//! Rows for people and programs: one table, as CSV and as JSON. Amounts are whole micro-credits in both, so that nothing is
//! rounded on the way out; readers take them as 64-bit integers.

use std::fmt::Write;

use registry::credits::{Credits, Delta};

/// One field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// Nothing: an empty field in CSV, `null` in JSON.
    Empty,
    /// A number.
    Number(i128),
    /// A text.
    Text(String),
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Number(number.into())
    }
}

impl From<Credits> for Cell {
    fn from(amount: Credits) -> Self {
        amount.micro().into()
    }
}

impl From<Delta> for Cell {
    fn from(delta: Delta) -> Self {
        Self::Number(delta.micro().into())
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(cell: Option<T>) -> Self {
        cell.map_or(Self::Empty, Into::into)
    }
}

/// Rows of named columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Names of the columns.
    pub columns: Vec<&'static str>,
    /// Rows, each as long as there are columns.
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// As RFC 4180 has it, but that lines end as they do on Unix: a line of names, then one a row.
    pub fn csv(&self) -> String {
        let names: Vec<_> = self.columns.iter().map(|name| Cell::from(*name)).collect();
        let mut text = String::new();
        for row in std::iter::once(&names).chain(&self.rows) {
            let fields: Vec<_> = row.iter().map(csv_field).collect();
            text.push_str(&fields.join(","));
            text.push('\n');
        }
        text
    }

    /// An array with an object a row.
    pub fn json(&self) -> String {
        let named = |row: &Vec<Cell>| {
            let fields = self.columns.iter().zip(row).map(|(name, cell)| (*name, json_value(cell)));
            json_object(fields)
        };
        let rows: Vec<_> = self.rows.iter().map(named).collect();
        format!("[{}]", rows.join(","))
    }
}

/// An object of values that are JSON already.
pub(super) fn json_object(fields: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let fields: Vec<_> = fields.into_iter().map(|(name, value)| format!("{}:{value}", json_text(name))).collect();
    format!("{{{}}}", fields.join(","))
}

/// One field as JSON.
pub(super) fn json_value(cell: &Cell) -> String {
    match cell {
        Cell::Empty => "null".to_owned(),
        Cell::Number(number) => number.to_string(),
        Cell::Text(text) => json_text(text),
    }
}

fn csv_field(cell: &Cell) -> String {
    match cell {
        Cell::Empty => String::new(),
        Cell::Number(number) => number.to_string(),
        Cell::Text(text) if text.contains([',', '"', '\n', '\r']) => format!("\"{}\"", text.replace('"', "\"\"")),
        Cell::Text(text) => text.clone(),
    }
}

fn json_text(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            // Writing to a string does not fail.
            control if control < ' ' => drop(write!(quoted, "\\u{:04x}", u32::from(control))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_need_it_are_quoted() {
        let text = |text: &str| Cell::from(text);
        let table = Table {
            columns: vec!["what", "micro"],
            rows: vec![
                vec![text("plain"), Cell::Number(-5)],
                vec![text("a,b"), Cell::Empty],
                vec![text("say \"no\"\\\n"), Cell::Number(i128::from(u64::MAX))],
            ],
        };
        assert_eq!(table.csv(), "what,micro\nplain,-5\n\"a,b\",\n\"say \"\"no\"\"\\\n\",18446744073709551615\n");
        assert_eq!(
            table.json(),
            r#"[{"what":"plain","micro":-5},{"what":"a,b","micro":null},{"what":"say \"no\"\\\u000a","micro":18446744073709551615}]"#
        );
        let empty = Table { columns: vec!["what"], rows: vec![] };
        assert_eq!((empty.csv().as_str(), empty.json().as_str()), ("what\n", "[]"));
    }
}
