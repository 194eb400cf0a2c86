//! From what a submitter writes to a [`JobSpec`]: names become hashes, and the module's manifest fills what is left out.

use std::{collections::BTreeMap, sync::Arc};

use axum::http::StatusCode;
use registry::{
    canon,
    id::{ManifestHash, ModelHash, ModuleHash},
    job::{Class, JOB_BYTES_MAX, JobSpec, Limits},
    manifest::{MANIFEST_BYTES_MAX, Manifest},
    name::{Name, NameError},
    store::Store,
    tolerance::Tolerance,
};

use super::{ApiError, Gateway, bounded::Bounded, wire::JobRequest};
use crate::limits;

/// A random nonce has so many bits: what every JSON parser reads exactly.
const NONCE_BITS: u32 = 53;

/// Manifests that were read before.
pub(super) struct Manifests(Bounded<ManifestHash, Arc<Manifest>>);

impl Manifests {
    pub(super) fn new() -> Self {
        Self(Bounded::new(limits::PREFLIGHT_VERDICTS_MAX))
    }

    pub(super) async fn get(&self, store: &Store, hash: ManifestHash) -> Result<Arc<Manifest>, ApiError> {
        if let Some(manifest) = self.0.get(&hash) {
            return Ok(manifest);
        }
        let bytes = store.read(hash.into(), MANIFEST_BYTES_MAX as u64).await?;
        let refused = |error| ApiError::unprocessable("manifest", format!("blob {hash} is no manifest: {error}"));
        let manifest = Arc::new(Manifest::from_bytes(&bytes).map_err(refused)?);
        self.0.insert(hash, manifest.clone());
        Ok(manifest)
    }
}

/// What a module brings along.
struct Module {
    hash: ModuleHash,
    models: BTreeMap<String, ModelHash>,
    tolerances: BTreeMap<ModelHash, Tolerance>,
    class: Class,
    limits: Limits,
}

/// The job that the request asks for, within every rule that needs no look at a blob.
pub(super) async fn resolve(gateway: &Gateway, request: JobRequest) -> Result<JobSpec, ApiError> {
    let module = module(gateway, &request.module).await?;
    let nonce = match request.nonce {
        Some(nonce) => nonce,
        None => random_nonce()?,
    };
    let plain = JobSpec::new(module.hash, nonce);
    let class = request.class.unwrap_or(module.class);
    let models = request.models.unwrap_or(module.models);
    let spec = JobSpec {
        args: request.args,
        env: request.env,
        files: request.files,
        tolerances: tolerances(request.tolerances, class, &models, &module.tolerances),
        models,
        input: request.input.into(),
        split: request.split,
        reduce: request.reduce,
        policy: request.policy,
        class,
        profile: request.profile,
        device: request.device,
        device_memory_bytes_min: request.device_memory_bytes_min.unwrap_or(0),
        limits: request.limits.over(module.limits),
        attempts_max: request.attempts_max.unwrap_or(plain.attempts_max),
        deadline_ms: request.deadline_ms.unwrap_or(plain.deadline_ms),
        ..plain
    };
    spec.check()?;
    let bytes = canon::encode(&spec).len();
    if bytes > JOB_BYTES_MAX {
        let message = format!("job of {bytes} bytes is over the bound of {JOB_BYTES_MAX}: put its input into one blob");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message));
    }
    Ok(spec)
}

/// What the submitter says, or what the module's publisher measured of the very models that the job has.
fn tolerances(
    asked: Option<BTreeMap<String, Tolerance>>,
    class: Class,
    models: &BTreeMap<String, ModelHash>,
    published: &BTreeMap<ModelHash, Tolerance>,
) -> BTreeMap<String, Tolerance> {
    match asked {
        Some(asked) => asked,
        None if class != Class::Tolerant => BTreeMap::new(),
        None => models.iter().filter_map(|(name, model)| Some((name.clone(), *published.get(model)?))).collect(),
    }
}

async fn module(gateway: &Gateway, text: &str) -> Result<Module, ApiError> {
    if let Ok(hash) = text.parse::<ModuleHash>() {
        return Ok(Module {
            hash,
            models: BTreeMap::new(),
            tolerances: BTreeMap::new(),
            class: Class::default(),
            limits: Limits::default(),
        });
    }
    let name: Name = text.parse().map_err(|_: NameError| {
        let shown: String = text.chars().take(80).collect();
        ApiError::malformed(format!(
            "`{shown}` is no module: give a name such as alice/digits@1, or the 64 hexadecimal digits of a module's hash"
        ))
    })?;
    let manifest = gateway.inner.coordinator.resolve(&name)?;
    match &*gateway.inner.manifests.get(&gateway.inner.store, manifest).await? {
        Manifest::Task(task) => {
            let models = task.models.iter().map(|(name, model)| (name.clone(), model.model)).collect();
            let tolerances = task.models.values().filter_map(|model| Some((model.model, model.tolerance?))).collect();
            Ok(Module { hash: task.module, models, tolerances, class: task.class, limits: task.limits })
        }
        Manifest::Model(_) => Err(ApiError::unprocessable(
            "not_a_module",
            format!("{name} is a model: name a task module, and the model under `models`"),
        )),
    }
}

fn random_nonce() -> Result<u64, ApiError> {
    let failed = |error| {
        ApiError::later(StatusCode::SERVICE_UNAVAILABLE, "random", format!("system has no randomness: {error}"))
    };
    Ok(getrandom::u64().map_err(failed)? >> (u64::BITS - NONCE_BITS))
}
