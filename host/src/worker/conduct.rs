//! Whether a host is honest. A test aid: the demo and the tests show that a liar is caught.

use bytes::Bytes;
use registry::id::NodeId;

use crate::sandbox::Finished;

/// What a host does with its results before it signs them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Conduct {
    /// Nothing.
    #[default]
    Honest,
    /// Alters the output, hashes it anew, and signs that. The same work gives the same lie; two liars, who do not know of
    /// each other, give two.
    Liar,
}

impl Conduct {
    /// The result as the host will sign it.
    pub(super) fn apply(self, finished: Finished, node: NodeId) -> Finished {
        match self {
            Self::Honest => finished,
            Self::Liar => Finished { stdout: altered(&finished.stdout, node), ..finished },
        }
    }
}

/// Each digit becomes another one, which one is the host's own; output without digits grows by bytes of its own.
fn altered(stdout: &[u8], node: NodeId) -> Bytes {
    let mut own = blake3::Hasher::new().update(node.as_bytes()).update(stdout).finalize_xof();
    let mut next = || {
        let mut byte = [0];
        own.fill(&mut byte);
        byte[0]
    };
    let mut bytes: Vec<u8> = stdout.to_vec();
    if bytes.iter().any(u8::is_ascii_digit) {
        let digits = bytes.iter_mut().filter(|byte| byte.is_ascii_digit());
        digits.for_each(|digit| *digit = b'0' + (*digit - b'0' + 1 + next() % 9) % 10);
    } else {
        bytes.extend((0..8).map(|_| next()));
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lie_is_always_another_output_and_each_liar_has_its_own() {
        for truth in ["", "abc", "7 9 1 4 2 8 8 1\n"] {
            let lies = [1, 1, 2].map(|node| altered(truth.as_bytes(), NodeId([node; 32])));
            assert!(lies.iter().all(|lie| lie != truth), "{truth}");
            assert_eq!(lies[0], lies[1]);
            assert_ne!(lies[0], lies[2]);
        }
    }
}
