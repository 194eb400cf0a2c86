//! `quorate job`, and `quorate job verify`: was each result checked as it had to be?

use clap::{Args, Subcommand};
use registry::{
    audit::{self, Audited},
    id::{JobId, SecretHash},
    job::Policy,
    receipt::Record,
};
use serde::Serialize;
use serde_json::Value;

use super::{
    CliError, Exit, Outcome,
    connect::{ConnectArgs, find_job},
    output,
};
use crate::{
    client::{
        Client,
        answers::{CostsAnswer, JobAnswer, ReceiptAnswer},
    },
    clock,
};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct JobArgs {
    #[command(subcommand)]
    verb: Option<JobVerb>,
    /// The job, or the beginning of its id.
    #[arg(required = true)]
    job: Option<String>,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Subcommand)]
enum JobVerb {
    /// Draw again, with the secret of an ended job, which of its results had to be audited, and check in its records that they were.
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The job, or the beginning of its id.
    job: String,
    /// What `submit --json` said that the secret is committed to by; otherwise what the coordinator says now is believed.
    #[arg(long, value_name = "HASH")]
    secret_hash: Option<SecretHash>,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn run(args: JobArgs) -> Outcome {
    if let Some(JobVerb::Verify(args)) = args.verb {
        return verify(args).await;
    }
    let client = args.connect.client()?;
    let id = find_job(&client, args.job.as_deref().unwrap_or_default()).await?;
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
    if let Some(costs) = &job.costs {
        let CostsAnswer { requester, cap, spent, held, .. } = costs;
        rows.push(("costs", format!("{spent} credits and up to {held} under way, of a cap of {cap}")));
        rows.push(("paid by", requester.to_string()));
    }
    if let Some(unsteady) = &job.unsteady {
        rows.push(("module", unsteady.to_string()));
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

/// What `verify` says to programs.
#[derive(Debug, Serialize)]
struct Verified {
    job: JobId,
    holds: bool,
    #[serde(flatten)]
    audited: Option<Audited>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

async fn verify(args: VerifyArgs) -> Outcome {
    let client = args.connect.client()?;
    let id = find_job(&client, &args.job).await?;
    let job = client.job(id).await?;
    if job.policy != Some(Policy::Audit) {
        let policy = job.policy.map_or_else(|| "another".to_owned(), |policy| policy.to_string());
        let id = output::short(id);
        return Err(CliError::Usage(format!(
            "job {id} has policy {policy}, so nothing was drawn: check its records with `quorate receipt get {id} --out DIR` and `quorate receipt verify DIR`"
        )));
    }
    let (Some(secret), Some(told)) = (job.secret, job.secret_hash) else {
        let phase = job.phase;
        return Err(CliError::Failed(format!("job is {phase}: its secret is told when it has ended, try again then")));
    };
    let checked = audit::check(id, args.secret_hash.unwrap_or(told), &secret, &records(&client, id).await?);
    if args.connect.json {
        let (audited, error) = (checked.as_ref().ok().copied(), checked.as_ref().err().map(ToString::to_string));
        output::json(&Verified { job: id, holds: checked.is_ok(), audited, error })?;
    }
    let audited = checked.map_err(|error| CliError::Failed(format!("job {}: {error}", output::short(id))))?;
    if !args.connect.json {
        output::line(&sentence(&audited))?;
    }
    Ok(Exit::Ok)
}

async fn records(client: &Client, id: JobId) -> Result<Vec<Record>, CliError> {
    let rows: Vec<ReceiptAnswer> = client.get(&format!("/v1/jobs/{id}/receipts")).await?;
    let mut records = Vec::with_capacity(rows.len());
    for row in rows {
        let bytes = client.download(&format!("/v1/jobs/{id}/receipts/{}", row.index)).await?.collect().await?;
        let refused = |error| CliError::Failed(format!("record {}: {error}", row.index));
        records.push(Record::from_bytes(&bytes).map_err(refused)?);
    }
    Ok(records)
}

fn sentence(audited: &Audited) -> String {
    let Audited { results, by_word, by_audit, by_quorum, accused, .. } = audited;
    let rates = match (audited.rate_ppm_min, audited.rate_ppm_max) {
        (Some(least), Some(most)) => {
            format!(" Rates were {:.2} to {:.2} %.", f64::from(least) / 1e4, f64::from(most) / 1e4)
        }
        _ => String::new(),
    };
    format!(
        "holds: of {results} results {by_audit} were drawn for an audit and had one, {by_word} were not drawn, {by_quorum} have a \
         quorum; {accused} hosts are accused with evidence.{rates}"
    )
}
