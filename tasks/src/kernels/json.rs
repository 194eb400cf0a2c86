//! Parses 64 KiB of JSON to a tree, `n` times: recursive descent, one function a kind of value.

use std::fmt::Write as _;

use super::{Numbers, mix};

const BYTES: usize = 64 << 10;
/// Deeper values are refused.
const DEPTH_MAX: u32 = 64;

#[derive(Debug, PartialEq)]
enum Value {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

pub(super) fn run(n: u32) -> u64 {
    let mut text = text();
    (0..n).fold(0, |sum, round| {
        // A number in the first value changes with the round.
        text.replace_range(1..2, ["0", "1", "2", "3"][round as usize % 4]);
        mix(sum, parse(&text).map_or(0, |value| checksum(&value)))
    })
}

/// A list of records.
fn text() -> String {
    let mut numbers = Numbers::new(404);
    let mut text = String::from("[0");
    while text.len() < BYTES {
        let id = numbers.below(1_000_000);
        let (price, share) = (numbers.unit() * 1000.0, numbers.unit());
        let name = ["Ada", "Gr\\u00e4fin", "O\\\"Neill", "a longer name with spaces"][numbers.below(4) as usize];
        let more = ["null", "true", "false", "[1,2,[3,[]]]", "{\"a\":{\"b\":-1}}"][numbers.below(5) as usize];
        // A String takes all that is written to it.
        let _ = write!(
            text,
            ", {{\"id\": {id}, \"name\": \"{name}\", \"price\": {price:.2}, \"share\": {share:e}, \"more\": {more}}}"
        );
    }
    text.push(']');
    text
}

fn checksum(value: &Value) -> u64 {
    let text = |text: &str| text.bytes().fold(text.len() as u64, |sum, byte| mix(sum, byte.into()));
    match value {
        Value::Null => 1,
        Value::Bool(value) => 2 + u64::from(*value),
        Value::Number(value) => mix(4, value.to_bits()),
        Value::Text(value) => mix(5, text(value)),
        Value::List(values) => values.iter().fold(6, |sum, value| mix(sum, checksum(value))),
        Value::Map(values) => values.iter().fold(7, |sum, (key, value)| mix(mix(sum, text(key)), checksum(value))),
    }
}

/// The value of a whole text; none when it is no JSON.
fn parse(text: &str) -> Option<Value> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    (reader.peek().is_none()).then_some(value)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(self.at) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn value(&mut self, depth: u32) -> Option<Value> {
        if depth > DEPTH_MAX {
            return None;
        }
        match self.peek()? {
            b'{' => self.map(depth),
            b'[' => self.list(depth),
            b'"' => self.string().map(Value::Text),
            b'n' => self.word("null", Value::Null),
            b't' => self.word("true", Value::Bool(true)),
            b'f' => self.word("false", Value::Bool(false)),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Option<Value> {
        self.text.get(self.at..)?.starts_with(word).then(|| {
            self.at += word.len();
            value
        })
    }

    fn number(&mut self) -> Option<Value> {
        let rest = self.text.get(self.at..)?;
        let is_part = |byte: u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let len = rest.bytes().position(|byte| !is_part(byte)).unwrap_or(rest.len());
        self.at += len;
        rest[..len].parse().ok().map(Value::Number)
    }

    fn list(&mut self, depth: u32) -> Option<Value> {
        let mut values = Vec::new();
        self.take(b'[')?;
        if self.peek()? != b']' {
            loop {
                values.push(self.value(depth + 1)?);
                if self.peek()? != b',' {
                    break;
                }
                self.take(b',')?;
            }
        }
        self.take(b']')?;
        Some(Value::List(values))
    }

    fn map(&mut self, depth: u32) -> Option<Value> {
        let mut values = Vec::new();
        self.take(b'{')?;
        if self.peek()? != b'}' {
            loop {
                self.peek()?;
                let key = self.string()?;
                self.take(b':')?;
                values.push((key, self.value(depth + 1)?));
                if self.peek()? != b',' {
                    break;
                }
                self.take(b',')?;
            }
        }
        self.take(b'}')?;
        Some(Value::Map(values))
    }

    fn string(&mut self) -> Option<String> {
        self.take(b'"')?;
        let mut string = String::new();
        loop {
            let rest = self.text.get(self.at..)?;
            let len = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\'))?;
            string.push_str(&rest[..len]);
            self.at += len + 1;
            if rest.as_bytes().get(len) == Some(&b'"') {
                return Some(string);
            }
            string.push(self.escape()?);
        }
    }

    /// What follows a backslash. Characters beyond 16 bits are not asked for.
    fn escape(&mut self) -> Option<char> {
        let byte = *self.text.as_bytes().get(self.at)?;
        self.at += 1;
        Some(match byte {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'"' | b'\\' | b'/' => char::from(byte),
            b'u' => {
                let digits = self.text.get(self.at..self.at + 4)?;
                self.at += 4;
                char::from_u32(u32::from_str_radix(digits, 16).ok()?)?
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_kind_are_read() {
        let value = parse(" {\"a\": [1, -2.5e1, true, null, []], \"\\u00e4\\n\": {\"b\": \"\\\"\"}} ").unwrap();
        let list = [Value::Number(1.0), Value::Number(-25.0), Value::Bool(true), Value::Null, Value::List(vec![])];
        let inner = Value::Map(vec![("b".to_owned(), Value::Text("\"".to_owned()))]);
        let expected = vec![("a".to_owned(), Value::List(list.into())), ("ä\n".to_owned(), inner)];
        assert_eq!(value, Value::Map(expected));
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in ["", "[1", "[1,]", "{\"a\" 1}", "nul", "1 2", "\"\\x\"", &"[".repeat(100)] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_text_is_json() {
        assert!(matches!(parse(&text()), Some(Value::List(values)) if values.len() > 400));
    }
}
