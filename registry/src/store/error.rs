//! Every way the store fails: the stage, the rule that was broken with its bound, and whether trying again can help.

use std::{error::Error, io, path::PathBuf, sync::Arc};

use super::fault::{Cause, ProviderFailure, Reasons};
use crate::id::BlobHash;

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process, or another handle in this one, has the directory open.
    #[error("open {}: store is in use by another process; stop it, or use another directory", dir.display())]
    InUse {
        /// The directory of the store.
        dir: PathBuf,
    },
    /// The directory cannot be used.
    #[error("open {}: {cause}; check that the directory exists, is writable and was written by this version", dir.display())]
    Open {
        /// The directory of the store.
        dir: PathBuf,
        /// What failed.
        #[source]
        cause: Cause,
    },
    /// An option contradicts another.
    #[error("open: {name} is {value}, the rule is {rule}")]
    Options {
        /// The option.
        name: &'static str,
        /// Its value.
        value: u64,
        /// What it must satisfy.
        rule: &'static str,
    },
    /// The store was shut down.
    #[error("{stage}: the store was shut down; open it again")]
    Closed {
        /// What was asked.
        stage: &'static str,
    },
    /// The blob is not in the store, or only a part of it is.
    #[error("{stage}: blob {hash} is not in this store; fetch or publish it first")]
    NotFound {
        /// What was asked.
        stage: &'static str,
        /// The blob.
        hash: BlobHash,
    },
    /// The blob is pinned and therefore cannot be removed.
    #[error("remove: blob {hash} is pinned by `{owner}`; unpin it first")]
    Pinned {
        /// The blob.
        hash: BlobHash,
        /// One of the owners of a pin.
        owner: String,
    },
    /// The blob is being read, served or fetched right now.
    #[error("remove: blob {hash} is in use right now; try again later")]
    Busy {
        /// The blob.
        hash: BlobHash,
    },
    /// The name of a pin's owner cannot be stored.
    #[error("pin: owner `{owner}` must be 1 to {owner_bytes_max} bytes without `/`")]
    PinOwner {
        /// The name as given.
        owner: String,
        /// The longest name.
        owner_bytes_max: usize,
    },
    /// A blob is longer than this store, or this call, allows.
    #[error("{stage}: blob has at least {bytes} bytes, the limit is {bytes_max}; {advice}")]
    TooLarge {
        /// What was asked.
        stage: &'static str,
        /// Length found: the whole length, or where counting stopped.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
        /// What to do.
        advice: &'static str,
    },
    /// A range lies outside its blob.
    #[error("read: range {offset}+{len} lies outside blob {hash} of {blob_bytes} bytes")]
    Range {
        /// The blob.
        hash: BlobHash,
        /// First byte asked for.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// Length of the blob.
        blob_bytes: u64,
    },
    /// What arrived is not what was announced. Nothing of it was kept.
    #[error("publish: content hashes to {found}, but {expected} was announced; send the right bytes or the right hash")]
    HashMismatch {
        /// As announced.
        expected: BlobHash,
        /// As computed.
        found: BlobHash,
    },
    /// The caller's source of bytes broke off. Nothing of it was kept.
    #[error("publish: the source failed after {bytes} bytes: {cause}; send it again")]
    Source {
        /// Bytes received before.
        bytes: u64,
        /// What the source said.
        #[source]
        cause: Arc<io::Error>,
    },
    /// There is no room, and nothing may be deleted to make some.
    #[error(
        "{stage}: {need_bytes} bytes do not fit into quota_bytes_max = {quota_bytes_max}: {pinned_bytes} bytes are pinned \
         and {held_bytes} in use; unpin blobs or raise the quota"
    )]
    QuotaExceeded {
        /// What was asked.
        stage: &'static str,
        /// Bytes that were to be added.
        need_bytes: u64,
        /// The quota.
        quota_bytes_max: u64,
        /// Bytes that pins hold.
        pinned_bytes: u64,
        /// Bytes of unpinned blobs that are read, served or fetched right now.
        held_bytes: u64,
    },
    /// No provider gave the blob. What did arrive is kept, and the next fetch goes on from there.
    #[error("fetch {hash}: {}", Reasons(providers))]
    FetchFailed {
        /// The blob.
        hash: BlobHash,
        /// Each provider with why; empty when none was named.
        providers: Vec<ProviderFailure>,
    },
    /// The fetch took too long. What did arrive is kept, and the next fetch goes on from there.
    #[error(
        "fetch {hash}: not complete within wall_ms_max = {wall_ms_max}; try again or allow more ({})",
        Reasons(providers)
    )]
    FetchTimedOut {
        /// The blob.
        hash: BlobHash,
        /// The limit.
        wall_ms_max: u64,
        /// Providers that were given up before.
        providers: Vec<ProviderFailure>,
    },
    /// A file outside the store cannot be read or written.
    #[error("{stage} {}: {cause}", path.display())]
    File {
        /// What was asked.
        stage: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: Arc<io::Error>,
    },
    /// The blob database or its files failed.
    #[error("{stage}: the blob database failed: {cause}; check the disk, then try again")]
    Backend {
        /// What was asked.
        stage: &'static str,
        /// What failed.
        #[source]
        cause: Cause,
    },
}

impl StoreError {
    /// Whether the same call may succeed later without anybody changing it.
    pub fn retryable(&self) -> bool {
        match self {
            Self::InUse { .. }
            | Self::Busy { .. }
            | Self::Source { .. }
            | Self::FetchTimedOut { .. }
            | Self::Backend { .. } => true,
            Self::QuotaExceeded { held_bytes, .. } => *held_bytes > 0,
            Self::FetchFailed { providers, .. } => providers.iter().any(|failure| failure.fault.retryable()),
            Self::Open { .. }
            | Self::Options { .. }
            | Self::Closed { .. }
            | Self::NotFound { .. }
            | Self::Pinned { .. }
            | Self::PinOwner { .. }
            | Self::TooLarge { .. }
            | Self::Range { .. }
            | Self::HashMismatch { .. }
            | Self::File { .. } => false,
        }
    }

    pub(super) fn backend(stage: &'static str, cause: impl Error + Send + Sync + 'static) -> Self {
        Self::Backend { stage, cause: Arc::new(cause) }
    }

    pub(super) fn file(stage: &'static str, path: &std::path::Path, cause: io::Error) -> Self {
        Self::File { stage, path: path.to_owned(), cause: Arc::new(cause) }
    }
}

/// A result whose error says which stage of ours it broke.
pub(super) trait AtStage<T> {
    /// Names the stage.
    fn at(self, stage: &'static str) -> Result<T, StoreError>;
}

impl<T, E: Error + Send + Sync + 'static> AtStage<T> for Result<T, E> {
    fn at(self, stage: &'static str) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::backend(stage, error))
    }
}
