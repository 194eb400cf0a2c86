//! `quorate dispute`: two receipts that differ, and who of the two is wrong. Needs no grid and no network, only files.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use registry::{
    dispute::{Dispute, End, Judgement},
    receipt::{RECORD_BYTES_MAX, Record, Witness},
};
use serde::Serialize;

use super::{CliError, Exit, Outcome, output, receipt};
use crate::replay::{Folder, Player, Refereed, ReplayError, Sources, read_file};

#[derive(Debug, Subcommand)]
pub(super) enum DisputeVerb {
    /// Find the first segment in which two receipts of one task differ, and run it: the file that comes of it is evidence.
    Make(MakeArgs),
    /// Check a dispute and run its one segment again: the first side is right, the second, or neither.
    Replay(ReplayArgs),
}

#[derive(Debug, Args)]
pub(super) struct MakeArgs {
    /// A record with a receipt, a file of `receipt get`: an accepted one, or evidence, of which the accused side counts where there
    /// is another record.
    first: PathBuf,
    /// Another, which says otherwise; evidence alone has both sides.
    second: Option<PathBuf>,
    /// The file to write. The snapshot goes into a directory `content` beside it.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Where content may be beside the records: a directory of files named by their hashes, or the data directory of a node that
    /// does not run.
    #[arg(long, value_name = "DIR")]
    blobs: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// A file of `dispute make`, or a record of `receipt get` that is a dispute.
    file: PathBuf,
    /// Where content may be beside the file: a directory of files named by their hashes, or the data directory of a node that does
    /// not run.
    #[arg(long, value_name = "DIR")]
    blobs: Vec<PathBuf>,
    /// Write one JSON value to standard output, for programs.
    #[arg(long)]
    json: bool,
}

/// What came of a file.
#[derive(Debug, Serialize)]
struct Replayed {
    file: PathBuf,
    /// `first`, `second`, `neither`, or `refused`: not run.
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refereed: Option<Refereed>,
    /// A stable word for why it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) async fn run(verb: DisputeVerb) -> Outcome {
    match verb {
        DisputeVerb::Make(args) => make(args).await,
        DisputeVerb::Replay(args) => replay(args).await,
    }
}

/// A player of what is in these directories and beside these files.
async fn player(blobs: &[PathBuf], files: &[&Path]) -> Result<Player, CliError> {
    let sources = Sources::open(blobs).await.map_err(|error| CliError::Usage(error.to_string()))?;
    let mut player = Player::new(sources, false, None);
    for file in files {
        player.look_into(Folder::beside(file));
    }
    Ok(player)
}

async fn make(args: MakeArgs) -> Outcome {
    let refused = |path: &Path, error: String| CliError::Usage(format!("{}: {error}", path.display()));
    let read = |path: &Path| receipt::read(path).map_err(|error| refused(path, error));
    let none = |path: &Path| refused(path, "holds no receipt of its own side".to_owned());
    let first = read(&args.first)?;
    let witnesses = match &args.second {
        Some(second) => {
            let [first, other] = [side(&first), side(&read(second)?)];
            [first.ok_or_else(|| none(&args.first))?, other.ok_or_else(|| none(second))?]
        }
        None => both_sides(&first).ok_or_else(|| none(&args.first))?,
    };
    let files: Vec<&Path> = std::iter::once(&args.first).chain(&args.second).map(PathBuf::as_path).collect();
    let mut player = player(&args.blobs, &files).await?;
    let made = player.dispute(witnesses, &Folder::beside(&args.out)).await;
    player.close().await;
    let dispute = made.map_err(|error| CliError::Failed(error.to_string()))?;
    std::fs::write(&args.out, dispute.to_bytes())
        .map_err(|source| CliError::File { path: args.out.clone(), source })?;
    let judgement = dispute.check().map_err(ReplayError::from).map_err(|error| CliError::Failed(error.to_string()))?;
    let said = sentence(judgement.judge(&dispute.found), dispute.segment, &dispute.found);
    output::line(&format!("{}: {said}", args.out.display()))?;
    Ok(Exit::Ok)
}

/// What a record is held to say where another record says otherwise.
fn side(record: &Record) -> Option<Witness> {
    record.accused().or_else(|| record.agreeing().first()).cloned()
}

fn both_sides(record: &Record) -> Option<[Witness; 2]> {
    Some([record.agreeing().first()?.clone(), record.accused()?.clone()])
}

async fn replay(args: ReplayArgs) -> Outcome {
    let refereed = match read(&args.file) {
        Ok(dispute) => {
            let mut player = player(&args.blobs, &[&args.file]).await?;
            let refereed = player.referee(&dispute).await;
            player.close().await;
            refereed
        }
        Err(error) => Err(error),
    };
    let replayed = match refereed {
        Ok(refereed) => {
            let verdict = word(refereed.judgement);
            Replayed { file: args.file, verdict, refereed: Some(refereed), reason: None, error: None }
        }
        Err(error) => {
            let (reason, error) = (Some(error.word()), Some(error.to_string()));
            Replayed { file: args.file, verdict: "refused", refereed: None, reason, error }
        }
    };
    if args.json {
        output::json(&replayed)?;
    }
    let file = replayed.file.display();
    let Some(refereed) = &replayed.refereed else {
        let why = replayed.error.as_deref().unwrap_or("not run");
        return Err(CliError::Failed(format!("{file}: {why}")));
    };
    if !args.json {
        let Refereed { judgement, segment, found, first, second, .. } = refereed;
        let said = sentence(*judgement, *segment, found);
        output::line(&format!("{file}: {said} (first: node {}, second: node {})", first.short(), second.short()))?;
    }
    if refereed.as_filed {
        return Ok(Exit::Ok);
    }
    Err(CliError::Failed("the segment does not come out as the file says".to_owned()))
}

/// The dispute in a file, not checked yet.
fn read(path: &Path) -> Result<Dispute, ReplayError> {
    let bytes = read_file("dispute", path, RECORD_BYTES_MAX as u64)?;
    match Record::from_bytes(&bytes) {
        Ok(Record::Dispute(dispute)) => Ok(*dispute),
        _ => Ok(Dispute::from_bytes(&bytes)?),
    }
}

const fn word(judgement: Judgement) -> &'static str {
    match judgement {
        Judgement::First => "first",
        Judgement::Second => "second",
        Judgement::Neither => "neither",
    }
}

/// One line for people.
fn sentence(judgement: Judgement, segment: u32, found: &End) -> String {
    let who = match judgement {
        Judgement::First => "the first side is right, and the second is refuted",
        Judgement::Second => "the second side is right, and the first is refuted",
        Judgement::Neither => "neither side is right",
    };
    match found {
        End::State(state) => format!("{who}: segment {segment} leads to state {}", state.short()),
        End::Task(ending) => format!("{who}: segment {segment} ends the task, {}", ending.outcome),
    }
}
