//! Simulates a grid from the command line: `cargo run --release -p quorate-grid --example sim -- --liars 0.2 --adversary rare-cheat`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example speaks to a terminal")]
#![allow(clippy::disallowed_methods, reason = "how long a simulation takes is measured here, where nothing is decided")]

use std::{error::Error, process::ExitCode, time::Instant};

use grid::sim::{self, Network, Options, Trouble};

const USAGE: &str =
    "sim [--seed N] [--hosts N] [--operators N] [--vouched N] [--slots N] [--tasks N] [--job-tasks N] [--task-ms N]
    [--load SHARE] [--policy POLICY] [--adversary WORD] [--liars SHARE] [--established] [--no-re-entry] [--shown N]
    [--newcomers SHARE] [--network calm|harsh] [--trouble none|usual] [--check-every N] [--json]";

fn ppm(text: &str) -> Result<u32, Box<dyn Error>> {
    Ok((text.parse::<f64>()? * 1e6).round() as u32)
}

fn options() -> Result<(Options, bool), Box<dyn Error>> {
    let (mut options, mut json) = (Options::default(), false);
    let mut operators = None;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value\n{USAGE}"));
        match arg.as_str() {
            "--seed" => options.seed = value()?.parse()?,
            "--hosts" => options.hosts = value()?.parse()?,
            "--operators" => operators = Some(value()?.parse()?),
            "--vouched" => options.vouched = value()?.parse()?,
            "--slots" => options.slots = value()?.parse()?,
            "--tasks" => options.tasks = value()?.parse()?,
            "--job-tasks" => options.job_tasks = value()?.parse()?,
            "--task-ms" => options.task_ms = value()?.parse()?,
            "--load" => options.load_ppm = ppm(&value()?)?,
            "--policy" => options.policy = value()?.parse()?,
            "--adversary" => options.adversary = value()?.parse()?,
            "--liars" => options.liars_ppm = ppm(&value()?)?,
            "--established" => options.liars_established = true,
            "--no-re-entry" => options.re_entry_ms = None,
            "--shown" => options.shown_tasks = value()?.parse()?,
            "--newcomers" => options.newcomers_ppm = ppm(&value()?)?,
            "--network" => options.network = if value()? == "harsh" { Network::harsh() } else { Network::default() },
            "--trouble" => options.trouble = if value()? == "usual" { Trouble::usual() } else { Trouble::default() },
            "--check-every" => options.check_every_events = value()?.parse()?,
            "--json" => json = true,
            _ => return Err(format!("{arg} is unknown\n{USAGE}").into()),
        }
    }
    options.operators = operators.unwrap_or(options.hosts);
    options.check()?;
    Ok((options, json))
}

fn simulate() -> Result<(), Box<dyn Error>> {
    let (options, json) = options()?;
    let began = Instant::now();
    let report = sim::run(&options)?;
    let seconds = began.elapsed().as_secs_f64();
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
        println!("{:<22}{seconds:.2} s, {:.0} events/s", "took", report.events as f64 / seconds);
    }
    Ok(())
}

fn main() -> ExitCode {
    match simulate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
