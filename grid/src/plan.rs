//! Cuts a job's input into shards: one for each input, lines, records of about a size, or ranges as listed.
//!
//! The input streams through a [`Cutter`], which hashes as it goes and keeps no bytes, so that an input larger than
//! memory is planned in one pass. Whatever the split: shards lie end to end, in order, and cover the input exactly. An
//! empty input is one empty shard, so that the module runs once.

use registry::{
    id::BlobHash,
    job::{SHARDS_MAX, Split},
};

use crate::flow::{Plan, PlannedShard, Slice};

/// Why an input cannot be cut as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Too many shards.
    #[error("split gives more than {SHARDS_MAX} shards: ask for more lines or bytes a shard")]
    TooMany,
    /// Ranges are not end to end.
    #[error(
        "range {index} starts at byte {start}, where byte {expected} comes next: list ranges in order, without gaps or overlaps"
    )]
    Gap {
        /// Which range, from 0.
        index: usize,
        /// As listed.
        start: u64,
        /// Where the one before ends.
        expected: u64,
    },
    /// A range is empty or backwards.
    #[error("range {index} ends at byte {end}, not after its start {start}")]
    Backwards {
        /// Which range, from 0.
        index: usize,
        /// As listed.
        start: u64,
        /// As listed.
        end: u64,
    },
    /// Ranges and input differ in length.
    #[error("ranges cover {covered} bytes but the input has {bytes}: cover it exactly")]
    Length {
        /// End of the last range.
        covered: u64,
        /// Length of the input.
        bytes: u64,
    },
}

/// Cuts one input that streams through it.
#[derive(Debug)]
pub struct Cutter<'a> {
    blob: Option<BlobHash>,
    rule: &'a Split,
    shards: Vec<PlannedShard>,
    start: u64,
    at: u64,
    lines: u64,
    hasher: blake3::Hasher,
}

impl<'a> Cutter<'a> {
    /// A cutter for the input that `blob` names, or for an inline input.
    ///
    /// # Errors
    /// When explicit ranges are not end to end.
    pub fn new(rule: &'a Split, blob: Option<BlobHash>) -> Result<Self, PlanError> {
        if let Split::Ranges(ranges) = rule {
            let mut expected = 0;
            for (index, &(start, end)) in ranges.iter().enumerate() {
                if start != expected {
                    return Err(PlanError::Gap { index, start, expected });
                }
                if end <= start {
                    return Err(PlanError::Backwards { index, start, end });
                }
                expected = end;
            }
        }
        Ok(Self { blob, rule, shards: Vec::new(), start: 0, at: 0, lines: 0, hasher: blake3::Hasher::new() })
    }

    /// Takes the next bytes of the input, however they are chunked.
    ///
    /// # Errors
    /// When the shards become too many, or ranges end before the input does.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), PlanError> {
        while !bytes.is_empty() {
            let (length, ends) = self.next_cut(bytes)?;
            let (head, tail) = bytes.split_at(length);
            self.hasher.update(head);
            self.at += length as u64;
            if ends {
                self.cut()?;
            }
            bytes = tail;
        }
        Ok(())
    }

    /// The plan, once the input has ended.
    ///
    /// # Errors
    /// When ranges go on after the input.
    pub fn finish(mut self) -> Result<Plan, PlanError> {
        if let Split::Ranges(ranges) = self.rule {
            let covered = ranges.last().map_or(0, |range| range.1);
            if covered != self.at {
                return Err(PlanError::Length { covered, bytes: self.at });
            }
        }
        if self.start < self.at || self.shards.is_empty() {
            self.cut()?;
        }
        Ok(Plan { shards: self.shards })
    }

    /// How many of `bytes` still belong to the current shard, and whether it ends with them.
    fn next_cut(&mut self, bytes: &[u8]) -> Result<(usize, bool), PlanError> {
        let all = Ok((bytes.len(), false));
        match self.rule {
            Split::Each => all,
            Split::Lines(lines) => {
                for (index, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
                    self.lines += 1;
                    if self.lines == *lines {
                        return Ok((index + 1, true));
                    }
                }
                all
            }
            Split::Records { bytes: aim, delimiter } => {
                // The first byte whose delimiter would fill the shard.
                let from = aim.saturating_sub(self.at - self.start + 1).min(bytes.len() as u64) as usize;
                let found = bytes[from..].iter().position(|byte| byte == delimiter);
                Ok(found.map_or((bytes.len(), false), |index| (from + index + 1, true)))
            }
            Split::Ranges(ranges) => {
                let Some(&(_, end)) = ranges.get(self.shards.len()) else {
                    return Err(PlanError::Length { covered: self.at, bytes: self.at + bytes.len() as u64 });
                };
                let left = end - self.at;
                Ok(if left <= bytes.len() as u64 { (left as usize, true) } else { (bytes.len(), false) })
            }
        }
    }

    fn cut(&mut self) -> Result<(), PlanError> {
        if self.shards.len() == SHARDS_MAX {
            return Err(PlanError::TooMany);
        }
        let slice = Slice { blob: self.blob, start: self.start, end: self.at };
        self.shards.push(PlannedShard { slice, input: BlobHash(*self.hasher.finalize().as_bytes()) });
        self.hasher.reset();
        self.start = self.at;
        self.lines = 0;
        Ok(())
    }
}

/// The plan of a job over several blobs: one shard each. Their hashes are known, so nothing is read.
pub fn each(blobs: &[(BlobHash, u64)]) -> Plan {
    let shard = |&(blob, bytes): &(BlobHash, u64)| PlannedShard {
        slice: Slice { blob: Some(blob), start: 0, end: bytes },
        input: blob,
    };
    Plan { shards: blobs.iter().map(shard).collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(rule: &Split, input: &[u8], chunk: usize) -> Result<Plan, PlanError> {
        let mut cutter = Cutter::new(rule, None)?;
        for chunk in input.chunks(chunk) {
            cutter.push(chunk)?;
        }
        cutter.finish()
    }

    fn texts<'a>(plan: &Plan, input: &'a str) -> Vec<&'a str> {
        plan.shards.iter().map(|shard| &input[shard.slice.start as usize..shard.slice.end as usize]).collect()
    }

    #[test]
    fn lines_keep_their_ends_and_the_last_needs_none() {
        let input = "one\ntwo\nthree\nfour";
        assert_eq!(texts(&cut(&Split::Lines(2), input.as_bytes(), 3).unwrap(), input), ["one\ntwo\n", "three\nfour"]);
        let input = "one\ntwo\n";
        assert_eq!(texts(&cut(&Split::Lines(1), input.as_bytes(), 100).unwrap(), input), ["one\n", "two\n"]);
    }

    #[test]
    fn records_are_cut_at_the_first_delimiter_that_fills_the_shard() {
        let input = "aa,bb,cccccc,d,e,f";
        let plan = cut(&Split::Records { bytes: 5, delimiter: b',' }, input.as_bytes(), 2).unwrap();
        assert_eq!(texts(&plan, input), ["aa,bb,", "cccccc,", "d,e,f"]);
    }

    #[test]
    fn ranges_must_cover_the_input_exactly() {
        let cases: [(&[(u64, u64)], &str); 5] = [
            (&[(0, 3), (4, 6)], "range 1 starts at byte 4, where byte 3 comes next"),
            (&[(0, 3), (2, 6)], "range 1 starts at byte 2, where byte 3 comes next"),
            (&[(0, 0)], "range 0 ends at byte 0, not after its start 0"),
            (&[(0, 3)], "ranges cover 3 bytes but the input has 6"),
            (&[(0, 9)], "ranges cover 9 bytes but the input has 6"),
        ];
        for (ranges, expected) in cases {
            let refusal = cut(&Split::Ranges(ranges.to_vec()), b"abcdef", 100).unwrap_err().to_string();
            assert!(refusal.contains(expected), "{refusal}");
        }
        assert_eq!(texts(&cut(&Split::Ranges(vec![(0, 3), (3, 6)]), b"abcdef", 2).unwrap(), "abcdef"), ["abc", "def"]);
    }

    #[test]
    fn an_empty_input_is_one_empty_shard() {
        for rule in [Split::Each, Split::Lines(5), Split::Records { bytes: 5, delimiter: b'\n' }] {
            let plan = cut(&rule, b"", 1).unwrap();
            assert_eq!(plan.shards.len(), 1);
            assert_eq!(plan.shards[0].input, BlobHash::of(b""));
        }
    }

    fn rules() -> impl Strategy<Value = Split> {
        prop_oneof![
            Just(Split::Each),
            (1u64..6).prop_map(Split::Lines),
            (1u64..40, prop_oneof![Just(b'\n'), Just(b','), any::<u8>()])
                .prop_map(|(bytes, delimiter)| Split::Records { bytes, delimiter }),
        ]
    }

    proptest! {
        #[test]
        fn shards_lie_end_to_end_and_cover_the_input_whatever_the_chunks(
            rule in rules(),
            input in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b','), any::<u8>()], 0..400),
            chunk in 1usize..50,
        ) {
            let plan = cut(&rule, &input, chunk).unwrap();
            let mut at = 0;
            for shard in &plan.shards {
                prop_assert_eq!(shard.slice.start, at);
                let bytes = &input[shard.slice.start as usize..shard.slice.end as usize];
                prop_assert_eq!(shard.input, BlobHash::of(bytes));
                prop_assert!(!bytes.is_empty() || input.is_empty());
                at = shard.slice.end;
            }
            prop_assert_eq!(at, input.len() as u64);
            prop_assert_eq!(&plan, &cut(&rule, &input, 400).unwrap());
        }
    }
}
