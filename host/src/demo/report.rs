//! What a demo has to show.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use registry::id::{JobId, NodeId};
use serde::Serialize;

use super::{DemoError, Grid, Options, keep_records, lines_per_shard, truth};

/// What came of a demo. The fields up to `receipts_dir` are what scripts rely on.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Share of the held-out digits that were classified as labelled.
    pub accuracy: f64,
    /// Shards whose result was accepted.
    pub accepted: usize,
    /// Of these, shards whose result is not what a run of our own gives.
    pub wrong_accepted: usize,
    /// Executions for each accepted shard.
    pub executions_per_accepted: f64,
    /// Hosts that signed something else than a quorum.
    pub caught: Vec<Caught>,
    /// Executions a second, from the submission to the end of the job.
    pub tasks_per_s: f64,
    /// Time of the whole demo.
    pub seconds: f64,
    /// Where the signed receipts are.
    pub receipts_dir: PathBuf,
    /// The job.
    pub job: JobId,
    /// Digits that accuracy was counted on.
    pub held_out: usize,
    /// Blobs that hosts fetched.
    pub blobs_transferred: u64,
    /// The same in bytes.
    pub blob_bytes_transferred: u64,
}

/// A host that was caught.
#[derive(Debug, Clone, Serialize)]
pub struct Caught {
    /// Which.
    pub host: NodeId,
    /// In which shard.
    pub shard: u32,
    /// The record that proves it.
    pub evidence: PathBuf,
}

impl Report {
    /// Whether every accepted result is right.
    pub fn is_right(&self) -> bool {
        self.wrong_accepted == 0
    }
}

/// Gathers everything from the grid, while it still runs.
pub(super) async fn collect(
    grid: &Grid,
    dir: &Path,
    job: JobId,
    options: &Options,
    job_seconds: f64,
) -> Result<Report, DemoError> {
    let client = &grid.client;
    let receipts_dir = dir.join("receipts");
    let evidence = keep_records(client, job, &receipts_dir).await?;
    let ended = client.job(job).await?;
    let mut wrong_accepted = 0;
    let mut said = Vec::new();
    for (shard, truth) in truth::outputs(lines_per_shard(options.shards))?.into_iter().enumerate() {
        let accepted = client.download(&format!("/v1/jobs/{job}/results?shard={shard}")).await?.collect().await?;
        wrong_accepted += usize::from(accepted != truth);
        said.extend(String::from_utf8_lossy(&accepted).lines().map(str::to_owned));
    }
    let labels = truth::labels();
    let held_out: Vec<_> = said.iter().zip(&labels).filter(|(_, (_, held_out))| *held_out).collect();
    let right = held_out.iter().filter(|(said, (label, _))| *said == label).count();
    let metrics = client.text("/metrics").await?;
    let accepted = ended.accepted as usize;
    Ok(Report {
        accuracy: right as f64 / held_out.len().max(1) as f64,
        accepted,
        wrong_accepted,
        executions_per_accepted: ended.executions as f64 / accepted.max(1) as f64,
        caught: evidence.into_iter().map(|(host, shard, evidence)| Caught { host, shard, evidence }).collect(),
        tasks_per_s: ended.executions as f64 / job_seconds,
        seconds: 0.0,
        receipts_dir,
        job,
        held_out: held_out.len(),
        blobs_transferred: counter(&metrics, "quorate_blobs_served_total"),
        blob_bytes_transferred: counter(&metrics, "quorate_blobs_served_bytes_total"),
    })
}

/// The value of a metric without labels.
fn counter(metrics: &str, name: &str) -> u64 {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok());
    value.map_or(0, |value| value as u64)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, executions_per_accepted, held_out, .. } = self;
        writeln!(f, "accuracy          {:.2} % of {held_out} held-out digits", self.accuracy * 100.0)?;
        writeln!(f, "accepted          {accepted} shards, {} of them wrong", self.wrong_accepted)?;
        writeln!(f, "cost              {executions_per_accepted:.2} executions for each accepted shard")?;
        match self.caught.as_slice() {
            [] => writeln!(f, "caught            nobody")?,
            [first, ..] => {
                let mut hosts: Vec<NodeId> = self.caught.iter().map(|caught| caught.host).collect();
                hosts.sort_unstable();
                hosts.dedup();
                for host in hosts {
                    let shards: Vec<String> = self
                        .caught
                        .iter()
                        .filter(|caught| caught.host == host)
                        .map(|caught| caught.shard.to_string())
                        .collect();
                    writeln!(f, "caught            host {} lied about shard {}", host.short(), shards.join(", "))?;
                }
                writeln!(f, "evidence          {}", first.evidence.display())?;
            }
        }
        writeln!(f, "speed             {:.0} executions/s, {:.1} s in all", self.tasks_per_s, self.seconds)?;
        writeln!(
            f,
            "blobs             {} transfers, {:.1} MB",
            self.blobs_transferred,
            self.blob_bytes_transferred as f64 / 1e6
        )?;
        writeln!(f, "receipts          {}", self.receipts_dir.display())?;
        write!(f, "check them        quorate receipt verify {}", self.receipts_dir.display())
    }
}
