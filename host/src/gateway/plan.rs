//! Cuts a job's input by streaming it through `grid::plan`: an input larger than memory is planned in one pass.

use axum::http::StatusCode;
use futures::StreamExt;
use grid::{
    flow::Plan,
    plan::{self, Cutter},
};
use registry::{
    job::{JobInput, JobSpec},
    store::Store,
};

use super::ApiError;

/// How the job is cut.
pub(super) async fn plan(store: &Store, spec: &JobSpec) -> Result<Plan, ApiError> {
    match &spec.input {
        JobInput::None => Ok(Cutter::new(&spec.split, None)?.finish()?),
        JobInput::Inline(bytes) => {
            let mut cutter = Cutter::new(&spec.split, None)?;
            cutter.push(bytes)?;
            Ok(cutter.finish()?)
        }
        JobInput::Blob(blob) => {
            let mut cutter = Cutter::new(&spec.split, Some(*blob))?;
            let mut chunks = store.reader(*blob)?;
            while let Some(chunk) = chunks.next().await {
                let failed =
                    |error| ApiError::later(StatusCode::SERVICE_UNAVAILABLE, "store", format!("input {blob}: {error}"));
                cutter.push(&chunk.map_err(failed)?)?;
            }
            Ok(cutter.finish()?)
        }
        JobInput::Blobs(blobs) => {
            let lengths: Result<Vec<_>, _> = blobs.iter().map(|blob| Ok((*blob, store.len(*blob)?))).collect();
            Ok(plan::each(&lengths.map_err(|error: registry::store::StoreError| ApiError::from(error))?))
        }
    }
}
