//! Counts the tokens of a made-up program text of 64 KiB, `n` times: a hand-written machine of states.

use super::{Numbers, mix};

const BYTES: usize = 64 << 10;

#[derive(Clone, Copy, PartialEq)]
enum State {
    Between,
    Word,
    Number,
    Text,
    Escape,
    Comment,
}

#[derive(Debug, Default, PartialEq)]
struct Counts {
    words: u32,
    numbers: u32,
    texts: u32,
    comments: u32,
    signs: u32,
    lines: u32,
}

pub(super) fn run(n: u32) -> u64 {
    let mut text = text();
    (0..n).fold(0, |sum, round| {
        // Another text each time, so that no round's work can be taken from the one before.
        text[round as usize % BYTES] = b'x';
        let Counts { words, numbers, texts, comments, signs, lines } = count(&text);
        [words, numbers, texts, comments, signs, lines].iter().fold(sum, |sum, count| mix(sum, (*count).into()))
    })
}

fn text() -> Vec<u8> {
    const PIECES: [&str; 16] = [
        "total ",
        "x",
        " = ",
        "12",
        "3.25 ",
        "\"text\"",
        "\"a \\\" b\"",
        "(",
        ") ",
        "; ",
        "\n",
        "# note\n",
        "while ",
        "+",
        "longer_name_2 ",
        " ",
    ];
    let mut numbers = Numbers::new(6);
    let mut text = Vec::with_capacity(BYTES + 16);
    while text.len() < BYTES {
        text.extend(PIECES[numbers.below(16) as usize].as_bytes());
    }
    text.truncate(BYTES);
    text
}

fn count(text: &[u8]) -> Counts {
    let mut counts = Counts::default();
    let mut state = State::Between;
    for &byte in text {
        if byte == b'\n' {
            counts.lines += 1;
        }
        state = match state {
            State::Text if byte == b'\\' => State::Escape,
            State::Text if byte == b'"' => State::Between,
            State::Text | State::Escape => State::Text,
            State::Comment if byte != b'\n' => State::Comment,
            State::Word if byte.is_ascii_alphanumeric() || byte == b'_' => State::Word,
            State::Number if byte.is_ascii_digit() || byte == b'.' => State::Number,
            _ => start(byte, &mut counts),
        };
    }
    counts
}

/// Begins the next token.
fn start(byte: u8, counts: &mut Counts) -> State {
    let (count, state) = match byte {
        b' ' | b'\n' | b'\t' => return State::Between,
        b'a'..=b'z' | b'A'..=b'Z' | b'_' => (&mut counts.words, State::Word),
        b'0'..=b'9' => (&mut counts.numbers, State::Number),
        b'"' => (&mut counts.texts, State::Text),
        b'#' => (&mut counts.comments, State::Comment),
        _ => (&mut counts.signs, State::Between),
    };
    *count += 1;
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_told_apart() {
        let counts = count(b"a_1 = 3.5 + \"b \\\" 7\"; # c 9\nd");
        assert_eq!(counts, Counts { words: 2, numbers: 1, texts: 1, comments: 1, signs: 3, lines: 1 });
    }
}
