//! A grid of real processes for tests and measurements: it starts, is spoken to over HTTP, and can be hurt.
//!
//! A failed expectation panics with what the processes logged, so that a test reads as a story. [`models`] finds the real
//! models, [`standins`] makes others that are nearly them.

pub mod models;
pub mod standins;

use std::{
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use bytes::Bytes;
use host::{
    client::{
        Client,
        answers::{HostAnswer, JobAnswer},
    },
    clock::Stopwatch,
    gateway::wire::JobRequest,
    launch::{Process, TICKET_FILE},
    node::operator_of,
    sandbox::find::{self, Wanted},
};
use registry::{id::JobId, membership::Ticket};

/// Time for anything that a test waits for. Generous: machines are shared.
const PATIENCE: Duration = Duration::from_secs(300);

/// How a host of a test behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduct {
    /// As it should.
    Honest,
    /// Signs outputs that it altered.
    Liar,
}

/// A coordinator and its hosts.
pub struct Cluster {
    dir: tempfile::TempDir,
    exe: PathBuf,
    /// The coordinator's own arguments.
    up: Vec<String>,
    coordinator: Process,
    net_listen: String,
    /// In the order in which they were started; killed ones stay in place.
    pub hosts: Vec<Process>,
    /// A client of the coordinator.
    pub client: Client,
}

fn host_name(number: usize) -> String {
    format!("host-{number}")
}

impl Cluster {
    /// Starts a coordinator and hosts, each of an operator of its own, and waits until all have joined.
    pub async fn start(exe: impl AsRef<Path>, hosts: &[Conduct]) -> Self {
        Self::start_with(exe, hosts, &[], &["--slots", "1"]).await
    }

    /// The same with further arguments for the coordinator and for every host.
    pub async fn start_with(exe: impl AsRef<Path>, hosts: &[Conduct], up: &[&str], node: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self::start_in(dir, exe.as_ref(), hosts, up, node).await
    }

    /// The same, in a grid whose owner answers for the honest hosts: the liars are strangers.
    pub async fn start_vouched(exe: impl AsRef<Path>, hosts: &[Conduct]) -> Self {
        Self::start_vouched_with(exe, hosts, &[]).await
    }

    /// The same with further arguments for every host.
    pub async fn start_vouched_with(exe: impl AsRef<Path>, hosts: &[Conduct], node: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let known = hosts.iter().zip(1..).filter(|(conduct, _)| **conduct == Conduct::Honest);
        let operator = |index| operator_of(&dir.path().join(host_name(index))).expect("an operator's key").to_string();
        let known: Vec<String> = known.map(|(_, index)| operator(index)).collect();
        let up: Vec<&str> = known.iter().flat_map(|operator| ["--vouch", operator]).collect();
        let node = [&["--slots", "1"], node].concat();
        Self::start_in(dir, exe.as_ref(), hosts, &up, &node).await
    }

    async fn start_in(dir: tempfile::TempDir, exe: &Path, hosts: &[Conduct], up: &[&str], node: &[&str]) -> Self {
        let mut coordinator =
            Process::coordinator(exe, &dir.path().join("coordinator"), up).expect("a coordinator starts");
        let client = coordinator.client().await.expect("the coordinator listens");
        let ticket = std::fs::read_to_string(coordinator.dir().join(TICKET_FILE)).expect("a ticket");
        let ticket: Ticket = ticket.parse().expect("a well-formed ticket");
        let net_listen = ticket.addrs[0].to_string();
        let (exe, up) = (exe.to_owned(), up.iter().map(|arg| (*arg).to_owned()).collect());
        let mut cluster = Self { dir, exe, up, coordinator, net_listen, hosts: Vec::new(), client };
        for conduct in hosts {
            cluster.add_host(*conduct, node);
        }
        cluster.joined(hosts.len()).await;
        cluster
    }

    /// Starts one more host.
    pub fn add_host(&mut self, conduct: Conduct, args: &[&str]) {
        let name = host_name(self.hosts.len() + 1);
        let conduct = match conduct {
            Conduct::Honest => "honest",
            Conduct::Liar => "liar",
        };
        let args = [args, &["--conduct", conduct]].concat();
        let dir = self.dir.path().join(&name);
        let host = Process::host(&self.exe, &name, &dir, self.coordinator.dir(), &args).expect("a host starts");
        self.hosts.push(host);
    }

    /// Waits until so many hosts are connected.
    pub async fn joined(&self, hosts: usize) {
        self.until(&format!("{hosts} hosts have joined"), async || {
            let nodes: Vec<HostAnswer> = self.client.get("/v1/nodes").await.ok()?;
            (nodes.iter().filter(|node| node.connected).count() == hosts).then_some(())
        })
        .await;
    }

    /// Asks again and again until there is an answer.
    pub async fn until<T>(&self, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
        let watch = Stopwatch::start();
        while watch.elapsed() < PATIENCE {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not in {} s: {what}\n{}", PATIENCE.as_secs(), self.logs());
    }

    /// The ends of all logs.
    pub fn logs(&self) -> String {
        let tail = |process: &Process| {
            let text = std::fs::read_to_string(process.log()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("--- {}\n{}\n", process.log().display(), lines[lines.len().saturating_sub(20)..].join("\n"))
        };
        std::iter::once(&self.coordinator).chain(&self.hosts).map(tail).collect()
    }

    /// The coordinator's data directory.
    pub fn data_dir(&self) -> &Path {
        self.coordinator.dir()
    }

    /// The coordinator's process.
    pub fn coordinator(&self) -> &Process {
        &self.coordinator
    }

    /// A scratch path that goes with the cluster.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Publishes a blob; gives its hash as text.
    pub async fn publish(&self, bytes: impl Into<Bytes>) -> String {
        self.client.publish_bytes(bytes.into()).await.expect("a blob is taken").hash.to_string()
    }

    /// Submits a job.
    pub async fn submit(&self, request: &JobRequest) -> JobId {
        match self.client.submit(request).await {
            Ok(submitted) => submitted.id,
            Err(error) => panic!("job refused: {error}\n{}", self.logs()),
        }
    }

    /// Waits until a job has ended.
    pub async fn ended(&self, job: JobId) -> JobAnswer {
        self.until(&format!("job {job} has ended"), async || {
            self.client.job(job).await.ok().filter(|job| job.ended_ms.is_some())
        })
        .await
    }

    /// Waits until a job is done; gives its standard output.
    pub async fn result(&self, job: JobId) -> Vec<u8> {
        let ended = self.ended(job).await;
        assert_eq!(ended.phase, "done", "{:?}\n{}", ended.reason, self.logs());
        self.client
            .download(&format!("/v1/jobs/{job}/results"))
            .await
            .expect("a result")
            .collect()
            .await
            .expect("whole")
    }

    /// Waits until so many shards of a job are accepted.
    pub async fn accepted(&self, job: JobId, shards: u32) {
        self.until(&format!("{shards} shards are accepted"), async || {
            self.client.job(job).await.ok().filter(|job| job.accepted >= shards)
        })
        .await;
    }

    /// Kills the coordinator as SIGKILL does.
    pub fn kill_coordinator(&mut self) {
        self.coordinator.kill();
    }

    /// Starts the coordinator again, on its data and its address for hosts.
    pub async fn restart_coordinator(&mut self) {
        let dir = self.coordinator.dir().to_owned();
        let up: Vec<&str> = self.up.iter().map(String::as_str).collect();
        self.coordinator = Process::coordinator_at(&self.exe, &dir, &self.net_listen, &up).expect("it starts again");
        self.client = self.coordinator.client().await.expect("it listens again");
    }

    /// Runs the program with these arguments, as a user of this coordinator.
    pub async fn cli(&self, args: &[&str], stdin: &[u8]) -> Output {
        cli(&self.exe, Some(self.data_dir()), args, stdin).await
    }
}

/// Runs the program with these arguments.
pub async fn cli(exe: impl AsRef<Path>, data_dir: Option<&Path>, args: &[&str], stdin: &[u8]) -> Output {
    run(exe.as_ref(), data_dir, args, stdin, &[]).await
}

/// The same, without a coordinator, where the native libraries that this machine has are found.
pub async fn cli_with_libraries(exe: impl AsRef<Path>, args: &[&str]) -> Output {
    let wanted = [(Wanted::Library, find::LIBRARY_VARIABLE), (Wanted::Webgpu, find::WEBGPU_VARIABLE)];
    let first = |wanted| find::find(wanted).into_iter().next().map(|found| found.path);
    let found: Vec<_> = wanted.into_iter().filter_map(|(wanted, name)| Some((name, first(wanted)?))).collect();
    run(exe.as_ref(), None, args, b"", &found).await
}

async fn run(exe: &Path, data_dir: Option<&Path>, args: &[&str], stdin: &[u8], env: &[(&str, PathBuf)]) -> Output {
    use tokio::io::AsyncWriteExt;

    let mut command = tokio::process::Command::new(exe);
    command.args(args).env_remove("QUORATE_URL").env_remove("QUORATE_TOKEN_FILE");
    // What `run` keeps of compiled modules is not the user's.
    command
        .env("XDG_CACHE_HOME", std::env::temp_dir().join("quorate-tests"))
        .envs(env.iter().map(|(name, path)| (name, path)));
    if let Some(dir) = data_dir {
        command.arg("--data-dir").arg(dir);
    }
    command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    // A program that refuses its arguments does not read.
    let _ = pipe.write_all(stdin).await;
    drop(pipe);
    child.wait_with_output().await.expect("the program ends")
}
