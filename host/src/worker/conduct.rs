//! Whether a host is honest. A test aid: the demo and the tests show that a liar is caught.

use bytes::Bytes;

use crate::sandbox::Finished;

/// What a host does with its results before it signs them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Conduct {
    /// Nothing.
    #[default]
    Honest,
    /// Alters the output, hashes it anew, and signs that. The same work gives the same lie.
    Liar,
}

impl Conduct {
    /// The result as the host will sign it.
    pub(super) fn apply(self, finished: Finished) -> Finished {
        match self {
            Self::Honest => finished,
            Self::Liar => Finished { stdout: altered(&finished.stdout), ..finished },
        }
    }
}

/// Each digit becomes the next one; output without digits grows by a byte.
fn altered(stdout: &[u8]) -> Bytes {
    let mut bytes: Vec<u8> = stdout.to_vec();
    let digits: Vec<&mut u8> = bytes.iter_mut().filter(|byte| byte.is_ascii_digit()).collect();
    if digits.is_empty() {
        bytes.push(b'1');
    } else {
        digits.into_iter().for_each(|digit| *digit = b'0' + (*digit - b'0' + 1) % 10);
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lie_is_always_another_output() {
        for (truth, lie) in [("", "1"), ("abc", "abc1"), ("7 9\n", "8 0\n")] {
            assert_eq!(altered(truth.as_bytes()), lie);
        }
    }
}
