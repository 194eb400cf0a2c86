//! `quorate submit`

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Args;
use grid::flow::Payer;
use registry::{
    credits::Credits,
    device::DeviceAsk,
    id::{BlobHash, ModelHash, ModuleHash, RequesterId},
    job::{Class, INLINE_BYTES_MAX, Policy, Profile, Reduce, Split},
    name::Name,
    tolerance::Tolerance,
};

use super::{
    CliError, Exit, Outcome,
    connect::ConnectArgs,
    ledger, output,
    parse::{self, Pair},
    push, quote, results, wait,
};
use crate::{
    calibrate::file,
    client::{Client, answers::JobAnswer},
    gateway::wire::{InputRequest, JobRequest},
};

/// What `--input` calls standard input.
const STDIN: &str = "-";

#[derive(Debug, Args)]
pub(super) struct SubmitArgs {
    /// A name (alice/digits@1), a module's hash, or a .wasm file, which is pushed.
    module: String,
    /// A file with the input, `-` for standard input. Several are a shard each.
    #[arg(long, value_name = "FILE")]
    input: Vec<PathBuf>,
    /// The input itself.
    #[arg(long, value_name = "TEXT", conflicts_with = "input")]
    inline: Option<String>,
    /// How the input becomes shards: each, lines=N, or bytes=N[:DELIMITER].
    #[arg(long, value_name = "RULE", default_value = "each", value_parser = parse::split)]
    split: Split,
    /// Run the module once more, in stage `reduce`, over all outputs.
    #[arg(long)]
    reduce: bool,
    /// How results are checked: audit (one execution, and another operator's where it is drawn afterwards), quorum:K (K
    /// operators must agree) or none.
    #[arg(long, value_name = "POLICY", default_value = "audit")]
    policy: Policy,
    /// Hosts of distinct operators that must agree: the same as --policy quorum:K.
    #[arg(long, value_name = "K", conflicts_with = "policy")]
    quorum: Option<u8>,
    /// An argument for the module; may be given again.
    #[arg(long = "arg", value_name = "TEXT", allow_hyphen_values = true)]
    args: Vec<String>,
    /// An environment variable for the module; may be given again.
    #[arg(long = "env", value_name = "NAME=VALUE")]
    env: Vec<Pair>,
    /// A file that the module finds as /in/NAME; may be given again.
    #[arg(long = "file", value_name = "NAME=PATH")]
    files: Vec<Pair>,
    /// A model file or hash that the module loads by NAME; may be given again. Replaces the models of the name.
    #[arg(long = "model", value_name = "NAME=PATH")]
    models: Vec<Pair>,
    /// How far an auditor's answers of the model NAME may differ, as `quorate calibrate --out` wrote it; may be given again.
    /// Replaces what the name's manifest says.
    #[arg(long = "tolerance", value_name = "NAME=FILE")]
    tolerances: Vec<Pair>,
    /// Which executions must agree: exact, homogeneous or tolerant.
    #[arg(long, value_parser = parse::class)]
    class: Option<Class>,
    /// What results may depend on: native (the processor's architecture and class) or portable (nothing).
    #[arg(long, default_value = "native", value_parser = parse::profile)]
    profile: Profile,
    /// What its models run on: any, cpu or gpu. One that asks for a GPU is never run on the processor instead.
    #[arg(long, default_value = "any", value_parser = parse::device)]
    device: DeviceAsk,
    /// Memory in bytes that this device has at least.
    #[arg(long, value_name = "BYTES")]
    device_memory: Option<u64>,
    #[command(flatten)]
    limits: push::LimitArgs,
    /// Executions that one shard may cost before the job fails.
    #[arg(long)]
    attempts_max: Option<u32>,
    /// Time in milliseconds after which the job fails.
    #[arg(long)]
    deadline_ms: Option<u64>,
    /// What the job may cost, in credits such as 12 or 0.25. Without it the job runs on hosts that ask for nothing.
    #[arg(long, value_name = "CREDITS")]
    cap: Option<Credits>,
    /// Who pays; whoever has the key that you publish names with, when left out.
    #[arg(long, value_name = "ID", requires = "cap")]
    requester: Option<RequesterId>,
    /// Say what the job would cost, and do not submit it: FILE is what `quorate run --json` said of one of its tasks.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["wait", "no_wait", "out"])]
    quote: Option<PathBuf>,
    /// The same job with the same nonce is the same job: sending it again is safe.
    #[arg(long)]
    nonce: Option<u64>,
    /// Wait for the result; so it is unless --no-wait is given.
    #[arg(long, conflicts_with = "no_wait")]
    wait: bool,
    /// Print the job's id and leave.
    #[arg(long)]
    no_wait: bool,
    /// Write the result to a file instead of standard output.
    #[arg(long, value_name = "FILE", conflicts_with = "no_wait")]
    out: Option<PathBuf>,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn run(args: SubmitArgs) -> Outcome {
    let client = args.connect.client()?;
    let request = request(&client, &args).await?;
    if let Some(sample) = &args.quote {
        return quote::tell(&client, request, sample, args.connect.json).await;
    }
    let submitted = client.submit(&request).await?;
    if args.no_wait {
        // Whoever leaves now would not hear of it later.
        wait::tell(&client.job(submitted.id).await?);
        if args.connect.json {
            output::json(&submitted)?;
        } else {
            output::line(&submitted.id.to_string())?;
        }
        return Ok(Exit::Ok);
    }
    if !args.connect.json {
        output::note(&format!("job {} with {} shards", submitted.id, submitted.shards));
    }
    let job = wait::wait(&client, submitted.id).await?;
    let is_done = job.phase == "done";
    if args.connect.json {
        output::json(&job)?;
    }
    if is_done && (args.out.is_some() || !args.connect.json) {
        results::write_stdout(&client, job.id, None, args.out.as_deref()).await?;
    }
    verdict(&job)
}

/// Whether what was asked for succeeded, and what to look at if it did not.
fn verdict(job: &JobAnswer) -> Outcome {
    let id = output::short(job.id);
    if job.phase != "done" {
        let reason =
            job.reason.as_ref().map_or_else(String::new, |reason| format!(": {}", output::shown(&reason.to_string())));
        return Err(CliError::Failed(format!("job {id} {}{reason}; see `quorate why {id}`", job.phase)));
    }
    let bad: Vec<String> = job.bad_outcomes().map(|(word, tasks)| format!("{tasks} ended with {word}")).collect();
    if bad.is_empty() {
        return Ok(Exit::Ok);
    }
    Err(CliError::Failed(format!(
        "job {id} is done, but of its tasks {}: see `quorate receipt list {id}`",
        bad.join(", ")
    )))
}

async fn request(client: &Client, args: &SubmitArgs) -> Result<JobRequest, CliError> {
    let mut files = BTreeMap::new();
    for pair in &args.files {
        if files.insert(pair.name.clone(), push::upload(client, &pair.path()).await?.hash).is_some() {
            return Err(CliError::Usage(format!("file `{}` is given twice", pair.name)));
        }
    }
    Ok(JobRequest {
        module: module(client, &args.module).await?,
        args: args.args.clone(),
        env: args.env.iter().map(|pair| (pair.name.clone(), pair.value.clone())).collect(),
        files,
        models: models(client, &args.models).await?,
        tolerances: tolerances(&args.tolerances)?,
        input: input(client, args).await?,
        split: args.split.clone(),
        reduce: if args.reduce { Reduce::Task } else { Reduce::Concat },
        policy: args.quorum.map_or(args.policy, Policy::Quorum),
        class: args.class,
        profile: args.profile,
        device: args.device,
        device_memory_bytes_min: args.device_memory,
        limits: args.limits.request(),
        attempts_max: args.attempts_max,
        deadline_ms: args.deadline_ms,
        payer: payer(args)?,
        nonce: args.nonce,
    })
}

fn payer(args: &SubmitArgs) -> Result<Option<Payer>, CliError> {
    let Some(cap) = args.cap else { return Ok(None) };
    let requester = args.requester.map_or_else(ledger::own_requester, Ok)?;
    Ok(Some(Payer { requester, cap }))
}

/// A hash and a name are taken as they are; anything else is a file.
async fn module(client: &Client, text: &str) -> Result<String, CliError> {
    if text.parse::<ModuleHash>().is_ok() || text.parse::<Name>().is_ok() {
        return Ok(text.to_owned());
    }
    let path = Path::new(text);
    if !path.exists() {
        let message = format!("`{text}` is no name (alice/digits@1), no hash (64 digits), and there is no such file");
        return Err(CliError::Usage(message));
    }
    Ok(push::module(client, path).await?.hash.to_string())
}

async fn models(client: &Client, pairs: &[Pair]) -> Result<Option<BTreeMap<String, ModelHash>>, CliError> {
    if pairs.is_empty() {
        return Ok(None);
    }
    let (hashes, paths): (Vec<&Pair>, Vec<&Pair>) =
        pairs.iter().partition(|pair| pair.value.parse::<ModelHash>().is_ok());
    let paths: Vec<Pair> = paths.into_iter().cloned().collect();
    let pushed = push::models(client, &paths).await?.into_iter().map(|(name, blob)| (name, blob.hash.into()));
    let mut models: BTreeMap<String, ModelHash> = pushed.collect();
    models.extend(hashes.into_iter().filter_map(|pair| Some((pair.name.clone(), pair.value.parse().ok()?))));
    Ok(Some(models))
}

fn tolerances(pairs: &[Pair]) -> Result<Option<BTreeMap<String, Tolerance>>, CliError> {
    let read = |pair: &Pair| {
        let said = file::read(&pair.path()).map_err(|error| CliError::Usage(error.to_string()))?;
        Ok((pair.name.clone(), said.tolerance))
    };
    let all: BTreeMap<String, Tolerance> = pairs.iter().map(read).collect::<Result<_, CliError>>()?;
    Ok((!all.is_empty()).then_some(all))
}

async fn input(client: &Client, args: &SubmitArgs) -> Result<InputRequest, CliError> {
    if let Some(text) = &args.inline {
        return Ok(InputRequest::Text(text.clone()));
    }
    match args.input.as_slice() {
        [] => Ok(InputRequest::None),
        [path] => one_input(client, path).await,
        paths => {
            let mut blobs = Vec::with_capacity(paths.len());
            for path in paths {
                blobs.push(input_blob(client, path).await?);
            }
            Ok(InputRequest::Blobs(blobs))
        }
    }
}

/// A short input travels in the job, a longer one as a blob.
async fn one_input(client: &Client, path: &Path) -> Result<InputRequest, CliError> {
    let is_short = |about: std::fs::Metadata| about.is_file() && about.len() <= INLINE_BYTES_MAX as u64;
    if path != Path::new(STDIN) && std::fs::metadata(path).is_ok_and(is_short) {
        let bytes = std::fs::read(path).map_err(|source| CliError::File { path: path.to_owned(), source })?;
        return Ok(InputRequest::Inline(bytes.into()));
    }
    Ok(InputRequest::Blob(input_blob(client, path).await?))
}

async fn input_blob(client: &Client, path: &Path) -> Result<BlobHash, CliError> {
    if path == Path::new(STDIN) {
        return Ok(client.publish_reader(tokio::io::stdin(), |_| {}).await?.hash);
    }
    Ok(push::upload(client, path).await?.hash)
}

#[cfg(test)]
mod tests {
    use registry::id::JobId;

    use super::*;

    fn job(phase: &str, outcomes: &[(&str, u32)]) -> JobAnswer {
        JobAnswer {
            id: JobId([1; 32]),
            phase: phase.into(),
            reason: None,
            shards: 3,
            accepted: 3,
            executions: 6,
            open: 0,
            submitted_ms: 0,
            ended_ms: Some(1),
            policy: None,
            secret_hash: None,
            secret: None,
            costs: None,
            waits: None,
            unsteady: None,
            doubtful: None,
            devices: BTreeMap::new(),
            outcomes: Some(outcomes.iter().map(|(word, tasks)| ((*word).to_owned(), *tasks)).collect()),
            stdout: None,
            stdout_base64: None,
        }
    }

    #[test]
    fn a_job_whose_tasks_trapped_is_no_success() {
        assert_eq!(verdict(&job("done", &[("ok", 3)])).unwrap(), Exit::Ok);
        let error = verdict(&job("done", &[("ok", 2), ("trap(unreachable)", 1)])).unwrap_err();
        assert_eq!(error.exit(), Exit::Failed);
        assert!(error.to_string().contains("1 ended with trap(unreachable)"), "{error}");
        assert_eq!(verdict(&job("cancelled", &[])).unwrap_err().exit(), Exit::Failed);
    }
}
