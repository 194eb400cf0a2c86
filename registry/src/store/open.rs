//! Opening and shutting down.

use std::{
    fs::{self, File, TryLockError},
    path::Path,
    sync::Arc,
    time::Duration,
};

use iroh_blobs::store::fs::{FsStore, options::Options};

use super::{
    Counters, Inner, Mutex, Ordering, PoisonError, Store,
    error::{AtStage, StoreError},
    flight,
    options::{StoreOptions, USES_PER_SAVE},
    peers, pins, recency, room,
};
use crate::id::BlobHash;

impl Store {
    /// Opens the store in `dir`, or makes one there.
    pub async fn open(dir: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        options.check()?;
        let failed = |cause| StoreError::Open { dir: dir.to_owned(), cause };
        fs::create_dir_all(dir).map_err(|error| failed(Arc::new(error)))?;
        let dir = &fs::canonicalize(dir).map_err(|error| failed(Arc::new(error)))?;
        let lock = lock(dir)?;
        remove_leftovers(dir);
        let (sweeper, collector) = room::sweeper();
        let fs = load(dir, Options { gc: Some(collector), ..Options::new(dir) }, options.open_ms_max).await?;
        let inner = Inner {
            dir: dir.to_owned(),
            options,
            fs,
            index: Mutex::default(),
            room: tokio::sync::Mutex::new(sweeper),
            flights: flight::Flights::default(),
            peers: peers::Peers::new(options.connect_ms_max),
            counters: Counters::default(),
            incoming_bytes: 0.into(),
            uses_saved: 0.into(),
            closed: false.into(),
            lock: Mutex::new(Some(lock)),
            runtime: tokio::runtime::Handle::current(),
        };
        let store = Self { inner: Arc::new(inner) };
        store.rebuild_index().await?;
        Ok(store)
    }

    /// Writes what is not written yet and frees the directory. Every later call is refused.
    pub async fn shutdown(&self) -> Result<(), StoreError> {
        const STAGE: &str = "shut down";
        if self.inner.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.inner.peers.close();
        let mut sweeper = self.inner.room.lock().await;
        self.save_recency().await;
        self.inner.fs.shutdown().await.at(STAGE)?;
        sweeper.closer()();
        self.inner.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(())
    }

    /// The books from what the database lists: pins from the tags, the order of use from the file.
    async fn rebuild_index(&self) -> Result<(), StoreError> {
        const STAGE: &str = "open";
        let ranks = recency::load(&self.recency_path());
        let mut listed = self.listed(STAGE).await?;
        listed.sort_by_key(|hash| (ranks.get(hash).copied().unwrap_or(u64::MAX), *hash));
        for hash in listed {
            self.settle(STAGE, hash).await?;
        }
        for (hash, owner) in pins::stored(&self.inner.fs).await? {
            self.index().pin(hash, &owner);
        }
        self.inner.uses_saved.store(self.index().uses(), Ordering::Relaxed);
        Ok(())
    }

    fn recency_path(&self) -> std::path::PathBuf {
        self.inner.dir.join("recency")
    }

    /// Writes the order of last use when enough has changed.
    pub(super) async fn save_recency_sometimes(&self) {
        let uses = self.index().uses();
        if uses.saturating_sub(self.inner.uses_saved.load(Ordering::Relaxed)) >= USES_PER_SAVE {
            self.save_recency().await;
        }
    }

    async fn save_recency(&self) {
        let path = self.recency_path();
        let order: Vec<BlobHash> = {
            let index = self.index();
            self.inner.uses_saved.store(index.uses(), Ordering::Relaxed);
            index.by_use().map(|(hash, _)| *hash).collect()
        };
        let written = tokio::task::spawn_blocking(move || recency::save(&path, &order)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the order of last use was not written; a restart may delete the wrong blobs first");
        }
    }
}

/// A store that is dropped without being shut down is shut down in the background, without the order of last use.
impl Drop for Inner {
    fn drop(&mut self) {
        if *self.closed.get_mut() {
            return;
        }
        let (fs, database_closed) = (self.fs.clone(), self.room.get_mut().closer());
        let lock = self.lock.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        self.runtime.spawn(async move {
            if fs.shutdown().await.is_ok() {
                database_closed();
            }
            drop(lock);
        });
    }
}

/// Takes the directory. The lock ends with the file handle, and so with the process.
fn lock(dir: &Path) -> Result<File, StoreError> {
    let failed = |error| StoreError::Open { dir: dir.to_owned(), cause: Arc::new(error) };
    let file = File::create(dir.join("store.lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// iroh-blobs leaves the temporary files of broken imports behind.
fn remove_leftovers(dir: &Path) {
    for entry in fs::read_dir(dir.join("temp")).into_iter().flatten().flatten() {
        if let Err(error) = fs::remove_file(entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "a leftover temporary file stays");
        }
    }
}

async fn load(dir: &Path, options: Options, open_ms_max: u64) -> Result<FsStore, StoreError> {
    let loading = FsStore::load_with_opts(dir.join("blobs.db"), options);
    match tokio::time::timeout(Duration::from_millis(open_ms_max), loading).await {
        Ok(Ok(fs)) => Ok(fs),
        // A store of this process that was dropped without being shut down still holds the database.
        Ok(Err(error)) if format!("{error:#}").contains("already open") => {
            Err(StoreError::InUse { dir: dir.to_owned() })
        }
        Ok(Err(error)) => Err(StoreError::Open { dir: dir.to_owned(), cause: Arc::new(error) }),
        Err(_) => {
            let slow = std::io::Error::other(format!("not open within open_ms_max = {open_ms_max}"));
            Err(StoreError::Open { dir: dir.to_owned(), cause: Arc::new(slow) })
        }
    }
}
