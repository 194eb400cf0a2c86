//! How fast does a blob travel, against a verified HTTP download?
//!
//! The HTTP side is as lean as such a download gets: hyper streams a file over plain TCP on loopback, the client hashes
//! what comes with BLAKE3 and writes it to a file. Ours is [`Store::fetch`] between real endpoints on loopback: encrypted,
//! both ends known by key, every 16 KiB verified as they arrive, resumable, kept in the store's books. Providers publish
//! one and the same file by reference; a fetching store is new in each round and deleted after it. Dialling is timed,
//! opening a store is not. Nobody waits for the disk (no `fsync`), on either side.
//!
//! Everything runs in one process, so that CPU seconds are those of both ends, and rounds are interleaved; medians of
//! rounds. MB/s and GB count what all takers got, together. `QUORATE_BENCH_MIB` sets the length of the blob.
#![allow(clippy::print_stdout, reason = "a bench prints its table")]

use std::{
    error::Error,
    fs,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use benches::{row, table};
use futures::{TryStreamExt, future::try_join_all};
use host::clock::Stopwatch;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::{
    Request, Response,
    body::{Bytes, Frame},
    client, server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use iroh::{
    Endpoint, EndpointAddr,
    endpoint::{PortmapperConfig, presets},
    protocol::Router,
};
use registry::{
    id::BlobHash,
    store::{ALPN, FetchLimits, Store, StoreOptions},
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};
use tokio_util::io::ReaderStream;

type Failure = Box<dyn Error + Send + Sync>;

const MIB_DEFAULT: u64 = 256;
const ROUNDS: usize = 5;
/// What the HTTP server reads and sends at a time.
const HTTP_CHUNK_BYTES: usize = 256 << 10;
/// Linux counts CPU time in these.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Http,
    Fetch { providers: usize },
}

struct Case {
    what: &'static str,
    way: Way,
    takers: usize,
}

const CASES: [Case; 5] = [
    Case { what: "HTTP and BLAKE3, 1 -> 1", way: Way::Http, takers: 1 },
    Case { what: "Store::fetch, 1 -> 1", way: Way::Fetch { providers: 1 }, takers: 1 },
    Case { what: "Store::fetch, 5 -> 1, split", way: Way::Fetch { providers: 5 }, takers: 1 },
    Case { what: "HTTP and BLAKE3, 1 -> 5 at once", way: Way::Http, takers: 5 },
    Case { what: "Store::fetch, 1 -> 5 at once", way: Way::Fetch { providers: 1 }, takers: 5 },
];

/// What one round of one case took.
#[derive(Clone, Copy)]
struct Sample {
    seconds: f64,
    cpu_seconds: f64,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mib = std::env::var("QUORATE_BENCH_MIB").map_or(Ok(MIB_DEFAULT), |mib| mib.parse())?;
    // Not in /tmp, which may be memory.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let scene = Scene::set(dir.path(), mib << 20).await?;
    let mut samples: [Vec<Sample>; CASES.len()] = Default::default();
    for _ in 0..ROUNDS {
        for (case, samples) in CASES.iter().zip(&mut samples) {
            samples.push(scene.play(case).await?);
        }
    }
    println!("a blob of {mib} MiB over loopback, {ROUNDS} rounds each, interleaved; MB/s of all takers together\n");
    print(&samples, (mib << 20) as f64);
    scene.strike().await
}

fn print(samples: &[Vec<Sample>], len: f64) {
    let speed = |index: usize| len * CASES[index].takers as f64 / median(&samples[index], |sample| sample.seconds);
    let rows = CASES.iter().enumerate().map(|(index, case)| {
        let http = CASES.iter().position(|other| other.way == Way::Http && other.takers == case.takers);
        let cpu_seconds = median(&samples[index], |sample| sample.cpu_seconds);
        row![
            case.what,
            format!("{:.0}", speed(index) / 1e6),
            http.map_or_else(String::new, |http| format!("{:.2}", speed(index) / speed(http))),
            format!("{:.1}", cpu_seconds / (len * case.takers as f64 / 1e9)),
        ]
    });
    let heading = row!["", "MB/s", "x HTTP", "CPU s per GB, all ends"];
    table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>());
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// CPU seconds of this process until now, all threads, those that ended too.
fn cpu_seconds() -> Result<f64, Failure> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name of the process, in parentheses, may hold anything; user and system time are 12 and 13 fields after it.
    let (_, fields) = stat.rsplit_once(')').ok_or("/proc/self/stat names no process")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// The blob and those who give it.
struct Scene {
    dir: PathBuf,
    hash: BlobHash,
    len: u64,
    http: SocketAddr,
    providers: Vec<Provider>,
}

struct Provider {
    store: Store,
    router: Router,
}

impl Scene {
    async fn set(dir: &Path, len: u64) -> Result<Self, Failure> {
        let path = dir.join("blob");
        let hash = write_blob(&path, len)?;
        let http = serve_file(path.clone()).await?;
        let providers_max =
            CASES.iter().map(|case| if let Way::Fetch { providers } = case.way { providers } else { 0 }).max();
        let mut providers = Vec::new();
        for provider in 0..providers_max.unwrap_or(0) {
            let store = Store::open(&dir.join(format!("provider-{provider}")), StoreOptions::default()).await?;
            store.publish_path(&path).await?;
            let router = Router::builder(endpoint().await?).accept(ALPN, store.protocol(Arc::new(|_| true))).spawn();
            providers.push(Provider { store, router });
        }
        Ok(Self { dir: dir.to_owned(), hash, len, http, providers })
    }

    async fn play(&self, case: &Case) -> Result<Sample, Failure> {
        let dir = tempfile::tempdir_in(&self.dir)?;
        match case.way {
            Way::Http => {
                let paths = (0..case.takers).map(|taker| dir.path().join(taker.to_string()));
                sample(paths.map(|path| download(self.http, path, self.hash))).await
            }
            Way::Fetch { providers } => self.fetch(dir.path(), providers, case.takers).await,
        }
    }

    async fn fetch(&self, dir: &Path, providers: usize, takers: usize) -> Result<Sample, Failure> {
        let from: Vec<_> =
            self.providers.iter().take(providers).map(|provider| addr(provider.router.endpoint())).collect();
        let mut ends = Vec::new();
        for taker in 0..takers {
            let store = Store::open(&dir.join(taker.to_string()), StoreOptions::default()).await?;
            ends.push((store, endpoint().await?));
        }
        let fetches = ends.iter().map(|(store, endpoint)| {
            let (store, endpoint, from, hash) = (store.clone(), endpoint.clone(), from.clone(), self.hash);
            async move { Ok(store.fetch(&endpoint, hash, &from, FetchLimits::default()).await?.len) }
        });
        let sample = sample(fetches).await?;
        for (store, endpoint) in ends {
            let moved = store.stats().bytes_fetched;
            store.shutdown().await?;
            endpoint.close().await;
            assert_eq!(moved, self.len, "a fetch moves every byte once");
        }
        Ok(sample)
    }

    async fn strike(self) -> Result<(), Failure> {
        for Provider { store, router } in self.providers {
            router.shutdown().await?;
            store.shutdown().await?;
        }
        Ok(())
    }
}

/// Runs transfers at once, a task each, and says what they took together.
async fn sample<T>(transfers: impl Iterator<Item = T>) -> Result<Sample, Failure>
where
    T: Future<Output = Result<u64, Failure>> + Send + 'static,
{
    let (before, watch) = (cpu_seconds()?, Stopwatch::start());
    for transfer in try_join_all(transfers.map(tokio::spawn)).await? {
        transfer?;
    }
    let seconds = watch.elapsed().max(Duration::from_nanos(1)).as_secs_f64();
    Ok(Sample { seconds, cpu_seconds: cpu_seconds()? - before })
}

/// Writes a blob that cannot be compressed, and hashes it.
fn write_blob(path: &Path, len: u64) -> Result<BlobHash, Failure> {
    let mut file = fs::File::create(path)?;
    let mut source = blake3::Hasher::new_derive_key("quorate benches blobs").finalize_xof();
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; 1 << 20];
    for _ in 0..len >> 20 {
        source.fill(&mut piece);
        hasher.update(&piece);
        file.write_all(&piece)?;
    }
    file.sync_all()?;
    Ok(BlobHash(*hasher.finalize().as_bytes()))
}

/// Serves one file over HTTP, whatever is asked for, until the process ends.
async fn serve_file(path: PathBuf) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let path = path.clone();
            let answer = service_fn(move |_| {
                let path = path.clone();
                async move {
                    let file = tokio::fs::File::open(path).await?;
                    let chunks = ReaderStream::with_capacity(file, HTTP_CHUNK_BYTES).map_ok(Frame::data);
                    Ok::<_, io::Error>(Response::new(StreamBody::new(chunks)))
                }
            });
            tokio::spawn(server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    Ok(addr)
}

/// Downloads a file over HTTP and hashes it as it comes; gives its length.
async fn download(from: SocketAddr, to: PathBuf, expected: BlobHash) -> Result<u64, Failure> {
    let stream = TokioIo::new(TcpStream::connect(from).await?);
    let (mut sender, connection) = client::conn::http1::handshake(stream).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/").header("host", "bench").body(Empty::<Bytes>::new())?;
    let mut body = sender.send_request(request).await?.into_body();
    let mut file = tokio::fs::File::create(to).await?;
    let (mut hasher, mut len) = (blake3::Hasher::new(), 0);
    while let Some(frame) = body.frame().await {
        if let Ok(chunk) = frame?.into_data() {
            hasher.update(&chunk);
            file.write_all(&chunk).await?;
            len += chunk.len() as u64;
        }
    }
    file.flush().await?;
    drop(sender);
    connection.await??;
    assert_eq!(*hasher.finalize().as_bytes(), expected.0, "the download is the blob");
    Ok(len)
}

async fn endpoint() -> Result<Endpoint, Failure> {
    let builder = Endpoint::builder(presets::Minimal).portmapper_config(PortmapperConfig::Disabled);
    Ok(builder.clear_ip_transports().bind_addr("127.0.0.1:0")?.bind().await?)
}

fn addr(endpoint: &Endpoint) -> EndpointAddr {
    endpoint.bound_sockets().into_iter().fold(EndpointAddr::new(endpoint.id()), EndpointAddr::with_ip_addr)
}
