//! `quorate receipt replay`: runs the tasks of records again, with no grid.

use std::path::{Path, PathBuf};

use clap::Args;
use registry::receipt::Record;
use serde::Serialize;

use super::{EXTENSION, files, read, stage};
use crate::{
    calibrate::file,
    cli::{CliError, Exit, Outcome, connect::ConnectArgs, output},
    client::Client,
    replay::{self, Folder, Player, Replayed, Sources, Verdict},
};

#[derive(Debug, Args)]
pub(in crate::cli) struct ReplayArgs {
    /// Records, or directories with `.cbor` files. What `receipt get --content` put beside them is found by itself.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Where else content may be: a directory of files named by their hashes, or the data directory of a node that does not
    /// run.
    #[arg(long, value_name = "DIR")]
    blobs: Vec<PathBuf>,
    /// Fetch from the coordinator what is not beside the records.
    #[arg(long)]
    fetch: bool,
    /// Run what was signed on another engine as well, and compare outcome and output alone.
    #[arg(long)]
    any_engine: bool,
    /// Run models on this backend, by how its name begins, e.g. tract or onnxruntime: of class tolerant, records of any other.
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Keep what the tasks write now, each file named by its hash: another machine can say where its replay differs from
    /// it.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Judge a model's answers by this tolerance, which `quorate calibrate --out` wrote, whatever the job says.
    #[arg(long, value_name = "FILE")]
    tolerance: Vec<PathBuf>,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What came of one file.
#[derive(Debug, Serialize)]
struct Played {
    file: PathBuf,
    /// `equal`, `within` (the tolerance of its models), `different`, `accused_right`, or `refused`: not run, or not to its end.
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed: Option<Replayed>,
    /// A stable word for why it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Played {
    fn new(file: PathBuf, replayed: Replayed) -> Self {
        let verdict = match replayed.verdict {
            Verdict::Equal => "equal",
            Verdict::Within => "within",
            Verdict::Different => "different",
            Verdict::AccusedRight => "accused_right",
        };
        Self { file, verdict, replayed: Some(replayed), reason: None, error: None }
    }

    fn refused(file: PathBuf, (reason, error): (&'static str, String)) -> Self {
        Self { file, verdict: "refused", replayed: None, reason: Some(reason), error: Some(error) }
    }
}

pub(super) async fn run(args: ReplayArgs) -> Outcome {
    let client = if args.fetch { Some(args.connect.client()?) } else { None };
    let sources = Sources::open(&args.blobs).await.map_err(|error| CliError::Usage(error.to_string()))?;
    let mut player = Player::new(sources, args.any_engine, args.keep.clone());
    for path in &args.tolerance {
        let said = file::read(path).map_err(|error| CliError::Usage(error.to_string()))?;
        player.tolerate(said.model, said.tolerance);
    }
    if let Some(backend) = &args.backend {
        player.run_on(backend.clone());
    }
    let played = play_all(&args, client.as_ref(), &mut player).await;
    player.close().await;
    let played = played?;
    let equal = played.iter().filter(|played| matches!(played.verdict, "equal" | "within")).count();
    if args.connect.json {
        output::json(&played)?;
    } else if played.len() > 1 {
        output::line(&format!("{equal} of {} come out as they were signed", played.len()))?;
    }
    match played.as_slice() {
        _ if equal == played.len() => Ok(Exit::Ok),
        [_] => Err(CliError::Failed("the record does not come out as it was signed".to_owned())),
        _ => Err(CliError::Failed(format!(
            "{} of {} records do not come out as they were signed",
            played.len() - equal,
            played.len()
        ))),
    }
}

async fn play_all(args: &ReplayArgs, client: Option<&Client>, player: &mut Player) -> Result<Vec<Played>, CliError> {
    let mut all = Vec::new();
    for path in &args.files {
        for file in files(path, &[EXTENSION])? {
            let played = match play(&file, client, player).await {
                Ok(replayed) => Played::new(file, replayed),
                Err(refused) => Played::refused(file, refused),
            };
            if !args.connect.json {
                output::line(&output::escaped(&sentence(&played)))?;
            }
            all.push(played);
        }
    }
    Ok(all)
}

async fn play(file: &Path, client: Option<&Client>, player: &mut Player) -> Result<Replayed, (&'static str, String)> {
    let record: Record = read(file).map_err(|error| ("record", error))?;
    let beside = Folder::beside(file);
    if let Some(client) = client {
        let checked = record.check().map_err(|error| ("record", error.to_string()))?;
        replay::fetch(client, &checked, &beside).await.map_err(|error| ("fetch", error.to_string()))?;
    }
    player.look_into(beside);
    player.replay(&record).await.map_err(|error| (error.word(), error.to_string()))
}

/// One line for people.
fn sentence(played: &Played) -> String {
    let file = played.file.display();
    let Some(replayed) = &played.replayed else {
        return format!("refused    {file}: {}", played.error.as_deref().unwrap_or("not run"));
    };
    let about = format!(
        "{file}: job {}, {} {} of {}",
        output::short(replayed.job),
        stage(replayed.shard),
        replayed.shard.index,
        replayed.shard.count
    );
    let engines = match &replayed.engines {
        Some(engines) => format!(" (on another engine, so outcome and output alone were compared: {engines})"),
        None => String::new(),
    };
    let difference = replayed.difference.as_ref().map(ToString::to_string).unwrap_or_default();
    let answers = replayed.answers.as_ref().map_or_else(String::new, |answers| format!("; models answered {answers}"));
    if let Some((equal, receipts)) = replayed.reproduced {
        return format!(
            "different  {about}: {equal} of {receipts} receipts that differ say what comes out here{engines}"
        );
    }
    match (&replayed.accused, replayed.verdict) {
        (None, Verdict::Equal) => format!("equal      {about}: comes out as it was signed{answers}{engines}"),
        (_, Verdict::Within) => {
            format!("within     {about}: comes out as it was signed, models within their tolerance{answers}{engines}")
        }
        (Some(accused), Verdict::Equal) => {
            let node = accused.node.short();
            match &accused.difference {
                Some(lie) => format!(
                    "equal      {about}: the quorum's result comes out, node {node} signed something else: {lie}{engines}"
                ),
                None => {
                    format!("equal      {about}: the quorum's result comes out, and node {node}'s as well{engines}")
                }
            }
        }
        (Some(accused), Verdict::AccusedRight) => format!(
            "different  {about}: what the accused node {} signed comes out, and not what the quorum did: {difference}{engines}",
            accused.node.short()
        ),
        (_, _) => format!("different  {about}: {difference}{engines}"),
    }
}
