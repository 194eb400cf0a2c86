//! Newtype ids: 32 bytes each, hexadecimal for people, a CBOR byte string on the wire.
//!
//! A hash names content and is BLAKE3; a key names who signed and is an ed25519 public key. Two ids of different kinds
//! cannot be mixed up, because they are different types.

use std::{cmp::Ordering, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Length in bytes of every id.
pub const ID_BYTES: usize = 32;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}: expected 64 hexadecimal digits")]
pub struct ParseIdError {
    kind: &'static str,
    text: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(pub [u8; ID_BYTES]);

        /// That of the bytes. Two ids nearly always differ in their first eight, which are compared as one number.
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                let head = |id: &Self| id.0.first_chunk().map(|head| u64::from_be_bytes(*head));
                head(self).cmp(&head(other)).then_with(|| self.0.cmp(&other.0))
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl $name {
            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; ID_BYTES] {
                &self.0
            }

            /// The first ten hexadecimal digits: enough to tell ids apart in a log line.
            pub fn short(&self) -> String {
                data_encoding::HEXLOWER.encode(&self.0[..5])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let refused = || ParseIdError { kind: stringify!($name), text: text.chars().take(80).collect() };
                if text.len() != 2 * ID_BYTES {
                    return Err(refused());
                }
                let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| refused())?;
                Ok(Self(bytes.try_into().map_err(|_| refused())?))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_bytes(&self.0) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
                } else {
                    deserializer.deserialize_bytes(IdBytes).map(Self)
                }
            }
        }
    };
}

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident) => {
        id!($(#[$doc])* $name);

        impl $name {
            /// The BLAKE3 hash of `bytes`.
            pub fn of(bytes: &[u8]) -> Self {
                Self(*blake3::hash(bytes).as_bytes())
            }
        }
    };
}

hash_id!(
    /// Any content by its BLAKE3 hash. The other content hashes convert into it: every module, model and manifest is a blob.
    BlobHash
);
hash_id!(
    /// A WASI task module, by the hash of its bytes.
    ModuleHash
);
hash_id!(
    /// A neural network file, by the hash of its bytes.
    ModelHash
);
hash_id!(
    /// A manifest, by the hash of its canonical bytes.
    ManifestHash
);
id!(
    /// One pure function call: see [`crate::job::task_id`].
    TaskId
);
id!(
    /// A job: the hash of the canonical bytes of its [`crate::job::JobSpec`], nonce included.
    JobId
);
id!(
    /// What two executions are compared by: the hash of everything about a result that must be equal on every host.
    Commitment
);
id!(
    /// A state of a stepped task, between two of its segments: the hash of everything that the rest of it depends on. See
    /// [`crate::segment::State`].
    StateRoot
);
id!(
    /// What one host signed about one execution: the hash of the canonical bytes of a [`crate::receipt::Receipt`].
    ReceiptId
);
id!(
    /// What commits to a job's secret: see [`crate::audit`].
    SecretHash
);
id!(
    /// A leaf or an inner node of a tree over what was signed together: see [`crate::merkle`].
    MerkleHash
);
id!(
    /// A head of a host's log: the hash of the canonical bytes of a [`crate::sign::Head`].
    HeadId
);
id!(
    /// An entry of a job's log, with everything before it: see [`crate::log::link`].
    LinkId
);
id!(
    /// A machine, by its iroh ed25519 public key.
    NodeId
);
id!(
    /// Whoever answers for one or more machines, by an ed25519 public key.
    OperatorId
);
id!(
    /// Whoever publishes names, by an ed25519 public key.
    PublisherId
);
id!(
    /// Whoever pays for jobs, by an ed25519 public key.
    RequesterId
);
id!(
    /// What a host asks for its work: the hash of the canonical bytes of a [`crate::price::PriceTable`].
    PriceId
);
id!(
    /// The conditions a result is reproducible under: engine version, settings, host ABI and backend.
    EngineFingerprint
);

macro_rules! blob {
    ($($name:ident)*) => {$(
        impl From<$name> for BlobHash {
            fn from(hash: $name) -> Self {
                Self(hash.0)
            }
        }

        impl From<BlobHash> for $name {
            fn from(hash: BlobHash) -> Self {
                Self(hash.0)
            }
        }
    )*};
}

blob!(ModuleHash ModelHash ManifestHash);

struct IdBytes;

impl de::Visitor<'_> for IdBytes {
    type Value = [u8; ID_BYTES];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a byte string of {ID_BYTES} bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_its_own_text() {
        let id = BlobHash::of(b"digits");
        assert_eq!(id.to_string().parse::<BlobHash>().unwrap(), id);
        assert_eq!(serde_json::from_str::<BlobHash>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    }

    #[test]
    fn ids_are_in_the_order_of_their_bytes() {
        let [mut low, mut high] = [[7; ID_BYTES]; 2];
        for at in 0..ID_BYTES {
            (low[at], high[at]) = (1, 200);
            assert_eq!(NodeId(low).cmp(&NodeId(high)), low.cmp(&high), "byte {at}");
            assert!(NodeId(high) > NodeId(low) && NodeId(low) == NodeId(low));
            (low[at], high[at]) = (7, 7);
        }
    }

    #[test]
    fn a_short_or_odd_text_is_refused_in_one_line() {
        for text in ["", "abc", &"g".repeat(64), &"a".repeat(65)] {
            let error = text.parse::<ModuleHash>().unwrap_err().to_string();
            assert!(error.contains("ModuleHash") && error.contains("64 hexadecimal digits"), "{error}");
        }
    }
}
