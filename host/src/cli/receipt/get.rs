//! `quorate receipt get`: a job's records or its log, and with `--content` everything that a replay of records needs.

use std::path::{Path, PathBuf};

use clap::Args;
use registry::{
    id::{JobId, NodeId},
    job::ShardInfo,
    receipt::Record,
};
use serde::Serialize;

use super::{EXTENSION, stage};
use crate::{
    cli::{
        CliError, Exit, Outcome,
        connect::{ConnectArgs, find_job},
        output,
    },
    client::{Client, answers::ReceiptAnswer},
    replay::{self, CONTENT_DIR, Fetched, Folder},
};

#[derive(Debug, Args)]
pub(in crate::cli) struct GetArgs {
    /// The job, or the beginning of its id.
    job: String,
    /// The directory that they go to.
    #[arg(long, value_name = "DIR", required_unless_present = "log")]
    out: Option<PathBuf>,
    /// The file that the job's log goes to: all its records, in the order in which they were accepted, chained.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Download what a replay needs as well: the job, module, models, files, inputs and outputs, each a file named by its
    /// hash, in a directory `content` below.
    #[arg(long, requires = "out")]
    content: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What was written, when content was.
#[derive(Debug, Serialize)]
struct Got {
    records: Vec<PathBuf>,
    content: PathBuf,
    content_files: u64,
    content_bytes: u64,
}

pub(super) async fn run(args: GetArgs) -> Outcome {
    let client = args.connect.client()?;
    let id = find_job(&client, &args.job).await?;
    if let Some(log) = &args.log {
        get_log(&client, id, log, &args).await?;
    }
    match &args.out {
        Some(out) => get_records(&client, id, out, &args).await,
        None => Ok(Exit::Ok),
    }
}

async fn get_log(client: &Client, id: JobId, path: &Path, args: &GetArgs) -> Result<(), CliError> {
    let bytes = client.download(&format!("/v1/jobs/{id}/log")).await?.collect().await?;
    std::fs::write(path, &bytes).map_err(|source| CliError::File { path: path.to_owned(), source })?;
    // With records as well, their list is the one JSON value.
    match (args.connect.json, &args.out) {
        (true, None) => output::json(&path)?,
        (true, Some(_)) => {}
        (false, _) => {
            let file = path.display();
            output::line(&format!(
                "log in {file}: check it with `quorate receipt verify {file}`, and its audits with `quorate job verify --log {file}`"
            ))?;
        }
    }
    Ok(())
}

async fn get_records(client: &Client, id: JobId, out: &Path, args: &GetArgs) -> Outcome {
    let receipts: Vec<ReceiptAnswer> = client.get(&format!("/v1/jobs/{id}/receipts")).await?;
    std::fs::create_dir_all(out).map_err(|source| CliError::File { path: out.to_owned(), source })?;
    let content = out.join(CONTENT_DIR);
    let (folder, mut fetched) = (Folder::new(content.clone()), Fetched::default());
    let mut records = Vec::with_capacity(receipts.len());
    for receipt in receipts {
        let bytes = client.download(&format!("/v1/jobs/{id}/receipts/{}", receipt.index)).await?.collect().await?;
        let path = out.join(file_name(&receipt));
        std::fs::write(&path, &bytes).map_err(|source| CliError::File { path: path.clone(), source })?;
        if args.content {
            let refused = |error| CliError::Failed(format!("{}: {error}", path.display()));
            let checked = Record::from_bytes(&bytes).and_then(|record| record.check()).map_err(refused)?;
            let more = replay::fetch(client, &checked, &folder).await?;
            fetched.files += more.files;
            fetched.bytes += more.bytes;
        }
        records.push(path);
    }
    let dir = out.display();
    match (args.content, args.connect.json) {
        (false, true) => output::json(&records)?,
        (true, true) => {
            let Fetched { files: content_files, bytes: content_bytes } = fetched;
            output::json(&Got { records, content, content_files, content_bytes })?;
        }
        (false, false) => {
            output::line(&format!(
                "{} records in {dir}: check them with `quorate receipt verify {dir}`",
                records.len()
            ))?;
        }
        (true, false) => output::line(&format!(
            "{} records in {dir}, and {} of what they are about: run it again with `quorate receipt replay {dir}`",
            records.len(),
            output::bytes(fetched.bytes)
        ))?,
    }
    Ok(Exit::Ok)
}

fn file_name(receipt: &ReceiptAnswer) -> String {
    match (receipt.accused, &receipt.outcome) {
        (Some(node), _) => evidence_file(receipt.shard, node),
        (None, Some(_)) => named(receipt.shard, ""),
        (None, None) => named(receipt.shard, "-inconclusive"),
    }
}

/// What the file is called of the record that accuses the machine of what it signed for this part of a job.
pub(in crate::cli) fn evidence_file(shard: ShardInfo, node: NodeId) -> String {
    named(shard, &format!("-evidence-{}", node.short()))
}

fn named(shard: ShardInfo, kind: &str) -> String {
    format!("{}-{:06}{kind}.{EXTENSION}", stage(shard), shard.index)
}
