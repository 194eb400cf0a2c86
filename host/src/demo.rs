//! `quorate demo`: the main job on real parts, in a minute's reading.
//!
//! A coordinator and some hosts, each a process, on loopback. The handwritten digits of the UCI set are classified by
//! a published module and model; liars among the hosts are caught. What was accepted is held against a run of the same
//! shards in a sandbox of this process, which asks nobody.

mod report;
mod truth;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use grid::dispatch::Notice;
use indicatif::{ProgressBar, ProgressStyle};
use registry::{
    id::{JobId, ModelHash, ModuleHash, NodeId},
    job::{Class, Limits, Policy, Split},
    manifest::{Manifest, ModelEncoding, ModelManifest, TaskManifest},
    name::{Name, NameStatement},
    receipt::Record,
    sign::{SecretKey, Signed},
};

pub use self::report::{Caught, Report};
use crate::{
    client::{
        Client, ClientError,
        answers::{HostAnswer, ReceiptAnswer},
    },
    clock::{self, Stopwatch},
    gateway::wire::{InputRequest, JobRequest},
    launch::{LaunchError, Process},
    node::{NodeError, operator_of},
};

const POLL: Duration = Duration::from_millis(20);
/// Time for strangers to show what they are: a host may still compile the module when the job has ended.
const STRANGERS_MAX: Duration = Duration::from_secs(20);
/// What the module calls its model.
const MODEL_NAME: &str = "digits";

/// What a demo is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Hosts, each of an operator of its own.
    pub hosts: u32,
    /// How many of them lie.
    pub liars: u32,
    /// Shards that the 1,797 digits are cut into, about.
    pub shards: u32,
    /// How results are checked.
    pub policy: Policy,
    /// Where everything is kept; a directory of its own under the system's temporary one when absent.
    pub dir: Option<PathBuf>,
    /// Whether a progress bar is drawn.
    pub progress: bool,
}

/// Why a demo did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A process is not there.
    #[error("{0}")]
    Launch(#[from] LaunchError),
    /// An operator's key.
    #[error("{0}")]
    Operator(#[from] NodeError),
    /// The coordinator says no.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// A file of ours.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No randomness for a key.
    #[error("no key could be made: {0}")]
    Key(String),
    /// The job came to no result.
    #[error("job {job} is {phase}: {reason}")]
    Job {
        /// Which.
        job: JobId,
        /// How it ended.
        phase: String,
        /// Why.
        reason: String,
    },
    /// A record does not hold.
    #[error("{0}")]
    Record(#[from] registry::receipt::RecordError),
    /// The reference run failed.
    #[error("reference run: {0}")]
    Truth(String),
    /// The options do not fit together.
    #[error("{0}")]
    Options(String),
}

/// The grid of a demo; its processes end with it.
struct Grid {
    coordinator: Process,
    hosts: Vec<Process>,
    client: Client,
}

/// Runs a demo.
///
/// # Errors
/// When a process does not start, or the job does not come to a result.
pub async fn run(options: &Options) -> Result<Report, DemoError> {
    if options.hosts < u32::from(options.policy.operators()) || options.liars > options.hosts {
        let Options { hosts, liars, policy, .. } = options;
        let operators = policy.operators();
        return Err(DemoError::Options(format!(
            "{hosts} hosts, {liars} of them lying, are too few for policy {policy}, which may need {operators} operators: use more --hosts"
        )));
    }
    let watch = Stopwatch::start();
    let dir = options.dir.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("quorate-demo-{}-{}", std::process::id(), clock::now_ms()))
    });
    let mut grid = start(options, &dir).await?;
    let module = publish(&grid.client).await?;
    let job_watch = Stopwatch::start();
    let job = submit(&grid.client, options, &module).await?;
    follow(&grid.client, job, options.progress).await?;
    let job_seconds = job_watch.elapsed().as_secs_f64();
    if options.policy == Policy::Audit {
        strangers_tried(&grid.client).await?;
    }
    let report = report::collect(&grid, &dir, job, options, job_seconds).await?;
    grid.hosts.iter_mut().chain([&mut grid.coordinator]).for_each(Process::kill);
    Ok(Report { seconds: watch.elapsed().as_secs_f64(), ..report })
}

async fn start(options: &Options, dir: &Path) -> Result<Grid, DemoError> {
    let exe = std::env::current_exe().map_err(|source| DemoError::File { path: "quorate".into(), source })?;
    // Whoever runs a grid answers for the hosts that it knows; the liars are strangers.
    let name = |index: u32| format!("host-{}", index + 1);
    let known = (options.liars..options.hosts).map(|index| operator_of(&dir.join(name(index))));
    let known: Vec<String> = known.map(|operator| Ok(operator?.to_string())).collect::<Result<_, NodeError>>()?;
    let vouched: Vec<&str> = known.iter().flat_map(|operator| ["--vouch", operator]).collect();
    let mut coordinator = Process::coordinator(&exe, &dir.join("coordinator"), &vouched)?;
    let client = coordinator.client().await?;
    let mut hosts = Vec::new();
    for index in 0..options.hosts {
        let name = name(index);
        let conduct = if index < options.liars { "liar" } else { "honest" };
        let args = ["--slots", "1", "--conduct", conduct];
        hosts.push(Process::host(&exe, &name, &dir.join(&name), coordinator.dir(), &args)?);
    }
    loop {
        let joined: Vec<HostAnswer> = client.get("/v1/nodes").await?;
        if joined.iter().filter(|host| host.connected).count() >= hosts.len() {
            return Ok(Grid { coordinator, hosts, client });
        }
        hosts.iter_mut().try_for_each(Process::check_running)?;
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until each stranger has repeated a result, which for a lying one is its last.
async fn strangers_tried(client: &Client) -> Result<(), DemoError> {
    let watch = Stopwatch::start();
    while watch.elapsed() < STRANGERS_MAX {
        let hosts: Vec<HostAnswer> = client.get("/v1/nodes").await?;
        let untried = |host: &HostAnswer| !host.vouched && host.suspended.is_none() && host.confirmed == 0;
        if !hosts.iter().any(untried) {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Publishes module and model by content, and a name for both.
async fn publish(client: &Client) -> Result<Name, DemoError> {
    let (wasm, onnx) = (tasks::DIGITS.wasm, tasks::data::DIGITS_MODEL);
    client.publish_bytes(Bytes::from_static(wasm)).await?;
    client.publish_bytes(Bytes::from_static(onnx)).await?;
    let model = ModelManifest {
        model: ModelHash::of(onnx),
        model_bytes: onnx.len() as u64,
        encoding: ModelEncoding::Onnx,
        tolerance: None,
    };
    let manifest = Manifest::Task(TaskManifest {
        description: "Classifies handwritten digits of 8 x 8 pixels".into(),
        module: ModuleHash::of(wasm),
        module_bytes: wasm.len() as u64,
        models: BTreeMap::from([(MODEL_NAME.to_owned(), model)]),
        class: Class::Exact,
        limits: Limits::default(),
        sample: None,
        lint: None,
    });
    client.publish_bytes(manifest.to_bytes().into()).await?;
    let name = Name { publisher: "demo".into(), name: "digits".into(), version: 1 };
    let key = SecretKey::generate().map_err(|error| DemoError::Key(error.to_string()))?;
    let statement = NameStatement::Publish { name: name.clone(), manifest: manifest.hash() };
    client.name(&Signed::seal(&statement, &key)).await?;
    Ok(name)
}

async fn submit(client: &Client, options: &Options, module: &Name) -> Result<JobId, DemoError> {
    let pixels = client.publish_bytes(Bytes::from_static(tasks::data::DIGITS_PIXELS)).await?;
    let request = JobRequest {
        module: module.to_string(),
        input: InputRequest::Blob(pixels.hash),
        split: Split::Lines(lines_per_shard(options.shards)),
        policy: options.policy,
        ..JobRequest::default()
    };
    Ok(client.submit(&request).await?.id)
}

fn lines_per_shard(shards: u32) -> u64 {
    let digits = tasks::data::DIGITS_PIXELS.iter().filter(|byte| **byte == b'\n').count();
    (digits as u64).div_ceil(u64::from(shards.max(1)))
}

/// Draws the job's progress until it has ended.
async fn follow(client: &Client, job: JobId, progress: bool) -> Result<(), DemoError> {
    let style = ProgressStyle::with_template("{msg:>12} [{bar:40}] {pos}/{len} shards accepted");
    let bar = if progress { ProgressBar::new(0) } else { ProgressBar::hidden() };
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message("classifying");
    let mut events = client.events(job).await?;
    while let Some(event) = events.next().await? {
        if event.name == "state" {
            let state = client.job(job).await?;
            bar.set_length(state.shards.into());
            bar.set_position(state.accepted.into());
            continue;
        }
        match event.json()? {
            Notice::Accepted { .. } => bar.inc(1),
            Notice::Withdrawn { .. } => bar.set_position(bar.position().saturating_sub(1)),
            Notice::Ended { .. } => break,
            Notice::Planned { .. } | Notice::Faulted { .. } | Notice::Caught { .. } => {}
        }
    }
    bar.finish_and_clear();
    let ended = client.job(job).await?;
    if ended.phase == "done" {
        return Ok(());
    }
    let reason = ended.reason.map_or_else(|| "no reason given".to_owned(), |reason| reason.to_string());
    Err(DemoError::Job { job, phase: ended.phase, reason })
}

/// Downloads the job's records into a directory and checks each; gives those that are evidence.
async fn keep_records(client: &Client, job: JobId, dir: &Path) -> Result<Vec<(NodeId, u32, PathBuf)>, DemoError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| DemoError::File { path, source }
    };
    std::fs::create_dir_all(dir).map_err(failed(dir))?;
    let rows: Vec<ReceiptAnswer> = client.get(&format!("/v1/jobs/{job}/receipts")).await?;
    let mut evidence = Vec::new();
    for row in rows {
        let bytes = client.download(&format!("/v1/jobs/{job}/receipts/{}", row.index)).await?.collect().await?;
        Record::from_bytes(&bytes)?.check()?;
        let kind = row.accused.map_or_else(|| "accepted".to_owned(), |node| format!("evidence-{}", node.short()));
        let path = dir.join(format!("shard-{:04}-{kind}.cbor", row.shard.index));
        std::fs::write(&path, &bytes).map_err(failed(&path))?;
        evidence.extend(row.accused.map(|node| (node, row.shard.index, path)));
    }
    Ok(evidence)
}
