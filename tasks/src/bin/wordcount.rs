//! Counts words: the example of a map with a reduce.
//!
//! Map in: a slice of a text, cut between lines. Reduce in: the map outputs, one after another. Out, of both: one line
//! a word, `word count`, sorted by word. One output after another is again input to a reduce, so that reduces can be
//! stacked.
//!
//! A word is a run of letters and digits, with apostrophes inside it, in lower case.

use std::{collections::BTreeMap, fmt};

use guest_sdk::{Exit, Stage};

/// Counts by word: ordered, because the order reaches the output.
type Counts = BTreeMap<String, u64>;

#[derive(Debug, PartialEq)]
struct BadCount {
    line: usize,
    text: String,
}

fn main() -> Exit {
    guest_sdk::text(|input| match guest_sdk::stage() {
        Stage::Map => Ok(show(&count(input))),
        Stage::Reduce => sum(input).map(|counts| show(&counts)),
    })
}

/// The words of a text.
fn count(text: &str) -> Counts {
    let mut counts = Counts::new();
    for word in text.split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '’') {
        let word = word.trim_matches(['\'', '’']);
        if !word.is_empty() {
            *counts.entry(word.to_lowercase()).or_default() += 1;
        }
    }
    counts
}

/// The counts of many maps, added up.
fn sum(text: &str) -> Result<Counts, BadCount> {
    let mut counts = Counts::new();
    for (i, line) in text.lines().enumerate() {
        let bad = || BadCount { line: i + 1, text: line.to_owned() };
        let (word, count) = line.split_once(' ').ok_or_else(bad)?;
        let total = counts.entry(word.to_owned()).or_default();
        *total = count.parse().ok().and_then(|count| total.checked_add(count)).ok_or_else(bad)?;
    }
    Ok(counts)
}

fn show(counts: &Counts) -> String {
    counts.iter().map(|(word, count)| format!("{word} {count}\n")).collect()
}

impl fmt::Display for BadCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {:?} is not `word count`", self.line, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_has_letters_digits_and_inner_apostrophes() {
        let text = "'Tis now struck twelve; 'tis bitter cold -- tongue-tied, perform'd. Été 42\n";
        let words = "42 1\nbitter 1\ncold 1\nnow 1\nperform'd 1\nstruck 1\ntied 1\ntis 2\ntongue 1\ntwelve 1\nété 1\n";
        assert_eq!(show(&count(text)), words);
    }

    /// However the text is cut into shards, and however reduces are stacked, the counts are those of the whole.
    #[test]
    fn maps_and_reduces_give_the_counts_of_the_whole() {
        let text = String::from_utf8(tasks::data::HAMLET.to_vec()).unwrap();
        let whole = show(&count(&text));
        assert!(whole.contains("\nhamlet "), "{}", &whole[..200]);
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        for shard_lines in [1, 7, 1000, lines.len()] {
            let maps: Vec<String> = lines.chunks(shard_lines).map(|shard| show(&count(&shard.concat()))).collect();
            assert_eq!(show(&sum(&maps.concat()).unwrap()), whole, "shards of {shard_lines} lines");
            let halves: String =
                maps.chunks(maps.len().div_ceil(2)).map(|half| show(&sum(&half.concat()).unwrap())).collect();
            assert_eq!(show(&sum(&halves).unwrap()), whole, "shards of {shard_lines} lines, two reduces");
        }
    }

    #[test]
    fn a_line_that_is_no_count_is_named() {
        for line in ["word", "word many", "word -1", "word 18446744073709551616"] {
            assert_eq!(sum(&format!("a 1\n{line}\n")), Err(BadCount { line: 2, text: line.to_owned() }));
        }
        assert!(sum("a 18446744073709551615\na 1\n").is_err());
    }
}
