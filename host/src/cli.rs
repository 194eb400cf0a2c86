//! The command line: one file a verb, and nothing but talk. Work is done by [`crate::client`], `registry` and the nodes.
//!
//! - `exit`: errors and exit codes; `output`: tables, JSON, progress; `connect`: where the coordinator is; `paths`: where
//!   files are by default; `parse`: what arguments mean; `folder`: where a task's files go.
//! - Verbs that ask a coordinator: `push submit jobs job results receipt ledger nodes reputation why cancel names
//!   yank`.
//! - Verbs that need no grid: `run doctor calibrate sim completions`, `receipt verify`, `receipt replay`, `dispute make`, `dispute
//!   replay`, `bill verify` and `reputation verify`.
//! - Verbs that are a process of the grid: `up node demo`. Their arguments are values that `node` and `demo` take.
//!
//! Results go to standard output, everything else to standard error. With `--json` standard output is one JSON value.

mod bill;
mod calibrate;
mod cancel;
mod completions;
mod connect;
pub mod demo;
mod dispute;
mod doctor;
mod exit;
mod folder;
mod job;
mod jobs;
mod ledger;
mod names;
pub mod node;
mod nodes;
mod output;
mod parse;
pub mod paths;
mod push;
mod quote;
mod receipt;
mod reputation;
mod results;
mod run;
mod sim;
mod submit;
pub mod up;
mod wait;
mod why;
mod yank;

use std::{io::IsTerminal, process::ExitCode};

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

pub use self::exit::{CliError, Exit};
use crate::lint;

/// Environment variable that says what is logged.
const LOG_VARIABLE: &str = "QUORATE_LOG";
/// What is logged when it does not say. A store that shuts down ends its collector by letting one run fail, which
/// iroh-blobs would report as an error.
const LOGGED: &str = "warn,host=info,registry=info,iroh_blobs::store::gc=off";

/// What a verb did.
type Outcome = Result<Exit, CliError>;

#[derive(Debug, Parser)]
#[command(name = "quorate", version, about = "A WebAssembly compute grid: sandboxed, content-addressed, verified.", after_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a coordinator, with hosts on this machine if wanted.
    Up(up::UpArgs),
    /// Run tasks for a grid.
    Node(node::NodeArgs),
    /// Run one task on this machine, as a host would.
    Run(run::RunArgs),
    /// Say what this machine has for running tasks, and what to do about what it lacks.
    Doctor(doctor::DoctorArgs),
    /// Measure how far the backends of this machine differ on a model.
    Calibrate(calibrate::CalibrateArgs),
    /// Upload a module, a model or any file; publish it under a name.
    Push(push::PushArgs),
    /// Run a module over an input.
    Submit(submit::SubmitArgs),
    /// List jobs, the latest first.
    Jobs(jobs::JobsArgs),
    /// Show one job.
    Job(job::JobArgs),
    /// Fetch what a job wrote.
    Results(results::ResultsArgs),
    /// List, fetch and check receipts.
    #[command(subcommand)]
    Receipt(receipt::ReceiptVerb),
    /// Settle two receipts that differ by the one segment in which they do.
    #[command(subcommand)]
    Dispute(dispute::DisputeVerb),
    /// Show who has which credits; bring and take some, and see what happened to them.
    Ledger(ledger::LedgerArgs),
    /// Check what a job cost.
    #[command(subcommand)]
    Bill(bill::BillVerb),
    /// List hosts and how they did.
    Nodes(nodes::NodesArgs),
    /// List operators and what they have shown; export and check how they came to it.
    Reputation(reputation::ReputationArgs),
    /// Say why a shard is where it is.
    Why(why::WhyArgs),
    /// Stop a job.
    Cancel(cancel::CancelArgs),
    /// List published names, or show what one stands for.
    Names(names::NamesArgs),
    /// Withdraw a published version; new jobs cannot use it.
    Yank(yank::YankArgs),
    /// Write a completion script for a shell.
    Completions(completions::CompletionsArgs),
    /// Show a grid catch a liar, on this machine.
    Demo(demo::DemoArgs),
    /// Simulate a grid with liars, on virtual time, with the code that decides in the field.
    Sim(sim::SimArgs),
    /// Run a part of the determinism lint of `push`, in a process of its own.
    #[command(name = lint::CHILD_VERB, hide = true)]
    LintChild,
}

/// Runs the verb that the arguments name.
pub fn main() -> ExitCode {
    // Before there is anything that a jail would leave outside.
    #[cfg(target_os = "linux")]
    if let Some(code) = crate::sandbox::child::run_if_asked() {
        return code;
    }
    crate::sandbox::silence();
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new(LOGGED));
    // Only a second subscriber in one process fails, and there is none.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
    let verb = Cli::parse().verb;
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)
        .and_then(|runtime| runtime.block_on(run(verb)));
    exit::report(done)
}

async fn run(verb: Verb) -> Outcome {
    match verb {
        Verb::Up(args) => up::run(args).await,
        Verb::Node(args) => node::run(args).await,
        Verb::Run(args) => run::run(args).await,
        Verb::Doctor(args) => doctor::run(args).await,
        Verb::Calibrate(args) => calibrate::run(args).await,
        Verb::Push(args) => push::run(args).await,
        Verb::Submit(args) => submit::run(args).await,
        Verb::Jobs(args) => jobs::run(args).await,
        Verb::Job(args) => job::run(args).await,
        Verb::Results(args) => results::run(args).await,
        Verb::Receipt(verb) => receipt::run(verb).await,
        Verb::Dispute(verb) => dispute::run(verb).await,
        Verb::Ledger(args) => ledger::run(args).await,
        Verb::Bill(verb) => bill::run(verb).await,
        Verb::Nodes(args) => nodes::run(args).await,
        Verb::Reputation(args) => reputation::run(args).await,
        Verb::Why(args) => why::run(args).await,
        Verb::Cancel(args) => cancel::run(args).await,
        Verb::Names(args) => names::run(args).await,
        Verb::Yank(args) => yank::run(args).await,
        Verb::Completions(args) => completions::run(&args),
        Verb::Demo(args) => demo::run(args).await,
        Verb::Sim(args) => sim::run(args).await,
        Verb::LintChild => push::lint_child(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent_and_every_verb_has_help() {
        Cli::command().debug_assert();
        for verb in Cli::command().get_subcommands() {
            assert!(verb.get_about().is_some(), "{} has no help", verb.get_name());
        }
    }

    #[test]
    fn the_help_lists_every_exit_code() {
        let help = Cli::command().render_long_help().to_string();
        for exit in exit::ALL {
            assert!(help.contains(&format!("  {}  ", exit.code())), "{exit:?} is not in the help");
        }
    }
}
