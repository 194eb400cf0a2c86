//! `quorate reputation`: what operators have shown. `verify` needs no grid and no network, only files.
//!
//! - without a verb: who has which standing, and how their machines were there for what they were given.
//! - `export`: writes an operator's history, signed by the coordinator, to a file.
//! - `verify`: checks such a file, and computes the standing anew.

mod verify;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use registry::id::OperatorId;
use serde_json::json;

use super::{CliError, Exit, Outcome, connect::ConnectArgs, output};
use crate::client::answers::{ClassAnswer, OperatorAnswer};

/// Micro-credits of one task, as long as nobody pays for it.
const TASK_MICRO: u64 = grid::audit::TASK_MICRO;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct ReputationArgs {
    #[command(subcommand)]
    verb: Option<ReputationVerb>,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Subcommand)]
enum ReputationVerb {
    /// Write the history of an operator, every change of its standing with its evidence, to one signed file.
    Export(ExportArgs),
    /// Check a history offline: signature, chain, each number anew, and the receipts that it names.
    Verify(verify::VerifyArgs),
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// Whose.
    operator: OperatorId,
    /// The file that it goes to.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn run(args: ReputationArgs) -> Outcome {
    match args.verb {
        None => list(&args.connect).await,
        Some(ReputationVerb::Export(args)) => export(args).await,
        Some(ReputationVerb::Verify(args)) => verify::run(&args),
    }
}

async fn list(connect: &ConnectArgs) -> Outcome {
    let operators: Vec<OperatorAnswer> = connect.client()?.get("/v1/reputation").await?;
    if connect.json {
        output::json(&operators)?;
        return Ok(Exit::Ok);
    }
    let head = ["operator", "class", "standing", "tasks", "checked", "machines", "given", "faults", "entries", "head"];
    output::table(&head, &operators.iter().flat_map(rows).collect::<Vec<_>>())?;
    Ok(Exit::Ok)
}

/// A row for each class, or one for an operator that has shown nothing.
fn rows(operator: &OperatorAnswer) -> Vec<Vec<String>> {
    let row = |class: Option<&ClassAnswer>| {
        let (standing, now_micro) = class.map(|class| (class.standing, class.now_micro)).unwrap_or_default();
        vec![
            operator.operator.to_string(),
            class.map_or("-", |class| class.class.word()).to_owned(),
            word(operator.suspended.is_some(), operator.vouched, class.is_some_and(|class| class.qualified)).to_owned(),
            tasks(now_micro),
            standing.confirmed.to_string(),
            format!("{}/{}", operator.connected, operator.machines),
            operator.given.to_string(),
            operator.faults.to_string(),
            operator.entries.to_string(),
            operator.head.to_string(),
        ]
    };
    match operator.classes.as_slice() {
        [] => vec![row(None)],
        classes => classes.iter().map(|class| row(Some(class))).collect(),
    }
}

/// Whether results are accepted on an operator's word.
fn word(expelled: bool, vouched: bool, qualified: bool) -> &'static str {
    match (expelled, vouched, qualified) {
        (true, ..) => "expelled",
        (false, true, _) => "vouched",
        (false, false, true) => "qualified",
        (false, false, false) => "newcomer",
    }
}

/// Checked work, in tasks.
fn tasks(micro: u64) -> String {
    format!("{}.{:03}", micro / TASK_MICRO, micro % TASK_MICRO / 1000)
}

async fn export(args: ExportArgs) -> Outcome {
    let failed = |source| CliError::File { path: args.out.clone(), source };
    let client = args.connect.client()?;
    let download = client.download(&format!("/v1/reputation/{}/history", args.operator)).await?;
    let mut file = tokio::fs::File::create(&args.out).await.map_err(failed)?;
    let bytes = download.write_to(&mut file, &args.out).await?;
    if args.connect.json {
        output::json(&json!({ "operator": args.operator, "file": args.out, "bytes": bytes }))?;
    } else {
        let file = args.out.display();
        output::line(&format!("history in {file}: check it with `quorate reputation verify {file}`"))?;
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checked_work_is_told_in_tasks() {
        assert_eq!([0, 1_500_000, 2_000_000_999].map(tasks), ["0.000", "1.500", "2000.000"]);
    }
}
