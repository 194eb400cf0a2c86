//! The one canonical CBOR codec: a value has exactly one encoding, and anything else is refused.
//!
//! CBOR parsers accept many spellings of one value (long integers, indefinite lengths, unsorted or repeated keys). A hash
//! or a signature must not: so what was decoded must encode to the very bytes it came from. Before the parser sees
//! anything, [`decode`] checks the size and walks the structure once for depth and for false lengths.
//!
//! Rules for types that come through here: fields in declaration order, `BTreeMap` only, integers only (no floats), and
//! `deny_unknown_fields`. A type that is hashed or signed names its domain and version, e.g. `quorate/receipt/1`; a new
//! layout is a new version, never a silent change (`tests/golden.rs` holds the bytes).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, de::DeserializeOwned};

/// Room for most of what is hashed, which is done for each receipt several times.
const USUAL_BYTES: usize = 768;
/// Nesting that a value may have.
pub const DEPTH_MAX: usize = 32;

/// Why bytes are not a canonical value.
#[derive(Debug, thiserror::Error)]
pub enum CanonError {
    /// Longer than the reader allows.
    #[error("value of {bytes} bytes is over the bound of {bytes_max} bytes")]
    TooLong {
        /// Length received.
        bytes: usize,
        /// Length allowed.
        bytes_max: usize,
    },
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("value is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// Ends before its last item does, or goes on after it.
    #[error("value is cut short or has bytes after its end")]
    Length,
    /// Uses a form that canonical values never have: indefinite lengths, tags, floats, reserved bytes.
    #[error("byte {at} starts an item that canonical values do not use")]
    Form {
        /// Offset of the item.
        at: usize,
    },
    /// Does not fit the type.
    #[error("value does not fit its type: {0}")]
    Type(#[source] serde_cbor::Error),
    /// Fits the type but is spelled differently from how we spell it.
    #[error("value is not in canonical form: it encodes to other bytes than it came in")]
    NotCanonical,
}

/// The canonical bytes of `value`.
///
/// # Panics
/// When the type breaks the rules above in a way that CBOR cannot carry: a broken invariant of this program, since no
/// input reaches the choice of types.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    encode_after(Vec::with_capacity(USUAL_BYTES), value)
}

/// The same behind other bytes.
fn encode_after<T: Serialize>(before: Vec<u8>, value: &T) -> Vec<u8> {
    let mut encoder = serde_cbor::Serializer::new(before);
    value.serialize(&mut encoder).expect("types that are hashed or sent always encode");
    encoder.into_inner()
}

/// The value whose canonical bytes these are.
///
/// # Errors
/// When the bytes are too long, too deep, malformed, of another type, or spelled in a way that is not canonical.
pub fn decode<T: DeserializeOwned + Serialize>(bytes: &[u8], bytes_max: usize) -> Result<T, CanonError> {
    if bytes.len() > bytes_max {
        return Err(CanonError::TooLong { bytes: bytes.len(), bytes_max });
    }
    check_structure(bytes)?;
    let value: T = serde_cbor::from_slice(bytes).map_err(CanonError::Type)?;
    if encode(&value) != bytes {
        return Err(CanonError::NotCanonical);
    }
    Ok(value)
}

/// The value that another version of this program has written for itself, which need not be how this one spells it: fields that it did not
/// know have their defaults, and such as are not known any more are left out. Nothing that is hashed, signed or sent is read so.
///
/// # Errors
/// When the bytes are too deep, malformed, or of another type.
pub fn decode_own<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CanonError> {
    check_structure(bytes)?;
    serde_cbor::from_slice(bytes).map_err(CanonError::Type)
}

/// The BLAKE3 hash of a value under a domain, such as `quorate/task/1`: equal values of different kinds never collide.
pub fn hash<T: Serialize>(domain: &str, value: &T) -> [u8; 32] {
    *blake3::hash(&encode_after(begin(domain), value)).as_bytes()
}

/// The same, and before it the hash of a field of the value under a domain of its own: both from one encoding. The value is a struct
/// that has such a field.
pub(crate) fn hash_with_field<T: Serialize>(domain: &str, value: &T, of: (&str, &str)) -> ([u8; 32], [u8; 32]) {
    let (field_domain, name) = of;
    let bytes = encode_after(begin(domain), value);
    let field = field(&bytes[domain.len() + 1..], name).expect("a struct is written with all fields that are there");
    let mut alone = begin(field_domain);
    alone.extend_from_slice(field);
    (*blake3::hash(&alone).as_bytes(), *blake3::hash(&bytes).as_bytes())
}

/// What is to be hashed begins with its domain. All of it lies in one piece: what is hashed in pieces goes through a buffer, which costs
/// as much as the hash of something so short.
fn begin(domain: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    bytes.extend_from_slice(domain.as_bytes());
    bytes.push(0);
    bytes
}

/// The same of a value that is encoded already.
pub fn hash_encoded(domain: &str, bytes: &[u8]) -> [u8; 32] {
    hash_parts(domain, [bytes])
}

/// The same of bytes that lie in several places.
pub(crate) fn hash_parts<const N: usize>(domain: &str, parts: [&[u8]; N]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(domain.as_bytes()).update(&[0]);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// Walks the items once, without recursion and without believing a length.
fn check_structure(bytes: &[u8]) -> Result<(), CanonError> {
    let mut at = 0;
    // Items still to come at each open level.
    let mut open: Vec<u64> = vec![1];
    while let Some(left) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        *left -= 1;
        let start = at;
        let (major, argument) = head(bytes, &mut at)?;
        let remaining = (bytes.len() - at) as u64;
        match major {
            0 | 1 => {}
            2 | 3 if argument <= remaining => at += argument as usize,
            // An item takes at least one byte, so a count past the end is false.
            4 if argument <= remaining => open.push(argument),
            5 if argument <= remaining / 2 => open.push(argument * 2),
            2..=5 => return Err(CanonError::Length),
            // false, true, null.
            7 if (20..=22).contains(&argument) && at == start + 1 => {}
            _ => return Err(CanonError::Form { at: start }),
        }
        if open.len() > DEPTH_MAX + 1 {
            return Err(CanonError::TooDeep);
        }
    }
    if at == bytes.len() { Ok(()) } else { Err(CanonError::Length) }
}

/// The value of this name in a map of ours.
fn field<'a>(map: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut at = 0;
    let (_, fields) = head(map, &mut at).ok()?;
    for _ in 0..fields {
        let (key, value) = (item(map, &mut at)?, item(map, &mut at)?);
        // Names of ours are short: their length is in the first byte.
        if key.get(1..) == Some(name.as_bytes()) {
            return Some(value);
        }
    }
    None
}

/// The item at `at`, which moves behind it.
fn item<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let (start, mut left) = (*at, 1);
    while left > 0 {
        left -= 1;
        match head(bytes, at).ok()? {
            (2 | 3, length) => *at += length as usize,
            (4, items) => left += items,
            (5, pairs) => left += 2 * pairs,
            _ => {}
        }
    }
    bytes.get(start..*at)
}

/// Major type and argument of the item at `at`, which moves past the head.
fn head(bytes: &[u8], at: &mut usize) -> Result<(u8, u64), CanonError> {
    let start = *at;
    let first = *bytes.get(start).ok_or(CanonError::Length)?;
    *at += 1;
    let extra = match first & 0x1f {
        small @ 0..=23 => return Ok((first >> 5, u64::from(small))),
        24 => 1,
        25 => 2,
        26 => 4,
        27 => 8,
        _ => return Err(CanonError::Form { at: start }),
    };
    let tail = bytes.get(*at..*at + extra).ok_or(CanonError::Length)?;
    *at += extra;
    Ok((first >> 5, tail.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))))
}

/// Bytes that are a byte string in CBOR and base64 in JSON.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} bytes)", self.0.len())
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&data_encoding::BASE64.encode(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            data_encoding::BASE64
                .decode(text.as_bytes())
                .map(Self)
                .map_err(|error| de::Error::custom(format!("not base64: {error}")))
        } else {
            serde_bytes::ByteBuf::deserialize(deserializer).map(|bytes| Self(bytes.into_vec()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn refusal(bytes: &[u8]) -> String {
        decode::<BTreeMap<String, u64>>(bytes, 1024).unwrap_err().to_string()
    }

    #[test]
    fn other_spellings_of_a_value_are_refused() {
        let value = BTreeMap::from([("a".to_owned(), 1u64), ("b".to_owned(), 2)]);
        let canonical = encode(&value);
        assert_eq!(canonical, b"\xa2\x61a\x01\x61b\x02");
        assert_eq!(decode::<BTreeMap<String, u64>>(&canonical, 1024).unwrap(), value);
        let cases: [(&str, &[u8]); 9] = [
            ("unsorted keys", b"\xa2\x61b\x02\x61a\x01"),
            ("a repeated key", b"\xa3\x61a\x01\x61a\x01\x61b\x02"),
            ("a long integer", b"\xa2\x61a\x18\x01\x61b\x02"),
            ("an indefinite map", b"\xbf\x61a\x01\x61b\x02\xff"),
            ("a tag", b"\xc1\xa2\x61a\x01\x61b\x02"),
            ("a float", b"\xa1\x61a\xf9\x3c\x00"),
            ("bytes after the end", b"\xa2\x61a\x01\x61b\x02\x00"),
            ("a false length", b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff"),
            ("nothing", b""),
        ];
        for (what, bytes) in cases {
            assert!(decode::<BTreeMap<String, u64>>(bytes, 1024).is_err(), "{what} was accepted");
        }
    }

    #[derive(Debug, Clone, Serialize)]
    struct Outer {
        before: BTreeMap<String, Vec<u64>>,
        bytes: Bytes,
        inner: Vec<Option<i64>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    }

    proptest! {
        #[test]
        fn both_hashes_of_one_encoding_are_those_of_two(
            before in proptest::collection::btree_map("[a-z]{0,8}|inner", proptest::collection::vec(any::<u64>(), 0..4), 0..4),
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            inner in proptest::collection::vec(any::<Option<i64>>(), 0..40),
            after in any::<Option<String>>(),
        ) {
            let outer = Outer { before, bytes: Bytes(bytes), inner, after };
            let (field, whole) = hash_with_field("test/outer", &outer, ("test/inner", "inner"));
            prop_assert_eq!(whole, hash_encoded("test/outer", &encode(&outer)));
            prop_assert_eq!(field, hash("test/inner", &outer.inner));
            prop_assert_eq!(whole, hash("test/outer", &outer));
        }
    }

    #[test]
    fn size_and_depth_are_checked_before_anything_is_parsed() {
        assert!(refusal(&[0xa0; 2000]).contains("over the bound of 1024 bytes"));
        let mut nested = vec![0x81; DEPTH_MAX + 1];
        nested.push(0x80);
        assert!(refusal(&nested).contains("nested deeper than 32"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_what_decodes_encodes_back(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = decode::<(u64, Option<Bytes>, Vec<String>)>(&bytes, 64) {
                prop_assert_eq!(encode(&value), bytes);
            }
        }
    }
}
