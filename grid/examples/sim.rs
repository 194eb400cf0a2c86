//! Simulates a grid from the command line: `cargo run --release -p quorate-grid --example sim -- --liars 0.2 --adversary rare-cheat`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example speaks to a terminal")]
#![allow(clippy::disallowed_methods, reason = "how long a simulation takes is measured here, where nothing is decided")]

use std::{error::Error, process::ExitCode, thread, time::Instant};

use grid::sim::{self, Broken, Network, Options, Report, Trouble, chart, sweep};

const USAGE: &str =
    "sim [--seed N] [--hosts N] [--operators N] [--vouched N] [--slots N] [--tasks N] [--job-tasks N] [--task-ms N]
    [--steps N] [--checkpoint-ms N] [--load SHARE] [--policy POLICY] [--adversary WORD] [--liars SHARE] [--established] [--no-re-entry] [--shown N]
    [--newcomers SHARE] [--stake TASKS] [--rate-min SHARE] [--dear TASKS] [--network calm|harsh] [--trouble none|usual] [--check-every N] [--json]
    [--sweep SHARE,SHARE.. --seeds N [--svg FILE]]";

/// What is asked for besides one run.
#[derive(Default)]
struct Ask {
    json: bool,
    sweep: Vec<u32>,
    seeds: u64,
    svg: Option<String>,
}

fn ppm(text: &str) -> Result<u32, Box<dyn Error>> {
    Ok((text.parse::<f64>()? * 1e6).round() as u32)
}

fn options() -> Result<(Options, Ask), Box<dyn Error>> {
    let (mut options, mut ask) = (Options::default(), Ask { seeds: 8, ..Ask::default() });
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
            "--steps" => options.steps = value()?.parse()?,
            "--checkpoint-ms" => options.checkpoint_ms = value()?.parse()?,
            "--load" => options.load_ppm = ppm(&value()?)?,
            "--policy" => options.policy = value()?.parse()?,
            "--adversary" => options.adversary = value()?.parse()?,
            "--liars" => options.liars_ppm = ppm(&value()?)?,
            "--established" => options.liars_established = true,
            "--no-re-entry" => options.re_entry_ms = None,
            "--shown" => options.shown_tasks = value()?.parse()?,
            "--newcomers" => options.newcomers_ppm = ppm(&value()?)?,
            "--stake" => options.stake_tasks = value()?.parse()?,
            "--rate-min" => options.config.audit.rate_ppm_min = ppm(&value()?)?,
            "--dear" => options.dear = value()?.parse()?,
            "--network" => options.network = if value()? == "harsh" { Network::harsh() } else { Network::default() },
            "--trouble" => options.trouble = if value()? == "usual" { Trouble::usual() } else { Trouble::default() },
            "--check-every" => options.check_every_events = value()?.parse()?,
            "--json" => ask.json = true,
            "--sweep" => ask.sweep = value()?.split(',').map(ppm).collect::<Result<_, _>>()?,
            "--seeds" => ask.seeds = value()?.parse()?,
            "--svg" => ask.svg = Some(value()?),
            _ => return Err(format!("{arg} is unknown\n{USAGE}").into()),
        }
    }
    options.operators = operators.unwrap_or(options.hosts);
    options.check()?;
    Ok((options, ask))
}

fn simulate() -> Result<(), Box<dyn Error>> {
    let (options, ask) = options()?;
    if !ask.sweep.is_empty() {
        return sweep_all(&options, &ask);
    }
    let began = Instant::now();
    let report = sim::run(&options)?;
    let seconds = began.elapsed().as_secs_f64();
    if ask.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
        println!("{:<22}{seconds:.2} s, {:.0} events/s", "took", report.events as f64 / seconds);
    }
    Ok(())
}

/// Every share of liars with every seed, on two threads.
fn sweep_all(options: &Options, ask: &Ask) -> Result<(), Box<dyn Error>> {
    let plan = sweep::plan(options, &ask.sweep, options.seed..options.seed + ask.seeds);
    let half = |odd: usize| plan.iter().skip(odd).step_by(2).map(sim::run).collect::<Vec<Result<Report, Broken>>>();
    let results = thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        let mut results = half(0);
        results.extend(other.join().unwrap_or_default());
        results
    });
    let reports = results.into_iter().collect::<Result<Vec<Report>, Broken>>()?;
    let points = sweep::points(&reports);
    if let Some(path) = &ask.svg {
        std::fs::write(path, chart::svg(&points))?;
    }
    if ask.json {
        println!("{}", serde_json::to_string_pretty(&points)?);
    } else {
        print!("{}", sweep::Table(&points));
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
