//! Room within the quota.
//!
//! iroh-blobs offers no call that deletes a blob: only its collector does, and that runs by a timer. The timer is set to
//! one millisecond here, but before each run the collector must ask our callback what lives, and the callback waits for a
//! [`Sweep`] request. So the collector runs when it is asked to, with the books as the list of what lives. That the next
//! callback begins tells that the run before has ended and its files are gone.

use std::{collections::HashSet, io, sync::Arc, time::Duration};

use iroh_blobs::{
    Hash,
    api::blobs::BlobStatus,
    store::{GcConfig, ProtectCb, ProtectOutcome},
};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use super::{
    Ordering, Store, blob_hash,
    error::{AtStage, StoreError},
    index::Shortage,
    iroh_hash,
    options::INLINE_BYTES_MAX,
};
use crate::id::BlobHash;

/// One run of the collector.
struct Sweep {
    live: HashSet<Hash>,
    done: oneshot::Sender<()>,
}

/// Asks the collector to run.
pub(super) struct Sweeper {
    requests: mpsc::Sender<Sweep>,
    database_closed: watch::Sender<bool>,
}

/// The collector's end.
struct Collector {
    requests: mpsc::Receiver<Sweep>,
    running: Option<oneshot::Sender<()>>,
    database_closed: watch::Receiver<bool>,
}

/// A sweeper, and the configuration that ties iroh-blobs' collector to it.
pub(super) fn sweeper() -> (Sweeper, GcConfig) {
    let (requests, asked) = mpsc::channel(1);
    let (closed, database_closed) = watch::channel(false);
    let collector = Arc::new(Mutex::new(Collector { requests: asked, running: None, database_closed }));
    let callback: ProtectCb = Arc::new(move |live| {
        let collector = collector.clone();
        Box::pin(async move { collector.lock().await.wait(live).await })
    });
    let sweeper = Sweeper { requests, database_closed: closed };
    (sweeper, GcConfig { interval: Duration::from_millis(1), add_protected: Some(callback) })
}

impl Collector {
    async fn wait(&mut self, live: &mut HashSet<Hash>) -> ProtectOutcome {
        if let Some(done) = self.running.take() {
            done.send(()).ok();
        }
        match self.requests.recv().await {
            Some(sweep) => {
                *live = sweep.live;
                self.running = Some(sweep.done);
                ProtectOutcome::Continue
            }
            // The store is gone. With its database closed a run fails and ends the collector; without, a run would
            // delete everything, because nothing lives any more: wait for the process to end.
            None => {
                let closed = self.database_closed.wait_for(|closed| *closed).await.is_ok();
                if closed { ProtectOutcome::Continue } else { std::future::pending().await }
            }
        }
    }
}

impl Sweeper {
    async fn sweep(&mut self, live: HashSet<Hash>, sweep_ms_max: u64) -> Result<(), StoreError> {
        const STAGE: &str = "delete";
        let gone = || StoreError::backend(STAGE, io::Error::other("the collector of iroh-blobs has stopped"));
        let (done, ended) = oneshot::channel();
        self.requests.send(Sweep { live, done }).await.map_err(|_| gone())?;
        match tokio::time::timeout(Duration::from_millis(sweep_ms_max), ended).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(gone()),
            Err(_) => {
                let slow = format!("the collector did not finish within sweep_ms_max = {sweep_ms_max}");
                Err(StoreError::backend(STAGE, io::Error::other(slow)))
            }
        }
    }

    /// Lets the collector end; to be called when the database is closed.
    pub(super) fn closer(&mut self) -> impl FnOnce() + Send + use<> {
        self.requests = mpsc::channel(1).0;
        let database_closed = self.database_closed.clone();
        move || {
            database_closed.send_replace(true);
        }
    }
}

impl Store {
    /// Makes room for a blob and enters it as partial, so that the room is its own.
    pub(super) async fn reserve(&self, stage: &'static str, hash: BlobHash, len: u64) -> Result<(), StoreError> {
        let mut sweeper = self.inner.room.lock().await;
        let present = self.index().get(&hash).cloned();
        if present.as_ref().is_some_and(|entry| entry.complete) {
            return Ok(());
        }
        let present_bytes = present.map_or(0, |entry| entry.disk_bytes);
        self.make_room(&mut sweeper, stage, len.saturating_sub(present_bytes)).await?;
        self.index().put(hash, len, len, false);
        Ok(())
    }

    /// Enters a blob whose content is already on disk and protected by the caller's temporary tag.
    pub(super) async fn admit(&self, stage: &'static str, hash: BlobHash, len: u64) -> Result<(), StoreError> {
        if len == 0 {
            return Ok(());
        }
        let mut sweeper = self.inner.room.lock().await;
        let disk_bytes = self.disk_bytes(hash, len).await;
        let present = self.index().get(&hash).map_or(0, |entry| entry.disk_bytes);
        self.make_room(&mut sweeper, stage, disk_bytes.saturating_sub(present)).await?;
        self.index().put(hash, len, disk_bytes, true);
        Ok(())
    }

    /// Corrects the entry of a blob by what the database says of it.
    pub(super) async fn settle(&self, stage: &'static str, hash: BlobHash) -> Result<(), StoreError> {
        let _sweeper = self.inner.room.lock().await;
        match self.inner.fs.status(iroh_hash(hash)).await.at(stage)? {
            BlobStatus::Complete { size: 0 } => {}
            BlobStatus::Complete { size } => {
                let disk_bytes = self.disk_bytes(hash, size).await;
                self.index().put(hash, size, disk_bytes, true);
            }
            BlobStatus::Partial { .. } => {
                let present = self.inner.fs.observe(iroh_hash(hash)).await.at(stage)?;
                self.index().put(hash, present.size(), present.total_bytes(), false);
            }
            BlobStatus::NotFound => {
                self.index().remove(&hash);
            }
        }
        Ok(())
    }

    /// Deletes whatever is on disk and not in the books.
    pub(super) async fn sweep(&self) -> Result<(), StoreError> {
        let mut sweeper = self.inner.room.lock().await;
        sweeper.sweep(self.live(), self.inner.options.sweep_ms_max).await
    }

    async fn make_room(&self, sweeper: &mut Sweeper, stage: &'static str, need: u64) -> Result<(), StoreError> {
        let options = &self.inner.options;
        let victims = {
            let mut index = self.index();
            let victims = index
                .victims(need, options.quota_bytes_max, options.slack_bytes)
                .map_err(|shortage| self.quota_exceeded(stage, need, shortage))?;
            for hash in &victims {
                let bytes = index.remove(hash).map_or(0, |entry| entry.disk_bytes);
                self.inner.counters.bytes_evicted.fetch_add(bytes, Ordering::Relaxed);
                tracing::debug!(%hash, bytes, "deleted to make room");
            }
            victims
        };
        if victims.is_empty() {
            return Ok(());
        }
        self.inner.counters.blobs_evicted.fetch_add(victims.len() as u64, Ordering::Relaxed);
        sweeper.sweep(self.live(), options.sweep_ms_max).await
    }

    pub(super) fn quota_exceeded(&self, stage: &'static str, need_bytes: u64, shortage: Shortage) -> StoreError {
        let Shortage { pinned_bytes, held_bytes } = shortage;
        let quota_bytes_max = self.inner.options.quota_bytes_max;
        StoreError::QuotaExceeded { stage, need_bytes, quota_bytes_max, pinned_bytes, held_bytes }
    }

    fn live(&self) -> HashSet<Hash> {
        self.index().by_use().map(|(hash, _)| iroh_hash(*hash)).collect()
    }

    /// What a blob of this length counts against the quota: nothing when its bytes are in somebody else's file.
    pub(super) async fn disk_bytes(&self, hash: BlobHash, len: u64) -> u64 {
        let owned = len <= INLINE_BYTES_MAX || tokio::fs::try_exists(self.data_path(hash)).await.unwrap_or(true);
        if owned { len } else { 0 }
    }

    fn data_path(&self, hash: BlobHash) -> std::path::PathBuf {
        iroh_blobs::store::fs::options::PathOptions::new(&self.inner.dir).data_path(&iroh_hash(hash))
    }

    /// Hashes of the blobs that the database lists, partial ones too.
    pub(super) async fn listed(&self, stage: &'static str) -> Result<Vec<BlobHash>, StoreError> {
        Ok(self.inner.fs.list().hashes().await.at(stage)?.into_iter().map(blob_hash).collect())
    }
}
