//! Names: published by statements that their publishers signed. The gateway holds no key.

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::StatusCode,
};
use grid::dispatch::Unsteady;
use registry::{
    canon,
    id::{BlobHash, ManifestHash},
    manifest::{Manifest, TaskManifest},
    name::{Name, NameError, NameStatement},
    sign::Signed,
};
use serde::Serialize;

use super::{ApiError, Gateway, blobs, wire::NameRow};
use crate::limits;

/// Who pins the content of a published name.
const PIN_OWNER: &str = "name";

/// `GET /v1/names`
pub(super) async fn list(State(gateway): State<Gateway>) -> Json<Vec<NameRow>> {
    let names = gateway.inner.coordinator.names().into_iter();
    Json(names.map(|(name, entry)| NameRow { name, manifest: entry.manifest, yanked: entry.yanked }).collect())
}

/// A name with its manifest.
#[derive(Debug, Serialize)]
pub(super) struct NameAnswer {
    name: Name,
    manifest: ManifestHash,
    #[serde(flatten)]
    content: Manifest,
    /// That nobody reproduced a result of its module.
    #[serde(skip_serializing_if = "Option::is_none")]
    unsteady: Option<Unsteady>,
}

/// `GET /v1/names/{publisher}/{name}/{version}`
pub(super) async fn read(
    State(gateway): State<Gateway>,
    Path((publisher, name, version)): Path<(String, String, String)>,
) -> Result<Json<NameAnswer>, ApiError> {
    let name: Name =
        format!("{publisher}/{name}@{version}").parse().map_err(|error: NameError| ApiError::from(error))?;
    let manifest = gateway.inner.coordinator.resolve(&name)?;
    let content = gateway.inner.manifests.get(&gateway.inner.store, manifest).await?;
    let content = (*content).clone();
    let unsteady = match &content {
        Manifest::Task(TaskManifest { module, .. }) => {
            let module = *module;
            gateway.inner.coordinator.ask(move |state| state.unsteady(module)).await?
        }
        Manifest::Model(_) => None,
    };
    Ok(Json(NameAnswer { name, manifest, content, unsteady }))
}

/// `POST /v1/names`: a signed statement in canonical CBOR.
pub(super) async fn publish(State(gateway): State<Gateway>, body: Body) -> Result<(StatusCode, Json<Name>), ApiError> {
    let bytes = blobs::collect(body, limits::HTTP_NAME_BYTES_MAX).await?;
    let statement: Signed<NameStatement> = canon::decode(&bytes, limits::HTTP_NAME_BYTES_MAX)?;
    let (content, _) = statement.open().map_err(NameError::from)?;
    if let NameStatement::Publish { manifest, .. } = content {
        keep(&gateway, manifest).await?;
    }
    let name = gateway.inner.coordinator.publish_name(statement).await?;
    Ok((StatusCode::CREATED, Json(name)))
}

/// A name stands for content that is here and stays here.
async fn keep(gateway: &Gateway, manifest: ManifestHash) -> Result<(), ApiError> {
    let store = &gateway.inner.store;
    let mut blobs: Vec<(&str, BlobHash)> = vec![("manifest", manifest.into())];
    let content = gateway.inner.manifests.get(store, manifest).await?;
    match &*content {
        Manifest::Task(task) => {
            blobs.push(("module", task.module.into()));
            blobs.extend(task.models.values().map(|model| ("model", model.model.into())));
            blobs.extend(task.sample.map(|sample| ("sample", sample)));
            gateway.inner.preflight.module(task.module).await?;
            for model in task.models.values() {
                gateway.inner.preflight.model(model.model).await?;
            }
        }
        Manifest::Model(model) => {
            blobs.push(("model", model.model.into()));
            gateway.inner.preflight.model(model.model).await?;
        }
    }
    for (what, blob) in blobs {
        if !store.has(blob) {
            return Err(ApiError::not_found(
                "unknown_blob",
                format!("{what} {blob} is not in the store: push it first"),
            ));
        }
        store.pin_for(blob, PIN_OWNER).await?;
    }
    Ok(())
}
