//! Finds four words in 1 MiB of made-up text, `n` times, by Horspool's rule.

use super::{Numbers, mix};

const BYTES: usize = 1 << 20;
const WORDS: [&[u8]; 4] = [b"quorum", b"the grid", b"of", b"nowhere to be found"];

pub(super) fn run(n: u32) -> u64 {
    let mut text = text();
    (0..n).fold(0, |sum, round| {
        text[round as usize % BYTES] = b'o';
        WORDS.iter().fold(sum, |sum, word| {
            let (count, last) = find_all(&text, word);
            mix(mix(sum, count), last as u64)
        })
    })
}

fn text() -> Vec<u8> {
    const PIECES: [&str; 16] = [
        "the ", "of ", "and ", "grid ", "quorum ", "host ", "a ", "result ", "to ", "found ", "in ", "where ", "no ",
        "member ", "vote ", "be ",
    ];
    let mut numbers = Numbers::new(12);
    let mut text = Vec::with_capacity(BYTES + 16);
    while text.len() < BYTES {
        text.extend(PIECES[numbers.below(16) as usize].as_bytes());
    }
    text.truncate(BYTES);
    text
}

/// How often the word occurs, overlaps included, and where last.
fn find_all(text: &[u8], word: &[u8]) -> (u64, usize) {
    let Some((last, before)) = word.split_last() else { return (0, 0) };
    // How far the word may move when this byte is under its end.
    let mut skip = [word.len(); 256];
    for (at, byte) in before.iter().enumerate() {
        skip[usize::from(*byte)] = before.len() - at;
    }
    let (mut count, mut found, mut end) = (0, 0, before.len());
    while let Some(byte) = text.get(end) {
        if byte == last && text[end - before.len()..end] == *before {
            count += 1;
            found = end - before.len();
        }
        end += skip[usize::from(*byte)];
    }
    (count, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_occurrence_is_found() {
        assert_eq!(find_all(b"aaaa", b"aa"), (3, 2));
        assert_eq!(find_all(b"the grid of the grid", b"grid"), (2, 16));
        assert_eq!(find_all(b"gri", b"grid"), (0, 0));
        let text = text();
        for word in WORDS {
            let naive = text.windows(word.len()).filter(|window| *window == word).count() as u64;
            assert_eq!(find_all(&text, word).0, naive);
        }
    }
}
