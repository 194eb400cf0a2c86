//! Wires the parts into processes: a coordinator ([`up`]) and a host ([`host`]). The only place that opens listeners.
//!
//! A data directory holds everything of a node: `node.key` is its identity, `blobs` its store, and at a coordinator
//! `journal.db`, the `token` of its HTTP API, the `url` it listens at, and the `ticket` that hosts join with. Files that
//! others wait for are written whole, when what they lead to is ready.
//!
//! A node stops on SIGINT or SIGTERM, or, when it is tethered, when its standard input ends. It stops in the order in
//! which work flows: no new requests, no new connections, then the journal's last commit, then the store.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use registry::{
    id::{NodeId, OperatorId},
    membership::{NodeCert, Ticket, TicketError},
    sign::{SecretKey, Signed},
    store::{Store, StoreError, StoreOptions},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

use crate::{
    client::{TOKEN_FILE, URL_FILE},
    clock,
    config::{CompileConfig, Config, ConfigError},
    coordinator::{Coordinator, StartError},
    gateway::{
        self, Gateway,
        token::{Token, TokenError},
    },
    journal::{Journal, JournalError},
    keys::{self, KeyError},
    launch::{LaunchError, Process, TICKET_FILE},
    limits,
    metrics::{CoordinatorMetrics, HostMetrics, Metrics},
    net::{
        endpoint::{self, EndpointError, EndpointOptions},
        server,
    },
    sandbox::{CompileCache, CompileOptions, Sandbox, SandboxError, SandboxOptions, Sandboxes},
    worker::{self, Conduct, WorkerError, WorkerOptions},
};

const NODE_KEY_FILE: &str = "node.key";
const OPERATOR_KEY_FILE: &str = "operator.key";
const JOURNAL_FILE: &str = "journal.db";
const BLOBS_DIR: &str = "blobs";
/// Where, in its data directory, a host keeps the log of what it signed.
pub const RECEIPTS_DIR: &str = "receipts";
const COMPILED_DIR: &str = "compiled";
const COMPILE_KEY_FILE: &str = "compile.key";

/// How a coordinator is started.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// Where its journal, blobs, keys and token are.
    pub data_dir: PathBuf,
    /// Where it answers HTTP.
    pub listen: SocketAddr,
    /// Where hosts reach it.
    pub net_listen: SocketAddr,
    /// What the ticket tells hosts instead of what is listened on, if anything.
    pub advertise: Vec<SocketAddr>,
    /// Hosts to start on this machine.
    pub hosts: u32,
    /// Operators that its owner answers for, beside those of these hosts and of the configuration.
    pub vouch: Vec<OperatorId>,
    /// Tasks that each of these runs at a time.
    pub slots: Option<u32>,
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// Whether it stops when standard input ends.
    pub tethered: bool,
}

/// How a host is started. What is absent is as the configuration says.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// The grid's ticket, or a file that holds it.
    pub join: String,
    /// Where its blobs and keys are.
    pub data_dir: PathBuf,
    /// Where it sends from and serves blobs.
    pub net_listen: SocketAddr,
    /// Tasks that it runs at a time.
    pub slots: Option<u32>,
    /// Memory in bytes that one task may have.
    pub memory_bytes_max: Option<u64>,
    /// Where it answers `/metrics`.
    pub metrics_listen: Option<SocketAddr>,
    /// The key of the operator who answers for it.
    pub operator_key: Option<PathBuf>,
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// How it behaves.
    pub conduct: Conduct,
    /// Whether it stops when standard input ends.
    pub tethered: bool,
}

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A file or directory of its own.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The address for HTTP is taken or not ours.
    #[error("cannot listen at {addr}: {source}; use another address or port")]
    Listen {
        /// Which.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The ticket is of no use.
    #[error("{0}")]
    Ticket(#[from] TicketError),
    /// The configuration is refused.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// A key.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// The token.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// The blob store.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The journal.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// The coordinator.
    #[error("{0}")]
    Start(#[from] StartError),
    /// The endpoint for QUIC.
    #[error("{0}")]
    Endpoint(#[from] EndpointError),
    /// The sandbox.
    #[error("{0}")]
    Sandbox(#[from] SandboxError),
    /// The worker ended for good.
    #[error("{0}")]
    Worker(#[from] WorkerError),
    /// A local host does not start.
    #[error("{0}")]
    Launch(#[from] LaunchError),
}

impl NodeError {
    /// Whether what was asked for makes no sense, rather than that it failed.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Ticket(_) | Self::Config(_) | Self::Key(_))
    }
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> NodeError {
    let path = path.to_owned();
    |source| NodeError::File { path, source }
}

/// Starting a process, or an engine, takes its time.
async fn starting<T: Send + 'static>(
    start: impl FnOnce() -> Result<T, SandboxError> + Send + 'static,
) -> Result<T, NodeError> {
    let started = tokio::task::spawn_blocking(start).await;
    let panicked = |error: tokio::task::JoinError| SandboxError::Thread { detail: error.to_string() };
    Ok(started.map_err(panicked).and_then(|started| started)?)
}

/// Makes the data directory, for its owner alone.
fn make_dir(dir: &Path) -> Result<(), NodeError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(file(dir))
}

/// Writes a file that somebody may be waiting for.
fn write_whole(path: &Path, text: &str) -> Result<(), NodeError> {
    let part = path.with_extension("part");
    std::fs::write(&part, text).map_err(file(&part))?;
    std::fs::rename(&part, path).map_err(file(path))
}

async fn open_store(dir: &Path, config: &Config) -> Result<Store, NodeError> {
    let options = StoreOptions { quota_bytes_max: config.store.quota_bytes_max, ..StoreOptions::default() };
    Ok(Store::open(&dir.join(BLOBS_DIR), options).await?)
}

/// Runs a coordinator until it is told to stop; says to `ready` where it is when it is up.
///
/// # Errors
/// When a part of it does not start.
pub async fn up(options: UpOptions, ready: impl FnOnce(&Value)) -> Result<(), NodeError> {
    let dir = options.data_dir.as_path();
    make_dir(dir)?;
    let config = Config::load(options.config.as_deref())?;
    let key = keys::load_or_create(&dir.join(NODE_KEY_FILE))?;
    let token = Token::load_or_create(&dir.join(TOKEN_FILE))?;
    let store = open_store(dir, &config).await?;
    let metrics = CoordinatorMetrics::new(&Metrics::new());
    let commits = metrics.clone();
    let on_commit = Box::new(move |events, time: Duration| commits.journal_committed(events, time.as_secs_f64()));
    let (journal, replay) = Journal::open(&dir.join(JOURNAL_FILE), on_commit)?;
    let endpoint = endpoint::bind(&key, options.net_listen, EndpointOptions::default()).await?;
    let mut grid = config.grid.clone();
    grid.vouched.extend(&options.vouch);
    for index in 1..=options.hosts {
        grid.vouched.insert(operator_of(&local_host_dir(dir, index))?);
    }
    let (coordinator, _) = Coordinator::start(grid, key.clone(), journal, replay, store.clone(), metrics.clone())?;
    let hosts = server::start(endpoint.clone(), coordinator.clone(), store.clone());
    let ticket = Ticket {
        addrs: if options.advertise.is_empty() { endpoint::addrs(&endpoint) } else { options.advertise.clone() },
        ..endpoint::ticket(&endpoint, clock::now_ms() + limits::TICKET_MS)
    };
    write_whole(&dir.join(TICKET_FILE), &ticket.to_string())?;

    let listen = |source| NodeError::Listen { addr: options.listen, source };
    let listener = TcpListener::bind(options.listen).await.map_err(listen)?;
    let url = format!("http://{}", listener.local_addr().map_err(listen)?);
    // It runs no tasks, but looks into models.
    let looking = SandboxOptions { slots_max: 1, warms_models: false, ..config.host.sandbox() };
    let sandbox = starting(move || Sandbox::new(looking)).await?;
    let gateway = Gateway::new(coordinator.clone(), store.clone(), sandbox, metrics, token, ticket.to_string());
    let (stop, stopping) = watch::channel(false);
    let serving = tokio::spawn(gateway::serve(listener, gateway, told(stopping)));
    write_whole(&dir.join(URL_FILE), &url)?;
    tracing::info!(%url, ticket = %dir.join(TICKET_FILE).display(), node = %NodeId(key.public()).short(), "coordinator is up");

    ready(&json!({
        "url": url,
        "ticket": ticket.to_string(),
        "token_file": dir.join(TOKEN_FILE),
        "node": NodeId(key.public()),
    }));

    let mut local = local_hosts(&options)?;
    asked_to_stop(options.tethered).await;
    tracing::info!("stopping");
    let _ = stop.send(true);
    let _ = serving.await;
    // A host that does not stop in time is killed; either way it is gone.
    let stop_all = move || local.iter_mut().for_each(|host| _ = host.stop());
    let _ = tokio::task::spawn_blocking(stop_all).await;
    hosts.shutdown().await;
    coordinator.close().await;
    store.shutdown().await?;
    endpoint.close().await;
    Ok(())
}

/// The data directory of a host that a coordinator starts.
fn local_host_dir(coordinator: &Path, index: u32) -> PathBuf {
    coordinator.join("hosts").join(format!("host-{index}"))
}

/// Who will answer for the host with this data directory, unless it is started with another operator's key.
///
/// # Errors
/// When the directory cannot be made, or its key cannot be read.
pub fn operator_of(dir: &Path) -> Result<OperatorId, NodeError> {
    make_dir(dir)?;
    Ok(OperatorId(keys::load_or_create(&dir.join(OPERATOR_KEY_FILE))?.public()))
}

/// Starts hosts on this machine that join this coordinator, each of an operator of its own.
fn local_hosts(options: &UpOptions) -> Result<Vec<Process>, NodeError> {
    let exe = std::env::current_exe().map_err(file(Path::new("quorate")))?;
    let cores = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
    let slots = options.slots.unwrap_or_else(|| (cores / options.hosts.max(1)).max(1)).to_string();
    let config = options.config.as_ref().map(|path| path.to_string_lossy());
    let mut args = vec!["--slots", &slots];
    args.extend(config.iter().flat_map(|path| ["--config", path]));
    let start = |index| {
        let dir = local_host_dir(&options.data_dir, index);
        Ok(Process::host(&exe, &format!("host-{index}"), &dir, &options.data_dir, &args)?)
    };
    (1..=options.hosts).map(start).collect()
}

/// Runs a host until it is told to stop, or its coordinator refuses it for good; says to `ready` who it is when it is up.
///
/// # Errors
/// When a part of it does not start, the ticket is of no use, or the coordinator refuses it for good.
pub async fn host(options: HostOptions, ready: impl FnOnce(&Value)) -> Result<(), NodeError> {
    let ticket = read_ticket(&options.join)?;
    let dir = options.data_dir.as_path();
    make_dir(dir)?;
    let config = Config::load(options.config.as_deref())?;
    let mut offer = config.host.clone();
    offer.slots = options.slots.unwrap_or(offer.slots);
    offer.memory_bytes_max = options.memory_bytes_max.unwrap_or(offer.memory_bytes_max);
    offer.check()?;
    let key = keys::load_or_create(&dir.join(NODE_KEY_FILE))?;
    let operator = match &options.operator_key {
        Some(path) => keys::load(path)?,
        None => keys::load_or_create(&dir.join(OPERATOR_KEY_FILE))?,
    };
    let store = open_store(dir, &config).await?;
    let endpoint = endpoint::bind(&key, options.net_listen, EndpointOptions::default()).await?;
    let sandbox = SandboxOptions { compile: compile_options(dir, offer.compile), ..offer.sandbox() };
    let inference = offer.inference.clone();
    let start = move || {
        let further = inference.sandboxes(&sandbox);
        Sandboxes::with(sandbox, further)
    };
    let sandboxes = Arc::new(starting(start).await?);
    let metrics = HostMetrics::new(&Metrics::new());
    let (stop, stopping) = watch::channel(false);
    if let Some(addr) = options.metrics_listen {
        serve_metrics(addr, metrics.clone(), store.clone(), sandboxes.clone(), stopping.clone()).await?;
    }
    tracing::info!(node = %NodeId(key.public()).short(), engine = %sandboxes.native().describe(), "host is up");
    ready(&json!({
        "node": NodeId(key.public()),
        "operator": OperatorId(operator.public()),
        "engines": sandboxes.engines(),
    }));
    let worker = WorkerOptions {
        ticket,
        cert: certify(&key, &operator),
        key,
        endpoint: endpoint.clone(),
        log_dir: dir.join(RECEIPTS_DIR),
        store: store.clone(),
        sandboxes,
        slots: offer.slots,
        queue_max: offer.queue_max,
        checkpoint_ms: offer.checkpoint_ms,
        memory_bytes_max: offer.memory_bytes_max,
        prices: offer.prices,
        conduct: options.conduct,
        metrics,
    };
    let asked = async move {
        asked_to_stop(options.tethered).await;
        let _ = stop.send(true);
    };
    let ended = worker::run(worker, asked).await;
    store.shutdown().await?;
    endpoint.close().await;
    Ok(ended?)
}

/// How the host whose data directory this is compiles.
fn compile_options(dir: &Path, config: CompileConfig) -> CompileOptions {
    let cache = CompileCache {
        dir: dir.join(COMPILED_DIR),
        key_file: dir.join(COMPILE_KEY_FILE),
        bytes_max: config.cache_bytes_max,
    };
    CompileOptions {
        program: CompileOptions::this_program(),
        cache: (config.cache_bytes_max > 0).then_some(cache),
        budget: config.budget(),
    }
}

fn certify(node: &SecretKey, operator: &SecretKey) -> Signed<NodeCert> {
    Signed::seal(&NodeCert { node: NodeId(node.public()), issued_ms: clock::now_ms() }, operator)
}

/// The ticket itself, or the file that holds it.
fn read_ticket(text: &str) -> Result<Ticket, NodeError> {
    let path = Path::new(text);
    let ticket: Ticket =
        if path.is_file() { std::fs::read_to_string(path).map_err(file(path))?.parse()? } else { text.parse()? };
    Ok(ticket.fresh(clock::now_ms())?)
}

async fn serve_metrics(
    addr: SocketAddr,
    metrics: HostMetrics,
    store: Store,
    sandboxes: Arc<Sandboxes>,
    stopping: watch::Receiver<bool>,
) -> Result<(), NodeError> {
    let listener = TcpListener::bind(addr).await.map_err(|source| NodeError::Listen { addr, source })?;
    let render = move || {
        metrics.set_blobs(store.usage(), store.stats());
        let (processes, compiles) = sandboxes.stats();
        metrics.set_sandbox(processes);
        metrics.set_compiles(compiles);
        metrics.set_models(sandboxes.model_stats());
        metrics.render()
    };
    tokio::spawn(gateway::serve_metrics(listener, render, told(stopping)));
    Ok(())
}

/// Ready when the other side says so, or is gone.
async fn told(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Ready on SIGINT and SIGTERM, and, when tethered, at the end of standard input.
async fn asked_to_stop(tethered: bool) {
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated() => {}
        () = input_ended(), if tethered => {}
    }
}

/// Reads on a thread of its own, which nobody waits for: a read of standard input cannot be broken off.
async fn input_ended() {
    let (ended, heard) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 256];
        while io::Read::read(&mut io::stdin(), &mut bytes).is_ok_and(|read| read > 0) {}
        // The node may have stopped for another reason.
        let _ = ended.send(());
    });
    let _ = heard.await;
}

#[cfg(unix)]
async fn terminated() {
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut signal) => drop(signal.recv().await),
        Err(error) => {
            tracing::warn!(%error, "SIGTERM is not heard");
            std::future::pending().await
        }
    }
}

#[cfg(not(unix))]
async fn terminated() {
    std::future::pending().await
}
