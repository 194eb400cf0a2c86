//! What a hash in a signed record is of: bytes that need nobody's word, because their name proves them.
//!
//! A receipt names its job, its task and its output by the hash of canonical bytes under a domain. Whoever keeps those
//! bytes in a file named by the hash can hand them on: [`Preimage::open`] gives the value, or says that the bytes are
//! others. Blobs are the same without a domain.

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    canon::{self, CanonError},
    id::{BlobHash, ID_BYTES},
};

/// A value that is named by the hash of its canonical bytes.
pub trait Preimage: Serialize + DeserializeOwned {
    /// One word for it, for errors.
    const WHAT: &'static str;
    /// What its hash is told apart by, with a version.
    const DOMAIN: &'static str;
    /// Length in bytes that its canonical form may have.
    const BYTES_MAX: usize;

    /// The hash that names it.
    fn name(&self) -> [u8; ID_BYTES] {
        canon::hash(Self::DOMAIN, self)
    }

    /// The value with this name, from its canonical bytes.
    ///
    /// # Errors
    /// When the bytes have another name, or are no such value.
    fn open(name: [u8; ID_BYTES], bytes: &[u8]) -> Result<Self, PreimageError> {
        if bytes.len() > Self::BYTES_MAX {
            let (bytes, bytes_max) = (bytes.len(), Self::BYTES_MAX);
            return Err(PreimageError::Form { what: Self::WHAT, source: CanonError::TooLong { bytes, bytes_max } });
        }
        let found = canon::hash_encoded(Self::DOMAIN, bytes);
        if found != name {
            return Err(PreimageError::Hash { what: Self::WHAT, expected: BlobHash(name), found: BlobHash(found) });
        }
        canon::decode(bytes, Self::BYTES_MAX).map_err(|source| PreimageError::Form { what: Self::WHAT, source })
    }
}

/// Why bytes are not the value that is named.
#[derive(Debug, thiserror::Error)]
pub enum PreimageError {
    /// The bytes have another name.
    #[error("content of {what} has hash {found} instead of {expected}")]
    Hash {
        /// Of which kind.
        what: &'static str,
        /// As named.
        expected: BlobHash,
        /// As computed.
        found: BlobHash,
    },
    /// The bytes are no such value.
    #[error("content is no {what}: {source}")]
    Form {
        /// Of which kind.
        what: &'static str,
        /// What is wrong.
        source: CanonError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::ModuleHash,
        job::{JobSpec, ShardInfo, Stage, TaskKey, task_id},
    };

    #[test]
    fn what_is_named_opens_under_its_name_alone() {
        let shard = ShardInfo { stage: Stage::Map, index: 1, count: 2 };
        let key = TaskKey { template: BlobHash([1; 32]), shard, input: BlobHash([2; 32]) };
        let name = task_id(key.template, key.shard, key.input).0;
        let bytes = canon::encode(&key);
        assert_eq!(TaskKey::open(name, &bytes).unwrap(), key);
        let mut forged = bytes.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert!(TaskKey::open(name, &forged).unwrap_err().to_string().contains("instead of"));
        // Another kind of value with the same bytes has another name.
        let refused = JobSpec::open(name, &bytes).unwrap_err().to_string();
        assert!(refused.contains("content of job has hash"), "{refused}");
    }

    #[test]
    fn length_and_form_are_bounded_before_anything_is_believed() {
        let long = vec![0; TaskKey::BYTES_MAX + 1];
        assert!(TaskKey::open([0; 32], &long).unwrap_err().to_string().contains("over the bound of 256 bytes"));
        let no_job = canon::encode(&1u8);
        let name = canon::hash_encoded(JobSpec::DOMAIN, &no_job);
        assert!(JobSpec::open(name, &no_job).unwrap_err().to_string().contains("content is no job"));
        let job = JobSpec::new(ModuleHash([1; 32]), 1);
        assert_eq!(JobSpec::open(job.id().0, &canon::encode(&job)).unwrap(), job);
    }
}
