//! `quorate receipt export`: everything that a host signed, as one file.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::{
    cli::{CliError, Exit, Outcome, output, paths},
    node::RECEIPTS_DIR,
    worker,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// The host's data directory; it may run meanwhile.
    #[arg(long, value_name = "DIR", default_value_os_t = paths::node_dir())]
    data_dir: PathBuf,
    /// The file that it goes to.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Write one JSON value to standard output, for programs.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ExportArgs) -> Outcome {
    let failed = |error: worker::ReceiptLogError| CliError::Failed(error.to_string());
    let batches = worker::export(&args.data_dir.join(RECEIPTS_DIR), &args.out).map_err(failed)?;
    if args.json {
        output::json(&json!({ "file": args.out, "batches": batches }))?;
    } else {
        let file = args.out.display();
        output::line(&format!("{batches} batches in {file}: check them with `quorate receipt verify {file}`"))?;
    }
    Ok(Exit::Ok)
}
