//! One request to one provider: ranges of one blob, verified as they arrive and written as they are verified.

use std::{io, num::NonZeroU64, sync::Arc, time::Duration};

use iroh::endpoint::{Connection, ConnectionError, ReadError, VarInt};
use iroh_blobs::{
    get::{
        GetError, GetResult,
        fsm::{self, AtBlobContent, AtBlobHeaderNextError, BlobContentNext, ConnectedNext, DecodeError, EndBlobNext},
        request::get_verified_size,
    },
    protocol::{ChunkRanges, ERR_INTERNAL, ERR_PERMISSION, GetRequest},
    store::{IROH_BLOCK_SIZE, fs::FsStore},
};

use super::{
    error::{AtStage, StoreError},
    fault::ProviderFault,
    iroh_hash,
};
use crate::id::BlobHash;

const STAGE: &str = "fetch";
/// Verified pieces of 16 KiB on their way to the disk.
const PIECES_IN_FLIGHT_MAX: u64 = 64;

/// Why a transfer stopped: the provider is given up, or the fetch as a whole is.
pub(super) enum Stop {
    Provider(ProviderFault),
    Local(StoreError),
}

impl From<ProviderFault> for Stop {
    fn from(fault: ProviderFault) -> Self {
        Self::Provider(fault)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Local(error)
    }
}

/// An answer that has begun. Only its header was read: dropping it costs nothing.
pub(super) struct Incoming {
    hash: BlobHash,
    connection: Connection,
    content: AtBlobContent,
    stall_ms_max: u64,
    /// Length of the whole blob as the provider claims it.
    pub(super) claimed_bytes: u64,
}

/// Asks for ranges of a blob and reads the header of the answer.
pub(super) async fn ask(
    connection: &Connection,
    hash: BlobHash,
    ranges: ChunkRanges,
    stall_ms_max: u64,
) -> Result<Incoming, ProviderFault> {
    let request = GetRequest::blob_ranges(iroh_hash(hash), ranges);
    let asked = async {
        let connected = fsm::start(connection.clone(), request, Default::default()).next().await?.next().await?;
        match connected {
            ConnectedNext::StartRoot(root) => GetResult::Ok(Some(root.next().next().await?)),
            ConnectedNext::StartChild(_) | ConnectedNext::Closing(_) => Ok(None),
        }
    };
    let answer = in_time(stall_ms_max, asked).await?.map_err(|error| fault(connection, error))?;
    let (content, claimed_bytes) = answer.ok_or(ProviderFault::Missing)?;
    Ok(Incoming { hash, connection: connection.clone(), content, stall_ms_max, claimed_bytes })
}

/// The length of a blob, proven by its last chunk.
pub(super) async fn verified_len(
    connection: &Connection,
    hash: BlobHash,
    stall_ms_max: u64,
) -> Result<u64, ProviderFault> {
    let hash = iroh_hash(hash);
    let answer = in_time(stall_ms_max, get_verified_size(connection, &hash)).await?;
    answer.map(|(len, _stats)| len).map_err(|error| fault(connection, error))
}

impl Incoming {
    /// Reads, verifies and keeps the ranges asked for, and counts content as it arrives. Whatever was verified before a failure is kept too.
    pub(super) async fn keep(self, fs: &FsStore, count: impl Fn(u64)) -> Result<(), Stop> {
        let Self { hash, connection, mut content, stall_ms_max, claimed_bytes } = self;
        let Some(len) = NonZeroU64::new(claimed_bytes) else {
            let cause = Arc::new(io::Error::other("it claims that a blob that is not empty is"));
            return Err(ProviderFault::Corrupt { cause }.into());
        };
        let buffered = (len.get() / IROH_BLOCK_SIZE.bytes() as u64 + 2).min(PIECES_IN_FLIGHT_MAX);
        let import = fs.import_bao(iroh_hash(hash), len, buffered as usize).await.at(STAGE)?;
        let receive = async {
            let verified = import.tx;
            let mut seen_bytes = 0;
            let end = loop {
                match in_time(stall_ms_max, content.next()).await? {
                    BlobContentNext::More((rest, item)) => {
                        let item = item.map_err(|error| fault(&connection, error.into()))?;
                        let read_bytes = rest.stats().payload_bytes_read;
                        count(read_bytes - seen_bytes);
                        seen_bytes = read_bytes;
                        verified.send(item).await.at(STAGE)?;
                        content = rest;
                    }
                    BlobContentNext::Done(end) => break end,
                }
            };
            if let EndBlobNext::Closing(closing) = end.next() {
                // Everything is here; reading the end only tells the provider so.
                in_time(stall_ms_max, closing.next()).await?.ok();
            }
            Ok::<(), Stop>(())
        };
        let keep = async { import.rx.await.at(STAGE)?.at(STAGE) };
        let (received, kept) = tokio::join!(receive, keep);
        kept?;
        received
    }
}

async fn in_time<T>(stall_ms_max: u64, step: impl Future<Output = T>) -> Result<T, ProviderFault> {
    let step = tokio::time::timeout(Duration::from_millis(stall_ms_max), step).await;
    step.map_err(|_| ProviderFault::Stalled { stall_ms_max })
}

/// What a failed request says about the provider.
fn fault(connection: &Connection, error: GetError) -> ProviderFault {
    let code = reset_code(&error);
    if code == Some(ERR_PERMISSION) || was_refused(connection) {
        return ProviderFault::Refused;
    }
    match &error {
        GetError::AtBlobHeaderNext { source: AtBlobHeaderNextError::NotFound { .. }, .. } => ProviderFault::Missing,
        GetError::AtBlobHeaderNext { .. } if code == Some(ERR_INTERNAL) => ProviderFault::Missing,
        GetError::Decode { source, .. } => match source {
            DecodeError::ChunkNotFound { .. }
            | DecodeError::ParentNotFound { .. }
            | DecodeError::LeafNotFound { .. } => ProviderFault::Missing,
            DecodeError::ParentHashMismatch { .. } | DecodeError::LeafHashMismatch { .. } => {
                ProviderFault::Corrupt { cause: Arc::new(error) }
            }
            _ => ProviderFault::Broken { cause: Arc::new(error) },
        },
        _ => ProviderFault::Broken { cause: Arc::new(error) },
    }
}

fn reset_code(error: &GetError) -> Option<VarInt> {
    match error.remote_read()?.get_ref()?.downcast_ref::<ReadError>()? {
        ReadError::Reset(code) => Some(*code),
        _ => None,
    }
}

fn was_refused(connection: &Connection) -> bool {
    match connection.close_reason() {
        Some(ConnectionError::ApplicationClosed(close)) => close.error_code == ERR_PERMISSION,
        _ => false,
    }
}
