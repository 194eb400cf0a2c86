//! What the tasks of one job share, and how it gets here: module and models into the sandbox, files into memory.
//!
//! The first task of a job that finds something missing fetches it; the others wait for that. What the sandbox or the
//! file cache forgets meanwhile is fetched again by the next task.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use grid::{dispatch::SNAPSHOT_REFUSED, engines::EngineAsk, flow::Fault};
use registry::{
    id::{BlobHash, EngineFingerprint},
    job::TaskTemplate,
    store::{FetchLimits, StoreError},
};

use super::{Lease, Shared, book::Task};
use crate::{
    limits,
    net::wire::Stdin,
    sandbox::{LoadError, Sandbox},
};

/// Times that a task's content may be fetched.
const TRIES_MAX: u8 = 3;

/// One job as this host sees it.
pub(super) struct Job {
    pub(super) template: Arc<TaskTemplate>,
    /// [`TaskTemplate::hash`].
    pub(super) hash: BlobHash,
    files: Mutex<Option<Arc<BTreeMap<String, Bytes>>>>,
    /// Held by whoever fetches.
    fetching: tokio::sync::Mutex<()>,
}

impl Job {
    pub(super) fn new(template: Arc<TaskTemplate>) -> Arc<Self> {
        let hash = template.hash();
        Arc::new(Self { template, hash, files: Mutex::default(), fetching: tokio::sync::Mutex::default() })
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<BTreeMap<String, Bytes>>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The files below `/in`, if they are in memory.
    pub(super) fn files(&self) -> Option<Arc<BTreeMap<String, Bytes>>> {
        self.slot().clone()
    }

    /// The sandbox with the engine that was ordered, if it is what the job asks for.
    pub(super) fn sandbox<'a>(&self, shared: &'a Shared, engine: EngineFingerprint) -> Result<&'a Sandbox, Fault> {
        let sandbox = shared.options.sandboxes.of(engine, &EngineAsk::from(&*self.template));
        sandbox.map_err(|error| Fault::new(error.word(), error.to_string()))
    }

    /// Whether the sandbox and the memory have everything.
    fn is_ready(&self, shared: &Shared, engine: EngineFingerprint) -> bool {
        let Ok(sandbox) = self.sandbox(shared, engine) else { return false };
        self.slot().is_some()
            && sandbox.has_module(self.template.module)
            && self.template.models.values().all(|model| sandbox.has_model(*model))
    }

    async fn prepare(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        engine: EngineFingerprint,
        lease: Lease,
    ) -> Result<(), Fault> {
        let _alone = self.fetching.lock().await;
        if self.is_ready(shared, engine) {
            return Ok(());
        }
        let module = self.template.module;
        let sandbox = self.sandbox(shared, engine)?.clone();
        if !sandbox.has_module(module) {
            // What was compiled in an earlier life needs no fetching.
            let load = sandbox.clone();
            blocking(shared, move || {
                let _ = load.load_compiled(module);
                Ok(())
            })
            .await?;
        }
        if !sandbox.has_module(module) {
            let bytes = content(shared, module.into(), limits::MODULE_BYTES_MAX, lease).await?;
            let load = sandbox.clone();
            blocking(shared, move || load.load_module(module, &bytes).map(drop)).await?;
        }
        for model in self.template.models.values().copied() {
            if !sandbox.has_model(model) {
                let bytes = content(shared, model.into(), limits::MODEL_BYTES_MAX, lease).await?;
                let load = sandbox.clone();
                blocking(shared, move || load.load_model(model, &bytes).map(drop)).await?;
            }
        }
        if self.slot().is_some() {
            return Ok(());
        }
        let mut files = BTreeMap::new();
        let mut left = limits::FILE_CACHE_BYTES_MAX;
        for (name, hash) in &self.template.files {
            let bytes = content(shared, *hash, left, lease).await?;
            left -= bytes.len() as u64;
            files.insert(name.clone(), bytes);
        }
        *self.slot() = Some(Arc::new(files));
        shared.files.note(self, limits::FILE_CACHE_BYTES_MAX - left);
        Ok(())
    }
}

/// Jobs whose files are in memory, oldest first, bounded in bytes.
#[derive(Default)]
pub(super) struct Files(Mutex<VecDeque<(Arc<Job>, u64)>>);

impl Files {
    fn note(&self, job: &Arc<Job>, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.retain(|(other, _)| !Arc::ptr_eq(other, job));
        jobs.push_back((job.clone(), bytes));
        let mut sum: u64 = jobs.iter().map(|(_, bytes)| bytes).sum();
        while sum > limits::FILE_CACHE_BYTES_MAX
            && let Some((oldest, bytes)) = jobs.pop_front()
        {
            sum -= bytes;
            *oldest.slot() = None;
        }
    }
}

/// Sees to it that a task has everything, and queues it; in the usual case at once.
pub(super) fn gather(shared: &Arc<Shared>, mut task: Task) {
    let is_inline = matches!(task.order.stdin, Stdin::Inline(_)) && task.order.from.is_none();
    if is_inline && task.job.is_ready(shared, task.order.engine) {
        shared.book.ready(task);
        return;
    }
    let entry = task.entry;
    task.tries += 1;
    if task.tries > TRIES_MAX {
        let detail = format!("module, model or file was evicted {TRIES_MAX} times before the task ran");
        shared.book.faulted(entry, Fault::new("evicted", detail));
        return;
    }
    let shared = shared.clone();
    shared.runtime.clone().spawn(async move {
        match at_hand(&shared, &task).await {
            Ok(()) => shared.book.ready(task),
            Err(fault) => shared.book.faulted(entry, fault),
        }
    });
}

async fn at_hand(shared: &Arc<Shared>, task: &Task) -> Result<(), Fault> {
    task.job.prepare(shared, task.order.engine, task.lease).await?;
    if let Stdin::Slice { blob, .. } = task.order.stdin {
        fetch(shared, blob, u64::MAX, task.lease).await?;
    }
    if let Some(from) = task.order.from {
        let fetched = fetch(shared, from.snapshot, from.bytes, task.lease).await;
        fetched.map_err(|fault| Fault::new(SNAPSHOT_REFUSED, fault.detail))?;
    }
    Ok(())
}

async fn fetch(shared: &Shared, hash: BlobHash, bytes_max: u64, lease: Lease) -> Result<(), Fault> {
    let wall_ms_max =
        lease.left_ms().ok_or_else(|| Fault::new("deadline", "lease ended before the content was here"))?;
    let terms = FetchLimits { bytes_max, wall_ms_max };
    let fetched = shared.options.store.fetch(&shared.options.endpoint, hash, &shared.providers(), terms).await;
    fetched.map(drop).map_err(|error| unavailable(&error))
}

async fn content(shared: &Shared, hash: BlobHash, bytes_max: u64, lease: Lease) -> Result<Bytes, Fault> {
    fetch(shared, hash, bytes_max, lease).await?;
    shared.options.store.read(hash, bytes_max).await.map_err(|error| unavailable(&error))
}

/// Content that cannot be had.
pub(super) fn unavailable(error: &StoreError) -> Fault {
    Fault::new("content_missing", error.to_string())
}

/// Compiling takes seconds: not on a thread that carries connections.
async fn blocking(shared: &Shared, load: impl FnOnce() -> Result<(), LoadError> + Send + 'static) -> Result<(), Fault> {
    // The semaphore is never closed.
    let permit = shared.loads.clone().acquire_owned().await;
    let load = move || {
        let _permit = permit;
        load()
    };
    match tokio::task::spawn_blocking(load).await {
        Ok(loaded) => loaded.map_err(|error| Fault::new(error.word(), error.to_string())),
        Err(_) => Err(Fault::new("internal", "loading a module or model panicked")),
    }
}
