//! How many tasks a second does a grid accept, how long does one take from submission to acceptance, and in how much memory?
//!
//! A coordinator and hosts as processes of the release binary, on loopback, the journal fsynced. Throughput: one job of
//! 10,000 one-line shards through the `echo` task, timed from the submission to the job's end. Round trip: one-shard jobs
//! one after another, `POST /v1/jobs?wait=true` with an inline input, from the request to the answer that holds the
//! result. Three rounds each, medians. Memory is resident memory (VmRSS) of the idle processes, before and after the work.
//!
//! Needs `cargo build --release` first: the processes are `target/release/quorate`.
#![allow(clippy::print_stdout, reason = "a bench prints its table")]

use std::{
    error::Error,
    path::{Path, PathBuf},
    time::Duration,
};

use benches::{quantile, row, table};
use host::{
    clock::Stopwatch,
    gateway::wire::{InputRequest, JobRequest},
    launch::Process,
};
use registry::job::{Policy, Split};
use support::{Cluster, Conduct};

const TASKS: usize = 10_000;
const ROUND_TRIPS: usize = 500;
const ROUNDS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let exe = release_binary()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut rows = vec![row!["", "tasks/s", "cpu us/task", "round trip p50", "p99", "idle before", "idle after"]];
        rows.push(measure(&exe, "quorum 1, one host of 2 slots", 1, &[Conduct::Honest], "2").await?);
        rows.push(measure(&exe, "quorum 2, two hosts of 1 slot", 2, &[Conduct::Honest; 2], "1").await?);
        println!("{TASKS} trivial tasks in one job; {ROUND_TRIPS} jobs of one task; medians of {ROUNDS} rounds\n");
        table(&rows);
        Ok(())
    })
}

/// The release binary beside this one.
fn release_binary() -> Result<PathBuf, Box<dyn Error>> {
    let own = std::env::current_exe()?;
    let exe = own.ancestors().nth(2).unwrap_or(Path::new(".")).join("quorate");
    if exe.is_file() {
        Ok(exe)
    } else {
        Err(format!("{} is not there: cargo build --release first", exe.display()).into())
    }
}

async fn measure(
    exe: &Path,
    what: &str,
    quorum: u8,
    hosts: &[Conduct],
    slots: &str,
) -> Result<Vec<String>, Box<dyn Error>> {
    let cluster = Cluster::start_with(exe, hosts, &[], &["--slots", slots]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = resident(&cluster)?;
    let module = cluster.publish(tasks::ECHO.wasm).await;
    let lines: String = (0..TASKS).map(|line| format!("{line}\n")).collect();
    let input = cluster.publish(lines.clone().into_bytes()).await.parse()?;
    let one = JobRequest {
        module: module.clone(),
        input: InputRequest::Text("hello".into()),
        policy: Policy::Quorum(quorum),
        ..JobRequest::default()
    };
    let many = JobRequest { input: InputRequest::Blob(input), split: Split::Lines(1), ..one.clone() };
    for _ in 0..20 {
        cluster.client.submit_and_wait(&one).await?;
    }
    let (mut seconds, mut cpu, mut trips) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (cpu_before, watch) = (cpu_seconds(&cluster)?, Stopwatch::start());
        let ended = cluster.client.submit_and_wait(&many).await?;
        seconds.push(watch.elapsed());
        cpu.push(Duration::from_secs_f64(cpu_seconds(&cluster)? - cpu_before));
        assert_eq!(ended.phase, "done", "{:?}", ended.reason);
        let result = cluster.client.download(&format!("/v1/jobs/{}/results", ended.id)).await?.collect().await?;
        assert!(result == lines.as_bytes(), "the result is not the input");
        for _ in 0..ROUND_TRIPS {
            let watch = Stopwatch::start();
            let ended = cluster.client.submit_and_wait(&one).await?;
            trips.push(watch.elapsed());
            assert_eq!(ended.stdout.as_deref(), Some("hello"));
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = resident(&cluster)?;
    [&mut seconds, &mut cpu, &mut trips].into_iter().for_each(|times| times.sort_unstable());
    let ms = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
    Ok(row![
        what,
        format!("{:.0}", TASKS as f64 / quantile(&seconds, 500).as_secs_f64()),
        format!("{:.0}", quantile(&cpu, 500).as_secs_f64() * 1e6 / TASKS as f64),
        ms(quantile(&trips, 500)),
        ms(quantile(&trips, 990)),
        before,
        after,
    ])
}

fn processes(cluster: &Cluster) -> impl Iterator<Item = &Process> {
    std::iter::once(cluster.coordinator()).chain(&cluster.hosts)
}

/// Resident memory: the coordinator's and its hosts'.
fn resident(cluster: &Cluster) -> Result<String, Box<dyn Error>> {
    let mut parts = Vec::new();
    for process in processes(cluster) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        parts.push(format!("{:.0}", kib / 1024.0));
    }
    Ok(format!("{} MiB", parts.join(" + ")))
}

/// Processor time of all processes so far.
fn cpu_seconds(cluster: &Cluster) -> Result<f64, Box<dyn Error>> {
    let mut ticks = 0.0;
    for process in processes(cluster) {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id()))?;
        let fields: Vec<&str> = stat.rsplit_once(')').ok_or("no stat")?.1.split_whitespace().collect();
        ticks += fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    }
    // USER_HZ has been 100 on Linux since it is an interface.
    Ok(ticks / 100.0)
}
