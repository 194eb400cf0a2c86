//! Nothing is accepted that could not run: modules are checked and models loaded before a job is taken, not hours after.
//!
//! Verdicts are of content, so they are remembered by hash. Whether the content is still here is looked at each time.

use axum::http::StatusCode;
use registry::{
    id::{BlobHash, ModelHash, ModuleHash},
    job::{JobInput, JobSpec},
    store::Store,
};
use tokio::sync::Semaphore;

use super::{ApiError, bounded::Bounded};
use crate::{
    limits,
    sandbox::{EngineDescription, LoadError, ModuleInfo, Refusal, Sandbox},
    task::{self, Unfit},
};

pub(super) struct Preflight {
    store: Store,
    sandbox: Sandbox,
    modules: Bounded<ModuleHash, Result<ModuleInfo, Refusal>>,
    models: Bounded<ModelHash, Result<(), LoadError>>,
    room: Semaphore,
}

impl Preflight {
    pub(super) fn new(store: Store, sandbox: Sandbox) -> Self {
        Self {
            store,
            sandbox,
            modules: Bounded::new(limits::PREFLIGHT_VERDICTS_MAX),
            models: Bounded::new(limits::PREFLIGHT_VERDICTS_MAX),
            room: Semaphore::new(limits::PREFLIGHTS_MAX),
        }
    }

    /// The engine that modules and models are tried on.
    pub(super) fn engine(&self) -> &EngineDescription {
        self.sandbox.describe()
    }

    /// Whether every task of the job could run, given a host that is large enough.
    pub(super) async fn job(&self, spec: &JobSpec) -> Result<(), ApiError> {
        task::check_limits(&spec.limits)?;
        let module = self.module(spec.module).await?;
        task::check_memory(&module, &spec.limits)?;
        for model in spec.models.values() {
            self.model(*model).await?;
        }
        for (name, file) in &spec.files {
            self.present(&format!("file `{name}`"), *file)?;
        }
        match &spec.input {
            JobInput::Blob(blob) => self.present("input", *blob),
            JobInput::Blobs(blobs) => blobs.iter().try_for_each(|blob| self.present("input", *blob)),
            JobInput::None | JobInput::Inline(_) => Ok(()),
        }
    }

    /// The module, when it may run.
    pub(super) async fn module(&self, module: ModuleHash) -> Result<ModuleInfo, ApiError> {
        self.present("module", module.into())?;
        if let Some(verdict) = self.modules.get(&module) {
            return Ok(verdict?);
        }
        let bytes = self.read(module.into(), limits::MODULE_BYTES_MAX).await?;
        let verdict = self.blocking(move || Sandbox::preflight(&bytes)).await?;
        self.modules.insert(module, verdict.clone());
        Ok(verdict?)
    }

    /// Nothing, when the model loads.
    pub(super) async fn model(&self, model: ModelHash) -> Result<(), ApiError> {
        self.present("model", model.into())?;
        if let Some(verdict) = self.models.get(&model) {
            return Ok(verdict?);
        }
        let bytes = self.read(model.into(), limits::MODEL_BYTES_MAX).await?;
        let sandbox = self.sandbox.clone();
        let verdict = self.blocking(move || sandbox.load_model(model, &bytes).map(drop)).await?;
        // What befell a process here says nothing about the model for ever.
        if !matches!(verdict, Err(LoadError::SandboxDied { .. })) {
            self.models.insert(model, verdict.clone());
        }
        Ok(verdict?)
    }

    fn present(&self, what: &str, blob: BlobHash) -> Result<(), ApiError> {
        if self.store.has(blob) {
            return Ok(());
        }
        Err(ApiError::not_found("unknown_blob", format!("{what} {blob} is not in the store: push it first")))
    }

    async fn read(&self, blob: BlobHash, bytes_max: u64) -> Result<bytes::Bytes, ApiError> {
        // One that is over the bound would be refused after it is read; the store says so before.
        self.store.read(blob, bytes_max).await.map_err(|error| {
            let error = ApiError::from(error);
            if error.status == StatusCode::PAYLOAD_TOO_LARGE {
                ApiError::unprocessable("too_large", error)
            } else {
                error
            }
        })
    }

    /// Runs a check where it may take its time; few at once.
    async fn blocking<T: Send + 'static>(&self, check: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let stopping = |_| ApiError::later(StatusCode::SERVICE_UNAVAILABLE, "stopping", "gateway is stopping");
        let _permit = self.room.acquire().await.map_err(stopping)?;
        let broke = |_| ApiError::unprocessable("preflight", "check of the content broke down: it is not accepted");
        tokio::task::spawn_blocking(check).await.map_err(broke)
    }
}

impl From<Unfit> for ApiError {
    fn from(unfit: Unfit) -> Self {
        Self::unprocessable(unfit.word(), unfit)
    }
}
