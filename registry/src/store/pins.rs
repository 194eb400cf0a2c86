//! Pins: what must not be deleted, by named tags `quorate/pin/HASH/OWNER`.

use iroh_blobs::{Hash, HashAndFormat, store::fs::FsStore};
use n0_future::StreamExt;

use super::{
    Store,
    error::{AtStage, StoreError},
    iroh_hash,
    options::PIN_OWNER_BYTES_MAX,
};
use crate::id::BlobHash;

const PREFIX: &str = "quorate/pin/";
const DEFAULT_OWNER: &str = "operator";

impl Store {
    /// Keeps a blob until it is unpinned. On disk when this returns. Pinning twice is pinning once.
    pub async fn pin(&self, hash: BlobHash) -> Result<(), StoreError> {
        self.pin_for(hash, DEFAULT_OWNER).await
    }

    /// Undoes [`Store::pin`]. To unpin what is not pinned is no error.
    pub async fn unpin(&self, hash: BlobHash) -> Result<(), StoreError> {
        self.unpin_for(hash, DEFAULT_OWNER).await
    }

    /// Keeps a blob until `owner` unpins it; other owners' pins are their own.
    pub async fn pin_for(&self, hash: BlobHash, owner: &str) -> Result<(), StoreError> {
        const STAGE: &str = "pin";
        let tag = tag(hash, owner)?;
        let _hold = self.hold_complete(STAGE, hash)?;
        let fresh = self.index().pin(hash, owner);
        let tags = self.inner.fs.tags();
        let stored = async {
            tags.set(&tag, HashAndFormat::raw(iroh_hash(hash))).await.at(STAGE)?;
            self.inner.fs.sync_db().await.at(STAGE)
        };
        let stored = stored.await;
        if stored.is_err() && fresh {
            self.index().unpin(&hash, owner);
        }
        stored
    }

    /// Undoes [`Store::pin_for`].
    pub async fn unpin_for(&self, hash: BlobHash, owner: &str) -> Result<(), StoreError> {
        const STAGE: &str = "unpin";
        self.check_open(STAGE)?;
        let tag = tag(hash, owner)?;
        self.inner.fs.tags().delete(&tag).await.at(STAGE)?;
        self.inner.fs.sync_db().await.at(STAGE)?;
        self.index().unpin(&hash, owner);
        Ok(())
    }

    /// Whether anybody pins this blob.
    pub fn is_pinned(&self, hash: BlobHash) -> bool {
        self.index().pin_owner(&hash).is_some()
    }
}

fn tag(hash: BlobHash, owner: &str) -> Result<String, StoreError> {
    if owner.is_empty() || owner.len() > PIN_OWNER_BYTES_MAX || owner.contains('/') {
        let owner = owner.chars().take(PIN_OWNER_BYTES_MAX).collect();
        return Err(StoreError::PinOwner { owner, owner_bytes_max: PIN_OWNER_BYTES_MAX });
    }
    Ok(format!("{PREFIX}{hash}/{owner}"))
}

/// The pins in the database.
pub(super) async fn stored(fs: &FsStore) -> Result<Vec<(BlobHash, String)>, StoreError> {
    const STAGE: &str = "open";
    let mut pins = Vec::new();
    let mut tags = fs.tags().list_prefix(PREFIX).await.at(STAGE)?;
    while let Some(tag) = tags.next().await {
        let tag = tag.at(STAGE)?;
        let name = String::from_utf8_lossy(&tag.name.0).into_owned();
        let Some((hash, owner)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('/')) else { continue };
        if let Ok(hash) = hash.parse::<BlobHash>()
            && Hash::from_bytes(hash.0) == tag.hash
        {
            pins.push((hash, owner.to_owned()));
        }
    }
    Ok(pins)
}
