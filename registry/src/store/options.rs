//! Every bound of the store, named with its unit last.

use super::error::StoreError;

/// Blobs up to this length live inside the database, longer ones in a file each.
pub const INLINE_BYTES_MAX: u64 = 16 << 10;
/// Blobs longer than this are split over several providers, and their length is verified before room is made for them.
pub const SPLIT_BYTES_MIN: u64 = 16 << 20;
/// The smallest piece one provider is asked for when a blob is split.
pub const PIECE_BYTES_MIN: u64 = 8 << 20;
/// Pieces per provider when a blob is split: more make a slow provider matter less, fewer save round trips.
pub const PIECES_PER_PROVIDER: u64 = 4;
/// Providers that one fetch looks at; further ones are ignored.
pub const PROVIDERS_MAX: usize = 32;
/// Connections to providers kept open for the next fetch.
pub const CONNECTIONS_MAX: usize = 64;
/// Longest wait for one fetch, whatever its limits say: 30 days.
pub const FETCH_MS_MAX: u64 = 30 * 24 * 3_600_000;
/// Longest name of a pin's owner.
pub const PIN_OWNER_BYTES_MAX: usize = 128;
/// The order of last use is written after this many uses.
pub const USES_PER_SAVE: u64 = 1024;

/// What a store may hold, and how long it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// Content kept on disk. Hash trees add 0.4 %; files published by reference do not count.
    pub quota_bytes_max: u64,
    /// Longest blob that is published or fetched.
    pub blob_bytes_max: u64,
    /// Once the quota is reached, so much more than needed is deleted, that the next blob finds room at once.
    pub slack_bytes: u64,
    /// Waiting for a directory to open.
    pub open_ms_max: u64,
    /// Waiting for a provider to accept a connection.
    pub connect_ms_max: u64,
    /// Waiting for a provider's next bytes.
    pub stall_ms_max: u64,
    /// Waiting for deleted blobs to leave the disk.
    pub sweep_ms_max: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            quota_bytes_max: 64 << 30,
            blob_bytes_max: 16 << 30,
            slack_bytes: 1 << 30,
            open_ms_max: 10_000,
            connect_ms_max: 3_000,
            stall_ms_max: 10_000,
            sweep_ms_max: 60_000,
        }
    }
}

impl StoreOptions {
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let waits = [
            ("open_ms_max", self.open_ms_max),
            ("connect_ms_max", self.connect_ms_max),
            ("stall_ms_max", self.stall_ms_max),
            ("sweep_ms_max", self.sweep_ms_max),
            ("quota_bytes_max", self.quota_bytes_max),
            ("blob_bytes_max", self.blob_bytes_max),
        ];
        if let Some((name, value)) = waits.into_iter().find(|(_, value)| *value == 0) {
            return Err(StoreError::Options { name, value, rule: "at least 1" });
        }
        Ok(())
    }
}

/// What one fetch may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchLimits {
    /// Longest blob; a provider that claims more is skipped before anything big is fetched.
    pub bytes_max: u64,
    /// From the call to the complete blob.
    pub wall_ms_max: u64,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { bytes_max: StoreOptions::default().blob_bytes_max, wall_ms_max: 600_000 }
    }
}
