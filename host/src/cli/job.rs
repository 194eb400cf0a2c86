//! `quorate job`

use clap::Args;
use serde_json::Value;

use super::{
    CliError, Exit, Outcome,
    connect::{ConnectArgs, find_job},
    output,
};
use crate::{client::answers::JobAnswer, clock};

#[derive(Debug, Args)]
pub(super) struct JobArgs {
    /// The job, or the beginning of its id.
    job: String,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn run(args: JobArgs) -> Outcome {
    let client = args.connect.client()?;
    let id = find_job(&client, &args.job).await?;
    if args.connect.json {
        output::json(&client.get::<Value>(&format!("/v1/jobs/{id}")).await?)?;
    } else {
        show(&client.job(id).await?)?;
    }
    Ok(Exit::Ok)
}

fn show(job: &JobAnswer) -> Result<(), CliError> {
    let now = clock::now_ms();
    let mut rows = vec![
        ("job", job.id.to_string()),
        ("phase", job.phase.clone()),
        ("accepted", format!("{} of {} shards", job.accepted, job.shards)),
        ("executions", format!("{} finished, {} under way", job.executions, job.open)),
        ("submitted", format!("{} ago", output::span_ms(now.saturating_sub(job.submitted_ms)))),
    ];
    if let Some(ended) = job.ended_ms {
        rows.push(("took", output::span_ms(ended.saturating_sub(job.submitted_ms))));
    }
    if let Some(waits) = &job.waits {
        rows.push(("waits", output::shown(waits)));
    }
    if let Some(reason) = &job.reason {
        rows.push(("reason", output::shown(&reason.to_string())));
    }
    if let Some(outcomes) = job.outcomes.as_ref().filter(|outcomes| !outcomes.is_empty()) {
        let words: Vec<String> = outcomes.iter().map(|(word, tasks)| format!("{tasks} {word}")).collect();
        rows.push(("tasks", words.join(", ")));
    }
    if !job.devices.is_empty() {
        let devices = job.devices.iter().map(|(device, tasks)| format!("{tasks} on {}", output::shown(device)));
        rows.push(("models ran", devices.collect::<Vec<_>>().join(", ")));
    }
    for (name, value) in rows {
        output::line(&format!("{name:<10}  {value}"))?;
    }
    Ok(())
}
