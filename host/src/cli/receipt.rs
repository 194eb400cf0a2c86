//! `quorate receipt`: what hosts signed. `verify` and `replay` need no grid and no network, only files.
//!
//! - `get`: downloads records, a job's log, and what it takes to run their tasks again.
//! - `export`: writes the log of a host on this machine to one file.
//! - `verify`: checks records and logs.
//! - `replay`: runs records again.

mod export;
mod get;
mod replay;
mod verify;

use std::{
    fs::File,
    io::{BufRead, BufReader, Cursor, Read},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use registry::{
    job::{ShardInfo, Stage},
    log::Kind,
    receipt::{RECORD_BYTES_MAX, Record},
};

pub(super) use self::{get::evidence_file, verify::signed_by};
use super::{
    CliError, Exit, Outcome,
    connect::{ConnectArgs, find_job},
    output,
};
use crate::client::answers::ReceiptAnswer;

/// How files of records end.
pub(super) const EXTENSION: &str = "cbor";
/// How files of logs end.
pub(super) const LOG_EXTENSION: &str = "log";

#[derive(Debug, Subcommand)]
pub(super) enum ReceiptVerb {
    /// List a job's records: one for each accepted shard, and evidence against who signed otherwise.
    List(ListArgs),
    /// Download a job's records or its log, and what a replay needs.
    Get(get::GetArgs),
    /// Write the log of a host on this machine, everything that it signed, to one file.
    Export(export::ExportArgs),
    /// Check records and logs offline: signatures, certificates, agreement, contradiction in evidence, and chains without gaps.
    Verify(verify::VerifyArgs),
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

pub(super) async fn run(verb: ReceiptVerb) -> Outcome {
    match verb {
        ReceiptVerb::List(args) => list(args).await,
        ReceiptVerb::Get(args) => get::run(args).await,
        ReceiptVerb::Export(args) => export::run(&args),
        ReceiptVerb::Verify(args) => verify::run(&args),
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
            match (receipt.accused, &receipt.outcome) {
                (Some(node), _) => format!("evidence against {}", node.short()),
                (None, Some(_)) => String::new(),
                (None, None) => "nobody reproduced it".to_owned(),
            },
        ]
    };
    let rows: Vec<_> = receipts.iter().map(row).collect();
    output::table(&["index", "stage", "shard", "outcome", "models on", "length", ""], &rows)?;
    if let Some(last) = receipts.iter().max_by_key(|receipt| receipt.seq) {
        output::line(&format!("log of {} records, head {}", last.seq + 1, last.link))?;
    }
    Ok(Exit::Ok)
}

/// The file, or those in the directory that end so.
pub(super) fn files(path: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, CliError> {
    let failed = |source| CliError::File { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries: Result<Vec<_>, _> = std::fs::read_dir(path).map_err(failed)?.collect();
    let paths = entries.map_err(failed)?.into_iter().map(|entry| entry.path());
    let ends_so =
        |path: &PathBuf| extensions.iter().any(|extension| path.extension().is_some_and(|end| end == *extension));
    let mut files: Vec<PathBuf> = paths.filter(ends_so).collect();
    if files.is_empty() {
        let ends = extensions.join(" or .");
        return Err(CliError::Usage(format!("{}: no .{ends} files in this directory", path.display())));
    }
    files.sort();
    Ok(files)
}

/// What kind of log a file is, if it is one, and what comes after the line that says so.
pub(super) fn begun(path: &Path) -> Result<(Option<Kind>, impl BufRead), String> {
    let mut file = BufReader::new(File::open(path).map_err(|error| error.to_string())?);
    let mut beginning = Vec::new();
    file.by_ref().take(Kind::LINE_BYTES_MAX as u64).read_to_end(&mut beginning).map_err(|error| error.to_string())?;
    let kind = Kind::of(&beginning);
    let rest = beginning.split_off(kind.map_or(0, |kind| kind.line().len()));
    Ok((kind, Cursor::new(rest).chain(file)))
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
