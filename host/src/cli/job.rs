//! `quorate job`, and `quorate job verify`: was each result checked as it had to be?

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use registry::{
    audit::{self, Audited, Secret},
    id::{JobId, NodeId, SecretHash},
    job::Policy,
    log::{Heads, JobHead, JobLog, Kind},
    receipt::Record,
};
use serde::Serialize;
use serde_json::Value;

use super::{
    CliError, Exit, Outcome,
    connect::{ConnectArgs, find_job},
    output,
    receipt::{begun, signed_by},
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
    #[arg(required_unless_present = "log")]
    job: Option<String>,
    /// The job's log as `receipt get --log` wrote it after the job had ended: it has all that is needed, and no grid is asked.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// The coordinator that has to have signed the log: the node that its ticket and `quorate up` name. Whoever signed it is believed
    /// otherwise.
    #[arg(long, value_name = "NODE", requires = "log")]
    coordinator_key: Option<NodeId>,
    /// What `submit --json` said that the secret is committed to by; what the coordinator says now, or in the log, is believed otherwise.
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
    if let Some(doubtful) = &job.doubtful {
        rows.push(("doubtful", doubtful.to_string()));
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
    /// Who has signed the log, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    coordinator: Option<NodeId>,
    /// What the secret is committed to by.
    secret_hash: SecretHash,
    #[serde(flatten)]
    audited: Option<Audited>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What is needed to draw again.
struct Evidence {
    job: JobId,
    policy: Option<Policy>,
    secret_hash: Option<SecretHash>,
    secret: Option<Secret>,
    records: Vec<Record>,
    coordinator: Option<NodeId>,
}

async fn verify(args: VerifyArgs) -> Outcome {
    let Evidence { job, policy, secret_hash, secret, records, coordinator } = match &args.log {
        Some(log) => logged(log, args.job.as_deref(), args.coordinator_key)
            .map_err(|error| CliError::Failed(format!("{}: {error}", log.display())))?,
        None => told(&args.connect.client()?, args.job.as_deref().unwrap_or_default()).await?,
    };
    let id = output::short(job);
    if policy != Some(Policy::Audit) {
        let policy = policy.map_or_else(|| "another".to_owned(), |policy| policy.to_string());
        return Err(CliError::Usage(format!(
            "job {id} has policy {policy}, so nothing was drawn: check its records with `quorate receipt get {id} --out DIR` and `quorate receipt verify DIR`"
        )));
    }
    let (Some(secret), Some(committed)) = (secret, args.secret_hash.or(secret_hash)) else {
        return Err(CliError::Failed(format!(
            "job {id} had not ended: its secret is told when it has, try again then"
        )));
    };
    let checked = audit::check(job, committed, &secret, &records);
    if args.connect.json {
        let (audited, error) = (checked.as_ref().ok().copied(), checked.as_ref().err().map(ToString::to_string));
        output::json(&Verified { job, holds: checked.is_ok(), coordinator, secret_hash: committed, audited, error })?;
    }
    let audited = checked.map_err(|error| CliError::Failed(format!("job {id}: {error}")))?;
    if !args.connect.json {
        output::line(&sentence(&audited))?;
        if let Some(coordinator) = coordinator {
            output::line(&format!("job {job}, by the log that coordinator {coordinator} has signed"))?;
        }
    }
    if coordinator.is_some() && (args.coordinator_key.is_none() || args.secret_hash.is_none()) {
        output::note(
            "who signed the log, and what the secret was committed to by, are by the log's own word: --coordinator-key and --secret-hash hold them against what you know",
        );
    }
    Ok(Exit::Ok)
}

/// What the coordinator tells now.
async fn told(client: &Client, job: &str) -> Result<Evidence, CliError> {
    let id = find_job(client, job).await?;
    let JobAnswer { policy, secret_hash, secret, .. } = client.job(id).await?;
    Ok(Evidence { job: id, policy, secret_hash, secret, records: records(client, id).await?, coordinator: None })
}

/// What a job's log has, which its coordinator signed.
fn logged(path: &Path, expected: Option<&str>, coordinator: Option<NodeId>) -> Result<Evidence, String> {
    let (Some(Kind::Job), file) = begun(path)? else {
        return Err("is no log of a job: write one with `quorate receipt get JOB --log FILE`".to_owned());
    };
    let mut records = Vec::new();
    let keep = |record: &Record| {
        records.push(record.clone());
        Ok(())
    };
    let said = JobLog::check_each(file, &mut Heads::default(), keep).map_err(|place| place.to_string())?;
    coordinator.map_or(Ok(()), |expected| signed_by(said.signed.as_ref(), expected))?;
    let JobHead { job, coordinator, policy, secret_hash, secret, .. } =
        said.signed.ok_or("has no signed end, and so no secret: get it again of a coordinator that signs")?;
    if let Some(expected) = expected.filter(|expected| !job.to_string().starts_with(*expected)) {
        return Err(format!("is the log of job {job}, not of {expected}"));
    }
    let (policy, secret_hash, coordinator) = (Some(policy), Some(secret_hash), Some(coordinator));
    Ok(Evidence { job, policy, secret_hash, secret, records, coordinator })
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
