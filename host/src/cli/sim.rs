//! `quorate sim`: a grid on virtual time, in which the code that decides in the field decides.

use std::{
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use clap::{Args, ValueEnum};
use grid::sim::{
    self, Adversary, Broken, Network, Options, Report, Trouble, chart,
    sweep::{self, Table},
};
use registry::{audit::PPM, job::Policy};

use super::{CliError, Exit, Outcome, output};
use crate::{clock::Stopwatch, config::Config};

/// Shares of liars of a sweep.
const SWEEP: [f64; 6] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5];

#[derive(Debug, Args)]
pub(super) struct SimArgs {
    /// Machines.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    hosts: u32,
    /// Operators that they belong to, evenly; one for each machine when left out.
    #[arg(long, value_name = "N")]
    operators: Option<u32>,
    /// Operators that the grid's owner answers for.
    #[arg(long, value_name = "N", default_value_t = 3)]
    vouched: u32,
    /// Tasks that a machine runs at a time.
    #[arg(long, value_name = "N", default_value_t = 2)]
    slots: u32,
    /// Tasks in all.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    tasks: u32,
    /// Tasks of one job.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    job_tasks: u32,
    /// Segments of a task: with several, results that differ go to trial over one of them.
    #[arg(long, value_name = "N", default_value_t = 0)]
    steps: u32,
    /// Average time of a task on an average machine, in milliseconds.
    #[arg(long, value_name = "N", default_value_t = Options::default().task_ms)]
    task_ms: u64,
    /// Part of what the machines can do that is asked of them; above 1 there is always more to do than they can.
    #[arg(long, value_name = "SHARE", default_value = "0.6", value_parser = load)]
    load: u32,
    /// How often a machine keeps a state of a task with several segments, in milliseconds; 0 for never.
    #[arg(long, value_name = "N", default_value_t = Options::default().checkpoint_ms)]
    checkpoint_ms: u64,
    /// Share of liars, 0.2 for a fifth; of what, the adversary says. With --sweep several, by commas.
    #[arg(long, value_name = "SHARE", value_delimiter = ',', value_parser = share)]
    liars: Vec<u32>,
    /// Who works against the grid, several by commas; `all` for a run of each, `list` to list them.
    #[arg(long, value_name = "WORD", value_delimiter = ',', default_value = "rare-cheat")]
    adversary: Vec<String>,
    /// How results are checked: audit, quorum:K or none.
    #[arg(long, value_name = "POLICY", default_value = "audit")]
    policy: Policy,
    /// Liars begin with as much standing as the honest.
    #[arg(long)]
    established: bool,
    /// Liars that were caught do not come back under another name.
    #[arg(long)]
    no_re_entry: bool,
    /// Checked tasks that each operator begins with; 0 for a grid that begins with nothing.
    #[arg(long, value_name = "N", default_value_t = 60_000)]
    shown: u64,
    /// Share of honest operators that begin with none.
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    newcomers: u32,
    /// Stake of every operator, in tasks, each of which costs a credit; 0 where nobody pays for anything.
    #[arg(long, value_name = "TASKS", default_value_t = Options::default().stake_tasks)]
    stake: u64,
    /// A configuration file: the grid decides by its section `[grid]`, but for whom its owner answers for.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What one task in a hundred costs, in tasks: the dear ones.
    #[arg(long, value_name = "TASKS", default_value_t = Options::default().dear)]
    dear: u64,
    /// What becomes of messages: calm, or harsh (a tenth lost, half of the hosts cut off now and then).
    #[arg(long, default_value = "calm")]
    network: NetworkWord,
    /// What becomes of hosts: none, or usual (a tenth come and go, some are slow, fail or crash).
    #[arg(long, default_value = "none")]
    trouble: TroubleWord,
    /// The same seed is the same run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// So many runs, with this and the following seeds.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seeds: u64,
    /// Run over several shares of liars: those of --liars, or 0 to 0.5.
    #[arg(long)]
    sweep: bool,
    /// Draw wrong results and cost against liars into an SVG file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write one JSON value to standard output, for programs.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum NetworkWord {
    Calm,
    Harsh,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TroubleWord {
    None,
    Usual,
}

/// A share as people write it, in parts per million.
fn share(text: &str) -> Result<u32, String> {
    let share: f64 = text.parse().map_err(|_| "expected a share, e.g. 0.2 for a fifth".to_owned())?;
    if (0.0..=1.0).contains(&share) {
        Ok((share * f64::from(PPM)).round() as u32)
    } else {
        Err("a share lies between 0 and 1".to_owned())
    }
}

/// The same, of what may be more than all.
fn load(text: &str) -> Result<u32, String> {
    let load: f64 = text.parse().map_err(|_| "expected a share, e.g. 0.6, or 1.5 for more than all".to_owned())?;
    if (0.0..=10.0).contains(&load) {
        Ok((load * f64::from(PPM)).round() as u32)
    } else {
        Err("a load lies between 0 and 10".to_owned())
    }
}

pub(super) async fn run(args: SimArgs) -> Outcome {
    if args.adversary == ["list"] {
        let row = |(_, word, about): &(Adversary, &str, &str)| vec![(*word).to_owned(), (*about).to_owned()];
        let rows: Vec<_> = sim::adversary::LIST.iter().map(row).collect();
        output::table(&["adversary", "what it does"], &rows)?;
        return Ok(Exit::Ok);
    }
    // It keeps its threads busy and waits for nothing.
    let done = tokio::task::spawn_blocking(move || simulate(&args)).await;
    done.unwrap_or_else(|_| Err(CliError::Failed("simulating panicked".to_owned())))
}

fn simulate(args: &SimArgs) -> Outcome {
    let (liars, seeds) = (liars(args), args.seed..args.seed.saturating_add(args.seeds.max(1)));
    let config = Config::load(args.config.as_deref()).map_err(|error| CliError::Usage(error.to_string()))?.grid;
    let mut plan = Vec::new();
    for adversary in adversaries(&args.adversary)? {
        plan.extend(sweep::plan(&options(args, &config, adversary)?, &liars, seeds.clone()));
    }
    let watch = Stopwatch::start();
    let reports = run_all(&plan).map_err(|broken| CliError::Failed(broken.to_string()))?;
    let seconds = watch.elapsed().as_secs_f64();
    let points = sweep::points(&reports);
    if let Some(path) = &args.svg {
        let drawn = std::fs::write(path, chart::svg(&points));
        drawn.map_err(|source| CliError::File { path: path.clone(), source })?;
    }
    match (reports.as_slice(), args.json) {
        ([report], true) => output::json(report)?,
        (_, true) => output::json(&points)?,
        ([report], false) => output::line(report.to_string().trim_end())?,
        (_, false) => output::line(Table(&points).to_string().trim_end())?,
    }
    let events: u64 = reports.iter().map(|report| report.events).sum();
    output::note(&format!("{events} events in {seconds:.1} s, {:.0} a second", events as f64 / seconds));
    Ok(Exit::Ok)
}

fn liars(args: &SimArgs) -> Vec<u32> {
    let sweep = SWEEP.map(|share| (share * f64::from(PPM)).round() as u32);
    match (args.liars.as_slice(), args.sweep) {
        ([], true) => sweep.to_vec(),
        ([], false) => vec![200_000],
        (given, true) => given.to_vec(),
        ([first, ..], false) => vec![*first],
    }
}

fn adversaries(words: &[String]) -> Result<Vec<Adversary>, CliError> {
    if words == ["all"] {
        return Ok(sim::adversary::LIST.iter().map(|(adversary, ..)| *adversary).collect());
    }
    words.iter().map(|word| word.parse().map_err(|error| CliError::Usage(format!("{error}")))).collect()
}

fn options(args: &SimArgs, config: &grid::config::Config, adversary: Adversary) -> Result<Options, CliError> {
    let defaults = Options::default();
    let options = Options {
        seed: args.seed,
        hosts: args.hosts,
        operators: args.operators.unwrap_or(args.hosts),
        vouched: args.vouched,
        slots: args.slots,
        tasks: args.tasks,
        job_tasks: args.job_tasks,
        task_ms: args.task_ms,
        steps: args.steps,
        checkpoint_ms: args.checkpoint_ms,
        load_ppm: args.load,
        policy: args.policy,
        adversary,
        liars_ppm: liars(args).into_iter().max().unwrap_or(0),
        liars_established: args.established,
        re_entry_ms: defaults.re_entry_ms.filter(|_| !args.no_re_entry),
        shown_tasks: args.shown,
        newcomers_ppm: args.newcomers,
        stake_tasks: args.stake,
        dear: args.dear,
        config: config.clone(),
        network: match args.network {
            NetworkWord::Calm => Network::default(),
            NetworkWord::Harsh => Network::harsh(),
        },
        trouble: match args.trouble {
            TroubleWord::None => Trouble::default(),
            TroubleWord::Usual => Trouble::usual(),
        },
        check_every_events: defaults.check_every_events,
    };
    options.check().map_err(|error| CliError::Usage(error.to_string()))?;
    Ok(options)
}

/// Runs all of them, as many at a time as there are cores; the reports in the order of the plan.
fn run_all(plan: &[Options]) -> Result<Vec<Report>, Broken> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(plan.len())));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(plan.len()) {
            scope.spawn(|| {
                while let Some((index, options)) = take(&next, plan) {
                    let report = sim::run(options);
                    // One that broke is enough.
                    if report.is_err() {
                        next.store(plan.len(), Ordering::Relaxed);
                    }
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((index, report));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, report)| report).collect()
}

fn take<'a>(next: &AtomicUsize, plan: &'a [Options]) -> Option<(usize, &'a Options)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    Some((index, plan.get(index)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_between_nothing_and_all() {
        assert_eq!((share("0.2"), share("0"), share("1")), (Ok(200_000), Ok(0), Ok(1_000_000)));
        for text in ["1.1", "-0.1", "a fifth", ""] {
            assert!(share(text).is_err(), "{text}");
        }
        assert_eq!((load("1.3"), load("0.6")), (Ok(1_300_000), Ok(600_000)));
        assert!(load("11").is_err() && load("much").is_err());
    }

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: SimArgs,
    }

    #[test]
    fn a_grid_decides_by_the_configuration_that_it_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("quorate.toml");
        let args = ["sim", "--tasks", "300", "--hosts", "20", "--liars", "0", "--config", file.to_str().unwrap()];
        let args = <Cli as clap::Parser>::parse_from(args).args;
        assert!(matches!(simulate(&args), Err(CliError::Usage(said)) if said.contains("quorate.toml")));
        std::fs::write(&file, "[grid.audit]\nrate_ppm_min = 1000000\n").unwrap();
        let config = Config::load(args.config.as_deref()).unwrap().grid;
        let options = options(&args, &config, Adversary::RareCheat).unwrap();
        let report = sim::run(&options).unwrap();
        assert_eq!((report.accepted, report.executions.audits), (300, 300));
    }

    #[test]
    fn runs_come_back_in_the_order_of_the_plan_whatever_thread_they_were_on() {
        let options = Options { hosts: 20, operators: 20, tasks: 200, job_tasks: 50, ..Options::default() };
        let plan = sweep::plan(&options, &[0, 200_000], 1..4);
        let reports = run_all(&plan).unwrap();
        let of = |report: &Report| (report.liars_ppm, report.seed);
        let expected: Vec<_> = plan.iter().map(|options| (options.liars_ppm, options.seed)).collect();
        assert_eq!(reports.iter().map(of).collect::<Vec<_>>(), expected);
    }
}
