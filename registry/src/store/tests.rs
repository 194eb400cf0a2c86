//! Stories about one store, and about stores that talk over loopback.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use iroh::{
    Endpoint, EndpointAddr, SecretKey,
    endpoint::{PortmapperConfig, presets},
    protocol::Router,
};

use super::*;

mod fetch;
mod local;
mod quota;
mod serve;

/// Lengths at which the storage format changes.
const INTERESTING_SIZES: [usize; 6] = [
    0,             // no data at all; always present
    1,             // less than a chunk
    16 * 1024 - 1, // less than a chunk group: inline, no hash tree
    16 * 1024,     // exactly a chunk group: the longest inline blob
    16 * 1024 + 1, // the shortest with a file and a hash tree
    (1 << 20) + 3, // many groups, and a last one that is not full
];

const KIB: u64 = 1024;

fn small(quota_bytes_max: u64) -> StoreOptions {
    StoreOptions {
        quota_bytes_max,
        slack_bytes: 0,
        connect_ms_max: 1_000,
        stall_ms_max: 2_000,
        ..StoreOptions::default()
    }
}

async fn open(dir: &Path) -> Store {
    Store::open(dir, small(1 << 30)).await.unwrap()
}

/// Bytes that differ from place to place and from seed to seed.
fn content(seed: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn limits(bytes_max: u64) -> FetchLimits {
    FetchLimits { bytes_max, wall_ms_max: 20_000 }
}

async fn endpoint() -> Endpoint {
    let builder = Endpoint::builder(presets::Minimal).portmapper_config(PortmapperConfig::Disabled);
    builder.clear_ip_transports().bind_addr("127.0.0.1:0").unwrap().bind().await.unwrap()
}

/// A store that serves.
struct Peer {
    dir: tempfile::TempDir,
    store: Store,
    router: Router,
}

impl Peer {
    async fn start() -> Self {
        Self::start_with(Arc::new(|_| true)).await
    }

    async fn start_with(access: Access) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir.path().join("store")).await;
        let router = Router::builder(endpoint().await).accept(ALPN, store.protocol(access)).spawn();
        Self { dir, store, router }
    }

    async fn with(blobs: &[Bytes]) -> Self {
        let peer = Self::start().await;
        for blob in blobs {
            peer.store.publish_bytes(blob.clone()).await.unwrap();
        }
        peer
    }

    fn endpoint(&self) -> &Endpoint {
        self.router.endpoint()
    }

    fn addr(&self) -> EndpointAddr {
        addr(self.endpoint())
    }

    fn id(&self) -> NodeId {
        node_id(self.endpoint().id())
    }

    async fn stop(self) {
        self.router.shutdown().await.unwrap();
        self.store.shutdown().await.unwrap();
    }
}

fn addr(endpoint: &Endpoint) -> EndpointAddr {
    EndpointAddr::new(endpoint.id()).with_ip_addr(endpoint.bound_sockets()[0])
}

/// An address where nobody answers.
fn nobody() -> EndpointAddr {
    EndpointAddr::new(SecretKey::from_bytes(&[9; 32]).public()).with_ip_addr("127.0.0.1:9".parse().unwrap())
}

/// Bytes of all files under a directory.
fn disk_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            let about = entry.metadata().unwrap();
            if about.is_dir() { disk_bytes(&entry.path()) } else { about.len() }
        })
        .sum()
}
