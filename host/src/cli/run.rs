//! `quorate run`: one task on this machine, with no grid. What a host would do, and what it would sign.
//!
//! - `local`: from arguments to how the task ended, through the code that hosts run (`crate::task`, `crate::sandbox`).
//! - `spans`: a task in steps, with snapshots, or from one on.
//! - `report`: how it ended, as one JSON object and as one line.
//!
//! The task is shard 0 of 1 of the job that `quorate submit` would make of the same arguments. A task's id names no job,
//! so the commitment printed here is the one in that job's receipts, as long as the engine fingerprints are equal.

mod local;
mod report;
mod spans;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use registry::{
    device::DeviceAsk,
    job::{Class, Profile, Stage},
    receipt::Outcome as TaskOutcome,
};

pub(super) use self::local::compile_options;
use self::{
    local::{Done, Ended},
    report::Report,
};
use super::{
    CliError, Exit, Outcome,
    folder::Folder,
    output,
    parse::{self, Pair},
    push::LimitArgs,
};

const HELP: &str = "Standard output, standard error and the exit code are the task's own; one more line on standard error \
says how it ended and what it cost.

Exit codes:
  N  the task's own, 0 to 255
  1  stopped by a trap or a limit, or this machine could not run it: the line says which, `--json` has a word for it
  2  refused before it ran: wrong arguments, a file that cannot be read, a module or model that no host would take

Limits may be as large as any host can give; a host of a grid may give less, and by default 1 GiB of memory.

A task may exit with 1 or 2 itself: only `outcome` of `--json` tells for sure. It is one of ok, exit, trap, fuel_out, \
memory_out, output_out (results, which hosts sign), rejected (refused here as on every host) and host_fault (no result).";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct RunArgs {
    /// The module, a .wasm file.
    module: PathBuf,
    /// A file with standard input, `-` for ours; empty when left out.
    #[arg(long, visible_alias = "input", value_name = "FILE")]
    stdin: Option<PathBuf>,
    /// An argument for the module; may be given again.
    #[arg(long = "arg", value_name = "TEXT", allow_hyphen_values = true)]
    args: Vec<String>,
    /// An environment variable for the module; may be given again. It has no others but the grid's own.
    #[arg(long = "env", value_name = "NAME=VALUE")]
    env: Vec<Pair>,
    /// A file that the module finds as /in/NAME; may be given again.
    #[arg(long = "in", visible_alias = "file", value_name = "NAME=PATH")]
    files: Vec<Pair>,
    /// A model file (ONNX) that the module loads by NAME; may be given again.
    #[arg(long = "model", value_name = "NAME=PATH")]
    models: Vec<Pair>,
    /// Write the files that the task leaves in /out below a directory; none that is there is replaced.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Keep a snapshot of a task in steps after each of its segments, and its states by their hashes, in a directory.
    #[arg(long, value_name = "DIR")]
    snapshots: Option<PathBuf>,
    /// Go on from a snapshot of the same task, wherever it was made: everything else is given as if from the start.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Run it as the task that joins the outputs of all shards, in stage `reduce`.
    #[arg(long)]
    reduce: bool,
    /// The class to commit to: exact, homogeneous or tolerant.
    #[arg(long, default_value = "exact", value_parser = parse::class)]
    class: Class,
    /// What the result may depend on: native (this processor's architecture and class) or portable (nothing).
    #[arg(long, default_value = "native", value_parser = parse::profile)]
    profile: Profile,
    /// What models run on: any, cpu or gpu. A GPU is never replaced by the processor.
    #[arg(long, default_value = "any", value_parser = parse::device)]
    device: DeviceAsk,
    /// What models run with, by how its name begins: `quorate doctor` lists what this machine has.
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Write one JSON object to standard output instead of what the task wrote.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

impl RunArgs {
    fn stage(&self) -> Stage {
        if self.reduce { Stage::Reduce } else { Stage::Map }
    }
}

pub(super) async fn run(args: RunArgs) -> Outcome {
    let (json, out) = (args.json, args.out.clone());
    let ended = local::run(args).await?;
    let report = Report::new(&ended);
    if json {
        output::json(&report)?;
    } else if let Ended::Done(done) = &ended {
        // The log first: when standard output is closed, why may be in it.
        let _ = io::stderr().write_all(&done.finished.stderr);
        let mut stdout = io::stdout().lock();
        stdout.write_all(&done.finished.stdout)?;
        stdout.flush()?;
    }
    if let (Ended::Done(done), Some(dir)) = (&ended, &out) {
        write_files(done, dir)?;
    }
    verdict(&ended, &report, json)
}

fn write_files(done: &Done, dir: &Path) -> Result<(), CliError> {
    let folder = Folder::open(dir)?;
    for (path, bytes) in &done.finished.files {
        let (mut file, shown) = folder.create(Path::new(path))?;
        file.write_all(bytes).map_err(|source| CliError::File { path: shown, source })?;
    }
    Ok(())
}

/// The last line, and the exit code.
fn verdict(ended: &Ended, report: &Report<'_>, json: bool) -> Outcome {
    let line = report.to_string();
    match ended {
        Ended::Rejected(_) => Err(CliError::Usage(line)),
        Ended::Fault(_) => Err(CliError::Failed(line)),
        Ended::Done(done) => {
            let exit = match done.execution.outcome {
                TaskOutcome::Ok => Exit::Ok,
                TaskOutcome::Exit(code) => Exit::Task(code),
                _ => return Err(CliError::Failed(line)),
            };
            if !json {
                output::note(&line);
            }
            Ok(exit)
        }
    }
}
