//! `quorate doctor`: what this machine has, and what to do about what it lacks.

use clap::Args;

use super::{CliError, Exit, Outcome, output};
use crate::doctor::{self, Backend, JailLayer, Machine, Report, State};

const HELP: &str = "Everything that models may run on is started as a host starts it, in a jailed process, and measured with one matrix \
product. What is missing costs the jobs that ask for it and nothing else: the exit code is 0 unless no task would run here.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct DoctorArgs {
    /// Write one JSON value to standard output, for programs.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: DoctorArgs) -> Outcome {
    let looked = tokio::task::spawn_blocking(doctor::look).await;
    let report = looked.map_err(|_| CliError::Failed("looking at this machine panicked".to_owned()))?;
    if args.json {
        output::json(&report)?;
    } else {
        show(&report)?;
    }
    Ok(if report.runs { Exit::Ok } else { Exit::Failed })
}

fn show(report: &Report) -> Result<(), CliError> {
    let Machine { architecture, processor, cpu_class, cores, memory_bytes, system } = &report.machine;
    output::line(&format!("quorate   {}", report.version))?;
    output::line(&output::escaped(&format!(
        "machine   {architecture}, {processor}, class {}, {cores} cores, {} of memory, {system}",
        cpu_class.word(),
        output::bytes(*memory_bytes)
    )))?;
    jail(&report.jail)?;
    output::line("")?;
    let rows: Vec<_> = report.backends.iter().map(row).collect();
    output::table(&["backend", "state", "class", "device", "memory", "speed"], &rows)?;
    output::line("")?;
    for line in report.backends.iter().flat_map(remarks) {
        output::line(&output::escaped(&line))?;
    }
    if !report.runs {
        output::line("no task runs on this machine")?;
    }
    Ok(())
}

fn jail(layers: &[JailLayer]) -> Result<(), CliError> {
    if layers.is_empty() {
        return output::line("jail      no sandbox process starts");
    }
    let complete: Vec<&str> = layers.iter().filter(|layer| layer.lacks.is_none()).map(|layer| layer.layer).collect();
    output::line(&format!("jail      complete: {}", complete.join(", ")))?;
    for JailLayer { layer, lacks } in layers {
        if let Some(lacks) = lacks {
            output::line(&output::escaped(&format!("          {layer} is not: {lacks}; a newer kernel has it")))?;
        }
    }
    Ok(())
}

fn row(backend: &Backend) -> Vec<String> {
    let mut row = vec![backend.name.clone(), backend.state.word().to_owned()];
    if let State::Runs { class, device, memory_bytes, mflops, .. } = &backend.state {
        let device = device.as_ref().map_or_else(String::new, ToString::to_string);
        let speed = format!("{}.{} GFLOPS", mflops / 1000, mflops % 1000 / 100);
        row.extend([class.word().to_owned(), output::escaped(&device), output::bytes(*memory_bytes), speed]);
    }
    row
}

/// What there is to say of a backend, each in a line.
fn remarks(backend: &Backend) -> Vec<String> {
    let mut said = Vec::new();
    let found = match (&backend.library, backend.found) {
        (Some(library), Some(found)) => format!("{} ({found})", library.display()),
        _ => String::new(),
    };
    match &backend.state {
        State::Runs { version, engine, .. } => {
            let found = if found.is_empty() { found } else { format!(", {found}") };
            said.push(format!("{}: {version}{found}, engine {}", backend.name, engine.short()));
        }
        State::Fails { why } | State::Missing { why } => {
            // A backend may say several lines.
            let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
            let found = if found.is_empty() || why.contains(&found) { String::new() } else { format!("{found}: ") };
            said.push(format!("{}: {found}{why}", backend.name));
        }
    }
    said.extend(backend.advice.iter().map(|advice| format!("  {advice}")));
    said
}
