//! `quorate jobs`

use clap::Args;
use serde_json::Value;

use super::{Exit, Outcome, connect::ConnectArgs, output};
use crate::{client::answers::JobAnswer, clock};

#[derive(Debug, Args)]
pub(super) struct JobsArgs {
    /// How many at most.
    #[arg(long, default_value_t = 20)]
    max: usize,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn run(args: JobsArgs) -> Outcome {
    let client = args.connect.client()?;
    let path = format!("/v1/jobs?max={}", args.max);
    if args.connect.json {
        output::json(&client.get::<Value>(&path).await?)?;
        return Ok(Exit::Ok);
    }
    let jobs: Vec<JobAnswer> = client.get(&path).await?;
    let now = clock::now_ms();
    let row = |job: &JobAnswer| {
        let end = job.ended_ms.unwrap_or(now);
        vec![
            output::short(job.id),
            job.phase.clone(),
            format!("{}/{}", job.accepted, job.shards),
            job.executions.to_string(),
            format!("{} ago", output::span_ms(now.saturating_sub(job.submitted_ms))),
            output::span_ms(end.saturating_sub(job.submitted_ms)),
            job.reason.as_ref().map_or_else(String::new, |reason| output::shown(&reason.to_string())),
        ]
    };
    let rows: Vec<_> = jobs.iter().map(row).collect();
    output::table(&["job", "phase", "accepted", "executions", "submitted", "took", "reason"], &rows)?;
    Ok(Exit::Ok)
}
