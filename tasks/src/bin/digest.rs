//! Hashes its input: the example of hashing by the host.
//!
//! Out: two lines, `blake3 HEX` and `sha256 HEX`.

use std::{convert::Infallible, fmt::Write as _};

use guest_sdk::{Exit, hash};

fn main() -> Exit {
    guest_sdk::text(|text| Ok::<_, Infallible>(digests(text.as_bytes())))
}

fn digests(message: &[u8]) -> String {
    let mut lines = String::new();
    for (name, digest) in [("blake3", hash::blake3(message)), ("sha256", hash::sha256(message))] {
        lines.push_str(name);
        lines.push(' ');
        for byte in digest {
            // A String takes all that is written to it.
            let _ = write!(lines, "{byte:02x}");
        }
        lines.push('\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_digests_are_those_of_the_standards() {
        assert_eq!(
            super::digests(b"abc"),
            "blake3 6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85\n\
             sha256 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n"
        );
    }
}
