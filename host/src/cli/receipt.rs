//! `quorate receipt`: what hosts signed. `verify` and `replay` need no grid and no network, only files.
//!
//! - `get`: downloads records, and what it takes to run their tasks again.
//! - `replay`: runs them again.

mod get;
mod replay;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use registry::{
    job::{ShardInfo, Stage},
    receipt::{Checked, RECORD_BYTES_MAX, Record},
};
use serde::Serialize;

use super::{
    CliError, Exit, Outcome,
    connect::{ConnectArgs, find_job},
    output,
};
use crate::client::answers::ReceiptAnswer;

/// How files of records end.
const EXTENSION: &str = "cbor";

#[derive(Debug, Subcommand)]
pub(super) enum ReceiptVerb {
    /// List a job's records: one for each accepted shard, and evidence against who signed otherwise.
    List(ListArgs),
    /// Download a job's records, and what a replay needs.
    Get(get::GetArgs),
    /// Check records offline: signatures, certificates, agreement, and contradiction in evidence.
    Verify(VerifyArgs),
    /// Check records and run their tasks again: equal, or the first difference.
    Replay(replay::ReplayArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// The job, or the beginning of its id.
    job: String,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Files, or directories with `.cbor` files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Write one JSON value to standard output, for programs.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(verb: ReceiptVerb) -> Outcome {
    match verb {
        ReceiptVerb::List(args) => list(args).await,
        ReceiptVerb::Get(args) => get::run(args).await,
        ReceiptVerb::Verify(args) => verify(&args),
        ReceiptVerb::Replay(args) => replay::run(args).await,
    }
}

fn stage(shard: ShardInfo) -> &'static str {
    match shard.stage {
        Stage::Map => "map",
        Stage::Reduce => "reduce",
    }
}

async fn list(args: ListArgs) -> Outcome {
    let client = args.connect.client()?;
    let id = find_job(&client, &args.job).await?;
    let receipts: Vec<ReceiptAnswer> = client.get(&format!("/v1/jobs/{id}/receipts")).await?;
    if args.connect.json {
        output::json(&receipts)?;
        return Ok(Exit::Ok);
    }
    let row = |receipt: &ReceiptAnswer| {
        vec![
            receipt.index.to_string(),
            stage(receipt.shard).to_owned(),
            format!("{}/{}", receipt.shard.index, receipt.shard.count),
            receipt.outcome.clone().unwrap_or_default(),
            receipt.device.as_ref().map_or_else(String::new, |device| output::shown(&device.to_string())),
            output::bytes(receipt.bytes),
            receipt.accused.map_or_else(String::new, |node| format!("evidence against {}", node.short())),
        ]
    };
    let rows: Vec<_> = receipts.iter().map(row).collect();
    output::table(&["index", "stage", "shard", "outcome", "models on", "length", ""], &rows)?;
    Ok(Exit::Ok)
}

/// What came of checking one file.
#[derive(Debug, Serialize)]
struct Verified {
    file: PathBuf,
    holds: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    checked: Option<Checked>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn verify(args: &VerifyArgs) -> Outcome {
    let mut all = Vec::new();
    for path in &args.files {
        for file in files(path)? {
            let verified = verify_file(file);
            if !args.json {
                output::line(&sentence(&verified))?;
            }
            all.push(verified);
        }
    }
    let broken = all.iter().filter(|verified| !verified.holds).count();
    if args.json {
        output::json(&all)?;
    } else {
        let holding = all.len() - broken;
        output::line(&format!(
            "{holding} of {} hold: signatures, certificates and agreement of distinct operators were checked. Who the \
             operators are is for you to know.",
            all.len()
        ))?;
    }
    if broken > 0 {
        return Err(CliError::Failed(format!("{broken} of {} records do not hold", all.len())));
    }
    Ok(Exit::Ok)
}

/// The file, or the records in the directory.
fn files(path: &Path) -> Result<Vec<PathBuf>, CliError> {
    let failed = |source| CliError::File { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries: Result<Vec<_>, _> = std::fs::read_dir(path).map_err(failed)?.collect();
    let paths = entries.map_err(failed)?.into_iter().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION)).collect();
    if files.is_empty() {
        return Err(CliError::Usage(format!("{}: no .{EXTENSION} files in this directory", path.display())));
    }
    files.sort();
    Ok(files)
}

fn verify_file(file: PathBuf) -> Verified {
    match check(&file) {
        Ok(checked) => Verified { file, holds: true, checked: Some(checked), error: None },
        Err(error) => Verified { file, holds: false, checked: None, error: Some(error) },
    }
}

fn check(path: &Path) -> Result<Checked, String> {
    read(path)?.check().map_err(|error| error.to_string())
}

/// The record in a file, not checked yet.
pub(super) fn read(path: &Path) -> Result<Record, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > RECORD_BYTES_MAX as u64 {
        return Err(format!("file of {length} bytes is over the bound of {RECORD_BYTES_MAX} bytes"));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    Record::from_bytes(&bytes).map_err(|error| error.to_string())
}

fn sentence(verified: &Verified) -> String {
    let file = verified.file.display();
    let Some(checked) = &verified.checked else {
        return format!("BAD  {file}: {}", verified.error.as_deref().unwrap_or("not checked"));
    };
    let operators = checked.operators.len();
    let shard = format!("{} {} of {}", stage(checked.shard), checked.shard.index, checked.shard.count);
    let job = output::short(checked.job);
    let commitment = checked.commitment.short();
    let devices: Vec<String> = checked.devices.iter().map(|device| output::shown(&device.to_string())).collect();
    let on = if devices.is_empty() { String::new() } else { format!(", models on {}", devices.join(" and ")) };
    match &checked.accused {
        None => format!("ok   {file}: job {job}, {shard}: {operators} operators signed result {commitment}{on}"),
        Some((node, lie)) => format!(
            "ok   {file}: job {job}, {shard}: node {} signed {}, where {operators} operators signed {commitment}{on}",
            node.short(),
            lie.short()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_record_does_not_hold_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map-000000.cbor");
        std::fs::write(&path, b"nonsense").unwrap();
        let args = VerifyArgs { files: vec![dir.path().to_owned()], json: false };
        assert_eq!(verify(&args).unwrap_err().exit(), Exit::Failed);
        let verified = verify_file(path);
        assert!(
            sentence(&verified).starts_with("BAD  ") && sentence(&verified).contains("not a record"),
            "{verified:?}"
        );
    }

    #[test]
    fn an_empty_directory_proves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(files(dir.path()).unwrap_err().exit(), Exit::Usage);
    }
}
