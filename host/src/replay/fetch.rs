//! Fills a folder with what the replay of a record needs, from a coordinator.
//!
//! Each file is held against its hash as it comes, and the input against the record's task id: what is in the folder
//! afterwards is right, whoever the coordinator is. What is in the folder already is not fetched again.

use std::path::Path;

use registry::{
    canon,
    id::{BlobHash, ID_BYTES, TaskId},
    job::{JobSpec, ShardInfo, Stage, TaskKey},
    preimage::{Preimage, PreimageError},
    receipt::{Checked, Output},
    segment::SEGMENT_RECORD_BYTES_MAX,
};
use tokio::io::AsyncWriteExt;

use super::{ContentError, Folder, is_empty};
use crate::{
    client::{Client, ClientError, Download},
    limits,
    sandbox::EngineDescription,
};

/// Why content was not fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The coordinator says no, or nothing.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// The folder.
    #[error("{0}")]
    Content(#[from] ContentError),
    /// The coordinator gave something else than its hash says.
    #[error("coordinator gave something else than was asked for: {0}")]
    Preimage(#[from] PreimageError),
    /// The same of a blob.
    #[error("coordinator gave content with hash {found} for {what} {expected}")]
    Hash {
        /// Which kind.
        what: &'static str,
        /// As asked.
        expected: BlobHash,
        /// As computed.
        found: BlobHash,
    },
    /// The coordinator's job, shard and input are not those of the record's task.
    #[error("record's task is {signed}, but the coordinator's job, shard and input give {found}")]
    Task {
        /// As signed.
        signed: TaskId,
        /// As computed.
        found: TaskId,
    },
    /// It gives more than such content may have.
    #[error("coordinator gives more than the {bytes_max} bytes that {what} may have")]
    TooLarge {
        /// Which kind.
        what: &'static str,
        /// Largest allowed.
        bytes_max: u64,
    },
}

/// What was fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// Fetches what a checked record's replay needs, and what its shard wrote, as far as it is not in the folder.
///
/// # Errors
/// When the coordinator has it no more, or gives something else.
pub(crate) async fn fetch(client: &Client, record: &Checked, folder: &Folder) -> Result<Fetched, FetchError> {
    let mut fetch = Fetch { client, folder, fetched: Fetched::default() };
    let spec: JobSpec = fetch.preimage(record.job.0, &format!("/v1/jobs/{}/spec", record.job)).await?;
    fetch.blob("module", spec.module.into(), limits::MODULE_BYTES_MAX).await?;
    for model in spec.models.values() {
        fetch.blob("model", (*model).into(), limits::MODEL_BYTES_MAX).await?;
    }
    for file in spec.files.values() {
        fetch.blob("file", *file, limits::FILE_CACHE_BYTES_MAX).await?;
    }
    let shard = shard_route(record);
    fetch.input(record, &spec, &shard).await?;
    // Where results differ there is none: what each host wrote was never the grid's.
    if record.differing.is_none() {
        fetch.output(record, &shard).await?;
    }
    if let Some(answers) = record.nn_record {
        fetch.blob("record of inferences", answers, limits::NN_RECORD_FILE_BYTES_MAX as u64).await?;
    }
    if let Some(segments) = record.segment_record {
        fetch.blob("record of segments", segments, SEGMENT_RECORD_BYTES_MAX as u64).await?;
    }
    if let Some(snapshot) = record.snapshot {
        fetch.blob("snapshot", snapshot, limits::CHECKPOINT_BYTES_MAX).await?;
    }
    fetch.engine(record).await?;
    Ok(fetch.fetched)
}

fn shard_route(record: &Checked) -> String {
    let ShardInfo { stage, index, .. } = record.shard;
    let stage = match stage {
        Stage::Map => "map",
        Stage::Reduce => "reduce",
    };
    format!("/v1/jobs/{}/shards/{stage}/{index}", record.job)
}

struct Fetch<'a> {
    client: &'a Client,
    folder: &'a Folder,
    fetched: Fetched,
}

impl Fetch<'_> {
    /// A value that its name proves.
    async fn preimage<P: Preimage>(&mut self, name: [u8; ID_BYTES], route: &str) -> Result<P, FetchError> {
        if let Some(value) = self.folder.preimage(name)? {
            return Ok(value);
        }
        let bytes = short(self.client.download(route).await?, P::WHAT, P::BYTES_MAX as u64).await?;
        let value = P::open(name, &bytes)?;
        self.folder.put(&value)?;
        self.count(bytes.len() as u64);
        Ok(value)
    }

    async fn blob(&mut self, what: &'static str, hash: BlobHash, bytes_max: u64) -> Result<(), FetchError> {
        self.blob_from(what, hash, bytes_max, &format!("/v1/blobs/{hash}")).await
    }

    async fn blob_from(
        &mut self,
        what: &'static str,
        hash: BlobHash,
        bytes_max: u64,
        route: &str,
    ) -> Result<(), FetchError> {
        if self.folder.has(hash.0) || is_empty(hash).is_some() {
            return Ok(());
        }
        self.stream(what, route, bytes_max, |found| {
            if found == hash { Ok(()) } else { Err(FetchError::Hash { what, expected: hash, found }) }
        })
        .await?;
        Ok(())
    }

    /// The input, which is right when it gives the record's task.
    async fn input(&mut self, record: &Checked, spec: &JobSpec, shard: &str) -> Result<(), FetchError> {
        let signed = record.execution.task;
        if let Some(key) = self.folder.preimage::<TaskKey>(signed.0)?
            && (self.folder.has(key.input.0) || is_empty(key.input).is_some())
        {
            return Ok(());
        }
        let key = |input| TaskKey { template: spec.template().hash(), shard: record.shard, input };
        let input = self
            .stream("input", &format!("{shard}/input"), limits::STDIN_BYTES_MAX, |input| {
                let found = TaskId(key(input).name());
                if found == signed { Ok(()) } else { Err(FetchError::Task { signed, found }) }
            })
            .await?;
        self.folder.put(&key(input))?;
        self.count(canon::encode(&key(input)).len() as u64);
        Ok(())
    }

    /// What the shard wrote: a replay that differs can say where.
    async fn output(&mut self, record: &Checked, shard: &str) -> Result<(), FetchError> {
        let output: Output = self.preimage(record.execution.output.0, &format!("{shard}/output")).await?;
        self.blob_from("output", output.stdout, limits::OUTPUT_BYTES_MAX, &format!("{shard}/stdout")).await?;
        for file in &output.files {
            self.blob("output", file.hash, limits::OUTPUT_BYTES_MAX).await?;
        }
        Ok(())
    }

    /// The engine's description, if the coordinator's is the one that signed: hosts tell it their fingerprints alone.
    async fn engine(&mut self, record: &Checked) -> Result<(), FetchError> {
        let name = record.execution.engine.0;
        if self.folder.has(name) {
            return Ok(());
        }
        let bytes_max = EngineDescription::BYTES_MAX as u64;
        let bytes = short(self.client.download("/v1/engine").await?, EngineDescription::WHAT, bytes_max).await?;
        if let Ok(description) = EngineDescription::open(name, &bytes) {
            self.folder.put(&description)?;
            self.count(bytes.len() as u64);
        }
        Ok(())
    }

    /// Streams content into a file, which gets its hash as its name once `accept` has seen it.
    async fn stream(
        &mut self,
        what: &'static str,
        route: &str,
        bytes_max: u64,
        accept: impl FnOnce(BlobHash) -> Result<(), FetchError>,
    ) -> Result<BlobHash, FetchError> {
        let part = self.folder.part()?;
        let written = write(self.client.download(route).await?, what, &part, bytes_max).await;
        let settled = written.and_then(|(hash, bytes)| {
            accept(hash)?;
            self.folder.settle(&part, hash.0)?;
            Ok((hash, bytes))
        });
        if settled.is_err() {
            // What was refused must not lie about; that it cannot be removed is the smaller trouble.
            let _ = tokio::fs::remove_file(&part).await;
        }
        let (hash, bytes) = settled?;
        self.count(bytes);
        Ok(hash)
    }

    fn count(&mut self, bytes: u64) {
        self.fetched.files += 1;
        self.fetched.bytes += bytes;
    }
}

async fn write(
    mut download: Download,
    what: &'static str,
    path: &Path,
    bytes_max: u64,
) -> Result<(BlobHash, u64), FetchError> {
    let failed = |source| ContentError::File { path: path.to_owned(), source };
    let mut file = tokio::fs::File::create(path).await.map_err(failed)?;
    let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
    while let Some(chunk) = download.next().await? {
        bytes += chunk.len() as u64;
        if bytes > bytes_max {
            return Err(FetchError::TooLarge { what, bytes_max });
        }
        hasher.update(&chunk);
        file.write_all(&chunk).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    Ok((BlobHash(*hasher.finalize().as_bytes()), bytes))
}

async fn short(mut download: Download, what: &'static str, bytes_max: u64) -> Result<Vec<u8>, FetchError> {
    let mut all = Vec::new();
    while let Some(chunk) = download.next().await? {
        if all.len() as u64 + chunk.len() as u64 > bytes_max {
            return Err(FetchError::TooLarge { what, bytes_max });
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}
